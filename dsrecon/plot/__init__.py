"""Figures: the only door to matplotlib. Each shows itself in a notebook; none needs pyplot or a display."""

from dsrecon.plot.ahead import backtested as backtested
from dsrecon.plot.ahead import compared as compared
from dsrecon.plot.ahead import forecast as forecast
from dsrecon.plot.bifurcation import bifurcation as bifurcation
from dsrecon.plot.canvas import PALETTE as PALETTE
from dsrecon.plot.canvas import Drawing as Drawing
from dsrecon.plot.canvas import save as save
from dsrecon.plot.delays import embedding as embedding
from dsrecon.plot.graph import transition_graph as transition_graph
from dsrecon.plot.memory import memory as memory
from dsrecon.plot.orbits import attractor as attractor
from dsrecon.plot.orbits import series as series
from dsrecon.plot.orbits import spectra as spectra
from dsrecon.plot.overview import runs as runs
from dsrecon.plot.overview import summary as summary
from dsrecon.plot.overview import table as table
from dsrecon.plot.pareto import pareto as pareto
from dsrecon.plot.regions import symbols as symbols
from dsrecon.plot.structure import basins as basins
from dsrecon.plot.structure import fixed_points as fixed_points
from dsrecon.plot.structure import manifolds as manifolds
