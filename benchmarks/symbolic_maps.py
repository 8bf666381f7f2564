"""Symbols of maps whose entropy is known, and of fitted ones: bounds, exact values, estimates, beside the exponents.

    python benchmarks/symbolic_maps.py                     # all of it
    python benchmarks/symbolic_maps.py tents planar        # these parts anew, the others as they stand in the file
    python benchmarks/symbolic_maps.py fits --models DIR   # the fits are kept in DIR, and read from there when they are

- `tents`: exact entropies of the full, the golden-mean and a skew tent, by Markov partitions and by kneading; and the
  bounds from admissible words of 1 to 16 letters.
- `planar`: words with x > 0 of the Henon and Lozi maps, seen in an orbit of 10^6 steps; of Lozi the certified bounds
  beside them, of the orbits that stay in a box around the attractor.
- `fits`: AL-RNNs of Lorenz-63 (sparse forcing, the paper's windows) and Roessler: several seeds, of which that with the
  best score on the validation stretch is kept. Regions, and entropies of words of runs per unit of time of a free run
  of `STEPS` steps, beside the exponents of the same model.

Results, with the seconds that each part took, go to results/symbolic_maps.json.
"""

import json
import math
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsrecon import encode, evolve, simulate, symbolic
from dsrecon.measures import affine_exponents
from dsrecon.reconstruct.atlas import seed_atlas
from dsrecon.reconstruction import Reconstruction, load
from dsrecon.systems import Henon, Lorenz63, Lozi, Roessler, SkewTent, Tent

OUT = Path(__file__).parent / "results" / "symbolic_maps.json"
GOLDEN = (1 + 5**0.5) / 2
UNIT = ([0.0], [1.0])
CORE = ([GOLDEN * (1 - GOLDEN / 2)], [GOLDEN / 2])
LOZI = ([-1.5, -0.8], [1.5, 0.8])
"""A box that holds the attractor of the Lozi map."""
LONGEST, STEPS = 16, 2_000_000
TENTS = {
    "full": (Tent(), UNIT, math.log(2)),
    "golden mean": (Tent(GOLDEN), CORE, math.log(GOLDEN)),
    "skew": (SkewTent(), UNIT, math.log(2)),
}
FITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lorenz": (
        Lorenz63,
        dict(pwl_units=(2,), interval=16, seeds=8, length=200, steps=20_000, learning_rate=(5e-3, 1e-4)),
    ),
    "roessler": (
        Roessler,
        dict(pwl_units=(1, 2), alphas=(0.05, 0.1, 0.2), seeds=5, length=100, steps=15_000, learning_rate=(1e-2, 1e-4)),
    ),
    "roessler, two regions": (
        Roessler,
        dict(pwl_units=(1,), alphas=(0.05, 0.1, 0.2), seeds=5, length=100, steps=15_000, learning_rate=(1e-2, 1e-4)),
    ),
}


def tents() -> dict[str, Any]:
    found = {}
    for name, (cell, box, exact) in TENTS.items():
        partition = symbolic.markov_partition(cell, box)
        table = symbolic.entropy_bounds(cell, LONGEST, box=box)
        found[name] = {
            "topological, known": exact,
            "topological, Markov": partition.entropy,
            "topological, kneading": symbolic.kneading(cell, UNIT).entropy,
            "metric, known": cell.exponents[0],
            "metric, Markov": partition.metric_entropy,
            **{key: table[key].values.tolist() for key in ("words", "undecided", "per_symbol", "block")},
        }
    return found


def planar() -> dict[str, Any]:
    found: dict[str, Any] = {"steps": 1_000_000}
    for name, system in (("henon", Henon()), ("lozi", Lozi())):
        orbit = evolve(system.cell(), jnp.array(system.start), steps=1_001_000).zs
        table = symbolic.seen_words((np.asarray(orbit)[1000:, 0] > 0).astype(int), LONGEST)
        words, length = table["words"].values, table["length"].values
        used = (length >= 6) & (length <= 12)
        found[name] = {
            "words seen": words.tolist(),
            "seen once": table["once"].values.tolist(),
            "per symbol": table["per_symbol"].values.tolist(),
            "increments": table["increment"].values.tolist(),
            "slope, lengths 6 to 12": float(np.polyfit(length[used], np.log(words[used]), 1)[0]),
            "largest exponent": system.exponents[0],
        }
    table = symbolic.entropy_bounds(Lozi(), 14, box=LOZI)
    found["lozi"]["certified"] = {key: table[key].values.tolist() for key in ("words", "per_symbol", "block")}
    return found


def fits(models: Path | None) -> dict[str, Any]:
    return {name: coded(fitted(name, models)) for name in FITS}


def fitted(name: str, models: Path | None) -> Reconstruction:
    """The run with the best score on the validation stretch."""
    kept = None if models is None else models / f"{name.replace(', ', '-').replace(' ', '-')}.eqx"
    if kept is not None and kept.is_file():
        return load(kept)
    system, settings = FITS[name]
    with jax.enable_x64(False):  # as fits are made, unless told
        atlas = seed_atlas(simulate(system(), 100_000), state_size=20, batch=16, noise=0.05, key=0, **settings)
        best = int(atlas.table["run"][int(np.nanargmin(atlas.table["score"].values))])
        model = atlas.reconstruction(best)
    if kept is not None:
        model.save(kept)
    return model


def coded(model: Reconstruction) -> dict[str, Any]:
    encoded = encode(model, steps=STEPS, discard=1000)
    stays = symbolic.run_lengths(encoded)
    dt = model.clock.time_step
    exponents = np.asarray(affine_exponents(model.cell, model.start(), steps=500_000, dt=dt))[:3]
    found: dict[str, Any] = {
        "regions": encoded.sizes["region"],
        "shares": (encoded["visits"].values / STEPS).tolist(),
        "means": encoded["mean"].values.tolist(),
        "mean stays": stays["mean"].values.tolist(),
        "exits": symbolic.transitions(encoded, self_transitions=False).values.tolist(),
        "exponents": exponents.tolist(),
    }
    codings = {"order of regions": [], "turns counted": symbolic.gap_edges(encoded)}
    for name, edges in codings.items():
        rate = symbolic.entropy_rate(symbolic.dwell_words(encoded, edges=edges))
        found[name] = {
            "nats per unit of time": [rate.rate_per_time, rate.low_per_time, rate.high_per_time],
            "over the largest exponent": rate.rate_per_time / float(exponents[0]),
            "runs": rate.steps,
            "order": rate.order,
        }
    return found


def main() -> None:
    jax.config.update("jax_enable_x64", True)  # a script of its own
    arguments = sys.argv[1:]
    models = None
    if "--models" in arguments:
        at = arguments.index("--models")
        models = Path(arguments[at + 1])
        del arguments[at : at + 2]
    parts = {"tents": tents, "planar": planar, "fits": lambda: fits(models)}
    kept = json.loads(OUT.read_text()) if OUT.is_file() else {}
    for name in arguments or parts:
        begun = time.perf_counter()
        kept[name] = parts[name]()
        kept.setdefault("seconds", {})[name] = round(time.perf_counter() - begun, 1)
        print(name, json.dumps(kept[name], indent=1))
    kept["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}"
    kept["versions"] = {package: version(package) for package in ("jax", "numpy", "scipy", "networkx")}
    OUT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
