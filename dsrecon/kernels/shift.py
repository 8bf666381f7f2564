"""The neighbours in time of all steps at once, in a form that stays on its device when time is spread over several."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Shaped


def shifted(x: Shaped[Array, "*b t m"], edge: Shaped[Array, "*b m"], *, later: bool = False) -> Shaped[Array, "*b t m"]:
    """Of every step the value one step earlier (or `later`), with `edge` `[*b, m]` beyond the end.

    The same as `concatenate([edge, x[:-1]])`. XLA gathers the whole of a concatenation on every device when time is
    spread over several; a padding, as here, sends one step from each device to the next.
    """
    axis = x.ndim - 2
    moved = _padded(x, axis, later)
    steps = jnp.arange(x.shape[axis])[:, None]
    return jnp.where(steps == (x.shape[axis] - 1 if later else 0), jnp.expand_dims(edge, axis), moved)


def shifted_marks(x: Shaped[Array, "t"], *, later: bool = False) -> Shaped[Array, "t"]:
    """The same of one number or mark a step, with 0 (`False`) beyond the end."""
    return _padded(x, 0, later)


def preceding(z0: Inexact[Array, "*b m"], zs: Inexact[Array, "*b t m"]) -> Inexact[Array, "*b t m"]:
    """The state before every step of a run from `z0`."""
    return shifted(zs, z0)


def _padded(x: Array, axis: int, later: bool) -> Array:
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (-1, 1, 0) if later else (1, -1, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), widths)
