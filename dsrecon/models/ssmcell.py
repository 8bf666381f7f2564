"""A state-space model that drives itself: linear memory, nonlinear readout, and the loop closed by what is read out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from dsrecon._types import Key, Matrix, State
from dsrecon.cell import AbstractCell, as_matrix
from dsrecon.kernels.structure import apply
from dsrecon.models._init import at_least_one, check_input, check_sizes, uniform
from dsrecon.models._ssm import as_complex, check_layer, log_steps, poles_of, rotations
from dsrecon.models.discretise import ZeroOrderHold
from dsrecon.models.hippo import normal_plus_low_rank


class StateSpaceCell(AbstractCell):
    """State-space model with nonlinear readout; the state is `z = [x, Re h, Im h]`, what is observed and `k` modes.

        h' = exp(d p) h + p^-1 (exp(d p) - 1) B u        u = [x (, s)],  d = e^{log_step},  p = -e^{log_decay} + i f
        x' = x + g([u, Re h', Im h'])

    `h` is a diagonal system in continuous time, stable whatever its parameters, with a step of its own a mode, under
    zero-order hold. `g` is a multilayer perceptron, `y <- tanh(W y + b)` layer by layer and `W y + b` at last; with
    `hidden_size=0` it is that last line alone, a linear readout.

    **Driven by data.** Under `Forced` with `IdentityReadout(n, n + 2k)` at `alpha = 1`, `u` is data: `h` are the states
    of an S5 layer along them, `x'` what it shows through `g`, and nothing that is predicted comes back. So what is
    forgotten is forgotten at rates that no data change, `log |exp(d p)|` a step, twice for each mode: a memory that is
    linear and fades. All steps are two iterations of `Newton`, however many they are. With a smaller `alpha` the
    prediction is fed back while training, as it is in a free run.

    **Running free**, the loop through `g` is closed, and `g` alone bends. With a linear readout the free run is one
    affine map: its exponents are `log |eigenvalue|`, the same at every state, and nothing that it does is chaos; a
    run that stays bounded for ever ends in a point or a sum of oscillations. With a nonlinear one it can be chaotic,
    and grows by at most `sum |W| + |b|` of the last layer a step, but is not bounded.

    The Jacobian is dense: with `M = d[u, h']/dz` and `H = [B_d, exp(d p)]`, the last rows of `M`,

        J = [ [1 0] + W_l diag(1 - y_{l-1}^2) W_{l-1} ... diag(1 - y_1^2) W_1 M ]
            [ H                                                                 ]

    **Fields:** `log_decay`, `frequency` f, `log_step` `[k]`; `B` `[2, k, n + inputs]`, real and imaginary parts; `W`,
    `b`: of the layers of `g`, from `[hidden, n + inputs + 2k]` to `[n, hidden]`.

    **Arguments:** `observed_size` n, the variables of the series; `memory_size` 2k, even; `hidden_size` of the layers
    of `g`, 0 for a linear readout; `depth`: how many hidden layers; `input_size`: of external input `s`, 0 for none;
    `step_min`, `step_max`: steps start log-uniform between, in samples, where a memory lasts about `2 / step` samples,
    which should be few beside a window; `key` for the start values: poles those of HiPPO-LegS, `B` normal of variance
    `1/(n + inputs)`, `W` and `b` uniform within `1/sqrt(fan_in)`, the last `b` zero.

    **Raises:** `ValueError` for sizes below 1 (below 0 for those that may be 0), an odd `memory_size`, steps that are
    not positive or out of order.

    References: Smith, Warrington & Linderman 2023, *Simplified state space layers for sequence modeling*, ICLR (the
    layer); Gu et al. 2022, *On the parameterization and initialization of diagonal state space models*, NeurIPS (start
    values); Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML (the forcing).
    """

    log_decay: Float[Array, "k"]
    frequency: Float[Array, "k"]
    log_step: Float[Array, "k"]
    B: Float[Array, "2 k d"]
    W: tuple[Float[Array, "_ _"], ...]
    b: tuple[Float[Array, "_"], ...]
    observed_size: int = eqx.field(static=True)
    memory_size: int = eqx.field(static=True)
    input_size: int = eqx.field(static=True)

    def __init__(
        self,
        observed_size: int,
        memory_size: int = 32,
        hidden_size: int = 50,
        depth: int = 1,
        *,
        input_size: int = 0,
        step_min: float = 1e-2,
        step_max: float = 1.0,
        key: Key,
    ):
        check_sizes(key=key, observed_size=observed_size, depth=depth, input_size=input_size)
        at_least_one(memory_size=memory_size)
        if memory_size % 2:
            raise ValueError(f"memory_size must be even, real and imaginary parts: got {memory_size}.")
        if hidden_size < 0:
            raise ValueError(f"hidden_size must be at least 0 (0: a linear readout): got {hidden_size}.")
        check_layer(memory_size, step_min, step_max, key=key, pairs=True)
        self.observed_size, self.memory_size, self.input_size = observed_size, memory_size, input_size
        k, d = memory_size // 2, observed_size + input_size
        key_B, key_step, *keys = jax.random.split(key, 2 + 2 * (depth + 1))
        form = normal_plus_low_rank("legs", memory_size)
        self.log_decay = jnp.asarray(np.log(-np.real(form.eigenvalues)), float)
        self.frequency = jnp.asarray(np.imag(form.eigenvalues), float)
        self.log_step = log_steps(k, step_min, step_max, key=key_step)
        self.B = jax.random.normal(key_B, (2, k, d)) / (2 * d) ** 0.5
        hidden = [hidden_size] * depth if hidden_size else []
        sizes = list(zip([d + memory_size, *hidden], [*hidden, observed_size], strict=True))
        self.W = tuple(uniform((o, i), i, key=key) for (i, o), key in zip(sizes, keys[::2], strict=False))
        bs = [uniform((o,), i, key=key) for (i, o), key in zip(sizes[:-1], keys[1::2], strict=False)]
        self.b = (*bs, jnp.zeros(observed_size))

    @property
    def state_size(self) -> int:
        return self.observed_size + self.memory_size

    @property
    def poles(self) -> Complex[Array, "k"]:
        """`p`, per unit of each mode's own step."""
        return poles_of(self.log_decay, self.frequency)

    def discrete(self) -> tuple[Float[Array, "2 2 k"], Float[Array, "2*k d"]]:
        """`exp(d p)` as blocks `[2, 2, k]`, and `B_d` `[2k, n + inputs]`: `h' = A h + B_d u` on `[Re h, Im h]`."""
        x, b = ZeroOrderHold().diagonal(self.poles, jnp.exp(self.log_step))
        B = b[:, None] * as_complex(self.B)
        return rotations(jnp.exp(x)), jnp.concatenate([B.real, B.imag])

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "j"] | None = None) -> Inexact[Array, "m"]:
        *_, x, h = self._layers(z, s)
        return jnp.concatenate([x, h])

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "j"] | None = None) -> tuple[State, Matrix]:
        *seen, x, h = self._layers(z, s)
        A, B = self.discrete()
        H = jnp.concatenate([B[:, : self.observed_size], as_matrix(A)], 1)
        one = jnp.eye(self.observed_size, self.state_size, dtype=H.dtype)
        J = jnp.concatenate([one, jnp.zeros((self.input_size, self.state_size), H.dtype), H])
        for W, y in zip(self.W, seen, strict=False):
            J = (1 - y**2)[:, None] * (W @ J)
        return jnp.concatenate([x, h]), jnp.concatenate([one + self.W[-1] @ J, H])

    def _layers(self, z, s):
        """The hidden layers of `g`, then `x'` and `h'`."""
        if s is not None:
            check_input(self.input_size, s)
        A, B = self.discrete()
        u = x = z[: self.observed_size]
        if self.input_size:
            u = jnp.concatenate([x, jnp.zeros(self.input_size, z.dtype) if s is None else s])
        h = apply(A, z[self.observed_size :]) + B @ u
        y, seen = jnp.concatenate([u, h]), []
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            y = jnp.tanh(W @ y + b)
            seen.append(y)
        return *seen, x + self.W[-1] @ y + self.b[-1], h
