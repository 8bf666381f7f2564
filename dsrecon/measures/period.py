"""The period of a series, from its autocorrelation."""

from typing import NamedTuple

import numpy as np
import scipy

LEAST = 0.2
"""Autocorrelation that a period must have."""

ROWS = 100_000
"""Rows that are looked at, the last ones; and a tenth of it the longest period that is looked for by itself."""


class Period(NamedTuple):
    """A period in `steps` (1: none was found), the `autocorrelation` at it, and the `reason` in words."""

    steps: int
    autocorrelation: float
    reason: str


def find_period(values: np.ndarray, *, longest: int | None = None) -> Period:
    """The period at which a series repeats itself best, by its autocorrelation once slow drifts are taken out.

    Slow drifts hide a period: the autocorrelation `r` of a drifting series falls gently past it. So the running mean
    over `w` rows is taken out, for `w = 5, 7, 11, ...`, half as long again each time, up to four times the longest
    period, and at last a straight line alone. In each case `r` is the mean over the channels, and a lag `p <= w` is a
    period where `r` has a peak after it fell below zero, has another near `2 p` of .6 of that or more, and

    `r(p) >= max(0.2, 4 / sqrt(t), 1.5 sqrt(p / t))`

    - the last two for what white noise of `t` rows, and the few cycles of a random walk, can show by chance. The
    highest peak is taken; of the peaks within 90 % of it, and of the drifts within .05, the first.

    **Arguments:** `values` `[t]` or `[t, n]`, NaN where missing (the last 100,000 rows are looked at); `longest`:
    largest period to look for (default: a third of the rows, at most 10,000).

    **Returns:** a `Period`; 1 step where nothing repeats.

    **Raises:** `ValueError` for other shapes, fewer than 3 rows, nothing observed, or a `longest` below 1.
    """
    x = np.asarray(values, np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) < 3:
        raise ValueError(f"values must have shape [t] or [t, n] with at least 3 rows: got {np.shape(values)}.")
    if not np.isfinite(x).any():
        raise ValueError("values must hold observations: got none that is finite.")
    if longest is not None and longest < 1:
        raise ValueError(f"longest must be at least 1: got {longest}.")
    x = x[-ROWS:]
    most = min(len(x) // 3, ROWS // 10) if longest is None else min(longest, (len(x) - 2) // 2)
    x = _levelled(x)
    if not x.shape[1]:
        return Period(1, float("nan"), "period 1: the series is constant")
    best = Period(1, float("nan"), "period 1: the autocorrelation has no peak that is high enough and comes again")
    highest = 0.0
    for w in [*_widths(min(4 * most, len(x) - 1)), len(x)]:
        r = _autocorrelation(x if w == len(x) else _risen(x, w), min(2 * most + 2, len(x) - 1))
        found = _peak(r, min(w, most), len(x))
        if found and r[found] > highest + (0.05 if highest else 0):
            highest = float(r[found])
            best = Period(
                found, highest, f"period {found}: the autocorrelation has its highest peak there, {highest:.2f}"
            )
    return best


def _widths(most: int) -> list[int]:
    widths = [5]
    while widths[-1] * 3 // 2 <= most:
        widths.append(widths[-1] * 3 // 2 | 1)
    return [w for w in widths if w <= most]


def _levelled(x: np.ndarray) -> np.ndarray:
    """Without each channel's straight line, and without the channels that are one."""
    t, kept = np.arange(len(x)) - (len(x) - 1) / 2, []
    for column in x.T:
        seen = np.isfinite(column)
        if seen.sum() < 3:
            continue
        rest = column - np.polyval(np.polyfit(t[seen], column[seen], 1), t)
        if np.nanstd(rest) > 1e-9 * np.abs(column[seen]).max():
            kept.append(rest)
    return np.stack(kept, 1) if kept else np.zeros((len(x), 0))


def _risen(x: np.ndarray, w: int) -> np.ndarray:
    """Without the running mean over `w` rows of what is observed."""
    seen = np.isfinite(x)

    def summed(values):
        total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0)])
        i = np.arange(len(values))
        return total[np.minimum(i + w // 2 + 1, len(values))] - total[np.maximum(i - w // 2, 0)]

    return x - summed(np.where(seen, x, 0.0)) / np.maximum(summed(seen.astype(float)), 1)


def _peak(r: np.ndarray, most: int, rows: int) -> int:
    """The lag of the first high peak, 0 where there is none."""
    below = np.flatnonzero(r < 0)
    peaks = 1 + np.flatnonzero((r[1:-1] > r[:-2]) & (r[1:-1] >= r[2:]))
    peaks = peaks[(peaks > (below[0] if len(below) else len(r))) & (peaks <= most)]
    peaks = peaks[r[peaks] >= np.maximum(max(LEAST, 4 / rows**0.5), 1.5 * np.sqrt(peaks / rows))]
    again = [r[2 * p - 1 - p // 10 : 2 * p + 2 + p // 10] for p in peaks]
    peaks = [p for p, near in zip(peaks, again, strict=True) if len(near) and near.max() >= 0.6 * r[p]]
    if not peaks:
        return 0
    first = next(int(p) for p in peaks if r[p] >= 0.9 * max(r[q] for q in peaks))
    near = [int(p) for p in peaks if first <= p <= first * 5 // 4]  # noise makes several peaks of a broad one
    return max(near, key=lambda p: r[p])


def _autocorrelation(x: np.ndarray, lags: int) -> np.ndarray:
    """Lags 0 to `lags - 1`, mean over the channels; each by the pairs of rows that are both observed."""
    found = []
    for column in x.T:
        seen = np.isfinite(column)
        rest = np.where(seen, column, 0.0)
        pairs = scipy.signal.fftconvolve(seen.astype(float), seen[::-1].astype(float))[len(x) - 1 :][:lags]
        products = scipy.signal.fftconvolve(rest, rest[::-1])[len(x) - 1 :][:lags]
        mean = np.where(pairs > 0.5, products / np.maximum(np.round(pairs), 1), 0.0)
        found.append(mean / mean[0] if mean[0] > 0 else np.zeros(lags))
    return np.mean(found, 0)
