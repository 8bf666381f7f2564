"""What is observed of a state: the abstract observation model, and what most of them share."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Inputs


class AbstractReadout(eqx.Module):
    """An observation model `x = g(z)`, its partial inverse, and what a wrong prediction costs.

    All methods are of one unbatched state or run; callers `jax.vmap`. `memory` is how many earlier states an
    observation depends on (0: none). `unitwise`: `encode` moves every unit of the state by itself, so that its
    derivative by `z` is diagonal, and forcing keeps the structure of a cell's Jacobian; false is always true enough.

    Law: an observed row that is imposed, `encode(targets(xs)[t], z)`, gives a state that no longer depends on `z` in
    what is observed of it.
    """

    observed_size: eqx.AbstractVar[int]
    state_size: eqx.AbstractVar[int]
    memory: eqx.AbstractVar[int]
    unitwise: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        """What is expected to be observed at state `z`, `[m]` to `[n]`; with memory, of a state held for ever."""

    @abc.abstractmethod
    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        """The state that `z` becomes when the channels of `x` where `mask` holds (all by default) are imposed.

        `x` is a row of `targets`.
        """

    @abc.abstractmethod
    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        """The state to begin from when only the first observation is known; `x` is a row of `targets`."""

    @abc.abstractmethod
    def observe(self, zs: Inexact[Array, "t m"]) -> Inexact[Array, "t n"]:
        """What is expected to be observed along a run of states `[t, m]`: `[t, n]`."""

    @abc.abstractmethod
    def targets(self, xs: Inexact[Array, "t n"], mask: Bool[Array, "t n"] | None = None) -> Inexact[Array, "t n"]:
        """What `encode` may impose of an observed series `[t, n]`: `[t, n]`.

        `mask` is false where `xs` is missing; `xs` must be finite there too (NaN times zero is NaN).
        """

    @abc.abstractmethod
    def misfit(self, zs: Inexact[Array, "t m"], xs: Inexact[Array, "t n"]) -> Inexact[Array, "t n"]:
        """Negative log-likelihood of each entry of `xs` `[t, n]` along the states `[t, m]`, up to constants.

        The caller replaces missing entries by finite ones before, and masks the result after.
        """


def pointwise(
    decode: Callable[[Float[Array, "m"]], Float[Array, "n"]], zs: Inexact[Array, "t m"]
) -> Inexact[Array, "t n"]:
    """A readout without memory along a run: `decode` of every row."""
    return jax.vmap(decode)(zs)


def squared_error(predicted: Inexact[Array, "t n"], xs: Inexact[Array, "t n"]) -> Inexact[Array, "t n"]:
    """`(predicted - x)^2`: the misfit of Gaussian observations, in squared units of the data."""
    return (predicted - xs) ** 2
