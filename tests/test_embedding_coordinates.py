"""One variable in delay coordinates: in comes the variable, out comes the variable."""

import jax
import numpy as np
import pytest

from dsrecon import load, reconstruct, simulate
from dsrecon.embedding import Embedding
from dsrecon.systems import Lorenz63

X = np.arange(20.0)[:, None]


def test_a_point_is_the_present_and_the_past():
    embedding = Embedding(3, 4)
    points = embedding(X)
    assert embedding.span == 9 and points.shape == (11, 4)
    assert np.array_equal(points[0], [9, 6, 3, 0]) and np.array_equal(points[-1], [19, 16, 13, 10])
    assert embedding.names("v") == ("v", "v(t-3)", "v(t-6)", "v(t-9)")


def test_a_missing_value_is_missing_in_every_point_that_holds_it():
    values = X.copy()
    values[8] = np.nan
    assert np.argwhere(np.isnan(Embedding(2, 3)(values))).tolist() == [[4, 0], [6, 1], [8, 2]]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Embedding(0, 2), r"lag must be at least 1 and dimension at least 2: got 0 and 2"),
        (lambda: Embedding(1, 1), r"got 1 and 1"),
        (lambda: Embedding(10, 3)(X), r"longer than the embedding's span, 20 samples: got 20"),
        (lambda: Embedding(1, 2)(np.ones((9, 2))), r"takes one variable, \[time, 1\]: got shape \(9, 2\)"),
    ],
)
def test_bad_embeddings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def model():
    with jax.numpy_dtype_promotion("standard"):
        series = simulate(Lorenz63(), 3000)[:, :1]
        return reconstruct(series, lag=15, dimension=3, runs=2, steps=150, progress=False), series


def test_the_variable_comes_out_on_its_own_clock(model):
    fitted, series = model
    assert fitted.names == ("x",) and fitted.coordinates == ("x", "x(t-15)", "x(t-30)") and fitted.offset == 30
    free = fitted.simulate(5, discard=2)
    assert free.dims == ("time", "variable") and free["variable"].values.tolist() == ["x"]
    assert free["time"].values[0] == pytest.approx(float(series["time"][30 + 3]))
    ahead = fitted.forecast(series[100:200], 4)
    assert ahead.shape == (4, 1) and ahead["time"].values[0] == pytest.approx(float(series["time"][200]))
    zs = fitted.filter(series[:100])
    assert zs.shape == (70, fitted.cell.state_size)
    assert np.allclose(fitted.observe(zs), series.values[30:100], atol=1e-9)


def test_a_run_begins_at_a_point_of_the_embedding(model):
    fitted, series = model
    point = Embedding(15, 3)(series.values)[0]
    assert np.array_equal(fitted.simulate(4, start=point), fitted.simulate(4))
    with pytest.raises(ValueError, match=r"start must be 3 finite numbers, one for each of \('x', 'x\(t-15\)'"):
        fitted.simulate(4, start=[1.0])


def test_the_embedding_is_saved_with_the_model(model, tmp_path):
    fitted, _ = model
    again = load(fitted.save(tmp_path / "model.eqx"))
    assert again.embedding == fitted.embedding and np.array_equal(again.simulate(9), fitted.simulate(9))


def test_an_embedding_takes_one_variable():
    with pytest.raises(ValueError, match=r"lag and dimension embed one variable: got 3"):
        reconstruct(np.random.default_rng(0).normal(size=(600, 3)), lag=2, progress=False)
