"""A long run in windows that hand on their last state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell
from dsrecon.evolve import separate_units
from dsrecon.kernels.recurrence import recurrence

if TYPE_CHECKING:
    from dsrecon.newton.solvers import AbstractParallel


def in_windows(
    solver: "AbstractParallel",
    cell: AbstractCell,
    z0: Array,
    inputs: Inputs,
    steps: int | None,
    guess: Array | None,
    iterate: Callable[..., tuple[Array, dict[str, Array]]],
) -> tuple[Array, dict[str, Array]]:
    """`iterate` on each window of `solver.window` steps in turn, of one run or of a batch, finished where asked for.

    **Returns:** states `[*b, t, m]` and statistics `[*b]`: the worst of the windows.
    """
    batched = z0.ndim == 2
    length = steps if steps is not None else jax.tree.leaves(inputs)[0].shape[z0.ndim - 1]

    def window(z0, inputs, guess, steps):
        zs, stats = iterate(solver, cell, z0, inputs, steps, guess)
        if solver.finish == "sequential":
            zs = finished(cell, z0, inputs, zs, stats["first_inexact"])
        return zs, stats

    if solver.window is None or solver.window >= length:
        return window(z0, inputs, guess, length)

    count = length // solver.window
    whole = count * solver.window
    rows = (inputs, guess)

    def turn(z0, now):
        inputs, guess = now
        zs, stats = window(z0, inputs, guess, solver.window)
        return zs[..., -1, :], (zs, stats)

    last, (zs, stats) = jax.lax.scan(turn, z0, cut(rows, batched, count, solver.window), length=count)
    zs = joined(zs, batched)
    offsets = jnp.arange(count) * solver.window
    stats = {name: _worst(name, value, offsets, solver.window, whole) for name, value in stats.items()}
    if whole == length:
        return zs, stats
    inputs_left, guess_left = part(rows, batched, whole, length)
    rest, more = window(last, inputs_left, guess_left, length - whole)
    inexact = ~stats["exact"]
    more["first_inexact"] = whole + more["first_inexact"]
    both = {name: jnp.maximum(stats[name], more[name]) for name in stats if name not in ("exact", "first_inexact")}
    both["exact"] = stats["exact"] & more["exact"]
    both["first_inexact"] = jnp.where(inexact, stats["first_inexact"], more["first_inexact"])
    return jnp.concatenate([zs, rest], axis=-2), both


def _worst(name: str, value: Array, offsets: Array, window: int, steps: int) -> Array:
    """Of a statistic of all windows `[w, *b]`."""
    if name == "exact":
        return jnp.all(value, axis=0)
    if name != "first_inexact":
        return jnp.max(value, axis=0)
    offsets = offsets.reshape(-1, *[1] * (value.ndim - 1))
    return jnp.min(jnp.where(value < window, offsets + value, steps), axis=0)


def finished(cell: AbstractCell, z0: Array, inputs: Inputs, zs: Array, first: Array, *, engine: str = "auto") -> Array:
    """The runs that have an inexact state, the first at step `first`, made anew by the loop; the others as they are.

    Nothing is done where there is none. `engine`: that of the loop.
    """
    batched, steps = z0.ndim == 2, zs.shape[-2]

    def loop(zs: Array) -> Array:
        units = separate_units(cell, z0, inputs, engine)
        made = recurrence(cell, z0, inputs, steps=steps, engine=engine, units=units, batch_first=batched)
        return jnp.where((first < steps)[..., None, None], made, zs)

    return anew_where(jnp.any(first < steps), loop, zs)


def anew_where(needed: Bool[Array, ""], make: Callable[[Any], Any], found: Any) -> Any:
    """`make(found)` where that is needed, else `found`, a PyTree of the same shapes.

    A loop of at most one turn: under `jax.vmap` it is gone through where a member needs it, where both branches of
    `jax.lax.cond` always would be.
    """

    def turn(carry):
        return jnp.zeros((), bool), make(carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], turn, (needed, found))[1]


def cut(tree: Any, batched: bool, count: int, window: int) -> Any:
    """Leaves `[*b, t, ...]` as `[count, *b, window, ...]`, what is over left out."""

    def split(x):
        if not batched:
            return x[: count * window].reshape(count, window, *x.shape[1:])
        x = x[:, : count * window]
        return jnp.moveaxis(x.reshape(len(x), count, window, *x.shape[2:]), 1, 0)

    return jax.tree.map(split, tree)


def joined(x: Array, batched: bool) -> Array:
    """`cut` undone."""
    if not batched:
        return x.reshape(-1, *x.shape[2:])
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(len(x), -1, *x.shape[3:])


def part(tree: Any, batched: bool, begin: int, end: int) -> Any:
    """Steps `begin` to `end` of leaves `[*b, t, ...]`."""
    return jax.tree.map(lambda x: x[:, begin:end] if batched else x[begin:end], tree)
