"""Forcing that finds its own strength: estimates of how much a cell stretches, the rule, schedules, the history."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from helpers import PWL_CELLS, instance, named

from dsrecon import ClippedShallowPLRNN, Forced, LinearReadout, reconstruct
from dsrecon.models.bounds import norm_bound
from dsrecon.training import (
    Adaptive,
    Windows,
    fit,
    gtf,
    largest_norm,
    log_mean_norm,
    mean_norm,
    of_windows,
    parameter_bound,
    product_bound,
    radam,
    scheduled,
)
from dsrecon.training.adaptive import jacobians
from dsrecon.training.estimators import spectral_norm

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
CELL = ClippedShallowPLRNN(3, 6, key=KEY)
MODEL = Forced(CELL, LinearReadout(3, 3, key=KEY))
SERIES = jnp.asarray(np.cumsum(RNG.normal(size=(400, 3)), 0) * 0.1)
WINDOWS = Windows(SERIES, length=12, batch=4)


def near_identity(b, t, m, scale=0.1):
    return jnp.asarray(np.eye(m) + scale * RNG.normal(size=(b, t, m, m)))


@pytest.mark.parametrize("m", [1, 2, 5, 12])
def test_spectral_norm_is_the_largest_singular_value(m):
    J = np.concatenate([near_identity(3, 200, m).reshape(-1, m, m), 1e3 * RNG.normal(size=(300, m, m))])
    wanted = np.linalg.norm(J, 2, axis=(1, 2))
    found = np.asarray(jax.jit(spectral_norm)(jnp.asarray(J)))
    # power iteration: from below, and to 1 %, where two singular values are nearly equal
    assert (found <= wanted * (1 + 1e-12)).all() and (found >= 0.99 * wanted).all()
    assert np.median(1 - found / wanted) < 1e-6
    assert np.asarray(spectral_norm(jnp.zeros((2, m, m)))).tolist() == [0, 0]


def test_estimators_by_their_definitions():
    J = near_identity(4, 30, 3)
    norms = np.linalg.norm(np.asarray(J), 2, axis=(2, 3))
    # norms to 1 %, see above
    assert largest_norm(CELL, J) == pytest.approx(norms.max(), rel=0.01)
    assert product_bound(CELL, J) == pytest.approx(np.exp(np.log(norms).mean(1)).max(), rel=0.01)
    assert mean_norm(CELL, J) == pytest.approx(np.linalg.norm(np.asarray(J).mean((0, 1)), 2), rel=0.01)
    logs = np.mean([scipy.linalg.logm(j) for j in np.asarray(J).reshape(-1, 3, 3)], axis=0)
    assert log_mean_norm(CELL, J) == pytest.approx(np.linalg.norm(scipy.linalg.expm(logs), 2), rel=1e-9)
    bound = parameter_bound(norm_bound)(CELL, J)
    assert bound == pytest.approx(
        np.abs(CELL.A).max() + np.linalg.norm(CELL.W1, 2) * np.linalg.norm(CELL.W2, 2), rel=1e-12
    )


def test_estimates_order_themselves():
    J = near_identity(4, 30, 3)
    product = np.linalg.norm(np.linalg.multi_dot([np.asarray(j) for j in J[0][::-1]]), 2) ** (1 / 30)
    assert product <= product_bound(CELL, J) * 1.01 <= largest_norm(CELL, J) * 1.02


def test_commuting_jacobians_have_the_geometric_mean():
    d = jnp.asarray(RNG.uniform(0.5, 1.5, size=(2, 50, 3)))
    J = jax.vmap(jax.vmap(jnp.diag))(d)
    assert log_mean_norm(CELL, J) == pytest.approx(np.exp(np.log(np.asarray(d)).mean((0, 1))).max(), rel=1e-12)


def test_every_family_of_the_paper_has_a_bound():
    known = {cls.__name__ for cls in norm_bound.registry} - {"object"}
    assert {"ALRNN", "PLRNN", "DendriticPLRNN", "ShallowPLRNN", "ClippedShallowPLRNN"} <= known and len(known) >= 7


@pytest.mark.parametrize("row", [r for r in PWL_CELLS if r.input is None], ids=named)
def test_the_parameter_bound_holds_in_every_region(row):
    cell = instance(row)
    if norm_bound.dispatch(type(cell)) is norm_bound.dispatch(object):
        with pytest.raises(ValueError, match=f"no bound is known for {type(cell).__name__}: register one"):
            norm_bound(cell)
        return
    z = jnp.asarray(3 * RNG.normal(size=(300, cell.state_size)))
    J = jax.jit(jax.vmap(lambda z: cell.linearise(z)[1]))(z)
    norms = np.linalg.norm(np.asarray(J), 2, axis=(1, 2))
    bound = float(norm_bound(cell))
    assert norms.max() <= bound * (1 + 1e-12)
    assert bound < 30 * norms.max()  # a bound, but not any number


@pytest.mark.parametrize("estimator", [largest_norm, product_bound, mean_norm, log_mean_norm])
def test_jacobians_that_are_not_finite_are_refused(estimator):
    J = near_identity(2, 5, 3).at[1, 3, 0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="Jacobians must be finite: 1 of 10 are not, first that of sequence 1, step 3"):
        estimator(CELL, J)


def test_jacobians_are_those_along_the_forced_windows():
    batch = WINDOWS(KEY)
    J = jacobians(MODEL, jnp.asarray(0.3), batch, 4)
    assert J.shape == (4, 3, 3, 3)
    z = MODEL.readout.start(batch.seen[2, 0])
    for t in range(12):
        z = z + 0.3 * (MODEL.readout.encode(batch.seen[2, t], z) - z)
        if t % 4 == 0:
            np.testing.assert_allclose(J[2, t // 4], jax.jacfwd(CELL)(z), rtol=1e-12, atol=1e-14)
        z = CELL(z)


def test_alpha_rises_at_once_and_falls_slowly():
    rule = Adaptive(lambda cell, J: jnp.max(cell.A), every=3, decay=0.9)
    model = eqx.tree_at(lambda m: m.cell.A, MODEL, jnp.full(3, 2.0))  # the estimate is 2: alpha is to be 1/2
    state, batch = rule.start, WINDOWS(KEY)
    alphas = []
    for update in range(7):
        state, facts = rule(model, state, batch, jnp.asarray(update))
        alphas.append(float(state["alpha"]))
        assert facts["bound"] == pytest.approx((1 - alphas[-1]) * 2) and facts["norm"] == 2
    fallen = [0.9 * 1 + 0.1 * 0.5]
    fallen += [0.9 * fallen[0] + 0.1 * 0.5]
    fallen += [0.9 * fallen[1] + 0.1 * 0.5]
    assert alphas == pytest.approx([fallen[0]] * 3 + [fallen[1]] * 3 + [fallen[2]], rel=1e-12)
    steep = eqx.tree_at(lambda m: m.cell.A, MODEL, jnp.full(3, 100.0))
    state, facts = rule(steep, state, batch, jnp.asarray(9))
    assert state["alpha"] == pytest.approx(0.99) and facts["bound"] == pytest.approx(1)
    flat = eqx.tree_at(lambda m: m.cell.A, MODEL, jnp.full(3, 0.5))  # it contracts: no forcing is wanted
    state, _ = rule(flat, {**state, "alpha": jnp.asarray(0.2)}, batch, jnp.asarray(12))
    assert state["alpha"] == pytest.approx(0.18)


def trained(adapt, state, steps=8, **options):
    with jax.numpy_dtype_promotion("standard"):
        return fit(
            MODEL, gtf(), WINDOWS, radam(1e-3, 1e-3, 8), steps=steps, key=KEY, state=state, adapt=adapt, **options
        )


def test_the_history_says_why_alpha_is_what_it_is():
    rule = Adaptive(every=2, decay=0.5)
    _, history = trained(rule, rule.start)
    facts = history.facts
    assert set(facts) == {"alpha", "norm", "bound", "gradient_norm"} and facts["alpha"].shape == (8, 1)
    np.testing.assert_allclose(facts["bound"], (1 - facts["alpha"]) * facts["norm"], rtol=1e-12)
    assert (facts["alpha"][::2] == facts["alpha"][1::2]).all() and (np.diff(facts["alpha"][::2, 0]) < 0).all()
    batch = WINDOWS(jax.random.split(jax.random.fold_in(KEY, 0))[0])
    assert facts["norm"][0, 0] == pytest.approx(float(rule.estimate(MODEL, jnp.ones(()), batch)), rel=1e-9)
    state = {"alpha": jnp.asarray(facts["alpha"][0, 0])}
    slope = eqx.filter_grad(lambda m: gtf()(m, state, batch, KEY)[0])(MODEL)
    assert facts["gradient_norm"][0, 0] == pytest.approx(float(optax.tree.norm(slope)), rel=1e-9)


def test_members_under_an_adaptive_rule_are_as_alone():
    rule = Adaptive(every=2, decay=0.5)
    keys = jax.random.split(KEY, 2)
    models = eqx.filter_vmap(lambda key: Forced(ClippedShallowPLRNN(3, 6, key=key), LinearReadout(3, 3, key=key)))(keys)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), rule.start)
    options = dict(steps=12, adapt=rule)
    with jax.numpy_dtype_promotion("standard"):
        _, both = fit(models, gtf(), WINDOWS, radam(1e-3, 1e-3, 12), key=keys, state=states, threads=1, **options)
        one = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, models)
        _, alone = fit(one, gtf(), WINDOWS, radam(1e-3, 1e-3, 12), key=keys[1], state=rule.start, **options)
    for name in ("alpha", "norm", "gradient_norm"):
        np.testing.assert_allclose(both.facts[name][:, 1], alone.facts[name][:, 0], rtol=1e-9)


def test_a_schedule_is_followed():
    _, history = trained(scheduled(optax.linear_schedule(1.0, 0.2, 8)), {"alpha": jnp.ones(())})
    np.testing.assert_allclose(history.facts["alpha"][:, 0], 1 - 0.1 * np.arange(8), rtol=1e-6)  # optax: float32
    with pytest.raises(ValueError, match=r"schedule must lie in \[0, 1\]: it begins at 1.5"):
        scheduled(lambda update: 1.5)


def test_a_norm_that_is_not_finite_stops_the_run():
    rule = Adaptive(lambda cell, J: jnp.asarray(jnp.nan))
    _, history = trained(rule, rule.start)
    assert history.failed_at == [0] and np.isnan(history.facts["alpha"][0, 0])


def test_gradients_of_windows_average_to_that_of_the_batch():
    norms = []
    for gradient in (None, of_windows):
        options = {} if gradient is None else {"gradient": gradient}
        seen = []

        def keep(updates, state, params=None, seen=seen):
            seen.append(jax.tree.leaves(updates)[0].shape)
            return jax.tree.map(lambda u, p: jnp.zeros_like(p), updates, params), state

        optimiser = optax.GradientTransformation(lambda params: (), keep)
        _, history = fit(
            MODEL, gtf(), WINDOWS, optimiser, steps=2, key=KEY, state={"alpha": jnp.asarray(0.3)}, **options
        )
        norms.append(history.facts["gradient_norm"])
        assert seen[0] == ((3,) if gradient is None else (4, 3))
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-10)


def test_the_rule_keeps_single_precision(float32):
    cell = ClippedShallowPLRNN(3, 6, key=KEY)
    windows = Windows(jnp.asarray(SERIES, jnp.float32), length=12, batch=4)
    model, rule = Forced(cell, LinearReadout(3, 3, key=KEY)), Adaptive(every=2, decay=0.5)
    state, facts = rule(model, rule.start, windows(KEY), jnp.asarray(0))
    assert {x.dtype for x in jax.tree.leaves((state, facts))} == {jnp.dtype("float32")}


def test_bad_input_is_refused_before_anything_is_compiled():
    narrow = Windows(SERIES[:, :2], length=12, batch=4)
    rule = Adaptive()
    with pytest.raises(ValueError, match=r"forcing target must have the 3 channels .* have 2 \(seen\) and 2 "):
        fit(MODEL, gtf(0.1), narrow, radam(1e-3, 1e-3, 8), steps=8, key=KEY)
    with pytest.raises(ValueError, match=r"forcing target must have the 3 channels"):
        rule.estimate(MODEL, jnp.ones(()), narrow(KEY))
    with pytest.raises(ValueError, match="the state carries an alpha.*: alpha=0.1 cannot be given beside it"):
        fit(MODEL, gtf(0.1), WINDOWS, radam(1e-3, 1e-3, 8), steps=8, key=KEY, state=rule.start, adapt=rule)
    with pytest.raises(ValueError, match="interval=4 cannot be given beside it"):
        fit(MODEL, gtf(interval=4), WINDOWS, radam(1e-3, 1e-3, 8), steps=8, key=KEY, state=rule.start, adapt=rule)
    with pytest.raises(ValueError, match="yes or no to each of the 3 channels: got 2"):
        gtf(0.1, channels=(True, False))(MODEL, None, WINDOWS(KEY), KEY)
    for options, message in (
        ({"every": 0}, "every and stride must be at least 1: got 0 and 1"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\): got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Adaptive(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaptive": product_bound, "alpha": 0.1}, "give alpha or adaptive, not both.*got alpha=0.1"),
        ({"adaptive": product_bound, "interval": 4}, "give interval or adaptive, not both.*got interval=4"),
        ({"alpha": [0.1, 1.5]}, r"alpha must lie in \[0, 1\]"),
    ],
)
def test_reconstruct_refuses_contradictory_forcing(options, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(np.asarray(SERIES), steps=2, **options)


def test_reconstruct_with_an_estimator(optimiser_promotion):
    t = np.arange(1500) * 0.2
    waves = np.stack([np.sin(t), np.cos(t)], 1) + 0.02 * RNG.normal(size=(1500, 2))
    cell = lambda key: ClippedShallowPLRNN(2, 10, key=key)  # noqa: E731
    model = reconstruct(waves, cell, adaptive=product_bound, runs=2, steps=120, length=10, progress=False)
    assert "product_bound" in model.settings["alpha"]["reason"]
    assert 0 < model.settings["alpha"]["value"] < 1
    assert set(model.course) == {"loss", "gradient_norm", "alpha", "norm", "bound"}
    assert model.course["alpha"][-1] < model.course["alpha"][0]
