"""A reconstruction taken apart: what its fixed points and cycles are, in the units of the data, and in words."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from dsrecon.analysis.cycles import LIMIT, OutOfReach, checked_period, cycles
from dsrecon.analysis.flows import equilibria
from dsrecon.analysis.found import Cycle, Found
from dsrecon.analysis.heuristic import find_cycles
from dsrecon.analysis.letters import count
from dsrecon.analysis.settled import settled_cycle
from dsrecon.analysis.stability import eigenvalues_of
from dsrecon.cell import AbstractPWLCell, AbstractPWLFlow
from dsrecon.pwl import field_pieces, pieces
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import labelled


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a fitted piecewise-linear map is made of.

    - `searched`: complete list, as far as it is in reach; `guessed`: what a heuristic found up to `longest` beyond it,
      or `None` where nothing was left to it.
    - `cycles`: both together; `observed`: of each the points in the units of the data, `[k, n]`; `distance`: how near
      the free run comes to them, in standard deviations of the data (root mean square over the variables), or NaN.
    - `orbit`: the free run, `DataArray(time, variable)`; `None` where it diverged, and `diverged` is the step.
    - `names`, `units`: of the variables; `time_step`, `time_unit`: of a step.
    - `end`: the stable cycle that the free run settles on, where none of the others is stable; the last of `cycles`.
    - `flow`: whether the cell follows a flow. Its fixed points are the equilibria, complete; limit cycles are not
      looked for (`limit_cycle` finds one from a state near it).
    """

    searched: Found | None
    guessed: Found | None
    cycles: tuple[Cycle, ...]
    observed: tuple[np.ndarray, ...]
    distance: tuple[float, ...]
    orbit: xr.DataArray | None
    diverged: int | None
    cell: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    time_step: float
    time_unit: str
    flow: bool = False
    end: Cycle | None = None

    @property
    def fixed_points(self) -> tuple[Cycle, ...]:
        return tuple(cycle for cycle in self.cycles if cycle.period == 1)

    def table(self) -> pd.DataFrame:
        """A row a fixed point or cycle.

        Its kind, dimensions, rate per unit of time; a column a variable: where its first point lies, in the units of
        the data; margin, distance to the free run, eigenvalues and regions.
        """
        rows: list[dict[str, Any]] = []
        for cycle, points, distance in zip(self.cycles, self.observed, self.distance, strict=True):
            _, unstable, centre, stable = cycle.stability
            growth, turn = leading(cycle, self.time_step)
            rows.append(
                {
                    "period": cycle.period,
                    "kind": cycle.kind,
                    "unstable": unstable,
                    "centre": centre,
                    "stable": stable,
                    "rate": growth,
                    "turns_once_in": turn,
                    **dict(zip(self.names, points[0], strict=True)),
                    "distance_to_free_run": distance,
                    "margin": cycle.margin,
                    "border": cycle.border,
                    "eigenvalues": " ".join(f"{v.real:.10g}{v.imag:+.10g}j" for v in cycle.eigenvalues),
                    "regions": " ".join("".join("01"[int(b)] for b in bits) for bits in cycle.word),
                }
            )
        first = ["period", "kind", "unstable", "centre", "stable", "rate", "turns_once_in", *self.names]
        return pd.DataFrame(
            rows, columns=[*first, "distance_to_free_run", "margin", "border", "eigenvalues", "regions"]
        )


def leading(cycle: Cycle, time_step: float = 1.0) -> tuple[float, float]:
    """Rate `ln |lambda| / k` of the leading direction per unit of time, and the time of one turn (infinite: none).

    Leading is the unstable direction that grows slowest, or of a stable cycle the one that decays slowest: which orbits
    are seen to leave, or to come in by.
    """
    rates = cycle.rates
    unstable = rates > 0
    chosen = np.flatnonzero(unstable)[np.argmin(rates[unstable])] if unstable.any() else int(np.argmax(rates))
    value, turn = cycle.eigenvalues[chosen], np.inf
    if abs(value.imag) > 1e-9 * abs(value):
        turn = 2 * np.pi / abs(np.angle(value)) * cycle.period * time_step
    return float(rates[chosen] / time_step), float(turn)


def analyse(
    reconstruction: Any,
    *,
    longest: int = 3,
    steps: int = 10_000,
    discard: int = 1000,
    box: Any = None,
    limit: int = LIMIT,
    tries: int = 2000,
) -> Structure:
    """Take a reconstruction apart: the fixed points and cycles of its map, what they are, where they lie in the data.

    Periods are searched completely (`cycles`) as far as the number of words, `regions^k / k`, stays within `limit`; the
    longer ones, and cells with too many regions, by the heuristic (`find_cycles`, from a free run). Which was done is
    said by the certificates. A driven model is taken at the mean of its inputs, held.

    Of a map that steps through a flow, a cycle of few steps is rare: closed orbits of the flow are closed curves of the
    map, which come back to the same point only if their period is a whole number of steps.

    **Arguments:** `reconstruction`: its cell piecewise linear; `longest`: longest period, at least 1; `steps`,
    `discard`: of the free run it is compared with, from `anchor`; `box`: in the units of the latent state, as `cycles`
    takes it; `limit`, `tries`: as `cycles` and `find_cycles` take them.

    **Returns:** `Structure`. **Raises:** `ValueError` for a cell that is not piecewise linear, or a number out of
    range.
    """
    checked_period(longest)
    if not isinstance(reconstruction, Reconstruction):
        raise ValueError(
            "reconstruction must be a Reconstruction, as reconstruct and load give it: got "
            f"{type(reconstruction).__name__}. A cell by itself is taken apart by cycles, basins and others."
        )
    cell = reconstruction.cell
    if not isinstance(cell, AbstractPWLCell | AbstractPWLFlow):
        raise ValueError(
            f"the model's cell must be piecewise linear, to be solved in its regions: got {type(cell).__name__}. Fit "
            "an ALRNN, a ShallowPLRNN or another piecewise-linear cell."
        )
    names, flow = reconstruction.names, isinstance(cell, AbstractPWLFlow)
    zs, orbit, diverged = _free(reconstruction, steps, discard)
    searched = _resting(cell, box, limit) if isinstance(cell, AbstractPWLFlow) else _complete(cell, longest, box, limit)
    reached = 0 if searched is None else searched.certificate.longest
    guessed = None
    if reached < longest and not flow:
        starts = None if zs is None else zs[:: max(1, len(zs) // 4000)]
        guessed = find_cycles(cell, longest, starts=starts, tries=tries)
    more = () if guessed is None else tuple(c for c in guessed if c.period > reached)
    every = (*(searched or ()), *more)
    known = [c for c in every if c.kind.startswith("stable")]
    end = None if zs is None or flow or known else settled_cycle(pieces(cell), zs)
    every = every if end is None else (*every, end)
    observed = tuple(reconstruction.observe(jnp.asarray(c.points, _dtype(reconstruction))) for c in every)
    spread = np.asarray(reconstruction.scaler.std)[: len(names)]
    return Structure(
        searched, guessed, every, observed, tuple(_distance(x, orbit, spread) for x in observed), orbit, diverged,
        type(cell).__name__, names, reconstruction.units, reconstruction.clock.time_step, reconstruction.clock.unit,
        flow, end,
    )  # fmt: skip


def _dtype(reconstruction: Reconstruction) -> Any:
    return reconstruction.start().dtype


def _free(
    reconstruction: Reconstruction, steps: int, discard: int
) -> tuple[np.ndarray | None, xr.DataArray | None, int | None]:
    """States and observations of a free run, or the step at which it diverged."""
    inputs = None
    if reconstruction.input_scaler is not None:
        inputs = np.repeat(np.asarray(reconstruction.input_scaler.mean)[None], steps + discard, axis=0)
    run = reconstruction.free_run(steps, inputs=inputs, discard=discard, throw=False)
    zs = np.asarray(run.zs, np.float64)
    bad = ~np.isfinite(zs).all(1)
    if bad.any():
        return None, None, int(np.argmax(bad))
    values = reconstruction.observe(run.zs)[discard:]
    first = reconstruction.offset + discard + 1
    run_names, clock, units = reconstruction.names, reconstruction.clock, reconstruction.units
    return zs[discard:], labelled(values, run_names, clock, first=first, units=units), None


def _complete(cell: AbstractPWLCell, longest: int, box: Any, limit: int) -> Found | None:
    """The complete list up to the longest period whose words are within the limit; `None` where not even one is."""
    try:
        found = cycles(cell, 1, box=box, limit=limit)
    except OutOfReach:
        return None
    reached = 1
    while reached < longest and count(found.certificate.regions, reached + 1) <= limit:
        reached += 1
    return found if reached == 1 else cycles(cell, reached, box=box, limit=limit)


def _resting(cell: AbstractPWLFlow, box: Any, limit: int) -> Found:
    """The equilibria of a flow as fixed points of its step, whose eigenvalues are those of the flow over its length."""
    found = equilibria(cell, box=box, limit=limit)
    with jax.enable_x64(True):
        double = field_pieces(cell).cell
        jacobians = [np.asarray(double.linearise(jnp.asarray(e.point))[1]) for e in found]
    listed = [
        Cycle(e.point[None], e.region[None], eigenvalues_of(J), e.margin, e.border)
        for e, J in zip(found, jacobians, strict=True)
    ]
    return Found(tuple(listed), found.singular, found.certificate)


def _distance(points: np.ndarray, orbit: xr.DataArray | None, spread: np.ndarray) -> float:
    """How near a run comes to the first of some points, in standard deviations of the data."""
    if orbit is None:
        return float("nan")
    with np.errstate(over="ignore"):
        return float(np.sqrt((((orbit.values - points[0]) / spread) ** 2).mean(1).min()))
