"""Missing values (NaN) in a truth: which rows can be used, and how a spectrum gets over a gap."""

import numpy as np

from dsrecon import series


def observed(values: np.ndarray) -> np.ndarray:
    """The rows of `[t, n]` that are finite in every channel."""
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values).all(1)]


def filled(values: np.ndarray) -> np.ndarray:
    """`[t, n]` with every NaN on the straight line between its observed neighbours in time, channel by channel.

    Gaps at the ends hold the nearest observed value. For a comparison of spectra fill *both* series so, with the same
    gaps: `d_h` does.

    **Raises:** `ValueError` for another shape, or a channel without any observed value.
    """
    check_observed(np.asarray(values, np.float64), "values")
    return series.filled(values)


def check_observed(values: np.ndarray, name: str) -> None:
    """Raise `ValueError` unless `[t, n]` is finite or NaN throughout, with something observed in every channel."""
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} must have shape [time, variable]: got {values.shape}.")
    if np.isinf(values).any():
        raise ValueError(f"{name} must be finite where it is observed (NaN: not observed): it holds infinity.")
    missing = np.isnan(values).all(0)
    if missing.any():
        raise ValueError(f"{name} must be observed in every channel: channel {int(np.argmax(missing))} is all NaN.")


def check_rows(values: np.ndarray, name: str, least: int = 2) -> np.ndarray:
    """The observed rows, or `ValueError` when there are fewer than `least`."""
    rows = observed(values)
    if len(rows) < least:
        raise ValueError(
            f"{name} must have at least {least} rows that are observed in every channel: got {len(rows)} of "
            f"{len(values)}."
        )
    return rows
