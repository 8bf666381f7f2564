"""What is compiled: many updates of one run, or of many runs at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from dsrecon._types import Key, Keys
from dsrecon.training.losses import Loss


class Run(NamedTuple):
    """All that one update takes in and gives back, for one run; stacked, for a group of them."""

    free: PyTree
    opt_state: PyTree
    loss_state: PyTree
    key: Keys
    update: Array
    failed_at: Array


class Recipe(NamedTuple):
    """What an update is made of; `static` is all of the model that is no array."""

    static: PyTree
    loss: Loss
    sampler: Callable[[Key], Any]
    optimiser: optax.GradientTransformation


def compiled(length: int, example: tuple[Run, PyTree], recipe: Recipe) -> Callable[[Run, PyTree], tuple[Run, Array]]:
    """`length` updates of a group of runs as one executable: `(run, fixed) -> (run, losses [r, length])`."""
    dynamic, fixed_sampler = eqx.partition(recipe.sampler, eqx.is_array)
    member = _member(length, recipe, fixed_sampler)

    def program(run, fixed, dynamic):
        if len(run.key) > 1:
            return jax.vmap(member, in_axes=(0, 0, None))(run, fixed, dynamic)
        # A batch axis of one would send the small products of a CPU to a slower library.
        run, fixed = jax.tree.map(lambda x: x[0], (run, fixed))
        out = member(run, fixed, dynamic)
        return jax.tree.map(lambda x: x[None], out)

    executable = jax.jit(program).lower(*example, dynamic).compile()
    return lambda run, fixed: executable(run, fixed, dynamic)


def text(example: tuple[Run, PyTree], recipe: Recipe) -> str:
    """One update of one run as StableHLO: loss, sampler and optimiser with the constants in them.

    The same in every process, and however the runs of `example` are grouped; it is traced, not compiled.
    """
    dynamic, fixed_sampler = eqx.partition(recipe.sampler, eqx.is_array)
    one = jax.eval_shape(lambda stacked: jax.tree.map(lambda x: x[0], stacked), example)
    return jax.jit(_member(1, recipe, fixed_sampler)).lower(*one, dynamic).as_text()


def _member(length: int, recipe: Recipe, fixed_sampler: Any) -> Callable[[Run, PyTree, PyTree], tuple[Run, Array]]:
    """`length` updates of one run, to be traced."""
    static, loss, _, optimiser = recipe

    def member(run: Run, fixed: PyTree, dynamic: PyTree):
        sampler = eqx.combine(dynamic, fixed_sampler)

        def update(run: Run, _):
            batch_key, loss_key = jax.random.split(jax.random.fold_in(run.key, run.update))

            def value(free):
                return loss(eqx.combine(free, fixed, static), run.loss_state, sampler(batch_key), loss_key)

            (error, (loss_state, _)), gradient = jax.value_and_grad(value, has_aux=True)(run.free)
            updates, opt_state = optimiser.update(gradient, run.opt_state, run.free)
            proposed = (optax.apply_updates(run.free, updates), opt_state, loss_state)
            sound = _all_finite((error, proposed[0]))
            going = (run.failed_at < 0) & sound
            kept = jax.tree.map(
                lambda new, old: jnp.where(going, new, old),
                proposed,
                (run.free, run.opt_state, run.loss_state),
            )
            failed_at = jnp.where((run.failed_at < 0) & ~sound, run.update, run.failed_at)
            error = jnp.where(run.failed_at < 0, error, jnp.nan)
            return Run(kept[0], kept[1], kept[2], run.key, run.update + 1, failed_at), error

        return jax.lax.scan(update, run, length=length)

    return member


def _all_finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
