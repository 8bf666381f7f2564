"""Observations that lag behind the state and smear it: the BOLD signal of functional imaging."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Inputs, Key
from dsrecon.readout.base import AbstractReadout, squared_error
from dsrecon.readout.linear import LinearReadout

RESOLVED = 6.0
"""Longest time step, in s, at which the haemodynamic response (10 s wide) can be sampled."""


class HaemodynamicReadout(AbstractReadout):
    """Channels are the haemodynamic response to a linear map of the states so far: `x_t = sum_k h_k B z_{t-k} + b`.

    `h` `[k]` is the canonical response (`response`), of unit sum, so that a state held for ever is seen as
    `B z + b` (`decode`). Before its first row a run is taken to have been held at that row: `observe` and `misfit` of
    the first `memory` rows depend on it.

    What can be imposed on a state is the observed series before it was smeared: `targets` is the Wiener
    deconvolution of the series, about its mean, over the series and its mirror image. With `H` the transform of `h`,

    `U(f) = conj(H(f)) X(f) / (|H(f)|^2 + noise_to_signal)`

    so a slow component comes back by the factor `|H|^2 / (|H|^2 + noise_to_signal)`, a fast one is given up as noise,
    and the `memory` rows at either end are less certain. Missing entries are first filled by linear interpolation
    (the nearest value at the ends). Deconvolve a whole series once, not windows of it: no parameter enters.

    **Arguments:**

    - `observed_size` n; `state_size` m; `key` as in `LinearReadout`.
    - `time_step`: between two samples (the repetition time), in s, at most 6.
    - `length`: of the response, in s.
    - `noise_to_signal`: power of the noise over that of the signal in the observed series, taken as white.

    **Raises:** `ValueError` for a size below 1, a time step or length that does not resolve the response, or a
    `noise_to_signal` that is not positive.

    Reference: Volkmann et al. 2024, *A scalable generative model for dynamical system reconstruction from
    neuroimaging data*, NeurIPS (there with nuisance regressors as well, which are to be regressed out first here).
    """

    linear: LinearReadout
    time_step: float = eqx.field(static=True)
    length: float = eqx.field(static=True)
    noise_to_signal: float = eqx.field(static=True)

    def __init__(
        self,
        observed_size: int,
        state_size: int,
        *,
        time_step: float,
        length: float = 32.0,
        noise_to_signal: float = 0.1,
        key: Key,
    ):
        if not 0 < noise_to_signal < np.inf:
            raise ValueError(f"noise_to_signal must be positive: got {noise_to_signal}.")
        response(time_step, length)
        self.time_step, self.length, self.noise_to_signal = float(time_step), float(length), float(noise_to_signal)
        self.linear = LinearReadout(observed_size, state_size, key=key)

    @property
    def observed_size(self) -> int:
        return self.linear.observed_size

    @property
    def state_size(self) -> int:
        return self.linear.state_size

    @property
    def memory(self) -> int:
        return len(self.h) - 1

    @property
    def unitwise(self) -> bool:
        return False

    @property
    def h(self) -> np.ndarray:
        """The response at lags 0, 1, ... `memory` time steps, `[k]`."""
        return response(self.time_step, self.length)

    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        return self.linear.decode(z)

    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        return self.linear.encode(x, z, mask)

    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        return self.linear.start(x)

    def observe(self, zs: Inexact[Array, "t m"]) -> Inexact[Array, "t n"]:
        return convolved(self.linear.observe(zs), self.h)

    def targets(self, xs: Inexact[Array, "t n"], mask: Bool[Array, "t n"] | None = None) -> Inexact[Array, "t n"]:
        xs = xs if mask is None else filled(xs, mask)
        return deconvolved(xs, self.h, self.noise_to_signal)

    def misfit(self, zs: Inexact[Array, "t m"], xs: Inexact[Array, "t n"]) -> Inexact[Array, "t n"]:
        return squared_error(self.observe(zs), xs)


def response(time_step: float, length: float = 32.0) -> np.ndarray:
    """Canonical haemodynamic response at `0, time_step, ... <= length` (s), divided by its sum: `[k]`.

    `h(t) = t^5 e^-t / 5! - (t^15 e^-t / 15!) / 6`: gamma densities with delays 6 s and 16 s and dispersion 1 s (the
    response peaks at 5 s and undershoots until after 15 s), ratio 1 to 6.

    **Raises:** `ValueError` unless `0 < time_step <= min(6, length)`.

    References: Glover 1999, *Deconvolution of impulse response in event-related BOLD fMRI*, NeuroImage; Friston et
    al. 1998, *Event-related fMRI: characterizing differential responses*, NeuroImage (the parameters, those of SPM).
    """
    if not 0 < time_step <= min(RESOLVED, length) or not np.isfinite(length):
        raise ValueError(
            f"time_step must be positive, at most {RESOLVED:g} s and at most length (s), to sample the haemodynamic "
            f"response: got time_step={time_step} and length={length}."
        )
    t = np.arange(int(length / time_step * (1 + 1e-12)) + 1) * time_step
    h = scipy.stats.gamma.pdf(t, 6) - scipy.stats.gamma.pdf(t, 16) / 6
    return h / h.sum()


def convolved(xs: Float[Array, "t n"], h: np.ndarray) -> Float[Array, "t n"]:
    """`sum_k h_k x_{t-k}` of every channel, `x` before the first row being the first row."""
    t, lags = len(xs), len(h)
    padded = jnp.concatenate([jnp.broadcast_to(xs[:1], (lags - 1, xs.shape[1])), xs])

    def add(total, lag):
        k, h_k = lag
        return total + h_k * jax.lax.dynamic_slice_in_dim(padded, lags - 1 - k, t), None

    return jax.lax.scan(add, jnp.zeros_like(xs), (jnp.arange(lags), jnp.asarray(h, xs.dtype)))[0]


def deconvolved(xs: Float[Array, "t n"], h: np.ndarray, noise_to_signal: float) -> Float[Array, "t n"]:
    """Wiener deconvolution of every channel about its mean, over the series followed by its mirror image."""
    mean = xs.mean(0, keepdims=True)
    mirrored = jnp.concatenate([xs - mean, (xs - mean)[::-1]])
    period = len(mirrored)
    H = np.fft.rfft(np.bincount(np.arange(len(h)) % period, h, period))[:, None]
    X = jnp.fft.rfft(mirrored, axis=0)
    U = jnp.asarray(np.conj(H) / (np.abs(H) ** 2 + noise_to_signal), X.dtype) * X
    return mean + jnp.fft.irfft(U, period, axis=0)[: len(xs)]


def filled(xs: Float[Array, "t n"], mask: Bool[Array, "t n"]) -> Float[Array, "t n"]:
    """The series with entries where `mask` is false interpolated linearly in time, the nearest value at the ends.

    A channel that is never observed stays as it is.
    """
    t, last = jnp.arange(len(xs))[:, None], len(xs) - 1
    before = jax.lax.cummax(jnp.where(mask, t, -1), axis=0)
    after = jax.lax.cummin(jnp.where(mask, t, last + 1), axis=0, reverse=True)
    before, after = jnp.where(before < 0, after, before), jnp.where(after > last, before, after)
    seen = mask.any(axis=0, keepdims=True)
    before, after = jnp.where(seen, before, t), jnp.where(seen, after, t)
    left, right = (jnp.take_along_axis(xs, i, axis=0) for i in (before, after))
    share = ((t - before) / jnp.maximum(after - before, 1)).astype(xs.dtype)
    return left + share * (right - left)
