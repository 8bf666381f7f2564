"""Temporal parallel gated network: a forecaster that reads a series folded into its periods."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._checks import jax_key
from dsrecon._types import Key
from dsrecon.forecaster import AbstractWideForecaster, check_window
from dsrecon.models._init import at_least_one, uniforms
from dsrecon.models.pgn import PGN

VARIANCE = 1e-5
"""Added to the variance by which a window is normalised."""


class Linear(eqx.Module):
    """An affine map of the first axis of many columns: `W u + b`."""

    W: Float[Array, "o i"]
    b: Float[Array, "o"]

    def __call__(self, u: Float[Array, "i c"]) -> Float[Array, "o c"]:
        return self.W @ u + self.b[:, None]


class Channel(eqx.Module):
    """The weights of one channel: what TPGN does to it.

    `within` `[d, k p]` is applied to each row and `across` `[d, d r]` over the rows; no nonlinearity is between them,
    so their product, one matrix, is applied to the window.
    """

    pgn: PGN
    rows: Linear
    within: Linear
    across: Linear
    head: Linear
    ahead: tuple[Linear, Linear] | None

    def __init__(self, rows: int, period: int, inputs: int, known: int, width: int, out: int, *, key: Key):
        key_pgn, key_rest = jax.random.split(key)
        self.pgn = PGN(inputs, width, max(rows - 1, 1), key=key_pgn)
        sizes = [(rows * width, width), (period * inputs, width), (rows * width, width), (2 * width, out)]
        sizes += [(known, width), (width, 1)] if known else []
        drawn = uniforms(*((shape, i) for i, o in sizes for shape in ((o, i), (o,))), key=key_rest)
        self.rows, self.within, self.across, self.head, *ahead = map(Linear, drawn[::2], drawn[1::2])
        self.ahead = (ahead[0], ahead[1]) if known else None

    def __call__(self, u: Float[Array, "k r p"], future: Float[Array, "j h"] | None) -> Float[Array, "h"]:
        """One channel and what is known beside it, in rows of one period: the steps ahead."""
        (k, r, p), d = u.shape, len(self.rows.b)
        long = self.rows(self.pgn.columns(u).reshape(d * r, p))
        across = self.across.W.reshape(d, d, r)
        both = jnp.einsum("oer,ekp->okrp", across, self.within.W.reshape(d, k, p))
        short = both.reshape(d, k * r * p) @ u.reshape(-1) + across.sum(2) @ self.within.b + self.across.b
        of_short, of_long = self.head.W[:, :d], self.head.W[:, d:]
        y = (of_long @ long + (of_short @ short + self.head.b)[:, None]).reshape(-1)
        if self.ahead is None or future is None:
            return y
        return y[: future.shape[1]] + self.ahead[1](jnp.tanh(self.ahead[0](future)))[0]


class TPGN(AbstractWideForecaster):
    """Temporal PGN: `[lookback, n] -> [horizon, n]`, every channel with weights of its own.

    The window is folded into `R = lookback / period` rows of one period. With `u[r, p]` the value at phase `p` of row
    `r`, and what is known beside it,

        long[p]  = rows(PGN(u[:, p]))              a PGN of window R - 1 down each column, then over the rows
        short    = across(within(u[r, :]))         over each row, then over the rows: the same at every phase
        y[:, p]  = head([short, long[p]])          ceil(horizon / period) rows ahead, unfolded again

    so a step of the forecast is reached from any step of the past through two short paths, at a cost of
    `lookback^2 / period` for each channel, and linear in channels and horizon. A lookback that is no multiple of the
    period is begun with the values one period later. What is known ahead (`known_size` columns) adds
    `linear(tanh(linear(future)))` to each step; the published network has no such part.

    With `normalise` a window has mean 0 and variance 1 (channel by channel, `sqrt(variance + 1e-5)`), undone on what
    comes out: what a window's level and scale are is then not seen by the network.

    **Arguments:**

    - `lookback`, `horizon`, `period` in steps; `channels` n; `width` d of both branches.
    - `past_size` k: columns of what is known along the past (time marks, covariates); `known_size` j: columns of what
      is known ahead.
    - `normalise`: as above. `key`: for the start values, uniform within one over the root of the inputs of a unit.

    **Raises:** `ValueError` for a size below 1, a period longer than the lookback, and at the call for windows of
    another shape.

    Reference: Jia et al. 2024, *PGN: The RNN's new successor is effective for long-range time series forecasting*,
    NeurIPS (section 3.2).
    """

    channel: Channel
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    period: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    past_size: int = eqx.field(static=True)
    known_size: int = eqx.field(static=True)
    normalise: bool = eqx.field(static=True)

    def __init__(
        self,
        lookback: int,
        horizon: int,
        *,
        period: int,
        channels: int = 1,
        width: int = 8,
        past_size: int = 0,
        known_size: int = 0,
        normalise: bool = True,
        key: Key,
    ):
        at_least_one(lookback=lookback, horizon=horizon, period=period, channels=channels, width=width)
        if period > lookback:
            raise ValueError(f"period must be at most the lookback, {lookback}: got {period}.")
        if past_size < 0 or known_size < 0:
            raise ValueError(f"past_size and known_size must be at least 0: got {past_size} and {known_size}.")
        self.lookback, self.horizon, self.period, self.channels = lookback, horizon, period, channels
        self.past_size, self.known_size, self.normalise = past_size, known_size, normalise
        rows, out = -(-lookback // period), -(-horizon // period)

        def make(key):
            return Channel(rows, period, 1 + past_size, known_size, width, out, key=key)

        self.channel = eqx.filter_vmap(make)(jax.random.split(jax_key(key), channels))

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        check_window(self, x, past, future)
        mean, scale = jnp.zeros((1, x.shape[1]), x.dtype), jnp.ones((1, x.shape[1]), x.dtype)
        if self.normalise:
            mean = x.mean(0, keepdims=True)
            scale = jnp.sqrt(jnp.mean((x - mean) ** 2, 0, keepdims=True) + VARIANCE)
        u = ((x - mean) / scale).T[:, None]
        if past is not None:
            u = jnp.concatenate([u, jnp.broadcast_to(past.T[None], (len(u), *past.T.shape))], 1)
        short = -self.lookback % self.period
        u = jnp.concatenate([u[..., self.period - short : self.period], u], -1) if short else u
        u = u.reshape(*u.shape[:2], -1, self.period)
        future = None if future is None else future.T
        if self.channels == 1:  # a batch axis of one would send the small products of a CPU to a slower library
            y = jax.tree.map(lambda w: w[0], self.channel)(u[0], future)[None]
        else:
            y = eqx.filter_vmap(lambda channel, u: channel(u, future))(self.channel, u)
        return y[:, : self.horizon].T * scale + mean
