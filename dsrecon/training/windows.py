"""Batches: windows cut from one array that stays on the device."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsrecon._types import Key


class Window(NamedTuple):
    """Stretches of data.

    - `x`: observations to predict, `[b, length + 1, n]`; any finite number where they are missing.
    - `seen`: what the model is shown of them, `[b, length + 1, n]`: the readout's `targets` of `x`, with noise.
    - `s`: external input, `[b, length + 1, k]`: row `t` acts on the step from `x[t - 1]` to `x[t]`. Or `None`.
    - `mask`: where `x` was observed, `[b, length + 1, n]`; `None` where all of it was.
    - `trial`: number of the trial that it is cut from, `[b]`; `None` where the series is not told as trials.
    """

    x: Float[Array, "b t n"]
    seen: Float[Array, "b t n"]
    s: Float[Array, "b t k"] | None = None
    mask: Bool[Array, "b t n"] | None = None
    trial: Int[Array, "b"] | None = None


class Windows(eqx.Module):
    """Draws windows at random starts, under jit, without a copy to the host.

    No window runs from one trial into the next. Where values are missing windows begin at rows that are observed in
    every channel, or, where there is no such row, in as many channels as any row is.

    **Arguments:**

    - `x`: series `[t, n]` in the units of the model, finite throughout; several trials one after the other.
    - `trials`: lengths of the trials, which add up to `t`; one trial by default. Those shorter than a window are not
      used. Given, they number the windows (`Window.trial`, from 0).
    - `mask`: where `x` was observed, `[t, n]`; `None` where all of it was.
    - `seen`: what the model is shown instead of `x`, `[t, n]`. `s`: external input `[t, k]`, or `None`.
    - `length`: predicted steps of a window (it holds `length + 1` observations); `batch`: windows drawn at once.
    - `noise`: standard deviation of the Gaussian noise on what the model is shown, in the units of the model. It is cut
      at random from one pool as long as the series: drawing it anew cost a third of an update.
    - `key`: draws that pool; needed with noise.

    **Raises:** `ValueError` for trials all too short for one window, a length or batch below 1, negative noise or noise
    without a key, an array of another length, a window of which nothing is observed.
    """

    x: Float[Array, "t n"]
    seen: Float[Array, "t n"] | None
    s: Float[Array, "t k"] | None
    mask: Bool[Array, "t n"] | None
    pool: Float[Array, "t n"] | None
    starts: Int[Array, "w"] | None
    ends: Int[Array, "j"] | None
    length: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __init__(
        self,
        x: Float[Array, "t n"],
        *,
        length: int,
        batch: int,
        trials: Sequence[int] | None = None,
        mask: Bool[Array, "t n"] | None = None,
        seen: Float[Array, "t n"] | None = None,
        s: Float[Array, "t k"] | None = None,
        noise: float = 0.0,
        key: Key | None = None,
    ):
        if length < 1 or batch < 1:
            raise ValueError(f"length and batch must be at least 1: got {length} and {batch}.")
        told = trials is not None
        trials = [len(x)] if trials is None else list(trials)
        if sum(trials) != len(x):
            raise ValueError(f"trials must add up to the {len(x)} rows of x: got {sum(trials)}.")
        if max(trials) < length + 1:
            what = f"{len(x)} samples" if len(trials) == 1 else f"{max(trials)} samples in the longest trial"
            raise ValueError(
                f"the series is too short for one window: {what} where a window of {length} predicted "
                f"steps needs {length + 1}. Use a shorter window or more data."
            )
        for name, other in (("s", s), ("mask", mask), ("seen", seen)):
            if other is not None and len(other) != len(x):
                raise ValueError(f"{name} must be as long as x: got {len(other)} and {len(x)}.")
        if not noise >= 0:
            raise ValueError(f"noise must be at least 0: got {noise}.")
        if noise and key is None:
            raise ValueError(f"noise={noise} needs a key to draw from.")
        self.x, self.seen, self.s, self.mask, self.length, self.batch = x, seen, s, mask, length, batch
        self.pool = noise * jax.random.normal(key, x.shape, x.dtype) if key is not None and noise else None
        self.starts = None if len(trials) == 1 and mask is None else _starts(trials, mask, length)
        self.ends = jnp.asarray(np.cumsum(trials), jnp.int32) if told else None

    @property
    def count(self) -> int:
        """Windows that there are to draw from."""
        return len(self.x) - self.length if self.starts is None else len(self.starts)

    def __call__(self, key: Key) -> Window:
        """`batch` windows; their starts are uniform over all that fit."""
        drawn = jax.random.randint(key, (2, self.batch), 0, self.count)
        return self._cut(drawn[0], drawn[1])

    def of(self, numbers: Int[Array, "b"], key: Key) -> Window:
        """The windows of these numbers (from 0, of `count`); `key` draws the noise on what the model is shown."""
        drawn = numbers if self.pool is None else jax.random.randint(key, numbers.shape, 0, self.count)
        return self._cut(numbers, drawn)

    def _cut(self, numbers: Int[Array, "b"], noise: Int[Array, "b"]) -> Window:
        starts = numbers if self.starts is None else self.starts[numbers]

        def cut(values, starts):
            size = (self.length + 1, values.shape[1])
            return jax.vmap(lambda i: jax.lax.dynamic_slice(values, (i, 0 * i), size))(starts)

        x = cut(self.x, starts)
        seen = x if self.seen is None else cut(self.seen, starts)
        seen = seen if self.pool is None else seen + cut(self.pool, noise)
        s = None if self.s is None else cut(self.s, starts)
        mask = None if self.mask is None else cut(self.mask, starts)
        trial = None if self.ends is None else jnp.searchsorted(self.ends, starts.astype(jnp.int32), side="right")
        return Window(x, seen, s, mask, trial)


def _starts(trials: Sequence[int], mask: Bool[Array, "t n"] | None, length: int) -> Int[Array, "w"]:
    """Rows at which a window may begin."""
    begin = np.cumsum([0, *trials])
    rows = np.concatenate([np.arange(b, b + n - length) for b, n in zip(begin, trials, strict=False)])
    if mask is None:
        return jnp.asarray(rows, jnp.int32)
    seen = np.asarray(mask).sum(1)
    total = np.concatenate([[0], np.cumsum(seen)])
    rows = rows[total[rows + length + 1] - total[rows + 1] > 0]
    if not len(rows):
        raise ValueError(f"every window of {length} predicted steps lies in a gap: use a longer window or more data.")
    return jnp.asarray(rows[seen[rows] == seen[rows].max()], jnp.int32)
