"""Where an unstable manifold meets a stable one: homoclinic and heteroclinic points."""

import dataclasses

import equinox as eqx
import numpy as np

from dsrecon.analysis.cycles import same_cycle
from dsrecon.analysis.found import Cycle
from dsrecon.analysis.manifolds import Manifold
from dsrecon.pwl import Pieces, regions

PARALLEL = 1e-12
"""Sine of the angle between two pieces below which they do not cross."""

_ENDS = 1e-12
_BLOCK = 64
_PAIRS = 1 << 21


@dataclasses.dataclass(frozen=True)
class Homoclinic:
    """Points of an unstable manifold and of a stable one.

    - `points` `[n, m]`, in order along the curve; `unstable_piece`, `stable_piece` `[n]`: the pieces they lie on.
    - `angle` `[n]`: between these, in radians: the crossing is transverse.
    - `ahead` `[n]`: the distance that its orbit comes to `target`, the cycle of the stable manifold, before rounding
      takes it away again; `behind` `[n]`: likewise of its backward orbit and `source`, the cycle of the unstable one;
      NaN where the map is not invertible, so that there is more than one such orbit.
    - `parallel`: pairs of pieces that lie in one line or plane where they touch, of which no point was taken.
    """

    points: np.ndarray
    unstable_piece: np.ndarray
    stable_piece: np.ndarray
    angle: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray
    source: Cycle
    target: Cycle
    parallel: int

    @property
    def heteroclinic(self) -> bool:
        """Whether the two cycles differ."""
        return self.source.period != self.target.period or not same_cycle(self.source, self.target)

    def __len__(self) -> int:
        return len(self.points)


def homoclinic_points(unstable: Manifold, stable: Manifold, *, steps: int = 100) -> Homoclinic:
    """Where an unstable manifold crosses a stable one; heteroclinic points where these are of two cycles.

    Exact, up to rounding: segment by segment in two dimensions (`u + x p = w + y q`), segment by polygon in three. The
    points of the cycles themselves are left out, and a crossing at a corner counts once. Of a cycle with one transverse
    homoclinic point near enough orbits are chaotic (Smale's horseshoe). That none is found says nothing of parts that
    the manifolds were not followed to.

    **Arguments:** `unstable`, `stable`: of one cell and input; `steps` that orbits are followed, forward and backward.

    **Returns:** `Homoclinic`. **Raises:** `ValueError` for manifolds that are given the wrong way round, are of two
    maps, or do not cross in points: their dimensions must be 1 and 1 in two units, 1 and 2 in three.

    Reference: Palis & Takens 1993, *Hyperbolicity and sensitive chaotic dynamics at homoclinic bifurcations*, Cambridge
    University Press; for piecewise-linear maps Eisenmann et al. 2025, arXiv:2510.03814.
    """
    m = _checked(unstable, stable)
    curve, other = (unstable, stable) if unstable.dimension == 1 else (stable, unstable)
    i, j = _near(curve.vertices, other.vertices)
    crossing = _segments if m == 2 else _polygons
    points, angle, where, hit, level = [np.zeros((0, m))], [np.zeros(0)], [np.zeros(0)], [np.zeros((2, 0), int)], 0
    for first in range(0, len(i), _PAIRS):
        a, b = i[first : first + _PAIRS], j[first : first + _PAIRS]
        x, on, sine, flat = crossing(curve.vertices[a], other.vertices[b])
        share = np.linalg.norm(x - curve.vertices[a[on], 0], axis=1)
        points.append(x)
        angle.append(np.arcsin(np.minimum(sine, 1.0)))
        where.append(share)
        hit.append(np.stack([a[on], b[on]]))
        level += flat
    z, pair = np.concatenate(points), np.concatenate(hit, axis=1)
    keep = _distinct(z, pair, np.concatenate(where), np.concatenate([unstable.cycle.points, stable.cycle.points]))
    z, pair, angle = z[keep], pair[:, keep], np.concatenate(angle)[keep]
    pair = pair if curve is unstable else pair[::-1]
    ahead = _nearest(unstable.map, z, stable.cycle, steps)
    behind = _nearest_behind(unstable.map, z, unstable, steps)
    return Homoclinic(z, pair[0], pair[1], angle, ahead, behind, unstable.cycle, stable.cycle, level)


def _checked(unstable: Manifold, stable: Manifold) -> int:
    if (unstable.direction, stable.direction) != ("unstable", "stable"):
        raise ValueError(
            "unstable and stable must be one unstable and one stable manifold: got "
            f"{unstable.direction!r} and {stable.direction!r}."
        )
    a, b = unstable.map, stable.map
    if not eqx.tree_equal((a.cell, a.s), (b.cell, b.s)):
        raise ValueError("unstable and stable must be manifolds of one cell with one input.")
    m = a.state_size
    dimensions = sorted((unstable.dimension, stable.dimension))
    if (m, dimensions) not in ((2, [1, 1]), (3, [1, 2])):
        raise ValueError(
            "manifolds must be two curves in 2 units, or a curve and a surface in 3, to cross in points: got "
            f"dimensions {unstable.dimension} (unstable) and {stable.dimension} (stable) in {m}."
        )
    return m


def _near(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pieces whose boxes meet: blocks of pieces that follow each other first, then their pieces."""
    lows, highs = zip(*((v.min(1), v.max(1)) for v in (a, b)), strict=True)
    slack = 1e-9 * max(float(np.abs(v).max(initial=0.0)) for v in (a, b))
    starts = [np.arange(0, len(v), _BLOCK) for v in (a, b)]
    if not all(map(len, starts)):
        return np.zeros(0, int), np.zeros(0, int)
    low = [np.minimum.reduceat(x, at) for x, at in zip(lows, starts, strict=True)]
    high = [np.maximum.reduceat(x, at) for x, at in zip(highs, starts, strict=True)]
    found = [np.zeros((2, 0), int)]
    offset = np.arange(_BLOCK)
    for k in range(len(starts[0])):
        blocks = ((low[0][k] <= high[1] + slack) & (high[0][k] >= low[1] - slack)).all(1)
        other = (starts[1][blocks][:, None] + offset).ravel()
        other = other[other < len(b)]
        mine = np.arange(starts[0][k], min(starts[0][k] + _BLOCK, len(a)))
        meet = (lows[0][mine, None] <= highs[1][other] + slack) & (highs[0][mine, None] >= lows[1][other] - slack)
        p, q = np.nonzero(meet.all(2))
        found.append(np.stack([mine[p], other[q]]))
    i, j = np.concatenate(found, axis=1)
    return i, j


def _segments(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Where segments `[k, 2, 2]` cross segments: points, of which pairs, sine of the angle; how many lie along."""
    p, q, gap = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0], b[:, 0] - a[:, 0]
    lengths = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    det = _cross(p, q)
    good = np.abs(det) > PARALLEL * lengths
    det = np.where(good, det, 1.0)
    x, y = _cross(gap, q) / det, _cross(gap, p) / det
    on = good & (x >= -_ENDS) & (x <= 1 + _ENDS) & (y >= -_ENDS) & (y <= 1 + _ENDS)
    along = ~good & (np.abs(_cross(gap, p)) <= 1e-9 * np.linalg.norm(p, axis=1) * (1e-300 + np.abs(a).max((1, 2))))
    return a[on, 0] + x[on, None] * p[on], on, np.abs(det[on]) / lengths[on], int(along.sum())


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _polygons(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Where segments `[k, 2, 3]` cross convex polygons `[k, v, 3]`: as `_segments`."""
    p = a[:, 1] - a[:, 0]
    spokes = b - b[:, :1]
    normal = np.cross(spokes[:, 1:-1], spokes[:, 2:]).sum(1)
    area = np.linalg.norm(normal, axis=1)
    thin = area <= 0
    normal = normal / np.where(thin, 1.0, area)[:, None]
    length = np.linalg.norm(p, axis=1)
    rise = (normal * p).sum(1)
    gap = (normal * (b[:, 0] - a[:, 0])).sum(1)
    good = np.abs(rise) > PARALLEL * length
    x = gap / np.where(good, rise, 1.0)
    z = a[:, 0] + x[:, None] * p
    edges = np.roll(b, -1, axis=1) - b
    turns = (np.cross(edges, z[:, None] - b) * normal[:, None]).sum(2)
    room = (turns >= -_ENDS * np.linalg.norm(edges, axis=2) * np.abs(b).max((1, 2))[:, None]).all(1)
    on = good & ~thin & room & (x >= -_ENDS) & (x <= 1 + _ENDS)
    along = ~good & ~thin & (np.abs(gap) <= 1e-9 * np.abs(a).max((1, 2)))
    return z[on], on, np.abs(rise[on]) / length[on], int(along.sum())


def _distinct(z: np.ndarray, pair: np.ndarray, share: np.ndarray, cycles: np.ndarray) -> np.ndarray:
    """Which points to keep, in order along the curve: each once, and none of the cycles'."""
    size = 1e-9 * (1 + float(np.abs(z).max(initial=0.0)))
    order = np.lexsort((share, pair[0]))
    off = np.abs(z[order][:, None] - cycles).max(2).min(1) > size
    order = order[off]
    _, first = np.unique(np.round(z[order] / size).astype(np.int64) // 2, axis=0, return_index=True)
    order = order[np.sort(first)]
    if len(order) > 1:  # two that rounding has put on both sides of a grid line follow each other
        close = np.abs(np.diff(z[order], axis=0)).max(1) <= size
        order = order[np.r_[True, ~close]]
    return order


def _nearest(found: Pieces, z: np.ndarray, cycle: Cycle, steps: int) -> np.ndarray:
    """The smallest distance of orbits from `z` `[n, m]` to a cycle."""
    best = _distance(z, cycle)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps if len(z) else 0):
            letters, where = np.unique(found.bits(z), axis=0, return_inverse=True)
            A, h = found.affine(letters)
            z = (A[where] @ z[..., None])[..., 0] + h[where]
            best = np.fmin(best, _distance(z, cycle))
    return best


def _nearest_behind(found: Pieces, z: np.ndarray, unstable: Manifold, steps: int) -> np.ndarray:
    """The smallest distance of backward orbits to the cycle; NaN from where there is not one state before."""
    letters = regions(found, box=unstable.box)
    A, h = found.affine(letters)
    regular = np.linalg.cond(A) < 1 / np.finfo(float).eps
    if not regular.all():
        return np.full(len(z), np.nan)
    inverse = np.linalg.inv(A)
    best = _distance(z, unstable.cycle)
    for _ in range(steps if len(z) else 0):
        before = np.einsum("rij,rnj->nri", inverse, z - h[:, None])
        here = (found.bits(before) == letters).all(2)
        best[here.sum(1) != 1] = np.nan
        z = before[np.arange(len(z)), here.argmax(1)]
        best = np.minimum(best, _distance(z, unstable.cycle))
    return best


def _distance(z: np.ndarray, cycle: Cycle) -> np.ndarray:
    return np.linalg.norm(z[:, None] - cycle.points, axis=2).min(1)
