"""Scores that choose among the runs: free runs against the validation stretches."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from dsrecon.evolve import evolve
from dsrecon.measures.rank import floors, rank
from dsrecon.measures.score import failure
from dsrecon.readout import Forced, GeneralisedReadout

LONGEST_RUN = 10_000


class Held(NamedTuple):
    """A validation stretch in the units of the model.

    - `x` `[t, n]` float64, NaN where missing; `start` `[n]`: what the first state is made of (a row of `targets`).
    - `s`: external inputs of the steps after row 0, `[t - 1, k]`, or `None`; `steps`: how far the free run goes.
    """

    x: np.ndarray
    start: np.ndarray
    s: np.ndarray | None
    steps: int


def begun(x: np.ndarray, targets: np.ndarray, s: np.ndarray | None, longest: int) -> Held:
    """A stretch from its first complete row on (from its very first where none is complete), `longest` steps at most.

    The free run starts at that row and is compared with what follows from there.
    """
    complete = np.isfinite(x).all(1)
    first = int(np.argmax(complete)) if complete.any() else 0
    driven = None if s is None else s[first + 1 :]
    steps = min(longest, len(x) - first if driven is None else len(driven))
    return Held(x[first:], targets[first], driven, steps)


def held_floors(held: Sequence[Held], train: Sequence[np.ndarray], definition: str = "min-max") -> dict[str, float]:
    """What training stretches score against the validation stretches: see `measures.rank`; arguments as `evaluator`."""
    longest = sorted(train, key=len)[::-1]
    other = [longest[i % len(longest)][-h.steps :] for i, h in enumerate(held)]
    rows = np.concatenate(train)
    rows = rows[np.isfinite(rows).all(1)][-sum(h.steps for h in held) :]
    gaps = any(np.isnan(o).any() for o in other)
    return floors([h.x for h in held], other, points=rows if gaps else None, definition=definition)


def evaluator(
    held: Sequence[Held], train: Sequence[np.ndarray], definition: str = "min-max"
) -> Callable[[PyTree], dict[str, np.ndarray]]:
    """Scores of a stack of models against the validation stretches, in units of what training stretches score.

    **Arguments:** `held`; `train`: training stretches `[t, n]` in the units of the model, NaN where missing;
    `definition` of the bins of `d_stsp`: `"padded"` where there are counts, which lie on the edges of their range.

    **Returns:** `models -> {"score", "d_stsp", "d_h", "outside", "failure"}`, one value a model: see `measures.rank`.
    """
    true = [h.x for h in held]
    scale = held_floors(held, train, definition)
    steps = max(h.steps for h in held)
    starts = jnp.asarray(np.stack([h.start for h in held]), dtype=float)
    inputs = None if held[0].s is None else _padded([h.s for h in held if h.s is not None], steps)

    def scored(run: np.ndarray) -> dict[str, float | str]:
        parts = [r[: h.steps] for h, r in zip(held, run, strict=True)]
        why = failure(np.concatenate(true), np.concatenate(parts))
        return {**rank(true, parts, scale, definition=definition), "failure": why}

    def evaluate(models: PyTree) -> dict[str, np.ndarray]:
        found = [scored(run) for run in np.asarray(_free_runs(models, starts, inputs, steps), np.float64)]
        return {k: np.array([f[k] for f in found], object if k == "failure" else float) for k in found[0]}

    return evaluate


def _padded(inputs: Sequence[np.ndarray], steps: int) -> Array:
    """Inputs `[b, steps, k]`: zeros after the end of the shorter ones, whose steps there are never read."""
    rows = [s[:steps] for s in inputs]
    return jnp.asarray(np.stack([np.pad(s, ((0, steps - len(s)), (0, 0))) for s in rows]), dtype=float)


@eqx.filter_jit
def _free_runs(models: PyTree, starts: Float[Array, "b n"], inputs: Array | None, steps: int) -> Array:
    """Observations `[r, b, steps, n]` of free runs; row 0 is one step after the start."""

    def one(model: Forced):
        z0 = jax.vmap(model.readout.start)(starts)
        zs = evolve(model.cell, z0, inputs, steps=steps, throw=False).zs
        readout = model.readout
        if isinstance(readout, GeneralisedReadout):  # counts are compared with counts, not with their rates
            keys = jax.random.split(jax.random.key(0), len(zs))
            return jax.vmap(lambda z, key: readout.sample(z, key=key))(zs, keys)
        return jax.vmap(readout.observe)(zs)

    return eqx.filter_vmap(one)(models)
