"""From a fitted piecewise-linear map to symbols: regions, dwell times, transitions, words, files."""

from dsrecon.symbolic.encode import encode as encode
from dsrecon.symbolic.epsilon import EpsilonMachine as EpsilonMachine
from dsrecon.symbolic.epsilon import epsilon_machine as epsilon_machine
from dsrecon.symbolic.export import read_graph as read_graph
from dsrecon.symbolic.export import read_graphml as read_graphml
from dsrecon.symbolic.export import read_symbols as read_symbols
from dsrecon.symbolic.export import write_graph as write_graph
from dsrecon.symbolic.export import write_graphml as write_graphml
from dsrecon.symbolic.export import write_symbols as write_symbols
from dsrecon.symbolic.graph import transition_graph as transition_graph
from dsrecon.symbolic.machine import Machine as Machine
from dsrecon.symbolic.machine import biased_coin as biased_coin
from dsrecon.symbolic.machine import even as even
from dsrecon.symbolic.machine import golden_mean as golden_mean
from dsrecon.symbolic.machinegraph import graph_machine as graph_machine
from dsrecon.symbolic.machinegraph import machine_graph as machine_graph
from dsrecon.symbolic.symbols import dwell_times as dwell_times
from dsrecon.symbolic.symbols import run_lengths as run_lengths
from dsrecon.symbolic.symbols import transitions as transitions
from dsrecon.symbolic.words import block_entropies as block_entropies
from dsrecon.symbolic.words import topological_entropy as topological_entropy
from dsrecon.symbolic.words import word_counts as word_counts
