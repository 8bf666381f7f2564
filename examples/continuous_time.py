# %% [markdown]
# # One model, three sampling rates, and gaps
#
# A state-space layer is a linear system in continuous time. What it was trained on at one sampling step it runs at
# another by scaling that step, at steps of many lengths, and sample by sample as they come in. Here such a model
# estimates what is not measured: all three variables of Lorenz-63 from noisy observations of the first.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from dsrecon import S5, Timed, sequence_model, simulate, steps_between
from dsrecon.plot import PALETTE
from dsrecon.systems import Lorenz63
from dsrecon.training import Sequences, fit, grouped, held, predicted, regressing

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
rows, length, updates = (64, 64, 60) if small else (512, 128, 3000)
fine, step = 0.02, 0.04  # the series is made at half the step that the model is trained at

# %% [markdown]
# ## Sequences
# Cut from one long run. The model sees `x` with 10 % noise, and is asked for `x`, `y` and `z` at each step.

# %%
truth = simulate(Lorenz63(), 8 * rows * length, dt=fine)
states = ((truth - truth.mean("time")) / truth.std("time")).values
noise = 0.1 * np.asarray(jax.random.normal(jax.random.key(0), (len(states), 1), states.dtype))
seen, asked = (values.reshape(4 * rows, 2 * length, -1) for values in (states[:, :1] + noise, states))
train, kept, test = slice(0, 3 * rows), slice(3 * rows, 3 * rows + rows // 2), slice(3 * rows + rows // 2, None)

# %% [markdown]
# ## Training, at one rate
# Every second sample. The dynamics of the layers (poles, steps) are given a smaller learning rate than the rest.

# %%
key = jax.random.key(1)
model = sequence_model(1, 3, lambda key: S5(48, 48, key=key), depth=3, pool=None, key=key)
rate = optax.cosine_decay_schedule(4e-3, updates)
model, history = fit(
    model,
    regressing(),
    Sequences(seen[train, 1::2], asked[train, 1::2], batch=16),
    grouped(optax.adamw(rate, weight_decay=0.01), optax.adam(lambda count: rate(count) / 4)),
    steps=updates,
    key=key,
    evaluate=held(Sequences(seen[kept, 1::2], asked[kept, 1::2], batch=32), regressing()),
    progress=False,
)
print(f"trained in {history.seconds:.0f} s (and {history.compile_seconds:.0f} s to compile)")


def error(found, wanted, skip):
    """Root mean square in standard deviations, of the hidden variables, once the model has seen something."""
    return float(np.sqrt(np.mean((found - wanted)[:, skip:, 1:] ** 2)))


def tell(name, found, wanted, skip):
    print(f"{name:44s} {error(found, wanted, skip):.3f}")


skip = length // 4
same = predicted(model, seen[test, 1::2])
tell("as trained", same, asked[test, 1::2], skip)

# %% [markdown]
# ## At other rates
# Twice as fine and twice as coarse: `dt` is the step in units of that which the model was trained at. Left at 1, the
# model takes the samples for what they were in training, and is wrong.

# %%
half = predicted(model, seen[test], dt=0.5)
tell("twice as fine, dt=0.5", half, asked[test], 2 * skip)
tell("  the same, dt left at 1", predicted(model, seen[test]), asked[test], 2 * skip)
tell("twice as coarse, dt=2", predicted(model, seen[test, 3::4], dt=2.0), asked[test, 3::4], skip // 2)
tell("  the same, dt left at 1", predicted(model, seen[test, 3::4]), asked[test, 3::4], skip // 2)

# %% [markdown]
# ## With gaps
# A third of the samples lost, at random, and a gap of ten steps. Each sample now comes with the time since the last
# one (`steps_between`), which is all that changes. Beside it: the samples that are left taken for equidistant, and
# every loss filled in by the last sample.

# %%
rng = np.random.default_rng(0)
there = rng.random(length) > 1 / 3
there[length // 2 : length // 2 + 10] = False
times = np.flatnonzero(there).astype(float)
dt = np.broadcast_to(steps_between(times, first=1.0), (len(seen[test]), len(times)))
at_half = seen[test, 1::2], asked[test, 1::2]
left, wanted = (values[:, there] for values in at_half)
gaps = predicted(model, left, dt=dt.astype(left.dtype))
last = np.maximum.accumulate(np.where(there, np.arange(length), int(times[0])))
tell("with gaps, their lengths told", gaps, wanted, skip)
tell("  taken for equidistant", predicted(model, left), wanted, skip)
tell("  losses filled in by the last sample", predicted(model, at_half[0][:, last])[:, there], wanted, skip)

# %% [markdown]
# ## As a stream
# The same model as a cell: one sample in, one estimate out, a state of fixed size between. `cell(None)` takes the time
# since the last sample beside each; `cell()` is for equal steps.

# %%
cell = model.cell(None)


@eqx.filter_jit
def take(cell, z, sample, since):
    given = Timed(sample, since)
    z = cell(z, given)
    return z, cell.output(z, given)


z = jnp.zeros(cell.state_size)
streamed = []
for sample, since in zip(left[0], dt[0], strict=True):
    z, estimate = take(cell, z, jnp.asarray(sample), jnp.asarray(since, sample.dtype))
    streamed.append(estimate)
print(f"stream and whole sequence differ by {np.abs(np.stack(streamed) - gaps[0]).max():.1e}")

# %% [markdown]
# ## What it looks like
# One test sequence, its third variable, which the model never sees.

# %%
figure, axes = plt.subplots(4, 1, figsize=(9, 7.5), sharex=True, constrained_layout=True)
clock = np.arange(1, 2 * length + 1) * fine
axes[0].plot(clock, seen[test][0, :, 0], ".", ms=3, color="0.4", label="x, as measured")
axes[0].plot(clock[1::2][there], left[0, :, 0], "o", ms=4, mfc="none", color=PALETTE[0], label="what the gaps leave")
panels = (
    ("as trained", clock[1::2], same[0]),
    ("twice as coarse", clock[3::4], predicted(model, seen[test, 3::4], dt=2.0)[0]),
    ("with gaps", clock[1::2][there], gaps[0]),
)
for axis, (name, when, found) in zip(axes[1:], panels, strict=True):
    axis.plot(clock, asked[test][0, :, 2], color="0.7", lw=3, label="z, true")
    axis.plot(when, found[:, 2], ".-", ms=4, lw=1, color=PALETTE[1], label=f"estimated, {name}")
for axis in axes:
    axis.legend(loc="upper right", ncols=2, frameon=False)
    axis.set_ylabel("in sd")
    axis.set_ylim(-3.2, 4.4)
axes[-1].set_xlabel("time (Lorenz-63's units)")
figure.savefig("continuous_time.png", dpi=120)
