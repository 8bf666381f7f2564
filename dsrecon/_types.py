"""Shape aliases, named once: `t` time, `m` state, `n` channel, `p` piecewise-linear unit, `k` input."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree, Shaped

State = Inexact[Array, "m"]
"""Latent state `z` of one cell."""

States = Inexact[Array, "t m"]
"""Latent states of one run, one row a step."""

Matrix = Inexact[Array, "m m"]
"""A Jacobian or affine map of the state."""

Jacobian = Inexact[Array, "m"] | Inexact[Array, "m m"] | Inexact[Array, "c c k"]
"""`df/dz` of a cell, its structure told by its axes: diagonal `[m]`, dense `[m, m]`, or blocks `[c, c, k]`, `m = c k`.

Blocks are component-major: with `z.reshape(c, k)`, entry `[i, j, l]` is the derivative of entry `[i, l]` of
`f.reshape(c, k)` by entry `[j, l]` of `z.reshape(c, k)`; all other derivatives are zero.
"""

Observation = Float[Array, "n"]
"""What is observed at one step."""

Observations = Float[Array, "t n"]
"""An observed stretch."""

Region = Bool[Array, "p"]
"""The gates that are open: one bit a piecewise-linear unit."""

Scalar = Shaped[Array, ""]
"""One number, whatever its type."""

Key = PRNGKeyArray
"""A JAX random key."""

Keys = Shaped[Array, "..."]
"""One key, or an array of keys `[r]`, one a run; also in the old form with a last axis of words."""

Inputs = PyTree[Any, "S"] | None
"""External input of one step, or of every step (leading axis `t`)."""

Step = Callable[[Any, Any], Any]
"""A map `(z, s) -> z'`: what every cell is."""

Devices = Sequence[Any]
"""Devices of JAX, as `jax.local_devices()` gives them."""
