"""The command: what it writes and prints, how it fails, and what a full disk leaves."""

import dataclasses
import json
import os
import subprocess
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
import xarray as xr
from typer.testing import CliRunner

from dsrecon import cli, datasets, plot, reconstruct, symbolic
from dsrecon.cli import demos, fits, folder, heart
from dsrecon.cli.report import scores_table
from dsrecon.measures import score
from dsrecon.models import ALRNN
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction, load
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, as_series, labelled
from dsrecon.systems import Lorenz63, MapCell, simulate

RUN_FOLDER = ("model.eqx", "scores.json", "scores.nc", "symbols.nc", "graph.graphml", "summary.png", "report.md")


RUNS = xr.Dataset({"score": ("run", [2.0]), "failure": ("run", [""])}, {"run": [0]}, {"best": 0})


def turning():
    """A cell whose free run neither settles nor leaves: a rotation whose last unit pushes the third."""
    turn = jnp.array([[jnp.cos(0.3), -jnp.sin(0.3)], [jnp.sin(0.3), jnp.cos(0.3)]])
    W = jnp.zeros((4, 4)).at[:2, :2].set(turn).at[3, 0].set(1.0).at[2, 3].set(0.2)
    A, h = jnp.array([0.0, 0.0, 0.5, 0.5]), jnp.array([0.0, 0.0, -0.1, 0.0])
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), ALRNN(4, 1, key=jax.random.key(0)), (A, W, h))


def untrained(series, cell=None):
    """A model of the series that nobody has fitted: enough for all that is done with one."""
    series = as_series(series)
    cell = cell or turning()
    readout = IdentityReadout(len(series.names), cell.state_size, key=jax.random.key(1))
    scaler = Scaler.fit(series.values)
    record = json.dumps({"settings": {}, "runs": RUNS.to_dict()})
    return Reconstruction(cell, readout, scaler, series.values[0], series.clock, series.names, series.units, record)


@pytest.fixture(scope="module")
def truth():
    values = simulate(Lorenz63(), 2000, dt=0.02).values
    near = np.linalg.norm((values - values.mean(0))[:, :2] / values.std(0)[:2], axis=1)
    first = int(np.argmax((near > 0.8) & (near < 1.2)))  # where `turning` turns inside the range of the data
    values = values[first : first + 1200]
    return labelled(values, ("x", "y", "z"), Clock(0.02, 3.0, "s"), units=("mV", "", "m"))


@pytest.fixture(scope="module")
def model(truth):
    return untrained(truth)


@pytest.fixture
def run(truth, model, tmp_path):
    """A run folder with what the inspecting commands read: the model, and symbols of the truth."""
    path = tmp_path / "run"
    path.mkdir()
    model.save(path / "model.eqx")
    symbolic.write_symbols(symbolic.encode(model, truth), path / "symbols.nc")
    truth.to_pandas().to_csv(tmp_path / "lorenz.csv")
    return path


class Tanh(eqx.Module):
    """A map that is not piecewise linear."""

    def __call__(self, x):
        return jnp.tanh(x)


def command(*arguments, code=0):
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    if code == 1:  # one line, no traceback
        assert isinstance(done.exception, SystemExit)
        assert done.stderr.startswith("dsrecon: ") and done.stderr.count("\n") == 1
    return done


# symbols


@pytest.mark.parametrize("form", ["csv", "dot", "json", "netcdf", "graphml"])
def test_symbols_writes_every_form_of_what_the_run_folder_holds(form, run):
    before = {p.name for p in run.iterdir()}
    coded = symbolic.read_symbols(run / "symbols.nc")
    graph = symbolic.transition_graph(coded)
    done = command("symbols", run, "--format", form)
    names = {"csv": {"symbols.csv"}, "dot": {"graph.dot"}, "json": {"symbols.json", "graph.json"}}
    names |= {"netcdf": {"symbols.nc"}, "graphml": {"graph.graphml"}}
    assert {p.name for p in run.iterdir()} == before | names[form] | {"symbols.md", "symbols-graph.png"}
    for name in names[form]:
        assert str(run / name) in done.stdout
        if name.startswith("graph"):
            back = symbolic.read_graph(run / name)
            assert dict(back.nodes(data=True)) == dict(graph.nodes(data=True)) and dict(back.edges) == dict(graph.edges)
        else:
            back = symbolic.read_symbols(run / name)
            xr.testing.assert_identical(back, coded[["symbol", "observation"]] if form == "csv" else coded)


def test_symbols_prints_regions_words_and_entropies(run):
    printed = command("symbols", run).stdout
    coded = symbolic.read_symbols(run / "symbols.nc")
    assert f"{coded.attrs['regions_visited']} linear regions are visited in 1,200 steps (series)." in printed
    assert f"{coded['visits'].values[0] / 1200:.2%}" in printed and "mean dwell time (s)" in printed
    words = symbolic.block_entropies(coded, 8)
    for i in range(8):
        count, entropy, rate = (words[name].values[i] for name in ("words", "entropy", "rate"))
        assert f"{i + 1:>6}{count:>9}{entropy:>10.4f}{rate:>10.4f}" in printed
    growth = symbolic.topological_entropy(symbolic.transitions(coded))
    assert f"{growth:.4f} nats per step" in printed


def test_symbols_writes_a_page_of_findings(run, tmp_path):
    done = command("symbols", run, "--data", tmp_path / "lorenz.csv")
    said = (run / "symbols.md").read_text()
    coded = symbolic.read_symbols(run / "symbols.nc")
    assert f"{coded.attrs['regions_visited']} linear regions are visited in 1,200 steps" in said
    for part in (
        "Regions",
        "Stays",
        "Where it goes",
        "What is forbidden",
        "Entropy",
        "The machine",
        "Data and free run",
    ):
        assert f"## {part}\n" in said
    assert f"| 0 | {coded['visits'].values[0] / 1200:.2%} | " in said and "largest Lyapunov exponent" in said
    assert "show no difference" in said  # the same sequence twice
    assert "symbols.md" in done.stdout and (run / "symbols-graph.png").read_bytes()[:4] == b"\x89PNG"
    command("symbols", run)
    assert "No data were given" in (run / "symbols.md").read_text()


def test_a_page_draws_the_machine_and_names_what_is_forbidden(tmp_path):
    chance, values = np.random.default_rng(0).random(4000), np.zeros(4000, int)
    for i in range(1, len(values)):  # no two ones in a row
        values[i] = not values[i - 1] and chance[i] < 0.5
    series = np.stack([values, chance], axis=1)
    coded = symbolic.encode(untrained(series, cell=ALRNN(8, 1, key=jax.random.key(0))), series)
    visits = np.bincount(values)
    rest = coded.drop_dims("region").assign(symbol=coded["symbol"].copy(data=values)).assign_attrs(coded.attrs)
    coded = rest.assign(
        bits=(("region", "gate"), [[False], [True]]),
        mean=(("region", "variable"), np.eye(2)),
        visits=("region", visits),
    ).assign_coords(region=[0, 1])
    said = cli.findings.findings(coded, "x, y", np.array([0.5, -1.0]), coded)
    assert "two causal states" in said.text or "2 causal states" in said.text
    assert "`1 1`" in said.text and "```mermaid\n" in said.text and "flowchart LR" in said.text
    assert "| largest Lyapunov exponent of the free run | 0.5 | - |" in said.text
    assert said.machine is not None and said.machine.machine.states == 2


def test_a_page_says_what_could_not_be_told(truth):
    one = untrained(truth, cell=ALRNN(8, 0, key=jax.random.key(0)))
    said = cli.findings.findings(symbolic.encode(one, truth), "x", None, None)
    assert said.machine is None and "Not told: symbols must be of two kinds at least" in said.text
    assert "None was built: " in said.text


def test_symbols_of_a_model_file_or_with_steps_are_those_of_a_free_run(run, model, tmp_path):
    command("symbols", run / "model.eqx", "--format", "json", "--steps", 300, "--out", tmp_path / "free.json")
    wanted = symbolic.encode(model, steps=300, discard=30)
    xr.testing.assert_identical(symbolic.read_symbols(tmp_path / "free.json"), wanted)
    command("symbols", run, "--format", "json", "--steps", 300, "--out", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "free.json").read_bytes()
    (run / "symbols.nc").unlink()
    assert "visited in 10,000 steps (free run)" in command("symbols", run, "--format", "netcdf").stdout
    assert symbolic.read_symbols(run / "symbols.nc").sizes["time"] == 10_000


def test_a_few_steps_of_many_regions_are_shown_with_care():
    values = np.random.default_rng(0).normal(size=(60, 3))
    many = untrained(values, cell=ALRNN(8, 5, key=jax.random.key(0)))
    printed = cli.inspection.summary(symbolic.encode(many, values))
    assert "rarer regions" in printed and "too long for so few steps: biased low" in printed
    assert "units of time" in printed


def test_symbols_tells_in_a_line_what_is_wrong(run, truth, tmp_path):
    curved = untrained(truth, cell=MapCell(Tanh(), 3)).save(tmp_path / "curved.eqx")
    for arguments, message in (
        ([tmp_path / "none"], "dsrecon: there is no run folder and no model file '"),
        ([tmp_path], "holds no model.eqx, which `dsrecon fit` writes at its end."),
        ([run, "--out", tmp_path / "a.dot"], "must end in .csv, as --format csv does"),
        ([run, "--out", tmp_path / "missing" / "a.csv"], "a.csv"),
        ([run / "symbols.nc"], "symbols.nc"),
        ([curved], "symbols are its linear regions: got MapCell"),
    ):
        assert message in command("symbols", *arguments, code=1).stderr
    (run / "symbols.nc").write_bytes((run / "symbols.nc").read_bytes()[:1000])
    assert f"{run / 'symbols.nc'} is not netCDF 4, or was cut off" in command("symbols", run, code=1).stderr
    assert {p.name for p in run.iterdir()} == {"model.eqx", "symbols.nc"}


# score


def test_score_prints_and_keeps_the_table(run, truth, tmp_path):
    done = command("score", run, tmp_path / "lorenz.csv")
    rows = json.loads((run / "scores-lorenz.json").read_text())
    table = score(load(run / "model.eqx"), truth)
    assert [row["measure"] for row in rows] == table["measure"].values.tolist()
    for row, value in zip(rows, table["value"].values, strict=True):
        assert row["value"] == pytest.approx(value, rel=1e-6)  # times came from text
        assert row["measure"] in done.stdout
    assert "Warning: " in done.stdout and "the attractor is not well reproduced" in done.stdout


@pytest.mark.parametrize("ending", ["nc", "npy"])
def test_score_reads_other_files_and_chosen_columns(ending, run, truth, tmp_path):
    file = tmp_path / f"other.{ending}"
    if ending == "npy":
        np.save(file, truth.values)
        command("score", run, file, "--time-step", 0.02)
    else:
        truth.to_dataset("variable")[["z", "y", "x"]].assign(w=truth[:, 0]).to_netcdf(file, engine="h5netcdf")
        assert "must be ('x', 'y', 'z')" in command("score", run, file, "--columns", "z,y,x", code=1).stderr
        assert not (run / "scores-other.json").exists()
        command("score", run, file)  # the model knows the names of its columns
        told = (run / "scores-other.json").read_text()
        command("score", run / "model.eqx", file, "--columns", "x, y, z")
        assert (run / "scores-other.json").read_text() == told
    assert "d_h" in [row["measure"] for row in json.loads((run / "scores-other.json").read_text())]


def test_a_truth_that_does_not_fit_the_model_is_told_in_a_line(run, truth, tmp_path):
    np.save(tmp_path / "short.npy", truth.values[:150])
    for arguments, message in (
        (["none.csv"], "no file"),
        (["lorenz.csv", "--columns", "x,y"], "variables must be ('x', 'y', 'z'), those of the model: got ('x', 'y')"),
        (["lorenz.csv", "--columns", "w"], "has no column 'w'"),
        (["lorenz.csv", "--time-step", "0.5"], "time_step=0.5 contradicts the times"),
        (["short.npy"], "truth must have at least 200 samples: got 150"),
    ):
        file, *options = arguments
        assert message in command("score", run, tmp_path / file, *options, code=1).stderr
    assert {p.name for p in run.iterdir()} == {"model.eqx", "symbols.nc"}


def test_a_model_that_leaves_the_data_is_scored_and_has_failed(run, truth, tmp_path):
    cell = turning()
    far = eqx.tree_at(lambda c: c.h, cell, cell.h.at[2].set(10.0))  # ten standard deviations
    untrained(truth, cell=far).save(tmp_path / "wild.eqx")
    done = command("score", tmp_path / "wild.eqx", tmp_path / "lorenz.csv", code=1)
    assert "the reconstruction has failed: 100.0 % of the free run lies outside the range" in done.stderr
    rows = {row["measure"]: row for row in json.loads((tmp_path / "scores-lorenz.json").read_text())}
    assert rows["outside"]["value"] == 1.0 and "outside" in done.stdout


# demo and fit


@pytest.fixture
def quick(monkeypatch):
    """The commands with a model that needs no fit; records what was passed to `reconstruct`."""
    calls = []

    def given(series, **options):
        calls.append(options)
        return untrained(series)

    monkeypatch.setattr(fits, "reconstruct", given)
    monkeypatch.setattr(demos, "STEPS", 1000)
    return calls


def test_fit_writes_a_whole_run_folder_that_the_other_commands_read(quick, run, tmp_path):
    out = tmp_path / "fitted"
    done = command("fit", tmp_path / "lorenz.csv", "--out", out)
    assert {p.name for p in out.iterdir()} == set(RUN_FOLDER) and len(quick) == 1
    chosen = {name: value for name, value in quick[0].items() if value is not None}
    assert chosen == {"key": 0, "checkpoint": out / "fit.checkpoint"}, "no hyperparameter is passed"
    command("symbols", out, "--format", "dot")
    command("score", out, tmp_path / "lorenz.csv")
    page = {"symbols.md", "symbols-graph.png", "machine.json"}  # the last where a machine was found
    written = {p.name for p in out.iterdir()}
    assert written - page == {*RUN_FOLDER, "graph.dot", "scores-lorenz.json"} and "symbols.md" in written
    measures = xr.load_dataset(out / "scores.nc", engine="h5netcdf")["measure"].values.tolist()
    assert measures == [row["measure"] for row in json.loads((out / "scores.json").read_text())]
    said = (out / "report.md").read_text()
    assert all(title in said for title in ("## Scores", "## Choices", "## Symbols"))
    for text in (done.stdout, said):  # what chose the run is not in the table of scores
        assert "Left out, since nothing can be read off them here: d_stsp: from 10,000 samples on" in text
        assert "The run was chosen by d_stsp (and d_h) all the same" in text
    assert (
        "16 starts of 5,000 steps each" in said and "one free run of 20,000 steps" in (out / "symbols.md").read_text()
    )


def test_fit_passes_on_how_long_and_how_many(quick, run, tmp_path):
    command("fit", tmp_path / "lorenz.csv", "--out", tmp_path / "fitted", "--steps", 300, "--runs", 2)
    assert quick[0]["steps"] == 300 and quick[0]["runs"] == 2
    assert "--runs" in command("fit", tmp_path / "lorenz.csv", "--runs", 0, code=2).output


def test_the_version_is_told():
    assert command("--version").stdout == f"dsrecon {version('dsrecon')}\n"


def test_scores_that_are_lower_bounds_are_told_below_the_table(truth, model):
    table = score(model, truth, steps=300)
    table.attrs |= {"capped": "the floor of vpt is at least 3", "warning": ""}
    assert "\n\nThe floor of vpt is at least 3.\n\nLeft out" in scores_table(table)


def test_several_files_are_several_trials_and_inputs_are_no_variables(quick, truth, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(fits, "write_run", lambda *a: shown.append(a))
    for name, rows in (("a", slice(0, 500)), ("b", slice(500, 1200))):
        frame = truth[rows].to_pandas()
        frame.loc[frame.index[3], "x"] = np.nan
        frame.drop(index=frame.index[10]).to_csv(tmp_path / f"{name}.csv")
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    done = command("fit", *files, "--out", tmp_path / "out", code=1)
    assert "times must be equidistant" in done.stderr and "--resample" in done.stderr
    kept = []
    monkeypatch.setattr(fits, "reconstruct", lambda series, **o: kept.append((series, o)) or untrained(truth))
    done = command("fit", *files, "--inputs", "z", "--resample", "0.02", "--out", tmp_path / "out")
    (series, options), (_, _, longest, about, drive) = kept[0], shown[0]
    assert [trial.names for trial in series] == [("x", "y")] * 2 and [len(t.values) for t in series] == [500, 700]
    assert [one.names for one in options["inputs"]] == [("z",)] * 2
    assert np.isnan(series[0].values).sum(0).tolist() == [2, 1], "an empty cell, and a lost row"
    assert len(longest) == 700 and drive.names == ("z",) and "in 2 trials" in about[0] and "missing" in about[1]
    assert "1,200 samples in 2 trials" in done.stdout
    done = command("fit", files[0], "--inputs", "x,y,z", "--resample", "0.02", "--out", tmp_path / "out", code=1)
    assert "inputs must leave a column to fit: got all of ('x', 'y', 'z')" in done.stderr


def test_a_fit_that_was_broken_off_goes_on_and_tidies_up(quick, run, tmp_path, monkeypatch):
    out = tmp_path / "fitted"
    out.mkdir()
    (out / "fit.checkpoint").write_bytes(b"of another fit")

    def refusing(series, *, checkpoint, **_):
        raise ValueError(f"{checkpoint} is not a checkpoint")

    monkeypatch.setattr(fits, "reconstruct", refusing)
    done = command("fit", tmp_path / "lorenz.csv", "--out", out, code=1)
    assert "delete it to start anew" in done.stdout and "is not a checkpoint" in done.stderr
    assert (out / "fit.checkpoint").exists(), "what could not be read is left alone"
    monkeypatch.setattr(fits, "write_run", lambda *a: None)
    monkeypatch.setattr(fits, "reconstruct", lambda series, **_: untrained(series))
    command("fit", tmp_path / "lorenz.csv", "--out", out)
    assert not (out / "fit.checkpoint").exists()


def test_an_interrupted_fit_keeps_its_checkpoint_and_says_so(run, tmp_path, monkeypatch):
    def interrupted(series, *, checkpoint, **_):
        checkpoint.write_bytes(b"half-way")
        model = untrained(series)
        record = {**json.loads(model.record), "settings": {"interrupted": {"value": 1200, "reason": "by hand"}}}
        return dataclasses.replace(model, record=json.dumps(record))

    monkeypatch.setattr(fits, "reconstruct", interrupted)
    monkeypatch.setattr(fits, "write_run", lambda *a: None)
    done = command("fit", tmp_path / "lorenz.csv", "--out", tmp_path / "fitted")
    assert "Stopped after 1,200 updates: the best model so far is kept." in done.stdout
    assert (tmp_path / "fitted" / "fit.checkpoint").exists()


def test_the_demonstration_of_a_heart_reports_its_embedding_and_its_beats(tmp_path, monkeypatch):
    calls = []

    def quickly(series, **options):
        calls.append(options)
        return reconstruct(series, **{**options, "steps": 40, "runs": 2, "progress": False})

    monkeypatch.setattr(fits, "reconstruct", quickly)
    monkeypatch.setattr(heart, "write_run", lambda folder, result, series, about: shown.extend(about))
    shown = []
    with jax.numpy_dtype_promotion("standard"):
        done = command("demo", "ecg", "--out", tmp_path / "ecg")
    assert "Embedding, lag: 7" in done.stdout and "mutual information" in done.stdout
    assert (tmp_path / "ecg" / "embedding.png").read_bytes().startswith(b"\x89PNG")
    assert "R-R intervals" in shown[2] or "no beats" in shown[2]
    assert "PhysioNet" in shown[0] and "214 to 300 s" in shown[0] and calls[0]["validation"] == 0.4


def test_beats_of_the_data_are_all_within_reach_of_themselves():
    series = datasets.resting_ecg()

    class Same:
        clock = Clock(1 / 72)

        def simulate(self, steps, discard):
            return series[:steps]

    said = heart.heartbeats(Same(), series)
    assert "90%" in said.replace("91%", "90%").replace("89%", "90%"), said  # of the 5-95 % range, by its meaning


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_fit(quick, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = command("demo", "--out", tmp_path / "file" / "run", code=1)
    assert "cannot write to the output folder" in done.stderr and quick == []


# a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 512 KiB, and what sets its free space."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")

    def leave(kilobytes):
        (path / "filler").write_bytes(b"")
        space = os.statvfs(path)
        (path / "filler").write_bytes(b"\0" * (space.f_bavail * space.f_frsize - 1024 * kilobytes))

    try:
        yield path, leave
    finally:
        subprocess.run(["umount", path], check=True)


def whole(path):
    """Whether a file of a run folder can be read to its end."""
    readers = {
        "model.eqx": load,
        "scores.json": lambda p: json.loads(p.read_text()),
        "scores.nc": lambda p: xr.load_dataset(p, engine="h5netcdf"),
        "symbols.nc": symbolic.read_symbols,
        "graph.graphml": symbolic.read_graph,
        "summary.png": lambda p: p.read_bytes().index(b"IEND"),
        "report.md": lambda p: p.read_text().index("## Files"),
    }
    readers[path.name](path)
    return True


def test_a_full_disk_is_told_by_the_file_and_leaves_whole_files_only(small_disk, truth, model, monkeypatch, capsys):
    disk, leave = small_disk
    table, figure = score(model, truth), plot.symbols(symbolic.encode(model, truth))
    monkeypatch.setattr(folder, "score", lambda *a, **k: table)  # once is enough
    monkeypatch.setattr(folder.plot, "summary", lambda *a, **k: figure)
    out = disk / "run"
    out.mkdir()
    folder.write_run(out, model, truth, ["A test."])
    assert {p.name for p in out.iterdir()} == set(RUN_FOLDER) and all(whole(p) for p in out.iterdir())
    pages = [-(-(out / name).stat().st_size // 4096) for name in RUN_FOLDER]  # that each file takes
    (out / "report.md").write_text("the last report\n## Files")
    capsys.readouterr()
    for k, name in enumerate(RUN_FOLDER):
        for old in RUN_FOLDER[:-1]:
            (out / old).unlink(missing_ok=True)
        leave(4 * (sum(pages[: k + 1]) - 1))  # a page too little for this file
        with pytest.raises(typer.Exit) as exit:
            folder.write_run(out, model, truth, ["A test."])
        error = capsys.readouterr().err
        assert exit.value.exit_code == 1 and error.count("\n") == 1
        assert "No space left on device" in error and str(out / name) in error
        assert {p.name for p in out.iterdir()} == {*RUN_FOLDER[:k], "report.md"}
        assert all(whole(p) for p in out.iterdir())
        assert (out / "report.md").read_text().startswith("the last report")


@pytest.mark.parametrize("form", ["csv", "dot", "json", "netcdf", "graphml"])
def test_symbols_on_a_full_disk_names_the_file_and_leaves_the_old_one(form, small_disk, run, tmp_path):
    disk, leave = small_disk
    ending = {"netcdf": "nc"}.get(form, form)
    out = disk / f"out.{ending}"
    out.write_text("old")
    leave(0)
    error = command("symbols", run, "--format", form, "--out", out, code=1).stderr
    assert f"out.{ending}" in error and "No space left on device" in error
    assert out.read_text() == "old" and {p.name for p in disk.iterdir()} == {"filler", out.name}
