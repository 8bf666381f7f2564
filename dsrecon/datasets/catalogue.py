"""What data sets there are: name, size, licence, checksum; and the check itself."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

ETT_COMMIT = "1d16c8f4f943005d613b5bc962e9eeb06058cf07"
"""The commit of github.com/zhouhaoyi/ETDataset that the files are taken from."""


class Entry(NamedTuple):
    """What is known of a data set before it is read.

    - `file`: its name; `sha256`: checksum of the whole file, lower-case hexadecimal.
    - `samples`, `variables`, `units` (`""` where there is none, or the source states none).
    - `time_step` between samples, in `time_unit`.
    - `licence`, `source`: also among the attributes of what is loaded.
    - `url`: where it is fetched from; `""` where it is bundled.
    """

    file: str
    sha256: str
    samples: int
    variables: tuple[str, ...]
    units: tuple[str, ...]
    time_step: float
    time_unit: str
    licence: str
    source: str
    url: str = ""


CATALOGUE: dict[str, Entry] = {
    "ecg": Entry(
        file="ecg.npz",
        sha256="f20ad3365fb9b7f845d0e5c48b6fe67081377ee466c3a220b7f69f35c8958baf",
        samples=108_000,
        variables=("MLII",),
        units=("mV",),
        time_step=1 / 360,
        time_unit="s",
        licence="Open Data Commons Attribution License v1.0 (ODC-By 1.0)",
        source=(
            "MIT-BIH Arrhythmia Database, record 208, lead MLII, 19:35 to 24:35 (Moody & Mark 2001, "
            "doi:10.13026/C2F305), PhysioNet (Goldberger et al. 2000, doi:10.1161/01.CIR.101.23.e215); "
            "the excerpt that SciPy distributes as ecg.dat"
        ),
    ),
    "sunspots": Entry(
        file="sunspots_monthly.dat",
        sha256="cc303d26340b6d599bc2878899f8c50c12323dc04b52a26ad047965ea2b9d2a3",
        samples=3_120,
        variables=("sunspot number",),
        units=("",),
        time_step=1 / 12,
        time_unit="year",
        licence="public domain (as statsmodels states of NOAA's file); credit WDC-SILSO",
        source=(
            "International Sunspot Number, version 1, monthly means: NOAA National Geophysical Data Center, as "
            "distributed by statsmodels (sunspots_monthly.dat). Observed at Zurich to 1980, then WDC-SILSO, Royal "
            "Observatory of Belgium, Brussels"
        ),
    ),
    "nino": Entry(
        file="elnino.csv",
        sha256="b647be00e0fd264be9764e317e6b963f35030014ecca2b21b204521716e463ad",
        samples=732,
        variables=("SST",),
        units=("°C",),
        time_step=1 / 12,
        time_unit="year",
        licence="public domain (work of the United States government, NOAA)",
        source=(
            "Monthly mean sea surface temperature, region Nino 1+2 (0-10 S, 90-80 W), ERSST v3b: NOAA Climate "
            "Prediction Center, as distributed by statsmodels (elnino.csv)"
        ),
    ),
    **{
        name: Entry(
            file=f"{name}.csv",
            sha256=sha256,
            samples=17_420 if "h" in name else 69_680,
            variables=("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"),
            units=("",) * 7,
            time_step=3600.0 if "h" in name else 900.0,
            time_unit="s",
            licence="CC BY-ND 4.0",
            source=f"ETDataset (Zhou et al. 2021, arXiv:2012.07436), ETT-small/{name}.csv, commit {ETT_COMMIT[:7]}",
            url=f"https://raw.githubusercontent.com/zhouhaoyi/ETDataset/{ETT_COMMIT}/ETT-small/{name}.csv",
        )
        for name, sha256 in {
            "ETTh1": "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
            "ETTh2": "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
            "ETTm1": "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
            "ETTm2": "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
        }.items()
    },
}
"""Every data set by name."""


def available() -> pd.DataFrame:
    """A table of the data sets, one row each.

    **Returns:** a `DataFrame` whose index is the name, with columns `samples`, `variables` (joined by spaces),
    `time_step`, `time_unit`, `where` (`"bundled"` or `"fetched"`), `licence`, `source`. `dsrecon.datasets.<name>()`
    loads a bundled one, `ett(<name>)` a fetched one.
    """
    rows = {
        name: {
            "samples": entry.samples,
            "variables": " ".join(entry.variables),
            "time_step": entry.time_step,
            "time_unit": entry.time_unit,
            "where": "fetched" if entry.url else "bundled",
            "licence": entry.licence,
            "source": entry.source,
        }
        for name, entry in CATALOGUE.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def checked(path: str | os.PathLike, sha256: str) -> bytes:
    """The bytes of the file at `path`, once their SHA-256 is known to be `sha256`.

    **Raises:** `FileNotFoundError`; `ValueError` that names the file, its path and both checksums where they differ.
    """
    path = Path(path)
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path.name} is not the file that dsrecon knows, and is not used: SHA-256 {found}, expected {sha256} "
            f"({path}). Move it away, then load again."
        )
    return data
