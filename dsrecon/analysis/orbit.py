"""An orbit of a piecewise-linear flow in NumPy, exact from switching to switching."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dsrecon.pwl import Pieces

TERMS = 18
"""Terms of `exp` at 1 that count in float64."""

PROBES = 64
"""Most certified steps towards the end of one piece. They converge quadratically: a handful is the rule."""

EPS = float(np.finfo(float).eps)


class Switching(NamedTuple):
    """Gates `hit` `[p]` change at `time` in the state `z` `[m]`; `bits` `[p]` are open from then on."""

    time: float
    z: np.ndarray
    hit: np.ndarray
    bits: np.ndarray


class Orbit:
    """Follows `dz/dt = A_r z + h_r`, the pieces `field` of a flow.

    Within a region the orbit is a power series, summed over `H = 1 / |A_r|` at most. From `s`, a gate value `u` is held
    by `u(s + d) >= u + u' d - M d^2 / 2`, with `M` above `-u''`: no gate can have switched before the first `d` where
    one of these bounds falls below a rounding error of zero. That `d` is gone, and again from there, so a crossing is
    approached from its own side, with quadratic convergence, and none is leapt over.
    """

    def __init__(self, field: Pieces):
        self.field = field
        self._regions: dict[bytes, tuple[np.ndarray, np.ndarray, float]] = {}
        self._last: tuple[float, np.ndarray, np.ndarray] | None = None

    def region(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """`A_r`, `h_r`, and a norm of `A_r`."""
        name = bits.tobytes()
        if name not in self._regions:
            A, h = (x[0] for x in self.field.affine(bits[None]))
            norm = min(np.linalg.norm(A, kind) for kind in (1, np.inf, "fro"))
            self._regions[name] = A, h, float(norm)
        return self._regions[name]

    def velocity(self, z: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """`A_r z + h_r`."""
        A, h, _ = self.region(bits)
        return A @ z + h

    def switchings(self, z: np.ndarray, bits: np.ndarray, duration: float) -> Iterator[Switching]:
        """The switchings from `z` in the region `bits`, for as long as `duration` and while the orbit is finite."""
        time, still = 0.0, 0
        while time < duration:
            h, z, hit = self._piece(z, bits, duration - time)
            time += h
            self._last = time, z, bits
            still = 0 if h > 0 else still + 1
            if not np.isfinite(z).all() or still > 8 * len(bits) + 8:
                return
            if hit.any():
                bits = bits ^ hit
                yield Switching(time, z, hit, bits)

    def fate(self, start: np.ndarray) -> str:
        """What became of the orbit followed last, from `start` on, where it makes no turn."""
        assert self._last is not None
        time, z, bits = self._last
        if not np.isfinite(z).all() or np.abs(z).max() > 1e9 * (1 + np.abs(start).max()):
            return f"the orbit grows without bounds: at t = {time:.6g} it is at {z.tolist()}."
        A, h, norm = self.region(bits)
        if np.abs(A @ z + h).max() <= 1e-6 * (norm * np.abs(z).max() + np.abs(h).max()):
            return f"the orbit comes to rest: at t = {time:.6g} it is at an equilibrium near {z.tolist()}."
        return f"the orbit crosses no border twice in one direction before t = {time:.6g}, where it is at {z.tolist()}."

    def _piece(self, z: np.ndarray, bits: np.ndarray, left: float) -> tuple[float, np.ndarray, np.ndarray]:
        """`(h, z, hit)`: up to the next switching, or for as long as the series holds."""
        A, h, norm = self.region(bits)
        H = left if norm * left <= 1 else 1 / norm
        series = np.empty((TERMS + 1, len(z)))
        with np.errstate(over="ignore", invalid="ignore"):
            series[0], series[1] = z, H * (A @ z + h)
            for n in range(2, TERMS + 1):
                series[n] = (H / n) * (A @ series[n - 1])
            size = np.abs(series).sum(0)
        if not np.isfinite(size).all():
            return 0.0, np.full_like(z, np.nan), np.zeros_like(bits)
        sign = np.where(bits, 1.0, -1.0)
        e = series @ self.field.G.T * sign
        e[0] += sign * self.field.g
        slack = 8 * EPS * float((np.abs(self.field.G) @ size + np.abs(self.field.g)).max(initial=0.0))
        tau, hit = _first(e, slack)
        return (H if tau == 1 else tau * H), tau**_N @ series, hit


_N = np.arange(TERMS + 1.0)


def _first(e: np.ndarray, slack: float) -> tuple[float, np.ndarray]:
    """`(tau, hit)`: where in `[0, 1]` the first of the polynomials `sum_n e_n tau^n` `[n, p]` falls through zero."""
    bend = np.maximum((_N * (_N - 1))[3:] @ np.abs(e[3:]) - 2 * e[2], 0)
    tau = 0.0
    for _ in range(PROBES):
        u, du = tau**_N @ e, (_N[1:] * tau ** _N[:-1]) @ e[1:]
        hit = (u <= 0) & (du < 0)
        if tau == 1 or hit.any():
            return tau, hit
        rest, above = 1 - tau, np.maximum(u, 0) + slack
        doubt = above + du * rest - 0.5 * bend * rest**2 < 0
        if not doubt.any():
            tau = 1.0
            continue
        above, du, M = above[doubt], du[doubt], bend[doubt]
        root = np.sqrt(du * du + 2 * M * above)
        falls = du < 0
        step = np.where(falls, 2 * above / np.where(falls, root - du, 1), (root + du) / np.where(M > 0, M, 1)).min()
        tau = 1.0 if step >= rest else tau + float(step)
    u, du = tau**_N @ e, (_N[1:] * tau ** _N[:-1]) @ e[1:]
    return tau, (u <= 0) & (du < 0)
