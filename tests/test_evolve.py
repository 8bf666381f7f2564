"""`evolve` against a plain loop, its adjoint against JAX's own and finite differences, and how a run ends."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, SOLVERS, inputs, instance, named, spread_over, states

from dsrecon._results import RESULTS
from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.evolve import Sequential, evolve
from dsrecon.kernels.members import MEMBERS, abreast
from dsrecon.systems import MapCell

STEPS, BATCH = 7, 2
ALRNN_ROW = next(row for row in CELLS if row.name == "alrnn-driven")
ABREAST = [row for row in CELLS if abreast(eqx.filter_eval_shape(row.make, jax.random.key(0)))]
FORWARD = [row for row in SOLVERS if row.forward]


def problem(row, *lead):
    cell = instance(row)
    return cell, states(cell, *lead), inputs(row, *lead, STEPS)


def weights(z0):
    return jnp.asarray(np.random.default_rng(5).normal(size=(*z0.shape[:-1], STEPS, z0.shape[-1])))


def measured(solver, cell, z0, s):
    """A number that every state of the run enters, with its own weight and not linearly."""
    zs = evolve(cell, z0, s, steps=STEPS, solver=solver, throw=False).zs
    return jnp.sum(weights(z0) * jnp.sin(zs))


def split(cell, z0, s):
    return eqx.partition((cell, z0, s), eqx.is_inexact_array)


def gradient_of(function, cell, z0, s):
    """Gradient by every parameter, by `z0` and by the inputs."""
    free, fixed = split(cell, z0, s)
    return jax.jit(jax.grad(lambda free: function(*eqx.combine(free, fixed))))(free)


def same_trees(found, wanted, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.fixture(scope="module")
def direct():
    """Gradients of each row by the direct adjoint, found once."""
    found = {}

    def of(row):
        if row.name not in found:
            solver = Sequential(adjoint="direct")
            found[row.name] = gradient_of(lambda *x: measured(solver, *x), *problem(row))
        return found[row.name]

    return of


@pytest.mark.parametrize("row", spread_over(CELLS))
def test_a_run_is_a_plain_loop(row):
    cell, z, s = problem(row)
    one = eqx.filter_jit(cell)
    run = evolve(cell, z, s, steps=STEPS)
    assert run.zs.shape == (STEPS, cell.state_size) and run.zs.dtype == z.dtype
    assert run.result == RESULTS.successful and run.stats["first_nonfinite"] == STEPS
    for t in range(STEPS):
        z = one(z, jax.tree.map(lambda x, t=t: x[t], s))
        # rounding of a few steps, each at most some times the error that went in
        np.testing.assert_allclose(run.zs[t], z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", spread_over(CELLS))
def test_the_direct_adjoint_is_a_finite_difference(row, direct):
    free, fixed = split(*problem(row))
    value = jax.jit(lambda free: measured(Sequential(), *eqx.combine(free, fixed)))
    leaves, shape = jax.tree.flatten(free)
    rng, eps = np.random.default_rng(3), 1e-6
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(direct(row)), strict=True)):
        v = jnp.asarray(rng.normal(size=leaf.shape))
        ends = []
        for sign in (1, -1):
            moved = [*leaves[:i], leaf + sign * eps * v, *leaves[i + 1 :]]
            ends.append(value(jax.tree.unflatten(shape, moved)))
        # central differences: eps^2 of truncation, 1e-16 / eps of rounding, times sums of order 10
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * eps), jnp.sum(v * slope), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("row", spread_over(CELLS))
def test_the_deferred_adjoint_is_the_direct_one(row, direct):
    found = gradient_of(lambda *x: measured(Sequential(), *x), *problem(row))
    same_trees(found, direct(row), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=named)
def test_solvers_agree(solver, direct):
    cell, z, s = problem(ALRNN_ROW)
    zs = evolve(cell, z, s, solver=solver.solver).zs
    np.testing.assert_allclose(zs, evolve(cell, z, s).zs, rtol=1e-13, atol=1e-13)
    found = gradient_of(lambda *x: measured(solver.solver, *x), cell, z, s)
    same_trees(found, direct(ALRNN_ROW), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("row", spread_over(CELLS))
def test_a_batch_is_its_runs(row):
    cell, z, s = problem(row, BATCH)
    run = evolve(cell, z, s, steps=STEPS)
    assert run.zs.shape == (BATCH, STEPS, cell.state_size)
    assert run.stats["first_nonfinite"].tolist() == [STEPS] * BATCH
    for b in range(BATCH):
        one = evolve(cell, z[b], jax.tree.map(lambda x, b=b: x[b], s), steps=STEPS).zs
        np.testing.assert_allclose(run.zs[b], one, rtol=1e-12, atol=1e-12)


def mapped(cell, z, s):
    zs = jax.vmap(lambda z, s: evolve(cell, z, s, steps=STEPS, throw=False).zs)(z, s)
    return jnp.sum(weights(z) * jnp.sin(zs))


@pytest.mark.parametrize("row", spread_over(CELLS))
def test_gradients_of_a_batch_are_those_of_its_runs(row):
    same_as_alone(problem(row, BATCH))


@pytest.mark.parametrize("row", spread_over(ABREAST))
def test_gradients_of_a_batch_side_by_side_are_those_of_its_runs(row):
    same_as_alone(problem(row, MEMBERS + 1))


def same_as_alone(case):
    batch = gradient_of(lambda *x: measured(Sequential(), *x), *case)
    same_trees(batch, gradient_of(mapped, *case), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("solver", FORWARD, ids=named)
def test_forward_mode(solver):
    cell, z, s = problem(ALRNN_ROW)
    v = states(cell, seed=9)

    def end(z):
        return evolve(cell, z, s, solver=solver.solver, throw=False).zs[-1]

    _, push = jax.jvp(end, (z,), (v,))
    eps = 1e-6
    np.testing.assert_allclose(push, (end(z + eps * v) - end(z - eps * v)) / (2 * eps), rtol=1e-7, atol=1e-8)
    # the run of a piecewise-linear cell has no second derivative, its measure has
    hessian = jax.jit(jax.hessian(lambda z: measured(solver.solver, cell, z, s)))(z)
    assert jnp.isfinite(hessian).all() and jnp.abs(hessian).max() > 0


def test_the_deferred_adjoint_refuses_forward_mode():
    cell, z, s = problem(ALRNN_ROW)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda z: evolve(cell, z, s, throw=False).zs, (z,), (z,))


def test_gradients_in_single_precision(float32):
    cell = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, instance(ALRNN_ROW))
    case = cell, states(cell), inputs(ALRNN_ROW, STEPS)
    found = gradient_of(lambda *x: measured(Sequential(), *x), *case)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    wanted = gradient_of(lambda *x: measured(Sequential(adjoint="direct"), *x), *case)
    same_trees(found, wanted, rtol=1e-4, atol=1e-5)


def explode(z):
    return 1e100 * z


EXPLODING = MapCell(explode, 2)
ONES = jnp.ones(2)


def test_divergence_names_its_step():
    with pytest.raises(RuntimeError, match=r"diverged: .* from step 3 of 10 on.*throw=False"):
        evolve(EXPLODING, ONES, steps=10)
    run = evolve(EXPLODING, ONES, steps=10, throw=False)
    assert run.result == RESULTS.diverged
    assert run.stats["first_nonfinite"] == 3
    assert np.isfinite(run.zs[:3]).all() and np.isinf(run.zs[3:]).all()


def test_divergence_in_a_batch_is_of_its_member():
    z0 = jnp.stack([1e-300 * ONES, ONES, jnp.nan * ONES])
    run = evolve(EXPLODING, z0, steps=5, throw=False)
    assert run.stats["first_nonfinite"].tolist() == [5, 3, 0]
    good = run.result == RESULTS.successful
    assert good.tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r"z0 must be finite: got nan at \[2, 0\] of shape \(3, 2\)"):
        evolve(EXPLODING, z0, steps=5)


def test_divergence_under_jit():
    @eqx.filter_jit
    def total(z0, throw):
        return evolve(EXPLODING, z0, steps=5, throw=throw).zs.sum()

    assert total(1e-300 * ONES, True) > 0
    assert jnp.isinf(total(ONES, False))
    with pytest.raises(RuntimeError, match="The run diverged"):
        total(ONES, True)


def test_gradients_go_through_a_run_that_throws():
    cell, z, s = problem(ALRNN_ROW)
    eager = jax.grad(lambda z: evolve(cell, z, s).zs.sum())(z)
    quiet = jax.grad(lambda z: evolve(cell, z, s, throw=False).zs.sum())(z)
    np.testing.assert_allclose(eager, quiet, rtol=1e-13, atol=1e-13)


FREE, DRIVEN = EXPLODING, instance(ALRNN_ROW)
Z2, Z4 = jnp.zeros(2), jnp.zeros(4)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: evolve(FREE, jnp.zeros(3), steps=2),
            r"z0 must have shape \(2,\), .*\(batch, 2\): got \(3,\)",
        ),
        (lambda: evolve(FREE, jnp.zeros((1, 1, 2)), steps=2), r"z0 must have .* got \(1, 1, 2\)"),
        (lambda: evolve(FREE, Z2), r"steps must be given when there are no inputs"),
        (lambda: evolve(FREE, Z2, steps=0), r"steps must be at least 1: got 0"),
        (lambda: evolve(FREE, Z2, steps=-3), r"steps must be at least 1: got -3"),
        (lambda: evolve(DRIVEN, Z4, jnp.zeros((0, 2))), r"steps must be at least 1: got 0"),
        (lambda: evolve(DRIVEN, Z4, jnp.zeros((5, 2)), steps=4), r"steps=4 contradicts inputs of length 5"),
        (
            lambda: evolve(DRIVEN, Z4, (jnp.zeros((5, 2)), jnp.zeros((4, 2)))),
            r"inputs must share the leading axes \(time, \.\.\.\): got .* \[\(5, 2\), \(4, 2\)\]",
        ),
        (
            lambda: evolve(DRIVEN, jnp.zeros((3, 4)), jnp.zeros((2, 5, 2))),
            r"inputs must share the leading axes \(3, time, \.\.\.\): got leaves of shape \[\(2, 5, 2\)\]",
        ),
        (lambda: evolve(DRIVEN, jnp.zeros((3, 4)), jnp.zeros(3)), r"leading axes \(3, time.*\[\(3,\)\]"),
        (
            lambda: Sequential(adjoint="backsolve"),
            r'adjoint must be "deferred" or "direct": got \'backsolve\'',
        ),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TRACES = []


class Counting(AbstractCell):
    a: jax.Array
    state_size: int = eqx.field(static=True, default=2)

    def __call__(self, z, s=None):
        TRACES.append(1)
        return self.a * z

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def test_a_second_run_of_the_same_shapes_compiles_nothing():
    evolve(Counting(jnp.asarray(0.5)), ONES, steps=3)
    once = len(TRACES)
    assert once >= 1
    zs = evolve(Counting(jnp.asarray(0.25)), 2 * ONES, steps=3).zs
    assert len(TRACES) == once
    np.testing.assert_allclose(zs[-1], 2 * 0.25**3)
    evolve(Counting(jnp.asarray(0.25)), ONES, steps=4)
    assert len(TRACES) > once
