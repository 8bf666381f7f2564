"""A function of small arrays as the single numbers that it works out, and in what order they are.

An array is a NumPy array of `Number`s, none of them worked out before it is asked for. The hidden units of a cell are
not written out one by one: an axis longer than `WIDEST` is walked along by a loop, and stands in the array as one
number (or as some, where several such axes were joined).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array

from dsrecon.kernels.accelerated.plan import Unfused
from dsrecon.kernels.program import ELEMENTWISE, Operation, aval

WIDEST = 10
"""Axes up to this long are written out, longer ones are walked along."""

SHORT = 8
"""Sums of at most this many terms are written out where they are used."""

Numbers = np.ndarray
"""An array of `Number`s."""


class Number:
    """One number, not worked out yet.

    - `along`: whether it is another in every turn of the loop along the long axis.
    - `depth`: of the sums that it comes from, sums upon sums.
    """

    def __init__(self, make: Callable[..., Any], given: tuple["Number", ...] = ()):
        self.make, self.given = make, given
        self.along = any(x.along for x in given)
        self.depth = max((x.depth for x in given), default=0)


class Fold(Number):
    """Terms taken together, `total = join(total, *term)`, one by one; `looped`: those of all turns of the loop."""

    def __init__(self, join: Callable[..., Any], terms: list[tuple[Number, ...]], dtype: Any, looped: bool):
        super().__init__(join, tuple(x for term in terms for x in term))
        self.terms, self.dtype, self.looped = terms, dtype, looped
        self.along = self.along and not looped
        self.depth += 1


INDEX = Number(lambda: None)
"""The turn of the loop."""
INDEX.along = True


class Writing:
    """Numbers, written out as they are asked for; each once, or once a turn of the loop."""

    def __init__(self, turns: int, lanes: int):
        self.turns, self.lanes = turns, lanes
        self.known: dict[Number, Any] = {}
        self.begun: dict[Fold, tuple[Any, int]] = {}

    def value(self, x: Number, held: dict[Number, Any]) -> Any:
        """Of a number, in the turn of which `held` holds those found so far."""
        place = held if x.along else self.known
        if x not in place:
            place[x] = self._folded(x, held) if isinstance(x, Fold) else x.make(*(self.value(y, held) for y in x.given))
        return place[x]

    def _folded(self, x: Fold, held: dict[Number, Any]) -> Any:
        if x.looped:
            self.walk([x])
            return self.known[x]
        total, done = self.begun.pop(x, (jnp.zeros((), x.dtype), 0))
        for term in x.terms[done:]:
            total = x.make(total, *(self.value(y, held) for y in term))
        return total

    def side_by_side(self, folds: list[Fold]) -> None:
        """Write out sums a term of each at a time: what they share is made for that term, and done with after it."""
        for i in range(max((len(x.terms) for x in folds), default=0)):
            for x in folds:
                if i < len(x.terms):
                    total, _ = self.begun.get(x, (jnp.zeros((), x.dtype), 0))
                    self.begun[x] = x.make(total, *(self.value(y, {}) for y in x.terms[i])), i + 1

    def fold(self, folds: list[Fold]) -> None:
        """Sums, the shallow ones first: those of one depth side by side, or in one loop along the long axis."""
        for depth in sorted({x.depth for x in folds}):
            level = [x for x in folds if x.depth == depth and not x.along]
            self.side_by_side([x for x in level if not x.looped and len(x.terms) > SHORT])
            if looped := [x for x in level if x.looped]:
                self.walk(looped)

    def each_turn(self, numbers: list[Number], use: Callable[[Any, list[Any]], None]) -> None:
        """`use(i, values)` in every turn `i` of the loop along the long axis, with the values of these numbers."""
        self._prepare(tuple(numbers), set())

        def turn(i, nothing):
            held = {INDEX: i}
            use(i, [self.value(x, held) for x in numbers])
            return nothing

        jax.lax.fori_loop(0, self.turns, turn, 0)

    def walk(self, folds: list[Fold]) -> None:
        """One loop along the long axis, for all of these sums."""
        seen: set[Number] = set()
        for x in folds:
            self._prepare(x.given, seen)

        def turn(i, totals):
            held = {INDEX: i}
            out = []
            for x, total in zip(folds, totals, strict=True):
                for term in x.terms:
                    total = x.make(total, *(self.value(y, held) for y in term))
                out.append(jnp.broadcast_to(total, (self.lanes,)))
            return out

        start = [jnp.zeros(self.lanes, x.dtype) for x in folds]
        self.known |= dict(zip(folds, jax.lax.fori_loop(0, self.turns, turn, start), strict=True))

    def _prepare(self, parts: tuple[Number, ...], seen: set[Number]) -> None:
        """Work out what is the same in every turn, before the loop."""
        open_ = list(parts)
        while open_:
            x = open_.pop()
            if x in seen:
                continue
            seen.add(x)
            if x.along:
                open_ += x.given
            else:
                self.value(x, {})


def constant(x: Any) -> Number:
    """A number that is known."""
    return Number(lambda: jnp.asarray(x))


def wide(function: Callable) -> Callable:
    """Of numbers of no step (scalars) and of others (vectors of lanes), all made as long as the longest."""

    def of(*args: Any) -> Any:
        shape = max((jnp.shape(x) for x in args), key=len)
        return function(*(jnp.broadcast_to(x, shape) for x in args))

    return of


def _alone(x: Number) -> Numbers:
    found = np.empty((), object)
    found[()] = x
    return found


class Interpreter:
    """Operations on arrays of numbers. `unit`: the length of the loop; an axis of `k unit` is `k` numbers.

    **Raises:** `Unfused` for what it cannot do.
    """

    def __init__(self, unit: int | None):
        self.unit, self.folds = unit, []

    def long(self, length: int) -> bool:
        return self.unit is not None and length > WIDEST

    def count(self, length: int) -> int:
        """Numbers that an axis, or a part of it, is held in."""
        assert self.unit is not None
        if length % self.unit:
            raise Unfused(f"the step cuts a long axis at {length}, which is within a turn of the loop.")
        return length // self.unit

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the numbers that an array of this shape is held in."""
        return tuple(self.count(n) if self.long(n) else n for n in shape)

    def places(self, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """Where the numbers of an array lie in memory, row by row, in the first turn of the loop; and how much farther
        each lies in the next (0 without a long axis)."""
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        begins = [s * (self.unit or 0) if self.long(n) else s for s, n in zip(strides, shape, strict=True)]
        step = next((s for s, n in zip(strides, shape, strict=True) if self.long(n)), 0)
        at = np.zeros(self.shape(shape), int)
        for index in np.ndindex(*at.shape):
            at[index] = sum(i * s for i, s in zip(index, begins, strict=True))
        return at, step

    def read(self, shape: tuple[int, ...], load: Callable[[Any], Array]) -> Numbers:
        """The numbers of an array that lies in memory, row by row; `load(at)` loads one."""
        begins, step = self.places(shape)
        out = np.empty(begins.shape, object)
        for index in np.ndindex(*out.shape):
            at = int(begins[index])
            if step:
                out[index] = Number(lambda i, at=at: load(i * step + at), (INDEX,))
            else:
                out[index] = Number(lambda at=at: load(at))
        return out

    def value(self, v: Any, known: dict) -> Numbers:
        """Of a variable or a literal."""
        return _alone(constant(np.asarray(v.val, aval(v).dtype))) if isinstance(v, Literal) else known[v]

    def run(self, operations: list[Operation], known: dict) -> None:
        """All operations in order; `known` holds numbers by variable, and gets those found."""
        for op in operations:
            out = self.done(op, [self.value(v, known) for v in op.given])
            if any(x.shape != self.shape(v.aval.shape) for x, v in zip(out, op.found, strict=True)):
                raise Unfused("the step joins short axes to a long one, or cuts a long one to short ones.")
            known |= dict(zip(op.found, out, strict=True))

    def done(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        """What one operation finds."""
        if op.name in ELEMENTWISE:
            return [self._elementwise(op, given)]
        return getattr(self, "_" + op.name)(op, given)

    def _elementwise(self, op: Operation, given: list[Numbers]) -> Numbers:
        shape = self.shape(op.found[0].aval.shape)
        out = np.empty(shape, object)
        cases = [np.broadcast_to(x, shape) for x in given]
        for index in np.ndindex(*shape):
            args: tuple[Any, ...] = tuple(x[index] for x in cases)
            if op.name in ("stop_gradient", "copy", "copy_p"):
                out[index] = args[0]
            elif op.name == "square":
                out[index] = Number(lambda x: x * x, args)
            elif op.name == "add_any":
                out[index] = Number(wide(jnp.add), args)
            else:
                out[index] = Number(wide(functools.partial(op.primitive.bind, **op.params)), args)
        return out

    def _folded(self, op: Operation, join: Callable[..., Any], terms: list, axes: tuple[int, ...]) -> Numbers:
        """Sums, one for each list of terms, over axes of the first array given."""
        looped = any(self.long(op.given[0].aval.shape[i]) for i in axes)
        out = np.empty(len(terms), object)
        for i, each in enumerate(terms):
            out[i] = Fold(wide(join), each, op.found[0].aval.dtype, looped)
            self.folds.append(out[i])
        return out.reshape(self.shape(op.found[0].aval.shape))

    def _dot_general(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        axes, batch = op.params["dimension_numbers"]
        if batch != ((), ()):
            raise Unfused("the step holds products in batches, which are not written out.")
        x, y = (_rows(a, over) for a, over in zip(given, axes, strict=True))
        terms = [list(zip(a, b, strict=True)) for a in x for b in y]
        return [self._folded(op, lambda total, a, b: total + a * b, terms, axes[0])]

    def _reduce_sum(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        terms = [[(x,) for x in row] for row in _rows(given[0], op.params["axes"])]
        return [self._folded(op, jnp.add, terms, op.params["axes"])]

    def _reduce_or(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        terms = [[(x,) for x in row] for row in _rows(given[0], op.params["axes"])]
        return [self._folded(op, jnp.logical_or, terms, op.params["axes"])]

    def _broadcast_in_dim(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        shape = [1] * len(op.params["shape"])
        for i, axis in enumerate(op.params["broadcast_dimensions"]):
            shape[axis] = given[0].shape[i]
        return [np.broadcast_to(given[0].reshape(shape), self.shape(op.params["shape"]))]

    def _concatenate(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        return [np.concatenate(given, axis=op.params["dimension"])]

    def _iota(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        shape, axis, dtype = op.params["shape"], op.params["dimension"], op.params["dtype"]
        out = np.empty(self.shape(shape), object)
        for index in np.ndindex(*out.shape):
            i = index[axis]
            if self.long(shape[axis]):
                out[index] = Number(lambda at, i=i: (at + i * self.unit).astype(dtype), (INDEX,))
            else:
                out[index] = constant(np.asarray(i, dtype))
        return [out]

    def _pad(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        x, fill = given
        if any(low < 0 or high < 0 or inner for low, high, inner in op.params["padding_config"]):
            raise Unfused("the step pads between numbers, which is not written out.")
        wanted = op.found[0].aval.shape
        out = np.broadcast_to(fill, self.shape(wanted)).copy()
        lows = [
            self.count(low) if self.long(n) else low
            for (low, _, _), n in zip(op.params["padding_config"], wanted, strict=True)
        ]
        out[tuple(slice(low, low + n) for low, n in zip(lows, x.shape, strict=True))] = x
        return [out]

    def _split(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        axis, sizes = op.params["axis"], op.params["sizes"]
        if self.long(op.given[0].aval.shape[axis]):
            sizes = [self.count(n) for n in sizes]
        return np.split(given[0], np.cumsum(sizes)[:-1], axis=axis)

    def _slice(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        cuts = []
        strides = op.params["strides"] or [1] * given[0].ndim
        bounds = zip(op.params["start_indices"], op.params["limit_indices"], strides, strict=True)
        for (a, b, stride), n in zip(bounds, op.given[0].aval.shape, strict=True):
            if self.long(n) and stride != 1:
                raise Unfused("the step takes every n-th number of a long axis, which is not written out.")
            cuts.append(slice(self.count(a), self.count(b)) if self.long(n) else slice(a, b, stride))
        return [given[0][tuple(cuts)]]

    def _reshape(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        before, after = op.given[0].aval.shape, op.found[0].aval.shape
        kept = [n for n in before if n != 1] == [n for n in after if n != 1]
        if not kept and any(self.long(n) for n in (*before, *after)):
            raise Unfused("the step reads a long axis as another, which is not written out.")
        return [given[0].reshape(self.shape(after))]

    _squeeze = _expand_dims = _reshape

    def _rev(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        if any(self.long(op.given[0].aval.shape[i]) for i in op.params["dimensions"]):
            raise Unfused("the step turns a long axis round, which is not written out.")
        return [np.flip(given[0], op.params["dimensions"])]

    def _transpose(self, op: Operation, given: list[Numbers]) -> list[Numbers]:
        return [given[0].transpose(op.params["permutation"])]


KNOWN = frozenset(name[1:] for name in vars(Interpreter) if name[0] == "_" and name[1] != "_") - {
    "elementwise",
    "folded",
}
"""Operations beside the elementwise ones that an `Interpreter` does."""


def _rows(a: Numbers, axes: tuple[int, ...]) -> Numbers:
    """As a matrix, with what is summed over last."""
    kept = [i for i in range(a.ndim) if i not in axes]
    return a.transpose(*kept, *axes).reshape(-1, math.prod(a.shape[i] for i in axes))
