"""Words of a symbol sequence: how many there are, how evenly they occur, and how many a graph allows."""

from collections.abc import Iterator
from typing import Any

import networkx as nx
import numpy as np
import xarray as xr
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigs

from dsrecon.symbolic.symbols import as_sequence

_BIAS = 0.1  # share of the entropy rate up to which its bias is borne
_ITERATIONS = 500
_DENSE = 1000  # regions of one component up to which every eigenvalue is computed


def word_counts(symbols: Any, length: int) -> xr.Dataset:
    """How often every word of `length` successive symbols occurs: windows overlap, `t - length + 1` of them.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `length` of the words, in
    steps, 1 to t.

    **Returns:** `Dataset` of the words that occur, the commonest first and of two equally common ones that which
    occurs first: `symbols(word, position)`, `count(word)`, `share(word)` of all windows; the coordinate `word` is the
    word as text ("0 0 1"). Attributes: `length`, `windows`, `time_step`, `time_unit`.

    **Raises:** `ValueError` as `as_sequence`, and for another length.
    """
    sequence = as_sequence(symbols)
    values = sequence.values
    _checked("length", length, len(values))
    *_, code = _codes(values, length)
    _, first, count = np.unique(code, return_index=True, return_counts=True)
    order = np.lexsort((first, -count))
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


def block_entropies(symbols: Any, max_length: int) -> xr.Dataset:
    """Entropy of the words of every length and what each further symbol adds, in nats.

    `H(L) = -sum_w p(w) ln p(w)` over the words `w` of `L` symbols, and `h(L) = H(L) - H(L - 1)` with `H(0) = 0`,
    which falls to the entropy rate of a stationary sequence as `L` grows.

    `p(w)` is the share of `w` among the windows: the plug-in estimate. It is biased low, to first order by
    `(words - 1) / (2 windows)`, and without remedy once the typical words, `exp(h L)` of them, are more than the `t`
    windows can hold: **when `L` exceeds `ln(t) / h`**. `H` then runs into `ln t` and `h` falls to zero whatever the
    sequence is.

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `max_length` of the words,
    in steps, 1 to t.

    **Returns:** `Dataset` along `length` (1 to `max_length`):

    - `entropy`: H, nats; `rate`: h, nats per step (divide by `time_step` for nats per unit of time);
    - `words`: how many different ones were seen;
    - `bias`: the first-order bias of `entropy`, nats, by which it is too low; it is not added;
    - `reliable`: whether `entropy` and `rate` may be read at this length: `L h(L - 1) <= ln t` (`ln` of the alphabet
      for `h(0)`), the bias of `rate` is at most a tenth of it, and both hold for every shorter length.

    Attributes: `steps`, `time_step`, `time_unit`.

    **Raises:** `ValueError` as `as_sequence`, and for another length.

    Reference: Schürmann & Grassberger 1996, *Entropy estimation of symbol sequences*, Chaos; the bias: Miller 1955,
    *Note on the bias of information estimates*.
    """
    sequence = as_sequence(symbols)
    values = sequence.values
    _checked("max_length", max_length, len(values))
    counts = [np.bincount(code) for code in _codes(values, max_length)]
    windows = len(values) - np.arange(max_length)
    words = np.array([len(count) for count in counts])
    entropy = np.array([-(p := count / count.sum()) @ np.log(p) for count in counts]) + 0.0  # of one word: 0, not -0
    bias = (words - 1) / (2 * windows)
    rate = np.diff(entropy, prepend=0.0)
    length = np.arange(1, max_length + 1)
    before = np.concatenate([[np.log(words[0])], rate[:-1]])
    rounding = 1e-12 * (1 + entropy)  # where nothing is added, h is zero but for this
    within = length * before <= np.log(len(values)) + rounding
    unbiased = np.diff(bias, prepend=0.0) <= _BIAS * rate + rounding + 1 / windows  # one word more or less at the end
    columns = {
        "entropy": entropy,
        "rate": rate,
        "words": words,
        "bias": bias,
        "reliable": np.logical_and.accumulate(within & unbiased),
    }
    return xr.Dataset(
        {name: ("length", column) for name, column in columns.items()},
        coords={"length": length},
        attrs={"steps": len(values), "time_step": sequence.time_step, "time_unit": sequence.time_unit},
    )


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
    _, component = connected_components(adjacency, directed=True, connection="strong")
    source, target = adjacency.nonzero()
    inside = component[source] == component[target]  # a component with no edge of its own is passed once
    radii = []
    for number in np.unique(component[source[inside]]):
        nodes = np.flatnonzero(component == number)
        radii.append(_radius(adjacency[nodes][:, nodes]))
    return float(np.log(max(radii))) if radii else float("-inf")


def _codes(values: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """The number of the word in every window, for words of 1, 2, ... `longest` symbols: `[t - L + 1]`, from 0."""
    letters = np.unique(values, return_inverse=True)[1]
    size = int(letters.max()) + 1
    code = letters
    yield code
    for length in range(2, longest + 1):
        code = np.unique(code[:-1] * size + letters[length - 1 :], return_inverse=True)[1]
        yield code


def _checked(name: str, length: int, steps: int) -> None:
    if not 1 <= length <= steps:
        raise ValueError(f"{name} must lie between 1 and the {steps} steps of symbols: got {length}.")


def _adjacency(graph: Any) -> sparse.csr_array:
    if isinstance(graph, nx.Graph):
        if not graph.is_directed():
            raise ValueError("graph must be directed: got an undirected one.")
        number = {node: i for i, node in enumerate(graph)}
        pairs = np.array([(number[i], number[j]) for i, j in set(graph.edges())], int).reshape(-1, 2)
        return sparse.csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(number),) * 2)
    if isinstance(graph, sparse.csr_array):
        return graph
    matrix = np.asarray(graph)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "biuf":
        raise ValueError(f"graph must be a graph or a square matrix: got {matrix.dtype} of shape {matrix.shape}.")
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        raise ValueError("graph must have entries that are finite and not negative: it has others.")
    return sparse.csr_array((matrix > 0).astype(float))


def _radius(adjacency: sparse.csr_array) -> float:
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
    found: Any = eigs(adjacency, k=1, which="LR", v0=np.ones(size), ncv=60, maxiter=100 * size)
    return float(found[0][0].real)
