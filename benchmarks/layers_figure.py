"""The figure of docs/sequences.md from what `bench_layers.py` measured: `python benchmarks/layers_figure.py`."""

import json
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = {"S4": "#0072B2", "S4D": "#E69F00", "LSSL": "#009E73", "structured": "#0072B2", "dense": "#E69F00"}


def measured() -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """(test, curve) to its points: size, seconds, bytes."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for one in json.loads((HERE / "results" / "layers.json").read_text())["benchmarks"]:
        if match := re.match(r"test_(kernel|step)\[(\w+)-(\d+)\]", one["name"]):
            told, seconds = one["extra_info"], one["stats"]["min"]
            seconds = 1e-6 * told["microseconds_a_step"] if match[1] == "step" else seconds
            found.setdefault((match[1], match[2]), []).append((int(match[3]), seconds, told.get("bytes", 0)))
    return {name: sorted(points) for name, points in found.items()}


def main() -> None:
    curves = measured()
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    time, memory, step = figure.subplots(1, 3)
    for name in ("S4", "S4D", "LSSL"):
        t, seconds, held = np.array(curves["kernel", name]).T
        time.loglog(t, 1e3 * seconds, "o-", color=COLOURS[name], label=name)
        memory.loglog(t, held / 1e6, "o-", color=COLOURS[name], label=name)
    t, seconds, _ = np.array(curves["kernel", "S4"]).T
    time.loglog(t, 1e3 * seconds[-1] * t / t[-1], "--", color="#999999", label="∝ length")
    memory.loglog(t, 4 * 32 * 8 * t / 1e6, "--", color="#999999", label="[channel, state, time]")
    for name, label in (("structured", "tridiagonal solves"), ("dense", "discretised anew")):
        n, seconds, _ = np.array(curves["step", name]).T
        step.loglog(n, 1e6 * seconds, "o-", color=COLOURS[name], label=label)
    n, seconds, _ = np.array(curves["step", "structured"]).T
    step.loglog(n, 1e6 * seconds[-1] * n / n[-1], "--", color="#999999", label="∝ states")
    time.set(title="kernel, 4 channels of 64 states", xlabel="length (steps)", ylabel="time (ms)")
    memory.set(title="memory beside the result", xlabel="length (steps)", ylabel="MB")
    step.set(title="a step of a trained LSSL, any length", xlabel="states", ylabel="time (µs)", ylim=(0.1, None))
    for ax in (time, memory, step):
        ax.title.set_fontsize(10)
        ax.legend(frameon=False, fontsize=8, loc="lower right" if ax is step else "upper left")
        ax.spines[["top", "right"]].set_visible(False)
        ax.yaxis.set_major_formatter("{x:g}")
    figure.savefig(HERE.parent / "docs" / "layer-costs.png", dpi=100)


if __name__ == "__main__":
    main()
