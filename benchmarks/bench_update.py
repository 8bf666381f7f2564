"""One training update of an AL-RNN (M 20, P 2, T 200, B 16): this package against eager PyTorch and plain JAX.

    pip install -e '.[test]' torch
    pytest benchmarks/bench_update.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/update.json

All compute the same loss (checked to 1e-5 first) with RAdam, in float32, on windows drawn from one series. PyTorch
is eager, the best of one and two threads; "plain" is this package with JAX's own adjoint of the scan and one run at a
time. Times are a whole update: windows, forward, backward, optimiser. The ratio stands in `extra_info`.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon import ALRNN, Forced, IdentityReadout, Sequential
from dsrecon.training import Window, Windows, fit, gtf, radam

M, P, N, T, B, INTERVAL, RATE = 20, 2, 3, 200, 16, 16, 1e-3
UPDATES = 300
SERIES = np.random.default_rng(0).normal(size=(100_000, N)).astype(np.float32)


def model(key):
    cell, readout = jax.random.split(key)
    return Forced(ALRNN(M, P, key=cell), IdentityReadout(N, M, key=readout))


class Eager:
    """The same equations in eager PyTorch, written as one would: forcing where it acts, one fused matrix a step."""

    def __init__(self, start: Forced, threads: int):
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
        torch.set_num_threads(threads)
        self.torch = torch
        leaves = (start.cell.A, start.cell.W, start.cell.h, start.readout.L)
        self.params = [torch.tensor(np.asarray(p)).requires_grad_() for p in leaves]
        self.optimiser = torch.optim.RAdam(self.params, RATE)
        self.series = torch.tensor(SERIES)

    def loss(self, x):
        torch, (A, W, h, L) = self.torch, self.params
        z, out = torch.cat([x[:, 0], x[:, 0] @ L.T], 1), []
        for t in range(T):
            if t % INTERVAL == 0:
                z = torch.cat([x[:, t], z[:, N:]], 1)
            phi = torch.cat([z[:, : M - P], torch.relu(z[:, M - P :])], 1)
            z = torch.addmm(h, phi, W.T) + A * z
            out.append(z[:, :N])
        return ((torch.stack(out, 1) - x[:, 1:]) ** 2).mean()

    def update(self):
        starts = self.torch.randint(0, len(self.series) - T - 1, (B, 1))
        loss = self.loss(self.series[starts + self.torch.arange(T + 1)])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def eager_seconds() -> float:
    """Seconds an update, the best of one and two threads and of seven repeats."""
    best = np.inf
    for threads in (1, 2):
        eager = Eager(model(jax.random.key(0)), threads)
        eager.update()
        for _ in range(7):
            begun = time.perf_counter()
            for _ in range(5):
                eager.update()
            best = min(best, (time.perf_counter() - begun) / 5)
    return best


def ours(runs: int, adjoint: str = "deferred", threads: int | None = None):
    """A function that trains `UPDATES` updates and gives the seconds of it, compilation left out."""
    keys = jax.random.split(jax.random.key(0), runs)
    models = eqx.filter_vmap(model)(keys)
    sampler = Windows(jnp.asarray(SERIES), length=T, batch=B)
    loss = gtf(interval=INTERVAL, solver=Sequential(adjoint))

    def train():
        optimiser = radam(RATE, RATE, UPDATES)
        _, history = fit(models, loss, sampler, optimiser, steps=UPDATES, every=UPDATES, key=keys, threads=threads)
        return history.seconds

    return train


def test_equal_loss():
    start = model(jax.random.key(0))
    x = SERIES[: B * (T + 1)].reshape(B, T + 1, N)
    value, _ = gtf(interval=INTERVAL)(start, None, Window(jnp.asarray(x), jnp.asarray(x)), jax.random.key(0))
    eager = Eager(start, 1)
    theirs = eager.loss(eager.torch.tensor(x)).item()
    assert abs(float(value) - theirs) < 1e-5 * abs(theirs)


@pytest.mark.parametrize(
    ("name", "runs", "adjoint", "threads"),
    [
        ("single", 1, "deferred", None),
        ("single, plain adjoint", 1, "direct", None),
        ("ensemble of 8", 8, "deferred", None),
        ("ensemble of 8, one thread", 8, "deferred", 1),
    ],
)
def test_update(benchmark, name, runs, adjoint, threads):
    train = ours(runs, adjoint, threads)
    train()
    measured = []
    reference = eager_seconds()
    benchmark.pedantic(lambda: measured.append(train()), rounds=12, iterations=1)
    each = min(measured) / UPDATES / runs
    benchmark.extra_info |= {
        "case": name,
        "ms_per_update_and_model": 1e3 * each,
        "pytorch_eager_ms_per_update": 1e3 * reference,
        "times_faster": reference / each,
    }
