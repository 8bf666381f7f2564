"""Run examples at full size and keep what they print and draw, for the gallery of the site.

`python docs/_gallery/render.py NAME ...`, without names all. A cell keeps its output until its source changes, so
only examples that changed need be run again.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import chdir, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from cells import EXAMPLES, GALLERY, OUTPUTS, sources


def run(script: Path, folder: Path) -> dict[str, Any]:
    """The record of an example, run cell by cell in one namespace, in `folder`, where its files land."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    code = [source for kind, source in sources(script) if kind == "code"]
    cells, begun = [], time.perf_counter()
    with chdir(folder):
        for i, source in enumerate(code):
            before, out = pictures(folder), io.StringIO()
            with redirect_stdout(out):
                exec(compile(source, f"{script.name}, code cell {i}", "exec"), namespace)
            after = pictures(folder)
            drawn = sorted((f for f in after if after[f] != before.get(f)), key=lambda f: after[f])
            cells.append({"source": source, "text": out.getvalue(), "figures": drawn})
            print(f"{script.stem}: cell {i + 1} of {len(code)}, {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "dsrecon": version("dsrecon"),
        "jax": version("jax"),
        "seconds": round(time.perf_counter() - begun, 1),
        "on": machine(),
    }
    return {"run": about, "cells": cells}


def machine() -> str:
    """What ran it, in a few words."""
    device = jax.devices()[0]
    return f"{os.cpu_count()} CPU cores" if device.platform == "cpu" else device.device_kind


def pictures(folder: Path) -> dict[str, int]:
    """PNG files and when they were written, in ns."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def keep(record: dict[str, Any], made: Path, target: Path) -> None:
    """Put a record and its figures in the place of the former ones."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for cell in record["cells"]:
        for figure in cell["figures"]:
            shutil.copy(made / figure, target / figure)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (target / OUTPUTS).write_text(text, encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="examples, without .py (default: all)")
    parser.add_argument("--out", type=Path, default=GALLERY, help="another folder than docs/gallery")
    given = parser.parse_args()
    if os.environ.get("DSRECON_EXAMPLE_SIZE") and given.out == GALLERY:
        parser.error("the gallery shows full size: unset DSRECON_EXAMPLE_SIZE, or give --out")
    scripts = [EXAMPLES / f"{name}.py" for name in given.names] or sorted(EXAMPLES.glob("*.py"))
    for script in scripts:
        if not script.is_file():
            parser.error(f"there is no example {script.stem!r}")
    for script in scripts:
        with tempfile.TemporaryDirectory() as folder:
            keep(run(script, Path(folder)), Path(folder), given.out.resolve() / script.stem)


if __name__ == "__main__":
    main()
