"""A long run in windows that hand on their last state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell

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


def finished(cell: AbstractCell, z0: Array, inputs: Inputs, zs: Array, first: Array) -> Array:
    """The run with its states from `first` on made anew, step by step; nothing is done where none is."""
    batched = z0.ndim == 2
    advance = jax.vmap(cell) if batched else cell
    steps = zs.shape[-2]

    def step(z, now):
        t, kept, s = now
        keep = t < first
        z = jnp.where(keep[..., None], kept, advance(z, s))
        return z, z

    def loop(zs):
        rows = (zs, inputs)
        if batched:
            rows = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), rows)
        made = jax.lax.scan(step, z0, (jnp.arange(steps), *rows))[1]
        return jnp.moveaxis(made, 0, 1) if batched else made

    return jax.lax.cond(jnp.all(first >= steps), lambda zs: zs, loop, zs)


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
