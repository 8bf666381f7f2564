"""A fit on one page: its runs, its scores beside their floors, its attractor and its symbols."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dsrecon.plot.canvas import GENERATED, PALETTE, Drawing, bare, canvas, number
from dsrecon.plot.graph import transition_graph
from dsrecon.plot.orbits import attractor, series, spectra
from dsrecon.plot.regions import symbols
from dsrecon.reconstruction import Reconstruction


def runs(reconstruction: Reconstruction, *, ax: Any = None) -> Figure:
    """Validation scores of each run, the failed ones marked with their reason.

    **Arguments:** `reconstruction`: with a table of runs (`d_stsp`, `d_h`, `failure` along `run`); `ax`:
    `None` for one panel a score, or one axes for `d_stsp`, or a pair. **Raises:** `ValueError` without such a
    table.
    """
    found = reconstruction.runs
    if "run" not in found.dims or "failure" not in found:
        raise ValueError(f"the reconstruction has no table of runs: its record holds {sorted(map(str, found))}.")
    figure, axes = canvas(ax, 1, 2, (11.0, 4.2))
    reasons = [str(text) for text in found["failure"].values]
    for panel, (name, text) in zip(axes, (("d_stsp", "D_stsp"), ("d_h", "D_H")), strict=False):
        values = np.asarray(found[name].values, float)
        for k, (value, reason) in enumerate(zip(values, reasons, strict=True)):
            known = bool(np.isfinite(value))
            colour = GENERATED if reason else PALETTE[0]
            mark = "x" if reason or not known else "o"
            transform = panel.transData if known else panel.get_xaxis_transform()
            panel.plot([k], [value if known else 0.03], mark, color=colour, transform=transform, clip_on=False)
            if reason:
                at = (k, value if known else 0.03)
                where = "data" if known else panel.get_xaxis_transform()
                panel.annotate(
                    f"failed: {textwrap.shorten(reason, 40, placeholder=' …')}",
                    at,
                    (0, 8),
                    xycoords=where,
                    textcoords="offset points",
                    rotation=90,
                    ha="center",
                    va="bottom",
                    fontsize="small",
                    color=colour,
                )
        panel.set(xticks=range(len(values)), xlabel="run", ylabel=f"{text} on the validation stretch")
        panel.set(xlim=(-0.6, len(values) - 0.4))
        if np.isfinite(values).any():
            panel.set_ylim(0, 1.12 * float(np.nanmax(np.where(np.isfinite(values), values, np.nan))) or 1.0)
        panel.grid(axis="y", alpha=0.25, linewidth=0.5)
    return figure


def table(records: Sequence[Mapping[str, Any]], *, ax: Any = None) -> Figure:
    """Scores between their floors and ceilings.

    **Arguments:** `records`: dicts with keys `measure`, `value`, `floor`, `ceiling`, `definition`, `length`; a number
    that is unknown is `None` or NaN; `ax`: axes to draw into, or `None`. **Raises:** `KeyError` for a
    record without a key.
    """
    figure, (panel,) = canvas(ax, 1, 1, (6.0, 1.2 + 0.5 * len(records)))
    panel.set_axis_off()
    row = 1 / max(len(records) + 1.2, 9.0)
    columns = ((0.0, "left"), (0.5, "right"), (0.67, "right"), (0.84, "right"), (1.0, "right"))

    def write(y: float, texts: Sequence[str], **style: Any) -> None:
        for (x, side), text in zip(columns, texts, strict=True):
            panel.text(x, y, text, ha=side, va="center", transform=panel.transAxes, **style)

    write(1 - 0.5 * row, ("measure", "value", "floor", "ceiling", "steps"), weight="bold")
    panel.axhline(1 - row, color="#333333", linewidth=1.0)
    for k, record in enumerate(records):
        y = 1 - (1.4 + k) * row
        numbers = [_number(record[name]) for name in ("value", "floor", "ceiling", "length")]
        write(y, (str(record["measure"]), *numbers))
        definition = textwrap.shorten(str(record["definition"]), 62, placeholder=" …")
        panel.text(0, y - 0.34 * row, definition, va="center", fontsize="small", color="#777777")
    panel.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def summary(
    reconstruction: Reconstruction,
    true: xr.DataArray,
    generated: xr.DataArray,
    encoded: xr.Dataset,
    records: Sequence[Mapping[str, Any]],
) -> Figure:
    """One page, 1600 by 1000 pixels at 100 dpi: attractors, a stretch of both series, symbols, graph,
    spectrum, scores.

    **Arguments:** `reconstruction`; `true`, `generated`: `DataArray(time, variable)`; `encoded`: what
    `symbolic.encode` gave; `records`: as for `table`.
    """
    figure = Drawing(figsize=(16, 10), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(2.35, 1))[0]
    upper, middle, lower = left.subfigures(3, 1, height_ratios=(4.1, 2.4, 4.1))
    space = {"projection": "3d"} if true.sizes["variable"] > 2 else None
    attractor(true, generated, ax=[bare(panel) for panel in upper.subplots(1, 2, subplot_kw=space)])
    series(true, generated, ax=[bare(panel) for panel in middle.subplots(2, 1)])
    for draw, panel in zip((symbols, transition_graph), lower.subplots(1, 2), strict=True):
        draw(encoded, ax=bare(panel))
    top, bottom = right.subfigures(2, 1, height_ratios=(1, 1.9))
    spectra(true, generated, ax=bare(top.subplots()))
    table(records, ax=bottom.subplots())
    names = ", ".join(reconstruction.names)
    cell = type(reconstruction.cell).__name__
    count, _, gates = encoded.attrs["regions_visited"].partition(" of at most 2^")
    visited = f"{count} of at most $2^{{{gates}}}$ regions visited ({encoded.attrs['source']})"
    figure.suptitle(f"{cell} for {names}: {visited}", fontsize="x-large")
    return figure


def _number(value: Any) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:,}".replace(",", " ") if isinstance(value, int | np.integer) else number(value)
