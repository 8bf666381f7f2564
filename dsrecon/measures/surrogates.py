"""Surrogate series: what the data would look like if a linear process had made them."""

import numpy as np


def phase_randomised(values: np.ndarray, *, seed: int) -> np.ndarray:
    """A Fourier surrogate: `X'_c(f) = X_c(f) exp(i phi(f))`, with one random phase `phi(f)` for all channels `c`.

    Every power spectrum, every cross-spectrum, and so all (circular) auto- and cross-covariances are kept to rounding;
    mean and standard deviation too. All else is that of a linear Gaussian process: the values become nearly normal.

    The discrete transform takes the series for one period of a periodic one. Where its last value does not lead back
    to its first, the jump shows as power at all high frequencies, and the surrogate is rougher than the data: cut
    the series by `matched_ends` first.

    **Arguments:** `values`: `[t]` or `[t, n]`, finite; `seed`: of the phases.

    **Returns:** a surrogate of the same shape, float64.

    **Raises:** `ValueError` for another shape, fewer than 4 samples, or values that are not finite.

    Reference: Theiler et al. 1992, *Testing for nonlinearity in time series: the method of surrogate data*, Physica D
    58, 77; several channels: Prichard & Theiler 1994, *Generating surrogate data for time series with several
    simultaneously measured variables*, Physical Review Letters 73, 951.
    """
    x = _checked(values)
    spectrum = np.fft.rfft(x, axis=0)
    return np.fft.irfft(spectrum * _phases(len(x), seed)[:, None], n=len(x), axis=0).reshape(np.shape(values))


def amplitude_adjusted(values: np.ndarray, *, seed: int, iterations: int = 100) -> np.ndarray:
    """An iterated amplitude-adjusted surrogate: the same values in another order, with (nearly) the same spectra.

    From a random shuffle on, two steps alternate: the moduli of the transform are set to those of the data, and the
    values to those of the data by rank. It stops at a fixed point or after `iterations` rounds, with the values exact
    and the spectrum as near as it came. With several channels the phases `phi_c` are set to `rho_c + alpha`,
    with `rho_c` those of the data and `alpha` the mean of `phi_c - rho_c` over the channels, which keeps
    the cross-spectra (nearly) too. It is what a linear Gaussian process looks like through a monotonic gauge.

    Ends that do not match matter as in `phase_randomised`.

    **Arguments:** `values`: `[t]` or `[t, n]`, finite; `seed`: of the shuffle; `iterations`: at most.

    **Returns:** a surrogate of the same shape, float64; each channel is a permutation of that of `values`.

    **Raises:** `ValueError` as `phase_randomised`, and for `iterations` below 1.

    Reference: Schreiber & Schmitz 1996, *Improved surrogate data for nonlinearity tests*, Physical Review Letters 77,
    635; several channels: Schreiber & Schmitz 2000, *Surrogate time series*, Physica D 142, 346.
    """
    x = _checked(values)
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1: got {iterations}.")
    data = np.fft.rfft(x, axis=0)
    moduli, ordered = np.abs(data), np.sort(x, axis=0)
    turned = data / np.where(moduli > 0, moduli, 1)
    y = np.random.default_rng(seed).permutation(x, axis=0)
    ranks = np.zeros(x.shape, np.intp)
    for _ in range(iterations):
        common = (np.fft.rfft(y, axis=0) * turned.conj()).sum(1, keepdims=True)
        size = np.abs(common)
        common = np.where(size > 0, common / np.where(size > 0, size, 1), 1)
        before, ranks = ranks, np.argsort(np.fft.irfft(data * common, n=len(x), axis=0), axis=0, kind="stable")
        np.put_along_axis(y, ranks, ordered, axis=0)
        if np.array_equal(before, ranks):
            break
    return y.reshape(np.shape(values))


def matched_ends(values: np.ndarray, *, least: float = 0.9) -> slice:
    """The stretch that leads back to its own beginning: what to cut a series to before surrogates are made of it.

    Over all stretches `first <= t < end` with at least the share `least` of the samples, the least of
    `|x_first - x_end|^2 + |x_{first+1} - x_{end+1}|^2` in units of the channels' variances: the two samples that follow
    the stretch are nearly those it begins with, in value and in slope. A sine is cut to whole periods.

    **Arguments:** `values`: `[t]` or `[t, n]`, finite; `least`: above 0, below 1. At least two samples are cut.

    **Returns:** the slice of the time axis; of equally good ones the earliest, and of those the shortest.

    **Raises:** `ValueError` as `phase_randomised`, and for `least` out of range.

    Reference: the end-point problem is that of Schreiber & Schmitz 2000, *Surrogate time series*, Physica D 142, 346,
    section 4.6; they weigh the jump and the change of slope between the first and last samples.
    """
    x = _checked(values)
    if not 0 < least < 1:
        raise ValueError(f"least must lie between 0 and 1: got {least}.")
    variance = x.var(0)
    pairs = np.concatenate([x[:-1], x[1:]], axis=1) / np.tile(np.sqrt(np.where(variance > 0, variance, 1)), 2)
    shortest = min(max(int(np.ceil(least * len(x))), 1), len(x) - 2)
    misfit, best = np.inf, slice(0, len(x) - 2)
    for first in range(len(pairs) - shortest):
        each = ((pairs[first + shortest :] - pairs[first]) ** 2).sum(1)
        if each.min() < misfit:
            misfit, best = each.min(), slice(first, first + shortest + int(each.argmin()))
    return best


def _phases(length: int, seed: int) -> np.ndarray:
    """`exp(i phi)` `[f]`: 1 at frequency zero, a random sign at Nyquist's (which must stay real)."""
    turn = np.exp(2j * np.pi * np.random.default_rng(seed).random(length // 2 + 1))
    turn[0] = 1
    if length % 2 == 0:
        turn[-1] = np.where(turn[-1].real < 0, -1, 1)
    return turn


def _checked(values: np.ndarray) -> np.ndarray:
    """The values as `[t, n]`, float64."""
    x = np.asarray(values, np.float64)
    if x.ndim not in (1, 2) or 0 in x.shape or len(x) < 4:
        raise ValueError(f"values must have shape [time] or [time, variable] with at least 4 samples: got {x.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("values must be finite: a transform of gaps is not defined. Cut the longest stretch first.")
    return x.reshape(len(x), -1)
