"""Tables, times, names and units out of pandas and xarray."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

TIME_COLUMNS = ("time", "date", "datetime", "timestamp")
"""Names (any case) that are taken for time, not for a variable."""


def from_xarray(data: xr.DataArray):
    """Table, times, names, units of the variables and unit of time (`None` or "" where the array does not say)."""
    if data.ndim == 0:
        raise ValueError("data must have shape [time] or [time, variable]: got shape ().")
    if "time" in data.dims:
        data = data.transpose("time", ...)
    time = data.dims[0]
    times = data[time].values if time in data.coords else None
    found = units = None
    if data.ndim == 2:
        variable = data.dims[1]
        found = [str(v) for v in data[variable].values] if variable in data.coords else None
        if "unit" in data.coords and data["unit"].dims == (variable,):
            units = [str(u) for u in data["unit"].values]
    elif data.ndim == 1 and data.name is not None:
        found = [str(data.name)]
    unit = str(data.attrs.get("time_unit", "")) or str(data[time].attrs.get("units_of_time", ""))
    return data.values, times, found, units, unit


def row_number(row: int) -> str:
    """Where a row of data is, in words."""
    return f"row {row}"


def from_pandas(data: pd.Series | pd.DataFrame, where: Callable[[int], str] = row_number):
    """The same of a pandas object: its index is time; `where` says where a row is."""
    frame = data.to_frame() if isinstance(data, pd.Series) else data
    for name, dtype in frame.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
            row, bad = first_word(frame[name].tolist())
            raise ValueError(
                f"column {str(name)!r} must hold numbers: got {dtype} ({bad!r} at {where(row)}). "
                "Convert it, or choose the columns to fit (on the command line: --columns)."
            )
    index = frame.index
    looks = [str(c) for c in frame.columns if str(c).lower() in TIME_COLUMNS]
    if looks and isinstance(index, pd.RangeIndex):
        raise ValueError(
            f"column {looks[0]!r} looks like the time, not a variable: use data.set_index({looks[0]!r}), or rename it."
        )
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    zone = getattr(index, "tz", None)
    if zone is not None:
        raise ValueError(
            f"times must not carry a time zone (got {zone}): write them in UTC without one; in pandas: "
            "index.tz_convert('UTC').tz_localize(None)."
        )
    plain = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    unnamed = isinstance(frame.columns, pd.RangeIndex) or (isinstance(data, pd.Series) and data.name is None)
    found = None if unnamed else [str(c) for c in frame.columns]
    return values, None if plain else index.to_numpy(), found, None, ""


def first_word(values: list[Any]) -> tuple[int, Any]:
    """Row and value of the first entry that is no real number (the first entry where all are, read as text)."""
    for row, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            return row, value
    return 0, values[0] if values else ""
