"""What a fit is remembered by: its runs, its course, and what its embedding was chosen by."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import PyTree

from dsrecon.measures.embedding import EmbeddingChoice
from dsrecon.reconstruct.plan import plain
from dsrecon.training import History

POINTS = 200
"""Of the course of a fit: enough to draw it."""


def curves(curves: EmbeddingChoice) -> dict[str, Any]:
    """What the embedding was chosen by, for the record."""
    return {
        "lags": plain(curves.lags),
        "mutual_information": plain(curves.information),
        "dimensions": plain(curves.dimensions),
        "false_neighbours": plain(curves.share),
    }


def table(model: PyTree, history: History, evaluate: Callable, alphas: np.ndarray | None) -> xr.Dataset:
    """One row a run, of the state that was kept of it."""
    found = evaluate(model)
    reasons = found.pop("failure")
    runs = len(reasons)
    for i, at in enumerate(history.failed_at):
        if at >= 0:
            kept = f"; its last good state: {reasons[i]}" if reasons[i] else " (its best state before is kept)"
            found["score"][i] = np.inf if reasons[i] else found["score"][i]
            reasons[i] = f"parameters or loss not finite at update {at}{kept}" if reasons[i] else reasons[i]
    ends = np.isfinite(history.loss)
    last = np.array([history.loss[e, i][-1] if (e := ends[:, i]).any() else np.nan for i in range(runs)])
    found_table: dict[str, Any] = {name: ("run", np.asarray(v, float)) for name, v in found.items()}
    found_table |= {
        "loss": ("run", last),
        "best_at": ("run", history.best_at),
        "stopped_at": ("run", history.failed_at),
        "failure": ("run", [str(r) for r in reasons]),
    }
    if alphas is not None:
        found_table["alpha"] = ("run", np.asarray(alphas, float))
    return xr.Dataset(found_table, coords={"run": np.arange(runs)})


def course(history: History, run: int) -> dict[str, Any]:
    """Loss and facts of one run over its updates, as medians of `POINTS` stretches: name to numbers, and `update`."""
    traces = {"loss": history.loss, **history.facts}
    updates = len(history.loss)
    pieces = np.array_split(np.arange(updates), min(POINTS, updates))
    found = {name: [_median(values[p, run]) for p in pieces] for name, values in traces.items()}
    return {"update": [int(p[-1]) + 1 for p in pieces], **found}


def _median(values: np.ndarray) -> float | None:
    """`None` (JSON knows no NaN) where the run had stopped."""
    seen = values[np.isfinite(values)]
    return float(np.median(seen)) if len(seen) else None
