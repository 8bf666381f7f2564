"""The figure of docs/forecasting.md from what `bench_forecast.py` measured: `python benchmarks/forecast_figure.py`."""

import json
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = {"PGN": "#0072B2", "GRU": "#E69F00", "LSTM": "#009E73"}


def measured() -> dict[str, list[tuple[float, float]]]:
    """Name of a curve to its points (size, milliseconds)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in json.loads((HERE / "results" / "bench_forecast.json").read_text())["benchmarks"]:
        if match := re.match(r"test_cost_of_an_update\[(\w+)-(\d+)\]", one["name"]):
            found.setdefault(match[1], []).append((int(match[2]), 1e3 * one["extra_info"]["seconds"]))
        if match := re.match(r"test_layer\[(\w+)-(\d+)\]", one["name"]):
            found.setdefault(match[1], []).append((int(match[2]), 1e3 * one["stats"]["min"]))
    return {name: sorted(points) for name, points in found.items()}


def main() -> None:
    curves = measured()
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for ax, (name, unit) in zip(
        axes, (("channels", ""), ("horizon", "steps"), ("lookback", "steps"), ("rows", "")), strict=False
    ):
        x, y = np.array(curves[name]).T
        ax.loglog(x, y, "o-", color="#0072B2", label="measured")
        slope = 2 if name == "lookback" else 0 if name == "rows" else 1
        law = {2: "lookback²", 1: name, 0: "constant"}[slope]
        ax.loglog(x, y[-1] * (x / x[-1]) ** slope, "--", color="#999999", label=f"∝ {law}" if slope else law)
        ax.set_xticks(x, [f"{v:,.0f}" for v in x], fontsize=8)
        ax.minorticks_off()
        ax.set(xlabel=f"{name} ({unit})" if unit else name, ylabel="one update (ms)", ylim=(y.min() / 3, y.max() * 3))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.legend(frameon=False, fontsize=8)
    for name, colour in COLOURS.items():
        x, y = np.array(curves[name]).T
        axes[4].loglog(x, y, "o-", color=colour, label=name)
    axes[4].set(xlabel="length (steps)", ylabel="value and gradient (ms)", title="a layer, width 16, batch 32")
    axes[4].title.set_fontsize(9)
    axes[4].set_xticks([168, 336, 720, 1440], ["168", "336", "720", "1440"])
    axes[4].minorticks_off()
    axes[4].legend(frameon=False, fontsize=8)
    figure.suptitle(
        "One training update of TPGN (width 8, period 24, batch 32, lookback and horizon 168), and a layer", fontsize=10
    )
    axes[4].yaxis.set_major_formatter("{x:g}")
    axes[5].axis("off")
    for ax in axes[:5]:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE.parent / "docs" / "forecast-costs.png", dpi=100)


if __name__ == "__main__":
    main()
