"""How observations pull on a state: `Forced`, a cell made of a cell and a readout."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from dsrecon._types import Inputs, Jacobian, State
from dsrecon.cell import AbstractCell, as_matrix, times_diagonal
from dsrecon.kernels import abreast, pullback, stages
from dsrecon.kernels.contraction import Within, rows_at_once
from dsrecon.readout.base import AbstractReadout


class Forcing(NamedTuple):
    """The input of a `Forced` cell for one step (or, with a leading axis `t`, for all of them).

    - `x`: the observation that pulls on the state, `[n]`.
    - `alpha`: how hard, 0 (free running) to 1 (the observed units are replaced).
    - `s`: external input of the cell itself, or `None`.
    - `mask`: channels that are observed and forced, `[n]`, or `None` for all. `x` must be finite even where
      the mask is false: NaN times zero is NaN.
    """

    x: Inexact[Array, "*t n"]
    alpha: Inexact[Array, "*t"]
    s: Inputs = None
    mask: Bool[Array, "*t n"] | None = None


class Forced(AbstractCell):
    """A cell whose state is pulled towards observations before each step: generalized teacher forcing.

    `z' = cell(z + alpha (encode(x, z, mask) - z), s)`

    with `alpha`, `x`, `mask` and `s` given as data (`Forcing`): constant forcing, sparse forcing (`alpha` is 0
    or 1 over time), missing observations and free running (`alpha = 0`) are the same cell.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.

    **Raises:** `ValueError` when the readout is for another state size.
    """

    cell: AbstractCell
    readout: AbstractReadout

    def __check_init__(self):
        if self.cell.state_size != self.readout.state_size:
            raise ValueError(
                f"readout.state_size must equal cell.state_size: "
                f"got {self.readout.state_size} and {self.cell.state_size}."
            )

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def force(self, z: Inexact[Array, "m"], s: Forcing) -> Inexact[Array, "m"]:
        """`z + alpha (encode(x, z, mask) - z)`."""
        if not isinstance(s, Forcing):
            raise ValueError(
                f"the inputs of a Forced cell must be a Forcing(x, alpha): got {type(s).__name__}. Unforced: its .cell."
            )
        return z + s.alpha * (self.readout.encode(s.x, z, s.mask) - z)

    def __call__(self, z: Inexact[Array, "m"], s: Forcing) -> Inexact[Array, "m"]:
        return self.cell(self.force(z, s), s.s)

    def linearise(self, z: Inexact[Array, "m"], s: Forcing) -> tuple[State, Jacobian]:
        """The cell's own linearisation at the forced state, times the derivative of the forcing.

        Under a `unitwise` readout that derivative is a diagonal, one tangent gives it, and the Jacobian keeps the
        structure of the cell's; under any other it is dense.
        """

        def force(z):
            return self.force(z, s)

        if self.readout.unitwise:
            forced, d = jax.jvp(force, (z,), (jnp.ones_like(z),))
            value, J = self.cell.linearise(forced, s.s)
            return value, times_diagonal(J, d)
        forced, push = jax.linearize(force, z)
        value, J = self.cell.linearise(forced, s.s)
        return value, as_matrix(J) @ jax.vmap(push, out_axes=1)(jnp.eye(z.size, dtype=z.dtype))


@stages.register(Forced)
def _(step: Forced):
    return step.force, lambda z, s: step.cell(z, s.s)


@abreast.register(Forced)
def _(step: Forced) -> int:
    return abreast(step.cell)


@pullback.register(Forced)
def _(
    step: Forced,
    zs: Inexact[Array, "n m"],
    inputs: Forcing,
    ls: Inexact[Array, "n m"],
    *,
    engine: Any = "loop",
    within: tuple[Within, ...] = (),
) -> tuple[Any, Array, Any]:
    """Through the cell at the forced states, in the way of the cell, and then through the forcing."""
    free, fixed = eqx.partition((step.readout, inputs._replace(s=None)), eqx.is_inexact_array)

    def force(free, zs):
        readout, pulls = eqx.combine(free, fixed)
        return jax.vmap(Forced(step.cell, readout).force)(zs, pulls)  # pyright: ignore[reportCallIssue]

    forced, pull = jax.vjp(force, free, zs)
    ((known, known_bar),) = within or [(None, None)]
    if known is not None and rows_at_once(step.cell, ls) < len(ls):
        forced = known
    cell_bar, forced_bar, s_bar = pullback(step.cell, forced, inputs.s, ls, engine=engine)
    forced_bar = forced_bar if known_bar is None else known_bar
    (readout_bar, pulls_bar), zs_bar = pull(forced_bar)
    step_bar = Forced(cell_bar, readout_bar)  # pyright: ignore[reportCallIssue]
    return step_bar, zs_bar, pulls_bar._replace(s=s_bar)
