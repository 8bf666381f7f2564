"""The continuous-time piecewise-linear RNN: its flow over a step, exact from one switching of a unit to the next."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Inputs, Key, Matrix, State
from dsrecon.cell import AbstractPWLFlow
from dsrecon.layer import Timed
from dsrecon.models._init import at_least_one, check_sizes, contracting_diagonal, input_matrix, offset
from dsrecon.models._walk import Field, frame, held, over, timed, velocity, walk


class Itinerary(NamedTuple):
    """An orbit in the pieces between switchings.

    - `times` `[k + 1]`: 0, the times at which units switch, the duration.
    - `regions` `[k, m]`: the units that are open in each piece.
    - `states` `[k + 1, m]`: the state at each of the times.
    """

    times: np.ndarray
    regions: np.ndarray
    states: np.ndarray


class ContinuousPLRNN(AbstractPWLFlow):
    """Continuous-time piecewise-linear RNN: the flow of `dz/dt = A z + W relu(z) + h (+ C s)` over one time step.

    Between two switchings of units the equation is linear, `dz/dt = A_r z + h_r`, and its flow known:
    `z(t + d) = z + d phi_1(d A_r) (A_r z + h_r)`, `phi_1(X) = (exp(X) - 1) / X`. The step follows it from piece to
    piece, with no error but rounding: no solver, no tolerance. The ends of the pieces are found with certainty, units
    that switch twice in quick succession included, and the derivatives are those of the exact flow, in forward and
    reverse mode, of any order. The input is held over the step.

    **Input:** `s` `[k]` or `None` for a step of length `dt`; `Timed(s, d)` for one of length `d dt`, so that
    `evolve(cell, z0, Timed(s, d))` takes steps of all lengths. `d` may be zero, never negative.

    **Fields:** `A` `[m]` (a diagonal), `W` `[m, m]` (full: a unit may have two rates), `h` `[m]`, `C` `[m, k]` or
    `None`, all per unit of time; `dt`; `limit`.

    **Arguments:** `state_size` m; `dt` step, in units of time; `input_size` k, 0 for none; `limit`: most pieces in one
    step. A piece ends where a unit switches, and after `1 / |A_r|`, in the least of three norms. A step that needs
    more pieces gives NaN, so that `evolve` reports it as diverged; so does a negative step. `key` for the start
    values, chosen so that the unit step starts like that of a `PLRNN`: `exp(A dt)` is the diagonal of
    `(R'R/m + I)` over its largest eigenvalue, `R` standard normal; `W dt, C dt ~ 0.01 N(0, 1)`; `h = 0`.

    An optimiser that moves all parameters alike (Adam) wants a unit of time in which they are of order one: that of
    the step, `dt=1`, serves; the time axis of a `Reconstruction` is not the cell's.

    **Raises:** `ValueError` for a size or `limit` below 1, a `dt` that is not positive and finite.

    Reference: Brändle et al. 2026, *Continuous-time piecewise-linear recurrent neural networks*, arXiv 2602.15649;
    Durstewitz 2017 (the map), PLoS Computational Biology 13, e1005542.
    """

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    dt: float = eqx.field(static=True)
    limit: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, dt: float = 1.0, *, input_size: int = 0, limit: int = 32, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        at_least_one(limit=limit)
        _check_positive("dt", dt)
        key_A, key_W, key_C = jax.random.split(key, 3)
        self.state_size, self.dt, self.limit = state_size, float(dt), limit
        self.A = jnp.log(contracting_diagonal(state_size, key=key_A)) / self.dt
        self.W = 0.01 / self.dt * jax.random.normal(key_W, (state_size, state_size))
        self.h = jnp.zeros(state_size)
        C = input_matrix(state_size, input_size, key=key_C)
        self.C = None if C is None else C / self.dt

    def field(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        """`dz/dt` at `z`, per unit of time."""
        return velocity(self._field(s), z)

    def gates(self, s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        """The identity and zero: a unit is open where it is positive."""
        return jnp.eye(self.state_size, dtype=self.h.dtype), jnp.zeros_like(self.h)

    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Bool[Array, "m"]:
        return z > 0

    def affine(self, region: Bool[Array, "m"], s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        return jnp.diag(self.A) + self.W * region[None, :].astype(self.W.dtype), self._field(s).b

    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        return _walk(self._field(s), z, self._duration(z, s), self.limit).end

    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Matrix]:
        """`(f(z, s), J)`, `J` the product of `exp(d A_r)` over the pieces `d`, the last one leftmost: exact."""
        field, duration = self._field(s), self._duration(z, s)
        path = _walk(field, z, duration, self.limit)
        lengths = timed(field, z, duration, held(path))
        start = jnp.eye(z.size, dtype=z.dtype)
        J = over(held(path), lengths, start, lambda Z, opened, h, *_: frame(field, Z, opened, h))
        return path.end, J * jnp.where(path.left == 0, 1, jnp.nan).astype(J.dtype)

    def pieces(self, z: Inexact[Array | np.ndarray, "m"], duration: float, s: Inputs = None) -> Itinerary:
        """The orbit from `z` over a duration, in units of time, as exact pieces; however many. On the host.

        Switching times are right to rounding over the rate at which the unit passes zero: in float64 to about 1e-14,
        relative, where it passes at a rate of order one. A unit that touches zero may or may not be said to switch.

        **Raises:** `ValueError` for a duration that is not positive and finite; `RuntimeError` where the orbit becomes
        infinite or NaN, or switches so fast that it does not get on.
        """
        _check_positive("duration", duration)
        z, field = jnp.asarray(z), self._field(s)
        start, left = np.asarray(z), jnp.asarray(duration, z.dtype)
        lengths, regions, states = [], [], []
        while left > 0:
            path = _walk(field, z, left, self.limit)
            count = int(path.count)
            z, before, left = path.states[count - 1] if count else z, left, path.left
            if not (jnp.isfinite(z).all() and left < before):
                raise RuntimeError(
                    f"The orbit cannot be followed beyond t = {duration - float(before):.6g} of {duration:g}: "
                    f"its state is then {np.asarray(states[-1][-1] if states else start).tolist()}."
                )
            lengths.append(np.asarray(path.lengths[:count], float))
            regions.append(np.asarray(path.regions[:count]))
            states.append(np.asarray(path.states[:count]))
        return _joined(start, *map(np.concatenate, (lengths, regions, states)))

    def _field(self, s: Inputs) -> Field:
        return Field(self.A, self.W, offset(self.h, self.C, s.u if isinstance(s, Timed) else s))

    def _duration(self, z: Array, s: Inputs) -> Array:
        step = jnp.asarray(self.dt, z.dtype)
        return step * s.dt if isinstance(s, Timed) else step


_walk = jax.jit(walk, static_argnums=3)
"""Compiled once even where a cell is called outside of any `jax.jit`."""


def _joined(z: np.ndarray, lengths: np.ndarray, regions: np.ndarray, states: np.ndarray) -> Itinerary:
    """Pieces of length zero left out, neighbours of one region made one."""
    some = lengths > 0
    lengths, regions, states = lengths[some], regions[some], states[some]
    last = np.append((regions[1:] != regions[:-1]).any(1), True)
    times = np.concatenate([[0.0], np.cumsum(lengths)[last]])
    return Itinerary(times, regions[last], np.concatenate([z[None], states[last]]))


def _check_positive(name: str, value: Any) -> None:
    """Raise `ValueError` unless a number is positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite: got {value}.")
