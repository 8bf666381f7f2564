"""What a fit to several subjects gives: shared dynamics, and a few features of each."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from dsrecon._checks import random_key
from dsrecon._results import Settings
from dsrecon._types import Key
from dsrecon.cell import AbstractCell, AbstractFamily
from dsrecon.modelfile import read_module, write_module
from dsrecon.models.hierarchical import Hierarchical
from dsrecon.readout import Forced
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import Clock, as_series, filled
from dsrecon.training import Windows, fit, gtf, radam


class Subjects(eqx.Module):
    """What a fit to several subjects gives: a family of cells, and a `Reconstruction` of each subject.

    - `family`: the cells, in principal axes: see `Hierarchical.principal`.
    - `names`: of the subjects. `first`: the reconstruction of the first one, which holds all that they share.
    - `record`: JSON text with the scores.
    - `anchors` `[subjects, n]`, `clocks`, `validation`, `validation_inputs`: what each has of its own, as in
      `Reconstruction`.
    """

    family: Hierarchical
    first: Reconstruction
    anchors: np.ndarray
    clocks: tuple[Clock, ...]
    validation: tuple[np.ndarray | None, ...]
    validation_inputs: tuple[np.ndarray | None, ...]
    record: str = eqx.field(static=True, repr=False)
    names: tuple[str, ...] = eqx.field(static=True)

    def __len__(self) -> int:
        return len(self.names)

    def subject(self, which: int | str) -> Reconstruction:
        """One subject, by number (from 0) or name: a plain cell with its own anchor, clock and validation stretch.

        **Raises:** `ValueError` for one that there is not.
        """
        if isinstance(which, str) and which not in self.names:
            raise ValueError(f"subject must be one of {self.names}: got {which!r}.")
        i = self.names.index(which) if isinstance(which, str) else which
        if not 0 <= i < len(self):
            raise ValueError(f"subject must lie between 0 and {len(self) - 1}: got {i}.")
        return dataclasses.replace(
            self.first,
            cell=cell_of(self.family, jnp.asarray(i)),
            anchor=self.anchors[i],
            clock=self.clocks[i],
            validation=self.validation[i],
            validation_inputs=self.validation_inputs[i],
        )

    @property
    def features(self) -> xr.DataArray:
        """Features of the subjects, `(subject, feature)`: how far each lies from their mean along the principal axes.

        They are distances in the space of the cell's parameters; along axis 0 the subjects differ most.
        """
        values = np.asarray(self.family.features, np.float64)
        coords = {"subject": list(self.names), "feature": np.arange(values.shape[1])}
        return xr.DataArray(values, coords, ("subject", "feature"), name="features")

    @property
    def runs(self) -> xr.Dataset:
        """One row a run of the fit; scores are means over the subjects, `failed_subjects` how many left their range."""
        return self.first.runs

    @property
    def scores(self) -> xr.Dataset:
        """How each subject's free run compares with the end of its trial, and `failure`: the reason, or nothing."""
        found = {name: ("subject", values) for name, values in json.loads(self.record).items()}
        return xr.Dataset(found, {"subject": list(self.names)})

    @property
    def settings(self) -> Settings:
        """Settings of the fit, a dict: name to `{"value", "reason"}`. It is shown as a line a setting."""
        return self.first.settings

    def save(self, path: str | os.PathLike, *, data: bool = True) -> Path:
        """Write all of it to one file, for `load_subjects`: as `Reconstruction.save` does, also with `data=False`."""
        none = (None,) * len(self)
        first = dataclasses.replace(self.first, validation=None, validation_inputs=None)
        kept = dataclasses.replace(self, first=first, validation=none, validation_inputs=none)
        return write_module(path, self if data else kept)

    def adapted(
        self,
        trial: Any,
        steps: int = 1000,
        *,
        inputs: Any = None,
        alpha: float | None = None,
        length: int | None = None,
        batch: int = 16,
        key: Key | int = 0,
    ) -> Reconstruction:
        """A subject that was not in the fit, from a trial that may be short: only its features are learned.

        All else stays as it is. The search begins at the mean of the known subjects and at each of them, and the
        features with the smallest loss over the last tenth of the updates are kept.

        **Arguments:** `trial`: a series as `reconstruct_subjects` takes it; `steps`: updates; `inputs`: external
        inputs, row for row with the trial; `alpha`: forcing, that of the fit by default; `length`: predicted steps of a
        window (default: 50, or a quarter of a short trial); `batch`: windows of an update; `key`: a JAX key or a seed.

        **Returns:** a `Reconstruction` with a plain cell. `validation` is `None`: all of the trial was learned from.

        **Raises:** `ValueError` for a family without features, other variables or another time step, a trial too short
        for a window, and where the fit had no constant `alpha` and none is given; `RuntimeError` when all searches
        fail.
        """
        known = self.family.features
        if not known.shape[1]:
            raise ValueError("the subjects have no features to adapt: they were fitted with features=0.")
        trained = self.settings.get("alpha", {}).get("value")
        alpha = trained if alpha is None and isinstance(trained, int | float) else alpha
        if alpha is None:
            raise ValueError("alpha must be given: the fit had no constant one.")
        base, readout, family = self.first, self.first.readout, self.family
        series = base.embedded(matched := base.matched(as_series(trial)))
        s = base.driven(inputs, matched.clock, len(matched.values))
        x, mask = base.presented(series.values)
        length = max(1, min(50 + readout.memory, len(x) // 4)) if length is None else length
        sampler = Windows(
            x,
            length=length,
            batch=batch,
            mask=mask,
            seen=readout.targets(x, mask),
            s=None if s is None else s[base.offset :],
        )
        pulled = gtf(float(alpha))

        def loss(features: Float[Array, "q"], state: PyTree, batch: Any, key: Key):
            return pulled(Forced(family.at(features), readout), state, batch, key)  # pyright: ignore[reportCallIssue]

        starts = jnp.concatenate([jnp.mean(known, 0)[None], known])
        rate = 0.1 * float(jnp.sqrt(jnp.mean(known**2)))
        keys = jax.random.split(random_key(key), len(starts))
        found, history = fit(
            starts, loss, sampler, radam(rate, 0.01 * rate, steps), steps=steps, key=keys, progress=False
        )
        last = history.loss[-max(1, steps // 10) :].mean(0)
        if not np.isfinite(last).any():
            raise RuntimeError("Every search for features failed: the loss was not finite. Try a larger alpha.")
        at, anchor = anchored(series.values, base.scaler.mean)
        record = json.loads(base.record)
        why = (
            f"updates of the features alone, from {len(starts)} starts; the other settings are those of the shared fit"
        )
        record["settings"] = {**record.get("settings", {}), "adapted": {"value": steps, "reason": why}}
        return dataclasses.replace(
            base,
            cell=family.at(found[int(np.nanargmin(last))]),
            anchor=anchor,
            clock=matched.clock.shifted(at),
            record=json.dumps(record),
            validation=None,
            validation_inputs=None,
        )


def load_subjects(path: str | os.PathLike) -> Subjects:
    """Read `Subjects` that `save` wrote, on any device, bit for bit. **Raises:** as `dsrecon.load`."""
    return read_module(path, Subjects)


@eqx.filter_jit
def cell_of(family: AbstractFamily, condition: PyTree) -> AbstractCell:
    """`family.given(condition)`, compiled: the condition as an array, which is not checked."""
    return family.given(condition)


def anchored(values: np.ndarray, mean: np.ndarray) -> tuple[int, np.ndarray]:
    """Where free runs of a stretch `[t, n]` begin: its first complete row, or its first with what is missing filled in.

    **Returns:** number of the row, and the observation `[n]`: where it is missing, on the line between its neighbours,
    and at `mean` `[n]` for a variable that is never observed.
    """
    complete = np.isfinite(values).all(1)
    at = int(np.argmax(complete)) if complete.any() else 0
    lines = filled(values[at:])[0]
    return at, np.where(np.isnan(lines), mean, lines)
