"""What many steps pull back at once: the gradient by parameters, of all rows in a few large products."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon._types import Inputs, Step
from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.platform import nvidia

CPU_WHOLE, CPU_PIECE = 2**21, 2**19
"""Bytes between the products up to which a CPU contracts all rows at once, and the size of the pieces beyond, which
stay in its cache. Measured for 3,200 rows of 5 states and 250 hidden units: 1.5 ms at once, 1.0, .85 and .95 ms in
pieces of 800, 160 and 80 rows. Cells of 20 and 40 units lost a tenth of a gradient in pieces."""


class Within(NamedTuple):
    """What lies between two maps that a step is made of: states `zs` and the gradients `ls` by them, `[*t m]`."""

    zs: Array
    ls: Array


def contract(
    step: Step, before: Array, inputs: Inputs, ls: Array, *, engine: Any = "loop", within: tuple[Within, ...] = ()
) -> tuple[Any, Any]:
    """`sum_t l_t' d step(z_{t-1}, s_t)` by parameters, and the same of each step by its inputs.

    **Arguments:** `step`: a map of one state, `(z, s) -> z'`; `before`: states before each step, `[*t m]`; `inputs`:
    leaves `[*t ...]`; `ls`: gradient by the state after each step, `[*t m]`; `engine`, `within`: as of
    `pullback`.

    **Returns:** gradients in the shapes of `step` and `inputs`, `None` for what is not a number.
    """
    lead = ls.shape[:-1]
    if isinstance(engine, AbstractEngine) and len(lead) == 1:
        free, fixed = eqx.partition(step, eqx.is_array)

        def stretch(engine, free, *rows):
            return contract(eqx.combine(free, fixed), *rows, engine=engine)[::-1]

        return engine.by_stretch(stretch, free, before, inputs, ls)[::-1]

    def rows(tree):
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(lead) :]), tree)

    between = {"within": rows(within)} if within else {}
    step_bar, _, inputs_bar = pullback(step, rows(before), rows(inputs), rows(ls), engine=engine, **between)
    return step_bar, jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), inputs_bar)


@singledispatch
def pullback(
    step: Step, zs: Array, inputs: Inputs, ls: Array, *, engine: Any = "loop", within: tuple[Within, ...] = ()
) -> tuple[Any, Array, Any]:
    """What `n` rows of one step, `step(z, s)` each, pull back of `ls`.

    This is JAX's own rule, and right for every map. One that knows a faster way registers it,
    `@pullback.register(MyCell)`, and takes `engine` too, and where it has `stages` also `within`. A test must hold
    it against this one, `plain_pullback`.

    **Arguments:** `step`; `zs` `[n, m]`; `inputs`: leaves `[n, ...]`; `ls` `[n, m]`; `engine`: that of the recurrence.
    Under `"auto"` and `"pallas"` the sums over rows of hidden units are a kernel on an NVIDIA GPU, under
    `"interpreted"` on any platform; the compiler makes all others.
    **Returns:** the gradient by the parameters of `step`, summed over the rows, in its shape (`None` for what is not a
    number); by `zs`, `[n, m]`; by `inputs`, row by row (`None` for what is not a number).
    """
    if engine == "interpreted" or (nvidia() and engine in ("auto", "pallas")):
        from dsrecon.kernels.accelerated.plan import Unfused

        try:
            return kernel_pullback(step, zs, inputs, ls, interpret=engine == "interpreted")
        except Unfused:
            pass
    return in_pieces(plain_pullback, step, zs, inputs, ls)


def in_pieces(piece: Callable, step: Step, zs: Array, inputs: Inputs, ls: Array) -> tuple[Any, Array, Any]:
    """`piece(step, zs, inputs, ls)`, a pullback, of as many rows at once as stay in a CPU's cache."""
    n, size = len(ls), rows_at_once(step, ls)
    if size == n:
        return piece(step, zs, inputs, ls)
    count = n // size
    whole = count * size

    def add(total, rows):
        step_bar, *row_bars = piece(step, *rows)
        return jax.tree.map(jnp.add, total, step_bar), row_bars

    start = jax.tree.map(jnp.zeros_like, eqx.filter(step, eqx.is_inexact_array))
    pieces = jax.tree.map(lambda x: x[:whole].reshape(count, size, *x.shape[1:]), (zs, inputs, ls))
    step_bar, bars = jax.lax.scan(add, start, pieces)
    bars = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), bars)
    if whole < n:
        step_bar, rest = add(step_bar, jax.tree.map(lambda x: x[whole:], (zs, inputs, ls)))
        bars = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), bars, rest)
    zs_bar, inputs_bar = bars
    return step_bar, zs_bar, inputs_bar


def rows_at_once(step: Step, ls: Array) -> int:
    """Rows in a piece. A row between the products is taken to be as wide as the map has parameters a unit."""
    parameters = sum(x.size for x in jax.tree.leaves(eqx.filter(step, eqx.is_inexact_array)))
    row = max(1, parameters // ls.shape[1]) * ls.dtype.itemsize
    if jax.default_backend() != "cpu" or len(ls) * row <= CPU_WHOLE:
        return len(ls)
    return min(len(ls), max(1, CPU_PIECE // row))


def plain_pullback(step: Step, zs: Array, inputs: Inputs, ls: Array) -> tuple[Any, Array, Any]:
    """`pullback` of any map, of all rows in one piece: the twin that every faster one is tested against."""
    free, fixed = eqx.partition((step, inputs), eqx.is_inexact_array)

    def all_rows(free, zs):
        step, inputs = eqx.combine(free, fixed)
        return jax.vmap(step)(zs, inputs)

    _, pull = jax.vjp(all_rows, free, zs)
    (step_bar, inputs_bar), zs_bar = pull(ls)
    return step_bar, zs_bar, inputs_bar


def kernel_pullback(step: Step, zs: Array, inputs: Inputs, ls: Array, *, interpret: bool) -> tuple[Any, Array, Any]:
    """`pullback` whose sums over rows are one kernel, and what it pulls back row by row another: hidden units of a row
    never leave the registers.

    **Raises:** `Unfused` for a step that cannot be written out.
    """
    from dsrecon.kernels.accelerated.steps import map_steps, sum_steps

    arrays, fixed = eqx.partition(step, eqx.is_array)

    def by_step(arrays, now):
        z, s, l = now
        free, others = eqx.partition(eqx.combine(arrays, fixed), eqx.is_inexact_array)
        return jax.vjp(lambda free: eqx.combine(free, others)(z, s), free)[1](l)[0]

    def by_row(arrays, now):
        *row, l = now
        step, (free, others) = eqx.combine(arrays, fixed), eqx.partition(row, eqx.is_inexact_array)
        return jax.vjp(lambda free: step(*eqx.combine(free, others)), free)[1](l)[0]

    along = zs, inputs, ls
    step_bar = sum_steps(by_step, arrays, along, interpret=interpret)
    zs_bar, inputs_bar = map_steps(by_row, arrays, along, interpret=interpret)
    return step_bar, zs_bar, inputs_bar
