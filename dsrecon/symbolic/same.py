"""Have two sequences the same words? A test for sequences whose symbols depend on one another."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import eigh

from dsrecon.symbolic.recode import meanings_of
from dsrecon.symbolic.symbols import as_sequence, dwell_times
from dsrecon.symbolic.uncertainty import spread_of_mean
from dsrecon.symbolic.windows import letters_of, word_codes

_LONGEST = 8  # words, where no length is given
_WINDOWS = 50  # of the shorter sequence, for each word
_COMMON = 16  # words whose memory says how long blocks are
_LETTERS = 8  # common symbols whose combinations are searched for the slowest
_SLOW = 100  # blocks in which it is searched
_MOST = 1000  # blocks of one sequence
_FEWEST = 8
_GAP = 4  # one in so many steps of a block is left out
_RARE = 5  # expected windows of a word, below which it is put together with others


class SameProcess(NamedTuple):
    """What the test of two sequences found.

    - `p_value`: how probable so great a difference is where both are stretches of one process; `statistic`;
    - `distance`: half the summed difference of the shares of words (total variation, 0 to 1), and `floor`, its mean
      over the permutations: what two stretches of one process would show;
    - `length` and `every` of the words, `words`: how many were compared; `block` in steps, `blocks_a`, `blocks_b`;
    - `permutations`.
    """

    p_value: float
    statistic: float
    distance: float
    floor: float
    length: int
    every: int
    words: int
    block: int
    blocks_a: int
    blocks_b: int
    permutations: int


def same_process(
    a: Any,
    b: Any,
    *,
    length: int | None = None,
    every: int | None = None,
    block: int | None = None,
    permutations: int = 999,
    seed: int = 0,
) -> SameProcess:
    """Test whether two symbol sequences are stretches of one process: whether their words are equally frequent.

    The statistic is `X = sum_w (p_a(w) - p_b(w))^2 / p(w)` over the words `w`, `p` the shares of both together; words
    that would be expected fewer than five times in either sequence count as one. Symbols depend on those before, so
    that the windows of a sequence are not independent and the chi-square table does not hold. Instead both sequences
    are cut into blocks, longer than their memory, and the blocks are dealt anew to `a` and `b`: the p-value is the
    share of the dealings, the true one among them, whose `X` is as great. The last quarter of each block is left out,
    so that neighbours are nearly independent.

    A block's length is the greatest that `dsrecon.symbolic.uncertainty` finds for the 16 commonest words, and for the
    slowest combination of the symbols, of `a` and of `b`; each sequence must have at least eight blocks.

    What it says: a small p-value, that the sequences differ; a large one, that so many steps show no difference. With
    enough steps every model differs from its data: look at `distance` beside `floor` too.

    **Arguments:**

    - `a`, `b`: each the `Dataset` of `encode` or of a coding, its `symbol`, or integers `[t]`, of any lengths. Two
      `Dataset`s of `encode` are matched by the bits of their regions, for each numbers them by its own visits; two of
      a coding must be of the same one (the same edges, order, centres).
    - `length` of the words: by default the longest up to 8 with 50 windows of the shorter sequence for each word;
      `every`: steps between the symbols of a word, by default a quarter of the median run of both, so that words of a
      finely sampled flow do not only repeat;
    - `block` in steps; `permutations`; `seed` of these.

    **Returns:** `SameProcess`.

    **Raises:** `ValueError` as `as_sequence`, for codings that are not the same, alphabets that have nothing in
    common, numbers out of range, and sequences too short for eight blocks.

    Reference: permutation of blocks: Künsch 1989, *The jackknife and the bootstrap for general stationary
    observations*, Annals of Statistics; Romano 1990, *On the behavior of randomization tests without a group
    invariance assumption*, JASA.
    """
    x, y = common_symbols(a, b)
    if permutations < 19:
        raise ValueError(f"permutations must be at least 19: got {permutations}.")
    shortest = min(len(x), len(y))
    step = _spacing(x, y) if every is None else every
    for name, value in (("every", step), ("length", length), ("block", block)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}.")
    if length is not None and (length - 1) * step + 1 > shortest // _FEWEST:
        raise ValueError(f"length must fit into an eighth of {shortest} symbols, {step} steps apart: got {length}.")
    size, codes, words = _words(x, y, length, step)
    cut = _block(x, y, codes, words) if block is None else block
    cut = max(cut, *(-(-len(code) // _MOST) for code in codes))
    counts = [_counted(code, cut, words) for code in codes]
    table = np.concatenate(counts).astype(float)
    if min(map(len, counts)) < _FEWEST:
        raise ValueError(
            f"a and b must be longer, or their memory shorter: blocks of {cut} steps cut them into {len(counts[0])} "
            f"and {len(counts[1])}, where {_FEWEST} each are needed."
        )
    table = _lumped(table, len(counts[0]))
    deal = np.zeros(len(table), bool)
    deal[: len(counts[0])] = True
    rng = np.random.default_rng(seed)
    dealt = np.stack([deal, *(rng.permutation(deal) for _ in range(permutations))])
    statistic, distance = _differences(table, dealt)
    return SameProcess(
        p_value=float((statistic >= statistic[0] * (1 - 1e-12)).mean()),
        statistic=float(statistic[0]),
        distance=float(distance[0]),
        floor=float(distance[1:].mean()),
        length=size,
        every=step,
        words=table.shape[1],
        block=cut,
        blocks_a=len(counts[0]),
        blocks_b=len(counts[1]),
        permutations=permutations,
    )


def common_symbols(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """The symbols `[t]` of two sequences by common numbers: those of `a`, and new ones for what only `b` has.

    Two `Dataset`s of `encode` are matched by the bits of their regions, two of one coding by what their symbols mean,
    others by the symbols themselves.

    **Raises:** `ValueError` as `as_sequence`, for codings that are not the same, and where no symbol is in both.
    """
    x, y = as_sequence(a).values, as_sequence(b).values
    labels = None
    if isinstance(a, xr.Dataset) and isinstance(b, xr.Dataset):
        if "bits" in a and "bits" in b:
            if a.sizes["gate"] != b.sizes["gate"]:
                raise ValueError(
                    f"a and b must be regions of one map: got {a.sizes['gate']} and {b.sizes['gate']} gates."
                )
            labels = [dict(enumerate(row.tobytes() for row in one["bits"].values)) for one in (a, b)]
        elif "coding" in a.attrs and "coding" in b.attrs:
            if a.attrs["coding"] != b.attrs["coding"]:
                raise ValueError(f"a and b must be coded alike: got {a.attrs['coding']!r} and {b.attrs['coding']!r}.")
            labels = [meanings_of(one) for one in (a, b)]
    if labels is not None:
        number = {label: value for value, label in labels[0].items()}
        fresh = max(number.values(), default=-1)
        for label in labels[1].values():
            if label not in number:
                fresh += 1
                number[label] = fresh
        found, keys = letters_of(y)
        y = np.array([number[labels[1][int(key)]] for key in keys])[found]
    if not np.isin(np.unique(x), np.unique(y)).any():
        raise ValueError(
            f"a and b must have symbols in common: got {np.unique(x)[:10].tolist()} and {np.unique(y)[:10].tolist()}."
        )
    return x, y


def _spacing(x: np.ndarray, y: np.ndarray) -> int:
    """A quarter of the median run of both, in steps."""
    return max(1, int(np.median(np.concatenate([dwell_times(v)["steps"].values for v in (x, y)])) / 4))


def _words(
    x: np.ndarray, y: np.ndarray, length: int | None, every: int
) -> tuple[int, tuple[np.ndarray, np.ndarray], int]:
    """The length of the words, the word in every window of each sequence `[t]`, and how many words there are in
    both."""
    letters, alphabet = letters_of(np.concatenate([x, y]))
    shortest, cut = min(len(x), len(y)), len(x)
    size, kept, words = 1, letters, len(alphabet)
    longest = _LONGEST if length is None else length
    for number, (code, found) in enumerate(word_codes(letters, len(alphabet), longest, every), 1):
        if length is None and number > 1 and (found * _WINDOWS > shortest or number * every > shortest // 16):
            break
        size, kept, words = number, code, found
    lost = (size - 1) * every  # windows across the seam are no words
    return size, (kept[: cut - lost], kept[cut:]), words


def _block(x: np.ndarray, y: np.ndarray, codes: tuple[np.ndarray, np.ndarray], words: int) -> int:
    """Steps of a block: the longest that the common words need, or the slowest combination of the symbols."""
    count = np.bincount(np.concatenate(codes), minlength=words)
    common = np.argsort(-count, kind="stable")[:_COMMON]
    needed = [spread_of_mean((code == word).astype(float)).block for code in codes for word in common]
    return max(*needed, *(spread_of_mean(_slowest(values)).block for values in (x, y)))


def _slowest(values: np.ndarray) -> np.ndarray:
    """The combination `[t]` of the indicators of the common symbols whose means over blocks vary most for how much it
    varies.

    Symbols by themselves may turn fast where a set of them lasts (the wing of a butterfly, coded with more than one
    symbol).
    """
    letters, found = letters_of(values)
    common = np.argsort(-np.bincount(letters), kind="stable")[: min(_LETTERS, len(found) - 1)]
    blocks = min(_SLOW, len(values) // 8)
    if not len(common) or not blocks:
        return np.zeros(len(values))
    size = len(values) // blocks
    shown = (letters[: blocks * size, None] == common).reshape(blocks, size, -1).mean(1)
    share = np.bincount(letters)[common] / len(letters)
    alone = np.diag(share) - np.outer(share, share)  # of one step
    _, vectors = eigh(np.atleast_2d(np.cov(shown.T)), alone)
    weight = np.zeros(len(found))
    weight[common] = vectors[:, -1]
    return weight[letters]


def _counted(code: np.ndarray, block: int, words: int) -> np.ndarray:
    """How often each word begins in each block, its last quarter left out: `[blocks, words]`."""
    blocks, kept = len(code) // block, block - block // _GAP
    inside = code[: blocks * block].reshape(blocks, block)[:, :kept]
    number = np.arange(blocks)[:, None] * words + inside
    return np.bincount(number.ravel(), minlength=blocks * words).reshape(blocks, words)


def _lumped(table: np.ndarray, first: int) -> np.ndarray:
    """Words that are expected too rarely in the smaller part, put together."""
    table = table[:, table.any(0)]  # a word may be seen in what is left out only
    total = table.sum(0)
    smaller = min(first, len(table) - first) / len(table)
    rare = total * smaller < _RARE
    if rare.sum() < 2:
        return table
    return np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)


def _differences(table: np.ndarray, dealt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The statistic and the total variation of each dealing `[d, blocks]` of the table of counts `[blocks, words]`."""
    total = table.sum(0)
    first = dealt.astype(float) @ table
    second = total - first
    apart = first / first.sum(1, keepdims=True) - second / second.sum(1, keepdims=True)
    return (apart**2 / (total / total.sum())).sum(1), 0.5 * np.abs(apart).sum(1)
