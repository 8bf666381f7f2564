"""Symbols of symbols: regions merged, and runs as words of how long they lasted."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dsrecon.symbolic.symbols import as_sequence, dwell_times
from dsrecon.symbolic.windows import letters_of


def merge(symbols: Any, groups: Sequence[Iterable[int]]) -> xr.Dataset:
    """Several symbols taken for one.

    **Arguments:** `symbols`: the `Dataset` of `encode` or of a coding, its `symbol`, or integers `[t]`; `groups`:
    sets of symbols, each of which becomes one. A symbol in no group stays by itself.

    **Returns:** `Dataset` with `symbol(time)`: `i` for the symbols of `groups[i]`, and from `len(groups)` on the
    others in increasing order; `region` with `meaning(region)` ("0 or 3", in the old symbols' own words where they
    have some) and `visits(region)`; times and attributes of `symbols`.

    **Raises:** `ValueError` as `as_sequence`, for an empty group, a symbol in two groups, or one that does not occur.
    """
    sequence = as_sequence(symbols)
    number, found = letters_of(sequence.values)
    place = {int(value): i for i, value in enumerate(found)}
    to = np.full(len(found), -1)
    for i, group in enumerate(groups):
        members = [int(value) for value in group]
        if not members:
            raise ValueError(f"groups must not be empty: group {i} is.")
        for value in members:
            if value not in place:
                raise ValueError(
                    f"groups must hold symbols that occur, {found[:20].tolist()}: got {value} in group {i}."
                )
            if to[place[value]] >= 0:
                raise ValueError(f"groups must not share a symbol: {value} is in groups {to[place[value]]} and {i}.")
            to[place[value]] = i
    alone = to < 0
    to[alone] = len(groups) + np.arange(alone.sum())
    words = meanings_of(symbols)
    names = [" or ".join(words.get(int(v), str(v)) for v in found[to == i]) for i in range(int(to.max()) + 1)]
    coding = f"{_coding(symbols)}, merged: {'; '.join(names)}"
    return _recoded(symbols, to[number], names, sequence.time_step, sequence.time_unit, coding)


def dwell_words(symbols: Any, *, edges: Any = None) -> xr.Dataset:
    """Run-length coding as a sequence of its own: one symbol a run, made of which symbol it was and how long it
    lasted.

    Symbols of a finely sampled flow mostly repeat, so that their statistics are those of the time step. A run is one
    step here, and an entropy over the mean time of a run is one per unit of time:
    `entropy_rate(dwell_words(symbols)).rate_per_time`. With exact lengths (`edges=None`) the coding loses nothing:
    the rate per unit of time is that of `symbols`. With few `edges` it is a lower one, of an alphabet that can be
    read.

    The first and the last run, of which the record may hold a part only, are left out.

    **Arguments:** `symbols`: the `Dataset` of `encode` or of a coding, its `symbol`, or integers `[t]`; `edges`:
    increasing durations `[e]` in units of time between which lengths are not told apart (a duration on an edge
    belongs above it); a mapping from symbols to such rows for edges of each; default: every length by itself.

    **Returns:** `Dataset` along `time`, the times when the runs begin (not equidistant): `symbol(time)`, numbered in
    order of (old symbol, length); `duration(time)` in units of time; `of(region)`, `meaning(region)` ("0 for 0.5 to
    0.7"), `visits(region)`; the attribute `time_step` is the mean duration of a run.

    **Raises:** `ValueError` as `as_sequence`, for fewer than three runs, and for edges that do not increase.
    """
    sequence = as_sequence(symbols)
    runs = dwell_times(symbols)
    if runs.sizes["run"] < 3:
        raise ValueError(
            f"symbols must have a run that is seen whole, between two others: they have {runs.sizes['run']}."
        )
    whole = slice(1, -1)
    symbol, steps, first = (runs[name].values[whole] for name in ("symbol", "steps", "first"))
    duration = steps * sequence.time_step
    number, found = letters_of(symbol)
    rows = [_edges(edges, int(value)) for value in found]
    if edges is None:
        interval, many = steps, int(steps.max()) + 1
    else:
        interval, many = np.empty(len(symbol), np.int64), max(map(len, rows)) + 1
        near = 1e-9 * sequence.time_step  # a duration is a multiple of the time step up to rounding
        for i, row in enumerate(rows):
            here = number == i
            interval[here] = np.searchsorted(row - near, duration[here], side="right")
    code, keys = letters_of(number * many + interval)
    old = meanings_of(symbols)
    unit = f" {sequence.time_unit}" if sequence.time_unit not in ("", "datetime") else ""

    def lasting(key: int) -> str:
        i, k = divmod(key, many)
        return f"{old.get(int(found[i]), str(found[i]))} for {_between(rows[i], k, sequence.time_step)}{unit}"

    names = [lasting(key) for key in keys.tolist()]
    cut = "exact" if edges is None else "; ".join(f"{v}: {row.tolist()}" for v, row in zip(found, rows, strict=True))
    coding = f"dwell times of {_coding(symbols)}, lengths {cut}"
    out = _recoded(None, code, names, float(duration.mean()), sequence.time_unit, coding)
    return out.assign_coords(
        time=_times(symbols, first, sequence.time_step), of=("region", found[keys // many])
    ).assign(duration=("time", duration))


def meanings_of(symbols: Any) -> dict[int, str]:
    """What the symbols mean, where they say so."""
    if not isinstance(symbols, xr.Dataset) or "meaning" not in symbols:
        return {}
    return dict(zip(symbols["region"].values.tolist(), symbols["meaning"].values.tolist(), strict=True))


def _recoded(
    symbols: Any, symbol: np.ndarray, names: list[str], time_step: float, time_unit: str, coding: str
) -> xr.Dataset:
    time = {"time_step": time_step, "time_unit": time_unit}
    visits = np.bincount(symbol, minlength=len(names))
    out = xr.Dataset(
        {"symbol": ("time", symbol.astype(np.int64), time), "visits": ("region", visits)},
        coords={"region": np.arange(len(names)), "meaning": ("region", np.array(names, dtype=object).astype(str))},
        attrs={**time, "coding": coding, "steps": len(symbol)},
    )
    labelled = isinstance(symbols, xr.Dataset | xr.DataArray) and "time" in symbols.coords
    return out.assign_coords(time=symbols["time"]) if labelled else out


def _coding(symbols: Any) -> str:
    if isinstance(symbols, xr.Dataset):
        return str(symbols.attrs.get("coding", symbols.attrs.get("cell", "symbols")))
    return "symbols"


def _times(symbols: Any, first: np.ndarray, time_step: float) -> np.ndarray:
    if isinstance(symbols, xr.Dataset | xr.DataArray) and "time" in symbols.coords:
        return symbols["time"].values[first]
    return first * time_step


def _edges(edges: Any, symbol: int) -> np.ndarray:
    row = edges.get(symbol, ()) if isinstance(edges, dict) else (() if edges is None else edges)
    row = np.asarray(row, np.float64)
    if row.ndim != 1 or not np.isfinite(row).all() or (np.diff(row) <= 0).any():
        raise ValueError(f"edges must be finite and increase: got {row.tolist()}.")
    return row


def _between(row: np.ndarray, k: int, time_step: float) -> str:
    if not len(row):
        return f"{k * time_step:.6g}"
    if k == 0:
        return f"less than {row[0]:.6g}"
    return f"{row[-1]:.6g} or more" if k == len(row) else f"{row[k - 1]:.6g} to {row[k]:.6g}"
