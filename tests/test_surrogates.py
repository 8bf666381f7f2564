"""Surrogates: what they must keep, to the bit or to rounding, and what they must not keep."""

import numpy as np
import pytest

from dsrecon.measures.surrogates import amplitude_adjusted, matched_ends, phase_randomised


def walk(length, seed=0):
    """Three channels with memory, skewed values and common parts; their ends do not match."""
    rng = np.random.default_rng(seed)
    common = np.cumsum(rng.normal(size=length))
    own = np.exp(rng.normal(size=(length, 3)))
    return own + np.stack([common, 0.3 * common, np.roll(common, 5)], axis=1)


def cross_spectra(x):
    spectrum = np.fft.rfft(x, axis=0)
    return spectrum[:, :, None] * spectrum[:, None, :].conj()


def circular_covariance(x, lag):
    centred = x - x.mean(0)
    return centred.T @ np.roll(centred, -lag, axis=0) / len(x)


@pytest.mark.parametrize("length", [256, 501])
def test_phase_randomised_keeps_all_spectra_and_the_mean(length):
    x = walk(length)
    y = phase_randomised(x, seed=3)
    wanted = cross_spectra(x)
    np.testing.assert_allclose(cross_spectra(y), wanted, atol=1e-12 * np.abs(wanted).max())
    np.testing.assert_allclose(y.mean(0), x.mean(0), rtol=1e-12)
    for lag in (0, 1, 7, 100):
        np.testing.assert_allclose(circular_covariance(y, lag), circular_covariance(x, lag), rtol=1e-9)


def test_phase_randomised_is_another_series_each_seed_and_the_same_for_one():
    x = walk(300)
    first, again, other = (phase_randomised(x, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    for y in (x, other):
        assert np.abs(np.corrcoef((first - first.mean(0)).ravel(), (y - y.mean(0)).ravel())[0, 1]) < 0.9
    assert first.shape == x.shape and phase_randomised(x[:, 0], seed=1).shape == (300,)


def test_one_channel_alone_and_one_column_are_the_same():
    x = walk(100)[:, :1]
    np.testing.assert_array_equal(phase_randomised(x, seed=5)[:, 0], phase_randomised(x[:, 0], seed=5))
    np.testing.assert_array_equal(amplitude_adjusted(x, seed=5)[:, 0], amplitude_adjusted(x[:, 0], seed=5))


def test_phases_are_the_same_in_all_channels():
    """Linear in the channels: the surrogate of a mixture is the mixture of surrogates."""
    x, mixing = walk(200), np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]])
    np.testing.assert_allclose(phase_randomised(x @ mixing, seed=9), phase_randomised(x, seed=9) @ mixing, rtol=1e-9)


def test_phase_randomised_breaks_asymmetry_in_time():
    """A saw has steep falls; a linear Gaussian process cannot tell forwards from backwards."""
    saw = np.arange(1000.0) % 20

    def asymmetry(x):
        return np.mean(np.diff(x) ** 3) / np.mean(np.diff(x) ** 2) ** 1.5

    null = [asymmetry(phase_randomised(saw, seed=s)) for s in range(30)]
    assert asymmetry(saw) < -3
    assert abs(np.mean(null)) < 1 and np.std(null) < 1.5


@pytest.mark.parametrize("channels", [1, 3])
def test_amplitude_adjusted_permutes_the_values_and_nearly_keeps_the_spectra(channels):
    x = walk(2000)[:, :channels]
    y = amplitude_adjusted(x, seed=4)
    np.testing.assert_array_equal(np.sort(y, axis=0), np.sort(x, axis=0))
    wanted, shuffled = cross_spectra(x), np.random.default_rng(4).permutation(x, axis=0)

    def misfit(z):
        return np.linalg.norm(cross_spectra(z)[1:] - wanted[1:]) / np.linalg.norm(wanted[1:])

    # 2,000 samples: what is left of the misfit falls with the length (Schreiber & Schmitz 1996), 1.0 when shuffled
    assert misfit(shuffled) > 0.9
    assert misfit(y) < 0.02
    assert np.abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]) < 0.99


def test_more_iterations_come_nearer():
    x = walk(1000)[:, 0]
    power = np.abs(np.fft.rfft(x))
    misfits = [
        np.linalg.norm(np.abs(np.fft.rfft(amplitude_adjusted(x, seed=0, iterations=i))) - power) for i in (1, 5, 100)
    ]
    assert misfits[0] > misfits[1] > misfits[2]


def test_a_fixed_point_ends_the_iteration():
    x = walk(500)[:, 0]
    np.testing.assert_array_equal(
        amplitude_adjusted(x, seed=0, iterations=1000), amplitude_adjusted(x, seed=0, iterations=2000)
    )


def test_a_constant_channel_stays_and_does_no_harm():
    x = np.stack([np.full(64, 3.0), walk(64)[:, 0]], axis=1)
    for y in (phase_randomised(x, seed=1), amplitude_adjusted(x, seed=1)):
        np.testing.assert_allclose(y[:, 0], 3.0, rtol=1e-12)
        assert np.isfinite(y).all()


@pytest.mark.parametrize("length", [1000, 990])
def test_matched_ends_finds_whole_periods_and_the_surrogate_is_then_a_pure_sine(length):
    x = np.sin(2 * np.pi * np.arange(length) / 37)
    cut = matched_ends(x, least=0.9)
    assert (cut.stop - cut.start) % 37 == 0
    power = np.abs(np.fft.rfft(phase_randomised(x[cut], seed=1))) ** 2
    assert power.max() > (1 - 1e-12) * power.sum()
    # not cut, the series is no period of a periodic one, and the line leaks into its neighbours
    power = np.abs(np.fft.rfft(phase_randomised(x[: 962 - 19], seed=1))) ** 2
    assert power.max() < 0.9 * power.sum()


def test_matched_ends_is_the_best_of_all_stretches():
    x = walk(60)
    cut = matched_ends(x, least=0.8)
    y = x / x.std(0)
    every = {
        (i, j): np.sum((y[i] - y[j]) ** 2 + (y[i + 1] - y[j + 1]) ** 2) for i in range(13) for j in range(i + 48, 59)
    }
    assert (cut.start, cut.stop) == min(every, key=lambda key: every[key])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phase_randomised(np.zeros((2, 3, 4)), seed=0), r"shape \[time\] or \[time, variable\].*\(2, 3, 4\)"),
        (lambda: phase_randomised(np.zeros(3), seed=0), r"at least 4 samples: got \(3,\)"),
        (lambda: amplitude_adjusted(np.array([1.0, 2, np.nan, 4]), seed=0), "values must be finite"),
        (lambda: amplitude_adjusted(np.arange(9.0), seed=0, iterations=0), "iterations must be at least 1: got 0"),
        (lambda: matched_ends(np.arange(9.0), least=0.0), "least must lie between 0 and 1: got 0.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
