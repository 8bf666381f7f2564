import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PWL_CELLS, inputs, instance, spread_over, states

from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.measures import kaplan_yorke, lyapunov_mean, lyapunov_spectrum
from dsrecon.measures.lyapunov import affine_exponents
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.systems import (
    AbstractSystem,
    Baker,
    Chua,
    Henon,
    HindmarshRose,
    KuramotoSivashinsky,
    Logistic,
    Lorenz63,
    Lorenz96,
    Lozi,
    MackeyGlass,
    MapCell,
    ODECell,
    Roessler,
    SkewTent,
    Tent,
)

# name: system, time step, steps between orthogonalisations
SYSTEMS = {
    "lorenz": (Lorenz63(), 0.05, 20),
    "roessler": (Roessler(), 0.1, 20),
    "henon": (Henon(), 1.0, 10),
    "logistic": (Logistic(), 1.0, 10),
}


def measure(name, time):
    """16 starts near the standard one; 100 units of time let chaos tear them apart."""
    system, dt, every = SYSTEMS[name]
    m = system.dimension
    # orders are 8 and these steps long but exact enough: see the sums of the exponents below
    cell = system.cell() if dt == 1.0 else ODECell(system, dt, m)
    starts = jnp.asarray([system.start]) + 0.01 * jax.random.normal(jax.random.key(0), (16, m))
    steps, discard = round(time / dt), round(100 / dt)
    return lyapunov_mean(cell, starts, steps=steps, dt=dt, discard=discard, every=every)


@pytest.fixture(scope="module")
def measured():
    """10^4 units of time from each start: the acceptance figures (some ten seconds for all systems)."""
    return {name: measure(name, 1e4) for name in SYSTEMS}


@pytest.mark.parametrize("name", SYSTEMS)
def test_exponents_are_those_of_the_literature(measured, name):
    mean, error = measured[name]
    for value, known in zip(mean, SYSTEMS[name][0].exponents, strict=True):
        if known == 0.0:  # a flow does not stretch along itself: 2 % of the largest exponent
            assert abs(value) < 0.02 * mean[0]
        else:
            assert abs(value / known - 1) < 0.02
    # the standard error is itself below the 2 % asked for, so the agreement is no luck
    assert jnp.all(error < 0.01 * jnp.abs(mean[0]))


def test_sums_are_the_rates_of_contraction(measured):
    # exact at every point of phase space: what is left is the error of the integration over a step
    lorenz, henon = Lorenz63(), Henon()
    total = -(lorenz.sigma + 1 + lorenz.beta)
    assert jnp.allclose(measured["lorenz"].mean.sum(), total, rtol=1e-6)
    assert jnp.allclose(measured["henon"].mean.sum(), np.log(henon.b), rtol=1e-7)


def test_kaplan_yorke_of_the_attractors(measured):
    assert abs(kaplan_yorke(measured["lorenz"].mean) - 2.062) < 0.002
    assert abs(kaplan_yorke(measured["roessler"].mean) - 2.013) < 0.001
    assert abs(kaplan_yorke(measured["henon"].mean) - 1.258) < 0.002
    assert kaplan_yorke(measured["logistic"].mean) == 1.0


# system, time step, steps in it, units of time from each of the starts, starts, steps between orthogonalisations
LARGER = {
    "lorenz-96": (Lorenz96(), 0.05, 1, 400, 16, 5),
    "chua": (Chua(), 0.05, 4, 2000, 16, 10),
    "hindmarsh-rose": (HindmarshRose(), 0.1, 1, 10_000, 16, 10),
}


def off(mean, known):
    """How far from what is known, in parts of it, or of the largest where that is zero."""
    mean, known = np.asarray(mean), np.asarray(known)
    return np.abs(mean - known) / np.where(np.abs(known) > 0.1 * known[0], np.abs(known), known[0])


@pytest.mark.parametrize("name", LARGER)
def test_exponents_of_larger_flows(name):
    system, dt, substeps, time, count, every = LARGER[name]
    cell = ODECell(system, dt, system.dimension, substeps, diffrax.Tsit5())
    starts = jnp.asarray([system.start]) + 0.05 * jax.random.normal(jax.random.key(0), (count, system.dimension))
    mean, error = lyapunov_mean(
        cell, starts, steps=round(time / dt), dt=dt, discard=round(max(50, time / 20) / dt), every=every
    )
    assert np.all(off(mean, system.exponents) < 0.03)
    assert error[0] < 0.02 * mean[0]
    if name == "lorenz-96":
        # contraction is exact at every point: what is left is the error of Tsit5 over a step
        assert abs(mean.sum() + system.n) < 1e-3


@pytest.mark.parametrize("tau, dimension", [(17.0, 2.10), (23.0, 2.82)])
def test_exponents_of_mackey_glass(tau, dimension):
    system = MackeyGlass(tau=tau)
    starts = jnp.broadcast_to(
        jax.random.uniform(jax.random.key(1), (32, 1), minval=0.9, maxval=1.2), (32, system.dimension)
    )
    mean, error = lyapunov_mean(system.cell(), starts, steps=10_000, discard=1000, count=4)
    assert np.all(off(mean, system.exponents) < 0.04) and error[0] < 0.02 * mean[0]
    # the dimensions of Farmer (1982), to 2 %; his exponents for tau = 23, to 3 %
    assert abs(kaplan_yorke(mean) / dimension - 1) < 0.02
    if tau == 23:
        assert np.all(off(mean, [0.00956, 0.0, -0.0119, -0.0344]) < 0.03)


def test_exponents_of_kuramoto_sivashinsky():
    system = KuramotoSivashinsky(points=32)
    starts = jnp.asarray([system.start]) + 0.1 * jax.random.normal(jax.random.key(0), (8, 32))
    starts = starts - starts.mean(axis=1, keepdims=True)  # the mean is conserved
    mean, error = lyapunov_mean(system.cell(), starts, steps=6000, dt=0.25, discard=800, every=20, count=12)
    known = np.array(KuramotoSivashinsky().exponents)
    # neighbouring small exponents change places from run to run: a fifth of the largest is what 1500 units give
    assert np.all(np.abs(mean - known) < 0.01) and error[0] < 0.01
    assert np.all(off(mean, known)[-3:] < 0.01)


@pytest.mark.parametrize("system", [Tent(), Tent(1.7), SkewTent(), SkewTent(0.8), Baker(), Lozi()], ids=repr)
def test_exponents_of_piecewise_linear_maps(system):
    starts = jnp.asarray([system.start]) + 0.01 * jax.random.uniform(jax.random.key(0), (64, system.dimension))
    mean, error = lyapunov_mean(system, starts, steps=10_000, discard=1000)
    # four standard errors, of 1 part in 1000 at most; rounding where the slope is the same everywhere
    known = np.array(system.exponents)
    assert np.all(np.abs(mean - known) < 4 * error + 1e-12) and np.all(error < 1e-3)
    if isinstance(system, Lozi):
        assert abs(mean.sum() - np.log(system.b)) < 1e-10
    if isinstance(system, Tent):
        assert abs(mean[0] - np.log(system.slope)) < 1e-12


def test_lozi_against_a_plain_loop():
    # NumPy alone, on the slope of the unstable direction: 3.2 10^6 steps, another method than the package's
    x, y = np.random.default_rng(0).uniform(-0.2, 0.2, (2, 400))
    slope, total = np.ones(400), 0.0
    for i in range(8500):
        s = np.where(x > 0, -1.7, 1.7)
        x, y = 1 - 1.7 * np.abs(x) + y, 0.5 * x
        stretch = s + slope  # of (1, slope) to (s + slope, b)
        slope = 0.5 / stretch
        total += np.log(np.abs(stretch)).mean() if i >= 500 else 0.0
    np.testing.assert_allclose(total / 8000, Lozi().exponents[0], atol=4e-4)


@pytest.mark.parametrize("row", spread_over(PWL_CELLS))
def test_affine_pieces_give_the_exponents_of_forward_mode(row):
    cell = instance(row)
    z0 = jnp.asarray(cell.start) if isinstance(cell, AbstractSystem) else 0.1 * states(cell)
    given = dict(steps=60, discard=11, every=7, dt=0.5)
    s = inputs(row, 71)
    found, wanted = affine_exponents(cell, z0, s, **given), lyapunov_spectrum(cell, z0, s, **given)
    # rounding of the one product and the other; a direction that is lost altogether has minus infinity in both
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)
    assert not np.isnan(found).any()


def test_affine_exponents_of_known_maps():
    def mean(system):
        starts = jnp.asarray([system.start]) + 0.01 * jax.random.uniform(jax.random.key(0), (64, system.dimension))
        found = jax.vmap(lambda z: affine_exponents(system, z, steps=4000, discard=500))(starts)
        return np.asarray(found.mean(0)), 4 * np.asarray(found.std(0, ddof=1)) / 8 + 1e-12

    for system in (Tent(), SkewTent(), Baker()):
        value, scatter = mean(system)
        assert np.all(np.abs(value - system.exponents) < scatter) and np.all(scatter < 0.01)
    value, _ = mean(Lozi())
    assert abs(value.sum() - np.log(0.5)) < 1e-10  # areas shrink by b everywhere
    assert abs(kaplan_yorke(value) - kaplan_yorke(Lozi().exponents)) < 0.01


def test_affine_exponents_are_of_piecewise_linear_cells():
    with pytest.raises(ValueError, match="must be piecewise linear, an AbstractPWLCell: got MapCell"):
        affine_exponents(Henon().cell(), jnp.zeros(2), steps=10)
    with pytest.raises(ValueError, match="steps must be at least 1: got 0"):
        affine_exponents(Lozi(), jnp.zeros(2), steps=0)


class Linear(AbstractCell):
    A: jax.Array
    state_size: int = eqx.field(static=True)

    def __call__(self, z, s=None):
        return self.A @ z if s is None else self.A @ z + s

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def linear(*eigenvalues):
    n = len(eigenvalues)
    V = jnp.eye(n) + 0.4 * jax.random.normal(jax.random.key(1), (n, n))
    return Linear(V @ jnp.diag(jnp.asarray(eigenvalues)) @ jnp.linalg.inv(V), n)


@pytest.mark.parametrize("every", [1, 7, 10])
def test_exponents_of_a_linear_map_are_log_eigenvalues(every):
    cell = linear(-0.4, 1.02, 0.9, 0.2)
    got = lyapunov_spectrum(cell, jnp.ones(4), steps=303, discard=400, every=every, dt=0.5)
    # the frame has settled after 400 steps (.9/1.02)^400; what every=7 and 10 leave over (2 and 3) is counted
    expected = jnp.log(jnp.array([1.02, 0.9, 0.4, 0.2])) / 0.5
    assert jnp.allclose(got, expected, rtol=1e-9, atol=1e-9)
    some = lyapunov_spectrum(cell, jnp.ones(4), steps=303, discard=400, every=every, dt=0.5, count=2)
    assert some.shape == (2,) and jnp.allclose(some, expected[:2], rtol=1e-9, atol=1e-9)


def test_a_rotation_has_the_log_of_the_modulus_twice():
    c, s = np.cos(0.3), np.sin(0.3)
    cell = Linear(0.7 * jnp.array([[c, -s], [s, c]]), 2)
    got = lyapunov_spectrum(cell, jnp.ones(2), steps=25, discard=0, every=4)
    assert jnp.allclose(got, np.log(0.7), rtol=1e-12)


def test_fewer_steps_than_between_orthogonalisations():
    got = lyapunov_spectrum(linear(0.5), jnp.ones(1), steps=3, discard=2, every=10)
    assert jnp.allclose(got, np.log(0.5), rtol=1e-12)


def test_spectrum_is_that_of_a_plain_loop():
    cell, z = Henon().cell(), jnp.array([0.1, 0.1])
    Q, logs = np.eye(2), np.zeros(2)
    for _ in range(57):
        z, J = cell.linearise(z)
        Q, R = np.linalg.qr(np.asarray(J) @ Q)
        logs += np.log(np.abs(np.diag(R)))
    got = lyapunov_spectrum(cell, jnp.array([0.1, 0.1]), steps=57, discard=0, every=5)
    # chaos amplifies the rounding of the other order of operations by e^(57 * .42) = 2e10
    assert jnp.allclose(got, np.sort(logs / 57)[::-1], rtol=1e-4)


def test_vmap_over_starts_is_one_start_after_the_other():
    cell, starts = Henon().cell(), jnp.array([[0.1, 0.1], [0.2, 0.0], [0.0, 0.1]])

    def one(z):
        return lyapunov_spectrum(cell, z, steps=60, discard=0, every=5)

    both = jax.vmap(one)(starts)
    # 60 steps of chaos amplify rounding by e^25 in the state, but hardly in the mean of the logs over them
    assert jnp.allclose(both, jnp.stack([one(z) for z in starts]), rtol=1e-4)
    mean, error = lyapunov_mean(cell, starts, steps=60, discard=0, every=5)
    assert jnp.allclose(mean, both.mean(axis=0), rtol=1e-4)
    assert jnp.allclose(error, jnp.std(both, axis=0, ddof=1) / np.sqrt(3), rtol=1e-3)


def test_a_forced_cell_takes_its_inputs_in_order():
    # z' = s z: the exponent is the mean of ln |s| over the steps after those that are let go
    cell = MapCell(lambda z, s: s * z, 1)
    s = jnp.exp(jax.random.normal(jax.random.key(2), (43,)))
    got = lyapunov_spectrum(cell, jnp.ones(1), s, steps=33, discard=10, every=4)
    assert jnp.allclose(got, jnp.log(s[10:]).mean(), rtol=1e-12)


def test_conditional_exponents_of_teacher_forcing():
    # z + alpha (x - z), then A: every tangent shrinks by (1 - alpha) more
    A, alpha = linear(1.1, 0.6), 0.25
    forced = Forced(A, IdentityReadout(2, 2, key=jax.random.key(0)))
    inputs = Forcing(jnp.zeros((300, 2)), jnp.full(300, alpha))
    got = lyapunov_spectrum(forced, jnp.ones(2), inputs, steps=200, discard=100)
    assert jnp.allclose(got, jnp.log(jnp.array([1.1, 0.6])) + np.log(1 - alpha), rtol=1e-9)


def test_a_lost_direction_has_minus_infinity():
    cell = Linear(jnp.diag(jnp.array([0.5, 0.0])), 2)
    got = lyapunov_spectrum(cell, jnp.ones(2), steps=20, discard=0)
    assert jnp.allclose(got[0], np.log(0.5)) and got[1] == -jnp.inf
    assert kaplan_yorke([0.2, -np.inf]) == 1.0


def test_divergence_shows_as_nan():
    # the tangents of a linear map stay finite when the state overflows: the run has diverged all the same
    assert jnp.all(jnp.isnan(lyapunov_spectrum(linear(3.0), jnp.ones(1), steps=1000, discard=0)))
    assert jnp.all(jnp.isnan(lyapunov_spectrum(Logistic().cell(), jnp.array([1.5]), steps=100, discard=0)))
    assert jnp.all(jnp.isnan(lyapunov_spectrum(Logistic().cell(), jnp.array([1.5]), steps=10, discard=90)))
    # a frame that overflows between orthogonalisations
    assert jnp.all(jnp.isnan(lyapunov_spectrum(linear(3.0), jnp.zeros(1), steps=1000, discard=0, every=1000)))
    mean, error = lyapunov_mean(Logistic().cell(), jnp.array([[0.3], [1.5]]), steps=100)
    assert jnp.isnan(mean[0]) and jnp.isnan(error[0])


TRACES = []


def test_another_start_does_not_compile_again():
    def f(x):
        TRACES.append(1)
        return 3.9 * x * (1.0 - x)

    cell = MapCell(f, 1)
    lyapunov_spectrum(cell, jnp.array([0.3]), steps=50, dt=1.0)
    first = len(TRACES)
    lyapunov_spectrum(cell, jnp.array([0.4]), steps=50, dt=0.5)
    assert len(TRACES) == first > 0


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(steps=0), "steps must be at least 1: got 0"),
        (dict(discard=-1), "discard must be at least 0: got -1"),
        (dict(every=0), "every must be at least 1: got 0"),
        (dict(count=3), "count must lie between 1 and state_size=2: got 3"),
        (dict(dt=0.0), r"dt must be positive and finite: got 0\.0"),
        (dict(z0=jnp.zeros(3)), r"z0 must have shape \(2,\).*got \(3,\)"),
        (dict(inputs=jnp.zeros((10, 2))), r"discard \+ steps = 15: got shape \(10, 2\)"),
    ],
)
def test_misuse_is_named(change, message):
    arguments = dict(z0=jnp.zeros(2), steps=10, discard=5) | change
    with pytest.raises(ValueError, match=message):
        lyapunov_spectrum(Henon().cell(), **arguments)


def test_one_start_has_no_standard_error():
    with pytest.raises(ValueError, match=r"b at least 2: got \(1, 2\)"):
        lyapunov_mean(Henon().cell(), jnp.zeros((1, 2)), steps=10)


@pytest.mark.parametrize(
    "exponents, dimension",
    [
        ([-0.1, -2.0], 0.0),
        ([0.0, -1.0], 1.0),
        ([0.9056, 0.0, -14.5723], 2 + 0.9056 / 14.5723),
        ([-14.5723, 0.9056, 0.0], 2 + 0.9056 / 14.5723),
        ([0.5, -0.5], 2.0),
        ([0.3, 0.1], 2.0),
        ([0.7], 1.0),
        ([1.0, np.nan], np.nan),
    ],
)
def test_kaplan_yorke(exponents, dimension):
    np.testing.assert_allclose(kaplan_yorke(exponents), dimension, rtol=1e-12)


def test_kaplan_yorke_wants_one_spectrum():
    with pytest.raises(ValueError, match=r"shape \[m\].*got \(2, 2\)"):
        kaplan_yorke(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"got \(0,\)"):
        kaplan_yorke([])


def test_float32(float32):
    got = lyapunov_spectrum(Henon().cell(), jnp.array([0.1, 0.1]), steps=5000, every=4)
    assert got.dtype == jnp.float32
    # one run of 5000 steps: 1 % of scatter, and single precision does not add to it
    np.testing.assert_allclose(got, Henon().exponents, rtol=0.03)
    np.testing.assert_allclose(got.sum(), np.log(0.3), rtol=1e-4)
