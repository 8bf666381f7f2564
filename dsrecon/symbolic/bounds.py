"""How much entropy can the itineraries of a map have? No more than its admissible words let them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import sparse

from dsrecon._types import Inputs
from dsrecon.pwl import TOLERANCE, Box, Pieces, checked_box, pieces
from dsrecon.pwl.laps import branches, longer_laps, no_lap
from dsrecon.pwl.words import longer, no_letter
from dsrecon.symbolic.words import topological_entropy

LIMIT = 100_000
"""Words of one length that are gone through, unless told."""


class _Level(NamedTuple):
    """The words of one length: by number the word of one letter less, the last letter, the slack of the starts."""

    parent: np.ndarray
    letter: np.ndarray
    radius: np.ndarray


def entropy_bounds(cell: Any, max_length: int, s: Inputs = None, *, box: Any = None, limit: int = LIMIT) -> xr.Dataset:
    """Upper bounds of the entropy of all itineraries of a map, from the words that are admissible: certified.

    The itineraries are the sequences of regions that orbits pass through which never meet a border; `h` is their
    topological entropy, and so not below the entropy rate of any of them. `N(L)` counts the admissible words of length
    `L` (`pwl.words`: the starts of each have an interior).

    - `per_symbol`: `ln N(L) / L >= h`. The number of words that occur is submultiplicative, `N(j + k) <= N(j) N(k)`, so
      that `h = lim ln N(L) / L = inf ln N(L) / L` (Fekete's lemma).
    - `block`: `ln rho_L >= h`, `rho_L` the spectral radius of the graph whose nodes are the words of length `L - 1` and
      whose edges are those of length `L`, each from its beginning to its end.

    **`block` is a bound, the sharper of the two, and it never rises.** Let `M_L` be the shift of all sequences whose
    words of length `L` are admissible. Its sequences are the paths of that graph, so its entropy is `ln rho_L` (Lind
    & Marcus, chapter 4). Each itinerary is in it, since each of its words is admissible: `h <= ln rho_L`. The words
    of length `L` that occur in `M_L` are among the `N(L)`: `ln rho_L <= ln N(L) / L`. And a sequence of `M_(L+1)` is
    one of `M_L`, since what begins an admissible word is admissible, and what ends it too: `ln rho_(L+1) <= ln
    rho_L`.

    Words are counted where a ball of radius above 1e-9 (in units of the state) begins them: words that only the points
    of a border spell are not. `undecided` are those that miss it by at most that much: such border words, or starts
    thinner than the tolerance. `upper` is `ln(N + undecided) / L`, a bound whichever they are. Where 1e-9 divided by
    `narrowest`, the smallest radius that was counted, is small, none is of the second kind as a rule.

    **Arguments:**

    - `cell`: an `AbstractPWLCell`, or what `pwl.pieces` gave; `s`: its input, held.
    - `max_length`: of the words, at least 1.
    - `box`: a `Box` or pair `(low, high)`: bounds are those of the orbits that stay in it. For a map of an interval,
      the interval; for another, an `invariant_box`. Default: all of space.
    - `limit`: how many words of one length are gone through. A map of one unit has 10^5 in a second; of others each
      takes some linear programmes, a millisecond or more.

    **Returns:** `Dataset` along `length`, 1 to `max_length`: `words`, `per_symbol`, `block`, `undecided`, `upper`
    (nats per step), `narrowest` (units of the state). Attributes: `regions`, `tolerance`.

    **Raises:** `ValueError` for a `max_length` below 1, for more than `limit` words (it names the length that was
    reached), and as `pwl.regions`; `RuntimeError` where a linear programme was not solved, as happens with long words
    of maps that stretch much, whose starts have no `box` to lie in.

    Reference: Lind & Marcus 1995, *An introduction to symbolic dynamics and coding*, chapters 2 and 4.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1: got {max_length}.")
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    box = checked_box(box, found.state_size)
    grown = _intervals(found, box) if found.state_size == 1 else _polyhedra(found, box, limit)
    columns: dict[str, list[float]] = {
        n: [] for n in ("words", "per_symbol", "block", "undecided", "upper", "narrowest")
    }
    before, letters = None, 0
    for length in range(1, max_length + 1):
        level = next(grown)
        if len(level.radius) > limit:
            raise ValueError(
                f"there are {len(level.radius):,} words of length {length}, more than limit={limit:,}: take max_length="
                f"{length - 1}, or a larger limit."
            )
        letters = max(letters, int(level.letter.max(initial=-1)) + 1)
        taken = level.radius > TOLERANCE
        count = int(taken.sum())
        before, block = _linked(before, level, letters)
        row = {
            "words": count,
            "per_symbol": _log(count) / length,
            "block": block,
            "undecided": len(taken) - count,
            "upper": _log(len(taken)) / length,
            "narrowest": float(level.radius[taken].min(initial=np.inf)),
        }
        for name, value in row.items():
            columns[name].append(value)
    return xr.Dataset(
        {name: ("length", np.array(column)) for name, column in columns.items()},
        coords={"length": np.arange(1, max_length + 1)},
        attrs={"regions": int(columns["words"][0]), "tolerance": TOLERANCE},
    )


def _log(count: int) -> float:
    return float(np.log(count)) if count else float("-inf")


def _intervals(found: Pieces, box: Box | None) -> Iterator[_Level]:
    on = branches(found, box)
    grown = no_lap(on)
    while True:
        grown = longer_laps(on, grown)
        yield _Level(grown.parent, grown.letter, grown.radius)


def _polyhedra(found: Pieces, box: Box | None, limit: int) -> Iterator[_Level]:
    number: dict[bytes, int] = {}
    grown = [no_letter(found, box)]
    while True:
        children = [longer(found, [word], limit, -TOLERANCE) for word in grown]
        parent = np.repeat(np.arange(len(grown)), [len(part) for part in children])
        grown = [word for part in children for word in part]
        letter = [number.setdefault(word.bits[-1].tobytes(), len(number)) for word in grown]
        yield _Level(parent, np.array(letter, int), np.array([word.ball.radius for word in grown]))


class _Links(NamedTuple):
    """Words by number: `parent * letters + letter`; `suffix`: each without its first letter (-1: not admissible)."""

    parent: np.ndarray
    letter: np.ndarray
    suffix: np.ndarray
    taken: np.ndarray


def _linked(before: _Links | None, level: _Level, letters: int) -> tuple[_Links, float]:
    """The links of a level, and the log spectral radius of the graph whose edges its counted words are."""
    taken = level.radius > TOLERANCE
    if before is None:
        links = _Links(level.parent, level.letter, np.zeros(len(taken), int), taken)
        return links, _log(int(taken.sum()))
    code = before.parent * letters + before.letter
    order = np.argsort(code)
    beginning = before.suffix[level.parent]
    wanted = beginning * letters + level.letter
    at = np.minimum(np.searchsorted(code[order], wanted), len(code) - 1)
    end = np.where((beginning >= 0) & (code[order][at] == wanted), order[at], -1)
    edge = taken & (end >= 0)
    edge &= before.taken[level.parent] & before.taken[end]
    size = len(before.taken)
    ones = np.ones(int(edge.sum()))
    graph = sparse.csr_array((ones, (level.parent[edge], end[edge])), shape=(size, size))
    return _Links(level.parent, level.letter, end, taken), topological_entropy(graph)
