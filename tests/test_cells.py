"""Laws of every cell and readout of tests/helpers.py, and of `Forced`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CELLS, PWL_CELLS, READOUTS, inputs, instance, named, states, stirred

from dsrecon.cell import as_matrix, dense_jacobian
from dsrecon.evolve import evolve
from dsrecon.models import (
    ALRNN,
    PLRNN,
    ClippedDendriticPLRNN,
    ClippedShallowPLRNN,
    DendriticPLRNN,
    MeanCentredPLRNN,
    ShallowPLRNN,
)
from dsrecon.newton import Newton
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.systems import Baker, Lozi, SkewTent, Tent

KEY = jax.random.key(7)


class Instances(dict):
    """Cells of the rows, by name, made when asked for."""

    def __missing__(self, name):
        return instance(next(row for row in CELLS if row.name == name))


ROWS = Instances()


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
        same(as_matrix(J), jacobian)


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
        G, g = cell.gates(s)
        return region, G @ z + g > 0, A, h, A @ z + h, cell(z, s), jax.jacfwd(cell)(z, s)

    regions, gates, A, h, affine, value, J = laws(2 * states(cell, 64))
    assert (regions == gates).all()
    same(affine, value)
    same(A, J)
    assert regions.dtype == bool and regions.ndim == 2
    # each region has its own map, and only one
    maps = np.concatenate([A.reshape(64, -1), h], axis=1)
    visited = len(np.unique(regions, axis=0))
    assert len(np.unique(maps, axis=0)) == visited
    assert visited > 1 or regions.shape[1] == 0


def neighbours(cell, s, start, end):
    """States `[2, m]` of the segment, adjacent floats along it: the last in the region of its start, and the next."""

    def halve(_, reach):
        inside, outside = reach
        t = (inside + outside) / 2
        stays = jnp.array_equal(cell.region(start + t * (end - start), s), cell.region(start, s))
        return jnp.where(stays, t, inside), jnp.where(stays, outside, t)

    reached = jax.lax.fori_loop(0, 60, halve, (jnp.asarray(0.0), jnp.asarray(1.0)))
    return jax.vmap(lambda t: start + t * (end - start))(jnp.stack(reached))


def beside(z, i, sign):
    """`z` with unit `i` moved by one float; from zero to the least number that XLA does not take for it."""
    x = np.nextafter(z[i], sign * np.inf) if z[i] else sign * np.finfo(float).tiny
    return np.concatenate([z[:i], [x], z[i + 1 :]])


def on_gates(cell):
    """Triples of states: just below a gate, exactly on it, just above."""
    if isinstance(cell, ShallowPLRNN | ClippedShallowPLRNN):
        # the first entry of h2 is 0: the origin is on that gate
        return [[sign * 1e-150 * np.asarray(cell.W2[0]) for sign in (-1, 0, 1)]]
    m, z = cell.state_size, np.asarray(states(cell))
    if isinstance(cell, MeanCentredPLRNN):
        z, places = np.array([1.0, 3.0, 2.0, 2.0]), [(m - 1, 2.0)]  # the mean is 2, exactly
    elif isinstance(cell, DendriticPLRNN | ClippedDendriticPLRNN):
        places = [(0, cell.H[1, 0]), (2, cell.H[0, 2])] + [(1, 0.0)] * isinstance(cell, ClippedDendriticPLRNN)
    elif isinstance(cell, ALRNN | PLRNN):
        places = [(m - 2, 0.0), (m - 1, 0.0)]
    elif isinstance(cell, Lozi):
        places = [(0, 0.0)]
    else:
        gate = {Tent: lambda: 0.5, SkewTent: lambda: cell.c, Baker: lambda: cell.alpha}
        places = [(m - 1, gate[type(cell)]())]
    found = [(np.concatenate([z[:i], [x], z[i + 1 :]]), i) for i, x in places]
    return [[beside(z, i, -1), z, beside(z, i, 1)] for z, i in found]


@pytest.mark.parametrize("row", [r for r in PWL_CELLS if f"{r.name}-driven" not in map(named, PWL_CELLS)], ids=named)
def test_a_pwl_cell_is_affine_up_to_its_boundaries_and_on_them(row):
    cell, s = instance(row), inputs(row)
    if isinstance(cell, ShallowPLRNN | ClippedShallowPLRNN):
        cell = eqx.tree_at(lambda c: c.h2, cell, cell.h2.at[0].set(0.0))
    ends, m = 2 * states(cell, 2, 48), cell.state_size
    triples = jnp.asarray(np.array(on_gates(cell)).reshape(-1, m))

    @jax.jit
    def laws(ends, triples):
        both_sides = jax.vmap(lambda start, end: neighbours(cell, s, start, end))(*ends)

        def law(z):
            region = cell.region(z, s)
            A, h = cell.affine(region, s)
            return region, A, A @ z + h, cell(z, s), jax.jacfwd(cell)(z, s)

        return both_sides, *jax.vmap(law)(jnp.concatenate([both_sides.reshape(-1, m), triples]))

    both_sides, regions, A, affine, value, J = laws(ends, triples)
    same(affine, value, 1e-12, 1e-12)
    same(A, J, 1e-12, 1e-12)
    # some ulps of the ends, and one region on each side of what the segment crosses
    assert np.abs(both_sides[:, 0] - both_sides[:, 1]).max() < 1e-14
    sides, on_them = np.split(np.asarray(regions), [96])
    assert (sides[::2] != sides[1::2]).any(1).sum() > 8
    for below, on, above in on_them.reshape(-1, 3, regions.shape[1]):
        # a gate that is crossed is open on one side, and not on the boundary itself
        assert (below != above).any() and on.tolist() == (below & above).tolist()


def bits(cell, z):
    return cell.region(jnp.asarray(z)).tolist()


def test_region_bits():
    z = jnp.array([1.0, -1.0, 2.0, -3.0])
    for units in range(5):
        region = ALRNN(4, units, key=KEY).region(z)
        assert region.tolist() == (z[4 - units :] > 0).tolist()
    z = z[:3]
    cell = ClippedShallowPLRNN(3, 4, key=KEY)
    u = cell.W2 @ z
    assert cell.region(z).tolist() == [*(u + cell.h2 > 0).tolist(), *(u > 0).tolist()]
    z = np.array([1.0, -1.0, 2.0])
    shallow = ROWS["plain-shallow"]
    assert bits(shallow, z) == (np.asarray(shallow.W2) @ z + shallow.h2 > 0).tolist()
    assert bits(ROWS["plrnn-driven"], z) == [True, False, True]
    assert bits(ROWS["mean-centred"], np.array([6.0, 4.0, 7.0, 5.0])) == [True, False, True, False]
    H = jnp.array([[0.0, 0.0, 3.0], [2.0, -2.0, -1.0]])
    dendritic, clipped = (eqx.tree_at(lambda c: c.H, ROWS[name + "dendritic-driven"], H) for name in ("", "clipped-"))
    assert bits(dendritic, z) == [True, False, False, False, True, True]
    assert bits(clipped, z) == [True, False, False, False, True, True, True, False, True]


def test_equations_of_the_models():
    z, s = jnp.array([0.3, -0.4, 1.2, -0.9]), jnp.array([0.5, -2.0])
    c = stirred(ALRNN(4, 2, input_size=2, key=KEY))
    phi = jnp.concatenate([z[:2], jnp.maximum(z[2:], 0)])
    same(c(z, s), jnp.diag(c.A) @ z + c.W @ phi + c.h + c.C @ s)
    c, z = stirred(ClippedShallowPLRNN(3, 4, input_size=2, key=KEY)), z[:3]
    ramp = jnp.maximum(c.W2 @ z + c.h2, 0) - jnp.maximum(c.W2 @ z, 0)
    same(c(z, s), c.A * z + c.W1 @ ramp + c.h1 + c.C @ s)


def relu(x):
    return np.maximum(x, 0)


def dendrites(c, z, clip):
    return [sum(c.a[b] * (relu(z[i] - c.H[b, i]) - clip * relu(z[i])) for b in range(len(c.a))) for i in range(len(z))]


EQUATIONS = {
    "plrnn": lambda c, z: c.A * z + (c.W - np.diag(np.diag(c.W))) @ relu(z) + c.h,
    "mean-centred": lambda c, z: c.A * z + c.W @ relu(z - z.sum() / len(z)) + c.h,
    "dendritic": lambda c, z: c.A * z + c.W @ dendrites(c, z, 0) + c.h,
    "clipped-dendritic": lambda c, z: c.A * z + c.W @ dendrites(c, z, 1) + c.h,
    "plain-shallow": lambda c, z: c.A * z + c.W1 @ relu(c.W2 @ z + c.h2) + c.h1,
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations_by_hand(name):
    for name_ in (name, f"{name}-driven"):
        cell, z, s = ROWS[name_], np.asarray(states(ROWS[name_])), np.array([0.5, -2.0])
        by_hand = jax.tree.map(np.asarray, cell)
        same(cell(jnp.asarray(z)), EQUATIONS[name](by_hand, z))  # of a driven cell: as with inputs of zero
    same(cell(jnp.asarray(z), jnp.asarray(s)), EQUATIONS[name](by_hand, z) + by_hand.C @ s)


MAPS = {"lozi", "tent", "skew-tent", "baker"}
UNDRIVEN = [row for row in CELLS if row.name in MAPS or f"{row.name}-driven" in {other.name for other in CELLS}]


@pytest.mark.parametrize("row", UNDRIVEN, ids=named)
def test_a_cell_without_inputs_refuses_them(row):
    cell, s = instance(row), jnp.ones((4, 2))
    z = states(cell)
    for refused in (
        lambda: cell(z, s[0]),
        lambda: cell.linearise(z, s[0]),
        lambda: evolve(cell, z, s),
        lambda: evolve(cell, z[None], s[None], solver=Newton()),
        lambda: jax.vmap(cell, (None, 0))(z, s),
    ):
        with pytest.raises(ValueError, match="does not depend on them: build it with input_size=2|takes none"):
            refused()


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
    plain = ShallowPLRNN(3, 4, key=KEY)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(shallow), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PLRNN(40, input_size=9, key=KEY),
        lambda: MeanCentredPLRNN(40, input_size=9, key=KEY),
        lambda: DendriticPLRNN(40, 16, input_size=9, key=KEY),
        lambda: ClippedDendriticPLRNN(40, 16, input_size=9, key=KEY),
    ],
)
def test_start_values_of_the_unit_wise_cells(make):
    cell = jax.tree.map(np.asarray, eqx.filter_jit(make)())
    assert cell.A.min() > 0 and cell.A.max() < 1 and (cell.h == 0).all()
    assert 0.009 < cell.W.std() < 0.011 and 0.008 < cell.C.std() < 0.012
    assert (np.diag(cell.W) == 0).all() == isinstance(cell, PLRNN)
    if isinstance(cell, DendriticPLRNN | ClippedDendriticPLRNN):
        assert np.abs(cell.a).max() <= 16**-0.5
        # of each unit one threshold in each sixteenth of (-3, 3), in an order of its own
        parts = np.floor((cell.H + 3) / 6 * 16)
        assert np.array_equal(np.sort(parts, axis=0), np.tile(np.arange(16.0)[:, None], (1, 40)))
        assert len(np.unique(parts.T, axis=0)) == 40


def test_the_coupling_of_a_plrnn_keeps_a_zero_diagonal():
    cell, off = eqx.filter_jit(lambda: PLRNN(4, key=KEY))(), ~np.eye(4, dtype=bool)
    z = jnp.abs(states(cell)) + 1
    stepped = cell
    for _ in range(3):
        gradient = eqx.filter_jit(eqx.filter_grad(lambda c: jnp.sum(jnp.sin(c(z)))))(stepped)
        assert (np.diag(gradient.W) == 0).all() and (np.asarray(gradient.W)[off] != 0).all()
        stepped = eqx.apply_updates(stepped, jax.tree.map(lambda g: -0.1 * g, gradient))
    assert (np.diag(stepped.W) == 0).all() and (np.asarray(stepped.W != cell.W)[off]).all()
    # what stands there plays no part
    other = eqx.tree_at(lambda c: c.W, cell, cell.W + 9 * jnp.eye(4))
    assert np.array_equal(other(z), cell(z))
    assert np.array_equal(other.linearise(z)[1], cell.linearise(z)[1])


def test_a_mean_centred_cell_rectifies_no_common_shift():
    cell = ROWS["mean-centred"]
    z = states(cell)
    same(cell(z + 5.0) - cell(z), 5.0 * cell.A)
    assert not cell.region(jnp.ones(4)).any()


def test_a_dendritic_cell_of_one_threshold_at_zero_rectifies():
    for name, clipped in (("dendritic", False), ("clipped-dendritic", True)):
        cell = eqx.tree_at(lambda c: (c.a, c.H), ROWS[name], (jnp.ones(1), jnp.zeros((1, 3))))
        z = states(cell)
        phi = 0 * z if clipped else np.maximum(z, 0)
        same(cell(z), cell.A * z + cell.W @ phi + cell.h)


def test_a_clipped_cell_stays_bounded():
    cell = ClippedShallowPLRNN(3, 4, key=KEY)
    far = 1e6 * states(cell, 8)
    bound = jnp.abs(cell.W1) @ jnp.abs(cell.h2) + jnp.abs(cell.h1)
    # |z'| <= max|A| |z| + |W1| |h2| + |h1|; 1e-8 for the rounding of 1e6
    assert jnp.all(jnp.abs(jax.vmap(cell)(far) - cell.A[None] * far) <= bound[None] + 1e-8)


def test_a_clipped_dendritic_cell_stays_bounded():
    # an orbit ends within the bound, whatever it starts from, when |A| < 1
    A = jnp.array([0.5, -0.9, 0.3])
    clipped, plain = (eqx.tree_at(lambda c: c.A, ROWS[name], A) for name in ("clipped-dendritic", "dendritic"))
    c = jax.tree.map(np.asarray, clipped)
    bound = np.abs(c.W) @ (np.abs(c.a) @ np.abs(c.H)) + np.abs(c.h)
    far = np.asarray(1e6 * states(clipped, 8))
    # |z' - A z| <= |W| sum_b |a_b H_b| + |h|; 1e-8 for the rounding of 1e6
    beyond, without = (np.abs(np.asarray(jax.vmap(cell)(far)) - c.A * far) for cell in (clipped, plain))
    assert (beyond <= bound + 1e-8).all() and (beyond > 0.1 * bound).any()
    assert (without > 1e3 * bound).any()
    ends = np.asarray(evolve(clipped, jnp.asarray(far), steps=400).zs[:, -1])
    assert (np.abs(ends) <= bound / (1 - np.abs(c.A)) + 1e-8).all()


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
        (lambda: ShallowPLRNN(3, 0, key=KEY), r"hidden_size must be at least 1: got 0\."),
        (lambda: ShallowPLRNN(-1, 2, key=KEY), r"state_size must be at least 1: got -1\."),
        (lambda: PLRNN(0, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: PLRNN(2, input_size=-1, key=KEY), r"input_size must be at least 0: got -1\."),
        (lambda: MeanCentredPLRNN(0, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: DendriticPLRNN(3, 0, key=KEY), r"bases must be at least 1: got 0\."),
        (lambda: DendriticPLRNN(0, 3, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: ClippedDendriticPLRNN(3, -1, key=KEY), r"bases must be at least 1: got -1\."),
        (lambda: ClippedDendriticPLRNN(3, 1, input_size=-3, key=KEY), r"input_size must be at least 0: got -3\."),
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
