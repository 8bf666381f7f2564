"""What a forecast was made of and what it is worth, in words and tables."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from dsrecon.cli.report import _number, markdown_table
from dsrecon.forecast import Backtest, Predictor
from dsrecon.series import Series

SHOWN = ("mse", "mae", "mase", "smape", "crps")
"""Scores that are shown, and every coverage."""


def score_rows(results: Mapping[str, Backtest]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Names of the scores, and a row of numbers a forecaster."""
    tables = {name: result.table().to_dict() for name, result in results.items()}
    first = next(iter(tables.values()))
    names = [str(k) for k in first if k in SHOWN or str(k).startswith("coverage")]
    names.sort(key=lambda k: SHOWN.index(k) if k in SHOWN else len(SHOWN))
    return names, [(name, *(_number(table[k]) for k in names)) for name, table in tables.items()]


def compared(results: Mapping[str, Backtest]) -> str:
    """The scores as the command shows them: a row a forecaster."""
    names, rows = score_rows(results)
    windows = next(iter(results.values())).windows
    wide = [max(11, len(name) + 2) for name in names]
    lines = [f"\n{'forecaster':<16}" + "".join(f"{k:>{w}}" for k, w in zip(names, wide, strict=True))]
    lines += [f"{row[0]:<16}" + "".join(f"{v:>{w}}" for v, w in zip(row[1:], wide, strict=True)) for row in rows]
    lines += ["", f"Means over {windows:,} windows of the test part, all lead times and all variables."]
    return "\n".join([*lines, beaten(results)]).rstrip()


def report(
    file: str,
    series: Series,
    first: int,
    predictor: Predictor,
    prediction: xr.Dataset,
    results: Mapping[str, Backtest],
) -> str:
    """The forecast in words.

    **Arguments:** `file`: its name; `series`: all that was observed; `first`: the row where the test part begins;
    `predictor`; `prediction` from the end of the series; `results` of the test part, by forecaster (may be empty).
    """
    rows, horizon = len(series.values), predictor.horizon
    lines = [f"# A forecast of {', '.join(series.names)}, {horizon} rows ahead", ""]
    lines += [f"{file}: {rows:,} rows, {_when(series, 0)} to {_when(series, rows - 1)}.", ""]
    missing = int(np.isnan(series.values).sum())
    if missing:
        lines += [f"{missing / series.values.size:.1%} of the observations are missing.", ""]
    beside = predictor.beside_names[0]
    if beside:
        lines += [f"Known ahead, and given to TPGN alone: {', '.join(beside)}.", ""]
    if results:
        lines += [
            f"The network was fitted to the first {first:,} rows, its validation among them, and tested on the other "
            f"{rows - first:,}. The forecast was made by that same network from the last {predictor.lookback} rows of "
            "all: what it learned ends before the test part.",
            "",
        ]
    else:
        lines += [f"The network was fitted to all {rows:,} rows; without a test part nothing tells how good it is.", ""]
    lines += ["![forecast](forecast.png)", ""]
    if "quantiles" in prediction:
        levels = ", ".join(f"{level:g}" for level in prediction["quantile"].values)
        lines += [
            f"Quantiles ({levels}) are those of the errors on the validation windows (split conformal prediction): "
            "they hold as far as the series goes on as it did there."
            + (" What the interval covered in the test part is in the table." if results else ""),
            "",
        ]
    else:
        lines += ["There are no quantiles: none were asked for, or too few validation windows to have them from.", ""]
    lines += _scores(results, predictor)
    lines += ["## Choices", ""]
    choices = [(name, _short(s["value"]), s["reason"]) for name, s in predictor.settings.items()]
    lines += markdown_table(("setting", "value", "reason"), choices)
    lines += ["", "## Files", ""]
    files = [
        ("forecast.csv", "time, the forecast of every variable, and its quantiles (`name_q0.05`)"),
        ("forecast.nc", "the same for xarray, with lead times and the time of issue"),
        ("forecaster.model", "the network: `dsrecon.forecast.load_predictor('forecaster.model')`"),
        ("forecast.png", "the figure above"),
    ]
    if results:
        files += [("backtest.png", "errors against the lead time"), ("scores.csv", "all scores of the test part")]
    return "\n".join([*lines, *markdown_table(("file", "holds"), files)]) + "\n"


def _scores(results: Mapping[str, Backtest], predictor: Predictor) -> list[str]:
    if not results:
        return []
    names, rows = score_rows(results)
    windows, count = next(iter(results.values())).windows, len(predictor.names)
    lines = [
        "## Test",
        "",
        f"Means over {windows:,} windows of the test part, {predictor.horizon} lead times and {count} "
        f"variable{'s' if count > 1 else ''}. Nothing was fitted again in between. Seasonal naive is the last period "
        f"again (period {predictor.period}): a forecaster that does not beat it has learned nothing.",
        "",
    ]
    if "ridge" not in results:
        lines += ["Ridge regression is left out: without validation nothing chooses its penalty.", ""]
    lines += markdown_table(("forecaster", *names), rows)
    lines += [
        "",
        "`mse`, `mae` and `crps` are in the units of the data; `mase` is in units of the seasonal naive error on the "
        "training part, `smape` in percent. All are better when smaller, but the coverage, which should be the share "
        "that it names.",
        "",
    ]
    told = beaten(results)
    return [*lines, *([f"**{told}**", ""] if told else []), "![errors against the lead time](backtest.png)", ""]


def beaten(results: Mapping[str, Backtest]) -> str:
    """What did better than the network on the test part, in words; "" where nothing did."""
    errors = {name: float(result.scores["mse_scaled"].mean()) for name, result in results.items()}
    best = min(errors, key=lambda name: errors[name])
    if errors[best] >= errors["TPGN"]:
        return ""
    return (
        f"On the test part {best} had the smaller squared error, {errors[best] / errors['TPGN']:.2f} times that of "
        "TPGN: the forecast is TPGN's nevertheless."
    )


def _when(series: Series, row: int) -> str:
    time = series.clock.times(1, row)[0]
    if isinstance(series.clock.origin, str):
        return np.datetime_as_string(time, "s").replace("T", " ").removesuffix(" 00:00:00")
    return f"{time:g} {series.clock.unit}".strip()


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
