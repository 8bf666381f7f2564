"""What many rows pull back at once: every faster way against JAX's own rule, which is right for every map."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, forcing, inputs, instance, states

from dsrecon.kernels import contraction, plain_pullback, pullback, recurrence, stages
from dsrecon.kernels.accelerated.plan import Unfused
from dsrecon.kernels.contraction import kernel_pullback
from dsrecon.models import ALRNN, ClippedDendriticPLRNN, ClippedShallowPLRNN, DendriticPLRNN, ShallowPLRNN
from dsrecon.readout import Forced, IdentityReadout, LinearReadout

ROWS = 301
"""No multiple of what goes side by side, nor of the pieces of the test."""

NAMES = ("dendritic-driven", "clipped-dendritic", "shallow-driven")


def agree(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        # sums over rows in another order
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * np.abs(theirs).max(initial=1))


def row_of(name):
    return next(row for row in CELLS if row.name == name)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Pieces of a few rows, as large cells have them."""
    monkeypatch.setattr(contraction, "CPU_WHOLE", 2**10)
    monkeypatch.setattr(contraction, "CPU_PIECE", 2**10)


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("name", NAMES)
def test_pullback_is_that_of_jax(name, rows):
    row = row_of(name)
    cell = instance(row)
    assert 1 < contraction.rows_at_once(cell, jnp.zeros((ROWS, cell.state_size))) < ROWS
    given = cell, states(cell, rows), inputs(row, rows), states(cell, rows, seed=1)
    agree(eqx.filter_jit(pullback)(*given), eqx.filter_jit(plain_pullback)(*given))


@pytest.mark.parametrize("readout", [IdentityReadout, LinearReadout])
@pytest.mark.parametrize("masked", [False, True])
def test_pullback_of_a_forced_cell_is_that_of_jax(readout, masked):
    cell = instance(row_of("dendritic-driven"))
    step = Forced(cell, readout(2, cell.state_size, key=jax.random.key(0)))
    s = forcing(np.random.default_rng(0), ROWS)
    given = step, states(cell, ROWS), s if masked else s._replace(mask=None), states(cell, ROWS, seed=1)
    agree(eqx.filter_jit(pullback)(*given), eqx.filter_jit(plain_pullback)(*given))


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("make", [ShallowPLRNN, ClippedShallowPLRNN])
def test_hidden_units_summed_in_a_kernel_are_pulled_back_as_by_jax(make, rows):
    cell = make(3, 14, input_size=2, key=jax.random.key(0))
    step = Forced(cell, IdentityReadout(2, 3, key=jax.random.key(1)))
    s = forcing(np.random.default_rng(0), rows)._replace(s=jnp.ones((rows, 2)))
    given = step, states(cell, rows), s, states(cell, rows, seed=1)
    agree(eqx.filter_jit(pullback)(*given, engine="interpreted"), eqx.filter_jit(plain_pullback)(*given))
    kernel_pullback(cell, given[1], s.s, given[3], interpret=True)  # which "interpreted" could have gone without


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (ALRNN(12, 2, key=jax.random.key(0)), "no hidden units"),
        (ShallowPLRNN(3, 9, key=jax.random.key(0)), "no hidden units"),
        (ShallowPLRNN(12, 30, key=jax.random.key(0)), "no hidden units"),
        (ShallowPLRNN(6, 14, key=jax.random.key(0)), None),
    ],
)
def test_steps_without_hidden_units_are_left_to_products_of_matrices(step, why):
    given = step, states(step, 5), None, states(step, 5, seed=1)
    if why is not None:
        with pytest.raises(Unfused, match=why):
            kernel_pullback(*given, interpret=True)
    agree(eqx.filter_jit(pullback)(*given, engine="interpreted"), plain_pullback(*given))


@pytest.mark.parametrize("make", [DendriticPLRNN, ClippedDendriticPLRNN])
def test_a_gate_that_is_met_exactly_pulls_back_nothing(make):
    cell = make(3, 2, key=jax.random.key(0))
    given = cell, jnp.stack([cell.H[0], cell.H[1], jnp.zeros_like(cell.H[0])]), None, jnp.ones((3, 3), cell.H.dtype)
    agree(pullback(*given), plain_pullback(*given))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_stages_compose_to_the_step(batch):
    cell = instance(row_of("shallow-driven"))
    step = Forced(cell, LinearReadout(2, cell.state_size, key=jax.random.key(0)))
    z, s = states(cell, *batch), forcing(np.random.default_rng(0), *batch)
    over = jax.vmap if batch else lambda f: f
    first, second = stages(step)
    np.testing.assert_allclose(over(second)(over(first)(z, s), s), over(step)(z, s), rtol=1e-14)
    assert stages(cell) == (cell,)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_adjoint_through_stages_is_that_of_jax(batch):
    cell = instance(row_of("dendritic-driven"))
    step = Forced(cell, LinearReadout(2, cell.state_size, key=jax.random.key(0)))
    z0, s = states(cell, *batch), forcing(np.random.default_rng(0), 20, *batch)
    weights = states(cell, 20, *batch, seed=1)

    @eqx.filter_jit
    def gradient(adjoint):
        def measured(given):
            step, z0, s = given
            return jnp.sum(weights * recurrence(step, z0, s, adjoint=adjoint))

        return eqx.filter_grad(measured)((step, z0, s))

    agree(gradient("deferred"), gradient("direct"))


def test_small_maps_are_contracted_at_once(monkeypatch):
    monkeypatch.undo()
    small, large = ALRNN(20, 2, key=jax.random.key(0)), ShallowPLRNN(5, 250, key=jax.random.key(0))
    assert contraction.rows_at_once(small, jnp.zeros((3200, 20))) == 3200
    assert 100 < contraction.rows_at_once(large, jnp.zeros((3200, 5), jnp.float32)) < 400
