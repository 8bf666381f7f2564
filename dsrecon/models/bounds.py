"""How much can a cell stretch, anywhere? A bound from its parameters alone."""

from functools import singledispatch

import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._types import Scalar
from dsrecon.cell import AbstractCell
from dsrecon.models.alrnn import ALRNN
from dsrecon.models.dendritic import ClippedDendriticPLRNN, DendriticPLRNN
from dsrecon.models.plrnn import PLRNN, MeanCentredPLRNN
from dsrecon.models.shallow import ClippedShallowPLRNN, ShallowPLRNN


@singledispatch
def norm_bound(cell: AbstractCell) -> Scalar:
    """An upper bound of the spectral norm of the Jacobian in every region, from the parameters alone.

    Gates multiply by 0 or 1 (or add up to at most `sum |a|`), and centring is a projection. By the triangle inequality

    - AL-RNN, PLRNN, mean-centred PLRNN: `max |A| + |W|`;
    - dendritic PLRNN: `max |A| + |W| max(sum of the positive a, minus the sum of the negative)`;
    - clipped dendritic PLRNN: `max |A| + |W| sum |a|`;
    - shallow PLRNN, clipped or not: `max |A| + |W1| |W2|`.

    A forcing of at least `1 - 1 / norm_bound(cell)` never lets a gradient grow, but is stronger than data need:
    see `dsrecon.training.parameter_bound`.

    **Returns:** a scalar. **Raises:** `ValueError` for a cell of another kind: register a bound of your own with
    `norm_bound.register`.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """
    raise ValueError(
        f"no bound is known for {type(cell).__name__}: register one (@norm_bound.register), or take another estimator."
    )


@norm_bound.register(ALRNN)
@norm_bound.register(MeanCentredPLRNN)
def _(cell: ALRNN | MeanCentredPLRNN) -> Scalar:
    return _largest(cell.A) + _norm(cell.W)


@norm_bound.register(PLRNN)
def _(cell: PLRNN) -> Scalar:
    return _largest(cell.A) + _norm(cell.W - jnp.diag(jnp.diag(cell.W)))


@norm_bound.register(DendriticPLRNN)
def _(cell: DendriticPLRNN) -> Scalar:
    up = jnp.sum(jnp.maximum(cell.a, jnp.zeros_like(cell.a)))
    down = jnp.sum(jnp.maximum(-cell.a, jnp.zeros_like(cell.a)))
    return _largest(cell.A) + _norm(cell.W) * jnp.maximum(up, down)


@norm_bound.register(ClippedDendriticPLRNN)
def _(cell: ClippedDendriticPLRNN) -> Scalar:
    return _largest(cell.A) + _norm(cell.W) * jnp.sum(jnp.abs(cell.a))


@norm_bound.register(ShallowPLRNN)
@norm_bound.register(ClippedShallowPLRNN)
def _(cell: ShallowPLRNN | ClippedShallowPLRNN) -> Scalar:
    return _largest(cell.A) + _norm(cell.W1) * _norm(cell.W2)


def _largest(A: Float[Array, "m"]) -> Scalar:
    return jnp.max(jnp.abs(A))


def _norm(W: Float[Array, "i j"]) -> Scalar:
    return jnp.linalg.norm(W, 2)
