"""`linear_scan` and its adjoint recurrence on a GPU: which kernel runs them, and in which layout.

Real slopes are blocks to the kernel in `lookback`, diagonal ones blocks of one number; complex ones are blocks of two.
Mapped diagonal scans are one kernel for all their sequences. Larger dense slopes are scanned in blocks, by `dense`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from dsrecon.kernels.accelerated import dense
from dsrecon.kernels.accelerated.lookback import Cut, call
from dsrecon.kernels.accelerated.memory import COUNTED, merged

LARGEST = 4
"""Dense slopes and blocks up to this size are scanned in one pass: maps are held in registers, `c^2` numbers a lane."""


def supported(a: Array, b: Array) -> str:
    """Why this engine cannot serve slopes and terms of these shapes and types; empty where it can."""
    if a.dtype not in (jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16, jnp.complex64, jnp.complex128):
        return f"it takes float16, bfloat16, float32, float64 and complex numbers: got {a.dtype}"
    c = a.shape[1] if a.ndim > 2 else 1
    if a.ndim == 4 and c > LARGEST:
        return f"it takes blocks up to {LARGEST} x {LARGEST}: got {c} x {c}"
    if a.ndim == 3 and c > dense.LARGEST:
        return f"it takes dense slopes up to {dense.LARGEST} x {dense.LARGEST}: got {c} x {c}"
    if a.ndim > 2 and jnp.issubdtype(a.dtype, jnp.complexfloating):
        return "it takes complex slopes that are scalar or diagonal: got dense ones, or blocks"
    if max(a.size, b.size) >= COUNTED:
        return f"it takes arrays of less than 2^31 numbers: got {max(a.size, b.size)}"
    return ""


def pays(a: Array) -> bool:
    """Whether a scan that this engine serves is faster by it than by the associative one."""
    return a.ndim != 3 or not LARGEST < a.shape[1] < dense.LEAST


def scan(
    a: Inexact[Array, "t ..."],
    b: Inexact[Array, "t m"],
    h0: Inexact[Array, "m"] | None,
    resets: Bool[Array, "t"] | None,
    *,
    reverse: bool,
    adjoint: bool = False,
    interpret: bool = False,
    how: Cut | None = None,
) -> Inexact[Array, "t m"]:
    """`h_t = a_t h_{t-1} + b_t`, in the shapes of `linear_scan`.

    With `adjoint` `l_t = b_t + a_{t+1}^T l_{t+1}`, along `reverse` too (that of the scan the other way round), with the
    resets of the scan; `h0` is then what is added to the first term, and only without resets. Slopes are read where
    they lie.
    """
    if jnp.issubdtype(b.dtype, jnp.complexfloating):
        slopes = jnp.conj(a) if adjoint else a  # nothing is conjugated in a transpose, but blocks are turned
        h = scan(
            _as_real(slopes, b.shape[1]),
            _pair(b),
            None if h0 is None else _pair(h0[None])[0],
            resets,
            reverse=reverse,
            adjoint=adjoint,
            interpret=interpret,
            how=how,
        )
        return _joined(h)
    if a.ndim == 3 and a.shape[1] > LARGEST:
        if adjoint and h0 is not None:  # no slope lies behind the last step
            b, h0 = b.at[-1 if reverse else 0].add(h0), None
        return dense.scan(a, b, h0, resets, reverse=reverse, adjoint=adjoint, interpret=interpret)
    if a.ndim == 2 and resets is None and how is None:
        h0 = jnp.zeros_like(b[0]) if h0 is None else h0
        return _batched(reverse, adjoint, interpret)(a[None], b[None], h0[None])[0]
    slopes, terms = _components(a, b)
    start = None if h0 is None else h0.reshape(1, *terms.shape[1:])
    new = None if resets is None else resets[None]
    h = call(slopes[None], terms[None], start, new, reverse=reverse, adjoint=adjoint, interpret=interpret, how=how)
    return h.reshape(b.shape)


def redone(a: Array, resets: Array | None) -> bool:
    """Whether `anew` serves a scan of these slopes."""
    return (
        resets is None
        and not jnp.issubdtype(a.dtype, jnp.complexfloating)
        and not (a.ndim == 3 and a.shape[1] > LARGEST)
    )


def anew(
    a: Inexact[Array, "t ..."],
    b: Inexact[Array, "t m"],
    h: Inexact[Array, "t m"],
    h0: Inexact[Array, "m"],
    where: Bool[Array, ""],
    *,
    reverse: bool,
    adjoint: bool = False,
    interpret: bool = False,
) -> Inexact[Array, "t m"]:
    """`h`, and if `where` is true what `scan` makes from `h0`, in its place.

    The kernel itself looks at `where`. A branch of the program would keep its launches waiting until the host has been
    told: .3 ms a call on an H200, of 2.4 (two of them, 8,000,000 steps of 128 channels).
    """
    slopes, terms = _components(a, b)
    found = call(
        slopes[None],
        terms[None],
        h0.reshape(1, *terms.shape[1:]),
        None,
        reverse=reverse,
        adjoint=adjoint,
        interpret=interpret,
        instead=(h.reshape(1, *terms.shape), where[None]),
    )
    return found.reshape(b.shape)


@functools.cache
def _batched(reverse: bool, adjoint: bool, interpret: bool) -> Callable[[Array, Array, Array], Array]:
    """A diagonal scan of sequences `[n, t, k]` that sees how many there are, also those that `jax.vmap` adds."""

    @jax.custom_batching.custom_vmap
    def run(a, b, h0):
        if a.size >= COUNTED and len(a) > 1:
            return jnp.concatenate([run(a[i : i + 1], b[i : i + 1], h0[i : i + 1]) for i in range(len(a))])
        start = h0[:, None]
        h = call(a[:, :, None], b[:, :, None], start, None, reverse=reverse, adjoint=adjoint, interpret=interpret)
        return h[:, :, 0]

    @run.def_vmap
    def _(size, batched, *given):
        h = run(*merged(size, batched, given))
        return h.reshape(size, -1, *h.shape[1:]), True

    return run


def _components(a: Array, b: Array) -> tuple[Array, Array]:
    """Slopes `[t, c c, k]` (`[t, 1, 1]` of one for all channels) and terms `[t, c, k]`; no copy is made."""
    t, m = b.shape
    if a.ndim == 1:
        return a[:, None, None], b[:, None]
    c = a.shape[1] if a.ndim > 2 else 1
    return a.reshape(t, c * c, -1), b.reshape(t, c, m // c)


def _as_real(a: Array, m: int) -> Array:
    """Complex slopes `[t]` or `[t, m]` as blocks `[t, 2, 2, m]`."""
    a = jnp.broadcast_to(a[:, None], (len(a), m)) if a.ndim == 1 else a
    return jnp.stack([jnp.stack([a.real, -a.imag], 1), jnp.stack([a.imag, a.real], 1)], 1)


def _pair(x: Array) -> Array:
    return jnp.concatenate([x.real, x.imag], 1)


def _joined(x: Array) -> Array:
    re, im = jnp.split(x, 2, 1)
    return jax.lax.complex(re, im)
