"""The map that everything else runs, trains, measures and takes apart: `z -> z'`."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PyTree

from dsrecon._types import Inputs, Matrix, Region, State


class AbstractCell(eqx.Module):
    """A discrete-time dynamical system `z' = f(z, s)`: pure, unbatched, one step.

    A subclass holds its parameters as array leaves and its sizes as static fields. Write for one state;
    callers `jax.vmap` over batches and `eqx.filter_vmap` over ensembles.

    `linearise` is abstract so that each cell says what it knows of its own Jacobian: return
    `dense_jacobian(self, z, s)` where it knows nothing.
    """

    state_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        """One step: state `[m]` and external input (a PyTree, or `None`) to the next state `[m]`."""

    @abc.abstractmethod
    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Matrix]:
        """`(f(z, s), df/dz)`: the next state `[m]` and the Jacobian `[m, m]` at `z`."""


class AbstractPWLCell(AbstractCell):
    """A piecewise-linear cell. Law: `cell(z, s) == A @ z + h` with `A, h = affine(region(z, s), s)`.

    The region is `p` bits, one a gate, so there are at most `2^p` of them.
    """

    @abc.abstractmethod
    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Region:
        """Which gates are open at `z`: `p` booleans."""

    @abc.abstractmethod
    def affine(self, region: Region, s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        """The affine map of a region: `A` `[m, m]` and `h` `[m]`."""

    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Matrix]:
        """`(A z + h, A)` of the region that holds `z`: exact, no differentiation."""
        A, h = self.affine(self.region(z, s), s)
        return A @ z + h, A


class AbstractFamily(eqx.Module):
    """Cells of one kind, one for every condition: a subject, an experiment, a context that shows which system it is.

    Law: what `given` returns is a cell like any other. It is run, scored, taken apart and saved without the family.
    """

    state_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def given(self, condition: PyTree) -> AbstractCell:
        """The cell of a condition. What a condition is, a number or an array, the subclass says."""


def dense_jacobian(cell: AbstractCell, z: State, s: Inputs = None) -> tuple[State, Matrix]:
    """`(cell(z, s), d cell / dz)` by forward mode: `m` tangents pushed through one linearisation.

    **Arguments:** `cell`; `z`: state `[m]`; `s`: its input. **Returns:** next state `[m]`, Jacobian `[m, m]`.
    """
    value, push = jax.linearize(lambda z: cell(z, s), z)
    return value, jax.vmap(push, out_axes=1)(jnp.eye(z.size, dtype=z.dtype))
