"""The Almost-Linear RNN: few regions, so that a fitted system can be read."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Key
from dsrecon.cell import AbstractPWLCell
from dsrecon.kernels import abreast
from dsrecon.models._init import check_sizes, contracting_diagonal, offset


class ALRNN(AbstractPWLCell):
    """Almost-Linear RNN: `z' = A z + W phi(z) + h (+ C s)`, `phi` = relu on the last `P` units, identity elsewhere.

    A region is the sign pattern of the last `P` units, so there are at most `2^P` of them and a fit with small `P`
    is read off as a symbolic machine of as many states.

    **Fields:** `A` `[m]` (a diagonal), `W` `[m, m]`, `h` `[m]`, `C` `[m, k]` or `None`; `rectified` `[m]`, which units
    are piecewise linear (an array, so that members of one ensemble may differ).

    **Arguments:** `state_size` m; `pwl_units` P, 0 to m; `input_size` k, 0 for none; `key` for the start values:
    `A` the diagonal of `(R'R/m + I)` over its largest eigenvalue, `R` standard normal; `W ~ 0.01 N(0, 1)`; `h = 0`.

    **Raises:** `ValueError` for `pwl_units` outside 0..m, a size below 1, and a key that is none.

    Reference: Brenner et al. 2024, *Almost-linear RNNs yield highly interpretable symbolic codes in dynamical
    systems reconstruction*, NeurIPS.
    """

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    rectified: Bool[Array, "m"]
    state_size: int = eqx.field(static=True)
    pwl_units: int = eqx.field(static=True)

    def __init__(self, state_size: int, pwl_units: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        if not 0 <= pwl_units <= state_size:
            raise ValueError(f"pwl_units must lie between 0 and state_size={state_size}: got {pwl_units}.")
        key_A, key_W, key_C = jax.random.split(key, 3)
        self.state_size, self.pwl_units = state_size, pwl_units
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W = 0.01 * jax.random.normal(key_W, (state_size, state_size))
        self.h = jnp.zeros(state_size)
        self.C = 0.01 * jax.random.normal(key_C, (state_size, input_size)) if input_size else None
        self.rectified = jnp.arange(state_size) >= state_size - pwl_units

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        phi = jnp.where(self.rectified & (z <= 0), jnp.zeros_like(z), z)
        return self.A * z + self.W @ phi + offset(self.h, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        last = slice(self.state_size - self.pwl_units, None)
        moves = self.rectified[last].astype(self.W.dtype)
        return jnp.eye(self.state_size, dtype=self.W.dtype)[last] * moves[:, None], 1 - moves

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "p"]:
        last = slice(self.state_size - self.pwl_units, None)
        return (z[last] > 0) | ~self.rectified[last]

    def affine(
        self, region: Bool[Array, "p"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        linear = jnp.ones(self.state_size - self.pwl_units, bool)
        open_units = jnp.concatenate([linear, region]).astype(self.W.dtype)
        return jnp.diag(self.A) + self.W * open_units[None, :], offset(self.h, self.C, s)


@abreast.register(ALRNN)
def _(step: ALRNN) -> int:
    return 24
