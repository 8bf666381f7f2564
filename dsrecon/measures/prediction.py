"""How far ahead does a fitted system see? Errors of n-step forecasts from many starts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Inexact

from dsrecon.evolve import evolve
from dsrecon.measures.gaps import check_observed
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import Series


def prediction_error(
    reconstruction: Reconstruction,
    true: Series,
    *,
    steps: int = 20,
    starts: int = 500,
    states: Inexact[Array, "t m"] | None = None,
    inputs: Any = None,
) -> float:
    """PE(n): mean squared error of forecasts `n` steps ahead, `mean_i,c ((x_{i+n} - xhat_{i+n}) / sd)^2`.

    Starts `i` are spread evenly over the truth; the state at each is synchronised to the truth before it by
    `Reconstruction.filter`. Errors are in units of the truth's standard deviations, squared, so 2 is what an unrelated
    point scores.

    **Arguments:** `true`: a series of the model's variables; where it is NaN (not observed) the state runs on freely,
    and only starts and targets that are observed in every variable count; `steps` n; `starts`: how many at most;
    `states`: the latent states along the truth, where `Reconstruction.filter` has given them already; `inputs`: of a
    driven model, row for row with the truth.

    **Returns:** the error; infinity or NaN where forecasts diverge.

    **Raises:** `ValueError` when the truth is not longer than `steps`, no pair of observed rows is `steps` apart, or
    the inputs do not fit.

    Reference: Koppe et al. 2019, *Identifying nonlinear dynamical systems via generative RNNs*, PLoS Comput. Biol.
    """
    x = true.values[reconstruction.offset :]
    at = _starts(x, steps, starts, "the truth")
    states = reconstruction.filter(true, inputs) if states is None else states
    drive = reconstruction.driven(inputs, true.clock, len(true.values))
    drive = None if drive is None else drive[reconstruction.offset :]
    memory = np.maximum(at[:, None] + np.arange(-reconstruction.readout.memory, 1), 0)
    shown = _ahead(reconstruction.cell, reconstruction.readout, states[memory], drive, jnp.asarray(at), steps)
    predicted = reconstruction.scaler.unscale(shown)
    error = predicted[:, : x.shape[1]] - x[at + steps]
    return float(((error / np.nanstd(true.values, 0, ddof=1)) ** 2).mean())


def analogue_error(reference: np.ndarray, true: np.ndarray, *, steps: int = 20, starts: int = 500) -> float:
    """PE(n) of the data themselves: each start of `true` `[t, n]` is forecast by its nearest neighbour in `reference`.

    What the data can say of their own future without a model (Lorenz 1969, the method of analogues); in the
    units of `prediction_error`. Of series with NaN, the starts and targets observed in every variable count.

    **Raises:** `ValueError` as `prediction_error`, for either series.
    """
    reference, true = np.asarray(reference, np.float64), np.asarray(true, np.float64)
    at = _starts(true, steps, starts, "true")
    known = _starts(reference, steps, None, "reference")
    sd = np.nanstd(true, 0, ddof=1)
    _, nearest = scipy.spatial.KDTree(reference[known] / sd).query(true[at] / sd)
    return float((((reference[known[nearest] + steps] - true[at + steps]) / sd) ** 2).mean())


def _starts(values: np.ndarray, steps: int, count: int | None, name: str) -> np.ndarray:
    """Rows, evenly spread, that are observed in every variable and so are those `steps` later; all for `None`."""
    if len(values) <= steps:
        raise ValueError(f"{name} must be longer than steps={steps}: got {len(values)} samples.")
    check_observed(values, name)
    seen = np.asarray(np.isfinite(values).all(1))
    at = np.flatnonzero(seen[:-steps] & seen[steps:])
    if not len(at):
        raise ValueError(f"{name} must have rows {steps} steps apart that are observed in every variable: none are.")
    return at if count is None else at[spread(len(at), count)]


def spread(length: int, count: int) -> np.ndarray:
    """At most `count` indices below `length`, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))


@eqx.filter_jit
def _ahead(cell, readout, before, drive, at, steps):
    """What is shown `steps` after each of the states `before[:, -1]` `[b, m]`; the earlier ones serve a memory."""
    inputs = None if drive is None else drive[at[:, None] + jnp.arange(1, steps + 1)[None]]
    zs = evolve(cell, before[:, -1], inputs, steps=steps, throw=False).zs
    run = jnp.concatenate([before, zs], axis=1)[:, -1 - readout.memory :]
    return jax.vmap(readout.observe)(run)[:, -1]
