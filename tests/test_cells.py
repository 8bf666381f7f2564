"""Laws of every cell and readout of tests/helpers.py, and of `Forced`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, PWL_CELLS, READOUTS, inputs, instance, named, states, stirred

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
    cell, s = instance(row), inputs(row)
    z = states(cell)
    before, first = np.array(z), cell(z, s)
    assert first.shape == (cell.state_size,) and first.dtype == jnp.float64
    assert jnp.array_equal(first, cell(z, s)) and np.array_equal(before, z)
    assert not np.array_equal(first, z)
    same(eqx.filter_jit(cell)(z, s), first)


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_a_mapped_cell_is_the_cell(row):
    cell, z, s = instance(row), states(instance(row), 3), inputs(row, 3)
    one = eqx.filter_jit(cell)
    alone = [one(z[i], jax.tree.map(lambda x, i=i: x[i], s)) for i in range(3)]
    same(eqx.filter_jit(lambda z, s: jax.vmap(cell)(z, s))(z, s), np.stack(alone))


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_linearise_is_value_and_jacobian(row):
    cell, s = instance(row), inputs(row)
    z = states(cell)

    @eqx.filter_jit
    def laws(z, s):
        return cell(z, s), jax.jacfwd(cell)(z, s), cell.linearise(z, s), dense_jacobian(cell, z, s)

    wanted, jacobian, *found = laws(z, s)
    for value, J in found:
        same(value, wanted)
        same(J, jacobian)


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_a_cell_keeps_single_precision(row, float32):
    made = eqx.filter_eval_shape(row.make, jax.random.key(0))
    leaves = [x for x in jax.tree.leaves(made) if jnp.issubdtype(getattr(x, "dtype", int), jnp.inexact)]
    assert all(x.dtype == jnp.float32 for x in leaves)
    double = instance(row)
    cell = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, double)
    z, s = states(cell), inputs(row)
    assert z.dtype == jnp.float32
    value, (linear, J) = eqx.filter_jit(lambda z, s: (cell(z, s), cell.linearise(z, s)))(z, s)
    assert value.dtype == linear.dtype == J.dtype == jnp.float32
    same(linear, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", CELLS, ids=named)
def test_members_of_an_ensemble_are_cells(row):
    alone = [stirred(instance(row), seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *alone)
    z, s = states(alone[0]), inputs(row)
    one = eqx.filter_jit(lambda cell, z, s: cell(z, s))
    together = eqx.filter_jit(eqx.filter_vmap(lambda cell, z, s: cell(z, s), in_axes=(eqx.if_array(0), None, None)))
    same(together(stacked, z, s), np.stack([one(cell, z, s) for cell in alone]))


@pytest.mark.parametrize("row", PWL_CELLS, ids=named)
def test_a_pwl_cell_is_affine_on_its_regions(row):
    cell, s = instance(row), inputs(row)

    @jax.jit
    @jax.vmap
    def laws(z):
        region = cell.region(z, s)
        A, h = cell.affine(region, s)
        return region, A, h, A @ z + h, cell(z, s), jax.jacfwd(cell)(z, s)

    regions, A, h, affine, value, J = laws(2 * states(cell, 64))
    same(affine, value)
    same(A, J)
    assert regions.dtype == bool and regions.ndim == 2
    # each region has its own map, and only one
    maps = np.concatenate([A.reshape(64, -1), h], axis=1)
    visited = len(np.unique(regions, axis=0))
    assert len(np.unique(maps, axis=0)) == visited
    assert visited > 1 or regions.shape[1] == 0


def test_region_bits():
    z = jnp.array([1.0, -1.0, 2.0, -3.0])
    for units in range(5):
        region = ALRNN(4, units, key=KEY).region(z)
        assert region.tolist() == (z[4 - units :] > 0).tolist()
    z = z[:3]
    cell = ClippedShallowPLRNN(3, 4, key=KEY)
    u = cell.W2 @ z
    assert cell.region(z).tolist() == [*(u + cell.h2 > 0).tolist(), *(u > 0).tolist()]


def test_equations_of_the_models():
    z, s = jnp.array([0.3, -0.4, 1.2, -0.9]), jnp.array([0.5, -2.0])
    c = stirred(ALRNN(4, 2, input_size=2, key=KEY))
    phi = jnp.concatenate([z[:2], jnp.maximum(z[2:], 0)])
    same(c(z, s), jnp.diag(c.A) @ z + c.W @ phi + c.h + c.C @ s)
    c, z = stirred(ClippedShallowPLRNN(3, 4, input_size=2, key=KEY)), z[:3]
    ramp = jnp.maximum(c.W2 @ z + c.h2, 0) - jnp.maximum(c.W2 @ z, 0)
    same(c(z, s), c.A * z + c.W1 @ ramp + c.h1 + c.C @ s)


def test_an_alrnn_without_pwl_units_is_linear_and_with_all_of_them_a_plrnn():
    z = states(ALRNN(4, 0, key=KEY), 16)
    linear = stirred(ALRNN(4, 0, key=KEY))
    assert linear.region(z[0]).shape == (0,)
    same(jax.vmap(linear)(z), z @ (jnp.diag(linear.A) + linear.W).T + jnp.tile(linear.h, (16, 1)))
    full = stirred(ALRNN(4, 4, key=KEY))
    assert full.region(z[0]).shape == (4,)
    same(full(z[0]), full.A * z[0] + full.W @ jnp.maximum(z[0], 0) + full.h)


def test_start_values_are_those_of_the_papers():
    cell = ALRNN(30, 3, key=KEY)
    assert cell.A.min() > 0 and cell.A.max() < 1
    assert jnp.all(cell.h == 0) and 0.009 < cell.W.std() < 0.011
    shallow = ClippedShallowPLRNN(3, 4, key=KEY)
    assert jnp.abs(shallow.W1).max() <= 4**-0.5 and jnp.abs(shallow.W2).max() <= 3**-0.5
    assert jnp.abs(shallow.h2).max() <= 3**-0.5 and jnp.all(shallow.h1 == 0)


def test_a_clipped_cell_stays_bounded():
    cell = ClippedShallowPLRNN(3, 4, key=KEY)
    far = 1e6 * states(cell, 8)
    bound = jnp.abs(cell.W1) @ jnp.abs(cell.h2) + jnp.abs(cell.h1)
    # |z'| <= max|A| |z| + |W1| |h2| + |h1|; 1e-8 for the rounding of 1e6
    assert jnp.all(jnp.abs(jax.vmap(cell)(far) - cell.A[None] * far) <= bound[None] + 1e-8)


def test_members_may_differ_in_what_is_rectified():
    rectified = jnp.array([[False, False, False, True], [False, False, True, True], [False, True, True, False]])
    cells = [eqx.tree_at(lambda c: c.rectified, stirred(ALRNN(4, 3, key=KEY), i), r) for i, r in enumerate(rectified)]
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
def test_imposing_an_observation(row):
    readout = stirred(row.make(KEY))
    n = readout.observed_size
    encode, decode, start = (eqx.filter_jit(f) for f in (readout.encode, readout.decode, readout.start))
    z, other = jax.random.normal(KEY, (2, readout.state_size))
    xs = jax.random.bernoulli(KEY, shape=(6, n)).astype(float)
    x = readout.targets(xs)[2]
    one = jnp.arange(n) == 0
    imposed = encode(x, z)
    same(decode(imposed), decode(encode(x, other)))
    same(decode(imposed), decode(start(x)))
    same(encode(x, imposed), imposed)
    assert start(x).shape == z.shape
    same(encode(x, z, ~one & one), z)
    same(encode(x, z, one | ~one), imposed)
    partly = encode(x, z, one)
    same(decode(partly)[0], decode(imposed)[0])
    same(encode(x, partly, one), partly)
    assert jnp.array_equal(encode(x.at[1:].set(1e9), z, one), partly)
    if row.link:
        return
    same(decode(imposed), x)
    same(encode(decode(z), z), z)
    if isinstance(readout, IdentityReadout):
        same(decode(partly), jnp.where(one, x, decode(z)))


@pytest.mark.parametrize("row", READOUTS, ids=named)
def test_what_is_observed_along_a_run(row):
    readout = stirred(row.make(KEY))
    observe = eqx.filter_jit(readout.observe)
    memory, steps = readout.memory, readout.memory + 6
    zs = jax.random.normal(KEY, (steps, readout.state_size))
    xs = observe(zs)
    assert xs.shape == readout.targets(xs).shape == readout.misfit(zs, xs).shape == (steps, readout.observed_size)
    same(observe(zs[:4]), xs[:4])
    assert jnp.array_equal(observe(zs.at[0].add(1.0))[memory + 1 :], xs[memory + 1 :])
    held = jnp.broadcast_to(zs[0], (steps, readout.state_size))
    same(observe(held), jnp.broadcast_to(readout.decode(zs[0]), xs.shape))
    # the expected score is zero: what is expected fits best
    flat = jax.jit(jax.grad(lambda zs: readout.misfit(zs, xs).sum()))(zs)
    np.testing.assert_allclose(flat, 0, atol=1e-13)


@pytest.fixture(scope="module")
def forced():
    return Forced(stirred(ALRNN(4, 2, key=KEY)), IdentityReadout(2, 4, key=KEY))


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
