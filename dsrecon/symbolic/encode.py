"""A series, or a free run, as the sequence of linear regions that its states pass through."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon.cell import AbstractPWLCell
from dsrecon.evolve import first_nonfinite
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_series, labelled


def encode(
    reconstruction: Reconstruction,
    series: Any = None,
    *,
    steps: int | None = None,
    start: Any = None,
    discard: int = 0,
    inputs: Any = None,
) -> xr.Dataset:
    """The symbol of every step: which linear region of the fitted map its state lies in.

    `symbol_t = number of region(z_t)`, and on a free run `z_{t+1} = A[symbol_t] z_t + h[symbol_t]`.

    Regions are numbered by visits: 0 is the most visited, and of two equally visited ones the first visited
    comes first. Only visited regions are listed; of the `2^p` that `p` gates could tell apart no table is
    made.

    **Arguments:**

    - `reconstruction`: one whose cell is piecewise linear.
    - `series`: as `Reconstruction.filter` takes it, which gives its states.
    - `steps`, `start`, `discard`: instead of a series, a free run as `Reconstruction.simulate` makes it.
    - `inputs`: external inputs of a driven model, as `filter` and `simulate` take them. They move the states; `h` of a
      region is that without input.

    **Returns:** `Dataset` with dimensions `time`, `variable`, `region`, `gate` (bit) and `state`, `state_in`:

    - `symbol(time)`; `observation(time, variable)`: what the state shows, in the units of the data;
    - `bits(region, gate)`, `visits(region)`, `mean(region, variable)`: mean observation, in the units of the
      data;
    - `A(region, state, state_in)`, `h(region, state)`: the affine map, per time step and in the standardised
      units of the model;
    - `attrs`: `time_step`, `time_unit`, `cell`, `regions_visited` ("4 of at most 2^20"), `steps`, `source`.

    **Raises:** `ValueError` for a cell that is not piecewise linear, or unless exactly one of `series` and
    `steps` is given; `RuntimeError` naming the step when the states diverge (as `simulate` does): they have
    no region.

    Reference: Brenner et al. 2024, *Almost-linear RNNs yield highly interpretable symbolic codes in dynamical
    systems reconstruction*, NeurIPS.
    """
    if not isinstance(reconstruction, Reconstruction):
        raise ValueError(
            f"reconstruction must be a fitted Reconstruction: got {type(reconstruction).__name__}. A bare series is "
            "coded by code_thresholds, code_ordinal or code_kmeans."
        )
    cell = reconstruction.cell
    if not isinstance(cell, AbstractPWLCell):
        raise ValueError(
            f"cell must be an AbstractPWLCell, for symbols are its linear regions: got {type(cell).__name__}."
        )
    if (series is None) == (steps is None):
        raise ValueError("give either series or steps: got " + ("neither." if steps is None else "both."))
    if steps is None and (start is not None or discard):
        raise ValueError(f"start and discard belong to a free run (steps): got start={start}, discard={discard}.")
    if steps is None:
        zs, observation = _along(reconstruction, series, inputs)
    else:
        zs, observation = _freely(reconstruction, steps, start, discard, inputs)
    symbol, first, visits = _number(np.asarray(_regions(cell, zs)))
    bits = _regions(cell, zs[first])
    A, h = _affine(cell, bits)
    time = {name: observation.attrs[name] for name in ("time_step", "time_unit")}
    mean = np.stack([np.bincount(symbol, x, len(visits)) / visits for x in observation.values.T], axis=1)
    return xr.Dataset(
        {
            "symbol": ("time", symbol, time),
            "bits": (("region", "gate"), np.asarray(bits)),
            "visits": ("region", visits),
            "mean": (("region", "variable"), mean),
            "A": (("region", "state", "state_in"), np.asarray(A)),
            "h": (("region", "state"), np.asarray(h)),
            "observation": observation,
        },
        coords={"region": np.arange(len(visits))},
        attrs={
            **time,
            "cell": type(cell).__name__,
            "regions_visited": f"{len(visits)} of at most 2^{bits.shape[1]}",
            "steps": len(symbol),
            "source": "free run" if series is None else "series",
        },
    )


def _along(reconstruction: Reconstruction, series: Any, inputs: Any) -> tuple[Inexact[Array, "t m"], xr.DataArray]:
    """States of a series, and what they show at the times of the series."""
    aligned = reconstruction.matched(as_series(series))
    zs = _finite(reconstruction.filter(aligned, inputs), 0)
    values, first = reconstruction.observe(zs), reconstruction.offset
    return zs, labelled(values, reconstruction.names, aligned.clock, first=first, units=reconstruction.units)


def _freely(
    reconstruction: Reconstruction, steps: int, start: Any, discard: int, inputs: Any
) -> tuple[Inexact[Array, "t m"], xr.DataArray]:
    """States of a free run, and what they show, timed as by `simulate`."""
    run = reconstruction.free_run(steps, start=start, inputs=inputs, discard=discard, throw=False)
    zs = _finite(run.zs, 1)[discard:]
    values, names, units = reconstruction.observe(zs), reconstruction.names, reconstruction.units
    first = reconstruction.offset + discard + 1
    return zs, labelled(values, names, reconstruction.clock, first=first, units=units)


def _finite(zs: Inexact[Array, "t m"], first: int) -> Inexact[Array, "t m"]:
    bad = int(first_nonfinite(zs))
    if bad < len(zs):
        raise RuntimeError(
            f"The states diverged at step {bad + first} of {len(zs) - 1 + first}: the state is {zs[bad]}. "
            "It lies in no region: shorten the run, or code another one."
        )
    return zs


def _number(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows `[t, p]` to symbols `[t]` by visits, with first step and number of visits of each."""
    packed = np.packbits(np.pad(bits, ((0, 0), (1, 0))), axis=1)  # the pad keeps p = 0 a row
    rows = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, inverse, visits = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -visits))
    return np.argsort(order)[inverse.reshape(-1)], first[order], visits[order]


@eqx.filter_jit
def _regions(cell: AbstractPWLCell, zs: Inexact[Array, "t m"]) -> Bool[Array, "t p"]:
    return eqx.filter_vmap(lambda z: cell.region(z))(zs)


@eqx.filter_jit
def _affine(cell: AbstractPWLCell, bits: Bool[Array, "r p"]) -> tuple[Float[Array, "r m m"], Float[Array, "r m"]]:
    A, h = eqx.filter_vmap(lambda region: cell.affine(region))(bits)
    return A, jnp.broadcast_to(h, A.shape[:2])
