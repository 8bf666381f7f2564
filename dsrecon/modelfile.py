"""One file for one module: a JSON line, then arrays. Reading it never runs code that it names.

Layout: one line of JSON (UTF-8, ends in a newline) with `format`, `version`, `written_by`, `bytes` (size of
what follows), `tree` (the structure) and `sha256` (of structure and arrays); then every array as a NumPy `.npy` block,
in the order of the structure.
"""

import dataclasses
import hashlib
import io
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon._files import replacing

FORMAT = "dsrecon-model"
VERSION = 1


def write_module(path: str | os.PathLike, module: eqx.Module) -> Path:
    """Write a module to one file, atomically: a temporary file beside it, then a rename.

    **Arguments:** `path`; `module`: an Equinox module of arrays, numbers, strings, tuples, lists, dicts and modules.

    **Raises:** `ValueError` for a field that cannot be written (a function, say); `OSError` when the folder cannot
    be written, and then nothing is left behind.
    """
    arrays: list[np.ndarray] = []
    tree = _encode(module, arrays, type(module).__name__)
    payload = io.BytesIO()
    for array in arrays:
        np.save(payload, array, allow_pickle=False)
    body = payload.getvalue()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": {name: version(name) for name in ("dsrecon", "jax", "equinox", "numpy")},
        "bytes": len(body),
        "sha256": _checksum(tree, body),
        "tree": tree,
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(json.dumps(header).encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


def read_module(path: str | os.PathLike, expected: type) -> Any:
    """Read what `write_module` wrote. Classes are looked up among those already imported; nothing is imported.

    **Arguments:** `path`; `expected`: class that the file must hold.

    **Raises:** `ValueError` for a file of another kind, of a later format, cut short or changed, of a class that is
    not imported or has other fields by now, or of float64 arrays while JAX is in float32.
    """
    content = Path(path).read_bytes()
    line, newline, body = content.partition(b"\n")
    try:
        header = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        cut = FORMAT.encode() in line and not newline
        what = "cut short inside its header" if cut else "not a dsrecon model file"
        raise ValueError(f"{path} is {what} (it begins with {content[:16]!r}).")
    written, size, tree = (header.get(k) for k in ("version", "bytes", "tree"))
    if not (isinstance(written, int) and isinstance(size, int) and isinstance(tree, dict)):
        raise ValueError(f"{path} is damaged: its header lacks a version, a size or a structure.")
    if written > VERSION:
        raise ValueError(
            f"{path} has version {written} of the model format, written by dsrecon {_writer(header)}: this dsrecon "
            f"reads up to {VERSION}. Upgrade dsrecon."
        )
    if len(body) != size:
        raise ValueError(f"{path} is truncated: {len(body)} bytes of arrays where {size} were written.")
    if _checksum(tree, body) != header.get("sha256"):
        raise ValueError(f"{path} is damaged: its content does not have the checksum that was written with it.")
    stream = io.BytesIO(body)
    module = _decode(tree, stream, str(path))
    if not isinstance(module, expected):
        raise ValueError(f"{path} holds a {type(module).__name__}: wanted a {expected.__name__}.")
    return module


def _writer(header: dict[str, Any]) -> str:
    by = header.get("written_by")
    return str(by.get("dsrecon", "?")) if isinstance(by, dict) else "?"


def _checksum(tree: Any, body: bytes) -> str:
    return hashlib.sha256(json.dumps(tree).encode() + body).hexdigest()


def _encode(value: Any, arrays: list[np.ndarray], where: str) -> Any:
    if isinstance(value, eqx.Module):
        cls = type(value)
        if "<locals>" in cls.__qualname__:
            raise ValueError(
                f"{where} cannot be written to a model file: its class {cls.__qualname__} is defined inside a "
                "function: no reader could find it. Define it at the top level of a module."
            )
        fields = {
            f.name: _encode(getattr(value, f.name), arrays, f"{where}.{f.name}") for f in dataclasses.fields(value)
        }
        return {"module": f"{cls.__module__}:{cls.__qualname__}", "fields": fields}
    if isinstance(value, np.ndarray | jax.Array):
        arrays.append(np.asarray(value))
        return {"array": "numpy" if isinstance(value, np.ndarray) else "jax"}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, list | tuple):
        items = [_encode(v, arrays, f"{where}[{i}]") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _encode(v, arrays, f"{where}[{k!r}]") for k, v in value.items()}}
    raise ValueError(f"{where} cannot be written to a model file: it is a {type(value).__name__}.")


def _decode(node: dict[str, Any], stream: io.BytesIO, path: str) -> Any:
    if "module" in node:
        cls = _find(node["module"], path)
        names = {f.name for f in dataclasses.fields(cls)}
        if names != set(node["fields"]):
            raise ValueError(
                f"{path} holds a {cls.__name__} with fields {sorted(node['fields'])}: "
                f"this dsrecon's has {sorted(names)}."
            )
        module = object.__new__(cls)
        for name, value in node["fields"].items():
            object.__setattr__(module, name, _decode(value, stream, path))
        return module
    if "array" in node:
        array = np.load(stream, allow_pickle=False)
        if node["array"] == "numpy":
            return array
        if array.dtype != jax.dtypes.canonicalize_dtype(array.dtype):
            raise ValueError(
                f"{path} holds {array.dtype} arrays: enable them with jax.config.update('jax_enable_x64', True)."
            )
        return jnp.asarray(array)
    if "value" in node:
        return node["value"]
    if "dict" in node:
        return {k: _decode(v, stream, path) for k, v in node["dict"].items()}
    if "tuple" in node:
        return tuple(_decode(v, stream, path) for v in node["tuple"])
    return [_decode(v, stream, path) for v in node["list"]]


def _find(name: str, path: str) -> type[eqx.Module]:
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, eqx.Module)):
        raise ValueError(f"{path} needs the class {qualname} of {module}: import that module first.")
    return found
