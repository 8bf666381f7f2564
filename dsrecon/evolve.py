"""`evolve`: run any cell over a whole sequence. How it is solved is one argument."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._results import RESULTS, Trajectory
from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.kernels import recurrence


class AbstractSolver(eqx.Module):
    """A way to find the states of `z_t = cell(z_{t-1}, inputs_t)`."""

    @abc.abstractmethod
    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "m"],
        inputs: Inputs = None,
        steps: int | None = None,
    ) -> Trajectory:
        """Run `cell` from `z0` `[m]`; never raises for what happens on the way (that is in `result`)."""


class Sequential(AbstractSolver):
    """One step after the other, in a compiled loop.

    **Arguments:**

    - `adjoint`: `"deferred"` is hand-written reverse mode with one contraction for all parameter gradients: the
      one to train with. `"direct"` leaves differentiation to JAX: for Jacobian-vector products and higher orders.
    - `unroll`: steps in one turn of the loop; more compile longer and may run faster.
    """

    adjoint: str = eqx.field(static=True, default="deferred")
    unroll: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.adjoint not in ("deferred", "direct"):
            raise ValueError(f'adjoint must be "deferred" or "direct": got {self.adjoint!r}.')

    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "m"],
        inputs: Inputs = None,
        steps: int | None = None,
    ) -> Trajectory:
        zs = recurrence(cell, z0, inputs, steps=steps, adjoint=self.adjoint, unroll=self.unroll)
        first = first_nonfinite(zs)
        good = first == zs.shape[0]
        result = RESULTS.where(good, RESULTS.successful, RESULTS.diverged)
        return Trajectory(zs, result, {"first_nonfinite": first})


def first_nonfinite(zs: Inexact[Array, "t m"]) -> Array:
    """Index of the first row of `[t, m]` with an infinity or NaN; `t` where there is none."""
    bad = ~jnp.all(jnp.isfinite(zs), axis=1)
    return jnp.where(jnp.any(bad), jnp.argmax(bad), zs.shape[0])


def evolve(
    cell: AbstractCell,
    z0: Inexact[Array, "m"],
    inputs: Inputs = None,
    *,
    steps: int | None = None,
    solver: AbstractSolver = Sequential(),
    throw: bool = True,
) -> Trajectory:
    """Run a cell: `z_t = cell(z_{t-1}, inputs_t)`.

    **Arguments:**

    - `cell`: any `AbstractCell`; a `Forced` cell is run under teacher forcing.
    - `z0`: initial state, `[m]`.
    - `inputs`: PyTree with leading axis `t`, or `None` for an autonomous cell, which then needs `steps`.
    - `solver`: how (`Sequential()` by default).
    - `throw`: raise when the run diverges. With `False`, read `result` and `stats["first_nonfinite"]`.

    **Returns:** `Trajectory(zs, result, stats)`; `zs[t]` follows `inputs[t]`, and `z0` is not in `zs`.

    **Raises:** `ValueError` for a wrong shape or length; `RuntimeError` naming the step when the run diverges.
    """
    z0 = jnp.asarray(z0)
    if z0.shape != (cell.state_size,):
        raise ValueError(
            f"z0 must have shape ({cell.state_size},), the cell's state: got {z0.shape}. "
            "For a batch of runs, use jax.vmap."
        )
    lengths = {x.shape[0] if x.ndim else None for x in jax.tree.leaves(inputs)}
    if None in lengths or len(lengths) > 1:
        raise ValueError(
            "inputs must share one leading time axis: got leaves of shape "
            f"{sorted(x.shape for x in jax.tree.leaves(inputs))}."
        )
    if not lengths and steps is None:
        raise ValueError("steps must be given when there are no inputs.")
    if lengths and steps not in (None, *lengths):
        raise ValueError(f"steps={steps} contradicts inputs of length {lengths.pop()}.")
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}.")
    run = _solve(solver, cell, z0, inputs, steps)
    if not throw:
        return run
    first = run.stats["first_nonfinite"]
    if isinstance(first, jax.core.Tracer):
        zs = run.result.error_if(run.zs, run.result != RESULTS.successful)
        return Trajectory(zs, run.result, run.stats)
    if int(first) < run.zs.shape[0]:
        raise RuntimeError(
            f"The run diverged at step {int(first)} of {run.zs.shape[0]}: the state is "
            f"{run.zs[int(first)]}. Call with throw=False to have the states until then."
        )
    return run


@eqx.filter_jit
def _solve(solver, cell, z0, inputs, steps):
    return solver.solve(cell, z0, inputs, steps)
