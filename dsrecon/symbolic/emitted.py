"""Sets of emitted sequences compared: shares, volatility, transitions, and two distances of their distributions."""

from typing import Any

import numpy as np
import scipy
import xarray as xr

_MOST = 1000  # sequences of a set that are matched: the cost grows with their third power


def compare_emissions(one: Any, other: Any, *, word: int = 4) -> xr.Dataset:
    """Two sets of symbol sequences, side by side: does one source emit as the other does?

    **Arguments:** `one`, `other`: integers `[b, t]`, `b` sequences of `t` steps each, as many and as long in both;
    `word`: the length of words that are compared.

    **Returns:** `Dataset` along `side` ("one", "other") and the symbols that occur in either:

    - `share(side, symbol)`: of the steps;
    - `volatility(side)`: share of the steps at which the symbol changes;
    - `transition(side, from, to)`: row-stochastic; NaN for a symbol that a side does not leave;
    - `distance`: optimal transport between the two sets of whole sequences, with the share of steps at which two
      sequences differ as the cost (the 1-Wasserstein distance for the normalised Hamming distance; an exact assignment,
      of at most 1000 sequences). Two sets from one source are apart by a good deal, too: **compare with that floor**, a
      second set from the source that is imitated.
    - `word_variation`: total variation between the distributions of words, 0 to 1.

    **Raises:** `ValueError` for what is not integer, sets of unequal shapes, words longer than the sequences.

    Reference: the four comparisons are those of Torre et al. 2025, *Mechanistic interpretability of RNNs emulating
    hidden Markov models*, NeurIPS (arXiv 2510.25674), which aligns the sequences by Sinkhorn iterations; the
    variation of words is added.
    """
    sets = [_checked(one, "one"), _checked(other, "other")]
    if sets[0].shape != sets[1].shape:
        raise ValueError(f"one and other must be as many and as long: got {sets[0].shape} and {sets[1].shape}.")
    if not 1 <= word <= sets[0].shape[1]:
        raise ValueError(f"word must lie between 1 and the {sets[0].shape[1]} steps: got {word}.")
    alphabet, letters = np.unique(np.stack(sets), return_inverse=True)
    letters = letters.reshape(2, *sets[0].shape)
    size = len(alphabet)
    counts = np.stack([_pairs(part, size) for part in letters])
    rows = counts.sum(2, keepdims=True)
    matched = scipy.spatial.distance.cdist(letters[0][:_MOST], letters[1][:_MOST], "hamming")
    distance = matched[scipy.optimize.linear_sum_assignment(matched)].mean()
    return xr.Dataset(
        {
            "share": (("side", "symbol"), np.stack([np.bincount(x.ravel(), minlength=size) / x.size for x in letters])),
            "volatility": ("side", (letters[:, :, 1:] != letters[:, :, :-1]).mean((1, 2))),
            "transition": (("side", "from", "to"), np.where(rows > 0, counts / np.maximum(rows, 1), np.nan)),
            "distance": distance,
            "word_variation": _variation(*(_words(x, size, word) for x in letters)),
        },
        coords={"side": ["one", "other"], "symbol": alphabet, "from": alphabet, "to": alphabet},
        attrs={"sequences": letters.shape[1], "steps": letters.shape[2], "word": word},
    )


def _checked(sequences: Any, name: str) -> np.ndarray:
    found = np.asarray(sequences)
    if found.ndim != 2 or found.dtype.kind not in "iu" or not len(found) or found.shape[1] < 2:
        raise ValueError(
            f"{name} must be integers [sequences, steps], of two steps or more: got {found.dtype} of "
            f"shape {found.shape}."
        )
    return found.astype(np.int64)


def _pairs(letters: np.ndarray, size: int) -> np.ndarray:
    pairs = letters[:, :-1] * size + letters[:, 1:]
    return np.bincount(pairs.ravel(), minlength=size**2).reshape(size, size)


def _words(letters: np.ndarray, size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The words that occur, as numbers, and their shares."""
    code = np.zeros((len(letters), letters.shape[1] - length + 1), np.int64)
    for i in range(length):
        code = code * size + letters[:, i : letters.shape[1] - length + 1 + i]
    words, count = np.unique(code, return_counts=True)
    return words, count / code.size


def _variation(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    words, place = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    signed = np.concatenate([one[1], -other[1]])
    return float(0.5 * np.abs(np.bincount(place, signed, len(words))).sum())
