# %% [markdown]
# # Long sequences
#
# A neuron of Hindmarsh and Rose bursts: spikes last a few units of time, a burst some hundred, and what ends a burst
# is a slow variable. Training windows of 200 steps see a spike or two; windows of 10,000 see several bursts.
# `Shooting` runs blocks of a window at once, on a CPU too, and `Newton` finds all its steps at once, on an accelerator.
# Here both lengths are trained, and compared.

# %%
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from dsrecon import (
    Auto,
    ClippedShallowPLRNN,
    Forced,
    Forcing,
    Newton,
    Sequential,
    Shooting,
    evolve,
    plot,
    reconstruct,
    score,
    simulate,
)
from dsrecon.systems import HindmarshRose

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
samples, long, updates = (6_000, 1_000, 60) if small else (60_000, 10_000, 3_000)

# %% [markdown]
# ## The series
# All three variables, every .1 units of time, with 5 % noise.

# %%
data = simulate(HindmarshRose(), samples, noise=0.05, key=jax.random.key(0))
truth = simulate(HindmarshRose(), 2 * samples)[samples:]

# %% [markdown]
# ## Two lengths of window
# The same number of steps in an update: fifty windows of 200, or one of 10,000. `solver` says how a window is run:
# fifty fill the machine as they are, one is cut into blocks. An update that is not solved ends a run, and `model.runs`
# says so.
#
# Of eight runs the one that reproduces a validation stretch best is kept, and which length has it is a matter of seeds.
# Over 24 seeds each the long windows are ahead, in D_stsp and D_H; what that is due to is in the documentation, "A
# whole series at every update".

# %%
models = {}
for length, solver in ((200, Sequential()), (long, Shooting())):
    begun = time.perf_counter()
    models[length] = reconstruct(
        data,
        lambda key: ClippedShallowPLRNN(3, 100, key=key),
        runs=2 if small else 8,
        alpha=0.05,
        length=length,
        batch=max(1, long // length),
        steps=updates,
        learning_rate=(5e-3, 5e-5),
        noise=0.0,
        solver=solver,
    )
    print(f"windows of {length}: {time.perf_counter() - begun:.0f} s")
    print(score(models[length], truth)[["value", "floor"]].to_dataframe().to_string())

# %% [markdown]
# ## One window, four ways
# The forced run along the first steps of the series: by the loop, in blocks, by Newton's iteration, and by `Auto`,
# which takes the loop or blocks, whichever a model of measured times predicts to be the faster here. What they say of
# themselves is in `stats`: few iterations, a residual below one tolerance, and how many blocks. The states are the
# same.

# %%
model = models[long]
x, _ = model.presented(np.asarray(data)[: long + 1])
forced = Forced(model.cell, model.readout)
start, pull = model.readout.start(x[0]), Forcing(x[:-1], jnp.full(long, 0.05, x.dtype))
runs = {}
for name, way in {"loop": Sequential(), "blocks": Shooting(), "Newton": Newton(), "auto": Auto()}.items():
    evolve(forced, start, pull, solver=way).zs.block_until_ready()  # compiles
    begun = time.perf_counter()
    runs[name] = evolve(forced, start, pull, solver=way)
    runs[name].zs.block_until_ready()
    print(f"{name}: {1e3 * (time.perf_counter() - begun):.1f} ms on this {jax.default_backend()}")
for name in ("blocks", "Newton", "auto"):
    print(name, {fact: value.item() for fact, value in runs[name].stats.items()})
    print("largest difference:", float(jnp.abs(runs[name].zs - runs["loop"].zs).max()))

# %% [markdown]
# ## The bursts

# %%
free = model.simulate(4_000, discard=500, throw=False)
plot.save(plot.attractor(truth[:4_000], free), "long-sequences.png")
