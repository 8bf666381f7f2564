"""`dsrecon analyse`: a run folder, or a model file, taken apart."""

import json
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

from dsrecon import plot
from dsrecon._files import replacing, write_whole
from dsrecon.analysis import Found, Structure, analyse, findings
from dsrecon.analysis.findings import time_unit
from dsrecon.analysis.structure import leading
from dsrecon.cell import AbstractPWLCell
from dsrecon.cli.command import app, fail
from dsrecon.cli.folder import beside, made, model
from dsrecon.cli.inspection import Run
from dsrecon.measures.lyapunov import affine_exponents, kaplan_yorke, lyapunov_spectrum
from dsrecon.reconstruction import Reconstruction

STEPS = 20_000
"""Steps along which the exponents are taken."""


@app.command("analyse")
def analyse_run(
    run: Run,
    longest: Annotated[int, typer.Option(min=1, help="Longest period of the cycles that are looked for.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder to write to instead of the run folder.")] = None,
) -> None:
    """Take a model apart: all its fixed points and cycles, what they are, and what attracts it.

    Writes analysis.json, fixed_points.csv, cycles.csv, fixed_points.png and findings.md.
    """
    folder = made(out) if out is not None else beside(run)
    try:
        fitted = model(run)
        structure = analyse(fitted, longest=longest)
        exponents = None if structure.orbit is None else _exponents(fitted)
        said = [*findings(structure), *([] if exponents is None else [_chaos(structure, exponents)])]
        write_whole(folder / "analysis.json", _document(structure, exponents, said))
        table = structure.table()
        for name, rows in (
            ("fixed_points.csv", table[table["period"] == 1]),
            ("cycles.csv", table[table["period"] > 1]),
        ):
            with replacing(folder / name) as path:
                rows.to_csv(path, index=False)
        if structure.orbit is not None:
            plot.save(plot.fixed_points(structure.cycles, structure.orbit, model=fitted), folder / "fixed_points.png")
        write_whole(folder / "findings.md", _page(structure, said).encode())
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo("\n\n".join(said))
    typer.echo(f"\nWrote findings.md, analysis.json, fixed_points.csv, cycles.csv and the figure to {folder}.")


def _exponents(fitted: Reconstruction) -> np.ndarray:
    """Exponents of the free run per unit of time; a driven model at the mean of its inputs."""
    cell, size = fitted.cell, fitted.cell.state_size
    measured = affine_exponents if isinstance(cell, AbstractPWLCell) else lyapunov_spectrum
    found = measured(cell, fitted.start(), steps=STEPS, dt=fitted.clock.time_step, count=min(size, 10))
    return np.asarray(jax.device_get(found), np.float64)


def _chaos(structure: Structure, exponents: np.ndarray) -> str:
    """What the exponents say of the attractor."""
    shown = ", ".join(f"{x:.3g}" for x in exponents[:4])
    first, unit = exponents[0], time_unit(structure).strip().replace("units of", "unit of")
    about = f"The largest exponents of the free run, over {STEPS:,} steps, are {shown} per {unit}"
    if not np.isfinite(exponents).all():
        return f"{about}: no dimension can be told from them."
    # averages over a run of T scatter by a few over T
    if abs(first) * STEPS * structure.time_step < 5:
        return f"{about}. The first is not told from zero: a closed curve, or a cycle too weakly stable to be seen."
    if first < 0:
        return f"{about}: all fall, so it is no chaos but a stable state of rest or cycle."
    spectrum = kaplan_yorke(exponents)
    tail = "" if spectrum < len(exponents) else " or more (of the exponents that were computed)"
    return f"{about}: **chaos**, on an attractor of Kaplan-Yorke dimension {spectrum:.3g}{tail}."


def _document(structure: Structure, exponents: np.ndarray | None, said: list[str]) -> bytes:
    """`analysis.json`: everything, numbers that JSON has no word for as `null`."""

    def number(x: Any) -> float | None:
        return float(x) if np.isfinite(x) else None

    def certificate(found: Found | None) -> dict[str, Any] | None:
        if found is None:
            return None
        c = found.certificate
        return {
            "complete": c.complete,
            "longest": c.longest,
            "regions": c.regions if c.complete else None,
            "gates": c.gates,
            "solved": {str(k): n for k, n in c.solved.items()},
            "excluded": {str(k): n for k, n in c.excluded.items()},
            "virtual": c.virtual if c.complete else None,
            "singular": c.singular if c.complete else None,
            "text": str(c),
        }

    rows = []
    for cycle, points, distance in zip(structure.cycles, structure.observed, structure.distance, strict=True):
        _, unstable, centre, stable = cycle.stability
        rows.append(
            {
                "period": cycle.period,
                "kind": cycle.kind,
                "dimensions": {"unstable": unstable, "centre": centre, "stable": stable},
                "eigenvalues": [[float(v.real), float(v.imag)] for v in cycle.eigenvalues],
                "observed": points.tolist(),
                "states": cycle.points.tolist(),
                "regions": ["".join("01"[int(b)] for b in bits) for bits in cycle.word],
                "margin": number(cycle.margin),
                "border": cycle.border,
                "distance_to_free_run": number(distance),
                "rate": number(leading(cycle, structure.time_step)[0]),
                "turns_once_in": number(leading(cycle, structure.time_step)[1]),
            }
        )
    document = {
        "cell": structure.cell,
        "variables": list(structure.names),
        "units": list(structure.units),
        "time_step": structure.time_step,
        "time_unit": structure.time_unit,
        "complete": certificate(structure.searched),
        "heuristic": certificate(structure.guessed),
        "cycles": rows,
        "singular": [
            {"point": s.point.tolist(), "directions": s.directions.tolist(), "real": s.real, "period": len(s.word)}
            for s in (structure.searched.singular if structure.searched else ())
        ],
        "exponents": None if exponents is None else [number(x) for x in exponents],
        "diverged_at_step": structure.diverged,
        "findings": said,
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _page(structure: Structure, said: list[str]) -> str:
    lines = [f"# What {structure.cell} for {', '.join(structure.names)} is made of", ""]
    if structure.orbit is not None:
        lines += ["![fixed points and cycles](fixed_points.png)", ""]
    for paragraph in said:
        lines += [paragraph, ""]
    lines += [
        "Numbers: fixed_points.csv and cycles.csv, with states and exponents (the ten largest at most) in "
        "analysis.json. `rate` is that at which orbits leave by the slowest unstable direction (or come in, where none "
        "is unstable), per unit of time, and `turns_once_in` the time of a turn on that way; places are in the units "
        "of the data, `margin`, the distance to the nearest border of regions, in those of the latent state.",
        "",
    ]
    return "\n".join(lines)
