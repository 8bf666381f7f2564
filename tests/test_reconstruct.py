"""The whole way: series in, fitted system out, scored, written, read."""

import json
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import dsrecon
from dsrecon import ALRNN, ClippedShallowPLRNN, cli, encode, load, reconstruct, score, simulate
from dsrecon.measures import d_stsp
from dsrecon.measures.rank import floors, rank
from dsrecon.measures.score import failure, records
from dsrecon.symbolic import read_graphml, read_symbols
from dsrecon.systems import Henon, Lorenz63

pytestmark = pytest.mark.usefixtures("optimiser_promotion")


@pytest.fixture(scope="module")
def truth():
    return simulate(Lorenz63(), 6000, dt=0.02)


@pytest.fixture(scope="module")
def fitted(truth):
    with jax.numpy_dtype_promotion("standard"):
        return reconstruct(truth, runs=4, steps=2000, key=3)


def small(key):
    return ALRNN(4, 1, key=key)


def test_a_series_alone_is_enough_and_every_choice_has_a_reason(fitted):
    assert isinstance(fitted.cell, ClippedShallowPLRNN)
    wanted = {
        "cell",
        "state_size",
        "hidden_size",
        "alpha",
        "length",
        "batch",
        "steps",
        "noise",
        "learning_rate",
    }
    assert wanted <= set(fitted.settings)
    assert all(s["reason"] for s in fitted.settings.values())
    assert fitted.settings["steps"] == {"value": 2000, "reason": "given"}
    assert "validation decides" in fitted.settings["alpha"]["reason"]


def test_the_table_of_runs_holds_every_run_and_the_best_was_kept(fitted):
    runs = fitted.runs
    assert runs.sizes["run"] == 4
    assert {"score", "d_stsp", "d_h", "outside", "loss", "failure", "alpha", "best_at"} <= set(runs)
    assert int(np.argmin(runs["score"].values)) == runs.attrs["best"]
    assert fitted.settings["alpha"]["value"] == pytest.approx(float(runs["alpha"][runs.attrs["best"]]))


def test_a_short_fit_is_an_attractor_and_not_a_point(fitted, truth):
    table = score(fitted, truth, steps=3000)
    assert not table.attrs["failed"]
    assert "d_stsp: from 10,000 samples on at 3 variables" in table.attrs["unreadable"]
    run = fitted.simulate(3000, start=truth.values[0], discard=300).values
    # measured here: a fixed point 13.1, a cycle 12.7, uniform noise 11.9, the truth 1.7
    assert d_stsp(truth.values[:3000], run) < 11
    assert float(table.sel(measure="pe_1")["value"]) < 0.05


def test_score_is_one_table_with_floors_and_plain_records(fitted, truth):
    table = score(fitted, truth, steps=2000)
    assert table["value"].dims == ("measure",)
    named = [str(m) for m in table["measure"].values]
    for name in ("d_transition", "d_h", "outside", "pe_1", "pe_20", "vpt"):
        assert name in named
        assert np.isfinite(float(table.sel(measure=name)["floor"]))
    for record in records(table):
        assert set(record) == {"measure", "value", "floor", "ceiling", "error", "definition", "length"}
        json.dumps(record, allow_nan=False)


def test_a_perfect_model_scores_its_floor(truth):
    true = np.asarray(truth.values)
    held, rest = true[-2000:], true[:-2000]
    scale = floors(rest, held)
    assert rank(rest, held, scale)["score"] == pytest.approx(2.0)
    assert rank(rest, rest[:2000], scale)["score"] < 2.0


def test_a_run_half_outside_never_ranks_before_a_good_one(truth):
    true = np.asarray(truth.values)
    held, rest = true[-2000:], true[:-2000]
    scale = floors(rest, held)
    escaped = held.copy()
    escaped[1000:] += 1000.0
    noise = np.random.default_rng(0).uniform(rest.min(0), rest.max(0), held.shape)
    bad, poor = rank(rest, escaped, scale), rank(rest, noise, scale)
    assert bad["outside"] == pytest.approx(0.5, abs=0.01)
    assert bad["score"] > poor["score"] > rank(rest, held, scale)["score"]
    assert "outside the range" in failure(rest, escaped)
    held_nan = held.copy()
    held_nan[7] = np.nan
    assert rank(rest, held_nan, scale)["score"] == np.inf
    assert "not finite from step 7" in failure(rest, held_nan)


def test_names_times_and_units_come_out_as_they_went_in():
    orbit = simulate(Henon(), 1200)
    frame = pd.DataFrame(
        orbit.values, columns=["flow", "level"], index=pd.date_range("2021-03-01", periods=1200, freq="h")
    )
    model = reconstruct(frame, runs=1, steps=20, length=10, key=0)
    free = model.simulate(5, throw=False)
    assert list(free["variable"].values) == ["flow", "level"]
    assert free["time"].values[0] == np.datetime64("2021-03-01T01:00")
    ahead = model.forecast(frame.iloc[-10:], 3, throw=False)
    assert ahead["time"].values[0] == frame.index[-1].to_datetime64() + np.timedelta64(1, "h")


def test_the_same_key_gives_the_same_fit_and_a_given_cell_is_used(truth):
    one, two = (reconstruct(truth[:1500], small, runs=2, steps=30, length=10, alpha=0.2, key=5) for _ in "ab")
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True))
    assert isinstance(one.cell, ALRNN)
    assert one.settings["cell"]["reason"] == "given"


def test_save_and_load_keep_the_record(fitted, tmp_path):
    again = load(fitted.save(tmp_path / "model.eqx"))
    assert again.settings == fitted.settings
    xr.testing.assert_identical(again.runs, fitted.runs)
    xr.testing.assert_identical(again.simulate(50), fitted.simulate(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]: got 1.5"),
        ({"alpha": -0.1}, r"alpha must lie in \[0, 1\]: got -0.1"),
        ({"interval": 0}, "interval must be at least 1: got 0"),
        ({"alpha": 0.1, "interval": 4}, "alpha or interval, not both"),
        ({"alpha": [0.1, 0.2], "interval": 4}, "alpha or interval, not both"),
        ({"evaluations": 0}, "evaluations must be a whole number from 1 on: got 0"),
        ({"learning_rate": (1e-3, 1e-4), "optimiser": optax.sgd(0.1)}, "give learning_rate or optimiser, not both"),
        ({"runs": 0}, "runs must be a whole number from 1 on: got 0"),
        ({"steps": 0}, "steps must be at least 1: got 0"),
        ({"length": 5000}, "too short for one window: 1200 samples"),
        ({"validation": 0.9}, "validation must lie between 0.05 and 0.5: got 0.9"),
        ({"cell": lambda key: ALRNN(2, 1, key=key)}, "at least the 3 observed variables: got 2"),
        ({"cell": lambda key: 3}, "cell must be a cell or a function from a key to a cell: got int"),
        ({"noise": -1.0}, "noise must be at least 0: got -1.0"),
    ],
)
def test_bad_settings_are_named(truth, change, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(truth[:1500], **{"cell": small, **change})


def test_bad_series_are_named(truth):
    values = np.array(truth.values[:1000])
    with pytest.raises(ValueError, match="too short: 100 samples"):
        reconstruct(values[:100])
    with pytest.raises(ValueError, match=r"too short: 3 samples.* It has 300 variables in 3 rows: transposed\?"):
        reconstruct(values[:300].T)
    constant = values.copy()
    constant[:, 1] = 4.0
    with pytest.raises(ValueError, match="column 'x1' must vary: it is constant"):
        reconstruct(constant)
    values[3, 2] = np.inf
    with pytest.raises(ValueError, match="'x2' is inf at row 3"):
        reconstruct(values)


def test_a_truth_with_other_variables_is_refused(fitted, truth):
    renamed = truth.assign_coords(variable=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"variables must be \('x', 'y', 'z'\).*got \('a', 'b', 'c'\)"):
        score(fitted, renamed)
    with pytest.raises(ValueError, match="at least 200 samples: got 150"):
        score(fitted, truth[:150])
    with pytest.raises(ValueError, match="half of the truth, 3000: got 4000"):
        score(fitted, truth, steps=4000)


def test_when_every_run_fails_the_reasons_are_told(truth):
    def explode(key):
        import equinox as eqx

        cell = ALRNN(3, 0, key=key)
        return eqx.tree_at(lambda c: c.A, cell, cell.A + 50.0)

    with pytest.raises(RuntimeError, match="Every run failed. run 0: .*not finite"):
        reconstruct(truth[:1500], explode, runs=2, steps=2, length=5, alpha=0.0, learning_rate=(1e-9, 1e-9))


RUN_FOLDER = {
    "model.eqx",
    "scores.json",
    "scores.nc",
    "symbols.nc",
    "graph.graphml",
    "summary.png",
    "report.md",
}


@pytest.fixture
def quick(monkeypatch):
    """The command's own functions, with a fit that takes seconds; records what was passed to `reconstruct`."""
    calls = []

    def short(series, **given):
        calls.append(given)
        return reconstruct(series, **{**given, "runs": 1, "steps": 200})

    monkeypatch.setattr(cli.fits, "reconstruct", short)
    monkeypatch.setattr(cli.demos, "STEPS", 4000)
    return calls


def check_run_folder(folder: Path):
    assert {p.name for p in folder.iterdir()} == RUN_FOLDER
    for record in json.loads((folder / "scores.json").read_text()):
        assert set(record) == {"measure", "value", "floor", "ceiling", "error", "definition", "length"}
    model = load(folder / "model.eqx")
    symbols = read_symbols(folder / "symbols.nc")
    assert read_graphml(folder / "graph.graphml").number_of_nodes() == symbols.sizes["region"]
    xr.testing.assert_equal(encode(model, steps=10), encode(model, steps=10))
    assert xr.open_dataset(folder / "scores.nc", engine="h5netcdf").sizes["measure"] >= 9
    assert (folder / "summary.png").read_bytes().startswith(b"\x89PNG")
    report = (folder / "report.md").read_text()
    assert all(title in report for title in ("## Scores", "## Choices", "## Runs", "## Symbols"))


def test_demo_writes_a_whole_run_folder_and_passes_no_hyperparameters(quick, tmp_path):
    done = CliRunner().invoke(cli.app, ["demo", "lorenz", "--out", str(tmp_path / "run")])
    assert done.exit_code in (0, 1), done.output  # so short a fit may fail its range check, and then says so
    check_run_folder(tmp_path / "run")
    assert [set(call) for call in quick] == [{"key", "checkpoint"}]


def test_a_column_that_is_no_number_is_refused_before_anything_is_made(quick, truth, tmp_path):
    frame = truth.to_pandas()
    frame["note"] = "fine"
    frame.to_csv(tmp_path / "mine.csv")
    refused = CliRunner().invoke(cli.app, ["fit", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "run")])
    assert refused.exit_code == 1
    assert "column 'note' must hold numbers" in refused.output
    assert not (tmp_path / "run").exists() and not quick


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_fit(quick, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "file" / "run")])
    assert done.exit_code == 1
    assert "cannot write to the output folder" in done.output
    assert quick == []


def test_the_package_names_what_a_newcomer_needs():
    for name in (
        "reconstruct",
        "load",
        "score",
        "encode",
        "simulate",
        "ALRNN",
        "ClippedShallowPLRNN",
        "evolve",
    ):
        assert hasattr(dsrecon, name)


def test_a_labelled_start_is_read_by_its_names(fitted, truth):
    wanted = fitted.simulate(3, start=[1.0, 2.0, 20.0])
    for start in (
        {"z": 20.0, "x": 1.0, "y": 2.0},
        pd.Series([20.0, 1.0, 2.0], index=["z", "x", "y"]),
        xr.DataArray([20.0, 2.0, 1.0], dims="variable", coords={"variable": ["z", "y", "x"]}),
    ):
        xr.testing.assert_identical(fitted.simulate(3, start=start), wanted)
    with pytest.raises(ValueError, match=r"start must name the variables \('x', 'y', 'z'\): got \('u',\)"):
        fitted.simulate(3, start={"u": 1.0})


def test_a_poor_reconstruction_says_so(truth):
    poor = reconstruct(truth[:1500], small, runs=1, steps=3, length=5, alpha=0.5, key=0)
    warning = score(poor, truth, steps=2000).attrs["warning"]
    assert "times its floor: the attractor is not well reproduced" in warning


def test_a_failed_fit_leaves_no_empty_folder(tmp_path):
    pd.DataFrame({"u": np.sin(np.arange(50.0))}).to_csv(tmp_path / "short.csv", index=False)
    done = CliRunner().invoke(cli.app, ["fit", str(tmp_path / "short.csv"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert "too short: 50 samples" in done.output
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(
        cli.app, ["fit", str(tmp_path / "short.csv"), "--out", str(tmp_path / "short.csv" / "run")]
    )
    assert done.exit_code == 1
    assert "dsrecon: 1" not in done.output
