"""Cycles of cells with too many regions to go through: a search that may miss some."""

from typing import Any

import numpy as np

from dsrecon._types import Inputs
from dsrecon.analysis.cycles import checked_period, ordered, same_cycle
from dsrecon.analysis.found import Certificate, Cycle, Found
from dsrecon.analysis.solve import ROUNDING, is_primitive, refined, solve_words
from dsrecon.pwl import Pieces, pieces

_BYTES = 1 << 26


def find_cycles(
    cell: Any,
    longest: int,
    s: Inputs = None,
    *,
    starts: Any = None,
    tries: int = 2000,
    rounds: int = 40,
    seed: int = 0,
) -> Found:
    """Cycles of a piecewise-linear map with too many regions for `cycles`: a heuristic, marked incomplete.

    A word of regions is guessed and its cycle equation solved, `z_0 = (I - M)^{-1} c`. Where the solution is virtual,
    the regions that its points do lie in are the next guess: real cycles are the fixed points of this iteration, which
    for continuous maps is a Newton step on `f^k(z) = z`. Guesses are the words that orbits spell, from `starts` and
    from around them, and random ones. The same seed gives the same list.

    **Arguments:**

    - `cell`: an `AbstractPWLCell`; `s`: its input, the same in every step; `longest` period, at least 1.
    - `starts`: states `[n, m]` to draw guesses from, of a free run best: cycles on or near an attractor are found
      through the words it spells. Default: normal ones, of the size of the cell's offsets.
    - `tries`: guesses of each period; `rounds`: how often each is bettered.

    **Returns:** `Found`, whose certificate says that it is incomplete. Every cycle in it is one of the cell.

    **Raises:** `ValueError` for a cell that is not piecewise linear, `longest` or `tries` below 1, starts of another
    shape.

    Reference: Eisenmann, Monfared, Göring & Durstewitz 2023, *Bifurcations and loss jumps in RNN training*, NeurIPS
    (SCYFI), in whose manner it goes on from the regions of a virtual cycle.
    """
    checked_period(longest)
    if tries < 1 or rounds < 1:
        raise ValueError(f"tries and rounds must be at least 1: got {tries} and {rounds}.")
    found, rng = pieces(cell, s), np.random.default_rng(seed)
    m = found.state_size
    orbit = _drawn(found, tries, rng) if starts is None else np.asarray(starts, np.float64)
    if orbit.ndim != 2 or orbit.shape[1] != m or not len(orbit) or not np.isfinite(orbit).all():
        raise ValueError(f"starts must be finite states [n, {m}]: got shape {list(orbit.shape)}.")
    cycles: list[Cycle] = []
    solved: dict[int, int] = {}
    for k in range(1, longest + 1):
        size = max(1, _BYTES // (8 * k * m * m))
        solved[k] = 0
        for first in range(0, tries, size):
            bits = _guesses(found, orbit, k, min(size, tries - first), rng)
            number, more = _bettered(found, bits, rounds)
            solved[k] += number
            cycles += [c for c in more if not any(same_cycle(c, other) for other in cycles if other.period == k)]
    certificate = Certificate(False, longest, 0, len(found.g), solved, {}, 0, 0, None, ROUNDING)
    return Found(ordered(cycles), (), certificate)


def _drawn(found: Pieces, tries: int, rng: np.random.Generator) -> np.ndarray:
    _, h = found.affine(np.ones((1, len(found.g)), bool))
    scale = 1 + np.abs(h).max() + np.abs(found.g).max(initial=0.0)
    return scale * rng.normal(size=(tries, found.state_size))


def _guesses(found: Pieces, orbit: np.ndarray, k: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Words `[size, k, p]`: half spelled by orbits, a quarter from states about them, a quarter at random."""
    z = orbit[rng.integers(len(orbit), size=size)]
    about = slice(size // 2, size - size // 4)
    z[about] += (orbit.std(0) + 1e-3) * rng.normal(size=z[about].shape)
    bits = np.empty((size, k, len(found.g)), bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(k):
            bits[:, t] = found.bits(z)
            z = found.step(z)
    dice = slice(size - size // 4, size)
    bits[dice] = rng.random(bits[dice].shape) < rng.random((bits[dice].shape[0], 1, 1))
    bits[..., ~found.moving] = found.fixed[~found.moving]
    return bits


def _bettered(found: Pieces, bits: np.ndarray, rounds: int) -> tuple[int, list[Cycle]]:
    """How many words were solved on the way from these, and the real cycles that were come to."""
    seen: set[bytes] = set()
    cycles: list[Cycle] = []
    for _ in range(rounds):
        fresh = []
        for i, word in enumerate(bits):
            key = min(np.roll(word, t, axis=0).tobytes() for t in range(len(word)))
            if key not in seen:
                seen.add(key)
                fresh.append(i)
        if not fresh:
            break
        bits = bits[fresh]
        count, k, p = bits.shape
        A, h = found.affine(bits.reshape(-1, p))
        m = h.shape[-1]
        A, h = A.reshape(count, k, m, m), h.reshape(count, k, m)
        solved = solve_words(found, A, h, bits)
        cycles += [c for i in solved.near if (c := refined(found, bits[i])).real and is_primitive(c)]
        bits = found.bits(solved.points[np.isfinite(solved.points).all((1, 2))])
    return len(seen), list(ordered(cycles))
