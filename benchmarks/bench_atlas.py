"""The smallest number of linear regions with which an AL-RNN is faithful to Lorenz-63 and to Roessler: seed atlases.

    python benchmarks/bench_atlas.py                 # both, on all cores
    python benchmarks/bench_atlas.py roessler        # this one anew, the other as it stands in the file

Each system is simulated (100,000 samples, no noise) and fitted with the settings below, all members in one call; noise
is on what the members are shown of the windows. All members are then scored against the whole series: a free run of
10,000 steps, in units of what true stretches of that length score (the floors). `seconds` is the wall time of
`seed_atlas` with compilation, `scored_seconds` that of the scoring after it. `smallest` is the run with the fewest
visited regions within two floors of the truth; `by_validation` the one that `Atlas.smallest()` chooses without it, with
its scores against the truth. Tables are kept in results/atlas.json, figures in docs/.
"""

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from dsrecon import plot, simulate
from dsrecon.reconstruct.atlas import Atlas, seed_atlas
from dsrecon.systems import Lorenz63, Roessler

SAMPLES, STEPS, FLOORS = 100_000, 10_000, 2.0
SYSTEMS = {"lorenz": Lorenz63, "roessler": Roessler}
SETTINGS: dict[str, dict[str, Any]] = {
    "lorenz": dict(
        state_size=20,
        pwl_units=(2, 3, 4),
        alphas=(0.05, 0.1),
        seeds=6,
        length=50,
        batch=16,
        noise=0.05,
        steps=30_000,
        learning_rate=(1e-2, 1e-4),
        key=0,
    ),
    "roessler": dict(
        state_size=20,
        pwl_units=(2, 3, 4),
        alphas=(0.05, 0.1, 0.2),
        seeds=6,
        length=100,
        batch=16,
        noise=0.05,
        steps=15_000,
        learning_rate=(1e-2, 1e-4),
        key=0,
    ),
}
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "atlas.json"


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(SYSTEMS))
    if unknown:
        raise SystemExit(f"systems are {sorted(SYSTEMS)}: got {unknown}.")
    for name in names or list(SYSTEMS):
        truth = simulate(SYSTEMS[name](), SAMPLES)
        begun = time.perf_counter()
        found = seed_atlas(truth, **SETTINGS[name])
        seconds = time.perf_counter() - begun
        against = found.against(truth, steps=STEPS)
        times = {"seconds": seconds, "scored_seconds": time.perf_counter() - begun - seconds}
        keep(name, SETTINGS[name], against, chosen(found), times)
        print(against.front[["regions", "floors"]].to_dataframe().to_string())


def chosen(found: Atlas) -> int | None:
    """The run that the atlas chooses, if it does."""
    within = found.within(FLOORS)["run"].values
    return int(within[0]) if len(within) else None


def keep(
    name: str, settings: dict[str, Any], against: Atlas, by_validation: int | None, times: dict[str, float]
) -> None:
    """Write the record of a system into the file, beside those of the others, and its figure."""
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    smallest = chosen(against)
    record[name] = {
        "settings": settings,
        **{k: round(v, 1) for k, v in times.items()},
        "updates_seconds": round(float(against.table.attrs["seconds"]), 1),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "versions": {k: version(k) for k in ("dsrecon", "jax", "equinox", "optax")},
        "floors": {k: against.table.attrs[f"{k}_floor"] for k in ("d_stsp", "d_h")},
        "smallest": None if smallest is None else rows(against.table.isel(run=[smallest]))[0],
        "by_validation": None if by_validation is None else rows(against.table.isel(run=[by_validation]))[0],
        "front": rows(against.front),
        "members": rows(against.table),
    }
    RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    plot.save(plot.pareto(against, floors=FLOORS), ROOT / "docs" / f"atlas-{name}.png")


def rows(table: xr.Dataset) -> list[dict[str, Any]]:
    """A record a run; a number that is not finite is `None`."""
    names = ("run", "P", "alpha", "seed", "regions", "regions_99", "floors", "d_stsp", "d_h", "d_stsp_floors")
    names += ("d_h_floors", "best_at", "failure")
    found = [{k: table[k].values[i].item() for k in names} for i in range(table.sizes["run"])]
    return [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()} for row in found]


if __name__ == "__main__":
    main(sys.argv[1:])
