"""Driven systems over a whole sequence at once: iterations of Newton's method against the strength of the drive.

    python benchmarks/driven.py [steps]

Lorenz, Roessler, Thomas, Chua and Sprott B by the classical Runge-Kutta method at dt = .01, 30,000 steps in double
precision, every variable forced (`Forced`, `IdentityReadout`) with constant alpha towards a series with 5 % noise of
the same system, which is also the first guess: `zs[t]` follows `inputs[t]`, whose `x` pulls on the state before the
step, so the observation at the time of `zs[t]` is that of `inputs[t + 1]`.

For every alpha: the linear recurrences that `Newton` solved at tolerance 1e-10, whether it converged and if not its
first inexact step; the distance to the loop; and the largest Lyapunov exponent, free or conditional on the drive, per
unit of time. `steps * dt` times a positive exponent is the logarithm of what an error grows by: that, not the number
of steps, is why free chaos does not converge. Results are kept in `results/driven.json`.

Systems: Sprott 2003, *Chaos and time-series analysis*; Thomas 1999, *Deterministic chaos seen in terms of feedback
circuits*, International Journal of Bifurcation and Chaos 9, 1889 (b = .208186); Sprott 1994, *Some simple chaotic
flows*, Physical Review E 50, R647 (case B).
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from conftest import versions
from jaxtyping import Array

from dsrecon import RESULTS, Newton, evolve
from dsrecon.measures import lyapunov_spectrum
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.systems import Chua, Lorenz63, MapCell, Roessler

FILE = Path(__file__).parent / "results" / "driven.json"
STEPS, DISCARD, DT, NOISE, TOLERANCE, LIMIT = 30_000, 50_000, 0.01, 0.05, 1e-10, 100
ALPHAS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.0)
WANTED = {0.1: 6, 0.02: 9}
"""The most iterations at an alpha."""


class Thomas(eqx.Module):
    """Cyclic feedback with weak friction: `x' = sin y - b x`, and so on round."""

    b: float = 0.208186

    def __call__(self, x):
        return jnp.sin(jnp.roll(x, -1)) - self.b * x


class SprottB(eqx.Module):
    """Five terms: `x' = y z`, `y' = x - y`, `z' = 1 - x y`."""

    def __call__(self, x):
        x, y, z = x
        return jnp.stack([y * z, x - y, 1 - x * y])


class RungeKutta4(eqx.Module):
    """One step of the classical method."""

    f: Callable[[Array], Array]

    def __call__(self, z):
        k1 = self.f(z)
        k2 = self.f(z + DT / 2 * k1)
        k3 = self.f(z + DT / 2 * k2)
        k4 = self.f(z + DT * k3)
        return z + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


SYSTEMS = {
    "Lorenz": (Lorenz63(), Lorenz63().start),
    "Roessler": (Roessler(), Roessler().start),
    "Thomas": (Thomas(), (0.1, 0.0, 0.0)),
    "Chua": (Chua(), Chua().start),
    "Sprott B": (SprottB(), (0.05, 0.05, 0.05)),
}
"""Name to the right-hand side and a start in the basin of its attractor."""


class Problem(NamedTuple):
    """A driven system: `(cell, z0, inputs, guess)`."""

    cell: Forced
    z0: Array
    inputs: Forcing
    guess: Array


def problem(name: str, alpha: float, steps: int) -> Problem:
    """The series starts on the attractor; `z0` and all that follows is seen with noise."""
    f, start = SYSTEMS[name]
    cell = MapCell(RungeKutta4(f), 3)
    truth = np.asarray(evolve(cell, jnp.asarray(start), steps=DISCARD + steps + 1).zs[DISCARD:])
    rng = np.random.default_rng(0)
    x = jnp.asarray(truth + NOISE * truth.std(0) * rng.normal(size=truth.shape))
    forced = Forced(cell, IdentityReadout(3, 3, key=jax.random.key(0)))
    return Problem(forced, x[0], Forcing(x[:-1], jnp.full(steps, alpha)), x[1:])


def measured(name: str, alpha: float, steps: int) -> dict[str, Any]:
    cell, z0, inputs, guess = problem(name, alpha, steps)
    solver = Newton(rtol=TOLERANCE, atol=TOLERANCE, max_iterations=LIMIT)

    def solve():
        return jax.block_until_ready(evolve(cell, z0, inputs, solver=solver, guess=guess, throw=False))

    solve()
    begun = time.perf_counter()
    run = solve()
    seconds = time.perf_counter() - begun
    loop = evolve(cell, z0, inputs).zs
    exponent = lyapunov_spectrum(cell, z0, inputs, steps=steps - 1000, dt=DT, discard=1000, count=1)[0]
    converged = bool(run.result == RESULTS.successful)
    return {
        "system": name,
        "alpha": alpha,
        "converged": converged,
        "iterations": int(run.stats["iterations"]),
        "first_inexact": int(run.stats["first_inexact"]),
        "residual": float(run.stats["residual"]),
        "from_loop": float(jnp.max(jnp.abs(run.zs - loop))) if converged else None,
        "exponent": float(exponent),
        "seconds": seconds,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Iterations, and the exponent in brackets; of a run that did not converge its first inexact step."""
    lines = ["| alpha | " + " | ".join(SYSTEMS) + " |", "|---" * (len(SYSTEMS) + 1) + "|"]
    for alpha in ALPHAS:
        cells = []
        for row in (r for name in SYSTEMS for r in rows if (r["system"], r["alpha"]) == (name, alpha)):
            found = str(row["iterations"]) if row["converged"] else f"not converged, step {row['first_inexact']:,}"
            cells.append(f"{found} ({row['exponent']:+.2f})")
        lines.append(f"| {alpha:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    rows = []
    for name in SYSTEMS:
        for alpha in ALPHAS:
            rows.append(measured(name, alpha, steps))
            print(rows[-1], flush=True)
    print(table(rows))
    for row in rows:
        if row["alpha"] in WANTED and (not row["converged"] or row["iterations"] > WANTED[row["alpha"]]):
            print(f"more than {WANTED[row['alpha']]} iterations: {row}")
    if steps == STEPS:
        settings = {"steps": steps, "dt": DT, "noise": NOISE, "tolerance": TOLERANCE, "max_iterations": LIMIT}
        content = json.dumps({"machine": versions(), "settings": settings, "runs": rows}, indent=1)
        FILE.with_suffix(".part").write_text(content + "\n")
        FILE.with_suffix(".part").replace(FILE)


if __name__ == "__main__":
    main()
