"""Times of equidistant samples, and values labelled with them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import pandas as pd
import xarray as xr


class Clock(eqx.Module):
    """Equidistant times: `origin + k * time_step`; or the dates of a calendar, one step of it apart.

    - `time_step`: in the series' own unit of time; in seconds when the times are dates.
    - `origin`: time of sample 0: a number, or an ISO date for dates.
    - `unit`: unit of time as it is shown (`""` when unknown); `"datetime"` for dates.
    - `frequency`: pandas' name of steps that are not all equally long (`"MS"`, months; `"B"`, working days), `""` for
      those that are. `time_step` is then their mean.
    """

    time_step: float = eqx.field(static=True, default=1.0)
    origin: float | str = eqx.field(static=True, default=0.0)
    unit: str = eqx.field(static=True, default="")
    frequency: str = eqx.field(static=True, default="")

    def times(self, steps: int, first: int = 0) -> np.ndarray:
        """Times of samples `first` to `first + steps - 1`: float64, or datetime64[ns] for dates."""
        if self.frequency:
            step = pd.tseries.frequencies.to_offset(self.frequency)
            begin = pd.Timestamp(self.origin) + first * step
            return pd.date_range(begin, periods=steps, freq=step).to_numpy().astype("datetime64[ns]")
        k = np.arange(first, first + steps)
        if isinstance(self.origin, str):
            nanoseconds = np.round(k * (self.time_step * 1e9)).astype("timedelta64[ns]")
            return np.datetime64(self.origin, "ns") + nanoseconds
        return self.origin + k * self.time_step

    def shifted(self, samples: int) -> "Clock":
        """The same clock with its sample 0 so many samples later."""
        if not samples:
            return self
        origin = self.times(1, samples)[0]
        origin = str(origin) if isinstance(self.origin, str) else float(origin)
        return Clock(self.time_step, origin, self.unit, self.frequency)

    def row(self, time: str | float) -> float:
        """Which sample is at a time of the kind of `origin`, in steps from sample 0: a whole number where one is."""
        if self.frequency:
            one, other = sorted((pd.Timestamp(self.origin), pd.Timestamp(time)))
            steps = pd.date_range(one, other, freq=self.frequency)
            found = len(steps) - 1.0 if len(steps) and (steps[0], steps[-1]) == (one, other) else np.nan
            return found if pd.Timestamp(time) >= pd.Timestamp(self.origin) else -found
        if isinstance(self.origin, str):
            gap = (np.datetime64(str(time), "ns") - np.datetime64(self.origin, "ns")) / np.timedelta64(1, "s")
            return float(gap) / self.time_step
        return (float(time) - self.origin) / self.time_step


class Series(NamedTuple):
    """A series on the host: `values` `[t, n]` float64, `names` of the `n` variables, `clock`, `units` of each.

    NaN is a value that was not observed; infinity does not occur.
    """

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
