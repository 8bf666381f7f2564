"""Solvers that find all steps of a nonlinear recurrence at once, by iteration over the whole sequence."""

from dsrecon.newton.auto import Auto as Auto
from dsrecon.newton.guess import AbstractGuess as AbstractGuess
from dsrecon.newton.guess import CoarseToFine as CoarseToFine
from dsrecon.newton.guess import Held as Held
from dsrecon.newton.guess import Swept as Swept
from dsrecon.newton.guess import Targets as Targets
from dsrecon.newton.shooting import Shooting as Shooting
from dsrecon.newton.solvers import AbstractParallel as AbstractParallel
from dsrecon.newton.solvers import Newton as Newton
from dsrecon.newton.solvers import Picard as Picard
from dsrecon.newton.solvers import QuasiNewton as QuasiNewton
from dsrecon.newton.solvers import TrustRegion as TrustRegion
