"""Many systems in one model: AL-RNN experts, mixed by a gate that looks at a stretch of context."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Key, Matrix, State
from dsrecon.cell import AbstractCell, AbstractFamily
from dsrecon.models._init import check_sizes, driven, uniform
from dsrecon.models.alrnn import ALRNN


class GatedExperts(AbstractCell):
    """A softmax mixture of AL-RNNs: `z' = sum_j pi_j(z) (A_j z + W_j phi(z) + h_j (+ C_j s))`.

    `pi = softmax(O tanh(U z + u) + o)`, and `phi` the rectifier of `ALRNN`, the same in all experts. It is what
    `ExpertMixture` gives for a context, which is all in `u`. Inside a region it is smooth, not linear: no
    `AbstractPWLCell`. With one expert, or a gate that does not look at the state (`U = 0`), it is an `ALRNN`.

    **Fields:** `A` `[e, m]` (diagonals), `W` `[e, m, m]`, `h` `[e, m]`, `C` `[e, m, k]` or `None`, `rectified` `[m]`,
    of the `e` experts; `U` `[g, m]`, `u` `[g]`, `O` `[e, g]`, `o` `[e]`, of the gate.
    """

    A: Float[Array, "e m"]
    W: Float[Array, "e m m"]
    h: Float[Array, "e m"]
    C: Float[Array, "e m k"] | None
    rectified: Bool[Array, "m"]
    U: Float[Array, "g m"]
    u: Float[Array, "g"]
    O: Float[Array, "e g"]
    o: Float[Array, "e"]

    @property
    def state_size(self) -> int:
        return self.A.shape[-1]

    def gate(self, z: Inexact[Array, "m"]) -> Inexact[Array, "e"]:
        """The weights `pi` of the experts at a state: positive, sum 1."""
        return jax.nn.softmax(self.O @ jnp.tanh(self.U @ z + self.u) + self.o)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        return self.gate(z) @ self._each(z, s)

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> tuple[State, Matrix]:
        """`J = sum_j pi_j D_j + f' dpi/dz`, with `D_j = A_j + W_j phi'(z)` and `f_j` what expert `j` makes of `z`.

        `dpi/dz = (diag(pi) - pi pi') O diag(1 - a^2) U`, `a = tanh(U z + u)`.
        """
        pi, f = self.gate(z), self._each(z, s)
        active = jnp.tanh(self.U @ z + self.u)
        logits = self.O @ ((1 - active**2)[:, None] * self.U)
        slopes = pi[:, None] * (logits - (pi @ logits)[None])
        mixed = jnp.diag(pi @ self.A) + jnp.tensordot(pi, self.W, axes=1) * self._open(z)[None]
        return pi @ f, mixed + f.T @ slopes

    def _each(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None) -> Inexact[Array, "e m"]:
        """What every expert makes of a state."""
        phi = jnp.where(self.rectified & (z <= 0), jnp.zeros_like(z), z)
        f = self.A * z[None] + self.W @ phi + self.h
        return f if s is None else f + driven(self.C, s) @ s

    def _open(self, z: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        return ((z > 0) | ~self.rectified).astype(z.dtype)


class ExpertMixture(AbstractFamily):
    """One model for many systems: AL-RNN experts, and a gate that mixes them by a context and the current state.

    `z' = sum_j pi_j(c, z) (A_j z + W_j phi(z) + h_j (+ C_j s))`, `pi = softmax(O tanh(U z + V c + b) + o)`,

    with features `c = mean_t tanh(L tanh(K x_{t:t+d} + k) + l)` of an observed stretch `x` `[c, n]`: a convolution over
    `d` rows, a second layer, and the mean over time. They are averages of functions of delay vectors over the stretch,
    so that contexts of any length will do, and a longer one only makes them surer. `given` works them out once; the
    cell that it returns (`GatedExperts`) holds nothing of the context but them.

    Contexts are in the units of the model: each system standardised by itself, as in the paper.

    What differs from the paper: its gate attends over the context at every step, by the distance of its rows from the
    state, so that its cell carries the context along; here the context enters through an average alone. There are no
    temperatures in the softmax and no exploration noise. The readout is whatever is trained with it.

    **Fields:** `experts`, an `ALRNN` whose arrays have a leading axis of experts; `K` `[f, d n]`, `k` `[f]`, `L`
    `[f, f]`, `l` `[f]`, the encoder of the context; `U` `[g, m]`, `V` `[g, f]`, `b` `[g]`, `O` `[e, g]`, `o` `[e]`, the
    gate.

    **Arguments:** `experts` e, how many; `state_size` m and `pwl_units` P of each; `observed_size` n, channels of a
    context; `width` d, rows of the convolution; `context_features` f; `gate_size` g; `input_size` k, 0 for none; `key`
    for the start values: of the experts as in `ALRNN`, of encoder and gate uniform within `1 / sqrt(fan in)`, biases
    zero.

    **Raises:** `ValueError` for sizes below 1 and `pwl_units` outside 0..m.

    Reference: Hemmer & Durstewitz 2025, *True zero-shot inference of dynamical systems preserving long-term
    statistics*, NeurIPS (DynaMix).
    """

    experts: ALRNN
    K: Float[Array, "f w"]
    k: Float[Array, "f"]
    L: Float[Array, "f f"]
    l: Float[Array, "f"]
    U: Float[Array, "g m"]
    V: Float[Array, "g f"]
    b: Float[Array, "g"]
    O: Float[Array, "e g"]
    o: Float[Array, "e"]
    observed_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(
        self,
        experts: int,
        state_size: int,
        pwl_units: int,
        observed_size: int,
        *,
        width: int = 4,
        context_features: int = 16,
        gate_size: int = 16,
        input_size: int = 0,
        key: Key,
    ):
        sizes = {"experts": experts, "observed_size": observed_size, "width": width}
        sizes |= {"context_features": context_features, "gate_size": gate_size, "state_size": state_size}
        check_sizes(key=key, input_size=input_size, **sizes)
        e_key, K_key, L_key, U_key, V_key, O_key = jax.random.split(key, 6)
        self.experts = eqx.filter_vmap(lambda key: ALRNN(state_size, pwl_units, input_size=input_size, key=key))(
            jax.random.split(e_key, experts)
        )
        f, g = context_features, gate_size
        self.K, self.k = uniform((f, width * observed_size), width * observed_size, key=K_key), jnp.zeros(f)
        self.L, self.l = uniform((f, f), f, key=L_key), jnp.zeros(f)
        self.U, self.V = uniform((g, state_size), state_size, key=U_key), uniform((g, f), f, key=V_key)
        self.O, self.b, self.o = uniform((experts, g), g, key=O_key), jnp.zeros(g), jnp.zeros(experts)
        self.observed_size, self.width = observed_size, width

    @property
    def state_size(self) -> int:
        return self.experts.state_size

    def features(self, context: Float[Array, "c n"]) -> Float[Array, "f"]:
        """What the gate knows of a context: features `[f]`, each in (-1, 1). **Raises:** as `given`."""
        if context.ndim != 2 or context.shape[1] != self.observed_size or len(context) < self.width:
            raise ValueError(
                f"context must have shape [time, {self.observed_size}] with at least {self.width} rows, the width of "
                f"the convolution: got {context.shape}."
            )
        if not isinstance(context, Tracer) and not bool(jnp.all(jnp.isfinite(context))):
            raise ValueError("context must be finite: it holds NaN or infinity. Choose a stretch without gaps.")
        rows = len(context) - self.width + 1
        delays = jnp.concatenate([context[i : i + rows] for i in range(self.width)], axis=1)
        first = jnp.tanh(delays @ self.K.T + self.k[None])
        return jnp.mean(jnp.tanh(first @ self.L.T + self.l[None]), axis=0)

    def given(self, condition: Float[Array, "c n"]) -> GatedExperts:
        """The cell for a context, `[c, n]` observations in the units of the model: c is free, from `width` rows on.

        **Raises:** `ValueError` for a context of another width, too short, or (where its values are known) not finite.
        """
        e, u = self.experts, self.V @ self.features(condition) + self.b
        gate = (self.U, u, self.O, self.o)
        return GatedExperts(e.A, e.W, e.h, e.C, e.rectified[0], *gate)  # pyright: ignore[reportCallIssue]
