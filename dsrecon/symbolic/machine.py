"""Unifilar machines: finite states, symbols on the edges, and the state and a symbol fix the next state."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dsrecon.symbolic.symbols import as_sequence

_SUM = 1e-9  # how far the probabilities of a state may be from 1


@dataclass(frozen=True, init=False)
class Machine:
    """A unifilar edge-labelled machine: in state `s` it emits the symbol `x` with probability `p(x | s)` and goes to
    the state `t(s, x)`, which is fixed by both.

    An epsilon-machine is such a machine whose states are the causal states of a process: the coarsest partition of
    the pasts that predicts the future as well as the pasts do. Equal machines have equal fields; a machine can be a
    key.

    **Arguments:**

    - `symbols`: the alphabet, `a` different integers in increasing order, at least two.
    - `targets` `[s, a]`: number of the state that symbol `x` leads to from state `s`; -1 where `x` cannot follow.
    - `probabilities` `[s, a]`: `p(x | s)`; each row sums to 1, and an entry is positive where there is a target and 0
      where there is none.

    Rows are tuples, so that nothing in a machine changes. Rows whose sum is off 1 by more than 1e-12, and by less than
    1e-9, are divided by it.

    **Raises:** `ValueError` for another alphabet, shapes that differ, targets that are no states, probabilities that
    are negative, not finite or do not sum to 1, and states that cannot all be reached from one another: transient
    states have no share in the stationary distribution, so leave them out.

    Reference: Shalizi & Crutchfield 2001, *Computational mechanics: pattern and prediction, structure and simplicity*,
    Journal of Statistical Physics 104, 817.
    """

    symbols: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]

    def __init__(self, symbols: Any, targets: Any, probabilities: Any):
        symbols = tuple(_whole(x, "symbols") for x in symbols)
        if len(symbols) < 2 or list(symbols) != sorted(set(symbols)):
            raise ValueError(f"symbols must be two or more different integers in increasing order: got {symbols}.")
        targets, probs = _array(targets, "targets"), _array(probabilities, "probabilities")
        if targets.dtype.kind not in "iu":
            raise ValueError(f"targets must be integers: got {targets.dtype}.")
        for name, found in (("targets", targets), ("probabilities", probs)):
            if found.ndim != 2 or not len(found) or found.shape != (len(targets), len(symbols)):
                raise ValueError(f"{name} must have shape (states, {len(symbols)} symbols): got {found.shape}.")
        probs = probs.astype(np.float64)
        if targets.min() < -1 or targets.max() >= len(targets):
            raise ValueError(f"targets must lie between -1 and {len(targets) - 1}: got {targets.tolist()}.")
        if not np.isfinite(probs).all() or (probs < 0).any():
            raise ValueError(f"probabilities must be finite and not negative: got {probs.tolist()}.")
        total = probs.sum(1)
        if (np.abs(total - 1) > _SUM).any():
            worst = int(np.argmax(np.abs(total - 1)))
            raise ValueError(
                f"probabilities of each state must sum to 1: those of state {worst} sum to {total[worst]}."
            )
        if ((probs > 0) != (targets >= 0)).any():
            s, x = np.argwhere((probs > 0) != (targets >= 0))[0].tolist()
            raise ValueError(
                "probabilities must be positive where there is a target and 0 where there is none: state "
                f"{s} goes to {targets[s, x]} on symbol {symbols[x]} with probability {probs[s, x]}."
            )
        source, column = np.nonzero(targets >= 0)
        edges = sparse.csr_array((np.ones(len(source)), (source, targets[source, column])), shape=(len(targets),) * 2)
        parts, part = connected_components(edges, directed=True, connection="strong")
        if parts > 1:
            raise ValueError(
                "every state must be reached from every other: the states fall into "
                f"{parts} parts, {[np.flatnonzero(part == p).tolist() for p in range(parts)]}."
            )
        off = (
            np.abs(total - 1) > 1e-12
        )  # what is nearer stays as it is, so that a machine that is written comes back equal
        probs[off] /= total[off, None]
        object.__setattr__(self, "symbols", symbols)
        object.__setattr__(self, "targets", tuple(map(tuple, targets.tolist())))
        object.__setattr__(self, "probabilities", tuple(map(tuple, probs.tolist())))

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.targets)

    @property
    def edges(self) -> list[tuple[int, int, int, float]]:
        """`(state, symbol, next state, probability)` of each edge, by state and symbol."""
        return [
            (s, x, t, p)
            for s in range(self.states)
            for x, t, p in zip(self.symbols, self.targets[s], self.probabilities[s], strict=True)
            if t >= 0
        ]

    @cached_property
    def matrices(self) -> Float[np.ndarray, "a s s"]:
        """`T[x, i, j]`: probability that state `i` emits the symbol of number `x` and goes to `j`."""
        T = np.zeros((len(self.symbols), self.states, self.states))
        targets, probs = np.array(self.targets), np.array(self.probabilities)
        s, x = np.nonzero(targets >= 0)
        T[x, s, targets[s, x]] = probs[s, x]
        T.setflags(write=False)
        return T

    @property
    def transitions(self) -> Float[np.ndarray, "s s"]:
        """Row-stochastic matrix from state to state, whatever the symbol."""
        return self.matrices.sum(0)

    @cached_property
    def stationary(self) -> Float[np.ndarray, "s"]:
        """The distribution over the states that one step does not change: `pi T = pi`, which sums to 1."""
        found = stationary(self.transitions)
        found.setflags(write=False)
        return found

    @property
    def entropy_rate(self) -> float:
        """`h = - sum_s pi(s) sum_x p(x | s) ln p(x | s)`, nats per symbol: exact, because the machine is unifilar."""
        return float(self.stationary @ entropies(np.array(self.probabilities)))

    @property
    def statistical_complexity(self) -> float:
        """`C = - sum_s pi(s) ln pi(s)`, nats: what the states remember of the past. It is that of the process where
        no two states have the same future (`minimal`)."""
        return float(entropies(self.stationary))

    @property
    def topological_entropy(self) -> float:
        """`ln` of the spectral radius of the matrix that counts the edges from state to state, nats per symbol.

        Words are counted once each as long as the machine is unifilar, so this is the growth rate of the number of
        words it can emit. Reference: Lind & Marcus 1995, *An introduction to symbolic dynamics and coding*, section
        4.1.
        """
        counts = (self.matrices > 0).sum(0).astype(float)
        return float(np.log(np.abs(np.linalg.eigvals(counts)).max())) + 0.0

    def excess_entropy(self, *, tolerance: float = 1e-9, beliefs: int = 200_000) -> float:
        """`E = I(past; future) = sum_L (h(L) - h)`, nats, with `h(L)` the entropy of a symbol given the `L - 1` before.

        `h(L) - h = sum_b w(b) I(X; S | b)` over the beliefs `b` (distributions over the states) that `L - 1`
        symbols leave in an observer who began with the stationary distribution, `w` their probabilities. What is left
        after `L` terms is at most the mean entropy of the beliefs, which bounds the error.

        **Arguments:** `tolerance` of the result, nats; `beliefs`: how many may be held at a time.

        **Raises:** `ValueError` where two states have the same future (no observer can tell them apart: `minimal`), and
        where `beliefs` are too few for the tolerance: it says what was reached.

        Reference: Crutchfield, Ellison & Mahoney 2009, *Time's barbed arrow*, Physical Review Letters 103, 094101;
        Crutchfield & Feldman 2003, *Regularities unseen, randomness observed*, Chaos 13, 25.
        """
        if self.minimal().states < self.states:
            raise ValueError(
                f"no two states may have the same future: {self.states} states make up a process of fewer."
            )
        probs, T = np.array(self.probabilities), self.matrices
        own, belief, weight, total, lost = entropies(probs), self.stationary[None], np.ones(1), 0.0, 0.0
        while True:
            unsure = entropies(belief)
            left = float(weight @ unsure)
            if left + lost <= tolerance:
                return total
            total += float(weight @ (entropies(belief @ probs) - belief @ own))
            joint = np.einsum("bi,xij->bxj", belief, T)
            mass = joint.sum(2)
            keep = mass > 0
            weight = (weight[:, None] * mass)[keep]
            belief, weight = _merged(joint[keep] / mass[keep][:, None], weight)
            share = weight * entropies(belief)
            drop = (share <= tolerance * 1e-3 / (1 + len(share))) | (share == 0)
            lost += float(share[drop].sum())
            belief, weight = belief[~drop], weight[~drop]
            if len(weight) > beliefs or lost > tolerance:
                raise ValueError(
                    f"beliefs={beliefs} are too few for tolerance={tolerance}: E lies between {total} and "
                    f"{total + float(share.sum()) + lost}."
                )

    def minimal(self) -> "Machine":
        """The same process with the fewest states: states with the same future (to 1e-12) are one.

        States are numbered by the least of the numbers that they had. Reference: Hopcroft & Ullman 1979,
        *Introduction to automata theory, languages, and computation*, section 3.4.
        """
        targets, probs = np.array(self.targets), np.array(self.probabilities)
        label = _grouped(np.round(probs, 12))
        while True:
            finer = _grouped(np.column_stack([label, np.where(targets >= 0, label[targets], -1)]))
            if finer.max() == label.max():
                break
            label = finer
        first = np.unique(label, return_index=True)[1]
        return Machine(self.symbols, np.where(targets >= 0, label[targets], -1)[first], probs[first])

    def probability(self, word: Any) -> float:
        """Probability that the stationary process emits `word`, a row of symbols `[L]`, at a given time.

        **Raises:** `ValueError` for what is no row of symbols of this machine.
        """
        belief = self.stationary
        for x in self.numbers(word):
            belief = belief @ self.matrices[x]
        return float(belief.sum())

    def words(self, length: int) -> tuple[Int[np.ndarray, "w length"], Float[np.ndarray, "w"]]:
        """Every word of a length that can occur, in alphabetical order, and its probability: they sum to 1.

        **Raises:** `ValueError` for a length below 1.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1: got {length}.")
        word, belief = np.zeros((1, 0), int), self.stationary[None]
        for _ in range(length):
            joint = np.einsum("wi,xij->wxj", belief, self.matrices)
            w, x = np.nonzero(joint.sum(2) > 0)
            word, belief = np.column_stack([word[w], np.array(self.symbols)[x]]), joint[w, x]
        return word, belief.sum(1)

    def log_likelihood(self, symbols: Any) -> float:
        """`ln` of the probability of a sequence `[t]` from the stationary distribution, nats; `-inf` for one that the
        machine cannot emit.

        **Raises:** `ValueError` as `as_sequence`, and for symbols that are not in the alphabet.
        """
        belief, total = self.stationary, 0.0
        for x in self.numbers(symbols):
            belief = belief @ self.matrices[x]
            mass = belief.sum()
            if mass <= 0:
                return float("-inf")
            total, belief = total + np.log(mass), belief / mass
        return float(total)

    def sample(self, steps: int, *, seed: int, start: int | None = None) -> Int[np.ndarray, "steps"]:
        """A sequence that the machine emits.

        **Arguments:** `steps`, at least 1; `seed` of the draws; `start`, a state (default: drawn from the
        stationary distribution).

        **Returns:** symbols `[steps]`.
        """
        if steps < 1 or (start is not None and not 0 <= start < self.states):
            raise ValueError(f"steps must be at least 1, start one of {self.states} states: got {steps}, {start}.")
        rng = np.random.default_rng(seed)
        state = int(rng.choice(self.states, p=self.stationary)) if start is None else start
        edges, shares = [], []
        for targets, probs in zip(self.targets, self.probabilities, strict=True):
            able = [x for x, target in enumerate(targets) if target >= 0]
            edges.append([(x, targets[x]) for x in able])
            shares.append(np.cumsum([probs[x] for x in able])[:-1].tolist())
        out = np.empty(steps, np.int64)
        for t, draw in enumerate(rng.random(steps).tolist()):
            choice = 0
            for limit in shares[state]:
                choice += draw >= limit
            out[t], state = edges[state][choice]
        return np.array(self.symbols)[out]

    def numbers(self, symbols: Any) -> Int[np.ndarray, "t"]:
        """A sequence as numbers of its symbols in the alphabet.

        **Raises:** `ValueError` as `as_sequence`, and for symbols that are not in the alphabet.
        """
        values, alphabet = as_sequence(symbols).values, np.array(self.symbols)
        place = np.minimum(np.searchsorted(alphabet, values), len(alphabet) - 1)
        if (alphabet[place] != values).any():
            others = np.setdiff1d(values, alphabet).tolist()
            raise ValueError(f"symbols must be those of the machine, {self.symbols}: got {others[:10]} too.")
        return place


def golden_mean(p: float = 0.5) -> Machine:
    """0 and 1 without "1 1": after a 1 comes a 0, after a 0 comes a 1 with probability `p`.

    `p = 1 - 1 / golden ratio` has the greatest entropy rate, `ln` of the golden ratio.
    """
    return Machine((0, 1), ((0, 1), (0, -1)), ((1 - p, p), (1.0, 0.0)))


def even(p: float = 0.5) -> Machine:
    """Blocks of 1 of even length between zeros: at a border a block begins with probability `p`.

    No finite number of past symbols of a long block tells its parity, so this process is no Markov chain of any order.
    Reference: Weiss 1973, *Subshifts of finite type and sofic systems*, Monatshefte fuer Mathematik 77, 462.
    """
    return Machine((0, 1), ((0, 1), (-1, 0)), ((1 - p, p), (0.0, 1.0)))


def biased_coin(p: float = 0.5) -> Machine:
    """Independent draws: 1 with probability `p`, and one state, for there is nothing to remember."""
    return Machine((0, 1), ((0, 0),), ((1 - p, p),))


def stationary(P: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s"]:
    """The distribution that an irreducible stochastic matrix leaves as it is: `pi P = pi`, `sum pi = 1`."""
    size = len(P)
    A = np.vstack([P.T - np.eye(size), np.ones(size)])
    found = np.linalg.lstsq(A, np.append(np.zeros(size), 1.0), rcond=None)[0]
    found = np.maximum(found, 0.0)
    return found / found.sum()


def entropies(p: Float[np.ndarray, "... n"]) -> Any:
    """`- sum p ln p` along the last axis, nats; `0 ln 0 = 0`."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1) + 0.0


def _merged(belief: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal beliefs (to 1e-12) as one, with the sum of their weights."""
    _, first, place = np.unique(np.round(belief, 12), axis=0, return_index=True, return_inverse=True)
    return belief[first], np.bincount(place.reshape(-1), weight, len(first))


def _grouped(rows: np.ndarray) -> np.ndarray:
    """A number for each row, equal where rows are, in the order in which they first occur."""
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place.reshape(-1)]


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be integers: got {value!r}.")
    return int(value)


def _array(rows: Sequence[Sequence[Any]] | np.ndarray, name: str) -> np.ndarray:
    try:
        found = np.asarray(rows)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one length: got {rows!r}.") from error
    if found.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be numbers: got {found.dtype} of shape {found.shape}.")
    return found
