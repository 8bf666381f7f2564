"""What a forecaster has to beat: the last period, ridge regression, the nearest past."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dsrecon._types import Key
from dsrecon.forecast.estimator import AbstractEstimator, Learned
from dsrecon.forecast.run import Members, errors
from dsrecon.forecast.task import Task, on_device
from dsrecon.models import LinearForecaster, Parrot, SeasonalNaive
from dsrecon.models.linear import Level
from dsrecon.training import squared

PENALTIES = tuple(10.0**k for k in range(-1, 7))
"""Penalties that ridge regression chooses from."""

ROWS = 8192
"""Windows of which the products are added up at once."""


def alone(model: eqx.Module) -> Members:
    """An ensemble of one."""
    return Members.of(jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, model), 1)  # pyright: ignore


class SeasonalNaiveEstimator(AbstractEstimator):
    """`dsrecon.models.SeasonalNaive`: the last period again; nothing is learned but the period."""

    lookback: int | None = None
    period: int | None = None

    @property
    def reads_times(self) -> bool:
        return False

    @property
    def takes_covariates(self) -> bool:
        return False

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        return Learned(alone(SeasonalNaive(task.lookback, task.horizon, period=task.period)), {})


class ParrotEstimator(AbstractEstimator):
    """`dsrecon.models.Parrot`: the training stretch nearest to the window, copied; with `level`, but for its mean."""

    lookback: int | None = None
    period: int | None = None
    level: bool = True

    @property
    def reads_times(self) -> bool:
        return False

    @property
    def takes_covariates(self) -> bool:
        return False

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        starts, begin = [], 0
        for n in task.trials:
            starts.append(begin + np.arange(max(n - task.lookback - task.horizon + 1, 0)))
            begin += n
        starts = jnp.asarray(np.concatenate(starts), jnp.int32)
        parrot = Parrot(task.x, task.lookback, task.horizon, starts=starts, level=self.level)
        return Learned(alone(parrot), {"stretches": (len(starts), "all of the training part")})


class RidgeEstimator(AbstractEstimator):
    """Ridge regression of every step ahead on the window, channel by channel: a `LinearForecaster` in closed form.

    Minimises `sum |y - W x - b|^2 + penalty |W|^2` over all training windows, `x` and `y` less the window's `level`
    (`"none"`, `"last"` or `"mean"`). `b` is not penalised.

    - `penalty`: `None` to take, of `10^-1 ... 10^6`, the one with the smallest squared error on the validation windows.
    - `intercept`: whether there is a `b`.

    Reference: Hoerl & Kennard 1970, *Ridge regression*, Technometrics 12, 55.
    """

    lookback: int | None = None
    period: int | None = None
    level: Level = "none"
    penalty: float | None = None
    intercept: bool = True

    @property
    def reads_times(self) -> bool:
        return False

    @property
    def takes_covariates(self) -> bool:
        return False

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        if self.penalty is not None and not self.penalty > 0:
            raise ValueError(f"penalty must be positive: got {self.penalty}.")
        if self.penalty is None and task.held is None:
            raise ValueError("penalty must be given where there is no validation to choose it by.")
        x = np.asarray(task.x, np.float64)
        parts = [_products(x[:, c], task, self.level, self.intercept) for c in range(task.channels)]
        model = LinearForecaster(task.lookback, task.horizon, channels=task.channels, level=self.level, key=key)

        def solved(penalty: float) -> Members:
            W, b = zip(*(_solved(*part, penalty) for part in parts), strict=True)
            new = (on_device(np.stack(W)), on_device(np.stack(b)))
            return alone(eqx.tree_at(lambda m: (m.W, m.b), model, new))

        if self.penalty is not None:
            return Learned(solved(self.penalty), {"penalty": (self.penalty, "given")})
        held = task.held
        assert held is not None
        found = []
        for penalty in PENALTIES:
            members = solved(penalty)
            score = float(errors(members, held.x, held.s, held.mask, held.starts, task.known, squared)[0])
            found.append((score, penalty, members))
        score, penalty, members = min(found, key=lambda one: one[0])
        return Learned(
            members, {"penalty": (penalty, f"smallest squared error on the validation windows, {score:.4g}")}
        )


def _products(x: Float[np.ndarray, "t"], task: Task, level: Level, intercept: bool):
    """Eigenvalues and -vectors of the windows' covariance, their products with what came, and the means."""
    L, h = task.lookback, task.horizon
    gram, cross = np.zeros((L + 1, L + 1)), np.zeros((L + 1, h))
    begin, count = 0, 0
    for n in task.trials:
        if n >= L + h:
            windows = np.lib.stride_tricks.sliding_window_view(x[begin : begin + n], L + h)
            for i in range(0, len(windows), ROWS):
                part = windows[i : i + ROWS]
                past, ahead = part[:, :L], part[:, L:]
                off = {"none": 0.0, "last": past[:, -1:], "mean": past.mean(1, keepdims=True)}[level]
                past, ahead = past - off, ahead - off
                one = np.concatenate([past, np.ones((len(past), 1))], 1)
                gram += one.T @ one
                cross += one.T @ ahead
                count += len(past)
        begin += n
    mean_x = gram[-1, :L] / count if intercept else np.zeros(L)
    mean_y = cross[-1] / count if intercept else np.zeros(h)
    values, vectors = np.linalg.eigh(gram[:L, :L] - count * np.outer(mean_x, mean_x))
    return values, vectors, vectors.T @ (cross[:L] - count * np.outer(mean_x, mean_y)), mean_x, mean_y


def _solved(values, vectors, cross, mean_x, mean_y, penalty: float):
    """`W` `[h, l]` and `b` `[h]`."""
    W = (vectors @ (cross / (np.maximum(values, 0) + penalty)[:, None])).T
    return W, mean_y - W @ mean_x
