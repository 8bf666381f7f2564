"""Laws of sequence layers: one system, whichever face it shows."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAYERS, instance, named

from dsrecon.cell import as_matrix, check_linearise
from dsrecon.evolve import evolve
from dsrecon.layer import Timed, steps_between, stepwise
from dsrecon.models import LMU, LRU, LSSL, S4, S4D, S5
from dsrecon.models.hippo import hippo_system, normal_plus_low_rank
from dsrecon.systems import respond

SLOW = {
    "s4d-legs-bilinear",
    "s4d-inv",
    "s4-legt",
    "s5-bilinear",
    "lssl-fourier",
    "lssl-hold",
    "lssl-trained-backward",
    "lmu-wide",
}
"""Near relations of other rows."""


def rows(*names, **wanted):
    """Rows as parameters, those with these features: near relations, and all that are not of these names, are slow."""
    quick = set(names) or {row.name for row in LAYERS} - SLOW
    return [
        pytest.param(row, marks=() if row.name in quick else pytest.mark.slow, id=row.name)
        for row in LAYERS
        if all(bool(getattr(row, k)) == v for k, v in wanted.items())
    ]


run = eqx.filter_jit(lambda layer, u, dt=1.0: layer(u, dt))
step_by_step = eqx.filter_jit(stepwise)
layer_of = instance


def sequence(length, seed=0, width=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(length, width)))


def steps_of(length, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(0.4, 2.0, length))


def close(a, b, tolerance=1e-9):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize("length", [37, 150])  # by products with Toeplitz matrices, and by transforms
@pytest.mark.parametrize("row", rows())
def test_parallel_is_stepwise(row, length):
    layer, u = layer_of(row), sequence(length)
    close(run(layer, u), step_by_step(layer, u))


@pytest.mark.parametrize("row", [row for row in LAYERS if row.name in ("s4", "s4d", "s5", "lssl", "lmu")], ids=named)
def test_a_sequence_of_one_step(row):
    layer, u = layer_of(row), sequence(1)
    close(run(layer, u), step_by_step(layer, u))


@pytest.mark.parametrize("row", rows())
def test_parallel_is_explicit_powers(row):
    layer, u = layer_of(row), sequence(23)
    zero = jnp.zeros(layer.state_size)
    cell = eqx.filter_jit(lambda layer: layer.cell())(layer)
    A, terms = (np.asarray(x) for x in _matrix_and_terms(cell, zero, u))
    powers = [np.linalg.matrix_power(A, k) for k in range(len(u))]
    states = np.stack([sum(powers[k] @ terms[t - k] for k in range(t + 1)) for t in range(len(u))])
    close(run(layer, u), jax.vmap(cell.output)(jnp.asarray(states), u))


@eqx.filter_jit
def _matrix_and_terms(cell, zero, u):
    return as_matrix(cell.linearise(zero, u[0])[1]), jax.vmap(lambda s: cell(zero, s))(u)


@pytest.mark.parametrize("row", rows("s4d", "s4", "s5", "lssl-trained", "lmu"))
def test_gradients_of_the_faces_agree(row):
    layer, u = layer_of(row), sequence(140)
    w = sequence(140, 1)

    def value(face):
        return lambda both: jnp.sum(w * face(*both))

    parallel = eqx.filter_jit(eqx.filter_grad(value(lambda layer, u: layer(u))))((layer, u))
    stepped = eqx.filter_jit(eqx.filter_grad(value(stepwise)))((layer, u))
    for a, b in zip(jax.tree.leaves(parallel), jax.tree.leaves(stepped), strict=True):
        close(a, b, 1e-8)


@pytest.mark.parametrize("row", rows(timed=True))
def test_steps_of_many_lengths(row):
    layer, u, dt = layer_of(row), sequence(19), steps_of(19)

    def step(z, s):
        cell = layer.cell(s.dt)  # discretised anew, where the layer itself may know better
        z = cell(z, s.u)
        return z, cell.output(z, s.u)

    wanted = eqx.filter_jit(lambda: jax.lax.scan(step, jnp.zeros(layer.state_size), Timed(u, dt))[1])()
    close(run(layer, u, dt), wanted)
    close(run(layer, u, jnp.full(19, 1.7)), run(layer, u, jnp.asarray(1.7)))


solved = functools.partial(respond, rtol=1e-11, atol=1e-13, solver=diffrax.Tsit5())  # which compiles fast


@pytest.mark.parametrize("row", rows(exact=True))
def test_held_input_is_the_differential_equation(row):
    layer, u, dt = layer_of(row), sequence(12), steps_of(12)
    times = np.cumsum(np.asarray(dt))
    close(solved(layer, times, u, first=float(dt[0])), run(layer, u, dt), 1e-8)
    close(solved(layer, np.arange(1.0, 13.0), u), run(layer, u), 1e-8)


@pytest.mark.parametrize("row", rows(order=True))
def test_the_order_of_convergence(row):
    """Over 8 units of time, the input held over whole units: the error falls by `2^order` when steps are halved."""
    layer, u = layer_of(row), sequence(8)
    exact = solved(layer, np.arange(1.0, 9.0), u)
    many = [16, 32] if row.order == 2 else [256, 512]  # where the leading term leads
    errors = [
        float(jnp.abs(run(layer, jnp.repeat(u, n, 0), jnp.asarray(1 / n))[n - 1 :: n] - exact).max()) for n in many
    ]
    assert errors[0] > 1e-10
    assert np.log2(errors[0] / errors[1]) == pytest.approx(row.order, abs=0.2)


@pytest.mark.parametrize("row", rows(exact=True))
def test_another_rate_is_another_step(row):
    """Held input sampled twice as often, at half the step, is the same input: not to the step, to rounding."""
    layer, u = layer_of(row), sequence(30)
    twice = jnp.repeat(u, 2, 0)
    close(run(layer, twice, jnp.asarray(0.5))[1::2], run(layer, u, jnp.asarray(1.0)))
    close(run(layer, u, jnp.asarray(2.0)), run(layer, twice, jnp.asarray(1.0))[1::2])


@pytest.mark.parametrize("row", rows("s4", "s5", "lmu"))
def test_the_future_is_not_seen_and_a_call_changes_nothing(row):
    layer, u = layer_of(row), sequence(131)
    before = [np.array(x) for x in jax.tree.leaves(eqx.filter(layer, eqx.is_array))]
    close(run(layer, u)[:57], run(layer, u[:57]))
    after = jax.tree.leaves(eqx.filter(layer, eqx.is_array))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("row", rows("s4d", "s4", "lmu"))
def test_the_cell_declares_its_jacobian(row):
    layer, u = layer_of(row), sequence(3)
    z = jnp.asarray(np.random.default_rng(1).normal(size=(3, layer.state_size)))
    check_linearise(layer.cell(), z, u)
    if row.timed:
        check_linearise(layer.cell(None), z, Timed(u, steps_of(3)))
    assert evolve(layer.cell(), z[0], u).zs.shape == (3, layer.state_size)


@pytest.mark.parametrize("row", rows("s4d", "s4", "s5"))
def test_single_precision(row, float32):
    layer = eqx.filter_jit(row.make)(jax.random.key(0))
    u = jnp.asarray(np.random.default_rng(0).normal(size=(200, 3)), "float32")
    found = run(layer, u)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, step_by_step(layer, u), atol=1e-4)  # S4: eps^(2/3), of a kernel of some units


@pytest.mark.parametrize("row", rows("s4d", "s4"))
def test_a_batch_of_them(row):
    layer, u = layer_of(row), jnp.stack([sequence(20, i) for i in range(3)])
    both = jax.jit(jax.vmap(layer))(u)
    close(both[1], run(layer, u[1]))
    keys = jax.random.split(jax.random.key(3), 2)
    many = eqx.filter_jit(eqx.filter_vmap(row.make))(keys)
    alone = eqx.filter_jit(row.make)(keys[1])
    close(eqx.filter_jit(eqx.filter_vmap(lambda layer: layer(u[0])))(many)[1], run(alone, u[0]))


def test_s4_is_the_dense_system_that_it_represents():
    form, n = normal_plus_low_rank("legs", 16), 16
    C = np.random.default_rng(0).normal(size=(2, n))
    dense = LSSL(2, n, key=jax.random.key(0))
    dense = eqx.tree_at(lambda l: l.C, dense, jnp.asarray(C))
    half = C @ form.V
    fast = S4(2, n, key=jax.random.key(1))
    fast = eqx.tree_at(lambda l: (l.C, l.log_step), fast, (jnp.asarray([half.real, half.imag]), dense.log_step))
    kernel = eqx.filter_jit(lambda layer: layer.kernel(300))
    close(kernel(fast), kernel(dense))


@pytest.mark.parametrize("measure", ["legs", "lagt", "legt"])
def test_the_structured_matrix_holds_hippo(measure):
    A = hippo_system(measure, 9).A
    matrix = LSSL(1, 9, measure=measure, trainable=True, key=jax.random.key(0)).matrix
    close(matrix.dense(), A, 1e-12)
    y = sequence(9, 4)
    close(matrix.times(y), A @ np.asarray(y), 1e-12)
    close(matrix.solve(jnp.asarray(0.3), y), np.linalg.solve(np.eye(9) - 0.3 * A, np.asarray(y)), 1e-12)


def test_s5_starts_in_the_basis_of_legs():
    """With one channel and `C` of the basis, `B` and `C` are real vectors seen from the eigenvectors: their moments."""
    layer = S5(2, 8, key=jax.random.key(0))
    V = normal_plus_low_rank("legs", 8).V
    B = V @ (np.asarray(layer.B[0]) + 1j * np.asarray(layer.B[1]))
    assert np.abs((B + B.conj()).imag).max() < 1e-12
    assert np.linalg.matrix_rank(np.real(B + B.conj())) == 2


def test_lru_starts_on_its_ring_with_states_of_variance_one():
    layer = LRU(2, 200, radius_min=0.8, radius_max=0.99, key=jax.random.key(0))
    size = np.abs(layer.slopes)
    assert (size >= 0.8).all() and (size <= 0.99).all()
    np.testing.assert_allclose(np.exp(layer.log_gain), np.sqrt(1 - size**2), rtol=1e-12)
    cell = layer.cell()
    z = evolve(cell, jnp.zeros(400), sequence(4000, width=2)).zs[1000:]
    assert float(jnp.mean(z**2) * 2) == pytest.approx(1.0, rel=0.1)  # 4,000 samples, correlated over hundreds


def test_the_layer_at_any_times():
    """Solved between the samples, and with an input that is a line between them."""
    layer = S4D(1, 2, key=jax.random.key(0))
    u = jnp.asarray([[1.0], [3.0]])
    at = np.array([0.25, 1.0, 1.5, 2.0])
    held = solved(layer, np.array([1.0, 2.0]), u, at)
    p, c, d = complex(layer.poles[0, 0]), complex(layer.C[0, 0, 0], layer.C[1, 0, 0]), float(jnp.exp(layer.log_step)[0])
    x, out = 0j, []
    for t in at:  # x' = d (p x + u)
        first = (np.exp(d * p * min(t, 1.0)) - 1) / p
        x = first if t <= 1 else np.exp(d * p * (t - 1)) * first + 3 * (np.exp(d * p * (t - 1)) - 1) / p
        out.append(2 * (c * x).real + float(layer.D[0]) * (1.0 if t <= 1 else 3.0))
    np.testing.assert_allclose(held[:, 0], out, atol=1e-9)
    line = solved(layer, np.arange(1.0, 41.0) / 20, jnp.linspace(0.05, 2.0, 40)[:, None], hold="linear")
    fine = run(layer, jnp.linspace(0.0005, 2.0, 4000)[:, None], jnp.asarray(1 / 2000))
    np.testing.assert_allclose(line[-1], fine[-1], atol=2e-3)  # both near; the first held stair differs by 1/40


BAD = {
    "integers": (lambda l: l(jnp.ones((4, 3), int)), "u must be real floating point: got int64"),
    "width": (lambda l: l(jnp.ones((4, 2))), r"u must have shape \[t, 3\], one row a step: got \[4, 2\]"),
    "empty": (lambda l: l(jnp.ones((0, 3))), r"got \[0, 3\]"),
    "zero": (lambda l: l(jnp.ones((4, 3)), 0.0), "dt must be positive and finite: got 0.0"),
    "negative": (lambda l: l(jnp.ones((4, 3)), jnp.array([1.0, 1.0, -2.0, 1.0])), "got -2.0"),
    "infinite": (lambda l: l.cell(float("inf")), "dt must be positive and finite: got inf"),
    "number of steps": (lambda l: l(jnp.ones((4, 3)), jnp.ones(3)), r"one a sample, \[4\]: got shape \[3\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sequences_are_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(S4D(3, 4, key=jax.random.key(0)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda k: S4D(3, 0, key=k), "state_size must be at least 1: got 0"),
        (lambda k: S4D(3, 5, key=k), "state_size must be even, its states come in conjugate pairs: got 5"),
        (lambda k: S4(3, 7, key=k), "state_size must be even"),
        (lambda k: S4D(0, 4, key=k), "width must be at least 1: got 0"),
        (lambda k: S4D(3, 4, init="best", key=k), "init must be one of .*: got 'best'"),
        (lambda k: S4D(3, 4, step_min=0.0, key=k), "steps must be positive, step_min at most step_max: got 0.0"),
        (lambda k: S5(3, 12, blocks=4, key=k), "an even number times blocks, 4: got 12"),
        (lambda k: LSSL(3, 4, step_max=1e-4, key=k), "step_min at most step_max: got 0.001 and 0.0001"),
        (
            lambda k: LSSL(3, 4, measure="fourier", trainable=True, key=k),
            "which have a tridiagonal form: got 'fourier'",
        ),
        (lambda k: LMU(3, 4, window=0.0, key=k), "window must be positive and finite, in steps: got 0.0"),
        (lambda k: LRU(3, 4, radius_max=1.0, key=k), "radius_min < radius_max < 1: got 0.9 and 1.0"),
        (lambda k: LRU(3, 4, key=k)(jnp.ones((4, 3)), 2.0), "dt must be 1: an LRU has no time between its steps"),
        (lambda k: LRU(3, 4, key=k).cell(None), "dt must be 1"),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(jax.random.key(0))


@pytest.mark.parametrize(
    "times, message",
    [
        ([0.0, 2.0, 1.0], "times must increase: got 2.0 and then 1.0, at 1 and 2"),
        ([0.0, 0.0], "times must increase: got 0.0 and then 0.0, at 0 and 1"),
        ([0.0, np.nan], "times must increase"),
        ([0.0], "at least 2"),
    ],
)
def test_times_must_increase(times, message):
    with pytest.raises(ValueError, match=message):
        steps_between(np.array(times))
    with pytest.raises(ValueError, match=message):
        respond(S4D(1, 2, key=jax.random.key(0)), np.array(times), jnp.ones((len(times), 1)))


def test_steps_between_times():
    np.testing.assert_allclose(steps_between(np.array([1.0, 1.5, 3.0])), [1.0, 0.5, 1.5])
    np.testing.assert_allclose(steps_between(np.array([1.0, 1.5]), first=1.0), [1.0, 0.5])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(u=jnp.ones((3, 1))), "u must have a row for each of the 2 times: got 3"),
        (dict(at=np.array([0.5, 3.0])), "at must lie between 0 and 2: got 0.5 to 3"),
        (dict(at=np.array([1.5, 1.0])), "at must be .*increasing"),
        (dict(u=jnp.array([[1.0], [jnp.inf]])), "u must be finite"),
    ],
)
def test_bad_questions_to_the_continuous_face(change, message):
    given = {"times": np.array([1.0, 2.0]), "u": jnp.ones((2, 1))} | change
    with pytest.raises(ValueError, match=message):
        respond(S4D(1, 2, key=jax.random.key(0)), given["times"], given["u"], given.get("at"))


def test_steps_may_be_traced():
    layer, u = S4D(3, 4, key=jax.random.key(0)), sequence(9)
    close(jax.jit(lambda dt: layer(u, dt))(jnp.asarray(1.3)), layer(u, 1.3))
    slope = jax.grad(lambda dt: jnp.sum(layer(u, dt)))(jnp.asarray(1.3))
    h = 1e-6
    assert float(slope) == pytest.approx(float(jnp.sum(layer(u, 1.3 + h) - layer(u, 1.3 - h)) / (2 * h)), rel=1e-6)
