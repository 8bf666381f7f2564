"""A box that no orbit leaves."""

import math
from typing import Any

import numpy as np
from scipy.optimize import linprog

from dsrecon._types import Inputs
from dsrecon.pwl.arrangement import LIMIT, VERTICES, regions, vertices
from dsrecon.pwl.box import Box, checked_box
from dsrecon.pwl.pieces import Pieces, pieces


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
    single = (np.count_nonzero(found.G[found.moving], axis=1) == 1).all()
    if not single and math.comb(int(found.moving.sum()) + 2 * found.state_size, found.state_size) <= VERTICES:
        image = _of_corners(found, inside)
        if image is not None:
            return image
    bits = regions(found, box=inside, limit=limit)
    A, h = found.affine(bits)
    if single:
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


def _of_corners(found: Pieces, box: Box) -> Box | None:
    """The box around the images of all corners in a box; `None` where the map jumps at one of them."""
    N, n = box.rows()
    G, g = np.concatenate([found.G[found.moving], N]), np.concatenate([found.g[found.moving], n])
    low, high = np.full(found.state_size, np.inf), np.full(found.state_size, -np.inf)
    slack = 1e-9 * (1 + np.maximum(np.abs(box.low), np.abs(box.high)))
    for _, z in vertices(G, g):
        z = z[Box(box.low - slack, box.high + slack).holds(z)]
        if not len(z):
            continue
        value = z @ found.G.T + found.g
        near = 1e-9 * (1 + np.abs(z).max()) * np.linalg.norm(found.G, axis=1)
        images = [_mapped(found, z, value > sign * near) for sign in (1.0, -1.0)]
        if np.abs(images[0] - images[1]).max() > 1e-6 * (1 + np.abs(images[0]).max()):
            return None
        low, high = np.minimum(low, images[0].min(0)), np.maximum(high, images[0].max(0))
    return Box(low, high)


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
            best = linprog(sign * A[i], A_ub=-N, b_ub=n, bounds=bounds, method="highs")
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
    width = float((box.high - box.low).max())
    for grown in range(most):
        image = image_box(found, box, limit=limit)
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
