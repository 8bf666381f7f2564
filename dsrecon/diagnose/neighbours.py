"""What the data say by themselves: of nearest neighbours, one is always in the other half of the stretch."""

import numpy as np
import scipy

from dsrecon.measures.attractor import d_h, d_stsp
from dsrecon.measures.gaps import filled
from dsrecon.measures.mixture import d_stsp_mixture

STARTS = 500
"""Neighbours asked for, at most."""

BIN_POINTS = 20
"""Points a bin: with fewer, a floor is as high as what a wrong attractor scores."""

LEAST_DISTANCE = 1e-4
"""What no distance is below: two stretches of one periodic series differ by less."""

STRETCH, APART = 15.0, 0.3
"""A neighbour is false when so many times further away later (Kennel et al. 1992), and so many standard deviations."""

NAN = float("nan")


def visits_apart(true: np.ndarray, other: np.ndarray) -> float:
    """By as many bins as the points can fill, so that a floor lies far below what a wrong attractor scores."""
    other = other[np.isfinite(other).all(1)]
    n = true.shape[1]
    if n > 5:
        found = d_stsp_mixture(true, other, samples=2000, points=5000)
        return max(found.value, found.standard_error, LEAST_DISTANCE)
    bins = int(np.clip((len(other) / BIN_POINTS) ** (1 / n), 4, 30))
    return max(d_stsp(true, other, bins=bins, definition="padded"), LEAST_DISTANCE)


def spectra_apart(true: np.ndarray, other: np.ndarray) -> float:
    """With the gaps of both."""
    gaps = np.isnan(true) | np.isnan(other)
    seen = (~gaps).sum(0) > 1
    true, other = (np.where(gaps, np.nan, v)[:, seen] for v in (true, other))
    return max(d_h(true, filled(other)), LEAST_DISTANCE) if seen.any() else NAN


def far_error(x: np.ndarray) -> float:
    """Error of neighbours a quarter of the series ahead, above that one step ahead."""
    half = len(x) // 2
    return neighbour_error(x[:half], x[half:], half // 2) - neighbour_error(x[:half], x[half:], 1)


def neighbour_error(reference: np.ndarray, asked: np.ndarray, steps: int) -> float:
    """Mean squared error of the futures of nearest neighbours, in squared units of `x`."""
    known, starts = (_paired(v, steps) for v in (reference, asked))
    if not len(known) or not len(starts):
        return NAN
    starts = starts[np.unique(np.linspace(0, len(starts) - 1, min(STARTS, len(starts))).astype(int))]
    near = known[np.asarray(scipy.spatial.KDTree(reference[known]).query(asked[starts])[1])]
    return float(((reference[near + steps] - asked[starts + steps]) ** 2).mean())


def divergence(x: np.ndarray, ahead: int) -> float:
    """Mean log growth a step of the distance of nearest neighbours, from one step after they met to `ahead` after."""
    half = len(x) // 2
    reference, asked = x[:half], x[half:]
    last = max(ahead, 2)
    known, starts = (_paired(v, last) for v in (reference, asked))
    if not len(known) or not len(starts):
        return NAN
    starts = starts[np.unique(np.linspace(0, len(starts) - 1, min(STARTS, len(starts))).astype(int))]
    near = known[np.asarray(scipy.spatial.KDTree(reference[known]).query(asked[starts])[1])]
    first, then = (np.linalg.norm(reference[near + k] - asked[starts + k], axis=1) for k in (1, last))
    seen = (first > 0) & (then > 0)
    return float(np.log(then[seen] / first[seen]).mean() / (last - 1)) if seen.any() else NAN


def false_share(x: np.ndarray, lag: int) -> float:
    """Share of neighbours at distance `R` that are `D > 15 max(R, its median)` and `D > .3` apart `lag` samples later.

    They are near in the coordinates only. The median keeps noise out, which no near neighbours survive.
    """
    half = len(x) // 2
    reference, asked = x[:half], x[half:]
    known, starts = (_paired(v, lag) for v in (reference, asked))
    if not len(known) or not len(starts):
        return NAN
    distance, near = scipy.spatial.KDTree(reference[known]).query(asked[starts])
    later = np.abs(reference[known[near] + lag] - asked[starts + lag]).max(1)
    return float(((later > STRETCH * np.maximum(distance, np.median(distance))) & (later > APART)).mean())


def _paired(x: np.ndarray, steps: int) -> np.ndarray:
    """Rows that are complete and so are those `steps` later."""
    seen = np.asarray(np.isfinite(x).all(1))
    return np.flatnonzero(seen[:-steps] & seen[steps:])


def structure(x: np.ndarray, residual: np.ndarray) -> float:
    """`1 - mean |r_t - r_near|^2 / (2 var r)`: 0 for residuals that are noise, 1 where the state foretells them."""
    seen = np.asarray(np.isfinite(x).all(1) & np.isfinite(residual).all(1))
    x, residual = x[seen], residual[seen]
    half = len(x) // 2
    if half < 2:
        return NAN
    near = np.asarray(scipy.spatial.KDTree(x[:half]).query(x[half:])[1])
    spread = 2 * residual.var(0).sum()
    return float(1 - ((residual[half:] - residual[near]) ** 2).sum(1).mean() / spread) if spread > 0 else 0.0
