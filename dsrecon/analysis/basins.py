"""Which initial states end where: basins of attraction, on a slice of the states or of any list of them."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Int

from dsrecon._checks import counted
from dsrecon._types import Inputs
from dsrecon.analysis.capture import Capture, capture, checked_cycles
from dsrecon.analysis.found import Cycle
from dsrecon.cell import AbstractPWLCell
from dsrecon.pwl import Pieces, pieces

ELSEWHERE, DIVERGED = -1, -2
"""Labels of starts that no listed cycle has captured: their orbits stayed bounded, or went beyond `escape`."""

CHUNK = 1 << 15
"""Starts that are run in one call."""

FAR = 1e6
"""`escape` where none is given, in sizes of what is looked at."""


def basins(
    cell: Any,
    cycles: Any,
    *,
    extent: Any,
    plane: Any = None,
    shape: Any = (200, 200),
    s: Inputs = None,
    steps: int = 1000,
    escape: float | None = None,
) -> xr.Dataset:
    """Where orbits end that begin on a plane of states: `z = origin + a across + b up`.

    Every state of a grid is run until it enters a neighbourhood of a stable cycle from which all orbits converge to
    it: an ellipsoid that the map takes into itself. So the label of a cycle is certain, up to the rounding of the run.
    What is beyond `escape` is called diverged, and what is neither after `steps` bounded elsewhere: on another
    attractor, as chaos is, or slow.

    **Arguments:**

    - `cell`: an `AbstractPWLCell`, run in its own precision; `s`: its input, held.
    - `cycles`: what `cycles` or `fixed_points` found, or a sequence of `Cycle`; the stable ones among them capture.
    - `plane`: `(origin, across, up)`, `[m]` each; a cell of two units may leave it out: its own axes.
    - `extent`: `(left, right, bottom, top)`: the range of `a` and of `b`; `shape`: `(up, across)`, points each way.
    - `steps`: the longest run; `escape`: size of a unit from which a state has diverged, by default a million times the
      largest of the grid and the cycles. That nothing comes back from there is taken for granted.

    **Returns:** `Dataset(up, across)`: `label`, the index of the cycle, -1 bounded elsewhere, -2 diverged; `step`,
    when that was seen (`steps` for -1); `count(attractor)`, `share(attractor)` of the starts, with their
    `name(attractor)`; `point(cycle_point, unit)`, those of the stable cycles, and `point_label`; `origin(unit)`,
    `direction(axis, unit)`; attributes `steps`, `escape`, and `own_axes`, 1 where no plane was given.

    **Raises:** `ValueError` for a cell that is not piecewise linear, an extent that is unbounded or empty, directions
    that are parallel, a plane that is missing, and cycles as `capture`.
    """
    found, listed = _prepared(cell, cycles, s)
    origin, directions = _plane(plane, found.state_size)
    left, right, bottom, top = _extent(extent)
    rows, columns = _shape(shape)
    up, across = np.linspace(bottom, top, rows), np.linspace(left, right, columns)
    b, a = np.meshgrid(up, across, indexing="ij")
    starts = origin + a.reshape(-1, 1) * directions[0] + b.reshape(-1, 1) * directions[1]
    ended = _ended(cell, found, listed, starts, s, steps, escape)
    data = {
        "label": (("up", "across"), ended.label.reshape(rows, columns)),
        "step": (("up", "across"), ended.step.reshape(rows, columns)),
        "origin": ("unit", origin),
        "direction": (("axis", "unit"), directions),
    }
    made = _shares(data, {"up": up, "across": across, "axis": ["across", "up"]}, ended, listed)
    return made.assign_attrs(own_axes=int(plane is None))


def attractors(
    cell: Any, cycles: Any, starts: Any, *, s: Inputs = None, steps: int = 1000, escape: float | None = None
) -> xr.Dataset:
    """Where orbits end that begin at given states: how many at which stable cycle, and how many elsewhere.

    **Arguments:** `starts` `[n, m]`; the others as `basins`.

    **Returns:** `Dataset`: `label(start)`, `step(start)`, `end(start, unit)`: the last state of each run; `count`,
    `share`, `name` and `point` as `basins`.

    **Raises:** `ValueError` for starts that are not finite, `[n, m]`, and as `basins`.
    """
    found, listed = _prepared(cell, cycles, s)
    z = np.asarray(starts, np.float64)
    if z.ndim != 2 or z.shape[1] != found.state_size or not len(z) or not np.isfinite(z).all():
        raise ValueError(f"starts must be finite, [n, {found.state_size}], at least one: got shape {list(z.shape)}.")
    ended = _ended(cell, found, listed, z, s, steps, escape)
    data = {
        "label": ("start", ended.label),
        "step": ("start", ended.step),
        "end": (("start", "unit"), ended.end),
    }
    return _shares(data, {}, ended, listed)


class _Ended(NamedTuple):
    label: np.ndarray
    step: np.ndarray
    end: np.ndarray
    capture: Capture
    steps: int
    escape: float


def _prepared(cell: Any, cycles: Any, s: Inputs) -> tuple[Pieces, tuple[Cycle, ...]]:
    return pieces(cell, s), checked_cycles(cycles)


def _plane(plane: Any, m: int) -> tuple[np.ndarray, np.ndarray]:
    if plane is None:
        if m != 2:
            raise ValueError(f"plane must be given, (origin, across, up), [{m}] each: the cell has {m} units, not 2.")
        return np.zeros(2), np.eye(2)
    try:
        origin, across, up = (np.asarray(side, np.float64) for side in plane)
    except (TypeError, ValueError) as error:
        raise ValueError(f"plane must be (origin, across, up), [{m}] each: got {plane!r:.80}.") from error
    for name, side in (("origin", origin), ("across", across), ("up", up)):
        if side.shape != (m,) or not np.isfinite(side).all():
            raise ValueError(f"plane must be (origin, across, up), {m} finite numbers each: {name} is {side}.")
    directions = np.stack([across, up])
    value = np.linalg.svd(directions, compute_uv=False)
    if len(value) < 2 or value[1] <= 1e-9 * value[0]:
        raise ValueError("plane must have two directions: across and up are parallel, or one is zero.")
    return origin, directions


def _extent(extent: Any) -> tuple[float, float, float, float]:
    sides = np.asarray(extent, np.float64)
    if sides.shape != (4,) or not np.isfinite(sides).all():
        raise ValueError(f"extent must be four finite numbers, (left, right, bottom, top): got {extent!r}.")
    left, right, bottom, top = (float(x) for x in sides)
    if not (left < right and bottom < top):
        raise ValueError(f"extent must have left below right and bottom below top: got {extent!r}.")
    return left, right, bottom, top


def _shape(shape: Any) -> tuple[int, int]:
    if len(shape) != 2 or not all(isinstance(n, int | np.integer) and n >= 2 for n in shape):
        raise ValueError(f"shape must be two whole numbers (up, across), from 2 on: got {shape!r}.")
    return int(shape[0]), int(shape[1])


def _ended(
    cell: AbstractPWLCell,
    found: Pieces,
    listed: tuple[Cycle, ...],
    starts: np.ndarray,
    s: Inputs,
    steps: int,
    escape: float | None,
) -> _Ended:
    """All starts run, in chunks of one length, so that one program is compiled."""
    counted("steps", steps)
    trap = capture(found, listed)
    largest = max(float(np.abs(starts).max()), float(np.abs(trap.centres).max(initial=0.0)))
    far = FAR * (largest or 1.0) if escape is None else float(escape)
    if not (np.isfinite(far) and far > largest):
        raise ValueError(
            f"escape must be finite and above all starts and stable cycles, {largest:.6g}: got {escape!r}."
        )
    dtype = _precision(cell)
    centres, roots, bound = (jnp.asarray(x, dtype) for x in (trap.centres, trap.roots, far))
    size = min(CHUNK, len(starts))
    label, step, end = np.empty(len(starts), np.int32), np.empty(len(starts), np.int32), np.empty_like(starts)
    for first in range(0, len(starts), size):
        part = starts[first : first + size]
        z = jnp.asarray(np.resize(part, (size, part.shape[1])), dtype)
        out = _run(cell, s, z, centres, roots, jnp.asarray(trap.owner), jnp.asarray(steps, jnp.int32), bound)
        for whole, chunk in zip((label, step, end), out, strict=True):
            whole[first : first + size] = np.asarray(chunk)[: len(part)]
    return _Ended(label, step, end, trap, int(steps), far)


def _precision(cell: AbstractPWLCell) -> Any:
    """That of the parameters, or of JAX where they are plain numbers."""
    types = {x.dtype for x in jax.tree.leaves(cell) if eqx.is_inexact_array(x)}
    return jnp.result_type(float) if not types else jnp.result_type(*types)


@eqx.filter_jit
def _run(
    cell: AbstractPWLCell,
    s: Inputs,
    starts: Array,
    centres: Array,
    roots: Array,
    owner: Int[Array, "c"],
    steps: Array,
    escape: Array,
) -> tuple[Array, Array, Array]:
    """`label`, `step` `[n]` and last state `[n, m]` of `starts` `[n, m]`; what is decided stands still."""
    undecided = jnp.asarray(ELSEWHERE, jnp.int32)
    advance = jax.vmap(lambda z: cell(z, s))

    def judged(z):
        near = jnp.max(jnp.abs(z), axis=1) <= escape  # not where it is NaN
        label = jnp.where(near, undecided, jnp.asarray(DIVERGED, jnp.int32))
        if not len(owner):
            return label
        x = jnp.einsum("cij,ncj->nci", roots, z[:, None] - centres[None])
        inside = jnp.sum(x * x, axis=-1) <= 1
        return jnp.where(near & jnp.any(inside, axis=1), owner[jnp.argmax(inside, axis=1)], label)

    def going(carry):
        t, _, label, _ = carry
        return (t < steps) & jnp.any(label == undecided)

    def step(carry):
        t, z, label, when = carry
        open_ = label == undecided
        z = jnp.where(open_[:, None], advance(z), z)
        label = jnp.where(open_, judged(z), label)
        return t + 1, z, label, jnp.where(open_, t + 1, when)

    zero = jnp.zeros((), jnp.int32)
    start = (zero, starts, judged(starts), jnp.zeros(len(starts), jnp.int32))
    _, end, label, when = jax.lax.while_loop(going, step, start)
    return label, when, end


def _shares(data: dict, coords: dict, ended: _Ended, listed: tuple[Cycle, ...]) -> xr.Dataset:
    stable = [int(i) for i in dict.fromkeys(ended.capture.owner)]
    labels = [*stable, ELSEWHERE, DIVERGED]
    names = [named(listed[i]) for i in stable] + ["bounded elsewhere", "diverged"]
    count = np.array([np.count_nonzero(ended.label == k) for k in labels])
    data |= {
        "count": ("attractor", count),
        "share": ("attractor", count / len(ended.label.ravel())),
        "point": (("cycle_point", "unit"), ended.capture.centres),
    }
    coords |= {
        "attractor": labels,
        "name": ("attractor", names),
        "point_label": ("cycle_point", ended.capture.owner),
    }
    return xr.Dataset(data, coords, {"steps": ended.steps, "escape": ended.escape})


def named(cycle: Cycle) -> str:
    """What a cycle is, in words: "stable focus", "cycle of 3: saddle"."""
    return cycle.kind if cycle.period == 1 else f"cycle of {cycle.period}: {cycle.kind}"
