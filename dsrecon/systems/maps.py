"""Smooth maps: parameters, source, Lyapunov exponents."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon.systems.known import AbstractMap


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
    source: ClassVar[str] = (
        "Hénon 1976, Communications in Mathematical Physics 50, 69; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((0.41922, -1.62319))

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
    source: ClassVar[str] = "May 1976, Nature 261, 459"

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((math.log(2.0),))

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        return self.r * x * (1.0 - x)
