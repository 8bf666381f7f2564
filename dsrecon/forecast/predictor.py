"""What a fit of a forecaster gives: forecasts in the units and times of the data."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from dsrecon._results import Settings
from dsrecon.forecast.intervals import AbstractIntervals, Conformal, Errors, check_levels
from dsrecon.forecast.run import Members, forecasts
from dsrecon.forecast.task import Impute, Stretch, as_panel, beside, imputed, known_beside, on_device
from dsrecon.modelfile import read_module, write_module
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, Series, aligned, as_series, several

SCALED = Conformal()
"""The intervals that are told when nothing is asked for."""

LEVELS = (0.05, 0.95)
"""Quantiles that are told when nothing is asked for: a 90 % interval."""


class Given(NamedTuple):
    """A series in the units of a model: `x` `[t, n]`, `s` `[t (+ horizon), k]` or `None`, and its scaler."""

    x: Float[Array, "t n"]
    s: Float[Array, "t k"] | None
    scaler: Scaler
    series: Series


class Predictor(eqx.Module):
    """A fitted forecaster.

    - `members`: the ensemble, whose mean is the forecast.
    - `scaler`: of the series; `None` where several were learned from (each context is then standardised by itself).
    - `tail`: the last `lookback` rows that it was fitted with, from which `predict()` goes on.
    - `errors`: of the validation windows, for intervals; `None` without validation.
    - `naive`: error of the seasonal naive forecast on the training part, `[n]`, in units of the model.
    - `names`, `units`; `period`; `record`: settings and their reasons, JSON.
    """

    members: Members
    scaler: Scaler | None
    tail: Stretch
    beside_scalers: tuple[Scaler | None, Scaler | None]
    errors: Errors | None
    naive: np.ndarray
    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    beside_names: tuple[tuple[str, ...], tuple[str, ...]] = eqx.field(static=True)
    marks: bool = eqx.field(static=True)
    impute: Impute | None = eqx.field(static=True)
    period: int = eqx.field(static=True)
    record: str = eqx.field(static=True, repr=False)

    @property
    def lookback(self) -> int:
        return self.members.model.lookback

    @property
    def horizon(self) -> int:
        return self.members.model.horizon

    @property
    def settings(self) -> Settings:
        """Settings of the fit, a dict: name to `{"value", "reason"}`. It is shown as a line a setting."""
        return Settings(json.loads(self.record)["settings"])

    @property
    def end(self) -> Clock:
        """The clock from the first step after the series that it was fitted with."""
        return self.tail.clock.shifted(len(self.tail.values))

    def predict(
        self,
        context: Any = None,
        *,
        known: Any = None,
        seen: Any = None,
        levels: Sequence[float] | None = None,
        intervals: AbstractIntervals = SCALED,
    ) -> xr.Dataset:
        """The `horizon` steps after a context.

        **Arguments:**

        - `context`: a series as `fit` takes it, at least `lookback` rows; default: the one it was fitted with.
        - `known`: covariates that are known ahead, along the context and `horizon` rows further (without a context: of
          the rows ahead is enough); `seen`: along the context. Those that it was fitted with, no others.
        - `levels`: of the quantiles; default .05 and .95, and none where there were fewer than 19 validation windows.
        - `intervals`: `Conformal()` or `EnsembleQuantiles()`.

        **Returns:** a Dataset along `time` and `variable`, in the units of the data: `forecast`, and `quantiles` along
        `quantile` too. Coordinates: `lead` (steps ahead, from 1), `issue_time` (of the last row of the context).

        **Raises:** `RuntimeError` for a forecast that is not finite; `ValueError` for other variables, another time
        step, a context that is too short or has gaps, and covariates that are missing, end before the horizon, or are
        not wanted.
        """
        self.check_beside(known, seen)
        if context is None:
            given, clock = self._from_tail(known, seen), self.end
        else:
            if several(context):
                raise ValueError(f"context must be one series: got {len(context)}. Call predict once for each.")
            given = self.given(context, known, seen, ahead=self.horizon)
            clock = given.series.clock.shifted(len(given.series.values))
        start = np.array([len(given.x) - self.lookback])
        found = forecasts(self.members, given.x, given.s, start, self.known_columns)
        levels = check_levels(self.usual_levels if levels is None else levels)
        point = given.scaler.unscale(found.mean(0)[0])
        if not np.isfinite(point).all():
            step = int(np.argmax(~np.isfinite(point).all(1))) + 1
            raise RuntimeError(f"the forecast is not finite from {step} steps ahead on: the model has diverged.")
        data: dict[str, Any] = {"forecast": (("time", "variable"), point)}
        if levels:
            spread = np.asarray(given.x[-self.lookback :]).std(0)[None]
            quantiles = intervals.quantiles(found, spread, self.errors, levels)[:, 0]
            data["quantiles"] = (("quantile", "time", "variable"), given.scaler.unscale(quantiles))
        out = xr.Dataset(data, {"time": clock.times(self.horizon), "variable": list(self.names)})
        if levels:
            out = out.assign_coords(quantile=list(levels))
        if any(self.units):
            out = out.assign_coords(unit=("variable", list(self.units)))
        out = out.assign_coords(lead=("time", np.arange(1, self.horizon + 1)), issue_time=clock.times(1, -1)[0])
        out.attrs = {"time_step": clock.time_step, "time_unit": clock.unit}
        return out

    @property
    def usual_levels(self) -> tuple[float, ...]:
        """.05 and .95, where there are validation windows enough (19) to tell them; else none."""
        return LEVELS if self.errors is not None and self.errors.most(LEVELS[1]) else ()

    def save(self, path: str | os.PathLike) -> Path:
        """Write it to one file, which `load_predictor` reads; an existing file is replaced as a whole."""
        return write_module(path, self)

    @property
    def known_columns(self) -> int:
        """Columns beside the series that are known ahead."""
        return len(self.beside_names[0])

    def given(self, series: Any, known: Any, seen: Any, *, ahead: int) -> Given:
        """A series and its covariates in the units of the model, checked; the known ones `ahead` rows further."""
        (one,) = as_panel(series, time_step=None)
        one = self._matched(one)
        values = imputed(one.values, self.impute, self.period, self.names, "the context")
        if len(values) < self.lookback:
            raise ValueError(f"context must hold at least the lookback, {self.lookback} rows: got {len(values)}.")
        tables = beside(known, (one,), ahead, "known"), beside(seen, (one,), 0, "seen")
        known, seen = (np.zeros((len(values), 0)) if t is None else t[0].values for t in tables)
        return self._scaled(Stretch(values, known, seen, one.clock), one, ahead)

    def _scaled(self, stretch: Stretch, series: Series, ahead: int) -> Given:
        values = stretch.values
        scaler = self.scaler
        if scaler is None:
            std = values.std(0)
            scaler = Scaler(values.mean(0), np.where(std > 0, std, 1.0))
        s, _ = known_beside(stretch, self.beside_scalers, self.marks, ahead)
        return Given(scaler.scale(values), on_device(s) if s.shape[1] else None, scaler, series)

    def _from_tail(self, known: Any, seen: Any) -> Given:
        if seen is not None:
            raise ValueError("seen covariates go with a context: without one those of the fit are used.")
        if self.scaler is None:
            raise ValueError("context must be given: this forecaster was fitted to several series.")
        tail = self.tail
        if known is not None:
            tail = tail._replace(known=np.concatenate([tail.known, self._rows_ahead(known)]))
        series = Series(tail.values, self.names, tail.clock, self.units)
        return self._scaled(tail, series, self.horizon)

    def _rows_ahead(self, known: Any) -> np.ndarray:
        """Covariates of the `horizon` rows after the tail, `[horizon, j]`."""
        if np.shape(known)[:1] == (1,) and self.horizon == 1:  # one row has no step of its own
            return np.asarray(known, float).reshape(1, -1)
        table = as_series(known, calendar=True)
        if len(table.values) == self.horizon and table.clock == Clock():
            return table.values
        try:
            return aligned(table, self.end, self.horizon).values
        except ValueError as error:
            raise ValueError(
                f"known covariates must cover the {self.horizon} rows ahead, the horizon: {error}"
            ) from error

    def check_beside(self, known: Any, seen: Any) -> None:
        """Raise `ValueError` for covariates that are not wanted, and for those known ahead that are wanting."""
        for name, data, wanted in zip(("known", "seen"), (known, seen), self.beside_names, strict=True):
            if data is not None and not wanted:
                raise ValueError(f"{name} covariates are not wanted: it was fitted without.")
            tail = name == "seen"
            if data is None and wanted and not tail:
                raise ValueError(f"{name} covariates must be given: it was fitted with {', '.join(wanted)}.")

    def _matched(self, series: Series) -> Series:
        """The series with the variables of the fit, in their order."""
        if len(series.names) != len(self.names):
            raise ValueError(f"context must hold {list(self.names)}: got {list(series.names)}.")
        default = tuple(f"x{i}" for i in range(len(self.names)))
        if series.names != self.names and default not in (series.names, self.names):
            if set(series.names) != set(self.names):
                raise ValueError(f"context must hold {list(self.names)}: got {list(series.names)}.")
            order = [series.names.index(name) for name in self.names]
            units = tuple(series.units[i] for i in order)
            series = Series(series.values[:, order], self.names, series.clock, units)
        clock = self.tail.clock
        if series.clock == Clock():
            clock = Clock(clock.time_step, 0.0, "" if isinstance(clock.origin, str) else clock.unit)
            if self.marks and isinstance(self.tail.clock.origin, str):
                raise ValueError("context must have dates: this forecaster reads the time of the day and the year.")
            return series._replace(clock=clock)
        step = series.clock.time_step
        if (clock.frequency != series.clock.frequency and len(series.values) > 2) or (
            not clock.frequency and not np.isclose(step, clock.time_step, rtol=1e-3, atol=0)
        ):
            raise ValueError(
                f"context must have the time step of the fit, {clock.frequency or format(clock.time_step, 'g')}: got "
                f"{series.clock.frequency or format(step, 'g')}."
            )
        return series


def load_predictor(path: str | os.PathLike) -> Predictor:
    """Read what `Predictor.save` wrote. Nothing in the file is executed."""
    return read_module(path, Predictor)
