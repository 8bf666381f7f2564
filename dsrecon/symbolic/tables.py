"""Coded sequences as files: netCDF and JSON hold everything, CSV the sequence and what it shows."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

from dsrecon.symbolic.document import column, damage_named, dumped, packed, parsed, plain, typed, unpacked, variable
from dsrecon.symbolic.symbols import run_lengths, transitions

JSON_FORMAT, CSV_FORMAT, VERSION = "dsrecon-symbols", "dsrecon-symbols-csv", 1

_DWELL = {
    "dwell_mean": "mean",
    "dwell_median": "median",
    "dwell_count": "count",
    "dwell_censored": "censored",
}
_TABLES = ("transition_probability", "transition_count", "from", "to", *_DWELL)
_DENSE = 1000  # regions up to which the file holds the matrix: it grows with their square
_NEEDED = ("symbol", "bits", "visits", "mean", "A", "h", "observation")
_SHOWN = ("symbol", "observation")  # what a CSV file holds


def netcdf(dataset: xr.Dataset, *, packed: bool = False) -> bytes:
    """A `Dataset` as netCDF 4, made in memory: HDF5 that runs out of disk while it closes a file takes the
    interpreter with it. `packed`: arrays are compressed."""
    encoding = {
        name: {"zlib": True, "complevel": 4}
        for name, variable in dataset.data_vars.items()
        if packed and variable.ndim and variable.size
    }
    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        dataset.dump_to_store(H5NetCDFStore(file), encoding=encoding)
    return buffer.getvalue()


def symbols_netcdf(encoded: xr.Dataset) -> bytes:
    """All that `encode` gave, and the tables that follow from it, for other programs."""
    dwell = run_lengths(encoded)
    tables = encoded.assign({name: dwell[column] for name, column in _DWELL.items()})
    if encoded.sizes["region"] <= _DENSE:
        matrix = transitions(encoded)
        tables = tables.assign(
            transition_probability=matrix.drop_vars("count"), transition_count=matrix["count"].variable
        )
    return netcdf(tables, packed=True)


def from_netcdf(path: str | os.PathLike) -> xr.Dataset:
    """What `symbols_netcdf` holds of `encode`."""
    content = Path(path).read_bytes()
    try:
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as file:
            found = file.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not netCDF 4, or was cut off: {error}.") from error
    _complete(found, path)
    for part in (found, *found.variables.values()):
        part.attrs = {name: _scalar(value) for name, value in part.attrs.items()}
    return found.drop_vars([name for name in _TABLES if name in found.variables])


def symbols_json(encoded: xr.Dataset) -> bytes:
    """All that `encode` gave."""
    _complete(encoded, "encoded")
    document = {"format": JSON_FORMAT, "version": VERSION, "attributes": packed(encoded.attrs)}
    for part, names in (("coordinates", encoded.coords), ("variables", encoded.data_vars)):
        document[part] = {str(name): column(encoded[name].variable) for name in names}
    return dumped(document)


def from_json(path: str | os.PathLike) -> xr.Dataset:
    """What `symbols_json` made."""
    document = parsed(Path(path).read_bytes(), path, JSON_FORMAT, VERSION)
    with damage_named(path):
        parts = [{k: variable(v) for k, v in document[p].items()} for p in ("variables", "coordinates")]
        found = xr.Dataset(*parts, attrs=unpacked(document["attributes"]))
        _complete(found, path)
    return found


def symbols_csv(encoded: xr.Dataset) -> bytes:
    """The sequence: `time`, `symbol` and the observed variables, a row a step, below a comment of one line.

    The comment is JSON and keeps what a table cannot: time step, units, types and the number of rows.
    """
    missing = [name for name in ("time", *_SHOWN) if name not in encoded.variables]
    if missing:
        raise ValueError(f"encoded must hold time, symbol and observation: it lacks {missing}.")
    shown = encoded[list(_SHOWN)]
    steps = ("time", *_SHOWN)
    document: dict[str, Any] = {"format": CSV_FORMAT, "version": VERSION, "attributes": packed(shown.attrs)}
    document["columns"] = {name: column(shown[name].variable, values=False) for name in steps}
    document["coordinates"] = {str(k): column(shown[k].variable) for k in shown.coords if k != "time"}
    time = np.array(column(shown["time"].variable)["values"], object)
    rows = zip(
        time, shown["symbol"].values.tolist(), *shown["observation"].values.T.astype(float).tolist(), strict=True
    )
    text = io.StringIO(newline="")
    text.write("# " + json.dumps(document, allow_nan=False) + "\n")
    names = ["time", "symbol", *shown["variable"].values.tolist()]
    text.write(",".join(n if n.isidentifier() else '"' + n.replace('"', '""') + '"' for n in names) + "\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def from_csv(path: str | os.PathLike) -> xr.Dataset:
    """What `symbols_csv` holds: `encoded[["symbol", "observation"]]`, identical."""
    content = Path(path).read_bytes()
    comment, _, body = content.partition(b"\n")
    if not comment.startswith(b"# {"):
        raise ValueError(f"{path} holds no symbols: its first line must be the comment of {CSV_FORMAT!r}.")
    document = parsed(comment[2:], path, CSV_FORMAT, VERSION)
    with damage_named(path):
        if not body.endswith(b"\n"):
            raise ValueError("its last line is cut off.")
        head, *rows = csv.reader(io.StringIO(body.decode(), newline=""), strict=True)
        coords = {k: variable(v) for k, v in document["coordinates"].items()}
        names = ["time", "symbol", *coords["variable"].values.tolist()]
        if head != names:
            raise ValueError(f"its columns must be {names}: got {head}.")
        (steps,) = document["columns"]["symbol"]["shape"]
        if len(rows) != steps or {len(row) for row in rows} - {len(names)}:
            raise ValueError(f"it must hold {steps} rows of {len(names)} values: it holds {len(rows)}.")
        cells = {
            "time": [row[0] for row in rows],
            "symbol": [row[1] for row in rows],
            "observation": [cell for row in rows for cell in row[2:]],
        }
        made = {name: _column(cells[name], document["columns"][name]) for name in cells}
        coords["time"] = made.pop("time")
        return xr.Dataset(made, coords, unpacked(document["attributes"]))


def _column(cells: list[str], about: dict[str, Any]) -> xr.Variable:
    """Cells of a CSV file as the variable that `column` told of."""
    kind = about["type"]
    read = str if kind.startswith("datetime") else float if kind.startswith("float") else int
    values = [read(cell) if cell else None for cell in cells]
    return xr.Variable(about["dims"], typed(values, kind).reshape(about["shape"]), unpacked(about["attributes"]))


def _complete(found: xr.Dataset, path: str | os.PathLike) -> None:
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise ValueError(f"{path} holds no symbols: it lacks {missing} (it has {sorted(map(str, found))}).")


def _scalar(value: Any) -> Any:
    return plain(value, "") if isinstance(value, np.generic) else value
