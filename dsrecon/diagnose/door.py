"""The door: a reconstruction in, a diagnosis out."""

from typing import Any, NamedTuple

import pandas as pd

from dsrecon.diagnose.evidence import Evidence, evidence_of, stretch_of
from dsrecon.diagnose.rules import Finding, findings_of
from dsrecon.reconstruction import Reconstruction


class Diagnosis(NamedTuple):
    """What is wrong with a fit. `str` of it is plain text to be read.

    - `findings`: the root cause first; empty for a fit with no fault found.
    - `evidence`: every number that was measured, see `Evidence`.
    """

    findings: tuple[Finding, ...]
    evidence: Evidence

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def table(self) -> pd.DataFrame:
        """One row a number that a finding rests on: `finding`, `figure`, `value`, `threshold`."""
        rows = [(f.name, name, *figure) for f in self.findings for name, figure in f.figure.items()]
        return pd.DataFrame(rows, columns=["finding", "figure", "value", "threshold"])

    def __str__(self) -> str:
        e = self.evidence
        if self.healthy:
            return (
                f"No fault found: the free run keeps to the data (d_stsp {e.d_stsp:.2g} and d_h {e.d_h:.2g} times what "
                f"the other half of them scores; errors {e.ahead} steps ahead {e.error_ahead:.2g} of the variance, of "
                f"nearest neighbours {e.analogue_ahead:.2g})."
            )
        return "\n\n".join(_paragraph(i, finding) for i, finding in enumerate(self.findings, 1))


def diagnose(reconstruction: Reconstruction, series: Any = None, *, inputs: Any = None) -> Diagnosis:
    """What is wrong with a fit, and what to try: in plain words, with the numbers that they rest on.

    A free run is compared with the data, forecasts with those of nearest neighbours in the data, the coordinates with
    the same and their past, and the training with the gradients that it had. All numbers are in units that
    transfer between systems (floors, shares of the variance, orders of magnitude a window); their thresholds are
    module constants of `dsrecon.diagnose.signs`, each with what it was set on. A fit whose free run keeps to the data
    and that foretells them is not searched for causes.

    Findings: `diverged`, `alpha_small`, `embedding`, `regions`, `alpha_large`, `underfit`, `point`, `cycle`,
    `spectrum`, `attractor`, `unlike`; the order is that in which they are named, causes before what follows from them.

    **Arguments:** `series`: what to diagnose against, as `reconstruct` takes it, in the units of the data; default: the
    validation stretch that the fit has kept, which it was chosen by. At least 200 rows observed in every variable; of
    more than 10,000 the first count. `inputs`: of a driven model, row for row with the series.

    `diagnose(model)` and `diagnose(model, data)` look at different stretches, the end of the data that was held out and
    the beginning of what is given, so their numbers differ, and a finding near its threshold may be in one alone.

    **Returns:** `Diagnosis(findings, evidence)`: `.healthy`, `.table()`, and `str` of it.

    **Raises:** `ValueError` where there is neither a series nor a stretch kept, for one that is too short or of other
    variables, and for inputs that are missing or do not fit.

    Reference: false neighbours and analogues: Kennel, Brown & Abarbanel 1992, Physical Review A 45, 3403; Lorenz 1969,
    Journal of the Atmospheric Sciences 26, 636. Forcing and gradients: Hess et al. 2023, *Generalized teacher forcing
    for learning chaotic dynamics*, ICML; Mikhaeil et al. 2022, NeurIPS.
    """
    if not isinstance(reconstruction, Reconstruction):
        raise ValueError(f"reconstruction must be a fitted Reconstruction: got {type(reconstruction).__name__}.")
    evidence = evidence_of(reconstruction, stretch_of(reconstruction, series, inputs))
    return Diagnosis(findings_of(evidence), evidence)


def _paragraph(number: int, finding: Finding) -> str:
    rests = ", ".join(f"{name} = {f.value:.3g} (threshold {f.threshold:.3g})" for name, f in finding.figure.items())
    return f"{number}. {finding.name}: {finding.text}\n   Rests on: {rests}.\n   Try: {finding.advice}"
