# %% [markdown]
# # Seed atlas: how few regions does a faithful model need?
#
# Almost-Linear RNNs with one to six piecewise-linear units are fitted to the Roessler system, several of each, in one
# call. Each is laid out by how far its free run is from the data and how many linear regions it visits. The one with
# the fewest regions that is still faithful is then read as symbols.

# %%
import os

from dsrecon import encode, plot, simulate
from dsrecon.reconstruct.atlas import seed_atlas
from dsrecon.symbolic import transition_graph, transitions
from dsrecon.systems import Roessler

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
length, updates, units, seeds = (3_000, 100, (1, 3), 1) if small else (100_000, 8_000, (1, 2, 3, 4, 5, 6), 2)

# %% [markdown]
# ## The atlas
# Every combination of `pwl_units` (P), `alphas` and seed is one member of one ensemble. They differ in which units are
# piecewise linear, which is an array, so that nothing is compiled twice.

# %%
data = simulate(Roessler(), length)
atlas = seed_atlas(
    data,
    pwl_units=units,
    alphas=(0.1, 0.2),
    seeds=seeds,
    length=100,
    noise=0.05,
    steps=updates,
    learning_rate=(1e-2, 1e-4),
)
print(atlas.table[["regions", "floors", "failure"]].to_dataframe().to_string())

# %% [markdown]
# ## Against the truth
# The validation stretch chose the state that is kept of each member. Against all of the data, which has more of it than
# one stretch, they stand like this. A floor is what another true stretch of that length scores.

# %%
atlas = atlas.against(data)
print(atlas.front[["regions", "floors"]].to_dataframe().to_string())
plot.save(plot.pareto(atlas), "atlas.png")

# %% [markdown]
# ## The one to read
# `atlas.smallest()` is the run with the fewest regions whose two distances are both within two floors; where there is
# none (as when this example runs small) it raises and names the nearest. As a reconstruction it is an `ALRNN` with just
# its own P units.

# %%
within = atlas.within(2.0)
chosen = atlas.smallest() if within.sizes["run"] else int(atlas.front["run"][-1])
model = atlas.reconstruction(chosen)
symbols = encode(model, steps=2_000 if small else 20_000, discard=1_000)
print(symbols.attrs["regions_visited"], "regions;", "visits:", symbols["visits"].values)
print(transitions(symbols).round(3).values)
print(transition_graph(symbols))
plot.save(plot.symbols(symbols), "atlas-symbols.png")
plot.save(plot.transition_graph(symbols), "atlas-graph.png")
