"""What a memory of a few coefficients holds of its past."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dsrecon.models.memory import rebuild
from dsrecon.plot.canvas import DRAWN, GENERATED, REST, TRUE, canvas, percent


def memory(
    series: Any, coefficients: Any, *, at: Sequence[int] | None = None, name: str = "series", ax: Any = None
) -> Figure:
    """A series, and what its LegS memory rebuilds of it after some of its steps, a panel each: black what was seen
    until then, grey what comes after. The error is that of all samples seen, relative to their rms.

    **Arguments:**

    - `series`: `[t]`, finite.
    - `coefficients`: after every step, `[t, n]`: what `dsrecon.models.project` gave.
    - `at`: after how many samples, each from 1 to t (default: a third, two thirds and all of them).
    - `name`: of the series, with its unit: "u (mV)".
    - `ax`: `None`, or as many axes.

    **Raises:** `ValueError` for other shapes, a step that is not among those, and another number of axes.
    """
    u, c = np.asarray(series), np.asarray(coefficients)
    if u.ndim != 1 or c.ndim != 2 or not u.size or len(c) != len(u):
        raise ValueError(f"series and coefficients must have shapes [t] and [t, n]: got {u.shape} and {c.shape}.")
    steps = sorted({-(-u.size // 3), -(-2 * u.size // 3), u.size}) if at is None else list(at)
    if not steps or any(not 1 <= step <= u.size for step in steps):
        raise ValueError(f"at must hold numbers of samples from 1 to {u.size}: got {steps}.")
    figure, axes = canvas(ax, len(steps), 1, (10.0, 0.9 + 2.0 * len(steps)))
    if len(axes) != len(steps):
        raise ValueError(f"ax must hold {len(steps)} axes, one a step of at: got {len(axes)}.")
    stride = -(-u.size // DRAWN)
    if ax is None:
        for panel in axes[1:]:
            panel.sharex(axes[0])
            panel.sharey(axes[0])
    for panel, step in zip(axes, steps, strict=True):
        held = np.asarray(rebuild(c[step - 1], step))
        panel.plot(np.arange(step - 1, u.size)[::stride], u[step - 1 :: stride], color=REST, linewidth=1.0)
        panel.plot(np.arange(step)[::stride], u[:step:stride], color=TRUE, linewidth=2.0, label="seen")
        text = f"rebuilt from {c.shape[1]} coefficients"
        panel.plot(np.arange(step)[::stride], held[::stride], color=GENERATED, linewidth=1.1, label=text)
        panel.axvline(step - 1, color="#777777", linestyle=":", linewidth=1.0)
        size = float(np.sqrt(np.mean(u[:step] ** 2)))
        error = float(np.sqrt(np.mean((held - u[:step]) ** 2)))
        told = percent(error / size) if size else f"{error:.3g}"
        panel.set_title(f"after {step} samples: rms error {told}", loc="right", fontsize="medium")
        panel.set_ylabel(name)
        panel.margins(x=0.01)
        panel.grid(alpha=0.25, linewidth=0.5)
        if ax is None:
            panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel("step")
    axes[0].legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure
