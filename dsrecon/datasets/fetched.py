"""Real series that are fetched once, checked by SHA-256 at every load, and kept in a folder."""

import io
import os
from pathlib import Path

import pandas as pd
import xarray as xr

from dsrecon.datasets.catalogue import CATALOGUE, Entry, checked
from dsrecon.series import as_series, labelled

FOLDER_VARIABLE = "DSRECON_DATA"
"""Environment variable that names the folder of fetched files."""


def ett(name: str = "ETTh1") -> xr.DataArray:
    """Electricity transformer temperature: oil temperature and six loads over two years, as real dates.

    `ETTh1`, `ETTh2`: two stations in China, hourly, 17,420 samples from 2016-07-01; `ETTm1`, `ETTm2`: the same
    stations every 15 minutes, 69,680 samples. `OT` is the oil temperature (the usual target); `HUFL`, `HULL`, `MUFL`,
    `MULL`, `LUFL`, `LULL` the high, middle and low, useful and useless loads. The source states no units.

    The file is read from `cache_folder()` where it is there, and fetched into it once otherwise (extra
    `dsrecon[fetch]`). Licence: CC BY-ND 4.0 (https://creativecommons.org/licenses/by-nd/4.0/): not bundled, and what
    is derived from it is not to be shared.

    **Arguments:** `name`: `"ETTh1"`, `"ETTh2"`, `"ETTm1"` or `"ETTm2"`.

    **Returns:** `DataArray(time, variable)` `[17420, 7]` or `[69680, 7]`, times `datetime64[ns]`.

    **Raises:** `ValueError` for another name, and for a file (in the folder, or as it comes from the network) whose
    SHA-256 is not the known one; `ImportError` where it must be fetched and pooch is not installed; `ConnectionError`
    where it cannot be fetched.

    Reference: Zhou et al. 2021, *Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting*,
    AAAI, arXiv:2012.07436.
    """
    names = [n for n, entry in CATALOGUE.items() if entry.url]
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}: got {name!r}.")
    entry = CATALOGUE[name]
    table = pd.read_csv(io.BytesIO(fetch(entry)), index_col="date", parse_dates=["date"])
    series = as_series(table[list(entry.variables)])
    attrs = {"source": entry.source, "licence": entry.licence, "sha256": entry.sha256}
    return labelled(series.values, series.names, series.clock, units=entry.units, attrs=attrs).rename(name)


def cache_folder() -> Path:
    """The folder of fetched files: `$DSRECON_DATA` where that is set, else the cache folder of the system.

    **Raises:** `ImportError` where the variable is not set and pooch, which knows the system's, is not installed.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).expanduser() if given else Path(_pooch().os_cache("dsrecon"))


def fetch(entry: Entry) -> bytes:
    """The bytes of an entry's file, from `cache_folder()` or, where it is not there, from `entry.url`.

    A file in the folder is never overwritten, and a download whose checksum is wrong never reaches it.

    **Raises:** as `ett`.
    """
    path = cache_folder() / entry.file
    if not path.exists():
        _download(entry, path)
    return checked(path, entry.sha256)


def _download(entry: Entry, path: Path) -> None:
    pooch = _pooch()
    from requests.exceptions import RequestException

    try:
        pooch.retrieve(entry.url, f"sha256:{entry.sha256}", fname=path.name, path=path.parent)
    except RequestException as error:
        raise ConnectionError(
            f"{entry.file} cannot be fetched from {entry.url}: {error}. Without a network, put the file "
            f"(SHA-256 {entry.sha256}) into {path.parent}; {FOLDER_VARIABLE} names another folder."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{entry.file} as fetched from {entry.url} is not the file that dsrecon knows. It was thrown away, and "
            f"{path.parent} does not hold it. {error}"
        ) from error


def _pooch():
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "fetching data sets needs pooch, which is not installed: pip install 'dsrecon[fetch]'. "
            f"Or put the file into a folder and name that folder in {FOLDER_VARIABLE}."
        ) from error
    return pooch
