"""What the symbols of a run say, as a page: tables, and words with their numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dsrecon.cli.report import READABLE, markdown_table
from dsrecon.symbolic import (
    EpsilonMachine,
    common_symbols,
    communities,
    dwell_models,
    dwell_words,
    entropy_rate,
    epsilon_machine,
    forbidden_words,
    gap_edges,
    machine_graph,
    run_lengths,
    same_process,
    semi_markov,
    shortest_cycles,
    stationary_distribution,
    topological_entropy,
    transition_graph,
    transitions,
)
from dsrecon.symbolic.mermaid import graph_mermaid

SLOW = 3.0
"""Mean stay, in steps, from which a sequence mostly repeats, so that its regions in order are read instead."""
WITHOUT = "in order, without repeats"
SHOWN = 10
EXPONENT_STEPS = 20_000
"""Steps of the free run along which the exponents of the page are taken."""
UNKNOWN = 0.01
"""p-value below which a difference is called one."""


class Findings(NamedTuple):
    """The `text` of the page, and the machine in it (`None` where the symbols have none)."""

    text: str
    machine: EpsilonMachine | None


def findings(encoded: xr.Dataset, names: str, exponents: np.ndarray | None, data: xr.Dataset | None) -> Findings:
    """The page of a run.

    **Arguments:** `encoded`: what `encode` gave; `names` of the variables; `exponents` of the free run, per unit of
    time; `data`: what `encode` gave along the data, to compare with.
    """
    about = encoded.attrs
    unit = "s" if about["time_unit"] == "datetime" else about["time_unit"] or "units of time"
    order = _in_order(encoded)
    lines = [f"# Symbols of {names}", ""]
    lines += [
        f"{about['regions_visited']} linear regions are visited in {encoded.sizes['time']:,} steps of "
        f"{about['time_step']:g} {unit} ({about['source']}). A symbol is a region: in it the map is one affine map. "
        "They are numbered by visits.",
        "",
    ]
    lines += ["![transition graph](symbols-graph.png)", "", "## Regions", "", *_regions(encoded, unit)]
    lines += ["", "## Stays", "", *_or_why(_stays, encoded, unit)]
    lines += ["", "## Where it goes", "", *_or_why(_paths, encoded)]
    lines += ["", "## What is forbidden", "", *_or_why(_forbidden, order)]
    lines += ["", "## Entropy", "", *_or_why(_entropies, encoded, unit, exponents)]
    machine = None
    lines += ["", "## The machine", ""]
    try:
        machine = epsilon_machine(order.values)
        lines += _machine(machine, order)
    except ValueError as error:
        lines += [f"None was built: {error}"]
    lines += ["", "## Data and free run", "", *_or_why(_compared, encoded, data)]
    return Findings("\n".join(lines) + "\n", machine)


def _or_why(part: Callable[..., list[str]], *arguments: Any) -> list[str]:
    """A part of the page, or why there is none."""
    try:
        return part(*arguments)
    except ValueError as error:
        return [f"Not told: {error}"]


def _in_order(encoded: xr.Dataset) -> xr.DataArray:
    """The sequence to look for grammar in: the symbols, without repeats where they mostly repeat."""
    symbol = encoded["symbol"]
    change = np.r_[True, np.diff(symbol.values) != 0]
    if encoded.sizes["time"] / change.sum() < SLOW:
        return symbol.assign_attrs(read="as they are, step by step")
    kept = symbol.isel(time=np.flatnonzero(change))
    return kept.assign_attrs(read=WITHOUT, time_step=encoded.sizes["time"] / change.sum())


def _regions(encoded: xr.Dataset, unit: str) -> list[str]:
    steps, stays = encoded.sizes["time"], run_lengths(encoded)
    variables = [str(name) for name in encoded["variable"].values]
    head = (
        "symbol",
        "share",
        *(f"mean {name}" for name in variables),
        f"mean stay ({unit})",
        "median",
        "stays",
        "gates",
    )
    rows = []
    for k in range(min(encoded.sizes["region"], READABLE)):
        means = [f"{x:.4g}" for x in encoded["mean"].values[k]]
        mean, median = (float(stays[name].values[k]) for name in ("mean", "median"))
        bits = "".join("1" if bit else "0" for bit in encoded["bits"].values[k])
        shown = [f"{x:.4g}" if np.isfinite(x) else "not seen whole" for x in (mean, median)]
        gates = bits if len(bits) <= READABLE else f"{sum(map(int, bits))} of {len(bits)} open"
        rows.append((k, f"{encoded['visits'].values[k] / steps:.2%}", *means, *shown, int(stays["count"][k]), gates))
    lines = markdown_table(head, rows)
    rest = encoded.sizes["region"] - READABLE
    if rest > 0:
        share = encoded["visits"].values[READABLE:].sum() / steps
        lines += ["", f"{rest} rarer regions hold {share:.2%} of the steps."]
    return lines


def _stays(encoded: xr.Dataset, unit: str) -> list[str]:
    table, model = dwell_models(encoded), semi_markov(encoded)
    rows = []
    for i, symbol in enumerate(table["region"].values[:READABLE]):
        p, shape = float(table["p_value"][i]), float(table["shape"][i])
        distance = float(table["distance_negative_binomial"][i])
        like = "a Markov chain's" if p > UNKNOWN else "more regular" if shape > 1 else "more ragged"
        like += ", and no negative binomial" if distance > 0.1 else ""
        spread = f"{float(table['mean'][i]):.4g} +- {float(table['sd'][i]):.2g}"
        told = f"{shape:.3g}" if shape < 1000 else "> 1000"
        rows.append(
            (
                symbol,
                int(table["runs"][i]),
                spread,
                _p(p),
                told,
                f"{distance:.2f}",
                like,
            )
        )
    head = ("symbol", "whole stays", f"length ({unit})", "p of geometric", "shape", "distance", "they are")
    return [
        "Stays of a Markov chain are geometric: whether one ends does not hang on how long it has lasted. `p` is that "
        "of the geometric law against the negative binomial, `shape` is 1 for the geometric; `distance` is what the "
        "distribution function of the best negative binomial misses the stays by.",
        "",
        *markdown_table(head, rows),
        "",
        f"As a semi-Markov process (stays independent of what came before) the symbols have an entropy of "
        f"{model.entropy_rate:.4g} nats per {_one(unit)}, far too much where stays hang together.",
    ]


def _paths(encoded: xr.Dataset) -> list[str]:
    graph = transition_graph(encoded)
    exits = transitions(encoded, self_transitions=False)
    lines = []
    if exits.size and len(exits) <= READABLE:
        symbols = exits["from"].values.tolist()
        rows = [(i, *(f"{p:.3f}" if p else "-" for p in row)) for i, row in zip(symbols, exits.values, strict=True)]
        lines += [*markdown_table(("from / to", *map(str, symbols)), rows), ""]
    circles = shortest_cycles(graph, longest=3, most=5)
    if circles:
        told = "; ".join(f"{' '.join(map(str, c.symbols))} ({c.probability:.2f})" for c in circles)
        lines += [f"Shortest circles, with the probability of going around once: {told}.", ""]
    parts = communities(graph)
    if parts.modularity >= 0.3:
        told = "; ".join(
            f"{{{', '.join(map(str, sorted(members)[:SHOWN]))}{', ...' if len(members) > SHOWN else ''}}} {share:.0%}"
            for members, share in zip(parts.members, parts.share, strict=True)
        )
        lines += [f"Regions that lead to one another (modularity {parts.modularity:.2f}): {told}.", ""]
    largest = stationary_distribution(graph).attrs["largest"]
    changes = int((np.diff(encoded["symbol"].values) != 0).sum())
    few = largest < max(0.01, 2 / max(changes, 1))
    settled = "the run has settled" if few else "**the run had not settled, or has left a part for good**"
    lines += [
        f"Shares of time and the stationary distribution of the transitions differ by {largest:.2g} at most: {settled}."
    ]
    return lines


def _forbidden(order: xr.DataArray) -> list[str]:
    length = min(5, order.sizes["time"])
    table = forbidden_words(order.values, length)
    words, read = table["symbols"].values, f"Read {order.attrs['read']}."
    repeats = ((words[:, 1:] == words[:, :-1]) & (words[:, 1:] >= 0)).any(1) & (order.attrs["read"] == WITHOUT)
    found = table.isel(word=np.flatnonzero(table["forbidden"].values & ~repeats))
    if not found.sizes["word"]:
        return [f"{read} No word of up to {length} symbols is missing that ought to have occurred by chance."]
    words = found["word"].values.tolist()
    told = ", ".join(f"`{word}`" for word in words[:SHOWN])
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return [
        f"{read} Words that never occur although their parts do, often enough for that to be no chance: {told}{more}."
    ]


def _entropies(encoded: xr.Dataset, unit: str, exponents: np.ndarray | None) -> list[str]:
    per = f"nats per {_one(unit)}"
    step = encoded.attrs["time_step"]
    rows = []

    def add(name: str, sequence: Callable[[], Any]) -> None:
        try:
            rate = entropy_rate(sequence())
        except ValueError as error:
            rows.append((name, "not told", str(error)))
            return
        rows.append((name, f"{rate.rate_per_time:.4g}", f"{rate.low_per_time:.4g} to {rate.high_per_time:.4g}"))

    add("symbols step by step", lambda: encoded)
    add("regions in order, lengths of stays left out", lambda: dwell_words(encoded, edges=[]))
    add("regions in order, turns counted in long stays", lambda: dwell_words(encoded, edges=gap_edges(encoded)))
    graph = topological_entropy(transition_graph(encoded)) / step
    rows.append(("any path through the graph (an upper bound)", f"{graph:.4g}", "-"))
    if exponents is not None:
        positive = float(exponents[exponents > 0].sum())
        rows.append(("largest Lyapunov exponent of the free run", f"{float(exponents[0]):.4g}", "-"))
        rows.append(("sum of the positive exponents", f"{positive:.4g}", "-"))
    lines = markdown_table(("of", per, "95 % interval"), rows)
    lines += [
        "",
        "No coding of a map has more entropy than its positive exponents together (Ruelle's inequality). An estimate "
        "above them says that the sequence remembers more than so short a record shows; one below, that regions in "
        "that reading do not tell orbits apart. Intervals hold the scatter, not that bias.",
    ]
    if exponents is not None:
        lines += [
            "",
            f"The exponents are those of one free run of {EXPONENT_STEPS:,} steps; the scores of `report.md` are means "
            "over shorter runs from many starts, with their standard errors, so the two may differ by their scatter.",
        ]
    return lines


def _machine(found: EpsilonMachine, order: xr.DataArray) -> list[str]:
    complexity, rate = found.statistical_complexity, found.entropy_rate
    states = found.machine.states
    lines = [
        f"Of the symbols {order.attrs['read']}: {states} causal state{'s' if states > 1 else ''}, told apart by "
        f"pasts of up to {found.history}; statistical complexity {complexity.value:.4g} nats ({complexity.low:.4g} to "
        f"{complexity.high:.4g}), entropy {rate.value:.4g} nats per symbol ({rate.low:.4g} to {rate.high:.4g}).",
        "",
    ]
    if states <= READABLE:
        drawn = graph_mermaid(machine_graph(found.machine)).decode().splitlines()
        return [*lines, "```mermaid", *(line for line in drawn if not line.startswith("%%")), "```"]
    return [*lines, "It has too many states to be drawn here: see `machine.json`."]


def _compared(encoded: xr.Dataset, data: xr.Dataset | None) -> list[str]:
    if data is None:
        return ["No data were given: `dsrecon symbols RUN --data FILE` tests whether they have the same symbols."]
    first, second = common_symbols(data, encoded)
    only = sorted(set(first.tolist()) - set(second.tolist())), sorted(set(second.tolist()) - set(first.tolist()))
    test = same_process(data, encoded)
    verdict = "differ" if test.p_value < 0.05 else "show no difference"
    lines = [
        f"The symbols along the data ({len(first):,} steps) and those above {verdict}: p = {_p(test.p_value)} (words "
        f"of {test.length}, {test.every} steps apart; their shares differ by {test.distance:.3f} in all, where two "
        f"stretches of one process differ by {test.floor:.3f})."
    ]
    for where, symbols in zip(("data", "free run"), only, strict=True):
        if symbols:
            lines += [
                "",
                f"{len(symbols)} region{'s are' if len(symbols) > 1 else ' is'} visited by the {where} alone.",
            ]
    return lines


def _p(value: float) -> str:
    return "< 1e-6" if value < 1e-6 else f"{value:.2g}"


def _one(unit: str) -> str:
    return "unit of time" if unit == "units of time" else unit
