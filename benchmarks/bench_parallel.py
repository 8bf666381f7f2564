"""One long run on a CPU, by the loop and by the solvers that find its steps at once: forward, and with gradient.

    pytest benchmarks/bench_parallel.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/parallel.json

Cells forced towards noise at alpha .3, float32, one run of T steps; the gradient is by parameters, start and inputs.
The least of the rounds counts. `times_faster` in `extra_info` is against the loop, timed in turn; `difference` is how
far the states are from the loop's at most.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from dsrecon import Forced, Forcing, IdentityReadout, Newton, Sequential, Shooting, evolve
from dsrecon.models import ALRNN, ClippedShallowPLRNN

CELLS = {
    "clipped shallow M3 H50": lambda key: ClippedShallowPLRNN(3, 50, key=key),
    "AL-RNN M20 P2": lambda key: ALRNN(20, 2, key=key),
}
SOLVERS = {"Shooting": Shooting(), "Newton": Newton()}
ROUNDS = 6


def problem(name: str, steps: int):
    cell = CELLS[name](jax.random.key(0))
    model = Forced(cell, IdentityReadout(3, cell.state_size, key=jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (steps, 3))
    return model, model.readout.start(x[0]), Forcing(x, jnp.full(steps, 0.3))


def programs(solver, static):
    @jax.jit
    def forward(free):
        return evolve(*eqx.combine(free, static), solver=solver, throw=False).zs

    return forward, jax.jit(jax.grad(lambda free: jnp.mean(forward(free) ** 2)))


def seconds(function, *given) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(function(*given))
    return time.perf_counter() - begun


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [10_000, 100_000])
@pytest.mark.parametrize("cell", CELLS)
def test_long_run(benchmark, cell, steps, solver, gradient):
    free, static = eqx.partition(problem(cell, steps), eqx.is_inexact_array)
    found, loop = (programs(by, static) for by in (SOLVERS[solver], Sequential()))
    difference = float(jnp.abs(found[0](free) - loop[0](free)).max())
    ours, theirs, looped = found[gradient], loop[gradient], []
    seconds(ours, free)
    seconds(theirs, free)
    benchmark.pedantic(
        lambda: jax.block_until_ready(ours(free)),
        setup=lambda: looped.append(seconds(theirs, free)),
        rounds=ROUNDS,
        iterations=1,
    )
    least = benchmark.stats.stats.min
    benchmark.extra_info |= {
        "case": f"{cell}, T {steps:,}, {solver}, {'with gradient' if gradient else 'forward'}",
        "ms": 1e3 * least,
        "loop_ms": 1e3 * min(looped),
        "times_faster": min(looped) / least,
        "difference": difference,
    }
    assert difference < 1e-3
