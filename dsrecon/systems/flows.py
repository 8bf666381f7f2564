"""Flows of few variables: parameters, source, Lyapunov exponents."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon.systems.known import AbstractFlow


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
    source: ClassVar[str] = (
        "Lorenz 1963, Journal of the Atmospheric Sciences 20, 130; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((0.9056, 0.0, -14.5723))

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
    source: ClassVar[str] = (
        "Rössler 1976, Physics Letters A 57, 397; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((0.0714, 0.0, -5.3943))

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        x, y, z = x
        return jnp.stack([-y - z, x + self.a * y, self.b + z * (x - self.c)])


class Lorenz96(AbstractFlow):
    """Waves around a circle of latitude: `x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F`, indices modulo `n`.

    The quadratic terms conserve `sum x_i^2`, and phase space contracts everywhere at the same rate, so the
    exponents sum to `-n`.

    **Arguments:** `forcing`: `F`; `n`: how many variables, at least 4.

    **Raises:** `ValueError` when `n` is below 4.

    Reference: Lorenz 1996, *Predictability: a problem partly solved*, Proc. Seminar on Predictability, ECMWF;
    Karimi & Paul 2010, *Extensive chaos in the Lorenz-96 model*, Chaos 20, 043105. Spectra in print are of
    other sizes (36 and 40, mostly), so the exponents for `n = 10` are measured with dsrecon: 32 starts over
    6000 units of time each, standard errors up to .004.
    """

    forcing: float = eqx.field(default=8.0, converter=float)
    n: int = eqx.field(default=10)

    time_step: ClassVar[float] = 0.05  # six hours of weather (Lorenz 1996)
    longest_step: ClassVar[float] = 0.025  # errs by 1e-9 after one unit of time
    source: ClassVar[str] = (
        "Lorenz 1996, Predictability: a problem partly solved, Proc. Seminar on Predictability, ECMWF; "
        "exponents: measured with dsrecon"
    )

    def __check_init__(self):
        if self.n < 4:
            raise ValueError(f"n must be at least 4: got {self.n}.")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"x{i}" for i in range(self.n))

    @property
    def start(self) -> tuple[float, ...]:
        return (self.forcing + 1.0,) + (self.forcing,) * (self.n - 1)

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((1.185, 0.703, 0.092, 0.0, -0.438, -0.876, -1.32, -1.938, -2.814, -4.594))

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + self.forcing


class Chua(AbstractFlow):
    """Chua's circuit, piecewise linear: `x' = alpha (y - x - f(x))`, `y' = x - y + z`, `z' = -beta y`.

    `f(x) = -b x - (a - b) (|x + 1| - |x - 1|) / 2` has slope `-a` between its corners at -1 and 1, and `-b`
    outside. The attractor is the double scroll. The corners limit a Runge-Kutta method of any order to an
    error that falls with the square of its step.

    Reference: Matsumoto, Chua & Komuro 1985, *The double scroll*, IEEE Transactions on Circuits and Systems
    32, 797; exponents .3271, 0, -2.5197 (Kaplan-Yorke dimension 2.1298) for these parameters: Sprott 2003,
    *Chaos and time-series analysis*.
    """

    alpha: float = eqx.field(default=9.0, converter=float)
    beta: float = eqx.field(default=100 / 7, converter=float)
    a: float = eqx.field(default=8 / 7, converter=float)
    b: float = eqx.field(default=5 / 7, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    time_step: ClassVar[float] = 0.05
    longest_step: ClassVar[float] = 0.0125  # errs by 1e-4 after one unit of time
    start: ClassVar[tuple[float, ...]] = (0.0, 0.0, 0.6)
    source: ClassVar[str] = (
        "Matsumoto, Chua & Komuro 1985, IEEE Transactions on Circuits and Systems 32, 797; parameters and "
        "exponents: Sprott 2003, Chaos and time-series analysis, Oxford University Press"
    )

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((0.3271, 0.0, -2.5197))

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        x, y, z = x
        f = -self.b * x - (self.a - self.b) * (jnp.abs(x + 1.0) - jnp.abs(x - 1.0)) / 2
        return jnp.stack([self.alpha * (y - x - f), x - y + z, -self.beta * y])


class HindmarshRose(AbstractFlow):
    """A neuron that bursts: `x' = y - a x^3 + b x^2 - z + I`, `y' = c - d x^2 - y`, `z' = r (s (x - x_R) - z)`.

    `x` (membrane potential) and `y` are fast, `z` (adaptation) is slow, on the scale `1 / r`. At the default
    parameters bursts follow one another chaotically.

    **Arguments:** `current`: `I`; `rest`: `x_R`; `r, s, a, b, c, d` as in the equation.

    Reference: Hindmarsh & Rose 1984, *A model of neuronal bursting using three coupled first order
    differential equations*, Proceedings of the Royal Society B 221, 87. The exponents are measured with
    dsrecon (64 starts over 2 10^4 units of time each, standard error of the largest 7e-5): no figure in print
    for just these parameters was at hand, and Barrio & Shilnikov 2011, *Parameter-sweeping techniques for
    temporal dynamics of neuronal systems*, Journal of Mathematical Neuroscience 1, 6, show the largest as
    a colour.
    """

    current: float = eqx.field(default=3.25, converter=float)
    r: float = eqx.field(default=0.006, converter=float)
    s: float = eqx.field(default=4.0, converter=float)
    rest: float = eqx.field(default=-1.6, converter=float)
    a: float = eqx.field(default=1.0, converter=float)
    b: float = eqx.field(default=3.0, converter=float)
    c: float = eqx.field(default=1.0, converter=float)
    d: float = eqx.field(default=5.0, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    time_step: ClassVar[float] = 0.1
    longest_step: ClassVar[float] = 0.1  # errs by 1e-8 after one unit of time
    start: ClassVar[tuple[float, ...]] = (-1.0, 0.0, 3.0)
    source: ClassVar[str] = (
        "Hindmarsh & Rose 1984, Proceedings of the Royal Society B 221, 87; exponents: measured with dsrecon"
    )

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((0.01334, 0.0, -8.4156))

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        x, y, z = x
        return jnp.stack(
            [
                y - self.a * x**3 + self.b * x**2 - z + self.current,
                self.c - self.d * x**2 - y,
                self.r * (self.s * (x - self.rest) - z),
            ]
        )
