"""Sequence layers as forecasters: what a window may tell, and what fits of them learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dsrecon.forecast import EnsembleQuantiles, SequenceEstimator, Training, backtest, load_predictor
from dsrecon.forecast.networks import _optimiser
from dsrecon.models import LSSL, S4, S4D, S5
from dsrecon.models.ahead import SequenceForecaster

KEY = jax.random.key(0)
LAYERS = {
    "S4": lambda key: S4(4, 8, key=key),
    "S4D": lambda key: S4D(4, 8, key=key),
    "S5": lambda key: S5(4, 8, key=key),
    "LSSL": lambda key: LSSL(4, 8, trainable=True, key=key),
}
QUICK = Training(epochs=16, batch=16, learning_rate=0.01)
"""For small models of series of one shape."""


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def forecaster(layer=LAYERS["S4D"], **options):
    return SequenceForecaster(12, 5, layer, key=KEY, **options)


# --- one window --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, level", [("S4", "last"), ("S4D", "mean"), ("S5", "none"), ("LSSL", "last")])
def test_a_forecast_is_the_model_over_rows_that_say_what_is_known(kind, level):
    model = forecaster(LAYERS[kind], channels=2, past_size=3, known_size=1, level=level)
    x, past, future = normal(12, 2), normal(12, 3, seed=1), normal(5, 1, seed=2)
    off = {"last": x[-1:], "mean": x.mean(0, keepdims=True), "none": jnp.zeros((1, 2))}[level]
    rows = np.zeros((17, 6))
    rows[:12, :2], rows[:12, 2:5] = x - off, past
    rows[12:, 2:3], rows[12:, 5] = future, 1
    wanted = eqx.filter_jit(model.model)(jnp.asarray(rows))[12:] + off
    run = eqx.filter_jit(model)
    assert np.allclose(run(x, past, future), wanted, atol=1e-12)
    assert np.allclose(run(x + 5, past, future) - wanted, 5, atol=1e-9) == (level != "none")


def test_the_stepwise_face_tells_the_same_step_by_step():
    model, x = forecaster(depth=2, level="none"), normal(12, 1)
    cell = model.model.cell()

    def step(z, row):
        z = cell(z, row)
        return z, cell.output(z, row)

    rows = jnp.concatenate([jnp.pad(x, ((0, 0), (0, 1))), jnp.tile(jnp.asarray([0.0, 1.0]), (5, 1))])
    found = jax.lax.scan(step, jnp.zeros(cell.state_size), rows)[1]
    assert np.allclose(eqx.filter_jit(model)(x), found[12:], atol=1e-10)


def test_what_is_known_ahead_acts_from_its_own_step_on():
    def moved(bidirectional):
        model = forecaster(past_size=1, known_size=1, bidirectional=bidirectional)
        run = eqx.filter_jit(model)
        x, past, future = normal(12, 1), normal(12, 1, seed=1), normal(5, 1, seed=2)
        return jnp.abs(run(x, past, future.at[2].add(1.0)) - run(x, past, future))[:, 0] > 1e-9

    assert moved(False).tolist() == [False, False, True, True, True]
    assert moved(True).tolist() == [True] * 5


def test_every_row_of_the_past_and_every_channel_counts():
    model, x, past = forecaster(channels=2, past_size=1), normal(12, 2), normal(12, 1, seed=1)
    slopes = eqx.filter_jit(jax.jacrev(lambda x, past: model(x, past), argnums=(0, 1)))(x, past)
    of_x, of_past = (np.abs(s).max((0, 1)) for s in slopes)
    assert (of_x > 1e-12).all() and (of_past > 1e-12).all()
    assert np.abs(slopes[0][:, 0, :, 1]).max() > 1e-6  # variables meet, which in TPGN they do not


def test_dropout_is_drawn_with_a_key_alone():
    model, x = forecaster(dropout=0.5), normal(12, 1)
    run = eqx.filter_jit(model)
    one, other = (run(x, key=jax.random.key(i)) for i in (1, 2))
    assert not np.allclose(one, other) and not np.allclose(one, run(x))


def test_a_sequence_forecaster_keeps_single_precision(float32):
    def run():
        model = forecaster(LAYERS["S4"], channels=2, past_size=2, known_size=1)
        return model(jnp.ones((12, 2)), jnp.ones((12, 2)), jnp.ones((5, 1)))

    y = jax.eval_shape(run)
    assert y.dtype == jnp.float32 and y.shape == (5, 2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"channels": 0}, "channels must be at least 1: got 0"),
        ({"depth": 0}, "depth must be at least 1: got 0"),
        ({"past_size": 1, "known_size": 2}, "known_size must be at least 0 and at most past_size.*got 2 and 1"),
        ({"past_size": -1, "known_size": -1}, "known_size must be at least 0 and at most past_size.*got -1 and -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\): got 1.0"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        forecaster(**options)


def test_windows_of_another_shape_are_refused():
    model = forecaster(past_size=2, known_size=1)
    past, future = jnp.ones((12, 2)), jnp.ones((5, 1))
    with pytest.raises(ValueError, match=r"x must have shape \[lookback, n\] = \[12, 1\]: got \[11, 1\]"):
        model(jnp.ones((11, 1)), jnp.ones((11, 2)), future)
    with pytest.raises(ValueError, match=r"past must have shape \[12, 2\]: got \[12, 0\]"):
        model(jnp.ones((12, 1)), None, future)
    with pytest.raises(ValueError, match=r"future must have shape \[5, 1\]: got \[5, 0\]"):
        model(jnp.ones((12, 1)), past)


# --- fits --------------------------------------------------------------------------------------------------


def hourly(rows=400, noise=0.02, seed=0):
    """Two variables with a day, a trend and some noise, and what is known beside them; in no unit near 1."""
    rng, t = np.random.default_rng(seed), np.arange(rows)[:, None]
    day, known = np.sin(2 * np.pi * (t - np.array([[0, 6]])) / 24), 300 + 100 * rng.normal(size=(rows, 1))
    values = 20 + 5 * day + 0.01 * t + 0.02 * known + noise * rng.normal(size=(rows, 2))
    times = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame(values, times, columns=["load", "heat"]), pd.DataFrame(known, times, columns=["price"])


def test_a_fit_learns_days_trends_and_what_is_known_ahead_and_is_kept(tmp_path):
    """The last value again is off by 4 on average, the day alone by 1.6; what is seen, the series itself, is not
    looked at ahead."""
    series, known = hourly()
    estimator = SequenceEstimator(48, 24, LAYERS["S4D"], level="mean", members=2, training=QUICK, dynamics_rate=1e-12)
    fitted = estimator.fit(series[:320], 12, known=known[:320], seen=series[:320], threads=1)
    told = backtest(fitted, series, known=known, seen=series, levels=())
    assert (told.scores["mae"].mean("lead") < 0.8).all()
    layer, start = fitted.members.model.model.blocks[0].layer, LAYERS["S4D"](KEY)
    assert np.allclose(layer.log_decay, start.log_decay[None], atol=1e-6)  # the same for every key: stands still
    assert len(fitted.settings["validation_error"]["value"]) == 2

    changed, later = series.copy(), known.copy()
    changed.iloc[320:] += 100  # the steps ahead of the first window of the test
    later.iloc[326:] += 200
    wanted, first, other = (
        backtest(fitted, y, known=k, seen=y, levels=()).forecasts["forecast"].values[0]
        for y, k in ((series, known), (changed, known), (series, later))
    )
    assert np.array_equal(first, wanted)
    assert np.allclose(other[:6], wanted[:6], atol=1e-9) and (other[6:] - wanted[6:] > 1).all()

    again = load_predictor(fitted.save(tmp_path / "forecaster"))
    given = {"known": known, "seen": series[:388]}
    found = fitted.predict(series[:388], **given)
    xr.testing.assert_identical(again.predict(series[:388], **given), found)
    assert np.allclose(found["forecast"], told.forecasts["forecast"].isel(issue_time=-1), atol=1e-9)
    assert found["time"].values[0] == np.datetime64(series.index[388])
    both = fitted.predict(series[:388], **given, levels=(0.1, 0.5, 0.9), intervals=EnsembleQuantiles())["quantiles"]
    assert np.allclose(both[1], found["forecast"], atol=1e-9) and (both[0] < both[2]).all()


def test_dynamics_learn_at_a_rate_of_their_own_without_weight_decay(optimiser_promotion):
    """Of a gradient of ones: Adam's first step is the rate, and the decay takes off half of the rest."""
    free = eqx.filter(forecaster(), eqx.is_inexact_array)
    optimiser = _optimiser(Training(learning_rate=0.01, weight_decay=50.0), 10, 1e-3)
    steps = jax.jit(lambda p: optimiser.update(jax.tree.map(jnp.ones_like, p), optimiser.init(p), p)[0])(free)
    layer, moved = free.model.blocks[0].layer, steps.model.blocks[0].layer
    for name in ("log_decay", "frequency", "log_step"):
        assert np.allclose(getattr(moved, name), -1e-3, rtol=1e-6)
    for name in ("C", "D"):
        assert np.allclose(getattr(moved, name), -0.01 - 0.5 * getattr(layer, name), rtol=1e-6)
    assert np.allclose(steps.model.head.bias, -0.01 - 0.5 * free.model.head.bias, rtol=1e-6)
    assert isinstance(SequenceEstimator().layer(KEY), S4)
    with pytest.raises(ValueError, match="dynamics_rate must be positive: got 0"):
        SequenceEstimator(dynamics_rate=0.0)
