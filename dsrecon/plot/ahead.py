"""Forecasts: what is expected after a series, and how far such forecasts were off."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dsrecon.plot.canvas import GENERATED, PALETTE, REST, TRUE, canvas, label, quantity
from dsrecon.series import Clock, Series, as_series

PANELS = 6
"""Variables of which a forecast is drawn, at most."""

FEW = 40
"""Points of a curve up to which each is marked."""

SCORES = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "mse_scaled": "mean squared error\n(variances of the training part)",
    "mae_scaled": "mean absolute error\n(standard deviations of the training part)",
    "mase": "mean absolute scaled error\n(seasonal naive on the training part: 1)",
    "smape": "symmetric error (%)",
    "crps": "CRPS",
}
"""How scores are called on an axis."""


@runtime_checkable
class Scored(Protocol):
    """What a backtest gives: `scores`, a Dataset along `lead` and `variable`."""

    @property
    def scores(self) -> xr.Dataset: ...


def forecast(prediction: xr.Dataset, context: Any = None, *, rows: int | None = None, ax: Any = None) -> Figure:
    """A forecast after the end of what it was made from, a panel a variable (the first six: take others by
    `prediction.sel(variable=[...])`), at real times.

    Quantiles are shaded, the outermost pair and those within it; a dotted line marks the last row that was known.

    **Arguments:**

    - `prediction`: what `Predictor.predict` gave.
    - `context`: what was observed, as `as_series` takes it, the forecast's variables among its own. At its own times:
      rows after the forecast was issued show what came. Without times its last row is the last one known.
    - `rows`: rows of the context to draw before the forecast (default: three horizons, at least 20).
    - `ax`: `None`, or axes, one for each of as many variables.

    **Raises:** `ValueError` for a context of other variables, or with dates where the forecast has numbers, and for
    rows below 1.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1: got {rows}.")
    point = prediction["forecast"]
    times, leads = prediction["time"].values, prediction.sizes["time"]
    seen = None if context is None else _observed(prediction, context, max(3 * leads, 20) if rows is None else rows)
    issued: Any = prediction["issue_time"].values[()]
    count = min(PANELS, prediction.sizes["variable"])
    figure, axes = canvas(ax, count, 1, (10.0, 1.0 + 2.4 * count))
    for i, panel in enumerate(axes[:count]):
        if seen is not None:
            panel.plot(seen[0], seen[1][:, i], color=TRUE, linewidth=1.1, label="observed")
        _shaded(panel, prediction, i)
        mark = {"marker": "o", "markersize": 3} if leads <= FEW else {}
        panel.plot(times, point.values[:, i], color=GENERATED, linewidth=1.4, label="forecast", **mark)
        panel.axvline(issued, color="#777777", linestyle=":", linewidth=1.0)
        panel.set_ylabel(label(point, i))
        panel.margins(x=0.01)
        panel.grid(alpha=0.25, linewidth=0.5)
        if np.issubdtype(times.dtype, np.datetime64):
            locator = AutoDateLocator()
            panel.xaxis.set_major_locator(locator)
            panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        if ax is None:
            panel.tick_params(labelbottom=i == count - 1)
            panel.sharex(axes[0]) if i else None
    unit = str(prediction.attrs.get("time_unit", ""))
    axes[min(count, len(axes)) - 1].set_xlabel(quantity("time", "" if unit == "datetime" else unit))
    above = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 4, "borderaxespad": 0.2}
    axes[0].legend(frameon=False, **above)
    return figure


def backtested(result: Scored, *, ax: Any = None) -> Figure:
    """Error against the lead time; beside it, where there were intervals, the share of observations that they covered,
    with the share that they name as a dashed line.

    The absolute error: of one variable in its units, of several in standard deviations of the training part, so that
    they can be laid over each other. More than eight variables are grey, their mean black.

    **Arguments:** `result`: what `backtest` gave; `ax`: `None`, or as many axes (one, or with intervals two).
    """
    scores = result.scores
    covered = "coverage" in scores
    figure, axes = canvas(ax, 1, 1 + covered, (10.0 if covered else 6.5, 3.8))
    alone = scores.sizes["variable"] == 1
    shown = "mae" if alone else "mae_scaled"
    panel = axes[0]
    _by_lead(panel, scores[shown])
    text = quantity(SCORES["mae"], str(scores["variable"].values[0])) if alone else SCORES[shown]
    panel.set(ylabel=text, ylim=(0, None))
    if covered:
        panel = axes[1]
        shares = scores["interval"].values
        widest = scores["coverage"].sel(interval=shares.max())
        panel.axhline(float(shares.max()), color="#777777", linestyle="--", linewidth=1.0)
        _by_lead(panel, widest)
        least = float(np.nanmin(widest.values))
        panel.set(ylabel=f"covered by the {shares.max():.0%} interval", ylim=(min(0.9 * least, 0.5), 1.02))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if not alone:
        axes[0].legend(frameon=False, fontsize="small", ncols=2)
    return figure


def compared(results: Mapping[str, Scored], *, score: str = "mse_scaled", ax: Any = None) -> Figure:
    """One score of several forecasters against the lead time, as a mean over the variables.

    **Arguments:** `results`: by name, what `backtest` gave; `score`: any of its scores, but the coverage; `ax`: axes to
    draw into, or `None`.

    **Raises:** `ValueError` for no results, a score that one of them lacks, and results of other variables.
    """
    if not results:
        raise ValueError("results must hold at least one backtest: got none.")
    first = next(iter(results.values())).scores
    names = list(map(str, first["variable"].values))
    figure, (panel,) = canvas(ax, 1, 1, (6.5, 4.0))
    for k, (name, result) in enumerate(results.items()):
        scores = result.scores
        if list(map(str, scores["variable"].values)) != names:
            raise ValueError(
                f"results must be of the same variables: got {names} and {list(map(str, scores['variable'].values))}."
            )
        if score not in scores or scores[score].dims != ("lead", "variable"):
            found = [str(v) for v in scores.data_vars if scores[v].dims == ("lead", "variable")]
            raise ValueError(f"score must be one of {', '.join(found)}, those of {name}: got {score!r}.")
        colour = PALETTE[k] if k < len(PALETTE) else REST
        _line(panel, scores["lead"].values, scores[score].mean("variable").values, colour, name)
    panel.set(xlabel="lead time (steps)", ylabel=SCORES.get(score, score), ylim=(0, None))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.25, linewidth=0.5)
    panel.legend(frameon=False, fontsize="small")
    return figure


def _observed(prediction: xr.Dataset, context: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Times `[t]` and values `[t, n]` of the context, from `rows` before the forecast to its end."""
    series = as_series(context, calendar=True)
    names = [str(name) for name in prediction["variable"].values]
    if not set(names) <= set(series.names):
        default = tuple(f"x{i}" for i in range(len(names)))
        if series.names != default:
            raise ValueError(f"context must hold {names}, the variables of the forecast: got {list(series.names)}.")
        series = series._replace(names=tuple(names))
    issued = prediction["issue_time"].values
    dates = np.issubdtype(issued.dtype, np.datetime64)
    last = len(series.values) - 1
    times = _ending(series, prediction) if series.clock == Clock() else series.clock.times(len(series.values))
    if dates != np.issubdtype(times.dtype, np.datetime64):
        raise ValueError("context and forecast must both have dates, or both numbers, for times: got one of each.")
    half = (prediction["time"].values[0] - issued) / 2
    last = int(np.searchsorted(times, issued + half)) - 1
    end = int(np.searchsorted(times, prediction["time"].values[-1] + half))
    first = max(last + 1 - rows, 0)
    columns = [series.names.index(name) for name in names]
    return times[first:end], series.values[first:end][:, columns]


def _ending(series: Series, prediction: xr.Dataset) -> np.ndarray:
    """Times of rows that have none, the last of which is known when the forecast is issued."""
    first, issued = prediction["time"].values[0], prediction["issue_time"].values
    return issued + (first - issued) * np.arange(1 - len(series.values), 1)


def _shaded(panel: Axes, prediction: xr.Dataset, i: int) -> None:
    if "quantiles" not in prediction:
        return
    levels, values = prediction["quantile"].values, prediction["quantiles"].values[:, :, i]
    for k in range(len(levels) // 2):
        low, high = levels[k], levels[-1 - k]
        even = abs(low + high - 1) < 1e-9
        name = f"{100 * (high - low):.3g} % interval" if even else f"quantiles {low:g} to {high:g}"
        times = prediction["time"].values
        shade = 0.8 ** (k + 1)  # solid, so that the legend shows what is drawn; darker inside
        colour = tuple(shade + (1 - shade) * part for part in to_rgb(GENERATED))
        style = {"color": colour, "linewidth": 0, "label": name, "zorder": 1}
        if len(times) > 1:
            panel.fill_between(times, values[k], values[-1 - k], **style)
        else:  # an area has no width
            panel.vlines(times, values[k], values[-1 - k], **{**style, "linewidth": 8})


def _by_lead(panel: Axes, scores: xr.DataArray) -> None:
    """A curve a variable, against the lead time."""
    lead, count = scores["lead"].values, scores.sizes["variable"]
    for i in range(count):
        many = count > len(PALETTE)
        name = (f"{count} variables" if i == 0 else "") if many else str(scores["variable"].values[i])
        _line(panel, lead, scores.values[:, i], REST if many else PALETTE[i], name)
    if count > len(PALETTE):
        _line(panel, lead, scores.mean("variable").values, TRUE, "their mean")
    panel.set_xlabel("lead time (steps)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.25, linewidth=0.5)


def _line(panel: Axes, lead: np.ndarray, values: np.ndarray, colour: str, name: str) -> None:
    mark = {"marker": "o", "markersize": 3} if len(lead) <= FEW else {}
    panel.plot(lead, values, color=colour, linewidth=1.4, label=name or "_", **mark)
