"""The structure of fitted maps: the complete search for cycles beside a plain loop, the heuristic, exponents, families.

    pytest benchmarks/bench_structure.py -n 0 --benchmark-enable --benchmark-json=FILE

AL-RNNs of `structure_cost.py`, which measures the cost against gates and periods and keeps it in
`results/structure.json`. Compilation is left out; `extra_info` has the words a second of both forms and the load.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from structure_cost import best, cell_of, loop, refused

from dsrecon.analysis import cycles, find_cycles
from dsrecon.analysis.bifurcation import continuation
from dsrecon.measures import lyapunov_spectrum
from dsrecon.measures.lyapunov import affine_exponents
from dsrecon.models import ALRNN
from dsrecon.systems import Lozi


@pytest.mark.parametrize("P, k", [(2, 6), (4, 3), (10, 1)])
def test_complete(benchmark, P, k):
    cell = cell_of(P)
    cycles(cell, 1)
    found = benchmark.pedantic(lambda: cycles(cell, k), rounds=3)
    words = sum(found.certificate.solved.values())
    count, seconds, _ = loop(cell, k)
    benchmark.extra_info |= {
        "words_per_second": words / benchmark.stats.stats.min if benchmark.stats else None,
        "loop_words_per_second": count / seconds,
        "load_average": os.getloadavg()[0],
    }


def test_heuristic_where_the_complete_search_refuses(benchmark):
    assert "find_cycles" in refused(30)
    cell = cell_of(30)
    find_cycles(cell, 1, tries=10)
    found = benchmark.pedantic(lambda: find_cycles(cell, 4), rounds=1)
    assert not found.certificate.complete
    if benchmark.stats:
        assert benchmark.stats.stats.max < 60
    benchmark.extra_info |= {"cycles": len(found), "load_average": os.getloadavg()[0]}


def test_exponents(benchmark):
    """10^4 steps of an AL-RNN of 20 units: affine pieces beside forward mode, in turn."""
    cell, z = ALRNN(20, 2, key=jax.random.key(0)), jnp.full(20, 0.1)
    pair = [lambda f=f: f(cell, z, steps=10_000).block_until_ready() for f in (affine_exponents, lyapunov_spectrum)]
    for f in pair:
        f()
    forward = []
    benchmark.pedantic(pair[0], setup=lambda: forward.append(best(pair[1], 1)[1]), rounds=6)
    benchmark.extra_info |= {"forward_mode_seconds": min(forward), "load_average": os.getloadavg()[0]}


def test_continuation(benchmark):
    """Lozi's map over 60 values, periods up to 5."""
    values = np.linspace(0.5, 1.7, 60)
    found = benchmark.pedantic(lambda: continuation(lambda a: Lozi(a=a, b=0.3), values, 5), rounds=1)
    benchmark.extra_info |= {"events": len(found.events), "load_average": os.getloadavg()[0]}
