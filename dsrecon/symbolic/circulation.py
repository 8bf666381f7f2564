"""What a transition graph says as a whole: where it stays in the long run, its parts, its shortest circles."""

from itertools import islice
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import xarray as xr
from scipy import sparse
from scipy.sparse.csgraph import connected_components

_SEARCHED = 200_000  # cycles of one length that are gone through


class Communities(NamedTuple):
    """Parts of a graph: `members`, sets of symbols, the one with the most steps first; `share` of all steps `[c]`;
    `stays` `[c]`: the probability that an exit leads to the same part; `modularity`: how much more exits stay within
    parts than by chance, 0 to 1 (below .3 the parts mean little)."""

    members: tuple[frozenset[int], ...]
    share: tuple[float, ...]
    stays: tuple[float, ...]
    modularity: float


class Circle(NamedTuple):
    """A simple cycle: its `symbols` in order, the smallest first; `probability`: of going around, the product of its
    exit probabilities."""

    symbols: tuple[int, ...]
    probability: float


def stationary_distribution(graph: nx.DiGraph) -> xr.Dataset:
    """The distribution that the transitions of a graph keep, against the shares of the steps that were seen.

    `pi P = pi`, `sum pi = 1`, on the nodes that can be returned to. A matrix that was counted on the sequence whose
    shares these are gives them back, but for the step that comes in at its start and the one that goes out at its end:
    some `memory / steps`, `memory` the steps in which the chain forgets where it was. **A larger difference says that
    the sequence had not settled**, or went into a part that it does not leave.

    **Arguments:** `graph`: what `transition_graph` gave; nodes need `visits`, edges `count`.

    **Returns:** `Dataset` along `region` (the nodes): `stationary`, `share`; `difference`, the first less the second.
    Attribute `largest`: of the differences, in absolute value.

    **Raises:** `ValueError` for another graph, and for one with several parts that are never left, which are named.
    """
    nodes, counts = _counted(graph)
    last = _last_part(nodes, counts)
    inside = counts[np.ix_(last, last)].astype(float)
    P = inside / inside.sum(1, keepdims=True)
    system = np.vstack([P.T - np.eye(len(last)), np.ones(len(last))])
    found = np.zeros(len(nodes))
    found[last] = np.linalg.lstsq(system, np.r_[np.zeros(len(last)), 1.0], rcond=None)[0]
    visits = np.array([graph.nodes[node]["visits"] for node in nodes], float)
    share = visits / visits.sum()
    columns = {"stationary": found, "share": share, "difference": found - share}
    return xr.Dataset(
        {name: ("region", column) for name, column in columns.items()},
        coords={"region": nodes},
        attrs={"largest": float(np.abs(found - share).max())},
    )


def communities(graph: nx.DiGraph, *, resolution: float = 1.0, seed: int = 0) -> Communities:
    """The parts that a graph falls into: regions that lead to one another more than to others.

    Parts are sought that make the modularity of the exits largest (Louvain's method, directed, edges weighted by how
    often they were passed). Self-transitions are left out: how long a region lasts does not say where it belongs.

    **Arguments:** `graph`: what `transition_graph` gave; `resolution`: above 1 for smaller parts; `seed`.

    **Returns:** `Communities`. **Raises:** `ValueError` for another graph, or a resolution that is not positive.

    Reference: Blondel et al. 2008, *Fast unfolding of communities in large networks*, Journal of Statistical Mechanics
    P10008; directed: Dugué & Perez 2015, *Directed Louvain*; Leicht & Newman 2008, *Community structure in directed
    networks*, Physical Review Letters 100, 118703.
    """
    if not resolution > 0:
        raise ValueError(f"resolution must be positive: got {resolution}.")
    nodes, counts = _counted(graph)
    exits = nx.DiGraph()
    exits.add_nodes_from(nodes)
    exits.add_edges_from((i, j, {"count": about["count"]}) for i, j, about in graph.edges(data=True) if i != j)
    if not exits.number_of_edges():
        return Communities(
            tuple(frozenset([n]) for n in nodes), _shares(graph, [[n] for n in nodes]), (0.0,) * len(nodes), 0.0
        )
    parts: Any = nx.community.louvain_communities(exits, weight="count", resolution=resolution, seed=seed)
    parts = sorted(map(sorted, parts), key=lambda part: (-sum(graph.nodes[n]["visits"] for n in part), part))
    number = {node: k for k, part in enumerate(parts) for node in part}
    of = np.array([number[node] for node in nodes])
    leaving = counts * (1 - np.eye(len(nodes), dtype=int))
    stays = []
    for k in range(len(parts)):
        rows = leaving[of == k]
        stays.append(float(rows[:, of == k].sum() / max(rows.sum(), 1)))
    modularity = float(nx.community.modularity(exits, parts, weight="count", resolution=resolution))
    return Communities(tuple(map(frozenset, parts)), _shares(graph, parts), tuple(stays), modularity)


def shortest_cycles(graph: nx.DiGraph, *, longest: int = 4, most: int = 20) -> list[Circle]:
    """The shortest ways around: simple cycles of two regions and more, the shortest first, of equal ones the likeliest.

    A cycle of the graph is a word that may repeat, and need not be an orbit of the map (`analysis.cycles` solves for
    those). Self-transitions are no cycles here, they are stays.

    **Arguments:** `graph`: what `transition_graph` gave; `longest`: regions in a cycle; `most`: how many are returned.

    **Returns:** `Circle`s. **Raises:** `ValueError` for `longest` below 2, `most` below 1, another graph, and where
    more than 200,000 cycles would have to be gone through: take a smaller `longest`.
    """
    if longest < 2 or most < 1:
        raise ValueError(f"longest must be at least 2 and most at least 1: got {longest} and {most}.")
    _counted(graph)
    exits = nx.DiGraph()
    exits.add_edges_from((i, j, about) for i, j, about in graph.edges(data=True) if i != j)
    found: list[Circle] = []
    for length in range(2, longest + 1):
        level = list(islice((c for c in nx.simple_cycles(exits, length_bound=length)), _SEARCHED + 1))
        if len(level) > _SEARCHED:
            raise ValueError(f"longest must be smaller than {longest}: graph has over {_SEARCHED:,} cycles.")
        circles = [_circle(exits, cycle) for cycle in level if len(cycle) == length]
        found += sorted(circles, key=lambda circle: (-circle.probability, circle.symbols))
        if len(found) >= most:
            break
    return found[:most]


def _circle(exits: nx.DiGraph, cycle: list[int]) -> Circle:
    k = cycle.index(min(cycle))
    cycle = cycle[k:] + cycle[:k]
    pairs = zip(cycle, cycle[1:] + cycle[:1], strict=True)
    return Circle(tuple(cycle), float(np.prod([exits.edges[pair]["exit_probability"] for pair in pairs])))


def _counted(graph: Any) -> tuple[list[int], np.ndarray]:
    """Nodes, and how often each edge was passed `[r, r]`."""
    if not isinstance(graph, nx.DiGraph) or not graph.number_of_nodes():
        raise ValueError(f"graph must be what transition_graph gave: got {type(graph).__name__}.")
    nodes = list(graph)
    number = {node: i for i, node in enumerate(nodes)}
    counts = np.zeros((len(nodes),) * 2, np.int64)
    try:
        for i, j, about in graph.edges(data=True):
            counts[number[i], number[j]] = about["count"]
        [about["visits"] for _, about in graph.nodes(data=True)]
    except KeyError as error:
        raise ValueError(f"graph must be what transition_graph gave: it lacks {error}.") from error
    return nodes, counts


def _last_part(nodes: list[int], counts: np.ndarray) -> np.ndarray:
    """The numbers of the nodes of the one part that is never left."""
    _, part = connected_components(sparse.csr_array(counts), directed=True, connection="strong")
    source, target = np.nonzero(counts)
    left = np.unique(part[source[part[source] != part[target]]])
    inner = np.unique(part[source[part[source] == part[target]]])
    last = [k for k in inner if k not in left]
    if len(last) != 1:
        named = sorted([nodes[i] for i in np.flatnonzero(part == k)] for k in last)
        raise ValueError(f"graph must have one part that is never left: it has {len(last)}, {named}.")
    return np.flatnonzero(part == last[0])


def _shares(graph: nx.DiGraph, parts: list[list[int]]) -> tuple[float, ...]:
    steps = sum(about["visits"] for _, about in graph.nodes(data=True))
    return tuple(sum(graph.nodes[n]["visits"] for n in part) / steps for part in parts)
