"""Runs cut into blocks that are run at once: they are the loop's where blocks meet, and say so where they do not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon import RESULTS, Forced, Forcing, IdentityReadout, Newton, Restart, Restarted, Sequential, Shooting, evolve
from dsrecon.models import ALRNN, GRU, ParaGRU, ParaLSTM, ShallowPLRNN
from dsrecon.newton.shooting import MEMBERS, _liked
from dsrecon.systems import Lozi, MapCell
from dsrecon.training import Window, gtf

KEY = jax.random.key(0)
STEPS = 61


def forced(cell, alpha, steps=STEPS, lead=()):
    model = Forced(cell, IdentityReadout(2, cell.state_size, key=jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (*lead, steps, 2))
    z0 = jax.random.normal(jax.random.key(3), (*lead, cell.state_size))
    return model, z0, Forcing(x, jnp.full((*lead, steps), alpha))


def gradients(solver, cell, z0, s, steps=STEPS):
    """A run, and the gradient of a number that all its states enter."""
    free, fixed = eqx.partition((cell, z0, s), eqx.is_inexact_array)
    w = jax.random.normal(jax.random.key(4), (*z0.shape[:-1], steps, z0.shape[-1]), z0.dtype)

    @jax.jit
    def of(free):
        def number(free):
            cell, z0, s = eqx.combine(free, fixed)
            run = evolve(cell, z0, s, steps=steps, solver=solver, throw=False)
            return jnp.sum(w * jnp.sin(run.zs)), run

        return jax.value_and_grad(number, has_aux=True)(free)

    (_, run), gradient = of(free)
    return run, gradient


def same(solver, cell, z0, s, rtol=1e-9):
    found, slopes = gradients(solver, cell, z0, s)
    wanted, wanted_slopes = gradients(Sequential(engine="loop"), cell, z0, s)
    assert (found.result == RESULTS.successful).all()
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=rtol, atol=rtol)
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted_slopes), strict=True):
        np.testing.assert_allclose(x, y, rtol=10 * rtol, atol=10 * rtol)
    return found


@pytest.mark.parametrize(
    ("blocks", "washout", "lead"),
    [(1, None, ()), (4, None, (3,)), (5, 12, ()), (6, 0, (3,)), (61, 1, ())],
    ids=lambda x: str(x),
)
def test_blocks_that_meet_are_the_loop(blocks, washout, lead):
    """With a rest of steps and without, with a washout and without: where a first guess is poor, blocks run again."""
    found = same(Shooting(blocks, washout), *forced(ALRNN(5, 2, key=KEY), 0.3, lead=lead))
    assert found.stats["iterations"].shape == lead and (found.stats["blocks"] == blocks).all()
    assert (found.stats["residual"] <= 1).all() and (found.stats["first_inexact"] == STEPS).all()
    assert (found.stats["iterations"] >= (1 if blocks == 1 else 2)).all()


def test_what_forgets_slowly_has_right_gradients_all_the_same():
    """A costate that lives for many blocks: what goes back is run again until the blocks meet."""
    found = same(Shooting(20, 0), *forced(ShallowPLRNN(3, 9, key=KEY), 0.02))
    assert found.stats["iterations"] > 5


def test_a_washout_that_forgets_needs_one_iteration():
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.5, steps=400)
    run = evolve(model, z0, s, solver=Shooting(4))
    assert run.stats["iterations"] == 1 and run.stats["residual"] <= 1
    np.testing.assert_allclose(run.zs, evolve(model, z0, s).zs, rtol=1e-9, atol=1e-9)


def test_short_runs_have_fewer_blocks_and_a_shorter_washout():
    """A solver that was made for long runs serves short ones too."""
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.5, steps=3)
    run = evolve(model, z0, s, solver=Shooting(100, 50))
    assert run.stats["blocks"] == 3
    np.testing.assert_allclose(run.zs, evolve(model, z0, s).zs, rtol=1e-9, atol=1e-9)


def test_a_run_as_guess_is_found_at_once():
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.05)
    zs = evolve(model, z0, s).zs
    plain = evolve(model, z0, s, solver=Shooting(6, 0))
    run = evolve(model, z0, s, solver=Shooting(6, 0), guess=zs)
    assert run.stats["iterations"] == 1 < plain.stats["iterations"]
    np.testing.assert_allclose(run.zs, zs, rtol=1e-12, atol=1e-12)


def test_free_chaos_is_reported_and_can_be_finished():
    cell, z0 = Lozi(), jnp.array([0.1, 0.1])
    wanted = evolve(cell, z0, steps=100).zs
    run = evolve(cell, z0, steps=100, solver=Shooting(10, 2, max_iterations=3), throw=False)
    assert run.result == RESULTS.not_converged and run.stats["iterations"] == 3
    assert run.stats["first_inexact"] == 30  # an iteration settles a block
    np.testing.assert_array_equal(run.zs[:30], wanted[:30])
    with pytest.raises(RuntimeError, match="did not converge: .* from step 30 of 100 on, after 3 iterations"):
        evolve(cell, z0, steps=100, solver=Shooting(10, 2, max_iterations=3))
    finished = evolve(cell, z0, steps=100, solver=Shooting(10, 2, max_iterations=3, finish="sequential"))
    np.testing.assert_allclose(finished.zs, wanted, rtol=1e-12)
    run = evolve(cell, z0, steps=100, solver=Shooting(10))
    assert run.stats["iterations"] <= 10  # one a block at most
    step = jax.vmap(lambda z: cell(z))(run.zs[:-1])  # the map stretches what the tolerance leaves open
    np.testing.assert_allclose(run.zs[1:], step, rtol=1e-9, atol=1e-9)


def test_what_overflows_says_where():
    run = evolve(ALRNN(3, 1, key=KEY), jnp.full(3, jnp.nan), steps=40, solver=Shooting(4), throw=False)
    assert run.result == RESULTS.diverged and run.stats["first_nonfinite"] == 0


def test_a_run_that_overflows_is_not_run_again_for_every_block():
    cell, z0 = MapCell(lambda z: z**2, 1), jnp.array([[1.5], [0.5]])
    wanted = evolve(cell, z0, steps=300, throw=False)
    run = evolve(cell, z0, steps=300, solver=Shooting(30, 2), throw=False)
    np.testing.assert_array_equal(run.stats["first_nonfinite"], wanted.stats["first_nonfinite"])
    np.testing.assert_array_equal(run.result == RESULTS.diverged, [True, False])
    np.testing.assert_array_equal(run.result == RESULTS.successful, [False, True])
    assert run.stats["iterations"][0] <= 4 and (run.stats["first_inexact"] == 300).all()
    np.testing.assert_allclose(run.zs, wanted.zs, rtol=1e-12)


def test_trials_after_one_that_diverged_are_the_loops():
    """Infinite and NaN where the loop is, in one unit of two, and a trial that begins anew is found."""
    new = jnp.arange(480) % 160 == 0
    start = jnp.stack([jnp.where(jnp.arange(480) < 200, 1.5, 0.9), jnp.full(480, 0.4)], -1)

    def step(z):
        grown = jnp.where(z[0] > 1.2, z[0] ** 2, 0.5 * z[0])
        return jnp.stack([jnp.where(jnp.isinf(z[0]), jnp.nan, grown), 0.5 * jnp.sin(z[1])])

    cell = Restarted(MapCell(step, 2))
    loop, run = (
        evolve(cell, jnp.ones(2), Restart(new, start), solver=by, throw=False) for by in (Sequential(), Shooting(24, 4))
    )
    assert np.isinf(loop.zs).any() and np.isnan(loop.zs[:320]).any() and np.isfinite(loop.zs[320:]).all()
    np.testing.assert_allclose(run.zs, loop.zs, rtol=1e-9, atol=1e-9)
    assert run.result == RESULTS.diverged and run.stats["first_inexact"] == 480 and run.stats["iterations"] <= 8


@pytest.mark.parametrize("finish", ["report", "sequential"])
def test_gradients_of_trials_beside_one_that_diverged_are_the_loops(finish):
    """A diverging trial is as large as numbers go: it does not decide how exact the costates of the others are."""
    new = jnp.arange(480) % 160 == 0
    start = jnp.where(jnp.arange(480)[:, None] // 160 == 1, 10.0, 0.3)
    s = 0.01 * jax.random.normal(jax.random.key(0), (480, 1))
    kept = (jnp.arange(480) < 160) | (jnp.arange(480) >= 320)
    cell = Restarted(MapCell(lambda z, s: jnp.where(jnp.abs(z) > 5, z**1.2, 0.999 * z) + s, 1))

    def slopes(solver):
        def number(s, start):
            run = evolve(cell, jnp.ones(1), Restart(new, start, s), solver=solver, throw=False)
            return jnp.sum(jnp.where(kept[:, None], run.zs, 0)), run.result

        (_, result), found = jax.value_and_grad(number, (0, 1), has_aux=True)(s, start)
        assert result == RESULTS.diverged
        return found

    for x, y in zip(slopes(Shooting(24, 4, finish=finish)), slopes(Sequential()), strict=True):
        assert float(jnp.abs(y[kept]).max()) > 1
        np.testing.assert_allclose(x[kept], y[kept], rtol=1e-8)


def test_many_trials_that_diverge():
    step = jnp.arange(2400)
    start = jnp.where((step // 40) % 2 == 0, 1.5, 0.9)[:, None]
    cell = Restarted(MapCell(lambda z: jnp.where(z > 1.2, z**2, 0.5 * z), 1))
    loop, run = (
        evolve(cell, jnp.ones(1), Restart(step % 40 == 0, start), solver=by, throw=False)
        for by in (Sequential(), Shooting(120, 4))
    )
    np.testing.assert_allclose(run.zs, loop.zs, rtol=1e-9, atol=1e-9)
    assert run.stats["first_inexact"] == 2400 and run.stats["iterations"] <= 20


def test_a_run_that_may_yet_not_diverge_is_not_called_so():
    henon = MapCell(lambda z: jnp.stack([1 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]]), 2)
    solver, far = Shooting(24, 4, max_iterations=3), jnp.full((480, 2), 3.0)
    run = evolve(henon, jnp.array([0.1, 0.1]), steps=480, guess=far, solver=solver, throw=False)
    assert run.stats["first_nonfinite"] < 480 and run.result == RESULTS.not_converged


def test_infinity_that_changes_its_sign_is_left_after_some_iterations():
    cell = MapCell(lambda z: jnp.where(jnp.abs(z) > 1.2, -(z**3), 0.5 * z), 1)
    run = evolve(cell, jnp.array([[1.5], [0.5]]), steps=1440, solver=Shooting(96, 4), throw=False)
    np.testing.assert_array_equal(run.result == RESULTS.diverged, [True, False])
    np.testing.assert_array_equal(run.stats["first_inexact"] < 1440, [True, False])
    assert run.stats["iterations"].max() < 12


def test_a_guess_of_nothing_and_a_batch_of_none():
    cell = ALRNN(3, 1, key=KEY)
    cell = eqx.tree_at(lambda c: c.A, cell, cell.A / 2)
    guess = jnp.full((240, 3), jnp.nan)
    run = evolve(cell, jnp.ones(3), steps=240, guess=guess, solver=Shooting(24))
    np.testing.assert_allclose(run.zs, evolve(cell, jnp.ones(3), steps=240).zs, atol=1e-8)
    assert run.stats["iterations"] <= 8
    for solver in (Shooting(), Shooting(4)):
        run = evolve(cell, jnp.ones((0, 3)), steps=30, solver=solver)
        assert run.zs.shape == (0, 30, 3) and run.stats["iterations"].shape == (0,)
        total = eqx.filter_grad(lambda cell, by: evolve(cell, jnp.ones((0, 3)), steps=30, solver=by).zs.sum())
        assert not any(jnp.any(x) for x in jax.tree.leaves(total(cell, solver)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ALRNN(5, 2, input_size=2, key=KEY),
        pytest.param(lambda: GRU(3, input_size=2, key=KEY), marks=pytest.mark.slow),
    ],
    ids=["alrnn", "gru"],
)
def test_blocks_in_one_kernel(make):
    cell = make()
    z0, s = jax.random.normal(KEY, (2, cell.state_size)), jax.random.normal(KEY, (2, 13, 2))
    (found, slopes), (wanted, wanted_slopes) = (
        gradients(solver, cell, z0, s, 13)
        for solver in (Shooting(3, 2, engine="interpreted"), Sequential(engine="loop"))
    )
    assert found.stats["fused"].all()
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=1e-9, atol=1e-9)
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted_slopes), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [ParaGRU, pytest.param(ParaLSTM, marks=pytest.mark.slow)])
def test_blocks_of_units_that_do_not_meet_in_one_kernel(make):
    cell = make(35, input_size=2, key=KEY)
    z0, s = jax.random.normal(KEY, (cell.state_size,)), jax.random.normal(KEY, (12, 2))
    (found, slopes), (wanted, wanted_slopes) = (
        gradients(solver, cell, z0, s, 12)
        for solver in (Shooting(3, 2, engine="interpreted"), Sequential(engine="loop"))
    )
    assert found.stats["fused"]
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=1e-9, atol=1e-9)
    for x, y in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted_slopes), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-8)


def test_single_precision(float32):
    model, z0, s = forced(ALRNN(5, 2, key=KEY), 0.3)
    assert z0.dtype == jnp.float32
    same(Shooting(6), model, z0, s, rtol=1e-4)


def test_an_ensemble_is_its_members():
    keys = jax.random.split(KEY, 3)
    cells = eqx.filter_vmap(lambda key: ALRNN(4, 2, key=key))(keys)
    _, z0, s = forced(ALRNN(4, 2, key=KEY), 0.3)

    def run(solver):
        def of(cell):
            model = Forced(cell, IdentityReadout(2, 4, key=jax.random.key(1)))
            return evolve(model, z0, s, solver=solver, throw=False).zs

        return eqx.filter_vmap(of)(cells)

    np.testing.assert_allclose(run(Shooting(5, 3)), run(Sequential()), rtol=1e-9, atol=1e-9)


def test_a_loss_takes_it_and_tells_the_iterations():
    model, _, _ = forced(ShallowPLRNN(3, 9, key=KEY), 0.3)
    x = jax.random.normal(KEY, (2, 41, 2))
    plain, _ = gtf(0.3)(model, None, Window(x, x), KEY)
    solved, (_, facts) = gtf(0.3, solver=Shooting(4, 2))(model, None, Window(x, x), KEY)
    np.testing.assert_allclose(solved, plain, rtol=1e-9)
    assert facts["iterations"] >= 2


def test_how_many_blocks_a_processor_likes():
    assert _liked(jnp.zeros((1, 3)), 10_000, None) == MEMBERS
    assert _liked(jnp.zeros((4, 3)), 10_000, None) == MEMBERS // 4
    assert _liked(jnp.zeros((MEMBERS, 3)), 10_000, None) == 1  # a batch fills the lanes
    assert _liked(jnp.zeros((1, 3)), 100, None) == 1  # blocks of 64 steps at least
    assert _liked(jnp.zeros((1, 3)), 15 * 1001, None) == 15  # without steps left over, where that is near
    assert _liked(jnp.zeros((1, 3)), 10_007, None) == MEMBERS  # a prime


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shooting(0), "blocks must be a whole number from 1 on: got 0"),
        (lambda: Shooting(True), "blocks must be a whole number from 1 on: got True"),
        (lambda: Shooting(washout=-1), "washout must be a whole number from 0 on: got -1"),
        (lambda: Shooting(max_iterations=0), "max_iterations must be at least 1: got 0"),
        (lambda: Shooting(rtol=0.0), "rtol must be positive and finite.*got 0"),
        (lambda: Shooting(finish="never"), 'finish must be "report" or "sequential"'),
        (lambda: Shooting(engine="pallas"), "engine must be one of .*got 'pallas'"),
    ],
)
def test_arguments_out_of_their_range_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        evolve(*forced(ALRNN(3, 1, key=KEY), 0.3), solver=make())


def test_newton_and_shooting_find_the_same():
    model, z0, s = forced(ShallowPLRNN(3, 9, key=KEY), 0.2, steps=500)
    newton, shooting = (evolve(model, z0, s, solver=solver) for solver in (Newton(), Shooting(5)))
    np.testing.assert_allclose(newton.zs, shooting.zs, rtol=1e-8, atol=1e-8)
