# %% [markdown]
# # A CSV file of your own: dates, gaps and all
#
# A table as it comes from a logger: a column of dates, two measured variables, cells that are empty, rows that were
# lost, and a column that drove the system. `dsrecon fit table.csv` does the first half of this from the shell.

# %%
import os

import numpy as np
import pandas as pd

from dsrecon import plot, read_series, reconstruct, score

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
rows, updates = (3_000, 300) if small else (12_000, 12_000)

# %% [markdown]
# ## The table
# Yours is on disk already. Here one is made: a van der Pol oscillator in a slowly changing drive, logged every
# 30 seconds, 10 % of the cells empty and an hour of rows lost.

# %%
rng = np.random.default_rng(0)
drive = np.cumsum(rng.normal(size=rows)) * 0.02
drive -= np.linspace(drive[0], drive[-1], rows)
state, orbit = np.array([1.0, 0.0]), []
for u in drive:
    for _ in range(10):
        x, v = state
        state = state + 0.02 * np.array([v, 1.5 * (1 - x**2) * v - x + u])
    orbit.append(state)
table = pd.DataFrame(np.array(orbit) * [3.0, 1.0] + [20.0, 0.0], columns=["level", "flow"])
table = table + rng.normal(size=table.shape) * 0.02
table = table.mask(rng.random(table.shape) < 0.1)
table.insert(0, "date", pd.date_range("2024-03-01", periods=rows, freq="30s"))
table["drive"] = drive
table.drop(index=range(700, 820)).to_csv("table.csv", index=False)
print(pd.read_csv("table.csv").head())

# %% [markdown]
# ## Reading it
# Rows were lost, so the times are not equidistant, and `read_series` says so instead of guessing. `resample=30.0`
# (seconds, for dates) puts the rows back, as missing. Missing values are NaN; the fit neither follows nor scores them.

# %%
try:
    read_series("table.csv")
except ValueError as error:
    print(error)
series = read_series("table.csv", columns=["level", "flow"], resample=30.0)
print(series.to_xarray())
print(f"{np.isnan(series.values).mean():.1%} missing")

# %% [markdown]
# ## What drove it
# External inputs stand beside the observations, row for row, or are laid beside them by their times. They must be
# complete: what drove a system cannot be left out. Here the lost hour is filled with lines.

# %%
inputs = read_series("table.csv", columns=["drive"], resample=30.0).to_xarray().interpolate_na("time")

# %% [markdown]
# ## The fit, and what it says of itself

# %%
model = reconstruct(series, inputs=inputs, steps=updates)
for name, choice in model.settings.items():
    print(f"{name}: {choice['value']} ({choice['reason']})")
table = score(model, series, inputs=inputs)
print(table[["value", "floor"]].to_dataframe().to_string())

# %% [markdown]
# ## A forecast in the units and times of the table
# The context may have gaps too. Inputs are those of the context and, below them, of the steps to come.

# %%
context, ahead = series.to_xarray()[:500], 200
future = model.forecast(context, ahead, inputs=inputs[: 500 + ahead])
print(future.to_pandas().head())
shown = series.to_xarray()[500 : 500 + ahead]
print("mean absolute error:", np.abs(future - shown.values).mean("time").values)

# %% [markdown]
# ## A free run beside the data

# %%
free = model.simulate(1_000, inputs=inputs[1:1_001])
plot.save(plot.series(series.to_xarray()[:1_000], free), "your-own-series.png")
