"""Start values and size checks that the piecewise-linear families share."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._types import Key


def contracting_diagonal(size: int, *, key: Key) -> Float[Array, "m"]:
    """Diagonal of `(R'R/m + I) / lambda_max`, `R` standard normal `[m, m]`: entries in (0, 1).

    Reference: Talathi & Vartak 2016, *Improving performance of recurrent neural network with ReLU nonlinearity*.
    """
    R = jax.random.normal(key, (size, size))
    K = R.T @ R / size + jnp.eye(size, dtype=R.dtype)
    return jnp.diag(K) / jnp.linalg.eigvalsh(K)[-1]


def check_sizes(*, input_size: int, **sizes: int) -> None:
    """Raise `ValueError` unless every size is at least 1 (the input's at least 0)."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1: got {size}.")
    if input_size < 0:
        raise ValueError(f"input_size must be at least 0: got {input_size}.")
