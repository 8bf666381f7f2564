"""What a symbol sequence says by itself: how long it stays, and where it goes."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dsrecon.symbolic.windows import letters_of, tallied

_LARGEST = 5000  # symbols of a transition matrix: counts and probabilities of 200 MB each


class Sequence(NamedTuple):
    """A checked symbol sequence: `values` `[t]` of integers, `time_step`, `time_unit` ("" when unknown)."""

    values: np.ndarray
    time_step: float
    time_unit: str


class Edges(NamedTuple):
    """Every ordered pair of successive symbols that occurs: `source` `[e]`, `target` `[e]`, `count` `[e]`."""

    source: np.ndarray
    target: np.ndarray
    count: np.ndarray


def as_sequence(symbols: Any) -> Sequence:
    """Any symbol sequence, checked and in one form.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]` (then the time step
    is 1).

    **Raises:** `ValueError` for what is not integer, not of one dimension, or empty; each names what came in.
    """
    if isinstance(symbols, xr.Dataset):
        if "symbol" not in symbols:
            raise ValueError(f"a Dataset of symbols must hold 'symbol': got {sorted(map(str, symbols))}.")
        symbols = symbols["symbol"]
    attrs = symbols.attrs if isinstance(symbols, xr.DataArray) else {}
    values = np.asarray(symbols)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iu":
        raise ValueError(
            f"symbols must be one row of at least one integer: got {values.dtype} of shape {values.shape}."
        )
    values = values.astype(np.int64)
    return Sequence(values, float(attrs.get("time_step", 1.0)), str(attrs.get("time_unit", "")))


def dwell_times(symbols: Any) -> xr.Dataset:
    """Run-length coding: how long the sequence stays in a symbol each time that it comes there.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`.

    **Returns:** `Dataset` with dimension `run`, in order of time: `symbol`; `first`, index of its first step;
    `steps`, its length; `duration = steps * time_step`, in units of time; `censored`: the first and the last
    run, which may have begun before or end after the record. `sum(steps) == t`.

    **Raises:** `ValueError` as `as_sequence`.
    """
    values, time_step, time_unit = as_sequence(symbols)
    first = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    steps = np.diff(np.concatenate([first, [len(values)]]))
    censored = np.zeros(len(first), bool)
    censored[[0, -1]] = True
    columns = {
        "symbol": values[first],
        "first": first,
        "steps": steps,
        "duration": steps * time_step,
        "censored": censored,
    }
    return xr.Dataset(
        {name: ("run", column) for name, column in columns.items()},
        coords={"run": np.arange(len(first))},
        attrs={"time_step": time_step, "time_unit": time_unit},
    )


def run_lengths(symbols: Any) -> xr.Dataset:
    """Dwell times summarised for each symbol, over the runs that were seen whole.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`.

    **Returns:** `Dataset` with dimension `region` (every symbol that occurs, in increasing order): `count` of
    runs seen whole; `censored` runs, left out of the rest; `mean_steps`, `median_steps`; `mean`, `median` in
    units of time. The averages are NaN where no run was seen whole.

    **Raises:** `ValueError` as `as_sequence`.
    """
    runs = dwell_times(symbols)
    symbol, steps, censored = (runs[name].values for name in ("symbol", "steps", "censored"))
    index, found = letters_of(symbol)
    count = np.bincount(index[~censored], minlength=len(found))
    ordered = steps[~censored][np.argsort(index[~censored], kind="stable")]
    parts = np.split(ordered, np.cumsum(count)[:-1])
    mean = np.array([np.mean(part) if part.size else np.nan for part in parts])
    median = np.array([np.median(part) if part.size else np.nan for part in parts])
    time_step = runs.attrs["time_step"]
    columns = {
        "count": count,
        "censored": np.bincount(index[censored], minlength=len(found)),
        "mean_steps": mean,
        "median_steps": median,
        "mean": mean * time_step,
        "median": median * time_step,
    }
    variables = {name: ("region", column) for name, column in columns.items()}
    return xr.Dataset(variables, coords={"region": found}, attrs=runs.attrs)


def transitions(symbols: Any, *, self_transitions: bool = True) -> xr.DataArray:
    """Row-stochastic transition matrix: `P[i, j] = count(i then j) / count(i then anything)`.

    With `self_transitions` one transition is one time step. Without, it is one change of symbol: repeats are
    left out before counting, and a row holds where the sequence goes when it leaves.

    Nothing is known of where a symbol leads that occurs for the first time at the very end. Such final
    symbols are left out, one after the other, so that every row is a distribution; `attrs["left_out"]` counts
    them. A sequence that never comes back to any symbol gives a matrix of size zero.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `self_transitions`.

    **Returns:** `DataArray(from, to)` with the symbols as coordinates and the counts as coordinate
    `count(from, to)`.

    **Raises:** `ValueError` as `as_sequence`.
    """
    sequence = as_sequence(symbols)
    values = sequence.values
    if not self_transitions:
        values = values[np.concatenate([[True], np.diff(values) != 0])]
    kept = _until_known(values)
    index, found = letters_of(values[:kept]) if kept else (values[:0], values[:0])
    size = len(found)
    if size > _LARGEST:
        raise ValueError(
            f"symbols must be at most {_LARGEST:,} different ones for a matrix: got {size:,}. "
            "Merge some, or take a graph."
        )
    pairs = index[:-1] * size + index[1:]
    count = np.bincount(pairs, minlength=size**2).reshape(size, size)
    return xr.DataArray(
        count / count.sum(1, keepdims=True),
        dims=("from", "to"),
        coords={"from": found, "to": found, "count": (("from", "to"), count)},
        name="transitions",
        attrs={
            "self_transitions": int(self_transitions),
            "left_out": len(values) - kept,
            "time_step": sequence.time_step,
            "time_unit": sequence.time_unit,
        },
    )


def edges(symbols: Any) -> Edges:
    """Every transition that occurs, self-transitions too, without a matrix: see `Edges`."""
    letters, found = letters_of(as_sequence(symbols).values)
    size = len(found)
    pairs, count = tallied(letters[:-1] * size + letters[1:], size**2)
    return Edges(found[pairs // size], found[pairs % size], count)


def _until_known(values: np.ndarray) -> int:
    """Length without the final symbols that occur nowhere before."""
    letters, found = letters_of(values)
    first = np.empty(len(found), np.int64)
    first[letters[::-1]] = np.arange(len(values) - 1, -1, -1)  # of what is assigned again and again, the last stays
    fresh = np.zeros(len(values), bool)
    fresh[first] = True
    return len(values) - int(np.argmin(fresh[::-1])) if not fresh.all() else 0
