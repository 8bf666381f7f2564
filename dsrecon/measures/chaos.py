"""Is it chaotic at all? First against every linear stochastic process, then against every regular motion."""

from typing import NamedTuple

import numpy as np
import scipy

from dsrecon.measures.embedding import decorrelation_time
from dsrecon.measures.surrogates import amplitude_adjusted, matched_ends

VERDICTS = (
    "linear stochastic process suffices",
    "nonlinear, but not chaotic (periodic/regular)",
    "nonlinear and chaotic",
)
"""What `chaos_test` can say."""

MARGIN = 0.03
"""Growth a step that nearby states must exceed: the bias of the estimate on noisy limit cycles is up to 0.025."""

NEIGHBOURS = (12, 16, 24, 34, 48, 68, 96, 136, 192, 272)
"""Numbers of neighbours that a local linear map is tried with."""

RIDGE = 0.01
"""Share of the neighbours' mean variance below which a direction counts as not filled by them."""

GAIN = 0.001
"""Share of the variance by which more dimensions must predict better, to be worth it."""

BATCHES = 20
"""Stretches of time whose means give the standard error."""


class ChaosTest(NamedTuple):
    """What the data say of chaos.

    - `verdict`: one of `VERDICTS`.
    - `p_value`: of the linear null: share of surrogates (and the data) that are forecast at least as well as the data.
    - `statistic`, `null` `[surrogates]`: the error of that forecast, of the data and of the surrogates, in variances.
    - `growth_p_value`: of the null that small differences grow by no more than `margin` a step.
    - `growth`, `growth_error`: mean log growth of small differences a step (`step` samples), and its standard error.
    - `margin`, `step`, `lag`, `dimension`, `neighbours`: what was used; `unpredicted`: cross-validated share of the
      variance that the local linear map does not predict one step ahead.
    """

    verdict: str
    p_value: float
    statistic: float
    null: np.ndarray
    growth_p_value: float
    growth: float
    growth_error: float
    margin: float
    step: int
    lag: int
    dimension: int
    neighbours: int
    unpredicted: float


def chaos_test(
    values: np.ndarray, *, surrogates: int = 39, seed: int, level: float = 0.05, lag: int | None = None
) -> ChaosTest:
    """Two tests in a row, three outcomes in words.

    1. *Is a linear Gaussian process, observed through a monotonic gauge, enough?* The series, cut by `matched_ends`, is
       taken to normal scores (which undoes any such gauge); it and its amplitude-adjusted surrogates are forecast `lag`
       samples ahead by the mean future of the 6 nearest of the other half's delay vectors (three delays). If the
       data are among the best forecast, it is not.
    2. *Do small differences grow?* A local linear map `x_{t+step} = F(x_t)` is fitted about every state (delay windows
       on their principal axes; dimension and number of neighbours by cross-validation; ridge), and its Jacobians are
       multiplied along the data: `growth = <ln |J v|>` a step, a Lyapunov exponent in units of `step`. Scatter in the
       Jacobians inflates it; half the neighbours have twice the scatter, so `2 growth(k) - growth(k / 2)` is free of it
       to first order. The p-value is of `growth <= margin`, Student's t over 20 stretches of time, with
       `margin = 0.03 + unpredicted`: growth must be the clearer, the less of the motion is deterministic (an
       empirical guard: fits to strong dynamic noise stretch too).

    Chaotic is what is rejected by both. A strictly periodic or quasi-periodic signal with noise has a line spectrum,
    which its surrogates keep: it may come out as either of the first two, and both are right. A series without return
    (a trend, a few cycles) breaks both tests.

    **Arguments:** `values`: `[t]` or `[t, n]`, finite, stationary, t at least 200; `surrogates`: 39 or 99 at `level`
    0.05; `seed` of these; `level` of either test; `lag` in samples, by default the decorrelation time. Lags 1 and 2
    are taken for a map (step of `lag`), others for a flow (step of `2 lag`).

    **Returns:** `ChaosTest`.

    **Raises:** `ValueError` for another shape, NaN (cut the longest complete stretch), or numbers out of range.

    **Measured** by `benchmarks/chaos_test.py` at 2,000 samples, 5 % noise on the values. Linear null rejected at level
    0.05, of 100 runs each: white noise 4, AR(1) 6, AR(2) oscillator 3, a cubed AR(2) 6 (3 of them said to be chaotic:
    strong noise through a steep gauge passes the second test). Regular, of 20 each: sine, two frequencies, van der Pol
    with noise on the values or in the motion, threshold AR(1): none chaotic; a sine with 5 % noise was always called
    nonlinear, with 30 % in 11. Chaotic, of 20 each: Lorenz-63, logistic, Henon all, Roessler 17 (100 cycles; it
    grows slowly). One to two seconds at 5,000 samples.

    Reference: Theiler et al. 1992, Physica D 58, 77 and Schreiber & Schmitz 1997, *Discrimination power of measures for
    nonlinearity in a time series*, Physical Review E 55, 5443 (first test); Nychka, Ellner, Gallant & McCaffrey 1992,
    *Finding chaos in noisy systems*, J. R. Statist. Soc. B 54, 399 and Shintani & Linton 2004, *Nonparametric neural
    network estimation of Lyapunov exponents and a direct test for chaos*, J. Econometrics 120, 1 (second test).
    """
    x = _standardised(values)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1: got {level}.")
    if (surrogates + 1) * level < 1:
        raise ValueError(f"surrogates must be at least 1 / level - 1 = {1 / level - 1:.0f}: got {surrogates}.")
    lag = decorrelation_time(x) if lag is None else lag
    if not 1 <= lag <= len(x) // 40:
        raise ValueError(
            f"lag must lie between 1 and a fortieth of the series, {len(x) // 40}: got {lag} "
            "(by default the decorrelation time: the series is then too short)."
        )
    stretch = x[matched_ends(x)]
    stretch = scipy.stats.norm.ppf((scipy.stats.rankdata(stretch, axis=0) - 0.5) / len(stretch))
    statistic = _forecast_error(stretch, lag)
    seeds = np.random.default_rng(seed).integers(0, 2**31, surrogates)
    null = np.array([_forecast_error(amplitude_adjusted(stretch, seed=int(s)), lag) for s in seeds])
    p_value = (1 + (null <= statistic).sum()) / (surrogates + 1)
    step = lag if lag <= 2 else 2 * lag
    window, dimension, neighbours, unpredicted = _best_map(x, lag, step)
    growth, error = _growth(_states(x, window, dimension), step, lag, neighbours)
    margin = MARGIN + unpredicted
    growth_p = float(scipy.stats.t.sf((growth - margin) / max(error, 1e-300), BATCHES - 1))
    verdict = VERDICTS[0] if p_value > level else VERDICTS[2] if growth_p <= level else VERDICTS[1]
    return ChaosTest(
        verdict,
        float(p_value),
        statistic,
        null,
        growth_p,
        growth,
        error,
        margin,
        step,
        lag,
        dimension,
        neighbours,
        unpredicted,
    )


def _standardised(values: np.ndarray) -> np.ndarray:
    x = np.asarray(values, np.float64)
    if x.ndim not in (1, 2) or 0 in x.shape or len(x) < 200:
        raise ValueError(f"values must have shape [time] or [time, variable] with at least 200 samples: got {x.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("values must be finite: cut the longest stretch without NaN first.")
    x = x.reshape(len(x), -1)
    if not np.ptp(x, axis=0).all():
        raise ValueError(f"values must vary in every channel: channel {int(np.argmin(np.ptp(x, axis=0)))} is constant.")
    return (x - x.mean(0)) / x.std(0)


def _forecast_error(x: np.ndarray, lag: int, neighbours: int = 6, most: int = 1000) -> float:
    """Mean squared error, `lag` samples ahead, of forecasts from the other half of the series."""
    count = len(x) - 3 * lag
    states = np.concatenate([x[i * lag : i * lag + count] for i in range(3)], axis=1)
    targets = x[3 * lag :]
    halves = np.arange(count // 2 - lag), np.arange(count // 2 + lag, count)
    errors = []
    for library, asked in (halves, halves[::-1]):
        asked = asked[:: max(1, len(asked) // most)]
        _, near = scipy.spatial.KDTree(states[library]).query(states[asked], neighbours)
        errors.append(((targets[library][near].mean(1) - targets[asked]) ** 2).mean())
    return float(np.mean(errors))


def _states(x: np.ndarray, window: int, dimension: int) -> np.ndarray:
    """The last `window` samples, on their first principal axes: `[t - window + 1, dimension]`."""
    offsets = np.unique(np.linspace(0, window - 1, min(window, 61)).round().astype(int))
    count = len(x) - window + 1
    delays = np.concatenate([x[o : o + count] for o in offsets], axis=1)
    _, axes = np.linalg.eigh(delays.T @ delays / len(delays))
    return delays @ axes[:, ::-1][:, :dimension]


def _best_map(x: np.ndarray, lag: int, step: int) -> tuple[int, int, int, float]:
    """Window, dimension and neighbours of the local linear map with the least cross-validated error, and that error."""
    channels = x.shape[1]
    if lag <= 2:
        tried = [(w, d) for w in range(1, 5) if (d := w * channels) <= 6] or [(1, min(channels, 6))]
    else:
        tried = [(2 * lag + 1, d) for d in (2, 3, 4, 5)]
    longest = tried[-1][0]
    at = np.arange(longest - 1 + step, len(x))
    at = at[:: max(1, len(at) // 500)]
    best = (0, 0, 0, np.inf)
    for window, dimension in tried:
        states = _states(x, window, dimension)
        asked = at - step - (window - 1)
        library, targets = states[: len(states) - step], x[window - 1 + step :]
        most = max(min(NEIGHBOURS[-1], len(library) // 3), NEIGHBOURS[0])
        near = _neighbours(library, asked, 2 * lag, most)
        for k in NEIGHBOURS:
            if not 3 * (dimension + 1) <= k <= near.shape[1]:
                continue
            predicted = _local_maps(library, targets, asked, near[:, :k])[0]
            error = float(((predicted - targets[asked]) ** 2).mean())
            if error < best[3] - (GAIN if dimension > best[1] > 0 else 0):
                best = (window, dimension, k, error)
    return best


def _growth(states: np.ndarray, step: int, lag: int, neighbours: int) -> tuple[float, float]:
    """Mean log growth a step along the data, corrected for the scatter of the Jacobians, and its standard error."""
    library, targets = states[: len(states) - step], states[step:]
    length = int(np.clip(len(library) // step // 8, 1, 10))
    starts = np.arange(len(library) - (2 * length - 1) * step)
    starts = starts[:: max(1, len(starts) // 2000)]
    chain = starts[:, None] + step * np.arange(2 * length)
    asked, where = np.unique(chain, return_inverse=True)
    where = where.reshape(chain.shape)
    near = _neighbours(library, asked, 2 * lag, neighbours)
    half = np.random.default_rng(0).random(near.shape).argsort(1) < neighbours // 2
    whole, one, other = (
        _stretch(_local_maps(library, targets, asked, near, use)[1], where, length) for use in (None, half, ~half)
    )
    each = 2 * whole - (one + other) / 2
    means = np.array([batch.mean() for batch in np.array_split(each, BATCHES)])
    return float(each.mean()), float(means.std(ddof=1) / np.sqrt(BATCHES))


def _stretch(jacobians: np.ndarray, where: np.ndarray, length: int) -> np.ndarray:
    """Mean `ln |J v|` over the last `length` steps of each chain; before them `v` turns into its direction."""
    v = np.ones((len(where), jacobians.shape[2]))
    grown = np.zeros(len(where))
    for i in range(2 * length):
        v = (jacobians[where[:, i]] @ v[:, :, None])[:, :, 0]
        size = np.maximum(np.linalg.norm(v, axis=1), 1e-300)
        v = v / size[:, None]
        grown += np.log(size) if i >= length else 0
    return grown / length


def _neighbours(library: np.ndarray, asked: np.ndarray, theiler: int, count: int) -> np.ndarray:
    """Indices of the `count` nearest states more than `theiler` samples away, nearest first."""
    _, near = scipy.spatial.KDTree(library).query(library[asked], min(count + 2 * theiler + 1, len(library)))
    close = np.abs(near - asked[:, None]) <= theiler
    order = np.argsort(close, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(near, order, axis=1)


def _local_maps(
    library: np.ndarray, targets: np.ndarray, asked: np.ndarray, near: np.ndarray, use: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Value and Jacobian at each asked state of the weighted least-squares plane through its neighbours' futures."""
    away = library[near] - library[asked][:, None]
    distance = np.linalg.norm(away, axis=2)
    weight = (1 - (distance / (1.0001 * distance.max(1, keepdims=True) + 1e-300)) ** 3) ** 3
    weight = weight if use is None else weight * use
    design = np.concatenate([np.ones_like(away[:, :, :1]), away], axis=2)
    weighted = (design * weight[:, :, None]).transpose(0, 2, 1)
    normal, right = weighted @ design, weighted @ targets[near]
    # where the neighbours lie on a line or a sheet (clean data in more dimensions than they need) no slope across it
    d = np.arange(1, normal.shape[1])
    normal[:, d, d] += RIDGE * normal[:, d, d].mean(1, keepdims=True) + 1e-300
    solution = np.linalg.solve(normal, right)
    return solution[:, 0], solution[:, 1:].transpose(0, 2, 1)
