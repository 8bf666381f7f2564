"""Linear forecasters: every step ahead is an affine function of the past."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._checks import jax_key
from dsrecon._types import Key
from dsrecon.forecaster import AbstractForecaster
from dsrecon.models._init import at_least_one, uniform

Level = Literal["none", "last", "mean"]
"""What is taken off a window before an affine map and put back after it."""

TREND = 25
"""Steps of the running mean that DLinear calls the trend."""


class LinearForecaster(AbstractForecaster):
    """`y = W (x - l) + b + l`, every channel with a map of its own; `l` is the level of the window.

    - `level="none"`: `l = 0`; with weights found by penalised least squares this is ridge regression.
    - `level="last"`: the last value of the window (NLinear, Zeng 2023).
    - `level="mean"`: its mean.

    **Fields:** `W` `[n, horizon, lookback]`, `b` `[n, horizon]`.

    **Arguments:** `lookback`, `horizon` in steps; `channels` n; `level`; `key` for start values uniform within
    `1/sqrt(lookback)`.

    **Raises:** `ValueError` for a size below 1 or another level.

    Reference: Zeng et al. 2023, *Are transformers effective for time series forecasting?*, AAAI.
    """

    W: Float[Array, "n h l"]
    b: Float[Array, "n h"]
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    level: Level = eqx.field(static=True)

    def __init__(self, lookback: int, horizon: int, *, channels: int = 1, level: Level = "last", key: Key):
        at_least_one(lookback=lookback, horizon=horizon, channels=channels)
        if level not in ("none", "last", "mean"):
            raise ValueError(f"level must be 'none', 'last' or 'mean': got {level!r}.")
        key_W, key_b = jax.random.split(jax_key(key))
        self.W = uniform((channels, horizon, lookback), lookback, key=key_W)
        self.b = uniform((channels, horizon), lookback, key=key_b)
        self.lookback, self.horizon, self.level = lookback, horizon, level

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        level = level_of(x, self.level)
        return mapped(self.W, x - level) + self.b.T + level


class DLinear(AbstractForecaster):
    """`y = W_t trend + W_r (x - trend) + b`: one map for the running mean of the window, one for the rest.

    The running mean is over 25 steps, the window held at its ends; each channel has maps of its own.

    **Fields:** `W` `[2, n, horizon, lookback]` (trend, rest), `b` `[n, horizon]`.

    **Arguments:** as `LinearForecaster`. **Raises:** `ValueError` for a size below 1.

    Reference: Zeng et al. 2023, *Are transformers effective for time series forecasting?*, AAAI.
    """

    W: Float[Array, "2 n h l"]
    b: Float[Array, "n h"]
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(self, lookback: int, horizon: int, *, channels: int = 1, key: Key):
        at_least_one(lookback=lookback, horizon=horizon, channels=channels)
        key_W, key_b = jax.random.split(jax_key(key))
        self.W = uniform((2, channels, horizon, lookback), lookback, key=key_W)
        self.b = uniform((channels, horizon), lookback, key=key_b)
        self.lookback, self.horizon = lookback, horizon

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        before, after = (TREND - 1) // 2, TREND // 2
        total = jnp.cumsum(jnp.pad(x, ((before + 1, after), (0, 0)), mode="edge"), 0)
        trend = (total[TREND:] - total[:-TREND]) / TREND
        return mapped(self.W[0], trend) + mapped(self.W[1], x - trend) + self.b.T


def mapped(W: Float[Array, "n h l"], x: Float[Array, "l n"]) -> Float[Array, "h n"]:
    """Each channel's map of its own column. One channel is one plain product."""
    return W[0] @ x if len(W) == 1 else jnp.einsum("nhl,ln->hn", W, x)


def level_of(x: Float[Array, "l n"], level: Level) -> Float[Array, "1 n"]:
    """The level of a window, channel by channel."""
    if level == "last":
        return x[-1:]
    return x.mean(0, keepdims=True) if level == "mean" else jnp.zeros_like(x[:1])
