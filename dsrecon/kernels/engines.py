"""Engines of `linear_scan`, and the rule that chooses between them.

Every engine takes `(a, b, h0, resets)` in the shapes of `linear_scan` (`h0` and `resets` may be `None`) and gives
`h` `[t, m]`. Where a reset is, the neighbour is not multiplied away but not taken (`where`), so that nothing of it
comes through, not even NaN.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.platform import nvidia
from dsrecon.kernels.structure import Form, apply, apply_to_one, form_of

ENGINES = ("auto", "sequential", "associative", "chunked", "pallas", "interpreted")

CPU_WRITTEN, ACCELERATOR_WRITTEN = 6, 8
"""Dense matrices up to this size are multiplied by components. Measured on a CPU, chunked: 4 x 4 twenty times faster
so, 6 x 6 four times, 8 x 8 three times slower."""

ASSOCIATIVE_PASSES = 5.0
"""How often the associative engine moves all of `a` and `b`, as its time says (H200, diagonal, 1 GB: 1.4 ms)."""

CHUNKED_PASSES = 7.0
"""The same of the chunked engine (2.3 ms): its loop reads `a` and `b` twice, and not at the speed of memory."""

TURN_BYTES = 28e6
"""What an accelerator could have moved while one turn of a loop is launched (8 us at 3.5 TB/s, estimated)."""

FEW_STEPS = 16
"""Up to here a loop has no more launches than the levels of a parallel scan."""


class Plan(NamedTuple):
    """How a scan is run: an engine, the steps in a block (chunked), the largest dense matrix written out."""

    engine: str
    block: int
    written: int
    loop_across: bool


def plan(engine: str, steps: int, moved: float, platform: str) -> Plan:
    """The rule: from the steps, the bytes of `a` and `b` and the platform (`"cpu"`, or an accelerator) alone.

    On a CPU the loop. It is compiled to one tight function that runs at the speed of memory, and of all the shapes in
    `docs/scans.md` none was faster otherwise; blocks of `sqrt(t)` for who asks for `"chunked"`.

    On an accelerator what counts is bytes, with `S` those `moved`, and launches, `G` bytes each (`TURN_BYTES`).
    Associative: `P S`. Chunked in blocks of `l`: `2 l G + C S + P S / l`, least at `l = sqrt(P S / 2 G)`. So the
    chunked engine serves where `(P - C) S > 2 sqrt(2 G P S)`: for large `S` where `C < P`, and else never (it is then
    for who needs its memory). Of several under `vmap` the rule sees one.
    """
    if platform == "cpu":
        engine = "sequential" if engine == "auto" else engine
        return _normal(Plan(engine, _even(steps, round(math.sqrt(steps))), CPU_WRITTEN, True))
    least = math.sqrt(ASSOCIATIVE_PASSES * moved / (2 * TURN_BYTES))
    block = _even(steps, min(max(round(least), 2), max(round(math.sqrt(steps)), 1)))
    if engine == "auto":
        chunked = 2 * math.sqrt(2 * TURN_BYTES * ASSOCIATIVE_PASSES * moved) + CHUNKED_PASSES * moved
        engine = "chunked" if chunked < ASSOCIATIVE_PASSES * moved else "associative"
        engine = "sequential" if steps <= FEW_STEPS else engine
    return _normal(Plan(engine, block, ACCELERATOR_WRITTEN, -(-steps // block) <= FEW_STEPS))


def _normal(made: Plan) -> Plan:
    """What the engine does not read is the same in every plan of it: equal plans are equal programs."""
    if made.engine == "sequential":
        return Plan("sequential", 0, 0, True)
    return made if made.engine == "chunked" else made._replace(block=0, loop_across=True)


def _even(steps: int, wanted: int) -> int:
    """The divisor of `steps` nearest to the wanted length of a block, within a factor of two, or else that length."""
    near = [l for l in range(max(wanted // 2, 1), 2 * wanted + 1) if steps % l == 0]
    return min(near, key=lambda l: abs(l - wanted), default=max(wanted, 1))


def run(
    a: Array,
    b: Array,
    h0: Array | None,
    resets: Array | None,
    *,
    reverse: bool,
    engine: str | Callable,
    transpose: bool = False,
    differentiable: bool = False,
) -> Array:
    """`h` by the engine of this name (or by this engine), for the platform that the program is compiled for.

    With `transpose` (the adjoint, which starts from 0: `h0` is then `None`) the slopes are `a^T`, read in place.
    """
    if isinstance(engine, AbstractEngine):
        options = {"reverse": reverse, "transpose": transpose, "differentiable": differentiable}
        return engine.states(a, b, h0, resets, **options)
    if callable(engine):
        a = a.swapaxes(1, 2) if transpose and a.ndim > 2 else a
        return engine(*folded(a, b, h0, resets, reverse), reverse)
    if fused(a, b, engine) and not differentiable:
        from dsrecon.kernels.accelerated.scan import scan

        a = a.swapaxes(1, 2) if transpose and a.ndim > 2 else a
        return scan(a, b, h0, resets, reverse=reverse, interpret=engine == "interpreted")
    moved = float(a.size + b.size) * b.dtype.itemsize
    cpu, other = (plan(engine, b.shape[0], moved, platform) for platform in ("cpu", "accelerator"))

    def by(plan: Plan) -> Callable:
        options: dict[str, Any] = {"plan": plan, "reverse": reverse, "transpose": transpose}
        if plan.engine == "chunked":
            return functools.partial(chunked, copies=differentiable, **options)
        return functools.partial(sequential if plan.engine == "sequential" else associative, **options)

    if cpu == other:
        return by(cpu)(a, b, h0, resets)
    return jax.lax.platform_dependent(a, b, h0, resets, cpu=by(cpu), default=by(other))


def fused(a: Array, b: Array, engine: str | Callable) -> bool:
    """Whether a kernel for GPUs serves a scan: asked for, or under `"auto"` where there is such a GPU.

    **Raises:** `ValueError` where it is asked for by name and cannot serve.
    """
    if engine not in ("auto", "pallas", "interpreted"):
        return False
    if engine == "auto" and (not nvidia() or b.shape[0] <= FEW_STEPS):
        return False
    from dsrecon.kernels.accelerated.scan import pays, supported

    why = supported(a, b)
    if engine == "auto":
        return not why and pays(a)
    if engine == "pallas" and not nvidia():
        why = f'it needs an NVIDIA GPU: JAX runs on {jax.default_backend()}; "auto" takes what there is'
    if why:
        raise ValueError(f"engine={engine!r} cannot serve: {why}.")
    return True


def folded(a: Array, b: Array, h0: Array | None, resets: Array | None, reverse: bool) -> tuple[Array, Array]:
    """The same recurrence without `h0` and `resets`: slopes of 0 at resets, `a h0` added to `b` where it starts."""
    if h0 is not None:
        first = -1 if reverse else 0
        start = b.at[first].add(apply(a[first], h0))
        b = start if resets is None else jnp.where(resets[:, None], b + apply_to_one(a, h0), start)
    if resets is not None:
        a = jnp.where(resets.reshape(-1, *[1] * (a.ndim - 1)), jnp.zeros((), a.dtype), a)
    return a, b


def sequential(a, b, h0, resets, *, plan: Plan, reverse: bool, transpose: bool) -> Array:
    """The loop over time: the reference."""
    start = jnp.zeros_like(b[0]) if h0 is None else h0

    def step(h, now):
        a, b, new = now
        before = h if new is None else jnp.where(new, start, h)
        h = apply(a, before, transpose=transpose) + b
        return h, h

    return jax.lax.scan(step, start, (a, b, resets), reverse=reverse)[1]


Part = tuple[Array, Array, Array | None]
"""`(A, B, R)` of a stretch: the state after it is `A h + B` of the state before, or `B` alone where `R`."""


def _join(form: Form, first: Part, second: Part) -> Part:
    """Two stretches as one."""
    (A1, B1, R1), (A2, B2, R2) = first, second
    A, B = form.product(A2, A1), form.product(A2, B1) + B2
    if R1 is None or R2 is None:
        return A, B, None
    R = R1 | R2
    return jnp.where(R, jnp.zeros((), A.dtype), A), jnp.where(R2, B2, B), R


def _parts(form: Form, a: Array, b: Array, resets: Array | None) -> Part:
    return form.slopes(a), form.terms(b), None if resets is None else form.marks(resets)


def associative(a, b, h0, resets, *, plan: Plan, reverse: bool, transpose: bool) -> Array:
    """`jax.lax.associative_scan` over the pairs `(a_t, b_t)`: depth `2 log2 t`, several copies of `a`."""
    form = form_of(a, transpose=transpose, written=plan.written)
    A, B, R = _parts(form, a, folded(a, b, h0, resets, reverse)[1], resets)
    A = A if R is None else jnp.where(R, jnp.zeros((), A.dtype), A)
    join = functools.partial(_join, form)
    return form.states(jax.lax.associative_scan(join, (A, B, R), reverse=reverse, axis=form.axis)[1])


def chunked(a, b, h0, resets, *, plan: Plan, reverse: bool, transpose: bool, copies: bool) -> Array:
    """Blocks of time side by side: `(A, B)` of every block by a loop over its steps, the states between the blocks,
    then the states within by the same loop again.

    `a` and `b` are read twice, in place, and nothing as large as `a` is stored. Blocks that do not divide the time are
    filled up beyond the end. With `copies` time comes to the front first: reverse mode by JAX's own rules would else
    add up as many arrays of the size of `a` as a block has steps.
    """
    form = form_of(a, transpose=transpose, written=plan.written)
    steps, blocks = b.shape[0], -(-b.shape[0] // plan.block)
    spare = blocks * plan.block - steps

    def cut(x):
        if spare:
            x = jnp.pad(x, [(spare, 0) if reverse else (0, spare)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, plan.block, *x.shape[1:])

    start = form.terms((jnp.zeros_like(b[0]) if h0 is None else h0)[None])

    def now(a, b, new) -> Part:
        """One step of every block, which begins anew from the start where `new`."""
        A, B, R = _parts(form, a, b, new)
        if R is None:
            return A, B, R
        return jnp.where(R, jnp.zeros((), A.dtype), A), jnp.where(R, form.product(A, start) + B, B), R

    def compose(part, x):
        return _join(form, part, now(*x)), None

    def advance(H, x):
        A, B, R = now(*x)
        AH = form.product(A, H) + B
        H = AH if R is None else jnp.where(R, B, AH)
        return H, form.states(H)

    xs = jax.tree.map(cut, (a, b, resets))
    walk = functools.partial(_walk, xs=xs, reverse=reverse, copies=copies)
    A, B, R = now(*jax.tree.map(lambda x: x[:, 0], xs))
    whole, _ = walk(compose, (form.unit(A), jnp.zeros_like(B), None if R is None else jnp.zeros_like(R)))
    _, h = walk(advance, _before(form, whole, start, reverse, plan.loop_across))
    h = jnp.reshape(h, (-1, b.shape[1]))
    return h[spare:] if reverse else h[:steps]


def _before(form: Form, whole: Part, start: Array, reverse: bool, loop: bool) -> Array:
    """The state that each block begins from, given `(A, B, R)` of every block."""
    axis, count = form.axis, whole[0].shape[form.axis]

    def moved_up(x, first):
        if reverse:
            return jnp.concatenate([jax.lax.slice_in_dim(x, 1, count, axis=axis), first], axis)
        return jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, count - 1, axis=axis)], axis)

    def none(x):
        return jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))

    A, B, R = whole
    parts = moved_up(A, none(A)), moved_up(B, start), None if R is None else moved_up(R, none(R))
    if not loop:
        return jax.lax.associative_scan(functools.partial(_join, form), parts, reverse=reverse, axis=axis)[1]

    def step(H, part):
        A, B, R = part
        AH = form.product(A, H) + B
        H = AH if R is None else jnp.where(R, B, AH)
        return H, H

    parts = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), parts)
    return jnp.moveaxis(jax.lax.scan(step, jnp.zeros_like(parts[1][0]), parts, reverse=reverse)[1], 0, axis)


def _walk(step: Callable, carry: Any, *, xs: Any, reverse: bool, copies: bool) -> tuple[Any, Any]:
    """`jax.lax.scan` along the second axis of `xs`, without moving it to the front unless `copies`."""
    if copies:
        front = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), xs)
        carry, ys = jax.lax.scan(step, carry, front, reverse=reverse)
        return carry, None if ys is None else jnp.moveaxis(ys, 0, 1)
    length = jax.tree.leaves(xs)[0].shape[1]

    def at(i):
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 1, keepdims=False), xs)

    kept = jax.eval_shape(step, carry, at(0))[1]
    ys = None if kept is None else jnp.zeros((kept.shape[0], length, *kept.shape[1:]), kept.dtype)

    def turn(i, now):
        carry, ys = now
        i = length - 1 - i if reverse else i
        carry, y = step(carry, at(i))
        return carry, None if ys is None else jax.lax.dynamic_update_index_in_dim(ys, y, i, 1)

    return jax.lax.fori_loop(0, length, turn, (carry, ys))
