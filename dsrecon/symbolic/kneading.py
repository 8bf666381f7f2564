"""Kneading: the itinerary of the turning point of a map of an interval, which says all others and the entropy."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from dsrecon._types import Inputs
from dsrecon.pwl import Pieces, checked_box, pieces
from dsrecon.pwl.laps import Branches, branches


class Kneading(NamedTuple):
    """The kneading sequence of a map with one turn.

    - `symbols` `[n]`: 0 to the left of the turn, 1 to its right, of `f(c), f^2(c), ...`.
    - `periodic`: whether `f^(n + 1)(c) = c`, exactly; the sequence ends there, before its turning point.
    - `turn`: `c`; `rises`: whether the map rises to the left of it.
    """

    symbols: np.ndarray
    periodic: bool
    turn: float
    rises: bool

    @property
    def text(self) -> str:
        """The sequence as it is written: "RLRRLC"."""
        return "".join("LR"[k] for k in self.symbols) + ("C" if self.periodic else "")

    @property
    def entropy(self) -> float:
        """Topological entropy of the map: `-ln t` of the smallest zero `t` of the kneading determinant in (0, 1).

        `D(t) = 1 + sum_k e_1 ... e_k t^k`, `e_k` the sign of the slope at `f^k(c)`, up to the end of the sequence; 0
        nats per step where it has no zero. The terms that are left out are below `t^n / (1 - t)`.

        Reference: Milnor & Thurston 1988, *On iterated maps of the interval*, Lecture Notes in Mathematics 1342.
        """
        rising = np.where((self.symbols == 0) == self.rises, 1.0, -1.0)
        coefficients = np.r_[1.0, np.cumprod(rising)]
        t = np.linspace(0, 1, 4 * len(coefficients) + 2000)[1:-1]
        at = np.flatnonzero(np.polynomial.polynomial.polyval(t, coefficients) <= 0)
        if not len(at) or at[0] == 0:
            return 0.0
        low, high = float(t[at[0] - 1]), float(t[at[0]])
        for _ in range(60):
            middle = (low + high) / 2
            above = np.polynomial.polynomial.polyval(middle, coefficients) > 0
            low, high = (middle, high) if above else (low, middle)
        return float(-np.log(high))

    def allows(self, symbols: Any) -> bool:
        """Whether a sequence occurs as an itinerary: no part of it comes after the kneading sequence.

        Of points beyond the image of the turn, which come from nowhere, nothing is said.

        **Arguments:** `symbols`: integers `[k]`, 0 and 1. **Raises:** `ValueError` for others.
        """
        word = np.asarray(symbols)
        if word.ndim != 1 or not word.size or word.dtype.kind not in "iu" or not np.isin(word, (0, 1)).all():
            raise ValueError(f"symbols must be integers [k], 0 and 1: got {word.dtype} of shape {list(word.shape)}.")
        highest = 1 if self.rises else -1
        signs = (1, -1) if self.rises else (-1, 1)
        return all(highest * order(word[i:], self.symbols, signs) <= 0 for i in range(len(word)))


def order(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray, signs: Sequence[int]) -> int:
    """Which of two itineraries belongs to the larger point: 1 the first, -1 the second, 0 where one begins the other.

    Itineraries are compared at the first place where they differ; the order is turned around once for every symbol
    before it whose piece falls.

    **Arguments:** `first`, `second`: symbols, numbered from left to right; `signs`: 1 or -1 for each symbol, whether
    its piece rises.
    """
    sign = 1
    for a, b in zip(first, second, strict=False):
        if a != b:
            return sign if a > b else -sign
        sign *= signs[int(a)]
    return 0


def kneading(cell: Any, box: Any = None, s: Inputs = None, *, length: int = 256) -> Kneading:
    """The kneading sequence of a continuous map of an interval with one turn: the itinerary of the turn's image.

    The orbit is followed in exact fractions, so that no step of it is lost to rounding: it is the sequence of the map
    that the float64 parameters make, whatever its length. (Of the golden mean rounded to
    16 digits the turn passes beside itself in three steps, where that of the golden mean returns: the entropies differ
    by as much as the slopes do.)

    **Arguments:** `cell`: an `AbstractPWLCell` of one unit, or what `pwl.pieces` gave; `box`: its interval (default:
    all of the line); `s`: its input, held; `length` of the sequence, at least 1.

    **Returns:** `Kneading`, shorter where the turn is periodic.

    **Raises:** `ValueError` for a map of more units, one that does not turn exactly once, one that jumps at its turn,
    or a length below 1.

    Reference: Milnor & Thurston 1988, *On iterated maps of the interval*, Lecture Notes in Mathematics 1342; Collet &
    Eckmann 1980, *Iterated maps on the interval as dynamical systems*.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}.")
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    on = branches(found, checked_box(box, found.state_size))
    turn = _turn(on)
    slopes, offsets, cuts = ([Fraction(x) for x in values.tolist()] for values in (on.slope, on.offset, on.high[:-1]))
    at = cuts[turn]
    x, symbols = slopes[turn] * at + offsets[turn], []
    for _ in range(length):
        if x == at:
            break
        symbols.append(int(x > at))
        piece = sum(x > cut for cut in cuts)
        x = slopes[piece] * x + offsets[piece]
    periodic = len(symbols) < length
    return Kneading(np.array(symbols, int), periodic, float(at), bool(on.slope[turn] > 0))


def _turn(on: Branches) -> int:
    """The number of the cut at which the map turns."""
    if (on.slope == 0).any():
        raise ValueError(f"cell must rise or fall on every piece: the slopes are {on.slope}.")
    turns = np.flatnonzero(np.diff(np.sign(on.slope)) != 0)
    if len(turns) != 1:
        raise ValueError(f"cell must turn exactly once on its interval: it turns {len(turns)} times.")
    at = on.high[:-1]
    left, right = on.slope[:-1] * at + on.offset[:-1], on.slope[1:] * at + on.offset[1:]
    jump = np.abs(left - right) > 1e-9 * (1 + np.abs(left))
    if jump.any():
        k = int(np.argmax(jump))
        raise ValueError(f"cell must be continuous: at {at[k]:.6g} it jumps from {left[k]:.6g} to {right[k]:.6g}.")
    return int(turns[0])
