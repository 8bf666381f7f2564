"""Figures of fixed points, basins and manifolds: what is drawn where, and what is said of it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from dsrecon.analysis import cycles, fixed_points
from dsrecon.analysis.basins import basins
from dsrecon.analysis.homoclinic import homoclinic_points
from dsrecon.analysis.manifolds import stable_manifold, unstable_manifold
from dsrecon.models import ALRNN
from dsrecon.plot import save, structure
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, labelled
from dsrecon.systems import Lozi

BOX = (np.full(2, -3.0), np.full(2, 3.0))
EXTENT = (-4.0, 4.0, -3.0, 5.0)


def alrnn(A, W, h, units):
    cell = ALRNN(len(A), units, key=jax.random.key(0))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, tuple(jnp.asarray(x, float) for x in (A, W, h)))


def rivals():
    return alrnn([0.5, 0.5], [[0.0, -0.8], [-0.8, 0.0]], [1.0, 1.0], 2)


@functools.cache
def lozi():
    found = cycles(Lozi(), 4)
    saddle = next(c for c in found if c.period == 1 and c.points[0, 0] > 0)
    u, w = unstable_manifold(Lozi(), saddle, steps=7), stable_manifold(Lozi(), saddle, steps=3, box=BOX)
    return found, u, w


def orbit(steps=400):
    z, out = np.array([0.1, 0.1]), []
    for _ in range(steps):
        z = np.array([1 - 1.7 * abs(z[0]) + z[1], 0.5 * z[0]])
        out.append(z)
    return np.array(out[50:])


def model(variables, values, cell=None):
    names = ("u", "v", "w")[:variables]
    units = ("mV", "", "nA")[:variables]
    clock = Clock(0.1, 0.0, "ms")
    cell = rivals() if cell is None else cell
    readout = IdentityReadout(variables, cell.state_size, key=jax.random.key(1))
    data = labelled(values, names, clock, units=units)
    return Reconstruction(cell, readout, Scaler.fit(values), values[0], clock, names, units), data


def texts(figure):
    figure.draw_without_rendering()
    return " | ".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def handle(panel, name):
    (line,) = (x for x in panel.lines if x.get_label() == name)
    return np.stack(line.get_data(), 1)


def test_fixed_points_are_drawn_by_kind_and_named(tmp_path):
    found, _, _ = lozi()
    figure = structure.fixed_points(found, orbit())
    said = texts(figure)
    for name in (
        "saddle, 1 unstable (2)",
        "cycle of 2: saddle, 1 unstable",
        "cycle of 4: saddle, 1 unstable",
        "unit 0",
    ):
        assert name in said
    (panel,) = figure.axes
    np.testing.assert_array_equal(handle(panel, "cycle of 2: saddle, 1 unstable"), found.of_period(2)[0].points)
    assert save(figure, tmp_path / "a.png").stat().st_size > 5000


@pytest.mark.parametrize("variables", [1, 2])
def test_fixed_points_of_a_model_are_in_the_units_of_the_data(variables):
    values = np.random.default_rng(0).normal(size=(300, 2)) * [30.0, 2.0] + [100.0, 5.0]
    fitted, data = model(variables, values[:, :variables])
    found = fixed_points(fitted.cell)
    figure = structure.fixed_points(found, data, model=fitted)
    said = texts(figure)
    (panel,) = figure.axes
    saddle = next(c for c in found if c.kind == "saddle")
    at = fitted.scaler.unscale(jnp.asarray(saddle.points[:, :variables]))[0]
    assert "u (mV)" in said or "u(t) (mV)" in said
    np.testing.assert_allclose(
        handle(panel, "saddle, 1 unstable")[0], at if variables == 2 else [at[0]] * 2, rtol=1e-12
    )


def test_three_variables_are_drawn_in_space_and_far_points_counted():
    values = np.random.default_rng(0).normal(size=(300, 3))
    fitted, data = model(3, values, alrnn([0.5, 0.5, 0.1], np.diag([0.1, 0.7, 0.0]), [1.0, -1.0, 20.0], 2))
    found = fixed_points(fitted.cell)
    figure = structure.fixed_points(found, data, model=fitted)
    assert figure.axes[0].name == "3d"
    outside = len([c for c in found if np.abs(c.points).max() > 8])
    assert outside and f"{outside} of {len(found)} lie outside the frame" in texts(figure)


def test_basins_show_what_ends_where():
    found = basins(rivals(), fixed_points(rivals()), extent=EXTENT, shape=(40, 41))
    figure = structure.basins(found)
    said = texts(figure)
    (panel,) = figure.axes
    assert said.count("stable node (") == 2 and "unit 1" in said and "diverged" not in said
    (image,) = panel.images
    colour = image.to_rgba(image.get_array())[..., :3]
    same = found["label"].values == found["label"].sel(across=4.0, up=-3.0).item()
    assert (colour[same] == colour[0, -1]).all() and not (colour[~same] == colour[0, -1]).all(1).any()
    # one call more draws the border over them, in the same frame
    saddle = next(c for c in fixed_points(rivals()) if c.kind == "saddle")
    limits = panel.get_xlim()
    assert structure.manifolds(None, stable_manifold(rivals(), saddle), ax=panel) is figure
    assert panel.get_xlim() == limits and "stable manifold (in part)" in texts(figure)


def test_basins_on_a_plane_and_with_divergence():
    found = basins(Lozi(), cycles(Lozi(), 1), extent=(-2, 2, -2, 2), plane=(np.zeros(2), *np.eye(2)), shape=(20, 20))
    said = texts(structure.basins(found))
    assert "diverged (" in said and "bounded elsewhere (" in said and "across" in said


def test_manifolds_and_their_crossings(tmp_path):
    _, u, w = lozi()
    x = homoclinic_points(u, w)
    figure = structure.manifolds(u, w, x)
    said = texts(figure)
    for name in (
        f"homoclinic points ({len(x)})",
        "unstable manifold",
        "stable manifold (in part)",
        "saddle, 1 unstable",
    ):
        assert name in said
    (panel,) = figure.axes
    np.testing.assert_array_equal(handle(panel, f"homoclinic points ({len(x)})"), x.points)
    drawn = [c for c in panel.collections if isinstance(c, LineCollection)]
    count = sum(len(path.vertices) - 1 for c in drawn for path in c.get_paths())
    assert count == len(u) + len(w)
    assert isinstance(figure, Figure) and save(figure, tmp_path / "m.png").stat().st_size > 5000


def test_manifolds_of_a_model_are_in_the_units_of_the_data():
    values = np.random.default_rng(0).normal(size=(300, 2)) * [30.0, 2.0] + [100.0, 5.0]
    fitted, _ = model(2, values)
    saddle = next(c for c in fixed_points(fitted.cell) if c.kind == "saddle")
    u = unstable_manifold(fitted.cell, saddle, steps=12)
    figure = structure.manifolds(u, None, model=fitted)
    (panel,) = figure.axes
    (drawn,) = panel.collections
    wanted = fitted.scaler.unscale(jnp.asarray(u.lines()[0]))
    np.testing.assert_allclose(drawn.get_paths()[0].vertices, wanted, rtol=1e-12)
    assert "u (mV)" in texts(figure)


def test_surfaces_are_drawn_in_space():
    cell = alrnn(np.zeros(3), np.diag([1.5, 1.2, 0.5]), np.zeros(3), 0)
    (cycle,) = fixed_points(cell)
    box = (np.full(3, -2.0), np.full(3, 2.0))
    both = (make(cell, cycle, steps=3, box=box) for make in (unstable_manifold, stable_manifold))
    figure = structure.manifolds(*both)
    assert any(isinstance(c, Poly3DCollection) for c in figure.axes[0].collections)
    assert "saddle, 2 unstable" in texts(figure)


def test_what_cannot_be_drawn_is_refused():
    found, _, w = lozi()
    values = np.random.default_rng(0).normal(size=(300, 1))
    fitted, _ = model(1, values)
    cases = [
        ("both unstable and stable are None", structure.manifolds, (None, None), {}),
        ("at least 2 variables.*it has 1", structure.manifolds, (None, w), {"model": fitted}),
        ("finite states.*got shape .3.", structure.fixed_points, (found, np.zeros(3)), {}),
        ("DataArray.time, variable. of .*u", structure.fixed_points, (found, values), {"model": fitted}),
        ("analysis.basins gave", structure.basins, (xr.Dataset({"a": 1}),), {}),
        ("projection", structure.manifolds, (None, w), {"ax": Figure().add_subplot(projection="3d")}),
    ]
    for match, call, args, more in cases:
        with pytest.raises(ValueError, match=match):
            call(*args, **more)
