"""Where the runs begin: their cells and readouts, and the batches and optimiser that they go on with."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from dsrecon._checks import real, whole
from dsrecon._types import Key
from dsrecon.cell import AbstractCell
from dsrecon.models import ClippedShallowPLRNN
from dsrecon.readout import AbstractReadout, Forced, GeneralisedReadout, IdentityReadout
from dsrecon.reconstruct.parts import Parts
from dsrecon.reconstruct.plan import Plan
from dsrecon.reconstruct.prepare import Data
from dsrecon.training import Windows, radam

LONGEST_GRADIENT = 10.0
"""RAdam's first five updates are plain gradient steps: one steep start value would throw a run out for good."""


def models(cell, readout, kinds, n: int, parts: Parts, runs: int, key: Key, plan: Plan) -> PyTree:
    """The runs' start values, stacked."""
    size = max(n, 3)
    drive = parts.train[0].s
    input_size = 0 if drive is None else drive.shape[1]
    if isinstance(cell, AbstractCell):
        given = cell
        make: Callable[[Key], AbstractCell] = lambda key: given  # noqa: E731
    elif cell is not None:
        make = cell
    else:
        make = lambda key: ClippedShallowPLRNN(size, 50, input_size=input_size, key=key)  # noqa: E731
    probe = eqx.filter_eval_shape(make, key) if cell is None else make(key)
    if not isinstance(probe, AbstractCell):
        raise ValueError(f"cell must be a cell or a function from a key to a cell: got {type(probe).__name__}.")
    if readout is None and probe.state_size < n:
        raise ValueError(f"the cell's state_size must be at least the {n} observed variables: got {probe.state_size}.")
    why = "clipped, so it cannot diverge once |A| < 1, and faithful with few dimensions"
    plan.choose("cell", type(probe).__name__ if cell is not None else None, type(probe).__name__, why)
    hidden = "one unit a variable" if n >= 3 else f"{n} variables and {size - n} hidden units"
    plan.choose("state_size", probe.state_size if cell is not None else None, probe.state_size, hidden)
    if cell is None:
        plan.choose("hidden_size", None, 50, "100 hyperplanes, with which Lorenz-63 meets its floor")

    def observed(key: Key, state_size: int) -> AbstractReadout:
        if readout is not None:
            return readout(key)
        if kinds is not None:
            return GeneralisedReadout(kinds, state_size, key=key)
        return IdentityReadout(n, state_size, key=key)

    def one(key):
        cell_key, readout_key = jax.random.split(key)
        made = make(cell_key)
        return Forced(made, observed(readout_key, made.state_size))  # pyright: ignore[reportCallIssue]

    if cell is not None and input_size:
        _check_driven(probe, input_size)
    model = eqx.filter_jit(eqx.filter_vmap(one))(jax.random.split(jax.random.fold_in(key, 0), runs))
    found = model.readout
    if found.observed_size != n:
        raise ValueError(f"the readout must show the {n} variables of the series: it shows {found.observed_size}.")
    plan.choose("readout", type(found).__name__ if readout is not None else None, type(found).__name__, "default")
    return model


def check_makers(cell: Any, readout: Any) -> None:
    """**Raises** `ValueError` for a class, or what cannot be called, where a function from a key is wanted."""
    for name, given, what in (("cell", cell, "a cell or a function"), ("readout", readout, "a function")):
        wanted = f"{name} must be {what} from a key to a {name}"
        if isinstance(given, type):
            raise ValueError(f"{wanted}, lambda key: {given.__name__}(..., key=key) say: got {given.__name__} itself.")
        if given is not None and not isinstance(given, AbstractCell) and not callable(given):
            raise ValueError(f"{wanted}: got {type(given).__name__}.")


def _check_driven(cell: AbstractCell, size: int) -> None:
    """**Raises** `ValueError` for a cell that takes no inputs, or another number of them."""
    z = jnp.zeros(cell.state_size)
    try:
        still, moved = cell(z, jnp.zeros(size)), cell(z, jnp.ones(size))
    except TypeError as error:
        raise ValueError(f"the cell must take the {size} inputs: build it with input_size={size}. {error}") from error
    if bool(jnp.all(still == moved)):
        raise ValueError(f"inputs were given, but the cell does not depend on them: build it with input_size={size}.")


def check_numbers(alpha: Any, measures: dict[str, Any], counts: dict[str, Any]) -> None:
    """**Raises** `ValueError` for settings of a fit that are no numbers, before the series is looked at."""
    for check, settings in ((whole, counts), (real, measures)):
        for name, value in settings.items():
            if value is not None:
                check(name, value)
    if isinstance(alpha, str):
        raise ValueError(f"alpha must be a number from 0 to 1, several of them or a function: got {alpha!r}.")


def sampler_of(data: Data, length, batch, noise, key, plan: Plan, memory: int) -> Windows:
    """The windows of the fit. **Raises:** `ValueError` for those shorter than the memory of the readout."""
    longest = max(data.lengths)
    fitting = max(1, min(50 + memory, longest // 4))
    length = plan.choose("length", length, fitting, "50 predicted steps, or a quarter of a short series")
    if length <= memory:
        raise ValueError(f"length must be above the readout's memory of {memory} steps: got {length}.")
    batch = plan.choose("batch", batch, 16, "windows of an update, as in the papers")
    noise = plan.choose("noise", noise, 0.0, "none: forcing averages over the noise of the data")
    return Windows(
        data.x,
        length=length,
        batch=batch,
        trials=data.lengths,
        mask=data.mask,
        seen=data.seen,
        s=data.s,
        noise=noise,
        key=jax.random.fold_in(key, 2),
    )


def optimiser_of(
    steps: int | None,
    learning_rate: tuple[float, float] | None,
    given: optax.GradientTransformation | None,
    plan: Plan,
) -> tuple[int, optax.GradientTransformation]:
    """How many updates, and the optimiser: RAdam with gradients cut to a length, unless one is given."""
    updates: int = plan.choose("steps", steps, 12_000, "Lorenz-63 meets its floor with so many")
    if updates < 1:
        raise ValueError(f"steps must be at least 1: got {updates}.")
    if given is not None:
        if not (hasattr(given, "init") and hasattr(given, "update")):  # `optax.MultiSteps` has no more in common
            raise ValueError(f"optimiser must be one of optax's, such as optax.adam(1e-3): got {given!r}.")
        if learning_rate is not None:
            raise ValueError(f"give learning_rate or optimiser, not both: got learning_rate={learning_rate}.")
        plan.choose("optimiser", "given", None, "")
        return updates, given
    rates = plan.choose("learning_rate", learning_rate, (2e-2, 2e-4), "RAdam, exponential decay")
    if not isinstance(rates, tuple | list) or len(rates) != 2:
        raise ValueError(f"learning_rate must be a pair, that of the first and of the last update: got {rates!r}.")
    why = (
        f"as in the papers; gradients longer than {LONGEST_GRADIENT:g} are cut to that, since its first updates are raw"
    )
    plan.choose("optimiser", None, "radam", why)
    return updates, optax.chain(optax.clip_by_global_norm(LONGEST_GRADIENT), radam(rates[0], rates[1], updates))
