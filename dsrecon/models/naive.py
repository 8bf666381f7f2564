"""Forecasters that learn nothing: what any other has to beat."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsrecon._types import Key
from dsrecon.forecaster import AbstractForecaster
from dsrecon.models._init import at_least_one


class SeasonalNaive(AbstractForecaster):
    """The last period again and again: `y_i = x_{lookback - period + (i mod period)}`. With `period=1`, the last value.

    **Arguments:** `lookback`, `horizon`, `period` in steps.

    **Raises:** `ValueError` for a size below 1, or a period longer than the lookback.
    """

    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    period: int = eqx.field(static=True)

    def __init__(self, lookback: int, horizon: int, *, period: int):
        at_least_one(lookback=lookback, horizon=horizon, period=period)
        if period > lookback:
            raise ValueError(f"period must be at most the lookback, {lookback}: got {period}.")
        self.lookback, self.horizon, self.period = lookback, horizon, period

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        times = -(-self.horizon // self.period)
        return jnp.tile(x[-self.period :], (times, 1))[: self.horizon]


class Parrot(AbstractForecaster):
    """Context parroting: finds the stretch of a library that is most like the window, and copies what followed it.

    Nearest is smallest in Euclidean distance over the last `lookback` rows, all channels together; with `level` the
    mean of each stretch is taken off before, and the copy is put on the window's.

    **Fields:** `library` `[t, n]` less its mean, `offset` `[1, n]`; `starts` `[w]`: rows at which a stretch of
    `lookback + horizon` rows may begin (none across two trials); `means` `[w, n]` and `squares` `[w]`: of each stretch.

    **Arguments:** the library, `lookback`, `horizon`; `starts`: default all that fit; `level`.

    **Raises:** `ValueError` for a library shorter than `lookback + horizon`.

    Reference: Zhang & Gilpin 2025, *Context parroting: a simple but tough-to-beat baseline for foundation models in
    scientific machine learning*, arXiv:2505.11349; Lorenz 1969 (method of analogues).
    """

    library: Float[Array, "t n"]
    offset: Float[Array, "1 n"]
    starts: Int[Array, "w"]
    means: Float[Array, "w n"]
    squares: Float[Array, "w"]
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    level: bool = eqx.field(static=True)

    def __init__(
        self,
        library: Float[Array, "t n"],
        lookback: int,
        horizon: int,
        *,
        starts: Int[Array, "w"] | None = None,
        level: bool = True,
    ):
        at_least_one(lookback=lookback, horizon=horizon)
        if len(library) < lookback + horizon:
            raise ValueError(f"library must hold lookback + horizon = {lookback + horizon} rows: got {len(library)}.")
        offset = library.mean(0, keepdims=True)  # near zero, little cancels in the distances
        rows = np.arange(len(library) - lookback - horizon + 1) if starts is None else np.asarray(starts)
        values = np.asarray(library - offset, np.float64)
        ends = np.concatenate([np.zeros((2, 1, values.shape[1])), np.cumsum([values, values**2], 1)], 1)
        sums, squares = (ends[:, lookback:] - ends[:, :-lookback])[:, rows]
        means = sums / lookback
        squares = (squares - lookback * means**2 if level else squares).sum(1)
        self.library, self.offset = library - offset, offset
        self.starts, self.means, self.squares = (
            jnp.asarray(rows, jnp.int32),
            jnp.asarray(means, library.dtype),
            jnp.asarray(squares, library.dtype),
        )
        self.lookback, self.horizon, self.level = lookback, horizon, level

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        """By `|x - v|^2 = |x|^2 - 2 x.v + |v|^2`: the products of all stretches with the window are one correlation."""
        x = x - self.offset
        mean = x.mean(0, keepdims=True)
        shape = x - mean if self.level else x
        axes = ("NCH", "OIH", "NCH")
        products = jax.lax.conv_general_dilated(
            self.library.T[None], shape.T[None], (1,), "VALID", dimension_numbers=axes
        )[0, 0, self.starts]
        best = jnp.argmin(self.squares - 2 * products)
        start = self.starts[best] + self.lookback
        followed = jax.lax.dynamic_slice(self.library, (start, 0 * start), (self.horizon, x.shape[1]))
        if self.level:
            followed = followed - self.means[best][None] + mean
        return followed + self.offset
