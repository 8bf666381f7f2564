"""Where a manifold begins: a straight piece of it at its cycle, small enough that the map is affine there."""

from typing import Any

import numpy as np
import scipy

from dsrecon.analysis.found import Cycle
from dsrecon.pwl import Box, Pieces, checked_box

SHARE = 0.9
"""Of the way to the nearest border that the first piece goes."""

BEYOND = 100.0
"""Half the width of the box that is taken where none is given, in sizes of the cycle."""


def check_cycle(found: Pieces, cycle: Any) -> None:
    """**Raises** `ValueError` unless it is a cycle of this cell, inside its regions."""
    if not isinstance(cycle, Cycle):
        raise ValueError(f"cycle must be a Cycle, as fixed_points and cycles give: got {type(cycle).__name__}.")
    k, m = cycle.points.shape
    if m != found.state_size or cycle.word.shape != (k, len(found.g)):
        raise ValueError(
            f"cycle must be one of this cell, of {found.state_size} units and {len(found.g)} gates: it has {m} and "
            f"{cycle.word.shape[1]}."
        )
    if cycle.border:
        raise ValueError("cycle must lie inside its regions: a point of it is on a border, where the map has a corner.")
    if not cycle.real:
        raise ValueError(
            f"cycle must be one of the cell: this one is virtual, {-cycle.margin:.3g} outside its regions."
        )
    A, h = found.affine(cycle.word)
    off = np.abs(np.einsum("kij,kj->ki", A, cycle.points) + h - np.roll(cycle.points, -1, axis=0)).max()
    if off > 1e-6 * (1 + np.abs(cycle.points).max()):
        raise ValueError(f"cycle must be one of this cell: a step from it misses its next point by {off:.3g}.")


def dimension_of(cycle: Cycle, direction: str) -> int:
    """That of the manifold of a cycle. **Raises** `ValueError` where there is none that can be followed."""
    kind, unstable, centre, stable = cycle.stability
    if centre:
        raise ValueError(
            f"cycle must be hyperbolic: it has {centre} of {len(cycle.eigenvalues)} eigenvalues of modulus 1, "
            "and its linear part does not decide."
        )
    dimension = unstable if direction == "unstable" else stable
    if not dimension:
        raise ValueError(f"cycle has no {direction} manifold: it is {'an' if kind[0] in 'aeiou' else 'a'} {kind}.")
    if dimension > 2:
        raise ValueError(
            f"the {direction} manifold of this cycle has dimension {dimension}: curves (1) and surfaces (2) can be "
            "followed. `basins` shows how it cuts a plane, where it is a border between basins."
        )
    return dimension


def checked_reach(cycle: Cycle, box: Any) -> Box:
    """The box that a manifold is followed in. **Raises** `ValueError` for one that does not hold the cycle."""
    if box is None:
        width = BEYOND * max(1.0, float(np.abs(cycle.points).max()))
        return Box(cycle.points.min(0) - width, cycle.points.max(0) + width)
    found = checked_box(box, cycle.points.shape[1])
    assert found is not None
    if not ((cycle.points > found.low) & (cycle.points < found.high)).all():
        raise ValueError("box must hold the cycle: a point of it lies outside.")
    return found


def germ(found: Pieces, cycle: Cycle, box: Box, direction: str) -> np.ndarray:
    """A piece of the manifold at every point of a cycle, `[k, v, m]`: a segment, or a polygon in an ellipse.

    With `T` the map around the cycle in its unstable (stable) eigenspace, from a real Schur form, and `P` the solution
    of `P - T^-T P T^-1 = I` (`P - T' P T = I`), an ellipse `x' P x < c` lies inside its image (holds it), and so does a
    polygon of enough sides: what is made of it step by step holds all that was before.
    """
    A, _ = found.affine(cycle.word)
    m = found.state_size
    M = np.eye(m)
    around = [M]
    for matrix in A:
        M = matrix @ M
        around.append(M)
    size = dimension_of(cycle, direction)
    T, Z = scipy.linalg.schur(M, sort="ouc" if direction == "unstable" else "iuc")[:2]
    T, Z = T[:size, :size], Z[:, :size]
    inward = np.linalg.inv(T) if direction == "unstable" else T
    P = scipy.linalg.solve_discrete_lyapunov(inward.T, np.eye(size))
    root = np.linalg.cholesky(P)
    N, n = found.rows(cycle.word)
    sides, offsets = box.rows()
    scale = np.inf
    for t, point in enumerate(cycle.points):
        rows, least = np.concatenate([N[t], sides]), np.concatenate([N[t] @ point + n[t], sides @ point + offsets])
        reach = np.linalg.norm(np.linalg.solve(root, (rows @ around[t] @ Z).T), axis=0)
        scale = min(scale, float((least[reach > 0] / reach[reach > 0]).min(initial=np.inf)))
    x = np.linalg.solve(root.T, _circle(size, float(np.linalg.eigvalsh(P)[-1])))
    x = SHARE * scale * x
    return np.stack([point + (B @ Z @ x).T for point, B in zip(cycle.points, around, strict=False)])


def _circle(size: int, stretch: float) -> np.ndarray:
    """Both ends of a segment, `[1, 2]`; or a polygon between the circles of radius `sqrt(1 - 1/stretch)` and 1."""
    if size == 1:
        return np.array([[-1.0, 1.0]])
    angle = np.arccos(np.sqrt(max(0.0, 1 - 1 / stretch)))
    sides = max(12, int(np.ceil(np.pi / angle)) + 1)
    turn = 2 * np.pi * np.arange(sides) / sides
    return np.stack([np.cos(turn), np.sin(turn)])
