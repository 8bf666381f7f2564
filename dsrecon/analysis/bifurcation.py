"""Cycles of a family of piecewise-linear cells against a parameter, and where they change."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsrecon._types import Inputs
from dsrecon.analysis.branches import Branch, Continuation, Event
from dsrecon.analysis.cycles import LIMIT, cycles
from dsrecon.analysis.events import Told, beside, collided, singular, smallest_rotation, smooth
from dsrecon.analysis.followed import CLOSE, NUDGE, Cut, Family, Followed, Stretch
from dsrecon.analysis.found import Found, Singular
from dsrecon.cell import AbstractPWLCell


def continuation(
    family: Callable[[float], AbstractPWLCell],
    values: Sequence[float] | np.ndarray,
    longest: int = 1,
    s: Inputs = None,
    *,
    box: Any = None,
    limit: int = LIMIT,
) -> Continuation:
    """The cycles of a family of maps up to a period, as branches over a parameter, and the events between them.

    At every value all cycles are found (`cycles`). Along a word of regions the cycle `z_0 = (I - M)^{-1} c` is an
    analytic function of the parameter, virtual where a point lies outside its region, so that events between two values
    are zeros of functions defined on both sides: of `det(I - M) (G_j z_t + g_j)` for gate `j` at point `t`, of
    `det(I -+ M)` and of `prod_{i < j} (1 - lambda_i lambda_j)`, none of which has a pole. They are located to rounding.

    - A point meets a border: `persistence` (the cycle goes on, by another word), `non-smooth fold` (two of them are
      born or die together), else `border collision` (a discontinuous map, or more gates at once). Cycles of twice the
      period and more that begin there are told with them.
    - `flip`: an eigenvalue passes -1. In a piecewise-linear map it is degenerate: at the value itself a segment is
      filled with cycles of twice the period, up to a border, where such a cycle may branch off.
    - `Neimark-Sacker`: a complex pair passes the unit circle. Degenerate too: ellipses, at the value itself.
    - An eigenvalue passes +1: `escape to infinity`, or, where the equation still has solutions, `line of cycles`.

    **Arguments:**

    - `family`: parameter value to cell, all of one size; also asked for between the values.
    - `values`: of the parameter, increasing, at least 2, `[v]`.
    - `longest`: the longest period; `s`: the input, the same in every step.
    - `box`, `limit`: as `cycles`. A cycle that was found in the box is followed out of it too.

    **Returns:** `Continuation`. Beside every event all cycles are looked for too. What cannot be seen: two events
    within one step that undo each other, and touch neither its middle nor another event. Choose steps small enough.
    What happens at the first and the last value itself is not told.

    **Raises:** `ValueError` for values that do not increase or are not finite, a family that returns something else
    than piecewise-linear cells of one size, and as `cycles`.

    Reference: Nusse & Yorke 1992, *Border-collision bifurcations including "period two to period three" for piecewise
    smooth systems*, Physica D 57, 39; di Bernardo, Feigin, Hogan & Homer 1999, *Local analysis of C-bifurcations in
    n-dimensional piecewise-smooth dynamical systems*, Chaos, Solitons & Fractals 10, 1881.
    """
    grid = _checked(values)
    made = Family(family, s, float(grid[0]))
    search = _Search(made, grid, longest, lambda value: _at(made, value, longest, box, limit))
    lines: list[tuple[float, Singular]] = []
    for i, value in enumerate(grid.tolist()):
        found = search.search(value)
        lines += [(value, line) for line in found.singular if line.real]
        for cycle in found:
            for word in (cycle.word, *_turned(made, value, cycle.word, cycle.points if cycle.border else None)):
                search.add(word, i - 1)
                search.add(word, i)
    search.run()
    groups = search.groups()
    branches = search.branches(groups)
    events = (search.event(group, branches) for group in groups)
    return Continuation(tuple(branches), tuple(events), grid, tuple(lines))


def _checked(values: Any) -> np.ndarray:
    grid = np.asarray(values, np.float64)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"values must be numbers [v], at least 2: got shape {list(grid.shape)}.")
    if not np.isfinite(grid).all():
        at = int(np.argmin(np.isfinite(grid)))
        raise ValueError(f"values must be finite: value {at} is {grid[at]}.")
    if not (np.diff(grid) > 0).all():
        at = int(np.argmin(np.diff(grid) > 0))
        raise ValueError(f"values must increase: value {at} is {grid[at]:g}, and {grid[at + 1]:g} follows.")
    return grid


def _at(made: Family, value: float, longest: int, box: Any, limit: int) -> Found:
    made.at(value)  # its errors name the family
    try:
        return cycles(made.make(value), longest, made.s, box=box, limit=limit)
    except ValueError as error:
        raise ValueError(f"at parameter value {value:g}: {error}") from error


def _turned(made: Family, value: float, word: np.ndarray, points: np.ndarray | None) -> list[np.ndarray]:
    """The words beside a cycle with points on borders: with one of these gates turned."""
    if points is None:
        return []
    found = made.at(value)
    near = np.abs(points @ found.G.T + found.g) <= CLOSE * (1 + np.abs(points).max())
    words = []
    for t, j in np.argwhere(near & found.moving):
        words.append(word.copy())
        words[-1][t, j] ^= True
    return words


class _Raw(NamedTuple):
    """An event of one word."""

    key: bytes
    cut: Cut
    told: Told


class _Search:
    """The words followed, step by step of the parameter, and what was met."""

    def __init__(self, made: Family, grid: np.ndarray, longest: int, search: Callable[[float], Found]):
        self.made, self.grid, self.longest, self.search = made, grid, longest, search
        self.looked: list[float] = []
        self.followed: dict[bytes, Followed] = {}
        self.stretches: dict[bytes, dict[int, Stretch]] = {}
        self.raw: dict[tuple[bytes, float, str], _Raw] = {}
        self._todo: list[tuple[bytes, int]] = []

    def add(self, word: np.ndarray, i: int) -> None:
        """Follow a word over step `i` too, if there is one."""
        if not 0 <= i < len(self.grid) - 1 or len(word) > self.longest:
            return
        key = smallest_rotation(word)
        if key not in self.followed:
            bits = np.frombuffer(key, bool).reshape(word.shape)
            if any(len(word) % d == 0 and (np.roll(bits, d, axis=0) == bits).all() for d in range(1, len(word))):
                return
            self.followed[key], self.stretches[key] = Followed(self.made, bits), {}
        if i not in self.stretches[key]:
            self._todo.append((key, i))

    def run(self) -> None:
        while self._todo:
            key, i = self._todo.pop()
            if i not in self.stretches[key]:
                self._step(key, i)

    def _step(self, key: bytes, i: int) -> None:
        followed, (a, b) = self.followed[key], self.grid[i : i + 2].tolist()
        stretch = self.stretches[key][i] = followed.stretch(a, b)
        near = {j: known for j in (i - 1, i, i + 1) if (known := self.stretches[key].get(j)) is not None}
        ends = {end for one in near.values() for interval in one.real for end in interval}
        for one in near.values():
            for cut in one.cuts:
                if cut.value in ends:
                    self._met(key, cut, i)
        mine = {end for interval in stretch.real for end in interval} - {cut.value for cut in stretch.cuts}
        for end, j in ((a, i - 1), (b, i + 1)):
            if end in mine:
                self.add(followed.bits, j)
        nudge = NUDGE * (b - a)
        for kind, zeros in (("flip", stretch.minus), ("Neimark-Sacker", stretch.pair)):
            for value in zeros:
                if self._within(value) and any(low <= value <= high for low, high in stretch.real):
                    told = smooth(self.made, followed, value, kind, nudge)
                    if told is not None:
                        self.raw[key, value, kind] = _Raw(key, Cut(value, (), False), told)
                        self._beside(value, nudge, i)

    def _met(self, key: bytes, cut: Cut, i: int) -> None:
        if not self._within(cut.value) or (key, cut.value, "cut") in self.raw:
            return
        followed, nudge = self.followed[key], NUDGE * float(self.grid[i + 1] - self.grid[i])
        if cut.one or followed.at(cut.value).cycle is None:
            told = singular(self.made, followed, cut, nudge)
        else:
            told = collided(self.made, followed.bits, cut, nudge, self.longest)
        self.raw[key, cut.value, "cut"] = _Raw(key, cut, told)
        self._beside(cut.value, nudge, i)

    def _beside(self, value: float, nudge: float, i: int) -> None:
        """Follow what there is just below and above an event too: it may not reach a value that was asked for."""
        if any(abs(value - other) < nudge for other in self.looked):
            return
        self.looked.append(value)
        for x in (value - nudge, value + nudge):
            for cycle in self.search(x):
                for step in (i - 1, i, i + 1):
                    if 0 <= step < len(self.grid) - 1 and self.grid[step] <= x <= self.grid[step + 1]:
                        self.add(cycle.word, step)

    def _within(self, value: float) -> bool:
        return bool(self.grid[0] < value < self.grid[-1])

    def groups(self) -> list[list[_Raw]]:
        """What was met, by value: words that meet the same event together, the shortest first."""
        width = 10 * CLOSE * float(np.diff(self.grid).min())
        groups: list[list[_Raw]] = []
        for raw in sorted(self.raw.values(), key=lambda raw: raw.cut.value):
            group = next((group for group in groups if any(_same(one, raw, width) for one in group)), None)
            if group is None:
                groups.append([raw])
            else:
                group.append(raw)
        return [
            sorted(group, key=lambda raw: (len(self.followed[raw.key].bits), len(raw.cut.gates))) for group in groups
        ]

    def branches(self, groups: list[list[_Raw]]) -> list[Branch]:
        """The real intervals of every word, joined where nothing cuts them, by period and interval."""
        moved = {(raw.key, raw.cut.value): group[0].cut.value for group in groups for raw in group}
        made: list[Branch] = []
        for key, steps in self.stretches.items():
            cuts = {cut.value for stretch in steps.values() for cut in stretch.cuts}
            escapes = {moved.get((key, c.value), c.value) for one in steps.values() for c in one.cuts if c.one}
            joined: list[tuple[float, float]] = []
            for low, high in sorted(interval for stretch in steps.values() for interval in stretch.real):
                if joined and joined[-1][1] == low and low not in cuts:
                    joined[-1] = (joined[-1][0], high)
                else:
                    joined.append((low, high))
            for low, high in joined:
                interval = moved.get((key, low), low), moved.get((key, high), high)
                made.append(self._branch(self.followed[key], interval, escapes))
        return sorted(made, key=lambda branch: (branch.period, branch.interval, branch.word.tobytes()))

    def _branch(self, followed: Followed, interval: tuple[float, float], escapes: set[float]) -> Branch:
        low, high = interval
        ends = [end for end in interval if end not in escapes]
        values = np.unique([*ends, *self.grid[(self.grid > low) & (self.grid < high)]])
        if not len(values):
            values = np.array([(low + high) / 2])
        found = [(value, cycle) for value in values.tolist() if (cycle := followed.at(value).cycle) is not None]
        return Branch(
            followed.bits,
            len(followed.bits),
            interval,
            np.array([value for value, _ in found]),
            np.array([cycle.points for _, cycle in found]),
            np.array([cycle.eigenvalues for _, cycle in found]),
            tuple(cycle.kind for _, cycle in found),
            np.array([cycle.margin for _, cycle in found]),
        )

    def event(self, group: list[_Raw], branches: list[Branch]) -> Event:
        """What words that met something together met."""
        (_, cut, told), keys = group[0], {raw.key for raw in group}
        concerned = [
            i
            for i, branch in enumerate(branches)
            if branch.word.tobytes() in keys and branch.interval[0] <= cut.value <= branch.interval[1]
        ]
        concerned.sort(key=lambda i: branches[i].word.tobytes() != group[0].key)
        heard = group if told.kind == "flip" else group[:1]
        below = {smallest_rotation(cycle.word): cycle for raw in heard for cycle in raw.told.below}
        above = {smallest_rotation(cycle.word): cycle for raw in heard for cycle in raw.told.above}
        sides = tuple(below.values()), tuple(above.values())
        note = "; ".join(dict.fromkeys(raw.told.note for raw in heard))
        message = f"{told.kind}: {note}. {beside(*sides)}"
        return Event(cut.value, told.kind, tuple(concerned), cut.gates, *sides, message)


def _same(a: _Raw, b: _Raw, close: float) -> bool:
    """Whether two words meet the same event: the same orbit meets borders, or a flip and the cycle that it gives."""
    if abs(a.cut.value - b.cut.value) > close:
        return False
    if a.told.kind == b.told.kind == "flip":
        return True
    if a.told.points is None or b.told.points is None or not a.cut.gates or not b.cut.gates:
        return False
    few, many = sorted((a.told.points, b.told.points), key=len)
    apart = np.abs(many[:, None] - few[None]).max(2).min(1)
    return bool(apart.max() <= 1e-6 * (1 + np.abs(many).max()))
