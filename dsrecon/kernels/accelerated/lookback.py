"""The kernel of `scan`: every slope and term is read once, every state written once.

The sequence is cut into blocks of time, each a program. A program reads its steps into registers, composes them to one
map of the state before it, and tells that map to the others. It then looks back over the blocks before it, composing
their maps until it comes to one whose last state is known; it tells its own last state, and makes its states from the
registers (decoupled look-back). Programs begin in the order of their numbers, so that whoever waits, waits for one that
has begun; GPUs start them so, and other libraries' scans rely on it too.

What is told is its own flag: numbers lie in memory as bits, at first of a NaN that no computation makes. So nobody
waits for a flag and then again for what it stands for, and nothing has to be put in order by barriers.

Inside a program a lane is a channel, or, where there are few channels, a stretch of time of one channel. All arrays are
flat, and the place of a step is that of the lane's first one plus a constant: what addresses cost, a program pays in
instructions, and Triton in time to compile, which grows with the cube of them.

References: Merrill & Garland 2016, *Single-pass parallel prefix scan with decoupled look-back*, NVIDIA NVR-2016-002;
Martin & Cundy 2018, *Parallelizing linear recurrent neural nets over sequence length*, ICLR.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon.kernels.accelerated.memory import accumulator, load, power, store

WARP = 32
"""Channels side by side, where there are as many."""

FEW = 8
"""Rows (tiles of channels, of all sequences) below which a program takes more steps, and looks back farther."""

ABREAST = 8
"""Stretches side by side whose maps are read by all of them at once; more are composed in rounds."""


class Cut(NamedTuple):
    """How a scan is cut: channels and stretches side by side in a program, steps of a stretch, blocks looked back on.

    `window`: blocks whose maps and states are fetched at once on the way back.
    """

    channels: int
    stretches: int
    steps: int
    window: int


def cut(steps: int, components: int, channels: int, rows: int) -> Cut:
    """The rule, from the shape alone; `rows`: tiles of channels, of all sequences together.

    Registers set the steps of a stretch: `c^2 + c` numbers a step. Lanes are channels while these fill a warp; beside
    them stretches of time: blocks of one row follow one another, so the fewer rows there are, the longer the blocks.
    Measured on an H200, shares of the copy: `(8, 4096, 1024)`, 256 rows, 1, 2, 4 stretches of 32 steps .70, .72, .77;
    `(8, 65536, 128)`, 32 rows, 4 stretches .77, 8 of them .71, windows of 2, 4, 8 blocks .77, .73, .73;
    `(1, 1048576, 64)`, 2 rows, 8 stretches of 16 steps .45, of 32 .64, 16 of 32 .61; 3 x 3 blocks of one unit, 10^6
    steps, 128 stretches of 2 steps .22 ms, 256 .24 ms.
    """
    wide = min(WARP, power(channels))
    few = components == 1 and rows < FEW
    held = min({1: 32 if wide == WARP else 16, 2: 4, 3: 2, 4: 2}[components], power(steps))
    stretches = 128 // wide if wide < WARP else 8 if few else 4
    return Cut(wide, min(stretches, power(-(-steps // held))), held, 8 if few else 2)


def call(a, b, h0, resets, *, reverse: bool, adjoint: bool = False, interpret: bool = False, how: Cut | None = None):
    """`h_t = a_t h_{t-1} + b_t`, or, `adjoint`, `l_t = b_t + a_{t+1}^T l_{t+1}`: both in the direction of `reverse`.

    **Arguments:** of `n` sequences slopes `[n, t, c c, k]` (`[n, t, 1, 1]`: one for all channels), terms
    `[n, t, c, k]`, `h0` `[n, c, k]` (in an adjoint what is added to the first term, and only without resets), `resets`
    `[n, t]` (those of the scan, also in its adjoint).
    **Returns:** `[n, t, c, k]`.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    n, t, c, k = b.shape
    if how is None:
        how = cut(t, c, k, n * -(-k // WARP))
        how = how if resets is None else how._replace(steps=-(-how.steps // 2))  # whose marks take registers too
    tiles, blocks = -(-k // how.channels), -(-t // (how.stretches * how.steps))
    held = accumulator(b.dtype)
    facts, rows = c * c + c + (resets is not None), n * tiles
    spec = jax.ShapeDtypeStruct
    outs = [
        spec((b.size,), b.dtype),
        spec((2 * rows * blocks * facts * how.stretches * how.channels if how.stretches > 1 else 1,), held),
        spec((rows * blocks * (facts + c) * how.channels,), _BITS[held]),
    ]
    given = [a.reshape(-1), b.reshape(-1)]
    given += [] if h0 is None else [h0.reshape(-1)]
    given += [] if resets is None else [resets.astype(jnp.int8).reshape(-1)]
    untold = jnp.full(outs[2].shape, _UNTOLD[_BITS[held]], _BITS[held])
    shape = _Shape(how, t, c, k, tiles, blocks, rows, facts, one_slope=a.shape[2:] == (1, 1) and k > 1)
    kernel = functools.partial(
        _kernel, shape=shape, has=(h0 is not None, resets is not None), reverse=reverse, adjoint=adjoint,
        interpret=interpret, held=held,
    )  # fmt: skip
    found = pl.pallas_call(
        kernel,
        grid=(rows * blocks,),
        out_shape=outs,
        input_output_aliases={len(given): 2},
        compiler_params=plgpu.CompilerParams(num_warps=max(how.channels * how.stretches // 32, 1), num_stages=1),
        interpret=interpret,
    )(*given, untold)
    return found[0].reshape(b.shape)


_BITS = {jnp.dtype(jnp.float32): jnp.int32, jnp.dtype(jnp.float64): jnp.int64}
_UNTOLD = {jnp.int32: 0x7FEDCBA9, jnp.int64: 0x7FFEDCBA98765432}
"""A NaN by which a number not told yet is known. Arithmetic makes others; one that is read is told as another."""


class _Shape(NamedTuple):
    """Sizes of a call: its cut; steps, components, channels; tiles; blocks of a row, rows; numbers of a map."""

    how: Cut
    steps: int
    c: int
    k: int
    tiles: int
    blocks: int
    rows: int
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

    def where(self, kept: Array, other: "_Map") -> "_Map":
        """This map where `kept`, else the other."""
        A = [[jnp.where(kept, x, y) for x, y in zip(*rows, strict=True)] for rows in zip(self.A, other.A, strict=True)]
        b = [jnp.where(kept, x, y) for x, y in zip(self.b, other.b, strict=True)]
        return _Map(A, b, None if self.new is None or other.new is None else (kept & self.new) | (~kept & other.new))

    def numbers(self) -> list[Array]:
        told = [x for row in self.A for x in row] + self.b
        return told if self.new is None else [*told, self.new.astype(told[0].dtype)]


def _dot(row: list[Array], h: list[Array]) -> Array:
    return functools.reduce(jnp.add, [x * y for x, y in zip(row, h, strict=True)])


def _parsed(numbers: list[Array], c: int, with_resets: bool) -> _Map:
    """A map of its `numbers()`."""
    A = [numbers[i * c : (i + 1) * c] for i in range(c)]
    return _Map(A, numbers[c * c : c * c + c], numbers[-1] != 0 if with_resets else None)


def _read_map(ref, at, far: int, c: int, with_resets: bool, *, mask: Array) -> _Map:
    """A map whose numbers lie `far` apart; where it is masked, the one that changes nothing."""
    others = [float(i == j) for i in range(c) for j in range(c)] + [0.0] * (c + with_resets)
    return _parsed([load(ref, at + i * far, mask=mask, other=x) for i, x in enumerate(others)], c, with_resets)


def _kernel(*refs, shape: _Shape, has, reverse, adjoint, interpret, held) -> None:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    with_start, with_resets = has
    refs = list(refs)
    a_ref, b_ref = refs.pop(0), refs.pop(0)
    h0_ref = refs.pop(0) if with_start else None
    resets_ref = refs.pop(0) if with_resets else None
    h_ref, stretch_ref, facts_ref = refs[1:]  # before them the bits untold, which are the last of these

    how, c, k = shape.how, shape.c, shape.k
    program = pl.program_id(0)
    row, block = program % shape.rows, program // shape.rows  # the fewer blocks of a row at a time, the better
    sequence, tile = row // shape.tiles, row % shape.tiles
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
        h0 = [load(h0_ref, (sequence * c + i) * k + channel, mask=channel < k).astype(held) for i in range(c)]
    wide, wide_a = c * k, 1 if shape.one_slope else c * c * k
    at_a = (first - back if adjoint else first) * wide_a + (0 if shape.one_slope else channel)
    at_b = first * wide + channel
    made = []
    for u in range(how.steps):
        there = u < left
        known = there & (begin > 0) if adjoint and not u else there  # behind the last step no slope lies
        new = None
        if resets_ref is not None:
            new = load(resets_ref, first + (back * (u - 1) if adjoint else back * u), mask=known) != 0
        A = [[load(a_ref, at_a + (back * u * wide_a + (i * c + j) * k), mask=known, other=float(i == j)).astype(held)
              for j in range(c)] for i in range(c)]  # fmt: skip
        A = [list(x) for x in zip(*A, strict=True)] if adjoint else A
        b = [load(b_ref, at_b + (back * u * wide + i * k), mask=there).astype(held) for i in range(c)]
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
    told = _Told(facts_ref, shape, row, place, with_resets, held)
    last = stretch == how.stretches - 1
    told.tell(block, 0, whole.numbers(), mask=last)
    state = told.before(block, h0)
    told.tell(block, shape.facts, whole(state), mask=last)
    state = state if mine is None else mine(state)

    # The states, from the registers.
    for u, one in enumerate(made):
        state = one(state)
        for i, x in enumerate(state):
            at = at_b + (back * u * wide + i * k)
            if interpret:  # there a masked lane writes back what it found, and a place before the first is the last
                at = jnp.where(u < left, at, h_ref.shape[0])
            store(h_ref, at, x, mask=u < left)


def _unmoved(lane: Array, like: _Map) -> _Map:
    """The map that changes nothing."""
    zero = jnp.zeros(lane.shape, like.b[0].dtype)
    A = [[jnp.full_like(zero, i == j) for j in range(len(like.b))] for i in range(len(like.b))]
    return _Map(A, [zero] * len(like.b), None if like.new is None else lane < 0)


def _abreast(ref, at, whole: _Map, lane, how: Cut, with_resets: bool, barrier) -> tuple[_Map, _Map]:
    """The maps of the stretches before each, and of all, through memory near this multiprocessor: all read by all."""
    for i, x in enumerate(whole.numbers()):
        store(ref, at + i * lane.size + lane, x, mask=lane >= 0)
    barrier()
    c, place = len(whole.b), lane % how.channels
    maps = [_read_map(ref, at + s * how.channels + place, lane.size, c, with_resets, mask=lane >= 0)
            for s in range(how.stretches)]  # fmt: skip
    nothing = _unmoved(lane, maps[0])
    earlier = [one.where(lane // how.channels > s, nothing) for s, one in enumerate(maps[:-1])]
    return functools.reduce(_Map.then, earlier), functools.reduce(_Map.then, maps)


def _doubling(ref, at, whole: _Map, lane, how: Cut, with_resets: bool, barrier) -> tuple[_Map, _Map]:
    """The same in `log2` rounds, which take turns in two buffers."""
    c, rounds, stretch = len(whole.b), how.stretches.bit_length() - 1, lane // how.channels
    earlier, turn = whole, at
    for r in range(rounds + 1):
        turn = at + (r % 2) * len(whole.numbers()) * lane.size
        for i, x in enumerate(whole.numbers()):
            store(ref, turn + i * lane.size + lane, x, mask=lane >= 0)
        barrier()
        far = 1 if r == rounds else 1 << r
        earlier = _read_map(ref, turn + lane - far * how.channels, lane.size, c, with_resets, mask=stretch >= far)
        whole = earlier.then(whole) if r < rounds else whole
    end = turn + (how.stretches - 1) * how.channels + lane % how.channels
    return earlier, _read_map(ref, end, lane.size, c, with_resets, mask=lane >= 0)


class _Told:
    """What the blocks of a row tell one another: the map of each, and, when it is known, the state behind it."""

    def __init__(self, ref, shape: _Shape, row: Array, place: Array, with_resets: bool, held):
        self.ref, self.shape, self.place, self.with_resets, self.held = ref, shape, place, with_resets, held
        self.size = (shape.facts + shape.c) * shape.how.channels
        self.begin = row * shape.blocks * self.size
        self.bits = _BITS[held]
        self.untold = jnp.asarray(_UNTOLD[self.bits], self.bits)

    def at(self, block: Array, i: int) -> Array:
        return self.begin + block * self.size + i * self.shape.how.channels + self.place

    def tell(self, block, begin: int, numbers: list[Array], *, mask: Array) -> None:
        for i, x in enumerate(numbers):
            bits = jax.lax.bitcast_convert_type(x, self.bits)
            bits = jnp.where(bits == self.untold, bits + 1, bits)
            store(self.ref, self.at(block, begin + i), bits, mask=mask)

    def heard(self, block: Array, begin: int, count: int, *, mask: Array) -> tuple[list[Array], Array]:
        """Numbers, and whether all of them have been told; where masked they are 0, and have not."""
        bits = [
            load(self.ref, self.at(block, begin + i), mask=mask, other=self.untold, volatile=True) for i in range(count)
        ]
        known = functools.reduce(jnp.logical_and, [x != self.untold for x in bits])
        zero = jnp.zeros_like(bits[0])
        return [jax.lax.bitcast_convert_type(jnp.where(known, x, zero), self.held) for x in bits], known

    def before(self, block: Array, h0: list[Array]) -> list[Array]:
        """The state before a block: the nearest that is known, sent through the maps of the blocks since."""
        c, facts, never = self.shape.c, self.shape.facts, self.place < 0
        nothing = [jnp.zeros(self.place.shape, self.held)] * c

        def look(seen):
            q, way, state, done = seen
            masks = [(q >= j) & ~done for j in range(self.shape.how.window)]
            states = [self.heard(q - j, facts, c, mask=mask) for j, mask in enumerate(masks)]
            maps = [self.heard(q - j, 0, facts, mask=mask) for j, mask in enumerate(masks)]
            going, passed = ~done, jnp.zeros_like(q)
            for j, ((h, known), (numbers, told)) in enumerate(zip(states, maps, strict=True)):
                first = q == j - 1  # before all blocks lies h0
                h = [jnp.where(first, x, y) for x, y in zip(h0, h, strict=True)]
                here = going & (known | first)
                state = [jnp.where(here, x, y) for x, y in zip(way(h), state, strict=True)]
                done, going = done | here, going & ~here & told
                way = _parsed(numbers, c, self.with_resets).then(way).where(going, way)
                passed = passed + going.astype(jnp.int32)
            return q - passed, way, state, done

        way = _unmoved(self.place, _Map([], nothing, never if self.with_resets else None))
        start = jnp.zeros_like(self.place) + (block - 1), way, nothing, never
        return jax.lax.while_loop(lambda seen: jnp.min(seen[3].astype(jnp.int32)) == 0, look, start)[2]
