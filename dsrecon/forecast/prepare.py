"""From series to the task of an estimator, and from what was learned to the errors that its intervals rest on."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dsrecon.forecast.intervals import Errors
from dsrecon.forecast.run import Members, forecasts
from dsrecon.forecast.task import Held, Impute, Stretch, Task, imputed, known_beside, on_device, spread
from dsrecon.scaler import Scaler
from dsrecon.series import Series

VALIDATION = 5000
"""Validation windows at most that are looked at."""

ENTRIES, FEWEST = 4_000_000, 200
"""Errors at most that are kept for intervals; but always those of so many windows."""


Tables = tuple[tuple[Series, ...] | None, tuple[Series, ...] | None]
"""Covariates known ahead, and those known up to the present, of every series."""


class Sizes(NamedTuple):
    """In steps."""

    lookback: int
    horizon: int
    period: int


class Prepared(NamedTuple):
    """A task, and what it takes to use what is learned from it: scalers of the series (one each) and of the covariates,
    the last `lookback` rows of the last series, and the seasonal naive error `[n]` in units of the model."""

    task: Task
    scalers: list[Scaler]
    beside_scalers: tuple[Scaler | None, Scaler | None]
    tail: Stretch
    naive: np.ndarray


def prepared(
    panel: Sequence[Series], tables: Tables, held: Sequence[int], sizes: Sizes, marks: bool, impute: Impute | None
) -> Prepared:
    """Scaled by the training parts, put one after the other; the last `held` rows of each series are for validation."""
    lookback, horizon, period = sizes
    rows = [len(one.values) - h for one, h in zip(panel, held, strict=True)]
    complete = [imputed(one.values, impute, period, one.names, "the series") for one in panel]
    scalers = [scaler_of(part[:n]) for part, n in zip(complete, rows, strict=True)]
    beside_scalers = _scalers(tables)
    stretches = []
    for i, (one, part) in enumerate(zip(panel, complete, strict=True)):
        known, seen = (np.zeros((len(part), 0)) if table is None else table[i].values for table in tables)
        stretches.append(Stretch(part, known, seen, one.clock))
    x = [(part - scaler.mean) / scaler.std for part, scaler in zip(complete, scalers, strict=True)]
    s = [known_beside(stretch, beside_scalers, marks, 0)[0] for stretch in stretches]
    masks = [~np.isnan(one.values) for one in panel]
    missing = not all(mask.all() for mask in masks)

    def arrays(cuts: Sequence[slice]):
        """`x`, `s` and `mask` of these rows of every series."""
        values, besides, seen = (
            np.concatenate([part[cut] for part, cut in zip(parts, cuts, strict=True)]) for parts in (x, s, masks)
        )
        return (
            on_device(values),
            on_device(besides) if besides.shape[1] else None,
            jnp.asarray(seen) if missing else None,
        )

    cuts = [slice(max(n - lookback, 0), len(one)) for n, one in zip(rows, x, strict=True)]
    starts = _starts(cuts, held, lookback + horizon)
    validated = Held(*arrays(cuts), jnp.asarray(spread(starts, VALIDATION), jnp.int32)) if len(starts) else None
    known = 0 if tables[0] is None else tables[0][0].values.shape[1]
    task = Task(*arrays([slice(0, n) for n in rows]), tuple(rows), known, validated, *sizes)
    last = stretches[-1]
    first = max(len(last.values) - lookback, 0)
    tail = Stretch(last.values[first:], last.known[first:], last.seen[first:], last.clock.shifted(first))
    naive = [_naive(one.values[:n], period, scaler) for one, n, scaler in zip(panel, rows, scalers, strict=True)]
    return Prepared(task, scalers, beside_scalers, tail, np.stack(naive).mean(0))


def errors_of(members: Members, task: Task) -> Errors | None:
    """Errors of the validation windows, `None` without."""
    held = task.held
    if held is None:
        return None
    at, values = np.asarray(held.starts), np.asarray(held.x)
    at = spread(at, max(ENTRIES // (task.horizon * task.channels), FEWEST))
    found = forecasts(members, held.x, held.s, at, task.known)
    ahead = at[:, None] + task.lookback + np.arange(task.horizon)
    off = values[ahead] - found.mean(0)
    off = off if held.mask is None else np.where(np.asarray(held.mask)[ahead], off, np.nan)
    past = values[at[:, None] + np.arange(task.lookback)]
    return Errors(off.astype(np.float32), past.std(1).astype(np.float32))


def _starts(cuts: Sequence[slice], held: Sequence[int], window: int) -> np.ndarray:
    """Rows at which validation windows begin, where these cuts stand one after the other."""
    starts, begin = [], 0
    for cut, h in zip(cuts, held, strict=True):
        length = cut.stop - cut.start
        starts.append(begin + np.arange(max(length - window + 1, 0) if h else 0))
        begin += length
    return np.concatenate(starts)


def held_rows(rows: int, validation: float, horizon: int) -> int:
    """Rows at the end that are not learned from."""
    return max(round(rows * validation), horizon) if validation else 0


def scaler_of(values: np.ndarray) -> Scaler:
    """By mean and standard deviation; a variable that never changes keeps its size."""
    mean, std = values.mean(0), values.std(0)
    return Scaler(mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0))


def _scalers(tables: Tables) -> tuple[Scaler | None, Scaler | None]:
    known, seen = (None if t is None else scaler_of(np.concatenate([one.values for one in t])) for t in tables)
    return known, seen


def names_of(tables: Tables) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the covariates known ahead, and of those known up to the present."""
    known, seen = (() if table is None else table[0].names for table in tables)
    return known, seen


def _naive(train: np.ndarray, period: int, scaler: Scaler) -> np.ndarray:
    """The seasonal naive error, `[n]` in units of the model: that of the MASE."""
    step = period if period < len(train) else 1
    off = np.abs(train[step:] - train[:-step]) / scaler.std
    return np.where(np.isfinite(off).any(0), np.nanmean(np.where(np.isfinite(off), off, np.nan), 0), np.nan)
