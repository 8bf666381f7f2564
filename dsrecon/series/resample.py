"""Samples at any times, put on equidistant ones."""

import numpy as np

LARGE = 1.999  # gaps, in usual ones, from which nothing is put between two samples


def elapsed(times: np.ndarray) -> np.ndarray:
    """Time since the first of `times` `[t]` (numbers, or datetime64): float64, in seconds for dates."""
    if np.issubdtype(times.dtype, np.datetime64):
        return (times - times[0]) / np.timedelta64(1, "s")
    return np.asarray(times, np.float64) - float(times[0])


def resampled(values: np.ndarray, times: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Values `[t, n]` at strictly increasing `times` `[t]`, put on `times[0] + k step`; channel by channel.

    - `step` below twice the usual (median) gap: linear interpolation between the two neighbours, or the sample itself
      where one lies at that time. Where the neighbours are two usual gaps (or two steps) apart or more, there is
      nothing to interpolate: the value is NaN, which is missing.
    - `step` from twice the usual gap on: the mean of the samples within half a step, which keeps frequencies above
      the new sampling from folding back more than a plain choice of samples would; NaN where there is none.

    **Returns:** values `[k, n]` and times `[k]`. **Raises:** `ValueError` for a step that is not positive and finite,
    or of which the times do not hold at least one.
    """
    seconds = elapsed(times)
    if not 0 < step < np.inf:
        raise ValueError(f"resample must be positive and finite: got {step}.")
    count = int(np.floor(seconds[-1] / step * (1 + 1e-9) + 1e-9)) + 1
    if count < 2:
        raise ValueError(f"resample must be at most the time that the series covers, {seconds[-1]:g}: got {step}.")
    grid = np.arange(count) * step
    usual = float(np.median(np.diff(seconds)))
    coarse = step >= 2 * usual
    put = np.stack([_means(seconds, c, grid, step) if coarse else _lines(seconds, c, grid, step) for c in values.T], 1)
    if np.issubdtype(times.dtype, np.datetime64):
        return put, times[0] + np.round(grid * 1e9).astype("timedelta64[ns]")
    return put, float(times[0]) + grid


def _lines(seconds: np.ndarray, column: np.ndarray, grid: np.ndarray, step: float) -> np.ndarray:
    seen = np.isfinite(column)
    at, column = seconds[seen], column[seen]
    if len(at) < 2:
        return np.full(len(grid), np.nan)
    right = np.clip(np.searchsorted(at, grid, side="left"), 1, len(at) - 1)
    left = right - 1
    near = 1e-6 * step  # a sample within rounding of a grid time is that time's
    usual = max(float(np.median(np.diff(at))), step)
    within = (grid >= at[0] - near) & (grid <= at[-1] + near)
    exact = np.minimum(np.abs(grid - at[left]), np.abs(grid - at[right])) <= near
    known = within & ((at[right] - at[left] < LARGE * usual) | exact)
    return np.where(known, np.interp(grid, at, column), np.nan)


def _means(seconds: np.ndarray, column: np.ndarray, grid: np.ndarray, step: float) -> np.ndarray:
    seen = np.isfinite(column)
    cell = np.floor(seconds[seen] / step + 0.5).astype(int)
    inside = cell < len(grid)
    count = np.bincount(cell[inside], minlength=len(grid))
    total = np.bincount(cell[inside], column[seen][inside], minlength=len(grid))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def filled(values: np.ndarray) -> np.ndarray:
    """Values `[t, n]` with every missing one (NaN) on the line between its channel's neighbours in time.

    Before the first and after the last observation the nearest is held. A channel that was never observed stays NaN.
    """
    out = np.array(values, np.float64)
    t = np.arange(len(out))
    for column in out.T:
        missing = np.isnan(column)
        if missing.any() and not missing.all():
            column[missing] = np.interp(t[missing], t[~missing], column[~missing])
    return out
