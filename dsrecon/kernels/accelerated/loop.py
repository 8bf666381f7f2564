"""A whole nonlinear recurrence in one kernel: parameters and state stay in registers, inputs stream by.

A program runs one sequence from its beginning to its end; many sequences (a batch, the runs of an ensemble, tiles of
units that do not meet) are many programs. What is done in the loop is what `plan` leaves inside of it.
"""

import functools
import math
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var
from jaxtyping import Array

from dsrecon.kernels.accelerated.plan import Machine, Plan, Unfused, aval, inside, plan, run

LARGEST = 64
"""Vectors of a small state are at most this long: matrices live in registers."""

TILE = 32
"""Units of a program, where units do not meet."""


def forward(
    step: Any, z0: Array, inputs: Any, steps: int, *, units: int | None = None, interpret: bool = False
) -> Array:
    """States `[b, t, m]` of `z_t = step(z_{t-1}, s_t)` from `z0` `[b, m]`, along `inputs` `[b, t, ...]`.

    **Raises:** `Unfused` for a step that the kernel cannot run.
    """
    free, fixed = eqx.partition(step, eqx.is_array)

    def once(free, z, s):
        z = eqx.combine(free, fixed)(z[0], s)
        return (z,), (z,)

    (zs,), _ = loop(once, free, (z0,), inputs, steps, units=units, interpret=interpret)
    return zs


def backward(
    step: Any, before: Array, inputs: Any, zs_bar: Array, *, units: int | None = None, interpret: bool = False
) -> tuple[Array, Array]:
    """`l_t = zs_bar_t + J_{t+1}' l_{t+1}` `[b, t, m]` along the states `before` each step, and what reaches the first.

    **Raises:** `Unfused` for a step that the kernel cannot run.
    """
    free, fixed = eqx.partition(step, eqx.is_array)

    def once(free, l, now):
        z, s, g = now
        l = l[0] + g
        _, pull = jax.vjp(lambda z: eqx.combine(free, fixed)(z, s), z)
        return pull(l), (l,)

    carry = (jnp.zeros_like(before[:, 0]),)
    given = (before, inputs, zs_bar)
    (ls,), (first,) = loop(once, free, carry, given, before.shape[1], units=units, reverse=True, interpret=interpret)
    return ls, first


def check(step: Any, z0: Array, inputs: Any, units: int | None) -> None:
    """**Raises** `Unfused` for a step that the kernel cannot run, forward or backward, before anything is compiled."""
    lead = z0.ndim - 1
    free, fixed = eqx.partition(step, eqx.is_array)
    z = jax.ShapeDtypeStruct(z0.shape[-1:], z0.dtype)
    now = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1 + lead :], x.dtype), inputs)

    def pulled(free, l, given):
        z, s = given
        return jax.vjp(lambda z: eqx.combine(free, fixed)(z, s), z)[1](l), ()

    def onwards(free, z, s):
        return eqx.combine(free, fixed)(z, s), ()

    if not jnp.issubdtype(z0.dtype, jnp.floating):
        raise Unfused(f"the state is {z0.dtype}: the loop kernel takes real numbers.")
    numbers = max((math.prod(x.shape) for x in jax.tree.leaves(inputs)), default=1)
    if numbers >= 2**31:
        raise Unfused(f"the inputs have {numbers} numbers: the loop kernel counts up to 2^31.")
    _check(plan(onwards, free, z, now, units=units), units)
    _check(plan(pulled, free, z, (z, now), units=units), units)


def loop(step, parameters, carry, inputs, steps: int, *, units=None, reverse=False, interpret=False):
    """`carry, told_t = step(parameters, carry, inputs_t)` of every sequence of a batch.

    **Arguments:** `carry`: leaves `[b, m]`; `inputs`: leaves `[b, t, ...]`. **Returns:** `told` `[b, t, m]` and the
    carry behind the last step.
    """
    lead = jax.tree.leaves(carry)[0].shape[0]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), carry)
    now = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), inputs)
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), parameters)
    made = plan(step, given, one, now, units=units)
    _check(made, units)

    known = dict(made.values) | dict(zip(made.parameters, jax.tree.leaves(parameters), strict=True))
    run(made.once, known)
    constants = [known[v] for v in made.constants]

    def ahead(leaves):
        there = known | dict(zip(made.inputs, leaves, strict=True))
        run(made.ahead, there)
        return [there[v] for v in made.streams]

    streams = jax.vmap(jax.vmap(ahead))(jax.tree.leaves(inputs)) if made.streams else []
    told, last = _call(made, constants, streams, jax.tree.leaves(carry), steps, lead, units, reverse, interpret)
    shape = jax.eval_shape(step, given, one, now)
    return jax.tree.unflatten(jax.tree.structure(shape[1]), told), jax.tree.unflatten(jax.tree.structure(carry), last)


def _check(made: Plan, units: int | None) -> None:
    for v in (*made.carried, *made.told, *made.carry, *made.streams):
        if v.aval.ndim > 1 or isinstance(v, Literal):
            raise Unfused(f"the recurrence carries {list(aval(v).shape)}: the loop kernel carries vectors that change.")
    for v in made.constants:
        if v.aval.ndim > (2 if units is None else 1):
            raise Unfused(f"the recurrence has parameters of shape {list(v.aval.shape)}: the loop kernel takes less.")
    longest = max((b - a for cuts in made.bounds.values() for a, b in pairwise(cuts)), default=1)
    if units is None and longest > LARGEST:
        raise Unfused(f"the recurrence has vectors of {longest}: the loop kernel takes up to {LARGEST}.")
    if units is None:
        held = sum(_power(v.aval.shape[0]) * _power(v.aval.shape[1]) for v in made.constants if v.aval.ndim == 2)
        if held > 4 * LARGEST**2:
            raise Unfused(f"the recurrence has matrices of {held} numbers: registers hold up to {4 * LARGEST**2}.")


def _power(x: int) -> int:
    return 1 << max(x - 1, 0).bit_length()


def _packed(constants: list[Array]) -> tuple[Array, list[int]]:
    """All constants as one row, and where each begins. Truth values become numbers."""
    dtype = jnp.float64 if any(x.dtype == jnp.float64 for x in constants) else jnp.float32
    flat = [x.astype(dtype).reshape(-1) for x in constants] or [jnp.zeros(1, dtype)]
    begins, at = [], 0
    for x in flat:
        begins.append(at)
        at += x.size
    return jnp.concatenate(flat), begins


def _call(made: Plan, constants, streams, carry, steps, lead, units, reverse, interpret):
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    packed, begins = _packed(constants)
    streams = [x.astype(jnp.int8) if x.dtype == jnp.bool_ else x for x in streams]
    tiles = 1 if units is None else -(-units // TILE)
    matrices = [math.prod(_power(n) for n in v.aval.shape) for v in made.constants if v.aval.ndim == 2]
    warps = 1 if units is not None or sum(matrices) <= 3072 else 4
    ahead = _turns(made, units)
    outs = [jax.ShapeDtypeStruct((lead, steps, *v.aval.shape), v.aval.dtype) for v in made.told]
    outs += [jax.ShapeDtypeStruct((lead, *v.aval.shape), v.aval.dtype) for v in made.carried]
    kernel = functools.partial(
        _kernel, made=made, begins=begins, steps=steps, lead=lead, units=units, reverse=reverse, ahead=ahead
    )
    found = pl.pallas_call(
        kernel,
        grid=(tiles * lead,),
        out_shape=outs,
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
    )(packed, *streams, *carry)
    return found[: len(made.told)], found[len(made.told) :]


def _turns(made: Plan, units: int | None) -> int:
    """Steps whose inputs are on their way while those of as many before are worked on: registers decide."""
    numbers = sum(max(len(made.bounds[v]) - 1 if v.aval.ndim else 1, 1) for v in made.streams)
    return 2 if units is None else max(min(32 // max(numbers, 1), 8), 1)


def _kernel(*refs, made: Plan, begins, steps, lead, units, reverse, ahead) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    refs = list(refs)
    constants_ref = refs.pop(0)
    stream_refs = [refs.pop(0) for _ in made.streams]
    carry_refs = [refs.pop(0) for _ in made.carry]
    told_refs = [refs.pop(0) for _ in made.told]
    last_refs = refs
    row = pl.program_id(0) % lead
    tile = pl.program_id(0) // lead

    def wide(n: int) -> int:
        return TILE if units is not None else _power(n)

    def lanes(n: int) -> Array:
        lane = jnp.arange(wide(n), dtype=jnp.int32)
        return lane if units is None else tile * TILE + lane

    def real(n: int) -> Array:
        return lanes(n) < n

    def lengths(v):
        cuts = made.bounds[v]
        return pairwise(cuts)

    def vector(ref, lead_index, v):
        """The segments of a vector in memory, or a number."""
        if not v.aval.ndim:
            return [plgpu.load(ref.at[tuple(jnp.asarray(x, jnp.int32) for x in lead_index)])]
        parts = []
        for a, b in lengths(v):
            i = lanes(b - a)
            index = tuple(jnp.full_like(i, x) for x in lead_index)
            parts.append(plgpu.load(ref.at[(*index, a + i)], mask=i < b - a, other=0))
        return parts

    def put(ref, lead_index, v, parts) -> None:
        if not v.aval.ndim:
            plgpu.store(ref.at[tuple(jnp.asarray(x, jnp.int32) for x in lead_index)], parts[0])
            return
        for (a, b), x in zip(lengths(v), parts, strict=True):
            i = lanes(b - a)
            index = tuple(jnp.full_like(i, k) for k in lead_index)
            plgpu.store(ref.at[(*index, a + i)], jnp.broadcast_to(x, i.shape).astype(ref.dtype), mask=i < b - a)

    begin = dict(zip(made.constants, begins, strict=True))

    @functools.cache
    def constant(v) -> tuple[Array, ...]:
        def typed(x):
            return x != 0 if v.aval.dtype == jnp.bool_ else x.astype(v.aval.dtype)

        if not v.aval.ndim:
            return (typed(plgpu.load(constants_ref.at[(jnp.asarray(begin[v], jnp.int32),)])),)
        found = []
        for a, b in lengths(v):
            i = lanes(b - a)
            found.append(typed(plgpu.load(constants_ref.at[(begin[v] + a + i,)], mask=i < b - a, other=0)))
        return tuple(found)

    @functools.cache
    def matrix(v, axis, seen, found) -> Array:
        i, j = lanes(seen[1] - seen[0])[:, None], lanes(found[1] - found[0])[None, :]
        inside = (i < seen[1] - seen[0]) & (j < found[1] - found[0])
        strides = (v.aval.shape[1], 1) if axis == 0 else (1, v.aval.shape[1])
        at = begin[v] + (seen[0] + i) * strides[0] + (found[0] + j) * strides[1]
        return plgpu.load(constants_ref.at[(at,)], mask=inside, other=0).astype(v.aval.dtype)

    machine = Machine(wide, real, matrix)
    for op in made.inside:  # what is held is loaded before the loop, once
        _prefetch(op, made, constant, matrix)

    def time(i):
        return steps - 1 - i if reverse else i

    def arriving(i):
        """The inputs of a step; of one beyond the end those of the last, which nobody uses."""
        at = time(jnp.minimum(i, steps - 1))
        return [vector(ref, (row, at), v) for ref, v in zip(stream_refs, made.streams, strict=True)]

    def one(i, carry, now):
        streams = dict(zip(made.streams, now, strict=True))

        def fetch(v):
            if v in streams:
                return [x != 0 for x in streams[v]] if v.aval.dtype == jnp.bool_ else streams[v]
            return list(constant(v))

        carried, told = inside(made, fetch, carry, machine)
        for ref, v, parts in zip(told_refs, made.told, told, strict=True):
            put(ref, (row, time(i)), v, parts)
        return [[jnp.broadcast_to(x, y.shape) for x, y in zip(new, old, strict=True)]
                for new, old in zip(carried, carry, strict=True)]  # fmt: skip

    def turn(k, held):
        carry, now = held
        later = [arriving((k + 1) * ahead + j) for j in range(ahead)]
        for j in range(ahead):
            carry = one(k * ahead + j, carry, now[j])
        return carry, later

    carry = [vector(ref, (row,), v) for ref, v in zip(carry_refs, made.carry, strict=True)]
    now = [arriving(j) for j in range(ahead)]
    whole = steps // ahead
    carry, now = jax.lax.fori_loop(0, whole, turn, (carry, now))
    for j in range(steps - whole * ahead):
        carry = one(whole * ahead + j, carry, now[j])
    for ref, v, parts in zip(last_refs, made.carried, carry, strict=True):
        put(ref, (row,), v, parts)


def _prefetch(op, made: Plan, constant, matrix) -> None:
    constants = set(made.constants)
    for v in op.given:
        if isinstance(v, Var) and v in constants and aval(v).ndim < 2:
            constant(v)
    if op.name != "dot_general" or max(v.aval.ndim for v in op.given) < 2:
        return
    (left, right), _ = op.params["dimension_numbers"]
    x, y = op.given
    m, v, axis = (x, y, left[0]) if x.aval.ndim == 2 else (y, x, right[0])
    into, out = made.bounds[v], made.bounds[op.found[0]]
    for a, b in pairwise(out):
        for c, d in pairwise(into):
            matrix(m, axis, (c, d), (a, b))
