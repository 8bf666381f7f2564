"""Adaptive forcing on chaotic systems: distances in floors, the largest exponent, and what forcing does to products.

    python benchmarks/adaptive.py [lorenz63] [lorenz96-5] [lorenz96-10]

Series of 100,000 samples with 5 % observation noise, fitted with `adaptive=product_bound`, five runs. Each is scored
against the noise-free truth: D_stsp (by bins up to five variables, else by mixtures) and D_H of 10,000 free steps, each
over its floor, which is what other true stretches of that length score (the median of five); the largest exponent from
16 starts over 10,000 steps, beside that of the system measured in the same way.

`growth`, of the Lorenz-63 runs along the first 10,000 steps of the truth: the log-norm of the product of the Jacobians
of a free run; and under the product-bound rule, with `s` estimated on these steps in windows as long as the fit's, the
mean over the steps of `log((1 - alpha) |J|)`, and the same at the alpha that training ended with. Results are kept in
`results/adaptive.json`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from conftest import versions

from dsrecon import evolve, simulate
from dsrecon.measures import d_h, d_stsp, d_stsp_mixture, lyapunov_mean
from dsrecon.models import ClippedShallowPLRNN
from dsrecon.readout import Forced, IdentityReadout, LinearReadout
from dsrecon.reconstruct.fitted import fitted
from dsrecon.systems import Lorenz63, Lorenz96
from dsrecon.training import Window, of_batch, product_bound, weight_penalty
from dsrecon.training.adaptive import jacobians
from dsrecon.training.estimators import spectral_norm

RESULTS = Path(__file__).parent / "results" / "adaptive.json"
LENGTH, FREE, STARTS, RUNS = 100_000, 10_000, 16, 5

SYSTEMS = {
    "lorenz63": (Lorenz63(), lambda key: ClippedShallowPLRNN(3, 50, key=key), LinearReadout),
    "lorenz96-5": (Lorenz96(n=5), lambda key: ClippedShallowPLRNN(10, 300, key=key), IdentityReadout),
    "lorenz96-10": (Lorenz96(n=10), lambda key: ClippedShallowPLRNN(20, 300, key=key), IdentityReadout),
}
"""Name to `(system, key -> cell, readout)`."""

FITS: dict[str, dict[str, Any]] = {
    "lorenz63": {"length": 50, "steps": 12_000, "learning_rate": (2e-2, 2e-4)},
    "lorenz96-5": {
        "length": 30,
        "steps": 40_000,
        "learning_rate": (3e-3, 3e-5),
        "penalties": (weight_penalty(2e-5),),
    },
    "lorenz96-10": {
        "length": 30,
        "steps": 40_000,
        "learning_rate": (3e-3, 3e-5),
        "penalties": (weight_penalty(2e-5),),
    },
}
GIVEN: dict[str, Any] = dict(
    inputs=None, families=None, lag=None, dimension=None, runs=RUNS, key=0, time_step=None, resample=None, alpha=None,
    interval=None, adaptive=product_bound, penalties=(), batch=None,
    optimiser=None, gradient=of_batch, noise=None, validation=0.2, checkpoint=None, threads=None, progress=False,
)  # fmt: skip


def distance(true: np.ndarray, other: np.ndarray) -> float:
    if true.shape[1] <= 5:
        return d_stsp(true, other)
    return d_stsp_mixture(true[-FREE:], other).value


def exponent(cell, starts, dt: float) -> float:
    return float(lyapunov_mean(cell, jnp.asarray(starts), steps=FREE, dt=dt, count=1).mean[0])


def measured(name: str) -> dict[str, Any]:
    system, cell, readout = SYSTEMS[name]
    whole = simulate(system, LENGTH + 5 * FREE)
    values, dt = np.asarray(whole), float(system.time_step)
    truth, stretches = values[:LENGTH], np.split(values[LENGTH:], 5)
    data = simulate(system, LENGTH, noise=0.05, key=jax.random.key(0))
    floors = {
        "d_stsp": float(np.median([distance(truth, other) for other in stretches])),
        "d_h": float(np.median([d_h(truth[-FREE:], other) for other in stretches])),
    }
    every = slice(None, None, LENGTH // STARTS)
    true_exponent = exponent(system.cell(dt), truth[every][:STARTS], dt)
    begun = time.perf_counter()
    fit = fitted(
        data,
        cell,
        readout=lambda key: readout(values.shape[1], cell(key).state_size, key=key),
        **GIVEN | FITS[name],
    )
    seconds, rows = time.perf_counter() - begun, []
    for run in range(RUNS):
        model = fit.reconstruction(run)
        row: dict[str, Any] = {
            "run": run,
            "alpha": float(fit.table["alpha"][run]),
            "score": float(fit.table["score"][run]),
        }
        free = np.asarray(model.simulate(FREE, discard=1000, throw=False))
        states = model.filter(truth)
        row |= {
            "d_stsp": distance(truth, free) / floors["d_stsp"],
            "d_h": d_h(truth[-FREE:], free) / floors["d_h"],
            "exponent": exponent(model.cell, states[every][:STARTS], dt) / true_exponent,
        }
        if name == "lorenz63":
            row |= growth(model, truth[: FREE + 1], row["alpha"])
        rows.append(row)
        print(row, flush=True)
    medians = {k: float(np.median([row[k] for row in rows])) for k in rows[0] if k not in ("run",)}
    print(f"{name}: {seconds:.0f} s; floors {floors}; exponent {true_exponent:.4f}; medians {medians}", flush=True)
    return {"seconds": seconds, "floors": floors, "exponent": true_exponent, "medians": medians, "runs": rows}


def growth(model, truth: np.ndarray, trained: float) -> dict[str, float]:
    """What 10,000 steps do to a tangent vector, free and forced, in logarithms."""
    x, _ = model.presented(truth)
    z0 = model.readout.start(x[0])
    free = evolve(model.cell, z0, steps=FREE).zs
    unforced = _product(jax.vmap(lambda z: model.cell.linearise(z)[1])(jnp.concatenate([z0[None], free[:-1]])))
    forced = Forced(model.cell, model.readout)
    length = FITS["lorenz63"]["length"]
    cut = x[: FREE // length * length].reshape(-1, length, x.shape[1])
    after = jnp.concatenate([cut[1:, :1], x[None, -1:, :]])
    batch = Window(*[jnp.concatenate([cut, after], 1)] * 2)
    J = jacobians(forced, jnp.asarray(trained, x.dtype), batch)
    means = jnp.mean(jnp.log(spectral_norm(J)), axis=1)
    alpha = float(1 - jnp.exp(-jnp.max(means)))
    whole = float(1 - jnp.exp(-jnp.mean(means)))
    return {
        "unforced_log_norm": float(unforced),
        "rule_alpha_windows": alpha,
        "rule_alpha_whole": whole,
        "step_log_norm_windows": float(jnp.mean(means) + np.log1p(-alpha)),
        "step_log_norm_whole": float(jnp.mean(means) + np.log1p(-whole)),
        "step_log_norm_trained": float(jnp.mean(means) + np.log1p(-trained)),
    }


@eqx.filter_jit
def _product(J):
    """`log |J_T ... J_1|`, the product rescaled at every step."""

    def step(carry, J):
        M, total = carry
        M = J @ M
        size = jnp.linalg.norm(M)
        return (M / size, total + jnp.log(size)), None

    (M, total), _ = jax.lax.scan(step, (jnp.eye(J.shape[-1]), jnp.zeros(())), J)
    return total + jnp.log(jnp.linalg.norm(M, 2))


def main() -> None:
    names = sys.argv[1:] or list(SYSTEMS)
    if unknown := set(names) - set(SYSTEMS):
        raise SystemExit(f"systems are {list(SYSTEMS)}: got {unknown}.")
    for name in names:
        rows = measured(name)
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        content = json.dumps({**found, "machine": versions(), name: rows}, indent=1)
        RESULTS.with_suffix(".part").write_text(content + "\n")
        RESULTS.with_suffix(".part").replace(RESULTS)


if __name__ == "__main__":
    main()
