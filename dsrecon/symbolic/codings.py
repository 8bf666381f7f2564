"""A measured series as symbols, without a model: by thresholds, by ordinal patterns, by clusters."""

from collections.abc import Sequence
from itertools import pairwise, permutations
from math import factorial
from typing import Any

import numpy as np
import scipy
import xarray as xr

from dsrecon.series import Clock, Series, as_series

_LONGEST = 8  # ordinal patterns: 8! = 40,320 symbols
_ROWS = 100_000  # rows, at most, that the centres of k-means are fitted to
_STARTS = 10  # starts of k-means, of which the one of the least distortion is kept


def code_thresholds(series: Any, edges: Any) -> xr.Dataset:
    """Symbols by thresholds: in which interval a value lies.

    `symbol_t = #{i: edges_i <= x_t}`: 0 below the first edge, and a value on an edge belongs above it. Of several
    variables, the symbol is that of the tuple of intervals, the last variable counted fastest.

    **Arguments:** `series`: what `as_series` takes; `edges`: increasing numbers `[e]` in the units of the data, or
    for several variables a list of such rows, one for each (an empty row leaves its variable out).

    **Returns:** `Dataset` that every function of symbols takes: `symbol(time)` at the times of the series, the
    coordinate `region` of the symbols that occur with `meaning(region)` in words ("x < 0") and `visits(region)`;
    attributes `time_step`, `time_unit`, `coding` (what was done, in words), `steps`.

    **Raises:** `ValueError` for missing values, and for edges that do not increase, are not finite or not one row for
    each variable.
    """
    found = _whole(series)
    rows = _edges(edges, found.names)
    symbol, meanings = np.zeros(len(found.values), np.int64), [""]
    for x, row, name in zip(found.values.T, rows, found.names, strict=True):
        if len(row):
            symbol = symbol * (len(row) + 1) + np.searchsorted(row, x, side="right")
            meanings = [" and ".join(filter(None, (m, text))) for m in meanings for text in _intervals(row, name)]
    parts = [f"{name} at {row.tolist()}" for row, name in zip(rows, found.names, strict=True) if len(row)]
    return coded(symbol, found.clock, meanings, coding="thresholds of " + ", ".join(parts))


def code_ordinal(series: Any, order: int, delay: int = 1) -> xr.Dataset:
    """Symbols by ordinal patterns: in which order the last `order` values, `delay` samples apart, stand.

    The pattern of the window `(x_{t-(order-1)delay}, ..., x_{t-delay}, x_t)` is the permutation that sorts it: the
    places of its least value, the next, and so on, counted from 0. Symbols number the permutations in lexicographic
    order: 0 grows, `order! - 1` falls. **Of equal values the earlier counts as the smaller**; `attrs["ties"]` is the
    share of windows that hold equal values, and where it is not small the patterns tell of the resolution of the
    data.

    **Arguments:** `series`: what `as_series` takes, of one variable; `order`: 2 to 8; `delay` in samples, at least 1.

    **Returns:** as `code_thresholds`; a symbol has the time of the last sample of its window, so that the first
    `(order - 1) delay` times have none. `meaning` is the permutation ("0 2 1").

    **Raises:** `ValueError` for missing values, several variables, numbers out of range, a series shorter than a
    window.

    Reference: Bandt & Pompe 2002, *Permutation entropy: a natural complexity measure for time series*, PRL 88, 174102.
    """
    found = _whole(series)
    if found.values.shape[1] != 1:
        raise ValueError(f"series must have one variable: got {found.values.shape[1]}, {found.names}. Choose one.")
    if not 2 <= order <= _LONGEST:
        raise ValueError(f"order must lie between 2 and {_LONGEST}: got {order}.")
    if delay < 1:
        raise ValueError(f"delay must be at least 1 sample: got {delay}.")
    x, before = found.values[:, 0], (order - 1) * delay
    steps = len(x) - before
    if steps < 1:
        raise ValueError(f"series must be longer than a window, {before + 1} samples: got {len(x)}.")
    windows = [x[i * delay : i * delay + steps] for i in range(order)]
    code, tied = np.zeros(steps, np.int64), np.zeros(steps, bool)
    for i in range(order - 1):  # Lehmer code: how many later values are smaller, in the factorial number system
        code *= order - i
        for later in windows[i + 1 :]:
            code += later < windows[i]
            tied |= later == windows[i]
    number, names = _patterns(order)
    return coded(
        number[code],
        found.clock.shifted(before),
        names,
        coding=f"ordinal patterns of {order} values of {found.names[0]}, {delay} samples apart",
        ties=float(tied.mean()),
    )


def code_kmeans(series: Any, clusters: Any, *, seed: int = 0) -> xr.Dataset:
    """Symbols by clusters: which of `k` centres is nearest, the variables in units of their standard deviation.

    The centres minimise the mean squared distance to the nearest one (Lloyd's algorithm from ten starts drawn as
    k-means++, the best kept), on at most 100,000 rows drawn at random. Symbols are numbered by visits: 0 is the most
    visited.

    **Arguments:** `series`: what `as_series` takes; `clusters`: how many, or the centres `[k, n]` in the units of the
    data (those of another series' coding, so that the two codings are one: then the numbers are kept); `seed` of rows
    and starts.

    **Returns:** as `code_thresholds`, with `centre(cluster, variable)` in the units of the data and
    `scale(variable)`, the unit of distance. Give both back (`clusters=coded`) to code another series alike.

    **Raises:** `ValueError` for missing values, fewer different rows than clusters, centres of another shape.

    Reference: Arthur & Vassilvitskii 2007, *k-means++: the advantages of careful seeding*, SODA.
    """
    found = _whole(series)
    values, width = found.values, found.values.shape[1]
    found_here = not isinstance(clusters, xr.Dataset) and np.ndim(clusters) == 0
    if isinstance(clusters, xr.Dataset):
        if "centre" not in clusters or clusters["centre"].shape[1] != width:
            raise ValueError(f"clusters must hold 'centre' of {width} variables: got {sorted(map(str, clusters))}.")
        centres, scale = clusters["centre"].values, clusters["scale"].values
    else:
        scale = np.where((sd := values.std(0)) > 0, sd, 1.0)
        given = np.asarray(clusters)
        centres = _centres(values / scale, int(given), seed) * scale if found_here else given.astype(float)
    if centres.ndim != 2 or centres.shape[1] != width or not np.isfinite(centres).all():
        raise ValueError(f"clusters must be a number or finite centres [k, {width}]: got shape {centres.shape}.")
    symbol = scipy.cluster.vq.vq(values / scale, centres / scale)[0].astype(np.int64)
    if found_here:
        order = np.argsort(-np.bincount(symbol, minlength=len(centres)), kind="stable")
        symbol, centres = np.argsort(order)[symbol], centres[order]
    meanings = ["near " + ", ".join(f"{n} {c:.4g}" for n, c in zip(found.names, row, strict=True)) for row in centres]
    text = "k-means with centres " + "; ".join(" ".join(f"{c:.9g}" for c in row) for row in centres)
    return coded(symbol, found.clock, meanings, coding=text).assign(
        centre=(("cluster", "variable"), centres), scale=("variable", scale)
    )


def coded(symbol: np.ndarray, clock: Clock, meanings: Sequence[str], *, coding: str, **about: Any) -> xr.Dataset:
    """Symbols `[t]` from 0 with their times and what each means, in the form that `code_thresholds` states."""
    time = {"time_step": clock.time_step, "time_unit": clock.unit or ""}
    visits = np.bincount(symbol, minlength=len(meanings))
    seen = np.flatnonzero(visits)
    return xr.Dataset(
        {"symbol": ("time", symbol, time), "visits": ("region", visits[seen])},
        coords={
            "time": clock.times(len(symbol)),
            "region": seen,
            "meaning": ("region", np.array([meanings[int(i)] for i in seen], dtype=object).astype(str)),
        },
        attrs={**time, "coding": coding, "steps": len(symbol), **about},
    )


def _whole(series: Any) -> Series:
    """A series in one form, of which every value was observed."""
    found = as_series(series)
    missing = np.isnan(found.values)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ValueError(
            f"series must have no missing values to be coded: {found.names[column]!r} has "
            f"{int(missing[:, column].sum())} of {len(missing)}, the first at row {row}. "
            "Code a stretch without gaps, or fill them first."
        )
    return found


def _edges(edges: Any, names: tuple[str, ...]) -> list[np.ndarray]:
    rows = [edges] if len(names) == 1 and np.ndim(edges[0] if len(edges) else 0.0) == 0 else list(edges)
    if len(rows) != len(names):
        raise ValueError(f"edges must be one row for each of the {len(names)} variables {names}: got {len(rows)}.")
    out = []
    for row, name in zip(rows, names, strict=True):
        row = np.atleast_1d(np.asarray(row, np.float64))
        if row.ndim != 1 or not np.isfinite(row).all() or (np.diff(row) <= 0).any():
            raise ValueError(f"edges of {name!r} must be finite and increase: got {row.tolist()}.")
        out.append(row)
    if not any(len(row) for row in out):
        raise ValueError("edges must hold at least one number: got none.")
    return out


def _intervals(row: np.ndarray, name: str) -> list[str]:
    text = [f"{e:.6g}" for e in row]
    between = [f"{a} <= {name} < {b}" for a, b in pairwise(text)]
    return [f"{name} < {text[0]}", *between, f"{name} >= {text[-1]}"]


def _patterns(order: int) -> tuple[np.ndarray, list[str]]:
    """Of each Lehmer code of the ranks, the number of the permutation that sorts; and the permutations as text."""
    sorts = np.array(list(permutations(range(order))))  # in lexicographic order
    ranks = np.argsort(sorts, axis=1)
    smaller = np.stack([(ranks[:, i + 1 :] < ranks[:, i : i + 1]).sum(1) for i in range(order)], axis=1)
    number = np.empty(len(sorts), np.int64)
    number[smaller @ np.array([factorial(order - 1 - i) for i in range(order)])] = np.arange(len(sorts))
    return number, [" ".join(map(str, row)) for row in sorts.tolist()]


def _centres(x: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Centres `[k, n]` of rows in their own units."""
    rng = np.random.default_rng(seed)
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1: got {clusters}.")
    rows = x if len(x) <= _ROWS else x[rng.permutation(len(x))[:_ROWS]]
    different = len(np.unique(rows, axis=0)) if len(rows) < 10 * clusters else clusters
    if different < clusters:
        raise ValueError(f"clusters must be at most the {different} different rows of the series: got {clusters}.")
    tries = [scipy.cluster.vq.kmeans(rows, _start(rows, clusters, rng)) for _ in range(_STARTS)]
    best = min((t for t in tries if len(t[0]) == clusters), key=lambda t: t[1], default=None)
    if best is None:
        raise ValueError(f"clusters must be fewer: {clusters} centres do not all stay near a row of the series.")
    return best[0]


def _start(rows: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a row, drawn by its squared distance from the nearest centre so far."""
    centres = [rows[int(rng.integers(len(rows)))]]
    away = ((rows - centres[0]) ** 2).sum(1)
    while len(centres) < clusters:
        if not away.sum():
            raise ValueError(
                f"clusters must be at most the {len(centres)} different rows of the series: got {clusters}."
            )
        centres.append(rows[int(rng.choice(len(rows), p=away / away.sum()))])
        away = np.minimum(away, ((rows - centres[-1]) ** 2).sum(1))
    return np.array(centres)
