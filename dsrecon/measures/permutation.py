"""Permutation entropy: how evenly a series uses the orders that its neighbouring values can stand in."""

from math import factorial

import numpy as np


def pattern_shares(values: np.ndarray, *, order: int = 3, lag: int = 1) -> np.ndarray:
    """Share of every ordinal pattern among the windows `(x_t, x_{t+lag}, ..., x_{t+(order-1)lag})`.

    A window's pattern is the permutation that sorts it: the places of its least value, the next, and so on. Of equal
    values the earlier counts as the smaller. Windows with a missing value are left out.

    **Arguments:** `values`: `[t]`, NaN = missing; `order`: length of a window, 2 to 8; `lag` in samples.

    **Returns:** `[order!]`, summing to one, in lexicographic order of the permutations: first that of the growing
    window, last that of the falling one. NaN when no window is complete.

    **Raises:** `ValueError` for another shape, numbers out of range, a series shorter than a window, or infinity.

    Reference: Bandt & Pompe 2002, *Permutation entropy: a natural complexity measure for time series*, Physical Review
    Letters 88, 174102.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1:
        raise ValueError(f"values must have shape [time], one channel: got {x.shape}.")
    if not 2 <= order <= 8:
        raise ValueError(f"order must lie between 2 and 8: got {order}.")
    if lag < 1:
        raise ValueError(f"lag must be at least 1: got {lag}.")
    count = len(x) - (order - 1) * lag
    if count < 1:
        raise ValueError(f"values must be longer than a window, {(order - 1) * lag + 1} samples: got {len(x)}.")
    if np.isinf(x).any():
        raise ValueError("values must be finite or NaN (missing): they hold infinity.")
    windows = x[np.arange(count)[:, None] + lag * np.arange(order)]
    windows = windows[~np.isnan(windows).any(1)]
    if not len(windows):
        return np.full(factorial(order), np.nan)
    places = np.argsort(windows, axis=1, kind="stable")
    # Lehmer code: how many later places are smaller, in the factorial number system
    smaller = np.stack([(places[:, i + 1 :] < places[:, i : i + 1]).sum(1) for i in range(order)], axis=1)
    rank = smaller @ np.array([factorial(order - 1 - i) for i in range(order)])
    return np.bincount(rank, minlength=factorial(order)) / len(windows)


def permutation_entropy(
    values: np.ndarray, *, order: int | None = None, lag: int = 1, normalised: bool = True
) -> float | np.ndarray:
    """Permutation entropy `H = -sum_p p ln p` of the shares of ordinal patterns, in nats or over `ln order!`.

    0 for a monotonic series, 1 (normalised) when all patterns are equally frequent. Of `N` independent windows the
    estimate is below the truth by about `(patterns seen - 1) / (2 N)` nats, which is not corrected; for independent
    values order 5 and 10^4 samples, 0.001 of the normalised value.

    **Arguments:** `values`: `[t]` or `[t, n]`, NaN = missing: windows with one are left out; `order`: by default the
    largest from 3 to 6 with `10 order!` at most the number of samples; `lag` in samples (1 for maps; for a finely
    sampled flow about the lag of `choose_embedding`, or nearly all windows are monotonic); `normalised`: to 1.

    **Returns:** the entropy; of `[t, n]` one a channel, `[n]`. NaN where no window is complete.

    **Raises:** `ValueError` as `pattern_shares`.

    Reference: Bandt & Pompe 2002, Physical Review Letters 88, 174102.
    """
    x = np.asarray(values, np.float64)
    if x.ndim not in (1, 2) or 0 in x.shape:
        raise ValueError(f"values must have shape [time] or [time, variable]: got {x.shape}.")
    if order is None:
        order = max([o for o in (3, 4, 5, 6) if 10 * factorial(o) <= len(x)], default=3)
    shares = np.stack([pattern_shares(c, order=order, lag=lag) for c in x.reshape(len(x), -1).T])
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1) + 0.0
    entropy = entropy / (np.log(factorial(order)) if normalised else 1.0)
    return float(entropy[0]) if x.ndim == 1 else entropy
