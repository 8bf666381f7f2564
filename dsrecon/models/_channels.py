"""What layers of single channels share, each channel a system of its own with a step of its own."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from dsrecon._types import Key
from dsrecon.kernels import causal_convolution
from dsrecon.layer import (
    AbstractContinuousLayer,
    AbstractOutputCell,
    ChannelCell,
    Given,
    Steps,
    TimedCell,
    sequence,
    steps,
)


class AbstractChannelLayer(AbstractContinuousLayer):
    """A layer of `d` systems of one input and one output: the convolution of each channel with its kernel, and `D u`.

    **Fields:** `C`, as many numbers as the layer has states; `D`, `log_step` `[d]`.
    """

    C: eqx.AbstractVar[Array]
    D: eqx.AbstractVar[Array]
    log_step: eqx.AbstractVar[Array]

    @property
    def width(self) -> int:
        return len(self.D)

    @property
    def state_size(self) -> int:
        return self.C.size

    @abstractmethod
    def kernel(self, length: int, dt: float | Shaped[Array, ""] = 1.0) -> Float[Array, "d {length}"]:
        """`K` `[d, length]`: the response to a unit impulse, `D` left out."""

    def __call__(self, u: Given, dt: Steps = 1.0, *, key: Key | None = None) -> Float[Array, "t d"]:
        u = sequence(u, self.width)
        given = steps(dt, len(u), u.dtype)
        if given.ndim:
            return self._uneven(u, given)
        return causal_convolution(self.kernel(len(u), given), u.T).T + self.D[None] * u

    def cell(self, dt: float | Shaped[Array, ""] | None = 1.0) -> AbstractOutputCell:
        if dt is None:
            return TimedCell(self)  # pyright: ignore[reportCallIssue]
        return self._cell(steps(dt, None, self.D.dtype))

    @abstractmethod
    def _uneven(self, u: Float[Array, "t d"], dt: Float[Array, "t"]) -> Float[Array, "t d"]:
        """The layer with steps of many lengths."""

    @abstractmethod
    def _cell(self, dt: Float[Array, ""]) -> ChannelCell:
        """The cell of a step of this length."""

    def _step(self, dt: Float[Array, ""]) -> Float[Array, "d"]:
        """The step of each channel in its own time."""
        return jnp.exp(self.log_step) * dt
