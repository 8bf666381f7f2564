"""Gradients through forced sequences of every piecewise-linear cell, against central differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PWL_CELLS, inputs, instance, named, states

from dsrecon.evolve import Sequential, evolve
from dsrecon.readout import Forced, Forcing, IdentityReadout

STEPS, DIRECTIONS, EPS = 8, 3, 1e-6
NAMES = {row.name for row in PWL_CELLS}
ROWS = [row for row in PWL_CELLS if f"{row.name}-driven" not in NAMES]
"""Every cell once: with input where it takes any."""


def scaled(x):
    """Axis `r` first: directions of unit length."""
    return x / np.sqrt(np.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_forced_gradients_are_central_differences(row):
    cell = instance(row)
    m, rng = cell.state_size, np.random.default_rng(11)
    n = min(2, m)
    readout = IdentityReadout(n, m, key=jax.random.key(1))
    # tents and bakers live on [0, 1]; the others take any state
    x = jnp.asarray(rng.uniform(0.1, 0.9, (STEPS, n)))
    weights = jnp.asarray(rng.normal(size=(STEPS, m)))
    alpha, s = jnp.asarray(np.where(np.arange(STEPS) == 4, 1.0, 0.3)), inputs(row, STEPS)
    free, fixed = eqx.partition((cell, jnp.asarray(np.abs(states(cell)) / 3), x), eqx.is_inexact_array)

    def measured(free):
        """A number that every state enters, with its own weight and not linearly."""
        cell, z0, x = eqx.combine(free, fixed)
        zs = evolve(Forced(cell, readout), z0, Forcing(x, alpha, s), solver=Sequential(), throw=False).zs
        return jnp.sum(weights * jnp.sin(zs))

    leaves, shape = jax.tree.flatten(free)
    # of each leaf (every parameter, z0, the observations) by itself, so that none hides behind another
    steps = []
    for i in range(len(leaves)):
        moved = [np.zeros((DIRECTIONS, *leaf.shape)) for leaf in leaves]
        moved[i] = scaled(rng.normal(size=moved[i].shape))
        steps.append(moved)
    directions = jax.tree.unflatten(shape, [jnp.asarray(np.concatenate(leaf)) for leaf in zip(*steps, strict=True)])

    @jax.jit
    def both(free, directions):
        moved = jax.tree.map(lambda x, d: x[None] + EPS * jnp.concatenate([d, -d]), free, directions)
        up, down = jnp.split(jax.vmap(measured)(moved), 2)
        slopes = jax.tree.map(lambda g, d: jnp.sum(g[None] * d, range(1, d.ndim)), jax.grad(measured)(free), directions)
        return sum(jax.tree.leaves(slopes)), (up - down) / (2 * EPS)

    found, wanted = (np.asarray(x) for x in both(free, directions))
    assert (np.abs(wanted.reshape(-1, DIRECTIONS)).max(1) > 1e-6).all()
    # central differences: eps^2 of truncation, 1e-16 / eps of rounding, times values of order 10
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)
