"""At which length can a measure be read? Its floor against its negative controls, at every length and dimension.

    python benchmarks/readable.py                      # all of it, then prints the table
    python benchmarks/readable.py distances numbers    # these parts anew, the others as they stand in the file
    python benchmarks/readable.py limits               # only the limits anew

Rows and limits are kept in results/readable.json.

A distance is read at a length when a good fit (another stretch of the same system, of that length, against a reference
of that length) scores less than a fifth of white noise, of a constant and of a shuffled series. The controls that a
measure cannot see by construction are left out and named. A number that is no distance (a dimension, an entropy) is
judged by how far it falls from that of the reference. Forecasts are judged with a good fit in hand: the system itself
with a parameter off by 0.5 %. The limit is the least length at which every system meets it, by the median of three
stretches (which still scatter: so must the median over this and all longer lengths). `dsrecon/measures/readable.py`
holds these limits.
"""

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsrecon import evolve
from dsrecon.measures.attractor import d_h, d_stsp
from dsrecon.measures.chaos import VERDICTS, chaos_test
from dsrecon.measures.controls import controls
from dsrecon.measures.dimension import correlation_dimension
from dsrecon.measures.horizon import valid_prediction_time
from dsrecon.measures.lyapunov import kaplan_yorke, lyapunov_spectrum
from dsrecon.measures.mixture import d_stsp_mixture, d_transition
from dsrecon.measures.permutation import permutation_entropy
from dsrecon.measures.prediction import prediction_error
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, as_series
from dsrecon.systems import Henon, Lorenz63, ODECell, Roessler

LENGTHS = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
RUNS = (200, 1000, 5000)  # of forecasts and exponents, each compiled anew
NUMBER_LENGTHS = (1000, 5000)
LONGER = (50_000, 100_000)  # of bins in five variables, one stretch each
STRETCHES = 3
FACTOR = 5.0
CONTROLS = ("white", "constant", "shuffled")
STATES_ONLY = ("white", "constant")


def lorenz96(size: int, forcing: float = 8.0) -> ODECell:
    def field(x):
        return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + forcing

    return ODECell(field, 0.05, size, 2)


CELLS: dict[str, tuple[Any, Any, Any]] = {  # true cell, the same with a parameter off by 0.5 %, where to begin
    "Henon": (Henon().cell(), Henon(b=0.2985).cell(), Henon.start),
    "Lorenz63": (Lorenz63().cell(), Lorenz63(rho=28.14).cell(), Lorenz63.start),
    "Roessler": (Roessler().cell(), Roessler(c=5.7285).cell(), Roessler.start),
    **{
        f"Lorenz96-{n}": (lorenz96(n), lorenz96(n, 8.04), 8 + np.random.default_rng(n).normal(size=n))
        for n in (5, 10, 20)
    },
}
VIEWS = {1: ("Lorenz63", "Roessler", "Henon"), 2: ("Lorenz63", "Roessler", "Henon"), 3: ("Lorenz63", "Roessler")} | {
    n: (f"Lorenz96-{n}",) for n in (5, 10, 20)
}


EXCEPT = {("d_h", "Henon")}
"""Its spectrum is nearly flat: noise scores 4 to 5 times its floor at every length."""


def run(name: str) -> np.ndarray:
    cell, _, start = CELLS[name]
    steps = max(2 * STRETCHES * LENGTHS[-1], 2 * LONGER[-1]) + 1000
    return np.asarray(evolve(cell, jnp.asarray(start, dtype=float), steps=steps).zs)[1000:]


def binned(definition: str) -> Callable:
    def distance(true, other):
        mean, sd = true.mean(0), true.std(0, ddof=1)
        return d_stsp((true - mean) / sd, (other - mean) / sd, definition=definition)

    return distance


def settled(measure: Callable) -> Callable:
    """The value, or its noise where that is larger; in float32, which is faster and errs by less than its noise."""

    def distance(true, other):
        with jax.enable_x64(False):
            found = measure(true, other, samples=2000, points=10_000)
        return max(found.value, 2 * found.standard_error)

    return distance


BINNED = ("d_stsp", "d_stsp_padded", "d_stsp_two_sigma")
DISTANCES: dict[str, tuple[Callable, tuple[str, ...], tuple[int, ...]]] = {
    "d_stsp": (binned("min-max"), STATES_ONLY, (1, 2, 3, 5)),
    "d_stsp_padded": (binned("padded"), STATES_ONLY, (1, 2, 3, 5)),
    "d_stsp_two_sigma": (binned("two-sigma"), STATES_ONLY, (1, 2, 3, 5)),
    "d_stsp_mixture": (settled(d_stsp_mixture), STATES_ONLY, tuple(VIEWS)),
    "d_transition": (settled(d_transition), CONTROLS, tuple(VIEWS)),
    "d_h": (d_h, CONTROLS, tuple(VIEWS)),
}


def chaotic(values: np.ndarray) -> float:
    """1 where the verdict is chaos, 0 where it is another, or the series too short for one."""
    try:
        return float(chaos_test(values[:, 0], seed=0).verdict == VERDICTS[2])
    except ValueError:
        return 0.0


NUMBERS: dict[str, tuple[Callable, tuple[str, ...], tuple[int, ...]]] = {
    "correlation_dimension": (lambda x: correlation_dimension(x).dimension, ("white",), (3, 5)),
    "permutation_entropy": (lambda x: permutation_entropy(x[:, 0]), CONTROLS, (1,)),
    "chaos_test": (chaotic, ("shuffled",), (1,)),
}
"""A dimension where noise has none, and a verdict that is right of all, are told apart in words: `WORDS` times."""
WORDS = 1e6


def ratios(name: str, values: np.ndarray, length: int) -> dict[str, float]:
    """Control over good fit, each the median over the stretches."""
    compare, seen, _ = DISTANCES.get(name) or NUMBERS[name]
    found: dict[str, list[float]] = {c: [] for c in seen}
    once = length > LENGTHS[-1] or name == "chaos_test"  # which takes long
    stretches, stride = (1 if once else STRETCHES), max(length, LENGTHS[-1])
    for k in range(stretches):
        true, good = (values[(2 * k + j) * stride :][:length] for j in (0, 1))
        bad = controls(true, seed=k)
        if name in DISTANCES:
            floor = compare(true, good)
            for c in seen:
                found[c].append(compare(true, bad[c]) / max(floor, 1e-12))
        else:
            own, other = compare(true), compare(good)
            for c in seen:
                found[c].append(_told(own, other, compare(bad[c]), name == "chaos_test"))
    return {c: round(float(np.median(v)), 2) for c, v in found.items()}


def _told(own: float, good: float, bad: float, verdict: bool) -> float:
    """How much further a control's number is from the reference's than a good fit's."""
    if verdict:
        return WORDS if own == good == 1 and bad == 0 else 0.0
    if not np.isfinite([own, good]).all():
        return 0.0
    return min(WORDS, abs(bad - own) / max(abs(good - own), 1e-12)) if np.isfinite(bad) else WORDS


def model(name: str) -> Reconstruction:
    """The system itself with a parameter off, as if it were fitted."""
    cell, off, start = CELLS[name]
    n = cell.state_size
    one = Scaler(np.zeros(n), np.ones(n))
    names = tuple(f"x{i}" for i in range(n))
    readout = IdentityReadout(n, n, key=jax.random.key(0))
    return Reconstruction(off, readout, one, np.asarray(start, float), Clock(), names, ("",) * n)


def forecasts(name: str, values: np.ndarray, length: int) -> dict[str, dict[str, float]]:
    """Error of white noise and of a constant as forecasts, over that of a good fit; of the times its inverse."""
    fitted, found = model(name), {"pe_1": [], "pe_20": [], "vpt": []}
    for k in range(STRETCHES):
        true = values[2 * k * LENGTHS[-1] :][:length]
        series = as_series(true)
        for steps in (1, 20):
            good = prediction_error(fitted, series, steps=steps)
            found[f"pe_{steps}"].append([2 / good, 1 / good])  # of white noise, of the mean, in variances
        vpt = valid_prediction_time(fitted, series, steps=min(2000, length // 2))
        z = (true - true.mean(0)) / true.std(0, ddof=1)
        noise = np.random.default_rng(k).normal(size=z.shape)
        times = [_passing(z, guess, vpt.starts, int(vpt.limit)) for guess in (noise, np.zeros_like(z))]
        found["vpt"].append([vpt.median / t for t in times])
    return {m: dict(zip(STATES_ONLY, np.round(np.median(v, 0), 2).tolist(), strict=True)) for m, v in found.items()}


def _passing(z: np.ndarray, guess: np.ndarray, at: np.ndarray, steps: int) -> float:
    """Median step at which a guess `[t, n]` of the standardised truth has an error above .4."""
    passed = np.array([np.sqrt(((z[at + j] - guess[at + j]) ** 2).mean(1)) > 0.4 for j in range(1, steps + 1)])
    return float(np.median(np.where(passed.any(0), passed.argmax(0) + 1, steps)))


def exponents(name: str, values: np.ndarray, length: int) -> dict[str, dict[str, float]]:
    """How far a limit cycle (largest exponent 0, dimension 1) is, over the scatter of runs of that many steps."""
    cell = CELLS[name][0]
    starts = jnp.asarray(values[:: len(values) // 8][:8])
    spectra = np.asarray(jax.vmap(lambda z: lyapunov_spectrum(cell, z, steps=length, discard=200))(starts))
    largest, dimensions = spectra[:, 0], np.array([kaplan_yorke(s) for s in spectra])
    return {
        "lyapunov_max": {"cycle": round(float(largest.mean() / largest.std(ddof=1)), 2)},
        "kaplan_yorke": {"cycle": round(float((dimensions.mean() - 1) / dimensions.std(ddof=1)), 2)},
    }


def limit(rows: list[dict[str, Any]]) -> int | None:
    """The least length at which every system meets the factor, in the median from there on too; or `None`."""
    worst: dict[str, dict[int, float]] = {}
    for row in rows:
        worst.setdefault(row["system"], {})[row["length"]] = min(row["ratios"].values())
    lengths = sorted({row["length"] for row in rows})
    for length in lengths:
        if all(
            found[length] >= FACTOR and np.median([v for at, v in found.items() if at >= length]) >= FACTOR
            for found in worst.values()
        ):
            return length
    return None


def measure(part: str) -> list[dict[str, Any]]:
    rows = []
    offered = {"distances": DISTANCES, "numbers": NUMBERS, "forecasts": {}}[part]
    for name in CELLS:
        values = run(name)
        if part == "forecasts":
            for length in RUNS:
                found = forecasts(name, values, length) | exponents(name, values, length)
                if name == "Henon":  # 20 steps of it are 8 Lyapunov times: no model sees so far, at any length
                    del found["pe_20"]
                rows += [row(m, name, values.shape[1], length, r) for m, r in found.items()]
        for n in (n for n, systems in VIEWS.items() if name in systems):
            for m, (_, _, views) in offered.items():
                lengths = NUMBER_LENGTHS if part == "numbers" else LENGTHS
                lengths += LONGER if n == 5 and m in BINNED else ()
                if n in views and (m, name) not in EXCEPT:
                    rows += [row(m, name, n, length, ratios(m, values[:, :n], length)) for length in lengths]
        sys.stderr.write(f"{part}: {name} done\n")
        sys.stderr.flush()
    return rows


def row(measure: str, system: str, variables: int, length: int, found: dict[str, float]) -> dict[str, Any]:
    return {"measure": measure, "system": system, "variables": variables, "length": length, "ratios": found}


def main() -> None:
    jax.config.update("jax_enable_x64", True)  # a script of its own
    parts = [part for part in sys.argv[1:] or ["distances", "numbers", "forecasts"] if part != "limits"]
    out = Path(__file__).parent / "results" / "readable.json"
    kept = json.loads(out.read_text())["parts"] if out.exists() else {}
    kept |= {part: measure(part) for part in parts}
    rows = [row for part in ("distances", "numbers", "forecasts") for row in kept.get(part, [])]
    limits: dict[str, dict[int, int | None]] = {}
    for m in dict.fromkeys(row["measure"] for row in rows):
        own = [row for row in rows if row["measure"] == m]
        limits[m] = {n: limit([r for r in own if r["variables"] == n]) for n in sorted({r["variables"] for r in own})}
    sys.stdout.write(f"{'measure':<24}{'variables':>10}{'readable from':>15}\n")
    for m, found in limits.items():
        for n, length in found.items():
            sys.stdout.write(f"{m:<24}{n:>10}{length if length else 'never':>15}\n")
    about = {"python": platform.python_version(), "machine": platform.machine(), "jax": jax.__version__}
    out.write_text(json.dumps({"about": about, "factor": FACTOR, "limits": limits, "parts": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
