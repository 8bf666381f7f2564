"""Cycles of a family of maps against its parameter, with what happens to them."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsrecon.analysis.branches import Branch, Continuation
from dsrecon.plot.canvas import PALETTE, REST, TRUE, canvas

MARKERS = {
    "persistence": "o",
    "non-smooth fold": "v",
    "border collision": "s",
    "flip": "D",
    "Neimark-Sacker": "P",
    "escape to infinity": "^",
    "line of cycles": "*",
}
"""Of the kinds of events."""


def bifurcation(
    continuation: Continuation, variable: int = 0, orbit: Any = None, *, name: str = "parameter", ax: Any = None
) -> Figure:
    """The bifurcation diagram: one unit of all points of all cycles against the parameter.

    Lines are whole where a cycle is stable, dashed where it is not, coloured by period. Events are marked and named;
    those at which no point is finite stand at the lower edge. The frame is that of the attractor where `orbit` is
    given, else of the cycles but for the tenth of their points that lies furthest out.

    **Arguments:** `continuation`; `variable`: which unit; `orbit`: what orbits come to at its values, `[v, n, m]` or
    `[v, b, n, m]` as `asymptotic_orbits` gives them, drawn underneath; `name` of the parameter; `ax`: axes or `None`.

    **Raises:** `ValueError` for a unit that the cells do not have, and an orbit with another number of values.
    """
    points = _checked(continuation, variable, orbit)
    figure, (panel,) = canvas(ax, 1, 1, (9.0, 5.5))
    values, periods = continuation.values, sorted({branch.period for branch in continuation.branches})
    if points is not None:
        at = np.repeat(values, points.shape[1])
        panel.plot(at, points.reshape(-1), ",", color=REST, zorder=1)
    colours = {period: PALETTE[i % len(PALETTE)] for i, period in enumerate(periods)}
    for branch in continuation.branches:
        _branch(panel, branch, variable, colours[branch.period])
    low, high = _frame(continuation, variable, points)
    panel.set(xlim=(values[0], values[-1]), ylim=(low, high), xlabel=name, ylabel=f"z{variable}")
    kinds = []
    for event in continuation.events:
        panel.axvline(event.value, color="#DDDDDD", linewidth=0.8, zorder=0)
        for y in _heights(continuation, event, variable) or [low]:
            panel.plot(
                event.value, y, MARKERS[event.kind], color=TRUE, markersize=6, markerfacecolor="white",
                clip_on=y != low, zorder=5,
            )  # fmt: skip
        kinds.append(event.kind)
    handles = [Line2D([], [], color=colours[k], label="fixed point" if k == 1 else f"{k}-cycle") for k in periods]
    handles += [
        Line2D([], [], color=TRUE, linestyle="-", label="stable"),
        Line2D([], [], color=TRUE, linestyle="--", label="unstable"),
    ]
    handles += [
        Line2D([], [], marker=MARKERS[kind], linestyle="", color=TRUE, markerfacecolor="white", label=kind)
        for kind in dict.fromkeys(kinds)
    ]
    if points is not None:
        handles.append(Line2D([], [], marker="o", markersize=3, linestyle="", color=REST, label="orbits"))
    panel.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    return figure


def _checked(continuation: Continuation, variable: int, orbit: Any) -> np.ndarray | None:
    """The unit of the orbits, `[v, n]`."""
    sizes = {branch.points.shape[-1] for branch in continuation.branches}
    z = None if orbit is None else np.asarray(orbit)
    if z is not None and (z.ndim not in (3, 4) or len(z) != len(continuation.values)):
        raise ValueError(
            f"orbit must be [v, n, m] or [v, b, n, m] at the {len(continuation.values)} values of the continuation: "
            f"got shape {list(z.shape)}."
        )
    sizes |= set() if z is None else {z.shape[-1]}
    if sizes and not 0 <= variable < min(sizes):
        raise ValueError(f"variable must be a unit from 0 to {min(sizes) - 1}: got {variable}.")
    return None if z is None else z[..., variable].reshape(len(z), -1)


def _branch(panel: Any, branch: Branch, variable: int, colour: str) -> None:
    """Every point of a cycle as a curve, whole where it is stable; a step between the two belongs to its left end."""
    y, stable = branch.points[:, :, variable], branch.stable
    inner = np.array([kind not in ("non-hyperbolic", "border collision") for kind in branch.kinds])
    for first in range(len(branch.values) - 1):
        ends = [i for i in (first, first + 1) if inner[i]]
        style: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 1.0}
        if ends and all(stable[i] for i in ends):
            style = {"linestyle": "-", "linewidth": 1.8}
        panel.plot(branch.values[first : first + 2], y[first : first + 2], color=colour, zorder=3, **style)
    if len(branch.values) == 1:
        panel.plot(np.repeat(branch.values, y.shape[1]), y[0], ".", color=colour, zorder=3)


def _heights(continuation: Continuation, event: Any, variable: int) -> list[float]:
    """Where the cycles of an event are, at its value."""
    heights: list[float] = []
    for i in event.branches:
        branch = continuation.branches[i]
        if event.kind in ("escape to infinity", "line of cycles"):
            continue
        inside = np.flatnonzero(branch.values == event.value)
        if len(inside):
            heights += branch.points[inside[0], :, variable].tolist()
        elif branch.values[0] < event.value < branch.values[-1]:
            curves = branch.points[:, :, variable].T
            heights += [float(np.interp(event.value, branch.values, y)) for y in curves]
    return sorted(set(np.round(heights, 12)))


def _frame(continuation: Continuation, variable: int, points: np.ndarray | None) -> tuple[float, float]:
    if points is not None and np.isfinite(points).any():
        y = points[np.isfinite(points)]
        low, high = float(y.min()), float(y.max())
        stable = [b.points[b.stable][..., variable].reshape(-1) for b in continuation.branches]
        y = np.concatenate([*stable, [low, high]])
        low, high = float(y.min()), float(y.max())
    elif continuation.branches:
        y = np.concatenate([branch.points[..., variable].reshape(-1) for branch in continuation.branches])
        low, high = (float(x) for x in np.quantile(y, [0.05, 0.95]))
    else:
        low, high = -1.0, 1.0
    margin = 0.15 * ((high - low) or 1.0)
    return low - margin, high + margin
