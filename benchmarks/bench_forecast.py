"""TPGN on ETTh1, 168 steps to 168: an epoch against eager PyTorch of the same equations; what a forecast costs.

    DSRECON_DATA=FOLDER pytest benchmarks/bench_forecast.py -n 0 --benchmark-enable
    --benchmark-json=benchmarks/results/bench_forecast.json

FOLDER holds ETTh1.csv. Epochs: 316 batches of 32 windows, width 2, normalised, four time marks, Adam. Both forms
compute the same loss and gradients (checked) and are timed in turn, a round each; the least counts. PyTorch is eager,
the better of one and two threads; its windows are one index into tensors in memory, as fast as a loader can be. The
whole fit is `TPGNEstimator.fit`, compilation, validation and early stopping included. Costs: one training update of
TPGN against channels, horizon, lookback and rows; a forward and backward pass of PGN, GRU and LSTM of equal width
against length.
"""

import os
import time
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from dsrecon import evolve
from dsrecon.forecast import TPGNEstimator, time_marks
from dsrecon.models import GRU, LSTM, PGN, TPGN
from dsrecon.series import as_series
from dsrecon.training import Window, Windows, fit, forecasting

L, H, PERIOD, WIDTH, BATCH, RATE = 168, 168, 24, 2, 32, 1e-3
KEY = jax.random.key(0)


@cache
def frame() -> pd.DataFrame:
    path = Path(os.environ.get("DSRECON_DATA", "")) / "ETTh1.csv"
    if not path.is_file():
        pytest.skip("DSRECON_DATA does not name the folder of ETTh1.csv")
    return pd.read_csv(path, parse_dates=["date"]).set_index("date")[["OT"]]


@cache
def training_part() -> tuple[np.ndarray, np.ndarray]:
    values = frame().to_numpy()[: int(0.6 * len(frame()))]
    marks = time_marks(as_series(frame()).clock, len(values))[0]
    return ((values - values.mean(0)) / values.std(0)).astype(np.float32), marks.astype(np.float32)


def updates() -> int:
    return (len(training_part()[0]) - L - H + 1) // BATCH


def model() -> TPGN:
    return TPGN(L, H, period=PERIOD, width=WIDTH, past_size=4, key=KEY)


class Eager:
    """The same model in PyTorch, written from the equations."""

    def __init__(self, like: TPGN):
        import torch

        self.torch = torch
        channel = jax.tree.map(lambda w: w[0], like.channel)
        self.leaves, self.shape = jax.tree.flatten(channel)
        self.parameters = [torch.tensor(np.asarray(w), requires_grad=True) for w in self.leaves]
        self.optimiser = torch.optim.Adam(self.parameters, lr=RATE)
        self.x, self.marks = (torch.tensor(v) for v in training_part())
        self.rows = L // PERIOD

    def forward(self, x, marks):
        torch, r = self.torch, self.rows
        c = jax.tree.unflatten(jax.tree.structure(jax.tree.unflatten(self.shape, self.leaves)), self.parameters)
        mean, scale = x.mean(1, keepdim=True), (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        u = torch.cat([(x - mean) / scale, marks], -1).reshape(len(x), r, PERIOD, -1).permute(0, 3, 1, 2)
        padded = torch.nn.functional.pad(u[:, :, :-1], (0, 0, r - 1, 0))
        taps = c.pgn.W.flip(-1)[..., None]
        H = torch.nn.functional.conv2d(padded, taps, c.pgn.h)
        gates = torch.nn.functional.conv2d(torch.cat([u, H], 1), c.pgn.V[..., None, None], c.pgn.v)
        G, C = gates[:, :WIDTH].sigmoid(), gates[:, WIDTH:].tanh()
        y = G * H + (1 - G) * C
        long = torch.einsum("bdrp,odr->bop", y, c.rows.W.reshape(WIDTH, WIDTH, r)) + c.rows.b[:, None]
        inner = torch.einsum("bkrp,dkp->bdr", u, c.within.W.reshape(WIDTH, -1, PERIOD)) + c.within.b[:, None]
        short = torch.einsum("bdr,odr->bo", inner, c.across.W.reshape(WIDTH, WIDTH, r)) + c.across.b
        both = torch.cat([short[:, :, None].expand(-1, -1, PERIOD), long], 1)
        out = torch.einsum("bip,oi->bop", both, c.head.W) + c.head.b[:, None]
        return out.reshape(len(x), -1)[:, :H_STEPS, None] * scale + mean

    def loss(self, starts):
        torch = self.torch
        rows = starts[:, None] + torch.arange(L + H_STEPS)
        x = self.x[rows]
        return ((self.forward(x[:, :L], self.marks[rows[:, :L]]) - x[:, L:]) ** 2).mean()

    def epoch(self, threads: int) -> float:
        self.torch.set_num_threads(threads)
        order = self.torch.randperm(len(self.x) - L - H_STEPS + 1)[: updates() * BATCH].reshape(-1, BATCH)
        begun = time.perf_counter()
        for starts in order:
            self.optimiser.zero_grad()
            self.loss(starts).backward()
            self.optimiser.step()
        return time.perf_counter() - begun


H_STEPS = H


def of_ours(like: TPGN, starts: np.ndarray):
    x, marks = training_part()
    rows = starts[:, None] + np.arange(L + H)
    batch = Window(jnp.asarray(x[rows]), jnp.asarray(x[rows]), jnp.asarray(marks[rows]))
    return eqx.filter_value_and_grad(lambda m: forecasting()(m, None, batch, KEY)[0])(like)


def test_equal_loss_and_gradients():
    pytest.importorskip("torch")
    like, starts = model(), np.arange(0, 9000, 300)
    eager = Eager(like)
    loss = eager.loss(eager.torch.tensor(starts))
    loss.backward()
    value, gradient = of_ours(like, starts)
    assert abs(float(loss.detach()) - float(value)) < 1e-5 * float(value)
    for mine, theirs in zip(jax.tree.leaves(gradient), eager.parameters, strict=True):
        theirs = theirs.grad.numpy()
        assert np.abs(np.asarray(mine)[0] - theirs).max() < 1e-3 * max(np.abs(theirs).max(), 1e-3)


def test_epoch(benchmark):
    pytest.importorskip("torch")
    eager = Eager(model())
    x, marks = (jnp.asarray(v) for v in training_part())
    sampler = Windows(x, s=marks, length=L + H - 1, batch=BATCH)
    count = updates()
    seconds: dict[str, list[float]] = {"ours": [], "one": [], "two": []}

    def ours() -> float:
        _, history = fit(model(), forecasting(), sampler, optax.adam(RATE), steps=4 * count, every=4 * count, key=KEY)
        return history.seconds / 4

    for _ in range(4):
        seconds["ours"].append(ours())
        seconds["one"].append(eager.epoch(1))
        seconds["two"].append(eager.epoch(2))
    found = {name: min(values) for name, values in seconds.items()}
    benchmark.extra_info.update(found)
    benchmark.extra_info["times faster"] = min(found["one"], found["two"]) / found["ours"]
    benchmark.extra_info["load"] = os.getloadavg()[0]
    benchmark.pedantic(ours, rounds=1)


def test_whole_fit(benchmark):
    data = frame()
    rows = len(data)
    cut = rows - int(0.2 * rows)

    def whole():
        jax.clear_caches()
        return TPGNEstimator(L, PERIOD, WIDTH).fit(data[:cut], H, validation=0.25)

    fitted = benchmark.pedantic(whole, rounds=3)
    benchmark.extra_info["epochs"] = fitted.settings["epochs"]["value"]
    benchmark.extra_info["load"] = os.getloadavg()[0]


def an_update(lookback=L, horizon=H, channels=1, rows=10_000) -> float:
    """Seconds of one training update."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(rows, channels)), jnp.float32)
    forecaster = TPGN(lookback, horizon, period=PERIOD, channels=channels, width=8, key=KEY)
    sampler = Windows(x, length=lookback + horizon - 1, batch=BATCH)
    steps = max(20, int(400 * L / lookback / channels))
    _, history = fit(forecaster, forecasting(), sampler, optax.adam(RATE), steps=3 * steps, every=steps, key=KEY)
    return history.seconds / (3 * steps)


COSTS = {
    "channels": (1, 2, 4, 8, 16, 32),
    "horizon": (168, 336, 720, 1440, 2880),
    "lookback": (168, 336, 720, 1440, 2880),
    "rows": (10_000, 100_000, 1_000_000),
}


@pytest.mark.parametrize(("what", "size"), [(what, size) for what, sizes in COSTS.items() for size in sizes])
def test_cost_of_an_update(benchmark, what, size):
    benchmark.extra_info["seconds"] = min(an_update(**{what: size}) for _ in range(2))
    benchmark.extra_info["load"] = os.getloadavg()[0]
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.parametrize("length", [168, 336, 720, 1440])
@pytest.mark.parametrize("name", ["PGN", "GRU", "LSTM"])
def test_layer(benchmark, name, length):
    """Value and gradient of 32 sequences of 4 channels, width 16; PGN looks back over the whole sequence."""
    width, x = 16, jnp.asarray(np.random.default_rng(0).normal(size=(32, length, 4)), jnp.float32)
    if name == "PGN":
        layer = PGN(4, width, length - 1, key=KEY)

        def run(layer, x):
            return jax.vmap(layer)(x)

    else:
        layer = GRU(width, input_size=4, key=KEY) if name == "GRU" else LSTM(width, input_size=4, key=KEY)

        def run(layer, x):
            return evolve(layer, jnp.zeros((len(x), layer.state_size), x.dtype), x, throw=False).zs

    step = eqx.filter_jit(eqx.filter_value_and_grad(lambda layer, x: jnp.mean(run(layer, x) ** 2)))
    jax.block_until_ready(step(layer, x))
    benchmark.extra_info["load"] = os.getloadavg()[0]
    benchmark.pedantic(lambda: jax.block_until_ready(step(layer, x)), rounds=10)
