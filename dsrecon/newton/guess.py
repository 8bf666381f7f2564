"""Where an iteration over a whole sequence begins."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._types import Inputs, State, States
from dsrecon.cell import AbstractCell, Restart, Restarted
from dsrecon.kernels import linear_scan
from dsrecon.kernels.shift import preceding, shifted
from dsrecon.newton.composed import Composed
from dsrecon.readout import AbstractReadout, Forced, Forcing


class AbstractGuess(eqx.Module):
    """A first guess of the states of one run."""

    @abc.abstractmethod
    def __call__(self, cell: AbstractCell, z0: State, inputs: Inputs, steps: int) -> States:
        """States `[t, m]` to begin with, of the run of `cell` from `z0` `[m]` along `inputs` (leaves `[t, ...]`)."""


class Held(AbstractGuess):
    """The start state at every step."""

    def __call__(self, cell: AbstractCell, z0: State, inputs: Inputs, steps: int) -> States:
        return jnp.broadcast_to(z0, (steps, *z0.shape))


class Targets(AbstractGuess):
    """The states that the observations of a `Forced` cell would start a run at: `z_t = readout.start(x_{t+1})`.

    Step `t` is pulled towards `x_t` *before* it is taken, so the observation at the time of state `t` is that of the
    next step; the last step takes its own. Where observations are missing the guess holds what stands in their place.

    **Raises:** `ValueError` for a cell that is not forced.
    """

    def __call__(self, cell: AbstractCell, z0: State, inputs: Inputs, steps: int) -> States:
        found = forcing(cell, inputs)
        if found is None:
            raise ValueError(f"Targets needs a Forced cell, run with a Forcing: got {type(cell).__name__}.")
        readout, x = found
        return jax.vmap(readout.start)(shifted(x, x[-1], later=True)).astype(z0.dtype)


class Swept(AbstractGuess):
    """A guess swept over by the cell: `z_t <- f(z_{t-1}, s_t)` at all steps at once, some times.

    After `n` sweeps every state is where `n` steps lead from the guess `n` steps before: as near to the run as that
    many steps contract. A sweep is the cheapest thing that can be done, and where cells contract a few of them save an
    iteration.

    **Arguments:** `sweeps`: at least 1; `first`: what they begin at (`None`: targets of a `Forced` cell, else the start
    held). **Raises:** `ValueError` for `sweeps` below 1.
    """

    sweeps: int = eqx.field(static=True, default=4)
    first: AbstractGuess | None = None

    def __check_init__(self):
        if self.sweeps < 1:
            raise ValueError(f"sweeps must be at least 1: got {self.sweeps}.")

    def __call__(self, cell: AbstractCell, z0: State, inputs: Inputs, steps: int) -> States:
        zs = first_guess(self.first, cell, z0, inputs, steps)

        def sweep(_, zs):
            return jax.vmap(cell)(preceding(z0, zs), inputs)

        return jax.lax.fori_loop(0, self.sweeps, sweep, zs)


class CoarseToFine(AbstractGuess):
    """Every `stride`-th state first, by Newton steps on the map of `stride` steps; then those between, by the cell.

    The coarse problem has `T / stride` steps, whose slopes are products of `stride` Jacobians: its iterations hold
    `stride` times less at once, and take `stride` steps of a loop each. Given enough of them the coarse states are
    right, and with them the fine.

    **Arguments:** `stride`: at least 2; `iterations`: Newton steps on the coarse problem, at least 1; `first`: its own
    guess (`None`: targets of a `Forced` cell, else the start held).

    **Raises:** `ValueError` for a `stride` below 2 and `iterations` below 1.
    """

    stride: int = eqx.field(static=True, default=16)
    iterations: int = eqx.field(static=True, default=2)
    first: AbstractGuess | None = None

    def __check_init__(self):
        if self.stride < 2 or self.iterations < 1:
            raise ValueError(
                f"stride must be at least 2, iterations at least 1: got {self.stride} and {self.iterations}."
            )

    def __call__(self, cell: AbstractCell, z0: State, inputs: Inputs, steps: int) -> States:
        begin = first_guess(self.first, cell, z0, inputs, steps)
        count = steps // self.stride
        if count == 0:
            return begin
        whole = count * self.stride
        composed = Composed(cell, self.stride)
        groups = jax.tree.map(lambda x: x[:whole].reshape(count, self.stride, *x.shape[1:]), inputs)

        def improve(_, zs):
            before = jnp.concatenate([z0[None], zs[:-1]])
            values, slopes = jax.vmap(composed.linearise)(before, groups)
            new = zs + linear_scan(slopes, values - zs)
            return jnp.where(jnp.all(jnp.isfinite(new), axis=-1, keepdims=True), new, zs)

        coarse = jax.lax.fori_loop(0, self.iterations, improve, begin[self.stride - 1 : whole : self.stride])
        starts = jnp.concatenate([z0[None], coarse[:-1]])
        fine = jax.vmap(composed.states)(starts, groups).reshape(whole, -1)
        rest = jax.tree.map(lambda x: x[whole:], inputs)
        if whole == steps:
            return fine
        return jnp.concatenate([fine, Composed(cell, steps - whole).states(fine[-1], rest)])


def first_guess(guess: AbstractGuess | None, cell: AbstractCell, z0: State, inputs: Inputs, steps: int) -> States:
    """By the guess given; without one, the targets of a forced cell, else the start held."""
    if guess is None:
        guess = Held() if forcing(cell, inputs) is None else Targets()
    return guess(cell, z0, inputs, steps)


def forcing(cell: AbstractCell, inputs: Inputs) -> tuple[AbstractReadout, Inexact[Array, "t n"]] | None:
    """The readout of a forced cell and the observations that pull on it; `None` for any other cell."""
    if isinstance(cell, Restarted) and isinstance(inputs, Restart):
        return forcing(cell.cell, inputs.s)
    if isinstance(cell, Forced) and isinstance(inputs, Forcing):
        return cell.readout, inputs.x
    return None
