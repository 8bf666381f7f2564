"""The one high-level door."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import PyTree

from dsrecon._types import Key
from dsrecon.cell import AbstractCell
from dsrecon.measures.embedding import EmbeddingChoice
from dsrecon.models import ClippedShallowPLRNN
from dsrecon.readout import AbstractReadout, Forced, GeneralisedReadout, IdentityReadout
from dsrecon.reconstruct.parts import Parts, embedding_of, parted
from dsrecon.reconstruct.plan import Plan, plain
from dsrecon.reconstruct.prepare import Data, kinds_of, prepared
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_inputs, as_trials
from dsrecon.training import History, Windows, fit, gtf, radam

ALPHAS = (0.05, 0.1, 0.2, 0.4)
"""Forcing strengths that the runs try in turn when none is given."""

EVALUATIONS = 20

LONGEST_GRADIENT = 10.0
"""RAdam's first five updates are plain gradient steps: one steep start value would throw a run out for good."""


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
    alpha: float | None = None,
    interval: int | None = None,
    length: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    learning_rate: tuple[float, float] | None = None,
    noise: float | None = None,
    validation: float = 0.2,
    checkpoint: str | os.PathLike | None = None,
    threads: int | None = None,
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
    - `alpha`, 0 to 1: constant forcing; `interval`: sparse forcing instead. Default: the runs try several alphas.
    - `length`: predicted steps of a window; `batch`: windows of an update; `steps`: updates;
      `learning_rate`: first and last; `noise`: on what the model is shown, in standard deviations.
    - `validation`: share of the series, at its end, that is kept for choosing; of five trials or more, whole trials.
    - `checkpoint`: file that the fit writes itself down in, and goes on from when it is there.
    - `threads`, `progress`: as in `dsrecon.training.fit`.

    **Returns:** a `Reconstruction`: `.simulate`, `.forecast`, `.save`, `.runs` (table of all runs), `.settings`. After
    Ctrl-C it is that of the best states so far, and `settings["interrupted"]` says after how many updates.

    **Raises:** `ValueError` for a series that is too short, constant, never observed or infinite, trials that do not
    go together, inputs shorter than the observations, negative counts, a cell smaller than the observation, settings
    out of range, and a checkpoint of another fit; `RuntimeError` with the reasons when every run has failed.

    References: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML; Brenner et al.
    2024, *Almost-linear RNNs yield highly interpretable symbolic codes in dynamical systems reconstruction*, NeurIPS.
    """
    trials = as_trials(series, time_step=time_step, resample=resample)
    driving = None if inputs is None else as_inputs(inputs, trials)
    key = jax.random.key(key) if isinstance(key, int) else key
    if not isinstance(runs, int) or runs < 1:
        raise ValueError(f"runs must be an integer of at least 1: got {runs}.")
    plan = Plan({"runs": runs}, {"runs": "given" if runs != 8 else "default: enough to see the scatter of fits"})
    kinds = kinds_of(families, readout, trials)
    embedding, curves = embedding_of(trials, lag, dimension, validation, plan)
    kinds = kinds if kinds is None or embedding is None else kinds * embedding.dimension
    parts = parted(trials, driving, embedding, validation)
    plan.choose("validation", None if validation == 0.2 else validation, validation, "default")
    plan.reasons["validation"] += f"; {parts.text}"
    width = parts.train[0].x.shape[1]
    model = _models(cell, readout, kinds, width, parts, runs, key, plan)
    data = prepared(parts, kinds, jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, model.readout))
    state = _forcing(alpha, interval, runs, plan)
    loss = gtf(alpha, interval=interval)
    sampler = _sampler(data, length, batch, noise, key, plan, model.readout.memory)
    updates, optimiser = _optimiser(steps, learning_rate, plan)
    evaluate = data.evaluate
    model, history = fit(
        model,
        loss,
        sampler,
        optimiser,
        steps=updates,
        key=jax.random.split(jax.random.fold_in(key, 1), runs),
        state=state,
        evaluate=evaluate,
        every=max(1, updates // EVALUATIONS),
        checkpoint=checkpoint,
        identity=plan.identity(data=parts.checksum()),
        threads=threads,
        progress=progress,
    )
    if history.interrupted:
        plan.choose("interrupted", None, int(history.evaluated_at[-1]), "stopped by hand after so many updates")
    table = _table(model, history, evaluate, state)
    table.attrs["validation_samples"] = sum(len(h.x) for h in parts.held)
    best = int(np.argmin(table["score"].values))
    if table["failure"].values[best]:
        reasons = "; ".join(f"run {i}: {r}" for i, r in enumerate(table["failure"].values))
        raise RuntimeError(f"Every run failed. {reasons}. Try more updates, a larger alpha or another cell.")
    table.attrs |= {"best": best, "seconds": history.seconds, "compile_seconds": history.compile_seconds}
    chosen: Forced = jax.tree.map(lambda v: v[best] if eqx.is_array(v) else v, model)
    if state is not None:
        plan.values["alpha"] = round(float(table["alpha"][best]), 6)
        plan.reasons["alpha"] += f"; the best run had {plan.values['alpha']}"
    record: dict[str, Any] = {"settings": plan.settings(), "runs": plain(table.to_dict())}
    if curves is not None:
        record["embedding"] = _curves(curves)
    return Reconstruction(
        chosen.cell,
        chosen.readout,
        data.scaler,
        data.anchor,
        trials[0].clock.shifted(data.anchored_at),
        trials[0].names,
        trials[0].units,
        json.dumps(record),
        embedding,
        () if driving is None else driving[0].names,
        data.input_scaler,
    )


def _curves(curves: EmbeddingChoice) -> dict[str, Any]:
    """What the embedding was chosen by, for the record."""
    return {
        "lags": plain(curves.lags),
        "mutual_information": plain(curves.information),
        "dimensions": plain(curves.dimensions),
        "false_neighbours": plain(curves.share),
    }


def _models(cell, readout, kinds, n: int, parts: Parts, runs: int, key: Key, plan: Plan) -> PyTree:
    """The runs' start values, stacked."""
    size = max(n, 3)
    drive = parts.train[0].s
    input_size = 0 if drive is None else drive.shape[1]
    if isinstance(cell, AbstractCell):
        given = cell
        make: Callable[[Key], AbstractCell] = lambda key: given  # noqa: E731
    elif cell is not None:
        make = cell
    else:
        make = lambda key: ClippedShallowPLRNN(size, 50, input_size=input_size, key=key)  # noqa: E731
    probe = eqx.filter_eval_shape(make, key) if cell is None else make(key)
    if not isinstance(probe, AbstractCell):
        raise ValueError(f"cell must be a cell or a function from a key to a cell: got {type(probe).__name__}.")
    if readout is None and probe.state_size < n:
        raise ValueError(f"the cell's state_size must be at least the {n} observed variables: got {probe.state_size}.")
    why = "clipped, so it cannot diverge once |A| < 1, and faithful with few dimensions"
    plan.choose("cell", type(probe).__name__ if cell is not None else None, type(probe).__name__, why)
    hidden = "one unit a variable" if n >= 3 else f"{n} variables and {size - n} hidden units"
    plan.choose("state_size", probe.state_size if cell is not None else None, probe.state_size, hidden)
    if cell is None:
        plan.choose("hidden_size", None, 50, "100 hyperplanes, with which Lorenz-63 meets its floor")

    def observed(key: Key, state_size: int) -> AbstractReadout:
        if readout is not None:
            return readout(key)
        if kinds is not None:
            return GeneralisedReadout(kinds, state_size, key=key)
        return IdentityReadout(n, state_size, key=key)

    def one(key):
        cell_key, readout_key = jax.random.split(key)
        made = make(cell_key)
        return Forced(made, observed(readout_key, made.state_size))  # pyright: ignore[reportCallIssue]

    if cell is not None and input_size:
        _check_driven(probe, input_size)
    model = eqx.filter_vmap(one)(jax.random.split(jax.random.fold_in(key, 0), runs))
    found = model.readout
    if found.observed_size != n:
        raise ValueError(f"the readout must show the {n} variables of the series: it shows {found.observed_size}.")
    plan.choose("readout", type(found).__name__ if readout is not None else None, type(found).__name__, "default")
    return model


def _check_driven(cell: AbstractCell, size: int) -> None:
    """**Raises** `ValueError` for a cell that takes no inputs, or another number of them."""
    z = jnp.zeros(cell.state_size)
    try:
        still, moved = cell(z, jnp.zeros(size)), cell(z, jnp.ones(size))
    except TypeError as error:
        raise ValueError(f"the cell must take the {size} inputs: build it with input_size={size}. {error}") from error
    if bool(jnp.all(still == moved)):
        raise ValueError(f"inputs were given, but the cell does not depend on them: build it with input_size={size}.")


def _forcing(alpha: float | None, interval: int | None, runs: int, plan: Plan) -> dict[str, jax.Array] | None:
    if interval is not None or alpha is not None:
        name, value = ("interval", interval) if interval is not None else ("alpha", alpha)
        plan.choose(name, value, None, "")
        return None
    tried = [ALPHAS[i % len(ALPHAS)] for i in range(runs)]
    text = f"the runs try {sorted(set(tried))} and validation decides"
    plan.choose("alpha", None, tried, text)
    return {"alpha": jnp.array(tried)}


def _sampler(data: Data, length, batch, noise, key, plan: Plan, memory: int) -> Windows:
    longest = max(data.lengths)
    fitting = max(1, min(50 + memory, longest // 4))
    length = plan.choose("length", length, fitting, "50 predicted steps, or a quarter of a short series")
    if length <= memory:
        raise ValueError(f"length must be above the readout's memory of {memory} steps: got {length}.")
    batch = plan.choose("batch", batch, 16, "windows of an update, as in the papers")
    noise = plan.choose("noise", noise, 0.0, "none: forcing averages over the noise of the data")
    return Windows(
        data.x,
        length=length,
        batch=batch,
        trials=data.lengths,
        mask=data.mask,
        seen=data.seen,
        s=data.s,
        noise=noise,
        key=jax.random.fold_in(key, 2),
    )


def _optimiser(steps, learning_rate, plan: Plan):
    steps = plan.choose("steps", steps, 12_000, "Lorenz-63 meets its floor with so many")
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}.")
    rates = plan.choose("learning_rate", learning_rate, (2e-2, 2e-4), "RAdam, exponential decay")
    if not isinstance(rates, tuple | list) or len(rates) != 2:
        raise ValueError(f"learning_rate must be (first, last): got {rates}.")
    why = (
        f"as in the papers; gradients longer than {LONGEST_GRADIENT:g} are cut to that, since its first updates are raw"
    )
    plan.choose("optimiser", None, "radam", why)
    return steps, optax.chain(optax.clip_by_global_norm(LONGEST_GRADIENT), radam(rates[0], rates[1], steps))


def _table(model: PyTree, history: History, evaluate: Callable, state: Any) -> xr.Dataset:
    """One row a run, of the state that was kept of it."""
    found = evaluate(model)
    reasons = found.pop("failure")
    runs = len(reasons)
    for i, at in enumerate(history.failed_at):
        if at >= 0:
            kept = f"; its last good state: {reasons[i]}" if reasons[i] else " (its best state before is kept)"
            found["score"][i] = np.inf if reasons[i] else found["score"][i]
            reasons[i] = f"parameters or loss not finite at update {at}{kept}" if reasons[i] else reasons[i]
    ends = np.isfinite(history.loss)
    last = np.array([history.loss[e, i][-1] if (e := ends[:, i]).any() else np.nan for i in range(runs)])
    table = {name: ("run", np.asarray(v, float)) for name, v in found.items()}
    table |= {
        "loss": ("run", last),
        "best_at": ("run", history.best_at),
        "stopped_at": ("run", history.failed_at),
        "failure": ("run", [str(r) for r in reasons]),
    }
    if state is not None:
        table["alpha"] = ("run", np.asarray(state["alpha"], float))
    return xr.Dataset(table, coords={"run": np.arange(runs)})
