"""How far ahead does a fitted system see? Errors of n-step forecasts from many starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from dsrecon.evolve import evolve
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import Series


def prediction_error(reconstruction: Reconstruction, true: Series, *, steps: int = 20, starts: int = 500) -> float:
    """PE(n): mean squared error of forecasts `n` steps ahead, `mean_i,c ((x_{i+n} - xhat_{i+n}) / sd)^2`.

    Starts `i` are spread evenly over the truth; the state at each is synchronised to the truth before it by full
    forcing. Errors are in units of the truth's standard deviations, squared, so 2 is what an unrelated point scores.

    **Arguments:** `true`: a series of the model's variables; `steps` n; `starts`: how many at most.

    **Returns:** the error; infinity or NaN where forecasts diverge.

    **Raises:** `ValueError` when the truth is not longer than `steps`.

    Reference: Koppe et al. 2019, *Identifying nonlinear dynamical systems via generative RNNs*, PLoS Comput. Biol.
    """
    if len(true.values) <= steps:
        raise ValueError(f"the truth must be longer than steps={steps}: got {len(true.values)} samples.")
    at = _starts(len(true.values) - steps, starts)
    states = reconstruction.filter(true)[at]
    predicted = _ahead(reconstruction.cell, reconstruction.readout, states, steps)
    error = reconstruction.scaler.unscale(predicted) - true.values[at + steps]
    return float(((error / true.values.std(0, ddof=1)) ** 2).mean())


def analogue_error(reference: np.ndarray, true: np.ndarray, *, steps: int = 20, starts: int = 500) -> float:
    """PE(n) of the data themselves: each start of `true` `[t, n]` is forecast by its nearest neighbour in `reference`.

    What the data can say of their own future without a model (Lorenz 1969, the method of analogues); in the
    units of `prediction_error`.
    """
    if min(len(reference), len(true)) <= steps:
        raise ValueError(f"both series must be longer than steps={steps}: got {len(reference)} and {len(true)}.")
    at = _starts(len(true) - steps, starts)
    sd = true.std(0, ddof=1)
    _, nearest = KDTree(reference[:-steps] / sd).query(true[at] / sd)
    return float((((reference[nearest + steps] - true[at + steps]) / sd) ** 2).mean())


def _starts(length: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))


@eqx.filter_jit
def _ahead(cell, readout, states, steps):
    zs = evolve(cell, states, steps=steps, throw=False).zs
    return jax.vmap(readout.decode)(jnp.asarray(zs[:, -1]))
