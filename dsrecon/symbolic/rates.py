"""How much information a sequence makes, and how much of it its past holds of its future: estimates with intervals."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dsrecon.symbolic.contexts import Contexts, contexts
from dsrecon.symbolic.symbols import as_sequence
from dsrecon.symbolic.uncertainty import Spread, spread_of_mean
from dsrecon.symbolic.windows import letters_of, words_of
from dsrecon.symbolic.words import entropies

_LONGEST = 200  # order, at most, where none is given
_FEWEST = 20  # symbols


class EntropyRate(NamedTuple):
    """The entropy rate of a sequence, in nats, with its interval.

    - `rate`, `low`, `high`: nats per symbol; `rate_per_time`, `low_per_time`, `high_per_time`: nats per unit of time;
    - `standard_error` of `rate`; `bias`: what was added to the plug-in value; `level` of the interval;
    - `order`: length of the longest context that was told apart; `contexts`: how many; `limited`: whether longer
      contexts than were allowed might lower the rate;
    - `steps`: symbols that were used; `block`: steps of a block of the interval; `time_unit`.
    """

    rate: float
    low: float
    high: float
    rate_per_time: float
    low_per_time: float
    high_per_time: float
    standard_error: float
    bias: float
    level: float
    order: int
    contexts: int
    limited: bool
    steps: int
    block: int
    time_unit: str


class ExcessEntropy(NamedTuple):
    """What the past of a sequence tells of its future, in nats, with its interval.

    - `value`, `low`, `high`: nats; `standard_error`; `level` of the interval; `length` of the words that it was read
      at;
    - `next`: what the next length would add: where that is not small, more is missing than the interval holds.
    """

    value: float
    low: float
    high: float
    standard_error: float
    level: float
    length: int
    next: float


def entropy_rate(symbols: Any, *, max_order: int | None = None, level: float = 0.95) -> EntropyRate:
    """Entropy rate `h = -<ln p(x_t | all symbols before)>`, with bias correction and a confidence interval.

    The past is told apart as far as the data can show it: contexts of variable length, by the Bayesian criterion, and
    read a little further than that, for memory too weak to be sure of (`dsrecon.symbolic.contexts`). Then

    `h = sum_c p(c) H(next | c) + K / (2 t)`,

    the conditional entropy behind the contexts `c`, and the correction of Miller and Madow for its `K` free
    probabilities. The interval: `h` has, to first order, the error of the mean of `-ln p(x_t | c_t)`, whose standard
    error is that of the block bootstrap (`dsrecon.symbolic.uncertainty`); the second order, the variance `K / (2
    t^2)` of a chi-square, is added, for it is all there is where every symbol costs the same (a fair coin).

    What the interval does not hold: memory too weak or too long for the record to show, which makes `h` too high. It
    falls to the truth as the record grows. A sequence of one symbol has the rate 0, and so has a periodic one.

    **Arguments:** `symbols`: the `Dataset` of `encode` or of a coding, its `symbol`, or integers `[t]`; of
    `dwell_words` the rate per unit of time takes account of how long each symbol lasted; `max_order`: of contexts, in
    symbols (default: 200, and at most a tenth of the record); `level` of the interval.

    **Returns:** `EntropyRate`.

    **Raises:** `ValueError` as `as_sequence`, for fewer than 20 symbols, and for numbers out of range.

    References: the criterion: Csiszár & Talata 2006; bias: Miller 1955, *Note on the bias of information estimates*;
    that `-ln p` of a long word is asymptotically normal around `h t`: Ibragimov 1962, *Some limit theorems for
    stationary processes*.
    """
    sequence = as_sequence(symbols)
    _checked_level(level)
    tree = _told_apart(symbols, sequence.values, max_order)
    steps = len(tree.loss)
    bias, more = tree.parameters / (2 * steps), tree.parameters / (2 * steps**2)
    rate = float(tree.loss.mean()) + bias
    spread = spread_of_mean(tree.loss)
    half = spread.half_width(level, more)
    duration = _durations(symbols, sequence.time_step, len(sequence.values))[-steps:]
    mean = float(duration.mean())
    per_time = rate / mean
    timed = spread_of_mean((tree.loss - per_time * duration) / mean) if np.ptp(duration) else _scaled(spread, mean)
    half_timed = timed.half_width(level, more / mean**2)
    return EntropyRate(
        rate=rate,
        low=max(rate - half, 0.0),
        high=rate + half,
        rate_per_time=per_time,
        low_per_time=max(per_time - half_timed, 0.0),
        high_per_time=per_time + half_timed,
        standard_error=float(np.hypot(spread.error, np.sqrt(more))),
        bias=bias,
        level=level,
        order=tree.order,
        contexts=tree.leaves,
        limited=tree.limited,
        steps=steps,
        block=spread.block,
        time_unit=sequence.time_unit,
    )


def excess_entropy(symbols: Any, *, max_length: int = 20, level: float = 0.95) -> ExcessEntropy:
    """Excess entropy: the mutual information of past and future, with a confidence interval.

    `E = lim H(L) - L h = sum_L (h(L) - h)`: how much the entropies of words exceed what the rate alone would give; 0
    for a coin, `ln p` for a sequence of period p. It is read at the longest words that may be read (`reliable` of
    `block_entropies`) but not beyond the longest context of `entropy_rate`, for behind a Markov chain of order k all
    is said at L = k. `H` is corrected for its bias as in `block_entropies`, `h` as in `entropy_rate`.

    The sum grows with L: `next` is what one more length would add. Where that is not small, `value` is a lower bound.

    **Arguments:** `symbols`: as `entropy_rate`; `max_length` of the words; `level` of the interval.

    **Returns:** `ExcessEntropy`. **Raises:** `ValueError` as `entropy_rate`.

    Reference: Crutchfield & Feldman 2003, *Regularities unseen, randomness observed: levels of entropy convergence*,
    Chaos.
    """
    sequence = as_sequence(symbols)
    _checked_level(level)
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1: got {max_length}.")
    values = sequence.values
    tree = _told_apart(symbols, values, None)
    steps = len(tree.loss)
    rate = float(tree.loss.mean()) + tree.parameters / (2 * steps)
    longest = min(max_length, max(tree.order, 1), len(values) // 2)
    table = entropies(values, longest + 1, None)
    length = max(int(table["reliable"][:longest].sum()), 1)
    corrected = table["corrected"]
    value = float(corrected[length - 1] - length * rate)
    letters, alphabet = letters_of(values)
    code, words = words_of(letters, len(alphabet), length)
    surprise = np.log(len(code) / np.bincount(code, minlength=words))[code]  # of windows that begin at 0, 1, ...
    lead = len(values) - steps  # symbols before the first that has a loss
    surprise, losses = surprise[lead:], np.cumsum(tree.loss)
    surprise[0] -= losses[length - 1]
    surprise[1:] -= losses[length:] - losses[:-length]  # what the symbols of a window cost
    spread = spread_of_mean(surprise)
    more = (words - 1 + tree.parameters) / (2 * steps**2)
    half = spread.half_width(level, more)
    return ExcessEntropy(
        value=value,
        low=max(value - half, 0.0),
        high=value + half,
        standard_error=float(np.hypot(spread.error, np.sqrt(more))),
        level=level,
        length=length,
        next=float(corrected[length] - corrected[length - 1] - rate),
    )


def _told_apart(symbols: Any, values: np.ndarray, max_order: int | None) -> Contexts:
    steps = len(values)
    if steps < _FEWEST:
        raise ValueError(f"symbols must be at least {_FEWEST} for an entropy rate: got {steps}.")
    if max_order is not None and not 0 <= max_order <= steps - _FEWEST // 2:
        raise ValueError(
            f"max_order must lie between 0 and {steps - _FEWEST // 2} for {steps} symbols: got {max_order}."
        )
    letters, alphabet = letters_of(values)
    longest = min(_LONGEST, steps // 10) if max_order is None else max_order
    kinds = _kinds(symbols, alphabet)
    tree = contexts(letters, len(alphabet), longest, kinds)
    if tree.depth < longest and longest > steps // 1000:  # the first symbols are wanted too, where they are many
        tree = contexts(letters, len(alphabet), tree.depth, kinds)._replace(limited=tree.limited)
    return tree


def _kinds(symbols: Any, alphabet: np.ndarray) -> np.ndarray | None:
    """Of each symbol of `dwell_words` that occurs, the old symbol that it is a run of, from 0; otherwise nothing."""
    if not isinstance(symbols, xr.Dataset) or "of" not in symbols:
        return None
    return letters_of(symbols["of"].sel(region=alphabet).values)[0]


def _durations(symbols: Any, time_step: float, steps: int) -> np.ndarray:
    """How long each symbol lasts, `[t]`, in units of time."""
    if isinstance(symbols, xr.Dataset) and "duration" in symbols and symbols["duration"].shape == (steps,):
        return symbols["duration"].values.astype(float)
    return np.broadcast_to(time_step, steps)


def _scaled(spread: Spread, duration: float) -> Spread:
    return spread._replace(error=spread.error / duration)


def _checked_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1: got {level}.")
