"""`SktimeForecaster`: sktime's own checks of an estimator, and that nothing is lost between the two interfaces."""

import subprocess
import sys
from copy import deepcopy

import jax
import numpy as np
import pandas as pd
import pytest
from jax.experimental.compilation_cache import compilation_cache

pytest.importorskip("sktime")

from sktime.utils.estimator_checks import check_estimator

from dsrecon.forecast import RidgeEstimator, SeasonalNaiveEstimator, TPGNEstimator, Training
from dsrecon.forecast.adapter import FEWEST, SktimeForecaster, _has_rank, _suited
from dsrecon.series import as_series

RIDGE = RidgeEstimator(lookback=24, period=12, level="last", penalty=1.0)
NAIVE = SeasonalNaiveEstimator(lookback=12, period=12)
AHEAD = np.arange(1, 13)


def months(rows: int = 144, *, seed: int = 0) -> pd.Series:
    """Like the airline passengers: a year, a trend, noise."""
    t = np.arange(rows)
    values = 100 + t + 20 * np.sin(2 * np.pi * t / 12) + np.random.default_rng(seed).normal(size=rows)
    return pd.Series(values, pd.period_range("1949-01", periods=rows, freq="M"), name="passengers")


INDICES = {
    "period": months().index,
    "month begin": pd.date_range("1949-01-01", periods=144, freq="MS"),
    "month end": pd.date_range("1949-01-31", periods=144, freq="ME"),
    "working days": pd.date_range("2020-01-01", periods=144, freq="B"),
    "hours": pd.date_range("2020-01-01", periods=144, freq="h"),
    "range": pd.RangeIndex(144),
    "integers": pd.Index(np.arange(7, 151)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_the_forecast_is_that_of_the_predictor_at_the_times_that_follow(index):
    y = pd.Series(months().to_numpy(), index, name="passengers")
    found = SktimeForecaster(RIDGE).fit(y[:-12], fh=AHEAD).predict()
    direct = RIDGE.fit(y.to_numpy()[:-12], 12).predict(levels=())
    np.testing.assert_allclose(found.to_numpy(), direct["forecast"].values[:, 0], rtol=1e-10)
    pd.testing.assert_index_equal(found.index, index[-12:], exact="equiv", check_names=False)
    assert found.name == "passengers"


def test_steps_are_chosen_from_the_horizon_relative_or_absolute():
    y = months()
    every = SktimeForecaster(RIDGE).fit(y[:-12], fh=AHEAD).predict()
    some = SktimeForecaster(RIDGE, horizon=12).fit(y[:-12], fh=[2, 5]).predict()
    pd.testing.assert_series_equal(some, every.iloc[[1, 4]], check_freq=False)
    dates = SktimeForecaster(RIDGE, horizon=12).fit(y[:-12], fh=y.index[[-11, -8]]).predict()
    pd.testing.assert_series_equal(dates, some, check_freq=False)


def test_variables_stay_in_their_columns():
    y = pd.DataFrame({"b": months(seed=1), "a": -3 * months(seed=2)})
    found = SktimeForecaster(RIDGE).fit(y, fh=AHEAD).predict()
    assert list(found.columns) == ["b", "a"]
    for name in y:
        alone = SktimeForecaster(RIDGE).fit(y[name], fh=AHEAD).predict()
        np.testing.assert_allclose(found[name], alone, rtol=1e-10)


@pytest.fixture(scope="module")
def driven():
    """Fitted with a covariate, one step ahead; `(forecaster, y, X)`, `X` longer than `y`."""
    X = pd.DataFrame({"tariff": np.random.default_rng(3).normal(size=80)}, pd.date_range("2020", periods=80, freq="D"))
    y = (3 * X["tariff"] + 10).iloc[:70].rename("load")
    training = Training(epochs=30, batch=16, learning_rate=1e-2)
    estimator = TPGNEstimator(lookback=4, period=2, width=4, normalise=False, marks=False, training=training)
    return SktimeForecaster(estimator).fit(y, X=X.iloc[:70], fh=1), y, X


def test_covariates_are_those_of_the_steps_ahead(driven):
    forecaster, y, X = driven
    found = forecaster.predict(X=X.iloc[70:71])
    again = forecaster.predict(X=X)  # rows before and beyond are left alone
    pd.testing.assert_series_equal(found, again)
    predictor = forecaster.predictor_
    known = as_series(X.iloc[66:71])
    direct = predictor.predict(as_series(y.iloc[66:70]), known=known, levels=())
    np.testing.assert_allclose(found, direct["forecast"].values[:, 0], rtol=1e-10)
    more = forecaster.predict(X=X.iloc[70:71] + 1)
    assert more.iloc[0] > found.iloc[0] + 0.1  # the law rises by 3 a unit; 90 updates have learned some of it


def test_rows_that_were_updated_take_their_covariates_along(driven):
    forecaster, y, X = driven
    updated = deepcopy(forecaster)
    new = (3 * X["tariff"] + 10).iloc[70:72].rename("load")
    updated.update(new, X=X.iloc[70:72], update_params=False)
    found = updated.predict(X=X.iloc[72:73])
    assert found.index[0] == X.index[72]
    context = as_series(pd.concat([y, new]).iloc[-4:])
    direct = forecaster.predictor_.predict(context, known=as_series(X.iloc[68:73]), levels=())
    np.testing.assert_allclose(found, direct["forecast"].values[:, 0], rtol=1e-10)


def test_covariates_that_are_missing_or_not_wanted_are_refused(driven):
    forecaster, _, X = driven
    with pytest.raises(ValueError, match=r"X must have a row.*1 are missing, the first 2020-03-11"):
        forecaster.predict(X=X.iloc[71:72])
    with pytest.raises(ValueError, match=r"1 are missing"):
        forecaster.predict()
    with pytest.raises(ValueError, match=r"X must hold the columns of the fit, \['tariff'\]: got \['price'\]"):
        forecaster.predict(X=X.rename(columns={"tariff": "price"}))
    assert not SktimeForecaster(RIDGE).get_tag("capability:exogenous")
    assert SktimeForecaster().get_tag("capability:exogenous")


def test_quantiles_are_those_of_the_predictor():
    y = pd.DataFrame({"b": months(seed=1), "a": months(seed=2)})
    forecaster = SktimeForecaster(RIDGE, validation=0.3).fit(y, fh=[1, 3])
    found = forecaster.predict_quantiles(alpha=[0.9, 0.1])
    direct = forecaster.predictor_.predict(levels=(0.1, 0.9))["quantiles"].values[:, [0, 2]]
    assert list(found.columns) == [("b", 0.9), ("b", 0.1), ("a", 0.9), ("a", 0.1)]
    np.testing.assert_allclose(found[("a", 0.1)], direct[0, :, 1], rtol=1e-10)
    np.testing.assert_allclose(found[("b", 0.9)], direct[1, :, 0], rtol=1e-10)


def test_a_quantile_without_enough_windows_is_infinite_and_says_so():
    y = months(60)
    forecaster = SktimeForecaster(RidgeEstimator(lookback=6, period=1, penalty=1.0), validation=20 / 60).fit(y, fh=[2])
    assert len(forecaster.predictor_.errors.values) == 19
    assert np.isfinite(forecaster.predict_interval(coverage=0.9).to_numpy()).all()  # 19 windows are just enough
    with pytest.warns(UserWarning, match=r"\[0.02, 0.98\] are infinite: they need 49 validation windows, there are 19"):
        found = forecaster.predict_quantiles(alpha=[0.02, 0.5, 0.98])
    np.testing.assert_array_equal(np.isfinite(found.to_numpy()), [[False, True, False]])
    assert found.iloc[0, 0] == -np.inf and found.iloc[0, 2] == np.inf
    with pytest.raises(NotImplementedError, match="quantile"):
        SktimeForecaster(NAIVE, validation=0.0).fit(y, fh=1).predict_quantiles()


@pytest.mark.parametrize("windows", [1, 3, 9, 10, 19])
def test_a_level_has_a_rank_exactly_where_conformal_takes_it(windows):
    from dsrecon.forecast import Conformal
    from dsrecon.forecast.intervals import Errors

    errors = Errors(np.arange(windows, dtype=np.float32)[:, None, None], np.ones((windows, 1), np.float32))
    for level in (0.02, 0.05, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 0.95, 0.98):
        try:
            Conformal().quantiles(np.zeros((1, 1, 1, 1)), np.ones((1, 1)), errors, (level,))
            taken = True
        except ValueError:
            taken = False
        assert _has_rank(level, windows) == taken, level


def test_updated_rows_are_gone_on_from_and_refitting_is_fitting():
    t = np.arange(60)
    y = pd.Series(np.sin(2 * np.pi * t / 12) + t // 36, t)  # a level that changes after what is fitted
    kept = SktimeForecaster(NAIVE).fit(y[:36], fh=AHEAD)
    kept.update(y[36:41], update_params=False).update(y[41:48], update_params=False)
    np.testing.assert_allclose(kept.predict(), y[48:], atol=1e-12)
    assert list(kept.predict().index) == list(range(48, 60))
    again = SktimeForecaster(RIDGE).fit(months()[:-24], fh=AHEAD).update(months()[-24:-12], update_params=True)
    pd.testing.assert_series_equal(again.predict(), SktimeForecaster(RIDGE).fit(months()[:-12], fh=AHEAD).predict())


def test_missing_values_are_refused_or_filled_in():
    y = months()
    y.iloc[-3] = np.nan
    with pytest.raises(ValueError, match="missing data"):
        SktimeForecaster(NAIVE).fit(y, fh=AHEAD)
    found = SktimeForecaster(NAIVE, impute="seasonal").fit(y, fh=AHEAD).predict()
    np.testing.assert_allclose(found, np.where(np.isnan(y[-12:]), y[-24:-12], y[-12:]), rtol=1e-12)


def test_settings_go_through_clone_and_set_params():
    forecaster = SktimeForecaster(RIDGE, horizon=12, validation=0.3, impute="last", seed=4)
    twin = forecaster.clone()
    assert twin.get_params() == forecaster.get_params()
    twin.set_params(validation=0.0, impute=None, estimator=TPGNEstimator())
    assert (twin.seed, twin.horizon) == (4, 12)
    assert not twin.get_tag("capability:pred_int") and not twin.get_tag("capability:missing_values")
    assert twin.get_tag("capability:exogenous") and not forecaster.get_tag("capability:exogenous")


@pytest.mark.parametrize("rows,horizon", [(2, 1), (3, 1), (5, 2), (8, 5), (12, 3), (20, 3), (30, 12)])
def test_short_series_are_fitted_without_validation_before_they_are_refused(rows, horizon):
    y = months(rows)
    found = SktimeForecaster(SeasonalNaiveEstimator()).fit(y, fh=np.arange(1, horizon + 1))
    assert np.isfinite(found.predict()).all() and len(found.predict()) == horizon
    held = max(round(0.2 * rows), horizon)
    assert (found.predictor_.errors is None) == (rows - held < FEWEST + horizon)


def test_what_is_given_is_not_changed_for_a_short_series():
    values = months(30).to_numpy()[:, None]
    given = RidgeEstimator(lookback=20, period=2, penalty=1.0)
    assert _suited(given, values, 5, 0.2) == (given, 0.0)  # 24 training rows for windows of 25
    assert _suited(given, values, 4, 0.2) == (given, 0.2)
    with pytest.raises(ValueError, match=r"lookback must fit in the series.* 30 rows: got 31"):
        SktimeForecaster(RidgeEstimator(lookback=31, period=2, penalty=1.0)).fit(months(30), fh=1)


def test_bad_input_is_named():
    y = months()
    with pytest.raises(ValueError, match=r"horizon must reach the last step of fh, 12: got 6"):
        SktimeForecaster(RIDGE, horizon=6).fit(y, fh=AHEAD)
    odd = pd.Series(y.to_numpy()[:4], [0, 1, 3, 4])
    with pytest.raises(ValueError, match=r"y must leave no step of its index out: got 3 after 1, at row 2"):
        SktimeForecaster(NAIVE).fit(odd, fh=1)
    with pytest.raises(ValueError, match=r"no step of its index out: got 1949-03 after 1949-01, at row 1"):
        SktimeForecaster(NAIVE).fit(y.iloc[::2], fh=1)


def test_sktime_is_imported_by_the_adapter_alone():
    source = """
        import sys, dsrecon, dsrecon.forecast
        assert "sktime" not in sys.modules
        sys.modules["sktime"] = None
        try:
            import dsrecon.forecast.adapter
        except ImportError as error:
            assert "pip install 'dsrecon[sktime]'" in str(error), error
        else:
            raise AssertionError("no ImportError")
    """
    subprocess.run([sys.executable, "-c", "if True:" + source], check=True)


QUICK = (
    "test_constructor",
    "test_clone",
    "test_set_params",
    "test_set_params_sklearn",
    "test_get_params",
    "test_valid_estimator_tags",
    "test_valid_estimator_class_tags",
    "test_fit_does_not_overwrite_hyper_params",
    "test_fit_idempotent",
    "test_persistence_via_pickle",
    "test_save_estimators_to_file",
    "test_raises_not_fitted_error",
    "test_predict_time_index_with_X",
    "test_update_tag",
    "test_pred_int_tag",
)


@pytest.mark.filterwarnings("ignore")  # of sktime, pandas and joblib, on the checks' own odd series
def test_quick_checks_of_sktime_pass():
    forecaster = SktimeForecaster(**SktimeForecaster.get_test_params()[2])
    found = check_estimator(forecaster, raise_exceptions=True, tests_to_run=list(QUICK), verbose=False)
    assert len(found) >= len(QUICK)


@pytest.fixture
def compiled_once(tmp_path):
    """What one check has compiled no other compiles again: of a network's minutes nearly all are compilation."""
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for settings in (wanted, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if settings is wanted:
            yield


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", range(len(SktimeForecaster.get_test_params())))
def test_all_checks_of_sktime_pass(settings):
    forecaster = SktimeForecaster(**SktimeForecaster.get_test_params()[settings])
    found = check_estimator(forecaster, raise_exceptions=True, verbose=False)
    assert len(found) > 300
