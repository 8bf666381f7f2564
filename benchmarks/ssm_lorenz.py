"""A state-space model as a reconstruction of Lorenz-63: what its linear memory and its forcing cost.

    python benchmarks/ssm_lorenz.py [case ...]

The series of `bench_lorenz.py` with 5 % observation noise, 100,000 samples. Every case is fitted by `reconstruct` with
the same budget, 12,000 updates of 16 windows of 50 steps, in four runs, all of which are scored: the best state of each
by the validation part. The cases differ in the cell, its learning rates and how it is pulled:

- `StateSpaceCell` of 3 variables and 16 numbers of memory, readout linear or of 50 tanh units; at alpha = 1, where its
  recurrence is linear and driven by data alone; under the AL-RNN's sparse forcing, every 16 steps; and at alpha = .15.
- AL-RNN, M 20, P 2, every 16 steps and at alpha = .15; clipped shallow PLRNN, M 3, H 50, alpha = .15.
- The AL-RNN, whose updates are three times as quick, needs more of them: once as in `bench_atlas.py`, 30,000 with noise
  on what it is shown. (By the recipe of its paper, 100,000 with windows of 200: `bench_lorenz.py`.)

Scores: `D_stsp` (`min-max`) of 10,000 free steps, after 1,000, against 100,000 noise-free true ones, and `D_H` against
each of the ten stretches of 10,000 in them, averaged; the median valid prediction time of 200 starts on 20,000 true
samples, in Lyapunov times; the largest exponent from 16 states along the truth over 10,000 steps, after 2,000. Beside
them: the same of five further true stretches (floors), of a phase-randomised surrogate (ceiling), and of forecasting
the last value for ever. `log_eigenvalue`: of a linear readout, the largest `log |eigenvalue|` per unit of time.
`spread`: standard deviation of the last 1,000 steps over the truth's. `null`: the run has diverged, free or along
the data.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conftest import versions

from dsrecon import simulate
from dsrecon.measures import d_h, d_stsp, lyapunov_mean, outside, valid_prediction_time
from dsrecon.measures.surrogates import matched_ends, phase_randomised
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.models.ssmcell import StateSpaceCell
from dsrecon.reconstruct.fitted import fitted
from dsrecon.series import as_series
from dsrecon.systems import Lorenz63
from dsrecon.training import of_batch

RESULTS = Path(__file__).parent / "results" / "ssm_lorenz.json"
LENGTH, FREE, STARTS, RUNS, AHEAD, AHEAD_FROM = 100_000, 10_000, 16, 4, 1500, 20_000


def state_space(hidden_size: int):
    return lambda key: StateSpaceCell(3, 16, hidden_size, key=key)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "state-space, linear readout, alpha 1": (state_space(0), {"alpha": 1.0}),
    "state-space, tanh readout, alpha 1": (state_space(50), {"alpha": 1.0}),
    "state-space, tanh readout, every 16": (state_space(50), {"interval": 16}),
    "AL-RNN M20 P2, every 16": (lambda key: ALRNN(20, 2, key=key), {"interval": 16}),
    "shallow PLRNN M3 H50, alpha .15": (
        lambda key: ClippedShallowPLRNN(3, 50, key=key),
        {"alpha": 0.15, "learning_rate": (2e-2, 2e-4)},
    ),
    "state-space, tanh readout, alpha .15": (state_space(50), {"alpha": 0.15}),
    "AL-RNN M20 P2, alpha .15": (lambda key: ALRNN(20, 2, key=key), {"alpha": 0.15}),
    "AL-RNN M20 P2, alpha .1, 30,000 updates": (
        lambda key: ALRNN(20, 2, key=key),
        {"alpha": 0.1, "steps": 30_000, "noise": 0.05},
    ),
    "state-space, linear readout, every 16": (state_space(0), {"interval": 16}),
}
"""Name to `(key -> cell, what differs of the fit)`."""

GIVEN: dict[str, Any] = dict(
    inputs=None, readout=None, families=None, lag=None, dimension=None, runs=RUNS, key=0, time_step=None, resample=None,
    alpha=None, interval=None, adaptive=None, penalties=(), length=50, batch=16, steps=12_000,
    learning_rate=(1e-2, 1e-4), optimiser=None, gradient=of_batch, noise=None, validation=0.2, checkpoint=None,
    threads=None, progress=False,
)  # fmt: skip


def scored(reference: np.ndarray, x: np.ndarray) -> dict[str, float]:
    """Distances of a stretch of `FREE` steps from the truth; NaN for one that is not finite."""
    parts = np.split(reference, len(reference) // len(x))
    finite = bool(np.isfinite(x).all())
    return {
        "d_stsp": d_stsp(reference, x),
        "d_h": float(np.mean([d_h(part, x) for part in parts])) if finite else float("nan"),
        "outside": outside(reference, x),
        "spread": float(np.mean(x[-1000:].std(0) / reference.std(0))),
    }


def persistence(truth: np.ndarray, starts: np.ndarray, dt: float, threshold: float = 0.4) -> float:
    """Median time until the last value, forecast for ever, is off by `threshold`."""
    ahead = truth[starts[:, None] + np.arange(1, AHEAD)[None]]
    error = np.sqrt(np.mean(((ahead - truth[starts][:, None]) / truth.std(0)) ** 2, axis=2))
    return float(np.median((error > threshold).argmax(1) + 1) * dt)


def measured(name: str, series: Any, truth: np.ndarray, dt: float, exponent: float) -> dict[str, Any]:
    cell, options = CASES[name]
    begun = time.perf_counter()
    fit = fitted(series, cell, **GIVEN | options)
    true, rows = as_series(simulate(Lorenz63(), AHEAD_FROM)), []
    for run in range(RUNS):
        model = fit.reconstruction(run)
        row: dict[str, Any] = {"score": float(fit.table["score"][run])}
        row |= scored(truth[:LENGTH], np.asarray(model.simulate(FREE, discard=1000, throw=False), float))
        row |= {"vpt": np.nan, "persistence": np.nan, "exponent": np.nan}
        try:
            states = model.filter(true)
        except RuntimeError as error:  # along the data, too
            print(name, run, error, flush=True)
        else:
            horizon = valid_prediction_time(model, true, steps=AHEAD, exponent=exponent, states=states)
            row["vpt"] = horizon.lyapunov_times
            row["persistence"] = persistence(truth, horizon.starts, dt) * exponent
            every = states[1000 :: len(states) // STARTS][:STARTS]
            found = lyapunov_mean(model.cell, every, steps=FREE, dt=dt, discard=2000, count=1)
            row["exponent"] = float(found.mean[0])
        if "linear readout" in name:
            slope = np.asarray(model.cell.linearise(jnp.zeros(model.cell.state_size))[1], float)
            row["log_eigenvalue"] = float(np.log(np.abs(np.linalg.eigvals(slope))).max() / dt)
        rows.append(row)
    shown = {k: [row[k] if np.isfinite(row[k]) else None for row in rows] for k in rows[0]}
    found = {"seconds": time.perf_counter() - begun, "options": options, "runs": shown}
    print(name, json.dumps(found), flush=True)
    return found


def references(truth: np.ndarray, dt: float) -> dict[str, Any]:
    """Floors of five further true stretches, ceilings of a surrogate, the exponent of the system."""
    reference, stretches = truth[:LENGTH], np.split(truth[LENGTH:], 5)
    longer = truth[LENGTH : LENGTH + 2 * FREE]
    surrogate = phase_randomised(longer[matched_ends(longer)], seed=0)[:FREE]
    starts = jnp.asarray(truth[:: LENGTH // STARTS][:STARTS])
    spectrum = lyapunov_mean(Lorenz63().cell(dt), starts, steps=FREE, dt=dt, count=1)
    return {
        "floor": [scored(reference, x) for x in stretches],
        "surrogate": scored(reference, surrogate),
        "exponent": float(spectrum.mean[0]),
    }


def main() -> None:
    names = sys.argv[1:] or list(CASES)
    if unknown := set(names) - set(CASES):
        raise SystemExit(f"cases are {list(CASES)}: got {unknown}.")
    system = Lorenz63()
    truth, dt = np.asarray(simulate(system, LENGTH + 5 * FREE), float), float(system.time_step)
    series = simulate(system, LENGTH, noise=0.05, key=jax.random.key(0))
    beside = references(truth, dt)
    for name in names:
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        cases = {**found.get("cases", {}), name: measured(name, series, truth, dt, beside["exponent"])}
        content = json.dumps({"machine": versions(), "references": beside, "cases": cases}, indent=1)
        RESULTS.with_suffix(".part").write_text(content + "\n")
        RESULTS.with_suffix(".part").replace(RESULTS)


if __name__ == "__main__":
    main()
