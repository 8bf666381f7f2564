"""What a fit came to, in words and tables."""

from typing import Any

import xarray as xr

from dsrecon.measures.score import records
from dsrecon.reconstruction import Reconstruction

READABLE = 16
"""Regions up to which they are listed one by one."""


def scores_table(table: xr.Dataset) -> str:
    """The scores as the command shows them: a row a measure, and the warning, if any."""
    columns = ("value", "floor", "ceiling")
    lines = [f"{'measure':<18}" + "".join(f"{name:>11}" for name in columns)]
    for i, name in enumerate(table["measure"].values):
        numbers = [float(table[column][i]) for column in columns]
        lines.append(f"{name!s:<18}" + "".join(f"{'-' if n != n else f'{n:.4g}':>11}" for n in numbers))
    notes = [f"Warning: {table.attrs['warning']}" if table.attrs["warning"] else "", capped(table), left_out(table)]
    return "\n".join(lines + [f"\n{note}" for note in notes if note])


def capped(table: xr.Dataset) -> str:
    """Which times are lower bounds, as a sentence; nothing where none is."""
    text = table.attrs["capped"]
    return f"{text[0].upper()}{text[1:]}." if text else ""


def left_out(table: xr.Dataset) -> str:
    """The measures that are not in the table, and why, as a sentence; nothing where all are."""
    text = table.attrs["unreadable"]
    return f"Left out, since nothing can be read off them here: {text}." if text else ""


def chosen_by(result: Reconstruction, table: xr.Dataset) -> str:
    """That the run was chosen by a measure which the table leaves out, as a sentence; nothing where it was not."""
    name = "d_stsp" if len(result.coordinates) <= 5 else "d_stsp_mixture"  # as `measures.rank` takes it
    if f"{name}: " not in table.attrs["unreadable"] or not result.runs.sizes:
        return ""
    return (
        f"The run was chosen by {name} (and d_h) all the same, so another run may be as good: look at several in "
        "the table of runs."
    )


def report(result: Reconstruction, table: xr.Dataset, encoded: xr.Dataset, about: list[str]) -> str:
    """The fit in words."""
    cell = type(result.cell).__name__
    lines = [f"# {cell} for {', '.join(result.names)}", "", *about, ""]
    if table.attrs["failed"]:
        lines += [f"**The reconstruction has failed:** {table.attrs['reason']}.", ""]
    if table.attrs["warning"]:
        lines += [f"**Warning:** {table.attrs['warning']}", ""]
    lines += ["![summary](summary.png)", "", "## Scores", ""]
    lines += [
        "A distance is good when it is near its floor: what the truth scores against itself, at that length; at its "
        "ceiling a linear process with the same spectrum would do as well. For exponents and the dimension the floor "
        "is the standard error, for `pe_n` and `vpt` what following the nearest neighbour in the data gives. All are "
        "better when smaller, but `vpt`, a time.",
        "",
    ]
    lines += markdown_table(
        ("measure", "value", "floor", "ceiling", "steps", "definition"),
        [
            (r["measure"], *(_number(r[k]) for k in ("value", "floor", "ceiling")), r["length"], r["definition"])
            for r in records(table)
        ],
    )
    for note in (capped(table), left_out(table)):
        lines += ["", note] if note else []
    lines += ["", "## Choices", ""]
    lines += markdown_table(
        ("setting", "value", "reason"),
        [(name, s["value"], s["reason"]) for name, s in result.settings.items()],
    )
    runs = result.runs
    lines += ["", "## Runs", ""]
    lines += [
        f"Run {runs.attrs['best']} was kept: it has the smallest score on the validation stretch: `d_stsp` "
        "and `d_h`, each in units of what another true stretch scores, added up.",
        "",
    ]
    lines += [text, ""] if (text := chosen_by(result, table)) else []
    names = [n for n in ("alpha", "score", "d_stsp", "d_h", "outside", "loss", "best_at") if n in runs]
    rows = []
    for i in range(runs.sizes["run"]):
        rows.append((i, *(_number(float(runs[n][i])) for n in names), str(runs["failure"].values[i]) or "-"))
    lines += markdown_table(("run", *names, "failure"), rows)
    visited = encoded.attrs["regions_visited"]
    lines += [
        "",
        "## Symbols",
        "",
        f"The free run of {encoded.sizes['time']:,} steps visits {visited} linear regions.",
    ]
    shares = encoded["visits"].values[:8] / encoded.sizes["time"]
    lines += [f"The most visited hold {', '.join(f'{s:.1%}' for s in shares)} of its steps."]
    if encoded.sizes["region"] > READABLE:
        lines += [
            "A cell with many gates is faithful rather than readable. For a few regions, to be read as symbols, fit an "
            "Almost-Linear RNN: `reconstruct(series, lambda key: ALRNN(20, 2, key=key), interval=16, length=200, "
            "noise=0.05, steps=15_000, learning_rate=(5e-3, 1e-4))`."
        ]
    lines += [""]
    lines += ["## Files", ""]
    lines += markdown_table(
        ("file", "holds"),
        [
            ("model.eqx", "the model: `dsrecon.load('model.eqx')`"),
            ("scores.json, scores.nc", "the table of scores"),
            (
                "symbols.nc",
                "symbols, region bits, affine maps, dwell times; transitions up to 1000 regions",
            ),
            ("graph.graphml", "the transition graph"),
            ("summary.png", "the figure"),
        ],
    )
    return "\n".join(lines) + "\n"


def markdown_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """A table in Markdown, line by line."""

    def line(cells: tuple[Any, ...]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *(line(row) for row in rows)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
