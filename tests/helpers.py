"""The instances under the conformance suite. A new cell, readout or solver is one row here: no test names it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon.cell import AbstractCell, AbstractPWLCell
from dsrecon.evolve import AbstractSolver, Sequential
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.readout import AbstractReadout, Forced, Forcing, IdentityReadout
from dsrecon.systems import MapCell, ODECell


class CellRow(NamedTuple):
    """A cell under test: its name, `key -> cell`, and `key -> s`, one step's input (`None`: it runs without)."""

    name: str
    make: Callable[[Any], AbstractCell]
    input: Callable[[Any], Any] | None = None


class ReadoutRow(NamedTuple):
    """A readout under test: its name and `key -> readout`."""

    name: str
    make: Callable[[Any], AbstractReadout]


class SolverRow(NamedTuple):
    """A solver under test; `forward`: it can be differentiated in forward mode too."""

    name: str
    solver: AbstractSolver
    forward: bool = False


class Oscillator(eqx.Module):
    """Van der Pol's, driven: `x'' = mu (1 - x^2) x' - x + s`."""

    mu: Array

    def __call__(self, x, s):
        return jnp.stack([x[1], self.mu * (1 - x[0] ** 2) * x[1] - x[0] + s])


class Tanh(eqx.Module):
    """`tanh(W x + b)`."""

    W: Array
    b: Array

    def __call__(self, x):
        return jnp.tanh(self.W @ x + self.b)


def normal(*shape: int) -> Callable[[Any], Array]:
    return lambda key: jax.random.normal(key, shape)


def forcing(key):
    """One step of partial forcing of two channels, with external input."""
    return Forcing(normal(2)(key), jnp.asarray(0.3), normal(2)(key), jnp.array([True, False]))


CELLS = [
    CellRow("alrnn", lambda key: ALRNN(5, 2, key=key)),
    CellRow("alrnn-driven", lambda key: ALRNN(4, 2, input_size=2, key=key), normal(2)),
    CellRow("alrnn-linear", lambda key: ALRNN(3, 0, key=key)),
    CellRow("shallow", lambda key: ClippedShallowPLRNN(3, 6, key=key)),
    CellRow("shallow-driven", lambda key: ClippedShallowPLRNN(3, 4, input_size=2, key=key), normal(2)),
    CellRow("map", lambda key: MapCell(Tanh(normal(3, 3)(key), normal(3)(key)), 3)),
    CellRow(
        "ode-driven", lambda key: ODECell(Oscillator(jnp.asarray(1.2)), 0.1, 2, 2, diffrax.Bosh3()), normal()
    ),
    CellRow(
        "forced-alrnn",
        lambda key: Forced(ALRNN(4, 2, input_size=2, key=key), IdentityReadout(2, 4, key=key)),
        forcing,
    ),
]

READOUTS = [
    ReadoutRow("identity", lambda key: IdentityReadout(3, 3, key=key)),
    ReadoutRow("identity-hidden", lambda key: IdentityReadout(2, 5, key=key)),
]

SOLVERS = [
    SolverRow("deferred", Sequential()),
    SolverRow("deferred-unrolled", Sequential(unroll=3)),
    SolverRow("direct", Sequential(adjoint="direct"), forward=True),
]


def stirred(tree, key, scale=0.2):
    """The tree with noise on every trained array: start values hold zeros and tiny numbers that hide mistakes."""
    leaves, shape = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(1, len(leaves)))
    return jax.tree.unflatten(
        shape,
        [
            x + scale * jax.random.normal(k, x.shape, x.dtype) if eqx.is_inexact_array(x) else x
            for x, k in zip(leaves, keys, strict=True)
        ],
    )


def instance(row: CellRow, seed: int = 0) -> AbstractCell:
    key = jax.random.key(seed)
    return stirred(row.make(key), jax.random.fold_in(key, 1))


def one_input(row: CellRow, seed: int = 0):
    return None if row.input is None else row.input(jax.random.key(100 + seed))


def inputs(row: CellRow, *lead: int, seed: int = 0):
    """Inputs of a run, leading axes `lead`."""
    if row.input is None:
        return None
    make = row.input
    for _ in lead:
        make = jax.vmap(make)
    return make(jax.random.split(jax.random.key(200 + seed), lead))


def states(cell: AbstractCell, *lead: int, seed: int = 0) -> Array:
    return jax.random.normal(jax.random.key(300 + seed), (*lead, cell.state_size))


def named(row) -> str:
    return row.name


PWL_CELLS = [r for r in CELLS if isinstance(r.make(jax.random.key(0)), AbstractPWLCell)]
"""Rows whose cells are piecewise linear: under the laws of regions too."""
