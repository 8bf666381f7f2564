"""The continuous face of a layer: its differential equation, solved at any times at all."""

from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from dsrecon.layer import AbstractContinuousLayer, sequence, steps_between

if TYPE_CHECKING:
    import diffrax

Given = Shaped[Array | np.ndarray, "..."]
"""An array whose shape and type are checked with a message of its own."""


def respond(
    layer: AbstractContinuousLayer,
    times: Given,
    u: Given,
    at: Given | None = None,
    *,
    hold: Literal["held", "linear"] = "held",
    first: float | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    solver: "diffrax.AbstractSolver | None" = None,
    max_steps: int = 1 << 20,
) -> Float[Array, "a d"]:
    """What a layer answers to an input sampled at any times, at any times, by solving its differential equation.

        x' = layer.flow(x, u(t)),   x(t_0) = 0,   y(t) = layer.output(x(t), u(t))

    No step of the layer's own comes in: this is what its discretisations approach. With the input held and zero-order
    hold the layer gives the same at the samples, `layer(u, steps_between(times))`.

    **Arguments:**

    - `layer`; `times` `[t]`, increasing, in steps of the layer (samples `d` apart it was trained at: times over `d`).
    - `u` `[t, d]`: the input at these times. `hold`: between them, `"held"`: `u[i]` acts from `times[i - 1]` to
      `times[i]`, as in the layer's other faces; or `"linear"`.
    - `at` `[a]`: where the answer is wanted, increasing, within the times (`times` themselves by default).
    - `first`: how long before the first sample the state is zero (default: the median step).
    - `rtol`, `atol`, `solver` (`diffrax.Dopri8()`; an implicit one for stiff layers), `max_steps`: of diffrax.

    **Returns:** `y` `[a, d]`.

    **Raises:** `ValueError` for times that do not increase, an input of another length or type, `at` out of range;
    `RuntimeError` of diffrax where the steps do not suffice.
    """
    u = sequence(u, layer.width)
    if hold not in ("held", "linear"):
        raise ValueError(f'hold must be "held" or "linear": got {hold!r}.')
    if len(u) != len(times):
        raise ValueError(f"u must have a row for each of the {len(times)} times: got {len(u)}.")
    steps = steps_between(np.asarray(times), first)
    ends = np.asarray(times, float)
    asked = ends if at is None else np.asarray(at, float)
    if asked.ndim != 1 or not len(asked) or not np.isfinite(asked).all() or (np.diff(asked) <= 0).any():
        raise ValueError(f"at must be [a], increasing and finite: got shape {list(asked.shape)}.")
    begin = ends[0] - steps[0]
    if asked[0] < begin or asked[-1] > ends[-1]:
        raise ValueError(f"at must lie between {begin:g} and {ends[-1]:g}: got {asked[0]:g} to {asked[-1]:g}.")
    if not isinstance(u, Tracer) and not jnp.isfinite(u).all():
        raise ValueError("u must be finite.")
    if solver is None:
        import diffrax  # here, as it is slow to import

        solver = diffrax.Dopri8()
    knots = jnp.asarray(np.concatenate([[begin], ends]), u.dtype)
    return _solved(layer, knots, u, jnp.asarray(asked, u.dtype), hold == "held", rtol, atol, solver, max_steps)


@eqx.filter_jit
def _solved(layer, knots, u, at, held: bool, rtol, atol, solver, max_steps: int) -> Array:
    """Interval by interval, so that no step runs over a jump of the input."""
    import diffrax

    last = len(u) - 1

    def given(t, i):
        if held:
            return u[i]
        share = (t - knots[i]) / (knots[i + 1] - knots[i])
        before = u[jnp.maximum(i - 1, 0)]
        return before + share * (u[i] - before)

    term = diffrax.ODETerm(lambda t, x, i: layer.flow(x, given(t, i)))
    control = diffrax.PIDController(rtol=rtol, atol=atol)

    def solve(x, i, begin, end):
        found: Any = diffrax.diffeqsolve(
            term, solver, begin, end, None, x, args=i, stepsize_controller=control, max_steps=max_steps
        ).ys
        return found[0]

    def interval(x, i):
        return solve(x, i, knots[i], knots[i + 1]), x

    zero = jnp.zeros(layer.state_size, u.dtype)
    end, starts = jax.lax.scan(interval, zero, jnp.arange(len(u)))
    starts = jnp.concatenate([starts, end[None]])

    def answer(t):
        i = jnp.clip(jnp.searchsorted(knots, t, side="left") - 1, 0, last)
        return layer.output(solve(starts[i], i, knots[i], t), given(t, i))

    return jax.lax.map(answer, at)
