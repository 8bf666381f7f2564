"""What the package needs of the compiler under it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_sums_of_products_are_right(dtype):
    """jaxlib 0.10.2 gets these wrong on a CPU, by the size of the values themselves (jax-ml/jax#39103)."""
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(4, 2, 50_000)).astype(dtype), rng.normal(size=(3, 3)).astype(dtype)
    rows = rng.normal(size=(50_000, 3)).astype(dtype)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}

    found = jax.jit(lambda x: jnp.sum(x[:, :1] * x, axis=0))(x)
    np.testing.assert_allclose(found, np.sum(x[:, :1].astype(float) * x, axis=0), **close)
    found = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
    np.testing.assert_allclose(found, ((rows.astype(float) @ matrix.T) ** 2).sum(1), **close)
