"""Products with powers of many numbers, never holding all powers at once."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Complex, Float

from dsrecon.kernels.platform import nvidia

ENGINES = ("auto", "products", "pallas", "interpreted")


def vandermonde_product(
    w: Complex[Array, "h n"], x: Complex[Array, "h n"], length: int, *, engine: str = "auto"
) -> Float[Array, "h {length}"]:
    """`K_i[l] = 2 Re sum_j w_ij exp(l x_ij)`, `l = 0 .. length - 1`: kernels of diagonal systems in conjugate pairs.

    With `l = s q + r`, `s` about `sqrt(length)`, the powers are `exp(s q x) exp(r x)`: two tables of `n sqrt(length)`
    a channel, and one product of matrices, `[q, 2n] x [2n, r]` in real numbers. So `4 n length` floating-point
    operations a channel at the speed of a matrix product, `2 n sqrt(length)` exponentials where the Vandermonde matrix
    has `n length` of them, and memory of `4 n sqrt(length)` beside the result; the adjoint, JAX's own, likewise.

    **Arguments:** `w`: weights; `x`: logarithms of the numbers; `length`: number of powers, at least 1. `engine`:
    `"products"`, as above; `"pallas"`: the same in one kernel on an NVIDIA GPU, tables in registers, single precision
    and reverse mode alone (JAX refuses forward mode with a `TypeError`; gradients of gradients are those of the
    products); `"interpreted"`: that kernel on any platform, slow: for tests; `"auto"`: the kernel where it serves.

    Where powers come near the largest number of single precision (`length |exp(length x)|` above 1e38) the kernel gives
    NaN for gradients, and NaN for a result that is infinite; numbers below 1e-30 lose digits in it. Arrays that were
    put on another device than JAX's default one, and `jax.shard_map` with `check_vma`, want `"products"`.

    **Raises:** `ValueError` for a length below 1, shapes that differ, an unknown engine, and for `"pallas"` where it
    cannot serve; it says why.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}.")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}: got {engine!r}.")
    if w.ndim != 2 or w.shape != x.shape:
        raise ValueError(f"w and x must both be [channel, number]: got {list(w.shape)} and {list(x.shape)}.")
    if _one_kernel(w, x, length, engine):
        return _in_one_kernel(length, engine == "interpreted", w, x)
    return _products(length, w, x)


def _products(length: int, w: Array, x: Array) -> Array:
    inner = max(math.isqrt(length), 1)
    outer = -(-length // inner)
    fine_re, fine_im = _powers(x.real, x.imag, inner, 1)  # [h, r, n]
    re, im = _powers(x.real, x.imag, outer, inner)  # [h, q, n]
    w_re, w_im = (jnp.broadcast_to(2 * part[:, None], re.shape) for part in (w.real, w.imag))
    left = jnp.concatenate([w_re * re - w_im * im, -w_re * im - w_im * re], 2)
    right = jnp.concatenate([fine_re, fine_im], 2)
    found = jnp.einsum("hqn,hrn->hqr", left, right, precision=Precision.HIGHEST)
    return found.reshape(len(w), outer * inner)[:, :length]


def _one_kernel(w: Array, x: Array, length: int, engine: str) -> bool:
    """Whether it is the kernel that serves; an engine that was named and cannot is refused."""
    if engine == "products" or (engine == "auto" and not nvidia()):
        return False
    from dsrecon.kernels.accelerated.powers import serves

    why = serves(w, x, length)
    if engine == "auto":
        return why is None
    if why is None and engine == "pallas" and not nvidia():
        why = f'it needs an NVIDIA GPU: JAX runs on {jax.default_backend()}; "auto" takes what there is.'
    if why is not None:
        raise ValueError(f"engine={engine!r} cannot serve: {why}")
    return True


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_one_kernel(length: int, interpret: bool, w: Array, x: Array) -> Array:
    from dsrecon.kernels.accelerated.powers import product

    return product(w, x, length, interpret=interpret)


def _in_one_kernel_fwd(length: int, interpret: bool, w: Array, x: Array):
    return _in_one_kernel(length, interpret, w, x), (w, x)


def _in_one_kernel_bwd(length: int, interpret: bool, given: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return _pulled(length, interpret, *given, g)  # pyright: ignore[reportReturnType]


_in_one_kernel.defvjp(_in_one_kernel_fwd, _in_one_kernel_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pulled(length: int, interpret: bool, w: Array, x: Array, g: Array) -> tuple[Array, Array]:
    from dsrecon.kernels.accelerated.powers import pulled

    return pulled(w, x, g, interpret=interpret)


def _pulled_fwd(length: int, interpret: bool, w: Array, x: Array, g: Array):
    return _pulled(length, interpret, w, x, g), (w, x, g)


def _pulled_bwd(length: int, interpret: bool, given: tuple[Array, Array, Array], bars: tuple[Array, Array]):
    def by_products(w: Array, x: Array, g: Array):
        return jax.vjp(functools.partial(_products, length), w, x)[1](g)

    return jax.vjp(by_products, *given)[1](bars)


_pulled.defvjp(_pulled_fwd, _pulled_bwd)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _powers(rate: Float[Array, "h n"], angle: Float[Array, "h n"], count: int, stride: int) -> tuple[Array, Array]:
    """Real and imaginary part of `exp(l (rate + i angle))`, `l = 0, stride, .. (count - 1) stride`: `[h, count, n]`."""
    l = stride * jnp.arange(count, dtype=jnp.int32)[None, :, None]
    whole, left = turns(angle)
    return cisoid(l, rate[:, None], whole[:, None], left[:, None])


@_powers.defjvp
def _powers_jvp(count: int, stride: int, primals, tangents):
    re, im = _powers(*primals, count, stride)
    l = (stride * jnp.arange(count, dtype=jnp.int32)[None, :, None]).astype(re.dtype)
    by_rate, by_angle = (l * v[:, None] for v in tangents)
    return (re, im), (re * by_rate - im * by_angle, re * by_angle + im * by_rate)


def _split(x: float) -> list[np.float32]:
    """A number as a sum of three of single precision, of 12 digits the first two."""
    parts = []
    for _ in range(2):
        part = (np.float32(x).view(np.uint32) & np.uint32(_HALF)).view(np.float32)
        parts.append(part)
        x -= float(part)
    return [*parts, np.float32(x)]


_HALF = 0xFFFFF000
"""Of single precision sign, exponent, and 12 digits, so that products of two such numbers are exact."""

_OF_TURN = _split(0.5 / math.pi)


def turns(angle: Float[Array, "..."]) -> tuple[Array, Array]:
    """`angle` as whole parts of `2^-32` of a turn, of 32 bits, and the radians that are left.

    `l` times as much is then known to some `1e-7` for any whole `l` (of angles up to some 10^3), since whole turns
    overflow; `l angle` itself has a rounding error of `l` times that of `angle`: at 10^4 steps of 3 radians, 2e-3. In
    double precision, where that does no harm, the first part is 0.
    """
    if angle.dtype != jnp.float32:
        return jnp.zeros(angle.shape, jnp.int32), angle
    bits = jax.lax.bitcast_convert_type(angle, jnp.uint32)
    high = jax.lax.bitcast_convert_type(bits & jnp.uint32(_HALF), jnp.float32)
    low, (first, second, third) = angle - high, _OF_TURN
    tail = low * second + (high * third + low * third)  # below 2^-23 of the angle; the products here are exact
    whole, left = jnp.zeros(angle.shape, jnp.int32), jnp.zeros_like(angle)
    for part in (high * first, high * second, low * first, tail):
        units = (part - jnp.round(part)) * jnp.float32(2.0**32)
        near = jnp.minimum(jnp.round(units), jnp.float32(2**31 - 128))  # the next number is no whole one of 32 bits
        whole, left = whole + near.astype(jnp.int32), left + (units - near)
    return whole, left * _UNIT


_UNIT = np.float32(2 * math.pi / 2**32)
"""Radians of `2^-32` of a turn."""


def cisoid(l: Array, rate: Array, whole: Array, left: Array) -> tuple[Array, Array]:
    """Real and imaginary part of `exp(l (rate + i angle))` for whole `l`, `angle` as `turns` gives it.

    In single precision quarters of a turn are taken off in whole numbers, and what is left of a quarter, up to `pi / 4`
    in size, goes through the series of sine and cosine: no case is slow, and all are exact to rounding.
    """
    count = l.astype(rate.dtype)
    size, angle = jnp.exp(count * rate), count * left
    if rate.dtype != jnp.float32:
        return size * jnp.cos(angle), size * jnp.sin(angle)
    at = l * whole
    quarter = (at + (1 << 29)) >> 30
    t = (at - (quarter << 30)).astype(jnp.float32) * _UNIT + angle
    sine, cosine = size * t * _series(t * t, _SINE), size * _series(t * t, _COSINE)
    odd, back = (quarter & 1) == 1, (quarter & 2) == 2
    re, im = jnp.where(odd, -sine, cosine), jnp.where(odd, cosine, sine)
    return jnp.where(back, -re, re), jnp.where(back, -im, im)


_SINE = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(5))
_COSINE = tuple((-1) ** n / math.factorial(2 * n) for n in range(6))
"""Of `sin t / t` and `cos t` in powers of `t^2`: what is left out is below 3e-9 up to `pi / 4`."""


def _series(x: Array, factors: tuple[float, ...]) -> Array:
    found = jnp.full_like(x, factors[-1])
    for factor in factors[-2::-1]:
        found = found * x + jnp.asarray(factor, x.dtype)
    return found
