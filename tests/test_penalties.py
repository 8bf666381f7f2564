"""Penalties against sums written out by hand, and gradient noise of the variance that was asked for."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import stirred

from dsrecon.models import (
    ALRNN,
    PLRNN,
    ClippedDendriticPLRNN,
    ClippedShallowPLRNN,
    DendriticPLRNN,
    MeanCentredPLRNN,
    ShallowPLRNN,
)
from dsrecon.readout import Forced, IdentityReadout, LinearReadout
from dsrecon.systems import Tent
from dsrecon.training import Windows, fit, gtf
from dsrecon.training.penalties import (
    manifold_attractor,
    noisy,
    penalised,
    readout_penalty,
    weight_penalty,
)

KEY = jax.random.key(3)
M = 6
CELLS = {
    "alrnn": lambda key: ALRNN(M, 2, input_size=1, key=key),
    "plrnn": lambda key: PLRNN(M, key=key),
    "mean-centred": lambda key: MeanCentredPLRNN(M, key=key),
    "dendritic": lambda key: DendriticPLRNN(M, 3, key=key),
    "clipped-dendritic": lambda key: ClippedDendriticPLRNN(M, 3, key=key),
    "shallow": lambda key: ShallowPLRNN(M, 5, key=key),
    "clipped-shallow": lambda key: ClippedShallowPLRNN(M, 5, key=key),
}


@cache
def model(name, observed=2, seed=0):
    key = jax.random.key(seed)
    return stirred(Forced(CELLS[name](key), IdentityReadout(observed, M, key=key)), seed)


def held(names, cell):
    """The arrays of a cell that go by these names."""
    return [np.asarray(getattr(cell, name)) for name in names if name in vars(cell)]


# --- the sums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_manifold_attractor_is_the_sum_over_the_last_units(name):
    forced = model(name)
    (A,), (W,), (h,) = (held(names, forced.cell) for names in (("A",), ("W", "W1"), ("h", "h1")))
    wanted = 0.0
    for i in (3, 4, 5):  # half of six units, the last ones
        wanted += (A[i] - 1) ** 2 + sum(w**2 for w in W[i]) + h[i] ** 2
    assert manifold_attractor(0.3)(forced) == pytest.approx(0.3 * wanted, rel=1e-12)
    chosen = manifold_attractor(2.0, units=(1, 4))(forced)
    wanted = sum((A[i] - 1) ** 2 + (W[i] ** 2).sum() + h[i] ** 2 for i in (1, 4))
    assert chosen == pytest.approx(2 * wanted, rel=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_where_it_is_zero_the_units_hold_their_value(name):
    forced = model(name)
    cell, rest = forced.cell, [3, 4, 5]
    assert manifold_attractor(1.0)(forced) > 0.1
    W, h = ("W" if "W" in vars(cell) else "W1"), ("h" if "h" in vars(cell) else "h1")
    cell = eqx.tree_at(lambda c: c.A, cell, cell.A.at[jnp.array(rest)].set(1.0))
    for field in (W, h):
        value = getattr(cell, field).at[jnp.array(rest)].set(0.0)
        cell = eqx.tree_at(lambda c, f=field: getattr(c, f), cell, value)
    penalty, slope = eqx.filter_value_and_grad(manifold_attractor(1.0))(Forced(cell, forced.readout))
    assert penalty == 0 and all(not np.any(g) for g in jax.tree.leaves(slope))
    z = jnp.asarray(np.random.default_rng(0).normal(size=M))
    after = cell(z, None)
    # the sum A z + W phi + h with W and h zero: exact
    assert jnp.array_equal(after[3:], z[3:]) and not jnp.any(after[:3] == z[:3])


def test_only_the_chosen_units_are_drawn():
    slope = eqx.filter_grad(manifold_attractor(1.0, units=[2]))(model("alrnn"))
    for name in ("A", "W", "h"):
        moved = np.flatnonzero(np.asarray(getattr(slope.cell, name)).reshape(M, -1).any(1))
        assert moved.tolist() == [2], name
    assert not np.any(slope.cell.C) and not np.any(slope.readout.L)


@pytest.mark.parametrize("name", CELLS)
def test_the_weight_penalty_is_the_sum_of_squared_couplings(name):
    forced = model(name)
    wanted = sum((W**2).sum() for W in held(("W", "W1", "W2"), forced.cell))
    assert len(held(("W", "W1", "W2"), forced.cell)) == (2 if "shallow" in name else 1)
    assert weight_penalty(0.7)(forced) == pytest.approx(0.7 * wanted, rel=1e-12)


def test_the_readout_penalty_is_the_sum_of_its_squares():
    readout = stirred(LinearReadout(2, M, key=KEY))
    forced = Forced(CELLS["plrnn"](KEY), readout)
    wanted = sum((np.asarray(x) ** 2).sum() for x in (readout.B, readout.b, readout.L))
    assert readout_penalty(0.5)(forced) == pytest.approx(0.5 * wanted, rel=1e-12)


def test_a_linear_readout_shows_no_unit_by_itself():
    forced = Forced(CELLS["plrnn"](KEY), LinearReadout(4, M, key=KEY))
    every = manifold_attractor(1.0, 1.0)(forced)
    assert every == manifold_attractor(1.0, units=range(M))(forced) > manifold_attractor(1.0, 0.5)(forced)


def test_penalties_keep_float32(float32):
    forced = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), eqx.filter(model("alrnn"), eqx.is_inexact_array))
    for penalty in (manifold_attractor(0.1), weight_penalty(0.1), readout_penalty(0.1)):
        assert penalty(forced).dtype == jnp.float32


# --- with a loss -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def windows():
    t = np.arange(200) * 0.2
    return Windows(jnp.asarray(np.stack([np.sin(t), np.cos(t)], 1)), length=10, batch=4)


def plain(model):
    """A penalty of one's own."""
    return jnp.sum(model.cell.A**2)


def test_a_penalised_loss_is_the_sum_and_tells_its_parts(windows):
    forced, batch = model("plrnn"), windows(KEY)
    loss = gtf(0.2)
    parts = [manifold_attractor(0.3), weight_penalty(0.01), plain]
    alone, _ = loss(forced, None, batch, KEY)
    total, (state, facts) = penalised(loss, *parts)(forced, {"kept": 1}, batch, KEY)
    assert list(facts) == ["manifold_attractor", "weight_penalty", "plain"] and state == {"kept": 1}
    assert [facts[k] for k in facts] == [part(forced) for part in parts]
    assert total == pytest.approx(float(alone + sum(facts.values())), rel=1e-14)


def test_facts_of_the_loss_stay():
    def loss(model, state, batch, key):
        return jnp.asarray(1.0), (state, {"own": jnp.asarray(2.0)})

    _, (_, facts) = penalised(loss, plain)(model("plrnn"), None, None, KEY)
    assert list(facts) == ["own", "plain"]

    def own(model):
        return jnp.asarray(0.0)

    with pytest.raises(ValueError, match="the loss itself has a fact called own"):
        penalised(loss, own)(model("plrnn"), None, None, KEY)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: manifold_attractor(-1.0), r"weight must be finite and at least 0: got -1\.0"),
        (lambda: weight_penalty(np.nan), r"weight must be finite and at least 0: got nan"),
        (lambda: readout_penalty(np.inf), r"weight must be finite and at least 0: got inf"),
        (lambda: manifold_attractor(1.0, 0.0), r"share must lie in \(0, 1\]: got 0\.0"),
        (lambda: manifold_attractor(1.0, 1.5), r"share must lie in \(0, 1\]: got 1\.5"),
        (lambda: manifold_attractor(1.0, units=[]), r"at least one, none twice: got \[\]"),
        (lambda: manifold_attractor(1.0, units=[1, -1]), r"numbers from 0 on, at least one, none twice: got \[1, -1\]"),
        (lambda: manifold_attractor(1.0, units=[1, 1]), r"none twice: got \[1, 1\]"),
        (lambda: penalised(gtf(0.1)), r"at least one penalty: got none"),
        (lambda: penalised(gtf(0.1), lambda model: 0.0), r"write it as a def\): got <lambda>"),
        (lambda: penalised(gtf(0.1), eqx.Partial(plain)), r"write it as a def\): got <none>"),
        (lambda: penalised(gtf(0.1), plain, plain), r"different names: got plain 2 times"),
        (lambda: noisy(optax.sgd(0.1), -0.1, key=KEY), r"eta must be finite and at least 0: got -0\.1"),
        (lambda: noisy(optax.sgd(0.1), 0.1, np.nan, key=KEY), r"gamma must be finite and at least 0: got nan"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cell_without_the_fields_is_refused_by_name():
    tent = jax.tree.map(jnp.asarray, Tent())
    forced = Forced(tent, LinearReadout(1, tent.state_size, key=KEY))
    with pytest.raises(ValueError, match=r"Tent has no field A of 1 axis, the first of 1 units: it has "):
        manifold_attractor(1.0, 1.0)(forced)
    with pytest.raises(ValueError, match=r"Tent has no coupling field \(W, W1 or W2\): it has "):
        weight_penalty(1.0)(forced)
    with pytest.raises(ValueError, match=r"of a Forced model \(a cell and a readout\): got Tent"):
        weight_penalty(1.0)(tent)


def test_units_that_are_shown_or_missing_are_refused():
    with pytest.raises(ValueError, match=r"share=0\.5 of the 6 units is 3, but at least 1 and at most 2 .*first 4 are"):
        manifold_attractor(1.0)(model("plrnn", observed=4))
    with pytest.raises(ValueError, match=r"share=0\.05 of the 6 units is 0, but at least 1"):
        manifold_attractor(1.0, 0.05)(model("plrnn"))
    with pytest.raises(ValueError, match=r"units must lie below the state size 6: got 6"):
        manifold_attractor(1.0, units=[6])(model("plrnn"))
    with pytest.raises(ValueError, match=r"IdentityReadout has no trained parameter"):
        readout_penalty(1.0)(model("plrnn", observed=M))


# --- gradient noise --------------------------------------------------------------------------------------------------


def noise_of(optimiser, params, steps):
    """What is added to a gradient of zero: `[t, ...]`. The optimiser is one that passes gradients on."""

    def step(state, _):
        update, state = optimiser.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return state, update

    return jax.lax.scan(step, optimiser.init(params), length=steps)[1]


def test_the_noise_has_the_variance_of_the_schedule(optimiser_promotion):
    params = {"a": jnp.ones(20_000), "b": jnp.ones((100, 200))}
    noise = noise_of(noisy(optax.identity(), 0.04, 0.55, key=KEY), params, 30)
    for leaf in noise.values():
        leaf = np.asarray(leaf).reshape(30, -1)
        wanted = 0.04 / (1 + np.arange(30)) ** 0.55
        # 20,000 draws: the variance is known to sqrt(2 / 20,000), one percent
        np.testing.assert_allclose(leaf.var(1), wanted, rtol=0.05)
        assert np.abs(leaf.mean(1) / np.sqrt(wanted)).max() < 0.04
        assert abs(np.corrcoef(leaf[0], leaf[1])[0, 1]) < 0.04
    assert abs(np.corrcoef(noise["a"][0], noise["b"][0].ravel())[0, 1]) < 0.04


def test_noise_comes_before_the_optimiser_and_keeps_the_type(optimiser_promotion):
    params = jnp.ones(20_000, jnp.float32)
    raw = noise_of(noisy(optax.identity(), 0.04, 0.0, key=KEY), params, 30)
    scaled = noise_of(noisy(optax.sgd(0.1), 0.04, 0.0, key=KEY), params, 30)
    np.testing.assert_allclose(scaled, -0.1 * raw, rtol=1e-6)  # float32
    np.testing.assert_allclose(np.asarray(raw).var(1), 0.04, rtol=0.05)
    assert raw.dtype == scaled.dtype == jnp.float32


def test_starts_that_differ_in_one_bit_have_other_noise(optimiser_promotion):
    start = {"a": jnp.ones(500), "b": jnp.zeros(())}
    other = start | {"a": start["a"].at[17].set(np.nextafter(1.0, 2.0))}
    first, same, second, third = (
        noisy(optax.identity(), key=key).init(params)[0].rng_key
        for key, params in ((KEY, start), (KEY, start), (KEY, other), (jax.random.key(4), start))
    )
    assert first == same
    assert len({tuple(jax.random.key_data(key).tolist()) for key in (KEY, first, second, third)}) == 4


def test_an_ensemble_follows_penalties_and_noise_run_by_run(windows, optimiser_promotion):
    models = [model("plrnn", seed=seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *models)
    optimiser = noisy(optax.sgd(0.02), 0.1, key=KEY)

    # a loss without a slope: what moves the parameters is the penalties and the noise
    def flat(model, state, batch, key):
        return 0.0 * jnp.sum(model.cell.A), (state, {})

    loss = penalised(flat, manifold_attractor(5.0), readout_penalty(1.0))
    keys = jnp.stack([KEY, KEY])
    fitted, history = fit(stacked, loss, windows, optimiser, steps=20, key=keys, every=20, threads=1)
    told = history.facts["manifold_attractor"]
    np.testing.assert_allclose(history.loss, told + history.facts["readout_penalty"], rtol=1e-12)
    for run, start in enumerate(models):
        assert told[0, run] == pytest.approx(float(manifold_attractor(5.0)(start)), rel=1e-12)
        # a step contracts A - 1, W and h by 1 - 2 * 0.02 * 5, and the sum by 0.64 until noise holds it up
        assert told[3, run] == pytest.approx(0.64**3 * told[0, run], rel=0.1) and told[-1, run] < 0.05 * told[0, run]
    # the rows that no penalty draws were moved by noise alone, of variance 0.02^2 sum_t 0.1 / (1 + t)^0.55
    moved = [np.asarray(fitted.cell.W[i] - models[i].cell.W)[:3].ravel() for i in (0, 1)]
    wanted = 0.02 * np.sqrt(sum(0.1 / (1 + t) ** 0.55 for t in range(20)))
    assert np.std(moved) == pytest.approx(wanted, rel=0.5)  # 36 draws: 0.12 is one standard deviation
    assert abs(np.corrcoef(*moved)[0, 1]) < 0.8  # 18 draws: 0.24 is one standard deviation
    alone, _ = fit(models[1], loss, windows, optimiser, steps=20, key=KEY, every=20)
    for one, member in zip(jax.tree.leaves(alone), jax.tree.leaves(fitted), strict=True):
        np.testing.assert_allclose(one, member[1], rtol=1e-10, atol=1e-13)
