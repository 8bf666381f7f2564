"""The piecewise-linear RNN and its mean-centred form: one gate a unit."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Key
from dsrecon.cell import AbstractPWLCell
from dsrecon.kernels import abreast
from dsrecon.models._init import check_sizes, contracting_diagonal, input_matrix, offset


class PLRNN(AbstractPWLCell):
    """Piecewise-linear RNN: `z' = A z + W relu(z) + h (+ C s)`, `W` with a zero diagonal.

    What a unit does to itself is in `A` alone. The diagonal of the array `W` starts at zero, is left out of the
    equation, and so has a gradient of zero: it is zero after training too. A region is the sign pattern of all units.

    **Fields:** `A` `[m]` (a diagonal), `W` `[m, m]`, `h` `[m]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `input_size` k, 0 for none; `key` for the start values: `A` the diagonal of
    `(R'R/m + I)` over its largest eigenvalue, `R` standard normal; `W ~ 0.01 N(0, 1)` off the diagonal; `h = 0`;
    `C ~ 0.01 N(0, 1)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Durstewitz 2017, *A state space approach for piecewise-linear recurrent neural networks for identifying
    computational dynamics from neural measurements*, PLoS Computational Biology 13, e1005542.
    """

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        key_A, key_W, key_C = jax.random.split(key, 3)
        self.state_size = state_size
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W = _off_diagonal(0.01 * jax.random.normal(key_W, (state_size, state_size)))
        self.h = jnp.zeros(state_size)
        self.C = input_matrix(state_size, input_size, key=key_C)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        return self.A * z + _off_diagonal(self.W) @ jax.nn.relu(z) + offset(self.h, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        return jnp.eye(self.state_size, dtype=self.W.dtype), jnp.zeros(self.state_size, self.W.dtype)

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "m"]:
        return z > 0

    def affine(
        self, region: Bool[Array, "m"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        A = jnp.diag(self.A) + _off_diagonal(self.W) * region[None, :].astype(self.W.dtype)
        return A, offset(self.h, self.C, s)


class MeanCentredPLRNN(AbstractPWLCell):
    """Mean-centred PLRNN: `z' = A z + W relu(z - mean(z)) + h (+ C s)`.

    A region is the sign pattern of `z - mean(z)`, so no region holds all gates open.

    **Fields:** `A` `[m]` (a diagonal), `W` `[m, m]`, `h` `[m]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `input_size` k, 0 for none; `key` for the start values: those of `PLRNN`, with a
    full `W`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Brenner et al. 2022, *Tractable dendritic RNNs for reconstructing nonlinear dynamical systems*, ICML.
    """

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        key_A, key_W, key_C = jax.random.split(key, 3)
        self.state_size = state_size
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W = 0.01 * jax.random.normal(key_W, (state_size, state_size))
        self.h = jnp.zeros(state_size)
        self.C = input_matrix(state_size, input_size, key=key_C)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        return self.A * z + self.W @ jax.nn.relu(z - jnp.mean(z)) + offset(self.h, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        unit = jnp.eye(self.state_size, dtype=self.W.dtype)
        return unit - 1 / self.state_size, jnp.zeros(self.state_size, self.W.dtype)

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "m"]:
        return z - jnp.mean(z) > 0

    def affine(
        self, region: Bool[Array, "m"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        # W D (I - 11'/m), D the open gates: the centring takes from every column the mean of all
        gated = self.W * region[None, :].astype(self.W.dtype)
        A = jnp.diag(self.A) + gated - jnp.mean(gated, axis=1, keepdims=True)
        return A, offset(self.h, self.C, s)


@abreast.register(PLRNN)
def _(step: PLRNN) -> int:
    return 24


@abreast.register(MeanCentredPLRNN)
def _(step: MeanCentredPLRNN) -> int:
    return 16


def _off_diagonal(W: Float[Array, "m m"]) -> Float[Array, "m m"]:
    return jnp.where(jnp.eye(len(W), dtype=bool), jnp.zeros_like(W), W)
