"""One training update of every piecewise-linear cell at the sizes of its paper, against eager PyTorch.

    pip install -e '.[test]' torch
    pytest benchmarks/bench_cells.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/cells.json

Windows of T 200, batches of 16, RAdam, float32. Both compute the same loss (checked to 1e-5, with its gradients to
1e-3) and draw their windows from one series. Both forms are timed in turn, a round each, and the least of the rounds
counts: other work on the machine slows both. On a machine that others use

    taskset -c 0 python benchmarks/bench_cells.py [NAME ...]

compares processor time on one core instead, single runs, in `results/cells_one_core.json`; where JAX has a GPU the same
command (without `taskset`) compares on it, by the clock, both waited for, in `results/cells_device.json`. PyTorch is
eager, the best of one and two threads (here one). Times are a whole update and model: windows, forward, backward,
optimiser; compilation left out. The ratio and the load of the machine stand in `extra_info`.
"""

import json
import os
import sys
import time
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import versions
from eager import Eager

from dsrecon import Forced, IdentityReadout, LinearReadout, models
from dsrecon.training import Window, Windows, fit, gtf, of_batch, radam
from dsrecon.training.updates import Recipe, Run, compiled

T, B, RATE = 200, 16, 1e-3
UPDATES, ROUNDS = 200, 6

SPARSE, GENERALISED = {"interval": 16}, {"alpha": 0.3}
IDENTITY, LINEAR = (IdentityReadout, 3), (LinearReadout, 5)
CASES = {
    "AL-RNN M20 P2": (lambda key: models.ALRNN(20, 2, key=key), IDENTITY, SPARSE),
    "PLRNN M40": (lambda key: models.PLRNN(40, key=key), IDENTITY, SPARSE),
    "mean-centred M40": (lambda key: models.MeanCentredPLRNN(40, key=key), IDENTITY, SPARSE),
    "dendritic M22 B20": (lambda key: models.DendriticPLRNN(22, 20, key=key), IDENTITY, SPARSE),
    "clipped dendritic M22 B20": (lambda key: models.ClippedDendriticPLRNN(22, 20, key=key), IDENTITY, SPARSE),
    "shallow M3 H50": (lambda key: models.ShallowPLRNN(3, 50, key=key), IDENTITY, GENERALISED),
    "clipped shallow M3 H50": (lambda key: models.ClippedShallowPLRNN(3, 50, key=key), IDENTITY, GENERALISED),
    "shallow M5 H250": (lambda key: models.ShallowPLRNN(5, 250, key=key), LINEAR, GENERALISED),
    "clipped shallow M5 H250": (lambda key: models.ClippedShallowPLRNN(5, 250, key=key), LINEAR, GENERALISED),
}
"""Name to `(key -> cell, (readout, channels), forcing)`."""


@cache
def series(n: int) -> np.ndarray:
    """A smooth series that keeps every cell bounded: standardised sums of sines, and a little noise."""
    rng = np.random.default_rng(0)
    t = np.arange(100_000)[:, None, None]
    waves = np.sin(2 * np.pi * (t / rng.uniform(20, 200, (1, n, 4)) + rng.random((1, n, 4)))).sum(2)
    return ((waves + 0.1 * rng.normal(size=waves.shape)) / waves.std(0)).astype(np.float32)


def model(name, key):
    make, (readout, n), _ = CASES[name]
    cell_key, readout_key = jax.random.split(key)
    cell = make(cell_key)
    return Forced(cell, readout(n, cell.state_size, key=readout_key))


def eager(name):
    _, (_, n), forcing = CASES[name]
    return Eager(model(name, jax.random.key(0)), series(n), length=T, batch=B, rate=RATE, **forcing)


def ours(name, runs):
    """A function that trains `UPDATES` updates and gives the seconds of it, compilation left out."""
    _, (_, n), forcing = CASES[name]
    keys = jax.random.split(jax.random.key(0), runs)
    starts = eqx.filter_vmap(lambda key: model(name, key))(keys)
    sampler, loss = Windows(jnp.asarray(series(n)), length=T, batch=B), gtf(**forcing)

    def train():
        optimiser = radam(RATE, RATE, UPDATES)
        _, history = fit(starts, loss, sampler, optimiser, steps=UPDATES, every=UPDATES, key=keys)
        assert (history.failed_at < 0).all()
        return history.seconds

    return train


@pytest.mark.parametrize("name", CASES)
def test_equal_loss(name):
    reference, (_, (_, n), forcing) = eager(name), CASES[name]
    x = series(n)[: B * (T + 1)].reshape(B, T + 1, n)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def value_and_grad(start):
        return gtf(**forcing)(start, None, Window(jnp.asarray(x), jnp.asarray(x)), jax.random.key(0))[0]

    value, gradient = value_and_grad(reference.start)
    theirs = reference.loss(reference.torch.tensor(x))
    assert abs(float(value) - theirs.item()) < 1e-5 * abs(theirs.item())
    theirs.backward()
    for module, parameters in ((gradient.cell, reference.cell), (gradient.readout, reference.readout)):
        for field, parameter in parameters.items():
            found, wanted = np.asarray(getattr(module, field)), parameter.grad
            wanted = np.zeros_like(found) if wanted is None else wanted.numpy()
            np.testing.assert_allclose(
                found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max(initial=0), err_msg=field
            )


@pytest.mark.parametrize("runs", [1, 8])
@pytest.mark.parametrize("name", CASES)
def test_update(benchmark, name, runs):
    train, reference = ours(name, runs), eager(name)
    measured, eagerly = [], []
    benchmark.pedantic(
        lambda: measured.append(train()),
        setup=lambda: eagerly.extend(reference.seconds(4, threads) for threads in (1, 2)),
        rounds=ROUNDS,
        iterations=1,
    )
    each = min(measured) / UPDATES / runs
    benchmark.extra_info |= {
        "case": f"{name}, {'single' if runs == 1 else f'ensemble of {runs}'}",
        "ms_per_update_and_model": 1e3 * each,
        "pytorch_eager_ms_per_update": 1e3 * min(eagerly),
        "times_faster": min(eagerly) / each,
        "load_average": os.getloadavg()[0],
    }


def in_turn(name: str, clock, updates: int = 50, rounds: int = 8) -> dict[str, float | str]:
    """Time of an update by `clock`, ours and eager PyTorch's, the least of rounds in turn."""
    _, (_, n), forcing = CASES[name]
    reference, keys = eager(name), jax.random.split(jax.random.key(0), 1)
    reference.torch.set_num_threads(1)
    free, static = eqx.partition(eqx.filter_vmap(lambda key: model(name, key))(keys), eqx.is_inexact_array)
    fixed, static = eqx.partition(static, eqx.is_array)
    optimiser, sampler = radam(RATE, RATE, updates), Windows(jnp.asarray(series(n)), length=T, batch=B)
    start = Run(free, eqx.filter_vmap(optimiser.init)(free), None, keys, jnp.full(1, -1, jnp.int32))
    recipe = Recipe(static, gtf(**forcing), sampler, optimiser, None, of_batch)
    program = compiled(updates, (start, fixed), recipe)

    def seconds(work, count):
        begun = clock()
        work()
        return (clock() - begun) / count

    def theirs():
        for _ in range(3):
            reference.update()
        if reference.torch.get_default_device().type == "cuda":
            reference.torch.cuda.synchronize()

    both = [
        (seconds(lambda: jax.block_until_ready(program(start, fixed, 0)), updates), seconds(theirs, 3))
        for _ in range(rounds + 1)
    ]
    ours, eagerly = np.min(both[1:], axis=0).tolist()
    found = {"ms_per_update": 1e3 * ours, "pytorch_eager_ms_per_update": 1e3 * eagerly, "times_faster": eagerly / ours}
    return {"case": name, **found, "load_average": os.getloadavg()[0]}


def main() -> None:
    on_gpu = jax.default_backend() == "gpu"
    path = Path(__file__).parent / "results" / ("cells_device.json" if on_gpu else "cells_one_core.json")
    if on_gpu:
        import torch

        torch.set_default_device("cuda")
    rows = {row["case"]: row for row in json.loads(path.read_text())["cells"]} if path.exists() else {}
    for name in sys.argv[1:] or CASES:
        rows[name] = in_turn(name, time.perf_counter if on_gpu else time.process_time)
        print(rows[name], flush=True)
        found = {"machine": versions(), "cells": [rows[known] for known in CASES if known in rows]}
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
