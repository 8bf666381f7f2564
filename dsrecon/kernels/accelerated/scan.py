"""`linear_scan` in one pass, and its adjoint: which kernel runs it, and in which layout.

Real slopes are blocks to the kernel in `lookback`, diagonal ones blocks of one number; complex ones are blocks of two.
Mapped diagonal scans are one kernel for all their sequences.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from dsrecon.kernels.accelerated.lookback import Cut, call, cut

LARGEST = 4
"""Dense slopes up to this size are scanned here: the maps of a block are held in registers, `c^2` numbers a lane."""


def supported(a: Array, b: Array) -> str:
    """Why this engine cannot serve slopes and terms of these shapes and types; empty where it can."""
    if a.dtype not in (jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16, jnp.complex64, jnp.complex128):
        return f"it takes float16, bfloat16, float32, float64 and complex numbers: got {a.dtype}"
    c = a.shape[1] if a.ndim > 2 else 1
    if c > LARGEST:
        return f"it takes dense slopes and blocks up to {LARGEST} x {LARGEST}: got {c} x {c}"
    if a.ndim > 2 and jnp.issubdtype(a.dtype, jnp.complexfloating):
        return "it takes complex slopes that are scalar or diagonal: got dense ones, or blocks"
    if max(a.size, b.size) >= 2**31:
        return f"it takes arrays of less than 2^31 numbers: got {max(a.size, b.size)}"
    return ""


def scan(
    a: Inexact[Array, "t ..."],
    b: Inexact[Array, "t m"],
    h0: Inexact[Array, "m"] | None,
    resets: Bool[Array, "t"] | None,
    *,
    reverse: bool,
    interpret: bool = False,
    how: Cut | None = None,
) -> Inexact[Array, "t m"]:
    """`h_t = a_t h_{t-1} + b_t`, in the shapes of `linear_scan`."""
    if jnp.issubdtype(b.dtype, jnp.complexfloating):
        a, b, h0 = _as_real(a, b.shape[1]), _pair(b), None if h0 is None else _pair(h0[None])[0]
        h = scan(a, b, h0, resets, reverse=reverse, interpret=interpret, how=how)
        return _joined(h)
    if _plain(a, resets) and how is None:
        h0 = jnp.zeros_like(b[0]) if h0 is None else h0
        return _batched(reverse, interpret)(a[None], b[None], h0[None])[0]
    slopes, terms = _components(a, b)
    start = None if h0 is None else h0.reshape(terms.shape[1:])
    (h,) = call(slopes, terms, start, resets, None, reverse, reverse, False, interpret, how)
    return h.reshape(b.shape)


def adjoint(
    a: Inexact[Array, "t ..."],
    h0: Inexact[Array, "m"] | None,
    resets: Bool[Array, "t"] | None,
    h: Inexact[Array, "t m"],
    h_bar: Inexact[Array, "t m"],
    *,
    reverse: bool,
    interpret: bool = False,
    how: Cut | None = None,
) -> tuple[Array, Array, Array | None]:
    """Gradients by slopes, terms and start of a scan whose states are `h`, in one pass over slopes, states and `h_bar`.

    `l_t = h_bar_t + a_{t+1}^T l_{t+1}` is the gradient by `b_t`; `l_t h_{t-1}^T` that by `a_t`.
    """
    from dsrecon.kernels.structure import transpose_all

    if jnp.issubdtype(h.dtype, jnp.complexfloating):
        start = None if h0 is None else _pair(h0[None])[0]
        # nothing is conjugated in the cotangents of JAX: the real adjoint gives those of the conjugates
        a_bar, l, h0_bar = adjoint(
            _as_real(a, h.shape[1]),
            start,
            resets,
            _pair(h),
            _pair(jnp.conj(h_bar)),
            reverse=reverse,
            interpret=interpret,
            how=how,
        )
        slopes = jax.lax.complex(a_bar[:, 0, 0] + a_bar[:, 1, 1], a_bar[:, 1, 0] - a_bar[:, 0, 1])
        slopes = jnp.conj(slopes)
        slopes = jnp.sum(slopes, 1) if a.ndim == 1 else slopes
        return slopes, jnp.conj(_joined(l)), None if h0_bar is None else jnp.conj(_joined(h0_bar[None]))[0]
    if _plain(a, resets) and how is None:
        start = jnp.zeros_like(h[0]) if h0 is None else h0
        a_bar, l = _batched_adjoint(reverse, interpret)(a[None], h[None], start[None], h_bar[None])
        first = -1 if reverse else 0
        return a_bar[0], l[0], None if h0 is None else a[first] * l[0, first]
    slopes, terms = _components(a, h_bar)
    start = None if h0 is None else h0.reshape(terms.shape[1:])
    states = h.reshape(terms.shape)
    scalar = a.ndim == 1
    found = call(slopes, terms, start, resets, states, not reverse, reverse, not scalar, interpret, how)
    l = found[0].reshape(h.shape)
    first = -1 if reverse else 0
    if scalar:
        zero = jnp.zeros_like(h[0]) if h0 is None else h0
        before = jnp.concatenate([h[1:], zero[None]]) if reverse else jnp.concatenate([zero[None], h[:-1]])
        before = before if resets is None else jnp.where(resets[:, None], zero[None], before)
        a_bar = jnp.sum(l * before, 1)
    else:
        a_bar = found[1].reshape(a.shape)
    if h0 is None:
        return a_bar, l, None
    if resets is None:
        return a_bar, l, transpose_all(a[first][None], l[first][None])[0]
    starts = resets.at[first].set(True)
    u = jnp.where(starts[:, None], transpose_all(a, l), jnp.zeros((), l.dtype))
    return a_bar, l, jnp.sum(u, 0)


def _plain(a: Array, resets: Array | None) -> bool:
    return a.ndim == 2 and resets is None


@functools.cache
def _batched(reverse: bool, interpret: bool) -> Callable[[Array, Array, Array], Array]:
    """A diagonal scan of sequences `[b, t, k]` that sees how many there are, also those that `jax.vmap` adds."""

    @jax.custom_batching.custom_vmap
    def run(a, b, h0):
        how = cut(a.shape[1], 1, a.shape[2])
        return jax.vmap(lambda a, b, h0: scan(a, b, h0, None, reverse=reverse, interpret=interpret, how=how))(a, b, h0)

    @run.def_vmap
    def _(size, batched, *given):
        return _unmerged(run(*_merged(size, batched, given)), size), True

    return run


@functools.cache
def _batched_adjoint(reverse: bool, interpret: bool) -> Callable[..., tuple[Array, Array]]:
    """Its adjoint: gradients by slopes and terms."""

    @jax.custom_batching.custom_vmap
    def run(a, h, h0, h_bar):
        how = cut(a.shape[1], 1, a.shape[2])

        def one(a, h, h0, h_bar):
            return adjoint(a, h0, None, h, h_bar, reverse=reverse, interpret=interpret, how=how)[:2]

        return jax.vmap(one)(a, h, h0, h_bar)

    @run.def_vmap
    def _(size, batched, *given):
        a_bar, l = run(*_merged(size, batched, given))
        return (_unmerged(a_bar, size), _unmerged(l, size)), (True, True)

    return run


def _merged(size: int, batched, given) -> list[Array]:
    """A mapped axis and that of the sequences as one."""
    whole = [
        x if there else jnp.broadcast_to(x[None], (size, *x.shape)) for x, there in zip(given, batched, strict=True)
    ]
    return [x.reshape(-1, *x.shape[2:]) for x in whole]


def _unmerged(x: Array, size: int) -> Array:
    return x.reshape(size, -1, *x.shape[1:])


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
