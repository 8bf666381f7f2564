"""Words that never occur, and whether they are forbidden or only rare."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from dsrecon.symbolic.symbols import as_sequence
from dsrecon.symbolic.windows import letters_of, word_codes

_MOST = 2_000_000  # candidates of one length


def forbidden_words(symbols: Any, length: int, *, level: float = 0.05) -> xr.Dataset:
    """Minimal forbidden words: absent although both words that are one symbol shorter occur.

    Of `w = a u b`, `a u` and `u b` occur and `w` does not; every absent word holds one of these. By chance a word is
    absent where it is rare. Under the Markov chain of order `len(w) - 2` that fits the counts (it knows `a u` and `u
    b`, and nothing of `w`) it would occur

    `expected = N(a u) N(u b) / N(u)`

    times, and be absent with probability about `exp(-expected (1 - s))`; `s` is the share of its occurrences that
    another one follows at once (of "1 1 1": the share of 1 after "1 1"), for occurrences in heaps leave more records
    without any. `forbidden` says that this probability, times the number of words of that length that were tried, is
    below `level`: where nothing is forbidden, a record names a word of that length with about that probability at
    most.

    **Arguments:** `symbols`: the `Dataset` of `encode` or of a coding, its `symbol`, or integers `[t]`; `length`: of
    the longest words, at least 2 and at most t. All lengths from 2 are listed; symbols that never occur are not
    words.

    **Returns:** `Dataset` along `word`, shortest first and the most expected first: `symbols(word, position)`, filled
    up with -1 behind the end of shorter words (then `size(word)` counts); `size`, `expected`, `chance` (the
    probability above), `forbidden`; the coordinate `word` is the word as text. Attributes: `tried_2`, `tried_3`, ...:
    words of each length that might have occurred, present or absent; `level`, `steps`, `time_step`, `time_unit`.

    **Raises:** `ValueError` as `as_sequence`, for another length, and where more than two million words would have to
    be tried.

    Reference: Mignosi, Restivo & Sciortino 2002, *Words and forbidden factors*, Theoretical Computer Science;
    expected counts of words: Reinert, Schbath & Waterman 2000, *Probabilistic and statistical properties of words*.
    """
    sequence = as_sequence(symbols)
    values = sequence.values
    if not 2 <= length <= len(values):
        raise ValueError(f"length must lie between 2 and the {len(values)} steps of symbols: got {length}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1: got {level}.")
    letters, alphabet = letters_of(values)
    rows: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {"size": [], "expected": [], "chance": [], "forbidden": []}
    tried: dict[str, int] = {}
    halves = None
    for size, table in enumerate(_tables(letters, len(alphabet), length), 1):
        if halves is not None:
            words, expected, repeats, candidates = _absent(letters, halves, table, size)
            chance = np.exp(-expected * (1 - repeats))
            order = np.argsort(-expected, kind="stable")
            filled = np.full((len(words), length), -1)
            filled[:, :size] = alphabet[words]
            rows.append(filled[order])
            found = (np.full(len(words), size), expected, chance, chance * candidates < level)
            for name, column in zip(columns, found, strict=True):
                columns[name].append(column[order])
            tried[f"tried_{size}"] = candidates
        halves = table
    filled = np.concatenate(rows)
    sizes = np.concatenate(columns["size"])
    names = [" ".join(map(str, row[:n])) for row, n in zip(filled.tolist(), sizes.tolist(), strict=True)]
    about = {"level": level, "steps": len(values), "time_step": sequence.time_step, "time_unit": sequence.time_unit}
    return xr.Dataset(
        {"symbols": (("word", "position"), filled)}
        | {name: ("word", np.concatenate(column)) for name, column in columns.items()},
        coords={"word": np.array(names, dtype=object).astype(str), "position": np.arange(length)},
        attrs={**tried, **about},
    )


class _Table(NamedTuple):
    """The words of one length `[w]` in lexicographic order: a step where each stands, how often it does, and the
    numbers of the words without its last (`prefix`) and without its first symbol (`suffix`), of which there are
    `shorter` with `counts`."""

    at: np.ndarray
    count: np.ndarray
    prefix: np.ndarray
    suffix: np.ndarray
    counts: np.ndarray


def _tables(letters: np.ndarray, alphabet: int, longest: int) -> Iterator[_Table]:
    before, counts = np.zeros(len(letters) + 1, np.int64), np.array([len(letters)])
    for code, words in word_codes(letters, alphabet, longest):
        at = np.empty(words, np.int64)
        at[code] = np.arange(len(code))
        count = np.bincount(code, minlength=words)
        yield _Table(at, count, before[at], before[at + 1], counts)
        before, counts = code, count


def _absent(
    letters: np.ndarray, halves: _Table, table: _Table, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Absent words `[f, size]` made of two halves that overlap in all but one symbol; their expected counts, the
    share of repeats; and how many words, present or absent, are so made."""
    many, inner = len(halves.at), len(halves.counts)
    width = np.bincount(halves.prefix, minlength=inner)  # how many words continue each inner word: they stand together
    start = np.cumsum(width) - width
    each = width[halves.suffix]
    candidates = int(each.sum())
    if candidates > _MOST:
        raise ValueError(
            f"length must be less than {size}: {candidates:,} words of that length would have to be tried."
        )
    left = np.repeat(np.arange(many), each)
    right = np.arange(candidates) - np.repeat(np.cumsum(each) - each, each) + start[halves.suffix[left]]
    missing = ~np.isin(left * many + right, table.prefix * many + table.suffix)
    left, right = left[missing], right[missing]
    words = np.concatenate(
        [letters[halves.at[left][:, None] + np.arange(size - 1)], letters[halves.at[right] + size - 2][:, None]], axis=1
    )
    within = halves.counts[halves.suffix[left]]
    constant = (words == words[:, :1]).all(1)
    return words, halves.count[left] * halves.count[right] / within, constant * halves.count[left] / within, candidates
