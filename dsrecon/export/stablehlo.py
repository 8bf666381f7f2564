"""A fitted model as StableHLO: compiled programs that need neither dsrecon nor the source of the model."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Inexact

from dsrecon._checks import several_names
from dsrecon._files import write_whole
from dsrecon.cell import AbstractCell
from dsrecon.export.describe import cell_of, described, dtype_of, input_size, text_of
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler

FORMAT = "dsrecon-stablehlo"
VERSION = 1
PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")


class Program(NamedTuple):
    """The functions of an export, each over a batch of `b` runs; `x` and `s` are in the units of the data.

    - `start(x)`: observations `[b, n]` to states `[b, m]` to begin from.
    - `step(z)`, or `step(z, s)` with inputs `[b, k]`: to the next states `[b, m]` and what is expected to be observed
      of them, `[b, v]`.
    - `run(z)`, or `run(z, s)` with inputs `[b, t, k]`: `t` steps, to the last states `[b, m]` and what is expected to
      be observed of every one, `[b, t, v]`; `None` where none was exported.
    - `description`: what the model is and how the functions were exported.

    `n` are the coordinates, `v` the variables: the same but for a delay embedding. Of a bare cell `x` is the state.
    """

    start: Callable[..., Any]
    step: Callable[..., Any]
    run: Callable[..., Any] | None
    description: dict[str, Any]


def export_stablehlo(
    model: Reconstruction | AbstractCell,
    path: str | os.PathLike,
    *,
    steps: int | None = None,
    batch: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> Path:
    """Write a model as StableHLO programs, in one zip file, whole or not at all.

    The file holds `description.json` and, for each of `start`, `step` and `run` (see `Program`), `<name>.jax_export`
    (what `jax.export.deserialize` takes) and `<name>.mlirbc` (the same module as a portable StableHLO artefact, for
    runtimes without JAX). Parameters are constants in it, in the precision of the model, and so are the scalers: with
    a float32 model `x` is rounded to float32 too.

    **Arguments:**

    - `model`: a `Reconstruction`, or a bare cell of any class.
    - `path`: of the file.
    - `steps`: also export `run`, of so many steps; a longer one goes on from its last state.
    - `batch`: number of runs at once; `None` leaves it open, so that one file serves any.
    - `platforms`: that the file is to run on: `"cpu"`, `"cuda"`, `"tpu"`, `"rocm"`.

    **Returns:** the path. **Raises:** `ValueError` for a readout with memory (its observations are no function of one
    state: `export_arrays` takes it), an unknown platform, and a cell that does not run on its own; `ImportError`
    without the package flatbuffers; `OSError` that names the path when it cannot be written.

    Reference: *StableHLO specification*, openxla.org/stablehlo/spec; *Exporting and serialization*, docs.jax.dev.
    """
    for name, value in (("steps", steps), ("batch", batch)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, or None: got {value}.")
    platforms = several_names(platforms)
    if not platforms or not set(platforms) <= set(_KNOWN):
        raise ValueError(f"platforms must be some of {_KNOWN}: got {tuple(platforms)}.")
    cell_of(model)
    if isinstance(model, Reconstruction) and model.readout.memory:
        raise ValueError(
            f"model has a {type(model.readout).__name__}, whose observations depend on {model.readout.memory} earlier "
            "states: no function of one state shows them. Use export_arrays."
        )
    exported = _exported(model, steps, batch, tuple(platforms))
    functions = {}
    for name, (signature, program) in exported.items():
        functions[name] = {
            "signature": signature,
            "in": [str(aval.str_short()) for aval in program.in_avals],
            "out": [str(aval.str_short()) for aval in program.out_avals],
            "calling_convention_version": program.calling_convention_version,
        }
    document = {
        "format": FORMAT,
        "version": VERSION,
        **described(model),
        "exported_by": f"jax {jax.__version__}",
        "platforms": list(platforms),
        "batch": batch,
        "steps": steps,
        "functions": functions,
    }
    text = text_of(document) + "\n"
    members = {"description.json": text.encode()}
    for name, (_, program) in exported.items():
        members[f"{name}.jax_export"] = bytes(program.serialize())
        members[f"{name}.mlirbc"] = program.mlir_module_serialized
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_DEFLATED)
    return write_whole(path, content.getvalue())


def load_stablehlo(path: str | os.PathLike) -> Program:
    """Read what `export_stablehlo` wrote. The classes of the model need not exist any more; nothing is unpickled.

    The functions are compiled at their first call for a shape, and take and give arrays of the type
    `description["dtype"]`.

    **Raises:** `ValueError` that names the file for one that is foreign, damaged, cut short or of a later version, and
    for a float64 model while JAX is in float32; `FileNotFoundError`.
    """
    content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".mlirbc")}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"{path} is not a {FORMAT} file, or damaged: {error}") from error
    document = _document(members.get("description.json"), path)
    if str(jnp.result_type(float)) != document["dtype"] == "float64":
        raise ValueError(
            f"{path} holds a float64 model: enable float64 with jax.config.update('jax_enable_x64', True)."
        )
    functions = {}
    for name in document["functions"]:
        if f"{name}.jax_export" not in members:
            raise ValueError(f"{path} is damaged: it lacks {name}.jax_export.")
        try:
            exported = export.deserialize(bytearray(members[f"{name}.jax_export"]))
        except Exception as error:  # whatever the reader of a foreign binary format falls over
            raise ValueError(f"{path}: {name}.jax_export cannot be read by jax {jax.__version__}: {error}") from error
        functions[name] = jax.jit(exported.call)
    return Program(functions["start"], functions["step"], functions.get("run"), document)


def _document(member: bytes | None, path: str | os.PathLike) -> dict[str, Any]:
    """The description of a file, checked."""
    try:
        document = json.loads(member or b"")
    except (UnicodeDecodeError, json.JSONDecodeError):
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT} file: its description.json is missing or another.")
    written = document.get("version")
    if not isinstance(written, int) or not {"start", "step"} <= set(document.get("functions", ())):
        raise ValueError(f"{path} is damaged: its description lacks a version or functions.")
    if written > VERSION:
        raise ValueError(
            f"{path} has version {written} of the {FORMAT} format, written by {document.get('written_by')}: this "
            f"dsrecon reads up to {VERSION}. Upgrade dsrecon."
        )
    return document


def _exported(
    model: Reconstruction | AbstractCell, steps: int | None, batch: int | None, platforms: tuple[str, ...]
) -> dict[str, tuple[str, export.Exported]]:
    """Signature and program of each function by name."""
    start, step = _functions(model)
    dtype, k, m = dtype_of(model), input_size(model), cell_of(model).state_size
    n = model.readout.observed_size if isinstance(model, Reconstruction) else m
    b = batch if batch is not None else export.symbolic_shape("b")[0]

    def shaped(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def run(z, *s):
        z, xs = jax.lax.scan(lambda z, s: jax.vmap(step)(z, *s), z, [jnp.moveaxis(v, 1, 0) for v in s], length=steps)
        return z, jnp.moveaxis(xs, 0, 1)

    given = ", s" if k else ""
    functions: dict[str, tuple[str, Callable[..., Any], list[Any]]] = {
        "start": ("start(x) -> z", jax.vmap(start), [shaped(b, n)]),
        "step": (f"step(z{given}) -> (z, x)", jax.vmap(step), [shaped(b, m), *([shaped(b, k)] if k else [])]),
    }
    if steps is not None:
        drive = [shaped(b, steps, k)] if k else []
        functions["run"] = (f"run(z{given}) -> (z, x)", run, [shaped(b, m), *drive])
    _check_step(model, step, functions["step"][2], dtype)
    return {
        name: (signature, export.export(jax.jit(function), platforms=platforms)(*shapes))
        for name, (signature, function, shapes) in functions.items()
    }


def _check_step(model: Any, step: Callable[..., Any], shapes: list[Any], dtype: jnp.dtype) -> None:
    """Raise `ValueError` unless one step of one run works, and gives a state like the one it began from."""
    name, inputs = type(cell_of(model)).__name__, "with" if len(shapes) > 1 else "without"
    try:
        z, _ = eqx.filter_eval_shape(step, *(jax.ShapeDtypeStruct(a.shape[1:], dtype) for a in shapes))
    except Exception as error:
        raise ValueError(
            f"model cannot be exported: a step of its {name} from one {dtype} state {inputs} inputs failed: {error}"
        ) from error
    if (z.shape, z.dtype) != (shapes[0].shape[1:], dtype):
        raise ValueError(
            f"model must be one model: its {name} makes {z.dtype}{list(z.shape)} of a state "
            f"{dtype}{list(shapes[0].shape[1:])}. Of an ensemble, export one member at a time."
        )


def _functions(model: Reconstruction | AbstractCell) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`start(x) -> z` and `step(z[, s]) -> (z, x)` of one run, in the units of the data."""
    if not isinstance(model, Reconstruction):

        def bare(z: Inexact[Array, "m"], *s: Array) -> tuple[Array, Array]:
            z = model(z, *s)
            return z, z

        return lambda x: x, bare
    cell, readout, dtype, variables = model.cell, model.readout, dtype_of(model), len(model.names)
    mean, std = _constants(model.scaler, dtype)
    drive = None if model.input_scaler is None else _constants(model.input_scaler, dtype)

    def start(x: Inexact[Array, "n"]) -> Array:
        with jax.ensure_compile_time_eval():  # a pseudo-inverse is a constant here, not a call of LAPACK
            return readout.start(readout.targets(((x - mean) / std)[None])[0])

    def step(z: Inexact[Array, "m"], *s: Array) -> tuple[Array, Array]:
        z = cell(z) if drive is None else cell(z, (s[0] - drive[0]) / drive[1])
        return z, (readout.decode(z) * std + mean)[:variables]

    return start, step


def _constants(scaler: Scaler, dtype: jnp.dtype) -> tuple[Array, Array]:
    return jnp.asarray(scaler.mean, dtype), jnp.asarray(scaler.std, dtype)
