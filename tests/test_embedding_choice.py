"""Lag and dimension of delay embeddings, and the test for chaos: known systems, laws, bad input."""

from functools import cache

import numpy as np
import pytest

from dsrecon.measures.chaos import VERDICTS, _growth, _states, chaos_test
from dsrecon.measures.embedding import choose_embedding, decorrelation_time, false_neighbours, mutual_information


@cache
def flow(name, samples, dt):
    """First coordinate by fourth-order Runge-Kutta."""
    fields = {
        "lorenz": lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z),
        "roessler": lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)),
        "van der pol": lambda x, y, z: (y, 2 * (1 - x * x) * y - x, 0.0),
    }
    steps = int(np.ceil(dt / 0.05))
    h, z, out = dt / steps, (1.0, 1.0, 15.0 if name == "lorenz" else 0.0), np.empty(samples)
    for i in range(-int(50 / dt), samples):
        for _ in range(steps):
            total, k = [0.0] * 3, (0.0, 0.0, 0.0)
            for share, weight in ((0, 1), (0.5, 2), (0.5, 2), (1, 1)):
                k = fields[name](*(a + share * h * b for a, b in zip(z, k, strict=True)))
                total = [a + weight * b for a, b in zip(total, k, strict=True)]
            z = tuple(a + h / 6 * b for a, b in zip(z, total, strict=True))
        if i >= 0:
            out[i] = z[0]
    return out


def logistic(samples, r=4.0):
    x, out = 0.3141, np.empty(samples)
    for i in range(samples):
        x = out[i] = r * x * (1 - x)
    return out


def henon(samples):
    x, y, out = 0.1, 0.1, np.empty(samples + 50)
    for i in range(len(out)):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        out[i] = x
    return out[50:]


def noisy(x, share=0.05, seed=0):
    return x + share * x.std() * np.random.default_rng(seed).normal(size=len(x))


def autoregressive(a, samples, seed=0):
    e, x = np.random.default_rng(seed).normal(size=samples + 200), np.zeros(samples + 200)
    for i in range(len(a), len(x)):
        x[i] = e[i] + sum(c * x[i - 1 - j] for j, c in enumerate(a))
    return x[200:]


def gaps(x):
    x = x.copy()
    x[np.random.default_rng(1).random(len(x)) < 0.05] = np.nan
    return x


CASES = {
    "lorenz": (lambda: flow("lorenz", 8000, 0.01), (16, 18), (3, 3)),
    "lorenz, noise": (lambda: noisy(flow("lorenz", 8000, 0.01)), (15, 19), (3, 4)),
    "lorenz, noise and gaps": (lambda: gaps(noisy(flow("lorenz", 8000, 0.01))), (15, 19), (3, 4)),
    "roessler": (lambda: flow("roessler", 6000, 0.1), (12, 15), (3, 3)),
    "roessler, noise": (lambda: noisy(flow("roessler", 6000, 0.1)), (11, 16), (3, 4)),
    "logistic": (lambda: logistic(3000), (1, 1), (1, 1)),
    "henon": (lambda: henon(3000), (1, 1), (2, 2)),
    "sine": (lambda: np.sin(np.arange(4000) * 0.0717), (8, 30), (2, 2)),  # a quarter of a period is 22
}


@pytest.mark.parametrize("name", CASES)
def test_embedding_of_a_known_system(name):
    make, lags, dimensions = CASES[name]
    choice = choose_embedding(make())
    assert lags[0] <= choice.lag <= lags[1], choice.reason
    assert dimensions[0] <= choice.dimension <= dimensions[1], (choice.reason, choice.share)
    assert f"lag {choice.lag}:" in choice.reason and f"dimension {choice.dimension}:" in choice.reason


def test_noise_has_no_dimension_and_the_reason_says_so():
    choice = choose_embedding(np.random.default_rng(0).normal(size=3000))
    assert choice.lag == 1 and "hardly fewer beyond" in choice.reason


def test_a_curve_without_minimum_falls_to_one_in_e():
    choice = choose_embedding(autoregressive([0.95], 4000))
    assert "falls to 1/e" in choice.reason
    # I(l) = -ln(1 - 0.95^2l) / 2 falls to 1/e of I(1) at lag 7.6, where 5 % of I(1) are uncertain
    assert 6 <= choice.lag <= 9


def test_lag_and_dimension_can_be_given():
    choice = choose_embedding(henon(500), lag=3, dimension=5)
    assert (choice.lag, choice.dimension) == (3, 5)
    assert choice.reason.count("given") == 2


def test_information_of_a_gaussian_process_is_the_known_one():
    lags, information = mutual_information(autoregressive([0.8], 20_000), 5, bins=20)
    np.testing.assert_array_equal(lags, np.arange(6))
    wanted = -0.5 * np.log(1 - 0.8 ** (2 * lags[1:]))
    # bins lose the fine structure (below) and add (20 - 1)^2 / 40,000 = 0.009 (above)
    np.testing.assert_allclose(information[1:], wanted, atol=0.04)
    assert information[0] == pytest.approx(np.log(20), rel=1e-4)


def test_information_knows_only_ranks_and_direction_does_not_matter():
    x = noisy(logistic(2000))
    wanted = mutual_information(x, 10)[1]
    np.testing.assert_allclose(mutual_information(np.exp(2 * x), 10)[1], wanted, rtol=1e-9)
    np.testing.assert_allclose(mutual_information(x[::-1].copy(), 10)[1], wanted, rtol=1e-9)


def test_information_of_independent_values_is_the_stated_bias():
    x = np.random.default_rng(0).normal(size=5000)
    information = mutual_information(x, 40, bins=20)[1][1:]
    assert information.mean() == pytest.approx((20 - 1) ** 2 / (2 * 5000), rel=0.1)


def test_pairs_with_a_gap_are_left_out():
    x = logistic(400)
    gap = x.copy()
    gap[200] = np.nan
    a, b = gap[:-3], gap[3:]
    both = ~np.isnan(a + b)
    edges = np.quantile(gap[~np.isnan(gap)], np.arange(1, 5) / 5)
    table = np.histogram2d(np.searchsorted(edges, a[both], "right"), np.searchsorted(edges, b[both], "right"), bins=5)[
        0
    ]
    p = table / table.sum()
    outer = p.sum(1, keepdims=True) * p.sum(0)
    wanted = (p[p > 0] * np.log(p[p > 0] / outer[p > 0])).sum()
    assert mutual_information(gap, 3, bins=5)[1][3] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "lag", "theiler"),
    [
        (lambda: flow("roessler", 400, 0.1), 5, 12),
        (lambda: noisy(autoregressive([1.8, -0.85], 400), 0.01), 1, 1),  # neighbours in time are neighbours in space
        (lambda: np.random.default_rng(7).normal(size=400), 2, 3),  # neighbours too far to be any
    ],
    ids=["roessler", "smooth noise", "white noise"],
)
def test_false_neighbours_are_those_of_a_plain_loop(make, lag, theiler):
    x = make()
    dimensions, share = false_neighbours(x, lag, 3, theiler=theiler)
    vectors = np.stack([x[i : len(x) - 3 * lag + i] for i in lag * np.arange(4)], axis=1)
    for d in dimensions:
        false = 0
        for t, v in enumerate(vectors):
            distance = np.linalg.norm(vectors[:, :d] - v[:d], axis=1)
            distance[np.abs(np.arange(len(vectors)) - t) <= theiler] = np.inf
            near = distance.argmin()
            apart = abs(vectors[near, d] - v[d])
            false += apart > 15 * distance[near] or np.hypot(apart, distance[near]) > 2 * x.std()
        assert share[d - 1] == pytest.approx(false / len(vectors), abs=1e-12)


def test_decorrelation_time_of_known_processes():
    assert decorrelation_time(np.cos(np.arange(5000) * 0.01)) == pytest.approx(np.arccos(1 / np.e) / 0.01, abs=4)
    # 0.9^l = 1/e at 9.5; a gap in twenty changes little
    x = autoregressive([0.9], 50_000)
    assert abs(decorrelation_time(x) - 10) <= 1 and abs(decorrelation_time(gaps(x)) - 10) <= 1
    assert decorrelation_time(np.stack([x, np.full(len(x), 2.0)], axis=1)) == decorrelation_time(x)


SAID = {
    "white noise": (lambda: np.random.default_rng(2).normal(size=1000), 0),
    "oscillator": (lambda: autoregressive([1.8, -0.95], 1000, seed=4), 0),
    "cubed": (lambda: autoregressive([1.6, -0.9], 1000, seed=4) ** 3, 0),
    "limit cycle": (lambda: noisy(flow("van der pol", 1000, 0.2), 0.01), 1),
    "lorenz": (lambda: noisy(flow("lorenz", 1000, 0.05)), 2),
    "logistic": (lambda: noisy(logistic(1000)), 2),
    "henon": (lambda: noisy(henon(1000)), 2),
}


@pytest.mark.parametrize("name", SAID)
def test_chaos_is_told_from_noise_and_from_cycles(name):
    make, said = SAID[name]
    found = chaos_test(make(), seed=0)
    assert found.verdict == VERDICTS[said], found
    assert found.null.shape == (39,)
    assert found.p_value == pytest.approx((1 + (found.null <= found.statistic).sum()) / 40)
    assert (found.p_value <= 0.05) == (said > 0)
    assert said < 2 or found.growth_p_value <= 0.05


def test_growth_of_the_logistic_map_is_its_exponent():
    found = chaos_test(logistic(3000), seed=0, surrogates=19)
    assert found.growth == pytest.approx(np.log(2), abs=0.05)
    assert found.growth_error < 0.03 and found.unpredicted < 1e-3
    assert found.step == found.lag == 1


def test_growth_of_a_noise_free_map_that_contracts_is_negative():
    x = autoregressive([0.5], 1500)
    assert chaos_test(x, seed=1, surrogates=19).growth < -0.4


def test_units_do_not_matter_and_a_seed_repeats():
    x = noisy(henon(400))
    one, other = chaos_test(x, seed=3, surrogates=19), chaos_test(1e4 * x - 3.0, seed=3, surrogates=19)
    assert other.p_value == one.p_value and other.verdict == one.verdict
    assert other.growth == pytest.approx(one.growth, rel=1e-6)
    np.testing.assert_allclose(other.null, one.null, rtol=1e-9)


def test_more_dimensions_than_needed_add_no_growth():
    """Noise-free states fill a sheet only; what a fit says across it would be spurious exponents."""
    found = chaos_test(flow("van der pol", 1000, 0.2), seed=0, surrogates=19)
    assert found.verdict == VERDICTS[1]
    assert abs(found.growth) < 0.02 and found.unpredicted < 1e-3


def test_directions_that_are_not_filled_have_no_growth():
    x = henon(1500)
    x = ((x - x.mean()) / x.std())[:, None]
    needed, more = (_growth(_states(x, d, d), 1, 1, 12)[0] for d in (2, 3))
    assert needed == pytest.approx(0.419, abs=0.04)
    assert more == pytest.approx(0.419, abs=0.06)  # 0.76 where slopes across the sheet are let in


def test_several_channels_are_taken_together():
    x = henon(801)
    found = chaos_test(np.stack([x[1:], x[:-1]], axis=1), seed=0, surrogates=19)
    assert found.verdict == VERDICTS[2]
    assert found.growth == pytest.approx(0.419, abs=0.06)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mutual_information(np.zeros((9, 2))), r"shape \[time\], one channel.*got \(9, 2\)"),
        (lambda: mutual_information(np.arange(9.0), 9), "max_lag must lie between 1 and 8: got 9"),
        (lambda: mutual_information(np.arange(9.0), 2, bins=1), "bins must be at least 2: got 1"),
        (lambda: false_neighbours(henon(100), 0), "lag and max_dimension must be at least 1: got 0 and 10"),
        (lambda: false_neighbours(henon(100), 10), "x must be longer: 0 complete delay vectors"),
        (lambda: false_neighbours(henon(100), 1, theiler=-1), "theiler must be at least 0: got -1"),
        (lambda: choose_embedding(henon(300), dimension=0), "dimension must be at least 1: got 0"),
        (lambda: decorrelation_time(np.full(20, 2.0)), "values must vary"),
        (lambda: decorrelation_time(np.full(20, np.inf)), "infinity"),
        (lambda: chaos_test(henon(100), seed=0), r"at least 200 samples: got \(100,\)"),
        (lambda: chaos_test(np.full(300, np.nan), seed=0), "values must be finite"),
        (lambda: chaos_test(np.full(300, 1.0), seed=0), "channel 0 is constant"),
        (lambda: chaos_test(henon(300), seed=0, surrogates=9), "surrogates must be at least 1 / level - 1 = 19: got 9"),
        (lambda: chaos_test(henon(300), seed=0, level=2.0), "level must lie between 0 and 1: got 2.0"),
        (lambda: chaos_test(henon(300), seed=0, lag=50), "lag must lie between 1 and a fortieth.*got 50"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
