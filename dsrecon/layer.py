"""A layer from sequences to sequences that is a dynamical system: one set of parameters, three faces."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Shaped

from dsrecon._types import Inputs, Jacobian, Key, State
from dsrecon.cell import AbstractCell
from dsrecon.kernels.structure import apply

Steps = float | Shaped[Array | np.ndarray, ""] | Shaped[Array | np.ndarray, "t"]
"""A time step, or one a sample."""

Given = Shaped[Array | np.ndarray, "..."]
"""An array whose shape and type are checked with a message of its own."""


class Timed(NamedTuple):
    """The input of a cell whose steps are not all of one length, for one step or (leading axis `t`) for all of them.

    - `u` `[d]`: the input, held over the step; `None` for a cell that runs without.
    - `dt` scalar: the length of the step *before* this sample, in steps of the layer (1: as it was trained).
    """

    u: Any
    dt: Float[Array, "*t"]


class AbstractOutputCell(AbstractCell):
    """A cell that shows something: `z' = f(z, u)`, `y = g(z', u)`.

    Law: for the stepwise face of a layer, `output(z_t, u_t)` along `evolve(cell, zeros, u)` is `layer(u)`.
    """

    @abstractmethod
    def output(self, z: State, u: Inputs) -> Inexact[Array, "d"]:
        """`g(z, u)`: what is shown after the step that took the input `u` and gave the state `z`."""


class AbstractSequenceLayer(eqx.Module):
    """A causal system from `u` `[t, d]` to `y` `[t, d]`, with faces that agree.

    - **parallel**, `layer(u, dt)`: the whole sequence at once.
    - **stepwise**, `layer.cell(dt)`: the same as a cell, for streams, and for whatever takes cells.
    - **continuous**, where it has one: `AbstractContinuousLayer`.

    `dt` is the time between samples in units of that which the layer was trained at, 1 by default: a layer trained on
    samples `d` apart runs on samples `2 d` apart with `dt=2`. A vector `[t]` has one step a sample, the step before it.

    `dynamics` names the fields that make the state's dynamics (`A`, `B`, the step), which want a smaller learning rate
    than the rest and no weight decay.
    """

    width: eqx.AbstractVar[int]
    state_size: eqx.AbstractVar[int]
    dynamics: eqx.AbstractClassVar[tuple[str, ...]]

    @abstractmethod
    def __call__(self, u: Given, dt: Steps = 1.0, *, key: Key | None = None) -> Float[Array, "t d"]:
        """The layer along a whole sequence, from the state zero."""

    @abstractmethod
    def cell(self, dt: float | Shaped[Array, ""] | None = 1.0) -> AbstractOutputCell:
        """The layer step by step: state `[state_size]`, input `u` `[d]`; with `None`, input `Timed(u, dt)`."""


class AbstractContinuousLayer(AbstractSequenceLayer):
    """A layer that is a system in continuous time, `x' = f(x, u(t))`, `y = g(x, u)`; time in steps of the layer.

    Law: where the input is held over each step, and the layer discretised by zero-order hold, its solution at the
    samples is the state of `cell()`.
    """

    @abstractmethod
    def flow(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "m"]:
        """`dx/dt`, per step of the layer."""

    @abstractmethod
    def output(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "d"]:
        """`g(x, u)`."""

    @abstractmethod
    def advance(self, x: Float[Array, "m"], u: Float[Array, "d"], dt: Float[Array, ""]) -> Float[Array, "m"]:
        """The state one step of any length later, `u` held, by the layer's own rule of discretisation."""


class TimedCell(AbstractOutputCell):
    """A continuous layer step by step, each step of a length of its own: input `Timed(u, dt)`."""

    layer: AbstractContinuousLayer

    @property
    def state_size(self) -> int:
        return self.layer.state_size

    def __call__(self, z: Inexact[Array, "m"], s: Timed) -> Inexact[Array, "m"]:
        return self.layer.advance(z, s.u, s.dt)

    def linearise(self, z: Inexact[Array, "m"], s: Timed) -> tuple[State, Jacobian]:
        """`(f(z, s), J)`, `J` that of the layer's cell at this step, in its structure."""
        return self.layer.cell(s.dt).linearise(z, s.u)

    def output(self, z: State, u: Timed) -> Inexact[Array, "d"]:
        return self.layer.output(z, u.u)


class ChannelCell(AbstractOutputCell):
    """Linear systems side by side, one or several a channel: `z' = A z + B u`, `y = C z' + D u`.

    **Fields:** `A` `[c, c, d j]` blocks; `B`, `C` `[c, d, j]`; `D` `[d]`: channel `i` drives and reads the blocks
    `(i, 1..j)` alone. The state is `z.reshape(c, d, j)`.
    """

    A: Float[Array, "c c k"]
    B: Float[Array, "c d j"]
    C: Float[Array, "c d j"]
    D: Float[Array, "d"]

    @property
    def state_size(self) -> int:
        return self.B.size

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "d"] | None = None) -> Inexact[Array, "m"]:
        moved = apply(self.A, z)
        return moved if s is None else moved + (self.B * s[None, :, None]).reshape(-1)

    def linearise(
        self, z: Inexact[Array, "m"], s: Inexact[Array, "d"] | None = None
    ) -> tuple[State, Inexact[Array, "c c k"]]:
        """`(f(z, s), A)`, `A` in blocks."""
        return self(z, s), self.A

    def output(self, z: Inexact[Array, "m"], u: Inexact[Array, "d"]) -> Inexact[Array, "d"]:
        return jnp.sum(self.C * z.reshape(self.C.shape), (0, 2)) + self.D * u


class MixingCell(AbstractOutputCell):
    """One linear system of many inputs and outputs: `z' = A z + B u`, `y = C z' + D u`.

    **Fields:** `A` `[c, c, k]` blocks, `m = c k`; `B` `[m, d]`; `C` `[d, m]`; `D` `[d]`.
    """

    A: Float[Array, "c c k"]
    B: Float[Array, "m d"]
    C: Float[Array, "d m"]
    D: Float[Array, "d"]

    @property
    def state_size(self) -> int:
        return len(self.B)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "d"] | None = None) -> Inexact[Array, "m"]:
        moved = apply(self.A, z)
        return moved if s is None else moved + self.B @ s

    def linearise(
        self, z: Inexact[Array, "m"], s: Inexact[Array, "d"] | None = None
    ) -> tuple[State, Inexact[Array, "c c k"]]:
        """`(f(z, s), A)`, `A` in blocks."""
        return self(z, s), self.A

    def output(self, z: Inexact[Array, "m"], u: Inexact[Array, "d"]) -> Inexact[Array, "d"]:
        return self.C @ z + self.D * u


def sequence(u: Given, width: int) -> Float[Array, "t d"]:
    """The input of a layer as an array. **Raises** `ValueError` unless it is real, `[t, width]`, with a step."""
    if not jnp.issubdtype(u.dtype, jnp.floating):
        raise ValueError(f"u must be real floating point: got {u.dtype}. Convert it: u.astype(float).")
    if u.ndim != 2 or u.shape[1] != width or not len(u):
        raise ValueError(f"u must have shape [t, {width}], one row a step: got {list(u.shape)}.")
    return jnp.asarray(u)


def steps(dt: Any, length: int | None, dtype: Any) -> Float[Array, ""] | Float[Array, "t"]:
    """Time steps as an array, a scalar or `[length]`.

    **Raises:** `ValueError` for another shape, and for steps that are not positive and finite (where they are known:
    what is traced is not looked at).
    """
    shape = np.shape(dt)
    if shape != () and shape != (length,):
        wanted = "a scalar" if length is None else f"a scalar or one a sample, [{length}]"
        raise ValueError(f"dt must be {wanted}: got shape {list(shape)}.")
    if not isinstance(dt, Tracer):
        values = np.asarray(dt)
        if values.dtype.kind not in "fiu" or not (np.isfinite(values).all() and (values > 0).all()):
            bad = values if values.ndim == 0 else values[~(np.isfinite(values) & (values > 0))][0]
            raise ValueError(f"dt must be positive and finite: got {bad}.")
    return jnp.asarray(dt, dtype)


def steps_between(times: Shaped[np.ndarray, "t"], first: float | None = None) -> np.ndarray:
    """Steps `[t]` between samples at `times` `[t]`, for `layer(u, dt)`; in the units of the times.

    The first sample has no step before it: `first` is what is taken (default: the median of the others).

    **Raises:** `ValueError` for times that are not finite or do not increase, fewer than two without `first`.
    """
    times = np.asarray(times, float)
    if times.ndim != 1 or len(times) < (1 if first is not None else 2):
        raise ValueError(f"times must be [t], at least {1 if first is not None else 2}: got shape {list(times.shape)}.")
    between = np.diff(times)
    if not np.isfinite(times).all() or not (between > 0).all():
        at = int(np.argmin(np.isfinite(times[1:]) & (between > 0)))
        raise ValueError(f"times must increase: got {times[at]} and then {times[at + 1]}, at {at} and {at + 1}.")
    if first is not None and not (first > 0 and np.isfinite(first)):
        raise ValueError(f"first must be positive and finite: got {first}.")
    return np.concatenate([[np.median(between) if first is None else first], between])


def stepwise(layer: AbstractSequenceLayer, u: Given, dt: Any = 1.0) -> Float[Array, "t d"]:
    """The layer along a sequence, one step after the other: the slow twin of `layer(u, dt)`."""
    u = sequence(u, layer.width)
    given = steps(dt, len(u), u.dtype)
    timed = given.ndim > 0
    cell, inputs = layer.cell(None if timed else dt), Timed(u, given) if timed else u

    def step(z, s):
        z = cell(z, s)
        return z, cell.output(z, s)

    return jax.lax.scan(step, jnp.zeros(layer.state_size, u.dtype), inputs)[1]
