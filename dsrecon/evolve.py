"""`evolve`: run any cell over a whole sequence. How it is solved is one argument."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Inexact

from dsrecon._checks import whole
from dsrecon._results import RESULTS, Trajectory
from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.kernels.recurrence import ENGINES, fuses, recurrence, serves


class AbstractSolver(eqx.Module):
    """A way to find the states of `z_t = cell(z_{t-1}, inputs_t)`."""

    @abc.abstractmethod
    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
        guess: Inexact[Array, "*b t m"] | None = None,
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
    - `engine`: `"auto"`, all of it in one kernel on an NVIDIA GPU, where that serves, and else the compiled loop (on a
      CPU always); `stats["fused"]` says which it was. `"fused"` asks for the kernel by name: it takes small states, and
      cells of any size whose Jacobian is declared diagonal or in blocks, and is faster by one or two powers of ten.
      `"loop"` asks for the loop; `"interpreted"` runs the kernel on any platform, slowly: for tests.
    """

    adjoint: str = eqx.field(static=True, default="deferred")
    unroll: int = eqx.field(static=True, default=1)
    engine: str = eqx.field(static=True, default="auto")

    def __check_init__(self):
        if self.adjoint not in ("deferred", "direct"):
            raise ValueError(f'adjoint must be "deferred" or "direct": got {self.adjoint!r}.')
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {ENGINES}: got {self.engine!r}.")

    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
        guess: Inexact[Array, "*b t m"] | None = None,
    ) -> Trajectory:
        if guess is not None:
            raise ValueError("guess serves solvers that iterate, Newton and its like: Sequential has no use for one.")
        batched = z0.ndim == 2
        units = separate_units(cell, z0, inputs, self.engine)
        fused = self.adjoint == "deferred" and serves(cell, z0, inputs, engine=self.engine, units=units)
        zs = recurrence(
            cell, z0, inputs, steps=steps, adjoint=self.adjoint, unroll=self.unroll, engine=self.engine, units=units,
            batch_first=batched,
        )  # fmt: skip
        first = first_nonfinite(zs)
        ending = jax.vmap(_ending) if batched else _ending
        return Trajectory(
            zs, ending(first == zs.shape[-2]), {"first_nonfinite": first, "fused": jnp.full(first.shape, fused)}
        )


def separate_units(cell: AbstractCell, z0: Array, inputs: Inputs, engine: str) -> int | None:
    """How many units a cell has that do not meet, as it declares by its Jacobian; `None` where they do, and for an
    engine that does not ask, the loop's."""
    if not fuses(engine):
        return None
    batched = z0.ndim == 2
    now = jax.tree.map(lambda x: x[0, 0] if batched else x[0], inputs)
    J = eqx.filter_eval_shape(cell.linearise, z0[0] if batched else z0, now)[1]
    return None if J.ndim == 2 else J.shape[-1]


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
    guess: Inexact[Array, "*b t m"] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Run a cell: `z_t = cell(z_{t-1}, inputs_t)`.

    **Arguments:**

    - `cell`: any `AbstractCell`; a `Forced` cell is run under teacher forcing.
    - `z0`: initial state, `[m]`; or `[b, m]` for a batch of runs of one cell, whose gradients are then one product.
    - `inputs`: PyTree of arrays `[t, ...]` (`[b, t, ...]` for a batch), or `None` for an autonomous cell, which then
      needs `steps`. A cell that takes inputs runs without them as with inputs of zero.
    - `solver`: how (`Sequential()` by default; `Newton()` finds all steps at once, `Auto()` takes what should be the
      fastest).
    - `guess`: states to begin an iteration at, in the shape of `zs`: a run of a cell near this one (a warm start), say.
      For solvers that iterate; without it they take the guess that they were made with.
    - `throw`: raise when a run diverges or an iteration does not converge. With `False`, read `result` and `stats`.

    **Returns:** `Trajectory(zs, result, stats)`; `zs[..., t, :]` follows `inputs[..., t]`, and `z0` is not in `zs`.

    **Raises:** `ValueError` for a wrong shape or length, for inputs that are no arrays or that the cell does not take,
    and for a run that cannot end well because `z0` or `inputs` are not finite; `RuntimeError` naming the step when a
    run diverges or does not converge.
    """
    if not isinstance(solver, AbstractSolver):
        raise ValueError(f"solver must be a solver, Sequential() or Newton(), say: got {solver!r}.")
    if not isinstance(cell, AbstractCell):
        hint = " A model that was fitted has it as .cell." if hasattr(cell, "cell") else ""
        raise ValueError(f"cell must be a cell: got {type(cell).__name__}.{hint}")
    if z0 is None:
        raise ValueError(f"z0 must be the state before the first step, ({cell.state_size},): got None.")
    z0 = jnp.asarray(z0)
    if not jnp.issubdtype(z0.dtype, jnp.inexact):  # whole numbers are a state too
        z0 = z0.astype(jnp.result_type(float))
    if z0.ndim not in (1, 2) or z0.shape[-1] != cell.state_size:
        raise ValueError(
            f"z0 must have shape ({cell.state_size},), the cell's state, or (batch, {cell.state_size}): got {z0.shape}."
        )
    steps = _steps(z0.shape[:-1], inputs, steps)
    if guess is not None and guess.shape != (*z0.shape[:-1], steps, cell.state_size):
        raise ValueError(
            f"guess must have the shape of the states, {(*z0.shape[:-1], steps, cell.state_size)}: got {guess.shape}."
        )
    run = _solve(solver, cell, z0, inputs, steps, guess)
    return _checked(run, z0, inputs) if throw else run


def _checked(run: Trajectory, z0: Array, inputs: Inputs) -> Trajectory:
    """The run, if it ended well. **Raises** `RuntimeError` otherwise, at run time where it is traced."""
    steps = run.zs.shape[-2]
    diverged, inexact = run.result == RESULTS.diverged, run.result == RESULTS.not_converged
    if isinstance(diverged, Tracer):
        zs = run.zs
        if "first_inexact" in run.stats:  # a loop has nothing to converge: no check is compiled
            zs = eqx.error_if(zs, jnp.any(inexact), RESULTS[RESULTS.not_converged])
        zs = eqx.error_if(zs, jnp.any(diverged), RESULTS[RESULTS.diverged])
        return Trajectory(zs, run.result, run.stats)
    if (diverged | inexact).any():
        _check_finite(z0, inputs)
    if diverged.any():
        raise RuntimeError(
            f"The run diverged: its state is not finite from step {int(run.stats['first_nonfinite'].min())} of {steps} "
            "on. Call with throw=False to have the states until then."
        )
    if inexact.any():
        raise RuntimeError(
            f"The iteration did not converge: the states are inexact from step {int(run.stats['first_inexact'].min())} "
            f"of {steps} on, after {int(run.stats['iterations'].max())} iterations. {_ADVICE}"
        )
    return run


def _check_finite(z0: Array, inputs: Inputs) -> None:
    """Raise `ValueError` where a run could not end well, for what it was given."""
    for name, tree in (("z0", z0), ("inputs", inputs)):
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not jnp.isfinite(leaf).all():
                where = jnp.argwhere(~jnp.isfinite(leaf))[0].tolist()
                raise ValueError(f"{name} must be finite: got {leaf[tuple(where)]} at {where} of shape {leaf.shape}.")


_ADVICE = (
    "A free-running chaotic map takes about as many iterations as steps. Force it more strongly, give a nearer guess, "
    "a window or more iterations, ask for finish='sequential', or call with throw=False to have the states as they are."
)


def _steps(batch: tuple[int, ...], inputs: Inputs, steps: int | None) -> int:
    """Length of the run, from the inputs where there are any."""
    steps = None if steps is None else whole("steps", steps)
    leaves = jax.tree.leaves(inputs)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            hint = " Its numbers are .to_numpy()." if hasattr(leaf, "to_numpy") else ""
            raise ValueError(f"inputs must be arrays, or a PyTree of arrays: got {type(leaf).__name__}.{hint}")
    shapes = [x.shape for x in leaves]
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
def _solve(solver, cell, z0, inputs, steps, guess):
    return solver.solve(cell, z0, inputs, steps, guess)
