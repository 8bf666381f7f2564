"""`dsrecon symbols` and `dsrecon score`: a run folder, or a model file, looked at again."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

from dsrecon import plot
from dsrecon._files import write_whole
from dsrecon.cli.command import Columns, Inputs, Resample, TimeStep, app, fail
from dsrecon.cli.driven import read_driven
from dsrecon.cli.findings import EXPONENT_STEPS, findings
from dsrecon.cli.folder import RUN, beside, model, write_scores
from dsrecon.cli.report import READABLE, scores_table
from dsrecon.measures import affine_exponents
from dsrecon.measures.score import score
from dsrecon.reconstruction import Reconstruction
from dsrecon.symbolic import (
    block_entropies,
    encode,
    read_symbols,
    run_lengths,
    topological_entropy,
    transition_graph,
    write_graph,
    write_symbols,
)

LONGEST = 8
DRAWN = 40
"""Regions in the figure of the graph."""


class Form(StrEnum):
    """Forms that `dsrecon symbols` writes."""

    csv = "csv"
    dot = "dot"
    json = "json"
    netcdf = "netcdf"
    graphml = "graphml"


FILES = {
    Form.csv: ("symbols.csv",),
    Form.dot: ("graph.dot",),
    Form.json: ("symbols.json", "graph.json"),
    Form.netcdf: ("symbols.nc",),
    Form.graphml: ("graph.graphml",),
}

Run = Annotated[Path, typer.Argument(help="Run folder, or a model file (.eqx).")]


@app.command()
def symbols(
    run: Run,
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="csv and netcdf hold the symbols, dot and graphml the graph, json both (two files)."
        ),
    ] = Form.csv,
    out: Annotated[
        Path | None, typer.Option(help="File to write instead of symbols.* or graph.* in the run folder; no page then.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data to compare with, as symbols: .csv, .nc or .npy (the model's columns).")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=2, help=f"Code a new free run of so many steps (default: symbols.nc; without it {RUN:,})."),
    ] = None,
) -> None:
    """Write the symbols of a run, or their transition graph, and a page of what they say (symbols.md)."""
    names = FILES[form]
    targets = [beside(run) / name for name in names] if out is None else [out]
    if targets[0].suffix.lower() != Path(names[0]).suffix:
        fail(ValueError(f"--out {out} must end in {Path(names[0]).suffix}, as --format {form.value} does."))
    try:
        encoded = _coded(run, steps)
        for name, path in zip(names, targets, strict=False):
            if name.startswith("graph"):
                write_graph(transition_graph(encoded), path)
            else:
                write_symbols(encoded, path)
        text = summary(encoded)
        pages = page(run, encoded, data) if out is None else []
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(f"{text}\n\nWrote {', '.join(map(str, [*targets, *pages]))}.")


@app.command("score")
def score_file(
    run: Run,
    truth: Annotated[Path, typer.Argument(help="Series to score against: .csv, .nc or .npy.")],
    columns: Columns = None,
    inputs: Inputs = None,
    time_step: TimeStep = None,
    resample: Resample = None,
) -> None:
    """Score a model against the series in a file (its own columns, unless told otherwise).

    The table goes to scores-<file>.json in the run folder too.
    """
    try:
        fitted = model(run)
        columns = columns or (None if truth.suffix == ".npy" else ",".join(fitted.names))
        inputs = inputs or ",".join(fitted.input_names) or None
        series, drive = read_driven(truth, columns, inputs, time_step=time_step, resample=resample)
        table = score(fitted, series, inputs=drive)
        path = write_scores(table, beside(run) / f"scores-{truth.stem}.json")
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(scores_table(table))
    typer.echo(f"\nWrote {path}.")
    if table.attrs["failed"]:
        fail(RuntimeError(f"the reconstruction has failed: {table.attrs['reason']}."))


def page(run: Path, encoded: xr.Dataset, data: Path | None) -> list[Path]:
    """Write the page of findings, its figure and its machine beside a run; returns the files.

    `data`: a file of the model's own columns (and inputs) that is coded and compared.
    """
    fitted, folder, along = model(run), beside(run), None
    if data is not None:
        columns = None if data.suffix == ".npy" else ",".join(fitted.names)
        series, drive = read_driven(data, columns, ",".join(fitted.input_names) or None, time_step=None, resample=None)
        along = encode(fitted, series, inputs=drive)
    exponents = None if fitted.input_names else _exponents(fitted)
    found = findings(encoded, ", ".join(fitted.names), exponents, along)
    figure = plot.save(plot.transition_graph(encoded, most=DRAWN), folder / "symbols-graph.png")
    files = [write_whole(folder / "symbols.md", found.text.encode()), figure]
    if found.machine is not None:
        files.append(write_graph(found.machine.machine, folder / "machine.json"))
    return files


def _exponents(fitted: Reconstruction) -> np.ndarray | None:
    """The Lyapunov exponents of a free run; `None` where it diverges."""
    try:
        start, dt = fitted.start(), fitted.clock.time_step
        return np.asarray(affine_exponents(fitted.cell, start, steps=EXPONENT_STEPS, dt=dt))
    except RuntimeError:
        return None


def _coded(run: Path, steps: int | None) -> xr.Dataset:
    """The symbols in the run folder, or those of a new free run, its first tenth left out."""
    kept = run / "symbols.nc"
    if steps is None and run.is_dir() and kept.is_file():
        return read_symbols(kept)
    steps = RUN if steps is None else steps
    return encode(model(run), steps=steps, discard=steps // 10)


def summary(encoded: xr.Dataset) -> str:
    """Visited regions with shares and dwell times, and the entropies of words."""
    about, steps = encoded.attrs, encoded.sizes["time"]
    unit = "s" if about["time_unit"] == "datetime" else about["time_unit"] or "units of time"
    dwell = run_lengths(encoded)["mean"].values
    lines = [f"{about['regions_visited']} linear regions are visited in {steps:,} steps ({about['source']}).", ""]
    lines.append(f"{'region':>6}{'share':>9}  mean dwell time ({unit})")
    for region, visits in enumerate(encoded["visits"].values[:READABLE]):
        shown = f"{dwell[region]:.4g}" if np.isfinite(dwell[region]) else "not seen whole"
        lines.append(f"{region:>6}{visits / steps:>9.2%}  {shown}")
    rest = encoded.sizes["region"] - READABLE
    if rest > 0:
        share = encoded["visits"].values[READABLE:].sum() / steps
        lines.append(f"{'other':>6}{share:>9.2%}  {rest} rarer region{'s' if rest > 1 else ''}")
    table = block_entropies(encoded, min(LONGEST, steps))
    lines += ["", f"{'length':>6}{'words':>9}{'entropy':>10}{'rate':>10}  (nats; rate per step)"]
    for i, length in enumerate(table["length"].values):
        words, entropy, rate = (table[name].values[i] for name in ("words", "entropy", "rate"))
        note = "" if table["reliable"].values[i] else "  too long for so few steps: biased low"
        lines.append(f"{length:>6}{words:>9}{entropy:>10.4f}{rate:>10.4f}{note}")
    growth = topological_entropy(transition_graph(encoded))
    lines += ["", f"Topological entropy of the transition graph: {growth:.4f} nats per step."]
    return "\n".join(lines)
