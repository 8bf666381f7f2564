"""One file for one tree of values: a JSON line, then arrays. Reading it never runs code that it names.

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
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon._files import replacing

FORMAT = "dsrecon-model"
VERSION = 1
_READERS = {
    "Reconstruction": "dsrecon.load",
    "Subjects": "dsrecon.load_subjects",
    "Predictor": "dsrecon.forecast.load_predictor",
}
_KINDS = {
    b"dsrecon-model": "It is a model file: dsrecon.load reads it.",
    b"dsrecon-checkpoint": "It is the checkpoint of a fit: the same call with checkpoint= goes on from it.",
    b"dsrecon-arrays": "It is the description of an export: dsrecon.read_arrays reads it.",
    b"PK\x03\x04": "It is a zip archive, as exports are: dsrecon.read_arrays or dsrecon.load_stablehlo reads those.",
}
"""What is among the first bytes of a file, and what reads such a file."""
_PLAIN = bool | int | float | str | None


def write_module(path: str | os.PathLike, module: eqx.Module) -> Path:
    """Write a module to one file, atomically: a temporary file beside it, then a rename.

    **Arguments:** `path`; `module`: an Equinox module of what `write_tree` takes.

    **Raises:** `ValueError` for a field that cannot be written (a function, say); `OSError` that names the file when
    it cannot be written, and then nothing is left behind.
    """
    return _write(path, module, FORMAT, type(module).__name__)


def read_module(path: str | os.PathLike, expected: type) -> Any:
    """Read what `write_module` wrote. Classes are looked up among those already imported; nothing is imported.

    **Arguments:** `path`; `expected`: class that the file must hold.

    **Raises:** `ValueError` for a folder, a file of another kind, of a later format, cut short or changed, of a class
    that is not imported or has other fields by now, or of float64 arrays while JAX is in float32.
    """
    _refuse_folder(_path(path))
    module = read_tree(path, FORMAT)
    if not isinstance(module, expected):
        reader = _READERS.get(type(module).__name__)
        hint = "" if reader is None else f" {reader} reads it."
        raise ValueError(f"{path} holds a {type(module).__name__}: wanted a {expected.__name__}.{hint}")
    return module


def write_tree(path: str | os.PathLike, tree: Any, format: str) -> Path:
    """Write a tree of values to one file, whole or not at all, and on the disk when this returns.

    **Arguments:**

    - `path`: where to. What stands there stays as it is until the new file is whole.
    - `tree`: arrays of NumPy (also of numbers and strings as objects) and JAX (also random keys), numbers, strings and
      `None`, in tuples, named tuples, lists, dicts with string keys and Equinox modules.
    - `format`: name of the kind of file, `"dsrecon-checkpoint"` say; `read_tree` asks for the same.

    **Raises:** `ValueError` for a value that cannot be written; `OSError` that names the file when the disk is full
    or the folder cannot be written. Then nothing is left behind.
    """
    return _write(path, tree, format, "tree")


def read_tree(path: str | os.PathLike, format: str) -> Any:
    """Read what `write_tree` wrote, bit for bit. Classes are looked up among those already imported.

    **Arguments:** `path`; `format`: name of the kind of file that is wanted.

    **Raises:** `ValueError` as `read_module` does.
    """
    content = _path(path).read_bytes()
    line, newline, body = content.partition(b"\n")
    try:
        header = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError):
        header = None
    if not isinstance(header, dict) or header.get("format") != format:
        cut = format.encode() in line and not newline
        what = "cut short inside its header" if cut else f"not a {format.replace('-', ' ')} file"
        raise ValueError(f"{path} is {what} (it begins with {content[:32]!r}).{_other_reader(content, format)}")
    written, size, tree = (header.get(k) for k in ("version", "bytes", "tree"))
    if not (isinstance(written, int) and isinstance(size, int) and isinstance(tree, dict)):
        raise ValueError(f"{path} is damaged: its header lacks a version, a size or a structure.")
    if written > VERSION:
        raise ValueError(
            f"{path} has version {written} of the {format} format, written by dsrecon {_writer(header)}: this dsrecon "
            f"reads up to {VERSION}. Upgrade dsrecon."
        )
    if len(body) != size:
        raise ValueError(f"{path} is truncated: {len(body)} bytes of arrays where {size} were written.")
    if _checksum(tree, body) != header.get("sha256"):
        raise ValueError(f"{path} is damaged: its content does not have the checksum that was written with it.")
    return _decode(tree, io.BytesIO(body), str(path))


def _path(path: str | os.PathLike) -> Path:
    """**Raises** `ValueError` for what is no path."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be that of a file: got {path!r}.")
    return Path(path)


def _refuse_folder(path: Path) -> None:
    """**Raises** `ValueError` for a folder, with the model files that are in it."""
    if not path.is_dir():
        return
    found = [str(file) for file in sorted(path.iterdir()) if file.is_file() and _begins(file)]
    if not found:
        raise ValueError(f"{path} is a folder, and no dsrecon model file is in it.")
    raise ValueError(f"{path} is a folder: read the dsrecon model file in it, {' or '.join(map(repr, found))}.")


def _begins(file: Path) -> bool:
    """Whether a file says that it is a model file."""
    with open(file, "rb") as opened:
        return FORMAT.encode() in opened.read(64)


def _other_reader(content: bytes, format: str) -> str:
    """What reads a file of another kind of this package, as a sentence; nothing for a foreign file."""
    said = [reader for mark, reader in _KINDS.items() if mark in content[:64] and mark != format.encode()]
    return f" {said[0]}" if said else ""


def _write(path: str | os.PathLike, tree: Any, format: str, name: str) -> Path:
    arrays: list[np.ndarray] = []
    encoded = _encode(tree, arrays, name)
    payload = io.BytesIO()
    for array in arrays:
        np.save(payload, array, allow_pickle=False)
    body = payload.getvalue()
    header = {
        "format": format,
        "version": VERSION,
        "written_by": {name: version(name) for name in ("dsrecon", "jax", "equinox", "numpy")},
        "bytes": len(body),
        "sha256": _checksum(encoded, body),
        "tree": encoded,
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(json.dumps(header).encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(Path(path).parent)
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Put the rename itself on the disk, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _writer(header: dict[str, Any]) -> str:
    by = header.get("written_by")
    return str(by.get("dsrecon", "?")) if isinstance(by, dict) else "?"


def _checksum(tree: Any, body: bytes) -> str:
    return hashlib.sha256(json.dumps(tree).encode() + body).hexdigest()


def _encode(value: Any, arrays: list[np.ndarray], where: str) -> Any:
    if isinstance(value, eqx.Module):
        names = [f.name for f in dataclasses.fields(value)]
        return {"module": _name(type(value), where), "fields": _encode_fields(value, names, arrays, where)}
    if isinstance(value, np.ndarray | jax.Array):
        return _encode_array(value, arrays, where)
    if isinstance(value, _PLAIN):
        return {"value": value}
    if (names := _field_names(type(value))) is not None:
        return {"namedtuple": _name(type(value), where), "fields": _encode_fields(value, names, arrays, where)}
    if isinstance(value, list | tuple):
        items = [_encode(v, arrays, f"{where}[{i}]") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _encode(v, arrays, f"{where}[{k!r}]") for k, v in value.items()}}
    raise ValueError(f"{where} cannot be written to a model file: it is a {type(value).__name__}.")


def _encode_fields(value: Any, names: Any, arrays: list[np.ndarray], where: str) -> dict[str, Any]:
    return {name: _encode(getattr(value, name), arrays, f"{where}.{name}") for name in names}


def _encode_array(value: np.ndarray | jax.Array, arrays: list[np.ndarray], where: str) -> dict[str, Any]:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays.append(np.asarray(jax.random.key_data(value)))
        return {"key": str(jax.random.key_impl(value))}
    array = np.asarray(value)
    if array.dtype == object:
        items = array.ravel().tolist()
        for i, item in enumerate(items):
            if not isinstance(item, _PLAIN):
                raise ValueError(
                    f"{where} cannot be written to a model file: its element {i} is a {type(item).__name__}."
                )
        return {"objects": items, "shape": list(array.shape)}
    node = {"array": "numpy" if isinstance(value, np.ndarray) else "jax"}
    if array.dtype.isbuiltin == 2:  # bfloat16 and its like, which the .npy format does not know
        node["dtype"] = array.dtype.name
        array = array.view(f"u{array.dtype.itemsize}")
    arrays.append(array)
    return node


def _decode(node: dict[str, Any], stream: io.BytesIO, path: str) -> Any:
    if "module" in node:
        cls = _find(node["module"], path, eqx.Module)
        names = [f.name for f in dataclasses.fields(cls)]
        module = object.__new__(cls)
        for name, value in _decode_fields(node, cls, names, stream, path).items():
            object.__setattr__(module, name, value)
        return module
    if "namedtuple" in node:
        cls = _find(node["namedtuple"], path, tuple)
        names = _field_names(cls) or ()
        fields = _decode_fields(node, cls, names, stream, path)
        return tuple.__new__(cls, [fields[name] for name in names])
    if "array" in node:
        return _decode_array(node, stream, path)
    if "key" in node:
        return jax.random.wrap_key_data(jnp.asarray(np.load(stream, allow_pickle=False)), impl=node["key"])
    if "objects" in node:
        array = np.empty(len(node["objects"]), object)
        array[:] = node["objects"]
        return array.reshape(node["shape"])
    if "value" in node:
        return node["value"]
    if "dict" in node:
        return {k: _decode(v, stream, path) for k, v in node["dict"].items()}
    if "tuple" in node:
        return tuple(_decode(v, stream, path) for v in node["tuple"])
    return [_decode(v, stream, path) for v in node["list"]]


def _decode_fields(node: dict[str, Any], cls: type, names: Any, stream: io.BytesIO, path: str) -> dict[str, Any]:
    later = {f.name: f.default for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    absent = {name for name in names if name not in node["fields"]}
    since = {name: later[name] for name in absent if later.get(name, dataclasses.MISSING) is None}
    if set(names) - set(since) != set(node["fields"]):
        raise ValueError(
            f"{path} holds a {cls.__name__} with fields {sorted(node['fields'])}: this dsrecon's has {sorted(names)}."
        )
    return {**since, **{name: _decode(value, stream, path) for name, value in node["fields"].items()}}


def _decode_array(node: dict[str, Any], stream: io.BytesIO, path: str) -> Any:
    array = np.load(stream, allow_pickle=False)
    if "dtype" in node:
        array = array.view(np.dtype(node["dtype"]))
    if node["array"] == "numpy":
        return array
    if array.dtype != jax.dtypes.canonicalize_dtype(array.dtype):
        raise ValueError(
            f"{path} holds {array.dtype} arrays: enable them with jax.config.update('jax_enable_x64', True)."
        )
    return jnp.asarray(array)


def _name(cls: type, where: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise ValueError(
            f"{where} cannot be written to a model file: its class {cls.__qualname__} is defined inside a "
            "function: no reader could find it. Define it at the top level of a module."
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def _field_names(cls: type) -> tuple[str, ...] | None:
    """Of a class of named tuples; `None` of any other."""
    return getattr(cls, "_fields", None) if issubclass(cls, tuple) else None


def _find(name: str, path: str, kind: type) -> type:
    """The imported class of this name. It is never called: only filled with the values of the file."""
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
    whole = isinstance(found, type) and issubclass(found, kind)
    if not whole or (kind is tuple and _field_names(found) is None):
        raise ValueError(f"{path} needs the class {qualname} of {module}: import that module first.")
    return found
