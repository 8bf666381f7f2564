"""The linear recurrence over a whole sequence at once, with one adjoint for all structures and engines."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Shaped

from dsrecon.kernels import shift
from dsrecon.kernels.adjoint import costates_of_scan
from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.engines import ENGINES, run
from dsrecon.kernels.structure import BLOCKS, DENSE, DIAGONAL, SCALAR, apply, outer, transpose_all

Given = Shaped[Array | np.ndarray, "..."]
"""An array whose shape and type are checked with a message of its own."""


def linear_scan(
    a: Given,
    b: Given,
    h0: Given | None = None,
    *,
    reverse: bool = False,
    resets: Given | None = None,
    engine: str | Callable[[Array, Array, bool], Array] = "auto",
    adjoint: str = "deferred",
) -> Inexact[Array, "t m"]:
    """States of the linear recurrence `h_t = a_t h_{t-1} + b_t`, `h_{-1} = h0`.

    **Arguments:**

    - `a`: slopes, real or complex. Its number of axes says what they are: `[t]` scalar, `[t, m]` diagonal,
      `[t, m, m]` dense, `[t, c, c, k]` blocks with `m = c k`, component-major: the state is `h.reshape(c, k)`, and
      `h.reshape(c, k)[:, j]` is multiplied by the matrix `a[t, :, :, j]`.
    - `b`: `[t, m]`, real or complex.
    - `h0`: `[m]`, the state before the first step (`None`: 0).
    - `reverse`: `h_t = a_t h_{t+1} + b_t` instead; `h0` is then the state after the last step.
    - `resets`: booleans `[t]`, or `None`. Where true, the state before the step (in reverse: after it) is `h0` again:
      several trials in one sequence. Nothing passes from one to the next, neither values nor gradients, NaN included.
    - `engine`: `"sequential"` (the loop: the reference), `"associative"` (`jax.lax.associative_scan`), `"chunked"`
      (loops over blocks of time side by side), `"pallas"` (kernels for an NVIDIA GPU: one pass for scalar, diagonal and
      dense slopes and blocks up to 4 x 4, three for dense slopes up to 32 x 32), `"interpreted"` (those kernels on any
      platform, slow: for tests), `"auto"` (chosen from shapes, dtype and platform: `"pallas"` where it serves and pays,
      else `engines.plan`), or a function
      `(a, b, reverse) -> h` for the recurrence from 0 without resets: `h0` and `resets` are then in `a` and `b` already
      (`a = 0` at a reset, where NaN of a trial before is the function's own to keep out).
    - `adjoint`: `"deferred"` (one reverse scan, kept by hand; reverse mode only, JAX refuses forward mode with a
      `TypeError`) or `"direct"` (JAX's own rules: forward mode and higher orders).

    **Returns:** `[t, m]`, of the type that `a`, `b` and `h0` promote to; `h0` is not in it.

    The adjoint of all engines is `u_t = a_t^T (dL/dh_t + u_{t+1})`, a recurrence with the same slopes in the other
    direction, solved by the same engine: `dL/db_t = l_t = dL/dh_t + u_{t+1}`, `dL/da_t = l_t h_{t-1}^T` within the
    structure of `a`, `dL/dh0 = u_0`. Complex cotangents follow JAX's convention: nothing is conjugated.

    The parallel engines multiply slopes before they meet a state. Where products overflow they give NaN although
    the loop, from small states, may not.

    **Raises:** `ValueError` for shapes that do not fit, no steps, integers, resets that are not booleans `[t]`,
    unknown names of engines and adjoints, and an engine asked for by name that cannot serve; it says why.

    Reference: Blelloch 1990, *Prefix sums and their applications*, CMU-CS-90-190.
    """
    if not (callable(engine) or engine in ENGINES):
        raise ValueError(f"engine must be one of {ENGINES} or a function (a, b, reverse) -> h: got {engine!r}.")
    if adjoint not in ("deferred", "direct"):
        raise ValueError(f'adjoint must be "deferred" or "direct": got {adjoint!r}.')
    slopes, terms = jnp.asarray(a), jnp.asarray(b)
    start, new = (None if x is None else jnp.asarray(x) for x in (h0, resets))
    _check(slopes, terms, start, new)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(slopes, terms, *([] if start is None else [start]))
    start = None if start is None else start.astype(dtype)
    return _jitted(slopes.astype(dtype), terms.astype(dtype), start, new, bool(reverse), engine, adjoint == "direct")


def _check(a: Array, b: Array, h0: Array | None, resets: Array | None) -> None:
    for name, x in (("a", a), ("b", b), ("h0", h0)):
        if x is not None and not jnp.issubdtype(x.dtype, jnp.inexact):
            raise ValueError(f"{name} must be real or complex floating point: got {x.dtype}.")
    if b.ndim != 2 or b.shape[1] == 0:
        raise ValueError(f"b must have shape [t, m]: got {b.shape}.")
    steps, m = b.shape
    if steps == 0:
        raise ValueError(f"b must have at least one step: got shape {b.shape}.")
    rest = a.shape[1:]
    fits = {
        SCALAR: True,
        DIAGONAL: rest == (m,),
        DENSE: rest == (m, m),
        BLOCKS: len(rest) == 3 and rest[0] == rest[1] and rest[0] * rest[2] == m,
    }
    if not fits.get(a.ndim, False) or a.shape[0] != steps:
        raise ValueError(
            f"a must have shape [{steps}], [{steps}, {m}], [{steps}, {m}, {m}] or [{steps}, c, c, k] with c k = {m} "
            f"to go with b {b.shape}: got {a.shape}."
        )
    if h0 is not None and h0.shape != (m,):
        raise ValueError(f"h0 must have shape [{m}]: got {h0.shape}.")
    if resets is not None and (resets.shape != (steps,) or resets.dtype != jnp.bool_):
        raise ValueError(f"resets must be booleans of shape [{steps}]: got {resets.dtype} of shape {resets.shape}.")


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _jitted(a, b, h0, resets, reverse: bool, engine: str | Callable, direct: bool) -> Array:
    if direct:
        if engine in ("pallas", "interpreted"):
            raise ValueError(f'engine={engine!r} has a hand-written adjoint alone: adjoint must be "deferred".')
        return run(a, b, h0, resets, reverse=reverse, engine=engine, differentiable=True)
    return _deferred(a, b, h0, resets, reverse, engine)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _deferred(a, b, h0, resets, reverse: bool, engine: str | Callable) -> Array:
    return run(a, b, h0, resets, reverse=reverse, engine=engine)


def _deferred_fwd(a, b, h0, resets, reverse: bool, engine: str | Callable):
    h = _deferred(a, b, h0, resets, reverse, engine)
    return h, (a, h0, resets, h)


def _deferred_bwd(reverse: bool, engine: str | Callable, kept, h_bar: Array):
    a, h0, resets, h = kept
    first = -1 if reverse else 0
    l = costates_of_scan(a, h_bar, resets, reverse=reverse, engine=engine)
    start = jnp.zeros_like(h[0]) if h0 is None else h0
    before = (engine if isinstance(engine, AbstractEngine) else shift).shifted(h, start, later=reverse)
    if resets is not None:
        before = jnp.where(resets[:, None], start[None], before)
    if h0 is None:
        h0_bar = None
    elif resets is None:
        h0_bar = apply(a[first], l[first], transpose=True)
    else:
        starts = resets | (jnp.arange(len(resets)) == (len(resets) - 1 if reverse else 0))
        h0_bar = jnp.sum(jnp.where(starts[:, None], transpose_all(a, l), jnp.zeros((), l.dtype)), 0)
    return outer(l, before, a), l, h0_bar, None


_deferred.defvjp(_deferred_fwd, _deferred_bwd)
