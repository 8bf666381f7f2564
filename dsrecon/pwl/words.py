"""Which sequences of regions can an orbit pass through?"""

import dataclasses
from typing import Any

import numpy as np

from dsrecon._types import Inputs
from dsrecon.pwl.arrangement import LIMIT, regions, split
from dsrecon.pwl.box import Box, checked_box
from dsrecon.pwl.pieces import Pieces, pieces
from dsrecon.pwl.polyhedron import TOLERANCE, Ball, inner_ball


@dataclasses.dataclass(frozen=True)
class Words:
    """The admissible words of one length, complete.

    - `bits` `[w, L, p]`: the regions of each word, in order.
    - `starts` `[w, m]`: a state that an orbit through the word begins from, well inside.
    - `radius` `[w]`: of a ball around it from which all orbits pass through the word (at most 1): the slack.
    """

    bits: np.ndarray
    starts: np.ndarray
    radius: np.ndarray

    def __len__(self) -> int:
        return len(self.bits)


def words(cell: Any, length: int, s: Inputs = None, *, box: Any = None, limit: int = LIMIT) -> Words:
    """All words of `length` regions that an orbit can pass through: each the polyhedron of the states it begins from.

    `W(r_0 ... r_{L-1}) = {z_0: z_t in region r_t for all t < L}`, with `z_t = M_t z_0 + c_t` along the word, is an
    intersection of half-spaces; a linear programme gives the largest ball in it, and the word is admissible where its
    radius is above 1e-9: a strictly positive slack, so that words that only boundary points spell are not counted.
    Words grow letter by letter: of a word that is not admissible, no longer one is.

    `ln(number of words) / L` bounds the topological entropy of the itineraries from above.

    **Arguments:** `cell`, `s`: as `regions`; `length` L, at least 1; `box`: where `z_0` lies, a `Box` or pair (for a
    map of an interval, that interval); `limit` of words.

    **Returns:** `Words`. **Raises:** `ValueError` for a length below 1, and as `regions`.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}.")
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    m = found.state_size
    box = checked_box(box, m)
    regions(found, box=box, limit=limit)  # where there are too many it says so at once
    grown = [no_letter(found, box)]
    for _ in range(length):
        grown = longer(found, grown, limit)
    return Words(
        np.array([word.bits for word in grown], bool).reshape(len(grown), length, len(found.g)),
        np.array([word.ball.centre for word in grown]).reshape(len(grown), m),
        np.array([word.ball.radius for word in grown]),
    )


@dataclasses.dataclass(frozen=True)
class Grown:
    """A word, the half-spaces of its starts, and where it leads: `z_L = M z_0 + c`."""

    bits: np.ndarray
    N: np.ndarray
    n: np.ndarray
    M: np.ndarray
    c: np.ndarray
    ball: Ball


def no_letter(found: Pieces, box: Box | None) -> Grown:
    """The word of length 0: what others grow from."""
    m = found.state_size
    N, n = (np.zeros((0, m)), np.zeros(0)) if box is None else box.rows()
    return Grown(np.zeros((0, len(found.g)), bool), N, n, np.eye(m), np.zeros(m), Ball(0.0, np.zeros(m)))


def longer(found: Pieces, grown: list[Grown], limit: int, least: float = TOLERANCE) -> list[Grown]:
    """All words with one letter more whose starts hold a ball of radius `least` (negative: or come so near to it)."""
    G, g = found.G[found.moving], found.g[found.moving]
    more = []
    for word in grown:
        N, n = G @ word.M, G @ word.c + g
        bits, balls = split(word.N, word.n, N, n, limit=limit, least=least)
        letters = found.whole(bits)
        A, h = found.affine(letters)
        for i, ball in enumerate(balls):
            sign = np.where(bits[i], 1.0, -1.0)
            more.append(
                Grown(
                    np.concatenate([word.bits, letters[i : i + 1]]),
                    np.concatenate([word.N, sign[:, None] * N]),
                    np.concatenate([word.n, sign * n]),
                    A[i] @ word.M,
                    A[i] @ word.c + h[i],
                    ball,
                )
            )
        if len(more) > limit:
            raise ValueError(f"there are more admissible words than limit={limit:,} lets be listed.")
    return more


def word_polyhedron(found: Pieces, bits: np.ndarray, box: Box | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The starts of a word `[L, p]` as half-spaces `N z + n > 0`: `[c, m]` and `[c]`."""
    m = found.state_size
    N, n = (np.zeros((0, m)), np.zeros(0)) if box is None else box.rows()
    A, h = found.affine(bits)
    M, c = np.eye(m), np.zeros(m)
    rows, offsets = [N], [n]
    for t in range(len(bits)):
        N, n = found.rows(bits[t])
        rows.append(N @ M)
        offsets.append(N @ c + n)
        M, c = A[t] @ M, A[t] @ c + h[t]
    return np.concatenate(rows), np.concatenate(offsets)


def admissible(cell: Any, word: Any, s: Inputs = None, *, box: Any = None) -> Ball:
    """The largest ball of states from which orbits pass through a word: admissible where its radius is above 1e-9.

    **Arguments:** `cell`, `s`: as `regions`; `word`: bits `[L, p]`, a region a step; `box`: where `z_0` lies.

    **Returns:** `Ball(radius, centre)`: radius at most 1; zero or less: no orbit does (by how much the half-spaces miss
    each other). **Raises:** `ValueError` for a word of another shape.
    """
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    bits = np.asarray(word)
    if bits.ndim != 2 or bits.shape[1] != len(found.g) or not len(bits) or bits.dtype != bool:
        raise ValueError(
            f"word must be booleans [L, {len(found.g)}], a region a step: got {bits.dtype} of shape {list(bits.shape)}."
        )
    if (bits[:, ~found.moving] != found.fixed[~found.moving]).any():
        return Ball(-np.inf, np.zeros(found.state_size))
    N, n = word_polyhedron(found, bits, checked_box(box, found.state_size))
    return inner_ball(N, n, found.state_size)
