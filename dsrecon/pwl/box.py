"""A box of states: where something is looked for, or what a map does not leave."""

from typing import Any, NamedTuple

import numpy as np


class Box(NamedTuple):
    """All states `z` with `low <= z <= high`, unit by unit: `low` and `high` are `[m]`."""

    low: np.ndarray
    high: np.ndarray

    def holds(self, z: np.ndarray) -> np.ndarray:
        """Whether states `[..., m]` lie in it."""
        return np.asarray(((z >= self.low) & (z <= self.high)).all(-1))

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """As half-spaces `N z + n >= 0`: `[2 m, m]` and `[2 m]`."""
        unit = np.eye(len(self.low))
        return np.concatenate([unit, -unit]), np.concatenate([-self.low, self.high])


def box_around(states: Any, margin: float = 0.1) -> Box:
    """The smallest box around states `[n, m]`, made larger on every side by `margin` times its width.

    **Raises:** `ValueError` for states that are not `[n, m]`, finite, at least one; for a negative margin.
    """
    z = np.asarray(states, np.float64)
    if z.ndim != 2 or not z.size or not np.isfinite(z).all():
        raise ValueError(f"states must be finite, [n, m], at least one: got shape {list(z.shape)}.")
    if not (margin >= 0 and np.isfinite(margin)):
        raise ValueError(f"margin must be at least 0 and finite: got {margin}.")
    width = np.ptp(z, axis=0)
    width = np.where(width > 0, width, max(float(width.max()), 1.0) * 1e-3)
    return Box(z.min(0) - margin * width, z.max(0) + margin * width)


def checked_box(box: Any, size: int, needed: str = "") -> Box | None:
    """A box of `size` units, from a `Box` or a pair; `None` stays `None` unless it is `needed` (for what).

    **Raises:** `ValueError` for one that is unbounded, empty, or of another size.
    """
    if box is None:
        if needed:
            raise ValueError(f"box must be given {needed}: got None. `pwl.box_around(states)` makes one.")
        return None
    try:
        low, high = (np.asarray(side, np.float64) for side in box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"box must be a pair (low, high) of {size} numbers each: got {box!r}.") from error
    if low.shape != (size,) or high.shape != (size,):
        shapes = f"{list(low.shape)} and {list(high.shape)}"
        raise ValueError(f"box must be a pair (low, high) of {size} numbers each, one a unit: got shapes {shapes}.")
    bad = ~(np.isfinite(low) & np.isfinite(high))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"box must be bounded: unit {at} has ({low[at]}, {high[at]}).")
    if not (low < high).all():
        at = int(np.argmin(low < high))
        raise ValueError(f"box must have low below high: unit {at} has ({low[at]}, {high[at]}).")
    return Box(low, high)
