"""Pruning: a fitted cell with fewer couplings, the smallest set to zero and the others fitted again."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr

from dsrecon._checks import counted, random_key
from dsrecon._types import Key
from dsrecon.reconstruct.couplings import cut, held, matrices, zeros
from dsrecon.reconstruct.fitted import Fitted, fitted
from dsrecon.reconstruct.parts import embedding_of, parted
from dsrecon.reconstruct.plan import Plan
from dsrecon.reconstruct.prepare import kinds_of
from dsrecon.reconstruct.start import optimiser_of
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Series, as_inputs, as_trials
from dsrecon.training import of_batch
from dsrecon.training.updates import Gradient

ALIKE = 0.01
"""How far mean and standard deviation of the series may be from those of the model, in standard deviations."""

RATES = (2e-3, 2e-4)
"""First and last learning rate: a fitted cell is near its end already."""


class Pruned(NamedTuple):
    """Fits of one cell with different shares of its couplings set to zero.

    - `fit`: all of them, stacked.
    - `table`: `Dataset` along `run` with the coordinate `share`: `zeros`, how many of the couplings are zero, and what
      `Reconstruction.runs` has. Attributes: `couplings`, how many there are; `which`, the matrices they are of.
    - `rounds`.
    """

    fit: Fitted
    table: xr.Dataset
    rounds: int

    @property
    def curve(self) -> xr.Dataset:
        """The best run of each share, along `share`, in rising order."""
        runs = [self.best(share) for share in np.unique(self.table["share"].values)]
        return self.table.isel(run=runs).swap_dims(run="share")

    def best(self, share: float) -> int:
        """The run with the smallest score of a share. **Raises:** `ValueError` for a share that there is not."""
        shares = self.table["share"].values
        if share not in shares:
            raise ValueError(f"share must be one of {np.unique(shares).tolist()}: got {share}.")
        return int(np.nanargmin(np.where(shares == share, self.table["score"].values, np.nan)))

    def reconstruction(self, share: float) -> Reconstruction:
        """The best fit of a share. **Raises:** `ValueError` for one that there is not; `RuntimeError` if all failed."""
        run = self.best(share)
        row = self.table.isel(run=run)
        if str(row["failure"].values):
            raise RuntimeError(f"Every run of share {share} failed. Run {run}: {row['failure'].values}.")
        plan = Plan(dict(self.fit.plan.values), dict(self.fit.plan.reasons))
        pruned = {"share": share, "zeros": int(row["zeros"]), "couplings": int(self.table.attrs["couplings"])}
        pruned |= {"which": list(self.table.attrs["which"]), "rounds": self.rounds}
        plan.choose("pruned", pruned, None, "")
        return self.fit._replace(plan=plan, table=self.table).reconstruction(run)


def prune(
    reconstruction: Reconstruction,
    series: Any,
    share: float,
    *,
    which: Sequence[str] | None = None,
    rounds: int = 1,
    inputs: Any = None,
    runs: int = 1,
    key: Key | int = 0,
    alpha: float | Sequence[float] | Callable[[Any], Any] | None = None,
    interval: int | None = None,
    penalties: Sequence[Any] = (),
    length: int | None = None,
    batch: int | None = None,
    steps: int = 3_000,
    learning_rate: tuple[float, float] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    gradient: Gradient = of_batch,
    noise: float | None = None,
    validation: float | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> Reconstruction:
    """Set the smallest couplings of a fitted cell to zero, and fit what is left to the series again.

    The couplings are the entries of the matrices `which`, ranked together by `|w|`. With several rounds the share that
    is zero after round `k` of `R` is `1 - (1 - share)^(k/R)`: each takes the same part of what is left, and goes on
    from the weights that the one before has fitted. A coupling that is zero stays exactly zero: its gradient is masked
    before the optimiser and its update after, so neither momentum nor decay nor noise brings it back.

    **Arguments:**

    - `reconstruction`; `series`, `inputs`: what it was fitted to, as `reconstruct` takes them.
    - `share`, 0 to 1: of the couplings that are not zero already. 0 only fits again; 1 leaves none.
    - `which`: names of two-dimensional fields of the cell; default: those whose name begins with `W` (not the diagonal
      `A`, thresholds, or the inputs' `C`).
    - `rounds`: how often; `runs`: fits from these weights, of which the best is returned.
    - `alpha` or `interval`, `length`, `batch`, `noise`, `validation`: by default as the model was fitted.
    - `steps`: updates a round; `learning_rate`: (first, last), by default (2e-3, 2e-4): a fitted cell is near its end.
    - `key`, `penalties`, `optimiser`, `gradient`, `threads`, `progress`: as for `reconstruct`.

    **Returns:** a `Reconstruction` with a cell of the same class. `settings["pruned"]` says how many couplings are
    zero; `runs` are those of the last round.

    **Raises:** `ValueError` for a share outside [0, 1], rounds or runs below 1, fields that there are not, a series in
    other units than that of the fit, and as `reconstruct` does; `RuntimeError` when every run has failed.

    References: Frankle & Carbin 2019, *The lottery ticket hypothesis: finding sparse, trainable neural networks*, ICLR
    (rounds); Hemmer et al. 2024, *Optimal recurrent network topologies for dynamical systems reconstruction*, ICML
    (magnitude pruning of reconstructions, and what it costs).
    """
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1]: got {share}.")
    found = pruning_curve(
        reconstruction,
        series,
        (share,),
        which=which,
        rounds=rounds,
        inputs=inputs,
        runs=runs,
        key=key,
        alpha=alpha,
        interval=interval,
        penalties=penalties,
        length=length,
        batch=batch,
        steps=steps,
        learning_rate=learning_rate,
        optimiser=optimiser,
        gradient=gradient,
        noise=noise,
        validation=validation,
        threads=threads,
        progress=progress,
    )
    return found.reconstruction(share)


def pruning_curve(
    reconstruction: Reconstruction,
    series: Any,
    shares: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9),
    *,
    which: Sequence[str] | None = None,
    rounds: int = 1,
    inputs: Any = None,
    runs: int = 1,
    key: Key | int = 0,
    alpha: float | Sequence[float] | Callable[[Any], Any] | None = None,
    interval: int | None = None,
    penalties: Sequence[Any] = (),
    length: int | None = None,
    batch: int | None = None,
    steps: int = 3_000,
    learning_rate: tuple[float, float] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    gradient: Gradient = of_batch,
    noise: float | None = None,
    validation: float | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> Pruned:
    """`prune` at several shares at once, as one ensemble: how much can go before the attractor does.

    **Arguments:** `shares`: different numbers in [0, 1]; `runs`: of each share; the others as for `prune`.

    **Returns:** `Pruned`: `.curve` (`Dataset` along `share`: `score`, `d_stsp`, `d_h`, `zeros`, ...),
    `.reconstruction(share)`. **Raises:** as `prune`.
    """
    strengths = tuple(shares)
    if not strengths or not all(0 <= s <= 1 for s in strengths) or len(set(strengths)) != len(strengths):
        raise ValueError(f"shares must be different numbers in [0, 1], at least one: got {shares}.")
    rounds, runs = counted("rounds", rounds), counted("runs", runs)
    names = matrices(reconstruction.cell, which)
    alpha, interval = _forcing(reconstruction, alpha, interval)
    validation = _as_fitted(reconstruction, "validation", validation)
    trials = _same_units(reconstruction, series, inputs, 0.2 if validation is None else validation)
    rates = RATES if learning_rate is None and optimiser is None else learning_rate
    steps, inner = optimiser_of(steps, rates, optimiser, Plan({}, {}))
    each = np.repeat(strengths, runs)
    key = random_key(key)
    lag, dimension = _embedded(reconstruction)
    absent = zeros(reconstruction.cell, names)
    fit: Fitted | None = None
    for number in range(rounds):
        before = None if fit is None else fit.model
        reached = 1 - (1 - each) ** ((number + 1) / rounds)
        fit = fitted(
            trials,
            reconstruction.cell,
            inputs=inputs,
            readout=lambda key: reconstruction.readout,
            families=None,
            lag=lag,
            dimension=dimension,
            runs=len(each),
            key=key if number == 0 else jax.random.fold_in(key, number),
            time_step=None,
            resample=None,
            alpha=alpha,
            interval=interval,
            adaptive=None,
            penalties=penalties,
            length=_as_fitted(reconstruction, "length", length),
            batch=_as_fitted(reconstruction, "batch", batch),
            steps=steps,
            learning_rate=None,
            optimiser=optax.chain(held(names), inner, held(names)),
            gradient=gradient,
            noise=_as_fitted(reconstruction, "noise", noise),
            validation=0.2 if validation is None else validation,
            checkpoint=None,
            threads=threads,
            progress=progress,
            members=lambda start, kept=before, to=reached: cut(start if kept is None else kept, absent, to),
        )
    assert fit is not None
    fit.plan.choose("optimiser", "radam" if optimiser is None else "given", None, "")
    if rates is not None:
        fit.plan.choose("learning_rate", learning_rate, RATES, "RAdam, exponential decay; low, for the cell is fitted")
    counts = [sum(int((np.asarray(getattr(fit.model.cell, n)[i]) == 0).sum()) for n in names) for i in range(len(each))]
    total = sum(v.size for v in absent.values())
    table = fit.table.assign(zeros=("run", counts)).assign_coords(share=("run", each))
    table = table.assign_attrs(couplings=total, which=list(names))
    return Pruned(fit, table, rounds)


def _as_fitted(reconstruction: Reconstruction, name: str, given: Any) -> Any:
    """What is given, else what the fit was made with; `None` where that is not known."""
    return reconstruction.settings.get(name, {}).get("value") if given is None else given


def _forcing(reconstruction: Reconstruction, alpha: Any, interval: int | None) -> tuple[Any, int | None]:
    """The forcing that is given, else that of the fit."""
    if alpha is not None or interval is not None:
        return alpha, interval
    alpha, interval = (_as_fitted(reconstruction, name, None) for name in ("alpha", "interval"))
    if isinstance(alpha, str):
        raise ValueError(f"alpha must be given: the model was fitted with one that changed, {alpha!r}.")
    return alpha, interval


def _embedded(reconstruction: Reconstruction) -> tuple[int | None, int | None]:
    """Lag and dimension, as `reconstruct` takes them."""
    if reconstruction.embedding is not None:
        return reconstruction.embedding.lag, reconstruction.embedding.dimension
    return None, 1 if len(reconstruction.names) == 1 else None


def _same_units(reconstruction: Reconstruction, series: Any, inputs: Any, validation: float) -> list[Series]:
    """The trials under the names and clock of the model. **Raises:** `ValueError` where their units would be others.

    The cell works in units of the training part that it was fitted to; those of another one would not fit it.
    """
    trials = [reconstruction.matched(trial) for trial in as_trials(series)]
    driving = None if inputs is None else as_inputs(inputs, trials)
    kinds = kinds_of(None, lambda key: reconstruction.readout, trials)
    embedding, _ = embedding_of(trials, *_embedded(reconstruction), validation, Plan({}, {}))
    rows = np.concatenate([part.x for part in parted(trials, driving, embedding, validation).train])
    own = None if kinds is None else tuple(kind != "gaussian" for kind in kinds)
    found, wanted = Scaler.fit(rows, own), reconstruction.scaler
    apart = np.maximum(np.abs(found.mean - wanted.mean), np.abs(found.std - wanted.std)) / wanted.std
    if (apart > ALIKE).any():
        raise ValueError(
            f"series must be the one that the model was fitted to, with the same validation: its training part has "
            f"mean {found.mean} and standard deviation {found.std}, that of the fit {wanted.mean} and {wanted.std}."
        )
    return trials
