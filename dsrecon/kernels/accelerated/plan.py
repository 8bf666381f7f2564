"""What of a step must be inside the loop over time, read off the program that the step traces to.

Of the operations of a step some depend on its parameters alone: they are done once. Some depend on its inputs, but not
on the state: where they are products they are done for all steps at once. The rest is the recurrence itself. It is run
on vectors cut into segments where the step cuts or joins them (the gates of a GRU, the halves of an LSTM's state), so
that nothing is ever cut or joined in the loop.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var
from jaxtyping import Array

from dsrecon.kernels.accelerated import gates
from dsrecon.kernels.program import ELEMENTWISE, Operation, aval, inlined, leading_to
from dsrecon.kernels.structure import vectors_alone

CUTTING = frozenset(("split", "slice", "concatenate", "pad"))

GROWS = 4
"""A product that makes this many times more numbers of its input is done in the loop: streaming them takes longer."""

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""`(parameters, carry, inputs of the step) -> (carry, what is told)`."""


class Unfused(ValueError):
    """A step that the loop kernel cannot run; the message says why."""


class Plan(NamedTuple):
    """A step, taken apart.

    - `once`: operations on parameters; `ahead`: on inputs, for all steps at once; `inside`: the recurrence, in order.
    - `parameters`, `inputs`, `carry`: variables that come in; `carried`, `told`: that go out.
    - `constants`, `streams`: variables found outside that `inside` uses, of parameters and of inputs.
    - `bounds`: where each vector inside is cut.
    - `values`: constants of the program.
    """

    once: list[Operation]
    ahead: list[Operation]
    inside: list[Operation]
    parameters: list
    inputs: list
    carry: list
    carried: list
    told: list
    constants: list
    streams: list
    bounds: dict
    values: dict


def plan(step: Step, parameters: Any, carry: Any, inputs: Any, *, units: int | None = None) -> Plan:
    """Take a step apart.

    **Arguments:** `step`; `parameters`, `carry`, `inputs`: PyTrees of arrays (or of their shapes), `inputs` of one
    step; `units`: of a cell that declares that its units do not meet, their number: every vector is then cut into
    pieces of that length.

    **Raises:** `Unfused` for a recurrence with operations that the kernel does not know, and, with `units`, for one in
    which units meet.
    """
    with vectors_alone():  # in a function of its own: JAX remembers how `step` was traced without
        operations, given, out, values = inlined(lambda *given: step(*given), parameters, carry, inputs)
    counts = [len(jax.tree.leaves(x)) for x in (parameters, carry, inputs)]
    of_parameters, of_carry = given[: counts[0]], given[counts[0] : counts[0] + counts[1]]
    of_inputs = given[counts[0] + counts[1] :]
    carried, told = out[: counts[1]], out[counts[1] :]

    level = {v: 0 for v in [*values, *of_parameters]} | {v: 1 for v in of_inputs} | {v: 2 for v in of_carry}
    for op in operations:
        highest = max((level[v] for v in op.given if isinstance(v, Var)), default=0)
        level |= {v: highest for v in op.found}

    made = {v: op for op in operations for v in op.found}
    needed, inside, ahead_roots, constants = list(out), [], [], []
    done: set = set()
    while needed:
        v = needed.pop()
        if not isinstance(v, Var) or v in done:
            continue
        done.add(v)
        if level[v] == 0:
            constants.append(v)
        elif v not in made or (level[v] == 1 and not _light(made[v], level, units)):
            if level[v] == 1:
                ahead_roots.append(v)
        else:
            inside.append(made[v])
            done |= set(made[v].found)
            needed += list(made[v].given)
    kept = {id(op) for op in inside}
    inside = [op for op in operations if id(op) in kept]
    once = [op for op in operations if level[op.found[0]] == 0]
    ahead = [op for op in leading_to(ahead_roots, operations) if level[op.found[0]] == 1]
    _check(inside, level, units)
    bounds = _bounds(inside, [*of_carry, *carried, *told], units)
    return Plan(
        once, ahead, inside, of_parameters, of_inputs, of_carry, carried, told, constants, ahead_roots, bounds, values
    )


def _light(op: Operation, level: dict, units: int | None) -> bool:
    """Whether an operation on inputs is better done where it is used, than for all steps at once before."""
    if op.name == "dot_general":
        matrices = [v for v in op.given if v.aval.ndim == 2 and level.get(v, 0) == 0]
        rows = [v for v in op.given if v.aval.ndim == 1]
        return units is None and len(matrices) == len(rows) == 1 and op.found[0].aval.size > GROWS * rows[0].aval.size
    flat = all(v.aval.ndim <= 1 for v in (*op.given, *op.found))
    return flat and (op.name in ELEMENTWISE or op.name in ("split", "slice", "broadcast_in_dim"))


def _check(inside: list[Operation], level: dict, units: int | None) -> None:
    for op in inside:
        if not _known(op, level, units):
            where = "" if units is None else f" of units that do not meet ({units} of them)"
            shapes = ", ".join(str(list(v.aval.shape)) for v in op.given)
            raise Unfused(f"the recurrence{where} holds {op.name} of {shapes}, which the loop kernel does not run.")


def _known(op: Operation, level: dict, units: int | None) -> bool:
    """Whether the kernel runs an operation. Where units do not meet it takes no sums over them."""
    arrays = [v for v in (*op.given, *op.found) if v.aval.ndim > 1]
    if op.name == "dot_general":
        (left, right), batch = op.params["dimension_numbers"]
        one = len(left) == len(right) == 1 and batch == ((), ())
        constant = [v for v in op.given if v.aval.ndim == 2 and level.get(v, 0) == 0]
        return units is None and one and len(arrays) == len(constant) <= 1
    if arrays:
        return False
    if op.name in ("reduce_sum", "reduce_max"):
        return units is None
    if op.name == "broadcast_in_dim":
        return not op.given[0].aval.ndim
    return op.name in ELEMENTWISE or op.name in CUTTING


def _bounds(inside: list[Operation], ends: list, units: int | None) -> dict:
    """Where each vector is cut: `{variable: (0, .., n)}`, the same for all that are combined number by number."""
    vectors = {v for op in inside for v in (*op.given, *op.found) if isinstance(v, Var) and aval(v).ndim == 1}
    vectors |= {v for v in ends if isinstance(v, Var) and aval(v).ndim == 1}
    size = {v: aval(v).shape[0] for v in vectors}
    if units is not None:
        wrong = [n for n in size.values() if n % units]
        if wrong:
            raise Unfused(f"a vector of {wrong[0]} numbers cannot be told apart into {units} units.")
        return {v: tuple(range(0, n + 1, units)) for v, n in size.items()}
    cuts = {v: {0, n} for v, n in size.items()}

    def together(pairs: Sequence[tuple[Any, Any, int]]) -> bool:
        """Cuts of `part`, which begins at `offset` of `whole`, are cuts of both."""
        changed = False
        for whole, part, offset in pairs:
            if not (isinstance(whole, Var) and isinstance(part, Var)) or 0 in (aval(whole).ndim, aval(part).ndim):
                continue
            n = size[part]
            down = {x - offset for x in cuts[whole] if 0 <= x - offset <= n}
            up = {x + offset for x in cuts[part]}
            for v, more in ((part, down), (whole, up)):
                if not more <= cuts[v]:
                    cuts[v] |= more
                    changed = True
        return changed

    while any([together(_related(op)) for op in inside]):
        pass
    return {v: tuple(sorted(x)) for v, x in cuts.items()}


def _related(op: Operation) -> list[tuple[Any, Any, int]]:
    """`(whole, part, offset)` of vectors of an operation that are the same numbers, or combined number by number."""
    if op.name in ELEMENTWISE:
        vectors = [v for v in (*op.given, *op.found) if v.aval.ndim == 1]
        return [(vectors[0], v, 0) for v in vectors[1:]]
    if op.name == "split":
        begins = [int(sum(op.params["sizes"][:i])) for i in range(len(op.found))]
        return [(op.given[0], v, begin) for v, begin in zip(op.found, begins, strict=True)]
    if op.name == "slice":
        if op.params["strides"] not in (None, (1,)):
            raise Unfused("the recurrence takes every n-th number of a vector, which the loop kernel does not run.")
        return [(op.given[0], op.found[0], int(op.params["start_indices"][0]))]
    if op.name == "concatenate":
        begins = [sum(v.aval.shape[0] for v in op.given[:i]) for i in range(len(op.given))]
        return [(op.found[0], v, begin) for v, begin in zip(op.given, begins, strict=True)]
    if op.name == "pad":
        low, high, inner = (int(x) for x in op.params["padding_config"][0])
        if low < 0 or high < 0 or inner:
            raise Unfused("the recurrence pads between numbers, which the loop kernel does not run.")
        return [(op.found[0], op.given[0], low)]
    return []


Segments = list[Array]
"""A vector, cut; or a number alone."""


class Machine(NamedTuple):
    """How the operations inside are run: what differs between a whole small state and a tile of many units.

    - `shape(n)`: of the lanes that a segment of `n` numbers takes; `real(n)`: which of them are numbers of it.
    - `matrix(v, axis, seen, found)`: a constant matrix between two cuts, that of its `axis`, which is summed over,
      first, and zero outside. So sums run along the registers of a lane, not from lane to lane.
    - `interpret`: whether the kernel is interpreted: no instructions of a GPU by name.
    """

    shape: Callable[[int], tuple[int, ...]]
    real: Callable[[int], Array]
    matrix: Callable[[Any, int, tuple[int, int], tuple[int, int]], Array]
    interpret: bool


def inside(made: Plan, fetch: Callable[[Any], Segments], carry: list[Segments], machine: Machine) -> tuple[list, list]:
    """Run the recurrence once: the segments of what is carried on, and of what is told."""
    known: dict = dict(zip(made.carry, carry, strict=True))

    def parts(v) -> Segments:
        if isinstance(v, Literal):
            return [jnp.asarray(v.val, aval(v).dtype)]
        if v not in known:
            known[v] = fetch(v)
        return known[v]

    def lengths(v) -> list[int]:
        cuts = made.bounds[v]
        return [b - a for a, b in pairwise(cuts)]

    for op in made.inside:
        known |= dict(zip(op.found, _done(op, parts, lengths, made.bounds, machine), strict=True))
    return [parts(v) for v in made.carried], [parts(v) for v in made.told]


def _done(op: Operation, parts, lengths, bounds: dict, machine: Machine) -> list[Segments]:
    """What one operation finds, by segment."""
    if op.name in ELEMENTWISE:
        given = [parts(v) for v in op.given]
        count = max(len(x) for x in given)
        each = [[x[i] if len(x) > 1 or v.aval.ndim else x[0] for v, x in zip(op.given, given, strict=True)]
                for i in range(count)]  # fmt: skip
        return [[_elementwise(op, args, machine) for args in each]]
    if op.name == "split":
        whole, out, at = parts(op.given[0]), [], 0
        for v in op.found:
            count = len(bounds[v]) - 1
            out.append(whole[at : at + count])
            at += count
        return out
    if op.name == "slice":
        begin = bounds[op.given[0]].index(op.params["start_indices"][0])
        return [parts(op.given[0])[begin : begin + len(bounds[op.found[0]]) - 1]]
    if op.name == "concatenate":
        return [[x for v in op.given for x in parts(v)]]
    if op.name == "pad":
        low, high, _ = op.params["padding_config"][0]
        cuts, n = bounds[op.found[0]], bounds[op.found[0]][-1]
        (fill,) = parts(op.given[1])
        before, after = cuts.index(low), len(cuts) - 1 - cuts.index(n - high)
        sizes = lengths(op.found[0])

        def filled(sizes):
            return [jnp.full(machine.shape(n), fill) for n in sizes]

        return [[*filled(sizes[:before]), *parts(op.given[0]), *filled(sizes[len(sizes) - after :])]]
    if op.name == "broadcast_in_dim":
        (x,) = parts(op.given[0])
        if not op.found[0].aval.ndim:
            return [[x]]
        return [[jnp.broadcast_to(x, machine.shape(n)) for n in lengths(op.found[0])]]
    if op.name in ("reduce_sum", "reduce_max"):
        (v,) = op.given
        least = 0 if op.name == "reduce_sum" else -jnp.inf
        reduce = jnp.sum if op.name == "reduce_sum" else jnp.max
        join = jnp.add if op.name == "reduce_sum" else jnp.maximum
        found = [reduce(jnp.where(machine.real(n), x, jnp.full_like(x, least)))
                 for n, x in zip(lengths(v), parts(v), strict=True)]  # fmt: skip
        total = found[0]
        for x in found[1:]:
            total = join(total, x)
        return [[total]]
    return [_product(op, parts, lengths, bounds, machine)]


GATES = {"logistic": gates.logistic, "tanh": gates.tanh}


def _elementwise(op: Operation, args: list, machine: Machine) -> Array:
    if op.name in GATES and jnp.ndim(args[0]) and args[0].dtype == jnp.float32:
        return GATES[op.name](args[0], machine.interpret)
    if op.name in ("stop_gradient", "copy", "copy_p"):
        return args[0]
    if op.name == "add_any":
        return args[0] + args[1]
    if op.name == "square":
        return args[0] * args[0]
    if op.name == "select_n":
        which, *cases = args
        shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in args))
        which, *cases = (jnp.broadcast_to(x, shape) for x in (which, *cases))
        return jax.lax.select_n(which, *cases)
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in args))
    args = [jnp.broadcast_to(x, shape) for x in args]
    return op.primitive.bind(*args, **op.params)


def _product(op: Operation, parts, lengths, bounds: dict, machine: Machine) -> Segments:
    """A constant matrix times a vector, either way round; or the product of two vectors."""
    (left, right), _ = op.params["dimension_numbers"]
    x, y = op.given

    def masked(v):
        return [jnp.where(machine.real(n), s, jnp.zeros_like(s)) for n, s in zip(lengths(v), parts(v), strict=True)]

    if x.aval.ndim == 1 and y.aval.ndim == 1:
        products = [jnp.sum(a * b) for a, b in zip(masked(x), masked(y), strict=True)]
        return [sum(products[1:], products[0])]
    matrix, v, axis = (x, y, left[0]) if x.aval.ndim == 2 else (y, x, right[0])
    seen, into, out = masked(v), bounds[v], bounds[op.found[0]]
    found = []
    for i in range(len(out) - 1):
        total = None
        for j, s in enumerate(seen):
            block = machine.matrix(matrix, axis, (into[j], into[j + 1]), (out[i], out[i + 1]))
            part = jnp.sum(block * s[:, None], axis=0)
            total = part if total is None else total + part
        found.append(total)
    return found
