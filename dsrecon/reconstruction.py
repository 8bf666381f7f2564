"""What a fit gives: a system that runs in the coordinates of the data."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._checks import counted, whole
from dsrecon._results import Settings, Trajectory
from dsrecon._types import Key
from dsrecon.cell import AbstractCell
from dsrecon.embedding import Embedding
from dsrecon.evolve import evolve
from dsrecon.modelfile import read_module, write_module
from dsrecon.readout import AbstractReadout, Forced, Forcing, GeneralisedReadout
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, Series, aligned, as_series, filled, labelled, refuse_names

_NO_RUNS: dict[str, Any] = {"coords": {}, "attrs": {}, "dims": {}, "data_vars": {}}


class Reconstruction(eqx.Module):
    """A fitted dynamical system with all that it takes to use it on real data.

    - `cell`, `readout`: the map and what is observed of it, in standardised units.
    - `scaler`: to and from the units of the data.
    - `clock`: time step and time of the observation `anchor`.
    - `names`, `units`: of the variables.
    - `anchor`: first observation of the fitted series, `[n]`, in the units of the data: where a free run begins.
    - `record`: JSON text with the settings of the fit, why each was chosen, and the table of runs.
    - `embedding`: `None`, or the delay coordinates in which the one variable was fitted. The readout, the scaler and
      `anchor` are then of these coordinates (the present value first); all that comes out is the variable.
    - `input_names`, `input_scaler`: of the external inputs; empty and `None` for an autonomous system.
    - `validation`: the stretch that the model was chosen by, `[t, n]` in the units of the data and in `coordinates`,
      NaN where missing, at most 10,000 rows; `validation_inputs` `[t, k]`: the inputs along it. `diagnose` rests on it.
    """

    cell: AbstractCell
    readout: AbstractReadout
    scaler: Scaler
    anchor: np.ndarray
    clock: Clock
    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    record: str = eqx.field(static=True, default="{}", repr=False)
    embedding: Embedding | None = None
    input_names: tuple[str, ...] = eqx.field(static=True, default=())
    input_scaler: Scaler | None = None
    validation: np.ndarray | None = None
    validation_inputs: np.ndarray | None = None

    @property
    def settings(self) -> Settings:
        """Settings of the fit, a dict: name to `{"value", "reason"}`. It is shown as a line a setting."""
        return Settings(json.loads(self.record).get("settings", {}))

    @property
    def runs(self) -> xr.Dataset:
        """One row a run: scores on the validation stretch, last loss, the reason of its failure (empty: none)."""
        return xr.Dataset.from_dict(json.loads(self.record).get("runs", _NO_RUNS))

    @property
    def course(self) -> xr.Dataset:
        """How the fit went: medians over 200 stretches of its updates, along `update` (the last of each).

        `loss`; `gradient_norm`, as it came from the loss; and under an adaptive forcing `alpha`, `norm` (the
        estimate `s` of how much the cell stretches) and `bound`, `(1 - alpha) s`. NaN where the run had stopped.
        """
        found = json.loads(self.record).get("course", {"update": []})
        traces = {name: ("update", np.array(v, float)) for name, v in found.items() if name != "update"}
        return xr.Dataset(traces, {"update": found["update"]})

    @property
    def embedding_curves(self) -> xr.Dataset:
        """What the delay embedding was chosen by.

        `mutual_information(lag)` in nats and `false_neighbours(dimension)`, a share; the choice is in the attributes
        `lag` (samples) and `dimension`. **Raises:** `ValueError` where no embedding was looked for.
        """
        curves = json.loads(self.record).get("embedding")
        if curves is None:
            raise ValueError("the fit looked for no embedding: it has several variables, or dimension=1 was given.")
        variables = {
            "mutual_information": ("lag", np.array(curves["mutual_information"], float)),
            "false_neighbours": ("dimension", np.array(curves["false_neighbours"], float)),
        }
        coords = {"lag": curves["lags"], "dimension": curves["dimensions"]}
        lag, dimension = (0, 1) if self.embedding is None else (self.embedding.lag, self.embedding.dimension)
        time = {"time_step": self.clock.time_step, "time_unit": self.clock.unit}
        return xr.Dataset(variables, coords, {"lag": lag, "dimension": dimension, **time})

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of what the readout shows: the variables, or the delay coordinates of the one."""
        return self.names if self.embedding is None else self.embedding.names(self.names[0])

    @property
    def offset(self) -> int:
        """Samples before the first state of a filtered series: the span of the embedding, 0 without one."""
        return 0 if self.embedding is None else self.embedding.span

    def start(self, observation: Any = None) -> Inexact[Array, "m"]:
        """State to begin from at an observation `[n]` in the units of the data (default: `anchor`).

        A mapping, a `pandas.Series` or a `DataArray` is read by its names, not by their order. With an embedding
        the observation is one point of it: the present value, then the earlier ones.
        """
        if isinstance(observation, Mapping | pd.Series | xr.DataArray):
            observation = self._in_order(observation)
        x = self.anchor if observation is None else np.asarray(observation, np.float64)
        names = self.coordinates
        if x.shape != (len(names),) or not np.isfinite(x).all():
            raise ValueError(f"start must be {len(names)} finite numbers, one for each of {names}: got {x}.")
        return self.readout.start(self.readout.targets(self.scaler.scale(x)[None], None)[0])

    def _in_order(self, observation: Mapping | pd.Series | xr.DataArray) -> list[Any]:
        """The values of a labelled observation in the order of the model's variables."""
        if isinstance(observation, xr.DataArray):
            if "variable" not in observation.coords:
                return list(observation.values)
            observation = observation.to_series()
        found = [str(k) for k in (observation if isinstance(observation, Mapping) else observation.index)]
        if set(found) != set(self.coordinates) and found != [str(i) for i in range(len(self.coordinates))]:
            raise ValueError(f"start must name the variables {self.coordinates}: got {tuple(found)}.")
        values = dict(
            zip(found, observation.values() if isinstance(observation, Mapping) else observation, strict=True)
        )
        return [values[n] for n in self.coordinates] if set(found) == set(self.coordinates) else list(values.values())

    def free_run(
        self, steps: int, *, start: Any = None, inputs: Any = None, discard: int = 0, throw: bool = True
    ) -> Trajectory:
        """The latent trajectory of `discard + steps` free steps from an observation; see `simulate`."""
        steps, discard = whole("steps", steps), whole("discard", discard)
        if steps < 1 or discard < 0:
            raise ValueError(f"steps must be at least 1 and discard at least 0: got {steps} and {discard}.")
        s = self.driven(inputs, None, steps + discard)
        return evolve(self.cell, self.start(start), s, steps=steps + discard, throw=throw)

    def observe(self, zs: Inexact[Array, "t m"], *, key: Key | None = None) -> np.ndarray:
        """States `[t, m]` to observations `[t, n]` of the variables, in the units of the data.

        They are the expected ones; with a `key` counts and binary variables are drawn.
        """
        return self.scaler.unscale(_observe(self.readout, zs, key))[:, : len(self.names)]

    def simulate(
        self,
        steps: int,
        *,
        start: Any = None,
        inputs: Any = None,
        discard: int = 0,
        throw: bool = True,
        key: Key | None = None,
    ) -> xr.DataArray:
        """Run freely: no data but the start (and the inputs of a driven system).

        **Arguments:** `steps`: rows returned; `start`: observation `[n]` to begin from, in the units of the data
        (default: the first of the fitted series); `inputs`: external inputs of the `discard + steps` steps, row `i`
        acting on step `i`; `discard`: steps left out first; `throw`: raise on divergence; `key`: draw counts and
        binary variables with it (without: their expected values).

        **Returns:** `DataArray(time, variable)` in the units of the data; its first row is one time step (or
        `discard + 1`) after the start. With `throw=False` a diverged run keeps its infinities and NaN.

        **Raises:** `RuntimeError` naming the step when the run diverges; `ValueError` for a wrong start, and for inputs
        that are missing, too short or not asked for.
        """
        run = self.free_run(steps, start=start, inputs=inputs, discard=discard, throw=throw)
        values = self.observe(run.zs, key=key)[discard:]
        return labelled(values, self.names, self.clock, first=self.offset + discard + 1, units=self.units)

    def filter(self, series: Any, inputs: Any = None, *, alpha: float | None = None) -> Inexact[Array, "t m"]:
        """Latent states along an observed series, by forcing: `z_t <- z_t + alpha (encode(x_t, z_t) - z_t)`.

        Where a value is missing (NaN) nothing pulls: the cell carries on by itself. With an embedding the first state
        is that of sample `offset`.

        **Arguments:** `series`: as `reconstruct` takes it, with the variables of the model in their order; `inputs`:
        external inputs, row for row with the series; `alpha`: how hard the observations pull, 0 to 1. Default: 1, every
        observation is imposed; but the strength of the training (`settings["alpha"]`) where the state has hidden units,
        which under another forcing need not come to the values that they had in training.

        **Returns:** `[t - offset, m]`. **Raises:** `ValueError` for other variables, another time step, inputs that
        do not fit, or an alpha out of range.
        """
        alpha = self.pull if alpha is None else alpha
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1]: got {alpha}.")
        matched = self.matched(as_series(series))
        s = self.driven(inputs, matched.clock, len(matched.values))
        x, mask = self.presented(self.embedded(matched).values)
        x = self.readout.targets(x, mask)
        z0 = self.readout.start(x[0])
        if len(x) == 1:
            return z0[None]
        s = None if s is None else s[self.offset + 1 :]
        forcing = Forcing(x, jnp.full(len(x), alpha, x.dtype), None, mask)
        before = jax.tree.map(lambda v: v[:-1], forcing)._replace(s=s)
        forced = Forced(self.cell, self.readout)  # pyright: ignore[reportCallIssue]
        zs = evolve(forced, z0, before).zs
        return jnp.concatenate([z0[None], _forced(forced, zs, jax.tree.map(lambda v: v[1:], forcing))])

    @property
    def pull(self) -> float:
        """The forcing strength that `filter` uses when none is given: see there."""
        trained = self.settings.get("alpha", {}).get("value")
        hidden = self.cell.state_size > self.readout.observed_size
        return float(trained) if hidden and isinstance(trained, int | float) else 1.0

    def forecast(self, context: Any, steps: int, *, inputs: Any = None, throw: bool = True) -> xr.DataArray:
        """Go on from an observed stretch.

        **Arguments:** `context`: a series as `reconstruct` takes it, at least two rows (and longer than the span of an
        embedding); the state is synchronised to it by `filter`; `steps`: how far ahead; `inputs`: external inputs
        of the context and of the `steps` after it, one below the other; `throw`: raise on divergence.

        **Returns:** `DataArray(time, variable)` in the units of the data; time goes on where the context ends.

        **Raises:** `ValueError` for a context that does not fit, inputs likewise, and `steps` that is no count;
        `RuntimeError` naming the step when the run diverges.
        """
        steps = counted("steps", steps)
        try:
            series = self.matched(as_series(context))
        except ValueError as error:
            raise ValueError(f"context: {error}") from error
        rows = len(series.values)
        s = self.driven(inputs, series.clock, rows + steps)
        before = self.filter(series, inputs)
        run = evolve(self.cell, before[-1], None if s is None else s[rows:], steps=steps, throw=throw)
        values = self.observe(jnp.concatenate([before, run.zs]))[-steps:]
        return labelled(values, self.names, series.clock, first=rows, units=self.units)

    def save(self, path: str | os.PathLike, *, data: bool = True) -> Path:
        """Write everything to one file (a JSON line, then arrays): see `dsrecon.modelfile`. Never a pickle.

        `data=False` leaves out the stretch of the data that the model was chosen by. One observation, `anchor`, where
        free runs begin, stays in any case.
        """
        kept = self if data else dataclasses.replace(self, validation=None, validation_inputs=None)
        return write_module(path, kept)

    def embedded(self, series: Series) -> Series:
        """A series of the variables in the coordinates that the readout shows; the same without an embedding."""
        if self.embedding is None:
            return series
        units = series.units * self.embedding.dimension
        return Series(self.embedding(series.values), self.coordinates, series.clock.shifted(self.offset), units)

    def in_coordinates(self, data: Any) -> xr.DataArray:
        """A series of the variables as points of the model's coordinates, `DataArray(time, variable)`.

        With an embedding these are the delay coordinates, in which an attractor can be looked at; without one the
        series itself.
        """
        return self.embedded(self.matched(as_series(data))).to_xarray()

    def presented(self, values: np.ndarray) -> tuple[Float[Array, "t n"], Bool[Array, "t n"] | None]:
        """Observations `[t, n]` in the units of the model, finite throughout, and where they are known (`None`: all).

        A missing value lies on the line between its neighbours in time, or at the mean of the fitted series where its
        channel has none; it is there to be masked.
        """
        seen = np.isfinite(values)
        if seen.all():
            return self.scaler.scale(values), None
        lines = filled(values)
        return self.scaler.scale(np.where(np.isnan(lines), self.scaler.mean, lines)), jnp.asarray(seen)

    def driven(self, inputs: Any, clock: Clock | None, rows: int) -> Float[Array, "t k"] | None:
        """External inputs of `rows` steps in the units of the model, or `None` for an autonomous system.

        **Arguments:** `inputs`: what `as_series` takes; `clock`: of the series that they go with, or `None`.

        **Raises:** `ValueError` for inputs that are missing, not asked for, of other variables, or too short.
        """
        if self.input_scaler is None:
            if inputs is not None:
                raise ValueError("inputs must be None: the model was fitted without external inputs.")
            return None
        if inputs is None:
            raise ValueError(f"inputs must be given: the model is driven by {self.input_names}.")
        refuse_names(inputs)
        found = as_series(inputs)
        anonymous = tuple(f"x{i}" for i in range(len(found.names)))
        if found.names not in (self.input_names, anonymous) or len(found.names) != len(self.input_names):
            raise ValueError(f"inputs must be {self.input_names}, those of the fit: got {found.names}.")
        return self.input_scaler.scale(aligned(found, clock or Clock(), rows).values)

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

    **Raises:** `ValueError` for a truncated, damaged, foreign or later-version file, with what reads it where that is
    known, and for a folder, with the model files in it; `FileNotFoundError`.
    """
    return read_module(path, Reconstruction)


def _unanchored(clock: Clock) -> Clock:
    if clock.unit == "datetime":
        return Clock(clock.time_step, 0.0, "s")
    return clock


@eqx.filter_jit
def _observe(readout: AbstractReadout, zs: Float[Array, "t m"], key: Key | None) -> Float[Array, "t n"]:
    if key is not None and isinstance(readout, GeneralisedReadout):
        return readout.sample(zs, key=key)
    return readout.observe(zs)


@eqx.filter_jit
def _forced(forced: Forced, zs: Float[Array, "t m"], forcing: Forcing) -> Float[Array, "t m"]:
    return eqx.filter_vmap(forced.force)(zs, forcing)
