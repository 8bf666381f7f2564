# %% [markdown]
# # Lorenz-63: from a noisy series to an attractor, its scores and its symbols
#
# A series is simulated and 5 % observation noise added. From that alone `reconstruct` finds a system whose free run
# lives on the same attractor. Then an Almost-Linear RNN with two piecewise-linear units is fitted to the same series:
# less faithful, but with three or four regions, so that its orbit can be read as symbols.

# %%
import os

import jax

from dsrecon import ALRNN, encode, load, plot, reconstruct, score, simulate
from dsrecon.symbolic import transition_graph, transitions
from dsrecon.systems import Lorenz63

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
length, updates = (10_000, 500) if small else (100_000, None)

# %% [markdown]
# ## The data
# `simulate` gives an `xarray.DataArray` with real times and names, and the recipe in its attributes.

# %%
truth = simulate(Lorenz63(), length)
data = simulate(Lorenz63(), length, noise=0.05, key=jax.random.key(0))
print(data)

# %% [markdown]
# ## The fit
# No option is needed (`steps` is given here only when the example runs small). Every choice comes with its reason.

# %%
model = reconstruct(data, steps=updates)
for name, choice in model.settings.items():
    print(f"{name}: {choice['value']} ({choice['reason']})")
print(model.runs.to_dataframe().to_string())

# %% [markdown]
# ## The scores
# A value is good when it is near its floor: what the truth scores against itself at that length.

# %%
table = score(model, truth)
print(table[["value", "floor"]].to_dataframe().to_string())

# %% [markdown]
# ## Attractor, and one file that holds the model

# %%
free = model.simulate(min(10_000, length // 2))
plot.save(plot.attractor(truth, free), "lorenz-attractor.png")
model.save("lorenz.eqx")
assert (load("lorenz.eqx").simulate(100) == model.simulate(100)).all()

# %% [markdown]
# ## Symbols
# An Almost-Linear RNN with two piecewise-linear units has at most four linear regions. Sparse forcing suits it.

# %%
reader = reconstruct(
    data,
    lambda key: ALRNN(20, 2, key=key),
    interval=16,
    length=200,
    noise=0.05,
    steps=updates or 15_000,
    learning_rate=(5e-3, 1e-4),
)
symbols = encode(reader, truth)
print(symbols.attrs["regions_visited"], "regions;", "most visited:", symbols["visits"].values)
print(transitions(symbols).round(3).values)
print(transition_graph(symbols))
plot.save(plot.symbols(symbols), "lorenz-symbols.png")
plot.save(plot.transition_graph(symbols), "lorenz-graph.png")
