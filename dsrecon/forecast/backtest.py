"""How a forecaster would have done: forecasts from every window of a series that it has not seen."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from dsrecon._checks import counted
from dsrecon.forecast.intervals import AbstractIntervals, Conformal, check_levels
from dsrecon.forecast.predictor import LEVELS, SCALED, Given, Predictor
from dsrecon.forecast.run import forecasts
from dsrecon.forecast.task import as_panel
from dsrecon.measures.forecasts import crps, mae, mse, smape
from dsrecon.series import Series

GRID = tuple(np.round(np.arange(0.05, 0.951, 0.05), 2).tolist())
"""Levels of the quantiles that the CRPS is taken of."""

CHUNK = 512
"""Windows that are scored at once."""


class Backtest(NamedTuple):
    """What a backtest found.

    - `scores`: a Dataset along `lead` and `variable`, means over the windows. Of points: `mse`, `mae`, `smape`, `mase`;
      with intervals: `crps`, and `coverage` of each central interval along `interval` (its nominal share). `mse`, `mae`
      and `crps` are in the units of the data, `mse_scaled` and `mae_scaled` in standard deviations of the training
      part.
    - `forecasts`: a Dataset along `issue_time`, `lead` and `variable`: `forecast`, `observed`, and `quantiles` along
      `quantile`, with the coordinate `time` (`issue_time`, `lead`); `None` where they were not kept.
    - `windows`: how many.
    """

    scores: xr.Dataset
    forecasts: xr.Dataset | None
    windows: int

    def table(self) -> pd.Series:
        """All scores, as means over lead times and variables."""
        means = {str(k): float(v.mean()) for k, v in self.scores.data_vars.items() if "interval" not in v.dims}
        if "coverage" in self.scores:
            for share in self.scores["interval"].values:
                means[f"coverage {share:g}"] = float(self.scores["coverage"].sel(interval=share).mean())
        return pd.Series(means)


def backtest(
    predictor: Predictor,
    series: Any,
    horizon: int | None = None,
    stride: int = 1,
    *,
    start: int | float | str | None = None,
    known: Any = None,
    seen: Any = None,
    levels: Sequence[float] | None = None,
    intervals: AbstractIntervals = SCALED,
    keep: bool = True,
) -> Backtest:
    """Forecast from every window of a series, and compare with what came.

    The first step that is forecast is at `start` or after it; the windows look back over it, as anybody could have.
    Nothing is fitted again.

    **Arguments:**

    - `series`: as `Predictor.predict` takes a context, with the rows to be forecast in it.
    - `horizon`: steps ahead that are judged (default: all that it forecasts). `stride`: rows from one window to the
      next.
    - `start`: where the test begins: a row, a share of the series (a float below 1) or a date. Default: the first row
      after all that it was fitted with, validation too, by its times; without times, by its rows.
    - `known`, `seen`: covariates along the series.
    - `levels` of the quantiles kept (default .05 and .95, where there are 19 validation windows); `intervals`:
      `Conformal()` or `EnsembleQuantiles()`.
    - `keep`: keep the forecasts, `windows * horizon * variables` numbers and as many of each quantile.

    **Returns:** a `Backtest`. Missing values do not count (and where they are in a window, the predictor must have been
    fitted with `impute`).

    **Raises:** `ValueError` for a horizon out of range, a stride below 1, a test part without a whole window, and what
    `Predictor.predict` raises.
    """
    if not isinstance(predictor, Predictor):
        raise ValueError(
            f"predictor must be a forecaster that was fitted, what `.fit(series, horizon=...)` returns: "
            f"got {type(predictor).__name__}."
        )
    horizon = predictor.horizon if horizon is None else counted("horizon", horizon)
    if horizon > predictor.horizon:
        raise ValueError(f"horizon must be from 1 to {predictor.horizon}, that of the fit: got {horizon}.")
    counted("stride", stride)
    (raw,) = as_panel(series)
    predictor.check_beside(known, seen)
    given = predictor.given(series, known, seen, ahead=0)
    first = _first(predictor, raw, start)
    lookback, rows = predictor.lookback, len(given.x)
    begin = max(first, lookback)
    starts = np.arange(begin - lookback, rows - lookback - horizon + 1, stride)
    if not len(starts):
        raise ValueError(
            f"the test part must hold a whole window: it has {max(rows - begin, 0)} rows from row {begin} of {rows}, "
            f"the horizon is {horizon}. Say where it begins (start=), or give more data."
        )
    conformal = isinstance(intervals, Conformal)
    levels = check_levels((predictor.usual_levels if conformal else LEVELS) if levels is None else levels)
    if levels and conformal and predictor.errors is None:
        raise ValueError("intervals need the errors of validation windows: fit with validation above 0.")
    grid = GRID if not conformal or (predictor.errors is not None and predictor.errors.most(GRID[-1])) else ()
    s = given.s
    short = max(int(starts[-1]) + lookback + predictor.horizon - (rows if s is None else len(s)), 0)
    if s is not None and short:  # windows whose last steps ahead are not judged
        s = jnp.concatenate([s, jnp.zeros((short, s.shape[1]), s.dtype)])
    sums: dict[str, np.ndarray] = {}
    counts = np.zeros((horizon, given.x.shape[1]))
    kept: dict[str, list[np.ndarray]] = {"forecast": [], "quantiles": [], "observed": []}
    for i in range(0, len(starts), CHUNK):
        at = starts[i : i + CHUNK]
        members = forecasts(predictor.members, given.x, s, at, predictor.known_columns)[:, :, :horizon]
        found, told = _scored(predictor, given, at, members, intervals, levels, grid)
        for name, values in found.items():
            sums[name] = sums.get(name, 0.0) + np.nansum(values, 0)
        counts += np.isfinite(told["observed"]).sum(0)
        if keep:
            for name, values in told.items():
                kept[name].append(values)
    means = {name: np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for name, total in sums.items()}
    scores = _tabled(means, predictor.names, levels, len(starts))
    return Backtest(
        scores, _kept(kept, given.series, starts, lookback, levels, predictor) if keep else None, len(starts)
    )


def _scored(
    predictor: Predictor,
    given: Given,
    at: np.ndarray,
    members: np.ndarray,
    intervals: AbstractIntervals,
    levels: Sequence[float],
    grid: Sequence[float],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores of the windows that begin at `at`, entry by entry, NaN where nothing was observed; and what is kept."""
    lookback, horizon, scaler = predictor.lookback, members.shape[2], given.scaler
    y = given.series.values[at[:, None] + lookback + np.arange(horizon)]
    point = scaler.unscale(members.mean(0))
    point = np.where(np.isfinite(point), point, np.inf)  # a forecast that diverged is infinitely wrong
    found = {"mse": mse(y, point), "mae": mae(y, point), "smape": smape(y, point)}
    naive = np.where(predictor.naive > 0, predictor.naive, np.nan)  # what never changed has no scale of its own
    found["mase"] = found["mae"] / scaler.std / naive
    found["mse_scaled"] = found["mse"] / scaler.std**2
    found["mae_scaled"] = found["mae"] / scaler.std
    told = np.empty((0, *point.shape))
    if levels or grid:
        spread = np.asarray(given.x)[at[:, None] + np.arange(lookback)].std(1)
        errors = None if predictor.errors is None else predictor.errors.until(horizon)
        both = scaler.unscale(intervals.quantiles(members, spread, errors, (*grid, *levels)))
        told = both[len(grid) :]
        if grid:
            score = crps(y, np.moveaxis(both[: len(grid)], 0, -1), grid)
            found["crps"] = np.where(np.isinf(point) & ~np.isnan(y), np.inf, score)
        for lo, hi in _pairs(levels):
            inside = (y >= told[levels.index(lo)]) & (y <= told[levels.index(hi)])
            found[_coverage(lo, hi)] = np.where(np.isnan(y), np.nan, inside)
    return found, {"forecast": point, "quantiles": told, "observed": y}


def _pairs(levels: Sequence[float]) -> list[tuple[float, float]]:
    """Ends of the central intervals among the levels."""
    return [(lo, hi) for lo, hi in zip(levels, levels[::-1], strict=True) if lo < hi and abs(lo + hi - 1) < 1e-9]


def _coverage(lo: float, hi: float) -> str:
    return f"coverage {hi - lo:.6g}"


def _tabled(means: dict[str, np.ndarray], names: Sequence[str], levels: Sequence[float], windows: int) -> xr.Dataset:
    """Means `[h, n]` by name, those of coverages along `interval`."""
    pairs, (horizon, _) = _pairs(levels), means["mse"].shape
    coords: dict[str, Any] = {"lead": np.arange(1, horizon + 1), "variable": list(names)}
    data: dict[str, Any] = {k: (("lead", "variable"), v) for k, v in means.items() if not k.startswith("coverage")}
    if pairs:
        data["coverage"] = (("interval", "lead", "variable"), np.stack([means[_coverage(*pair)] for pair in pairs]))
        coords["interval"] = [float(f"{hi - lo:.6g}") for lo, hi in pairs]
    return xr.Dataset(data, coords, {"windows": windows})


def _kept(kept, series: Series, starts, lookback: int, levels, predictor: Predictor) -> xr.Dataset:
    point = np.concatenate(kept["forecast"])
    times = series.clock.times(int(starts[-1]) + lookback + point.shape[1])
    issued = starts + lookback - 1
    dims = ("issue_time", "lead", "variable")
    data: dict[str, Any] = {"forecast": (dims, point), "observed": (dims, np.concatenate(kept["observed"]))}
    coords: dict[str, Any] = {
        "issue_time": times[issued],
        "lead": np.arange(1, point.shape[1] + 1),
        "variable": list(predictor.names),
        "time": (("issue_time", "lead"), times[issued[:, None] + 1 + np.arange(point.shape[1])]),
    }
    if levels:
        data["quantiles"] = (("quantile", *dims), np.concatenate(kept["quantiles"], 1))
        coords["quantile"] = list(levels)
    return xr.Dataset(data, coords)


def _first(predictor: Predictor, series: Series, start: int | float | str | None) -> int:
    """The row at which the test part begins."""
    rows = len(series.values)
    if start is None:
        end = predictor.end
        if isinstance(end.origin, str) != isinstance(series.clock.origin, str):
            raise ValueError(
                "start must be given: the series and what the forecaster was fitted with do not share a clock."
            )
        return max(int(np.ceil(series.clock.row(end.origin) - 1e-6)), 0)
    if isinstance(start, str):
        if not isinstance(series.clock.origin, str):
            raise ValueError(f"start must be a row or a share, as the series has no dates: got {start!r}.")
        times = series.clock.times(rows)
        return int(np.searchsorted(times, np.datetime64(str(pd.Timestamp(start)), "ns")))
    if isinstance(start, float) and 0 <= start < 1:
        return round(start * rows)
    if int(start) != start or not 0 <= start < rows:
        raise ValueError(f"start must be a row from 0 to {rows - 1}, a share below 1 or a date: got {start}.")
    return int(start)
