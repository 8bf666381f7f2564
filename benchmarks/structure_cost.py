"""What the search for cycles costs, complete and by the heuristic, against the number of gates P and the period k.

    python benchmarks/structure_cost.py

AL-RNNs of 20 units (30 where P is 30) with random parameters, float64. `complete`: `cycles(cell, k)`, all periods up to
k, the fastest of three calls, compilation left out; `loop`: a plain loop in NumPy over the same words in the same run
(over the first 2,000 of the last period), which solves `(I - M) z = c` and looks where the points lie, one word after
the other. `heuristic`: `find_cycles(cell, k)` with its 2,000 tries a period, and how much of the complete list it found
where there is one. `refused`: what `cycles` says of the cell with 2^30 regions. Kept in `results/structure.json` with
the load of the machine; figure `docs/structure-costs.png`.
"""

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from conftest import versions
from matplotlib.figure import Figure

from dsrecon.analysis import cycles, find_cycles
from dsrecon.models import ALRNN
from dsrecon.pwl import pieces, regions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "structure.json"
UNITS, LOOPED = 20, 2000
GATES = ((1, 1), (2, 1), (4, 1), (6, 1), (8, 1), (10, 1), (12, 1), (14, 1))
PERIODS = ((2, 2), (2, 3), (2, 4), (2, 5), (2, 6), (4, 2), (4, 3), (4, 4), (6, 2), (6, 3))
HEURISTIC = ((4, 3), (8, 1), (12, 1), (20, 4), (30, 1), (30, 2), (30, 3), (30, 4))


def cell_of(P: int) -> ALRNN:
    """An AL-RNN with `P` gates, its matrices of spectral radius about one, so that regions differ in stability."""
    rng, m = np.random.default_rng(P), max(UNITS, P)
    new = (rng.uniform(0, 0.6, m), 0.9 / np.sqrt(m) * rng.normal(size=(m, m)), rng.normal(size=m))
    cell = ALRNN(m, P, key=jax.random.key(0))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, tuple(jnp.asarray(x, jnp.float32) for x in new))


def loop(cell: ALRNN, k: int, most: int = LOOPED) -> tuple[int, float, int]:
    """The first `most` words of period `k`, one by one: how many, seconds, and how many cycles were real."""
    found = pieces(cell)
    letters = regions(found)
    A, h = found.affine(letters)
    real = count = 0
    begun = time.perf_counter()
    for word in itertools.product(range(len(letters)), repeat=k):
        if any(word[t:] + word[:t] <= word for t in range(1, k)):
            continue
        M, c = np.eye(cell.state_size), np.zeros(cell.state_size)
        for i in word:
            M, c = A[i] @ M, A[i] @ c + h[i]
        z, inside = np.linalg.solve(np.eye(cell.state_size) - M, c), True
        for i in word:
            inside = inside and bool((found.bits(z) == letters[i]).all())
            z = A[i] @ z + h[i]
        np.linalg.eigvals(M) if inside else None
        real, count = real + inside, count + 1
        if count == most:
            break
    return count, time.perf_counter() - begun, real


def best(call: Callable[[], Any], rounds: int = 3) -> tuple[Any, float]:
    """What a call gives, and the least of the seconds it takes."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begun)
    return result, min(seconds)


def complete(P: int, k: int) -> dict[str, Any]:
    cell = cell_of(P)
    cycles(cell, 1)
    found, seconds = best(lambda: cycles(cell, k), 3 if P * k < 14 else 1)
    words = sum(found.certificate.solved.values())
    count, looped, real = loop(cell, k)
    if count == found.certificate.solved[k] and real != len(found.of_period(k)):
        raise RuntimeError(
            f"P={P}, k={k}: the loop has {real} cycles of this period, cycles {len(found.of_period(k))}."
        )
    return {
        "P": P,
        "k": k,
        "words": words,
        "seconds": seconds,
        "words_per_second": words / seconds,
        "loop_words_per_second": count / looped,
        "cycles": len(found),
    }


def heuristic(P: int, k: int) -> dict[str, Any]:
    cell = cell_of(P)
    find_cycles(cell, 1, tries=10)
    begun = time.perf_counter()
    found = find_cycles(cell, k)
    seconds = time.perf_counter() - begun
    row = {"P": P, "k": k, "seconds": seconds, "words": sum(found.certificate.solved.values()), "cycles": len(found)}
    return row | ({"of": len(cycles(cell, k))} if 2 ** (P * k) < 1 << 22 else {})


def refused(P: int = 30) -> str:
    try:
        cycles(cell_of(P), 1)
    except ValueError as error:
        return str(error)
    raise RuntimeError(f"cycles went through a cell with {P} gates.")


def drawn(record: dict[str, Any]) -> None:
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    gates, periods, rate = figure.subplots(1, 3)
    done, guessed = record["complete"], record["heuristic"]
    one = [r for r in done if r["k"] == 1]
    gates.semilogy([r["P"] for r in one], [r["seconds"] for r in one], "o-", color="#0072B2", label="complete")
    tried = [r for r in guessed if r["k"] == 1]
    gates.semilogy([r["P"] for r in tried], [r["seconds"] for r in tried], "s--", color="#D55E00", label="heuristic")
    for P, colour in ((2, "#0072B2"), (4, "#E69F00"), (6, "#009E73")):
        rows = [r for r in done if r["P"] == P]
        periods.semilogy([r["k"] for r in rows], [r["seconds"] for r in rows], "o-", color=colour, label=f"P = {P}")
    rows = [r for r in guessed if r["P"] == 30]
    periods.semilogy(
        [r["k"] for r in rows], [r["seconds"] for r in rows], "s--", color="#D55E00", label="heuristic, P = 30"
    )
    rows = sorted(done, key=lambda r: r["words"])
    rate.loglog([r["words"] for r in rows], [r["words_per_second"] for r in rows], "o", color="#0072B2", label="cycles")
    rate.loglog(
        [r["words"] for r in rows], [r["loop_words_per_second"] for r in rows], "x", color="#777777", label="plain loop"
    )
    gates.set(title="fixed points", xlabel="gates P", ylabel="seconds")
    periods.set(title="cycles up to period k", xlabel="k", ylabel="seconds")
    rate.set(title="speed", xlabel="words", ylabel="words a second")
    for ax in (gates, periods):
        ax.set_ylim(1e-3, 300)
    for ax in (gates, periods, rate):
        ax.title.set_fontsize(10)
        ax.legend(frameon=False, fontsize=8, loc="lower right" if ax is rate else "upper left")
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs" / "structure-costs.png", dpi=100)


def main() -> None:
    load = os.getloadavg()[0]
    record: dict[str, Any] = {"machine": versions(), "load_before": load, "complete": [], "heuristic": []}
    for P, k in (*GATES, *PERIODS):
        record["complete"].append(complete(P, k))
        print(record["complete"][-1], flush=True)
    for P, k in HEURISTIC:
        record["heuristic"].append(heuristic(P, k))
        print(record["heuristic"][-1], flush=True)
    record |= {"refused": refused(), "load_after": os.getloadavg()[0]}
    RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    drawn(record)


if __name__ == "__main__":
    main()
