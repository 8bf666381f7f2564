"""A box that no orbit leaves."""

import math
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import scipy

from dsrecon._types import Inputs
from dsrecon.pwl.arrangement import LIMIT, VERTICES, regions, vertices
from dsrecon.pwl.box import Box, checked_box
from dsrecon.pwl.pieces import Pieces, pieces


class _Corners(NamedTuple):
    """The points in which gates alone meet, `[c, m]`, and their images."""

    z: np.ndarray
    image: np.ndarray


def image_box(cell: Any, box: Any, s: Inputs = None, *, limit: int = LIMIT) -> Box:
    """The smallest box around the image of a box: `min` and `max` of `A_r z + h_r` over its part in every region.

    Where gates look at single units the parts are boxes themselves, and the extremes are sums. Else the extremes of a
    continuous map lie in corners, where as many gates and sides of the box meet as there are units: these are gone
    through where they are few enough (a map that jumps at a corner is noticed). Else two linear programmes a unit and
    region.

    **Arguments:** `cell`, `s`, `limit`: as `regions`; `box`: a `Box` or pair `(low, high)`, `[m]` each.

    **Raises:** `ValueError` for an unbounded box, and as `regions`.
    """
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    inside = checked_box(box, found.state_size, "whose image is asked for")
    assert inside is not None
    return _image(found, inside, limit, _corners(found))


def _image(found: Pieces, inside: Box, limit: int, corners: _Corners | None) -> Box:
    if corners is not None:
        image = _of_corners(found, inside, corners)
        if image is not None:
            return image
    bits = regions(found, box=inside, limit=limit)
    A, h = found.affine(bits)
    if (np.count_nonzero(found.G[found.moving], axis=1) == 1).all():
        low, high = _cut(found, bits, inside)
        middle, half = (low + high) / 2, (high - low) / 2
        centre = np.einsum("rij,rj->ri", A, middle) + h
        reach = np.einsum("rij,rj->ri", np.abs(A), half)
        return Box((centre - reach).min(0), (centre + reach).max(0))
    ends = np.array([_extremes(found, *piece, inside) for piece in zip(bits, A, h, strict=True)])
    return Box(ends[:, 0].min(0), ends[:, 1].max(0))


def _cut(found: Pieces, bits: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The parts of a box in regions whose gates look at single units: `low` and `high`, `[r, m]`."""
    low, high = (np.repeat(side[None], len(bits), axis=0) for side in box)
    for j in np.flatnonzero(found.moving):
        i = int(np.argmax(found.G[j] != 0))
        above = bits[:, j] == (found.G[j, i] > 0)
        at = -found.g[j] / found.G[j, i]
        low[above, i] = np.maximum(low[above, i], at)
        high[~above, i] = np.minimum(high[~above, i], at)
    return low, high


def _corners(found: Pieces) -> _Corners | None:
    """All corners of regions; `None` where they are too many, or the map jumps at one of them."""
    G, g = found.G[found.moving], found.g[found.moving]
    m = found.state_size
    if (np.count_nonzero(G, axis=1) == 1).all() or math.comb(len(G) + 2 * m, m) > VERTICES:
        return None
    z = np.concatenate([np.zeros((0, m)), *(points for _, points in vertices(G, g))])
    image = _both_sides(found, z)
    return None if image is None else _Corners(z, image)


def _of_corners(found: Pieces, box: Box, inner: _Corners) -> Box | None:
    """The box around the images of all corners in a box: of regions, and where they meet its sides."""
    m = found.state_size
    outer = np.concatenate(
        [_on_sides(found, box, units) for j in range(1, m + 1) for units in combinations(range(m), j)]
    )
    images = _both_sides(found, outer)
    if images is None:
        return None
    images = np.concatenate([images, inner.image[box.holds(inner.z)]])
    return Box(images.min(0), images.max(0))


def _on_sides(found: Pieces, box: Box, units: tuple[int, ...]) -> np.ndarray:
    """The points of a box `[c, m]` that have these units at an end of the box, and where gates meet in the others."""
    m = found.state_size
    rest = [i for i in range(m) if i not in units]
    points = []
    for ends in product(box, repeat=len(units)):
        side = np.array([end[i] for end, i in zip(ends, units, strict=True)])
        if not rest:
            points.append(side[None, np.argsort(units)])
            continue
        G, g = found.G[:, rest], found.g + found.G[:, list(units)] @ side
        crossing = (G != 0).any(1)
        for _, z in vertices(G[crossing], g[crossing]):
            whole = np.empty((len(z), m))
            whole[:, rest], whole[:, list(units)] = z, side
            points.append(whole[Box(box.low[rest], box.high[rest]).holds(z)])
    return np.concatenate([np.zeros((0, m)), *points])


def _both_sides(found: Pieces, z: np.ndarray) -> np.ndarray | None:
    """Images of corners `[c, m]`; `None` where the maps of the gates' two sides differ there."""
    if not len(z):
        return np.zeros_like(z)
    value = z @ found.G.T + found.g
    near = 1e-9 * (1 + np.abs(z).max(1))[:, None] * np.linalg.norm(found.G, axis=1)
    shut, wide = (_mapped(found, z, value > sign * near) for sign in (1.0, -1.0))
    jump = np.abs(shut - wide).max(1) > 1e-6 * (1 + np.abs(shut).max(1))
    return None if jump.any() else shut


def _mapped(found: Pieces, z: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Images of states under the maps of the regions `bits` `[n, p]`, each region's map worked out once."""
    _, first, inverse = np.unique(np.packbits(bits, axis=1), axis=0, return_index=True, return_inverse=True)
    A, h = found.affine(bits[first])
    index = inverse.reshape(-1)
    return np.einsum("nij,nj->ni", A[index], z) + h[index]


def _extremes(found: Pieces, bits: np.ndarray, A: np.ndarray, h: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    N, n = found.rows(bits)
    bounds = list(zip(box.low, box.high, strict=True))
    ends = np.empty((2, len(h)))
    for i in range(len(h)):
        for side, sign in ((0, 1.0), (1, -1.0)):
            best = scipy.optimize.linprog(sign * A[i], A_ub=-N, b_ub=n, bounds=bounds, method="highs")
            if best.status != 0:
                raise RuntimeError(f"the linear programme of unit {i} failed: {best.message}")
            ends[side, i] = A[i] @ best.x + h[i]
    return ends[0], ends[1]


def invariant_box(cell: Any, start: Any, s: Inputs = None, *, most: int = 500, limit: int = LIMIT) -> Box:
    """A box that the map does not lead out of, `f(B) within B`: every orbit that begins in it stays in it.

    From `start` the box grows to hold its image (and a tenth of the growth more, so that it comes to an end), until the
    exact image lies inside.

    **Arguments:** `cell`, `s`, `limit`: as `regions`; `start`: a `Box` or pair to begin from, as `box_around` an orbit;
    `most`: how often it may grow.

    **Returns:** the box. **Raises:** `RuntimeError` when it grew to a million times its width, or `most` times, without
    holding its image: the map may still be bounded (an attractor need not fit a box of these axes), but that is not
    shown. `ValueError` for an unbounded box, and as `regions`.
    """
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    box = checked_box(start, found.state_size, "to begin from")
    assert box is not None
    width, corners = float((box.high - box.low).max()), _corners(found)
    for grown in range(most):
        image = _image(found, box, limit, corners)
        if (image.low >= box.low).all() and (image.high <= box.high).all():
            return box
        down, up = np.maximum(box.low - image.low, 0), np.maximum(image.high - box.high, 0)
        box = Box(box.low - 1.1 * down - 1e-12 * (down > 0), box.high + 1.1 * up + 1e-12 * (up > 0))
        if float((box.high - box.low).max()) > 1e6 * width:
            raise RuntimeError(
                f"no invariant box was found: from a width of {width:.3g} it grew to a million times that in "
                f"{grown + 1} steps. The map stretches some box of these axes at every step, or orbits diverge."
            )
    raise RuntimeError(f"no invariant box was found: it still grows after {most} steps (most).")
