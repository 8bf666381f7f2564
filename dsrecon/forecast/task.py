"""What a forecaster is given to learn from: series, covariates and time marks as arrays, in the units of a model."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsrecon.forecast.marks import time_marks
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, Series, aligned, as_trials, several

Impute = Literal["last", "seasonal"]
"""How missing values are filled in; both look back only, so that a window never sees what came after it."""


class Stretch(NamedTuple):
    """One series with what is known beside it, in the units of the data.

    `values` `[t, n]`; `known` `[t, j]`: covariates known ahead, `seen` `[t, i]`: covariates known up to the present.
    """

    values: np.ndarray
    known: np.ndarray
    seen: np.ndarray
    clock: Clock


class Held(NamedTuple):
    """Windows to be judged by: `x` `[t, n]`, `s` `[t, k]` and `mask` `[t, n]` as in `Task`; where they start, `[w]`."""

    x: Float[Array, "t n"]
    s: Float[Array, "t k"] | None
    mask: Bool[Array, "t n"] | None
    starts: Int[Array, "w"]


class Task(NamedTuple):
    """What an estimator learns from, in the units of the model.

    - `x` `[t, n]`: the training parts of all series, one after the other; `trials`: their lengths.
    - `s` `[t, k]`: what is known beside them, the `known` columns that are known ahead first; `None` for nothing.
    - `mask` `[t, n]`: what was observed; `None` where all of it was.
    - `held`: the validation windows, `None` without.
    - `lookback`, `horizon`, `period` in steps.
    """

    x: Float[Array, "t n"]
    s: Float[Array, "t k"] | None
    mask: Bool[Array, "t n"] | None
    trials: tuple[int, ...]
    known: int
    held: Held | None
    lookback: int
    horizon: int
    period: int

    @property
    def channels(self) -> int:
        return self.x.shape[1]

    @property
    def beside(self) -> int:
        """Columns of `s`."""
        return 0 if self.s is None else self.s.shape[1]

    @property
    def windows(self) -> int:
        """Windows of `lookback + horizon` rows in the training parts."""
        return sum(max(n - self.lookback - self.horizon + 1, 0) for n in self.trials)


def as_panel(series: Any, *, time_step: float | None = None, resample: float | None = None) -> tuple[Series, ...]:
    """One series or several (a list), each as `as_series` checks it; months and working days are steps."""
    return as_trials(series, time_step=time_step, resample=resample, calendar=True)


def beside(data: Any, trials: Sequence[Series], ahead: int, name: str) -> tuple[Series, ...] | None:
    """Covariates of every series, row for row with it and `ahead` rows further; `None` where there are none.

    **Raises:** `ValueError` for covariates with gaps, that end too early, at other times or of another number.
    """
    if data is None:
        return None
    given = data if several(data) else [data]
    if len(given) != len(trials):
        raise ValueError(f"{name} covariates must be as many as the series, {len(trials)}: got {len(given)}.")
    found = []
    for i, (one, trial) in enumerate(zip(given, trials, strict=True)):
        try:
            table = as_trials(one, calendar=True)[0]
            found.append(aligned(table, trial.clock, len(trial.values) + ahead, i))
        except ValueError as error:
            rows = f"{len(trial.values)} rows of the series" + (f" and {ahead} ahead, the horizon" if ahead else "")
            raise ValueError(f"{name} covariates must cover the {rows}: {error}") from error
    return tuple(found)


def imputed(values: np.ndarray, how: Impute | None, period: int, names: Sequence[str], what: str) -> np.ndarray:
    """Values `[t, n]` without NaN: refused, or filled in from what came before.

    `"last"` holds the last value, `"seasonal"` takes the one a period before. What is missing before the first
    observation of a channel takes that.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    if how is None:
        row, column = np.argwhere(missing)[0]
        raise ValueError(
            f"{what} must be complete: {missing.sum()} of {missing.size} values are NaN, the first {names[column]!r} "
            f"at row {row}. Choose impute='last' (hold the last value) or impute='seasonal' (that of a period before), "
            "or cut the series there."
        )
    out, step = np.array(values), 1 if how == "last" else period
    for column in out.T:
        seen = np.flatnonzero(~np.isnan(column))
        if not len(seen):
            raise ValueError(f"{what} must hold observations in every variable: one has none in {len(column)} rows.")
        for i in np.flatnonzero(np.isnan(column)):
            column[i] = column[i - step] if i >= max(step, seen[0] + 1) else column[i - 1 if i > seen[0] else seen[0]]
    return out


def known_beside(
    stretch: Stretch, scalers: tuple[Scaler | None, Scaler | None], marks: bool, ahead: int
) -> tuple[np.ndarray, int]:
    """All that is known beside a series and `ahead` rows further, `[t + ahead, k]`, and how many columns are known
    ahead.

    In this order: covariates known ahead, time marks, covariates known up to the present (0 ahead, where no model
    looks).
    """
    rows = len(stretch.values) + ahead
    parts = []
    for values, scaler in zip((stretch.known, stretch.seen), scalers, strict=True):
        scaled = np.zeros((len(values), 0)) if scaler is None else (values - scaler.mean) / scaler.std
        parts.append(np.concatenate([scaled, np.zeros((max(rows - len(scaled), 0), scaled.shape[1]))])[:rows])
    of_time = time_marks(stretch.clock, rows)[0] if marks else np.zeros((rows, 0))
    return np.concatenate([parts[0], of_time, parts[1]], 1), stretch.known.shape[1]


def on_device(values: np.ndarray) -> Float[Array, "..."]:
    """In the default float type."""
    return jnp.asarray(values, float)


def spread(starts: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the windows, evenly spread, the first and the last among them."""
    if len(starts) <= most:
        return starts
    return starts[np.round(np.linspace(0, len(starts) - 1, most)).astype(int)]
