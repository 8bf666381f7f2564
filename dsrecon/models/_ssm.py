"""What the state-space layers share: pairs of complex numbers, start values of steps, Krylov sequences, checks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Complex, Float, Shaped

from dsrecon._checks import jax_key
from dsrecon._types import Key
from dsrecon.models._init import at_least_one


def check_layer(state_size: int, step_min: float, step_max: float, *, key: Any, pairs: bool, **sizes: int) -> None:
    """Raise `ValueError` for no key, sizes below 1, an odd state where it is made of pairs, steps out of order."""
    jax_key(key)
    at_least_one(state_size=state_size, **sizes)
    if pairs and state_size % 2:
        raise ValueError(f"state_size must be even, its states come in conjugate pairs: got {state_size}.")
    if not (0 < step_min <= step_max < math.inf):
        raise ValueError(f"steps must be positive, step_min at most step_max: got {step_min} and {step_max}.")


def log_steps(count: int, step_min: float, step_max: float, *, key: Key) -> Float[Array, "{count}"]:
    """Logarithms of steps, uniform between those of both ends."""
    return jax.random.uniform(key, (count,), minval=math.log(step_min), maxval=math.log(step_max))


def as_complex(pair: Float[Array, "2 ..."]) -> Complex[Array, "..."]:
    """`x[0] + i x[1]`: complex parameters are kept as pairs, which every optimiser knows how to treat."""
    return jax.lax.complex(pair[0], pair[1])


def as_pair(x: Shaped[Array, "..."]) -> Float[Array, "2 ..."]:
    """Real and imaginary part."""
    return jnp.stack([x.real, x.imag])


def rotations(a: Complex[Array, "k"]) -> Float[Array, "2 2 k"]:
    """Multiplication by `a` as blocks on real and imaginary parts."""
    return jnp.stack([jnp.stack([a.real, -a.imag]), jnp.stack([a.imag, a.real])])


def poles_of(log_decay: Float[Array, "..."], frequency: Float[Array, "..."]) -> Complex[Array, "..."]:
    """`-exp(log_decay) + i frequency`: stable whatever the parameters."""
    return jax.lax.complex(-jnp.exp(log_decay), frequency)


def krylov_columns(A: Float[Array, "h n n"], B: Float[Array, "h n"], count: int) -> Float[Array, "h n {count}"]:
    """`B, A B, .., A^(count-1) B`, by doubling: `log2(count)` products of matrices."""
    X, power = B[:, :, None], A
    while X.shape[2] < count:
        X = jnp.concatenate([X, _product(power, X)], 2)
        power = _product(power, power) if X.shape[2] < count else power
    return X[:, :, :count]


def krylov_kernel(
    A: Float[Array, "h n n"], B: Float[Array, "h n"], C: Float[Array, "h n"], length: int
) -> Float[Array, "h {length}"]:
    """`K[l] = C A^l B`, `l = 0 .. length - 1`.

    With `l = s q + r`, `s` a power of two near `sqrt(length)`, these are the products of the rows `C A^(s q)` with the
    columns `A^r B`, each by doubling: `2 n^3 log2(length) + 2 n length` operations a channel, all in products of
    matrices, and memory of `n^2 log2(length)` and `2 n sqrt(length)`.
    """
    inner = 1 << (max(length - 1, 0).bit_length() + 1) // 2
    outer = -(-length // inner)
    power = A
    for _ in range(inner.bit_length() - 1):
        power = _product(power, power)
    columns = krylov_columns(A, B, inner)
    rows = krylov_columns(power.swapaxes(1, 2), C, outer)
    found = jnp.einsum("hnq,hnr->hqr", rows, columns, precision=Precision.HIGHEST)
    return found.reshape(len(A), -1)[:, :length]


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=Precision.HIGHEST)
