"""A sequence sent through a machine: which edges it passes, and how often."""

import numpy as np
from jaxtyping import Int

from dsrecon.symbolic.cssr import recurrent
from dsrecon.symbolic.machine import entropies
from dsrecon.symbolic.pasts import same

_AHEAD = 50  # symbols by which a state is judged where none is known


def passed(
    targets: Int[np.ndarray, "s a"], letters: Int[np.ndarray, "t"]
) -> tuple[Int[np.ndarray, "r a"], Int[np.ndarray, "r a"]]:
    """How often the sequence passes each edge, and the targets with the edges that it needs and that were missing.

    It begins in the state from which it comes farthest through the edges there are; a missing edge leads to the state
    from which it does so next. States and edges that are not passed are left out at the end.

    **Returns:** targets and counts `[s', a]`.
    """
    targets = targets.copy()
    begin = _farthest(targets, letters)
    while True:
        path, stopped = _path(targets, letters, begin)
        if stopped is None:
            break
        state, at = stopped
        targets[state, letters[at]] = _farthest(targets, letters[at + 1 :])
    states, size = targets.shape
    counts = np.bincount(path * size + letters, minlength=states * size).reshape(states, size)
    return _visited(targets, counts)


def merged(
    targets: Int[np.ndarray, "s a"], counts: Int[np.ndarray, "s a"], error: float
) -> tuple[Int[np.ndarray, "r a"], Int[np.ndarray, "r a"]]:
    """Two states become one, and with them those that both are led to, as long as that lowers the BIC.

    Only states whose own symbols do not differ (`same`, p-value from `error`) begin this.
    """
    done = False
    while not done:
        done, now = True, bic(counts)
        for i in range(len(targets) - 1):
            others = np.arange(i + 1, len(targets))
            for j in others[same(counts[others], counts[i]) >= error].tolist():
                fewer = _folded(targets, counts, i, j)
                if bic(fewer[1]) < now:
                    targets, counts = fewer
                    done = False
                    break
            if not done:
                break
    return targets, counts


def bic(counts: Int[np.ndarray, "s a"]) -> float:
    """`- 2 ln likelihood + (edges - states) ln(passes)` of the machine whose probabilities are the shares of the
    passes.

    Reference: Schwarz 1978, *Estimating the dimension of a model*, Annals of Statistics 6, 461.
    """
    freedom = int((counts > 0).sum()) - len(counts)
    return freedom * float(np.log(counts.sum())) - 2 * log_likelihood(counts)


def log_likelihood(counts: Int[np.ndarray, "s a"]) -> float:
    """`sum_sx n(s, x) ln p(x | s)` with the shares of the passes as probabilities, nats."""
    return -float(counts.sum(1) @ entropies(counts / counts.sum(1, keepdims=True)))


def _folded(targets: np.ndarray, counts: np.ndarray, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """The machine in which two states are one: what both lead to by the same symbol has to be one, too."""
    label, targets, open_pairs = np.arange(len(targets)), targets.copy(), [(i, j)]
    while open_pairs:
        a, b = sorted(int(label[s]) for s in open_pairs.pop())
        if a == b:
            continue
        label[label == b] = a
        open_pairs += [(s, t) for s, t in zip(targets[a].tolist(), targets[b].tolist(), strict=True) if s >= 0 <= t]
        targets[a] = np.where(targets[a] >= 0, targets[a], targets[b])
    kept, number = np.unique(label, return_inverse=True)
    total = np.zeros((len(kept), counts.shape[1]), counts.dtype)
    np.add.at(total, number, counts)
    return np.where(targets[kept] >= 0, number[targets[kept]], -1), total


def _path(targets: np.ndarray, letters: np.ndarray, begin: int) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The state before each symbol; or where the first missing edge is met: the state and the number of the symbol.

    The sequence is cut into about `sqrt(t)` pieces, which are followed side by side from every state; then each is
    begun where the one before has ended.
    """
    states, steps = len(targets), len(letters)
    table = np.vstack([targets, np.full((1, targets.shape[1]), -1)])  # -1, nowhere, is its last row
    width = max(1, int(np.sqrt(steps / max(states, 1))))
    pieces = -(-steps // width)
    padded = np.pad(letters, (0, pieces * width - steps)).reshape(pieces, width).T.copy()
    ends = np.broadcast_to(np.arange(states), (pieces, states)).copy()
    for column in padded:
        ends = table[ends, column[:, None]]
    begins = np.empty(pieces, np.int64)
    for piece in range(pieces):
        begins[piece] = begin
        begin = int(ends[piece, begin]) if begin >= 0 else -1
    path, state = np.empty((width, pieces), np.int32), begins
    for t, column in enumerate(padded):
        path[t] = state
        state = table[state, column]
    path = path.T.reshape(-1)[:steps]
    missing = table[path, letters] < 0
    if not missing.any():
        return path, None
    at = int(np.argmax(missing))
    return path, (int(path[at]), at)


def _farthest(targets: np.ndarray, letters: np.ndarray) -> int:
    """The state from which the next symbols find the most edges; of equal ones the least number."""
    state, length = np.arange(len(targets)), np.zeros(len(targets), int)
    table = np.vstack([targets, np.full((1, targets.shape[1]), -1)])
    for letter in letters[:_AHEAD]:
        state = table[state, letter]
        length += state >= 0
    return int(np.argmax(length))


def _visited(targets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Only edges that were passed, and of the states only those that the sequence came back to."""
    targets = np.where(counts > 0, targets, -1)
    kept = recurrent(targets, counts.sum(1))
    number = np.full(len(targets) + 1, -1)
    number[kept] = np.arange(len(kept))
    targets = number[targets[kept]]
    return targets, np.where(targets >= 0, counts[kept], 0)
