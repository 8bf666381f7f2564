"""Subjects that share their dynamics but for a few numbers each: a family of cells."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from dsrecon._checks import jax_key
from dsrecon._types import Key
from dsrecon.cell import AbstractCell, AbstractFamily

Leaves = Sequence[str] | Callable[[Any], Any] | None
"""Parameters of a cell: names of its fields (`"W"`, or dotted, `"cell.W"`); a function from the cell to one of them or
a tuple of them, as for `equinox.tree_at`; `None`: all."""


class Hierarchical(AbstractFamily):
    """One cell a subject, of few numbers each: `theta_j = theta_0 + sum_k l_jk P_k`.

    `theta` stands for every parameter of a cell, `theta_0` for what all subjects share. The `q` features `l_j` of
    subject `j` say how far its parameters lie in each of the shared directions `P_k`. Features and directions are
    learned together, from nothing but the trials: what distinguishes the subjects is read off the features.

    They are known up to a change of basis alone (`l -> l M`, `P -> M^-1 P`, and a shift into `theta_0`): `principal`
    chooses one. The paper has `theta_j = sum_k l_jk P_k`, without `theta_0`; here subjects begin as one cell, and a
    feature is a difference from the others.

    **Fields:** `shared`, a cell with the parameters `theta_0`; `directions`, the same cell with arrays `[q, ...]` for
    parameters that differ and `None` for all else; `features` `[subjects, q]`.

    **Arguments:** `cell`: any cell, whose parameters are where all begin; `subjects`: how many; `features` q, 0 for one
    cell that all share; `individual`: the parameters that may differ (all by default), see `Leaves`; `key` draws
    `l ~ 0.1 N(0, 1)`, and `P ~ N(0, 1)` times 0.1 of the root mean square of the parameter's array (0.01 for zeros).

    **Raises:** `ValueError` for less than one subject, features below 0, a cell without parameters, and `individual`
    that names none of them.

    Reference: Brenner et al. 2025, *Learning interpretable hierarchical dynamical systems models from time series
    data*, ICLR.
    """

    shared: AbstractCell
    directions: PyTree[Float[Array, "q ..."] | None]
    features: Float[Array, "j q"]

    def __init__(self, cell: AbstractCell, subjects: int, features: int = 2, *, individual: Leaves = None, key: Key):
        if subjects < 1 or features < 0:
            raise ValueError(
                f"subjects must be at least 1 and features at least 0: got subjects={subjects}, features={features}."
            )
        l_key, P_key = jax.random.split(jax_key(key))
        leaves, structure = jax.tree.flatten(_chosen(cell, individual))
        noise = jax.random.normal(P_key, (features, sum(x.size for x in leaves)))  # one draw: many compile slowly
        cuts = np.cumsum([x.size for x in leaves])[:-1]
        pieces = zip(leaves, jnp.split(noise, cuts, axis=1), strict=True)
        drawn = [_spread(x) * piece.reshape(features, *x.shape).astype(x.dtype) for x, piece in pieces]
        self.shared, self.directions = cell, jax.tree.unflatten(structure, drawn)
        self.features = 0.1 * jax.random.normal(l_key, (subjects, features), leaves[0].dtype)

    @property
    def state_size(self) -> int:
        return self.shared.state_size

    def given(self, condition: int | Int[Array, ""]) -> AbstractCell:
        """The cell of subject `condition`, a number from 0 on. **Raises:** `ValueError` for one that there is not.

        A traced number out of range gives a cell of NaN: nothing can be raised there.
        """
        return self.at(_of(self.features, condition))

    def at(self, features: Float[Array, "q"]) -> AbstractCell:
        """The cell with features `[q]`: a subject's, or any others. **Raises:** `ValueError` for another shape."""
        if features.shape != self.features.shape[1:]:
            raise ValueError(f"features must have shape {self.features.shape[1:]}: got {features.shape}.")
        moved, fixed = eqx.partition(self.shared, _like(self.shared, self.directions))
        theta = jax.tree.map(lambda x, P: x + jnp.tensordot(features, P, axes=1), moved, self.directions)
        return eqx.combine(theta, fixed)

    def principal(self) -> "Hierarchical":
        """The same cells in the principal axes of their parameters: the form to read features in.

        Features then have mean 0 and are uncorrelated over the subjects, directions have length 1 and are orthogonal,
        the first feature is the one by which the parameters differ most, and the largest of each is positive. With
        fewer subjects than features the last features are 0 (and their directions too). On the host, in float64.
        """
        leaves, structure = jax.tree.flatten(self.directions)
        l, (subjects, q) = np.asarray(self.features, np.float64), self.features.shape
        if not q:
            return self
        P = np.concatenate([np.asarray(x, np.float64).reshape(q, -1) for x in leaves], axis=1)
        mean, rank = l.mean(0), min(subjects, q)
        Q, R = np.linalg.qr(P.T)  # l P = (l R') Q', with orthonormal columns in Q
        U, spread, V = np.linalg.svd((l - mean) @ R.T, full_matrices=False)
        features, axes = np.zeros((subjects, q)), np.zeros_like(P)
        features[:, :rank], axes[:rank] = (U * spread)[:, :rank], (V @ Q.T)[:rank]
        largest = (np.abs(features) >= (1 - 1e-6) * np.abs(features).max(0)).argmax(0)  # the first, of two alike
        sign = np.where(features[largest, np.arange(q)] < 0, -1.0, 1.0)
        cuts = np.cumsum([x[0].size for x in leaves])[:-1]
        parts = np.split(sign[:, None] * axes, cuts, axis=1)
        moved = [jnp.asarray(part.reshape(x.shape), x.dtype) for part, x in zip(parts, leaves, strict=True)]
        kept = (
            self.at(jnp.asarray(mean, self.features.dtype)),
            jax.tree.unflatten(structure, moved),
            jnp.asarray(features * sign, self.features.dtype),
        )
        return eqx.tree_at(lambda family: (family.shared, family.directions, family.features), self, kept)


class Individual(AbstractFamily):
    """One cell a subject, with parameters of its own beside those that all share: `theta_j = (shared, own_j)`.

    The plain alternative to `Hierarchical` for a few parameters that are known to differ: a bias, a diagonal.

    **Fields:** `shared`, a cell (what it holds of the individual parameters is not used); `own`, the same cell with
    arrays `[subjects, ...]` for the individual parameters and `None` for all else.

    **Arguments:** `cell`: any cell, as which every subject begins; `subjects`: how many; `individual`: which parameters
    each has of its own, see `Leaves` (`None`: all of them, nothing is shared).

    **Raises:** `ValueError` for less than one subject, a cell without parameters, and `individual` that names none.
    """

    shared: AbstractCell
    own: PyTree[Float[Array, "j ..."] | None]

    def __init__(self, cell: AbstractCell, subjects: int, individual: Leaves):
        if subjects < 1:
            raise ValueError(f"subjects must be at least 1: got {subjects}.")
        chosen = _chosen(cell, individual)
        self.own = jax.tree.map(lambda x: jnp.broadcast_to(x, (subjects, *x.shape)), chosen)
        self.shared = cell

    @property
    def state_size(self) -> int:
        return self.shared.state_size

    def given(self, condition: int | Int[Array, ""]) -> AbstractCell:
        """The cell of subject `condition`, a number from 0 on; as for `Hierarchical`."""
        own = jax.tree.map(lambda x: _of(x, condition), self.own)
        return eqx.combine(own, self.shared)


def _chosen(cell: AbstractCell, individual: Leaves) -> PyTree:
    """The cell with its chosen parameters, and `None` for all else."""
    leaves, structure = jax.tree.flatten(cell)
    free = {i for i, x in enumerate(leaves) if eqx.is_inexact_array(x)}
    if individual is not None:
        numbered = jax.tree.unflatten(structure, range(len(leaves)))
        free &= set(jax.tree.leaves(_found(numbered, individual)))
    if not free:
        what = "" if individual is None else f" among {individual}"
        raise ValueError(f"individual must choose parameters of the cell: {type(cell).__name__} has none{what}.")
    return jax.tree.unflatten(structure, [x if i in free else None for i, x in enumerate(leaves)])


def _found(cell: Any, individual: Sequence[str] | Callable[[Any], Any]) -> Any:
    if callable(individual):
        return individual(cell)
    names = [individual] if isinstance(individual, str) else list(individual)
    try:
        return [operator.attrgetter(name)(cell) for name in names]
    except AttributeError as error:
        raise ValueError(f"individual must name fields of {type(cell).__name__}: got {names}. {error}.") from None


def _like(cell: AbstractCell, chosen: PyTree) -> PyTree:
    """True for the leaves of the cell that `chosen` has, False for the others."""
    return jax.tree.map(lambda x: x is not None, chosen, is_leaf=lambda x: x is None)


def _of(rows: Float[Array, "j ..."], subject: int | Int[Array, ""]) -> Float[Array, "..."]:
    """The row of a subject. **Raises** `ValueError` for one out of range, where its number is known."""
    if isinstance(subject, Tracer):
        return rows.at[subject].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    if not 0 <= int(subject) < len(rows):
        raise ValueError(f"subject must lie between 0 and {len(rows) - 1}: got {int(subject)}.")
    return rows[subject]


def _spread(x: Float[Array, "..."]) -> Float[Array, ""]:
    """A tenth of the root mean square of an array; 0.01 where it is zero."""
    rms = jnp.sqrt(jnp.mean(x**2))
    return jnp.where(rms > 0, 0.1 * rms, jnp.full_like(rms, 0.01))
