"""The flow of `dz/dt = A z + W relu(z) + b` in closed form: exact pieces from one switching of a unit to the next."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jaxtyping import Array, Bool, Float, Int

PROBES = 64
"""Most certified steps towards the end of one piece. They converge quadratically: a handful is the rule."""


class Field(NamedTuple):
    """`dz/dt = A z + W relu(z) + b`, `A` `[m]` a diagonal."""

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    b: Float[Array, "m"]


class Path(NamedTuple):
    """A stretch of an orbit in `K` pieces, of which the first `count` are used.

    - `end` `[m]`: the state at the end; NaN unless `left == 0`.
    - `lengths` `[K]`, `regions` `[K, m]`: how long each piece is, and which units are open in it.
    - `gates` `[K]`: the unit that switches at its end, -1 where the piece ends for another reason.
    - `states` `[K, m]`: the state at its end.
    - `left`: what remains of the duration when the pieces are used up.
    """

    end: Float[Array, "m"]
    lengths: Float[Array, "K"]
    regions: Bool[Array, "K m"]
    gates: Int[Array, "K"]
    states: Float[Array, "K m"]
    count: Int[Array, ""]
    left: Float[Array, ""]


@functools.cache
def terms(dtype: Any) -> int:
    """The terms of `exp` at 1 that count in a floating type: 18 in float64, 10 in float32."""
    unit = float(jnp.finfo(dtype).eps) / 4
    return next(n for n in range(1, 30) if 1 / math.factorial(n + 1) < unit)


def linear(field: Field, opened: Bool[Array, "m"], x: Array) -> Array:
    """`A_r x` of the region `r`, without its matrix."""
    gated = jnp.where(opened, x, jnp.zeros((), x.dtype))
    return field.A * x + jnp.matmul(field.W, gated, precision="highest")


def series(field: Field, z: Array, opened: Bool[Array, "m"], h: Array) -> Array:
    """The terms `h^n / n! A_r^(n-1) (A_r z + b)` `[n, m]` of `z(h) - z`."""
    first = h * (linear(field, opened, z) + field.b)
    return _powers(field, opened, first, h, 2)


def _powers(field: Field, opened: Array, first: Array, h: Array, start: int) -> Array:
    """`first` and what follows from it, each `h A_r / n` times the one before, `n` from `start` on."""

    def body(term, n):
        term = (h / n) * linear(field, opened, term)
        return term, term

    n = jnp.arange(start, terms(h.dtype) + 1, dtype=h.dtype)
    return jnp.concatenate([first[None], jax.lax.scan(body, first, n)[1]])


def piece(field: Field, z: Array, opened: Bool[Array, "m"], h: Array) -> Array:
    """`z + h phi_1(h A_r) (A_r z + b)`, the flow within a region, for `h |A_r| <= 1`."""
    return z + jnp.sum(series(field, z, opened, h), 0)


def frame(field: Field, Z: Array, opened: Bool[Array, "m"], h: Array) -> Array:
    """`exp(h A_r) Z` for a matrix `Z` `[m, m]`."""
    return jax.vmap(lambda z: jnp.sum(_powers(field, opened, z, h, 1), 0), in_axes=1, out_axes=1)(Z)


def march(field: Field, z: Array, duration: Array, limit: int) -> Path:
    """The pieces of an orbit, found with certainty and without derivatives.

    Within a region the orbit is a power series, summed over `H = 1 / |A_r|` at most, where its first terms are all
    of it to rounding. From `s`, a gate value `u` is held by `u(s + d) >= u + u' d - M d^2 / 2`, with `M` above `-u''`
    from the terms of the series; no unit can have switched before the first `d` at which one of these bounds falls
    below a rounding error of zero. That `d` is gone, and again from there: a crossing is approached from its own side
    with quadratic convergence, and none can be leapt over, however near to the next. The unit switches when
    `u <= 0` and `u' < 0`.
    """
    A, W, _ = field
    flat = jnp.zeros((), z.dtype)
    rows, columns, squares = jnp.abs(W), jnp.sum(jnp.abs(W), 0), jnp.sum(W * W, 0) + 2 * A * jnp.diag(W)

    def norm(opened):
        """Above an operator norm of `A_r`, and with it the ratio of the terms."""
        d = opened.astype(z.dtype)
        by_rows = jnp.max(jnp.abs(A) + rows @ d)
        by_columns = jnp.max(jnp.abs(A) + columns * d)
        frobenius = jnp.sqrt(jnp.maximum(jnp.sum(A * A + squares * d), flat))
        return jnp.minimum(jnp.minimum(by_rows, by_columns), frobenius)

    def go(now):
        k, z, opened, left, path = now
        H = jnp.minimum(left, 1 / norm(opened))
        tau, z, hit = _first(z, series(field, z, opened, H), opened)
        h = jnp.where(tau == 1, H, tau * H)
        here = jnp.arange(limit, dtype=jnp.int32) == k
        gate = jnp.where(jnp.any(hit), jnp.argmax(hit), -1).astype(path.gates.dtype)
        path = path._replace(
            lengths=jnp.where(here, h, path.lengths),
            regions=jnp.where(here[:, None], opened[None], path.regions),
            gates=jnp.where(here, gate, path.gates),
            states=jnp.where(here[:, None], z[None], path.states),
        )
        return k + 1, z, opened ^ hit, left - h, path

    def more(now):
        k, z, _, left, _ = now
        return (left > 0) & (k < limit) & jnp.all(jnp.isfinite(z))

    m = z.size
    empty = Path(
        z,
        jnp.zeros(limit, z.dtype),
        jnp.zeros((limit, m), bool),
        jnp.full(limit, -1, jnp.int32),
        jnp.zeros((limit, m), z.dtype),
        jnp.zeros((), jnp.int32),
        duration,
    )
    count, z, _, left, path = jax.lax.while_loop(more, go, (empty.count, z, z > 0, duration, empty))
    return path._replace(end=jnp.where(left == 0, z, jnp.nan), count=count, left=left)


def _first(z: Array, series: Array, opened: Array) -> tuple[Array, Array, Array]:
    """`(tau, z, hit)`: the first switching of `z + sum_n tau^n series_n` in `[0, 1]`, or 1, or a certain way there.

    `z` is the state then, `hit` the units that switch.
    """
    zero, sign = jnp.zeros((), z.dtype), jnp.where(opened, 1, -1).astype(z.dtype)
    e = jnp.concatenate([z[None], series]) * sign[None]
    n = jnp.arange(len(e), dtype=z.dtype)
    size = jnp.abs(e)
    slack = 8 * jnp.finfo(z.dtype).eps * jnp.max(jnp.sum(size, 0))
    bend = jnp.maximum(jnp.sum((n * (n - 1))[3:, None] * size[3:], 0) - 2 * e[2], zero)

    def values(tau):
        """`u` and `du/dtau`."""
        powers = tau**n
        slopes = n * jnp.concatenate([zero[None], powers[:-1]])
        return jnp.sum(powers[:, None] * e, 0), jnp.sum(slopes[:, None] * e, 0)

    def reach(tau, u, du):
        """How far no unit can switch, by the bounds from here."""
        rest, above = 1 - tau, jnp.maximum(u, zero) + slack
        clear = above + du * rest - 0.5 * bend * rest**2 >= 0
        root = jnp.sqrt(du * du + 2 * bend * above)
        falls = du < 0
        first = jnp.where(falls, 2 * above / jnp.where(falls, root - du, 1), (root + du) / jnp.where(bend > 0, bend, 1))
        first = jnp.where(clear, rest, jnp.minimum(first, rest))
        step = jnp.min(first)
        return jnp.where(step >= rest, jnp.ones_like(tau), tau + step)

    def more(now):
        tau, u, du, k = now
        return (tau < 1) & (k < PROBES) & ~jnp.any((u <= 0) & (du < 0))

    def go(now):
        tau, u, du, k = now
        tau = reach(tau, u, du)
        return tau, *values(tau), k + 1

    tau, u, du, _ = jax.lax.while_loop(more, go, (zero, e[0], e[1], jnp.zeros((), jnp.int32)))
    return tau, sign * u, (u <= 0) & (du < 0)


def over(path: Path, lengths: Array, carry: Any, step: Any) -> Any:
    """`carry = step(carry, region, h, gate, last)` over the pieces in use.

    What no lane of a `vmap` has costs little.
    """

    def body(carry, row):
        k, h, opened, gate = row
        used = k < path.count

        def move(carry):
            after = step(carry, opened, h, gate, k == path.count - 1)
            return jax.tree.map(lambda new, old: jnp.where(used, new, old), after, carry)

        return jax.lax.cond(unvmap_any(used), move, lambda carry: carry, carry), None

    rows = (jnp.arange(lengths.size, dtype=jnp.int32), lengths, path.regions, path.gates)
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), carry, rows)[0]


def held(path: Path) -> Path:
    """The path as a constant."""
    return jax.tree.map(jax.lax.stop_gradient, path)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def walk(field: Field, z: Array, duration: Array, limit: int) -> Path:
    """`march`, differentiable in its `end`.

    The field is continuous where a unit switches, so to first order it does not matter when: the derivatives by state
    and parameters are those of the pieces, their lengths held. (That of the lengths counts from the second order on:
    `timed`.) The derivative by the duration is the field.
    """
    return march(field, z, duration, limit)


@walk.defjvp
def _walk_jvp(limit, primals, tangents):
    field, z, duration = primals
    path = walk(field, z, duration, limit)
    lengths = timed(field, z, duration, held(path))

    def replay(field, z):
        return over(held(path), lengths, z, lambda z, opened, h, *_: piece(field, z, opened, h))

    _, moved = jax.jvp(replay, (field, z), tangents[:2])
    moved = moved + velocity(field, path.end) * tangents[2]
    sound = jnp.where(path.left == 0, 1, jnp.nan).astype(z.dtype)  # a factor: a NaN in reverse mode, too
    return path, jax.tree.map(_still, path)._replace(end=moved * sound)


def velocity(field: Field, z: Array) -> Array:
    """`A z + W relu(z) + b`."""
    return linear(field, z > 0, z) + field.b


def _still(x: Array) -> Any:
    """A tangent of zero."""
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)


@jax.custom_jvp
def timed(field: Field, z: Array, duration: Array, path: Path) -> Array:
    """`path.lengths` `[K]` as functions of the parameters, the state and the duration.

    A piece that ends where `z_i = 0` moves its end by `-dz_i / (dz_i/dt)`; the last one ends when the time is up.
    """
    return path.lengths


@timed.defjvp
def _timed_jvp(primals, tangents):
    field, z, duration, path = primals
    lengths = timed(field, z, duration, path)
    d_field, d_z, d_duration, _ = tangents

    def step(carry, opened, h, gate, last):
        z, d_z, gone, moves, k = carry
        z, d_z = jax.jvp(lambda field, z: piece(field, z, opened, h), (field, z), (d_field, d_z))
        rate = linear(field, opened, z) + field.b
        i = jnp.maximum(gate, 0)
        switches = (gate >= 0) & ~last
        late = jnp.where(switches, -d_z[i] / jnp.where(switches, rate[i], 1), 0)
        late = jnp.where(last, d_duration - gone, late)
        moves = jnp.where(jnp.arange(moves.size, dtype=jnp.int32) == k, late, moves)
        return z, d_z + rate * late, gone + late, moves, k + 1

    start = (z, d_z, jnp.zeros_like(duration), jnp.zeros_like(lengths), jnp.zeros((), jnp.int32))
    return lengths, over(path, lengths, start, step)[3]
