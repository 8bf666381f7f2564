"""Batches of whole sequences, their losses and scores, answers in parts; optimisers by group."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsrecon.layer import AbstractSequenceLayer
from dsrecon.models import LMU, LRU, LSSL, S4, S4D, S5, sequence_model
from dsrecon.training import (
    Batch,
    Sequences,
    absolute,
    classifying,
    fit,
    grouped,
    held,
    labels,
    of_windows,
    padded,
    predicted,
    regressing,
)

KEY = jax.random.key(7)
RNG = np.random.default_rng(3)
R, T, K, C = 6, 12, 2, 3
LENGTHS = np.array([12, 5, 8, 1, 12, 3])
X = RNG.normal(size=(R, T, K))
LABELS = np.array([0, 2, 1, 1, 0, 2])
EACH = RNG.integers(0, C, (R, T))
TARGETS, MANY = RNG.normal(size=(R, C)), RNG.normal(size=(R, T, C))


def small(pool="mean", *, bidirectional=False, dropout=0.0, key=KEY):
    return sequence_model(
        K,
        C,
        lambda k: S4D(4, 4, key=k),
        depth=1,
        pool=pool,
        bidirectional=bidirectional,
        dropout=dropout,
        key=key,
    )


@eqx.filter_jit
def error(loss, model, batch):
    value, (_, facts) = loss(model, None, batch, None)
    return value, facts


def all_of(rows):
    """Every row, in order."""
    return rows.rows


def value_and_grad(loss, model, batch):
    free, rest = eqx.partition(model, eqx.is_inexact_array)

    def value(free):
        return loss(eqx.combine(free, rest), None, batch, None)[0]

    return jax.jit(jax.value_and_grad(value))(free)


# --- batches -----------------------------------------------------------------------------------------------------


def test_a_batch_holds_different_rows_with_what_belongs_to_them():
    x = np.arange(10.0)[:, None, None] + np.zeros((1, 4, 2))
    lengths = 1 + np.arange(10) % 4
    rows = Sequences(x, np.arange(10), lengths, 1.0 + np.arange(10), batch=6)
    batch = jax.jit(rows.__call__)(KEY)
    row = np.asarray(batch.y)
    assert len(set(row)) == 6 and batch.x.shape == (6, 4, 2)
    assert np.array_equal(batch.x[:, 0, 0], row) and np.array_equal(batch.dt, 1.0 + row)
    assert np.array_equal(batch.length, lengths[row])
    assert np.array_equal(jnp.sum(batch.x[:, :, 0] != 0, 1), np.where(row == 0, 0, lengths[row]))
    assert batch.classes == 10 and batch.step == 1


def test_every_row_is_drawn_as_often():
    rows = Sequences(X, LABELS, batch=3)
    drawn = jax.jit(jax.vmap(lambda key: rows(key).x[:, 0, 0]))(jax.random.split(KEY, 2000))
    counts = [(np.asarray(drawn) == first).sum() for first in X[:, 0, 0]]
    # 1000 expected, with a standard deviation of 22
    assert min(counts) > 900 and max(counts) < 1100 and sum(counts) == 6000


def test_what_lies_beyond_the_end_may_be_anything():
    beyond = np.arange(T)[None] >= LENGTHS[:, None]
    x, y, targets, dt = X.copy(), EACH.copy(), MANY.copy(), np.full((R, T), 0.5)
    x[beyond], y[beyond], targets[beyond], dt[beyond] = np.nan, -5, np.inf, np.nan
    for values in (y, targets):
        rows = Sequences(x, values, LENGTHS, dt, batch=2).rows
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(rows))
        assert not jnp.any(rows.x[beyond]) and not jnp.any(rows.y[beyond])


def test_ragged_sequences_are_padded():
    parts = [row[:n] for row, n in zip(X, LENGTHS, strict=True)]
    x, lengths = padded(parts)
    assert np.array_equal(lengths, LENGTHS) and x.shape == X.shape
    assert all(np.array_equal(row[:n], part) for row, n, part in zip(x, lengths, parts, strict=True))
    assert not x[np.arange(T)[None] >= LENGTHS[:, None]].any()
    with pytest.raises(ValueError, match=r"sequences must be at least one, each \[t, k\]: got shapes \[\]"):
        padded([])
    with pytest.raises(ValueError, match=r"each \[t, k\]: got shapes \[\(3, 1\), \(3, 2\)\]"):
        padded([np.zeros((3, 1)), np.zeros((3, 2))])


# --- losses ------------------------------------------------------------------------------------------------------


class Echo(eqx.Module):
    """Answers with the sequence itself, or its last row, times the mean step; given a key, with noise on it."""

    scale: jax.Array
    pooled: bool = eqx.field(static=True)

    def __call__(self, x, dt=1.0, *, length=None, key=None):
        x = x * self.scale * jnp.mean(jnp.asarray(dt, x.dtype))
        x = x if key is None else x + jax.random.normal(key, x.shape, x.dtype)
        return x[-1] if self.pooled else x


def test_cross_entropy_and_accuracy_by_hand():
    x = np.log(np.array([[[0.2, 0.5, 0.3]], [[0.7, 0.1, 0.2]], [[0.1, 0.8, 0.1]], [[0.3, 0.3, 0.4]]])) + 2.0
    y, p = np.array([1, 0, 2, 2]), np.array([0.5, 0.7, 0.1, 0.4])
    echo = Echo(jnp.ones(()), True)
    value, (state, facts) = classifying()(echo, "state", all_of(Sequences(x, y, batch=1)), None)
    assert np.isclose(value, -np.log(p).mean(), rtol=1e-12)
    assert state == "state" and facts["accuracy"] == 0.75
    smooth, _ = classifying(0.3)(echo, None, all_of(Sequences(x, y, batch=1)), None)
    assert np.isclose(smooth, -(0.7 * np.log(p) + 0.3 * (x[:, 0] - 2).mean(1)).mean(), rtol=1e-12)


def test_steps_count_alike_and_only_real_ones():
    log_p = np.asarray(jax.nn.log_softmax(jnp.asarray(MANY)))
    real = np.arange(T)[None] < LENGTHS[:, None]
    at = np.take_along_axis(log_p, EACH[..., None], 2)[..., 0]
    echo = Echo(jnp.ones(()), False)
    for lengths, counted in ((LENGTHS, real), (None, np.ones_like(real))):
        batch = all_of(Sequences(MANY, EACH, lengths, batch=1))
        value, (_, facts) = classifying()(echo, None, batch, None)
        assert np.isclose(value, -at[counted].mean(), rtol=1e-12)
        assert np.isclose(facts["accuracy"], (MANY.argmax(2) == EACH)[counted].mean(), rtol=1e-12)
        zeros = all_of(Sequences(MANY, np.zeros_like(MANY), lengths, batch=1))
        assert np.isclose(regressing()(echo, None, zeros, None)[0], (MANY[counted] ** 2).mean(), rtol=1e-12)
        assert np.isclose(regressing(absolute)(echo, None, zeros, None)[0], np.abs(MANY[counted]).mean(), rtol=1e-12)


def test_one_target_a_sequence():
    echo = Echo(jnp.ones(()), True)
    value, (_, facts) = regressing()(echo, None, all_of(Sequences(MANY, TARGETS, batch=1)), None)
    assert np.isclose(value, ((MANY[:, -1] - TARGETS) ** 2).mean(), rtol=1e-12) and facts == {}


@pytest.mark.parametrize("pooled", [True, False], ids=["a label", "a label a step"])
def test_padding_changes_neither_loss_nor_gradient(pooled):
    """Sequences padded by NaN as the sequences cut, read both ways; one step for all, and one a sample."""
    n, model, loss = 7, small("mean" if pooled else None, bidirectional=True), classifying(0.1)
    y = LABELS[:2] if pooled else EACH[:2]
    x, dt = X[:2].copy(), 2.0 if pooled else RNG.uniform(0.5, 2, (2, T))
    x[:, n:] = np.nan
    padded = Sequences(x, y, np.array([n, n]), dt, batch=1, classes=C)
    y, dt = (y, dt) if pooled else (y[:, :n], dt[:, :n])
    cut = Sequences(X[:2, :n], y, None, dt, batch=1, classes=C)
    found = [jax.tree.leaves(value_and_grad(loss, model, rows.rows)) for rows in (padded, cut)]
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_step_may_be_told_for_all_by_row_or_by_sample():
    loss, echo = regressing(), Echo(jnp.ones(()), True)
    for dt in (2.0, np.full(R, 2.0), np.full((R, T), 2.0)):
        value, _ = loss(echo, None, all_of(Sequences(MANY, TARGETS, None, dt, batch=1)), None)
        assert np.isclose(value, ((2 * MANY[:, -1] - TARGETS) ** 2).mean(), rtol=1e-12)
    dt = RNG.uniform(0.5, 2, R)
    value, _ = loss(echo, None, all_of(Sequences(MANY, TARGETS, None, dt, batch=1)), None)
    assert np.isclose(value, ((dt[:, None] * MANY[:, -1] - TARGETS) ** 2).mean(), rtol=1e-12)


def test_the_key_of_a_loss_is_split_among_the_rows():
    rows = all_of(Sequences(np.zeros((2, 3, C)), np.zeros((2, C)), batch=1))
    each = jax.grad(lambda y, key: regressing()(Echo(jnp.ones(()), True), None, _with_y(rows, y), key)[0])
    first, second = each(rows.y, KEY)  # proportional to the noise of each row
    assert not np.allclose(first, second) and np.array_equal(each(rows.y, KEY)[0], first)
    assert regressing()(Echo(jnp.ones(()), True), None, rows, None)[0] == 0


def _with_y(rows, y):
    return eqx.tree_at(lambda batch: batch.y, rows, y)


def test_gradients_of_each_sequence_by_itself():
    """`of_windows` takes batches of sequences: its mean is the gradient of the batch."""
    loss, batch = classifying(), all_of(Sequences(MANY, LABELS, LENGTHS, 0.5, batch=1))

    def value(scale, batch):
        return loss(Echo(scale, True), None, batch, None)

    (error, (_, facts)), each = of_windows(value, jnp.ones(()), batch)
    whole, (_, all_facts) = value(jnp.ones(()), batch)
    assert np.isclose(error, whole, rtol=1e-12) and np.isclose(facts["accuracy"], all_facts["accuracy"])
    assert each.shape == (R,)
    assert np.isclose(each.mean(), jax.grad(lambda scale: value(scale, batch)[0])(jnp.ones(())), rtol=1e-9)


# --- answers and scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool, dt", [("mean", np.linspace(0.5, 2, R)), (None, 0.5)], ids=["pooled", "steps"])
def test_answers_of_many_are_those_of_each(pool, dt):
    model = small(pool, bidirectional=pool is None, dropout=0.3)
    one = eqx.filter_jit(lambda x, dt, n: model(x, dt, length=n))
    found = predicted(model, X, dt, LENGTHS, batch=4)
    assert isinstance(found, np.ndarray) and len(found) == R
    for i, n in enumerate(LENGTHS):
        alone = one(jnp.asarray(X[i]), jnp.asarray(np.broadcast_to(dt, R)[i]), jnp.asarray(n))
        real = slice(None) if pool else slice(n)
        assert np.allclose(found[i][real], alone[real], rtol=1e-9, atol=1e-12)


def test_numbers_and_steps_of_a_size_are_compiled_once():
    traces = []

    class Counting(eqx.Module):
        scale: jax.Array

        def __call__(self, x, dt=1.0, *, length=None, key=None):
            traces.append(x.shape)
            return x[-1] * self.scale * dt

    model = Counting(jnp.ones(()))
    for r, dt in ((5, 1.0), (6, 2.0), (8, 0.25), (5, 3.0)):
        assert np.allclose(predicted(model, np.ones((r, 4, 1)), dt, batch=4), dt)
    assert len(traces) == 1
    predicted(model, np.ones((3, 4, 1)), batch=4)
    assert len(traces) == 2


@pytest.mark.parametrize("y", [LABELS, EACH, MANY], ids=["labels", "labels of steps", "targets of steps"])
def test_held_scores_are_those_of_all_rows_at_once(y):
    loss = regressing() if y is MANY else classifying()
    models = Echo(jnp.array([1.0, -2.0]), y is LABELS)
    rows = Sequences(MANY, y, LENGTHS, batch=4)  # 4 and 2, padded
    scores = held(rows, loss)(models)
    for i in range(2):
        model = jax.tree.map(lambda v, i=i: v[i] if eqx.is_array(v) else v, models)
        value, facts = error(loss, model, rows.rows)
        assert np.isclose(scores["score"][i], value, rtol=1e-9) and scores["loss"][i] == scores["score"][i]
        for name, fact in facts.items():
            assert np.isclose(scores[name][i], fact, rtol=1e-9)
    if y is MANY:
        with pytest.raises(ValueError, match=r'by="error" needs a loss that tells the accuracy: got \[\'loss\'\]'):
            held(rows, loss, by="error")(models)
    else:
        wrong = held(rows, loss, by="error")(models)
        assert np.allclose(wrong["score"], 1 - scores["accuracy"], atol=1e-12)


# --- groups ------------------------------------------------------------------------------------------------------

LAYERS = {
    "s4d": lambda k: S4D(4, 4, key=k),
    "s4": lambda k: S4(4, 4, key=k),
    "s5": lambda k: S5(4, 4, key=k),
    "lru": lambda k: LRU(4, 4, key=k),
    "lssl": lambda k: LSSL(4, 4, key=k),
    "lmu": lambda k: LMU(4, 4, window=8.0, key=k),
}


def built(layer):
    return sequence_model(K, C, LAYERS[layer], depth=2, bidirectional=True, key=KEY)


@pytest.mark.parametrize("layer", LAYERS)
def test_labels_are_those_that_layers_name(layer):
    params = eqx.filter_eval_shape(built, layer)
    found = labels(params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert set(jax.tree.leaves((found.encoder, found.head, found.norm))) == {"rest"}
    for block in found.blocks:
        assert set(jax.tree.leaves((block.mix, block.norm))) == {"rest"}
        for part in (block.layer, block.backward):
            names = {name for name in vars(part) if "dynamics" in jax.tree.leaves(getattr(part, name))}
            assert names == {name for name in part.dynamics if jax.tree.leaves(getattr(part, name))}
            assert all(set(jax.tree.leaves(getattr(part, name))) == {"dynamics"} for name in names)


def test_a_layer_inside_a_layer_has_its_own_say():
    class Scaled(AbstractSequenceLayer):
        layer: S4D
        gain: jax.Array
        dynamics = ("gain",)

        @property
        def width(self):
            return self.layer.width

        @property
        def state_size(self):
            return self.layer.state_size

        def __call__(self, u, dt=1.0, *, key=None):
            return self.gain * self.layer(u, dt)

        def cell(self, dt=1.0):
            raise NotImplementedError

    found = labels({"a": [Scaled(S4D(4, 4, key=KEY), jnp.ones(()))], "b": jnp.ones(2)})
    assert found["b"] == "rest" and found["a"][0].gain == "dynamics"
    inner = found["a"][0].layer
    assert inner.C == inner.D == "rest" and inner.log_decay == inner.frequency == inner.log_step == "dynamics"


def test_a_tree_without_layers_is_refused():
    with pytest.raises(ValueError, match="params must hold a sequence layer: got dict, with none in it"):
        labels({"a": jnp.ones(3)})


def test_each_group_moves_by_its_own_rate_and_only_the_rest_decays():
    params = {"layer": S4D(2, 2, key=KEY), "other": jnp.ones(3)}
    params = eqx.filter(params, eqx.is_inexact_array)
    optimiser = grouped(
        optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1.0)),
        optax.sgd(1e-3),
    )
    slope = jax.tree.map(jnp.ones_like, params)
    moved, _ = optimiser.update(slope, optimiser.init(params), params)
    layer, by = params["layer"], moved["layer"]
    for name in ("log_decay", "frequency", "log_step"):
        assert np.allclose(getattr(by, name), -1e-3, rtol=1e-12)
    for before, after in ((layer.C, by.C), (layer.D, by.D), (params["other"], moved["other"])):
        assert np.allclose(after, -(1 + 0.5 * np.asarray(before)), rtol=1e-12)


@pytest.mark.usefixtures("optimiser_promotion")
def test_two_optimisers_alike_are_one():
    params = {"layer": S4D(2, 2, key=KEY), "other": jnp.ones(3)}
    runs = []
    for optimiser in (optax.adam(1e-2), grouped(optax.adam(1e-2), optax.adam(1e-2))):

        @jax.jit
        def moved(now, state, i, optimiser=optimiser):
            by, state = optimiser.update(jax.tree.map(lambda x: jnp.cos(x + i), now), state, now)
            return optax.apply_updates(now, by), state

        now, state = params, optimiser.init(params)
        for i in range(3):
            now, state = moved(now, state, float(i))
        runs.append(jax.tree.leaves(now))
    for before, a, b in zip(jax.tree.leaves(params), *runs, strict=True):
        assert np.allclose(a, b, rtol=1e-14) and not np.allclose(a, before)


# --- through fit -------------------------------------------------------------------------------------------------


def rising_or_falling(r, seed):
    """Lines with noise: told apart by the sign of their slope, at lengths from 6 to 12."""
    rng = np.random.default_rng(seed)
    y, lengths = np.arange(r) % 2, rng.integers(6, 13, r)
    x = (2 * y[:, None] - 1) * np.linspace(-1, 1, 12)[None] + 0.1 * rng.normal(size=(r, 12))
    return x[..., None], y, lengths


class Reader(eqx.Module):
    """One layer, its output at the last real step, two weights of it."""

    layer: S4D
    head: eqx.nn.Linear

    def __call__(self, x, dt=1.0, *, length=None, key=None):
        y = self.layer(jnp.repeat(x, 4, 1), dt)
        return self.head(y[-1] if length is None else y[length - 1])


def learner(key):
    return Reader(S4D(4, 4, step_min=0.05, step_max=0.5, key=key), eqx.nn.Linear(4, 2, key=key))


def learned(key, model):
    x, y, lengths = rising_or_falling(40, 0)
    optimiser = grouped(optax.adamw(2e-2, weight_decay=0.01), optax.adam(1e-3))
    evaluate = held(Sequences(*rising_or_falling(30, 1), batch=16), classifying(), by="error")
    sampler = Sequences(x, y, lengths, batch=16)
    return fit(model, classifying(0.05), sampler, optimiser, steps=60, key=key, evaluate=evaluate, every=20)


@pytest.mark.usefixtures("optimiser_promotion")
def test_an_ensemble_learns_a_separable_task():
    keys = jax.random.split(KEY, 2)
    found, history = learned(keys, eqx.filter_vmap(learner)(keys))
    assert history.scores["score"].shape == (3, 2) and history.facts["accuracy"].shape == (60, 2)
    assert (history.scores["score"].min(0) == 0).all() and (history.scores["accuracy"].max(0) == 1).all()
    x, y, lengths = rising_or_falling(50, 2)
    for i in range(2):
        member = jax.tree.map(lambda v, i=i: v[i] if eqx.is_array(v) else v, found)
        assert (predicted(member, x, 1.0, lengths).argmax(1) == y).all()


@pytest.mark.usefixtures("float32")
def test_single_precision_stays_single():
    x, y, lengths = rising_or_falling(6, 0)
    model = learner(jax.random.key(1))
    rows = Sequences(x.astype(np.float32), y, lengths, batch=4)
    value, gradient = value_and_grad(classifying(0.1), model, rows(jax.random.key(2)))
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {np.dtype(np.float32)}
    x = np.repeat(x, 2, 2).astype(np.float32)
    assert predicted(Echo(jnp.ones(()), True), x, 2.0, lengths).dtype == np.float32
    scores = held(Sequences(x, y, lengths, batch=4), classifying())(Echo(jnp.ones(1), True))
    assert {score.dtype for score in scores.values()} == {np.dtype(np.float32)}


# --- bad input ---------------------------------------------------------------------------------------------------


def _with(values, at, what):
    values = np.array(values)
    values[at] = what
    return values


@pytest.mark.parametrize(
    "given, message",
    [
        ({"x": EACH[..., None]}, r"x must be real floating point: got int64"),
        ({"x": X[0]}, r"x must have shape \[sequence, step, channel\], none of them empty: got \[12, 2\]"),
        ({"x": X[:, :0]}, r"none of them empty: got \[6, 0, 2\]"),
        ({"x": _with(X, (2, 3, 0), np.nan)}, r"x must be finite: 1 of 72 samples are not, .* sequence 2, step 3"),
        ({"lengths": LENGTHS[:4]}, r"lengths must be 6 integers, one a sequence: got int64 \[4\]"),
        ({"lengths": LENGTHS.astype(float)}, r"lengths must be 6 integers, one a sequence: got float64 \[6\]"),
        ({"lengths": _with(LENGTHS, 2, 13)}, r"lengths must lie in 1 .. 12, the steps of x: got 13, of sequence 2"),
        ({"lengths": _with(LENGTHS, 0, 0)}, r"lengths must lie in 1 .. 12, the steps of x: got 0, of sequence 0"),
        ({"y": LABELS > 0}, r"y must be labels, integers, or targets, real floating point: got bool"),
        ({"y": LABELS[:5]}, r"y must hold labels \[6\], or \[6, 12\], one a step: got shape \[5\]"),
        ({"y": LABELS.astype(float)}, r"y must hold targets \[6, c\], or .* got shape \[6\]. Labels must be integers"),
        ({"y": LABELS - 1}, r"y must hold labels from 0 to 1, one less than classes: got -1"),
        ({"y": LABELS, "classes": 2}, r"y must hold labels from 0 to 1, one less than classes: got 2"),
        ({"y": TARGETS, "classes": 2}, r"classes is for labels, integers: got classes=2 and y of float64"),
        ({"y": _with(TARGETS, (0, 1), np.inf)}, r"y must be finite: 1 of 18 targets are not"),
        ({"dt": np.ones(4)}, r"dt must be a number, \[6\] \(one a sequence\) or \[6, 12\] .* got float64 \[4\]"),
        ({"dt": 0.0}, r"dt must be positive and finite: got 0"),
        ({"dt": _with(np.ones((R, T)), (1, 1), np.nan)}, r"dt must be positive and finite: got nan"),
        ({"batch": 0}, r"batch must lie in 1 .. 6, the number of sequences: got 0"),
        ({"batch": 7}, r"batch must lie in 1 .. 6, the number of sequences: got 7"),
    ],
)
def test_bad_sequences_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Sequences(**{"x": X, "y": LABELS, "batch": 2, **given})


def test_bad_settings_and_answers_are_refused():
    rows = all_of(Sequences(X, LABELS, batch=1))
    for smoothing in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"smoothing must lie in \[0, 1\): got"):
            classifying(smoothing)
    with pytest.raises(ValueError, match=r"must answer with \[6, 3 or more\]: got \[6, 12, 2\]. One label a sequence"):
        classifying()(Echo(jnp.ones(()), False), None, rows, None)
    with pytest.raises(ValueError, match=r"must answer with \[6, 3 or more\]: got \[6, 2\]"):
        classifying()(Echo(jnp.ones(()), True), None, rows, None)
    with pytest.raises(ValueError, match=r"must answer with \[6, 3\], as y: got \[6, 2\]"):
        regressing()(Echo(jnp.ones(()), True), None, all_of(Sequences(X, TARGETS, batch=1)), None)
    with pytest.raises(ValueError, match=r'by must be "loss" or "error": got \'best\''):
        held(Sequences(X, LABELS, batch=1), classifying(), by="best")
    with pytest.raises(ValueError, match=r"batch must be at least 1: got 0"):
        predicted(Echo(jnp.ones(()), True), X, batch=0)
    with pytest.raises(ValueError, match=r"dt must be positive and finite: got -1"):
        predicted(Echo(jnp.ones(()), True), X, -1.0)


def test_a_batch_may_be_made_by_hand():
    value, _ = regressing()(Echo(jnp.ones(()), True), None, Batch(jnp.asarray(MANY), jnp.asarray(TARGETS)), None)
    assert np.isclose(value, ((MANY[:, -1] - TARGETS) ** 2).mean(), rtol=1e-12)
