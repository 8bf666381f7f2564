"""One function of every step of a sequence, or its sum over them, in one kernel: a lane is a step, and nothing but
results leaves it.

XLA makes of a function of small arrays, mapped over a long sequence, a chain of products whose intermediates (the
hidden units of a step, say) each go through memory. Here the function is written out number by number: an array of `k`
numbers a step is `k` vectors of lanes, and its products are sums of them. Hidden units are walked along by a loop.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jaxtyping import Array

from dsrecon.kernels.accelerated.memory import COUNTED, load, store
from dsrecon.kernels.accelerated.numbers import KNOWN, WIDEST, Interpreter, Writing, constant
from dsrecon.kernels.accelerated.plan import Unfused
from dsrecon.kernels.program import ELEMENTWISE, Operation, inlined, leading_to

LANES = 128
"""Steps of a program."""

LARGEST = 4_000
"""Operations on single numbers that a kernel is written out into."""

TOLD = 100
"""Numbers of a step that a kernel writes: with more the registers no longer hold what is on the way."""

SUMMED = 128
"""Steps whose sum one warp makes: sums from lane to lane take as many instructions as those of four steps a lane."""


def map_steps(function: Callable, parameters: Any, along: Any, *, interpret: bool = False) -> Any:
    """`function(parameters, along_t)` for every step: `jax.vmap(function, (None, 0))`, in one kernel.

    **Arguments:** `function`: of small arrays, made of functions of single numbers, sums, products and rearrangements;
    `parameters`: PyTree of arrays; `along`: PyTree of arrays `[t, ...]`.

    **Returns:** what the function returns, with a leading axis `t`.

    **Raises:** `Unfused` for a function that cannot be written out.
    """
    return _run(function, parameters, along, summed=False, interpret=interpret)


def sum_steps(function: Callable, parameters: Any, along: Any, *, interpret: bool = False) -> Any:
    """`sum_t function(parameters, along_t)`, in one kernel that writes a partial sum a warp; for the gradient by the
    parameters of many steps.

    **Arguments:** as of `map_steps`. What the function finds may be as long as its hidden units, but not both ways.

    **Returns:** what the function returns, summed.

    **Raises:** `Unfused` for a function that cannot be written out, or that has no hidden units to walk along: products
    of matrices sum those as fast.
    """
    parts = _run(function, parameters, along, summed=True, interpret=interpret)
    return jax.tree.map(lambda x: jnp.sum(x, 0), parts)


def _run(function: Callable, parameters: Any, along: Any, *, summed: bool, interpret: bool) -> Any:
    """What the function returns of every step, or, `summed`, the sums of it over the steps of every warp."""
    steps = jax.tree.leaves(along)[0].shape[0]
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), parameters)
    now = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), along)
    program = written(function, shapes, now, summed=summed)
    leaves, structure = jax.tree.flatten(jax.eval_shape(function, shapes, now))
    rows = -(-steps // SUMMED) if summed else steps
    outs = [jax.ShapeDtypeStruct((rows, *x.shape), jnp.int8 if x.dtype == jnp.bool_ else x.dtype) for x in leaves]
    if max(math.prod(x.shape) for x in jax.tree.leaves(along) + outs) >= COUNTED:
        raise Unfused("the steps hold 2^31 numbers and more: the kernel counts them in 32 bits.")
    constants = jax.tree.leaves(parameters)
    out = _call(program, [*constants, *jax.tree.leaves(along)], len(constants), outs, steps, summed, interpret)
    out = [x != 0 if wanted.dtype == jnp.bool_ else x for x, wanted in zip(out, leaves, strict=True)]
    return jax.tree.unflatten(structure, out)


class Program:
    """The operations of a function: what comes in, in order (`None`: not used), what goes out, constants inside, and
    how long the loop along its long axes is (`None`: it has none)."""

    def __init__(self, operations: list[Operation], given: list, found: list, values: dict, unit: int | None):
        self.operations, self.given, self.found, self.values, self.unit = operations, given, found, values, unit


def written(function: Callable, parameters: Any, now: Any, *, summed: bool = False) -> Program:
    """The program of a function, `summed`: of its sum over the steps. **Raises** `Unfused` where the kernel cannot run
    it."""
    operations, given, found, values = inlined(function, parameters, now)
    operations = leading_to(found, operations)
    for op in operations:
        if op.name not in ELEMENTWISE and op.name not in KNOWN:
            raise Unfused(f"the step holds {op.name}, which is not written out number by number.")
    if any(jnp.ndim(x) for x in values.values()):
        raise Unfused("the step holds constant arrays.")
    used = {v for op in operations for v in op.given if isinstance(v, Var)} | set(found)
    ends = [*given[len(jax.tree.leaves(parameters)) :], *([] if summed else found)]
    given = [v if v in used and math.prod(v.aval.shape) else None for v in given]
    program = Program(operations, given, found, values, _unit(operations, given, ends))
    if program.unit is not None:
        try:
            _numbers(program, lambda i, v, at: at, Interpreter(program.unit))
        except Unfused:
            program.unit = None
    if summed and program.unit is None:
        raise Unfused("the step has no hidden units to walk along.")
    scale = Interpreter(program.unit)
    told = sum(math.prod(scale.shape(v.aval.shape)) for v in found)
    if told > TOLD:
        raise Unfused(f"the step tells {told} numbers: up to {TOLD} are written out.")
    work = sum(_work(op, scale) for op in operations)
    if work > LARGEST:
        raise Unfused(f"the step is {work} operations on numbers: up to {LARGEST} are written out.")
    return program


def _unit(operations: list[Operation], given: list, ends: list) -> int | None:
    """How long the loop along the long axes of a program is; `None` where they must be written out.

    Neither what comes in nor what goes out of a step may have such an axis, and no array two of them.
    """
    inside = [v for op in operations for v in (*op.given, *op.found)] + [v for v in given if v is not None]
    axes = [[n for n in v.aval.shape if n > WIDEST] for v in inside]
    unit = math.gcd(*(n for each in axes for n in each))
    if max(map(len, axes), default=0) > 1 or any(n > WIDEST for v in ends for n in v.aval.shape):
        return None
    return unit if unit > WIDEST else None


def _work(op: Operation, scale: Interpreter) -> int:
    size = math.prod(scale.shape(op.found[0].aval.shape))
    if op.name != "dot_general":
        return size if op.name in ELEMENTWISE else 0
    (left, _), _ = op.params["dimension_numbers"]
    return size * math.prod(scale.shape(tuple(op.given[0].aval.shape[i] for i in left)))


def _call(program: Program, given: list, constants: int, outs: list, steps: int, summed: bool, interpret: bool) -> list:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    lanes, warps = (SUMMED, 1) if summed else (LANES, LANES // 32)
    given = [x.astype(jnp.int8) if x.dtype == jnp.bool_ else x for x in given]
    flat = [x.reshape(-1) for x, v in zip(given, program.given, strict=True) if v is not None]
    shapes = [jax.ShapeDtypeStruct((math.prod(x.shape),), x.dtype) for x in outs]
    kernel = functools.partial(_kernel, program=program, constants=constants, steps=steps, lanes=lanes, summed=summed)
    found = pl.pallas_call(
        kernel,
        grid=(-(-steps // lanes),),
        out_shape=shapes,
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
    )(*flat)
    return [x.reshape(out.shape) for x, out in zip(found, outs, strict=True)]


def _numbers(program: Program, load_one: Callable[[int, Any, Any], Any], interpreter: Interpreter) -> list[np.ndarray]:
    """The numbers that go out; `load_one(i, v, at)` loads number `at` of what comes in as the `i`-th."""
    known: dict = {}
    for i, v in enumerate(program.given):
        if v is not None:
            known[v] = interpreter.read(v.aval.shape, functools.partial(load_one, i, v))
    for v, value in program.values.items():
        known[v] = np.full((), constant(value), object)
    interpreter.run(program.operations, known)
    return [interpreter.value(v, known) for v in program.found]


def _kernel(*refs, program: Program, constants: int, steps: int, lanes: int, summed: bool) -> None:
    """Write out the step so that few numbers are held at a time: parameters are read where they are used, and sums of
    one depth are written out side by side."""
    from jax.experimental import pallas as pl

    block = pl.program_id(0)
    lane = block * lanes + jnp.arange(lanes, dtype=jnp.int32)
    there = lane < steps
    used = [i for i, v in enumerate(program.given) if v is not None]
    ins = dict(zip(used, refs[: len(used)], strict=True))

    def load_one(i: int, v: Any, at: Any) -> Array:
        if i < constants:
            x = load(ins[i], jnp.asarray(at, jnp.int32))
        else:
            x = load(ins[i], lane * math.prod(v.aval.shape) + at, mask=there, other=0)
        return x != 0 if v.aval.dtype == jnp.bool_ else x

    interpreter = Interpreter(program.unit)
    found = _numbers(program, load_one, interpreter)
    writing = Writing(program.unit or 0, lanes)
    writing.fold(interpreter.folds)
    ends = list(zip(refs[len(used) :], program.found, found, strict=True))
    if not summed:
        for ref, v, numbers in ends:
            for j, x in enumerate(numbers.reshape(-1)):
                at = lane * math.prod(v.aval.shape) + j
                store(ref, at, jnp.broadcast_to(writing.value(x, {}), (lanes,)), mask=there)
        return

    def tell(ref, v: Any, at: Any, x: Array) -> None:
        """The sum of a number over the steps of this block, as number `at` of its array."""
        x = jnp.broadcast_to(x, (lanes,))
        total = jnp.sum(jnp.where(there, x, jnp.zeros_like(x)))
        store(ref, jnp.asarray(block * math.prod(v.aval.shape) + at, jnp.int32), total)

    walked = []
    for ref, v, numbers in ends:
        begins, step = interpreter.places(v.aval.shape)
        for begin, x in zip(begins.reshape(-1).tolist(), numbers.reshape(-1), strict=True):
            if step:
                walked.append((ref, v, begin, step, x))
            else:
                tell(ref, v, begin, writing.value(x, {}))

    def tell_all(i, values):
        for (ref, v, begin, step, _), x in zip(walked, values, strict=True):
            tell(ref, v, begin + i * step, x)

    writing.each_turn([x for *_, x in walked], tell_all)
