"""A fitted map taken apart: its fixed points and cycles, complete, and what they are."""

from dsrecon.analysis.cycles import cycles as cycles
from dsrecon.analysis.cycles import fixed_points as fixed_points
from dsrecon.analysis.found import Certificate as Certificate
from dsrecon.analysis.found import Cycle as Cycle
from dsrecon.analysis.found import Found as Found
from dsrecon.analysis.found import Singular as Singular
from dsrecon.analysis.heuristic import find_cycles as find_cycles
from dsrecon.analysis.stability import Stability as Stability
from dsrecon.analysis.stability import stability as stability
