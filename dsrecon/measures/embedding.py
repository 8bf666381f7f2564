"""Which lag and how many delays does one measured channel need? Mutual information and false neighbours."""

from typing import NamedTuple

import numpy as np
import scipy

POINTS = 10_000
"""Most delay vectors that neighbours are sought among; of more, evenly spaced ones are taken."""

FALSE_SHARE = 0.01
"""Share of false neighbours from which on an embedding counts as unfolded."""

LATE = 4
"""How many times the lag of the fall to 1/e the first minimum of the mutual information may come."""


def decorrelation_time(values: np.ndarray) -> int:
    """First lag, in samples, at which the autocorrelation (mean over channels) is below `1 / e`; at least 1.

    Products with a missing value are left out. A channel that does not vary does not count.

    **Arguments:** `values`: `[t]` or `[t, n]`, NaN = missing.

    **Returns:** the lag; `t // 2` when it stays above up to there.

    **Raises:** `ValueError` for another shape, fewer than 8 samples, infinity, or no channel that varies.
    """
    x = np.asarray(values, np.float64)
    if x.ndim not in (1, 2) or 0 in x.shape or len(x) < 8:
        raise ValueError(f"values must have shape [time] or [time, variable] with at least 8 samples: got {x.shape}.")
    x = x.reshape(len(x), -1)
    seen = ~np.isnan(x)
    if np.isinf(x).any():
        raise ValueError("values must be finite or NaN (missing): they hold infinity.")
    mean = np.where(seen, x, 0).sum(0) / np.maximum(seen.sum(0), 1)
    centred = np.where(seen, x - mean, 0)
    moving = centred.any(0)
    if not moving.any():
        raise ValueError("values must vary: every channel is constant or missing.")
    sums, counts = (_autoproducts(part[:, moving]) for part in (centred, seen.astype(np.float64)))
    covariance = sums / np.maximum(np.round(counts), 1)
    correlation = (covariance / covariance[0]).mean(1)
    below = np.flatnonzero(correlation[: len(x) // 2] < np.exp(-1))
    return int(below[0]) if below.size else len(x) // 2


def mutual_information(
    x: np.ndarray, max_lag: int | None = None, *, bins: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mutual information of `x_t` and `x_{t+l}` by bins: `I(l) = sum_ab p_ab ln(p_ab / (p_a p_b))`.

    Bins hold equally many samples (equal values share a bin). Pairs with a missing value are left out. The estimate
    is above the truth by about `(bins - 1)^2 / (2 pairs)`, the same for all lags; it is not subtracted.

    **Arguments:** `x`: `[t]`, NaN = missing; `max_lag` in samples, by default five decorrelation times but at least
    20 and at most `t // 4`; `bins`: by default `sqrt(samples / 10)`, between 4 and 64.

    **Returns:** `(lags, information)`: lags 0 to `max_lag`, and nats, each `[max_lag + 1]`. The first is the entropy of
    the bins. NaN where no pair is complete.

    **Raises:** `ValueError` as `decorrelation_time`, and for numbers out of range.

    Reference: Fraser & Swinney 1986, *Independent coordinates for strange attractors from mutual information*, Physical
    Review A 33, 1134.
    """
    x = _channel(x)
    if max_lag is None:
        max_lag = min(max(20, 5 * decorrelation_time(x)), len(x) // 4)
    if not 1 <= max_lag < len(x):
        raise ValueError(f"max_lag must lie between 1 and {len(x) - 1}: got {max_lag}.")
    bins = _bins(x) if bins is None else bins
    if bins < 2:
        raise ValueError(f"bins must be at least 2: got {bins}.")
    seen = ~np.isnan(x)
    edges = np.quantile(x[seen], np.arange(1, bins) / bins)
    symbols = np.where(seen, np.searchsorted(edges, x, side="right"), -1)
    information = [_information(symbols[: len(x) - lag], symbols[lag:], bins) for lag in range(max_lag + 1)]
    return np.arange(max_lag + 1), np.array(information)


def false_neighbours(
    x: np.ndarray,
    lag: int,
    max_dimension: int = 10,
    *,
    theiler: int | None = None,
    stretch: float = 15.0,
    far: float = 2.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of points whose nearest neighbour in `d` delays is one by projection only.

    With `R_d` the distance of `(x_t, x_{t+lag}, ..., x_{t+(d-1)lag})` to its nearest neighbour and `D` how far the two
    are apart in the next delay, a neighbour is false when `D > stretch R_d`, or when `sqrt(R_d^2 + D^2) > far sd` (no
    neighbour at all: what noise gives). Differences below 1e-9 sd count as none.

    **Arguments:** `x`: `[t]`, NaN = missing: delay vectors with a missing value are left out; `lag` in samples;
    `max_dimension`; `theiler`: neighbours in time up to this many samples do not count, by default the larger of `lag`
    and the decorrelation time; `stretch`, `far`: the thresholds.

    **Returns:** `(dimensions, share)`, 1 to `max_dimension`, and 0 to 1. At most 10,000 vectors are asked.

    **Raises:** `ValueError` as `decorrelation_time`, for numbers out of range, and for too short a series.

    Reference: Kennel, Brown & Abarbanel 1992, *Determining embedding dimension for phase-space reconstruction using a
    geometrical construction*, Physical Review A 45, 3403.
    """
    x = _channel(x)
    if lag < 1 or max_dimension < 1:
        raise ValueError(f"lag and max_dimension must be at least 1: got {lag} and {max_dimension}.")
    theiler = max(lag, decorrelation_time(x)) if theiler is None else theiler
    if theiler < 0:
        raise ValueError(f"theiler must be at least 0: got {theiler}.")
    span = max_dimension * lag
    vectors = x[np.arange(max(len(x) - span, 0))[:, None] + lag * np.arange(max_dimension + 1)]
    times = np.flatnonzero(~np.isnan(vectors).any(1))
    times = times[:: -(-len(times) // POINTS)] if len(times) > POINTS else times
    if len(times) < 20 or times[-1] - times[0] <= 4 * theiler:
        raise ValueError(
            f"x must be longer: {len(times)} complete delay vectors are left of {len(x)} samples with lag={lag}, "
            f"max_dimension={max_dimension} and theiler={theiler}."
        )
    vectors, sd = vectors[times], np.nanstd(x)
    share = []
    for d in range(1, max_dimension + 1):
        near, distance = _nearest(vectors[:, :d], times, theiler)
        apart = np.abs(vectors[:, d] - vectors[near, d])
        false = (apart > stretch * distance) | (np.hypot(distance, apart) > far * sd)
        share.append((false & (apart > 1e-9 * sd)).mean())
    return np.arange(1, max_dimension + 1), np.array(share)


class EmbeddingChoice(NamedTuple):
    """A delay embedding and why.

    - `lag`: in samples; `dimension`: number of delays.
    - `lags`, `information`: the curve of `mutual_information`, nats.
    - `dimensions`, `share`: the curve of `false_neighbours`.
    - `reason`: one sentence for the lag, one for the dimension.
    """

    lag: int
    dimension: int
    lags: np.ndarray
    information: np.ndarray
    dimensions: np.ndarray
    share: np.ndarray
    reason: str


def choose_embedding(
    x: np.ndarray, *, lag: int | None = None, dimension: int | None = None, max_dimension: int = 8
) -> EmbeddingChoice:
    """Lag and dimension of a delay embedding of one channel.

    - Lag 1 when the autocorrelation falls below `1 / e` within one sample (maps, coarsely sampled flows).
    - Else the first minimum of the mutual information: a lag `l` with `I(l)` the least of `l - w ... l + w`, `w` the
      largest of 2, `l // 3` and a quarter of the decorrelation time, so that wiggles of a noisy curve do not count, and
      followed by a rise of more than the scatter of the estimate, `2 bins / pairs`. With `l_e` the first lag at which
      `I` (less its bias) is below `I(1) / e`, a minimum beyond `4 l_e` is one of the curve's floor: `l_e` is taken. If
      there is neither, the decorrelation time.
    - The first dimension with fewer than 1 % false neighbours; but at least 2 where the lag was not 1 by the first
      rule, as no flow oscillates on a line. Noise sets a floor to that share: where 1 % is not reached, the
      first dimension after which it falls by less than a twentieth of where it began.

    **Arguments:** `x`: `[t]`, NaN = missing; `lag`, `dimension`: given instead of chosen; `max_dimension` tried.

    **Returns:** `EmbeddingChoice`.

    **Raises:** `ValueError` as `mutual_information` and `false_neighbours`.

    Reference: Fraser & Swinney 1986; Kennel, Brown & Abarbanel 1992; on both, Kantz & Schreiber, *Nonlinear time
    series analysis*, 2nd ed. 2004, chapters 3 and 9.
    """
    x = _channel(x)
    lags, information = mutual_information(x)
    if lag is None:
        lag, why = _first_minimum(x, information)
    else:
        why = f"lag {lag}: given"
    if dimension is not None and dimension < 1:
        raise ValueError(f"dimension must be at least 1: got {dimension}.")
    dimensions, share = false_neighbours(x, lag, max(max_dimension, dimension or 1))
    if dimension is None:
        dimension, unfolded = _unfolded(share, 1 if decorrelation_time(x) == 1 else 2)
    else:
        unfolded = f"dimension {dimension}: given; {share[dimension - 1]:.1%} of the neighbours are false"
    return EmbeddingChoice(lag, dimension, lags, information, dimensions, share, f"{why}. {unfolded}.")


def _first_minimum(x: np.ndarray, information: np.ndarray) -> tuple[int, str]:
    memory = decorrelation_time(x)
    if memory == 1:
        return 1, "lag 1: the autocorrelation falls below 1/e within one sample"
    pairs, bins = np.isfinite(x).sum(), _bins(x)
    bias, scatter = (bins - 1) ** 2 / (2 * pairs), 2 * bins / pairs
    fallen = np.flatnonzero(information[1:] - bias < (information[1] - bias) / np.e)
    latest = LATE * (fallen[0] + 1) if fallen.size else len(information)
    for at in range(2, min(latest + 1, len(information) - 2)):
        w = max(2, at // 3, memory // 4)
        least = information[max(at - w, 1) : at + w + 1].min()
        if w < at and information[at] <= least and information[at : 3 * at].max() > information[at] + scatter:
            return at, f"lag {at}: first minimum of the mutual information"
    if fallen.size:
        at = int(fallen[0]) + 1
        return at, f"lag {at}: the mutual information falls to 1/e of that at lag 1 here, and no minimum follows soon"
    return memory, f"lag {memory}: the mutual information neither has a minimum nor falls; the autocorrelation does"


def _unfolded(share: np.ndarray, least_dimension: int) -> tuple[int, str]:
    good = np.flatnonzero(share < FALSE_SHARE)
    if good.size:
        at = max(int(good[0]) + 1, least_dimension)
        if at > good[0] + 1:
            return at, f"dimension {at}: few false neighbours in {good[0] + 1}, but a flow needs two to oscillate"
        return at, f"dimension {at}: the first with fewer than {FALSE_SHARE:.0%} false neighbours"
    least = np.minimum.accumulate(share[::-1])[::-1]
    at = max(int(np.flatnonzero(share - least <= 0.05 * share[0])[0]) + 1, least_dimension)
    floor = share[min(at, len(share)) - 1]
    return (
        at,
        f"dimension {at}: {floor:.1%} false neighbours and hardly fewer beyond (noise, or over {len(share)} needed)",
    )


def _nearest(points: np.ndarray, times: np.ndarray, theiler: int) -> tuple[np.ndarray, np.ndarray]:
    """Index of, and distance to, the nearest neighbour more than `theiler` samples away in time."""
    tree = scipy.spatial.KDTree(points)
    near, distance = np.zeros(len(points), np.intp), np.zeros(len(points))
    left, count = np.arange(len(points)), 8
    while left.size:
        count = min(count, len(points))
        distances, index = (np.atleast_2d(a) for a in tree.query(points[left], count))
        apart = np.abs(times[index] - times[left][:, None]) > theiler
        found, first = apart.any(1), apart.argmax(1)
        rows = np.flatnonzero(found)
        near[left[rows]], distance[left[rows]] = index[rows, first[rows]], distances[rows, first[rows]]
        left, count = left[~found], 4 * count
    return near, distance


def _information(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    both = (a >= 0) & (b >= 0)
    if not both.any():
        return float("nan")
    p = np.bincount(a[both] * bins + b[both], minlength=bins * bins).reshape(bins, bins) / both.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0)
    filled = p > 0
    return float((p[filled] * np.log(p[filled] / independent[filled])).sum())


def _bins(x: np.ndarray) -> int:
    return int(np.clip(np.sqrt(np.isfinite(x).sum() / 10), 4, 64))


def _autoproducts(x: np.ndarray) -> np.ndarray:
    """`sum_t x_t x_{t+l}` for all lags, `[t, n]`."""
    size = 1 << (2 * len(x) - 1).bit_length()
    return np.fft.irfft(np.abs(np.fft.rfft(x, size, axis=0)) ** 2, size, axis=0)[: len(x)]


def _channel(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) < 8:
        raise ValueError(f"x must have shape [time], one channel with at least 8 samples: got {x.shape}.")
    return x
