# %% [markdown]
# # Symbols of Lorenz: from the series to the machine
#
# A map with very few linear regions is fitted to the Lorenz system. Which region each state lies in turns the motion
# into a sequence of symbols, and what the sequence says is read off: how long each symbol lasts, where it leads to,
# what never happens, how much information there is in it, and which machine writes such sequences.

# %%
import os

import numpy as np

from dsrecon import encode, plot, simulate
from dsrecon.measures import affine_exponents
from dsrecon.reconstruct.atlas import seed_atlas
from dsrecon.symbolic import (
    dwell_models,
    dwell_words,
    entropy_rate,
    epsilon_machine,
    forbidden_words,
    gap_edges,
    run_lengths,
    same_process,
    shortest_cycles,
    transition_graph,
    transitions,
    write_graph,
)
from dsrecon.systems import Lorenz63

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
length, updates, seeds, steps = (4_000, 100, 1, 4_000) if small else (100_000, 20_000, 4, 1_000_000)

# %% [markdown]
# ## The fit
# An Almost-Linear RNN with two piecewise-linear units has four regions at most. Training ends in another place from
# every start, so several are fitted, and the one is kept whose free run is nearest to a stretch of the data that none
# was fitted to (the smallest `score`). The forcing is sparse, every 16 steps: the map has to be right for that long
# by itself, which keeps it from jumping to and fro between regions within a few steps.

# %%
data = simulate(Lorenz63(), length)
atlas = seed_atlas(
    data, pwl_units=(2,), interval=16, seeds=seeds, length=200, noise=0.05, steps=updates, learning_rate=(5e-3, 1e-4)
)
print(atlas.table[["score", "d_stsp", "d_h", "regions"]].to_dataframe().to_string())
model = atlas.reconstruction(int(atlas.table["run"][atlas.table["score"].argmin("run")]))

# %% [markdown]
# ## The symbols
# Symbols are numbered by visits. Each is one affine map, and has a place on the attractor.

# %%
along = encode(model, data)
symbols = along if small else encode(model, steps=steps, discard=1_000)
print(symbols.attrs["regions_visited"], "regions in", symbols.attrs["steps"], "steps")
table = run_lengths(symbols)[["mean", "median", "count"]].to_dataframe()
table["share"] = symbols["visits"].values / symbols.sizes["time"]
table[list(symbols["variable"].values)] = symbols["mean"].values
print(table.round(3).to_string())
plot.save(plot.symbols(symbols), "lorenz-symbols.png")

# %% [markdown]
# ## Where it goes
# Time steps are short, so the sequence mostly repeats: the stay in a region is a row of equal symbols. When it ends,
# the graph tells where it leads.

# %%
print(transitions(symbols, self_transitions=False).round(3).to_pandas().to_string())
for circle in shortest_cycles(transition_graph(symbols), longest=3, most=5):
    print("around", circle.symbols, "with probability", round(circle.probability, 3))
plot.save(plot.transition_graph(symbols), "lorenz-graph.png")

# %% [markdown]
# ## How long it stays
# If the symbols were a Markov chain their stays would be geometric. The p-value is that of the geometric law against a
# more regular or more ragged one, `distance` what the better of the two still misses the stays by.

# %%
if symbols.sizes["region"] > 1:
    laws = dwell_models(symbols)[["runs", "mean", "sd", "p_value", "shape", "distance_negative_binomial"]]
    print(laws.to_dataframe().round(3).to_string())

# %% [markdown]
# ## What never happens
# Without repeats the sequence has a grammar. Of the words that never occur though their parts do, these are too many
# to be missing by chance (that none follows itself is how the sequence was made).

# %%
symbol = symbols["symbol"].values
order = symbol[np.r_[True, np.diff(symbol) != 0]]
words = forbidden_words(order, min(4, len(order)))
absent = words["word"].values[words["forbidden"].values]
print([word for word in absent.tolist() if all(a != b for a, b in zip(word.split(), word.split()[1:], strict=False))])

# %% [markdown]
# ## How much information
# No coding of a map makes more information than its positive exponents let it (Ruelle's inequality), and one that
# tells orbits apart makes as much. Where the estimate is above, the sequence remembers more than a record of this
# length can show; its interval holds the scatter alone. The order of the regions leaves out how long each lasts.
# Where an orbit goes around several times before it leaves a region, its stays fall into groups: `gap_edges` puts
# edges between them, so that turns are counted.

# %%
start, dt = model.start(), model.clock.time_step
print("largest exponent", affine_exponents(model.cell, start, steps=2_000 if small else 500_000, dt=dt)[0])
for name, edges in (("regions in order", []), ("and how many turns a stay lasted", gap_edges(symbols))):
    if len(order) > 30:
        rate = entropy_rate(dwell_words(symbols, edges=edges))
        ends = np.round([rate.low_per_time, rate.high_per_time], 3)
        print(f"{name}: {rate.rate_per_time:.3f} nats per unit of time, 95 % from {ends[0]} to {ends[1]}")

# %% [markdown]
# ## The machine
# The epsilon-machine has one state for all pasts that have the same future. The longer the pasts it may look at, the
# more it tells apart; with pasts of two regions it is small enough to be read.

# %%
if len(np.unique(order)) > 1 and len(order) > 1000:
    for history in (1, 2, None):
        found = epsilon_machine(order, history=history)
        complexity, rate = found.statistical_complexity, found.entropy_rate
        print(
            f"pasts of {found.history}: {found.machine.states} states, complexity {complexity.value:.3f} nats "
            f"({complexity.low:.3f} to {complexity.high:.3f}), {rate.value:.3f} nats per region"
        )
    for edge in epsilon_machine(order, history=2).machine.edges:
        print("state {} writes {} and goes to state {} with probability {:.3f}".format(*edge))
    write_graph(epsilon_machine(order, history=2).machine, "lorenz-machine.mmd")

# %% [markdown]
# ## Does the data agree?
# The same regions code the data themselves. The test deals blocks of both sequences anew: a small p-value says that
# their words are not equally frequent. With so few regions a model is a rough one, and enough steps show it. So look
# at `distance` too, the part of the words that would have to be others, beside the `floor` that two stretches of one
# process have.

# %%
if not small:
    test = same_process(along, symbols)
    print(f"p = {test.p_value:.3f}, distance {test.distance:.3f}, floor {test.floor:.3f}")

# %% [markdown]
# The same from a shell, for a run folder that `dsrecon fit` or `dsrecon demo` wrote: `dsrecon symbols RUN --data FILE`
# writes a page with these tables, the figure and the machine.
