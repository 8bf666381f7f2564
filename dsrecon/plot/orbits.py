"""The truth against what the fitted system generates: in state space, over time, over frequency."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d

from dsrecon.plot.canvas import DRAWN, GENERATED, TRUE, canvas, label, percent, quantity, time_scale
from dsrecon.series import filled

SMOOTHING = 20  # bins: as in the Hellinger distance of the spectra


def attractor(true: xr.DataArray, generated: xr.DataArray, *, ax: Any = None) -> Figure:
    """The true attractor against the generated one.

    Three variables or more: the first three, in space. Two: their plane. One: `x(t)` against `x(t + lag)`,
    the lag being where the autocorrelation of the truth falls below `1 / e`. The frame is that of the truth;
    the share of generated points outside it is said.

    **Arguments:** `true`, `generated`: `DataArray(time, variable)`; `ax`: `None` for two panels side by side,
    a pair of axes for those, or one to draw both into. **Raises:** `ValueError` for axes that are not
    three-dimensional where the picture is, and for a truth that holds infinity. Where it is missing (NaN) nothing is
    drawn.
    """
    _same(true, generated)
    names, reference, other = _coordinates(true, generated)
    figure, axes = canvas(ax, 1, 2, (11.0, 4.8), "3d" if len(names) == 3 else None)
    low, high = np.nanmin(reference, 0), np.nanmax(reference, 0)
    margin = 0.06 * np.where(high > low, high - low, 1.0)
    low, high = low - margin, high + margin
    inside = ((other >= low) & (other <= high)).all(1)
    share = 1 - float(inside.mean())
    note = f"generated, {percent(share)} of it outside the frame" if share else "generated"
    other = np.where(inside[:, None], other, np.nan)
    for i, (x, colour, name) in enumerate(((reference, TRUE, "true"), (other, GENERATED, note))):
        panel = axes[i % len(axes)]
        panel.plot(*x[:DRAWN].T, color=colour, linewidth=0.4, alpha=0.8, label=name)
        for axis, text, a, b in zip("xyz", names, low, high, strict=False):
            panel.set(**{f"{axis}label": text, f"{axis}lim": (a, b)})
        if len(axes) > 1:
            panel.set_title(name, color=colour)
        if len(names) == 3:
            _airy(panel)
    if len(axes) == 1:
        axes[0].legend(loc="upper right", frameon=False)
    return figure


def series(true: xr.DataArray, generated: xr.DataArray, *, span: float | None = None, ax: Any = None) -> Figure:
    """A stretch of the first variable of both, `span` of time long (default: about forty crossings of its mean).

    A chaotic system forgets its start, so the two are compared by their look, not point by point.

    **Arguments:** `true`, `generated`: `DataArray(time, variable)`; `ax`: `None`, or a pair of axes, one
    above the other.
    """
    _same(true, generated)
    figure, axes = canvas(ax, 2, 1, (10.0, 4.0))
    step, unit = time_scale(true)
    x = filled(true.values[:, :1])[:, 0]
    crossings = max(1, int(np.count_nonzero(np.diff(np.sign(x - x.mean())))))
    steps = 40 * len(x) // crossings if span is None else round(span / step)
    shown = min(len(x), max(50, steps))
    margin = 0.08 * (float(np.ptp(x)) or 1.0)
    curves = ((true, TRUE, "true"), (generated, GENERATED, "generated"))
    for panel, (data, colour, name) in zip(axes, curves, strict=True):
        y = data.values[:shown, 0]
        panel.plot(np.arange(len(y)) * step, y, color=colour, linewidth=1.1)
        panel.set(xlim=(0, shown * step), ylim=(x.min() - margin, x.max() + margin), ylabel=label(true, 0))
        panel.set_title(name, loc="left", fontsize="medium", color=colour)
    axes[0].tick_params(labelbottom=False)
    axes[1].set_xlabel(quantity("time since start", unit))
    return figure


def spectra(true: xr.DataArray, generated: xr.DataArray, *, ax: Any = None) -> Figure:
    """Power spectra of both, smoothed with a Gaussian of 20 bins and normalised to one, variable by variable.

    `p(f) = G * |FFT(x - mean x)|^2 / sum`, as in the Hellinger distance of spectra. Both are cut to the
    shorter length first, so that a bin is the same band; it spans eight decades below the largest share. Where the
    truth is missing (NaN) both are put on a line between the neighbours, as in `measures.d_h`.

    **Arguments:** `true`, `generated`: `DataArray(time, variable)`, at least 4 steps; `ax`: one axes for the
    first variable, several for as many; `None` for a panel a variable (the first nine).

    **Raises:** `ValueError` when a series is shorter or not finite: there is no spectrum then.
    """
    _same(true, generated)
    count = min(9, true.sizes["variable"])
    columns = min(3, count)
    rows = -(-count // columns)
    steps = min(true.sizes["time"], generated.sizes["time"])
    if steps < 4:
        raise ValueError(f"a spectrum takes at least 4 steps: got {steps}.")
    step, unit = time_scale(true)
    frequency = np.fft.rfftfreq(steps, step)[1:]
    figure, axes = canvas(ax, rows, columns, (max(4.0 * columns, 6.0), 0.6 + 2.9 * rows))
    for i, panel in enumerate(axes[:count]):
        gaps = np.isnan(true.values[:steps, i])
        shares = [_power(data, steps, i, gaps) for data in (true, generated)]
        for share, colour, name in zip(shares, (TRUE, GENERATED), ("true", "generated"), strict=True):
            panel.plot(frequency, share, color=colour, linewidth=1.4, label=name)
        top = max(float(np.max(shares)), 1e-12)
        panel.set(xscale="log", yscale="log", ylim=(top * 1e-8, top * 4), xlim=(frequency[0], frequency[-1]))
        panel.set(xlabel=quantity("frequency", f"1/{unit}" if unit else "1/time"), ylabel="share of power")
        panel.set_title(f"spectrum of {true['variable'].values[i]}", fontsize="medium")
        panel.grid(alpha=0.25, linewidth=0.5)
    for panel in axes[count:]:
        panel.set_axis_off()
    axes[0].legend(frameon=False, loc="lower left")
    return figure


def _same(true: xr.DataArray, generated: xr.DataArray) -> None:
    names = [tuple(map(str, data["variable"].values)) for data in (true, generated)]
    if names[0] != names[1]:
        raise ValueError(f"true and generated must have the same variables: got {names[0]} and {names[1]}.")
    if np.isinf(true.values).any():
        raise ValueError("true must be finite where it is observed: it holds infinity.")
    if np.isnan(true.values).all(0).any():
        raise ValueError("true must be observed in every variable: one is all NaN.")


def _coordinates(true: xr.DataArray, generated: xr.DataArray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Labels and columns of the two or three axes to draw in."""
    reference, other = true.values[:, :3], generated.values[:, :3]
    if reference.shape[1] > 1:
        return [label(true, i) for i in range(reference.shape[1])], reference, other
    x = filled(reference)[:, 0]
    x = x - x.mean()
    power = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    below = np.fft.irfft(power) < power.mean() / np.e
    lag = max(1, min(int(np.argmax(below)), len(x) // 2, len(other) // 2))
    step, unit = time_scale(true)
    delay = f"(t + {lag * step:.3g}{f' {unit}' if unit else ''})"
    reference, other = (np.hstack([x[:-lag], x[lag:]]) for x in (reference, other))
    return [label(true, 0, "(t)"), label(true, 0, delay)], reference, other


def _power(data: xr.DataArray, steps: int, i: int, gaps: np.ndarray) -> np.ndarray:
    x = np.where(gaps, np.nan, data.values[:steps, i])
    if not np.isfinite(x[~gaps]).all():
        raise ValueError(f"a series must be finite to have a spectrum: {label(data, i)} is not.")
    x = filled(x[:, None])[:, 0]
    power = gaussian_filter1d(np.abs(np.fft.rfft(x - x.mean())[1:]) ** 2, SMOOTHING)
    return power / (power.sum() or 1.0)


def _airy(panel: Any) -> None:
    """A three-dimensional frame that stands back behind its curve."""
    for axis in (panel.xaxis, panel.yaxis, panel.zaxis):
        axis.set_pane_color("white")
        axis.pane.set_edgecolor("#DDDDDD")
        axis.set_major_locator(MaxNLocator(4))
    panel.grid(False)
    panel.set_box_aspect((1, 1, 0.85), zoom=1.08)
