"""Running a nonlinear recurrence step by step, with the adjoint written once for every map."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._types import Inputs, Step
from dsrecon.kernels import members
from dsrecon.kernels.contraction import Within, contract
from dsrecon.kernels.costates import costates, unit_jacobian
from dsrecon.kernels.platform import nvidia
from dsrecon.kernels.program import settled
from dsrecon.kernels.shift import preceding

ENGINES = ("auto", "loop", "fused", "interpreted")


def recurrence(
    step: Step,
    z0: Inexact[Array, "*b m"],
    inputs: Inputs = None,
    *,
    steps: int | None = None,
    adjoint: str = "deferred",
    unroll: int = 1,
    engine: str = "auto",
    units: int | None = None,
    batch_first: bool = False,
) -> Inexact[Array, "..."]:
    """States of `z_t = step(z_{t-1}, inputs_t)`, of one run or of a batch of them.

    **Arguments:**

    - `step`: a map `(z, s) -> z'` of one state; a PyTree whose array leaves are its parameters (every cell is one).
    - `z0`: state before the first step, `[m]`, or `[b, m]` for a batch.
    - `inputs`: PyTree of arrays `[t, ...]` (`[t, b, ...]` for a batch), or `None`; then `steps` says how many.
    - `adjoint`: `"deferred"` (reverse mode only) or `"direct"` (JAX's own rules: forward mode and higher orders).
    - `unroll`: steps in one turn of the compiled loop.
    - `engine`: `"loop"` (the compiled loop), `"fused"` (the whole loop in one kernel, on an NVIDIA GPU),
      `"interpreted"` (that kernel on any platform, slow: for tests), `"auto"` (`"fused"` where it serves, else
      `"loop"`). The kernel takes deferred adjoints, and small states (`accelerated.loop` has the sizes) whose step is
      made of matrix products and functions of single numbers; or steps of any size whose units do not meet.
    - `batch_first`: inputs of a batch are `[b, t, ...]`, and so are the states; the loop turns them, the kernel need
      not.
    - `units`: of a step whose units do not meet but in the input, their number; `None` for any other.

    **Returns:** `[t, m]` or `[t, b, m]` (`[b, t, m]`); `z0` is not in it.

    **Raises:** `ValueError` for unknown names, and for `"fused"` where the kernel cannot serve; it says why.

    The deferred adjoint runs the reverse recurrence `l_{t-1} = J_t' l_t + dL/dz_{t-1}` alone, keeping nothing but
    the states, and contracts `l` with the derivatives by parameters and inputs in one go afterwards, over time and
    batch at once: what is a rank-one update of every parameter at every step in the usual adjoint is one matrix
    product. That is why a batch is better given here than made with `jax.vmap`, which keeps a product a member.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}: got {engine!r}.")
    if adjoint not in ("deferred", "direct"):
        raise ValueError(f'adjoint must be "deferred" or "direct": got {adjoint!r}.')
    if adjoint == "direct" and engine in ("fused", "interpreted"):
        raise ValueError(f'engine={engine!r} has a hand-written adjoint alone: adjoint must be "deferred".')
    turned = z0.ndim == 2 and batch_first
    if adjoint == "deferred" and serves(step, z0, inputs, engine=engine, units=units):
        count = jax.tree.leaves(inputs)[0].shape[1 if turned else 0] if steps is None else steps
        first = inputs if turned else _turned(inputs) if z0.ndim == 2 else _expanded(inputs)
        rows = z0 if z0.ndim == 2 else z0[None]
        zs = _kernel((step, rows, first), count, engine == "interpreted", units)
        return zs if turned else jnp.moveaxis(zs, 0, 1) if z0.ndim == 2 else zs[0]
    given = _turned(inputs) if turned else inputs
    if adjoint == "direct":
        zs = _forward(jax.vmap(step) if z0.ndim == 2 else step, z0, given, steps, unroll)
    else:
        zs = _recurrence((step, z0, given), steps, unroll)
    return jnp.moveaxis(zs, 0, 1) if turned else zs


def _turned(inputs: Any) -> Any:
    """The first two axes of all leaves the other way round."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), inputs)


def _expanded(inputs: Any) -> Any:
    """Leaves `[t, ...]` as those of a batch of one."""
    return jax.tree.map(lambda x: x[None], inputs)


@eqx.filter_custom_vjp
def _kernel(primals: Any, steps: int, interpret: bool, units: int | None) -> Array:
    """The recurrence of a batch in one kernel: `[b, t, m]`."""
    from dsrecon.kernels.accelerated.loop import forward

    step, z0, inputs = primals
    return forward(step, z0, inputs, steps, units=units, interpret=interpret)


@_kernel.def_fwd
def _kernel_fwd(perturbed: Any, primals: Any, steps: int, interpret: bool, units: int | None):
    zs = _kernel(primals, steps, interpret, units)
    return zs, zs


@_kernel.def_bwd
def _kernel_bwd(zs: Array, zs_bar: Array, perturbed: Any, primals: Any, steps: int, interpret: bool, units: int | None):
    step, z0, inputs = primals
    if units is not None and pulls(step, z0, inputs, units, rows=len(zs)):
        from dsrecon.kernels.accelerated.pull import pull, through

        z0_bar, told = pull(step, z0, zs, inputs, zs_bar, None, units=units, interpret=interpret)
        step_bar, inputs_bar = through(step, z0, inputs, told, units=units)
        return step_bar, z0_bar, inputs_bar
    before, engine = preceding(z0, zs), "interpreted" if interpret else "auto"
    ls, z0_bar = costates_of_kernel(step, before, inputs, zs_bar, units=units, engine=engine)
    step_bar, inputs_bar = contract(step, before, inputs, ls, engine=engine)
    return step_bar, z0_bar, inputs_bar


def costates_of_kernel(
    step: Step, before: Array, inputs: Any, zs_bar: Array, *, units: int | None, engine: str
) -> tuple[Array, Array]:
    """Costates `[b, t, m]`, and the gradient by the state before the first step."""
    if units is None:
        from dsrecon.kernels.accelerated.loop import backward

        return backward(step, before, inputs, zs_bar, interpret=engine == "interpreted")
    J = jax.vmap(jax.vmap(lambda z, s: unit_jacobian(step, z, s, units)))(before, inputs)
    return jax.vmap(lambda J, g: costates(J, g, engine=engine))(J, zs_bar)


def pulls(step: Step, z0: Array, inputs: Inputs, units: int, *, rows: int) -> bool:
    """Whether the whole reverse pass of `rows` sequences of units that do not meet is one kernel."""
    from dsrecon.kernels.accelerated.pull import Unfused, check, wide

    if not wide(rows, units):
        return False
    try:
        check(step, z0, inputs, units)
    except Unfused:
        return False
    return True


def fuses(engine: str) -> bool:
    """Whether the kernel is thought of at all: on a CPU, under `"auto"`, it is not."""
    return engine in ("fused", "interpreted") or (engine == "auto" and nvidia())


def serves(step: Step, z0: Array, inputs: Inputs, *, engine: str, units: int | None) -> bool:
    """Whether the loop is run as one kernel. **Raises** `ValueError` where that is asked for by name and cannot be."""
    if not fuses(engine):
        return False
    if engine == "fused" and not nvidia():
        raise ValueError(
            f'engine="fused" needs an NVIDIA GPU: JAX runs on {jax.default_backend()}. "auto" takes what there is.'
        )
    from dsrecon.kernels.accelerated.loop import Unfused, check

    try:
        check(step, z0, inputs, units)
    except Unfused as error:
        if engine == "auto":
            return False
        raise ValueError(f"engine={engine!r} cannot serve: {error}") from error
    return True


def _of_batch(step: Step, z0: Array, inputs: Inputs) -> Step:
    """`step` of all members of a batch, or of the one run that there is."""
    if jax.default_backend() != "cpu":
        alone = settled(step, *members.one(z0, inputs))
        return alone if z0.ndim == 1 else jax.vmap(alone)
    return step if z0.ndim == 1 else members.of_members(step, *members.one(z0, inputs), axis=0)


def _forward(advance: Step, z0: Array, inputs: Inputs, steps: int | None, unroll: int) -> Array:
    def body(z, s):
        z = advance(z, s)
        return z, z

    return jax.lax.scan(body, z0, inputs, length=steps, unroll=unroll)[1]


def _in_place(
    advance: Step, z0: Array, inputs: Inputs, steps: int | None, unroll: int, *, with_first: bool = False
) -> Array:
    """As `_forward`, and, `with_first`, `z0` before all: states, and those before each step, are then views of one
    array. Under `jax.vmap` both have their new axis in one place, as JAX wants it of a function and its forward pass.
    Not for JAX's own rules, which would keep the whole array of every step.
    """
    count, ahead = jax.tree.leaves(inputs)[0].shape[0] if steps is None else steps, int(with_first)
    zs = jnp.zeros((count, *z0.shape), z0.dtype)
    zs = jnp.concatenate([z0[None], zs]) if with_first else zs

    def turn(t, carry):
        z, zs = carry
        z = advance(z, jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, t, keepdims=False), inputs))
        return z, jax.lax.dynamic_update_index_in_dim(zs, z, t + ahead, 0)

    return jax.lax.fori_loop(0, count, turn, (z0, zs), unroll=unroll)[1]


@eqx.filter_custom_vjp
def _recurrence(primals: Any, steps: int | None, unroll: int) -> Array:
    step, z0, inputs = primals
    if members.lie_side_by_side(step, z0, unroll):
        return members.forward(stages(step), z0, inputs, steps)
    return _in_place(_of_batch(step, z0, inputs), z0, inputs, steps, unroll)


@_recurrence.def_fwd
def _recurrence_fwd(perturbed: Any, primals: Any, steps: int | None, unroll: int):
    step, z0, inputs = primals
    if members.lie_side_by_side(step, z0, unroll):
        zs = _recurrence(primals, steps, unroll)
        return zs, jnp.concatenate([z0[None], zs[:-1]])
    both = _in_place(_of_batch(step, z0, inputs), z0, inputs, steps, unroll, with_first=True)
    return both[1:], both[:-1]


@_recurrence.def_bwd
def _recurrence_bwd(before: Array, zs_bar: Array, perturbed: Any, primals: Any, steps: int | None, unroll: int):
    step, _, inputs = primals
    entered, arriving, z0_bar = costates_of_loop(step, before, inputs, zs_bar, unroll)
    within = tuple(map(Within, entered[1:], arriving[:-1]))
    step_bar, inputs_bar = contract(step, before, inputs, arriving[-1], within=within)
    return step_bar, z0_bar, inputs_bar


def costates_of_loop(
    step: Step, before: Array, inputs: Inputs, zs_bar: Array, unroll: int = 1
) -> tuple[list, list, Array]:
    """What enters every map of a step, the gradients by what it gives, those of the last being costates, both
    `[t, *b, m]`, and the gradient by the state before the first step."""
    if members.lie_side_by_side(step, before[0], unroll):
        return members.backward(stages(step), before, inputs, zs_bar)
    return _backward(stages(step), before, inputs, zs_bar, unroll)


def _pull_of_batch(step: Step, z0: Array, inputs: Inputs) -> Callable[[Array, Array, Any], Array]:
    pull, now = members.pull_of(step), members.one(z0, inputs)
    if jax.default_backend() != "cpu":
        alone = settled(pull, now[0], *now)
        return alone if z0.ndim == 1 else jax.vmap(alone)
    return pull if z0.ndim == 1 else members.of_members(pull, now[0], *now, axis=0)


def _backward(
    maps: tuple[Step, ...], before: Array, inputs: Inputs, zs_bar: Array, unroll: int
) -> tuple[list, list, Array]:
    """What enters every map, the gradients by what it gives, those of the last being costates, and the gradient by the
    state before the first step."""
    pulls, entered = [_pull_of_batch(part, before[0], inputs) for part in maps], [before]
    for part in maps[:-1]:
        entered.append(jax.vmap(_of_batch(part, before[0], inputs))(entered[-1], inputs))

    def back(l, now):
        entered, s, earlier = now
        arriving = []
        for pull, z in zip(reversed(pulls), reversed(entered), strict=True):
            arriving.append(l)
            l = pull(l, z, s)
        return l + earlier, arriving  # the sum belongs to what the pull ends with: one pass over the numbers, not two

    earlier = jnp.concatenate([jnp.zeros_like(zs_bar[:1]), zs_bar[:-1]])
    z0_bar, arriving = jax.lax.scan(back, zs_bar[-1], (entered, inputs, earlier), reverse=True, unroll=unroll)
    return entered, arriving[::-1], z0_bar


@singledispatch
def stages(step: Step) -> tuple[Step, ...]:
    """Maps `(z, s) -> z'` whose composition, the first first, is `step`: by default the step itself.

    A map that is made of others registers them, `@stages.register(MyCell)`. Along a run whose states are known, what
    enters each of them is computed for all steps at once, and not again in the reverse loop.
    """
    return (step,)
