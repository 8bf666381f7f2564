"""Stretches of a run at once, each from a guess of where it begins: multiple shooting."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._checks import counted
from dsrecon._results import Trajectory
from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.evolve import AbstractSolver, separate_units
from dsrecon.kernels.contraction import Within, contract
from dsrecon.kernels.platform import nvidia
from dsrecon.kernels.recurrence import ENGINES, costates_of_kernel, costates_of_loop, pulls, recurrence, serves
from dsrecon.kernels.shift import preceding
from dsrecon.newton.guess import AbstractGuess, first_guess
from dsrecon.newton.meeting import Front, apart
from dsrecon.newton.solve import check_arguments, ended, tolerance
from dsrecon.newton.windows import anew_where, finished, part

LEAST = 64
"""Steps of a block at least, where their number is not asked for."""

SHARE, WASHOUT = 16, 128
"""Steps of a block to one of a washout, and those of a washout at least, where a block has them. An error of single
precision dies out in 128 steps that forget a tenth each."""

PROGRAMS, LANES, MEMBERS = 2048, 32, 16
"""Loops that keep a GPU busy, a loop being a small state or so many units that do not meet; runs of a batch that a CPU
takes at once."""


class Shooting(AbstractSolver):
    """Stretches of a run at once, by the loop, each from a guess of the state it begins at.

    The run is cut into blocks of equal length. Where a block begins is found by running the cell over the last
    `washout` steps before it from a guess; then all blocks are run together, as one batch. If every block begins where
    the one before it ended, the pieces are the run. If not, the blocks are run again, each from where the one before
    it ended, until they meet. After `n` iterations the first `n` blocks are right in any case; where the cell forgets
    its start within a block all are right after the first or the second.

    So it serves what `Newton` serves, cells that contract (under teacher forcing, or by a fading memory), and needs no
    Jacobian: an iteration costs what the loop costs, `blocks` times as wide and a `blocks`-th as deep. Free-running
    chaos takes as many iterations as there are blocks, and says `not_converged` before that.

    It has converged when at every beginning of a block and every unit `|begun - ended| <= atol + rtol |ended|`, with
    `ended` the last state of the block before. Inside of blocks steps follow one another exactly. What is left open
    between blocks may add up along a cell that forgets slowly, and grows within a block where the cell expands. What is
    not finite meets what is the same, NaN or infinite of a sign; a run whose first wrong block begins so is left as it
    is after 8 such iterations (`diverged`, and `first_inexact` before its end). One unit that is far smaller than the
    others, and grows, is lost in an `atol` that is not of its size.

    Gradients (reverse mode) are those of the run. What goes back is a run too, of the costates, and is found the same
    way: blocks at once, from a washout behind each, again until they meet, however many times that takes (where they
    are not finite, 8). They meet to `rtol` times the largest costate between blocks, or the largest gradient by a state
    within a washout of an end of a block, whichever is larger (of each block, where some are not finite). They are
    right when the run has converged. The guess has no gradient, and neither have the statistics.

    **Arguments:**

    - `blocks`: how many, at most one a step; `None` lets the platform decide: enough of them to fill a GPU or the lanes
      of a CPU, none of fewer than 64 steps. Steps that are left over follow at the end.
    - `washout`: steps before a block over which a guess is run, at most a block; `None`: a sixteenth of a block, and at
      least 128.
    - `max_iterations`: times that the blocks are run, at least 1.
    - `rtol`, `atol`, `guess`, `finish`: as for `Newton`; but of a run whose blocks all end below 1, the `atol` that is
      not given is that times the largest of their ends, so that small states are told from nothing.
    - `engine`: how a block is run, as for `Sequential`.

    **Statistics** (`Trajectory.stats`), of each run of a batch:

    - `iterations`: times that its blocks were run until they met.
    - `residual`: the largest `|begun - ended| / (atol + rtol |ended|)`; at most 1 has converged.
    - `first_inexact`: the first step of the first block that does not begin where the one before it ended, `t` where
      there is none; of a finished run, where it was not converged.
    - `blocks`: how many.
    - `first_nonfinite`, `fused`: as `Sequential`'s.

    **Raises:** `ValueError` for an argument out of its range.

    References: Bellen & Zennaro 1989, *Parallel algorithms for initial-value problems for difference and differential
    equations*, J. Comput. Appl. Math. 25 (multiple shooting over a recurrence); Jaeger 2001, *The "echo state"
    approach to analysing and training recurrent neural networks*, GMD Report 148 (washout).
    """

    blocks: int | None = eqx.field(static=True, default=None)
    washout: int | None = eqx.field(static=True, default=None)
    max_iterations: int = eqx.field(static=True, default=100, kw_only=True)
    rtol: float | None = eqx.field(static=True, default=None, kw_only=True)
    atol: float | None = eqx.field(static=True, default=None, kw_only=True)
    guess: AbstractGuess | None = eqx.field(default=None, kw_only=True)
    finish: str = eqx.field(static=True, default="report", kw_only=True)
    engine: str = eqx.field(static=True, default="auto", kw_only=True)

    def __check_init__(self):
        check_arguments(self.max_iterations, self.rtol, self.atol, self.finish, self.guess)
        if self.blocks is not None:
            counted("blocks", self.blocks)
        if self.washout is not None:
            counted("washout", self.washout, 0)
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {ENGINES}: got {self.engine!r}.")

    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
        guess: Inexact[Array, "*b t m"] | None = None,
    ) -> Trajectory:
        many = z0.ndim == 2
        if not many:
            z0, inputs, guess = jax.tree.map(lambda x: x[None], (z0, inputs, guess))
        length = jax.tree.leaves(inputs)[0].shape[1] if steps is None else steps
        with jax.default_matmul_precision("highest"):
            plan = _plan(self, cell, z0, inputs, length)
            zs, stats = _shot((cell, z0, inputs), self, plan, guess)
        if not many:
            zs, stats = jax.tree.map(lambda x: x[0], (zs, stats))
        return ended(zs, stats, self.finish)


class _Plan(NamedTuple):
    """How a run of `steps` steps is cut: `blocks` of `length` steps and a rest, a `washout` before each block; whether
    a block is one kernel, how many units it has that do not meet, and whether the way back is one kernel too."""

    steps: int
    blocks: int
    length: int
    washout: int
    fused: bool
    units: int | None
    pulls: bool

    @property
    def whole(self) -> int:
        return self.blocks * self.length

    def cut(self, tree: Any) -> Any:
        """Leaves `[b, t, ...]` as `[b, blocks, length, ...]`, the rest left out."""
        return jax.tree.map(lambda x: x[:, : self.whole].reshape(len(x), self.blocks, self.length, *x.shape[2:]), tree)


def _plan(solver: Shooting, cell: AbstractCell, z0: Array, inputs: Inputs, steps: int) -> _Plan:
    units = separate_units(cell, z0, inputs, solver.engine)
    blocks = _liked(z0, steps, units) if solver.blocks is None else min(solver.blocks, steps)
    blocks = blocks if len(z0) else 1
    length, washout = cut_up(steps, blocks, solver.washout)
    fused = serves(cell, z0, inputs, engine=solver.engine, units=units)
    back = fused and units is not None and pulls(cell, z0, inputs, units, rows=len(z0) * blocks)
    return _Plan(steps, blocks, length, washout, fused, units, back)


def cut_up(steps: int, blocks: int, washout: int | None = None) -> tuple[int, int]:
    """Steps of a block, and of the washout before it."""
    length = steps // blocks
    return length, min(max(length // SHARE, WASHOUT) if washout is None else washout, length)


def _liked(z0: Array, steps: int, units: int | None) -> int:
    """How many blocks the platform likes; of those near to that a number that leaves no steps over, if there is one."""
    loops = 1 if units is None else -(-units // LANES)
    runs = max(len(z0), 1)
    most = PROGRAMS // (runs * loops) if nvidia() else MEMBERS // runs
    most = max(1, min(most, steps // LEAST))
    return even(steps, most)


def even(steps: int, blocks: int) -> int:
    """Of the numbers from half of `blocks` to `blocks` the largest that leaves no steps over, if there is one."""
    return next((n for n in range(blocks, blocks // 2, -1) if steps % n == 0), blocks)


def scale_of(states: Array) -> Array:
    """The largest of finite states of each run, at most 1, and 1 of a run at rest in 0: `[b, 1, 1]`."""
    size = jnp.abs(states)
    size = jnp.max(jnp.where(jnp.isfinite(size), size, 0), axis=(1, 2), keepdims=True)
    return jnp.where(size > 0, jnp.minimum(size, 1), 1)


@eqx.filter_custom_vjp
def _shot(primals: Any, solver: Shooting, plan: _Plan, guess: Array | None) -> tuple[Array, dict[str, Array]]:
    """States `[b, t, m]` and what is said of them `[b]`, with `exact`: whether the blocks meet."""
    cell, z0, inputs = primals
    rtol, least = tolerance(solver.rtol, z0.dtype), tolerance(solver.atol, z0.dtype)
    size, along = len(z0), plan.cut(inputs)

    def run(starts: Array, inputs: Inputs, steps: int) -> Array:
        """Runs `[b, k, steps, m]` from `starts` `[b, k, m]` along leaves `[b, k, steps, ...]`."""
        count = starts.shape[1]
        starts, inputs = jax.tree.map(lambda x: x.reshape(size * count, *x.shape[2:]), (starts, inputs))
        zs = recurrence(cell, starts, inputs, steps=steps, engine=solver.engine, units=plan.units, batch_first=True)
        return zs.reshape(size, count, *zs.shape[1:])

    def following(zs: Array) -> Array:
        """Where every block ought to begin: where the run does, and where the blocks before have ended."""
        return jnp.concatenate([z0[:, None], zs[:, :-1, -1]], axis=1)

    def made(starts: Array) -> tuple[Array, Array]:
        """The blocks from `starts`, and how far they are from meeting, in tolerances, `[b, blocks]`."""
        zs = run(starts, along, plan.length)
        wanted = following(zs)
        atol = least * (scale_of(wanted) if solver.atol is None else 1)
        return zs, apart(starts, wanted, atol + rtol * jnp.abs(wanted))

    def turn(carry):
        (zs, wrong), front, taken, times = carry
        wanted = following(zs)
        starts, onward = front.onward(wanted, wrong, at_first)
        return made(starts), onward, taken + jnp.where(front.again(wanted, wrong), 1, 0), times + 1

    def wanting(carry):
        (zs, wrong), front, _, times = carry
        return jnp.any(front.again(following(zs), wrong)) & (times < solver.max_iterations)

    def usable(states: Array) -> Array:
        return jnp.where(jnp.isfinite(states), states, z0[:, None])

    at_first = z0[:, None]
    if plan.blocks > 1:
        if guess is None:
            guess = jax.vmap(lambda z0, s: first_guess(solver.guess, cell, z0, s, plan.steps))(z0, inputs)
        before = plan.cut(preceding(z0, guess.astype(z0.dtype)))
        if plan.washout:
            last = jax.tree.map(lambda x: x[:, :-1, plan.length - plan.washout :], along)
            warmed = run(usable(before[:, :-1, plan.length - plan.washout]), last, plan.washout)[:, :, -1]
        else:
            warmed = usable(before[:, 1:, 0])
        at_first = jnp.concatenate([at_first, warmed], axis=1)
    begun = made(at_first), Front.of(size), jnp.ones(size, int), jnp.ones((), int)
    (zs, wrong), _, taken, _ = jax.lax.while_loop(wanting, turn, begun)
    good = wrong <= 1
    exact = jnp.all(good, axis=-1)
    stats = {
        "iterations": taken,
        "residual": jnp.max(wrong, axis=-1),
        "first_inexact": jnp.where(exact, plan.steps, jnp.argmin(good, axis=-1) * plan.length),
        "exact": exact,
        "blocks": jnp.full(size, plan.blocks),
        "fused": jnp.full(size, plan.fused),
    }
    zs = zs.reshape(size, plan.whole, zs.shape[-1])
    if plan.whole < plan.steps:
        left = jax.tree.map(lambda x: x[:, None, plan.whole :], inputs)
        rest = run(zs[:, -1:], left, plan.steps - plan.whole)
        zs = jnp.concatenate([zs, rest[:, 0]], axis=1)
    if solver.finish == "sequential":
        zs = finished(cell, z0, inputs, zs, stats["first_inexact"], engine=solver.engine)
    return zs, stats


@_shot.def_fwd
def _shot_fwd(perturbed: Any, primals: Any, solver: Shooting, plan: _Plan, guess: Any):
    out = _shot(primals, solver, plan, guess)
    return out, out[0]


@_shot.def_bwd
def _shot_bwd(zs: Array, out_bar: Any, perturbed: Any, primals: Any, solver: Shooting, plan: _Plan, guess: Any):
    zs_bar = jnp.zeros_like(zs) if out_bar[0] is None else out_bar[0]
    cell, z0, inputs = primals
    rows = (zs if plan.pulls else preceding(z0, zs), inputs, zs_bar)
    with jax.default_matmul_precision("highest"):
        scanned = plan.fused and plan.units is not None and not plan.pulls
        if plan.blocks == 1 or scanned:  # a scan finds the costates of all steps at once
            return _pulled(solver, plan, cell, z0, *rows)
        if plan.whole == plan.steps:
            return _pulled_in_blocks(solver, plan, cell, z0, *rows)
        middle, rest = zs[:, plan.whole - 1], part(rows, True, plan.whole, plan.steps)
        rest_bar, arriving, rest_inputs_bar = _pulled(solver, plan, cell, middle, *rest)
        rows = (*rows[:2], zs_bar.at[:, plan.whole - 1].add(arriving))
        cell_bar, z0_bar, inputs_bar = _pulled_in_blocks(solver, plan, cell, z0, *part(rows, True, 0, plan.whole))
        inputs_bar = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), inputs_bar, rest_inputs_bar)
        return jax.tree.map(jnp.add, cell_bar, rest_bar), z0_bar, inputs_bar


class _Backwards(NamedTuple):
    """What goes back through runs: what entered every map of a step, the gradients by what each gave, and by the states
    before the first step `[r, m]`. With `plan.pulls` only the last of these is set, and `told`: what the kernel that
    makes the whole way tells."""

    entered: list[Array]
    arriving: list[Array]
    first: Array
    told: Any = None


def _back(
    solver: Shooting,
    plan: _Plan,
    cell: AbstractCell,
    z0: Array,
    states: Array,
    inputs: Any,
    zs_bar: Array,
    ends: Array | None,
) -> _Backwards:
    """Of runs as they lie (`_lie`), from `z0` `[r, m]`.

    `states`: before every step, but after it where the way back is one kernel; `ends` `[r, m]`: what arrives at the
    last steps from behind them.
    """
    if plan.pulls:
        from dsrecon.kernels.accelerated.pull import pull

        assert plan.units is not None
        interpret = solver.engine == "interpreted"
        first, told = pull(cell, z0, states, inputs, zs_bar, ends, units=plan.units, interpret=interpret)
        return _Backwards([], [], first, told)
    if ends is not None:
        zs_bar = zs_bar.at[(slice(None), -1) if plan.fused else (-1,)].add(ends)
    if not plan.fused:
        return _Backwards(*costates_of_loop(cell, states, inputs, zs_bar))
    ls, first = costates_of_kernel(cell, states, inputs, zs_bar, units=plan.units, engine=_kernel(solver))
    return _Backwards([states], [ls], first)


def _lie(plan: _Plan, tree: Any) -> Any:
    """Leaves `[r, t, ...]` the way the loop wants them, `[t, r, ...]`, or the kernel, as they are; and back."""
    return tree if plan.fused else jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), tree)


def _gathered(solver: Shooting, plan: _Plan, cell: AbstractCell, inputs: Any, back: _Backwards) -> tuple[Any, Any]:
    """Gradients by the cell, and by the inputs `[r, t, ...]`, of what goes back through runs as they lie."""
    if plan.pulls:
        from dsrecon.kernels.accelerated.pull import through

        assert plan.units is not None
        return through(cell, back.first, inputs, back.told, units=plan.units)
    within = tuple(map(Within, back.entered[1:], back.arriving[:-1]))
    engine = _kernel(solver) if plan.fused else "loop"
    cell_bar, bar = contract(cell, back.entered[0], inputs, back.arriving[-1], engine=engine, within=within)
    return cell_bar, _lie(plan, bar)


def _pulled(solver: Shooting, plan: _Plan, cell: AbstractCell, z0: Array, states: Array, inputs: Any, zs_bar: Array):
    """Gradients of runs from `z0` by the cell, their starts and their inputs, all of a run in one go.

    `states` `[b, t, m]`: as of `_back`.
    """
    states, inputs, zs_bar = _lie(plan, (states, inputs, zs_bar))
    back = _back(solver, plan, cell, z0, states, inputs, zs_bar, None)
    cell_bar, inputs_bar = _gathered(solver, plan, cell, inputs, back)
    return cell_bar, back.first, inputs_bar


def _pulled_in_blocks(
    solver: Shooting, plan: _Plan, cell: AbstractCell, z0: Array, states: Array, inputs: Any, zs_bar: Array
):
    """The same, blocks at once: a block begins, at its end, with what leaves the block behind it."""
    size, units = len(states), states.shape[-1]
    rtol = tolerance(solver.rtol, states.dtype)
    most = plan.blocks if solver.finish == "report" else min(solver.max_iterations, plan.blocks)

    def flat(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

    def largest(x: Array) -> Array:
        """Of what is finite in a block: `[b, blocks, 1]`."""
        size = jnp.abs(x).reshape(*x.shape[:2], -1)
        return jnp.max(jnp.where(jnp.isfinite(size), size, 0), axis=2, keepdims=True)

    def leaving(back: _Backwards) -> Array:
        """What arrives at the end of every block `[b, blocks, m]`."""
        first = back.first.reshape(size, -1, units)
        return jnp.concatenate([first[:, 1 - plan.blocks :], jnp.zeros_like(first[:, :1])], axis=1)

    blocks = plan.cut((states, inputs, zs_bar))
    starts = jnp.concatenate([z0[:, None], blocks[0][:, :-1, -1]], axis=1)  # where blocks begin, of states after steps
    along, driven, g = _lie(plan, flat(blocks))

    def made(ends: Array) -> tuple[_Backwards, Array]:
        """What goes back where `ends` arrives, and how far the blocks are from meeting, in tolerances."""
        back = _back(solver, plan, cell, flat(starts), along, driven, g, flat(ends))
        wanted = leaving(back)
        scale = jnp.maximum(beside, largest(wanted))
        finite = jnp.all(jnp.isfinite(wanted), axis=(1, 2), keepdims=True)
        scale = jnp.where(finite, jnp.max(scale, axis=1, keepdims=True), scale)  # else a trial that diverges decides
        return back, apart(ends, wanted, rtol * jnp.where(scale > 0, scale, 1))

    def turned(back: _Backwards, wrong: Array) -> tuple[Array, Array]:
        """Blocks from the last to the first, as they are found: where they ought to begin, and how far they are."""
        return leaving(back)[:, ::-1], wrong[:, ::-1]

    def turn(carry):
        (back, wrong), front, times = carry
        later, front = front.onward(*turned(back, wrong), ends[:, ::-1])
        return made(later[:, ::-1]), front, times + 1

    def wanting(carry):
        (back, wrong), front, times = carry
        return jnp.any(front.again(*turned(back, wrong))) & (times < most)

    ends = jnp.zeros((size, plan.blocks, units), states.dtype)
    if plan.washout:
        behind = jax.tree.map(lambda x: x[:, 1:, : plan.washout], blocks)
        near = blocks[2][:, :, : plan.washout], blocks[2][:, :, plan.length - plan.washout :]
        beside = jnp.maximum(*map(largest, near))
        last = _lie(plan, flat(behind))
        ends = leaving(_back(solver, plan, cell, flat(starts[:, 1:]), last[0], last[1], last[2], None))
    else:
        beside = largest(blocks[2])
    begun = made(ends), Front.of(size), jnp.ones((), int)
    (back, wrong), _, _ = jax.lax.while_loop(wanting, turn, begun)
    cell_bar, inputs_bar = _gathered(solver, plan, cell, driven, back)
    z0_bar = back.first.reshape(size, plan.blocks, units)[:, 0]
    found = cell_bar, z0_bar, jax.tree.map(lambda x: x.reshape(size, plan.whole, *x.shape[2:]), inputs_bar)
    if most == plan.blocks:
        return found
    return anew_where(jnp.any(wrong > 1), lambda _: _pulled(solver, plan, cell, z0, states, inputs, zs_bar), found)


def _kernel(solver: Shooting) -> str:
    """The engine of what goes with the kernel of a block."""
    return "interpreted" if solver.engine == "interpreted" else "auto"
