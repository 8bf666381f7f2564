"""Newton-parallel solving against the loop on an accelerator: the figures of `docs/parallel.md`.

    python benchmarks/newton_device.py OUT.json [shallow] [gru] [para]

All in full float32, forward and with gradient, in one run; medians of repeated calls, compilation left out.

- `shallow`: a clipped shallow PLRNN M3 H50, forced with alpha .3 towards a noisy Lorenz-63 series, one run of T steps.
  The loop is timed at T = 10^4 and 10^5, and scaled from there to 10^6. `temp_mb`: what the compiled program needs
  beside its arguments and results.
- `gru`: a GRU of n units driven by noise, a batch of 16, T = 10^4, forward.
- `para`: ParaGRU, batch 8, T = 16,384, D = 1,024 units, driven by noise at its gates; gradient by parameters and
  inputs.
"""

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon.cell import AbstractCell
from dsrecon.evolve import Sequential, evolve
from dsrecon.models import GRU, ClippedShallowPLRNN, ParaGRU
from dsrecon.newton import Newton
from dsrecon.readout import Forced, Forcing, IdentityReadout

jax.config.update("jax_default_matmul_precision", "highest")

LOOP = Sequential(engine="loop")
"""The loop as XLA compiles it, not as one kernel, which `Sequential()` would be on a GPU."""


def timed(function, *given, repeats: int) -> dict[str, float]:
    """Median seconds of a compiled call, and the megabytes that it needs."""
    program = jax.jit(function).lower(*given).compile()
    memory = program.memory_analysis()
    jax.block_until_ready(program(*given))
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(program(*given))
        found.append(time.perf_counter() - begun)
    return {"ms": 1e3 * float(np.median(found)), "temp_mb": memory.temp_size_in_bytes / 2**20}


def both(solver, static, steps, by_inputs=False):
    """`(forward, with gradient)` as functions of `(parameters, z0, inputs)`."""

    def forward(free, z0, s):
        run = evolve(eqx.combine(free, static), z0, s, steps=steps, solver=solver, throw=False)
        return run.zs, run.stats

    def gradient(free, z0, s):
        def loss(free):
            zs, stats = forward(free, z0, s)
            return jnp.mean(zs**2), stats

        return jax.value_and_grad(loss, has_aux=True)(free)

    def gradient_by_inputs(free, z0, s):
        def loss(free, s):
            zs, stats = forward(free, z0, s)
            return jnp.mean(zs**2), stats

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(free, s)

    if by_inputs:
        return forward, gradient_by_inputs
    return forward, gradient


def lorenz_like(steps: int) -> jax.Array:
    """Standardised Lorenz-63 at dt = .01 with 5 % noise, by Euler's method in the loop of the device."""

    def step(z, _):
        x, y, w = z
        z = z + 0.01 * jnp.stack([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w])
        return z, z

    x = jax.jit(lambda z: jax.lax.scan(step, z, None, length=min(steps, 100_000) + 1)[1])(jnp.array([1.0, 1.0, 20.0]))
    x = jnp.tile(x, (-(-steps // 100_000), 1))[: steps + 1]
    x = (x - x.mean(0)) / x.std(0)
    return x + 0.05 * jax.random.normal(jax.random.key(0), x.shape)


def shallow(report):
    key = jax.random.key(1)
    model = Forced(ClippedShallowPLRNN(3, 50, key=key), IdentityReadout(3, 3, key=key))
    free, static = eqx.partition(model, eqx.is_inexact_array)
    loops = {}
    for steps in (10_000, 100_000, 1_000_000):
        x = lorenz_like(steps)
        s = Forcing(x[:-1], jnp.full(steps, 0.3))
        names = ("forward", "gradient")
        for name, newton, loop in zip(names, both(Newton(), static, steps), both(LOOP, static, steps), strict=True):
            if steps <= 100_000:
                loops[name] = timed(loop, free, x[0], s, repeats=3 if steps < 100_000 else 1) | {"at": steps}
            found = timed(newton, free, x[0], s, repeats=15)
            stats = jax.jit(newton)(free, x[0], s)[1 if name == "forward" else 0]
            stats = stats if name == "forward" else stats[1]
            scaled = loops[name]["ms"] * steps / loops[name]["at"]
            report(
                f"shallow T={steps} {name}", found | {"iterations": int(stats["iterations"]), "residual":
                float(stats["residual"]), "loop_ms": scaled, "loop_temp_mb": loops[name]["temp_mb"], "times_faster":
                scaled / found["ms"]},
            )  # fmt: skip


def gru(report):
    steps, batch = 10_000, 16
    for n in (2, 4, 8, 16, 32):
        cell = GRU(n, input_size=n, key=jax.random.key(n))
        free, static = eqx.partition(cell, eqx.is_inexact_array)
        z0, s = jnp.zeros((batch, n)), jax.random.normal(jax.random.key(0), (batch, steps, n))
        forward, _ = both(Newton(), static, steps)
        found = timed(forward, free, z0, s, repeats=7)
        iterations = int(jax.jit(forward)(free, z0, s)[1]["iterations"].max())
        loop = timed(both(LOOP, static, steps)[0], free, z0, s, repeats=2)
        report(
            f"gru n={n}",
            found | {"iterations": iterations, "loop_ms": loop["ms"], "loop_temp_mb": loop["temp_mb"],
                     "times_faster": loop["ms"] / found["ms"]},
        )  # fmt: skip


class Driven(AbstractCell):
    """A ParaGRU whose input is what its gates are given, `[3 m]`: the product with the input's weights, made before."""

    cell: ParaGRU

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def given(self, s):
        return eqx.tree_at(lambda cell: cell.h, self.cell, self.cell.h + s)

    def __call__(self, z, s=None):
        return self.given(s)(z)

    def linearise(self, z, s=None):
        return self.given(s).linearise(z)


def para(report):
    steps, batch, size = 16_384, 8, 1_024
    cell = Driven(ParaGRU(size, key=jax.random.key(0)))
    parameters, rest = eqx.partition(cell, eqx.is_inexact_array)
    solvers = {"converged": Newton(), "3 iterations": Newton(max_iterations=3)}
    for name, solver in solvers.items():
        z0, s = jnp.zeros((batch, size)), jax.random.normal(jax.random.key(0), (batch, steps, 3 * size))
        for which, function in zip(("forward", "gradient"), both(solver, rest, steps, True), strict=True):
            found = timed(function, parameters, z0, s, repeats=7)
            out = jax.jit(function)(parameters, z0, s)
            stats = out[1] if which == "forward" else out[0][1]
            report(
                f"para {name} {which}",
                found | {"iterations": int(stats["iterations"].max()), "residual": float(stats["residual"].max())},
            )
            del out


def main() -> None:
    out, names = Path(sys.argv[1]), sys.argv[2:] or ["shallow", "gru", "para"]
    device = jax.devices()[0]
    rows = {"device": device.device_kind, "jax": jax.__version__, "command": " ".join(sys.argv)}

    def report(name, row):
        rows[name] = row
        print(name, {k: round(v, 4) for k, v in row.items()}, flush=True)
        out.write_text(json.dumps(rows, indent=1) + "\n")

    for name in names:
        try:
            {"shallow": shallow, "gru": gru, "para": para}[name](report)
        except Exception as error:  # one that fails must not cost the others
            report(f"{name} failed", {})
            print(repr(error)[:2000], flush=True)


if __name__ == "__main__":
    main()
