"""How the runs are pulled towards the data: constant, on a schedule, sparse, or as the Jacobians ask for."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsrecon.evolve import AbstractSolver, Sequential
from dsrecon.reconstruct.plan import Plan
from dsrecon.training import Adaptive, Estimator, History, Loss, gtf, scheduled
from dsrecon.training.updates import Adapt

ALPHAS = (0.05, 0.1, 0.2, 0.4)
"""Forcing strengths that the runs try in turn when none is given."""

FALLS = 20
"""By how many factors of e an adaptive strength may fall in one fit: it has come down in a tenth of it."""

STRIDE = 5
"""Jacobians of an adaptive strength are taken at every fifth step: neighbours are alike, and all would cost as much as
the update itself."""


class Pull(NamedTuple):
    """The loss, what changes its state, and the state `[r, ...]` that it begins with."""

    loss: Loss
    adapt: Adapt | None
    state: dict[str, jax.Array] | None

    def alphas(self, history: History) -> np.ndarray | None:
        """The strength in force when each run's model was kept, `[r]`; `None` for one that all share."""
        if self.state is None:
            return None
        if "alpha" in history.facts:
            kept = np.clip(history.best_at - 1, 0, None)
            return history.facts["alpha"][kept, np.arange(len(kept))]
        return np.asarray(self.state["alpha"])


def forcing_of(
    alpha: float | Sequence[float] | Callable[[Any], Any] | None,
    interval: int | None,
    adaptive: Adaptive | Estimator | None,
    runs: int,
    steps: int,
    plan: Plan,
    solver: AbstractSolver = Sequential(),
) -> Pull:
    """See `reconstruct` for the arguments. **Raises:** `ValueError` for more than one of them, and values out of range.

    `steps`: updates of the fit, by which an estimator given alone falls.
    """
    if not isinstance(solver, AbstractSolver):
        raise ValueError(f"solver must be Sequential(), Newton() or the like: got {type(solver).__name__}.")
    if not isinstance(solver, Sequential):
        plan.choose("solver", repr(solver), None, "")
    if adaptive is not None and (alpha is not None or interval is not None):
        name, value = ("alpha", alpha) if alpha is not None else ("interval", interval)
        raise ValueError(f"give {name} or adaptive, not both: an adaptive rule finds alpha itself; got {name}={value}.")
    if alpha is not None and interval is not None:
        raise ValueError(f"give alpha or interval, not both: got alpha={alpha} and interval={interval}.")
    if adaptive is not None:
        if not isinstance(adaptive, Adaptive):
            if not callable(adaptive):
                raise ValueError(f"adaptive must be Adaptive(...) or an estimator: got {type(adaptive).__name__}.")
            decay = min(0.999, math.exp(-FALLS * 5 / steps))
            adaptive = Adaptive(adaptive, decay=decay, stride=STRIDE, solver=solver)
        name = getattr(adaptive.estimator, "__name__", type(adaptive.estimator).__name__)
        text = f"adaptive ({name}, every {adaptive.every} updates, decay {adaptive.decay:.4g})"
        plan.choose("alpha", text, None, "")
        return Pull(gtf(channels=adaptive.channels, solver=solver), adaptive, _for_all(adaptive.start, runs))
    if callable(alpha):
        plan.choose("alpha", "scheduled", None, "")
        return Pull(gtf(solver=solver), scheduled(alpha), _for_all({"alpha": jnp.ones(())}, runs))
    if interval is not None or isinstance(alpha, int | float):
        name, value = ("interval", interval) if interval is not None else ("alpha", alpha)
        plan.choose(name, value, None, "")
        return Pull(gtf(alpha if alpha is None else float(alpha), interval=interval, solver=solver), None, None)  # pyright: ignore
    given = ALPHAS if alpha is None else tuple(float(a) for a in alpha)
    if not given or not all(0 <= a <= 1 for a in given):
        raise ValueError(f"alpha must lie in [0, 1]: got {alpha}.")
    tried = [given[i % len(given)] for i in range(runs)]
    text = f"the runs try {sorted(set(tried))} and validation decides"
    plan.choose("alpha", None, tried, text if alpha is None else f"given; {text}")
    return Pull(gtf(solver=solver), None, {"alpha": jnp.array(tried)})


def _for_all(state: dict[str, jax.Array], runs: int) -> dict[str, jax.Array]:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *x.shape)), state)
