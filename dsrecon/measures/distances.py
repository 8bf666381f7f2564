"""Every distance of a free run, between the distance of the truth from itself and that of a control."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from dsrecon.measures.attractor import d_h, d_stsp, outside
from dsrecon.measures.controls import controls
from dsrecon.measures.gaps import filled, observed
from dsrecon.measures.mixture import Divergence, d_stsp_mixture, transition_lag, transitions
from dsrecon.measures.surrogates import phase_randomised

STRETCHES = 5
"""True stretches, at most, whose distances make a floor."""

SAMPLES, POINTS = 5_000, 10_000
"""Draws, and points of a mixture at most, in a table of scores."""

Compare = Callable[[np.ndarray, np.ndarray], float | Divergence]
"""A distance `(true, other)`; both may be true stretches with gaps."""


class Row(NamedTuple):
    """One row of `score`: the value, what a perfect model scores, what a control scores, the standard error."""

    value: float
    floor: float
    ceiling: float
    error: float
    definition: str
    length: int


class Distance(NamedTuple):
    """How two series are compared, what its ceiling is made of (`surrogate` or `white`), and its definition."""

    compare: Compare
    control: str
    definition: str


def distances(true: np.ndarray, run: np.ndarray, reasons: Mapping[str, str]) -> dict[str, Row]:
    """The rows of every distance that can be read.

    Floor and ceiling are means over up to five true stretches, each held out of the reference in turn: the distance of
    the stretch itself, and of a series made of it. The value is that of the run against the reference of the first.

    **Arguments:** `true` `[t, n]`, may hold NaN; `run` `[l, n]` with 2 l <= t; `reasons`: measures to leave out.
    """
    length = len(run)
    count = min(STRETCHES, len(true) // length)
    held = [slice(len(true) - (k + 1) * length, len(true) - k * length) for k in range(count)]
    rest = [np.delete(true, np.r_[s], axis=0) for s in held]
    whole = np.isfinite(run).all()
    nan = Divergence(float("nan"), float("nan"))
    rows = {}
    for name, distance in offered(true, length).items():
        if name in reasons:
            continue
        value = _plain(distance.compare(rest[0], run)) if whole else nan
        floor = [_plain(distance.compare(r, true[s])).value for r, s in zip(rest, held, strict=True)]
        made = [_control(distance.control, true[s], k) for k, s in enumerate(held)]
        ceiling = [_plain(distance.compare(r, c)).value for r, c in zip(rest, made, strict=True)]
        rows[name] = Row(
            value.value,
            float(np.mean(floor)),
            float(np.mean(ceiling)),
            value.standard_error,
            distance.definition,
            length,
        )
    left = float(np.mean([outside(r, observed(true[s])) for r, s in zip(rest, held, strict=True)]))
    text = "share of points outside [min - sd/10, max + sd/10] of the truth"
    rows["outside"] = Row(outside(rest[0], run), left, float("nan"), float("nan"), text, length)
    return rows


def mixture(true: np.ndarray, other: np.ndarray) -> Divergence:
    """`d_stsp_mixture` as in a table of scores; the rows observed in every channel count, of both."""
    return d_stsp_mixture(true, observed(other), samples=SAMPLES, points=POINTS)


def spectral(true: np.ndarray, other: np.ndarray) -> float:
    """`d_h` of a stretch of the truth with the gaps of both."""
    true = np.where(np.isnan(other), np.nan, true[: len(other)])
    return d_h(true, filled(other))


def offered(true: np.ndarray, length: int) -> dict[str, Distance]:
    """The distances that there are for a truth `[t, n]` and runs of a length."""
    n = true.shape[1]
    mean, sd = np.nanmean(true, 0), np.nanstd(true, 0, ddof=1)
    linear = "a phase-randomised surrogate as ceiling"
    found: dict[str, Distance] = {}
    if n <= 5:
        for name, definition, text in (
            ("d_stsp", "min-max", "30 bins a variable over [min, max] of the truth, the lowest left out"),
            ("d_stsp_padded", "padded", "30 bins a variable over [min - sd/10, max + sd/10] of the truth"),
            ("d_stsp_two_sigma", "two-sigma", "30 bins a variable over +-2 sd of the standardised truth"),
        ):

            def binned(a, b, definition=definition):
                return d_stsp((a - mean) / sd, (observed(b) - mean) / sd, definition=definition)

            found[name] = Distance(binned, "surrogate", f"{text}; blind to order in time; {linear}")
    if n > 3:
        text = "Gaussians of variance 1 about each point of the standardised truth and run; blind to order in time"
        found["d_stsp_mixture"] = Distance(mixture, "surrogate", f"{text}; {linear}")
    lag = min(transition_lag(true), length // 2)

    def transition(a, b):
        return mixture(transitions(a, lag), transitions(b, lag))

    text = f"Gaussians of variance 1 about states joined with those {lag} steps later"
    found["d_transition"] = Distance(transition, "surrogate", f"{text}; {linear}")
    found["d_h"] = Distance(
        spectral,
        "white",
        "Hellinger distance of spectra smoothed over 20 bins, mean over variables; white noise as ceiling (a surrogate "
        "has the spectrum of the truth)",
    )
    return found


def _control(kind: str, stretch: np.ndarray, seed: int) -> np.ndarray:
    """The series that makes a ceiling, of the length of a true stretch."""
    if kind == "white":
        return controls(stretch, seed=seed)["white"]
    return phase_randomised(filled(stretch), seed=seed)


def _plain(found: float | Divergence) -> Divergence:
    return found if isinstance(found, Divergence) else Divergence(found, float("nan"))
