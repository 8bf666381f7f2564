"""`dsrecon forecast`: what it writes, what the forecast follows from, and how it fails."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from dsrecon import cli, read_series
from dsrecon.cli import ahead
from dsrecon.forecast import RidgeEstimator, SeasonalNaiveEstimator, backtest, load_predictor

ROWS, HORIZON, TEST = 400, 14, 80
DAYS = pd.date_range("2023-01-01", periods=ROWS + HORIZON, freq="D", name="date")
FOLDER = {
    "forecaster.model",
    "forecast.csv",
    "forecast.nc",
    "forecast.png",
    "backtest.png",
    "scores.csv",
    "report.md",
}


def table():
    """A week, a trend and free days, whose effect nothing but the calendar tells; and what comes after."""
    rng = np.random.default_rng(0)
    t = np.arange(ROWS + HORIZON)
    free = (rng.random(len(t)) < 0.1).astype(float)
    sales = 20 + 0.01 * t + 2 * np.sin(2 * np.pi * t / 7) + 3 * free + 0.1 * rng.normal(size=len(t))
    return pd.DataFrame({"sales": sales, "free": free}, index=DAYS)


def command(*arguments, code=0):
    done = CliRunner().invoke(cli.app, ["forecast", *(str(a) for a in arguments)])
    assert done.exit_code == code, done.output
    if code:  # one line, no traceback
        assert isinstance(done.exception, SystemExit)
        assert done.stderr.startswith("dsrecon: ") and done.stderr.count("\n") == 1
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of the real command, and what it printed: two networks, with free days known ahead."""
    path = tmp_path_factory.mktemp("forecast")
    frame = table()
    frame.loc[DAYS[ROWS:], "sales"] = np.nan
    frame.to_csv(path / "sales.csv")
    options = ["--known", "free", "--members", 2, "--lookback", 14, "--levels", ".1,.5,.9", "--seed", 3]
    return path / "out", command(path / "sales.csv", "--horizon", HORIZON, *options, "--out", path / "out").stdout


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The command with ridge regression in the place of the network, and a file of one variable."""
    monkeypatch.setattr(ahead, "TPGNEstimator", lambda lookback, period, members: RidgeEstimator(lookback, period))
    path = tmp_path / "sales.csv"
    table()[["sales"]][:ROWS].to_csv(path)
    return path


def test_the_forecast_follows_the_last_observation_and_is_the_models(run):
    out, printed = run
    assert {p.name for p in out.iterdir()} == FOLDER
    frame = pd.read_csv(out / "forecast.csv", index_col="time", parse_dates=True)
    assert list(frame.columns) == ["sales", "sales_q0.1", "sales_q0.5", "sales_q0.9"]
    np.testing.assert_array_equal(frame.index, DAYS[ROWS:])
    model, data = load_predictor(out / "forecaster.model"), table()
    again = model.predict(data[["sales"]][:ROWS], known=data[["free"]], levels=(0.1, 0.5, 0.9))
    np.testing.assert_allclose(frame["sales"], again["forecast"].values[:, 0], rtol=1e-9)
    np.testing.assert_allclose(frame["sales_q0.9"], again["quantiles"].values[2, :, 0], rtol=1e-9)
    kept = xr.load_dataset(out / "forecast.nc", engine="h5netcdf")
    np.testing.assert_allclose(kept["forecast"], again["forecast"], rtol=1e-9)  # text rounds what the command read
    assert kept["issue_time"].values == DAYS[ROWS - 1].to_datetime64() and kept.attrs["time_unit"] == "datetime"
    other = model.predict(data[["sales"]][:ROWS], known=1 - data[["free"]])
    assert not np.allclose(other["forecast"], again["forecast"], atol=0.1), "it looks at what is known ahead"
    assert f"Wrote {out}" in printed
    for name in ("forecast.png", "backtest.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_scores_are_those_of_the_end_by_the_model_of_the_part_before(run):
    out, printed = run
    scores = pd.read_csv(out / "scores.csv", index_col=0)
    data = table()[:ROWS]
    model, first = load_predictor(out / "forecaster.model"), ROWS - TEST
    again = backtest(model, data[["sales"]], start=first, known=data[["free"]], levels=(0.1, 0.5, 0.9)).table()
    np.testing.assert_allclose(scores.loc["TPGN", again.index], again, rtol=1e-9)
    assert list(scores.index) == ["TPGN", "seasonal naive", "ridge"] and np.isfinite(scores.to_numpy()).all()
    last = SeasonalNaiveEstimator(model.lookback, 7).fit(data["sales"][:first], HORIZON)
    naive = backtest(last, data["sales"], start=first, levels=(0.1, 0.9)).table()
    np.testing.assert_allclose(scores.loc["seasonal naive", "mae"], naive["mae"], rtol=1e-9)
    text = (out / "report.md").read_text()
    for said in (
        "# A forecast of sales, 14 rows ahead",
        "400 rows, 2023-01-01 to 2024-02-04",
        "fitted to the first 320 rows",
        "tested on the other 80",
        "Known ahead, and given to TPGN alone: free",
        "| period | 7 | period 7: the autocorrelation has its highest peak there",
        "| lookback | 14 | given |",
        "| members | 2 | given |",
        "| forecaster | mse | mae | mase | smape | crps | coverage 0.8 |",
        "67 windows",
    ):
        assert said in text, said
    assert f"{scores.loc['TPGN', 'mse']:.4g}" in text and f"{scores.loc['ridge', 'mae']:.4g}" in printed


def test_what_is_in_the_test_part_does_not_reach_the_model(quick, tmp_path):
    other = table()[["sales"]][:ROWS]
    other.iloc[-TEST:] *= 2
    other.to_csv(tmp_path / "other.csv")
    for name in ("sales", "other"):
        command(tmp_path / f"{name}.csv", "--horizon", HORIZON, "--out", tmp_path / name)
    one, two = (load_predictor(tmp_path / name / "forecaster.model") for name in ("sales", "other"))
    np.testing.assert_array_equal(one.members.model.W, two.members.model.W)
    np.testing.assert_array_equal(one.errors.values, two.errors.values)  # nor the validation
    assert one.settings["validation"]["value"] == 64
    one, two = (pd.read_csv(tmp_path / name / "forecast.csv")["sales"] for name in ("sales", "other"))
    assert (two > 1.5 * one).all(), "but the forecast goes on from its end"


def test_what_does_better_than_the_network_is_said(quick, tmp_path, monkeypatch):
    naive = SeasonalNaiveEstimator
    monkeypatch.setattr(ahead, "TPGNEstimator", lambda lookback, period, members: naive(lookback, period))
    done = command(quick, "--horizon", HORIZON, "--out", tmp_path / "out")
    scores = pd.read_csv(tmp_path / "out" / "scores.csv", index_col=0)["mse"]
    said = f"On the test part ridge had the smaller squared error, {scores['ridge'] / scores['TPGN']:.2f} times"
    assert said in done.stdout and said in (tmp_path / "out" / "report.md").read_text()


def test_without_a_test_part_all_rows_are_fitted(quick, tmp_path):
    command(quick, "--horizon", HORIZON, "--test", 0, "--levels", "", "--lookback", 21, "--out", tmp_path / "out")
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == FOLDER - {"backtest.png", "scores.csv"}
    text = (out / "report.md").read_text()
    assert "fitted to all 400 rows" in text and "no quantiles" in text and "## Test" not in text
    ridge = RidgeEstimator(lookback=21).fit(read_series(quick), HORIZON)
    frame = pd.read_csv(out / "forecast.csv")
    assert list(frame.columns) == ["time", "sales"]
    np.testing.assert_allclose(frame["sales"], ridge.predict()["forecast"].values[:, 0], rtol=1e-9)


def test_too_few_validation_windows_give_no_quantiles_unless_they_were_asked_for(quick, tmp_path):
    options = [quick, "--horizon", HORIZON, "--validation", 0.05, "--out", tmp_path / "out"]
    done = command(*options)
    assert "No quantiles" in done.stdout and "coverage" not in done.stdout
    assert list(pd.read_csv(tmp_path / "out" / "forecast.csv").columns) == ["time", "sales"]
    done = command(*options, "--levels", ".05,.95", code=1)
    assert "--levels 0.05 needs 19 validation windows: there are 3" in done.stderr


def test_months_missing_values_and_empty_rows_at_the_end(quick, tmp_path):
    months = pd.date_range("2001-01-01", periods=160, freq="MS", name="date")
    t = np.arange(160.0)
    frame = pd.DataFrame({"u": 50 + 10 * np.sin(2 * np.pi * t / 12), "v": np.cos(2 * np.pi * t / 12)}, index=months)
    frame.loc[months[[5, 70]], "u"] = np.nan
    frame.iloc[150:] = np.nan
    frame.to_csv(tmp_path / "m.csv")
    out = tmp_path / "out"
    error = command(tmp_path / "m.csv", "--horizon", 6, "--out", tmp_path / "none", code=1).stderr
    assert "the series must be complete: 2 of" in error and "Fill them in with --impute last" in error
    assert not (tmp_path / "none").exists()
    command(tmp_path / "m.csv", "--horizon", 6, "--impute", "seasonal", "--period", 12, "--out", out)
    found = pd.read_csv(out / "forecast.csv", index_col="time", parse_dates=True)
    np.testing.assert_array_equal(found.index, months[150:156])
    np.testing.assert_allclose(found["u"], 50 + 10 * np.sin(2 * np.pi * t[150:156] / 12), atol=0.05)  # the ridge's bias
    text = (out / "report.md").read_text()
    assert "150 rows, 2001-01-01 to 2013-06-01" in text and "0.7% of the observations are missing" in text


def test_a_file_without_times_and_one_that_is_resampled(quick, tmp_path):
    np.save(tmp_path / "a.npy", np.sin(2 * np.pi * np.arange(200) / 10))
    command(tmp_path / "a.npy", "--horizon", 5, "--time-step", 0.5, "--out", tmp_path / "a")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a" / "forecast.csv")["time"], 0.5 * np.arange(200, 205))
    lost = pd.read_csv(quick).drop(index=30)
    lost.to_csv(tmp_path / "lost.csv", index=False)
    options = [tmp_path / "lost.csv", "--horizon", 5, "--out", tmp_path / "b"]
    assert "--resample" in command(*options, code=1).stderr
    command(*options, "--resample", 86400, "--impute", "last")
    assert pd.read_csv(tmp_path / "b" / "forecast.csv")["time"][0] == "2024-02-05"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--horizon", "0"], "--horizon must be at least 1: got 0"),
        (["--horizon", "14", "--columns", "sale"], "has no column 'sale': it has 'sales', 'free'"),
        (["--horizon", "14", "--known", "fre"], "has no column 'fre': it has 'sales', 'free'"),
        (["--horizon", "14", "--known", "sales,free"], "must leave a column to forecast"),
        (["--horizon", "14", "--columns", "sales", "--known", "sales"], "got 'sales' in --columns too"),
        (
            ["--horizon", "20", "--known", "free"],
            "must go on for 20 rows, the horizon, after the last observation (row 399)",
        ),
        (
            ["--horizon", "200", "--columns", "sales"],
            "the series is too short: of 400 rows 200 are the test part and 200 the",
        ),
        (["--horizon", "14", "--columns", "sales", "--test", "1"], "--test must be a share from 0 to below 1: got 1"),
        (
            ["--horizon", "14", "--columns", "sales", "--validation", "2"],
            "validation must be a share from 0 to below 1",
        ),
        (["--horizon", "14", "--columns", "sales", "--lookback", "300"], "lookback must fit in the series"),
        (["--horizon", "14", "--levels", "half"], "--levels must be numbers separated by commas: got 'half'"),
        (["--horizon", "14", "--levels", "2"], "levels must be different numbers in (0, 1)"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_and_leaves_nothing(options, message, quick, tmp_path):
    frame = table()
    frame.loc[DAYS[ROWS:], "sales"] = np.nan
    frame.to_csv(tmp_path / "both.csv")
    assert message in command(tmp_path / "both.csv", *options, "--out", tmp_path / "out", code=1).stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_wrong_is_told_in_a_line(quick, tmp_path):
    frame = pd.read_csv(quick)
    pd.concat([frame[:50], frame[49:]]).to_csv(tmp_path / "twice.csv", index=False)
    frame.assign(shop="north").to_csv(tmp_path / "text.csv", index=False)
    frame.assign(sales=np.nan).to_csv(tmp_path / "empty.csv", index=False)
    for file, message in (
        ("none.csv", "no file"),
        ("twice.csv", "times must increase: they repeat at line 52"),
        ("text.csv", "column 'shop' must hold numbers: got str ('north' at line 2)"),
        ("empty.csv", "all 400 values are NaN"),
    ):
        assert message in command(tmp_path / file, "--horizon", 5, "--out", tmp_path / "out", code=1).stderr
    (tmp_path / "in the way").write_text("")
    assert "cannot write" in command(quick, "--horizon", 5, "--out", tmp_path / "in the way", code=1).stderr
