"""The seed atlas: one ensemble whose members are what they would be alone, laid out by their regions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from dsrecon import plot, simulate
from dsrecon.evolve import evolve
from dsrecon.models import ALRNN
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.reconstruct.atlas import in_floors, plain_cell, seed_atlas
from dsrecon.reconstruct.visits import SHARE, compared, free_runs
from dsrecon.systems import Lorenz63
from dsrecon.training import Windows, fit, gtf, radam

pytestmark = pytest.mark.usefixtures("optimiser_promotion")

UNITS, ALPHAS, SEEDS, UPDATES = (3, 1), (0.1, 0.4), 1, 100
RATES = (5e-3, 1e-3)


@pytest.fixture(scope="module")
def data():
    return simulate(Lorenz63(), 2000, dt=0.02)


@pytest.fixture(scope="module")
def atlas(data):
    with jax.numpy_dtype_promotion("standard"):
        return small(data)


def small(data):
    settings = {"state_size": 5, "length": 20, "batch": 4, "steps": UPDATES, "learning_rate": RATES, "threads": 1}
    return seed_atlas(data, pwl_units=UNITS, alphas=ALPHAS, seeds=SEEDS, key=3, **settings)


def member(models, run):
    return jax.tree.map(lambda v: v[run] if eqx.is_array(v) else v, models)


def alone(found, run):
    """The same run by itself: a plain `ALRNN` of its own P, the same windows, the same key, nothing padded."""
    key, runs = jax.random.key(3), found.table.sizes["run"]
    cell_key, readout_key = jax.random.split(jax.random.split(jax.random.fold_in(key, 0), runs)[run])
    P, alpha = int(found.table["P"][run]), float(found.table["alpha"][run])
    updates = int(found.table["best_at"][run])  # its kept state
    trained, _ = fit(
        Forced(ALRNN(5, P, key=cell_key), IdentityReadout(3, 5, key=readout_key)),
        gtf(alpha),
        Windows(found.fit.data.x, length=20, batch=4),
        optax.chain(optax.clip_by_global_norm(10.0), radam(*RATES, UPDATES)),
        steps=updates,
        key=jax.random.split(jax.random.fold_in(key, 1), runs)[run],
        every=updates,
    )
    return trained


def check_a_member_is_the_run_alone(found, tolerance):
    run = 2  # P = 1 at alpha = .1, in an ensemble with room for three
    assert found.table["best_at"][run] >= 20
    trained, kept, other = alone(found, run), found.reconstruction(run), found.reconstruction(3)
    assert (kept.cell.pwl_units, trained.cell.pwl_units) == (1, 1)
    for a, b in zip(jax.tree.leaves(trained.cell), jax.tree.leaves(kept.cell), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    assert np.abs(np.asarray(kept.cell.W) - np.asarray(other.cell.W)).max() > 10 * tolerance


def test_a_member_is_the_same_run_alone(atlas):
    check_a_member_is_the_run_alone(atlas, 1e-10)


@pytest.mark.slow
def test_a_member_is_the_same_run_alone_in_single_precision(data, float32):
    # sums of a batched product are taken in another order, and a hundred updates carry that on
    check_a_member_is_the_run_alone(small(data), 1e-4)


def test_the_table_holds_every_combination(atlas):
    table = atlas.table
    found = {(int(r["P"]), float(r["alpha"]), int(r["seed"])) for r in (table.isel(run=i) for i in range(4))}
    assert found == {(p, a, s) for p in UNITS for a in ALPHAS for s in range(SEEDS)}
    assert table.sizes["run"] == 4
    ratio = table["d_stsp"].values / table.attrs["d_stsp_floor"]
    np.testing.assert_allclose(table["d_stsp_floors"].values, ratio)
    total = table["d_stsp_floors"].values + table["d_h_floors"].values
    sound = table["failure"].values == ""
    np.testing.assert_allclose(table["score"].values[sound], total[sound])  # the floors are those of the fit
    assert sound.any()
    cells = atlas.fit.model.cell
    assert cells.pwl_units == 3
    np.testing.assert_array_equal(cells.rectified.sum(1), table["P"].values)


def test_a_run_as_a_plain_cell_is_the_same_map(atlas):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(50, 5)))
    for run in range(4):
        padded, plain = member(atlas.fit.model, run).cell, atlas.reconstruction(run).cell
        assert type(plain) is ALRNN
        assert plain.pwl_units == int(atlas.table["P"][run])
        np.testing.assert_array_equal(jax.vmap(padded)(z), jax.vmap(plain)(z))
        bits = jax.vmap(plain.region)(z)
        assert bits.shape == (50, plain.pwl_units)
        A, h = jax.vmap(plain.affine)(bits)
        np.testing.assert_allclose(jnp.einsum("tij,tj->ti", A, z) + h, jax.vmap(plain)(z), atol=1e-12)


def test_a_driven_cell_keeps_its_inputs():
    cell = ALRNN(4, 3, input_size=2, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: c.rectified, cell, jnp.arange(4) >= 3)
    plain = plain_cell(cell, 1)
    z, s = jnp.arange(4.0) - 1.5, jnp.array([0.3, -2.0])
    np.testing.assert_array_equal(plain(z, s), cell(z, s))


def test_regions_are_counted_on_the_device_as_numpy_counts_them():
    P = 40  # more than one word of bits
    keys = jax.random.split(jax.random.key(0), 3)
    cells = eqx.filter_vmap(lambda key: ALRNN(44, P, input_size=2, key=key))(keys)
    cells = eqx.tree_at(lambda c: c.C, cells, jax.random.normal(jax.random.key(1), (3, 44, 2)))
    rectified = jnp.asarray(np.arange(44) >= 44 - np.array([[40], [6], [0]]))
    cells = eqx.tree_at(lambda c: c.rectified, cells, rectified)
    models = eqx.filter_vmap(lambda c, k: Forced(c, IdentityReadout(2, 44, key=k)))(cells, keys)
    drive, start = jax.random.normal(jax.random.key(2), (400, 2)), jnp.array([0.5, -0.3])
    found = free_runs(models, start, drive, 400, 100)
    for run in range(3):
        model = member(models, run)
        zs = evolve(model.cell, model.readout.start(start), drive, throw=False).zs[100:]
        counts = np.unique(np.asarray(jax.vmap(model.cell.region)(zs)), axis=0, return_counts=True)[1]
        assert int(found.regions[run]) == len(counts)
        needed = np.ceil(SHARE * 300)
        assert int(found.regions_99[run]) == 1 + int((np.cumsum(np.sort(counts)[::-1]) < needed).sum())
        np.testing.assert_allclose(found.xs[run], zs[:, :2], atol=1e-9)
    assert int(found.regions[0]) > int(found.regions[1]) > int(found.regions[2]) == 1


def test_a_run_that_is_not_finite_visits_nothing():
    cell = ALRNN(3, 2, key=jax.random.key(0))
    wild = eqx.tree_at(lambda c: c.W, cell, 1e3 * jnp.eye(3))
    models = jax.tree.map(lambda *v: jnp.stack(v), cell, wild)
    readout = eqx.filter_vmap(lambda k: IdentityReadout(3, 3, key=k))(jax.random.split(jax.random.key(0), 2))
    models = eqx.filter_vmap(lambda c, r: Forced(c, r))(models, readout)
    found = free_runs(models, jnp.ones(3), None, 200, 0)
    assert int(found.regions[0]) >= 1
    assert int(found.regions[1]) == int(found.regions_99[1]) == 0


def laid_out(atlas, regions, floors, failures=()):
    """The atlas with these numbers in its table: `d_stsp` at so many floors, `d_h` at half as many."""
    runs, floors = len(regions), np.array(floors, float)
    table = xr.Dataset(
        {
            "d_stsp": ("run", 0.5 * floors),
            "d_h": ("run", 0.1 * floors),
            "regions": ("run", np.array(regions)),
            "failure": ("run", ["broken" if i in failures else "" for i in range(runs)]),
        },
        {"run": np.arange(runs), "P": ("run", np.ones(runs, int))},
        {"d_stsp_floor": 0.5, "d_h_floor": 0.2},
    )
    return atlas._replace(table=in_floors(table))


def test_the_front_is_what_nothing_beats(atlas):
    rng = np.random.default_rng(0)
    for _ in range(20):
        regions, floors = rng.integers(1, 8, 12), rng.uniform(1, 5, 12)
        front = laid_out(atlas, regions, floors).front
        beaten = [
            any(
                (r <= regions[i]) & (f <= floors[i]) & ((r < regions[i]) | (f < floors[i]))
                for r, f in zip(regions, floors, strict=True)
            )
            for i in range(12)
        ]
        assert sorted(front["run"].values) == [i for i in range(12) if not beaten[i]]
        assert (np.diff(front["regions"].values) > 0).all()
        assert (np.diff(front["floors"].values) < 0).all()


def test_the_smallest_has_the_fewest_regions_within_the_floors(atlas):
    found = laid_out(atlas, [2, 3, 3, 9, 1], [2.5, 1.9, 1.7, 1.1, 1.0], failures=(4,))
    assert found.smallest() == 2
    assert found.smallest(floors=1.2) == 3
    assert found.smallest(floors=3.0) == 0
    assert list(found.within(2.0)["run"].values) == [2, 1, 3]
    assert 4 not in found.front["run"].values
    with pytest.raises(RuntimeError, match=r"No run is within 1 floors. The nearest is run 3 \(P = 1, 9 regions\)"):
        found.smallest(floors=1.0)
    with pytest.raises(RuntimeError, match="Every run failed, so none is within 2 floors: broken"):
        laid_out(atlas, [2], [1.0], failures=(0,)).smallest()
    with pytest.raises(ValueError, match="floors must be above 0: got 0"):
        found.smallest(floors=0.0)


def test_both_distances_must_be_within(atlas):
    found = laid_out(atlas, [2, 4], [1.5, 1.5])
    far = found.table.assign(d_h=("run", [5.0, 0.1]))
    found = found._replace(table=in_floors(far))
    assert found.smallest() == 1
    assert float(found.table["floors"][0]) == pytest.approx(25.0)


def test_a_perfect_member_scores_about_its_floor_against_the_truth(atlas, data):
    """Scored against the truth by one map whose free run is a true stretch: what the floors are made to be."""
    truth = simulate(Lorenz63(), 8000, dt=0.02)
    found = atlas.against(truth, steps=1500)
    assert found.table.sizes["run"] == 4
    assert found.table.attrs["against"] == "truth of 8000 samples"
    assert found.fit is atlas.fit
    assert np.isinf(found.table["score"].values[found.table["failure"].values != ""]).all()
    compare, scale = compared(truth.values, 1500)
    same = compare(truth.values[-1500:])
    assert same["d_stsp"] / scale["d_stsp_floor"] == pytest.approx(1.0, abs=0.2)  # one of the stretches of the floor
    assert same["d_h"] / scale["d_h_floor"] < 1.2  # of five pairs one is the stretch with itself
    assert compare(np.full((1500, 3), np.nan))["failure"].startswith("the free run is not finite")
    worst = atlas.reconstruction(0).simulate(1500, start=truth.values[0], discard=150)
    row = compare(worst.values)
    scaled = atlas.fit.data.scaler
    assert float(found.table["d_h"][0]) == pytest.approx(row["d_h"], rel=1e-6)
    assert scaled.mean.shape == (3,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pwl_units": (1, 6)}, r"pwl_units must be different integers between 0 and state_size=5.*got \(1, 6\)"),
        ({"pwl_units": (2, 2)}, r"pwl_units must be different integers.*got \(2, 2\)"),
        ({"pwl_units": ()}, r"pwl_units must be different integers.*got \(\)"),
        ({"alphas": (0.1, 1.5)}, r"alphas must be different numbers in \[0, 1\].*got \(0.1, 1.5\)"),
        ({"alphas": ()}, r"alphas must be different numbers.*got \(\)"),
        ({"alphas": (0.1,), "interval": 4}, "give alphas or interval, not both.*interval=4"),
        ({"interval": 0}, "interval must be a whole number from 1 on: got 0"),
        ({"seeds": 0}, "seeds must be a whole number from 1 on: got 0"),
        ({"state_size": 0, "pwl_units": (0,)}, "state_size must be a whole number from 1 on: got 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_fitted(settings, words):
    with pytest.raises(ValueError, match=words):
        seed_atlas(None, **{"state_size": 5, "pwl_units": (1,), **settings})


def test_other_bad_input(atlas, data):
    with pytest.raises(ValueError, match="run must lie between 0 and 3: got 4"):
        atlas.reconstruction(4)
    with pytest.raises(ValueError, match="steps must lie between 100 and half of the truth, 1000: got 1500"):
        atlas.against(data, steps=1500)


def test_the_settings_name_the_units_of_the_run(atlas):
    model = atlas.reconstruction(2)
    assert model.settings["pwl_units"]["value"] == 1
    assert model.settings["alpha"]["value"] == 0.1
    assert "regions" in model.runs
    assert model.runs.attrs["best"] == 2
    assert model.simulate(20).shape == (20, 3)


def test_the_figure_shows_each_member_the_front_and_the_chosen_one(atlas):
    found = laid_out(atlas, [2, 3, 3, 9, 1], [2.5, 1.9, 1.7, 1.1, 1.0], failures=(4,))
    figure = plot.pareto(found)
    panel = figure.axes[0]
    assert panel.get_yscale() == "log"
    dots = np.concatenate([line.get_ydata() for line in panel.lines if line.get_marker() == "o"])
    assert sorted(dots) == pytest.approx(sorted([2.5, 1.9, 1.7, 1.1, 1.7]))  # the chosen one is ringed too
    texts = [text.get_text() for text in panel.get_legend().get_texts()]
    assert texts[0] == "P = 1"
    assert "run 2: 3 regions,\n1.7 floors" in texts
    assert "1 failed" in texts
    none = plot.pareto(laid_out(atlas, [2, 300], [9.0, 8.0]))
    assert none.axes[0].get_xscale() == "log"
    assert not any("run" in text.get_text() for text in none.axes[0].get_legend().get_texts())
    figure.canvas.draw()
    none.canvas.draw()
