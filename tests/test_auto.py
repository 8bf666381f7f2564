"""The solver that is chosen by a model of cost: what it chooses, that it says so, and that the run is the loop's."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon import (
    RESULTS,
    Auto,
    Forced,
    Forcing,
    IdentityReadout,
    Restart,
    Restarted,
    Sequential,
    Shooting,
    evolve,
)
from dsrecon.kernels.program import Work, work
from dsrecon.models import ALRNN, GRU, ParaGRU, ShallowPLRNN
from dsrecon.newton import auto
from dsrecon.newton.auto import Choice, chosen
from dsrecon.newton.costs import MEASURED, Outline, outlined
from dsrecon.systems import Lozi, MapCell
from dsrecon.training import Window, gtf

KEY = jax.random.key(0)
STEPS = 4_001
NAMES = {"blocks", "first_inexact", "first_nonfinite", "fused", "gain", "iterations", "residual"}


def forced(cell, alpha, steps=STEPS, lead=()):
    model = Forced(cell, IdentityReadout(2, cell.state_size, key=jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (*lead, steps, 2))
    z0 = jax.random.normal(jax.random.key(3), (*lead, cell.state_size))
    return model, z0, Forcing(x, jnp.full((*lead, steps), alpha))


def gradients(solver, cell, z0, s):
    """A run, and the gradient of a number that all its states enter."""
    free, fixed = eqx.partition((cell, z0, s), eqx.is_inexact_array)

    @jax.jit
    def of(free):
        def number(free):
            cell, z0, s = eqx.combine(free, fixed)
            run = evolve(cell, z0, s, solver=solver, throw=False)
            return jnp.mean(jnp.sin(run.zs)), run

        return jax.value_and_grad(number, has_aux=True)(free)

    (_, run), gradient = of(free)
    return run, gradient


def same(solver, cell, z0, s):
    found, slopes = gradients(solver, cell, z0, s)
    wanted, wanted_slopes = gradients(Sequential(), cell, z0, s)
    assert (found.result == RESULTS.successful).all()
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=1e-8, atol=1e-8)
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted_slopes), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9)
    return found


@pytest.fixture
def choosing(monkeypatch):
    """Make `Auto` choose what is given, which no shape of a test would on every machine. What was traced before had
    chosen otherwise, and is forgotten."""

    def choose(*choice):
        jax.clear_caches()
        monkeypatch.setattr(auto, "chosen", lambda *_: Choice(*choice))

    yield choose
    jax.clear_caches()


@pytest.mark.parametrize("lead", [(), (3,)], ids=str)
def test_a_long_run_is_made_in_blocks_and_is_the_loops(lead):
    run = same(Auto(), *forced(ShallowPLRNN(3, 9, key=KEY), 0.5, lead=lead))
    assert set(run.stats) == NAMES and all(x.shape == lead for x in run.stats.values())
    assert (run.stats["blocks"] > 1).all() and (run.stats["gain"] > auto.MARGIN).all()
    assert (run.stats["first_inexact"] == STEPS).all()


def test_a_short_run_is_made_by_the_loop_and_says_the_same_things():
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.5, steps=60)
    run, loop = evolve(model, z0, s, solver=Auto()), evolve(model, z0, s)
    np.testing.assert_array_equal(run.zs, loop.zs)
    assert set(run.stats) == NAMES and run.stats["blocks"] == 1 == run.stats["gain"]
    assert run.stats["residual"] == 0 and run.stats["first_inexact"] == 60


def test_a_guess_serves_blocks_and_hurts_no_loop(choosing):
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.05, steps=60)
    zs = evolve(model, z0, s).zs
    np.testing.assert_array_equal(evolve(model, z0, s, solver=Auto(), guess=zs).zs, zs)
    choosing(12, 12, 2.0)
    plain, begun = (evolve(model, z0, s, solver=Auto(), guess=guess) for guess in (jnp.zeros_like(zs), zs))
    assert begun.stats["iterations"] == 1 < plain.stats["iterations"]


@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_what_does_not_forget_is_made_by_the_loop_with_its_gradient(choosing, lead):
    """A weakly forced cell carries an error, and a costate, over many blocks; two times are not enough for either."""
    choosing(40, 2, 2.0)
    run = same(Auto(), *forced(ShallowPLRNN(3, 9, key=KEY), 0.02, steps=400, lead=lead))
    assert (run.stats["first_inexact"] < 400).all() and (run.stats["iterations"] == 2).all()


def test_free_chaos_is_the_loops_to_the_last_bit(choosing):
    choosing(10, 3, 2.0)
    run, loop = (evolve(Lozi(), jnp.array([0.1, 0.1]), steps=2_000, solver=by) for by in (Auto(), Sequential()))
    np.testing.assert_array_equal(run.zs, loop.zs)
    assert run.stats["iterations"] == 3 and run.result == RESULTS.successful


def test_of_a_batch_only_what_needs_it_is_made_anew(choosing):
    choosing(8, 1, 2.0)
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.5, steps=1_600, lead=(2,))
    s = eqx.tree_at(lambda s: s.alpha, s, jnp.stack([s.alpha[0], 0 * s.alpha[1]]))
    run, loop = evolve(model, z0, s, solver=Auto()), evolve(model, z0, s)
    blocks = evolve(model, z0, s, solver=Shooting(8, max_iterations=1), throw=False)
    np.testing.assert_array_equal(run.stats["first_inexact"] < 1_600, [False, True])
    np.testing.assert_array_equal(run.zs[0], blocks.zs[0])
    np.testing.assert_array_equal(run.zs[1], loop.zs[1])


def test_under_vmap_runs_and_gradients_are_the_loops(choosing):
    """One member forgets and one does not, so that one of them goes through the loop."""
    choosing(40, 2, 2.0)
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.5, steps=400, lead=(2,))
    alphas = jnp.array([0.5, 0.02])

    def slopes(solver):
        def number(model, alpha, z0, x):
            return jnp.mean(evolve(model, z0, Forcing(x, jnp.full(400, alpha)), solver=solver, throw=False).zs ** 2)

        return jax.vmap(eqx.filter_grad(number), in_axes=(None, 0, 0, 0))(model, alphas, z0, s.x)

    for x, y in zip(*(jax.tree.leaves(slopes(by)) for by in (Auto(), Sequential())), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


def test_a_run_that_overflows_says_where(choosing):
    choosing(30, 2, 2.0)
    cell, z0 = MapCell(lambda z: z**2, 1), jnp.array([[1.5], [0.5]])
    run, loop = (evolve(cell, z0, steps=300, solver=by, throw=False) for by in (Auto(), Sequential()))
    np.testing.assert_array_equal(run.stats["first_nonfinite"], loop.stats["first_nonfinite"])
    np.testing.assert_array_equal(run.result == RESULTS.diverged, [True, False])
    with pytest.raises(RuntimeError, match=r"diverged: its state is not finite from step \d+ of 300"):
        evolve(cell, z0, steps=300, solver=Auto())


def test_single_precision(choosing):
    choosing(10, 10, 2.0)
    model, z0, s = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, forced(GRU(4, input_size=2, key=KEY), 0.5)
    )
    run, loop = evolve(model, z0, s, solver=Auto()), evolve(model, z0, s)
    assert run.zs.dtype == run.stats["gain"].dtype == run.stats["residual"].dtype == jnp.float32
    np.testing.assert_allclose(run.zs, loop.zs, rtol=2e-5, atol=2e-5)


def test_a_loss_takes_it(choosing):
    model, _, _ = forced(ShallowPLRNN(3, 9, key=KEY), 0.3)
    x = jax.random.normal(KEY, (2, 201, 2))
    wanted, _ = gtf(0.3)(model, None, Window(x, x), KEY)
    choosing(4, 4, 2.0)
    found, (_, facts) = gtf(0.3, solver=Auto())(model, None, Window(x, x), KEY)
    _, (_, same_facts) = gtf(0.3, solver=Shooting(4))(model, None, Window(x, x), KEY)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert facts["iterations"] == same_facts["iterations"] <= 2


def test_work_is_counted():
    W = jnp.ones((5, 3))
    assert work(lambda z: jnp.tanh(W @ z) + 1, jnp.ones(3)) == Work(15, 5, 5)
    assert work(lambda z: jnp.sum(z), jnp.ones(7)) == Work(0, 7, 0)
    assert work(lambda z: jnp.exp(jnp.sin(W)[0]) * z, jnp.ones(3)) == Work(0, 3, 0)  # of parameters: made once
    assert work(lambda z, s: z + W @ s, jnp.ones(5), jnp.ones(3)) == Work(15, 5, 0)
    cell = jax.jit(lambda z: W.T @ (W @ z))  # of what is called too
    assert work(cell, jnp.ones(3)) == Work(30, 0, 0)


def test_work_in_loops_and_branches_is_counted():
    z = jnp.ones(3)
    assert work(lambda z: jax.lax.scan(lambda z, _: (jnp.tanh(z), None), z, None, length=4)[0], z) == Work(0, 0, 12)
    assert work(lambda z: jax.lax.fori_loop(0, z[0].astype(int), lambda i, z: 2 * z, z), z).sums >= 3
    found = work(lambda z: jax.lax.cond(z[0] > 0, lambda z: jnp.exp(z) * z, lambda z: z, z), z)
    assert found.functions == 3 and found.sums >= 3


def test_an_outline_says_how_a_step_is_run_here():
    found = outlined(ALRNN(5, 2, key=KEY), jnp.zeros((3, 5)), None)
    assert found.path == "beside" and found.products == 25
    wide = outlined(ParaGRU(300, input_size=2, key=KEY), jnp.zeros((1, 300)), jnp.zeros((1, 9, 2)))
    assert wide.path == "cpu" and wide.functions >= 900


def test_an_outline_says_how_a_step_is_run_on_a_gpu(monkeypatch):
    """What a kernel would serve is asked of the kernel; nothing is compiled for it."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    kernels = sys.modules["dsrecon.kernels.recurrence"]
    monkeypatch.setattr(kernels, "nvidia", lambda: True)
    small = outlined(ALRNN(20, 2, key=KEY), jnp.zeros((3, 20)), None)
    assert small.path == "kernel" and small.programs == 1
    units = outlined(ParaGRU(300, input_size=2, key=KEY), jnp.zeros((1, 300)), jnp.zeros((1, 9, 2)))
    assert units.path == "units" and units.programs == 10 and units.functions >= 90
    large = outlined(ALRNN(100, 10, key=KEY), jnp.zeros((3, 100)), None)
    assert large.path == "loop" and large.products == 10_000
    monkeypatch.setattr(kernels, "nvidia", lambda: False)
    assert outlined(ALRNN(20, 2, key=KEY), jnp.zeros((3, 20)), None).path == "loop"  # another accelerator


class Watched(ShallowPLRNN):
    """Says something at every step, and checks what it is given."""

    def __call__(self, z, s=None):
        z = eqx.error_if(z, jnp.any(jnp.abs(z) > 1e6), "too large")
        jax.debug.callback(lambda z: None, z[0])
        return ShallowPLRNN.__call__(self, z, s)


@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_a_cell_that_prints_and_checks(choosing, lead):
    """A batch of it is stepped as one, prints and checks too: a check of one is not called for all."""
    choosing(4, 4, 2.0)
    model, z0, s = forced(Watched(3, 9, key=KEY), 0.5, steps=800, lead=lead)
    run, loop = (evolve(model, z0, s, solver=by) for by in (Auto(), Sequential()))
    np.testing.assert_allclose(run.zs, loop.zs, rtol=1e-8, atol=1e-8)
    with pytest.raises(RuntimeError, match="too large"):
        evolve(model, z0 + 1e7, s, solver=Sequential()).zs.block_until_ready()


def test_a_map_without_derivative_is_run():
    @jax.custom_vjp
    def half(z):
        return 0.5 * z + 1

    half.defvjp(lambda z: (half(z), None), lambda _, g: (0.5 * g,))
    run, loop = (evolve(MapCell(half, 2), jnp.zeros(2), steps=20, solver=by) for by in (Auto(), Sequential()))
    np.testing.assert_array_equal(run.zs, loop.zs)


def test_half_precision_is_run_by_the_loop_unless_tolerances_are_given():
    model, z0, s = jax.tree.map(
        lambda x: x.astype(jnp.float16) if eqx.is_inexact_array(x) else x, forced(ShallowPLRNN(3, 9, key=KEY), 0.5)
    )
    assert evolve(model, z0, s, solver=Auto()).stats["blocks"] == 1
    assert evolve(model, z0, s, solver=Auto(rtol=1e-2, atol=1e-2)).stats["blocks"] > 1
    with pytest.raises(ValueError, match="rtol and atol must be given for float16"):
        evolve(model, z0, s, solver=Shooting(4))


def test_trials_after_one_that_diverged_are_the_loops(choosing):
    choosing(8, 8, 2.0)
    new = jnp.arange(400) % 170 == 0
    start = jnp.where(jnp.arange(400)[:, None] < 100, 1.5, 0.9)
    cell = Restarted(MapCell(lambda z: jnp.where(z > 1.2, z**2, 0.995 * z), 1))
    run, loop = (
        evolve(cell, jnp.ones(1), Restart(new, start), solver=by, throw=False) for by in (Auto(), Sequential())
    )
    np.testing.assert_array_equal(run.zs, loop.zs)
    assert run.result == loop.result == RESULTS.diverged and not jnp.isfinite(loop.zs[169]).all()


def test_small_states_are_told_from_nothing(float32, choosing):
    """The absolute tolerance follows the size of the run: else a guess of 1e-6 would be as good as any."""
    choosing(50, 50, 2.0)
    slow = MapCell(lambda z: 0.999 * z, 2)
    z0 = jnp.array([1e-6, -2e-6])
    run, loop = (evolve(slow, z0, steps=4_000, solver=by) for by in (Auto(), Sequential()))
    np.testing.assert_allclose(run.zs, loop.zs, atol=1e-4 * 2e-6)
    still = evolve(slow, jnp.zeros(2), steps=4_000, solver=Auto())
    assert (still.zs == 0).all() and still.stats["residual"] == 0


def test_no_runs_and_complex_states():
    assert evolve(ALRNN(3, 1, key=KEY), jnp.zeros((0, 3)), steps=20_000, solver=Auto()).zs.shape == (0, 20_000, 3)
    run = evolve(MapCell(lambda z: 0.9j * z + 1, 2), jnp.array([0.3 + 1j, 0.4]), steps=20, solver=Auto())
    assert run.stats["residual"].dtype == jnp.float64


SMALL = Outline("kernel", 1, 400.0, 200.0, 0.0)
"""About an AL-RNN of 20 units."""


def test_the_more_steps_the_more_blocks_and_the_more_runs_the_fewer():
    """On an H200: short sequences and full batches by the loop, long ones in as many blocks as the machine has room."""
    assert chosen(SMALL, 16, 200) == Choice(1, 1, 1.0)
    found = [chosen(SMALL, 1, steps) for steps in (1_000, 10_000, 100_000, 1_000_000)]
    assert all(a.blocks < b.blocks and a.gain < b.gain for a, b in pairwise(found))
    assert all(choice.times <= choice.blocks for choice in found)
    assert chosen(SMALL, 20_000, 1_000).blocks == 1
    assert chosen(SMALL._replace(path="cpu"), 64, 10**6).blocks == 1  # as many runs as were measured


def test_blocks_that_never_meet_cost_little_more_than_the_loop():
    """The bound of the times that blocks are run: all of them take at most what the loop takes."""
    for path, cost in MEASURED.items():
        for rows in (1, 16):
            for steps in (2_000, 100_000):
                outline = SMALL._replace(path=path)
                blocks, times, _ = chosen(outline, rows, steps)
                once, loop = (
                    steps // blocks * cost.of_step(outline, rows * blocks),
                    cost.of_run(outline, rows, steps, 1),
                )
                assert times * once + (loop if 1 < times < blocks else 0) <= 2.001 * loop


def test_the_model_is_of_what_was_measured():
    """The numbers in the package are those that the benchmark fitted."""
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "solver_costs.json"
    fitted = {
        name: list(cost) for run in json.loads(path.read_text())["machines"] for name, cost in run["costs"].items()
    }
    assert {name: list(cost) for name, cost in MEASURED.items()} == fitted


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Auto(rtol=0.0), "rtol must be positive and finite.*got 0"),
        (lambda: Auto(atol=float("nan")), "atol must be positive and finite.*got nan"),
    ],
)
def test_bad_arguments(made, says):
    with pytest.raises(ValueError, match=says):
        made()


def test_a_guess_of_another_shape_is_refused():
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.05, steps=60)
    with pytest.raises(ValueError, match="guess must have the shape of the states"):
        evolve(model, z0, s, solver=Auto(), guess=jnp.zeros((3, 3)))
