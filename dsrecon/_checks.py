"""Checks of arguments that many functions share."""

import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

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


def several_names(given: str | Sequence[str]) -> list[str]:
    """The names in an argument that takes several; one that is given alone, as text, is one name."""
    return [given] if isinstance(given, str) else list(given)


def jax_key(key: Any) -> jax.Array:
    """A key for start values. **Raises** `ValueError` for anything else, a seed too."""
    if _is_key(key):
        return key
    hint = f" Of a seed: jax.random.key({key})." if isinstance(key, int) and not isinstance(key, bool) else ""
    raise ValueError(f"key must be a JAX key, as jax.random.key(0) gives: got {key!r}.{hint}")


def random_key(key: Any) -> jax.Array:
    """A key for random numbers, from a seed or a key. **Raises** `ValueError` for anything else."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    if _is_key(key):
        return key
    raise ValueError(f"key must be a whole number or a JAX key: got {key!r}.")


def _is_key(key: Any) -> TypeGuard[jax.Array]:
    """Whether it is a JAX key, of either form."""
    return isinstance(key, jax.Array) and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == np.uint32)


def undriven(s: Any) -> None:
    """**Raises** `ValueError` for inputs of a system that takes none."""
    if s is not None:
        raise ValueError("inputs were given, but the system takes none: its equation is autonomous.")
