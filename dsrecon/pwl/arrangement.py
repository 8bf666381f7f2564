"""Into which regions do the gates cut the space of states? All of them, each once."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dsrecon._types import Inputs
from dsrecon.cell import AbstractPWLFlow
from dsrecon.pwl.box import Box, checked_box
from dsrecon.pwl.pieces import Pieces, field_pieces, pieces
from dsrecon.pwl.polyhedron import TOLERANCE, Ball, inner_ball

LIMIT = 1 << 20
"""Regions that a complete list may hold, unless told."""

VERTICES = 2_000_000
"""Intersections of hyperplanes that are gone through, at most."""

_ROUNDING = 1e-10
_SMALL = 1e-4


def regions(cell: Any, s: Inputs = None, *, box: Any = None, limit: int = LIMIT) -> np.ndarray:
    """All regions of a piecewise-linear cell that have an interior, complete.

    `{z: sign(G z + g) = r}`, an intersection of half-spaces, for every sign pattern `r` that it is not empty for. Of
    `p` hyperplanes in general position in `d` dimensions there are `sum_{i <= d} C(p, i)`; where gates look at single
    units, or are independent of each other, all patterns are told without a search. Else they are read off the
    vertices, in each of which `d` gates meet (and where more meet, off the arrangement around it), or, where these are
    too many, gate by gate with a linear programme for every side that is not seen to have room.

    **Arguments:**

    - `cell`: an `AbstractPWLCell` or `AbstractPWLFlow`, or what `pieces` gave; `s`: its input, held.
    - `box`: a `Box` or pair `(low, high)`: only regions that meet its interior. Default: all of space.
    - `limit`: how many may be listed.

    **Returns:** which gates are open, bits `[r, p]`.

    **Raises:** `ValueError` for a cell that is not piecewise linear, an unbounded box, or more than `limit` regions
    (then the number, or what it is above, is told).
    """
    take = field_pieces if isinstance(cell, AbstractPWLFlow) else pieces
    found = cell if isinstance(cell, Pieces) else take(cell, s)
    box = checked_box(box, found.state_size)
    G, g = found.G[found.moving], found.g[found.moving]
    if len(G) == 0:
        bits = np.zeros((1, 0), bool)
    elif (np.count_nonzero(G, axis=1) == 1).all():
        bits = _by_units(G, g, box, limit)
    else:
        bits = _searched(G, g, box, limit)
    return found.whole(bits)


def _searched(G: np.ndarray, g: np.ndarray, box: Box | None, limit: int) -> np.ndarray:
    q, m = G.shape
    rank = int(np.linalg.matrix_rank(G))
    if box is None and 2**rank > limit:
        raise too_many(f"at least 2^{rank}", limit)
    if box is None and rank == q:
        return patterns(q)
    basis = np.linalg.svd(G)[2][:rank].T  # of the directions in which any gate changes
    if box is None and math.comb(q, rank) <= VERTICES:
        return _few(arrangement(G @ basis, g), limit)
    if box is not None and rank == m and math.comb(q + 2 * m, m) <= VERTICES:
        N, n = box.rows()
        bits = arrangement(np.concatenate([G, N]), np.concatenate([g, n]))
        return _few(bits[bits[:, q:].all(1)][:, :q], limit)
    N, n = (np.zeros((0, m)), np.zeros(0)) if box is None else box.rows()
    return split(N, n, G, g, limit=limit)[0]


def patterns(q: int) -> np.ndarray:
    """All `2^q` patterns of `q` bits."""
    return (np.arange(1 << q)[:, None] >> np.arange(q)[::-1] & 1).astype(bool)


def too_many(count: str, limit: int) -> ValueError:
    """The error of a list that would be too long."""
    return ValueError(f"cell has {count} regions, more than limit={limit:,} lets be listed.")


def _few(bits: np.ndarray, limit: int) -> np.ndarray:
    if len(bits) > limit:
        raise too_many(f"{len(bits):,}", limit)
    return bits


def _by_units(G: np.ndarray, g: np.ndarray, box: Box | None, limit: int) -> np.ndarray:
    """Gates that look at one unit each: the product of the intervals of all units."""
    unit = np.argmax(G != 0, axis=1)
    sides = []
    for i in np.unique(unit):
        mine = np.flatnonzero(unit == i)
        low, high = (-np.inf, np.inf) if box is None else (float(box.low[i]), float(box.high[i]))
        sides.append((mine, _line(G[mine, i], g[mine], low, high)))
    count = math.prod(len(side) for _, side in sides)
    if count > limit:
        raise too_many(f"2^{round(math.log2(count), 1):g}", limit)
    bits = np.empty((count, len(G)), bool)
    index = np.indices([len(side) for _, side in sides]).reshape(len(sides), -1)
    for row, (mine, side) in zip(index, sides, strict=True):
        bits[:, mine] = side[row]
    return bits


def _line(G: np.ndarray, g: np.ndarray, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """The bits of gates `G x + g > 0` on the intervals between their zeros, of a line or a part of it."""
    cuts = np.sort(-g / G)
    cuts = cuts[np.diff(cuts, prepend=-np.inf) > _ROUNDING * (1 + np.abs(cuts))]
    cuts = cuts[(cuts > low) & (cuts < high)]
    ends = np.r_[low if np.isfinite(low) else min(cuts.min(initial=0.0), high) - 1, cuts]
    ends = np.r_[ends, high if np.isfinite(high) else max(cuts.max(initial=0.0), ends[0]) + 1]
    middle = (ends[:-1] + ends[1:]) / 2
    return middle[:, None] * G + g > 0


def arrangement(G: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The cells of hyperplanes `G z + g = 0` of full rank, by their vertices: bits `[r, q]`.

    Every cell has a vertex, since the hyperplanes have full rank. Around one in which `d` of them meet all `2^d`
    patterns of these occur; around one in which more meet, those of the hyperplanes through it alone.
    """
    q, d = G.shape
    if d == 1:
        return np.unique(_line(G[:, 0], g), axis=0)
    G, g = G / np.linalg.norm(G, axis=1)[:, None], g / np.linalg.norm(G, axis=1)
    simple = patterns(d)
    packed, crowded = [], []
    for index, z in vertices(G, g):
        value = z @ G.T + g
        on = np.abs(value) <= _ROUNDING * (1 + np.abs(z).max(1, initial=0))[:, None]
        on[np.arange(len(index))[:, None], index] = True
        many = on.sum(1) > d
        crowded.append(np.concatenate([on[many], value[many] > 0], axis=1))
        around = np.repeat((value > 0)[~many][:, None], len(simple), axis=1)
        np.put_along_axis(around, np.repeat(index[~many][:, None], len(simple), axis=1), simple[None], axis=2)
        packed.append(_distinct(np.packbits(around.reshape(-1, q), axis=1)))
    for row in _distinct(np.packbits(np.concatenate(crowded), axis=1)):
        on, value = np.split(np.unpackbits(row, count=2 * q).astype(bool), 2)
        local = _around(G[on])
        bits = np.repeat(value[None], len(local), axis=0)
        bits[:, on] = local
        packed.append(np.packbits(bits, axis=1))
    return np.unpackbits(_distinct(np.concatenate(packed)), axis=1, count=q).astype(bool)


def vertices(G: np.ndarray, g: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The points in which `d` hyperplanes meet, in chunks: which they are `[n, d]`, and the points `[n, d]`."""
    q, d = G.shape
    length = np.linalg.norm(G, axis=1)
    G, g = G / length[:, None], g / length
    combinations = itertools.combinations(range(q), d)
    while chunk := list(itertools.islice(combinations, 20_000)):
        index = np.array(chunk)
        index = index[np.abs(np.linalg.det(G[index])) > _ROUNDING]
        yield index, np.linalg.solve(G[index], -g[index][..., None])[..., 0]


def _around(G: np.ndarray) -> np.ndarray:
    """The cells of hyperplanes through one point: those that meet a plane beside it, and their mirror images."""
    d = G.shape[1]
    normal = np.random.default_rng(0).normal(size=d)
    normal /= np.linalg.norm(normal)
    basis = np.linalg.svd(normal[None])[2][1:].T
    met = arrangement(G @ basis, G @ normal)
    return np.unique(np.concatenate([met, ~met]), axis=0)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """The different rows of bytes `[r, c]`."""
    if not len(rows):
        return rows
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).reshape(-1)
    return np.unique(whole).view(np.uint8).reshape(-1, rows.shape[1])


def split(
    N: np.ndarray, n: np.ndarray, G: np.ndarray, g: np.ndarray, *, limit: int, least: float = TOLERANCE
) -> tuple[np.ndarray, list[Ball]]:
    """The patterns of the gates `G z + g` in the polyhedron `N z + n > 0`, and a ball in each.

    Gate by gate, depth first in no more memory than the answer takes. A side that holds a part of a ball that is known
    needs no linear programme.

    **Arguments:** `N` `[c, m]`, `n` `[c]`; `G` `[q, m]`, `g` `[q]`; `limit` of patterns; `least`: radius from which a
    pattern is taken. **Returns:** bits `[r, q]` and `r` balls (in the patterns; not always the largest).
    """
    size = N.shape[1]
    first = inner_ball(N, n, size)
    if first.radius < least:
        return np.zeros((0, len(G)), bool), []
    length = np.linalg.norm(G, axis=1)
    length = np.where(length > 0, length, 1.0)
    G, g = G / length[:, None], g / length
    done: list[tuple[tuple[bool, ...], Ball]] = []
    stack: list[tuple[tuple[bool, ...], Ball]] = [((), first)]
    while stack:
        bits, ball = stack.pop()
        i = len(bits)
        if i == len(G):
            done.append((bits, ball))
            if len(done) > limit:
                raise too_many(f"more than {limit:,}", limit)
            continue
        here = float(G[i] @ ball.centre + g[i])
        for side in (True, False):
            sign = 1.0 if side else -1.0
            part = _part(ball, sign * here, sign * G[i])
            if part.radius < _SMALL:
                signs = np.where((*bits, side), 1.0, -1.0)
                rows = (signs[:, None] * G[: i + 1], signs * g[: i + 1])
                part = inner_ball(np.concatenate([N, rows[0]]), np.concatenate([n, rows[1]]), size)
            if part.radius >= least:
                stack.append(((*bits, side), part))
    return np.array([bits for bits, _ in done], bool).reshape(len(done), len(G)), [ball for _, ball in done]


def _part(ball: Ball, here: float, normal: np.ndarray) -> Ball:
    """The largest ball in the part of a ball that lies where `here + normal (z - centre) > 0`."""
    if here >= ball.radius:
        return ball
    return Ball((ball.radius + here) / 2, ball.centre + normal * ((ball.radius - here) / 2))
