"""Hidden Markov models: a Markov chain of states that are not seen, and what each of them shows."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
import xarray as xr
from jaxtyping import Array, Float, Int

from dsrecon.series import as_series, labelled
from dsrecon.symbolic.emissions import (
    AbstractEmissions,
    GaussianEmissions,
    SymbolEmissions,
    distributions,
    least_variance,
)
from dsrecon.symbolic.machine import stationary
from dsrecon.symbolic.symbols import as_sequence

_TRIED = 30  # rounds of every start; only the best goes on


class HiddenMarkov(eqx.Module):
    """A hidden Markov model: `z_1 ~ initial`, `z_{t+1} ~ transitions[z_t]`, and `x_t ~ emissions(z_t)`.

    All its sums run in float64 and are scaled step by step, so that no length underflows.

    **Arguments:** `transitions` `[s, s]`, rows that sum to 1; `emissions`: `SymbolEmissions` or `GaussianEmissions` of
    `s` states; `initial` `[s]` (default: the stationary distribution of the transitions).

    **Raises:** `ValueError` for shapes that differ and rows that are no distributions.

    Reference: Rabiner 1989, *A tutorial on hidden Markov models and selected applications in speech recognition*,
    Proceedings of the IEEE 77, 257.
    """

    initial: Float[Array | np.ndarray, "s"]
    transitions: Float[Array | np.ndarray, "s s"]
    emissions: AbstractEmissions

    def __init__(self, transitions: Any, emissions: AbstractEmissions, initial: Any = None):
        self.transitions = distributions(transitions, "transitions")
        size = len(self.transitions)
        if self.transitions.shape != (size, size):
            raise ValueError(f"transitions must be square: got {self.transitions.shape}.")
        shown = len(jax.tree.leaves(emissions)[0])
        if shown != size:
            raise ValueError(f"emissions must be those of the {size} states of transitions: got {shown} states.")
        first = stationary(self.transitions) if initial is None else np.array(initial, float)
        self.initial = distributions(first[None], "initial")[0]
        if len(self.initial) != size:
            raise ValueError(f"initial must have {size} entries: got {len(self.initial)}.")
        self.emissions = emissions

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.initial)

    def sample(self, steps: int, *, seed: int) -> tuple[np.ndarray, Int[np.ndarray, "steps"]]:
        """What is seen, symbols `[steps]` or values `[steps, n]`, and the states `[steps]` behind it."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1: got {steps}.")
        rng = np.random.default_rng(seed)
        edges = [row[:-1].tolist() for row in np.cumsum(np.vstack([self.initial, self.transitions]), 1)]
        states, row = np.empty(steps, np.int64), edges[0]
        for t, draw in enumerate(rng.random(steps).tolist()):
            state = sum(draw >= edge for edge in row)
            states[t], row = state, edges[state + 1]
        return self.emissions.drawn(states, rng), states

    def log_likelihood(self, x: Any) -> float:
        """`ln p(x_1 ... x_t)`, nats, by the forward recursion; `-inf` for what the model cannot show.

        **Arguments:** `x`: symbols `[t]`, or values `[t, n]`. **Raises:** `ValueError` for another form, or symbols
        that are not in the alphabet.
        """
        values = self.emissions.checked(x)
        with jax.enable_x64(True):
            return float(_forward(self, jnp.asarray(values))[1].sum())

    def posterior(self, x: Any) -> Float[np.ndarray, "t s"]:
        """`p(z_t | x)`: the probability of each state at each step, given all that is seen, before and after."""
        values = self.emissions.checked(x)
        with jax.enable_x64(True):
            return np.asarray(_smoothed(self, jnp.asarray(values))[0])

    def viterbi(self, x: Any) -> Int[np.ndarray, "t"]:
        """The most probable sequence of states as a whole, `argmax_z p(z, x)`.

        Reference: Viterbi 1967, *Error bounds for convolutional codes and an asymptotically optimum decoding
        algorithm*, IEEE Transactions on Information Theory 13, 260.
        """
        values = self.emissions.checked(x)
        with jax.enable_x64(True):
            return np.asarray(_best_path(self, jnp.asarray(values)))

    def sorted(self, order: Any) -> "HiddenMarkov":
        """The same model with its states in another order: the first is what was number `order[0]`."""
        order = np.asarray(order)
        P = np.asarray(self.transitions)[np.ix_(order, order)]
        return HiddenMarkov(P, self.emissions.sorted(order), np.asarray(self.initial)[order])


class HiddenMarkovFit(NamedTuple):
    """What a fit came to: the `model` of greatest likelihood; `log_likelihood`, nats; `starts`, that of each start
    after its first rounds; `rounds` of the best one, and whether it `converged`; `bic`."""

    model: HiddenMarkov
    log_likelihood: float
    starts: np.ndarray
    rounds: int
    converged: bool
    bic: float


def fit_hmm(
    x: Any, states: int, *, starts: int = 5, rounds: int = 500, tolerance: float = 1e-7, seed: int = 0
) -> HiddenMarkovFit:
    """A hidden Markov model fitted to symbols by Baum-Welch: the likelihood grows with every round.

    Starts are drawn at random; each takes 30 rounds, and the best goes on until a round adds less than `tolerance`
    nats a step. The maximum that is found is a local one: compare `starts`.

    **Arguments:** `x`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`; `states`, at least 1; `starts`;
    `rounds` of the best one at most; `tolerance`, nats a step; `seed`.

    **Raises:** `ValueError` as `as_sequence`, for an alphabet of one symbol, fewer symbols than free numbers, and
    numbers below 1.

    Reference: Baum, Petrie, Soules & Weiss 1970, *A maximization technique occurring in the statistical analysis of
    probabilistic functions of Markov chains*, Annals of Mathematical Statistics 41, 164.
    """
    values = as_sequence(x).values
    alphabet, letters = np.unique(values, return_inverse=True)
    if len(alphabet) < 2:
        raise ValueError(f"x must hold at least two different symbols: got only {alphabet[0]}, {len(values)} times.")
    _check(states, starts, rounds)
    rng = np.random.default_rng(seed)
    share = np.bincount(letters) / len(letters)
    drawn = [
        HiddenMarkov(_sticky(states, rng), SymbolEmissions(rng.dirichlet(0.5 + 5 * share, states), alphabet.tolist()))
        for _ in range(starts)
    ]
    return _fitted(drawn, letters, rounds, tolerance)


def fit_gaussian_hmm(
    x: Any, states: int, *, starts: int = 5, rounds: int = 500, tolerance: float = 1e-7, seed: int = 0
) -> HiddenMarkovFit:
    """`fit_hmm` for values `[t, n]` with Gaussian emissions: starts are clusters of k-means.

    No variance falls below a millionth of that of the data: without such a floor a state that holds one value has
    infinite likelihood. **Raises:** `ValueError` for values that are not finite, or that do not vary.
    """
    values = np.asarray(x, float)
    values = values[:, None] if values.ndim == 1 else values
    _check(states, starts, rounds)
    if values.ndim != 2 or not np.isfinite(values).all() or not (values.var(0) > 0).all():
        raise ValueError(f"x must be finite values [t, n] of which every column varies: got shape {values.shape}.")
    rng, least, drawn = np.random.default_rng(seed), least_variance(values), []
    scaled = values / values.std(0)
    for _ in range(starts):
        first = scaled[rng.choice(len(scaled), states, replace=False)]
        label = np.argmin(
            ((scaled[:, None] - scipy.cluster.vq.kmeans2(scaled, first, minit="matrix", missing="warn")[0]) ** 2).sum(
                2
            ),
            1,
        )
        parts = [values[label == s] if (label == s).sum() > values.shape[1] else values for s in range(states)]
        covariances = [np.cov(part.T).reshape(values.shape[1], -1) + np.diag(least) for part in parts]
        emissions = GaussianEmissions([part.mean(0) for part in parts], covariances, least)
        drawn.append(HiddenMarkov(_sticky(states, rng), emissions))
    return _fitted(drawn, values, rounds, tolerance)


def code_hmm(
    series: Any, states: int | HiddenMarkov, *, starts: int = 5, rounds: int = 500, seed: int = 0
) -> xr.Dataset:
    """Symbols by a hidden Markov model with Gaussian emissions: the most probable sequence of its states (Viterbi).

    **Arguments:** `series`: what `as_series` takes; `states`: how many (then the model is fitted to the series, and
    symbols are numbered by visits), or a fitted model with its own numbers; `starts`, `rounds`, `seed` of the fit.

    **Returns:** `Dataset` that every function of symbols takes: `symbol(time)`; of each `region` (state) `mean(region,
    variable)`, `covariance(region, variable, variable_in)` in the units of the data, `visits(region)` and
    `transition(region, region_in)`, the probability of going from `region` to `region_in`; `observation`; attributes
    `time_step`, `time_unit`, `coding`, `steps`, `log_likelihood`.

    **Raises:** `ValueError` for missing values, and as `fit_gaussian_hmm`.
    """
    found = as_series(series)
    if not np.isfinite(found.values).all():
        lines = int((~np.isfinite(found.values)).any(1).sum())
        raise ValueError(f"series must have no missing values: {lines} of {len(found.values)} steps have.")
    if isinstance(states, HiddenMarkov):
        if not isinstance(states.emissions, GaussianEmissions):
            raise ValueError(f"states must have GaussianEmissions: got {type(states.emissions).__name__}.")
        model, likelihood = states, states.log_likelihood(found.values)
    else:
        fitted = fit_gaussian_hmm(found.values, states, starts=starts, rounds=rounds, seed=seed)
        model, likelihood = fitted.model, fitted.log_likelihood
        visits = np.bincount(model.viterbi(found.values), minlength=states)
        model = model.sorted(np.argsort(-visits, kind="stable"))
    symbol, emissions = model.viterbi(found.values), model.emissions
    assert isinstance(emissions, GaussianEmissions)
    observation = labelled(found.values, found.names, found.clock, units=found.units)
    time = {name: observation.attrs[name] for name in ("time_step", "time_unit")}
    return xr.Dataset(
        {
            "symbol": ("time", symbol, time),
            "mean": (("region", "variable"), np.asarray(emissions.means)),
            "covariance": (("region", "variable", "variable_in"), np.asarray(emissions.covariances)),
            "visits": ("region", np.bincount(symbol, minlength=model.states)),
            "transition": (("region", "region_in"), np.asarray(model.transitions)),
            "observation": observation,
        },
        coords={"region": np.arange(model.states)},
        attrs={
            **time,
            "coding": f"states of a hidden Markov model, {model.states} of them",
            "steps": len(symbol),
            "log_likelihood": likelihood,
        },
    )


def _check(states: int, starts: int, rounds: int) -> None:
    for name, value in (("states", states), ("starts", starts), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}.")


def _sticky(states: int, rng: np.random.Generator) -> np.ndarray:
    """A random transition matrix that tends to stay."""
    return 0.5 * np.eye(states) + 0.5 * rng.dirichlet(np.ones(states), states)


def _fitted(drawn: list[HiddenMarkov], x: np.ndarray, rounds: int, tolerance: float) -> HiddenMarkovFit:
    free = drawn[0].states ** 2 - 1 + drawn[0].emissions.free()
    if free >= len(x):
        raise ValueError(f"x is too short for {drawn[0].states} states: {len(x)} steps, and {free} free numbers.")
    with jax.enable_x64(True):
        data = jnp.asarray(x)
        models = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        for _ in range(min(_TRIED, rounds)):
            models, likelihoods = _rounds(models, data)
        tried = np.asarray(likelihoods)
        best = int(np.nanargmax(tried))
        model, now = jax.tree.map(lambda leaf: leaf[best : best + 1], models), float(tried[best])
        done, converged = min(_TRIED, rounds), False
        while done < rounds and not converged:
            new, likelihood = _rounds(model, data)
            converged = float(likelihood[0]) - now < tolerance * len(x) and done > _TRIED
            model, now, done = new, float(likelihood[0]), done + 1
        model = jax.tree.map(lambda leaf: np.asarray(leaf[0]), model)
    likelihood = model.log_likelihood(
        x if isinstance(model.emissions, GaussianEmissions) else np.array(model.emissions.symbols)[x]
    )
    return HiddenMarkovFit(model, likelihood, tried, done, converged, free * float(np.log(len(x))) - 2 * likelihood)


@eqx.filter_jit
def _rounds(models: HiddenMarkov, x: Array) -> tuple[HiddenMarkov, Float[Array, "r"]]:
    """One round of Baum-Welch for each of `r` models, and the log-likelihood that each had before."""

    def one(model: HiddenMarkov) -> tuple[HiddenMarkov, Array]:
        weight, pairs, likelihood = _smoothed(model, x)
        transitions = jnp.maximum(pairs, 1e-300)
        new = (weight[0], transitions / transitions.sum(1, keepdims=True), model.emissions.updated(x, weight))
        return eqx.tree_at(lambda m: (m.initial, m.transitions, m.emissions), model, new), likelihood

    return eqx.filter_vmap(one)(models)


def _seen(model: HiddenMarkov, x: Array) -> tuple[Float[Array, "t s"], Float[Array, "t"]]:
    """`p(x_t | state)` divided by the largest of its step, and the logarithm of what it was divided by."""
    log_b = model.emissions.log_density(x)
    top = log_b.max(1)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return jnp.exp(log_b - top[:, None]), top


@eqx.filter_jit
def _forward(model: HiddenMarkov, x: Array) -> tuple[Float[Array, "t s"], Float[Array, "t"]]:
    """`p(z_t | x_1 ... x_t)`, and `ln p(x_t | x_1 ... x_{t-1})`."""
    b, top = _seen(model, x)
    P = jnp.asarray(model.transitions)

    def step(before: Array, seen: Array) -> tuple[Array, tuple[Array, Array]]:
        joint = before * seen
        mass = joint.sum()
        now = joint / jnp.where(mass > 0, mass, 1.0)
        return now @ P, (now, jnp.log(mass))

    _, (alpha, logs) = jax.lax.scan(step, jnp.asarray(model.initial), b)
    return alpha, logs + top


@eqx.filter_jit
def _smoothed(model: HiddenMarkov, x: Array) -> tuple[Float[Array, "t s"], Float[Array, "s s"], Array]:
    """`p(z_t | x)`, the expected number of each transition, and the log-likelihood."""
    alpha, logs = _forward(model, x)
    b, _ = _seen(model, x)
    P = jnp.asarray(model.transitions)

    def step(after: Array, seen: Array) -> tuple[Array, tuple[Array, Array]]:
        ahead = seen * after
        before = P @ ahead
        mass = before.sum()
        return before / jnp.where(mass > 0, mass, 1.0), (after, ahead)

    _, (beta, ahead) = jax.lax.scan(step, jnp.ones_like(jnp.asarray(model.initial)), b, reverse=True)
    gamma = alpha * beta
    gamma = gamma / gamma.sum(1, keepdims=True)
    mass = ((alpha[:-1] @ P) * ahead[1:]).sum(1)
    pairs = P * ((alpha[:-1] / mass[:, None]).T @ ahead[1:])
    return gamma, pairs, logs.sum()


@eqx.filter_jit
def _best_path(model: HiddenMarkov, x: Array) -> Int[Array, "t"]:
    log_b = model.emissions.log_density(x)
    log_P = jnp.log(jnp.asarray(model.transitions))

    def step(score: Array, seen: Array) -> tuple[Array, Array]:
        through = score[:, None] + log_P
        return through.max(0) + seen, through.argmax(0)

    last, sources = jax.lax.scan(step, jnp.log(jnp.asarray(model.initial)) + log_b[0], log_b[1:])
    end = last.argmax()

    def back(state: Array, source: Array) -> tuple[Array, Array]:
        return source[state], state

    first, path = jax.lax.scan(back, end, sources, reverse=True)
    return jnp.concatenate([first[None], path])
