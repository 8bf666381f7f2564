"""Words over an alphabet, each up to rotation once."""

from collections.abc import Iterator

import numpy as np

CHUNK = 1 << 16


def necklaces(letters: int, length: int) -> Iterator[np.ndarray]:
    """All words of a length that are no repetition of a shorter one, one of each class of rotations: chunks `[n, k]`.

    Of each class the smallest rotation (a Lyndon word).
    """
    for first in range(0, letters**length, CHUNK):
        code = np.arange(first, min(first + CHUNK, letters**length), dtype=np.int64)
        digits = np.stack([code // letters**i % letters for i in range(length - 1, -1, -1)], axis=1)
        found = digits[smallest(digits, letters)]
        if len(found):
            yield found


def smallest(words: np.ndarray, letters: int) -> np.ndarray:
    """Which words `[n, k]` are smaller than every other rotation of themselves (so none that repeats a shorter one)."""
    weights = letters ** np.arange(words.shape[1] - 1, -1, -1, dtype=np.int64)
    code = words @ weights
    good = np.ones(len(words), bool)
    for shift in range(1, words.shape[1]):
        good &= code < np.roll(words, -shift, axis=1) @ weights
    return good


def count(letters: int, length: int) -> int:
    """How many words `necklaces` gives: `1/k sum_{d | k} mu(d) letters^(k/d)` (Witt's formula)."""
    return sum(_moebius(d) * letters ** (length // d) for d in range(1, length + 1) if length % d == 0) // length


def _moebius(n: int) -> int:
    sign = 1
    for prime in range(2, n + 1):
        if n % prime == 0:
            n //= prime
            if n % prime == 0:
                return 0
            sign = -sign
    return sign
