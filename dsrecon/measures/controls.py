"""Series that no measure may take for a good one: noise, a constant, a shuffle."""

import numpy as np
import scipy

from dsrecon.measures.gaps import check_observed, check_rows, observed
from dsrecon.measures.mixture import transitions

STREAM = 0x636F6E
"""Second word of every seed here, so that data drawn with the same seed are not the same draws."""

STILL = 0.01
"""A run whose second half moves by less than this share of the truth's standard deviation stands still."""

ORDERED = 0.5
"""Misses of the truth's own successors, as a share of chance, up to which the truth has an order to keep."""

UNORDERED = 0.8
"""The same share for a run, from which it has none."""

QUERIES, FEWEST, LONGEST = 500, 50, 10_000
"""States asked of, fewest and most steps looked at."""


def controls(true: np.ndarray, *, length: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Negative controls of a truth `[t, n]`: series that are wrong each in its own way.

    - `"white"`: Gaussian noise with the mean and standard deviation of each channel: no shape and no order.
    - `"constant"`: the mean: no motion.
    - `"shuffled"`: the observed rows of the truth in random order: the right states, no order.

    **Arguments:** `true`: NaN counts as not observed; `length` of the series (default: that of the truth; a shuffle of
    more rows than there are repeats the draw); `seed`.

    **Returns:** name to `[length, n]`. A measure that can tell them apart scores each far worse than a good fit.

    **Raises:** `ValueError` for another shape, infinity, an all-NaN channel, no row that is observed in every channel,
    or a length below 1.
    """
    true = np.asarray(true, np.float64)
    check_observed(true, "true")
    rows = check_rows(true, "true")
    length = len(true) if length is None else length
    if length < 1:
        raise ValueError(f"length must be at least 1: got {length}.")
    rng = np.random.default_rng((seed, STREAM))
    mean, sd = np.nanmean(true, 0), np.nanstd(true, 0, ddof=1)
    white = mean + sd * rng.normal(size=(length, true.shape[1]))
    orders = [rng.permutation(len(rows)) for _ in range(-(-length // len(rows)))]
    shuffled = rows[np.concatenate(orders)[:length]]
    return {"white": white, "constant": np.tile(mean, (length, 1)), "shuffled": shuffled}


def disorder(true: np.ndarray, generated: np.ndarray) -> str:
    """Why a run has no motion or no order in time where the truth has; empty when it has.

    A distance between visits (`d_stsp`, `d_stsp_mixture`) cannot see either, so this is judged apart:

    - *no motion*: the second half of the run has less than 1 % of the truth's standard deviation in every channel,
      that of the truth has more.
    - *no order*: nearest states have unrelated successors. `share = sum_t |x_{t+1} - x_{a+1}|^2 / sum_t |x_{t+1} -
      x_{r+1}|^2` with `a` the time of the state of the same series nearest to `x_t`, and `r` a random time: near 0
      for a flow or a map, near 1 for noise or a shuffle. Said of a run above 0.8 where the truth is below 0.5.

    **Arguments:** `true` `[t, n]`, may hold NaN; `generated` `[l, n]`, finite.
    """
    true, generated = np.asarray(true, np.float64), np.asarray(generated, np.float64)
    unit = np.nanstd(true, 0, ddof=1)
    still = [(_spread(series[len(series) // 2 :]) < STILL * unit).all() for series in (true, generated)]
    if still[1] and not still[0]:
        return "the free run does not move: it ends in a fixed point"
    known, pairs = (observed(transitions(series[:LONGEST] / unit, 1)) for series in (true, generated))
    if min(len(known), len(pairs)) < FEWEST or _missed(known) > ORDERED:
        return ""
    share = _missed(pairs)
    if share < UNORDERED:
        return ""
    return (
        "the free run has no order in time: the successors of its nearest states differ by "
        f"{100 * share:.0f} % of what chance gives"
    )


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation of the observed entries; 0 for a channel without any."""
    count = np.maximum(np.isfinite(values).sum(0), 1)
    mean = np.nansum(values, 0) / count
    return np.sqrt(np.nansum((values - mean) ** 2, 0) / count)


def _missed(pairs: np.ndarray) -> float:
    """How far successors in `pairs` `[t, 2 n]` miss those of the nearest other state, as a share of chance."""
    n = pairs.shape[1] // 2
    rng = np.random.default_rng(STREAM)
    asked = np.sort(rng.choice(len(pairs), min(QUERIES, len(pairs)), replace=False))
    nearest = np.asarray(scipy.spatial.KDTree(pairs[:, :n]).query(pairs[asked, :n], k=2)[1])
    other = np.where(nearest[:, 0] == asked, nearest[:, 1], nearest[:, 0])
    after = pairs[:, n:]
    chance = ((after[asked] - after[rng.integers(len(pairs), size=len(asked))]) ** 2).sum()
    return float(((after[asked] - after[other]) ** 2).sum() / chance) if chance > 0 else 0.0
