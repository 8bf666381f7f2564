"""The regions of a fitted map: where they lie on the attractor."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsrecon.plot.canvas import DRAWN, PALETTE, REST, canvas, label, percent, plane, quantity, time_scale

TRACE = 2000  # steps of a trace over time
BESIDE = {
    "loc": "upper left",
    "bbox_to_anchor": (1.0, 1.0),
    "frameon": False,
    "fontsize": "small",
    "title_fontsize": "small",
}


def symbols(encoded: xr.Dataset, *, ax: Any = None) -> Figure:
    """What `symbolic.encode` gave, coloured by symbol: the eight most visited regions in colour, all others
    in grey.

    In the plane of the two least correlated variables; over time (2000 steps) where there is only one.

    **Arguments:** `encoded`; `ax`: axes to draw into, or `None`.
    """
    figure, (panel,) = canvas(ax, 1, 1, (9.0, 6.0))
    points, (across, up) = view(encoded)
    panel.set(xlabel=across, ylabel=up)
    symbol = encoded["symbol"].values[: len(points)]
    share = encoded["visits"].values / encoded.sizes["time"]
    shown = min(len(share), len(PALETTE))
    names = [f"{k} ({percent(share[k])})" for k in range(shown)]
    rest = len(share) - shown
    if rest:
        names.append(f"other ({rest} region{'s' if rest > 1 else ''}, {percent(share[shown:].sum())})")
    handles = []
    for k, (name, colour) in enumerate(zip(names, (*PALETTE[:shown], REST), strict=False)):
        x, y = points[symbol == k if k < shown else symbol >= shown].T
        panel.plot(x, y, ".", markersize=3, color=colour, markeredgewidth=0, zorder=1 if k == shown else 2)
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, label=name))
    panel.legend(handles=handles, title="region (share of time)", **BESIDE)
    return figure


def view(encoded: xr.Dataset) -> tuple[np.ndarray, tuple[str, str]]:
    """Points `[t, 2]` to draw and the labels of their axes."""
    observation = encoded["observation"]
    values = observation.values
    if values.shape[1] == 1:
        step, unit = time_scale(encoded)
        points = np.stack([np.arange(len(values)) * step, values[:, 0]], axis=1)
        return points[:TRACE], (quantity("time since start", unit), label(observation, 0))
    i, j = plane(values)
    return values[:DRAWN, [i, j]], (label(observation, i), label(observation, j))
