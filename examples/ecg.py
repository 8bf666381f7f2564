# %% [markdown]
# # A heart: from one lead of an electrocardiogram to an attractor
#
# One measured variable is enough: in delay coordinates it unfolds into an attractor. A recurrent map is fitted to 86
# seconds of a real electrocardiogram with many extra beats, and its free run, which sees no data, has beats of its own.
# `dsrecon demo ecg` does the same from the shell.

# %%
import os

import numpy as np

from dsrecon import ClippedShallowPLRNN, datasets, plot, reconstruct, score
from dsrecon.measures.beats import beats

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
updates = 300 if small else 10_000

# %% [markdown]
# ## The record
# Five minutes of record 208 of the MIT-BIH Arrhythmia Database, in mV. `resting_ecg` takes out the drift of the
# baseline and the mains hum, samples it more slowly, and keeps its clean end.

# %%
series = datasets.resting_ecg()
print(series.attrs["preparation"])
true = beats(series)
low, high = np.percentile(true.intervals, [5, 95])
print(f"{len(true.times)} beats; median R-R {np.median(true.intervals):.2f} s, 5-95 % {low:.2f} to {high:.2f} s")

# %% [markdown]
# ## The fit
# A single variable is embedded: the lag is the first minimum of the mutual information, the dimension the one from
# which hardly more neighbours prove false. Both can be given (`lag=`, `dimension=`). Hidden units help here, and a
# long validation stretch: over a short one a model can beat irregularly that later beats evenly for ever.

# %%
model = reconstruct(
    series,
    lambda key: ClippedShallowPLRNN(30, 50, key=key),
    alpha=0.2,
    noise=0.05,
    length=100,
    steps=updates,
    validation=0.4,
)
for name in ("lag", "dimension", "validation"):
    print(f"{name}: {model.settings[name]['value']} ({model.settings[name]['reason']})")
plot.save(plot.embedding(model), "ecg-embedding.png")

# %% [markdown]
# ## The attractor, and a stretch of both

# %%
free = model.simulate(4_000, discard=500)
plot.save(plot.attractor(model.in_coordinates(series), model.in_coordinates(free)), "ecg-attractor.png")
plot.save(plot.series(series, free, span=10.0), "ecg-series.png")

# %% [markdown]
# ## Its beats beside those of the data

# %%
run = beats(free)
if len(run.intervals):
    inside = ((run.intervals >= low) & (run.intervals <= high)).mean()
    print(f"{inside:.0%} of the R-R intervals of the free run lie in the data's 5-95 % range")
    print(f"median {np.median(run.intervals):.2f} s ({np.median(true.intervals):.2f} s in the data)")

# %% [markdown]
# ## Scores
# Each stands between its floor (what the data score against themselves) and its ceiling (what a linear process with the
# same spectrum scores). Measures of which nothing can be read at this length are left out, and named.

# %%
table = score(model, series)
print(table[["value", "floor", "ceiling"]].to_dataframe().to_string())
print(table.attrs["unreadable"])
