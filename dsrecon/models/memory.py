"""Online memory of a whole series: the time-scaled LegS system as a cell, and what it holds."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact
from numpy.polynomial.legendre import leggauss, legvander

from dsrecon._types import Matrix, State
from dsrecon.cell import AbstractCell
from dsrecon.evolve import evolve
from dsrecon.models._init import at_least_one

UNROLL = 8
"""Turns of the recurrence over the order that are compiled as one."""


class LegSMemory(AbstractCell):
    """The whole past of a signal in `n` coefficients: scaled LegS, one step exact for an input that is held.

        c' = (A c + B u) / t,    c_n(t) = (1/t) int_0^t u(s) p_n(s / t) ds,    p_n(x) = sqrt(2n+1) P_n(2x - 1)

    Step `k` takes the memory from `t = k - 1` to `t = k`. Constants are a fixed point, so that with `u` held

        c(k) = u e_0 + D (c(k-1) - u e_0),    D_nm = rho int_0^1 p_n(rho x) p_m(x) dx,    rho = (k - 1) / k,

    where `D = (k/(k-1))^A` is the projection of a history that is compressed to the first `rho` of [0, 1]; Gauss
    quadrature of `n` nodes is exact for it, and `p_n(rho x) - p_n(x)` has a recurrence of its own, so that late steps,
    which change little, lose no digits. Nothing is special in the first step (`D = 0`). Coefficients are those of the
    staircase through the samples to rounding: neither the step nor `n` adds an error. A step costs `O(n^2)`. (A
    bilinear step can cost `O(n)`, but its fast modes ring while `k < n^2`: 64 coefficients of 15 cycles over 1000 to
    10 000 steps then have nine times the rms error and more.)

    Input `(u, k)`: the sample, and its number from 1, both floats of the state's type. The memory before the first
    sample is any finite state; zeros, say. There is nothing to train.

    **Arguments:** `state_size` n. **Raises:** `ValueError` for a size below 1.

    Reference: Gu et al. 2020, *HiPPO: recurrent memory with optimal polynomial projections*, NeurIPS (there with
    Euler's and the bilinear rule).
    """

    state_size: int

    def __check_init__(self):
        at_least_one(state_size=self.state_size)

    def __call__(self, z: Inexact[Array, "m"], s: tuple[Inexact[Array, ""], Inexact[Array, ""]]) -> Inexact[Array, "m"]:
        u, k = s
        table = _table(self.state_size, z.dtype)
        e = z.at[0].add(-u)
        past = table.weights * ((table.scale * e) @ table.values)
        return z + (1 - 1 / k) * table.scale * (_compressed(table, k) @ past) - e / k

    def linearise(
        self, z: Inexact[Array, "m"], s: tuple[Inexact[Array, ""], Inexact[Array, ""]]
    ) -> tuple[State, Matrix]:
        """`(f(z, s), D)`, `D` dense `[n, n]`, lower triangular but for rounding."""
        k, table = s[1], _table(self.state_size, z.dtype)
        past = table.weights[:, None] * table.values.T * table.scale[None]
        moved = table.scale[:, None] * (_compressed(table, k) @ past)
        return self(z, s), (1 - 1 / k) * (jnp.eye(self.state_size, dtype=z.dtype) + moved)


def project(series: Array | np.ndarray, state_size: int) -> Float[Array, "t n"]:
    """The LegS memory of a series after every step: row `t` holds the samples up to and with `series[t]`.

    One compiled loop over `LegSMemory` from nothing. Several channels, or several series: `jax.vmap`.

    A sample is held for the whole of its step, from half a step before it to half a step after. So of a sine of `m`
    samples a cycle what is rebuilt is off by `1.6 / m^2` of it (the mean over a step), and within a few steps of either
    end by up to `0.6 / m` (the last stair); what `n` polynomials cannot hold comes on top (`rebuild`).

    **Arguments:** `series` `[t]`, float32 or float64, finite; `state_size` n.

    **Returns:** coefficients `[t, n]`, in the units of the series. (A NumPy series of float64 becomes float32 unless
    JAX is set to float64.)

    **Raises:** `ValueError` for another shape or type, no samples, a sample that is not finite, and a size below 1;
    where it is traced, a sample that is not finite is a run-time error.

    Reference: as `LegSMemory`.
    """
    if series.ndim != 1 or not series.size:
        raise ValueError(f"series must have shape [t], t at least 1: got {series.shape}.")
    if series.dtype not in (np.float32, np.float64):
        raise ValueError(f"series must be float32 or float64: got {series.dtype}.")
    if not isinstance(series, Tracer) and not np.isfinite(series).all():
        first = int(np.argmin(np.isfinite(series)))
        raise ValueError(f"series must be finite: got {series[first]} at step {first} of {series.size}.")
    cell, u = LegSMemory(state_size), jnp.asarray(series)
    return evolve(cell, jnp.zeros(state_size, u.dtype), (u, jnp.arange(1, u.size + 1, dtype=u.dtype))).zs


def rebuild(coefficients: Array | np.ndarray, points: int | np.ndarray) -> Inexact[Array, "*b p"]:
    """What a LegS memory holds of its past: `f(x) = sum_n c_n p_n(x)`, `x` from 0 (the start) to 1 (now).

    However finely it was sampled, 64 coefficients hold a sine of 15 cycles to 1e-5 (rms, relative), of 18 cycles to
    1 %, of 20 to no more than 15 to 20 %: in the middle of the past a polynomial of degree `n` has `n / pi` cycles.

    **Arguments:** `coefficients` `[..., n]`; `points`: where, `[p]` within [0, 1], or how many equal parts of the past
    to show, each at its middle: `points=t` after `t` samples gives them back in their places.

    **Returns:** values `[..., p]`, in the type of the coefficients.

    **Raises:** `ValueError` for coefficients that are a number or not floating, a count below 1, and points of another
    shape or out of [0, 1].
    """
    c = jnp.asarray(coefficients)
    if c.ndim < 1 or not c.size or not jnp.issubdtype(c.dtype, jnp.inexact):
        raise ValueError(f"coefficients must be floats of shape [..., n]: got {c.dtype} of shape {c.shape}.")
    if isinstance(points, int):
        at_least_one(points=points)
        points = (np.arange(points) + 0.5) / points
    if points.ndim != 1 or not ((points >= 0) & (points <= 1)).all():
        raise ValueError(f"points must be a count or an array [p] within [0, 1]: got {points}.")
    n = c.shape[-1]
    basis = np.sqrt(2.0 * np.arange(n) + 1)[:, None] * legvander(2 * points - 1, n - 1).T
    return c @ jnp.asarray(basis, c.dtype)


class _Table(NamedTuple):
    """Gauss quadrature of [0, 1] by `n` nodes `xi` of [-1, 1]: `1 + xi`, weights, `P_m(xi)`; and `sqrt(2m+1)`."""

    above: Float[Array, "q"]
    weights: Float[Array, "q"]
    values: Float[Array, "n q"]
    scale: Float[Array, "n"]


@cache
def _quadrature(state_size: int) -> tuple[np.ndarray, ...]:
    nodes, weights = leggauss(state_size)
    return 1 + nodes, weights / 2, legvander(nodes, state_size - 1).T, np.sqrt(2.0 * np.arange(state_size) + 1)


def _table(state_size: int, dtype: np.dtype) -> _Table:
    """In the type of the state: constants of the compiled step."""
    return _Table(*(jnp.asarray(x, dtype) for x in _quadrature(state_size)))


def _compressed(table: _Table, k: Inexact[Array, ""]) -> Inexact[Array, "n q"]:
    """`P_m(xi + d) - P_m(xi)` at the nodes, `d = -(1 + xi) / k`: row `m` of the polynomials in a past that is
    compressed to its first `1 - 1/k`, less what they were. From `(m+1) P_m+1 = (2m+1) xi P_m - m P_m-1` at both.
    """
    dtype = table.values.dtype
    d = -table.above / k
    at = table.above - 1 + d

    def row(last, now):
        (before, here), (m, P) = last, now
        return (here, ((2 * m + 1) * (at * here + d * P) - m * before) / (m + 1)), here

    zero = jnp.zeros_like(d)
    orders = jnp.arange(len(table.scale), dtype=dtype)
    return jax.lax.scan(row, (zero, zero), (orders, table.values))[1]
