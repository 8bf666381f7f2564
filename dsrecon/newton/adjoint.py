"""Reverse mode of a whole run: a linear recurrence backwards over its true Jacobians, and one contraction."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.kernels.contraction import contract
from dsrecon.kernels.costates import costates
from dsrecon.kernels.mapped import mapped
from dsrecon.kernels.shift import preceding
from dsrecon.newton.windows import cut, joined, part


def adjoint(
    cell: AbstractCell,
    z0: Array,
    inputs: Inputs,
    zs: Array,
    zs_bar: Array,
    *,
    window: int | None,
    engine: str | Callable,
) -> tuple[Any, Array, Any]:
    """Gradients of a run by the cell, its start and its inputs.

    With the Jacobians `J_t` along the run, `l_t = g_t + J_{t+1}' l_{t+1}` by `linear_scan`; then the parameters, inputs
    and start of step `t` receive what `l_t` pulls back through that step, all of them in one product.

    **Arguments:** `cell`; `z0` `[*b, m]`; `inputs` `[*b, t, ...]`; `zs`: the run `[*b, t, m]`; `zs_bar`: gradient `g`
    of the states; `window`: steps whose Jacobians are held at once, `None` for all; `engine`: of `linear_scan`.

    **Returns:** gradients in the shapes of `cell`, `z0` and `inputs`, `None` for what is not a number.
    """
    batched = z0.ndim == 2
    before = preceding(z0, zs)
    steps = zs.shape[-2]
    window = steps if window is None else min(window, steps)
    count, rows = steps // window, (before, inputs, zs_bar)
    whole = count * window

    def backward(carry, now):
        """`l` behind a window `[*b, m]` (as the gradient of its last state) to `l` before it; and the gradients."""
        arriving, totals = carry
        before, inputs, g = now
        last = jnp.arange(g.shape[-2])[:, None] == g.shape[-2] - 1
        g = jnp.where(last, g + arriving[..., None, :], g)  # one step set of a constant, cut by XLA, would be wrong

        def pull(before: Array, inputs: Inputs, g: Array) -> tuple[Array, Array]:
            return _pulled(cell, before, inputs, g, engine)

        ls, leaving = (jax.vmap(pull) if batched else pull)(before, inputs, g)
        cell_bar, inputs_bar = contract(cell, before, inputs, ls, engine=engine)
        return (leaving, jax.tree.map(jnp.add, totals, cell_bar)), inputs_bar

    free = eqx.filter(cell, eqx.is_inexact_array)
    carry = (jnp.zeros_like(z0), jax.tree.map(jnp.zeros_like, free))
    rest_bar = None
    if whole < steps:
        carry, rest_bar = backward(carry, part(rows, batched, whole, steps))
    if count == 1:
        carry, inputs_bar = backward(carry, part(rows, batched, 0, whole))
    else:
        carry, inputs_bar = jax.lax.scan(backward, carry, cut(rows, batched, count, window), reverse=True)
        inputs_bar = jax.tree.map(lambda x: joined(x, batched), inputs_bar)
    if rest_bar is not None:
        axis = 1 if batched else 0
        inputs_bar = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis), inputs_bar, rest_bar)
    z0_bar, cell_bar = carry
    return cell_bar, z0_bar, inputs_bar


def _pulled(cell: AbstractCell, before: Array, inputs: Inputs, g: Array, engine: str | Callable) -> tuple[Array, Array]:
    """`l` of every step `[t, m]`, and what reaches the state before the first."""
    J = mapped(lambda cell, z, s: cell.linearise(z, s)[1], cell, before, inputs, engine=engine)
    return costates(J, g, engine=engine)
