"""A semi-Markov model of a symbol sequence: where it goes when it leaves, and how long it stays."""

import dataclasses
from typing import Any

import numpy as np

from dsrecon.symbolic.symbols import as_sequence, dwell_times


@dataclasses.dataclass(frozen=True)
class SemiMarkov:
    """A process that goes from symbol to symbol as a Markov chain does, and stays in each for a time of its own.

    - `symbols` `[r]`: the symbols, in increasing order.
    - `exits` `[r, r]`: the chain embedded at the changes, `P(next = j | i is left)`; zero on the diagonal.
    - `dwell` `[r, d]`: `P(stay of k steps | i)`, k = 1 .. d; rows sum to 1.
    - `runs` `[r]`: stays seen whole, of each; `censored` `[r]`: those cut off by the end of the record.
    - `time_step`, `time_unit`.

    A Markov chain is the case of geometric stays. What a stay tells of the next symbol or the next stay is not in the
    model: `dwell_models` and the entropies of dwell-coded words show how much that is.
    """

    symbols: np.ndarray
    exits: np.ndarray
    dwell: np.ndarray
    runs: np.ndarray
    censored: np.ndarray
    time_step: float
    time_unit: str

    @property
    def mean_dwell(self) -> np.ndarray:
        """Mean stay in each symbol, `[r]`, in units of time."""
        return self.dwell @ np.arange(1, self.dwell.shape[1] + 1) * self.time_step

    @property
    def visits(self) -> np.ndarray:
        """Share of the stays that are in each symbol, `[r]`: the stationary distribution of `exits`."""
        size = len(self.symbols)
        system = np.vstack([self.exits.T - np.eye(size), np.ones(size)])
        found = np.linalg.lstsq(system, np.r_[np.zeros(size), 1.0], rcond=None)[0]
        return np.clip(found, 0, None) / np.clip(found, 0, None).sum()

    @property
    def shares(self) -> np.ndarray:
        """Share of the time that is spent in each symbol, `[r]`: visits times mean stays."""
        time = self.visits * self.mean_dwell
        return time / time.sum()

    @property
    def entropy_rate(self) -> float:
        """Entropy of the process, nats per unit of time: what a change brings, over the mean time between changes.

        `sum_i pi_i (H(exits_i) + H(dwell_i)) / sum_i pi_i mean_i`. Of stays that are almost all of different length the
        plug-in entropy is biased low, by some `(number of lengths - 1) / (2 runs)` each.
        """
        pi = self.visits
        return float(pi @ (_entropies(self.exits) + _entropies(self.dwell)) / (pi @ self.mean_dwell))

    def sample(self, steps: int, *, seed: int = 0) -> np.ndarray:
        """A sequence of the model, stationary from its first step on: the first stay is joined at a random moment.

        **Arguments:** `steps`, at least 1; `seed`. **Returns:** symbols `[steps]`.
        **Raises:** `ValueError` for fewer steps.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1: got {steps}.")
        rng = np.random.default_rng(seed)
        states, stays, total = [], [], 0
        state = int(rng.choice(len(self.symbols), p=self.shares))
        begun = self.dwell[state] * np.arange(1, self.dwell.shape[1] + 1)  # a moment falls into long stays more often
        whole = 1 + int(rng.choice(len(begun), p=begun / begun.sum()))
        stay = whole - int(rng.integers(whole))
        exits, dwell = self.exits.cumsum(1), self.dwell.cumsum(1)
        exits, dwell = exits / exits[:, -1:], dwell / dwell[:, -1:]
        while True:
            states.append(state)
            stays.append(stay)
            total += stay
            if total >= steps:
                return np.repeat(self.symbols[states], stays)[:steps]
            chance = rng.random(2)
            state = int(np.searchsorted(exits[state], chance[0], side="right"))
            stay = 1 + int(np.searchsorted(dwell[state], chance[1], side="right"))


def _entropies(rows: np.ndarray) -> np.ndarray:
    """Entropy of each row, nats."""
    return -np.where(rows > 0, rows * np.log(np.where(rows > 0, rows, 1.0)), 0.0).sum(1)


def semi_markov(symbols: Any) -> SemiMarkov:
    """The semi-Markov model of a sequence, by counts.

    Stays are estimated from what was seen of each. The last stay goes on when the record ends: that it lasted at least
    so long counts (Kaplan and Meier's estimate: of all stays that reached `k` steps, which part ended there), and its
    length does not pass for a whole one. The first may have begun before: how long it lasted is not known, from when it
    did neither, so only where it went counts. If no stay is as long as the last one, what is left of its
    probability is put there (Efron's convention).

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`.

    **Returns:** `SemiMarkov`. **Raises:** `ValueError` as `as_sequence`; for a sequence of one symbol; and for one
    with a symbol that was not both entered and left within the record, which is named: nothing is known of its stays
    or exits.

    Reference: Kaplan & Meier 1958, *Nonparametric estimation from incomplete observations*, Journal of the American
    Statistical Association 53, 457; Barbu & Limnios 2008, *Semi-Markov chains and hidden semi-Markov models toward
    applications*, Springer.
    """
    sequence = as_sequence(symbols)
    stays = stays_of(symbols)
    size, longest = len(stays.found), int(stays.steps[1:].max())
    exits = np.zeros((size, size))
    np.add.at(exits, (stays.index[:-1], stays.index[1:]), 1)
    dwell = np.zeros((size, longest))
    for i in range(size):
        dwell[i] = kaplan_meier(*stays.of(i), longest)
    return SemiMarkov(
        stays.found,
        exits / exits.sum(1, keepdims=True),
        dwell,
        np.bincount(stays.index[1:-1], minlength=size),
        np.bincount(stays.index[-1:], minlength=size),
        sequence.time_step,
        sequence.time_unit,
    )


@dataclasses.dataclass(frozen=True)
class Stays:
    """Runs in order: the number of the symbol and the steps of each; `found`: the symbols."""

    found: np.ndarray
    index: np.ndarray
    steps: np.ndarray

    def of(self, i: int) -> tuple[np.ndarray, int]:
        """Whole stays in a symbol `[n]`; steps of the one that the end cut off (0: none)."""
        inner = self.steps[1:-1][self.index[1:-1] == i]
        return inner, int(self.steps[-1]) if self.index[-1] == i else 0


def stays_of(symbols: Any) -> Stays:
    """The stays of a sequence, or the errors of `semi_markov`."""
    runs = dwell_times(symbols)
    found, index = np.unique(runs["symbol"].values, return_inverse=True)
    if len(found) == 1:
        raise ValueError(f"symbols must be of two kinds at least: all {int(runs['steps'].sum())} are {found[0]}.")
    whole = np.bincount(index[1:-1], minlength=len(found))
    if not whole.all():
        named = found[whole == 0].tolist()
        raise ValueError(
            f"every symbol must be entered and left within the record, for stays to be known: {named} "
            f"{'is' if len(named) == 1 else 'are'} not. Merge rare symbols, or take a longer record."
        )
    return Stays(found, index, runs["steps"].values)


def kaplan_meier(whole: np.ndarray, cut: int, longest: int) -> np.ndarray:
    """`P(stay = k)`, k = 1 .. longest, from whole stays and one that had lasted `cut` steps when the record ended."""
    ended = np.bincount(whole, minlength=longest + 1)[1 : longest + 1].astype(float)
    reached = ended[::-1].cumsum()[::-1]
    reached[: max(cut - 1, 0)] += 1  # whether it ends at step `cut` was not seen
    hazard = np.divide(ended, reached, out=np.zeros_like(ended), where=reached > 0)
    alive = np.r_[1.0, np.cumprod(1 - hazard)]
    found = alive[:-1] * hazard
    found[max(cut, int(whole.max())) - 1] += max(1.0 - found.sum(), 0.0)
    return found
