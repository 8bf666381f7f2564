"""All fixed points and cycles of a piecewise-linear map, with a certificate of what was searched."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dsrecon._checks import counted
from dsrecon._types import Inputs
from dsrecon.analysis.found import Certificate, Cycle, Found
from dsrecon.analysis.letters import count, necklaces, smallest
from dsrecon.analysis.solve import ROUNDING, is_primitive, refined, singular_set, solve_words
from dsrecon.pwl import TOLERANCE, Box, Pieces, checked_box, pieces, regions
from dsrecon.pwl.words import longer, no_letter

LIMIT = 2_000_000
"""Words whose equation is solved in one search, unless told."""

_BYTES = 1 << 26


def fixed_points(cell: Any, s: Inputs = None, *, box: Any = None, virtual: bool = False, limit: int = LIMIT) -> Found:
    """All fixed points of a piecewise-linear map: `z = (I - A_r)^{-1} h_r` of every region `r`, if it lies in `r`.

    `cycles(cell, 1)`; see there. With `virtual=True` the solutions that lie outside their regions are listed too.
    """
    return cycles(cell, 1, s, box=box, virtual=virtual, limit=limit)


def cycles(
    cell: Any, longest: int, s: Inputs = None, *, box: Any = None, virtual: bool = False, limit: int = LIMIT
) -> Found:
    """All cycles of a piecewise-linear map up to a period, complete.

    Along a word of regions `r_0 ... r_{k-1}` the map is affine, `z_k = M z_0 + c`, and has one cycle,
    `z_0 = (I - M)^{-1} c`. It is one of the cell where every point lies in its region; else it is virtual. Every word,
    up to rotation, is solved. Where these are more than `limit`, only the admissible ones are, that some state's orbit
    passes through: they are grown letter by letter, by linear programmes (`pwl.words`), touching borders included.

    **Arguments:**

    - `cell`: an `AbstractPWLCell`; `s`: its input, the same in every step.
    - `longest`: the longest period, at least 1.
    - `box`: a `Box` or pair `(low, high)`: only cycles all of whose points lie in it. Default: all of space.
    - `virtual`: list the virtual fixed points too (not the virtual cycles, which are countless).
    - `limit`: regions, and words of one period, that are gone through.

    **Returns:** `Found`: cycles with eigenvalues and kinds, by period and then by margin; lines and planes of solutions
    where the equation is singular; the certificate. A cycle with a point on a border is listed once, under the word
    whose gates are closed there.

    **Raises:** `ValueError` for a cell that is not piecewise linear, `longest` below 1, an unbounded box, and where
    there are more regions or words than `limit`: `find_cycles` searches then, without a certificate.

    Reference: Eisenmann, Monfared, Göring & Durstewitz 2023, *Bifurcations and loss jumps in RNN training*, NeurIPS
    (for many regions, by a heuristic); the complete search is ours.
    """
    checked_period(longest)
    found = pieces(cell, s)
    inside = checked_box(box, found.state_size)
    try:
        letters = regions(found, box=inside, limit=limit)
    except ValueError as error:
        raise _refused(str(error)) from error
    search = _Search(found, letters, inside, limit)
    for k in range(1, longest + 1):
        search.period(k, virtual and k == 1)
    certificate = Certificate(
        True, longest, len(letters), len(found.g), search.solved, search.excluded, search.outside,
        search.singular_words, inside, ROUNDING,
    )  # fmt: skip
    return Found(ordered(search.cycles), tuple(search.singular), certificate, tuple(search.virtual))


def checked_period(longest: int) -> None:
    """**Raises** `ValueError` unless it is a period, a whole number from 1 on."""
    counted("longest, a period,", longest)


class OutOfReach(ValueError):
    """There is more to go through than a complete search is let."""


def _refused(reason: str) -> OutOfReach:
    return OutOfReach(
        f"{reason.rstrip('.')}: a complete search is out of reach. `find_cycles` looks for them by a heuristic, "
        "without a certificate; a box leaves fewer."
    )


def ordered(cycles: Iterable[Cycle]) -> tuple[Cycle, ...]:
    """Each cycle once, by period and margin."""
    kept: list[Cycle] = []
    for cycle in sorted(cycles, key=lambda c: (c.period, 0.0 if c.border else -c.margin, c.word.sum())):
        if not any(same_cycle(cycle, other) for other in kept if other.period == cycle.period):
            kept.append(cycle)
    return tuple(kept)


def same_cycle(a: Cycle, b: Cycle, tolerance: float = 1e-8) -> bool:
    """Whether two cycles have the same points (the first of them may differ), relative to their size."""
    size = 1 + np.abs(a.points).max()
    first = np.abs(b.points - a.points[0]).max(1)
    shift = int(first.argmin())
    return bool(np.abs(np.roll(b.points, -shift, axis=0) - a.points).max() <= tolerance * size)


class _Search:
    """A complete search as it goes."""

    def __init__(self, found: Pieces, letters: np.ndarray, box: Box | None, limit: int):
        self.found, self.letters, self.box, self.limit = found, letters, box, limit
        self.A, self.h = found.affine(letters)
        self.cycles: list[Cycle] = []
        self.virtual: list[Cycle] = []
        self.singular: list = []
        self.solved: dict[int, int] = {}
        self.excluded: dict[int, int] = {}
        self.outside = self.singular_words = 0
        self._grown = [no_letter(found, box)]

    def period(self, k: int, virtual: bool) -> None:
        """All cycles of period `k`."""
        every, self.solved[k] = count(len(self.letters), k), 0
        for words in self._words(k, every):
            self.solved[k] += len(words)
            self._solve(words, virtual)
        self.excluded[k] = every - self.solved[k]

    def _words(self, k: int, every: int) -> Iterator[np.ndarray]:
        """All words of `k` letters, or, where these are too many, those that some orbit passes through."""
        if every <= self.limit and len(self.letters) ** k < 1 << 40:
            yield from necklaces(len(self.letters), k)
            return
        found, number = self.found, {bits.tobytes(): i for i, bits in enumerate(self.letters)}
        try:
            while len(self._grown[0].bits) < k:
                self._grown = longer(found, self._grown, k * self.limit, -TOLERANCE)
        except ValueError as error:
            raise _refused(f"there are {every:,} words of {k} of the {len(number):,} regions, and {error}") from error
        spelled = np.array([[number.get(bits.tobytes(), -1) for bits in word.bits] for word in self._grown], int)
        spelled = spelled.reshape(-1, k)
        spelled = spelled[(spelled >= 0).all(1)]
        yield spelled[smallest(spelled, len(number))]

    def _solve(self, words: np.ndarray, virtual: bool) -> None:
        m, k = self.found.state_size, words.shape[1]
        size = max(1, _BYTES // (8 * k * m * m))
        on_borders = [c for c in self.cycles if c.border]
        for first in range(0, len(words), size):
            index = words[first : first + size]
            bits = self.letters[index]
            solved = solve_words(self.found, self.A[index], self.h[index], bits)
            kept = []
            for i in solved.near:
                cycle = refined(self.found, bits[i])
                if not (cycle.real and is_primitive(cycle)):
                    continue
                if self.box is not None and not self.box.holds(cycle.points).all():
                    continue
                kept.append(i)
                if not any(same_cycle(cycle, c) for c in on_borders if c.period == k):
                    self.cycles.append(cycle)
                    on_borders += [cycle] * cycle.border
            self.outside += len(index) - len(kept) - len(solved.singular)
            self.singular_words += len(solved.singular)
            self.singular += [s for i in solved.singular if (s := singular_set(self.found, bits[i])) is not None]
            if virtual:
                rest = np.setdiff1d(np.arange(len(index)), np.concatenate([kept, solved.singular]).astype(int))
                self.virtual += [refined(self.found, bits[i]) for i in rest]
