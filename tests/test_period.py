"""The period of a series, and the errors of forecasts."""

import numpy as np
import pytest

from dsrecon.measures import crps, find_period, mae, mse, naive_error, smape

T = np.arange(600)


def noise(rows=600, seed=0):
    return np.random.default_rng(seed).normal(size=rows)


@pytest.mark.parametrize(
    "values, period",
    [
        (np.sin(2 * np.pi * T / 12), 12),
        (np.sin(2 * np.pi * T / 12) + 0.05 * T, 12),
        (np.sin(2 * np.pi * T / 24) + noise(), 24),
        (np.sin(2 * np.pi * T / 24) + 0.3 * np.cumsum(noise()), 24),
        ((T % 7 == 0) * 1.0, 7),
        ((-1.0) ** T, 2),
        (np.where(noise(600, 1) > 1, np.nan, np.sin(2 * np.pi * T / 30)), 30),
        (np.stack([np.sin(2 * np.pi * T / 20), np.zeros(600)], 1), 20),
        (np.exp(T / 300) * (1 + 0.2 * np.sin(2 * np.pi * T / 12)), 12),
        (np.sin(2 * np.pi * T[:40] / 12), 12),
    ],
    ids=["sine", "trend", "noise", "walk", "weekly", "alternating", "gaps", "two", "growing", "three cycles"],
)
def test_a_period_is_found(values, period):
    found = find_period(values)
    assert found.steps == period and found.reason.startswith(f"period {period}: ") and found.autocorrelation > 0.2


@pytest.mark.parametrize("values", [np.ones(50), 0.3 * T, noise(), noise(30)], ids=["constant", "line", "noise", "few"])
def test_nothing_that_repeats_has_period_one(values):
    found = find_period(values)
    assert found.steps == 1 and np.isnan(found.autocorrelation) and found.reason.startswith("period 1: ")


def test_random_walks_rarely_have_a_period():
    found = [find_period(np.cumsum(noise(1000, seed))).steps for seed in range(30)]
    assert sum(steps > 1 for steps in found) <= 3


def test_a_period_beyond_the_longest_is_not_found():
    wave = np.sin(2 * np.pi * T / 24)
    assert find_period(wave, longest=24).steps == 24 and find_period(wave, longest=23).steps == 1


@pytest.mark.parametrize(
    "values, options, message",
    [
        (np.ones(2), {}, "at least 3 rows"),
        (np.ones((3, 3, 3)), {}, r"shape \[t\] or \[t, n\]"),
        (np.full(9, np.nan), {}, "must hold observations"),
        (np.ones(9), {"longest": 0}, "longest must be at least 1: got 0"),
    ],
)
def test_what_has_no_period_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        find_period(values, **options)


def test_errors_by_hand():
    y, f = np.array([1.0, 2.0, np.nan, 0.0]), np.array([2.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(mse(y, f), [1, 4, np.nan, 0])
    np.testing.assert_array_equal(mae(y, f), [1, 2, np.nan, 0])
    np.testing.assert_allclose(smape(y, f), [200 / 3, 200, np.nan, 0])
    assert smape(np.ones(1), np.full(1, np.inf)).tolist() == [200]
    values = np.array([[1.0], [3.0], [np.nan], [4.0], [8.0]])
    assert naive_error(values).tolist() == [3.0] and naive_error(values, 2).tolist() == [1.0]
    with pytest.raises(ValueError, match="period must be from 1 to 4"):
        naive_error(values, 5)


def test_crps_of_a_normal_distribution_is_its_closed_form():
    """Over the standard normal: 2 E|X - y| - E|X - X'| by halves (Gneiting & Raftery 2007, eq. 21)."""
    from scipy.stats import norm

    levels = (np.arange(2000) + 0.5) / 2000
    y = np.array([-1.3, 0.0, 2.0])
    wanted = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
    found = crps(y, np.broadcast_to(norm.ppf(levels), (3, 2000)), levels.tolist())
    np.testing.assert_allclose(found, wanted, atol=2e-4)  # of 2,000 quantiles
    assert np.isnan(crps(np.array([np.nan]), np.zeros((1, 1)), [0.5]))[0]
    assert crps(np.array([3.0]), np.zeros((1, 1)), [0.5]).tolist() == [3.0]
    with pytest.raises(ValueError, match=r"levels must be 1 numbers in \(0, 1\)"):
        crps(y[:1], np.zeros((1, 1)), [1.0])
