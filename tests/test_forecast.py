"""From a series to forecasts in its own times and units: estimators, predictors, backtests, intervals."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dsrecon import measures
from dsrecon.forecast import (
    CombinedEstimator,
    Conformal,
    DLinearEstimator,
    EnsembleQuantiles,
    NLinearEstimator,
    ParrotEstimator,
    ReconstructionEstimator,
    RidgeEstimator,
    SeasonalNaiveEstimator,
    TPGNEstimator,
    Training,
    backtest,
    load_predictor,
    time_marks,
)
from dsrecon.forecast.intervals import Errors
from dsrecon.models import ALRNN
from dsrecon.series import Clock

QUICK = Training(epochs=3, batch=16, learning_rate=0.01)


def hourly(rows=400, noise=0.05, seed=0, start="2024-01-01"):
    """A day and a trend, with noise; in no unit near 1."""
    t = np.arange(rows)
    values = 20 + 5 * np.sin(2 * np.pi * t / 24) + 0.01 * t + noise * np.random.default_rng(seed).normal(size=rows)
    return pd.Series(values, pd.date_range(start, periods=rows, freq="h"), name="load")


@pytest.fixture(scope="module")
def series():
    return hourly()


@pytest.fixture(scope="module")
def ridge(series):
    return RidgeEstimator(48).fit(series[:320], 12)


# --- what is found, and reported ---------------------------------------------------------------------------


def test_period_and_lookback_are_found_and_reported(series):
    fitted = SeasonalNaiveEstimator().fit(series, 12)
    found = fitted.settings
    assert found["period"]["value"] == 24 and "autocorrelation" in found["period"]["reason"]
    assert found["lookback"]["value"] == 144 and "periods" in found["lookback"]["reason"]
    assert fitted.horizon == 12 and found["validation"]["value"] == 80
    assert json.loads(fitted.record)["estimator"] == "SeasonalNaiveEstimator"


@pytest.mark.parametrize(
    "estimator",
    [
        SeasonalNaiveEstimator(48),
        RidgeEstimator(48),
        ParrotEstimator(48),
        NLinearEstimator(48, members=2, training=QUICK),
        DLinearEstimator(48, training=QUICK),
        TPGNEstimator(48, members=2, width=4, training=QUICK),
        ReconstructionEstimator(48, cell=lambda key: ALRNN(6, 2, key=key), runs=1, steps=40),
    ],
    ids=lambda e: type(e).__name__,
)
def test_every_estimator_forecasts_in_the_units_and_times_of_the_data(estimator, series, tmp_path):
    fitted = estimator.fit(series, 12, threads=1)
    found = fitted.predict()
    assert found["forecast"].dims == ("time", "variable") and found["forecast"].shape == (12, 1)
    assert found["time"].values[0] == np.datetime64(series.index[-1] + pd.Timedelta("1h"))
    assert found["issue_time"].values == np.datetime64(series.index[-1])
    assert found["lead"].values.tolist() == list(range(1, 13)) and found["variable"].values.tolist() == ["load"]
    assert found["quantile"].values.tolist() == [0.05, 0.95]
    low, high = found["quantiles"].values
    assert (low < high).all() and 5 < found["forecast"].values.mean() < 40
    again = load_predictor(fitted.save(tmp_path / "forecaster"))
    xr.testing.assert_identical(again.predict(series[-100:]), fitted.predict(series[-100:]))
    np.testing.assert_allclose(again.predict(series)["forecast"], found["forecast"], rtol=1e-9)


def test_learned_forecasts_beat_the_last_period(series):
    """The trend of .24 a day is what the last period lacks."""
    scores = {}
    for name, estimator in (("naive", SeasonalNaiveEstimator(48)), ("ridge", RidgeEstimator(48))):
        scores[name] = backtest(estimator.fit(series[:320], 12), series).table()["mae"]
    assert scores["ridge"] < 0.5 * scores["naive"] and 0.1 < scores["naive"] < 0.4


def test_ridge_is_penalised_least_squares(series):
    fitted = RidgeEstimator(10, penalty=3.0).fit(series, 4, validation=0.0)
    x = (series.values - series.values.mean()) / series.values.std()
    windows = np.lib.stride_tricks.sliding_window_view(x, 14)
    X, Y = windows[:, :10], windows[:, 10:]
    X0, Y0 = X - X.mean(0), Y - Y.mean(0)
    W = np.linalg.solve(X0.T @ X0 + 3 * np.eye(10), X0.T @ Y0).T
    model = fitted.members.model
    np.testing.assert_allclose(model.W[0, 0], W, atol=1e-9)
    np.testing.assert_allclose(model.b[0, 0], Y.mean(0) - W @ X.mean(0), atol=1e-9)
    with pytest.raises(ValueError, match="penalty must be given where there is no validation"):
        RidgeEstimator(10).fit(series, 4, validation=0.0)


def test_a_linear_series_is_learned_exactly():
    """x_t = 1.6 x_{t-1} - .9 x_{t-2}, from two values: which a past taken the wrong way round cannot give."""
    x = [1.0, 0.5]
    for _ in range(300):
        x.append(1.6 * x[-1] - 0.9 * x[-2] + 1e-9)
    x = np.array(x[:60])
    fitted = RidgeEstimator(2, penalty=1e-12).fit(x[:50], 3, validation=0.0)
    np.testing.assert_allclose(fitted.predict()["forecast"].values[:, 0], x[50:53], atol=1e-6)


def test_the_last_rows_change_nothing_that_was_learned(series):
    """No leakage: scaling and weights come from the training part, the validation part only chooses."""
    changed = series.copy()
    changed.iloc[320:] *= 3
    one, other = (RidgeEstimator(24, penalty=1.0).fit(s, 6) for s in (series, changed))
    assert np.array_equal(one.members.model.W, other.members.model.W)
    assert np.array_equal(one.scaler.mean, other.scaler.mean) and np.array_equal(one.scaler.std, other.scaler.std)
    assert not np.allclose(one.errors.values, other.errors.values)


def test_members_differ_and_their_mean_is_the_forecast(series):
    fitted = TPGNEstimator(48, members=3, width=2, training=QUICK).fit(series, 6, threads=1)
    assert len(fitted.settings["epochs"]["value"]) == 3
    found = fitted.predict(levels=(0.1, 0.9), intervals=EnsembleQuantiles())
    low, high = found["quantiles"].values
    assert (low < found["forecast"].values).all() and (found["forecast"].values < high).all()
    again = TPGNEstimator(48, members=3, width=2, training=QUICK).fit(series, 6, threads=1)
    assert np.array_equal(again.predict()["forecast"], fitted.predict()["forecast"])
    with pytest.raises(ValueError, match="at least 2 members: got 1"):
        RidgeEstimator(48).fit(series, 6).predict(intervals=EnsembleQuantiles())


def test_a_combination_is_the_mean_of_its_parts_each_fitted_by_itself(series, tmp_path):
    parts = (
        RidgeEstimator(48, 24, penalty=1.0),
        RidgeEstimator(24, 24, level="last", penalty=1.0),
        SeasonalNaiveEstimator(24),
    )
    both = CombinedEstimator(parts, 48).fit(series, 6)
    alone = [part.fit(series, 6).predict()["forecast"].values for part in parts]
    np.testing.assert_allclose(both.predict()["forecast"], np.mean(alone, 0), rtol=1e-9)
    again = load_predictor(both.save(tmp_path / "both"))
    np.testing.assert_array_equal(again.predict()["forecast"], both.predict()["forecast"])
    assert both.settings["part 0 penalty"]["value"] == 1.0
    chosen = CombinedEstimator((RidgeEstimator(48), RidgeEstimator(24)), 48).fit(series, 6)  # on the same windows
    assert len(chosen.errors.values) == len(RidgeEstimator(48).fit(series, 6).errors.values)
    with pytest.raises(
        ValueError, match="every part needs a lookback of its own, at most that of all, 48: got 72 of part 1"
    ):
        CombinedEstimator((parts[0], RidgeEstimator(72, penalty=1.0)), 48).fit(series, 6)
    with pytest.raises(ValueError, match="parts must be at least two estimators: got 1"):
        CombinedEstimator(parts[:1], 48).fit(series, 6)


def test_single_precision(series, float32):
    fitted = TPGNEstimator(48, width=2, training=QUICK).fit(series, 6, threads=1)
    assert fitted.members.model.channel.rows.W.dtype == jnp.float32
    assert np.isfinite(fitted.predict()["forecast"].values).all()


# --- covariates --------------------------------------------------------------------------------------------


def switched(rows=500):
    """A series that follows a switch known ahead, and nothing else that can be foreseen."""
    rng = np.random.default_rng(3)
    switch = np.repeat(rng.integers(0, 2, rows // 5), 5).astype(float)
    index = pd.date_range("2024-01-01", periods=rows, freq="D")
    values = pd.Series(3 * switch + 0.1 * rng.normal(size=rows), index, name="sales")
    return values, pd.DataFrame({"sale": switch}, index)


def test_covariates_known_ahead_are_used():
    values, switch = switched()
    training = Training(epochs=40, patience=40, batch=32, learning_rate=0.02)
    known = TPGNEstimator(14, 7, training=training).fit(values[:400], 7, known=switch[:400], threads=1)
    blind = TPGNEstimator(14, 7, training=training).fit(values[:400], 7, threads=1)
    told = backtest(known, values, known=switch).table()["mae"]
    untold = backtest(blind, values).table()["mae"]
    assert told < 0.5 * untold
    whole = known.predict(values[:400], known=switch[:407])
    ahead = known.predict(known=switch[400:407])
    np.testing.assert_allclose(whole["forecast"], ahead["forecast"], rtol=1e-10)
    np.testing.assert_allclose(known.predict(known=switch)["forecast"], ahead["forecast"], rtol=1e-10)


def test_covariates_seen_up_to_the_present_are_not_seen_ahead():
    values, switch = switched(300)
    fitted = TPGNEstimator(14, 7, width=2, training=QUICK).fit(values, 7, seen=switch, threads=1)
    model = fitted.members.model
    assert (model.past_size, model.known_size) == (1 + 3, 0)
    found = fitted.predict(values, seen=switch)
    np.testing.assert_allclose(found["forecast"], fitted.predict()["forecast"], rtol=1e-10)
    changed = switch.copy()
    changed.iloc[-1] += 5
    assert not np.allclose(fitted.predict(values, seen=changed)["forecast"], found["forecast"])


def test_wrong_covariates_are_refused():
    values, switch = switched(200)
    estimator = TPGNEstimator(14, 7, width=2, training=QUICK)
    with pytest.raises(ValueError, match="RidgeEstimator takes no covariates: got known"):
        RidgeEstimator(14).fit(values, 7, known=switch)
    with pytest.raises(ValueError, match="known covariates must cover the 200 rows of the series: .*cover 150 of them"):
        estimator.fit(values, 7, known=switch[:150])
    fitted = estimator.fit(values[:150], 7, known=switch[:150], threads=1)
    with pytest.raises(ValueError, match="known covariates must be given: it was fitted with sale"):
        fitted.predict()
    with pytest.raises(ValueError, match="must cover the 7 rows ahead, the horizon: .*cover 5 of them"):
        fitted.predict(known=switch[:155])
    with pytest.raises(ValueError, match="known covariates must cover the 150 rows of the series and 7 ahead"):
        fitted.predict(values[:150], known=switch[:153])
    with pytest.raises(ValueError, match="seen covariates are not wanted"):
        fitted.predict(values[:150], known=switch, seen=switch)


# --- several series ----------------------------------------------------------------------------------------


def test_one_model_of_many_series():
    """Their levels and scales do not matter: each is standardised by itself."""
    panel = [hourly(200, seed=i) * 10.0**i for i in range(3)]
    fitted = RidgeEstimator(48, penalty=1.0).fit(panel, 6)
    assert fitted.scaler is None
    found = [fitted.predict(one)["forecast"].values for one in (panel[0], 100 * panel[0])]
    np.testing.assert_allclose(found[1], 100 * found[0], rtol=1e-9)
    with pytest.raises(ValueError, match="context must be given: this forecaster was fitted to several series"):
        fitted.predict()
    new = hourly(150, seed=9) * 7
    error = np.abs(fitted.predict(new[:144])["forecast"].values[:, 0] - new[144:].values)
    assert error.mean() < 0.1 * 7 * 5


# --- times -------------------------------------------------------------------------------------------------


def test_months_are_steps():
    index = pd.date_range("2000-01-01", periods=120, freq="MS")
    values = pd.Series(np.sin(np.arange(120) * 2 * np.pi / 12) + 3, index, name="level")
    fitted = TPGNEstimator(24, width=2, training=QUICK).fit(values, 3, threads=1)
    assert fitted.settings["period"]["value"] == 12 and fitted.members.model.past_size == 1
    times = pd.DatetimeIndex(fitted.predict()["time"].values)
    assert times.tolist() == pd.date_range("2010-01-01", periods=3, freq="MS").tolist()
    tested = backtest(fitted, values, start="2009-01-01")
    assert tested.windows == 10
    assert pd.Timestamp(tested.forecasts["time"].values[0, 0]) == pd.Timestamp("2009-01-01")


@pytest.mark.parametrize(
    "frequency, names",
    [
        ("10s", ["second of the minute", "minute of the hour", "hour of the day", "day of the week"]),
        ("15min", ["minute of the hour", "hour of the day", "day of the week", "day of the month"]),
        ("h", ["hour of the day", "day of the week", "day of the month", "day of the year"]),
        ("D", ["day of the week", "day of the month", "day of the year"]),
        ("B", ["day of the week", "day of the month", "day of the year"]),
        ("W", ["day of the month", "week of the year"]),
        ("ME", ["month of the year"]),
        ("QS", ["month of the year"]),
        ("YE", []),
    ],
)
def test_marks_follow_from_any_frequency(frequency, names):
    index = pd.date_range("2021-03-31 05:00", periods=40, freq=frequency)
    from dsrecon.series import as_series

    series = as_series(pd.Series(np.arange(40.0), index, name="x"), calendar=True)
    assert (series.clock.times(40) == index.to_numpy()).all()
    marks, found = time_marks(series.clock, 40)
    assert list(found)[: len(names)] == names and marks.shape == (40, len(found))
    assert len(marks[0]) == 0 or (np.abs(marks) <= 0.5).all()


def test_marks_are_those_of_the_published_protocol():
    marks, names = time_marks(Clock(3600.0, "2016-12-31T23:00:00", "datetime"), 2)
    assert names == ("hour of the day", "day of the week", "day of the month", "day of the year")
    np.testing.assert_allclose(marks[0], [0.5, 5 / 6 - 0.5, 0.5, 0.5])
    np.testing.assert_allclose(marks[1], [-0.5, 0.5, -0.5, -0.5])


# --- backtests ---------------------------------------------------------------------------------------------


def test_a_backtest_is_predict_from_every_window(ridge, series):
    result = backtest(ridge, series, stride=7, levels=(0.1, 0.5, 0.9))
    assert result.windows == len(range(320, 400 - 12 + 1, 7))
    kept = result.forecasts
    for i in range(result.windows):
        row = 320 + 7 * i
        alone = ridge.predict(series[:row], levels=(0.1, 0.5, 0.9))
        np.testing.assert_allclose(kept["forecast"][i], alone["forecast"], rtol=1e-9)
        np.testing.assert_allclose(kept["quantiles"][:, i], alone["quantiles"], rtol=1e-9)
        assert (kept["time"][i].values == alone["time"].values).all()
        assert kept["issue_time"][i].values == alone["issue_time"].values
        assert np.array_equal(kept["observed"][i, :, 0], series[row : row + 12])
    off = kept["forecast"].values - kept["observed"].values
    table = result.table()
    assert np.isclose(table["mse"], (off**2).mean()) and np.isclose(table["mae"], np.abs(off).mean())
    assert np.isclose(table["mse_scaled"], (off**2).mean() / ridge.scaler.std[0] ** 2)
    inside = (kept["observed"] >= kept["quantiles"][0]) & (kept["observed"] <= kept["quantiles"][2])
    assert np.isclose(table["coverage 0.8"], inside.mean())
    naive = measures.naive_error(series[:256].values[:, None], 24)
    assert np.isclose(table["mase"], np.abs(off).mean() / naive[0])


def test_a_backtest_in_chunks_is_the_same(ridge, series, monkeypatch):
    one = backtest(ridge, series)
    monkeypatch.setattr(sys.modules["dsrecon.forecast.backtest"], "CHUNK", 10)
    other = backtest(ridge, series, keep=False)
    assert other.forecasts is None
    xr.testing.assert_allclose(one.scores, other.scores)


def test_where_a_test_begins(ridge, series):
    rows = [backtest(ridge, series, start=at).windows for at in (360, 0.9, str(series.index[360]), 5)]
    assert rows == [29, 29, 29, 400 - 48 - 11]
    assert backtest(ridge, series, 4, start=360).windows == 37
    plain = RidgeEstimator(48).fit(series.values[:320], 12)
    assert backtest(plain, series.values).windows == 400 - 320 - 11
    with pytest.raises(ValueError, match="test part must hold a whole window: it has 0 rows"):
        backtest(ridge, series[:320])
    for bad, message in (
        ({"start": 400}, "start must be a row from 0 to 399"),
        ({"stride": 0}, "stride must be a whole"),
    ):
        with pytest.raises(ValueError, match=message):
            backtest(ridge, series, **bad)
    with pytest.raises(ValueError, match="horizon must be from 1 to 12, that of the fit: got 13"):
        backtest(ridge, series, 13)


def test_missing_truth_does_not_count(series):
    holes = series.copy()
    holes.iloc[350:360] = np.nan
    fitted = RidgeEstimator(48).fit(series[:320], 12, impute="last")
    result = backtest(fitted, holes)
    assert np.isfinite(result.table()).all()
    observed = result.forecasts["observed"].values
    assert np.isnan(observed).any()
    off = np.abs(result.forecasts["forecast"].values - observed)
    per_lead = np.nanmean(off, 0)
    np.testing.assert_allclose(result.scores["mae"], per_lead)


# --- intervals ---------------------------------------------------------------------------------------------


def test_conformal_quantiles_are_ranks_of_the_errors():
    values = np.arange(1.0, 20.0).reshape(19, 1, 1)  # 19 windows: the 95 % quantile is the largest
    errors = Errors(np.random.default_rng(0).permutation(values), np.ones((19, 1)))
    members = np.zeros((2, 3, 1, 1))
    found = Conformal(scaled=False).quantiles(members, np.ones((3, 1)), errors, (0.05, 0.5, 0.95))
    assert found[:, 0, 0, 0].tolist() == [1, 10, 19]
    with pytest.raises(ValueError, match=r"levels must leave room at both ends: 0\.96 needs 24 validation windows"):
        Conformal().quantiles(members, np.ones((3, 1)), errors, (0.96,))
    with pytest.raises(ValueError, match="fit with validation above 0"):
        Conformal().quantiles(members, np.ones((3, 1)), None, (0.5,))


def test_scaled_intervals_are_as_wide_as_the_window_is_restless():
    errors = Errors(np.linspace(-1, 1, 99).reshape(99, 1, 1), np.full((99, 1), 2.0))
    found = Conformal().quantiles(np.zeros((1, 2, 1, 1)), np.array([[1.0], [3.0]]), errors, (0.05, 0.95))
    width = found[1] - found[0]
    np.testing.assert_allclose(width[1], 3 * width[0])
    plain = Conformal(scaled=False).quantiles(np.zeros((1, 2, 1, 1)), np.array([[1.0], [3.0]]), errors, (0.05, 0.95))
    np.testing.assert_allclose(width[0], (plain[1] - plain[0])[0] / 2)


def test_intervals_cover_what_they_name():
    """Independent noise: so 90 % are covered, but for the 1,000 rows that it is counted on."""
    rng = np.random.default_rng(5)
    values = rng.standard_t(4, size=4000)
    fitted = RidgeEstimator(8, penalty=1e3).fit(values[:3000], 2)
    for how in (Conformal(scaled=False), Conformal()):
        assert 0.87 < backtest(fitted, values, intervals=how).table()["coverage 0.9"] < 0.93


@pytest.mark.parametrize("levels", [(0.0, 0.5), (0.5, 0.5), (1.2,)])
def test_wrong_levels_are_refused(ridge, levels):
    with pytest.raises(ValueError, match=r"levels must be different numbers in \(0, 1\)"):
        ridge.predict(levels=levels)


def test_without_validation_there_are_no_intervals(series):
    fitted = RidgeEstimator(48, penalty=1.0).fit(series, 6, validation=0.0)
    assert "quantiles" not in fitted.predict()
    assert "crps" not in backtest(fitted, series, start=300).scores
    with pytest.raises(ValueError, match="fit with validation above 0"):
        fitted.predict(levels=(0.1, 0.9))


# --- what is refused, and what is not ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, horizon, message",
    [
        (lambda s: s, 0, "horizon must be a whole number from 1 on: got 0"),
        (lambda s: s, 2.5, "horizon must be a whole number from 1 on: got 2.5"),
        (lambda s: s[:40], 6, "lookback must fit in the series, whose training part has 32 rows: got 48"),
        (
            lambda s: s[:66],
            6,
            "training part has 53 rows where a window needs 54, the lookback of 48 and the horizon of 6",
        ),
        (lambda s: pd.concat([s[:50], s[49:]]), 6, "times must increase: they repeat at row 50"),
        (lambda s: s.drop(s.index[[30, 77]]), 6, "times must be equidistant: the step before row 30"),
        (lambda s: s.astype(str), 6, "column 'load' must hold numbers"),
        (
            lambda s: s.where(np.arange(400) != 7),
            6,
            "must be complete: 1 of 400 values are NaN, the first 'load' at row 7",
        ),
    ],
    ids=["none", "half", "lookback", "short", "twice", "uneven", "text", "missing"],
)
def test_bad_input_is_refused_by_name(series, change, horizon, message):
    with pytest.raises(ValueError, match=message):
        RidgeEstimator(48).fit(change(series), horizon)


@pytest.mark.parametrize(
    "estimator, message",
    [
        (RidgeEstimator(0), "lookback must be a whole number from 1 on: got 0"),
        (SeasonalNaiveEstimator(23, 24), "period must be at most the lookback, 23: got 24"),
        (RidgeEstimator(48, penalty=-1.0), "penalty must be positive"),
        (TPGNEstimator(48, members=0), "members must be at least 1: got 0"),
        (TPGNEstimator(48, width=0), "width must be at least 1: got 0"),
    ],
)
def test_bad_settings_are_refused_by_name(estimator, message, series):
    with pytest.raises(ValueError, match=message):
        estimator.fit(series, 6)


@pytest.mark.parametrize("name, value", [("epochs", 0), ("learning_rate", 0.0), ("decay", 1.5)])
def test_bad_training_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Training(**{name: value})


def test_bad_contexts_are_refused_by_name(ridge, series):
    for context, message in (
        (series[:47], "context must hold at least the lookback, 48 rows: got 47"),
        (series.rename("price"), r"context must hold \['load'\]: got \['price'\]"),
        (series[::2], "context must have the time step of the fit, 3600: got 7200"),
        (series.where(np.arange(400) != 390), "the context must be complete: 1 of 400 values are NaN"),
        ([series, series], "context must be one series: got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            ridge.predict(context)


@pytest.mark.parametrize("how", ["last", "seasonal"])
def test_imputing_looks_back_only(how, series):
    """What comes after a gap does not reach the windows before it."""
    from dsrecon.forecast.task import imputed

    x = np.arange(12.0)[:, None]
    x[[0, 5, 6, 11]] = np.nan
    found = imputed(x, how, 3, ["x"], "x")[:, 0]
    wanted = {"last": [1, 4, 4, 10], "seasonal": [1, 2, 3, 8]}[how]
    assert found[[0, 5, 6, 11]].tolist() == wanted
    holes = series.where(np.random.default_rng(0).random(400) > 0.1)
    fitted = RidgeEstimator(48, period=24).fit(holes, 6, impute=how)
    assert np.isfinite(fitted.predict()["forecast"].values).all()


def test_a_sine_with_a_trend_a_constant_and_a_short_series():
    t = np.arange(300)
    trend = RidgeEstimator(30, penalty=1e-6).fit(np.sin(2 * np.pi * t / 10) + 0.1 * t, 10)
    wanted = np.sin(2 * np.pi * np.arange(300, 310) / 10) + 0.1 * np.arange(300, 310)
    np.testing.assert_allclose(trend.predict()["forecast"].values[:, 0], wanted, atol=1e-3)
    still = TPGNEstimator(20, width=2, training=QUICK).fit(np.full(200, 3.0), 5, threads=1)
    assert still.settings["period"]["reason"] == "period 1: the series is constant"
    assert np.abs(still.predict()["forecast"].values - 3).max() < 0.5
    with pytest.raises(ValueError, match="period must be at most the lookback, 23: got 24"):
        TPGNEstimator(23, 24).fit(hourly(), 5)
    below = TPGNEstimator(23, width=2, training=QUICK).fit(hourly(), 5, threads=1)
    assert below.settings["period"]["value"] == 1 and np.isfinite(below.predict()["forecast"].values).all()


def test_a_forecast_that_diverges_says_so(series):
    fitted = RidgeEstimator(4, penalty=1.0).fit(series, 6, validation=0.0)
    broken = jax.tree.map(lambda w: w, fitted)
    object.__setattr__(broken.members.model, "b", fitted.members.model.b.at[0, 0, 3].set(jnp.inf))
    with pytest.raises(RuntimeError, match="not finite from 4 steps ahead on"):
        broken.predict()
    scores = backtest(broken, series, start=300).scores
    assert np.isinf(scores["mse"].values[3]).all() and np.isfinite(scores["mse"].values[:3]).all()
