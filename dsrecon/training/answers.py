"""What models answer to whole sequences: losses, answers to many of them, scores of those held back.

For any model called as `model(x, dt, length=, key=)`, `x` `[t, k]`, that answers `[c]`, or step by step `[t, c]`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from dsrecon._types import Key
from dsrecon.training.ahead import squared
from dsrecon.training.losses import Loss
from dsrecon.training.sequences import Batch, Given, Sequences, checked

CHUNK = 2048
"""Sequences of one compiled call, at most."""


def classifying(smoothing: float = 0.0) -> Loss:
    """The mean cross-entropy of the labels under the model's answers, taken as unnormalised log probabilities.

        -(1 - e) log p_y - e mean_c log p_c,  p = softmax(model(x))

    over the sequences, or, where every step has a label, over all real steps of a batch alike. `accuracy`, the share of
    labels that the largest answer names, is told among the facts.

    **Arguments:** `smoothing` e, in [0, 1).

    **Raises:** `ValueError` for another smoothing; when traced, before anything is compiled, for answers of a shape
    that the labels do not fit, or fewer of them than classes.

    Reference: Szegedy et al. 2016, *Rethinking the Inception architecture for computer vision*, CVPR (smoothing).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1): got {smoothing}.")

    def loss(model, state: PyTree, batch: Batch, key: Key | None):
        found = _shown(model, batch, key)
        if found.shape[:-1] != batch.y.shape or found.shape[-1] < max(batch.classes, 1):
            raise ValueError(
                f"the model must answer with [{', '.join(map(str, batch.y.shape))}, {batch.classes} or more]: got "
                f"{list(found.shape)}. One label a sequence wants a pooled head, one a step a head at each step."
            )
        log_p = jax.nn.log_softmax(found)
        value = -(1 - smoothing) * jnp.take_along_axis(log_p, batch.y[..., None], -1)[..., 0]
        value = value - smoothing * jnp.mean(log_p, -1)
        right = (jnp.argmax(found, -1).astype(batch.y.dtype) == batch.y).astype(value.dtype)
        return _mean(value, batch), (state, {"accuracy": _mean(right, batch)})

    return loss


def regressing(error: Callable[[Array], Array] = squared) -> Loss:
    """The mean error of the model's answers over sequences (or all real steps of a batch alike) and their channels.

    **Arguments:** `error`: `squared`, `absolute`, or any function of the difference.

    **Raises:** `ValueError` when traced for answers of another shape than the targets.
    """

    def loss(model, state: PyTree, batch: Batch, key: Key | None):
        found = _shown(model, batch, key)
        if found.shape != batch.y.shape:
            raise ValueError(f"the model must answer with {list(batch.y.shape)}, as y: got {list(found.shape)}.")
        return _mean(jnp.mean(error(found - batch.y), -1), batch), (state, {})

    return loss


def predicted(
    model: Callable[..., Array],
    x: Given,
    dt: float | Given = 1.0,
    lengths: Given | None = None,
    *,
    batch: int = 64,
) -> Float[np.ndarray, "r *t c"]:
    """What a model answers to many sequences, nothing dropped.

    Numbers of sequences are padded to powers of two, and one step for all is an argument of what is compiled: few
    sizes are compiled, and none again for another `dt`.

    **Arguments:** `x` `[r, t, k]`, `dt` (one, `[r]` or `[r, t]`), `lengths` `[r]`: as `Sequences`; `batch`: sequences
    at once, which bounds the memory.

    **Returns:** `[r, c]`, or `[r, t, c]` of a model with a head at each step: what lies beyond a length is then no
    answer.

    **Raises:** `ValueError` as `Sequences`, and for a batch below 1.
    """
    x, length, dt = checked(x, lengths, dt)
    given, step = {"x": x, "length": length, "dt": dt if dt.ndim else None}, None if dt.ndim else dt
    r, out = len(x), []
    size = min(_at_least_one(batch), _above(r))
    many = max(min(CHUNK // size, _above(-(-r // size))), 1)
    for first in range(0, r, size * many):
        rows = np.minimum(np.arange(first, first + size * many), r - 1).reshape(many, size)
        cut = jax.tree.map(lambda values, rows=rows: values[rows], given)
        found = np.asarray(_predicted(model, cut, step))
        out.append(found.reshape(-1, *found.shape[2:])[: r - first])
    return np.concatenate(out)


def held(rows: Sequences, loss: Loss, *, by: str = "loss") -> Callable[[PyTree], dict[str, np.ndarray]]:
    """Scores of models on sequences that are not trained on, for `fit(..., evaluate=held(rows, loss))`.

    The loss of every sequence, nothing dropped, and their mean, each step alike where every step has an answer.
    `score` is the loss or, by `"error"`, the share of wrong labels; `loss` and the facts (`accuracy`) stand beside it.

    **Arguments:** `rows`: the sequences, all of which are used, `rows.batch` at a time; `loss`: `classifying()`, say,
    without a state.

    **Raises:** `ValueError` for another `by`, and for `"error"` with a loss that tells no accuracy.
    """
    if by not in ("loss", "error"):
        raise ValueError(f'by must be "loss" or "error": got {by!r}.')
    count, size = len(rows.rows.x), rows.batch
    chosen = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    batches = jax.tree.map(lambda values: values[chosen], rows.rows)
    real = (np.arange(chosen.size) < count).reshape(chosen.shape).astype(batches.x.dtype)
    stepwise = rows.stepwise and batches.length is not None
    weights = real * np.asarray(batches.length, real.dtype) if stepwise else real
    weights = jnp.asarray(weights)

    def evaluate(models: PyTree) -> dict[str, np.ndarray]:
        told = {name: np.asarray(value) for name, value in _held(models, batches, weights, loss).items()}
        if by == "error" and "accuracy" not in told:
            raise ValueError(f'by="error" needs a loss that tells the accuracy: got {sorted(told)}.')
        return {"score": told["loss"] if by == "loss" else 1 - told["accuracy"], **told}

    return evaluate


@eqx.filter_jit
def _predicted(model: Any, given: dict[str, Any], step: Array | None) -> Float[Array, "b w *t c"]:
    def one(row):
        return model(row["x"], row["dt"] if step is None else step, length=row["length"])

    return jax.lax.map(jax.vmap(one), given)


@eqx.filter_jit
def _held(models: Any, batches: Batch, weights: Float[Array, "b w"], loss: Any) -> dict[str, Float[Array, "r"]]:
    arrays, static = eqx.partition(models, eqx.is_array)

    def member(arrays):
        model = eqx.combine(arrays, static)

        def alone(row: Batch):
            value, (_, facts) = loss(model, None, jax.tree.map(lambda values: values[None], row), None)
            return {"loss": value, **facts}

        told = jax.lax.map(jax.vmap(alone), batches)
        return jax.tree.map(lambda values: jnp.sum(values * weights) / jnp.sum(weights), told)

    return jax.lax.map(member, arrays)


def _shown(model: Callable[..., Array], batch: Batch, key: Key | None) -> Float[Array, "b *t c"]:
    def one(x, dt, length, key):
        return model(x, batch.step if dt is None else dt, length=length, key=key)

    keys = None if key is None else jax.random.split(key, len(batch.x))
    return jax.vmap(one)(batch.x, batch.dt, batch.length, keys)


def _mean(values: Float[Array, "b"] | Float[Array, "b t"], batch: Batch) -> Float[Array, ""]:
    if values.ndim == 1 or batch.length is None:
        return jnp.mean(values)
    real = jnp.arange(values.shape[1])[None] < batch.length[:, None]
    return jnp.sum(jnp.where(real, values, jnp.zeros_like(values))) / jnp.sum(real).astype(values.dtype)


def _above(count: int) -> int:
    """The next power of two: few shapes, so few compilations."""
    return 1 << max(count - 1, 0).bit_length()


def _at_least_one(batch: int) -> int:
    if batch < 1:
        raise ValueError(f"batch must be at least 1: got {batch}.")
    return batch
