"""The state-space cell: its equations, an S5 layer when driven by data, a linear map when its readout is linear."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import dsrecon
from dsrecon.cell import check_linearise
from dsrecon.evolve import evolve
from dsrecon.measures import lyapunov_spectrum
from dsrecon.models.s5 import S5
from dsrecon.models.ssmcell import StateSpaceCell
from dsrecon.newton import Newton
from dsrecon.readout import Forced, Forcing, IdentityReadout

KEY = jax.random.key(4)
RNG = np.random.default_rng(8)
U = jnp.asarray(RNG.normal(size=(40, 2)))
T = np.arange(300) * 0.2
SERIES = 0.3 * np.stack([np.sin(T), np.cos(1.1 * T)], axis=1) + RNG.normal(size=(300, 2))
"""Mostly noise: what little is learned of it in a short fit stays within its range."""


def filled(make, seed=0):
    """What `make` makes, with random numbers for its start values: nothing is compiled, and no zero hides a mistake."""
    rng, made = np.random.default_rng(seed), eqx.filter_eval_shape(make)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 2), made)


def made(*sizes, seed=0, **options):
    return filled(lambda: StateSpaceCell(*sizes, key=KEY, **options), seed)


def driven(cell, u, h0=None, alpha=1.0, **options):
    """States `[t, m]` along the data `u` as they are forced, from the memory `h0`."""
    h0 = jnp.zeros(cell.memory_size, u.dtype) if h0 is None else h0
    readout = IdentityReadout(cell.observed_size, cell.state_size, key=KEY)
    pull = Forcing(u, jnp.full(len(u), alpha, u.dtype))
    return evolve(Forced(cell, readout), jnp.concatenate([u[0], h0]), pull, **options)


def by_hand(c, z, s):
    """Mode by mode in complex numbers."""
    n, k = c.observed_size, c.memory_size // 2
    u, h = np.concatenate([z[:n], s]), z[n : n + k] + 1j * z[n + k :]
    after = []
    for j in range(k):
        p, d = -np.exp(c.log_decay[j]) + 1j * c.frequency[j], np.exp(c.log_step[j])
        after.append(np.exp(d * p) * h[j] + (np.exp(d * p) - 1) / p * ((c.B[0, j] + 1j * c.B[1, j]) @ u))
    y = np.concatenate([u, np.real(after), np.imag(after)])
    for W, b in zip(c.W[:-1], c.b[:-1], strict=True):
        y = np.tanh(W @ y + b)
    return np.concatenate([z[:n] + c.W[-1] @ y + c.b[-1], np.real(after), np.imag(after)])


@pytest.mark.parametrize("hidden, depth", [(0, 1), (3, 1), (3, 2)])
def test_equations_by_hand(hidden, depth):
    cell, z, s = made(2, 4, hidden, depth, input_size=3), RNG.normal(size=6), RNG.normal(size=3)
    both = eqx.filter_jit(lambda z, s: (cell(z, s), cell(z)))(jnp.asarray(z), jnp.asarray(s))
    for found, by in zip(both, (s, 0 * s), strict=True):
        np.testing.assert_allclose(found, by_hand(jax.tree.map(np.asarray, cell), z, by), rtol=1e-12, atol=1e-14)
    check_linearise(cell, jnp.asarray(z), jnp.asarray(s))
    assert [w.shape for w in cell.W] == ([(3, 9)] + [(3, 3)] * (depth - 1) + [(2, 3)] if hidden else [(2, 9)])


def test_the_memory_is_the_solution_of_its_equation_with_data_held_over_a_step():
    # exp of the system with its input as a further, constant state: no division by a pole
    cell = made(2, 6, 0)
    A, B = (np.asarray(x) for x in cell.discrete())
    poles, d, (B_re, B_im) = np.asarray(cell.poles), np.exp(np.asarray(cell.log_step)), np.asarray(cell.B)
    for j in range(3):
        system = np.zeros((3, 3), complex)
        system[0] = poles[j], *(B_re[j] + 1j * B_im[j])
        row = scipy.linalg.expm(d[j] * system)[0]
        np.testing.assert_allclose(A[:, :, j], [[row[0].real, -row[0].imag], [row[0].imag, row[0].real]], rtol=1e-12)
        np.testing.assert_allclose(B[[j, 3 + j]], [row[1:].real, row[1:].imag], rtol=1e-11, atol=1e-14)
    assert (np.abs(np.exp(d * poles)) < 1).all() and (cell.poles.real < 0).all()


def test_driven_by_data_it_is_an_s5_layer():
    layer = filled(lambda: S5(2, 6, key=KEY))
    # x' = x + g([x, h']) with g = 2 Re C h' + (D - 1) x: what the layer shows of the data up to x
    W = jnp.concatenate([jnp.diag(layer.D - 1), 2 * layer.C[0], -2 * layer.C[1]], 1)
    where = lambda c: (c.log_decay, c.frequency, c.B, c.log_step, c.W, c.b)  # noqa: E731
    fields = (layer.log_decay, layer.frequency, layer.B, layer.log_step, (W,), (jnp.zeros(2),))
    cell = eqx.tree_at(where, made(2, 6, 0), fields)
    zs = driven(cell, U).zs
    np.testing.assert_allclose(zs[:, 2:], evolve(layer.cell(), jnp.zeros(6), U).zs, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(zs[:, :2], layer(U), rtol=1e-11, atol=1e-12)
    # a nonlinear readout of the same memory
    bent = eqx.tree_at(where, made(2, 6, 3), (*fields[:4], *(lambda c: (c.W, c.b))(made(2, 6, 3))))
    np.testing.assert_allclose(driven(bent, U).zs[:, 2:], zs[:, 2:], rtol=1e-12)
    assert not np.allclose(driven(bent, U).zs[:, :2], zs[:, :2])
    # and with the prediction fed back it is none
    assert not np.allclose(driven(cell, U, alpha=0.5).zs[:, 2:], zs[:, 2:])


def test_driven_by_data_it_forgets_at_rates_of_its_own():
    cell = made(2, 4, 3)
    x = np.exp(np.asarray(cell.log_step)) * np.asarray(cell.poles)
    rates = np.sort(np.repeat(x.real, 2))[::-1]
    steps = 2000
    u = jnp.asarray(RNG.normal(size=(steps, 2)))
    forced = Forced(cell, IdentityReadout(2, 6, key=KEY))
    found = lyapunov_spectrum(forced, jnp.ones(6), Forcing(u, jnp.ones(steps)), steps=steps, discard=0, every=1)
    # what the frame has to turn at first counts for 1 / steps
    np.testing.assert_allclose(found[:4], rates, rtol=1e-2, atol=1e-2)
    assert (found[4:] < -10).all()
    # whatever the data: the difference of two memories, mode by mode
    h0 = jnp.asarray(RNG.normal(size=4))
    left = (driven(cell, U, h0).zs - driven(cell, U).zs)[:, 2:]
    wanted = np.exp(x)[None] ** np.arange(1, len(U) + 1)[:, None] * (np.asarray(h0[:2]) + 1j * np.asarray(h0[2:]))[None]
    np.testing.assert_allclose(left, np.concatenate([wanted.real, wanted.imag], 1), atol=1e-12)


def test_driven_by_data_all_steps_are_two_iterations():
    cell, u = made(2, 4, 3), jnp.asarray(RNG.normal(size=(400, 2)))
    found = driven(cell, u, solver=Newton())
    assert int(found.stats["iterations"]) <= 2
    np.testing.assert_allclose(found.zs, driven(cell, u).zs, rtol=1e-9, atol=1e-9)
    assert int(driven(cell, u, alpha=0.2, solver=Newton(), throw=False).stats["iterations"]) > 2


def test_a_linear_readout_makes_a_linear_map():
    start = made(2, 6, 0)
    # so far down that it stays bounded: what is stable is not the point here
    cell = eqx.tree_at(lambda c: c.W, start, (start.W[0] - 1.2 * jnp.eye(2, 8),))
    z = jnp.asarray(RNG.normal(size=(5, 8)) * 10.0 ** np.arange(-2, 3)[:, None])
    values, slopes = (np.asarray(v) for v in eqx.filter_jit(lambda z: jax.vmap(cell.linearise)(z))(z))
    assert np.array_equal(slopes, np.broadcast_to(slopes[0], slopes.shape))
    J, shift = slopes[0], np.asarray(cell(jnp.zeros(8)))
    np.testing.assert_allclose(values, np.asarray(z) @ J.T + shift, rtol=1e-12, atol=1e-12)
    # nothing that it does is chaos: the same exponents from every start, those of the matrix
    wanted = np.sort(np.log(np.abs(np.linalg.eigvals(J))))[::-1]
    assert wanted[0] < 0
    for z0 in z[::4]:
        found = lyapunov_spectrum(cell, z0, steps=4000, every=1)
        # conjugate pairs turn in the frame: what is left of a turn counts for 1 / steps
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    rest = np.linalg.solve(np.eye(8) - J, shift)
    np.testing.assert_allclose(evolve(cell, z[0], steps=4000).zs[-1], rest, rtol=1e-9)


def test_the_exponents_of_a_growing_linear_readout_are_those_of_its_matrix_too():
    cell = eqx.tree_at(lambda c: c.b, made(2, 6, 0), (jnp.zeros(2),))
    largest = np.log(np.abs(np.linalg.eigvals(cell.linearise(jnp.zeros(8))[1]))).max()
    found = lyapunov_spectrum(cell, jnp.zeros(8), steps=4000, every=1, count=2)
    np.testing.assert_allclose(found[0], largest, atol=2e-3)
    assert largest > 0  # a run from elsewhere leaves for good


def test_a_bent_readout_grows_by_no_more_than_its_last_layer():
    cell = made(2, 4, 3)
    z = jnp.asarray(1e3 * RNG.normal(size=(50, 6)))
    bound = np.abs(cell.W[-1]).sum(1) + np.abs(cell.b[-1])
    linearise = eqx.filter_jit(lambda z: jax.vmap(cell.linearise)(z))
    assert (np.abs(linearise(z)[0] - z)[:, :2] <= bound[None] + 1e-9).all()  # rounding of 1e3
    slopes = linearise(z / 1e3)[1]
    assert not np.allclose(slopes[0][:2], slopes[1][:2]) and np.array_equal(slopes[0][2:], slopes[1][2:])


def test_start_values():
    cell = eqx.filter_jit(lambda: StateSpaceCell(3, 32, 200, 2, input_size=1, step_min=0.02, step_max=0.5, key=KEY))()
    assert cell.state_size == 35 and cell.poles.shape == (16,)
    np.testing.assert_allclose(cell.poles.real, -0.5)
    assert len(np.unique(np.round(cell.poles.imag, 6))) == 16
    steps = np.exp(cell.log_step)
    assert steps.min() >= 0.02 and steps.max() <= 0.5 and steps.max() / steps.min() > 3
    assert abs(float(jnp.mean(jnp.sum(cell.B**2, (0, 2)))) - 1) < 0.3  # 128 draws
    assert all(np.abs(w).max() <= w.shape[1] ** -0.5 for w in cell.W) and (cell.b[-1] == 0).all()


def test_a_reconstruction_out_of_the_box(tmp_path, optimiser_promotion):
    drive = np.cos(T)[:, None]
    model = dsrecon.reconstruct(
        SERIES,
        lambda key: StateSpaceCell(2, 4, 6, input_size=1, step_min=0.2, key=key),
        inputs=drive,
        runs=2, steps=300, length=10, alpha=1.0, evaluations=2, time_step=0.2, progress=False,
    )  # fmt: skip
    assert isinstance(model.readout, IdentityReadout) and model.readout.state_size == 6
    loss = np.asarray(model.course["loss"])
    assert loss[-10:].mean() < loss[:10].mean()
    loaded = dsrecon.load(model.save(tmp_path / "model"))
    assert isinstance(loaded.cell, StateSpaceCell) and len(loaded.cell.W) == 2
    for a, b in zip(jax.tree.leaves(model.cell), jax.tree.leaves(loaded.cell), strict=True):
        assert np.array_equal(a, b)
    runs = [np.asarray(m.simulate(20, inputs=drive[:20])) for m in (model, loaded)]
    assert np.array_equal(*runs) and np.isfinite(runs[0]).all()


def test_single_precision(float32):
    shapes = jax.tree.leaves(eqx.filter_eval_shape(lambda: StateSpaceCell(2, 4, 3, key=KEY)))
    assert all(x.dtype == jnp.float32 for x in shapes)
    cell = made(2, 4, 3)
    u = jnp.asarray(np.asarray(U), jnp.float32)
    zs = driven(cell, u).zs
    assert zs.dtype == jnp.float32
    wide = jax.tree.map(lambda x: np.asarray(x, float), cell)
    z = np.concatenate([U[0], np.zeros(4)])
    for x, found in zip(np.asarray(U), zs, strict=True):
        z = by_hand(wide, np.concatenate([x, z[2:]]), np.zeros(0))
        np.testing.assert_allclose(found, z, rtol=1e-4, atol=1e-5)  # the memory adds up 40 roundings


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(observed_size=0), r"observed_size must be at least 1: got 0\."),
        (dict(memory_size=0), r"memory_size must be at least 1: got 0\."),
        (dict(memory_size=5), r"memory_size must be even.*got 5\."),
        (dict(hidden_size=-1), r"hidden_size must be at least 0.*got -1\."),
        (dict(depth=0), r"depth must be at least 1: got 0\."),
        (dict(input_size=-2), r"input_size must be at least 0: got -2\."),
        (dict(step_min=0.0), r"steps must be positive.*got 0\.0 and 1\.0\."),
        (dict(step_min=0.5, step_max=0.1), r"step_min at most step_max: got 0\.5 and 0\.1\."),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StateSpaceCell(**{"observed_size": 2, **options}, key=KEY)
