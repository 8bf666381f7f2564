"""From a fitted piecewise-linear map to symbols: regions, dwell times, transitions, files."""

from dsrecon.symbolic.encode import encode as encode
from dsrecon.symbolic.export import read_graphml as read_graphml
from dsrecon.symbolic.export import read_symbols as read_symbols
from dsrecon.symbolic.export import write_graphml as write_graphml
from dsrecon.symbolic.export import write_symbols as write_symbols
from dsrecon.symbolic.graph import transition_graph as transition_graph
from dsrecon.symbolic.symbols import dwell_times as dwell_times
from dsrecon.symbolic.symbols import run_lengths as run_lengths
from dsrecon.symbolic.symbols import transitions as transitions
