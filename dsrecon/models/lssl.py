"""LSSL: the layer whose matrix is HiPPO's, as it is or trained within its class."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from dsrecon._types import Key
from dsrecon.layer import ChannelCell, steps, stepwise
from dsrecon.models._channels import AbstractChannelLayer
from dsrecon.models._ssm import check_layer, krylov_kernel, log_steps
from dsrecon.models.discretise import AbstractDiscretisation, Bilinear
from dsrecon.models.hippo import Measure, TridiagonalForm, hippo_system, tridiagonal_form


class StructuredMatrix(eqx.Module):
    """`A = diag(P) (diag(D) + T^-1) diag(Q)` with `T` tridiagonal: products with it and solves cost `O(n)`.

    Holds HiPPO-LegS, -LegT and -LagT exactly (`tridiagonal_form`). **Fields:** `P`, `D`, `Q`, `T_diag` `[n]`; `T_sub`,
    `T_super` `[n - 1]`, below and above the diagonal.

    Reference: Gu et al. 2021, *Combining recurrent, convolutional, and continuous-time models with linear state-space
    layers*, NeurIPS, theorem 2.
    """

    P: Float[Array, "n"]
    D: Float[Array, "n"]
    T_sub: Float[Array, "n-1"]
    T_diag: Float[Array, "n"]
    T_super: Float[Array, "n-1"]
    Q: Float[Array, "n"]

    def times(self, x: Float[Array, "n j"]) -> Float[Array, "n j"]:
        """`A x`, of `j` columns."""
        scaled = self.Q[:, None] * x
        solved = _solve(self.T_sub, self.T_diag, self.T_super, scaled)
        return self.P[:, None] * (self.D[:, None] * scaled + solved)

    def solve(self, c: Float[Array, ""], y: Float[Array, "n j"]) -> Float[Array, "n j"]:
        """`x = (I - c A)^-1 y`, of `j` columns: `(T diag(E) - c diag(Q)) x = T (y / P)`, `E = 1 / P - c D Q`."""
        E, divided = 1 / self.P - c * self.D * self.Q, y / self.P[:, None]
        right = self.T_diag[:, None] * divided
        right = right.at[1:].add(self.T_sub[:, None] * divided[:-1]).at[:-1].add(self.T_super[:, None] * divided[1:])
        return _solve(self.T_sub * E[:-1], self.T_diag * E - c * self.Q, self.T_super * E[1:], right)

    def dense(self) -> Float[Array, "n n"]:
        """`A`, written out."""
        return self.times(jnp.eye(len(self.P), dtype=self.P.dtype))


def _solve(sub: Array, diagonal: Array, above: Array, y: Array) -> Array:
    zero = jnp.zeros(1, y.dtype)
    return jax.lax.linalg.tridiagonal_solve(jnp.concatenate([zero, sub]), diagonal, jnp.concatenate([above, zero]), y)


class LSSL(AbstractChannelLayer):
    """Linear state-space layer: channel `i` of `d` is a system of `n` states with HiPPO's matrix.

        x_i' = e^{s_i} (A x_i + B u_i)
        y_i = C_i x_i + D_i u_i

    in time measured in steps; `A`, `B` are shared by the channels, fixed, or trained within the class
    `diag(P) (diag(D) + T^-1) diag(Q)`, `T` tridiagonal (`StructuredMatrix`), in which a step of any length costs
    `O(n)`. As a convolution its kernel is `K_i[l] = C_i A_d^l B_d`, the rows `C A_d^(s q)` times the columns
    `A_d^r B_d` of Krylov spaces (`krylov_kernel`): `2 n^3 log2(t) + 2 n t` operations a channel, in products of
    matrices.

    With steps of many lengths the layer runs step by step.

    **Fields:** `C` `[d, n]`; `D`, `log_step` s `[d]`; `matrix`, `B` `[n]`: `None` where they are fixed.

    **Arguments:** `width` d; `state_size` n; `measure`: HiPPO's, `"legs"`, `"legt"`, `"lagt"` or `"fourier"` (fixed
    alone); `trainable`: whether `A` and `B` are trained; `step_min`, `step_max`: steps start log-uniform between;
    `rule`: of discretisation, the bilinear one by default; `key`.

    **Raises:** `ValueError` for sizes below 1, an unknown measure, or one that cannot be trained, steps that are not
    positive.

    Reference: Gu et al. 2021, *Combining recurrent, convolutional, and continuous-time models with linear state-space
    layers*, NeurIPS.
    """

    C: Float[Array, "d n"]
    D: Float[Array, "d"]
    log_step: Float[Array, "d"]
    matrix: StructuredMatrix | None
    B: Float[Array, "n"] | None
    measure: Measure = eqx.field(static=True)
    rule: AbstractDiscretisation
    dynamics: ClassVar[tuple[str, ...]] = ("matrix", "B", "log_step")

    def __init__(
        self,
        width: int,
        state_size: int = 64,
        *,
        measure: Measure = "legs",
        trainable: bool = False,
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        rule: AbstractDiscretisation | None = None,
        key: Key,
    ):
        check_layer(state_size, step_min, step_max, key=key, pairs=False, width=width)
        B = hippo_system(measure, state_size).B
        key_C, key_D, key_step = jax.random.split(key, 3)
        self.C = jax.random.normal(key_C, (width, state_size)) / state_size**0.5
        self.D = jax.random.normal(key_D, (width,))
        self.log_step = log_steps(width, step_min, step_max, key=key_step)
        self.matrix = _structured(tridiagonal_form(measure, state_size), self.D.dtype) if trainable else None
        self.B = jnp.asarray(B, float) if trainable else None
        self.measure, self.rule = measure, Bilinear() if rule is None else rule

    def system(self) -> tuple[Float[Array, "n n"], Float[Array, "n"]]:
        """`A` and `B`, per unit of a channel's step."""
        fixed = hippo_system(self.measure, self.C.shape[1])
        A = jnp.asarray(fixed.A, self.D.dtype) if self.matrix is None else self.matrix.dense()
        return A, jnp.asarray(fixed.B, self.D.dtype) if self.B is None else self.B

    def kernel(self, length: int, dt: float | Shaped[Array, ""] = 1.0) -> Float[Array, "d {length}"]:
        """`K` `[d, length]`: the response to a unit impulse, `D` left out."""
        A_d, B_d = self._discrete(steps(dt, None, self.D.dtype))
        return krylov_kernel(A_d, B_d, self.C, length)

    def _uneven(self, u: Float[Array, "t d"], dt: Float[Array, "t"]) -> Float[Array, "t d"]:
        return stepwise(self, u, dt)

    def _cell(self, dt: Array) -> ChannelCell:
        A_d, B_d = self._discrete(dt)
        return ChannelCell(jnp.moveaxis(A_d, 0, 2), B_d.T[:, :, None], self.C.T[:, :, None], self.D)  # pyright: ignore[reportCallIssue]

    def flow(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "m"]:
        A, B = self.system()
        return (jnp.exp(self.log_step)[None] * (A @ x.reshape(-1, self.width) + B[:, None] * u[None])).reshape(-1)

    def output(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "d"]:
        return jnp.sum(self.C.T * x.reshape(-1, self.width), 0) + self.D * u

    def advance(self, x: Float[Array, "m"], u: Float[Array, "d"], dt: Float[Array, ""]) -> Float[Array, "m"]:
        """By tridiagonal solves, `O(n)` a channel, where the rule and the matrix allow it."""
        if not isinstance(self.rule, Bilinear) or self.measure not in STRUCTURED:
            return self._cell(dt)(x, u)
        n, w, B = self.C.shape[1], self.rule.weight, self.system_input()
        A = _structured(tridiagonal_form(self.measure, n), x.dtype) if self.matrix is None else self.matrix
        z, d = x.reshape(n, -1), self._step(dt)
        y = z + d[None] * (B[:, None] * u[None] + ((1 - w) * A.times(z) if w < 1 else 0))
        if not w:
            return y.reshape(-1)
        return jax.vmap(lambda d, y: A.solve(w * d, y[:, None])[:, 0], in_axes=(0, 1), out_axes=1)(d, y).reshape(-1)

    def system_input(self) -> Float[Array, "n"]:
        """`B`."""
        return jnp.asarray(hippo_system(self.measure, self.C.shape[1]).B, self.D.dtype) if self.B is None else self.B

    def _discrete(self, dt: Array) -> tuple[Array, Array]:
        A, B = self.system()
        return jax.vmap(lambda d: self.rule.dense(A, B, d))(self._step(dt))


STRUCTURED = ("legs", "legt", "lagt")
"""Measures whose matrices are structured."""


def _structured(form: TridiagonalForm, dtype) -> StructuredMatrix:
    return StructuredMatrix(*(jnp.asarray(x, dtype) for x in form))
