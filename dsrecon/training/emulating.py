"""Networks driven by noise that emit symbols, trained to emit sequences like given ones (Torre 2025)."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from dsrecon._types import Key, Scalar
from dsrecon.cell import AbstractCell
from dsrecon.evolve import evolve
from dsrecon.training.losses import Loss


class Emitter(eqx.Module):
    """A cell that noise drives and whose state says how probable each symbol is.

    `s_t ~ N(0, 1)`, `z_t = cell(z_{t-1}, s_t)`, `p_t = softmax(V z_t + b)`, and the symbol of step `t` is drawn from
    `p_t`. What is drawn does not come back into the state: all memory is in the dynamics. A run begins at `z = 0`
    and its first `discard` steps are left out.

    **Fields:** `cell`, with `noise_size` external inputs; `V` `[a, m]`, `b` `[a]`; `noise_size`, `discard`.

    **Arguments:** `cell`; `symbols`, how many there are, `a`, at least 2; `noise_size`; `discard`; `key` of `V`,
    uniform within `1/sqrt(m)`. **Raises:** `ValueError` for other numbers.

    Reference: Torre, Viscione, Pompe, Grewe & Mante 2025, *Mechanistic interpretability of RNNs emulating hidden Markov
    models*, NeurIPS (arXiv 2510.25674).
    """

    cell: AbstractCell
    V: Float[Array, "a m"]
    b: Float[Array, "a"]
    noise_size: int = eqx.field(static=True)
    discard: int = eqx.field(static=True)

    def __init__(self, cell: AbstractCell, symbols: int, noise_size: int, *, discard: int = 20, key: Key):
        if symbols < 2 or noise_size < 1 or discard < 0:
            raise ValueError(
                "symbols must be at least 2, noise_size at least 1, discard not negative: got "
                f"{symbols}, {noise_size}, {discard}."
            )
        m = cell.state_size
        self.cell, self.noise_size, self.discard = cell, noise_size, discard
        self.V = jax.random.uniform(key, (symbols, m), minval=-(m**-0.5), maxval=m**-0.5)
        self.b = jnp.zeros(symbols)

    def states(self, count: int, steps: int, *, key: Key, noise: float = 1.0) -> Float[Array, "count steps m"]:
        """States of `count` runs; `noise`: the standard deviation of what drives them."""
        shape = (count, self.discard + steps, self.noise_size)
        s = noise * jax.random.normal(key, shape, self.V.dtype)
        z0 = jnp.zeros((count, self.cell.state_size), self.V.dtype)
        return evolve(self.cell, z0, s, throw=False).zs[:, self.discard :]

    def logits(self, zs: Float[Array, "... m"]) -> Float[Array, "... a"]:
        """Logarithms of the probabilities of the symbols, up to a constant, at each state."""
        return zs @ self.V.T + self.b.reshape((1,) * (zs.ndim - 1) + (-1,))


@eqx.filter_jit
def emitted(model: Emitter, count: int, steps: int, *, key: Key, noise: float = 1.0) -> Int[Array, "count steps"]:
    """Sequences that an emitter draws: numbers of its symbols."""
    key_s, key_x = jax.random.split(key)
    return jax.random.categorical(key_x, model.logits(model.states(count, steps, key=key_s, noise=noise)))


def emulating(*, temperature: float = 1.0, blur: float = 0.05, rounds: int = 50) -> Loss:
    """Sinkhorn divergence between the sequences that an `Emitter` draws and those of a batch.

    Sequences are points; the cost from one to another is the share of steps at which their symbols differ. A draw is
    passed on as it is, and its gradient is that of the softmax of the logits with Gumbel noise (straight through).

    **Arguments:** `temperature` of that softmax; `blur`, the entropic regularisation in units of the cost; `rounds`
    of the Sinkhorn iteration. The model is an `Emitter`, the batch integers `[b, t]`, as many runs as are drawn.

    **Raises:** `ValueError` for numbers that are not positive.

    References: Torre et al. 2025 (see `Emitter`); Feydy et al. 2019, *Interpolating between optimal transport and
    MMD using Sinkhorn divergences*, AISTATS; Jang, Gu & Poole 2017, *Categorical reparameterization with
    Gumbel-softmax*, ICLR.
    """
    if not (temperature > 0 and blur > 0 and rounds >= 1):
        raise ValueError(f"temperature, blur and rounds must be positive: got {temperature}, {blur} and {rounds}.")

    def loss(model: Emitter, state: PyTree, batch: Int[Array, "b t"], key: Key) -> tuple[Scalar, tuple[PyTree, dict]]:
        count, steps = batch.shape
        key_s, key_x = jax.random.split(key)
        logits = model.logits(model.states(count, steps, key=key_s))
        logits = logits + jax.random.gumbel(key_x, logits.shape, logits.dtype)
        soft = jax.nn.softmax(logits / temperature)
        size = logits.shape[-1]
        hard = jax.nn.one_hot(logits.argmax(-1), size, dtype=soft.dtype)
        drawn = soft + jax.lax.stop_gradient(hard - soft)
        wanted = jax.nn.one_hot(batch, size, dtype=soft.dtype)
        scale = (2 * steps) ** -0.5  # squared distances of one-hot sequences are then shares of steps
        value = sinkhorn_divergence(
            scale * drawn.reshape(count, -1), scale * wanted.reshape(count, -1), blur=blur, rounds=rounds
        )
        return value, (state, {})

    return loss


def sinkhorn_divergence(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, blur: float, rounds: int = 50
) -> Float[Array, ""]:
    """`S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2` of two clouds of points, with the squared Euclidean
    distance as cost.

    `OT` is optimal transport with the entropic regularisation `blur`, in its dual form, by Sinkhorn iterations in the
    logarithm. It is not negative, and 0 for equal clouds.

    Reference: Feydy et al. 2019, *Interpolating between optimal transport and MMD using Sinkhorn divergences*, AISTATS.
    """

    def transport(a: Array, b: Array) -> Array:
        cost = _squared(a, b)
        n, m = cost.shape

        def half(dual: Array, cost: Array) -> Array:
            return -blur * (jax.nn.logsumexp((dual[None] - cost) / blur, axis=1) - math.log(cost.shape[1]))

        def body(_: Any, duals: tuple[Array, Array]) -> tuple[Array, Array]:
            f, g = duals
            return 0.5 * (f + half(g, cost)), 0.5 * (g + half(f, cost.T))

        _, g = jax.lax.stop_gradient(
            jax.lax.fori_loop(0, rounds, body, (jnp.zeros(n, cost.dtype), jnp.zeros(m, cost.dtype)))
        )
        return half(g, cost).mean() + g.mean()  # at the optimum its gradient by the cost is the plan

    return transport(x, y) - 0.5 * transport(x, x) - 0.5 * transport(y, y)


def _squared(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
