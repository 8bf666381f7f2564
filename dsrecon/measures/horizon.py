"""For how long does a forecast hold? Times until its error passes a threshold, from many starts."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Inexact

from dsrecon.cell import AbstractCell
from dsrecon.measures.gaps import check_observed
from dsrecon.measures.prediction import spread
from dsrecon.readout import AbstractReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import Series

RESAMPLES = 1000
STREAM = 0x767074
"""Second word of every seed here."""


class Horizon(NamedTuple):
    """Valid prediction times, in units of time.

    - `median`, `mean` over the starts, and `median_interval`, `mean_interval`: their 95 % intervals, from resampled
      starts (bootstrap); `standard_error` of the median, from the same.
    - `lyapunov_times`: the median times the largest exponent; NaN where that is unknown or not positive.
    - `censored`: share of the forecasts that never passed the threshold within `limit`; they count as `limit`, so the
      mean is a lower bound where any is, and the median where half are.
    - `times`: of each start, `[starts]`; `starts`: their rows in the truth.
    """

    median: float
    median_interval: tuple[float, float]
    mean: float
    mean_interval: tuple[float, float]
    standard_error: float
    lyapunov_times: float
    censored: float
    limit: float
    times: np.ndarray
    starts: np.ndarray


def valid_prediction_time(
    reconstruction: Reconstruction,
    true: Series,
    *,
    threshold: float = 0.4,
    starts: int = 200,
    steps: int | None = None,
    exponent: float | None = None,
    states: Inexact[Array, "t m"] | None = None,
    inputs: Any = None,
    seed: int = 0,
) -> Horizon:
    """VPT: the first time at which the normalised error of a forecast passes `threshold`.

    `e_k = sqrt(sum_c ((x_{i+k,c} - xhat_{i+k,c}) / sd_c)^2 / n)`, with `sd_c` the truth's standard deviation of channel
    `c`: `|x - xhat| / sqrt(mean |x - mean|^2)` on standardised data, so that units play no part. VPT is
    `k dt` for the least `k >= 1` with `e_k > threshold`. Starts `i` are spread evenly over the truth and synchronised
    to it by `Reconstruction.filter`. A forecast that is not finite has passed.

    **Arguments:** `true`: a series of the model's variables; NaN is not observed: starts are rows without any, the
    error is over the channels observed at `i + k`, and a time without any is passed over; `threshold`; `starts`: how
    many at most; `steps`: longest forecast (default: 2,000, or half of the truth); `exponent`: largest Lyapunov
    exponent per unit of time, where it is known; `states`: the latent states along the truth, where
    `Reconstruction.filter` has given them already; `inputs`: of a driven model, row for row with the truth; `seed` of
    the resampling.

    **Returns:** `Horizon`. Starts closer than a valid prediction time have related errors; its intervals are then
    too narrow.

    **Raises:** `ValueError` for a number out of range, no start that is observed in every variable, inputs that do not
    fit, or a readout with memory, whose forecasts hang on more than the last state.

    Reference: Pathak et al. 2018, *Model-free prediction of large spatiotemporally chaotic systems from data: a
    reservoir computing approach*, Physical Review Letters 120, 024102; Vlachas et al. 2020, *Backpropagation algorithms
    and reservoir computing in recurrent neural networks for the forecasting of complex spatiotemporal dynamics*,
    Neural Networks 126, 191.
    """
    if reconstruction.readout.memory:
        raise ValueError("a readout with memory has no valid prediction time here: read prediction_error.")
    values = true.values[reconstruction.offset :]
    at, steps = _plan(values, threshold, starts, steps)
    drive = reconstruction.driven(inputs, true.clock, len(true.values))
    mean, unit = (v[: values.shape[1]] for v in (reconstruction.scaler.mean, reconstruction.scaler.std))
    seen = np.isfinite(values)
    states = reconstruction.filter(true, inputs) if states is None else states
    x = jnp.asarray(np.where(seen, (values - mean) / unit, 0), dtype=states.dtype)
    weights = jnp.asarray(unit / np.nanstd(true.values, 0, ddof=1), dtype=x.dtype)
    first = _first_pass(
        reconstruction.cell,
        reconstruction.readout,
        states[at],
        None if drive is None else drive[reconstruction.offset :],
        x,
        jnp.asarray(seen),
        jnp.asarray(at),
        weights,
        jnp.asarray(threshold, dtype=x.dtype),
        jnp.asarray(steps),
    )
    return _horizon(np.asarray(first), at, steps, reconstruction.clock.time_step, exponent, seed)


def analogue_horizon(
    reference: np.ndarray,
    true: np.ndarray,
    *,
    dt: float = 1.0,
    threshold: float = 0.4,
    starts: int = 200,
    steps: int | None = None,
    exponent: float | None = None,
    seed: int = 0,
) -> Horizon:
    """VPT of the data themselves: each start of `true` `[t, n]` is forecast by its nearest neighbour in `reference`.

    What the data can say of their own future without a model (Lorenz 1969, the method of analogues), as
    `valid_prediction_time`: the bar that a model must pass.

    **Arguments:** `reference`: gaps are passed over as those of the truth, neighbours are rows without any;
    `dt`: time step; all else as there.

    **Raises:** `ValueError` as there, and for a reference that is not longer than `steps`.
    """
    true, reference = np.asarray(true, np.float64), np.asarray(reference, np.float64)
    at, steps = _plan(true, threshold, starts, steps)
    known = np.flatnonzero(np.isfinite(reference[: max(0, len(reference) - steps)]).all(1))
    if not len(known):
        raise ValueError(f"reference must have observed rows and be longer than steps={steps}: got {len(reference)}.")
    sd = np.nanstd(true, 0, ddof=1)
    _, nearest = scipy.spatial.KDTree(reference[known] / sd).query(true[at] / sd)
    begin, first = known[nearest], np.zeros(len(at), int)
    for k in range(1, steps + 1):
        open_ = np.flatnonzero(first == 0)
        if not len(open_):
            break
        square = ((reference[begin[open_] + k] - true[at[open_] + k]) / sd) ** 2
        count = np.isfinite(square).sum(1)
        first[open_[np.nansum(square, 1) > threshold**2 * count]] = k
    return _horizon(first, at, steps, dt, exponent, seed)


def _plan(values: np.ndarray, threshold: float, starts: int, steps: int | None) -> tuple[np.ndarray, int]:
    """Rows to start at, and the longest forecast."""
    check_observed(values, "the truth")
    steps = min(2000, len(values) // 2) if steps is None else steps
    if not 1 <= steps < len(values):
        raise ValueError(f"steps must lie between 1 and the length of the truth, {len(values)}: got {steps}.")
    if starts < 2:
        raise ValueError(f"starts must be at least 2: got {starts}.")
    if not (threshold > 0 and np.isfinite(threshold)):
        raise ValueError(f"threshold must be positive and finite: got {threshold}.")
    rows = np.flatnonzero(np.isfinite(values[:-steps]).all(1))
    if len(rows) < 2:
        raise ValueError(
            f"the truth must have at least 2 rows to start from, {steps} steps before its end and observed in every "
            f"variable: got {len(rows)}."
        )
    return rows[spread(len(rows), starts)], steps


@eqx.filter_jit
def _first_pass(cell: AbstractCell, readout: AbstractReadout, states, drive, x, seen, at, weights, threshold, steps):
    """Step `[b]` at which each forecast passes, 0 where it does not; ends when all have."""

    def running(carry):
        k, _, first = carry
        return (k <= steps) & jnp.any(first == 0)

    def step(carry):
        k, z, first = carry
        z = jax.vmap(cell)(z, None if drive is None else drive[at + k])
        mask = seen[at + k]
        miss = (jax.vmap(readout.decode)(z)[:, : x.shape[1]] - x[at + k]) * weights[None]
        square = jnp.sum(jnp.where(mask, miss**2, jnp.zeros_like(miss)), axis=1)
        count = jnp.sum(mask, axis=1)
        passed = ~(square <= threshold**2 * count.astype(square.dtype))  # never where nothing is observed: 0 <= 0
        return k + 1, z, jnp.where((first == 0) & passed, k, first)

    begin = (jnp.ones_like(steps), states, jnp.zeros_like(at, dtype=steps.dtype))
    return jax.lax.while_loop(running, step, begin)[2]


def _horizon(first: np.ndarray, at: np.ndarray, steps: int, dt: float, exponent: float | None, seed: int) -> Horizon:
    times = np.where(first == 0, steps, first) * dt
    drawn = times[np.random.default_rng((seed, STREAM)).integers(len(times), size=(RESAMPLES, len(times)))]
    medians = np.median(drawn, axis=1)
    low, high = np.quantile([medians, drawn.mean(1)], [0.025, 0.975], axis=1)
    median = float(np.median(times))
    lyapunov_times = median * exponent if exponent is not None and exponent > 0 else float("nan")
    return Horizon(
        median=median,
        median_interval=(float(low[0]), float(high[0])),
        mean=float(times.mean()),
        mean_interval=(float(low[1]), float(high[1])),
        standard_error=float(medians.std(ddof=1)),
        lyapunov_times=lyapunov_times,
        censored=float((first == 0).mean()),
        limit=steps * dt,
        times=times,
        starts=at,
    )
