"""Delay equations: the state is the history, on a grid."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._checks import undriven
from dsrecon._types import Inputs, Matrix, State
from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.systems.cells import check_positive
from dsrecon.systems.known import AbstractSystem


class DelayCell(AbstractCell):
    """The flow map of `x'(t) = f(x(t), x(t - tau))`, `x` a number, over one time step.

    The state is the delay line `z = [x(t), x(t - h), ..., x(t - tau)]`, `h = tau / points`. A step `h` of the
    classical fourth-order Runge-Kutta method takes `x(t - tau)` and `x(t - tau + h)` from the line, and
    `x(t - tau + h/2)` from the cubic through its four oldest points; then the line moves on. Fourth order
    in `h` along smooth solutions; where the first history meets the solution, `x'` may jump, and the one step
    that sees the jump errs by the order of `h^2`.

    **Arguments:**

    - `vector_field`: `f`, a callable PyTree of `x` and `x(t - tau)`, numbers.
    - `delay`: `tau`, in the units of time of `f`.
    - `points`: steps `h` in one delay, at least 4.
    - `substeps`: steps `h` in one time step of the cell, at least 1.

    **Raises:** `ValueError` when a number is out of range.

    Reference: Bellen & Zennaro 2003, *Numerical methods for delay differential equations*, Oxford University
    Press; the exponents of the line are those of the equation as `h` falls: Farmer 1982, *Chaotic attractors
    of an infinite-dimensional dynamical system*, Physica D 4, 366.
    """

    vector_field: Callable[..., Any]
    delay: float = eqx.field(static=True)
    points: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)

    def __init__(self, vector_field: Callable[..., Any], delay: float, points: int, substeps: int = 1):
        check_positive("delay", delay)
        for name, value, least in [("points", points, 4), ("substeps", substeps, 1)]:
            if value < least:
                raise ValueError(f"{name} must be at least {least}: got {value}.")
        self.vector_field, self.delay = vector_field, float(delay)
        self.points, self.substeps, self.state_size = points, substeps, points + 1

    @property
    def dt(self) -> float:
        """The time step, in the units of time of `f`."""
        return self.delay / self.points * self.substeps

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        undriven(s)
        return _advance(self, z)

    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Matrix]:
        """`(phi(z), d phi / dz)`, the second by forward mode through the method."""
        return dense_jacobian(self, z, s)


@eqx.filter_jit
def _advance(cell: DelayCell, z: Array) -> Array:
    """All substeps of one time step."""
    f, h = cell.vector_field, cell.delay / cell.points

    def step(_, z):
        x, (before, middle, after) = z[0], _oldest(z)
        k1 = f(x, before)
        k2 = f(x + h / 2 * k1, middle)
        k3 = f(x + h / 2 * k2, middle)
        k4 = f(x + h * k3, after)
        return jnp.concatenate([(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))[None], z[:-1]])

    return jax.lax.fori_loop(0, cell.substeps, step, z)


def _oldest(z: Array) -> tuple[Array, Array, Array]:
    """`x` at `t - tau`, `t - tau + h/2` and `t - tau + h`."""
    middle = (5 * z[-1] + 15 * z[-2] - 5 * z[-3] + z[-4]) / 16
    return z[-1], middle, z[-2]


EXPONENTS = {
    17.0: (0.00514, 0.0, -0.03887, -0.05259),
    23.0: (0.00952, 0.0, -0.01181, -0.0344),
    30.0: (0.00705, 0.00205, 0.0, -0.01631),
}
"""Leading exponents of `MackeyGlass` by delay."""


class MackeyGlass(AbstractSystem):
    """Blood cells: `x'(t) = beta x(t - tau) / (1 + x(t - tau)^n) - gamma x(t)`, through `DelayCell`.

    The state is the history `x(t), x(t - h), ..., x(t - tau)` with `h = step`: the series of the variable
    itself is the first, `"x"`. At the default step a run over one delay errs by 2e-6.

    **Arguments:** `tau`: the delay; `beta, gamma, n` as in the equation; `step`: `h`, of which `tau`, and the
    time step of a cell, must be whole multiples.

    **Raises:** `ValueError` unless `tau` is a whole multiple of `step`, at least 4.

    Reference: Mackey & Glass 1977, *Oscillation and chaos in physiological control systems*, Science 197,
    287; Farmer 1982, *Chaotic attractors of an infinite-dimensional dynamical system*, Physica D 4, 366, whose
    Kaplan-Yorke dimensions are 2.10 +- .02, 2.82 +- .03 and 3.58 +- .04 for `tau` of 17, 23 and 30, and
    exponents .00956, 0, -.0119, -.0344 for 23. The four leading exponents here, for these three delays, were
    measured with dsrecon (64 starts over 3 10^4 units of time each, standard errors up to 9e-5) and give
    2.13, 2.81 and 3.56. For `tau = 17` a largest exponent of .0056 is in circulation, 9 % above.
    """

    tau: float = eqx.field(default=17.0, converter=float)
    beta: float = eqx.field(default=0.2, converter=float)
    gamma: float = eqx.field(default=0.1, converter=float)
    n: float = eqx.field(default=10.0, converter=float)
    step: float = eqx.field(default=0.5, converter=float)

    time_step: ClassVar[float] = 1.0
    source: ClassVar[str] = (
        "Mackey & Glass 1977, Science 197, 287; exponents: measured with dsrecon, after Farmer 1982, Physica D 4, 366"
    )

    def __check_init__(self):
        check_positive("tau", self.tau)
        check_positive("step", self.step)
        if _multiple("tau", self.tau, self.step) < 4:
            raise ValueError(f"tau must be at least 4 steps: got {self.tau} of step={self.step}.")

    @property
    def names(self) -> tuple[str, ...]:
        return ("x", *(f"x(t-{i * self.step:g})" for i in range(1, round(self.tau / self.step) + 1)))

    @property
    def start(self) -> tuple[float, ...]:
        return (1.2,) * self.dimension

    @property
    def exponents(self) -> tuple[float, ...]:
        if self.tau not in EXPONENTS:
            raise ValueError(
                f"The exponents of MackeyGlass are known for tau of {sorted(EXPONENTS)}: got {self.tau}. "
                "Measure them with lyapunov_spectrum."
            )
        return eqx.tree_at(lambda s: s.tau, self, 17.0).at_standard(EXPONENTS[self.tau])

    def __call__(self, x: Inexact[Array, ""], delayed: Inexact[Array, ""]) -> Inexact[Array, ""]:
        """`dx/dt` at `x(t)` and `x(t - tau)`."""
        return self.beta * delayed / (1.0 + delayed**self.n) - self.gamma * x

    def cell(self, dt: float | None = None) -> DelayCell:
        """The flow map over `dt`. **Raises:** `ValueError` unless `dt` is a whole multiple of `step`."""
        dt = self.time_step if dt is None else dt
        check_positive("dt", dt)
        points = round(self.tau / self.step)
        return DelayCell(self, self.tau, points, _multiple("dt", dt, self.step))


def _multiple(name: str, value: float, step: float) -> int:
    """How many times `step` goes into a value; `ValueError` unless that is whole."""
    times = round(value / step)
    if times < 1 or abs(times * step - value) > 1e-9 * value:
        raise ValueError(f"{name} must be a whole multiple of step={step}: got {value}.")
    return times
