"""Figures of forecasts: what is drawn where, in which units, and what is said of it."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from matplotlib.text import Text

from dsrecon import plot
from dsrecon.series import Clock, Series

HOURS = pd.date_range("2024-05-01", periods=110, freq="h")


class Result(NamedTuple):
    """As a backtest gives it."""

    scores: xr.Dataset


def predicted(variables=2, horizon=10, levels=(0.05, 0.5, 0.95), dates=True):
    """A forecast issued at row 99: variable `i` is `100 i + lead`, its quantiles a level's tenfold off."""
    lead = np.arange(1, horizon + 1)
    point = lead[:, None] + 100.0 * np.arange(variables)
    times = HOURS[100 : 100 + horizon].to_numpy() if dates else 0.5 * (99 + lead)
    data = {"forecast": (("time", "variable"), point)}
    coords = {"time": times, "variable": [f"u{i}" for i in range(variables)], "lead": ("time", lead)}
    if levels:
        off = 10 * (np.array(levels) - 0.5)
        data["quantiles"] = (("quantile", "time", "variable"), point + off[:, None, None])
        coords["quantile"] = list(levels)
    coords["unit"] = ("variable", ["mV"] + [""] * (variables - 1))
    coords["issue_time"] = HOURS[99].to_datetime64() if dates else 49.5
    unit = {"time_step": 3600.0, "time_unit": "datetime"} if dates else {"time_step": 0.5, "time_unit": "s"}
    return xr.Dataset(data, coords, unit)


def result(variables=2, horizon=10, covered=True, names=None):
    rise = np.arange(1.0, horizon + 1)[:, None] * np.arange(1, variables + 1)
    data = {
        name: (("lead", "variable"), k * rise) for k, name in enumerate(("mse", "mae", "mse_scaled", "mae_scaled"), 1)
    }
    coords = {"lead": np.arange(1, horizon + 1), "variable": names or [f"u{i}" for i in range(variables)]}
    if covered:
        data["coverage"] = (("interval", "lead", "variable"), np.stack([0 * rise + 0.97, 0 * rise + 0.6]))
        coords["interval"] = [0.9, 0.5]
    return Result(xr.Dataset(data, coords))


def texts(figure):
    figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def line(panel, name):
    (found,) = [one for one in panel.lines if one.get_label() == name]
    return found.get_xdata(), found.get_ydata()


def test_a_forecast_is_drawn_at_its_times_with_its_units_and_its_interval(tmp_path):
    prediction = predicted()
    context = pd.DataFrame({"u0": np.arange(100.0), "other": 0.0, "u1": -np.arange(100.0)}, index=HOURS[:100])
    figure = plot.forecast(prediction, context, rows=24)
    assert plot.save(figure, tmp_path / "a.png", dpi=40).read_bytes().startswith(b"\x89PNG")
    upper, lower = figure.axes
    for i, panel in enumerate((upper, lower)):
        x, y = line(panel, "forecast")
        np.testing.assert_array_equal(x, HOURS[100:].to_numpy())
        np.testing.assert_array_equal(y, prediction["forecast"].values[:, i])
        x, y = line(panel, "observed")
        np.testing.assert_array_equal(x, HOURS[76:100].to_numpy())
        np.testing.assert_array_equal(y, context[f"u{i}"].to_numpy()[76:])
        (area,) = [one for one in panel.collections if isinstance(one, PolyCollection)]
        heights = area.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((1 + 100 * i - 4.5, 10 + 100 * i + 4.5))
    assert upper.get_ylabel() == "u0 (mV)" and lower.get_ylabel() == "u1" and lower.get_xlabel() == "time"
    said = texts(figure)
    assert "90 % interval" in said and "2024-May" in said
    dotted = [one for one in upper.lines if one.get_linestyle() == ":"]
    assert len(dotted) == 1 and num2date(upper.convert_xunits(dotted[0].get_xdata())[0]).hour == 3  # row 99


def test_what_came_after_the_issue_is_shown_to_the_end_of_the_forecast():
    long = xr.DataArray(
        np.arange(200.0)[:, None], dims=("time", "variable"), coords={"time": 0.5 * np.arange(200), "variable": ["u0"]}
    )
    x, _ = line(plot.forecast(predicted(1, dates=False), long).axes[0], "observed")
    np.testing.assert_allclose(x, 0.5 * np.arange(70, 110))  # three horizons before, one after


def test_a_context_without_times_ends_where_the_forecast_was_issued():
    figure = plot.forecast(predicted(dates=False), np.random.default_rng(0).normal(size=(40, 2)))
    x, _ = line(figure.axes[1], "observed")
    assert (x[0], x[-1], len(x)) == (49.5 - 14.5, 49.5, 30) and "time (s)" in texts(figure)


def test_months_are_drawn_as_they_are():
    months = pd.date_range("2020-01-01", periods=30, freq="MS")
    prediction = predicted(1, 6, levels=()).assign_coords(
        time=months[24:].to_numpy(), issue_time=months[23].to_datetime64()
    )
    figure = plot.forecast(prediction, pd.Series(np.arange(24.0), months[:24], name="u0"), rows=12)
    x, _ = line(figure.axes[0], "observed")
    np.testing.assert_array_equal(x, months[12:24].to_numpy())
    assert not [one for one in figure.axes[0].collections if isinstance(one, PolyCollection)]


def test_one_step_ahead_and_gaps_can_be_seen():
    values = np.arange(100.0)[:, None]
    values[97] = np.nan
    figure = plot.forecast(predicted(1, 1), Series(values, ("u0",), Clock(3600.0, "2024-05-01", "datetime"), ("",)))
    panel = figure.axes[0]
    assert line(panel, "forecast")[0].shape == (1,) and panel.collections, "a bar, where an area has no width"
    _, y = line(panel, "observed")
    assert np.isnan(y[-3]) and np.isfinite(y[-2:]).all()


def test_uneven_quantiles_are_called_by_their_levels_and_pairs_are_nested():
    said = texts(plot.forecast(predicted(1, levels=(0.1, 0.25, 0.75, 0.95))))
    assert "quantiles 0.1 to 0.95" in said and "50 % interval" in said


def test_six_variables_at_most_and_given_axes():
    assert len(plot.forecast(predicted(9)).axes) == 6
    figure = Figure()
    upper, lower = figure.subplots(2, 1)
    assert plot.forecast(predicted(), ax=[upper, lower]) is figure and lower.get_xlabel() == "time"
    assert plot.compared({"a": result()}, ax=upper) is figure
    assert plot.backtested(result(covered=False), ax=lower) is figure


def test_errors_are_drawn_against_the_lead_time():
    one = plot.backtested(result(1))
    left, right = one.axes
    assert left.get_ylabel() == "mean absolute error (u0)" and left.get_xlabel() == "lead time (steps)"
    x, y = line(left, "u0")
    np.testing.assert_array_equal(x, np.arange(1, 11))
    np.testing.assert_array_equal(y, 2 * np.arange(1.0, 11))
    assert right.get_ylabel() == "covered by the 90% interval"
    np.testing.assert_allclose(line(right, "u0")[1], 0.97)
    assert [d.get_ydata()[0] for d in right.lines if d.get_linestyle() == "--"] == [0.9]
    two = plot.backtested(result(2, covered=False))
    assert len(two.axes) == 1 and "standard deviations" in two.axes[0].get_ylabel()
    np.testing.assert_array_equal(line(two.axes[0], "u1")[1], 8 * np.arange(1.0, 11))
    many = plot.backtested(result(12)).axes[0]
    np.testing.assert_allclose(line(many, "their mean")[1], 4 * 6.5 * np.arange(1.0, 11))
    assert len(many.lines) == 13 and "12 variables" in texts(many.figure)


def test_forecasters_are_compared_by_their_mean_over_the_variables():
    figure = plot.compared({"TPGN": result(), "ridge": result()}, score="mae")
    np.testing.assert_array_equal(line(figure.axes[0], "ridge")[1], 2 * 1.5 * np.arange(1.0, 11))
    assert figure.axes[0].get_ylabel() == "mean absolute error" and "TPGN" in texts(figure)
    assert len(plot.compared({str(k): result() for k in range(10)}).axes[0].lines) == 10


def test_what_cannot_be_drawn_is_told():
    prediction = predicted()
    for arguments, message in (
        ({"context": np.zeros((5, 3)) + np.arange(3)}, r"must hold \['u0', 'u1'\].*got \['x0', 'x1', 'x2'\]"),
        ({"context": pd.DataFrame({"u0": np.arange(5.0)}, index=HOURS[:5])}, r"must hold .* got \['u0'\]"),
        ({"rows": 0}, "rows must be at least 1: got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.forecast(prediction, **arguments)
    numbered = pd.DataFrame({"u0": np.arange(5.0), "u1": 1.0}, index=np.arange(5.0) + 3)
    with pytest.raises(ValueError, match="must both have dates, or both numbers"):
        plot.forecast(prediction, numbered)
    with pytest.raises(ValueError, match="at least one backtest: got none"):
        plot.compared({})
    for score in ("mape", "coverage"):
        with pytest.raises(ValueError, match=rf"score must be one of mse, mae, .* those of a: got '{score}'"):
            plot.compared({"a": result()}, score=score)
    with pytest.raises(ValueError, match=r"same variables: got \['u0', 'u1'\] and \['v', 'w'\]"):
        plot.compared({"a": result(), "b": result(names=["v", "w"])})
