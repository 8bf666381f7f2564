"""The door for data: a measured series, checked and in one form."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

from dsrecon._checks import real, several_names
from dsrecon.series.clock import Clock, Series
from dsrecon.series.convert import from_pandas, from_xarray, row_number
from dsrecon.series.resample import elapsed, resampled


def as_series(
    data: Any,
    *,
    time_step: float | None = None,
    names: Sequence[str] | None = None,
    resample: float | None = None,
    calendar: bool = False,
) -> Series:
    """Any series that a user has, checked and in one form. NaN is a value that was not observed.

    **Arguments:**

    - `data`: array `[t]` or `[t, n]`; `pandas.Series` or `DataFrame` (its index is time); `xarray.DataArray`
      with a dimension `time` (or `[t, n]` without names), or `Dataset` of such variables; or a `Series`.
    - `time_step`: time between samples, where the data do not say (default 1).
    - `names`: names of the variables, where the data do not say (default `x0, x1, ...`).
    - `resample`: put the samples on equidistant times, this far apart, in the unit of the times (seconds for
      dates); how is said in `dsrecon.series.resample`. Without it, times that are not equidistant are refused.
    - `calendar`: take dates that follow a calendar (months, quarters, working days) as one step apart each, where
      pandas can tell which one from the dates.

    **Returns:** a `Series`.

    **Raises:** `ValueError` for columns that are not numbers, infinity, nothing but NaN, fewer than two samples, times
    that repeat, go back or (without `resample`) are not equidistant, and contradictions between arguments and data.
    Each names what came in.
    """
    return checked(data, time_step=time_step, names=names, resample=resample, calendar=calendar)


def checked(
    data: Any,
    *,
    time_step: float | None,
    names: Sequence[str] | None = None,
    resample: float | None,
    calendar: bool,
    where: Callable[[int], str] = row_number,
) -> Series:
    """`as_series`; `where` says where a row of the data is, in what is raised: in which line of a file, say."""
    if isinstance(resample, str):
        raise ValueError(
            f"resample must be a number, the step in the unit of the times (seconds for dates): got {resample!r}."
        )
    if isinstance(data, str | os.PathLike):
        raise ValueError(f"data must be a series: got {str(data)!r}. Read a file with `dsrecon.read_series`.")
    if isinstance(data, Series):
        return data if resample is None else as_series(data.to_xarray(), resample=resample, calendar=calendar)
    if several(data):
        raise ValueError(f"data must be one series here: got a {type(data).__name__} of {len(data)} trials.")
    if isinstance(data, xr.Dataset):
        data = data.to_dataarray("variable").transpose(..., "variable")
    if isinstance(data, xr.DataArray):
        table, times, found, units, unit = from_xarray(data)
    elif isinstance(data, pd.Series | pd.DataFrame):
        table, times, found, units, unit = from_pandas(data, where)
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
    if time_step is not None and not 0 < real("time_step", time_step) < np.inf:
        raise ValueError(f"time_step must be positive and finite: got {time_step}.")
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise ValueError(
            f"data must not hold infinity: {names[column]!r} is {values[row, column]} at {where(int(row))}. "
            "A value that was not observed is NaN."
        )
    if np.isnan(values).all():
        raise ValueError(f"data must hold observations: all {values.size} values are NaN.")
    if resample is not None:
        every = np.arange(len(values)) * (time_step or 1.0) if times is None else times
        values, times = resampled(values, _increasing(every, unit, where)[0], resample)
        time_step = None
    clock = Clock(1.0 if time_step is None else time_step) if times is None else _clock(times, unit, calendar, where)
    if time_step is not None and not np.isclose(clock.time_step, time_step, rtol=1e-3, atol=0):
        raise ValueError(f"time_step={time_step} contradicts the times of data, {clock.time_step} apart.")
    return Series(values, names, clock, tuple(units or [""] * len(names)))


def several(data: Any) -> bool:
    """Whether data are a list of trials: arrays or tables, not rows of numbers."""
    table = pd.Series | pd.DataFrame | xr.Dataset | Series
    listed = isinstance(data, list | tuple) and not isinstance(data, Series)

    def trial(one: Any) -> bool:
        return isinstance(one, table) or (isinstance(one, np.ndarray | jax.Array | xr.DataArray) and one.ndim > 0)

    return listed and bool(data) and all(trial(one) for one in data)


def _names(given: Sequence[str] | None, found: list[str] | None, count: int) -> tuple[str, ...]:
    given = None if given is None else several_names(given)
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


def _increasing(times: np.ndarray, unit: str, where: Callable[[int], str]) -> tuple[np.ndarray, str]:
    """Times as numbers or datetime64[ns], strictly increasing, with their unit."""
    if np.issubdtype(times.dtype, np.timedelta64):
        times, unit = times / np.timedelta64(1, "s"), "s"
    elif np.issubdtype(times.dtype, np.datetime64):
        times = times.astype("datetime64[ns]")
    elif times.dtype.kind not in "fiu":
        raise ValueError(f"times must be numbers or dates: got {times.dtype} (first {times[0]!r}).")
    if times.dtype.kind == "f" and not np.isfinite(times).all():
        raise ValueError(f"times must be finite: got {times[~np.isfinite(times)][0]} among them.")
    seconds = elapsed(times)
    if np.isnan(seconds).any():
        raise ValueError("times must be finite: got NaT among them.")
    gaps = np.diff(seconds)
    for bad, what in ((gaps == 0, "repeat"), (gaps < 0, "go back")):
        if bad.any():
            i = int(np.argmax(bad)) + 1
            raise ValueError(
                f"times must increase: they {what} at {where(i)} ({times[i - 1]} then {times[i]}). "
                "Sort the series and drop duplicates first."
            )
    return times, unit


def _clock(times: np.ndarray, unit: str, calendar: bool, where: Callable[[int], str]) -> Clock:
    times, unit = _increasing(times, unit, where)
    dates = np.issubdtype(times.dtype, np.datetime64)
    seconds = elapsed(times)
    gaps = np.diff(seconds)
    step = float((seconds[-1] - seconds[0]) / (len(seconds) - 1))
    rounding = 0.0 if dates else 4 * np.spacing(np.abs(times).max().astype(times.dtype))
    usual = float(np.median(gaps))
    uneven = np.abs(gaps - usual) > 1e-3 * usual + float(rounding)
    if uneven.any() and calendar and dates:
        name = pd.infer_freq(pd.DatetimeIndex(times)) if len(times) > 2 else None
        if name is not None:
            return Clock(step, str(times[0]), "datetime", name)
    if uneven.any():
        i = int(np.argmax(np.abs(gaps - usual))) + 1
        raise ValueError(
            f"times must be equidistant: the step before {where(i)} is {gaps[i - 1]:.6g} where the usual one is "
            f"{usual:.6g}. Resample the series (resample={usual:.6g} puts it on that step and leaves gaps as NaN; on "
            "the command line: --resample), or cut it there."
        )
    step = float(np.round(step, 12 - int(np.floor(np.log10(step))))) if step > 0 else step
    return Clock(step, str(times[0]) if dates else float(times[0]), "datetime" if dates else unit)
