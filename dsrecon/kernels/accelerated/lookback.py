"""The kernel of `scan`: every slope and term is read once, every state written once.

The sequence is cut into blocks of time, each a program. A program reads its steps into registers, composes them to one
map of the state before it, and tells that map to the others. It then looks back over the maps of the blocks before it
to the nearest block whose last state is already known, follows the maps from there, tells its own last state, and makes
its states from the registers (decoupled look-back). Blocks are numbered by a counter in the order in which their
programs begin, so that whoever waits, waits for one that has begun.

Inside a program a lane is a channel, or, where there are few channels, a stretch of time of one channel. All arrays are
flat, and the place of a step is that of the lane's first one plus a constant: what addresses cost, a program pays in
instructions, and Triton in time to compile, which grows with the square of them.

References: Merrill & Garland 2016, *Single-pass parallel prefix scan with decoupled look-back*, NVIDIA NVR-2016-002;
Martin & Cundy 2018, *Parallelizing linear recurrent neural nets over sequence length*, ICLR.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

BLOCKS = 1024
"""Blocks of one tile of channels that may follow one another before programs take more steps each."""

ABREAST = 8
"""Stretches side by side whose maps are read by all of them at once; more are composed in rounds."""


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
    held = min({1: 16, 2: 4, 3: 2, 4: 2}[components], _power(steps))
    stretches = 8 if wide == 32 and components == 1 else 1 if wide == 32 else 128 // wide
    while stretches * wide < 512 and steps > BLOCKS * held * stretches:
        stretches *= 2
    stretches = min(stretches, _power(-(-steps // held)))
    return Cut(wide, stretches, held, 32, {1: 16, 2: 2}.get(components, 1))


def _power(x: int) -> int:
    """The next power of two."""
    return 1 << max(x - 1, 0).bit_length()


def call(a, b, h0, resets, *, reverse: bool, adjoint: bool = False, interpret: bool = False, how: Cut | None = None):
    """`h_t = a_t h_{t-1} + b_t`, or, `adjoint`, `l_t = b_t + a_{t+1}^T l_{t+1}`: both in the direction of `reverse`.

    **Arguments:** of `n` sequences slopes `[n, t, c c, k]` (`[n, t, 1, 1]`: one for all channels), terms
    `[n, t, c, k]`, `h0` `[n, c, k]` (none in an adjoint), `resets` `[n, t]` (those of the scan, also in its adjoint).
    **Returns:** `[n, t, c, k]`.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    n, t, c, k = b.shape
    how = cut(t, c, k) if how is None else how
    tiles, blocks = -(-k // how.channels), -(-t // (how.stretches * how.steps))
    held = accumulator(b.dtype)
    facts, rows = c * c + c + (resets is not None), n * tiles
    spec = jax.ShapeDtypeStruct
    outs = [
        spec((b.size,), b.dtype),
        spec((rows * blocks * (facts + c) * how.channels,), held),
        spec((2 * rows * blocks * facts * how.stretches * how.channels if how.stretches > 1 else 1,), held),
        spec((rows * blocks,), jnp.int32),
        spec((rows,), jnp.int32),
    ]
    given = [a.reshape(-1), b.reshape(-1)]
    given += [] if h0 is None else [h0.reshape(-1)]
    given += [] if resets is None else [resets.astype(jnp.int8).reshape(-1)]
    zeros = [jnp.zeros((rows * blocks,), jnp.int32), jnp.zeros((rows,), jnp.int32)]
    shape = _Shape(how, t, c, k, tiles, blocks, facts, one_slope=a.shape[2:] == (1, 1) and k > 1)
    kernel = functools.partial(
        _kernel, shape=shape, has=(h0 is not None, resets is not None), reverse=reverse, adjoint=adjoint,
        interpret=interpret, held=held,
    )  # fmt: skip
    found = pl.pallas_call(
        kernel,
        grid=(rows * blocks,),
        out_shape=outs,
        input_output_aliases={len(given): len(outs) - 2, len(given) + 1: len(outs) - 1},
        compiler_params=plgpu.CompilerParams(num_warps=max(how.channels * how.stretches // 32, 1), num_stages=1),
        interpret=interpret,
    )(*given, *zeros)
    return found[0].reshape(b.shape)


def accumulator(dtype) -> Any:
    """The type that states are added up in."""
    return jnp.float32 if jnp.dtype(dtype).itemsize == 2 else dtype


class _Shape(NamedTuple):
    """Sizes of a call: its cut; steps, components, channels; tiles, blocks of a tile; numbers of a map that are told."""

    how: Cut
    steps: int
    c: int
    k: int
    tiles: int
    blocks: int
    facts: int
    one_slope: bool


class _Map(NamedTuple):
    """`h -> A h + b`; behind a reset (`new`) the state before it is forgotten, whatever it was."""

    A: list[list[Array]]
    b: list[Array]
    new: Array | None

    def then(self, later: "_Map") -> "_Map":
        moved = [_dot(row, self.b) for row in later.A]
        both = [[_dot(row, [x[j] for x in self.A]) for j in range(len(row))] for row in later.A]
        if later.new is None or self.new is None:
            return _Map(both, [x + y for x, y in zip(moved, later.b, strict=True)], None)
        b = [jnp.where(later.new, x, y + x) for x, y in zip(later.b, moved, strict=True)]
        new = self.new | later.new
        return _Map([[jnp.where(new, jnp.zeros_like(x), x) for x in row] for row in both], b, new)

    def __call__(self, h: list[Array]) -> list[Array]:
        moved = [_dot(row, h) for row in self.A]
        if self.new is None:
            return [x + y for x, y in zip(moved, self.b, strict=True)]
        return [jnp.where(self.new, y, x + y) for x, y in zip(moved, self.b, strict=True)]

    def where(self, kept: Array) -> "_Map":
        """This map where `kept`, else the one that changes nothing."""
        A = [[jnp.where(kept, x, jnp.full_like(x, i == j)) for j, x in enumerate(row)] for i, row in enumerate(self.A)]
        b = [jnp.where(kept, x, jnp.zeros_like(x)) for x in self.b]
        return _Map(A, b, None if self.new is None else self.new & kept)

    def numbers(self) -> list[Array]:
        told = [x for row in self.A for x in row] + self.b
        return told if self.new is None else [*told, self.new.astype(told[0].dtype)]


def _dot(row: list[Array], h: list[Array]) -> Array:
    return functools.reduce(jnp.add, [x * y for x, y in zip(row, h, strict=True)])


def _load(ref, at, *, mask, other=0, **options) -> Array:
    from jax.experimental.pallas import triton as plgpu

    return plgpu.load(ref.at[(at,)], mask=mask, other=other, **options)


def _store(ref, at, x, *, mask) -> None:
    from jax.experimental.pallas import triton as plgpu

    plgpu.store(ref.at[(at,)], x.astype(ref.dtype), mask=mask)


def _read_map(ref, at, far: int, c: int, with_resets: bool, **options) -> _Map:
    """A map whose numbers lie `far` apart; where it is masked, the one that changes nothing."""
    A = [[_load(ref, at + (i * c + j) * far, other=float(i == j), **options) for j in range(c)] for i in range(c)]
    b = [_load(ref, at + (c * c + i) * far, **options) for i in range(c)]
    return _Map(A, b, _load(ref, at + (c * c + c) * far, **options) != 0 if with_resets else None)


def _kernel(*refs, shape: _Shape, has, reverse, adjoint, interpret, held) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    with_start, with_resets = has
    refs = list(refs)
    a_ref, b_ref = refs.pop(0), refs.pop(0)
    h0_ref = refs.pop(0) if with_start else None
    resets_ref = refs.pop(0) if with_resets else None
    h_ref, facts_ref, stretch_ref, flags_ref, ticket_ref = refs[2:]  # before them the zeros, which are the last two

    how, c, k = shape.how, shape.c, shape.k
    row = pl.program_id(0) % ticket_ref.shape[0]  # rows side by side: the fewer blocks of one are under way, the better
    sequence, tile = row // shape.tiles, row % shape.tiles
    block = plgpu.atomic_add(ticket_ref, (row,), jnp.int32(1))
    lane = jnp.arange(how.channels * how.stretches, dtype=jnp.int32)
    place, stretch = lane % how.channels, lane // how.channels
    channel = tile * how.channels + place
    begin = (block * how.stretches + stretch) * how.steps
    left = jnp.where(channel < k, shape.steps - begin, 0)

    def barrier() -> None:
        if not interpret:
            plgpu.debug_barrier()

    # The steps of this lane, in registers; a step beyond the end changes nothing.
    back = -1 if reverse else 1
    first = sequence * shape.steps + (shape.steps - 1 - begin if reverse else begin)
    zero = jnp.zeros(lane.shape, held)
    h0 = [zero for _ in range(c)]
    if h0_ref is not None:
        h0 = [_load(h0_ref, (sequence * c + i) * k + channel, mask=channel < k).astype(held) for i in range(c)]
    wide, wide_a = c * k, 1 if shape.one_slope else c * c * k
    at_a = (first - back if adjoint else first) * wide_a + (0 if shape.one_slope else channel)
    at_b = first * wide + channel
    made = []
    for u in range(how.steps):
        there = u < left
        known = there & (begin > 0) if adjoint and not u else there  # behind the last step no slope lies
        new = None
        if resets_ref is not None:
            new = _load(resets_ref, first + (back * (u - 1) if adjoint else back * u), mask=known) != 0
        A = [[_load(a_ref, at_a + (back * u * wide_a + (i * c + j) * k), mask=known, other=float(i == j)).astype(held)
              for j in range(c)] for i in range(c)]  # fmt: skip
        A = [list(x) for x in zip(*A, strict=True)] if adjoint else A
        b = [_load(b_ref, at_b + (back * u * wide + i * k), mask=there).astype(held) for i in range(c)]
        if new is not None:
            b = [jnp.where(new, _dot(line, h0) + x, x) for line, x in zip(A, b, strict=True)]
            A = [[jnp.where(new, jnp.zeros_like(x), x) for x in line] for line in A]
        made.append(_Map(A, b, new))
    whole = functools.reduce(_Map.then, made)

    # The stretches of one channel: those before mine, and all of them.
    mine = None
    if how.stretches > 1:
        at = (row * shape.blocks + block) * (2 * shape.facts * lane.size)
        share = _abreast if how.stretches <= ABREAST else _doubling
        mine, whole = share(stretch_ref, at, whole, lane, how, with_resets, barrier)

    # What the blocks before have told.
    size = (shape.facts + c) * how.channels
    facts_at = row * shape.blocks * size
    last = stretch == how.stretches - 1
    for i, x in enumerate(whole.numbers()):
        _store(facts_ref, facts_at + block * size + i * how.channels + place, x, mask=last)
    barrier()
    plgpu.atomic_add(flags_ref, (row * shape.blocks + block,), jnp.int32(1))
    state = _looked_back(facts_ref, flags_ref, shape, row, block, facts_at, place, h0, with_resets, barrier)
    for i, x in enumerate(whole(state)):
        _store(facts_ref, facts_at + block * size + (shape.facts + i) * how.channels + place, x, mask=last)
    barrier()
    plgpu.atomic_add(flags_ref, (row * shape.blocks + block,), jnp.int32(1))
    state = state if mine is None else mine(state)

    # The states, from the registers.
    for u, one in enumerate(made):
        state = one(state)
        for i, x in enumerate(state):
            _store(h_ref, at_b + (back * u * wide + i * k), x, mask=u < left)


def _abreast(ref, at, whole: _Map, lane, how: Cut, with_resets: bool, barrier) -> tuple[_Map, _Map]:
    """The maps of the stretches before each, and of all, through memory near this multiprocessor: all read by all."""
    for i, x in enumerate(whole.numbers()):
        _store(ref, at + i * lane.size + lane, x, mask=lane >= 0)
    barrier()
    c, place = len(whole.b), lane % how.channels
    maps = [_read_map(ref, at + s * how.channels + place, lane.size, c, with_resets, mask=lane >= 0)
            for s in range(how.stretches)]  # fmt: skip
    earlier = [one.where(lane // how.channels > s) for s, one in enumerate(maps[:-1])]
    return functools.reduce(_Map.then, earlier), functools.reduce(_Map.then, maps)


def _doubling(ref, at, whole: _Map, lane, how: Cut, with_resets: bool, barrier) -> tuple[_Map, _Map]:
    """The same in `log2` rounds, which take turns in two buffers."""
    c, rounds, stretch = len(whole.b), how.stretches.bit_length() - 1, lane // how.channels
    earlier, turn = whole, at
    for r in range(rounds + 1):
        turn = at + (r % 2) * len(whole.numbers()) * lane.size
        for i, x in enumerate(whole.numbers()):
            _store(ref, turn + i * lane.size + lane, x, mask=lane >= 0)
        barrier()
        far = 1 if r == rounds else 1 << r
        earlier = _read_map(ref, turn + lane - far * how.channels, lane.size, c, with_resets, mask=stretch >= far)
        whole = earlier.then(whole) if r < rounds else whole
    end = turn + (how.stretches - 1) * how.channels + lane % how.channels
    return earlier, _read_map(ref, end, lane.size, c, with_resets, mask=lane >= 0)


def _looked_back(facts_ref, flags_ref, shape, row, block, facts_at, place, h0, with_resets, barrier) -> list[Array]:
    """The state before a block: the nearest that is known, sent through the maps of the blocks since."""
    how, c = shape.how, shape.c
    size = (shape.facts + c) * how.channels
    ahead = jnp.arange(how.window, dtype=jnp.int32)

    def flags() -> tuple[Array, Array]:
        """How far back the nearest known state is, and the nearest block that has told nothing."""
        q = block - 1 - ahead
        f = _load(flags_ref, row * shape.blocks + q, mask=q >= 0, volatile=True)
        f = jnp.where(q == -1, 2, f)  # before all blocks lies h0
        far = jnp.full_like(ahead, how.window)
        return jnp.min(jnp.where(f == 2, ahead, far)), jnp.min(jnp.where(f == 0, ahead, far))

    known, _ = jax.lax.while_loop(lambda seen: seen[0] >= seen[1], lambda seen: flags(), flags())
    barrier()
    origin = block - 1 - known
    at = facts_at + origin * size + place
    there = (place >= 0) & (origin >= 0)
    state = [_load(facts_ref, at + (shape.facts + i) * how.channels, mask=there, volatile=True) for i in range(c)]
    state = [jnp.where(origin >= 0, x, y) for x, y in zip(state, h0, strict=True)]

    def follow(i, state):
        for j in range(1, how.together + 1):
            q = origin + i * how.together + j
            there = (place >= 0) & (q < block)
            one = _read_map(
                facts_ref, facts_at + q * size + place, how.channels, c, with_resets, mask=there, volatile=True
            )
            state = one(state)
        return state

    return jax.lax.fori_loop(0, (known + how.together - 1) // how.together, follow, state)
