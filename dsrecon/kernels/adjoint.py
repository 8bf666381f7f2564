"""The adjoint recurrence of a scan: the same slopes, the other way, by the same engine."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.engines import fused, run
from dsrecon.kernels.shift import shifted, shifted_marks
from dsrecon.kernels.structure import transpose_all


def costates_of_scan(
    a: Array,
    h_bar: Array,
    resets: Array | None,
    *,
    reverse: bool,
    engine: str | Callable,
    arriving: Array | None = None,
) -> Array:
    """`l_t = h_bar_t + a_{t+1}^T l_{t+1}` of a scan in the direction of `reverse`: its gradient by `b`.

    `arriving` `[m]`: what reaches the last of these steps from those behind it; only without resets.
    """
    if isinstance(engine, AbstractEngine):
        h_bar = h_bar if arriving is None else _arrived(h_bar, arriving, reverse)
        return engine.costates(a, h_bar, resets, reverse=reverse)
    if fused(a, h_bar, engine):
        from dsrecon.kernels.accelerated.scan import scan

        h_bar, interpret = jnp.asarray(h_bar), engine == "interpreted"
        return scan(a, h_bar, arriving, resets, reverse=not reverse, adjoint=True, interpret=interpret)
    if arriving is not None:
        h_bar = _arrived(h_bar, arriving, reverse)
    return costates_by_states(a, h_bar, resets, reverse=reverse, engine=engine)


def _arrived(h_bar: Array, arriving: Array, reverse: bool) -> Array:
    return h_bar.at[0 if reverse else -1].add(arriving)


def costates_by_states(a: Array, h_bar: Array, resets: Array | None, *, reverse: bool, engine: str | Callable) -> Array:
    """The same by `u_t = a_t^T (h_bar_t + u_{t+1})`, which every engine runs, and `l_t = h_bar_t + u_{t+1}`."""
    ends = None if resets is None else shifted_marks(resets, later=not reverse)
    u = run(a, transpose_all(a, h_bar), None, ends, reverse=not reverse, engine=engine, transpose=True)
    later = shifted(u, jnp.zeros_like(u[0]), later=not reverse)
    return h_bar + (later if ends is None else jnp.where(ends[:, None], jnp.zeros((), later.dtype), later))
