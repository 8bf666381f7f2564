"""Transition graphs as Mermaid flowcharts: what draws Markdown draws them, and everything in them is read back."""

import json
import os
import re
from pathlib import Path
from typing import Any

import networkx as nx

from dsrecon.symbolic.document import damage_named, packed
from dsrecon.symbolic.dot import edge_text, edge_weight, node_text
from dsrecon.symbolic.graphs import JSON_FORMAT, VERSION, built, checked

_PLAIN = re.compile(r"[^A-Za-z0-9 .,+()-]")
_END = "%% end"
_LABELLED = 100  # edges up to which their labels can be read


def graph_mermaid(graph: nx.DiGraph) -> bytes:
    """Mermaid text: a flowchart with the labels and widths of the DOT.

    A line of comment before each node and edge holds its attributes as JSON, in lists of pairs: Mermaid takes a brace
    in a comment for a directive.
    """
    names = {node: f"n{i}" for i, node in enumerate(checked(graph))}
    lines = [f"%% {JSON_FORMAT} {VERSION}", "flowchart LR", f"%% graph {_json(packed(graph.graph))}"]
    for node, about in graph.nodes(data=True):
        lines.append(f"%% node {_text(node)} {_json(packed(about))}")
        lines.append(f'  {names[node]}(("{_shown(node_text(node, about))}"))')
    few = graph.number_of_edges() <= _LABELLED
    for number, (i, j, about) in enumerate(graph.edges(data=True)):
        lines.append(f"%% edge {_text(i)} {_text(j)} {_json(packed(about))}")
        label = edge_text(about) if few else ""
        lines.append(f"  {names[i]} -->" + (f'|"{_shown(label)}"| ' if label else " ") + names[j])
        weight = edge_weight(about)
        if weight is not None:
            colour = "#33506B" if weight.leaves else "#9DB0C2"
            lines.append(f"  linkStyle {number} stroke-width:{weight.width:.2f}px,stroke:{colour}")
    style = "classDef default fill:#E8EEF4,stroke:#33506B,color:#1B2B3A"
    return ("\n".join([*lines, f"  {style}", _END]) + "\n").encode()


def from_mermaid(path: str | os.PathLike) -> nx.DiGraph:
    """What `graph_mermaid` made."""
    content = Path(path).read_bytes()
    with damage_named(path):
        lines = content.decode().split("\n")
        first = lines[0].split(" ")
        if first[:2] != ["%%", JSON_FORMAT] or lines[-2:] != [_END, ""]:
            raise ValueError(f"{path} is no Mermaid of a transition graph, or was cut off.")
        if len(first) != 3 or not first[2].isdigit() or not 1 <= int(first[2]) <= VERSION:
            raise ValueError(f"{path} is version {first[2:]} of its format: this dsrecon reads up to {VERSION}.")
        found: dict[str, list[list[Any]]] = {"graph": [], "node": [], "edge": []}
        for line in lines[1:-2]:
            if line.startswith("%% "):
                _, kind, data = line.split(" ", 2)
                found[kind].append(_values(data))
        ((attributes,),) = found["graph"]
        nodes = [(node, dict_of(about)) for node, about in found["node"]]
        edges = [(i, j, dict_of(about)) for i, j, about in found["edge"]]
        return built(dict_of(attributes), nodes, edges)


def dict_of(pairs: list[list[Any]]) -> dict[str, Any]:
    """Pairs as a dictionary, those within it too; **raises** `ValueError` for what occurs twice."""
    found = {name: dict_of(value) if isinstance(value, list) else value for name, value in pairs}
    if len(found) != len(pairs):
        raise ValueError(f"attributes must have different names: got {[name for name, _ in pairs]}.")
    return found


def _json(attributes: dict[str, Any]) -> str:
    def pairs(value: Any) -> Any:
        return [[name, pairs(part)] for name, part in value.items()] if isinstance(value, dict) else value

    return _text(pairs(attributes))


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False).replace("{", "\\u007b").replace("}", "\\u007d")


def _values(text: str) -> list[Any]:
    """JSON values that stand one behind the other, with a space between."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        if text[at : at + 1] not in ("", " "):
            raise ValueError(f"it holds {text[at : at + 20]!r} where a space or the end of a line is due.")
        found.append(value)
        at += 1
    return found


def _shown(text: str) -> str:
    """A text as Mermaid's quoted labels escape it; what cannot be drawn becomes a question mark in a diamond."""

    def escaped(match: re.Match) -> str:
        code = ord(match[0])
        if match[0] == "\n":
            return "<br/>"
        if match[0] == "\\":
            return "#92;#8203;"  # a backslash and an n behind it would be a new line
        return f"#{code if code >= 32 and not 0x7F <= code < 0xA0 and not 0xD800 <= code < 0xE000 else 0xFFFD};"

    return _PLAIN.sub(escaped, text) or " "
