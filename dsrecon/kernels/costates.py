"""What the gradient of a run becomes on its way back: one linear recurrence over its Jacobians."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._types import Inputs, Step
from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.linear_scan import linear_scan
from dsrecon.kernels.structure import apply


def costates(
    J: Inexact[Array, "t *structure"], g: Inexact[Array, "t m"], *, engine: str | AbstractEngine | Callable = "auto"
) -> tuple[Inexact[Array, "t m"], Inexact[Array, "m"]]:
    """`l_t = g_t + J_{t+1}' l_{t+1}` of every step, and what reaches the state before the first, `J_1' l_1`.

    `l` is the gradient by `b` of `h_t = J_t h_{t-1} + b_t` where that by `h` is `g`: the adjoint of `linear_scan` reads
    the Jacobians where they lie, neither transposed nor shifted.
    """
    _, pull = jax.vjp(lambda b: linear_scan(J, b, engine=engine), jnp.zeros_like(g))
    (ls,) = pull(g)
    return ls, apply(J[0], ls[0], transpose=True)


def unit_jacobian(step: Step, z: Inexact[Array, "m"], s: Inputs, units: int) -> Inexact[Array, "..."]:
    """The Jacobian of a step whose units do not meet: its diagonal `[m]`, or blocks `[c, c, k]` of `k` units of `c`
    numbers, by `c` tangents, each along the same number of all units."""
    c = z.size // units

    def along(j: int) -> Array:
        tangent = jnp.zeros((c, units), z.dtype).at[j].set(1).reshape(-1)
        return jax.jvp(lambda z: step(z, s), (z,), (tangent,))[1]

    if c == 1:
        return along(0)
    return jnp.stack([along(j).reshape(c, units) for j in range(c)], axis=1)
