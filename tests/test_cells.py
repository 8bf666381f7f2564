"""Laws of every cell and readout of tests/helpers.py, and of `Forced`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, PWL_CELLS, READOUTS, instance, named, one_input, states, stirred

from dsrecon.cell import dense_jacobian
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.readout import Forced, Forcing, IdentityReadout

KEY = jax.random.key(7)


def same(a, b, rtol=1e-13, atol=1e-13):
    # one step is a handful of products of numbers of order 1: some tens of rounding errors
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_a_cell_is_a_pure_map_of_one_state(row):
    cell, s = instance(row), one_input(row)
    z = states(cell)
    before, first = np.array(z), cell(z, s)
    assert first.shape == (cell.state_size,) and first.dtype == jnp.float64
    assert jnp.array_equal(first, cell(z, s)) and np.array_equal(before, z)
    assert not jnp.array_equal(first, z)
    same(eqx.filter_jit(cell)(z, s), first)


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_a_mapped_cell_is_the_cell(row):
    cell, s = instance(row), one_input(row)
    z = states(cell, 3)
    same(jax.vmap(lambda z: cell(z, s))(z), jnp.stack([cell(z, s) for z in z]))


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_linearise_is_value_and_jacobian(row):
    cell, s = instance(row), one_input(row)
    z = states(cell)
    for value, J in (cell.linearise(z, s), dense_jacobian(cell, z, s)):
        same(value, cell(z, s))
        same(J, jax.jacfwd(lambda z: cell(z, s))(z))


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_a_cell_keeps_single_precision(row, float32):
    cell, s = instance(row), one_input(row)
    z = states(cell)
    assert z.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(eqx.filter(cell, eqx.is_inexact_array)))
    value, J = cell.linearise(z, s)
    assert cell(z, s).dtype == value.dtype == J.dtype == jnp.float32
    same(value, cell(z, s), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_members_of_an_ensemble_are_cells(row):
    keys = jax.random.split(KEY, 3)
    alone = [stirred(row.make(key), key) for key in keys]
    together = eqx.filter_vmap(lambda key: stirred(row.make(key), key))(keys)
    s = one_input(row)
    z = states(alone[0])
    zs = eqx.filter_vmap(lambda cell: cell(z, s), in_axes=eqx.if_array(0))(together)
    # the start values hold an eigenvalue, found in another order in a batch
    same(zs, jnp.stack([cell(z, s) for cell in alone]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", PWL_CELLS, ids=named)
def test_a_pwl_cell_is_affine_on_its_regions(row):
    cell, s = instance(row), one_input(row)

    @jax.jit
    def law(z):
        A, h = cell.affine(cell.region(z, s), s)
        return cell(z, s), A @ z + h, A, jax.jacfwd(lambda z: cell(z, s))(z)

    z = 2 * states(cell, 64)
    value, affine, A, J = jax.vmap(law)(z)
    same(value, affine)
    same(A, J)
    regions = jax.vmap(lambda z: cell.region(z, s))(z)
    assert regions.dtype == bool and regions.ndim == 2
    if regions.shape[1]:
        assert len(np.unique(regions, axis=0)) > 1
        assert len(np.unique(A, axis=0)) == len(np.unique(regions, axis=0))


def test_region_bits():
    z = jnp.array([1.0, -1.0, 2.0, -3.0])
    for units in range(5):
        region = ALRNN(4, units, key=KEY).region(z)
        assert region.tolist() == (z[4 - units :] > 0).tolist()
    cell = ClippedShallowPLRNN(4, 3, key=KEY)
    u = cell.W2 @ z
    assert cell.region(z).tolist() == [*(u + cell.h2 > 0).tolist(), *(u > 0).tolist()]


def test_equations_of_the_models():
    z, s = states(ALRNN(4, 2, key=KEY)), jnp.array([0.5, -2.0])
    c = stirred(ALRNN(4, 2, input_size=2, key=KEY), KEY)
    phi = jnp.concatenate([z[:2], jnp.maximum(z[2:], 0)])
    same(c(z, s), jnp.diag(c.A) @ z + c.W @ phi + c.h + c.C @ s)
    c = stirred(ClippedShallowPLRNN(4, 3, input_size=2, key=KEY), KEY)
    ramp = jnp.maximum(c.W2 @ z + c.h2, 0) - jnp.maximum(c.W2 @ z, 0)
    same(c(z, s), c.A * z + c.W1 @ ramp + c.h1 + c.C @ s)


def test_an_alrnn_without_pwl_units_is_linear_and_with_all_of_them_a_plrnn():
    z = states(ALRNN(4, 0, key=KEY), 16)
    linear = stirred(ALRNN(4, 0, key=KEY), KEY)
    assert linear.region(z[0]).shape == (0,)
    same(jax.vmap(linear)(z), z @ (jnp.diag(linear.A) + linear.W).T + jnp.tile(linear.h, (16, 1)))
    full = stirred(ALRNN(4, 4, key=KEY), KEY)
    assert full.region(z[0]).shape == (4,)
    same(full(z[0]), full.A * z[0] + full.W @ jnp.maximum(z[0], 0) + full.h)


def test_start_values_are_those_of_the_papers():
    cell = ALRNN(30, 3, key=KEY)
    assert 0 < cell.A.min() and cell.A.max() < 1
    assert jnp.all(cell.h == 0) and 0.009 < cell.W.std() < 0.011
    shallow = ClippedShallowPLRNN(9, 16, key=KEY)
    assert jnp.abs(shallow.W1).max() <= 1 / 4 and jnp.abs(shallow.W2).max() <= 1 / 3
    assert jnp.abs(shallow.h2).max() <= 1 / 3 and jnp.all(shallow.h1 == 0)


def test_a_clipped_cell_stays_bounded():
    cell = ClippedShallowPLRNN(3, 6, key=KEY)
    far = 1e6 * states(cell, 8)
    bound = jnp.abs(cell.W1) @ jnp.abs(cell.h2) + jnp.abs(cell.h1)
    # |z'| <= max|A| |z| + |W1| |h2| + |h1|; 1e-8 for the rounding of 1e6
    assert jnp.all(jnp.abs(jax.vmap(cell)(far) - cell.A[None] * far) <= bound[None] + 1e-8)


def test_members_may_differ_in_what_is_rectified():
    rectified = jnp.array(
        [[False, False, False, True], [False, False, True, True], [False, True, True, False]]
    )
    cells = [
        eqx.tree_at(lambda c: c.rectified, stirred(ALRNN(4, 3, key=k), k), r)
        for k, r in zip(jax.random.split(KEY, 3), rectified, strict=True)
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *cells)
    z = states(cells[0], 8)

    def law(cell, z):
        A, h = cell.affine(cell.region(z))
        return cell(z), A @ z + h

    for z_ in z:
        value, affine = eqx.filter_vmap(law, in_axes=(0, None))(stacked, z_)
        same(value, affine)
        for i, cell in enumerate(cells):
            same(value[i], cell(z_))
    # all but the rectified units are linear: those bits never close
    regions = jax.vmap(cells[0].region)(z)
    assert regions[:, :2].all() and not regions[:, 2].all()


@pytest.mark.parametrize("row", READOUTS, ids=named)
def test_laws_of_readouts(row):
    readout = row.make(KEY)
    z = jax.random.normal(KEY, (readout.state_size,))
    x = jax.random.normal(KEY, (readout.observed_size,))
    one = jnp.arange(readout.observed_size) == 0
    same(readout.decode(readout.encode(x, z)), x)
    same(readout.decode(readout.start(x)), x)
    assert readout.start(x).shape == z.shape
    same(readout.encode(readout.decode(z), z), z)
    same(readout.encode(x, z, ~one & one), z)
    same(readout.encode(x, z, one | ~one), readout.encode(x, z))
    same(readout.decode(readout.encode(x, z, one)), jnp.where(one, x, readout.decode(z)))


@pytest.fixture(scope="module")
def forced():
    return Forced(stirred(ALRNN(4, 2, key=KEY), KEY), IdentityReadout(2, 4, key=KEY))


def test_forcing_of_strength_zero_is_the_free_cell(forced):
    z, x = states(forced), jnp.array([3.0, -4.0])
    assert jnp.array_equal(forced(z, Forcing(x, jnp.asarray(0.0))), forced.cell(z))


def test_forcing_of_strength_one_replaces_what_is_observed(forced):
    z, x = states(forced), jnp.array([3.0, -4.0])
    s = Forcing(x, jnp.asarray(1.0))
    same(forced.force(z, s), jnp.concatenate([x, z[2:]]))
    same(forced(z, s), forced.cell(jnp.concatenate([x, z[2:]])))


def test_generalized_forcing_interpolates(forced):
    z, x = states(forced), jnp.array([3.0, -4.0])
    pulled = jnp.concatenate([0.75 * z[:2] + 0.25 * x, z[2:]])
    same(forced.force(z, Forcing(x, jnp.asarray(0.25))), pulled)


def test_a_mask_leaves_channels_alone(forced):
    z, x = states(forced), jnp.array([3.0, -4.0])
    s = Forcing(x, jnp.asarray(1.0), None, jnp.array([False, True]))
    same(forced.force(z, s), z.at[1].set(-4.0))
    # what stands in a masked channel plays no part, in values and gradients
    other = s._replace(x=jnp.array([1e9, -4.0]))
    assert jnp.array_equal(forced(z, s), forced(z, other))
    gradient = jax.grad(lambda x: forced(z, s._replace(x=x)).sum())(x)
    assert gradient[0] == 0 and gradient[1] != 0


def test_a_forced_pwl_cell_takes_the_jacobian_of_its_region(forced):
    z, alpha = states(forced), 0.25
    s = Forcing(jnp.array([3.0, -4.0]), jnp.asarray(alpha))
    A, _ = forced.cell.affine(forced.cell.region(forced.force(z, s)))
    value, J = forced.linearise(z, s)
    same(value, forced(z, s))
    same(J, A * jnp.array([[1 - alpha, 1 - alpha, 1.0, 1.0]]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ALRNN(3, 4, key=KEY), r"pwl_units must lie between 0 and state_size=3: got 4\."),
        (lambda: ALRNN(3, -1, key=KEY), r"pwl_units must lie between 0 and state_size=3: got -1\."),
        (lambda: ALRNN(0, 0, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: ALRNN(3, 1, input_size=-1, key=KEY), r"input_size must be at least 0: got -1\."),
        (lambda: ClippedShallowPLRNN(0, 4, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: ClippedShallowPLRNN(3, 0, key=KEY), r"hidden_size must be at least 1: got 0\."),
        (lambda: ClippedShallowPLRNN(3, 4, input_size=-2, key=KEY), r"input_size .* got -2\."),
        (
            lambda: IdentityReadout(5, 3, key=KEY),
            r"state_size must be at least observed_size .*state_size=3 for observed_size=5 channels",
        ),
        (lambda: IdentityReadout(0, 3, key=KEY), r"state_size must be .*observed_size=0"),
        (
            lambda: Forced(ALRNN(3, 1, key=KEY), IdentityReadout(2, 4, key=KEY)),
            r"readout\.state_size must equal cell\.state_size: got 4 and 3\.",
        ),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_of_another_size_is_refused():
    cell = ALRNN(3, 1, key=KEY)
    with pytest.raises(Exception):  # noqa: B017 - the shape check of the tests, or JAX itself
        cell(jnp.ones(4))
    with pytest.raises(Exception):  # noqa: B017
        cell(jnp.ones((2, 3)))
