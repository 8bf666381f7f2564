"""Differential equations and maps as cells."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._types import Inputs, Matrix, State
from dsrecon.cell import AbstractCell, dense_jacobian

if TYPE_CHECKING:
    import diffrax


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
    solver: "diffrax.AbstractERK"
    dt: float = eqx.field(static=True)
    state_size: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)

    def __init__(
        self,
        vector_field: Callable[..., Any],
        dt: float,
        state_size: int,
        substeps: int = 1,
        solver: "diffrax.AbstractERK | None" = None,
    ):
        check_positive("dt", dt)
        for name, value in [("state_size", state_size), ("substeps", substeps)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}.")
        self.vector_field = vector_field
        self.dt, self.state_size, self.substeps = float(dt), state_size, substeps
        if solver is None:
            import diffrax  # here, as it is slow to import

            solver = diffrax.Dopri8()
        self.solver = solver

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


def check_positive(name: str, value: float) -> None:
    """Raise `ValueError` unless a number is positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite: got {value}.")
