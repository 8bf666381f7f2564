"""The engines of `linear_scan` side by side: every structure, several lengths, forward and with gradient.

    pip install -e '.[test]'
    pytest benchmarks/bench_scan.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/scan.json

float32, on the device that JAX chooses. `extra_info` has the bytes that must move (forward: `a` and `b` read once, `h`
written once; with gradient: `a` read twice and its gradient written, `b` read and its gradient written, `h` written and
read twice, its cotangent read), the share of this machine's copy bandwidth that this is (measured here, read plus
write), the memory that the compiled program asks for beside its arguments and results, and the time relative to the
loop, measured in the same run. Cases with arguments above
`DSRECON_BENCH_BYTES` (default 1e9) are left out.
"""

import functools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.kernels import linear_scan

LIMIT = float(os.environ.get("DSRECON_BENCH_BYTES", 1e9))
SECONDS = 0.1
ENGINES = ("sequential", "auto", "chunked", "associative")
STRUCTURES = {
    "scalar": lambda m: (),
    "diagonal": lambda m: (m,),
    "blocks": lambda m: (2, 2, m // 2),
    "dense": lambda m: (m, m),
}
SHAPES = [
    (structure, steps, m)
    for structure in STRUCTURES
    for steps, m in ((100, 4), (10_000, 4), (1_000_000, 4), (100_000 if structure != "dense" else 10_000, 64))
] + [("dense", 1_000_000, 3), ("dense", 100_000, 64)]


def problem(structure, steps, m):
    """Slopes whose products shrink, so that no engine meets infinity."""
    shape = STRUCTURES[structure](m)
    key, other = jax.random.split(jax.random.key(0))
    scale = {"dense": 0.9 / m, "blocks": 0.45}.get(structure, 0.9)
    return scale * jax.random.uniform(key, (steps, *shape), minval=-1.0), jax.random.normal(other, (steps, m))


@functools.cache
def bandwidth() -> float:
    """Bytes a second of a copy of 256 MB, read plus written, the best of ten; on a CPU into memory already there."""
    x = np.ones(64 * 2**20, np.float32)
    if jax.default_backend() == "cpu":
        y, times = x.copy(), []
        for _ in range(10):
            begun = time.perf_counter()
            np.copyto(y, x)
            times.append(time.perf_counter() - begun)
        return 2 * x.nbytes / min(times)
    x = jnp.asarray(x)
    copy = jax.jit(jnp.negative).lower(x).compile()
    return 2 * x.nbytes / min(seconds(copy, x) for _ in range(10))


def seconds(program, *x) -> float:
    """The best of as many runs as fit `SECONDS`, two at least."""
    jax.block_until_ready(program(*x))
    begun, best, runs = time.perf_counter(), np.inf, 0
    while runs < 2 or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(program(*x))
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def compiled(engine, gradient, a, b):
    run = functools.partial(linear_scan, engine=engine)
    if gradient:

        def with_gradient(a, b, h_bar):
            h, pull = jax.vjp(run, a, b)
            return h, *pull(h_bar)

        return jax.jit(with_gradient).lower(a, b, b).compile(), (a, b, b)
    return jax.jit(run).lower(a, b).compile(), (a, b)


@functools.cache
def loop_seconds(structure, steps, m, gradient):
    program, arguments = compiled("sequential", gradient, *problem(structure, steps, m))
    return seconds(program, *arguments)


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("structure", "steps", "m"), SHAPES)
def test_scan(benchmark, structure, steps, m, engine, gradient):
    if 4.0 * steps * (np.prod(STRUCTURES[structure](m)) + m) > LIMIT:
        pytest.skip("larger than DSRECON_BENCH_BYTES")
    a, b = problem(structure, steps, m)
    program, arguments = compiled(engine, gradient, a, b)
    loop = loop_seconds(structure, steps, m, gradient)
    measured = []
    benchmark.pedantic(lambda: measured.append(seconds(program, *arguments)), rounds=1, iterations=1)
    best = min(measured)
    moved = 3 * a.nbytes + 6 * b.nbytes if gradient else a.nbytes + 2 * b.nbytes
    benchmark.extra_info |= {
        "case": f"{structure} t={steps} m={m} {engine} {'gradient' if gradient else 'forward'}",
        "platform": jax.default_backend(),
        "ms": 1e3 * best,
        "megabytes_that_must_move": moved / 1e6,
        "share_of_copy_bandwidth": moved / best / bandwidth(),
        "copy_gigabytes_a_second": bandwidth() / 1e9,
        "temporary_megabytes": program.memory_analysis().temp_size_in_bytes / 1e6,
        "times_faster_than_the_loop": loop / best,
    }
