"""Checks of arguments that many functions share."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def whole(name: str, value: Any) -> int:
    """An argument that counts. **Raises** `ValueError` where it is no whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number: got {value!r}.") from None


def counted(name: str, value: Any, least: int = 1) -> int:
    """An argument that counts something that there must be. **Raises** `ValueError` where it is no whole number (a
    truth value is none), or fewer than `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number from {least} on: got {value!r}.")
    return int(value)


def real(name: str, value: Any) -> float:
    """An argument that measures. **Raises** `ValueError` where it is no number (text is none)."""
    if isinstance(value, str | bytes):
        raise ValueError(f"{name} must be a number: got {value!r}.")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number: got {value!r}.") from None


def random_key(key: Any) -> jax.Array:
    """A key for random numbers, from a seed or a key. **Raises** `ValueError` for anything else."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    if isinstance(key, jax.Array) and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == np.uint32):
        return key
    raise ValueError(f"key must be a whole number or a JAX key: got {key!r}.")
