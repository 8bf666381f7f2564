"""Manifolds against closed forms of the Lozi map and linear maps, and against the map itself."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.analysis import cycles, fixed_points
from dsrecon.analysis.cut import split
from dsrecon.analysis.germ import germ
from dsrecon.analysis.homoclinic import homoclinic_points
from dsrecon.analysis.manifolds import stable_manifold, unstable_manifold
from dsrecon.cell import AbstractPWLCell
from dsrecon.models import ALRNN, GRU
from dsrecon.pwl import Box, pieces, regions
from dsrecon.systems import Lozi

BOX = (np.array([-3.0, -3.0]), np.array([3.0, 3.0]))


class Over(AbstractPWLCell):
    """A map of two units that drives a third: `w' = c w + d x`."""

    base: Lozi
    c: float
    d: float

    @property
    def state_size(self):
        return 3

    def gates(self, s=None):
        G, g = self.base.gates(s)
        return jnp.pad(G, ((0, 0), (0, 1))), g

    def region(self, z, s=None):
        return self.base.region(z[:2], s)

    def affine(self, region, s=None):
        A, h = self.base.affine(region, s)
        A = jnp.pad(A, ((0, 1), (0, 1))).at[2, 0].set(self.d).at[2, 2].set(self.c)
        return A, jnp.pad(h, (0, 1))

    def __call__(self, z, s=None):
        A, h = self.affine(self.region(z, s), s)
        return A @ z + h


def alrnn(A, W, h, units):
    cell = ALRNN(len(A), units, key=jax.random.key(0))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, tuple(jnp.asarray(x, float) for x in (A, W, h)))


def linear(matrix):
    return alrnn(np.zeros(len(matrix)), matrix, np.zeros(len(matrix)), 0)


@functools.cache
def saddle(a=1.7, b=0.5):
    return next(c for c in fixed_points(Lozi(a=a, b=b)) if c.points[0, 0] > 0)


@functools.cache
def lozi(direction, steps, box=True):
    make = unstable_manifold if direction == "unstable" else stable_manifold
    return make(Lozi(), saddle(), steps=steps, box=BOX if box else None)


def along(manifold, share):
    """A point on every segment."""
    return manifold.vertices[:, 0] * (1 - share) + manifold.vertices[:, 1] * share


def off(z, segments):
    """Distance of every point to the nearest of the segments."""
    p = segments[:, 1] - segments[:, 0]
    size = np.maximum((p * p).sum(1), 1e-300)
    share = np.einsum("nkm,km->nk", z[:, None] - segments[:, 0], p) / size
    near = segments[:, 0] + np.clip(share, 0, 1)[..., None] * p
    return np.linalg.norm(z[:, None] - near, axis=2).min(1)


def area(polygons):
    spokes = polygons[:, 1:] - polygons[:, :1]
    a, b = spokes[:, :-1], spokes[:, 1:]
    gram = (a * a).sum(2) * (b * b).sum(2) - (a * b).sum(2) ** 2
    return np.sqrt(np.maximum(gram, 0)).sum(1) / 2


# Cutting.


@pytest.mark.parametrize("v", [2, 7])
def test_the_parts_of_a_piece_make_it_up(v):
    rng = np.random.default_rng(v)
    turn = 2 * np.pi * np.arange(v) / v
    flat = np.stack([np.cos(turn), np.sin(turn)], 1) @ rng.normal(size=(40, 2, 3)) + rng.normal(size=(40, 1, 3))
    normal = np.array([0.6, 0.0, -0.8])
    parts, parent, above = split(flat, normal, 0.1)
    value = parts @ normal + 0.1
    assert 45 < len(parts) < 80  # some are cut, some are not
    assert (np.where(above[:, None], value, -value) > -1e-11).all() and (np.abs(value).max(1) > 1e-11).all()
    size = (lambda x: np.linalg.norm(x[:, 1] - x[:, 0], axis=1)) if v == 2 else area
    np.testing.assert_allclose(np.bincount(parent, size(parts)), size(flat), rtol=1e-12)


def test_a_piece_in_the_border_itself_is_of_the_side_of_closed_gates():
    parts, _, above = split(np.array([[[0.0, 0.0], [0.0, 1.0]]]), np.array([1.0, 0.0]), 0.0)
    assert len(parts) == 1 and not above[0]


# Curves.


def test_the_unstable_manifold_of_lozi_has_its_known_corner():
    a, b = 1.7, 0.5
    u = lozi("unstable", 14)
    corner = u.vertices.reshape(-1, 2)[u.vertices[..., 0].argmax()]
    # Misiurewicz 1980: it first meets the x-axis at Z, the image of the point where it meets the y-axis
    Z = np.array([(2 + a + np.sqrt(a * a + 4 * b)) / (2 * (1 + a - b)), 0.0])
    np.testing.assert_allclose(corner, Z, atol=1e-14)
    np.testing.assert_allclose(saddle().points[0], [1 / (1 + a - b), b / (1 + a - b)], atol=1e-15)


def test_the_unstable_manifold_of_lozi_lies_in_the_trapping_triangle():
    u, found = lozi("unstable", 14), pieces(Lozi())
    Z = u.vertices.reshape(-1, 2)[u.vertices[..., 0].argmax()]
    corners = [Z]
    for _ in range(2):
        corners.append(found.step(corners[-1][None])[0])
    edges = np.roll(corners, -1, axis=0) - corners
    normal = np.stack([edges[:, 1], -edges[:, 0]], 1)
    centre = np.mean(corners, axis=0)
    normal *= np.sign(((centre - corners) * normal).sum(1))[:, None]
    inward = np.einsum("nvkm,km->nvk", u.vertices[:, :, None] - np.array(corners), normal)
    assert inward.min() > -1e-12
    assert u.complete and u.why == () and u.steps == 14


def test_an_unstable_manifold_is_mapped_into_its_continuation():
    small, large = lozi("unstable", 9), lozi("unstable", 10)
    found = pieces(Lozi())
    for share in (0.0, 0.21, 0.77):
        z = along(small, share)
        assert off(z, large.vertices).max() < 1e-12  # nested
        assert off(found.step(z), large.vertices).max() < 1e-12
    # one curve, in order: its length is what the parts' lengths are stretched to
    (curve,) = large.lines()
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(curve, axis=0), axis=1), np.linalg.norm(np.ptp(large.vertices, axis=1), axis=1)
    )


def test_a_stable_manifold_is_mapped_into_itself():
    found = pieces(Lozi())
    small, large = lozi("stable", 7), lozi("stable", 8)
    for share in (0.0, 0.4, 1.0):
        z = along(large, share)
        inside = np.abs(found.step(z)).max(1) < 3
        assert off(found.step(z)[inside], small.vertices).max() < 1e-12
        assert off(along(small, share), large.vertices).max() < 1e-12
    z = along(lozi("stable", 5), 0.3)
    near = np.full(len(z), np.inf)
    for _ in range(25):  # orbits tend to the saddle, before rounding is stretched again
        z = found.step(z)
        near = np.minimum(near, np.linalg.norm(z - saddle().points, axis=1))
    assert near.max() < 1e-8


def test_all_preimages_are_found_where_a_map_is_not_invertible():
    rng = np.random.default_rng(5)
    cell = alrnn([0.5, 0.5], [[0.1, -0.9], [-0.8, 0.0]], [1.0, 0.9], 2)
    (cycle,) = (c for c in fixed_points(cell) if c.kind == "saddle")
    box = (np.full(2, -6.0), np.full(2, 6.0))
    small, large = (stable_manifold(cell, cycle, steps=n, box=box) for n in (5, 6))
    found = pieces(cell)
    branches = 0
    A, h = found.affine(regions(found))
    z = np.concatenate([along(small, share) for share in rng.uniform(size=5)])
    for matrix, offset, bits in zip(A, h, regions(found), strict=True):
        before = np.linalg.solve(matrix, (z - offset).T).T
        before = before[(found.bits(before) == bits).all(1) & (np.abs(before) < 6).all(1)]
        branches += len(before)
        if len(before):
            assert off(before, large.vertices).max() < 1e-11
    assert branches > len(z) / 2
    assert len(large.skipped) == 0


def test_a_stable_manifold_is_a_known_line():
    # two units that inhibit each other alike: the diagonal is invariant, and the border between the two nodes' basins
    cell = alrnn([0.5, 0.5], [[0.0, -0.8], [-0.8, 0.0]], [1.0, 1.0], 2)
    (cycle,) = (c for c in fixed_points(cell) if c.kind == "saddle")
    w = stable_manifold(cell, cycle, steps=12, box=(np.full(2, -5.0), np.full(2, 4.0)))
    assert np.abs(w.vertices[..., 0] - w.vertices[..., 1]).max() < 1e-12
    np.testing.assert_allclose([w.vertices.min(), w.vertices.max()], [-5, 4], atol=1e-12)
    assert not w.complete and "beyond the box" in w.why[0]


def test_the_manifolds_of_a_cycle_pass_from_point_to_point():
    (two,) = cycles(Lozi(), 2).of_period(2)
    found = pieces(Lozi())
    small, large = (unstable_manifold(Lozi(), two, steps=n, box=BOX) for n in (7, 8))
    assert set(small.point) == {0, 1}
    for i in (0, 1):
        z = along(small, 0.3)[small.point == i]
        assert off(two.points[i][None], small.vertices[small.point == i])[0] < 1e-13
        assert off(found.step(z), large.vertices[large.point == 1 - i]).max() < 1e-12
    w = stable_manifold(Lozi(), two, steps=5, box=BOX)  # an odd number
    for i in (0, 1):
        z = along(w, 0.3)[w.point == i]
        for _ in range(24):
            z = found.step(z)
        assert np.linalg.norm(z - two.points[i], axis=1).max() < 1e-5


def test_a_limit_ends_with_the_last_full_step():
    u = unstable_manifold(Lozi(), saddle(), steps=30, limit=500)
    assert not u.complete and len(u) <= 500
    assert u.why == (f"step {u.steps + 1} would give more than limit=500 pieces",)
    np.testing.assert_array_equal(u.vertices, unstable_manifold(Lozi(), saddle(), steps=u.steps).vertices)


def test_a_linear_map_keeps_one_straight_piece():
    matrix = np.array([[0.5, 0.3], [0.0, 1.5]])
    (cycle,) = fixed_points(linear(matrix))
    u = unstable_manifold(linear(matrix), cycle, steps=40, box=(np.full(2, -2.0), np.full(2, 2.0)))
    assert len(u) == 1
    end = np.array([0.6, 2.0])  # (1.5 - 0.5) x = 0.3 y
    np.testing.assert_allclose(np.sort(u.vertices[0], axis=0), [-end, end], atol=1e-12)


def test_a_region_with_a_singular_map_is_skipped_and_said():
    # left of 0 the second unit is not looked at, and the map loses it
    cell = alrnn([0.5, 0.0], [[0.0, 0.3], [0.0, 2.0]], [0.0, -1.0], 1)
    (cycle,) = (c for c in fixed_points(cell) if c.kind == "saddle")
    w = stable_manifold(cell, cycle, steps=3)
    assert len(w.skipped) == 1 and any("1 of 2 regions were left out" in why for why in w.why)


# Surfaces.


BLOCKS = {
    "slow spiral": [[0.9, -0.5], [0.5, 0.9]],
    "fast and slow": [[1.01, 0.0], [0.0, 3.0]],
    "flips": [[-1.3, 0.0], [0.0, 1.1]],
    "Jordan": [[1.1, 1.0], [0.0, 1.1]],
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("direction", ["unstable", "stable"])
def test_the_first_piece_lies_in_the_next(direction, block):
    matrix = np.zeros((3, 3))
    unstable = np.array(BLOCKS[block])
    matrix[:2, :2] = unstable if direction == "unstable" else np.linalg.inv(unstable)
    matrix[2, 2] = 0.5 if direction == "unstable" else 1.6
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0] @ np.diag([1.0, 0.5, 2.0])
    cell = linear(basis @ matrix @ np.linalg.inv(basis))
    (cycle,) = fixed_points(cell)
    box = Box(np.full(3, -10.0), np.full(3, 10.0))
    (first,) = germ(pieces(cell), cycle, box, direction) @ np.linalg.inv(basis).T
    assert np.abs(first[:, 2]).max() < 1e-10  # in the eigenspace
    after = first[:, :2] @ unstable.T  # the image, or the preimage
    turn = np.roll(after, -1, axis=0) - after
    gap = first[:, None, :2] - after
    side = turn[:, 0] * gap[..., 1] - turn[:, 1] * gap[..., 0]
    assert (side > 0).all() or (side < 0).all()
    np.testing.assert_allclose(np.abs(first @ basis.T).max(), 9.0, rtol=0.1)  # its ellipse goes 0.9 of the way
    make = unstable_manifold if direction == "unstable" else stable_manifold
    found = make(cell, cycle, steps=3, box=box)
    assert len(found) == 1 and found.dimension == 2 and np.abs(found.vertices).max() <= 10 * (1 + 1e-12)
    edges = np.diff(found.lines()[0], axis=0, append=found.lines()[0][:1])
    assert len(edges) >= 3 and (np.linalg.norm(edges, axis=1) > 0).all()


@functools.cache
def spiral():
    """Three units: two spiral out of a saddle-focus at (1, 1, 1), into regions that fold them back."""
    matrix = np.zeros((3, 3))
    matrix[:2, :2] = 1.25 * np.array([[np.cos(0.9), -np.sin(0.9)], [np.sin(0.9), np.cos(0.9)]])
    matrix[0, 2], matrix[2, 0], matrix[2, 2] = 0.1, 0.2, 0.4
    A = np.array([0.3, 0.2, 0.1])
    cell = alrnn(A, matrix - np.diag(A), np.ones(3) - matrix @ np.ones(3), 3)
    return cell, next(c for c in fixed_points(cell) if c.stability.unstable == 2)


def holds(polygons, z):
    """Whether each point lies in one of the polygons."""
    normal = np.cross(polygons[:, 1:-1] - polygons[:, :1], polygons[:, 2:] - polygons[:, :1]).sum(1)
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    level = np.einsum("knm,km->kn", z[None] - polygons[:, :1], normal)
    edges = np.roll(polygons, -1, axis=1) - polygons
    side = np.einsum("kvnm,km->kvn", np.cross(edges[:, :, None], z - polygons[:, :, None]), normal)
    length = np.maximum(np.linalg.norm(edges, axis=2), 1e-300)[..., None]
    return ((np.abs(level) < 1e-9) & (side / length > -1e-9).all(1)).any(0)


def test_a_surface_is_mapped_into_its_continuation():
    cell, cycle = spiral()
    small, large = (unstable_manifold(cell, cycle, steps=n) for n in (5, 6))
    assert small.dimension == 2 and len(small) > 3 and small.complete
    z = np.array([line.mean(0) for line in small.lines()])
    z = np.concatenate([z, 0.5 * z + 0.5 * small.vertices[:, 0]])
    assert holds(large.vertices, pieces(cell).step(z)).all()
    assert holds(large.vertices, z).all()
    assert not holds(large.vertices, z + np.array([0.0, 0.0, 1e-3])).any()


def test_a_stable_surface_is_that_of_the_driving_map():
    # orbits of (x, y, w) tend to the saddle where those of (x, y) do: its manifold is theirs, upright
    cell = Over(Lozi(), 0.5, 0.3)
    cycle = next(c for c in fixed_points(cell) if c.points[0, 0] > 0)
    low, high = np.array([-3.0, -3, -50]), np.array([3.0, 3, 50])
    w = stable_manifold(cell, cycle, steps=4, box=(low, high))
    flat = lozi("stable", 4)
    z = np.concatenate([line for line in w.lines()])
    assert off(z[:, :2], lozi("stable", 6).vertices).max() < 1e-10
    assert w.dimension == 2 and len(w) >= len(flat)


# Where they meet.


def test_the_saddle_of_lozi_has_homoclinic_points():
    u, w = lozi("unstable", 9), lozi("stable", 4)
    x = homoclinic_points(u, w)
    assert len(x) > 20 and not x.heteroclinic and x.parallel == 0
    assert off(x.points, u.vertices).max() < 1e-13 and off(x.points, w.vertices).max() < 1e-12
    for i, at in enumerate(x.points):  # each on the pieces that are named
        assert off(at[None], u.vertices[x.unstable_piece[i], None]) < 1e-13
        assert off(at[None], w.vertices[x.stable_piece[i], None]) < 1e-12
    assert np.linalg.norm(x.points - saddle().points, axis=1).min() > 1e-6
    # forward rounding of 1e-16 grows by 1.96 a step and the distance falls by 0.26; backward by 3.9 and 0.51
    assert x.ahead.max() < 1e-9 and x.behind.max() < 1e-2
    assert (x.angle > 1e-3).all() and (x.angle <= np.pi / 2).all()
    # the image of a homoclinic point is one
    z = pieces(Lozi()).step(x.points)
    more = homoclinic_points(lozi("unstable", 10), w).points
    assert np.linalg.norm(z[:, None] - more, axis=2).min(1).max() < 1e-12


def test_crossings_are_those_of_all_pairs():
    u, w = lozi("unstable", 8), lozi("stable", 5)
    count = 0
    for a, b in u.vertices:
        for p, q in w.vertices:
            x = np.linalg.solve(np.stack([b - a, p - q], 1), p - a)
            count += (x > 0).all() and (x < 1).all()
    assert len(homoclinic_points(u, w)) == count - 1  # without the saddle


def test_no_homoclinic_points_where_there_are_none():
    cell, cycle = Lozi(a=0.6), saddle(0.6)
    u = unstable_manifold(cell, cycle, steps=30)  # it tends to a stable cycle of two
    x = homoclinic_points(u, stable_manifold(cell, cycle, steps=12, box=BOX))
    assert len(x) == 0 and x.points.shape == (0, 2) and x.ahead.shape == (0,)
    matrix = np.array([[0.5, 0.3], [0.0, 1.5]])
    (cycle,) = fixed_points(linear(matrix))
    u, w = (make(linear(matrix), cycle, steps=5) for make in (unstable_manifold, stable_manifold))
    assert len(homoclinic_points(u, w)) == 0


def test_heteroclinic_points_lead_from_one_saddle_to_the_other():
    other = next(c for c in fixed_points(Lozi()) if c.points[0, 0] < 0)
    u = unstable_manifold(Lozi(), other, steps=8, box=BOX)
    x = homoclinic_points(u, lozi("stable", 4))
    assert x.heteroclinic and len(x) > 3
    assert x.ahead.max() < 1e-9 and np.linalg.norm(x.target.points - saddle().points) == 0


def test_a_curve_and_a_surface_meet_where_the_driving_map_has_its_points():
    cell = Over(Lozi(), 0.5, 0.3)
    cycle = next(c for c in fixed_points(cell) if c.points[0, 0] > 0)
    low, high = np.array([-3.0, -3, -50]), np.array([3.0, 3, 50])
    u = unstable_manifold(cell, cycle, steps=9, box=(low, high))
    w = stable_manifold(cell, cycle, steps=4, box=(low, high))
    x = homoclinic_points(u, w)
    flat = homoclinic_points(
        dataclasses.replace(lozi("unstable", 9), vertices=u.vertices[..., :2]), lozi("stable", 8)
    ).points
    assert len(x) > 10
    assert np.linalg.norm(x.points[:, None, :2] - flat, axis=2).min(1).max() < 1e-9
    assert x.ahead.max() < 1e-6  # w falls by 0.5 a step only


# What is refused.


def refused(match, call, *args, **more):
    with pytest.raises(ValueError, match=match):
        call(*args, **more)


def test_what_cannot_be_followed_is_refused():
    good = saddle()
    bad = functools.partial(dataclasses.replace, good)
    gru = GRU(2, key=jax.random.key(0))
    refused("must be piecewise linear", unstable_manifold, gru, good)
    refused("must be a Cycle.*got ndarray", unstable_manifold, Lozi(), np.zeros(2))
    refused("virtual, 0.2 outside", unstable_manifold, Lozi(), bad(margin=-0.2))
    refused("on a border", unstable_manifold, Lozi(), bad(margin=0.0, border=True))
    refused("hyperbolic: it has 1 of 2", unstable_manifold, Lozi(), bad(eigenvalues=np.array([1.0, 0.5])))
    refused("no unstable manifold.*stable node", unstable_manifold, Lozi(), bad(eigenvalues=np.array([0.6, 0.5])))
    refused("no stable manifold.*unstable node", stable_manifold, Lozi(), bad(eigenvalues=np.array([3.0, -2.0])))
    refused("a step from it misses.* by", unstable_manifold, Lozi(a=1.5), good)
    refused("of 3 units and 1 gates: it has 2", unstable_manifold, Over(Lozi(), 0.5, 0.3), good)
    (cycle,) = fixed_points(linear(np.diag([2.0, 3.0, 4.0])))
    refused("dimension 3", unstable_manifold, linear(np.diag([2.0, 3.0, 4.0])), cycle)
    refused("steps must be.*got 0", unstable_manifold, Lozi(), good, steps=0)
    refused("limit must be.*got -1", stable_manifold, Lozi(), good, limit=-1)
    refused("box must hold the cycle", stable_manifold, Lozi(), good, box=([-1, -1], [0, 0]))
    refused("box must be bounded", stable_manifold, Lozi(), good, box=([-np.inf, -1], [1, 1]))
    singular = alrnn([0.0, 0.0], [[0.0, 1.0], [0.0, 2.0]], [0.0, -1.0], 1)
    (cycle,) = (c for c in fixed_points(singular) if c.kind == "saddle")
    refused("regions whose maps are invertible", stable_manifold, singular, cycle)


def test_what_does_not_cross_is_refused():
    u, w = lozi("unstable", 5), lozi("stable", 3)
    refused("got 'stable' and 'unstable'", homoclinic_points, w, u)
    other = unstable_manifold(Lozi(a=0.6), saddle(0.6), steps=2)
    refused("of one cell", homoclinic_points, other, w)
    refused("got dimensions 2 .unstable. and 1", homoclinic_points, dataclasses.replace(u, dimension=2), w)


def test_single_precision_parameters_are_taken_as_they_are(float32):
    cell = alrnn([0.5, 0.5], [[0.0, -0.8], [-0.8, 0.0]], [1.0, 1.0], 2)
    assert cell.W.dtype == jnp.float32
    (cycle,) = (c for c in fixed_points(cell) if c.kind == "saddle")
    w = stable_manifold(cell, cycle, steps=5)
    assert w.vertices.dtype == np.float64 and np.abs(w.vertices[..., 0] - w.vertices[..., 1]).max() < 1e-10
