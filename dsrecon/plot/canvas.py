"""What every figure shares: colours, axes, labels with units, the file."""

import io
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsrecon._files import replacing

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#5E3C99")
"""Of symbols 0 to 7: Okabe & Ito 2008, *Color universal design*; yellow darkened, black now violet."""

TRUE, GENERATED, REST = "#333333", "#D55E00", "#BBBBBB"
DRAWN = 20_000  # points of one curve: more only thicken it


class Drawing(Figure):
    """A matplotlib figure that a notebook shows as it is, without pyplot."""

    def _repr_png_(self) -> bytes:
        """The figure as PNG."""
        out = io.BytesIO()
        self.savefig(out, format="png")
        return out.getvalue()


def save(figure: Figure, path: str | os.PathLike, *, dpi: float = 100) -> Path:
    """Write a figure to a PNG file, atomically: a temporary file beside it, then a rename.

    **Returns:** the path. **Raises:** `OSError` that names the path when it cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return Path(path)


def canvas(
    ax: Any, rows: int, columns: int, size: tuple[float, float], projection: str | None = None
) -> tuple[Figure, list[Axes]]:
    """A new `Drawing` of `rows * columns` axes (`size` in inches) where `ax` is `None`; else the axes given.

    **Raises:** `ValueError` for axes with another projection than the picture has.
    """
    if ax is None:
        figure = Drawing(figsize=size, layout="constrained")
        cells = [(rows, columns, i + 1) for i in range(rows * columns)]
        return figure, [bare(figure.add_subplot(*cell, projection=projection)) for cell in cells]
    axes = list(ax) if isinstance(ax, list | tuple | np.ndarray) else [ax]
    wanted = projection or "rectilinear"
    for panel in axes:
        if panel.name != wanted:
            raise ValueError(f"ax must have projection={wanted!r} for this picture: got {panel.name!r}.")
    return axes[0].get_figure(root=True), axes


def bare(panel: Axes) -> Axes:
    """The axes without the upper and right edge of their frame."""
    for side in ("top", "right"):
        if panel.name == "rectilinear":
            panel.spines[side].set_visible(False)
    return panel


def label(data: xr.DataArray, i: int, suffix: str = "") -> str:
    """Name of variable `i`, with its unit where it is known: "u (mV)"."""
    unit = str(data["unit"].values[i]) if "unit" in data.coords else ""
    return f"{data['variable'].values[i]}{suffix}{f' ({unit})' if unit else ''}"


def time_scale(data: xr.DataArray | xr.Dataset) -> tuple[float, str]:
    """Time step and its unit ("" when unknown); that of dates in seconds, minutes, hours or days as fits."""
    step, unit = float(data.attrs.get("time_step", 1.0)), str(data.attrs.get("time_unit", ""))
    if unit != "datetime":
        return step, unit
    units = ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "d"))
    seconds, unit = max(pair for pair in units if pair[0] <= max(20 * step, 1.0))
    return step / seconds, unit


def quantity(name: str, unit: str) -> str:
    """ "name (unit)", or the name alone when the unit is unknown."""
    return f"{name} ({unit})" if unit else name


def number(value: float) -> str:
    """Three figures, and no power of ten where digits do."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent that never rounds something to nothing."""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def plane(values: np.ndarray) -> tuple[int, int]:
    """The two columns of `[t, n]` to look at: the first pair whose correlation is near the smallest."""
    values = values[np.isfinite(values).all(1)]
    varying = [i for i in range(values.shape[1]) if np.ptp(values[:, i]) > 0]
    if len(varying) < 2:
        return 0, 1
    correlation = np.abs(np.corrcoef(values.T[varying]))
    pairs = list(combinations(range(len(varying)), 2))
    least = min(correlation[pair] for pair in pairs)
    i, j = next(pair for pair in pairs if correlation[pair] <= least + 0.1)
    return varying[i], varying[j]
