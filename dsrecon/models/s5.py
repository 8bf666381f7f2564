"""S5: one diagonal system of many inputs and outputs."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Complex, Float, Shaped

from dsrecon._types import Key
from dsrecon.kernels import linear_scan
from dsrecon.layer import (
    AbstractContinuousLayer,
    AbstractOutputCell,
    Given,
    MixingCell,
    Steps,
    TimedCell,
    sequence,
    steps,
)
from dsrecon.models._ssm import as_complex, as_pair, check_layer, log_steps, poles_of, rotations
from dsrecon.models.discretise import AbstractDiscretisation, ZeroOrderHold
from dsrecon.models.hippo import normal_plus_low_rank


class S5(AbstractContinuousLayer):
    """State-space layer with one diagonal system for all channels; `n/2` complex states, each with its conjugate.

        x_j' = e^{s_j} (p_j x_j + B_j . u)
        y = 2 Re C x + D * u
        p_j = -exp(a_j) + i f_j

    in time measured in steps. It is run as a scan over the sequence (`linear_scan`), whose steps may be of any lengths:
    irregular samples cost what regular ones do. Cost `n (d + 1) t`, memory `n t`.

    **Fields:** `log_decay` a, `frequency` f, `log_step` s `[n/2]`; `B` `[2, n/2, d]`, `C` `[2, d, n/2]`, real and
    imaginary parts; `D` `[d]`.

    **Arguments:** `width` d; `state_size` n, even; `blocks`: the poles start as those of so many HiPPO-LegS systems of
    `n / blocks` states side by side, `B` and `C` random in their bases; `step_min`, `step_max`: steps start log-uniform
    between; `rule`: of discretisation, zero-order hold by default; `key`.

    **Raises:** `ValueError` for sizes below 1, a state size that is not an even number times `blocks`, steps that are
    not positive.

    Reference: Smith, Warrington & Linderman 2023, *Simplified state space layers for sequence modeling*, ICLR.
    """

    log_decay: Float[Array, "k"]
    frequency: Float[Array, "k"]
    B: Float[Array, "2 k d"]
    C: Float[Array, "2 d k"]
    D: Float[Array, "d"]
    log_step: Float[Array, "k"]
    rule: AbstractDiscretisation
    dynamics: ClassVar[tuple[str, ...]] = ("log_decay", "frequency", "B", "log_step")

    def __init__(
        self,
        width: int,
        state_size: int = 64,
        *,
        blocks: int = 1,
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        rule: AbstractDiscretisation | None = None,
        key: Key,
    ):
        check_layer(state_size, step_min, step_max, key=key, pairs=True, width=width, blocks=blocks)
        if state_size % (2 * blocks):
            raise ValueError(f"state_size must be an even number times blocks, {blocks}: got {state_size}.")
        form = normal_plus_low_rank("legs", state_size // blocks)
        k = state_size // 2
        key_B, key_C, key_D, key_step = jax.random.split(key, 4)
        self.log_decay = jnp.tile(jnp.asarray(np.log(-np.real(form.eigenvalues)), float), blocks)
        self.frequency = jnp.tile(jnp.asarray(np.imag(form.eigenvalues), float), blocks)
        basis = jnp.asarray(form.V, complex)  # [n / blocks, k / blocks]
        B = jax.random.normal(key_B, (blocks, state_size // blocks, width)) / width**0.5
        C = jax.random.normal(key_C, (width, blocks, state_size // blocks)) / state_size**0.5
        self.B = as_pair(jnp.einsum("nk,bnd->bkd", jnp.conj(basis), B.astype(basis.dtype)).reshape(k, width))
        self.C = as_pair(jnp.einsum("dbn,nk->dbk", C.astype(basis.dtype), basis).reshape(width, k))
        self.D = jax.random.normal(key_D, (width,))
        self.log_step = log_steps(k, step_min, step_max, key=key_step)
        self.rule = ZeroOrderHold() if rule is None else rule

    @property
    def width(self) -> int:
        return len(self.D)

    @property
    def state_size(self) -> int:
        return 2 * len(self.log_decay)

    @property
    def poles(self) -> Complex[Array, "k"]:
        """`p`, per unit of the state's step."""
        return poles_of(self.log_decay, self.frequency)

    def __call__(self, u: Given, dt: Steps = 1.0, *, key: Key | None = None) -> Float[Array, "t d"]:
        u = sequence(u, self.width)
        given = jnp.broadcast_to(steps(dt, len(u), u.dtype), len(u))
        x, b = self.rule.diagonal(self.poles[None], given[:, None] * jnp.exp(self.log_step)[None])
        z = linear_scan(jnp.exp(x), b * driven(u, as_complex(self.B)))
        return shown(z, self.C) + self.D[None] * u

    def cell(self, dt: float | Shaped[Array, ""] | None = 1.0) -> AbstractOutputCell:
        if dt is None:
            return TimedCell(self)  # pyright: ignore[reportCallIssue]
        return self._cell(steps(dt, None, self.D.dtype))

    def _cell(self, dt: Array) -> MixingCell:
        x, b = self.rule.diagonal(self.poles, dt * jnp.exp(self.log_step))
        B = b[:, None] * as_complex(self.B)
        C = 2 * jnp.concatenate([self.C[0], -self.C[1]], 1)
        return MixingCell(rotations(jnp.exp(x)), jnp.concatenate([B.real, B.imag]), C, self.D)  # pyright: ignore[reportCallIssue]

    def flow(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "m"]:
        z = as_complex(x.reshape(2, -1))
        moved = as_pair(self.poles * z + driven(u[None], as_complex(self.B))[0])
        return (jnp.exp(self.log_step)[None] * moved).reshape(-1)

    def output(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "d"]:
        return shown(as_complex(x.reshape(2, -1))[None], self.C)[0] + self.D * u

    def advance(self, x: Float[Array, "m"], u: Float[Array, "d"], dt: Float[Array, ""]) -> Float[Array, "m"]:
        return self._cell(dt)(x, u)


def shown(z: Complex[Array, "t k"], C: Float[Array, "2 d k"]) -> Float[Array, "t d"]:
    """`2 Re C z` of every step, in real numbers."""
    both = jnp.concatenate([z.real, z.imag], 1)
    return 2 * jnp.matmul(both, jnp.concatenate([C[0], -C[1]], 1).T, precision=Precision.HIGHEST)


def driven(u: Float[Array, "t d"], B: Complex[Array, "k d"]) -> Complex[Array, "t k"]:
    """`B u` of every step, in real numbers."""
    both = jnp.matmul(u, jnp.concatenate([B.real, B.imag]).T, precision=Precision.HIGHEST)
    return jax.lax.complex(*jnp.split(both, 2, 1))
