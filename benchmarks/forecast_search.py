"""Settings of TPGN tried on ETTh1, judged on the validation part: `python benchmarks/forecast_search.py OUT.csv DATA
[HORIZON ...]`.

DATA: folder with ETTh1.csv. One row a setting and horizon: errors of the ensemble's mean on the validation and on the
test part (standardised). The choice is by the validation column alone; the test column is told so that nothing is
hidden.
"""

import csv
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from dsrecon.forecast import TPGNEstimator, Training, backtest
from dsrecon.training import squared

GRID = {
    "lookback": (168, 336, 504, 720),
    "width": (2, 8),
    "learning_rate": (1e-3, 3e-4),
    "error": (squared,),
}
MEMBERS = 5
NAMES = ("horizon", *GRID, "members", "val_mse", "val_mae", "test_mse", "test_mae", "seconds")


def tried(data: pd.DataFrame, horizon: int, lookback: int, width: int, learning_rate: float, error) -> list:
    rows = len(data)
    cut, first = rows - int(0.2 * rows), int(0.6 * rows)
    begun = time.perf_counter()
    training = Training(learning_rate=learning_rate, error=error)
    estimator = TPGNEstimator(lookback, 24, width, members=MEMBERS, training=training)
    fitted = estimator.fit(data[:cut], horizon, validation=(cut - first) / cut)
    held = backtest(fitted, data[:cut], start=first, levels=(), keep=False).table()
    count = (rows - cut - horizon + 1) // 32 * 32  # as published: the last incomplete batch is dropped
    test = backtest(fitted, data[: cut + count + horizon - 1], levels=(), keep=False).table()
    found = [held["mse_scaled"], held["mae_scaled"], test["mse_scaled"], test["mae_scaled"]]
    name = error.__name__
    seconds = round(time.perf_counter() - begun, 1)
    return [horizon, lookback, width, learning_rate, name, MEMBERS, *np.round(found, 5), seconds]


def main() -> None:
    out, folder = Path(sys.argv[1]), Path(sys.argv[2])
    horizons = [int(h) for h in sys.argv[3:]] or [168, 336, 720, 1440]
    data = pd.read_csv(folder / "ETTh1.csv", parse_dates=["date"]).set_index("date")[["OT"]]
    done = set()
    if out.exists():
        with open(out) as file:
            done = {tuple(row[:6]) for row in csv.reader(file)}
    with open(out, "a", newline="") as file:
        table = csv.writer(file)
        if not done:
            table.writerow(NAMES)
        for lookback, width, rate, error in itertools.product(*GRID.values()):
            for horizon in horizons:
                if (str(horizon), str(lookback), str(width), str(rate), error.__name__, str(MEMBERS)) in done:
                    continue
                table.writerow(tried(data, horizon, lookback, width, rate, error))
                file.flush()


if __name__ == "__main__":
    main()
