"""What kind of fixed point? Told by its eigenvalues."""

from typing import NamedTuple

import numpy as np

HYPERBOLIC = 1e-9
"""A rate of growth, `ln |eigenvalue|` or the real part, closer to zero than this is no growth; of a map with parameters
in float32 it is ten times their rounding, 1.2e-6."""


class Stability(NamedTuple):
    """How orbits behave near a fixed point or cycle.

    - `kind`: `stable node`, `stable focus`, `saddle`, `saddle-focus`, `unstable node`, `unstable focus` or
      `non-hyperbolic`. A focus has a complex pair among its leading eigenvalues: those of its stable and of its
      unstable directions whose growth is the slowest.
    - `unstable`, `centre`, `stable`: dimensions of the manifolds; their sum is m.
    """

    kind: str
    unstable: int
    centre: int
    stable: int


def stability(eigenvalues: np.ndarray, *, flow: bool = False, tolerance: float = HYPERBOLIC) -> Stability:
    """The kind of a fixed point of a map (of a flow), by the moduli (the real parts) of its eigenvalues `[m]`.

    Directions grow at the rate `ln |lambda|` (`Re lambda`): stable below zero, unstable above, centre within
    `tolerance` of it (`non-hyperbolic`, where the linear part does not decide).

    Reference: Kuznetsov 2004, *Elements of applied bifurcation theory*, Springer.
    """
    eigenvalues = np.asarray(eigenvalues, np.complex128)
    with np.errstate(divide="ignore"):
        rate = np.real(eigenvalues) if flow else np.log(np.abs(eigenvalues))
    unstable, stable = rate > tolerance, rate < -tolerance
    up, down = int(unstable.sum()), int(stable.sum())
    centre = len(rate) - up - down
    if centre:
        return Stability("non-hyperbolic", up, centre, down)
    spiral = (up and _complex(eigenvalues[unstable][np.argmin(rate[unstable])])) or (
        down and _complex(eigenvalues[stable][np.argmax(rate[stable])])
    )
    if up and down:
        return Stability("saddle-focus" if spiral else "saddle", up, centre, down)
    return Stability(f"{'unstable' if up else 'stable'} {'focus' if spiral else 'node'}", up, centre, down)


def eigenvalues_of(M: np.ndarray) -> np.ndarray:
    """The eigenvalues of a matrix `[m, m]` by modulus, the largest first; of a pair the one above the real axis."""
    values = np.linalg.eigvals(M)
    return values[np.lexsort((-values.imag, -np.abs(values)))]


def _complex(eigenvalue: complex) -> bool:
    return bool(abs(eigenvalue.imag) > 1e-9 * abs(eigenvalue))
