"""Pruning: what is zero stays zero, whatever the optimiser, and what is left is fitted as ever."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsrecon import reconstruct, simulate
from dsrecon.models import ALRNN, PLRNN, ClippedShallowPLRNN
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.reconstruct.couplings import cut, held, matrices, zeros
from dsrecon.reconstruct.pruning import prune, pruning_curve
from dsrecon.systems import Lorenz63

pytestmark = pytest.mark.usefixtures("optimiser_promotion")

QUICK = {"steps": 30, "threads": 1}


@pytest.fixture(scope="module")
def data():
    return simulate(Lorenz63(), 1000, dt=0.02)


@pytest.fixture(scope="module")
def fitted(data):
    with jax.numpy_dtype_promotion("standard"):
        return reconstruct(
            data, lambda key: ALRNN(4, 2, key=key), runs=1, steps=40, alpha=0.3, length=10, batch=4, threads=1
        )


def decaying():
    """An optimiser that would move a weight at zero: momentum, decay towards one, and noise."""
    drift = optax.stateless(lambda updates, params: jax.tree.map(lambda u, p: u - 0.1 * (p - 1), updates, params))
    return optax.chain(optax.trace(0.9), drift, optax.add_noise(1e-3, 0.0, 0), optax.scale(-1e-3))


def test_zeros_stay_zero_under_any_optimiser(fitted, data):
    found = prune(fitted, data, 0.5, rounds=2, optimiser=decaying(), **QUICK)
    W, before = np.asarray(found.cell.W), np.asarray(fitted.cell.W)
    small = np.argsort(np.abs(before), axis=None)[:5]  # those of the first round: 1 - sqrt(1/2) of 16
    assert (W.ravel()[small] == 0).all()
    assert (W == 0).sum() == 8
    assert (W[W != 0] != before[W != 0]).all()  # and the others have moved
    assert (np.asarray(found.cell.A) != np.asarray(fitted.cell.A)).all()
    pruned = found.settings["pruned"]["value"]
    assert pruned == {"share": 0.5, "zeros": 8, "couplings": 16, "which": ["W"], "rounds": 2}
    assert found.settings["alpha"]["value"] == 0.3
    assert found.settings["length"]["value"] == 10


def test_a_share_of_zero_is_a_plain_refit(fitted, data):
    rates = (1e-3, 1e-4)
    found = prune(fitted, data, 0.0, key=5, learning_rate=rates, **QUICK)
    plain = reconstruct(
        data,
        fitted.cell,
        readout=lambda key: fitted.readout,
        runs=1,
        key=5,
        alpha=0.3,
        length=10,
        batch=4,
        learning_rate=rates,
        **QUICK,
    )
    for a, b in zip(jax.tree.leaves(found.cell), jax.tree.leaves(plain.cell), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert float(found.runs["score"][0]) == pytest.approx(float(plain.runs["score"][0]), rel=1e-9)
    assert np.abs(np.asarray(found.cell.W) - np.asarray(fitted.cell.W)).max() > 1e-4


def test_a_curve_holds_each_share_and_its_last_is_diagonal(fitted, data):
    found = pruning_curve(fitted, data, (1.0, 0.25), **QUICK)
    curve = found.curve
    np.testing.assert_array_equal(curve["share"].values, [0.25, 1.0])
    np.testing.assert_array_equal(curve["zeros"].values, [4, 16])
    assert {"score", "d_stsp", "d_h", "failure"} <= set(curve)
    last = found.reconstruction(1.0)
    assert (np.asarray(last.cell.W) == 0).all()
    z = jnp.array([0.3, -1.0, 2.0, -0.5])
    np.testing.assert_allclose(last.cell(z), last.cell.A * z + last.cell.h, atol=1e-14)  # a diagonal cell
    assert last.settings["pruned"]["value"]["zeros"] == 16
    with pytest.raises(ValueError, match=r"share must be one of \[0.25, 1.0\]: got 0.5"):
        found.reconstruction(0.5)


def stacked(cell, runs):
    model = Forced(cell, IdentityReadout(2, cell.state_size, key=jax.random.key(1)))
    return jax.tree.map(lambda v: jnp.stack([v] * runs) if eqx.is_array(v) else v, model)


def test_the_smallest_go_first_and_what_was_never_there_does_not_count():
    cell = PLRNN(3, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: c.W, cell, jnp.array([[0.0, 1.0, -6.0], [2.0, 0.0, 5.0], [-3.0, 4.0, 0.0]]))
    absent = zeros(cell, ("W",))
    found = cut(stacked(cell, 3), absent, np.array([0.0, 0.5, 1.0])).cell.W
    np.testing.assert_array_equal(found[0], cell.W)
    np.testing.assert_array_equal(found[1], [[0, 0, -6], [0, 0, 5], [0, 4, 0]])
    np.testing.assert_array_equal(found[2], np.zeros((3, 3)))
    again = cut(stacked(eqx.tree_at(lambda c: c.W, cell, found[1]), 1), absent, np.array([2 / 3])).cell.W
    np.testing.assert_array_equal(again[0], [[0, 0, -6], [0, 0, 5], [0, 0, 0]])


def test_matrices_are_ranked_together():
    cell = ClippedShallowPLRNN(2, 3, key=jax.random.key(0))
    assert matrices(cell) == ("W1", "W2")
    cell = eqx.tree_at(lambda c: (c.W1, c.W2), cell, (jnp.full((2, 3), 0.1), jnp.full((3, 2), 5.0)))
    found = cut(stacked(cell, 1), zeros(cell, ("W1", "W2")), np.array([0.5])).cell
    assert not found.W1.any()
    assert found.W2.all()
    kept = cut(stacked(cell, 1), zeros(cell, ("W2",)), np.array([0.5])).cell
    assert kept.W1.all()
    assert int((kept.W2 == 0).sum()) == 3


def test_single_precision_stays(float32):
    cell = ALRNN(3, 1, key=jax.random.key(0))
    found = cut(stacked(cell, 1), zeros(cell, ("W",)), np.array([0.5])).cell.W
    assert found.dtype == np.float32
    model = jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, stacked(cell, 1))
    model = eqx.tree_at(lambda m: m.cell.W, model, found[0])
    free = eqx.filter(model, eqx.is_inexact_array)
    mask = held(("W",))
    updates, _ = mask.update(jax.tree.map(jnp.ones_like, free), mask.init(free))
    np.testing.assert_array_equal(updates.cell.W, found[0] != 0)
    assert updates.cell.W.dtype == np.float32
    assert updates.cell.A.all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 1.5}, r"share must lie in \[0, 1\]: got 1.5"),
        ({"share": -0.1}, r"share must lie in \[0, 1\]: got -0.1"),
        ({"share": float("nan")}, r"share must lie in \[0, 1\]: got nan"),
        ({"rounds": 0}, "rounds must be a whole number from 1 on: got 0"),
        ({"runs": 0}, "runs must be a whole number from 1 on: got 0"),
        ({"which": ("A",)}, r"which must name matrices of ALRNN, among \['W'\]: got \('A',\)"),
        ({"which": ("W", "W")}, r"which must name matrices of ALRNN"),
        ({"validation": 0.4}, "series must be the one that the model was fitted to"),
    ],
)
def test_bad_input_is_refused(fitted, data, settings, words):
    with pytest.raises(ValueError, match=words):
        prune(fitted, data, **{"share": 0.5, **QUICK, **settings})


def test_other_units_and_shares_are_refused(fitted, data):
    with pytest.raises(ValueError, match="its training part has mean"):
        prune(fitted, 2 * data, 0.5, **QUICK)
    with pytest.raises(ValueError, match=r"shares must be different numbers in \[0, 1\].*got \(0.5, 0.5\)"):
        pruning_curve(fitted, data, (0.5, 0.5))
