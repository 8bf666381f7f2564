"""Which measure may be read at a length and a number of variables? Limits that were measured, not folklore."""

from typing import NamedTuple

import numpy as np
import xarray as xr

LONGEST = 20_000
"""The longest series that the limits were looked for at (but bins in five variables: 100,000)."""


class Limit(NamedTuple):
    """From where a measure can be read.

    - `least`: number of variables to the least length, `None` where even the longest measured does not do. Between two
      measured numbers the larger one counts.
    - `most`: variables up to which the measure is defined, `None` without bound.
    - `blind`: controls that it cannot see by construction, in words.
    - `of`: what the length is a length of.
    - `mean`: it is a mean over variables or a property of a run, so that more variables than measured change nothing.
    """

    least: dict[int, int | None]
    most: int | None = None
    blind: str = ""
    of: str = "samples"
    mean: bool = False


_ORDER = "blind to order in time: a shuffled series scores as a good one; read d_h or d_transition beside it"

LIMITS: dict[str, Limit] = {
    "d_stsp": Limit({1: None, 2: 5000, 3: 10_000, 5: 50_000}, 5, _ORDER),
    "d_stsp_padded": Limit({1: None, 2: 5000, 3: 5000, 5: 50_000}, 5, _ORDER),
    "d_stsp_two_sigma": Limit({1: None, 2: 5000, 3: 5000, 5: 100_000}, 5, _ORDER),
    "d_stsp_mixture": Limit({1: None, 2: 5000, 3: 500, 5: 500, 10: 10_000, 20: None}, None, _ORDER),
    "d_transition": Limit({1: 2000, 2: 2000, 3: 2000, 5: 1000, 10: 10_000, 20: None}),
    "d_h": Limit(
        {1: 200, 2: 200, 3: 200, 5: 200, 10: 200, 20: 200},
        None,
        "a nearly flat spectrum (Hénon): noise scores 4 to 5 times its floor at every length",
        mean=True,
    ),
    "pe_1": Limit({2: 200, 3: 200, 5: 200, 10: 200, 20: 200}, mean=True),
    "pe_20": Limit(
        {3: 200, 5: 200, 10: 200, 20: 200},
        None,
        "a map sees 20 steps ahead at no length (Hénon: 8 Lyapunov times)",
        mean=True,
    ),
    "vpt": Limit({2: 200, 3: 200, 5: 200, 10: 200, 20: 200}, mean=True),
    "lyapunov_max": Limit({2: 200, 3: 5000, 5: 5000, 10: 200, 20: 200}, None, "", "steps of a run", True),
    "kaplan_yorke": Limit({2: 200, 3: 200, 5: 200, 10: 200, 20: 200}, None, "", "steps of a run", True),
    "correlation_dimension": Limit({3: 5000, 5: 5000}, None, "blind to order in time: a shuffled series has the same"),
    "permutation_entropy": Limit({1: 1000}, mean=True),
    "chaos_test": Limit({1: 5000}, mean=True),
}
"""By `benchmarks/readable.py`: floor below a fifth of white noise, a constant and a shuffled series."""


def readable(length: int, variables: int) -> xr.Dataset:
    """Which measures can be read at a length and a number of variables: one row a measure.

    A measure can be read where its floor (another stretch of the same system, of that length) is below a fifth of what
    its negative controls score: white noise, a constant, a shuffled series. The limits were measured on Lorenz-63
    (.01 a step), Roessler (.1) and Hénon, and on Lorenz-96 (.05) of 5, 10 and 20 variables, and are those of the worst:
    `benchmarks/readable.py`. A series sampled more finely than these (75, 59 and about 30 samples a turn) needs more.

    **Arguments:** `length`: samples of the shorter series (for exponents: steps of a run); `variables`.

    **Returns:** `Dataset` along `measure` with `readable` (bool), `reason` (why, or why not), `least` (length from
    which it can be read, NaN where none is known) and `blind` (what it cannot see at any length; empty: nothing known).

    **Raises:** `ValueError` for a length or a number of variables below 1.
    """
    for name, value in (("length", length), ("variables", variables)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}.")
    judged = [_judge(limit, length, variables) for limit in LIMITS.values()]
    return xr.Dataset(
        {
            "readable": ("measure", np.array([good for good, _, _ in judged])),
            "reason": ("measure", [reason for _, reason, _ in judged]),
            "least": ("measure", np.array([np.nan if least is None else least for _, _, least in judged], float)),
            "blind": ("measure", [limit.blind for limit in LIMITS.values()]),
        },
        coords={"measure": list(LIMITS)},
        attrs={"length": length, "variables": variables},
    )


def unreadable(length: int, variables: int) -> dict[str, str]:
    """The measures that cannot be read, and why."""
    judged = {name: _judge(limit, length, variables) for name, limit in LIMITS.items()}
    return {name: reason for name, (good, reason, _) in judged.items() if not good}


def _judge(limit: Limit, length: int, variables: int) -> tuple[bool, str, int | None]:
    """Whether it can be read, why, and from which length."""
    if limit.most is not None and variables > limit.most:
        return False, f"defined for at most {limit.most} variables: got {variables}", None
    above = [n for n in limit.least if n >= variables]
    if not above and not limit.mean:
        return False, f"not measured above {max(limit.least)} variables: got {variables}", None
    at = min(above, default=max(limit.least))
    least = limit.least[at]
    if least is None:
        return False, f"not told from its controls by the {LONGEST:,} {limit.of} measured at {_variables(at)}", None
    words = f"from {least:,} {limit.of} on at {_variables(at)}"
    return (True, f"readable {words}", least) if length >= least else (False, f"{words}: got {length:,}", least)


def _variables(count: int) -> str:
    return f"{count} variable{'s' if count > 1 else ''}"
