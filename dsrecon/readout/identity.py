"""The first units of the state are the observed channels."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._checks import jax_key
from dsrecon._types import Inputs, Key
from dsrecon.readout.base import AbstractReadout, pointwise, squared_error


class IdentityReadout(AbstractReadout):
    """The first `n` units are the observed channels: `g(z) = z[:n]`.

    Unobserved units start from a learned linear map of the first observation, `z[n:] = L x`
    (Brenner et al. 2022, *Tractable dendritic RNNs for reconstructing nonlinear dynamical systems*, ICML).

    **Arguments:** `observed_size` n; `state_size` m >= n; `key` draws `L ~ U(-1, 1) / sqrt(n)`, `[m - n, n]`.
    **Raises:** `ValueError` when the state is smaller than the observation.
    """

    L: Float[Array, "hidden n"]
    observed_size: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)

    def __init__(self, observed_size: int, state_size: int, *, key: Key):
        if not 1 <= observed_size <= state_size:
            raise ValueError(
                f"state_size must be at least observed_size (and that at least 1): "
                f"got state_size={state_size} for observed_size={observed_size} channels."
            )
        self.observed_size, self.state_size = observed_size, state_size
        shape = (state_size - observed_size, observed_size)
        self.L = jax.random.uniform(jax_key(key), shape, minval=-1.0, maxval=1.0) / observed_size**0.5

    @property
    def memory(self) -> int:
        return 0

    @property
    def unitwise(self) -> bool:
        return True

    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        return z[: self.observed_size]

    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        hidden = self.state_size - self.observed_size
        imposed = jnp.ones(self.observed_size, bool) if mask is None else mask
        return jnp.where(jnp.pad(imposed, (0, hidden)), jnp.pad(x, (0, hidden)), z)

    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        return jnp.concatenate([x, self.L @ x])

    def observe(self, zs: Inexact[Array, "t m"]) -> Inexact[Array, "t n"]:
        return pointwise(self.decode, zs)

    def targets(self, xs: Inexact[Array, "t n"], mask: Bool[Array, "t n"] | None = None) -> Inexact[Array, "t n"]:
        return xs

    def misfit(self, zs: Inexact[Array, "t m"], xs: Inexact[Array, "t n"]) -> Inexact[Array, "t n"]:
        return squared_error(self.observe(zs), xs)
