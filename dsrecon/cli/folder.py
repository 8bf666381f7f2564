"""The run folder: made before a fit, written after it, read by the other commands."""

import json
import os
from pathlib import Path

import numpy as np
import typer
import xarray as xr

from dsrecon import plot
from dsrecon._files import replacing, write_whole
from dsrecon.cli.command import fail
from dsrecon.cli.report import chosen_by, report, scores_table
from dsrecon.measures.score import records, score
from dsrecon.reconstruction import Reconstruction, load
from dsrecon.series import Series
from dsrecon.symbolic import encode, transition_graph, write_graph, write_symbols
from dsrecon.symbolic.tables import netcdf

RUN = 10_000
"""Steps of a free run, where the truth is long enough."""


def made(path: Path) -> Path:
    """The output folder, made and tried before anything is computed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with replacing(path / ".writable") as probe:
            probe.touch()
        (path / ".writable").unlink()
    except OSError as error:
        fail(OSError(f"cannot write to the output folder {path}: {error.strerror or error}"))
    return path


def write_run(
    folder: Path, result: Reconstruction, truth: xr.DataArray, about: list[str], inputs: Series | None = None
) -> None:
    """The run folder: model, scores, symbols, graph, figure, report. Each file is written whole or not at all.

    **Arguments:** `truth`: what the model is scored against; `inputs`: what drove it, row for row; `about`: paragraphs
    of the report.
    """
    typer.echo("Scoring, coding as symbols, drawing ...")
    try:
        result.save(folder / "model.eqx")  # before anything else can fail
        length = min(RUN, (truth.sizes["time"] - result.offset) // 2)
        table = score(result, truth, steps=length, inputs=inputs)
        points = result.in_coordinates(truth)
        first = points.values[np.isfinite(points.values).all(1)][0]
        run = {"start": first, "discard": length // 10}
        if inputs is None:
            generated = result.simulate(length + result.offset, **run)
            encoded = encode(result, steps=length, **run)
        else:  # symbols along the data: a driven map has its regions where its inputs take it
            generated = result.simulate(length, inputs=inputs, **run)
            encoded = encode(result, truth, inputs=inputs)
        write_scores(table, folder / "scores.json")
        write_whole(folder / "scores.nc", netcdf(table))
        write_symbols(encoded, folder / "symbols.nc")
        write_graph(transition_graph(encoded), folder / "graph.graphml")
        shown = result.in_coordinates(generated)
        plot.save(plot.summary(result, points, shown, encoded, records(table)), folder / "summary.png")
        write_whole(folder / "report.md", report(result, table, encoded, about).encode())
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(scores_table(table))
    if text := chosen_by(result, table):
        typer.echo(text)
    if table.attrs["failed"]:
        fail(RuntimeError(f"the reconstruction has failed: {table.attrs['reason']}. See {folder / 'report.md'}."))
    typer.echo(f"\nWrote {folder}{os.sep}: look at summary.png first, then read report.md.")


def write_scores(table: xr.Dataset, path: Path) -> Path:
    """The table of `score` as a list of records, JSON."""
    return write_whole(path, (json.dumps(records(table), indent=1, allow_nan=False) + "\n").encode())


def model(run: Path) -> Reconstruction:
    """The model of a run folder, or in a file. **Raises** `ValueError` where there is none, beside what `load` does."""
    if run.is_dir() and not (run / "model.eqx").exists():
        raise ValueError(f"the folder {run} holds no model.eqx, which `dsrecon fit` writes at its end.")
    if not run.exists():
        raise ValueError(f"there is no run folder and no model file {str(run)!r}.")
    return load(run / "model.eqx" if run.is_dir() else run)


def beside(run: Path) -> Path:
    """The folder of a run: that itself, or that of the model file."""
    return run if run.is_dir() else run.parent
