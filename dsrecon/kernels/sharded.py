"""`linear_scan` over several devices: every device its stretch of time, and one all-gather of what stretches do."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from dsrecon.kernels import shift
from dsrecon.kernels.adjoint import costates_by_states, costates_of_scan
from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.engines import ENGINES, fused, run
from dsrecon.kernels.stretch import last_map
from dsrecon.kernels.structure import BLOCKS, DENSE, apply

Summary = Callable[..., tuple[Array, Array]]
"""`(a, b, resets, reverse=, transpose=, early=, inside=) -> (A, B)`: what a stretch does, as `stretch.last_map`."""


@dataclasses.dataclass(frozen=True)
class Sharded(AbstractEngine):
    """The engine of `linear_scan` for a sequence that is spread over several devices, a stretch of time each.

    Wherever an engine is asked for: `linear_scan(a, b, engine=Sharded(mesh, "time"))`,
    `Newton(engine=Sharded(mesh, "time"))`. The sequence is best there already,
    `jax.device_put(x, sharded.placement)`, else it is sent first. The adjoint is spread in the same way.

    With `A_k`, `B_k` the map of the stretch of device `k` (the product of its slopes, and its last state from 0):

        1. every device finds (A_k, B_k), and one all-gather shares them, `n (p + m)` numbers;
        2. every device combines those before it, h_k = A_{k-1} h_{k-1} + B_{k-1};
        3. every device scans its own stretch from h_k with `engine`.

    Step 1 reads the stretch from its end, and stops where the product of slopes has become smaller than the smallest
    normal number: what lies before then reaches the next device no more. Of a recurrence that forgets within its
    stretch it reads a small part, so that n devices take about an n-th of the time of one; of one that does not forget
    (`|a| = 1`) all, and then every element is read twice.

    Infinity and NaN pass from stretch to stretch as on one device. Where a stretch ends in them and its map did not
    say so, the states are handed from device to device, which takes as long as on one device, with kernels longer.

    A length that the devices do not divide is filled up at its end with steps that change nothing (`a = 1`, `b = 0`).
    Arguments and states are then whole on every device: it is right, but saves no memory.

    **Arguments:**

    - `mesh`, `axis`: the devices, in the order of time, are those along this axis of the mesh, whose type is `Auto`.
    - `engine`: that of `linear_scan` on each device.
    - `summary`: what finds `(A_k, B_k)` in step 1, `stretch.last_map` or another with its arguments.

    **Raises:** `ValueError` for an axis that the mesh does not have or that is not `Auto`, and an unknown engine.

    Reference: Blelloch 1990, *Prefix sums and their applications*, CMU-CS-90-190; Sun et al. 2025, *LASP-2: rethinking
    sequence parallelism for linear attention and its hybrid*, arXiv:2502.07563 (one all-gather of the states).
    """

    mesh: Mesh
    axis: str = "time"
    engine: str | Callable = "auto"
    summary: Summary = last_map

    def __post_init__(self):
        if self.axis not in self.mesh.axis_names:
            raise ValueError(f"axis must be one of the mesh, {self.mesh.axis_names}: got {self.axis!r}.")
        kind = self.mesh.axis_types[self.mesh.axis_names.index(self.axis)]
        if kind != AxisType.Auto:
            raise ValueError(
                "axis must be of type Auto, as jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Auto,)) makes it: "
                f"{self.axis!r} is {kind}."
            )
        if not (callable(self.engine) or self.engine in ENGINES):
            raise ValueError(
                f"engine must be one of {ENGINES} or a function (a, b, reverse) -> h: got {self.engine!r}."
            )

    @property
    def devices(self) -> int:
        """How many stretches of time there are."""
        return self.mesh.shape[self.axis]

    @property
    def placement(self) -> NamedSharding:
        """Where `a`, `b`, states and inputs, all with time as their first axis, belong."""
        return NamedSharding(self.mesh, PartitionSpec(self.axis))

    def __call__(self, a: Array, b: Array, reverse: bool) -> Array:
        """The recurrence from 0, without resets: the engine as a function."""
        return self.states(a, b, None, None, reverse=reverse, transpose=False, differentiable=False)

    def states(
        self,
        a: Array,
        b: Array,
        h0: Array | None,
        resets: Array | None,
        *,
        reverse: bool,
        transpose: bool,
        differentiable: bool,
    ) -> Array:
        """As `engines.run`, which hands everything on to here."""
        steps, spare = b.shape[0], -b.shape[0] % self.devices
        if spare:
            a, b, resets = jax.tree.map(self._everywhere, (a, b, resets))
            a, b = _filled(a, spare), jnp.pad(b, ((0, spare), (0, 0)))
            resets = None if resets is None else jnp.pad(resets, (0, spare))
        time, everywhere = PartitionSpec(self.axis), PartitionSpec()
        over = functools.partial(
            _stretch, self, reverse=reverse, transpose=transpose, differentiable=differentiable, start=h0 is not None
        )
        start = jnp.zeros_like(b, shape=b.shape[1:]) if h0 is None else h0
        placed = (time, time, everywhere, None if resets is None else time)
        h = self._spread(over, placed, time)(a, b, start, resets)
        return self._everywhere(h[:steps]) if spare else h

    def costates(self, a: Array, h_bar: Array, resets: Array | None, *, reverse: bool) -> Array:
        """The adjoint recurrence in stretches; `costates_by_states` where there are resets or steps left over."""
        if resets is not None or self._left_over(h_bar):
            return costates_by_states(a, h_bar, resets, reverse=reverse, engine=self)
        time = PartitionSpec(self.axis)
        return self._spread(functools.partial(_costates, self, reverse=reverse), (time, time), time)(a, h_bar)

    def shifted(self, x: Array, edge: Array, *, later: bool) -> Array:
        """One step travels from each device to the next."""
        if self._left_over(x):
            return shift.shifted(x, edge, later=later)
        end, away = (0, -1) if later else (-1, 1)
        onward = [(k, k + away) for k in range(self.devices) if 0 <= k + away < self.devices]

        def moved(x, edge):
            arriving = jax.lax.ppermute(x[end], self.axis, onward)
            last = jax.lax.axis_index(self.axis) == (self.devices - 1 if later else 0)
            return shift.shifted(x, jnp.where(last, edge, arriving), later=later)

        time, everywhere = PartitionSpec(self.axis), PartitionSpec()
        return self._spread(moved, (time, everywhere), time)(x, edge)

    def by_stretch(self, function: Callable[..., tuple[Any, Any]], whole: Any, *along: Any) -> tuple[Any, Any]:
        """Each device its stretch with the engine of one device; with steps left over the compiler decides."""
        if any(map(self._left_over, jax.tree.leaves(along))):
            return function("associative", whole, *along)

        def stretch(whole, *along):
            told, sums = function(self.engine, whole, *along)
            return told, jax.tree.map(lambda x: jax.lax.psum(x, self.axis), sums)

        time, everywhere = PartitionSpec(self.axis), PartitionSpec()
        return self._spread(stretch, (everywhere, *[time] * len(along)), (time, everywhere))(whole, *along)

    def _spread(self, function: Callable, given: Any, found: Any) -> Callable:
        """The function of one device on all of them."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=given, out_specs=found, check_vma=False)

    def _left_over(self, x: Array) -> int:
        """Steps by which the time of `x` is longer than stretches of one length."""
        return x.shape[0] % self.devices

    def _everywhere(self, x: Array) -> Array:
        """The whole on every device: XLA's own uneven stretches give wrong numbers where a step of them is set."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec()))


def _filled(a: Array, spare: int) -> Array:
    """Slopes with `spare` steps more that change nothing: 1, or the unit matrix."""
    if a.ndim < DENSE:
        return jnp.pad(a, ((0, spare), *[(0, 0)] * (a.ndim - 1)), constant_values=1)
    unit = jnp.eye(a.shape[1], dtype=a.dtype)
    unit = jnp.broadcast_to(unit[:, :, None] if a.ndim == BLOCKS else unit, a.shape[1:])
    return jnp.concatenate([a, jnp.broadcast_to(unit, (spare, *unit.shape))])


def _stretch(
    sharded: Sharded,
    a: Array,
    b: Array,
    h0: Array,
    resets: Array | None,
    *,
    reverse: bool,
    transpose: bool,
    differentiable: bool,
    start: bool,
) -> Array:
    """What one device does: its stretch of the states."""
    count, place = sharded.devices, _place(sharded, reverse)
    restarted = b if resets is None or not start else _with_starts(a, b, h0, resets, transpose)

    def states(begin: Array) -> Array:
        options = {"reverse": reverse, "engine": sharded.engine, "transpose": transpose}
        options["differentiable"] = differentiable
        if resets is None:
            return run(a, b, None if count == 1 and not start else begin, None, **options)
        first = -1 if reverse else 0
        arriving = jnp.where(resets[first], jnp.zeros((), b.dtype), apply(a[first], begin, transpose=transpose))
        return run(a, restarted.at[first].add(arriving), None, resets, **options)

    if count == 1:
        return states(h0)
    options = {"reverse": reverse, "transpose": transpose, "early": not differentiable}
    starts = _starts(sharded, sharded.summary(a, restarted, resets, **options), h0, reverse)
    h = states(starts[place])
    if differentiable:
        return h
    last = 0 if reverse else -1
    slopes = a.swapaxes(1, 2) if transpose and a.ndim >= DENSE else a
    kernel = _anew(sharded, slopes, b, resets, reverse=reverse)
    return _handed_on(sharded, h, starts, states, kernel, lambda h: h[last], reverse)


def _costates(sharded: Sharded, a: Array, h_bar: Array, *, reverse: bool) -> Array:
    """What one device does: its stretch of the costates of a scan in the direction of `reverse`."""
    back, last = not reverse, -1 if reverse else 0

    def costates(arriving: Array) -> Array:
        return costates_of_scan(a, h_bar, None, reverse=reverse, engine=sharded.engine, arriving=arriving)

    if sharded.devices == 1:
        return costates(jnp.zeros_like(h_bar[0]))

    def leaving(l: Array) -> Array:
        return apply(a[last], l[last], transpose=True)

    made = sharded.summary(a, h_bar, None, reverse=back, transpose=True, inside=True)
    starts = _starts(sharded, made, jnp.zeros_like(h_bar[0]), back)
    l = costates(starts[_place(sharded, back)])
    kernel = _anew(sharded, a, h_bar, None, reverse=back, adjoint=True)
    return _handed_on(sharded, l, starts, costates, kernel, leaving, back)


def _place(sharded: Sharded, reverse: bool) -> Array:
    """The number of this device's stretch, in the direction of the recurrence."""
    number = jax.lax.axis_index(sharded.axis)
    return sharded.devices - 1 - number if reverse else number


def _starts(sharded: Sharded, made: tuple[Array, Array], h0: Array, reverse: bool) -> Array:
    """What each stretch begins from, in the direction of the recurrence: all of them, on every device."""
    A, B = made
    m = B.size
    shared = jax.lax.all_gather(jnp.concatenate([A.reshape(-1), B]), sharded.axis)
    shared = shared[::-1] if reverse else shared
    arrivals = [h0]
    for k in range(sharded.devices - 1):
        A, B = shared[k, :-m].reshape(A.shape), shared[k, -m:]
        arrivals.append(jnp.where(jnp.all(A == 0), B, apply(A, arrivals[-1]) + B))
    return jnp.stack(arrivals)


def _with_starts(a: Array, b: Array, h0: Array, resets: Array, transpose: bool) -> Array:
    """`b`, and at resets `a h0 + b`."""
    fresh = jax.vmap(functools.partial(apply, transpose=transpose), in_axes=(0, None))(a, h0)
    return jnp.where(resets[:, None], b + fresh, b)


Anew = Callable[[Array, Array, Array], Array]
"""`(h, begin, where) -> h`, or, where it is true, the states from `begin` in its place."""


def _anew(sharded: Sharded, a: Array, b: Array, resets: Array | None, **options: bool) -> Anew | None:
    """The kernel that does it, where there is one."""
    if not fused(a, b, sharded.engine):
        return None
    from dsrecon.kernels.accelerated.scan import anew, redone

    if not redone(a, resets):
        return None
    interpret = sharded.engine == "interpreted"
    return lambda h, begin, where: anew(a, b, h, begin, where, interpret=interpret, **options)


def _handed_on(
    sharded: Sharded,
    h: Array,
    starts: Array,
    states: Callable[[Array], Array],
    kernel: Anew | None,
    leaving: Callable[[Array], Array],
    reverse: bool,
) -> Array:
    """`h`, unless a stretch ends in infinity or NaN and the next one began otherwise: then one device after the other.

    Without a kernel both loops turn only where that is so, in any sequence of a batch under `vmap`.
    """
    count, axis, place = sharded.devices, sharded.axis, _place(sharded, reverse)
    ends = jax.lax.all_gather(leaving(h), axis)
    ends = ends[::-1] if reverse else ends
    astray = jnp.any(jnp.isfinite(ends[:-1]) != jnp.isfinite(starts[1:]))
    onward = [(k, k - 1) if reverse else (k - 1, k) for k in range(1, count)]

    if kernel is not None:
        h = kernel(h, ends[0], astray & (place == 1))

        def turn(k, h):
            return kernel(h, jax.lax.ppermute(leaving(h), axis, onward), astray & (place == k))

        return jax.lax.fori_loop(2, count, turn, h) if count > 2 else h

    def hand_on(carry):
        turn, h = carry
        begin = jax.lax.ppermute(leaving(h), axis, onward)
        return turn + 1, jnp.where(place == turn, states(begin), h)

    def going(carry):
        return astray & (carry[0] < count)

    return jax.lax.while_loop(going, hand_on, (jnp.ones((), jnp.int32), h))[1]
