"""Do two series live on the same attractor? Distances between their visits and between their spectra.

The truth may hold NaN (not observed). A generated series may not: there it means that the run has failed.
"""

from typing import NamedTuple

import numpy as np
import scipy

from dsrecon.measures.gaps import check_observed, check_rows, filled

DEFINITIONS = ("min-max", "padded", "two-sigma")
"""Names of the ranges that the literature bins over; their numbers do not compare."""

SMOOTHING = 1e-5
"""Laplace smoothing of every bin."""

OUTSIDE_LIMIT = 0.01
"""Share of points outside the range from which a run has failed."""


class Bins(NamedTuple):
    """Equal bins over a box: `low`, `high` `[n]`, how many a channel, and whether the lowest counts."""

    low: np.ndarray
    high: np.ndarray
    bins: int
    drop_lowest: bool


def bins_of(true: np.ndarray, *, bins: int = 30, definition: str = "min-max") -> Bins:
    """The bins that a definition lays over the truth `[t, n]`: over its rows that are observed in every channel.

    - `"min-max"`: [min, max] of the truth, the lowest bin left out (the AL-RNN tutorial).
    - `"padded"`: [min - sd / 10, max + sd / 10] (the tables of the PLRNN papers).
    - `"two-sigma"`: [-2 sd, 2 sd] about zero, for standardised data.

    **Raises:** `ValueError` for another name, bins outside 2 to 1000, more than 5 channels (the smoothing of `30^n`
    empty bins then swamps every count, and all series score alike), a constant channel, or fewer than two such rows.
    """
    true = check_rows(_truth(true), "true")
    if definition not in DEFINITIONS:
        raise ValueError(f"definition must be one of {DEFINITIONS}: got {definition!r}.")
    if not 2 <= bins <= 1000:
        raise ValueError(f"bins must lie between 2 and 1000: got {bins}.")
    if true.shape[1] > 5:
        raise ValueError(
            f"binned D_stsp is defined for at most 5 channels: got {true.shape[1]}. Choose up to five of them."
        )
    low, high, sd = true.min(0), true.max(0), true.std(0, ddof=1)
    if not (high > low).all():
        raise ValueError(f"true must vary in every channel: channel {int(np.argmin(high > low))} is constant.")
    if definition == "padded":
        low, high = low - 0.1 * sd, high + 0.1 * sd
    elif definition == "two-sigma":
        low, high = -2 * sd, 2 * sd
    return Bins(low, high, bins, definition == "min-max")


def d_stsp(true: np.ndarray, generated: np.ndarray, *, bins: int = 30, definition: str = "min-max") -> float:
    """State-space divergence by bins: `D_stsp = sum_k p_k ln(p_k / q_k)` in nats, 0 for equal visits.

    `p`, `q` are the visit histograms of `true` and `generated` `[t, n]` over `bins^n` bins, each count Laplace
    smoothed by 1e-5. Counting is sparse: memory grows with the points, not with the bins.

    Points outside the range do not count, so a run that has half left scores *better*: read `outside` beside it. The
    order in time plays no part, so a shuffled series scores as well as before: read `d_h` or `d_transition` beside it.

    **Arguments:** `true`, `generated`: `[t, n]`, n <= 5, lengths may differ, same units; of a truth with NaN the rows
    observed in every channel count; `bins` a channel; `definition` of the range: see `bins_of`. Numbers compare only
    under one definition and similar lengths.

    **Returns:** the divergence, or NaN when `generated` is not finite.

    **Raises:** `ValueError` as `bins_of`, and for other shapes, infinity or an all-NaN channel in the truth.

    Reference: Koppe et al. 2019, *Identifying nonlinear dynamical systems via generative RNNs*, PLoS Comput. Biol.;
    bins as in Hess et al. 2023 (`padded`), Brenner et al. 2024 (`min-max`).
    """
    grid = bins_of(true, bins=bins, definition=definition)
    generated = _same_channels(true, generated)
    if not np.isfinite(generated).all():
        return float("nan")
    return _divergence(grid, check_rows(_truth(true), "true"), generated)


def outside(true: np.ndarray, generated: np.ndarray) -> float:
    """Share of the points of `generated` `[t, n]` outside the `padded` range of `true` (or not finite): 0 to 1.

    The range of each channel is that of its observed entries.
    """
    true, generated = _truth(true), _same_channels(true, generated)
    low, high, sd = np.nanmin(true, 0), np.nanmax(true, 0), np.nanstd(true, 0, ddof=1)
    inside = (generated >= low - 0.1 * sd) & (generated <= high + 0.1 * sd)
    return float(1 - inside.all(1).mean())


def d_h(true: np.ndarray, generated: np.ndarray, *, smoothing: float = 20.0) -> float:
    """Hellinger distance of power spectra, mean over channels: 0 (equal) to 1 (disjoint).

    `D_H = mean_n sqrt(1 - sum_f sqrt(P_f Q_f))` with `P`, `Q` the squared moduli of the discrete Fourier transform of
    the standardised channel, smoothed by a Gaussian of `smoothing` bins and normalised to one. Evaluated as
    `|sqrt P - sqrt Q| / sqrt 2`, which is exactly 0 for equal series.

    A channel that does not vary has no spectrum: its distance is 1. Where the truth is not observed (NaN), both series
    lose that value and have it filled alike by a straight line (`filled`): the gaps shape both spectra, and a series
    with the same gaps as itself stays at 0. A `generated` series with NaN or infinity gives NaN.

    **Arguments:** `true`, `generated`: `[t, n]` of *equal length* (the measure moves with length: say it);
    `smoothing`: standard deviation of the Gaussian, in frequency bins.

    **Raises:** `ValueError` for other shapes or lengths, infinity or an all-NaN channel in the truth.

    Reference: Mikhaeil et al. 2022, *On the difficulty of learning chaotic dynamics with RNNs*, NeurIPS.
    """
    true, generated = _truth(true), _same_channels(true, generated)
    if len(true) != len(generated):
        raise ValueError(f"true and generated must have equal length: got {len(true)} and {len(generated)}.")
    if not np.isfinite(generated).all():
        return float("nan")
    gaps = np.isnan(true)
    if gaps.any():
        true, generated = filled(true), filled(np.where(gaps, np.nan, generated))
    p, q = smoothed_spectrum(true, smoothing), smoothed_spectrum(generated, smoothing)
    distance = np.linalg.norm(np.sqrt(p) - np.sqrt(q), axis=0) / np.sqrt(2)
    flat = (p.sum(0) == 0) | (q.sum(0) == 0)
    return float(np.where(flat, 1.0, distance).mean())


def smoothed_spectrum(values: np.ndarray, smoothing: float = 20.0) -> np.ndarray:
    """Power `[f, n]` of each standardised channel of `[t, n]`, Gaussian-smoothed, summing to one (to 0 if constant)."""
    centred = values - values.mean(0)
    constant = np.ptp(values, axis=0) == 0
    centred[:, constant] = 0
    power = np.abs(np.fft.rfft(centred / np.where(constant, 1, values.std(0)), axis=0)) ** 2
    power = scipy.ndimage.gaussian_filter1d(power, smoothing, axis=0, mode="reflect")
    return power / np.where(constant, 1, power.sum(0))


def _divergence(grid: Bins, true: np.ndarray, generated: np.ndarray) -> float:
    cells, where = np.unique(np.concatenate([_visits(grid, true), _visits(grid, generated)]), return_inverse=True)
    split = len(_visits(grid, true))
    counts = [np.bincount(w, minlength=len(cells)) for w in (where[:split], where[split:])]
    every = float(grid.bins) ** true.shape[1]
    p, q = ((c + SMOOTHING) / (c.sum() + SMOOTHING * every) for c in counts)
    total = [c.sum() + SMOOTHING * every for c in counts]
    empty = (every - len(cells)) * SMOOTHING / total[0] * np.log(total[1] / total[0])
    return float((p * np.log(p / q)).sum() + empty)


def _visits(grid: Bins, values: np.ndarray) -> np.ndarray:
    """Flat index of the bin of every point inside."""
    values = values[((values >= grid.low) & (values <= grid.high)).all(1)]
    position = (values - grid.low) / (grid.high - grid.low) * grid.bins
    inside = ((position >= (1 if grid.drop_lowest else 0)) & (position < grid.bins)).all(1)
    index = position[inside].astype(np.int64)
    return index @ (grid.bins ** np.arange(values.shape[1], dtype=np.int64))


def _truth(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    check_observed(values, "true")
    return values


def _same_channels(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    generated = np.asarray(generated, np.float64)
    if generated.ndim != 2 or 0 in generated.shape:
        raise ValueError(f"generated must have shape [time, variable]: got {generated.shape}.")
    if generated.shape[1] != np.shape(true)[1]:
        raise ValueError(
            f"true and generated must have the same variables: got {np.shape(true)[1]} and {generated.shape[1]}."
        )
    return generated
