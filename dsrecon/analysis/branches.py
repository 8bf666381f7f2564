"""What a continuation gave: branches of cycles, and the events between them."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from dsrecon.analysis.found import Cycle, Singular


@dataclasses.dataclass(frozen=True)
class Branch:
    """The cycle of one word of regions, on one interval of the parameter, where it is real: there it is analytic.

    - `word` `[k, p]`; `period` k; `interval`: from where to where the cycle is one of the cell.
    - `values` `[v]`: parameter values, those that were asked for and the ends of the interval at which the cycle is
      finite; at these: `points` `[v, k, m]`, `eigenvalues` `[v, m]` (the largest modulus first), `kinds` `[v]` (as
      `Cycle.kind`), `margins` `[v]` (distance to the nearest border).
    """

    word: np.ndarray
    period: int
    interval: tuple[float, float]
    values: np.ndarray
    points: np.ndarray
    eigenvalues: np.ndarray
    kinds: tuple[str, ...]
    margins: np.ndarray

    @property
    def stable(self) -> np.ndarray:
        """At which of the values the cycle is stable, `[v]`."""
        return np.array([kind.startswith("stable") for kind in self.kinds])


@dataclasses.dataclass(frozen=True)
class Event:
    """Where the cycles of a family change.

    - `value` of the parameter; `kind`: `persistence`, `non-smooth fold`, `border collision`, `flip`, `Neimark-Sacker`,
      `escape to infinity` or `line of cycles` (see `continuation`).
    - `branches`: numbers of the branches that begin, end or change there.
    - `gates`: for a meeting with a border, which gate of which point of the first of them, pairs `(point, gate)`.
    - `below`, `above`: the cycles concerned, just beside the value.
    - `message`: what happens, in words.
    """

    value: float
    kind: str
    branches: tuple[int, ...]
    gates: tuple[tuple[int, int], ...]
    below: tuple[Cycle, ...]
    above: tuple[Cycle, ...]
    message: str


@dataclasses.dataclass(frozen=True)
class Continuation:
    """Cycles against a parameter: `branches` by period, `events` by value, and the `values` `[v]` that were asked for.

    `singular`: values, each with a word along which every state of a line or plane is repeated there.
    """

    branches: tuple[Branch, ...]
    events: tuple[Event, ...]
    values: np.ndarray
    singular: tuple[tuple[float, Singular], ...] = ()

    def at(self, value: float) -> tuple[Branch, ...]:
        """The branches that have a cycle at a value."""
        return tuple(branch for branch in self.branches if branch.interval[0] <= value <= branch.interval[1])

    def table(self) -> pd.DataFrame:
        """A row a branch: word, period, interval, the kinds that it goes through, what happens at its ends."""
        rows: list[dict[str, Any]] = []
        for i, branch in enumerate(self.branches):
            begins, ends = (
                ", ".join(event.kind for event in self.events if i in event.branches and event.value == value)
                for value in branch.interval
            )
            kinds = [kind for kind, before in zip(branch.kinds, (None, *branch.kinds), strict=False) if kind != before]
            rows.append(
                {
                    "period": branch.period,
                    "word": spelled(branch.word),
                    "from": branch.interval[0],
                    "to": branch.interval[1],
                    "kinds": ", ".join(kinds),
                    "begins": begins,
                    "ends": ends,
                }
            )
        return pd.DataFrame(rows, columns=["period", "word", "from", "to", "kinds", "begins", "ends"])

    def event_table(self) -> pd.DataFrame:
        """A row an event: value, kind, branches, and what happens in words."""
        rows = [(event.value, event.kind, event.branches, event.message) for event in self.events]
        return pd.DataFrame(rows, columns=["value", "kind", "branches", "message"])


def spelled(word: np.ndarray) -> str:
    """A word as zeros and ones: "01 11"."""
    return " ".join("".join("01"[int(b)] for b in bits) for bits in word)


def described(cycle: Cycle) -> str:
    """ "2-cycle 0 1 (stable node)"."""
    what = "fixed point" if cycle.period == 1 else f"{cycle.period}-cycle"
    return f"{what} {spelled(cycle.word)} ({cycle.kind})"
