"""Parallel solvers against the loop: values, gradients, windows, what is said of a run that did not converge."""

import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, PARALLEL, inputs, instance, named, spread_over, states

from dsrecon._results import RESULTS
from dsrecon.cell import as_matrix
from dsrecon.evolve import Sequential, evolve
from dsrecon.newton import CoarseToFine, Held, Newton, Picard, QuasiNewton, Targets, TrustRegion
from dsrecon.newton.composed import Composed
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.systems import Lorenz63, MapCell, ODECell, SkewTent
from dsrecon.training import Window, Windows, fit, gtf, radam

STEPS = 13  # a prime: no window divides it
TIGHT = {"rtol": 1e-13, "atol": 1e-13}
SPREAD = [row for row in CELLS if row.name in ("forced-alrnn", "map", "paralstm")]


def problem(row, *lead):
    cell = instance(row)
    return cell, states(cell, *lead) / 2, inputs(row, *lead, STEPS)


def run(solver, cell, z0, s, **options):
    return evolve(cell, z0, s, steps=STEPS, solver=solver, throw=False, **options)


def weighed(solver, cell, z0, s, **options):
    """A run, and the gradient of a number that all its states enter, by parameters, start and inputs."""
    free, fixed = eqx.partition((cell, z0, s), eqx.is_inexact_array)
    w = jnp.asarray(np.random.default_rng(5).normal(size=(*z0.shape[:-1], STEPS, z0.shape[-1])), z0.dtype)

    @jax.jit
    def of(free):
        def number(free):
            found = run(solver, *eqx.combine(free, fixed), **options)
            return jnp.sum(w * jnp.sin(found.zs)), found

        gradient, found = jax.grad(number, has_aux=True)(free)
        return found, gradient

    return of(free)


def gradient(solver, cell, z0, s, **options):
    return weighed(solver, cell, z0, s, **options)[1]


def same_trees(found, wanted, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.fixture(scope="module")
def loop():
    """Runs and gradients of the loop, found once."""
    found = {}

    def of(row):
        if row.name not in found:
            found[row.name] = weighed(Sequential(), *problem(row))
        return found[row.name]

    return of


def agree(row, solver, loop):
    (found, slopes), (wanted, wanted_slopes) = weighed(solver.solver, *problem(row)), loop(row)
    if solver.name == "trust-region" and row.name in ("lozi", "tent", "skew-tent"):
        assert found.result == RESULTS.not_converged  # free chaos: it ends in a valley of |F|^2, and says so
        return
    assert found.result == RESULTS.successful
    assert found.stats["residual"] <= 1 and found.stats["first_inexact"] == STEPS
    if solver.name != "trust-region":  # the others settle one more step at least with every iteration
        assert found.stats["iterations"] <= STEPS
    # the residual is 1e-13 at most; an expanding cell multiplies it on the way
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=1e-10, atol=1e-10)
    same_trees(slopes, wanted_slopes, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("row", spread_over(CELLS))
def test_newton_is_the_loop(row, loop):
    agree(row, PARALLEL[0], loop)


@pytest.mark.parametrize("solver", PARALLEL[1:], ids=named)
@pytest.mark.parametrize("row", SPREAD, ids=named)
def test_every_solver_is_the_loop(row, solver, loop):
    agree(row, solver, loop)


@pytest.mark.slow
@pytest.mark.parametrize("solver", PARALLEL[1:], ids=named)
@pytest.mark.parametrize("row", [row for row in CELLS if row not in SPREAD], ids=named)
def test_every_solver_is_the_loop_for_every_cell(row, solver, loop):
    agree(row, solver, loop)


@pytest.mark.parametrize("solver", [Newton(**TIGHT), Newton(window=4, **TIGHT)], ids=["whole", "windows"])
@pytest.mark.parametrize("row", SPREAD, ids=named)
def test_a_batch_is_its_runs(row, solver):
    cell, z0, s = problem(row, 3)
    (found, slopes), (wanted, wanted_slopes) = weighed(solver, cell, z0, s), weighed(Sequential(), cell, z0, s)
    assert found.stats["iterations"].shape == (3,)
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=1e-10, atol=1e-10)
    same_trees(slopes, wanted_slopes, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("solver", [Newton(), QuasiNewton(), Newton(window=5)], ids=repr)
def test_single_precision(float32, solver):
    row = next(row for row in CELLS if row.name == "forced-alrnn")
    cell, z0, s = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, problem(row))
    (found, slopes), (wanted, wanted_slopes) = weighed(solver, cell, z0, s), weighed(Sequential(), cell, z0, s)
    assert found.zs.dtype == jnp.float32 and found.result == RESULTS.successful
    np.testing.assert_allclose(found.zs, wanted.zs, rtol=1e-4, atol=1e-4)
    same_trees(slopes, wanted_slopes, rtol=1e-3, atol=1e-3)


def complex_map(z):
    return jnp.array([0.3 + 0.4j, 0.2j]) * z * (1 + 0.1 * z) + 0.1


def test_complex_states():
    cell, z0 = MapCell(complex_map, 2), jnp.array([0.5 + 0.1j, 0.3j])
    wanted = run(Sequential(), cell, z0, None).zs
    np.testing.assert_allclose(run(Newton(**TIGHT), cell, z0, None).zs, wanted, rtol=1e-10)

    def size(z0, solver):
        return jnp.sum(jnp.abs(run(solver, cell, z0, None).zs) ** 2)

    np.testing.assert_allclose(jax.grad(size)(z0, Newton(**TIGHT)), jax.grad(size)(z0, Sequential()), rtol=1e-8)


FORCED = next(row for row in CELLS if row.name == "forced-alrnn")


def test_a_piecewise_linear_run_is_exact_once_no_region_changes():
    cell, z0, s = problem(FORCED)
    found = run(Newton(), cell, z0, s)
    assert found.stats["region_changes"] == 0
    np.testing.assert_allclose(found.zs, run(Sequential(), cell, z0, s).zs, rtol=1e-14, atol=1e-14)
    # one iteration from states in other regions moves some steps to theirs
    once = run(Newton(max_iterations=1), cell, z0, s, guess=5 * jnp.ones_like(found.zs))
    assert once.stats["region_changes"] > 0 and once.result == RESULTS.not_converged


def lorenz(alpha, steps=400):
    """Lorenz-63 forced towards a noisy run of itself."""
    system = ODECell(Lorenz63(), 0.01, 3, solver=diffrax.Bosh3())
    x = np.asarray(evolve(system, jnp.array([1.0, 1.0, 20.0]), steps=1001 + steps).zs)[-steps - 1 :]
    x = jnp.asarray(x + 0.05 * x.std(0) * np.random.default_rng(0).normal(size=x.shape))
    cell = Forced(system, IdentityReadout(3, 3, key=jax.random.key(0)))
    return cell, x[0], Forcing(x[:-1], jnp.full(steps, alpha))


def test_forced_chaos_takes_few_iterations():
    cell, z0, s = lorenz(0.1)
    found = evolve(cell, z0, s, solver=Newton())
    assert found.stats["iterations"] <= 6
    np.testing.assert_allclose(found.zs, evolve(cell, z0, s).zs, rtol=1e-8, atol=1e-8)
    # the bound holds for every Jacobian along the run
    norms = jax.vmap(lambda z, s: jnp.linalg.norm(cell.linearise(z, s)[1], 2))(
        found.zs[:-1], jax.tree.map(lambda x: x[1:], s)
    )
    assert norms.max() <= found.stats["expansion"] < 3 * norms.max()


def test_free_chaos_is_reported_and_can_be_finished():
    cell, z0, s = lorenz(0.0, steps=3000)
    found = evolve(cell, z0, s, solver=Newton(max_iterations=12), throw=False)
    assert found.result == RESULTS.not_converged
    first, wanted = int(found.stats["first_inexact"]), evolve(cell, z0, s).zs
    assert 12 <= first < 2900 and not found.stats["residual"] <= 1  # NaN where the cell overflows
    np.testing.assert_allclose(found.zs[:first], wanted[:first], rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match=rf"did not converge: .* from step {first} of 3000 on, after 12 iterations"):
        evolve(cell, z0, s, solver=Newton(max_iterations=12))
    solver = Newton(max_iterations=12, finish="sequential")
    finished = evolve(cell, z0, s, solver=solver)
    assert finished.stats["first_inexact"] == first and finished.result == RESULTS.successful
    # from the inexact step on it is the loop; a rounding before it grows on the way, at the exponent's pace
    np.testing.assert_allclose(finished.zs[: first + 200], wanted[: first + 200], rtol=1e-4, atol=1e-4)
    step = jax.vmap(cell)(finished.zs[first - 1 : -1], jax.tree.map(lambda x: x[first:], s))
    np.testing.assert_allclose(finished.zs[first:], step, rtol=1e-12, atol=1e-12)


def test_not_converging_raises_under_jit():
    cell, z0, s = lorenz(0.0, steps=300)

    @eqx.filter_jit
    def last(z0):
        return evolve(cell, z0, s, solver=Newton(max_iterations=2)).zs[-1]

    with pytest.raises(RuntimeError, match="did not converge"):
        last(z0)


def test_an_overflowing_recurrence_keeps_what_it_had():
    """The tent map doubles every error: a thousand steps overflow single precision, and the beginning still settles."""
    cell = SkewTent()
    found = evolve(cell, jnp.array([0.3]), steps=3000, solver=Newton(max_iterations=5), throw=False)
    assert found.result == RESULTS.not_converged
    assert np.isfinite(found.zs).all() and found.stats["first_inexact"] >= 5


def test_windows_hand_on_their_state_and_say_where_it_went_wrong():
    cell, z0, s = lorenz(0.0, steps=1000)
    found = evolve(cell, z0, s, solver=Newton(window=64), throw=False)
    assert found.result == RESULTS.successful  # 64 steps at a time, free chaos is solved too
    np.testing.assert_allclose(found.zs[:500], evolve(cell, z0, s).zs[:500], rtol=1e-5, atol=1e-5)
    found = evolve(cell, z0, s, solver=Newton(window=300, max_iterations=3), throw=False)
    step = jax.vmap(cell)(found.zs[:-1], jax.tree.map(lambda x: x[1:], s))
    wrong = jnp.any(jnp.abs(found.zs[1:] - step) > 1e-10 * (1 + jnp.abs(step)), axis=-1)
    assert found.stats["first_inexact"] == 1 + jnp.argmax(wrong)


def test_a_finished_batch_leaves_the_members_that_had_converged():
    cell, z0, s = problem(FORCED, 2)
    s = s._replace(alpha=jnp.stack([jnp.ones(STEPS), jnp.zeros(STEPS)]))
    solver = Newton(max_iterations=1, finish="sequential")
    found = run(solver, cell, z0, s)
    np.testing.assert_allclose(found.zs, run(Sequential(), cell, z0, s).zs, rtol=1e-12, atol=1e-12)
    same_trees(gradient(solver, cell, z0, s), gradient(Sequential(), cell, z0, s), rtol=1e-8, atol=1e-9)


def test_a_near_guess_saves_iterations():
    cell, z0, s = lorenz(0.02)
    plain = evolve(cell, z0, s, solver=Newton())
    exact = evolve(cell, z0, s, solver=Newton(), guess=plain.zs)
    assert exact.stats["iterations"] == 0 < plain.stats["iterations"]
    held = evolve(cell, z0, s, solver=Newton(guess=Held()), throw=False)
    coarse = evolve(cell, z0, s, solver=Newton(guess=CoarseToFine(8, 4)))
    assert coarse.stats["iterations"] < plain.stats["iterations"] < held.stats["iterations"]


def test_the_targets_are_where_observations_start_a_run():
    cell, z0, s = lorenz(0.1, steps=20)
    guess = Targets()(cell, z0, s, 20)
    np.testing.assert_array_equal(guess[:-1], s.x[1:])
    np.testing.assert_array_equal(guess[-1], s.x[-1])


def test_composed_steps():
    cell, z0, s = problem(FORCED)
    both = Composed(cell, STEPS)
    value, J = both.linearise(z0, s)
    np.testing.assert_allclose(value, run(Sequential(), cell, z0, s).zs[-1], rtol=1e-12)
    np.testing.assert_allclose(as_matrix(J), jax.jacfwd(lambda z: both(z, s))(z0), rtol=1e-11, atol=1e-13)


def test_full_precision_whatever_the_default():
    """The contractions of a solve carry their precision; no global setting reaches them."""
    cell, z0, s = problem(FORCED)
    with jax.default_matmul_precision("bfloat16"):
        text = str(jax.make_jaxpr(lambda z: Newton().solve(cell, z, s, STEPS).zs)(z0))
    assert "dot_general" in text and "BF16" not in text.upper() and "DEFAULT" not in text


def test_a_loss_takes_a_solver_and_begins_where_it_ended():
    cell, _, _ = problem(next(row for row in CELLS if row.name == "shallow"))
    model = Forced(cell, IdentityReadout(3, 3, key=jax.random.key(1)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 41, 3)))
    batch, key = Window(x, x), jax.random.key(0)
    plain, (state, facts) = gtf(0.5)(model, None, batch, key)
    assert state is None and facts == {}
    solved, (_, facts) = gtf(0.5, solver=Newton())(model, None, batch, key)
    np.testing.assert_allclose(solved, plain, rtol=1e-10)
    assert 1 < facts["iterations"] < 20
    state = {"guess": jnp.zeros((1, 40, 3))}
    _, (state, _) = gtf(0.5, solver=Newton())(model, state, batch, key)
    _, (_, facts) = gtf(0.5, solver=Newton())(model, state, batch, key)
    assert facts["iterations"] == 0
    short, (_, facts) = gtf(0.5, solver=Newton(max_iterations=1))(model, None, batch, key)
    assert jnp.isnan(short) and facts["iterations"] == 1


def test_training_by_newton_is_training_by_the_loop(optimiser_promotion):
    cell, _, _ = problem(next(row for row in CELLS if row.name == "shallow"))
    model = Forced(cell, IdentityReadout(3, 3, key=jax.random.key(1)))
    model = jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, model)
    data = jnp.asarray(np.random.default_rng(0).normal(size=(300, 3)))
    keys = jax.random.split(jax.random.key(0), 1)

    def losses(solver):
        sampler = Windows(data, length=30, batch=2)
        optimiser = radam(1e-2, 1e-3, 10)
        history = fit(model, gtf(0.4, solver=solver), sampler, optimiser, steps=10, every=10, key=keys, progress=False)[
            1
        ]
        return history

    newton = losses(Newton())
    np.testing.assert_allclose(newton.loss, losses(Sequential()).loss, rtol=1e-7)
    assert newton.facts["iterations"].shape == (10, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert losses(Newton(max_iterations=1)).failed_at[0] >= 0


CELL, START, INPUT = problem(FORCED)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Newton(max_iterations=0), r"max_iterations must be at least 1: got 0"),
        (lambda: Newton(rtol=0.0), r"rtol must be positive and finite.*got 0"),
        (lambda: QuasiNewton(atol=float("nan")), r"atol must be positive and finite.*got nan"),
        (lambda: Picard(window=0), r"window must be at least 1 step.*got 0"),
        (lambda: Newton(finish="never"), r'finish must be "report" or "sequential": got \'never\''),
        (lambda: TrustRegion(damping=-1.0), r"damping must be positive and finite: got -1"),
        (lambda: CoarseToFine(1), r"stride must be at least 2"),
        (lambda: run(Newton(), CELL, START, INPUT, guess=jnp.zeros((3, 4))), r"guess must have the shape .*\(13, 4\)"),
        (lambda: run(Sequential(), CELL, START, INPUT, guess=jnp.zeros((13, 4))), r"Sequential has no use for one"),
        (
            lambda: evolve(CELL, START.at[1].set(jnp.nan), INPUT, solver=Newton()),
            r"z0 must be finite: got nan at \[1\] of shape \(4,\)",
        ),
        (
            lambda: evolve(CELL, START, INPUT._replace(x=INPUT.x.at[3, 0].set(jnp.inf)), solver=Newton()),
            r"inputs must be finite: got inf at \[3, 0\]",
        ),
        (
            lambda: run(Newton(guess=Targets()), *problem(CELLS[0])),
            r"Targets needs a Forced cell, run with a Forcing: got ALRNN",
        ),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TRACES = []


def counted(z):
    TRACES.append(1)
    return 0.5 * jnp.tanh(z)


def test_a_second_solve_of_the_same_shapes_compiles_nothing():
    cell = MapCell(counted, 2)
    evolve(cell, jnp.ones(2), steps=9, solver=Newton())
    before = len(TRACES)
    evolve(cell, 2 * jnp.ones(2), steps=9, solver=Newton())
    assert len(TRACES) == before


@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_a_start_of_nan_is_called_so(lead):
    run = evolve(MapCell(counted, 2), jnp.full((*lead, 2), jnp.nan), steps=9, solver=Newton(), throw=False)
    assert jnp.all(run.result == RESULTS.diverged) and jnp.all(run.stats["first_nonfinite"] == 0)


def test_one_step():
    cell, z0, s = problem(FORCED)
    one = jax.tree.map(lambda x: x[:1], s)
    for solver in PARALLEL:
        np.testing.assert_allclose(
            evolve(cell, z0, one, solver=solver.solver).zs, evolve(cell, z0, one).zs, rtol=1e-12, atol=1e-14
        )
