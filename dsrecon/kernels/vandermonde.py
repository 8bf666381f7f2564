"""Products with powers of many numbers, never holding all powers at once."""

import math

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Complex, Float


def vandermonde_product(w: Complex[Array, "h n"], x: Complex[Array, "h n"], length: int) -> Float[Array, "h {length}"]:
    """`K_i[l] = 2 Re sum_j w_ij exp(l x_ij)`, `l = 0 .. length - 1`: kernels of diagonal systems in conjugate pairs.

    With `l = s q + r`, `s` about `sqrt(length)`, the powers are `exp(s q x) exp(r x)`: two tables of `n sqrt(length)`
    a channel, and one product of matrices, `[q, 2n] x [2n, r]` in real numbers. So `4 n length` floating-point
    operations a channel at the speed of a matrix product, `2 n sqrt(length)` exponentials where the Vandermonde matrix
    has `n length` of them, and memory of `4 n sqrt(length)` beside the result; the adjoint, JAX's own, likewise.

    **Arguments:** `w`: weights; `x`: logarithms of the numbers; `length`: number of powers, at least 1.

    **Raises:** `ValueError` for a length below 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}.")
    inner = max(math.isqrt(length), 1)
    outer = -(-length // inner)
    fine = _powers(x, inner)  # [h, r, n]
    coarse = 2 * w[:, None] * _powers(inner * x, outer)  # [h, q, n]
    left = jnp.concatenate([coarse.real, -coarse.imag], 2)
    right = jnp.concatenate([fine.real, fine.imag], 2)
    found = jnp.einsum("hqn,hrn->hqr", left, right, precision=Precision.HIGHEST)
    return found.reshape(len(w), -1)[:, :length]


def _powers(x: Complex[Array, "h n"], count: int) -> Complex[Array, "h {count} n"]:
    l = jnp.arange(count, dtype=x.real.dtype)[None, :, None]
    return jnp.exp(jax.lax.complex(l * x.real[:, None], l * x.imag[:, None]))
