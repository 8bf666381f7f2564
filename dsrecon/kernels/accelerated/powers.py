"""Sums of powers of many numbers, in one kernel: the powers are made where they are multiplied, and never written.

A program makes tiles of steps of a channel, rows `s` of `r`: `l = first(s) + r`. The powers `exp(r x)` are made once,
those where rows begin, `exp(first(s) x)`, with every tile; both are tables in registers, and the result is their
product of matrices. The way back adds up products of the second table and the gradient over all tiles, and meets the
first at the end. Tensor cores multiply single precision in three products of TF32, which keep all but a bit or two.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import DotAlgorithmPreset, Precision
from jaxtyping import Array, Complex, Float

from dsrecon.kernels.accelerated.memory import COUNTED, load, merged, power, store
from dsrecon.kernels.vandermonde import cisoid, turns

STEPS = 2**24
"""Steps that single precision counts."""

POLES = 32
"""Numbers whose powers a program holds at a time."""

SIDES, SIDES_BACK = (32, 128), (16, 64)
"""Rows of a tile and steps of a row, at most, forwards and on the way back. With 64 rows the compiler takes the tensor
cores' asynchronous form, which waits for the tables of every tile: 2.2 times slower on an H200."""

PROGRAMS = 1024
"""Programs that a device is given at least, where there is as much to do."""

LAPS = 16
"""Tiles of a program at most: sums over more of them would lose digits."""


class _Shape(NamedTuple):
    """Channels, numbers of a channel, steps; rows of a tile and steps of a row; tiles of a program, and programs of a
    channel; numbers held at a time."""

    channels: int
    n: int
    length: int
    coarse: int
    fine: int
    laps: int
    groups: int
    held: int

    @property
    def turns(self) -> int:
        """Turns in which all numbers have been held."""
        return -(-self.n // self.held)


def serves(w: Array, x: Array, length: int) -> str | None:
    """Why the kernel cannot serve; `None` where it can."""
    for v in (w, x):
        if v.dtype != jnp.complex64:
            return f"it takes complex64: got {v.dtype}."
    if not w.size:
        return f"there are no numbers: got shape {list(w.shape)}."
    if length > STEPS:
        return f"it counts up to {STEPS} steps: got {length}."
    if _numbers(w, length) >= COUNTED:
        return "it counts numbers in 32 bits: w, the result or its sums on the way back have more than 2^31."
    return None


def _numbers(w: Array, length: int) -> int:
    """Of the largest array: sums of every tile on the way back, or the result."""
    return max(w.size * (1 + length // math.prod(SIDES_BACK)), len(w) * length)


def product(
    w: Complex[Array, "h n"], x: Complex[Array, "h n"], length: int, *, interpret: bool
) -> Float[Array, "h {length}"]:
    """`2 Re sum_j w_ij exp(l x_ij)`, of what `serves`."""
    return _of_channels(functools.partial(_make_all, length, interpret), length)(w, x)


def pulled(
    w: Complex[Array, "h n"], x: Complex[Array, "h n"], g: Float[Array, "h length"], *, interpret: bool
) -> tuple[Complex[Array, "h n"], Complex[Array, "h n"]]:
    """Gradients by `w` and `x` from that by the product: `2 E` and `2 w T`, `E_j = sum_l g_l exp(l x_j)` and
    `T_j = sum_l l g_l exp(l x_j)`."""
    return _of_channels(functools.partial(_sum_all, interpret), g.shape[1])(w, x, g)


def _of_channels(function: Callable[..., Any], length: int) -> Callable[..., Any]:
    """The function, to which an axis that `jax.vmap` adds is more channels, as long as they can be counted."""
    run = jax.custom_batching.custom_vmap(function)

    @run.def_vmap
    def _(size, batched, *given):
        channels = merged(size, batched, given)
        if not size:
            one = [jnp.zeros(x.shape[there:], x.dtype) for x, there in zip(given, batched, strict=True)]
            found = jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), jax.eval_shape(function, *one))
        elif _numbers(channels[0], length) < COUNTED:
            found = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), run(*channels))
        else:
            found = jax.lax.map(lambda each: run(*each), [x.reshape(size, -1, *x.shape[1:]) for x in channels])
        return found, jax.tree.map(lambda _: True, found)

    return run


def _make_all(length: int, interpret: bool, w: Array, x: Array) -> Array:
    shape = _shape(w, length, SIDES)
    out = [jax.ShapeDtypeStruct((shape.channels * length,), w.real.dtype)]
    (found,) = _call(_make, shape, shape.channels * shape.groups, _parts(w, x), out, interpret)
    return found.reshape(shape.channels, length)


def _sum_all(interpret: bool, w: Array, x: Array, g: Array) -> tuple[Array, Array]:
    shape = _shape(w, g.shape[1], SIDES_BACK)
    programs = shape.channels * shape.groups
    out = [jax.ShapeDtypeStruct((programs * shape.n,), g.dtype)] * 4
    parts = _call(_sum, shape, programs * shape.turns, [*_parts(w, x)[2:], g.reshape(-1)], out, interpret)
    sums = [jnp.sum(p.reshape(shape.channels, shape.groups, shape.n), 1) for p in parts]
    return 2 * jax.lax.complex(*sums[:2]), 2 * w * jax.lax.complex(*sums[2:])


def _shape(w: Array, length: int, sides: tuple[int, int]) -> _Shape:
    channels, n = w.shape
    rows, fine = sides
    if length <= rows * fine // 2:
        fine //= 2
    coarse = min(max(power(-(-length // fine)), 16), rows)
    tiles = -(-length // (coarse * fine))
    groups = min(max(-(-PROGRAMS // channels), -(-tiles // LAPS)), tiles)
    laps = -(-tiles // groups)
    return _Shape(channels, n, length, coarse, fine, laps, -(-tiles // laps), min(max(power(n), 16), POLES))


def _parts(w: Array, x: Array) -> list[Array]:
    return [part.reshape(-1) for part in (w.real, w.imag, x.real, *turns(x.imag))]


def _call(kernel, shape: _Shape, programs: int, given: list[Array], outs: list, interpret: bool) -> list[Array]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    return pl.pallas_call(
        functools.partial(kernel, shape=shape, interpret=interpret),
        grid=(programs,),
        out_shape=outs,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
    )(*given)


class _Steps:
    """The steps of a program: tiles of rows, `first[s] + r`."""

    def __init__(self, shape: _Shape, program: Array):
        self.shape, self.channel, self.group = shape, program // shape.groups, program % shape.groups
        self.within = jnp.minimum(jnp.arange(shape.fine, dtype=jnp.int32), shape.length - 1)  # no power grows on

    def poles(self, refs, turn) -> tuple[Array, Array, list[Array]]:
        """Which numbers a turn holds, which of them there are, and their parts; 0 where there are none."""
        j = turn * self.shape.held + jnp.arange(self.shape.held, dtype=jnp.int32)
        real = j < self.shape.n
        return j, real, [load(ref, self.channel * self.shape.n + j, mask=real, other=0) for ref in refs]

    def rows(self, lap) -> tuple[Array, Array, Array]:
        """Where the rows of a tile begin, up to the last step; where its steps lie, and which of them there are."""
        tile = self.group * self.shape.laps + lap
        first = (tile * self.shape.coarse + jnp.arange(self.shape.coarse, dtype=jnp.int32)) * self.shape.fine
        l = first[:, None] + jnp.arange(self.shape.fine, dtype=jnp.int32)[None, :]
        return jnp.minimum(first, self.shape.length - 1), self.channel * self.shape.length + l, l < self.shape.length


class _Split(NamedTuple):
    """A number as a sum of one of 11 digits, which tensor cores multiply exactly, and one of 12, of which they see
    11."""

    high: Array
    low: Array

    @classmethod
    def of(cls, x: Array) -> "_Split":
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + jnp.uint32(0x1000)
        high = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFFE000), jnp.float32)
        return cls(high, x - high)


def _dot(a: _Split, b: _Split, found: Array, interpret: bool) -> Array:
    """`found + a b`, but for `2^-22` of the products."""
    precision = Precision.HIGHEST if interpret else DotAlgorithmPreset.TF32_TF32_F32
    for one, other in ((a.low, b.high), (a.high, b.low), (a.high, b.high)):
        found = found + jax.lax.dot(one, other, precision=precision, preferred_element_type=jnp.float32)
    return found


def _make(*refs, shape: _Shape, interpret: bool) -> None:
    from jax.experimental import pallas as pl

    *given, out = refs
    steps = _Steps(shape, pl.program_id(0))

    def tables(turn):
        _, _, (wr, wi, *x) = steps.poles(given, turn)
        fine = cisoid(steps.within[None, :], *(part[:, None] for part in x))
        return wr, wi, x, [_Split.of(part) for part in fine]

    held = tables(0) if shape.turns == 1 else None

    def lap(i, carry):
        first, at, there = steps.rows(i)

        def turn(k, found):
            wr, wi, x, (fr, fi) = held or tables(k)
            cr, ci = cisoid(first[:, None], *(part[None, :] for part in x))
            ur, ui = wr[None, :] * cr - wi[None, :] * ci, wr[None, :] * ci + wi[None, :] * cr
            return _dot(_Split.of(-2 * ui), fi, _dot(_Split.of(2 * ur), fr, found, interpret), interpret)

        found = jnp.zeros((shape.coarse, shape.fine), jnp.float32)
        found = turn(0, found) if held else jax.lax.fori_loop(0, shape.turns, turn, found)
        store(out, at, found, mask=there)
        return carry

    jax.lax.fori_loop(0, shape.laps, lap, jnp.zeros((), jnp.int32))


def _sum(*refs, shape: _Shape, interpret: bool) -> None:
    from jax.experimental import pallas as pl

    *given, g, out_0, out_1, out_2, out_3 = refs
    program = pl.program_id(0)
    steps = _Steps(shape, program // shape.turns)
    j, real, x = steps.poles(given, program % shape.turns)
    x = [part[:, None] for part in x]

    def lap(i, sums):
        first, at, there = steps.rows(i)
        G = _Split.of(load(g, at, mask=there, other=0))
        cr, ci = cisoid(first[None, :], *x)
        l = first[None, :].astype(jnp.float32)
        return [_dot(_Split.of(c), G, s, interpret) for c, s in zip((cr, ci, l * cr, l * ci), sums, strict=True)]

    zeros = jnp.zeros((shape.held, shape.fine), jnp.float32)
    Pr, Pi, Qr, Qi = jax.lax.fori_loop(0, shape.laps, lap, [zeros] * 4)
    fr, fi = cisoid(steps.within[None, :], *x)
    r = steps.within[None, :].astype(jnp.float32)
    Qr, Qi = Qr + r * Pr, Qi + r * Pi
    found = (fr * Pr - fi * Pi, fr * Pi + fi * Pr, fr * Qr - fi * Qi, fr * Qi + fi * Qr)
    for out, each in zip((out_0, out_1, out_2, out_3), found, strict=True):
        store(out, (program // shape.turns) * shape.n + j, jnp.sum(each, 1), mask=real)
