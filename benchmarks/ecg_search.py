"""The search for settings on the electrocardiogram, on the fitting part alone: hundreds of runs at once.

    python benchmarks/ecg_search.py DATA [GROUP ...]

`DATA` is that of `ecg.py`. Of its first 80,000 samples 60,000 are fitted and 20,000 choose; the truth of `ecg.py` is
never looked at. Each group is one vmapped ensemble over forcing strengths, learning rates and seeds. A run is let free
for 100,000 steps and scored against the 20,000 samples: D_stsp `padded`, D_H, PE(20) in squared units of the file from
states forced with the training's alpha. In groups named `final` the last state of a run is scored; in the others the
best of twelve on the way, by D_stsp / .4 + D_H / .03 of 20,000 free steps. Groups named `long` searched for the
settings of `ecg.py`: PE(20) from observed states, the best of `evaluations` by all three over what was published. One
line a run is kept in `results/ecg_search.csv`: all that were tried, on one H200 (the groups took 20 to 240 s each).
"""

import csv
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsrecon import ALRNN, ClippedShallowPLRNN, Forced, Forcing, IdentityReadout, LinearReadout, evolve
from dsrecon.measures import d_h, d_stsp, outside
from dsrecon.training import Adaptive, Windows, fit, gtf

RESULTS = Path(__file__).parent / "results" / "ecg_search.csv"
FITTED, CHOSEN, FREE, AHEAD = 60_000, 20_000, 100_000, 20


class Group(NamedTuple):
    """One ensemble: every alpha with every rate and seed. `alphas=()`: adaptive, by `stride`.

    `published`: states are chosen by D_stsp / 4.3 + D_H / .34 + PE(20) / 2.4e-3, from observed states.
    """

    cell: str
    alphas: tuple[float, ...]
    rates: tuple[float, ...]
    seeds: int
    length: int
    steps: int
    batch: int = 16
    stride: int = 5
    linear: bool = False
    evaluations: int = 12
    published: bool = False


GROUPS = {
    "final, M5 H250 linear": Group(
        "S5-250", (0.05, 0.1, 0.2, 0.3, 0.5), (3e-3, 1e-2, 2e-2), 8, 50, 12_000, linear=True
    ),
    "final, M5 H250 linear, adaptive": Group("S5-250", (), (3e-3, 1e-2, 2e-2), 8, 50, 12_000, linear=True),
    "final, M10 H250": Group("S10-250", (0.05, 0.1, 0.2, 0.3, 0.5), (3e-3, 1e-2, 2e-2), 8, 50, 12_000),
    "final, AL-RNN M30 P10": Group("A30-10", (0.05, 0.1, 0.2, 0.3, 0.5), (2e-3, 5e-3, 1e-2), 8, 50, 12_000),
    "final, M20 H250": Group("S20-250", (0.05, 0.1, 0.2, 0.3, 0.5), (3e-3, 1e-2, 2e-2), 8, 50, 12_000),
    "M5 H250 linear": Group("S5-250", (0.15, 0.2, 0.3), (1e-2, 2e-2, 4e-2), 10, 50, 20_000, linear=True),
    "M5 H250 linear, adaptive": Group("S5-250", (), (1e-2, 2e-2, 4e-2), 10, 30, 15_000, 32, 3, True),
    "M10 H250": Group("S10-250", (0.4, 0.5, 0.6), (5e-3, 2e-2), 16, 50, 15_000),
    "M10 H250, short": Group("S10-250", (0.5, 0.6, 0.7, 0.8), (1e-2, 2e-2), 16, 20, 15_000),
    "M5 H250, short": Group("S5-250", (0.4, 0.5, 0.6, 0.7), (1e-2, 2e-2), 16, 20, 15_000),
    "M10 H100, short": Group("S10-100", (0.5, 0.6, 0.7), (2e-2, 4e-2), 16, 20, 15_000),
    "M10 H500, short": Group("S10-500", (0.5, 0.6, 0.7), (1e-2, 2e-2), 16, 20, 15_000),
    "long, M5 H250 linear": Group(
        "S5-250", (0.14, 0.16, 0.18, 0.2, 0.22, 0.25), (1.2e-2,), 16, 30, 100_000, 32, 3, True, 50, True
    ),
    "long, M5 H250 linear, adaptive, 30,000": Group("S5-250", (), (6e-3, 1e-2), 16, 30, 30_000, 32, 3, True, 30, True),
    "long, M5 H250 linear, adaptive, 50,000": Group("S5-250", (), (6e-3, 1e-2), 16, 30, 50_000, 32, 3, True, 50, True),
}


class Rated(eqx.Module):
    """A model with a learning rate of its own, so that members of an ensemble may differ in it."""

    forced: Forced
    rate: jax.Array


def rated(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimiser` with its updates times the model's own rate, which is itself left alone."""

    def update(updates, state, params):
        updates, state = optimiser.update(updates, state, params)
        scaled = jax.tree.map(lambda u: u * params.rate, updates)
        return eqx.tree_at(lambda m: m.rate, scaled, jnp.zeros_like(params.rate)), state

    return optax.GradientTransformation(optimiser.init, update)


def start(group: Group):
    """`key -> Forced` of the group's cell."""
    m, size = (int(v) for v in group.cell[1:].split("-"))
    make = ClippedShallowPLRNN if group.cell[0] == "S" else ALRNN
    readout = LinearReadout if group.linear else IdentityReadout
    return lambda key: Forced(make(m, size, key=key), readout(5, m, key=jax.random.fold_in(key, 1)))


@eqx.filter_jit
def free_runs(models: Rated, first: jax.Array, steps: int) -> jax.Array:
    def one(model):
        zs = evolve(model.forced.cell, model.forced.readout.start(first), steps=steps, throw=False).zs
        return jax.vmap(model.forced.readout.decode)(zs)

    return eqx.filter_vmap(one)(models)


@eqx.filter_jit
def errors_ahead(models: Rated, alphas: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
    starts = jnp.linspace(200, len(x) - AHEAD - 10, 300).astype(int)

    def one(model, alpha):
        forced = model.forced
        zs = evolve(forced, forced.readout.start(x[0]), Forcing(x, jnp.full(len(x), alpha)), throw=False).zs
        z = jax.vmap(lambda z, x: forced.force(z, Forcing(x, alpha)))(zs[starts - 1], x[starts])
        for _ in range(AHEAD):
            z = jax.vmap(forced.cell)(z)
        return jnp.mean(((jax.vmap(forced.readout.decode)(z) - x[starts + AHEAD]) * scale) ** 2)

    return eqx.filter_vmap(one)(models, alphas)


class Material(NamedTuple):
    """What is fitted and what chooses, in units of the model, and the way back."""

    x: jax.Array
    held: jax.Array
    true: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def prepared(path: str) -> Material:
    raw = np.load(path).astype(np.float64)[: FITTED + CHOSEN]
    mean, std = raw[:FITTED].mean(0), raw[:FITTED].std(0)
    scaled = jnp.asarray((raw - mean) / std, jnp.float32)
    return Material(scaled[:FITTED], scaled[FITTED:], raw[FITTED:], mean, std)


def distances(data: Material, run: np.ndarray) -> tuple[float, float, float]:
    values = run.astype(np.float64) * data.std + data.mean
    if not np.isfinite(values).all():
        return float("nan"), float("nan"), 1.0
    spectral = d_h(data.true[: len(values)], values[: len(data.true)])
    return d_stsp(data.true, values, definition="padded"), spectral, outside(data.true, values)


def searched(name: str, group: Group, data: Material, pool: ThreadPoolExecutor) -> list[dict[str, Any]]:
    adapt = None if group.alphas else Adaptive(decay=0.99, stride=group.stride)
    members = [(a, r, s) for a in group.alphas or (1.0,) for r in group.rates for s in range(group.seeds)]
    keys = jnp.stack([jax.random.key(s) for *_, s in members])
    models = Rated(eqx.filter_vmap(start(group))(keys), jnp.array([r for _, r, _ in members]))
    state = {"alpha": jnp.array([a for a, *_ in members])}
    if adapt is not None:
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, len(members)), adapt.start)
    decay = optax.scale_by_schedule(optax.exponential_decay(-1.0, group.steps, 1e-2))
    optimiser = rated(optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_radam(), decay))
    loss = gtf()

    scale = jnp.asarray(data.std, jnp.float32)
    weighed = (4.3, 0.34, 2.4e-3) if group.published else (0.4, 0.03, np.inf)

    def evaluate(models):
        def score(run, error):
            stsp, spectral, out = distances(data, run)
            score = stsp / weighed[0] + spectral / weighed[1] + error / weighed[2]
            score += 1000 * (1 + out) if out > 0.01 else 0
            return score if np.isfinite(score) else np.inf

        runs = np.asarray(free_runs(models, data.held[0], CHOSEN))
        errors = np.zeros(len(members))
        if group.published:
            errors = np.asarray(errors_ahead(models, jnp.ones(len(members)), data.held, scale))
        return {"score": np.array(list(pool.map(score, runs, errors)))}

    models, history = fit(
        models,
        lambda model, state, batch, key: loss(model.forced, state, batch, key),
        Windows(data.x, length=group.length, batch=group.batch),
        optimiser,
        steps=group.steps,
        key=keys,
        state=state,
        adapt=None if adapt is None else lambda model, *rest: adapt(model.forced, *rest),
        evaluate=None if name.startswith("final") else evaluate,
        every=group.steps // group.evaluations,
        progress=False,
    )
    alphas = np.array([a for a, *_ in members])
    if adapt is not None:
        alphas = history.facts["alpha"][np.maximum(history.best_at - 1, 0), np.arange(len(members))]
    found = list(pool.map(lambda run: distances(data, run), np.asarray(free_runs(models, data.held[0], FREE))))
    pulled = np.ones_like(alphas) if group.published else alphas
    ahead = np.asarray(errors_ahead(models, jnp.asarray(pulled), data.held, scale))
    told = zip(members, alphas, found, ahead, history.best_at, strict=True)
    return [
        {"group": name, "alpha": alpha, "rate": rate, "seed": seed, "length": group.length, "steps": group.steps}
        | {"kept_at": at, "d_stsp": stsp, "d_h": spectral, "pe_20": pe, "outside": out}
        for (_, rate, seed), alpha, (stsp, spectral, out), pe, at in told
    ]


def main() -> None:
    names = sys.argv[2:] or list(GROUPS)
    if unknown := set(names) - set(GROUPS):
        raise SystemExit(f"groups are {list(GROUPS)}: got {unknown}.")
    data, pool = prepared(sys.argv[1]), ThreadPoolExecutor(os.cpu_count())
    kept = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    for name in names:
        begun = time.perf_counter()
        rows = searched(name, GROUPS[name], data, pool)
        kept = [row for row in kept if row["group"] != name] + rows
        with RESULTS.with_suffix(".part").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(kept)
        RESULTS.with_suffix(".part").replace(RESULTS)
        print(f"{name}: {len(rows)} runs, {time.perf_counter() - begun:.0f} s", flush=True)
        for alpha, rate in sorted({(r["alpha"] if GROUPS[name].alphas else None, r["rate"]) for r in rows}):
            same = [r for r in rows if r["rate"] == rate and alpha in (None, r["alpha"])]
            print(f"    alpha {alpha}, rate {rate}:", {k: np.nanquantile([r[k] for r in same], (0.25, 0.5, 0.75))
                  for k in ("alpha", "d_stsp", "d_h", "pe_20")}, flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
