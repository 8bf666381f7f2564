"""Whether blocks of runs meet, and from where they are run again: the states of `Shooting`, and its costates."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

SPREADS, PATIENCE = 4, 8
"""Of the iterations in which the first wrong block of a run begins not finite: after how many those behind it are left
to find that out one after another, and after how many the run is left as it is."""


def apart(begun: Array, wanted: Array, allowed: Array) -> Array:
    """How far blocks are from meeting, the worst of their units `[b, blocks]`; infinite and NaN meet themselves."""
    wrong = jnp.abs(begun - wanted) / allowed
    same = (begun == wanted) | (jnp.isnan(begun) & jnp.isnan(wanted))
    return jnp.max(jnp.where(same, 0, jnp.where(jnp.isnan(wrong), jnp.inf, wrong)), axis=-1)


def _first_wrong(wanted: Array, wrong: Array) -> tuple[Array, Array]:
    """The first block of every run that does not meet, 0 where all do, and where it ought to begin `[b, m]`."""
    first = jnp.argmax(wrong > 1, axis=-1)
    return first, jnp.take_along_axis(wanted, first[:, None, None], axis=1)[:, 0]


class Front(NamedTuple):
    """Of every run `[b]`: iterations in which its first wrong block began not finite, and whether the last one had all
    behind it begin so."""

    lost: Array
    spread: Array

    @classmethod
    def of(cls, runs: int) -> "Front":
        return cls(jnp.zeros(runs, int), jnp.zeros(runs, bool))

    def again(self, wanted: Array, wrong: Array) -> Array:
        """Whether a run needs its blocks once more, and it pays: not for ever where they begin not finite."""
        at = _first_wrong(wanted, wrong)[1]
        return jnp.any(wrong > 1, axis=-1) & (jnp.all(jnp.isfinite(at), axis=-1) | (self.lost < PATIENCE))

    def onward(self, wanted: Array, wrong: Array, at_first: Array) -> tuple[Array, "Front"]:
        """Where blocks begin next: where they ought to, by those before them.

        But what is not finite mostly stays so: where the first block that is wrong begins so, all behind it do, some
        times; and where it then does not, what is not finite behind it begins as in the beginning.
        """
        first, at = _first_wrong(wanted, wrong)
        needed, finite = jnp.any(wrong > 1, axis=-1), jnp.all(jnp.isfinite(at), axis=-1)
        lost = needed & ~finite
        spread = lost & (self.lost < SPREADS)
        at, behind = at[:, None], jnp.arange(wrong.shape[1])[None] > first[:, None]
        instead = jnp.where(jnp.isfinite(at), jnp.where(jnp.isfinite(wanted), wanted, at_first), at)
        chosen = behind & (spread | (needed & finite & self.spread))[:, None]
        return jnp.where(chosen[..., None], instead, wanted), Front(self.lost + jnp.where(lost, 1, 0), spread)
