"""A fitted model as plain arrays (`.npz`) and their description (`.json`), for programs without Python or JAX."""

import hashlib
import io
import json
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsrecon._files import replacing, write_whole
from dsrecon.cell import AbstractCell
from dsrecon.export.describe import cell_of, described, input_size, text_of
from dsrecon.export.forms import CELLS, READOUTS, Form, arrays_of, form_of
from dsrecon.reconstruction import Reconstruction

FORMAT = "dsrecon-arrays"
VERSION = 1
_FORMS = {"cell": CELLS, "readout": READOUTS}
_SCALES = {
    "scaler.mean": (["n"], "mean of each coordinate, in the units of the data"),
    "scaler.std": (["n"], "standard deviation of each coordinate, in the units of the data"),
    "anchor": (["n"], "observation to start from, in the units of the data"),
    "input_scaler.mean": (["k"], "mean of each input, in its own units"),
    "input_scaler.std": (["k"], "standard deviation of each input, in its own units"),
}


class ArrayFiles(NamedTuple):
    """The two files of one export: the arrays, and what they mean."""

    npz: Path
    json: Path


def export_arrays(model: Reconstruction | AbstractCell, path: str | os.PathLike) -> ArrayFiles:
    """Write a model as `<name>.npz` and `<name>.json`: both, or neither.

    The arrays are plain (no pickles, C order, in the precision of the model) and the description says in words what
    each is: see docs/export.md, which also has a program of NumPy alone that runs a model from these files.

    **Arguments:**

    - `model`: a `Reconstruction`, or a bare cell (its observations are then its states), of the classes of
      `dsrecon.models` and `dsrecon.readout`.
    - `path`: `<folder>/<name>`, with or without one of the two endings; a folder: `model` in it.

    **Returns:** the two paths. What an earlier export left there is replaced; other files of these names are not.

    **Raises:** `ValueError` for a class without a form as arrays, an ensemble, arrays that are not finite, and where a
    file that is no such export is in the way; `OSError` that names the path when it cannot be written.
    """
    arrays, axes = _arrays(model)
    files = _files(path)
    _refuse_strangers(files)
    content = _npz(arrays)
    document = {
        "format": FORMAT,
        "version": VERSION,
        **described(model),
        "arrays": {
            name: {"shape": list(a.shape), "axes": axes[name][0], "dtype": str(a.dtype), "meaning": axes[name][1]}
            for name, a in arrays.items()
        },
        "file": files.npz.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = text_of(document) + "\n"
    with _restored(files.json), replacing(files.npz) as npz, replacing(files.json) as description:
        npz.write_bytes(content)
        description.write_text(text, encoding="utf-8")
    return files


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `export_arrays` wrote: `(description, arrays)`. Nothing in the files is run.

    **Arguments:** `path`: as for `export_arrays`.

    **Raises:** `ValueError` that names the file for one that is foreign, damaged, cut short, of a later version, or
    arrays and a description that do not belong together; `OSError` where one of the two is missing.
    """
    files = _files(path)
    document = _document(files.json)
    if document is None:
        raise ValueError(f"{files.json} is not a {FORMAT} description.")
    written = document.get("version")
    if not isinstance(written, int) or not isinstance(document.get("arrays"), dict):
        raise ValueError(f"{files.json} is damaged: it lacks a version or the list of arrays.")
    if written > VERSION:
        raise ValueError(
            f"{files.json} has version {written} of the {FORMAT} format, written by {document.get('written_by')}: this "
            f"dsrecon reads up to {VERSION}. Upgrade dsrecon."
        )
    content = files.npz.read_bytes()
    if hashlib.sha256(content).hexdigest() != document.get("sha256"):
        raise ValueError(
            f"{files.npz} is damaged or belongs to another export: it does not have the checksum in {files.json.name}."
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{files.npz} is not a file of plain arrays: {error}") from error
    listed = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in document["arrays"].items()}
    if listed != {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}:
        raise ValueError(f"{files.npz} does not hold the arrays that {files.json.name} lists.")
    return document, arrays


def _arrays(model: Any) -> tuple[dict[str, np.ndarray], dict[str, tuple[list[str], str]]]:
    """Every array by name; and its axes and meaning."""
    cell = cell_of(model)
    sizes = {"m": cell.state_size}
    if k := input_size(model):
        sizes["k"] = k
    modules: dict[str, Any] = {"cell": cell}
    if isinstance(model, Reconstruction):
        modules["readout"] = model.readout
        sizes |= {"n": model.readout.observed_size, "u": cell.state_size - model.readout.observed_size}
    arrays, meanings = {}, {}
    for prefix, module in modules.items():
        form: Form = form_of(module, _FORMS[prefix], prefix)
        arrays |= arrays_of(module, form, prefix, sizes)
        meanings |= {f"{prefix}.{name}": (part.axes.split(), part.meaning) for name, part in form.parts.items()}
    if isinstance(model, Reconstruction):
        scales = {"scaler.mean": model.scaler.mean, "scaler.std": model.scaler.std, "anchor": model.anchor}
        if model.input_scaler is not None:
            scales |= {"input_scaler.mean": model.input_scaler.mean, "input_scaler.std": model.input_scaler.std}
        arrays |= {name: np.ascontiguousarray(value, np.float64) for name, value in scales.items()}
    return arrays, meanings | _SCALES


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """The arrays as `np.savez` writes them, the same bytes for the same arrays."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return content.getvalue()


def _files(path: str | os.PathLike) -> ArrayFiles:
    path = Path(path)
    stem = path / "model" if path.is_dir() else path.with_suffix("") if path.suffix in (".npz", ".json") else path
    return ArrayFiles(stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.json"))


def _document(path: Path) -> dict[str, Any] | None:
    """The description in a file, or `None` where it holds none."""
    try:
        document = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None


def _refuse_strangers(files: ArrayFiles) -> None:
    """Raise `ValueError` unless what stands at the two paths is nothing, or an earlier export."""
    if files.json.is_file():
        if _document(files.json) is None:
            raise ValueError(f"{files.json} is in the way: it is not a {FORMAT} description. Choose another name.")
    elif files.npz.is_file():
        raise ValueError(f"{files.npz} is in the way: there is no {files.json.name} beside it. Choose another name.")


@contextmanager
def _restored(path: Path):
    """Put a file back as it was (or is not) when what follows fails."""
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if before is not None and path.read_bytes() != before:
            write_whole(path, before)
        elif before is None and path.is_file():
            path.unlink()
        raise
