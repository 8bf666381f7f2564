"""Causal-state splitting: pasts with the same future are one state, and a state and a symbol fix the next one."""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dsrecon.symbolic.pasts import Pasts, same

_PASSES = 10  # over the pasts of one length: what has left may have been what the others differed from


def split(levels: list[Pasts], error: float) -> list[Int[np.ndarray, "_"]]:
    """The state of every past, length by length: pasts whose next symbols are equally distributed share one.

    A past of `L` symbols begins in the state of its last `L - 1`. It leaves when its next symbols differ from those
    of the others there (`same`, p-value below `error`), for the state that they differ from least, or for a new one
    when they differ from all. The commonest past is judged first.

    **Returns:** for each length, the number of the state of each past.
    """
    labels = [np.zeros(1, int)]
    states = 1
    for length in range(1, len(levels)):
        codes, counts = levels[length]
        size = counts.shape[1]
        parent = levels[length - 1].place(codes % size ** (length - 1))
        label = labels[-1][parent].copy()
        order = np.argsort(-counts.sum(1), kind="stable")
        for _ in range(_PASSES):
            total = _sums(label, counts, states)
            others = total[label] - counts
            leaving = same(counts, others) < error
            if not leaving.any():
                break
            total -= _sums(label[leaving], counts[leaving], states)
            for i in order[leaving[order]]:
                p = np.where(total.any(1), same(counts[i], total), -1.0)
                best = int(np.argmax(p))
                if p[best] < error:
                    best, states = states, states + 1
                    total = np.vstack([total, np.zeros((1, size), int)])
                label[i] = best
                total[best] += counts[i]
        labels.append(label)
    return labels


def determinise(
    levels: list[Pasts], labels: list[Int[np.ndarray, "_"]], error: float
) -> tuple[Int[np.ndarray, "s a"], Float[np.ndarray, "s"]]:
    """The state that each symbol leads to, with states split until all their pasts agree on it.

    Where a past is led to another state than the rest of its state: what it is led to joins the state that the
    rest is led to, if its next symbols do not differ from those there; else the past moves to a state that is led as
    it is, under the same condition; else it founds one.

    **Returns:** `targets` `[s, a]` (-1 where no past says), and the weight of each state, occurrences of its longest
    pasts.
    """
    long, short = levels[-1], levels[-2]
    size = long.counts.shape[1]
    child = long.place(short.codes[:, None] * size + np.arange(size))
    tail = short.place(long.codes % size ** (len(levels) - 2))
    near, far = labels[-2].copy(), labels[-1].copy()
    bent, moved = np.zeros(len(far), bool), np.zeros(len(near), bool)
    shifted = np.zeros(len(far), bool)
    while True:
        states = max(int(near.max()), int(far.max())) + 1
        targets, clash = _led(near, far, child, tail, short, long, states)
        if clash is None:
            return targets, np.bincount(far, long.counts.sum(1), states)
        which, i = clash
        led = child[i] if which == "short" else child[tail[i]]
        home = near[i] if which == "short" else far[i]
        total = _sums(far, long.counts, states)
        wrong = [x for x in range(size) if led[x] >= 0 and far[led[x]] != targets[home, x]]
        for x in wrong:
            y = led[x]
            others = total[targets[home, x]]
            if not bent[y] and same(long.counts[y], others) >= error:
                bent[y], far[y] = True, targets[home, x]
                break
        else:
            counts = short.counts[i] if which == "short" else long.counts[i]
            own = np.where(led >= 0, far[led], -1)
            agree = ((targets == own) | (own < 0) | (targets < 0)).all(1) & total.any(1)
            agree[home] = False
            p = np.where(agree, same(counts, total), -1.0)
            been = moved if which == "short" else shifted
            new = int(np.argmax(p)) if p.max() >= error and not been[i] else states
            been[i] = True
            if which == "short":
                far[(tail == i) & (far == home)] = new
                near[i] = new
            else:
                far[i] = new


def recurrent(targets: Int[np.ndarray, "s a"], weight: np.ndarray) -> Int[np.ndarray, "r"]:
    """The states that are visited again and again: of the sets of states that reach each other and nothing else, the
    one of the greatest weight."""
    size = len(targets)
    source, column = np.nonzero(targets >= 0)
    target = targets[source, column]
    edges = sparse.csr_array((np.ones(len(source)), (source, target)), shape=(size, size))
    parts, part = connected_components(edges, directed=True, connection="strong")
    inside = part[source] == part[target]
    lasting = np.bincount(part[source[inside]], minlength=parts) > 0
    left = np.bincount(part[source[~inside]], minlength=parts) > 0
    mass = np.bincount(part, weight, parts)
    closed = np.where(lasting & ~left, mass, -1.0)
    best = np.argmax(closed if closed.max() > 0 else np.where(lasting, mass, -1.0))
    return np.flatnonzero(part == best)


def _led(near, far, child, tail, short: Pasts, long: Pasts, states: int):
    """Where each state is led to by each symbol, by the majority of its pasts, and the commonest past that disagrees.

    The pasts that are shorter by one are asked, which lose no symbol on the way; states that have none ask their
    longest.
    """
    size = child.shape[1]
    asked = np.bincount(near, minlength=states) > 0
    whole = ~asked[far]
    home = np.concatenate([near, far[whole]])
    led = np.concatenate([child, child[tail[whole]]])
    counts = np.concatenate([short.counts, long.counts[whole]])
    index = np.concatenate([np.arange(len(near)), np.flatnonzero(whole)])
    target = np.where(led >= 0, far[led], -1)
    row, x = np.nonzero(target >= 0)
    key, place = np.unique((home[row] * size + x) * states + target[row, x], return_inverse=True)
    votes = np.bincount(place, counts[row, x] + 1e-9)
    order = np.lexsort((votes, key // states))  # of each state and symbol the most voted target is written last
    targets = np.full(states * size, -1)
    targets[key[order] // states] = key[order] % states
    targets = targets.reshape(states, size)
    off = ((target >= 0) & (target != targets[home])).any(1)
    if not off.any():
        return targets, None
    worst = int(np.argmax(np.where(off, counts.sum(1), -1)))
    return targets, ("short" if worst < len(near) else "long", int(index[worst]))


def _sums(label: np.ndarray, counts: np.ndarray, states: int) -> np.ndarray:
    """Counts `[n, a]` added up by label: `[states, a]`."""
    return np.stack([np.bincount(label, column, states) for column in counts.T], axis=1).astype(np.int64)
