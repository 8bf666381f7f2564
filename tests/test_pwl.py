"""Regions, words and boxes of piecewise-linear cells against closed forms and brute force."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PWL_CELLS

from dsrecon import pwl
from dsrecon.models import ALRNN, GRU, PLRNN, ClippedShallowPLRNN, DendriticPLRNN, MeanCentredPLRNN, ShallowPLRNN
from dsrecon.pwl.arrangement import arrangement, split
from dsrecon.pwl.invariant import _image
from dsrecon.systems import Lozi, Tent

GOLDEN = (1 + 5**0.5) / 2


def instance(row, seed=3):
    cell = row.make(jax.random.key(seed))
    s = None if row.input is None else row.input(np.random.default_rng(seed))
    return cell, s


def as_set(bits):
    return {row.tobytes() for row in np.asarray(bits)}


def random_alrnn(m, p, seed, size=0.5):
    keys = jax.random.split(jax.random.key(seed), 4)
    cell = ALRNN(m, p, key=keys[0])
    values = (0.5 * jax.random.normal(keys[1], (m,)), size * jax.random.normal(keys[2], (m, m)))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, (*values, jax.random.normal(keys[3], (m,))))


@pytest.mark.parametrize("row", PWL_CELLS, ids=lambda row: row.name)
def test_pieces_are_the_cell(row):
    cell, s = instance(row)
    found = pwl.pieces(cell, s)
    z = 2 * np.random.default_rng(0).normal(size=(50, cell.state_size))
    regions, after = jax.jit(jax.vmap(lambda z: (cell.region(z, s), cell(z, s))))(z)
    assert (found.bits(z) == regions).all()
    np.testing.assert_allclose(found.step(z), after, rtol=1e-12, atol=1e-12)
    inside = found.margin(z, found.bits(z))
    assert (inside > 0).all()
    flipped = found.bits(z)
    flipped[:, 0] ^= True
    assert (found.margin(z, flipped) < 0).all()


def test_pieces_of_single_precision_are_those_of_the_same_numbers(float32):
    cell = ALRNN(4, 2, key=jax.random.key(0))
    A, h = pwl.pieces(cell).affine(np.array([[True, False]]))
    W = np.asarray(cell.W, np.float64)
    np.testing.assert_array_equal(A[0], np.diag(np.asarray(cell.A, np.float64)) + W * [1.0, 1.0, 1.0, 0.0])
    assert h.dtype == np.float64


def test_numbers_of_regions_are_those_of_theory():
    key = jax.random.key(1)
    assert len(pwl.regions(ALRNN(5, 3, key=key))) == 8
    assert len(pwl.regions(PLRNN(6, key=key))) == 64
    assert len(pwl.regions(MeanCentredPLRNN(5, key=key))) == 2**5 - 2
    assert len(pwl.regions(DendriticPLRNN(3, 4, key=key))) == 5**3
    assert len(pwl.regions(Lozi())) == 2
    # hyperplanes in general position
    assert len(pwl.regions(ShallowPLRNN(3, 12, key=key))) == sum(math.comb(12, i) for i in range(4))
    assert len(pwl.regions(ShallowPLRNN(2, 9, key=key))) == 1 + 9 + 36
    # 6 planes through a point (14 pairs of cones) and 6 parallel to them: as many as gates one by one
    cell = ClippedShallowPLRNN(3, 6, key=key)
    found = pwl.pieces(cell)
    by_gates, _ = split(np.zeros((0, 3)), np.zeros(0), found.G, found.g, limit=10_000)
    assert as_set(pwl.regions(cell)) == as_set(by_gates) and len(by_gates) > 100


def test_a_gate_that_never_moves_halves_the_regions():
    cell = ALRNN(4, 3, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: c.rectified, cell, jnp.array([False, True, False, True]))
    found = pwl.regions(cell)
    assert len(found) == 4 and found[:, 1].all()


@pytest.mark.parametrize("d", [2, 3])
def test_an_arrangement_with_crowded_vertices_is_complete(d):
    rng = np.random.default_rng(d)
    G = np.round(rng.normal(size=(8, d)) * 2)
    G = G[(G != 0).any(1)]
    g = np.round(rng.normal(size=len(G)))  # small whole numbers: many meet in a point, some are parallel or the same
    _, first = np.unique(np.c_[G, g], axis=0, return_index=True)
    by_gates, balls = split(np.zeros((0, d)), np.zeros(0), G, g, limit=10_000)
    assert as_set(arrangement(G, g)) == as_set(by_gates)
    for bits, ball in zip(by_gates, balls, strict=True):
        assert ((G @ ball.centre + g > 0) == bits).all()
    assert len(first) < len(G) or len(by_gates) < sum(math.comb(len(G), i) for i in range(d + 1))


@pytest.mark.parametrize(
    "cell", [random_alrnn(3, 3, 0), ShallowPLRNN(2, 6, key=jax.random.key(2))], ids=["units", "any"]
)
def test_regions_of_a_box_are_those_that_points_in_it_see(cell):
    m = cell.state_size
    box = pwl.Box(np.full(m, -0.2), np.linspace(0.3, 0.5, m))
    z = np.random.default_rng(0).uniform(box.low, box.high, size=(100_000, m))
    seen = np.unique(pwl.pieces(cell).bits(z), axis=0)
    assert as_set(pwl.regions(cell, box=box)) == as_set(seen)
    assert len(seen) < len(pwl.regions(cell)) or m == 3


def test_the_largest_ball():
    N, n = np.concatenate([np.eye(3), -np.eye(3)]), np.array([0.0, 0, 0, 0.5, 1, 2])
    ball = pwl.inner_ball(7.0 * N, 7.0 * n, 3)
    assert ball.radius == pytest.approx(0.25, abs=1e-9) and ball.centre[0] == pytest.approx(0.25, abs=1e-9)
    assert pwl.inner_ball(np.array([[1.0], [-1.0]]), np.array([0.0, -0.5]), 1).radius == pytest.approx(-0.25)
    empty = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.0, -0.5])
    assert pwl.inner_ball(*empty, 2).radius == pytest.approx(-0.25, abs=1e-9)
    assert pwl.inner_ball(np.zeros((1, 2)), np.zeros(1), 2).radius == -np.inf
    assert pwl.inner_ball(np.zeros((0, 2)), np.zeros(0), 2).radius == 1.0


def test_words_of_tents():
    core = ([GOLDEN * (1 - GOLDEN / 2)], [GOLDEN / 2])
    fibonacci = [2, 3, 5, 8, 13, 21, 34, 55, 89, 144]
    for length in range(1, 11):
        assert len(pwl.words(Tent(), length)) == 2**length
        # LL is spelled by boundary points alone: strictly positive slack does not count it
        assert len(pwl.words(Tent(slope=GOLDEN), length, box=core)) == fibonacci[length - 1]


@pytest.mark.parametrize("cell", [Lozi(), random_alrnn(3, 2, 1)], ids=["lozi", "alrnn"])
def test_words_are_those_that_orbits_spell(cell):
    length, m = 4, cell.state_size
    found, box = pwl.pieces(cell), (np.full(m, -2.0), np.full(m, 2.0))
    listed = pwl.words(cell, length, box=box)
    z = np.concatenate([listed.starts, np.random.default_rng(0).uniform(-2, 2, size=(50_000, m))])
    seen = np.empty((len(z), length, len(found.g)), bool)
    for t in range(length):
        seen[:, t] = found.bits(z)
        z = found.step(z)
    assert (seen[: len(listed)] == listed.bits).all()
    assert as_set(seen[len(listed) :]) <= as_set(listed.bits) and len(listed) > 8
    assert (listed.radius > pwl.TOLERANCE).all() and len(as_set(listed.bits)) == len(listed)
    # one that is missing has no start at all
    for word in pwl.words(cell, 1).bits.repeat(length, axis=1)[:2]:
        ball = pwl.admissible(cell, word, box=box)
        assert (ball.radius > pwl.TOLERANCE) == (word.tobytes() in as_set(listed.bits))


def test_an_invariant_box_holds_its_image_and_every_orbit():
    cell = random_alrnn(4, 2, 0, size=0.2)
    start = pwl.Box(np.full(4, -0.1), np.full(4, 0.1))
    box = pwl.invariant_box(cell, start)
    image = pwl.image_box(cell, box)
    assert (image.low >= box.low).all() and (image.high <= box.high).all()
    z = np.random.default_rng(0).uniform(box.low, box.high, size=(2000, 4))
    for _ in range(50):
        z = pwl.pieces(cell).step(z)
        assert box.holds(z).all()
    assert not start.holds(image.high)


@pytest.mark.parametrize("make", [lambda key: ALRNN(3, 2, key=key), lambda key: ShallowPLRNN(2, 4, key=key)])
def test_the_box_of_an_image_is_tight(make):
    cell = make(jax.random.key(5))
    m = cell.state_size
    box = pwl.Box(np.full(m, -1.0), np.full(m, 1.5))
    image = pwl.image_box(cell, box)
    z = np.stack(np.meshgrid(*[np.linspace(-1, 1.5, 41)] * m, indexing="ij"), axis=-1).reshape(-1, m)
    after = pwl.pieces(cell).step(z)
    assert (after.min(0) >= image.low - 1e-9).all() and (after.max(0) <= image.high + 1e-9).all()
    np.testing.assert_allclose(after.min(0), image.low, atol=0.1)
    np.testing.assert_allclose(after.max(0), image.high, atol=0.1)


@pytest.mark.parametrize("m", [2, 3])
def test_corners_and_linear_programmes_agree_about_an_image(m):
    cell = ClippedShallowPLRNN(m, 3, key=jax.random.key(m))
    found, box = pwl.pieces(cell), pwl.Box(np.full(m, -1.0), np.linspace(0.5, 1.5, m))
    by_corners, by_programmes = pwl.image_box(found, box), _image(found, box, 10_000, None)
    np.testing.assert_allclose(by_corners.low, by_programmes.low, atol=1e-7)  # that of HiGHS
    np.testing.assert_allclose(by_corners.high, by_programmes.high, atol=1e-7)


def test_an_expanding_map_has_no_invariant_box():
    cell = eqx.tree_at(lambda c: c.A, random_alrnn(2, 1, 0), jnp.array([1.5, 0.2]))
    with pytest.raises(RuntimeError, match="no invariant box was found"):
        pwl.invariant_box(cell, ([-1, -1], [1, 1]))


def test_what_cannot_be_solved_is_refused_by_name():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="piecewise linear, an AbstractPWLCell: got GRU"):
        pwl.regions(GRU(3, key=key))
    with pytest.raises(ValueError, match=re.escape("2^30 regions, more than limit=1,048,576")):
        pwl.regions(ALRNN(30, 30, key=key))
    with pytest.raises(ValueError, match=re.escape("at least 2^24 regions")):
        pwl.regions(ShallowPLRNN(24, 40, key=key))
    broken = eqx.tree_at(lambda c: c.h, ALRNN(2, 1, key=key), jnp.array([jnp.nan, 0.0]))
    with pytest.raises(ValueError, match="finite parameters"):
        pwl.pieces(broken)
    cell = ALRNN(2, 1, key=key)
    with pytest.raises(ValueError, match=re.escape("box must be bounded: unit 1 has (0.0, inf)")):
        pwl.regions(cell, box=([0, 0], [1, np.inf]))
    with pytest.raises(ValueError, match="low below high: unit 0"):
        pwl.regions(cell, box=([0, 0], [0, 1]))
    with pytest.raises(ValueError, match=re.escape("got shapes [3] and [3]")):
        pwl.regions(cell, box=([0, 0, 0], [1, 1, 1]))
    with pytest.raises(ValueError, match="box must be given to begin from: got None"):
        pwl.invariant_box(cell, None)
    with pytest.raises(ValueError, match="length must be at least 1: got 0"):
        pwl.words(cell, 0)
    with pytest.raises(ValueError, match=re.escape("booleans [L, 1], a region a step: got bool of shape [2]")):
        pwl.admissible(cell, np.array([True, False]))
    with pytest.raises(ValueError, match="more admissible words than limit=100"):
        pwl.words(Tent(), 8, limit=100)
    with pytest.raises(ValueError, match="states must be finite"):
        pwl.box_around(np.array([[np.nan]]))
