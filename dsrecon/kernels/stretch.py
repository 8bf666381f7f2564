"""What a stretch of a linear recurrence does as a whole: the product of its slopes, and its last state from 0."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from dsrecon.kernels.engines import ACCELERATOR_WRITTEN, Part, _join, _parts
from dsrecon.kernels.structure import Form, apply_all, form_of, transpose_all

RADIX = 8
"""Steps of diagonals that are joined in one go: one kernel a level on an accelerator, an eighth of the numbers after
it. Matrices are joined by twos: a kernel of more would compute most of its products several times over."""

FIRST = 4096
"""Steps looked at first, at the end of the stretch."""

WRITTEN_AXES = 4
"""Axes of `A` and `B` where a form is written out by components, their number first."""

FURTHER = 8
"""Each look further is as long as so many times the one before."""


def last_map(
    a: Array,
    b: Inexact[Array, "t m"],
    resets: Bool[Array, "t"] | None = None,
    *,
    reverse: bool = False,
    transpose: bool = False,
    early: bool = True,
    inside: bool = False,
) -> tuple[Array, Inexact[Array, "m"]]:
    """`(A, B)`: the state after all steps is `A h + B` where `h` is the state before them.

    **Arguments:** `a`, `b`, `reverse` as for `linear_scan`; `resets` `[t]`: where true, `b` alone is the state after
    the step; `transpose`: the slopes are `a^T`; `inside`: the terms go through the slopes too,
    `a (h + b)`; `early`: look from the end backwards, and stop where the product of slopes is smaller than the smallest
    normal number in all its entries. `A` is then 0. JAX refuses reverse mode through an early stop.

    **Returns:** `A` in the structure of one step of `a` (transposed already), `B` `[m]`.
    """
    form = form_of(a, transpose=transpose, written=ACCELERATOR_WRITTEN)
    steps = b.shape[0]

    def look(begin: int, length: int) -> Part:
        """`(A, B, R)` of the steps from `begin` on, counted from the end that states leave by."""
        low = begin if reverse else steps - begin - length
        part = slice(low, low + length)
        terms = (transpose_all if transpose else apply_all)(a[part], b[part]) if inside else b[part]
        return _joined(form, _parts(form, a[part], terms, None if resets is None else resets[part]), reverse)

    def onward(part: Part, done: int, length: int) -> Part:
        """All that is earlier than the last `done` steps as well, unless it does not matter."""
        if done == steps:
            return part
        length = min(FURTHER * length, steps - done)
        return _unless_vanished(part, lambda part: onward(_join(form, look(done, length), part), done + length, length))

    first = min(FIRST, steps) if early else steps
    A, B, R = onward(look(0, first), first, first)
    if early:
        A = jnp.where(_vanished(A, R), jnp.zeros((), A.dtype), A)
    return _one(A, a), form.states(B)[0]


def _unless_vanished(part: Part, longer: Callable[[Part], Part]) -> Part:
    """`longer(part)` where `part` is not all that matters: a loop of at most one turn.

    Under `vmap` a loop turns where any sequence wants it; a `cond` would always take both its sides.
    """

    def wanted(carry):
        first, (A, _, R) = carry
        return first & ~_vanished(A, R)

    def turn(carry):
        return jnp.zeros((), bool), longer(carry[1])

    return jax.lax.while_loop(wanted, turn, (jnp.ones((), bool), part))[1]


def _vanished(A: Array, R: Array | None) -> Bool[Array, ""]:
    gone = jnp.all(jnp.abs(A) < jnp.finfo(A.dtype).tiny)
    return gone if R is None else gone | jnp.all(R)


def _joined(form: Form, part: Part, reverse: bool) -> Part:
    """All steps of a stretch as one, a few at a time."""
    A, B, R = part
    radix = RADIX if A.ndim == WRITTEN_AXES and len(A) == 1 else 2
    if R is not None:
        A = jnp.where(R, jnp.zeros((), A.dtype), A)
    axis, part = form.axis, (A, B, R)
    while (length := part[1].shape[axis]) > 1:
        size = min(radix, length)
        groups = -(-length // size)
        spare = groups * size - length
        if spare:
            A, B, R = part
            unit = form.unit(jax.lax.slice_in_dim(A, 0, 1, axis=axis))
            A = jnp.concatenate([A, jnp.repeat(unit, spare, axis)], axis)
            B, R = _zeros_after(B, axis, spare), None if R is None else _zeros_after(R, axis, spare)
            part = (A, B, R)

        def step(i, part=part, groups=groups, size=size):
            def take(x):
                x = x.reshape(*x.shape[:axis], groups, size, *x.shape[axis + 1 :])
                return jax.lax.index_in_dim(x, i, axis + 1, keepdims=False)

            return jax.tree.map(take, part)

        order = range(size - 1, -1, -1) if reverse else range(size)
        part = functools.reduce(functools.partial(_join, form), map(step, order))
    return part


def _zeros_after(x: Array, axis: int, count: int) -> Array:
    return jnp.pad(x, [(0, count if i == axis else 0) for i in range(x.ndim)])


def _one(A: Array, like: Array) -> Array:
    """`A` of one step in the layout of a form, in the structure of a step of `like`."""
    shape = like.shape[1:]
    return A[:, :, 0].reshape(shape) if A.ndim == WRITTEN_AXES else A[0]
