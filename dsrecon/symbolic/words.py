"""Words of a symbol sequence: how many there are, how evenly they occur, and how many a graph allows."""

from typing import Any

import networkx as nx
import numpy as np
import scipy
import xarray as xr

from dsrecon.symbolic.symbols import as_sequence
from dsrecon.symbolic.uncertainty import spread_of_mean
from dsrecon.symbolic.windows import letters_of, word_codes, words_of

_BIAS = 0.1  # share of the entropy rate up to which its bias is borne
_ITERATIONS = 500
_LISTED = 1_000_000  # words, with their text
_DENSE = 1000  # regions of one component up to which every eigenvalue is computed


def word_counts(symbols: Any, length: int, *, most: int | None = None) -> xr.Dataset:
    """How often every word of `length` successive symbols occurs: windows overlap, `t - length + 1` of them.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `length` of the words, in
    steps, 1 to t; `most`: list only so many of the commonest (default: all).

    **Returns:** `Dataset` of the words that occur, the commonest first and of two equally common ones that which
    occurs first: `symbols(word, position)`, `count(word)`, `share(word)` of all windows; the coordinate `word` is the
    word as text ("0 0 1"). Attributes: `length`, `windows`, `time_step`, `time_unit`.

    **Raises:** `ValueError` as `as_sequence`, for another length, and for more than a million words without `most`.
    """
    sequence = as_sequence(symbols)
    values = sequence.values
    _checked("length", length, len(values))
    letters, alphabet = letters_of(values)
    code, found = words_of(letters, len(alphabet), length)
    count = np.bincount(code, minlength=found)
    first = np.empty(found, np.int64)
    first[code[::-1]] = np.arange(len(code) - 1, -1, -1)  # of what is assigned again and again, the last stays
    if most is None and found > _LISTED:
        raise ValueError(f"most must be given where there are more than {_LISTED:,} words: there are {found:,}.")
    order = np.lexsort((first, -count))[:most]
    words = values[first[order, None] + np.arange(length)]
    return xr.Dataset(
        {
            "symbols": (("word", "position"), words),
            "count": ("word", count[order]),
            "share": ("word", count[order] / len(code)),
        },
        coords={"word": [" ".join(map(str, word)) for word in words.tolist()], "position": np.arange(length)},
        attrs={
            "length": length,
            "windows": len(code),
            "time_step": sequence.time_step,
            "time_unit": sequence.time_unit,
        },
    )


def block_entropies(symbols: Any, max_length: int, *, level: float = 0.95) -> xr.Dataset:
    """Entropy of the words of every length and what each further symbol adds, in nats.

    `H(L) = -sum_w p(w) ln p(w)` over the words `w` of `L` symbols, and `h(L) = H(L) - H(L - 1)` with `H(0) = 0`,
    which falls to the entropy rate of a stationary sequence as `L` grows.

    `p(w)` is the share of `w` among the windows: the plug-in estimate. It is biased low, to first order by `(words -
    1) / (2 windows)` (`corrected` is Grassberger's estimate instead), and without remedy once the typical words,
    `exp(h L)` of them, are more than the `t` windows can hold: **when `L` exceeds `ln(t) / h`**. `H` then runs into
    `ln t` and `h` falls to zero whatever the sequence is.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `max_length` of the words,
    in steps, 1 to t; `level` of the intervals.

    **Returns:** `Dataset` along `length` (1 to `max_length`):

    - `entropy`: H, nats; `rate`: h, nats per step (divide by `time_step` for nats per unit of time);
    - `words`: how many different ones were seen;
    - `bias`: the first-order bias of `entropy`, nats, by which it is too low; it is not added;
    - `corrected`, `rate_corrected`: H with Grassberger's correction, and what each length adds to it;
    - `low`, `high`, `rate_low`, `rate_high`: intervals of the two, by the block bootstrap of `-ln p(w)` and the
      variance of a chi-square beside it (`entropy_rate` says why); NaN where not `reliable`;
    - `reliable`: whether `entropy` and `rate` may be read at this length: `L h(L - 1) <= ln t` (`ln` of the alphabet
      for `h(0)`), the bias of `rate` is at most a tenth of it, and both hold for every shorter length.

    Attributes: `steps`, `level`, `time_step`, `time_unit`. A sequence of one symbol has entropy 0.

    **Raises:** `ValueError` as `as_sequence`, and for another length.

    Reference: Schürmann & Grassberger 1996, *Entropy estimation of symbol sequences*, Chaos; the bias: Miller 1955,
    *Note on the bias of information estimates*; the correction: Grassberger 2003, *Entropy estimates from insufficient
    samplings*, arXiv:physics/0307138.
    """
    sequence = as_sequence(symbols)
    values = sequence.values
    _checked("max_length", max_length, len(values))
    columns = entropies(values, max_length, level)
    return xr.Dataset(
        {name: ("length", column) for name, column in columns.items()},
        coords={"length": np.arange(1, max_length + 1)},
        attrs={"steps": len(values), "level": level, "time_step": sequence.time_step, "time_unit": sequence.time_unit},
    )


def entropies(values: np.ndarray, max_length: int, level: float | None) -> dict[str, np.ndarray]:
    """The columns of `block_entropies`; without a level the intervals, which take most of the time, stay NaN."""
    letters, alphabet = letters_of(values)
    steps, size = len(values), max_length
    columns = {name: np.full(size, np.nan) for name in ("entropy", "corrected", "low", "high", "rate_low", "rate_high")}
    columns["words"] = np.empty(size, np.int64)
    reliable, before, surprise_before = np.zeros(size, bool), np.log(len(alphabet)), np.zeros(steps)
    H = H_corrected = bias_before = 0.0
    for i, (code, words) in enumerate(word_codes(letters, len(alphabet), max_length)):
        count = np.bincount(code, minlength=words)
        windows = len(code)
        entropy, bias = float(-(p := count / windows) @ np.log(p)) + 0.0, (words - 1) / (2 * windows)  # of one word: 0
        rate, corrected = entropy - H, _grassberger(count)
        rounding = 1e-12 * (1 + entropy)  # where nothing is added, h is zero but for this
        within = (i + 1) * before <= np.log(steps) + rounding
        unbiased = bias - bias_before <= _BIAS * rate + rounding + 1 / windows  # one word more or less at the end
        reliable[i] = within and unbiased and (i == 0 or reliable[i - 1])
        columns["entropy"][i], columns["words"][i], columns["corrected"][i] = entropy, words, corrected
        if level is not None and reliable[i] and windows > 1:
            surprise = -np.log(p)[code]
            more = (words - 1) / (2 * windows**2)
            half = spread_of_mean(surprise).half_width(level, more)
            half_rate = spread_of_mean(surprise - surprise_before[:windows]).half_width(level, more)
            columns["low"][i], columns["high"][i] = max(corrected - half, 0.0), corrected + half
            added = corrected - H_corrected
            columns["rate_low"][i], columns["rate_high"][i] = max(added - half_rate, 0.0), added + half_rate
            surprise_before = surprise
        H, H_corrected, bias_before, before = entropy, corrected, bias, rate
    columns |= {
        "rate": np.diff(columns["entropy"], prepend=0.0),
        "rate_corrected": np.diff(columns["corrected"], prepend=0.0),
        "bias": (columns["words"] - 1) / (2 * (steps - np.arange(max_length))),
        "reliable": reliable,
    }
    return columns


def topological_entropy(graph: Any) -> float:
    """Growth rate of the number of paths through a transition graph: `ln rho(B)`, nats per step.

    `B[i, j]` is 1 where the transition occurs and 0 elsewhere, `rho` its spectral radius: the largest over the
    strongly connected components, for what lies between them is passed once only. It bounds from above the entropy
    rate of every sequence on that graph.

    **Arguments:** `graph`: what `transition_graph` gave (or any directed graph), what `transitions` gave, or a square
    matrix `[r, r]`; edges and entries count as 0 or 1.

    **Returns:** the entropy; 0 where all paths end in simple cycles, `-inf` where there is no cycle (and so no
    path that goes on for ever).

    **Raises:** `ValueError` for a graph without direction, or a matrix that is not square or has entries that are
    negative or not finite.

    Reference: Lind & Marcus 1995, *An introduction to symbolic dynamics and coding*, chapter 4.
    """
    adjacency = _adjacency(graph)
    if not adjacency.nnz:
        return float("-inf")
    _, component = scipy.sparse.csgraph.connected_components(adjacency, directed=True, connection="strong")
    source, target = adjacency.nonzero()
    inside = component[source] == component[target]  # a component with no edge of its own is passed once
    radii = []
    for number in np.unique(component[source[inside]]):
        nodes = np.flatnonzero(component == number)
        radii.append(_radius(adjacency[nodes][:, nodes]))
    return float(np.log(max(radii))) if radii else float("-inf")


def _grassberger(count: np.ndarray) -> float:
    """Entropy from counts: `ln N - sum_i n_i G(n_i) / N` with `G(n) = psi(n) + (-1)^n [psi((n + 1) / 2) - psi(n / 2)]
    / 2`."""
    n, often = np.unique(count, return_counts=True)
    digamma = scipy.special.digamma
    G = digamma(n) + 0.5 * np.where(n % 2, -1.0, 1.0) * (
        scipy.special.digamma((n + 1) / 2) - scipy.special.digamma(n / 2)
    )
    total = float(n @ often)
    return float(np.log(total) - (n * G) @ often / total) if len(count) > 1 else 0.0


def _checked(name: str, length: int, steps: int) -> None:
    if not 1 <= length <= steps:
        raise ValueError(f"{name} must lie between 1 and the {steps} steps of symbols: got {length}.")


def _adjacency(graph: Any) -> "scipy.sparse.csr_array":
    if isinstance(graph, nx.Graph):
        if not graph.is_directed():
            raise ValueError("graph must be directed: got an undirected one.")
        number = {node: i for i, node in enumerate(graph)}
        pairs = np.array([(number[i], number[j]) for i, j in set(graph.edges())], int).reshape(-1, 2)
        return scipy.sparse.csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(number),) * 2)
    if isinstance(graph, scipy.sparse.csr_array):
        return graph
    matrix = np.asarray(graph)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "biuf":
        raise ValueError(f"graph must be a graph or a square matrix: got {matrix.dtype} of shape {matrix.shape}.")
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        raise ValueError("graph must have entries that are finite and not negative: it has others.")
    return scipy.sparse.csr_array((matrix > 0).astype(float))


def _radius(adjacency: "scipy.sparse.csr_array") -> float:
    """Spectral radius of a strongly connected graph, its Perron root: real, and simple."""
    size = len(adjacency.indptr) - 1
    if adjacency.sum(1).max() == 1:  # every row sum is 1, so the root is: a simple cycle
        return 1.0
    x = np.ones(size)
    for _ in range(_ITERATIONS):  # Collatz and Wielandt: the root lies between the least and the largest growth
        ahead = adjacency @ x + x
        growth = ahead / x
        if growth.max() - growth.min() <= 1e-13 * growth.max():
            return float(growth.max()) - 1.0
        x = ahead / ahead.max()
    if size <= _DENSE:
        return float(np.abs(np.linalg.eigvals(adjacency.toarray())).max())
    found: Any = scipy.sparse.linalg.eigs(adjacency, k=1, which="LR", v0=np.ones(size), ncv=60, maxiter=100 * size)
    return float(found[0][0].real)
