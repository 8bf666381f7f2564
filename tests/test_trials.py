"""Gaps, uneven samples, several trials and external inputs: what comes out is what went in, or a refusal by name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dsrecon.series import Clock, as_inputs, as_series, as_trials, filled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
DATES = pd.date_range("2024-02-01 06:00", periods=40, freq="90s")
NAN = np.nan


def gappy(values=X):
    out = values.copy()
    out[[3, 4, 17], [0, 1, 1]] = NAN
    return out


@pytest.mark.parametrize(
    "data",
    [
        gappy(),
        pd.DataFrame(gappy(), DATES, ["a", "b"]),
        xr.DataArray(gappy(), dims=("time", "variable")),
        xr.Dataset({"a": ("time", gappy()[:, 0]), "b": ("time", gappy()[:, 1])}),
    ],
)
def test_a_missing_value_stays_missing(data):
    series = as_series(data)
    assert np.array_equal(series.values, gappy(), equal_nan=True)
    assert np.array_equal(as_series(series.to_xarray()).values, gappy(), equal_nan=True)


def test_missing_entries_of_nullable_columns_are_nan():
    found = as_series(pd.DataFrame({"a": pd.array([1, 2, None, 4], "Int64"), "b": [1.0, 2, 3, 5]})).values[:, 0]
    assert np.array_equal(found, [1, 2, NAN, 4], equal_nan=True)


def test_filling_draws_lines_and_holds_the_ends():
    values = np.array([[NAN, 1], [2, NAN], [NAN, NAN], [NAN, 4], [8, NAN]])
    assert np.array_equal(filled(values), [[2, 1], [2, 2], [4, 3], [6, 4], [8, 4]])
    assert np.isnan(filled(np.full((3, 1), NAN))).all() and np.isnan(values[0, 0]), "the argument is not changed"


# --- resampling ------------------------------------------------------------------------------------------


def test_resampling_at_the_samples_changes_nothing():
    frame = pd.DataFrame(X, np.arange(40) * 0.1 + 3, ["a", "b"])
    series = as_series(frame, resample=0.1)
    assert np.allclose(series.values, X, rtol=0, atol=1e-12) and series.clock == as_series(frame).clock


def test_lost_rows_come_back_as_missing():
    kept = np.delete(np.arange(40), [5, 20, 21])
    series = as_series(pd.DataFrame(X, DATES).iloc[kept], resample=90.0)
    assert np.isnan(series.values[[5, 20, 21]]).all() and np.array_equal(series.values[kept], X[kept])
    assert series.clock == as_series(pd.DataFrame(X, DATES)).clock


def test_uneven_samples_of_a_line_lie_on_it():
    at = np.delete(np.arange(300) * 0.035 + RNG.uniform(0, 0.02, 300), np.r_[50:60, 200])
    series = as_series(pd.DataFrame({"a": 3 * at - 1}, at), resample=0.05)
    times = series.clock.times(len(series.values))
    known = np.isfinite(series.values[:, 0])
    assert known.mean() > 0.5 and np.allclose(series.values[known, 0], (3 * times - 1)[known], atol=1e-9)
    gap = np.diff(at)
    widest = int(np.argmax(gap))
    inside = (times > at[widest] + 1e-3) & (times < at[widest + 1] - 1e-3)
    assert not known[inside].any(), "nothing is put into a wide gap"


def test_a_coarser_step_averages():
    series = as_series(pd.DataFrame({"a": X[:, 0]}, np.arange(40.0)), resample=4.0)
    assert len(series.values) == 10 and series.clock.time_step == 4
    assert series.values[3, 0] == pytest.approx(X[10:14, 0].mean())  # within half a step of 12: [10, 14)
    assert series.values[0, 0] == pytest.approx(X[:2, 0].mean())


@pytest.mark.parametrize(
    "step, message",
    [
        (0.0, "resample must be positive and finite: got 0.0"),
        (np.inf, "positive and finite"),
        (-1.0, "got -1.0"),
        (100.0, r"at most the time that the series covers, 39: got 100"),
    ],
)
def test_bad_steps_are_refused(step, message):
    with pytest.raises(ValueError, match=message):
        as_series(pd.DataFrame(X, np.arange(40.0)), resample=step)


def test_uneven_times_are_refused_with_the_way_out():
    at = np.delete(np.arange(40.0), 7)
    with pytest.raises(
        ValueError, match=r"equidistant: the step before row 7 is 2 where the usual one is 1.*resample=1"
    ):
        as_series(pd.DataFrame(X[:39], at))


# --- trials ----------------------------------------------------------------------------------------------


def test_a_list_is_several_trials():
    trials = as_trials([X, X[:7], pd.DataFrame(X[:9], columns=["x0", "x1"])], time_step=0.5)
    assert [len(t.values) for t in trials] == [40, 7, 9] and {t.clock.time_step for t in trials} == {0.5}
    assert [len(t.values) for t in as_trials(X)] == [40]
    assert len(as_trials([[1.0, 2.0], [3.0, 4.0]])) == 1, "rows of numbers are one table"
    assert len(as_trials(as_series(X))) == 1


def named(*names, rows=10, step=1.0):
    return pd.DataFrame(X[:rows], np.arange(rows) * step + step, list(names))


@pytest.mark.parametrize(
    "trials, message",
    [
        ([named("a", "b"), named("a", "c")], r"same variables: trial 1 has \('a', 'c'\), trial 0 has \('a', 'b'\)"),
        ([X, X[:, :1]], r"same variables: trial 1 has \('x0',\)"),
        ([named("a", "b"), named("a", "b", step=0.5)], r"same time step: trial 1 has 0\.5, trial 0 has 1\. Resample"),
        ([X, X * np.inf], r"trial 1: data must not hold infinity: 'x0' is"),
        ([X, X * NAN], r"trial 1: data must hold observations: all 80 values are NaN"),
        ([X * [1, NAN], X * [1, NAN]], r"'x1' is never observed: all of its 80 values are NaN. Leave it out"),
        (X * [1, NAN], r"'x1' is never observed: all of its 40 values"),
    ],
)
def test_trials_that_do_not_go_together_are_refused(trials, message):
    with pytest.raises(ValueError, match=message):
        as_trials(trials)


def test_a_channel_may_be_missing_from_one_trial():
    trials = as_trials([X * [1, NAN], X])
    assert np.isnan(trials[0].values[:, 1]).all()


# --- inputs ----------------------------------------------------------------------------------------------


def test_inputs_lie_row_beside_row_where_no_times_are_known():
    drive = RNG.normal(size=(50, 3))
    (found,) = as_inputs(drive, as_trials(X))
    assert np.array_equal(found.values, drive[:40])


def test_inputs_are_laid_beside_the_observations_by_time():
    series = as_trials(pd.DataFrame(X, DATES))
    early = pd.date_range("2024-02-01 05:30", periods=100, freq="90s")  # 20 rows before
    drive = pd.DataFrame({"u": np.arange(100.0)}, early)
    (found,) = as_inputs(drive, series)
    assert np.array_equal(found.values[:, 0], np.arange(20.0, 60.0)) and found.clock == series[0].clock
    with pytest.raises(ValueError, match="shorter than the observations: trial 0 has 40 rows, its inputs cover 35"):
        as_inputs(drive.iloc[:55], series)
    with pytest.raises(ValueError, match="shorter than the observations: trial 0 has 40 rows, its inputs cover 37"):
        as_inputs(drive.iloc[23:], series)
    with pytest.raises(ValueError, match=r"sampled at the times of the series: the series begins between two of them"):
        as_inputs(drive.set_index(early + pd.Timedelta("30s")), series)


@pytest.mark.parametrize(
    "inputs, message",
    [
        (X[:39], r"shorter than the observations: trial 0 has 40 rows, its inputs cover 39"),
        ([X, X], r"inputs must be as many as the trials: got 2 for 1"),
        (gappy(), r"inputs must be complete: 'x0' is NaN at row 3 of trial 0"),
    ],
)
def test_bad_inputs_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        as_inputs(inputs, as_trials(X))


def test_longer_inputs_beside_times_on_one_side_only_are_refused():
    with pytest.raises(ValueError, match="inputs must have times, or as many rows .* got 50 for 40"):
        as_inputs(np.ones((50, 1)), as_trials(pd.DataFrame(X, DATES)))
    (found,) = as_inputs(np.ones((40, 1)), as_trials(pd.DataFrame(X, DATES)))
    assert len(found.values) == 40


def test_inputs_on_another_step_are_refused():
    with pytest.raises(ValueError, match="the time step of the series, 1: got 0.5"):
        as_inputs(named("u", "v", step=0.5, rows=40), as_trials(named("a", "b", rows=20)))
    dated = as_trials(pd.DataFrame(X, pd.date_range("2024-01-01", periods=40, freq="1s")))
    with pytest.raises(ValueError, match="both have dates, or both numbers"):
        as_inputs(pd.DataFrame(X, np.arange(40.0) + 5), dated)


def test_one_second_clocks_without_origin_are_plain_rows():
    assert as_series(X).clock == Clock()
