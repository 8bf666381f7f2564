"""The data door: every form that a series comes in, clocks, labels, and what is refused with which words."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dsrecon.series import Clock, Series, as_series, labelled

X = np.random.default_rng(0).normal(size=(6, 2))
DATES = pd.date_range("2021-03-04T05:06:07", periods=6, freq="6h")


def frame(index=None, columns=("a", "b")):
    return pd.DataFrame(X, index=index, columns=list(columns))


def test_numpy_in():
    series = as_series(X)
    assert np.array_equal(series.values, X) and series.values.dtype == np.float64
    assert series.names == ("x0", "x1") and series.units == ("", "") and series.clock == Clock()
    one = as_series(X[:, 0], time_step=0.5, names=["v"])
    assert one.values.shape == (6, 1) and one.names == ("v",) and one.clock == Clock(0.5)
    assert as_series([1, 2, 3]).values.tolist() == [[1.0], [2.0], [3.0]]
    assert as_series(X.astype(np.float32)).values.dtype == np.float64


def test_a_series_goes_through_unchanged():
    series = as_series(X)
    assert as_series(series) is series


def test_pandas_in():
    series = as_series(frame())
    assert np.array_equal(series.values, X) and series.names == ("a", "b") and series.clock == Clock()
    assert as_series(frame(), time_step=0.1).clock == Clock(0.1)
    timed = as_series(frame(0.5 + 0.25 * np.arange(6)))
    assert timed.clock == Clock(0.25, 0.5)
    one = as_series(frame()["b"])
    assert one.names == ("b",) and np.array_equal(one.values[:, 0], X[:, 1])
    mixed = as_series(pd.DataFrame({"i": pd.array([1, 2, 3], "Int64"), "f": [0.5, 1.5, 2.5]}))
    assert mixed.values.tolist() == [[1, 0.5], [2, 1.5], [3, 2.5]]


@pytest.mark.parametrize("start, step", [(0, 2), (5, 1)])
def test_a_range_that_says_something_is_a_clock(start, step):
    index = pd.RangeIndex(start, start + 6 * step, step)
    assert as_series(frame(index)).clock == Clock(float(step), float(start))


def test_dates_in():
    clock = as_series(frame(DATES)).clock
    assert clock.time_step == 6 * 3600 and clock.unit == "datetime"
    assert np.array_equal(clock.times(6), DATES.to_numpy().astype("datetime64[ns]"))
    periods = as_series(frame(pd.period_range("2021-01-01", periods=6, freq="D"))).clock
    assert periods.time_step == 86400 and periods.origin.startswith("2021-01-01")
    spans = as_series(frame(pd.to_timedelta(np.arange(6) * 2.5, unit="s"))).clock
    assert spans == Clock(2.5, 0.0, "s")


def test_xarray_in():
    data = xr.DataArray(
        X.T,
        dims=("variable", "time"),
        coords={"time": 1 + 0.1 * np.arange(6), "variable": ["u", "v"], "unit": ("variable", ["m", "K"])},
        attrs={"time_unit": "s"},
    )
    series = as_series(data)
    assert np.array_equal(series.values, X) and series.names == ("u", "v") and series.units == ("m", "K")
    assert series.clock == Clock(0.1, 1.0, "s")
    assert as_series(xr.DataArray(X)).names == ("x0", "x1")
    one = as_series(xr.DataArray(X[:, 0], dims="time", name="volt"))
    assert one.names == ("volt",) and one.clock == Clock()


def test_a_dataset_in():
    data = xr.Dataset({"u": ("time", X[:, 0]), "v": ("time", X[:, 1])}, {"time": DATES})
    series = as_series(data)
    assert np.array_equal(series.values, X) and series.names == ("u", "v")
    assert series.clock.unit == "datetime"


@pytest.mark.parametrize("clock", [Clock(0.1, 3.0, "ms"), as_series(frame(DATES)).clock, Clock()])
def test_out_and_in_again(clock):
    series = Series(X, ("a", "b"), clock, ("m", ""))
    out = series.to_xarray()
    assert out.dims == ("time", "variable") and out.attrs["time_step"] == clock.time_step
    again = as_series(out)
    assert np.array_equal(again.values, X)
    assert (again.names, again.units) == (series.names, series.units)
    assert np.array_equal(again.clock.times(6), clock.times(6))
    assert again.clock.time_step == clock.time_step
    assert as_series(xr.DataArray.from_dict(out.to_dict())).clock == again.clock


def test_labels():
    out = labelled(X, ("a", "b"), Clock(0.5, 10.0, "s"), first=4, units=("V", ""), attrs={"note": "n"})
    assert out.time.values.tolist() == [12.0, 12.5, 13.0, 13.5, 14.0, 14.5]
    assert out.sel(variable="b").unit == "" and out.unit.values.tolist() == ["V", ""]
    assert out.attrs == {"time_step": 0.5, "time_unit": "s", "note": "n"}
    assert out.time.attrs == {"units_of_time": "s"}
    assert "unit" not in labelled(X, ("a", "b"), Clock(), units=("", "")).coords


def test_clock_arithmetic():
    clock = Clock(0.25, 1.0, "s")
    assert clock.times(3, 2).tolist() == [1.5, 1.75, 2.0]
    dates = Clock(60.0, "2020-01-01T00:00:00", "datetime")
    assert dates.times(2, 3).astype(str).tolist() == [
        "2020-01-01T00:03:00.000000000",
        "2020-01-01T00:04:00.000000000",
    ]
    # no drift over a long record of a step that is no binary number
    assert Clock(0.01).times(1, 10_000_000)[0] == 1e5
    third = Clock(1 / 3, "2020-01-01", "datetime").times(1, 3 * 10**6)[0]
    assert third == np.datetime64("2020-01-01", "ns") + np.timedelta64(10**6, "s")


@pytest.mark.parametrize("times", [0.01 * np.arange(6), 1e6 + 0.01 * np.arange(6)])
def test_rounded_times_are_equidistant(times):
    for dtype in (np.float64, np.float32):
        if dtype == np.float32 and times[0] > 0:
            continue  # a hundredth is lost beside a million in single precision
        clock = as_series(frame(times.astype(dtype))).clock
        assert clock.time_step == pytest.approx(0.01, rel=1e-6)
    assert as_series(frame(times)).clock.time_step == pytest.approx(0.01, rel=1e-8)


def spoiled(value, row=3, column=1):
    values = X.copy()
    values[row, column] = value
    return values


def dataset(**columns):
    return pd.DataFrame({"a": X[:, 0], **columns})


@pytest.mark.parametrize(
    "data, message",
    [
        (spoiled(np.inf), r"data must not hold infinity: 'x1' is inf at row 3\. A value that was not observed is NaN"),
        (spoiled(-np.inf, 0, 0), r"'x0' is -inf at row 0"),
        (X * np.nan, r"data must hold observations: all 12 values are NaN"),
        (
            dataset(b=list("pqrstu")),
            r"column 'b' must hold numbers: got .*'p' at row 0.*choose the columns",
        ),
        (dataset(b=["1.0"] * 6), r"column 'b' must hold numbers"),
        (dataset(b=DATES), r"column 'b' must hold numbers: got datetime64"),
        (np.array([["1", "a"], ["2", "b"]]), r"column 'x1' must hold numbers: got <U1 \(first value .*'a'"),
        (np.array([["1", "2"], ["2", "3"]]), r"data must hold real numbers: got dtype <U1"),
        (np.array([[1.0, None], [2.0, {}]], object), r"column 'x1' must hold numbers: got object"),
        (X[:1], r"at least 2 samples: got 1"),
        (X[:0], r"must not be empty: got shape \(0, 2\)"),
        (np.zeros((5, 0)), r"must not be empty: got shape \(5, 0\)"),
        (pd.DataFrame(), r"must not be empty"),
        (np.zeros((2, 3, 4)), r"shape \[time\] or \[time, variable\]: got shape \(2, 3, 4\)"),
        (np.float64(3.0), r"shape \[time\] or \[time, variable\]: got shape \(\)"),
        ([X, X], r"data must be one series here: got a list of 2 trials"),
        (
            frame([0, 1, 1, 2, 3, 4]),
            r"times must increase: they repeat at row 2 \(1 then 1\).*drop duplicates",
        ),
        (frame([0, 1, 3, 2, 4, 5]), r"times must increase: they go back at row 3 \(3 then 2\)\. Sort"),
        (frame(DATES[[0, 1, 1, 2, 3, 4]]), r"they repeat at row 2 \(2021-03-04T11:06:07.* then 2021"),
        (frame(DATES[::-1]), r"they go back at row 1"),
        (
            frame([0.0, 1, 2, 3.5, 4, 5]),
            r"equidistant: the step before row 3 is 1\.5 where the usual one is 1\. Res",
        ),
        (frame(DATES[[0, 1, 2, 3, 5, 5]][:5].append(DATES[5:] + DATES.freq)), r"must be equidistant"),
        (frame(pd.date_range("2020-01-31", periods=6, freq="ME")), r"must be equidistant"),
        (frame([0.0, 1, np.nan, 3, 4, 5]), r"times must be finite: got nan"),
        (frame([0.0, 1, 2, 3, 4, np.inf]), r"times must be finite: got inf"),
        (frame(list("abcdef")), r"times must be numbers or dates: got object \(first 'a'\)"),
        (frame(DATES.tz_localize("Europe/Berlin")), r"must not carry a time zone \(got Europe/Berlin\)"),
        (frame(columns=("a", "a")), r"names must differ: got \('a', 'a'\)"),
    ],
)
def test_bad_series_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        as_series(data)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"names": ["a"]}, r"names must name the 2 columns of data: got 1, \('a',\)"),
        ({"names": ["a", "a"]}, r"names must differ"),
        ({"time_step": 0.0}, r"time_step must be positive and finite: got 0\.0"),
        ({"time_step": -1.0}, r"time_step must be positive and finite: got -1\.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_series(X, **arguments)


def test_a_time_step_that_contradicts_the_times_is_refused():
    with pytest.raises(ValueError, match=r"time_step=0\.1 contradicts the times of data, 0\.25 apart"):
        as_series(frame(0.25 * np.arange(6)), time_step=0.1)
    assert as_series(frame(0.25 * np.arange(6)), time_step=0.25).clock.time_step == 0.25


def test_a_short_time_step_is_checked_like_a_long_one():
    with pytest.raises(ValueError, match="contradicts the times"):
        as_series(frame(1e-9 * np.arange(6)), time_step=5e-9)


@pytest.mark.parametrize("step", [np.nan, np.inf])
def test_a_time_step_that_is_no_number_is_refused(step):
    with pytest.raises(ValueError, match="time_step must be positive"):
        as_series(X, time_step=step)


def test_a_missing_date_is_refused():
    index = pd.DatetimeIndex([*DATES[:2], pd.NaT, *DATES[3:]])
    with pytest.raises(ValueError, match="times must be finite"):
        as_series(frame(index))


@pytest.mark.parametrize("make", [np.asarray, pd.DataFrame, xr.DataArray])
def test_complex_numbers_are_refused(make):
    with pytest.raises(ValueError, match=r"must hold .*numbers"):
        as_series(make(X + 1j))


def test_a_single_number_in_xarray_is_refused():
    with pytest.raises(ValueError, match=r"shape \[time\] or \[time, variable\]: got shape \(\)"):
        as_series(xr.DataArray(3.0))


def test_a_plain_frame_is_as_anonymous_as_its_array():
    assert as_series(pd.DataFrame(X)).names == as_series(X).names
    assert as_series(pd.Series(X[:, 0])).names == as_series(X[:, 0]).names


def test_the_callers_data_are_left_alone():
    data = frame(DATES)
    before = data.copy()
    as_series(data)
    pd.testing.assert_frame_equal(data, before)


def test_a_column_that_looks_like_time_is_not_taken_for_a_variable():
    frame = pd.DataFrame({"time": np.arange(5.0), "u": np.arange(5.0) ** 2})
    with pytest.raises(ValueError, match=r"column 'time' looks like the time.*set_index\('time'\)"):
        as_series(frame)
    assert as_series(frame.set_index("time")).names == ("u",)


def test_the_culprits_are_named_and_not_their_neighbours():
    frame = pd.DataFrame({"u": ["1.5", "2.5", "n/a?", "3.5"]})
    with pytest.raises(ValueError, match=r"'n/a\?' at row 2"):
        as_series(frame)
    times = np.delete(0.1 * np.arange(30), slice(12, 15))
    with pytest.raises(ValueError, match=r"before row 12 is 0\.4 where the usual one is 0\.1"):
        as_series(pd.DataFrame({"u": times}, index=times))


def test_a_shifted_clock_shows_later_times():
    for clock in (Clock(0.5, 3.0, "s"), Clock(90.0, "2024-02-01T06:00", "datetime")):
        assert np.array_equal(clock.shifted(4).times(3), clock.times(3, 4))
        assert clock.shifted(0) == clock


@pytest.mark.parametrize("frequency", ["MS", "ME", "QS", "B", "YS", "W"])
def test_a_calendar_has_steps_of_its_own(frequency):
    index = pd.date_range("2019-11-05", periods=30, freq=frequency)
    values = pd.Series(np.arange(30.0), index, name="x")
    series = as_series(values, calendar=True)
    clock = series.clock
    assert (clock.times(30) == index.to_numpy()).all()
    assert (clock.times(3, 29) == pd.date_range(index[29], periods=3, freq=frequency).to_numpy()).all()
    later = clock.shifted(4)
    assert (later.times(26) == index[4:].to_numpy()).all() and (later.times(1, -2) == index[2:3].to_numpy()).all()
    assert clock.row(str(index[7])) == 7 and later.row(str(index[1])) == -3
    if clock.frequency:
        assert np.isnan(clock.row(str(index[7] + pd.Timedelta("1h"))))
        with pytest.raises(ValueError, match="times must be equidistant"):
            as_series(values)
    assert as_series(series.to_xarray(), calendar=True).clock == clock


def test_a_calendar_with_a_hole_is_refused():
    index = pd.date_range("2020-01-01", periods=20, freq="MS").delete(7)
    with pytest.raises(ValueError, match="times must be equidistant: the step before row"):
        as_series(pd.Series(np.arange(19.0), index, name="x"), calendar=True)
