"""The `dsrecon` command: a demonstration on a known system, and a fit of a file."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import typer
import xarray as xr

from dsrecon import plot
from dsrecon._files import replacing
from dsrecon.data import read_series
from dsrecon.measures.score import records, score
from dsrecon.reconstruct import reconstruct
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_series
from dsrecon.symbolic import encode, transition_graph, write_graphml, write_symbols
from dsrecon.systems import Lorenz63, Roessler, simulate

app = typer.Typer(
    help="From a measured time series to a dynamical system: run it, score it, write it down as symbols.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Demonstration(StrEnum):
    """Systems that `dsrecon demo` knows."""

    lorenz = "lorenz"
    roessler = "roessler"


SYSTEMS = {Demonstration.lorenz: Lorenz63, Demonstration.roessler: Roessler}
STEPS = 100_000
NOISE = 0.05
RUN = 10_000
READABLE = 16

Out = Annotated[Path | None, typer.Option(help="Folder to write to (made when missing).")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]


@app.command()
def demo(
    system: Annotated[Demonstration, typer.Argument(help="System to simulate.")] = Demonstration.lorenz,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Simulate a known system, add 5 % noise, reconstruct it from that alone, and write a run folder."""
    folder = _folder(out or Path(f"dsrecon-demo-{system.value}"))
    known = SYSTEMS[system]()
    typer.echo(f"Simulating {STEPS:,} steps of {type(known).__name__}, {NOISE:.0%} observation noise ...")
    truth = simulate(known, STEPS)
    observed = simulate(known, STEPS, noise=NOISE, key=jax.random.key(seed))
    typer.echo("Reconstructing it from the noisy series alone ...")
    result = _reconstruct(folder, observed, seed)
    exponents = ", ".join(f"{value:.3g}" for value in known.exponents)
    about = [
        f"{STEPS:,} steps of {type(known).__name__}, {NOISE:.0%} observation noise; scores are against the noise-free "
        "truth.",
        f"The system's own Lyapunov exponents are {exponents} ({known.source}).",
    ]
    _write(folder, result, truth, about)


@app.command("fit")
def fit_file(
    file: Annotated[Path, typer.Argument(help="Series to fit: .csv, .nc or .npy.")],
    columns: Annotated[str | None, typer.Option(help="Columns to fit, separated by commas (default: all).")] = None,
    time_step: Annotated[float | None, typer.Option(help="Time between samples, if the file has no times.")] = None,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Reconstruct the system behind the series in a file, and write a run folder."""
    chosen = [c.strip() for c in columns.split(",") if c.strip()] if columns is not None else None
    try:
        series = read_series(file, columns=chosen, time_step=time_step)
    except (ValueError, OSError) as error:
        _fail(error)
    folder = _folder(out or Path(f"dsrecon-{file.stem}"))
    typer.echo(f"Reconstructing {', '.join(series.names)} from {len(series.values):,} samples ...")
    result = _reconstruct(folder, series, seed)
    about = [f"The series of {file.name}: {len(series.values):,} samples; scores are against the series itself."]
    _write(folder, result, series.to_xarray(), about)


def _folder(path: Path) -> Path:
    """The output folder, made and tried before anything is computed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with replacing(path / ".writable") as probe:
            probe.touch()
        (path / ".writable").unlink()
    except OSError as error:
        _fail(OSError(f"cannot write to the output folder {path}: {error.strerror or error}"))
    return path


def _reconstruct(folder: Path, series: Any, seed: int) -> Reconstruction:
    """The fit with no options; a failure is told in a line, and an output folder that is still empty goes again."""
    try:
        return reconstruct(series, key=seed)
    except (ValueError, RuntimeError) as error:
        if not any(folder.iterdir()):
            folder.rmdir()
        _fail(error)


def _write(folder: Path, result: Reconstruction, truth: xr.DataArray, about: list[str]) -> None:
    """The run folder: model, scores, symbols, graph, figure, report."""
    typer.echo("Scoring, coding as symbols, drawing ...")
    try:
        length = min(RUN, truth.sizes["time"] // 2)
        table = score(result, truth, steps=length)
        first = as_series(truth).values[0]
        generated = result.simulate(length, start=first, discard=length // 10)
        encoded = encode(result, steps=length, start=first, discard=length // 10)
        rows = records(table)
        result.save(folder / "model.eqx")
        with replacing(folder / "scores.json") as path:
            path.write_text(json.dumps(rows, indent=1) + "\n")
        with replacing(folder / "scores.nc") as path:
            table.to_netcdf(path, engine="h5netcdf")
        write_symbols(encoded, folder / "symbols.nc")
        write_graphml(transition_graph(encoded), folder / "graph.graphml")
        plot.save(plot.summary(result, truth, generated, encoded, rows), folder / "summary.png")
        with replacing(folder / "report.md") as path:
            path.write_text(_report(result, table, encoded, about))
    except (ValueError, OSError, RuntimeError) as error:
        _fail(error)
    typer.echo(_scores(table))
    if table.attrs["warning"]:
        typer.echo(f"\nWarning: {table.attrs['warning']}")
    if table.attrs["failed"]:
        _fail(RuntimeError(f"the reconstruction has failed: {table.attrs['reason']}. See {folder / 'report.md'}."))
    typer.echo(f"\nWrote {folder}{os.sep}: look at summary.png first, then read report.md.")


def _scores(table: xr.Dataset) -> str:
    lines = [f"{'measure':<18}{'value':>11}{'floor':>11}"]
    for name, value, floor in zip(table["measure"].values, table["value"].values, table["floor"].values, strict=True):
        lines.append(f"{name!s:<18}{value:>11.4g}{floor:>11.4g}")
    return "\n".join(lines)


def _report(result: Reconstruction, table: xr.Dataset, encoded: xr.Dataset, about: list[str]) -> str:
    """The fit in words."""
    cell = type(result.cell).__name__
    lines = [f"# {cell} for {', '.join(result.names)}", "", *about, ""]
    if table.attrs["failed"]:
        lines += [f"**The reconstruction has failed:** {table.attrs['reason']}.", ""]
    if table.attrs["warning"]:
        lines += [f"**Warning:** {table.attrs['warning']}", ""]
    lines += ["![summary](summary.png)", "", "## Scores", ""]
    lines += [
        "A distance is good when it is near its floor: what the truth scores against itself, at that length. For "
        "exponents and the dimension that column holds the standard error, for `pe_n` the error of following the "
        "nearest neighbour in the data.",
        "",
    ]
    lines += _table(
        ("measure", "value", "floor", "steps", "definition"),
        [
            (r["measure"], _number(r["value"]), _number(r["floor"]), r["length"], r["definition"])
            for r in records(table)
        ],
    )
    lines += ["", "## Choices", ""]
    lines += _table(
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
    names = [n for n in ("alpha", "score", "d_stsp", "d_h", "outside", "loss", "best_at") if n in runs]
    rows = []
    for i in range(runs.sizes["run"]):
        rows.append((i, *(_number(float(runs[n][i])) for n in names), str(runs["failure"].values[i]) or "-"))
    lines += _table(("run", *names, "failure"), rows)
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
    lines += _table(
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


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    def line(cells: tuple[Any, ...]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *(line(row) for row in rows)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _fail(error: Exception) -> NoReturn:
    """One line on standard error, no traceback."""
    print(f"dsrecon: {error}", file=sys.stderr)
    raise typer.Exit(1)
