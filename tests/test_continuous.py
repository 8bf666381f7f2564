"""The continuous-time PLRNN: its exact flow, its derivatives, its equilibria and limit cycles."""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from dsrecon.analysis.flows import equilibria
from dsrecon.analysis.limit_cycles import limit_cycle
from dsrecon.cell import AbstractCell
from dsrecon.evolve import evolve
from dsrecon.layer import Timed
from dsrecon.models import PLRNN, ContinuousPLRNN
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.training import Windows, fit, gtf

KEY = jax.random.key(0)


def cell_of(A, W, h, dt=1.0, **sizes):
    """A cell of these arrays."""
    cell = ContinuousPLRNN(len(A), dt, key=KEY, **sizes)
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, tuple(jnp.asarray(x, float) for x in (A, W, h)))


def drawn(seed, m, gain=2.0, **sizes):
    rng = np.random.default_rng(seed)
    return cell_of(-rng.uniform(0.2, 1, m), gain * rng.normal(size=(m, m)) / m**0.5, rng.normal(size=m), **sizes)


def start(seed, *lead, m):
    return jnp.asarray(np.random.default_rng(1000 + seed).normal(size=(*lead, m)))


@eqx.filter_jit
def by_diffrax(cell, z, duration, times):
    """States at times by a Runge-Kutta method at a tight tolerance."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, z, _: cell.field(z)),
        diffrax.Dopri8(),
        0.0,
        duration,
        0.01,
        z,
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-12),
        saveat=diffrax.SaveAt(ts=times),
        max_steps=4096,
    ).ys


FLOW = eqx.filter_jit(lambda cell, z, d: cell(z, Timed(None, d)))
BOTH = eqx.filter_jit(lambda cell, z, d: cell.linearise(z, Timed(None, d)))


# --- the flow ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed, m", [(1, 10), (2, 10), (9, 10), (5, 10)])
def test_the_flow_is_that_of_a_solver(seed, m):
    cell, z = drawn(seed, m, limit=256), start(seed, m=m)
    orbit = cell.pieces(z, 8.0)
    assert len(orbit.times) > 6
    times = np.concatenate([orbit.times[1:], np.linspace(8.1, 9, 17 - len(orbit.times))])  # one shape compiles once
    wanted = by_diffrax(cell, z, 9.0, jnp.asarray(times))[: len(orbit.times) - 1]
    # a solver of order 8 that steps over kinks keeps eight or nine digits, not the twelve asked for
    size = np.abs(orbit.states).max()
    np.testing.assert_allclose(orbit.states[1:], wanted, rtol=0, atol=1e-7 * size)
    np.testing.assert_allclose(FLOW(cell, z, jnp.asarray(8.0)), orbit.states[-1], rtol=0, atol=1e-12 * size)
    for region, before, after in zip(orbit.regions, orbit.states[:-1], orbit.states[1:], strict=True):
        # units that are open in a piece are not negative at its ends, the others not positive
        sign = np.where(region, 1, -1)
        assert (sign * before > -1e-13 * size).all() and (sign * after > -1e-13 * size).all()


def test_switchings_of_a_flow_in_closed_form():
    # z = 1 - 2 exp(-t) until ln 2, then (1 - exp(-2 (t - ln 2))) / 2: towards 1 below zero, towards 1/2 above
    cell = cell_of([-1.0], [[-1.0]], [1.0], dt=2.0)
    orbit = cell.pieces(np.array([-1.0]), 2.0)
    np.testing.assert_allclose(orbit.times, [0, np.log(2), 2], rtol=3e-14)
    assert orbit.regions.tolist() == [[False], [True]]
    np.testing.assert_allclose(orbit.states[-1], (1 - np.exp(-2 * (2 - np.log(2)))) / 2, rtol=1e-14)
    np.testing.assert_allclose(eqx.filter_jit(cell)(jnp.array([-1.0])), orbit.states[-1], rtol=1e-14)


@pytest.mark.parametrize("depth", [1e-3, 1e-6, 1e-9, 1e-12])
def test_two_switchings_however_near(depth):
    # z_1' = z_2, z_2' = 2: z_1 = (t - 1)^2 - depth dips below zero for 2 sqrt(depth)
    cell = cell_of([0.0, 0.0, 0.0], [[0, 1, -1], [0, 0, 0], [0, 0, 0]], [0.0, 2.0, -2.0])
    z = np.array([1 - depth, -2.0, 2.0])  # z_3 = -z_2, so relu(z_2) - relu(z_3) = z_2
    times = cell.pieces(z, 2.5).times
    # z_1 is of order one, its square root in the time: half the digits of the depth
    crossed = [t for t in times[1:-1] if abs(t - 1) > 1e-14]
    np.testing.assert_allclose(crossed, [1 - depth**0.5, 1 + depth**0.5], atol=1e-14 / depth**0.5)


def test_a_state_that_only_touches_costs_nothing():
    cell = cell_of([0.0, 0.0, 0.0], [[0, 1, -1], [0, 0, 0], [0, 0, 0]], [0.0, 2.0, -2.0])
    for depth in (0.0, -1e-16, 1e-16):
        end = cell.pieces(np.array([1 - depth, -2.0, 2.0]), 2.0).states[-1]
        np.testing.assert_allclose(end, [1 - depth, 2.0, -2.0], atol=1e-14)
    # and one that rests, or slides along where units switch
    still = cell_of([-1.0, -1.0], np.ones((2, 2)), [0.0, 0.0])
    assert np.array_equal(still.pieces(np.zeros(2), 5.0).states[-1], [0, 0])
    slides = cell_of([-1.0, 0.0], [[0.5, 0], [0, 0]], [0.0, 1.0])
    np.testing.assert_allclose(slides.pieces(np.array([0.0, -1.0]), 3.0).states[-1], [0, 2], atol=1e-15)


@pytest.mark.parametrize("seed", range(2))
def test_steps_compose(seed):
    cell, z = drawn(seed, 4, limit=64), start(seed, m=4)
    d = np.random.default_rng(seed).dirichlet(np.ones(40)) * 6
    d[3] = 0.0  # a step of no length
    run = evolve(cell, z, Timed(None, jnp.asarray(d))).zs
    whole = FLOW(cell, z, jnp.asarray(d.sum()))
    np.testing.assert_allclose(run[-1], whole, rtol=1e-12, atol=1e-13 * float(jnp.abs(run).max()))
    assert np.array_equal(run[3], run[2])
    # steps are counted in those of the cell
    half = drawn(seed, 4, dt=0.5)
    np.testing.assert_allclose(FLOW(half, z, jnp.asarray(2 * d.sum())), whole, rtol=1e-13)


def test_input_is_held_over_the_step():
    cell = drawn(3, 3, input_size=2)
    cell = eqx.tree_at(lambda c: c.C, cell, jnp.asarray(np.random.default_rng(0).normal(size=(3, 2))))
    z, s = start(3, m=3), jnp.array([0.5, -2.0])
    held = eqx.tree_at(lambda c: c.h, cell, cell.h + cell.C @ s)
    step = eqx.filter_jit(lambda cell, z, s: cell(z, s))
    np.testing.assert_allclose(step(cell, z, s), step(held, z, None), rtol=1e-14)
    np.testing.assert_allclose(step(cell, z, Timed(s, jnp.asarray(1.0))), step(cell, z, s), rtol=1e-15)
    A, h = cell.affine(cell.region(z, s), s)
    np.testing.assert_allclose(A @ z + h, cell.field(z, s), rtol=1e-13)
    np.testing.assert_allclose(cell.field(z, s), cell.A * z + cell.W @ jax.nn.relu(z) + cell.h + cell.C @ s, rtol=1e-13)
    G, g = cell.gates(s)
    assert np.array_equal(G @ z + g > 0, cell.region(z, s))


def test_it_starts_as_a_plrnn_does():
    cell, discrete = ContinuousPLRNN(6, 0.1, input_size=2, key=KEY), PLRNN(6, key=KEY)
    np.testing.assert_allclose(jnp.exp(0.1 * cell.A), discrete.A, rtol=1e-13)
    assert 0.005 < 0.1 * cell.W.std() < 0.02 and (cell.h == 0).all() and 0.003 < 0.1 * cell.C.std() < 0.03


def test_what_needs_more_pieces_diverges_and_says_so():
    cell, z = drawn(4, 5, limit=3), start(4, m=5)
    value, J = BOTH(cell, z, jnp.asarray(8.0))
    assert np.isnan(value).all() and np.isnan(J).all()
    assert np.isnan(jax.jit(jax.grad(lambda z: FLOW(cell, z, jnp.asarray(8.0)).sum()))(z)).all()
    with pytest.raises(RuntimeError, match="not finite from step 1 of 3"):
        evolve(cell, z, Timed(None, jnp.array([0.1, 8.0, 0.1])))
    assert np.isnan(FLOW(cell, z, jnp.asarray(-0.1))).all()
    # on the host there is no limit
    wanted = drawn(4, 5, limit=32).pieces(z, 8.0)
    np.testing.assert_allclose(cell.pieces(z, 8.0).times, wanted.times, rtol=1e-12)


# --- derivatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed, m", [(4, 5)])
def test_derivatives_are_those_of_the_flow(seed, m):
    cell, z, d = drawn(seed, m), start(seed, m=m), jnp.asarray(2.5)
    assert len(cell.pieces(z, 2.5).times) > 2
    value, J = BOTH(cell, z, d)
    wanted = FLOW(cell, z, d)
    assert np.array_equal(value, wanted)
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(
            eqx.filter_jit(mode(lambda z: cell(z, Timed(None, d))))(z), J, rtol=1e-11, atol=1e-13
        )
    leaves, tree = jax.tree.flatten((cell, z, d))

    def along(e, directions):
        return FLOW(*jax.tree.unflatten(tree, [x + e * v for x, v in zip(leaves, directions, strict=True)]))

    rng = np.random.default_rng(5)
    directions = [jnp.asarray(rng.normal(size=x.shape)) for x in leaves]
    pushed = jax.jit(lambda v: jax.jvp(lambda *x: FLOW(*jax.tree.unflatten(tree, x)), tuple(leaves), tuple(v)))
    slope = pushed(directions)[1]
    # central differences of step 1e-5: 1e-10 of truncation, 1e-11 of rounding
    np.testing.assert_allclose(slope, (along(1e-5, directions) - along(-1e-5, directions)) / 2e-5, rtol=1e-7, atol=1e-8)
    w = jnp.asarray(rng.normal(size=m))
    pulled = jax.jit(jax.grad(lambda x: w @ FLOW(*jax.tree.unflatten(tree, x))))(leaves)
    by_reverse = sum(float(jnp.sum(a * b)) for a, b in zip(pulled, directions, strict=True))
    np.testing.assert_allclose(by_reverse, float(w @ slope), rtol=1e-11)


@pytest.mark.slow
def test_second_derivatives_move_the_switchings():
    cell, z, d = drawn(0, 4), start(0, m=4), jnp.asarray(2.0)
    assert len(cell.pieces(z, 2.0).times) > 2
    grad = jax.jit(jax.grad(lambda z: jnp.sum(jnp.sin(FLOW(cell, z, d)))))
    hessian = jax.jit(jax.jacfwd(grad))(z)
    by_difference = np.stack([(grad(z + e) - grad(z - e)) / 2e-6 for e in 1e-6 * np.eye(4)], 1)
    np.testing.assert_allclose(hessian, by_difference, rtol=1e-6, atol=1e-7)
    # and so does the Jacobian of linearise
    size = eqx.filter_jit(lambda z: jnp.sum(cell.linearise(z, Timed(None, d))[1] ** 2))
    slope = jax.jit(jax.grad(size))(z)
    wanted = [(size(z + e) - size(z - e)) / 2e-6 for e in 1e-6 * np.eye(4)]
    np.testing.assert_allclose(slope, wanted, rtol=1e-6, atol=1e-7)


def test_single_precision_is_near(float32):
    with jax.enable_x64(True):
        double, z = drawn(4, 5), start(4, m=5)
        wanted, J = BOTH(double, z, jnp.asarray(2.0))
    cell = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), double)
    value, slope = BOTH(cell, jnp.asarray(z, jnp.float32), jnp.asarray(2.0))
    assert value.dtype == slope.dtype == jnp.float32
    # some hundred roundings of 6e-8
    np.testing.assert_allclose(value, wanted, rtol=0, atol=2e-5 * float(np.abs(wanted).max()))
    np.testing.assert_allclose(slope, J, rtol=0, atol=5e-5 * float(np.abs(J).max()))


# --- equilibria --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_equilibria_are_all_of_them(seed):
    m = 3 + seed % 2
    cell = drawn(seed, m)
    A, W, h = (np.asarray(x) for x in (cell.A, cell.W, cell.h))
    real, virtual = [], 0
    for bits in itertools.product([False, True], repeat=m):
        M = np.diag(A) + W * np.array(bits)
        z = np.linalg.solve(M, -h)
        if np.array_equal(z > 0, bits):
            real.append((z, np.sort_complex(np.linalg.eigvals(M))))
        else:
            virtual += 1
    found = equilibria(cell, virtual=True)
    assert found.certificate.complete and len(found) == len(real) and len(found.virtual) == virtual
    for one in found:
        z, eigenvalues = min(real, key=lambda r, one=one: np.abs(r[0] - one.point).max())
        np.testing.assert_allclose(one.point, z, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(np.sort_complex(one.eigenvalues), eigenvalues, rtol=1e-11)
        assert one.real and np.abs(cell.field(jnp.asarray(one.point))).max() < 1e-12
        assert one.stability.stable == (eigenvalues.real < 0).sum()
        assert np.isclose(one.margin, np.abs(z).min())
    assert not any(one.real for one in found.virtual)


def test_kinds_of_planted_equilibria():
    spiral = [[0.0, 3.0], [-3.0, 0.0]]  # eigenvalues A_i +- 3i where both are open
    for a, kind in ((-0.5, "stable focus"), (0.5, "unstable focus"), (0.0, "non-hyperbolic")):
        W = np.array(spiral)
        (found,) = (
            one for one in equilibria(cell_of([a, a], W, -(W + a * np.eye(2)) @ [1.0, 2.0])) if one.region.all()
        )
        assert found.kind == kind
        np.testing.assert_allclose(found.point, [1, 2], rtol=1e-14)
        np.testing.assert_allclose(found.eigenvalues, [a + 3j, a - 3j], atol=1e-14)
    saddle = equilibria(cell_of([-1.0, -1.0], [[0.0, 2.0], [2.0, 0.0]], [-1.0, -1.0]))
    assert sorted(one.kind for one in saddle) == ["saddle", "stable node"]
    # z_1' = -z_1 + relu(z_1) + 0: a half-line of them
    line = equilibria(cell_of([-1.0], [[1.0]], [0.0]))
    assert len(line.singular) == 1 and line.singular[0].real


def test_a_flow_of_any_speed_has_the_same_equilibria():
    cell = drawn(0, 3)
    slow = jax.tree.map(lambda x: 1e-6 * x, cell)
    for one, other in zip(equilibria(cell), equilibria(slow), strict=True):
        np.testing.assert_allclose(one.point, other.point, rtol=1e-12)
        np.testing.assert_allclose(one.eigenvalues, 1e6 * other.eigenvalues, rtol=1e-11)


# --- limit cycles ------------------------------------------------------------------------------------------


def van_der_pol(mu=1.5, follow=2.0, c=20.0):
    """`x' = mu (x + y) - 2 mu (relu(x - 1) - relu(-x - 1))`, `y' = -x / mu`, by units that relu leaves alone.

    Units are `x + c` and `y + c`, positive for ever, and two that follow `x - 1` and `-x - 1`, at the rate `follow`.
    """
    A = np.array([0.0, 0.0, -follow, -follow])
    W, h = np.zeros((4, 4)), np.zeros(4)
    W[0], h[0] = [mu, mu, -2 * mu, 2 * mu], -2 * mu * c
    W[1], h[1] = [-1 / mu, 0, 0, 0], c / mu
    W[2], h[2] = W[0] + [follow, 0, 0, 0], h[0] - follow * (c + 1)
    W[3], h[3] = -W[0] + [-follow, 0, 0, 0], -h[0] + follow * (c - 1)
    return cell_of(A, W, h, limit=999)


def planar_period(mu):
    """Period and multiplier of the same in the plane, by a solver with events, zone by zone; and the state at x = 1."""

    def zone(x):
        return 1 if x > 1 else -1 if x < -1 else 0

    def field(t, y, k):
        return [mu * (y[0] + y[1]) - 2 * mu * k * (y[0] * k - 1 if k else 0), -y[0] / mu]

    def turn(state):
        """From x = 1 upwards to there again, and the integral of the divergence on the way."""
        time, divergence, k = 0.0, 0.0, 1
        for _ in range(4):
            borders = {1: [(1, -1)], 0: [(1, 1), (-1, -1)], -1: [(-1, 1)]}[k]
            events = []
            for x, direction in borders:
                event = lambda t, y, k, x=x: y[0] - x  # noqa: E731
                event.terminal, event.direction = True, direction
                events.append(event)
            run = solve_ivp(field, (0, 100), state, "DOP853", None, False, events, args=(k,), rtol=1e-12, atol=1e-13)
            x, direction = borders[next(i for i, t in enumerate(run.t_events) if len(t))]
            time, divergence = time + run.t[-1], divergence + run.t[-1] * (mu - 2 * mu * abs(k))
            state, k = [x, run.y[1, -1]], zone(x + 1e-9 * direction)
        return np.array(state), time, divergence

    state = np.array([1.0, 0.5])
    for _ in range(30):
        state, period, divergence = turn(state)
    return period, np.exp(divergence), state


@pytest.mark.parametrize("mu", [0.6, 1.5])
def test_a_relaxation_oscillator(mu):
    cell, c = van_der_pol(mu), 20.0
    found = limit_cycle(cell, np.array([c + 0.5, c, -0.5, -1.5]), settle=30.0, longest=60.0)
    period, multiplier, state = planar_period(mu)
    # the event finder of SciPy keeps ten digits
    np.testing.assert_allclose(found.period, period, rtol=1e-9)
    follow = np.exp(-2.0 * period)
    np.testing.assert_allclose(np.abs(found.multipliers), [multiplier, follow, follow], rtol=1e-5, atol=1e-12)
    assert found.stable and abs(found.trivial - 1) < 1e-8 and found.residual < 1e-12
    (at,) = (z for z, bits in zip(found.points, found.word, strict=True) if abs(z[2]) < 1e-9 and bits[2])
    np.testing.assert_allclose(at[:2] - c, state, atol=1e-8)
    assert len(found.points) == 4 and np.isclose(found.durations.sum(), found.period)
    # symmetric, so the two halves take equally long
    np.testing.assert_allclose(found.durations[:2], found.durations[2:], rtol=1e-9)
    # the cell itself goes around it
    around = FLOW(cell, jnp.asarray(found.points[0]), jnp.asarray(found.period))
    np.testing.assert_allclose(around, found.points[0], atol=1e-10)
    # from any of its points, a state off by a little, without settling: the same
    near = limit_cycle(cell, found.points[2] + 1e-3, longest=2 * found.period)
    np.testing.assert_allclose(near.period, found.period, rtol=1e-12)


def test_monodromy_is_the_derivative_of_a_turn():
    cell = drawn(46, 4, 2.5)
    rng = np.random.default_rng(46)
    A, W, h = -rng.uniform(0.3, 1, 4), rng.normal(size=(4, 4)) * 1.25, rng.normal(size=4)
    cell = cell_of(A, W, h, limit=400)
    found = limit_cycle(cell, rng.normal(size=4), settle=100.0, longest=40.0)
    value, J = BOTH(cell, jnp.asarray(found.points[0]), jnp.asarray(found.period))
    np.testing.assert_allclose(value, found.points[0], atol=1e-11)
    np.testing.assert_allclose(found.monodromy, J, atol=1e-10)
    moduli = np.sort(np.abs(np.linalg.eigvals(found.monodromy)))[::-1]
    np.testing.assert_allclose(moduli, [1, *np.abs(found.multipliers)], rtol=1e-6, atol=1e-9)


def test_reasons_for_no_cycle():
    rest = cell_of([-1.0, -1.0], [[0.0, 3.0], [-3.0, 0.0]], [1.0, 1.0])
    grows = cell_of([0.5, 0.5], np.zeros((2, 2)), [1.0, 1.0])
    # around the focus, in the open region alone, closed orbits lie side by side
    affine = cell_of([0.0, 0.0], [[0.0, 1.0], [-1.0, 0.0]], [-10.0, 10.0])
    for cell, z, reason in (
        (rest, [0.5, 2.0], "comes to rest: at t = .* it is at an equilibrium near"),
        (grows, [1.0, 1.0], "grows without bounds"),
        (affine, [9.0, 10.0], "crosses no border twice in one direction"),
    ):
        with pytest.raises(RuntimeError, match=f"No limit cycle: the orbit {reason}"):
            limit_cycle(cell, z, longest=30.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ContinuousPLRNN(0, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: ContinuousPLRNN(2, 0.0, key=KEY), r"dt must be positive and finite: got 0\.0\."),
        (lambda: ContinuousPLRNN(2, limit=0, key=KEY), r"limit must be at least 1: got 0\."),
        (lambda: ContinuousPLRNN(2, input_size=-1, key=KEY), r"input_size must be at least 0: got -1\."),
        (lambda: drawn(0, 2).pieces(np.zeros(2), -1.0), r"duration must be positive and finite: got -1\.0\."),
        (lambda: equilibria(PLRNN(2, key=KEY)), r"an AbstractPWLFlow: got PLRNN\. A map's fixed points"),
        (lambda: limit_cycle(PLRNN(2, key=KEY), np.zeros(2), longest=1.0), r"an AbstractPWLFlow: got PLRNN"),
        (lambda: limit_cycle(drawn(0, 2), np.zeros(3), longest=1.0), r"z0 must be a finite state \[2\]: got"),
        (lambda: limit_cycle(drawn(0, 2), np.zeros(2), longest=0.0), r"longest must be positive, .* got 0\.0 and 0\.0"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_orbit_that_explodes_is_not_followed():
    with pytest.raises(RuntimeError, match="cannot be followed beyond t = .* of 800: its state is then"):
        cell_of([1.0], [[0.0]], [1.0]).pieces(np.ones(1), 800.0)


# --- training ----------------------------------------------------------------------------------------------


class Spaced(AbstractCell):
    """A cell whose input is the length of its step."""

    cell: ContinuousPLRNN
    state_size: int = eqx.field(static=True)

    def __call__(self, z, s=None):
        return self.cell(z, Timed(None, s[0]))

    def linearise(self, z, s=None):
        return self.cell.linearise(z, Timed(None, s[0]))


@pytest.mark.slow
@pytest.mark.usefixtures("optimiser_promotion")
def test_it_learns_from_irregular_samples():
    rng = np.random.default_rng(0)
    steps = rng.uniform(0.05, 0.4, 400)
    truth = solve_ivp(
        lambda t, y: [y[1], 1.5 * (1 - y[0] ** 2) * y[1] - y[0]],
        (0, steps.sum() + 20),
        [1.0, 0.0],
        t_eval=20 + np.cumsum(steps),
        rtol=1e-9,
    ).y.T
    x = (truth - truth.mean(0)) / truth.std(0)
    cell = ContinuousPLRNN(8, 1.0, key=KEY)
    model = Forced(Spaced(cell, 8), IdentityReadout(2, 8, key=KEY))
    windows = Windows(jnp.asarray(x), length=12, batch=8, s=jnp.asarray(steps[:, None]))
    model, history = fit(model, gtf(0.2), windows, optax.adam(5e-2), steps=250, key=KEY, progress=False)
    assert history.loss[-10:].mean() < 0.2 * history.loss[:10].mean()
