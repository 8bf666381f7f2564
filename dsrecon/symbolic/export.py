"""Symbols and graphs as files: the ending says in which form."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import xarray as xr

from dsrecon._files import write_whole
from dsrecon.symbolic import dot, graphs, mermaid, tables
from dsrecon.symbolic.document import damage_named
from dsrecon.symbolic.machine import Machine
from dsrecon.symbolic.machinegraph import KIND, graph_machine, machine_graph

_SYMBOLS = {
    ".nc": (tables.symbols_netcdf, tables.from_netcdf),
    ".json": (tables.symbols_json, tables.from_json),
    ".csv": (tables.symbols_csv, tables.from_csv),
}
_GRAPHS = {
    ".graphml": (graphs.graph_graphml, graphs.from_graphml),
    ".json": (graphs.graph_json, graphs.from_json),
    ".dot": (dot.graph_dot, dot.from_dot),
    ".mmd": (mermaid.graph_mermaid, mermaid.from_mermaid),
}


def write_symbols(encoded: xr.Dataset, path: str | os.PathLike) -> Path:
    """Write what `encode` gave to one file, atomically, in the form that the ending of `path` names.

    - `.nc`, netCDF 4: all variables and, for other programs, for each region `dwell_mean` and `dwell_median` in units
      of time, `dwell_count` and `dwell_censored` (`run_lengths`), and `transition_probability(from, to)` and
      `transition_count(from, to)` of one time step (`transitions`). The last two are left out above 1000 regions,
      where the graph (`write_graph`) holds the same numbers as a list of edges.
    - `.json`: all variables; see docs/data-formats.md.
    - `.csv`: a row a step with `time`, `symbol` and each observed variable, below one line of comment that keeps
      the time step, units and types. What belongs to regions (bits, visits, means, affine maps) is not in it.

    **Returns:** the path. **Raises:** `ValueError` for another ending, or an attribute that is no scalar; `OSError`
    that names the path when it cannot be written; nothing is left then.
    """
    write, _ = _of(_SYMBOLS, path)
    return write_whole(path, write(encoded))


def read_symbols(path: str | os.PathLike) -> xr.Dataset:
    """Read what `write_symbols` wrote: from netCDF and JSON the `Dataset` of `encode`, identical; from CSV
    `encoded[["symbol", "observation"]]`, identical.

    The other tables of a netCDF file are functions of it: `transitions`, `run_lengths`. Floats come back bit for bit.
    Reading runs nothing that is in the file.

    **Raises:** `ValueError` that names the path for another ending, and for a file that is foreign, damaged, cut off or
    of a later version; `OSError` when there is none.
    """
    _, read = _of(_SYMBOLS, path)
    return read(path)


def write_graph(graph: nx.DiGraph | Machine, path: str | os.PathLike) -> Path:
    """Write a transition graph or a machine to one file, atomically, in the form that the ending of `path` names.

    - `.graphml` (Gephi, Cytoscape, igraph, yEd): nodes are integers, and strings hold no control characters.
    - `.dot` (graphviz: `dot -Tsvg graph.dot -o graph.svg`): drawn with shares and probabilities.
    - `.json`: node-link, as networkx and D3 take it.
    - `.mmd` (Mermaid: GitHub, GitLab, Obsidian, mermaid-cli): a flowchart, drawn like the DOT.

    Nodes are integers or strings; attributes are strings, numbers or truth values (NumPy's are written as Python's). A
    machine is written as its graph (`machine_graph`).

    **Returns:** the path. **Raises:** `ValueError` for another ending, or for what the form cannot hold; `OSError` that
    names the path when it cannot be written; nothing is left then.
    """
    write, _ = _of(_GRAPHS, path)
    return write_whole(path, write(machine_graph(graph) if isinstance(graph, Machine) else graph))


def read_graph(path: str | os.PathLike) -> Any:
    """Read what `write_graph` wrote: a graph with the same nodes, edges and attributes, with their types; a
    `Machine` that is equal to the one that was written.

    **Raises:** `ValueError` that names the path for another ending, and for a file that is foreign, damaged, cut off or
    of a later version; `OSError` when there is none.
    """
    _, read = _of(_GRAPHS, path)
    found = read(path)
    if found.graph.get("kind") != KIND:
        return found
    with damage_named(path):
        return graph_machine(found)


def write_graphml(graph: nx.DiGraph, path: str | os.PathLike) -> Path:
    """`write_graph` as GraphML, whatever the ending."""
    return write_whole(path, graphs.graph_graphml(graph))


def read_graphml(path: str | os.PathLike) -> nx.DiGraph:
    """`read_graph` of GraphML, whatever the ending."""
    return graphs.from_graphml(path)


def _of(forms: dict[str, tuple[Callable, Callable]], path: str | os.PathLike) -> tuple[Callable[..., Any], ...]:
    ending = Path(path).suffix.lower()
    if ending not in forms:
        raise ValueError(f"{path} must end in one of {', '.join(forms)}: got {ending or 'no ending'!r}.")
    return forms[ending]
