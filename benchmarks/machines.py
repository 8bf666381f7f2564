"""Coverage of the intervals of `dsrecon.symbolic.epsilon_machine`, its number of states, and its cost on long
sequences.

    python benchmarks/machines.py --replicates 100 --steps 10000 --long 10000000 --out benchmarks/results/machines.json

Processes with known machines. Of each, `replicates` sequences of `steps` symbols (seeds 0, 1, ...): how many of the
95 % intervals of statistical complexity and entropy rate hold the truth, and how many machines have the right number
of states. The first three are those that the intervals are made for; the others show where the reconstruction is
weak. `long`: sequences of that many symbols,
each in a process of its own: seconds, processor seconds, and the largest memory of the process.
"""

import argparse
import json
import os
import resource
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from dsrecon.symbolic import Machine, biased_coin, epsilon_machine, even, golden_mean

HALF = (0.5, 0.5)
LONG = ("even", "20 symbols, independent", "20 symbols that stay 12.5 steps")
CASES = {
    "golden mean, 1/2": golden_mean(),
    "even, 1/2": even(),
    "biased coin, 0.3": biased_coin(0.3),
    "even, 0.3": even(0.3),
    "golden mean, 0.9": golden_mean(0.9),
    "period 3": Machine((0, 1, 2), ((1, -1, -1), (-1, 2, -1), (-1, -1, 0)), ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
    "two coins in turn, 0.2 and 0.7": Machine((0, 1), ((1, 1), (0, 0)), ((0.8, 0.2), (0.3, 0.7))),
    "random, random, exclusive or": Machine(
        (0, 1), ((1, 2), (3, 4), (4, 3), (0, -1), (-1, 0)), (HALF, HALF, HALF, (1, 0), (0, 1))
    ),
}


def holds(estimate, truth: float) -> bool:
    return estimate.low - 1e-12 <= truth <= estimate.high + 1e-12


def measure(machine: Machine, replicates: int, steps: int) -> dict:
    complexity = rate = 0
    states, histories = Counter(), Counter()
    begun = time.process_time()
    for seed in range(replicates):
        found = epsilon_machine(machine.sample(steps, seed=seed))
        complexity += holds(found.statistical_complexity, machine.statistical_complexity)
        rate += holds(found.entropy_rate, machine.entropy_rate)
        states[found.machine.states] += 1
        histories[found.history] += 1
    return {
        "states": machine.states,
        "statistical_complexity": machine.statistical_complexity,
        "entropy_rate": machine.entropy_rate,
        "covered_complexity": complexity,
        "covered_rate": rate,
        "right_states": states[machine.states],
        "found_states": dict(sorted(states.items())),
        "histories": dict(sorted(histories.items())),
        "processor_seconds": (time.process_time() - begun) / replicates,
    }


def long_sequence(name: str, steps: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if name == "even":
        return even().sample(steps, seed=0)
    if name == "20 symbols, independent":
        return rng.integers(0, 20, steps)
    runs = rng.geometric(0.08, steps // 10)  # "20 symbols that stay 12.5 steps"
    return np.repeat(rng.integers(0, 20, len(runs)), runs)[:steps]


def cost(name: str, steps: int) -> dict:
    symbols = long_sequence(name, steps)
    begun, used = time.perf_counter(), time.process_time()
    found = epsilon_machine(symbols)
    return {
        "steps": len(symbols),
        "states": found.machine.states,
        "seconds": time.perf_counter() - begun,
        "processor_seconds": time.process_time() - used,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "load": os.getloadavg()[0],
    }


def apart(name: str, steps: int) -> dict:
    """`cost` in a process of its own, so that its peak of memory is."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost, name, steps).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = {
        "replicates": given.replicates,
        "steps": given.steps,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "long": {name: apart(name, given.long) for name in LONG},
        "cases": {},
    }
    for name, machine in CASES.items():
        results["cases"][name] = measure(machine, given.replicates, given.steps)
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
