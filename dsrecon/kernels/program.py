"""A function as the list of operations that it traces to: what depends on what, and how it is run again."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var, jaxpr_as_fun
from jaxtyping import Array

ELEMENTWISE = frozenset(
    "add sub mul div max min neg exp exp2 log log1p tanh logistic sqrt rsqrt abs sign pow integer_pow square sin cos "  # noqa: SIM905
    "erf select_n and or not xor eq ne lt le gt ge convert_element_type stop_gradient copy copy_p add_any".split()
)
SLOW = frozenset("exp exp2 log log1p tanh logistic sqrt rsqrt pow sin cos erf div".split())  # noqa: SIM905
"""Functions of a number that take many times as long as a sum."""

INLINED = frozenset(
    "jit pjit closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr checkpoint remat "  # noqa: SIM905
    "optimization_barrier reshard".split()
)

WRITTEN_OUT: dict[str, Callable] = {"one_minus_square": lambda x: (1 - x) * (1 + x)}
"""What newer versions of JAX trace to (the derivative of `tanh`), rewritten in operations that kernels know."""


def aval(v: Any) -> Any:
    """Shape and type of a variable or a literal."""
    return v.aval


class Operation(NamedTuple):
    """One operation of a step, nothing nested."""

    primitive: Any
    given: tuple
    found: tuple
    params: dict

    @property
    def name(self) -> str:
        return self.primitive.name


def inlined(function: Callable, *given: Any) -> tuple[list[Operation], list, list, dict]:
    """The program of a function: its operations, nothing nested; what comes in and goes out; its constants."""
    closed = jax.make_jaxpr(function)(*given)
    operations: list[Operation] = []
    values: dict = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    names = {v: v for v in (*closed.jaxpr.invars, *closed.jaxpr.constvars)}
    _inline(closed.jaxpr, operations, names, values)
    return operations, list(closed.jaxpr.invars), [_named(v, names) for v in closed.jaxpr.outvars], values


def _inline(jaxpr, operations: list[Operation], names: dict, values: dict) -> None:
    """Append the operations of a program, those of the programs that it calls in their place.

    A program may be called twice: its variables are made anew at each call, and `names` says what they are.
    """
    for eqn in jaxpr.eqns:
        given = tuple(_named(v, names) for v in eqn.invars)
        if eqn.primitive.name in ("optimization_barrier", "reshard"):
            names |= dict(zip(eqn.outvars, given, strict=True))
        elif eqn.primitive.name in INLINED:
            inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
            program, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
            theirs = dict(zip(program.invars, given, strict=True))
            for v, value in zip(program.constvars, consts, strict=True):
                theirs[v] = v
                values[v] = value
            _inline(program, operations, theirs, values)
            names |= {outer: _named(v, theirs) for outer, v in zip(eqn.outvars, program.outvars, strict=True)}
        elif eqn.primitive.name in WRITTEN_OUT:
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in given]
            program = jax.make_jaxpr(WRITTEN_OUT[eqn.primitive.name])(*shapes).jaxpr
            theirs = dict(zip(program.invars, given, strict=True))
            _inline(program, operations, theirs, values)
            names |= {outer: _named(v, theirs) for outer, v in zip(eqn.outvars, program.outvars, strict=True)}
        else:
            found = tuple(Var(v.aval) for v in eqn.outvars)
            names |= dict(zip(eqn.outvars, found, strict=True))
            operations.append(Operation(eqn.primitive, given, found, eqn.params))


class Work(NamedTuple):
    """What a function does with its arguments: `products` of two numbers, added up; `sums`, numbers that a cheap
    operation makes or adds up; `functions`, numbers that a dear one makes (a `tanh`, a quotient)."""

    products: int
    sums: int
    functions: int


def work(function: Callable, *given: Any) -> Work:
    """Counts of a function of arguments, or of their shapes; what does not depend on them is not counted.

    A loop of known length counts as often as it turns, any other once, and of branches the dearest.
    """
    operations, first, _, _ = inlined(function, *given)
    return _work(operations, set(first))


def _work(operations: list[Operation], moving: set) -> Work:
    found = Work(0, 0, 0)
    for op in operations:
        if any(isinstance(v, Var) and v in moving for v in op.given):
            moving |= set(op.found)
            found = Work(*map(sum, zip(found, _work_of(op), strict=True)))
    return found


def _work_of(op: Operation) -> Work:
    if op.name in ("scan", "while", "cond"):
        held = {"scan": "jaxpr", "while": "body_jaxpr", "cond": "branches"}[op.name]
        inside = op.params[held] if op.name == "cond" else [op.params[held]]
        each = []
        for closed in inside:
            operations, first, _, _ = inlined(jaxpr_as_fun(closed), *closed.in_avals)
            each.append(_work(operations, set(first)))
        return Work(*(op.params.get("length", 1) * n for n in max(each, key=sum)))
    made = max((math.prod(v.aval.shape) for v in op.found), default=0)
    if op.name == "dot_general":
        (summed, _), _ = op.params["dimension_numbers"]
        return Work(made * math.prod(op.given[0].aval.shape[i] for i in summed), 0, 0)
    if op.name.startswith(("reduce_", "cum")):
        return Work(0, max(math.prod(v.aval.shape) for v in op.given), 0)
    return Work(0, made if op.name in ELEMENTWISE - SLOW else 0, made if op.name in SLOW else 0)


def own_rules(function: Callable, *given: Any) -> list[str]:
    """Names of the parts of a function that have derivatives of their own: what is inlined has lost them."""

    def within(jaxpr) -> list[str]:
        found = []
        for eqn in jaxpr.eqns:
            if eqn.primitive.name.startswith(("custom_jvp", "custom_vjp")):
                found.append(str(eqn.params.get("name", eqn.primitive.name)))
            elif eqn.primitive.name in INLINED:
                for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
                    inner = eqn.params.get(key)
                    found += [] if inner is None else within(getattr(inner, "jaxpr", inner))
        return found

    return within(jax.make_jaxpr(function)(*given).jaxpr)


def _named(v, names: dict):
    return names[v] if isinstance(v, Var) else v


def leading_to(roots: list, operations: list[Operation]) -> list[Operation]:
    """The operations that variables come from, in order."""
    made = {v: op for op in operations for v in op.found}
    open_, kept = list(roots), set()
    while open_:
        v = open_.pop()
        if isinstance(v, Var) and v in made and id(made[v]) not in kept:
            kept.add(id(made[v]))
            open_ += list(made[v].given)
    return [op for op in operations if id(op) in kept]


def run(operations: list[Operation], known: dict) -> None:
    """Do operations in order, outside the kernel; `known` holds values by variable, and gets those found."""
    for op in operations:
        given = [v.val if isinstance(v, Literal) else known[v] for v in op.given]
        out = op.primitive.bind(*given, **op.params)
        known |= dict(zip(op.found, out if op.primitive.multiple_results else [out], strict=True))


def told_apart(function: Callable, *given: Any) -> tuple[list[Operation], set, list, list, dict]:
    """The operations of a function that depend on its arguments, the others done.

    **Arguments:** `function`: may close over parameters; `given`: its arguments, or their shapes.

    **Returns:** those operations, and those that return nothing, in order; the variables that depend on arguments; the
    arguments' own, leaf by leaf; what is returned; the values of everything else.
    """
    operations, first, last, known = inlined(function, *given)
    moving = set(first)
    kept, done = [], []
    for op in operations:
        if not op.found or any(isinstance(v, Var) and v in moving for v in op.given):
            moving |= set(op.found)
            kept.append(op)
        else:
            done.append(op)
    run(done, known)
    return kept, moving, first, last, known


def acts(op: Operation) -> bool:
    """Whether an operation does something else than to return numbers (a print, a check), so that it matters how often
    and of what it is called."""
    return not op.found or "callback" in op.name or op.name.startswith("unvmap")


def settled(function: Callable, *given: Any) -> Callable:
    """`function`, which returns one array, with all that does not depend on its arguments worked out now.

    For a loop: XLA leaves calls of a library, the singular values of a readout say, inside of it on a GPU.
    """
    operations, _, first, (last,), known = told_apart(function, *given)

    def rest(*given: Any) -> Array:
        found = known | dict(zip(first, jax.tree.leaves(given), strict=True))
        run(operations, found)
        return jnp.asarray(last.val if isinstance(last, Literal) else found[last])

    return rest
