"""Epochs: every window once an epoch, in an order of its own, the same when a fit is resumed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsrecon.training import Epochs, Windows, fit
from dsrecon.training.epochs import placed

KEY = jax.random.key(0)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 17, 1000, 8845])
def test_an_order_has_every_index_once(count):
    order = jax.jit(lambda key: placed(jnp.arange(count), count, key=key))
    found = np.asarray(jax.vmap(order)(jax.random.split(KEY, 3)))
    assert (np.sort(found, 1) == np.arange(count)).all()
    assert count < 16 or not (found[0] == found[1]).all()


@pytest.mark.parametrize("count", [5, 12])
def test_orders_are_random(count):
    """Every index is at every place equally often, and follows every other equally often: chi-squared, 5 sd."""
    runs = 20_000
    orders = np.asarray(
        jax.jit(jax.vmap(lambda key: placed(jnp.arange(count), count, key=key)))(jax.random.split(KEY, runs))
    )
    seats = np.zeros((count, count))
    np.add.at(seats, (np.arange(count)[None], orders), 1)
    pairs = np.zeros((count, count))
    np.add.at(pairs, (orders[:, :-1], orders[:, 1:]), 1)
    off = ~np.eye(count, dtype=bool)
    assert pairs[~off].sum() == 0
    for counts, expected, free in (
        (seats, runs / count, (count - 1) ** 2),
        (pairs[off], runs / count, count * (count - 1) - 1),
    ):
        chi = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi - free) < 5 * (2 * free) ** 0.5


def starts_of(sampler, updates, key=KEY):
    return np.stack([np.asarray(sampler(key, jnp.int32(i)).x[:, 0, 0]) for i in range(updates)])


def test_an_epoch_has_every_window_once():
    x = jnp.arange(23.0)[:, None]
    sampler = Epochs(Windows(x, length=3, batch=6))  # 20 windows: 3 batches, 2 are left out
    assert sampler.updates == 3
    found = starts_of(sampler, 6).reshape(2, -1)
    assert all(len(set(epoch)) == 18 for epoch in found)
    assert set(found.ravel()) == set(range(20))
    assert found[0].tolist() != found[1].tolist()
    assert found[0].tolist() != starts_of(sampler, 3, jax.random.key(1)).ravel().tolist()


def test_trials_and_gaps_and_noise_are_kept():
    x = jnp.arange(20.0)[:, None]
    mask = jnp.ones((20, 1), bool).at[3].set(False)
    windows = Windows(x, length=2, batch=4, trials=(10, 10), mask=mask, noise=0.1, key=KEY)
    sampler = Epochs(windows)
    batches = [sampler(KEY, jnp.int32(i)) for i in range(sampler.updates)]
    begun = np.concatenate([batch.x[:, 0, 0] for batch in batches])
    allowed = [i for i in range(20) if i not in (3, 8, 9, 18, 19)]
    assert windows.count == len(allowed) == 15 and len(set(begun)) == 12 and set(begun) <= set(allowed)
    for batch in batches:
        assert (np.asarray(batch.trial) == np.asarray(batch.x[:, 0, 0]) // 10).all()
        assert 0 < float(jnp.abs(batch.seen - batch.x).max()) < 1


def loss(model, state, batch, key):
    return jnp.mean((model - batch.x) ** 2), (state, {"first": batch.x[0, 0, 0]})


def test_fit_goes_through_epochs_member_by_member_and_resumes(tmp_path):
    x = jnp.arange(12.0)[:, None]
    sampler = Epochs(Windows(x, length=1, batch=1))  # 11 windows
    keys = jax.random.split(KEY, 2)
    given: dict[str, Any] = {"steps": 22, "every": 4, "key": keys, "progress": False}
    model, history = fit(jnp.zeros(2), loss, sampler, optax.sgd(0.01), **given)
    first = history.facts["first"].reshape(2, 11, 2)
    assert (np.sort(first, 1) == np.arange(11.0)[None, :, None]).all()
    alone, _ = fit(jnp.zeros(()), loss, sampler, optax.sgd(0.01), **{**given, "key": keys[1]})
    assert np.allclose(model[1], alone, atol=1e-12)

    class Stop(Exception):
        pass

    def stop_after(evaluations):
        left = iter(range(evaluations))

        def evaluate(models):
            if next(left, None) is None:
                raise Stop
            return {"score": -np.arange(2.0)}

        return evaluate

    path = tmp_path / "fit.checkpoint"
    with pytest.raises(Stop):
        fit(jnp.zeros(2), loss, sampler, optax.sgd(0.01), checkpoint=path, evaluate=stop_after(4), threads=1, **given)
    _, resumed = fit(
        jnp.zeros(2), loss, sampler, optax.sgd(0.01), checkpoint=path, evaluate=stop_after(99), threads=1, **given
    )
    assert (resumed.facts["first"] == history.facts["first"]).all()


def test_a_batch_of_more_than_all_windows_is_refused():
    with pytest.raises(ValueError, match="batch must be at most the 4 windows that fit: got 5"):
        Epochs(Windows(jnp.zeros((6, 1)), length=2, batch=5))
