"""The functions of gates, without a branch: a loop over time takes as long as its longest chain of operations.

What a compiler makes of `tanh` and `1 / (1 + exp(-x))` guards against arguments that cannot come up here, and branches
within `tanh`, so that two gates of a step wait for each other. Largest errors against double precision, interpreted:
`logistic` 1e-7, `tanh` 2e-7 and 3e-7 of its value.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOG2E = 1.4426950408889634
SMALL = 0.6
"""Up to here `tanh` is a polynomial: `1 - 2 / (1 + exp(2 x))` would lose digits."""

TANH = (-0.3333326280117035, 0.1333089917898178, -0.05369296669960022, 0.020483316853642464, -0.0055286334827542305)
"""Of `(tanh(x) / x - 1) / x^2` in powers of `x^2`: least largest error up to .65, by Lawson's iteration."""


def logistic(x: Float[Array, "n"], interpret: bool) -> Float[Array, "n"]:
    """`1 / (1 + exp(-x))`, in single precision."""
    return _reciprocal(1 + _exp2(x * -LOG2E, interpret), interpret)


def tanh(x: Float[Array, "n"], interpret: bool) -> Float[Array, "n"]:
    """`tanh(x)`, in single precision: both forms are worked out, side by side."""
    large = 1 - 2 * _reciprocal(1 + _exp2(x * (2 * LOG2E), interpret), interpret)
    u = x * x
    p: Any = TANH[-1]
    for c in TANH[-2::-1]:
        p = p * u + c
    return jnp.where(jnp.abs(x) < SMALL, x + x * (u * p), large)


def _exp2(x: Array, interpret: bool) -> Array:
    return jnp.exp2(x) if interpret else _instruction("ex2.approx.ftz.f32", x)


def _reciprocal(x: Array, interpret: bool) -> Array:
    return 1 / x if interpret else _instruction("rcp.approx.ftz.f32", x)


def _instruction(name: str, x: Array) -> Array:
    """One instruction of an NVIDIA GPU, with an error of a unit or two in the last place."""
    from jax.experimental.pallas import triton as plgpu

    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return plgpu.elementwise_inline_asm(
        f"{name} $0, $1;", args=[x], constraints="=f,f", pack=1, result_shape_dtypes=[shape]
    )[0]
