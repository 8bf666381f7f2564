"""Two codings of the same steps: do they say the same?"""

from typing import Any, NamedTuple

import numpy as np
import scipy
import xarray as xr

from dsrecon.symbolic.symbols import as_sequence
from dsrecon.symbolic.windows import letters_of

_LARGEST = 20_000_000  # cells of the table of counts


class Agreement(NamedTuple):
    """How far two codings `a` and `b` of the same steps agree.

    - `verdict`: "equal up to relabelling", "b is a function of a", "a is a function of b", or "neither is a function
      of the other";
    - `agreement`: share of the steps at which they agree under the best one-to-one relabelling, and `chance`, the
      same share if `a` and `b` were independent with the frequencies that they have;
    - `relabelling`: the symbol of `a` that stands for each of `b`'s (those of a larger alphabet that are left over
      have none);
    - `b_given_a`: share of the steps at which `b` is the commonest symbol of `b` at that of `a`; `a_given_b` likewise;
    - `entropy_a`, `entropy_b`, `information` (mutual), `entropy_b_given_a`, `entropy_a_given_b`: nats, plug-in;
    - `counts`: `DataArray(a, b)`, how often the symbols stand together; `steps`.
    """

    verdict: str
    agreement: float
    chance: float
    relabelling: dict[int, int]
    b_given_a: float
    a_given_b: float
    entropy_a: float
    entropy_b: float
    information: float
    entropy_b_given_a: float
    entropy_a_given_b: float
    counts: xr.DataArray
    steps: int


def compare_codings(a: Any, b: Any, *, tolerance: float = 0.01) -> Agreement:
    """Whether two simultaneous codings agree up to what the symbols are called.

    Every symbol of `b` is given one of `a`, none twice, so that as many steps as possible agree (the assignment
    problem). Beside it the conditional entropies both ways: `H(b | a) = 0` where `b` is a function of `a` (merges
    some of its symbols), and both are 0 where the codings are equal. The verdict bears that a share `tolerance` of
    the steps differs from the best relabelling, or function.

    An alphabet of one symbol is a function of everything: the verdict says so, and `information` is 0.

    **Arguments:** `a`, `b`: each the `Dataset` of `encode` or of a coding, its `symbol`, or integers `[t]`, of the
    same steps; where both have times, those that both have are compared (an ordinal coding begins later);
    `tolerance`: 0 to less than 1.

    **Returns:** `Agreement`.

    **Raises:** `ValueError` as `as_sequence`, for unequal lengths without times, no time in common, a `tolerance` out
    of range, and alphabets with more than 20 million pairs.

    Reference: the assignment problem: Kuhn 1955, *The Hungarian method for the assignment problem*.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and less than 1: got {tolerance}.")
    x, y = _together(a, b)
    (i, names_a), (j, names_b) = letters_of(x), letters_of(y)
    shape = (len(names_a), len(names_b))
    if shape[0] * shape[1] > _LARGEST:
        raise ValueError(f"a and b must have at most {_LARGEST:,} pairs of symbols: got {shape[0]} and {shape[1]}.")
    steps = len(x)
    counts = np.bincount(i * shape[1] + j, minlength=shape[0] * shape[1]).reshape(shape)
    rows, columns = scipy.optimize.linear_sum_assignment(counts, maximize=True)
    alone = np.outer(counts.sum(1), counts.sum(0)) / steps
    agreement = float(counts[rows, columns].sum() / steps)
    b_given_a, a_given_b = float(counts.max(1).sum() / steps), float(counts.max(0).sum() / steps)
    h_a, h_b = _entropy(counts.sum(1)), _entropy(counts.sum(0))
    b_after_a = _behind(counts)
    least = 1 - tolerance
    verdicts = {
        "equal up to relabelling": agreement >= least,
        "b is a function of a": b_given_a >= least,
        "a is a function of b": a_given_b >= least,
        "neither is a function of the other": True,
    }
    return Agreement(
        verdict=next(text for text, holds in verdicts.items() if holds),
        agreement=agreement,
        chance=float(alone[scipy.optimize.linear_sum_assignment(alone, maximize=True)].sum() / steps),
        relabelling={int(names_b[c]): int(names_a[r]) for r, c in zip(rows, columns, strict=True)},
        b_given_a=b_given_a,
        a_given_b=a_given_b,
        entropy_a=h_a,
        entropy_b=h_b,
        information=max(h_b - b_after_a, 0.0),  # from below by rounding
        entropy_b_given_a=b_after_a,
        entropy_a_given_b=_behind(counts.T),
        counts=xr.DataArray(counts, dims=("a", "b"), coords={"a": names_a, "b": names_b}, name="counts"),
        steps=steps,
    )


def _together(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """The symbols `[t]` of both at the same steps."""
    first, second = as_sequence(a), as_sequence(b)
    at, bt = _times(a), _times(b)
    if at is None or bt is None or at.dtype.kind != bt.dtype.kind:
        if len(first.values) != len(second.values):
            raise ValueError(
                f"a and b must code the same steps: got {len(first.values)} and {len(second.values)}, "
                "without times to tell which."
            )
        return first.values, second.values
    if len(at) == len(bt) and (at == bt).all():
        return first.values, second.values
    near = 1e-6 * first.time_step if at.dtype.kind == "f" else np.timedelta64(0, "ns")
    place = np.clip(np.searchsorted(bt, at - near), 0, len(bt) - 1)
    both = np.abs(bt[place] - at) <= near
    if not both.any():
        raise ValueError(f"a and b must have times in common: got {at[0]} to {at[-1]} and {bt[0]} to {bt[-1]}.")
    return first.values[both], second.values[place[both]]


def _times(symbols: Any) -> np.ndarray | None:
    if not isinstance(symbols, xr.Dataset | xr.DataArray) or "time" not in symbols.coords:
        return None
    times = symbols["time"].values
    return times.astype(float) if times.dtype.kind in "iu" else times


def _entropy(count: np.ndarray) -> float:
    p = count[count > 0] / count.sum()
    return float(-p @ np.log(p)) + 0.0


def _behind(counts: np.ndarray) -> float:
    """Entropy of the column that is left where the row is known: exactly 0 where each row has one entry."""
    row, column = np.nonzero(counts)
    count = counts[row, column]
    return float(count @ np.log(counts.sum(1)[row] / count) / counts.sum())
