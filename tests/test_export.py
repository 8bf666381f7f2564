"""Models as plain arrays with a stepper of NumPy alone, and as StableHLO."""

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS as EVERY
from helpers import PWL_CELLS, CellRow, instance, named, stirred

from dsrecon.cell import AbstractCell
from dsrecon.embedding import Embedding
from dsrecon.export import export_arrays, export_stablehlo, load_stablehlo, read_arrays
from dsrecon.export.forms import CELLS, READOUTS
from dsrecon.models import ALRNN, PLRNN, ClippedShallowPLRNN
from dsrecon.readout import Forced, GeneralisedReadout, HaemodynamicReadout, IdentityReadout, LinearReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock
from dsrecon.systems import Lozi, MapCell

DOCS = Path(__file__).parents[1] / "docs"
KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(40, 2)) * [3.0, 0.1] + [50.0, -2.0]
DRIVE = RNG.normal(size=(200, 2)) * [0.4, 20.0] + [1.0, 300.0]


def stepper_of(source):
    """The reference stepper as a module, from its file."""
    spec = importlib.util.spec_from_file_location("reference_stepper", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STEPPER = stepper_of(DOCS / "reference_stepper.py")
FAMILIES = set(CELLS)
KINDS = {r: type(eqx.filter_eval_shape(r.make, KEY)) for r in EVERY}
ROWS = [r for r in EVERY if KINDS[r] in FAMILIES]
OTHERS = [r for r in PWL_CELLS if KINDS[r] not in FAMILIES]


class Widening(AbstractCell):
    """Parameters of three members at once."""

    A: jax.Array
    state_size: int = eqx.field(static=True, default=2)

    def __call__(self, z, s=None):
        return self.A * z

    def linearise(self, z, s=None):
        return self(z), self.A


def model_of(cell, readout, *, driven=False, data=DATA, **more):
    names = tuple(f"x{i}" for i in range(data.shape[1]))
    given = {"names": names, "units": ("",) * len(names), "clock": Clock(0.5, 10.0, "s")} | more
    if driven:
        given |= {"input_names": ("u", "v"), "input_scaler": Scaler.fit(DRIVE)}
    # eight deviations out: a run from there passes through several regions on its way in
    anchor = data.mean(0) + 8 * data.std(0) * np.resize([1, -1], data.shape[1])
    return Reconstruction(cell=cell, readout=readout, scaler=Scaler.fit(data), anchor=anchor, **given)


@cache
def calm(row: CellRow):
    """The row's cell with small random parameters, without compiling its start values.

    Small, so that runs settle: a chaotic one would grow the rounding until nothing can be compared.
    """
    rng = np.random.default_rng(7)

    def draw(leaf):
        if leaf.dtype == bool:
            return jnp.asarray(rng.random(leaf.shape) < 0.5)
        return jnp.asarray(0.35 * rng.normal(size=leaf.shape))

    shapes, rest = eqx.partition(eqx.filter_eval_shape(row.make, KEY), lambda x: isinstance(x, jax.ShapeDtypeStruct))
    return eqx.combine(jax.tree.map(draw, shapes), rest)


def standardised(model, xs):
    """In the units of the model, where a difference cannot hide behind an offset."""
    mean, std = model.scaler.mean[: len(model.names)], model.scaler.std[: len(model.names)]
    return (np.asarray(xs, float) - mean) / std


def compared(model, path, steps=200, inputs=None):
    """The stepper on the files against `simulate`."""
    wanted = standardised(model, model.simulate(steps, inputs=inputs).values)
    files = export_arrays(model, path)
    got = standardised(model, STEPPER.simulate(*STEPPER.read(files.npz.with_suffix("")), steps, inputs=inputs))
    assert got.shape == wanted.shape and 1e-3 < np.abs(wanted).max() < 1e3
    return got, wanted


# Arrays, and the stepper.


def test_exporter_and_stepper_know_the_same_families():
    assert set(STEPPER.CELLS) | set(STEPPER.SMOOTH) == {cls.__name__ for cls in CELLS}
    assert {KINDS[r] for r in ROWS} == FAMILIES, "a family that is exported has no row in tests/helpers.py"


def test_the_stepper_needs_numpy_alone():
    tree = ast.parse((DOCS / "reference_stepper.py").read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert {alias.name for node in found for alias in node.names} == {"json", "sys", "numpy"}


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_the_stepper_runs_as_the_model_does(row, tmp_path):
    cell, driven = calm(row), row.input is not None
    files = export_arrays(cell, tmp_path / "cell")
    description, arrays = STEPPER.read(tmp_path / "cell")
    assert files.json.name == "cell.json" and description["cell"]["class"] == type(cell).__name__
    # one step of the bare cell, from everywhere
    zs, s = (3 * RNG.normal(size=(50, size)) for size in (cell.state_size, len(description["inputs"])))
    s = s if driven else None
    wanted = eqx.filter_jit(eqx.filter_vmap(cell))(jnp.asarray(zs), None if s is None else jnp.asarray(s))
    got = [STEPPER.step(description, arrays, z, None if s is None else s[i]) for i, z in enumerate(zs)]
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    # a free run in the units of the data
    for readout in (IdentityReadout, LinearReadout):
        model = model_of(cell, stirred(readout(2, cell.state_size, key=KEY)), driven=driven)
        got, wanted = compared(model, tmp_path, inputs=DRIVE if driven else None)
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


def embedded(cell, readout=IdentityReadout):
    names = {"names": ("p",), "units": ("Pa",), "embedding": Embedding(3, 2)}
    return model_of(cell, stirred(readout(2, cell.state_size, key=KEY)), **names)


def test_the_stepper_with_an_embedding_shows_the_variable(tmp_path):
    model = embedded(calm(ROWS[0]))
    got, wanted = compared(model, tmp_path)
    assert got.shape == (200, 1)
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
    description, _ = read_arrays(tmp_path)
    assert description["embedding"]["lag"] == 3 and description["coordinates"] == ["p", "p(t-3)"]
    assert description["time"] == {"step": 0.5, "unit": "s", "origin": 10.0, "anchor_sample": 3}
    assert description["variables"] == [{"name": "p", "unit": "Pa"}]


@pytest.mark.parametrize(
    "readout",
    [
        stirred(LinearReadout(2, 2, key=KEY)),
        stirred(GeneralisedReadout(("poisson", "bernoulli"), 5, key=KEY)),
        stirred(HaemodynamicReadout(2, 5, time_step=2.0, key=KEY)),
    ],
    ids=["linear-all-seen", "generalised", "haemodynamic"],
)
def test_the_stepper_with_other_readouts(readout, tmp_path):
    cell = calm(CellRow("shallow", lambda key: ClippedShallowPLRNN(readout.state_size, 4, key=key)))
    model = model_of(cell, readout)
    if isinstance(readout, GeneralisedReadout):
        scaler, anchor = Scaler(np.zeros(2), np.ones(2)), np.array([4.0, 1.0])
        model = eqx.tree_at(lambda m: (m.scaler, m.anchor), model, (scaler, anchor))
    got, wanted = compared(model, tmp_path, 60)
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


def test_every_readout_is_known():
    from dsrecon import readout

    every = {c for c in vars(readout).values() if inspect.isclass(c) and issubclass(c, readout.AbstractReadout)}
    assert set(READOUTS) == every - {readout.AbstractReadout}


def test_what_the_diagonal_of_a_plrnn_holds_is_not_exported(tmp_path):
    cell = calm(CellRow("plrnn", lambda key: PLRNN(3, key=key)))
    assert np.all(cell.W != 0)
    export_arrays(cell, tmp_path)
    assert np.array_equal(read_arrays(tmp_path)[1]["cell.W"], np.where(np.eye(3), 0, cell.W))


def test_the_files_are_plain_and_say_what_they_hold(tmp_path):
    cell = ALRNN(4, 2, input_size=2, key=KEY)
    model = model_of(cell, LinearReadout(2, 4, key=KEY), driven=True, names=("p", "größe"), units=("Pa", "µV"))
    files = export_arrays(model, tmp_path / "run.v2")
    assert [f.name for f in files] == ["run.v2.npz", "run.v2.json"] == sorted(os.listdir(tmp_path))[::-1]
    description, arrays = read_arrays(files.npz)
    assert description == json.loads(files.json.read_text(encoding="utf-8")) == read_arrays(files.json)[0]
    with np.load(files.npz, allow_pickle=False) as stored:
        assert {n: stored[n].tobytes() for n in stored.files} == {n: a.tobytes() for n, a in arrays.items()}
        assert all(stored[n].dtype != object and stored[n].flags.c_contiguous for n in stored.files)
    assert np.array_equal(arrays["cell.W"], cell.W) and arrays["cell.W"].dtype == np.float64
    assert np.array_equal(arrays["scaler.mean"], model.scaler.mean)
    assert description["scaler"]["std"] == model.scaler.std.tolist()
    assert description["cell"]["class"] == "ALRNN" and description["cell"]["gates"] == 2
    assert description["cell"]["equation"].startswith("z' = A*z + W phi(z) + h")
    assert description["inputs"] == ["u", "v"] and description["input_scaler"]["mean"] == DRIVE.mean(0).tolist()
    assert description["variables"][1] == {"name": "größe", "unit": "µV"}
    for name, array in arrays.items():
        entry = description["arrays"][name]
        assert entry["shape"] == list(array.shape) and len(entry["axes"]) == array.ndim and entry["meaning"]
    again = export_arrays(model, tmp_path / "run.v2.json")  # its own kind is replaced, by the same bytes
    assert again == files and read_arrays(again.json)[0] == description


def test_a_float32_model_stays_float32(float32, tmp_path):
    cell = calm(CellRow("alrnn", lambda key: ALRNN(4, 2, key=key)))
    model = model_of(cell, stirred(LinearReadout(2, 4, key=KEY)))
    got, wanted = compared(model, tmp_path, 50)
    assert read_arrays(tmp_path)[1]["cell.W"].dtype == np.float32 and read_arrays(tmp_path)[0]["dtype"] == "float32"
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)  # fifty steps of rounding, of a run that settles


def test_the_stepper_from_the_shell(tmp_path):
    model = model_of(calm(ROWS[0]), IdentityReadout(2, calm(ROWS[0]).state_size, key=KEY))
    export_arrays(model, tmp_path)
    command = [sys.executable, "-I", str(DOCS / "reference_stepper.py"), str(tmp_path / "model"), "5"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "x0,x1"
    printed = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
    np.testing.assert_allclose(printed, model.simulate(5).values, rtol=1e-12)


@pytest.mark.parametrize("row", OTHERS, ids=named)
def test_a_cell_without_a_form_is_refused_by_name(row, tmp_path):
    with pytest.raises(ValueError, match=rf"cell of class {KINDS[row].__name__}, .* wanted one of ALRNN, "):
        export_arrays(instance(row), tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_the_stepper_refuses_what_it_does_not_know(tmp_path):
    export_arrays(ALRNN(3, 1, key=KEY), tmp_path)
    description, arrays = STEPPER.read(tmp_path / "model")
    with pytest.raises(ValueError, match=r"does not know the cell 'Lozi': it knows ALRNN, "):
        STEPPER.step({**description, "cell": {"class": "Lozi"}}, arrays, np.zeros(3))
    with pytest.raises(ValueError, match=r"does not know the readout 'Camera'"):
        STEPPER.observe({**description, "readout": {"class": "Camera"}}, arrays, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"inputs must be one row a step of \[\]"):
        STEPPER.simulate(description, arrays, 5, np.zeros(3), inputs=DRIVE)
    (tmp_path / "model.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match=r"not a dsrecon-arrays description"):
        STEPPER.read(tmp_path / "model")


def test_bad_models_are_refused(tmp_path):
    cell = ALRNN(3, 1, key=KEY)
    with pytest.raises(ValueError, match=r"model must be a Reconstruction or a cell: got a dict"):
        inspect.unwrap(export_arrays)({}, tmp_path)
    many = jax.tree.map(lambda x: jnp.stack([x, x]), cell)
    with pytest.raises(ValueError, match=r"ALRNN.A must have shape \[m\].*got \(2, 3\).*one member at a time"):
        export_arrays(many, tmp_path)
    with pytest.raises(ValueError, match=r"ALRNN.h must be finite: got 1 entries"):
        export_arrays(eqx.tree_at(lambda c: c.h, cell, cell.h.at[1].set(jnp.nan)), tmp_path)
    with pytest.raises(ValueError, match=r"ALRNN.A must be of a type that NumPy has.*got bfloat16"):
        export_arrays(jax.tree.map(lambda x: x.astype(jnp.bfloat16), cell), tmp_path)
    mixed = eqx.tree_at(lambda c: c.h, cell, cell.h.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"one floating-point type: got float32, float64"):
        export_arrays(mixed, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder"):
        export_arrays(cell, tmp_path / "nowhere" / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_files_of_others_are_left_alone(ending, tmp_path):
    (tmp_path / f"model.{ending}").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=rf"model.{ending} is in the way"):
        export_arrays(ALRNN(3, 1, key=KEY), tmp_path)
    assert os.listdir(tmp_path) == [f"model.{ending}"]
    assert (tmp_path / f"model.{ending}").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("before", [False, True])
def test_both_files_or_neither(before, tmp_path, monkeypatch):
    if before:
        export_arrays(ALRNN(3, 1, key=KEY), tmp_path)
    contents = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    rename = os.replace

    def full(source, target):
        if str(target).endswith("model.npz"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left.*model.npz"):
        export_arrays(ALRNN(4, 1, key=KEY), tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == contents


def test_damaged_arrays_are_refused_by_name(tmp_path):
    files = export_arrays(ALRNN(3, 1, key=KEY), tmp_path)
    text, content = files.json.read_text(), files.npz.read_bytes()

    def refused(message, json_text=text, npz=content):
        files.json.write_text(json_text)
        files.npz.write_bytes(npz)
        with pytest.raises(ValueError, match=message):
            read_arrays(tmp_path)

    refused(r"model.npz is damaged or belongs to another export", npz=content[:-30])
    refused(r"model.npz is damaged", npz=content[:200] + b"!" + content[201:])
    refused(r"model.json is not a dsrecon-arrays description", text[: len(text) // 2])
    refused(r"model.json is not a dsrecon-arrays description", "[1, 2]")
    refused(r"version 9 .* written by dsrecon .*Upgrade", text.replace('"version": 1', '"version": 9'))
    refused(r"model.json is damaged: it lacks", text.replace('"version": 1', '"version": null'))
    refused(r"model.npz does not hold the arrays that model.json lists", text.replace('"shape": [3]', '"shape": [4]'))
    files.json.write_text(text)
    files.npz.unlink()
    with pytest.raises(FileNotFoundError, match=r"model.npz"):
        read_arrays(tmp_path)


# StableHLO.


@pytest.mark.parametrize("row", ROWS[:2], ids=named)
def test_a_program_runs_as_simulate_does(row, tmp_path):
    cell, driven = calm(row), row.input is not None
    model = model_of(cell, stirred(LinearReadout(2, cell.state_size, key=KEY)), driven=driven)
    program = load_stablehlo(export_stablehlo(model, tmp_path / "model.zip", steps=100))
    s = [jnp.asarray(DRIVE)] if driven else []
    wanted = standardised(model, model.simulate(200, inputs=DRIVE if driven else None).values)
    z = program.start(jnp.asarray(model.anchor)[None])
    np.testing.assert_allclose(z[0], model.start(), rtol=1e-12, atol=1e-12)
    # two runs of a hundred, the second from where the first ended; a batch of another size
    halves, state = [], jnp.tile(z, (3, 1))
    for half in (slice(0, 100), slice(100, 200)):
        state, xs = program.run(state, *(jnp.tile(v[None, half], (3, 1, 1)) for v in s))
        halves.append(xs)
    got = np.concatenate(halves, 1)
    assert got.shape == (3, 200, 2)
    for member in got:
        np.testing.assert_allclose(standardised(model, member), wanted, rtol=1e-10, atol=1e-10)
    # the same, step by step
    for t in range(5):
        z, x = program.step(z, *(v[t][None] for v in s))
        np.testing.assert_allclose(standardised(model, x)[0], wanted[t], rtol=1e-10, atol=1e-10)


def test_a_float32_program_with_an_embedding(float32, tmp_path):
    model = embedded(calm(CellRow("shallow", lambda key: ClippedShallowPLRNN(3, 6, key=key))))
    path = export_stablehlo(model, tmp_path / "model.zip", steps=50, batch=1, platforms=("cpu",))
    program = load_stablehlo(path)
    z, xs = program.run(program.start(jnp.asarray(model.anchor)[None]))
    assert xs.shape == (1, 50, 1) and xs.dtype == z.dtype == jnp.float32
    wanted = standardised(model, model.simulate(50).values)
    # the units of the data are float32 too here: an offset of 17 deviations and fifty steps of rounding
    np.testing.assert_allclose(standardised(model, xs[0]), wanted, rtol=2e-4, atol=2e-5)
    with pytest.raises(ValueError):
        program.step(jnp.zeros((2, 3)))  # batch=1 is one


def test_a_program_of_any_cell(tmp_path):
    cell = MapCell(jnp.cos, 2)
    program = load_stablehlo(export_stablehlo(cell, tmp_path / "cos.zip"))
    z = jnp.asarray(DATA[:3])
    assert program.run is None and np.array_equal(program.start(z), z)
    for out in program.step(z):
        np.testing.assert_allclose(out, np.cos(DATA[:3]), rtol=1e-13)
    lozi = load_stablehlo(export_stablehlo(Lozi(), tmp_path / "lozi.zip"))
    np.testing.assert_allclose(lozi.step(jnp.zeros((1, 2)))[0], [[1.0, 0.0]])


def test_the_members_are_what_other_programs_take(tmp_path):
    model = model_of(ALRNN(4, 2, key=KEY), LinearReadout(2, 4, key=KEY))
    path = export_stablehlo(model, tmp_path / "model.zip", steps=7)
    with zipfile.ZipFile(path) as archive:
        names = ["description.json", *(f"{f}.{e}" for f in ("start", "step", "run") for e in ("jax_export", "mlirbc"))]
        assert archive.namelist() == names
        description = json.loads(archive.read("description.json"))
        for name, facts in description["functions"].items():
            assert archive.read(f"{name}.mlirbc").startswith(b"ML\xefR\rStableHLO_v")
            exported = jax.export.deserialize(bytearray(archive.read(f"{name}.jax_export")))
            assert exported.calling_convention_version == facts["calling_convention_version"]
            assert exported.platforms == ("cpu", "cuda", "tpu") == tuple(description["platforms"])
            # nothing in it asks for a library that the runtime would have to bring (LAPACK, a host function)
            called = set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))
            assert called <= {"shape_assertion"}
    assert description["dtype"] == "float64" and description["steps"] == 7 and description["batch"] is None
    assert description["functions"]["step"]["in"] == ["float64[b,4]"]
    assert description["functions"]["run"]["out"] == ["float64[b,4]", "float64[b,7,2]"]


def test_bad_programs_are_refused(tmp_path):
    cell, path = ALRNN(4, 2, key=KEY), tmp_path / "x.zip"
    with pytest.raises(ValueError, match=r"steps must be at least 1, or None: got 0"):
        export_stablehlo(cell, path, steps=0)
    with pytest.raises(ValueError, match=r"batch must be at least 1, or None: got -1"):
        export_stablehlo(cell, path, batch=-1)
    for platforms in ((), ("gpu",)):
        with pytest.raises(ValueError, match=rf"platforms must be some of .*got {re.escape(str(platforms))}"):
            export_stablehlo(cell, path, platforms=platforms)
    bold = HaemodynamicReadout(2, 4, time_step=2.0, key=KEY)
    with pytest.raises(ValueError, match=r"HaemodynamicReadout, whose observations depend on 16 earlier states"):
        export_stablehlo(model_of(cell, bold), path)
    forced = Forced(cell, IdentityReadout(2, 4, key=KEY))
    with pytest.raises(ValueError, match=r"a step of its Forced from one float64 state without inputs failed"):
        export_stablehlo(forced, path)
    many = r"its Widening makes float64\[3, 2\] of a state float64\[2\].*one member at a time"
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=many):
        export_stablehlo(Widening(jnp.ones((3, 2))), path)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder"):
        export_stablehlo(cell, tmp_path / "nowhere" / "x.zip")
    assert os.listdir(tmp_path) == []


def rewritten(path, change):
    """The zip file with its members changed by name."""
    with zipfile.ZipFile(path) as archive:
        members = change({name: archive.read(name) for name in archive.namelist()})
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)


def test_damaged_programs_are_refused_by_name(tmp_path):
    path = export_stablehlo(ALRNN(3, 1, key=KEY), tmp_path / "model.zip")
    content = path.read_bytes()

    def refused(message, content=content, change=None):
        path.write_bytes(content)
        if change is not None:
            rewritten(path, change)
        with pytest.raises(ValueError, match=rf"model.zip.*{message}"):
            load_stablehlo(path)

    def document(old, new):
        return lambda m: m | {"description.json": m["description.json"].replace(old, new)}

    refused("or damaged", content[:-40])
    refused("or damaged", content[:700] + bytes([content[700] ^ 1]) + content[701:])
    refused("or damaged", b"something else")
    refused("description.json is missing", change=lambda m: {"a.txt": b"hello"})
    refused("description.json is missing", change=document(b"dsrecon-stablehlo", b"dsrecon-stablegrass"))
    refused("lacks a version", change=document(b'"version": 1', b'"version": "1"'))
    refused("version 7 of .*Upgrade dsrecon", change=document(b'"version": 1', b'"version": 7'))
    refused("lacks step.jax_export", change=lambda m: {k: v for k, v in m.items() if k != "step.jax_export"})
    refused("step.jax_export", change=lambda m: m | {"step.jax_export": b"nonsense" * 20})
    with pytest.raises(FileNotFoundError):
        load_stablehlo(tmp_path / "other.zip")


def test_a_float64_program_asks_for_float64(tmp_path):
    path = export_stablehlo(ALRNN(3, 1, key=KEY), tmp_path / "model.zip")
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"model.zip holds a float64 model: enable float64"):
        load_stablehlo(path)


# The page.

PAGE = DOCS / "export.md"


def blocks(language):
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_the_page_shows_the_stepper_as_it_is():
    assert (DOCS / "reference_stepper.py").read_text() in blocks("python")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(DOCS)
    model_of(calm(ROWS[0]), LinearReadout(2, calm(ROWS[0]).state_size, key=KEY)).save("model.eqx")
    shown = [block for block in blocks("python") if block != (DOCS / "reference_stepper.py").read_text()]
    assert len(shown) >= 3
    space = {}
    for block in shown:
        exec(compile(block, str(PAGE), "exec"), space)
    assert {"model.eqx", "model.npz", "model.json", "model.stablehlo.zip"} <= set(os.listdir())
