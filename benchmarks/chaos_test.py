"""Size and power of `dsrecon.measures.chaos.chaos_test`: how often it says what, for processes whose answer is known.

    python benchmarks/chaos_test.py --runs 20 --samples 2000 --out benchmarks/results/chaos_test.json

Every run is a new realisation with new surrogates (39, level 0.05). `linear`, `regular`, `chaotic`: shares of the runs
with that verdict; `rejects_linear`, `rejects_no_growth` those of either test alone; `seconds` is processor time a run.
Noise of 5 % is white, on the measured values, in units of their standard deviation.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from dsrecon.measures.chaos import VERDICTS, chaos_test


def flow(field, dt, samples, start, rng, *, discard=500, dynamic=0.0):
    """First coordinate of a flow by fourth-order Runge-Kutta."""
    steps = int(np.ceil(dt / 0.02))
    h, z, out = dt / steps, np.array(start) + 0.1 * rng.normal(size=len(start)), np.empty(samples)
    for i in range(-discard, samples):
        for _ in range(steps):
            k1 = field(z)
            k2 = field(z + h / 2 * k1)
            k3 = field(z + h / 2 * k2)
            k4 = field(z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            if dynamic:
                z = z + dynamic * np.sqrt(h) * rng.normal(size=len(z))
        if i >= 0:
            out[i] = z[0]
    return out


def iterate(step, start, samples, rng, *, discard=200):
    """First coordinate of a map."""
    z, out = np.array(start) + 0.01 * rng.random(len(start)), np.empty(samples)
    for i in range(-discard, samples):
        z = step(z)
        if i >= 0:
            out[i] = z[0]
    return out


def autoregressive(a, samples, rng, *, discard=500):
    e, x = rng.normal(size=samples + discard), np.zeros(samples + discard)
    for i in range(len(a), len(x)):
        x[i] = e[i] + sum(c * x[i - 1 - j] for j, c in enumerate(a))
    return x[discard:]


def noisy(x, rng, share=0.05):
    return x + share * x.std() * rng.normal(size=len(x))


def lorenz(z):
    return np.array([10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]])


def roessler(c):
    return lambda z: np.array([-z[1] - z[2], z[0] + 0.2 * z[1], 0.2 + z[2] * (z[0] - c)])


def van_der_pol(mu):
    return lambda z: np.array([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def threshold(samples, rng):
    x, e = np.zeros(samples), rng.normal(size=samples)
    for i in range(1, samples):
        x[i] = (-0.8 if x[i - 1] > 0 else 0.6) * x[i - 1] + e[i]
    return x


def sine(samples, rng):
    return np.sin(0.2345 * np.arange(samples) + 2 * np.pi * rng.random())


CASES = {
    "white noise": lambda t, rng: rng.normal(size=t),
    "AR(1), 0.8": lambda t, rng: autoregressive([0.8], t, rng),
    "AR(2) oscillator, 1.8 -0.95": lambda t, rng: autoregressive([1.8, -0.95], t, rng),
    "AR(2), 1.6 -0.9, cubed": lambda t, rng: autoregressive([1.6, -0.9], t, rng) ** 3,
    "sine, 30 % noise": lambda t, rng: noisy(sine(t, rng), rng, 0.3),
    "sine, 5 % noise": lambda t, rng: noisy(sine(t, rng), rng),
    "two frequencies, 5 % noise": lambda t, rng: noisy(
        sine(t, rng) * (1 + 0.5 * np.sin(0.2345 * 0.618 * np.arange(t))) ** 2, rng
    ),
    "van der Pol 2, dt 0.2, 5 % noise": lambda t, rng: noisy(flow(van_der_pol(2.0), 0.2, t, [1, 1], rng), rng),
    "van der Pol 5, dt 0.2, 5 % noise": lambda t, rng: noisy(flow(van_der_pol(5.0), 0.2, t, [1, 1], rng), rng),
    "van der Pol 2, dynamic noise 0.05": lambda t, rng: flow(van_der_pol(2.0), 0.2, t, [1, 1], rng, dynamic=0.05),
    "van der Pol 2, dynamic noise 0.2": lambda t, rng: flow(van_der_pol(2.0), 0.2, t, [1, 1], rng, dynamic=0.2),
    "threshold AR(1)": threshold,
    "Lorenz-63 x, dt 0.05, 5 % noise": lambda t, rng: noisy(flow(lorenz, 0.05, t, [1, 1, 20], rng), rng),
    "Roessler x, dt 0.3, 5 % noise": lambda t, rng: noisy(flow(roessler(5.7), 0.3, t, [1, 1, 1], rng), rng),
    "logistic 4, 5 % noise": lambda t, rng: noisy(iterate(lambda z: 4 * z * (1 - z), [0.3], t, rng), rng),
    "Henon x, 5 % noise": lambda t, rng: noisy(
        iterate(lambda z: np.array([1 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]]), [0.1, 0.1], t, rng), rng
    ),
}


LINEAR = tuple(CASES)[:4]
"""Cases within the linear null: run five times as often, as they show the size."""


def measure(make, runs: int, samples: int) -> dict:
    found, seconds = [], 0.0
    for run in range(runs):
        x = make(samples, np.random.default_rng(1000 + run))
        begun = time.process_time()
        found.append(chaos_test(x, seed=run))
        seconds += time.process_time() - begun
    verdicts = [VERDICTS.index(f.verdict) for f in found]
    shares = np.bincount(verdicts, minlength=3) / runs
    return {
        "runs": runs,
        "linear": float(shares[0]),
        "regular": float(shares[1]),
        "chaotic": float(shares[2]),
        "rejects_linear": float(np.mean([f.p_value <= 0.05 for f in found])),
        "rejects_no_growth": float(np.mean([f.growth_p_value <= 0.05 for f in found])),
        "growth": float(np.mean([f.growth for f in found])),
        "margin": float(np.mean([f.margin for f in found])),
        "step": float(np.mean([f.step for f in found])),
        "seconds": seconds / runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = {
        "samples": given.samples,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "cases": {},
    }
    for name, make in CASES.items():
        results["cases"][name] = measure(make, given.runs * (5 if name in LINEAR else 1), given.samples)
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
