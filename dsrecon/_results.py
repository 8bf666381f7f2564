"""How a run ended (`RESULTS`), and the run itself (`Trajectory`)."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Inexact


class RESULTS(eqx.Enumeration):
    """How a solve or a run ended. Each member prints as its message."""

    successful = ""
    diverged = (
        "The run diverged: a state became infinite or NaN. "
        "Call with `throw=False` and read `stats['first_nonfinite']` for the step."
    )
    not_converged = (
        "The iteration over the whole sequence did not converge: the states from `stats['first_inexact']` on do not "
        "follow from one another. A free-running chaotic map needs about as many iterations as steps; more forcing, "
        "a nearer guess, a `window`, or `finish='sequential'` may help. Call with `throw=False` to read the states."
    )


class Trajectory(eqx.Module):
    """A run of a cell.

    - `zs`: states, `[t, m]`; `zs[t]` follows `inputs[t]`, and the initial state is not in it.
    - `result`: a member of `RESULTS`. NaN is left where it arose; nothing is clipped.
    - `stats`: facts of the run. `first_nonfinite` is the index into `zs` of the first state that is not
      finite, or `t` where all of them are; an iterative solver adds its own (`Newton` says which).
    """

    zs: Inexact[Array, "*batch t m"]
    result: Any
    stats: dict[str, Array]
