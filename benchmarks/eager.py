"""The cells and their teacher forcing in eager PyTorch, written as one would: what the benchmarks stand beside.

One fused product a step where the equation allows it; what does not change along a window is made once an update.
"""

import time
from collections.abc import Callable

import equinox as eqx
import numpy as np
import pytest

from dsrecon import Forced, IdentityReadout


def _alrnn(torch, cell, p):
    linear = cell.state_size - cell.pwl_units

    def step(z):
        phi = torch.cat([z[:, :linear], torch.relu(z[:, linear:])], 1)
        return torch.addmm(p["h"], phi, p["W"].T) + p["A"] * z

    return step


def _plrnn(torch, cell, p):
    W = (p["W"] * (1 - torch.eye(cell.state_size))).T
    return lambda z: torch.addmm(p["h"], torch.relu(z), W) + p["A"] * z


def _mean_centred(torch, cell, p):
    return lambda z: torch.addmm(p["h"], torch.relu(z - z.mean(1, keepdim=True)), p["W"].T) + p["A"] * z


def _dendritic(torch, cell, p):
    H = p["H"].T.contiguous()
    return lambda z: torch.addmm(p["h"], torch.relu(z[:, :, None] - H) @ p["a"], p["W"].T) + p["A"] * z


def _clipped_dendritic(torch, cell, p):
    H, total = p["H"].T.contiguous(), p["a"].sum()

    def step(z):
        ramps = torch.relu(z[:, :, None] - H) @ p["a"] - total * torch.relu(z)
        return torch.addmm(p["h"], ramps, p["W"].T) + p["A"] * z

    return step


def _shallow(torch, cell, p):
    def step(z):
        hidden = torch.relu(torch.addmm(p["h2"], z, p["W2"].T))
        return torch.addmm(p["h1"], hidden, p["W1"].T) + p["A"] * z

    return step


def _clipped_shallow(torch, cell, p):
    def step(z):
        u = z @ p["W2"].T
        return torch.addmm(p["h1"], torch.relu(u + p["h2"]) - torch.relu(u), p["W1"].T) + p["A"] * z

    return step


STEPS: dict[str, Callable] = {
    "ALRNN": _alrnn,
    "PLRNN": _plrnn,
    "MeanCentredPLRNN": _mean_centred,
    "DendriticPLRNN": _dendritic,
    "ClippedDendriticPLRNN": _clipped_dendritic,
    "ShallowPLRNN": _shallow,
    "ClippedShallowPLRNN": _clipped_shallow,
}
"""Name of a cell's class to `(torch, cell, parameters) -> (z [b, m] -> z' [b, m])`."""


class Eager:
    """Training of a `Forced` cell in eager PyTorch, from the same start values, on the same series.

    **Arguments:** `start`; `series` `[t, n]`; `length`, `batch` of the windows; `rate` of RAdam; either `interval`
    (sparse forcing) or `alpha` (constant).
    """

    def __init__(self, start: Forced, series, *, length, batch, rate, interval=None, alpha=None):
        self.torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
        self.start, self.length, self.batch, self.interval, self.alpha = start, length, batch, interval, alpha
        self.cell, self.readout = self._parameters(start.cell), self._parameters(start.readout)
        self.optimiser = self.torch.optim.RAdam([*self.cell.values(), *self.readout.values()], rate)
        self.series = self.torch.tensor(series)

    def _parameters(self, module):
        found = {k: v for k, v in vars(module).items() if eqx.is_inexact_array(v)}
        return {k: self.torch.tensor(np.array(v)).requires_grad_() for k, v in found.items()}

    def _forced(self, x):
        """Start `[b, m]` of windows `x`; `(z, t) -> z` forced; `zs -> ` what they show."""
        torch, p, n = self.torch, self.readout, x.shape[2]
        if isinstance(self.start.readout, IdentityReadout):
            start, inside = torch.cat([x[:, 0], x[:, 0] @ p["L"].T], 1), self.start.state_size == n
            impose = lambda z, t: x[:, t] if inside else torch.cat([x[:, t], z[:, n:]], 1)  # noqa: E731
            show = lambda zs: zs[:, :, :n]  # noqa: E731
        else:
            inverse = torch.linalg.pinv(p["B"])
            keep, targets = torch.eye(self.start.state_size) - (inverse @ p["B"]).T, (x - p["b"]) @ inverse.T
            start = targets[:, 0]
            if "L" in p:
                start = start + (x[:, 0] @ p["L"].T) @ keep
            impose = lambda z, t: torch.addmm(targets[:, t], z, keep)  # noqa: E731
            show = lambda zs: zs @ p["B"].T + p["b"]  # noqa: E731

        def force(z, t):
            if self.interval is not None:
                return z if t % self.interval else impose(z, t)
            return torch.lerp(z, impose(z, t), self.alpha)

        return start, force, show

    def loss(self, x):
        """Mean squared error along windows `x` `[b, length + 1, n]`, before forcing."""
        step = STEPS[type(self.start.cell).__name__](self.torch, self.start.cell, self.cell)
        (z, force, show), zs = self._forced(x), []
        for t in range(self.length):
            z = step(force(z, t))
            zs.append(z)
        return ((show(self.torch.stack(zs, 1)) - x[:, 1:]) ** 2).mean()

    def update(self):
        starts = self.torch.randint(0, len(self.series) - self.length - 1, (self.batch, 1))
        loss = self.loss(self.series[starts + self.torch.arange(self.length + 1)])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def seconds(self, updates: int, threads: int) -> float:
        """Seconds an update, after one that does not count."""
        self.torch.set_num_threads(threads)
        self.update()
        begun = time.perf_counter()
        for _ in range(updates):
            self.update()
        return (time.perf_counter() - begun) / updates
