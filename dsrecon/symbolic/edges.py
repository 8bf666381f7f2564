"""How finely is the length of a run to be told? By the groups that the lengths fall into."""

from typing import Any

import numpy as np

from dsrecon.symbolic.symbols import as_sequence, dwell_times

_GAP = 0.25  # of the median stay


def gap_edges(symbols: Any, *, gap: float | None = None) -> dict[int, list[float]]:
    """Between the groups that the stays in a symbol fall into: the `edges` with which `dwell_words` counts turns.

    An orbit that goes around within a region leaves it after one turn, or two, or three: lengths between do not occur.
    An edge is put into the middle of every gap between the lengths that were seen; a symbol whose stays take all
    lengths has none.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `gap`: its least width, in
    units of time (default: a quarter of the median stay in that symbol, and three time steps at least).

    **Returns:** for each symbol its edges, increasing, in units of time. **Raises:** `ValueError` as `dwell_times`, and
    for a gap that is not positive.
    """
    if gap is not None and not gap > 0:
        raise ValueError(f"gap must be positive: got {gap}.")
    time_step = as_sequence(symbols).time_step
    runs = dwell_times(symbols)
    symbol, duration, cut = (runs[name].values for name in ("symbol", "duration", "censored"))
    found = {}
    for value in np.unique(symbol).tolist():
        lengths = np.sort(duration[(symbol == value) & ~cut])
        least = gap if gap is not None else max(_GAP * float(np.median(lengths)), 3 * time_step) if len(lengths) else 0
        at = np.flatnonzero(np.diff(lengths) > least * (1 - 1e-9))
        found[value] = ((lengths[at] + lengths[at + 1]) / 2).tolist()
    return found
