# %% [markdown]
# # Long sequences
#
# A neuron of Hindmarsh and Rose bursts: spikes last a few units of time, a burst some hundred, and what ends a burst
# is a slow variable. Training windows of 200 steps see a spike or two; windows of 10,000 see several bursts. Newton's
# iteration finds all steps of a window at once, which is what makes such windows affordable on an accelerator. Here
# both are trained, and compared; on a CPU the loop is the faster way to run either.

# %%
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from dsrecon import ClippedShallowPLRNN, Forced, Forcing, Newton, Sequential, evolve, plot, reconstruct, score, simulate
from dsrecon.systems import HindmarshRose

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
on_cpu = jax.default_backend() == "cpu"
samples, long, updates = (6_000, 1_000, 60) if small else (60_000, 10_000, 3_000)

# %% [markdown]
# ## The series
# All three variables, every .1 units of time, with 5 % noise.

# %%
data = simulate(HindmarshRose(), samples, noise=0.05, key=jax.random.key(0))
truth = simulate(HindmarshRose(), 2 * samples)[samples:]

# %% [markdown]
# ## Two lengths of window
# The same number of steps in an update: fifty windows of 200, or one of 10,000. `solver` says how the windows are
# run; an update that Newton's iteration cannot solve ends a run, and `model.runs` says so.

# %%
solver = Sequential() if on_cpu else Newton()
models = {}
for length in (200, long):
    begun = time.perf_counter()
    models[length] = reconstruct(
        data,
        lambda key: ClippedShallowPLRNN(3, 100, key=key),
        runs=2,
        alpha=0.1,
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
# ## One window, two ways
# The forced run along the first steps of the series: by the loop, and by Newton's iteration. What it says of itself
# is in `stats`: few iterations, a residual below one tolerance, no region that changed in the last. The states are
# the same.

# %%
model = models[long]
x, _ = model.presented(np.asarray(data)[: long + 1])
forced = Forced(model.cell, model.readout)
start, pull = model.readout.start(x[0]), Forcing(x[:-1], jnp.full(long, 0.1, x.dtype))
runs = {}
for name, way in {"loop": Sequential(), "Newton": Newton()}.items():
    evolve(forced, start, pull, solver=way).zs.block_until_ready()  # compiles
    begun = time.perf_counter()
    runs[name] = evolve(forced, start, pull, solver=way)
    runs[name].zs.block_until_ready()
    print(f"{name}: {1e3 * (time.perf_counter() - begun):.1f} ms on this {jax.default_backend()}")
print({name: value.item() for name, value in runs["Newton"].stats.items()})
print("largest difference:", float(jnp.abs(runs["Newton"].zs - runs["loop"].zs).max()))

# %% [markdown]
# ## The bursts

# %%
free = model.simulate(4_000, discard=500, throw=False)
plot.save(plot.attractor(truth[:4_000], free), "long-sequences.png")
