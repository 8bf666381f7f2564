"""The structure of a fitted map: its fixed points and cycles in the attractor, basins, and manifolds."""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

from dsrecon.analysis.basins import DIVERGED, ELSEWHERE, named
from dsrecon.analysis.found import Cycle
from dsrecon.analysis.homoclinic import Homoclinic
from dsrecon.analysis.manifolds import Manifold
from dsrecon.plot.canvas import DRAWN, PALETTE, REST, canvas, label, percent, plane
from dsrecon.plot.orbits import _airy
from dsrecon.plot.regions import BESIDE
from dsrecon.reconstruction import Reconstruction

MARKERS = {
    "stable node": ("o", PALETTE[0]),
    "stable focus": ("p", PALETTE[0]),
    "saddle": ("D", PALETTE[5]),
    "saddle-focus": ("X", PALETTE[5]),
    "unstable node": ("s", PALETTE[7]),
    "unstable focus": ("^", PALETTE[7]),
    "non-hyperbolic": ("*", PALETTE[2]),
    "border collision": ("P", PALETTE[2]),
}
"""Marker of each kind, and its colour for fixed points."""

UNSTABLE, STABLE = PALETTE[5], PALETTE[7]
CYCLES = tuple(PALETTE[i] for i in (2, 3, 4, 6, 1))  # of cycles, by period
ROWS = 12  # kinds named in a legend
BEYOND = 0.5  # widths of the attractor to each side that points are drawn in


def fixed_points(
    found: Iterable[Cycle], attractor: Any, *, model: Reconstruction | None = None, ax: Any = None
) -> Figure:
    """Fixed points and cycles of a fitted map, in its attractor, each kind with a marker of its own.

    With a `model` all is in the units of the data: three variables or more, the first three, in space; two, their
    plane; one, `x(t)` against `x` a step later. Without, in the plane of the two least correlated units of the state.
    The points of a cycle are joined in their order, in a colour of its period. What lies more than half a width beside
    the attractor is not drawn, but counted.

    **Arguments:** `found`: a `Found`, or cycles; `attractor`: with a model a `DataArray(time, variable)`, as a free run
    gives it, else states `[t, m]`; `model`: the reconstruction that the cycles are of; `ax`: axes, or `None`.

    **Raises:** `ValueError` for an attractor of another size, and for axes of another projection.
    """
    listed = tuple(found)
    decode, orbit, names = _coordinates(attractor, model)
    shown = [decode(cycle.points) for cycle in listed]
    size = orbit.shape[1]
    figure, (panel,) = canvas(ax, 1, 1, (9.5, 6.0), "3d" if size == 3 else None)
    width = np.ptp(orbit, axis=0)
    width = np.where(width > 0, width, 1.0)
    low, high = orbit.min(0) - BEYOND * width, orbit.max(0) + BEYOND * width
    inside = [bool(((z >= low) & (z <= high)).all()) for z in shown]
    panel.plot(*orbit[:DRAWN].T, ".", color="#BEBEBE", markersize=1.5, markeredgewidth=0, zorder=1)
    groups: dict[str, list[int]] = {}
    for i, cycle in enumerate(listed):
        if inside[i]:
            groups.setdefault(_words(cycle), []).append(i)
    for row, (name, members) in enumerate(groups.items()):
        drawn = [shown[i] for i in members]
        cycle = listed[members[0]]
        marker, colour = MARKERS[cycle.kind]
        colour = colour if cycle.period == 1 else CYCLES[(cycle.period - 2) % len(CYCLES)]
        again = [listed[others[0]].kind for others in [*groups.values()][:row]].count(cycle.kind)
        if cycle.period == 1 and again:  # the same kind with other dimensions
            colour = CYCLES[(again - 1) % len(CYCLES)]
        text = f"{name}{f' ({len(members)})' if len(members) > 1 else ''}"
        for z in drawn if cycle.period > 1 else ():
            panel.plot(*np.concatenate([z, z[:1]]).T, color=colour, linewidth=0.8, alpha=0.6, zorder=2)
        points = np.concatenate(drawn)
        style = {"markersize": 9 if cycle.period == 1 else 5, "markeredgecolor": "white", "zorder": 4}
        note = text if row < ROWS else "_" + text
        panel.plot(*points.T, marker, color=colour, label=note, **style)
    everything = np.concatenate([orbit, *(z for z, good in zip(shown, inside, strict=True) if good)])
    margin = 0.05 * width
    for axis, text, a, b in zip("xyz", names, everything.min(0) - margin, everything.max(0) + margin, strict=False):
        panel.set(**{f"{axis}label": text, f"{axis}lim": (a, b)})
    if size == 3:
        _airy(panel)
    _legend(panel, size, [*groups][ROWS:])
    out = inside.count(False)
    if out:
        panel.set_title(f"{out} of {len(listed)} lie outside the frame", fontsize="small")
    return figure


def basins(found: xr.Dataset, *, ax: Any = None) -> Figure:
    """What `analysis.basins` gave: the plane of starts, coloured by where their orbits end, with the stable cycles.

    White: diverged. Grey: bounded, but at no listed cycle. Points of cycles are drawn where they lie in the plane.

    **Arguments:** `found`; `ax`: axes, or `None`; draw `manifolds` into the same.

    **Raises:** `ValueError` for another dataset.
    """
    if not {"label", "share", "direction"} <= set(found.data_vars):
        raise ValueError(f"found must be what analysis.basins gave: got a dataset with {sorted(map(str, found))}.")
    figure, (panel,) = canvas(ax, 1, 1, (8.5, 6.0))
    labels = [int(i) for i in found["attractor"].values]
    stable = [i for i in labels if i >= 0]
    colours = {i: _light(PALETTE[k % len(PALETTE)]) for k, i in enumerate(stable)}
    colours |= {ELSEWHERE: to_rgb("#C9C9C9"), DIVERGED: (1.0, 1.0, 1.0)}
    order = np.array(labels)
    rank = np.argsort(order)
    picture = rank[np.searchsorted(order, found["label"].values, sorter=rank)]
    across, up = found["across"].values, found["up"].values
    half = [(x[1] - x[0]) / 2 for x in (across, up)]
    panel.imshow(
        picture,
        cmap=ListedColormap([colours[i] for i in labels]),
        vmin=-0.5,
        vmax=len(labels) - 0.5,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(across[0] - half[0], across[-1] + half[0], up[0] - half[1], up[-1] + half[1]),
        zorder=0,
    )
    for i, name, share in zip(labels, found["name"].values, found["share"].values, strict=True):
        if share or i >= 0:
            style = {"color": colours[i], "markeredgecolor": "#777777", "markeredgewidth": 0.5, "markersize": 9}
            panel.plot([], [], "s", label=f"{name} ({percent(float(share))})", **style)
    points, owner = _in_plane(found)
    for i in stable:
        x, y = points[owner == i].T
        panel.plot(x, y, "o", color=PALETTE[stable.index(i) % len(PALETTE)], markeredgecolor="white", zorder=5)
    own = int(found.attrs["own_axes"])
    panel.set(xlabel="unit 0" if own else "across", ylabel="unit 1" if own else "up")
    panel.legend(**BESIDE)
    return figure


def manifolds(
    unstable: Manifold | None,
    stable: Manifold | None,
    homoclinic: Homoclinic | None = None,
    *,
    model: Reconstruction | None = None,
    ax: Any = None,
) -> Figure:
    """The unstable and the stable manifold of cycles, with the cycles, and the points where they meet.

    In the units of the state; of more than three, or with a `model`, whatever comes first: two or three units, or
    variables in the units of the data (the corners of each piece are decoded).

    **Arguments:** either manifold may be `None`; `homoclinic`: what `homoclinic_points` gave; `ax`: axes (those of
    `basins`, say; their frame is kept), or `None`.

    **Raises:** `ValueError` without any manifold, for a model of one variable, and for axes of another projection.
    """
    drawn = [x for x in (stable, unstable) if x is not None]
    if not drawn:
        raise ValueError("manifolds must be given at least one: both unstable and stable are None.")
    decode, names = _shown(drawn[0].cycle.points, model)
    size = len(names)
    figure, (panel,) = canvas(ax, 1, 1, (9.0, 6.0), "3d" if size == 3 else None)
    kept = None if ax is None else [getattr(panel, f"get_{axis}lim")() for axis in "xyz"[:size]]
    for manifold in drawn:
        colour = UNSTABLE if manifold.direction == "unstable" else STABLE
        lines = [decode(line) for line in manifold.lines()]
        panel.add_collection(_collection(lines, manifold.dimension, size, colour))
        name = f"{manifold.direction} manifold{'' if manifold.complete else ' (in part)'}"
        panel.plot([], [], *([[]] if size == 3 else []), color=colour, label=name)
    ends = np.concatenate([decode(x.vertices.reshape(-1, x.vertices.shape[-1])) for x in drawn if len(x)])
    for cycle in _once([x.cycle for x in drawn]):
        style = {"markersize": 8, "markeredgecolor": "white", "color": "#333333", "zorder": 5}
        panel.plot(*decode(cycle.points).T, MARKERS[cycle.kind][0], label=_words(cycle), **style)
    if homoclinic is not None and len(homoclinic):
        kind = "heteroclinic" if homoclinic.heteroclinic else "homoclinic"
        name = f"{kind} point{'s' if len(homoclinic) > 1 else ''} ({len(homoclinic):,})"
        style = {"markersize": 4, "markeredgewidth": 0.4, "color": "#F0C000", "markeredgecolor": "#333333"}
        panel.plot(*decode(homoclinic.points).T, "o", label=name, zorder=4, **style)
    low, high = ends.min(0), ends.max(0)
    margin = 0.05 * np.where(high > low, high - low, 1.0)
    frame = kept or list(zip(low - margin, high + margin, strict=True))
    for axis, text, limits in zip("xyz", names, frame, strict=False):
        panel.set(**{f"{axis}lim": limits} | ({f"{axis}label": text} if ax is None else {}))
    if size == 3:
        _airy(panel)
        _by_zorder(panel)
    _legend(panel, size, [])
    return figure


def _by_zorder(panel: Any) -> None:
    """Drawn in the order that is asked for, not by depth: curves stay visible through surfaces."""
    panel.computed_zorder = False


def _collection(lines: list[np.ndarray], dimension: int, size: int, colour: str) -> Any:
    """Curves, or polygons, in two or three dimensions."""
    if dimension == 1:
        made = (Line3DCollection if size == 3 else LineCollection)(lines, colors=colour, linewidths=0.9)
        made.set_zorder(2)
        return made
    style = {"facecolors": (*to_rgb(colour), 0.14), "edgecolors": (*to_rgb(colour), 0.5), "linewidths": 0.3}
    return (Poly3DCollection if size == 3 else PolyCollection)(lines, **style)


def _coordinates(
    attractor: Any, model: Reconstruction | None
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray, list[str]]:
    """How points of a cycle `[k, m]` are shown, the orbit `[t, 2 or 3]`, and the names of the axes."""
    if model is None:
        orbit = np.asarray(attractor, np.float64)
        if orbit.ndim != 2 or orbit.shape[1] < 2 or len(orbit) < 2 or not np.isfinite(orbit).all():
            raise ValueError(f"attractor must be finite states [t, m], m at least 2: got shape {list(orbit.shape)}.")
        i, j = plane(orbit)
        return lambda z: z[:, [i, j]], orbit[:, [i, j]], [f"unit {i}", f"unit {j}"]
    if not isinstance(attractor, xr.DataArray) or attractor.ndim != 2 or attractor.shape[1] != len(model.names):
        raise ValueError(f"attractor must be a DataArray(time, variable) of {model.names}, given a model.")
    orbit = attractor.values[:, :3]
    orbit = orbit[np.isfinite(orbit).all(1)]
    if orbit.shape[1] > 1:
        names = [label(attractor, i) for i in range(orbit.shape[1])]
        return lambda z: _observed(model, z)[:, :3], orbit, names
    orbit = np.hstack([orbit[:-1], orbit[1:]])
    names = [label(attractor, 0, "(t)"), label(attractor, 0, "(t + 1 step)")]
    return lambda z: np.hstack([x := _observed(model, z), np.roll(x, -1, axis=0)]), orbit, names


def _shown(points: np.ndarray, model: Reconstruction | None) -> tuple[Callable[[np.ndarray], np.ndarray], list[str]]:
    if model is None:
        size = min(3, points.shape[1])
        if size < 2:
            raise ValueError("manifolds must be of a cell of at least 2 units to be drawn: got 1.")
        return lambda z: z[:, :size], [f"unit {i}" for i in range(size)]
    size = min(3, len(model.names))
    if size < 2:
        raise ValueError("model must show at least 2 variables for manifolds to be drawn in them: it has 1.")
    units = [f"{name} ({unit})" if unit else name for name, unit in zip(model.names, model.units, strict=True)]
    return lambda z: _observed(model, z)[:, :size], units[:size]


def _observed(model: Reconstruction, z: np.ndarray) -> np.ndarray:
    return np.asarray(model.observe(jnp.asarray(z, jnp.result_type(float))))


def _in_plane(found: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The points of cycles that lie in the plane and its frame: `[k, 2]`, across and up, and their labels."""
    D = found["direction"].values
    gap = found["point"].values - found["origin"].values
    place = np.linalg.lstsq(D.T, gap.T)[0].T
    across, up = found["across"].values, found["up"].values
    near = np.linalg.norm(gap - place @ D, axis=1) <= 1e-6 * (1 + np.abs(gap).max(initial=0.0))
    near &= (place >= [across[0], up[0]]).all(1) & (place <= [across[-1], up[-1]]).all(1)
    return place[near], found["point_label"].values[near]


def _words(cycle: Cycle) -> str:
    """ "saddle-focus, 2 unstable", "cycle of 3: saddle, 1 unstable"."""
    unstable = cycle.stability.unstable
    return f"{named(cycle)}{f', {unstable} unstable' if unstable else ''}"


def _once(cycles: list[Cycle]) -> list[Cycle]:
    kept: list[Cycle] = []
    for cycle in cycles:
        if not any(np.array_equal(cycle.points, other.points) for other in kept):
            kept.append(cycle)
    return kept


def _light(colour: str) -> tuple[float, float, float]:
    """Half way to white: behind what is drawn on it."""
    r, g, b = (0.55 * x + 0.45 for x in to_rgb(colour))
    return r, g, b


def _legend(panel: Any, size: int, rest: list[str]) -> None:
    if rest:
        panel.plot([], [], *([[]] if size == 3 else []), " ", label=f"and {len(rest)} kinds more", color=REST)
    if panel.get_legend_handles_labels()[1]:
        panel.legend(**BESIDE)
