"""Systems with known answers: parameters, source, Lyapunov exponents."""

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon.cell import AbstractCell
from dsrecon.systems.cells import MapCell, ODECell, check_positive

if TYPE_CHECKING:
    from typing import ClassVar as AbstractClassVar
else:
    from equinox import AbstractClassVar


class AbstractSystem(eqx.Module):
    """A system that is known: its law, and what the literature says of it.

    The fields of a subclass are its parameters (floats), and these class variables describe it:

    - `names`: of its variables.
    - `time_step`: the sampling step to use where none is asked for; 1 for a map.
    - `start`: a state in the basin of the attractor, at the standard parameters.
    - `standard_exponents`: the full Lyapunov spectrum per unit of time at the standard (default) parameters,
      descending, with natural logarithms.
    - `source`: where the system and these figures come from.
    """

    names: AbstractClassVar[tuple[str, ...]]
    time_step: AbstractClassVar[float]
    start: AbstractClassVar[tuple[float, ...]]
    standard_exponents: AbstractClassVar[tuple[float, ...]]
    source: AbstractClassVar[str]

    @abc.abstractmethod
    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        """The law at state `x` `[m]`: the rate of change of a flow, the next state of a map."""

    @abc.abstractmethod
    def cell(self, dt: float | None = None) -> AbstractCell:
        """The system as a cell that advances time by `dt` (`time_step` where it is `None`)."""

    @property
    def dimension(self) -> int:
        """How many variables there are."""
        return len(self.names)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters by name."""
        return {field.name: float(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @property
    def exponents(self) -> tuple[float, ...]:
        """`standard_exponents`. **Raises:** `ValueError` at other parameters, for which they do not hold."""
        standard = {field.name: field.default for field in dataclasses.fields(self)}
        if self.parameters != standard:
            raise ValueError(
                f"The exponents of {type(self).__name__} are known for {standard}: "
                f"got {self.parameters}. Measure them with lyapunov_spectrum."
            )
        return self.standard_exponents


class AbstractFlow(AbstractSystem):
    """A system in continuous time, `dx/dt = f(x)`.

    `longest_step` is the longest Runge-Kutta step that its cell takes: a coarse sampling step is cut into
    substeps, so accuracy does not hang on the sampling.
    """

    longest_step: AbstractClassVar[float]

    def cell(self, dt: float | None = None) -> ODECell:
        """The flow map over `dt` in units of time. **Raises:** `ValueError` when `dt` is not positive."""
        dt = self.time_step if dt is None else dt
        check_positive("dt", dt)
        substeps = max(1, math.ceil(dt / self.longest_step - 1e-9))
        return ODECell(self, dt, self.dimension, substeps)


class AbstractMap(AbstractSystem):
    """A system in discrete time, `x' = f(x)`. Its unit of time is one step."""

    def cell(self, dt: float | None = None) -> MapCell:
        """The map itself. **Raises:** `ValueError` when `dt` is neither `None` nor 1."""
        if dt is not None and dt != 1:
            raise ValueError(f"dt of a map must be None or 1, its one time step: got {dt}.")
        return MapCell(self, self.dimension)


class Lorenz63(AbstractFlow):
    """Convection in three modes: `x' = sigma (y - x)`, `y' = x (rho - z) - y`, `z' = x y - beta z`.

    Phase space contracts everywhere at the same rate, so the exponents sum to `-(sigma + 1 + beta)`.

    Reference: Lorenz 1963, *Deterministic nonperiodic flow*, Journal of the Atmospheric Sciences 20, 130;
    exponents .9056, 0, -14.5723 (Kaplan-Yorke dimension 2.062): Sprott 2003, *Chaos and time-series
    analysis*.
    """

    sigma: float = eqx.field(default=10.0, converter=float)
    rho: float = eqx.field(default=28.0, converter=float)
    beta: float = eqx.field(default=8 / 3, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    time_step: ClassVar[float] = 0.01
    longest_step: ClassVar[float] = 0.025  # errs by 6e-8 after one unit of time
    start: ClassVar[tuple[float, ...]] = (-8.0, 7.0, 27.0)
    standard_exponents: ClassVar[tuple[float, ...]] = (0.9056, 0.0, -14.5723)
    source: ClassVar[str] = (
        "Lorenz 1963, Journal of the Atmospheric Sciences 20, 130; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        x, y, z = x
        return jnp.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z])


class Roessler(AbstractFlow):
    """One fold: `x' = -y - z`, `y' = x + a y`, `z' = b + z (x - c)`.

    Reference: Rössler 1976, *An equation for continuous chaos*, Physics Letters A 57, 397; exponents .0714,
    0, -5.3943 (Kaplan-Yorke dimension 2.013): Sprott 2003, *Chaos and time-series analysis*.
    """

    a: float = eqx.field(default=0.2, converter=float)
    b: float = eqx.field(default=0.2, converter=float)
    c: float = eqx.field(default=5.7, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    time_step: ClassVar[float] = 0.1  # 59 samples a turn, which lasts 5.9 units of time
    longest_step: ClassVar[float] = 0.1  # errs by 5e-9 after ten units of time
    start: ClassVar[tuple[float, ...]] = (1.0, -5.0, 0.0)
    standard_exponents: ClassVar[tuple[float, ...]] = (0.0714, 0.0, -5.3943)
    source: ClassVar[str] = (
        "Rössler 1976, Physics Letters A 57, 397; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        x, y, z = x
        return jnp.stack([-y - z, x + self.a * y, self.b + z * (x - self.c)])


class Henon(AbstractMap):
    """Stretch and fold in the plane: `x' = 1 - a x^2 + y`, `y' = b x`.

    Areas shrink everywhere by `b`, so the exponents sum to `ln b`.

    Reference: Hénon 1976, *A two-dimensional mapping with a strange attractor*, Communications in
    Mathematical Physics 50, 69; exponents .41922, -1.62319: Sprott 2003, *Chaos and time-series analysis*.
    """

    a: float = eqx.field(default=1.4, converter=float)
    b: float = eqx.field(default=0.3, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y")
    time_step: ClassVar[float] = 1.0
    start: ClassVar[tuple[float, ...]] = (0.0, 0.0)
    standard_exponents: ClassVar[tuple[float, ...]] = (0.41922, -1.62319)
    source: ClassVar[str] = (
        "Hénon 1976, Communications in Mathematical Physics 50, 69; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        x, y = x
        return jnp.stack([1.0 - self.a * x**2 + y, self.b * x])


class Logistic(AbstractMap):
    """The logistic map `x' = r x (1 - x)` on `[0, 1]`; at `r = 4` its exponent is `ln 2` exactly.

    Numbers of finite precision are finitely many, so every computed orbit ends in a cycle, and at `r = 4`
    perhaps at the unstable fixed point 0. In float32 that comes within some thousands of steps: a long
    series is then a short cycle or zeros, and its statistics are not those of the map. Nothing here hides or
    mends that: use float64 (where cycles come after typically 10^7 steps or more).

    Reference: May 1976, *Simple mathematical models with very complicated dynamics*, Nature 261, 459.
    """

    r: float = eqx.field(default=4.0, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x",)
    time_step: ClassVar[float] = 1.0
    start: ClassVar[tuple[float, ...]] = (0.3,)
    standard_exponents: ClassVar[tuple[float, ...]] = (math.log(2.0),)
    source: ClassVar[str] = "May 1976, Nature 261, 459"

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        return self.r * x * (1.0 - x)
