"""The kernels for NVIDIA GPUs against the memory's speed, and against the loops and scans that they replace.

    python benchmarks/kernels_device.py OUT.json [scan] [para] [step] [newton] [gru] [shooting] [auto] [powers]
        [reconstruct] [equal] [tune] [--quick]

Full float32. A time is the median of several rounds of calls that wait for the device once a round; compilation is left
out. `copy` is measured first in every run, by XLA (`x + 0`) on one array of a gigabyte, bytes read and written.
`--quick`: Newton's iteration on the longest sequence alone; GRUs by blocks and by the loop of XLA alone.
"""

import functools
import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dsrecon.cell import AbstractCell
from dsrecon.evolve import Sequential, evolve
from dsrecon.kernels import linear_scan, vandermonde_product
from dsrecon.measures import score
from dsrecon.models import ALRNN, GRU, ClippedShallowPLRNN, ParaGRU, ParaLSTM
from dsrecon.newton import Auto, Newton, Shooting
from dsrecon.readout import Forced, Forcing, IdentityReadout
from dsrecon.reconstruct import reconstruct
from dsrecon.systems import Lorenz63, Lozi, simulate

jax.config.update("jax_default_matmul_precision", "highest")
SMALL = "--small" in sys.argv


def timed(function, *given, rounds: int = 5, target: float = 0.2) -> float:
    """Seconds of a call."""
    program = jax.jit(function).lower(*given).compile()
    jax.block_until_ready(program(*given))
    begun = time.perf_counter()
    jax.block_until_ready(program(*given))
    calls = max(int(target / rounds / max(time.perf_counter() - begun, 1e-6)), 1)
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            out = program(*given)
        jax.block_until_ready(out)
        found.append((time.perf_counter() - begun) / calls)
        del out
    return float(np.median(found))


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def copied(report) -> float:
    x = normal(0, 1 << (20 if SMALL else 28))
    speed = 2 * x.nbytes / timed(lambda x: x + 0, x)
    report("copy", {"GB_per_s": speed / 1e9})
    return speed


def scan(report, speed: float) -> None:
    shapes = [(2, 64, 64)] if SMALL else [(8, 4096, 1024), (8, 65536, 128), (1, 1048576, 64)]
    for shape in shapes:
        a = jax.random.uniform(jax.random.key(1), shape, minval=0.9, maxval=0.999)
        b, g = normal(2, *shape), normal(3, *shape)
        engines = ["associative"] if SMALL else ["pallas", "associative"]
        for engine in engines:

            def forward(a, b, engine=engine):
                return jax.vmap(lambda a, b: linear_scan(a, b, engine=engine))(a, b)

            def both(a, b, g, forward=forward):
                h, pull = jax.vjp(forward, a, b)
                return h, pull(g)

            try:
                one, two = timed(forward, a, b), timed(both, a, b, g)
            except Exception as error:
                report(f"scan {shape} {engine} failed", {})
                print(repr(error)[:1500], flush=True)
                continue
            floor, floor_both = 3 * a.nbytes / speed, 8 * a.nbytes / speed
            report(
                f"scan {shape} {engine}",
                {"forward_ms": 1e3 * one, "share": floor / one, "both_ms": 1e3 * two, "share_both": floor_both / two},
            )


class Driven(AbstractCell):
    """A ParaGRU or ParaLSTM whose input is what its gates are given, `C s` made before."""

    cell: AbstractCell

    @property
    def state_size(self) -> int:
        return self.cell.state_size

    def given(self, s):
        def offset(cell):
            return cell.h if isinstance(cell, ParaGRU) else cell.b

        return eqx.tree_at(offset, self.cell, offset(self.cell) + s)

    def __call__(self, z, s=None):
        return self.given(s)(z)

    def linearise(self, z, s=None):
        return self.given(s).linearise(z)


def passes(solver, static):
    """Forward, and forward with gradient by parameters and inputs; `(parameters, z0, inputs)`."""

    def forward(free, z0, s):
        run = evolve(eqx.combine(free, static), z0, s, solver=solver, throw=False)
        return run.zs, run.stats

    def both(free, z0, s, g):
        zs, pull, stats = jax.vjp(lambda free, s: forward(free, z0, s), free, s, has_aux=True)
        return zs, pull(g), stats

    return forward, both


PARA = {"ParaGRU": (ParaGRU, 3, 1), "ParaLSTM": (ParaLSTM, 3, 2)}
"""Cells whose units do not meet; numbers of input and of state of a unit."""


def para_problem(name: str, speed: float):
    """`(static, free, z0, s, g)`, and the seconds in which what must be moved is copied, without and with gradient."""
    steps, batch, size = (64, 2, 64) if SMALL else (16_384, 8, 1_024)
    make, read, wide = PARA[name]
    free, static = eqx.partition(Driven(make(size, key=jax.random.key(0))), eqx.is_inexact_array)
    z0, s = jnp.zeros((batch, wide * size)), normal(1, batch, steps, read * size)
    g = normal(2, batch, steps, wide * size)
    unit = 4 * steps * batch * size / speed
    return (static, free, z0, s, g), ((read + wide) * unit, (2 * read + 3 * wide + read) * unit)


def para(report, speed: float) -> None:
    for name in PARA:
        (static, free, z0, s, g), (floor, floor_both) = para_problem(name, speed)
        forward, both = passes(Sequential(engine="fused"), static)
        one, two = timed(forward, free, z0, s), timed(both, free, z0, s, g)
        report(
            f"{name} fused",
            {"forward_ms": 1e3 * one, "share": floor / one, "both_ms": 1e3 * two, "share_both": floor_both / two},
        )
        if name == "ParaGRU":
            forward, both = passes(Newton(), static)
            one, two = timed(forward, free, z0, s, rounds=3), timed(both, free, z0, s, g, rounds=3)
            report(f"{name} Newton", {"forward_ms": 1e3 * one, "both_ms": 1e3 * two})


def forced(cell, n: int = 3):
    return Forced(cell, IdentityReadout(n, cell.state_size, key=jax.random.key(9)))


def step(report, speed: float) -> None:
    cells = {
        "AL-RNN M20 P2": lambda key: forced(ALRNN(20, 2, key=key)),
        "shallow M3 H50": lambda key: forced(ClippedShallowPLRNN(3, 50, key=key)),
    }
    steps, batch = 200, 16
    for name, make in cells.items():
        static = eqx.filter(make(jax.random.key(0)), eqx.is_inexact_array, inverse=True)
        for count in (1, 1024) if not SMALL else (1, 4):
            models = eqx.filter_vmap(make)(jax.random.split(jax.random.key(0), count))
            free = eqx.filter(models, eqx.is_inexact_array)
            x = normal(1, count, batch, steps + 1, 3)
            for engine in ("fused", "loop") if not SMALL else ("loop",):

                def gradient(free, x, engine=engine, static=static):
                    def one(free, x):
                        model = eqx.combine(free, static)
                        z0 = jax.vmap(model.readout.start)(x[:, 0])
                        alpha = jnp.full((batch, steps), 0.3)
                        solver = Sequential(engine=engine)
                        zs = evolve(model, z0, Forcing(x[:, :-1], alpha), solver=solver, throw=False).zs
                        return jnp.mean((jax.vmap(jax.vmap(model.readout.decode))(zs) - x[:, 1:]) ** 2)

                    return jax.vmap(jax.value_and_grad(one))(free, x)

                if engine == "loop" and count > 1:
                    continue
                try:
                    found = timed(gradient, free, x)
                except Exception as error:
                    report(f"{name} x{count} {engine} failed", {})
                    print(repr(error)[:1500], flush=True)
                    continue
                report(f"{name} x{count} {engine}", {"ms": 1e3 * found, "us_a_model": 1e6 * found / count})


def tune(report, speed: float) -> None:
    """How the cut of a scan shows in its time: what `cut` was chosen by."""
    from dsrecon.kernels.accelerated.lookback import Cut, call

    cuts = {
        (8, 4096, 1024): [(32, 1, 32, 4), (32, 2, 32, 4), (32, 2, 32, 2), (32, 4, 32, 4), (64, 2, 32, 4)],
        (8, 65536, 128): [(32, 4, 32, 4), (32, 4, 32, 8), (32, 8, 32, 8), (32, 4, 32, 2), (64, 4, 32, 4)],
        (1, 1048576, 64): [(32, 16, 32, 8), (32, 16, 16, 8), (32, 16, 16, 16), (32, 8, 32, 8), (16, 32, 16, 8),
                           (8, 64, 16, 8), (16, 16, 32, 8), (32, 8, 16, 8), (16, 16, 16, 8)],
    }  # fmt: skip
    for shape, each in cuts.items():
        a = jax.random.uniform(jax.random.key(1), shape, minval=0.9, maxval=0.999)[:, :, None]
        b = normal(2, *shape)[:, :, None]
        for given in each:
            how = Cut(*given)
            begun = time.perf_counter()
            one = timed(lambda a, b, how=how: call(a, b, None, None, reverse=False, how=how), a, b, target=0.05)
            share = 3 * a.nbytes / speed / one
            report(f"tune {shape} {given}", {"share": share, "s": time.perf_counter() - begun})
    a, b = 0.3 * normal(1, 1, 1_000_000, 9, 1), normal(2, 1, 1_000_000, 3, 1)
    for given in [(1, 128, 2, 2), (1, 256, 2, 2), (1, 256, 1, 2)]:
        how = Cut(*given)
        one = timed(lambda a, b, how=how: call(a, b, None, None, reverse=False, how=how), a, b, target=0.05)
        report(f"tune dense 3 {given}", {"ms": 1e3 * one})
    a, b = a.reshape(-1, 3, 3), b.reshape(-1, 3)
    one = timed(lambda a, b: linear_scan(a, b, engine="associative"), a, b, target=0.05)
    report("tune dense 3 associative", {"ms": 1e3 * one})


def lorenz_like(steps: int) -> jax.Array:
    """Standardised Lorenz-63 at dt = .01 with 5 % noise."""

    def step(z, _):
        x, y, w = z
        z = z + 0.01 * jnp.stack([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w])
        return z, z

    x = jax.jit(lambda z: jax.lax.scan(step, z, None, length=min(steps, 100_000) + 1)[1])(jnp.array([1.0, 1.0, 20.0]))
    x = jnp.tile(x, (-(-steps // 100_000), 1))[: steps + 1]
    x = (x - x.mean(0)) / x.std(0)
    return x + 0.05 * jax.random.normal(jax.random.key(0), x.shape)


def shallow_problem(steps: int):
    """`(static, free, z0, s, g)` of a shallow PLRNN, forced."""
    model = forced(ClippedShallowPLRNN(3, 50, key=jax.random.key(1)))
    free, static = eqx.partition(model, eqx.is_inexact_array)
    x = lorenz_like(steps)
    return static, free, x[0], Forcing(x[:-1], jnp.full(steps, 0.3)), normal(1, steps, 3)


def gru_problem(n: int):
    """`(static, free, z0, s, g)` of a GRU driven by noise."""
    steps, batch = (100 if SMALL else 10_000), 16
    free, static = eqx.partition(GRU(n, input_size=n, key=jax.random.key(n)), eqx.is_inexact_array)
    return static, free, jnp.zeros((batch, n)), normal(0, batch, steps, n), normal(1, batch, steps, n)


def solved(solver, static, free, z0, s, g) -> dict[str, float]:
    """Times of a run by a solver that iterates, and how many times it did."""
    forward, both = passes(solver, static)
    one, two = timed(forward, free, z0, s), timed(both, free, z0, s, g)
    stats = jax.jit(forward)(free, z0, s)[1]
    return {"forward_ms": 1e3 * one, "both_ms": 1e3 * two, "iterations": int(stats["iterations"].max())}


def shooting(report, speed: float) -> None:
    for name in PARA:
        problem, (floor, floor_both) = para_problem(name, speed)
        row = solved(Shooting(), *problem)
        shares = {"share": 1e3 * floor / row["forward_ms"], "share_both": 1e3 * floor_both / row["both_ms"]}
        report(f"{name} Shooting", row | shares)
    for steps in (1000,) if SMALL else (10_000, 100_000, 1_000_000):
        report(f"shallow Shooting T={steps}", solved(Shooting(), *shallow_problem(steps)))
    for n in (2, 4, 8, 16, 32):
        report(f"GRU n={n} Shooting", solved(Shooting(), *gru_problem(n)))


def powers(report, speed: float) -> None:
    """The kernels of S4D layers, by products of matrices and in one kernel; what must be moved is the result.

    They follow one another in one program, each on what the one before has left: a launch from the host takes longer.
    """
    shapes = [(1024, 64, 16_384), (1024, 4, 16_384), (1024, 32, 16_384), (256, 32, 65_536), (1024, 32, 1024)]
    for h, n, length in ((2, 4, 64),) if SMALL else shapes:
        w = jax.lax.complex(normal(1, h, n), normal(2, h, n))
        x = jax.lax.complex(-jax.random.uniform(jax.random.key(3), (h, n)) / length, normal(4, h, n))
        g = normal(5, h, length)
        for engine in ("products", "interpreted") if SMALL else ("products", "pallas"):

            @jax.jit
            def forward(w, x, g, engine=engine, length=length):
                return vandermonde_product(w, x, length, engine=engine)

            @jax.jit
            def back(w, x, g, forward=forward):
                return jax.vjp(lambda w, x: forward(w, x, g), w, x)[1](g)

            def times(w, x, g, function):
                for _ in range(20):
                    left = jax.tree.leaves(function(w, x, g))
                    w = w + 1e-30 * left[0][:, : w.shape[1]]
                    x = x + 1e-30 * left[-1][:, : w.shape[1]]
                return w, x

            one, two = (timed(functools.partial(times, function=f), w, x, g) / 20 for f in (forward, back))
            floor = 4 * h * length / speed
            report(
                f"powers {(h, n, length)} {engine}",
                {"forward_ms": 1e3 * one, "share": floor / one, "back_ms": 1e3 * two, "share_back": floor / two},
            )


def auto(report, speed: float) -> None:
    """`Auto` beside the loop in one kernel, and beside what it takes on free-running chaos, where blocks never meet."""
    problems = {"ParaGRU": para_problem("ParaGRU", speed)[0], "GRU n=8": gru_problem(8)}
    lengths = (200,) if SMALL else (200, 10_000, 1_000_000)
    problems |= {f"shallow T={steps}": shallow_problem(steps) for steps in lengths}
    for n in (1_000, 100_000):
        free, static = eqx.partition(forced(Lozi(), 2), eqx.is_inexact_array)
        s = Forcing(jnp.zeros((n, 2)), jnp.zeros(n))
        problems[f"Lozi, free, T={n}"] = static, free, jnp.array([0.1, 0.1]), s, normal(1, n, 2)
    for name, problem in problems.items():
        static, free, z0, s, g = problem
        forward, both = passes(Sequential(), static)
        loop = {"loop_forward_ms": 1e3 * timed(forward, free, z0, s), "loop_both_ms": 1e3 * timed(both, free, z0, s, g)}
        stats = jax.jit(passes(Auto(), static)[0])(free, z0, s)[1]
        told = {key: float(stats[key].max()) for key in ("blocks", "gain")}
        report(f"{name} Auto", solved(Auto(), *problem) | told | loop)


def newton(report, speed: float) -> None:
    for steps in (1000,) if SMALL else (1_000_000,) if "--quick" in sys.argv else (10_000, 100_000, 1_000_000):
        problem = shallow_problem(steps)
        solvers = {"auto": Newton(), "associative": Newton(engine="associative")}
        for name, solver in solvers.items():
            report(f"shallow Newton T={steps} {name}", solved(solver, *problem))


def gru(report, speed: float) -> None:
    for n in (2, 4, 8, 16, 32):
        static, free, z0, s, g = gru_problem(n)
        row = {}
        solvers = {
            "Shooting": Shooting(),
            "Newton": Newton(),
            "fused": Sequential(engine="fused"),
            "loop": Sequential(engine="loop"),
        }
        if "--quick" in sys.argv:
            del solvers["Newton"], solvers["fused"]
        for name, solver in solvers.items():
            try:
                row[f"{name}_ms"] = 1e3 * timed(
                    passes(solver, static)[1], free, z0, s, g, rounds=2 if name == "loop" else 5
                )
            except Exception as error:
                print(name, repr(error)[:800], flush=True)
        if "loop_ms" in row:
            row["times_faster"] = row["loop_ms"] / min(row[k] for k in row if k != "loop_ms")
        report(f"GRU n={n}", row)


def apart(x, y) -> float:
    return float(jnp.abs(x - y).max() / (jnp.abs(y).max() + 1e-30))


def equal(report, speed: float) -> None:
    """Largest relative difference from the loop, of values and gradients, over a grid of odd shapes."""
    worst = 0.0
    kinds = {"diagonal": lambda t, d: (t, d), "scalar": lambda t, d: (t,), "blocks": lambda t, d: (t, 2, 2, d),
             "dense": lambda t, d: (t, 3, 3)}  # fmt: skip
    for kind, shape in kinds.items():
        for t in (1, 7, 1000, 65537) if not SMALL else (1, 7):
            for d in (1, 3, 130) if kind != "dense" else (1,):
                variants = ((False, False), (True, True)) if kind == "diagonal" else ((t % 2 == 0, d == 3),)
                for reverse, with_resets in variants if kind == "diagonal" or d != 1 or t in (1, 65537) else ():
                    m = {"blocks": 2 * d, "dense": 3}.get(kind, d)
                    a = jax.random.uniform(jax.random.key(t + d), shape(t, d), minval=-0.45, maxval=0.45)
                    b, g, h0 = normal(1, t, m), normal(2, t, m), normal(3, m)
                    resets = jax.random.uniform(jax.random.key(5), (t,)) < 0.01 if with_resets else None

                    @functools.partial(jax.jit, static_argnums=0)
                    def both(engine, a=a, b=b, g=g, h0=h0, resets=resets, reverse=reverse):
                        def run(a, b, h0):
                            return linear_scan(a, b, h0, resets=resets, reverse=reverse, engine=engine)

                        h, pull = jax.vjp(run, a, b, h0)
                        return h, pull(g)

                    found = jax.tree.leaves(both("pallas" if not SMALL else "interpreted"))
                    wanted = jax.tree.leaves(both("sequential"))
                    errors = [
                        float(jnp.abs(x - y).max() / (jnp.abs(y).max() + 1e-30))
                        for x, y in zip(found, wanted, strict=True)
                    ]
                    worst = max(worst, *errors)
                    if not max(errors) < 1e-5:
                        report(f"equal {kind} T={t} D={d} reverse={reverse} FAILS", {"errors": max(errors)})
    report("equal scans", {"worst": worst})
    worst = 0.0
    cells = {"alrnn": forced(ALRNN(20, 2, key=jax.random.key(0))), "gru": GRU(5, input_size=3, key=jax.random.key(0)),
             "paragru": ParaGRU(130, input_size=3, key=jax.random.key(0)),
             "paralstm": ParaLSTM(33, input_size=3, key=jax.random.key(0))}  # fmt: skip
    for name, cell in cells.items():
        for t in (1, 7, 1000):
            free, static = eqx.partition(cell, eqx.is_inexact_array)
            z0, x, g = normal(0, 3, cell.state_size), normal(1, 3, t, 3), normal(2, 3, t, cell.state_size)
            s = Forcing(x, jnp.full((3, t), 0.3)) if name == "alrnn" else x
            engine = "fused" if not SMALL else "interpreted"
            found, wanted = (
                jax.tree.leaves(jax.jit(passes(Sequential(engine=e), static)[1])(free, z0, s, g)[:2])
                for e in (engine, "loop")
            )
            errors = [
                float(jnp.abs(x - y).max() / (jnp.abs(y).max() + 1e-30)) for x, y in zip(found, wanted, strict=True)
            ]
            worst = max(worst, *errors)
            if not max(errors) < 1e-4:
                report(f"equal {name} T={t} FAILS", {"errors": max(errors)})
    report("equal loops", {"worst": worst})


def reconstructed(report, speed: float) -> None:
    """Lorenz-63 by AL-RNNs at the settings of their paper, 64 runs: from the series to the model, all included."""
    updates, runs = (200, 2) if SMALL else (100_000, 64)
    truth = simulate(Lorenz63(), 60_000 if SMALL else 200_000)
    series = truth.isel(time=slice(None, len(truth) // 2))
    begun = time.perf_counter()
    model = reconstruct(
        series, lambda key: ALRNN(20, 2, key=key), runs=runs, interval=16, length=200, batch=16, noise=0.05,
        steps=updates, learning_rate=(1e-3, 1e-5), progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    table = score(model, truth.isel(time=slice(len(truth) // 2, None)))
    told = {f"{name}{of}": float(table[which].sel(measure=name)) for name in ("d_stsp_padded", "d_h")
            for which, of in (("value", ""), ("floor", "_floor"))}  # fmt: skip
    report(f"reconstruct Lorenz-63, AL-RNN, {updates} updates, {runs} runs", {"seconds": seconds} | told)


PARTS = {f.__name__: f for f in (scan, tune, para, step, newton, gru, shooting, auto, powers, equal)}
PARTS["reconstruct"] = reconstructed


def main() -> None:
    given = [x for x in sys.argv[1:] if not x.startswith("--")]
    out, names = Path(given[0]), given[1:] or ["scan", "para", "step", "newton", "gru", "equal"]
    device = jax.devices()[0]
    rows = {"device": device.device_kind, "jax": jax.__version__, "command": " ".join(sys.argv)}

    def report(name, row):
        rows[name] = row
        print(name, {k: float(f"{v:.5g}") for k, v in row.items()}, flush=True)
        out.write_text(json.dumps(rows, indent=1) + "\n")

    speed = copied(report)
    for name in names:
        begun = time.perf_counter()
        try:
            PARTS[name](report, speed)
        except Exception:  # one that fails must not cost the others
            report(f"{name} failed", {})
            import traceback

            traceback.print_exc()
        print(f"-- {name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
