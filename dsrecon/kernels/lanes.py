"""A function of one state, done for a batch of them whose members lie side by side.

A CPU adds and multiplies 8 or 16 numbers at once where they are next to each other. Members of a batch are, when the
batch is the last axis; a matrix product that sums over few numbers is then written out, `sum_i W[:, i] z[i]`, and
becomes one with what follows it, where a library's product is called, packs its arguments and writes its result.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

from dsrecon._types import Inputs, Step
from dsrecon.kernels.program import ELEMENTWISE, Operation, inlined, run

FEW, MEMBERS = 8, 8
"""Numbers that a product sums over, up to which it is written out; members of a batch from which it pays.

Measured for 16 members, gradients of 200 steps: shallow, 5 states and 250 hidden units, 3.4 -> 2.7 ms; 3 and 50,
.96 -> .76. States of 20 and 40 units, whose products are calls all the same, lose a third."""


def pay(z0: Array) -> bool:
    """Whether a batch of states is better run side by side."""
    return jax.default_backend() == "cpu" and z0.ndim == 2 and len(z0) >= MEMBERS and z0.shape[1] <= FEW


def forward(maps: tuple[Step, ...], z0: Array, inputs: Inputs, steps: int | None, unroll: int) -> Array:
    """States `[t, b, m]` of a batch from `z0` `[b, m]`, inputs `[t, b, ...]`, of a step made of `maps`.

    The loop carries what enters the last map, not the state: what a loop carries is in memory, where the compiler would
    work out the maps before anew for every number of the last.
    """
    given = _members_last(inputs)
    *first, last = _side_by_side(maps, z0, inputs)
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
    zs = jax.lax.scan(body, begin, (given, following), length=steps, unroll=unroll)[1]
    return jnp.moveaxis(zs, -1, 1)


def backward(maps: tuple[Step, ...], before: Array, inputs: Inputs, zs_bar: Array, unroll: int) -> list[Array]:
    """Gradients `[t, b, m]` by what each map gives, those of the last being costates, and `[b, m]` by the state before
    the first step, of states `before` every step and gradients `zs_bar` by those after it, `[t, b, m]`."""
    given, entered = _members_last(inputs), [_members_last(before)]
    for part in _side_by_side(maps[:-1], before[0], inputs):
        entered.append(jax.vmap(part)(entered[-1], given))
    z, s = _one(before[0], inputs)
    pulls = [side_by_side(lambda l, z, s, f=part: jax.vjp(lambda z: f(z, s), z)[1](l)[0], z, z, s) for part in maps]
    bars = _members_last(zs_bar)
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
    (z0_bar, _), arriving = jax.lax.scan(back, (bars[-1], last[-1]), along, reverse=True, unroll=unroll)
    return [*(jnp.moveaxis(l, -1, 1) for l in reversed(arriving)), z0_bar.T]


def _members_last(tree: Any) -> Any:
    """Leaves `[t, b, ...]` as `[t, ..., b]`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1), tree)


def _one(z0: Array, inputs: Inputs) -> tuple[Any, Any]:
    """Shapes of the state and the inputs of one member at one step."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), inputs)
    return jax.ShapeDtypeStruct(z0.shape[1:], z0.dtype), shapes


def _side_by_side(maps: tuple[Step, ...], z0: Array, inputs: Inputs) -> list[Callable]:
    return [side_by_side(part, *_one(z0, inputs)) for part in maps]


def side_by_side(function: Callable, *given: Any) -> Callable:
    """`function` of leaves with a last axis more, the batch.

    **Arguments:** `function`: of arrays alone, and returns one; it may close over parameters. `given`: arguments of one
    member, or their shapes.

    **Returns:** a function of the same arguments, every leaf `[..., b]`, that returns `[..., b]`.
    """
    operations, first, (last,), known = inlined(function, *given)
    wide = set(first)
    for op in operations:
        if any(_of_members(op, wide)):
            wide |= set(op.found)
    once = [op for op in operations if op.found[0] not in wide]
    every = [op for op in operations if op.found[0] in wide]
    run(once, known)
    matrices = {op.found[0]: _matrix(op, known) for op in every if _one_matrix(op, wide)}

    def many(*batch: Any) -> Array:
        leaves = jax.tree.leaves(batch)
        found = known | dict(zip(first, leaves, strict=True))
        size = leaves[0].shape[-1]
        for op in every:
            args = [v.val if isinstance(v, Literal) else found[v] for v in op.given]
            along = _of_members(op, wide)
            W = matrices.get(op.found[0])
            out = _done(op, args, along, size) if W is None else _product(W, args[along.index(True)])
            found |= dict(zip(op.found, out if op.primitive.multiple_results else [out], strict=True))
        if not isinstance(last, Literal) and last in wide:
            return found[last]
        value = jnp.asarray(last.val if isinstance(last, Literal) else found[last])
        return jnp.broadcast_to(value[..., None], (*value.shape, size))

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


def _matrix(op: Operation, known: dict) -> Array:
    """The matrix of such an operation, with rows for what it gives. The barrier keeps the compiler from turning the
    product instead of the matrix: those in the loop take twice the time then."""
    of = next(i for i, v in enumerate(op.given) if v.aval.ndim == 2)
    v, contracted = op.given[of], op.params["dimension_numbers"][0][of]
    value = known[v]
    return value if contracted == (1,) else jax.lax.optimization_barrier(value.T)


def _product(W: Array, z: Array) -> Array:
    """`W z`, written out where it sums over few numbers."""
    if W.shape[1] > FEW:
        return W @ z
    return sum((W[:, i : i + 1] * z[i] for i in range(1, W.shape[1])), W[:, :1] * z[0])


def _done(op: Operation, args: list, along: list[bool], size: int) -> Any:
    """One operation; `along` says which of its arguments have the batch as their last axis, of `size` members."""
    if op.name in ELEMENTWISE:
        shape = (*op.found[0].aval.shape, size)
        full = [jnp.broadcast_to(x if of else jnp.asarray(x)[..., None], shape) for x, of in zip(args, along, strict=True)]
        return op.primitive.bind(*full, **op.params)
    if op.name == "broadcast_in_dim":
        shape = op.params["shape"]
        return jax.lax.broadcast_in_dim(args[0], (*shape, size), (*op.params["broadcast_dimensions"], len(shape)))
    axes = [-1 if of else None for of in along]
    return jax.vmap(lambda *x: op.primitive.bind(*x, **op.params), in_axes=axes, out_axes=-1)(*args)
