"""An example as cells, and what each of them printed and drew when it was last run at full size."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import nbformat

DOCS = Path(__file__).parents[1]
EXAMPLES = DOCS.parent / "examples"
GALLERY = DOCS / "gallery"
OUTPUTS = "outputs.json"


class Output(NamedTuple):
    """What a code cell gave: what it printed, and the files of its figures, in the folder of the example."""

    text: str
    figures: list[str]


class Cell(NamedTuple):
    """A cell of an example; `output` is `None` for Markdown and for code that has changed since it was run."""

    kind: str
    source: str
    output: Output | None


class Example(NamedTuple):
    """An example: its file, its cells, and how it was run (empty: never)."""

    script: Path
    cells: list[Cell]
    run: dict[str, Any]

    @property
    def name(self) -> str:
        return self.script.stem

    @property
    def folder(self) -> Path:
        """Where its outputs are kept."""
        return GALLERY / self.name

    @property
    def title(self) -> str:
        """The heading of its first cell."""
        return self.cells[0].source.splitlines()[0].removeprefix("# ").strip()

    @property
    def summary(self) -> str:
        """The first paragraph under that heading."""
        return self.cells[0].source.partition("\n")[2].strip().partition("\n\n")[0]

    @property
    def figures(self) -> list[str]:
        """Files of all figures that are shown."""
        return [figure for cell in self.cells if cell.output for figure in cell.output.figures]


def sources(script: Path) -> list[tuple[str, str]]:
    """Kind (`markdown` or `code`) and source of every cell of a percent script.

    **Raises:** `ValueError` for a script that does not begin with a Markdown cell with a heading.
    """
    cells = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent").cells
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        raise ValueError(
            f"{script.name} must begin with a Markdown cell: a heading (# ...) and what the example shows."
        )
    return [(cell.cell_type, cell.source) for cell in cells]


def example(script: Path) -> Example:
    """An example with its kept outputs; a cell has one only where its source is what was run."""
    kept = GALLERY / script.stem / OUTPUTS
    record = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {"run": {}, "cells": []}
    known: dict[str, list[Output]] = {}
    for cell in record["cells"]:
        known.setdefault(cell["source"], []).append(Output(cell["text"], cell["figures"]))
    cells = []
    for kind, source in sources(script):
        found = known.get(source, []) if kind == "code" else []
        cells.append(Cell(kind, source, found.pop(0) if found else None))
    return Example(script, cells, record["run"])


def examples() -> list[Example]:
    """All of them, by name."""
    return [example(script) for script in sorted(EXAMPLES.glob("*.py"))]


def notebook(shown: Example) -> str:
    """The example as a notebook with its outputs: JSON text, checked against the notebook format."""
    made = nbformat.v4.new_notebook()
    made.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(shown.cells):
        new = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        made.cells.append(new(cell.source, id=f"cell-{i}"))
        if cell.output is None:
            continue
        outputs = made.cells[-1].outputs
        if cell.output.text:
            outputs.append(nbformat.v4.new_output("stream", name="stdout", text=cell.output.text))
        for figure in cell.output.figures:
            png = b64encode((shown.folder / figure).read_bytes()).decode("ascii")
            outputs.append(nbformat.v4.new_output("display_data", {"image/png": png, "text/plain": f"<{figure}>"}))
    nbformat.validate(made)
    return nbformat.writes(made)
