"""S4D: many scalar systems a channel, in conjugate pairs."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Shaped

from dsrecon._types import Key
from dsrecon.kernels import linear_scan, vandermonde_product
from dsrecon.layer import ChannelCell, steps
from dsrecon.models._channels import AbstractChannelLayer
from dsrecon.models._ssm import as_complex, as_pair, check_layer, log_steps, poles_of, rotations
from dsrecon.models.discretise import AbstractDiscretisation, ZeroOrderHold
from dsrecon.models.hippo import normal_plus_low_rank

INITS = ("lin", "inv", "legs")


def start_poles(init: str, state_size: int) -> np.ndarray:
    """Poles `[n/2]` with imaginary part above zero: `lin` `-1/2 + i pi k`, `inv` `-1/2 + i n/pi (n / (2 k + 1) - 1)`
    (`k = 0 .. n/2 - 1`, `n` the state size), `legs` the eigenvalues of the normal part of HiPPO-LegS.

    **Raises:** `ValueError` for another name.
    """
    k = np.arange(state_size // 2)
    if init == "lin":
        return -0.5 + 1j * np.pi * k
    if init == "inv":
        return -0.5 + 1j * state_size / np.pi * (state_size / (2 * k + 1) - 1)
    if init == "legs":
        return normal_plus_low_rank("legs", state_size).eigenvalues
    raise ValueError(f"init must be one of {INITS}: got {init!r}.")


class S4D(AbstractChannelLayer):
    """Diagonal state-space layer: channel `i` of `d` has `n/2` complex states, each with its conjugate.

        x_ij' = e^{s_i} (p_ij x_ij + u_i)
        y_i = 2 Re sum_j c_ij x_ij + D_i u_i
        p_ij = -exp(a_ij) + i f_ij

    in time measured in steps. As a convolution its kernel is `K_i[l] = 2 Re sum_j c_ij b_ij exp(l x_ij)` (a Vandermonde
    product, `vandermonde_product`), `log a` and `b` of each pole by the rule of discretisation. Cost `4 d n t` for the
    kernel and `d t log t` for the convolution; memory `d t`. With steps of many lengths it is run as a scan, channel by
    channel, `n t` held at a time.

    The fastest pole of `"lin"` turns by `pi (n/2 - 1) e^s` radians a step. Beyond pi it aliases, which does no harm
    until the layer is run at another step: for that keep `pi (n/2 - 1) step_max dt` below pi.

    **Fields:** `log_decay` a, `frequency` f `[d, n/2]`; `C` `[2, d, n/2]`, real and imaginary parts; `D`, `log_step`
    `[d]`. (Weights `B` of the input are 1: they would only multiply those of `C`.)

    **Arguments:** `width` d; `state_size` n, even; `init`: `"lin"`, `"inv"`, `"legs"` (`start_poles`); `step_min`,
    `step_max`: steps start log-uniform between; `rule`: of discretisation, zero-order hold by default; `key`.

    **Raises:** `ValueError` for sizes below 1, an odd state size, unknown names, steps that are not positive.

    Reference: Gu, Gupta, Goel & Ré 2022, *On the parameterization and initialization of diagonal state space models*,
    NeurIPS.
    """

    log_decay: Float[Array, "d k"]
    frequency: Float[Array, "d k"]
    C: Float[Array, "2 d k"]
    D: Float[Array, "d"]
    log_step: Float[Array, "d"]
    rule: AbstractDiscretisation
    dynamics: ClassVar[tuple[str, ...]] = ("log_decay", "frequency", "log_step")

    def __init__(
        self,
        width: int,
        state_size: int = 64,
        *,
        init: str = "lin",
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        rule: AbstractDiscretisation | None = None,
        key: Key,
    ):
        check_layer(state_size, step_min, step_max, key=key, pairs=True, width=width)
        poles = start_poles(init, state_size)
        key_C, key_D, key_step = jax.random.split(key, 3)
        self.log_decay = jnp.tile(jnp.log(-jnp.asarray(np.real(poles), float)), (width, 1))
        self.frequency = jnp.tile(jnp.asarray(np.imag(poles), float), (width, 1))
        self.C = jax.random.normal(key_C, (2, width, state_size // 2)) * 0.5**0.5
        self.D = jax.random.normal(key_D, (width,))
        self.log_step = log_steps(width, step_min, step_max, key=key_step)
        self.rule = ZeroOrderHold() if rule is None else rule

    @property
    def poles(self) -> Complex[Array, "d k"]:
        """`p`, per unit of the channel's step."""
        return poles_of(self.log_decay, self.frequency)

    def kernel(self, length: int, dt: float | Shaped[Array, ""] = 1.0) -> Float[Array, "d {length}"]:
        """`K` `[d, length]`: the response to a unit impulse, `D` left out."""
        x, b = self.rule.diagonal(self.poles, self._step(steps(dt, None, self.D.dtype))[:, None])
        return vandermonde_product(as_complex(self.C) * b, x, length)

    def _cell(self, dt: Array) -> ChannelCell:
        x, b = self.rule.diagonal(self.poles, self._step(dt)[:, None])
        C = 2 * jnp.stack([self.C[0], -self.C[1]])
        return ChannelCell(rotations(jnp.exp(x).reshape(-1)), as_pair(b), C, self.D)  # pyright: ignore[reportCallIssue]

    def flow(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "m"]:
        z = as_complex(x.reshape(self.C.shape))
        return (jnp.exp(self.log_step)[None, :, None] * as_pair(self.poles * z + u.astype(z.dtype)[:, None])).reshape(
            -1
        )

    def output(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "d"]:
        z = x.reshape(self.C.shape)
        return 2 * jnp.sum(self.C[0] * z[0] - self.C[1] * z[1], 1) + self.D * u

    def advance(self, x: Float[Array, "m"], u: Float[Array, "d"], dt: Float[Array, ""]) -> Float[Array, "m"]:
        return self._cell(dt)(x, u)

    def _uneven(self, u: Float[Array, "t d"], dt: Float[Array, "t"]) -> Float[Array, "t d"]:
        @jax.checkpoint
        def channel(given):
            u, poles, c, step = given
            x, b = self.rule.diagonal(poles[None], (step * dt)[:, None])
            z = linear_scan(jnp.exp(x), b * u.astype(b.dtype)[:, None])
            return 2 * jnp.sum(z.real * c[0][None] - z.imag * c[1][None], 1)

        y = jax.lax.map(channel, (u.T, self.poles, jnp.moveaxis(self.C, 1, 0), jnp.exp(self.log_step)))
        return y.T + self.D[None] * u
