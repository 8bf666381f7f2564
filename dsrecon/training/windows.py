"""Batches: windows cut from one array that stays on the device."""

from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float

from dsrecon._types import Key


class Window(NamedTuple):
    """A stretch of data: observations `x` `[..., length + 1, n]`, and the external input `s` that acts at each of its steps."""

    x: Float[Array, "*b t n"]
    s: Float[Array, "*b t k"] | None = None


class Windows(eqx.Module):
    """Draws windows at random starts, under jit, without a copy to the host.

    **Arguments:** `x`: series `[t, n]` in the units of the model; `length`: predicted steps of a window (it holds
    `length + 1` observations); `batch`: windows drawn at once; `s`: external input `[t, k]`, or `None`.

    **Raises:** `ValueError` for a series too short for one window, a length or batch below 1, an input of another length.
    """

    x: Float[Array, "t n"]
    s: Float[Array, "t k"] | None
    length: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __init__(
        self, x: Float[Array, "t n"], *, length: int, batch: int, s: Float[Array, "t k"] | None = None
    ):
        if length < 1 or batch < 1:
            raise ValueError(f"length and batch must be at least 1: got {length} and {batch}.")
        if len(x) < length + 1:
            raise ValueError(
                f"the series is too short for one window: {len(x)} samples where a window of {length} predicted "
                f"steps needs {length + 1}. Use a shorter window or more data."
            )
        if s is not None and len(s) != len(x):
            raise ValueError(f"s must be as long as x: got {len(s)} and {len(x)}.")
        self.x, self.s, self.length, self.batch = x, s, length, batch

    def __call__(self, key: Key) -> Window:
        """`batch` windows; their starts are uniform over all that fit."""
        starts = jax.random.randint(key, (self.batch,), 0, len(self.x) - self.length)

        def cut(values):
            size = (self.length + 1, values.shape[1])
            return jax.vmap(lambda i: jax.lax.dynamic_slice(values, (i, 0 * i), size))(starts)

        return Window(cut(self.x), None if self.s is None else cut(self.s))
