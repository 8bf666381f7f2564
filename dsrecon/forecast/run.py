"""Forecasts of many windows, cut from one array on the device."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsrecon.forecaster import AbstractForecaster

BATCH = 128
"""Windows at once: enough for one product, few enough for the caches."""

CHUNK = 2048
"""Windows of one compiled call."""


class Members(eqx.Module):
    """An ensemble: `model`, every array leaf with a leading axis of members, and their numbers `[r]`."""

    model: AbstractForecaster
    number: Int[Array, "r"]

    @staticmethod
    def of(model: AbstractForecaster, count: int) -> "Members":
        return Members(model, jnp.arange(count, dtype=jnp.int32))


def _windows(
    model: AbstractForecaster,
    x: Float[Array, "t n"],
    s: Float[Array, "u k"] | None,
    starts: Int[Array, "w"],
    known: int,
) -> Float[Array, "h n w"]:
    """Forecasts of windows that begin at `starts`, windows last."""

    def one(start: Int[Array, ""]):
        def cut(values, first, rows):
            return jax.lax.dynamic_slice(values, (start + first, 0 * start), (rows, values.shape[1]))

        past = None if s is None else cut(s, 0, model.lookback)
        future = None if s is None or not known else cut(s[:, :known], model.lookback, model.horizon)
        return cut(x, 0, model.lookback), past, future

    given = jax.tree.map(lambda v: jnp.moveaxis(v, 0, -1), jax.vmap(one)(starts))
    return jax.vmap(lambda *given: model(*given), in_axes=-1, out_axes=-1)(*given)


@eqx.filter_jit
def _forecasts(
    members: Members, x: Array, s: Array | None, starts: Int[Array, "b w"], known: int
) -> Float[Array, "b r w h n"]:
    def batch(starts):
        each = eqx.filter_vmap(lambda one: _windows(one.model, x, s, starts, known))(members)
        return jnp.moveaxis(each, -1, 1)

    return jax.lax.map(batch, starts)


def forecasts(
    members: Members, x: Float[Array, "t n"], s: Float[Array, "u k"] | None, starts: np.ndarray, known: int
) -> Float[np.ndarray, "r w h n"]:
    """Forecasts of all members, of the windows that begin at `starts` `[w]`.

    Window `i` looks at rows `starts[i]` to `starts[i] + lookback - 1`.
    Numbers of windows are padded to few sizes, so few are compiled.
    """
    out = []
    size = min(BATCH, _above(len(starts)))
    many = min(CHUNK // size, _above(-(-len(starts) // size)))
    for first in range(0, len(starts), size * many):
        part = starts[first : first + size * many]
        padded = np.concatenate([part, np.full(size * many - len(part), part[-1])]).astype(np.int32)
        found = np.asarray(_forecasts(members, x, s, jnp.asarray(padded.reshape(many, size)), known))
        out.append(np.moveaxis(found, 0, 1).reshape(found.shape[1], -1, *found.shape[3:])[:, : len(part)])
    return np.concatenate(out, 1)


def _above(count: int) -> int:
    """The next power of two: few shapes, so few compilations."""
    return 1 << max(count - 1, 0).bit_length()


@eqx.filter_jit
def errors(
    members: Members,
    x: Float[Array, "t n"],
    s: Float[Array, "u k"] | None,
    mask: Bool[Array, "t n"] | None,
    starts: Int[Array, "w"],
    known: int,
    error: Callable[[Array], Array],
) -> Float[Array, "r"]:
    """Mean error of every member over the windows at `starts`, their steps ahead and channels; observed ones only."""
    count = len(starts)
    padded = jnp.concatenate([starts, jnp.full(-count % BATCH, starts[-1])]).reshape(-1, BATCH)
    real = (jnp.arange(padded.size) < count).reshape(padded.shape)

    def batch(carry, given):
        starts, real = given

        def ahead(values, model):
            cut = jax.vmap(
                lambda i: jax.lax.dynamic_slice(values, (i + model.lookback, 0 * i), (model.horizon, values.shape[1]))
            )(starts)
            return jnp.moveaxis(cut, 0, -1)

        def one(member):
            model = member.model
            off = error(_windows(model, x, s, starts, known) - ahead(x, model))
            counts = jnp.broadcast_to(real, off.shape)
            counts = counts if mask is None else counts & ahead(mask, model)
            return jnp.sum(jnp.where(counts, off, 0)), jnp.sum(counts).astype(off.dtype)

        total, seen = eqx.filter_vmap(one)(members)
        return (carry[0] + total, carry[1] + seen), None

    zero = jnp.zeros(len(members.number), x.dtype)
    (total, seen), _ = jax.lax.scan(batch, (zero, zero), (padded, real))
    return total / seen
