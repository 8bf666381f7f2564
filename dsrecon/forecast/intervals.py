"""How sure a forecast is: quantiles from the errors of the past, or from the members of an ensemble."""

from abc import abstractmethod
from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float

STILL = 1e-3
"""Least standard deviation of a window's past, in that of the series: a constant stretch has a scale too."""


class Errors(eqx.Module):
    """Errors `y - f` of the validation windows, `[c, h, n]` (NaN where nothing was observed), and `spread` `[c, n]`,
    the standard deviation of each window's past; both in the units of the model."""

    values: np.ndarray
    spread: np.ndarray

    def until(self, horizon: int) -> "Errors":
        """Those of the first `horizon` steps ahead."""
        return Errors(self.values[:, :horizon], self.spread)

    def most(self, level: float) -> bool:
        """Whether there are windows enough for the quantile at a level, at every lead time and in every variable."""
        count = np.isfinite(self.values).sum(0).min()
        return bool(np.ceil((count + 1) * max(level, 1 - level) - 1e-9) <= count)


class AbstractIntervals(eqx.Module):
    """How quantiles are put around a forecast."""

    @abstractmethod
    def quantiles(
        self,
        members: Float[np.ndarray, "r w h n"],
        spread: Float[np.ndarray, "w n"],
        errors: Errors | None,
        levels: Sequence[float],
    ) -> Float[np.ndarray, "q w h n"]:
        """Quantiles at `levels` (in (0, 1)) of the windows that all members have forecast.

        **Arguments:** `members`: their forecasts; `spread`: the standard deviation of each window's past; `errors`: of
        the validation windows, `None` where there was no validation.
        """


class Conformal(AbstractIntervals):
    """Split conformal prediction: the quantiles of the errors on the validation windows, put on the mean forecast.

    For every lead time and variable by itself. With `c` windows the quantile at `q >= 1/2` is the `ceil((c + 1) q)`-th
    smallest error, at `q < 1/2` the `floor((c + 1) q)`-th, so that an interval between two of them covers at least the
    share it names if the windows to come are exchangeable with those of the validation. A series that drifts is not:
    what it covered is measured by `backtest`.

    - `scaled`: errors count in units of the standard deviation of the window's past (the default), so that a calm
      stretch has narrower intervals; `False` for errors as they are.

    **Raises:** `ValueError` for a predictor without validation, or levels too far out for that many windows.

    Reference: Vovk, Gammerman & Shafer 2005, *Algorithmic learning in a random world*; Stankeviciute et al. 2021,
    *Conformal time-series forecasting*, NeurIPS.
    """

    scaled: bool = True

    def quantiles(
        self,
        members: Float[np.ndarray, "r w h n"],
        spread: Float[np.ndarray, "w n"],
        errors: Errors | None,
        levels: Sequence[float],
    ) -> Float[np.ndarray, "q w h n"]:
        if errors is None:
            raise ValueError("intervals need the errors of validation windows: fit with validation above 0.")
        values, unit = errors.values, np.ones_like(spread)
        if self.scaled:
            values, unit = values / np.maximum(errors.spread, STILL)[:, None], np.maximum(spread, STILL)
        order = np.sort(values, 0)  # NaN last
        count = np.isfinite(order).sum(0)
        mean, out = members.mean(0), []
        for level in levels:
            rank = np.ceil((count + 1) * level - 1e-9) if level >= 0.5 else np.floor((count + 1) * level + 1e-9)
            if ((rank < 1) | (rank > count)).any():
                needed = int(np.ceil(1 / min(level, 1 - level))) - 1
                raise ValueError(
                    f"levels must leave room at both ends: {level} needs {needed} validation windows, there are "
                    f"{count.min()}. Take a level nearer to 1/2, or a larger validation."
                )
            offset = np.take_along_axis(order, rank.astype(int)[None] - 1, 0)[0]
            out.append(mean + offset * unit[:, None])
        return np.stack(out)


class EnsembleQuantiles(AbstractIntervals):
    """The quantiles of the members' own forecasts: how much they disagree, which is less than how much they err.

    **Raises:** `ValueError` for fewer than two members.
    """

    def quantiles(
        self,
        members: Float[np.ndarray, "r w h n"],
        spread: Float[np.ndarray, "w n"],
        errors: Errors | None,
        levels: Sequence[float],
    ) -> Float[np.ndarray, "q w h n"]:
        if len(members) < 2:
            raise ValueError("quantiles of an ensemble need at least 2 members: got 1. Fit with members=8, say.")
        return np.quantile(members, levels, 0)


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Levels in increasing order. **Raises:** `ValueError` for one out of (0, 1), or twice the same."""
    found = tuple(float(level) for level in levels)
    if not all(0 < level < 1 for level in found) or len(set(found)) < len(found):
        raise ValueError(f"levels must be different numbers in (0, 1): got {list(levels)}.")
    return tuple(sorted(found))
