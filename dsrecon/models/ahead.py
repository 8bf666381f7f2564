"""A deep model of sequences as a forecaster: it reads the past and goes on over the steps ahead."""

from collections.abc import Callable
from typing import get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._types import Key
from dsrecon.forecaster import AbstractWideForecaster, check_window
from dsrecon.layer import AbstractSequenceLayer
from dsrecon.models._init import at_least_one
from dsrecon.models.linear import Level, level_of
from dsrecon.models.sequence import SequenceModel, sequence_model


class SequenceForecaster(AbstractWideForecaster):
    """A `SequenceModel` over `lookback + horizon` rows: `[lookback, n] -> [horizon, n]`.

        rows = [[x - l, past, 0],
                [0, future, 0, 1]]
        y = model(rows)[lookback:] + l

    What is not known ahead is 0 there, and the last column says which rows are ahead. `l` is the level of the window,
    channel by channel (`"last"`: its last value; `"mean"`; `"none"`: 0). All channels are read together and told
    together. The layers are causal: step `i` ahead sees the whole window and what is known of the steps ahead up to
    `i`; and every step ahead costs the same.

    **Fields:** `model`: `[k] -> [n]` at each row, `pool=None`; with layers `backward` it sees all that is known ahead.

    **Arguments:**

    - `lookback`, `horizon` in steps; `channels` n.
    - `layer`: makes a layer, `lambda key: S4(32, key=key)`; `depth`: so many; `dropout`, `bidirectional`: as
      `sequence_model`.
    - `past_size` k: columns of what is known along the past, those known ahead first; `known_size` j: how many are
      known ahead.
    - `level`; `key` for the start values.

    **Raises:** `ValueError` for a size below 1, more columns known ahead than there are, another level, a dropout
    outside [0, 1), and at the call for windows of another shape.

    Reference: Gu, Goel & Ré 2022, *Efficiently modeling long sequences with structured state spaces*, ICLR
    (section 4.3: forecasts by masking the end of a sequence).
    """

    model: SequenceModel
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    past_size: int = eqx.field(static=True)
    known_size: int = eqx.field(static=True)
    level: Level = eqx.field(static=True)

    def __init__(
        self,
        lookback: int,
        horizon: int,
        layer: Callable[[Key], AbstractSequenceLayer],
        *,
        channels: int = 1,
        depth: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        past_size: int = 0,
        known_size: int = 0,
        level: Level = "last",
        key: Key,
    ):
        at_least_one(lookback=lookback, horizon=horizon, channels=channels, depth=depth)
        if not 0 <= known_size <= past_size:
            raise ValueError(
                "known_size must be at least 0 and at most past_size, whose first columns are those known ahead: got "
                f"{known_size} and {past_size}."
            )
        if level not in get_args(Level):
            raise ValueError(f"level must be one of {get_args(Level)}: got {level!r}.")
        self.model = sequence_model(
            channels + past_size + 1,
            channels,
            layer,
            depth=depth,
            pool=None,
            bidirectional=bidirectional,
            dropout=dropout,
            key=key,
        )
        self.lookback, self.horizon, self.channels, self.level = lookback, horizon, channels, level
        self.past_size, self.known_size = past_size, known_size

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        check_window(self, x, past, future)
        level = level_of(x, self.level)
        return self.model(self._rows(x - level, past, future), key=key)[self.lookback :] + level

    def _rows(self, x: Array, past: Array | None, future: Array | None) -> Float[Array, "t k"]:
        """What the model reads, `[lookback + horizon, n + past_size + 1]`."""
        behind = [x, *([] if past is None else [past]), jnp.zeros((self.lookback, 1), x.dtype)]
        unknown = jnp.zeros((self.horizon, self.past_size - self.known_size), x.dtype)
        ahead = [jnp.zeros((self.horizon, self.channels), x.dtype), *([] if future is None else [future]), unknown]
        ahead.append(jnp.ones((self.horizon, 1), x.dtype))
        return jnp.concatenate([jnp.concatenate(behind, 1), jnp.concatenate(ahead, 1)])
