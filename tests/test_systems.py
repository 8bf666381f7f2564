import json
import sys
import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from dsrecon.cell import dense_jacobian
from dsrecon.evolve import evolve
from dsrecon.systems import (
    AbstractMap,
    Baker,
    Chua,
    DelayCell,
    ETDRK4Cell,
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
    from_dysts,
    simulate,
)
from dsrecon.systems.pwl import DENOMINATORS
from dsrecon.systems.spatial import etdrk4_coefficients

FLOWS = [Lorenz63(), Roessler(), Lorenz96()]
MAPS = [Henon(), Logistic()]
PWL = [Tent(), Tent(1.7), SkewTent(), Lozi(), Baker()]
FIELDS = [KuramotoSivashinsky(points=32), MackeyGlass()]
SYSTEMS = [*FLOWS, Lorenz96(n=4), HindmarshRose(), Chua(), *MAPS, *PWL, *FIELDS]


def name(x):
    return type(x).__name__ if isinstance(x, eqx.Module) else str(x)


def exact(system, z, dt):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, args: system(x)),
        diffrax.Dopri8(),
        t0=0.0,
        t1=dt,
        dt0=None,
        y0=z,
        stepsize_controller=diffrax.PIDController(rtol=1e-13, atol=1e-13),
        max_steps=100_000,
    ).ys[-1]


@pytest.mark.parametrize("system", SYSTEMS, ids=name)
def test_a_system_describes_itself(system):
    assert len(system.names) == len(set(system.names)) == len(system.start) == system.dimension
    cell = system.cell()
    assert cell.state_size == system.dimension
    assert eqx.filter_eval_shape(cell, jnp.asarray(system.start)).shape == (system.dimension,)
    assert system.source and all(isinstance(x, float) for x in system.start)


@pytest.mark.parametrize("system", [type(s)() for s in SYSTEMS if s not in (Lorenz96(n=4), Tent(1.7))], ids=name)
def test_exponents_are_descending_and_as_many_as_variables(system):
    assert all(isinstance(x, float) for x in system.exponents)
    assert list(system.exponents) == sorted(system.exponents, reverse=True)
    assert len(system.exponents) == system.dimension or name(system) in ("KuramotoSivashinsky", "MackeyGlass")


def test_exponents_are_claimed_for_the_standard_parameters_only():
    assert Lorenz63(sigma=10, rho=28, beta=8 / 3).exponents == Lorenz63().exponents
    with pytest.raises(ValueError, match=r"Lorenz96 are known for .*'n': 10.*got .*'n': 12"):
        Lorenz96(n=12).exponents  # noqa: B018
    assert MackeyGlass(tau=23).exponents == (0.00952, 0.0, -0.01181, -0.0344)
    with pytest.raises(ValueError, match=r"tau of \[17\.0, 23\.0, 30\.0\]: got 20\.0"):
        MackeyGlass(tau=20).exponents  # noqa: B018
    with pytest.raises(ValueError, match=r"MackeyGlass are known for .*got .*'beta': 0\.3"):
        MackeyGlass(tau=23, beta=0.3).exponents  # noqa: B018
    with pytest.raises(ValueError, match=r"Lorenz63 are known for .*'rho': 28.0.*got .*'rho': 20.0"):
        Lorenz63(rho=20).exponents  # noqa: B018


@pytest.mark.parametrize("system", FLOWS, ids=name)
def test_ode_cell_is_the_flow_that_diffrax_finds(system):
    z = jnp.asarray(simulate(system, 1).values[0])
    # one default step; the tolerance is that of the reference
    assert jnp.allclose(system.cell()(z), exact(system, z, system.time_step), rtol=1e-10, atol=1e-10)
    coarse = system.cell(0.5)
    assert coarse.substeps == round(0.5 / system.longest_step)
    assert system.cell(system.longest_step).substeps == 1
    assert jnp.allclose(coarse(z), exact(system, z, 0.5), rtol=1e-6, atol=1e-6)


ORDERS = [(2, 256), (3, 128), (5, 64), (8, 16)]
SOLVERS = [diffrax.Heun(), diffrax.Bosh3(), diffrax.Tsit5(), diffrax.Dopri8()]


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_ode_cell_takes_the_step_of_the_diffrax_solver(solver):
    system, h = Lorenz63(), 0.02
    z = jnp.asarray(system.start)
    term = diffrax.ODETerm(lambda t, x, args: system(x))
    state = solver.init(term, 0.0, h, z, None)
    twin = solver.step(term, 0.0, h, z, None, state, made_jump=False)[0]
    assert jnp.allclose(ODECell(system, h, 3, 1, solver)(z), twin, rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("solver, order, n", [(s, *k) for s, k in zip(SOLVERS, ORDERS, strict=True)], ids=name)
def test_ode_cell_has_the_order_of_its_solver(solver, order, n):
    system = Roessler()
    z = jnp.asarray(simulate(system, 50).values[-1])
    truth = exact(system, z, 3.0)
    coarse, fine = (jnp.linalg.norm(ODECell(system, 3.0, 3, k, solver)(z) - truth) for k in (n, 2 * n))
    # at least the order; the leading error of Tsit5 is so small that the next one shows (5.9 measured)
    assert order - 0.1 < np.log2(coarse / fine) < order + 1


@pytest.mark.parametrize(
    "cell",
    [
        *(ODECell(s, 0.05, s.dimension, 1, diffrax.Bosh3()) for s in [Lorenz96(n=5)]),
        *(s.cell() for s in [Roessler(), *MAPS, *PWL]),
        ODECell(Lorenz63(), 0.1, 3, 4, diffrax.Tsit5()),
        KuramotoSivashinsky(points=16, length=10.0).cell(),
        MackeyGlass(tau=4.0).cell(),
    ],
    ids=lambda cell: name(cell.vector_field if isinstance(cell, ODECell) else cell),
)
def test_derivatives_of_cells_are_finite_differences(cell):
    z = jnp.linspace(0.35, 1.1, cell.state_size)
    v = jnp.linspace(1.0, -0.7, cell.state_size)
    eps = 1e-5
    slope = (cell(z + eps * v) - cell(z - eps * v)) / (2 * eps)
    _, push = jax.jvp(cell, (z,), (v,))
    # central differences: eps^2 truncation and 1e-16 / eps rounding, both below 1e-8 here
    assert jnp.allclose(push, slope, rtol=1e-7, atol=1e-7)
    _, pull = jax.vjp(cell, z)
    _, J = cell.linearise(z)
    assert jnp.allclose(J @ v, push, rtol=1e-12, atol=1e-12)
    assert jnp.allclose(pull(v)[0], J.T @ v, rtol=1e-12, atol=1e-12)


class Pendulum(eqx.Module):
    damping: jax.Array

    def __call__(self, x, s):
        return jnp.stack([x[1], -jnp.sin(x[0]) - self.damping * x[1] + s])


def test_a_forced_ode_cell_holds_its_input_over_the_step():
    cell = ODECell(Pendulum(jnp.asarray(0.1)), 0.3, 2, 12, diffrax.Tsit5())
    z, s = jnp.array([0.5, 0.1]), jnp.asarray(0.7)
    assert jnp.allclose(cell(z, s), exact(lambda x: cell.vector_field(x, s), z, 0.3), rtol=1e-9)
    eps = 1e-5
    slope = (cell(z, s + eps) - cell(z, s - eps)) / (2 * eps)
    assert jnp.allclose(jax.jacfwd(lambda s: cell(z, s))(s), slope, rtol=1e-7, atol=1e-9)
    grad = eqx.filter_grad(lambda cell: cell(z, s)[1])(cell)
    assert jnp.isfinite(grad.vector_field.damping) and grad.vector_field.damping < 0


def test_a_map_cell_is_the_map():
    cell = Henon().cell()
    assert isinstance(cell, MapCell)
    assert jnp.allclose(cell(jnp.array([0.5, 0.2])), jnp.array([0.85, 0.15]), atol=1e-15)
    value, J = cell.linearise(jnp.array([0.5, 0.2]))
    assert jnp.allclose(J, jnp.array([[-1.4, 1.0], [0.3, 0.0]]), atol=1e-15)
    assert jnp.allclose(value, dense_jacobian(cell, jnp.array([0.5, 0.2]))[0])
    doubled = MapCell(lambda x, s: x + s, 1)
    assert doubled(jnp.array([1.0]), jnp.array([2.0])) == 3.0


def test_the_lorenz_96_law():
    x = np.random.default_rng(0).normal(size=7)
    n, F = 7, 5.5
    wanted = [(x[(i + 1) % n] - x[i - 2]) * x[i - 1] - x[i] + F for i in range(n)]
    np.testing.assert_allclose(Lorenz96(F, 7)(jnp.asarray(x)), wanted, rtol=1e-14, atol=1e-14)


def test_the_chua_diode():
    system = Chua()

    def slope(x):
        return jax.jacfwd(system)(jnp.array([x, 0.1, 0.2]))[0, 0]

    # alpha (-1 + a) inside, alpha (-1 + b) outside, and the law is odd
    np.testing.assert_allclose([slope(0.3), slope(-1.4), slope(2.0)], 9 * np.array([1 / 7, -2 / 7, -2 / 7]))
    x = jnp.array([1.7, -0.3, 0.9])
    np.testing.assert_allclose(system(-x), -system(x), rtol=1e-14)


def test_the_hindmarsh_rose_law():
    # at rest z = s (x - x_R), y = c - d x^2, and the membrane equation is a cubic
    rest = HindmarshRose(current=1.0)
    x = np.roots([-1.0, 3.0 - 5.0, -4.0, 1.0 - 6.4 + 1.0])
    x = x[abs(x.imag) < 1e-12].real[0]
    np.testing.assert_allclose(rest(jnp.array([x, 1 - 5 * x**2, 4 * (x + 1.6)])), 0, atol=1e-12)


def test_the_kuramoto_sivashinsky_law():
    system = KuramotoSivashinsky(points=32)
    q = 2 * np.pi / system.length
    x = np.arange(32) * system.length / 32
    u = np.sin(q * x) + 0.3 * np.cos(3 * q * x)
    ux, uxx = q * np.cos(q * x) - 0.9 * q * np.sin(3 * q * x), -(q**2) * np.sin(q * x) - 2.7 * q**2 * np.cos(3 * q * x)
    uxxxx = q**4 * np.sin(q * x) + 24.3 * q**4 * np.cos(3 * q * x)
    np.testing.assert_allclose(system(jnp.asarray(u)), -u * ux - uxx - uxxxx, rtol=0, atol=1e-13)
    # the mean is conserved, and a shift in space stays one
    cell, u = system.cell(5.0), jnp.asarray(system.start)
    assert abs(cell(u + 0.1).mean() - 0.1) < 1e-14
    np.testing.assert_allclose(cell(jnp.roll(u, 5)), jnp.roll(cell(u), 5), rtol=0, atol=1e-12)
    # in a moving frame: u -> u + c moves at speed c (Galilei); c t = 2 points
    c = 2 * system.length / 32 / 5.0
    np.testing.assert_allclose(cell(u + c), jnp.roll(cell(u), 2) + c, atol=2e-3)


def test_etdrk4_has_order_four_and_is_the_flow_that_diffrax_finds():
    # so few and long waves that an explicit method takes it too
    system = KuramotoSivashinsky(points=16)
    u = simulate(system, 1, discard=400).values[0]
    truth = exact(system, jnp.asarray(u), 2.0)
    coarse, fine = (jnp.linalg.norm(ETDRK4Cell(system, 2.0, k)(jnp.asarray(u)) - truth) for k in (80, 160))
    assert fine < 1e-8 and 3.8 < np.log2(coarse / fine) < 4.2
    assert jnp.allclose(ETDRK4Cell(system, 2.0, 640)(jnp.asarray(u)), truth, atol=1e-8)


def test_etdrk4_coefficients_are_their_series_and_their_closed_form():
    E, half, phi, f1, f2, f3 = etdrk4_coefficients(np.array([0.0, 1e-3, -40.0]), 0.5)
    np.testing.assert_allclose(E, np.exp([0, 5e-4, -20]), rtol=1e-14)
    # at L = 0 the step is that of Runge and Kutta: weights 1/6, 2/6, 2/6, 1/6, and half a step
    np.testing.assert_allclose(
        [x[0] for x in (phi, f1, f2, f3)], 0.5 * np.array([1 / 2, 1 / 6, 1 / 6, 1 / 6]), rtol=1e-14
    )
    z = -20.0
    closed = [np.expm1(z / 2) / z, (-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3]
    np.testing.assert_allclose([phi[2], f1[2]], 0.5 * np.array(closed), rtol=1e-13)
    np.testing.assert_allclose(phi[1], np.expm1(2.5e-4) / 1e-3, rtol=1e-13)
    np.testing.assert_allclose(half**2, E, rtol=1e-14)


def test_a_delay_cell_solves_its_equation():
    # x'(t) = -x(t - pi/2) has the solution cos t
    errors = []
    for points in (16, 32):
        history = jnp.cos(-np.pi / 2 * np.arange(points + 1) / points)
        cell = DelayCell(lambda x, delayed: -delayed, np.pi / 2, points, 4 * points)
        errors.append(jnp.abs(cell(history) - history).max())  # one turn later
    assert cell.dt == 2 * np.pi
    assert errors[1] < 1e-5 and 3.8 < np.log2(errors[0] / errors[1]) < 4.2
    # what is a step old has moved one place on
    one = DelayCell(lambda x, delayed: -delayed, 1.0, 32)
    np.testing.assert_array_equal(one(history)[1:], history[:-1])


def test_a_delay_cell_has_order_four():
    fine = MackeyGlass(step=0.0625)
    line = jnp.asarray(simulate(fine, 1).values[0])
    truth = fine.cell(17.0)(line)
    errors = []
    for every in (16, 8):
        system = MackeyGlass(step=0.0625 * every)
        errors.append(jnp.abs(system.cell(17.0)(line[::every]) - truth[::every]).max())
    assert errors[1] < 3e-6 and 3.7 < np.log2(errors[0] / errors[1]) < 4.3


@pytest.mark.parametrize("system", PWL, ids=repr)
def test_pwl_maps_are_affine_on_their_regions(system):
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.uniform(0, 1, (200, system.dimension)) - (0.5 if isinstance(system, Lozi) else 0.0))

    @jax.jit
    @jax.vmap
    def law(z):
        A, h = system.affine(system.region(z))
        return system(z), A @ z + h, jax.jacfwd(system)(z), A, system.linearise(z), system.region(z)

    value, affine, J, A, (linear, slope), region = law(z)
    np.testing.assert_allclose(value, affine, rtol=0, atol=3e-15)  # the fractions of Tent: up to 1 / C
    np.testing.assert_array_equal(linear, affine)
    np.testing.assert_allclose(J, A, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(slope, A)
    assert len(np.unique(region, axis=0)) == 2
    assert system.cell() is system.cell(1.0) is system


def test_equations_of_the_pwl_maps():
    # corners and ends, by hand
    x = jnp.array([0.0, 0.25, 0.5, 0.8, 1.0])

    def along(system):
        return np.array([float(system(jnp.array([v]))[0]) for v in x])

    np.testing.assert_allclose(along(Tent()), [0, 0.5, 1, 0.4, 0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(along(Tent(1.5)), [0, 0.375, 0.75, 0.3, 0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(along(SkewTent(0.25)), [0, 1, 2 / 3, 0.8 / 3, 0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(Lozi()(jnp.array([-0.5, 0.2])), [1 - 0.85 + 0.2, -0.25], rtol=0, atol=1e-15)
    np.testing.assert_allclose(Baker()(jnp.array([0.5, 0.2])), [0.15, 0.5], rtol=0, atol=1e-15)
    np.testing.assert_allclose(Baker()(jnp.array([0.5, 0.7])), [0.7, 0.5], rtol=0, atol=1e-15)


def test_exact_exponents_hold_at_all_parameters():
    assert Tent(1.3).exponents == (np.log(1.3),)
    np.testing.assert_allclose(SkewTent(0.2).exponents, 0.2 * np.log(5) + 0.8 * np.log(1.25), rtol=1e-14)
    wanted = [0.25 * np.log(4) + 0.75 * np.log(4 / 3), 0.25 * np.log(0.1) + 0.75 * np.log(0.2)]
    np.testing.assert_allclose(Baker(0.25, 0.1, 0.2).exponents, wanted, rtol=1e-14)


def test_orbits_of_the_full_tent_map_do_not_collapse():
    n = 200_000
    x = simulate(Tent(), n).values[:, 0]
    assert len(np.unique(x)) == n and x.min() > 0
    # uniform: counts of 20 bins within five standard errors, and successive values on the map
    counts = np.histogram(x, 20, (0, 1))[0]
    assert np.abs(counts - n / 20).max() < 5 * np.sqrt(n / 20)
    np.testing.assert_allclose(x[1:], np.minimum(2 * x[:-1], 2 - 2 * x[:-1]), rtol=0, atol=3e-15)
    # the other systems whose plain arithmetic is sound
    for system in (SkewTent(), Baker(), Tent(1.9)):
        assert len(np.unique(simulate(system, 50_000).values[:, -1])) == 50_000


def test_plain_arithmetic_would_collapse():
    # what the fractions are there against: the same map by its affine pieces
    def plain(x):
        A, h = Tent().affine(Tent().region(x))
        return A @ x + h

    zs = evolve(MapCell(plain, 1), jnp.array([0.3]), steps=100).zs
    assert jnp.all(zs[60:] == 0)


def test_denominators_of_the_full_tent_map():
    def prime(n):
        if n < 2**22:
            return all(n % p for p in range(2, int(n**0.5) + 1))
        d, s = n - 1, 0
        while d % 2 == 0:
            d, s = d // 2, s + 1
        # Miller and Rabin; these bases decide below 3.4e14, and 13, 17 to 3.4e14 and above: all below 3e24
        for a in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
            powers = [pow(a, d * 2**r, n) for r in range(s)]
            if powers[0] != 1 and n - 1 not in powers:
                return False
        return True

    for dtype, C in DENOMINATORS.items():
        C, whole = int(C), C
        assert whole == C and C % 8 == 3 and prime(C) and prime((C - 1) // 2)
        # u comes back from u / C
        u = np.random.default_rng(0).integers(0, C, 100_000, endpoint=True).astype(dtype)
        C = dtype.type(C)
        np.testing.assert_array_equal(np.round(u / C * C), u)


def test_a_float32_orbit_of_the_full_tent_map_closes_only_after_all_fractions(float32):
    C = int(DENOMINATORS[jnp.dtype("float32")])
    x = simulate(Tent(), (C - 1) // 2 + 1).values[:, 0]
    assert x.dtype == np.float32
    assert x[-1] == x[0] and len(np.unique(x)) == (C - 1) // 2


@pytest.mark.parametrize("system", [*MAPS, *PWL, *FIELDS], ids=repr)
def test_single_precision_throughout(system, float32):
    cell, z = system.cell(), jnp.asarray(system.start)
    assert z.dtype == jnp.float32
    value, J = eqx.filter_jit(lambda cell, z: cell.linearise(z))(cell, z)
    assert cell(z).dtype == value.dtype == J.dtype == jnp.float32
    with jax.enable_x64(True):
        truth, slope = eqx.filter_jit(lambda cell, z: cell.linearise(z))(cell, jnp.asarray(system.start))
    # rounding of one time step
    np.testing.assert_allclose(cell(z), truth, atol=2e-6 * max(1, np.abs(truth).max()))
    np.testing.assert_allclose(J, slope, atol=2e-5 * max(1, np.abs(slope).max()))


@pytest.mark.parametrize("system", [Lorenz96(), HindmarshRose(), Chua()], ids=name)
def test_laws_of_flows_in_single_precision(system, float32):
    x = 1.1 * jnp.asarray(system.start)
    with jax.enable_x64(True):
        truth = system(1.1 * jnp.asarray(system.start))
    assert system(x).dtype == jnp.float32
    np.testing.assert_allclose(system(x), truth, atol=1e-6 * np.abs(truth).max())


def test_a_missing_dysts_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dysts", None)
    with pytest.raises(ImportError, match=r"dysts is needed for from_dysts\('Nothing'\): pip install dysts"):
        from_dysts("Nothing")


@pytest.fixture
def dysts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that numba is not there
        return pytest.importorskip("dysts.flows")


# positional law; its own methods and array parameters; classes that share a law; helper methods; steps
@pytest.mark.parametrize("flow", ["Halvorsen", "Hopfield", "BlinkingVortex", "MultiChua", "Colpitts", "MacArthur"])
def test_a_flow_of_dysts_is_that_of_dysts(dysts, flow):
    system, original = from_dysts(flow), getattr(dysts, flow)()
    x = 1.01 * np.asarray(original.ic) + 0.003
    np.testing.assert_allclose(system(jnp.asarray(x)), original.rhs(x, 0.0), rtol=1e-11, atol=1e-13)
    assert system.start == tuple(original.ic) and system.time_step == original.period / 100
    assert from_dysts(flow) is system
    assert not isinstance(original.rhs(x, 0.0), jax.Array)  # dysts itself still runs on NumPy


def test_a_flow_of_dysts_is_a_known_system(dysts):
    system = from_dysts("Lorenz")
    assert system.names == ("x", "y", "z") and system.unbounded == ()
    assert system.parameters == {"flow": "Lorenz", "beta": 2.667, "rho": 28.0, "sigma": 10.0}
    own = Lorenz63(beta=2.667)
    z = jnp.asarray(system.start)
    np.testing.assert_allclose(system.cell(0.1)(z), own.cell(0.1)(z), rtol=1e-7)
    assert len(system.exponents) == 3 and system.exponents[0] > 0 > system.exponents[2]
    series = simulate(system, 50)
    assert series.name == series.attrs["system"] == "Lorenz" and "Lorenz, Edward" in series.attrs["source"]
    other = simulate(from_dysts("SprottB"), 5)
    assert other.attrs["recipe"] != simulate(from_dysts("SprottD"), 5).attrs["recipe"]
    assert from_dysts("Duffing").unbounded == ("z",)
    with jax.enable_x64(False):
        assert system.cell()(jnp.asarray(system.start)).dtype == jnp.float32


@pytest.mark.parametrize(
    "flow, message",
    [
        ("Lorentz", r"name of a class in dysts\.flows: got 'Lorentz'\. There are \['Aizawa'"),
        ("MackeyGlass", "ordinary differential equation: got 'MackeyGlass', a delay equation"),
        ("Torus", "autonomous: the law of 'Torus' in dysts changes with time"),
        ("Lorenz96", r"that JAX can trace: that of 'Lorenz96' fails with TypeError: JAX arrays are immutable"),
        ("BelousovZhabotinsky", r"that of 'BelousovZhabotinsky' fails with TracerBoolConversionError"),
    ],
)
def test_what_cannot_be_had_of_dysts_is_named(dysts, flow, message):
    with pytest.raises(ValueError, match=message):
        from_dysts(flow)


@pytest.mark.slow
def test_every_other_flow_of_dysts_is_that_of_dysts(dysts):
    names = [n for n, made in vars(dysts).items() if isinstance(made, type) and made.__module__ == dysts.__name__]
    found = []
    for flow in names:
        try:
            system = from_dysts(flow)
        except ValueError:
            continue
        original = getattr(dysts, flow)()
        x = 1.01 * np.asarray(original.ic) + 0.003
        np.testing.assert_allclose(system(jnp.asarray(x)), original.rhs(x, 0.0), rtol=1e-9, atol=1e-12, err_msg=flow)
        found.append(flow)
    assert len(found) >= 126  # of 129 ordinary differential equations in dysts 0.96


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Lorenz96(n=3), "n must be at least 4: got 3"),
        (lambda: KuramotoSivashinsky(points=9), "points must be even and at least 8: got 9"),
        (lambda: KuramotoSivashinsky(length=-1), r"length must be positive and finite: got -1\.0"),
        (lambda: KuramotoSivashinsky().cell(-1.0), r"dt must be positive and finite: got -1\.0"),
        (lambda: KuramotoSivashinsky().cell()(jnp.zeros(64), jnp.zeros(1)), "takes none: its equation is autonomous"),
        (lambda: ETDRK4Cell(KuramotoSivashinsky(), 0.1, 0), "substeps must be at least 1: got 0"),
        (lambda: MackeyGlass(tau=17.2), r"tau must be a whole multiple of step=0\.5: got 17\.2"),
        (lambda: MackeyGlass(tau=1.0), r"tau must be at least 4 steps: got 1\.0 of step=0\.5"),
        (lambda: MackeyGlass().cell(0.7), r"dt must be a whole multiple of step=0\.5: got 0\.7"),
        (lambda: MackeyGlass().cell(0.0), r"dt must be positive and finite: got 0\.0"),
        (lambda: MackeyGlass().cell()(jnp.zeros(35), jnp.zeros(1)), "takes none: its equation is autonomous"),
        (lambda: DelayCell(lambda x, d: d, 1.0, 3), "points must be at least 4: got 3"),
        (lambda: DelayCell(lambda x, d: d, 1.0, 4, 0), "substeps must be at least 1: got 0"),
        (lambda: DelayCell(lambda x, d: d, 0.0, 4), r"delay must be positive and finite: got 0\.0"),
        (lambda: Tent(2.5), r"slope must lie above 1 and be at most 2: got 2\.5"),
        (lambda: Tent().cell(2.0), r"dt of a map must be None or 1.*got 2\.0"),
        (lambda: Tent()(jnp.zeros(1, jnp.float16)), "z must be float32 or float64 for the full tent map: got float16"),
        (lambda: SkewTent(0.5), r"c must lie between 0 and 1 and not be 0\.5.*got 0\.5"),
        (lambda: SkewTent(1.0), r"c must lie between 0 and 1.*got 1\.0"),
        (lambda: Baker(0.5), r"alpha must lie between 0 and 1 and not be 0\.5.*got 0\.5"),
        (lambda: Baker(left=0.6), r"left must lie above 0 and be at most 0\.5: got 0\.6"),
        (lambda: Lorenz63().cell(0.0), r"dt must be positive and finite: got 0\.0"),
        (lambda: Lorenz63().cell(float("nan")), "dt must be positive and finite: got nan"),
        (lambda: Henon().cell(0.5), r"dt of a map must be None or 1.*got 0\.5"),
        (lambda: ODECell(Lorenz63(), 0.1, 3, 0), "substeps must be at least 1: got 0"),
        (lambda: ODECell(Lorenz63(), 0.1, 0), "state_size must be at least 1: got 0"),
        (lambda: ODECell(Lorenz63(), -0.1, 3), r"dt must be positive and finite: got -0\.1"),
        (lambda: MapCell(Henon(), 0), "state_size must be at least 1: got 0"),
        (lambda: simulate(Henon(), 0), "steps must be a whole number from 1 on: got 0"),
        (lambda: simulate(Henon(), 5, discard=-1), "discard must be a whole number from 0 on: got -1"),
        (lambda: simulate(Roessler(), 5, dt=-1.0), r"dt must be positive and finite: got -1\.0"),
        (lambda: simulate(Henon(), 5, dt=2.0), r"dt of a map must be None or 1.*got 2\.0"),
        (lambda: simulate(Henon(), 5, noise=-0.1), r"noise must be a fraction .* 0 or more: got -0\.1"),
        (lambda: simulate(Henon(), 5, noise=0.1), r"key must be given for noise=0\.1.*got None"),
        (lambda: simulate(Henon(), 5, start=[0.1]), r"start must have shape \(2,\).*got \(1,\)"),
        (lambda: simulate(Henon(), 5, start=[0.1, np.inf]), r"start must be finite: got \[0\.1, inf\]"),
    ],
)
def test_misuse_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_run_that_diverges_raises():
    with pytest.raises(RuntimeError, match="not finite from step"):
        simulate(Logistic(), 50, start=[1.5])


@pytest.mark.parametrize("system", [Lorenz63(), *MAPS, *PWL, *FIELDS], ids=repr)
def test_simulate_labels_its_series(system, tmp_path):
    series = simulate(system, 40, noise=0.05, key=jax.random.key(0))
    dt = system.time_step
    assert series.dims == ("time", "variable") and series.shape == (40, system.dimension)
    assert series.dtype == np.float64
    assert tuple(series["variable"].values) == system.names
    assert np.allclose(series["time"], np.arange(40) * dt, rtol=1e-14)
    assert series.name == series.attrs["system"] == name(system)
    assert json.loads(series.attrs["parameters"]) == system.parameters
    assert json.loads(series.attrs["start"]) == list(system.start)
    assert series.attrs["source"] == system.source
    assert (series.attrs["time_step"], series.attrs["noise"], series.attrs["discard"]) == (dt, 0.05, 1000)
    assert len(series.attrs["recipe"]) == 64
    series.to_netcdf(tmp_path / "series.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "series.nc", engine="h5netcdf") as back:
        assert dict(back.attrs) == series.attrs
        np.testing.assert_array_equal(back.values, series.values)


@pytest.mark.parametrize("system", [Lorenz63(), Henon()], ids=name)
def test_the_clock_starts_after_what_is_discarded(system):
    whole, later = simulate(system, 30, discard=0), simulate(system, 20, discard=10)
    np.testing.assert_array_equal(whole.values[0], system.start)
    np.testing.assert_array_equal(whole.values[1], system.cell()(jnp.asarray(system.start)))
    # the same steps, compiled for other lengths: equal to rounding, amplified over 30 steps
    np.testing.assert_allclose(whole.values[10:], later.values, rtol=1e-10, atol=1e-10)
    assert later["time"].values[0] == 0.0
    np.testing.assert_array_equal(simulate(system, 1, discard=0).values, [system.start])


def test_recipes_and_series_change_together():
    def make(system=None, steps=60, **kwargs):
        return simulate(Henon() if system is None else system, steps, **kwargs)

    key = jax.random.key(1)
    different = [
        make(),
        make(Henon(a=1.39)),
        make(Logistic()),
        make(steps=61),
        make(start=[0.1, 0.1]),
        make(discard=999),
        make(noise=0.1, key=key),
        make(noise=0.2, key=key),
        make(noise=0.1, key=jax.random.key(2)),
        make(Lorenz63()),
        make(Lorenz63(), dt=0.02),
        make(Lorenz63(), dt=0.04),
    ]
    recipes = [series.attrs["recipe"] for series in different]
    assert len(set(recipes)) == len(recipes)
    same = [
        (make(), make(Henon(a=1.4, b=0.3), start=np.zeros(2), dt=1.0, key=key)),
        (make(noise=0.1, key=key), make(noise=0.1, key=jax.random.key(1))),
    ]
    for one, other in same:
        assert one.attrs["recipe"] == other.attrs["recipe"]
        np.testing.assert_array_equal(one.values, other.values)


def test_noise_is_a_fraction_of_the_standard_deviation():
    clean = simulate(Lorenz63(), 20_000)
    noisy = simulate(Lorenz63(), 20_000, noise=0.05, key=jax.random.key(3))
    share = (noisy - clean).values.std(axis=0) / clean.values.std(axis=0)
    # a standard deviation from n samples has a relative standard error of 1 / sqrt(2 n) = .5 %: four of them
    np.testing.assert_allclose(share, 0.05, rtol=0.02)
    assert np.abs((noisy - clean).values.mean(axis=0) / clean.values.std(axis=0)).max() < 4 * 0.05 / 141


TRACES = []


class Counted(AbstractMap):
    a: float = 1.4
    b: float = 0.3
    names = Henon.names
    time_step = Henon.time_step
    start = Henon.start
    source = Henon.source
    exponents = Henon().exponents

    def __call__(self, x):
        TRACES.append(1)
        return jnp.stack([1.0 - self.a * x[0] ** 2 + x[1], self.b * x[0]])


def test_another_start_does_not_compile_again():
    simulate(Counted(), 50)
    first = len(TRACES)
    assert first > 0
    simulate(Counted(), 50, start=[0.2, 0.1])
    assert len(TRACES) == first


def test_float32_throughout(float32):
    series = simulate(Lorenz63(), 100, noise=0.05, key=jax.random.key(0))
    assert series.dtype == np.float32 and series["time"].dtype == np.float64
    cell = Lorenz63().cell()
    z = jnp.array([1.0, 2.0, 20.0])
    assert cell(z).dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in cell.linearise(z))
    # one step in single precision: rounding of a few parts in 1e7 of a state of size 20
    with jax.enable_x64(True):
        truth = Lorenz63().cell()(jnp.array([1.0, 2.0, 20.0]))
    np.testing.assert_allclose(cell(z), truth, rtol=1e-6)


def test_precision_is_in_the_recipe(float32):
    single = simulate(Henon(), 10).attrs["recipe"]
    with jax.enable_x64(True):
        assert simulate(Henon(), 10).attrs["recipe"] != single


def test_float32_ends_the_logistic_map_in_a_cycle_and_float64_does_not(float32):
    single = simulate(Logistic(), 50_000).values[:, 0]
    with jax.enable_x64(True):
        double = simulate(Logistic(), 50_000).values[:, 0]
    assert len(np.unique(single[-20_000:])) < 20_000
    assert len(np.unique(double[-20_000:])) == 20_000
