"""The solver that is predicted to be the fastest."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._results import Trajectory
from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.evolve import AbstractSolver, Sequential
from dsrecon.newton.costs import MEASURED, Outline, outlined
from dsrecon.newton.guess import AbstractGuess
from dsrecon.newton.shooting import LEAST, Shooting, even
from dsrecon.newton.solve import TOLERANCE, check_arguments

MARGIN = 1.25
"""Times that blocks must be predicted to be faster than the loop, which is exact and certain."""

ROWS = 64
"""Runs that a CPU takes at once, at most: more were not measured."""


class Choice(NamedTuple):
    """`blocks` at once (1: the loop), `times` that they are run at most, and how many times faster than the loop they
    are predicted to be. Blocks that are run as often as there are blocks have met."""

    blocks: int
    times: int
    gain: float


LOOP = Choice(1, 1, 1.0)


class Auto(AbstractSolver):
    """The loop, or blocks at once: whichever a model of measured times predicts to be the faster.

    Blocks (`Shooting`) pay where the sequence is long and the machine has room: the batch does not fill it, and a step
    is not so large that it does so alone. The model knows, for one kernel, for XLA's loops on an accelerator and for
    those on a CPU, what a step of a batch takes by the products, sums and functions that it is made of, and what a run
    takes as such. From shapes and platform it says for every number of blocks what value and gradient would take if
    the blocks met at once; the fastest is taken, the loop unless blocks are at least 1.25 times faster.

    Whether a cell forgets where it began no shape tells. Blocks that do not meet are run again until they do (once a
    block at the most), if that takes no more than twice the time of the loop, by the model; else for the time of the
    loop, after which the loop makes the run, and its gradient too. So the result is that of `Sequential`, or its blocks
    meet to the tolerances, and it never takes much more than twice the time. Newton's iteration is not among the
    choices: nowhere in what was measured was it faster than blocks.

    A `jax.vmap` around the run is not seen: give the batch to `evolve`. Half precision is run by the loop, unless both
    tolerances are given. Blocks run the cell from guessed states too: a print or a check inside of it sees those.

    **Arguments:** `rtol`, `atol`, `guess`: as for `Shooting`. A guess, that of `evolve` too, serves blocks alone.

    **Statistics** (`Trajectory.stats`), of each run of a batch: those of `Shooting`, where `blocks` says which it was
    (1: the loop, step by step) and `iterations` how often they were run; `first_inexact` below `t` says that the loop
    had to finish. And `gain`: how many times faster than the loop it was predicted to be.

    **Raises:** `ValueError` for a tolerance that is not positive.
    """

    rtol: float | None = eqx.field(static=True, default=None, kw_only=True)
    atol: float | None = eqx.field(static=True, default=None, kw_only=True)
    guess: AbstractGuess | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_arguments(1, self.rtol, self.atol, "report", self.guess)

    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
        guess: Inexact[Array, "*b t m"] | None = None,
    ) -> Trajectory:
        many = z0.ndim == 2
        rows = z0 if many else z0[None]
        given = inputs if many else jax.tree.map(lambda x: x[None], inputs)
        length = jax.tree.leaves(given)[0].shape[1] if steps is None else steps
        choice = LOOP
        if rows.size and (jnp.finfo(z0.dtype).dtype.itemsize in TOLERANCE or None not in (self.rtol, self.atol)):
            choice = chosen(outlined(cell, rows, given), len(rows), length)
        real = jnp.finfo(z0.dtype).dtype
        if choice.blocks == 1:
            run = Sequential().solve(cell, z0, inputs, length)
            ones = jnp.ones(z0.shape[:-1], int)
            stats = {
                "iterations": ones,
                "blocks": ones,
                "first_inexact": length * ones,
                "residual": jnp.zeros(ones.shape, real),
            }
            run = Trajectory(run.zs, run.result, run.stats | stats)
        else:
            solver = Shooting(
                choice.blocks, max_iterations=choice.times, rtol=self.rtol, atol=self.atol, guess=self.guess,
                finish="sequential",
            )  # fmt: skip
            run = solver.solve(cell, z0, inputs, length, guess)
        gain = jnp.full(z0.shape[:-1], choice.gain, real)
        return Trajectory(run.zs, run.result, run.stats | {"gain": gain})


def chosen(outline: Outline, rows: int, steps: int) -> Choice:
    """What is predicted to be the fastest for a batch of `rows` runs."""
    cost = MEASURED[outline.path]
    most = steps // LEAST
    if outline.path in ("cpu", "beside"):
        most = min(most, ROWS // rows)
    found = {1: cost.of_run(outline, rows, steps, 1)}
    while most > 1:
        blocks = even(steps, most)
        found[blocks] = cost.of_run(outline, rows, steps, blocks)
        most //= 2
    loop, best = found[1], min(found, key=lambda n: found[n])
    if loop < MARGIN * found[best] or best == 1:
        return LOOP
    once = steps // best * cost.of_step(outline, rows * best)
    times = best if best * once <= 2 * loop else max(int(loop / once), 1)
    return Choice(best, times, loop / found[best])
