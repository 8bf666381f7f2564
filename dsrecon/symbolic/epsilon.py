"""Epsilon-machines from a sequence: the causal states of its process, by CSSR."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dsrecon.symbolic.cssr import determinise, recurrent, split
from dsrecon.symbolic.machine import Machine, entropies
from dsrecon.symbolic.passing import bic, log_likelihood, merged, passed
from dsrecon.symbolic.pasts import Pasts, pasts, words
from dsrecon.symbolic.symbols import as_sequence

_OFTEN = 20  # mean occurrences of the pasts of a length from which it can be used
_LONGEST = 10  # symbols of the longest past that is tried unasked
_FIRST = 1_000_000  # symbols that tell how long pasts can be
_DRAWS = 2000  # of the probabilities, for an interval


class Estimate(NamedTuple):
    """A number and its interval, `low` to `high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EpsilonMachine:
    """What `epsilon_machine` found.

    **Fields:**

    - `machine`: causal states as states; probabilities are shares of the passes.
    - `history`: length of the longest pasts that were told apart.
    - `steps`: symbols in the sequence; `counts` `[s, a]`: how often each edge was passed on its way.
    - `log_likelihood` of the passes, nats; `bic`: history to `- 2 log_likelihood + ln(passes) (edges - states)`, for
      each that was tried.
    - `statistical_complexity`, `entropy_rate`: value and interval of confidence `level`, nats (nats per symbol).
    """

    machine: Machine
    history: int
    steps: int
    counts: tuple[tuple[int, ...], ...]
    log_likelihood: float
    bic: tuple[tuple[int, float], ...]
    statistical_complexity: Estimate
    entropy_rate: Estimate
    level: float


def epsilon_machine(
    symbols: Any,
    *,
    history: int | None = None,
    significance: float = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> EpsilonMachine:
    """The epsilon-machine of a sequence, by causal-state splitting reconstruction (CSSR).

    1. *Splitting.* Pasts of 0, 1, ... `history` symbols are put into one state as long as the symbols that follow
       them are equally distributed, by a likelihood-ratio test.
    2. *Determinising.* States are split until all pasts of one are led to the same state by the same symbol.
    3. States that are not visited again and again are left out.
    4. The sequence is sent through the machine; its probabilities are shares of the passes. Two states become one, with
       all that follows from it, as long as that lowers the BIC.

    **Significance.** The test of one past has the level `significance` divided by the number of pasts, so that the
    probability that any is split off by error is at most about `significance` (Bonferroni).

    **Where it departs from the paper.** There each test has the same level, and a past that is led elsewhere always
    founds a state. Here, with few data, it may first join a state from which it does not differ.

    **History.** It must be longer by one than the pasts that tell the states apart. Unless given, every length is tried
    whose pasts occur 20 times on the average, up to 10 symbols, and the machine of the least BIC is kept, of equal
    ones the shortest history.

    **Intervals** hold for the states that were found, not for their number: 2000 draws of the probabilities from
    Dirichlet distributions of the counts; the percentiles, joined with their mirror image about the value, as near
    an equal distribution the complexity can only be underestimated. Both are exact where there is nothing to draw.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `history`, at least 1;
    `significance`, between 0 and 1; `level` of the intervals; `seed` of their draws.

    **Raises:** `ValueError` as `as_sequence`; for an alphabet of one symbol; for a history below 1, not shorter than
    the sequence, or whose pasts occur fewer than 20 times on the average.

    Reference: Shalizi & Klinkner 2004, *Blind construction of optimal nonlinear recursive predictors for discrete
    sequences*, UAI.
    """
    values = as_sequence(symbols).values
    alphabet, letters = np.unique(values, return_inverse=True)
    _check(len(values), alphabet, history, significance, level)
    most = len(values) // _OFTEN
    longest = _reach(letters, len(alphabet), most) if history is None else history
    levels = pasts(letters, len(alphabet), longest, most)
    lengths = list(range(1, len(levels))) if history is None else [history]
    if not lengths or len(levels) <= lengths[0]:
        length = history or 1
        raise ValueError(_too_few(len(words(letters, len(alphabet), length)[0]), length, len(values)))
    tries = {}
    for length in lengths:
        targets, counts = _built(letters, levels[: length + 1], longest, significance)
        tries[length] = (bic(counts), targets, counts)
    best = min(tries, key=lambda length: (round(tries[length][0], 6), length))
    _, targets, counts = tries[best]
    machine = Machine(alphabet.tolist(), targets, counts / counts.sum(1, keepdims=True))
    complexity, rate = _intervals(machine, counts, level, seed)
    return EpsilonMachine(
        machine,
        best,
        len(values),
        tuple(map(tuple, counts.tolist())),
        log_likelihood(counts),
        tuple((length, float(found[0])) for length, found in tries.items()),
        complexity,
        rate,
        level,
    )


def _check(steps: int, alphabet: np.ndarray, history: int | None, significance: float, level: float) -> None:
    if len(alphabet) < 2:
        raise ValueError(f"symbols must hold at least two different ones: got only {alphabet[0]}, {steps} times.")
    if history is not None and not 1 <= history < steps:
        raise ValueError(f"history must be at least 1 and shorter than the {steps} symbols: got {history}.")
    if not (0 < significance < 1 and 0 < level < 1):
        raise ValueError(f"significance and level must lie between 0 and 1: got {significance} and {level}.")
    if history is not None and len(alphabet) ** (history + 1) >= 1 << 62:
        raise ValueError(
            f"history={history} is too long for {len(alphabet)} symbols: words must have numbers below 2^62."
        )


def _reach(letters: np.ndarray, size: int, most: int) -> int:
    """The length up to which pasts are counted: as long as the first million symbols hold no more than `most`."""
    longest = max(1, min(int(62 * np.log(2) / np.log(size)) - 1, _LONGEST, len(letters) - 1))
    for length in range(1, longest + 1):
        if len(letters) > length and len(words(letters[:_FIRST], size, length)[0]) > most:
            return max(1, length - 1)
    return longest


def _too_few(found: int, length: int, steps: int) -> str:
    return (
        f"symbols are too few for history={length}: {found} pasts of that length occur, {steps / found:.1f} times each "
        f"on the average (at least {_OFTEN} are wanted). Give more symbols, a shorter history or a coarser coding."
    )


def _built(letters: np.ndarray, levels: list[Pasts], first: int, significance: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets and counts `[s, a]` of the machine of one history, over the symbols from number `first`."""
    error = significance / sum(len(level.codes) for level in levels[1:])
    labels = split(levels, error)
    targets, weight = determinise(levels, labels, error)
    kept = recurrent(targets, weight)
    number = np.full(len(targets) + 1, -1)  # the last stands for "nowhere"
    number[kept] = np.arange(len(kept))
    targets, counts = passed(number[targets[kept]], letters[first:])
    return merged(targets, counts, error)


def _intervals(machine: Machine, counts: np.ndarray, level: float, seed: int) -> tuple[Estimate, Estimate]:
    """Statistical complexity and entropy rate with their intervals."""
    rng, states = np.random.default_rng(seed), machine.states
    draws = rng.gamma(np.broadcast_to(counts, (_DRAWS, *counts.shape)))
    draws /= draws.sum(2, keepdims=True)
    P = np.zeros((_DRAWS, states, states))
    for s, row in enumerate(machine.targets):
        for x, target in enumerate(row):
            if target >= 0:
                P[:, s, target] += draws[:, s, x]
    A = np.swapaxes(P, 1, 2) - np.eye(states)
    A[:, -1] = 1.0  # one of the equations follows from the others: the sum takes its place
    pi = np.linalg.solve(A, np.eye(states)[:, -1:])[..., 0]
    pi = np.maximum(pi, 0.0)
    rates = (pi * entropies(draws)).sum(1)
    complexity, rate = machine.statistical_complexity, machine.entropy_rate
    return (
        _interval(complexity, entropies(pi), float(np.log(states)), level),
        _interval(rate, rates, float(np.log(len(machine.symbols))), level),
    )


def _interval(value: float, draws: np.ndarray, largest: float, level: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]).tolist()
    low, high = min(low, 2 * value - high), max(high, 2 * value - low)
    return Estimate(value, min(max(low, 0.0), value), max(min(high, largest), value))
