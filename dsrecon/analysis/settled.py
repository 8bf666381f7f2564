"""Has a run settled on a cycle? Told by its states, shown by one linear system."""

import numpy as np

from dsrecon.analysis.found import Cycle
from dsrecon.analysis.solve import solve_words
from dsrecon.analysis.stability import HYPERBOLIC, eigenvalues_of
from dsrecon.pwl import Pieces

NEAR = 0.05
"""How near a run must come back, in its standard deviations (root mean square over the units), to be looked at."""

_PERIODS = 8
_ROUNDS = 20


def settled_cycle(found: Pieces, zs: np.ndarray) -> Cycle | None:
    """The stable cycle that a run has come to, or is on its way to; `None` where there is none.

    Where the last state was nearly met before, `k` steps ago, the word of regions passed since is solved as in
    `cycles`, and bettered by the regions that the solution lies in. It counts where it is real and all its eigenvalues
    lie within the unit circle: then, nearby, everything converges to it. A chaotic run comes back too, but to unstable
    cycles.

    **Arguments:** `found`: the pieces of the map; `zs` `[t, m]`: the run. Periods up to `t / 2` are seen.
    """
    with np.errstate(over="ignore"):
        spread = zs.std(0)
    if not np.isfinite(spread).all():  # a run on its way to infinity
        return None
    away = np.sqrt((((zs - zs[-1]) / np.where(spread > 0, spread, 1.0)) ** 2).mean(1))[::-1]
    half = len(away) // 2
    ago = np.arange(1, half)
    lowest = (away[ago] <= away[ago - 1]) | (ago == 1)
    lowest &= (away[ago] <= away[ago + 1]) & (away[ago] < NEAR)
    for k in ago[lowest][:_PERIODS]:
        cycle = _along(found, found.bits(zs[len(zs) - k :]))
        if cycle is not None:
            return cycle
    return None


def _along(found: Pieces, bits: np.ndarray) -> Cycle | None:
    """The stable cycle that the word `[k, p]`, bettered, leads to."""
    for _ in range(_ROUNDS):
        A, h = found.affine(bits)
        points = solve_words(found, A[None], h[None], bits[None]).points[0]
        if not np.isfinite(points).all():
            return None
        after = found.bits(points)
        if (after == bits).all():
            break
        bits = after
    else:
        return None
    M = np.eye(A.shape[1])
    for step in A:
        M = step @ M
    margin = float(found.margin(points, bits).min())
    cycle = Cycle(points, bits, eigenvalues_of(M), margin, False, max(HYPERBOLIC, 10 * found.rounding))
    return cycle if margin > 0 and cycle.kind.startswith("stable") else None
