"""From a linear system in continuous time to one in steps."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Shaped

Given = Shaped[Array | np.ndarray, "..."]
"""An array whose shape and type are checked with a message of its own."""


class AbstractDiscretisation(eqx.Module):
    """A rule that takes `x' = A x + B u`, `u` held over a step `d`, to `x <- A_d x + B_d u`."""

    @abstractmethod
    def dense(
        self, A: Float[Array, "n n"], B: Float[Array, "n"], d: Float[Array, ""]
    ) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
        """`A_d` and `B_d` of one system and one step."""

    @abstractmethod
    def diagonal(
        self, poles: Complex[Array, "..."], d: Float[Array, "..."]
    ) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
        """Of each `x' = p x + u`: `log a` with `x <- a x + b u`, and `b`."""


class Bilinear(AbstractDiscretisation):
    """Generalized bilinear transform, `0 <= weight <= 1`: `(I - w d A)^-1 (I + (1 - w) d A)` and `(I - w d A)^-1 d B`.

    `weight` 0 is Euler's rule, 1/2 the bilinear (Tustin's, trapezoidal) rule, of order 2, and 1 the backward rule.

    **Raises:** `ValueError` for a weight outside [0, 1].

    Reference: Zhang, Chen & Zhou 2007, *Generalized bilinear transformation*, IEEE CCA.
    """

    weight: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1]: got {self.weight}.")

    def dense(
        self, A: Float[Array, "n n"], B: Float[Array, "n"], d: Float[Array, ""]
    ) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
        one = jnp.eye(len(A), dtype=A.dtype)
        right = jnp.concatenate([one + (1 - self.weight) * d * A, d * B[:, None]], 1)
        found = jnp.linalg.solve(one - self.weight * d * A, right)
        return found[:, :-1], found[:, -1]

    def diagonal(
        self, poles: Complex[Array, "..."], d: Float[Array, "..."]
    ) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
        step = d.astype(poles.dtype)
        below = 1 - self.weight * step * poles
        return jnp.log1p((1 - self.weight) * step * poles) - jnp.log(below), step / below


class ZeroOrderHold(AbstractDiscretisation):
    """Zero-order hold: `exp(d A)` and `A^-1 (exp(d A) - I) B`, the exact solution for an input held over the step.

    Singular `A` are no exception: both are read off `exp [[d A, d B], [0, 0]]`.
    """

    def dense(
        self, A: Float[Array, "n n"], B: Float[Array, "n"], d: Float[Array, ""]
    ) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
        n = len(A)
        both = jnp.zeros((n + 1, n + 1), A.dtype).at[:n, :n].set(d * A).at[:n, n].set(d * B)
        found = jax.scipy.linalg.expm(both)
        return found[:n, :n], found[:n, n]

    def diagonal(
        self, poles: Complex[Array, "..."], d: Float[Array, "..."]
    ) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
        step = d.astype(poles.dtype)
        x = step * poles
        still = x == 0
        safe = jnp.where(still, jnp.ones_like(x), x)
        return x, step * jnp.where(still, jnp.ones_like(x), jnp.expm1(safe) / safe)


def discretise(
    A: Given, B: Given, step: float | Given, rule: AbstractDiscretisation | None = None
) -> tuple[Float[Array, "*step n n"], Float[Array, "*step n"]]:
    """`A_d`, `B_d` of a system for one step or for many at once.

    **Arguments:** `A` `[n, n]`, `B` `[n]`; or one system a channel, `A` `[h, n, n]`, `B` `[h, n]`. `step`: a scalar, or
    any array, `[t]` or `[t, h]`, say: with systems by channel its last axis is theirs. `rule`: `Bilinear()` by default.

    **Returns:** arrays `[*step, n, n]` and `[*step, n]`; with systems by channel and a scalar step `[h, n, n]`,
    `[h, n]`.

    **Raises:** `ValueError` for shapes that do not fit, integers, values that are not finite, a step that is not
    positive, and one at which the rule is undefined (`I - w d A` singular). Steps that are traced are not looked at.
    """
    rule = Bilinear() if rule is None else rule
    for name, x in (("A", A), ("B", B)):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be real floating point: got {x.dtype}.")
    if A.ndim not in (2, 3) or A.shape[-1] != A.shape[-2] or B.shape != A.shape[:-1] or A.shape[-1] < 1:
        raise ValueError(
            f"A and B must be [n, n] and [n], or [h, n, n] and [h, n]: got {list(A.shape)} and {list(B.shape)}."
        )
    A, B = jnp.asarray(A), jnp.asarray(B)
    d = jnp.asarray(step, A.dtype)
    channels = A.shape[:-2]
    if channels and d.ndim and d.shape[-1] != channels[0]:
        raise ValueError(f"step must have a last axis of the {channels[0]} channels of A: got shape {list(d.shape)}.")
    each = jnp.broadcast_to(d, channels) if channels and not d.ndim else d
    if not any(isinstance(x, Tracer) for x in (A, B, d)):
        for name, x in (("A", A), ("B", B)):
            if not np.isfinite(x).all():
                raise ValueError(f"{name} must be finite.")
        _check_steps(A, np.asarray(each), rule)
    one = jax.vmap(rule.dense, in_axes=(0, 0, 0)) if channels else (lambda a, b, d: rule.dense(a, b, d))
    lead = each.shape[: each.ndim - len(channels)]
    flat = each.reshape(-1, *channels)
    A_d, B_d = jax.vmap(lambda d: one(A, B, d))(flat)
    return A_d.reshape(*lead, *A.shape), B_d.reshape(*lead, *B.shape)


def _check_steps(A: Array, d: np.ndarray, rule: AbstractDiscretisation) -> None:
    if not (np.isfinite(d).all() and (d > 0).all()):
        bad = d.reshape(-1)[~(np.isfinite(d) & (d > 0)).reshape(-1)][0]
        raise ValueError(f"step must be positive and finite: got {bad}.")
    if not isinstance(rule, Bilinear) or not rule.weight:
        return
    poles = np.linalg.eigvals(np.asarray(A, float))  # [n], or [h, n]
    off = np.abs(1 - rule.weight * d[..., None] * poles).min(-1)
    if off.min() < A.shape[-1] * np.finfo(np.asarray(A).dtype).eps:
        worst = np.broadcast_to(d, off.shape).reshape(-1)[off.argmin()]
        raise ValueError(
            f"step must leave I - {rule.weight:g} d A invertible: it is singular at step {worst:.6g}, where "
            f"1 / ({rule.weight:g} d) is an eigenvalue of A."
        )
