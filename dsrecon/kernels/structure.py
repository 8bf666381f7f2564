"""What the shape of the slopes `a` of a linear recurrence says, and the products that follow from it.

`[t]` scalar, `[t, m]` diagonal, `[t, m, m]` dense, `[t, c, c, k]` blocks of `m = c k`, where the state is read as
`h.reshape(c, k)`. One step of it has one axis less.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Inexact

SCALAR, DIAGONAL, DENSE, BLOCKS = 1, 2, 3, 4
"""Axes of `a`, time included."""


_VECTORS_ALONE = ContextVar("vectors_alone", default=False)


@contextmanager
def vectors_alone() -> Iterator[None]:
    """While a step is traced for a kernel, which knows vectors, cut and joined: `apply` is then written so.

    XLA is better served by arrays of two axes: on a CPU it copies what is joined.
    """
    before = _VECTORS_ALONE.set(True)
    try:
        yield
    finally:
        _VECTORS_ALONE.reset(before)


def apply(a: Inexact[Array, "*structure"], h: Inexact[Array, "m"], *, transpose: bool = False) -> Inexact[Array, "m"]:
    """`a h` (or `a^T h`) of one step, in full precision whatever JAX's default is."""
    if a.ndim < DENSE - 1:
        return a * h
    if a.ndim == DENSE - 1:
        return _matmul(a.T if transpose else a, h)
    c = a.shape[0]
    if _VECTORS_ALONE.get():
        parts = jnp.split(h, c)
        found = [[(a[j, i] if transpose else a[i, j]) * parts[j] for j in range(c)] for i in range(c)]
        return jnp.concatenate([functools.reduce(jnp.add, terms) for terms in found])
    rows = h.reshape(c, -1)
    terms = [(a[j] if transpose else a[:, j]) * rows[j][None] for j in range(c)]
    return functools.reduce(jnp.add, terms).reshape(-1)


def outer(l: Inexact[Array, "t m"], h: Inexact[Array, "t m"], like: Array) -> Array:
    """The part of `l_t h_t^T` that lies in the structure of `like`: derivative of `l_t . a_t h_t` by `a`."""
    if like.ndim == SCALAR:
        return jnp.sum(l * h, 1)
    if like.ndim == DIAGONAL:
        return l * h
    if like.ndim == DENSE:
        return l[:, :, None] * h[:, None, :]
    t, c, _, k = like.shape
    return l.reshape(t, c, 1, k) * h.reshape(t, 1, c, k)


class Form(NamedTuple):
    """A recurrence in the layout that its parallel engines work in: `H_t = product(A_t, H_{t-1}) + B_t`.

    `product(A, X)` is associative and takes `A` for `X`, too. `axis` is that of time (or of blocks of it), in `A`, `B`
    and `H` alike. All functions take and give any stretch of time:
    """

    axis: int
    product: Callable[[Array, Array], Array]
    slopes: Callable[[Array], Array]
    terms: Callable[[Array], Array]
    states: Callable[[Array], Array]

    def unit(self, like: Array) -> Array:
        """The slopes of no step at all, in the shape of `like`: `product(unit, X) = X`."""
        if self.axis == _WRITTEN_AXIS:
            return jnp.broadcast_to(jnp.eye(like.shape[0], dtype=like.dtype)[:, :, None, None], like.shape)
        return jnp.broadcast_to(jnp.eye(like.shape[1], dtype=like.dtype)[None], like.shape)

    def marks(self, resets: Array) -> Array:
        """Resets `[t]` as something that broadcasts against `A` and `B`."""
        return resets[None, None, :, None] if self.axis == _WRITTEN_AXIS else resets[:, None, None]


_WRITTEN_AXIS = 2


def form_of(a: Array, *, transpose: bool, written: int) -> Form:
    """The layout for slopes of this structure: written out by components, or (dense, `m > written`) matrix products.

    Written out, `A` is `[c, c, t, e]` and `H` is `[c, 1, t, e]`: components first, so that a product of small matrices
    is a few sums of long vectors over time and whatever else is elementwise. Batched products of 3 x 3 matrices are
    launched one by one, or a thread each, by most libraries.
    """
    if a.ndim == DENSE and a.shape[1] > written:

        def slopes(a):
            return a.swapaxes(1, 2) if transpose else a

        return Form(0, _matmul, slopes, lambda b: b[:, :, None], lambda H: H[:, :, 0])

    c = a.shape[1] if a.ndim in (DENSE, BLOCKS) else 1

    def written_slopes(a):
        t = a.shape[0]
        blocks = a.reshape(t, c, c, -1)
        return blocks.transpose(2, 1, 0, 3) if transpose else blocks.transpose(1, 2, 0, 3)

    def written_terms(b):
        return b.reshape(b.shape[0], c, 1, -1).transpose(1, 2, 0, 3)

    def written_states(H):
        return H[:, 0].swapaxes(0, 1).reshape(H.shape[2], -1)

    return Form(_WRITTEN_AXIS, _written_product, written_slopes, written_terms, written_states)


def _matmul(a: Array, x: Array) -> Array:
    return jnp.matmul(a, x, precision=Precision.HIGHEST)


def _written_product(A: Array, X: Array) -> Array:
    terms = [A[:, j, None] * X[None, j] for j in range(A.shape[1])]
    return functools.reduce(jnp.add, terms)


apply_all = jax.vmap(apply, in_axes=(0, 0))
"""`a_t h_t` for every step."""


apply_to_one = jax.vmap(apply, in_axes=(0, None))
"""`a_t h0` for every step."""


transpose_all = jax.vmap(functools.partial(apply, transpose=True))
"""`a_t^T h_t` for every step."""
