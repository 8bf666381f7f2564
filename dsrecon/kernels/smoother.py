"""A linear recurrence held to a guess: the linear algebra of one trust-region step."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from dsrecon.kernels.linear_scan import Given, linear_scan

ENGINES = ("auto", "sequential", "chunked")

WRITTEN_OUT = 4
"""Up to this size matrices are written out, time innermost (larger ones compile long); above, they go to libraries."""

BLOCK = 16
"""Steps in a block of the chunked engine: its depth is `2 BLOCK + log2(t / BLOCK)` turns of a loop."""


def damped_scan(
    a: Given,
    b: Given,
    h0: Given,
    guess: Given,
    damping: Given | float,
    *,
    engine: str = "auto",
) -> Float[Array, "t m"]:
    """The linear recurrence `h_t = a_t h_{t-1} + b_t` pulled towards a guess `g`: the `h` that minimises

    `sum_t |h_t - a_t h_{t-1} - b_t|^2 + w sum_t |h_t - g_t|^2`, with `h_{-1} = h0` known exactly.

    At `w = 0` that is the recurrence itself, by `linear_scan`; as `w` grows, `h` goes to `g`. With `a`, `b` the
    linearisation of a nonlinear recurrence along `g`, it is a Levenberg-Marquardt step on `z_t - f(z_{t-1}) = 0`. The
    difference `d = h - g` is what is solved for, so where `g` obeys the recurrence it is returned to the last bit.

    It is the mean of a linear Gaussian state-space model of unit process noise and observations `g` of variance
    `1 / w`. Rather than filter and smooth, dynamic programming runs back in time first, in square roots: with `r_t =
    a_t g_{t-1} + b_t - g_t` the cost of what follows is `d_t' M_t d_t + 2 p_t' d_t` plus a constant,

    `M_{t-1} = w I + a_t' M_t (I + M_t)^{-1} a_t`, `p_{t-1} = Phi_t' (M_t r_t + p_t)`, `Phi_t = (I + M_t)^{-1} a_t`,

    and then `d_t = Phi_t d_{t-1} + (I + M_t)^{-1} (r_t - p_t)` forwards. `I + M_t` are the pivots of the block
    tridiagonal normal equations; their condition is at most `1 + |a|^2`, and products of `Phi`, over any stretch, stay
    below `sqrt(1 + |a|^2 / w)`, however much the recurrence expands. No pivot, jitter or bound is added. In single
    precision the error, relative to the largest `d`, was up to `2e-5 / sqrt(w)` for dense and `1e-6 / sqrt(w)` for
    diagonal slopes (t = 10^5, stretches with `|a|` from .1 to 10).

    **Arguments:**

    - `a`: slopes; the shape says their structure, as in `linear_scan`: `[t]` scalar; `[t, m]` diagonal; `[t, m, m]`
      dense; `[t, c, c, k]` blocks with `m = c k`, block `j` acting on `h.reshape(c, k)[:, j]`.
    - `b`: `[t, m]`; `h0`: state before the first step, `[m]`; `guess`: `g`, `[t, m]`. All real, of one dtype.
    - `damping`: `w`, at least 0, a scalar.
    - `engine`: how `M` is found: `"sequential"` is a loop over time, `"chunked"` takes blocks of 16 steps side by side
      and joins them in `log2 (t / 16)` rounds; `"auto"` is the loop on a CPU and the blocks elsewhere. `p` and `d` are
      `linear_scan`s, which choose for themselves.

    **Returns:** `h`, `[t, m]`. An input that is not finite makes it not finite.

    **Raises:** `ValueError` for shapes that do not fit, no steps, a type that is not real and floating, a negative
    `damping` (when its value is known) or an unknown engine.

    Reference: Gonzalez et al. 2024, *Towards scalable and stable parallelization of nonlinear RNNs*, NeurIPS; Särkkä &
    García-Fernández 2021, *Temporal parallelization of Bayesian smoothers*, IEEE Trans. Automatic Control 66, 299, and
    2023, *Temporal parallelization of dynamic programming and linear quadratic control*, ibid. 68, 851; square roots as
    in Yaghoobi et al. 2025, *Parallel square-root statistical linear regression for inference in nonlinear state space
    models*, SIAM J. Sci. Comput. The factors kept here, bounded for any damping, are this module's own.
    """
    a, b, h0, guess = (jnp.asarray(x) for x in (a, b, h0, guess))
    _check(a, b, h0, guess, damping, engine)
    w = jnp.asarray(damping, b.dtype)
    a = jnp.broadcast_to(a[:, None], b.shape) if a.ndim == 1 else a
    plain = functools.partial(linear_scan, a, b, h0)
    return jax.lax.cond(w == 0, plain, lambda: _damped(a, b, h0, guess, w, engine))


def _damped(a, b, h0, guess, w, engine) -> Array:
    blocks = _as_blocks(a)
    c, k = blocks.shape[0], blocks.shape[-1]

    def columns(x):  # [t, m] -> [c, 1, t, k]
        return jnp.moveaxis(x.reshape(-1, c, k), 1, 0)[:, None]

    def rows(x):
        return jnp.moveaxis(x[:, 0], 0, 1).reshape(-1, c * k)

    def as_slopes(x):
        x = jnp.moveaxis(x, 2, 0)
        return x[..., 0] if a.ndim == 3 else x[:, 0, 0] if a.ndim == 2 else x

    def transposed(x):
        return jnp.swapaxes(x, 0, 1)

    Q = _by_engine(blocks, w, engine)
    one = _eye(Q)
    _, G, _ = _rotated(Q, jnp.sqrt(1 + w) * one, 0 * one, one / jnp.sqrt(1 + w))
    inverse = _product(transposed(G), G)  # of I + M
    before = jnp.concatenate([h0[None], guess[:-1]])
    r = _product(blocks, columns(before)) + columns(b - guess)
    Phi = _product(inverse, blocks)
    Mr = w * r + _product(transposed(Q), _product(Q, r))
    back = rows(_product(transposed(Phi), Mr))
    zero = jnp.zeros_like(h0)
    # p_{t-1} at place t: what comes before the first step plays no part.
    p = linear_scan(as_slopes(transposed(Phi)), back, zero, reverse=True)
    p = jnp.concatenate([p[1:], zero[None]])
    d = linear_scan(as_slopes(Phi), rows(_product(inverse, r - columns(p))), zero)
    return guess + d


class _Stretch(NamedTuple):
    """A stretch of steps, seen from its ends, with its best inner states put in.

    From the state `x` before it, the last state is Gaussian of mean `P' B x` (and a constant) and covariance `P' P`
    (in the state-space model above), and the stretch costs `|Q x|^2` (and what is linear in `x`). `|P| <= w^{-1/2}`,
    while `B` and `Q` stay below `|a|`: nothing overflows and nothing cancels. Each is `[c, c, t, k]`.
    """

    B: Array
    P: Array
    Q: Array


def _joined(late: _Stretch, early: _Stretch) -> _Stretch:
    """`early` followed by `late`: two orthogonal transformations join the ends, a third adds the costs."""
    one = _eye(early.B)
    inner = _product(late.Q, jnp.swapaxes(early.P, 0, 1))
    _, G, E = _rotated(inner, one, 0 * one, one)
    Y = _product(late.B, jnp.swapaxes(_product(G, early.P), 0, 1))
    U, F, _ = _rotated(jnp.swapaxes(Y, 0, 1), one, one, 0 * one)
    Q, _, _ = _rotated(_product(E, early.B), early.Q)
    return _Stretch(_product(F, _product(G, early.B)), _product(U, late.P), Q)


def _by_engine(blocks, w, engine) -> Array:
    loop = functools.partial(_to_come, block=blocks.shape[2])
    chunks = functools.partial(_to_come, block=BLOCK)
    if engine == "auto":
        return jax.lax.platform_dependent(blocks, w, cpu=loop, default=chunks)
    return (loop if engine == "sequential" else chunks)(blocks, w)


def _to_come(blocks, w, block) -> Array:
    """`Q_t` with `M_t = w I + Q_t' Q_t`, `[c, c, t, k]`, 0 at the last step: in blocks of time side by side.

    `Q` at the ends of the blocks comes from `_Stretch`es, which a loop makes of the steps of every block and
    `log2` rounds of doubling join; from there a loop over the steps of every block finds the rest.
    """
    c, _, steps, k = blocks.shape
    count = -(-steps // block)
    spare = count * block - steps  # put before the first step, where it changes nothing
    cut = jnp.pad(blocks, ((0, 0), (0, 0), (spare, 0), (0, 0))).reshape(c, c, count, block, k)
    cut = jnp.moveaxis(cut, 3, 0)
    one = _eye(blocks)

    def back(Q, a):  # from the step a stands for to the one before
        root, _, _ = _rotated(Q, jnp.sqrt(w) * one)
        _, _, E = _rotated(root, one, 0 * one, one)
        return _product(E, a), Q

    end = jnp.zeros_like(cut[0])
    if count > 1:
        end = jnp.concatenate([_ends(cut, w).Q[:, :, 1:], end[:, :, :1]], axis=2)
    _, Q = jax.lax.scan(back, end, cut, reverse=True)
    return jnp.moveaxis(Q, 0, 3).reshape(c, c, count * block, k)[:, :, spare:]


def _ends(cut, w) -> _Stretch:
    """From the beginning of every block to the end of all time."""
    one = jnp.broadcast_to(_eye(cut[0]), cut.shape[1:])

    def single(a):
        return _Stretch(a / jnp.sqrt(1 + w), one / jnp.sqrt(1 + w), jnp.sqrt(w / (1 + w)) * a)

    def longer(late, a):
        return _joined(late, single(a)), None

    def doubled(stretch, length):
        later = jax.tree.map(lambda x: jnp.roll(x, -length, axis=2), stretch)
        inside = (jnp.arange(count) + length < count)[None, None, :, None]
        joined = _joined(later, stretch)
        return jax.tree.map(lambda x, y: jnp.where(inside, x, y), joined, stretch), None

    count = cut.shape[3]
    whole, _ = jax.lax.scan(longer, single(cut[-1]), cut[:-1], reverse=True)
    return jax.lax.scan(doubled, whole, 2 ** jnp.arange((count - 1).bit_length()))[0]


def _rotated(top, bottom, top_right=None, bottom_right=None) -> tuple[Array, Array, Array]:
    """`R, X, Y` of `Theta [[top, top_right], [bottom, bottom_right]] = [[R, X], [0, Y]]`, `Theta` orthogonal.

    `R` is upper triangular. Of no right side, `X` and `Y` have no columns. All are `[c, ., t, k]`.
    """
    c, shape = top.shape[0], jnp.broadcast_shapes(top.shape, bottom.shape)
    left = jnp.concatenate([jnp.broadcast_to(x, shape) for x in (top, bottom)])
    if top_right is None or bottom_right is None:
        right = left[:, :0]
    else:
        right = jnp.concatenate([jnp.broadcast_to(x, shape) for x in (top_right, bottom_right)])
    if c > WRITTEN_OUT:
        left, right = (jnp.moveaxis(x, (0, 1), (2, 3)) for x in (left, right))
        Theta, R = jnp.linalg.qr(left, mode="complete")
        right = jnp.einsum("tkji,tkjl->iltk", Theta, right, precision=jax.lax.Precision.HIGHEST)
        return jnp.moveaxis(R, (2, 3), (0, 1))[:c], right[:c], right[c:]
    rest, above = list(jnp.concatenate([left, right], axis=1)), []
    for i in range(c):  # a Householder reflection a column; `rest` are the rows that are left, `[., t, k]` each
        x, rest = [row[0] for row in rest], [row[1:] for row in rest]
        size = jnp.sqrt(_sum([y * y for y in x]))
        pivot = jnp.where(x[0] > 0, -size, size)
        half = size * (size + jnp.abs(x[0]))  # v'v / 2; 0 where the column is zero, and then nothing is to be done
        v = [y[None] for y in (x[0] - pivot, *x[1:])]
        along = _sum([y * row for y, row in zip(v, rest, strict=True)])
        along = along * jnp.where(half == 0, 0, 1 / jnp.where(half == 0, 1, half))[None]
        top, *rest = [row - y * along for y, row in zip(v, rest, strict=True)]
        above.append(jnp.concatenate([jnp.zeros((i, *size.shape), size.dtype), pivot[None], top]))
    above = jnp.stack(above)
    return above[:, :c], above[:, c:], jnp.stack(rest)


def _sum(terms: Sequence[Array]) -> Array:
    """The sum, written out: a reduction of products over long arrays is wrong in jaxlib 0.10.2 on CPUs.

    See https://github.com/jax-ml/jax/issues/39103.
    """
    return functools.reduce(jnp.add, terms)


def _product(x: Array, y: Array) -> Array:
    """`x y` of matrices `[i, j, t, k]` and `[j, l, t, k]`, at full precision."""
    if x.shape[0] > WRITTEN_OUT:
        return jnp.einsum("ijtk,jltk->iltk", x, y, precision=jax.lax.Precision.HIGHEST)
    return _sum([x[:, j, None] * y[None, j] for j in range(x.shape[1])])


def _eye(like: Array) -> Array:
    return jnp.eye(like.shape[0], dtype=like.dtype)[:, :, None, None]


def _as_blocks(a: Array) -> Array:
    """Slopes of any structure as `[c, c, t, k]`: diagonal ones are blocks of one, dense ones are one block."""
    if a.ndim == 2:
        return a[None, None]
    if a.ndim == 3:
        return jnp.moveaxis(a, 0, 2)[..., None]
    return jnp.moveaxis(a, 0, 2)


def _check(a, b, h0, guess, damping, engine) -> None:
    if b.ndim != 2 or 0 in b.shape:
        raise ValueError(f"b must have shape [t, m], with t and m at least 1: got {b.shape}.")
    t, m = b.shape
    fits = {1: (t,), 2: (t, m), 3: (t, m, m)}
    if a.ndim == 4:
        fits[4] = (t, a.shape[1], a.shape[1], m // max(a.shape[1], 1))
    if a.shape != fits.get(a.ndim) or (a.ndim == 4 and a.shape[1] * a.shape[3] != m):
        raise ValueError(
            f"a must have shape [{t}], [{t}, {m}], [{t}, {m}, {m}] or [{t}, c, c, k] with c k = {m}, for b of shape "
            f"{b.shape}: got {a.shape}."
        )
    for name, x, shape in [("h0", h0, (m,)), ("guess", guess, (t, m))]:
        if x.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, for b of shape {b.shape}: got {x.shape}.")
    for name, x in [("a", a), ("b", b), ("h0", h0), ("guess", guess)]:
        if not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype != b.dtype:
            raise ValueError(f"{name} must be real and floating, of the type of b, {b.dtype}: got {x.dtype}.")
    if jnp.shape(damping) != ():
        raise ValueError(f"damping must be a scalar: got shape {jnp.shape(damping)}.")
    if not isinstance(damping, Tracer) and damping < 0:
        raise ValueError(f"damping must not be negative: got {damping}.")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}: got {engine!r}.")
