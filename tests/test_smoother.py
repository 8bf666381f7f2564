"""`damped_scan` against the least-squares problem that it solves, its limits, and what float32 leaves of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.kernels import damped_scan

SHAPES = {"scalar": (), "diagonal": (6,), "blocks": (2, 2, 3), "dense": (2, 2), "large": (6, 6)}
"""Structure to the shape of the slopes of one step; `large` is above what is written out."""

ENGINES = ("sequential", "chunked")


def problem(shape, t=64, seed=0, spread=1.0):
    """Slopes, right-hand sides, start and guess: expanding and contracting steps alike."""
    rng, m = np.random.default_rng(seed), {0: 2, 3: shape[0] * shape[-1] if shape else 0}.get(len(shape)) or shape[-1]
    a = spread * rng.normal(size=(t, *shape))
    return a, rng.normal(size=(t, m)), rng.normal(size=m), rng.normal(size=(t, m))


def matrices(a, m):
    """The slopes as `[t, m, m]`."""
    if a.ndim == 1:
        return a[:, None, None] * np.eye(m)
    if a.ndim == 2:
        return a[:, :, None] * np.eye(m)
    if a.ndim == 3:
        return a
    t, _, _, k = a.shape
    return np.einsum("tijk,kl->tikjl", a, np.eye(k)).reshape(t, m, m)


def minimiser(a, b, h0, g, w):
    """By the normal equations of the whole sequence, in dense matrices."""
    t, m = b.shape
    A = matrices(a, m)
    L = np.eye(t * m)
    for i in range(1, t):
        L[i * m : (i + 1) * m, (i - 1) * m : i * m] = -A[i]
    first = b.copy()
    first[0] += A[0] @ h0
    return np.linalg.solve(L.T @ L + w * np.eye(t * m), L.T @ first.ravel() + w * g.ravel()).reshape(t, m)


def loop(a, b, h0):
    A, h, found = matrices(a, b.shape[1]), h0, []
    for t in range(len(b)):
        h = A[t] @ h + b[t]
        found.append(h)
    return np.stack(found)


damped = jax.jit(damped_scan, static_argnames="engine")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("structure", SHAPES)
def test_it_is_the_minimiser(structure, engine):
    given = problem(SHAPES[structure])
    for w in (1e-2, 1.0, 30.0):
        np.testing.assert_allclose(damped(*given, w, engine=engine), minimiser(*given, w), rtol=1e-10, atol=1e-10)


def test_it_is_the_minimiser_of_a_lorenz_sized_problem():
    given = problem((3, 3))
    np.testing.assert_allclose(damped(*given, 0.1, engine="sequential"), minimiser(*given, 0.1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [1, 2, 7])
def test_short_sequences(t):
    given = problem((3,), t)
    np.testing.assert_allclose(damped(*given, 0.3), minimiser(*given, 0.3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", SHAPES)
def test_without_damping_it_is_the_recurrence(structure):
    a, b, h0, g = problem(SHAPES[structure], spread=0.4)  # bounded: an expanding loop would compare rounding
    wanted = loop(a, b, h0)
    np.testing.assert_allclose(damped(a, b, h0, g, 0.0, engine="sequential"), wanted, rtol=1e-12, atol=1e-12)
    # and approaches it: the difference is of order w
    near, nearer = (damped(a, b, h0, g, w, engine="sequential") - wanted for w in (1e-6, 1e-7))
    np.testing.assert_allclose(near, 10 * nearer, atol=5e-3 * np.abs(near).max())


@pytest.mark.parametrize("structure", ["diagonal", "blocks", "dense"])
def test_strong_damping_returns_the_guess(structure):
    a, b, h0, g = problem(SHAPES[structure])
    # h - g = L' r / w to first order, with r the defect of the guess and both below some tens
    far = damped(a, b, h0, g, 1e12, engine="sequential")
    np.testing.assert_allclose(far, g, atol=1e-9)
    assert np.abs(far - g).max() > 1e-14


@pytest.mark.parametrize("w", [0.0, 1e-3, 1.0])
def test_a_guess_that_obeys_the_recurrence_stays(w):
    """To the last bit, where the defect is computed exactly: small integers."""
    rng = np.random.default_rng(0)
    a, h0 = rng.integers(-2, 3, (20, 3)).astype(float), np.ones(3)
    h = rng.integers(-9, 9, (20, 3)).astype(float)
    b = h - a * np.concatenate([h0[None], h[:-1]])
    np.testing.assert_array_equal(damped(a, b, h0, h, w), h)


def test_one_step_in_closed_form():
    a, b, h0, g, w = 2.0, 0.5, 3.0, -1.0, 0.25
    h = damped(*(np.full(s, v) for s, v in [((1, 1), a), ((1, 1), b), (1, h0), ((1, 1), g)]), w)
    assert float(h[0, 0]) == pytest.approx((a * h0 + b + w * g) / (1 + w), rel=1e-15)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_whole_batch_by_vmap(engine):
    """Each with a damping of its own, 0 among them."""
    several = [problem((4,), 40, seed) for seed in range(3)]
    stacked = [jnp.stack(x) for x in zip(*several, strict=True)]
    ws = np.asarray([0.0, 0.1, 2.0])
    found = jax.jit(jax.vmap(lambda *x: damped_scan(*x, engine=engine)))(*stacked, ws)
    np.testing.assert_allclose(found[0], loop(*several[0][:3]), rtol=1e-10, atol=1e-10)
    for i in (1, 2):
        np.testing.assert_allclose(found[i], minimiser(*several[i], ws[i]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("structure", ["diagonal", pytest.param("dense", marks=pytest.mark.slow)])
def test_single_precision_over_a_long_expanding_sequence(structure, engine):
    """Stretches of 50 steps that expand and contract by up to 10 a step, t = 10^5, against double precision.

    Relative to the largest move. Products of closed-loop slopes reach `|a| / sqrt(w)`, and rounding with them.
    """
    t, shape, rng = 100_000, {"diagonal": (2,), "dense": (2, 2)}[structure], np.random.default_rng(1)
    a, b, h0, g = problem(shape, t)
    rate = 10 ** np.repeat(rng.uniform(-1, 1, t // 50), 50) / np.linalg.norm(a.reshape(t, -1), axis=1)
    single = [np.asarray(x, np.float32) for x in (a * rate.reshape(t, *[1] * len(shape)), b, h0, g)]
    double = [x.astype(np.float64) for x in single]
    for w in (1e-8, 1e-4, 1.0):
        found = np.asarray(damped(*single, np.float32(w), engine=engine))
        true = np.asarray(damped(*double, np.float64(np.float32(w)), engine="sequential"))
        assert found.dtype == np.float32
        error = np.abs(found - true).max() / np.abs(true - single[3]).max()
        assert error * np.sqrt(w) < {"diagonal": 3e-6, "dense": 6e-5}[structure]  # three times what was measured


def test_float32(float32):
    given = problem((3,), 16)
    h = damped_scan(*(jnp.asarray(x, jnp.float32) for x in given), 0.5)
    assert h.dtype == jnp.float32
    np.testing.assert_allclose(h, minimiser(*given, 0.5), atol=3e-6 * np.abs(h).max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(which, bad, engine):
    given = [*problem((4,), 40), np.asarray(0.2)]
    given[which].flat[-1] = bad
    assert not np.isfinite(damped(*given, engine=engine)).all()


def test_no_recompilation():
    given = problem((3,), 9)
    compiled = jax.jit(lambda *x: damped_scan(*x))
    for w in (0.0, 0.1, 1.0):
        compiled(*given, w)
    assert compiled._cache_size() == 1


WRONG = {
    "steps of a": (lambda a, b, h0, g: (a[:-1], b, h0, g, 1.0), r"a must have shape \[4\], \[4, 3\].*got \(3, 3\)"),
    "units of a": (lambda a, b, h0, g: (a[:, :2], b, h0, g, 1.0), r"a must have .*got \(4, 2\)"),
    "blocks": (lambda a, b, h0, g: (np.ones((4, 2, 2, 1)), b, h0, g, 1.0), r"c k = 3.*got \(4, 2, 2, 1\)"),
    "square": (lambda a, b, h0, g: (np.ones((4, 3, 1, 1)), b, h0, g, 1.0), r"a must have .*got \(4, 3, 1, 1\)"),
    "h0": (lambda a, b, h0, g: (a, b, h0[:2], g, 1.0), r"h0 must have shape \(3,\).*got \(2,\)"),
    "guess": (lambda a, b, h0, g: (a, b, h0, g[1:], 1.0), r"guess must have shape \(4, 3\).*got \(3, 3\)"),
    "b": (lambda a, b, h0, g: (a, b[0], h0, g, 1.0), r"b must have shape \[t, m\].*got \(3,\)"),
    "no steps": (lambda a, b, h0, g: (a[:0], b[:0], h0, g[:0], 1.0), r"b must have .* at least 1: got \(0, 3\)"),
    "damping": (lambda a, b, h0, g: (a, b, h0, g, -0.5), r"damping must not be negative: got -0.5"),
    "dampings": (lambda a, b, h0, g: (a, b, h0, g, np.ones(4)), r"damping must be a scalar: got shape \(4,\)"),
    "integers": (lambda a, b, h0, g: (a.astype(int), b, h0, g, 1.0), r"a must be real and floating.*got int64"),
    "complex": (lambda a, b, h0, g: (a, b + 1j, h0, g, 1.0), r"real and floating"),
    "mixed": (lambda a, b, h0, g: (a, b, h0, g.astype(np.float32), 1.0), r"guess must be .*float64: got float32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input(case):
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        damped_scan(*change(*problem((3,), 4)))


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="engine must be one of .*sequential.*got 'fast'"):
        damped_scan(*problem((3,), 4), 1.0, engine="fast")
