"""Convex pieces of lines and planes, cut by hyperplanes: all of them at once.

Pieces are `[n, v, m]`: `n` segments (v = 2), or polygons whose vertices go around (v of 3 or more; one with fewer
repeats its last vertex).
"""

import numpy as np

SLACK = 1e-12
"""A vertex so near to a hyperplane, relative to its own size and the offset, lies on it: rounding makes no slivers."""


def distances(vertices: np.ndarray, normal: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """`normal z + offset` of vertices `[n, v, m]`, exactly 0 on the hyperplane: `[n, v]`.

    **Arguments:** `normal`: of length one, `[m]`, or one a piece, `[n, m]`; `offset`: a number, or `[n]`.
    """
    d = (vertices @ normal[..., None])[..., 0] + offset[..., None]
    scale = np.abs(vertices).max((1, 2), initial=0.0) + np.abs(offset)
    return np.where(np.abs(d) <= SLACK * scale[:, None], 0.0, d)


def clip(vertices: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The parts of pieces where `d` `[n, v]`, affine along each, is not negative: Sutherland & Hodgman 1974.

    Every piece must have a vertex there. A segment stays a segment, of two vertices; a polygon may get one more.
    """
    n, v, m = vertices.shape
    following = np.roll(vertices, -1, axis=1)
    after = np.roll(d, -1, axis=1)
    crossing = ((d > 0) & (after < 0)) | ((d < 0) & (after > 0))
    fresh = np.ones((n, v), bool)
    fresh[:, 1:] = (vertices[:, 1:] != vertices[:, :-1]).any(2)
    if v == 2:
        crossing[:, 1] = False
        fresh[:] = True
    share = np.divide(d, d - after, out=np.zeros_like(d), where=crossing)
    met = vertices + share[..., None] * (following - vertices)
    points = np.stack([vertices, met], axis=2).reshape(n, 2 * v, m)
    kept = np.stack([(d >= 0) & fresh, crossing], axis=2).reshape(n, 2 * v)
    count = kept.sum(1)
    width = 2 if v == 2 else max(3, int(count.max(initial=3)))
    order = np.argsort(~kept, axis=1, kind="stable")
    slot = np.minimum(np.arange(width), count[:, None] - 1)
    return np.take_along_axis(points, np.take_along_axis(order, slot, axis=1)[..., None], axis=1)


def split(vertices: np.ndarray, normal: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces cut in two where a hyperplane crosses them; the parts of a segment follow each other along it.

    **Returns:** the parts `[k, v', m]`; `parent` `[k]`: the piece that each is a part of; `above` `[k]`: whether it
    lies where `normal z + offset > 0`. A piece that lies in the hyperplane does not.
    """
    d = distances(vertices, normal, np.asarray(offset))
    above, below = np.any(d > 0, axis=1), np.any(d < 0, axis=1)
    both = above & below
    parent = np.repeat(np.arange(len(vertices)), 1 + both)
    first = np.ones(len(parent), bool)
    first[1:] = parent[1:] != parent[:-1]
    side = np.where(both[parent], (d[parent, 0] > 0) == first, above[parent])
    parts = vertices[parent]
    cut = both[parent]
    if cut.any():
        sign = np.where(side[cut], 1.0, -1.0)
        parts = replaced(parts, cut, clip(parts[cut], sign[:, None] * d[parent[cut]]))
    return parts, parent, side


def inside(
    vertices: np.ndarray, N: np.ndarray, n: np.ndarray, closed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The part of every piece that lies in a polyhedron `N z + n > 0`.

    **Arguments:** `vertices` `[k, v, m]`; `N` `[k, c, m]`, `n` `[k, c]`: the half-spaces of each piece, unit normals;
    `closed` `[k, c]`: whether a piece in the hyperplane itself belongs.

    **Returns:** the parts; `parent` `[k']`: the piece of each; whether anything was cut off or left out.
    """
    parent = np.arange(len(vertices))
    less = False
    for j in range(N.shape[1]):
        d = distances(vertices, N[parent, j], n[parent, j])
        room = (d > 0).any(1) | (closed[parent, j] & (d >= 0).all(1))
        less |= not room.all() or bool((d < 0).any())
        vertices, parent, d = vertices[room], parent[room], d[room]
        cut = np.any(d < 0, axis=1)
        if cut.any():
            vertices = replaced(vertices, cut, clip(vertices[cut], d[cut]))
    return vertices, parent, less


def replaced(vertices: np.ndarray, rows: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Pieces with some of them replaced by others, which may have another number of vertices."""
    width = max(vertices.shape[1], by.shape[1])
    vertices, by = (_widened(x, width) for x in (vertices, by))
    vertices[rows] = by
    return vertices


def _widened(vertices: np.ndarray, width: int) -> np.ndarray:
    """A copy with the last vertex repeated."""
    return vertices[:, np.minimum(np.arange(width), vertices.shape[1] - 1)]
