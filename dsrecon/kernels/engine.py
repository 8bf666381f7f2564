"""An engine of `linear_scan` that is an object: the door for one that wants more than `(a, b, reverse)`."""

import abc
from collections.abc import Callable
from typing import Any

from jaxtyping import Array


class AbstractEngine(abc.ABC):
    """An engine that takes start, resets and transposition as they are, not folded into slopes and terms.

    It must be hashable, and equal where it does the same: it is part of what a program is compiled for.
    """

    @abc.abstractmethod
    def __call__(self, a: Array, b: Array, reverse: bool) -> Array:
        """The recurrence from 0 without resets: what makes it an engine like any function."""

    @abc.abstractmethod
    def states(
        self,
        a: Array,
        b: Array,
        h0: Array | None,
        resets: Array | None,
        *,
        reverse: bool,
        transpose: bool,
        differentiable: bool,
    ) -> Array:
        """`h` `[t, m]`.

        **Arguments:** `a`, `b`, `h0`, `resets`, `reverse` as for `linear_scan`, of one type; `transpose`: the slopes
        are `a^T`; `differentiable`: JAX's own rules are to go through.
        """

    @abc.abstractmethod
    def costates(self, a: Array, h_bar: Array, resets: Array | None, *, reverse: bool) -> Array:
        """`l_t = h_bar_t + a_{t+1}^T l_{t+1}` of a scan in the direction of `reverse`: `adjoint.costates_of_scan`."""

    @abc.abstractmethod
    def shifted(self, x: Array, edge: Array, *, later: bool) -> Array:
        """The neighbour in time of every step of `x` `[t, m]`, as `shift.shifted`."""

    @abc.abstractmethod
    def by_stretch(self, function: Callable[..., tuple[Any, Any]], whole: Any, *along: Any) -> tuple[Any, Any]:
        """`function(engine, whole, *along)` of every stretch of time, where `engine` is that of a stretch.

        **Arguments:** `whole`: a PyTree of arrays that all stretches need; `along`: PyTrees of arrays `[t, ...]`.

        **Returns:** what the function gives: a PyTree of arrays along the stretch, which are put together, and one of
        sums over it, which are added up.
        """
