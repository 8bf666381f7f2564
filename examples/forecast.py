# %% [markdown]
# # Forecasts: a week ahead, hour by hour
#
# The oil temperature of a power transformer, one value an hour (ETTh1, Zhou et al. 2021, *Informer*). A forecaster is
# fitted to the first 16 months and judged by the 4 that follow. `dsrecon forecast table.csv --horizon 168` does much of
# this from the shell.
#
# The record is not passed on with the package: put `ETTh1.csv` where `DSRECON_DATA` points. Without it a series with a
# daily and a weekly cycle is made up, and what follows is then about that one.

# %%
import os
from pathlib import Path

import numpy as np
import pandas as pd

from dsrecon import plot
from dsrecon.forecast import (
    RidgeEstimator,
    SeasonalNaiveEstimator,
    TPGNEstimator,
    Training,
    backtest,
    load_predictor,
)

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
month = 24 * 7 if small else 24 * 30
horizon = 24 if small else 24 * 7
record = Path(os.environ.get("DSRECON_DATA", ".")) / "ETTh1.csv"
if record.exists():
    table = pd.read_csv(record, index_col="date", parse_dates=True)[: 20 * month]
    print("ETTh1:", table.shape)
else:
    rng, t = np.random.default_rng(0), np.arange(20 * month)
    load = 8 + 3 * np.sin(2 * np.pi * t / 24) + 2 * (t // 24 % 7 < 5)
    load = load + np.convolve(rng.normal(size=len(t)), 0.9 ** np.arange(50))[: len(t)]
    warmth = np.convolve(load, 0.1 * 0.9 ** np.arange(100))[: len(t)]
    table = pd.DataFrame({"HUFL": load, "OT": 5 + 1.5 * warmth + 0.5 * rng.normal(size=len(t))})
    table.index = pd.date_range("2016-07-01", periods=len(t), freq="h")
    print("NOT ETTh1: a made-up series with a daily and a weekly cycle,", table.shape)
series, fitted = table["OT"], 16 * month

# %% [markdown]
# ## A fit
# An estimator holds the settings; `fit` takes a series (pandas, xarray, NumPy) and the steps to forecast, and gives a
# predictor. Period and lookback are found from the series, and each choice says its reason. The last quarter of what
# is given is not learned from: it decides when to stop, and its errors give the intervals.

# %%
estimator = TPGNEstimator(lookback=24, training=Training(epochs=2)) if small else TPGNEstimator()
predictor = estimator.fit(series[:fitted], horizon, validation=0.25, progress=False)
for name, choice in predictor.settings.items():
    print(f"{name}: {choice['value']} ({choice['reason']})")

# %% [markdown]
# ## A forecast
# In the units and at the times of the data, with the quantiles that were asked for. `predict()` goes on from the end of
# what was fitted; `predict(context)` from the end of any other stretch. The figure shows what came, too.

# %%
forecast = predictor.predict(levels=[0.05, 0.25, 0.75, 0.95])
print(forecast)
plot.save(plot.forecast(forecast, series[: fitted + horizon]), "forecast-intervals.png")

# %% [markdown]
# ## How good is it?
# One forecast tells little. `backtest` makes one from every hour of the months that follow, without fitting again, and
# compares all of them with what came. A forecaster that does not beat the last day again has learned nothing, and
# ridge regression is harder to beat than it looks.

# %%
others = {"seasonal naive": SeasonalNaiveEstimator(), "ridge": RidgeEstimator()}
predictors = {name: other.fit(series[:fitted], horizon, validation=0.25) for name, other in others.items()}
predictors = {"TPGN": predictor, **predictors}
results = {name: backtest(each, series, start=fitted) for name, each in predictors.items()}
print(pd.DataFrame({name: result.table() for name, result in results.items()}).T.round(3).to_string())
print(f"means over {results['TPGN'].windows:,} windows")
plot.save(plot.compared(results), "forecast-errors.png")

# %% [markdown]
# `mse_scaled` and `mae_scaled` are in standard deviations of the training part, as papers tell them; `mase` is in units
# of the seasonal naive error there. Coverage should be what its name says: 0.9. It falls where the series does what it
# never did in the validation; the figure shows at which lead times.

# %%
plot.save(plot.backtested(results["TPGN"]), "forecast-coverage.png")

# %% [markdown]
# ## To a file and back

# %%
predictor.save("forecaster.model")
again = load_predictor("forecaster.model")
late = again.predict(series[-again.lookback :])
print("issued", late["issue_time"].values, "- the first three hours:", late["forecast"].values[:3, 0].round(2))

# %% [markdown]
# ## What is known ahead
# Hours, weekdays and seasons are read off the dates by themselves (`marks=False` leaves them out). Other things that
# are known beforehand - holidays, tariffs, plans - go in as `known`, row by row and `horizon` rows further. Here the
# transformer's load stands in for a plan of it: a real plan would be less exact. Whether it helps is for the backtest
# to say: more to look at is more to mistake, too.

# %%
plan = table[["HUFL"]]
planned = estimator.fit(series[:fitted], horizon, known=plan, validation=0.25, progress=False)
knowing = backtest(planned, series, known=plan, start=fitted)
without, knows = (result.table()["mae"] for result in (results["TPGN"], knowing))
print(f"mean absolute error: {without:.3f} without the load, {knows:.3f} with it")
context = series[fitted - planned.lookback : fitted]
forecast = planned.predict(context, known=plan[fitted - planned.lookback : fitted + horizon])
plot.save(plot.forecast(forecast, series[: fitted + horizon]), "forecast-known.png")
