"""Fits of series as they are measured: with gaps, in trials, driven, with counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from dsrecon import ALRNN, ClippedShallowPLRNN, Reconstruction, load, reconstruct, score, simulate
from dsrecon.readout import HaemodynamicReadout, IdentityReadout, LinearReadout
from dsrecon.scaler import Scaler
from dsrecon.series import Clock
from dsrecon.systems import Lorenz63

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
QUICK = {"runs": 2, "steps": 60, "length": 20, "progress": False}

pytestmark = pytest.mark.usefixtures("optimiser_promotion")


@pytest.fixture(scope="module")
def orbit():
    return simulate(Lorenz63(), 3000).values


@pytest.fixture(scope="module")
def driven():
    """A linear system of one variable with one input, `x' = a x + b u` in the units of the data."""
    cell = eqx.tree_at(
        lambda c: (c.A, c.W, c.h, c.C),
        ALRNN(1, 0, input_size=1, key=KEY),
        (jnp.array([0.5]), jnp.zeros((1, 1)), jnp.zeros(1), jnp.array([[2.0]])),
    )
    plain = Scaler(np.zeros(1), np.ones(1))
    readout = IdentityReadout(1, 1, key=KEY)
    return Reconstruction(
        cell,
        readout,
        plain,
        np.array([1.0]),
        Clock(),
        ("x",),
        ("",),
        "{}",
        None,
        ("u",),
        Scaler(np.ones(1), np.ones(1)),
    )


def test_nothing_is_imposed_where_nothing_was_observed(driven):
    model = eqx.tree_at(lambda m: m.input_scaler, driven, None, is_leaf=lambda v: isinstance(v, Scaler))
    x = RNG.normal(size=(9, 1))
    x[[3, 4, 8]] = np.nan
    wanted = [x[0, 0]]
    for value in x[1:, 0]:
        wanted.append(0.5 * wanted[-1] if np.isnan(value) else value)
    assert np.allclose(model.filter(x)[:, 0], wanted, rtol=1e-14)
    assert model.forecast(x, 1).values[0, 0] == pytest.approx(0.25 * x[7, 0])


def test_a_stretch_that_begins_in_a_gap_begins_at_its_first_value(driven):
    model = eqx.tree_at(lambda m: m.input_scaler, driven, None, is_leaf=lambda v: isinstance(v, Scaler))
    assert model.filter(np.array([[np.nan], [np.nan], [3.0]]))[:, 0].tolist() == [3.0, 1.5, 3.0]


def test_row_t_of_the_input_acts_on_the_step_to_row_t(driven):
    u = RNG.normal(size=(8, 1)) + 1  # scaled: minus one
    x, wanted = 1.0, []
    for value in u[:, 0] - 1:
        x = 0.5 * x + 2 * value
        wanted.append(x)
    run = driven.simulate(5, discard=3, inputs=u)
    assert np.allclose(run.values[:, 0], wanted[3:], rtol=1e-12)
    series = RNG.normal(size=(6, 1))
    series[2] = np.nan
    states = driven.filter(series, u[:6])[:, 0]
    assert states[2] == pytest.approx(0.5 * series[1, 0] + 2 * (u[2, 0] - 1))
    ahead = driven.forecast(series, 2, inputs=u).values[:, 0]
    first = 0.5 * series[5, 0] + 2 * (u[6, 0] - 1)
    assert np.allclose(ahead, [first, 0.5 * first + 2 * (u[7, 0] - 1)], rtol=1e-12)


def test_inputs_are_asked_for_and_checked(driven):
    autonomous = eqx.tree_at(lambda m: m.input_scaler, driven, None, is_leaf=lambda v: isinstance(v, Scaler))
    for call, message in (
        (lambda: driven.simulate(3), r"inputs must be given: the model is driven by \('u',\)"),
        (lambda: driven.simulate(3, inputs=np.ones((2, 1))), r"shorter than the observations: trial 0 has 3 rows"),
        (
            lambda: driven.simulate(3, inputs=np.ones((3, 2))),
            r"inputs must be \('u',\), those of the fit: got \('x0', 'x1'",
        ),
        (lambda: driven.forecast(np.ones((4, 1)), 3, inputs=np.ones((6, 1))), "7 rows, its inputs cover 6"),
        (lambda: autonomous.simulate(3, inputs=np.ones((3, 1))), "must be None: the model was fitted without"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_driven_model_is_saved_whole(driven, tmp_path):
    again = load(driven.save(tmp_path / "model.eqx"))
    assert again.input_names == ("u",) and np.array_equal(again.input_scaler.mean, [1.0])


def test_standardisation_is_of_what_was_observed():
    x = RNG.normal(size=(50, 2)) * [2, 3] + 1
    gappy = x.copy()
    gappy[::3, 0] = np.nan
    found = Scaler.fit(gappy, plain=(False, True))
    kept = gappy[np.isfinite(gappy[:, 0]), 0]
    assert found.mean == pytest.approx([kept.mean(), 0], rel=1e-14) and found.mean[1] == 0
    assert found.std == pytest.approx([kept.std(ddof=1), 1], rel=1e-14) and found.std[1] == 1


def fitted(*arguments, **settings):
    model = reconstruct(*arguments, **QUICK, **settings)
    assert np.isfinite(model.runs["loss"]).all() and (model.runs["stopped_at"] == -1).all()
    return model


def test_gaps_and_trials_of_unequal_length_together(orbit):
    scattered = orbit.copy()
    scattered[RNG.random(orbit.shape) < 0.3] = np.nan
    scattered[500:550] = np.nan
    trials = [scattered[:1200], scattered[1200:1900], scattered[1900:]]
    model = fitted(trials, time_step=0.01)
    assert model.settings["validation"]["reason"].endswith(
        "the last 20% of each trial (600 samples) choose among the runs"
    )
    assert np.isfinite(model.anchor).all() and np.isfinite(model.simulate(200, throw=False)).all()
    first = np.isfinite(trials[0]).all(1).argmax()
    assert np.array_equal(model.anchor, trials[0][first])


def test_a_free_run_is_timed_from_the_first_complete_row(orbit):
    values = orbit[:700].copy()
    values[:7, 1] = np.nan
    model = fitted(values, time_step=0.01)
    assert np.array_equal(model.anchor, values[7])
    assert model.simulate(2, throw=False)["time"].values == pytest.approx([0.08, 0.09])


@pytest.mark.slow
def test_one_count_variable_is_embedded_too(orbit):
    rates = np.exp((orbit[:, :1] - orbit[:, :1].mean()) / orbit[:, :1].std())
    model = fitted(RNG.poisson(rates), families={"x0": "poisson"}, lag=15, dimension=3)
    assert model.readout.families == ("poisson",) * 3 and model.scaler.std.tolist() == [1, 1, 1]
    assert (model.simulate(50).values > 0).all()


def test_of_many_trials_whole_ones_are_held_out(orbit):
    trials = np.array_split(orbit, 10)
    model = fitted(trials, time_step=0.01)
    assert "the last 2 of 10 trials choose" in model.settings["validation"]["reason"]
    training = np.concatenate(trials[:8])
    assert np.allclose(model.scaler.mean, training.mean(0)), "what is held out must not leak into the scaler"


def test_a_driven_fit_takes_its_inputs_from_every_trial(orbit):
    drive = [RNG.normal(size=(n, 2)) * [1, 5] + [0, 3] for n in (1000, 2100)]
    model = fitted([orbit[:1000], orbit[1000:]], inputs=drive, time_step=0.01)
    assert model.input_names == ("x0", "x1") and model.cell.C.shape == (3, 2)
    kept = np.concatenate([drive[0][:800], drive[1][:1600]])
    assert np.allclose(model.input_scaler.mean, kept.mean(0)) and np.allclose(
        model.input_scaler.std, kept.std(0, ddof=1)
    )


def test_counts_and_binary_variables_keep_their_units(orbit):
    z = (orbit - orbit.mean(0)) / orbit.std(0)
    mixed = np.stack([orbit[:, 0], RNG.poisson(np.exp(z[:, 1])), RNG.random(3000) < 1 / (1 + np.exp(-z[:, 2]))], 1)
    model = fitted(mixed, families={"x1": "poisson", "x2": "bernoulli"})
    assert model.scaler.mean[1:].tolist() == [0, 0] and model.scaler.std[1:].tolist() == [1, 1]
    rates = model.simulate(300).values
    assert (rates[:, 1] > 0).all() and ((rates[:, 2] > 0) & (rates[:, 2] < 1)).all()


@pytest.mark.slow
def test_readouts_with_more_to_them(orbit):
    linear = fitted(
        orbit,
        lambda key: ClippedShallowPLRNN(5, 8, key=key),
        readout=lambda key: LinearReadout(3, 5, key=key),
    )
    assert linear.settings["readout"]["value"] == "LinearReadout"
    assert np.allclose(linear.observe(linear.filter(orbit[:20], alpha=1.0)), orbit[:20], atol=1e-6 * np.ptp(orbit))
    assert linear.pull == linear.settings["alpha"]["value"] < 1, "hidden units are brought along as in training"
    slow = fitted(
        orbit[:600],
        readout=lambda key: HaemodynamicReadout(3, 3, time_step=4.0, length=24.0, key=key),
    )
    assert slow.simulate(30).shape == (30, 3) and slow.forecast(orbit[:50], 4).shape == (4, 3)


@pytest.mark.parametrize(
    "series, arguments, message",
    [
        (np.full((600, 2), np.nan), {}, "data must hold observations: all 1200 values are NaN"),
        (np.c_[RNG.normal(size=600), np.full(600, np.nan)], {}, "'x1' is never observed"),
        (
            np.c_[RNG.normal(size=600), np.r_[RNG.normal(size=100), np.full(500, np.nan)]],
            {},
            r"'x1' must be observed: it has 0 observations over the validation part",
        ),
        (RNG.normal(size=(600, 2)), {"inputs": np.ones((599, 1))}, "shorter than the observations"),
        (RNG.normal(size=(600, 2)), {"families": {"y": "poisson"}}, r"families must name variables .*got 'y'"),
        (RNG.normal(size=(600, 2)), {"families": {"x1": "poisson"}}, r"x1"),
        (RNG.normal(size=(600, 2)), {"families": {"x1": "gauss"}}, r"gauss"),
        (
            RNG.normal(size=(600, 2)),
            {"families": {"x1": "poisson"}, "readout": lambda key: IdentityReadout(2, 3, key=key)},
            "families or readout, not both",
        ),
        (
            RNG.normal(size=(600, 2)),
            {"readout": lambda key: IdentityReadout(3, 3, key=key)},
            "must show the 2 variables of the series: it shows 3",
        ),
        ([RNG.normal(size=(60, 2)), RNG.normal(size=(60, 2))], {}, "too short: 120 samples"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(series, arguments, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(series, **QUICK, **arguments)


def test_a_driven_model_is_scored_beside_its_inputs_by_their_times(driven):
    u = np.cumsum(RNG.normal(size=(900, 1)), axis=0) * 0.05 + 1
    run = driven.simulate(900, inputs=u).values
    times = 1000 + np.arange(900) * 1.0
    series = pd.DataFrame(run[100:], times[100:], ["x"])  # the inputs begin a hundred rows earlier
    inputs = pd.DataFrame(u, times, ["u"])
    table = score(driven, series, inputs=inputs)
    assert float(table.sel(measure="pe_20")["value"]) < 1e-10, "a perfect model under the right rows"
    assert table.attrs["failed"] == 0 and float(table.sel(measure="d_h")["value"]) < 0.2
    exponent = float(table.sel(measure="lyapunov_max")["value"])
    assert exponent == pytest.approx(np.log(0.5), rel=1e-6)
    with pytest.raises(ValueError, match="inputs must be given"):
        score(driven, series)


def test_inputs_that_the_cell_does_not_take_are_refused():
    series, drive = RNG.normal(size=(600, 2)), RNG.normal(size=(600, 2))
    for cell, message in (
        (lambda key: ALRNN(3, 1, key=key), "does not depend on them: build it with input_size=2"),
        (lambda key: ALRNN(3, 1, input_size=3, key=key), "the cell must take the 2 inputs: build it with input_size=2"),
    ):
        with pytest.raises(ValueError, match=message):
            reconstruct(series, cell, inputs=drive, **QUICK)
