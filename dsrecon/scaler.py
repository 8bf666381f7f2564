"""From the units of the data to those of the model, and back."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Scaler(eqx.Module):
    """Standardisation `x -> (x - mean) / std`, per channel. `mean`, `std`: `[n]`, in the units of the data.

    Kept in float64 on the host so that large offsets (a pressure in pascal, a count) lose nothing.
    """

    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def fit(values: np.ndarray, plain: tuple[bool, ...] | None = None) -> "Scaler":
        """Mean and sample standard deviation of what is observed of `[t, n]`: pass the training part only.

        **Arguments:** `values`: NaN is missing; `plain`: channels left in their own units (mean 0, standard deviation
        1), as counts must be.
        """
        values = np.asarray(values, np.float64)
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
        if plain is not None:
            mean, std = np.where(plain, 0.0, mean), np.where(plain, 1.0, std)
        return Scaler(mean, std)

    def scale(self, values: np.ndarray) -> Float[Array, "*t n"]:
        """Units of the data to units of the model, as a JAX array of the default float type."""
        return jnp.asarray((np.asarray(values, np.float64) - self.mean) / self.std, dtype=float)

    def unscale(self, values: Float[Array, "*t n"] | Float[np.ndarray, "*t n"]) -> np.ndarray:
        """Units of the model to units of the data, float64 on the host."""
        return np.asarray(values, np.float64) * self.std + self.mean
