"""The kernel of `scan`: every slope and term is read once, every state written once.

The sequence is cut into blocks of time, each a program. A program reads its steps into registers, composes them to one
map of the state before it, and tells that map to the others. It then looks back over the maps of the blocks before it
to the nearest block whose last state is already known, follows the maps from there, tells its own last state, and makes
its states from the registers (decoupled look-back). Blocks are numbered by a counter in the order in which their
programs begin, so that whoever waits, waits for one that has begun.

Inside a program a lane is a channel, or, where there are few channels, a stretch of time of one channel.

References: Merrill & Garland 2016, *Single-pass parallel prefix scan with decoupled look-back*, NVIDIA NVR-2016-002;
Martin & Cundy 2018, *Parallelizing linear recurrent neural nets over sequence length*, ICLR.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

BLOCKS = 512
"""Blocks of one tile of channels that may follow one another before programs take more steps each."""


class Cut(NamedTuple):
    """How a scan is cut: channels and stretches side by side in a program, steps of a stretch, blocks looked back on.

    `together`: maps of blocks that are fetched at once when they are followed.
    """

    channels: int
    stretches: int
    steps: int
    window: int = 32
    together: int = 8


def cut(steps: int, components: int, channels: int) -> Cut:
    """The rule, from the shape alone.

    Registers set the steps of a stretch: `c^2 + c` numbers a step. Lanes are channels while these fill a warp; beside
    them stretches of time, more where there would be more than `BLOCKS` blocks, since these follow one another.
    Measured on an H200 at `(8, 65536, 128)`, in shares of the copy: 1 stretch .20, 4 .57, 8 .47, 16 .58.
    """
    wide = min(32, _power(channels))
    held = min({1: 32, 2: 16, 3: 8, 4: 4}[components], _power(steps))
    stretches = 1 if wide == 32 else 128 // wide
    while stretches * wide < 512 and steps > BLOCKS * held * stretches:
        stretches *= 2
    stretches = min(stretches, _power(-(-steps // held)))
    return Cut(wide, stretches, held, 32, {1: 16, 2: 2}.get(components, 1))


def _power(x: int) -> int:
    """The next power of two."""
    return 1 << max(x - 1, 0).bit_length()


def call(a, b, h0, resets, states, reverse, of_reverse, outer, interpret, how) -> list[Array]:
    """Run the kernel: `reverse`, its direction; `of_reverse`, that of the scan whose adjoint it is (with `states`)."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    t, c, k = b.shape
    how = cut(t, c, k) if how is None else how
    tiles, blocks = -(-k // how.channels), -(-t // (how.stretches * how.steps))
    held = _accumulator(b.dtype)
    facts = c * c + c + c + (resets is not None)
    spec = jax.ShapeDtypeStruct
    outs = [spec(b.shape, b.dtype)]
    if outer:
        outs.append(spec((t, c * c, k), b.dtype))
    real = len(outs)
    outs += [
        spec((tiles, blocks, facts, how.channels), held),
        spec((tiles, blocks, 2, c * c + c + (resets is not None), how.stretches * how.channels), held),
        spec((tiles, blocks), jnp.int32),
        spec((tiles,), jnp.int32),
    ]
    given = [a, b]
    given += [x for x in (h0, resets if resets is None else resets.astype(jnp.int8), states) if x is not None]
    zeros = [jnp.zeros((tiles, blocks), jnp.int32), jnp.zeros((tiles,), jnp.int32)]
    kernel = functools.partial(
        _kernel, how=how, steps=t, c=c, k=k, scalar=a.shape[2] != k or (a.shape[1] == 1 and c > 1),
        has=(h0 is not None, resets is not None, states is not None, outer), reverse=reverse, of_reverse=of_reverse,
        interpret=interpret, held=held,
    )  # fmt: skip
    found = pl.pallas_call(
        kernel,
        grid=(tiles * blocks,),
        out_shape=outs,
        input_output_aliases={len(given): len(outs) - 2, len(given) + 1: len(outs) - 1},
        compiler_params=plgpu.CompilerParams(num_warps=max(how.channels * how.stretches // 32, 1), num_stages=1),
        interpret=interpret,
    )(*given, *zeros)
    return list(found[:real])


def _accumulator(dtype) -> Any:
    return jnp.float32 if jnp.dtype(dtype).itemsize == 2 else dtype


Rows = list[list[Array]]


def _kernel(*refs, how, steps, c, k, scalar, has, reverse, of_reverse, interpret, held) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    with_start, with_resets, adjoint, outer = has
    refs = list(refs)
    a_ref, b_ref = refs.pop(0), refs.pop(0)
    h0_ref = refs.pop(0) if with_start else None
    resets_ref = refs.pop(0) if with_resets else None
    states_ref = refs.pop(0) if adjoint else None
    del refs[:2]  # the zeros, which are the last two outputs
    h_ref = refs.pop(0)
    outer_ref = refs.pop(0) if outer else None
    facts_ref, stretch_ref, flags_ref, ticket_ref = refs

    tiles = ticket_ref.shape[0]
    tile = pl.program_id(0) % tiles
    block = plgpu.atomic_add(ticket_ref, (tile,), jnp.int32(1))
    lane = jnp.arange(how.channels * how.stretches, dtype=jnp.int32)
    place, stretch = lane % how.channels, lane // how.channels
    channel = tile * how.channels + place
    inside = channel < k
    begin = (block * how.stretches + stretch) * how.steps

    def barrier() -> None:
        if not interpret:
            plgpu.debug_barrier()

    def load(ref, *index, mask, other=0, **options):
        return plgpu.load(ref.at[index], mask=mask, other=other, **options)

    def time(tau: Array) -> Array:
        return jnp.where(tau < steps, steps - 1 - tau, tau) if reverse else tau  # beyond the end stays beyond the end

    back = -1 if reverse else 1  # from the step before, in the direction of this kernel, to this one

    def slopes(u: int) -> tuple[list[list[Array]], Array, Array | None]:
        """`a` of a step as rows, whether the step is there, and whether it is a reset."""
        tau = begin + u
        there = (tau < steps) & inside
        at = time(tau)
        if adjoint:  # l_t = g_t + a_{t+1}^T l_{t+1}
            at = at - back
        known = there & (tau > 0) if adjoint else there
        lanes = jnp.zeros_like(channel) if scalar else channel
        if scalar:
            one = load(a_ref, at, jnp.zeros_like(at), lanes, mask=known).astype(held)
            rows = [[one if i == j else jnp.zeros_like(one) for j in range(c)] for i in range(c)]
        else:
            rows = [[load(a_ref, at, jnp.full_like(at, i * c + j), lanes, mask=known) for j in range(c)]
                    for i in range(c)]  # fmt: skip
            rows = [[x.astype(held) for x in row] for row in rows]
        if adjoint:
            rows = [[rows[j][i] for j in range(c)] for i in range(c)]
        new = None if resets_ref is None else load(resets_ref, at, mask=known) != 0
        return rows, there, new

    def terms(u: int) -> list[Array]:
        tau = begin + u
        there = (tau < steps) & inside
        at = time(tau)
        return [load(b_ref, at, jnp.full_like(at, i), channel, mask=there).astype(held) for i in range(c)]

    def start() -> list[Array]:
        zero = jnp.zeros(lane.shape, held)
        if h0_ref is None or adjoint:
            return [zero for _ in range(c)]
        return [load(h0_ref, jnp.full_like(channel, i), channel, mask=inside).astype(held) for i in range(c)]

    # The steps of this lane, in registers; a step beyond the end changes nothing.
    h0 = start()
    loaded = [(*slopes(u), terms(u)) for u in range(how.steps)]
    made = []
    for rows, there, new, b in loaded:
        if new is not None:
            b = [jnp.where(new, _dot(row, h0) + x, x) for row, x in zip(rows, b, strict=True)]
            rows = [[jnp.where(new, jnp.zeros_like(x), x) for x in row] for row in rows]
            new = new & there
        one = [[jnp.where(there, x, jnp.ones_like(x) if i == j else jnp.zeros_like(x)) for j, x in enumerate(row)]
               for i, row in enumerate(rows)]  # fmt: skip
        made.append((one, b, new))

    def then(first, second):
        """The map of two stretches of time, one after the other: `(A, b, reset)`."""
        A, b, r = first
        B, d, s = second
        moved = [_dot(row, b) for row in B]
        if s is not None:
            b = [jnp.where(s, x, y + x) for x, y in zip(d, moved, strict=True)]
            both = _product(B, A)
            A = [[jnp.where(r | s, jnp.zeros_like(x), x) for x in row] for row in both]
            return A, b, r | s
        return _product(B, A), [x + y for x, y in zip(moved, d, strict=True)], None

    def on(found, h):
        """The state behind a stretch, from that before it."""
        A, b, r = found
        moved = [_dot(row, h) for row in A]
        if r is None:
            return [x + y for x, y in zip(moved, b, strict=True)]
        return [jnp.where(r, y, x + y) for x, y in zip(moved, b, strict=True)]

    whole = functools.reduce(then, made)

    # Stretches of the same channel, doubling: through memory, which is that of this multiprocessor.
    def told(found, ref, *index, at, mask):
        A, b, r = found
        numbers = [x for row in A for x in row] + list(b) + ([] if r is None else [r.astype(held)])
        for i, x in enumerate(numbers):
            plgpu.store(ref.at[(*index, jnp.full_like(lane, i), at)], x, mask=mask)

    def heard(ref, *index, at, mask, **options):
        def number(i, other):
            return load(ref, *index, jnp.full_like(lane, i), at, mask=mask, other=other, **options)

        A = [[number(i * c + j, float(i == j)) for j in range(c)] for i in range(c)]
        b = [number(c * c + i, 0.0) for i in range(c)]
        return A, b, (number(c * c + c, 0.0) != 0) if with_resets else None

    everyone = lane >= 0
    last = stretch == how.stretches - 1
    tile_of, block_of = jnp.full_like(lane, tile), jnp.full_like(lane, block)
    before_me = None
    if how.stretches > 1:
        rounds = how.stretches.bit_length() - 1
        for r in range(rounds + 1):
            buffer = tile_of, block_of, jnp.full_like(lane, r % 2)
            told(whole, stretch_ref, *buffer, at=lane, mask=everyone)
            barrier()
            far = 1 if r == rounds else 1 << r
            earlier = heard(stretch_ref, *buffer, at=lane - far * how.channels, mask=stretch >= far)
            if r < rounds:
                whole = then(earlier, whole)
        before_me = earlier
        whole = heard(stretch_ref, *buffer, at=(how.stretches - 1) * how.channels + place, mask=everyone)

    # What the blocks before have told.
    told(whole, facts_ref, tile_of, block_of, at=place, mask=last)
    barrier()
    plgpu.atomic_add(flags_ref, (tile, block), jnp.int32(1))
    ahead = jnp.arange(how.window, dtype=jnp.int32)

    def flags() -> tuple[Array, Array]:
        """How far back the nearest known state is, and the nearest block that has told nothing."""
        q = block - 1 - ahead
        f = load(flags_ref, jnp.full_like(q, tile), q, mask=q >= 0, volatile=True)
        f = jnp.where(q == -1, 2, f)  # before all blocks lies h0
        far = jnp.full_like(ahead, how.window)
        return jnp.min(jnp.where(f == 2, ahead, far)), jnp.min(jnp.where(f == 0, ahead, far))

    known, _ = jax.lax.while_loop(lambda seen: seen[0] >= seen[1], lambda seen: flags(), flags())
    barrier()
    from_block = block - 1 - known
    state = [
        load(facts_ref, tile_of, jnp.full_like(lane, from_block), jnp.full_like(lane, i), place,
             mask=everyone & (from_block >= 0), volatile=True)
        for i in range(facts_ref.shape[2] - c, facts_ref.shape[2])
    ]  # fmt: skip
    state = [jnp.where(from_block >= 0, x, y) for x, y in zip(state, h0, strict=True)]
    together = how.together

    def follow(i, state):
        blocks = [jnp.full_like(lane, from_block + 1 + i * together + j) for j in range(together)]
        parts = [heard(facts_ref, tile_of, q, at=place, mask=everyone & (q < block), volatile=True) for q in blocks]
        return functools.reduce(lambda state, part: on(part, state), parts, state)

    state = jax.lax.fori_loop(0, (known + together - 1) // together, follow, state)
    end = on(whole, state)
    for i, x in enumerate(end):
        plgpu.store(facts_ref.at[tile_of, block_of, facts_ref.shape[2] - c + i, place], x, mask=last)
    barrier()
    plgpu.atomic_add(flags_ref, (tile, block), jnp.int32(1))

    if before_me is not None:
        state = on(before_me, state)

    # The states, from the registers.
    for u, found in enumerate(made):
        state = on(found, state)
        tau = begin + u
        there = (tau < steps) & inside
        at = time(tau)
        for i, x in enumerate(state):
            plgpu.store(h_ref.at[at, jnp.full_like(at, i), channel], x.astype(h_ref.dtype), mask=there)
        if outer_ref is not None:
            before = at + (1 if of_reverse else -1)
            first = (at == steps - 1) if of_reverse else at == 0
            old = there & ~first
            first = first & there
            if resets_ref is not None:
                new = load(resets_ref, at, mask=there) != 0
                old, first = old & ~new, (first | new) & there
            seen = [load(states_ref, before, jnp.full_like(at, j), channel, mask=old).astype(held) for j in range(c)]
            if h0_ref is not None:
                begun = [load(h0_ref, jnp.full_like(channel, j), channel, mask=first).astype(held) for j in range(c)]
                seen = [jnp.where(first, x, y) for x, y in zip(begun, seen, strict=True)]
            for i, l in enumerate(state):
                for j, z in enumerate(seen):
                    place_of = jnp.full_like(at, i * c + j)
                    plgpu.store(outer_ref.at[at, place_of, channel], (l * z).astype(outer_ref.dtype), mask=there)


def _dot(row: list[Array], h: list[Array]) -> Array:
    return functools.reduce(jnp.add, [x * y for x, y in zip(row, h, strict=True)])


def _product(A: Rows, B: Rows) -> Rows:
    c = len(A)
    return [[_dot(A[i], [B[j][l] for j in range(c)]) for l in range(c)] for i in range(c)]
