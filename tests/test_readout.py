"""Readouts one by one: what each decodes, imposes, deconvolves and counts as a misfit. Shared laws: test_cells.py."""

import hashlib
import itertools
import json
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import READOUTS, named, stirred
from jax.test_util import check_grads

from dsrecon.evolve import Sequential, evolve
from dsrecon.modelfile import read_module, write_module
from dsrecon.models import ALRNN
from dsrecon.readout import (
    Forced,
    Forcing,
    GeneralisedReadout,
    HaemodynamicReadout,
    IdentityReadout,
    LinearReadout,
    check_counts,
    response,
)
from dsrecon.readout.haemodynamic import convolved, deconvolved, filled

KEY = jax.random.key(11)
FAMILIES = ("poisson", "gaussian", "bernoulli")


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def close(a, b, rtol=1e-11, atol=1e-12):
    # pseudo-inverses of stirred matrices: their condition (below 100) times some tens of rounding errors
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def observations(readout, steps):
    """Zeros and ones: a series that every family can hold."""
    return jnp.asarray(np.random.default_rng(3).integers(0, 2, (steps, readout.observed_size)), float)


# --- of every readout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", READOUTS, ids=named)
def test_gradients_of_the_misfit_are_finite_differences(row):
    readout = stirred(row.make(KEY))
    zs = jax.random.normal(KEY, (6, readout.state_size))
    xs = observations(readout, 6)
    free, fixed = eqx.partition(readout, eqx.is_inexact_array)

    @jax.jit
    def misfit(free, zs):
        return eqx.combine(free, fixed).misfit(zs, xs)

    check_grads(misfit, (free, zs), order=1, modes=("rev",))


@pytest.mark.parametrize("row", READOUTS, ids=named)
def test_single_precision_stays_and_is_near_double(row, rng):
    readout = stirred(row.make(KEY))
    zs, xs = rng.normal(size=(6, readout.state_size)), np.asarray(observations(readout, 6))
    mask = rng.random(xs.shape) < 0.7

    @eqx.filter_jit
    def outcomes(readout, zs, xs, mask):
        x = readout.targets(xs, mask)
        imposed = jax.vmap(readout.encode)(x, zs), jax.vmap(readout.encode)(x, zs, mask)
        return readout.start(x[0]), readout.decode(zs[0]), readout.observe(zs), x, imposed, readout.misfit(zs, xs)

    def cast(x):
        return jnp.asarray(x, jnp.float32) if eqx.is_inexact_array_like(x) and not isinstance(x, float) else x

    double = jax.tree.leaves(outcomes(readout, *map(jnp.asarray, (zs, xs, mask))))
    with jax.enable_x64(False):
        single = jax.tree.leaves(outcomes(jax.tree.map(cast, readout), cast(zs), cast(xs), jnp.asarray(mask)))
    for a, b in zip(double, single, strict=True):
        assert (a.dtype, b.dtype) == (jnp.float64, jnp.float32)
        close(a, b, rtol=1e-4, atol=1e-5)  # rounding of 6e-8 times the condition of B


@pytest.mark.parametrize("row", READOUTS, ids=named)
def test_a_readout_is_written_and_read(row, tmp_path):
    readout = row.make(KEY)
    write_module(tmp_path / "r", readout)
    back = read_module(tmp_path / "r", type(readout))
    assert eqx.tree_equal(back, readout)


def test_a_file_from_before_the_package_is_read(tmp_path):
    readout = IdentityReadout(2, 4, key=KEY)
    path = write_module(tmp_path / "r", readout)
    line, _, body = path.read_bytes().partition(b"\n")
    header = json.loads(line)
    assert header["tree"]["module"] == "dsrecon.readout.identity:IdentityReadout"
    header["tree"]["module"] = "dsrecon.readout:IdentityReadout"
    header["sha256"] = hashlib.sha256(json.dumps(header["tree"]).encode() + body).hexdigest()
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    assert eqx.tree_equal(read_module(path, IdentityReadout), readout)


# --- linear ----------------------------------------------------------------------------------------------


@cache
def new_linear(n, m):
    return LinearReadout(n, m, key=KEY)


def linear(n, m):
    return stirred(new_linear(n, m), seed=n + 10 * m + 2)


@pytest.mark.parametrize("n, m", [(3, 3), (2, 5), (4, 3)])
def test_an_observation_is_imposed_by_the_pseudo_inverse_of_the_observed_rows(n, m, rng):
    readout = linear(n, m)
    B, b = np.asarray(readout.B), np.asarray(readout.b)
    z, x = rng.normal(size=m), rng.normal(size=n)
    masks = np.array(list(itertools.product([False, True], repeat=n)))
    imposed = eqx.filter_jit(eqx.filter_vmap(readout.encode, in_axes=(None, None, 0)))(*map(jnp.asarray, (x, z, masks)))
    for mask, found in zip(masks, imposed, strict=True):
        inverse = np.linalg.pinv(np.where(mask[:, None], B, 0))
        close(found, z + inverse @ (x - B @ z - b))
        if mask.sum() <= m:
            close((B @ np.asarray(found) + b)[mask], x[mask])
        else:  # the least-squares fit: no direction is left in which the observed channels could come nearer
            close(B[mask].T @ (x - B @ np.asarray(found) - b)[mask], np.zeros(m))
    close(readout.encode(jnp.asarray(x), jnp.asarray(z)), imposed[-1])


def test_what_is_not_seen_is_left_alone(rng):
    readout = linear(2, 5)
    B = np.asarray(readout.B)
    hidden = np.eye(5) - np.linalg.pinv(B) @ B
    z, x = rng.normal(size=5), jnp.asarray(rng.normal(size=2))
    for mask in (None, jnp.array([True, False])):
        imposed = readout.encode(x, jnp.asarray(z), mask)
        close(hidden @ np.asarray(imposed), hidden @ z)
        assert np.abs(np.asarray(imposed) - z).max() > 0.1
    close(hidden @ np.asarray(readout.start(x)), hidden @ np.asarray(readout.L) @ np.asarray(x))


@pytest.mark.parametrize("n, m", [(3, 3), (4, 3)])
def test_as_many_channels_as_units_leave_no_start_to_learn(n, m, rng):
    readout = linear(n, m)
    assert readout.L is None
    x = rng.normal(size=n)
    close(readout.start(jnp.asarray(x)), np.linalg.pinv(readout.B) @ (x - np.asarray(readout.b)))


@pytest.mark.parametrize("n, m", [(2, 5), (3, 3), (4, 3)])
def test_a_new_readout_has_condition_one(n, m):
    B = new_linear(n, m).B
    close(np.linalg.svd(B, compute_uv=False), np.ones(min(n, m)))


def test_dependent_channels_get_the_least_squares_fit(rng):
    readout = linear(3, 5)
    readout = eqx.tree_at(lambda r: r.B, readout, readout.B.at[2].set(2 * readout.B[0]))
    z, x = rng.normal(size=5), rng.normal(size=3)
    B, b = np.asarray(readout.B), np.asarray(readout.b)
    wanted = z + np.linalg.pinv(B, rcond=1e-12) @ (x - B @ z - b)
    close(readout.encode(jnp.asarray(x), jnp.asarray(z)), wanted)
    close(readout.encode(jnp.asarray(x), jnp.asarray(z), jnp.ones(3, bool)), wanted)


@pytest.mark.parametrize(
    "n, m, mask",
    [
        (3, 5, None),
        (3, 5, (True, False, True)),
        (3, 3, (False, True, False)),
        (4, 3, (True, False, True, True)),
        (4, 3, (False, True, False, False)),
    ],
)
def test_gradients_flow_through_the_pseudo_inverse(n, m, mask, rng):
    readout = linear(n, m)
    z, x = jnp.asarray(rng.normal(size=m)), jnp.asarray(rng.normal(size=n))
    mask = None if mask is None else jnp.array(mask)

    @jax.jit
    def impose(B, b, z, x):
        return eqx.tree_at(lambda r: (r.B, r.b), readout, (B, b)).encode(x, z, mask)

    check_grads(impose, (readout.B, readout.b, z, x), order=1, modes=("rev",))


def test_a_forced_run_is_a_plain_loop(rng):
    cell, readout = stirred(ALRNN(5, 2, key=KEY)), linear(3, 5)
    xs, mask = rng.normal(size=(9, 3)), rng.random((9, 3)) < 0.6
    alpha, z0 = 0.4, rng.normal(size=5)
    forcing = Forcing(jnp.asarray(xs), jnp.full(9, alpha), None, jnp.asarray(mask))

    @eqx.filter_jit
    def run(model, adjoint):
        def loss(model):
            zs = evolve(model, jnp.asarray(z0), forcing, solver=Sequential(adjoint), throw=False).zs
            return (model.readout.observe(zs) ** 2).sum(), zs

        return eqx.filter_grad(loss, has_aux=True)(model)

    deferred, zs = run(Forced(cell, readout), "deferred")
    A, W, h, B, b = (np.asarray(v) for v in (cell.A, cell.W, cell.h, readout.B, readout.b))
    z = z0
    for x, seen, found in zip(xs, mask, zs, strict=True):
        z = z + alpha * np.linalg.pinv(np.where(seen[:, None], B, 0)) @ (x - B @ z - b)
        z = A * z + W @ np.where(np.arange(5) < 3, z, np.maximum(z, 0)) + h
        close(found, z)
    direct, _ = run(Forced(cell, readout), "direct")
    for a, b in zip(jax.tree.leaves(deferred), jax.tree.leaves(direct), strict=True):
        close(a, b, rtol=1e-9, atol=1e-10)


def test_the_pseudo_inverse_is_computed_once_a_run():
    cell, readout = ALRNN(5, 2, key=KEY), linear(3, 5)

    def loss(B):
        model = Forced(cell, eqx.tree_at(lambda r: r.B, readout, B))
        zs = evolve(model, jnp.ones((2, 5)), Forcing(jnp.ones((2, 30, 3)), jnp.full((2, 30), 0.1)), throw=False).zs
        return jnp.sum(zs**2)

    text = jax.jit(jax.grad(loss)).lower(jnp.eye(3, 5)).compile().as_text()
    holders, name = [], ""
    for line in text.splitlines():
        name = line.split("(")[0] if line.endswith("{") and not line.startswith(" ") else name
        holders += [name] if "custom-call" in line and "gesdd" in line else []
    assert holders and "while" in text
    assert all("ENTRY" in name for name in holders), holders


def test_an_ill_conditioned_readout_in_single_precision(float32):
    B = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 3)))[0].T
    B[2] = B[0] + 1e-2 * B[2]
    readout = LinearReadout(3, 4, key=KEY)
    readout = eqx.tree_at(lambda r: r.B, readout, jnp.asarray(B, jnp.float32))
    x, z = np.array([1.0, -1.0, 1.5], np.float32), np.ones(4, np.float32)
    masks = np.array([[True] * 3, [True, False, True], [False, True, True]])
    imposed = eqx.filter_jit(eqx.filter_vmap(readout.encode, in_axes=(None, None, 0)))(*map(jnp.asarray, (x, z, masks)))
    # condition 200: the rounding of 6e-8 of a state of size 100, and of B^+
    np.testing.assert_allclose((np.asarray(imposed) @ B.T)[masks], np.broadcast_to(x, (3, 3))[masks], atol=1e-3)


# --- generalised -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed():
    return stirred(GeneralisedReadout(FAMILIES, 4, key=KEY))


def eta_of(readout, zs):
    return np.asarray(zs) @ np.asarray(readout.linear.B).T + np.asarray(readout.linear.b)


def test_the_misfit_is_a_likelihood(mixed, rng):
    zs = jax.random.normal(KEY, (5, 4))
    xs = np.stack([rng.poisson(3, 5), rng.normal(size=5), rng.integers(0, 2, 5)], 1).astype(float)
    eta = eta_of(mixed, zs)
    mean = np.stack([np.exp(eta[:, 0]), eta[:, 1], 1 / (1 + np.exp(-eta[:, 2]))], 1)
    close(mixed.observe(zs), mean)
    close(mixed.decode(zs[0]), mean[0])
    nll = np.stack(
        [
            -scipy.stats.poisson.logpmf(xs[:, 0], mean[:, 0]) - scipy.special.gammaln(xs[:, 0] + 1),
            -scipy.stats.norm.logpdf(xs[:, 1], mean[:, 1]) - np.log(2 * np.pi) / 2,
            -scipy.stats.bernoulli.logpmf(xs[:, 2], mean[:, 2]),
        ],
        1,
    )
    close(mixed.misfit(zs, jnp.asarray(xs)), nll)


def test_what_is_imposed_is_the_link(mixed):
    xs = jnp.array([[0.0, -2.5, 0.0], [7.0, 3.0, 1.0]])
    found = mixed.targets(xs)
    close(found, [[np.log(0.5), -2.5, -np.log(3)], [np.log(7.5), 3.0, np.log(3)]])
    imposed = jax.jit(jax.vmap(lambda x, z: mixed.decode(mixed.encode(x, z))))(found, jnp.ones((2, 4)))
    close(imposed, [[0.5, -2.5, 0.25], [7.5, 3.0, 0.75]])
    # what stands in a missing entry plays no part, even where it has no logarithm
    mask = jnp.array([[False, True, True], [True, True, False]])
    assert jnp.isfinite(mixed.targets(xs.at[0, 0].set(-9.0).at[1, 2].set(5.0), mask)).all()
    close(mixed.targets(xs, mask)[mask], found[mask])


@eqx.filter_jit
def look(readout, zs):
    """What is expected, its misfit to ones, the gradient of that by the states, and a draw."""
    xs = jnp.ones((len(zs), readout.observed_size))
    gradient = jax.grad(lambda zs: readout.misfit(zs, xs).sum())(zs)
    return readout.observe(zs), readout.misfit(zs, xs), gradient, readout.sample(zs, key=KEY)


MANY = 20_000


def test_overflow_is_told_and_stays_in_its_channel(mixed):
    wild = eqx.tree_at(lambda r: r.linear.B, mixed, jnp.full((3, 4), 300.0))
    expected, misfit, _, draw = (np.asarray(v)[0] for v in look(wild, jnp.ones((MANY, 4))))
    assert expected[0] == misfit[0] == np.inf and np.isnan(draw[0])
    assert all(np.isfinite(v[1:]).all() for v in (expected, misfit, draw))
    # a large value in a channel that is no count is no overflow, in the gradient either
    calm = eqx.tree_at(lambda r: r.linear.B, wild, jnp.full((3, 4), 300.0).at[0].set(0.0))
    gradient = np.asarray(look(calm, jnp.ones((MANY, 4)))[2])
    assert np.isfinite(gradient).all() and gradient[0, 0] > 1e5


def test_samples_have_the_moments_of_their_family(mixed):
    z = jnp.array([0.3, -0.5, 1.0, 0.2])
    expected, _, _, draws = (np.asarray(v) for v in look(mixed, jnp.broadcast_to(z, (MANY, 4))))
    check_counts(draws, FAMILIES, ("a", "b", "c"))
    rate, _, p = expected[0]
    assert (draws[:, 1] == expected[:, 1]).all(), "the spread of a Gaussian channel is not fitted, so not drawn"
    counts, variance = draws[:, [0, 2]], np.array([rate, p * (1 - p)])
    # five standard errors of a mean; those of a variance follow from the fourth moments, here below 5 variance^2
    np.testing.assert_array_less(np.abs(counts.mean(0) - [rate, p]), 5 * np.sqrt(variance / MANY))
    np.testing.assert_allclose(counts.var(0), variance, rtol=5 * np.sqrt(4 / MANY))
    assert np.abs(np.corrcoef(counts.T) - np.eye(2)).max() < 5 / np.sqrt(MANY)


GOOD = np.array([[0.0, 0.5, 1.0], [np.nan, np.nan, np.nan], [12.0, -3.0, 0.0]])


@pytest.mark.parametrize(
    "row, channel, value, message",
    [
        (0, 0, -1.0, r"channel 'spikes' is 'poisson': row 0 must be a count \(0, 1, 2, \.\.\.\), got -1"),
        (2, 0, 1.5, r"channel 'spikes' is 'poisson': row 2 .* got 1\.5"),
        (2, 0, np.inf, r"channel 'spikes' .* row 2 .* got inf"),
        (2, 2, 2.0, r"channel 'awake' is 'bernoulli': row 2 must be 0 or 1, got 2"),
        (0, 1, np.inf, r"channel 'rate' is 'gaussian': row 0 must be finite, got inf"),
    ],
)
def test_wrong_counts_are_named(row, channel, value, message):
    names = ("spikes", "rate", "awake")
    check_counts(GOOD, FAMILIES, names)
    bad = GOOD.copy()
    bad[row, channel] = value
    with pytest.raises(ValueError, match=message):
        check_counts(bad, FAMILIES, names)


# --- haemodynamic ----------------------------------------------------------------------------------------


def haemodynamic(**options):
    return stirred(HaemodynamicReadout(2, 4, time_step=2.0, key=KEY, **options))


def test_the_response_is_the_canonical_one():
    h = response(2.0)
    assert len(h) == 17 and h[0] == 0 and h.sum() == pytest.approx(1, abs=1e-15)
    # as tabulated for SPM's parameters at a repetition time of 2 s
    table = [0, 0.0866, 0.3749, 0.3849, 0.2161, 0.0769, 0.0016, -0.0306, -0.0373, -0.0308, -0.0205, -0.0116]
    np.testing.assert_allclose(h[:12], table, atol=6e-5)
    fine = response(0.01)
    assert np.argmax(fine) * 0.01 == pytest.approx(5, abs=0.03)
    assert len(response(0.1, 3.2)) == 33 and len(response(0.7)) == 46


def test_what_is_observed_is_an_explicit_sum(rng):
    readout = haemodynamic()
    zs = rng.normal(size=(40, 4))
    B, b, h = np.asarray(readout.linear.B), np.asarray(readout.linear.b), response(2.0)
    assert readout.memory == 16
    wanted = [b + sum(h[k] * (B @ zs[max(t - k, 0)]) for k in range(17)) for t in range(40)]
    close(readout.observe(jnp.asarray(zs)), wanted)
    xs = rng.normal(size=(40, 2))
    close(readout.misfit(jnp.asarray(zs), jnp.asarray(xs)), (np.array(wanted) - xs) ** 2)
    close(readout.decode(jnp.asarray(zs[0])), B @ zs[0] + b)


@pytest.mark.parametrize("steps, k", [(60, 7), (45, 12), (5, 2)])
def test_a_cosine_is_filtered_in_closed_form(steps, k):
    # cosines about half samples are their own mirror images: one frequency of the doubled series
    ratio, h = 0.05, response(2.0)
    f = k / (2 * steps)
    H = (h * np.exp(-2j * np.pi * f * np.arange(17))).sum()
    gain = np.conj(H) / (abs(H) ** 2 + ratio)
    phase = 2 * np.pi * f * (np.arange(steps) + 0.5)
    found = deconvolved(jnp.asarray(3 + np.cos(phase))[:, None], h, ratio)[:, 0]
    close(found, 3 + abs(gain) * np.cos(phase + np.angle(gain)))


def test_deconvolving_undoes_the_convolution_of_what_is_smooth():
    time = 2.0 * np.arange(400)
    slow = np.stack([np.sin(time / 11) + 0.5 * np.cos(time / 17), 5 + np.sin(time / 23)], 1)
    h = response(2.0)
    xs = convolved(jnp.asarray(slow), h)
    lag = np.abs(np.asarray(xs) - slow)[40:-40].max()
    left = np.abs(np.asarray(deconvolved(xs, h, 1e-3)) - slow)[40:-40].max()
    # the fastest component has |H|^2 = .57: a noise ratio of 1e-3 takes 2e-3 of it, the borders as much again
    assert left < 5e-3 < 0.3 < lag
    close(deconvolved(jnp.full((30, 1), 4.2), h, 0.1), np.full((30, 1), 4.2))
    readout = HaemodynamicReadout(2, 4, time_step=2.0, noise_to_signal=1e-3, key=KEY)
    close(readout.targets(xs), deconvolved(xs, h, 1e-3))


def test_gaps_are_filled_linearly(rng):
    xs, mask = rng.normal(size=(20, 3)), rng.random((20, 3)) < 0.4
    mask[:4, 0], mask[-3:, 0], mask[:, 2] = False, False, False
    found = np.asarray(jax.jit(filled)(xs, mask))
    for i in range(2):
        close(found[:, i], np.interp(np.arange(20), np.flatnonzero(mask[:, i]), xs[mask[:, i], i]))
    assert np.array_equal(found[:, 2], xs[:, 2]) and np.array_equal(found[mask], xs[mask])
    readout = haemodynamic()
    targets = eqx.filter_jit(lambda xs, mask: readout.targets(xs, mask))
    seen, mask = xs[:, :2], mask[:, :2]
    once = targets(jnp.asarray(seen), jnp.asarray(mask))
    close(once, readout.targets(jnp.asarray(found[:, :2])))
    # what stands in a gap plays no part
    assert jnp.array_equal(targets(jnp.asarray(np.where(mask, seen, 1e9)), jnp.asarray(mask)), once)


def test_a_run_that_overflows_late_is_finite_before():
    found = convolved(jnp.ones((60, 1)).at[40:].set(jnp.inf), response(2.0))
    assert jnp.isfinite(found[:40]).all() and not jnp.isfinite(found[41:]).any()


# --- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LinearReadout(0, 3, key=KEY), r"observed_size must be at least 1: got 0\."),
        (lambda: LinearReadout(2, 0, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: GeneralisedReadout((), 3, key=KEY), r"families must name one family a channel: got none"),
        (
            lambda: GeneralisedReadout(("gaussian", "gamma"), 3, key=KEY),
            r"families must be among \('gaussian', .*\): got 'gamma' for channel 1\.",
        ),
        (lambda: GeneralisedReadout(("poisson",), 0, key=KEY), r"state_size must be at least 1: got 0\."),
        (
            lambda: HaemodynamicReadout(2, 3, time_step=7.0, key=KEY),
            r"time_step must be positive, at most 6 s .*time_step=7\.0 and length=32",
        ),
        (lambda: HaemodynamicReadout(2, 3, time_step=0.0, key=KEY), r"time_step must be positive"),
        (lambda: HaemodynamicReadout(2, 3, time_step=2.0, length=1.0, key=KEY), r"length=1\.0"),
        (
            lambda: HaemodynamicReadout(2, 3, time_step=2.0, noise_to_signal=0.0, key=KEY),
            r"noise_to_signal must be positive: got 0\.0",
        ),
        (
            lambda: check_counts(np.ones((4, 2)), ("poisson",), ("a", "b")),
            r"xs must have shape \[time, channel\].* got \(4, 2\), 1 families and 2 names",
        ),
        (lambda: check_counts(np.ones((4, 1)), ("count",), ("a",)), r"families .* got 'count' for channel 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
