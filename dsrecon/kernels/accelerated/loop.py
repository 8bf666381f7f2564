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

from dsrecon.kernels.accelerated.memory import COUNTED, load, power, store
from dsrecon.kernels.accelerated.plan import Machine, Plan, Unfused, inside, plan
from dsrecon.kernels.program import aval, run

LARGEST, MATRIX, MATRICES = 256, 4096, 16384
"""Numbers of a vector of a small state, of a block of a matrix between two cuts, and of all blocks at most: they live
in registers. Sides of blocks count as powers of two."""

ALONE, ALONE_LONG, LONG = 3072, 5120, 64
"""Numbers of all blocks up to which one warp runs a sequence alone, four run any other; the same where a vector is
longer than `LONG`: hidden units of a small state, whose sums four warps would have to add up through memory."""

TILE = 32
"""Units of a program, where units do not meet."""

LONGEST, FLYING = 8, 32
"""Steps of a turn at most, and numbers that a lane has on their way: registers decide."""


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


def backward(step: Any, before: Array, inputs: Any, zs_bar: Array, *, interpret: bool = False) -> tuple[Array, Array]:
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
    (ls,), (first,) = loop(once, free, carry, given, before.shape[1], reverse=True, interpret=interpret)
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
    steps = max((math.prod(x.shape[: 1 + lead]) for x in jax.tree.leaves(inputs)), default=1)
    counted(checked(plan(onwards, free, z, now, units=units), units), steps)
    if units is None:
        counted(checked(plan(pulled, free, z, (z, now)), units), steps)


def counted(made: Plan, steps: int) -> None:
    """**Raises** `Unfused` where arrays of so many steps, of all sequences, have too many numbers to count."""
    numbers = steps * max(math.prod(v.aval.shape) for v in (*made.streams, *made.carry, *made.told))
    if numbers >= COUNTED:
        raise Unfused(f"an array along the run has {numbers} numbers: the loop kernel counts up to 2^31.")


def outside(made: Plan, parameters: Any, inputs: Any) -> tuple[list[Array], list[Array]]:
    """The constants of a plan, and its streams `[b, t, ...]`: what is made before the loop, of all steps at once."""
    known = dict(made.values) | dict(zip(made.parameters, jax.tree.leaves(parameters), strict=True))
    run(made.once, known)

    def ahead(leaves):
        there = known | dict(zip(made.inputs, leaves, strict=True))
        run(made.ahead, there)
        return [there[v] for v in made.streams]

    streams = jax.vmap(jax.vmap(ahead))(jax.tree.leaves(inputs)) if made.streams else []
    return [known[v] for v in made.constants], streams


def loop(step, parameters, carry, inputs, steps: int, *, units=None, reverse=False, interpret=False, starts=None):
    """`carry, told_t = step(parameters, carry, inputs_t)` of every sequence of a batch.

    **Arguments:** `carry`: leaves `[b, m]`; `inputs`: leaves `[b, t, ...]`; `starts` `[b, m]`, in reverse alone: the
    first leaf of the inputs is then states after each step, and a step is given the state before it, `starts` at first.
    **Returns:** `told` `[b, t, m]` and the carry behind the last step.
    """
    lead = jax.tree.leaves(carry)[0].shape[0]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), carry)
    now = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), inputs)
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), parameters)
    made = checked(plan(step, given, one, now, units=units), units)
    constants, streams = outside(made, parameters, inputs)
    lag = None if starts is None else lagging(made)
    late = None if lag is None else (lag, starts)
    told, last = _call(made, constants, streams, jax.tree.leaves(carry), steps, lead, units, reverse, interpret, late)
    shape = jax.eval_shape(step, given, one, now)
    return jax.tree.unflatten(jax.tree.structure(shape[1]), told), jax.tree.unflatten(jax.tree.structure(carry), last)


def lagging(made: Plan) -> int | None:
    """Which of the streams is the first of the inputs as it is; `None` where no step needs it.

    **Raises:** `Unfused` where something is made of it for all steps at once.
    """
    first = made.inputs[0]
    if any(v is first for op in made.ahead for v in op.given):
        raise Unfused("the way back needs products of the states, which the loop kernel does not make.")
    return next((i for i, v in enumerate(made.streams) if v is first), None)


def checked(made: Plan, units: int | None) -> Plan:
    """The plan. **Raises** `Unfused` for one that the kernel cannot run."""
    for v in (*made.carried, *made.told, *made.carry, *made.streams):
        if v.aval.ndim > 1 or isinstance(v, Literal):
            raise Unfused(f"the recurrence carries {list(aval(v).shape)}: the loop kernel carries vectors that change.")
    for v in made.constants:
        if v.aval.ndim > (2 if units is None else 1):
            raise Unfused(f"the recurrence has parameters of shape {list(v.aval.shape)}: the loop kernel takes less.")
    if units is not None:
        return made
    if _longest(made) > LARGEST:
        raise Unfused(f"the recurrence has vectors of {_longest(made)}: the loop kernel takes up to {LARGEST}.")
    sizes = _sizes(made)
    if max(sizes, default=0) > MATRIX or sum(sizes) > MATRICES:
        raise Unfused(
            f"the recurrence has a matrix of {max(sizes)} numbers, {sum(sizes)} in all: registers hold up to {MATRIX} "
            f"of one and {MATRICES} in all."
        )
    return made


def _longest(made: Plan) -> int:
    """Numbers of the longest vector between two cuts."""
    return max((b - a for cuts in made.bounds.values() for a, b in pairwise(cuts)), default=1)


def _sizes(made: Plan) -> list[int]:
    """Numbers of every block of a constant matrix, its sides counted as powers of two."""
    blocks = {
        (m, *((seen, found) if axis == 0 else (found, seen)))
        for op in made.inside
        for m, axis, seen, found in _blocks(op, made)
    }
    return [math.prod(power(b - a) for a, b in sides) for _, *sides in blocks]


def _packed(constants: list[Array]) -> tuple[Array, list[int]]:
    """All constants as one row, and where each begins. Truth values become numbers."""
    dtype = jnp.float64 if any(x.dtype == jnp.float64 for x in constants) else jnp.float32
    flat = [x.astype(dtype).reshape(-1) for x in constants]
    begins, at = [], 0
    for x in flat:
        begins.append(at)
        at += x.size
    return jnp.concatenate(flat or [jnp.zeros(1, dtype)]), begins


def _call(made: Plan, constants, streams, carry, steps, lead, units, reverse, interpret, late):
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    packed, begins = _packed(constants)
    streams = [x.astype(jnp.int8) if x.dtype == jnp.bool_ else x for x in streams]
    tiles = 1 if units is None else -(-units // TILE)
    alone = ALONE_LONG if _longest(made) > LONG else ALONE
    warps = 1 if units is not None or sum(_sizes(made)) <= alone else 4
    ahead = _turns(made, units, steps)
    outs = [jax.ShapeDtypeStruct((lead, steps, *v.aval.shape), v.aval.dtype) for v in made.told]
    outs += [jax.ShapeDtypeStruct((lead, *v.aval.shape), v.aval.dtype) for v in made.carried]
    kernel = functools.partial(
        _kernel, made=made, begins=begins, steps=steps, lead=lead, units=units, reverse=reverse, ahead=ahead,
        interpret=interpret, late=None if late is None else late[0],
    )  # fmt: skip
    flat = [jax.ShapeDtypeStruct((math.prod(x.shape),), x.dtype) for x in outs]
    starts = [] if late is None else [late[1].reshape(-1)]
    found = pl.pallas_call(
        kernel,
        grid=(tiles * lead,),
        out_shape=flat,
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
    )(packed, *(x.reshape(-1) for x in streams), *(x.reshape(-1) for x in carry), *starts)
    found = [x.reshape(out.shape) for x, out in zip(found, outs, strict=True)]
    return found[: len(made.told)], found[len(made.told) :]


def _turns(made: Plan, units: int | None, steps: int) -> int:
    """Steps whose inputs are on their way while those of as many before are worked on."""
    if units is None:
        return 2
    numbers = sum(max(len(made.bounds[v]) - 1 if v.aval.ndim else 1, 1) for v in made.streams)
    return max(min(LONGEST, FLYING // max(numbers, 1), steps), 1)


class _Lanes:
    """How vectors lie in the lanes of a program, and how they come from memory, where all arrays are flat.

    A small state is a vector of lanes; of units that do not meet a program has a tile.
    """

    def __init__(self, made: Plan, units: int | None, tile: Array):
        self.made, self.units, self.tile = made, units, tile

    def shape(self, n: int) -> tuple[int, ...]:
        return (power(n),) if self.units is None else (TILE,)

    def lanes(self, n: int) -> Array:
        lane = jnp.arange(*self.shape(n), dtype=jnp.int32)
        return lane if self.units is None else self.tile * TILE + lane

    def real(self, n: int) -> Array:
        return self.lanes(n) < n

    def places(self, v) -> list[tuple[Array, Array]]:
        """Where the segments of a vector lie behind its beginning, and which of their lanes are there."""
        return [(a + self.lanes(b - a), self.real(b - a)) for a, b in pairwise(self.made.bounds[v])]

    def nothing(self, v) -> list[Array]:
        """Zeros in the place of a vector."""
        dtype = jnp.int8 if v.aval.dtype == jnp.bool_ else v.aval.dtype
        if not v.aval.ndim:
            return [jnp.zeros((), dtype)]
        return [jnp.zeros(self.shape(b - a), dtype) for a, b in pairwise(self.made.bounds[v])]

    def read(self, ref, count, v) -> list[Array]:
        """The segments of the vector of this count among its kind; or a number alone."""
        begin = jnp.asarray(count * math.prod(v.aval.shape), jnp.int32)
        if not v.aval.ndim:
            return [load(ref, begin)]
        return [load(ref, begin + at, mask=there, other=0) for at, there in self.places(v)]

    def write(self, ref, count, v, parts: list[Array], kept: Array | bool = True) -> None:
        """Write the vector of this count, if it is to be `kept`."""
        begin = jnp.asarray(count * math.prod(v.aval.shape), jnp.int32)
        if not v.aval.ndim:
            store(ref, begin, parts[0], mask=None if kept is True else kept)
            return
        for (at, there), x in zip(self.places(v), parts, strict=True):
            store(ref, begin + at, jnp.broadcast_to(x, at.shape), mask=there if kept is True else there & kept)


class _Constants:
    """What parameters come to, read before the loop, once."""

    def __init__(self, ref, made: Plan, begins: list[int], lanes: _Lanes):
        self.ref, self.begin, self.lanes = ref, dict(zip(made.constants, begins, strict=True)), lanes
        self.vectors: dict = {}
        self.matrices: dict = {}
        for op in made.inside:
            _prefetch(op, made, self.vector, self.matrix)
        for v in (*made.told, *made.carried):
            if v in self.begin:
                self.vector(v)

    def vector(self, v) -> list[Array]:
        if v not in self.vectors:
            begin, places = self.begin[v], [] if not v.aval.ndim else self.lanes.places(v)
            parts = [load(self.ref, begin + at, mask=there, other=0) for at, there in places]
            parts = parts or [load(self.ref, jnp.asarray(begin, jnp.int32))]
            self.vectors[v] = [x != 0 if v.aval.dtype == jnp.bool_ else x.astype(v.aval.dtype) for x in parts]
        return self.vectors[v]

    def matrix(self, v, axis: int, seen: tuple[int, int], found: tuple[int, int]) -> Array:
        key = v, axis, seen, found
        if key not in self.matrices:
            i, j = self.lanes.lanes(seen[1] - seen[0])[:, None], self.lanes.lanes(found[1] - found[0])[None, :]
            there = (i < seen[1] - seen[0]) & (j < found[1] - found[0])
            strides = (v.aval.shape[1], 1) if axis == 0 else (1, v.aval.shape[1])
            at = self.begin[v] + (seen[0] + i) * strides[0] + (found[0] + j) * strides[1]
            self.matrices[key] = load(self.ref, at, mask=there, other=0).astype(v.aval.dtype)
        return self.matrices[key]


def _kernel(*refs, made: Plan, begins, steps, lead, units, reverse, ahead, interpret, late) -> None:
    from jax.experimental import pallas as pl

    refs = list(refs)
    constants_ref = refs.pop(0)
    stream_refs = [refs.pop(0) for _ in made.streams]
    carry_refs = [refs.pop(0) for _ in made.carry]
    starts_ref = None if late is None else refs.pop(0)
    told_refs = [refs.pop(0) for _ in made.told]
    last_refs = refs
    row = pl.program_id(0) % lead
    lanes = _Lanes(made, units, pl.program_id(0) // lead)
    constants = _Constants(constants_ref, made, begins, lanes)
    machine = Machine(lanes.shape, lanes.real, constants.matrix, interpret)

    def count(i):
        """Of a step, among all steps of all sequences."""
        return row * steps + (steps - 1 - i if reverse else i)

    turns = steps if late is None else steps - 1  # the last of which has a state before it from elsewhere

    def arriving(i) -> list:
        """The inputs of a step; of one beyond the end those of the last, which nobody uses."""
        at = count(jnp.minimum(i, turns - 1))
        return [lanes.read(ref, at - 1 if k == late else at, v)
                for k, (ref, v) in enumerate(zip(stream_refs, made.streams, strict=True))]  # fmt: skip

    def one(i, carry, now, kept: Array | bool = True):
        streams = dict(zip(made.streams, now, strict=True))

        def fetch(v):
            if v in streams:
                return [x != 0 for x in streams[v]] if v.aval.dtype == jnp.bool_ else streams[v]
            return constants.vector(v)

        carried, told = inside(made, fetch, carry, machine)
        for ref, v, parts in zip(told_refs, made.told, told, strict=True):
            lanes.write(ref, count(i), v, parts, kept)
        return [[jnp.broadcast_to(x, y.shape) for x, y in zip(new, old, strict=True)]
                for new, old in zip(carried, carry, strict=True)]  # fmt: skip

    def turn(k, held):
        """The steps of turn `k`; the inputs of the next come into the registers of the step just done."""
        carry, now = held
        later = []
        for j in range(ahead):
            later.append(arriving((k + 1) * ahead + j))
            carry = one(k * ahead + j, carry, now[j])
        return carry, later

    def long_turn(k, held):
        """The steps of turn `k - 1`; the inputs of turn `k` are all asked for before. There is no turn -1.

        Units that do not meet make few programs, and each waits at the end of a turn for what it asked for last.
        """
        carry, now = held
        later, new = [arriving(k * ahead + j) for j in range(ahead)], carry
        for j in range(ahead):
            new = one((k - 1) * ahead + j, new, now[j], k > 0)
        return jax.tree.map(lambda x, y: jnp.where(k > 0, x, y), new, carry), later

    carry = [lanes.read(ref, row, v) for ref, v in zip(carry_refs, made.carry, strict=True)]
    whole = turns // ahead
    if whole and units is None:
        carry, _ = jax.lax.fori_loop(0, whole, turn, (carry, [arriving(j) for j in range(ahead)]))
    elif whole:
        nothing = [lanes.nothing(v) for v in made.streams]
        carry, _ = jax.lax.fori_loop(0, whole + 1, long_turn, (carry, [nothing] * ahead))
    if turns % ahead:
        carry = jax.lax.fori_loop(whole * ahead, turns, lambda i, carry: one(i, carry, arriving(i)), carry)
    if late is not None:
        now = [lanes.read(starts_ref, row, v) if k == late else lanes.read(ref, count(turns), v)
               for k, (ref, v) in enumerate(zip(stream_refs, made.streams, strict=True))]  # fmt: skip
        carry = one(turns, carry, now)
    for ref, v, parts in zip(last_refs, made.carried, carry, strict=True):
        lanes.write(ref, row, v, parts)


def _prefetch(op, made: Plan, constant, matrix) -> None:
    constants = set(made.constants)
    for v in op.given:
        if isinstance(v, Var) and v in constants and aval(v).ndim < 2:
            constant(v)
    for block in _blocks(op, made):
        matrix(*block)


def _blocks(op, made: Plan) -> list[tuple]:
    """The blocks of the matrix of a product: `(matrix, axis that is summed over, cut of it, cut of the other)`."""
    if op.name != "dot_general" or max(v.aval.ndim for v in op.given) < 2:
        return []
    (left, right), _ = op.params["dimension_numbers"]
    x, y = op.given
    m, v, axis = (x, y, left[0]) if x.aval.ndim == 2 else (y, x, right[0])
    into, out = made.bounds[v], made.bounds[op.found[0]]
    return [(m, axis, seen, found) for found in pairwise(out) for seen in pairwise(into)]
