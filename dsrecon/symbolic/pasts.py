"""How often each symbol follows each past, for pasts of every length up to one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

_DENSE = 1 << 22  # words up to which every possible one has a place in a table
_CHUNK = 1 << 20  # windows counted at a time: it bounds the memory
_SEEN = 5  # occurrences of a past below which nothing is said against it


class Pasts(NamedTuple):
    """The pasts of one length `L` that occur: `codes` `[n]`, increasing, and `counts` `[n, a]` of the symbols that
    follow.

    The code of a past is the number `sum_i x_i a^(L - 1 - i)` of its symbols, the latest last: without its first
    symbol it is the rest of the division by `a^(L - 1)`, and with `x` behind it `code * a + x`.
    """

    codes: Int[np.ndarray, "n"]
    counts: Int[np.ndarray, "n a"]

    def place(self, codes: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Where pasts stand among these; -1 for one that does not occur."""
        found = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[found] == codes, found, -1)


def pasts(letters: Int[np.ndarray, "t"], size: int, longest: int, most: int | None = None) -> list[Pasts]:
    """The pasts of 0, 1, ... `longest` symbols, all counted before the same `t - longest` symbols, so that the
    counts of a past are the sum over those that are longer by one symbol.

    `letters`: numbers below `size`. A word of `longest + 1` symbols must have a number below 2^63. Lengths of which
    more than `most` pasts occur are left out.
    """
    codes, counts = words(letters, size, longest + 1)
    found = []
    for length in range(longest, -1, -1):
        past, place = np.unique(codes // size, return_inverse=True)
        if most is None or len(past) <= most or not length:
            table = np.zeros((len(past), size), np.int64)
            table[place, codes % size] = counts
            found.append(Pasts(past, table))
        codes, place = np.unique(codes % size**length, return_inverse=True)
        counts = np.bincount(place, counts, len(codes)).astype(np.int64)
    return found[::-1]


def words(letters: np.ndarray, size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The words of a length, as increasing codes, and how often each occurs."""
    windows, dense = len(letters) - length + 1, size**length <= _DENSE
    total = np.zeros(size**length if dense else 0, np.int64)
    parts = []
    for first in range(0, windows, _CHUNK):
        last = min(first + _CHUNK, windows)
        code = np.zeros(last - first, np.int64)
        for i in range(length):
            code = code * size + letters[first + i : last + i]
        if dense:
            total += np.bincount(code, minlength=len(total))
        else:
            parts.append(np.unique(code, return_counts=True))
    if dense:
        codes = np.flatnonzero(total)
        return codes, total[codes]
    codes, place = np.unique(np.concatenate([code for code, _ in parts]), return_inverse=True)
    return codes, np.bincount(place, np.concatenate([count for _, count in parts])).astype(np.int64)


def same(a: Int[np.ndarray, "... k"], b: Int[np.ndarray, "... k"]) -> Float[np.ndarray, "..."]:
    """p-value of the hypothesis that two rows of counts are draws from one distribution: the likelihood-ratio test.

    `G = 2 sum_x (a_x ln(a_x / (n_a q_x)) + b_x ln(b_x / (n_b q_x)))` with the shares `q` of both together is about
    chi-square with as many degrees of freedom as symbols occur, less one. Its tails, which tests of many pasts live
    on, are nearer to the exact ones than Pearson's. Rows with fewer than 5 counts have the p-value 1.

    Reference: Wilks 1938, *The large-sample distribution of the likelihood ratio*, Annals of Mathematical Statistics
    9, 60.
    """
    a, b = np.broadcast_arrays(a.astype(float), b.astype(float))
    n, m, both = a.sum(-1), b.sum(-1), a + b
    total = n + m
    with np.errstate(divide="ignore", invalid="ignore"):
        G = special.xlogy(a, a * total[..., None] / (n[..., None] * both))
        G += special.xlogy(b, b * total[..., None] / (m[..., None] * both))
    G = 2 * np.where(both > 0, G, 0.0).sum(-1)
    freedom = np.maximum((both > 0).sum(-1) - 1, 1)
    p = special.chdtrc(freedom, np.maximum(G, 0.0))
    return np.where((n < _SEEN) | (m < _SEEN), 1.0, p)
