"""Basins against a border that is known, and against long runs of plain NumPy."""

import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.analysis import cycles, fixed_points
from dsrecon.analysis.basins import attractors, basins
from dsrecon.analysis.capture import SHARE, capture
from dsrecon.analysis.manifolds import stable_manifold
from dsrecon.models import ALRNN, GRU
from dsrecon.pwl import pieces
from dsrecon.systems import Lozi


def alrnn(A, W, h, units, C=None):
    cell = ALRNN(len(A), units, input_size=1 if C is not None else 0, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, tuple(jnp.asarray(x, float) for x in (A, W, h)))
    return cell if C is None else eqx.tree_at(lambda c: c.C, cell, jnp.asarray(C, float))


def rivals():
    """Two units that inhibit each other alike: two nodes, (2, -1.2) and (-1.2, 2), and a saddle on the diagonal."""
    return alrnn([0.5, 0.5], [[0.0, -0.8], [-0.8, 0.0]], [1.0, 1.0], 2)


def uneven():
    """Rivals that are not alike: the border has corners."""
    return alrnn([0.5, 0.3], [[0.1, -0.9], [-1.2, 0.2]], [1.0, 0.9], 2)


def run(cell, z, steps):
    """In plain NumPy."""
    A, W, h = (np.asarray(x, float) for x in (cell.A, cell.W, cell.h))
    gate = np.asarray(cell.rectified)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            z = A * z + np.where(gate & (z <= 0), 0.0, z) @ W.T + h
    return z


def grid(found):
    up, across = np.meshgrid(found["up"], found["across"], indexing="ij")
    return np.stack([across.ravel(), up.ravel()], 1), found["label"].values.ravel(), found["step"].values.ravel()


EXTENT = (-4.0, 4.0, -3.0, 5.0)


def test_the_border_of_basins_is_the_stable_manifold_of_the_saddle():
    cell = rivals()
    found = fixed_points(cell)
    map_ = basins(cell, found, extent=EXTENT, shape=(81, 91))
    z, label, _ = grid(map_)
    ahead = z[:, 0] - z[:, 1]
    end = np.array([c.points[0] for c in found])[label]
    off = np.abs(ahead) > 1e-9
    np.testing.assert_allclose(end[off], np.where(ahead[off, None] > 0, [2.0, -1.2], [-1.2, 2.0]), atol=1e-12)
    same = ahead == 0
    assert (label[same] == -1).all() and same.sum() > 3  # on the border itself orbits tend to the saddle
    assert map_["share"].sum() == 1 and map_["count"].sum() == len(z)
    assert list(map_["name"].values) == ["stable node", "stable node", "bounded elsewhere", "diverged"]


def test_every_label_is_that_of_a_long_run():
    cell = uneven()
    found = fixed_points(cell)
    assert sorted(c.kind for c in found) == ["saddle", "stable node", "stable node"]
    map_ = basins(cell, found, extent=EXTENT, shape=(60, 70))
    z, label, _ = grid(map_)
    assert (label >= 0).all() and len(np.unique(label)) == 2
    points = np.array([c.points[0] for c in found])
    assert np.abs(run(cell, z, 3000) - points[label]).max() < 1e-10
    # the border runs between points of different labels: along the stable manifold of the saddle
    saddle = next(c for c in found if c.kind == "saddle")
    w = stable_manifold(cell, saddle, steps=12, box=(np.full(2, -6.0), np.full(2, 6.0)))
    p, q = w.vertices[:, 0], w.vertices[:, 1] - w.vertices[:, 0]
    at = z.reshape(60, 70, 2)
    for axis in (0, 1):
        a = (at[:-1] if axis == 0 else at[:, :-1]).reshape(-1, 2)
        r = np.diff(at, axis=axis).reshape(-1, 2)
        differs = np.diff(map_["label"].values, axis=axis).ravel() != 0
        det = r[:, None, 0] * -q[:, 1] + r[:, None, 1] * q[:, 0]
        gap = p - a[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = (gap[..., 0] * -q[:, 1] + gap[..., 1] * q[:, 0]) / det
            y = (r[:, None, 0] * gap[..., 1] - r[:, None, 1] * gap[..., 0]) / det
        crossed = ((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)).sum(1) % 2
        assert differs.sum() > 30
        np.testing.assert_array_equal(differs, crossed == 1)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_labels_of_drawn_cells_are_those_of_long_runs(seed):
    rng = np.random.default_rng(seed)
    m = 3
    cell = alrnn(rng.uniform(-0.5, 0.9, m), 0.7 * rng.normal(size=(m, m)), rng.normal(size=m), 2)
    found = cycles(cell, 4)
    plane = rng.normal(size=(3, m))
    map_ = basins(cell, found, plane=plane, extent=(-3.0, 2.0, -1.0, 4.0), shape=(20, 30), steps=3000)
    z, label, _ = grid(map_)
    z = plane[0] + z @ plane[1:]
    ended = run(cell, z, 5040)  # a multiple of every period
    for i, cycle in enumerate(found):
        mine = ended[label == i]
        if len(mine):
            assert np.linalg.norm(mine[:, None] - cycle.points, axis=2).min(1).max() < 1e-8
    assert not (np.abs(ended[label != -2]) > 1e6).any()
    assert (~(np.abs(ended[label == -2]) < 1e6).all(1)).all()
    rest = ended[label == -1]
    for cycle in found:
        if cycle.stability.unstable + cycle.stability.centre == 0 and len(rest):
            assert np.linalg.norm(rest[:, None] - cycle.points, axis=2).min() > 1e-6


def test_one_attractor_of_chaos_and_infinity():
    found = cycles(Lozi(), 2)
    map_ = basins(Lozi(), found, extent=(-2.0, 2.0, -2.0, 2.0), shape=(41, 41), steps=400)
    assert set(np.unique(map_["label"])) == {-1, -2}
    assert (map_["step"].values[map_["label"].values == -1] == 400).all()
    assert map_["label"].sel(across=0.0, up=0.0) == -1 and map_["label"].sel(across=2.0, up=-2.0) == -2
    assert list(map_["attractor"].values) == [-1, -2] and map_["point"].shape == (0, 2)


def test_single_precision_tells_the_same(float32):
    cell = rivals()
    assert cell.W.dtype == jnp.float32
    found = fixed_points(cell)
    map_ = basins(cell, found, extent=EXTENT, shape=(81, 91))
    z, label, _ = grid(map_)
    ahead = z[:, 0] - z[:, 1]
    end = np.array([c.points[0] for c in found])[label]
    off = np.abs(ahead) > 1e-4  # nearer to the border rounding may decide
    assert np.abs(end[off] - np.where(ahead[off, None] > 0, [2.0, -1.2], [-1.2, 2.0])).max() < 1e-5


def test_an_input_that_is_held_moves_the_border():
    cell = alrnn([0.5, 0.5], [[0.0, -0.8], [-0.8, 0.0]], [1.0, 0.0], 2, C=[[0.0], [0.5]])
    s = jnp.asarray([2.0])
    map_ = basins(cell, fixed_points(cell, s), extent=EXTENT, shape=(30, 30), s=s)
    _, label, _ = grid(map_)
    np.testing.assert_array_equal(
        label, grid(basins(rivals(), fixed_points(rivals()), extent=EXTENT, shape=(30, 30)))[1]
    )
    with pytest.raises(ValueError, match=r"cycles\[0\]: cycle must be one of this cell: a step from it misses"):
        basins(cell, fixed_points(cell, s), extent=EXTENT, s=jnp.asarray([0.0]))


def test_chunks_do_not_show(monkeypatch):
    whole = basins(uneven(), fixed_points(uneven()), extent=EXTENT, shape=(20, 21))
    monkeypatch.setattr(sys.modules["dsrecon.analysis.basins"], "CHUNK", 100)
    parts = basins(uneven(), fixed_points(uneven()), extent=EXTENT, shape=(20, 21))
    assert whole.equals(parts)


# The neighbourhoods.


@functools.cache
def focus():
    """A stable cycle of two: of a Lozi map."""
    cell = Lozi(a=0.6)
    found = cycles(cell, 2)
    return cell, found, capture(pieces(cell), found)


def test_a_neighbourhood_is_mapped_into_itself_along_its_regions():
    cell, found, trap = focus()
    held, (two,) = pieces(cell), found.of_period(2)
    assert list(trap.owner) == [next(i for i, c in enumerate(found) if c is two)] * 2
    turn = np.linspace(0, 2 * np.pi, 400)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    margins = np.abs(two.points[:, 0])
    for i in (0, 1):
        reach = []
        z = trap.centres[i] + np.linalg.solve(trap.roots[i], ring.T).T
        after = z
        for t in range(2):
            reach.append(held.margin(after, two.word[[(i + t) % 2] * 400]).min() / margins[(i + t) % 2])
            after = held.step(after)
        assert np.linalg.norm(trap.roots[i] @ (after - trap.centres[i]).T, axis=0).max() < 1
        # the largest: of the way to one border all but the share that is left to rounding
        np.testing.assert_allclose(min(reach), 1 - SHARE, rtol=0.02)  # a ring of 400 states misses the nearest


def test_all_states_of_a_stable_linear_map_are_captured_at_once():
    cell = alrnn([0.5, 0.2], np.zeros((2, 2)), [1.0, 1.0], 0)
    map_ = basins(cell, fixed_points(cell), extent=EXTENT, shape=(4, 5))
    assert (map_["label"] == 0).all() and (map_["step"] == 0).all()


def test_a_state_in_a_neighbourhood_ends_at_its_cycle():
    cell, found, trap = focus()
    start = np.concatenate([trap.centres, trap.centres + np.linalg.inv(trap.roots)[:, :, 0] * 0.999])
    out = attractors(cell, found, start, steps=5)
    assert (out["label"] == trap.owner[0]).all() and (out["step"] == 0).all()
    np.testing.assert_array_equal(out["end"], start)
    assert str(out["name"].values[0]).startswith("cycle of 2: stable")
    outside = trap.centres + np.linalg.inv(trap.roots)[:, :, 0] * 1.01
    assert (attractors(cell, found, outside, steps=5)["step"] > 0).all()


def test_starts_are_counted_by_where_they_end():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(50, 2)) * 2
    found = fixed_points(rivals())
    out = attractors(rivals(), found, start)
    first = [i for i, c in enumerate(found) if c.points[0, 0] > 1.9]
    assert out["count"].sel(attractor=first[0]) == (start[:, 0] > start[:, 1]).sum()
    assert out["count"].sum() == 50 and out["end"].shape == (50, 2)


# What is refused.


def test_what_has_no_basins_is_refused():
    cell, found = rivals(), fixed_points(rivals())

    def refused(match, *args, **more):
        with pytest.raises(ValueError, match=match):
            basins(*args, **{"extent": EXTENT} | more)

    refused("piecewise linear", GRU(2, key=jax.random.key(0)), found)
    refused("cycles must be a Found", cell, 3)
    refused("cycles must be a Found", cell, [np.zeros(2)])
    refused("extent must be four finite", cell, found, extent=(-1, 1, -1, np.inf))
    refused("left below right", cell, found, extent=(1, -1, -1, 1))
    refused("across is", cell, found, plane=(np.zeros(2), np.ones(3), np.ones(2)))
    refused("parallel", cell, found, plane=(np.zeros(2), np.ones(2), -np.ones(2)))
    refused("shape must be.*got .1, 5.", cell, found, shape=(1, 5))
    refused("steps must be.*got 0", cell, found, steps=0)
    refused("escape must be.*above all starts.*got 2.0", cell, found, escape=2.0)
    three = alrnn([0.5] * 3, np.zeros((3, 3)), np.ones(3), 1)
    refused("plane must be given.*3 units", three, fixed_points(three))
    with pytest.raises(ValueError, match="starts must be finite.*got shape .5."):
        attractors(cell, found, np.zeros(5))
    border = alrnn([0.5, 0.5], np.zeros((2, 2)), [1.0, 0.0], 1)
    refused(r"cycles\[0\]: cycle must lie inside its regions: .* on a border", border, fixed_points(border))
