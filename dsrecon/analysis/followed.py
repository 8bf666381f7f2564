"""The cycle of one word through a family of cells: functions of the parameter without poles, and their zeros."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy

from dsrecon._types import Inputs
from dsrecon.analysis.found import Cycle
from dsrecon.analysis.solve import ROUNDING, SINGULAR, refined
from dsrecon.cell import AbstractPWLCell
from dsrecon.pwl import Pieces, pieces

CLOSE = 1e-9
"""Zeros of one step of the parameter closer to each other than this part of it are one."""

NUDGE = 1e-5
"""How far beside an event one looks, as a part of the step."""

_CACHED = 1024
_DIVISIONS = 10
_EIGENVALUE = 1e-11


class Family:
    """The pieces of the cells of a family, by parameter value, all of one size."""

    def __init__(self, make: Callable[[float], AbstractPWLCell], s: Inputs, first: float):
        self.make, self.s, self.first = make, s, first
        self.at = functools.lru_cache(_CACHED)(self._at)
        self.size = self.at(first).G.shape

    def _at(self, value: float) -> Pieces:
        cell = self.make(value)
        if not isinstance(cell, AbstractPWLCell):
            raise ValueError(
                f"family must return piecewise-linear cells, AbstractPWLCell: at {value:g} got {type(cell).__name__}."
            )
        found = pieces(cell, self.s)
        if value != self.first and found.G.shape != self.size:
            (p, m), (gates, size) = self.size, found.G.shape
            raise ValueError(
                f"family must return cells of one size: {m} units and {p} gates at {self.first:g}, {size} and {gates} "
                f"at {value:g}."
            )
        return found


class Node(NamedTuple):
    """The cycle of a word at one value, and the signs there of the functions whose zeros are events (0: a zero).

    - `cycle`: `None` where the equation has no single solution.
    - `gates` `[k, p]`: of `det(I - M)` times the value of a gate at a point, a polynomial in the affine maps.
    - `one`: of `det(I - M)`; `minus`: of `det(I + M)`; `pair`: of the product of all `1 - lambda_i lambda_j`, `i < j`.
    """

    cycle: Cycle | None
    gates: np.ndarray
    one: int
    minus: int
    pair: int

    @property
    def real(self) -> bool:
        """Whether it is a cycle of the cell: open gates are open at its points, and closed ones closed (or at zero)."""
        return self.cycle is not None and bool(((self.gates * self.one > 0) == self.cycle.word).all())

    def signs(self) -> np.ndarray:
        return np.r_[self.gates.reshape(-1), self.one, self.minus, self.pair]


def node(found: Pieces, bits: np.ndarray) -> Node:
    """The cycle along a word `[k, p]`, with the signs of all functions."""
    A, h = found.affine(bits)
    system, right = _equation(A, h)
    value = np.linalg.svd(system, compute_uv=False)
    M = _product(A)
    eigenvalues = np.linalg.eigvals(M)
    scale = _EIGENVALUE * max(1.0, float(np.abs(M).max()))
    minus = 0 if np.abs(eigenvalues + 1).min() <= scale else _sign(np.linalg.slogdet(_equation(A, h, -1.0)[0])[0])
    first, second = np.triu_indices(len(eigenvalues), 1)
    products = 1 - eigenvalues[first] * eigenvalues[second]
    pair = 0 if np.abs(products).min(initial=np.inf) <= scale else _sign(_pair(eigenvalues)[0])
    if value[-1] <= SINGULAR * max(value[0], 1.0):
        gates = [[_sign(_bordered(found, system, right, t, j)[0]) for j in range(bits.shape[1])] for t in range(len(h))]
        return Node(None, np.array(gates, int).reshape(bits.shape), 0, minus, pair)
    cycle = refined(found, bits)
    distance = distances(found, cycle.points)
    error = ROUNDING * value[0] * float(np.abs(cycle.points).max()) * _reach(found, system, len(h))
    one = _sign(np.linalg.slogdet(system)[0])
    gates = np.where(np.abs(distance) <= error, 0, np.sign(distance)).astype(int) * one
    return Node(cycle, gates, one, minus, pair)


def _reach(found: Pieces, system: np.ndarray, k: int) -> np.ndarray:
    """By how much the distances of points to the zeros of gates follow an error in the equation: `[k, p]`."""
    length = np.linalg.norm(found.G, axis=1)
    inverse = np.linalg.inv(system).reshape(k, found.state_size, -1)
    rows = np.einsum("pm,kmn->kpn", found.G / np.where(length > 0, length, 1.0)[:, None], inverse)
    return np.linalg.norm(rows, axis=2)


def distances(found: Pieces, points: np.ndarray) -> np.ndarray:
    """Of points `[k, m]` to the zeros of the gates, positive where they are open: `[k, p]`."""
    length = np.linalg.norm(found.G, axis=1)
    return (points @ found.G.T + found.g) / np.where(length > 0, length, 1.0)


class Cut(NamedTuple):
    """A value at which the cycle of a word meets borders, gates `(point, gate)`, or has no single solution (`one`)."""

    value: float
    gates: tuple[tuple[int, int], ...]
    one: bool


class Stretch(NamedTuple):
    """What a step of the parameter holds of a word: `real` intervals, the `cuts` between them and the virtual ones, and
    the values of flips (`minus`) and pairs with the product 1 (`pair`)."""

    real: tuple[tuple[float, float], ...]
    cuts: tuple[Cut, ...]
    minus: tuple[float, ...]
    pair: tuple[float, ...]


class Followed:
    """The cycle of a word `[k, p]` as the parameter changes."""

    def __init__(self, family: Family, bits: np.ndarray):
        self.family, self.bits = family, bits
        self.at = functools.lru_cache(_CACHED)(self._at)

    def _at(self, value: float) -> Node:
        return node(self.family.at(value), self.bits)

    def stretch(self, a: float, b: float) -> Stretch:
        """The step from `a` to `b`: zeros by Brent's method, and which of the intervals between them are real.

        Two zeros of one function in a step show where its sign between the zeros known is not what these say: there the
        step is divided.
        """
        marks = [a, b]
        for _ in range(_DIVISIONS):
            zeros = [zero for low, high in itertools.pairwise(marks) for zero in self._zeros(low, high)]
            cuts = self._cuts(zeros, a, b)
            ends = np.unique([*marks, *(cut.value for cut in cuts)]).tolist()
            middles = [(low + high) / 2 for low, high in itertools.pairwise(ends)]
            hidden = [x for x in middles if self._unexplained(x, marks, zeros)]
            if not hidden:
                break
            marks = sorted([*marks, *hidden])
        ends = np.unique([a, b, *(cut.value for cut in cuts)]).tolist()
        real = tuple(pair for pair in itertools.pairwise(ends) if self.at(sum(pair) / 2).real)
        last = self.bits.size
        smooth = [[v for v, _ in _clusters([z for z in zeros if z[1] == last + i], a, b)] for i in (1, 2)]
        return Stretch(real, tuple(cuts), tuple(smooth[0]), tuple(smooth[1]))

    def _cuts(self, zeros: list[tuple[float, int]], a: float, b: float) -> list[Cut]:
        p, last = self.bits.shape[1], self.bits.size
        return [
            Cut(value, tuple((i // p, i % p) for i in sorted(tests) if i < last), last in tests)
            for value, tests in _clusters([zero for zero in zeros if zero[1] <= last], a, b)
        ]

    def _unexplained(self, x: float, marks: list[float], zeros: list[tuple[float, int]]) -> bool:
        """Whether a sign at `x` differs from that at the mark below by more than the zeros between the two."""
        mark = max(mark for mark in marks if mark <= x)
        wanted, found = self.at(mark).signs(), self.at(x).signs()
        known = wanted != 0
        for value, test in zeros:
            if mark < value <= x:
                wanted[test] *= -1
        return bool(((wanted != found) & known & (found != 0)).any())

    def consistency(self, value: float) -> float:
        """By how much the equation has no solution where `I - M` is singular: the share of the right side beyond it."""
        system, right = _equation(*self.family.at(value).affine(self.bits))
        size = float(np.linalg.norm(right))
        return abs(float(np.linalg.svd(system)[0][:, -1] @ right)) / size if size > 0 else 0.0

    def _zeros(self, a: float, b: float) -> list[tuple[float, int]]:
        """Zeros between (or at) `a` and `b` of every function that changes its sign, with its number."""
        low, high = self.at(a).signs(), self.at(b).signs()
        step = NUDGE * (b - a)
        zeros: list[tuple[float, int]] = []
        for i in np.flatnonzero((low != high) & ((low != 0) | (high != 0))).tolist():
            left, right = a, b
            if low[i] == 0:
                zeros.append((a, i))
                left = a + step
            if high[i] == 0:
                zeros.append((b, i))
                right = b - step
            ends = [self._log(i, x) for x in (left, right)]
            if ends[0][0] * ends[1][0] >= 0:
                continue
            scale = max(ends[0][1], ends[1][1])
            root: Any = scipy.optimize.brentq(
                lambda x, i=i, scale=scale: self._value(i, x, scale), left, right,
                xtol=1e-14 * (b - a), rtol=4 * np.finfo(float).eps,
            )  # fmt: skip
            zeros.append((root, i))
        return zeros

    def _value(self, test: int, value: float, scale: float) -> float:
        sign, log = self._log(test, value)
        return sign * float(np.exp(log - scale))

    def _log(self, test: int, value: float) -> tuple[float, float]:
        """Sign of function `test`, and the logarithm of its modulus."""
        found = self.family.at(value)
        A, h = found.affine(self.bits)
        k, p = self.bits.shape
        if test < k * p:
            return _bordered(found, *_equation(A, h), test // p, test % p)
        if test == k * p + 2:
            return _pair(np.linalg.eigvals(_product(A)))
        sign, log = np.linalg.slogdet(_equation(A, h, 1.0 if test == k * p else -1.0)[0])
        return float(sign), float(log)


def _clusters(zeros: list[tuple[float, int]], a: float, b: float) -> list[tuple[float, set[int]]]:
    """Zeros that are one, and ends of the step for what lies next to them."""
    found: list[tuple[float, set[int]]] = []
    for value, test in sorted(zeros):
        value = a if value - a <= CLOSE * (b - a) else b if b - value <= CLOSE * (b - a) else value
        if found and value - found[-1][0] <= CLOSE * (b - a):
            found[-1][1].add(test)
        else:
            found.append((value, {test}))
    return found


def _equation(A: np.ndarray, h: np.ndarray, turn: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """`z_t - A_{t-1} z_{t-1} = h_{t-1}` for all points: `[k m, k m]`, of determinant `det(I - turn M)`, and `[k m]`."""
    k, m = h.shape
    system = np.zeros((k, m, k, m))
    for t in range(k):
        system[t, :, t] += np.eye(m)
        system[t, :, t - 1] -= A[t - 1] * (turn if t == 0 else 1.0)
    return system.reshape(k * m, k * m), np.roll(h, 1, axis=0).reshape(-1)


def _bordered(found: Pieces, system: np.ndarray, right: np.ndarray, t: int, j: int) -> tuple[float, float]:
    """Sign and logarithm of `det(I - M) (G_j z_t + g_j)`: the determinant of the system with a row and column more."""
    n, m = len(right), found.state_size
    whole = np.zeros((n + 1, n + 1))
    whole[:n, :n], whole[:n, n] = system, right
    whole[n, t * m : (t + 1) * m], whole[n, n] = -found.G[j], found.g[j]
    sign, log = np.linalg.slogdet(whole)
    return float(sign), float(log)


def _pair(eigenvalues: np.ndarray) -> tuple[float, float]:
    """Sign and logarithm of the product of all `1 - lambda_i lambda_j`, which is real; zero: a pair has product 1."""
    first, second = np.triu_indices(len(eigenvalues), 1)
    factors = 1 - eigenvalues[first] * eigenvalues[second]
    size = np.abs(factors)
    if (size == 0).any():
        return 0.0, -np.inf
    return float(np.prod(factors / size).real), float(np.log(size).sum())


def _product(A: np.ndarray) -> np.ndarray:
    """`A_{k-1} ... A_0`."""
    return functools.reduce(lambda M, one: one @ M, A[1:], A[0])


def _sign(value: Any) -> int:
    return int(np.sign(value))
