"""What `test_devices.py` runs in processes of its own, on four made-up devices or on two hosts: all as on one device.

python tests/devices_worker.py PART...      python tests/devices_worker.py host NUMBER PORT
"""

import itertools
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from dsrecon.cell import AbstractCell
from dsrecon.evolve import Sequential, evolve
from dsrecon.kernels import Sharded, linear_scan
from dsrecon.models import ClippedShallowPLRNN
from dsrecon.newton import Newton, TrustRegion
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.training import fit

SLOPES = {"scalar": (), "diagonal": (4,), "dense": (4, 4), "blocks": (2, 2, 2)}


def sharded() -> Sharded:
    return Sharded(jax.make_mesh((len(jax.devices()),), ("time",), axis_types=(AxisType.Auto,)), "time")


def given(structure: str, steps: int, dtype: str):
    keys = jax.random.split(jax.random.key(steps), 3)
    a = 0.4 * jax.random.normal(keys[0], (steps, *SLOPES[structure]), dtype)
    return a, jax.random.normal(keys[1], (steps, 4), dtype), jax.random.normal(keys[2], (4,), dtype)


def both(function, *given):
    """Value and gradients by one device (the loop) and by four."""

    def weighted(engine, *given):
        h = function(engine, *given)
        seen = jnp.where(jnp.isfinite(h), jnp.real(h), 0)
        return jnp.sum(seen * jnp.sin(jnp.arange(seen.size, dtype=seen.dtype)).reshape(seen.shape)), h

    argnums = tuple(range(len(given)))
    for engine in ("sequential", sharded()):
        graded = jax.value_and_grad(lambda *given, engine=engine: weighted(engine, *given), argnums, has_aux=True)
        yield jax.jit(graded)(*given)


def close(one, several, tolerance: float) -> None:
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True):
        size = np.max(np.abs(x), where=np.isfinite(x), initial=0.0)
        np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance * size)


def scans() -> None:
    """Lengths that four divides and does not; resets with NaN in the trial before; all types."""
    for structure in SLOPES:
        scans_of(structure)


def scans_of(structure: str) -> None:
    cases = {
        "scalar": [(1, "float64", False, False), (41, "float64", False, True)],
        "diagonal": [(7, "complex128", True, False), (40, "float32", True, True)],
        "dense": [(40, "float64", False, True), (7, "complex128", True, False)],
        "blocks": [(41, "float64", True, True)],
    }
    for steps, dtype, reverse, trials in cases[structure]:
        a, b, h0 = given(structure, steps, dtype)
        resets = jnp.arange(steps) % 9 == 4 if trials else None
        b = b.at[15].set(jnp.nan) if trials else b

        def scan(engine, a, b, h0, reverse=reverse, resets=resets):
            return linear_scan(a, b, h0, reverse=reverse, resets=resets, engine=engine)

        close(*both(scan, a, b, h0), 1e-5 if dtype == "float32" else 1e-12)


def kernels() -> None:
    """A kernel on every device: what arrives from the next stretch goes into it."""
    for structure, dtype, reverse in (("diagonal", "complex128", True), ("diagonal", "float64", False)):
        a, b, _ = given(structure, 12, dtype)
        own = Sharded(sharded().mesh, "time", "interpreted")
        one, several = (
            jax.vjp(lambda a, b, e=e, reverse=reverse: linear_scan(a, b, reverse=reverse, engine=e), a, b)[1](b)
            for e in ("sequential", own)
        )
        close(one, several, 1e-12)


class Marked(AbstractCell):
    """A cell whose inputs hold numbers, marks and counts, and that holds counts itself."""

    a: jax.Array
    n: jax.Array

    @property
    def state_size(self):
        return self.a.size

    def __call__(self, z, s):
        x, mark, count = s
        return jnp.tanh(self.a * z) + jnp.where(mark, x, x * count.astype(x.dtype) * self.n.astype(x.dtype))

    def linearise(self, z, s):
        return jax.jvp(lambda z: self(z, s), (z,), (jnp.ones_like(z),))


def constants() -> None:
    """Gradients by states that are constants of the program, which XLA cuts itself; and by the last state alone."""
    steps, key = 8, jax.random.key(3)
    x = jax.random.normal(key, (steps, 3))
    free = (jnp.full(3, 0.7), x[0], x)
    for weights in (jax.random.normal(jax.random.key(4), (steps, 3)), jnp.zeros((steps, 3)).at[-1].set(1.0)):

        def loss(free, solver, weights=weights):
            a, z0, x = free
            s = (x, x > 0, jnp.arange(steps))
            return jnp.sum(weights * evolve(Marked(a, jnp.arange(3)), z0, s, solver=solver, throw=False).zs)

        one, several = (
            jax.jit(jax.grad(lambda free, e=e, loss=loss: loss(free, e)))(free)
            for e in (Sequential(engine="loop"), Newton(engine=sharded()))
        )
        close(one, several, 1e-10)


def forgetting() -> None:
    """Stretches longer than what is looked at first: of slopes that forget there, later, never; NaN goes on."""
    steps = 4 * 45_000
    b = jax.random.normal(jax.random.key(0), (steps, 2))
    for slope, reverse in itertools.product((0.5, 0.97, 1.0), (False, True)):
        a = jnp.full((steps, 2), slope)
        one, several = (linear_scan(a, b, reverse=reverse, engine=e) for e in ("sequential", sharded()))
        close(one, several, 1e-10)
    a = jnp.full((steps, 2), 0.5)
    for bad in (jnp.nan, jnp.inf):
        one, several = (linear_scan(a, b.at[50, 0].set(bad), engine=e) for e in ("sequential", sharded()))
        assert not np.isfinite(several[-1, 0])
        np.testing.assert_allclose(several, one, rtol=1e-12)
    for slope, reverse, bad in ((0.97, False, 0.0), (1.0, True, 0.0), (0.5, True, jnp.inf)):
        a = jnp.full((steps, 2), slope)
        h_bar = b.at[50 if reverse else -50, 0].add(bad)
        one, several = (
            jax.vjp(lambda a, b, e=e, reverse=reverse: linear_scan(a, b, reverse=reverse, engine=e), a, b)[1](h_bar)
            for e in ("sequential", sharded())
        )
        assert np.isfinite(several[1]).all() == (bad == 0.0)
        close(one, several, 1e-10)
    own, short = Sharded(sharded().mesh, "time", "interpreted"), 4 * 4_200
    for bad in (0.0, jnp.nan, jnp.inf):  # what is handed on, with a kernel that looks itself whether it is
        x = b[:short].at[50, 0].add(bad)
        one, several = (linear_scan(jnp.full((short, 2), 0.5), x, engine=e) for e in ("sequential", own))
        assert np.isfinite(several[-1, 0]) == (bad == 0.0)
        fine = np.isfinite(one)  # a kernel makes NaN of the infinity that the loop keeps
        np.testing.assert_array_equal(np.isfinite(several), fine)
        np.testing.assert_allclose(several[fine], one[fine], rtol=1e-12)
    a = jnp.full((steps, 2), 0.5)
    batch = jnp.stack([b, b.at[50, 0].set(jnp.inf)])
    one, several = (jax.vmap(lambda b, e=e: linear_scan(a, b, engine=e))(batch) for e in ("sequential", sharded()))
    np.testing.assert_allclose(several, one, rtol=1e-12)


def newton() -> None:
    """A whole solve, and that no more than a few states travel in it."""
    steps, key = 400, jax.random.key(1)
    model = Forced(ClippedShallowPLRNN(3, 10, key=key), IdentityReadout(3, 3, key=key))
    free, static = eqx.partition(model, eqx.is_inexact_array)
    x = jax.random.normal(key, (steps + 1, 3))
    s = Forcing(x[:-1], jnp.full(steps, 0.3))

    def graded(engine):
        def loss(free, z0, s):
            run = evolve(eqx.combine(free, static), z0, s, solver=Newton(engine=engine), throw=False)
            return jnp.mean(run.zs**2), (run.zs, run.stats["iterations"])

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))

    one = graded("auto")(free, x[0], s)
    spread = jax.device_put(s, sharded().placement)
    program = graded(sharded()).lower(free, x[0], spread).compile()
    several = program(free, x[0], spread)
    close(one, several, 1e-12)
    assert several[0][1][0].sharding.spec == sharded().placement.spec
    sizes = [
        np.prod([int(n) for n in line.split("[")[1].split("]")[0].split(",") if n] or [1])
        for line in str(program.as_text()).splitlines()
        if "all-gather(" in line
    ]
    assert sizes, "no all-gather is in the program"
    assert max(sizes) <= 4 * (9 + 3), sizes


def variants() -> None:
    """What `Sharded` is not made for is right all the same: batches, windows, a finish by the loop, a smoother."""
    steps, key = 64, jax.random.key(1)
    model = Forced(ClippedShallowPLRNN(3, 10, key=key), IdentityReadout(3, 3, key=key))
    free, static = eqx.partition(model, eqx.is_inexact_array)
    x = jax.random.normal(key, (2, steps + 1, 3))
    batch, alpha = (x[:, 0], x[:, :-1]), jnp.full((2, steps), 0.3)
    one_run = (x[0, 0], x[0, :-1])

    def graded(solver, z0, x):
        def loss(free, z0, x):
            s = Forcing(x, alpha if x.ndim == 3 else alpha[0])
            run = evolve(eqx.combine(free, static), z0, s, solver=solver, throw=False)
            return jnp.mean(run.zs**2), run.zs

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(free, z0, x)

    for make, given in (
        (lambda e: Newton(engine=e), batch),
        (lambda e: Newton(engine=e, window=20), one_run),
        (lambda e: Newton(engine=e, max_iterations=1, finish="sequential"), one_run),
        (lambda e: TrustRegion(engine=e), one_run),
    ):
        close(graded(make("auto"), *given), graded(make(sharded()), *given), 1e-9)


class Map(eqx.Module):
    w: jax.Array


class Rows(eqx.Module):
    x: jax.Array

    def __call__(self, key):
        return self.x[jax.random.randint(key, (4,), 0, len(self.x))]


def ensembles() -> None:
    """Runs on one device and on several; a checkpoint goes on on others; what is refused."""
    rows = Rows(jax.random.normal(jax.random.key(0), (100, 3)))
    model = Map(jax.random.normal(jax.random.key(2), (10, 3)))
    where = []

    def loss(model, state, batch, key):
        return jnp.mean((jnp.tanh(batch @ model.w) - 1) ** 2), (state, {})

    def evaluate(models):
        where.append(models.w.device)
        return {"score": np.asarray(jnp.sum(models.w**2, 1))}

    def run(steps=30, **how):
        keys = jax.random.split(jax.random.key(1), 10)
        adam = optax.adam(1e-2)
        return fit(model, loss, rows, adam, steps=steps, key=keys, every=10, evaluate=evaluate, progress=False, **how)

    one = run(threads=1)
    several = run(devices=jax.devices())
    assert set(where[-4:]) == set(jax.devices())
    close((one[0], one[1].loss, one[1].scores), (several[0], several[1].loss, several[1].scores), 1e-12)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fit")

        def broken(models):
            if len(where) > 4:
                raise KeyboardInterrupt
            return evaluate(models)

        where.clear()
        keys, adam = jax.random.split(jax.random.key(1), 10), optax.adam(1e-2)
        with pytest.raises(KeyboardInterrupt):
            fit(
                model, loss, rows, adam, steps=30, key=keys, every=10, evaluate=broken, progress=False,
                devices=jax.devices(), checkpoint=path,
            )  # fmt: skip
        assert path.exists()
        resumed = run(devices=jax.devices()[:3], checkpoint=path)
        close((one[0], one[1].loss), (resumed[0], resumed[1].loss), 1e-12)
    for devices, how, wrong in (
        (jax.devices(), {"threads": 2}, "one or the other"),
        ([], {}, "a sequence of devices"),
        (2, {}, "a sequence of devices"),
        ([jax.devices()[0]] * 2, {}, "told once each"),
    ):
        with pytest.raises(ValueError, match=wrong):
            run(devices=devices, **how)


def refused() -> None:
    with pytest.raises(ValueError, match="axis must be one of the mesh"):
        Sharded(sharded().mesh, "runs")
    with pytest.raises(ValueError, match="type Auto"):
        Sharded(jax.make_mesh((4,), ("time",), axis_types=(AxisType.Explicit,)), "time")
    with pytest.raises(ValueError, match="engine must be one of"):
        Sharded(sharded().mesh, "time", "fast")


def host(number: str, port: str) -> None:
    """One of two processes with a device each: a scan over both, its gradient, and their agreement with the loop."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
    assert len(jax.devices()) == 2
    assert len(jax.local_devices()) == 1
    engine = sharded()
    a, b, _ = (np.asarray(x) for x in given("dense", 40, "float64"))

    def graded(engine, a, b):
        return jax.value_and_grad(lambda b: jnp.sum(jnp.sin(linear_scan(a, b, engine=engine))))(b)

    spread = [jax.make_array_from_callback(x.shape, engine.placement, lambda i, x=x: x[i]) for x in (a, b)]
    several = jax.jit(lambda a, b: graded(engine, a, b))(*spread)
    one = graded("sequential", a, b)
    close(one[0], several[0].addressable_data(0), 1e-12)
    for shard in several[1].addressable_shards:
        close(np.asarray(one[1])[shard.index], shard.data, 1e-12)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"of this process, jax\.local_devices\(\)"):
        fit(Map(jnp.ones(3)), nothing, Rows(jnp.ones((4, 3))), optax.sgd(1.0), steps=1, key=key, devices=jax.devices())


def nothing(model, state, batch, key):
    return jnp.zeros(()), (state, {})


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1] == "host":
        host(*sys.argv[2:])
    for part in (scans, kernels, forgetting, newton, constants, variants, ensembles, refused):
        if part.__name__ in sys.argv[1:]:
            part()
