"""What happens to a cycle at one value of the parameter, told by what is there just below and above."""

import itertools
from typing import Any, NamedTuple

import numpy as np

from dsrecon.analysis.branches import described, spelled
from dsrecon.analysis.followed import Cut, Family, Followed, Node, distances, node
from dsrecon.analysis.found import Cycle
from dsrecon.analysis.letters import necklaces
from dsrecon.analysis.solve import is_primitive, refined
from dsrecon.pwl import Pieces

_MOST = 4096
_MEETS = 1e-8


class Told(NamedTuple):
    """What happens: kind, the points at the value (`None` where there is no cycle), what is beside it, how in words."""

    kind: str
    points: np.ndarray | None
    below: tuple[Cycle, ...]
    above: tuple[Cycle, ...]
    note: str


def collided(family: Family, bits: np.ndarray, cut: Cut, step: float, longest: int) -> Told:
    """The cycle of a word meets borders: what the words that pass them on either side make of it.

    A cycle near the one on the border spells, each time it comes around, the word with the gates that are met open or
    closed: all words of one and two such turns (and more, up to `longest`) are solved just below and above.
    """
    found = family.at(cut.value)
    points = refined(found, bits).points
    size = 1 + float(np.abs(points).max())
    apart = [float(np.abs(np.roll(points, d, axis=0) - points).max()) for d in range(len(bits))]
    once = next((d for d in range(1, len(bits)) if len(bits) % d == 0 and apart[d] <= _MEETS * size), len(bits))
    bits, points = bits[:once], points[:once]  # the event of a shorter one, where the cycle shrinks onto it
    met = [(int(t), int(j)) for t, j in np.argwhere(np.abs(distances(found, points)) <= _MEETS * size)]
    met = sorted({*met, *((t % once, j) for t, j in cut.gates)})
    letters = _letters(bits, met)
    _, residual = max(((w, _residual(found, w, points)) for w in letters), key=lambda pair: pair[1])
    continuous = residual <= 1e-7 * size
    known = letters if continuous else bits[None]
    below, above = (tuple(_turns(family, value, known, longest)) for value in (cut.value - step, cut.value + step))
    where = ", ".join(f"point {t} meets the border of gate {j}" for t, j in met)
    kind, note = _kind(below, above, len(bits), continuous)
    repeated = next((u for w in letters if continuous and (u := _root(w)) is not None and _flips(found, u)), None)
    if repeated is not None and kind == "border collision":
        kind = "flip"
        note = f": there the segment ends, and a {len(bits)}-cycle branches off {spelled(repeated)}"
    return Told(kind, points, below, above, where + note)


def _letters(bits: np.ndarray, met: list[tuple[int, int]]) -> np.ndarray:
    """The word with every choice of the gates that are met (all as they are or all turned, where these are many)."""
    choices = (
        itertools.product((False, True), repeat=len(met)) if len(met) <= 6 else [[False] * len(met), [True] * len(met)]
    )
    words = []
    for choice in choices:
        word = bits.copy()
        for (t, j), turned in zip(met, choice, strict=True):
            word[t, j] ^= turned
        words.append(word)
    return np.array(words)


def _residual(found: Pieces, bits: np.ndarray, points: np.ndarray) -> float:
    """By how much the maps of a word miss the points of a cycle: nothing, where the map is continuous there."""
    A, h = found.affine(bits)
    return float(np.abs(np.einsum("kij,kj->ki", A, points) + h - np.roll(points, -1, axis=0)).max())


def _turns(family: Family, value: float, letters: np.ndarray, longest: int) -> list[Cycle]:
    """The real cycles that come around once, twice, ..., each time by one of the words `letters` `[n, k, p]`."""
    found, (count, k, p) = family.at(value), letters.shape
    cycles: dict[bytes, Cycle] = {}
    for turns in range(1, max(2, longest // k) + 1):
        if turns > 2 and count**turns > _MOST:
            break
        for words in necklaces(count, turns):
            for word in words:
                there = node(found, letters[word].reshape(turns * k, p))
                cycle = there.cycle
                if cycle is not None and there.real and is_primitive(cycle):
                    cycles[smallest_rotation(cycle.word)] = cycle
    return list(cycles.values())


def smallest_rotation(word: np.ndarray) -> bytes:
    """What tells words `[k, p]` apart up to rotation."""
    return min(np.roll(word, -t, axis=0).tobytes() for t in range(len(word)))


def _kind(below: tuple[Cycle, ...], above: tuple[Cycle, ...], k: int, continuous: bool) -> tuple[str, str]:
    if not continuous:
        return "border collision", "; the map jumps there, and nothing goes on beyond it"
    once = [[cycle.word.tobytes() for cycle in side if cycle.period == k] for side in (below, above)]
    counts = [len(side) for side in once]
    if counts == [1, 1] and once[0] != once[1]:
        return "persistence", ""
    if min(counts) == 0 and max(counts) > 0 and max(counts) % 2 == 0:
        return "non-smooth fold", ""
    return "border collision", ""


def _root(word: np.ndarray) -> np.ndarray | None:
    """The half of a word that is said twice."""
    k = len(word)
    return word[: k // 2] if k % 2 == 0 and (word[: k // 2] == word[k // 2 :]).all() else None


def _flips(found: Pieces, bits: np.ndarray) -> bool:
    cycle = node(found, bits).cycle
    return cycle is not None and bool(np.abs(cycle.eigenvalues + 1).min() < 1e-6)


def smooth(family: Family, followed: Followed, value: float, kind: str, step: float) -> Told | None:
    """A flip or Neimark-Sacker at a value, `None` where no eigenvalue passes the unit circle there."""
    sides = [followed.at(x) for x in (value - step, value + step)]
    found = (None if side.cycle is None else _nearest(side.cycle.eigenvalues, kind) for side in sides)
    nearest = [eigenvalue for eigenvalue in found if eigenvalue is not None]
    if len(nearest) < 2:
        return None
    outside = [abs(eigenvalue) > 1 for eigenvalue in nearest]
    if outside[0] == outside[1] or max(abs(abs(eigenvalue) - 1) for eigenvalue in nearest) > 0.1:
        return None
    if kind == "flip":
        k = 2 * len(followed.bits)
        note = f"an eigenvalue passes -1, and at the value itself {k}-cycles fill a segment"
    else:
        angle = abs(np.angle(nearest[0]))
        note = (
            f"a pair of eigenvalues passes the unit circle at an angle of {angle:.6g}, and at the value itself orbits "
        )
        note += "go round on ellipses"
    there = followed.at(value).cycle
    return Told(kind, None if there is None else there.points, _real(sides[0]), _real(sides[1]), note)


def _real(there: Node) -> tuple[Cycle, ...]:
    return (there.cycle,) if there.cycle is not None and there.real else ()


def _nearest(eigenvalues: Any, kind: str) -> complex | None:
    turning = np.abs(eigenvalues.imag) > 1e-9 * np.abs(eigenvalues)
    if kind == "flip":
        fit = eigenvalues[~turning & (eigenvalues.real < 0)]
        return None if not len(fit) else complex(fit[np.abs(fit + 1).argmin()])
    fit = eigenvalues[turning]
    return None if not len(fit) else complex(fit[np.abs(np.abs(fit) - 1).argmin()])


def singular(family: Family, followed: Followed, cut: Cut, step: float) -> Told:
    """The equation of a word has no single solution: its cycle comes from infinity, or there is a line of them."""
    k = len(followed.bits)
    below, above = (_real(followed.at(x)) for x in (cut.value - step, cut.value + step))
    what = "fixed point" if k == 1 else f"{k}-cycle"
    if followed.consistency(cut.value) > 1e-6:
        note = f"an eigenvalue passes +1, and the {what} {spelled(followed.bits)} is nowhere"
        return Told("escape to infinity", None, below, above, note)
    note = f"an eigenvalue passes +1: every state of a line is repeated after {k} step{'s' if k > 1 else ''}"
    return Told("line of cycles", None, below, above, note)


def beside(below: tuple[Cycle, ...], above: tuple[Cycle, ...]) -> str:
    """What is there on either side, and how many attractors."""
    told = [", ".join(map(described, side)) or "nothing" for side in (below, above)]
    stable = [sum(cycle.kind.startswith("stable") for cycle in side) for side in (below, above)]
    note = ""
    if stable[0] != stable[1]:
        note = f" Of these {stable[0] or 'none'} below and {stable[1] or 'none'} above attract."
    return f"Below: {told[0]}. Above: {told[1]}.{note}"
