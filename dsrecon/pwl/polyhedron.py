"""Is there room in a polyhedron? The largest ball that it holds, by a linear programme."""

from typing import NamedTuple

import numpy as np
import scipy

TOLERANCE = 1e-9
"""Radius of the largest ball, in units of the state, from which a polyhedron has an interior; the optimum of HiGHS is
good to 1e-10."""

_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
_CAP = 1.0


class Ball(NamedTuple):
    """The largest ball in a polyhedron: `radius` (at most 1; negative: by how much it is empty) and `centre` `[m]`."""

    radius: float
    centre: np.ndarray


def inner_ball(N: np.ndarray, n: np.ndarray, size: int) -> Ball:
    """The largest ball in `{z: N z + n >= 0}`, its radius no more than 1: `max r` so that `N z + n >= |N_i| r`.

    A positive radius is a strictly positive slack: the polyhedron has an interior. With a negative one there is no
    point in it at all, and every point misses some half-space by at least that much. A row of zeros is a condition
    that holds everywhere or nowhere. One unit is solved in closed form, more by HiGHS.

    **Arguments:** `N` `[c, m]`, `n` `[c]`; `size` m.

    **Raises:** `RuntimeError` where the linear programme was not solved.
    """
    length = np.linalg.norm(N, axis=1)
    void = length <= 1e-300
    if (n[void] <= 0).any():
        return Ball(-np.inf, np.zeros(size))
    N, n = N[~void] / length[~void, None], n[~void] / length[~void]
    if not len(n):
        return Ball(_CAP, np.zeros(size))
    if size == 1:
        return _interval(N[:, 0], n)
    bounds = [(None, None)] * size + [(None, _CAP)]
    found = scipy.optimize.linprog(
        np.r_[np.zeros(size), -1.0],
        A_ub=np.c_[-N, np.ones(len(n))],
        b_ub=n,
        bounds=bounds,
        method="highs",
        options=_OPTIONS,
    )
    if found.status != 0:
        raise RuntimeError(f"the linear programme of {len(n)} half-spaces in {size} units failed: {found.message}")
    return Ball(float((N @ found.x[:size] + n).min()) if found.x[-1] < _CAP else _CAP, found.x[:size])


def _interval(N: np.ndarray, n: np.ndarray) -> Ball:
    low = float((-n[N > 0]).max(initial=-np.inf))
    high = float(n[N < 0].min(initial=np.inf))
    if np.isinf(low) or np.isinf(high):
        centre = low + _CAP if np.isfinite(low) else high - _CAP if np.isfinite(high) else 0.0
        return Ball(_CAP, np.array([centre]))
    return Ball(min(_CAP, (high - low) / 2), np.array([(low + high) / 2]))
