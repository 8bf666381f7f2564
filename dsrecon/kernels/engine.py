"""An engine of `linear_scan` that is an object: the door for one that wants more than `(a, b, reverse)`."""

import abc

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
