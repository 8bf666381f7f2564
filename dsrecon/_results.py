"""How a run ended (`RESULTS`), the run itself (`Trajectory`), and the settings of a fit as they are shown."""

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
    - `result`: a member of `RESULTS`, shown as its message, which is empty for a run that ended well; compare it,
      `run.result == RESULTS.successful`, one truth value a run of a batch. NaN is left where it arose; nothing is
      clipped.
    - `stats`: facts of the run. `first_nonfinite` is the index into `zs` of the first state that is not
      finite, or `t` where all of them are; an iterative solver adds its own (`Newton` says which).
    """

    zs: Inexact[Array, "*batch t m"]
    result: Any
    stats: dict[str, Array]


class Settings(dict[str, Any]):
    """Settings of a fit: a dict, name to `{"value", "reason"}`, that is shown as a line a setting."""

    def __repr__(self) -> str:
        return "\n".join(f"{name} = {s['value']!r} ({s['reason']})" for name, s in self.items()) or "{}"
