"""Iterations of Newton's method on forced runs, against the strength of the forcing and against their length.

    python benchmarks/iterations.py [FOLDER]

Three models are fitted to 100,001 samples of Lorenz-63 with 5 % observation noise, one run each: a clipped shallow
PLRNN (M3 H50, linear readout) and an AL-RNN (M20 P2, identity readout: 3 units are observed and pulled, 17 hidden)
with `adaptive=product_bound`, and the AL-RNN with sparse forcing, every 16th step. Given a FOLDER, fits are kept there
and read from it if they are there already.

Each is then forced along the same noisy series and solved by `Newton()`, float32, tolerance and guess as they come
(1e-5; the observations).

- `by_alpha`: 10,000 steps, alpha from .5 to .001, and the product-bound alpha that the fit ended with.
- `by_length`: 10^2 to 10^5 steps at that alpha, or under the sparse forcing.
- `bound`: the product bound not of the fit's windows, of which the steepest decides, but of the first 10,000 steps as
  one sequence (a fixed point, since the run depends on alpha), and 10^5 steps at that alpha.
- `remedies`: 10,000 steps at alpha .025 by other windows, guesses and solvers (`TrustRegion` in 3 dimensions alone: in
  20 it takes a minute); iterations are those of the worst window.

`swept`: iterations from the guess `Swept(4)`; `exponent`: the largest Lyapunov exponent of the forced run, per step,
`free_exponent` that of 10,000 free steps; `apart`: the largest distance from the loop, in standard deviations of the
data; `floors`: how far the free run is from the data, which says how good the fit is. Kept in
`results/iterations.json`, figure `docs/iterations.png`.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from conftest import versions

from dsrecon import (
    CoarseToFine,
    Newton,
    QuasiNewton,
    Reconstruction,
    TrustRegion,
    evolve,
    load,
    plot,
    reconstruct,
    simulate,
)
from dsrecon.evolve import AbstractSolver
from dsrecon.measures import lyapunov_spectrum
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.newton import Swept
from dsrecon.plot.canvas import PALETTE, TRUE, canvas
from dsrecon.readout import Forced, Forcing, IdentityReadout, LinearReadout
from dsrecon.systems import Lorenz63
from dsrecon.training import Window, product_bound
from dsrecon.training.adaptive import jacobians
from dsrecon.training.estimators import spectral_norm

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "iterations.json"
STEPS, DISCARD, WANTED, INTERVAL = 10_000, 1_000, 8, 16
ALPHAS = (0.5, 0.2, 0.1, 0.07, 0.05, 0.04, 0.03, 0.02, 0.01, 0.003, 0.001)
LENGTHS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
WEAK = 0.025
REMEDIES = {
    "Newton()": Newton(),
    "Newton(window=1000)": Newton(window=1000),
    "Newton(window=300)": Newton(window=300),
    "Newton(window=100)": Newton(window=100),
    "Newton(guess=Swept(400))": Newton(guess=Swept(400)),
    "Newton(guess=CoarseToFine(16))": Newton(guess=CoarseToFine(16)),
    "QuasiNewton()": QuasiNewton(),
    "TrustRegion()": TrustRegion(),
}

FITS: dict[str, dict[str, Any]] = {
    "shallow PLRNN": {
        "cell": lambda key: ClippedShallowPLRNN(3, 50, key=key),
        "readout": lambda key: LinearReadout(3, 3, key=key),
        "adaptive": product_bound,
        "learning_rate": (2e-2, 2e-4),
    },
    "AL-RNN": {
        "cell": lambda key: ALRNN(20, 2, key=key),
        "readout": lambda key: IdentityReadout(3, 20, key=key),
        "adaptive": product_bound,
        "learning_rate": (1e-2, 1e-4),
    },
    "AL-RNN, sparse": {
        "cell": lambda key: ALRNN(20, 2, key=key),
        "readout": lambda key: IdentityReadout(3, 20, key=key),
        "interval": INTERVAL,
        "learning_rate": (3e-3, 3e-5),
        "length": 200,
        "steps": 20_000,
        "noise": 0.05,
    },
}
GIVEN: dict[str, Any] = dict(steps=12_000, length=50, batch=16, runs=1, key=0, progress=False)


def model_of(name: str, data: Any, folder: Path | None) -> Reconstruction:
    kept = None if folder is None else folder / f"{name.replace(' ', '-').replace(',', '')}.eqx"
    if kept is not None and kept.is_file():
        return load(kept)
    model = reconstruct(data, **GIVEN | FITS[name])
    if kept is not None:
        model.save(kept)
    return model


@eqx.filter_jit
def solved(forced: Forced, z0, inputs) -> tuple[dict[str, jax.Array], jax.Array]:
    """Statistics of both guesses, and how far the run is from the loop."""
    run, swept = (evolve(forced, z0, inputs, solver=s, throw=False) for s in (Newton(), Newton(guess=Swept(4))))
    loop = evolve(forced, z0, inputs).zs
    return run.stats | {"swept": swept.stats["iterations"]}, jnp.max(jnp.abs(run.zs - loop))


def row(forced: Forced, x: jax.Array, alphas: jax.Array) -> dict[str, Any]:
    z0, inputs = forced.readout.start(x[0]), Forcing(x[: len(alphas)], alphas)
    stats, apart = solved(forced, z0, inputs)
    found = {k: stats[k].item() for k in ("iterations", "swept", "residual", "first_inexact", "region_changes")}
    discard = min(DISCARD, len(alphas) // 2)
    exponent = lyapunov_spectrum(forced, z0, inputs, steps=len(alphas) - discard, discard=discard, count=1)
    return found | {
        "converged": found["first_inexact"] == len(alphas),
        "apart": float(apart),
        "exponent": float(exponent[0]),
    }


def measured(name: str, data: Any, folder: Path | None) -> dict[str, Any]:
    model = model_of(name, data, folder)
    forced = Forced(model.cell, model.readout)
    x, _ = model.presented(np.asarray(data))
    sparse = "interval" in FITS[name]
    trained = None if sparse else float(model.settings["alpha"]["value"])
    free = lyapunov_spectrum(model.cell, forced.readout.start(x[0]), steps=STEPS, count=1)
    record: dict[str, Any] = {
        "alpha": trained,
        "floors": float(model.runs["score"].values[0]),
        "free_exponent": float(free[0]),
        "by_alpha": [],
        "by_length": [],
    }
    print(name, record, flush=True)
    for alpha in sorted({*ALPHAS, *([] if trained is None else [trained])}, reverse=True):
        record["by_alpha"].append({"alpha": alpha} | row(forced, x, jnp.full(STEPS, alpha, x.dtype)))
        print(record["by_alpha"][-1], flush=True)
    for steps in LENGTHS:
        alphas = jnp.arange(steps) % INTERVAL == 0 if trained is None else jnp.full(steps, trained)
        record["by_length"].append({"steps": steps} | row(forced, x, alphas.astype(x.dtype)))
        print(record["by_length"][-1], flush=True)
    bound = bound_of(forced, x)
    record["bound"] = {"alpha": bound} | row(forced, x, jnp.full(max(LENGTHS), bound, x.dtype))
    tried = {k: v for k, v in REMEDIES.items() if forced.state_size <= 3 or not isinstance(v, TrustRegion)}
    record["remedies"] = {k: remedy(solver, forced, x) for k, solver in tried.items()}
    print(record["bound"], record["remedies"], sep="\n", flush=True)
    return record


def bound_of(forced: Forced, x: jax.Array, alpha: float = 0.1) -> float:
    """The alpha that is the product bound of the run that it gives."""
    batch = Window(x[None, : STEPS + 1], x[None, : STEPS + 1])
    for _ in range(5):
        norms = spectral_norm(jacobians(forced, jnp.asarray(alpha, x.dtype), batch))
        alpha = max(0.0, float(1 - jnp.exp(-jnp.mean(jnp.log(norms)))))
    return alpha


def remedy(solver: AbstractSolver, forced: Forced, x: jax.Array) -> dict[str, Any]:
    inputs = Forcing(x[:STEPS], jnp.full(STEPS, WEAK, x.dtype))
    stats = evolve(forced, forced.readout.start(x[0]), inputs, solver=solver, throw=False).stats
    found = {k: stats[k].item() for k in ("iterations", "residual", "first_inexact", "expansion")}
    return found | {"converged": found["first_inexact"] == STEPS}


def drawn(record: dict[str, Any]) -> None:
    """Iterations against alpha, and against the number of steps."""
    figure, panels = canvas(None, 1, 2, (10.5, 4.4))
    most, ticks = Newton().max_iterations, (1, 2, 4, 8, 16, 32, 100)
    for i, ((name, found), colour) in enumerate(zip(record.items(), PALETTE, strict=False)):
        for panel, key, field in zip(panels, ("alpha", "steps"), ("by_alpha", "by_length"), strict=True):
            x, y = (np.array([r[k] for r in found[field]]) for k in (key, "iterations"))
            good = np.array([r["converged"] for r in found[field]], bool)
            panel.plot(x[good], y[good], "o-", color=colour, markersize=5, linewidth=1.2, label=name)
            panel.plot(x[~good], y[~good] * 1.14**i, "x", color=colour, markersize=6)
            at = (x == found["alpha"]) if key == "alpha" else np.zeros(len(x), bool)
            panel.plot(x[at], y[at], "o", markersize=13, fillstyle="none", color=colour, markeredgewidth=1.5)
    for panel in panels:
        panel.set(xscale="log", yscale="log", ylim=(0.9, 2.4 * most), yticks=ticks)
        panel.set_yticklabels([str(v) for v in ticks])
        panel.minorticks_off()
        panel.axhline(WANTED, linestyle="--", color="#777777", linewidth=1.0, zorder=1)
        panel.grid(axis="y", alpha=0.25, linewidth=0.5)
    note: dict[str, Any] = {"textcoords": "offset points", "color": "#555555", "fontsize": "small"}
    panels[0].annotate(f"not converged in {most}", (min(ALPHAS), most), (-4, 21), **note)
    panels[1].annotate(f"{WANTED} iterations", (min(LENGTHS), WANTED), (-4, 4), **note)
    panels[0].set(xlabel="forcing strength alpha", ylabel="iterations", title=f"T = {STEPS:,}")
    panels[1].set(xlabel="steps T", title="forced as in training")
    panels[1].plot([], [], "o", markersize=11, fillstyle="none", color=TRUE, label="product-bound alpha")
    panels[1].legend(frameon=False, fontsize="small", loc="upper right")
    plot.save(figure, ROOT / "docs" / "iterations.png")


def plain(found: Any) -> Any:
    """The record with `None` for what is not finite: JSON has no infinity."""
    if isinstance(found, dict):
        return {k: plain(v) for k, v in found.items()}
    if isinstance(found, list):
        return [plain(v) for v in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    data = simulate(Lorenz63(), max(LENGTHS) + 1, noise=0.05, key=jax.random.key(0))
    begun = time.process_time()
    models = {name: measured(name, data, folder) for name in FITS}
    content = {"machine": versions(), "cpu_seconds": round(time.process_time() - begun), "models": plain(models)}
    RESULTS.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    drawn(models)


if __name__ == "__main__":
    main()
