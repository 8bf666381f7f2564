"""How good forecasts are: errors of points, and of distributions told by quantiles."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def mse(true: Float[np.ndarray, "..."], forecast: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Squared errors `(y - f)^2`, entry by entry: their mean is the MSE. NaN where the truth is missing."""
    return (true - forecast) ** 2


def mae(true: Float[np.ndarray, "..."], forecast: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Absolute errors `|y - f|`, entry by entry: their mean is the MAE. NaN where the truth is missing."""
    return np.abs(true - forecast)


def smape(true: Float[np.ndarray, "..."], forecast: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Symmetric percentage errors `200 |y - f| / (|y| + |f|)`, 0 to 200 %; 0 where both are 0, 200 where one is
    infinite.

    Reference: Makridakis & Hibon 2000, *The M3-Competition*, International Journal of Forecasting 16, 451.
    """
    size = np.abs(true) + np.abs(forecast)
    usual = (size > 0) & ~np.isinf(size)
    share = np.abs(true - forecast) / np.where(usual, size, 1.0)
    return np.where(usual | np.isnan(size), 200 * share, np.where(size == 0, 0.0, 200.0))


def naive_error(values: Float[np.ndarray, "t n"], period: int = 1) -> Float[np.ndarray, "n"]:
    """Mean absolute error of the seasonal naive forecast, one period ahead, on the series that was learned from.

    `mean |x_t - x_{t - period}|`, channel by channel, over the pairs of rows that are both observed: the unit of the
    MASE (mean absolute scaled error), `|y - f| / naive_error`.

    **Arguments:** `values` `[t, n]`, NaN where missing; `period` in steps.

    **Raises:** `ValueError` for a period below 1, or not shorter than the series.

    Reference: Hyndman & Koehler 2006, *Another look at measures of forecast accuracy*, International Journal of
    Forecasting 22, 679.
    """
    if not 1 <= period < len(values):
        raise ValueError(f"period must be from 1 to {len(values) - 1}, below the rows of the series: got {period}.")
    return np.nanmean(np.abs(values[period:] - values[:-period]), 0)


def crps(
    true: Float[np.ndarray, "..."], quantiles: Float[np.ndarray, "... q"], levels: Sequence[float]
) -> Float[np.ndarray, "..."]:
    """Continuous ranked probability score of a distribution told by its quantiles, entry by entry.

    Twice the mean pinball loss over the levels (scoringrules' `crps_quantile`), which for many evenly spread levels is
    the CRPS. In the units of the data; for one quantile, the median, it is the absolute error.

    **Arguments:** `true` `[...]`, NaN where missing; `quantiles` `[..., q]` at `levels` `[q]`, each in (0, 1).

    **Raises:** `ValueError` for levels out of (0, 1), or as many as the quantiles are not.

    Reference: Gneiting & Raftery 2007, *Strictly proper scoring rules, prediction, and estimation*, JASA 102, 359.
    """
    import scoringrules  # half a second, for those who forecast

    if len(levels) != quantiles.shape[-1] or not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must be {quantiles.shape[-1]} numbers in (0, 1): got {list(levels)}.")
    return scoringrules.crps_quantile(true, quantiles, np.asarray(levels, float), backend="numpy")
