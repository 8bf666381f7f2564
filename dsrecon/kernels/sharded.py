"""`linear_scan` over several devices: every device its stretch of time, and one all-gather of what stretches do."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.engines import ENGINES, run
from dsrecon.kernels.stretch import last_map
from dsrecon.kernels.structure import BLOCKS, DENSE, apply

Summary = Callable[..., tuple[Array, Array]]
"""`(a, b, resets, reverse=, transpose=, early=) -> (A, B)`: what a stretch does, as `stretch.last_map`."""


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
    say so, the states are handed from device to device, which takes as long as on one device.

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
        h = jax.shard_map(over, mesh=self.mesh, in_specs=placed, out_specs=time, check_vma=False)(a, b, start, resets)
        return self._everywhere(h[:steps]) if spare else h

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
    count, axis, m = sharded.devices, sharded.axis, b.shape[1]
    number = jax.lax.axis_index(axis)
    place = count - 1 - number if reverse else number
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
    A, B = sharded.summary(a, restarted, resets, reverse=reverse, transpose=transpose, early=not differentiable)
    shared = jax.lax.all_gather(jnp.concatenate([A.reshape(-1), B]), axis)
    shared = shared[::-1] if reverse else shared
    arrivals = [h0]
    for k in range(count - 1):
        A, B = shared[k, :-m].reshape(A.shape), shared[k, -m:]
        arrivals.append(jnp.where(jnp.all(A == 0), B, apply(A, arrivals[-1]) + B))
    starts = jnp.stack(arrivals)
    h = states(starts[place])
    return h if differentiable else _handed_on(h, starts, states, axis, count, place, reverse)


def _with_starts(a: Array, b: Array, h0: Array, resets: Array, transpose: bool) -> Array:
    """`b`, and at resets `a h0 + b`."""
    fresh = jax.vmap(functools.partial(apply, transpose=transpose), in_axes=(0, None))(a, h0)
    return jnp.where(resets[:, None], b + fresh, b)


def _handed_on(
    h: Array,
    starts: Array,
    states: Callable[[Array], Array],
    axis: str,
    count: int,
    place: Array,
    reverse: bool,
) -> Array:
    """`h`, unless a stretch ends in infinity or NaN and the next one began otherwise: then one device after the other.

    Both loops turn only where that is so, in any sequence of a batch under `vmap`.
    """
    last = 0 if reverse else -1
    ends = jax.lax.all_gather(h[last], axis)
    ends = ends[::-1] if reverse else ends
    astray = jnp.any(jnp.isfinite(ends[:-1]) != jnp.isfinite(starts[1:]))
    onward = [(k, k - 1) if reverse else (k - 1, k) for k in range(1, count)]

    def hand_on(carry):
        turn, h = carry
        begin = jax.lax.ppermute(h[last], axis, onward)
        return turn + 1, jnp.where(place == turn, states(begin), h)

    def going(carry):
        return astray & (carry[0] < count)

    return jax.lax.while_loop(going, hand_on, (jnp.ones((), jnp.int32), h))[1]
