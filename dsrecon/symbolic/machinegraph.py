"""Machines as graphs and back: what is drawn of them, and what their files hold."""

import math

import networkx as nx

from dsrecon.symbolic.machine import Machine

KIND = "machine"


def machine_graph(machine: Machine) -> nx.DiGraph:
    """A machine as a graph with one edge from state to state, however many symbols lead there.

    - Node: `share`, its stationary probability.
    - Edge: `symbols`, the symbols that lead along it ("0 1"), `probabilities`, those of each in the state, in full
      ("0.5 0.25"), and `probability`, their sum.
    - Graph: `kind` ("machine"), `alphabet` ("0 1"), `states`, `entropy_rate` and `statistical_complexity` in nats.
    """
    graph = nx.DiGraph(
        kind=KIND,
        alphabet=" ".join(map(str, machine.symbols)),
        states=machine.states,
        entropy_rate=machine.entropy_rate,
        statistical_complexity=machine.statistical_complexity,
    )
    for state, share in enumerate(machine.stationary.tolist()):
        graph.add_node(state, share=share)
    found: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for state, symbol, target, probability in machine.edges:
        found.setdefault((state, target), []).append((symbol, probability))
    for (i, j), along in found.items():
        symbols = " ".join(str(x) for x, _ in along)
        probabilities = " ".join(repr(p) for _, p in along)
        graph.add_edge(i, j, symbols=symbols, probabilities=probabilities, probability=math.fsum(p for _, p in along))
    return graph


def graph_machine(graph: nx.DiGraph) -> Machine:
    """The machine that `machine_graph` made a graph of, equal to it.

    **Raises:** `ValueError` for a graph of another kind, or one that no machine makes.
    """
    if graph.graph.get("kind") != KIND:
        raise ValueError(f"graph must be of the kind {KIND!r}: got {graph.graph.get('kind')!r}.")
    symbols = tuple(int(x) for x in str(graph.graph["alphabet"]).split())
    if sorted(graph) != list(range(len(graph))):
        raise ValueError(f"states must be numbered from 0: got {sorted(map(str, graph))}.")
    targets = [[-1] * len(symbols) for _ in graph]
    probabilities = [[0.0] * len(symbols) for _ in graph]
    for i, j, about in graph.edges(data=True):
        names, values = about["symbols"].split(), about["probabilities"].split()
        for name, value in zip(names, values, strict=True):
            place = symbols.index(int(name))
            if targets[i][place] >= 0:
                raise ValueError(f"symbol {name} leaves state {i} along two edges: a machine is unifilar.")
            targets[i][place], probabilities[i][place] = j, float(value)
    return Machine(symbols, tuple(map(tuple, targets)), tuple(map(tuple, probabilities)))
