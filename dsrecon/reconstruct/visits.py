"""What the members of an atlas visit, and how they stand against a truth: free runs of all of them at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Inexact, Int, PyTree

from dsrecon.cell import AbstractPWLCell
from dsrecon.evolve import evolve
from dsrecon.measures.attractor import outside
from dsrecon.measures.distances import STRETCHES, offered
from dsrecon.measures.mixture import Divergence
from dsrecon.measures.score import failure
from dsrecon.readout import Forced, GeneralisedReadout
from dsrecon.reconstruct.fitted import Fitted
from dsrecon.reconstruct.select import LONGEST_RUN, begun, held_floors
from dsrecon.reconstruction import Reconstruction
from dsrecon.series import as_series

TRANSIENT = 1_000
"""Steps of an autonomous free run before its regions are counted."""

SHARE = 0.99
"""Share of the steps that `regions_99` holds."""


class FreeRuns(NamedTuple):
    """Observations `[r, t, n]` in the units of the model, and regions visited: all, and those of 99 % of the steps."""

    xs: Float[Array, "r t n"]
    regions: Int[Array, "r"]
    regions_99: Int[Array, "r"]


def visits(fit: Fitted) -> xr.Dataset:
    """`regions` and `regions_99` of every run of a fit; in the attributes the floors that its table was scored by.

    See `seed_atlas` for the free run that they are counted on.
    """
    shown = fit.reconstruction(0)
    part = max(fit.parts.held, key=lambda p: len(p.x))
    drive = None if part.s is None or shown.input_scaler is None else np.asarray(shown.input_scaler.scale(part.s))
    start, first = _start(shown, part.x)
    s = None if drive is None else jnp.asarray(drive[first + 1 :], float)
    steps, discard = (LONGEST_RUN + TRANSIENT, TRANSIENT) if s is None else (len(s), len(s) // 10)
    runs = free_runs(fit.model, start, s, steps, discard)
    scale = _validation_floors(fit)
    columns = {name: ("run", np.asarray(getattr(runs, name), int)) for name in ("regions", "regions_99")}
    named = {f"{name}_floor": scale.get(name, float("nan")) for name in ("d_stsp", "d_h")}
    return xr.Dataset(columns, attrs={**named, "against": "validation", "region_steps": steps - discard})


def standing(models: PyTree, shown: Reconstruction, truth: Any, steps: int | None, inputs: Any) -> xr.Dataset:
    """The columns of `Atlas.against`, with the floors in the attributes. `shown`: any of the runs, for the units."""
    series = shown.matched(as_series(truth))
    true = shown.embedded(series).values
    length = min(LONGEST_RUN, len(true) // 2) if steps is None else steps
    if not 100 <= length <= len(true) // 2:
        raise ValueError(f"steps must lie between 100 and half of the truth, {len(true) // 2}: got {length}.")
    start, first = _start(shown, true)
    drive = shown.driven(inputs, series.clock, len(series.values))
    discard = length // 10 if drive is None else 0
    if drive is not None:
        drive = drive[first + shown.offset + 1 :][:length]
        length = len(drive)
    runs = free_runs(models, start, drive, discard + length, discard)
    scaled = (true - shown.scaler.mean) / shown.scaler.std
    compare, scale = compared(scaled, length)
    found = [compare(x) for x in np.asarray(runs.xs, np.float64)]
    table: dict[str, Any] = {k: ("run", np.array([f[k] for f in found], float)) for k in found[0] if k != "failure"}
    total = sum(table[name][1] / scale[f"{name}_floor"] for name in ("d_stsp", "d_h"))
    reasons = [str(f["failure"]) for f in found]
    table["score"] = ("run", np.where([bool(r) for r in reasons], np.inf, total))
    table["failure"] = ("run", reasons)
    table |= {name: ("run", np.asarray(getattr(runs, name), int)) for name in ("regions", "regions_99")}
    return xr.Dataset(table, attrs={**scale, "against": f"truth of {len(true)} samples", "region_steps": length})


@eqx.filter_jit
def free_runs(
    models: PyTree, start: Float[Array, "n"], inputs: Float[Array, "t k"] | None, steps: int, discard: int
) -> FreeRuns:
    """Free runs of stacked models from one observation (a row of `targets`), without their first `discard` steps."""

    def one(model: Forced) -> FreeRuns:
        zs = evolve(model.cell, model.readout.start(start), inputs, steps=steps, throw=False).zs
        readout = model.readout
        sampled = isinstance(readout, GeneralisedReadout)  # counts are compared with counts, not with their rates
        xs = readout.sample(zs, key=jax.random.key(0)) if sampled else readout.observe(zs)
        return FreeRuns(xs[discard:], *_visited(model.cell, zs[discard:]))  # pyright: ignore[reportArgumentType]

    return eqx.filter_vmap(one)(models)


def _visited(cell: AbstractPWLCell, zs: Inexact[Array, "t m"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many regions the states lie in, and the fewest that hold `SHARE` of them; 0 where a state is not finite."""
    bits = jax.vmap(lambda z: cell.region(z))(zs)
    bits = jnp.pad(bits, ((0, 0), (0, 32 - bits.shape[1] % 32))).reshape(len(zs), -1, 32)
    place = jnp.left_shift(jnp.uint32(1), jnp.arange(32, dtype=jnp.uint32))
    words = jnp.sum(bits.astype(jnp.uint32) * place[None, None, :], axis=2, dtype=jnp.uint32)
    words = words[jnp.lexsort(words.T)]
    new = jnp.any(words[1:] != words[:-1], axis=1)
    number = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new, dtype=jnp.int32)])
    counts = jnp.sort(jax.ops.segment_sum(jnp.ones(len(zs), jnp.int32), number, len(zs)), descending=True)
    needed = int(np.ceil(SHARE * len(zs)))
    most = 1 + jnp.sum(jnp.cumsum(counts, dtype=jnp.int32) < needed, dtype=jnp.int32)
    finite = jnp.all(jnp.isfinite(zs))
    return jnp.where(finite, number[-1] + 1, 0), jnp.where(finite, most, 0)


def _start(shown: Reconstruction, values: np.ndarray) -> tuple[Float[Array, "n"], int]:
    """The first complete row of observations `[t, n]` (the very first where none is) as a target, and its number."""
    complete = np.isfinite(values).all(1)
    first = int(np.argmax(complete)) if complete.any() else 0
    x, mask = shown.presented(values)
    return shown.readout.targets(x, mask)[first], first


def _validation_floors(fit: Fitted) -> dict[str, float]:
    """The floors of `select.evaluator`: what training stretches score against the validation stretches."""
    scaled = [[(p.x - fit.data.scaler.mean) / fit.data.scaler.std for p in parts] for parts in fit.parts[:2]]
    limit = max(1, LONGEST_RUN // len(scaled[1]))
    held = [begun(x, x, p.s, limit) for x, p in zip(scaled[1], fit.parts.held, strict=True)]
    definition = "padded" if isinstance(fit.model.readout, GeneralisedReadout) else "min-max"
    return held_floors(held, scaled[0], definition)


def compared(true: np.ndarray, length: int) -> tuple[Callable[[np.ndarray], dict[str, Any]], dict[str, float]]:
    """What scores a run of a length against the truth `[t, n]`, and the floors; see `Atlas.against`."""
    count = min(STRETCHES, len(true) // length)
    held = [slice(len(true) - (k + 1) * length, len(true) - k * length) for k in range(count)]
    rest = [np.delete(true, np.r_[s], axis=0) for s in held]
    ways = offered(true, length)
    binned = ways["d_stsp"] if "d_stsp" in ways else ways["d_stsp_mixture"]

    def space(a: np.ndarray, b: np.ndarray) -> float:
        found = binned.compare(a, b)
        return max(found.value, found.standard_error) if isinstance(found, Divergence) else found

    def spectra(run: np.ndarray, stretches: list[np.ndarray]) -> float:
        return float(np.mean([ways["d_h"].compare(a, run) for a in stretches]))

    def compare(run: np.ndarray) -> dict[str, Any]:
        found = {"d_stsp": np.nan, "d_h": np.nan, "outside": outside(true, run), "failure": failure(true, run)}
        if np.isfinite(run).all():
            found |= {"d_stsp": space(rest[0], run), "d_h": spectra(run, [true[s] for s in held])}
        return found

    others = [[true[s] for s in held if s != own] for own in held]
    scale = {
        "d_stsp_floor": float(np.mean([space(r, true[s]) for r, s in zip(rest, held, strict=True)])),
        "d_h_floor": float(np.mean([spectra(true[s], o) for s, o in zip(held, others, strict=True)])),
    }
    return compare, scale
