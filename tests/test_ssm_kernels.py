"""The kernels of state-space layers against sums written out, values and gradients, and what memory they hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dsrecon.kernels import cauchy_product, causal_convolution, vandermonde_product
from dsrecon.kernels.convolution import toeplitz
from dsrecon.models._ssm import krylov_kernel


def numbers(*shape, seed=0, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape))


def complexes(*shape, seed=0):
    return jax.lax.complex(numbers(*shape, seed=seed), numbers(*shape, seed=seed + 1))


def written_out(k, u):
    return np.stack([np.convolve(a, b)[: u.shape[1]] for a, b in zip(np.asarray(k), np.asarray(u), strict=True)])


@pytest.mark.parametrize("engine", ["auto", "fft", "direct"])
@pytest.mark.parametrize("h, l, t", [(1, 1, 1), (3, 7, 7), (2, 3, 10), (2, 12, 5), (5, 130, 131), (4, 1, 6)])
def test_causal_convolution(h, l, t, engine):
    k, u = numbers(h, l), numbers(h, t, seed=1)
    np.testing.assert_allclose(causal_convolution(k, u, engine=engine), written_out(k, u), atol=1e-12)


@pytest.mark.parametrize("engine", ["fft", "direct"])
def test_gradients_of_a_convolution(engine):
    k, u = numbers(2, 4), numbers(2, 9, seed=1)
    check_grads(lambda k, u: causal_convolution(k, u, engine=engine), (k, u), order=1, modes=["rev"], atol=1e-6)


def test_channels_in_groups_are_the_same(monkeypatch):
    k, u, w = numbers(6, 200), numbers(6, 200, seed=1), numbers(6, 200, seed=2)

    def both():
        return jax.vjp(causal_convolution, k, u)[0], jax.vjp(causal_convolution, k, u)[1](w)

    whole = both()
    monkeypatch.setattr("dsrecon.kernels.convolution.BYTES", 2 * 2 * 200 * 8)  # read when called
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(both()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_a_toeplitz_matrix():
    found = toeplitz(jnp.asarray([[1.0, 2.0]]), 4)[0]
    np.testing.assert_array_equal(found, [[1, 0, 0, 0], [2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 2, 1]])


@pytest.mark.parametrize(
    "k, u, engine, message",
    [
        (jnp.ones((2, 3)), jnp.ones((3, 3)), "auto", "a kernel for each of the 3 channels of u: got 2"),
        (jnp.ones((2, 3), int), jnp.ones((2, 3)), "auto", r"k must be real, \[channel, time\]: got int64"),
        (jnp.ones((2, 3)), jnp.ones(3), "auto", r"u must be real, .* of shape \[3\]"),
        (jnp.ones((2, 3)), jnp.ones((2, 0)), "auto", r"u must be real, .* of shape \[2, 0\]"),
        (jnp.ones((2, 3)), jnp.ones((2, 3)), "fast", "engine must be one of .*: got 'fast'"),
    ],
)
def test_wrong_convolutions_are_refused(k, u, engine, message):
    with pytest.raises(ValueError, match=message):
        causal_convolution(k, u, engine=engine)


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 100])
def test_vandermonde_product(length):
    w, x = complexes(2, 3), complexes(2, 3, seed=5) * 0.1
    powers = np.exp(np.asarray(x)[:, :, None] * np.arange(length))
    np.testing.assert_allclose(
        vandermonde_product(w, x, length), 2 * (np.asarray(w)[:, :, None] * powers).sum(1).real, atol=1e-11
    )


def test_gradients_of_a_vandermonde_product():
    w, x = numbers(2, 1, 3), numbers(2, 1, 3, seed=3, scale=0.1)

    def product(w, x):
        return vandermonde_product(jax.lax.complex(*w), jax.lax.complex(*x), 11)

    check_grads(product, (w, x), order=1, modes=["rev", "fwd"], atol=1e-5)


def test_a_vandermonde_product_that_no_kernel_serves_is_refused():
    w = complexes(1, 1)
    with pytest.raises(ValueError, match=r"engine='interpreted' cannot serve: it takes complex64: got complex128"):
        vandermonde_product(w, w, 3, engine="interpreted")
    w = w.astype(jnp.complex64)
    with pytest.raises(ValueError, match=r"engine='pallas' cannot serve: it needs an NVIDIA GPU: JAX runs on cpu"):
        vandermonde_product(w, w, 3, engine="pallas")
    with pytest.raises(ValueError, match=r"engine='interpreted' cannot serve: it counts up to 16777216 steps"):
        vandermonde_product(w, w, 2**24 + 1, engine="interpreted")
    with pytest.raises(ValueError, match=r"cannot serve: there are no numbers: got shape \[3, 0\]"):
        vandermonde_product(w[:, :0].repeat(3, 0), w[:, :0].repeat(3, 0), 3, engine="interpreted")
    assert (vandermonde_product(w[:, :0], w[:, :0], 3) == 0).all() and vandermonde_product(w[:0], w[:0], 3).size == 0
    with pytest.raises(ValueError, match="engine must be one of .*: got 'fft'"):
        vandermonde_product(w, w, 3, engine="fft")


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="length must be at least 1: got 0"):
        vandermonde_product(complexes(1, 1), complexes(1, 1), 0)


def cauchy(w, p, s, q):
    """Written out; where `q = 0` too."""
    w, p, s, q = (np.asarray(x) for x in (w, p, s, q))
    at, times = s[None, None, None], q[:, None, None]

    def half(w, p):
        return (w[..., None] / (at - times * p[:, None, :, None])).sum(2)

    return half(w, p) + half(w.conj(), p.conj())


@pytest.mark.parametrize("l", [1, 5, 70])
def test_cauchy_product(l, monkeypatch):
    monkeypatch.setattr("dsrecon.kernels.cauchy.BLOCK", 2 * 3 * 8)  # so that 70 points are many blocks
    w, p, s, q = complexes(2, 4, 3), complexes(2, 3, seed=2) - 2.0, complexes(l, seed=4), complexes(2, l, seed=6)
    q = q.at[0, 0].set(0.0)
    np.testing.assert_allclose(cauchy_product(w, p, s, q), cauchy(w, p, s, q), rtol=1e-10, atol=1e-10)


def test_gradients_of_a_cauchy_product(monkeypatch):
    monkeypatch.setattr("dsrecon.kernels.cauchy.BLOCK", 1 * 2 * 3)
    w, p, s, q = numbers(2, 1, 2, 2), numbers(2, 1, 2, seed=2), complexes(7, seed=4), complexes(1, 7, seed=6)

    def parts(w, p):
        found = cauchy_product(jax.lax.complex(*w), jax.lax.complex(*p) - 3.0, s, q)
        return found.real, found.imag

    check_grads(parts, (w, p), order=1, modes=["rev"], atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 33])
def test_krylov_kernel(length):
    A, B, C = numbers(2, 3, 3, scale=0.4), numbers(2, 3, seed=1), numbers(2, 3, seed=2)
    wanted = [[c @ np.linalg.matrix_power(a, l) @ b for l in range(length)] for a, b, c in zip(A, B, C, strict=True)]
    np.testing.assert_allclose(krylov_kernel(A, B, C, length), wanted, atol=1e-12)


def scratch(f, *shapes):
    """Bytes beside arguments and results."""
    compiled = jax.jit(f).lower(*(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_nothing_holds_channel_state_and_time_at_once():
    """At 16 channels, 32 pairs and 16,384 steps [channel, state, time] would be 134 MB of complex128."""
    h, n, t = 16, 32, 1 << 14
    whole = h * n * t * 16
    pairs, weights = ((h, n), complex), ((h, 4, n), complex)
    assert scratch(lambda w, x: vandermonde_product(w, x, t), pairs, pairs) < whole / 10
    points = ((t,), complex), ((h, t), complex)
    assert scratch(cauchy_product, weights, pairs, *points) < whole / 4  # the result has 1/8 of it, twice

    def squared(w, x):
        return jnp.sum(vandermonde_product(w, x, t) ** 2)

    assert scratch(jax.grad(squared, (0, 1)), pairs, pairs) < whole / 5

    def energy(w, p, s, q):
        found = cauchy_product(w, p, s, q)
        return jnp.sum(found.real**2 + found.imag**2)

    assert scratch(jax.grad(energy, (0, 1)), weights, pairs, *points) < whole / 1.5  # 1/8 of it, some times


def test_memory_of_a_convolution_does_not_grow_with_the_channels():
    t = 1 << 15
    few, many = (scratch(causal_convolution, ((h, t), float), ((h, t), float)) for h in (16, 64))
    assert many < 1.5 * few
