"""Sums of simple poles at many points, never holding [channel, pole, point] at once."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Complex, Float

BLOCK = 1 << 18
"""Numbers of one block of `[channel, pole, point]`: some megabytes."""


def cauchy_product(
    w: Complex[Array, "h j n"],
    poles: Complex[Array, "h n"],
    s: Complex[Array, "l"],
    q: Complex[Array, "h l"],
) -> Complex[Array, "h j l"]:
    """`S_ij(l) = sum_k [ w_ijk / (s_l - q_il p_ik) + conj(w_ijk) / (s_l - q_il conj(p_ik)) ]`.

    The resolvents of real diagonal systems at the points `s / q`, in a form that holds where `q = 0` too (the point at
    infinity). A pair over its common denominator has real coefficients,

        (2 Re(w) s - 2 Re(w conj(p)) q) / (s^2 - 2 Re(p) s q + |p|^2 q^2)

    so that the `j` sums of a channel are a product of matrices over the reciprocals, which are computed once. Points
    are taken in blocks, memory beside the arguments and the result is a few megabytes; the adjoint computes each
    block again.

    **Arguments:** `w`: weights of `j` sums; `poles`, one of each pair; `s`, `q`: points.
    """
    h, n = poles.shape
    size = max(min(BLOCK // (h * n), s.size), 1)
    count = -(-s.size // size)
    extra = count * size - s.size
    padded = jnp.pad(s, (0, extra), constant_values=1.0), jnp.pad(q, ((0, 0), (0, extra)))
    blocks = padded[0].reshape(count, size), jnp.moveaxis(padded[1].reshape(h, count, size), 1, 0)
    above = jnp.concatenate([2 * w.real, -2 * (w * jnp.conj(poles)[:, None]).real], 1)  # by s, and by q
    below = jnp.stack([jnp.ones_like(poles.real), -2 * poles.real, poles.real**2 + poles.imag**2], 2)

    @jax.checkpoint
    def block(given: Any) -> Array:
        s, q = given
        powers = jnp.stack([jnp.broadcast_to((s * s)[None], q.shape), s[None] * q, q * q], 1)
        re, im = jnp.split(_product(below, jnp.concatenate([powers.real, powers.imag], 2)), 2, 2)  # [h, n, l] each
        scale = 1 / (re * re + im * im)
        sums = jax.lax.complex(*jnp.split(_product(above, jnp.concatenate([re * scale, -im * scale], 2)), 2, 2))
        by_s, by_q = jnp.split(sums, 2, 1)
        return by_s * s[None, None] + by_q * q[:, None]

    found = jax.lax.map(block, blocks) if count > 1 else block((blocks[0][0], blocks[1][0]))[None]
    return jnp.moveaxis(found, 0, 2).reshape(h, -1, count * size)[:, :, : s.size]


def _product(a: Float[Array, "h i k"], b: Float[Array, "h k l"]) -> Float[Array, "h i l"]:
    """Sums as products of matrices, real and imaginary parts side by side, so that those of the adjoint are too."""
    return jnp.matmul(a, b, precision=Precision.HIGHEST)
