"""The kernels for GPUs, interpreted on a CPU, against the loops that they replace: values and gradients.

Those marked `gpu` run the same laws on the hardware.
"""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.evolve import Sequential, evolve
from dsrecon.kernels import linear_scan, pullback, vandermonde_product
from dsrecon.kernels.accelerated import dense, pull
from dsrecon.kernels.accelerated.gates import logistic, tanh
from dsrecon.kernels.accelerated.lookback import Cut, cut
from dsrecon.kernels.accelerated.loop import forward
from dsrecon.kernels.accelerated.plan import Unfused
from dsrecon.kernels.accelerated.scan import anew, redone, scan
from dsrecon.kernels.accelerated.steps import map_steps, written
from dsrecon.models import (
    ALRNN,
    GRU,
    LRU,
    LSTM,
    S4D,
    S5,
    ClippedDendriticPLRNN,
    ClippedShallowPLRNN,
    DendriticPLRNN,
    MeanCentredPLRNN,
    ParaGRU,
    ParaLSTM,
    ShallowPLRNN,
    TanhRNN,
)
from dsrecon.newton import Shooting
from dsrecon.newton.regions import region_of
from dsrecon.readout import Forced, Forcing, IdentityReadout, LinearReadout


@pytest.fixture(autouse=True)
def hardware(request):
    """Those marked `gpu` need one."""
    if request.node.get_closest_marker("gpu") and jax.default_backend() != "gpu":
        pytest.skip(f"needs an NVIDIA GPU: JAX runs on {jax.default_backend()}")


SCANS = {
    "scalar": ((), 3, 9, Cut(4, 2, 2, 2)),
    "diagonal": ((3,), 3, 11, Cut(4, 1, 2, 2)),
    "diagonal, stretches": ((5,), 5, 15, Cut(4, 2, 2, 2)),
    "diagonal, walked along": ((5,), 5, 15, Cut(4, 2, 2, 0)),
    "diagonal, walked along in rounds": ((3,), 3, 35, Cut(4, 16, 1, 0)),
    "blocks, walked along": ((2, 2, 3), 6, 7, Cut(4, 1, 2, 0)),
    "blocks": ((2, 2, 3), 6, 7, Cut(4, 2, 1, 2)),
    "dense": ((3, 3), 3, 7, Cut(1, 4, 1, 1)),
    "one step": ((3,), 3, 1, None),
}


def problem(shape, m, steps, dtype=np.float64):
    rng = np.random.default_rng(0)

    def draw(*size):
        x = rng.normal(size=size)
        return jnp.asarray(
            (x + 1j * rng.normal(size=size) if np.issubdtype(dtype, np.complexfloating) else x).astype(dtype)
        )

    return 0.4 * draw(steps, *shape), draw(steps, m), draw(m), draw(steps, m), jnp.asarray(rng.random(steps) < 0.2)


def some(rows, *fast):
    """The rows that always run; the others, which take other paths through the same code, are slow ones."""
    return [row if row in fast else pytest.param(*(row if isinstance(row, tuple) else [row]), marks=pytest.mark.slow)
            for row in rows]  # fmt: skip


def gradients(engine, a, b, h0, g, resets, reverse):
    def run(a, b, h0):
        return linear_scan(a, b, h0, resets=resets, reverse=reverse, engine=engine)

    h, pull = jax.vjp(run, a, b, h0)
    return h, *pull(g)


@pytest.mark.parametrize(
    ("name", "both"),
    some(itertools.product(SCANS, (False, True)), ("diagonal, stretches", False), ("diagonal, stretches", True),
         ("diagonal, walked along", False), ("diagonal, walked along", True), ("dense", True)),
)  # fmt: skip
def test_scans_are_those_of_the_loop(name, both):
    """Forward without resets, and `both`: reverse, with them."""
    reverse, with_resets = both, both
    shape, m, steps, how = SCANS[name]
    a, b, h0, g, resets = problem(shape, m, steps)
    resets = resets if with_resets else None
    h, _, b_bar, _ = gradients("sequential", a, b, h0, g, resets, reverse)
    found = scan(a, b, h0, resets, reverse=reverse, interpret=True, how=how)
    np.testing.assert_allclose(found, h, rtol=1e-10, atol=1e-12)
    found = scan(a, g, None, resets, reverse=not reverse, adjoint=True, interpret=True, how=how)
    np.testing.assert_allclose(found, b_bar, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("reverse", "with_resets"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", some(SCANS, "diagonal, stretches"))
def test_gradients_of_scans_are_those_of_the_loop(name, reverse, with_resets):
    shape, m, steps, _ = SCANS[name]
    a, b, h0, g, resets = problem(shape, m, steps)
    pairs = (gradients(e, a, b, h0, g, resets if with_resets else None, reverse) for e in ("interpreted", "sequential"))
    for x, y in zip(*pairs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("m", "steps", "block", "reverse", "with_resets"),
    [(5, 11, 3, True, True), (17, 7, None, False, False), (5, 40, None, False, True), (6, 1, None, True, True)],
)
def test_dense_scans_in_blocks_are_those_of_the_loop(m, steps, block, reverse, with_resets):
    a, b, h0, g, resets = problem((m, m), m, steps)
    resets = resets if with_resets else None
    h, _, b_bar, _ = gradients("sequential", a, b, h0, g, resets, reverse)
    found = dense.scan(a, b, h0, resets, reverse=reverse, interpret=True, block=block)
    np.testing.assert_allclose(found, h, rtol=1e-9, atol=1e-11 * np.abs(h).max())
    found = dense.scan(a, g, None, resets, reverse=not reverse, adjoint=True, interpret=True, block=block)
    np.testing.assert_allclose(found, b_bar, rtol=1e-9, atol=1e-11 * np.abs(b_bar).max())


def test_larger_dense_scans_go_to_the_kernel_in_blocks():
    a, b, h0, g, resets = problem((5, 5), 5, 4)
    pairs = (gradients(e, a, b, h0, g, resets, False) for e in ("interpreted", "sequential"))
    for x, y in zip(*pairs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)
    low = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    wanted = linear_scan(*(x.astype(jnp.float32) for x in low), engine="sequential")
    np.testing.assert_allclose(linear_scan(*low, engine="interpreted").astype(jnp.float32), wanted, rtol=2**-7)


def test_blocks_of_dense_scans_leave_few_steps_whole_and_grow_as_the_root():
    assert [dense.block_of(t) for t in (1, 32, 33, 10_000, 1_000_000)] == [1, 32, 2, 44, 447]


@pytest.mark.parametrize(
    ("kind", "tolerance"), [pytest.param(np.complex128, 1e-10, marks=pytest.mark.slow), (np.float32, 1e-5)]
)
def test_scans_of_other_types(kind, tolerance):
    a, b, h0, g, _ = problem((3,), 3, 2, kind)
    for x, y in zip(*(gradients(e, a, b, h0, g, None, False) for e in ("interpreted", "sequential")), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_half_precision_is_added_up_in_single():
    a, b, _, _, _ = problem((3,), 3, 8, np.float32)
    low = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    wanted = linear_scan(*(x.astype(jnp.float32) for x in low), engine="sequential")
    found = scan(*low, None, None, reverse=False, interpret=True)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=2**-8, atol=1e-3)


def test_a_mapped_scan_is_that_of_each():
    a, b, _, _, _ = problem((2, 4), 4, 4)
    a, b = jnp.moveaxis(a, 1, 0), jnp.stack([b, 2 * b])

    def loss(engine):
        return lambda a, b: jnp.sum(jax.vmap(lambda a, b: linear_scan(a, b, engine=engine))(a, b) ** 3)

    for x, y in zip(*(jax.grad(loss(e), (0, 1))(a, b) for e in ("interpreted", "sequential")), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("reverse", "adjoint"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", ["scalar", "diagonal", "blocks", "dense"])
def test_states_are_made_anew_where_asked_and_else_stay(name, reverse, adjoint):
    shape, m, _, _ = SCANS[name]
    a, b, h0, there, _ = problem(shape, m, 40)
    assert redone(a, None)

    def made(where):
        return anew(a, b, there, h0, where, reverse=reverse, adjoint=adjoint, interpret=True)

    stays, found = jax.vmap(made)(jnp.array([False, True]))
    np.testing.assert_array_equal(stays, there)
    wanted = scan(a, b, h0, None, reverse=reverse, adjoint=adjoint, interpret=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_which_scans_are_not_made_anew():
    assert not redone(jnp.ones((3, 2)), jnp.zeros(3, bool))
    assert not redone(jnp.ones((3, 2), complex), None)
    assert not redone(jnp.ones((3, 5, 5)), None)


def test_what_a_trial_of_nan_leaves_alone():
    a, b, h0, _, _ = problem((3,), 3, 12)
    resets = jnp.zeros(12, bool).at[6].set(True)
    h = scan(a, b.at[2].set(jnp.nan), h0, resets, reverse=False, interpret=True, how=Cut(4, 2, 2, 2))
    assert np.isnan(h[2:6]).all()
    np.testing.assert_allclose(h[6:], linear_scan(a, b, h0, resets=resets)[6:], rtol=1e-12)


def test_the_nan_by_which_nothing_is_told_is_a_number_like_others():
    odd = jax.lax.bitcast_convert_type(jnp.array(0x7FEDCBA9, jnp.int32), jnp.float32)
    a, b = jnp.ones((6, 1), jnp.float32), jnp.ones((6, 1), jnp.float32).at[2, 0].set(odd)
    resets = jnp.zeros(6, bool).at[4].set(True)
    h = scan(a, b, None, resets, reverse=False, interpret=True, how=Cut(1, 1, 1, 2))
    np.testing.assert_array_equal(h[:, 0], [1, 2, np.nan, np.nan, 1, 2])


def test_cuts_cover_every_shape():
    for steps in (1, 7, 1000, 65537):
        for c in (1, 2, 3, 4):
            for channels, sequences in itertools.product((1, 3, 130, 4000), (1, 10, 100)):
                how = cut(steps, c, channels, sequences)
                assert (how.window == 0) == (c == 1 and sequences * -(-channels // 32) >= 120 and channels > 3)
                assert how.channels & (how.channels - 1) == 0 and how.stretches & (how.stretches - 1) == 0
                assert 1 <= how.channels * how.stretches <= 512


def forced(cell):
    return Forced(cell, IdentityReadout(2, cell.state_size, key=jax.random.key(9)))


KEY = jax.random.key(0)
LOOPS = {
    "alrnn": lambda: forced(ALRNN(5, 2, key=KEY)),
    "clipped shallow": lambda: forced(ClippedShallowPLRNN(3, 9, key=KEY)),
    "mean-centred": lambda: forced(MeanCentredPLRNN(5, key=KEY)),
    "dendritic": lambda: forced(DendriticPLRNN(4, 3, key=KEY)),
    "clipped dendritic": lambda: forced(ClippedDendriticPLRNN(4, 3, key=KEY)),
    "tanh": lambda: TanhRNN(5, input_size=2, key=KEY),
    "gru": lambda: GRU(3, input_size=2, key=KEY),
    "lstm": lambda: LSTM(3, input_size=2, key=KEY),
    "para-gru": lambda: ParaGRU(35, input_size=2, key=KEY),
    "para-lstm": lambda: ParaLSTM(5, input_size=2, key=KEY),
    "lru": lambda: LRU(2, 35, key=KEY).cell(),
    "s5": lambda: S5(2, 6, key=KEY).cell(0.1),
    "s4d": lambda: S4D(2, 4, key=KEY).cell(0.1),
}


def loop_gradients(cell, engine, steps, dtype=np.float64):
    rng = np.random.default_rng(1)
    z0, x, g = (jnp.asarray(rng.normal(size=s).astype(dtype)) for s in
                ((2, cell.state_size), (2, steps, 2), (2, steps, cell.state_size)))  # fmt: skip
    s = Forcing(x, jnp.full((2, steps), 0.3, dtype)) if isinstance(cell, Forced) else x
    free, fixed = eqx.partition(cell, eqx.is_inexact_array)
    free = jax.tree.map(lambda p: p.astype(dtype), free)

    @jax.jit
    def both(free, z0, s):
        def run(free, z0, s):
            out = evolve(eqx.combine(free, fixed), z0, s, solver=Sequential(engine=engine), throw=False)
            return out.zs, out.stats["fused"]

        zs, pull, fused = jax.vjp(run, free, z0, s, has_aux=True)
        return (zs, pull(g)), fused

    found, fused = both(free, z0, s)
    return jax.tree.leaves(found), bool(fused.all())


@pytest.mark.parametrize("name", some(LOOPS, "alrnn", "gru", "para-lstm", "lru", "s4d"))
def test_loops_in_one_kernel_are_loops(name):
    cell = LOOPS[name]()
    (wanted, in_kernel), (found, fused) = (loop_gradients(cell, e, 5) for e in ("loop", "interpreted"))
    assert fused and not in_kernel
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11)


class Leaky(AbstractCell):
    """`z' = a z + b`, unit by unit."""

    a: jax.Array
    b: jax.Array

    @property
    def state_size(self):
        return self.a.size

    def __call__(self, z, s=None):
        return self.a * z + self.b

    def linearise(self, z, s=None):
        return self(z), self.a


class Switched(Leaky):
    """A `Leaky` cell that moves only where a number is positive, of which nothing else depends."""

    def __call__(self, z, s=None):
        return jnp.where(s > 0, self.a * z, z)

    def linearise(self, z, s=None):
        return self(z, s), jnp.where(s > 0, self.a, jnp.ones_like(z))


class Halved(AbstractCell):
    """Units that do not meet, in a map with a derivative of its own (of `relu`, whose slope at 0 is 0)."""

    a: jax.Array

    @property
    def state_size(self):
        return self.a.size

    def __call__(self, z, s=None):
        return self.a * jax.nn.relu(z - 1)

    def linearise(self, z, s=None):
        return self(z), jnp.where(z > 1, self.a, jnp.zeros_like(z))


def way_back(cell, engine, steps, dtype=np.float64, batch=2, solver=Sequential):
    """Gradients of a run by its cell, start and inputs."""
    C = getattr(cell, "C", None)
    width = len(cell.D) if hasattr(cell, "D") else 0 if C is None else C.shape[1]
    rng = np.random.default_rng(2)
    z0, g = (jnp.asarray(rng.normal(size=s).astype(dtype)) for s in
             ((batch, cell.state_size), (batch, steps, cell.state_size)))  # fmt: skip
    s = jnp.asarray(rng.normal(size=(batch, steps, width)).astype(dtype)) if width else None
    free, fixed = eqx.partition(cell, eqx.is_inexact_array)
    free = jax.tree.map(lambda p: p.astype(dtype), free)

    def run(free, z0, s):
        how = solver(engine=engine)
        return evolve(eqx.combine(free, fixed), z0, s, steps=steps, solver=how, throw=False).zs

    return jax.tree.leaves(jax.jit(lambda *given: jax.vjp(run, *given)[1](g))(free, z0, s))


@pytest.fixture
def every_width(monkeypatch):
    """The whole way back in one kernel, however few units there are; programs made before do not know of it."""
    jax.clear_caches()
    monkeypatch.setattr(pull, "WIDE", 1)
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("name", "steps"),
    [("para-gru", 11), ("para-lstm", 1), ("para-lstm", 2), ("undriven", 3), ("lru", 4), ("s4d", 5), ("s5", 3)],
)
def test_the_way_back_in_one_kernel_is_that_of_the_loop(name, steps, every_width, monkeypatch):
    cell = ParaGRU(35, key=KEY) if name == "undriven" else LOOPS[name]()
    calls = []
    through = pull.through
    monkeypatch.setattr(pull, "through", lambda *given, **how: calls.append(1) or through(*given, **how))
    for x, y in zip(way_back(cell, "interpreted", steps), way_back(cell, "loop", steps), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)
    assert calls


def test_the_way_back_in_blocks_and_in_single_precision(every_width):
    cell = LOOPS["para-lstm"]()
    pair = (way_back(cell, e, 9, np.float32, solver=lambda engine: Shooting(2, 3, engine=engine))
            for e in ("interpreted", "loop"))  # fmt: skip
    for x, y in zip(*pair, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5 * np.abs(y).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 3e-7), (jnp.bfloat16, 1e-2)])
def test_sums_on_the_way_back_lose_nothing_to_rounding(dtype, tolerance, every_width):
    """Of gradients of one sign a plain sum loses digits by the number of steps, and half precision stalls."""
    cell = Leaky(jnp.full(2, 0.5, dtype), jnp.full(2, 0.125, dtype))

    def loss(cell, engine):
        z0 = jnp.full((1, 2), 0.25, cell.a.dtype)
        zs = evolve(cell, z0, steps=2000, solver=Sequential(engine=engine), throw=False).zs
        return jnp.sum(zs.astype(jnp.float64))

    wide = jax.tree.map(lambda x: x.astype(jnp.float64), cell)
    for x, y in zip(*(jax.tree.leaves(jax.grad(loss)(c, e)) for c, e in ((cell, "interpreted"), (wide, "loop"))),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(x.astype(jnp.float64), y, rtol=tolerance)


def test_a_number_that_nothing_depends_on_has_no_gradient(every_width):
    cell, rng = Switched(jnp.full(3, 0.5), jnp.ones(3)), np.random.default_rng(0)
    z0, s = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(2, 6, 3)))

    def loss(cell, z0, s, engine):
        return jnp.sum(evolve(cell, z0, s, solver=Sequential(engine=engine), throw=False).zs ** 2)

    pair = (jax.tree.leaves(jax.grad(loss, (0, 1, 2))(cell, z0, s, e)) for e in ("interpreted", "loop"))
    for x, y in zip(*pair, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_the_way_back_of_an_ensemble_is_that_of_its_members(every_width):
    cells = eqx.filter_vmap(lambda key: ParaGRU(3, input_size=2, key=key))(jax.random.split(KEY, 2))
    rng = np.random.default_rng(0)
    z0, s, g = (jnp.asarray(rng.normal(size=(2, 2, *size))) for size in ((3,), (4, 2), (4, 3)))
    free, fixed = eqx.partition(cells, eqx.is_inexact_array)

    def gradients_of(engine):
        def loss(free, z0, s, g):
            cell = eqx.combine(free, fixed)
            return jnp.sum(g * evolve(cell, z0, s, solver=Sequential(engine=engine), throw=False).zs)

        return jax.tree.leaves(jax.vmap(jax.grad(loss, (0, 1, 2)))(free, z0, s, g))

    for x, y in zip(gradients_of("interpreted"), gradients_of("loop"), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


def test_a_derivative_of_its_own_is_not_inlined(every_width):
    cell = Halved(jnp.full(4, 0.5))
    with pytest.raises(Unfused, match="derivatives of its own"):
        pull.check(cell, jnp.ones((2, 4)), None, 4)
    for x, y in zip(way_back(cell, "interpreted", 5), way_back(cell, "loop", 5), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_how_many_units_the_way_back_takes_in_one_kernel():
    assert pull.wide(8, 1024)
    assert pull.wide(128, 1)
    assert not pull.wide(8, 480)


def test_many_hidden_units_in_one_kernel_under_a_linear_readout():
    """The pseudo-inverse is worked out before; a vector longer than a state may be lies within the step."""
    model = Forced(ClippedShallowPLRNN(3, 70, key=KEY), LinearReadout(2, 3, key=jax.random.key(9)))
    (wanted, _), (found, fused) = (loop_gradients(model, e, 3) for e in ("loop", "interpreted"))
    assert fused
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


def test_missing_observations_and_single_runs_in_one_kernel():
    cell, rng = LOOPS["alrnn"](), np.random.default_rng(0)
    x, mask = jnp.asarray(rng.normal(size=(6, 2))), jnp.asarray(rng.random((6, 2)) < 0.5)
    s = Forcing(x, jnp.full(6, 0.3), None, mask)
    z0 = jnp.asarray(rng.normal(size=5))
    found, wanted = (evolve(cell, z0, s, solver=Sequential(engine=e)).zs for e in ("interpreted", "loop"))
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_an_ensemble_in_one_kernel_is_its_members():
    rng = np.random.default_rng(0)
    z0, s = jnp.asarray(rng.normal(size=(2, 3, 4))), jnp.asarray(rng.normal(size=(2, 3, 5, 2)))
    cells = eqx.filter_vmap(lambda key: ALRNN(4, 2, input_size=2, key=key))(jax.random.split(KEY, 2))

    def run(engine):
        return eqx.filter_vmap(lambda c, z0, s: evolve(c, z0, s, solver=Sequential(engine=engine), throw=False).zs)

    np.testing.assert_allclose(run("interpreted")(cells, z0, s), run("loop")(cells, z0, s), rtol=1e-10, atol=1e-12)


class Sorted(AbstractCell):
    """A cell that no kernel is made for."""

    state_size: int = 3

    def __call__(self, z, s=None):
        return jnp.sort(z) / 2

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def test_what_a_kernel_cannot_run_is_refused_by_name():
    z0, s = jnp.zeros((1, 3)), jnp.zeros((1, 4, 2))
    with pytest.raises(Unfused, match="holds sort"):
        forward(Sorted(), z0, s, 4, interpret=True)
    with pytest.raises(ValueError, match="engine='interpreted' cannot serve: the recurrence holds sort"):
        evolve(Sorted(), z0[0], steps=4, solver=Sequential(engine="interpreted"))
    with pytest.raises(Unfused, match="a matrix of 16384 numbers, 16384 in all"):
        forward(TanhRNN(65, key=KEY), jnp.zeros((1, 65)), None, 4, interpret=True)
    with pytest.raises(Unfused, match="vectors of 257"):
        forward(ShallowPLRNN(3, 257, key=KEY), jnp.zeros((1, 3)), None, 4, interpret=True)
    with pytest.raises(Unfused, match="units that do not meet"):
        forward(TanhRNN(3, key=KEY), jnp.zeros((1, 3)), None, 4, units=3, interpret=True)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="the message for machines without a GPU")
def test_engines_that_need_a_gpu_say_so():
    a, b, *_ = problem((3,), 3, 4)
    with pytest.raises(
        ValueError, match="engine='pallas' cannot serve: it needs an NVIDIA GPU: JAX runs on cpu; \"auto\""
    ):
        linear_scan(a, b, engine="pallas")
    with pytest.raises(ValueError, match='engine="fused" needs an NVIDIA GPU: JAX runs on cpu'):
        evolve(ALRNN(4, 2, key=KEY), jnp.zeros(4), steps=3, solver=Sequential(engine="fused"))
    with pytest.raises(ValueError, match="engine must be one of"):
        Sequential(engine="fast")


@pytest.mark.parametrize(
    ("shape", "m", "kind", "why"),
    [
        ((33, 33), 33, np.float64, "dense slopes up to 32 x 32: got 33 x 33"),
        ((5, 5, 2), 10, np.float64, "blocks up to 4 x 4: got 5 x 5"),
        ((2, 2), 2, np.complex128, "scalar or diagonal: got dense"),
        ((7, 7), 7, np.complex128, "scalar or diagonal: got dense"),
    ],
)
def test_scans_that_the_kernel_does_not_take(shape, m, kind, why):
    a, b, *_ = problem(shape, m, 4, kind)
    with pytest.raises(ValueError, match=why):
        linear_scan(a, b, engine="interpreted")
    with pytest.raises(ValueError, match="hand-written adjoint alone"):
        linear_scan(a, b, engine="interpreted", adjoint="direct")


STEPS = {
    "clipped shallow, hidden units in a loop": (lambda: forced(ClippedShallowPLRNN(3, 14, key=KEY)), 14),
    "clipped shallow, all written out": (lambda: forced(ClippedShallowPLRNN(3, 9, key=KEY)), None),
    "dendritic": (lambda: forced(ClippedDendriticPLRNN(4, 12, key=KEY)), None),
    "gru": (lambda: GRU(3, input_size=2, key=KEY), None),
    "alrnn": (lambda: forced(ALRNN(6, 2, key=KEY)), None),
}
"""Cells, and how long the loop along their hidden units is."""


@pytest.mark.parametrize("name", some(STEPS, "clipped shallow, hidden units in a loop", "gru"))
def test_functions_of_every_step(name):
    (make, unit), rng = STEPS[name], np.random.default_rng(0)
    cell = make()
    z, x = jnp.asarray(rng.normal(size=(9, cell.state_size))), jnp.asarray(rng.normal(size=(9, 2)))
    s = Forcing(x, jnp.full(9, 0.3)) if isinstance(cell, Forced) else x
    free, fixed = eqx.partition(cell, eqx.is_array)

    def linearised(free, now):
        return eqx.combine(free, fixed).linearise(*now)

    def moved(free, now):
        cell, (z, s) = eqx.combine(free, fixed), now
        return jnp.any(region_of(cell, z, s) != region_of(cell, 1.5 * z, s))

    functions = [linearised, moved] if isinstance(cell, Forced) else [linearised]
    for function in functions:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), free)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (z, s))
        assert written(function, shapes, one).unit == unit
        found = jax.tree.leaves(map_steps(function, free, (z, s), interpret=True))
        wanted = jax.tree.leaves(jax.vmap(function, (None, 0))(free, (z, s)))
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("function", "unit"),
    [
        (lambda W, z: jnp.concatenate([W @ z, z[0] * W[:, 0]]).reshape(-1, 1)[:, 0].sum(), 12),
        (lambda W, z: jnp.concatenate([z, z, z, z, jnp.exp(z)]).sum() + W[0], None),
        (lambda W, z: jnp.sum(jnp.flip(jnp.tanh(W @ z)) * W[:, 0]), None),
        (lambda W, z: jnp.sum(jnp.tanh(W @ z)[3:]), None),
        (lambda W, z: jnp.tanh(W @ z) @ jnp.arange(12.0) + jnp.sum(jnp.pad(W @ z, (0, 12))), 12),
        (lambda W, z: jnp.sin(W.T @ jnp.tanh(W @ z + W @ jnp.cos(W.T @ (W @ z)))), 12),
        (lambda W, z: jnp.split(jnp.concatenate([W @ z, W[:, 1]]), 2)[1] @ W, 12),
    ],
)
def test_long_axes_are_walked_along_or_written_out(function, unit):
    rng = np.random.default_rng(1)
    W, z = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.normal(size=(5, 3)))
    assert written(function, W, z[0]).unit == unit
    found, wanted = map_steps(function, W, z, interpret=True), jax.vmap(function, (None, 0))(W, z)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("gate", "wanted"), [(logistic, lambda x: 1 / (1 + np.exp(-x))), (tanh, np.tanh)])
def test_gates_without_branches(gate, wanted):
    rng = np.random.default_rng(0)
    x = np.concatenate([20 * rng.normal(size=10_000), np.geomspace(1e-30, 30, 1000), [0, -0.6, 0.6, 1e30, -np.inf]])
    x = x.astype(np.float32)
    found = np.asarray(gate(jnp.asarray(x), True))
    assert found.dtype == np.float32
    with np.errstate(over="ignore"):
        exact = wanted(x.astype(np.float64))
    assert np.abs(found - exact).max() < 3e-7
    small = np.abs(x) < 10
    assert np.abs(found / np.where(exact == 0, 1, exact) - (exact != 0))[small].max() < 1e-6
    assert np.isnan(gate(jnp.full(1, jnp.nan, jnp.float32), True)).all()


def test_functions_too_large_to_write_out_are_refused():
    with pytest.raises(Unfused, match="operations on numbers"):
        map_steps(lambda W, z: W @ z, jnp.ones((70, 70)), jnp.ones((3, 70)), interpret=True)
    with pytest.raises(Unfused, match="holds sort"):
        map_steps(lambda _, z: jnp.sort(z), jnp.ones(1), jnp.ones((3, 4)), interpret=True)


@pytest.mark.gpu
@pytest.mark.parametrize("width", [1, 3, 130, 4001])  # the last is walked along
@pytest.mark.parametrize("steps", [1, 7, 1000, 65537])
def test_scans_on_the_hardware(steps, width):
    if steps * width > 1e8:
        steps = 6553
    for shape, m in (((), width), ((width,), width), ((2, 2, width), 2 * width)):
        a, b, h0, g, resets = problem(shape, m, steps, np.float32)
        for reverse, new in ((False, None), (True, resets)):
            pairs = (gradients(e, a, b, h0, g, new, reverse) for e in ("pallas", "sequential"))
            for x, y in zip(*pairs, strict=True):
                assert float(jnp.abs(x - y).max()) <= 1e-5 * float(jnp.abs(y).max()) + 1e-30


@pytest.mark.gpu
@pytest.mark.parametrize("width", [3, 130])
def test_states_made_anew_on_the_hardware(width):
    a, b, h0, there, _ = problem((width,), width, 65537, np.float32)
    wanted = linear_scan(a, b, h0, engine="sequential")
    stays, found = (jax.jit(lambda x: anew(a, b, there, h0, x, reverse=False))(jnp.array(x)) for x in (False, True))
    np.testing.assert_array_equal(stays, there)
    assert float(jnp.abs(found - wanted).max()) <= 1e-5 * float(jnp.abs(wanted).max())


@pytest.mark.gpu
@pytest.mark.parametrize("m", [5, 16, 31])
@pytest.mark.parametrize("steps", [1, 1000, 65537])
def test_dense_scans_on_the_hardware(steps, m):
    a, b, h0, g, resets = problem((m, m), m, steps, np.float32)
    a = a / float(np.sqrt(m))
    for reverse, new in ((False, None), (True, resets)):
        for x, y in zip(*(gradients(e, a, b, h0, g, new, reverse) for e in ("pallas", "sequential")), strict=True):
            assert float(jnp.abs(x - y).max()) <= 1e-5 * float(jnp.abs(y).max()) + 1e-30


@pytest.mark.gpu
def test_sums_over_steps_on_the_hardware():
    cell, rng = ClippedShallowPLRNN(3, 50, key=KEY), np.random.default_rng(0)
    zs, ls = (jnp.asarray(rng.normal(size=(3200, 3)).astype(np.float32)) for _ in range(2))
    cell = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, cell)
    with jax.default_matmul_precision("highest"):
        found, wanted = (jax.tree.leaves(pullback(cell, zs, None, ls, engine=e)) for e in ("pallas", "loop"))
    for x, y in zip(found, wanted, strict=True):
        assert float(jnp.abs(x - y).max()) <= 1e-5 * float(jnp.abs(y).max())


@pytest.mark.gpu
@pytest.mark.parametrize("name", LOOPS)
def test_loops_on_the_hardware(name):
    """No farther from the loop in double precision than 1e-5, or else twice what the loop itself is in single."""
    cell = LOOPS[name]()
    with jax.default_matmul_precision("highest"):
        exact, _ = loop_gradients(cell, "loop", 200, np.float64)
        (plain, _), (found, fused) = (loop_gradients(cell, e, 200, np.float32) for e in ("loop", "fused"))
    assert fused
    for x, y, z in zip(*([np.asarray(v, np.float64) for v in leaves] for leaves in (found, plain, exact)), strict=True):
        scale, ours, theirs = np.abs(z).max(), np.abs(x - z).max(), np.abs(y - z).max()
        print(name, z.shape, ours / (scale + 1e-30), theirs / (scale + 1e-30))
        assert ours <= max(1e-5 * scale, 2 * theirs) + 1e-30


@pytest.mark.gpu
@pytest.mark.parametrize("solver", [Sequential, Shooting])
@pytest.mark.parametrize("make", [ParaGRU, ParaLSTM])
def test_the_way_back_on_the_hardware(make, solver):
    cell = make(1030, input_size=2, key=KEY)
    assert pull.wide(4, 1030)
    with jax.default_matmul_precision("highest"):
        found, wanted = (
            way_back(cell, e, 2051, np.float32, batch=4, solver=s) for e, s in (("fused", solver), ("loop", Sequential))
        )
    for x, y in zip(found, wanted, strict=True):
        assert float(jnp.abs(x - y).max()) <= 2e-5 * float(jnp.abs(y).max())


def powers_and_what_they_are(n, length, fastest, channels=2):
    """Weights, logarithms and a gradient of `vandermonde_product`; the result and both gradients, in double."""
    rng = np.random.default_rng(n)
    w = rng.normal(size=(channels, n)) + 1j * rng.normal(size=(channels, n))
    x = -rng.uniform(0.1, 3, size=w.shape) / length + 1j * rng.uniform(-fastest, fastest, size=w.shape)
    w, x = (v.astype(np.complex64) for v in (w, x))
    g = rng.normal(size=(channels, length)).astype(np.float32)
    powers = np.exp(x.astype(complex)[:, :, None] * np.arange(length))
    later = np.arange(length) * g[:, None].astype(float) * powers
    return (jnp.asarray(w), jnp.asarray(x), jnp.asarray(g)), (
        2 * (w[:, :, None] * powers).sum(1).real,
        2 * (g[:, None].astype(float) * powers).sum(2),
        2 * w.astype(complex) * later.sum(2),
    )


def check_powers(engine, given, wanted):
    w, x, g = given
    with jax.default_matmul_precision("highest"):
        found, back = jax.vjp(lambda w, x: vandermonde_product(w, x, g.shape[1], engine=engine), w, x)
        for got, exact in zip((found, *back(g)), wanted, strict=True):
            np.testing.assert_allclose(got, exact, rtol=0, atol=3e-6 * np.abs(exact).max() + 1e-7)


@pytest.mark.parametrize("programs", [1, 1024])
@pytest.mark.parametrize("fastest", [4, 3_000])
@pytest.mark.parametrize(
    ("n", "length"), [(3, 1), (5, 7), (33, 1000), pytest.param(16, 5000, marks=pytest.mark.slow), (2, 65537)], ids=str
)
def test_sums_of_powers_in_one_kernel(n, length, fastest, programs, monkeypatch):
    """Both forms, values and gradients, beside double precision: rounding does not grow with the steps."""
    monkeypatch.setattr("dsrecon.kernels.accelerated.powers.PROGRAMS", programs)
    given, wanted = powers_and_what_they_are(n, length, fastest)
    for engine in ("products", "interpreted"):
        check_powers(engine, given, wanted)


def test_gradients_of_gradients_of_sums_of_powers():
    w, x = (jax.lax.complex(*jax.random.normal(jax.random.key(i), (2, 2, 3), jnp.float32)) for i in range(2))

    def penalty(engine, t):
        def energy(t):
            v = jax.lax.complex(t, jnp.zeros_like(t))
            return jnp.mean(vandermonde_product(v * w, v * (x - 0.5) / 9, 50, engine=engine) ** 2)

        return energy(t) + jax.grad(energy)(t) ** 2

    found, wanted = (jax.grad(functools.partial(penalty, e))(jnp.float32(0.7)) for e in ("interpreted", "products"))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(functools.partial(penalty, "interpreted"), (jnp.float32(0.7),), (jnp.float32(1),))


def test_sums_of_powers_of_no_models():
    w = jnp.zeros((0, 2, 3), jnp.complex64)
    found, back = jax.vjp(jax.vmap(lambda w: vandermonde_product(w, w, 50, engine="interpreted")), w)
    assert found.shape == (0, 2, 50) and back(found)[0].shape == w.shape


@pytest.mark.parametrize("engine", ["products", "interpreted"])
def test_powers_that_grow(engine):
    """Up to the last step, and not beyond it, where single precision would overflow."""
    w, x = (jnp.full((1, 3), v, jnp.complex64) for v in (1 + 0j, 17 + 0.1j))
    found, back = jax.vjp(lambda w, x: vandermonde_product(w, x, 6, engine=engine), w, x)
    power = np.exp((17 + 0.1j) * np.arange(6))
    np.testing.assert_allclose(found[0], 6 * power.real, rtol=3e-5)
    for got, wanted in zip(back(jnp.ones((1, 6), jnp.float32)), (power, np.arange(6) * power), strict=True):
        np.testing.assert_allclose(got[0], 2 * wanted.sum(), rtol=3e-5)


@pytest.mark.parametrize("channels", [4, 3])
def test_sums_of_powers_of_many_models(channels, monkeypatch):
    """Channels of models that `vmap` adds are channels; where that were more than 32 bits count, a model at a time."""
    from dsrecon.kernels.accelerated import powers

    w, x = (jax.lax.complex(*jax.random.normal(jax.random.key(i), (2, 2, 2, 4), jnp.float32) / 9) for i in range(2))
    x = x - 0.3

    def gradients(w, x, engine):
        found, back = jax.vjp(lambda w, x: vandermonde_product(w, x, 70, engine=engine), w, x)
        return found, *back(jnp.cos(jnp.arange(140, dtype=jnp.float32)).reshape(2, 70))

    wanted = [gradients(w[i], x[0], "products") for i in range(2)]
    monkeypatch.setattr(powers, "COUNTED", channels + 1)
    monkeypatch.setattr(powers, "_numbers", lambda w, _: len(w))
    found = jax.vmap(lambda w, x: gradients(w, x, "interpreted"), (0, None))(w, x[0])
    for i, rows in enumerate(wanted):
        for got, exact in zip(found, rows, strict=True):
            np.testing.assert_allclose(got[i], exact, atol=2e-5 * np.abs(exact).max())


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("channels", "n", "length", "programs"),
    [(3, 1, 7, 1024), (1, 130, 1000, 1024), (130, 32, 16_384, 1), (3, 32, 65_537, 1), (3, 32, 65_537, 1024)],
)
def test_sums_of_powers_on_the_hardware(channels, n, length, programs, monkeypatch):
    monkeypatch.setattr("dsrecon.kernels.accelerated.powers.PROGRAMS", programs)
    given, wanted = powers_and_what_they_are(n, length, 4, channels)
    for engine in ("products", "auto"):
        check_powers(engine, given, wanted)
