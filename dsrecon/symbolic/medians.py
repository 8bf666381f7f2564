"""How finely is the length of a run to be told? In two: shorter or longer than usual."""

from typing import Any

import numpy as np

from dsrecon.symbolic.symbols import run_lengths


def median_edges(symbols: Any) -> dict[int, list[float]]:
    """The median stay in each symbol, in units of time: the `edges` with which `dwell_words` tells short from long.

    A stay as long as the median counts as long. Symbols whose stays were never seen whole have no edge.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`.
    """
    median = run_lengths(symbols)["median"]
    pairs = zip(median["region"].values.tolist(), median.values.tolist(), strict=True)
    return {symbol: [value] if np.isfinite(value) else [] for symbol, value in pairs}
