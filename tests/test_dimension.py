"""Correlation dimension and permutation entropy: sets and maps whose answers are known."""

from functools import cache
from itertools import permutations

import numpy as np
import pytest

from dsrecon.measures.dimension import LARGEST_SUM, LEAST_PAIRS, correlation_dimension
from dsrecon.measures.permutation import pattern_shares, permutation_entropy

COUNT = 10_000


def circle(rng, count=COUNT):
    angle = 2 * np.pi * rng.random(count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def torus(rng):
    a, b = 2 * np.pi * rng.random((2, COUNT))
    return np.stack([np.cos(a) * (3 + np.cos(b)), np.sin(a) * (3 + np.cos(b)), np.sin(b)], axis=1)


def cantor(rng):
    return (2 * rng.integers(0, 2, (COUNT, 30)) * 3.0 ** -np.arange(1, 31)).sum(1)[:, None]


def henon(rng):
    z, out = rng.random(2) * 0.1, np.empty((COUNT + 100, 2))
    for i in range(len(out)):
        z = out[i] = np.array([1 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]])
    return out[100:]


@cache
def lorenz_path(samples, dt=0.05, steps=3):
    def field(z):
        return np.array([10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]])

    h, z, out = dt / steps, np.array([1.0, 1.0, 20.0]), np.empty((samples + 200, 3))
    for i in range(len(out)):
        for _ in range(steps):
            k1 = field(z)
            k2 = field(z + h / 2 * k1)
            k3 = field(z + h / 2 * k2)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + field(z + h * k3))
        out[i] = z
    return out[200:]


def lorenz(rng):
    return lorenz_path(COUNT)


def logistic(x, count):
    out = np.empty(count)
    for i in range(count):
        x = out[i] = 4 * x * (1 - x)
    return out


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (circle, 0.97, 1.03),
        (torus, 1.94, 2.06),
        (henon, 1.17, 1.26),  # 1.21 to 1.25 in the literature; realisations of 10^4 points scatter by 0.03
        (lorenz, 1.95, 2.15),  # 2.05; realisations scatter by 0.04
        (lambda rng: rng.random((COUNT, 2)), 1.94, 2.04),
        (cantor, np.log(2) / np.log(3) - 0.015, np.log(2) / np.log(3) + 0.015),
    ],
    ids=["circle", "torus", "henon", "lorenz", "square", "cantor"],
)
def test_dimension_of_a_known_set(make, low, high):
    found = correlation_dimension(make(np.random.default_rng(1)))
    assert low < found.dimension < high, found.reason
    assert 0 < found.error < 0.05 * found.dimension
    least, largest = found.scaling
    inside = (found.radii >= least) & (found.radii <= largest)
    assert found.dimension == pytest.approx(found.slopes[inside].mean(), rel=1e-12)
    assert largest / least >= 4
    assert (found.counts[inside] >= LEAST_PAIRS).all() and (found.sums[inside] <= LARGEST_SUM).all()
    assert "slopes between radii" in found.reason


def test_counts_are_those_of_a_plain_loop_and_gaps_are_left_out():
    x = lorenz_path(400).copy()
    x[[5, 6, 100], [0, 1, 2]] = np.nan
    found = correlation_dimension(x, theiler=7)
    times = np.flatnonzero(np.isfinite(x).all(1))
    i, j = np.triu_indices(len(times), 1)
    apart = times[j] - times[i] > 7
    distances = np.linalg.norm(x[times[i]] - x[times[j]], axis=1)[apart]
    np.testing.assert_array_equal(found.counts, [(distances <= r).sum() for r in found.radii])
    np.testing.assert_allclose(found.sums, found.counts / apart.sum(), rtol=1e-12)
    assert found.theiler == 7


def test_the_dimension_does_not_move_with_units_place_or_rotation():
    x = circle(np.random.default_rng(3), 2000)
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(2, 2)))[0]
    wanted, found = correlation_dimension(x), correlation_dimension(1e3 * x @ turn + 5.0)
    assert found.dimension == pytest.approx(wanted.dimension, rel=1e-6)
    np.testing.assert_allclose(found.radii, 1e3 * wanted.radii, rtol=1e-9)


def test_pairs_close_in_time_feign_one_dimension():
    """A finely sampled path has the dimension of a line at small radii: what the window is for."""
    angles = np.arange(3000)[:, None] * np.array([1.0, np.sqrt(2), np.pi / 2]) * 0.01
    x = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    with_them, without = correlation_dimension(x, theiler=0), correlation_dimension(x)
    assert without.theiler > 200
    spacing = np.linalg.norm(np.diff(x, axis=0), axis=1).mean()
    fine = (with_them.radii > 5 * spacing) & (with_them.radii < 10 * spacing)
    assert fine.any() and (np.abs(with_them.slopes[fine] - 1) < 0.1).all()
    assert (without.counts[fine] < 0.1 * with_them.counts[fine]).all()


def test_no_scaling_region_gives_no_number():
    found = correlation_dimension(np.random.default_rng(0).normal(size=(2000, 8)))
    assert np.isnan([found.dimension, found.error, *found.scaling]).all()
    assert "no scaling region" in found.reason


def test_a_finite_set_has_the_dimension_zero():
    cycle = np.round(np.arange(3000) % 50) * 2 * np.pi / 50
    found = correlation_dimension(np.stack([np.sin(cycle), np.cos(cycle)], axis=1))
    assert found.dimension == pytest.approx(0, abs=1e-9) and found.error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation_dimension(np.zeros(200)), r"shape \[time, variable\]: got \(200,\)"),
        (lambda: correlation_dimension(np.zeros((50, 2))), "at least 100 complete points: got 50 of 50"),
        (lambda: correlation_dimension(np.zeros((200, 2))), "values must vary"),
        (lambda: correlation_dimension(np.full((200, 2), np.inf)), "finite or NaN"),
        (lambda: correlation_dimension(np.random.default_rng(0).random((200, 2)), theiler=50), "theiler.*got 50"),
        (lambda: permutation_entropy(np.zeros((2, 2, 2))), r"got \(2, 2, 2\)"),
        (lambda: permutation_entropy(np.arange(50.0), order=9), "order must lie between 2 and 8: got 9"),
        (lambda: permutation_entropy(np.arange(50.0), lag=0), "lag must be at least 1: got 0"),
        (lambda: permutation_entropy(np.arange(4.0), order=5), "longer than a window, 5 samples: got 4"),
        (lambda: pattern_shares(np.zeros((5, 1))), r"one channel: got \(5, 1\)"),
        (lambda: pattern_shares(np.array([0, 1, np.inf, 3])), "infinity"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("order", [2, 3, 4])
def test_every_pattern_has_its_own_place(order):
    for i, pattern in enumerate(permutations(range(order))):
        window = np.empty(order)
        window[list(pattern)] = np.arange(order)  # the least value stands at pattern[0], the next at pattern[1], ...
        np.testing.assert_array_equal(pattern_shares(window, order=order), np.eye(len(list(permutations(window))))[i])


def test_a_monotonic_series_has_no_entropy():
    x = np.exp(np.linspace(0, 3, 100))
    assert permutation_entropy(x, order=4) == permutation_entropy(-x, order=4) == 0.0


def test_period_two_has_two_patterns():
    x = np.tile([0.0, 1.0], 101)[:-1]  # 201 samples: as many windows of three from below as from above, but one
    shares = pattern_shares(x, order=3)
    # ties: of the two equal values the earlier is the smaller: (0, 1, 0) sorts to places 0 2 1, (1, 0, 1) to 1 0 2
    np.testing.assert_allclose(shares, [0, 100 / 199, 99 / 199, 0, 0, 0])
    p = np.array([100, 99]) / 199
    assert permutation_entropy(x, order=3, normalised=False) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)


def test_logistic_map_has_its_known_shares_and_a_forbidden_pattern():
    """x and its next two images change their order at 0, 1/4, (5 - sqrt 5) / 8, 3/4, (5 + sqrt 5) / 8, 1.

    Under the density 1 / (pi sqrt(x (1 - x))), that is x = sin^2(pi u / 2) with u even on [0, 1], these are
    u = 0, 1/3, 2/5, 2/3, 4/5, 1; a falling window never comes.
    """
    shares = pattern_shares(logistic(0.3141, 200_000), order=3)
    # places of least, middle, greatest: 012, 021, 102, 120, 201, 210
    wanted = np.array([1 / 3, 1 / 15, 2 / 15, 1 / 5, 4 / 15, 0])
    # 2e5 dependent windows: standard error below 0.0011
    np.testing.assert_allclose(shares, wanted, atol=0.005)
    assert shares[-1] == 0


def test_independent_values_use_all_orders_within_the_stated_bias():
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    entropies = permutation_entropy(x, order=5)
    assert entropies.shape == (3,)
    bias = (120 - 1) / (2 * 20_000) / np.log(120)
    np.testing.assert_allclose(entropies, 1 - bias, atol=3e-4)
    np.testing.assert_array_equal(entropies[1], permutation_entropy(x[:, 1], order=5))


def test_only_orders_count():
    x = np.random.default_rng(1).normal(size=2000)
    assert permutation_entropy(np.exp(3 * x) - 7, order=4) == permutation_entropy(x, order=4)


def test_windows_with_a_gap_are_left_out_and_lags_interleave():
    x = np.random.default_rng(2).normal(size=500)
    gap = np.concatenate([x[:250], [np.nan], x[250:]])
    parts = [pattern_shares(p, order=4) * (250 - 3) for p in (x[:250], x[250:])]
    np.testing.assert_allclose(pattern_shares(gap, order=4), (parts[0] + parts[1]) / 494, rtol=1e-12)
    twice = np.repeat(x, 2)
    np.testing.assert_allclose(pattern_shares(twice, order=4, lag=2), pattern_shares(x, order=4), rtol=1e-12)
    assert np.isnan(permutation_entropy(np.full(20, np.nan)))


def test_the_order_follows_the_length():
    x = np.random.default_rng(3).normal(size=1000)
    assert permutation_entropy(x) == permutation_entropy(x, order=4)  # 10 * 4! <= 1000 < 10 * 5!
