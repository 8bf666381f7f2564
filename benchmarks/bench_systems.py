"""`reconstruct` with no options at all, on systems that its defaults were tuned on (Lorenz) and others.

    pip install -e '.[test]' dysts
    pytest benchmarks/bench_systems.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/systems.json

Each series is fitted as a user would, and scored against the noise-free truth: every score and its floor stand in
`extra_info`. The systems of dysts (Gilpin 2021) are sampled 60 times in their dominant period, 30,000 samples, without
noise; Lorenz and Roessler have 100,000 samples and 5 % noise.
"""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dsrecon import reconstruct, score, simulate
from dsrecon.measures import records
from dsrecon.series import Clock, labelled
from dsrecon.systems import Lorenz63, Roessler

SAMPLES = 30_000


def known(system):
    return simulate(system, 100_000), simulate(system, 100_000, noise=0.05, key=jax.random.key(0))


def of_dysts(name):
    flows = pytest.importorskip("dysts.flows", reason="dysts is not installed: pip install dysts")
    system = getattr(flows, name)()
    dt = system.period / 60
    times = dt * np.arange(2000, SAMPLES + 2000)
    run = solve_ivp(
        lambda t, x: np.array(system.rhs(x, t)),
        (0, times[-1]),
        np.array(system.ic, float),
        t_eval=times,
        rtol=1e-8,
        atol=1e-8,
    )
    series = labelled(run.y.T, [f"x{i}" for i in range(len(run.y))], Clock(dt))
    return series, series


CASES = {
    "Lorenz63": lambda: known(Lorenz63()),
    "Roessler": lambda: known(Roessler()),
    "Halvorsen": lambda: of_dysts("Halvorsen"),
    "SprottB": lambda: of_dysts("SprottB"),
    "Thomas": lambda: of_dysts("Thomas"),
}


@pytest.mark.parametrize("name", CASES)
def test_no_options(benchmark, name):
    truth, data = CASES[name]()
    kept = []
    benchmark.pedantic(lambda: kept.append(reconstruct(data)), rounds=1, iterations=1)
    table = score(kept[0], truth)
    rows = {r["measure"]: r for r in records(table)}
    benchmark.extra_info |= {
        "system": name,
        "failed": table.attrs["reason"],
        "d_stsp_over_floor": rows["d_stsp"]["value"] / rows["d_stsp"]["floor"],
        "settings": {k: v["value"] for k, v in kept[0].settings.items()},
        "scores": list(rows.values()),
    }
