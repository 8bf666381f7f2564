"""Linear recurrences with dense slopes of 5 to 32 units, in three passes.

Time is cut into blocks, each a program. The first pass composes the steps of a block to one map of the state before it,
a product of matrices a step, in registers; the states between blocks are the same recurrence over these maps; the last
pass makes the states of every block, a product of matrix and vector a step. Slopes are read twice, where they lie, and
nothing as large as they is stored.

Reference: Blelloch 1990, *Prefix sums and their applications*, CMU-CS-90-190 (reduce, then scan).
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dsrecon.kernels.accelerated.memory import accumulator, load, power, store

LARGEST = 32
"""Units: the product of a block's matrices stays in the registers of a program."""

LEAST = 6
"""Units from which on this is chosen. Measured on an H200 against the associative scan, 16 sequences of 10^4 steps: 5
units .21 and .13 ms, 6 .18 and .16, 7 .22 and .24, 16 .19 and .64, 32 .81 and 2.0; one of 10^6: 5 units 1.4 and .57, 6
1.1 and 1.3, 7 1.4 and 1.9, 16 1.2 and 3.7."""

SIDE = 16
"""Matrices are at least this wide in a kernel: Triton multiplies no smaller ones."""

BALANCE = 0.2
"""Time of a product with a vector over that with a matrix, step for step, as estimated: it sets how time is cut. Blocks
of 16, 45 and 100 of 10^4 steps took .20, .22 and .26 ms on an H200 (16 units, 16 sequences): it matters little."""

ALONE = 32
"""Steps that one program runs without cutting them."""


class _Shape(NamedTuple):
    """Of a call: steps, units, steps of a block, blocks."""

    steps: int
    n: int
    block: int
    blocks: int


def block_of(steps: int) -> int:
    """Steps of a block: as long as blocks and the states between them take the same time, `sqrt(BALANCE t)`."""
    return steps if steps <= ALONE else max(math.isqrt(math.ceil(BALANCE * steps)), 2)


def scan(
    a: Float[Array, "t n n"],
    b: Float[Array, "t n"],
    h0: Float[Array, "n"] | None,
    resets: Bool[Array, "t"] | None,
    *,
    reverse: bool,
    adjoint: bool = False,
    interpret: bool = False,
    block: int | None = None,
) -> Float[Array, "t n"]:
    """`h_t = a_t h_{t-1} + b_t`, or, `adjoint`, `l_t = b_t + a_{t+1}^T l_{t+1}`: both in the direction of `reverse`.

    Resets are those of the scan, also in its adjoint, which starts from 0 (`h0` is then `None`). Half precision is
    multiplied and added up in single.
    """
    steps, n = b.shape
    held = accumulator(b.dtype)
    length = block_of(steps) if block is None else block
    shape = _Shape(steps, n, length, -(-steps // length))
    start = jnp.zeros(n, held) if h0 is None else h0.astype(held)
    run = functools.partial(_call, shape, a, b, start, resets, reverse=reverse, adjoint=adjoint, interpret=interpret)
    if shape.blocks == 1:
        return run(before=start[None])[0].reshape(b.shape)
    A, c = run(before=None)
    behind = scan(A.reshape(-1, n, n), c.reshape(-1, n), start, None, reverse=False, interpret=interpret, block=block)
    return run(before=jnp.concatenate([start[None], behind[:-1]]))[0].reshape(b.shape)


def _call(shape: _Shape, a, b, h0, resets, *, before, reverse, adjoint, interpret) -> list[Array]:
    """The states, given those `before` every block; without them the map and the terms of every block. All flat."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    spec, n = jax.ShapeDtypeStruct, shape.n
    given = [a.reshape(-1), b.reshape(-1), h0]
    given += [] if resets is None else [resets.astype(jnp.int8)]
    given += [] if before is None else [before.reshape(-1)]
    outs = [spec((b.size,), b.dtype)]
    if before is None:
        outs = [spec((shape.blocks * n * n,), h0.dtype), spec((shape.blocks * n,), h0.dtype)]
    kernel = functools.partial(
        _compose if before is None else _advance, shape=shape, with_resets=resets is not None, reverse=reverse,
        adjoint=adjoint,
    )  # fmt: skip
    return pl.pallas_call(
        kernel,
        grid=(shape.blocks,),
        out_shape=outs,
        compiler_params=plgpu.CompilerParams(num_warps=1 if power(n) <= SIDE else 4, num_stages=1),
        interpret=interpret,
    )(*given)


class _Steps:
    """The steps of a program's block, and how they lie in memory."""

    def __init__(self, refs, shape: _Shape, with_resets: bool, reverse: bool, adjoint: bool):
        from jax.experimental import pallas as pl

        self.a, self.b, start, *rest = refs
        self.resets = rest[0] if with_resets else None
        self.shape, self.reverse, self.adjoint = shape, reverse, adjoint
        self.held = start.dtype
        self.side = max(power(shape.n), SIDE)
        self.lane = jnp.arange(self.side, dtype=jnp.int32)
        self.real = self.lane < shape.n
        i, j = self.lane[:, None], self.lane[None, :]
        self.entry = j * shape.n + i if adjoint else i * shape.n + j
        self.inside = (i < shape.n) & (j < shape.n)
        self.h0 = load(start, self.lane, mask=self.real, other=0)
        self.begin = pl.program_id(0) * shape.block
        self.count = jnp.minimum(shape.block, shape.steps - self.begin)

    def place(self, i: Array) -> Array:
        """Of step `i` of this block in memory."""
        return self.shape.steps - 1 - self.begin - i if self.reverse else self.begin + i

    def at(self, i: Array) -> tuple[Array, ...]:
        """Slopes, terms and mark (where there are resets) of step `i`; beyond the end the last, which nobody uses."""
        i = jnp.minimum(i, self.count - 1)
        here = self.place(i)
        there = self.place(i - 1) if self.adjoint else here
        known = self.inside & (self.begin + i > 0) if self.adjoint else self.inside  # behind the last step no slope
        n = self.shape.n
        A = load(self.a, self.clipped(there) * (n * n) + self.entry, mask=known, other=0).astype(self.held)
        b = load(self.b, here * n + self.lane, mask=self.real, other=0).astype(self.held)
        return (A, b) if self.resets is None else (A, b, load(self.resets, self.clipped(there)))

    def clipped(self, place: Array) -> Array:
        return jnp.clip(place, 0, self.shape.steps - 1) if self.adjoint else place

    def run(self, step, carry):
        """`step(i, carry, A, b, new)` for every step, each fetched while the one before is worked on."""

        def turn(i, held):
            carry, now = held
            later = self.at(i + 1)
            A, b, *new = now
            return step(i, carry, A, b, new[0] != 0 if new else None), later

        return jax.lax.fori_loop(0, self.count, turn, (carry, self.at(jnp.int32(0))))[0]


def _times(A: Array, h: Array) -> Array:
    return jnp.sum(A * h[None, :], 1)


def _compose(*refs, shape: _Shape, with_resets, reverse, adjoint) -> None:
    from jax.experimental import pallas as pl

    *ins, map_ref, terms_ref = refs
    steps = _Steps(ins, shape, with_resets, reverse, adjoint)

    def step(i, carry, A, b, new):
        P, c = carry
        if new is not None:
            P, c = jnp.where(new, jnp.zeros_like(P), P), jnp.where(new, steps.h0, c)
        return jax.lax.dot(A, P, precision=jax.lax.Precision.HIGHEST, preferred_element_type=A.dtype), _times(A, c) + b

    one = (steps.lane[:, None] == steps.lane[None, :]).astype(steps.held)
    P, c = steps.run(step, (one, jnp.zeros(steps.side, steps.held)))
    block, n = pl.program_id(0), shape.n
    entry = steps.lane[:, None] * n + steps.lane[None, :]
    store(map_ref, block * (n * n) + entry, P, mask=steps.inside)
    store(terms_ref, block * n + steps.lane, c, mask=steps.real)


def _advance(*refs, shape: _Shape, with_resets, reverse, adjoint) -> None:
    from jax.experimental import pallas as pl

    *ins, before_ref, out_ref = refs
    steps = _Steps(ins, shape, with_resets, reverse, adjoint)

    def step(i, h, A, b, new):
        h = _times(A, h if new is None else jnp.where(new, steps.h0, h)) + b
        store(out_ref, steps.place(i) * shape.n + steps.lane, h, mask=steps.real)
        return h

    before = load(before_ref, pl.program_id(0) * shape.n + steps.lane, mask=steps.real, other=0)
    steps.run(step, before)
