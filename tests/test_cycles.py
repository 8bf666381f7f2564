"""Fixed points and cycles of piecewise-linear maps against brute force, Newton's method and closed forms."""

import itertools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PWL_CELLS, named

from dsrecon.analysis import Stability, cycles, find_cycles, fixed_points, stability
from dsrecon.analysis.cycles import same_cycle
from dsrecon.analysis.letters import count, necklaces
from dsrecon.models import ALRNN, GRU, ClippedShallowPLRNN, ContinuousPLRNN
from dsrecon.pwl import box_around, pieces
from dsrecon.systems import Baker, Lozi, SkewTent, Tent


def alrnn(A, W, h, units):
    """An AL-RNN of these arrays."""
    cell = ALRNN(len(A), units, key=jax.random.key(0))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, tuple(jnp.asarray(x, float) for x in (A, W, h)))


def drawn(seed, units, size):
    """A random AL-RNN, contracting or expanding, as a fit may leave it."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(max(units, 1), 7))
    return alrnn(rng.uniform(-0.9, 0.95, m), size * rng.normal(size=(m, m)), rng.normal(size=m), units)


def by_brute_force(cell, longest):
    """Every word of every period, one by one, in plain NumPy: the cycles that lie in their regions, `[k, m]` each."""
    m, p = cell.state_size, cell.pwl_units
    A, W, h = (np.asarray(x) for x in (cell.A, cell.W, cell.h))
    found = []
    maps = {}
    for bits in itertools.product([0.0, 1.0], repeat=p):
        maps[bits] = np.diag(A) + W * np.concatenate([np.ones(m - p), bits])[None]
    for k in range(1, longest + 1):
        words = list(itertools.product(maps, repeat=k))
        M, c = np.repeat(np.eye(m)[None], len(words), 0), np.zeros((len(words), m))
        steps = [np.stack([maps[word[t]] for word in words]) for t in range(k)]
        for step in steps:
            M, c = step @ M, np.einsum("wij,wj->wi", step, c) + h
        z = np.linalg.solve(np.eye(m) - M, c[..., None])[..., 0]
        points, good = [], np.ones(len(words), bool)
        for t in range(k):
            open_gates = np.array([word[t] for word in words]).reshape(len(words), p) > 0
            good &= ((z[:, m - p :] > 0) == open_gates).all(1)
            points.append(z)
            z = np.einsum("wij,wj->wi", steps[t], z) + h
        for cycle in np.stack(points, axis=1)[good]:
            known = [np.abs(cycle - other).max() for kind in found for other in repeated(kind, k)]
            if not known or min(known) > 1e-7 * (1 + np.abs(cycle).max()):
                found.append(cycle)
    return found


def repeated(cycle, k):
    """A cycle gone round to length `k`, from each of its points; nothing if `k` is no multiple of its period."""
    if k % len(cycle):
        return []
    return [np.tile(np.roll(cycle, i, axis=0), (k // len(cycle), 1)) for i in range(len(cycle))]


def equal_brute_force(cell, longest):
    found, wanted = cycles(cell, longest), by_brute_force(cell, longest)
    assert len(found) == len(wanted)
    for points in wanted:
        assert any(
            np.abs(other - points).max() < 1e-6 * (1 + np.abs(points).max())
            for cycle in found
            if cycle.period == len(points)
            for other in repeated(cycle.points, len(points))
        )
    for cycle in found:  # none virtual: the cell itself goes round
        after = jax.vmap(cell)(jnp.asarray(cycle.points))
        np.testing.assert_allclose(after, np.roll(cycle.points, -1, axis=0), rtol=1e-9, atol=1e-9)
        assert cycle.real and cycle.margin > 0 and not cycle.border
    return found


CASES = [(seed, units, longest) for seed in range(4) for units, longest in ((4, 3), (2, 6), (1, 6), (0, 2))]


@pytest.mark.parametrize("seed, units, longest", CASES)
def test_complete_search_is_brute_force(seed, units, longest):
    equal_brute_force(drawn(seed, units, (0.2, 0.5, 0.8, 1.1)[seed]), longest)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_two_hundred_random_cells(seed):
    """As the fast test, for two cells a seed; and Newton's method from 10^4 starts finds nothing that is not listed."""
    most = int(np.random.default_rng(seed).integers(1, 5))
    for units, longest in ((most, 3), (min(most, 2), 6)):
        cell = drawn(100 + seed, units, (0.2, 0.4, 0.6, 0.8, 1.1)[seed % 5])
        found = equal_brute_force(cell, longest)
        for k in (1, longest):
            newton_finds_nothing_else(cell, found, k, 10_000)


def newton_finds_nothing_else(cell, found, k, starts):
    listed = [p for c in found if k % c.period == 0 for p in c.points]
    piece, rng = pieces(cell), np.random.default_rng(0)
    z = 5 * rng.normal(size=(starts, cell.state_size)) * rng.uniform(0.01, 3, size=(starts, 1))
    unit = np.eye(cell.state_size)
    for _ in range(15):
        M, after = np.repeat(unit[None], len(z), 0), z
        for _ in range(k):
            A, h = piece.affine(piece.bits(after))
            M, after = A @ M, np.einsum("nij,nj->ni", A, after) + h
        z = z + np.linalg.solve(unit - M, (after - z)[..., None])[..., 0]
        z = z[np.isfinite(z).all(1) & (np.abs(z).max(1, initial=0) < 1e12)]
    after = z
    for _ in range(k):
        after = piece.step(after)
    ends = z[np.abs(after - z).max(1) < 1e-9 * (1 + np.abs(z).max(1))]
    away = [min((np.abs(end - p).max() for p in listed), default=np.inf) for end in np.unique(ends.round(6), axis=0)]
    assert not away or max(away) < 1e-4 * (1 + np.abs(ends).max())
    return len(ends)


def test_newton_from_many_starts_finds_nothing_else():
    came = 0
    for seed in (0, 1, 2):
        cell = drawn(seed, 3, 0.6)
        came += newton_finds_nothing_else(cell, cycles(cell, 2), 2, 3000)
    assert came > 1000


def planted(points, units):
    """An AL-RNN that goes round these points `[k, m]`, `k <= m`: least squares for `W` and `h`."""
    m = points.shape[1]
    phi = np.where(np.arange(m) >= m - units, np.maximum(points, 0), points)
    A = np.linspace(0.1, 0.5, m)
    wanted = np.roll(points, -1, axis=0) - points * A
    solution = np.linalg.lstsq(np.c_[phi, np.ones(len(points))], wanted, rcond=None)[0]
    return alrnn(A, solution[:-1].T, solution[-1], units)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_planted_cycles_are_found_exactly(k):
    points = np.random.default_rng(k).normal(size=(k, 6))
    cell = planted(points, 2)
    for found in (cycles(cell, k), find_cycles(cell, k, tries=300)):
        nearest = [np.abs(other - points).max() for c in found.of_period(k) for other in repeated(c.points, k)]
        assert min(nearest) < 1e-9


def test_a_planted_cycle_among_a_billion_regions():
    rng = np.random.default_rng(3)
    points = 2 * rng.normal(size=(3, 30))
    cell = planted(points, 30)
    with pytest.raises(ValueError, match=re.escape("2^30 regions, more than limit=2,000,000")) as refusal:
        cycles(cell, 1)
    assert "`find_cycles` looks for them by a heuristic" in str(refusal.value)
    found = find_cycles(cell, 3, starts=points + 0.1 * rng.normal(size=points.shape), tries=100)
    nearest = [np.abs(other - points).max() for c in found.of_period(3) for other in repeated(c.points, 3)]
    assert min(nearest) < 1e-8
    assert not found.certificate.complete and str(found.certificate).startswith("Incomplete: a heuristic search")


def test_the_heuristic_lists_only_cycles_and_the_same_each_time():
    missed = listed = 0
    for seed in range(6):
        cell = drawn(seed, 3, 0.7)
        every, some = cycles(cell, 3), find_cycles(cell, 3, tries=400, seed=1)
        assert all(any(same_cycle(c, e) for e in every if e.period == c.period) for c in some)
        again = find_cycles(cell, 3, tries=400, seed=1)
        assert len(again) == len(some)
        assert all((a.points == b.points).all() for a, b in zip(some, again, strict=True))
        missed, listed = missed + len(every) - len(some), listed + len(every)
    assert listed >= 8 and missed == 0


def test_fixed_points_of_lozi():
    a, b = 1.7, 0.5
    right, left = 1 / (1 + a - b), 1 / (1 - a - b)
    found = fixed_points(Lozi(a, b))
    assert {round(c.points[0, 0], 12) for c in found} == {round(right, 12), round(left, 12)}
    for cycle in found:
        x = cycle.points[0, 0]
        np.testing.assert_allclose(cycle.points[0], [x, b * x], rtol=0, atol=1e-15)
        slope = -a if x > 0 else a  # eigenvalues of [[slope, 1], [b, 0]]
        roots = np.roots([1, -slope, -b])
        np.testing.assert_allclose(cycle.eigenvalues, roots[np.argsort(-np.abs(roots))], rtol=1e-14)
        assert cycle.stability == Stability("saddle", 1, 0, 1)
        assert cycle.margin == pytest.approx(abs(x))
    # words of two: x = ((1 - b) +- a) / ((1 - b)^2 + a^2)
    (two,) = cycles(Lozi(a, b), 2).of_period(2)
    wanted = ((1 - b) + np.array([-a, a])) / ((1 - b) ** 2 + a**2)
    np.testing.assert_allclose(np.sort(two.points[:, 0]), wanted, atol=1e-15)
    np.testing.assert_allclose(two.rates.sum(), np.log(b), atol=1e-14)


@pytest.mark.parametrize("system", [Tent(), SkewTent(), Baker()])
def test_full_maps_have_a_cycle_for_every_necklace(system):
    found = cycles(system, 5)
    assert [len(found.of_period(k)) for k in range(1, 6)] == [count(2, k) for k in range(1, 6)] == [2, 1, 2, 3, 6]
    assert found.certificate.virtual == 0 and found.certificate.complete


def test_necklaces_are_those_of_witt():
    for letters, length in ((2, 6), (3, 4), (5, 3), (7, 1)):
        words = np.concatenate(list(necklaces(letters, length)))
        classes = set()
        for word in itertools.product(range(letters), repeat=length):
            turns = {word[i:] + word[:i] for i in range(length)}
            if len(turns) == length:
                classes.add(min(turns))
        assert {tuple(w) for w in words.tolist()} == classes
        assert count(letters, length) == len(classes)


def test_words_that_no_orbit_spells_are_excluded_and_nothing_is_lost():
    cell = drawn(5, 2, 0.8)
    every, fewer = cycles(cell, 5), cycles(cell, 5, limit=150)
    assert every.certificate.excluded[5] == 0 and fewer.certificate.excluded[5] > 0
    assert fewer.certificate.solved[5] + fewer.certificate.excluded[5] == every.certificate.solved[5] == 204
    assert len(every) == len(fewer) > 0
    assert all(same_cycle(a, b) for a, b in zip(every, fewer, strict=True))
    assert "no orbit can pass through the other words" in str(fewer.certificate)


def test_the_eigenvalues_are_those_of_the_jacobian():
    cell = drawn(1, 3, 0.7)
    for cycle in cycles(cell, 3):
        J = np.eye(cell.state_size)
        for z in cycle.points:
            J = jax.jacfwd(cell)(jnp.asarray(z)) @ J
        wanted = np.linalg.eigvals(J)
        np.testing.assert_allclose(np.sort(np.abs(cycle.eigenvalues)), np.sort(np.abs(wanted)), rtol=1e-9, atol=1e-12)
        assert (np.diff(np.abs(cycle.eigenvalues)) <= 1e-12).all()


@pytest.mark.parametrize("row", [r for r in PWL_CELLS if r.name not in ("tent", "skew-tent", "baker")], ids=named)
def test_every_cell_rests_at_its_fixed_points(row):
    cell = row.make(jax.random.key(2))
    s = None if row.input is None else row.input(np.random.default_rng(2))
    try:
        found = fixed_points(cell, s, virtual=True)
    except ValueError as error:  # forced cells
        assert "piecewise linear" in str(error)
        return
    if not any(cycle.border for cycle in found):  # which several regions have in common
        assert len(found) + len(found.virtual) + found.certificate.singular == found.certificate.regions
    step = jax.jit(lambda z: cell(z, s))
    for cycle in found:
        z = jnp.asarray(cycle.points[0])
        np.testing.assert_allclose(step(z), z, rtol=1e-9, atol=1e-9)
    for cycle in found.virtual[:20]:
        assert not cycle.real and cycle.margin <= 0


def test_a_box_leaves_the_cycles_that_lie_in_it():
    every = cycles(Lozi(), 4)
    box = box_around(every[1].points, 0.0)
    inside = cycles(Lozi(), 4, box=([0.1, -1], [1, 1]))
    assert [c.period for c in inside] == [1] and (inside[0].points > 0).all()
    assert len(cycles(Lozi(), 4, box=([-2, -2], [2, 2]))) == len(every) == 4
    assert inside.certificate.regions == 1 and "that meet the box" in str(inside.certificate)
    assert box.holds(every[1].points).all()


def test_lines_and_planes_of_fixed_points_are_reported_as_such():
    # x' = x, y' = y / 2 + relu(y) + 1: every x rests where y does, and y = 2 is a fixed point of the closed side only
    line = alrnn([1.0, 0.5], [[0, 0], [0, -2.0]], [0, 1.0], 1)
    found = fixed_points(line)
    assert len(found) == 0 and found.certificate.singular == 2
    real = [s for s in found.singular if s.real]
    assert len(real) == 1 and len(found.singular) == 2
    np.testing.assert_allclose(np.abs(real[0].directions), [[1.0, 0.0]], atol=1e-12)
    assert real[0].point[1] == pytest.approx(0.4)
    plane = fixed_points(alrnn([1.0, 1.0, 0.5], np.zeros((3, 3)), [0, 0, 1.0], 0))
    assert plane.singular[0].directions.shape == (2, 3) and plane.singular[0].real
    drift = fixed_points(alrnn([1.0, 0.5], np.zeros((2, 2)), [1.0, 0], 0))  # x' = x + 1 rests nowhere
    assert not drift.singular and not len(drift) and drift.certificate.singular == 1
    # where Lozi's right fixed point flips, a whole segment has period two
    degenerate = cycles(Lozi(0.5, 0.5), 2)
    assert [s.word.shape for s in degenerate.singular] == [(1, 1)] or len(degenerate.singular) == 0
    assert fixed_points(Lozi(0.5, 0.5))[0].kind == "non-hyperbolic"


def test_a_border_collision_is_called_that_and_counted_once():
    # x' = x / 2 below 0 and -x / 2 above: rests at 0, on the border
    found = fixed_points(alrnn([0.5], [[-1.0]], [0.0], 1))
    assert [c.border for c in found] == [True] and found[0].real and not found[0].word.any()
    # the map of Baker jumps at its border: what is no step of the map is no cycle of it
    assert all(not c.border for c in cycles(Baker(), 3))
    beside = fixed_points(alrnn([0.5], [[-1.0]], [1e-9], 1))
    assert [c.border for c in beside] == [False] and beside[0].margin == pytest.approx(2e-9 / 3)


KINDS = {
    "stable node": [0.5, -0.2],
    "stable focus": [0.5 + 0.3j, 0.5 - 0.3j, 0.1],
    "saddle": [1.5, 0.3, 0.1 + 0.1j, 0.1 - 0.1j],
    "saddle-focus": [1.1 + 0.3j, 1.1 - 0.3j, 0.3],
    "unstable node": [2.0, -1.5],
    "unstable focus": [1.2 + 0.5j, 1.2 - 0.5j, -3.0],
    "non-hyperbolic": [1.0, 0.5],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    eigenvalues = np.array(KINDS[kind], complex)
    found = stability(eigenvalues)
    assert found.kind == kind and sum(found[1:]) == len(eigenvalues)
    if kind != "unstable node":  # no flow turns over in a step
        assert stability(np.log(eigenvalues), flow=True) == found
    assert found.unstable == (np.abs(eigenvalues) > 1 + 1e-9).sum()


def test_superstable_cycles_have_a_rate_of_minus_infinity():
    found = fixed_points(alrnn([0.0, 0.5], np.zeros((2, 2)), [1.0, 1.0], 0))
    assert found[0].kind == "stable node" and found[0].rates.min() == -np.inf


def test_tables():
    found = cycles(Lozi(), 3)
    table = found.table()
    assert len(table) == len(found) and list(table["period"]) == sorted(table["period"])
    assert table["word"][2].split() in (["0", "1"], ["1", "0"])
    np.testing.assert_array_equal(table[["z0", "z1"]].values, [c.points[0] for c in found])
    assert "2 of period 3" in str(found.certificate)


def test_single_precision_is_taken_at_its_word(float32):
    cell = ClippedShallowPLRNN(2, 4, key=jax.random.key(0))
    found = fixed_points(cell)
    for cycle in found:
        z = jnp.asarray(cycle.points[0], jnp.float32)
        np.testing.assert_allclose(cell(z), z, rtol=1e-5, atol=1e-5)
    assert len(found) >= 1 and found[0].points.dtype == np.float64


def test_what_cannot_be_searched_is_refused_by_name():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="piecewise linear, an AbstractPWLCell: got GRU"):
        cycles(GRU(3, key=key), 2)
    with pytest.raises(ValueError, match="got ContinuousPLRNN, whose step is none: its field is"):
        cycles(ContinuousPLRNN(2, key=key), 1)
    with pytest.raises(ValueError, match="longest, a period, must be a whole number from 1 on: got 0"):
        cycles(Lozi(), 0)
    with pytest.raises(ValueError, match="got 0"):
        find_cycles(Lozi(), 0)
    with pytest.raises(ValueError, match="box must be bounded"):
        cycles(Lozi(), 1, box=([0, 0], [np.inf, 1]))
    with pytest.raises(ValueError, match=re.escape("starts must be finite states [n, 2]: got shape [3]")):
        find_cycles(Lozi(), 1, starts=np.zeros(3))
    with pytest.raises(ValueError, match="tries and rounds must be at least 1: got 0 and 40"):
        find_cycles(Lozi(), 1, tries=0)
    with pytest.raises(ValueError, match="a complete search is out of reach"):
        cycles(Tent(), 16, limit=100)
