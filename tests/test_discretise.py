"""Rules of discretisation: what they are, how fast they converge, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dsrecon.models import Bilinear, ZeroOrderHold, discretise
from dsrecon.models.hippo import hippo_system

RULES = [Bilinear(0.0), Bilinear(0.5), Bilinear(1.0), Bilinear(0.7), ZeroOrderHold()]


def system(n=4, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(n, n)) - 2 * np.eye(n)), jnp.asarray(rng.normal(size=n))


def test_the_bilinear_transform():
    A, B = system()
    a, b, d, w = np.asarray(A), np.asarray(B), 0.3, 0.7
    below = np.linalg.inv(np.eye(4) - w * d * a)
    A_d, B_d = discretise(A, B, d, Bilinear(w))
    np.testing.assert_allclose(A_d, below @ (np.eye(4) + (1 - w) * d * a), atol=1e-13)
    np.testing.assert_allclose(B_d, below @ (d * b), atol=1e-13)
    np.testing.assert_allclose(discretise(A, B, d, Bilinear(0.0))[0], np.eye(4) + d * a, atol=1e-13)


def test_zero_order_hold():
    A, B = system()
    A_d, B_d = discretise(A, B, 0.3, ZeroOrderHold())
    power = scipy.linalg.expm(0.3 * np.asarray(A))
    np.testing.assert_allclose(A_d, power, atol=1e-13)
    np.testing.assert_allclose(B_d, np.linalg.solve(np.asarray(A), (power - np.eye(4)) @ np.asarray(B)), atol=1e-12)


def test_zero_order_hold_of_a_singular_system():
    """`x'' = u`: `x` grows by `v d + u d^2 / 2`."""
    A_d, B_d = discretise(jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.array([0.0, 1.0]), 0.5, ZeroOrderHold())
    np.testing.assert_allclose(A_d, [[1, 0.5], [0, 1]], atol=1e-15)
    np.testing.assert_allclose(B_d, [0.125, 0.5], atol=1e-15)
    x, b = ZeroOrderHold().diagonal(jnp.zeros(1, complex), jnp.full(1, 0.5))
    np.testing.assert_allclose([x[0], b[0]], [0, 0.5], atol=1e-15)
    slope = jax.grad(lambda d: ZeroOrderHold().diagonal(jnp.zeros(1, complex), d)[1].real[0])(jnp.full(1, 0.5))
    np.testing.assert_allclose(slope, [1.0], atol=1e-15)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_poles_alone_are_the_system(rule):
    pole = np.array([-0.4 + 2.0j])
    A = jnp.array([[-0.4, -2.0], [2.0, -0.4]])
    A_d, B_d = discretise(A, jnp.array([1.0, 0.0]), 0.3, rule)
    x, b = rule.diagonal(jnp.asarray(pole), jnp.full(1, 0.3))
    a = complex(np.exp(x[0]))
    np.testing.assert_allclose(A_d, [[a.real, -a.imag], [a.imag, a.real]], atol=1e-14)
    np.testing.assert_allclose(B_d, [complex(b[0]).real, complex(b[0]).imag], atol=1e-14)


@pytest.mark.parametrize(
    "rule, order", [(Bilinear(0.0), 1), (Bilinear(0.5), 2), (Bilinear(1.0), 1), (Bilinear(0.7), 1)]
)
def test_orders_of_convergence(rule, order):
    A, B = system()
    exact, end = discretise(A, B, 1.0, ZeroOrderHold())

    def error(n):
        A_d, B_d = (np.asarray(x) for x in discretise(A, B, 1 / n, rule))
        x = np.zeros(4)
        for _ in range(n):
            x = A_d @ x + B_d
        return np.abs(x - np.asarray(end)).max() + np.abs(np.linalg.matrix_power(A_d, n) - np.asarray(exact)).max()

    assert np.log2(error(400) / error(800)) == pytest.approx(order, abs=0.02)


@pytest.mark.parametrize("rule", [Bilinear(), ZeroOrderHold()], ids=repr)
def test_steps_of_any_shape(rule):
    A, B = system()
    one = discretise(A, B, 0.2, rule)
    many = discretise(A, B, jnp.array([0.1, 0.2]), rule)
    assert many[0].shape == (2, 4, 4) and many[1].shape == (2, 4)
    np.testing.assert_allclose(many[0][1], one[0], atol=1e-14)
    As, Bs = jnp.stack([A, 2 * A, 3 * A]), jnp.stack([B, B, 2 * B])
    channel = discretise(As, Bs, jnp.array([0.2, 0.1, 0.3]), rule)
    np.testing.assert_allclose(channel[0][0], one[0], atol=1e-14)
    np.testing.assert_allclose(channel[1][2], discretise(3 * A, 2 * B, 0.3, rule)[1], atol=1e-14)
    both = discretise(As, Bs, jnp.full((5, 3), 0.2), rule)
    assert both[0].shape == (5, 3, 4, 4) and both[1].shape == (5, 3, 4)
    np.testing.assert_allclose(both[0][4, 0], one[0], atol=1e-14)
    np.testing.assert_allclose(discretise(As, Bs, 0.2, rule)[0][0], one[0], atol=1e-14)


def test_single_precision(float32):
    A, B = (jnp.asarray(x, "float32") for x in hippo_system("legs", 16))
    A_d, B_d = discretise(A, B, 0.01)
    assert A_d.dtype == B_d.dtype == jnp.float32
    wanted = np.linalg.solve(np.eye(16) - 0.005 * np.asarray(A, float), np.eye(16) + 0.005 * np.asarray(A, float))
    np.testing.assert_allclose(A_d, wanted, atol=1e-5)


A, B = system()
BAD = {
    "zero": (lambda: discretise(A, B, 0.0), "step must be positive and finite: got 0.0"),
    "negative": (lambda: discretise(A, B, jnp.array([0.1, -1.0])), "got -1.0"),
    "not finite": (lambda: discretise(A, B, float("nan")), "got nan"),
    "singular": (lambda: discretise(jnp.eye(2), B[:2], 2.0), r"I - 0.5 d A invertible: it is singular at step 2"),
    "singular, of many": (lambda: discretise(jnp.eye(2), B[:2], jnp.array([0.5, 1.0]), Bilinear(1.0)), "at step 1"),
    "integers": (lambda: discretise(jnp.eye(2, dtype=int), B[:2], 0.1), "A must be real floating point: got int64"),
    "shape": (lambda: discretise(A, B[:2], 0.1), r"got \[4, 4\] and \[2\]"),
    "channels": (lambda: discretise(A[None], B[None], jnp.ones(2)), "a last axis of the 1 channels of A"),
    "values": (lambda: discretise(A.at[0, 0].set(jnp.nan), B, 0.1), "A must be finite"),
    "weight": (lambda: Bilinear(1.5), r"weight must lie in \[0, 1\]: got 1.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_euler_is_defined_where_the_others_are_not():
    found = discretise(jnp.eye(2), jnp.ones(2), 2.0, Bilinear(0.0))
    np.testing.assert_allclose(found[0], 3 * np.eye(2))
