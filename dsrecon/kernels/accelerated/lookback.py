"""The kernel of `scan`: every slope and term is read once, every state written once.

The sequence is cut into blocks of time, whose steps are read into registers and composed to one map of the state before
them. Where there are rows of channels enough for a whole GPU, a program walks along a row: it asks for the steps of the
next block before it makes the states of this one, and nobody waits for another program.

Where there are fewer, every block is a program. It tells its map to the others, looks back over the blocks before it,
composing their maps until it comes to one whose last state is known, tells its own last state, and makes its states
from the registers (decoupled look-back). Programs begin in the order of their numbers, so that whoever waits, waits for
one that has begun; GPUs start them so, and other libraries' scans rely on it too.

What is told is its own flag: numbers lie in memory as bits, at first of a NaN that no computation makes. So nobody
waits for a flag and then again for what it stands for, and nothing has to be put in order by barriers.

Inside a program a lane is a channel, or, where there are few channels, a stretch of time of one channel. All arrays are
flat, and the place of a step is that of the lane's first one plus a constant: what addresses cost, a program pays in
instructions, and Triton in time to compile, which grows with the cube of them.

References: Merrill & Garland 2016, *Single-pass parallel prefix scan with decoupled look-back*, NVIDIA NVR-2016-002;
Martin & Cundy 2018, *Parallelizing linear recurrent neural nets over sequence length*, ICLR.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dsrecon.kernels.accelerated.memory import accumulator, load, power, store

WARP = 32
"""Channels side by side, where there are as many."""

FEW = 8
"""Rows (tiles of channels, of all sequences) below which a program takes more steps, and looks back farther."""

ENOUGH = 120
"""Rows from which a program walks along each: an H200 has 132 multiprocessors."""

ABREAST = 8
"""Stretches side by side whose maps are read by all of them at once; more are composed in rounds."""


class Cut(NamedTuple):
    """How a scan is cut: channels and stretches side by side in a program, steps of a stretch, blocks looked back on.

    `window`: blocks whose maps and states are fetched at once on the way back; 0: a program walks along its row.
    """

    channels: int
    stretches: int
    steps: int
    window: int


def cut(steps: int, components: int, channels: int, sequences: int, *, walks: bool = False) -> Cut:
    """The rule, from the shape alone. `walks`: programs walk whatever the shape.

    Registers set the steps of a stretch: `c^2 + c` numbers a step, twice where a program holds those of the next block
    too. Lanes are channels while these fill a warp; beside them stretches of time: blocks of one row follow one
    another, so the fewer rows there are, the longer the blocks.
    Measured on an H200, shares of the copy: `(8, 4096, 1024)`, 256 rows walked along, 8 stretches of 32 steps .91, 4 of
    32 .88, of 24 .89, of 16 .89, of 8 .69; looking back .79. `(4, 16384, 1024)`, 128 rows: .93 and .82.
    `(8, 65536, 128)`, 32 rows, looking back, 4 stretches of 32 steps .82 (windows of 2 blocks .80), 8 of 32 .78; walked
    along in rows of 8 or 16 channels .49 to .73, looking back in rows of 16 .58. `(1, 1048576, 64)`, 2 rows, 8
    stretches of 32 steps, windows of 1, 2, 4 blocks .66, .71, .73; 4 of 32 .72. 3 x 3 blocks of one unit, 10^6 steps,
    128 stretches of 2 steps, windows of 1, 2, 4 blocks .156, .164, .196 ms.
    """
    wide, rows = min(WARP, power(channels)), sequences * -(-channels // WARP)
    walks = walks or (components == 1 and wide == WARP and rows >= ENOUGH)
    few = components == 1 and rows < FEW
    held = min({1: 32 if wide == WARP else 16, 2: 4, 3: 2, 4: 2}[components], power(steps))
    stretches = 128 // wide if wide < WARP else 8 if few or walks else 4
    return Cut(wide, min(stretches, power(-(-steps // held))), held, 0 if walks else 4 if few else 1)


def call(
    a,
    b,
    h0,
    resets,
    *,
    reverse: bool,
    adjoint: bool = False,
    interpret: bool = False,
    how: Cut | None = None,
    instead: tuple[Array, Array] | None = None,
):
    """`h_t = a_t h_{t-1} + b_t`, or, `adjoint`, `l_t = b_t + a_{t+1}^T l_{t+1}`: both in the direction of `reverse`.

    **Arguments:** of `n` sequences slopes `[n, t, c c, k]` (`[n, t, 1, 1]`: one for all channels), terms
    `[n, t, c, k]`, `h0` `[n, c, k]` (in an adjoint what is added to the first term, and only without resets), `resets`
    `[n, t]` (those of the scan, also in its adjoint); `instead`: states `[n, t, c, k]` that are there already, and
    booleans `[n]`: only of sequences where it is true are states made, in their place. Programs walk then, and where
    there is nothing to do they end at once: nobody outside of the kernel has to know.
    **Returns:** `[n, t, c, k]`.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton as plgpu

    n, t, c, k = b.shape
    held = accumulator(b.dtype)
    if how is None:
        how = cut(t, c, k, n, walks=instead is not None)
        if resets is not None or (how.window == 0 and held.itemsize > 4):  # marks, and long numbers, take registers too
            how = how._replace(steps=-(-how.steps // 2))
    tiles, blocks = -(-k // how.channels), -(-t // (how.stretches * how.steps))
    facts, rows = c * c + c + (resets is not None), n * tiles
    walks = how.window == 0
    in_place = not walks and how.stretches <= ABREAST and facts <= how.steps * c and held == b.dtype
    programs, shares = rows * (1 if walks else blocks), how.stretches > 1 and not in_place
    spec = jax.ShapeDtypeStruct
    outs = [
        spec((b.size,), b.dtype),
        spec((2 * programs * facts * how.stretches * how.channels if shares else 1,), held),
        spec((1 if walks else rows * blocks * (facts + c) * how.channels,), _BITS[held]),
    ]
    given = [a.reshape(-1), b.reshape(-1)]
    given += [] if h0 is None else [h0.reshape(-1)]
    given += [] if resets is None else [resets.astype(jnp.int8).reshape(-1)]
    aliases = {}
    if instead is not None:
        given += [instead[1].astype(jnp.int32), instead[0].reshape(-1)]
        aliases = {len(given) - 1: 0}
    elif not walks:
        given += [jnp.full(outs[2].shape, _UNTOLD[_BITS[held]], _BITS[held])]
        aliases = {len(given) - 1: 2}
    shape = _Shape(how, t, c, k, tiles, blocks, rows, facts, a.shape[2:] == (1, 1) and k > 1, in_place)
    kernel = functools.partial(
        _walk if walks else _look_back, shape=shape, has=(h0 is not None, resets is not None), reverse=reverse,
        adjoint=adjoint, interpret=interpret, held=held, **({"instead": instead is not None} if walks else {}),
    )  # fmt: skip
    found = pl.pallas_call(
        kernel,
        grid=(programs,),
        out_shape=outs,
        input_output_aliases=aliases,
        compiler_params=plgpu.CompilerParams(num_warps=max(how.channels * how.stretches // 32, 1), num_stages=1),
        interpret=interpret,
    )(*given)
    return found[0].reshape(b.shape)


_BITS = {jnp.dtype(jnp.float32): jnp.int32, jnp.dtype(jnp.float64): jnp.int64}
_UNTOLD = {jnp.int32: 0x7FEDCBA9, jnp.int64: 0x7FFEDCBA98765432}
"""A NaN by which a number not told yet is known. Arithmetic makes others; one that is read is told as another."""


class _Shape(NamedTuple):
    """Sizes of a call: its cut; steps, components, channels; tiles; blocks of a row, rows; numbers of a map.

    `in_place`: whether maps are shared where the states will be.
    """

    how: Cut
    steps: int
    c: int
    k: int
    tiles: int
    blocks: int
    rows: int
    facts: int
    one_slope: bool
    in_place: bool


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


def _walk(*refs, shape: _Shape, has, reverse, adjoint, interpret, held, instead: bool) -> None:
    """A program for a row: the steps of a block are asked for while the states of the one before it are made."""
    from jax.experimental import pallas as pl

    *read, h_ref, stretch_ref, _ = refs
    row, turns = pl.program_id(0), shape.blocks + 1
    if instead:
        read.pop()  # the states before, which lie where those made will
        turns *= load(read.pop(), row // shape.tiles)
    lanes = _Lanes(read, h_ref, stretch_ref, shape, has, reverse, adjoint, interpret, held)
    h0 = lanes.start(row)

    def turn(block, carry):
        steps, state = carry
        ahead = lanes.read(row, block)
        made = lanes.maps(steps, h0)
        earlier, whole = lanes.shared(functools.reduce(_Map.then, made), row, row, block, block)
        lanes.write(row, block - 1, made, state if earlier is None else earlier(state))
        return ahead, whole(state)

    jax.lax.fori_loop(0, turns, turn, (lanes.nothing(), h0))


def _look_back(*refs, shape: _Shape, has, reverse, adjoint, interpret, held) -> None:
    """A program for a block of a row."""
    from jax.experimental import pallas as pl

    *read, h_ref, stretch_ref, facts_ref = refs
    read.pop()  # the bits untold, which lie where facts are told
    lanes = _Lanes(read, h_ref, stretch_ref, shape, has, reverse, adjoint, interpret, held)
    program = pl.program_id(0)
    row, block = program % shape.rows, program // shape.rows  # the fewer blocks of a row at a time, the better
    h0, last = lanes.start(row), lanes.stretch == shape.how.stretches - 1
    told = _Told(facts_ref, shape, row, lanes.place, has[1], held)
    made = lanes.maps(lanes.read(row, block), h0)
    heard = told.heard(block - 1, mask=last)  # before the steps have come: the way to memory is long
    earlier, whole = lanes.shared(functools.reduce(_Map.then, made), program, row, block, 0)
    told.tell(block, 0, whole.numbers(), mask=last)
    state = told.before(block, h0, heard, asking=last)
    told.tell(block, shape.facts, whole(state), mask=last)
    state = lanes.spread(state)
    lanes.write(row, block, made, state if earlier is None else earlier(state))


class _Lanes:
    """What the lanes of a program read, hold, share and write; a lane is a channel of a stretch."""

    def __init__(self, read, h_ref, stretch_ref, shape: _Shape, has, reverse, adjoint, interpret, held):
        read, (with_start, self.with_resets) = list(read), has
        self.a_ref, self.b_ref = read.pop(0), read.pop(0)
        self.h0_ref = read.pop(0) if with_start else None
        self.resets_ref = read.pop(0) if self.with_resets else None
        self.h_ref, self.stretch_ref, self.shape, self.held = h_ref, stretch_ref, shape, held
        self.back, self.adjoint, self.interpret = -1 if reverse else 1, adjoint, interpret
        self.lane = jnp.arange(shape.how.channels * shape.how.stretches, dtype=jnp.int32)
        self.place, self.stretch = self.lane % shape.how.channels, self.lane // shape.how.channels

    def located(self, row: Array, block: Array | int) -> tuple[Array, Array, Array, Array, Array]:
        """Sequence and channel; steps before the first one of each lane, and from it to the end; the first one."""
        how, steps = self.shape.how, self.shape.steps
        sequence, channel = row // self.shape.tiles, row % self.shape.tiles * how.channels + self.place
        begin = (block * how.stretches + self.stretch) * how.steps
        left = jnp.where((channel < self.shape.k) & (block >= 0), steps - begin, 0)
        return sequence, channel, begin, left, sequence * steps + (steps - 1 - begin if self.back < 0 else begin)

    def start(self, row: Array) -> list[Array]:
        c, k = self.shape.c, self.shape.k
        if self.h0_ref is None:
            return [jnp.zeros(self.lane.shape, self.held) for _ in range(c)]
        sequence, channel, *_ = self.located(row, 0)
        at = [(sequence * c + i) * k + channel for i in range(c)]
        return [load(self.h0_ref, x, mask=channel < k).astype(self.held) for x in at]

    def read(self, row: Array, block: Array) -> list[_Map]:
        """The steps of a block, in registers; a step beyond the end changes nothing."""
        c, k, back = self.shape.c, self.shape.k, self.back
        _, channel, begin, left, first = self.located(row, block)
        wide, wide_a = c * k, 1 if self.shape.one_slope else c * c * k
        at_a = (first - back if self.adjoint else first) * wide_a + (0 if self.shape.one_slope else channel)
        at_b = first * wide + channel
        steps = []
        for u in range(self.shape.how.steps):
            there = u < left
            known = there & (begin > 0) if self.adjoint and not u else there  # behind the last step no slope lies
            new = None
            if self.resets_ref is not None:
                at = first + (back * (u - 1) if self.adjoint else back * u)
                new = load(self.resets_ref, at, mask=known) != 0
            A = [[load(self.a_ref, at_a + (back * u * wide_a + (i * c + j) * k), mask=known, other=float(i == j))
                  .astype(self.held) for j in range(c)] for i in range(c)]  # fmt: skip
            A = [list(x) for x in zip(*A, strict=True)] if self.adjoint else A
            at = [at_b + (back * u * wide + i * k) for i in range(c)]
            steps.append(_Map(A, [load(self.b_ref, x, mask=there).astype(self.held) for x in at], new))
        return steps

    def nothing(self) -> list[_Map]:
        """A block of steps that change nothing."""
        zero = [jnp.zeros(self.lane.shape, self.held)] * self.shape.c
        return [_unmoved(self.lane, _Map([], zero, self.lane < 0 if self.with_resets else None))] * self.shape.how.steps

    def maps(self, steps: list[_Map], h0: list[Array]) -> list[_Map]:
        """Each step as a map of the state before it; one with a reset begins at `h0`."""
        made = []
        for A, b, new in steps:
            if new is None:
                made.append(_Map(A, b, None))
                continue
            b = [jnp.where(new, _dot(line, h0) + x, x) for line, x in zip(A, b, strict=True)]
            made.append(_Map([[jnp.where(new, jnp.zeros_like(x), x) for x in line] for line in A], b, new))
        return made

    def shared(self, whole: _Map, program, row, block, turn) -> tuple[_Map | None, _Map]:
        """The maps of the stretches before each, and of all; `turn`: times that this program has asked before.

        In rounds, which take turns in two buffers in memory near this multiprocessor. Where one round is enough, and
        maps are of the type of the states and no more numbers than these, they lie where the states will be: what is
        never written elsewhere is 2 % of all that the kernel moves. Of a stretch that ends the sequence too early for
        its map nobody needs the map.
        """
        shape, how = self.shape, self.shape.how
        if how.stretches == 1:
            return None, whole
        if shape.in_place:
            _, channel, _, left, first = self.located(row, block)
            wide = shape.c * shape.k

            def place(i: int, s: Array) -> tuple[Array, Array]:
                far = (s - self.stretch) * how.steps + i // shape.c
                return (first + self.back * far) * wide + i % shape.c * shape.k + channel, far < left

            return _abreast(self, self.h_ref, place, whole)
        doublings, size = how.stretches.bit_length() - 1, shape.facts * self.lane.size
        rounds = 1 if how.stretches <= ABREAST else doublings + 1

        def begin(r: int) -> Array:
            return (2 * program + ((turn * rounds + r) & 1)) * size

        if rounds > 1:
            return _doubling(self, begin, whole)
        at = begin(0) + self.place
        return _abreast(
            self, self.stretch_ref, lambda i, s: (at + i * self.lane.size + s * how.channels, s >= 0), whole
        )

    def spread(self, state: list[Array]) -> list[Array]:
        """The numbers that the last stretch has, in all."""
        count = self.shape.how.stretches
        if count == 1:
            return state
        last = self.stretch == count - 1
        rows = [jnp.where(last, x, jnp.zeros_like(x)).reshape(count, -1) for x in state]
        return [jnp.broadcast_to(jnp.sum(x, 0, keepdims=True), x.shape).reshape(-1) for x in rows]

    def barrier(self) -> None:
        from jax.experimental.pallas import triton as plgpu

        if not self.interpret:
            plgpu.debug_barrier()

    def write(self, row: Array, block: Array, made: list[_Map], state: list[Array]) -> None:
        """The states of a block, from the registers."""
        c, k = self.shape.c, self.shape.k
        _, channel, _, left, first = self.located(row, block)
        for u, one in enumerate(made):
            state = one(state)
            for i, x in enumerate(state):
                at = first * (c * k) + channel + (self.back * u * c * k + i * k)
                store(self.h_ref, self.kept(at, u < left, self.h_ref), x, mask=u < left)

    def kept(self, at: Array, mask: Array, ref: Any) -> Array:
        """Interpreted, a masked lane writes back what it found, and before the first place lies the last: outside."""
        return jnp.where(mask, at, ref.shape[0]) if self.interpret else at


def _unmoved(lane: Array, like: _Map) -> _Map:
    """The map that changes nothing."""
    zero = jnp.zeros(lane.shape, like.b[0].dtype)
    A = [[jnp.full_like(zero, i == j) for j in range(len(like.b))] for i in range(len(like.b))]
    return _Map(A, [zero] * len(like.b), None if like.new is None else lane < 0)


def _abreast(lanes: _Lanes, ref, place, whole: _Map) -> tuple[_Map, _Map]:
    """In one round: the maps of all are read by all. `place`: where a number of a stretch's map lies, if it does."""
    how, c = lanes.shape.how, len(whole.b)
    for i, x in enumerate(whole.numbers()):
        at, mask = place(i, lanes.stretch)
        store(ref, lanes.kept(at, mask, ref), x, mask=mask)
    lanes.barrier()
    nothing, maps = _unmoved(lanes.lane, whole), []
    for s in range(how.stretches):
        each = [place(i, jnp.full_like(lanes.stretch, s)) for i in range(lanes.shape.facts)]
        pairs = zip(each, nothing.numbers(), strict=True)
        maps.append(_parsed([load(ref, at, mask=mask, other=x) for (at, mask), x in pairs], c, lanes.with_resets))
    lanes.barrier()
    earlier = [one.where(lanes.stretch > s, nothing) for s, one in enumerate(maps[:-1])]
    return functools.reduce(_Map.then, earlier), functools.reduce(_Map.then, maps)


def _doubling(lanes: _Lanes, buffer, whole: _Map) -> tuple[_Map, _Map]:
    """The same in `log2` rounds and one more."""
    lane, how, c, ref = lanes.lane, lanes.shape.how, len(whole.b), lanes.stretch_ref
    rounds, earlier, turn = how.stretches.bit_length() - 1, whole, buffer(0)
    for r in range(rounds + 1):
        turn = buffer(r)
        for i, x in enumerate(whole.numbers()):
            store(ref, turn + i * lane.size + lane, x, mask=lane >= 0)
        lanes.barrier()
        far = 1 if r == rounds else 1 << r
        at, mask = turn + lane - far * how.channels, lanes.stretch >= far
        earlier = _read_map(ref, at, lane.size, c, lanes.with_resets, mask=mask)
        whole = earlier.then(whole) if r < rounds else whole
    end = turn + (how.stretches - 1) * how.channels + lanes.place
    return earlier, _read_map(ref, end, lane.size, c, lanes.with_resets, mask=lane >= 0)


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

    def numbers(self, block: Array, begin: int, count: int, *, mask: Array) -> tuple[list[Array], Array]:
        """Numbers, and whether all of them have been told; where masked they are 0, and have not."""
        bits = [
            load(self.ref, self.at(block, begin + i), mask=mask, other=self.untold, volatile=True) for i in range(count)
        ]
        known = functools.reduce(jnp.logical_and, [x != self.untold for x in bits])
        zero = jnp.zeros_like(bits[0])
        return [jax.lax.bitcast_convert_type(jnp.where(known, x, zero), self.held) for x in bits], known

    def heard(self, block: Array, *, mask: Array) -> list[tuple]:
        """Of a block and those before it, as many as are asked at once: state and map."""
        c, facts = self.shape.c, self.shape.facts
        asked = [(block - j, mask & (block >= j)) for j in range(self.shape.how.window)]
        states = [self.numbers(q, facts, c, mask=mask) for q, mask in asked]
        return list(zip(states, [self.numbers(q, 0, facts, mask=mask) for q, mask in asked], strict=True))

    def before(self, block: Array, h0: list[Array], heard: list[tuple], *, asking: Array) -> list[Array]:
        """The state before a block: the nearest that is known, sent through the maps of the blocks since.

        `heard`: what the nearest ones have told already. `asking`: lanes that look, and know in the end.
        """
        c = self.shape.c
        nothing = [jnp.zeros(self.place.shape, self.held)] * c

        def look(seen, heard):
            q, way, state, done = seen
            going, passed = ~done, jnp.zeros_like(q)
            for j, ((h, known), (numbers, told)) in enumerate(heard):
                first = q == j - 1  # before all blocks lies h0
                h = [jnp.where(first, x, y) for x, y in zip(h0, h, strict=True)]
                here = going & (known | first)
                state = [jnp.where(here, x, y) for x, y in zip(way(h), state, strict=True)]
                done, going = done | here, going & ~here & told
                way = _parsed(numbers, c, self.with_resets).then(way).where(going, way)
                passed = passed + going.astype(jnp.int32)
            return q - passed, way, state, done

        way = _unmoved(self.place, _Map([], nothing, self.place < 0 if self.with_resets else None))
        seen = look((jnp.zeros_like(self.place) + (block - 1), way, nothing, ~asking), heard)
        return jax.lax.while_loop(
            lambda seen: jnp.min(seen[3].astype(jnp.int32)) == 0,
            lambda seen: look(seen, self.heard(seen[0], mask=~seen[3])),
            seen,
        )[2]
