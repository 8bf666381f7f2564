"""Transition graphs as DOT: graphviz draws them, and everything in them is read back."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx

from dsrecon.symbolic.document import damage_named, packed, parsed
from dsrecon.symbolic.graphs import JSON_FORMAT, VERSION, built, checked

_SPACE = r"(?:\s|//[^\n]*\n)*+"
_NAME = r"(?:[A-Za-z_]\w*+|-?\d++(?:\.\d*+)?)"
_PAIR = rf'{_SPACE}({_NAME}){_SPACE}={_SPACE}({_NAME}|"[^"\\]*+(?:\\.[^"\\]*+)*+"){_SPACE},?'
_ATTRIBUTE = re.compile(_PAIR, re.DOTALL | re.ASCII)
_STATEMENT = re.compile(
    rf"{_SPACE}(?P<name>{_NAME})(?:{_SPACE}->{_SPACE}(?P<target>{_NAME}))?{_SPACE}"
    rf"\[(?P<attributes>(?:{_PAIR})*+){_SPACE}\]{_SPACE};{_SPACE}",
    re.DOTALL | re.ASCII,
)
_BEGIN = re.compile(rf"{_SPACE}digraph{_SPACE}transitions{_SPACE}\{{{_SPACE}")
_END = re.compile(r"\}\s*\Z")
_LABELLED = 100  # edges up to which their labels can be read
_UNREADABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_STYLE = """\
  graph [rankdir=LR, labelloc=t, fontname="Helvetica", fontsize=12, nodesep=0.6, ranksep=0.9];
  node [shape=circle, style=filled, fillcolor="#E8EEF4", color="#33506B", fontname="Helvetica", fontsize=12];
  edge [color="#33506B", fontname="Helvetica", fontsize=10, arrowsize=0.7];
"""


def graph_dot(graph: nx.DiGraph) -> bytes:
    """DOT text. A node shows its name and its share of the steps, its area grows with the share. An edge shows its
    probability in one step and its share of the exits, its width grows with the latter; on a self-loop, with the
    probability of staying. With more than 100 edges these are tooltips only (in SVG).

    The attribute `data` of each node, each edge and the graph holds its attributes as JSON.
    """
    names = {node: str(node) if isinstance(node, int) else f"s{i}" for i, node in enumerate(checked(graph))}
    whole = {"format": JSON_FORMAT, "version": VERSION, "graph": packed(graph.graph)}
    lines = [f"digraph transitions {{\n{_STYLE}  graph [{_listed(label=_title(graph), data=_json(whole))}];"]
    for node, about in graph.nodes(data=True):
        data = _json({"id": node, "attributes": packed(about)})
        lines.append(f"  {names[node]} [{_listed(**_node_look(node, about), data=data)}];")
    few = graph.number_of_edges() <= _LABELLED
    for i, j, about in graph.edges(data=True):
        look = _listed(**_edge_look(about, few), data=_json(packed(about)))
        lines.append(f"  {names[i]} -> {names[j]} [{look}];")
    return ("\n".join(lines) + "\n}\n").encode()


def from_dot(path: str | os.PathLike) -> nx.DiGraph:
    """What `graph_dot` made."""
    content = Path(path).read_bytes()
    whole, nodes, edges = [], {}, []
    with damage_named(path):
        for name, target, attributes in _statements(content.decode(), path):
            if target:
                edges.append((name, target, json.loads(_data(attributes))))
            elif name == "graph" and "data" in dict(_ATTRIBUTE.findall(attributes)):
                whole.append(_data(attributes))
            elif name in nodes:
                raise ValueError(f"node {name} occurs twice.")
            elif name not in ("graph", "node", "edge"):
                nodes[name] = json.loads(_data(attributes))
        (text,) = whole
        head = parsed(text, path, JSON_FORMAT, VERSION)
        links = [(nodes[i]["id"], nodes[j]["id"], about) for i, j, about in edges]
        return built(head["graph"], [(node["id"], node["attributes"]) for node in nodes.values()], links)


class Weight(NamedTuple):
    """How an edge is drawn: `width`, and whether it `leaves` its node."""

    width: float
    leaves: bool


def node_text(node: int | str, about: dict[str, Any]) -> str:
    """What a node shows: its name and its share."""
    share = about.get("share")
    return f"{node}\n{_percent(share)}" if isinstance(share, float) else str(node)


def edge_text(about: dict[str, Any]) -> str:
    """What an edge shows: its probability in one step and its share of the exits; of a machine `symbol |
    probability`, a line for each symbol."""
    probability, exits = about.get("probability"), about.get("exit_probability")
    if not isinstance(probability, float):
        return ""
    symbols, each = about.get("symbols"), about.get("probabilities")
    if isinstance(symbols, str) and isinstance(each, str):
        pairs = zip(symbols.split(), each.split(), strict=False)
        return "\n".join(f"{x} | {_probability(p)}" for x, p in pairs)
    return f"{probability:.2g}" + (f" ({_percent(exits)})" if isinstance(exits, float) else "")


def edge_weight(about: dict[str, Any]) -> Weight | None:
    """Width and kind of an edge; nothing for one without a probability."""
    probability, exits = about.get("probability"), about.get("exit_probability")
    if not isinstance(probability, float):
        return None
    leaves = isinstance(exits, float)
    return Weight(0.6 + 3.4 * (exits if leaves else probability), leaves or "symbols" in about)


def _title(graph: nx.DiGraph) -> str:
    about = graph.graph
    steps = about.get("steps")
    facts = [str(about["cell"])] if "cell" in about else []
    facts += [f"regions: {about['regions_visited']}"] if "regions_visited" in about else []
    facts += [f"{steps:,} steps ({about.get('source', '')})"] if isinstance(steps, int) else []
    legend = "node: share of steps; edge: probability in one step (share of the exits, which the width follows)"
    rate, complexity = about.get("entropy_rate"), about.get("statistical_complexity")
    if about.get("kind") == "machine" and isinstance(rate, float) and isinstance(complexity, float):
        facts = [f"machine, alphabet {about.get('alphabet')}", f"entropy rate {rate:.4g} nats per symbol"]
        facts += [f"statistical complexity {complexity:.4g} nats"]
        legend = "node: state, its share of the steps; edge: symbol | probability"
    return _shown("\n".join([", ".join(facts), legend] if facts else []))


def _node_look(node: int | str, about: dict[str, Any]) -> dict[str, str]:
    share, text = about.get("share"), _shown(node_text(node, about))
    if not isinstance(share, float):
        return {"label": text}
    tip = "\n".join(f"{name}: {_number(value)}" for name, value in about.items())
    return {
        "label": text,
        "tooltip": _shown(tip),
        "width": f"{0.7 + 0.9 * max(share, 0.0) ** 0.5:.2f}",
        "fixedsize": "true",
    }


def _edge_look(about: dict[str, Any], labelled: bool) -> dict[str, str]:
    weight = edge_weight(about)
    if weight is None:
        return {}
    look = {"label" if labelled else "tooltip": _shown(edge_text(about))}
    look |= {} if weight.leaves else {"color": "#9DB0C2"}  # what stays draws less attention than what goes
    return look | {"penwidth": f"{weight.width:.2f}"}


def _probability(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or not share else "<0.1 %"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown(text: str) -> str:
    """A text as graphviz's labels escape it; what cannot be drawn becomes a question mark in a diamond."""
    text = _UNREADABLE.sub("\ufffd", text).replace("&", "&amp;").replace("\\", "\\\\")
    return text.replace("\n", "\\n").replace('"', '\\"')


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False).replace("\\", "\\\\").replace('"', '\\"')


def _listed(**attributes: str) -> str:
    return ", ".join(f'{name}="{text}"' for name, text in attributes.items())


def _statements(text: str, path: str | os.PathLike) -> Iterator[tuple[str, str, str]]:
    """Name, name of the target ("" of what is no edge) and attributes of each statement, and of nothing else."""
    begin, end = _BEGIN.match(text), _END.search(text)
    if begin is None or end is None:
        raise ValueError(f"{path} is no DOT of a transition graph, or was cut off.")
    at = begin.end()
    while at < end.start():
        statement = _STATEMENT.match(text, at)
        if statement is None:
            raise ValueError(f"{path} is no DOT of a transition graph: see {text[at : at + 40]!r}.")
        at = statement.end()
        yield statement["name"], statement["target"] or "", statement["attributes"]


def _data(attributes: str) -> str:
    """The JSON in the attributes of a statement."""
    found = [value for name, value in _ATTRIBUTE.findall(attributes) if name == "data"]
    if len(found) != 1:
        raise ValueError("each node, each edge and the graph must have one attribute 'data'.")
    return re.sub(r'\\(["\\])|\\\r?\n', r"\1", found[0][1:-1])  # graphviz breaks long lines by a backslash
