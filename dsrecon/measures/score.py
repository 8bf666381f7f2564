"""All scores of a reconstruction against a truth in one table, each beside its floor."""

from typing import Any

import numpy as np
import xarray as xr

from dsrecon.measures.attractor import OUTSIDE_LIMIT, d_h, d_stsp, outside
from dsrecon.measures.lyapunov import kaplan_yorke, lyapunov_mean
from dsrecon.measures.prediction import analogue_error, prediction_error
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_series

AHEAD = (1, 20)
STRETCHES = 5
SHORTEST = 200
FAR = 3.0  # times its floor, from where a distance is remarked on


def score(reconstruction: Reconstruction, truth: Any, *, steps: int | None = None, starts: int = 16) -> xr.Dataset:
    """How good a reconstruction is: one row a measure, its value beside its floor.

    A free run from the first observation of the truth, after a tenth of `steps` for transients, is compared with the
    truth. The *floor* is the same comparison with true stretches of the same length (up to five, mean): what a perfect
    model scores. For exponents it is the standard error over the starts. A value is good when it is near its floor.

    **Arguments:** `truth`: a series of the same variables, at least 400 samples; `steps`: length of the free run
    (default: 10,000, or half of the truth); `starts` of the exponents.

    **Returns:** `Dataset` along `measure` with `value`, `floor`, `definition`, `length` (steps compared), and the
    attributes `warning` (words, where a distance is above three times its floor), `failed` (0 or 1: the run is not
    finite or has left the range for more than 1 % of its points; its distances mean nothing then) and `reason`.
    Measures: `d_stsp`, `d_stsp_padded`, `d_stsp_two_sigma` (up to five
    variables), `d_h`, `outside`, `pe_1`, `pe_20`, `lyapunov_max`, `lyapunov_sum`, `kaplan_yorke`.

    **Raises:** `ValueError` for other variables, a truth that is too short or does not vary, or `steps` above half of
    it.
    """
    series = reconstruction.matched(as_series(truth))
    true = series.values
    if len(true) < 2 * SHORTEST:
        raise ValueError(f"truth must have at least {2 * SHORTEST} samples: got {len(true)}.")
    length = min(10_000, len(true) // 2) if steps is None else steps
    if not SHORTEST <= length <= len(true) // 2:
        raise ValueError(f"steps must lie between {SHORTEST} and half of the truth, {len(true) // 2}: got {steps}.")
    for name, column in zip(series.names, true.T, strict=True):
        if not np.ptp(column) > 0:
            raise ValueError(f"truth must vary: {name!r} is constant.")
    run = reconstruction.simulate(length, start=true[0], discard=length // 10, throw=False).values
    rows = _distances(true, run, length)
    for n in AHEAD:
        floor = analogue_error(true[:-length], true[-length:], steps=n)
        text = f"error of nearest neighbours as floor; mean squared error {n} steps ahead, in variances of the truth"
        rows[f"pe_{n}"] = (prediction_error(reconstruction, series, steps=n), floor, text, len(true))
    rows |= _exponents(reconstruction, series, starts)
    reason = failure(true, run)
    names = list(rows)
    value, floor, definition, lengths = zip(*rows.values(), strict=True)
    return xr.Dataset(
        {
            "value": ("measure", np.array(value, float)),
            "floor": ("measure", np.array(floor, float)),
            "definition": ("measure", list(definition)),
            "length": ("measure", np.array(lengths, int)),
        },
        coords={"measure": names},
        attrs={"failed": int(bool(reason)), "reason": reason, "warning": _warning(rows)},
    )


def records(table: xr.Dataset) -> list[dict[str, Any]]:
    """The rows of `score` as plain records (JSON): a value that is not finite is `None`."""
    return [
        {
            "measure": str(row["measure"].values),
            "value": _plain(row["value"].item()),
            "floor": _plain(row["floor"].item()),
            "definition": str(row["definition"].values),
            "length": int(row["length"]),
        }
        for row in (table.isel(measure=i) for i in range(table.sizes["measure"]))
    ]


def failure(true: np.ndarray, generated: np.ndarray) -> str:
    """Why a run cannot be scored; empty when it can."""
    bad = ~np.isfinite(generated).all(1)
    if bad.any():
        return f"the free run is not finite from step {int(np.argmax(bad))} on"
    share = outside(true, generated)
    return f"{100 * share:.1f} % of the free run lies outside the range of the data" if share > OUTSIDE_LIMIT else ""


def rank(true: np.ndarray, generated: np.ndarray, floors: dict[str, float]) -> dict[str, float]:
    """Scores to choose a model by: `d_stsp` and `d_h` in units of their floors, added up as `score`; smaller is better.

    A run that has failed never ranks before one that has not: 1000 for its failure, and more the further it is out.

    **Arguments:** `true`: validation stretch `[t, n]`; `generated`: free run `[l, n]`, l <= t; `floors`: from `floors`.
    """
    length = len(generated)
    found = {"d_h": d_h(true[:length], generated), "outside": outside(true, generated)}
    if "d_stsp" in floors:
        found["d_stsp"] = d_stsp(true, generated)
    total = sum(found[k] / floors[k] for k in floors)
    if not np.isfinite(generated).all():
        total = np.inf
    elif found["outside"] > OUTSIDE_LIMIT:
        total += 1000 * (1 + found["outside"])
    return {"score": total, "d_stsp": float("nan"), **found}


def floors(true: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """`d_stsp` (up to five variables) and `d_h` of another true stretch `[l, n]` against `true` `[t, n]`, l <= t."""
    found = {"d_h": d_h(true[: len(other)], other)}
    if true.shape[1] <= 5:
        found["d_stsp"] = d_stsp(true, other)
    return {k: max(v, 1e-6) for k, v in found.items()}


def _distances(true: np.ndarray, run: np.ndarray, length: int) -> dict[str, tuple]:
    """Each distance of the run, and the mean of the same over true stretches held out of the reference in turn."""
    count = min(STRETCHES, len(true) // length)
    held = [slice(len(true) - (k + 1) * length, len(true) - k * length) for k in range(count)]
    rest = [np.delete(true, np.r_[s], axis=0) for s in held]
    mean, sd = true.mean(0), true.std(0, ddof=1)
    measures: dict[str, tuple] = {}
    if true.shape[1] <= 5:
        for name, definition, text in (
            ("d_stsp", "min-max", "30 bins a variable over [min, max] of the truth, the lowest left out"),
            ("d_stsp_padded", "padded", "30 bins a variable over [min - sd/10, max + sd/10] of the truth"),
            ("d_stsp_two_sigma", "two-sigma", "30 bins a variable over +-2 sd of the standardised truth"),
        ):

            def binned(a, b, definition=definition):
                return d_stsp((a - mean) / sd, (b - mean) / sd, definition=definition)

            measures[name] = (binned, text)
    measures["d_h"] = (
        lambda a, b: d_h(a[:length], b),
        "Hellinger distance of spectra smoothed over 20 bins, mean over variables",
    )
    measures["outside"] = (outside, "share of points outside [min - sd/10, max + sd/10] of the truth")
    return {
        name: (
            f(rest[0], run),
            np.mean([f(r, true[s]) for r, s in zip(rest, held, strict=True)]),
            text,
            length,
        )
        for name, (f, text) in measures.items()
    }


def _exponents(reconstruction: Reconstruction, series: Any, starts: int) -> dict[str, tuple]:
    dt, steps = reconstruction.clock.time_step, 5000
    states = reconstruction.filter(series)
    at = np.linspace(0, len(states) - 1, starts).astype(int)
    size = reconstruction.cell.state_size
    mean, error = (
        np.asarray(x) for x in lyapunov_mean(reconstruction.cell, states[at], steps=steps, dt=dt, discard=500)
    )
    unit = reconstruction.clock.unit or "unit of time"
    unit = "second" if unit == "datetime" else unit
    text = f"standard error as floor; per {unit}, {starts} starts"
    length = starts * steps
    dimension = kaplan_yorke(mean) if np.isfinite(mean).all() else float("nan")
    spread = _dimension_error(mean, error) if np.isfinite(mean).all() else float("nan")
    return {
        "lyapunov_max": (mean[0], error[0], f"largest exponent; {text}", length),
        "lyapunov_sum": (
            mean.sum(),
            np.sqrt((error**2).sum()),
            f"sum of {size} exponents; {text}",
            length,
        ),
        "kaplan_yorke": (
            dimension,
            spread,
            "Kaplan-Yorke dimension; standard error as floor",
            length,
        ),
    }


def _dimension_error(mean: np.ndarray, error: np.ndarray) -> float:
    """Standard error of the dimension, by moving each exponent by its own."""
    moved = [kaplan_yorke(np.sort(mean + step)[::-1]) for step in np.diag(error)]
    return float(np.sqrt(((np.array(moved) - kaplan_yorke(mean)) ** 2).sum()))


def _warning(rows: dict[str, tuple]) -> str:
    """What a reader must not overlook: distances far from what a perfect model scores."""
    far = [
        f"{name} is {value / floor:.1f} times its floor"
        for name, (value, floor, *_) in rows.items()
        if name in ("d_stsp", "d_h") and value > FAR * floor
    ]
    if not far:
        return ""
    return (
        f"{' and '.join(far)}: the attractor is not well reproduced. Try more updates, another alpha or another cell."
    )


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None
