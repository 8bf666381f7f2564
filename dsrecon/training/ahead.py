"""The loss of forecasts: how far the steps ahead are from what came."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon.forecaster import AbstractForecaster
from dsrecon.training.losses import Loss
from dsrecon.training.windows import Window


def squared(error: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square of an error: its minimum is the mean."""
    return error**2


def absolute(error: Float[Array, "..."]) -> Float[Array, "..."]:
    """The size of an error: its minimum is the median."""
    return jnp.abs(error)


def parts(
    window: Window, lookback: int, known: int
) -> tuple[
    Float[Array, "b lookback n"],
    Float[Array, "b lookback k"] | None,
    Float[Array, "b h j"] | None,
    Float[Array, "b h n"],
]:
    """What a forecaster is given of windows, `x, past, future`, and what came: the first `known` columns of `s` are
    known ahead, the others only up to the present."""
    x, s = window.x, window.s
    past = None if s is None else s[:, :lookback]
    future = None if s is None or not known else s[:, lookback:, :known]
    return x[:, :lookback], past, future, x[:, lookback:]


def forecasting(known: int = 0, error: Callable[[Array], Array] = squared) -> Loss:
    """The mean error of a forecaster over all steps ahead, channels and windows of a batch.

    **Arguments:** `known`: how many columns of `window.s`, the first ones, are known ahead; `error`: `squared` (its
    minimum is the mean), `absolute` (the median), or any function of the difference.

    Windows hold `lookback + horizon` rows: `Windows(..., length=lookback + horizon - 1)`. Values ahead that are masked
    do not count; what is masked behind must be filled in.
    """

    def loss(model: AbstractForecaster, state, batch: Window, key):
        x, past, future, y = parts(batch, model.lookback, known)
        # Windows last: a weight matrix then meets all of them as columns of one product.
        last = jax.tree.map(lambda z: jnp.moveaxis(z, 0, -1), (x, past, future))
        found = jax.vmap(lambda *given: model(*given, key=key), in_axes=-1, out_axes=-1)(*last)
        errors = error(jnp.moveaxis(found, -1, 0) - y)
        if batch.mask is None:
            return jnp.mean(errors), (state, {})
        seen = batch.mask[:, model.lookback :]
        return jnp.sum(jnp.where(seen, errors, 0)) / jnp.maximum(jnp.sum(seen), 1), (state, {})

    return loss
