"""Which part of the data is learned from, and which part chooses."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsrecon.embedding import Embedding
from dsrecon.measures.embedding import EmbeddingChoice, choose_embedding
from dsrecon.reconstruct.plan import Plan
from dsrecon.series import Series

MIN_SAMPLES = 200
MANY_TRIALS = 5
"""From so many trials on whole ones are held out; of fewer, the end of each."""


class Stretch(NamedTuple):
    """Observations `[t, n]` (NaN: missing), external inputs `[t, k]` or `None`, in the units of the data."""

    x: np.ndarray
    s: np.ndarray | None


class Parts(NamedTuple):
    """The stretches to learn from, those to choose by, and in words how they were parted."""

    train: list[Stretch]
    held: list[Stretch]
    text: str

    def checksum(self) -> str:
        """SHA-256 of all of it: what a fit that goes on must have been begun with."""
        found = hashlib.sha256()
        for stretch in [*self.train, *self.held]:
            for values in (stretch.x, stretch.s):
                found.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        return found.hexdigest()


def embedding_of(
    trials: Sequence[Series], lag: int | None, dimension: int | None, validation: float, plan: Plan
) -> tuple[Embedding | None, EmbeddingChoice | None]:
    """The delay embedding of one variable, chosen on the training part of the longest trial; none for several.

    **Raises:** `ValueError` for a series that is too short, and for a lag or dimension with several variables, or out
    of range.
    """
    samples = sum(len(trial.values) for trial in trials)
    if samples < MIN_SAMPLES:
        raise ValueError(
            f"the series is too short: {samples} samples, where training and validation windows need "
            f"at least {MIN_SAMPLES}.{_transposed(trials)}"
        )
    if len(trials[0].names) > 1:
        if lag is not None or dimension is not None:
            raise ValueError(
                f"lag and dimension embed one variable: got {len(trials[0].names)}, {trials[0].names}. Choose one "
                "(on the command line: --columns)."
            )
        return None, None
    if dimension == 1:
        plan.choose("dimension", 1, None, "")
        return None, None
    longest = max((trial.values[:, 0] for trial in trials), key=len)
    found = choose_embedding(longest[: round(len(longest) * (1 - validation))], lag=lag, dimension=dimension)
    plan.choose("lag", lag, found.lag, found.reason)
    plan.choose("dimension", dimension, found.dimension, found.reason)
    if found.dimension == 1:
        return None, found
    return Embedding(found.lag, found.dimension), found


def _transposed(trials: Sequence[Series]) -> str:
    """A question, where all trials are wider than long; else nothing."""
    rows, columns = trials[0].values.shape
    if any(len(trial.values) >= len(trial.names) for trial in trials):
        return ""
    return f" It has {columns} variables in {rows} rows: transposed? Rows are samples, columns variables."


def parted(
    trials: Sequence[Series], inputs: Sequence[Series] | None, embedding: Embedding | None, validation: float
) -> Parts:
    """Training and validation stretches, embedded.

    **Raises:** `ValueError` for a share out of range, and a variable that does not vary or is not observed over one of
    the parts.
    """
    if not 0.05 <= validation <= 0.5:
        raise ValueError(f"validation must lie between 0.05 and 0.5: got {validation}.")
    whole = [_embedded(t, None if inputs is None else inputs[i], embedding) for i, t in enumerate(trials)]
    if len(whole) >= MANY_TRIALS:
        sizes = np.cumsum([len(w.x) for w in whole[::-1]])
        count = int(np.searchsorted(sizes, validation * sizes[-1])) + 1
        count = min(count, len(whole) - 1)
        train, held = whole[:-count], whole[-count:]
        text = f"the last {count} of {len(whole)} trials choose among the runs"
    else:
        splits = [round(len(w.x) * (1 - validation)) for w in whole]
        train = [_cut(w, 0, k) for w, k in zip(whole, splits, strict=True)]
        held = [_cut(w, k, len(w.x)) for w, k in zip(whole, splits, strict=True)]
        count = sum(len(h.x) for h in held)
        text = f"the last {count} samples choose among the runs"
        if len(whole) > 1:
            text = f"the last {validation:.0%} of each trial ({count} samples) choose among the runs"
    _refuse_constant(train, trials[0].names, "training")
    _refuse_constant(held, trials[0].names, "validation")
    return Parts(train, held, text)


def _embedded(trial: Series, inputs: Series | None, embedding: Embedding | None) -> Stretch:
    s = None if inputs is None else inputs.values
    if embedding is None:
        return Stretch(trial.values, s)
    return Stretch(embedding(trial.values), None if s is None else s[embedding.span :])


def _cut(stretch: Stretch, first: int, last: int) -> Stretch:
    return Stretch(stretch.x[first:last], None if stretch.s is None else stretch.s[first:last])


def _refuse_constant(part: list[Stretch], names: tuple[str, ...], text: str) -> None:
    rows = np.concatenate([stretch.x for stretch in part])
    for name, column in zip(names, rows.T, strict=False):
        seen = column[np.isfinite(column)]
        if len(seen) < 2:
            raise ValueError(
                f"column {name!r} must be observed: it has {len(seen)} observations over the {text} part. Leave it out "
                "(on the command line: --columns)."
            )
        if not np.ptp(seen) > 1e-12 * max(1.0, np.abs(seen).max()):
            raise ValueError(
                f"column {name!r} must vary: it is constant ({seen[0]:g}) over the {text} part. Leave it out "
                "(on the command line: --columns)."
            )
