"""Sequence layers: S4D against eager PyTorch of the same equations, a step of a trained LSSL, kernels against length.

    pip install -e '.[test]' torch
    pytest benchmarks/bench_layers.py -n 0 --benchmark-enable --benchmark-json=benchmarks/results/layers.json
    python benchmarks/layers_figure.py

float32, two threads each. `bytes` in `extra_info`: what the compiled program of ours holds beside arguments and result
(XLA's own figure); `resident_bytes`: by how much a process that does nothing else grew, of both. Outputs are compared
before they are timed.
"""

import json
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsrecon.layer import stepwise
from dsrecon.models import LMU, LRU, LSSL, S4, S4D, S5

H, N, T = 64, 64, 16384
KEY = jax.random.key(0)
run = eqx.filter_jit(lambda layer, u: layer(u))
gradient = eqx.filter_jit(eqx.filter_grad(lambda both: jnp.mean(both[0](both[1]) ** 2)))


def sequence(length: int, width: int = H) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(length, width)), jnp.float32)


def scratch(f, *given) -> int:
    """Bytes that the compiled program asks for beside arguments and results."""
    return f.lower(*given).compile().compiled.memory_analysis().temp_size_in_bytes


class Eager:
    """S4D in PyTorch, from the equations: the Vandermonde matrix, then a convolution by transforms."""

    def __init__(self, layer: S4D):
        import torch

        self.torch = torch
        torch.set_num_threads(2)
        parts = (layer.log_decay, layer.frequency, *layer.C, layer.D, layer.log_step)
        self.parameters = [torch.tensor(np.asarray(x)) for x in parts]

    def __call__(self, u):
        torch, (decay, frequency, real, imag, D, log_step) = self.torch, self.parameters
        length = u.shape[1]
        poles = torch.complex(-decay.exp(), frequency) * log_step.exp()[:, None]
        b = (poles.exp() - 1) / (poles / log_step.exp()[:, None])
        powers = (poles[:, :, None] * torch.arange(length)).exp()
        k = 2 * torch.einsum("hn,hnl->hl", torch.complex(real, imag) * b, powers).real
        y = torch.fft.irfft(torch.fft.rfft(u, 2 * length) * torch.fft.rfft(k, 2 * length), 2 * length)[:, :length]
        return y + D[:, None] * u


def grown(what: str) -> int:
    """By how many bytes a process of its own grows at most in one call of `what`."""
    found = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])["grown"]


def main() -> None:
    def most() -> int:
        """The largest size of this process so far (Linux; the one of `getrusage` begins with the parent's)."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    layer, u = S4D(H, N, key=KEY), sequence(T)
    if sys.argv[1] == "torch":
        eager = Eager(layer)
        given = eager.torch.tensor(np.asarray(u)).T.contiguous()
        eager(given[:, :64])
        before = most()
        with eager.torch.no_grad():
            eager(given)
    else:
        compiled = run.lower(layer, u).compile()
        run(layer, u[:64]).block_until_ready()
        before = most()
        jax.block_until_ready(compiled(layer, u))
    print(json.dumps({"grown": most() - before}))


@pytest.mark.parametrize("by", ["dsrecon", "torch"])
def test_s4d(benchmark, by):
    pytest.importorskip("torch")
    layer, u = S4D(H, N, key=KEY), sequence(T)
    eager = Eager(layer)
    given = eager.torch.tensor(np.asarray(u)).T.contiguous()
    with eager.torch.no_grad():
        np.testing.assert_allclose(eager(given).numpy().T, run(layer, u), atol=2e-3)  # float32 phases of 1e3 radians
        if by == "torch":
            benchmark.pedantic(eager, (given,), rounds=7, warmup_rounds=1)
            benchmark.extra_info.update(resident_bytes=grown("torch"))
            return
    benchmark.pedantic(lambda: run(layer, u).block_until_ready(), rounds=30, warmup_rounds=2)
    benchmark.extra_info.update(bytes=scratch(run, layer, u), resident_bytes=grown("dsrecon"))


LAYERS = {
    "S4D": lambda: S4D(H, N, key=KEY),
    "S4": lambda: S4(H, N, key=KEY),
    "LSSL": lambda: LSSL(H, N, key=KEY),
    "LSSL, trained": lambda: LSSL(H, N, trainable=True, key=KEY),
    "S5": lambda: S5(H, N, key=KEY),
    "LRU": lambda: LRU(H, N // 2, key=KEY),
    "LMU": lambda: LMU(H, N, window=1000.0, key=KEY),
}


@pytest.mark.parametrize("what", ["forward", "gradient", "stepwise"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(benchmark, name, what):
    """64 channels of 64 states along 4,096 steps."""
    layer, u = LAYERS[name](), sequence(4096)
    f = {"forward": run, "stepwise": eqx.filter_jit(stepwise)}.get(what)
    call = (lambda: f(layer, u)) if f else (lambda: gradient((layer, u)))
    benchmark.pedantic(lambda: jax.block_until_ready(call()), rounds=5, warmup_rounds=1)
    benchmark.extra_info["bytes"] = scratch(f, layer, u) if f else scratch(gradient, (layer, u))


@pytest.mark.parametrize("length", [1 << k for k in range(10, 21, 2)])
@pytest.mark.parametrize("name", ["S4", "S4D", "LSSL"])
def test_kernel(benchmark, name, length):
    """Of 4 channels of 64 states."""
    layer = {"S4": S4, "S4D": S4D, "LSSL": LSSL}[name](4, 64, key=KEY)
    kernel = eqx.filter_jit(lambda layer: layer.kernel(length))
    benchmark.pedantic(lambda: kernel(layer).block_until_ready(), rounds=7, warmup_rounds=1)
    benchmark.extra_info["bytes"] = scratch(kernel, layer)


STEPS = 200


@pytest.mark.parametrize("size", [16, 64, 256, 1024, 4096])
@pytest.mark.parametrize("how", ["structured", "dense"])
def test_step(benchmark, how, size):
    """A step of any length, of a trained LSSL of one channel: by tridiagonal solves, and (to 256) discretised anew."""
    if how == "dense" and size > 256:
        pytest.skip("cubic")
    layer = LSSL(1, size, trainable=True, key=KEY)
    count = STEPS if how == "structured" else 10
    dt = jnp.linspace(0.5, 2.0, count)

    @eqx.filter_jit
    def go(layer, x):
        def step(x, d):
            one = jnp.ones(1)
            return (layer.advance(x, one, d) if how == "structured" else layer.cell(d)(x, one)), None

        return jax.lax.scan(step, x, dt)[0]

    benchmark.pedantic(lambda: go(layer, jnp.zeros(size)).block_until_ready(), rounds=7, warmup_rounds=1)
    benchmark.extra_info["microseconds_a_step"] = 1e6 * benchmark.stats["min"] / count


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("torch", "dsrecon"):
        raise SystemExit(f"usage: {Path(__file__).name} torch|dsrecon")
    main()
