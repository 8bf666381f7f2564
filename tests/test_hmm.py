"""Hidden Markov models against plain sums over all state sequences, their fits, and networks that emulate them."""

from itertools import pairwise, product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal

from dsrecon import symbolic
from dsrecon.models import GRU
from dsrecon.symbolic import (
    GaussianEmissions,
    HiddenMarkov,
    SymbolEmissions,
    code_hmm,
    compare_emissions,
    fit_gaussian_hmm,
    fit_hmm,
)
from dsrecon.training import Emitter, emitted, emulating, fit, sinkhorn_divergence

P = [[0.95, 0.05], [0.1, 0.9]]
SYMBOLS = HiddenMarkov(P, SymbolEmissions([[0.9, 0.1, 0.0], [0.1, 0.3, 0.6]], [-2, 0, 5]))
VALUES = HiddenMarkov(P, GaussianEmissions([[0.0, 0.0], [3.0, 1.0]], [np.eye(2), [[1.0, 0.5], [0.5, 1.0]]]))
MODELS = {"symbols": SYMBOLS, "values": VALUES}


def density(model, x, state):
    if model is SYMBOLS:
        return np.asarray(model.emissions.probabilities)[state, model.emissions.symbols.index(x)]
    return multivariate_normal(model.emissions.means[state], model.emissions.covariances[state]).pdf(x)


@pytest.mark.parametrize("name", MODELS)
def test_likelihood_posterior_and_path_are_those_of_a_sum_over_all_paths(name):
    model = MODELS[name]
    x, _ = model.sample(7, seed=3)
    total, posterior, best = 0.0, np.zeros((7, 2)), (0.0, None)
    for path in product(range(2), repeat=7):
        p = model.initial[path[0]] * np.prod([model.transitions[i, j] for i, j in pairwise(path)])
        p *= np.prod([density(model, value, state) for value, state in zip(x, path, strict=True)])
        total += p
        posterior[np.arange(7), list(path)] += p
        best = max(best, (p, path))
    assert model.log_likelihood(x) == pytest.approx(np.log(total), rel=1e-12)
    np.testing.assert_allclose(model.posterior(x), posterior / total, rtol=1e-10)
    assert tuple(model.viterbi(x).tolist()) == best[1]


def test_a_long_sequence_underflows_nowhere_and_an_impossible_one_has_no_likelihood():
    x, states = SYMBOLS.sample(5000, seed=0)
    assert -5000 < SYMBOLS.log_likelihood(x) < -2500
    assert (SYMBOLS.viterbi(x) == states).mean() > 0.95
    deterministic = HiddenMarkov([[0.0, 1.0], [1.0, 0.0]], SymbolEmissions(np.eye(2)))
    assert deterministic.log_likelihood([0, 1, 0, 1]) == pytest.approx(np.log(0.5))
    assert deterministic.log_likelihood([0, 1, 1, 0]) == -np.inf


@pytest.mark.parametrize(("name", "fitter"), [("symbols", fit_hmm), ("values", fit_gaussian_hmm)])
def test_a_fit_finds_the_model_that_made_the_data(name, fitter):
    model = MODELS[name]
    x, _ = model.sample(4000, seed=1)
    found = fitter(x, 2, starts=3)
    assert found.converged and found.log_likelihood >= model.log_likelihood(x)
    assert found.log_likelihood == pytest.approx(found.model.log_likelihood(x), rel=1e-12)
    leaf = np.asarray(jax.tree.leaves(found.model.emissions)[0])
    fitted = found.model.sorted(np.argsort(-leaf[:, 0] if name == "symbols" else leaf[:, 0]))
    np.testing.assert_allclose(fitted.transitions, P, atol=0.04)
    for one, other in zip(jax.tree.leaves(fitted.emissions)[:2], jax.tree.leaves(model.emissions)[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=0.12)
    assert fitted.log_likelihood(x) == pytest.approx(found.log_likelihood, rel=1e-9)
    assert found.bic < fitter(x, 1, starts=1).bic


def test_every_round_of_baum_welch_adds_likelihood():
    x, _ = SYMBOLS.sample(500, seed=2)
    values = [fit_hmm(x, 3, starts=1, rounds=rounds).log_likelihood for rounds in (1, 2, 4, 8, 16)]
    assert (np.diff(values) > 0).all()


def test_a_series_is_coded_by_states_numbered_by_visits():
    x, states = VALUES.sample(1500, seed=4)
    coded = code_hmm(x, 2, starts=2)
    assert (coded["symbol"].values == states).mean() > 0.97 and (np.diff(coded["visits"].values) <= 0).all()
    np.testing.assert_allclose(coded["transition"].sum("region_in"), 1, rtol=1e-12)
    np.testing.assert_allclose(coded["mean"], VALUES.emissions.means, atol=0.2)
    assert symbolic.run_lengths(coded)["count"].sum() > 20
    again = code_hmm(x, VALUES)
    np.testing.assert_array_equal(again["symbol"], VALUES.viterbi(x))
    assert again.attrs["log_likelihood"] == VALUES.log_likelihood(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HiddenMarkov([[0.5, 0.6], [0.5, 0.5]], SYMBOLS.emissions), "of state 0 sum to 1.1"),
        (lambda: HiddenMarkov([[1.0]], SYMBOLS.emissions), "must be those of the 1 states of transitions: got 2"),
        (lambda: HiddenMarkov([[0.5, 0.5]], SYMBOLS.emissions), "transitions must be square"),
        (lambda: HiddenMarkov(P, SYMBOLS.emissions, [1.0]), "initial must have 2 entries: got 1"),
        (lambda: SymbolEmissions([[1.0], [1.0]]), "at least two"),
        (lambda: SymbolEmissions([[0.5, 0.5]], [1, 0]), "in increasing order"),
        (lambda: SymbolEmissions([[-0.5, 1.5]]), "not negative"),
        (lambda: GaussianEmissions([[0.0]], [[[-1.0]]]), "positive definite"),
        (lambda: GaussianEmissions([[0.0]], [[1.0]]), "must have shape"),
        (lambda: SYMBOLS.log_likelihood([0, 7]), r"must be those of the model, \(-2, 0, 5\): got \[7\] too"),
        (lambda: SYMBOLS.log_likelihood([0.0, 5.0]), "one row of integers: got float64"),
        (lambda: VALUES.log_likelihood([[0.0, np.nan]]), "must be finite: 1 steps are not"),
        (lambda: VALUES.log_likelihood([0.0, 1.0]), r"must have shape \(t, 2\): got \(2, 1\)"),
        (lambda: SYMBOLS.sample(0, seed=0), "steps must be at least 1"),
        (lambda: fit_hmm([3, 3, 3, 3], 2), "at least two different symbols: got only 3"),
        (lambda: fit_hmm([0, 1, 0, 1], 2), "too short for 2 states: 4 steps, and 5 free numbers"),
        (lambda: fit_hmm([0, 1] * 9, 0), "states must be at least 1: got 0"),
        (lambda: fit_gaussian_hmm(np.ones(50), 2), "every column varies"),
        (lambda: code_hmm([0.0, 1.0, np.nan, 2.0], 2), "no missing values: 1 of 4 steps have"),
        (lambda: code_hmm([0.0, 1.0, 5.0], SYMBOLS), "must have GaussianEmissions: got SymbolEmissions"),
        (lambda: compare_emissions([[0, 1]], [[0, 1, 1]]), r"as many and as long: got \(1, 2\) and \(1, 3\)"),
        (lambda: compare_emissions([[0, 1]], [[0, 1]], word=3), "word must lie between 1 and the 2 steps"),
        (lambda: compare_emissions([[0.5, 1]], [[0, 1]]), "one must be integers"),
        (lambda: Emitter(GRU(4, input_size=2, key=jax.random.key(0)), 1, 2, key=jax.random.key(0)), "at least 2"),
        (lambda: emulating(blur=0.0), "must be positive"),
    ],
)
def test_wrong_use_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# emitters


def test_the_comparison_of_known_sequences():
    one, other = np.array([[0, 0, 1, 1], [2, 2, 2, 2]]), np.array([[2, 2, 2, 0], [0, 0, 1, 1]])
    found = compare_emissions(one, other, word=2)
    np.testing.assert_allclose(found["share"], [[2 / 8, 2 / 8, 4 / 8], [3 / 8, 2 / 8, 3 / 8]])
    np.testing.assert_allclose(found["volatility"], [1 / 6, 2 / 6])
    np.testing.assert_allclose(found["transition"][1], [[1 / 2, 1 / 2, 0], [0, 1, 0], [1 / 3, 0, 2 / 3]])
    assert found["distance"] == pytest.approx(1 / 8)  # the first goes to the second, and one step of eight differs
    assert found["word_variation"] == pytest.approx(1 / 6)  # one of six words: 2 2 became 2 0
    same = compare_emissions(one, one[::-1])
    assert same["distance"] == 0 and same["word_variation"] == 0


def test_the_sinkhorn_divergence_is_optimal_transport_when_the_blur_is_small():
    x, y = jax.random.normal(jax.random.key(0), (2, 12, 3))
    cost = np.asarray(((x[:, None] - y[None]) ** 2).sum(-1))
    wanted = cost[linear_sum_assignment(cost)].mean()

    @jax.jit
    @jax.value_and_grad
    def divergence(d, y):
        return sinkhorn_divergence(x + d[None], y, blur=0.02, rounds=1000)

    value, _ = divergence(jnp.zeros(3), y)
    assert value == pytest.approx(wanted, rel=0.05)  # blur ln 12 = 0.05
    assert abs(divergence(jnp.zeros(3), x[::-1])[0]) < 1e-9
    value, slope = divergence(jnp.full(3, 0.2), x)  # of a shifted cloud it is |d|^2
    assert value == pytest.approx(0.12, rel=0.02)
    np.testing.assert_allclose(slope, 0.4, rtol=0.02)


def test_an_emitter_draws_symbols_by_its_softmax_and_its_loss_has_a_gradient():
    key_cell, key_V = jax.random.split(jax.random.key(0))
    model = Emitter(GRU(4, input_size=2, key=key_cell), 3, 2, discard=5, key=key_V)
    model = eqx.tree_at(lambda m: (m.V, m.b), model, (0 * model.V, jnp.log(jnp.array([0.7, 0.2, 0.1]))))
    drawn = np.asarray(emitted(model, 500, 10, key=jax.random.key(1)))
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / drawn.size, [0.7, 0.2, 0.1], atol=0.03)
    np.testing.assert_array_equal(drawn, emitted(model, 500, 10, key=jax.random.key(1)))
    still = model.states(2, 3, key=jax.random.key(2), noise=0.0)
    np.testing.assert_array_equal(still[0], still[1])
    grad = eqx.filter_grad(lambda m: emulating(rounds=10)(m, None, jnp.zeros((20, 4), int), jax.random.key(3))[0])(
        model
    )
    assert grad.b[0] < 0 < grad.b[2]  # to emit zeros, their logit must grow


@pytest.mark.slow
def test_an_emitter_learns_a_source_that_stays(optimiser_promotion):
    source = HiddenMarkov([[0.95, 0.05], [0.05, 0.95]], SymbolEmissions([[1.0, 0.0], [0.0, 1.0]]))
    x = jnp.asarray(source.sample(8000, seed=0)[0].reshape(-1, 4))
    key_cell, key_V, key = jax.random.split(jax.random.key(0), 3)
    start = Emitter(GRU(6, input_size=2, key=key_cell), 2, 2, discard=6, key=key_V)

    def sampler(key):
        return x[jax.random.randint(key, (64,), 0, len(x))]

    loss = emulating(rounds=20)
    model, history = fit(start, loss, sampler, optax.adam(3e-2), steps=80, key=key, progress=False, threads=1)
    before, after = (emitted(m, 300, 4, key=jax.random.key(5)) for m in (start, model))
    assert np.array_equal(after, emitted(model, 300, 4, key=jax.random.key(5)))
    changes = [float((s[:, 1:] != s[:, :-1]).mean()) for s in (before, after)]
    assert history.failed_at[0] == -1 and changes[0] > 0.4 and changes[1] < 0.35  # of the source: 0.05
