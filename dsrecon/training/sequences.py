"""Whole sequences, each with a label or a target, or one a step: batches of them."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from dsrecon._types import Key

Given = Shaped[Array | np.ndarray, "..."]
"""An array whose shape and type are checked with a message of its own."""


class Batch(eqx.Module):
    """Sequences, padded at their ends to one length.

    - `x` `[b, t, k]`; zero beyond the end of a sequence.
    - `y`: labels `[b]`, or one a step `[b, t]`; targets `[b, c]`, or `[b, t, c]`.
    - `length` `[b]`: how many steps are real; `None` where all are.
    - `dt`: steps of the samples, `[b]` or `[b, t]`; `None` where all are `step`.
    - `classes`: how many classes the labels tell apart; 0 for targets.
    """

    x: Float[Array, "*b t k"]
    y: Shaped[Array, "..."]
    length: Int[Array, "*b"] | None = None
    dt: Float[Array, "..."] | None = None
    step: float = eqx.field(static=True, default=1.0)
    classes: int = eqx.field(static=True, default=0)


class Sequences(eqx.Module):
    """Draws sequences at random, under jit; those of one batch are different ones.

    A sampler has a key and no memory, so rows are not gone through epoch by epoch: from batch to batch they are drawn
    anew, and in `r / batch` of them a row is drawn once on average.

    **Arguments:**

    - `x` `[r, t, k]`: sequences, padded to one length (`padded`).
    - `y`: labels, integers from 0, `[r]` or (one a step) `[r, t]`; or targets, real, `[r, c]` or `[r, t, c]`.
    - `lengths` `[r]`: how many steps of each are real; all where `None`. What lies beyond may be anything, NaN too.
    - `dt`: time between samples in units of that which the model is trained at, one for all, one a sequence `[r]` or
      one a sample `[r, t]` (the step before it). One for all costs least: a kernel is then made once a batch.
    - `batch`: sequences drawn at once.
    - `classes`: how many classes there are; by default the largest label tells.

    **Raises:** `ValueError` for other shapes and types, values that are not finite, labels below 0 or of `classes` and
    above, lengths outside 1 .. t, steps that are not positive, a batch outside 1 .. r.
    """

    rows: Batch
    batch: int = eqx.field(static=True)

    def __init__(
        self,
        x: Given,
        y: Given,
        lengths: Given | None = None,
        dt: float | Given = 1.0,
        *,
        batch: int,
        classes: int | None = None,
    ):
        x, length, dt = checked(x, lengths, dt)
        if not 1 <= batch <= len(x):
            raise ValueError(f"batch must lie in 1 .. {len(x)}, the number of sequences: got {batch}.")
        y, found = _answers(y, (len(x), x.shape[1]), lengths, classes)
        many = dt if dt.ndim else None
        self.rows = Batch(x, y, length, many, float(dt) if many is None else 1.0, found)
        self.batch = batch

    def __call__(self, key: Key) -> Batch:
        """`batch` different sequences."""
        drawn = jax.random.permutation(key, len(self.rows.x))[: self.batch]
        return jax.tree.map(lambda values: values[drawn], self.rows)

    @property
    def stepwise(self) -> bool:
        """Whether there is a label or a target for each step."""
        return self.rows.y.ndim == (2 if self.rows.classes else 3)


def padded(sequences: Sequence[np.ndarray]) -> tuple[Float[np.ndarray, "r t k"], Int[np.ndarray, "r"]]:
    """Sequences `[t_i, k]` in one array, zero beyond the end of each, and their lengths.

    **Raises:** `ValueError` for none, or sequences that are not `[t_i, k]`.
    """
    shapes = [np.shape(one) for one in sequences]
    if not shapes or any(len(shape) != 2 or shape[1] != shapes[0][-1] for shape in shapes):
        raise ValueError(f"sequences must be at least one, each [t, k]: got shapes {sorted(set(shapes))[:8]}.")
    lengths = np.array([len(one) for one in sequences])
    x = np.zeros((len(shapes), lengths.max(), shapes[0][1]), np.result_type(*sequences))
    for row, one in zip(x, sequences, strict=True):
        row[: len(one)] = one
    return x, lengths


def checked(x: Given, lengths: Given | None, dt: Any) -> tuple[Array, Array | None, Array]:
    """Sequences, their lengths and steps in arrays of JAX; zero, and steps of 1, beyond the ends."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be real floating point: got {x.dtype}. Convert it: x.astype(float).")
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"x must have shape [sequence, step, channel], none of them empty: got {list(x.shape)}.")
    (r, t), values, steps = x.shape[:2], np.asarray(x), np.asarray(dt)
    real = np.ones((r, t), bool)
    if lengths is not None:
        known = np.asarray(lengths)
        if known.shape != (r,) or known.dtype.kind not in "iu":
            raise ValueError(f"lengths must be {r} integers, one a sequence: got {known.dtype} {list(known.shape)}.")
        if not ((known >= 1) & (known <= t)).all():
            at = int(np.argmax((known < 1) | (known > t)))
            raise ValueError(f"lengths must lie in 1 .. {t}, the steps of x: got {known[at]}, of sequence {at}.")
        real = np.arange(t)[None] < known[:, None]
    if not (sound := np.isfinite(values).all(2) | ~real).all():
        at, step = np.argwhere(~sound)[0]
        raise ValueError(
            f"x must be finite: {(~sound).sum()} of {real.sum()} samples are not, first that of sequence {at}, step "
            f"{step}. Fill what is missing in."
        )
    if steps.shape not in ((), (r,), (r, t)) or steps.dtype.kind not in "fiu":
        raise ValueError(
            f"dt must be a number, [{r}] (one a sequence) or [{r}, {t}] (one a sample): got {steps.dtype} "
            f"{list(steps.shape)}."
        )
    steps = np.where(real, steps, 1) if steps.ndim == 2 else steps
    if not (np.isfinite(steps) & (steps > 0)).all():
        bad = steps[~(np.isfinite(steps) & (steps > 0))]
        raise ValueError(f"dt must be positive and finite: got {bad.flat[0]}.")
    values = jnp.asarray(values if lengths is None else np.where(real[..., None], values, 0))
    length = None if lengths is None else jnp.asarray(lengths, int)
    return values, length, jnp.asarray(steps, values.dtype)


def _answers(y: Given, shape: tuple[int, int], lengths: Given | None, classes: int | None) -> tuple[Array, int]:
    """Labels and the number of classes, or targets and 0; zero beyond the ends."""
    (r, t), values = shape, np.asarray(y)
    labels = values.dtype.kind in "iu"
    if not labels and values.dtype.kind != "f":
        raise ValueError(f"y must be labels, integers, or targets, real floating point: got {values.dtype}.")
    wanted = ((r,), (r, t)) if labels else ((r, values.shape[-1:]), (r, t, values.shape[-1:]))
    if labels and values.shape not in wanted:
        raise ValueError(f"y must hold labels [{r}], or [{r}, {t}], one a step: got shape {list(values.shape)}.")
    if not labels and (values.ndim not in (2, 3) or values.shape[:-1] not in ((r,), (r, t)) or not values.size):
        raise ValueError(
            f"y must hold targets [{r}, c], or [{r}, {t}, c], one a step: got shape {list(values.shape)}. Labels must "
            f"be integers."
        )
    if values.shape[:2] == (r, t) and values.ndim == (2 if labels else 3) and lengths is not None:
        real = np.arange(t)[None] < np.asarray(lengths)[:, None]
        values = np.where(real if labels else real[..., None], values, 0)
    if not labels:
        if classes is not None:
            raise ValueError(f"classes is for labels, integers: got classes={classes} and y of {values.dtype}.")
        if not np.isfinite(values).all():
            raise ValueError(f"y must be finite: {(~np.isfinite(values)).sum()} of {values.size} targets are not.")
        return jnp.asarray(values), 0
    found = int(values.max()) + 1 if classes is None else classes
    if values.min() < 0 or values.max() >= found:
        bad = values.min() if values.min() < 0 else values.max()
        raise ValueError(f"y must hold labels from 0 to {found - 1}, one less than classes: got {bad}.")
    return jnp.asarray(values, jnp.int32), found
