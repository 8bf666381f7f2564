"""Tables and attributes as JSON documents: exact to the bit, and read back without running anything."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import xarray as xr

_NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")
_DATES = "datetime64[ns]"
_INFINITE = {"inf": np.inf, "-inf": -np.inf}


def dumped(document: dict[str, Any], deep: int = 2) -> bytes:
    """A document as JSON text in ASCII, one line for each entry down to the given depth."""
    return (_lines(document, deep) + "\n").encode()


def _lines(value: Any, deep: int) -> str:
    if not deep or not value or not isinstance(value, dict | list):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, list):
        return "[\n" + ",\n".join(_lines(item, deep - 1) for item in value) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(item, deep - 1)}" for key, item in value.items()) + "\n}"


def parsed(text: str | bytes, path: str | os.PathLike, form: str, version: int) -> dict[str, Any]:
    """The document of a format that a text holds; **raises** `ValueError` naming `path` for any other text."""
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON, or was cut off: {error}.") from error
    found = document.get("format") if isinstance(document, dict) else type(document).__name__
    if found != form:
        raise ValueError(f"{path} must be of the format {form!r}: got {found!r}.")
    written = document.get("version")
    if type(written) is not int or not 1 <= written <= version:
        raise ValueError(f"{path} is version {written!r} of its format: this dsrecon reads up to {version}.")
    return document


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON")


@contextmanager
def damage_named(path: str | os.PathLike) -> Iterator[None]:
    """What a document lacks, or holds where something else is due, as a `ValueError` that names the file."""
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged: {error}") from error


def plain(value: Any, name: str) -> bool | int | float | str:
    """An attribute as a plain scalar (NumPy's become Python's); **raises** `ValueError` for anything else."""
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) not in (bool, int, float, str):
        raise ValueError(f"attribute {name!r} must be a string, a number or a truth value: got {value!r}.")
    return value


def packed(attributes: dict[Any, Any]) -> dict[str, Any]:
    """Attributes for JSON, which knows no NaN and no infinity: `null`, and `{"float": "inf"}` or `"-inf"`."""
    out = {}
    for name, value in attributes.items():
        value = plain(value, str(name))
        if isinstance(value, float) and not np.isfinite(value):
            value = None if np.isnan(value) else {"float": str(value)}
        out[str(name)] = value
    return out


def unpacked(attributes: dict[str, Any]) -> dict[str, Any]:
    """What `packed` packed."""
    out = {}
    for name, value in attributes.items():
        if value is None:
            value = float("nan")
        elif isinstance(value, dict):
            value = _INFINITE[value["float"]]
        out[name] = plain(value, name)
    return out


def column(variable: xr.Variable, *, values: bool = True) -> dict[str, Any]:
    """A variable for JSON: dimensions, shape, type, attributes, and its values as nested lists unless left out.

    Types are "bool", "int64", "float32", "float64" and so on, "string" and "datetime64[ns]" (ISO 8601). Floats are
    written so that they come back bit for bit; NaN and a missing date are `null`, infinity is "inf" or "-inf".
    """
    array = np.asarray(variable.values)
    if array.dtype.kind == "M":
        kind, text = _DATES, np.datetime_as_string(array.astype(_DATES)).astype(object)
        found = np.where(np.isnat(array), None, text)  # pyright: ignore[reportCallIssue, reportArgumentType]
    elif array.dtype.kind in "UOT" and all(isinstance(x, str) for x in array.reshape(-1).tolist()):
        kind, found = "string", array
    elif array.dtype.name in _NUMBERS:
        kind, found = array.dtype.name, array
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            found = array.astype(object)
            found[np.isnan(array)] = None
            for name, value in _INFINITE.items():
                found[array == value] = name
    else:
        raise ValueError(f"values must be numbers, strings or dates: got {array.dtype}.")
    head = {"dims": list(variable.dims), "shape": list(array.shape), "type": kind, "attributes": packed(variable.attrs)}
    return head | ({"values": found.tolist()} if values else {})


def variable(content: dict[str, Any]) -> xr.Variable:
    """What `column` made; **raises** `ValueError` (or `KeyError`, `TypeError`) for values of another type or shape."""
    shape, dims = tuple(content["shape"]), content["dims"]
    found = np.array(content["values"], object)
    if found.size != int(np.prod(shape)) or (found.size and found.shape != shape):
        raise ValueError(f"values must have shape {shape}: got {found.shape}.")
    array = typed(found.reshape(-1).tolist(), content["type"]).reshape(shape)
    return xr.Variable(dims, array, unpacked(content["attributes"]))


def typed(values: list[Any], kind: str) -> np.ndarray:
    """Values `[n]` as JSON holds them, as an array of a type of `column`."""
    if kind == "string":
        return np.array(_only(values, kind, str), np.str_)
    if kind == _DATES:
        return np.array(["NaT" if v is None else v for v in _only(values, kind, str, type(None))], _DATES)
    if kind not in _NUMBERS:
        raise ValueError(f"type must be one of {(*_NUMBERS, 'string', _DATES)}: got {kind!r}.")
    if kind == "bool":
        return np.array(_only(values, kind, bool), bool)
    if "int" in kind:
        array = np.array(_only(values, kind, int), object).astype(kind)
        if array.tolist() != values:
            raise ValueError(f"values must fit into {kind}: they do not.")
        return array
    words = {None: np.nan, **_INFINITE}
    plain = [v if type(v) is float else words[v] for v in _only(values, kind, float, str, type(None))]
    return np.array(plain, np.float64).astype(kind)


def _only(values: list[Any], kind: str, *types: type) -> list[Any]:
    others = set(map(type, values)) - set(types)
    if others:
        raise ValueError(f"values of type {kind} must not hold {sorted(t.__name__ for t in others)}.")
    return values
