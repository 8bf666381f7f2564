"""Epochs: every window once, in random order, before any comes again."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from dsrecon._types import Key
from dsrecon.training.windows import Window, Windows

ROUNDS = 8
"""Rounds of mixing of an order."""

ORDERS = 0xFFFFFFFF
"""What the key of the orders is told from those of the updates by: no fit has so many updates."""


class Epochs(eqx.Module):
    """Windows epoch by epoch instead of drawn with replacement: for `fit`, in place of `Windows`.

    An epoch is `count // batch` updates, `count` the windows that fit. It has every window at most once, in an order of
    its own; the `count % batch` at the end of that order are left out. Which windows an update has follows from the key
    of the run and the number of the update, so a resumed fit goes on as it would have.

    **Arguments:** `windows`: where they are cut from.

    **Raises:** `ValueError` for a batch larger than the number of windows.
    """

    windows: Windows

    def __init__(self, windows: Windows):
        if windows.batch > windows.count:
            raise ValueError(f"batch must be at most the {windows.count} windows that fit: got {windows.batch}.")
        self.windows = windows

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return self.windows.count // self.windows.batch

    def __call__(self, key: Key, number: Int[Array, ""]) -> Window:
        """The windows of update `number` (from 0) of the run with this key."""
        windows, batch = self.windows, self.windows.batch
        order = jax.random.fold_in(jax.random.fold_in(key, ORDERS), number // self.updates)
        first = (number % self.updates) * batch
        at = placed(first + jnp.arange(batch, dtype=jnp.int32), windows.count, key=order)
        return windows.of(at, jax.random.fold_in(order, number))


def placed(i: Int[Array, "b"], count: int, *, key: Key) -> Int[Array, "b"]:
    """Entries `i` of a random order of `0 .. count - 1`, without making the rest of it.

    The bits of an index are split in two halves, each of which is mixed in turn into the other by a keyed hash (a
    Feistel network, which is one to one); what falls outside of the range is sent through again until it falls inside
    (Black & Rogaway 2002, *Ciphers with arbitrary finite domains*).
    """
    bits = max(count - 1, 0).bit_length()
    low = bits // 2
    keys = jax.random.bits(key, (ROUNDS, 2), jnp.uint32)
    lower, upper = jnp.uint32((1 << low) - 1), jnp.uint32((1 << (bits - low)) - 1)

    def once(x: UInt[Array, "b"]) -> UInt[Array, "b"]:
        a, b = x & lower, x >> jnp.uint32(low)
        for k in range(ROUNDS):
            a = a ^ (_hashed(b, keys[k, 0]) & lower)
            b = b ^ (_hashed(a, keys[k, 1]) & upper)
        return a | (b << jnp.uint32(low))

    size = np.uint32(count)
    found = jax.lax.while_loop(
        lambda x: jnp.any(x >= size), lambda x: jnp.where(x >= size, once(x), x), once(i.astype(jnp.uint32))
    )
    return found.astype(jnp.int32)


def _hashed(x: UInt[Array, "b"], key: UInt[Array, ""]) -> UInt[Array, "b"]:
    """A number mixed with a key, so that every bit of either reaches the low ones."""
    for factor, shift in ((0x85EBCA6B, 15), (0xC2B2AE35, 13)):
        x = (x ^ key) * jnp.uint32(factor)
        x = x ^ (x >> jnp.uint32(shift))
    return x ^ (x >> jnp.uint32(16))
