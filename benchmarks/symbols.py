"""Statistics of symbol sequences: do the intervals cover, is the test of two sequences calibrated, what does each cost.

    python benchmarks/symbols.py coverage    # 100 records of 10^4 symbols of processes whose entropies are known
    python benchmarks/symbols.py calibration # 200 pairs of stretches of one process, and pairs of two: `same_process`
    python benchmarks/symbols.py model       # Lorenz-63 against fitted models and against planted bad ones
    python benchmarks/symbols.py cost        # seconds and peak memory of every statistic on 10^7 symbols
    python benchmarks/symbols.py cost coin   # the same, of one sequence anew

Kept in `results/symbols.json`, each part with the load of the machine. Every cost is measured in a process of its own:
`seconds` by the clock, `processor_seconds` of all its threads, `peak_gb` the greatest resident memory of the process,
its sequence and the libraries in it.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import versions

from dsrecon import symbolic

RESULTS = Path(__file__).with_name("results") / "symbols.json"
STEPS, RECORDS, PAIRS, LARGE = 10_000, 100, 200, 10**7
LN2 = float(np.log(2))
GOLDEN = np.array([[0.5, 0.5], [1.0, 0.0]])
PARRY = np.array([[2 / (1 + 5**0.5), 1 - 2 / (1 + 5**0.5)], [1.0, 0.0]])
CHAIN = np.array([[0.95, 0.05, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 0.8]])
OTHER = np.array([[0.93, 0.07, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 0.8]])
STICKY = np.array([[0.99, 0.01], [0.01, 0.99]])


def chains(P: np.ndarray, many: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Markov chains `[many, steps]`, the first 1,000 steps left out."""
    cumulative, state, out = np.cumsum(P, axis=1), np.zeros(many, int), np.empty((steps, many), int)
    for t in range(-1000, steps):
        state = (rng.random(many)[:, None] > cumulative[state]).sum(1)
        out[max(t, 0)] = state
    return out.T


def even(many: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    state = chains(GOLDEN, many, steps + 1, rng)
    return ((state[:, 1:] == 1) | (state[:, :-1] == 1)).astype(int)


def lorenz(many: int, steps: int, rng: np.random.Generator, rho: float = 28.0) -> np.ndarray:
    """Lorenz-63 at steps of 0.01, by fourth-order Runge-Kutta: `[many, steps, 3]`."""

    def f(v: np.ndarray) -> np.ndarray:
        return np.stack([10 * (v[1] - v[0]), v[0] * (rho - v[2]) - v[1], v[0] * v[1] - 8 / 3 * v[2]])

    v, h, out = np.array([1.0, 1.0, 20.0])[:, None] + rng.normal(size=(3, many)), 0.01, np.empty((steps, 3, many))
    for t in range(-2000, steps):
        k1 = f(v)
        k2 = f(v + h / 2 * k1)
        k3 = f(v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(v + h * k3))
        out[max(t, 0)] = v
    return out.transpose(2, 0, 1)


def wing(v: np.ndarray) -> np.ndarray:
    return (v[..., 0] > 0).astype(int)


def four(v: np.ndarray) -> np.ndarray:
    """Wing and height."""
    return wing(v) + 2 * (v[..., 2] > 25)


def entropy(p: float) -> float:
    return float(-p * np.log(p) - (1 - p) * np.log(1 - p))


def coverage() -> list[dict[str, Any]]:
    def coin(p: float) -> Callable:
        return lambda many, steps, rng: (rng.random((many, steps)) < p).astype(int)

    def chain(P: np.ndarray) -> Callable:
        return lambda many, steps, rng: chains(P, many, steps, rng)

    parry = float(np.log((1 + 5**0.5) / 2))
    visits = 1 - 1 / (1 + PARRY[0, 1])  # of 1, about 0.276
    processes = {
        "golden mean": (chain(GOLDEN), 2 / 3 * LN2, entropy(1 / 3) - 2 / 3 * LN2),
        "even": (even, 2 / 3 * LN2, entropy(1 / 3)),
        "biased coin (0.7)": (coin(0.7), entropy(0.7), 0.0),
        "fair coin": (coin(0.5), LN2, 0.0),
        "golden mean, greatest entropy": (chain(PARRY), parry, entropy(visits) - parry),
    }
    rows = []
    for name, (process, rate, excess) in processes.items():
        records = process(RECORDS, STEPS, np.random.default_rng(0))
        found = [symbolic.entropy_rate(x) for x in records]
        stored = [symbolic.excess_entropy(x) for x in records]
        rates = np.array([e.rate for e in found])
        rows.append(
            {
                "process": name,
                "rate": rate,
                "covered": sum(e.low <= rate <= e.high for e in found),
                "mean": float(rates.mean()),
                "sd": float(rates.std()),
                "half_width": float(np.mean([e.high - e.low for e in found]) / 2),
                "order": float(np.median([e.order for e in found])),
                "excess": excess,
                "excess_mean": float(np.mean([e.value for e in stored])),
                "excess_covered": sum(e.low - 1e-12 <= excess <= e.high for e in stored),
                "records": RECORDS,
            }
        )
        print(rows[-1], flush=True)
    return rows


def calibration() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    few = 40

    def stretches(P: np.ndarray) -> Callable:
        return lambda many, steps: chains(P, many, steps, rng)

    def coded(code: Callable, rho: float = 28.0) -> Callable:
        return lambda many, steps: code(lorenz(many, steps, rng, rho))

    def three(many: int, steps: int) -> np.ndarray:
        return rng.integers(0, 3, (many, steps))

    cases = [
        ("three symbols, independent", PAIRS, 3000, three, three),
        ("Markov chain", PAIRS, 5000, stretches(CHAIN), stretches(CHAIN)),
        ("Markov chain, dwells of 100", PAIRS, 5000, stretches(STICKY), stretches(STICKY)),
        ("even process", PAIRS, 5000, lambda m, n: even(m, n, rng), lambda m, n: even(m, n, rng)),
        ("Lorenz-63, wing", PAIRS, STEPS, coded(wing), coded(wing)),
        ("Lorenz-63, wing and height", PAIRS, STEPS, coded(four), coded(four)),
        ("Markov chain, 0.95 / 0.93", few, 5000, stretches(CHAIN), stretches(OTHER)),
        ("Lorenz-63, wing and height, rho 28 / 27", few, STEPS, coded(four), coded(four, 27.0)),
        ("Lorenz-63, wing and height, rho 28 / 30", few, STEPS, coded(four), coded(four, 30.0)),
        ("Lorenz-63, wing and height, rho 28 / 32", few, STEPS, coded(four), coded(four, 32.0)),
    ]
    rows = []
    for name, pairs, steps, one, other in cases:
        found = [
            symbolic.same_process(x, y, permutations=199)
            for x, y in zip(one(pairs, steps), other(pairs, steps), strict=True)
        ]
        p = np.array([r.p_value for r in found])
        shares = {f"at_{level}": float((p <= level).mean()) for level in (0.05, 0.1, 0.5)}
        blocks = float(np.median([r.blocks_a for r in found]))
        rows.append({"pair": name, "pairs": pairs, "steps": steps, **shares, "blocks": blocks})
        print(rows[-1], flush=True)
    return rows


def model() -> list[dict[str, Any]]:
    from dsrecon import reconstruct, simulate
    from dsrecon.systems import Lorenz63

    each, many = 20_000, 10

    def code(series: Any) -> np.ndarray:
        return symbolic.code_thresholds(series, [[0.0], [], [25.0]])["symbol"].values

    def against(name: str, truth: np.ndarray, run: np.ndarray, about: dict[str, Any]) -> dict[str, Any]:
        found = [symbolic.same_process(x, y) for x, y in zip(truth, run.reshape(many, each), strict=True)]
        whole = symbolic.same_process(truth.ravel(), run)
        row = {
            "against": name,
            "p_values": sorted(r.p_value for r in found),
            "rejected": sum(r.p_value <= 0.05 for r in found),
            "distance": float(np.mean([r.distance for r in found])),
            "floor": float(np.mean([r.floor for r in found])),
            "whole_p_value": whole.p_value,
            "whole_distance": whole.distance,
            "whole_floor": whole.floor,
            **about,
        }
        print(row, flush=True)
        return row

    data = simulate(Lorenz63(), 100_000)
    coded = code(simulate(Lorenz63(), 2 * each * many))
    truth = coded[: each * many].reshape(many, each)
    rows = [against("another true stretch", truth, coded[each * many :], {})]
    for name, updates in (("a good fit", 15_000), ("a fit of 300 updates", 300)):
        begun = time.perf_counter()
        fitted = reconstruct(data, runs=4, steps=updates, threads=1, progress=False)
        score = float(fitted.runs["score"].min())
        about = {"updates": updates, "score": score, "fit_seconds": time.perf_counter() - begun}
        rows.append(against(name, truth, code(fitted.simulate(each * many, discard=1000)), about))
    wrong = code(lorenz(1, each * many, np.random.default_rng(2), rho=30.0)[0])
    rows.append(against("Lorenz-63 with rho 30", truth, wrong, {}))
    return rows


SEQUENCES = ("coin", "lorenz")
CALLS = {
    "dwell_times": lambda x: symbolic.dwell_times(x),
    "run_lengths": lambda x: symbolic.run_lengths(x),
    "transitions": lambda x: symbolic.transitions(x),
    "edges": lambda x: symbolic.symbols.edges(x),
    "word_counts, length 10": lambda x: symbolic.word_counts(x, 10),
    "block_entropies, to 12": lambda x: symbolic.block_entropies(x, 12),
    "entropy_rate": lambda x: symbolic.entropy_rate(x),
    "excess_entropy": lambda x: symbolic.excess_entropy(x),
    "forbidden_words, to 8": lambda x: symbolic.forbidden_words(x, 8),
    "dwell_words": lambda x: symbolic.dwell_words(x),
    "merge": lambda x: symbolic.merge(x, [[0, 1]]),
    "compare_codings": lambda x: symbolic.compare_codings(x, x[::-1]),
    "same_process": lambda x: symbolic.same_process(x[: LARGE // 2], x[LARGE // 2 :]),
}
CODINGS = {
    "code_thresholds": lambda v: symbolic.code_thresholds(v[:, 0], [0.0]),
    "code_ordinal, order 5": lambda v: symbolic.code_ordinal(v[:, 0], 5, 10),
    "code_kmeans, 4 of 3 variables": lambda v: symbolic.code_kmeans(v, 4),
}


def sequence(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "coin":
        return rng.integers(0, 2, LARGE)
    v = lorenz(1000, LARGE // 1000, rng)
    return v.reshape(-1, 3) if kind == "states" else four(v).ravel()


def cost(*kinds: str) -> list[dict[str, Any]]:
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    rows = []
    for kind in kinds or (*SEQUENCES, "states"):
        file = folder / f"symbols-{os.getpid()}-{kind}.npy"
        subprocess.run([sys.executable, __file__, "make", kind, str(file)], check=True)
        for name in CODINGS if kind == "states" else CALLS:
            command = [sys.executable, __file__, "one", name, str(file)]
            told = subprocess.run(command, capture_output=True, text=True)
            measured = json.loads(told.stdout) if told.returncode == 0 else {"failed": told.stderr[-300:]}
            rows.append({"sequence": kind, "call": name, **measured})
            print(rows[-1], flush=True)
        file.unlink()
    return rows


def one(name: str, file: str) -> None:
    x = np.load(file)
    begun, used = time.perf_counter(), time.process_time()
    (CALLS | CODINGS)[name](x)
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "processor_seconds": processor, "peak_gb": peak, "load": os.getloadavg()[0]}))


def main(part: str, *kinds: str) -> None:
    before = os.getloadavg()[0]
    rows = {"coverage": coverage, "calibration": calibration, "model": model, "cost": cost}[part](*kinds)
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    record["machine"] = versions()
    kept = record.get(part, {}).get("rows", []) if kinds else []
    rows = [row for row in kept if row["sequence"] not in kinds] + rows
    record[part] = {"load_before": before, "load_after": os.getloadavg()[0], "rows": rows}
    RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "one":
        one(*sys.argv[2:])
    elif sys.argv[1] == "make":
        np.save(sys.argv[3], sequence(sys.argv[2]))
    else:
        main(*sys.argv[1:])
