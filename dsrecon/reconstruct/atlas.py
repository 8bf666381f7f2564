"""The seed atlas: Almost-Linear RNNs of many sizes, forcings and seeds fitted at once, laid out by their regions."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from dsrecon._checks import counted
from dsrecon._types import Devices, Key
from dsrecon.models import ALRNN
from dsrecon.readout import AbstractReadout
from dsrecon.reconstruct.fitted import Fitted, fitted
from dsrecon.reconstruct.forcing import ALPHAS
from dsrecon.reconstruct.plan import Plan
from dsrecon.reconstruct.visits import standing, visits
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_inputs, as_trials
from dsrecon.training import of_batch
from dsrecon.training.updates import Gradient


class Atlas(NamedTuple):
    """All members of a `seed_atlas`, their scores and what they visit.

    - `fit`: all of them, stacked.
    - `table`: `Dataset` along `run`, with the coordinates `P`, `alpha` (NaN under sparse forcing) and `seed`:
      `d_stsp`, `d_h`; `d_stsp_floors`, `d_h_floors`: the same in units of their floors, and `floors`, the larger of the
      two: 1 is what another true stretch scores; `score`: what the state of each run was chosen by, their sum;
      `regions`: how many linear regions the free run visits, `regions_99`: the fewest that hold 99 % of its steps
      (0: the run is not finite); `outside`, `loss`, `best_at`, `stopped_at`, `failure` (empty: none).
      Attributes: `d_stsp_floor`, `d_h_floor`, `against`, `seconds`, `compile_seconds`.
    """

    fit: Fitted
    table: xr.Dataset

    @property
    def front(self) -> xr.Dataset:
        """The Pareto front: the rows of `table` to which no other has both fewer `regions` and fewer `floors`.

        In the order of `regions`; failed runs are left out.
        """
        kept, best = [], np.inf
        for run in self._order(np.inf):
            if self.table["floors"].values[run] < best:
                kept.append(run)
                best = self.table["floors"].values[run]
        return self.table.isel(run=kept)

    def within(self, floors: float = 2.0) -> xr.Dataset:
        """The rows of `table` whose `d_stsp` and `d_h` are both at most so many floors: fewest regions first."""
        if not floors > 0:
            raise ValueError(f"floors must be above 0: got {floors}.")
        return self.table.isel(run=self._order(floors))

    def smallest(self, floors: float = 2.0) -> int:
        """The run with the fewest visited regions whose `d_stsp` and `d_h` are both at most so many floors.

        Of several the most faithful. **Raises:** `RuntimeError` that names the nearest run where there is none.
        """
        found = self.within(floors)
        if found.sizes["run"]:
            return int(found["run"].values[0])
        sound = self._order(np.inf)
        if not sound:
            reasons = sorted({str(r) for r in self.table["failure"].values if r})
            raise RuntimeError(f"Every run failed, so none is within {floors:g} floors: {'; '.join(reasons)}.")
        near = min(sound, key=lambda run: self.table["floors"].values[run])
        row = self.table.isel(run=near)
        raise RuntimeError(
            f"No run is within {floors:g} floors. The nearest is run {near} (P = {int(row['P'])}, "
            f"{int(row['regions'])} regions): d_stsp at {float(row['d_stsp_floors']):.2f} floors, d_h at "
            f"{float(row['d_h_floors']):.2f}. Try more updates, more seeds, larger pwl_units or other alphas."
        )

    def reconstruction(self, run: int) -> Reconstruction:
        """One run with a plain `ALRNN` of its own `P`: the same map, without the padding of the atlas.

        **Raises:** `ValueError` for a run that there is not.
        """
        if not 0 <= run < self.table.sizes["run"]:
            raise ValueError(f"run must lie between 0 and {self.table.sizes['run'] - 1}: got {run}.")
        units, plan = int(self.table["P"][run]), self.fit.plan
        why = f"{plan.reasons['pwl_units']}; this run has {units}"
        plan = Plan({**plan.values, "pwl_units": units}, {**plan.reasons, "pwl_units": why})
        own = jax.tree.map(lambda v: v[run] if eqx.is_array(v) else v, self.fit.model.cell)
        return self.fit._replace(table=self.table, plan=plan).reconstruction(run, plain_cell(own, units))

    def against(self, truth: Any, *, steps: int | None = None, inputs: Any = None) -> "Atlas":
        """The same members, scored against a truth instead of the validation stretch.

        A free run from the first complete row of the truth, after a tenth of `steps` for transients, is compared with
        the truth. The floor is that of true stretches of the same length: up to five (mean), for `d_stsp` each against
        the rest of the truth, for `d_h` each against the others. Regions are those that this run visits.

        **Arguments:** `truth`: one series of the same variables; `steps`: length of the run (default: 10,000, or half
        of the truth); `inputs`: of driven members, row for row with the truth: the run goes through them.

        **Returns:** an `Atlas`; the `score` of a failed run is infinite in it.

        **Raises:** `ValueError` for other variables, a truth that is too short, or `steps` above half of it.
        """
        columns = standing(self.fit.model, self.fit.reconstruction(0), truth, steps, inputs)
        return Atlas(self.fit, in_floors(self.table.assign(columns.data_vars).assign_attrs(columns.attrs)))

    def _order(self, floors: float) -> list[int]:
        """Runs that have not failed and are within so many floors: by regions, then by floors."""
        found, regions = self.table["floors"].values, self.table["regions"].values
        sound = (self.table["failure"].values == "") & np.isfinite(found) & (regions > 0) & (found <= floors)
        return [int(i) for i in np.lexsort((found, regions)) if sound[i]]


def seed_atlas(
    series: Any,
    *,
    state_size: int = 20,
    pwl_units: Sequence[int] = range(1, 6),
    alphas: Sequence[float] | None = None,
    interval: int | None = None,
    seeds: int = 4,
    inputs: Any = None,
    readout: Callable[[Key], AbstractReadout] | None = None,
    families: Mapping[str, str] | None = None,
    lag: int | None = None,
    dimension: int | None = None,
    key: Key | int = 0,
    time_step: float | None = None,
    resample: float | None = None,
    penalties: Sequence[Any] = (),
    length: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    learning_rate: tuple[float, float] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    gradient: Gradient = of_batch,
    noise: float | None = None,
    validation: float = 0.2,
    checkpoint: str | os.PathLike | None = None,
    threads: int | None = None,
    devices: Devices | None = None,
    progress: bool | None = None,
) -> Atlas:
    """Fit Almost-Linear RNNs of every number `P` of piecewise-linear units, forcing strength and seed, all at once.

    How few linear regions does a faithful model of the series need? A fit of one `P` does not say: training ends in
    different places, and of the `2^P` regions that a model could tell apart its attractor visits some. So many are
    fitted, and each is laid out by how faithful it is and how many regions its free run visits: `Atlas.front` holds
    those that nothing beats in both, `Atlas.smallest()` the one to read.

    The members are one ensemble: an `ALRNN` with room for the largest `P`, in which an array says what is piecewise
    linear. Nothing is compiled anew for another `P` or `alpha`, and each member trains as it would alone.

    **Arguments:**

    - `series`, and all that is not named here: as for `reconstruct`.
    - `state_size` m; `pwl_units`: the numbers P, each 0 to m.
    - `alphas`: forcing strengths, 0 to 1 (default: .05, .1, .2, .4), or `interval` of sparse forcing instead.
    - `seeds`: members of each P and alpha. Every member has its own start values and its own windows.

    **Returns:** an `Atlas`. Scores are of free runs against the validation stretch, floors those of training stretches
    of its length; the state with the best score on the way was kept of each. Regions are those of a free run of 10,000
    steps after 1,000 for transients (of driven members: along the validation stretch, after a tenth of it).

    **Raises:** `ValueError` for `pwl_units` that are none, given twice or outside 0..m, alphas likewise or beside an
    interval, fewer than one seed, and as `reconstruct` does.

    Reference: Brenner et al. 2024, *Almost-linear RNNs yield highly interpretable symbolic codes in dynamical systems
    reconstruction*, NeurIPS: faithfulness against P and against the regions used.
    """
    units = _checked(state_size, pwl_units, alphas, interval, seeds)
    strengths = ALPHAS if alphas is None else tuple(float(a) for a in alphas)
    members = list(product(units, strengths if interval is None else (np.nan,), range(seeds)))
    P, alpha, seed = (np.array(column) for column in zip(*members, strict=True))
    rectified = jnp.asarray(np.arange(state_size) >= state_size - P[:, None])
    width = 0
    if inputs is not None:
        width = len(as_inputs(inputs, as_trials(series, time_step=time_step, resample=resample))[0].names)
    fit = fitted(
        series,
        lambda key: ALRNN(state_size, max(units), input_size=width, key=key),
        inputs=inputs,
        readout=readout,
        families=families,
        lag=lag,
        dimension=dimension,
        runs=len(members),
        key=key,
        time_step=time_step,
        resample=resample,
        alpha=[float(a) for a in alpha] if interval is None else None,
        interval=interval,
        adaptive=None,
        penalties=penalties,
        length=length,
        batch=batch,
        steps=steps,
        learning_rate=learning_rate,
        optimiser=optimiser,
        gradient=gradient,
        noise=noise,
        validation=validation,
        checkpoint=checkpoint,
        threads=threads,
        devices=devices,
        progress=progress,
        members=lambda model: eqx.tree_at(lambda m: m.cell.rectified, model, rectified),
    )
    fit.plan.choose("pwl_units", [int(p) for p in units], None, "")
    found = visits(fit)
    table = fit.table.assign(found.data_vars).assign_attrs(found.attrs | {"interval": interval or 0})
    names = {name: ("run", values) for name, values in (("P", P), ("alpha", alpha), ("seed", seed))}
    return Atlas(fit, in_floors(table.assign_coords(names)))


def plain_cell(cell: ALRNN, units: int) -> ALRNN:
    """An `ALRNN` with `pwl_units = units` that is the same map as one with room for more."""
    width = 0 if cell.C is None else cell.C.shape[1]
    make = lambda key: ALRNN(cell.state_size, units, input_size=width, key=key)  # noqa: E731
    made = eqx.filter_eval_shape(make, jax.random.key(0))

    def arrays(c: ALRNN) -> list[Any]:
        return [c.A, c.W, c.h, c.rectified, *([] if c.C is None else [c.C])]

    return eqx.tree_at(arrays, made, arrays(cell))


def in_floors(table: xr.Dataset) -> xr.Dataset:
    """The table with its distances in units of the floors in its attributes, and the larger of the two."""
    ratios = {name: table[name].values / table.attrs[f"{name}_floor"] for name in ("d_stsp", "d_h")}
    added = {f"{name}_floors": ("run", values) for name, values in ratios.items()}
    return table.assign(added).assign(floors=("run", np.fmax(*ratios.values())))


def _checked(
    state_size: int, pwl_units: Sequence[int], alphas: Sequence[float] | None, interval: int | None, seeds: int
) -> tuple[int, ...]:
    """The numbers of units; see `seed_atlas` for what is raised."""
    counted("state_size", state_size)
    units = tuple(pwl_units) if isinstance(pwl_units, Sequence) and not isinstance(pwl_units, str) else ()
    whole = all(isinstance(p, int | np.integer) and 0 <= p <= state_size for p in units)
    if not units or not whole or len(set(units)) != len(units):
        raise ValueError(
            f"pwl_units must be different integers between 0 and state_size={state_size}, at least one: "
            f"got {pwl_units}."
        )
    counted("seeds", seeds)
    if alphas is not None and interval is not None:
        raise ValueError(f"give alphas or interval, not both: got alphas={alphas} and interval={interval}.")
    if interval is not None:
        counted("interval", interval)
    if alphas is not None:
        strengths = tuple(alphas)
        if not strengths or not all(0 <= a <= 1 for a in strengths) or len(set(strengths)) != len(strengths):
            raise ValueError(f"alphas must be different numbers in [0, 1], at least one: got {alphas}.")
    return tuple(int(p) for p in units)
