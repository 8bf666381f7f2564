# %% [markdown]
# # A network that emulates a hidden Markov model
#
# Behaviour is often described by a few hidden states, each with its own habits: a hidden Markov model. A recurrent
# network has no such states, but a continuous one that noise drives. Here it learns to emit the sequences of a hidden
# Markov model, and is then compared with it: how often each symbol comes, how often it changes, what follows what, and
# how far the sequences are apart. After Torre et al. 2025, *Mechanistic interpretability of RNNs emulating hidden
# Markov models*.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dsrecon import plot
from dsrecon.models import TanhRNN
from dsrecon.symbolic import HiddenMarkov, SymbolEmissions, compare_emissions, fit_hmm
from dsrecon.training import Emitter, emitted, emulating, fit

small = os.environ.get("DSRECON_EXAMPLE_SIZE") == "small"  # what continuous integration runs
window, batch, updates, sequences, steps = (6, 32, 10, 60, 30) if small else (10, 256, 1200, 500, 100)

# %% [markdown]
# ## The source
# Two hidden states that last 20 steps on the average. One shows 0, the other 2, and each now and then 1.

# %%
source = HiddenMarkov([[0.95, 0.05], [0.05, 0.95]], SymbolEmissions([[0.85, 0.15, 0.0], [0.0, 0.15, 0.85]]))
seen, hidden = source.sample(2_000 if small else 200_000, seed=0)
print("seen:  ", *seen[:60], sep="")
print("hidden:", *hidden[:60], sep="")
print(
    f"coded by the model (Viterbi), {(source.viterbi(seen) == hidden).mean():.1%} of the steps are in the right state"
)

# %% [markdown]
# How many states there are can be told from what is seen: the model of the least BIC has two.

# %%
part = seen[: 1_000 if small else 10_000]
for states in (2,) if small else (1, 2, 3):
    fitted = fit_hmm(part, states, starts=2 if small else 5)
    print(f"{states} states: log-likelihood {fitted.log_likelihood:.1f}, BIC {fitted.bic:.1f}")

# %% [markdown]
# ## The network
# Units are driven by Gaussian noise; a softmax of their state gives the probabilities of the symbols, and the symbol
# that is drawn does not come back. It is trained on stretches of the source, by the Sinkhorn divergence (optimal
# transport with entropic regularisation) between a batch of them and as many of its own.

# %%
key_cell, key_V, key_fit, key_draw = jax.random.split(jax.random.key(0), 4)
start = Emitter(TanhRNN(32, input_size=8, key=key_cell), symbols=3, noise_size=8, key=key_V)
stretches = jnp.asarray(seen[: len(seen) // window * window].reshape(-1, window))


def sampler(key):
    return stretches[jax.random.randint(key, (batch,), 0, len(stretches))]


rate = optax.exponential_decay(3e-3, updates, 0.3)
model, history = fit(start, emulating(blur=0.03), sampler, optax.adam(rate), steps=updates, key=key_fit)
tenth = max(1, updates // 10)
print("divergence, mean of each tenth:", *np.round(history.loss[: 10 * tenth, 0].reshape(10, -1).mean(1), 3))

# %% [markdown]
# ## Side by side
# Sequences ten times as long as those of the training. `floor` is another set from the source: so far two sets from one
# source are apart. `untrained` is the network before.


# %%
def drawn(seed):
    return source.sample(sequences * steps, seed=seed)[0].reshape(sequences, steps)


truth = drawn(1)
sets = {"floor": drawn(2)}
sets |= {
    name: np.asarray(emitted(m, sequences, steps, key=key_draw))
    for name, m in (("network", model), ("untrained", start))
}
print("           share of 0, 1, 2        volatility  distance  words of 4 (total variation)")
for name, emissions in sets.items():
    found = compare_emissions(truth, emissions, word=4)
    shares = " ".join(f"{x:.3f}" for x in found["share"].values[1])
    volatility, distance, words = (
        float(found["volatility"][1]),
        float(found["distance"]),
        float(found["word_variation"]),
    )
    print(f"{name:10} {shares:23} {volatility:.3f}       {distance:.3f}     {words:.3f}")
    if name == "network":
        transitions = found["transition"].values
print(f"source: volatility {float(found['volatility'][0]):.3f}")
print("transitions of the source\n", np.round(transitions[0], 3))
print("transitions of the network\n", np.round(transitions[1], 3))

# %% [markdown]
# A hidden Markov model fitted to what the network emits finds the hidden states of the source again, and shows what
# is still amiss: they last longer than those of the source. A stretch of ten steps seldom holds a change of state.

# %%
fitted = fit_hmm(sets["network"].reshape(-1)[: 1_000 if small else 20_000], 2, starts=2 if small else 5).model
fitted = fitted.sorted(np.argsort(-fitted.emissions.probabilities[:, 0]))
print("transitions of the hidden states\n", np.round(fitted.transitions, 3))
print("emissions\n", np.round(fitted.emissions.probabilities, 3))

# %% [markdown]
# ## What the noise does
# Without noise the network comes to rest, and what it emits is drawn from one distribution. With noise, the state is
# pushed from one side to the other: the hidden states of the source are two regions of the network.

# %%
zs = np.asarray(model.states(50, 200, key=key_draw))
still = np.asarray(model.states(3, 200, key=key_draw, noise=0.0))
moved = np.abs(np.diff(still[0], axis=0)).max(1)
print("largest move of a unit in a step without noise, first and last:", f"{moved[0]:.2g}", f"{moved[-1]:.2g}")
p = jax.nn.softmax(model.logits(jnp.asarray(zs)))
print("without noise, probabilities of 0, 1, 2:", np.round(jax.nn.softmax(model.logits(jnp.asarray(still[0, -1]))), 3))

flat = zs.reshape(-1, zs.shape[-1])
axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:2].T
fig = Figure(figsize=(10, 3.6), layout="constrained")
left, middle, right = fig.subplots(1, 3)
for ax, part, title in ((left, truth, "the source"), (middle, sets["network"], "the network")):
    image = ax.imshow(part[:30], aspect="auto", interpolation="nearest", cmap="viridis")
    ax.set(title=title, xlabel="step", ylabel="sequence")
fig.colorbar(image, ax=middle, label="symbol", ticks=[0, 1, 2])
x, y = ((flat - flat.mean(0)) @ axes).T
points = right.scatter(x, y, c=np.asarray(p)[..., 2].reshape(-1), s=2, cmap="coolwarm", vmin=0, vmax=1)
fig.colorbar(points, ax=right, label="probability of symbol 2")
rest = (still[0, -1] - flat.mean(0)) @ axes
right.plot(*rest, "k+", markersize=12, label="without noise")
right.set(title="states of the network", xlabel="first principal axis", ylabel="second principal axis")
right.legend(loc="upper right", fontsize=8)
plot.save(fig, "hmm.png")
