"""Do two series live on the same attractor, in any number of variables? Distances between mixtures of Gaussians."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dsrecon.measures.gaps import check_observed, check_rows

BLOCK = 2**21
"""Distances held at once."""

NEAR = 1e15
"""Standard deviations beyond which a point adds nothing to a density, and its square nears the end of float32."""


STREAM = 0x6D6978
"""Second word of every seed here, so that data drawn with the same seed are not the draws that judge them."""


class Divergence(NamedTuple):
    """A divergence in nats and the standard error of its Monte-Carlo average."""

    value: float
    standard_error: float


def d_stsp_mixture(
    true: np.ndarray,
    generated: np.ndarray,
    *,
    variance: float = 1.0,
    samples: int = 20_000,
    points: int | None = None,
    seed: int = 0,
) -> Divergence:
    """State-space divergence by mixtures: `D_stsp = int p ln(p / q)` in nats, for any number of variables.

    `p(x) = 1/T sum_t N(x; x_t, variance I)` has one Gaussian a point of the truth, `q` one a generated point, on data
    standardised by the truth. The integral is the mean of `ln p - ln q` over `samples` draws from `p`. It is 0 for
    equal visits; the estimate scatters about it, and may be negative, within its standard error.

    The order in time plays no part: read `d_h` or `d_transition` beside it.

    **Arguments:** `true`, `generated`: `[t, n]`, lengths may differ, same units; of a truth with NaN the rows observed
    in every channel count; `variance` of each Gaussian, in variances of the truth: details below its root are not
    seen; `samples`: draws; `points`: use so many rows of each at most, drawn at random (default: all); `seed` of both.
    Time is `samples` times points; memory does not grow with that product.

    **Returns:** `(value, standard_error)`; NaN when `generated` is not finite, infinity when all of it is further than
    1e15 standard deviations away.

    **Raises:** `ValueError` for other shapes, infinity, an all-NaN or a constant channel in the truth, or a number out
    of range.

    Reference: Koppe et al. 2019, *Identifying nonlinear dynamical systems via generative RNNs*, PLoS Comput. Biol.;
    Brenner et al. 2022, *Tractable dendritic RNNs for reconstructing nonlinear dynamical systems*, ICML; Hess et al.
    2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """
    true, generated = np.asarray(true, np.float64), np.asarray(generated, np.float64)
    check_observed(true, "true")
    if generated.ndim != 2 or 0 in generated.shape or generated.shape[1] != true.shape[1]:
        raise ValueError(f"generated must have shape [time, {true.shape[1]}], as true has: got {generated.shape}.")
    if not (variance > 0 and np.isfinite(variance)):
        raise ValueError(f"variance must be positive and finite: got {variance}.")
    for name, number, least in (("samples", samples, 2), ("points", 2 if points is None else points, 2)):
        if number < least:
            raise ValueError(f"{name} must be at least {least}: got {number}.")
    true = check_rows(true, "true")
    mean, sd = true.mean(0), true.std(0, ddof=1)
    if not (np.ptp(true, axis=0) > 0).all():
        raise ValueError(
            f"true must vary in every channel: channel {int(np.argmin(np.ptp(true, axis=0)))} is constant."
        )
    if not np.isfinite(generated).all():
        return Divergence(float("nan"), float("nan"))
    rng = np.random.default_rng((seed, STREAM))
    p, q = (_thinned((values - mean) / sd, points, rng) for values in (true, generated))
    x = p[rng.integers(len(p), size=samples)] + variance**0.5 * rng.normal(size=(samples, p.shape[1]))
    ratio = _log_density(x, p, variance) - _log_density(x, q, variance)
    error = float(ratio.std(ddof=1)) / samples**0.5 if np.isfinite(ratio).all() else float("nan")
    return Divergence(float(ratio.mean()), error)


def d_transition(
    true: np.ndarray,
    generated: np.ndarray,
    *,
    lag: int | None = None,
    variance: float = 1.0,
    samples: int = 20_000,
    points: int | None = None,
    seed: int = 0,
) -> Divergence:
    """`d_stsp_mixture` of states joined with their successors, `(x_t, x_{t + lag})`: a distance that sees time.

    A shuffled or reversed series visits the same states but makes other transitions. The lag is a time in which the
    state moves by about a standard deviation, so that observation noise does not hide the motion.

    **Arguments:** as `d_stsp_mixture`; `lag` in steps (default: `transition_lag` of the truth).

    **Returns:** `(value, standard_error)`, as `d_stsp_mixture`.

    **Raises:** `ValueError` as `d_stsp_mixture`, and for a lag that is not between 1 and both lengths.
    """
    lag = transition_lag(true) if lag is None else lag
    if not 1 <= lag < min(len(true), len(generated)):
        raise ValueError(f"lag must lie between 1 and the lengths {len(true)} and {len(generated)}: got {lag}.")
    a, b = transitions(true, lag), transitions(generated, lag)
    return d_stsp_mixture(a, b, variance=variance, samples=samples, points=points, seed=seed)


def transitions(values: np.ndarray, lag: int) -> np.ndarray:
    """States joined with their successors: `[t, n]` to `[t - lag, 2 n]`."""
    values = np.asarray(values, np.float64)
    return np.concatenate([values[:-lag], values[lag:]], axis=1)


def transition_lag(values: np.ndarray) -> int:
    """The first lag at which the autocorrelation of `[t, n]`, mean over channels, is 1/2 or less.

    There the mean squared step `|x_{t + lag} - x_t|^2` is one variance. A quarter of the length where it is never
    reached. NaN (not observed) does not count.

    **Raises:** `ValueError` for another shape, fewer than 8 samples, an all-NaN or a constant channel.
    """
    values = np.asarray(values, np.float64)
    check_observed(values, "values")
    seen = np.isfinite(values)
    if len(values) < 8:
        raise ValueError(f"values must have at least 8 samples: got {len(values)}.")
    spread = np.nanstd(values, 0)
    flat = np.nanmax(values, 0) == np.nanmin(values, 0)
    if flat.any():
        raise ValueError(f"values must vary in every channel: channel {int(np.argmax(flat))} is constant.")
    z = np.where(seen, (values - np.nanmean(values, 0)) / spread, 0)
    lags = len(values) // 4
    pairs = _self_products(seen.astype(np.float64), lags)
    correlation = (_self_products(z, lags) / np.maximum(np.round(pairs), 1)).mean(1)
    low = correlation[1:] <= 0.5
    return int(np.argmax(low)) + 1 if low.any() else lags


def _self_products(z: np.ndarray, lags: int) -> np.ndarray:
    """`sum_t z_t z_{t + k}` for k = 0 .. lags, `[lags + 1, n]`."""
    power = np.abs(np.fft.rfft(z, 2 * len(z), axis=0)) ** 2
    return np.fft.irfft(power, 2 * len(z), axis=0)[: lags + 1]


def _thinned(values: np.ndarray, points: int | None, rng: np.random.Generator) -> np.ndarray:
    if points is None or len(values) <= points:
        return values
    return values[np.sort(rng.choice(len(values), points, replace=False))]


def _log_density(x: np.ndarray, centres: np.ndarray, variance: float) -> np.ndarray:
    """Log density at `x` `[s, d]` of the mixture about `centres` `[p, d]`, but for the constant of one Gaussian."""
    near = centres[(np.abs(centres) < NEAR).all(1)]
    if not len(near):
        return np.full(len(x), -np.inf)
    block = max(1, min(len(x), BLOCK // len(near)))
    padded = np.pad(x, ((0, -len(x) % block), (0, 0))).reshape(-1, block, x.shape[1])
    logs = _log_sums(*(jnp.asarray(v, dtype=float) for v in (padded, near, variance)))
    return np.asarray(logs, np.float64).ravel()[: len(x)] - np.log(len(centres))


@jax.jit
def _log_sums(
    x: Float[Array, "blocks s d"], centres: Float[Array, "p d"], variance: Float[Array, ""]
) -> Float[Array, "blocks s"]:
    """`ln sum_j exp(-|x - c_j|^2 / (2 variance))`, one block of samples after the other."""
    square = jnp.sum(centres**2, axis=1)

    def one(x):
        product = jnp.matmul(x, centres.T, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.sum(x**2, axis=1)[:, None] + square[None] - 2 * product
        return jax.nn.logsumexp(-distance / (2 * variance), axis=1)

    return jax.lax.map(one, x)
