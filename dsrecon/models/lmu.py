"""Legendre memory unit: a sliding window in Legendre polynomials, between two nonlinear layers."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float, Inexact, Shaped

from dsrecon._types import Key, State
from dsrecon.kernels import causal_convolution
from dsrecon.kernels.structure import apply
from dsrecon.layer import (
    AbstractContinuousLayer,
    AbstractOutputCell,
    Given,
    Steps,
    TimedCell,
    sequence,
    steps,
    stepwise,
)
from dsrecon.models._init import at_least_one, uniforms
from dsrecon.models._ssm import krylov_columns
from dsrecon.models.discretise import AbstractDiscretisation, ZeroOrderHold
from dsrecon.models.hippo import hippo_system


class LMU(AbstractContinuousLayer):
    """Legendre memory unit in its parallel form: `q` memories of order `n` over a window of `theta` steps.

        v = W_v u + b_v
        theta m_j' = A m_j + B v_j,   A, B HiPPO-LegT
        y = tanh(W_m m + W_u u + b_y)

    in time measured in steps; the memory is linear and fixed, so that the layer is a convolution of `v` with `n`
    impulse responses. (The first form of the unit feeds its output back into `v`, and has no parallel face.)

    **Fields:** `W_v` `[q, d]`, `b_v` `[q]`; `W_m` `[d, n, q]`, `W_u` `[d, d]`, `b_y` `[d]`.

    **Arguments:** `width` d; `order` n; `memories` q; `window` theta, in steps; `rule`: of discretisation, zero-order
    hold by default; `key` for the start values, uniform within one over the root of the number of inputs.

    **Raises:** `ValueError` for sizes below 1, a window that is not positive.

    References: Voelker, Kajić & Eliasmith 2019, *Legendre memory units: Continuous-time representation in recurrent
    neural networks*, NeurIPS; Chilkuri & Eliasmith 2021, *Parallelizing Legendre memory unit training*, ICML.
    """

    W_v: Float[Array, "q d"]
    b_v: Float[Array, "q"]
    W_m: Float[Array, "d n q"]
    W_u: Float[Array, "d d"]
    b_y: Float[Array, "d"]
    window: float = eqx.field(static=True)
    rule: AbstractDiscretisation
    dynamics: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        width: int,
        order: int = 64,
        *,
        memories: int = 1,
        window: float = 128.0,
        rule: AbstractDiscretisation | None = None,
        key: Key,
    ):
        at_least_one(width=width, order=order, memories=memories)
        if not 0 < window < float("inf"):
            raise ValueError(f"window must be positive and finite, in steps: got {window}.")
        self.W_v, self.b_v, self.W_m, self.W_u, self.b_y = uniforms(
            ((memories, width), width),
            ((memories,), width),
            ((width, order, memories), order * memories),
            ((width, width), width),
            ((width,), width),
            key=key,
        )
        self.window = float(window)
        self.rule = ZeroOrderHold() if rule is None else rule

    @property
    def width(self) -> int:
        return len(self.b_y)

    @property
    def state_size(self) -> int:
        return self.W_m[0].size

    def __call__(self, u: Given, dt: Steps = 1.0, *, key: Key | None = None) -> Float[Array, "t d"]:
        u = sequence(u, self.width)
        given = steps(dt, len(u), u.dtype)
        if given.ndim:
            return stepwise(self, u, given)
        A_d, B_d = self._discrete(given)
        responses = krylov_columns(A_d[None], B_d[None], len(u))[0]  # [n, t]
        v = (u @ self.W_v.T + self.b_v[None]).T
        d, n, q = self.W_m.shape
        if d < n:  # the impulse responses of the outputs, `[d q, t]`, or of the memories, `[n q, t]`: which are fewer
            kernels = jnp.einsum("dnq,nt->dqt", self.W_m, responses, precision=Precision.HIGHEST).reshape(d * q, -1)
            remembered = causal_convolution(kernels, jnp.tile(v, (d, 1))).reshape(d, q, -1).sum(1)
        else:
            m = causal_convolution(jnp.repeat(responses, q, 0), jnp.tile(v, (n, 1)))
            remembered = jnp.matmul(self.W_m.reshape(d, -1), m, precision=Precision.HIGHEST)
        return jnp.tanh(remembered.T + u @ self.W_u.T + self.b_y[None])

    def cell(self, dt: float | Shaped[Array, ""] | None = 1.0) -> AbstractOutputCell:
        if dt is None:
            return TimedCell(self)  # pyright: ignore[reportCallIssue]
        return self._cell(steps(dt, None, self.b_y.dtype))

    def _cell(self, dt: Array) -> "LMUCell":
        A_d, B_d = self._discrete(dt)
        return LMUCell(jnp.repeat(A_d[:, :, None], len(self.b_v), 2), B_d, self)  # pyright: ignore[reportCallIssue]

    def flow(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "m"]:
        A, B = (jnp.asarray(part, x.dtype) for part in hippo_system("legt", self.W_m.shape[1]))
        m, v = x.reshape(len(B), -1), self.W_v @ u + self.b_v
        return ((A @ m + B[:, None] * v[None]) / self.window).reshape(-1)

    def output(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "d"]:
        return jnp.tanh(self.W_m.reshape(self.width, -1) @ x + self.W_u @ u + self.b_y)

    def advance(self, x: Float[Array, "m"], u: Float[Array, "d"], dt: Float[Array, ""]) -> Float[Array, "m"]:
        return self._cell(dt)(x, u)

    def _discrete(self, dt: Array) -> tuple[Array, Array]:
        A, B = (jnp.asarray(part, self.b_y.dtype) for part in hippo_system("legt", self.W_m.shape[1]))
        return self.rule.dense(A, B, dt / self.window)


class LMUCell(AbstractOutputCell):
    """A Legendre memory unit step by step: `m' = A m + B (W_v u + b_v)`, the state `m.reshape(n, q)`."""

    A: Float[Array, "n n q"]
    B: Float[Array, "n"]
    layer: LMU

    @property
    def state_size(self) -> int:
        return self.layer.state_size

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "d"] | None = None) -> Inexact[Array, "m"]:
        driven = self.layer.b_v if s is None else self.layer.W_v @ s + self.layer.b_v
        return apply(self.A, z) + (self.B[:, None] * driven[None]).reshape(-1)

    def linearise(
        self, z: Inexact[Array, "m"], s: Inexact[Array, "d"] | None = None
    ) -> tuple[State, Inexact[Array, "n n q"]]:
        """`(f(z, s), A)`, `A` in blocks."""
        return self(z, s), self.A

    def output(self, z: State, u: Inexact[Array, "d"]) -> Inexact[Array, "d"]:
        return self.layer.output(z, u)
