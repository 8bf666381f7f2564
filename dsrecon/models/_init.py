"""What the piecewise-linear families share: start values, size checks, external input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from dsrecon._checks import jax_key
from dsrecon._types import Key


def contracting_diagonal(size: int, *, key: Key) -> Float[Array, "m"]:
    """Diagonal of `(R'R/m + I) / lambda_max`, `R` standard normal `[m, m]`: entries in (0, 1).

    Reference: Talathi & Vartak 2016, *Improving performance of recurrent neural network with ReLU nonlinearity*.
    """
    R = jax.random.normal(key, (size, size))
    K = R.T @ R / size + jnp.eye(size, dtype=R.dtype)
    return jnp.diag(K) / jnp.linalg.eigvalsh(K)[-1]


def uniform(shape: tuple[int, ...], fan_in: int, *, key: Key) -> Float[Array, "..."]:
    """Uniform within `1 / sqrt(fan_in)`."""
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / fan_in**0.5


def uniforms(*sizes: tuple[tuple[int, ...], int], key: Key) -> list[Float[Array, "..."]]:
    """Arrays of these `(shape, fan_in)`, each uniform within `1 / sqrt(fan_in)`, from one draw: it compiles at once."""
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape, _ in sizes)])
    drawn = jax.random.uniform(jax_key(key), (int(ends[-1]),), minval=-1.0, maxval=1.0)
    parts = zip(sizes, ends, ends[1:], strict=False)
    return [drawn[a:b].reshape(shape) / fan_in**0.5 for (shape, fan_in), a, b in parts]


def input_matrix(state_size: int, input_size: int, *, key: Key) -> Float[Array, "m k"] | None:
    """`C ~ 0.01 N(0, 1)`, `[m, k]`; `None` without input."""
    return 0.01 * jax.random.normal(key, (state_size, input_size)) if input_size else None


def offset(h: Float[Array, "m"], C: Float[Array, "m k"] | None, s: Inexact[Array, "k"] | None) -> Inexact[Array, "m"]:
    """`h + C s`; `h` for a step that has no input, which is one of zero.

    **Raises:** `ValueError`, when it is traced, for inputs of a cell that takes none, or another number of them.
    """
    return h if s is None else h + driven(C, s) @ s


def driven(C: Float[Array, "*e m k"] | None, s: Inexact[Array, "k"]) -> Float[Array, "*e m k"]:
    """`C`, which the inputs `s` of one step fit. **Raises:** as `offset`."""
    check_input(0 if C is None else C.shape[-1], s)
    assert C is not None
    return C


def check_input(size: int, s: Inexact[Array, "k"]) -> None:
    """Raise `ValueError` for inputs `s` of one step that are not `size` numbers."""
    given = jnp.shape(s)
    if not size:
        wanted = given[-1] if given else 1
        raise ValueError(f"inputs were given, but the cell does not depend on them: build it with input_size={wanted}.")
    if given != (size,):
        raise ValueError(
            f"inputs must be {size} numbers a step, the input_size of the cell: got the shape {given} of a step."
        )


def check_sizes(*, key: Any, input_size: int, **sizes: int) -> None:
    """Raise `ValueError` unless every size is at least 1 (the input's at least 0), and the start values have a key."""
    jax_key(key)
    at_least_one(**sizes)
    if input_size < 0:
        raise ValueError(f"input_size must be at least 0: got {input_size}.")


def at_least_one(**sizes: int) -> None:
    """Raise `ValueError` for a size below 1, by its name."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1: got {size}.")
