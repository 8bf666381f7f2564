"""A batch of runs as a CPU runs it fast: what is done to one member, done to all of them at once.

What `jax.vmap` makes of a step is right, and on a CPU two things are better done otherwise.

- Products with a matrix that is the same at every step are handed to a library that wants it one way round. It is
  turned before the loop, in the reverse loop too; left to the compiler it is turned at every step. And it is filled up
  with zeros to as many columns as the library takes at a time.
- States of few numbers may lie with the members along the last axis, where 8 or 16 of them are multiplied at once. A
  product that sums over few numbers is then written out, `sum_i W[:, i] z[i]`, and becomes one loop with what follows
  it, where a library is called, packs what it is given and writes its result.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

from dsrecon._types import Inputs, Step
from dsrecon.kernels.program import ELEMENTWISE, Operation, acts, told_apart

FEW, MEMBERS = 24, 8
"""Numbers that a product sums over, up to which it is written out where members lie side by side; members of a batch
from which that pays."""


VECTOR = 32
"""Numbers in single precision that the library of products takes at a time."""


@singledispatch
def abreast(step: Step) -> int:
    """Up to how many numbers of a state a batch of a step is better run with its members side by side; by default none.

    It pays where what a product is given costs little, for it is worked out anew for every number that the product
    gives. Gradients of 16 windows of 200 steps on one core, in ms: shallow, 5 states and 250 hidden units, 3.2 -> 2.2;
    AL-RNN of 4 and 20 units .60 -> .24 and .72 -> .61; PLRNN of 10 .61 -> .39; mean-centred of 10 .76 -> .50, of 22
    .94 -> 1.18; a GRU of 8, whose gates are dear, 1.5 -> 2.2. Cells register
    what they gain, `@abreast.register(MyCell)`.
    """
    return 0


def lie_side_by_side(step: Step, z0: Array, unroll: int) -> bool:
    """Whether a batch of states is run with its members along the last axis. More steps in a turn are not: the compiler
    would put them into one another."""
    if jax.default_backend() != "cpu" or z0.ndim == 1 or unroll > 1:
        return False
    return len(z0) >= MEMBERS and z0.shape[1] <= abreast(step)


def forward(maps: tuple[Step, ...], z0: Array, inputs: Inputs, steps: int | None) -> Array:
    """States `[t, b, m]` of a batch from `z0` `[b, m]` under inputs `[t, b, ...]`, of a step made of `maps`.

    The loop carries what enters the last map, not the state: what a loop carries is in memory, where the compiler would
    work out the maps before anew for every number of the last.
    """
    given = _turned(inputs)
    *first, last = [of_members(part, *one(z0, inputs), axis=-1) for part in maps]
    following = jax.tree.map(lambda x: jnp.concatenate([x[1:], x[-1:]]), given) if first else None

    def enter(z, s):
        for part in first:
            z = part(z, s)
        return z

    def body(entered, now):
        s, after = now
        z = last(entered, s)
        return enter(z, after), z

    begin = enter(z0.T, jax.tree.map(lambda x: x[0], given))
    return jnp.moveaxis(jax.lax.scan(body, begin, (given, following), length=steps)[1], -1, 1)


def backward(maps: tuple[Step, ...], before: Array, inputs: Inputs, zs_bar: Array) -> tuple[list, list, Array]:
    """What enters every map, the gradients by what it gives, those of the last being costates, both `[t, b, m]`, and
    the gradient by the state before the first step, `[b, m]`; of states `before` every step and gradients `zs_bar` by
    those after it, `[t, b, m]`."""
    given, entered, now = _turned(inputs), [_turned(before)], one(before[0], inputs)
    for part in maps[:-1]:
        entered.append(jax.vmap(of_members(part, *now, axis=-1))(entered[-1], given))
    pulls = [of_members(pull_of(part), now[0], *now, axis=-1) for part in maps]
    bars = _turned(zs_bar)
    *others, last = entered

    def back(carry, now):
        l, entering = carry
        others, s, z_bar, earlier = now
        arriving = []
        for pull, z in zip(reversed(pulls), (entering, *reversed(others)), strict=True):
            arriving.append(l)
            l = pull(l, z, s)
        return (l + z_bar, earlier), arriving

    nothing = jnp.zeros_like(bars[:1])
    along = (others, given, jnp.concatenate([nothing, bars[:-1]]), jnp.concatenate([nothing, last[:-1]]))
    (z0_bar, _), arriving = jax.lax.scan(back, (bars[-1], last[-1]), along, reverse=True)
    entered, arriving = ([jnp.moveaxis(x, -1, 1) for x in xs] for xs in (entered, reversed(arriving)))
    return entered, arriving, z0_bar.T


def _turned(tree: Any) -> Any:
    """Leaves `[t, b, ...]` as `[t, ..., b]`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1), tree)


def one(z0: Array, inputs: Inputs) -> tuple[Any, Any]:
    """Shapes of the state and the inputs of one step: of a run, `[m]` and `[t, ...]`, or of one member of a batch,
    `[b, m]` and `[t, b, ...]`."""
    lead = z0.ndim
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype), inputs)
    return jax.ShapeDtypeStruct(z0.shape[-1:], z0.dtype), shapes


def pull_of(step: Step) -> Callable[[Array, Array, Any], Array]:
    """`(l, z, s) -> l' d step(z, s) / dz`."""
    return lambda l, z, s: jax.vjp(lambda z: step(z, s), z)[1](l)[0]


def of_members(function: Callable, *given: Any, axis: int) -> Callable:
    """`function` of leaves with one axis more, the members of a batch: the last (`axis` -1) or the first (0).

    **Arguments:** `function`: of arrays alone, and returns one; it may close over parameters. `given`: arguments of one
    member, or their shapes.

    **Returns:** a function of the same arguments, every leaf with that axis, that returns an array with it. What does
    not depend on its arguments has been worked out: call it in a loop, make it before.
    """
    every, wide, first, (last,), known = told_apart(function, *given)
    if any(acts(op) for op in every):
        return jax.vmap(function, in_axes=axis, out_axes=axis)
    matrices = {op.found[0]: _matrix(op, known, axis) for op in every if _one_matrix(op, wide)}
    done = _side_by_side if axis == -1 else _one_by_one

    def many(*batch: Any) -> Array:
        leaves = jax.tree.leaves(batch)
        found, size = known | dict(zip(first, leaves, strict=True)), leaves[0].shape[axis]
        for op in every:
            args = [v.val if isinstance(v, Literal) else found[v] for v in op.given]
            along = _of_members(op, wide)
            if op.found[0] in matrices:
                columns = op.found[0].aval.shape[0]
                out = _product(matrices[op.found[0]], args[along.index(True)], axis, columns)
            else:
                out = done(op, args, along, size)
            found |= dict(zip(op.found, out if op.primitive.multiple_results else [out], strict=True))
        if not isinstance(last, Literal) and last in wide:
            return found[last]
        value = jnp.asarray(last.val if isinstance(last, Literal) else found[last])
        return jnp.stack([value] * size, axis=axis)

    return many


def _of_members(op: Operation, wide: set) -> list[bool]:
    """Which arguments of an operation differ between members."""
    return [not isinstance(v, Literal) and v in wide for v in op.given]


def _one_matrix(op: Operation, wide: set) -> bool:
    """Whether an operation multiplies a vector of every member with one matrix."""
    if op.name != "dot_general":
        return False
    (left, _), (batch, _) = op.params["dimension_numbers"]
    sizes = sorted((v.aval.ndim, of) for v, of in zip(op.given, _of_members(op, wide), strict=True))
    return not batch and len(left) == 1 and sizes == [(1, True), (2, False)]


def _matrix(op: Operation, known: dict, axis: int) -> Array:
    """The matrix `W` of such an operation, to be multiplied from the left, `W z`, or from the right, `z W`. The barrier
    keeps the compiler from turning, or cutting, the product instead."""
    of = next(i for i, v in enumerate(op.given) if v.aval.ndim == 2)
    W, contracted = known[op.given[of]], op.params["dimension_numbers"][0][of]
    turned = W if (contracted == (1,)) == (axis == -1) else W.T
    spare = 0 if axis == -1 else _spare(turned)
    if spare:
        turned = jnp.pad(turned, ((0, 0), (0, spare)))
    return W if turned is W else jax.lax.optimization_barrier(turned)


def _spare(W: Array) -> int:
    """Columns of zeros that make the product of a few rows with `W` faster: the library takes 32 numbers at a time.

    Sixteen rows of 40 numbers in single precision on one core (AVX-512), in us: 22 columns .56, 32 .33; 40 .64, 48
    .61, 64 .57; 50 .92, 64 .64; 72 1.05, 96 1.28; 100 2.13, 112 2.12, 128 1.87; 250 10.5, 256 9.0; 130 2.9, 160 3.4. In
    double precision it does not pay: 40 .69, 48 .81.
    """
    columns = W.shape[1]
    spare = -columns % (VECTOR if columns <= 2 * VECTOR else 4 * VECTOR)
    return spare if spare < VECTOR and W.dtype == jnp.float32 else 0


def _product(W: Array, z: Array, axis: int, columns: int) -> Array:
    """`W z` or `z W`, and of this its first columns; members side by side have it written out where it sums over few
    numbers."""
    if axis == 0:
        return (z @ W)[:, :columns]
    if W.shape[1] > FEW:
        return W @ z
    terms = [W[:, i : i + 1] * z[i : i + 1] for i in range(W.shape[1])]
    return sum(terms[1:], terms[0])


def _side_by_side(op: Operation, args: list, along: list[bool], size: int) -> Any:
    """One operation on members along the last axis; `along` says which of its arguments have them."""
    if op.name in ELEMENTWISE:
        shape = (*op.found[0].aval.shape, size)
        pairs = zip(args, along, strict=True)
        return op.primitive.bind(
            *(jnp.broadcast_to(x if of else jnp.asarray(x)[..., None], shape) for x, of in pairs), **op.params
        )
    if op.name == "broadcast_in_dim":
        shape = op.params["shape"]
        return jax.lax.broadcast_in_dim(args[0], (*shape, size), (*op.params["broadcast_dimensions"], len(shape)))
    axes = [-1 if of else None for of in along]
    return jax.vmap(lambda *x: op.primitive.bind(*x, **op.params), in_axes=axes, out_axes=-1)(*args)


def _one_by_one(op: Operation, args: list, along: list[bool], size: int) -> Any:
    """The same along the first axis. A vector is summed by a product with ones: of a few members and numbers that is
    one call, where XLA reduces in three."""
    if op.name == "reduce_sum" and op.given[0].aval.ndim == 1 and jnp.issubdtype(args[0].dtype, jnp.inexact):
        return args[0] @ jax.lax.optimization_barrier(jnp.ones(args[0].shape[1], args[0].dtype))
    axes = [0 if of else None for of in along]
    return jax.vmap(lambda *x: op.primitive.bind(*x, **op.params), in_axes=axes)(*args)
