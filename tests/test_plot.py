"""Figures: that each draws without a warning, and says what it shows."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text

from dsrecon import plot, symbolic
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, labelled

STEPS = 800
CLOCK = Clock(0.05, 0.0, "ms")
RECORDS = [
    {"measure": "d_stsp", "value": 0.61, "floor": 0.55, "ceiling": 4.1, "definition": "min-max", "length": 10_000},
    {
        "measure": "lyapunov_max",
        "value": 0.9,
        "floor": None,
        "ceiling": None,
        "definition": "per unit time",
        "length": 500,
    },
    {
        "measure": "pe_20",
        "value": float("nan"),
        "floor": 12345.6,
        "ceiling": float("nan"),
        "definition": "20 steps",
        "length": None,
    },
]
RUNS = xr.Dataset(
    {
        "d_stsp": ("run", [0.6, np.nan, 1.2]),
        "d_h": ("run", [0.03, np.nan, 0.2]),
        "loss": ("run", [0.1, np.nan, 0.3]),
        "failure": ("run", ["", "loss became NaN at update 512", ""]),
    }
)


def torus(variables, steps=STEPS, phase=0.0):
    """Sums of two incommensurate oscillations: something to draw."""
    t = 0.05 * np.arange(steps)[:, None] + phase
    k = np.arange(variables)
    return np.sin(t + 1.3 * k) * (2 + k) + 0.7 * np.cos(1.618 * t + 0.4 * k)


@functools.cache
def case(variables, pwl_units=3, clock=CLOCK):
    names = tuple(f"u{i}" for i in range(variables))
    units = tuple("mV" if i == 0 else "" for i in range(variables))
    true, generated = (labelled(torus(variables, phase=phase), names, clock, units=units) for phase in (0.0, 9.0))
    cell = ALRNN(8, pwl_units, key=jax.random.key(3))
    readout = IdentityReadout(variables, 8, key=jax.random.key(1))
    scaler, record = Scaler.fit(true.values), json.dumps({"runs": RUNS.to_dict()})
    model = Reconstruction(cell, readout, scaler, true.values[0], clock, names, units, record)
    return model, true, generated, symbolic.encode(model, true)


def texts(figure, draw=True):
    if draw:
        figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


@pytest.mark.parametrize("variables", [1, 2, 3, 5])
def test_every_figure_draws_with_its_labels_and_units(variables, tmp_path):
    model, true, generated, encoded = case(variables)
    page = plot.summary(model, true, generated, encoded, RECORDS)
    path = plot.save(page, tmp_path / "summary.png", dpi=40)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (page.get_size_inches() * 100).tolist() == [1600, 1000]
    said = texts(page, draw=False)
    delay = "u0(t) (mV)" if variables == 1 else "u0 (mV)"
    for text in ("true", "generated", delay, "time since start (ms)", "frequency (1/ms)", "ALRNN for u0"):
        assert text in said
    for text in ("d_stsp", "0.61", "0.55", "10 000", "min-max", "12346", "–", "mean dwell time", " ms"):
        assert text in said
    assert [p.name for p in tmp_path.iterdir()] == ["summary.png"]


def test_three_variables_are_drawn_in_space_and_two_in_the_plane():
    for variables, name in ((1, "rectilinear"), (2, "rectilinear"), (3, "3d"), (5, "3d")):
        _, true, generated, _ = case(variables)
        figure = plot.attractor(true, generated)
        assert [panel.name for panel in figure.axes] == [name, name]
    assert "u2" in texts(figure) and "u3" not in texts(figure)


def test_figures_draw_into_given_axes():
    model, true, generated, encoded = case(2)
    figure = Figure()
    a, b, c, d, e, f, g = figure.subplots(7, 1)
    drawn = (
        plot.attractor(true, generated, ax=a),
        plot.spectra(true, generated, ax=b),
        plot.symbols(encoded, ax=c),
        plot.transition_graph(encoded, ax=d),
        plot.runs(model, ax=e),
        plot.series(true, generated, ax=[f, g]),
    )
    assert all(each is figure for each in drawn)
    assert a.get_xlabel() == "u0 (mV)" and b.get_xlabel() == "frequency (1/ms)" and g.lines


def test_flat_axes_for_a_picture_in_space_are_refused():
    _, true, generated, _ = case(3)
    with pytest.raises(ValueError, match=r"projection='3d'.*got 'rectilinear'"):
        plot.attractor(true, generated, ax=Figure().subplots())


def test_more_regions_than_colours_are_said():
    values = torus(3)
    clock = Clock(0.05)
    cell = ClippedShallowPLRNN(3, 40, key=jax.random.key(0))
    readout = IdentityReadout(3, 3, key=jax.random.key(1))
    names, units = ("x", "y", "z"), ("", "", "")
    model = Reconstruction(cell, readout, Scaler.fit(values), values[0], clock, names, units)
    encoded = symbolic.encode(model, values)
    rest = encoded.sizes["region"] - 8
    share = encoded["visits"].values[8:].sum() / STEPS
    assert rest > 50
    figure = plot.symbols(encoded)
    assert f"other ({rest} regions, {100 * share:.0f} %)" in texts(figure, draw=False)
    assert len({line.get_color() for line in figure.axes[0].lines}) == 9
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == STEPS
    graph = plot.transition_graph(encoded, most=3)
    assert f"{encoded.sizes['region'] - 3} rarer regions\nnot drawn" in texts(graph)
    assert len(plot.transition_graph(encoded, most=12).axes[0].texts) == 12
    with pytest.raises(ValueError, match="most must be at least 1: got 0"):
        plot.transition_graph(encoded, most=0)


def test_one_region_and_dwell_times_never_seen_whole():
    _, _, _, encoded = case(2, pwl_units=0)
    assert "0: not seen whole" in texts(plot.transition_graph(encoded))
    assert "0 (100 %)" in texts(plot.symbols(encoded))


def test_nodes_do_not_cover_each_other():
    _, _, _, encoded = case(1, pwl_units=5)
    figure = plot.transition_graph(encoded)
    panel = figure.axes[0]
    places = np.array([text.get_position() for text in panel.texts if text.get_gid() == "region"])
    span = np.array([np.ptp(panel.get_xlim()), np.ptp(panel.get_ylim())])
    apart = np.linalg.norm((places[:, None] - places) / span * [260, 190], axis=2)
    assert (apart + 1e3 * np.eye(len(places)) > 12).all()


def test_what_leaves_the_frame_is_said_and_not_drawn():
    _, true, generated, _ = case(2)
    generated = generated.copy()
    generated[100:400] = 1e30
    generated[400:450] = np.nan
    figure = plot.attractor(true, generated)
    assert "generated, 44 % of it outside the frame" in texts(figure)
    assert np.nanmax(np.abs(figure.axes[1].lines[0].get_ydata())) < 10
    with pytest.raises(ValueError, match=r"finite to have a spectrum: u0 \(mV\) is not"):
        plot.spectra(true, generated)


def test_spectra_are_shares_and_peak_at_the_frequency():
    t = np.arange(8000)
    wave = labelled(np.sin(2 * np.pi * t * 0.05)[:, None], ("x",), Clock(0.1, 0.0, "s"), units=("V",))
    figure = plot.spectra(wave, wave)
    frequency, share = figure.axes[0].lines[0].get_data()
    assert frequency[np.argmax(share)] == pytest.approx(0.5, rel=0.01)
    assert share.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 4 steps: got 3"):
        plot.spectra(wave[:3], wave)


def test_other_variables_are_refused():
    _, true, generated, _ = case(2)
    with pytest.raises(ValueError, match=r"same variables: got \('u0', 'u1'\) and \('a', 'b'\)"):
        plot.attractor(true, generated.assign_coords(variable=["a", "b"]))


def test_failed_runs_are_marked_with_their_reason():
    model, *_ = case(2)
    said = texts(plot.runs(model))
    assert "failed: loss became NaN at update 512" in said and "D_stsp on the validation stretch" in said
    record = json.dumps({"runs": xr.Dataset().to_dict()})
    rest = (model.scaler, model.anchor, model.clock, model.names, model.units, record)
    bare = Reconstruction(model.cell, model.readout, *rest)
    with pytest.raises(ValueError, match="no table of runs"):
        plot.runs(bare)


def test_dates_are_shown_in_a_unit_that_fits():
    _, true, generated, encoded = case(2, clock=Clock(1800.0, "2020-01-01", "datetime"))
    assert "time since start (h)" in texts(plot.series(true, generated))
    assert "frequency (1/h)" in texts(plot.spectra(true, generated))
    dwell = float(symbolic.run_lengths(encoded)["mean"][0]) / 3600
    assert f"0: {dwell:.3g} h" in texts(plot.transition_graph(encoded))


def test_a_figure_shows_itself_and_is_saved_whole_or_not_at_all(tmp_path):
    _, true, generated, _ = case(2)
    figure = plot.series(true, generated)
    assert isinstance(figure, plot.Drawing)
    assert figure._repr_png_().startswith(b"\x89PNG")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/summary.png"):
        plot.save(figure, tmp_path / "file" / "summary.png")
    assert len(list(tmp_path.iterdir())) == 1


def test_drawing_needs_no_pyplot():
    sources = [path.read_text() for path in Path(plot.__file__).parent.glob("*.py")]
    assert len(sources) > 3 and not any("matplotlib.pyplot" in source for source in sources)
