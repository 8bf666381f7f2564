"""What `reconstruct` and its kin share: a series laid out, many runs fitted, any of them as a `Reconstruction`."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
import xarray as xr
from jaxtyping import PyTree

from dsrecon._checks import counted, random_key
from dsrecon._types import Devices, Key
from dsrecon.cell import AbstractCell
from dsrecon.embedding import Embedding
from dsrecon.evolve import AbstractSolver, Sequential
from dsrecon.measures.embedding import EmbeddingChoice
from dsrecon.readout import AbstractReadout, Forced
from dsrecon.reconstruct.forcing import Pull, forcing_of
from dsrecon.reconstruct.parts import Parts, embedding_of, parted
from dsrecon.reconstruct.plan import Plan, plain
from dsrecon.reconstruct.prepare import Data, kinds_of, prepared
from dsrecon.reconstruct.record import course, curves, table
from dsrecon.reconstruct.select import LONGEST_RUN
from dsrecon.reconstruct.start import check_makers, check_numbers, models, optimiser_of, sampler_of
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import Series, as_inputs, as_trials
from dsrecon.training import Adaptive, Estimator, History, Penalty, fit, penalised
from dsrecon.training.fit import Evaluate
from dsrecon.training.updates import Gradient

EVALUATIONS = 20


class Fitted(NamedTuple):
    """All runs of a fit: `model` with a leading axis of runs, `table` a row a run, and what they were fitted to."""

    model: PyTree
    history: History
    table: xr.Dataset
    trials: Sequence[Series]
    driving: Sequence[Series] | None
    embedding: Embedding | None
    choice: EmbeddingChoice | None
    parts: Parts
    data: Data
    pull: Pull
    plan: Plan

    @property
    def best(self) -> int:
        """The run with the smallest score. **Raises:** `RuntimeError` with the reasons when every run has failed."""
        best = int(np.argmin(self.table["score"].values))
        if self.table["failure"].values[best]:
            reasons = "; ".join(f"run {i}: {r}" for i, r in enumerate(self.table["failure"].values))
            raise RuntimeError(f"Every run failed. {reasons}. Try more updates, a larger alpha or another cell.")
        return best

    def reconstruction(self, run: int, cell: AbstractCell | None = None) -> Reconstruction:
        """One run as what the user gets; `cell`: another form of its cell."""
        chosen: Forced = jax.tree.map(lambda v: v[run] if eqx.is_array(v) else v, self.model)
        plan = Plan(dict(self.plan.values), dict(self.plan.reasons))
        if self.pull.state is not None:
            rule = f"{plan.values['alpha']}: " if isinstance(plan.values["alpha"], str) else ""
            plan.values["alpha"] = round(float(self.table["alpha"][run]), 6)
            plan.reasons["alpha"] = f"{rule}{plan.reasons['alpha']}; the best run had {plan.values['alpha']}"
        runs = self.table.assign_attrs(best=run)
        record: dict[str, Any] = {
            "settings": plan.settings(),
            "runs": plain(runs.to_dict()),
            "course": course(self.history, run),
        }
        if self.choice is not None:
            record["embedding"] = curves(self.choice)
        longest = max(self.parts.held, key=lambda part: len(part.x))
        first = self.trials[0]
        return Reconstruction(
            chosen.cell if cell is None else cell,
            chosen.readout,
            self.data.scaler,
            self.data.anchor,
            first.clock.shifted(self.data.anchored_at),
            first.names,
            first.units,
            json.dumps(record),
            self.embedding,
            () if self.driving is None else self.driving[0].names,
            self.data.input_scaler,
            longest.x[:LONGEST_RUN],
            None if longest.s is None else longest.s[:LONGEST_RUN],
        )


def fitted(
    series: Any,
    cell: AbstractCell | Callable[[Key], AbstractCell] | None,
    *,
    inputs: Any,
    readout: Callable[[Key], AbstractReadout] | None,
    families: Mapping[str, str] | None,
    lag: int | None,
    dimension: int | None,
    runs: int,
    key: Key | int,
    time_step: float | None,
    resample: float | None,
    alpha: float | Sequence[float] | Callable[[Any], Any] | None,
    interval: int | None,
    adaptive: Adaptive | Estimator | None,
    penalties: Sequence[Penalty],
    length: int | None,
    batch: int | None,
    steps: int | None,
    learning_rate: tuple[float, float] | None,
    optimiser: optax.GradientTransformation | None,
    gradient: Gradient,
    noise: float | None,
    validation: float,
    evaluations: int = EVALUATIONS,
    checkpoint: str | os.PathLike | None,
    threads: int | None,
    progress: bool | None,
    devices: Devices | None = None,
    solver: AbstractSolver = Sequential(),
    members: Callable[[PyTree], PyTree] = lambda model: model,
    chooser: Callable[[Parts, Data], Evaluate] = lambda parts, data: data.evaluate,
) -> Fitted:
    """All runs of a fit; arguments are those of `reconstruct`.

    `members`: makes the runs differ in more than their keys: the stacked start models to other ones. `chooser`: what
    scores the runs, which must give what `select.evaluator` gives.
    """
    counts = {"lag": lag, "dimension": dimension, "interval": interval, "length": length, "batch": batch}
    check_numbers(alpha, {"noise": noise, "validation": validation}, counts | {"steps": steps, "threads": threads})
    check_makers(cell, readout)
    trials = as_trials(series, time_step=time_step, resample=resample)
    driving = None if inputs is None else as_inputs(inputs, trials)
    key = random_key(key)
    runs, evaluations = counted("runs", runs), counted("evaluations", evaluations)
    plan = Plan({"runs": runs}, {"runs": "given" if runs != 8 else "default: enough to see the scatter of fits"})
    kinds = kinds_of(families, readout, trials)
    embedding, choice = embedding_of(trials, lag, dimension, validation, plan)
    kinds = kinds if kinds is None or embedding is None else kinds * embedding.dimension
    parts = parted(trials, driving, embedding, validation)
    plan.choose("validation", None if validation == 0.2 else validation, validation, "default")
    plan.reasons["validation"] += f"; {parts.text}"
    model = members(models(cell, readout, kinds, parts.train[0].x.shape[1], parts, runs, key, plan))
    data = prepared(parts, kinds, jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, model.readout))
    evaluate = chooser(parts, data)
    updates, optimiser = optimiser_of(steps, learning_rate, optimiser, plan)
    pull = forcing_of(alpha, interval, adaptive, runs, updates, plan, solver)
    if penalties:
        plan.choose("penalties", [getattr(p, "__name__", type(p).__name__) for p in penalties], None, "")
    model, history = fit(
        model,
        penalised(pull.loss, *penalties) if penalties else pull.loss,
        sampler_of(data, length, batch, noise, key, plan, model.readout.memory),
        optimiser,
        steps=updates,
        key=jax.random.split(jax.random.fold_in(key, 1), runs),
        state=pull.state,
        adapt=pull.adapt,
        gradient=gradient,
        evaluate=evaluate,
        every=max(1, updates // evaluations),
        checkpoint=checkpoint,
        identity=plan.identity(data=parts.checksum()),
        threads=threads,
        devices=devices,
        progress=progress,
    )
    if history.interrupted:
        plan.choose("interrupted", None, int(history.evaluated_at[-1]), "stopped by hand after so many updates")
    runs_table = table(model, history, evaluate, pull.alphas(history))
    runs_table.attrs |= {"validation_samples": sum(len(h.x) for h in parts.held)}
    runs_table.attrs |= {"seconds": history.seconds, "compile_seconds": history.compile_seconds}
    return Fitted(model, history, runs_table, trials, driving, embedding, choice, parts, data, pull, plan)
