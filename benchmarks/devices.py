"""One device against several: the figures of `docs/devices.md`.

    python benchmarks/devices.py OUT.json [ensemble] [scan] [newton] [--devices N] [--small]

One line a result: milliseconds on one device and on N (default: all of this process), how many times faster, and how
far the results are from those of one device (largest difference over the largest value). Calls follow one another
without being waited for, in rounds, one device and several in turn; medians of the rounds. Compilation is left out and
told.

- `ensemble`: an update of 1,024 AL-RNNs (M 20, P 2, T 200, B 16), and of as many clipped shallow PLRNNs (M 3, H 50),
  by `fit(devices=...)`.
- `scan`: `linear_scan` of 8,000,000 steps of 32, 128 and 256 diagonals in float32, forward and with gradient.
  `forgets`: slopes between .9 and .999; `keeps`: slopes of 1, whose product never vanishes.
- `newton`: a clipped shallow PLRNN (M 3, H 50), forced with alpha .3 towards a noisy Lorenz-63 series of 2,000,000
  steps, forward and with gradient.

`--small`: sizes for a CPU, which show that it runs and is right, not how fast; with devices made up by
`XLA_FLAGS=--xla_force_host_platform_device_count=2`.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from newton_device import lorenz_like

from dsrecon.evolve import evolve
from dsrecon.kernels import Sharded, linear_scan
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.newton import Newton
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.training import Windows, fit, gtf, radam

ROUNDS, CALLS = 7, 12


def prepared(function, *given):
    """A compiled call, what it gives, and the seconds of compilation."""
    begun = time.perf_counter()
    program = jax.jit(function).lower(*given).compile()
    compiling = time.perf_counter() - begun
    return lambda: program(*given), jax.block_until_ready(program(*given)), compiling


def in_turn(*calls) -> list[float]:
    """Milliseconds of a call of each."""
    found = []
    for _ in range(ROUNDS):
        row = []
        for call in calls:
            jax.block_until_ready(call())
            begun = time.perf_counter()
            for _ in range(CALLS):
                out = call()
            jax.block_until_ready(out)
            row.append(1e3 * (time.perf_counter() - begun) / CALLS)
            del out
        found.append(row)
    return np.median(found, 0).tolist()


def apart(one, several) -> float:
    """The largest difference of two trees over the largest value, leaf by leaf; on the device of the first."""

    def far(x, y):
        y = jax.device_put(y, x.sharding)
        return float(jnp.max(jnp.abs(x - y)) / jnp.maximum(jnp.max(jnp.abs(x)), jnp.finfo(x.dtype).tiny))

    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True)
    return max(far(x, y) for x, y in pairs if x.size and jnp.issubdtype(x.dtype, jnp.inexact))


def compared(report, name: str, one_function, function, given, sharded: Sharded, placed) -> None:
    """One device against several; `placed`: whether an argument has time as its first axis."""
    everywhere = NamedSharding(sharded.mesh, PartitionSpec())
    spread = [jax.device_put(x, sharded.placement if cut else everywhere) for x, cut in zip(given, placed, strict=True)]
    one_call, one, one_compile = prepared(one_function, *given)
    call, several, compile_s = prepared(function, *spread)
    far = apart(one, several)
    del one, several
    one_ms, ms = in_turn(one_call, call)
    report(
        name,
        {"one_ms": one_ms, "several_ms": ms, "times": one_ms / ms, "apart": far},
        {"one_compile_s": one_compile, "several_compile_s": compile_s},
    )


def ensemble(report, devices, sharded, small):
    for name, cell, size, loss in (
        ("AL-RNN M20", lambda key: ALRNN(20, 2, key=key), 20, gtf(interval=16)),
        ("shallow M3 H50", lambda key: ClippedShallowPLRNN(3, 50, key=key), 3, gtf(0.3)),
    ):
        ensemble_of(report, devices, small, name, cell, size, loss)


def ensemble_of(report, devices, small, name, cell, size, loss):
    runs, chunk = (8, 4) if small else (1024, 250)
    keys = jax.random.split(jax.random.key(0), runs)

    def make(key):
        one, other = jax.random.split(key)
        return Forced(cell(one), IdentityReadout(3, size, key=other))

    models = eqx.filter_vmap(make)(keys)
    sampler = Windows(lorenz_like(2_000 if small else 100_000), length=200, batch=16)

    def train(devices):
        ends = []

        def evaluate(models):
            ends.append(time.perf_counter())
            return {"score": np.zeros(len(jax.tree.leaves(models)[0]))}

        _, history = fit(
            models, loss, sampler, radam(1e-3, 1e-3, 1_000), steps=(2 if small else 6) * chunk, every=chunk,
            key=keys, devices=devices, evaluate=evaluate, progress=False,
        )  # fmt: skip
        groups = np.sort(np.array(ends)).reshape(-1, len(devices))  # a chunk ends when its last group has
        return 1e3 * float(np.median(np.diff(groups[:, -1]))) / chunk, history

    one_ms, one = train(devices[:1])
    ms, several = train(devices)
    first = slice(0, 100)
    report(
        f"ensemble of {runs} {name}",
        {"one_ms": one_ms, "several_ms": ms, "times": one_ms / ms,
         "apart": float(np.max(np.abs(one.loss[first] - several.loss[first]) / np.abs(one.loss[first])))},
        {"one_compile_s": one.compile_seconds, "several_compile_s": several.compile_seconds},
    )  # fmt: skip


def scan(report, devices, sharded, small):
    for m in (4,) if small else (256, 128, 32):
        scan_of(report, sharded, 20_000 if small else 8_000_000, m)


def scan_of(report, sharded, steps, m):

    @jax.jit
    def make(low, high):
        one, two = jax.random.split(jax.random.key(0))
        a = jax.random.uniform(one, (steps, m), jnp.float32, low, high)
        return a, 0.01 * jax.random.normal(two, (steps, m), jnp.float32)

    def forward(engine):
        return lambda a, b: linear_scan(a, b, engine=engine)

    def gradient(engine):
        return jax.value_and_grad(lambda a, b: jnp.mean(linear_scan(a, b, engine=engine) ** 2), (0, 1))

    for kind, (low, high) in {"forgets": (0.9, 0.999), "keeps": (1.0, 1.0)}.items():
        given = make(low, high)
        for name, function in (("forward", forward), ("gradient", gradient)):
            compared(
                report, f"scan {steps} x {m} {kind} {name}", function("auto"), function(sharded), given, sharded, (1, 1)
            )
        del given


def newton(report, devices, sharded, small):
    steps = 2_000 if small else 2_000_000
    key = jax.random.key(1)
    model = Forced(ClippedShallowPLRNN(3, 50, key=key), IdentityReadout(3, 3, key=key))
    free, static = eqx.partition(model, eqx.is_inexact_array)
    x = lorenz_like(steps)
    given = (free, x[0], Forcing(x[:-1], jnp.full(steps, 0.3)))

    def forward(engine):
        def run(free, z0, s):
            found = evolve(eqx.combine(free, static), z0, s, solver=Newton(engine=engine), throw=False)
            return found.zs, found.stats["iterations"]

        return run

    def gradient(engine):
        def loss(free, z0, s):
            zs, iterations = forward(engine)(free, z0, s)
            return jnp.mean(zs**2), iterations

        return jax.value_and_grad(loss, has_aux=True)

    for name, function in (("forward", forward), ("gradient", gradient)):
        compared(report, f"newton {steps} {name}", function("auto"), function(sharded), given, sharded, (0, 0, 1))


def main() -> None:
    parts = {"ensemble": ensemble, "scan": scan, "newton": newton}
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--small", action="store_true")
    told = parser.parse_args()
    if wrong := set(told.parts) - parts.keys():
        parser.error(f"parts are {', '.join(parts)}: got {', '.join(sorted(wrong))}")
    devices = jax.local_devices()[: told.devices]
    if len(devices) < 2:
        parser.error(f"two devices are needed: there are {len(devices)}")
    mesh = jax.sharding.Mesh(np.array(devices), ("time",), axis_types=(AxisType.Auto,))
    rows: dict[str, Any] = {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "jax": jax.__version__,
        "command": " ".join(["python benchmarks/devices.py", *sys.argv[2:]]),
    }

    def report(name, row, more):
        rows[name] = row | more
        print(name, {k: float(f"{v:.4g}") for k, v in rows[name].items()}, flush=True)
        told.out.write_text(json.dumps(rows, indent=1) + "\n")

    for name in told.parts or parts:
        begun = time.perf_counter()
        try:
            parts[name](report, devices, Sharded(mesh, "time"), told.small)
        except Exception as error:  # one that fails must not cost the others
            print(name, "failed:", repr(error)[:2000], flush=True)
        print(f"{name}: {time.perf_counter() - begun:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
