"""What training minimises. A loss is a function; a new one needs nothing else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dsrecon._results import RESULTS
from dsrecon._types import Key, Scalar
from dsrecon.evolve import AbstractSolver, Sequential, evolve
from dsrecon.readout import Forced, Forcing
from dsrecon.training.windows import Window

Loss = Callable[[Any, PyTree, Any, Key], tuple[Scalar, tuple[PyTree, dict[str, Array]]]]
"""`loss(model, state, batch, key) -> (value, (state, facts))`; `state` is whatever the loss carries along."""


def gtf(
    alpha: float | None = None,
    *,
    interval: int | None = None,
    channels: tuple[bool, ...] | None = None,
    solver: AbstractSolver = Sequential(),
) -> Loss:
    """Mean misfit of the observations along windows under generalized teacher forcing.

    Before each step the state is pulled towards the data as seen (`batch.seen`), `z <- z + alpha (encode(x) - z)`;
    the misfit (the readout's: squared error, or another negative log-likelihood) is that of the prediction *before* it
    is pulled. Both are taken where the data were observed (`batch.mask`) and nowhere else. The first `memory`
    predictions of a readout with memory do not count: what they show depends on states before the window. The model
    is a `Forced` cell, the batch a `Window`.

    **Arguments:**

    - `alpha`: constant forcing, 0 (free) to 1 (teacher forcing). Gradients stay bounded for `alpha >= 1 - 1/s`,
      `s` the largest spectral norm of the Jacobians.
    - `interval`: sparse forcing instead: `alpha = 1` every `interval` steps, 0 between.
    - neither: `alpha` is read from the loss's state, `state["alpha"]`, so that the runs of an ensemble may differ, and
      an `adapt` of `fit` (`Adaptive`, `scheduled`) may change it on the way.
    - `channels`: partial forcing: which observed channels are forced (all by default).
    - `solver`: how the forced cell is run. `Newton()` and its like find all steps at once: a run that they do not solve
      makes the loss NaN (so `fit` stops and says so; their `finish="sequential"` solves it instead), and `iterations`,
      the most of the batch, is told among the facts. A `state["guess"]`, states `[b, t, m]`, is where they begin, and
      becomes the run just found: a warm start, for batches that are the same windows at every update.

    **Raises:** `ValueError` for alpha outside [0, 1], an interval below 1, both at once, `channels` that force none;
    when traced, before anything is compiled, for an alpha or interval beside one in the state, a batch of another
    width than the readout shows, and channels of another number.

    References: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML; Mikhaeil et al.
    2022, *On the difficulty of learning chaotic dynamics with RNNs*, NeurIPS (sparse forcing).
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1]: got {alpha}.")
    if interval is not None and interval < 1:
        raise ValueError(f"interval must be at least 1: got {interval}.")
    if alpha is not None and interval is not None:
        raise ValueError(f"give alpha or interval, not both: got alpha={alpha} and interval={interval}.")
    if channels is not None and not any(channels):
        raise ValueError("channels must force at least one channel: got none.")

    def forcing(state: PyTree, steps: int, dtype: Any) -> Float[Array, "t"]:
        carried = isinstance(state, dict) and "alpha" in state
        given = f"alpha={alpha}" if alpha is not None else f"interval={interval}"
        if carried and (alpha is not None or interval is not None):
            raise ValueError(
                f"the state carries an alpha (an adaptive rule's, say): {given} cannot be given beside it."
            )
        if interval is not None:
            return (jnp.arange(steps) % interval == 0).astype(dtype)
        return jnp.full(steps, state["alpha"] if alpha is None else alpha, dtype)

    def loss(model: Forced, state: PyTree, batch: Window, key: Key):
        alphas = forcing(state, batch.x.shape[1] - 1, batch.x.dtype)
        z0, forced = presented(model, batch, alphas, channels)
        warm = isinstance(state, dict) and "guess" in state
        run = evolve(model, z0, forced, solver=solver, guess=state["guess"] if warm else None, throw=False)
        misfit = jax.vmap(model.readout.misfit)(run.zs, batch.x[:, 1:])[:, model.readout.memory :]
        if batch.mask is None:
            value = jnp.mean(misfit)
        else:
            counted = batch.mask[:, 1 + model.readout.memory :]
            total = jnp.sum(jnp.where(counted, misfit, jnp.zeros_like(misfit)))
            value = total / jnp.maximum(jnp.sum(counted), 1).astype(total.dtype)
        if warm:
            state = {**state, "guess": jax.lax.stop_gradient(run.zs)}
        if "iterations" not in run.stats:
            return value, (state, {})
        solved = jnp.all(~(run.result == RESULTS.not_converged))
        return jnp.where(solved, value, jnp.nan), (state, {"iterations": jnp.max(run.stats["iterations"])})

    return loss


def presented(
    model: Forced, batch: Window, alphas: Float[Array, "t"], channels: tuple[bool, ...] | None = None
) -> tuple[Float[Array, "b m"], Forcing]:
    """Where the runs of a batch of windows begin, and what pulls on them on their way.

    **Arguments:** `model`; `batch`: windows of `t + 1` observations; `alphas`: strength at each step, `[t]`;
    `channels`: which of the observed channels are forced.

    **Returns:** start states `[b, m]`, and a `Forcing` with leaves `[b, t, ...]`.

    **Raises:** `ValueError` for a batch of another width than the readout shows, or other channels.
    """
    x, seen, s, observed = batch.x, batch.seen, batch.s, batch.mask
    wanted = model.readout.observed_size
    if seen.shape[-1] != wanted or x.shape[-1] != wanted:
        raise ValueError(
            f"the forcing target must have the {wanted} channels that the readout shows: the windows have "
            f"{seen.shape[-1]} (seen) and {x.shape[-1]} (to predict)."
        )
    if channels is not None and len(channels) != wanted:
        raise ValueError(f"channels must say yes or no to each of the {wanted} channels: got {len(channels)}.")
    lead = (x.shape[0], x.shape[1] - 1)
    mask = None if channels is None else jnp.broadcast_to(jnp.array(channels), (*lead, wanted))
    if observed is not None:
        mask = observed[:, :-1] if mask is None else mask & observed[:, :-1]
    forced = Forcing(seen[:, :-1], jnp.broadcast_to(alphas, lead), None if s is None else s[:, 1:], mask)
    return jax.vmap(model.readout.start)(seen[:, 0]), forced
