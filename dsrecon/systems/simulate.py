"""Series of known systems, with all that it takes to make them again."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from dsrecon._checks import counted, jax_key, real
from dsrecon._types import Key
from dsrecon.evolve import evolve
from dsrecon.systems.cells import ODECell, check_positive
from dsrecon.systems.dysts import DystsFlow
from dsrecon.systems.known import AbstractSystem
from dsrecon.systems.spatial import ETDRK4Cell

RECIPE_FORMAT = 2
"""Version of what `simulate` hashes; it rises whenever the same recipe would give another series."""


def simulate(
    system: AbstractSystem,
    steps: int,
    *,
    dt: float | None = None,
    start: Sequence[float] | np.ndarray | Array | None = None,
    discard: int = 1000,
    noise: float = 0.0,
    key: Key | None = None,
) -> xr.DataArray:
    """A series of a known system, with all that it takes to make it again.

    `x_i = phi_dt^(discard + i)(start) + noise * sd * e_i`, `i = 0 .. steps - 1`, with `e_i` standard normal
    and `sd` the standard deviation of each variable over the noiseless series: the noise is of the
    measurement alone.

    **Arguments:**

    - `system`: any `AbstractSystem`.
    - `steps`: samples wanted.
    - `dt`: sampling step, in the system's units of time (`system.time_step` by default; 1 for a map).
    - `start`: initial state, `[m]` (`system.start` by default).
    - `discard`: steps let go first, so that the series is on the attractor; the clock starts after them.
    - `noise`: a fraction of each variable's standard deviation (0.05 is 5 %). Needs `key`.
    - `key`: of the noise; without noise it plays no part.

    **Returns:** `[time, variable]`, float64 where JAX has it enabled and float32 elsewhere, with times `0,
    dt, ...`. Attributes, all of them text or numbers: `system`, `source`, `parameters` and `start` (JSON),
    `time_step`, `discard`, `noise`, and `recipe`: the SHA-256 of everything that determines the series,
    steps, method of integration, noise key and precision among it.

    **Raises:** `ValueError` for an argument out of range; `RuntimeError` when the run diverges.
    """
    if not isinstance(system, AbstractSystem):
        raise ValueError(f"system must be a known system, Lorenz63() say: got {system!r}.")
    _check_simulate(steps, dt, discard, noise, key)
    cell = system.cell(dt)
    dt = float(system.time_step if dt is None else dt)
    z0 = _check_start(system, system.start if start is None else start)
    total = discard + steps - 1
    rows = z0[None]
    if total > 0:
        rows = jnp.concatenate([rows, evolve(cell, z0, steps=total).zs])
    xs = np.asarray(rows)[discard:]
    recipe = _recipe(system, cell, steps, dt, z0, discard, noise, key)
    if noise > 0:
        assert key is not None
        e = np.asarray(jax.random.normal(key, xs.shape, xs.dtype))
        xs = xs + (noise * e * xs.std(axis=0)).astype(xs.dtype)
    return xr.DataArray(
        xs,
        dims=("time", "variable"),
        coords={"time": np.arange(steps) * dt, "variable": list(system.names)},
        name=_name(system),
        attrs={
            "system": _name(system),
            "source": system.source,
            "parameters": json.dumps(system.parameters),
            "start": json.dumps(z0.tolist()),
            "time_step": dt,
            "discard": int(discard),
            "noise": float(noise),
            "recipe": recipe,
        },
    )


def _name(system: AbstractSystem) -> str:
    return system.flow if isinstance(system, DystsFlow) else type(system).__name__


def _recipe(system, cell, steps, dt, z0, discard, noise, key) -> str:
    recipe: dict[str, Any] = {
        "format": RECIPE_FORMAT,
        "system": f"{type(system).__module__.partition('.')[0]}.{type(system).__qualname__}",
        "parameters": system.parameters,
        "steps": int(steps),
        "dt": dt,
        "start": z0.tolist(),
        "discard": int(discard),
        "noise": float(noise),
        "key": None,
        "dtype": str(z0.dtype),
    }
    if noise > 0:
        recipe["key"] = [str(jax.random.key_impl(key)), jax.random.key_data(key).tolist()]
    if isinstance(cell, ODECell):
        recipe["solver"] = [type(cell.solver).__name__, cell.substeps]
    if isinstance(cell, ETDRK4Cell):
        recipe["solver"] = ["ETDRK4", cell.substeps]
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_simulate(steps, dt, discard, noise, key) -> None:
    counted("steps", steps)
    if dt is not None:
        check_positive("dt", real("dt", dt))
    counted("discard", discard, 0)
    if not (real("noise", noise) >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise must be a fraction of each variable's standard deviation, 0 or more: got {noise}.")
    if noise > 0 and key is None:
        raise ValueError(f"key must be given for noise={noise}, e.g. key=jax.random.key(0): got None.")
    if noise > 0:
        jax_key(key)


def _check_start(system: AbstractSystem, start: Any) -> Array:
    z0 = jnp.asarray(start, dtype=float)
    if z0.shape != (system.dimension,):
        raise ValueError(
            f"start must have shape ({system.dimension},), one value each of {system.names}: got {z0.shape}."
        )
    if not bool(jnp.all(jnp.isfinite(z0))):
        raise ValueError(f"start must be finite: got {z0.tolist()}.")
    return z0
