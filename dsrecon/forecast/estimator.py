"""What can be fitted: settings in, a `Predictor` out."""

import json
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon._types import Key
from dsrecon.forecast.intervals import Errors
from dsrecon.forecast.predictor import Predictor
from dsrecon.forecast.run import Members, forecasts
from dsrecon.forecast.task import (
    Held,
    Impute,
    Stretch,
    Task,
    as_panel,
    beside,
    imputed,
    known_beside,
    on_device,
    spread,
)
from dsrecon.measures.period import find_period
from dsrecon.scaler import Scaler
from dsrecon.series import Series

PERIODS = 7
"""Periods that a window looks back on, where nothing is said."""

LOOKBACK = 96
"""Steps that it looks back on where the series has no period."""

VALIDATION = 5000
"""Validation windows at most that are looked at."""

ENTRIES, FEWEST = 4_000_000, 200
"""Errors at most that are kept for intervals; but always those of so many windows."""


class Learned(NamedTuple):
    """What came of it: the members, and `notes`, settings found on the way: name to `(value, reason)`."""

    members: Members
    notes: dict[str, tuple[Any, str]]


class AbstractEstimator(eqx.Module):
    """Settings of a forecaster, and how it is fitted.

    `lookback` and `period` in steps; `None` to have them found from the series.
    """

    lookback: eqx.AbstractVar[int | None]
    period: eqx.AbstractVar[int | None]

    @property
    @abstractmethod
    def reads_times(self) -> bool:
        """Whether it is given time marks, where the series has dates."""

    @property
    @abstractmethod
    def takes_covariates(self) -> bool:
        """Whether it is given covariates."""

    @abstractmethod
    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        """The members, learned from a task."""

    def fit(
        self,
        series: Any,
        horizon: int,
        *,
        known: Any = None,
        seen: Any = None,
        validation: float = 0.2,
        impute: Impute | None = None,
        time_step: float | None = None,
        resample: float | None = None,
        key: Key | int = 0,
        threads: int | None = None,
        progress: bool | None = None,
    ) -> Predictor:
        """Fit to a series, or one model to several.

        The last `validation` of each series is not learned from: it decides when to stop and which penalty to take, and
        its errors give the intervals. Its windows look back into the training part. Scaling is by the training part.

        **Arguments:**

        - `series`: what `as_series` takes (NumPy `[time]` or `[time, variable]`, pandas, xarray), dates of any
          frequency that pandas can tell (months, working days); or a list of series of the same variables, for one
          model of all. Several series are each standardised by themselves; one to be forecast, by what of it is given.
        - `horizon`: steps to forecast.
        - `known`: covariates that are known ahead (holidays, tariffs), row for row with the series or longer; `seen`:
          covariates that are known up to the present only. Lists, for several series.
        - `validation`: share of each series, at its end; at least `horizon` rows of it. 0 for none: nothing is chosen,
          training runs to its end, and there are no intervals.
        - `impute`: what to do with missing values (NaN): refuse them (default), `"last"` or `"seasonal"`.
        - `time_step`, `resample`: as in `as_series`.
        - `key`: a JAX key or a seed. `threads`, `progress`: as in `dsrecon.training.fit`.

        **Returns:** a `Predictor`.

        **Raises:** `ValueError` for a horizon below 1, a lookback that the series does not hold, times without a
        frequency or twice the same, covariates that end too early or that this forecaster does not take, text, NaN
        without `impute`; each with what came in.
        """
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
            raise ValueError(f"horizon must be a whole number of steps, at least 1: got {horizon!r}.")
        if not 0 <= validation < 1:
            raise ValueError(f"validation must be a share from 0 to below 1: got {validation}.")
        for name, value in (("lookback", self.lookback), ("period", self.period)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}.")
        if (known is not None or seen is not None) and not self.takes_covariates:
            raise ValueError(
                f"{type(self).__name__} takes no covariates: got {'known' if known is not None else 'seen'}. "
                "TPGNEstimator does."
            )
        horizon = int(horizon)
        panel = as_panel(series, time_step=time_step, resample=resample)
        tables = beside(known, panel, 0, "known"), beside(seen, panel, 0, "seen")
        settings: dict[str, tuple[Any, str]] = {"horizon": (horizon, "given")}

        held = [_held(len(one.values), validation, horizon) for one in panel]
        settings["validation"] = (
            held if len(held) > 1 else held[0],
            "no validation" if not validation else f"rows at the end: {validation:g} of them, at least the horizon",
        )
        train = [one.values[: len(one.values) - h] for one, h in zip(panel, held, strict=True)]
        period, why = self._period(train)
        settings["period"] = (period, why)
        lookback, why = self._lookback(train, horizon, period)
        settings["lookback"] = (lookback, why)
        rows = [len(one) for one in train]
        if max(rows) < lookback + horizon:
            raise ValueError(
                f"the series is too short: its training part has {max(rows)} rows where a window needs "
                f"{lookback + horizon}, the lookback of {lookback} and the horizon of {horizon}. Take a shorter "
                f"lookback or horizon, a smaller validation than {validation:g}, or more data."
            )
        complete = [imputed(one.values, impute, period, one.names, "the series") for one in panel]
        settings["impute"] = (impute, "nothing was missing" if impute is None else "given: fill in by looking back")
        several = len(panel) > 1
        scalers = [_scaler(part[:n]) for part, n in zip(complete, rows, strict=True)]
        beside_scalers = (_scaler_of(tables[0]), _scaler_of(tables[1]))
        stretches = [
            Stretch(
                part,
                *(np.zeros((len(part), 0)) if table is None else table[i].values for table in tables),
                clock=one.clock,
            )
            for i, (one, part) in enumerate(zip(panel, complete, strict=True))
        ]
        x = [(part - scaler.mean) / scaler.std for part, scaler in zip(complete, scalers, strict=True)]
        s = [known_beside(stretch, beside_scalers, self.reads_times, 0)[0] for stretch in stretches]
        masks = [~np.isnan(one.values) for one in panel]
        missing = not all(mask.all() for mask in masks)
        columns = 0 if tables[0] is None else tables[0][0].values.shape[1]

        def joined(parts, cuts):
            return np.concatenate([part[cut] for part, cut in zip(parts, cuts, strict=True)])

        def arrays(cuts):
            beside = joined(s, cuts)
            return (
                on_device(joined(x, cuts)),
                on_device(beside) if beside.shape[1] else None,
                jnp.asarray(joined(masks, cuts)) if missing else None,
            )

        cuts = [slice(max(n - lookback, 0), None) for n in rows]
        starts, begin = [], 0
        for one, cut, h in zip(x, cuts, held, strict=True):
            count = len(one) - cut.start - lookback - horizon + 1
            starts.append(begin + np.arange(max(count, 0) if h else 0))
            begin += len(one) - cut.start
        starts = np.concatenate(starts)
        validated = Held(*arrays(cuts), jnp.asarray(spread(starts, VALIDATION), jnp.int32)) if len(starts) else None
        task = Task(*arrays([slice(0, n) for n in rows]), tuple(rows), columns, validated, lookback, horizon, period)
        key = jax.random.key(key) if isinstance(key, int | np.integer) else key
        learned = self.learn(task, key=key, threads=threads, progress=progress)
        errors = None
        if validated is not None:
            at = np.asarray(validated.starts)
            found = forecasts(learned.members, validated.x, validated.s, at, columns)
            values = np.asarray(validated.x)
            mask = np.ones_like(values, bool) if validated.mask is None else np.asarray(validated.mask)
            ahead = at[:, None] + lookback + np.arange(horizon)
            off = np.where(mask[ahead], values[ahead] - found.mean(0), np.nan)
            spread_of = values[at[:, None] + np.arange(lookback)].std(1)
            kept = spread(np.arange(len(off)), max(ENTRIES // off[0].size, FEWEST))
            errors = Errors(off[kept].astype(np.float32), spread_of[kept].astype(np.float32))
        last = stretches[-1]
        cut = slice(max(len(last.values) - lookback, 0), None)
        settings |= learned.notes
        record = {
            "settings": {k: {"value": v, "reason": why} for k, (v, why) in settings.items()},
            "estimator": type(self).__name__,
        }
        return Predictor(
            learned.members,
            None if several else scalers[0],
            Stretch(*(part[cut] for part in last[:3]), clock=last.clock.shifted(cut.start)),
            beside_scalers,
            errors,
            np.concatenate([_naive(t, period, scaler) for t, scaler in zip(train, scalers, strict=True)]).mean(0),
            panel[0].names,
            panel[0].units,
            (_names_of(tables[0]), _names_of(tables[1])),
            self.reads_times,
            impute,
            period,
            json.dumps(record),
        )

    def _period(self, train: list[np.ndarray]) -> tuple[int, str]:
        if self.period is not None:
            return self.period, "given"
        longest = max(train, key=len)
        if len(longest) < 3 or not np.isfinite(longest).any():
            return 1, "period 1: too few rows to find one"
        most = None if self.lookback is None else self.lookback
        found = find_period(longest, longest=most)
        return found.steps, found.reason

    def _lookback(self, train: list[np.ndarray], horizon: int, period: int) -> tuple[int, str]:
        rows = max(len(one) for one in train)
        if self.lookback is not None:
            if self.lookback > rows:
                raise ValueError(
                    f"lookback must fit in the series, whose training part has {rows} rows: got {self.lookback}."
                )
            if period > self.lookback:
                raise ValueError(f"period must be at most the lookback, {self.lookback}: got {period}.")
            return self.lookback, "given"
        room = max((rows - horizon) // 2, 1)
        if period == 1:
            return min(LOOKBACK, room), f"no period: {LOOKBACK} steps, at most half of the training rows"
        wanted = PERIODS * period
        if period > room:
            raise ValueError(
                f"the series is too short for its period: windows of {period} steps back and {horizon} ahead need more "
                f"than the {rows} training rows. Give a period and a lookback, or more data."
            )
        return min(wanted, room // period * period), f"{PERIODS} periods, at most half of the training rows"


def _held(rows: int, validation: float, horizon: int) -> int:
    """Rows at the end that are not learned from."""
    return max(round(rows * validation), horizon) if validation else 0


def _scaler(values: np.ndarray) -> Scaler:
    """By mean and standard deviation; a variable that never changes keeps its size."""
    mean, std = values.mean(0), values.std(0)
    return Scaler(mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0))


def _scaler_of(table: tuple[Series, ...] | None) -> Scaler | None:
    return None if table is None else _scaler(np.concatenate([one.values for one in table]))


def _names_of(table: tuple[Series, ...] | None) -> tuple[str, ...]:
    return () if table is None else table[0].names


def _naive(train: np.ndarray, period: int, scaler: Scaler) -> np.ndarray:
    """The seasonal naive error, `[1, n]` in units of the model: that of the MASE."""
    step = period if period < len(train) else 1
    off = np.abs(train[step:] - train[:-step]) / scaler.std
    return np.where(np.isfinite(off).any(0), np.nanmean(np.where(np.isfinite(off), off, np.nan), 0), np.nan)[None]
