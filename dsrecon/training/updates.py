"""What is compiled: many updates of one run, or of many runs at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from dsrecon._types import Key, Keys
from dsrecon.training.epochs import Epochs
from dsrecon.training.losses import Loss

Facts = dict[str, Array]
"""Numbers of one update, by name."""

Adapt = Callable[[Any, PyTree, Any, Array], tuple[PyTree, Facts]]
"""`adapt(model, state, batch, update) -> (state, facts)`: changes what the loss carries along, before the gradient."""

Value = Callable[[PyTree, Any], tuple[Array, tuple[PyTree, Facts]]]
"""A loss as a function of the trained arrays and the batch."""

Gradient = Callable[[Value, PyTree, Any], tuple[tuple[Array, tuple[PyTree, Facts]], PyTree]]
"""`gradient(value, free, batch) -> ((error, (state, facts)), gradient)`: what the optimiser is given."""


class Run(NamedTuple):
    """All that one update takes in and gives back, for one run; stacked, for a group of them."""

    free: PyTree
    opt_state: PyTree
    loss_state: PyTree
    key: Keys
    failed_at: Array


class Recipe(NamedTuple):
    """What an update is made of; `static` is all of the model that is no array."""

    static: PyTree
    loss: Loss
    sampler: Callable[[Key], Any] | Epochs
    optimiser: optax.GradientTransformation
    adapt: Adapt | None
    gradient: Gradient


Program = Callable[[Run, PyTree, int], tuple[Run, Facts]]
"""`(run, fixed, updates before) -> (run, facts [r, length])`."""


def of_batch(value: Value, free: PyTree, batch: Any) -> tuple[tuple[Array, tuple[PyTree, Facts]], PyTree]:
    """The gradient of the loss of a batch; `gradient_norm`, its Euclidean norm over all parameters, is a fact."""
    (error, (state, facts)), gradient = jax.value_and_grad(value, has_aux=True)(free, batch)
    return (error, (state, {**facts, "gradient_norm": _norm(gradient)})), gradient


def of_windows(value: Value, free: PyTree, batch: Any) -> tuple[tuple[Array, tuple[PyTree, Facts]], PyTree]:
    """The gradient of every window by itself, leaves `[b, ...]`, as differentially private optimisers take them.

    Error and facts are means over the windows; `gradient_norm` is that of the mean gradient. The loss must leave its
    state as it is (what changes it belongs into `adapt`).
    """
    one = jax.value_and_grad(value, has_aux=True)
    alone = jax.tree.map(lambda x: x[:, None], batch)
    (error, (state, facts)), gradient = jax.vmap(one, in_axes=(None, 0))(free, alone)
    mean = jax.tree.map(lambda x: jnp.mean(x, 0), (error, facts, gradient))
    state = jax.tree.map(lambda x: x[0], state)
    return (mean[0], (state, {**mean[1], "gradient_norm": _norm(mean[2])})), gradient


def compiled(length: int, example: tuple[Run, PyTree], recipe: Recipe) -> Program:
    """`length` updates of a group of runs as one executable. Among the facts is the `loss`."""
    dynamic, fixed_sampler = eqx.partition(recipe.sampler, eqx.is_array)
    member = _member(length, recipe, fixed_sampler)

    def program(run, fixed, dynamic, first):
        if len(run.key) > 1:
            return jax.vmap(member, in_axes=(0, 0, None, None))(run, fixed, dynamic, first)
        # A batch axis of one would send the small products of a CPU to a slower library.
        run, fixed = jax.tree.map(lambda x: x[0], (run, fixed))
        out = member(run, fixed, dynamic, first)
        return jax.tree.map(lambda x: x[None], out)

    executable = jax.jit(program).lower(*example, dynamic, _FIRST).compile()
    dynamic = jax.device_put(dynamic, example[0].key.sharding)
    return lambda run, fixed, done: executable(run, fixed, dynamic, np.asarray(done, np.int32))


def text(example: tuple[Run, PyTree], recipe: Recipe) -> str:
    """One update of one run as StableHLO: loss, sampler and optimiser with the constants in them.

    The same in every process, and however the runs of `example` are grouped; it is traced, not compiled.
    """
    dynamic, fixed_sampler = eqx.partition(recipe.sampler, eqx.is_array)
    one = jax.eval_shape(lambda stacked: jax.tree.map(lambda x: x[0], stacked), example)
    return jax.jit(_member(1, recipe, fixed_sampler)).lower(*one, dynamic, _FIRST).as_text()


def _member(length: int, recipe: Recipe, fixed_sampler: Any) -> Callable[..., tuple[Run, Facts]]:
    """`length` updates of one run, to be traced.

    The number of an update is the same in all runs of a group, and has no axis of runs: a branch on it stays a branch.
    """
    static, loss, _, optimiser, adapt, gradient = recipe

    def member(run: Run, fixed: PyTree, dynamic: PyTree, first: Array):
        sampler = eqx.combine(dynamic, fixed_sampler)

        def update(run: Run, number: Array):
            batch_key, loss_key = jax.random.split(jax.random.fold_in(run.key, number))
            batch = sampler(run.key, number) if isinstance(sampler, Epochs) else sampler(batch_key)
            state, told = run.loss_state, {}
            if adapt is not None:
                state, told = adapt(eqx.combine(run.free, fixed, static), state, batch, number)

            def value(free, batch):
                return loss(eqx.combine(free, fixed, static), state, batch, loss_key)

            (error, (loss_state, facts)), slope = gradient(value, run.free, batch)
            updates, opt_state = optimiser.update(slope, run.opt_state, run.free)
            proposed = (optax.apply_updates(run.free, updates), opt_state, loss_state)
            sound = _all_finite((error, proposed[0]))
            going = (run.failed_at < 0) & sound
            kept = jax.tree.map(
                lambda new, old: jnp.where(going, new, old),
                proposed,
                (run.free, run.opt_state, run.loss_state),
            )
            failed_at = jnp.where((run.failed_at < 0) & ~sound, number, run.failed_at)
            if clash := (told.keys() & facts.keys()) | ({"loss"} & (told.keys() | facts.keys())):
                raise ValueError(f"facts must have names of their own: {sorted(clash)} is told twice.")
            facts = {"loss": error, **told, **facts}
            facts = jax.tree.map(lambda x: jnp.where(run.failed_at < 0, x, jnp.nan).astype(error.dtype), facts)
            return Run(kept[0], kept[1], kept[2], run.key, failed_at), facts

        return jax.lax.scan(update, run, first + jnp.arange(length, dtype=jnp.int32))

    return member


_FIRST = jax.ShapeDtypeStruct((), np.int32)


def _norm(tree: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(tree)))


def _all_finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
