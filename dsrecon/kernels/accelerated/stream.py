"""The adjoint of diagonal scans of many channels: a lane is a channel, its state in a register, the rest streams by.

Where there are channels enough to fill the machine, nothing has to be known of other blocks of time, and so nothing is
waited for but memory; of that, the next steps are always on their way. (The scan itself is faster in blocks. Measured
on an H200 at `(8, 4096, 1024)`: .62 of the speed of a copy for .49; its adjoint .47 for .51.)
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CHANNELS = 4096
"""Channels, of all sequences together, from which streaming beats cutting the time: 4,224 lanes are one warp for every
multiprocessor of an H200."""

LANES = 32
"""Channels of a program."""

AHEAD = 16
"""Steps on their way while as many are worked on: `2 * AHEAD` registers an array."""


def stream_adjoint(
    a: Float[Array, "b t k"],
    h: Float[Array, "b t k"],
    h0: Float[Array, "b k"],
    h_bar: Float[Array, "b t k"],
    *,
    reverse: bool,
    interpret: bool = False,
    ahead: int = AHEAD,
) -> tuple[Array, Array]:
    """Gradients by slopes, `l_t h_{t-1}`, and terms, `l_t = h_bar_t + a_{t+1} l_{t+1}`."""
    before = 1 if reverse else -1
    l, a_bar = _call(a, h_bar, h, before, jnp.zeros_like(h0), not reverse, interpret, ahead)
    first = -1 if reverse else 0
    return a_bar.at[:, first].set((l[:, first] * h0).astype(a_bar.dtype)), l


def _call(a, h_bar, h, shift: int, start, reverse: bool, interpret: bool, ahead: int) -> list[Array]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    b, t, k = h.shape
    out = jax.ShapeDtypeStruct((b, t, k), h.dtype)
    return pl.pallas_call(
        functools.partial(_kernel, shift=shift, t=t, k=k, rows=b, reverse=reverse, ahead=ahead),
        grid=(b * -(-k // LANES),),
        out_shape=[out, out],
        compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
        interpret=interpret,
    )(a, h_bar, h, start)


def _kernel(*refs, shift: int, t: int, k: int, rows: int, reverse: bool, ahead: int) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    *given, start_ref, l_ref, a_bar_ref = refs
    row = jnp.full((LANES,), pl.program_id(0) % rows, jnp.int32)
    channel = (pl.program_id(0) // rows) * LANES + jnp.arange(LANES, dtype=jnp.int32)
    inside = channel < k
    held = jnp.float32 if jnp.dtype(l_ref.dtype).itemsize == 2 else l_ref.dtype
    ahead = min(ahead, t)

    def time(i):
        return t - 1 - i if reverse else i

    def arriving(i):
        """The numbers of a step; beyond the end those of the last, which nobody uses."""
        at = time(jnp.minimum(i, t - 1))
        places = at, at, jnp.clip(at + shift, 0, t - 1)
        return [
            plgpu.load(ref.at[row, jnp.full_like(row, place), channel], mask=inside, other=0).astype(held)
            for ref, place in zip(given, places, strict=True)
        ]

    def one(i, u, now):
        """`u` is what the step after it hands on, `a_{t+1} l_{t+1}`."""
        a, g, before = now
        l, at = g + u, jnp.full_like(row, time(i))
        for ref, x in ((l_ref, l), (a_bar_ref, l * before)):
            plgpu.store(ref.at[row, at, channel], x.astype(ref.dtype), mask=inside)
        return a * l

    def turn(j, carry):
        u, now = carry
        later = [arriving((j + 1) * ahead + i) for i in range(ahead)]
        for i in range(ahead):
            u = one(j * ahead + i, u, now[i])
        return u, later

    u = plgpu.load(start_ref.at[row, channel], mask=inside, other=0).astype(held)
    whole = t // ahead
    u, now = jax.lax.fori_loop(0, whole, turn, (u, [arriving(i) for i in range(ahead)]))
    for i in range(t - whole * ahead):
        u = one(whole * ahead + i, u, now[i])
