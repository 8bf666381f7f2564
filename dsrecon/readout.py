"""What is observed of a state (`AbstractReadout`), and how observations pull on it (`Forced`)."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Inputs, Key, Matrix, State
from dsrecon.cell import AbstractCell


class AbstractReadout(eqx.Module):
    """An observation model `x = g(z)` and its partial inverse."""

    observed_size: eqx.AbstractVar[int]
    state_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        """What is observed at state `z`: `[m]` to `[n]`."""

    @abc.abstractmethod
    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        """The state that `z` becomes when the channels of `x` where `mask` holds (all by default) are imposed."""

    @abc.abstractmethod
    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        """The state to begin from when only the first observation `x` is known."""


class IdentityReadout(AbstractReadout):
    """The first `n` units are the observed channels: `g(z) = z[:n]`.

    Unobserved units start from a learned linear map of the first observation, `z[n:] = L x`
    (Brenner et al. 2022, *Tractable dendritic RNNs for reconstructing nonlinear dynamical systems*, ICML).

    **Arguments:** `observed_size` n; `state_size` m >= n; `key` draws `L ~ U(-1, 1) / sqrt(n)`, `[m - n, n]`.
    **Raises:** `ValueError` when the state is smaller than the observation.
    """

    L: Float[Array, "hidden n"]
    observed_size: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)

    def __init__(self, observed_size: int, state_size: int, *, key: Key):
        if not 1 <= observed_size <= state_size:
            raise ValueError(
                f"state_size must be at least observed_size (and that at least 1): "
                f"got state_size={state_size} for observed_size={observed_size} channels."
            )
        self.observed_size, self.state_size = observed_size, state_size
        shape = (state_size - observed_size, observed_size)
        self.L = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / observed_size**0.5

    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        return z[: self.observed_size]

    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        hidden = self.state_size - self.observed_size
        imposed = jnp.ones(self.observed_size, bool) if mask is None else mask
        return jnp.where(jnp.pad(imposed, (0, hidden)), jnp.pad(x, (0, hidden)), z)

    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        return jnp.concatenate([x, self.L @ x])


class Forcing(NamedTuple):
    """The input of a `Forced` cell for one step (or, with a leading axis `t`, for all of them).

    - `x`: the observation that pulls on the state, `[n]`.
    - `alpha`: how hard, 0 (free running) to 1 (the observed units are replaced).
    - `s`: external input of the cell itself, or `None`.
    - `mask`: channels that are observed and forced, `[n]`, or `None` for all. `x` must be finite even where
      the mask is false: NaN times zero is NaN.
    """

    x: Inexact[Array, "*t n"]
    alpha: Inexact[Array, "*t"]
    s: Inputs = None
    mask: Bool[Array, "*t n"] | None = None


class Forced(AbstractCell):
    """A cell whose state is pulled towards observations before each step: generalized teacher forcing.

    `z' = cell(z + alpha (encode(x, z, mask) - z), s)`

    with `alpha`, `x`, `mask` and `s` given as data (`Forcing`): constant forcing, sparse forcing (`alpha` is 0
    or 1 over time), missing observations and free running (`alpha = 0`) are the same cell.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.

    **Raises:** `ValueError` when the readout is for another state size.
    """

    cell: AbstractCell
    readout: AbstractReadout

    def __check_init__(self):
        if self.cell.state_size != self.readout.state_size:
            raise ValueError(
                f"readout.state_size must equal cell.state_size: "
                f"got {self.readout.state_size} and {self.cell.state_size}."
            )

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def force(self, z: Inexact[Array, "m"], s: Forcing) -> Inexact[Array, "m"]:
        """`z + alpha (encode(x, z, mask) - z)`."""
        return z + s.alpha * (self.readout.encode(s.x, z, s.mask) - z)

    def __call__(self, z: Inexact[Array, "m"], s: Forcing) -> Inexact[Array, "m"]:
        return self.cell(self.force(z, s), s.s)

    def linearise(self, z: Inexact[Array, "m"], s: Forcing) -> tuple[State, Matrix]:
        """The cell's own linearisation at the forced state, times that of the forcing."""
        forced, push = jax.linearize(lambda z: self.force(z, s), z)
        value, J = self.cell.linearise(forced, s.s)
        return value, J @ jax.vmap(push, out_axes=1)(jnp.eye(z.size, dtype=z.dtype))
