"""What is measured of a series or of a system; one subject a file."""

from dsrecon.measures.lyapunov import Exponents as Exponents
from dsrecon.measures.lyapunov import kaplan_yorke as kaplan_yorke
from dsrecon.measures.lyapunov import lyapunov_mean as lyapunov_mean
from dsrecon.measures.lyapunov import lyapunov_spectrum as lyapunov_spectrum
