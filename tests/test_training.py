"""Windows, the forced loss against a plain loop, and the loop that fits."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import stirred
from jaxtyping import TypeCheckError

from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.training import Window, Windows, fit, gtf, radam

KEY = jax.random.key(11)
RNG = np.random.default_rng(4)
T = np.arange(300) * 0.2
SERIES = np.stack([np.sin(T), np.cos(1.1 * T)], axis=1)


# --- windows ---------------------------------------------------------------------------------------------


def test_windows_are_stretches_of_the_series():
    x = jnp.arange(40.0).reshape(20, 2)
    s = jnp.arange(20.0)[:, None]
    batch = Windows(x, length=4, batch=50, s=s)(KEY)
    assert batch.x.shape == batch.seen.shape == (50, 5, 2) and batch.s.shape == (50, 5, 1)
    assert jnp.array_equal(batch.x, batch.seen)
    assert jnp.array_equal(batch.x[..., 1], batch.x[..., 0] + 1)
    assert jnp.all(jnp.diff(batch.x, axis=1) == 2)
    # the input is cut at the same place
    assert jnp.array_equal(batch.x[..., 0], 2 * batch.s[..., 0])


def test_starts_cover_every_place_evenly():
    windows = Windows(jnp.arange(10.0)[:, None], length=3, batch=7000)
    starts = np.asarray(windows(KEY).x[:, 0, 0], int)
    counts = np.bincount(starts, minlength=7)
    assert len(counts) == 7  # the last window ends with the series
    # 1000 expected in each, with a standard deviation of 29
    assert counts.min() > 850 and counts.max() < 1150
    assert not np.array_equal(starts, np.asarray(windows(jax.random.key(12)).x[:, 0, 0], int))


def test_a_window_may_be_the_whole_series():
    x = jnp.asarray(SERIES[:6])
    assert jnp.array_equal(Windows(x, length=5, batch=2)(KEY).x, jnp.stack([x, x]))


def test_noise_is_on_what_is_seen_and_of_its_level():
    x = jnp.asarray(np.tile(SERIES, (20, 1)))
    windows = Windows(x, length=9, batch=2000, noise=0.3, key=KEY)
    batch = jax.jit(windows.__call__)(KEY)
    noise = batch.seen - batch.x
    # 40,000 draws, cut from a pool of 12,000: the standard error of their level is about half a percent
    assert abs(noise.std() / 0.3 - 1) < 0.03 and abs(noise.mean()) < 0.02
    assert abs(jnp.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.05
    clean = Windows(x, length=9, batch=2000)(KEY)
    assert jnp.array_equal(clean.x, batch.x)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"length": 0, "batch": 1}, r"length and batch must be at least 1: got 0 and 1"),
        ({"length": 3, "batch": 0}, r"length and batch must be at least 1: got 3 and 0"),
        (
            {"length": 6, "batch": 1},
            r"too short for one window: 6 samples where a window of 6 predicted steps needs 7",
        ),
        ({"length": 3, "batch": 1, "noise": -0.1}, r"noise must be at least 0: got -0\.1"),
        ({"length": 3, "batch": 1, "noise": np.nan}, r"noise must be at least 0: got nan"),
        ({"length": 3, "batch": 1, "noise": 0.1}, r"noise=0\.1 needs a key"),
    ],
)
def test_bad_windows_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Windows(jnp.ones((6, 2)), **arguments)


def test_no_window_runs_from_one_trial_into_the_next():
    x = jnp.concatenate([jnp.full((n, 1), float(i)) for i, n in enumerate((7, 3, 12, 6))])
    batch = Windows(x, length=5, batch=4000, trials=(7, 3, 12, 6))(KEY)
    assert (batch.x == batch.x[:, :1]).all()
    assert set(np.unique(batch.x)) == {0.0, 2.0, 3.0}, "a trial of 3 rows holds no window of 6"
    share = np.bincount(np.asarray(batch.x[:, 0, 0], int))[[0, 2, 3]] / 4000
    assert share == pytest.approx([2 / 10, 7 / 10, 1 / 10], abs=0.03)  # starts that fit: 2, 7 and 1


def test_windows_begin_where_most_is_observed():
    mask = np.ones((30, 2), bool)
    mask[5:20] = False
    mask[22, 1] = False
    x = jnp.arange(60.0).reshape(30, 2)
    batch = Windows(x, length=4, batch=2000, mask=jnp.asarray(mask))(KEY)
    begun = np.unique(np.asarray(batch.x[:, 0, 0]) / 2)
    assert begun.tolist() == [0, 1, 2, 3, 20, 21, 23, 24, 25]  # 4 is followed by nothing but the gap
    assert (mask[np.asarray(batch.x[..., 0] / 2).astype(int)] == batch.mask).all()
    never = np.stack([np.ones(30, bool), np.zeros(30, bool)], 1)
    assert Windows(x, length=4, batch=9, mask=jnp.asarray(never))(KEY).x.shape == (9, 5, 2)


def test_windows_of_which_nothing_is_observed_are_refused():
    mask = np.zeros((30, 2), bool)
    mask[[0, 29]] = True
    with pytest.raises(ValueError, match="every window of 4 predicted steps lies in a gap"):
        Windows(jnp.ones((30, 2)), length=4, batch=1, mask=jnp.asarray(mask).at[29].set(False))
    with pytest.raises(ValueError, match=r"6 samples in the longest trial where a window of 6"):
        Windows(jnp.ones((10, 2)), length=6, batch=1, trials=(6, 4))
    with pytest.raises(ValueError, match=r"trials must add up to the 10 rows of x: got 9"):
        Windows(jnp.ones((10, 2)), length=3, batch=1, trials=(5, 4))


def test_an_input_of_another_length_is_refused():
    # the shape check of the tests comes first; without it the same is a ValueError
    with pytest.raises((ValueError, TypeCheckError)):
        Windows(jnp.ones((6, 2)), length=3, batch=1, s=jnp.ones((5, 1)))


# --- the loss --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forced():
    cell = stirred(ALRNN(4, 2, input_size=2, key=KEY))
    return Forced(cell, stirred(IdentityReadout(2, 4, key=KEY), 1))


@pytest.fixture(scope="module")
def batch():
    x = RNG.normal(size=(3, 9, 2))
    return Window(*(jnp.asarray(a) for a in (x, x + 0.1 * RNG.normal(size=x.shape), RNG.normal(size=x.shape))))


@pytest.fixture(scope="module")
def gappy(batch):
    """The batch with missing values; what stands in their place must not matter."""
    mask = RNG.random(batch.x.shape) < 0.6
    mask[:, 0] = True
    junk = np.where(mask, 0.0, 1e6 * RNG.normal(size=mask.shape))
    return batch._replace(x=batch.x + junk, seen=batch.seen + junk, mask=jnp.asarray(mask))


def plain_loop(forced, batch, alphas, channels=(True, True)):
    """The loss in NumPy, one step at a time."""
    c = jax.tree.map(np.asarray, forced.cell)
    L = np.asarray(forced.readout.L)
    errors = []
    masks = np.ones(batch.x.shape, bool) if batch.mask is None else np.asarray(batch.mask)
    for x, seen, s, observed in zip(*(np.asarray(a) for a in batch[:3]), masks, strict=True):
        z = np.concatenate([seen[0], L @ seen[0]])
        for t, alpha in enumerate(alphas):
            for i in range(2):
                if channels[i] and observed[t, i]:
                    z[i] = (1 - alpha) * z[i] + alpha * seen[t, i]
            phi = np.where(np.arange(4) < 2, z, np.maximum(z, 0))
            z = c.A * z + c.W @ phi + c.h + c.C @ s[t + 1]
            errors.extend((z[:2] - x[t + 1])[observed[t + 1]] ** 2)
    return np.mean(errors)


@pytest.mark.parametrize(
    "arguments, state, alphas, channels",
    [
        ({"alpha": 0.15}, None, [0.15] * 8, (True, True)),
        ({"alpha": 0.0}, None, [0.0] * 8, (True, True)),
        ({"alpha": 1.0}, None, [1.0] * 8, (True, True)),
        ({"interval": 3}, None, [1, 0, 0, 1, 0, 0, 1, 0], (True, True)),
        ({"alpha": 0.4, "channels": (False, True)}, None, [0.4] * 8, (False, True)),
        ({"interval": 2, "channels": (True, False)}, None, [1, 0] * 4, (True, False)),
        ({}, {"alpha": jnp.asarray(0.7)}, [0.7] * 8, (True, True)),
    ],
)
def test_the_loss_is_a_plain_loop(forced, batch, arguments, state, alphas, channels):
    value, (after, facts) = eqx.filter_jit(gtf(**arguments))(forced, state, batch, KEY)
    assert value == pytest.approx(plain_loop(forced, batch, alphas, channels), rel=1e-12)
    assert facts == {} and jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("arguments, alphas", [({"alpha": 0.3}, [0.3] * 8), ({"interval": 2}, [1, 0] * 4)])
def test_missing_values_neither_force_nor_count(forced, gappy, arguments, alphas):
    loss = eqx.filter_jit(eqx.filter_value_and_grad(lambda f, b: gtf(**arguments)(f, None, b, KEY)[0]))
    value, gradient = loss(forced, gappy)
    assert value == pytest.approx(plain_loop(forced, gappy, alphas), rel=1e-12)
    other = gappy._replace(x=jnp.where(gappy.mask, gappy.x, 7.0), seen=jnp.where(gappy.mask, gappy.seen, -3.0))
    again, same = loss(forced, other)
    assert again == value and eqx.tree_equal(gradient, same)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array)))


def test_a_batch_without_observations_costs_nothing(forced, gappy):
    empty = gappy._replace(mask=jnp.zeros_like(gappy.mask))
    value, gradient = eqx.filter_value_and_grad(lambda f: gtf(0.5)(f, None, empty, KEY)[0])(forced)
    assert value == 0 and all((g == 0).all() for g in jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array)))


def test_the_error_is_of_clean_data(forced, batch):
    far = batch._replace(x=batch.x + 100)
    assert gtf(1.0)(forced, None, far, KEY)[0] > 9e3


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"alpha": -0.1}, r"alpha must lie in \[0, 1\]: got -0\.1"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]: got 1\.5"),
        ({"alpha": float("nan")}, r"alpha must lie in \[0, 1\]: got nan"),
        ({"interval": 0}, r"interval must be at least 1: got 0"),
        ({"alpha": 0.5, "interval": 3}, r"alpha or interval, not both: got alpha=0\.5 and interval=3"),
        ({"alpha": 0.5, "channels": (False, False)}, r"channels must force at least one channel"),
    ],
)
def test_bad_forcing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gtf(**arguments)


def test_channels_of_another_number_are_refused(forced, batch):
    with pytest.raises(ValueError):
        gtf(0.5, channels=(True, True, False))(forced, None, batch, KEY)


# --- members of an ensemble ------------------------------------------------------------------------------


def alrnn(key):
    return Forced(ALRNN(5, 2, key=key), IdentityReadout(2, 5, key=key))


def shallow(key):
    return Forced(ClippedShallowPLRNN(2, 6, key=key), IdentityReadout(2, 2, key=key))


def train_forced(model, key, alpha, **options):
    windows = Windows(jnp.asarray(SERIES, float), length=10, batch=4, noise=0.05, key=jax.random.key(1))
    return fit(model, gtf(), windows, radam(1e-2, 1e-3, 100), steps=100, key=key, state={"alpha": alpha}, **options)


def members_match(make):
    keys = jax.random.split(KEY, 2)
    alphas = jnp.array([0.1, 0.3])
    ensemble = eqx.filter_jit(eqx.filter_vmap(make))(keys)
    together, history = train_forced(ensemble, keys, alphas, threads=1, every=100)
    assert history.loss.shape == (100, 2) and (history.failed_at == -1).all()
    member = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, ensemble)
    alone, own = train_forced(member, keys[1], alphas[1], every=100)
    assert own.loss.shape == (100, 1)
    np.testing.assert_allclose(own.loss[:, 0], history.loss[:, 1], rtol=1e-4)
    pairs = zip(*(jax.tree.leaves(eqx.filter(x, eqx.is_array)) for x in (alone, together, ensemble)), strict=True)
    for a, b, start in pairs:
        assert a.dtype == b.dtype and a.shape == b[1].shape
        if jnp.issubdtype(a.dtype, jnp.inexact) and a.size:
            # the acceptance figure: rounding of another order of the sums, over 100 updates
            assert np.abs(a - b[1]).max() < 1e-5 < np.abs(a - start[1]).max()


@pytest.mark.parametrize("make", [alrnn, pytest.param(shallow, marks=pytest.mark.slow)])
def test_a_member_is_the_same_run_alone(make, optimiser_promotion):
    members_match(make)


@pytest.mark.parametrize("make", [pytest.param(alrnn, marks=pytest.mark.slow), shallow])
def test_a_member_is_the_same_run_alone_in_single_precision(make, float32, optimiser_promotion):
    members_match(make)


# --- the loop, on a model of two numbers -----------------------------------------------------------------


class Point(eqx.Module):
    w: jax.Array
    label: str = eqx.field(static=True, default="point")


class Noise(NamedTuple):
    """A sampler: normal numbers about 3."""

    centre: float = 3.0

    def __call__(self, key):
        return self.centre + jax.random.normal(key, (2,), float)


def distance(model, state, batch, key):
    return jnp.sum((model.w - batch) ** 2), (state, {})


def sample(key):
    return 3 + jax.random.normal(key, (2,), float)


SGD = optax.sgd(0.05)
POINTS = np.arange(6.0).reshape(3, 2)


def points():
    return Point(jnp.asarray(POINTS))


def train(model=None, loss=distance, *, steps=12, key=None, **options):
    key = jax.random.split(KEY, 3) if key is None else key
    options = {"threads": 1, **options}
    return fit(points() if model is None else model, loss, sample, SGD, steps=steps, key=key, **options)


def test_updates_are_those_of_a_plain_loop():
    keys = jax.random.split(KEY, 3)
    model, history = train(key=keys, steps=7, every=3)
    for r in range(3):
        w = POINTS[r].copy()
        for u in range(7):
            target = np.asarray(sample(jax.random.split(jax.random.fold_in(keys[r], u))[0]))
            assert history.loss[u, r] == pytest.approx(np.sum((w - target) ** 2), rel=1e-12)
            w -= 0.05 * 2 * (w - target)
        np.testing.assert_allclose(model.w[r], w, rtol=1e-12)
    assert model.label == "point" and history.scores == {}
    assert history.evaluated_at.tolist() == [3, 6, 7]
    assert history.best_at.tolist() == [7, 7, 7] and history.failed_at.tolist() == [-1, -1, -1]
    assert history.seconds > 0 and history.compile_seconds > 0


@pytest.mark.parametrize("options", [{"every": 5}, {"every": 1}, {"every": 100}, {"every": None}, {"threads": 3}])
def test_chunks_and_threads_do_not_matter(options):
    wanted, history = train(every=12)
    model, other = train(**options)
    np.testing.assert_allclose(model.w, wanted.w, rtol=1e-13)
    np.testing.assert_allclose(other.loss, history.loss, rtol=1e-13)


def test_one_run_comes_back_as_one():
    keys = jax.random.split(KEY, 3)
    model, history = train(Point(points().w[1]), key=keys[1])
    assert model.w.shape == (2,) and history.loss.shape == (12, 1)
    np.testing.assert_allclose(model.w, train(key=keys)[0].w[1], rtol=1e-13)


def test_old_style_keys_are_keys():
    old = train(Point(points().w[0]), key=jax.random.PRNGKey(5))[0]
    assert jnp.array_equal(old.w, train(Point(points().w[0]), key=jax.random.key(5))[0].w)


def test_the_callers_model_is_left_alone():
    model = points()
    train(model)
    assert np.array_equal(model.w, POINTS)


def test_a_sampler_with_arrays_and_static_parts():
    windows = Windows(jnp.asarray(SERIES), length=3, batch=2)

    def loss(model, state, batch, key):
        return jnp.mean((batch.x - model.w[None, None]) ** 2), (state, {})

    model, history = fit(Point(jnp.zeros(2)), loss, windows, SGD, steps=4, key=KEY)
    assert np.isfinite(history.loss).all() and (model.w != 0).all()


def script(scores):
    """An `evaluate` that gives the scores of a script, and keeps the models that it was shown."""
    seen = []

    def evaluate(models):
        seen.append(models)
        return {"score": np.array(scores[len(seen) - 1], float), "other": np.zeros(len(models.w))}

    return evaluate, seen


def test_the_best_model_by_score_is_kept_run_by_run():
    scores = [[3, 1, np.nan], [1, 2, 5], [2, np.inf, 4]]
    evaluate, seen = script(scores)
    model, history = train(evaluate=evaluate, every=4)
    assert [m.w.shape for m in seen] == [(3, 2)] * 3 and seen[0].label == "point"
    assert history.best_at.tolist() == [8, 4, 12]
    for r, which in enumerate([1, 0, 2]):
        assert jnp.array_equal(model.w[r], seen[which].w[r])
    np.testing.assert_array_equal(history.scores["score"], scores)
    assert history.scores["other"].shape == (3, 3) and history.evaluated_at.tolist() == [4, 8, 12]


def test_a_run_that_never_scores_keeps_its_last_model():
    evaluate, seen = script([[np.nan] * 3, [np.inf] * 3])
    model, history = train(evaluate=evaluate, every=6)
    assert jnp.array_equal(model.w, seen[1].w) and history.best_at.tolist() == [12] * 3


def test_each_thread_evaluates_its_own_runs():
    model, history = train(evaluate=lambda m: {"score": np.asarray(m.w[:, 0])}, every=6, threads=3)
    assert history.scores["score"].shape == (2, 3)
    np.testing.assert_allclose(history.scores["score"].min(0), model.w[:, 0])


@pytest.mark.parametrize("found", [{}, {"other": np.zeros(3)}, {"score": np.zeros(2)}, {"score": np.zeros((3, 1))}])
def test_scores_of_another_form_are_refused(found):
    with pytest.raises(ValueError, match=r'evaluate must return \{"score": \[3\], \.\.\.\}, one a run: got'):
        train(evaluate=lambda models: found)


def fuse(model, state, batch, key):
    """NaN on the update at which the fuse of the run has burnt down."""
    value = distance(model, None, batch, key)[0]
    return jnp.where(state["left"] == 0, jnp.nan, value), ({"left": state["left"] - 1}, {})


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_that_turns_nan_stops_alone(threads):
    state = {"left": jnp.array([-1, 5, -1])}
    model, history = train(loss=fuse, state=state, every=4, threads=threads)
    assert history.failed_at.tolist() == [-1, 5, -1]
    wanted, before = train(), train(steps=5)[0]
    np.testing.assert_allclose(model.w[1], before.w[1], rtol=1e-13)
    np.testing.assert_allclose(model.w[::2], wanted[0].w[::2], rtol=1e-13)
    assert np.isnan(history.loss[5:, 1]).all() and np.isfinite(history.loss[:5, 1]).all()
    np.testing.assert_allclose(history.loss[:, ::2], wanted[1].loss[:, ::2], rtol=1e-13)


def test_a_run_whose_parameters_overflow_stops():
    w = POINTS.copy()
    w[2] = 1e200  # its loss is infinite at once
    model, history = train(Point(jnp.asarray(w)))
    assert history.failed_at.tolist() == [-1, -1, 0] and np.array_equal(model.w[2], w[2])
    assert np.isinf(history.loss[0, 2]) and np.isnan(history.loss[1:, 2]).all()


def test_an_infinite_gradient_stops_a_run_with_a_finite_loss():
    def root(model, state, batch, key):
        return jnp.sum(jnp.sqrt(jnp.abs(model.w))), (state, {})

    model, history = train(Point(jnp.asarray([[1.0, 1.0], [0.0, 1.0], [2.0, 2.0]])), root)
    assert history.failed_at[1] == 0 and jnp.array_equal(model.w[1], jnp.array([0.0, 1.0]))
    assert (history.failed_at[[0, 2]] == -1).all()


def test_fit_ends_when_all_runs_have_stopped():
    state = {"left": jnp.array([2, 0, 1])}
    model, history = train(loss=fuse, state=state, every=4, steps=40)
    assert history.loss.shape == (4, 3) and history.evaluated_at.tolist() == [4]
    assert history.failed_at.tolist() == [2, 0, 1]
    assert jnp.array_equal(model.w[1], points().w[1])


def test_the_state_of_a_loss_is_carried():
    def annealed(model, state, batch, key):
        return state["alpha"] * jnp.sum(model.w**2), ({"alpha": state["alpha"] * 0.5}, {})

    _, history = train(Point(jnp.ones((1, 2))), annealed, key=KEY[None], state={"alpha": jnp.ones(1)}, every=2)
    first = history.loss[:, 0]
    w, alpha = 1.0, 1.0
    for value in first:
        assert value == pytest.approx(alpha * 2 * w**2, rel=1e-12)
        w, alpha = w - 0.05 * alpha * 2 * w, alpha / 2


def test_a_plain_number_as_state():
    def scaled(model, state, batch, key):
        return state["alpha"] * jnp.sum(model.w**2), (state, {})

    _, history = train(Point(jnp.ones(2)), scaled, key=KEY, state={"alpha": 0.5})
    assert history.loss[0, 0] == pytest.approx(1.0)


def test_one_compilation_for_all_chunks():
    traces = []

    def counted(model, state, batch, key):
        traces.append(1)
        return distance(model, state, batch, key)

    train(loss=counted, steps=4, every=4)
    one = len(traces)
    train(loss=counted, steps=40, every=4)
    assert len(traces) == 2 * one
    train(loss=counted, steps=42, every=4)  # and one more for the rest
    assert len(traces) <= 4 * one


def test_the_bar_is_silent_but_on_a_terminal(capsys):
    train()
    out, err = capsys.readouterr()
    assert out == err == ""
    train(progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "12/12" in err and "loss" in err
    state = {"left": jnp.zeros(3, int)}
    train(loss=fuse, state=state, progress=True)
    assert "all runs stopped" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, r"steps and every must be at least 1: got 0 and None"),
        ({"every": 0}, r"steps and every must be at least 1: got 12 and 0"),
        ({"threads": 0}, r"threads must be a whole number from 1 on: got 0"),
        ({"key": jax.random.split(KEY, 2)}, r"ensemble of 2 runs needs that leading axis: got \(3, 2\)"),
        ({"state": {"alpha": jnp.ones(2)}}, r"ensemble of 3 runs needs that leading axis: got \(2,\)"),
        ({"key": jax.random.split(KEY, (3, 1))}, r"key must be one key or keys \[r\]: got shape \(3, 1\)"),
    ],
)
def test_bad_arguments_of_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.parametrize("arguments", [(0.0, 1e-3, 10), (1e-3, -1.0, 10), (1e-3, 1e-4, 0)])
def test_bad_rates_are_refused(arguments):
    with pytest.raises(ValueError, match="rates must be positive and steps at least 1: got"):
        radam(*arguments)


def test_patience_ends_runs_one_by_one():
    """Scores that stop falling at known evaluations: each run keeps its best before its patience ran out."""
    falls = np.array([[5, 4, 3, 4, 4, 4, 1, 0], [5, 6, 4, 6, 3, 6, 6, 6]], float)  # by run and evaluation
    looked = []

    def evaluate(models):
        looked.append(len(looked))
        return {"score": falls[:, len(looked) - 1]}

    def run():
        looked.clear()
        return fit(
            jnp.zeros((2, 1)),
            lambda w, state, batch, key: (jnp.sum(-w), (state, {})),
            lambda key: None,
            optax.sgd(1.0),
            steps=16,
            every=2,
            key=jax.random.split(jax.random.key(0), 2),
            evaluate=evaluate,
            patience=3,
            threads=1,
        )

    found, history = run()
    # run 0 is over after evaluation 6, three after its best; the score of 1 at the seventh no longer counts
    assert history.best_at.tolist() == [6, 10] and found[:, 0].tolist() == [6, 10]
    assert len(looked) == 8 and history.loss.shape == (16, 2)
    falls[1] = [5, 6, 6, 6, 0, 0, 0, 0]
    _, history = run()
    assert len(looked) == 6 and history.loss.shape == (12, 2) and history.best_at.tolist() == [6, 2]
    assert not history.interrupted


@pytest.mark.parametrize("options, message", [({"patience": 0}, "at least 1: got 0"), ({"patience": 2}, "evaluate")])
def test_wrong_patience_is_refused(options, message):
    with pytest.raises(ValueError, match=f"patience must be .*{message}"):
        fit(jnp.zeros(1), lambda *_: 0, lambda key: None, optax.sgd(1.0), steps=4, key=jax.random.key(0), **options)
