"""The clipped shallow PLRNN: few dimensions, so that a fitted system is faithful."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Key
from dsrecon.cell import AbstractPWLCell
from dsrecon.models._init import check_sizes, contracting_diagonal


class ClippedShallowPLRNN(AbstractPWLCell):
    """Clipped shallow PLRNN: `z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1 (+ C s)`.

    Each hidden unit adds a ramp between two parallel hyperplanes, so its contribution is bounded by `|h2|` and the
    orbit is bounded whenever `max |A| < 1`. A region is the sign pattern of both gates of every hidden unit.

    **Fields:** `A` `[m]` (a diagonal), `W1` `[m, l]`, `W2` `[l, m]`, `h1` `[m]`, `h2` `[l]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `hidden_size` l; `input_size` k, 0 for none; `key` for the start values: `A` as in
    the AL-RNN, `W1`, `W2` and `h2` uniform within `1 / sqrt(fan_in)`, `h1 = 0`, `C ~ 0.01 N(0, 1)`.

    **Raises:** `ValueError` for a size below 1.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """

    A: Float[Array, "m"]
    W1: Float[Array, "m l"]
    W2: Float[Array, "l m"]
    h1: Float[Array, "m"]
    h2: Float[Array, "l"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, hidden_size: int, *, input_size: int = 0, key: Key):
        check_sizes(state_size=state_size, hidden_size=hidden_size, input_size=input_size)
        self.state_size, self.hidden_size = state_size, hidden_size
        key_A, key_1, key_2, key_h, key_C = jax.random.split(key, 5)
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W1 = _uniform(key_1, (state_size, hidden_size), hidden_size)
        self.W2 = _uniform(key_2, (hidden_size, state_size), state_size)
        self.h1 = jnp.zeros(state_size)
        self.h2 = _uniform(key_h, (hidden_size,), state_size)
        self.C = 0.01 * jax.random.normal(key_C, (state_size, input_size)) if input_size else None

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        u = self.W2 @ z
        ramp = jax.nn.relu(u + self.h2) - jax.nn.relu(u)
        return self.A * z + self.W1 @ ramp + self._offset(s)

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "p"]:
        u = self.W2 @ z
        return jnp.concatenate([u + self.h2 > 0, u > 0])

    def affine(
        self, region: Bool[Array, "p"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        upper, lower = jnp.split(region.astype(self.W1.dtype), 2)
        A = jnp.diag(self.A) + (self.W1 * (upper - lower)[None, :]) @ self.W2
        return A, self.W1 @ (upper * self.h2) + self._offset(s)

    def _offset(self, s: Inexact[Array, "k"] | None) -> Inexact[Array, "m"]:
        return self.h1 if self.C is None or s is None else self.h1 + self.C @ s


def _uniform(key: Key, shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / fan_in**0.5
