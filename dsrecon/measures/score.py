"""All scores of a reconstruction against a truth in one table, each beside its floor and its ceiling."""

from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from dsrecon.measures.attractor import OUTSIDE_LIMIT, outside
from dsrecon.measures.controls import disorder
from dsrecon.measures.distances import Row, distances
from dsrecon.measures.gaps import check_observed
from dsrecon.measures.horizon import Horizon, analogue_horizon, valid_prediction_time
from dsrecon.measures.lyapunov import kaplan_yorke, lyapunov_mean
from dsrecon.measures.prediction import analogue_error, prediction_error
from dsrecon.measures.readable import unreadable
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import Clock, Series, aligned, as_series

AHEAD = (1, 20)
DISTANCES = ("d_stsp", "d_stsp_padded", "d_stsp_two_sigma", "d_stsp_mixture", "d_transition", "d_h")
FORECASTS = ("pe_1", "pe_20", "vpt")
SHORTEST = 100
FAR = 3.0  # times its floor, from where a distance is remarked on
EXPONENT_STEPS = 5000
NAN = float("nan")


def score(
    reconstruction: Reconstruction,
    truth: Any,
    *,
    steps: int | None = None,
    starts: int = 16,
    inputs: Any = None,
) -> xr.Dataset:
    """How good a reconstruction is: one row a measure, its value between its floor and its ceiling.

    A free run from the first observation of the truth, after a tenth of `steps` for transients, is compared with the
    truth. The *floor* is the same comparison with true stretches of the same length (up to five, mean): what a perfect
    model scores. The *ceiling* is that of phase-randomised surrogates of these stretches: what a linear Gaussian
    process with the truth's spectra scores (of white noise for `d_h`). A value is good when it is near its floor, and
    says nothing above its ceiling. For forecasts the floor is the method of analogues, for exponents the standard
    error over the starts.

    **Arguments:** `truth`: a series of the same variables, at least 200 samples, NaN where it was not observed;
    `steps`: length of the free run (default: 10,000, or half of the truth); `starts` of the exponents;
    `inputs`: of a driven model, row for row with the truth; the free run then goes through the same inputs, and the
    exponents are those of the response to them. A model of one variable is compared in its delay coordinates.

    **Returns:** `Dataset` along `measure` with `value`, `floor`, `ceiling`, `error` (standard error, NaN where it is
    unknown), `definition`, `length` (steps compared), and the attributes `warning` (words, where a distance is above
    three times its floor, or not below its ceiling), `failed` (0 or 1: the run is not finite, has left the range for
    more than 1 % of its points, does not move, or has no order in time; its distances mean nothing then), `reason`,
    `unreadable`: the measures left out because nothing could be read off them at that length and number of variables,
    and `capped`: which of value and floor of `vpt` is but as far as forecasts were followed, so that it may be longer.
    Measures: `d_stsp`, `d_stsp_padded`, `d_stsp_two_sigma` (up to five variables), `d_stsp_mixture` (above three),
    `d_transition`, `d_h`, `outside`, `pe_1`, `pe_20`, `vpt`, `lyapunov_max`, `lyapunov_sum`, `kaplan_yorke`.

    **Raises:** `ValueError` for other variables, a truth that is too short or does not vary, or `steps` above half of
    it.
    """
    if not isinstance(reconstruction, Reconstruction):
        raise ValueError(
            f"reconstruction must be a fitted Reconstruction, the first argument: got {type(reconstruction).__name__}."
        )
    series = reconstruction.matched(as_series(truth))
    length = _length(series, steps, reconstruction.offset)
    true, run = _material(reconstruction, series, length, inputs)
    left_out = {name: text for name, text in unreadable(length, true.shape[1]).items() if name in DISTANCES}
    left_out |= {name: text for name, text in unreadable(len(true), true.shape[1]).items() if name in FORECASTS}
    states = reconstruction.filter(series, inputs)
    rows = distances(true, run, left_out)
    exponents = _exponents(
        reconstruction, states, starts, reconstruction.driven(inputs, series.clock, len(series.values))
    )
    largest = exponents["lyapunov_max"].value
    ahead, capped = _forecasts(reconstruction, series, states, length, largest, inputs)
    found = rows | ahead | exponents
    found = {name: row for name, row in found.items() if name not in left_out}
    reason = failure(true, run)
    if not reason:
        reason = disorder(true, run)
    columns = dict(zip(Row._fields, zip(*found.values(), strict=True), strict=True))
    return xr.Dataset(
        {
            **{name: ("measure", np.array(columns[name], float)) for name in ("value", "floor", "ceiling", "error")},
            "definition": ("measure", list(columns["definition"])),
            "length": ("measure", np.array(columns["length"], int)),
        },
        coords={"measure": list(found)},
        attrs={
            "failed": int(bool(reason)),
            "reason": reason,
            "warning": _warning(found),
            "unreadable": "; ".join(f"{name}: {text}" for name, text in left_out.items()),
            "capped": "; ".join(capped) if "vpt" in found else "",
        },
    )


def records(table: xr.Dataset) -> list[dict[str, Any]]:
    """The rows of `score` as plain records (JSON): a number that is not finite is `None`."""
    return [
        {
            "measure": str(row["measure"].values),
            "value": _plain(row["value"].item()),
            "floor": _plain(row["floor"].item()),
            "ceiling": _plain(row["ceiling"].item()),
            "error": _plain(row["error"].item()),
            "definition": str(row["definition"].values),
            "length": int(row["length"]),
        }
        for row in (table.isel(measure=i) for i in range(table.sizes["measure"]))
    ]


def failure(true: np.ndarray, generated: np.ndarray) -> str:
    """Why a run cannot be scored; empty when it can. The truth `[t, n]` may hold NaN."""
    bad = ~np.isfinite(generated).all(1)
    if bad.any():
        return f"the free run is not finite from step {int(np.argmax(bad))} on"
    share = outside(true, generated)
    return f"{100 * share:.1f} % of the free run lies outside the range of the data" if share > OUTSIDE_LIMIT else ""


class _Material(NamedTuple):
    """What is compared: the truth `[t, n]`, and a free run `[length, n]`."""

    true: np.ndarray
    run: np.ndarray


def _material(reconstruction: Reconstruction, series: Series, length: int, inputs: Any) -> _Material:
    """The truth, and a free run from its first row that is observed in every variable, both in the model's coordinates.

    A driven run goes through the inputs that follow that row, without a transient: it stays beside the truth.
    """
    true, offset = reconstruction.embedded(series).values, reconstruction.offset
    complete = np.isfinite(true).all(1)
    if not complete.any():
        raise ValueError("truth must have a row that is observed in every variable: it has none.")
    first = int(np.argmax(complete))
    discard, key = length // 10, jax.random.key(0)
    if inputs is not None:
        discard, given = 0, aligned(as_series(inputs), series.clock, len(series.values))
        inputs = given._replace(values=given.values[first + offset + 1 :], clock=Clock())
    run = reconstruction.simulate(
        length + offset, start=true[first], inputs=inputs, discard=discard, throw=False, key=key
    ).values
    return _Material(true, run if reconstruction.embedding is None else reconstruction.embedding(run))


def _length(series: Series, steps: int | None, offset: int) -> int:
    """Length of the free run, checked; `offset`: rows of the truth that an embedding takes."""
    true = series.values[offset:]
    if len(true) < 2 * SHORTEST:
        raise ValueError(f"truth must have at least {2 * SHORTEST} samples: got {len(true)}.")
    length = min(10_000, len(true) // 2) if steps is None else steps
    if not SHORTEST <= length <= len(true) // 2:
        raise ValueError(f"steps must lie between {SHORTEST} and half of the truth, {len(true) // 2}: got {steps}.")
    check_observed(true, "truth")
    for name, column in zip(series.names, true.T, strict=True):
        if not np.nanmax(column) > np.nanmin(column):
            raise ValueError(f"truth must vary: {name!r} is constant.")
    return length


def _forecasts(
    reconstruction: Reconstruction, series: Series, states: Any, length: int, exponent: float, inputs: Any
) -> tuple[dict[str, Row], list[str]]:
    """Errors some steps ahead, and the time for which a forecast holds; those of analogues in the data as floor.

    Also which of these times are as long as the forecasts were followed, in words.
    """
    true, rows = series.values, {}
    before, after = true[:-length], true[-length:]
    for n in AHEAD:
        floor = analogue_error(before, after, steps=n)
        text = f"error of nearest neighbours as floor; mean squared error {n} steps ahead, in variances of the truth"
        value = prediction_error(reconstruction, series, steps=n, states=states, inputs=inputs)
        rows[f"pe_{n}"] = Row(value, floor, NAN, NAN, text, len(true))
    if reconstruction.readout.memory:
        return rows, []
    longest, dt = min(2000, length // 2), reconstruction.clock.time_step
    vpt = valid_prediction_time(reconstruction, series, steps=longest, exponent=exponent, states=states, inputs=inputs)
    low, high = vpt.median_interval
    text = f"median time until the normalised error passes 0.4, higher is better; 95 % interval {low:.3g} to {high:.3g}"
    if np.isfinite(vpt.lyapunov_times):
        text += f"; {vpt.lyapunov_times:.3g} Lyapunov times of the model"
    if vpt.censored:
        text += f"; {100 * vpt.censored:.0f} % of the forecasts never pass within {vpt.limit:.3g}"
    analogues = analogue_horizon(before, after, dt=dt, steps=longest)
    text = f"{text}; that of nearest neighbours as floor"
    capped = [_capped(name, found) for name, found in (("value", vpt), ("floor", analogues)) if found.censored >= 0.5]
    if analogues.censored >= 0.5:
        text += f", {100 * analogues.censored:.0f} % of which never pass within {analogues.limit:.3g}: it may be longer"
    return rows | {"vpt": Row(vpt.median, analogues.median, NAN, vpt.standard_error, text, len(true))}, capped


def _capped(name: str, found: Horizon) -> str:
    return (
        f"the {name} of vpt is at least {found.median:.4g}: forecasts were followed no further than {found.limit:.4g}"
    )


def _exponents(reconstruction: Reconstruction, states: Any, starts: int, drive: Any) -> dict[str, Row]:
    """Exponents and dimension; of a driven model those of its response to the inputs of the truth."""
    dt, steps, discard = reconstruction.clock.time_step, EXPONENT_STEPS, 500
    if drive is not None:
        discard = min(discard, len(drive) // 10)
        steps = min(steps, len(drive) - discard)
        drive = drive[: discard + steps]
    at = np.linspace(0, len(states) - 1, starts).astype(int)
    size = reconstruction.cell.state_size
    found = lyapunov_mean(reconstruction.cell, states[at], drive, steps=steps, dt=dt, discard=discard)
    mean, error = (np.asarray(x) for x in found)
    unit = reconstruction.clock.unit or "unit of time"
    unit = "second" if unit == "datetime" else unit
    text = f"standard error as floor; per {unit}, {starts} starts of {steps:,} steps each"
    length = starts * steps
    good = bool(np.isfinite(mean).all())
    dimension = kaplan_yorke(mean) if good else NAN
    spread = _dimension_error(mean, error) if good else NAN
    about = "Kaplan-Yorke dimension; standard error as floor"
    if good and dimension == 0 and (still := _may_vanish(mean, error))[0]:
        other = kaplan_yorke(np.where(still, 0.0, mean))
        about += f"; the largest exponent is not told from zero, at which this would be {other:.3g}"
    whole = float(np.sqrt((error**2).sum()))
    largest, least = float(mean[0]), float(error[0])
    return {
        "lyapunov_max": Row(largest, least, NAN, least, f"largest exponent; {text}", length),
        "lyapunov_sum": Row(float(mean.sum()), whole, NAN, whole, f"sum of {size} exponents; {text}", length),
        "kaplan_yorke": Row(dimension, spread, NAN, spread, about, length),
    }


def _dimension_error(mean: np.ndarray, error: np.ndarray) -> float:
    """Standard error of the dimension, by moving each exponent by its own.

    The dimension jumps where the largest exponent passes zero, from 0 to 1 at least. So where that is not told from
    zero, which that of a limit cycle is, the error is no less than the way to the dimension with it at zero.
    """
    dimension = kaplan_yorke(mean)
    moved = [kaplan_yorke(np.sort(mean + step)[::-1]) for step in np.diag(error)]
    spread = float(np.sqrt(((np.array(moved) - dimension) ** 2).sum()))
    still = _may_vanish(mean, error)
    return max(spread, abs(kaplan_yorke(np.where(still, 0.0, mean)) - dimension)) if still[0] else spread


def _may_vanish(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which exponents are within two standard errors of zero."""
    return np.abs(mean) <= 2 * error


def _warning(rows: dict[str, Row]) -> str:
    """What a reader must not overlook: distances far from what a perfect model scores, or as bad as a control's."""
    far, linear = [], []
    for name in ("d_stsp", "d_stsp_mixture", "d_transition", "d_h"):
        if name not in rows:
            continue
        row = rows[name]
        noise = 2 * row.error if np.isfinite(row.error) else 0.0
        if name != "d_transition" and row.value > FAR * max(row.floor, noise):
            far.append(f"{name} is {row.value / max(row.floor, noise):.1f} times its floor")
        if row.value > row.ceiling:
            linear.append(name)
    words = f"{' and '.join(far)}: the attractor is not well reproduced." if far else ""
    if linear:
        words += f" Above the ceiling, so no better than a linear process: {', '.join(linear)}."
    return f"{words.strip()} Try more updates, another alpha or another cell." if words else ""


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None
