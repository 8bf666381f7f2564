"""Transition graphs as GraphML and as node-link JSON."""

import io
import os
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx

from dsrecon.symbolic.document import damage_named, dumped, packed, parsed, plain, unpacked

JSON_FORMAT, VERSION = "dsrecon-graph", 1

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RESERVED = {"graph": {"id", "node_default", "edge_default"}}  # what networkx keeps for itself in GraphML
_LINKS = {"node": {"id"}, "edge": {"source", "target"}}


def checked(graph: Any) -> nx.DiGraph:
    """A directed graph with one edge from node to node, and integers or strings as nodes; or `ValueError`."""
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise ValueError(f"graph must be a networkx.DiGraph: got {type(graph).__name__}.")
    for node in graph:
        if type(node) not in (int, str):
            raise ValueError(f"nodes must be integers or strings: got {node!r}.")
    return graph


def graph_graphml(graph: nx.DiGraph) -> bytes:
    """GraphML: integer nodes, and strings of characters that XML has."""
    _refuse_names(checked(graph), _RESERVED)
    copy = nx.DiGraph()
    copy.graph.update(_xml(graph.graph))
    for node, attributes in graph.nodes(data=True):
        if type(node) is not int:
            raise ValueError(f"nodes must be integers in GraphML: got {node!r}. Write JSON or DOT instead.")
        copy.add_nodes_from([(node, _xml(attributes))])
    copy.add_edges_from((i, j, _xml(attributes)) for i, j, attributes in graph.edges(data=True))
    buffer = io.BytesIO()
    nx.write_graphml_xml(copy, buffer)
    return buffer.getvalue().replace(b"\r", b"&#13;")  # which XML would read as a line feed


def from_graphml(path: str | os.PathLike) -> nx.DiGraph:
    """What `graph_graphml` made."""
    content = Path(path).read_bytes()
    try:
        graph = nx.read_graphml(io.BytesIO(content), node_type=int)
    except (nx.NetworkXError, ParseError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no GraphML of a transition graph, or was cut off: {error}.") from error
    for name in ("node_default", "edge_default"):  # what networkx adds while it reads
        graph.graph.pop(name, None)
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise ValueError(f"{path} holds no transition graph: got a {type(graph).__name__}.")
    return graph


def graph_json(graph: nx.DiGraph) -> bytes:
    """Node-link JSON, as networkx and D3 have it, with a format and a version."""
    _refuse_names(checked(graph), _LINKS)
    document = {
        "format": JSON_FORMAT,
        "version": VERSION,
        "directed": True,
        "multigraph": False,
        "graph": packed(graph.graph),
        "nodes": [{"id": node, **packed(attributes)} for node, attributes in graph.nodes(data=True)],
        "edges": [{"source": i, "target": j, **packed(attributes)} for i, j, attributes in graph.edges(data=True)],
    }
    return dumped(document)


def from_json(path: str | os.PathLike) -> nx.DiGraph:
    """What `graph_json` made."""
    document = parsed(Path(path).read_bytes(), path, JSON_FORMAT, VERSION)
    with damage_named(path):
        if document["directed"] is not True or document["multigraph"] is not False:
            raise ValueError("the graph must be directed, with one edge from node to node.")
        nodes = [(node.pop("id"), node) for node in document["nodes"]]
        edges = [(edge.pop("source"), edge.pop("target"), edge) for edge in document["edges"]]
        return built(document["graph"], nodes, edges)


def built(attributes: dict, nodes: list[tuple[Any, dict]], edges: list[tuple[Any, Any, dict]]) -> nx.DiGraph:
    """A graph of packed attributes; **raises** `ValueError` for what occurs twice, or an edge of unknown nodes."""
    graph = nx.DiGraph()
    graph.graph.update(unpacked(attributes))
    for node, about in nodes:
        if node in graph:
            raise ValueError(f"node {node!r} occurs twice.")
        graph.add_node(node)
        graph.nodes[node].update(unpacked(about))
    for i, j, about in edges:
        if i not in graph or j not in graph or graph.has_edge(i, j):
            raise ValueError(f"the edge from {i!r} to {j!r} occurs twice, or between unknown nodes.")
        graph.add_edge(i, j)
        graph.edges[i, j].update(unpacked(about))
    return checked(graph)


def _refuse_names(graph: nx.DiGraph, reserved: dict[str, set[str]]) -> None:
    parts = {
        "graph": [graph.graph],
        "node": [about for _, about in graph.nodes(data=True)],
        "edge": [about for *_, about in graph.edges(data=True)],
    }
    for part, names in reserved.items():
        clash = [name for about in parts[part] for name in about if name in names]
        if clash:
            raise ValueError(f"{part} attribute {clash[0]!r} is taken by the format: rename it.")


def _xml(attributes: dict[Any, Any]) -> dict[str, Any]:
    out = {str(name): plain(value, str(name)) for name, value in attributes.items()}
    for text in (*out, *(value for value in out.values() if isinstance(value, str))):
        if _NO_XML.search(text):
            raise ValueError(f"GraphML has no control characters: got {text!r}. Write JSON or DOT instead.")
    return out
