"""Observations that are a linear map of the state."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._checks import jax_key
from dsrecon._types import Inputs, Key
from dsrecon.readout.base import AbstractReadout, pointwise, squared_error


class LinearReadout(AbstractReadout):
    """Every channel is a linear map of all units: `g(z) = B z + b`.

    Imposing an observation moves the state as little as possible, `encode(x, z) = z + B^+ (x - B z - b)`, with the
    Moore-Penrose pseudo-inverse `B^+` of the observed rows of `B`. The null space of `B` is left alone; gradients
    flow through `B^+` too.

    - `n <= m`, rows independent: the observed channels become exactly those of `x`.
    - `n > m`: the observed channels become the least-squares fit to `x`. A mask then costs a singular value
      decomposition a step.
    - Nothing is regularised: `|B^+|` is one over the smallest singular value of `B`, and a nearly dependent set of
      channels moves the state far. Singular values below `10 max(n, m)` units of rounding of the largest count as
      zero (dependent channels: a least-squares fit); a mask on dependent channels (`n <= m`) may give NaN.

    Without a mask the cost a step is that of two matrix products: `B^+` does not change along a run, and XLA computes
    it once, before the loop. A mask (`n <= m`) adds the elimination of an `n x n` system.

    A run starts at `B^+ (x - b)` plus a learned linear map `L` of `x` into the null space of `B` (none for `n >= m`).

    **Arguments:** `observed_size` n; `state_size` m; `key` draws `B` `[n, m]` with orthonormal rows (columns where
    n > m), so that `B^+ = B'` at first, and `L ~ U(-1, 1) / sqrt(n)`, `[m, n]`; `b = 0`.
    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """

    B: Float[Array, "n m"]
    b: Float[Array, "n"]
    L: Float[Array, "m n"] | None
    observed_size: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)

    def __init__(self, observed_size: int, state_size: int, *, key: Key):
        for name, size in (("observed_size", observed_size), ("state_size", state_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1: got {size}.")
        self.observed_size, self.state_size = observed_size, state_size
        B_key, L_key = jax.random.split(jax_key(key))
        self.B = jax.nn.initializers.orthogonal()(B_key, (observed_size, state_size))
        self.b = jnp.zeros(observed_size)
        shape = (state_size, observed_size)
        hidden = state_size > observed_size
        self.L = jax.random.uniform(L_key, shape, minval=-1.0, maxval=1.0) / observed_size**0.5 if hidden else None

    @property
    def memory(self) -> int:
        return 0

    @property
    def unitwise(self) -> bool:
        return False

    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        return self.B @ z + self.b

    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        if mask is None:
            inverse = jnp.linalg.pinv(self.B)
            return z - (inverse @ self.B) @ z + inverse @ (x - self.b)
        r = jnp.where(mask, x - self.decode(z), 0)
        if self.observed_size > self.state_size:
            return z + jnp.linalg.pinv(jnp.where(mask[:, None], self.B, 0)) @ r
        inverse = jnp.linalg.pinv(self.B)
        return z + inverse @ completed(r, inverse, mask)

    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        inverse = jnp.linalg.pinv(self.B)
        z = inverse @ (x - self.b)
        if self.L is None:
            return z
        hidden = self.L @ x
        return z + hidden - inverse @ (self.B @ hidden)

    def observe(self, zs: Inexact[Array, "t m"]) -> Inexact[Array, "t n"]:
        return pointwise(self.decode, zs)

    def targets(self, xs: Inexact[Array, "t n"], mask: Bool[Array, "t n"] | None = None) -> Inexact[Array, "t n"]:
        return xs

    def misfit(self, zs: Inexact[Array, "t m"], xs: Inexact[Array, "t n"]) -> Inexact[Array, "t n"]:
        return squared_error(self.observe(zs), xs)


def completed(r: Inexact[Array, "n"], inverse: Inexact[Array, "m n"], mask: Bool[Array, "n"]) -> Inexact[Array, "n"]:
    """`r` with the entries where `mask` is false chosen such that `|B^+ r|` is least.

    `B^+` of the result is the pseudo-inverse of the observed rows of `B`, applied to the observed entries of `r`.
    What is chosen solves `K_uu r_u = -K_uo r_o`, `K = B^+' B^+` (o observed, u unobserved); the observed entries stay
    as they are, whatever the rounding of the solution.

    **Arguments:** `r` `[n]`, zero where the mask is false; `inverse` `B^+` `[m, n]` of independent rows; `mask` `[n]`.
    """
    K = inverse.T @ inverse
    free = ~mask
    system = jnp.where(free[:, None] & free[None], K, jnp.eye(r.size, dtype=K.dtype))
    wanted = jnp.where(free, K @ r, 0)
    return r - jax.lax.custom_linear_solve(lambda q: system @ q, wanted, _eliminate(system), symmetric=True)


def _eliminate(A: Inexact[Array, "n n"]):
    """A solver of `A q = y`, `A` symmetric positive definite, by Gauss-Jordan elimination.

    Inside a loop this beats a call of LAPACK a step for the few channels of a readout.
    """
    index = jnp.arange(len(A))

    def solve(_, y: Inexact[Array, "n"]) -> Inexact[Array, "n"]:
        def column(i, M):
            row = (M[i] / M[i, i])[None]
            return jnp.where((index == i)[:, None], row, M - M[:, i, None] * row)

        return jax.lax.fori_loop(0, len(A), column, jnp.concatenate([A, y[:, None]], 1))[:, -1]

    return solve
