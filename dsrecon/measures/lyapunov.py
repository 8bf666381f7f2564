"""Lyapunov exponents of any cell, and the dimension that follows from them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from dsrecon._types import Inputs
from dsrecon.cell import AbstractCell, AbstractPWLCell


def lyapunov_spectrum(
    cell: AbstractCell,
    z0: Inexact[Array, "m"],
    inputs: Inputs = None,
    *,
    steps: int,
    dt: float = 1.0,
    discard: int = 1000,
    every: int = 10,
    count: int | None = None,
) -> Float[Array, "count"]:
    """Lyapunov exponents along one run: `lambda_i = 1 / (steps dt) sum ln |R_ii|`.

    An orthonormal frame `Q` of tangent vectors is pushed along the run and orthogonalised again every
    `every` steps, `J_t ... J_{t - every + 1} Q = Q' R`; `|R_ii|` is how much the i-th direction has
    stretched since.

    **Arguments:**

    - `cell`: any cell; a `Forced` cell gives the conditional exponents of the forced system.
    - `z0`: initial state, `[m]`. For many starts `jax.vmap` over it, or ask `lyapunov_mean`.
    - `inputs`: PyTree of arrays `[discard + steps, ...]`, or `None`.
    - `steps`: steps measured. What `every` does not divide is measured too, as a last short stretch.
    - `dt`: units of time in one step of the cell (that of an `ODECell` is its `dt`).
    - `discard`: steps run first, for the state to reach the attractor and the frame to turn into its
      directions.
    - `every`: steps between orthogonalisations. The frame must not collapse in between: keep
      `exp((lambda_1 - lambda_count) every dt)` far below `1 / eps` (1e16 in float64, 1e7 in float32).
    - `count`: how many exponents, the largest ones; all `m` by default.

    **Returns:** `[count]`, descending, in natural logarithms per unit of time. Where the state is not finite
    at an orthogonalisation, or the frame overflows before it, all are NaN. A direction that is lost
    altogether (superstable: `R_ii = 0`) has the exponent minus infinity, which is right.

    **Raises:** `ValueError` for a wrong shape, a wrong length of `inputs`, or a number out of range.

    Reference: Benettin et al. 1980, *Lyapunov characteristic exponents for smooth dynamical systems*,
    Meccanica 15, 9; Geist, Parlitz & Lauterborn 1990, Progress of Theoretical Physics 83, 875.
    """
    return _exponents(pushed, cell, z0, inputs, steps, dt, discard, every, count)


def affine_exponents(
    cell: AbstractCell,
    z0: Inexact[Array, "m"],
    inputs: Inputs = None,
    *,
    steps: int,
    dt: float = 1.0,
    discard: int = 1000,
    every: int = 10,
    count: int | None = None,
) -> Float[Array, "count"]:
    """Lyapunov exponents of a piecewise-linear cell from its affine pieces: `Q' R = A_t ... A_{t - every + 1} Q`.

    What `lyapunov_spectrum` gives, without differentiation: the tangent map of a step is `A` of the region that holds
    the state. `kaplan_yorke(affine_exponents(...))` is the Lyapunov dimension.

    **Arguments:** `cell`: an `AbstractPWLCell`; all else is as in `lyapunov_spectrum`.

    **Returns:** `[count]`, descending, per unit of time, as `lyapunov_spectrum`.

    **Raises:** `ValueError` for a cell that is not piecewise linear, and what `lyapunov_spectrum` raises.

    Reference: Benettin et al. 1980, *Lyapunov characteristic exponents for smooth dynamical systems*, Meccanica 15, 9.
    """
    if not isinstance(cell, AbstractPWLCell):
        raise ValueError(
            f"cell must be piecewise linear, an AbstractPWLCell: got {type(cell).__name__}, whose exponents "
            "lyapunov_spectrum measures."
        )
    return _exponents(multiplied, cell, z0, inputs, steps, dt, discard, every, count)


def pushed(cell: AbstractCell, z: Array, Q: Array, s: Any) -> tuple[Array, Array]:
    """The next state, and a frame `Q` `[m, count]` pushed along by forward mode."""
    z, push = jax.linearize(lambda z: cell(z, s), z)
    return z, jax.vmap(push, in_axes=1, out_axes=1)(Q)


def multiplied(cell: AbstractPWLCell, z: Array, Q: Array, s: Any) -> tuple[Array, Array]:
    """The next state, and a frame `Q` `[m, count]` times the affine piece that the state lies in."""
    A, _ = cell.affine(cell.region(z, s), s)
    return cell(z, s), A @ Q


Tangent = Callable[[Any, Array, Array, Any], tuple[Array, Array]]


def _exponents(
    tangent: Tangent,
    cell: AbstractCell,
    z0: Array,
    inputs: Inputs,
    steps: int,
    dt: float,
    discard: int,
    every: int,
    count: int | None,
) -> Array:
    z0 = jnp.asarray(z0)
    if z0.shape != (cell.state_size,):
        raise ValueError(
            f"z0 must have shape ({cell.state_size},), the cell's state: got {z0.shape}. "
            "For many starts, use jax.vmap or lyapunov_mean."
        )
    count = cell.state_size if count is None else count
    for name, value, least in [("steps", steps, 1), ("discard", discard, 0), ("every", every, 1)]:
        if value < least:
            raise ValueError(f"{name} must be at least {least}: got {value}.")
    if not 1 <= count <= cell.state_size:
        raise ValueError(f"count must lie between 1 and state_size={cell.state_size}: got {count}.")
    if not (dt > 0 and np.isfinite(dt)):
        raise ValueError(f"dt must be positive and finite: got {dt}.")
    for leaf in jax.tree.leaves(inputs):
        if leaf.shape[:1] != (discard + steps,):
            raise ValueError(
                f"inputs must have the leading axis discard + steps = {discard + steps}: got shape {leaf.shape}."
            )
    return _log_stretch(tangent, cell, z0, inputs, steps, discard, every, count) / (steps * dt)


@eqx.filter_jit
def _log_stretch(
    tangent: Tangent, cell: AbstractCell, z0: Array, inputs: Inputs, steps: int, discard: int, every: int, count: int
) -> Array:
    """`sum ln |R_ii|` over `steps` after `discard`, descending, `[count]`."""
    begin = (z0, jnp.eye(z0.size, count, dtype=z0.dtype), jnp.zeros(count, z0.dtype))
    before, after = (jax.tree.map(lambda s: s[:discard], inputs), jax.tree.map(lambda s: s[discard:], inputs))
    z, Q, _ = _push(tangent, cell, begin, before, discard, every)
    _, _, logs = _push(tangent, cell, (z, Q, jnp.zeros_like(begin[2])), after, steps, every)
    return jnp.sort(logs, descending=True)


def _push(tangent: Tangent, cell: AbstractCell, carry, inputs: Inputs, steps: int, every: int):
    """`carry = (z, Q, logs)` after `steps`: whole blocks of `every` steps, then what is left over."""

    def step(carry, s):
        z, Q = carry
        return tangent(cell, z, Q, s), None

    def block(carry, inputs, length):
        z, Q, logs = carry
        (z, Y), _ = jax.lax.scan(step, (z, Q), inputs, length=length)
        Q, R = jnp.linalg.qr(Y)
        stretch = jnp.log(jnp.abs(jnp.diagonal(R)))
        good = jnp.all(jnp.isfinite(z)) & jnp.all(jnp.isfinite(Y))
        return (z, Q, logs + jnp.where(good, stretch, jnp.nan)), None

    blocks, left = divmod(steps, every)
    if blocks:
        whole = jax.tree.map(lambda s: s[: blocks * every].reshape(blocks, every, *s.shape[1:]), inputs)
        carry, _ = jax.lax.scan(lambda c, s: block(c, s, every), carry, whole, length=blocks)
    if left:
        carry, _ = block(carry, jax.tree.map(lambda s: s[blocks * every :], inputs), left)
    return carry


class Exponents(NamedTuple):
    """Exponents from many starts, per unit of time.

    - `mean`: over the starts, `[count]`, descending.
    - `standard_error`: of that mean, `[count]`: standard deviation between the starts over the square root
      of their number.
    """

    mean: Float[Array, "count"]
    standard_error: Float[Array, "count"]


def lyapunov_mean(
    cell: AbstractCell,
    starts: Inexact[Array, "b m"],
    inputs: Inputs = None,
    *,
    steps: int,
    dt: float = 1.0,
    discard: int = 1000,
    every: int = 10,
    count: int | None = None,
) -> Exponents:
    """The Lyapunov spectrum from many starts at once, and how far it can be trusted.

    **Arguments:** `starts`: initial states, `[b, m]` with `b` at least 2, all in the basin of one attractor;
    all else is as in `lyapunov_spectrum`, which runs from each of them (with the same `inputs`).

    **Returns:** `Exponents(mean, standard_error)`, each `[count]`, per unit of time. A start that diverges
    makes both NaN.

    **Raises:** `ValueError` for fewer than two starts, and what `lyapunov_spectrum` raises.
    """
    starts = jnp.asarray(starts)
    if starts.ndim != 2 or starts.shape[0] < 2:
        raise ValueError(f"starts must have shape [b, m] with b at least 2: got {starts.shape}.")

    def one(z0):
        return lyapunov_spectrum(cell, z0, inputs, steps=steps, dt=dt, discard=discard, every=every, count=count)

    exponents = jax.vmap(one)(starts)
    error = jnp.std(exponents, axis=0, ddof=1) / len(starts) ** 0.5
    return Exponents(jnp.mean(exponents, axis=0), error)


def kaplan_yorke(exponents: Sequence[float] | np.ndarray | Array) -> float:
    """Kaplan-Yorke (Lyapunov) dimension `D = j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|`.

    `j` is the largest number for which the `j` largest exponents have a sum of at least 0.

    **Arguments:** `exponents`: the whole spectrum, `[m]`, in any order and unit.

    **Returns:** a number from 0 (all exponents negative) to `m` (their whole sum is not negative). NaN when
    an exponent is NaN or plus infinity; minus infinity is allowed (a direction lost altogether). The
    measured zero exponent of a limit cycle scatters about 0, and the dimension is then 0 or a little above
    1: judge it first.

    **Raises:** `ValueError` when `exponents` is empty or not one-dimensional.

    Reference: Kaplan & Yorke 1979, *Chaotic behavior of multidimensional difference equations*, Lecture
    Notes in Mathematics 730, 204.
    """
    spectrum = np.asarray(exponents, dtype=float)
    if spectrum.ndim != 1 or spectrum.size == 0:
        raise ValueError(f"exponents must have shape [m] with m at least 1: got {spectrum.shape}.")
    if np.any(np.isnan(spectrum) | np.isposinf(spectrum)):
        return float("nan")
    spectrum = np.sort(spectrum)[::-1]
    sums = np.cumsum(spectrum)
    j = int(np.sum(sums >= 0))
    if j == 0 or j == spectrum.size:
        return float(j)
    return float(j + sums[j - 1] / abs(spectrum[j]))
