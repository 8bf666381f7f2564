"""Can a layer learn to wait? Band-limited noise, to be given back 1,000 steps later, by LSSL, S4 and a GRU.

    python benchmarks/delay.py

The input is a sum of 40 cosines with random phases and frequencies of up to 5 cycles in 1,000 steps, of variance one;
sequences of 3,000 steps, 8 at a time, drawn anew at every update; the loss is the squared error of the last 2,000. One
channel of 64 states in all layers: LSSL (HiPPO-LegT, fixed; what is trained is C, D and the step) and S4 (LegT, all
trained). Steps start log-uniform between 1/1200 and 1/1000. The GRU has 64 units, so 12,800 parameters where the others
have 66 and 388, and a linear readout; it is given a quarter of the updates, which take it longer, at two rates. Adam,
the rate falling to zero along a cosine. Told is the root mean square error on new sequences in standard deviations: 1
is what silence scores.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from conftest import versions

from dsrecon import evolve
from dsrecon.models import GRU, LSSL, S4
from dsrecon.training import fit

RESULTS = Path(__file__).parent / "results" / "delay.json"
DELAY, LENGTH, CYCLES, BATCH, SIZE = 1000, 3000, 5, 8, 64
KEY = jax.random.key(0)


def draw(key, length: int = LENGTH):
    frequency, phase = jax.random.uniform(key, (2, 40, 1))
    t = jnp.arange(length)[None]
    return jnp.sum(jnp.cos(2 * jnp.pi * (CYCLES / DELAY * frequency * t + phase)), 0) * (2 / 40) ** 0.5


def batch(key):
    return jax.vmap(draw)(jax.random.split(key, BATCH))


class Layered(eqx.Module):
    layer: Any

    def __call__(self, u):
        return self.layer(u[:, None])[:, 0]


class Gated(eqx.Module):
    cell: GRU
    w: jax.Array
    b: jax.Array

    def __init__(self, key):
        self.cell, self.w, self.b = GRU(SIZE, input_size=1, key=key), jnp.zeros(SIZE), jnp.zeros(())

    def __call__(self, u):
        return evolve(self.cell, jnp.zeros(SIZE), u[:, None], throw=False).zs @ self.w + self.b


def error(model, u):
    return jnp.mean((jax.vmap(model)(u)[:, DELAY:] - u[:, :-DELAY]) ** 2)


def loss(model, state, u, key):
    return error(model, u), (state, {})


def groups(rate: float, steps: int):
    """Of layers: what makes the dynamics is trained at a thousandth of the rate."""

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "dynamics" if any(str(p).strip(".") in S4.dynamics for p in path) else "rest", params
        )

    def adam(rate):
        return optax.adam(optax.cosine_decay_schedule(rate, steps))

    return optax.multi_transform({"rest": adam(rate), "dynamics": adam(rate / 1000)}, labels)


def run(name: str, model, optimiser, steps: int) -> dict[str, Any]:
    begun = time.perf_counter()
    model, history = fit(model, loss, batch, optimiser, steps=steps, key=KEY, every=max(steps // 20, 1), progress=False)
    seconds = time.perf_counter() - begun
    test = jax.vmap(draw)(jax.random.split(jax.random.key(99), 32))
    off = float(jnp.sqrt(eqx.filter_jit(error)(model, test)))
    last = history.loss[-100:].mean() ** 0.5
    found = {"rms": off, "last training rms": float(last), "updates": steps, "seconds": round(seconds, 1)}
    print(name, found, flush=True)
    return found


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    near = {"measure": "legt", "step_min": 1 / 1200, "step_max": 1 / 1000}
    out: dict[str, Any] = {
        "LSSL": run("LSSL", Layered(LSSL(1, SIZE, **near, key=KEY)), groups(1.0, steps), steps),
        "S4": run("S4", Layered(S4(1, SIZE, **near, key=KEY)), groups(1.0, steps), steps),
    }
    few = max(steps // 4, 1)
    for rate in (1e-2, 3e-3):
        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, few)))
        out[f"GRU, rate {rate:g}"] = run(f"GRU {rate:g}", Gated(KEY), optimiser, few)
    out["machine"] = {**versions(), "load": os.getloadavg()[0]}
    RESULTS.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
