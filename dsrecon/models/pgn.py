"""Parallel gated network: a recurrent layer whose path through time has length one."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._types import Key
from dsrecon.models._init import at_least_one, uniforms

DENSE = 1 << 21
"""Largest matrix (entries) in which the taps are laid out; beyond it they are convolved."""


class PGN(eqx.Module):
    """A layer `[t, k] -> [t, d]` that reads, at every step, all of the `w` steps before it at once.

        H_t = h + sum_{i=1..w} W_i x_{t-i}            (zero before the first step)
        G_t = sigmoid(V_g [x_t, H_t] + v_g)
        C_t = tanh(V_c [x_t, H_t] + v_c)
        y_t = G_t * H_t + (1 - G_t) * C_t

    It takes the place of a recurrent layer: what happened at any of the last `w` steps reaches `y_t` in one step, not
    in up to `w`, and all steps are computed at once, by `t w k d` multiplications. `y_t` depends on `x_{t-w} .. x_t`
    alone, so going on with a sequence changes nothing of what came out before.

    **Fields:** `W` `[d, k, w]` (tap `i - 1` weighs the step `i` before), `h` `[d]`; `V` `[2d, k + d]`, `v` `[2d]`: the
    gate's rows, then the candidate's.

    **Arguments:** `input_size` k; `width` d; `window` w; `key` for the start values, uniform within one over the root
    of the number of inputs of a unit.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Jia et al. 2024, *PGN: The RNN's new successor is effective for long-range time series forecasting*,
    NeurIPS.
    """

    W: Float[Array, "d k w"]
    h: Float[Array, "d"]
    V: Float[Array, "2*d k+d"]
    v: Float[Array, "2*d"]

    def __init__(self, input_size: int, width: int, window: int, *, key: Key):
        at_least_one(input_size=input_size, width=width, window=window)
        before, both = window * input_size, input_size + width
        self.W, self.h, self.V, self.v = uniforms(
            ((width, input_size, window), before),
            ((width,), before),
            ((2 * width, both), both),
            ((2 * width,), both),
            key=key,
        )

    def __call__(self, x: Float[Array, "t k"]) -> Float[Array, "t d"]:
        """The layer along a whole sequence."""
        return self.columns(x.T[:, :, None])[:, :, 0].T

    def columns(self, u: Float[Array, "k t c"]) -> Float[Array, "d t c"]:
        """The layer along `c` sequences at once, time and sequence last: one product of matrices for all."""
        d, (_, t, c) = len(self.h), u.shape
        H = self.history(u)
        both = jnp.concatenate([u, H]).reshape(-1, t * c)
        gates = self.V @ both + self.v[:, None]
        G, C, H = jax.nn.sigmoid(gates[:d]), jnp.tanh(gates[d:]), H.reshape(d, t * c)
        return (C + G * (H - C)).reshape(d, t, c)

    def history(self, u: Float[Array, "k t c"]) -> Float[Array, "d t c"]:
        """`H`: what is read of the steps before each one."""
        (d, k, w), (_, t, c) = self.W.shape, u.shape
        if d * t * k * t <= DENSE:
            return (laid_out(self.W, t) @ u.reshape(k * t, c)).reshape(d, t, c) + self.h[:, None, None]
        padded = jnp.concatenate([jnp.zeros((k, w, c), u.dtype), u[:, :-1]], 1)
        flipped = jnp.flip(self.W, 2)  # a convolution of this library is a correlation
        H = jax.lax.conv_general_dilated(padded, flipped, (1,), "VALID", dimension_numbers=("CWN", "OIW", "CWN"))
        return H + self.h[:, None, None]


def laid_out(W: Float[Array, "d k w"], t: int) -> Float[Array, "d*{t} k*{t}"]:
    """Taps as one matrix: entry `[(d, r), (k, s)]` is tap `r - s - 1` where `1 <= r - s <= w`, else zero.

    By repeating one line and reading it again in shorter ones, so that its derivative is a sum, not a scatter.
    """
    d, k, w = W.shape
    taps = W[:, :, : t - 1]
    line = jnp.pad(taps, ((0, 0), (0, 0), (1, 2 * t - 1 - min(w, t - 1))))
    # line[i] holds what reads the step i before, modulo 2 t; entry (s, r) of the matrix is line[r - s]
    many = jnp.tile(line, t)[:, :, : t * (2 * t - 1)].reshape(d, k, t, 2 * t - 1)
    return many[..., :t].transpose(0, 3, 1, 2).reshape(d * t, k * t)
