"""The electrocardiogram of the papers: every cell and forcing, in at most 300 s a configuration on two cores.

    python benchmarks/ecg.py DATA [NAME ...]

`DATA` is the five-dimensional embedded ECG of Hess et al. 2023 (`ecg_5d_train.npy`, 100,000 samples, standardised and
smoothed; not distributed here). Three quarters of the first 80,000 samples are fitted (nine tenths by the first two
configurations), and the rest of them chooses: on the way among the states of each run, by D_stsp, D_H (both over as
many free steps as there are to choose by) and PE(20), each over its entry of `weighed`, and at the end among the runs,
by the first two over 100,000 steps. The last 20,000 samples are the truth. Each run is let free for 100,000 steps:
D_stsp `padded` of all of them, D_H of the first 20,000, PE(20) in squared units of the file, all against the truth.
Lines called `earlier` are of settings that were tried before.

A line a run goes to `results/ecg.json` as soon as its configuration is through, in place of those that this
configuration had there. `seconds` is the time of all runs together, compilation and choosing included; `cpu_seconds`
the processor time in it, of all threads: where others use the machine too, two free cores would take half of that.
`seeds 1`: the same with `KEY=1` in the environment.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from conftest import versions

from dsrecon import evolve
from dsrecon.measures import d_h, d_stsp, outside
from dsrecon.measures.score import failure
from dsrecon.models import (
    ALRNN,
    PLRNN,
    ClippedDendriticPLRNN,
    ClippedShallowPLRNN,
    DendriticPLRNN,
    MeanCentredPLRNN,
    ShallowPLRNN,
)
from dsrecon.readout import LinearReadout
from dsrecon.reconstruct.fitted import fitted
from dsrecon.reconstruction import Reconstruction
from dsrecon.training import Adaptive, of_batch, product_bound

RESULTS = Path(__file__).parent / "results" / "ecg.json"
KEY = int(os.environ.get("KEY", "0"))
KEEP = os.environ.get("KEEP")
"""A folder for the fitted models, if they are wanted."""

CHANNELS, FITTED, FREE, AHEAD = 5, 80_000, 100_000, 20


class Configuration(NamedTuple):
    """What is fitted: `cell`: key to cell; `options`: of `reconstruct`; `linear`: with a linear readout.

    `weighed`: D_stsp, D_H and PE(20) that weigh one each in the score that chooses.
    """

    cell: Callable[[Any], Any]
    options: dict[str, Any]
    linear: bool = False
    runs: int = 2
    weighed: tuple[float, float, float] = (2.0, 0.2, 1.2e-3)


PUBLISHED = (4.3 / 2, 0.34, 2.4e-3)
"""What the shallow PLRNN scored where it was introduced: each of the three weighs as it is beside that, and D_stsp,
in which seeds differ most, twice."""

SHALLOW = {"length": 30, "batch": 32, "steps": 30_000, "learning_rate": (1e-2, 1e-4), "evaluations": 60}
LONGER = {**SHALLOW, "steps": 50_000, "evaluations": 180, "validation": 0.1}
OTHERS = {"length": 50, "steps": 4_000, "learning_rate": (5e-3, 5e-5), "adaptive": product_bound}
SPARSE = {"length": 50, "steps": 8_000, "learning_rate": (1e-2, 1e-4), "interval": 10}
PAPER = {"length": 50, "steps": 4_000, "learning_rate": (2e-3, 2e-5), "interval": 10}

CONFIGURATIONS = {
    "clipped shallow M5 H250, alpha .25": Configuration(
        lambda key: ClippedShallowPLRNN(5, 250, key=key),
        {**LONGER, "alpha": 0.25, "steps": 60_000},
        True,
        5,
        PUBLISHED,
    ),
    "clipped shallow M5 H250, adaptive": Configuration(
        lambda key: ClippedShallowPLRNN(5, 250, key=key),
        {**LONGER, "adaptive": Adaptive(product_bound, decay=0.99, stride=3)},
        True,
        5,
        PUBLISHED,
    ),
    "clipped shallow M5 H250, sparse 10": Configuration(
        lambda key: ClippedShallowPLRNN(5, 250, key=key), SPARSE, True, 5, (2.0, 0.2, np.inf)
    ),
    "shallow M5 H250, adaptive": Configuration(lambda key: ShallowPLRNN(5, 250, key=key), {**SHALLOW, **OTHERS}, True),
    "PLRNN M30, adaptive": Configuration(lambda key: PLRNN(30, key=key), OTHERS),
    "mean-centred PLRNN M30, adaptive": Configuration(lambda key: MeanCentredPLRNN(30, key=key), OTHERS),
    "dendritic M20 B20, adaptive": Configuration(lambda key: DendriticPLRNN(20, 20, key=key), OTHERS),
    "clipped dendritic M20 B20, adaptive": Configuration(lambda key: ClippedDendriticPLRNN(20, 20, key=key), OTHERS),
    "AL-RNN M100 P2, sparse 10": Configuration(lambda key: ALRNN(100, 2, key=key), PAPER),
    "AL-RNN M30 P10, alpha .05": Configuration(
        lambda key: ALRNN(30, 10, key=key),
        {"length": 50, "steps": 8_000, "learning_rate": (1e-2, 1e-4), "alpha": 0.05},
    ),
    "best: clipped shallow M5 H250, identity, alpha .6, best of 40": Configuration(
        lambda key: ClippedShallowPLRNN(5, 250, key=key),
        {"length": 20, "steps": 15_000, "learning_rate": (2e-2, 2e-4), "alpha": 0.6, "evaluations": 30},
        False,
        40,
        (2.0, 0.2, np.inf),
    ),
}


def chooser(weighed: tuple[float, float, float], parts: Any, data: Any) -> Callable[[Any], dict[str, np.ndarray]]:
    """Scores by the distances of the table, of as many free steps as there are to choose by, and by PE(20)."""
    held = parts.held[0].x
    first, starts = data.scaler.scale(held[:1])[0], np.linspace(0, len(held) - AHEAD - 1, 500).astype(int)

    @eqx.filter_jit
    def free_runs(models):
        def one(model):
            zs = evolve(model.cell, model.readout.start(first), steps=len(held), throw=False).zs
            return jax.vmap(model.readout.decode)(zs)

        return eqx.filter_vmap(one)(models)

    @eqx.filter_jit
    def ahead(models):
        def one(model):
            z = jax.vmap(model.readout.start)(data.scaler.scale(held[starts]))
            zs = evolve(model.cell, z, steps=AHEAD, throw=False).zs[:, -1]
            return jax.vmap(model.readout.decode)(zs)

        return eqx.filter_vmap(one)(models)

    def evaluate(models):
        errors = [np.mean((data.scaler.unscale(x) - held[starts + AHEAD]) ** 2) for x in ahead(models)]
        runs = [data.scaler.unscale(run) for run in free_runs(models)]
        rows = [_judged(held, run, weighed, error) for run, error in zip(runs, errors, strict=True)]
        kinds = {k: object if k == "failure" else float for k in rows[0]}
        return {k: np.array([row[k] for row in rows], kind) for k, kind in kinds.items()}

    return evaluate


def _judged(
    held: np.ndarray, run: np.ndarray, weighed: tuple[float, float, float], error: float = 0.0
) -> dict[str, Any]:
    why = failure(held, run)
    if not (np.isfinite(run).all() and np.isfinite(error)):
        return {"score": np.inf, "d_stsp": np.nan, "d_h": np.nan, "outside": 1.0, "failure": why}
    found = {
        "d_stsp": d_stsp(held, run, definition="padded"),
        "d_h": d_h(held, run[: len(held)]),
        "outside": outside(held, run),
    }
    score = found["d_stsp"] / weighed[0] + found["d_h"] / weighed[1] + error / weighed[2]
    score += 1000 * (1 + found["outside"]) if why else 0
    return {"score": score, **found, "failure": why}


def prediction_error(model: Reconstruction, truth: np.ndarray) -> float:
    """PE(20) in squared units of the file, from 1,000 starts along the truth."""
    states = model.filter(truth)
    starts = np.linspace(200, len(truth) - AHEAD - 1, 1000).astype(int)
    ahead = evolve(model.cell, states[starts], steps=AHEAD, throw=False).zs[:, -1]
    return float(np.mean((model.observe(ahead) - truth[starts + AHEAD]) ** 2))


def scores(model: Reconstruction, truth: np.ndarray) -> dict[str, float | None]:
    free = np.asarray(model.simulate(FREE, throw=False))
    if not np.isfinite(free).all():
        return {"d_stsp": None, "d_h": None, "pe_20": prediction_error(model, truth), "outside": outside(truth, free)}
    return {
        "d_stsp": d_stsp(truth, free, definition="padded"),
        "d_h": d_h(truth, free[: len(truth)]),
        "pe_20": prediction_error(model, truth),
        "outside": outside(truth, free),
    }


def measured(name: str, data: np.ndarray) -> list[dict[str, Any]]:
    """Fit one configuration and score each of its runs."""
    configuration, truth = CONFIGURATIONS[name], data[FITTED:]
    n = configuration.runs
    readout = None
    if configuration.linear:
        state_size = configuration.cell(jax.random.key(0)).state_size
        readout = lambda key: LinearReadout(CHANNELS, state_size, key=key)  # noqa: E731
    given: dict[str, Any] = dict(
        inputs=None, families=None, lag=None, dimension=None, key=KEY, time_step=None, resample=None, alpha=None,
        interval=None, adaptive=None, penalties=(), batch=None, optimiser=None, noise=None, validation=0.25,
        checkpoint=None, progress=False, threads=None, length=None, steps=None, learning_rate=None, gradient=of_batch,
    )  # fmt: skip
    begun, busy, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    given |= configuration.options
    fit = fitted(
        data[:FITTED],
        configuration.cell,
        readout=readout,
        runs=configuration.runs,
        chooser=partial(chooser, configuration.weighed),
        **given,
    )
    held = fit.parts.held[0].x
    judged = [
        _judged(
            held, np.asarray(fit.reconstruction(i).simulate(FREE, start=held[0], throw=False)), configuration.weighed
        )
        for i in range(n)
    ]
    chosen = int(np.argmin([found["score"] for found in judged]))
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    rows = []
    for run in range(n):
        row = {"configuration": name + (f", seeds {KEY}" if KEY else ""), "run": run, "chosen": run == chosen}
        row |= {
            "seconds": seconds,
            "cpu_seconds": busy,
            "load": load,
            "held_d_stsp": judged[run]["d_stsp"],
            "held_d_h": judged[run]["d_h"],
        }
        row |= {"alpha": float(fit.table["alpha"][run]) if "alpha" in fit.table else configuration.options.get("alpha")}
        model = fit.reconstruction(run)
        rows.append(row | scores(model, truth))
        if KEEP:
            model.save(Path(KEEP) / f"{name}-{KEY}-{run}.eqx".replace(" ", "-"))
    shown = {k: [r[k] for r in rows] for k in ("d_stsp", "d_h", "pe_20")}
    medians = {k: float(np.median([v for v in values if v is not None] or [np.nan])) for k, values in shown.items()}
    best = next(r for r in rows if r["chosen"])
    print(
        f"{name}: {seconds:.0f} s, {busy:.0f} s of processor (load {load:.1f}); medians of {len(rows)}: {medians}",
        flush=True,
    )
    print(f"    chosen by validation: { ({k: best[k] for k in shown}) }", flush=True)
    return rows


def main() -> None:
    data = np.load(sys.argv[1]).astype(np.float64)
    names = sys.argv[2:] or list(CONFIGURATIONS)
    unknown = set(names) - set(CONFIGURATIONS)
    if unknown:
        raise SystemExit(f"unknown: {unknown}; known: {list(CONFIGURATIONS)}")
    truth = data[FITTED:]
    floors = {
        "d_stsp": d_stsp(truth, data[:FITTED], definition="padded"),
        "d_h": d_h(truth, data[FITTED - len(truth) : FITTED]),
    }
    for name in names:
        rows = measured(name, data)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
        kept = [r for r in found["runs"] if r["configuration"] != rows[0]["configuration"]]
        content = {"machine": versions(), "floors": floors, "runs": kept + rows}
        RESULTS.with_suffix(".part").write_text(json.dumps(content, indent=1))
        RESULTS.with_suffix(".part").replace(RESULTS)


if __name__ == "__main__":
    jnp.zeros(())
    main()
