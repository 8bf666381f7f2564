# %% [markdown]
# # Several trials of one system
#
# An experiment is rarely one long record. Here are trials of unequal length, each begun somewhere else, one of them
# with a channel that failed. A list of series is several trials: no training window runs from one into the next, and
# the fit is chosen by how it does on trials that it has not seen.

# %%
import os

import jax
import numpy as np

from dsrecon import plot, reconstruct, score, simulate
from dsrecon.systems import Lorenz63

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
updates = 400 if small else None

# %% [markdown]
# ## The trials
# Eight records of the Lorenz-63 system, 5 % observation noise. The third lost its variable `z`.

# %%
rng = np.random.default_rng(0)
lengths = rng.integers(500, 1_500, size=8) if small else rng.integers(1_500, 6_000, size=8)
trials = [
    simulate(Lorenz63(), int(n), start=rng.normal(size=3), discard=500, noise=0.05, key=jax.random.key(i))
    for i, n in enumerate(lengths)
]
trials[2] = trials[2].where(trials[2]["variable"] != "z")
print([t.sizes["time"] for t in trials])

# %% [markdown]
# ## The fit
# Of five trials or more, whole ones are held out for choosing among the runs; of fewer, the end of each.

# %%
model = reconstruct(trials, steps=updates)
print(model.settings["validation"])
print(model.runs.to_dataframe().to_string())

# %% [markdown]
# ## Scored against one long true series

# %%
truth = simulate(Lorenz63(), 5_000 if small else 40_000)
print(score(model, truth)[["value", "floor"]].to_dataframe().to_string())

# %% [markdown]
# ## From the end of each trial on
# `forecast` goes on where its context ends, so each trial gets its own future.

# %%
for trial in trials[:3]:
    if not np.isnan(trial.values).all(0).any():
        print(model.forecast(trial, 3).values.round(2).tolist())

free = model.simulate(8_000, discard=500, throw=False)
plot.save(plot.attractor(truth[:8_000], free), "several-trials.png")
