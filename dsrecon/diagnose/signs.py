"""What each number is a sign of: the thresholds, and the questions that they answer.

They were set on Lorenz-63, Lorenz-96 (5 variables) and Henon alone (`SETTING` in `benchmarks/diagnose.py`).
"""

import numpy as np

from dsrecon.diagnose.evidence import Evidence

OUTSIDE = 0.05
"""Share of the free run out of the range of the data. Good fits, run twice as long as the data, come to .012."""

STILL = 0.01
"""Motion at the end of a run, in standard deviations of the data, below which it rests."""

FORGETS, REPEATS = 0.1, 0.1
"""Data forget from this error of neighbours a quarter of the stretch ahead; a run repeats below so much of theirs."""

FAR_STSP = 8.0
"""Floors of `d_stsp` from where the attractor is another one. Good fits come to 3.4."""

FAR_H, APART_H = 6.0, 0.1
"""Floors of `d_h`, and `d_h` itself, from where both the spectrum is another one. Good fits come to 2.3 and .06."""

UNLEARNED, UNLEARNED_SHARE = 3.0, 0.05
"""Error of forecasts over that of neighbours, and in variances, from where both the law has not been learned."""

AS_TRAINED = 3.0
"""One-step error over the loss, above which the cell is not the one that the training left."""

ORDERS = 1.0
"""Orders of magnitude that gradients grow over a window, from where they cannot be followed."""

STEEP = 100.0
"""Median gradient norm; those of good fits lie between .03 and .3."""

BROKEN = 0.5
"""Share of the runs that broke off, from where the forcing is to blame."""

FALSE = 0.004
"""Share of false neighbours from where coordinates do not suffice. Good ones had none, planted ones at least .0095."""

FEW_REGIONS, STRUCTURED = 2, 0.5
"""Regions along the data up to which, and foretold share of the residuals from where, a cell is too stiff."""

LEFT = 0.5
"""What a step under forcing leaves of a difference, `(1 - alpha) s`, below which the model hardly runs by itself."""


def astray(e: Evidence) -> bool:
    """Whether the free run is not what the data are."""
    return left(e) or rests(e) or repeats(e) or e.d_stsp > FAR_STSP or spectrum_apart(e)


def left(e: Evidence) -> bool:
    """Whether the free run is not finite, or out of range."""
    return e.nonfinite >= 0 or e.outside > OUTSIDE


def rests(e: Evidence) -> bool:
    """Whether the free run comes to rest, and the data do not."""
    return e.moves < STILL <= e.moves_data


def repeats(e: Evidence) -> bool:
    """Whether the past of the free run foretells it for ever, and that of the data does not."""
    return e.far > FORGETS and e.far_run < REPEATS * e.far


def spectrum_apart(e: Evidence) -> bool:
    """Whether the spectra differ, in floors and by themselves."""
    return e.d_h > FAR_H and e.distance_h > APART_H


def unlearned(e: Evidence) -> bool:
    """Whether nearest neighbours in the data foretell far better than the model (also where it has no finite error)."""
    return not e.error_ahead <= max(UNLEARNED * e.analogue_ahead, UNLEARNED_SHARE)


def as_trained(e: Evidence) -> bool:
    """Whether the one-step error is what the loss of the model that was kept lets expect."""
    return bool(e.error <= AS_TRAINED * e.loss)


def steepness(e: Evidence) -> float:
    """Orders of magnitude that gradients grow over a window: stretched as the data are, and pulled back by forcing."""
    pull = e.length if np.isnan(e.interval) else min(e.interval, e.length)
    alpha = e.alpha if np.isnan(e.interval) and np.isfinite(e.alpha) else 0.0
    with np.errstate(divide="ignore"):
        return float(pull * (e.growth + np.log(1 - alpha)) / np.log(10))


def forcing_needed(e: Evidence) -> float:
    """The forcing under which gradients keep their length: `1 - 1/s`, with `s` the stretch of the data or the cell."""
    return float(np.clip(1 - np.exp(-max(e.growth, np.log(max(1.0, e.stretch)))), 0.0, 1.0))
