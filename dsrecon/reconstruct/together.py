"""The door for several subjects: one fit of all of them together."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from dsrecon._checks import counted, random_key, several_names
from dsrecon._types import Devices, Key
from dsrecon.cell import AbstractCell
from dsrecon.models.hierarchical import Hierarchical, Leaves
from dsrecon.readout import AbstractReadout
from dsrecon.reconstruct.fitted import EVALUATIONS, Fitted
from dsrecon.reconstruct.forcing import forcing_of
from dsrecon.reconstruct.parts import Parts, embedding_of, parted
from dsrecon.reconstruct.plan import Plan, plain
from dsrecon.reconstruct.prepare import Data, kinds_of, prepared
from dsrecon.reconstruct.record import table
from dsrecon.reconstruct.select import LONGEST_RUN, begun, evaluator
from dsrecon.reconstruct.start import check_makers, check_numbers, models, optimiser_of, sampler_of
from dsrecon.reconstruct.subjects import Subjects, anchored, cell_of
from dsrecon.series import Series, as_inputs, as_trials, filled
from dsrecon.training import fit
from dsrecon.training.conditioned import FamilyModel, by_trial, conditioned
from dsrecon.training.fit import Evaluate


def reconstruct_subjects(
    trials: Any,
    cell: AbstractCell | Callable[[Key], AbstractCell] | None = None,
    *,
    features: int = 2,
    individual: Leaves = None,
    names: Sequence[str] | None = None,
    inputs: Any = None,
    readout: Callable[[Key], AbstractReadout] | None = None,
    lag: int | None = None,
    dimension: int | None = None,
    runs: int = 8,
    key: Key | int = 0,
    time_step: float | None = None,
    resample: float | None = None,
    alpha: float | Sequence[float] | Callable[[Any], Any] | None = None,
    interval: int | None = None,
    length: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    learning_rate: tuple[float, float] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    noise: float | None = None,
    validation: float = 0.2,
    checkpoint: str | os.PathLike | None = None,
    threads: int | None = None,
    devices: Devices | None = None,
    progress: bool | None = None,
) -> Subjects:
    """Fit one family of systems to trials of several subjects, a cell for each: `theta_j = theta_0 + sum_k l_jk P_k`.

    As `reconstruct`, but that every subject has parameters of its own, which differ from those of the others in a few
    shared directions (`Hierarchical`): what one subject shows of the dynamics helps the others, and the `features` say
    how the subjects differ. One scaler and one readout are shared. Every subject is let run free for as long as the end
    of its own trial, which is held out, and scored by it; the score of a run is the mean over the subjects. A run is
    refused only if all of its subjects left the range of their data: `scores` of the result tells how each fared.

    **Arguments:**

    - `trials`: a list of series, one a subject; each as `reconstruct` takes it, with the same variables and time step.
    - `cell`: a function `key -> cell`, or a cell: any. Default: a clipped shallow PLRNN.
    - `features`: of a subject; 0 for one cell that all share. `individual`: the parameters that differ, by names of
      the cell's fields or a function (default: all), see `dsrecon.models.Hierarchical`.
    - `names`: of the subjects. Default: `"0"`, `"1"`, ...
    - the others: as for `reconstruct`; `inputs` a list, one a subject; `validation`: share of each trial.

    **Returns:** `Subjects`: `.subject(i)`, a `Reconstruction`; `.features`; `.adapted(trial)` for a new subject.

    **Raises:** `ValueError` as `reconstruct`, and for less than two subjects, trials too short for a window, features
    below 0, names that repeat or are of another number; `RuntimeError` with the reasons when every run has failed.

    Reference: Brenner et al. 2025, *Learning interpretable hierarchical dynamical systems models from time series
    data*, ICLR.
    """
    counts = {"lag": lag, "dimension": dimension, "interval": interval, "length": length, "batch": batch}
    check_numbers(alpha, {"noise": noise, "validation": validation}, counts | {"steps": steps, "threads": threads})
    check_makers(cell, readout)
    series = as_trials(trials, time_step=time_step, resample=resample)
    names = _names(names, len(series))
    driving = None if inputs is None else as_inputs(inputs, series)
    key = random_key(key)
    runs, features = counted("runs", runs), counted("features", features, 0)
    plan = Plan({"runs": runs}, {"runs": "given" if runs != 8 else "default: enough to see the scatter of fits"})
    plan.choose("subjects", len(series), None, "")
    plan.choose("features", None if features == 2 else features, features, "default")
    if individual is not None:
        plan.choose("individual", "a function" if callable(individual) else several_names(individual), None, "")
    embedding, choice = embedding_of(series, lag, dimension, validation, plan)
    parts = _parted(series, driving, embedding, validation, names)
    plan.choose("validation", None if validation == 0.2 else validation, validation, "default")
    plan.reasons["validation"] += f"; {parts.text}"
    kinds = kinds_of(None, readout, series)
    kinds = kinds if kinds is None or embedding is None else kinds * embedding.dimension
    forced = models(cell, readout, kinds, parts.train[0].x.shape[1], parts, runs, key, plan)

    def family(forced, key):
        cells = Hierarchical(forced.cell, len(series), features, individual=individual, key=key)
        return FamilyModel(cells, forced.readout)  # pyright: ignore[reportCallIssue]

    model = eqx.filter_jit(eqx.filter_vmap(family))(forced, jax.random.split(jax.random.fold_in(key, 3), runs))
    data = prepared(parts, kinds, jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, model.readout))
    updates, optimiser = optimiser_of(steps, learning_rate, optimiser, plan)
    pull = forcing_of(alpha, interval, None, runs, updates, plan)
    sampler = sampler_of(data, length, batch, noise, key, plan, model.readout.memory)
    _refuse_short(data.lengths, sampler.length, names)
    evaluate = _evaluator(parts, data, model.readout, kinds, names)
    model, history = fit(
        model,
        conditioned(pull.loss, by_trial),
        sampler,
        optimiser,
        steps=updates,
        key=jax.random.split(jax.random.fold_in(key, 1), runs),
        state=pull.state,
        adapt=pull.adapt,
        evaluate=evaluate,
        every=max(1, updates // EVALUATIONS),
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
    drives = None if driving is None else list(driving)
    found = Fitted(model, history, runs_table, list(series), drives, embedding, choice, parts, data, pull, plan)
    return _subjects(found, evaluate.each, names)


def _subjects(found: Fitted, each: Sequence[Evaluate], names: tuple[str, ...]) -> Subjects:
    """The best run, subject by subject."""
    best = found.best
    chosen: FamilyModel = jax.tree.map(lambda v: v[best] if eqx.is_array(v) else v, found.model)
    family: Hierarchical = chosen.family.principal()  # pyright: ignore[reportAttributeAccessIssue]
    model = FamilyModel(family, chosen.readout)  # pyright: ignore[reportCallIssue]
    scores = _by_subject(each, jax.tree.map(lambda v: v[None] if eqx.is_array(v) else v, model))
    begins = [anchored(part.x, found.data.scaler.mean) for part in found.parts.train]
    held = found.parts.held
    alone = found._replace(parts=found.parts._replace(held=held[:1]))
    clocks = [one.clock.shifted(at) for one, (at, _) in zip(found.trials, begins, strict=True)]
    return Subjects(
        family,
        alone.reconstruction(best, cell_of(family, jnp.asarray(0))),
        np.stack([anchor for _, anchor in begins]),
        tuple(clocks),
        tuple(part.x[:LONGEST_RUN] for part in held),
        tuple(None if part.s is None else part.s[:LONGEST_RUN] for part in held),
        json.dumps({k: [plain(one[k][0]) for one in scores] for k in scores[0]}),
        names,
    )


def _names(names: Sequence[str] | None, subjects: int) -> tuple[str, ...]:
    if subjects < 2:
        raise ValueError(f"trials must be a list of at least 2 subjects: got {subjects}. For one use reconstruct.")
    found = tuple(str(i) for i in range(subjects)) if names is None else tuple(several_names(names))
    if len(found) != subjects or len(set(found)) < subjects:
        raise ValueError(f"names must be {subjects}, one a subject, and differ: got {found}.")
    return found


def _parted(trials: Sequence[Series], driving, embedding, validation: float, names: Sequence[str]) -> Parts:
    """The end of every trial is held out."""
    found = []
    for i, (name, trial) in enumerate(zip(names, trials, strict=True)):
        try:
            found.append(parted([trial], None if driving is None else [driving[i]], embedding, validation))
        except ValueError as error:
            raise ValueError(f"subject {name!r}: {error}") from error
    count = sum(len(part.held[0].x) for part in found)
    text = f"the last {validation:.0%} of each subject ({count} samples) choose among the runs"
    return Parts([part.train[0] for part in found], [part.held[0] for part in found], text)


def _refuse_short(lengths: Sequence[int], length: int, names: Sequence[str]) -> None:
    for name, rows in zip(names, lengths, strict=True):
        if rows < length + 1:
            raise ValueError(
                f"subject {name!r} is too short: {rows} samples to learn from, where a window of {length} predicted "
                f"steps needs {length + 1}. Give a smaller length, or leave the subject out."
            )


class _Evaluator(NamedTuple):
    """Scores of a stack of models: means over the subjects. A run has failed when all of its subjects have."""

    each: list[Evaluate]
    names: tuple[str, ...]

    def __call__(self, models: PyTree) -> dict[str, np.ndarray]:
        found = _by_subject(self.each, models)
        mean = {k: np.mean([f[k] for f in found], axis=0) for k in found[0] if k != "failure"}
        reasons = list(zip(*[f["failure"] for f in found], strict=True))
        told = ["; ".join(f"subject {n!r}: {r}" for n, r in zip(self.names, run, strict=True)) for run in reasons]
        failed = np.array([sum(map(bool, run)) for run in reasons], float)
        why = [text if all(run) else "" for text, run in zip(told, reasons, strict=True)]
        return {**mean, "failed_subjects": failed, "failure": np.array(why, object)}


def _by_subject(each: Sequence[Evaluate], models: PyTree) -> list[dict[str, np.ndarray]]:
    """What `rank` finds of the runs of every subject."""
    return [scores(_of_subject(models, jnp.asarray(i))) for i, scores in enumerate(each)]


def _evaluator(
    parts: Parts, data: Data, readouts: AbstractReadout, kinds: tuple[str, ...] | None, names: tuple[str, ...]
) -> _Evaluator:
    """The evaluation of every subject against the end of its own trial."""
    readout = jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, readouts)
    definition = "min-max" if kinds is None else "padded"
    longest = max(1, LONGEST_RUN // len(names))
    each = []
    for train, held in zip(parts.train, parts.held, strict=True):
        known = np.isfinite(held.x)
        lines = filled(held.x)
        x = data.scaler.scale(np.where(np.isnan(lines), data.scaler.mean, lines))
        targets = np.asarray(readout.targets(x, jnp.asarray(known)))
        s = None if held.s is None or data.input_scaler is None else np.asarray(data.input_scaler.scale(held.s))
        units = [(v - data.scaler.mean) / data.scaler.std for v in (held.x, train.x)]
        each.append(evaluator([begun(units[0], targets, s, longest)], [units[1]], definition))

    return _Evaluator(each, names)


@eqx.filter_jit
def _of_subject(models: FamilyModel, subject: jax.Array) -> PyTree:
    """The forced cells of one subject, one a run."""
    return eqx.filter_vmap(lambda model: model.given(subject))(models)
