"""Checks of arguments that many functions share."""

import operator
from typing import Any


def whole(name: str, value: Any) -> int:
    """An argument that counts. **Raises** `ValueError` where it is no whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number: got {value!r}.") from None
