"""What a fit gives: a system that runs in the coordinates of the data."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float, Inexact

from dsrecon._results import Trajectory
from dsrecon.cell import AbstractCell
from dsrecon.evolve import evolve
from dsrecon.modelfile import read_module, write_module
from dsrecon.readout import AbstractReadout, Forced, Forcing
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, Series, as_series, labelled

_NO_RUNS: dict[str, Any] = {"coords": {}, "attrs": {}, "dims": {}, "data_vars": {}}


class Reconstruction(eqx.Module):
    """A fitted dynamical system with all that it takes to use it on real data.

    - `cell`, `readout`: the map and what is observed of it, in standardised units.
    - `scaler`: to and from the units of the data.
    - `clock`: time step and time of the observation `anchor`.
    - `names`, `units`: of the variables.
    - `anchor`: first observation of the fitted series, `[n]`, in the units of the data: where a free run begins.
    - `record`: JSON text with the settings of the fit, why each was chosen, and the table of runs.
    """

    cell: AbstractCell
    readout: AbstractReadout
    scaler: Scaler
    anchor: np.ndarray
    clock: Clock
    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    record: str = eqx.field(static=True, default="{}")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the fit: name to `{"value", "reason"}`."""
        return json.loads(self.record).get("settings", {})

    @property
    def runs(self) -> xr.Dataset:
        """One row a run: scores on the validation stretch, last loss, the reason of its failure (empty: none)."""
        return xr.Dataset.from_dict(json.loads(self.record).get("runs", _NO_RUNS))

    def start(self, observation: Any = None) -> Inexact[Array, "m"]:
        """State to begin from at an observation `[n]` in the units of the data (default: `anchor`).

        A mapping, a `pandas.Series` or a `DataArray` is read by its names, not by their order.
        """
        if isinstance(observation, Mapping | pd.Series | xr.DataArray):
            observation = self._in_order(observation)
        x = self.anchor if observation is None else np.asarray(observation, np.float64)
        if x.shape != (len(self.names),) or not np.isfinite(x).all():
            raise ValueError(f"start must be {len(self.names)} finite numbers, one for each of {self.names}: got {x}.")
        return self.readout.start(self.scaler.scale(x))

    def _in_order(self, observation: Mapping | pd.Series | xr.DataArray) -> list[Any]:
        """The values of a labelled observation in the order of the model's variables."""
        if isinstance(observation, xr.DataArray):
            if "variable" not in observation.coords:
                return list(observation.values)
            observation = observation.to_series()
        found = [str(k) for k in (observation if isinstance(observation, Mapping) else observation.index)]
        if set(found) != set(self.names) and found != [str(i) for i in range(len(self.names))]:
            raise ValueError(f"start must name the variables {self.names}: got {tuple(found)}.")
        values = dict(
            zip(found, observation.values() if isinstance(observation, Mapping) else observation, strict=True)
        )
        return [values[n] for n in self.names] if set(found) == set(self.names) else list(values.values())

    def free_run(self, steps: int, *, start: Any = None, discard: int = 0, throw: bool = True) -> Trajectory:
        """The latent trajectory of `discard + steps` free steps from an observation; see `simulate`."""
        if steps < 1 or discard < 0:
            raise ValueError(f"steps must be at least 1 and discard at least 0: got {steps} and {discard}.")
        return evolve(self.cell, self.start(start), steps=steps + discard, throw=throw)

    def observe(self, zs: Inexact[Array, "t m"]) -> np.ndarray:
        """States `[t, m]` to observations `[t, n]` in the units of the data."""
        return self.scaler.unscale(_decode(self.readout, zs))

    def simulate(self, steps: int, *, start: Any = None, discard: int = 0, throw: bool = True) -> xr.DataArray:
        """Run freely: no data but the start.

        **Arguments:** `steps`: rows returned; `start`: observation `[n]` to begin from, in the units of the data
        (default: the first of the fitted series); `discard`: steps left out first; `throw`: raise on divergence.

        **Returns:** `DataArray(time, variable)` in the units of the data; its first row is one time step (or
        `discard + 1`) after the start. With `throw=False` a diverged run keeps its infinities and NaN.

        **Raises:** `RuntimeError` naming the step when the run diverges; `ValueError` for a wrong start.
        """
        run = self.free_run(steps, start=start, discard=discard, throw=throw)
        values = self.observe(run.zs[discard:])
        return labelled(values, self.names, self.clock, first=discard + 1, units=self.units)

    def filter(self, series: Any) -> Inexact[Array, "t m"]:
        """Latent states along an observed series, every observation imposed (`alpha = 1`): `[t, m]`.

        **Arguments:** `series`: as `reconstruct` takes it, with the variables of the model in their order.
        """
        series = self.matched(as_series(series, names=None))
        x = self.scaler.scale(series.values)
        z0 = self.readout.start(x[0])
        forcing = Forcing(x[:-1], jnp.ones(len(x) - 1, x.dtype))
        zs = evolve(Forced(self.cell, self.readout), z0, forcing).zs  # pyright: ignore[reportCallIssue]
        return jnp.concatenate([z0[None], _impose(self.readout, x[1:], zs)])

    def forecast(self, context: Any, steps: int, *, throw: bool = True) -> xr.DataArray:
        """Go on from an observed stretch.

        **Arguments:** `context`: a series as `reconstruct` takes it, at least two rows; the state is synchronised to
        it by full forcing; `steps`: how far ahead; `throw`: raise on divergence.

        **Returns:** `DataArray(time, variable)` in the units of the data; time goes on where the context ends.
        """
        series = self.matched(as_series(context))
        z = self.filter(series)[-1]
        run = evolve(self.cell, z, steps=steps, throw=throw)
        clock = series.clock
        return labelled(self.observe(run.zs), self.names, clock, first=len(series.values), units=self.units)

    def save(self, path: str | os.PathLike) -> Path:
        """Write everything to one file (a JSON line, then arrays): see `dsrecon.modelfile`. Never a pickle."""
        return write_module(path, self)

    def matched(self, series: Series) -> Series:
        """A series under the names and clock of the model, or `ValueError` when it has others.

        Columns without names of their own (`x0, x1, ...`) and samples without times take those of the model.
        """
        anonymous = tuple(f"x{i}" for i in range(len(series.names)))
        names = self.names if series.names == anonymous and len(anonymous) == len(self.names) else series.names
        if names != self.names:
            raise ValueError(f"variables must be {self.names}, those of the model: got {series.names}.")
        step = self.clock.time_step
        known = series.clock != Clock()
        if known and not np.isclose(series.clock.time_step, step, rtol=1e-3, atol=0):
            raise ValueError(f"time step must be {step}, that of the model: got {series.clock.time_step}.")
        clock = series.clock if known else Clock(step, 0.0, self.clock.unit)
        return series._replace(names=names, clock=clock if known else _unanchored(clock))


def load(path: str | os.PathLike) -> Reconstruction:
    """Read a `Reconstruction` that `save` wrote, on any device, bit for bit.

    **Raises:** `ValueError` for a truncated, damaged, foreign or later-version file; `FileNotFoundError`.
    """
    return read_module(path, Reconstruction)


def _unanchored(clock: Clock) -> Clock:
    if clock.unit == "datetime":
        return Clock(clock.time_step, 0.0, "s")
    return clock


@eqx.filter_jit
def _decode(readout: AbstractReadout, zs: Float[Array, "t m"]) -> Float[Array, "t n"]:
    return eqx.filter_vmap(readout.decode)(zs)


@eqx.filter_jit
def _impose(readout: AbstractReadout, xs: Float[Array, "t n"], zs: Float[Array, "t m"]) -> Float[Array, "t m"]:
    return eqx.filter_vmap(readout.encode)(xs, zs)
