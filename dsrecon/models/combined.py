"""Several forecasters as one: the mean of what they say."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._types import Key
from dsrecon.forecaster import AbstractForecaster


class CombinedForecaster(AbstractForecaster):
    """`y = mean_i f_i(the last lookback_i rows)`: errors that are not alike cancel in part.

    **Arguments:** `parts`: forecasters of one horizon, whose lookbacks may differ; the longest is that of all.

    **Raises:** `ValueError` for no parts, or other horizons.

    Reference: Bates & Granger 1969, *The combination of forecasts*, Operational Research Quarterly 20, 451.
    """

    parts: tuple[AbstractForecaster, ...]
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(self, *parts: AbstractForecaster):
        if not parts or len({part.horizon for part in parts}) > 1:
            raise ValueError(f"parts must be forecasters of one horizon: got {[part.horizon for part in parts]}.")
        self.parts, self.lookback, self.horizon = parts, max(part.lookback for part in parts), parts[0].horizon

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        def one(part: AbstractForecaster) -> Float[Array, "horizon n"]:
            behind = None if past is None else past[-part.lookback :]
            return part(x[-part.lookback :], behind, future, key=key)

        return jnp.mean(jnp.stack([one(part) for part in self.parts]), 0)
