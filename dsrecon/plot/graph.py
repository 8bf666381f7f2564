"""The transition graph of a fitted map, drawn where its regions lie."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path

from dsrecon import symbolic
from dsrecon.plot.canvas import PALETTE, REST, canvas, label, number, percent, plane, time_scale
from dsrecon.plot.regions import BESIDE, view

PANEL = np.array([260.0, 190.0])  # points: the size of a panel that nodes must have room in
BEND = 0.25  # of an arrow, in parts of its length


class _Look(NamedTuple):
    """How a graph of some size is drawn: exits below `rare` are left out; lengths are in points."""

    rare: float
    least: float
    growing: float
    gap: float
    thin: float
    text: str


FEW, MANY = _Look(0.02, 6, 16, 14, 1.0, "small"), _Look(0.1, 4.5, 9, 5, 0.55, "x-small")
_LETTERS = "ABCDEFGH"


def transition_graph(encoded: xr.Dataset, *, ax: Any = None, most: int = 8) -> Figure:
    """The most visited regions at their mean states, and where the attractor goes when it leaves them.

    Area of a node: growing with its share of time. Width of an arrow: probability of that exit, written beside it where
    the figure is of its own and has up to eight regions; rare exits and those to regions that are not drawn are left
    out, the title says how rare. Self-transitions are no arrows but the ring of dots around a node, which is closed
    as far as the probability of staying one more step; the legend has the mean dwell time. Nodes that would cover
    each other are moved apart, a line leads to their mean. In the plane of `symbols`; with one variable, mean against
    share of time.

    Up to eight regions each have their colour. More are drawn smaller, in the colours of the communities
    (`symbolic.communities`) that they belong to.

    **Arguments:** `encoded`: what `symbolic.encode` gave; `ax`: axes to draw into, or `None`; `most`: how
    many regions. **Raises:** `ValueError` for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1: got {most}.")
    figure, (panel,) = canvas(ax, 1, 1, (9.0, 6.0))
    graph = symbolic.transition_graph(encoded)
    drawn = range(min(most, len(graph)))
    look = FEW if len(drawn) <= len(PALETTE) else MANY
    radius = np.array([look.least + look.growing * graph.nodes[k]["share"] ** 0.5 for k in drawn])
    mean = _ground(encoded, panel)[: len(drawn)]
    place = _apart(mean, radius, panel, look.gap, PANEL if ax is not None else 1.6 * PANEL)
    colours, handles, title = _colours(encoded, graph, len(drawn))
    for k in drawn:
        panel.plot(*np.stack([mean[k], place[k]]).T, color="#555555", linewidth=0.8, zorder=1)
        for j, edge in graph[k].items():
            if j in drawn and edge.get("exit_probability", 0) >= look.rare:
                _arrow(panel, place[[k, j]], radius[[k, j]], edge["exit_probability"], colours[k], look.thin)
                if ax is None and look is FEW:
                    _exit(panel, place[[k, j]], edge["exit_probability"], colours[k])
        staying = graph[k][k]["probability"] if graph.has_edge(k, k) else 0.0
        _node(panel, place[k], float(radius[k]), colours[k], str(k), staying, look)
    panel.legend(handles=handles, title=title, **BESIDE)
    panel.set_title(
        "node: share of time; arrow: probability of the exit"
        f"{'' if look is FEW else f' (from {percent(look.rare)})'}\nring of dots: probability of staying a step",
        fontsize="small",
    )
    return figure


def _colours(encoded: xr.Dataset, graph: Any, drawn: int) -> tuple[list[str], list[Line2D], str]:
    """Colour of each node, and the legend: dwell times of up to eight, else the communities."""
    rest = len(graph) - drawn
    more = [Line2D([], [], linestyle="", label=f"{rest} rarer region{'s' if rest > 1 else ''}\nnot drawn")]
    step, unit = time_scale(encoded)
    shown = step / encoded.attrs["time_step"]  # dates are kept in seconds and shown in what fits
    if drawn <= len(PALETTE):
        colours: list[str] = list(PALETTE[:drawn])
        names = [f"{k}: {_duration(graph.nodes[k].get('dwell_mean'), shown, unit)}" for k in range(drawn)]
        title = "mean dwell time"
    else:
        parts = symbolic.communities(graph)
        of = {node: k for k, part in enumerate(parts.members) for node in part}
        fan = [*PALETTE, *[REST] * max(0, len(parts.members) - len(PALETTE))]
        colours = [fan[of[k]] for k in range(drawn)]
        names = [
            f"{letter}: {len(part)} region{'s' if len(part) > 1 else ''},\n    {percent(share)} of the time"
            for letter, part, share in zip(_LETTERS, parts.members, parts.share, strict=False)
        ]
        title = f"communities (modularity {parts.modularity:.2f})"
        rare = parts.members[len(_LETTERS) :]
        if rare:
            names.append(f"other: {sum(map(len, rare))} regions")
        return colours, [*_dots(names, [*fan[: len(_LETTERS)], REST]), *(more if rest else [])], title
    return colours, [*_dots(names, colours), *(more if rest else [])], title


def _dots(names: list[str], colours: list[str]) -> list[Line2D]:
    pairs = zip(names, colours, strict=False)
    return [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in pairs]


def _duration(time: float | None, shown: float, unit: str) -> str:
    return "not seen whole" if time is None else f"{number(time * shown)} {unit}".strip()


def _node(panel: Axes, place: np.ndarray, radius: float, colour: str, name: str, staying: float, look: _Look) -> None:
    panel.plot(*place, "o", markersize=2 * radius, color=colour, markeredgecolor="white", zorder=3)
    x, y = place.tolist()
    panel.text(
        x, y, name, ha="center", va="center", color="white", size=look.text, zorder=4, gid="region", clip_on=True
    )
    if staying:
        angle = np.pi / 2 - np.linspace(0, 2 * np.pi * staying, 4 + round(60 * staying))
        ring = MarkerStyle(Path(np.stack([np.cos(angle), np.sin(angle)], axis=1)), fillstyle="none")
        size, width = (2 * radius + 6 * look.thin) ** 2, 0.3 + 1.2 * look.thin
        panel.scatter(x, y, s=size, marker=ring, color=colour, linewidth=width, linestyle=(0, (0.5, 1.5)), zorder=2.5)


def _ground(encoded: xr.Dataset, panel: Axes) -> np.ndarray:
    """Mean states, `[r, 2]`; labels the axes, sets their limits and draws the attractor."""
    observation, mean = encoded["observation"], encoded["mean"].values
    if mean.shape[1] == 1:
        panel.set(xlabel=label(observation, 0), ylabel="share of time")
        place = np.stack([mean[:, 0], encoded["visits"].values / encoded.sizes["time"]], axis=1)
        points = place
    else:
        points, (across, up) = view(encoded)
        panel.set(xlabel=across, ylabel=up)
        panel.plot(*points.T, color="#E4E4E4", linewidth=0.5, zorder=0)
        place = mean[:, list(plane(observation.values))]
    low, high = points.min(0), points.max(0)
    margin = 0.1 * np.where(high > low, high - low, 1.0)
    (left, bottom), (right, top) = low - margin, high + margin
    panel.set(xlim=(left, right), ylim=(bottom, top))
    return place


def _apart(mean: np.ndarray, radius: np.ndarray, panel: Axes, gap: float, size: np.ndarray) -> np.ndarray:
    """The places nearest to the means, roughly, at which the nodes do not cover each other."""
    low, high = np.array([panel.get_xlim(), panel.get_ylim()]).T
    place = (mean - low) / (high - low) * size
    least = radius[:, None] + radius + gap
    golden = 2.4 * np.arange(len(place))  # sets even equal places apart, always the same way
    place = place + 1e-3 * np.stack([np.cos(golden), np.sin(golden)], axis=1)
    for _ in range(200):
        apart = place[:, None] - place
        distance = np.linalg.norm(apart, axis=2) + np.eye(len(place))
        push = np.clip(least - distance, 0, None) * (1 - np.eye(len(place)))
        place = place + 0.25 * (apart / distance[..., None] * push[..., None]).sum(1)
        place = np.clip(place, radius[:, None], size - radius[:, None])
    return low + place / size * (high - low)


def _arrow(panel: Axes, place: np.ndarray, radius: np.ndarray, probability: float, colour: str, thin: float) -> None:
    """A bent arrow from the rim of one node to that of another."""
    width = thin * (0.7 + 2.8 * probability)
    head = 3.0 * thin + 1.6 * width
    arrow = FancyArrowPatch(
        *place.tolist(),
        arrowstyle=f"-|>,head_length={head:.1f},head_width={0.5 * head:.1f}",
        connectionstyle=f"arc3,rad={BEND}",
        mutation_scale=1,
        shrinkA=float(radius[0]) + 3 * thin,
        shrinkB=float(radius[1]) + 4 * thin,
        linewidth=width,
        color=colour,
        zorder=2,
    )
    panel.add_patch(arrow)


def _exit(panel: Axes, place: np.ndarray, probability: float, colour: str) -> None:
    """The probability of an exit beside its arrow, in the middle of the bend."""
    low, high = np.array([panel.get_xlim(), panel.get_ylim()]).T
    start, end = (place - low) / (high - low) * PANEL
    along, up = end - start
    middle = (start + end) / 2 + 0.5 * BEND * np.array([up, -along])  # of matplotlib's quadratic curve
    x, y = (low + middle / PANEL * (high - low)).tolist()
    text = f"{probability:.2f}".removeprefix("0")
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    panel.text(x, y, text, ha="center", va="center", color=colour, size="small", bbox=box, zorder=3.5, gid="exit")
