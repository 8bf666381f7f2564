"""A seed atlas on one page: how faithful its members are against how many regions they visit."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dsrecon.plot.canvas import REST, TRUE, canvas, number
from dsrecon.plot.regions import BESIDE

SPREAD = 0.6  # of one region: room of the dots that visit equally many
WIDE = 40  # visited regions from which their axis is logarithmic


def pareto(atlas: Any, *, floors: float = 2.0, ax: Any = None) -> Figure:
    """The members of a `seed_atlas`: how far they are from the truth, in floors, against the regions they visit.

    A dot is a member, coloured by its number `P` of piecewise-linear units; those of equally many regions stand side by
    side in the order of `P`. Its height is the larger of `d_stsp` and `d_h` over their floors: 1 is what another true
    stretch scores. The line joins the front, the members that nothing beats in both; the dashed line is at `floors`,
    and the ring marks `atlas.smallest(floors)` where there is one. Failed members are crosses along the upper edge.

    **Arguments:** `atlas`: what `seed_atlas` gave; `floors`: as for `Atlas.smallest`; `ax`: axes to draw into, or
    `None`.
    """
    figure, (panel,) = canvas(ax, 1, 1, (9.0, 5.5))
    table, chosen = atlas.table, atlas.within(floors)
    sound = (table["failure"].values == "") & np.isfinite(table["floors"].values) & (table["regions"].values > 0)
    place, height = _places(table), table["floors"].values
    units = [int(p) for p in np.unique(table["P"].values)]
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(units)))
    handles = []
    for p, shade in zip(units, shades, strict=True):
        own = sound & (table["P"].values == p)
        panel.plot(place[own], height[own], "o", color=shade, markersize=6, alpha=0.75, markeredgewidth=0, zorder=3)
        handles.append(Line2D([], [], marker="o", linestyle="", color=shade, label=f"P = {p}"))
    _stairs(panel, atlas.front, handles)
    _levels(panel, floors)
    if chosen.sizes["run"]:
        run = int(chosen["run"].values[0])
        panel.plot(place[run], height[run], "o", markersize=15, fillstyle="none", color=TRUE, markeredgewidth=1.6)
        name = f"run {run}: {int(table['regions'][run])} regions,\n{number(height[run])} floors"
        handles.append(
            Line2D([], [], marker="o", linestyle="", color=TRUE, markersize=11, fillstyle="none", label=name)
        )
    if not sound.all():
        failed = ~sound & (table["regions"].values > 0)
        panel.plot(place[failed], np.full(failed.sum(), 0.98), "x", color=REST, transform=panel.get_xaxis_transform())
        count = int((~sound).sum())
        handles.append(Line2D([], [], marker="x", linestyle="", color=REST, label=f"{count} failed"))
    panel.legend(handles=handles, **BESIDE)
    _axes(panel, table, height[sound])
    return figure


def _places(table: xr.Dataset) -> np.ndarray:
    """Where each member stands: at its number of regions, beside the others of that number."""
    regions, place = table["regions"].values, table["regions"].values.astype(float)
    if regions.max(initial=0) > WIDE:
        return place
    order = np.lexsort((table["floors"].values, table["P"].values))
    for count in np.unique(regions):
        together = [i for i in order if regions[i] == count]
        width = SPREAD * min(1.0, len(together) / 12)
        place[together] += np.linspace(-width / 2, width / 2, len(together)) if len(together) > 1 else 0.0
    return place


def _stairs(panel: Axes, front: xr.Dataset, handles: list[Line2D]) -> None:
    """The front as what is reached with at most so many regions."""
    if not front.sizes["run"]:
        return
    x, y = front["regions"].values.astype(float), front["floors"].values
    panel.step([*x, x[-1] + 0.5], [*y, y[-1]], where="post", color=TRUE, linewidth=1.2, zorder=2)
    handles.append(Line2D([], [], color=TRUE, linewidth=1.2, label="front"))


def _levels(panel: Axes, floors: float) -> None:
    """The floor, and so many of it."""
    for level, style, text in ((1.0, ":", "1 floor: another true stretch"), (floors, "--", f"{number(floors)} floors")):
        panel.axhline(level, linestyle=style, color="#777777", linewidth=1.0, zorder=1)
        panel.annotate(
            text,
            (0, level),
            (4, 3),
            xycoords=panel.get_yaxis_transform(),
            textcoords="offset points",
            color="#555555",
            fontsize="small",
        )


def _axes(panel: Axes, table: xr.Dataset, heights: np.ndarray) -> None:
    panel.set_yscale("log")
    most = int(table["regions"].max())
    if most > WIDE:
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
    else:
        panel.set_xlim(0.4, most + 0.8)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(heights):
        panel.set_ylim(min(0.8, 0.85 * heights.min()), max(3.0, 1.4 * heights.max()))
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(axis="y", alpha=0.25, linewidth=0.5)
    panel.set(xlabel="linear regions visited", ylabel="distance from the truth, in floors")
