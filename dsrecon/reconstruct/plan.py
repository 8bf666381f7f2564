"""What was chosen for a fit, and why."""

import json
from typing import Any, NamedTuple

import numpy as np


class Plan(NamedTuple):
    """A choice and why it was made, by name."""

    values: dict[str, Any]
    reasons: dict[str, str]

    def choose(self, name: str, given: Any, default: Any, reason: str) -> Any:
        """Note the value that holds: the given one, or the default with its reason."""
        self.values[name] = default if given is None else given
        self.reasons[name] = reason if given is None else "given"
        return self.values[name]

    def settings(self) -> dict[str, dict[str, Any]]:
        """Name to `{"value", "reason"}`."""
        return {name: {"value": plain(self.values[name]), "reason": self.reasons[name]} for name in self.values}

    def identity(self, **facts: str) -> str:
        """The choices, and `facts`, as one line of JSON: what two fits of one configuration have in common."""
        return json.dumps(plain({**self.values, **facts}), sort_keys=True)


def plain(value: Any) -> Any:
    """The same with NumPy's scalars and arrays as Python's, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return value.item() if isinstance(value, np.generic) else value
