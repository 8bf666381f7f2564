"""Sensitivity and noise of private updates, and an accountant held against exact and worst cases."""

import math
import sys

import dp_accounting as accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dsrecon.models import ALRNN
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.training import Windows, fit, gtf, of_windows
from dsrecon.training.privacy import exposure, noise_for, privacy_spent, private, secret_key

KEY = jax.random.key(5)
RNG = np.random.default_rng(6)
PARAMS = {"a": jnp.ones(3), "b": jnp.ones((2, 4))}


def slopes(windows, scale=1.0, seed=0):
    """Gradients of single windows, leaves `[b, ...]`."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=(windows, *v.shape))) for k, v in PARAMS.items()}


def aggregate(gradient, clip, noise=0.0, key=KEY):
    """What a private optimiser passes on, as one vector."""
    optimiser = private(optax.identity(), clip=clip, noise_multiplier=noise, key=key)
    update, _ = optimiser.update(gradient, optimiser.init(PARAMS), PARAMS)
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(update)])


# --- the update ------------------------------------------------------------------------------------------------------


def test_one_window_moves_the_update_by_no_more_than_the_clip_allows(optimiser_promotion):
    clip, b = 0.3, 5
    gradient = slopes(b)
    before = aggregate(gradient, clip)
    for scale in (1e-3, 1.0, 1e6):
        other = {k: v.at[2].set(scale * slopes(1, seed=9)[k][0]) for k, v in gradient.items()}
        assert np.linalg.norm(aggregate(other, clip) - before) <= 2 * clip / b + 1e-12
    removed = {k: v.at[2].set(0.0) for k, v in gradient.items()}
    assert np.linalg.norm(aggregate(removed, clip) - before) == pytest.approx(clip / b, rel=1e-12)
    turned = {k: v.at[2].multiply(-1.0) for k, v in gradient.items()}  # the worst case is reached
    assert np.linalg.norm(aggregate(turned, clip) - before) == pytest.approx(2 * clip / b, rel=1e-12)


def test_short_gradients_are_averaged_as_they_are(optimiser_promotion):
    gradient = slopes(4)
    mean = np.concatenate([np.asarray(x).mean(0).ravel() for x in jax.tree.leaves(gradient)])
    np.testing.assert_allclose(aggregate(gradient, 1e3), mean, rtol=1e-12)


def test_the_noise_is_of_the_sum_and_new_at_every_update(optimiser_promotion):
    params = {"w": jnp.zeros(40_000)}
    optimiser = private(optax.identity(), clip=0.5, noise_multiplier=3.0, key=KEY)
    state = optimiser.init(params)
    noise = []
    for _ in range(2):
        update, state = optimiser.update({"w": jnp.zeros((8, 40_000))}, state, params)
        noise.append(np.asarray(update["w"]))
    # 40,000 draws: the deviation is known to 0.35 percent
    assert np.std(noise, 1) == pytest.approx([3.0 * 0.5 / 8] * 2, rel=0.02)
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.025
    other = private(optax.identity(), clip=0.5, noise_multiplier=3.0, key=KEY).init({"w": params["w"].at[0].set(1e-9)})
    assert other[0].rng_key != optimiser.init(params)[0].rng_key


def test_a_gradient_without_the_axis_of_windows_is_refused(optimiser_promotion):
    optimiser = private(optax.sgd(0.1), clip=1.0, noise_multiplier=1.0, key=KEY)
    state = optimiser.init(PARAMS)
    for gradient in (PARAMS, {"a": jnp.ones((5, 3)), "b": jnp.ones((4, 2, 4))}):
        with pytest.raises(ValueError, match=r"private needs the gradient of every window .*gradient=of_windows"):
            optimiser.update(gradient, state, PARAMS)
    with pytest.raises(ValueError, match="private needs the gradient of every window"):
        optimiser.update(slopes(3), state)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clip": 0.0, "noise_multiplier": 1.0}, r"clip must be positive and finite: got 0\.0"),
        ({"clip": math.nan, "noise_multiplier": 1.0}, r"clip must be positive and finite: got nan"),
        ({"clip": 1.0, "noise_multiplier": -1.0}, r"noise_multiplier must be finite and at least 0: got -1\.0"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        private(optax.sgd(0.1), key=KEY, **arguments)


def test_secret_keys_are_keys_and_differ():
    keys = [secret_key() for _ in range(3)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3
    assert jax.random.normal(keys[0], (2,)).shape == (2,)


def test_a_private_fit_is_gradient_descent_on_the_clipped_mean(optimiser_promotion):
    t = np.arange(120) * 0.2
    windows = Windows(jnp.asarray(np.stack([np.sin(t), np.cos(t)], 1)), length=6, batch=3)
    model = Forced(ALRNN(3, 1, key=KEY), IdentityReadout(2, 3, key=KEY))

    def fitted(optimiser, **how):
        return fit(model, gtf(0.3), windows, optimiser, steps=6, every=6, key=KEY, **how)

    wide = private(optax.sgd(0.1), clip=1e3, noise_multiplier=0.0, key=KEY)
    one, history = fitted(wide, gradient=of_windows)
    other, plain = fitted(optax.sgd(0.1))
    np.testing.assert_allclose(history.loss, plain.loss, rtol=1e-10)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="private needs the gradient of every window"):
        fitted(wide)


# --- who is in how many windows --------------------------------------------------------------------------------------

X = jnp.zeros((40, 1))
MASK = jnp.asarray(RNG.random((40, 1)) < 0.8)


@pytest.mark.parametrize("unit", [1, 3, 40, (10, 3, 20, 7), (40,)])
@pytest.mark.parametrize("settings", [{}, {"trials": (10, 3, 20, 7)}, {"mask": MASK}])
def test_exposure_counts_the_windows_of_the_worst_unit(unit, settings):
    sampler = Windows(X, length=4, batch=2, **settings)
    starts = range(36) if sampler.starts is None else np.asarray(sampler.starts)
    held = [set(range(s, s + 5)) for s in starts]
    edges = np.cumsum([0, *unit]) if isinstance(unit, tuple) else None
    units = [range(p, p + unit) for p in range(41 - unit)] if edges is None else list(map(range, edges[:-1], edges[1:]))
    wanted = max(sum(bool(window & set(rows)) for window in held) for rows in units)
    assert exposure(sampler, unit) == (len(held), wanted)
    if unit == 1 and not settings:
        assert wanted == 5  # length + 1


@pytest.mark.parametrize("unit, message", [(0, "between 1 and the 40 rows of the series: got 0"), (41, "got 41")])
def test_units_that_cannot_be_are_refused(unit, message):
    with pytest.raises(ValueError, match=message):
        exposure(Windows(X, length=4, batch=2), unit)
    with pytest.raises(ValueError, match=r"add up to the 40 rows: got 2 of them, the shortest 10, in all 39"):
        exposure(Windows(X, length=4, batch=2), (29, 10))


def test_windows_are_drawn_as_the_accountant_is_told():
    sampler = Windows(jnp.arange(40.0)[:, None], length=4, batch=6)
    windows, affected = exposure(sampler)
    batches = np.asarray(jax.vmap(sampler)(jax.random.split(KEY, 6000)).x)[..., 0]
    hits = (batches == 20).any(2).sum(1)
    wanted = 6000 * stats.binom.pmf(np.arange(7), 6, affected / windows)
    found = np.bincount(hits, minlength=7)
    few = wanted < 20
    found, wanted = (np.append(v[~few], v[few].sum()) for v in (found, wanted))
    assert stats.chisquare(found, wanted).pvalue > 1e-3


# --- the accountant --------------------------------------------------------------------------------------------------


def test_one_sure_release_is_the_gaussian_mechanism():
    # Balle & Wang 2018: Phi(1/2 - 1) - e Phi(-1/2 - 1) for noise as large as the shift. Replacing shifts by 2 clip.
    delta = stats.norm.cdf(-0.5) - math.e * stats.norm.cdf(-1.5)
    assert delta == pytest.approx(0.126936737507, abs=1e-12)
    assert privacy_spent(1, 1, 1, 2.0, delta, affected=1) == pytest.approx(1.0, rel=2e-3)  # tails: 2e-3 of delta


@pytest.mark.parametrize("steps, noise, delta", [(100, 20.0, 1e-5), (100, 20.0, 1e-10), (10_000, 200.0, 1e-8)])
def test_sure_releases_compose_as_gaussians_do(steps, noise, delta):
    exact = accounting.get_epsilon_gaussian(noise / 2 / math.sqrt(steps), delta)
    found = privacy_spent(steps, 1, 1, noise, delta, affected=1)
    assert exact <= found <= 1.005 * exact  # never below; the grid is refined to half a percent


def test_one_draw_is_the_subsampled_gaussian_and_many_are_no_less():
    subsampled = accounting.pld.privacy_loss_distribution.from_gaussian_mechanism(1.5, sampling_prob=0.02)
    once = privacy_spent(1, 1, 50, 3.0, 1e-4, affected=1)
    assert once == pytest.approx(subsampled.get_epsilon_for_delta(1e-4), rel=5e-3)
    # removing a record, with Poisson sampling: less than replacing one
    assert privacy_spent(300, 1, 50, 3.0, 1e-4, affected=1) > subsampled.self_compose(300).get_epsilon_for_delta(1e-4)


def worst(unaffected, batch, rate, noise):
    """Densities of the sum of clipped gradients (clip 1) on a grid: the unit's windows at 1, and replaced by -1."""
    x = np.linspace(-batch - 9 * noise, batch + 9 * noise, 2001)
    j = np.arange(batch + 1)
    weight = stats.binom.pmf(j, batch, rate)
    both = [
        (weight[:, None] * stats.norm.pdf(x, (unaffected * (batch - j) + side * j)[:, None], noise)).sum(0)
        for side in (1, -1)
    ]
    return [p * (x[1] - x[0]) for p in both]


@pytest.mark.parametrize("unaffected", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_bound_holds_for_the_worst_of_neighbours(unaffected, steps):
    batch, rate, noise = 3, 0.2, 2.0
    one, other = worst(unaffected, batch, rate, noise)
    if steps == 2:
        one, other = (np.outer(p, p).ravel() for p in (one, other))
    for true in (0.01, 0.1):
        bound = privacy_spent(steps, batch, 10, noise, true, affected=2)
        for p, q in ((one, other), (other, one)):
            assert np.maximum(p - math.exp(bound) * q, 0).sum() <= true
        # and it is no idle one: with a third less, some neighbours are told apart
        loose = [np.maximum(p - math.exp(bound / 1.5) * q, 0).sum() for p, q in ((one, other), (other, one))]
        assert unaffected == 0 or max(loose) > true


def test_what_is_spent_grows_with_the_data_that_are_used_and_falls_with_the_noise():
    base = {"steps": 300, "batch": 8, "windows": 5000, "noise_multiplier": 4.0, "delta": 1e-5, "affected": 51}

    def spent(**changed):
        return privacy_spent(**(base | changed))

    start = spent()
    assert 0 < start < math.inf
    for more in ({"steps": 900}, {"batch": 24}, {"affected": 153}, {"delta": 1e-6}):
        assert spent(**more) > 1.05 * start, more
    for less in ({"noise_multiplier": 8.0}, {"windows": 50_000}):
        assert spent(**less) < 0.95 * start, less


def test_so_little_noise_that_nothing_is_promised():
    assert privacy_spent(100, 16, 5000, 0.02, 1e-5, affected=500) == math.inf


def test_noise_for_is_the_other_way_round():
    setting = {"steps": 300, "batch": 8, "windows": 5000, "delta": 1e-5, "affected": 51}
    noise = noise_for(2.0, **setting)
    assert 0.98 * 2.0 < privacy_spent(noise_multiplier=noise, **setting) <= 2.0


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"steps": 0}, "steps must be at least 1: got 0"),
        ({"batch": 0}, "batch must be at least 1: got 0"),
        ({"affected": 0}, "affected must be at least 1: got 0"),
        ({"affected": 101}, "affected must be at most the number of windows, 100: got 101"),
        ({"delta": 1.0}, r"delta must lie below 1 and be at least 1e-12.*got 1\.0 for 10 steps"),
        ({"delta": 1e-14}, r"delta must lie below 1 and be at least 1e-12.*got 1e-14"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, message):
    setting = {"steps": 10, "batch": 2, "windows": 100, "delta": 1e-5, "affected": 1} | changed
    with pytest.raises(ValueError, match=message):
        privacy_spent(noise_multiplier=1.0, **setting)
    with pytest.raises(ValueError, match=message):
        noise_for(1.0, **setting)


def test_no_noise_and_no_budget_are_refused():
    with pytest.raises(ValueError, match=r"noise_multiplier must be positive and finite: got 0\.0"):
        privacy_spent(10, 2, 100, 0.0, 1e-5, affected=1)
    with pytest.raises(ValueError, match=r"epsilon must be positive and finite: got 0\.0"):
        noise_for(0.0, 10, 2, 100, 1e-5, affected=1)


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    for part in ("pld", "pld.pld_pmf", "pld.common"):
        monkeypatch.delitem(sys.modules, f"dp_accounting.{part}", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'dsrecon\[privacy\]'"):
        privacy_spent(10, 2, 100, 1.0, 1e-5, affected=1)
    with pytest.raises(ImportError, match=r"pip install 'dsrecon\[privacy\]'"):
        noise_for(1.0, 10, 2, 100, 1e-5, affected=1)
