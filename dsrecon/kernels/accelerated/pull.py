"""The whole reverse pass of a recurrence whose units do not meet, in one kernel.

On its way back along a run it needs the states and what streamed in, makes each step anew in registers, and has beside
the costate the sums of the gradients by all constants of a unit; what goes out is the gradient by what streamed in.
No Jacobian, no costate and no gate is ever written. Parameters of which constants are made (before the loop), and
inputs of which streams are made (for all steps at once), get their gradients from those afterwards.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon.kernels.accelerated.loop import TILE, checked, counted, lagging, loop, outside
from dsrecon.kernels.accelerated.memory import accumulator
from dsrecon.kernels.accelerated.plan import Plan, Unfused, plan
from dsrecon.kernels.program import own_rules, run

WIDE = 128
"""Programs from which on the kernel pays: fewer leave multiprocessors idle, and a scan finds costates side by side."""


class Told(NamedTuple):
    """What the kernel tells: of every sequence the sums of gradients by constants, of every step those by streams."""

    constants: list[Array]
    streams: list[Array]


class _Parts(NamedTuple):
    """A step, taken apart: its arrays, what else it is, its plan."""

    free: Any
    fixed: Any
    made: Plan


def wide(rows: int, units: int) -> bool:
    """Whether so many sequences of so many units keep a GPU busy."""
    return rows * -(-units // TILE) >= WIDE


def _apart(step: Any, size: int, dtype: Any, inputs: Any, units: int) -> _Parts:
    free, fixed = eqx.partition(step, eqx.is_array)
    now = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), inputs)
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), free), jax.ShapeDtypeStruct((size,), dtype)

    def onwards(free, z, s):
        return eqx.combine(free, fixed)(z, s), ()

    if names := own_rules(onwards, *given, now):
        raise Unfused(f"the step has derivatives of its own ({', '.join(names)}), which an inlined step has not.")
    return _Parts(free, fixed, checked(plan(onwards, *given, now, units=units), units))


def check(step: Any, z0: Array, inputs: Any, units: int) -> None:
    """**Raises** `Unfused` for a step that this kernel cannot pull back, before anything is compiled."""
    parts = _apart(step, z0.shape[-1], z0.dtype, inputs, units)
    made = parts.made
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in (*made.constants, *made.streams)]
    constants, streams = shapes[: len(made.constants)], shapes[len(made.constants) :]
    z = jax.ShapeDtypeStruct(z0.shape[-1:], z0.dtype)
    sums = [_summing(x) for x in constants if _moves(x)]
    back = checked(plan(_back(made), constants, (z, sums, sums), (z, streams, z), units=units), units)
    lagging(back)
    counted(back, max((math.prod(x.shape[:2]) for x in jax.tree.leaves(inputs)), default=1))


def _moves(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _summing(x: Any) -> jax.ShapeDtypeStruct:
    """What a sum of such numbers over time is kept as."""
    return jax.ShapeDtypeStruct(x.shape, accumulator(x.dtype))


def _filled(chosen: list, all_: list) -> list:
    """`all_` with those that move replaced by `chosen`."""
    chosen = list(chosen)
    return [chosen.pop(0) if _moves(x) else x for x in all_]


def _back(made: Plan):
    """`(constants, (l, sums, lost), (z, streams, g)) -> ((l before, ..), gradients by streams)`: one step back.

    `lost`: what rounding took from the sums so far, and is given back at the next step: a plain sum over 10^6 steps
    would keep two digits of single precision.
    """

    def once(constants, carry, now):
        (l, sums, lost), (z, streams, g) = carry, now

        def onwards(z, moving, arriving):
            known = dict(zip(made.carry, [z], strict=True))
            known |= dict(zip(made.constants, _filled(moving, constants), strict=True))
            known |= dict(zip(made.streams, _filled(arriving, streams), strict=True))
            run(made.inside, known)
            return known[made.carried[0]]

        moving, arriving = ([x for x in xs if _moves(x)] for xs in (constants, streams))
        _, pull = jax.vjp(onwards, z, moving, arriving)
        z_bar, moving_bar, arriving_bar = pull(l + g)
        more = [x.astype(s.dtype) - c for x, s, c in zip(moving_bar, sums, lost, strict=True)]
        new = [s + x for s, x in zip(sums, more, strict=True)]
        lost = [(t - s) - x for t, s, x in zip(new, sums, more, strict=True)]
        return (z_bar, new, lost), arriving_bar

    return once


def pull(
    step: Any,
    z0: Array,
    zs: Array,
    inputs: Any,
    zs_bar: Array,
    ends: Array | None,
    *,
    units: int,
    interpret: bool = False,
) -> tuple[Array, Told]:
    """`l_{t-1} = J_t' (l_t + zs_bar_t)` of every sequence, and what it gives to constants and streams on its way.

    **Arguments:** `z0` `[b, m]`, `zs` `[b, t, m]`: a run; `inputs` `[b, t, ...]`; `zs_bar` `[b, t, m]`: gradient by its
    states; `ends` `[b, m]`: what arrives at the last step from behind it (`None`: 0); `units` of the step.

    **Returns:** what reaches the state before the first step `[b, m]`, and what `through` takes.

    **Raises:** `Unfused` for a step that the kernel cannot pull back.
    """
    parts = _apart(step, zs.shape[-1], zs.dtype, inputs, units)
    constants, streams = outside(parts.made, parts.free, inputs)
    kept = [_summing(x) for x in constants if _moves(x)]
    sums = [jnp.zeros((len(zs), *x.shape), x.dtype) for x in kept]
    carry = (jnp.zeros_like(z0) if ends is None else ends, sums, sums)
    told, (first, sums, _) = loop(
        _back(parts.made), constants, carry, (zs, streams, zs_bar), zs.shape[1],
        units=units, reverse=True, interpret=interpret, starts=z0,
    )  # fmt: skip
    return first, Told(sums, told)


def through(step: Any, z0: Array, inputs: Any, told: Told, *, units: int) -> tuple[Any, Any]:
    """Gradients by the step, in its shape, and by the inputs `[b, t, ...]`, of what `pull` told; `z0`: like a state."""
    parts = _apart(step, z0.shape[-1], z0.dtype, inputs, units)
    moving, others = eqx.partition((parts.free, inputs), eqx.is_inexact_array)

    def found(moving):
        return [[x for x in xs if _moves(x)] for xs in outside(parts.made, *eqx.combine(moving, others))]

    (constants, _), back = jax.vjp(found, moving)
    sums = [jnp.sum(x, 0).astype(like.dtype) for x, like in zip(told.constants, constants, strict=True)]
    ((step_bar, inputs_bar),) = back([sums, list(told.streams)])
    return step_bar, inputs_bar
