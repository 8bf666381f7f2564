"""How one variable was embedded: the curves that its lag and its dimension were read from."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dsrecon.plot.canvas import GENERATED, TRUE, canvas
from dsrecon.reconstruction import Reconstruction


def embedding(reconstruction: Reconstruction, *, ax: Any = None) -> Figure:
    """Mutual information against the lag, and the share of false neighbours against the dimension; the choice marked.

    **Arguments:** `reconstruction`: of one variable; `ax`: `None`, or a pair of axes. **Raises:** `ValueError` where no
    embedding was looked for.
    """
    curves = reconstruction.embedding_curves
    lag, dimension = curves.attrs["lag"], curves.attrs["dimension"]
    figure, (left, right) = canvas(ax, 1, 2, (10.0, 3.8))
    left.plot(curves["lag"], curves["mutual_information"], color=TRUE, linewidth=1.4)
    if lag:
        left.axvline(lag, color=GENERATED, linewidth=1.2)
        at = f"lag {lag}: {lag * curves.attrs['time_step']:.3g} {curves.attrs['time_unit']}".rstrip()
        left.set_title(at, color=GENERATED, fontsize="medium")
    left.set(xlabel="lag / samples", ylabel="mutual information / nats", ylim=(0, None), xlim=(0, None))
    right.plot(curves["dimension"], curves["false_neighbours"], "o-", color=TRUE, linewidth=1.4)
    right.axvline(dimension, color=GENERATED, linewidth=1.2)
    right.set_title(f"dimension {dimension}", color=GENERATED, fontsize="medium")
    right.set(xlabel="dimension", ylabel="false nearest neighbours", ylim=(0, None), xticks=curves["dimension"].values)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for panel in (left, right):
        panel.grid(alpha=0.25, linewidth=0.5)
    return figure
