"""The door for data: a measured series in (NumPy, pandas, xarray), a labelled xarray out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import pandas as pd
import xarray as xr

TIME_COLUMNS = ("time", "date", "datetime", "timestamp")
"""Names (any case) that are taken for time, not for a variable."""


class Clock(eqx.Module):
    """Equidistant times: `origin + k * time_step`.

    - `time_step`: in the series' own unit of time; in seconds when the times are dates.
    - `origin`: time of sample 0: a number, or an ISO date for dates.
    - `unit`: unit of time as it is shown (`""` when unknown); `"datetime"` for dates.
    """

    time_step: float = eqx.field(static=True, default=1.0)
    origin: float | str = eqx.field(static=True, default=0.0)
    unit: str = eqx.field(static=True, default="")

    def times(self, steps: int, first: int = 0) -> np.ndarray:
        """Times of samples `first` to `first + steps - 1`: float64, or datetime64[ns] for dates."""
        k = np.arange(first, first + steps)
        if isinstance(self.origin, str):
            nanoseconds = np.round(k * (self.time_step * 1e9)).astype("timedelta64[ns]")
            return np.datetime64(self.origin, "ns") + nanoseconds
        return self.origin + k * self.time_step


class Series(NamedTuple):
    """A series on the host: `values` `[t, n]` float64, `names` of the `n` variables, `clock`, `units` of each."""

    values: np.ndarray
    names: tuple[str, ...]
    clock: Clock
    units: tuple[str, ...]

    def to_xarray(self) -> xr.DataArray:
        """As `labelled` gives it."""
        return labelled(self.values, self.names, self.clock, units=self.units)


def labelled(
    values: Any,
    names: Sequence[str],
    clock: Clock,
    *,
    first: int = 0,
    units: Sequence[str] = (),
    attrs: dict[str, Any] | None = None,
) -> xr.DataArray:
    """Values `[t, n]` as `DataArray(time, variable)` with real times and names.

    **Arguments:** `values`; `names` of the columns; `clock`; `first`: index of row 0 on that clock; `units` of
    the variables (a coordinate where any is known); `attrs` beside `time_step` and `time_unit`.
    """
    values = np.asarray(values)
    coords: dict[str, Any] = {"time": clock.times(len(values), first), "variable": list(names)}
    if any(units):
        coords["unit"] = ("variable", list(units))
    out = xr.DataArray(values, dims=("time", "variable"), coords=coords)
    out.attrs = {"time_step": clock.time_step, "time_unit": clock.unit or "", **(attrs or {})}
    if not isinstance(clock.origin, str) and clock.unit:
        out["time"].attrs["units_of_time"] = clock.unit
    return out


def as_series(data: Any, *, time_step: float | None = None, names: Sequence[str] | None = None) -> Series:
    """Any series that a user has, checked and in one form.

    **Arguments:**

    - `data`: array `[t]` or `[t, n]`; `pandas.Series` or `DataFrame` (its index is time); `xarray.DataArray`
      with a dimension `time` (or `[t, n]` without names), or `Dataset` of such variables; or a `Series`.
    - `time_step`: time between samples, where the data do not say (default 1).
    - `names`: names of the variables, where the data do not say (default `x0, x1, ...`).

    **Returns:** a `Series`.

    **Raises:** `ValueError` for columns that are not numbers, NaN or infinity, fewer than two samples, times that
    repeat, go back or are not equidistant, and contradictions between arguments and data. Each names what came in.
    """
    if isinstance(data, Series):
        return data
    if isinstance(data, list | tuple) and any(np.ndim(d) == 2 for d in data):
        raise ValueError("data must be one series: got a list of several trials, which is not supported yet.")
    if isinstance(data, xr.Dataset):
        data = data.to_dataarray("variable").transpose(..., "variable")
    if isinstance(data, xr.DataArray):
        table, times, found, units, unit = _from_xarray(data)
    elif isinstance(data, pd.Series | pd.DataFrame):
        table, times, found, units, unit = _from_pandas(data)
    else:
        table, times, found, units, unit = np.asarray(data), None, None, None, ""
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2:
        raise ValueError(f"data must have shape [time] or [time, variable]: got shape {table.shape}.")
    if 0 in table.shape:
        raise ValueError(f"data must not be empty: got shape {table.shape}.")
    names = _names(names, found, table.shape[1])
    values = _numbers(table, names)
    if len(values) < 2:
        raise ValueError(f"data must hold at least 2 samples: got {len(values)}.")
    if time_step is not None and not 0 < time_step < np.inf:
        raise ValueError(f"time_step must be positive and finite: got {time_step}.")
    clock = Clock(1.0 if time_step is None else time_step) if times is None else _clock(times, unit)
    if time_step is not None and not np.isclose(clock.time_step, time_step, rtol=1e-3, atol=0):
        raise ValueError(f"time_step={time_step} contradicts the times of data, {clock.time_step} apart.")
    _refuse_gaps(values, names, clock)
    return Series(values, names, clock, tuple(units or [""] * len(names)))


def _from_xarray(data: xr.DataArray):
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


def _from_pandas(data: pd.Series | pd.DataFrame):
    frame = data.to_frame() if isinstance(data, pd.Series) else data
    for name, dtype in frame.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
            row, bad = _first_word(frame[name].tolist())
            raise ValueError(
                f"column {str(name)!r} must hold numbers: got {dtype} ({bad!r} at row {row}). "
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
        raise ValueError(f"times must not carry a time zone (got {zone}): use tz_convert('UTC').tz_localize(None).")
    plain = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    unnamed = isinstance(frame.columns, pd.RangeIndex) or (isinstance(data, pd.Series) and data.name is None)
    found = None if unnamed else [str(c) for c in frame.columns]
    return values, None if plain else index.to_numpy(), found, None, ""


def _first_word(values: list[Any]) -> tuple[int, Any]:
    """Row and value of the first entry that is no real number (the first entry where all are, read as text)."""
    for row, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            return row, value
    return 0, values[0] if values else ""


def _names(given: Sequence[str] | None, found: list[str] | None, count: int) -> tuple[str, ...]:
    if given and found and tuple(given) != tuple(found):
        raise ValueError(f"names={tuple(given)} contradict those of data, {tuple(found)}. Rename the data instead.")
    names = tuple(given or found or [f"x{i}" for i in range(count)])
    if len(names) != count:
        raise ValueError(f"names must name the {count} columns of data: got {len(names)}, {names}.")
    if len(set(names)) < count:
        raise ValueError(f"names must differ: got {names}.")
    return names


def _numbers(table: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    if table.dtype.kind in "fiub":
        return np.asarray(table, np.float64)
    if table.dtype.kind == "c":
        raise ValueError(f"data must hold real numbers: got dtype {table.dtype}.")
    for name, column in zip(names, table.T, strict=True):
        try:
            np.asarray(column, np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"column {name!r} must hold numbers: got {table.dtype} (first value {column[0]!r})."
            ) from None
    raise ValueError(f"data must hold real numbers: got dtype {table.dtype}.")


def _clock(times: np.ndarray, unit: str) -> Clock:
    dates = np.issubdtype(times.dtype, np.datetime64)
    if np.issubdtype(times.dtype, np.timedelta64):
        times, unit = times / np.timedelta64(1, "s"), "s"
    elif dates:
        times = times.astype("datetime64[ns]")
    elif times.dtype.kind not in "fiu":
        raise ValueError(f"times must be numbers or dates: got {times.dtype} (first {times[0]!r}).")
    if times.dtype.kind == "f" and not np.isfinite(times).all():
        raise ValueError(f"times must be finite: got {times[~np.isfinite(times)][0]} among them.")
    seconds = (times - times[0]) / np.timedelta64(1, "s") if dates else np.asarray(times, np.float64)
    if np.isnan(seconds).any():
        raise ValueError("times must be finite: got NaT among them.")
    gaps = np.diff(seconds)
    for bad, what in ((gaps == 0, "repeat"), (gaps < 0, "go back")):
        if bad.any():
            i = int(np.argmax(bad)) + 1
            raise ValueError(
                f"times must increase: they {what} at row {i} ({times[i - 1]} then {times[i]}). "
                "Sort the series and drop duplicates first."
            )
    step = float((seconds[-1] - seconds[0]) / (len(seconds) - 1))
    rounding = 0.0 if dates else 4 * np.spacing(np.abs(times).max().astype(times.dtype))
    usual = float(np.median(gaps))
    uneven = np.abs(gaps - usual) > 1e-3 * usual + float(rounding)
    if uneven.any():
        i = int(np.argmax(np.abs(gaps - usual))) + 1
        raise ValueError(
            f"times must be equidistant: the step before row {i} is {gaps[i - 1]:.6g} where the usual one is "
            f"{usual:.6g}. Resample the series, or cut it there."
        )
    step = float(np.round(step, 12 - int(np.floor(np.log10(step))))) if step > 0 else step
    return Clock(step, str(times[0]) if dates else float(times[0]), "datetime" if dates else unit)


def _refuse_gaps(values: np.ndarray, names: tuple[str, ...], clock: Clock) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        rows, columns = np.nonzero(bad)
        raise ValueError(
            f"data must be finite: {names[columns[0]]!r} is {values[rows[0], columns[0]]} at row {rows[0]} "
            f"(time {clock.times(1, int(rows[0]))[0]}), one of {bad.sum()} such values. "
            "Fill or cut the gaps first; missing values are not supported yet."
        )
