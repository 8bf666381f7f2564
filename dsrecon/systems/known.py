"""What a known system is: its law, and what the literature says of it."""

import abc
import dataclasses
import math
from typing import Any

import equinox as eqx
from jaxtyping import Array, Inexact

from dsrecon.cell import AbstractCell
from dsrecon.systems.cells import MapCell, ODECell, check_positive


class AbstractSystem(eqx.Module):
    """A system that is known: its law, and what the literature says of it.

    The fields of a subclass are its parameters (numbers; a dict holds several by name), but for those marked
    static, and these attributes, of the class or of the instance, describe it:

    - `names`: of its variables.
    - `time_step`: the sampling step to use where none is asked for; 1 for a map.
    - `start`: a state in the basin of the attractor, at the standard parameters.
    - `source`: where the system and its exponents come from.
    """

    names: eqx.AbstractVar[tuple[str, ...]]
    time_step: eqx.AbstractVar[float]
    start: eqx.AbstractVar[tuple[float, ...]]
    source: eqx.AbstractVar[str]

    @property
    @abc.abstractmethod
    def exponents(self) -> tuple[float, ...]:
        """The Lyapunov exponents that are known, per unit of time, descending, with natural logarithms.

        All of them where the state has few variables, and the leading ones of a partial differential or
        delay equation. **Raises:** `ValueError` at parameters for which they are not known.
        """

    @abc.abstractmethod
    def cell(self, dt: float | None = None) -> AbstractCell:
        """The system as a cell that advances time by `dt` (`time_step` where it is `None`)."""

    @property
    def dimension(self) -> int:
        """How many variables there are."""
        return len(self.names)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name: numbers, and where a system has them, text and nested lists of numbers."""
        found = {}
        for field in dataclasses.fields(self):
            if not field.metadata.get("static", False):
                value = getattr(self, field.name)
                found |= value if isinstance(value, dict) else {field.name: value}
        return found

    def at_standard(self, exponents: tuple[float, ...]) -> tuple[float, ...]:
        """`exponents` if the parameters are the standard (default) ones; for use in `exponents`.

        **Raises:** `ValueError` at other parameters, for which they do not hold.
        """
        standard = {field.name: field.default for field in dataclasses.fields(self)}
        if self.parameters != standard:
            raise ValueError(
                f"The exponents of {type(self).__name__} are known for {standard}: "
                f"got {self.parameters}. Measure them with lyapunov_spectrum."
            )
        return exponents


class AbstractFlow(AbstractSystem):
    """A system in continuous time, `dx/dt = f(x)`.

    `longest_step` is the longest Runge-Kutta step that its cell takes: a coarse sampling step is cut into
    substeps, so accuracy does not hang on the sampling.
    """

    longest_step: eqx.AbstractVar[float]

    @abc.abstractmethod
    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        """`f`: the rate of change at state `x` `[m]`."""

    def cell(self, dt: float | None = None) -> ODECell:
        """The flow map over `dt` in units of time. **Raises:** `ValueError` when `dt` is not positive."""
        dt = self.time_step if dt is None else dt
        check_positive("dt", dt)
        substeps = max(1, math.ceil(dt / self.longest_step - 1e-9))
        return ODECell(self, dt, self.dimension, substeps)


class AbstractMap(AbstractSystem):
    """A system in discrete time, `x' = f(x)`. Its unit of time is one step."""

    @abc.abstractmethod
    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        """`f`: the state `[m]` that follows `x` `[m]`."""

    def cell(self, dt: float | None = None) -> MapCell:
        """The map itself. **Raises:** `ValueError` when `dt` is neither `None` nor 1."""
        check_map_step(dt)
        return MapCell(self, self.dimension)


def check_map_step(dt: float | None) -> None:
    """Raise `ValueError` unless `dt` is `None` or 1, as it must be for a map."""
    if dt is not None and dt != 1:
        raise ValueError(f"dt of a map must be None or 1, its one time step: got {dt}.")
