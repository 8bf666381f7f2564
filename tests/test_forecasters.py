"""PGN, TPGN and the forecasters they have to beat: their equations, on one window."""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.models import (
    ALRNN,
    PGN,
    TPGN,
    CellForecaster,
    CombinedForecaster,
    DLinear,
    LinearForecaster,
    Parrot,
    SeasonalNaive,
)
from dsrecon.models.pgn import laid_out
from dsrecon.readout import IdentityReadout

KEY = jax.random.key(0)
FIXTURE = (
    Path(os.environ.get("DSRECON_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures")) / "tpgn_forward.npz"
)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


# --- PGN ---------------------------------------------------------------------------------------------------


def step_by_step(pgn, x):
    """The equations, one step at a time."""
    (d, _, w), out = pgn.W.shape, []
    for t in range(len(x)):
        H = pgn.h + sum((pgn.W[:, :, i - 1] @ x[t - i] for i in range(1, min(w, t) + 1)), jnp.zeros(d))
        both = jnp.concatenate([x[t], H])
        G = jax.nn.sigmoid(pgn.V[:d] @ both + pgn.v[:d])
        C = jnp.tanh(pgn.V[d:] @ both + pgn.v[d:])
        out.append(G * H + (1 - G) * C)
    return jnp.stack(out)


@pytest.mark.parametrize("length, window", [(1, 3), (6, 1), (7, 3), (7, 6), (5, 9)])
def test_a_pgn_is_its_equations(length, window):
    pgn, x = PGN(2, 3, window, key=KEY), normal(length, 2)
    assert np.allclose(pgn(x), step_by_step(pgn, x), atol=1e-12)


def test_convolved_is_laid_out(monkeypatch):
    pgn, x = PGN(2, 3, 5, key=KEY), normal(12, 2)

    def run(pgn, x):
        return jnp.sum(pgn(x) ** 2)

    value, slopes = jax.value_and_grad(run, argnums=(0, 1))(pgn, x)
    monkeypatch.setattr("dsrecon.models.pgn.DENSE", 0)
    assert "conv_general_dilated" in str(jax.make_jaxpr(pgn)(x))
    other, others = jax.value_and_grad(run, argnums=(0, 1))(pgn, x)
    assert np.isclose(value, other, rtol=1e-12)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True):
        assert np.allclose(a, b, atol=1e-12)


def test_taps_laid_out_are_a_toeplitz_matrix():
    matrix = laid_out(jnp.arange(1.0, 4.0).reshape(1, 1, 3), 5)
    wanted = [[max(r - s, 0) if r - s <= 3 else 0 for s in range(5)] for r in range(5)]
    assert matrix.tolist() == wanted


def test_a_pgn_does_not_look_ahead_nor_beyond_its_window():
    pgn, x = PGN(1, 2, 3, key=KEY), normal(10, 1)
    changed = pgn(x.at[5].add(1.0)) - pgn(x)
    assert (jnp.abs(changed).sum(1) > 0).tolist() == [5 <= t <= 8 for t in range(10)]
    assert np.allclose(pgn(x[:6]), pgn(x)[:6], atol=1e-14)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_pgn_of_no_size_is_refused(sizes):
    with pytest.raises(ValueError, match="must be at least 1: got 0"):
        PGN(*sizes, key=KEY)


# --- TPGN --------------------------------------------------------------------------------------------------


def of_the_fixture(values, name):
    """The model that the weights of a configuration describe: convolution layout, taps from the oldest on."""
    lookback, horizon, period, n, d, normalise = (int(v) for v in values[f"{name}/config"])
    model = TPGN(lookback, horizon, period=period, channels=n, width=d, past_size=4, normalise=bool(normalise), key=KEY)
    weights = {k.split("TPGN.")[-1]: values[k] for k in values if k.startswith(f"{name}/w/")}

    def of(part, *shape):
        return jnp.asarray(weights[part].reshape(n, *shape), float)

    def pair(part, out):
        return of(f"{part}.weight", out, -1), of(f"{part}.bias", out)

    taps = weights["LNN_dim.hidden_MLP.weight"]
    new = [
        jnp.asarray(np.flip(taps, -1).reshape(n, d, *taps.shape[1:]), float),
        of("LNN_dim.hidden_MLP.bias", d),
        *pair("LNN_dim.gate", 2 * d),
        *pair("LNN_dim.fc", d),
        *pair("s_t_p_e.fc_row", d),
        *pair("s_t_p_e.fc_col", d),
        *pair("fc", -(-horizon // period)),
    ]

    def where(m):
        c = m.channel
        pgn = [c.pgn.W, c.pgn.h, c.pgn.V, c.pgn.v]
        return [*pgn, *(v for part in (c.rows, c.within, c.across, c.head) for v in (part.W, part.b))]

    assert [a.shape for a in where(model)] == [a.shape for a in new]
    return eqx.tree_at(where, model, new)


@pytest.mark.skipif(not FIXTURE.is_file(), reason="the reference numbers are not here")
@pytest.mark.parametrize("name", ["univariate", "nonorm_long", "three_channels"])
def test_tpgn_is_the_reference(name):
    values = np.load(FIXTURE)
    model = of_the_fixture(values, name)
    x, marks = (jnp.asarray(values[f"{name}/{k}"], float) for k in ("x", "marks"))
    assert np.abs(np.asarray(jax.vmap(model)(x, marks)) - values[f"{name}/y"]).max() < 1e-6


def written_out(model, x, past, future):
    """TPGN of one channel by its equations, row after row and column after column."""
    mean, scale = x.mean(), jnp.sqrt(x.var() + 1e-5)
    u = (x - mean) / scale
    u = u if past is None else jnp.concatenate([u, past], 1)
    short = -len(u) % model.period
    u = jnp.concatenate([u[model.period - short : model.period], u]) if short else u
    rows = u.reshape(-1, model.period, u.shape[1])
    c = jax.tree.map(lambda w: w[0], model.channel)
    inner = jnp.stack([c.within.W @ row.T.reshape(-1) + c.within.b for row in rows], 1)
    brief = c.across.W @ inner.reshape(-1) + c.across.b
    columns = []
    for p in range(model.period):
        long = c.rows.W @ step_by_step(c.pgn, rows[:, p]).T.reshape(-1) + c.rows.b
        columns.append(c.head.W @ jnp.concatenate([brief, long]) + c.head.b)
    y = jnp.stack(columns, 1).reshape(-1)[: model.horizon]
    if future is not None:
        inside = jnp.tanh(future @ c.ahead[0].W.T + c.ahead[0].b[None])
        y = y + (inside @ c.ahead[1].W.T + c.ahead[1].b[None])[:, 0]
    return y * scale + mean


@pytest.mark.parametrize(
    "lookback, horizon, period, beside, known",
    [(12, 8, 4, 0, 0), (13, 5, 4, 2, 0), (6, 7, 6, 0, 2), (5, 3, 1, 1, 1)],
    ids=["plain", "a part of a period", "one row", "no period"],
)
def test_tpgn_is_its_equations(lookback, horizon, period, beside, known):
    model = TPGN(lookback, horizon, period=period, width=3, past_size=beside, known_size=known, key=KEY)
    x = normal(lookback, 1)
    past = normal(lookback, beside, seed=1) if beside else None
    future = normal(horizon, known, seed=2) if known else None
    assert np.allclose(model(x, past, future)[:, 0], written_out(model, x, past, future), atol=1e-12)


def test_channels_do_not_meet():
    model = TPGN(12, 6, period=4, channels=3, width=2, key=KEY)
    x = normal(12, 3)
    changed = jnp.abs(model(x.at[:, 1].add(normal(12, seed=1))) - model(x)).sum(0)
    assert (changed > 1e-9).tolist() == [False, True, False]
    alone = eqx.tree_at(
        lambda m: m.channel, TPGN(12, 6, period=4, width=2, key=KEY), jax.tree.map(lambda w: w[1:2], model.channel)
    )
    assert np.allclose(alone(x[:, 1:2])[:, 0], model(x)[:, 1], atol=1e-12)


def test_a_normalised_window_takes_level_and_scale_with_it():
    model, x = TPGN(24, 5, period=6, key=KEY), normal(24, 1)
    # the variance is raised by 1e-5, so a scale is taken along but for that share
    assert np.allclose(model(100 * x + 7), 100 * model(x) + 7, atol=1e-2)
    plain = TPGN(24, 5, period=6, normalise=False, key=KEY)
    assert not np.allclose(plain(x + 7), plain(x) + 7, atol=0.1)


def test_tpgn_keeps_single_precision(float32):
    model = TPGN(12, 4, period=4, channels=2, past_size=1, known_size=1, key=KEY)
    y = model(jnp.ones((12, 2)), jnp.ones((12, 1)), jnp.ones((4, 1)))
    assert y.dtype == jnp.float32 and y.shape == (4, 2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"period": 13}, "period must be at most the lookback, 12: got 13"),
        ({"period": 4, "width": 0}, "width must be at least 1: got 0"),
        ({"period": 4, "past_size": -1}, "past_size and known_size must be at least 0"),
    ],
)
def test_wrong_sizes_of_tpgn_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TPGN(12, 4, key=KEY, **options)


def test_windows_of_another_shape_are_refused():
    model = TPGN(12, 4, period=4, past_size=2, key=KEY)
    with pytest.raises(ValueError, match=r"x must have shape \[lookback, n\] = \[12, 1\]: got \[11, 1\]"):
        model(jnp.ones((11, 1)), jnp.ones((11, 2)))
    with pytest.raises(ValueError, match=r"past must have shape \[12, 2\]: got \[12, 0\]"):
        model(jnp.ones((12, 1)))
    with pytest.raises(ValueError, match=r"future must have shape \[4, 0\]: got \[4, 1\]"):
        model(jnp.ones((12, 1)), jnp.ones((12, 2)), jnp.ones((4, 1)))


# --- the others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["none", "last", "mean"])
def test_a_linear_forecaster_is_affine_about_its_level(level):
    model, x = LinearForecaster(6, 3, channels=2, level=level, key=KEY), normal(6, 2)
    off = {"none": jnp.zeros((1, 2)), "last": x[-1:], "mean": x.mean(0, keepdims=True)}[level]
    wanted = [model.W[c] @ (x - off)[:, c] + model.b[c] + off[0, c] for c in range(2)]
    assert np.allclose(model(x), jnp.stack(wanted, 1), atol=1e-12)
    assert np.allclose(model(x + 5) - model(x), 5, atol=1e-12) == (level != "none")


def test_dlinear_splits_off_a_running_mean():
    model, x = DLinear(40, 3, key=KEY), normal(40, 1)
    padded = np.concatenate([np.full(12, x[0, 0]), np.asarray(x[:, 0]), np.full(12, x[-1, 0])])
    trend = np.convolve(padded, np.ones(25) / 25, "valid")
    wanted = model.W[0, 0] @ trend + model.W[1, 0] @ (x[:, 0] - trend) + model.b[0]
    assert np.allclose(model(x)[:, 0], wanted, atol=1e-12)


@pytest.mark.parametrize("period, horizon", [(1, 3), (4, 3), (4, 11)])
def test_the_seasonal_naive_repeats_the_last_period(period, horizon):
    x = normal(9, 2)
    wanted = [x[9 - period + i % period] for i in range(horizon)]
    assert np.array_equal(SeasonalNaive(9, horizon, period=period)(x), jnp.stack(wanted))


@pytest.mark.parametrize("level", [True, False])
def test_a_parrot_copies_what_followed_the_nearest_stretch(level):
    library, x = normal(300, 2) + 50, normal(8, 2, seed=1) + 50
    found = Parrot(library, 8, 5, level=level)(x)
    stretches = np.lib.stride_tricks.sliding_window_view(np.asarray(library), 13, axis=0).transpose(0, 2, 1)
    off = stretches[:, :8].mean(1, keepdims=True) if level else np.zeros((len(stretches), 1, 2))
    mine = np.asarray(x.mean(0, keepdims=True)) if level else 0
    distance = ((stretches[:, :8] - off - (np.asarray(x) - mine)) ** 2).sum((1, 2))
    best = distance.argmin()
    assert np.allclose(found, stretches[best, 8:] - off[best] + mine, atol=1e-9)


def test_a_parrot_knows_a_periodic_series_and_keeps_to_its_starts():
    wave = jnp.sin(jnp.arange(100.0) * 2 * jnp.pi / 20)[:, None]
    assert np.allclose(Parrot(wave[:60], 20, 20)(wave[60:80]), wave[80:], atol=1e-9)
    only = Parrot(wave[:60], 20, 20, starts=jnp.asarray([3], jnp.int32), level=False)
    assert np.allclose(only(wave[60:80]), wave[23:43], atol=1e-12)
    with pytest.raises(ValueError, match="library must hold lookback \\+ horizon = 40 rows: got 39"):
        Parrot(wave[:39], 20, 20)


def test_a_cell_forecasts_what_it_runs_to():
    """Pulled fully, the last observation is the state; from there the cell runs alone."""
    cell = ALRNN(3, 2, key=KEY)
    readout = IdentityReadout(3, 3, key=KEY)
    mean, std = jnp.asarray([1.0, 2, 3]), jnp.asarray([2.0, 1, 0.5])
    model = CellForecaster(cell, readout, mean, std, None, None, jnp.asarray(1.0), 6, 4)
    x = normal(6, 3)
    z, wanted = (x[-1] - mean) / std, []
    for _ in range(4):
        z = cell(z)
        wanted.append(z * std + mean)
    assert np.allclose(model(x), jnp.stack(wanted), atol=1e-12)


def test_delay_coordinates_and_inputs_of_a_cell_forecaster():
    cell = ALRNN(2, 1, input_size=1, key=KEY)
    model = CellForecaster(
        cell,
        IdentityReadout(2, 2, key=KEY),
        jnp.zeros(2),
        jnp.ones(2),
        jnp.ones(1),
        2 * jnp.ones(1),
        jnp.asarray(1.0),
        7,
        3,
        2,
        2,
    )
    x, past, future = normal(7, 1), normal(7, 1, seed=1), normal(3, 1, seed=2)
    z, wanted = jnp.stack([x[6, 0], x[4, 0]]), []
    for s in (future - 1) / 2:
        z = cell(z, s)
        wanted.append(z[:1])
    assert np.allclose(model(x, past, future), jnp.stack(wanted), atol=1e-12)
    with pytest.raises(ValueError, match="1 external inputs: past and future must be given"):
        model(x)
    with pytest.raises(ValueError, match="lookback must be above 2 steps, the span of the delay coordinates: got 2"):
        CellForecaster(
            cell, IdentityReadout(2, 2, key=KEY), jnp.zeros(2), jnp.ones(2), None, None, jnp.asarray(1.0), 2, 3, 2, 2
        )


def test_combined_forecasts_are_the_mean_of_their_parts():
    parts = LinearForecaster(6, 3, key=KEY), TPGN(9, 3, period=3, past_size=1, key=KEY), SeasonalNaive(4, 3, period=4)
    x, past = normal(9, 1), normal(9, 1, seed=1)
    wanted = (parts[0](x[3:]) + parts[1](x, past) + parts[2](x[5:])) / 3
    both = CombinedForecaster(*parts)
    assert np.allclose(both(x, past), wanted, atol=1e-12) and (both.lookback, both.horizon) == (9, 3)
    with pytest.raises(ValueError, match=r"parts must be forecasters of one horizon: got \[3, 4\]"):
        CombinedForecaster(parts[0], SeasonalNaive(4, 4, period=4))
