"""Forcing that finds its own strength, or follows a schedule."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from dsrecon._types import Scalar
from dsrecon.cell import as_matrix
from dsrecon.evolve import AbstractSolver, Sequential, evolve
from dsrecon.readout import Forced
from dsrecon.training.estimators import Estimator, product_bound
from dsrecon.training.losses import presented
from dsrecon.training.windows import Window


class Adaptive(eqx.Module):
    """Adaptive generalized teacher forcing: as much as keeps gradients bounded, and no more.

    A step of the forced system stretches a gradient by at most `(1 - alpha) s`, `s` the norm of the cell's Jacobian. So

    `alpha_new = max(0, 1 - 1/s)`, and `alpha` rises to it at once, but falls by `alpha <- g alpha + (1 - g) alpha_new`,

    every `every` updates, beginning at 1. To be given to `fit` as `adapt`, beside the loss `gtf()` and the
    state `Adaptive().start`. `alpha`, `norm` (`s`) and `bound` (`(1 - alpha) s`) are told of every update in
    `History.facts`, beside the `gradient_norm` that came of them.

    Under an identity readout with hidden units, or with channels that are not forced, only part of the state is pulled;
    the bound then holds for that part alone.

    **Arguments:**

    - `estimator`: of `s`: `product_bound` (default), `largest_norm`, `mean_norm`, `log_mean_norm`, or
      `parameter_bound(dsrecon.models.norm_bound)`.
    - `every`: updates from one estimate to the next. `decay`: `g`, 0 to 1. With the paper's .999 and 5 updates, alpha
      falls by a factor e in 5,000 updates: a shorter fit wants a smaller `g`.
    - `stride`: Jacobians are taken at every so-manieth step of the windows; 1: all.
    - `channels`, `solver`: those of the loss.

    **Raises:** `ValueError` for `every` or `stride` below 1, and a `decay` outside [0, 1).

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """

    estimator: Estimator = eqx.field(static=True, default=product_bound)
    every: int = eqx.field(static=True, default=5)
    decay: float = eqx.field(static=True, default=0.999)
    stride: int = eqx.field(static=True, default=1)
    channels: tuple[bool, ...] | None = eqx.field(static=True, default=None)
    solver: AbstractSolver = Sequential()

    def __check_init__(self):
        if self.every < 1 or self.stride < 1:
            raise ValueError(f"every and stride must be at least 1: got {self.every} and {self.stride}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1): got {self.decay}.")

    @property
    def start(self) -> dict[str, Array]:
        """The state to begin with: `alpha = 1`; `norm` is NaN until the first estimate, at the first update."""
        return {"alpha": jnp.ones(()), "norm": jnp.full((), jnp.nan)}

    def estimate(self, model: Forced, alpha: Float[Array, ""], batch: Window) -> Scalar:
        """`s` of a model along a batch of windows, forced by `alpha`."""
        return self.estimator(model.cell, jacobians(model, alpha, batch, self.stride, self.channels, self.solver))

    def __call__(
        self, model: Forced, state: dict[str, Array], batch: Window, update: Int[Array, ""]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """The state for this update, and `alpha`, `norm` and `bound`."""

        def renewed(state):
            norm = self.estimate(model, state["alpha"], batch).astype(state["norm"].dtype)
            wanted = jnp.maximum(1 - 1 / norm, jnp.zeros_like(norm))
            old = state["alpha"]
            fallen = self.decay * old + (1 - self.decay) * wanted
            # NaN is neither above nor below: it is passed on, the loss is NaN with it, and the run stops
            return {"alpha": jnp.where(wanted > old, wanted, fallen), "norm": norm}

        state = jax.lax.cond(update % self.every == 0, renewed, lambda state: state, state)
        return state, {**state, "bound": (1 - state["alpha"]) * state["norm"]}


def scheduled(schedule: Callable[[Any], Any]) -> Callable[..., tuple[PyTree, dict[str, Array]]]:
    """Forcing on a schedule, `alpha = schedule(update)` (any of optax's): an `adapt` of `fit`, beside the loss `gtf()`.

    The state to begin with is `{"alpha": jnp.ones(())}`. **Raises:** `ValueError` for a first value outside [0, 1].
    """
    first = float(schedule(0))
    if not 0 <= first <= 1:
        raise ValueError(f"the schedule must lie in [0, 1]: it begins at {first}.")

    def adapt(model: Any, state: dict[str, Array], batch: Any, update: Int[Array, ""]):
        alpha = jnp.asarray(schedule(update)).astype(state["alpha"].dtype)
        return {**state, "alpha": alpha}, {"alpha": alpha}

    return adapt


def jacobians(
    model: Forced,
    alpha: Float[Array, ""],
    batch: Window,
    stride: int = 1,
    channels: tuple[bool, ...] | None = None,
    solver: AbstractSolver = Sequential(),
) -> Float[Array, "b t m m"]:
    """Jacobians of the cell along forced windows, at every `stride`-th step.

    **Arguments:** `model`: a `Forced` cell; `alpha`: strength of the forcing; `batch`: windows of `T + 1` observations;
    `stride`; `channels`: forced ones; `solver`.

    **Returns:** `[b, t, m, m]`, `df/dz` of the cell at the state after it was pulled, `t = ceil(T / stride)`.

    **Raises:** `ValueError` for windows of another width than the readout shows.
    """
    alphas = jnp.full(batch.x.shape[1] - 1, alpha, batch.x.dtype)
    z0, forcing = presented(model, batch, alphas, channels)
    zs = evolve(model, z0, forcing, solver=solver, throw=False).zs
    before = jnp.concatenate([z0[:, None], zs[:, :-1]], axis=1)[:, ::stride]
    forcing = jax.tree.map(lambda x: x[:, ::stride], forcing)

    def at(z, s):
        return as_matrix(model.cell.linearise(model.force(z, s), s.s)[1])

    return jax.vmap(jax.vmap(at))(before, forcing)
