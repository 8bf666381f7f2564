"""A reconstruction in the coordinates of the data, its model file, and its scaler."""

import dataclasses
import hashlib
import json
import os
import pickle
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import stirred
from jaxtyping import Array

from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.export import export_arrays
from dsrecon.forecast import RidgeEstimator, load_predictor
from dsrecon.modelfile import FORMAT, VERSION, read_module, write_module, write_tree
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction, load
from dsrecon.scaler import Scaler
from dsrecon.series import Clock
from dsrecon.systems import MapCell

KEY = jax.random.key(3)
DATA = np.random.default_rng(0).normal(size=(40, 2)) * [3.0, 0.01] + [1e5, -2.0]


class Spiral(AbstractCell):
    """A user's own cell: it lives in no module of the package."""

    angle: Array
    gains: tuple[Array, Array]
    state_size: int = eqx.field(static=True, default=2)

    def __call__(self, z, s=None):
        c, d = jnp.cos(self.angle), jnp.sin(self.angle)
        x, y = self.gains
        return jnp.stack([x * (c * z[0] - d * z[1]), y * (d * z[0] + c * z[1])])

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def reconstruction(cell, m, clock, names=("p", "q"), units=("Pa", "")):
    return Reconstruction(
        cell=cell,
        readout=IdentityReadout(2, m, key=KEY),
        scaler=Scaler.fit(DATA),
        anchor=DATA[0],
        clock=clock,
        names=names,
        units=units,
        record=json.dumps({"settings": {"window": {"value": 5, "reason": "short"}}}),
    )


@pytest.fixture(scope="module")
def model():
    cell = stirred(ALRNN(4, 2, key=KEY), scale=0.1)
    return reconstruction(cell, 4, Clock(0.5, 10.0, "s"))


@pytest.fixture(scope="module")
def dated():
    spiral = Spiral(jnp.asarray(0.3), (jnp.asarray(0.99), jnp.asarray(1.0)))
    return reconstruction(spiral, 2, Clock(3600.0, "2020-01-01T00:00:00", "datetime"))


def by_hand(model, z, steps):
    """Free run, step by step, in the units of the data."""
    rows, one = [], eqx.filter_jit(model.cell)
    for _ in range(steps):
        z = one(z)
        rows.append(np.asarray(z)[:2] * model.scaler.std + model.scaler.mean)
    return np.array(rows)


def test_simulate_is_a_run_in_real_coordinates(model):
    out = model.simulate(6)
    assert out.dims == ("time", "variable") and out.dtype == np.float64
    assert out["variable"].values.tolist() == ["p", "q"] and out["unit"].values.tolist() == ["Pa", ""]
    # the anchor is at 10 s; the first row is one step later
    assert out["time"].values.tolist() == [10.5, 11.0, 11.5, 12.0, 12.5, 13.0]
    assert out.attrs["time_step"] == 0.5 and out.attrs["time_unit"] == "s"
    x = (DATA[0] - DATA.mean(0)) / DATA.std(0, ddof=1)
    z0 = jnp.concatenate([jnp.asarray(x), model.readout.L @ x])
    np.testing.assert_allclose(out.values, by_hand(model, z0, 6), rtol=1e-12)


def test_simulate_from_elsewhere_and_later(model):
    start = DATA[7]
    whole = model.simulate(8, start=start)
    late = model.simulate(5, start=start, discard=3)
    xr.testing.assert_equal(late, whole[3:])
    assert not np.allclose(whole.values, model.simulate(8).values, rtol=1e-9, atol=0)


def test_simulate_with_dates(dated):
    out = dated.simulate(3, discard=1)
    wanted = pd.date_range("2020-01-01T02:00", periods=3, freq="h").to_numpy()
    assert np.array_equal(out["time"].values, wanted)
    assert out.sel(time="2020-01-01T03:00", variable="q").size == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, r"steps must be at least 1 and discard at least 0: got 0 and 0"),
        ({"steps": 3, "discard": -1}, r"got 3 and -1"),
        (
            {"steps": 3, "start": [1.0]},
            r"start must be 2 finite numbers, one for each of \('p', 'q'\): got \[1",
        ),
        ({"steps": 3, "start": [1.0, np.nan]}, r"start must be 2 finite numbers.*nan"),
    ],
)
def test_bad_runs_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.simulate(**arguments)


def test_a_diverged_run_is_told(model):
    wild = eqx.tree_at(lambda m: m.cell.A, model, jnp.full(4, 1e200))
    with pytest.raises(RuntimeError, match=r"diverged: .* from step 1 of 5"):
        wild.simulate(5)
    out = wild.simulate(5, throw=False)
    assert np.isfinite(out.values[0]).all() and not np.isfinite(out.values[1:]).all(1).any()
    with pytest.raises(RuntimeError, match=r"diverged"):
        wild.forecast(DATA[:3], 5)


def test_filter_follows_the_data(model):
    zs = model.filter(DATA[:6])
    assert zs.shape == (6, 4)
    np.testing.assert_allclose(model.observe(zs), DATA[:6], rtol=1e-12)
    x = np.asarray(model.scaler.scale(DATA[:6]))
    z, one = np.asarray(zs[0]), eqx.filter_jit(model.cell)
    np.testing.assert_allclose(z, np.concatenate([x[0], model.readout.L @ x[0]]), rtol=1e-13)
    for t in range(1, 6):
        z = np.concatenate([x[t], np.asarray(one(jnp.asarray(z)))[2:]])
        np.testing.assert_allclose(zs[t], z, rtol=1e-11, atol=1e-12)


def test_a_forecast_goes_on_from_the_context(model):
    index = 100 + 0.5 * np.arange(6)
    context = pd.DataFrame(DATA[:6], index, ["p", "q"])
    out = model.forecast(context, 4)
    assert out["time"].values.tolist() == [103.0, 103.5, 104.0, 104.5]
    assert out["variable"].values.tolist() == ["p", "q"] and out["unit"].values.tolist() == ["Pa", ""]
    np.testing.assert_allclose(out.values, by_hand(model, model.filter(context)[-1], 4), rtol=1e-12)


def test_a_forecast_of_plain_numbers_counts_from_their_start(model, dated):
    out = model.forecast(DATA[:6], 2)
    assert out["time"].values.tolist() == [3.0, 3.5] and out.attrs["time_unit"] == "s"
    assert dated.forecast(DATA[:6], 2)["time"].values.tolist() == [6 * 3600.0, 7 * 3600.0]


def test_a_forecast_with_dates_goes_on_with_dates(dated):
    index = pd.date_range("2021-05-06", periods=5, freq="h")
    out = dated.forecast(pd.DataFrame(DATA[:5], index, ["p", "q"]), 2)
    assert np.array_equal(out["time"].values, (index[-2:] + pd.Timedelta(hours=2)).to_numpy())


def test_a_forecast_takes_what_simulate_gives(model):
    run = model.simulate(6)
    ahead = model.forecast(run[:4], 2)
    assert np.array_equal(ahead["time"], run["time"][4:])


@pytest.mark.parametrize(
    "context, message",
    [
        (pd.DataFrame(DATA[:5], columns=["p", "r"]), r"variables must be \('p', 'q'\).*: got \('p', 'r'\)"),
        (pd.DataFrame(DATA[:5], columns=["q", "p"]), r"variables must be \('p', 'q'\).*: got \('q', 'p'\)"),
        (DATA[:5, :1], r"variables must be \('p', 'q'\), those of the model: got \('x0',\)"),
        (
            pd.DataFrame(DATA[:5], 0.25 * np.arange(5), ["p", "q"]),
            r"time step must be 0\.5, that of the model: got 0\.25",
        ),
        (DATA[:1], r"at least 2 samples: got 1"),
        (DATA[:5] * np.nan, r"data must hold observations: all 10 values are NaN"),
    ],
)
def test_a_context_of_another_kind_is_refused(model, context, message):
    with pytest.raises(ValueError, match=message):
        model.forecast(context, 3)


def test_a_forecast_of_no_steps_is_refused(model):
    with pytest.raises(ValueError, match="steps must be a whole number from 1 on: got 0"):
        model.forecast(DATA[:5], 0)


def test_the_record_is_read(model):
    assert model.settings["window"] == {"value": 5, "reason": "short"}
    assert model.runs.sizes == {}


@pytest.mark.parametrize("offset, spread", [(0.0, 1.0), (101325.0, 0.01), (-1e9, 1.0), (0.0, 1e-12)])
def test_the_scaler_goes_there_and_back(offset, spread):
    values = offset + spread * np.random.default_rng(2).normal(size=(100, 3))
    scaler = Scaler.fit(values)
    scaled = scaler.scale(values)
    assert isinstance(scaled, jax.Array) and scaled.dtype == jnp.float64
    back = scaler.unscale(scaled)
    # rounding of the data themselves, and of the scaled value
    np.testing.assert_allclose(back, values, rtol=4e-16, atol=1e-14 * spread)
    np.testing.assert_allclose(np.std(scaled, axis=0, ddof=1), 1.0, rtol=1e-6)
    assert np.abs(np.mean(scaled, axis=0)).max() < 1e-6


def test_the_scaler_loses_no_offset_in_single_precision(float32):
    values = 101325.0 + 0.01 * np.random.default_rng(2).normal(size=(100, 3))
    scaler = Scaler.fit(values)
    scaled = scaler.scale(values)
    assert scaled.dtype == jnp.float32 and scaler.mean.dtype == np.float64
    # in float32 the data would be 0.008 apart; 1e-7 of the spread is what the scaled values keep
    np.testing.assert_allclose(scaler.unscale(scaled), values, rtol=0, atol=1e-8)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree) if eqx.is_array_like(x)]


def same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture(params=["model", "dated"])
def either(request):
    return request.getfixturevalue(request.param)


def test_save_and_load_bit_for_bit(either, tmp_path):
    path = either.save(tmp_path / "model.eqx")
    assert path == tmp_path / "model.eqx" and os.listdir(tmp_path) == ["model.eqx"]
    again = load(path)
    same_bits(again, either)
    assert again.clock == either.clock and again.names == either.names and again.units == either.units
    assert again.record == either.record and type(again.cell) is type(either.cell)
    xr.testing.assert_identical(again.simulate(5), either.simulate(5))
    # saving again gives the same file
    assert again.save(tmp_path / "again.eqx").read_bytes() == path.read_bytes()


def test_a_shallow_cell_with_inputs_and_odd_numbers(tmp_path):
    cell = ClippedShallowPLRNN(2, 3, input_size=1, key=KEY)
    odd = jnp.array([np.nan, -0.0])
    cell = eqx.tree_at(lambda c: c.h1, cell, odd)
    same_bits(read_module(write_module(tmp_path / "m", cell), ClippedShallowPLRNN), cell)


def test_single_precision_stays(tmp_path, float32):
    cell = ALRNN(3, 1, key=KEY)
    again = read_module(write_module(tmp_path / "m", cell), ALRNN)
    assert again.A.dtype == jnp.float32
    same_bits(again, cell)


@pytest.fixture
def file(model, tmp_path):
    return model.save(tmp_path / "model.eqx")


def test_the_file_is_json_then_arrays_and_no_pickle(file):
    content = file.read_bytes()
    line, _, body = content.partition(b"\n")
    header = json.loads(line)
    assert header["format"] == FORMAT and header["version"] == VERSION
    assert set(header["written_by"]) == {"dsrecon", "jax", "equinox", "numpy"}
    assert body.startswith(b"\x93NUMPY") and header["bytes"] == len(body)
    assert header["tree"]["module"] == "dsrecon.reconstruction:Reconstruction"
    with pytest.raises(Exception):  # noqa: B017 - whatever pickle makes of it
        pickle.loads(body)
    assert b"pickle" not in content and b"numpy.core" not in content


def test_a_truncated_file_is_refused_wherever_it_ends(file, tmp_path):
    content = file.read_bytes()
    end = content.index(b"\n")
    cut = tmp_path / "cut.eqx"
    places = {0, 1, 5, 20, 60, end - 1, end, end + 1, end + 64, len(content) - 8, len(content) - 1}
    for n in sorted(places | set(range(0, len(content), 97))):
        cut.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"cut\.eqx is (truncated|cut short|not a dsrecon model file)"):
            load(cut)
    cut.write_bytes(content[: end + 50])
    with pytest.raises(ValueError, match=rf"is truncated: 49 bytes of arrays where {len(content) - end - 1} were"):
        load(cut)
    cut.write_bytes(content[: end // 2])
    with pytest.raises(ValueError, match=r"cut short inside its header"):
        load(cut)
    cut.write_bytes(content + b"x")
    with pytest.raises(ValueError, match=r"bytes of arrays where"):
        load(cut)


def test_a_flipped_byte_among_the_arrays_is_found(file):
    content = bytearray(file.read_bytes())
    start = content.index(b"\n") + 1
    for i in range(start, len(content), 61):
        damaged = bytearray(content)
        damaged[i] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged: its content does not have the checksum"):
            load(file)


def test_a_flipped_byte_in_the_header_is_found_or_harmless(file, model):
    content = bytearray(file.read_bytes())
    for i in range(0, content.index(b"\n"), 3):
        damaged = bytearray(content)
        damaged[i] ^= 0x01
        file.write_bytes(damaged)
        try:
            again = load(file)
        except ValueError as error:
            assert "model.eqx" in str(error)
        else:
            same_bits(again, model)
            assert (again.names, again.units, again.record) == (model.names, model.units, model.record)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1,2\n",
        b"\x93NUMPY\x01\x00v\x00{}",
        b"\x89HDF\r\n\x1a\n\x00",
        b"{}\n",
        b"[1]\n",
        b'"x"\n',
        b"\n",
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match=r"other is not a dsrecon model file \(it begins with b.*\)\.$"):
        load(tmp_path / "other")


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.eqx"):
        load(tmp_path / "nowhere.eqx")


def with_header(file, change):
    line, _, body = file.read_bytes().partition(b"\n")
    header = json.loads(line)
    change(header)
    header["sha256"] = hashlib.sha256(json.dumps(header["tree"]).encode() + body).hexdigest()  # a forger would
    file.write_bytes(json.dumps(header).encode() + b"\n" + body)


def test_a_file_of_the_future_is_refused(file):
    with_header(file, lambda h: h.update(version=VERSION + 1, written_by={"dsrecon": "99.1"}))
    with pytest.raises(ValueError, match=rf"version {VERSION + 1} .* dsrecon 99\.1: .* up to {VERSION}\. Upgrade"):
        load(file)


def test_a_double_precision_file_in_a_single_precision_session(file, float32):
    with pytest.raises(ValueError, match=r"float64 arrays: enable them with jax\.config\.update\('jax_enable_x64'"):
        load(file)


def test_a_class_that_is_not_imported_is_named(dated, tmp_path, monkeypatch):
    path = dated.save(tmp_path / "spiral.eqx")
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(ValueError, match=rf"needs the class Spiral of {__name__}: import that module first"):
        load(path)
    assert __name__ not in sys.modules


def test_a_name_that_is_no_module_of_ours_is_never_called(file):
    for name in (
        "os:system",
        "builtins:exec",
        "nosuch.module:Cell",
        "dsrecon.reconstruction:load",
        "os:",
        ":",
    ):
        with_header(file, lambda h, name=name: h["tree"].update(module=name))
        with pytest.raises(ValueError, match="needs the class"):
            load(file)


def test_a_class_with_other_fields_is_refused(file):
    def rename(header):
        fields = header["tree"]["fields"]["scaler"]["fields"]
        fields["median"] = fields.pop("mean")

    with_header(file, rename)
    with pytest.raises(ValueError):
        load(file)


def test_a_module_of_another_kind_is_refused(model, tmp_path):
    write_module(tmp_path / "cell.eqx", model.cell)
    with pytest.raises(ValueError, match=r"holds a ALRNN: wanted a Reconstruction\.$"):
        load(tmp_path / "cell.eqx")
    model.save(tmp_path / "model.eqx")
    with pytest.raises(ValueError, match=r"holds a Reconstruction: wanted a Predictor\. dsrecon\.load reads it"):
        load_predictor(tmp_path / "model.eqx")
    predictor = RidgeEstimator(penalty=1.0).fit(np.sin(np.arange(60.0)), horizon=3, validation=0.0)
    predictor.save(tmp_path / "forecaster.model")
    with pytest.raises(ValueError, match=r"wanted a Reconstruction\. dsrecon\.forecast\.load_predictor reads it"):
        load(tmp_path / "forecaster.model")


def test_a_file_of_another_kind_is_told_its_reader(model, tmp_path):
    write_tree(tmp_path / "fit.checkpoint", {"at": 3}, "dsrecon-checkpoint")
    export_arrays(model, tmp_path / "arrays")
    for name, message in (
        ("fit.checkpoint", r"It is the checkpoint of a fit: the same call with checkpoint= goes on from it"),
        ("arrays.json", r"It is the description of an export: dsrecon\.read_arrays reads it"),
        ("arrays.npz", r"It is a zip archive, as exports are: dsrecon\.read_arrays or"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is not a dsrecon model file.*{message}"):
            load(tmp_path / name)


def test_of_a_folder_the_file_to_read_is_named(model, tmp_path):
    (tmp_path / "report.md").write_text("dsrecon")
    with pytest.raises(ValueError, match=r"is a folder, and no dsrecon model file is in it"):
        load(tmp_path)
    model.save(tmp_path / "model.eqx")
    with pytest.raises(ValueError, match=r"is a folder: read the dsrecon model file in it, '.*model\.eqx'"):
        load(tmp_path)


def test_settings_are_a_dict_that_is_shown_as_a_line_a_setting(model):
    record = {"settings": {"steps": {"value": 2000, "reason": "given"}, "runs": {"value": 8, "reason": "default"}}}
    settings = dataclasses.replace(model, record=json.dumps(record)).settings
    assert settings == record["settings"] and json.loads(json.dumps(settings)) == settings
    assert str(settings) == repr(settings) == "steps = 2000 (given)\nruns = 8 (default)"


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"MapCell\.map cannot be written to a model file: it is a function"):
        write_module(tmp_path / "m.eqx", MapCell(lambda z: z, 2))
    assert not list(tmp_path.iterdir())


def test_a_class_that_no_reader_could_find_is_refused(tmp_path):
    class Hidden(eqx.Module):
        a: float = 1.0

    with pytest.raises(ValueError, match="Hidden"):
        write_module(tmp_path / "m.eqx", Hidden())


def test_an_interrupted_write_leaves_the_old_file(model, file, monkeypatch):
    before = file.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save(file)
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_a_folder_that_is_none_is_named(model, tmp_path):
    with pytest.raises(OSError, match=r"cannot write: .*missing is no folder"):
        model.save(tmp_path / "missing" / "model.eqx")
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write: .*plain is no folder"):
        model.save(tmp_path / "plain" / "model.eqx")
    with pytest.raises(OSError, match=r"cannot write: it is a folder"):
        model.save(tmp_path)
    assert os.listdir(tmp_path) == ["plain"]


def test_a_folder_that_is_not_writable_is_named(model, tmp_path, monkeypatch):
    # permissions bind everybody but root, and the tests may run as root: the answer of the system is played
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OSError, match="is not writable"):
        model.save(tmp_path / "model.eqx")
    assert not list(tmp_path.iterdir())
