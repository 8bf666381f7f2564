"""`diagnose` on fits whose fault is known: faults are planted, and what is named first is counted.

    python benchmarks/diagnose.py --keep FOLDER           # fits (about an hour on two cores; FOLDER keeps them), counts
    python benchmarks/diagnose.py --keep FOLDER --only X  # fits whose name holds X, without writing the result
    python benchmarks/diagnose.py --table                 # the matrix of docs/diagnose.md, from the result

A fault is planted by bad settings of `reconstruct` where that gives it, else by changing a good fit. The thresholds of
`dsrecon/diagnose` were set on the systems of SETTING alone; those of TESTED had no say in them.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon import ALRNN, Reconstruction, datasets, load, reconstruct, simulate
from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.diagnose import diagnose
from dsrecon.diagnose.rules import LAST, RULES
from dsrecon.readout import IdentityReadout
from dsrecon.systems import Chua, Henon, HindmarshRose, Lorenz63, Lorenz96, Lozi, MackeyGlass, Roessler

Series = Any
RUNS, STEPS, SAMPLES = 4, 5000, 20_000


class Twice(AbstractCell):
    """Two steps of a cell as one: the same attractor, at twice its tempo."""

    cell: AbstractCell

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def __call__(self, z, s=None):
        return self.cell(self.cell(z, s), s)

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def of(system, noise: float = 0.0, **options) -> Series:
    return simulate(system, SAMPLES, noise=noise, key=jax.random.key(1), **options)


def fit(series: Series, cell=None, **options) -> Reconstruction:
    return reconstruct(series, cell, **{"runs": RUNS, "steps": STEPS, "key": 0, "progress": False} | options)


def bad(series: Series, cell=None, **options) -> Reconstruction:
    """A fit that is to fail: shorter."""
    return fit(series, cell, **{"runs": 2, "steps": 3000} | options)


def few(units: int, size: int = 10) -> Callable:
    return lambda key: ALRNN(size, units, key=key)


def scaled(model: Reconstruction, factor: float) -> Reconstruction:
    """Every parameter of the cell times a number."""
    cell = jax.tree.map(lambda v: v * factor if eqx.is_inexact_array(v) else v, model.cell)
    return eqx.tree_at(lambda m: m.cell, model, cell)


def steeper(model: Reconstruction, factor: float) -> Reconstruction:
    """The diagonal of the cell times a number: above 1 in modulus, nothing holds the run."""
    return eqx.tree_at(lambda m: m.cell.A, model, replace_fn=lambda A: A * factor)


def twice(model: Reconstruction) -> Reconstruction:
    return eqx.tree_at(lambda m: m.cell, model, Twice(model.cell))  # pyright: ignore[reportCallIssue]


def of_law(model: Reconstruction, system) -> Reconstruction:
    """A known law in place of the fitted cell, in the units of the model."""
    step = system.cell(model.clock.time_step)
    mean, std = jnp.asarray(model.scaler.mean, dtype=float), jnp.asarray(model.scaler.std, dtype=float)
    cell = Standardised(step, mean, std)  # pyright: ignore[reportCallIssue]
    readout = IdentityReadout(len(mean), len(mean), key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.cell, m.readout), model, (cell, readout))


class Standardised(AbstractCell):
    """A law in standardised coordinates."""

    cell: AbstractCell
    mean: jax.Array
    std: jax.Array

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def __call__(self, z, s=None):
        return (self.cell(z * self.std + self.mean, s) - self.mean) / self.std

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


GOOD = "healthy"
Case = tuple[str, Callable[[Callable[[str], Reconstruction]], Reconstruction]]
"""What should be named first, and how the model is made, given a way to ask for other models."""

SETTING: dict[str, Case] = {
    "Lorenz63": (GOOD, lambda get: fit(of(Lorenz63()))),
    "Lorenz63 5 % noise": (GOOD, lambda get: fit(of(Lorenz63(), 0.05))),
    "Henon": (GOOD, lambda get: fit(of(Henon()), length=20)),
    "Lorenz96-5": (GOOD, lambda get: fit(of(Lorenz96(n=5)), steps=8000)),
    "Lorenz63 periodic": (GOOD, lambda get: fit(of(Lorenz63(rho=350.0), 0.02, dt=0.004))),
    "Lorenz63 x": (GOOD, lambda get: fit(of(Lorenz63(), dt=0.02)[:, 0], steps=8000)),
    "Lorenz63 steps=100": ("underfit", lambda get: bad(of(Lorenz63()), steps=100)),
    "Lorenz96-5 steps=200": ("underfit", lambda get: bad(of(Lorenz96(n=5)), steps=200)),
    "Henon alpha=0": ("alpha_small", lambda get: bad(of(Henon()), alpha=0.0, length=100)),
    "Lorenz96-5 alpha=0": ("alpha_small", lambda get: bad(of(Lorenz96(n=5)), alpha=0.0, length=200, steps=1500)),
    "Lorenz63 alpha=.95": ("alpha_large", lambda get: bad(of(Lorenz63(), 0.2), alpha=0.95)),
    "Lorenz96-5 alpha=.95": ("alpha_large", lambda get: bad(of(Lorenz96(n=5), 0.3), alpha=0.95)),
    "Lorenz63 x d=2": ("embedding", lambda get: bad(of(Lorenz63(), dt=0.02)[:, 0], few(8, 10), dimension=2)),
    "Henon x d=1": ("embedding", lambda get: bad(of(Henon())[:, 0], few(1, 1), dimension=1)),
    "Lorenz63 0 units": ("regions", lambda get: bad(of(Lorenz63()), few(0))),
    "Lorenz96-5 1 unit": ("regions", lambda get: bad(of(Lorenz96(n=5)), few(1))),
    "Lorenz63 steeper": ("diverged", lambda get: steeper(get("Lorenz63"), 1.5)),
    "Henon steeper": ("diverged", lambda get: steeper(get("Henon"), -40.0)),
    "Lorenz63 halved": ("point", lambda get: scaled(get("Lorenz63"), 0.5)),
    "Henon law a=1": ("cycle", lambda get: of_law(get("Henon"), Henon(a=1.0))),
    "Lorenz63 twice": ("spectrum", lambda get: twice(get("Lorenz63"))),
    "Lorenz96-5 twice": ("spectrum", lambda get: twice(get("Lorenz96-5"))),
}

TESTED: dict[str, Case] = {
    "Roessler": (GOOD, lambda get: fit(of(Roessler()))),
    "Chua": (GOOD, lambda get: fit(of(Chua(), 0.02))),
    "Lozi": (GOOD, lambda get: fit(of(Lozi()), length=20)),
    "Hindmarsh-Rose": (GOOD, lambda get: fit(of(HindmarshRose()), steps=12_000)),
    "Roessler periodic": (GOOD, lambda get: fit(of(Roessler(c=3.0), 0.02))),
    "electrocardiogram": (GOOD, lambda get: fit(datasets.ecg()[:SAMPLES], steps=5000)),
    "Mackey-Glass": (GOOD, lambda get: fit(of(MackeyGlass())[::2, 0], steps=6000)),
    "Roessler steps=100": ("underfit", lambda get: bad(of(Roessler()), steps=100)),
    "Chua steps=200": ("underfit", lambda get: bad(of(Chua(), 0.02), steps=200)),
    "Lozi alpha=0": ("alpha_small", lambda get: bad(of(Lozi()), alpha=0.0, length=100)),
    "Chua alpha=.95": ("alpha_large", lambda get: bad(of(Chua(), 0.05), alpha=0.95)),
    "Roessler alpha=.95": ("alpha_large", lambda get: bad(of(Roessler(), 0.2), alpha=0.95)),
    "Roessler x d=1": ("embedding", lambda get: bad(of(Roessler())[:, 0], few(1, 1), dimension=1)),
    "Mackey-Glass d=2": ("embedding", lambda get: bad(of(MackeyGlass())[::2, 0], few(2, 2), dimension=2)),
    "Roessler 0 units": ("regions", lambda get: bad(of(Roessler()), few(0))),
    "Chua 0 units": ("regions", lambda get: bad(of(Chua(), 0.02), few(0))),
    "Roessler steeper": ("diverged", lambda get: steeper(get("Roessler"), 1.5)),
    "Chua steeper": ("diverged", lambda get: steeper(get("Chua"), 1.5)),
    "Roessler halved": ("point", lambda get: scaled(get("Roessler"), 0.5)),
    "Chua halved": ("point", lambda get: scaled(get("Chua"), 0.5)),
    "Roessler law c=3.5": ("cycle", lambda get: of_law(get("Roessler"), Roessler(c=3.5))),
    "Chua law alpha=8.5": ("cycle", lambda get: of_law(get("Chua"), Chua(alpha=8.5))),
    "Roessler twice": ("spectrum", lambda get: twice(get("Roessler"))),
    "Chua twice": ("spectrum", lambda get: twice(get("Chua"))),
}


def model(name: str, keep: Path) -> Reconstruction:
    """A case, from the folder where it is there."""
    made = (SETTING | TESTED)[name][1]
    path = keep / (name.replace(" ", "_").replace("%", "pc") + ".eqx")
    if path.exists():
        return load(path)
    found = made(lambda other: model(other, keep))
    if not isinstance(found.cell, Twice | Standardised):
        found.save(path)
    return found


def judged(name: str, wanted: str, keep: Path) -> dict[str, Any]:
    """What is found of a case."""
    fitted = model(name, keep)
    started = time.perf_counter()
    found = diagnose(fitted)
    seconds = time.perf_counter() - started
    named = [f.name for f in found.findings]
    sys.stdout.write(f"{'right' if (named or [GOOD])[0] == wanted else 'WRONG'}  {name}: {wanted}; found {named}\n")
    sys.stdout.flush()
    numbers = {k: round(float(v), 6) for k, v in found.evidence._asdict().items() if np.isfinite(v)}
    return {"case": name, "planted": wanted, "found": named, "seconds": round(seconds, 2), "evidence": numbers}


def matrix(rows: list[dict[str, Any]]) -> str:
    """Confusion matrix: what was planted against what is named first."""
    kinds = list(dict.fromkeys([GOOD, *(f for r in rows for f in [r["planted"], *r["found"][:1]])]))
    kinds = [k for k in ORDER if k in kinds]
    lines = ["| planted | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for planted in (k for k in kinds if any(r["planted"] == k for r in rows)):
        firsts = [(r["found"] or [GOOD])[0] for r in rows if r["planted"] == planted]
        lines.append(f"| **{planted}** | " + " | ".join(str(firsts.count(k) or "") for k in kinds) + " |")
    return "\n".join(lines) + "\n"


ORDER = (GOOD, *(rule.__name__ for rule in (*RULES, *LAST)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    out = Path(__file__).parent / "results" / "diagnose.json"
    if asked.table:
        sys.stdout.write(matrix(json.loads(out.read_text())["tested"]))
        return
    keep = asked.keep or Path(tempfile.mkdtemp())
    keep.mkdir(parents=True, exist_ok=True)
    parts = {"setting": SETTING, "tested": TESTED}
    rows = {
        part: [judged(name, wanted, keep) for name, (wanted, _) in cases.items() if asked.only in name]
        for part, cases in parts.items()
    }
    if not asked.only:
        about = {"python": platform.python_version(), "machine": platform.machine(), "jax": jax.__version__}
        about |= {"cpus": os.cpu_count(), "runs": RUNS, "steps": STEPS, "samples": SAMPLES}
        out.write_text(json.dumps({"about": about, **rows}, indent=1) + "\n")
        sys.stdout.write(matrix(rows["tested"]))


if __name__ == "__main__":
    main()
