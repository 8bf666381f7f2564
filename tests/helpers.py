"""The instances under the conformance suite: a new cell, readout or solver is one row here."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from dsrecon.cell import AbstractCell, AbstractPWLCell, Restart, Restarted
from dsrecon.evolve import AbstractSolver, Sequential
from dsrecon.layer import AbstractSequenceLayer, Timed
from dsrecon.models import (
    ALRNN,
    GRU,
    LMU,
    LRU,
    LSSL,
    LSTM,
    PLRNN,
    S4,
    S4D,
    S5,
    Bilinear,
    ClippedDendriticPLRNN,
    ClippedShallowPLRNN,
    ContinuousPLRNN,
    DendriticPLRNN,
    MeanCentredPLRNN,
    ParaGRU,
    ParaLSTM,
    RecurrentHighway,
    ShallowPLRNN,
    TanhRNN,
    ZeroOrderHold,
)
from dsrecon.models.experts import ExpertMixture
from dsrecon.models.hierarchical import Hierarchical
from dsrecon.models.ssmcell import StateSpaceCell
from dsrecon.newton import Auto, CoarseToFine, Newton, Picard, QuasiNewton, Shooting, TrustRegion
from dsrecon.readout import (
    AbstractReadout,
    Forced,
    Forcing,
    GeneralisedReadout,
    HaemodynamicReadout,
    IdentityReadout,
    LinearReadout,
)
from dsrecon.systems import Baker, Lozi, MapCell, ODECell, SkewTent, Tent


class CellRow(NamedTuple):
    """A cell under test: its name, `key -> cell`, and what makes its input.

    `input(rng, *lead)` draws leaves with leading axes `lead` (none: the input of one step); `None` for a cell
    that runs without.
    """

    name: str
    make: Callable[[Any], AbstractCell]
    input: Callable[..., Any] | None = None


class ReadoutRow(NamedTuple):
    """A readout under test: its name and `key -> readout`; `link`: what is imposed is a function of what is shown."""

    name: str
    make: Callable[[Any], AbstractReadout]
    link: bool = False


class SolverRow(NamedTuple):
    """A solver under test; `forward`: it can be differentiated in forward mode too."""

    name: str
    solver: AbstractSolver
    forward: bool = False


class LayerRow(NamedTuple):
    """A sequence layer of width 3 under test: its name, `key -> layer`, and what is true of it.

    `timed`: it knows time between steps; `exact`: its steps are those of its differential equation, for held input;
    `order`: or approach it with this power of their length.
    """

    name: str
    make: Callable[[Any], AbstractSequenceLayer]
    timed: bool = True
    exact: bool = False
    order: int | None = None


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


def normal(*shape: int) -> Callable[..., Array]:
    """Standard normal input of this shape a step."""
    return lambda rng, *lead: jnp.asarray(rng.normal(size=(*lead, *shape)), float)


def forcing(rng, *lead):
    """Partial forcing of two channels, with external input."""
    mask = np.array([True, False]) ^ (rng.random((*lead, 2)) < 0.2)
    return Forcing(normal(2)(rng, *lead), jnp.full(lead, 0.3), normal(2)(rng, *lead), jnp.asarray(mask, dtype=bool))


def restart(size):
    """A trial begins with some of the steps, from a state of `size` units; external input of two."""

    def draw(rng, *lead):
        new = jnp.asarray(np.asarray(rng.random(lead) < 0.4))
        return Restart(new, normal(size)(rng, *lead), normal(2)(rng, *lead))

    return draw


def timed(rng, *lead):
    """External input of two, held over steps of all lengths."""
    return Timed(normal(2)(rng, *lead), jnp.asarray(rng.uniform(0.3, 2, lead)))


CELLS = [
    CellRow("alrnn", lambda key: ALRNN(5, 2, key=key)),
    CellRow("alrnn-driven", lambda key: ALRNN(4, 2, input_size=2, key=key), normal(2)),
    CellRow("shallow", lambda key: ClippedShallowPLRNN(3, 6, key=key)),
    CellRow("shallow-driven", lambda key: ClippedShallowPLRNN(3, 4, input_size=2, key=key), normal(2)),
    CellRow("map", lambda key: MapCell(Tanh(jax.random.normal(key, (3, 3)), jnp.zeros(3)), 3)),
    CellRow("ode-driven", lambda key: ODECell(Oscillator(jnp.asarray(1.2)), 0.1, 2, 2, diffrax.Bosh3()), normal()),
    CellRow(
        "forced-alrnn",
        lambda key: Forced(ALRNN(4, 2, input_size=2, key=key), IdentityReadout(2, 4, key=key)),
        forcing,
    ),
    CellRow("lozi", lambda key: jax.tree.map(jnp.asarray, Lozi())),
    CellRow("tent", lambda key: jax.tree.map(jnp.asarray, Tent())),
    CellRow("skew-tent", lambda key: jax.tree.map(jnp.asarray, SkewTent())),
    CellRow("baker", lambda key: jax.tree.map(jnp.asarray, Baker(alpha=0.7))),
    CellRow("plrnn", lambda key: PLRNN(4, key=key)),
    CellRow("plrnn-driven", lambda key: PLRNN(3, input_size=2, key=key), normal(2)),
    CellRow("mean-centred", lambda key: MeanCentredPLRNN(4, key=key)),
    CellRow("mean-centred-driven", lambda key: MeanCentredPLRNN(4, input_size=2, key=key), normal(2)),
    CellRow("dendritic", lambda key: DendriticPLRNN(3, 4, key=key)),
    CellRow("dendritic-driven", lambda key: DendriticPLRNN(3, 2, input_size=2, key=key), normal(2)),
    CellRow("clipped-dendritic", lambda key: ClippedDendriticPLRNN(3, 4, key=key)),
    CellRow("clipped-dendritic-driven", lambda key: ClippedDendriticPLRNN(3, 2, input_size=2, key=key), normal(2)),
    CellRow("plain-shallow", lambda key: ShallowPLRNN(3, 6, key=key)),
    CellRow("plain-shallow-driven", lambda key: ShallowPLRNN(3, 4, input_size=2, key=key), normal(2)),
    CellRow(
        "experts-driven",
        lambda key: ExpertMixture(3, 4, 2, 2, width=3, context_features=3, gate_size=3, input_size=2, key=key).given(
            jax.random.normal(key, (12, 2))
        ),
        normal(2),
    ),
    CellRow("subject", lambda key: Hierarchical(ClippedShallowPLRNN(3, 6, key=key), 4, key=key).given(2)),
    CellRow("tanh", lambda key: TanhRNN(3, key=key)),
    CellRow("tanh-driven", lambda key: TanhRNN(3, input_size=2, key=key), normal(2)),
    CellRow("gru", lambda key: GRU(3, key=key)),
    CellRow("gru-driven", lambda key: GRU(3, input_size=2, key=key), normal(2)),
    CellRow("lstm", lambda key: LSTM(2, key=key)),
    CellRow("lstm-driven", lambda key: LSTM(2, input_size=2, key=key), normal(2)),
    CellRow("highway", lambda key: RecurrentHighway(3, 2, key=key)),
    CellRow("highway-driven", lambda key: RecurrentHighway(3, 2, input_size=2, key=key), normal(2)),
    CellRow("paragru", lambda key: ParaGRU(3, key=key)),
    CellRow("paragru-driven", lambda key: ParaGRU(3, input_size=2, key=key), normal(2)),
    CellRow("paralstm", lambda key: ParaLSTM(3, key=key)),
    CellRow("paralstm-driven", lambda key: ParaLSTM(3, input_size=2, key=key), normal(2)),
    CellRow(
        "forced-paragru",
        lambda key: Forced(ParaGRU(4, input_size=2, key=key), IdentityReadout(2, 4, key=key)),
        forcing,
    ),
    CellRow("state-space", lambda key: StateSpaceCell(2, 4, 3, key=key)),
    CellRow("state-space-driven", lambda key: StateSpaceCell(2, 4, 3, 2, input_size=2, key=key), normal(2)),
    CellRow("continuous", lambda key: ContinuousPLRNN(4, 0.7, key=key)),
    CellRow("continuous-driven", lambda key: ContinuousPLRNN(3, 0.7, input_size=2, key=key), timed),
    CellRow("restarted-paralstm", lambda key: Restarted(ParaLSTM(2, input_size=2, key=key)), restart(4)),
]

READOUTS = [
    ReadoutRow("identity", lambda key: IdentityReadout(3, 3, key=key)),
    ReadoutRow("identity-hidden", lambda key: IdentityReadout(2, 5, key=key)),
    ReadoutRow("linear", lambda key: LinearReadout(3, 3, key=key)),
    ReadoutRow("linear-hidden", lambda key: LinearReadout(2, 5, key=key)),
    ReadoutRow("generalised", lambda key: GeneralisedReadout(("poisson", "gaussian", "bernoulli"), 4, key=key), True),
    ReadoutRow("haemodynamic", lambda key: HaemodynamicReadout(2, 4, time_step=2.0, key=key)),
]

LAYERS = [
    LayerRow("s4d", lambda key: S4D(3, 8, key=key), exact=True),
    LayerRow("s4d-legs-bilinear", lambda key: S4D(3, 6, init="legs", rule=Bilinear(), key=key), order=2),
    LayerRow("s4d-inv", lambda key: S4D(3, 4, init="inv", key=key), exact=True),
    LayerRow("s4", lambda key: S4(3, 8, key=key), order=2),
    LayerRow("s4-legt", lambda key: S4(3, 6, measure="legt", rule=Bilinear(0.8), key=key), order=1),
    LayerRow("s5", lambda key: S5(3, 8, blocks=2, key=key), exact=True),
    LayerRow("s5-bilinear", lambda key: S5(3, 4, rule=Bilinear(), key=key), order=2),
    LayerRow("lssl", lambda key: LSSL(3, 6, key=key), order=2),
    LayerRow("lssl-fourier", lambda key: LSSL(3, 6, measure="fourier", key=key), order=2),
    LayerRow("lssl-hold", lambda key: LSSL(3, 5, measure="lagt", rule=ZeroOrderHold(), key=key), exact=True),
    LayerRow("lssl-trained", lambda key: LSSL(3, 5, trainable=True, key=key), order=2),
    LayerRow(
        "lssl-trained-backward",
        lambda key: LSSL(3, 5, measure="legt", trainable=True, rule=Bilinear(1.0), key=key),
        order=1,
    ),
    LayerRow("lmu", lambda key: LMU(3, 6, memories=2, window=20.0, key=key), exact=True),
    LayerRow("lmu-wide", lambda key: LMU(3, 2, memories=2, window=20.0, rule=Bilinear(), key=key), order=2),
    LayerRow("lru", lambda key: LRU(3, 4, key=key), timed=False),
]

SOLVERS = [
    SolverRow("deferred", Sequential()),
    SolverRow("deferred-unrolled", Sequential(unroll=3)),
    SolverRow("direct", Sequential(adjoint="direct"), forward=True),
]

PARALLEL = [
    SolverRow("newton", Newton(rtol=1e-13, atol=1e-13)),
    SolverRow("windows", Newton(window=4, rtol=1e-13, atol=1e-13)),
    SolverRow("coarse-to-fine", Newton(guess=CoarseToFine(4), rtol=1e-13, atol=1e-13)),
    SolverRow("quasi-newton", QuasiNewton(rtol=1e-13, atol=1e-13)),
    SolverRow("trust-region", TrustRegion(rtol=1e-13, atol=1e-13)),
    SolverRow("picard", Picard(rtol=1e-13, atol=1e-13)),
    SolverRow("shooting", Shooting(4, 2, rtol=1e-13, atol=1e-13)),
    SolverRow("auto", Auto(rtol=1e-13, atol=1e-13)),
]
"""Solvers by iteration over the whole sequence, held to a tolerance beneath that of the tests."""


def stirred(tree, seed=0, scale=0.2):
    """The tree with noise on every trained array: zeros and small start values hide mistakes."""
    rng = np.random.default_rng(seed)

    def stir(x):
        if not eqx.is_inexact_array(x):
            return x
        return jnp.asarray(np.asarray(x) + scale * rng.normal(size=x.shape), x.dtype)

    return jax.tree.map(stir, tree)


@cache
def instance(row: CellRow, seed: int = 0) -> AbstractCell:
    """The row's cell in float64 (whatever the test that is the first to ask runs in), away from its start values."""
    with jax.enable_x64(True):
        return stirred(eqx.filter_jit(row.make)(jax.random.key(seed)), seed)


def inputs(row: CellRow, *lead: int, seed: int = 0):
    """Input of the row's cell: of one step, or with leading axes."""
    return None if row.input is None else row.input(np.random.default_rng(100 + seed), *lead)


def states(cell: AbstractCell, *lead: int, seed: int = 0) -> Array:
    """Standard normal states `[*lead, m]`."""
    return jnp.asarray(np.random.default_rng(200 + seed).normal(size=(*lead, cell.state_size)), float)


def named(row) -> str:
    return row.name


PWL_CELLS = [r for r in CELLS if isinstance(eqx.filter_eval_shape(r.make, jax.random.key(0)), AbstractPWLCell)]
"""Rows whose cells are piecewise linear: under the laws of regions too."""

TWINS = {
    *(row.name for row in CELLS if f"{row.name}-driven" in {r.name for r in CELLS}),
    *("mean-centred-driven", "clipped-dendritic-driven", "plain-shallow-driven", "tent", "skew-tent"),
}
"""Rows that another one stands for: the same cell without its input, and near relations."""


def spread_over(rows):
    """Rows as parameters of an expensive test: those that another one stands for are slow."""
    return [pytest.param(row, marks=pytest.mark.slow if row.name in TWINS else (), id=row.name) for row in rows]
