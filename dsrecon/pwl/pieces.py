"""A piecewise-linear cell as NumPy holds it: its gates, and the affine map of any region, in float64."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon._types import Inputs
from dsrecon.cell import AbstractPWLCell, AbstractPWLFlow

CHUNK = 4096
"""Regions evaluated in one call."""


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The map of a cell for one input: `z' = A_r z + h_r` where `G z + g > 0` has the signs `r`.

    Everything is NumPy in float64, the parameters taken as they are: of a cell in float32 this is the map of real
    numbers that these parameters make, of which the cell itself is a rounding.

    - `G` `[p, m]`, `g` `[p]`: the gates. A gate is open where its row is positive.
    - `moving` `[p]`: which gates depend on the state at all. The others are `fixed` `[p]` for ever.
    - `cell`, `s`: the cell in float64, and the input. `rounding`: what its parameters were rounded to, relatively.
    """

    cell: AbstractPWLCell | AbstractPWLFlow
    s: Any
    G: np.ndarray
    g: np.ndarray
    rounding: float = float(np.finfo(float).eps)

    @property
    def state_size(self) -> int:
        return self.G.shape[1]

    @property
    def moving(self) -> np.ndarray:
        return (self.G != 0).any(1)

    @property
    def fixed(self) -> np.ndarray:
        return ~self.moving & (self.g > 0)

    def affine(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`A` `[r, m, m]` and `h` `[r, m]` of the regions `bits` `[r, p]`."""
        count, m = len(bits), self.state_size
        A, h = np.empty((count, m, m)), np.empty((count, m))
        for first in range(0, count, CHUNK):
            part = bits[first : first + CHUNK]
            size = min(CHUNK, 1 << max(0, len(part) - 1).bit_length())  # few lengths are compiled
            filled = np.resize(part, (size, bits.shape[1])) if bits.shape[1] else np.zeros((size, 0), bool)
            with jax.enable_x64(True):
                A_, h_ = _affine(self.cell, jnp.asarray(filled), self.s)
                A[first : first + CHUNK], h[first : first + CHUNK] = A_[: len(part)], h_[: len(part)]
        return A, h

    def bits(self, z: np.ndarray) -> np.ndarray:
        """Which gates are open at states `[..., m]`: `[..., p]`."""
        return z @ self.G.T + self.g > 0

    def step(self, z: np.ndarray) -> np.ndarray:
        """The states `[n, m]` that follow `z` `[n, m]`: those of the map, or the field of a flow there."""
        A, h = self.affine(self.bits(z))
        return np.einsum("nij,nj->ni", A, z) + h

    def margin(self, z: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Distance of states `[..., m]` to the nearest border of the regions `bits` `[..., p]`; negative outside."""
        N, n = self.rows(bits)
        if not N.shape[-2]:
            return np.full(np.shape(z)[:-1], np.inf)
        return (np.einsum("...pm,...m->...p", N, z) + n).min(-1)

    def rows(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The half-spaces `N z + n > 0` whose intersection a region is, `[..., q, m]` and `[..., q]`, unit normals.

        Only gates that move are in it; `q` is their number.
        """
        sign = np.where(bits[..., self.moving], 1.0, -1.0)
        G, g = self.G[self.moving], self.g[self.moving]
        length = np.linalg.norm(G, axis=1)
        return sign[..., None] * (G / length[:, None]), sign * (g / length)

    def whole(self, bits: np.ndarray) -> np.ndarray:
        """Bits of the moving gates `[..., q]` with those of the fixed ones put in: `[..., p]`."""
        filled = np.empty((*bits.shape[:-1], len(self.g)), bool)
        filled[...] = self.fixed
        filled[..., self.moving] = bits
        return filled


def pieces(cell: Any, s: Inputs = None) -> Pieces:
    """The pieces of a map for one input.

    **Arguments:** `cell`: an `AbstractPWLCell`; `s`: the input of a step, held.

    **Raises:** `ValueError` for a cell that is not piecewise linear, or whose parameters are not finite.
    """
    if not isinstance(cell, AbstractPWLCell):
        why = "whose step is none: its field is (equilibria, limit_cycle)"
        why = why if isinstance(cell, AbstractPWLFlow) else "which has no regions to be solved in"
        raise ValueError(f"cell must be piecewise linear, an AbstractPWLCell: got {type(cell).__name__}, {why}.")
    return _taken(cell, s)


def field_pieces(cell: Any, s: Inputs = None) -> Pieces:
    """The pieces of the field of a flow for one input: `dz/dt = A_r z + h_r`.

    **Arguments:** `cell`: an `AbstractPWLFlow`; `s`: its input, held.

    **Raises:** `ValueError` for another cell, or one whose parameters are not finite.
    """
    if not isinstance(cell, AbstractPWLFlow):
        raise ValueError(
            "cell must follow a piecewise-linear differential equation, an AbstractPWLFlow: got "
            f"{type(cell).__name__}. A map's fixed points and cycles are found by fixed_points and cycles."
        )
    return _taken(cell, s)


def _taken(cell: Any, s: Inputs) -> Pieces:
    kinds = {leaf.dtype for leaf in jax.tree.leaves(cell) if eqx.is_inexact_array(leaf)}
    rounding = max((float(jnp.finfo(kind).eps) for kind in kinds), default=float(np.finfo(float).eps))
    with jax.enable_x64(True):
        cell, s = jax.tree.map(_double, (cell, s))
        G, g = (np.asarray(x, np.float64) for x in cell.gates(s))
    found = Pieces(cell, s, G, g, rounding)
    A, h = found.affine(np.ones((1, len(g)), bool))
    if not all(np.isfinite(x).all() for x in (G, g, A, h)):
        raise ValueError(f"cell must have finite parameters: this {type(cell).__name__} holds NaN or infinity.")
    return found


def _double(leaf: Any) -> Any:
    if eqx.is_array_like(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return jnp.asarray(np.asarray(leaf, np.float64))
    return leaf


@eqx.filter_jit
def _affine(cell: AbstractPWLCell | AbstractPWLFlow, bits: Any, s: Any) -> tuple[Any, Any]:
    A, h = eqx.filter_vmap(lambda region: cell.affine(region, s))(bits)
    return jnp.broadcast_to(A, (len(bits), *A.shape[-2:])), jnp.broadcast_to(h, A.shape[:2])
