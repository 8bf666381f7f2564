"""Lorenz-63 with missing observations against the complete series: same samples, same seeds, no options.

    pytest benchmarks/bench_gaps.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/gaps.json

100,000 samples with 5 % observation noise, scored against the noise-free truth.

- `complete`: every observation.
- `scattered`: 30 % of all observations (each variable by itself) missing at random.
- `gaps`: gaps of 50 samples, all variables at once, one after each 117 samples: 30 % of the series.
- `both`: the one on top of the other: half of all observations are left.

`ratio` in `extra_info` is `d_stsp` over that of the complete series.
"""

import jax
import numpy as np
import pytest

from dsrecon import reconstruct, score, simulate
from dsrecon.measures import records
from dsrecon.systems import Lorenz63

SAMPLES = 100_000
FOUND: dict[str, float] = {}


def missing(kind: str) -> np.ndarray:
    scattered = np.random.default_rng(0).random((SAMPLES, 3)) < 0.3
    gaps = np.broadcast_to((np.arange(SAMPLES) % 167 >= 117)[:, None], scattered.shape)
    return {
        "complete": np.zeros_like(scattered),
        "scattered": scattered,
        "gaps": gaps,
        "both": scattered | gaps,
    }[kind]


@pytest.mark.parametrize("kind", ["complete", "scattered", "gaps", "both"])
def test_missing_observations(benchmark, kind):
    truth = simulate(Lorenz63(), SAMPLES)
    data = simulate(Lorenz63(), SAMPLES, noise=0.05, key=jax.random.key(0))
    data = data.where(~missing(kind))
    kept = []
    benchmark.pedantic(lambda: kept.append(reconstruct(data)), rounds=1, iterations=1)
    model = kept[0]
    table = score(model, truth)
    rows = {r["measure"]: r for r in records(table)}
    FOUND[kind] = rows["d_stsp"]["value"]
    losses = np.asarray(model.runs["loss"].values)
    benchmark.extra_info |= {
        "kind": kind,
        "observed": float(1 - missing(kind).mean()),
        "failed": table.attrs["reason"],
        "stopped_at": [int(v) for v in model.runs["stopped_at"].values],
        "losses": [float(v) for v in losses],
        "d_stsp": FOUND[kind],
        "ratio": FOUND[kind] / FOUND["complete"] if "complete" in FOUND else None,
        "scores": list(rows.values()),
    }
    assert np.isfinite(losses).all()
