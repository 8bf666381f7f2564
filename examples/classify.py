# %% [markdown]
# # Which system is this? Sequences classified, at any sampling rate
#
# Noisy traces of one variable each, of five systems that oscillate or are chaotic. A deep model of diagonal state-space
# layers learns to tell them apart. Its layers are systems in continuous time, so that the same parameters read traces
# that are sampled half or twice as often: the step is scaled and nothing is trained again.

# %%
import os

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

from dsrecon import plot, simulate
from dsrecon.models import S4D, sequence_model
from dsrecon.systems import Chua, HindmarshRose, Lorenz63, MackeyGlass, Roessler
from dsrecon.training import Sequences, classifying, fit, grouped, held, predicted

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
samples, traces, updates = (20_000, 600, 80) if small else (100_000, 3_000, 600)

# %% [markdown]
# ## The traces
# Of each system the first variable, finely sampled: about 100 samples an oscillation. A trace takes every second or
# every third of them, so that the period alone says little; that is the trace at `d / 2`, measured with noise of a
# quarter of a standard deviation on every sample. Every second of its samples make the trace at `d`, every fourth that
# at `2 d`. Each is standardised by itself. Test traces are from another stretch of the orbit.

# %%
steps = {Lorenz63(): 0.0075, Roessler(): 0.06, Chua(): 0.025, HindmarshRose(): 0.125, MackeyGlass(): 0.5}
names = [type(system).__name__ for system in steps]
orbits = np.stack([simulate(system, samples, dt=dt).values[:, 0] for system, dt in steps.items()])
rng = np.random.default_rng(0)


def measured(count, first, last):
    """Traces `[count, 256]` at `d / 2` of orbits between two samples, and their systems."""
    labels = rng.integers(len(names), size=count)
    pace, begin = rng.integers(2, 4, count), rng.integers(first, last - 3 * 256, count)
    x = orbits[labels[:, None], begin[:, None] + pace[:, None] * np.arange(256)]
    return x + 0.25 * orbits.std(1)[labels, None] * rng.normal(size=x.shape), labels


def standardised(x):
    """Each trace with mean 0 and standard deviation 1, as `[count, t, 1]`."""
    return ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))[..., None].astype(np.float32)


x, y = measured(traces, 0, 2 * samples // 3)
x_test, y_test = measured(traces // 2, 2 * samples // 3, samples)
x_train, x_held = np.split(standardised(x[:, ::2]), [4 * traces // 5])
y_train, y_held = np.split(y, [4 * traces // 5])
print(f"{len(x_train)} traces of {x_train.shape[1]} samples to learn from, {len(x_test)} to test on")

# %% [markdown]
# ## Training
# At `d` alone: the layers are told nothing of the step, so it is 1 to them. Their steps start small enough that the
# fastest pole (`pi (state_size / 2 - 1) step_max`, 1.1 radians a sample) is still resolved by samples `2 d` apart. What
# makes the dynamics (poles and steps) has a learning rate of its own and no weight decay. The model with the smallest
# loss on traces held back is kept.

# %%
model = sequence_model(
    1,
    len(names),
    lambda key: S4D(64, 16, step_min=0.005, step_max=0.05, key=key),
    depth=2,
    dropout=0.1,
    key=jax.random.key(0),
)
peaks = [optax.warmup_cosine_decay_schedule(0.0, peak, updates // 10, updates) for peak in (4e-3, 1e-3)]
optimiser = grouped(optax.adamw(peaks[0], weight_decay=0.05), optax.adam(peaks[1]))
model, history = fit(
    model,
    classifying(),
    Sequences(x_train, y_train, batch=32),
    optimiser,
    steps=updates,
    key=jax.random.key(1),
    evaluate=held(Sequences(x_held, y_held, batch=100), classifying()),
    every=updates // 8,
)
print(f"trained in {history.compile_seconds + history.seconds:.0f} s;", end=" ")
print(f"held-back traces told right: {history.scores['accuracy'][:, 0].max():.1%}")

# %% [markdown]
# ## The same traces, sampled at other rates
# `dt=2` says that the samples are twice as far apart as those that were learned from, `dt=0.5` that they are half as
# far apart. Beside it, what comes of leaving that out.

# %%
rates = {"d / 2": (standardised(x_test), 0.5), "d": (standardised(x_test[:, ::2]), 1.0)}
rates["2 d"] = (standardised(x_test[:, ::4]), 2.0)
told = {}
for name, (sampled, dt) in rates.items():
    told[name] = predicted(model, sampled, dt).argmax(1)
    without = (predicted(model, sampled).argmax(1) == y_test).mean()
    print(f"{name:>6}: {sampled.shape[1]:3d} samples, {(told[name] == y_test).mean():.1%} told right", end=" ")
    print(f"({without:.1%} at the step of training)")

# %%
figure = Figure(figsize=(12, 6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 2))
for label, ax in enumerate(above.subplots(1, 5)):
    row = np.flatnonzero(y_test == label)[0]
    ax.plot(np.arange(0, 128, 0.5), rates["d / 2"][0][row, :, 0], color="#BBBBBB", linewidth=0.8)
    ax.plot(np.arange(128), rates["d"][0][row, :, 0], ".-", color="#0072B2", markersize=3, linewidth=0.8)
    ax.set(title=names[label], yticks=[])
above.supxlabel("time [d]: samples at d (blue) and d / 2 (grey)", fontsize=10)
for name, ax in zip(rates, below.subplots(1, 3, sharey=True), strict=True):
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (y_test, told[name]), 1)
    ax.imshow(counts / counts.sum(1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(counts):
        dark = counts[i, j] > counts[i].sum() / 2
        ax.text(j, i, counts[i, j], ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(title=f"sampled every {name}: {(told[name] == y_test).mean():.1%}", xlabel="told")
    if name == "d / 2":
        ax.set_ylabel("true")
plot.save(figure, "classify.png")
