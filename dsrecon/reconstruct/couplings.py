"""The couplings of a cell: which matrices hold them, which of them are zero, and what keeps these zero in a fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from dsrecon.cell import AbstractCell


def matrices(cell: AbstractCell, which: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the two-dimensional fields of trained arrays that begin with `W`; or `which`, checked.

    **Raises:** `ValueError` for a cell without such matrices, names that it has not, or twice.
    """
    found = [name for name, v in vars(cell).items() if eqx.is_inexact_array(v) and v.ndim == 2]
    if which is None:
        couplings = tuple(name for name in found if name.startswith("W"))
        if not couplings:
            raise ValueError(f"which must be given: no matrix of {type(cell).__name__} begins with W, it has {found}.")
        return couplings
    names = (which,) if isinstance(which, str) else tuple(which)
    if not names or not set(names) <= set(found) or len(set(names)) != len(names):
        raise ValueError(f"which must name matrices of {type(cell).__name__}, among {found}: got {which}.")
    return names


def zeros(cell: AbstractCell, which: Sequence[str]) -> dict[str, np.ndarray]:
    """Matrix to where it is exactly zero."""
    return {name: np.asarray(getattr(cell, name)) == 0 for name in which}


def cut(model: PyTree, absent: Mapping[str, np.ndarray], shares: np.ndarray) -> PyTree:
    """Stacked `Forced` models, of run `i` the smallest `shares[i]` of all couplings set to zero, by magnitude.

    **Arguments:** `model`: with a leading axis of runs; `absent`: matrix to the entries that were zero in the cell that
    all began with, which do not count (the diagonal that a PLRNN leaves out, say); `shares` `[r]`. What was cut before
    is zero, so it is among the smallest.
    """
    fields = [np.asarray(getattr(model.cell, name)) for name in absent]
    flat = np.concatenate([f.reshape(len(f), -1) for f in fields], axis=1)
    never = np.concatenate([v.ravel() for v in absent.values()])
    counts = never.sum() + np.round(shares * (~never).sum()).astype(int)
    order = np.argsort(np.abs(flat), axis=1, kind="stable")
    gone = np.argsort(order, axis=1) < counts[:, None]
    flat = np.where(gone, np.zeros_like(flat), flat)
    parts = np.split(flat, np.cumsum([f[0].size for f in fields])[:-1], axis=1)
    arrays = [jnp.asarray(p.reshape(f.shape)) for p, f in zip(parts, fields, strict=True)]
    return eqx.tree_at(lambda m: [getattr(m.cell, name) for name in absent], model, arrays)


def held(which: Sequence[str]) -> optax.GradientTransformation:
    """Sets the updates of those entries of the cell's matrices to zero that are zero at the start of a fit."""

    def leaves(model: PyTree) -> list[Any]:
        return [getattr(model.cell, name) for name in which]

    def init(params: PyTree) -> list[jax.Array]:
        return [w != 0 for w in leaves(params)]

    def update(updates: PyTree, state: list[jax.Array], params: PyTree = None) -> tuple[PyTree, list[jax.Array]]:
        moves = zip(leaves(updates), state, strict=True)
        kept = [jnp.where(jnp.broadcast_to(free, u.shape), u, jnp.zeros_like(u)) for u, free in moves]
        return eqx.tree_at(leaves, updates, kept), state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
