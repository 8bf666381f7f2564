"""The command itself, the options that its parts share, and how it fails."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    help="From a measured time series to a dynamical system: run it, score it, write it down as symbols.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path | None, typer.Option(help="Folder to write to (made when missing).")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Columns = Annotated[str | None, typer.Option(help="Columns to take, separated by commas (default: all).")]
Inputs = Annotated[
    str | None, typer.Option(help="Columns that drove the system (external inputs), separated by commas.")
]
TimeStep = Annotated[float | None, typer.Option(help="Time between samples, if the file has no times.")]

Resample = Annotated[
    float | None, typer.Option(help="Put samples that are not equidistant on this step (seconds for dates).")
]


def _told(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dsrecon {version('dsrecon')}")
        raise typer.Exit


@app.callback()
def command(
    _: Annotated[
        bool, typer.Option("--version", callback=_told, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What comes before the name of a command."""


def chosen(columns: str | None) -> list[str] | None:
    """The names in `--columns`; `None` when it was not given."""
    return [c.strip() for c in columns.split(",") if c.strip()] if columns is not None else None


def fail(error: Exception) -> NoReturn:
    """One line on standard error, no traceback, no number of an error of the operating system."""
    told = isinstance(error, OSError) and error.strerror and error.filename
    text = f"{error.strerror}: {error.filename}" if told else str(error)  # pyright: ignore[reportAttributeAccessIssue]
    print(f"dsrecon: {' '.join(text.splitlines())}", file=sys.stderr)
    raise typer.Exit(1)
