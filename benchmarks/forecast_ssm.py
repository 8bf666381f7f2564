"""ETTh1 by the protocol of Informer: state-space layers as forecasters.

    DSRECON_DATA=FOLDER python benchmarks/forecast_ssm.py [search] [table]

FOLDER holds ETTh1.csv. Univariate OT; 12, 4 and 4 months of 30 days for training, validation and test (8,640, 2,880 and
2,880 rows, the 3,020 that are left are not used); windows of the later parts look back over their beginning; every
window, at stride 1; errors in standard deviations of the training part. Results go to `results/forecast_ssm.json`.

- `search`: the settings that were tried, and their MSE on the validation part: nothing else was looked at.
- `table`: S4, the mean of three seeds, each by itself; S4D and S5, one seed; ridge regression and NLinear over the same
  lookback. Published: S4.

Reference: Gu, Goel & Ré 2022, *Efficiently modeling long sequences with structured state spaces*, ICLR; Zhou et al.
2021, *Informer*, AAAI (the protocol).
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd
from conftest import versions

from dsrecon.forecast import NLinearEstimator, RidgeEstimator, SequenceEstimator, Training, backtest
from dsrecon.models import S4, S4D, S5

RESULTS = Path(__file__).parent / "results" / "forecast_ssm.json"
PUBLISHED = {24: 0.061, 48: 0.079, 168: 0.104, 336: 0.080, 720: 0.116}
MONTH = 30 * 24
TRAIN, FITTED, LAST = 12 * MONTH, 16 * MONTH, 20 * MONTH
"""Rows of the training part, of training and validation, of all three."""

LOOKBACK, WIDTH, STATE, SEEDS = 168, 16, 32, 3
TRAINING = Training(epochs=3, learning_rate=1e-2)
CHOSEN: dict[str, Any] = {"level": "last", "marks": False}
LAYERS = {"S4": S4, "S4D": S4D, "S5": S5}


def data() -> pd.DataFrame:
    path = Path(os.environ.get("DSRECON_DATA", "")) / "ETTh1.csv"
    return pd.read_csv(path, parse_dates=["date"]).set_index("date")[["OT"]][:LAST]


def sequence(layer=S4, lookback: int = LOOKBACK, width: int = WIDTH, **options: Any) -> SequenceEstimator:
    def make(key):
        return layer(width, STATE, key=key)

    return SequenceEstimator(lookback, 24, make, **{"training": TRAINING, **CHOSEN, **options})


def fitted(estimator, series: pd.DataFrame, horizon: int, seed: int = 0):
    """The predictor, and seconds."""
    begun = time.perf_counter()
    found = estimator.fit(series[:FITTED], horizon, validation=(FITTED - TRAIN) / FITTED, key=seed, threads=1)
    return found, round(time.perf_counter() - begun, 1)


def scores(found, series: pd.DataFrame, start: int) -> dict[str, float]:
    """MSE and MAE, scaled; of points alone, so without the errors that intervals rest on."""
    found = eqx.tree_at(lambda p: p.errors, found, None, is_leaf=lambda node: node is None)
    table = backtest(found, series, start=start, levels=(), keep=False).table()
    return {"mse": table["mse_scaled"], "mae": table["mae_scaled"]}


def judged(estimator, series: pd.DataFrame, horizon: int) -> dict[str, Any]:
    """Each member by itself, and the mean of what they score (not of what they forecast)."""
    found, seconds = fitted(estimator, series, horizon)
    runs = []
    for i in range(len(found.members.number)):
        member = jax.tree.map(lambda x, i=i: x[i : i + 1] if eqx.is_array(x) else x, found.members)
        one = eqx.tree_at(lambda p: p.members, found, member)
        held = scores(one, series[:FITTED], TRAIN)["mse"]
        runs.append({"val_mse": held, **scores(one, series, FITTED)})
    means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    spread = {"standard error": float(np.std([r["mse"] for r in runs], ddof=1) / len(runs) ** 0.5)} if runs[1:] else {}
    epochs = found.settings.get("epochs", {}).get("value")
    return {**means, **spread, "runs": runs, "epochs": epochs, "fit_seconds": seconds}


def table(series: pd.DataFrame) -> dict[str, Any]:
    out: dict[str, Any] = {"settings": repr(sequence()), "lookback": LOOKBACK, "width": WIDTH, "state_size": STATE}
    for horizon, published in PUBLISHED.items():
        rows = {name: sequence(layer, members=SEEDS if name == "S4" else 1) for name, layer in LAYERS.items()}
        rows |= {
            "ridge": RidgeEstimator(LOOKBACK, 24),
            "ridge, last value as level": RidgeEstimator(LOOKBACK, 24, level="last"),
            "NLinear": NLinearEstimator(LOOKBACK, 24),
        }
        found: dict[str, Any] = {"published": {"mse": published}}
        for name, estimator in rows.items():
            row = found[name] = judged(estimator, series, horizon)
            print(horizon, f"{name:28s}", f"val {row['val_mse']:.4f}  mse {row['mse']:.4f}  mae {row['mae']:.4f}")
            print("    ", f"{row['mse'] / published:.2f} of the published;", row["fit_seconds"], "s", flush=True)
        out[str(horizon)] = found
    return out


TRIED: tuple[dict[str, Any], ...] = (
    {"horizon": 168, "lookback": 336},
    {"horizon": 168, "lookback": 336, "marks": True},
    {"horizon": 168, "lookback": 336, "learning_rate": 1e-2},
    {"horizon": 168, "lookback": 336, "level": "mean"},
    {"horizon": 168},
    {"horizon": 168, "level": "mean"},
    {"horizon": 168, "learning_rate": 1e-3},
    {"horizon": 168, "learning_rate": 1e-2},
    {"horizon": 168, "dropout": 0.2},
    {"horizon": 168, "lookback": 96},
    {"horizon": 24},
    {"horizon": 24, "level": "mean"},
    {"horizon": 720},
    {"horizon": 720, "level": "mean"},
)
"""Settings of S4 tried; what is not said is as chosen, but with a learning rate of 3e-3, four epochs and a patience of
two."""


def search(series: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for given in TRIED:
        options = {k: v for k, v in given.items() if k not in ("horizon", "learning_rate")}
        training = Training(epochs=4, patience=2, learning_rate=given.get("learning_rate", 3e-3))
        found, seconds = fitted(sequence(training=training, **options), series, given["horizon"])
        error = found.settings["validation_error"]["value"][0]
        rows.append({**given, "val_mse": error, "epochs": found.settings["epochs"]["value"][0], "seconds": seconds})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    for name in sys.argv[1:] or ["search", "table"]:
        begun = time.perf_counter()
        result = {"table": table, "search": search}[name](data())
        machine = {**versions(), "load": os.getloadavg()[0], "seconds": time.perf_counter() - begun}
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        found[name] = {"rows": result, "machine": machine}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
