"""Does a longer training sequence make a better model? One trajectory of up to 10^6 steps, found all at once.

    python benchmarks/long_training.py OUT.json [SYSTEM=lorenz63,hindmarsh-rose] [T=200,10000,1000000]
        [ALPHA=.03,.1] [SEEDS=4] [UPDATES=3000] [FALL=15] [MOST=100] [SCALE=1] [SOLVER=newton|loop|shooting]
        [AT_ONCE=10000] [SERIES=FOLDER]

Series of 10^6 + 1 samples with 5 % observation noise. Clipped shallow PLRNNs (M 3, H 100, identity readout) are fitted
on windows of T steps, so many at once that an update sees `AT_ONCE` steps (10^6 where T = 10^6: the whole series
at every update, the iteration from the run of the update before); RAdam; several strengths of forcing, each from
several seeds, in one ensemble. Forcing begins at .3 and falls to its strength with a time constant of a `FALL`-th of
the updates: a young model expands, and a whole sequence of it would not be solved. It rises again, by 5 % an update,
while the iteration takes more than `MOST` turns.

Scored without noise: D_stsp (min-max) and D_H of 50,000 free steps against 500,000 true ones, over their floors (other
true stretches of that length). For each strength: the medians over the seeds, and how many stopped (an update was not
solved, or was not finite). Meant for an accelerator; `SCALE=.01` is a rehearsal.
"""

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsrecon import Sequential, evolve, simulate
from dsrecon.measures import d_h, d_stsp
from dsrecon.models import ClippedShallowPLRNN
from dsrecon.newton import Newton, Shooting
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.systems import HindmarshRose, Lorenz63
from dsrecon.training import Windows, fit, gtf

SYSTEMS = {"lorenz63": Lorenz63(), "hindmarsh-rose": HindmarshRose()}
SOLVERS = {"newton": Newton(), "loop": Sequential(), "shooting": Shooting()}
STRENGTHS = {"lorenz63": (0.05, 0.15, 0.3), "hindmarsh-rose": (0.003, 0.01, 0.03, 0.1)}
UPDATES = {200: 6_000, 10_000: 6_000, 1_000_000: 1_500}
RATES = (5e-3, 5e-5)
SEEDS, STEPS, FREE = 4, 1_000_000, 50_000


def wanted(name: str, kind, default):
    """The value of an argument `NAME=...`."""
    found = [text.split("=", 1)[1] for text in sys.argv[2:] if text.startswith(name + "=")]
    return kind(found[0]) if found else default


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def series(name: str, steps: int) -> np.ndarray:
    """One unbroken run; kept in `SERIES=folder` where that is given."""
    folder = wanted("SERIES", Path, None)
    kept = None if folder is None else folder / f"{name}-{steps}.npy"
    if kept is not None and kept.exists():
        return np.load(kept)
    values = np.asarray(simulate(SYSTEMS[name], steps), np.float32)
    if kept is not None:
        np.save(kept, values)
    return values


def falling(updates: int, speed: float, most: float):
    """An `adapt` of `fit`: from .3 down towards each run's own `state["last"]`, and up by 5 % instead after an update
    that took more than `most` iterations."""

    def adapt(model, state, batch, update):
        last, alpha = state["last"], state["alpha"]
        fallen = last + (alpha - last) * np.exp(-speed / updates)
        alpha = jnp.where(state["iterations"] > most, jnp.minimum(1.05 * alpha, 0.3), fallen).astype(last.dtype)
        return {**state, "alpha": alpha}, {"alpha": alpha}

    return adapt


def strained(loss):
    """A loss whose state tells how many iterations Newton's method took (0 for the loop)."""

    def of(model, state, batch, key):
        value, (state, facts) = loss(model, state, batch, key)
        return value, ({**state, "iterations": facts.get("iterations", state["iterations"])}, facts)

    return of


@eqx.filter_jit
def free_runs(models, start, steps: int):
    """Free runs `[r, t, m]` of an ensemble, what comes before the attractor left out."""
    return eqx.filter_vmap(lambda m: evolve(m.cell, start, steps=steps + 2_000, throw=False).zs[2_000:])(models)


def main() -> None:
    out = Path(sys.argv[1])
    scale = wanted("SCALE", float, 1.0)
    steps, free = int(STEPS * scale), int(FREE * scale)
    rows = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "command": " ".join(sys.argv)}
    for name in wanted("SYSTEM", lambda text: text.split(","), list(SYSTEMS)):
        strengths = wanted("ALPHA", numbers, STRENGTHS[name])
        begun = time.perf_counter()
        clean = series(name, steps + 1)
        mean, std = clean.mean(0), clean.std(0)
        rng = np.random.default_rng(0)
        x = jnp.asarray((clean - mean) / std + 0.05 * rng.normal(size=clean.shape), jnp.float32)
        truth, others = clean[: 10 * free], [clean[-(i + 1) * free :][:free] for i in range(5)]
        floors = {
            "d_stsp": float(np.median([d_stsp(truth, other) for other in others])),
            "d_h": float(np.median([d_h(truth[:free], other) for other in others])),
        }
        print(name, "floors", floors, f"{time.perf_counter() - begun:.0f} s", flush=True)
        for length in wanted("T", lambda text: [int(t) for t in text.split(",")], list(UPDATES)):
            updates = wanted("UPDATES", int, max(20, int(UPDATES[length] * scale)))
            window = min(length, steps)
            members = [(a, seed) for a in strengths for seed in range(wanted("SEEDS", int, SEEDS))]
            keys = jnp.stack([jax.random.key(seed) for _, seed in members])
            models = eqx.filter_vmap(
                lambda key: Forced(ClippedShallowPLRNN(3, 100, key=key), IdentityReadout(3, 3, key=key))
            )(keys)
            last = jnp.array([a for a, _ in members], jnp.float32)
            state = {"alpha": jnp.full_like(last, 0.3), "last": last, "iterations": jnp.zeros(len(last), int)}
            if window == steps:
                state["guess"] = jnp.broadcast_to(x[1:], (len(members), 1, *x[1:].shape))
            models, history = fit(
                models,
                strained(gtf(solver=SOLVERS[wanted("SOLVER", str, "newton")])),
                Windows(x, length=window, batch=max(1, wanted("AT_ONCE", int, 10_000) // window)),
                optax.chain(
                    optax.clip_by_global_norm(1.0),
                    optax.radam(optax.exponential_decay(RATES[0], updates, RATES[1] / RATES[0])),
                ),
                steps=updates,
                every=updates,
                key=keys,
                state=state,
                adapt=falling(updates, wanted("FALL", float, 15.0), wanted("MOST", float, 100.0)),
                progress=False,
            )

            start = jnp.asarray((truth[0] - mean) / std, jnp.float32)
            runs = np.asarray(free_runs(models, start, free), np.float64) * std + mean
            for a in strengths:
                index = [i for i, (alpha, _) in enumerate(members) if alpha == a]
                scored = [
                    (d_stsp(truth, run) / floors["d_stsp"], d_h(truth[:free], run) / floors["d_h"])
                    for run in runs[index]
                    if np.isfinite(run).all() and (run.std(0) > 0).all()
                ]
                scores = np.array(scored).reshape(-1, 2)
                row = {
                    "d_stsp_floors": float(np.median(scores[:, 0])) if len(scores) else None,
                    "d_h_floors": float(np.median(scores[:, 1])) if len(scores) else None,
                    "each": scores.round(3).tolist(),
                    "stopped": int((history.failed_at[index] >= 0).sum()),
                    "loss": float(np.nanmedian(history.loss[-1, index])),
                    "seconds_of_all": history.seconds,
                    "compile_seconds": history.compile_seconds,
                    "updates": updates,
                    "alphas": np.asarray(history.facts["alpha"])[-1, index].round(4).tolist(),
                }
                if "iterations" in history.facts:
                    taken = history.facts["iterations"][:, index]
                    row |= {"iterations": float(np.nanmedian(taken[-1])), "most_iterations": float(np.nanmax(taken))}
                rows[f"{name} T={window} alpha={a}"] = row
                print(f"{name} T={window} alpha={a}", row, flush=True)
                out.write_text(json.dumps(rows | {f"{name} floors": floors}, indent=1) + "\n")


if __name__ == "__main__":
    main()
