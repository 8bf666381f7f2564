"""What a step costs by the loop, from one sequence to thousands, and what blocks at once make of it: the measurements
behind `Auto`'s choice.

    python benchmarks/solver_costs.py OUT.json [steps] [runs] [--cell NAME,NAME] [--compile] [--small]

`--compile` compiles and times nothing: with JAX's compilation cache a second command then times at once, and cells can
be compiled beside one another. Float32, least of the rounds; compilation left out. The gradient is by all parameters,
of the mean square of the states.

`python benchmarks/solver_costs.py fit RESULTS.json` fits `dsrecon.newton.costs.MEASURED` to value and gradient, in
logarithms, and says for every long run what the model would have taken and how many times longer that is than the best.

- `steps`: batches of 1 to 128 runs (on a GPU to 4,096) of 512 steps by `Sequential()`: microseconds a step.
- `runs`: long runs by `Sequential()`, by `Shooting` with some numbers of blocks, by `Newton()` on a GPU, and by what
  `Auto()` takes: milliseconds, and what the model said.
"""

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from dsrecon import Auto, Forced, Forcing, IdentityReadout, Newton, Sequential, Shooting, evolve
from dsrecon.kernels.platform import nvidia
from dsrecon.models import ALRNN, GRU, PLRNN, ClippedShallowPLRNN, ParaGRU, ParaLSTM
from dsrecon.newton.auto import MARGIN
from dsrecon.newton.costs import Cost, Outline, outlined

SMALL, COMPILE = ("--small" in sys.argv), ("--compile" in sys.argv)
SECONDS = 0.02 if SMALL else 0.1
CELLS = {
    "shallow M3 H50": lambda key: ClippedShallowPLRNN(3, 50, key=key),
    "AL-RNN M20": lambda key: ALRNN(20, 2, key=key),
    "PLRNN M40": lambda key: PLRNN(40, key=key),
    "AL-RNN M100": lambda key: ALRNN(100, 10, key=key),
    "shallow M5 H250": lambda key: ClippedShallowPLRNN(5, 250, key=key),
    "GRU 8": lambda key: GRU(8, input_size=3, key=key),
    "GRU 64": lambda key: GRU(64, input_size=3, key=key),
    "ParaGRU 16": lambda key: ParaGRU(16, input_size=3, key=key),
    "ParaGRU 256": lambda key: ParaGRU(256, input_size=3, key=key),
    "ParaLSTM 1024": lambda key: ParaLSTM(1024, input_size=3, key=key),
}
FORGETS = 0.3


def problem(name: str, batch: int, steps: int):
    """`(cell, z0, inputs)`: piecewise-linear cells forced towards noise, gated ones driven by it."""
    cell = CELLS[name](jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (batch, steps, 3))
    z0 = jnp.zeros((batch, cell.state_size))
    if name.startswith(("GRU", "Para")):
        return cell, z0, x
    forced = Forced(cell, IdentityReadout(3, cell.state_size, key=jax.random.key(2)))
    return forced, z0, Forcing(x, jnp.full((batch, steps), FORGETS))


def chosen() -> list[str]:
    """The cells asked for."""
    if "--cell" in sys.argv:
        return sys.argv[sys.argv.index("--cell") + 1].split(",")
    return list(CELLS)[:2] if SMALL else list(CELLS)


def timed(function, *given) -> float:
    """Seconds of a call that is waited for: the least of several."""
    jax.block_until_ready(function(*given))
    found, end = [], time.perf_counter() + SECONDS
    while len(found) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        jax.block_until_ready(function(*given))
        found.append(time.perf_counter() - begun)
    return min(found)


def times(solver, cell, z0, inputs) -> dict:
    """Seconds forward, and of value and gradient; the statistics of the run."""
    free, static = eqx.partition(cell, eqx.is_inexact_array)

    @jax.jit
    def forward(free, z0, inputs):
        run = evolve(eqx.combine(free, static), z0, inputs, solver=solver, throw=False)
        return run.zs, run.stats

    @jax.jit
    def gradient(free, z0, inputs):
        return jax.value_and_grad(lambda free: jnp.mean(forward(free, z0, inputs)[0] ** 2))(free)

    if COMPILE:
        for function in (forward, gradient):
            function.lower(free, z0, inputs).compile()
        return {}
    stats = forward(free, z0, inputs)[1]
    row = {"forward": timed(forward, free, z0, inputs), "gradient": timed(gradient, free, z0, inputs)}
    gain = {"gain": float(stats["gain"].max())} if "gain" in stats else {}
    return row | {name: int(stats[name].max()) for name in ("iterations", "fused", "blocks") if name in stats} | gain


def steps(report) -> None:
    many = (1, 4) if SMALL else (1, 16, 1024, 4096) if nvidia() else (1, 2, 4, 8, 16, 32, 64, 128)
    length = 32 if SMALL else 512
    for name in chosen():
        for rows in many:
            if rows * length * problem(name, 1, 1)[1].size * 4 * 8 > 8e9:
                continue
            cell, z0, inputs = problem(name, rows, length)
            row = times(Sequential(), cell, z0, inputs)
            report({"cell": name, "rows": rows, "steps": length} | outlined(cell, z0, inputs)._asdict() | row)


def runs(report) -> None:
    shapes = ((1, 256),) if SMALL else ((1, 1_000), (1, 10_000), (16, 10_000), (1, 100_000))
    for name in chosen():
        for batch, length in shapes:
            cell, z0, inputs = problem(name, batch, length)
            about = {"cell": name, "rows": batch, "steps": length} | outlined(cell, z0, inputs)._asdict()
            solvers = {"Sequential": Sequential(), "Shooting": Shooting(), "Auto": Auto()}
            if nvidia():
                solvers |= {"Newton": Newton()} if length == 10_000 and cell.state_size <= 20 else {}
                if about["path"] == "loop" and length > 10_000:
                    del solvers["Sequential"]
            else:
                solvers |= {f"Shooting({n})": Shooting(n) for n in (4, 8, 32) if n * batch <= 64}
            for named, solver in solvers.items():
                try:
                    row = times(solver, cell, z0, inputs)
                except Exception as error:  # what does not fit the memory must not cost the others
                    row = {"failed": repr(error)[:300]}
                report(about | {"solver": named} | row)


WORK = {"cpu": (8.0, 100.0), "beside": (8.0, 100.0)}
"""Products that a sum and a function of a number are worth: on a CPU, elsewhere see below."""


def outline(row: dict) -> Outline:
    return Outline(*(row[name] for name in Outline._fields))


def said(numbers: np.ndarray, path: str) -> Cost:
    run, blocks, step, step_work, by_row, row_work, alone, alone_work = (float(f"{x:.2g}") for x in numbers)
    works = WORK.get(path, (1.4, 13.0))
    if path not in WORK:
        alone = alone_work = None
    return Cost(run, blocks, step, step_work, by_row, row_work, alone, alone_work, *works)


def counted(row: dict) -> int:
    return row["blocks"] if row.get("solver", "Sequential") != "Sequential" else 1


def misfit(x: np.ndarray, rows: list[dict], path: str) -> list[float]:
    cost = said(np.exp(x), path)
    return [float(np.log(cost.of_run(outline(r), r["rows"], r["steps"], counted(r)) / r["gradient"])) for r in rows]


def fitted(rows: list[dict], path: str) -> tuple[Cost, float]:
    """The costs of a path and the spread of the logarithms about them."""
    first = np.log([1e-4, 2e-4, 3e-7, 1e-10, 1e-9, 1e-12, 1e-7, 1e-10])
    found = [
        scipy.optimize.least_squares(
            misfit, first + shift, "3-point", (first - 12, first + 7), loss="soft_l1", f_scale=0.2, diff_step=0.02,
            args=(rows, path),
        )
        for shift in (0, *np.random.default_rng(0).normal(size=(8, 8)))
    ]  # fmt: skip
    best = min(found, key=lambda x: x.cost)
    return said(np.exp(best.x), path), float(np.std(misfit(best.x, rows, path)))


def fit(found: dict) -> None:
    """Of one machine: its costs, and what its long runs would have lost by them."""
    rows = [r for part in ("steps", "runs") for r in found.get(part, []) if "gradient" in r]
    looped = [r for r in rows if r.get("solver") not in ("Newton", "Auto") and r.get("iterations", 1) == 1]
    costs = {}
    for path in sorted({r["path"] for r in looped}):
        rows = [r for r in looped if r["path"] == path]
        costs[path], spread = fitted(rows, path)
        print(f'    "{path}": Cost{tuple(costs[path])},  # {len(rows)} times, spread {spread:.2f}')
    lost, won, shapes = [], [], {}
    for r in found.get("runs", []):
        if "gradient" in r and r["solver"] != "Auto":
            shapes.setdefault((r["cell"], r["rows"], r["steps"]), []).append(r)
    for shape, ways in shapes.items():
        ways = {"Newton" if r["solver"] == "Newton" else counted(r): r for r in ways}
        told = {
            n: costs[r["path"]].of_run(outline(r), r["rows"], r["steps"], n) * (MARGIN if n > 1 else 1)
            for n, r in ways.items()
            if n != "Newton"
        }
        taken = min(told, key=lambda n: told[n])
        for key in ("forward", "gradient"):
            best = min(ways, key=lambda n: ways[n][key])
            lost.append(ways[taken][key] / ways[best][key])
            won.append(ways[1][key] / ways[taken][key] if 1 in ways else np.nan)
            print(shape, key, "taken", taken, "best", best, f"{lost[-1]:.2f} of the best, {won[-1]:.2f} times the loop")
    print(f"of the best: mean {np.mean(lost):.2f}, worst {max(lost):.2f}; the loop: least {np.nanmin(won):.2f}")


def main() -> None:
    if sys.argv[1] == "fit":
        found = json.loads(Path(sys.argv[2]).read_text())
        for machine in found.get("machines", [found]):
            fit(machine)
        return
    named = sys.argv.index("--cell") + 1 if "--cell" in sys.argv else None
    given = [x for i, x in enumerate(sys.argv) if i > 0 and i != named and not x.startswith("--")]
    out, parts = Path(given[0]), given[1:] or ["steps", "runs"]
    device = jax.devices()[0]
    found = {"device": device.device_kind, "jax": jax.__version__, "command": " ".join(sys.argv)}
    for part in parts:
        rows = found[part] = []

        def report(row, rows=rows):
            rows.append(row)
            print({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}, flush=True)
            out.write_text(json.dumps(found, indent=1) + "\n")

        {"steps": steps, "runs": runs}[part](report)


if __name__ == "__main__":
    main()
