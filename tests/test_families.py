"""Families of cells, one model for several subjects or systems: laws of the cells, the training and the door."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CELLS, states, stirred
from jax.test_util import check_grads

import dsrecon
from dsrecon.cell import AbstractFamily, dense_jacobian
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.models.experts import ExpertMixture, GatedExperts
from dsrecon.models.hierarchical import Hierarchical, Individual
from dsrecon.readout import Forced, IdentityReadout
from dsrecon.reconstruct.subjects import load_subjects
from dsrecon.reconstruct.together import reconstruct_subjects
from dsrecon.systems import Lorenz63
from dsrecon.training import Window, Windows, fit, gtf, of_windows
from dsrecon.training.conditioned import FamilyModel, by_context, by_trial, conditioned

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TEMPLATE = stirred(eqx.filter_jit(ALRNN)(4, 2, input_size=2, key=KEY))
CELL = {
    "alrnn": TEMPLATE,
    "shallow": eqx.filter_jit(ClippedShallowPLRNN)(3, 5, key=KEY),
    "forced": Forced(TEMPLATE, IdentityReadout(2, 4, key=KEY)),
}
MIXTURE = stirred(
    eqx.filter_jit(ExpertMixture)(3, 4, 2, 2, width=3, context_features=5, gate_size=6, input_size=2, key=KEY)
)
CONTEXT = jnp.asarray(RNG.normal(size=(20, 2)))
NO_KEY = jax.random.key(9)


@cache
def family(features=2, subjects=5, cell="alrnn", individual=None):
    """Subjects that differ by far more than at the start."""
    made = eqx.filter_jit(lambda key: Hierarchical(CELL[cell], subjects, features, individual=individual, key=key))
    return stirred(made(KEY), seed=3)


@eqx.filter_jit
def given(found, condition):
    """`found.given`, compiled."""
    return found.given(condition)


def equal(a, b, atol=0.0):
    """Whether two trees are the same, leaf by leaf."""
    leaves = [jax.tree.leaves(tree) for tree in (a, b)]
    same = zip(*leaves, strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(np.allclose(x, y, rtol=0, atol=atol) for x, y in same)


# --- one cell a subject -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELL)
def test_a_subject_is_a_plain_cell_with_its_own_parameters(name):
    found, cell = family(cell=name), CELL[name]
    one = given(found, jnp.asarray(3))
    assert isinstance(found, AbstractFamily) and type(one) is type(cell) and one.state_size == found.state_size
    assert jax.tree.structure(one) == jax.tree.structure(cell)
    l = np.asarray(found.features[3])
    trees = eqx.filter(one, eqx.is_inexact_array), eqx.filter(found.shared, eqx.is_inexact_array), found.directions
    for theta, shared, P in zip(*map(jax.tree.leaves, trees), strict=True):
        by_hand = np.asarray(shared) + sum(l[k] * np.asarray(P)[k] for k in range(2))
        assert np.allclose(theta, by_hand, rtol=0, atol=1e-14) and np.abs(theta - shared).max() > 1e-3
    assert equal(given(found, 1), eqx.filter_jit(found.at)(found.features[1]))


def test_what_is_no_parameter_is_shared():
    one = given(family(), jnp.asarray(2))
    assert isinstance(one, ALRNN) and np.array_equal(one.rectified, TEMPLATE.rectified) and one.pwl_units == 2


def test_subjects_begin_nearly_equal():
    made = eqx.filter_jit(lambda key: Hierarchical(ALRNN(6, 2, key=key), 8, 3, key=key))
    found = made(KEY)
    cells = eqx.filter_vmap(lambda j: found.given(j))(jnp.arange(8))
    for name in ("A", "W", "h"):
        shared, theirs = (np.asarray(getattr(x, name)) for x in (found.shared, cells))
        rms = np.sqrt((shared**2).mean()) if shared.any() else 0.1
        gap = np.abs(theirs - shared).max()
        # 0.1 * 0.1 of the size, times sums of three products of normals: up to about 10 of them
        assert 0.001 * rms < gap < 0.15 * rms


def test_without_features_all_share_one_cell():
    found = Hierarchical(TEMPLATE, 4, 0, key=KEY)
    assert all(equal(given(found, jnp.asarray(j)), TEMPLATE) for j in range(4)) and equal(found.principal(), found)


@pytest.mark.parametrize("individual", [("W",), "W", lambda cell: cell.W])
def test_the_other_parameters_are_shared(individual):
    for found in (family(individual=individual), stirred(Individual(TEMPLATE, 5, individual), seed=1)):
        cells = [given(found, jnp.asarray(j)) for j in (0, 4)]
        assert np.abs(cells[0].W - cells[1].W).max() > 1e-3
        assert all(np.array_equal(getattr(cells[0], k), getattr(found.shared, k)) for k in ("A", "h", "C"))


def test_parameters_of_a_cell_inside_a_cell_are_named_with_a_dot():
    found = family(1, 2, "forced", ("cell.h", "cell.A"))
    assert [x.shape for x in jax.tree.leaves(found.directions)] == [(1, 4), (1, 4)]
    assert found.directions.cell.h is not None and found.directions.readout.L is None


def test_individual_subjects_begin_as_the_cell_and_have_their_own_rows():
    found = Individual(TEMPLATE, 3, None)
    assert all(equal(found.given(j), TEMPLATE) for j in range(3))
    moved = eqx.tree_at(lambda f: f.own.h, found, found.own.h.at[1].add(1.0))
    assert np.allclose(moved.given(1).h, TEMPLATE.h + 1) and equal(moved.given(2), TEMPLATE)


@pytest.mark.parametrize(("features", "subjects"), [(2, 5), (3, 2), (1, 4)])
def test_principal_axes_change_no_cell(features, subjects):
    before = family(features, subjects)
    found = before.principal()
    for j in range(subjects):
        assert equal(given(found, jnp.asarray(j)), given(before, jnp.asarray(j)), atol=1e-12)
    l = np.asarray(found.features)
    P = np.concatenate([np.asarray(x).reshape(features, -1) for x in jax.tree.leaves(found.directions)], 1)
    spread = (l**2).sum(0)
    alive = spread > 1e-20
    assert np.allclose(l.mean(0), 0, atol=1e-12) and np.allclose(l.T @ l, np.diag(spread), atol=1e-12)
    assert np.allclose((P @ P.T)[np.ix_(alive, alive)], np.eye(alive.sum()), atol=1e-12)
    assert (np.diff(spread) <= 1e-12).all() and alive.sum() == min(features, subjects - 1)
    assert (l.max(0) >= -l.min(0) - 1e-12).all()
    assert equal(found.principal().features, found.features, atol=1e-9)


def test_a_subject_may_be_traced_and_one_that_is_not_there_is_nan():
    for found in (family(), Individual(TEMPLATE, 5, ("h",))):
        assert np.allclose(given(found, jnp.asarray(4)).h, found.given(4).h, rtol=0, atol=1e-15)
        assert all(np.isnan(given(found, jnp.asarray(j)).h).all() for j in (5, -1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: family().given(5), "subject must lie between 0 and 4: got 5"),
        (lambda: family().given(-1), "subject must lie between 0 and 4: got -1"),
        (lambda: Individual(TEMPLATE, 2, None).given(2), "subject must lie between 0 and 1: got 2"),
        (lambda: family().at(jnp.zeros(3)), r"features must have shape \(2,\): got \(3,\)"),
        (lambda: Hierarchical(TEMPLATE, 0, key=KEY), "got subjects=0"),
        (lambda: Hierarchical(TEMPLATE, 2, -1, key=KEY), "features=-1"),
        (lambda: Individual(TEMPLATE, 0, None), "subjects must be at least 1: got 0"),
        (lambda: family(individual=("V",)), r"individual must name fields of ALRNN: got \['V'\]"),
        (lambda: family(individual=("rectified",)), "ALRNN has none among"),
        (lambda: ExpertMixture(0, 4, 2, 2, key=KEY), "experts must be at least 1: got 0"),
        (lambda: ExpertMixture(2, 4, 2, 2, width=0, key=KEY), "width must be at least 1"),
        (lambda: ExpertMixture(2, 4, 5, 2, key=KEY), "pwl_units must lie between 0 and state_size=4: got 5"),
        (lambda: MIXTURE.given(CONTEXT[:, :1]), r"context must have shape \[time, 2\].*got \(20, 1\)"),
        (lambda: MIXTURE.given(CONTEXT[:2]), r"at least 3 rows.*got \(2, 2\)"),
        (lambda: MIXTURE.given(CONTEXT.at[0, 0].set(jnp.nan)), "context must be finite"),
        (lambda: by_context(0), "rows must be at least 1: got 0"),
        (lambda: FamilyModel(family(), IdentityReadout(2, 3, key=KEY)), "family.state_size: got 3 and 4"),
    ],
)
def test_wrong_input_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# --- experts ------------------------------------------------------------------------------------------------


def expert(cell, j):
    """Expert `j` of a mixture as an `ALRNN`."""
    fields = (cell.A[j], cell.W[j], cell.h[j], cell.C[j], cell.rectified)
    return eqx.tree_at(lambda c: (c.A, c.W, c.h, c.C, c.rectified), TEMPLATE, fields)


def test_a_mixture_is_the_weighted_sum_of_its_experts():
    cell, s = given(MIXTURE, CONTEXT), jnp.array([0.3, -1.0])
    for z in states(cell, 5):
        pi = np.exp(cell.O @ np.tanh(cell.U @ z + cell.u) + cell.o)
        pi /= pi.sum()
        assert np.allclose(cell.gate(z), pi, rtol=1e-13)
        assert np.allclose(cell(z, s), sum(pi[j] * expert(cell, j)(z, s) for j in range(3)), rtol=0, atol=1e-13)


def test_its_jacobian_is_exact_on_boundaries_too():
    cell = given(MIXTURE, CONTEXT)
    zs = jnp.concatenate([states(cell, 5), jnp.array([[0.3, -1.0, 0.0, 2.0], [0.0] * 4])])
    found, wanted = jax.jit(jax.vmap(lambda z: (cell.linearise(z), dense_jacobian(cell, z))))(zs)
    assert equal(found, wanted, atol=1e-13)


def test_a_single_expert_is_an_alrnn():
    all_three, s = given(MIXTURE, CONTEXT), jnp.array([1.0, 2.0])
    rows = lambda c: (c.A, c.W, c.h, c.C, c.O, c.o)  # noqa: E731
    cell = eqx.tree_at(rows, all_three, tuple(x[1:2] for x in rows(all_three)))
    alone = expert(all_three, 1)
    for z in states(cell, 4):
        assert np.allclose(cell(z, s), alone(z, s), rtol=0, atol=1e-14)
        assert np.allclose(cell.linearise(z, s)[1], alone.linearise(z, s)[1], rtol=0, atol=1e-14)


def test_a_constant_gate_is_an_alrnn_of_mean_parameters():
    cell = given(MIXTURE, CONTEXT)
    cell = eqx.tree_at(lambda c: c.U, cell, jnp.zeros_like(cell.U))
    pi = cell.gate(jnp.zeros(4))
    mean = eqx.tree_at(
        lambda c: (c.A, c.W, c.h, c.C),
        expert(cell, 0),
        tuple(jnp.tensordot(pi, x, axes=1) for x in (cell.A, cell.W, cell.h, cell.C)),
    )
    for z in states(cell, 4):
        assert np.allclose(cell(z), mean(z), rtol=0, atol=1e-13)


def test_contexts_of_any_length_and_only_what_is_in_them():
    repeated = jnp.concatenate([CONTEXT] * 50)
    short, long = MIXTURE.features(CONTEXT), MIXTURE.features(repeated)
    # all delay vectors alike, but the two over each of the 49 seams: 98 of 998 rows, each in (-1, 1)
    assert np.abs(short - long).max() < 2 * 98 / 998 and not np.allclose(short, MIXTURE.features(-CONTEXT))
    constant = jnp.ones((30, 2))
    assert np.allclose(MIXTURE.features(constant), MIXTURE.features(constant[:3]), atol=1e-14)
    first = np.tanh(CONTEXT[:3].reshape(-1) @ MIXTURE.K.T + MIXTURE.k)
    assert np.allclose(MIXTURE.features(CONTEXT[:3]), np.tanh(MIXTURE.L @ first + MIXTURE.l), atol=1e-14)
    assert equal(given(MIXTURE, CONTEXT), MIXTURE.given(CONTEXT), atol=1e-14)


# --- training -----------------------------------------------------------------------------------------------

X = jnp.asarray(RNG.normal(size=(90, 2)))
READOUT = IdentityReadout(2, 4, key=KEY)
FORCING = {"alpha": jnp.asarray(0.3)}


def windows(**given):
    return Windows(X, **{"length": 12, "batch": 6, "trials": [30, 20, 40], **given})


def test_windows_know_their_trial():
    drawn = windows(batch=200)(KEY)
    at = np.array([np.flatnonzero((np.asarray(X) == row).all(1))[0] for row in np.asarray(drawn.x[:, 0])])
    assert np.array_equal(drawn.trial, np.digitize(at, [30, 50])) and set(drawn.trial.tolist()) == {0, 1, 2}
    assert windows(trials=None)(KEY).trial is None


def test_the_draws_are_those_without_numbers():
    one = Windows(X, length=12, batch=6)(KEY)
    assert equal(one, Windows(X, length=12, batch=6, trials=[90])(KEY)._replace(trial=None))


@pytest.mark.parametrize("mask", [False, True])
def test_the_loss_is_the_mean_over_the_windows_each_under_its_cell(mask):
    model = FamilyModel(family(subjects=3), READOUT)
    known = jnp.asarray(RNG.random((90, 2)) > 0.1) if mask else None
    batch, loss = windows(mask=known)(KEY), gtf()
    value, (state, facts) = eqx.filter_jit(conditioned(loss, by_trial))(model, FORCING, batch, NO_KEY)
    one = eqx.filter_jit(lambda cell, window: loss(cell, FORCING, window, NO_KEY)[0])
    alone = []
    for i in range(6):
        cell = Forced(given(model.family, batch.trial[i]), READOUT)
        alone.append(one(cell, jax.tree.map(lambda x, i=i: x[i : i + 1], batch)))
    assert value == pytest.approx(np.mean(alone), rel=1e-12) and equal(state, FORCING) and facts == {}


def test_identical_subjects_are_one_shared_cell():
    shared = FamilyModel(Hierarchical(TEMPLATE, 3, 0, key=KEY), READOUT)
    batch = windows()(KEY)
    for loss in (gtf(), gtf(solver=dsrecon.Sequential(adjoint="direct"))):
        wrapped, plain = (
            eqx.filter_jit(eqx.filter_value_and_grad(lambda m, f=f: f(m, FORCING, batch, NO_KEY)[0]))(m)
            for f, m in ((conditioned(loss, by_trial), shared), (loss, Forced(TEMPLATE, READOUT)))
        )
        assert wrapped[0] == pytest.approx(float(plain[0]), rel=1e-12)
        assert np.allclose(wrapped[1].family.shared.W, plain[1].cell.W, rtol=0, atol=1e-12)
        assert np.allclose(wrapped[1].readout.L, plain[1].readout.L, rtol=0, atol=1e-12)


def gradients(model, loss, batch):
    free, fixed = eqx.partition(model, eqx.is_inexact_array)
    value = jax.jit(lambda free: loss(eqx.combine(free, fixed), FORCING, batch, NO_KEY)[0])
    # modes: the adjoint is a reverse one; step and tolerance of central differences of a loss of order 1
    check_grads(value, (free,), order=1, modes=["rev"], eps=1e-5, atol=1e-7, rtol=1e-6)
    return jax.jit(jax.grad(value))(free)


def test_gradients_reach_features_and_directions():
    batch = windows()(KEY)._replace(trial=jnp.array([0, 2, 0, 3, 2, 3]))
    found = gradients(FamilyModel(family(), READOUT), conditioned(gtf(), by_trial), batch).family
    moved = np.abs(found.features).min(1) > 1e-6
    assert np.abs(found.directions.W).max() > 1e-4
    assert moved.tolist() == [True, False, True, True, False], "subjects that are not in the batch do not move"


def test_gradients_reach_encoder_gate_and_experts():
    model = FamilyModel(eqx.tree_at(lambda f: f.experts.C, MIXTURE, None), READOUT)
    found = gradients(model, conditioned(gtf(), by_context(6)), windows()(KEY)).family
    assert all(np.abs(x).max() > 1e-6 for x in (found.K, found.L, found.U, found.V, found.O, found.experts.W))


def test_the_context_is_the_beginning_of_a_window_and_the_loss_is_of_the_rest():
    batch = windows()(KEY)._replace(s=jnp.asarray(RNG.normal(size=(6, 13, 2))))
    contexts, rest = by_context(5)(batch)
    assert np.array_equal(contexts, batch.seen[:, :5])
    assert all(np.array_equal(a, b[:, 4:]) for a, b in zip(rest[:3], batch[:3], strict=True))
    model = FamilyModel(MIXTURE, READOUT)
    loss = eqx.filter_jit(conditioned(gtf(), by_context(5)))
    moved = batch._replace(x=batch.x.at[:, :5].add(1.0))
    value, other = (loss(model, FORCING, b, NO_KEY)[0] for b in (batch, moved))
    assert value == other, "the context is not predicted"


@pytest.mark.parametrize(
    ("condition", "batch", "message"),
    [
        (by_trial, Window(X[None], X[None]), "give Windows the lengths of its trials"),
        (by_context(90), Window(X[None], X[None]), "longer than the context of 90 rows: they hold 90"),
        (by_context(5), Window(X[None], X[None], None, X[None] > 0), "windows without gaps"),
    ],
)
def test_windows_without_a_condition_are_refused(condition, batch, message):
    with pytest.raises(ValueError, match=message):
        conditioned(gtf(), condition)(FamilyModel(MIXTURE, READOUT), FORCING, batch, NO_KEY)


def test_an_ensemble_of_families_is_fitted_member_by_member(optimiser_promotion):
    keys = jax.random.split(KEY, 2)
    alone = [FamilyModel(stirred(family(1, 3), seed), READOUT) for seed in (0, 1)]
    models = jax.tree.map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *alone)
    loss, optimiser = conditioned(gtf(0.3), by_trial), optax.sgd(0.1)
    given = {"steps": 10, "progress": False, "threads": 1}
    both, history = fit(models, loss, windows(), optimiser, key=keys, **given)
    mean = optax.stateless(lambda slopes, _: jax.tree.map(lambda x: x.mean(0), slopes))
    by_window = optax.chain(mean, optimiser)
    one, told = fit(alone[1], loss, windows(), by_window, key=keys[1], gradient=of_windows, **given)
    assert np.allclose(history.loss[:, 1], told.loss[:, 0], rtol=1e-9) and history.loss[-1, 0] < history.loss[0, 0]
    assert np.allclose(both.family.features[1], one.family.features, rtol=0, atol=1e-9)


def test_single_precision_is_kept(float32):
    cell = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, TEMPLATE)
    found = eqx.filter_jit(lambda key: Hierarchical(cell, 2, 2, key=key))(KEY)
    for one in (found, found.principal(), Individual(cell, 2, None)):
        leaves = jax.tree.leaves((one, given(one, jnp.asarray(1))))
        assert {x.dtype for x in leaves} == {jnp.dtype("float32"), jnp.dtype("bool")}


# --- the door -----------------------------------------------------------------------------------------------

RHOS = (28.0, 40.0, 52.0)
TRIALS = [dsrecon.simulate(Lorenz63(rho=rho), 220, key=jax.random.key(i)) for i, rho in enumerate(RHOS)]
QUICK = {"runs": 2, "steps": 20, "length": 15, "alpha": 0.3, "progress": False, "threads": 1}


LINES = [t.values[:, :1].copy() for t in TRIALS]
LINES[1][40:44] = np.nan
LINES[2][:2] = np.nan


@pytest.fixture(scope="module")
def subjects():
    with jax.numpy_dtype_promotion("standard"):
        return reconstruct_subjects(LINES, CELL["shallow"], names=["a", "b", "c"], lag=3, dimension=2, **QUICK)


def test_every_subject_is_a_reconstruction_of_its_own_trial(subjects):
    points = [np.concatenate([v[3:], v[:-3]], 1) for v in LINES]
    for i, first in enumerate((0, 0, 2)):
        one = subjects.subject(i)
        assert isinstance(one, dsrecon.Reconstruction) and equal(one.cell, subjects.family.given(i), atol=1e-15)
        assert np.array_equal(one.anchor, points[i][first]) and one.coordinates == ("x0", "x0(t-3)")
        assert one.clock.origin == first and np.array_equal(one.validation, points[i][174:], equal_nan=True)
        assert one.simulate(5).shape == (5, 1) and one.forecast(LINES[i], 4).shape == (4, 1)
    assert equal(subjects.subject("b"), subjects.subject(1))
    assert np.allclose(subjects.first.scaler.mean, np.nanmean(np.concatenate([x[:174] for x in points]), 0))


def test_what_is_told_of_the_fit(subjects):
    assert subjects.features.dims == ("subject", "feature") and subjects.features.shape == (3, 2)
    assert list(subjects.features.subject) == ["a", "b", "c"] and len(subjects) == 3
    assert np.array_equal(subjects.features, subjects.family.features)
    assert subjects.runs.sizes["run"] == 2 and subjects.settings["features"]["value"] == 2
    best = subjects.runs.attrs["best"]
    # the scores of the table are those before the change of basis, whose rounding a chaotic run amplifies
    assert float(subjects.scores["d_h"].mean()) == pytest.approx(float(subjects.runs["d_h"][best]), rel=1e-3)


def test_a_file_holds_all_of_it(subjects, tmp_path):
    found = load_subjects(subjects.save(tmp_path / "subjects"))
    assert equal(found, subjects) and found.names == subjects.names
    assert found.subject(2).clock == subjects.subject(2).clock and found.scores.equals(subjects.scores)
    bare = load_subjects(subjects.save(tmp_path / "bare", data=False))
    assert bare.subject(1).validation is None and np.array_equal(bare.anchors, subjects.anchors)


def test_a_new_subject_learns_its_features_alone(subjects, optimiser_promotion):
    trial = LINES[0][100:180]
    found = subjects.adapted(trial, 20)
    moved, origin = (jax.tree.leaves(c) for c in (found.cell, subjects.family.at(jnp.zeros(2))))
    gap = np.concatenate([np.ravel(np.asarray(a) - np.asarray(b)) for a, b in zip(moved, origin, strict=True)])
    P = np.concatenate([np.asarray(x).reshape(2, -1) for x in jax.tree.leaves(subjects.family.directions)], 1)
    assert np.abs(gap).max() > 1e-6 and np.allclose(gap @ P.T @ P, gap, atol=1e-9), "it lies in the shared directions"
    assert np.array_equal(found.anchor, trial[[3, 0], 0]) and found.settings["adapted"]["value"] == 20
    assert found.simulate(4).shape == (4, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: reconstruct_subjects(TRIALS[:1]), "at least 2 subjects: got 1. For one use reconstruct"),
        (lambda: reconstruct_subjects(TRIALS[0]), "at least 2 subjects: got 1"),
        (lambda: reconstruct_subjects(TRIALS, names=["a", "b"]), r"names must be 3.*got \('a', 'b'\)"),
        (lambda: reconstruct_subjects(TRIALS, names="abc"), r"names must be 3.*got \('abc',\)"),
        (lambda: reconstruct_subjects(TRIALS, names=["a", "b", "b"]), "names must be 3, one a subject, and differ"),
        (lambda: reconstruct_subjects(TRIALS, features=-1), "features must be a whole number from 0 on: got -1"),
        (lambda: reconstruct_subjects(TRIALS, runs=0), "runs must be a whole number from 1 on: got 0"),
        (
            lambda: reconstruct_subjects([*TRIALS, np.ones((90, 3))], names=list("abcd")),
            "trials must have the same variables",
        ),
        (
            lambda: reconstruct_subjects([t.values for t in TRIALS] + [np.ones((90, 3))], names=list("abcd")),
            "subject 'd': column 'x0' must vary",
        ),
        (
            lambda: reconstruct_subjects([TRIALS[0], TRIALS[1][:60]], CELL["shallow"], length=49, runs=1),
            "subject '1' is too short: 48 samples to learn from, where a window of 49 predicted steps needs 50",
        ),
    ],
)
def test_wrong_trials_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_wrong_questions_are_refused_by_name(subjects):
    for wrong, message in (
        (lambda: subjects.subject(3), "subject must lie between 0 and 2: got 3"),
        (lambda: subjects.subject("d"), r"subject must be one of \('a', 'b', 'c'\): got 'd'"),
        (lambda: subjects.adapted(np.ones((50, 2))), "variables must be"),
        (lambda: subjects.adapted(LINES[0][:12], length=9), "too short for one window"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    none = eqx.tree_at(lambda s: s.family, subjects, Hierarchical(subjects.family.shared, 3, 0, key=KEY))
    with pytest.raises(ValueError, match="fitted with features=0"):
        none.adapted(LINES[0])


def test_rows_of_the_conformance_suite_are_such_cells():
    kinds = {
        row.name: type(eqx.filter_eval_shape(row.make, KEY))
        for row in CELLS
        if row.name in ("experts-driven", "subject")
    }
    assert kinds == {"experts-driven": GatedExperts, "subject": ClippedShallowPLRNN}
