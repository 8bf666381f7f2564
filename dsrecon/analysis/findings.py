"""What was found out about a fitted map, in plain words."""

import math

import numpy as np

from dsrecon.analysis.found import Cycle
from dsrecon.analysis.structure import Structure, leading

LISTED = 12
"""Fixed points and cycles that are described one by one."""

NEAR = 0.3
"""Distance to the free run, in standard deviations of the data, up to which a fixed point counts as touched by it."""

MEANING = {
    "stable node": "orbits nearby come in straight: an attractor, a state of rest",
    "stable focus": "orbits nearby spiral in: an attractor, a damped oscillation",
    "saddle": "orbits come in along some directions and leave along others",
    "saddle-focus": "orbits come in along some directions and leave along others, and turn about it",
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
    distance = structure.distance[i]
    if math.isfinite(distance):
        where = "The free run touches it" if distance < NEAR else "The free run keeps away from it"
        text += f". {where} (nearest: {distance:.2g} standard deviations)"
    return text + "."


def _cycles(structure: Structure) -> list[str]:
    longer = [c for c in structure.cycles if c.period > 1]
    if structure.flow:
        return ["It is a flow: limit cycles were not looked for. `limit_cycle` finds one from a state near it."]
    if not longer:
        return ["No cycle of more than one step was found up to the periods searched."]
    periods = sorted({c.period for c in longer})
    counts = ", ".join(f"{sum(c.period == k for c in longer)} of period {k}" for k in periods)
    stable = sum(c.kind.startswith("stable") for c in longer)
    return [f"**Cycles of more than one step:** {counts}; {stable or 'none'} of them stable."]


def _run(structure: Structure) -> list[str]:
    if structure.orbit is None:
        return [f"The free run diverges at step {structure.diverged}: nothing that is bounded attracts it."]
    stable = [c for c in structure.cycles if c.kind.startswith("stable") and c.real]
    if not stable:
        return [
            "None of these is stable, and the free run stays bounded: what attracts it is none of them. It is a longer "
            "cycle, a closed curve, or chaos; the exponents tell which."
        ]
    spread = np.ptp(structure.orbit.values[-200:], axis=0).max()
    still = spread < 1e-3 * max(float(np.ptp(structure.orbit.values, axis=0).max()), 1e-300)
    ends = " The free run ends at rest." if still else " The free run has not come to rest at one of them."
    return [f"{len(stable)} stable: attractors, by exact stability, each with a basin of its own." + ends]


def time_unit(structure: Structure) -> str:
    """The unit of time as it follows a number."""
    unit = "s" if structure.time_unit == "datetime" else structure.time_unit
    return f" {unit}" if unit else " units of time"
