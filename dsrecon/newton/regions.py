"""Which piece of a piecewise-linear cell every step of a run lies on, through what is wrapped around it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from dsrecon._types import Inputs, Region, State, States
from dsrecon.cell import AbstractCell, AbstractPWLCell, Restarted
from dsrecon.kernels.mapped import mapped
from dsrecon.readout import Forced


def is_piecewise_linear(cell: AbstractCell) -> bool:
    """Whether the map is affine on regions that `region_of` can tell apart."""
    if isinstance(cell, Forced | Restarted):
        return is_piecewise_linear(cell.cell)
    return isinstance(cell, AbstractPWLCell)


def region_of(cell: AbstractCell, z: State, s: Any) -> Region:
    """The gates that are open when a cell takes its step from `z`; those of a forced cell after it is pulled."""
    if isinstance(cell, Forced):
        return region_of(cell.cell, cell.force(z, s), s.s)
    if isinstance(cell, Restarted):
        return region_of(cell.cell, jnp.where(s.new, s.start, z), s.s)
    assert isinstance(cell, AbstractPWLCell)
    return cell.region(z, s)


def changed_regions(
    cell: AbstractCell, old: States, new: States, inputs: Inputs, *, engine: Any = "auto"
) -> Int[Array, ""]:
    """How many steps lie in another region from the states `new` `[t, m]` than from `old`."""

    def differs(cell, old, new, s):
        return jnp.any(region_of(cell, old, s) != region_of(cell, new, s))

    return jnp.sum(mapped(differs, cell, old, new, inputs, engine=engine))
