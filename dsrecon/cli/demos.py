"""`dsrecon demo`: a known system, or a real electrocardiogram, from the series to a run folder."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import jax
import typer

from dsrecon.cli.command import Out, Seed, app
from dsrecon.cli.fits import fitted
from dsrecon.cli.folder import made, write_run
from dsrecon.cli.heart import ecg_demo
from dsrecon.systems import Lorenz63, Roessler, simulate


class Demonstration(StrEnum):
    """What `dsrecon demo` knows."""

    lorenz = "lorenz"
    roessler = "roessler"
    ecg = "ecg"


SYSTEMS = {Demonstration.lorenz: Lorenz63, Demonstration.roessler: Roessler}
STEPS = 100_000
NOISE = 0.05


@app.command()
def demo(
    system: Annotated[Demonstration, typer.Argument(help="What to reconstruct.")] = Demonstration.lorenz,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Simulate a known system, add 5 % noise, reconstruct it from that alone, and write a run folder.

    `ecg` takes a real electrocardiogram instead.
    """
    folder = made(out or Path(f"dsrecon-demo-{system.value}"))
    if system is Demonstration.ecg:
        ecg_demo(folder, seed)
        return
    known = SYSTEMS[system]()
    typer.echo(f"Simulating {STEPS:,} steps of {type(known).__name__}, {NOISE:.0%} observation noise ...")
    truth = simulate(known, STEPS)
    observed = simulate(known, STEPS, noise=NOISE, key=jax.random.key(seed))
    typer.echo("Reconstructing it from the noisy series alone ...")
    result = fitted(folder, observed, key=seed)
    exponents = ", ".join(f"{value:.3g}" for value in known.exponents)
    about = [
        f"{STEPS:,} steps of {type(known).__name__}, {NOISE:.0%} observation noise; scores are against the noise-free "
        "truth.",
        f"The system's own Lyapunov exponents are {exponents} ({known.source}).",
    ]
    write_run(folder, result, truth, about)
