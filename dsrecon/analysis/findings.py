"""What was found out about a fitted map, in plain words."""

import math

import numpy as np

from dsrecon.analysis.found import Cycle
from dsrecon.analysis.structure import Structure, leading

LISTED = 12
"""Fixed points and cycles that are described one by one."""

FAR = 1e6
"""Times its first steps that a free run ends at, from which on it is said to leave."""

MEANING = {
    "stable node": "orbits nearby come in straight: an attractor, a state of rest",
    "stable focus": "orbits nearby spiral in: an attractor, a damped oscillation",
    "saddle": "orbits come in along some directions and leave along others",
    "saddle-focus": "orbits come in along some directions and leave along others, in a spiral on one side at least",
    "unstable node": "orbits nearby leave in all directions",
    "unstable focus": "orbits nearby spiral out in all directions",
    "non-hyperbolic": "a direction neither grows nor decays: the linear part alone does not decide",
    "border collision": "it lies on the border of regions: the maps of all of them decide, not one of them",
}


def findings(structure: Structure) -> list[str]:
    """Paragraphs on what the map is made of, the surest first. See `Structure`."""
    return [*_search(structure), *_points(structure), *_cycles(structure), *_run(structure)]


def _search(structure: Structure) -> list[str]:
    said = []
    if structure.searched is not None:
        said.append(str(structure.searched.certificate))
        real = [s for s in structure.searched.singular if s.real]
        if real:
            kinds = ", ".join({1: "a line", 2: "a plane"}.get(len(s.directions), "a subspace") for s in real)
            said.append(
                f"{len(real)} words have no single solution but {kinds} of them: every state on it is repeated. This "
                "is what a line attractor of a piecewise-linear map looks like, or what one is near to."
            )
    if structure.guessed is not None:
        said.append(str(structure.guessed.certificate))
    return said


def _points(structure: Structure) -> list[str]:
    fixed = structure.fixed_points
    if not fixed:
        complete = structure.searched is not None
        return ["The map has no fixed point." if complete else "No fixed point was found, but there may be some."]
    said = [f"**{len(fixed)} fixed point{'s' * (len(fixed) > 1)}.**"]
    for i, cycle in enumerate(fixed[:LISTED]):
        said.append(f"{i + 1}. {_described(structure, i, cycle)}")
    if len(fixed) > LISTED:
        said.append(f"... and {len(fixed) - LISTED} more, in the table.")
    return said


def _described(structure: Structure, i: int, cycle: Cycle) -> str:
    where = ", ".join(
        f"{name} = {value:.4g}{' ' + unit if unit else ''}"
        for name, value, unit in zip(structure.names, structure.observed[i][0], structure.units, strict=True)
    )
    _, unstable, _, stable = cycle.stability
    rate, turn = leading(cycle, structure.time_step)
    unit = time_unit(structure)
    text = f"**{cycle.kind}** at {where}: {MEANING[cycle.kind]}. {unstable} unstable and {stable} stable directions; "
    if rate == -math.inf:
        text += "orbits reach it in finitely many steps"
    else:
        verb = "leave it, growing" if rate > 0 else "come in, shrinking"
        text += f"orbits {verb} e-fold in {abs(1 / rate):.3g}{unit}" if rate else "orbits stay where they are"
    if math.isfinite(turn):
        text += f" and turning once in {turn:.3g}{unit}"
    elif rate > 0 and cycle.kind == "saddle-focus":
        text += " (the spiral is on the way in)"
    distance = structure.distance[i]
    if math.isfinite(distance):
        text += f". The free run comes within {distance:.2g} standard deviations of the data of it"
    return text + "."


def _cycles(structure: Structure) -> list[str]:
    longer = [c for c in structure.cycles if c.period > 1 and c is not structure.end]
    if structure.flow:
        return ["It is a flow: limit cycles were not looked for. `limit_cycle` finds one from a state near it."]
    if not longer:
        searched = max(f.certificate.longest for f in (structure.searched, structure.guessed) if f is not None)
        if searched == 1:
            return []
        return [f"No cycle of 2 to {searched} steps was found."]
    periods = sorted({c.period for c in longer})
    counts = ", ".join(f"{sum(c.period == k for c in longer)} of period {k}" for k in periods)
    stable = sum(c.kind.startswith("stable") for c in longer)
    return [f"**Cycles of more than one step:** {counts}; {stable or 'none'} of them stable."]


def _run(structure: Structure) -> list[str]:
    if structure.orbit is None:
        return [f"The free run diverges at step {structure.diverged}: nothing that is bounded attracts it."]
    last, first = (float(np.abs(part).max()) for part in (structure.orbit.values[-1], structure.orbit.values[:100]))
    if last > FAR * max(first, 1.0):
        return [
            f"The free run leaves: {len(structure.orbit.values):,} steps on it is at {last:.2g}, and does not return."
        ]
    if structure.end is not None:
        k, size = structure.end.period, abs(structure.end.eigenvalues[0])
        return [
            f"**What attracts the free run is a stable cycle of {k} steps** ({k * structure.time_step:.4g}"
            f"{time_unit(structure)}): its word of regions was solved, and its largest eigenvalue has the modulus "
            f"{size:.3g} a turn. The free run is not chaotic."
        ]
    stable = [c for c in structure.cycles if c.kind.startswith("stable")]
    if not stable:
        return [
            "None of these is stable, and the free run stays bounded, on no stable cycle that it shows: what attracts "
            "it is chaos, a closed curve, or a cycle longer than half of the run. The exponents tell which."
        ]
    spread = np.ptp(structure.orbit.values[-200:], axis=0).max()
    still = spread < 1e-3 * max(float(np.ptp(structure.orbit.values, axis=0).max()), 1e-300)
    ends = " The free run ends at rest." if still else " The free run has not come to rest at one of them."
    return [f"{len(stable)} stable: attractors, by exact stability, each with a basin of its own." + ends]


def time_unit(structure: Structure) -> str:
    """The unit of time as it follows a number."""
    unit = "s" if structure.time_unit == "datetime" else structure.time_unit
    return f" {unit}" if unit else " units of time"
