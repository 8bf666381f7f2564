"""`reconstruct`: from a series to a dynamical system, in one call."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from dsrecon._types import Key
from dsrecon.cell import AbstractCell
from dsrecon.evolve import evolve
from dsrecon.measures.score import failure, floors, rank
from dsrecon.models import ClippedShallowPLRNN
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Series, as_series
from dsrecon.training import History, Windows, fit, gtf, radam

ALPHAS = (0.05, 0.1, 0.2, 0.4)
"""Forcing strengths that the runs try in turn when none is given."""

EVALUATIONS = 20
LONGEST_RUN = 10_000
MIN_SAMPLES = 500


class _Plan(NamedTuple):
    """A choice and why it was made, by name."""

    values: dict[str, Any]
    reasons: dict[str, str]

    def choose(self, name: str, given: Any, default: Any, reason: str) -> Any:
        self.values[name] = default if given is None else given
        self.reasons[name] = reason if given is None else "given"
        return self.values[name]


def reconstruct(
    series: Any,
    cell: AbstractCell | Callable[[Key], AbstractCell] | None = None,
    *,
    runs: int = 8,
    key: Key | int = 0,
    time_step: float | None = None,
    alpha: float | None = None,
    interval: int | None = None,
    length: int | None = None,
    batch: int | None = None,
    steps: int | None = None,
    learning_rate: tuple[float, float] | None = None,
    noise: float | None = None,
    validation: float = 0.2,
    threads: int | None = None,
    progress: bool | None = None,
) -> Reconstruction:
    """Fit a dynamical system to a series: several runs at once, the one with the best attractor is returned.

    The series is standardised by its training part and a cell is trained on windows under generalized teacher forcing.
    On the way every run is let free for as long as the *validation* stretch and scored by the distance of its attractor
    (`d_stsp`) and of its spectrum (`d_h`), each in units of what another true stretch scores; the best state of the
    best run is kept. Everything but the series has a default that follows from it; `settings` of the result says what
    was chosen and why.

    **Arguments:**

    - `series`: NumPy array `[time, variable]`, pandas, xarray, or a `Series`: see `dsrecon.series.as_series`.
    - `cell`: a function `key -> cell`, called once a run; or a cell, from whose parameters every run starts.
      Default: a clipped shallow PLRNN.
    - `runs`: how many. `key`: a JAX key or a seed; the same key gives the same result on the same machine.
    - `time_step`: time between samples, where the series does not say.
    - `alpha`, 0 to 1: constant forcing; `interval`: sparse forcing instead. Default: the runs try several alphas.
    - `length`: predicted steps of a window; `batch`: windows of an update; `steps`: updates;
      `learning_rate`: first and last; `noise`: on what the model is shown, in standard deviations.
    - `validation`: share of the series, at its end, that is kept for choosing.
    - `threads`, `progress`: as in `dsrecon.training.fit`.

    **Returns:** a `Reconstruction`: `.simulate`, `.forecast`, `.save`, `.runs` (table of all runs), `.settings`.

    **Raises:** `ValueError` for a series that is too short, constant or not finite, a cell smaller than the
    observation, and settings out of range; `RuntimeError` with the reasons when every run has failed.

    References: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML; Brenner et al.
    2024, *Almost-linear RNNs yield highly interpretable symbolic codes in dynamical systems reconstruction*, NeurIPS.
    """
    data = as_series(series, time_step=time_step)
    key = jax.random.key(key) if isinstance(key, int) else key
    if runs < 1:
        raise ValueError(f"runs must be at least 1: got {runs}.")
    plan = _Plan({"runs": runs}, {"runs": "given" if runs != 8 else "default: enough to see the scatter of fits"})
    train, held = _parts(data, validation)
    scaler = Scaler.fit(train)
    x, held = scaler.scale(train), (held - scaler.mean) / scaler.std
    model = _models(cell, data, runs, key, plan)
    state = _forcing(alpha, interval, runs, plan)
    loss = gtf(alpha, interval=interval)
    sampler = _sampler(x, length, batch, noise, key, plan)
    updates, optimiser = _optimiser(steps, learning_rate, plan)
    evaluate = _evaluator(held, np.asarray(x, np.float64))
    every = max(1, updates // EVALUATIONS)
    keys = jax.random.split(jax.random.fold_in(key, 1), runs)
    model, history = fit(
        model,
        loss,
        sampler,
        optimiser,
        steps=updates,
        key=keys,
        state=state,
        evaluate=evaluate,
        every=every,
        threads=threads,
        progress=progress,
    )
    plan.values["validation"] = validation
    plan.reasons["validation"] = f"the last {len(held)} samples choose among the runs"
    table = _table(model, history, held, evaluate, state)
    best = int(np.argmin(table["score"].values))
    if table["failure"].values[best]:
        reasons = "; ".join(f"run {i}: {r}" for i, r in enumerate(table["failure"].values))
        raise RuntimeError(f"Every run failed. {reasons}. Try more updates, a larger alpha or another cell.")
    table.attrs["best"] = best
    table.attrs |= {"seconds": history.seconds, "compile_seconds": history.compile_seconds}
    chosen: Forced = jax.tree.map(lambda v: v[best] if eqx.is_array(v) else v, model)
    if state is not None:
        plan.values["alpha"] = round(float(table["alpha"][best]), 6)
        plan.reasons["alpha"] += f"; the best run had {plan.values['alpha']}"
    return Reconstruction(
        chosen.cell,
        chosen.readout,
        scaler,
        data.values[0],
        data.clock,
        data.names,
        data.units,
        json.dumps({"settings": _settings(plan), "runs": _plain(table.to_dict())}),
    )


def _parts(data: Series, validation: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0.05 <= validation <= 0.5:
        raise ValueError(f"validation must lie between 0.05 and 0.5: got {validation}.")
    if len(data.values) < MIN_SAMPLES:
        raise ValueError(
            f"the series is too short: {len(data.values)} samples, where training and validation windows need "
            f"at least {MIN_SAMPLES}."
        )
    split = round(len(data.values) * (1 - validation))
    train, held = data.values[:split], data.values[split:]
    for part, text in ((train, "training"), (held, "validation")):
        for name, column in zip(data.names, part.T, strict=True):
            if not np.ptp(column) > 1e-12 * max(1.0, np.abs(column).max()):
                raise ValueError(
                    f"column {name!r} must vary: it is constant ({column[0]:g}) over the {text} part. Leave it out "
                    "(on the command line: --columns)."
                )
    return train, held


def _models(cell: Any, data: Series, runs: int, key: Key, plan: _Plan) -> PyTree:
    """The runs' start values, stacked."""
    n = len(data.names)
    size = max(n, 3)
    if isinstance(cell, AbstractCell):
        given = cell
        make: Callable[[Key], AbstractCell] = lambda key: given  # noqa: E731
    elif cell is not None:
        make = cell
    else:
        make = lambda key: ClippedShallowPLRNN(size, 50, key=key)  # noqa: E731
    probe = jax.eval_shape(make, key) if cell is None else make(key)
    if not isinstance(probe, AbstractCell):
        raise ValueError(f"cell must be a cell or a function from a key to a cell: got {type(probe).__name__}.")
    if probe.state_size < n:
        raise ValueError(f"the cell's state_size must be at least the {n} observed variables: got {probe.state_size}.")
    why = "clipped, so it cannot diverge once |A| < 1, and faithful with few dimensions"
    plan.choose("cell", type(probe).__name__ if cell is not None else None, type(probe).__name__, why)
    hidden = "one unit a variable" if n >= 3 else f"{n} variables and {size - n} hidden units"
    plan.choose("state_size", probe.state_size if cell is not None else None, probe.state_size, hidden)
    if cell is None:
        plan.choose("hidden_size", None, 50, "100 hyperplanes, with which Lorenz-63 meets its floor")

    def one(key):
        cell_key, readout_key = jax.random.split(key)
        made = make(cell_key)
        return Forced(made, IdentityReadout(n, made.state_size, key=readout_key))  # pyright: ignore[reportCallIssue]

    return eqx.filter_vmap(one)(jax.random.split(jax.random.fold_in(key, 0), runs))


def _forcing(alpha: float | None, interval: int | None, runs: int, plan: _Plan) -> dict[str, jax.Array] | None:
    if interval is not None or alpha is not None:
        name, value = ("interval", interval) if interval is not None else ("alpha", alpha)
        plan.choose(name, value, None, "")
        return None
    tried = [ALPHAS[i % len(ALPHAS)] for i in range(runs)]
    text = f"the runs try {sorted(set(tried))} and validation decides"
    plan.choose("alpha", None, tried, text)
    return {"alpha": jnp.array(tried)}


def _sampler(x, length, batch, noise, key, plan: _Plan) -> Windows:
    fitting = max(1, min(50, len(x) // 4))
    length = plan.choose("length", length, fitting, "50 predicted steps, or a quarter of a short series")
    batch = plan.choose("batch", batch, 16, "windows of an update, as in the papers")
    noise = plan.choose("noise", noise, 0.0, "none: forcing averages over the noise of the data")
    return Windows(x, length=length, batch=batch, noise=noise, key=jax.random.fold_in(key, 2))


def _optimiser(steps, learning_rate, plan: _Plan):
    steps = plan.choose("steps", steps, 12_000, "Lorenz-63 meets its floor with so many")
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}.")
    rates = plan.choose("learning_rate", learning_rate, (2e-2, 2e-4), "RAdam, exponential decay")
    if len(rates) != 2:
        raise ValueError(f"learning_rate must be (first, last): got {rates}.")
    plan.choose("optimiser", None, "radam", "as in the papers")
    return steps, radam(rates[0], rates[1], steps)


def _evaluator(held: np.ndarray, train: np.ndarray) -> Callable[[PyTree], dict[str, np.ndarray]]:
    """Scores of a stack of models against the validation stretch, in units of a true stretch's score."""
    length = min(LONGEST_RUN, len(held), len(train))
    scale = floors(held, train[-length:])
    start = jnp.asarray(held[0], dtype=float)

    def evaluate(models: PyTree) -> dict[str, np.ndarray]:
        generated = np.asarray(_free_runs(models, start, length), np.float64)
        found = [rank(held, run, scale) for run in generated]
        return {k: np.array([f[k] for f in found]) for k in found[0]} | {
            "failure": np.array([failure(held, run) for run in generated], dtype=object)
        }

    return evaluate


@eqx.filter_jit
def _free_runs(models: PyTree, start: jax.Array, steps: int) -> jax.Array:
    def one(model: Forced):
        zs = evolve(model.cell, model.readout.start(start), steps=steps, throw=False).zs
        return jax.vmap(model.readout.decode)(zs)

    return eqx.filter_vmap(one)(models)


def _table(model: PyTree, history: History, held: np.ndarray, evaluate: Callable, state: Any) -> xr.Dataset:
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
    return xr.Dataset(table, coords={"run": np.arange(runs)}, attrs={"validation_samples": len(held)})


def _settings(plan: _Plan) -> dict[str, dict[str, Any]]:
    return {name: {"value": plan.values[name], "reason": plan.reasons[name]} for name in plan.values}


def _plain(value: Any) -> Any:
    """The same with NumPy's scalars as Python's, for JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
