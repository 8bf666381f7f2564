"""What is added to a loss, or to its gradient, to keep a fit simple: penalties and decaying noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Inexact, PyTree

from dsrecon._types import Key, Scalar
from dsrecon.cell import AbstractCell
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.training.losses import Loss

Penalty = Callable[[Any], Scalar]
"""`penalty(model) -> value`, a function of the parameters alone; its `__name__` is its name among the facts."""


def penalised(loss: Loss, *penalties: Penalty) -> Loss:
    """`loss + sum of the penalties`: the value of each penalty becomes a fact of the loss, under its `__name__`.

    **Arguments:** `loss`; `penalties`: functions `model -> scalar` of one unbatched model, such as those of this module
    or a `def` of one's own.

    **Returns:** a loss. Its value is the sum; the misfit alone is that less the facts of the penalties.

    **Raises:** `ValueError` for no penalty, one without a name, two of one name; when traced, for one that has the name
    of a fact of the loss.
    """
    names = [getattr(penalty, "__name__", "<none>") for penalty in penalties]
    if not names:
        raise ValueError("penalised needs at least one penalty: got none.")
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"a penalty needs a __name__ to be told under (write it as a def): got {name}.")
        if names.count(name) > 1:
            raise ValueError(f"penalties must have different names: got {name} {names.count(name)} times.")

    def total(model: Any, state: PyTree, batch: Any, key: Key):
        value, (state, facts) = loss(model, state, batch, key)
        taken = [name for name in names if name in facts]
        if taken:
            raise ValueError(f"the loss itself has a fact called {taken[0]}: give the penalty another __name__.")
        told = {name: penalty(model) for name, penalty in zip(names, penalties, strict=True)}
        return value + sum(told.values()), (state, {**facts, **told})

    return total


def manifold_attractor(weight: float, share: float = 0.5, *, units: Sequence[int] | None = None) -> Penalty:
    """Draws some units towards holding their value, so that the cell can remember over long times.

    `weight * sum_{i in R} [ (A_i - 1)^2 + sum_j W_ij^2 + h_i^2 ]`

    Where it is zero, `z_i' = z_i` for the units `R`, whatever the other units do: a direction along which the system
    neither contracts nor expands. A small weight leaves slow units, whose time scale the data decide. The sums are over
    the parameters as stored, not means; inputs `C` and the non-linearity of a unit are left alone.

    Any cell `z' = A z + W phi(z) + h` will do whose fields are called so: `A` `[m]` (a diagonal), `W` `[m, m]` or `W1`
    `[m, l]`, `h` or `h1` `[m]`: all piecewise-linear families of the package. For another cell write the function
    yourself: `penalised` takes any.

    **Arguments:**

    - `weight`: of the penalty, at least 0, in units of the loss.
    - `share`: of the state's units, in (0, 1]; the last `round(share * m)` of them. Under an `IdentityReadout` they
      must all lie behind the units that are shown.
    - `units`: the units themselves instead, by number from 0, shown ones too if you say so. The last units of an
      `ALRNN` are its piecewise-linear ones, which its dynamics live on: there, name some of the linear ones.

    **Returns:** a penalty of a `Forced` model, called `manifold_attractor`.

    **Raises:** `ValueError` for a negative weight, a share outside (0, 1], units that are negative, twice the same or
    none; when traced, for a cell without these fields, units it does not have, a share that rounds to no unit or that
    takes in a unit which is shown.

    Reference: Schmidt, Koppe, Monfared, Beutelspacher & Durstewitz 2021, *Identifying nonlinear dynamical systems with
    multiple time scales and long-range dependencies*, ICLR.
    """
    _check_weight(weight)
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1]: got {share}.")
    if units is not None and (not len(units) or min(units) < 0 or len(set(units)) < len(units)):
        raise ValueError(f"units must be numbers from 0 on, at least one, none twice: got {list(units)}.")

    def manifold_attractor(model: Any) -> Scalar:
        cell = _forced(model).cell
        chosen = _last_units(model, share) if units is None else list(units)
        if max(chosen) >= cell.state_size:
            raise ValueError(f"units must lie below the state size {cell.state_size}: got {max(chosen)}.")
        index = jnp.array(chosen)
        A, W, h = (
            _field(cell, names, rank)[index] for names, rank in ((("A",), 1), (("W", "W1"), 2), (("h", "h1"), 1))
        )
        return weight * (jnp.sum((A - 1) ** 2) + jnp.sum(W**2) + jnp.sum(h**2))

    return manifold_attractor


def weight_penalty(weight: float) -> Penalty:
    """L2 of the cell's couplings: `weight * (sum W^2 + sum W1^2 + sum W2^2)`, of those that it has.

    A sum over all entries of the fields called so, not a mean and not a half; `A`, the biases and the inputs `C` are
    left alone.

    **Arguments:** `weight`: at least 0, in units of the loss.

    **Returns:** a penalty of a `Forced` model, called `weight_penalty`.

    **Raises:** `ValueError` for a negative weight; when traced, for a cell that has no such field.

    Reference: Hess et al. 2023, *Generalized teacher forcing for learning chaotic dynamics*, ICML.
    """
    _check_weight(weight)

    def weight_penalty(model: Any) -> Scalar:
        cell = _forced(model).cell
        found = [value for name, value in _parameters(cell).items() if name in ("W", "W1", "W2")]
        if not found:
            raise ValueError(f"{type(cell).__name__} has no coupling field (W, W1 or W2): it has {_names(cell)}.")
        return weight * _squares(found)

    return weight_penalty


def readout_penalty(weight: float) -> Penalty:
    """L2 of the readout: `weight * sum` of the squares of all its trained arrays (all that are inexact).

    A sum over all entries, offsets and the map to the start state included.

    **Arguments:** `weight`: at least 0, in units of the loss.

    **Returns:** a penalty of a `Forced` model, called `readout_penalty`.

    **Raises:** `ValueError` for a negative weight; when traced, for a readout that has nothing to train.
    """
    _check_weight(weight)

    def readout_penalty(model: Any) -> Scalar:
        readout = _forced(model).readout
        found = [x for x in jax.tree.leaves(readout) if eqx.is_inexact_array(x) and x.size]
        if not found:
            raise ValueError(f"{type(readout).__name__} has no trained parameter to penalise.")
        return weight * _squares(found)

    return readout_penalty


def noisy(
    optimiser: optax.GradientTransformation, eta: float = 0.01, gamma: float = 0.55, *, key: Key
) -> optax.GradientTransformation:
    """An optimiser that is given the gradient plus Gaussian noise that decays.

    `g_t + N(0, eta / (1 + t)^gamma)`, `t` from 0, independent in every parameter: `optax.add_noise`, in front of the
    optimiser.

    The noise of a run follows from `key` and from the bits of its start parameters. So the members of an ensemble that
    start at different parameters have independent noise, and each has what it would have alone; members with the very
    same start parameters share it.

    **Arguments:** `optimiser`; `eta`: variance of the noise at the first update, in squared units of the gradient;
    `gamma`: how fast it decays (0: it stays); `key`: of the noise.

    **Returns:** an optax transformation, for a gradient of the batch (not `of_windows`).

    **Raises:** `ValueError` for a negative or infinite `eta` or `gamma`.

    Reference: Neelakantan et al. 2015, *Adding gradient noise improves learning for very deep networks*.
    """
    for name, value in (("eta", eta), ("gamma", gamma)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and at least 0: got {value}.")
    return keyed(optax.add_noise(eta, gamma, key), optimiser, key)


def keyed(
    noise: optax.GradientTransformation, optimiser: optax.GradientTransformation, key: Key
) -> optax.GradientTransformation:
    """`noise`, whose state holds an `rng_key`, then `optimiser`; the key is one of the start parameters' own.

    optax gives every state the one key, and `jax.vmap` of its `init` would give it to every member of an ensemble.
    """
    chain = optax.chain(noise, optimiser)

    def init(params: PyTree) -> Any:
        first, *rest = cast(tuple[Any, ...], chain.init(params))
        return (first._replace(rng_key=_own_key(key, params)), *rest)

    return optax.GradientTransformation(init, chain.update)


def _own_key(key: Key, params: PyTree) -> Key:
    """The key, with two random linear hashes (mod 2^32) of the bits of all parameters folded in."""
    leaves = [x for x in jax.tree.leaves(params) if eqx.is_inexact_array(x)]
    real = [jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x for x in leaves]
    octets = jnp.concatenate([jax.lax.bitcast_convert_type(x, jnp.uint8).ravel() for x in real]).astype(jnp.uint32)
    factors = jax.random.bits(key, (2, octets.size), jnp.uint32)
    first, second = jnp.sum(octets[None] * factors, axis=1, dtype=jnp.uint32)
    return jax.random.fold_in(jax.random.fold_in(key, first), second)


def _check_weight(weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be finite and at least 0: got {weight}.")


def _forced(model: Any) -> Forced:
    if not isinstance(model, Forced):
        raise ValueError(f"the penalty is of a Forced model (a cell and a readout): got {type(model).__name__}.")
    return model


def _parameters(cell: AbstractCell) -> dict[str, Array]:
    """The trained arrays among the fields of a cell, by name."""
    found = {field.name: getattr(cell, field.name) for field in fields(cell)}
    return {name: value for name, value in found.items() if eqx.is_inexact_array(value)}


def _names(cell: AbstractCell) -> str:
    return ", ".join(_parameters(cell)) or "none"


def _field(cell: AbstractCell, names: tuple[str, ...], rank: int) -> Inexact[Array, "m *_"]:
    """The field that goes by one of these names, an array of this rank with a row for every unit."""
    for name, value in _parameters(cell).items():
        if name in names and value.ndim == rank and len(value) == cell.state_size:
            return value
    wanted = f"{' or '.join(names)} of {rank} {'axis' if rank == 1 else 'axes'}, the first of {cell.state_size} units"
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in _parameters(cell).items())
    raise ValueError(f"{type(cell).__name__} has no field {wanted}: it has {shapes or 'no trained array'}.")


def _last_units(model: Forced, share: float) -> list[int]:
    """The last units of the state, as many as are a share of it, none of them shown."""
    m = model.cell.state_size
    shown = model.readout.observed_size if isinstance(model.readout, IdentityReadout) else 0
    count = round(share * m)
    if count < 1 or count > m - shown:
        what = f"the first {shown} are shown by the IdentityReadout, {m - shown} are not" if shown else "none is shown"
        raise ValueError(
            f"share={share} of the {m} units is {count}, but at least 1 and at most {m - shown} are possible ({what}): "
            "give another share, or units."
        )
    return list(range(m - count, m))


def _squares(arrays: Sequence[Inexact[Array, "..."]]) -> Scalar:
    return jnp.sum(jnp.stack([jnp.vdot(x, x).real for x in arrays]))
