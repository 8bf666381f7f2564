"""Where orbits end up, for every cell of a family at once."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell


def asymptotic_orbits(
    family: Callable[[float], AbstractCell],
    values: Sequence[float] | np.ndarray,
    starts: Any,
    s: Inputs = None,
    *,
    discard: int = 1000,
    keep: int = 100,
) -> np.ndarray:
    """The states that orbits come to, `z_{discard + 1} ... z_{discard + keep}`, at every value of a parameter.

    One compiled run of all cells and starts at once: the numbers that cells hold are stacked.

    **Arguments:**

    - `family`: parameter value to cell; cells may differ in their numbers only. `values`: of the parameter, `[v]`.
    - `starts`: states `[m]` or `[b, m]` that every cell is run from; `s`: the input, the same in every step.
    - `discard`: steps let go first; `keep`: steps kept.

    **Returns:** `[v, b, keep, m]` (`b` is 1 for one start). Orbits that diverge hold what they overflowed to.

    **Raises:** `ValueError` for cells that are not of one structure, starts of another shape, a number out of range.
    """
    grid = np.asarray(values, np.float64)
    if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all():
        raise ValueError(f"values must be finite numbers [v], at least 1: got shape {list(grid.shape)}.")
    if discard < 0 or keep < 1:
        raise ValueError(f"discard must be at least 0 and keep at least 1: got {discard} and {keep}.")
    cells = [family(value) for value in grid.tolist()]
    first = np.asarray(starts)
    first = first[None] if first.ndim == 1 else first
    if first.ndim != 2 or first.shape[1] != cells[0].state_size or not len(first):
        m = cells[0].state_size
        raise ValueError(f"starts must be states [{m}] or [b, {m}], at least one: got {list(np.shape(starts))}.")
    split = [eqx.partition(cell, eqx.is_array_like) for cell in cells]
    for value, (numbers, rest) in zip(grid, split, strict=True):
        if not eqx.tree_equal(rest, split[0][1]) or _shapes(numbers) != _shapes(split[0][0]):
            raise ValueError(
                f"family must return cells that differ in numbers only: that of {value:g} has another structure than "
                f"that of {grid[0]:g}."
            )
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *(n for n, _ in split))
    z = jnp.asarray(first, jnp.result_type(float))
    return np.asarray(_orbits(stacked, split[0][1], z, s, discard, keep))


def _shapes(numbers: Any) -> Any:
    return jax.tree.structure(numbers), [np.shape(leaf) for leaf in jax.tree.leaves(numbers)]


@eqx.filter_jit
def _orbits(stacked: Any, rest: Any, starts: Any, s: Inputs, discard: int, keep: int) -> Any:
    def run(numbers, z):
        cell = eqx.combine(numbers, rest)
        z, _ = jax.lax.scan(lambda z, _: (cell(z, s), None), z, length=discard)
        return jax.lax.scan(lambda z, _: (cell(z, s),) * 2, z, length=keep)[1]

    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(stacked, starts)
