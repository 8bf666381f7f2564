"""Piecewise-linear maps with known exponents: systems and cells at once."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._checks import undriven
from dsrecon._types import Inputs
from dsrecon.cell import AbstractPWLCell
from dsrecon.systems.known import AbstractSystem, check_map_step

DENOMINATORS = {jnp.dtype("float32"): 2096867.0, jnp.dtype("float64"): 1125899906840747.0}
"""Prime `C` of the full tent map: 2 bits below the precision, so that `u / C` has its `u` back by rounding."""


class AbstractPWLMap(AbstractSystem, AbstractPWLCell):
    """A known map that is linear on each of its regions: a system, and its own cell.

    Law, to rounding: `system(z) == A @ z + h` with `A, h = system.affine(system.region(z))`. The parameters
    are leaves of the PyTree, so `jax.tree.map(jnp.asarray, system)` is a cell with arrays for parameters.
    """

    def cell(self, dt: float | None = None) -> "AbstractPWLMap":
        """The map itself. **Raises:** `ValueError` when `dt` is neither `None` nor 1."""
        check_map_step(dt)
        return self

    @property
    def state_size(self) -> int:
        return self.dimension


class Tent(AbstractPWLMap):
    """The tent map on `[0, 1]`: `x' = slope min(x, 1 - x)`. Its exponent is `ln slope` exactly.

    At `slope = 2` plain binary arithmetic shifts out one bit a step, so that the computed orbit of any start
    is 0 after some 55 steps. There a step takes the state to the nearest fraction `u / C` of a prime `C`, and
    goes on to `2 u / C` or `2 (C - u) / C` without any error: these are exact orbits of the map, and none
    falls to 0. `C` is such (`(C - 1) / 2` is prime too, and `C` is 3 modulo 8) that 2 generates all residues:
    an orbit visits every even `u` once in `(C - 1) / 2` steps, which are 5.6 10^14 in float64 and 10^6 in
    float32. A loop of `A z + h` is plain arithmetic, and falls to 0.

    **Arguments:** `slope`: above 1 and up to 2.

    **Raises:** `ValueError` for another slope.

    Reference: Ott 2002, *Chaos in dynamical systems*, Cambridge University Press, 2.1.
    """

    slope: float = eqx.field(default=2.0, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x",)
    time_step: ClassVar[float] = 1.0
    start: ClassVar[tuple[float, ...]] = (0.3,)
    source: ClassVar[str] = "Ott 2002, Chaos in dynamical systems, Cambridge University Press"

    def __check_init__(self):
        if not 1 < self.slope <= 2:
            raise ValueError(f"slope must lie above 1 and be at most 2: got {self.slope}.")

    @property
    def exponents(self) -> tuple[float, ...]:
        return (math.log(self.slope),)

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        undriven(s)
        plain = self.slope * jnp.where(z > 0.5, 1.0 - z, z)
        full = (self.slope == 2.0) & (z >= 0) & (z <= 1)
        exact = jax.lax.stop_gradient(jnp.where(full, _full_tent(z), plain))
        return plain + (exact - jax.lax.stop_gradient(plain))  # the value of the one, the slope of the other

    def gates(self, s: Inputs = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        return jnp.ones((1, 1)), jnp.full(1, -0.5)

    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Bool[Array, "p"]:
        """`[x > 1/2]`."""
        return z > 0.5

    def affine(self, region: Bool[Array, "p"], s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        undriven(s)
        mu = jnp.asarray(self.slope)
        return jnp.where(region[None], -mu, mu), jnp.where(region, mu, jnp.zeros_like(mu))


class SkewTent(AbstractPWLMap):
    """The skew tent map on `[0, 1]`: `x' = x / c` up to `c`, `(1 - x) / (1 - c)` above.

    The uniform density is invariant, so the exponent is `-c ln c - (1 - c) ln(1 - c)` exactly.

    **Arguments:** `c`: where the top is, between 0 and 1 but not .5: that is the full tent map, whose orbits
    plain arithmetic loses (`Tent()` keeps them).

    **Raises:** `ValueError` for a `c` out of range, or .5.

    Reference: Billings & Bollt 2001, *Probability density functions of some skew tent maps*, Chaos, Solitons
    & Fractals 12, 365.
    """

    c: float = eqx.field(default=0.3, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x",)
    time_step: ClassVar[float] = 1.0
    start: ClassVar[tuple[float, ...]] = (0.4,)
    source: ClassVar[str] = "Billings & Bollt 2001, Chaos, Solitons & Fractals 12, 365"

    def __check_init__(self):
        _check_share("c", self.c, "Tent() keeps the orbits of the full tent map")

    @property
    def exponents(self) -> tuple[float, ...]:
        return (_entropy(self.c),)

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        undriven(s)
        # quotients round to at most 1, where A z + h may round above it, and leave [0, 1] for good
        return jnp.where(z > self.c, (1.0 - z) / (1.0 - self.c), z / self.c)

    def gates(self, s: Inputs = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        return jnp.ones((1, 1)), -jnp.asarray(self.c)[None]

    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Bool[Array, "p"]:
        """`[x > c]`."""
        return z > self.c

    def affine(self, region: Bool[Array, "p"], s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        undriven(s)
        up, down = 1.0 / jnp.asarray(self.c), 1.0 / (1.0 - jnp.asarray(self.c))
        return jnp.where(region[None], -down, up), jnp.where(region, down, jnp.zeros_like(down))


class Lozi(AbstractPWLMap):
    """The Hénon map with corners: `x' = 1 - a |x| + y`, `y' = b x`.

    Areas shrink everywhere by `b`, so the exponents sum to `ln b`.

    Reference: Lozi 1978, *Un attracteur étrange du type attracteur de Hénon*, Journal de Physique Colloques
    39, C5-9; Misiurewicz 1980, *Strange attractors for the Lozi mappings*, Annals of the New York Academy of
    Sciences 357, 348; exponents .47023, -1.16338: Sprott 2003, *Chaos and time-series analysis*.
    """

    a: float = eqx.field(default=1.7, converter=float)
    b: float = eqx.field(default=0.5, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y")
    time_step: ClassVar[float] = 1.0
    start: ClassVar[tuple[float, ...]] = (-0.1, 0.1)
    source: ClassVar[str] = (
        "Lozi 1978, Journal de Physique Colloques 39, C5-9; exponents: Sprott 2003, "
        "Chaos and time-series analysis, Oxford University Press"
    )

    @property
    def exponents(self) -> tuple[float, ...]:
        return self.at_standard((0.47023, -1.16338))

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        undriven(s)
        x, y = z
        return jnp.stack([1.0 - jnp.where(x > 0, self.a * x, -self.a * x) + y, self.b * x])

    def gates(self, s: Inputs = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        return jnp.array([[1.0, 0.0]]), jnp.zeros(1)

    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Bool[Array, "p"]:
        """`[x > 0]`."""
        return z[:1] > 0

    def affine(self, region: Bool[Array, "p"], s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        undriven(s)
        a, b = jnp.asarray(self.a), jnp.asarray(self.b)
        zero, one = jnp.zeros_like(a), jnp.ones_like(a)
        A = jnp.stack([jnp.stack([jnp.where(region[0], -a, a), one]), jnp.stack([b, zero])])
        return A, jnp.stack([one, zero])


class Baker(AbstractPWLMap):
    """The generalised baker's map of the unit square: it cuts at `y = alpha`, stretches in y, shrinks in x.

    `(x, y) -> (left x, y / alpha)` up to `y = alpha`, `(1/2 + right x, (y - alpha) / (1 - alpha))` above. The
    density is uniform in `y`, so the exponents are exactly

        -alpha ln alpha - (1 - alpha) ln(1 - alpha),   alpha ln left + (1 - alpha) ln right.

    **Arguments:** `alpha`: between 0 and 1 but not .5, where plain arithmetic loses the orbits, as it does
    those of the full tent map; `left`, `right`: above 0 and up to .5.

    **Raises:** `ValueError` for a number out of range.

    Reference: Farmer, Ott & Yorke 1983, *The dimension of chaotic attractors*, Physica D 7, 153.
    """

    alpha: float = eqx.field(default=0.4, converter=float)
    left: float = eqx.field(default=0.3, converter=float)
    right: float = eqx.field(default=0.4, converter=float)

    names: ClassVar[tuple[str, ...]] = ("x", "y")
    time_step: ClassVar[float] = 1.0
    start: ClassVar[tuple[float, ...]] = (0.2, 0.3)
    source: ClassVar[str] = "Farmer, Ott & Yorke 1983, Physica D 7, 153"

    def __check_init__(self):
        _check_share("alpha", self.alpha, "choose one next to it")
        for name, value in [("left", self.left), ("right", self.right)]:
            if not 0 < value <= 0.5:
                raise ValueError(f"{name} must lie above 0 and be at most 0.5: got {value}.")

    @property
    def exponents(self) -> tuple[float, ...]:
        shrink = self.alpha * math.log(self.left) + (1 - self.alpha) * math.log(self.right)
        return (_entropy(self.alpha), shrink)

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        undriven(s)
        x, y = z
        above = jnp.stack([0.5 + self.right * x, (y - self.alpha) / (1.0 - self.alpha)])
        return jnp.where(y > self.alpha, above, jnp.stack([self.left * x, y / self.alpha]))

    def gates(self, s: Inputs = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        return jnp.array([[0.0, 1.0]]), -jnp.asarray(self.alpha)[None]

    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Bool[Array, "p"]:
        """`[y > alpha]`."""
        return z[1:] > self.alpha

    def affine(self, region: Bool[Array, "p"], s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        undriven(s)
        alpha, left, right = (jnp.asarray(p) for p in (self.alpha, self.left, self.right))
        below = jnp.stack([left, 1.0 / alpha])
        above = jnp.stack([right, 1.0 / (1.0 - alpha)])
        h = jnp.stack([jnp.full_like(alpha, 0.5), -alpha / (1.0 - alpha)])
        return jnp.diag(jnp.where(region, above, below)), jnp.where(region, h, jnp.zeros_like(h))


def _full_tent(z: Array) -> Array:
    """The tent map of slope 2 on the fractions `u / C`, exactly."""
    if z.dtype not in DENOMINATORS:
        raise ValueError(f"z must be float32 or float64 for the full tent map: got {z.dtype}.")
    C = DENOMINATORS[z.dtype]
    u = jnp.round(z * C)
    return jnp.where(2 * u > C, 2 * (C - u), 2 * u) / C


def _entropy(share: float) -> float:
    """`-share ln share - (1 - share) ln(1 - share)`."""
    return -share * math.log(share) - (1 - share) * math.log1p(-share)


def _check_share(name: str, value: float, instead: str) -> None:
    """Raise `ValueError` unless a number lies between 0 and 1 and is not one half."""
    if not 0 < value < 1 or value == 0.5:
        raise ValueError(
            f"{name} must lie between 0 and 1 and not be 0.5, at which the orbits of plain arithmetic fall onto "
            f"a fixed point within 60 steps ({instead}): got {value}."
        )
