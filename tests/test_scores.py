"""Scores of a reconstruction: mixtures, forecast horizons, gaps, negative controls and what may be read."""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon import evolve, score, simulate
from dsrecon.measures.attractor import d_h, d_stsp, outside
from dsrecon.measures.controls import controls, disorder
from dsrecon.measures.distances import distances, offered
from dsrecon.measures.gaps import filled, observed
from dsrecon.measures.horizon import analogue_horizon, valid_prediction_time
from dsrecon.measures.lyapunov import Exponents
from dsrecon.measures.mixture import d_stsp_mixture, d_transition, transition_lag, transitions
from dsrecon.measures.prediction import analogue_error, prediction_error
from dsrecon.measures.rank import floors, rank
from dsrecon.measures.readable import LIMITS, readable, unreadable
from dsrecon.measures.score import failure, records
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, Series
from dsrecon.systems import Lorenz63, MapCell, ODECell

STEP = 0.1


class Turn(eqx.Module):
    """Planes that turn by `angles` and grow by a factor a step: `z' = growth R(angles) z`."""

    angles: jax.Array
    growth: jax.Array

    def __call__(self, z):
        x, y = z[::2], z[1::2]
        c, s = jnp.cos(self.angles), jnp.sin(self.angles)
        return self.growth * jnp.stack([c * x - s * y, s * x + c * y], axis=1).reshape(z.size)


def turning(angles, growth=1.0):
    """A reconstruction that turns, in the units of its data."""
    n = 2 * len(angles)
    cell = MapCell(Turn(jnp.asarray(angles, dtype=float), jnp.asarray(growth, dtype=float)), n)
    start = np.tile([1.0, 0.0], len(angles))
    names = tuple(f"x{i}" for i in range(n))
    readout = IdentityReadout(n, n, key=jax.random.key(0))
    return Reconstruction(cell, readout, Scaler(np.zeros(n), np.ones(n)), start, Clock(STEP), names, ("",) * n)


def as_truth(values):
    names = tuple(f"x{i}" for i in range(values.shape[1]))
    return Series(np.asarray(values, np.float64), names, Clock(STEP), ("",) * values.shape[1])


def turned(angles, steps):
    """What `turning` gives, by its formula."""
    phase = np.arange(steps)[:, None] * np.asarray(angles)
    return np.stack([np.cos(phase), np.sin(phase)], axis=2).reshape(steps, -1)


def holed(values, share, seed=0, rows=False):
    """The same with random values (or whole rows) missing, the first row not."""
    rng = np.random.default_rng(seed)
    hole = rng.random((len(values), 1 if rows else values.shape[1])) < share
    hole[0] = False
    return np.where(hole, np.nan, values)


@pytest.fixture
def quick(monkeypatch):
    """Fewer draws from the mixtures than a user's table has."""
    monkeypatch.setattr("dsrecon.measures.distances.SAMPLES", 1000)


def lorenz96(x):
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + 8.0


@pytest.fixture(scope="module")
def lorenz():
    return np.asarray(simulate(Lorenz63(), 60_000, dt=0.02))


@pytest.fixture(scope="module")
def ten():
    start = 8 + np.random.default_rng(0).normal(size=10)
    return np.asarray(evolve(ODECell(lorenz96, 0.05, 10, 2), jnp.asarray(start), steps=41_000).zs)[1000:]


# ---------------------------------------------------------------- mixtures


def test_a_mixture_is_at_no_distance_from_itself_in_any_order():
    x = np.random.default_rng(0).normal(size=(500, 7))
    assert d_stsp_mixture(x, x).value == 0.0
    assert d_stsp_mixture(x, x[::-1]).value == pytest.approx(0, abs=1e-12)


def test_two_draws_of_one_distribution_are_equal_within_the_error():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 20_000, 2))
    found = d_stsp_mixture(a, b, samples=2000)
    assert abs(found.value) < 3 * found.standard_error < 0.01


def test_single_gaussians_have_the_textbook_divergence():
    # components 1.41 sd apart and .01 wide do not touch: KL of N(m, v) and N(m + d, v) is d^2 / (2 v)
    true = np.array([[-1.0, 5.0], [1.0, 9.0]])
    sd, v, d = true.std(0, ddof=1), 1e-4, 0.02
    found = d_stsp_mixture(true, true + np.array([d * sd[0], 0]), variance=v)
    assert found.value == pytest.approx(d**2 / (2 * v), abs=4 * found.standard_error)
    assert found.standard_error == pytest.approx(d / v**0.5 / 20_000**0.5, rel=0.03)  # ln p/q has variance d^2 / v


def test_broad_gaussians_have_the_divergence_of_quadrature():
    true, other = np.array([[-2.0], [0.0], [3.0]]), np.array([[1.0], [4.0]])
    m, s = true.mean(), true.std(ddof=1)
    x = np.linspace(-12, 12, 20_001)

    def density(points):
        return np.exp(-((x[None] - (points - m) / s) ** 2) / 2).mean(0) / (2 * np.pi) ** 0.5

    p, q = density(true), density(other)
    wanted = (p * np.log(p / q)).sum() * (x[1] - x[0])
    found = d_stsp_mixture(true, other, samples=100_000)
    assert found.value == pytest.approx(wanted, abs=4 * found.standard_error)
    assert found.standard_error < 0.02 * wanted


def test_units_and_blocks_play_no_part(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(200, 3)) + 0.3
    found = d_stsp_mixture(a, b, samples=500)
    scaled = d_stsp_mixture(1e5 * a + 7, 1e5 * b + 7, samples=500)
    assert scaled.value == pytest.approx(found.value, rel=1e-9)
    monkeypatch.setattr("dsrecon.measures.mixture.BLOCK", 2100)  # blocks of 7 and 10 samples, the last one padded
    assert d_stsp_mixture(a, b, samples=500).value == pytest.approx(found.value, rel=1e-12)


def test_single_precision_meets_double(float32):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2000, 20)), rng.normal(size=(1500, 20)) + 0.1
    single = d_stsp_mixture(a, b, samples=1000)
    with jax.enable_x64(True):
        double = d_stsp_mixture(a, b, samples=1000)
    assert single.value == pytest.approx(double.value, abs=1e-5)


def test_far_points_add_nothing_and_give_no_nan():
    a = np.random.default_rng(4).normal(size=(100, 2))
    half = np.concatenate([a, np.full_like(a, 1e200)])
    assert d_stsp_mixture(a, half).value == pytest.approx(np.log(2), rel=1e-9)
    assert d_stsp_mixture(a, np.full_like(a, 1e200)).value == np.inf
    assert np.isnan(d_stsp_mixture(a, np.full_like(a, np.inf)).value)


def test_the_transition_lag_of_a_wave_is_a_sixth_of_its_period():
    wave = turned([2 * np.pi / 61], 6100)
    assert transition_lag(wave) == 11  # cos(2 pi k / 61) is at most 1/2 from k = 10.2 on
    assert transition_lag(holed(wave, 0.3)) == 11
    assert transition_lag(np.random.default_rng(0).normal(size=(1000, 2))) == 1


def test_transitions_see_the_order_that_visits_do_not(lorenz):
    true, good = lorenz[:5000], lorenz[30_000:35_000]
    floor = d_transition(true, good, samples=2000)
    assert d_transition(true, true).value == 0
    for other in (np.random.default_rng(0).permutation(good), good[::-1]):
        assert d_transition(true, other, samples=2000).value > 5 * max(floor.value, 2 * floor.standard_error)
        visits = d_stsp_mixture(true, other, samples=500).value
        assert visits == pytest.approx(d_stsp_mixture(true, good, samples=500).value, rel=1e-9)


# ---------------------------------------------------------------- gaps


def test_gaps_are_filled_by_straight_lines_and_held_at_the_ends():
    nan = np.nan
    values = np.array([[nan, 1.0], [2.0, nan], [nan, nan], [nan, 7.0], [8.0, nan]])
    wanted = np.array([[2.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 7.0]])
    np.testing.assert_allclose(filled(values), wanted, rtol=1e-15)
    assert np.isnan(values[0, 0])


def test_a_series_with_gaps_is_at_no_distance_from_itself(lorenz):
    whole = lorenz[:2000]
    true = holed(whole, 0.2)
    assert d_h(true, whole) == 0.0
    for definition in ("min-max", "padded", "two-sigma"):
        assert d_stsp(true, observed(whole[np.isfinite(true).all(1)]), definition=definition) == 0.0
    assert d_stsp_mixture(true, observed(true)).value == 0.0
    assert outside(true, observed(true)) == 0.0


def test_gaps_cost_little(lorenz):
    whole, good = lorenz[:5000], lorenz[30_000:35_000]
    true = holed(whole, 0.05)
    assert d_stsp(true, good) == pytest.approx(d_stsp(whole, good), rel=0.3)  # a seventh of the rows is gone
    assert d_h(true, good) == pytest.approx(d_h(whole, good), abs=0.01)
    # filled on one side only, 30 % of gaps look like another spectrum
    gappy = holed(np.random.default_rng(0).normal(size=(5000, 1)), 0.3)
    other = np.random.default_rng(1).normal(size=(5000, 1))
    assert d_h(gappy, other) < 0.5 * d_h(filled(gappy), other)


def test_only_the_entries_that_are_observed_make_the_range():
    true = np.array([[0.0, np.nan], [1.0, 5.0], [np.nan, 6.0], [0.5, 5.5]])
    assert outside(true, np.array([[0.0, 6.0], [1.0, 5.0]])) == 0.0
    assert outside(true, np.array([[0.0, 6.0], [1.0, 9.0]])) == 0.5


def test_a_perfect_model_runs_through_gaps():
    model, whole = turning([0.3, 0.71]), turned([0.3, 0.71], 600)
    true = as_truth(holed(whole, 0.2))
    assert prediction_error(model, true, steps=5) < 1e-20
    assert prediction_error(model, true, steps=5, states=jnp.asarray(whole)) < 1e-20
    slipping = turning([0.31, 0.71])
    # one plane of two slips by .01 a step; each variable has variance 1/2
    assert prediction_error(slipping, true, steps=5) == pytest.approx((2 * np.sin(0.025)) ** 2 / 2, rel=0.1)


def test_only_observed_starts_and_targets_count():
    whole = turned([0.3], 400)
    true = whole.copy()
    true[1::2, 0] = np.nan
    # steps of 2 lead from observed to observed rows, steps of 1 never
    assert analogue_error(true[:200], true[200:], steps=2) < 0.05
    for bad in (lambda: analogue_error(true[:200], true[200:], steps=1),):
        with pytest.raises(ValueError, match="rows 1 steps apart that are observed in every variable: none"):
            bad()
    with pytest.raises(ValueError, match="rows 1 steps apart"):
        prediction_error(turning([0.3]), as_truth(true), steps=1)


def test_ranks_and_floors_take_gaps(lorenz):
    true = holed(lorenz[:4000], 0.1)
    scale = floors(true, holed(lorenz[30_000:32_000], 0.1, seed=1))
    found = rank(true, lorenz[40_000:42_000], scale)
    assert np.isfinite(list(found.values())).all() and found["score"] < 4
    assert failure(true, lorenz[40_000:42_000]) == ""
    bad = controls(true, length=2000)
    assert rank(true, bad["white"], scale)["score"] > 5 * found["score"]
    gone = lorenz[:2000].copy()
    gone[5] = np.nan
    assert rank(true, gone, scale)["score"] == np.inf and "not finite from step 5" in failure(true, gone)


def test_more_than_five_variables_are_ranked_by_mixtures(ten):
    true, run = ten[:5000], ten[20_000:25_000]
    scale = floors(true, ten[30_000:35_000])
    assert set(scale) == {"d_h", "d_stsp"}
    good = rank(true, run, scale)
    assert good["score"] < 4 and good["d_stsp"] < 1, "by bins it would be far above"
    assert rank(true, controls(true)["constant"], scale)["score"] > 5 * good["score"]


# ---------------------------------------------------------------- horizons


def test_the_horizon_of_a_slip_is_its_formula():
    # two rotations slip by .01 a step: |x - xhat| = 2 sin(.005 k), which passes .4 from k = 40.3 on
    model, true = turning([0.31]), as_truth(turned([0.3], 3000))
    found = valid_prediction_time(model, true, exponent=0.5)
    assert found.median == pytest.approx(41 * STEP) and found.mean == pytest.approx(41 * STEP)
    assert found.median_interval == pytest.approx((41 * STEP, 41 * STEP))
    assert found.lyapunov_times == pytest.approx(41 * STEP * 0.5)
    assert found.censored == 0 and found.standard_error == 0 and len(found.times) == 200


@pytest.mark.parametrize("threshold, steps", [(0.4, 34), (0.1, 10)])
def test_the_horizon_of_a_growing_error_is_its_formula(threshold, steps):
    # the error grows as 1.01^k - 1
    found = valid_prediction_time(turning([0.3], 1.01), as_truth(turned([0.3], 3000)), threshold=threshold)
    assert found.median == pytest.approx(steps * STEP)


def test_a_forecast_that_never_fails_is_censored():
    true = as_truth(turned([0.3], 3000))
    found = valid_prediction_time(turning([0.3]), true, steps=70)
    assert found.censored == 1 and found.median == found.limit == pytest.approx(7.0)
    assert np.isnan(found.lyapunov_times)
    diverging = valid_prediction_time(turning([0.3], 1e200), true)
    assert diverging.median == pytest.approx(STEP) and diverging.censored == 0


def test_units_and_precision_play_no_part_in_a_horizon(float32):
    model, values = turning([0.31, 0.2]), turned([0.3, 0.2], 1000)
    found = valid_prediction_time(model, as_truth(values), steps=300)
    factor = np.array([1e-3, 1e-3, 1e4, 1e4])
    scaled = eqx.tree_at(lambda m: m.scaler, model, Scaler(np.zeros(4), factor))
    other = valid_prediction_time(scaled, as_truth(values * factor), steps=300)
    # half of the variables slip, so the error is 2 sin(.005 k) / sqrt 2
    assert found.median == other.median == pytest.approx(58 * STEP)


def test_a_horizon_passes_over_gaps():
    values = turned([0.3], 3000)
    found = valid_prediction_time(turning([0.31]), as_truth(holed(values, 0.3, rows=True)))
    assert np.isfinite(values[found.starts]).all()
    assert 41 * STEP <= found.median <= 42 * STEP + 1e-9 and found.times.max() > 42 * STEP
    gap = values.copy()
    gap[500:520] = np.nan
    found = valid_prediction_time(turning([0.31]), as_truth(gap), starts=1500)
    late = (found.starts >= 500 - 41) & (found.starts < 520 - 41)  # where the 41st step falls into the gap
    np.testing.assert_allclose(found.times[late], (520 - found.starts[late]) * STEP)
    np.testing.assert_allclose(found.times[~late], 41 * STEP)


def test_analogues_of_a_periodic_series_never_fail():
    values = turned([2 * np.pi / 20], 500)
    found = analogue_horizon(values, values, dt=STEP, steps=50)
    assert found.censored == 1
    slipping = analogue_horizon(turned([2 * np.pi / 20 + 0.01], 500), values, dt=STEP, steps=100)
    assert 30 * STEP < slipping.median < 55 * STEP  # 41 steps, and up to half a step of phase to begin with


# ---------------------------------------------------------------- negative controls


def test_controls_are_what_they_say(lorenz):
    true = holed(lorenz[:3000], 0.1)
    made = controls(true, length=4000, seed=1)
    assert all(v.shape == (4000, 3) and np.isfinite(v).all() for v in made.values())
    np.testing.assert_allclose(made["white"].std(0), np.nanstd(true, 0), rtol=0.05)
    np.testing.assert_allclose(made["constant"], np.tile(np.nanmean(true, 0), (4000, 1)), rtol=1e-12)
    rows = {tuple(r) for r in observed(true)}
    assert {tuple(r) for r in made["shuffled"]} == rows


BLIND = {(m, "shuffled") for m in ("d_stsp", "d_stsp_padded", "d_stsp_two_sigma", "d_stsp_mixture")}
"""By construction: a shuffle visits the same states, so a distance between visits cannot see it."""


@pytest.mark.parametrize("system", ["lorenz", "ten"])
def test_every_control_is_five_times_worse_than_a_good_fit(request, system, quick):
    values = request.getfixturevalue(system)
    true, good = values[:20_000], values[30_000:40_000]
    bad = controls(true, length=10_000)
    for measure, distance in offered(true, 10_000).items():
        found = {name: distance.compare(true, other) for name, other in {"fit": good, **bad}.items()}
        value, error = found["fit"] if isinstance(found["fit"], tuple) else (found["fit"], 0.0)
        for control in bad:
            other = found[control]
            ratio = (other[0] if isinstance(other, tuple) else other) / max(value, 2 * error)
            if (measure, control) in BLIND:
                assert ratio < 1.5, (measure, control, ratio)
            else:
                assert ratio > 5, (measure, control, ratio)
    assert all(disorder(true, other) for other in bad.values())
    assert disorder(true, good) == ""


def test_runs_without_motion_or_order_are_told_apart(lorenz):
    true = holed(lorenz[:5000], 0.05)
    bad = controls(true)
    assert "does not move" in disorder(true, bad["constant"])
    assert "no order in time" in disorder(true, bad["shuffled"])
    assert "no order in time" in disorder(true, bad["white"])
    decaying = lorenz[:5000].mean(0) + np.exp(-np.arange(5000) / 200)[:, None] * lorenz[:5000]
    assert "does not move" in disorder(true, decaying)
    # noise has no order to keep, a truth at rest no motion; a wrong but smooth run is other measures' business
    assert disorder(bad["white"], np.random.default_rng(0).permutation(bad["white"])) == ""
    assert disorder(decaying, decaying) == ""
    assert disorder(true, turned([0.1, 0.2], 3000)[:, :3]) == ""


def test_a_floor_lies_below_its_ceiling(lorenz, quick):
    true = holed(lorenz[:12_000], 0.02)
    rows = distances(true, lorenz[30_000:36_000], {"d_stsp": "as if it could not be read"})
    assert "d_stsp" not in rows and set(rows) == {"d_stsp_padded", "d_stsp_two_sigma", "d_transition", "d_h", "outside"}
    for name in set(rows) - {"outside"}:
        assert rows[name].value < 0.6 * rows[name].ceiling and rows[name].floor < 0.6 * rows[name].ceiling
    assert rows["outside"].value == 0 and rows["outside"].floor < 0.01


# ---------------------------------------------------------------- the table


def test_a_perfect_model_scores_its_floor_and_every_row_is_complete(quick):
    angles = [0.5, 0.31, 0.17]
    values = turned(angles, 20_000)
    table = score(turning(angles), as_truth(holed(values, 0.02)), steps=10_000)
    assert not table.attrs["failed"], table.attrs["reason"]
    named = [str(m) for m in table["measure"].values]
    assert {"d_stsp_mixture", "d_transition", "d_h", "outside", "pe_1", "pe_20", "vpt"} <= set(named)
    assert "d_stsp" not in named and "at most 5" in table.attrs["unreadable"]
    rows = {r["measure"]: r for r in records(table)}
    for name in ("d_stsp_mixture", "d_transition"):
        row = rows[name]
        assert row["error"] > 0 and row["value"] < row["floor"] + 5 * row["error"] < row["ceiling"]
    assert rows["d_h"]["value"] < 0.1 < rows["d_h"]["ceiling"]
    assert rows["pe_20"]["value"] < 1e-20 and "never pass" in rows["vpt"]["definition"]
    assert rows["vpt"]["value"] == pytest.approx(2000 * STEP) and rows["vpt"]["ceiling"] is None
    for record in rows.values():
        assert set(record) == {"measure", "value", "floor", "ceiling", "error", "definition", "length"}
        json.dumps(record, allow_nan=False)


@pytest.mark.parametrize(
    "largest, error, dimension, spread",
    [
        (-1e-3, 0.9e-3, 0.0, 1.0),  # a limit cycle, measured just below zero: it may be 1
        (-1e-3, 1e-4, 0.0, 0.0),  # a fixed point
        (1e-3, 0.9e-3, 1.002, 0.002),  # a limit cycle, measured just above zero
    ],
)
def test_a_dimension_that_hangs_on_a_zero_exponent_says_so(quick, monkeypatch, largest, error, dimension, spread):
    found = Exponents(np.array([largest, -0.5, -0.6, -0.7]), np.array([error, 1e-4, 1e-4, 1e-4]))
    monkeypatch.setattr(sys.modules["dsrecon.measures.score"], "lyapunov_mean", lambda *a, **k: found)
    table = score(turning([0.5, 0.31]), as_truth(turned([0.5, 0.31], 800)), steps=300)
    row = {r["measure"]: r for r in records(table)}["kaplan_yorke"]
    assert row["value"] == pytest.approx(dimension) and row["floor"] == row["error"]
    assert row["error"] == pytest.approx(spread, rel=0.02, abs=1e-6)
    assert ("not told from zero, at which this would be 1" in row["definition"]) == (spread == 1)


def test_a_time_that_is_as_long_as_forecasts_were_followed_is_marked(quick):
    angles = [2 * np.pi / 20]  # neighbours in a periodic series foretell it for ever
    table = score(turning([angles[0] + 0.01]), as_truth(turned(angles, 800)), steps=300)
    row = {r["measure"]: r for r in records(table)}["vpt"]
    assert row["floor"] == pytest.approx(150 * STEP) and row["value"] < row["floor"]
    assert "100 % of which never pass within 15: it may be longer" in row["definition"]
    assert table.attrs["capped"] == "the floor of vpt is at least 15: forecasts were followed no further than 15"
    both = score(turning(angles), as_truth(turned(angles, 800)), steps=300).attrs["capped"]
    assert both.startswith("the value of vpt is at least 15: ") and "; the floor of vpt is at least 15: " in both
    chance = np.random.default_rng(0).normal(size=(800, 2))
    assert score(turning(angles), as_truth(chance), steps=300).attrs["capped"] == ""


def test_a_run_that_stands_still_has_failed(quick):
    truth = as_truth(turned([0.5, 0.31], 4000))
    table = score(turning([0.5, 0.31], 0.9), truth, steps=2000)
    assert table.attrs["failed"] and "does not move" in table.attrs["reason"]
    assert "times its floor" in table.attrs["warning"]


def test_what_cannot_be_read_is_left_out_and_listed(quick):
    table = score(turning([0.5, 0.31]), as_truth(turned([0.5, 0.31], 800)), steps=300)
    left = table.attrs["unreadable"]
    for name in ("d_stsp", "d_stsp_padded", "d_stsp_two_sigma"):
        assert name not in table["measure"].values and f"{name}: " in left
    assert "d_h" in table["measure"].values


# ---------------------------------------------------------------- what may be read


def test_the_limits_are_those_that_were_measured():
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "readable.json"
    measured = json.loads(path.read_text())["limits"]
    assert {m: {str(n): v for n, v in limit.least.items()} for m, limit in LIMITS.items()} == measured


def test_what_may_be_read_is_told_in_words():
    long, short = readable(20_000, 3), readable(200, 3)
    assert bool(long.sel(measure="d_stsp")["readable"]) and not bool(short.sel(measure="d_stsp")["readable"])
    assert "got 200" in str(short.sel(measure="d_stsp")["reason"].values)
    assert bool(short.sel(measure="d_h")["readable"])
    assert "at most 5 variables: got 10" in str(readable(20_000, 10).sel(measure="d_stsp")["reason"].values)
    assert "not measured above 20 variables" in str(readable(20_000, 50).sel(measure="d_transition")["reason"].values)
    assert all(readable(10_000, 4)["reason"].values != "")
    assert "order in time" in str(long.sel(measure="d_stsp_mixture")["blind"].values)
    assert set(unreadable(200, 3)) == set(short["measure"].values[~short["readable"].values])


X = np.random.default_rng(1).normal(size=(50, 2))
GONE = np.where(np.arange(2) == 1, np.nan, X)
SPLIT = np.where((np.arange(50)[:, None] % 2) == np.arange(2), np.nan, X)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: d_stsp_mixture(X, X[:, :1]), r"generated must have shape \[time, 2\].*got \(50, 1\)"),
        (lambda: d_stsp_mixture(X, X, variance=0.0), r"variance must be positive and finite: got 0.0"),
        (lambda: d_stsp_mixture(X, X, samples=1), r"samples must be at least 2: got 1"),
        (lambda: d_stsp_mixture(X, X, points=1), r"points must be at least 2: got 1"),
        (lambda: d_stsp_mixture(np.ones((5, 2)), X), r"vary in every channel: channel 0 is constant"),
        (lambda: d_stsp_mixture(GONE, X), r"true must be observed in every channel: channel 1 is all NaN"),
        (lambda: d_stsp_mixture(SPLIT, X), r"at least 2 rows that are observed in every channel: got 0 of 50"),
        (lambda: d_transition(X, X, lag=50), r"lag must lie between 1 and the lengths 50 and 50: got 50"),
        (lambda: transition_lag(X[:7]), r"at least 8 samples: got 7"),
        (lambda: d_h(GONE, X), r"true must be observed in every channel: channel 1 is all NaN"),
        (lambda: d_stsp(SPLIT, X), r"at least 2 rows that are observed in every channel: got 0 of 50"),
        (lambda: outside(GONE, X), r"channel 1 is all NaN"),
        (lambda: filled(GONE), r"values must be observed in every channel: channel 1 is all NaN"),
        (lambda: controls(X, length=0), r"length must be at least 1: got 0"),
        (lambda: readable(0, 3), r"length must be at least 1: got 0"),
        (lambda: readable(10, 0), r"variables must be at least 1: got 0"),
        (lambda: analogue_horizon(X[:5], X, steps=5), r"longer than steps=5: got 5"),
        (lambda: analogue_horizon(X, X, steps=50), r"steps must lie between 1 and .*50: got 50"),
        (lambda: analogue_horizon(X, X, threshold=0.0), r"threshold must be positive and finite: got 0.0"),
        (lambda: analogue_horizon(X, X, starts=1), r"starts must be at least 2: got 1"),
        (lambda: analogue_horizon(X, SPLIT), r"at least 2 rows to start from.*got 0"),
        (lambda: score(turning([0.3]), as_truth(np.tile(SPLIT, (10, 1)))), r"observed in every variable: it has none"),
        (lambda: score(turning([0.3]), as_truth(turned([0.3], 500)), inputs=np.ones((500, 1))), r"inputs must be None"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_transitions_join_each_state_with_a_later_one():
    np.testing.assert_array_equal(transitions(X, 3)[4], np.concatenate([X[4], X[7]]))


def test_a_floor_may_be_taken_of_as_many_points_as_the_run_has(lorenz):
    true, other = holed(lorenz[:3000], 0.3), holed(lorenz[30_000:33_000], 0.3, seed=1)
    few = floors(true, other)
    same = floors(true, other, points=lorenz[30_000:33_000])
    assert few["d_h"] == same["d_h"] and few["d_stsp"] > 1.2 * same["d_stsp"], "a third of the rows makes a worse floor"
    assert same["d_stsp"] == floors(true, lorenz[30_000:33_000])["d_stsp"]
