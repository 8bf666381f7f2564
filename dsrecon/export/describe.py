"""What a model is, as plain JSON values: everything beside its arrays."""

import json
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from dsrecon.cell import AbstractCell, AbstractPWLCell
from dsrecon.export.forms import CELLS, READOUTS
from dsrecon.readout import AbstractReadout, GeneralisedReadout, HaemodynamicReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler


def cell_of(model: Any) -> AbstractCell:
    """The cell of a reconstruction, or the cell itself. **Raises:** `ValueError` for anything else."""
    if isinstance(model, Reconstruction):
        return model.cell
    if not isinstance(model, AbstractCell):
        raise ValueError(f"model must be a Reconstruction or a cell: got a {type(model).__name__}.")
    return model


def dtype_of(model: Reconstruction | AbstractCell) -> jnp.dtype:
    """The floating-point type of the parameters of cell and readout; JAX's default where there are none.

    **Raises:** `ValueError` where they differ.
    """
    modules = (model.cell, model.readout) if isinstance(model, Reconstruction) else model
    found = sorted({str(x.dtype) for x in jax.tree.leaves(eqx.filter(modules, eqx.is_inexact_array))})
    if len(found) > 1:
        raise ValueError(f"model must have parameters of one floating-point type: got {', '.join(found)}.")
    return jnp.dtype(found[0]) if found else jnp.result_type(float)


def input_size(model: Reconstruction | AbstractCell) -> int:
    """How many external inputs a model takes; 0 for a bare cell of a class of which that is not known."""
    if isinstance(model, Reconstruction):
        return len(model.input_names)
    if type(model) not in CELLS:
        return 0
    cell: Any = model
    return 0 if cell.C is None else cell.C.shape[1]


def described(model: Reconstruction | AbstractCell) -> dict[str, Any]:
    """What a model is, in values that JSON has; the keys are those of docs/export.md."""
    cell, k = cell_of(model), input_size(model)
    bare = not isinstance(model, Reconstruction)
    states = [f"z{i}" for i in range(cell.state_size)]
    names, units = (states, [""] * len(states)) if bare else (model.names, model.units)
    scalers = (None, None) if bare else (model.scaler, model.input_scaler)
    input_names = [f"s{i}" for i in range(k)] if bare else model.input_names
    return {
        "written_by": f"dsrecon {version('dsrecon')}",
        "cell": _cell(cell, dtype_of(model)),
        "readout": None if bare else _readout(model.readout),
        "variables": [{"name": n, "unit": u} for n, u in zip(names, units, strict=True)],
        "coordinates": list(names if bare else model.coordinates),
        "scaler": _scaler(scalers[0]),
        "embedding": None if bare else _embedding(model),
        "inputs": list(input_names),
        "input_scaler": _scaler(scalers[1]),
        "time": None if bare else _time(model),
        "dtype": str(dtype_of(model)),
    }


def text_of(document: Any, depth: int = 1, indent: str = "") -> str:
    """JSON to be read by people too: dicts over several lines down to `depth`, whatever is deeper on one line."""
    if not isinstance(document, dict) or not document or depth < 0:
        return json.dumps(document, ensure_ascii=False, allow_nan=False)
    inner = indent + "  "
    rows = (f"{inner}{json.dumps(k, ensure_ascii=False)}: {text_of(v, depth - 1, inner)}" for k, v in document.items())
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def _cell(cell: AbstractCell, dtype: jnp.dtype) -> dict[str, Any]:
    form = CELLS.get(type(cell))
    facts: dict[str, Any] = {"class": type(cell).__name__, "equation": None if form is None else form.equation}
    facts["state_size"] = cell.state_size
    if form is not None and isinstance(cell, AbstractPWLCell):
        z = jax.ShapeDtypeStruct((cell.state_size,), dtype)
        facts["gates"] = eqx.filter_eval_shape(cell.region, z).shape[0]
        facts["region"] = form.second
    return facts


def _readout(readout: AbstractReadout) -> dict[str, Any]:
    form = READOUTS.get(type(readout))
    facts: dict[str, Any] = {"class": type(readout).__name__, "observed_size": readout.observed_size}
    if form is not None:
        facts |= {"equation": form.equation, "start": form.second}
    if isinstance(readout, GeneralisedReadout):
        facts["families"] = list(readout.families)
    if isinstance(readout, HaemodynamicReadout):
        facts |= {"time_step": readout.time_step, "length": readout.length}
    return facts


def _scaler(scaler: Scaler | None) -> dict[str, Any] | None:
    if scaler is None:
        return None
    return {
        "equation": "standardised = (value - mean) / std",
        "mean": [float(v) for v in scaler.mean],
        "std": [float(v) for v in scaler.std],
    }


def _embedding(model: Reconstruction) -> dict[str, Any] | None:
    if model.embedding is None:
        return None
    return {
        "equation": "X_t = (x_t, x_{t-lag}, ..., x_{t-(dimension-1) lag}), lag in samples",
        "lag": model.embedding.lag,
        "dimension": model.embedding.dimension,
    }


def _time(model: Reconstruction) -> dict[str, Any]:
    clock = model.clock
    unit = "s" if clock.unit == "datetime" else clock.unit
    return {"step": float(clock.time_step), "unit": unit, "origin": clock.origin, "anchor_sample": model.offset}
