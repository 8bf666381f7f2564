"""The dendritic PLRNN: every unit sees its input through a basis of thresholds."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from dsrecon._types import Key
from dsrecon.cell import AbstractPWLCell
from dsrecon.kernels import abreast, plain_pullback, pullback
from dsrecon.models._init import check_sizes, contracting_diagonal, input_matrix, offset, uniform

RANGE = 3.0
"""Standardised data lie within this many standard deviations: where thresholds start."""

LANES = 16
"""Rows that a CPU takes side by side where it sums over rows what each threshold lets through."""


class DendriticPLRNN(AbstractPWLCell):
    """Dendritic PLRNN: `z' = A z + W sum_b a_b relu(z - H_b) + h (+ C s)`.

    A region is which thresholds each unit is above: the bits `z_i > H_bi`, basis by basis, `m b` of them, though the
    `b` bits of one unit take `b + 1` patterns only.

    **Fields:** `A` `[m]` (a diagonal), `W` `[m, m]`, `a` `[b]` (slopes, shared by the units), `H` `[b, m]`
    (thresholds, each unit its own), `h` `[m]`, `C` `[m, k]` or `None`.

    **Arguments:** `state_size` m; `bases` b; `input_size` k, 0 for none; `key` for the start values: `A`, `W`, `h` and
    `C` those of the PLRNN (`W` full); `a` uniform within `1 / sqrt(b)`; of the thresholds of a unit one is uniform in
    each `b`-th part of (-3, 3), in an order of its own, so that standardised data cross all of them.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Brenner et al. 2022, *Tractable dendritic RNNs for reconstructing nonlinear dynamical systems*, ICML.
    """

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    a: Float[Array, "b"]
    H: Float[Array, "b m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)
    bases: int = eqx.field(static=True)

    def __init__(self, state_size: int, bases: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, bases=bases, input_size=input_size)
        key_A, key_W, key_a, key_H, key_C = jax.random.split(key, 5)
        self.state_size, self.bases = state_size, bases
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W = 0.01 * jax.random.normal(key_W, (state_size, state_size))
        self.a = uniform((bases,), bases, key=key_a)
        self.H = _thresholds(bases, state_size, key=key_H)
        self.h = jnp.zeros(state_size)
        self.C = input_matrix(state_size, input_size, key=key_C)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        return self.passed(z, _basis(self.a, self.H, z), s)

    def passed(
        self, z: Inexact[Array, "m"], basis: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None
    ) -> Inexact[Array, "m"]:
        """The next state, from the state and what the thresholds make of it, `sum_b a_b relu(z - H_b)`."""
        return self.A * z + self.W @ basis + offset(self.h, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        return jnp.tile(jnp.eye(self.state_size, dtype=self.W.dtype), (self.bases, 1)), -self.H.ravel()

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "p"]:
        return _gates(self.H, z)

    def affine(
        self, region: Bool[Array, "p"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        slope, shift = _line(self.a, self.H, region)
        return jnp.diag(self.A) + self.W * slope[None, :], offset(self.h - self.W @ shift, self.C, s)


class ClippedDendriticPLRNN(AbstractPWLCell):
    """Clipped dendritic PLRNN: `z' = A z + W sum_b a_b [relu(z - H_b) - relu(z)] + h (+ C s)`.

    Each term is a ramp between 0 and `H_bi`, so what a unit passes on is bounded by `sum_b |a_b H_bi|`, and the
    orbit is bounded whenever `max |A| < 1`. A region is the bits of `DendriticPLRNN`, then the `m` bits `z_i > 0`.

    **Fields:** as `DendriticPLRNN`.

    **Arguments:** as `DendriticPLRNN`, start values too.

    **Raises:** `ValueError` for a size below 1, and a key that is none.

    Reference: Brenner et al. 2022, *Tractable dendritic RNNs for reconstructing nonlinear dynamical systems*, ICML.
    """

    A: Float[Array, "m"]
    W: Float[Array, "m m"]
    a: Float[Array, "b"]
    H: Float[Array, "b m"]
    h: Float[Array, "m"]
    C: Float[Array, "m k"] | None
    state_size: int = eqx.field(static=True)
    bases: int = eqx.field(static=True)

    def __init__(self, state_size: int, bases: int, *, input_size: int = 0, key: Key):
        check_sizes(key=key, state_size=state_size, bases=bases, input_size=input_size)
        key_A, key_W, key_a, key_H, key_C = jax.random.split(key, 5)
        self.state_size, self.bases = state_size, bases
        self.A = contracting_diagonal(state_size, key=key_A)
        self.W = 0.01 * jax.random.normal(key_W, (state_size, state_size))
        self.a = uniform((bases,), bases, key=key_a)
        self.H = _thresholds(bases, state_size, key=key_H)
        self.h = jnp.zeros(state_size)
        self.C = input_matrix(state_size, input_size, key=key_C)

    def __call__(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Inexact[Array, "m"]:
        return self.passed(z, _basis(self.a, self.H, z), s)

    def passed(
        self, z: Inexact[Array, "m"], basis: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None
    ) -> Inexact[Array, "m"]:
        """The next state, from the state and what the thresholds make of it, `sum_b a_b relu(z - H_b)`."""
        ramps = basis - jnp.sum(self.a) * jax.nn.relu(z)
        return self.A * z + self.W @ ramps + offset(self.h, self.C, s)

    def gates(self, s: Inexact[Array, "k"] | None = None) -> tuple[Float[Array, "p m"], Float[Array, "p"]]:
        G = jnp.tile(jnp.eye(self.state_size, dtype=self.W.dtype), (self.bases + 1, 1))
        return G, jnp.concatenate([-self.H.ravel(), jnp.zeros(self.state_size, self.H.dtype)])

    def region(self, z: Inexact[Array, "m"], s: Inexact[Array, "k"] | None = None) -> Bool[Array, "p"]:
        return jnp.concatenate([_gates(self.H, z), z > 0])

    def affine(
        self, region: Bool[Array, "p"], s: Inexact[Array, "k"] | None = None
    ) -> tuple[Float[Array, "m m"], Float[Array, "m"]]:
        above, positive = region[: self.H.size], region[self.H.size :].astype(self.a.dtype)
        slope, shift = _line(self.a, self.H, above)
        A = jnp.diag(self.A) + self.W * (slope - jnp.sum(self.a) * positive)[None, :]
        return A, offset(self.h - self.W @ shift, self.C, s)


def _thresholds(bases: int, size: int, *, key: Key) -> Float[Array, "b m"]:
    """Unit by unit one uniform draw in each of `b` equal parts of `(-RANGE, RANGE)`, in random order."""
    key_place, key_order = jax.random.split(key)
    place = jax.random.uniform(key_place, (bases, size))
    parts = jnp.arange(bases, dtype=place.dtype)[:, None] + place
    return jax.random.permutation(key_order, RANGE * (2 * parts / bases - 1), axis=0, independent=True)


def _basis(a: Float[Array, "b"], H: Float[Array, "b m"], z: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
    """`sum_b a_b relu(z - H_b)`, the sum written out: one compiled loop over a batch, and no `[b, m]` array a step."""
    return sum((a[b] * jax.nn.relu(z - H[b]) for b in range(len(a))), jnp.zeros_like(z))


def _gates(H: Float[Array, "b m"], z: Inexact[Array, "m"]) -> Bool[Array, "p"]:
    return (z[None] - H > 0).ravel()


def _line(
    a: Float[Array, "b"], H: Float[Array, "b m"], gates: Bool[Array, "p"]
) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
    """`slope`, `shift`, both `[m]`, of `sum_b a_b relu(z - H_b) = slope * z - shift` where `gates` are open."""
    taken = gates.reshape(H.shape).astype(a.dtype) * a[:, None]
    return jnp.sum(taken, axis=0), jnp.sum(taken * H, axis=0)


@abreast.register(DendriticPLRNN)
@abreast.register(ClippedDendriticPLRNN)
def _(step: DendriticPLRNN | ClippedDendriticPLRNN) -> int:
    """With 20 branches, ms: 7 units .77 -> .99, 12 .97 -> 2.1, 16 1.05 -> .97, 22 2.1 -> 1.6, 24 1.4 -> 1.6."""
    return 22 if step.state_size >= 16 else 0


@pullback.register(DendriticPLRNN)
@pullback.register(ClippedDendriticPLRNN)
def pulled_back(
    cell: DendriticPLRNN | ClippedDendriticPLRNN,
    zs: Inexact[Array, "n m"],
    s: Inexact[Array, "n k"] | None,
    ls: Inexact[Array, "n m"],
    *,
    engine: Any = "loop",
) -> tuple[Any, Array, Any]:
    """On a CPU the thresholds by themselves (`_pulled_basis`), and all else as in any cell."""
    if jax.default_backend() != "cpu":
        return plain_pullback(cell, zs, s, ls)
    free, fixed = eqx.partition((cell, s), eqx.is_inexact_array)

    def rest(free, zs, basis):
        cell, s = eqx.combine(free, fixed)
        return jax.vmap(cell.passed)(zs, basis, s)

    wide = jax.lax.optimization_barrier(jnp.tile(cell.H, (1, LANES)))
    z = _on_lanes(zs)
    basis = _off_lanes(jax.vmap(lambda z: _basis(cell.a, wide, z))(z), zs)
    _, pull = jax.vjp(rest, free, zs, basis)
    (cell_bar, s_bar), zs_bar, basis_bar = pull(ls)
    a_bar, H_bar, z_bar = _pulled_basis(cell.a, wide, z, _on_lanes(basis_bar))
    of_basis = a_bar, jnp.sum(H_bar.reshape(len(H_bar), LANES, -1), axis=1)
    cell_bar = eqx.tree_at(lambda c: (c.a, c.H), cell_bar, (cell_bar.a + of_basis[0], cell_bar.H + of_basis[1]))
    return cell_bar, zs_bar + _off_lanes(z_bar, zs), s_bar


def _pulled_basis(
    a: Float[Array, "b"], H: Float[Array, "b w"], zs: Inexact[Array, "t w"], bars: Inexact[Array, "t w"]
) -> tuple[Float[Array, "b"], Float[Array, "b w"], Float[Array, "t w"]]:
    """What `sum_b a_b relu(z - H_b)` pulls back: of `bars`, row by row of `zs`, by `a` and `H` (summed) and by `z`.

    The sums over rows are carried along a loop, where whole vectors are added at once: as reductions of an array
    `[t, b, w]`, which is what JAX's own rule makes of them, they took nine times as long.
    """

    def add(totals, row):
        z, bar = row[0][None], row[1][None]
        through, open_by = totals
        return (through + jax.nn.relu(z - H) * bar, open_by + jnp.where(z > H, bar, jnp.zeros_like(bar))), None

    (through, open_by), _ = jax.lax.scan(add, (jnp.zeros_like(H), jnp.zeros_like(H)), (zs, bars))

    def slope(z):
        return sum((jnp.where(z > H[b], a[b], jnp.zeros_like(a[b])) for b in range(len(a))), jnp.zeros_like(z))

    return jnp.sum(through, axis=1), -a[:, None] * open_by, jax.vmap(slope)(zs) * bars


def _on_lanes(x: Inexact[Array, "n m"]) -> Inexact[Array, "t w"]:
    """`LANES` rows in one, with zeros after the last."""
    turns = -(-len(x) // LANES)
    return jnp.pad(x, ((0, turns * LANES - len(x)), (0, 0))).reshape(turns, -1)


def _off_lanes(wide: Inexact[Array, "t w"], like: Inexact[Array, "n m"]) -> Inexact[Array, "n m"]:
    return wide.reshape(-1, like.shape[1])[: len(like)]
