"""One function of every step of a sequence, in one kernel: a lane is a step, and nothing but results leaves it.

XLA makes of a function of small arrays, mapped over a long sequence, a chain of products whose intermediates (the
hidden units of a step, say) each go through memory. Here the function is written out number by number: an array of `k`
numbers a step is `k` vectors of lanes, and its products are sums of them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var
from jaxtyping import Array

from dsrecon.kernels.accelerated.plan import ELEMENTWISE, Operation, Unfused, aval, inlined

LANES = 128
"""Steps of a program."""

LARGEST = 4_000
"""Operations on single numbers that a kernel is written out into."""

TOLD = 100
"""Numbers of a step that a kernel writes: with more the registers no longer hold what is on the way."""


def map_steps(function: Callable, parameters: Any, along: Any, *, interpret: bool = False) -> Any:
    """`function(parameters, along_t)` for every step: `jax.vmap(function, (None, 0))`, in one kernel.

    **Arguments:** `function`: of small arrays, made of functions of single numbers, sums, products and rearrangements;
    `parameters`: PyTree of arrays; `along`: PyTree of arrays `[t, ...]`.

    **Returns:** what the function returns, with a leading axis `t`.

    **Raises:** `Unfused` for a function that cannot be written out.
    """
    steps = jax.tree.leaves(along)[0].shape[0]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), parameters)
    now = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), along)
    program = written(function, shapes, now)
    found = jax.eval_shape(function, shapes, now)
    leaves, structure = jax.tree.flatten(found)
    outs = [jax.ShapeDtypeStruct((steps, *x.shape), jnp.int8 if x.dtype == jnp.bool_ else x.dtype) for x in leaves]
    if max(math.prod(x.shape) for x in jax.tree.leaves(along) + outs) >= 2**31:
        raise Unfused("the steps hold 2^31 numbers and more: the kernel counts them in 32 bits.")
    constants = jax.tree.leaves(parameters)
    out = _call(program, [*constants, *jax.tree.leaves(along)], len(constants), outs, interpret)
    out = [x != 0 if wanted.dtype == jnp.bool_ else x for x, wanted in zip(out, leaves, strict=True)]
    return jax.tree.unflatten(structure, out)


class Program:
    """The operations of a function: what comes in, in order (`None`: not used), what goes out, and constants inside."""

    def __init__(self, operations: list[Operation], given: list, found: list, values: dict):
        self.operations, self.given, self.found, self.values = operations, given, found, values


def written(function: Callable, parameters: Any, now: Any) -> Program:
    """The program of a function. **Raises** `Unfused` where the kernel cannot run it."""
    operations, given, found, values = inlined(function, parameters, now)
    work = 0
    for op in operations:
        if op.name not in ELEMENTWISE and op.name not in _KNOWN:
            raise Unfused(f"the step holds {op.name}, which is not written out number by number.")
        work += _work(op)
    if work > LARGEST:
        raise Unfused(f"the step is {work} operations on numbers: up to {LARGEST} are written out.")
    told = sum(math.prod(v.aval.shape) for v in found)
    if told > TOLD:
        raise Unfused(f"the step tells {told} numbers: up to {TOLD} are written out.")
    if any(jnp.ndim(x) for x in values.values()):
        raise Unfused("the step holds constant arrays.")
    used = {v for op in operations for v in op.given if isinstance(v, Var)} | set(found)
    return Program(operations, [v if v in used and math.prod(v.aval.shape) else None for v in given], found, values)


def _work(op: Operation) -> int:
    size = math.prod(op.found[0].aval.shape)
    if op.name != "dot_general":
        return size if op.name in ELEMENTWISE else 0
    (left, _), _ = op.params["dimension_numbers"]
    return size * math.prod(op.given[0].aval.shape[i] for i in left)


def _call(program: Program, given: list[Array], constants: int, outs: list, interpret: bool) -> list[Array]:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    steps = outs[0].shape[0]
    given = [x.astype(jnp.int8) if x.dtype == jnp.bool_ else x for x in given]
    flat = [x.reshape(-1) for x, v in zip(given, program.given, strict=True) if v is not None]
    shapes = [jax.ShapeDtypeStruct((math.prod(x.shape),), x.dtype) for x in outs]
    kernel = functools.partial(_kernel, program=program, constants=constants, steps=steps)
    found = pl.pallas_call(
        kernel,
        grid=(-(-steps // LANES),),
        out_shape=shapes,
        compiler_params=plgpu.CompilerParams(num_warps=LANES // 32, num_stages=1),
        interpret=interpret,
    )(*flat)
    return [x.reshape(out.shape) for x, out in zip(found, outs, strict=True)]


def _kernel(*refs, program: Program, constants: int, steps: int) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    at = pl.program_id(0) * LANES + jnp.arange(LANES, dtype=jnp.int32)
    there = at < steps

    def place(v, j: int) -> tuple[Array]:
        return (at * math.prod(v.aval.shape) + j,)

    known: dict = {}
    refs = list(refs)
    for i, v in enumerate(program.given):
        if v is None:
            continue
        ref = refs.pop(0)
        numbers = np.empty(math.prod(v.aval.shape), object)
        for j in range(numbers.size):
            if i < constants:
                x = plgpu.load(ref.at[(jnp.asarray(j, jnp.int32),)])
            else:
                x = plgpu.load(ref.at[place(v, j)], mask=there, other=0)
            numbers[j] = x != 0 if v.aval.dtype == jnp.bool_ else x
        known[v] = numbers.reshape(v.aval.shape)
    for v, value in program.values.items():
        known[v] = _one(jnp.asarray(value))
    for op in program.operations:
        known |= dict(zip(op.found, _done(op, [_value(v, known) for v in op.given]), strict=True))
    for ref, v in zip(refs, program.found, strict=True):
        for j, x in enumerate(_value(v, known).reshape(-1)):
            plgpu.store(ref.at[place(v, j)], jnp.broadcast_to(x, at.shape).astype(ref.dtype), mask=there)


def _one(x: Any) -> np.ndarray:
    found = np.empty((), object)
    found[()] = x
    return found


def _value(v, known: dict) -> np.ndarray:
    return _one(jnp.asarray(v.val, aval(v).dtype)) if isinstance(v, Literal) else known[v]


def _done(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    if op.name in ELEMENTWISE:
        shape = op.found[0].aval.shape
        out = np.empty(shape, object)
        cases = [np.broadcast_to(x, shape) for x in given]
        for index in np.ndindex(*shape):
            out[index] = _number(op, [x[index] for x in cases])
        return [out]
    return _KNOWN[op.name](op, given)


def _number(op: Operation, args: list) -> Any:
    """One number of an elementwise operation. Numbers of no step are scalars, others vectors of lanes."""
    if op.name in ("stop_gradient", "copy", "copy_p"):
        return args[0]
    if op.name == "square":
        return args[0] * args[0]
    wide = max((jnp.shape(x) for x in args), key=len)
    args = [jnp.broadcast_to(x, wide) for x in args]
    if op.name == "add_any":
        return args[0] + args[1]
    return op.primitive.bind(*args, **op.params)


def _broadcast(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    shape = [1] * len(op.params["shape"])
    for i, axis in enumerate(op.params["broadcast_dimensions"]):
        shape[axis] = given[0].shape[i]
    return [np.broadcast_to(given[0].reshape(shape), op.params["shape"])]


def _dot(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    (left, right), batch = op.params["dimension_numbers"]
    if batch != ((), ()):
        raise Unfused("the step holds products in batches, which are not written out.")
    return [np.tensordot(given[0], given[1], axes=(left, right))]


def _padded(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    x, fill = given
    if any(low < 0 or high < 0 or inner for low, high, inner in op.params["padding_config"]):
        raise Unfused("the step pads between numbers, which is not written out.")
    out = np.broadcast_to(fill, op.found[0].aval.shape).copy()
    out[tuple(slice(low, low + n) for (low, _, _), n in zip(op.params["padding_config"], x.shape, strict=True))] = x
    return [out]


def _split(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    return np.split(given[0], np.cumsum(op.params["sizes"])[:-1], axis=op.params["axis"])


def _slice(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    strides = op.params["strides"] or [1] * given[0].ndim
    bounds = zip(op.params["start_indices"], op.params["limit_indices"], strides, strict=True)
    return [given[0][tuple(slice(a, b, c) for a, b, c in bounds)]]


def _summed(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    found = np.sum(given[0], axis=tuple(op.params["axes"]))
    return [found if isinstance(found, np.ndarray) else _one(found)]


def _any(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    found = np.bitwise_or.reduce(given[0], axis=tuple(op.params["axes"]))
    return [found if isinstance(found, np.ndarray) else _one(found)]


def _iota(op: Operation, given: list[np.ndarray]) -> list[np.ndarray]:
    shape, axis = op.params["shape"], op.params["dimension"]
    out = np.empty(shape, object)
    for index in np.ndindex(*shape):
        out[index] = jnp.asarray(index[axis], op.params["dtype"])
    return [out]


_KNOWN: dict[str, Callable[[Operation, list[np.ndarray]], list[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda op, given: [np.concatenate(given, axis=op.params["dimension"])],
    "dot_general": _dot,
    "iota": _iota,
    "pad": _padded,
    "reduce_or": _any,
    "reduce_sum": _summed,
    "reshape": lambda op, given: [given[0].reshape(op.params["new_sizes"])],
    "rev": lambda op, given: [np.flip(given[0], op.params["dimensions"])],
    "slice": _slice,
    "split": _split,
    "squeeze": lambda op, given: [given[0].reshape(op.found[0].aval.shape)],
    "expand_dims": lambda op, given: [given[0].reshape(op.found[0].aval.shape)],
    "transpose": lambda op, given: [given[0].transpose(op.params["permutation"])],
}
