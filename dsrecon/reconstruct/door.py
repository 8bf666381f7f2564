"""The one high-level door."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from dsrecon._types import Devices, Key
from dsrecon.cell import AbstractCell
from dsrecon.evolve import AbstractSolver, Sequential
from dsrecon.readout import AbstractReadout
from dsrecon.reconstruct.fitted import EVALUATIONS, fitted
from dsrecon.reconstruction import Reconstruction
from dsrecon.training import Adaptive, Estimator, Penalty, of_batch
from dsrecon.training.updates import Gradient


def reconstruct(
    series: Any,
    cell: AbstractCell | Callable[[Key], AbstractCell] | None = None,
    *,
    inputs: Any = None,
    readout: Callable[[Key], AbstractReadout] | None = None,
    families: Mapping[str, str] | None = None,
    lag: int | None = None,
    dimension: int | None = None,
    runs: int = 8,
    key: Key | int = 0,
    time_step: float | None = None,
    resample: float | None = None,
    alpha: float | Sequence[float] | Callable[[Any], Any] | None = None,
    interval: int | None = None,
    adaptive: Adaptive | Estimator | None = None,
    penalties: Sequence[Penalty] = (),
    solver: AbstractSolver = Sequential(),
    length: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    learning_rate: tuple[float, float] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    gradient: Gradient = of_batch,
    noise: float | None = None,
    validation: float = 0.2,
    evaluations: int = EVALUATIONS,
    checkpoint: str | os.PathLike | None = None,
    threads: int | None = None,
    devices: Devices | None = None,
    progress: bool | None = None,
) -> Reconstruction:
    """Fit a dynamical system to a series: several runs at once, the one with the best attractor is returned.

    The series is standardised by its training part and a cell is trained on windows under generalized teacher forcing.
    On the way every run is let free for as long as the *validation* stretch and scored by the distance of its attractor
    (`d_stsp`) and of its spectrum (`d_h`), each in units of what another true stretch scores; the best state of the
    best run is kept. Everything but the series has a default that follows from it; `settings` of the result says what
    was chosen and why.

    Missing values are NaN: the model is pulled and judged only where something was observed. One variable alone is
    embedded in delay coordinates first, lag by mutual information and dimension by false nearest neighbours.

    **Arguments:**

    - `series`: NumPy array `[time, variable]`, pandas, xarray, or a `Series` (see `dsrecon.series.as_series`); a list
      of them for several trials of one system, which may differ in length.
    - `cell`: a function `key -> cell`, called once a run; or a cell, from whose parameters every run starts.
      Default: a clipped shallow PLRNN.
    - `inputs`: external inputs, row for row with the series (a list for several trials): row `t` acts on the step from
      row `t - 1` to row `t`.
    - `readout`: a function `key -> readout`; default: the first units of the state are the variables.
    - `families`: variable to `"poisson"` (counts) or `"bernoulli"` (0 or 1), for a `GeneralisedReadout`; variables
      that are not named are Gaussian. They are left in their own units.
    - `lag` in samples, `dimension`: of the delay embedding of one variable; `dimension=1` for none.
    - `runs`: how many. `key`: a JAX key or a seed; the same key gives the same result on the same machine.
    - `time_step`: time between samples, where the series does not say; `resample`: put samples that are not equidistant
      on this step.
    - `alpha`, 0 to 1: constant forcing; several numbers: the runs try them in turn (the default); a function
      `update -> alpha`: a schedule, any of optax's. `interval`: sparse forcing instead. `adaptive`: the strength
      follows the Jacobians; an estimator, such as `dsrecon.training.product_bound`, or `Adaptive(...)`.
    - `penalties`: what is added to the loss: see `dsrecon.training.penalised`.
    - `solver`: how the windows are run; `dsrecon.Shooting()` and `dsrecon.Newton()` find all their steps at once, which
      pays for windows of thousands of steps, on an accelerator most of all. A run with an update that they cannot solve
      stops there; `dsrecon.Auto()` takes the loop instead, and wherever it should be the faster.
    - `length`: predicted steps of a window; `batch`: windows of an update; `steps`: updates;
      `learning_rate`: first and last; `noise`: on what the model is shown, in standard deviations.
    - `optimiser`: any of optax's, instead of RAdam with a decaying rate; `gradient`: what it is given, see `fit`.
    - `validation`: share of the series, at its end, that is kept for choosing; of five trials or more, whole trials.
      `evaluations`: how often all runs are scored by it on the way.
    - `checkpoint`: file that the fit writes itself down in, and goes on from when it is there.
    - `threads`, `devices`, `progress`: as in `dsrecon.training.fit`.

    **Returns:** a `Reconstruction`: `.simulate`, `.forecast`, `.save`, `.runs` (table of all runs), `.settings`,
    `.course`. After Ctrl-C it is that of the best states so far, and `settings["interrupted"]` says after how many
    updates.

    **Raises:** `ValueError` for a series that is too short, constant, never observed or infinite, trials that do not
    go together, inputs shorter than the observations, negative counts, a cell smaller than the observation, settings
    out of range, and a checkpoint of another fit; `RuntimeError` with the reasons when every run has failed.

    References: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML; Brenner et al.
    2024, *Almost-linear RNNs yield highly interpretable symbolic codes in dynamical systems reconstruction*, NeurIPS.
    """
    fit = fitted(
        series,
        cell,
        inputs=inputs,
        readout=readout,
        families=families,
        lag=lag,
        dimension=dimension,
        runs=runs,
        key=key,
        time_step=time_step,
        resample=resample,
        alpha=alpha,
        interval=interval,
        adaptive=adaptive,
        penalties=penalties,
        solver=solver,
        length=length,
        batch=batch,
        steps=steps,
        learning_rate=learning_rate,
        optimiser=optimiser,
        gradient=gradient,
        noise=noise,
        validation=validation,
        evaluations=evaluations,
        checkpoint=checkpoint,
        threads=threads,
        devices=devices,
        progress=progress,
    )
    return fit.reconstruction(fit.best)
