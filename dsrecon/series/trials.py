"""Several trials of one system, and the external inputs that go with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsrecon.series.clock import Clock, Series
from dsrecon.series.door import as_series, several


def as_trials(
    data: Any,
    *,
    time_step: float | None = None,
    names: Sequence[str] | None = None,
    resample: float | None = None,
    calendar: bool = False,
) -> tuple[Series, ...]:
    """One series, or a list of them (trials of one system, of any lengths), each checked as by `as_series`.

    **Arguments:** `data`: what `as_series` takes, or a list or tuple of that; the others as there.

    **Raises:** `ValueError` as `as_series`, with the trial's number; for trials with different variables, units or
    time steps; for a variable that no trial ever observed.
    """
    given = list(data) if several(data) else [data]
    trials = []
    for i, one in enumerate(given):
        try:
            trials.append(as_series(one, time_step=time_step, names=names, resample=resample, calendar=calendar))
        except ValueError as error:
            raise ValueError(f"trial {i}: {error}" if len(given) > 1 else str(error)) from error
    first = trials[0]
    for i, trial in enumerate(trials[1:], 1):
        if trial.names != first.names:
            raise ValueError(
                f"trials must have the same variables: trial {i} has {trial.names}, trial 0 has {first.names}."
            )
        if not np.isclose(trial.clock.time_step, first.clock.time_step, rtol=1e-3, atol=0):
            raise ValueError(
                f"trials must have the same time step: trial {i} has {trial.clock.time_step:g}, "
                f"trial 0 has {first.clock.time_step:g}. Resample them to one (resample={first.clock.time_step:g})."
            )
        for name, unit, other in zip(first.names, first.units, trial.units, strict=True):
            if unit != other:
                raise ValueError(
                    f"trials must have the same units: {name!r} is in {other!r} in trial {i}, in {unit!r} in trial 0."
                )
    seen = np.sum([np.isfinite(trial.values).sum(0) for trial in trials], axis=0)
    if not seen.all():
        name = first.names[int(np.argmin(seen))]
        rows = sum(len(trial.values) for trial in trials)
        raise ValueError(
            f"{name!r} is never observed: all of its {rows} values are NaN. Leave it out "
            "(on the command line: --columns)."
        )
    return tuple(trials)


def as_inputs(data: Any, trials: Sequence[Series]) -> tuple[Series, ...]:
    """External inputs of every trial, row for row with its observations.

    Where both have times the inputs are laid beside the observations by time; otherwise row 0 is beside row 0. Inputs
    that go on after the last observation are cut (where one side alone has times they must be as long).

    **Arguments:** `data`: what `as_series` takes, a list of that for several trials; `trials`: from `as_trials`.

    **Raises:** `ValueError` for inputs with missing values, another number of trials, another time step, other
    variables from trial to trial, or shorter than the observations.
    """
    refuse_names(data)
    inputs = as_trials(data)
    if len(inputs) != len(trials):
        raise ValueError(f"inputs must be as many as the trials: got {len(inputs)} for {len(trials)}.")
    return tuple(
        aligned(one, trial.clock, len(trial.values), i)
        for i, (one, trial) in enumerate(zip(inputs, trials, strict=True))
    )


def refuse_names(inputs: Any) -> None:
    """**Raises** `ValueError` for the names of inputs where the inputs themselves belong."""
    listed = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(listed, list | tuple) and listed and all(isinstance(name, str) for name in listed):
        raise ValueError(
            f"inputs must be series, row for row with the observations, not names: got {inputs!r}. Of a table: "
            f"inputs=table[{list(listed)}], and the other columns as the series."
        )


def aligned(inputs: Series, clock: Clock, rows: int, trial: int = 0) -> Series:
    """`inputs` cut to the `rows` samples of a `clock`; what is raised is told in `as_inputs`."""
    if np.isnan(inputs.values).any():
        row, column = np.argwhere(np.isnan(inputs.values))[0]
        raise ValueError(
            f"inputs must be complete: {inputs.names[column]!r} is NaN at row {row} of trial {trial}. Fill the gap: "
            "what drove the system cannot be left out."
        )
    first, timed = 0, [one.origin != 0.0 for one in (clock, inputs.clock)]
    if any(timed) and not all(timed) and len(inputs.values) > rows:
        raise ValueError(
            f"inputs must have times, or as many rows as the observations: got {len(inputs.values)} for {rows}. With "
            "times that do not begin at 0 on one side only, none of the rows is known to be the first."
        )
    if Clock() not in (clock, inputs.clock):
        step = clock.time_step
        same = inputs.clock.frequency == clock.frequency and bool(clock.frequency)  # the mean step of a calendar varies
        if not same and not np.isclose(inputs.clock.time_step, step, rtol=1e-3, atol=0):
            raise ValueError(f"inputs must have the time step of the series, {step:g}: got {inputs.clock.time_step:g}.")
        first = _offset(inputs.clock, clock) if all(timed) else 0
    have = len(inputs.values) - max(first, 0)
    if first < 0 or have < rows:
        raise ValueError(
            f"inputs are shorter than the observations: trial {trial} has {rows} rows, its inputs cover "
            f"{max(0, min(rows, have) + min(first, 0))} of them."
        )
    values = inputs.values[first : first + rows]
    return inputs._replace(values=values, clock=clock)


def _offset(inputs: Clock, series: Clock) -> int:
    """Row of the inputs at the time of row 0 of the series."""
    if isinstance(inputs.origin, str) != isinstance(series.origin, str):
        raise ValueError("inputs and series must both have dates, or both numbers, for times: got one of each.")
    rows = inputs.row(series.origin)
    if not abs(rows - np.round(rows)) <= 1e-3:
        raise ValueError(
            "inputs must be sampled at the times of the series: the series begins between two of them, at "
            f"{series.origin} where theirs begin at {inputs.origin}."
        )
    return round(rows)
