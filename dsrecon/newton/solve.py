"""The iteration itself: windows, the Newton body, what is said of its end, and the adjoint. Written once."""

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact

from dsrecon._results import RESULTS, Trajectory
from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.evolve import first_nonfinite
from dsrecon.kernels.mapped import mapped
from dsrecon.kernels.shift import preceding
from dsrecon.newton.adjoint import adjoint
from dsrecon.newton.guess import AbstractGuess, first_guess
from dsrecon.newton.regions import changed_regions, is_piecewise_linear
from dsrecon.newton.windows import in_windows

if TYPE_CHECKING:
    from dsrecon.newton.solvers import AbstractParallel

TOLERANCE = {8: 1e-10, 4: 1e-5}
"""Relative and absolute, by the bytes of a real number. A residual in single precision rounds at some 1e-6."""


def check_arguments(max_iterations: int, rtol: float | None, atol: float | None, finish: str, guess: Any) -> None:
    """Of a solver that iterates. **Raises** `ValueError` for one out of its range."""
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1: got {max_iterations}.")
    if not (guess is None or isinstance(guess, AbstractGuess)):
        raise ValueError(
            f"guess must say how to begin, Held() or Targets() or the like: got {type(guess).__name__}. States are "
            "given to evolve(..., guess=zs)."
        )
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (isinstance(value, Real) and value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, or None for that of the precision: got {value}.")
    if finish not in ("report", "sequential"):
        raise ValueError(f'finish must be "report" or "sequential": got {finish!r}.')


def tolerance(given: float | None, dtype: Any) -> float:
    """What a solver was given, or that of the precision. **Raises** `ValueError` for half precision without one."""
    size = jnp.finfo(dtype).dtype.itemsize
    if given is None and size not in TOLERANCE:
        raise ValueError(f"rtol and atol must be given for {jnp.dtype(dtype)}: only single and double have their own.")
    return TOLERANCE[size] if given is None else given


def solved(
    solver: "AbstractParallel",
    cell: AbstractCell,
    z0: Inexact[Array, "*b m"],
    inputs: Inputs,
    steps: int | None,
    guess: Inexact[Array, "*b t m"] | None,
) -> Trajectory:
    """The run of a cell by a parallel solver: see `AbstractParallel`."""
    with jax.default_matmul_precision("highest"):
        zs, stats = _solved((cell, z0, inputs), solver, steps, guess)
    return ended(zs, stats, solver.finish)


def ended(zs: Inexact[Array, "*b t m"], stats: dict[str, Array], finish: str) -> Trajectory:
    """What was found, and how it ended: by `exact` of `stats`, unless it was finished by the loop."""
    stats = jax.tree.map(jax.lax.stop_gradient, stats)
    stats["first_nonfinite"] = first_nonfinite(zs)
    ending = jax.vmap(_ending) if zs.ndim == 3 else _ending
    exact, nonfinite = stats.pop("exact"), stats["first_nonfinite"]
    finished = exact if finish == "report" else jnp.ones_like(exact)
    loose = ~finished & (nonfinite >= stats["first_inexact"]) & (nonfinite > 0)  # the first follows from the start
    return Trajectory(zs, ending(finished, (nonfinite == zs.shape[-2]) | loose), stats)


def _ending(exact: Bool[Array, ""], finite: Bool[Array, ""]):
    good = RESULTS.where(exact, RESULTS.successful, RESULTS.not_converged)
    return RESULTS.where(finite, good, RESULTS.diverged)


@eqx.filter_custom_vjp
def _solved(primals: Any, solver: "AbstractParallel", steps: int | None, guess: Array | None):
    cell, z0, inputs = primals
    return in_windows(solver, cell, z0, inputs, steps, guess, iterate)


@_solved.def_fwd
def _solved_fwd(perturbed: Any, primals: Any, solver: "AbstractParallel", steps: int | None, guess: Array | None):
    out = _solved(primals, solver, steps, guess)
    return out, out[0]


@_solved.def_bwd
def _solved_bwd(zs: Array, out_bar: Any, perturbed: Any, primals: Any, solver: Any, steps: int | None, guess: Any):
    zs_bar = out_bar[0]
    zs_bar = jnp.zeros_like(zs) if zs_bar is None else zs_bar
    with jax.default_matmul_precision("highest"):
        cell, z0, inputs = primals
        return adjoint(cell, z0, inputs, zs, zs_bar, window=solver.window, engine=solver.engine)


def iterate(
    solver: "AbstractParallel",
    cell: AbstractCell,
    z0: Inexact[Array, "*b m"],
    inputs: Inputs,
    steps: int,
    guess: Inexact[Array, "*b t m"] | None,
) -> tuple[Inexact[Array, "*b t m"], dict[str, Array]]:
    """Newton's iteration on one run or a batch of them, all their steps at once.

    A turn of the loop moves the states and linearises along them, which tells how far they are from a run. Members of a
    batch that have converged stay in the iteration as long as others have not, and only become more exact.

    **Returns:** the states; the statistics `[*b]`, with `exact`: whether a run has converged.
    """
    each = jax.vmap if z0.ndim == 2 else lambda function: function
    rtol, atol = tolerance(solver.rtol, z0.dtype), tolerance(solver.atol, z0.dtype)
    pieces = solver.exact and is_piecewise_linear(cell)
    linear = each(lambda zs, s: mapped(solver.linearise, cell, zs, s, engine=solver.engine))
    changes = each(lambda old, new, s: changed_regions(cell, old, new, s, engine=solver.engine))
    real = jnp.finfo(z0.dtype).dtype

    def before(zs: Array) -> Array:
        return preceding(z0, zs)

    def linearised(zs: Array) -> tuple[tuple[Array, Array], dict[str, Array]]:
        """Slopes along the states, the defect `f(z_{t-1}) - z_t`, and what it says."""
        values, slopes = linear(before(zs), inputs)
        defect = values - zs
        wrong = jnp.max(jnp.abs(defect) / (atol + rtol * jnp.abs(values)), axis=-1)
        exact = jnp.all(wrong <= 1, axis=-1)
        return (slopes, defect), {
            "residual": jnp.max(wrong, axis=-1),
            "first_inexact": jnp.where(exact, steps, jnp.argmax(~(wrong <= 1), axis=-1)),
            "exact": exact,
        }

    def turn(carry):
        zs, made, facts, stats, w, count = carry
        slopes, defect = made
        moved = zs + each(solver.update)(slopes, defect, w)
        moved = jnp.where(jnp.isfinite(moved), moved, zs)
        stats = {"iterations": stats["iterations"] + jnp.where(facts["exact"], 0, 1)}
        if pieces:
            stats["region_changes"] = changes(before(zs), before(moved), inputs)
        made_there, facts_there = linearised(moved)
        if solver.first_damping is not None:
            better = facts_there["exact"] | (_merit(made_there[1]) < _merit(made[1]))
            chosen = (moved, made_there, facts_there), (zs, made, facts)
            moved, made_there, facts_there = jax.tree.map(lambda new, old: _where(better, new, old), *chosen)
            w = jnp.where(better, w / 10, 4 * w)
        return moved, made_there, facts_there, stats, w, count + 1

    def wanting(carry):
        _, _, facts, _, _, count = carry
        return ~jnp.all(facts["exact"]) & (count < solver.max_iterations)

    if guess is None:
        guess = each(lambda z0, s: first_guess(solver.guess, cell, z0, s, steps))(z0, inputs)
    guess = guess.astype(z0.dtype)
    counts = jnp.zeros(z0.shape[:-1], int)
    stats = {"iterations": counts} | ({"region_changes": counts} if pieces else {})
    w = jnp.full(z0.shape[:-1], solver.first_damping or 0.0, real)
    carry = (guess, *linearised(guess), stats, w, jnp.zeros((), int))
    zs, (slopes, _), facts, stats, _, _ = jax.lax.while_loop(wanting, turn, carry)
    return zs, facts | stats | {"expansion": jnp.max(each(_size)(slopes), axis=-1).astype(real)}


def _merit(defect: Inexact[Array, "*b t m"]) -> Inexact[Array, "*b"]:
    """`sum |F|^2` of each run; infinite where a part is not finite."""
    size = jnp.sum(jnp.abs(defect) ** 2, axis=(-2, -1))
    return jnp.where(jnp.isfinite(size), size, jnp.inf)


def _where(chosen: Bool[Array, "*b"], new: Array, old: Array) -> Array:
    """Run by run."""
    return jnp.where(chosen.reshape(*chosen.shape, *[1] * (new.ndim - chosen.ndim)), new, old)


def _size(slopes: Array) -> Inexact[Array, "t"]:
    """`sqrt(|a|_1 |a|_inf)` of every step: an upper bound of the spectral norm, exact for scalars and diagonals."""
    size = jnp.abs(slopes)
    if size.ndim <= 2:
        return jnp.max(size, axis=-1) if size.ndim == 2 else size
    rows, columns = jnp.sum(size, axis=1), jnp.sum(size, axis=2)
    lead = (len(size), -1)
    return jnp.sqrt(jnp.max(rows.reshape(lead), axis=1) * jnp.max(columns.reshape(lead), axis=1))
