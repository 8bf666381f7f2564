"""The map that everything else runs, trains, measures and takes apart: `z -> z'`."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PyTree

from dsrecon._types import Inputs, Jacobian, Matrix, Region, State


class AbstractCell(eqx.Module):
    """A discrete-time dynamical system `z' = f(z, s)`: pure, unbatched, one step.

    A subclass holds its parameters as array leaves and its sizes as static fields. Write for one state;
    callers `jax.vmap` over batches and `eqx.filter_vmap` over ensembles.

    `linearise` is abstract so that each cell says what it knows of its own Jacobian, in its axes: `[m]` is diagonal,
    `[m, m]` dense, `[c, c, k]` blocks (`Jacobian`). Return `dense_jacobian(self, z, s)` where it knows nothing;
    `as_matrix` gives the dense form of all three, and `check_linearise` finds a structure that is not true.
    """

    state_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "m"]:
        """One step: state `[m]` and external input (a PyTree, or `None`) to the next state `[m]`."""

    @abc.abstractmethod
    def linearise(self, z: Inexact[Array, "m"], s: Inputs = None) -> tuple[State, Jacobian]:
        """`(f(z, s), df/dz)`: the next state `[m]` and the Jacobian at `z`, `[m]`, `[m, m]` or `[c, c, k]`."""


class AbstractPWLCell(AbstractCell):
    """A piecewise-linear cell. Law: `cell(z, s) == A @ z + h` with `A, h = affine(region(z, s), s)`.

    The region is `p` bits, one a gate, so there are at most `2^p` of them. A gate is open where an affine function of
    the state is positive, so a region is a polyhedron: `region(z, s) == G @ z + g > 0` with `G, g = gates(s)`.
    """

    @abc.abstractmethod
    def gates(self, s: Inputs = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        """The hyperplanes between the regions: `G` `[p, m]` and `g` `[p]`. A gate that never changes has a row of 0."""

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


class AbstractPWLFlow(AbstractCell):
    """A cell that follows a piecewise-linear differential equation for one time step.

    Laws: `dz/dt = A z + h` with `A, h = affine(region(z, s), s)`; `region(z, s) == G z + g > 0` with
    `G, g = gates(s)`; and the field is continuous from one region to the next. The step itself is not piecewise
    linear: what it makes of a state depends on when the orbit passes from region to region.
    """

    @abc.abstractmethod
    def gates(self, s: Inputs = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        """The hyperplanes between the regions: `G` `[p, m]` and `g` `[p]`."""

    @abc.abstractmethod
    def region(self, z: Inexact[Array, "m"], s: Inputs = None) -> Region:
        """Which gates are open at `z`: `p` booleans."""

    @abc.abstractmethod
    def affine(self, region: Region, s: Inputs = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        """The field of a region, per unit of time: `A` `[m, m]` and `h` `[m]`."""


class AbstractFamily(eqx.Module):
    """Cells of one kind, one for every condition: a subject, an experiment, a context that shows which system it is.

    Law: what `given` returns is a cell like any other. It is run, scored, taken apart and saved without the family.
    """

    state_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def given(self, condition: PyTree) -> AbstractCell:
        """The cell of a condition. What a condition is, a number or an array, the subclass says."""


class Restart(NamedTuple):
    """The input of a `Restarted` cell for one step (or, with a leading axis `t`, for all of them).

    - `new`: whether a trial begins with this step.
    - `start`: the state that it begins from, `[m]`; not looked at in other steps, but finite or not it must be there.
    - `s`: external input of the cell itself, or `None`.
    """

    new: Bool[Array, "*t"]
    start: Inexact[Array, "*t m"]
    s: Inputs = None


class Restarted(AbstractCell):
    """A cell for several trials in one sequence: `z' = cell(start where new, else z; s)`.

    With `new`, `start` and `s` given as data (`Restart`). Nothing of a trial reaches the next: the Jacobian is zero
    there, in the structure of the cell's own, and a NaN stays in the trial that it arose in, in values and in
    gradients by states. (By parameters, which the trials share, a trial of NaN gives a gradient of NaN.)
    """

    cell: AbstractCell

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def __call__(self, z: Inexact[Array, "m"], s: Restart) -> Inexact[Array, "m"]:
        return self.cell(jnp.where(s.new, s.start, z), s.s)

    def linearise(self, z: Inexact[Array, "m"], s: Restart) -> tuple[State, Jacobian]:
        value, J = self.cell.linearise(jnp.where(s.new, s.start, z), s.s)
        return value, jnp.where(s.new, jnp.zeros((), J.dtype), J)


def dense_jacobian(cell: AbstractCell, z: State, s: Inputs = None) -> tuple[State, Matrix]:
    """`(cell(z, s), d cell / dz)` by forward mode: `m` tangents pushed through one linearisation.

    **Arguments:** `cell`; `z`: state `[m]`; `s`: its input. **Returns:** next state `[m]`, Jacobian `[m, m]`.
    """
    value, push = jax.linearize(lambda z: cell(z, s), z)
    return value, jax.vmap(push, out_axes=1)(jnp.eye(z.size, dtype=z.dtype))


def as_matrix(J: Jacobian) -> Matrix:
    """The dense form `[m, m]` of a Jacobian of any structure; a dense one is returned as it is.

    **Arguments:** `J`: diagonal `[m]`, dense `[m, m]`, or blocks `[c, c, k]`, component-major, `m = c k`.
    """
    if J.ndim == 2:
        return J
    if J.ndim == 1:
        return jnp.diag(J)
    c, _, k = J.shape
    blocks = jnp.where(jnp.eye(k, dtype=bool)[None, :, None, :], J.swapaxes(1, 2)[..., None], jnp.zeros((), J.dtype))
    return blocks.reshape(c * k, c * k)


def times_diagonal(J: Jacobian, d: Inexact[Array, "m"]) -> Jacobian:
    """`J diag(d)`: the structure stays what it is."""
    if J.ndim == 1:
        return J * d
    return J * d[None] if J.ndim == 2 else J * d.reshape(J.shape[1:])[None]


def check_linearise(cell: AbstractCell, z: Inexact[Array, "*t m"], s: Inputs = None) -> None:
    """Raise `ValueError` where `cell.linearise` is not `cell` and its derivative: a check for cells of your own.

    A Jacobian that is declared diagonal or in blocks, but has other entries, is found out if these are not zero at the
    given states. An entry is in error if it differs from that of forward mode by more than the square root of the
    rounding unit, relative to the largest entry of its Jacobian: what differs by less may be rounding, in any cell.

    **Arguments:** `cell`; `z`: a state `[m]`, or several `[t, m]`; `s`: the input of that step, or of each, with
    leading axis `t`.

    **Raises:** `ValueError` naming the cell, the structure that it declares, and the entry that is most in error.
    """
    name, m = f"{type(cell).__name__}.linearise", cell.state_size
    if z.ndim == 1:
        z, s = z[None], jax.tree.map(lambda x: x[None], s)
    value, J = eqx.filter_eval_shape(jax.vmap(cell.linearise), z, s)
    structure = {(m,): "diagonal", (m, m): "dense"}.get(J.shape[1:])
    if J.ndim == 4 and J.shape[1] == J.shape[2] and J.shape[1] * J.shape[3] == m:
        structure = "blocks"
    if value.shape != z.shape or structure is None:
        raise ValueError(
            f"{name} must return a state [{m}] and a Jacobian [{m}], [{m}, {m}] or [c, c, k] with c k = {m}: "
            f"got {value.shape[1:]} and {J.shape[1:]}."
        )
    found, wanted = _both(cell, z, s)
    declared = f"{name} declares a Jacobian of shape {list(J.shape[1:])} ({structure})"
    for what, ours, theirs in zip((f"{name} must return the next state", declared), found, wanted, strict=True):
        _compare(what, np.asarray(ours), np.asarray(theirs))


@eqx.filter_jit
def _both(cell: AbstractCell, z: Inexact[Array, "t m"], s: Inputs):
    """Next states `[t, 1, m]` and dense Jacobians `[t, m, m]`, by `linearise` and by forward mode."""

    def dense(pair):
        return pair[0][None], as_matrix(pair[1])

    return jax.vmap(lambda z, s: (dense(cell.linearise(z, s)), dense(dense_jacobian(cell, z, s))))(z, s)


def _compare(what: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """**Raises** `ValueError` for the entry that is most in error. Entries below the rounding unit count as zero."""
    unit = np.finfo(wanted.dtype).eps
    size = np.abs(wanted).max((1, 2), keepdims=True)
    error = np.abs(found - wanted) / np.maximum(size, unit**0.5)
    error = np.where(np.isnan(error), np.inf, error)
    wrong = int((error > unit**0.5).sum())
    if wrong:
        t, i, j = (int(x) for x in np.unravel_index(error.argmax(), error.shape))
        raise ValueError(
            f"{what}, but at state {t} its entry [{i}, {j}] is {found[t, i, j]:.6g} where forward mode gives "
            f"{wanted[t, i, j]:.6g}; {wrong} of {error.size} entries are in error."
        )
