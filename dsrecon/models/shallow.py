"""The shallow PLRNN and its clipped form: few dimensions, so that a fitted system is faithful."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Key
from dsrecon.cell import AbstractPWLCell
from dsrecon.kernels import abreast, pullback
from dsrecon.kernels.contraction import in_pieces
from dsrecon.models._init import check_sizes, contracting_diagonal, input_matrix, offset, uniform


class ShallowPLRNN(AbstractPWLCell):
    """Shallow PLRNN: `z' = A z + W1 relu(W2 z + h2) + h1 (+ C s)`.

    The hidden units act within one step and are no part of the state. A region is the sign pattern of `W2 z + h2`.

    **Fields:** `A` `[m]` (a diagonal), `W1` `[m, l]`, `W2` `[l, m]`, `h1` `[m]`, `h2` `[l]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `hidden_size` l; `input_size` k, 0 for none; `key` for the start values: `A` as in
    the AL-RNN, `W1`, `W2` and `h2` uniform within `1 / sqrt(fan_in)`, `h1 = 0`, `C ~ 0.01 N(0, 1)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """

    A: Float[Array, "m"]
    W1: Float[Array, "m l"]
    W2: Float[Array, "l m"]
    h1: Float[Array, "m"]
    h2: Float[Array, "l"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, hidden_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, hidden_size=hidden_size, input_size=input_size)
        self.state_size, self.hidden_size = state_size, hidden_size
        key_A, key_1, key_2, key_h, key_C = jax.random.split(key, 5)
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W1 = uniform((state_size, hidden_size), hidden_size, key=key_1)
        self.W2 = uniform((hidden_size, state_size), state_size, key=key_2)
        self.h1 = jnp.zeros(state_size)
        self.h2 = uniform((hidden_size,), state_size, key=key_h)
        self.C = input_matrix(state_size, input_size, key=key_C)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        hidden = jax.nn.relu(_seen(self.W2, z) + self.h2)
        return self.A * z + self.W1 @ hidden + offset(self.h1, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "l m"], Float[Array, "l"]]:
        return self.W2, self.h2

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "l"]:
        return _seen(self.W2, z) + self.h2 > 0

    def affine(
        self, region: Bool[Array, "l"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        gated = self.W1 * region[None, :].astype(self.W1.dtype)
        return jnp.diag(self.A) + gated @ self.W2, gated @ self.h2 + offset(self.h1, self.C, s)


class ClippedShallowPLRNN(AbstractPWLCell):
    """Clipped shallow PLRNN: `z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1 (+ C s)`.

    Each hidden unit adds a ramp between two parallel hyperplanes, so its contribution is bounded by `|h2|` and the
    orbit is bounded whenever `max |A| < 1`. A region is the sign pattern of both gates of every hidden unit.

    **Fields:** `A` `[m]` (a diagonal), `W1` `[m, l]`, `W2` `[l, m]`, `h1` `[m]`, `h2` `[l]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `hidden_size` l; `input_size` k, 0 for none; `key` for the start values: `A` as in
    the AL-RNN, `W1`, `W2` and `h2` uniform within `1 / sqrt(fan_in)`, `h1 = 0`, `C ~ 0.01 N(0, 1)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """

    A: Float[Array, "m"]
    W1: Float[Array, "m l"]
    W2: Float[Array, "l m"]
    h1: Float[Array, "m"]
    h2: Float[Array, "l"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, hidden_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, hidden_size=hidden_size, input_size=input_size)
        self.state_size, self.hidden_size = state_size, hidden_size
        key_A, key_1, key_2, key_h, key_C = jax.random.split(key, 5)
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W1 = uniform((state_size, hidden_size), hidden_size, key=key_1)
        self.W2 = uniform((hidden_size, state_size), state_size, key=key_2)
        self.h1 = jnp.zeros(state_size)
        self.h2 = uniform((hidden_size,), state_size, key=key_h)
        self.C = input_matrix(state_size, input_size, key=key_C)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        u = _seen(self.W2, z)
        ramp = jax.nn.relu(u + self.h2) - jax.nn.relu(u)
        return self.A * z + self.W1 @ ramp + offset(self.h1, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        return jnp.concatenate([self.W2, self.W2]), jnp.concatenate([self.h2, jnp.zeros_like(self.h2)])

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "p"]:
        u = _seen(self.W2, z)
        return jnp.concatenate([u + self.h2 > 0, u > 0])

    def affine(
        self, region: Bool[Array, "p"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        upper, lower = jnp.split(region.astype(self.W1.dtype), 2)
        A = jnp.diag(self.A) + (self.W1 * (upper - lower)[None, :]) @ self.W2
        return A, self.W1 @ (upper * self.h2) + offset(self.h1, self.C, s)


@abreast.register(ShallowPLRNN)
@abreast.register(ClippedShallowPLRNN)
def _(step: ShallowPLRNN | ClippedShallowPLRNN) -> int:
    return 24


@pullback.register(ShallowPLRNN)
@pullback.register(ClippedShallowPLRNN)
def _(
    step: ShallowPLRNN | ClippedShallowPLRNN,
    zs: Inexact[Array, "n m"],
    inputs: Inexact[Array, "n k"] | None,
    ls: Inexact[Array, "n m"],
    *,
    engine: Any = "loop",
) -> tuple[Any, Array, Any]:
    """On a CPU the sums over rows by `W2` and `h2` are one product: a sum of its own for `h2` takes twice its time."""
    if jax.default_backend() != "cpu" or engine == "interpreted":
        return pullback.dispatch(object)(step, zs, inputs, ls, engine=engine)
    return in_pieces(_pulled_back, step, zs, inputs, ls)


def _pulled_back(
    step: ShallowPLRNN | ClippedShallowPLRNN,
    zs: Inexact[Array, "n m"],
    inputs: Inexact[Array, "n k"] | None,
    ls: Inexact[Array, "n m"],
) -> tuple[Any, Array, Any]:
    """`W1` sees the ramp `r`; `q = W1' l` reaches the hidden units, through the gates that are open."""
    ones, q = jnp.ones((len(zs), 1), zs.dtype), ls @ step.W1
    u = zs @ jax.lax.optimization_barrier(step.W2.T)
    upper = u + step.h2[None]
    ramp, through = jax.nn.relu(upper), jnp.where(upper > 0, q, 0)
    W2_bar, h2_bar = jnp.split(jnp.concatenate([zs, ones], axis=1).T @ through, [step.state_size])
    if isinstance(step, ClippedShallowPLRNN):
        lower = jnp.where(u > 0, q, 0)
        ramp, through, W2_bar = ramp - jax.nn.relu(u), through - lower, W2_bar - zs.T @ lower
    bars = ((ls * zs).sum(0), ls.T @ ramp, W2_bar.T, ls.sum(0), h2_bar[0])
    step_bar = eqx.filter(step, eqx.is_inexact_array)
    step_bar = eqx.tree_at(lambda cell: (cell.A, cell.W1, cell.W2, cell.h1, cell.h2), step_bar, bars)
    zs_bar = step.A[None] * ls + through @ step.W2
    if step.C is None or inputs is None:
        return step_bar, zs_bar, None
    return eqx.tree_at(lambda cell: cell.C, step_bar, ls.T @ inputs), zs_bar, ls @ step.C


def _seen(W2: Float[Array, "l m"], z: Inexact[Array, "m"]) -> Inexact[Array, "l"]:
    """`W2 z`, as the row `z W2'`: so a batch keeps its rows, and both products of a step are fast on a CPU.

    The barrier keeps XLA from folding the transposition: the gradient by `W2` is then one product `[m, l]` over all
    steps, transposed, which takes a third of the time of the product `[l, m]`.
    """
    return z @ jax.lax.optimization_barrier(W2.T)
