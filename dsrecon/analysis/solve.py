"""The cycle equation of many words at once: `(I - M) z = c`."""

from typing import NamedTuple

import numpy as np

from dsrecon.analysis.found import Cycle, Singular
from dsrecon.analysis.stability import HYPERBOLIC, eigenvalues_of
from dsrecon.pwl import TOLERANCE, Pieces, inner_ball, word_polyhedron

SINGULAR = 1e-13
"""Smallest singular value over the largest below which an equation has no single solution."""

ROUNDING = 64 * np.finfo(float).eps


class Solved(NamedTuple):
    """Solutions of `w` words of `k` regions.

    - `points` `[w, k, m]`: of the cycle along each, NaN where there is no single one.
    - `near`: indices of words whose points all lie in their regions, or so near to a border that it has to be looked at
      more closely (`refined`).
    - `singular`: indices of words without a single solution.
    """

    points: np.ndarray
    near: np.ndarray
    singular: np.ndarray


def solve_words(found: Pieces, A: np.ndarray, h: np.ndarray, bits: np.ndarray) -> Solved:
    """The cycles along words: `z_0 = (I - M)^{-1} c` with `z_k = M z_0 + c` around it, and the other points from that.

    **Arguments:** of `w` words of `k` regions: `A` `[w, k, m, m]`, `h` `[w, k, m]`, `bits` `[w, k, p]`.
    """
    count, k, m = h.shape
    M, c = A[:, 0], h[:, 0]
    for t in range(1, k):
        M, c = A[:, t] @ M, np.einsum("wij,wj->wi", A[:, t], c) + h[:, t]
    system = np.eye(m) - M
    single, inverse = _inverses(system)
    z = np.full((count, m), np.nan)
    z[single] = np.einsum("wij,wj->wi", inverse, c[single])
    points = np.empty((count, k, m))
    for t in range(k):
        points[:, t] = z
        z = np.einsum("wij,wj->wi", A[:, t], z) + h[:, t]
    margin = found.margin(points, bits).min(1)
    near = np.flatnonzero(margin > -1e-6 * (1 + np.abs(points).max((1, 2), initial=0.0)))
    return Solved(points, near, np.flatnonzero(~single))


def _inverses(system: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the matrices `[w, m, m]` are regular, by their condition (exactly where an estimate leaves doubt), and
    the inverses of those."""
    single = np.ones(len(system), bool)
    try:
        inverse = np.linalg.inv(system)
    except np.linalg.LinAlgError:  # one is exactly singular
        sign, _ = np.linalg.slogdet(system)
        single = sign != 0
        inverse = np.linalg.inv(system[single])
    condition = np.abs(system[single]).sum(2).max(1, initial=0.0) * np.abs(inverse).sum(2).max(1, initial=0.0)
    doubtful = ~(condition < 1e-2 / SINGULAR)
    value = np.linalg.svd(system[single][doubtful], compute_uv=False)
    good = np.ones(len(inverse), bool)
    good[doubtful] = value[:, -1] > SINGULAR * np.maximum(value[:, 0], 1.0)
    single[single] = good
    return single, inverse[good]


def refined(found: Pieces, bits: np.ndarray) -> Cycle:
    """The cycle along a word `[k, p]`, all its points solved for at once, which does not multiply errors around it.

    A point whose distance to a border is below the rounding error of the solution is on it (`border`); the map of the
    region beside must then agree about it, as that of a continuous cell does, or the cycle counts as virtual.
    """
    A, h = found.affine(bits)
    k, m = h.shape
    system = np.zeros((k, m, k, m))
    for t in range(k):
        system[t, :, t] += np.eye(m)
        system[t, :, t - 1] -= A[t - 1]
    system = system.reshape(k * m, k * m)
    right = np.roll(h, 1, axis=0).reshape(-1)
    inverse = np.linalg.inv(system)
    z = inverse @ right
    z = z + inverse @ (right - system @ z)
    points = z.reshape(k, m)
    # what rounding of the system and of its right-hand side can do to the distance from each gate
    N, n = found.rows(bits)
    reach = np.abs(np.einsum("tqi,tiw->tqw", N, inverse.reshape(k, m, k * m)))
    error = ROUNDING * (reach @ (np.abs(system) @ np.abs(z) + np.abs(right)) + np.abs(n))
    distance = np.einsum("tqi,ti->tq", N, points) + n
    margin = float(distance.min(initial=np.inf))
    border = bool((distance >= -error).all() and (distance <= error).any())
    if border and not _agrees(found, points, bits, np.abs(distance) <= error):
        border, margin = False, -abs(margin)
    M = np.eye(m)
    for t in range(k):
        M = A[t] @ M
    return Cycle(points, bits, eigenvalues_of(M), margin, border, max(HYPERBOLIC, 10 * found.rounding))


def _agrees(found: Pieces, points: np.ndarray, bits: np.ndarray, on: np.ndarray) -> bool:
    """Whether the cell itself, whose gates are closed on their borders, goes from point to point; `on` `[k, q]`: which
    moving gates have a border there."""
    closed = bits.copy()
    closed[:, found.moving] &= ~on
    A, h = found.affine(closed)
    after = np.einsum("kij,kj->ki", A, points) + h
    return bool(np.abs(after - np.roll(points, -1, axis=0)).max() <= 1e-9 * (1 + np.abs(points).max()))


def is_primitive(cycle: Cycle) -> bool:
    """Whether its points are no repetition of a shorter cycle, as those on a border may be."""
    k, size = cycle.period, 1 + np.abs(cycle.points).max()
    return not any(
        k % d == 0 and np.abs(np.roll(cycle.points, d, axis=0) - cycle.points).max() <= 1e-9 * size for d in range(1, k)
    )


def singular_set(found: Pieces, bits: np.ndarray) -> Singular | None:
    """The line or plane of solutions of a word whose equation is singular; `None` where it has none.

    `z = z_p + N' x` with `N` the null space of `I - M`; it is real where the word's polyhedron, cut by it, has room.
    """
    A, h = found.affine(bits)
    M, c = A[0], h[0]
    for t in range(1, len(bits)):
        M, c = A[t] @ M, A[t] @ c + h[t]
    system = np.eye(len(c)) - M
    U, value, V = np.linalg.svd(system)
    null = value <= SINGULAR * max(value[0], 1.0)
    scale = max(1.0, float(np.abs(c).max(initial=0.0)))
    if (np.abs(U.T[null] @ c) > 1e-10 * scale).any():
        return None
    point = V[~null].T @ ((U.T[~null] @ c) / value[~null])
    directions = V[null]
    N, n = word_polyhedron(found, bits)
    ball = inner_ball(N @ directions.T, N @ point + n, len(directions))
    real = ball.radius > TOLERANCE
    return Singular(bits, point + ball.centre @ directions if real else point, directions, real)
