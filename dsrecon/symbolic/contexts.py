"""How much of the past the next symbol depends on: a tree of contexts, as deep as the data can show."""

from typing import NamedTuple

import numpy as np

from dsrecon.symbolic.windows import located, renumbered, tallied

_ROUNDING = 1e-6  # nats of likelihood, of sums of up to 1e9


class Contexts(NamedTuple):
    """The contexts that were told apart, and what the next symbol costs behind each.

    - `loss`: `-ln p(x_t | context)` of every symbol after the first `max_order`, in nats, `[t - max_order]`;
    - `order`: length of the longest context of the tree; `leaves`: how many contexts;
    - `depth`: length of the longest context that `loss` was read behind, a little beyond the tree;
    - `parameters`: free probabilities, the sum over contexts of (different symbols that follow) - 1;
    - `limited`: whether a context of the greatest allowed length might have been worth telling apart further.
    """

    loss: np.ndarray
    order: int
    leaves: int
    depth: int
    parameters: int
    limited: bool


class _Level(NamedTuple):
    """Contexts of one length: `children` codes `node * a + symbol before` of those of the last level, `parent` of
    each; `pairs` codes `node * a + next symbol` with `count`, `total` of each node; `likelihood`, `kinds` of next
    symbols, `open`."""

    children: np.ndarray
    parent: np.ndarray
    pairs: np.ndarray
    count: np.ndarray
    total: np.ndarray
    likelihood: np.ndarray
    kinds: np.ndarray
    open: np.ndarray


def contexts(letters: np.ndarray, alphabet: int, max_order: int, coarse: np.ndarray | None = None) -> Contexts:
    """The tree of contexts of the least description length.

    A context is the word before a symbol. It is told apart into the contexts one symbol longer where that raises the
    log-likelihood of the symbols that follow by more than `(m - 1) (r - 1) / 2 ln t`, with `m` longer contexts and
    `r` different symbols that follow: the Bayesian criterion, with the degrees of freedom of the table of counts.
    Whether a split pays is decided from the leaves up, so that one which pays only further down is found.

    What is read behind the contexts is read a little further back (`_extended`): the criterion leaves out memory too
    weak to be sure of, all of which together would make the entropy too high.

    Of an alphabet of many letters no split pays, for it tells all letters apart at once. Where letters are of few
    kinds (dwell words of one region), a context is told apart by the kind of the letter before first, and by the
    letter itself next.

    **Arguments:** `letters` `[t]` from 0 to `alphabet - 1`; `max_order`: of the contexts, less than t; `coarse`: the
    kind of each letter, `[alphabet]` from 0, or nothing.

    Reference: Csiszár & Talata 2006, *Context tree estimation for not necessarily finite memory processes, via BIC
    and MDL*, IEEE Transactions on Information Theory (there each split costs `m (a - 1) - (a - 1)` parameters,
    whether seen or not).
    """
    if len(letters) * alphabet < 2**31:  # halves the memory that is passed through
        letters = letters.astype(np.int32)
    past = (letters,) if coarse is None else (coarse.astype(letters.dtype)[letters], letters)
    levels = _grown(letters, alphabet, max_order, past)
    split = _pruned(levels, np.log(len(letters) - max_order))
    carried = _extended(levels, split)
    order, leaves, _, limited = _size(levels, split)
    depth, _, parameters, _ = _size(levels, carried)
    loss = _losses(letters, alphabet, max_order, past, levels, carried)
    faces = len(past)
    limited = limited and len(levels) == max_order * faces + 1 and order == len(levels) - 1
    return Contexts(loss, -(-order // faces), leaves, -(-depth // faces), parameters, limited)


def _grown(letters: np.ndarray, alphabet: int, max_order: int, past: tuple[np.ndarray, ...]) -> list[_Level]:
    """All contexts that might be worth telling apart, level by level; where nothing could be gained none is
    followed."""
    at = np.arange(max_order, len(letters), dtype=letters.dtype)
    node, nodes, following = np.zeros(len(at), letters.dtype), 1, letters[max_order:]
    children, parent = np.zeros(1, np.int64), np.zeros(1, np.int64)
    levels, cost = [], 0.5 * np.log(len(at))
    for length in range(max_order * len(past) + 1):
        pairs, count = tallied(node * alphabet + following, nodes * alphabet)
        owner = pairs // alphabet
        total = np.bincount(owner, count, nodes)
        likelihood = np.bincount(owner, count * np.log(count), nodes) - total * np.log(total)
        kinds = np.bincount(owner, minlength=nodes)
        opened = -likelihood > (kinds - 1) * cost + _ROUNDING
        levels.append(_Level(children, parent, pairs, count, total, likelihood, kinds, opened))
        if length == max_order * len(past) or not opened.any():
            break
        if not opened.all():
            kept = np.flatnonzero(opened[node])
            at, node, following = at[kept], node[kept], following[kept]
        back, face = divmod(length, len(past))
        node, children = renumbered(node * alphabet + past[face][at - (1 + back)], nodes * alphabet)
        parent, nodes = children // alphabet, len(children)
    return levels


def _pruned(levels: list[_Level], log_steps: float) -> list[np.ndarray]:
    """Which contexts of each level are told apart further: decided from the longest down to none."""
    split = [np.zeros(len(levels[-1].total), bool)]
    value = levels[-1].likelihood
    for level, below in zip(levels[-2::-1], levels[:0:-1], strict=True):
        nodes = len(level.total)
        size = np.bincount(below.parent, minlength=nodes)
        gain = np.bincount(below.parent, value, nodes) - level.likelihood
        gain = gain - (size - 1) * (level.kinds - 1) * 0.5 * log_steps
        paid = (size > 0) & (gain > _ROUNDING)
        split.append(paid)
        value = level.likelihood + np.where(paid, gain, 0.0)
    return split[::-1]


def _extended(levels: list[_Level], split: list[np.ndarray]) -> list[np.ndarray]:
    """The tree carried on behind each of its leaves, level by level, by at most the third root of the leaf's count in
    free probabilities: what weak memory is left there counts too, and is not chosen by how it turned out."""
    carried, owner, reached = [], np.zeros(1, np.int64), np.ones(1, bool)
    spent, room = np.zeros(1), levels[0].total ** (1 / 3)
    for k, level in enumerate(levels):
        nodes = len(level.total)
        leaf = reached & ~split[k] & (owner < 0) if k else ~split[0]
        if k:
            owner = np.where(leaf, len(room) + np.cumsum(leaf) - 1, owner)
            room, spent = np.append(room, level.total[leaf] ** (1 / 3)), np.append(spent, np.zeros(int(leaf.sum())))
        elif split[0][0]:
            owner = np.array([-1])
        if k + 1 == len(levels):
            carried.append(np.zeros(nodes, bool))
            break
        below = levels[k + 1]
        inside = (owner >= 0) & (np.bincount(below.parent, minlength=nodes) > 0)
        added = np.bincount(below.parent, below.kinds - 1, nodes) - (level.kinds - 1)
        more = np.bincount(owner[inside], added[inside], len(room))
        allowed = spent + more <= room
        paid = inside & allowed[owner]
        spent = spent + np.where(allowed, more, 0.0)
        carried.append(split[k] & reached | paid)
        owner = np.where(paid, owner, -1)[below.parent]
        reached = (reached & split[k])[below.parent]
    return carried


def _size(levels: list[_Level], split: list[np.ndarray]) -> tuple[int, int, int, bool]:
    """Depth, leaves and free probabilities of a tree, and whether one of its longest contexts is open."""
    depth = leaves = parameters = 0
    reached, limited = np.ones(1, bool), False
    for k, (level, paid) in enumerate(zip(levels, split, strict=True)):
        last = reached & ~paid
        leaves += int(last.sum())
        parameters += int((level.kinds[last] - 1).sum())
        depth = k if last.any() else depth
        limited = bool((last & level.open).any())
        if k + 1 < len(levels):
            reached = (reached & paid)[levels[k + 1].parent]
    return depth, leaves, parameters, limited


def _losses(
    letters: np.ndarray,
    alphabet: int,
    max_order: int,
    past: tuple[np.ndarray, ...],
    levels: list[_Level],
    split: list[np.ndarray],
) -> np.ndarray:
    """What every symbol costs behind its context, from the root to the leaves."""
    at = np.arange(max_order, len(letters), dtype=letters.dtype)
    node, loss = np.zeros(len(at), letters.dtype), np.empty(len(at))
    for length, (level, paid) in enumerate(zip(levels, split, strict=True)):
        goes_on = paid[node]
        ends = np.flatnonzero(~goes_on)
        here, of = at[ends], node[ends]
        pair = located(level.pairs, of * alphabet + letters[here], len(level.total) * alphabet)
        cost = np.log(level.total[level.pairs // alphabet] / level.count)  # of each pair
        loss[here - max_order] = cost[pair]
        if len(ends):
            kept = np.flatnonzero(goes_on)
            at, node = at[kept], node[kept]
        if not len(at):
            break
        back, face = divmod(length, len(past))
        child = node * alphabet + past[face][at - (1 + back)]
        node = located(levels[length + 1].children, child, len(level.total) * alphabet)
    return loss
