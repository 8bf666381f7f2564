"""What forecasts: a stretch of the past in, a stretch of the future out."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float

from dsrecon._types import Key


class AbstractForecaster(eqx.Module):
    """A map from `lookback` rows of the past to `horizon` rows of the future, for one window; the caller `vmap`s.

    `forecaster(x, past, future) -> y`:

    - `x` `[lookback, n]`: what was observed, in the units of the model, complete.
    - `past` `[lookback, k]`: what else is known of those steps (time marks, covariates), or `None`.
    - `future` `[horizon, j]`: what is known of the steps ahead, or `None`.
    - `key`: for forecasters that draw.
    - returns `y` `[horizon, n]`.
    """

    lookback: eqx.AbstractVar[int]
    horizon: eqx.AbstractVar[int]

    @abstractmethod
    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        """The forecast of one window."""


class AbstractWideForecaster(AbstractForecaster):
    """A forecaster that reads more than the series.

    `channels` n; `past_size` k: columns of what is known along the past; `known_size` j: of what is known ahead.
    """

    channels: eqx.AbstractVar[int]
    past_size: eqx.AbstractVar[int]
    known_size: eqx.AbstractVar[int]


def check_window(forecaster: AbstractWideForecaster, x: Array, past: Array | None, future: Array | None) -> None:
    """Raise `ValueError` for a window that is not of the forecaster's shape."""
    wanted = (forecaster.lookback, forecaster.channels)
    if x.shape != wanted:
        raise ValueError(f"x must have shape [lookback, n] = {list(wanted)}: got {list(x.shape)}.")
    behind, ahead = (forecaster.lookback, forecaster.past_size), (forecaster.horizon, forecaster.known_size)
    for name, values, (rows, columns) in (("past", past, behind), ("future", future, ahead)):
        shape = (rows, 0) if values is None else values.shape
        if shape != (rows, columns):
            raise ValueError(f"{name} must have shape {[rows, columns]}: got {list(shape)}.")
