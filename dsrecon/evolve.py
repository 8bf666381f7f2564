"""`evolve`: run any cell over a whole sequence. How it is solved is one argument."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
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
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
    ) -> Trajectory:
        """Run `cell` from `z0`, `[m]` or a batch `[b, m]`; arguments are those of `evolve`, checked.

        Never raises for what happens on the way: that is in `result`.
        """


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
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
    ) -> Trajectory:
        batched = z0.ndim == 2
        if batched:
            inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), inputs)
        zs = recurrence(cell, z0, inputs, steps=steps, adjoint=self.adjoint, unroll=self.unroll)
        if batched:
            zs = jnp.moveaxis(zs, 0, 1)
        first = first_nonfinite(zs)
        ending = jax.vmap(_ending) if batched else _ending
        return Trajectory(zs, ending(first == zs.shape[-2]), {"first_nonfinite": first})


def _ending(good: Array):
    return RESULTS.where(good, RESULTS.successful, RESULTS.diverged)


def first_nonfinite(zs: Inexact[Array, "*b t m"]) -> Array:
    """Index along `t` of the first state with an infinity or NaN; `t` where there is none."""
    bad = ~jnp.all(jnp.isfinite(zs), axis=-1)
    return jnp.where(jnp.any(bad, axis=-1), jnp.argmax(bad, axis=-1), zs.shape[-2])


def evolve(
    cell: AbstractCell,
    z0: Inexact[Array, "*b m"],
    inputs: Inputs = None,
    *,
    steps: int | None = None,
    solver: AbstractSolver = Sequential(),
    throw: bool = True,
) -> Trajectory:
    """Run a cell: `z_t = cell(z_{t-1}, inputs_t)`.

    **Arguments:**

    - `cell`: any `AbstractCell`; a `Forced` cell is run under teacher forcing.
    - `z0`: initial state, `[m]`; or `[b, m]` for a batch of runs of one cell, whose gradients are then one product.
    - `inputs`: PyTree of arrays `[t, ...]` (`[b, t, ...]` for a batch), or `None` for an autonomous cell, which then
      needs `steps`.
    - `solver`: how (`Sequential()` by default).
    - `throw`: raise when a run diverges. With `False`, read `result` and `stats["first_nonfinite"]`.

    **Returns:** `Trajectory(zs, result, stats)`; `zs[..., t, :]` follows `inputs[..., t]`, and `z0` is not in `zs`.

    **Raises:** `ValueError` for a wrong shape or length; `RuntimeError` naming the step when a run diverges.
    """
    z0 = jnp.asarray(z0)
    if z0.ndim not in (1, 2) or z0.shape[-1] != cell.state_size:
        raise ValueError(
            f"z0 must have shape ({cell.state_size},), the cell's state, or (batch, {cell.state_size}): got {z0.shape}."
        )
    steps = _steps(z0.shape[:-1], inputs, steps)
    run = _solve(solver, cell, z0, inputs, steps)
    if not throw:
        return run
    first = run.stats["first_nonfinite"]
    if isinstance(first, Tracer):
        bad = jnp.any(first < run.zs.shape[-2])
        zs = eqx.error_if(run.zs, bad, RESULTS[RESULTS.diverged])
        return Trajectory(zs, run.result, run.stats)
    first = int(first.min())
    if first < run.zs.shape[-2]:
        raise RuntimeError(
            f"The run diverged: its state is not finite from step {first} of {run.zs.shape[-2]} on. "
            "Call with throw=False to have the states until then."
        )
    return run


def _steps(batch: tuple[int, ...], inputs: Inputs, steps: int | None) -> int:
    """Length of the run, from the inputs where there are any."""
    shapes = [x.shape for x in jax.tree.leaves(inputs)]
    lead = len(batch) + 1
    leads = {shape[:lead] for shape in shapes}
    if len(leads) > 1 or any(len(s) < lead or s[:-1] != batch for s in leads):
        wanted = "(time, ...)" if not batch else f"({batch[0]}, time, ...)"
        raise ValueError(f"inputs must share the leading axes {wanted}: got leaves of shape {shapes}.")
    found = leads.pop()[-1] if leads else None
    if found is None and steps is None:
        raise ValueError("steps must be given when there are no inputs.")
    if found is not None and steps not in (None, found):
        raise ValueError(f"steps={steps} contradicts inputs of length {found}.")
    length = steps if found is None else found
    if length is None or length < 1:
        raise ValueError(f"steps must be at least 1: got {length}.")
    return length


@eqx.filter_jit
def _solve(solver, cell, z0, inputs, steps):
    return solver.solve(cell, z0, inputs, steps)
