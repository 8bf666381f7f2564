"""Files of series in: CSV, netCDF, `.npy`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from dsrecon._checks import several_names
from dsrecon.series import TIME_COLUMNS, Series
from dsrecon.series.convert import row_number
from dsrecon.series.door import checked

TIME_NAMES = ("t", *TIME_COLUMNS)
"""Names under which a column of a CSV file is taken as time (any case)."""


def read_series(
    path: str | os.PathLike,
    *,
    columns: Sequence[str] | None = None,
    time_step: float | None = None,
    resample: float | None = None,
    calendar: bool = False,
) -> Series:
    """A series from a file, checked as `as_series` does.

    **Arguments:**

    - `path`: `.csv` (a header line; separated by commas, semicolons or tabs, whichever the header has most of; decimal
      commas are read beside semicolons; an empty cell is missing; a column named time, t, date, datetime or timestamp
      is time), `.nc` (variables along `time`, or one of `[time, variable]`), or `.npy` (`[time]` or
      `[time, variable]`).
    - `columns`: variables to take, by name, one or several (of a `.npy` file: `x0`, `x1`, ...); all by default.
    - `time_step`: time between samples, where the file has no times; `resample`: as in `as_series`.
    - `calendar`: take months, quarters and working days as steps, as in `as_series`.

    **Raises:** `FileNotFoundError`; `ValueError` for another kind of file, an unknown or empty choice of columns,
    a file that cannot be read as its ending says, and all that `as_series` refuses; of a CSV file with the line, as an
    editor counts it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}.")
    readers = {".csv": _csv, ".nc": _netcdf, ".npy": _npy}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path.name} must end in one of {', '.join(readers)}: got {path.suffix or 'no ending'!r}.")
    if columns is not None and not columns:
        raise ValueError("columns must name at least one column: got none.")
    columns = None if columns is None else several_names(columns)
    data = readers[path.suffix.lower()](path, columns)
    where = _lines(path, len(data)) if path.suffix.lower() == ".csv" else row_number
    return checked(data, time_step=time_step, resample=resample, calendar=calendar, where=where)


def _lines(path: Path, rows: int) -> Callable[[int], str]:
    """In which line of a CSV file a row of its table stands, counted as editors do: the names are in line 1."""
    with open(path, encoding="utf-8-sig") as file:
        held = [number for number, line in enumerate(file, 1) if line.strip()]
    one_each = len(held) == rows + 1  # not so where a cell goes over several lines
    return lambda row: f"line {held[row + 1]}" if one_each else row_number(row)


def _chosen(found: Sequence[str], columns: Sequence[str] | None, path: Path) -> list[str]:
    unknown = [c for c in columns or () if c not in found]
    if unknown:
        raise ValueError(f"{path.name} has no column {unknown[0]!r}: it has {', '.join(map(repr, found))}.")
    return list(columns or found)


def _csv(path: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    try:
        with open(path, encoding="utf-8-sig") as file:
            head, first = file.readline(), file.readline()
        separator = max(",;\t", key=head.count)
        decimal = "," if separator == ";" and "," in first and "." not in first else "."
        frame = pd.read_csv(
            path,
            sep=separator,
            decimal=decimal,
            skipinitialspace=True,
            encoding="utf-8-sig",
            float_precision="round_trip",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read as CSV: {error}") from error
    if frame.empty:
        raise ValueError(f"{path.name} must hold rows below its line of names: it holds none.")
    frame.columns = [str(c) for c in frame.columns]
    if all(_is_number(c) for c in frame.columns):
        raise ValueError(f"{path.name} must begin with a line of column names: got numbers, {list(frame.columns)}.")
    times = [c for c in frame.columns if c.lower() in TIME_NAMES]
    if times:
        index = frame.pop(times[0])
        frame.index = pd.Index(index if pd.api.types.is_numeric_dtype(index) else _dates(index, path))
    return frame.loc[:, _chosen(list(frame.columns), columns, path)]


def _dates(column: pd.Series, path: Path) -> pd.DatetimeIndex:
    try:
        return pd.DatetimeIndex(pd.to_datetime(column, format="ISO8601"))
    except (ValueError, TypeError) as error:
        strange = (pd.to_datetime(column, format="ISO8601", errors="coerce").isna() & column.notna()).to_numpy()
        row = int(np.argmax(strange))
        told = f"got {column.iloc[row]!r} at {_lines(path, len(column))(row)}." if strange.any() else str(error)
        raise ValueError(
            f"{path.name}: column {column.name!r} must hold numbers or dates (2020-01-31 13:00): {told}"
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _netcdf(path: Path, columns: Sequence[str] | None) -> xr.DataArray:
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            data = file.load()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read as netCDF 4: {error}") from error
    tables = [v for v in data.data_vars.values() if v.ndim == 2 and "time" in v.dims]
    if tables:
        table = tables[0].transpose("time", ...)
        other = str(table.dims[1])
        if other not in table.coords:
            table = table.assign_coords({other: [f"x{i}" for i in range(table.shape[1])]})
        names = [str(v) for v in table[other].values]
        chosen = _chosen(names, columns, path)
        return table.isel({other: [names.index(c) for c in chosen]})
    series = [str(n) for n, v in data.data_vars.items() if v.dims == ("time",)]
    if not series:
        raise ValueError(f"{path.name} must hold a variable along 'time': it has dimensions {dict(data.sizes)}.")
    return data[_chosen(series, columns, path)].to_dataarray("variable").transpose("time", "variable")


def _npy(path: Path, columns: Sequence[str] | None) -> np.ndarray | pd.DataFrame:
    try:
        values = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read as a plain .npy array: {error}") from error
    if columns is None or values.ndim != 2:
        return values
    names = [f"x{i}" for i in range(values.shape[1])]
    chosen = _chosen(names, columns, path)
    return pd.DataFrame(values[:, [names.index(c) for c in chosen]], columns=chosen)
