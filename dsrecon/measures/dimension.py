"""How many dimensions does the set fill that a series visits? The correlation sum and how it scales."""

from typing import NamedTuple

import numpy as np
import scipy

from dsrecon.measures.embedding import decorrelation_time

RADII = 96
"""Radii at which pairs are counted, evenly spaced in the logarithm, over a factor of `exp(12)`."""

LEAST_PAIRS = 100
"""Pairs from which on a count is trusted."""

LARGEST_SUM = 0.1
"""Correlation sum up to which a radius counts as small against the set."""

SPANS = (1.0, 2.0)
"""Ranges of `ln r` over which one local slope is fitted: the second where the first finds no scaling region."""

LEAST_RANGE = float(np.log(4))
"""Range of `ln r` that the centres of the slopes of a scaling region must span at least."""

TOLERANCE = 0.05
"""Farthest that a local slope may lie from the mean one of the region, relative to it."""

LEAST_SLOPE = 0.1
"""Slopes below this are held to `TOLERANCE` of it: a set of finitely many points has the dimension 0."""


class CorrelationDimension(NamedTuple):
    """A correlation dimension and what it was read from.

    - `dimension`, `error`: mean and standard deviation of the local slopes in the scaling region; NaN if there is none.
    - `radii` `[r]`, in the units of the values; `counts` `[r]`: pairs closer than that; `sums` `[r]`: their share.
    - `slopes` `[r]`: local slope `d ln C / d ln r` about each radius; NaN where too few radii are left to fit one.
    - `scaling`: least and largest radius of the scaling region, NaN if there is none.
    - `theiler`: pairs no farther apart in time than this were left out.
    - `reason`: in words, where the region is or why there is none.
    """

    dimension: float
    error: float
    radii: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    slopes: np.ndarray
    scaling: tuple[float, float]
    theiler: int
    reason: str


def correlation_dimension(values: np.ndarray, *, theiler: int | None = None) -> CorrelationDimension:
    """Correlation dimension `D_2`: the slope of `ln C(r)` over `ln r`, `C(r)` the share of pairs closer than `r`.

    `C(r) = #{(i, j): j - i > theiler, |x_i - x_j| < r} / #{(i, j): j - i > theiler}` with the Euclidean norm.

    The scaling region is the longest stretch of radii in which every local slope (a straight line over one unit of
    `ln r`) is within 5 % of their mean, among radii with at least 100 pairs and `C < 0.1`; it must span a factor of
    4. Where there is none, slopes over two units are tried (those of a Cantor set oscillate in `ln r`). Without such a
    stretch there is no dimension, and `reason` says so; nor is one told above `2 log10 t`, which t points cannot show.

    Realisations of 10^4 points scatter by 0.04 or so (Lorenz-63, truth 2.05: 2.07 to 2.13; Henon, 1.22: 1.19 to 1.22);
    `error` is of that size, but is the unevenness of the slopes, no standard error. Noise is of the space's full
    dimension below its own size: 5 % of it leaves no scaling region, or the wrong one, of a short series.

    A path of coloured noise has a finite dimension too: this is no test for chaos (`chaos_test` is one).

    **Arguments:** `values`: `[t, n]`, states or delay vectors in comparable units; points with a missing value (NaN)
    are left out; `theiler` in samples, by default three decorrelation times. Time grows as the pairs:
    a second or two at 10^4 points.

    **Returns:** `CorrelationDimension`.

    **Raises:** `ValueError` for another shape, fewer than 100 points, infinity, values that do not vary, or a
    `theiler` that is negative or leaves too few pairs.

    Reference: Grassberger & Procaccia 1983, *Measuring the strangeness of strange attractors*, Physica D 9, 189; pairs
    close in time: Theiler 1986, Physical Review A 34, 2427; the bound: Eckmann & Ruelle 1992, Physica D 56, 185.
    """
    x, times, theiler = _points(values, theiler)
    pairs = _pairs(times, theiler)
    tree = scipy.spatial.KDTree(x)
    radii = _largest(x) * np.geomspace(np.exp(-12), 1, RADII)
    counts = (tree.count_neighbors(tree, radii) - len(x)) // 2 - _close_in_time(x, times, theiler, radii)
    sums = counts / pairs
    for span in SPANS:
        slopes = _slopes(radii, counts, sums, span)
        region = _scaling(np.log(radii), slopes)
        if region is not None:
            break
    if region is None:
        nan, least = float("nan"), np.exp(LEAST_RANGE)
        reason = f"no scaling region: no slope is constant to {TOLERANCE:.0%} over a factor of {least:.3g} in radius"
        return CorrelationDimension(nan, nan, radii, counts, sums, slopes, (nan, nan), theiler, reason)
    inside = slopes[region]
    dimension, error = float(inside.mean()), float(inside.std())
    bounds = (float(radii[region][0]), float(radii[region][-1]))
    if dimension > 2 * np.log10(len(x)):
        reason = f"{len(x)} points cannot show a dimension of {dimension:.2f}, above 2 log10 of their number"
        dimension = error = float("nan")
    else:
        reason = f"slopes between radii {bounds[0]:.3g} and {bounds[1]:.3g}, a factor of {bounds[1] / bounds[0]:.3g}"
    return CorrelationDimension(dimension, error, radii, counts, sums, slopes, bounds, theiler, reason)


def _points(values: np.ndarray, theiler: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """The complete points, their times, and the window."""
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"values must have shape [time, variable]: got {x.shape}.")
    if np.isinf(x).any():
        raise ValueError("values must be finite or NaN (missing): they hold infinity.")
    times = np.flatnonzero(~np.isnan(x).any(1))
    if len(times) < 100:
        raise ValueError(f"values must hold at least 100 complete points: got {len(times)} of {len(x)}.")
    if not np.ptp(x[times], axis=0).any():
        raise ValueError("values must vary: every channel is constant.")
    theiler = 3 * decorrelation_time(x) if theiler is None else theiler
    if not 0 <= theiler < len(x) // 4:
        raise ValueError(
            f"theiler must lie between 0 and a quarter of the series, {len(x) // 4}: got {theiler} "
            "(by default three decorrelation times: the series is then too short)."
        )
    return x[times], times, theiler


def _largest(x: np.ndarray) -> float:
    """A radius with a correlation sum of about `2 LARGEST_SUM`, from the distances of some points to all."""
    some = x[:: max(1, len(x) // 200)]
    return float(np.quantile(scipy.spatial.distance.cdist(some, x), 2 * LARGEST_SUM))


def _pairs(times: np.ndarray, theiler: int) -> int:
    """Number of pairs more than `theiler` samples apart."""
    return int((len(times) - np.searchsorted(times, times + theiler, side="right")).sum())


def _close_in_time(x: np.ndarray, times: np.ndarray, theiler: int, radii: np.ndarray) -> np.ndarray:
    """Pairs at most `theiler` samples apart, closer than each radius."""
    counts = np.zeros(len(radii), np.int64)
    for apart in range(1, min(theiler, len(x) - 1) + 1):  # complete points: at least that many samples apart
        near = times[apart:] - times[:-apart] <= theiler
        distances = np.linalg.norm(x[apart:][near] - x[:-apart][near], axis=1)
        counts += np.searchsorted(np.sort(distances), radii, side="right")
    return counts


def _slopes(radii: np.ndarray, counts: np.ndarray, sums: np.ndarray, span: float) -> np.ndarray:
    """Slope of the straight line through `ln C` over the radii within `span / 2` of each, where all are trusted."""
    log_r = np.log(radii)
    half = int(span / 2 / (log_r[1] - log_r[0]))
    trusted = (counts >= LEAST_PAIRS) & (sums <= LARGEST_SUM)
    log_c = np.where(trusted, np.log(np.maximum(counts, 1)), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(log_c, 2 * half + 1)
    step = (np.arange(2 * half + 1) - half) * (log_r[1] - log_r[0])
    slopes = np.full(len(radii), np.nan)
    slopes[half : len(radii) - half] = windows @ step / (step @ step)
    return slopes


def _scaling(log_r: np.ndarray, slopes: np.ndarray) -> slice | None:
    """The longest stretch of slopes that are all within `TOLERANCE` of their mean; of equally long ones the evenest."""
    best, longest, evenest = None, LEAST_RANGE, np.inf
    for first in range(len(slopes)):
        for last in range(len(slopes), first + 1, -1):
            length = log_r[last - 1] - log_r[first]
            inside = slopes[first:last]
            if length < longest - 1e-9:
                break
            if np.isnan(inside[[0, -1]]).any():
                continue
            mean = inside.mean()
            spread = np.abs(inside - mean).max() / max(mean, LEAST_SLOPE)
            if spread <= TOLERANCE and (length > longest + 1e-9 or spread < evenest):
                best, longest, evenest = slice(first, last), length, spread
    return best
