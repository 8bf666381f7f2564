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
