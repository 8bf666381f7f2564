"""Limit cycles of a piecewise-linear flow, by Newton's method on an exact return map."""

import dataclasses
from typing import Any

import numpy as np
import scipy

from dsrecon._types import Inputs
from dsrecon.analysis.orbit import Orbit, Switching
from dsrecon.analysis.stability import Stability, stability
from dsrecon.pwl import field_pieces

NEWTON = 50
"""Steps of Newton's method before it is given up; six are many."""


@dataclasses.dataclass(frozen=True)
class LimitCycle:
    """A closed orbit of a flow, in the pieces between its switchings.

    - `period`, in units of time; `points` `[k, m]`: the states at its switchings; `word` `[k, p]`, `durations` `[k]`:
      the region that each is followed by, and for how long.
    - `multipliers` `[m - 1]`: Floquet's, without the trivial one, by modulus, the largest first: the eigenvalues of the
      derivative of the return map. `monodromy` `[m, m]`: the product of `exp(d A_r)` around the cycle, from
      `points[0]`; `trivial`: its eigenvalue along the field, 1 but for rounding.
    - `residual`: how far from closing, the largest entry, of `points[0]` after a turn.
    """

    period: float
    points: np.ndarray
    word: np.ndarray
    durations: np.ndarray
    multipliers: np.ndarray
    monodromy: np.ndarray
    trivial: float
    residual: float

    @property
    def stability(self) -> Stability:
        """That of the return map's fixed point."""
        return stability(self.multipliers)

    @property
    def stable(self) -> bool:
        """Whether orbits nearby come to it: all multipliers within the unit circle."""
        return bool((np.abs(self.multipliers) < 1).all())

    @property
    def rates(self) -> np.ndarray:
        """`ln |multiplier| / period` `[m - 1]`: its Lyapunov exponents but for the zero along the field."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.multipliers)) / self.period


def limit_cycle(cell: Any, z0: Any, s: Inputs = None, *, longest: float, settle: float = 0.0) -> LimitCycle:
    """The limit cycle near an orbit, by Newton's method on the exact return map of a border.

    The orbit is followed exactly from switching to switching (`Orbit`). The first border that it crosses twice in one
    direction is the section; of its returns the first that comes (to a factor of three) as near to the first crossing
    as any is a turn. Newton's method then solves `P(z) = z` on the border, with

    `DP = (I - f G_i / (G_i f)) prod exp(d A_r)`

    the products of the pieces, `f` the field and `G_i` the normal of the border where they end: no saltation, as the
    field is continuous. Stable and unstable cycles alike are found, from near enough.

    **Arguments:** `cell`: an `AbstractPWLFlow`; `z0` `[m]`: a state near the cycle, or on its way there; `s`: the
    input, held; `longest`: the longest period looked for, and `settle`: how long to follow the orbit first, in units of
    time.

    **Returns:** `LimitCycle`.

    **Raises:** `ValueError` for a cell that is no such flow, a state of another shape, times out of range;
    `RuntimeError` that says why none was found: the orbit grows without bounds, comes to rest, crosses no border again;
    or Newton's method does not converge, as where closed orbits are not isolated.

    Reference: Brändle et al. 2026, arXiv 2602.15649; Parker & Chua 1989, *Practical numerical algorithms for chaotic
    systems*, Springer, chapter 5.
    """
    field = field_pieces(cell, s)
    z = np.asarray(z0, float)
    if z.shape != (field.state_size,) or not np.isfinite(z).all():
        raise ValueError(f"z0 must be a finite state [{field.state_size}]: got {z0!r}.")
    if not (np.isfinite(longest) and longest > 0 and np.isfinite(settle) and settle >= 0):
        raise ValueError(f"longest must be positive, settle at least 0: got {longest} and {settle}.")
    orbit = Orbit(field)
    section, gate, turns = _section(orbit, z, longest, settle)
    z = _closed(orbit, section, gate, turns, 4 * longest)
    return _described(orbit, section.bits, z, gate, turns, 4 * longest)


def _section(orbit: Orbit, z: np.ndarray, longest: float, settle: float) -> tuple[Switching, int, int]:
    """`(crossing, gate, turns)`: where the section begins, its gate, and how many returns to it close a turn."""
    crossings: dict[tuple[int, bool], list[Switching]] = {}
    end: float = settle + longest
    chosen = None
    for now in orbit.switchings(z, orbit.field.bits(z), settle + 2 * longest):
        if now.time < settle:
            continue
        if chosen is None:
            for gate in np.flatnonzero(now.hit):
                seen = crossings.setdefault((int(gate), bool(now.bits[gate])), [])
                seen.append(now)
                if len(seen) == 2:
                    chosen, end = (int(gate), bool(now.bits[gate])), seen[0].time + longest
                    break
        elif now.time <= end and now.hit[chosen[0]] and now.bits[chosen[0]] == chosen[1]:
            crossings[chosen].append(now)
        if now.time > end:
            break
    if chosen is None:
        raise RuntimeError(f"No limit cycle: {orbit.fate(z)}")
    first, *later = crossings[chosen]
    apart = np.array([np.linalg.norm(now.z - first.z) for now in later])
    near = max(3 * apart.min(), 1e-9 * (1 + np.abs(first.z).max()))
    return first, chosen[0], int(np.flatnonzero(apart <= near)[0]) + 1


def _turn(orbit: Orbit, z: np.ndarray, bits: np.ndarray, gate: int, turns: int, longest: float) -> list[Switching]:
    """The switchings up to the return number `turns` to a border; empty where it is not met so often."""
    path = []
    for now in orbit.switchings(z, bits, longest):
        path.append(now)
        turns -= bool(now.hit[gate] and now.bits[gate] == bits[gate])
        if not turns:
            return path
    return []


def _derivative(orbit: Orbit, bits: np.ndarray, path: list[Switching], gate: int) -> tuple[np.ndarray, np.ndarray]:
    """Monodromy of a turn, and the derivative of the return map: the monodromy projected along the field."""
    M, start = np.eye(orbit.field.state_size), 0.0
    for now in path:
        M = scipy.linalg.expm((now.time - start) * orbit.region(bits)[0]) @ M
        bits, start = now.bits, now.time
    f, normal = orbit.velocity(path[-1].z, bits), orbit.field.G[gate]
    return M, M - np.outer(f, normal @ M) / (normal @ f)


def _closed(orbit: Orbit, section: Switching, gate: int, turns: int, longest: float) -> np.ndarray:
    """The state on the border that returns to itself, by Newton's method with halved steps where it overshoots."""
    normal, bits = orbit.field.G[gate], section.bits
    offset = orbit.field.g[gate]
    Q = scipy.linalg.null_space(normal[None])

    def error(z):
        path = _turn(orbit, z, bits, gate, turns, longest)
        return path, (Q.T @ (path[-1].z - z) if path else np.full(Q.shape[1], np.inf))

    z = section.z - normal * (normal @ section.z + offset) / (normal @ normal)
    path, F = error(z)
    for _ in range(NEWTON):
        small = np.abs(F).max(initial=0.0) <= 1e-12 * (1 + np.abs(z).max())
        system = Q.T @ _derivative(orbit, bits, path, gate)[1] @ Q - np.eye(Q.shape[1])
        if np.linalg.cond(system) > 1e10:
            raise RuntimeError(
                "No limit cycle: the return map has a multiplier of 1, so that Newton's method cannot converge; closed "
                "orbits lie side by side here, or a fold is met."
            )
        step = -Q @ np.linalg.solve(system, F)
        for t in 0.5 ** np.arange(12):
            path_, F_ = error(z + t * step)
            if np.linalg.norm(F_) < np.linalg.norm(F):
                z, path, F = z + t * step, path_, F_
                break
        else:
            if small:
                return z
            break
    raise RuntimeError(
        f"No limit cycle: Newton's method does not converge; it stopped {np.abs(F).max():.3g} from closing, at "
        f"{z.tolist()}. Let the orbit settle for longer, or start nearer."
    )


def _described(orbit: Orbit, bits: np.ndarray, z: np.ndarray, gate: int, turns: int, longest: float) -> LimitCycle:
    """The cycle through `z` on the border, once around."""
    path = _turn(orbit, z, bits, gate, turns, longest)
    close = 1e-8 * (1 + np.abs(z).max())
    for i, now in enumerate(path):
        if now.hit[gate] and (now.bits == bits).all() and np.abs(now.z - z).max() <= close:
            path = path[: i + 1]
            break
    M, DP = _derivative(orbit, bits, path, gate)
    Q = scipy.linalg.null_space(orbit.field.G[gate][None])
    multipliers = np.linalg.eigvals(Q.T @ DP @ Q)
    order = np.lexsort((-multipliers.imag, -np.abs(multipliers)))
    times = np.array([0.0, *(now.time for now in path)])
    f = orbit.velocity(z, bits)
    return LimitCycle(
        period=float(times[-1]),
        points=np.array([z, *(now.z for now in path[:-1])]),
        word=np.array([bits, *(now.bits for now in path[:-1])]),
        durations=np.diff(times),
        multipliers=multipliers[order],
        monodromy=M,
        trivial=float(f @ M @ f / (f @ f)),
        residual=float(np.abs(path[-1].z - z).max()),
    )
