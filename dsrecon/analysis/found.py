"""What a search for cycles gave, and what it can be held to."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from dsrecon.analysis.stability import HYPERBOLIC, Stability, stability
from dsrecon.pwl import Box


@dataclasses.dataclass(frozen=True, eq=False)
class Cycle:
    """A cycle of a piecewise-linear map; a fixed point is one of period 1.

    - `points` `[k, m]`, one after the other; `word` `[k, p]`: the regions they lie in (gates that are open).
    - `eigenvalues` `[m]`: of the product of the affine maps around it, by modulus, the largest first.
    - `margin`: distance of its points to the nearest border of their regions. Negative: a **virtual** cycle, one of
      the affine maps and not of the cell, since a point lies outside its region, by so much.
    - `border`: a point lies on a border, as far as rounding can tell: a border collision.
    - `tolerance`: rate of growth that counts as none, given the rounding of the parameters.
    """

    points: np.ndarray
    word: np.ndarray
    eigenvalues: np.ndarray
    margin: float
    border: bool = False
    tolerance: float = HYPERBOLIC

    @property
    def period(self) -> int:
        return len(self.points)

    @property
    def real(self) -> bool:
        """Whether it is a cycle of the cell: all points in their regions (or on the border of one)."""
        return self.margin > 0 or self.border

    @property
    def stability(self) -> Stability:
        return stability(self.eigenvalues, tolerance=self.tolerance)

    @property
    def kind(self) -> str:
        """Its kind by the eigenvalues; `border collision` on a border, where those of one side do not decide."""
        return "border collision" if self.border else self.stability.kind

    @property
    def rates(self) -> np.ndarray:
        """`ln |eigenvalue| / k` `[m]`: the Lyapunov exponents of the cycle, per step."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.eigenvalues)) / self.period


@dataclasses.dataclass(frozen=True, eq=False)
class Singular:
    """A word along which the cycle equation `(I - M) z = c` has no single solution, but a line or plane of them.

    Every state `point + directions' x` `[m]` is repeated after the word, where it lies in the word's polyhedron.

    - `word` `[k, p]`; `point` `[m]`; `directions` `[d, m]`, orthonormal: of the line (d = 1), plane (2), ...
    - `real`: whether a part of it with an interior lies in the polyhedron, so that the cell has these cycles; `point`
      is well inside that part then.
    """

    word: np.ndarray
    point: np.ndarray
    directions: np.ndarray
    real: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What was searched, and so what a list of cycles can be held to.

    - `complete`: every cycle up to `longest` steps (in `box`, if one was given) is in the list.
    - `regions`: how many there are (in the box); `gates` p: of at most `2^p`.
    - `solved`: by period, words whose equation was solved; `excluded`: words shown by linear programmes to be
      impossible instead: no orbit passes through them.
    - `virtual`: how many solutions lie outside their regions; `singular`: how many words had no single solution;
      `tolerance`: distance to a border, relative to the size of the state and the condition of the equation, below
      which a point is on it.
    """

    complete: bool
    longest: int
    regions: int
    gates: int
    solved: dict[int, int]
    excluded: dict[int, int]
    virtual: int
    singular: int
    box: Box | None
    tolerance: float

    def __str__(self) -> str:
        where = "" if self.box is None else " that meet the box"
        solved = ", ".join(f"{n:,} of period {k}" for k, n in self.solved.items())
        if not self.complete:
            return (
                f"Incomplete: a heuristic search of periods up to {self.longest} solved {solved} words of at most "
                f"2^{self.gates} regions. What it found is a cycle of the cell; others may exist."
            )
        excluded = ", ".join(f"{n:,} of period {k}" for k, n in self.excluded.items() if n)
        ruled = f"; no orbit can pass through the other words ({excluded})" if excluded else ""
        return (
            f"Complete up to period {self.longest}: the cycle equation was solved for every word of the "
            f"{self.regions:,} regions{where} ({solved}){ruled}. {self.virtual:,} solutions lie outside their regions, "
            f"{self.singular} words have none or no single one."
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Found:
    """Cycles of a map: `cycles`, the real ones, by period; `virtual` fixed points, if asked for; `singular` words with
    lines or planes of solutions; and the `certificate`."""

    cycles: tuple[Cycle, ...]
    singular: tuple[Singular, ...]
    certificate: Certificate
    virtual: tuple[Cycle, ...] = ()

    def __len__(self) -> int:
        return len(self.cycles)

    def __iter__(self):
        return iter(self.cycles)

    def __getitem__(self, i: int) -> Cycle:
        return self.cycles[i]

    def of_period(self, k: int) -> tuple[Cycle, ...]:
        """Those of minimal period `k`."""
        return tuple(cycle for cycle in self.cycles if cycle.period == k)

    def table(self) -> pd.DataFrame:
        """A row a cycle: period, kind, dimensions, leading eigenvalue, margin, regions and first point."""
        rows: list[dict[str, Any]] = []
        for cycle in (*self.cycles, *self.virtual):
            _, unstable, centre, stable = cycle.stability
            first = cycle.eigenvalues[0] if len(cycle.eigenvalues) else np.nan
            rows.append(
                {
                    "period": cycle.period,
                    "kind": cycle.kind,
                    "real": cycle.real,
                    "border": cycle.border,
                    "unstable": unstable,
                    "centre": centre,
                    "stable": stable,
                    "eigenvalue_modulus": abs(first),
                    "eigenvalue_angle": abs(np.angle(first)),
                    "margin": cycle.margin,
                    "word": " ".join("".join("01"[int(b)] for b in bits) for bits in cycle.word),
                    **{f"z{i}": x for i, x in enumerate(cycle.points[0])},
                }
            )
        names = ("period", "kind", "real", "border", "unstable", "centre", "stable", "eigenvalue_modulus")
        return pd.DataFrame(rows, columns=None if rows else [*names, "eigenvalue_angle", "margin", "word"])

    def __repr__(self) -> str:
        lines = sum(s.real for s in self.singular)
        more = f"\n{lines} words have a line or plane of cycles: see .singular" if lines else ""
        shown = (
            self.table()[["period", "kind", "unstable", "margin", "word"]].to_string() if self.cycles else "no cycle"
        )
        return f"{self.certificate}\n{shown}{more}"
