"""S4: systems whose matrix is normal plus low rank."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float, Shaped

from dsrecon._types import Key
from dsrecon.kernels import cauchy_product
from dsrecon.layer import ChannelCell, steps, stepwise
from dsrecon.models._channels import AbstractChannelLayer
from dsrecon.models._ssm import as_complex, as_pair, check_layer, log_steps, poles_of
from dsrecon.models.discretise import Bilinear
from dsrecon.models.hippo import Measure, normal_plus_low_rank

SLOWEST = 1e-3
"""Least decay of a pole at the start: the normal part of LegT, LagT and Fourier has none."""


class S4(AbstractChannelLayer):
    """State-space layer with `A` normal plus low rank; each of the `d` channels is a system of `n` states.

        x_i' = e^{s_i} (A_i x_i + B_i u_i)
        y_i = C_i x_i + D_i u_i
        A_i = L_i - P_i P_i^*,   L_i = diag(p_i1, conj p_i1, ..), p_ij = -exp(a_ij) + i f_ij

    in time measured in steps; rows of `B`, `C`, `P` come in conjugate pairs, so that the system is a real one. The form
    is stable whatever the parameters: `A + A^*` is negative.

    The kernel `K[l] = C A_d^l B_d` comes from its generating function. With `z` on a circle, `s = 1 - z`,
    `q = d (w + (1 - w) z)`, `w` the weight of the bilinear rule and `d` the step,

        sum_l K[l] z^l = d C (s I - q A)^-1 B
        = d (S_CB - q S_CP (I + q S_PP)^-1 S_PB),    S_XY = X^* (s I - q L)^-1 Y

    by Woodbury's identity: four Cauchy products (`cauchy_product`) and an inverse Fourier transform, `n t` a channel.
    The circle has radius `r < 1` and `2 t` points, so that what the kernel has beyond `2 t` comes back damped by
    `r^(2 t) = eps^(2/3)`, `eps` the rounding unit, which is also what rounding grows to: errors of 4e-11 in double and
    2e-5 in single precision, of the kernel's size. (Gu et al. take the unit circle and `C (I - A_d^t)` for a parameter,
    which ties the parameters to one length and one step. Here they belong to the system alone.)

    With steps of many lengths the layer runs step by step, `O(n)` each, by Woodbury's identity again.

    **Fields:** `log_decay` a, `frequency` f `[d, n/2]`; `P` `[2, d, n/2, r]`; `B`, `C` `[2, d, n/2]`, real and
    imaginary parts of one of each pair; `D`, `log_step` `[d]`.

    **Arguments:** `width` d; `state_size` n, even; `measure`: HiPPO's, `"legs"` (rank r = 1), `"lagt"`, `"legt"`,
    `"fourier"`; `step_min`, `step_max`: steps start log-uniform between; `rule`: `Bilinear` of any weight; `key`.

    **Raises:** `ValueError` for sizes below 1, an odd state size, an unknown measure, steps that are not positive, a
    rule that is not rational (zero-order hold).

    References: Gu, Goel & Ré 2022, *Efficiently modeling long sequences with structured state spaces*, ICLR; Goel et
    al. 2022, *It's raw! Audio generation with state-space models*, ICML (the stable form).
    """

    log_decay: Float[Array, "d k"]
    frequency: Float[Array, "d k"]
    P: Float[Array, "2 d k r"]
    B: Float[Array, "2 d k"]
    C: Float[Array, "2 d k"]
    D: Float[Array, "d"]
    log_step: Float[Array, "d"]
    rule: Bilinear
    dynamics: ClassVar[tuple[str, ...]] = ("log_decay", "frequency", "P", "B", "log_step")

    def __init__(
        self,
        width: int,
        state_size: int = 64,
        *,
        measure: Measure = "legs",
        step_min: float = 1e-3,
        step_max: float = 1e-1,
        rule: Bilinear | None = None,
        key: Key,
    ):
        check_layer(state_size, step_min, step_max, key=key, pairs=True, width=width)
        rule = Bilinear() if rule is None else rule
        if not isinstance(rule, Bilinear):
            raise ValueError(f"rule must be Bilinear, whose transfer function is rational: got {type(rule).__name__}.")
        form = normal_plus_low_rank(measure, state_size)
        key_C, key_D, key_step = jax.random.split(key, 3)

        def tiled(x):
            values = jnp.asarray(x, float)
            return jnp.broadcast_to(values, (width, *values.shape)) + jnp.zeros((), values.dtype)

        self.log_decay = tiled(np.log(np.maximum(-np.real(form.eigenvalues), SLOWEST)))
        self.frequency = tiled(np.imag(form.eigenvalues))
        self.P, self.B = (jnp.stack([tiled(np.real(x)), tiled(np.imag(x))]) for x in (form.P, form.B))
        self.C = jax.random.normal(key_C, (2, width, state_size // 2)) * 0.5**0.5
        self.D = jax.random.normal(key_D, (width,))
        self.log_step = log_steps(width, step_min, step_max, key=key_step)
        self.rule = rule

    def dense(self) -> tuple[Float[Array, "d n n"], Float[Array, "d n"], Float[Array, "d n"]]:
        """`A`, `B`, `C` of each channel on real parts and imaginary parts, per unit of the channel's step."""
        poles, P = poles_of(self.log_decay, self.frequency), jnp.concatenate([self.P[0], self.P[1]], 1)
        real, imag = (jax.vmap(jnp.diag)(x) for x in (poles.real, poles.imag))
        L = jnp.concatenate([jnp.concatenate([real, -imag], 2), jnp.concatenate([imag, real], 2)], 1)
        low = jnp.einsum("dnr,dmr->dnm", P, P, precision=Precision.HIGHEST)
        B, C = jnp.concatenate([self.B[0], self.B[1]], 1), jnp.concatenate([self.C[0], -self.C[1]], 1)
        return L - 2 * low, B, 2 * C

    def kernel(self, length: int, dt: float | Shaped[Array, ""] = 1.0) -> Float[Array, "d {length}"]:
        """`K` `[d, length]`: the response to a unit impulse, `D` left out."""
        d = self._step(steps(dt, None, self.D.dtype))
        radius = float(jnp.finfo(self.D.dtype).eps) ** (2 / 3 / (2 * length))
        z, w = radius * np.exp(-1j * np.pi * np.arange(length + 1) / length), self.rule.weight
        poles = poles_of(self.log_decay, self.frequency)
        d = d[:, None].astype(poles.dtype)
        q = d * jnp.asarray(w + (1 - w) * z, poles.dtype)[None]
        b, c, P = as_complex(self.B)[:, :, None], as_complex(self.C)[:, :, None], as_complex(self.P)
        left, right = jnp.concatenate([jnp.conj(P), c], 2), jnp.concatenate([P, b], 2)  # [d, k, r + 1]
        size = left.shape[2]
        weights = (left[..., :, None] * right[..., None, :]).reshape(*left.shape[:2], size * size)
        sums = cauchy_product(weights.swapaxes(1, 2), poles, jnp.asarray(1 - z, poles.dtype), q)
        values = d * _eliminated(sums.reshape(len(d), size, size, -1), q)
        damped = jnp.fft.irfft(values, 2 * length)[:, :length]
        return damped * jnp.asarray(radius ** -np.arange(length), damped.dtype)[None]

    def _uneven(self, u: Float[Array, "t d"], dt: Float[Array, "t"]) -> Float[Array, "t d"]:
        return stepwise(self, u, dt)

    def _cell(self, dt: Array) -> ChannelCell:
        A, B, C = self.dense()
        A_d, B_d = jax.vmap(self.rule.dense)(A, B, self._step(dt))
        return ChannelCell(jnp.moveaxis(A_d, 0, 2), B_d.T[:, :, None], C.T[:, :, None], self.D)  # pyright: ignore[reportCallIssue]

    def flow(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "m"]:
        z, step = self._parts(x), jnp.exp(self.log_step)[:, None].astype(as_complex(self.B).dtype)
        return self._state((self._times(z) + as_complex(self.B) * u.astype(z.dtype)[:, None]) * step)

    def output(self, x: Float[Array, "m"], u: Float[Array, "d"]) -> Float[Array, "d"]:
        return 2 * jnp.sum((as_complex(self.C) * self._parts(x)).real, 1) + self.D * u

    def advance(self, x: Float[Array, "m"], u: Float[Array, "d"], dt: Float[Array, ""]) -> Float[Array, "m"]:
        """Woodbury's identity: `O(n)` a channel."""
        z, P, w = self._parts(x), as_complex(self.P), self.rule.weight
        real = self._step(dt)[:, None]
        d = real.astype(z.dtype)
        y = z + (1 - w) * d * self._times(z) + d * as_complex(self.B) * u.astype(z.dtype)[:, None]
        R = 1 / (1 - w * d * poles_of(self.log_decay, self.frequency))
        RP = R[:, :, None] * P
        core = 2 * jnp.einsum("dki,dkj->dij", jnp.conj(P), RP, precision=Precision.HIGHEST).real
        seen = 2 * jnp.einsum("dki,dk->di", jnp.conj(P), R * y, precision=Precision.HIGHEST).real
        one = jnp.eye(P.shape[2], dtype=seen.dtype)[None]
        solved = jnp.linalg.solve(one + w * real[:, :, None] * core, seen[:, :, None])[..., 0]
        found = R * y - w * d * jnp.einsum("dki,di->dk", RP, solved.astype(RP.dtype), precision=Precision.HIGHEST)
        return self._state(found)

    def _parts(self, x: Array) -> Array:
        """One of each pair of states, complex, `[d, n/2]`."""
        z = x.reshape(2, -1, self.width)
        return jax.lax.complex(z[0], z[1]).T

    def _state(self, z: Array) -> Array:
        """The state of these parts."""
        return as_pair(z.T).reshape(-1)

    def _times(self, z: Array) -> Array:
        """`A z`."""
        P = as_complex(self.P)
        seen = 2 * jnp.einsum("dki,dk->di", jnp.conj(P), z, precision=Precision.HIGHEST).real
        low = jnp.einsum("dki,di->dk", P, seen.astype(P.dtype), precision=Precision.HIGHEST)
        return poles_of(self.log_decay, self.frequency) * z - low


def _eliminated(S: Array, q: Array) -> Array:
    """`S_CB - q S_CP (I + q S_PP)^-1 S_PB` from `S = [[S_PP, S_PB], [S_CP, S_CB]]`, `[d, r + 1, r + 1, l]`.

    By eliminating one row after the other. No pivots are sought: `I + q S_PP` has a positive real part.
    """
    rows = [[S[:, i, j] for j in range(S.shape[2])] for i in range(S.shape[1])]
    while len(rows) > 1:
        (pivot, *along), *others = rows
        scale = q / (1 + q * pivot)
        rows = [[x - first * y * scale for x, y in zip(rest, along, strict=True)] for first, *rest in others]
    return rows[0][0]
