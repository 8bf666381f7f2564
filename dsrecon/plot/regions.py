"""The regions of a fitted map: where they lie on the attractor, and how it passes from one to the next."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from dsrecon import symbolic
from dsrecon.plot.canvas import (
    DRAWN,
    PALETTE,
    REST,
    canvas,
    label,
    number,
    percent,
    plane,
    quantity,
    time_scale,
)

RARE = 0.02  # exits below this share are not drawn
TRACE = 2000  # steps of a trace over time
PANEL = np.array([260.0, 190.0])  # points: the size of a panel that nodes must have room in
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
    points, (across, up) = _view(encoded)
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


def transition_graph(encoded: xr.Dataset, *, ax: Any = None, most: int = 8) -> Figure:
    """The most visited regions at their mean states, and where the attractor goes when it leaves them.

    Area of a node: growing with its share of time. Width of an arrow: probability of that exit; exits rarer
    than 2 % and those to regions that are not drawn are left out. Nodes that would cover each other are moved
    apart, a line leads to their mean. In the plane of `symbols`; with one variable, mean against share of
    time.

    **Arguments:** `encoded`: what `symbolic.encode` gave; `ax`: axes to draw into, or `None`; `most`: how
    many regions. **Raises:** `ValueError` for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1: got {most}.")
    figure, (panel,) = canvas(ax, 1, 1, (9.0, 6.0))
    graph = symbolic.transition_graph(encoded)
    drawn = range(min(most, len(graph)))
    radius = np.array([6 + 16 * graph.nodes[k]["share"] ** 0.5 for k in drawn])
    mean = _ground(encoded, panel)[: len(drawn)]
    place = _apart(mean, radius, panel)
    for k in drawn:
        panel.plot(*np.stack([mean[k], place[k]]).T, color="#555555", linewidth=0.8, zorder=1)
        for j, edge in graph[k].items():
            if j in drawn and edge.get("exit_probability", 0) >= RARE:
                _arrow(panel, place[[k, j]], radius[[k, j]], edge["exit_probability"], _colour(k))
        size = 2 * float(radius[k])
        panel.plot(*place[k], "o", markersize=size, color=_colour(k), markeredgecolor="white", zorder=3)
        x, y = place[k]
        panel.text(x, y, str(k), ha="center", va="center", color="white", size="small", zorder=4)
    _dwell_legend(panel, encoded, [graph.nodes[k].get("dwell_mean") for k in drawn], len(graph))
    panel.set_title("node size: share of time\narrow width: probability of the exit", fontsize="small")
    return figure


def _dwell_legend(panel: Axes, encoded: xr.Dataset, dwell: list[float | None], regions: int) -> None:
    """Mean dwell time of each region that is drawn, and how many are not."""
    step, unit = time_scale(encoded)
    shown = step / encoded.attrs["time_step"]  # dates are kept in seconds and shown in what fits
    handles = [
        Line2D([], [], marker="o", linestyle="", color=_colour(k), label=f"{k}: {_duration(time, shown, unit)}")
        for k, time in enumerate(dwell)
    ]
    rest = regions - len(dwell)
    if rest:
        name = f"{rest} rarer region{'s' if rest > 1 else ''}\nnot drawn"
        handles.append(Line2D([], [], linestyle="", label=name))
    panel.legend(handles=handles, title="mean dwell time", **BESIDE)


def _duration(time: float | None, shown: float, unit: str) -> str:
    return "not seen whole" if time is None else f"{number(time * shown)} {unit}".strip()


def _view(encoded: xr.Dataset) -> tuple[np.ndarray, tuple[str, str]]:
    """Points `[t, 2]` to draw and the labels of their axes."""
    observation = encoded["observation"]
    values = observation.values
    if values.shape[1] == 1:
        step, unit = time_scale(encoded)
        points = np.stack([np.arange(len(values)) * step, values[:, 0]], axis=1)
        return points[:TRACE], (quantity("time since start", unit), label(observation, 0))
    i, j = plane(values)
    return values[:DRAWN, [i, j]], (label(observation, i), label(observation, j))


def _ground(encoded: xr.Dataset, panel: Axes) -> np.ndarray:
    """Mean states, `[r, 2]`; labels the axes, sets their limits and draws the attractor."""
    observation, mean = encoded["observation"], encoded["mean"].values
    if mean.shape[1] == 1:
        panel.set(xlabel=label(observation, 0), ylabel="share of time")
        place = np.stack([mean[:, 0], encoded["visits"].values / encoded.sizes["time"]], axis=1)
        points = place
    else:
        points, (across, up) = _view(encoded)
        panel.set(xlabel=across, ylabel=up)
        panel.plot(*points.T, color="#E4E4E4", linewidth=0.5, zorder=0)
        place = mean[:, list(plane(observation.values))]
    low, high = points.min(0), points.max(0)
    margin = 0.1 * np.where(high > low, high - low, 1.0)
    (left, bottom), (right, top) = low - margin, high + margin
    panel.set(xlim=(left, right), ylim=(bottom, top))
    return place


def _apart(mean: np.ndarray, radius: np.ndarray, panel: Axes) -> np.ndarray:
    """The places nearest to the means, roughly, at which the nodes do not cover each other."""
    low, high = np.array([panel.get_xlim(), panel.get_ylim()]).T
    place = (mean - low) / (high - low) * PANEL
    least = radius[:, None] + radius + 14.0
    golden = 2.4 * np.arange(len(place))  # sets even equal places apart, always the same way
    place = place + 1e-3 * np.stack([np.cos(golden), np.sin(golden)], axis=1)
    for _ in range(100):
        apart = place[:, None] - place
        distance = np.linalg.norm(apart, axis=2) + np.eye(len(place))
        push = np.clip(least - distance, 0, None) * (1 - np.eye(len(place)))
        place = place + 0.25 * (apart / distance[..., None] * push[..., None]).sum(1)
        place = np.clip(place, radius[:, None], PANEL - radius[:, None])
    return low + place / PANEL * (high - low)


def _arrow(panel: Axes, place: np.ndarray, radius: np.ndarray, probability: float, colour: str) -> None:
    """A bent arrow from the rim of one node to that of another."""
    width = 0.7 + 2.8 * probability
    head = 3.0 + 1.6 * width
    arrow = FancyArrowPatch(
        *place.tolist(),
        arrowstyle=f"-|>,head_length={head:.1f},head_width={0.5 * head:.1f}",
        connectionstyle="arc3,rad=0.25",
        mutation_scale=1,
        shrinkA=float(radius[0]),
        shrinkB=float(radius[1]) + 1,
        linewidth=width,
        color=colour,
        zorder=2,
    )
    panel.add_patch(arrow)


def _colour(k: int) -> str:
    return PALETTE[k] if k < len(PALETTE) else REST
