"""The words of a map of one unit, letter by letter: each is an interval of starts, all of them in arrays."""

import dataclasses

import numpy as np

from dsrecon.pwl.box import Box
from dsrecon.pwl.pieces import Pieces
from dsrecon.pwl.polyhedron import TOLERANCE


@dataclasses.dataclass(frozen=True)
class Branches:
    """The pieces of a map of one unit, from left to right: `x' = slope x + offset` for `low < x < high`.

    `low`, `high`, `slope`, `offset`: `[r]`; `bits` `[r, p]`: the regions.
    """

    low: np.ndarray
    high: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    bits: np.ndarray

    def __len__(self) -> int:
        return len(self.low)


def branches(found: Pieces, box: Box | None = None) -> Branches:
    """The pieces of a map of one unit, on an interval or on all of the line; no two neighbours are the same region.

    **Raises:** `ValueError` for a map of more units.
    """
    if found.state_size != 1:
        raise ValueError(f"cell must be a map of one unit, of an interval: this one has {found.state_size} units.")
    low, high = (-np.inf, np.inf) if box is None else (float(box.low[0]), float(box.high[0]))
    cuts = np.unique(-found.g[found.moving] / found.G[found.moving, 0])
    cuts = cuts[(cuts > low) & (cuts < high)]
    left, right = np.r_[low, cuts], np.r_[cuts, high]
    bits = found.bits(_between(left, right)[:, None])
    A, h = found.affine(bits)
    return Branches(left, right, A[:, 0, 0], h[:, 0], bits)


def _between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A point well inside each interval, which may have no end."""
    whole = np.isinf(low) & np.isinf(high)
    low, high = np.where(whole, -1.0, low), np.where(whole, 1.0, high)
    low, high = np.where(np.isinf(low), high - 2, low), np.where(np.isinf(high), low + 2, high)
    return (low + high) / 2


@dataclasses.dataclass(frozen=True)
class Laps:
    """Words of one length: their starts are the intervals `low < x < high`, and `z_L = M x + c` there.

    `parent` `[w]`: the word of one letter less, by its number; `letter` `[w]`: the last one; `radius` `[w]`: half the
    width, at most 1; negative: by how much there is no such interval.
    """

    low: np.ndarray
    high: np.ndarray
    M: np.ndarray
    c: np.ndarray
    parent: np.ndarray
    letter: np.ndarray

    @property
    def radius(self) -> np.ndarray:
        return np.minimum(1.0, (self.high - self.low) / 2)


def no_lap(on: Branches) -> Laps:
    """The word of length 0."""
    low, high = np.array([on.low[0]]), np.array([on.high[-1]])
    none = np.zeros(1, int)
    return Laps(low, high, np.ones(1), np.zeros(1), none, none)


def longer_laps(on: Branches, words: Laps, least: float = -TOLERANCE) -> Laps:
    """All words with one letter more whose radius is at least `least`."""
    M, c = words.M[:, None], words.c[:, None]
    flat = M == 0
    with np.errstate(invalid="ignore"):
        ends = (np.stack([on.low, on.high])[:, None] - c) / np.where(flat, 1.0, M)
    first, last = np.minimum(*ends), np.maximum(*ends)
    inside = (c >= on.low) & (c <= on.high)  # of a word that leads to one point
    first, last = np.where(flat, np.where(inside, -np.inf, np.inf), first), np.where(flat, np.inf, last)
    low, high = np.maximum(words.low[:, None], first), np.minimum(words.high[:, None], last)
    kept = np.minimum(1.0, (high - low) / 2) >= least
    parent, letter = np.nonzero(kept)
    slope, offset = on.slope[letter], on.offset[letter]
    M, c = slope * words.M[parent], slope * words.c[parent] + offset
    return Laps(low[kept], high[kept], M, c, parent, letter)
