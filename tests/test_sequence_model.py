"""Deep models of sequence layers: their faces, ends and lengths."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import stirred

from dsrecon.cell import check_linearise
from dsrecon.layer import Timed
from dsrecon.models import LRU, S4D, S5, SequenceModel, sequence_model


def made(**options):
    def layer(key):
        return S4D(6, 4, key=key)

    options = {"depth": 2, "key": jax.random.key(0)} | options
    return stirred(eqx.filter_jit(lambda: sequence_model(2, 4, layer, **options))())


run = eqx.filter_jit(lambda model, *args, **more: model(*args, **more))


def x(length, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(length, 2)))


@pytest.mark.parametrize("pool", ["mean", "last", None])
@pytest.mark.parametrize("timed", [False, True])
def test_step_by_step_it_is_the_same(pool, timed):
    model, u = made(pool=pool), x(30)
    dt = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, 30))
    cell = model.cell(None if timed else 1.0)

    def step(z, s):
        z = cell(z, s)
        return z, cell.output(z, s)

    start, inputs = jnp.zeros(cell.state_size), Timed(u, dt) if timed else u
    shown = jax.jit(lambda: jax.lax.scan(step, start, inputs)[1])()
    found = run(model, u, dt) if timed else run(model, u)
    np.testing.assert_allclose(shown if pool is None else shown[-1], found, atol=1e-10)
    if pool:  # of a stream: of the steps so far
        np.testing.assert_allclose(shown[9], run(model, u[:10], dt[:10]) if timed else run(model, u[:10]), atol=1e-10)


def test_its_cell_declares_its_jacobian():
    cell = made().cell()
    z = jnp.asarray(np.random.default_rng(2).normal(size=(2, cell.state_size)))
    check_linearise(cell, z, x(2))


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_follows_the_length_is_not_seen(pool, bidirectional):
    model, dt = made(pool=pool, bidirectional=bidirectional), jnp.linspace(0.5, 2, 20)
    short = run(model, x(20)[:13], dt[:13])
    np.testing.assert_allclose(run(model, x(20), dt, length=13), short, atol=1e-12)
    other = jnp.concatenate([x(20)[:13], 100 * x(7, 5)])
    np.testing.assert_allclose(run(model, other, dt, length=jnp.asarray(13)), short, atol=1e-10)


def test_backward_layers_read_backwards():
    """With the same layer both ways a sequence in reverse gives the outputs in reverse."""
    model = made(pool=None, bidirectional=True)
    same = eqx.tree_at(lambda m: [b.backward for b in m.blocks], model, [b.layer for b in model.blocks])
    u = x(17)
    np.testing.assert_allclose(run(same, u[::-1])[::-1], run(same, u), atol=1e-12)
    dt = jnp.asarray(np.random.default_rng(3).uniform(0.5, 2, 17))
    between = jnp.concatenate([dt[:1], dt[1:][::-1]])  # the same times, read from their end
    np.testing.assert_allclose(run(same, u[::-1], between)[::-1], run(same, u, dt), atol=1e-12)
    first = jax.jit(jax.jacobian(lambda u: same(u)[0]))(u)
    assert float(jnp.abs(first[:, -1]).max()) > 0  # which a causal model does not see


def test_dropout_is_drawn_with_a_key_alone():
    model, u = made(dropout=0.5), x(12)
    np.testing.assert_array_equal(run(model, u), run(model, u))
    a, b = (run(model, u, key=jax.random.key(i)) for i in (0, 1))
    assert float(jnp.abs(a - b).max()) > 1e-3
    np.testing.assert_array_equal(run(model, u, key=jax.random.key(0)), a)
    never = made(dropout=0.0)
    np.testing.assert_allclose(run(never, u, key=jax.random.key(0)), run(never, u), atol=1e-12)


def test_a_model_of_parts_of_its_own():
    keys = jax.random.split(jax.random.key(0), 4)
    model = SequenceModel(
        lambda v: jnp.concatenate([v, v, v]),
        [S5(6, 4, key=keys[0]), LRU(6, 3, key=keys[1])],
        lambda v: v[:1],
        pool=None,
        key=keys[2],
    )
    assert model(x(9)).shape == (9, 1)
    with pytest.raises(ValueError, match="dt must be 1"):
        model(x(9), 2.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda k: SequenceModel(abs, [], abs, key=k), "at least one, all of one width: got widths"),
        (
            lambda k: SequenceModel(abs, [S4D(2, 2, key=k), S4D(3, 2, key=k)], abs, key=k),
            r"all of one width: got widths \[2, 3\]",
        ),
        (
            lambda k: SequenceModel(abs, [S4D(2, 2, key=k)], abs, backward=[], key=k),
            "backward must hold a layer for each of the 1: got 0",
        ),
        (lambda k: made(dropout=1.0), r"dropout must lie in \[0, 1\): got 1.0"),
        (lambda k: made(depth=0), "depth must be at least 1: got 0"),
        (lambda k: made(bidirectional=True).cell(), "a model that reads both ways has no stepwise face"),
        (lambda k: made()(jnp.ones((5, 2)), 0.0), "dt must be positive and finite: got 0.0"),
    ],
)
def test_bad_models_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))
