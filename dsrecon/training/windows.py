"""Batches: windows cut from one array that stays on the device."""

from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float

from dsrecon._types import Key


class Window(NamedTuple):
    """Stretches of data.

    - `x`: observations to predict, `[b, length + 1, n]`.
    - `seen`: what the model is shown of them, `[b, length + 1, n]`: `x` with noise.
    - `s`: external input, `[b, length + 1, k]`: row `t` acts on the step from `x[t - 1]` to `x[t]`. Or `None`.
    """

    x: Float[Array, "b t n"]
    seen: Float[Array, "b t n"]
    s: Float[Array, "b t k"] | None = None


class Windows(eqx.Module):
    """Draws windows at random starts, under jit, without a copy to the host.

    **Arguments:**

    - `x`: series `[t, n]` in the units of the model; `s`: external input `[t, k]`, or `None`.
    - `length`: predicted steps of a window (it holds `length + 1` observations); `batch`: windows drawn at once.
    - `noise`: standard deviation of the Gaussian noise on what the model is shown, in the units of the model. It is cut
      at random from one pool as long as the series: drawing it anew cost a third of an update.
    - `key`: draws that pool; needed with noise.

    **Raises:** `ValueError` for a series too short for one window, a length or batch below 1, negative noise or noise
    without a key, an input of another length.
    """

    x: Float[Array, "t n"]
    s: Float[Array, "t k"] | None
    pool: Float[Array, "t n"] | None
    length: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __init__(
        self,
        x: Float[Array, "t n"],
        *,
        length: int,
        batch: int,
        s: Float[Array, "t k"] | None = None,
        noise: float = 0.0,
        key: Key | None = None,
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
        if not noise >= 0:
            raise ValueError(f"noise must be at least 0: got {noise}.")
        if noise and key is None:
            raise ValueError(f"noise={noise} needs a key to draw from.")
        self.x, self.s, self.length, self.batch = x, s, length, batch
        self.pool = noise * jax.random.normal(key, x.shape, x.dtype) if key is not None and noise else None

    def __call__(self, key: Key) -> Window:
        """`batch` windows; their starts are uniform over all that fit."""
        starts = jax.random.randint(key, (2, self.batch), 0, len(self.x) - self.length)

        def cut(values, starts):
            size = (self.length + 1, values.shape[1])
            return jax.vmap(lambda i: jax.lax.dynamic_slice(values, (i, 0 * i), size))(starts)

        x = cut(self.x, starts[0])
        seen = x if self.pool is None else x + cut(self.pool, starts[1])
        return Window(x, seen, None if self.s is None else cut(self.s, starts[0]))
