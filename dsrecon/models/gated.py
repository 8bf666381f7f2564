"""Recurrent networks with smooth units: the tanh network, GRU, LSTM and the recurrent highway network."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from dsrecon._types import Key, Matrix, State
from dsrecon.cell import AbstractCell
from dsrecon.models._init import check_sizes, offset, uniform


class TanhRNN(AbstractCell):
    """Vanilla recurrent network: `z' = tanh(W z + h (+ C s))`.

    Bounded: every unit is in (-1, 1) after one step, so that data on another scale want a `LinearReadout`.

    `J = diag(1 - z'^2) W`.

    **Fields:** `W` `[m, m]`, `h` `[m]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `input_size` k, 0 for none; `key` for the start values: `W` orthogonal, `h = 0`,
    `C` uniform within `1/sqrt(k)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Elman 1990, *Finding structure in time*, Cognitive Science 14, 179; start values: Saxe, McClelland &
    Ganguli 2014, *Exact solutions to the nonlinear dynamics of learning in deep linear neural networks*, ICLR.
    """

    W: Float[Array, "m m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        key_W, key_C = jax.random.split(key)
        self.state_size = state_size
        self.W = _orthogonal(1, state_size, key=key_W)[0]
        self.h = jnp.zeros(state_size)
        self.C = uniform((state_size, input_size), input_size, key=key_C) if input_size else None

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        return jnp.tanh(self.W @ z + offset(self.h, self.C, s))

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> tuple[State, Matrix]:
        value = self(z, s)
        return value, (1 - value**2)[:, None] * self.W


class GRU(AbstractCell):
    """Gated recurrent unit: a gate `u` keeps the old state, a gate `r` lets it into the candidate `n`.

        r = sigmoid(W_r z + h_r (+ C_r s))
        u = sigmoid(W_u z + h_u (+ C_u s))
        n = tanh(r (W_n z + a) + h_n (+ C_n s))
        z' = u z + (1 - u) n

    The reset acts after the matrix product, and `u` on the old state: the form of PyTorch, cuDNN and Keras
    (`reset_after=True`), not that of the paper, in which `n = tanh(W_n (r z) + ...)`. Rows of `W`, `C` and `h` in the
    order `r, u, n`, which is PyTorch's: `W = weight_hh_l0`, `C = weight_ih_l0`, `a` the last third of `bias_hh_l0`, and
    `h` `bias_ih_l0` plus the first two thirds of `bias_hh_l0`.

    Bounded: `|z'| <= max(|z|, 1)` unit by unit, and what begins in [-1, 1] stays there, so that data on another scale
    want a `LinearReadout`.

    `J = diag(u) + diag((z - n) u (1 - u)) W_u + diag((1 - u)(1 - n^2)) K`, with what the candidate makes of the state,
    `K = diag(r) W_n + diag((W_n z + a) r (1 - r)) W_r`.

    **Fields:** `W` `[3m, m]`, `h` `[3m]`, `a` `[m]`, `C` `[3m, k]` or `None`.

    **Arguments:** `state_size` m; `input_size` k, 0 for none; `key` for the start values: each square block of `W`
    orthogonal, `h = a = 0`, `C` uniform within `1/sqrt(k)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Cho et al. 2014, *Learning phrase representations using RNN encoder-decoder for statistical machine
    translation*, EMNLP.
    """

    W: Float[Array, "3*m m"]
    h: Float[Array, "3*m"]
    a: Float[Array, "m"]
    C: Float[Array, "3*m k"] | None
    state_size: int = eqx.field(static=True)

    def __init__(self, state_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, input_size=input_size)
        key_W, key_C = jax.random.split(key)
        self.state_size = state_size
        self.W = _orthogonal(3, state_size, key=key_W).reshape(-1, state_size)
        self.h = jnp.zeros(3 * state_size)
        self.a = jnp.zeros(state_size)
        self.C = uniform((3 * state_size, input_size), input_size, key=key_C) if input_size else None

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        _, u, n, _ = self._gates(z, s)
        return u * z + (1 - u) * n

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> tuple[State, Matrix]:
        r, u, n, inner = self._gates(z, s)
        W_r, W_u, W_n = jnp.split(self.W, 3)
        candidate = r[:, None] * W_n + (inner * r * (1 - r))[:, None] * W_r
        J = ((z - n) * u * (1 - u))[:, None] * W_u + ((1 - u) * (1 - n**2))[:, None] * candidate
        return u * z + (1 - u) * n, jnp.diag(u) + J

    def _gates(self, z, s):
        """`r`, `u`, `n`, and what the reset lets through, `W_n z + a`."""
        W_r, W_u, inner = jnp.split(self.W @ z, 3)
        r, u, n = jnp.split(offset(self.h, self.C, s), 3)
        r, u, inner = jax.nn.sigmoid(W_r + r), jax.nn.sigmoid(W_u + u), inner + self.a
        return r, u, jnp.tanh(n + r * inner), inner


class LSTM(AbstractCell):
    """Long short-term memory; the state is `z = [h, c]`, what the units show and what they keep, `m = 2H`.

        i = sigmoid(W_i h + b_i (+ C_i s))        g = tanh(W_g h + b_g (+ C_g s))
        f = sigmoid(W_f h + b_f (+ C_f s))        o = sigmoid(W_o h + b_o (+ C_o s))
        c' = f c + i g
        h' = o tanh(c')

    Rows of `W`, `C` and `b` in the order `i, f, g, o`, which is PyTorch's (`b` the sum of its two). A readout of the
    first units sees `h`.

    Bounded: `h` is in (-1, 1) after one step, and `c`, which forgets, is driven by values in (-1, 1); data on another
    scale want a `LinearReadout`.

    The Jacobian is dense: with `c'_h = diag(c f(1-f)) W_f + diag(g i(1-i)) W_i + diag(i (1-g^2)) W_g` and `c'_c = f`,

        J = [ diag(tanh(c') o(1-o)) W_o + diag(q) c'_h    diag(q f) ]        q = o (1 - tanh(c')^2)
            [ c'_h                                        diag(f)   ]

    **Fields:** `W` `[4H, H]`, `b` `[4H]`, `C` `[4H, k]` or `None`.

    **Arguments:** `hidden_size` H; `input_size` k, 0 for none; `key` for the start values: each square block of `W`
    orthogonal, `b = 0` but for the forget gate's, which is 1, `C` uniform within `1/sqrt(k)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    References: Hochreiter & Schmidhuber 1997, *Long short-term memory*, Neural Computation 9, 1735; Gers, Schmidhuber &
    Cummins 2000, *Learning to forget: continual prediction with LSTM*, Neural Computation 12, 2451 (the forget gate);
    Jozefowicz, Zaremba & Sutskever 2015, *An empirical exploration of recurrent network architectures*, ICML (its
    bias).
    """

    W: Float[Array, "4*H H"]
    b: Float[Array, "4*H"]
    C: Float[Array, "4*H k"] | None
    hidden_size: int = eqx.field(static=True)

    def __init__(self, hidden_size: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, hidden_size=hidden_size, input_size=input_size)
        key_W, key_C = jax.random.split(key)
        self.hidden_size = hidden_size
        self.W = _orthogonal(4, hidden_size, key=key_W).reshape(-1, hidden_size)
        self.b = jnp.zeros(4 * hidden_size).at[hidden_size : 2 * hidden_size].set(1.0)
        self.C = uniform((4 * hidden_size, input_size), input_size, key=key_C) if input_size else None

    @property
    def state_size(self) -> int:
        return 2 * self.hidden_size

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        i, f, g, o = self._gates(z, s)
        c = f * z[self.hidden_size :] + i * g
        return jnp.concatenate([o * jnp.tanh(c), c])

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> tuple[State, Matrix]:
        i, f, g, o = self._gates(z, s)
        W_i, W_f, W_g, W_o = jnp.split(self.W, 4)
        before = z[self.hidden_size :]
        c = f * before + i * g
        shown = jnp.tanh(c)
        q = o * (1 - shown**2)
        c_h = (before * f * (1 - f))[:, None] * W_f + (g * i * (1 - i))[:, None] * W_i + (i * (1 - g**2))[:, None] * W_g
        h_h = (shown * o * (1 - o))[:, None] * W_o + q[:, None] * c_h
        J = jnp.block([[h_h, jnp.diag(q * f)], [c_h, jnp.diag(f)]])
        return jnp.concatenate([o * shown, c]), J

    def _gates(self, z, s):
        """`i`, `f`, `g`, `o`."""
        i, f, g, o = jnp.split(self.W @ z[: self.hidden_size] + offset(self.b, self.C, s), 4)
        return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


class RecurrentHighway(AbstractCell):
    """Recurrent highway network: each step is `l` highway layers, whose gates `t` say how much of a layer counts.

    From `y_0 = z`, for the layers `j = 1 ... l`,

        g_j = tanh(W_j y_{j-1} + h_j (+ C s in the first layer))
        t_j = sigmoid(V_j y_{j-1} + b_j (+ D s in the first layer))
        y_j = t_j g_j + (1 - t_j) y_{j-1}

    and `z' = y_l`. The carry gate is `1 - t`, as in the experiments of the paper.

    Bounded: `|z'| <= max(|z|, 1)` unit by unit, and what begins in [-1, 1] stays there, so that data on another scale
    want a `LinearReadout`.

    `J = J_l ... J_1`, `J_j = diag(1 - t_j) + diag(t_j (1 - g_j^2)) W_j + diag((g_j - y_{j-1}) t_j (1 - t_j)) V_j`.

    **Fields:** `W`, `V` `[l, m, m]`, `h`, `b` `[l, m]`, `C`, `D` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `depth` l; `input_size` k, 0 for none; `key` for the start values: `W` and `V`
    orthogonal layer by layer, `h = 0`, `b = -2` (layers are mostly passed by), `C` and `D` uniform within `1/sqrt(k)`.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Zilly et al. 2017, *Recurrent highway networks*, ICML.
    """

    W: Float[Array, "l m m"]
    V: Float[Array, "l m m"]
    h: Float[Array, "l m"]
    b: Float[Array, "l m"]
    C: Float[Array, "m k"] | None
    D: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(self, state_size: int, depth: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, depth=depth, input_size=input_size)
        key_W, key_V, key_C, key_D = jax.random.split(key, 4)
        self.state_size, self.depth = state_size, depth
        self.W = _orthogonal(depth, state_size, key=key_W)
        self.V = _orthogonal(depth, state_size, key=key_V)
        self.h = jnp.zeros((depth, state_size))
        self.b = jnp.full((depth, state_size), -2.0)
        shape = (state_size, input_size)
        self.C = uniform(shape, input_size, key=key_C) if input_size else None
        self.D = uniform(shape, input_size, key=key_D) if input_size else None

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        for j in range(self.depth):
            g, t = self._layer(j, z, s)
            z = t * g + (1 - t) * z
        return z

    def linearise(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> tuple[State, Matrix]:
        J = None
        for j in range(self.depth):
            g, t = self._layer(j, z, s)
            own = (t * (1 - g**2))[:, None] * self.W[j] + ((g - z) * t * (1 - t))[:, None] * self.V[j]
            own = jnp.diag(1 - t) + own
            z, J = t * g + (1 - t) * z, own if J is None else own @ J
        assert J is not None
        return z, J

    def _layer(self, j: int, z, s):
        """`g_j`, `t_j`."""
        s = s if j == 0 else None
        g, t = self.W[j] @ z + offset(self.h[j], self.C, s), self.V[j] @ z + offset(self.b[j], self.D, s)
        return jnp.tanh(g), jax.nn.sigmoid(t)


def _orthogonal(blocks: int, size: int, *, key: Key) -> Float[Array, "blocks size size"]:
    """Orthogonal matrices, one a block."""
    return jax.vmap(lambda key: jax.nn.initializers.orthogonal()(key, (size, size)))(jax.random.split(key, blocks))
