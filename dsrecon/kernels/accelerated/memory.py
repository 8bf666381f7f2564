"""Reading and writing flat arrays in a kernel."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

COUNTED = 2**31
"""Numbers that an array of a kernel may have: they are counted in 32 bits."""


def power(x: int) -> int:
    """The next power of two."""
    return 1 << max(x - 1, 0).bit_length()


def accumulator(dtype: Any) -> Any:
    """The type that numbers of this type are added up in: single precision at least."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize == 2 else jnp.dtype(dtype)


def load(ref: Any, at: Array, **options: Any) -> Array:
    """The numbers at these places of a flat array; `options`: those of Triton's load."""
    from jax.experimental.pallas import triton as plgpu

    return plgpu.load(ref.at[(at,)], **options)


def store(ref: Any, at: Array, x: Array, **options: Any) -> None:
    """Write numbers at these places of a flat array, as of its type."""
    from jax.experimental.pallas import triton as plgpu

    plgpu.store(ref.at[(at,)], x.astype(ref.dtype), **options)


def merged(size: int, batched, given) -> list[Array]:
    """A mapped axis and that of the sequences as one."""
    whole = [
        x if there else jnp.broadcast_to(x[None], (size, *x.shape)) for x, there in zip(given, batched, strict=True)
    ]
    return [x.reshape(-1, *x.shape[2:]) for x in whole]
