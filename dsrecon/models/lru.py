"""Linear recurrent unit: a diagonal system in steps, without continuous time."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Shaped

from dsrecon._checks import jax_key
from dsrecon._types import Key
from dsrecon.kernels import linear_scan
from dsrecon.layer import AbstractSequenceLayer, Given, MixingCell, Steps, sequence
from dsrecon.models._init import at_least_one
from dsrecon.models._ssm import as_complex, as_pair, rotations
from dsrecon.models.s5 import driven, shown


class LRU(AbstractSequenceLayer):
    """Linear recurrent unit: `k` complex states, each with its conjugate.

        x_j <- l_j x_j + g_j B_j . u
        y = 2 Re C x + D * u
        l_j = exp(-exp(n_j) + i exp(f_j)),   g_j = exp(c_j)

    A system in steps: it knows nothing of time between them, so `dt` must be 1, and there is no continuous face. Run as
    a scan over the sequence (`linear_scan`). Cost `k d t`, memory `k t`.

    **Fields:** `log_decay` n, `log_phase` f, `log_gain` c `[k]`; `B` `[2, k, d]`, `C` `[2, d, k]`, real and imaginary
    parts; `D` `[d]`.

    **Arguments:** `width` d; `states` k; `radius_min`, `radius_max`: `|l|` starts uniform on the ring between,
    `phase_max` its largest angle; `key`. Gains start at `sqrt(1 - |l|^2)`, so that white noise
    gives states of variance one.

    **Raises:** `ValueError` for sizes below 1, radii outside `0 <= min < max < 1`, a phase outside (0, 2 pi]; when
    called, for a `dt` other than 1.

    Reference: Orvieto et al. 2023, *Resurrecting recurrent neural networks for long sequences*, ICML.
    """

    log_decay: Float[Array, "k"]
    log_phase: Float[Array, "k"]
    log_gain: Float[Array, "k"]
    B: Float[Array, "2 k d"]
    C: Float[Array, "2 d k"]
    D: Float[Array, "d"]
    dynamics: ClassVar[tuple[str, ...]] = ("log_decay", "log_phase", "log_gain", "B")

    def __init__(
        self,
        width: int,
        states: int = 32,
        *,
        radius_min: float = 0.9,
        radius_max: float = 0.999,
        phase_max: float = 2 * np.pi,
        key: Key,
    ):
        at_least_one(width=width, states=states)
        if not 0 <= radius_min < radius_max < 1:
            raise ValueError(f"radii must satisfy 0 <= radius_min < radius_max < 1: got {radius_min} and {radius_max}.")
        if not 0 < phase_max <= 2 * np.pi:
            raise ValueError(f"phase_max must lie in (0, 2 pi]: got {phase_max}.")
        key_ring, key_B, key_C, key_D = jax.random.split(jax_key(key), 4)
        ring, angle = jax.random.uniform(key_ring, (2, states))
        square = ring * (radius_max**2 - radius_min**2) + radius_min**2
        self.log_decay = jnp.log(-0.5 * jnp.log(square))
        self.log_phase = jnp.log(phase_max * angle)
        self.log_gain = 0.5 * jnp.log1p(-square)
        self.B = jax.random.normal(key_B, (2, states, width)) / (2 * width) ** 0.5
        self.C = jax.random.normal(key_C, (2, width, states)) / (2 * states) ** 0.5
        self.D = jax.random.normal(key_D, (width,))

    @property
    def width(self) -> int:
        return len(self.D)

    @property
    def state_size(self) -> int:
        return 2 * len(self.log_decay)

    @property
    def slopes(self) -> Complex[Array, "k"]:
        """`l`."""
        return jnp.exp(jax.lax.complex(-jnp.exp(self.log_decay), jnp.exp(self.log_phase)))

    def __call__(self, u: Given, dt: Steps = 1.0, *, key: Key | None = None) -> Float[Array, "t d"]:
        u = sequence(u, self.width)
        _only_one(dt)
        terms = driven(u, as_complex(jnp.exp(self.log_gain)[None, :, None] * self.B))
        z = linear_scan(jnp.broadcast_to(self.slopes[None], terms.shape), terms)
        return shown(z, self.C) + self.D[None] * u

    def cell(self, dt: float | Shaped[Array, ""] | None = 1.0) -> MixingCell:
        _only_one(dt)
        B = as_complex(jnp.exp(self.log_gain)[None, :, None] * self.B)
        C = 2 * jnp.concatenate([self.C[0], -self.C[1]], 1)
        return MixingCell(rotations(self.slopes), as_pair(B).reshape(-1, self.width), C, self.D)  # pyright: ignore[reportCallIssue]


def _only_one(dt: Any) -> None:
    if isinstance(dt, Tracer) or np.ndim(dt) or dt != 1:
        raise ValueError(f"dt must be 1: an LRU has no time between its steps (S5 is its relative that has): got {dt}.")
