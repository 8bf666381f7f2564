"""What can be fitted: settings in, a `Predictor` out."""

import json
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from dsrecon._checks import counted, random_key, real
from dsrecon._types import Key
from dsrecon.forecast.predictor import Predictor
from dsrecon.forecast.prepare import Sizes, errors_of, held_rows, names_of, prepared
from dsrecon.forecast.run import Members
from dsrecon.forecast.task import Impute, Task, as_panel, beside
from dsrecon.measures.period import find_period

PERIODS = 7
"""Periods that a window looks back on, where nothing is said."""

LOOKBACK = 96
"""Steps that it looks back on where the series has no period."""


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
        horizon: int | float,
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
        self._check(horizon, validation, known, seen)
        panel = as_panel(series, time_step=time_step, resample=resample)
        tables = beside(known, panel, 0, "known"), beside(seen, panel, 0, "seen")
        horizon, first = int(horizon), panel[0]
        held = [held_rows(len(one.values), validation, horizon) for one in panel]
        train = [one.values[: len(one.values) - h] for one, h in zip(panel, held, strict=True)]
        period, why_period = self._period(train)
        lookback, why_lookback = self._lookback(train, horizon, period)
        if (rows := max(map(len, train))) < lookback + horizon:
            raise ValueError(
                f"the series is too short: its training part has {rows} rows where a window needs "
                f"{lookback + horizon}, the lookback of {lookback} and the horizon of {horizon}. Take a shorter "
                f"lookback or horizon, a smaller validation than {validation:g}, or more data."
            )
        given = prepared(panel, tables, held, Sizes(lookback, horizon, period), self.reads_times, impute)
        key = random_key(key)
        learned = self.learn(given.task, key=key, threads=threads, progress=progress)
        none = "no validation" if not validation else f"rows at the end: {validation:g} of them, at least the horizon"
        settings: dict[str, tuple[Any, str]] = {
            "horizon": (horizon, "given"),
            "validation": (held if len(held) > 1 else held[0], none),
            "period": (period, why_period),
            "lookback": (lookback, why_lookback),
            "impute": (impute, "nothing was missing" if impute is None else "given: fill in by looking back"),
            **learned.notes,
        }
        record = {
            "settings": {k: {"value": v, "reason": why} for k, (v, why) in settings.items()},
            "estimator": type(self).__name__,
        }
        return Predictor(
            learned.members,
            None if len(panel) > 1 else given.scalers[0],
            given.tail,
            given.beside_scalers,
            errors_of(learned.members, given.task),
            given.naive,
            first.names,
            first.units,
            names_of(tables),
            self.reads_times,
            impute,
            period,
            json.dumps(record),
        )

    def _check(self, horizon: Any, validation: float, known: Any, seen: Any) -> None:
        """What can be refused before the series is looked at."""
        counted("horizon", horizon)
        for name, value in (("lookback", self.lookback), ("period", self.period)):
            if value is not None:
                counted(name, value)
        if not 0 <= real("validation", validation) < 1:
            raise ValueError(f"validation must be a share from 0 to below 1: got {validation!r}.")
        if (known is not None or seen is not None) and not self.takes_covariates:
            raise ValueError(
                f"{type(self).__name__} takes no covariates: got {'known' if known is not None else 'seen'}. "
                "TPGNEstimator and SequenceEstimator do."
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
