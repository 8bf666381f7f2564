"""What is measured of a series or of a system; one subject a file."""

from dsrecon.measures.attractor import d_h as d_h
from dsrecon.measures.attractor import d_stsp as d_stsp
from dsrecon.measures.attractor import outside as outside
from dsrecon.measures.lyapunov import Exponents as Exponents
from dsrecon.measures.lyapunov import kaplan_yorke as kaplan_yorke
from dsrecon.measures.lyapunov import lyapunov_mean as lyapunov_mean
from dsrecon.measures.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from dsrecon.measures.prediction import analogue_error as analogue_error
from dsrecon.measures.prediction import prediction_error as prediction_error
from dsrecon.measures.score import records as records
from dsrecon.measures.score import score as score
