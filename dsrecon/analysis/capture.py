"""Neighbourhoods of stable cycles that no orbit leaves: who enters converges."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy

from dsrecon.analysis.found import Cycle
from dsrecon.analysis.germ import check_cycle
from dsrecon.pwl import Pieces

SHARE = 0.99
"""Of the largest radius that is taken: what rounding of a run may not undo."""


class Capture(NamedTuple):
    """Ellipsoids `|root (z - centre)| <= 1` around the points of stable cycles.

    - `centres` `[c, m]`; `roots` `[c, m, m]`, zero where all states are captured; `owner` `[c]`: which cycle.
    """

    centres: np.ndarray
    roots: np.ndarray
    owner: np.ndarray


def capture(found: Pieces, cycles: Iterable[Cycle]) -> Capture:
    """The largest ellipsoids of their form from which all orbits converge to the stable ones among `cycles`.

    At each point `p` of a k-cycle, with `M` the product of the affine maps once around from there, `P - M' P M = I`.
    Then `E = {x: x' P x <= c}` is mapped into itself, `M E` within `E`, if the affine maps are those of the cell: `c`
    is the largest for which `E` and its images stay in the regions of the cycle. So a state in `p + E` is k steps later
    in it again, nearer: its orbit converges to the cycle.

    **Arguments:** `cycles`: those that are not stable are passed over; the owner is the index among all.

    **Raises:** `ValueError` for a stable cycle that is virtual, of another cell, or has a point on a border, and so no
    neighbourhood in its region.
    """
    centres, roots, owner = [], [], []
    for index, cycle in enumerate(cycles):
        if cycle.stability.unstable or cycle.stability.centre:
            continue
        try:
            check_cycle(found, cycle)
        except ValueError as error:
            raise ValueError(f"cycles[{index}]: {error}") from error
        A, _ = found.affine(cycle.word)
        N, n = found.rows(cycle.word)
        margin = np.einsum("kqm,km->kq", N, cycle.points) + n
        for t in range(cycle.period):
            turn = np.roll(np.arange(cycle.period), -t)
            centres.append(cycle.points[t])
            roots.append(_root(A[turn], N[turn], margin[turn]))
            owner.append(index)
    m = found.state_size
    return Capture(
        np.array(centres).reshape(-1, m), np.array(roots).reshape(-1, m, m), np.array(owner, np.int32).reshape(-1)
    )


def _root(A: np.ndarray, N: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """`root' root = P / c` at the first point of a word: `A` `[k, m, m]`, `N` `[k, q, m]`, `margin` `[k, q]`."""
    m = A.shape[-1]
    around = [np.eye(m)]
    for matrix in A:
        around.append(matrix @ around[-1])
    P = scipy.linalg.solve_discrete_lyapunov(around[-1].T, np.eye(m))
    lower = np.linalg.cholesky(P)
    rows = np.concatenate([side @ B for side, B in zip(N, around, strict=False)])
    reach = np.linalg.norm(np.linalg.solve(lower, rows.T), axis=0)  # of the unit ellipsoid, across each border
    least = margin.reshape(-1)
    radius = SHARE * float((least[reach > 0] / reach[reach > 0]).min(initial=np.inf))
    return lower.T / radius


def checked_cycles(cycles: Any) -> tuple[Cycle, ...]:
    """The cycles of a `Found`, or of a sequence. **Raises** `ValueError` for something else."""
    listed = tuple(cycles) if isinstance(cycles, Iterable) else None
    if listed is None or not all(isinstance(cycle, Cycle) for cycle in listed):
        raise ValueError(
            f"cycles must be a Found or a sequence of Cycle, as `cycles` and `fixed_points` give: got {cycles!r:.80}."
        )
    return listed
