"""Stable and unstable manifolds of cycles of a piecewise-linear map, piece by piece."""

import dataclasses
from typing import Any

import numpy as np

from dsrecon._checks import counted
from dsrecon._types import Inputs
from dsrecon.analysis.cut import inside, split
from dsrecon.analysis.found import Cycle
from dsrecon.analysis.germ import check_cycle, checked_reach, dimension_of, germ
from dsrecon.analysis.solve import SINGULAR
from dsrecon.pwl import Box, Pieces, pieces, regions

LIMIT = 100_000
"""Pieces that a manifold may have, unless told."""

_NUMBERS = 1 << 23


@dataclasses.dataclass(frozen=True)
class Manifold:
    """A part of the stable or unstable manifold of a cycle, as straight pieces.

    - `vertices` `[n, v, m]`: of `n` segments (v = 2), in order along the curve where the map is continuous; or of `n`
      convex polygons, one with fewer vertices than `v` repeating its last.
    - `point` `[n]`: the point of the cycle that each piece belongs to; its orbits, every k-th step, tend to that one.
    - `cycle`; `direction`: `"stable"` or `"unstable"`; `dimension`: 1 or 2; `steps`: how many were taken.
    - `box`: what lies beyond it was dropped; `skipped` `[r, p]`: regions with a singular map, whose preimages were left
      out; `why`: what is missing of these steps, in words; empty: nothing. `map`: the pieces of the cell.
    """

    vertices: np.ndarray
    point: np.ndarray
    cycle: Cycle
    direction: str
    dimension: int
    steps: int
    box: Box
    skipped: np.ndarray
    why: tuple[str, ...]
    map: Pieces

    @property
    def complete(self) -> bool:
        """Whether all that these steps lead to is in the list."""
        return not self.why

    def __len__(self) -> int:
        return len(self.vertices)

    def lines(self) -> list[np.ndarray]:
        """To be drawn: curves `[v, m]`, of pieces that follow each other and meet; or the outlines of polygons."""
        if self.dimension == 2:
            fresh = (self.vertices[:, 1:] != self.vertices[:, :-1]).any(2)
            return [v[np.r_[True, new]] for v, new in zip(self.vertices, fresh, strict=True)]
        first, last = self.vertices[:, 0], self.vertices[:, 1]
        near = 1e-9 * (1 + np.abs(self.vertices).max((1, 2), initial=0.0))
        apart = (np.abs(first[1:] - last[:-1]).max(1) > near[1:]) | (self.point[1:] != self.point[:-1])
        runs = np.split(np.arange(len(first)), np.flatnonzero(apart) + 1)
        return [np.concatenate([first[run], last[run[-1:]]]) for run in runs if len(run)]


def unstable_manifold(
    cell: Any, cycle: Any, s: Inputs = None, *, steps: int = 20, box: Any = None, limit: int = LIMIT
) -> Manifold:
    """The unstable manifold of a cycle: all states whose backward orbits tend to it, of dimension 1 or 2.

    Near the cycle it is a piece `S` of the unstable eigenspace. `f(S)` holds `S`; it is cut at the borders of regions,
    and every part taken on by `z' = A_r z + h_r`, `steps` times: exact, up to rounding, which grows along the manifold
    as it stretches, and shrinks across it.

    **Arguments:**

    - `cell`: an `AbstractPWLCell`; `cycle`: one of it, hyperbolic, with no point on a border; `s`: its input, held.
    - `steps`: of the map, from a piece that goes most of the way to the nearest border.
    - `box`: a `Box` or pair `(low, high)` that holds the cycle: parts beyond it are cut off, and not followed. Default:
      100 times the largest coordinate of the cycle (at least 1) to all sides.
    - `limit`: pieces. Before there are more the last full step is given back, and `why` says so.

    **Returns:** `Manifold`. **Raises:** `ValueError` for a cell that is not piecewise linear, and for a cycle that is
    virtual, on a border, not hyperbolic, of another cell, or whose manifold has not dimension 1 or 2.

    Reference: Eisenmann, Brändle, Monfared & Durstewitz 2025, *Detecting invariant manifolds in ReLU-based RNNs*,
    arXiv:2510.03814 (which samples the pieces); the cutting is ours.
    """
    _checked(steps, limit)
    found = pieces(cell, s)
    check_cycle(found, cycle)
    dimension = dimension_of(cycle, "unstable")
    reach = checked_reach(cycle, box)
    vertices = germ(found, cycle, reach, "unstable")
    point = np.arange(cycle.period)
    why, done = set(), 0
    while done < steps:
        taken = _forward(found, vertices, reach, limit)
        if taken is None:
            why.add(_too_many(done + 1, limit))
            break
        vertices, parent, less = taken
        point = (point[parent] + 1) % cycle.period
        if less:
            why.add(_BEYOND)
        done += 1
    none = np.zeros((0, len(found.g)), bool)
    return Manifold(vertices, point, cycle, "unstable", dimension, done, reach, none, tuple(sorted(why)), found)


def stable_manifold(
    cell: Any, cycle: Any, s: Inputs = None, *, steps: int = 20, box: Any = None, limit: int = LIMIT
) -> Manifold:
    """The stable manifold of a cycle: all states whose orbits tend to it, of dimension 1 or 2.

    Near the cycle it is a piece `S` of the stable eigenspace. Its preimage holds it: in every region
    `z = A_r^-1 (z' - h_r)`, kept where it lies in `r`; taken `steps` times. A map that is not invertible gives several
    branches. In a region whose map is singular a preimage is no piece of the same dimension: it is skipped, and said.

    **Arguments:** as `unstable_manifold`. Regions that do not meet the `box` are not gone through.

    **Returns:** `Manifold`. **Raises:** `ValueError` as `unstable_manifold`; where there are more regions than can be
    listed; and where a region of the cycle itself has a singular map.

    Reference: as `unstable_manifold`.
    """
    _checked(steps, limit)
    found = pieces(cell, s)
    check_cycle(found, cycle)
    dimension = dimension_of(cycle, "stable")
    reach = checked_reach(cycle, box)
    letters = regions(found, box=reach)
    A, h = found.affine(letters)
    value = np.linalg.svd(A, compute_uv=False)
    regular = value[:, -1] > SINGULAR * value[:, 0]
    skipped = letters[~regular]
    if (skipped[:, None] == cycle.word).all(2).any():
        raise ValueError("cycle must lie in regions whose maps are invertible: that of one of its points is singular.")
    inverse = _Inverse(found, letters[regular], np.linalg.inv(A[regular]), h[regular], reach)
    vertices = germ(found, cycle, reach, "stable")
    point = np.arange(cycle.period)
    why, done = set(), 0
    if len(skipped):
        why.add(f"preimages in {len(skipped)} of {len(letters)} regions were left out: their maps are singular")
    while done < steps:
        taken = _backward(inverse, vertices, limit)
        if taken is None:
            why.add(_too_many(done + 1, limit))
            break
        vertices, parent, less = taken
        point = (point[parent] - 1) % cycle.period
        if less:
            why.add(_BEYOND)
        done += 1
    return Manifold(vertices, point, cycle, "stable", dimension, done, reach, skipped, tuple(sorted(why)), found)


_BEYOND = "parts beyond the box were dropped, and what becomes of them is not followed"


def _too_many(step: int, limit: int) -> str:
    return f"step {step} would give more than limit={limit:,} pieces"


def _checked(steps: int, limit: int) -> None:
    counted("steps", steps)
    counted("limit", limit)


def _forward(found: Pieces, vertices: np.ndarray, box: Box, limit: int) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """The images of pieces, in the box; of which piece each is a part, and whether any left. `None`: too many."""
    moving = np.flatnonzero(found.moving)
    length = np.linalg.norm(found.G[moving], axis=1)
    bits = np.zeros((len(vertices), len(moving)), bool)
    parent = np.arange(len(vertices))
    for j, (i, unit) in enumerate(zip(moving, length, strict=True)):
        vertices, origin, bits_j = split(vertices, found.G[i] / unit, float(found.g[i] / unit))
        parent, bits = parent[origin], bits[origin]
        bits[:, j] = bits_j
        if len(vertices) > limit:
            return None
    letters, where = np.unique(bits, axis=0, return_inverse=True)
    A, h = found.affine(found.whole(letters))
    vertices = vertices @ A[where].swapaxes(1, 2) + h[where][:, None]
    N, n = box.rows()
    shape = (len(vertices), *n.shape)
    rows = np.broadcast_to(N, (*shape, N.shape[1])), np.broadcast_to(n, shape), np.ones(shape, bool)
    vertices, origin, less = inside(vertices, *rows)
    return vertices, parent[origin], less


class _Inverse:
    """The maps of all regions, backward: inverse matrices, offsets, and the half-spaces that an image is kept in."""

    def __init__(self, found: Pieces, bits: np.ndarray, inverse: np.ndarray, h: np.ndarray, box: Box):
        self.inverse, self.h = inverse, h
        N, n = found.rows(bits)
        sides, offsets = box.rows()
        self.gates = n.shape[1]
        self.N = np.concatenate([N, np.broadcast_to(sides, (len(bits), *sides.shape))], axis=1)
        self.n = np.concatenate([n, np.broadcast_to(offsets, (len(bits), len(offsets)))], axis=1)
        self.closed = np.concatenate([~bits[:, found.moving], np.ones((len(bits), len(offsets)), bool)], axis=1)


def _backward(maps: _Inverse, vertices: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """The preimages of pieces, in the box; of which piece each is one, and whether any left. `None`: too many."""
    count, v, m = vertices.shape
    size = max(1, _NUMBERS // max(1, count * v * (m + maps.N.shape[1])))
    parts, total = [], 0
    less = False
    for first in range(0, len(maps.h), size):
        chunk = slice(first, first + size)
        region, parent = _candidates(maps, vertices, chunk)
        back = (vertices[parent] - maps.h[region][:, None]) @ maps.inverse[region].swapaxes(1, 2)
        rows = maps.N[region], maps.n[region], maps.closed[region]
        home, origin, _ = inside(back, *(x[:, : maps.gates] for x in rows))
        rows = (x[origin][:, maps.gates :] for x in rows)
        kept, again, left = inside(home, *rows)
        less |= left
        origin = origin[again]
        start = np.abs(kept[:, 0] - back[origin, 0]).max(1) if v == 2 else np.zeros(len(kept))
        span = np.abs(back[origin, 1] - back[origin, 0]).max(1) if v == 2 else np.ones(len(kept))
        parts.append((kept, parent[origin], start / np.where(span > 0, span, 1.0)))
        total += len(kept)
        if total > limit:
            return None
    width = max((part[0].shape[1] for part in parts), default=v)
    if not total:
        return np.zeros((0, width, m)), np.zeros(0, int), less
    slots = [np.minimum(np.arange(width), part[0].shape[1] - 1) for part in parts]
    found = np.concatenate([part[0][:, slot] for part, slot in zip(parts, slots, strict=True)])
    parent, start = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    order = np.lexsort((start, parent))
    return found[order], parent[order], less


def _candidates(maps: _Inverse, vertices: np.ndarray, chunk: slice) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of region and piece whose preimage does not miss the region by one of its gates alone."""
    inverse, h = maps.inverse[chunk], maps.h[chunk]
    count, v, m = vertices.shape
    back = (vertices.reshape(-1, m) - h[:, None]) @ inverse.swapaxes(1, 2)
    N, n = maps.N[chunk, : maps.gates], maps.n[chunk, : maps.gates]
    d = back @ N.swapaxes(1, 2) + n[:, None]
    highest = d.reshape(len(h), count, v, maps.gates).max(2)
    size = np.abs(back).reshape(len(h), count, -1).max(2)[..., None] + np.abs(n)[:, None]
    region, parent = np.nonzero((highest >= -1e-9 * size).all(2))
    return region + (chunk.start or 0), parent
