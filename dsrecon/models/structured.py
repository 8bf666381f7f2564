"""Gated cells whose units are coupled by the input alone, so that their Jacobians are cheap to scan over a sequence."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from dsrecon._types import Key, State
from dsrecon.cell import AbstractCell
from dsrecon.models._init import check_sizes, offset, uniform


class ParaGRU(AbstractCell):
    """Gated recurrent unit with diagonal recurrences, after Danieli et al.; `*` is unit by unit throughout.

        r = sigmoid(A_r * z + h_r (+ C_r s))
        u = sigmoid(A_u * z + h_u (+ C_u s))
        n = tanh(A_n * (r * z) + h_n (+ C_n s))
        z' = u * z + (1 - u) * n

    The Jacobian is diagonal, `[m]`, so that a parallel solver scans over vectors, not matrices:

    `J = u + (z - n) u (1 - u) A_u + (1 - u)(1 - n^2) A_n r (1 + z (1 - r) A_r)`.

    For driven sequences: units meet in the input alone, and in what follows the layer. Left to itself the cell is `m`
    independent maps of the line, which reconstruct no attractor: take `GRU` for that, or drive this cell by the
    observations. Bounded: `|z'| <= max(|z|, 1)` unit by unit.

    **Fields:** `A` `[3, m]`, `h` `[3m]`, `C` `[3m, k]` or `None`, in the order `r, u, n`.

    **Arguments:** `state_size` m; `input_size` k, 0 for none; `key` for the start values: `A` uniform within 1,
    `h = 0`, `C` uniform within `1/sqrt(k)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Danieli et al. 2025, *ParaRNN: Unlocking parallel training of nonlinear RNNs for large language models*,
    arXiv:2510.21450 (there `1 - u` is called the gate, and `C` may be shared by heads).
    """

    A: Float[Array, "3 m"]
    h: Float[Array, "3*m"]
    C: Float[Array, "3*m k"] | None
    state_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        key_A, key_C = jax.random.split(key)
        self.state_size = state_size
        self.A = uniform((3, state_size), 1, key=key_A)
        self.h = jnp.zeros(3 * state_size)
        self.C = uniform((3 * state_size, input_size), input_size, key=key_C) if input_size else None

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        _, u, n = self._gates(z, s)
        return u * z + (1 - u) * n

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> tuple[State, State]:
        """`(f(z, s), J)`, `J` the diagonal `[m]` of the Jacobian."""
        (r, u, n), (A_r, A_u, A_n) = self._gates(z, s), self.A
        candidate = (1 - n**2) * A_n * r * (1 + z * (1 - r) * A_r)
        return u * z + (1 - u) * n, u + (z - n) * u * (1 - u) * A_u + (1 - u) * candidate

    def _gates(self, z, s):
        """`r`, `u`, `n`."""
        (A_r, A_u, A_n), (h_r, h_u, h_n) = self.A, jnp.split(offset(self.h, self.C, s), 3)
        r = jax.nn.sigmoid(A_r * z + h_r)
        return r, jax.nn.sigmoid(A_u * z + h_u), jnp.tanh(A_n * (r * z) + h_n)


class ParaLSTM(AbstractCell):
    """LSTM with diagonal recurrences, peepholes and coupled gates, after Danieli et al.; state `z = [h, c]`, `m = 2H`.

        f = sigmoid(A_f * h + P_f * c + b_f (+ C_f s))
        g = tanh(A_g * h + b_g (+ C_g s))
        c' = f * c + (1 - f) * g
        o = sigmoid(A_o * h + P_o * c' + b_o (+ C_o s))
        h' = o * tanh(c')

    `*` is unit by unit throughout; the input gate is `1 - f`. Unit `l` of `h'` and `c'` depends on unit `l` of `h` and
    `c` alone, so that the Jacobian is 2 x 2 blocks, `[2, 2, H]`: entry `[i, j, l]` is the derivative of `(h', c')_i` by
    `(h, c)_j` of unit `l`. With `k_x = df/dx`, `c'_h = (c - g) k_h + (1 - f)(1 - g^2) A_g`, `c'_c = f + (c - g) k_c`,

        h'_h = (o (1 - tanh(c')^2) + tanh(c') o (1 - o) P_o) c'_h + tanh(c') o (1 - o) A_o
        h'_c = (o (1 - tanh(c')^2) + tanh(c') o (1 - o) P_o) c'_c

    For driven sequences: units meet in the input alone, and in what follows the layer. Left to itself the cell is `H`
    independent maps of the plane: take `LSTM` for reconstructions, or drive this cell by the observations.
    Bounded: `|c'| <= max(|c|, 1)` unit by unit, and `h` is in (-1, 1) after one step.

    **Fields:** `A` `[3, H]`, `b` `[3H]`, `C` `[3H, k]` or `None`, in the order `f, g, o`; `P` `[2, H]`, rows `f, o`.

    **Arguments:** `hidden_size` H; `input_size` k, 0 for none; `key` for the start values: `A` and `P` uniform
    within 1, `b = 0` but for the forget gate's, which is 1, `C` uniform within `1/sqrt(k)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    References: Danieli et al. 2025, *ParaRNN: Unlocking parallel training of nonlinear RNNs for large language models*,
    arXiv:2510.21450; peepholes: Gers, Schraudolph & Schmidhuber 2002, *Learning precise timing with LSTM recurrent
    networks*, JMLR 3, 115; coupled gates: Greff et al. 2017, *LSTM: a search space odyssey*, IEEE TNNLS 28, 2222.
    """

    A: Float[Array, "3 H"]
    P: Float[Array, "2 H"]
    b: Float[Array, "3*H"]
    C: Float[Array, "3*H k"] | None
    hidden_size: int = eqx.field(static=True)

    def __init__(self, hidden_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, hidden_size=hidden_size, input_size=input_size)
        key_A, key_P, key_C = jax.random.split(key, 3)
        self.hidden_size = hidden_size
        self.A = uniform((3, hidden_size), 1, key=key_A)
        self.P = uniform((2, hidden_size), 1, key=key_P)
        self.b = jnp.zeros(3 * hidden_size).at[:hidden_size].set(1.0)
        self.C = uniform((3 * hidden_size, input_size), input_size, key=key_C) if input_size else None

    @property
    def state_size(self) -> int:
        return 2 * self.hidden_size

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        _, _, c, o = self._gates(z, s)
        return jnp.concatenate([o * jnp.tanh(c), c])

    def linearise(
        self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[State, Inexact[Array, "2 2 H"]]:
        """`(f(z, s), J)`, `J` the blocks `[2, 2, H]` of the Jacobian."""
        f, g, c, o = self._gates(z, s)
        (A_f, A_g, A_o), (P_f, P_o), before = self.A, self.P, z[self.hidden_size :]
        moved = (before - g) * f * (1 - f)
        c_h, c_c = moved * A_f + (1 - f) * (1 - g**2) * A_g, f + moved * P_f
        shown = jnp.tanh(c)
        opened = shown * o * (1 - o)
        by_c = o * (1 - shown**2) + opened * P_o
        J = jnp.stack([jnp.stack([by_c * c_h + opened * A_o, by_c * c_c]), jnp.stack([c_h, c_c])])
        return jnp.concatenate([o * shown, c]), J

    def _gates(self, z, s):
        """`f`, `g`, `c'`, `o`."""
        (A_f, A_g, A_o), (P_f, P_o) = self.A, self.P
        b_f, b_g, b_o = jnp.split(offset(self.b, self.C, s), 3)
        h, c = jnp.split(z, 2)
        f = jax.nn.sigmoid(A_f * h + P_f * c + b_f)
        g = jnp.tanh(A_g * h + b_g)
        c = f * c + (1 - f) * g
        return f, g, c, jax.nn.sigmoid(A_o * h + P_o * c + b_o)
