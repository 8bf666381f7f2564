"""Sums of powers of many numbers, in one kernel: the powers are made where they are multiplied, and never written.

A program makes a tile of steps, `l = begin + s R + r`: the powers `exp((begin + s R) x)` and `exp(r x)` of a channel,
two tables in registers, and their product of matrices. Tensor cores multiply single precision in three products of
TF32, which keep all but a bit of it. The way back is the same tables and two products with the gradient.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import DotAlgorithmPreset, Precision
from jaxtyping import Array, Complex, Float

from dsrecon.kernels.accelerated.memory import load, power, store
from dsrecon.kernels.vandermonde import cisoid, turns

COUNTED = 2**24
"""Steps that single precision counts."""

POLES = (32, 16)
"""Numbers whose powers a program holds at a time, forwards and on the way back: registers decide."""

SIDES = (64, 128)
"""Steps of a side of a tile: the first up to a tile of it, the second for more; a side is 16 at least. On the way back
always the first: the registers of eight warps do not hold the tables and four products of the second."""


class _Shape(NamedTuple):
    """Channels, numbers of a channel, steps, sides of a tile, tiles of a channel, numbers held at a time."""

    channels: int
    n: int
    length: int
    coarse: int
    fine: int
    tiles: int
    held: int


def serves(w: Array, x: Array, length: int) -> str | None:
    """Why the kernel cannot serve; `None` where it can."""
    for v in (w, x):
        if v.dtype != jnp.complex64:
            return f"it takes complex64: got {v.dtype}."
    if not w.size:
        return f"there are no numbers: got shape {list(w.shape)}."
    if length > COUNTED:
        return f"it counts up to {COUNTED} steps: got {length}."
    if max(w.size, len(w) * length) >= 2**31:
        return "it counts numbers in 32 bits: w or the result has more than 2^31."
    return None


def product(
    w: Complex[Array, "h n"], x: Complex[Array, "h n"], length: int, *, interpret: bool
) -> Float[Array, "h {length}"]:
    """`2 Re sum_j w_ij exp(l x_ij)`, of what `serves`."""
    shape = _shape(w, length, SIDES[0] if length <= SIDES[0] ** 2 else SIDES[1], POLES[0])
    out = [jax.ShapeDtypeStruct((shape.channels * length,), w.real.dtype)]
    (found,) = _call(_make, shape, _parts(w, x), out, interpret)
    return found.reshape(shape.channels, length)


def pulled(
    w: Complex[Array, "h n"], x: Complex[Array, "h n"], g: Float[Array, "h length"], *, interpret: bool
) -> tuple[Complex[Array, "h n"], Complex[Array, "h n"]]:
    """Gradients by `w` and `x` from that by the product: `2 E` and `2 w T`, `E_j = sum_l g_l exp(l x_j)` and
    `T_j = sum_l l g_l exp(l x_j)`."""
    shape = _shape(w, g.shape[1], SIDES[0], POLES[1])
    out = [jax.ShapeDtypeStruct((shape.channels * shape.tiles * shape.n,), g.dtype)] * 4
    parts = _call(_sum, shape, [*_parts(w, x), g.reshape(-1)], out, interpret)
    sums = [jnp.sum(p.reshape(shape.channels, shape.tiles, shape.n), 1) for p in parts]
    return 2 * jax.lax.complex(*sums[:2]), 2 * w * jax.lax.complex(*sums[2:])


def _shape(w: Array, length: int, fine: int, most: int) -> _Shape:
    channels, n = w.shape
    coarse = min(max(power(-(-length // fine)), 16), fine)
    return _Shape(channels, n, length, coarse, fine, -(-length // (coarse * fine)), min(max(power(n), 16), most))


def _parts(w: Array, x: Array) -> list[Array]:
    return [part.reshape(-1) for part in (w.real, w.imag, x.real, *turns(x.imag))]


def _call(kernel, shape: _Shape, given: list[Array], outs: list, interpret: bool) -> list[Array]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    return pl.pallas_call(
        functools.partial(kernel, shape=shape, interpret=interpret),
        grid=(shape.channels * shape.tiles,),
        out_shape=outs,
        compiler_params=plgpu.CompilerParams(num_warps=8 if shape.coarse * shape.fine > 4096 else 4, num_stages=1),
        interpret=interpret,
    )(*given)


class _Tile:
    """The steps of a program, `l0[s] + r`, and where they lie."""

    def __init__(self, shape: _Shape):
        from jax.experimental import pallas as pl

        self.shape, self.program = shape, pl.program_id(0)
        self.channel = self.program // shape.tiles
        begin = (self.program % shape.tiles) * (shape.coarse * shape.fine)
        first = begin + jnp.arange(shape.coarse, dtype=jnp.int32) * shape.fine
        within = jnp.arange(shape.fine, dtype=jnp.int32)
        l = first[:, None] + within[None, :]
        self.at, self.there = self.channel * shape.length + l, l < shape.length
        self.first, self.within = (jnp.minimum(at, shape.length - 1) for at in (first, within))  # none grows on

    def poles(self, refs, turn: Array) -> tuple[Array, Array, list[Array]]:
        """Which numbers a turn holds, which of them there are, and their parts; 0 where there are none."""
        j = turn * self.shape.held + jnp.arange(self.shape.held, dtype=jnp.int32)
        real = j < self.shape.n
        return j, real, [load(ref, self.channel * self.shape.n + j, mask=real, other=0) for ref in refs]

    @property
    def count(self) -> int:
        """Turns in which all numbers have been held."""
        return -(-self.shape.n // self.shape.held)


def _dot(a: Array, b: Array, interpret: bool) -> Array:
    precision = Precision.HIGHEST if interpret else DotAlgorithmPreset.TF32_TF32_F32_X3
    return jax.lax.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _make(*refs, shape: _Shape, interpret: bool) -> None:
    *given, out = refs
    tile = _Tile(shape)

    def turn(i, found):
        _, _, (wr, wi, *x) = tile.poles(given, i)
        cr, ci = cisoid(tile.first[:, None], *(part[None, :] for part in x))
        fr, fi = cisoid(tile.within[None, :], *(part[:, None] for part in x))
        ur, ui = wr[None, :] * cr - wi[None, :] * ci, wr[None, :] * ci + wi[None, :] * cr
        return found + _dot(2 * ur, fr, interpret) + _dot(-2 * ui, fi, interpret)

    found = jax.lax.fori_loop(0, tile.count, turn, jnp.zeros((shape.coarse, shape.fine), jnp.float32))
    store(out, tile.at, found, mask=tile.there)


def _sum(*refs, shape: _Shape, interpret: bool) -> None:
    _, _, *x, g, out_0, out_1, out_2, out_3 = refs
    tile = _Tile(shape)
    G = load(g, tile.at, mask=tile.there, other=0)
    first, later = tile.first[:, None].astype(G.dtype), G * tile.within[None, :].astype(G.dtype)

    def turn(i, carry):
        j, real, parts = tile.poles(x, i)
        cr, ci = cisoid(tile.first[:, None], *(part[None, :] for part in parts))
        fr, fi = cisoid(tile.within[:, None], *(part[None, :] for part in parts))
        Pr, Pi = _dot(G, fr, interpret), _dot(G, fi, interpret)
        Qr, Qi = _dot(later, fr, interpret), _dot(later, fi, interpret)
        Qr, Qi = Qr + first * Pr, Qi + first * Pi
        found = (cr * Pr - ci * Pi, cr * Pi + ci * Pr, cr * Qr - ci * Qi, cr * Qi + ci * Qr)
        for out, each in zip((out_0, out_1, out_2, out_3), found, strict=True):
            store(out, tile.program * shape.n + j, jnp.sum(each, 0), mask=real)
        return carry

    jax.lax.fori_loop(0, tile.count, turn, jnp.zeros((), jnp.int32))
