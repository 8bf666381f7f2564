"""Training a family of cells: every window under the cell of its own condition."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from dsrecon._types import Key
from dsrecon.cell import AbstractFamily
from dsrecon.readout import AbstractReadout, Forced
from dsrecon.training.losses import Loss
from dsrecon.training.windows import Window

Condition = Callable[[Window], tuple[PyTree, Window]]
"""`condition(batch) -> (conditions with a leading axis b, what the loss is taken of)`."""


class FamilyModel(eqx.Module):
    """A family of cells and the readout that they share: what `conditioned` trains.

    **Raises:** `ValueError` when the readout is for another state size.
    """

    family: AbstractFamily
    readout: AbstractReadout

    def __check_init__(self):
        if self.family.state_size != self.readout.state_size:
            raise ValueError(
                f"readout.state_size must equal family.state_size: "
                f"got {self.readout.state_size} and {self.family.state_size}."
            )

    def given(self, condition: PyTree) -> Forced:
        """The forced cell of one condition."""
        return Forced(self.family.given(condition), self.readout)  # pyright: ignore[reportCallIssue]


def conditioned(loss: Loss, condition: Condition) -> Loss:
    """The mean over the windows of a batch of a loss, each under the cell of its own condition: for a `FamilyModel`.

    `mean_b loss(Forced(family.given(c_b), readout), window_b)`, with `c_b` as `condition` finds it. Gradients reach the
    family. Facts are means too; the state of the loss is shared by the windows and must be left as it is (what changes
    it belongs into `adapt`). Every window counts alike, however much of it was observed.

    **Arguments:** `loss`: of a `Forced` cell and a `Window`, `gtf()` say; `condition`: `by_trial` or
    `by_context(rows)`, or a function of that form.

    **Returns:** a loss of a `FamilyModel`.
    """

    def family_loss(model: FamilyModel, state: PyTree, batch: Window, key: Key):
        conditions, rest = condition(batch)

        def one(condition: PyTree, window: Window):
            alone = jax.tree.map(lambda x: x[None], window)
            value, (_, facts) = loss(model.given(condition), state, alone, key)
            return value, facts

        values, facts = jax.vmap(one)(conditions, rest)
        mean: dict[str, Array] = jax.tree.map(lambda x: jnp.mean(x, 0), facts)
        return jnp.mean(values), (state, mean)

    return family_loss


def by_trial(batch: Window) -> tuple[Any, Window]:
    """The condition of a window is the number of its trial: one trial a subject.

    **Raises:** `ValueError` for windows without numbers: give `Windows` its `trials`.
    """
    if batch.trial is None:
        raise ValueError("windows must know their trial: give Windows the lengths of its trials (trials=...).")
    return batch.trial, batch


def by_context(rows: int) -> Condition:
    """The condition of a window is its beginning: `rows` observations, as the model is shown them.

    The loss is of the rest: the run begins at the last row of the context and predicts the rows after it.

    **Raises:** `ValueError` for less than one row; when traced, for windows that are not longer, and with gaps.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1: got {rows}.")

    def condition(batch: Window) -> tuple[Any, Window]:
        if batch.mask is not None:
            raise ValueError("by_context needs windows without gaps: a context cannot be masked.")
        length = batch.x.shape[1]
        if length <= rows:
            raise ValueError(
                f"windows must be longer than the context of {rows} rows: they hold {length} observations."
            )
        later = [None if v is None else v[:, rows - 1 :] for v in (batch.x, batch.seen, batch.s)]
        return batch.seen[:, :rows], batch._replace(x=later[0], seen=later[1], s=later[2])

    return condition
