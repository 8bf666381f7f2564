"""`dsrecon fit`: from the series in files to a run folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dsrecon.cli.command import Columns, Inputs, Out, Resample, Seed, TimeStep, app, fail
from dsrecon.cli.driven import read_driven
from dsrecon.cli.folder import made, write_run
from dsrecon.reconstruct import reconstruct
from dsrecon.reconstruction import Reconstruction

CHECKPOINT = "fit.checkpoint"


@app.command("fit")
def fit_files(
    files: Annotated[list[Path], typer.Argument(help="Series to fit: .csv, .nc or .npy; several are several trials.")],
    columns: Columns = None,
    inputs: Inputs = None,
    time_step: TimeStep = None,
    resample: Resample = None,
    lag: Annotated[int | None, typer.Option(min=1, help="Lag of the delay embedding of one column, samples.")] = None,
    dimension: Annotated[int | None, typer.Option(min=1, help="Its dimension; 1 for no embedding.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of a run (default: 12,000).")] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once, of which the best is kept (default: 8).")
    ] = None,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Reconstruct the system behind the series in files, and write a run folder.

    Empty cells are missing values. A fit that was broken off goes on where it stood when the same command is given
    again; Ctrl-C ends it with the best model so far.
    """
    try:
        read = [read_driven(f, columns, inputs, time_step=time_step, resample=resample) for f in files]
    except (ValueError, OSError) as error:
        fail(error)
    folder = made(out or Path(f"dsrecon-{files[0].stem}"))
    trials, drives = [series for series, _ in read], [drive for _, drive in read if drive is not None]
    samples = sum(len(trial.values) for trial in trials)
    named = f"{samples:,} samples" + (f" in {len(trials)} trials" if len(trials) > 1 else "")
    typer.echo(f"Reconstructing {', '.join(trials[0].names)} from {named} ...")
    series: Any = trials if len(trials) > 1 else trials[0]
    drive: Any = (drives if len(drives) > 1 else drives[0]) if drives else None
    amount = {} if runs is None else {"runs": runs}
    result = fitted(folder, series, inputs=drive, lag=lag, dimension=dimension, steps=steps, key=seed, **amount)
    longest = max(range(len(trials)), key=lambda i: len(trials[i].values))
    about = [f"The series of {', '.join(f.name for f in files)}: {named}; scores are against the series itself."]
    if len(trials) > 1:
        about[0] = about[0].replace("the series itself", f"the longest trial, {files[longest].name}")
    missing = sum(int((trial.values != trial.values).sum()) for trial in trials)
    if missing:
        about.append(f"{missing / (samples * len(trials[0].names)):.1%} of the observations are missing.")
    write_run(folder, result, trials[longest].to_xarray(), about, drives[longest] if drives else None)


def fitted(folder: Path, series: Any, **settings: Any) -> Reconstruction:
    """The fit, written down on the way in the run folder; a failure is told in a line.

    An output folder that is still empty then goes again.
    """
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        typer.echo(f"Going on from {checkpoint} (delete it to start anew) ...")
    try:
        result = reconstruct(series, checkpoint=checkpoint, **settings)
    except (ValueError, RuntimeError, OSError) as error:
        if not any(folder.iterdir()):
            folder.rmdir()
        fail(error)
    if "interrupted" in result.settings:
        typer.echo(f"Stopped after {result.settings['interrupted']['value']:,} updates: the best model so far is kept.")
    else:
        checkpoint.unlink(missing_ok=True)
    return result
