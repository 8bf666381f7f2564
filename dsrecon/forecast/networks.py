"""Forecasters that are trained by gradients: TPGN, deep models of sequence layers, NLinear, DLinear."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array

from dsrecon._types import Key
from dsrecon.forecast.estimator import AbstractEstimator, Learned
from dsrecon.forecast.run import Members, errors
from dsrecon.forecast.task import Task
from dsrecon.forecaster import AbstractForecaster
from dsrecon.layer import AbstractSequenceLayer
from dsrecon.models import S4, TPGN, DLinear, LinearForecaster
from dsrecon.models.ahead import SequenceForecaster
from dsrecon.models.linear import Level
from dsrecon.training import Epochs, Windows, fit, forecasting, grouped, squared

EPOCH, FEWEST = 1000, 50
"""Updates at most and at least between two looks at the validation windows: few windows are gone through repeatedly."""


class Training(eqx.Module):
    """How a forecaster is trained: Adam on windows in random order, until the validation error stops falling.

    - `epochs`: as many windows as there are (but at least 50 updates), so many times, at most. After each (or after
      1,000 updates) the validation windows are looked at; `patience` looks without a better error are the end. The best
      state is kept.
    - `batch` windows an update. `learning_rate` in the first two epochs, then `decay` times the last one's.
    - `weight_decay`: of AdamW. `error`: what is minimised, `squared` or `absolute`.
    - `shuffled`: an epoch has every window once, in an order of its own (but for the last ones, where they do not make
      a whole batch). Otherwise windows are drawn with replacement, so that by the end of the first epoch one in three
      has not been seen.
    """

    epochs: int = 25
    patience: int = 5
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 0.9
    weight_decay: float = 0.0
    error: Callable[[Array], Array] = squared
    shuffled: bool = False

    def __check_init__(self):
        for name in ("epochs", "patience", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}.")
        if not (self.learning_rate > 0 and 0 < self.decay <= 1 and self.weight_decay >= 0):
            raise ValueError(
                "learning_rate must be positive, decay in (0, 1] and weight_decay at least 0: got "
                f"{self.learning_rate}, {self.decay} and {self.weight_decay}."
            )


def trained(
    make: Callable[[Key], AbstractForecaster],
    task: Task,
    training: Training,
    members: int,
    *,
    key: Key,
    threads: int | None,
    progress: bool | None,
    dynamics_rate: float | None = None,
) -> Learned:
    """`members` forecasters from as many seeds, trained at once.

    `dynamics_rate`: learning rate of what makes the dynamics of sequence layers, without weight decay; `None` for
    forecasters without such layers.

    **Raises:** `ValueError` for members below 1; `RuntimeError` where one of them did not stay finite.
    """
    if members < 1:
        raise ValueError(f"members must be at least 1: got {members}.")
    batch = min(training.batch, task.windows)
    every = max(task.windows // batch, FEWEST)
    updates, look = training.epochs * every, min(every, EPOCH)

    optimiser = _optimiser(training, every, dynamics_rate)
    sampler = Windows(
        task.x, length=task.lookback + task.horizon - 1, batch=batch, trials=task.trials, mask=task.mask, s=task.s
    )
    keys = jax.random.split(key, (2, members))
    start = eqx.filter_jit(eqx.filter_vmap(make))(keys[0])  # one compilation instead of one an operation
    held = task.held

    def judged(models: Any) -> dict[str, np.ndarray]:
        assert held is not None
        group = Members.of(models, len(jax.tree.leaves(eqx.filter(models, eqx.is_array))[0]))
        return {"score": np.asarray(errors(group, held.x, held.s, held.mask, held.starts, task.known, training.error))}

    with jax.numpy_dtype_promotion("standard"):
        model, history = fit(
            start,
            forecasting(task.known, training.error),
            Epochs(sampler) if training.shuffled else sampler,
            optimiser,
            steps=updates,
            every=look,
            key=keys[1],
            evaluate=None if held is None else judged,
            patience=None if held is None else training.patience,
            threads=threads,
            progress=progress,
        )
    failed = np.flatnonzero(history.failed_at >= 0)
    if len(failed):
        raise RuntimeError(
            f"{len(failed)} of {members} members turned non-finite, the first at update "
            f"{history.failed_at[failed[0]]}. Take a smaller learning rate than {training.learning_rate:g}."
        )
    best = (history.best_at / every).round(2).tolist()
    notes = {
        "members": (members, "given"),
        "epochs": (best, "until the validation error stopped falling" if held else "all of them: no validation"),
        "seconds": ([round(history.compile_seconds, 2), round(history.seconds, 2)], "to compile, and to train"),
    }
    if held is not None:
        notes["validation_error"] = (history.scores["score"].min(0).tolist(), "smallest, of each member")
    return Learned(Members.of(model, members), notes)


def _optimiser(training: Training, every: int, dynamics_rate: float | None) -> optax.GradientTransformation:
    """Adam, its rates falling from one epoch of `every` updates to the next."""

    def falling(first: float) -> Callable[[Any], Array]:
        return lambda count: first * training.decay ** jax.numpy.maximum(count // every - 1, 0)

    rate, decay = falling(training.learning_rate), training.weight_decay
    # All parameters as one vector: a program of few operations, which compiles sooner.
    rest = optax.flatten(optax.adamw(rate, weight_decay=decay) if decay else optax.adam(rate))
    return rest if dynamics_rate is None else grouped(rest, optax.adam(falling(dynamics_rate)))


class TPGNEstimator(AbstractEstimator):
    """Fits `dsrecon.models.TPGN`, an ensemble of `members` from as many seeds.

    - `lookback`, `period`: found from the series where not given. `width`: units of each branch.
    - `normalise`: each window has mean 0 and variance 1. `marks`: time marks beside the series, where it has dates.
    - `training`: see `Training`; the default is the published protocol, but that windows are drawn with replacement
      (`Training(shuffled=True)` goes through them epoch by epoch).
    """

    lookback: int | None = None
    period: int | None = None
    width: int = 8
    normalise: bool = True
    marks: bool = True
    members: int = 1
    training: Training = Training()

    @property
    def reads_times(self) -> bool:
        return self.marks

    @property
    def takes_covariates(self) -> bool:
        return True

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        def make(key: Key) -> TPGN:
            return TPGN(
                task.lookback,
                task.horizon,
                period=task.period,
                channels=task.channels,
                width=self.width,
                past_size=task.beside,
                known_size=task.known,
                normalise=self.normalise,
                key=key,
            )

        return trained(make, task, self.training, self.members, key=key, threads=threads, progress=progress)


def s4(key: Key) -> S4:
    """`S4(32)`."""
    return S4(32, key=key)


class SequenceEstimator(AbstractEstimator):
    """Fits `dsrecon.models.SequenceForecaster`: sequence layers (S4, S4D, S5, ...) that read on over the steps ahead.

    All variables are read together and told together. Steps of the series are steps of the layers.

    - `lookback`, `period`: found from the series where not given; the period is for the record only.
    - `layer`: makes a layer, `lambda key: S4D(32, key=key)`. `depth`: so many of them.
    - `dropout`: share; `bidirectional`: layers that read backwards too, from the last step ahead.
    - `level`: what is taken off a window and put back on its forecast, `"last"`, `"mean"` or `"none"`.
    - `marks`: time marks beside the series, where it has dates. `members`: an ensemble from as many seeds.
    - `training`: see `Training`; `dynamics_rate`: learning rate of the layers' dynamics, which falls as the other does;
      they have no weight decay.
    """

    lookback: int | None = None
    period: int | None = None
    layer: Callable[[Key], AbstractSequenceLayer] = s4
    depth: int = 1
    dropout: float = 0.0
    bidirectional: bool = False
    level: Level = "last"
    marks: bool = True
    members: int = 1
    training: Training = Training()
    dynamics_rate: float = 1e-3

    def __check_init__(self):
        if not self.dynamics_rate > 0:
            raise ValueError(f"dynamics_rate must be positive: got {self.dynamics_rate}.")

    @property
    def reads_times(self) -> bool:
        return self.marks

    @property
    def takes_covariates(self) -> bool:
        return True

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        def make(key: Key) -> SequenceForecaster:
            return SequenceForecaster(
                task.lookback,
                task.horizon,
                self.layer,
                channels=task.channels,
                depth=self.depth,
                dropout=self.dropout,
                bidirectional=self.bidirectional,
                past_size=task.beside,
                known_size=task.known,
                level=self.level,
                key=key,
            )

        return trained(
            make,
            task,
            self.training,
            self.members,
            key=key,
            threads=threads,
            progress=progress,
            dynamics_rate=self.dynamics_rate,
        )


class NLinearEstimator(AbstractEstimator):
    """Fits `dsrecon.models.LinearForecaster` with the window's last value as level, by gradients (NLinear)."""

    lookback: int | None = None
    period: int | None = None
    members: int = 1
    training: Training = Training()

    @property
    def reads_times(self) -> bool:
        return False

    @property
    def takes_covariates(self) -> bool:
        return False

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        def make(key: Key) -> LinearForecaster:
            return LinearForecaster(task.lookback, task.horizon, channels=task.channels, level="last", key=key)

        return trained(make, task, self.training, self.members, key=key, threads=threads, progress=progress)


class DLinearEstimator(AbstractEstimator):
    """Fits `dsrecon.models.DLinear`, by gradients."""

    lookback: int | None = None
    period: int | None = None
    members: int = 1
    training: Training = Training()

    @property
    def reads_times(self) -> bool:
        return False

    @property
    def takes_covariates(self) -> bool:
        return False

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        def make(key: Key) -> DLinear:
            return DLinear(task.lookback, task.horizon, channels=task.channels, key=key)

        return trained(make, task, self.training, self.members, key=key, threads=threads, progress=progress)
