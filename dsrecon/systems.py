"""Systems with known answers: flows (through diffrax), maps, their cells, and series simulated from them."""

import abc
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Inexact

from dsrecon._types import Inputs, Key, Matrix, State
from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.evolve import evolve

if TYPE_CHECKING:
    from typing import ClassVar as AbstractClassVar
else:
    from equinox import AbstractClassVar

RECIPE_FORMAT = 1
"""Version of what `simulate` hashes; it rises whenever the same recipe would give another series."""


class ODECell(AbstractCell):
    """The flow map of `dx/dt = f(x)` over one time step: `z' = phi_dt(z)`, by an explicit Runge-Kutta method.

    `dt` is cut into `substeps` equal steps `h` of `k_i = f(z + h sum_j a_ij k_j)`, `z <- z + h sum_i b_i
    k_i`, with the tableau `a, b` of `solver`. The steps are fixed, so the cell is one smooth function of `z`
    and of the parameters of `f`, in forward and in reverse mode. The stages are written out rather than
    looped over as `solver.step` does (same numbers, many times faster for small systems, and differentiable
    both ways).

    **Arguments:**

    - `vector_field`: `f`; an `equinox.Module` or other PyTree that is called as `f(x)`, `[m]` to `[m]`. A
      forced cell, `cell(z, s)` with `s` not `None`, calls `f(x, s)` and holds `s` constant over the time
      step.
    - `dt`: time step, in the units of time of `f`.
    - `state_size`: `m`.
    - `substeps`: Runge-Kutta steps in one time step.
    - `solver`: an explicit Runge-Kutta method of diffrax, for its tableau. The default `diffrax.Dopri8()` is
      of order 8: on Lorenz-63 at `h = .01` it errs by 4e-11 after one unit of time where `diffrax.Tsit5()`,
      at half the stages, errs by 5e-6.

    **Raises:** `ValueError` when `dt` is not positive and finite, or `substeps` or `state_size` is below 1.

    Reference: Prince & Dormand 1981, *High order embedded Runge-Kutta formulae*, Journal of Computational and
    Applied Mathematics 7, 67; Hairer, Nørsett & Wanner 1993, *Solving ordinary differential equations I*,
    II.5.
    """

    vector_field: Callable[..., Any]
    solver: diffrax.AbstractERK
    dt: float = eqx.field(static=True)
    state_size: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)

    def __init__(
        self,
        vector_field: Callable[..., Any],
        dt: float,
        state_size: int,
        substeps: int = 1,
        solver: diffrax.AbstractERK | None = None,
    ):
        _check_positive("dt", dt)
        for name, value in [("state_size", state_size), ("substeps", substeps)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}.")
        self.vector_field = vector_field
        self.dt, self.state_size, self.substeps = float(dt), state_size, substeps
        self.solver = diffrax.Dopri8() if solver is None else solver

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        return _flow(self, z, s)

    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Matrix]:
        """`(phi_dt(z), d phi_dt / dz)`, the second by forward mode through the method."""
        return dense_jacobian(self, z, s)


@eqx.filter_jit
def _flow(cell: ODECell, z: Array, s: Inputs) -> Array:
    """All substeps of one time step; compiled once even where the cell is called outside of any `jax.jit`."""
    f = cell.vector_field if s is None else lambda x: cell.vector_field(x, s)
    tableau: Any = cell.solver.tableau
    a, b = tableau.a_lower, tableau.b_sol
    rows = a if b[-1] != 0 else a[:-1]  # a last stage of no weight serves error estimates alone
    h = cell.dt / cell.substeps

    def step(_, z):
        k = [f(z)]

        def move(weights):  # z + h sum_j weights_j k_j
            hw = jnp.asarray(h * weights[: len(k)], z.dtype)
            return z + jnp.sum(hw[:, None] * jnp.stack(k), axis=0)

        for row in rows:
            k.append(f(move(row)))
        return move(b)

    return jax.lax.fori_loop(0, cell.substeps, step, z)


class MapCell(AbstractCell):
    """A map as a cell: `z' = f(z)`.

    **Arguments:** `map`: `f`, a callable PyTree, `[m]` to `[m]`; with input, `cell(z, s)` calls `f(z, s)`;
    `state_size`: `m`. **Raises:** `ValueError` when `state_size` is below 1.
    """

    map: Callable[..., Any]
    state_size: int = eqx.field(static=True)

    def __init__(self, map: Callable[..., Any], state_size: int):
        if state_size < 1:
            raise ValueError(f"state_size must be at least 1: got {state_size}.")
        self.map, self.state_size = map, state_size

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        return self.map(z) if s is None else self.map(z, s)

    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Matrix]:
        """`(f(z), df/dz)` by forward mode."""
        return dense_jacobian(self, z, s)


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
        _check_positive("dt", dt)
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


def simulate(
    system: AbstractSystem,
    steps: int,
    *,
    dt: float | None = None,
    start: Sequence[float] | np.ndarray | Array | None = None,
    discard: int = 1000,
    noise: float = 0.0,
    key: Key | None = None,
) -> xr.DataArray:
    """A series of a known system, with all that it takes to make it again.

    `x_i = phi_dt^(discard + i)(start) + noise * sd * e_i`, `i = 0 .. steps - 1`, with `e_i` standard normal
    and `sd` the standard deviation of each variable over the noiseless series: the noise is of the
    measurement alone.

    **Arguments:**

    - `system`: any `AbstractSystem`.
    - `steps`: samples wanted.
    - `dt`: sampling step, in the system's units of time (`system.time_step` by default; 1 for a map).
    - `start`: initial state, `[m]` (`system.start` by default).
    - `discard`: steps let go first, so that the series is on the attractor; the clock starts after them.
    - `noise`: a fraction of each variable's standard deviation (0.05 is 5 %). Needs `key`.
    - `key`: of the noise; without noise it plays no part.

    **Returns:** `[time, variable]`, float64 where JAX has it enabled and float32 elsewhere, with times `0,
    dt, ...`. Attributes, all of them text or numbers: `system`, `source`, `parameters` and `start` (JSON),
    `time_step`, `discard`, `noise`, and `recipe`: the SHA-256 of everything that determines the series,
    steps, method of integration, noise key and precision among it.

    **Raises:** `ValueError` for an argument out of range; `RuntimeError` when the run diverges.
    """
    _check_simulate(steps, dt, discard, noise, key)
    cell = system.cell(dt)
    dt = float(system.time_step if dt is None else dt)
    z0 = _check_start(system, system.start if start is None else start)
    total = discard + steps - 1
    rows = z0[None]
    if total > 0:
        rows = jnp.concatenate([rows, evolve(cell, z0, steps=total).zs])
    xs = np.asarray(rows)[discard:]
    recipe = _recipe(system, cell, steps, dt, z0, discard, noise, key)
    if noise > 0:
        assert key is not None
        e = np.asarray(jax.random.normal(key, xs.shape, xs.dtype))
        xs = xs + (noise * e * xs.std(axis=0)).astype(xs.dtype)
    return xr.DataArray(
        xs,
        dims=("time", "variable"),
        coords={"time": np.arange(steps) * dt, "variable": list(system.names)},
        name=type(system).__name__,
        attrs={
            "system": type(system).__name__,
            "source": system.source,
            "parameters": json.dumps(system.parameters),
            "start": json.dumps(z0.tolist()),
            "time_step": dt,
            "discard": int(discard),
            "noise": float(noise),
            "recipe": recipe,
        },
    )


def _recipe(system, cell, steps, dt, z0, discard, noise, key) -> str:
    recipe: dict[str, Any] = {
        "format": RECIPE_FORMAT,
        "system": f"{type(system).__module__}.{type(system).__qualname__}",
        "parameters": system.parameters,
        "steps": int(steps),
        "dt": dt,
        "start": z0.tolist(),
        "discard": int(discard),
        "noise": float(noise),
        "key": None,
        "dtype": str(z0.dtype),
    }
    if noise > 0:
        recipe["key"] = [str(jax.random.key_impl(key)), jax.random.key_data(key).tolist()]
    if isinstance(cell, ODECell):
        recipe["solver"] = [type(cell.solver).__name__, cell.substeps]
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_simulate(steps, dt, discard, noise, key) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}.")
    if dt is not None:
        _check_positive("dt", dt)
    if discard < 0:
        raise ValueError(f"discard must not be negative: got {discard}.")
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise must be a fraction of each variable's standard deviation, 0 or more: got {noise}.")
    if noise > 0 and key is None:
        raise ValueError(f"key must be given for noise={noise}, e.g. key=jax.random.key(0): got None.")


def _check_start(system: AbstractSystem, start: Any) -> Array:
    z0 = jnp.asarray(start, dtype=float)
    if z0.shape != (system.dimension,):
        raise ValueError(
            f"start must have shape ({system.dimension},), one value each of {system.names}: got {z0.shape}."
        )
    if not bool(jnp.all(jnp.isfinite(z0))):
        raise ValueError(f"start must be finite: got {z0.tolist()}.")
    return z0


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite: got {value}.")
