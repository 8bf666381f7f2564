"""What a run costs, by the loop and in blocks: a model of measured times, by which `Auto` chooses."""

from typing import NamedTuple

import jax
from jaxtyping import Array

from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.evolve import separate_units
from dsrecon.kernels import members
from dsrecon.kernels.program import work
from dsrecon.kernels.recurrence import serves
from dsrecon.newton.shooting import LANES, cut_up


class Outline(NamedTuple):
    """A step as the model sees it.

    - `path`: how it is run. `"kernel"`: in one kernel; `"units"`: in one kernel, a lane a unit that meets no other;
      `"loop"`: XLA's on an accelerator; `"cpu"`: XLA's on a CPU; `"beside"`: there, with the members of a batch side
      by side.
    - `programs` a sequence is run by, and what each of them does in a step: `products`, `sums`, `functions`.
    """

    path: str
    programs: int
    products: float
    sums: float
    functions: float


class Cost(NamedTuple):
    """Measured seconds, value and gradient, of the steps of one path.

    A step of `r` programs takes `step + step_work w + r (row + row_work w)`, where each does work of
    `w = products + sum_work sums + function_work functions`; on a CPU a sequence that is alone takes
    `alone + alone_work w`. `run` and `blocks`: of a run as such, by the loop and in blocks.
    """

    run: float
    blocks: float
    step: float
    step_work: float
    row: float
    row_work: float
    alone: float | None
    alone_work: float | None
    sum_work: float
    function_work: float

    def of_step(self, outline: Outline, rows: int) -> float:
        """Seconds of a step of `rows` sequences."""
        w = outline.products + self.sum_work * outline.sums + self.function_work * outline.functions
        if rows == 1 and self.alone is not None and self.alone_work is not None:
            return self.alone + self.alone_work * w
        return self.step + self.step_work * w + rows * outline.programs * (self.row + self.row_work * w)

    def of_run(self, outline: Outline, rows: int, steps: int, blocks: int) -> float:
        """Seconds of a run of `rows` sequences in so many blocks, which meet after a washout; 1: the loop."""
        if blocks == 1:
            return self.run + steps * self.of_step(outline, rows)
        length, washout = cut_up(steps, blocks)
        left = (steps - blocks * length) * self.of_step(outline, rows)
        return self.blocks + (washout + length) * self.of_step(outline, rows * blocks) + left


MEASURED = {
    "beside": Cost(6e-09, 6.2e-05, 1e-06, 1.4e-10, 1.1e-13, 8.5e-11, 7.4e-08, 2.3e-10, 8.0, 100.0),
    "cpu": Cost(6.2e-10, 1.4e-09, 6.8e-07, 7.8e-14, 2.4e-07, 6.5e-11, 3.8e-07, 7.3e-11, 8.0, 100.0),
    "kernel": Cost(0.00019, 0.00019, 3.6e-07, 1.5e-10, 1.7e-10, 7.5e-13, None, None, 1.4, 13.0),
    "loop": Cost(0.00094, 0.00099, 4.6e-06, 7.1e-10, 5e-10, 4.9e-13, None, None, 1.4, 13.0),
    "units": Cost(0.00014, 0.00018, 4.3e-08, 4.9e-11, 2.7e-10, 2.8e-13, None, None, 1.4, 13.0),
}
"""By path; `benchmarks/solver_costs.py fit` finds them from its measurements."""


def outlined(cell: AbstractCell, z0: Array, inputs: Inputs) -> Outline:
    """The outline of a step of a batch of runs from `z0` `[b, m]` along `inputs` `[b, t, ...]`."""
    done = work(cell, *members.one(z0, inputs))
    if jax.default_backend() == "cpu":
        return Outline("beside" if z0.shape[1] <= members.abreast(cell) else "cpu", 1, *done)
    units = separate_units(cell, z0, inputs, "auto")
    if not serves(cell, z0, inputs, engine="auto", units=units):
        return Outline("loop", 1, *done)
    if units is None:
        return Outline("kernel", 1, *done)
    programs = -(-units // LANES)
    return Outline("units", programs, *(x / programs for x in done))
