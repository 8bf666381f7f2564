"""Symbols of a piecewise-linear map: the laws of encode, dwell times, transitions and graph; files."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import xarray as xr

from dsrecon import symbolic
from dsrecon._types import Inputs, Matrix, State
from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.models import ALRNN, ClippedShallowPLRNN
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock, labelled

STEPS = 1500
NAMES, UNITS, CLOCK = ("x", "y", "z"), ("mV", "", "m"), Clock(0.01, 5.0, "s")


class Logistic(AbstractCell):
    """A cell that is not piecewise linear."""

    state_size: int = 3

    def __call__(self, z: State, s: Inputs = None) -> State:
        return 3.9 * z * (1 - z)

    def linearise(self, z: State, s: Inputs = None) -> tuple[State, Matrix]:
        return dense_jacobian(self, z, s)


def lorenz(steps, dt=0.01):
    """Lorenz-63 by Euler steps: an attractor to code, not a truth to be exact about."""
    v, out = np.array([1.0, 1.0, 20.0]), np.empty((steps, 3))
    for i in range(-300, steps):
        x, y, z = v
        v = v + dt * np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
        out[max(i, 0)] = v
    return out


VALUES = lorenz(STEPS)
SERIES = labelled(VALUES, NAMES, CLOCK, units=UNITS)
CELLS = {
    "alrnn": ALRNN(20, 2, key=jax.random.key(0)),
    "alrnn, linear": ALRNN(5, 0, key=jax.random.key(0)),
    "shallow": ClippedShallowPLRNN(3, 50, key=jax.random.key(0)),
}


def reconstruction(cell, clock=CLOCK):
    readout = IdentityReadout(3, cell.state_size, key=jax.random.key(1))
    return Reconstruction(cell, readout, Scaler.fit(VALUES), VALUES[0], clock, NAMES, UNITS)


def rotation():
    """A free run that never settles: a slow rotation whose last unit switches an affine push on and off."""
    cell = ALRNN(4, 1, key=jax.random.key(0))
    turn = jnp.array([[jnp.cos(0.3), -jnp.sin(0.3)], [jnp.sin(0.3), jnp.cos(0.3)]])
    W = jnp.zeros((4, 4)).at[:2, :2].set(turn).at[3, 0].set(1.0).at[2, 3].set(0.5)
    values = (cell.A * 0, W, jnp.zeros(4).at[2].set(-0.1))
    for name, value in zip(("A", "W", "h"), values, strict=True):
        cell = jax.tree.map(lambda leaf: leaf, cell)
        object.__setattr__(cell, name, value)
    return cell


@pytest.fixture(scope="module", params=CELLS)
def encoded(request):
    return symbolic.encode(reconstruction(CELLS[request.param]), SERIES)


# encode


@pytest.mark.parametrize("cell", [*CELLS.values(), rotation()], ids=[*CELLS, "rotation"])
def test_every_step_of_a_free_run_is_the_affine_map_of_its_region(cell):
    model = reconstruction(cell)
    coded = symbolic.encode(model, steps=200, discard=10)
    zs = np.asarray(model.free_run(200, discard=10).zs[10:])
    symbol = coded["symbol"].values[:-1]
    A, h = coded["A"].values[symbol], coded["h"].values[symbol]
    np.testing.assert_allclose(zs[1:], np.einsum("tij,tj->ti", A, zs[:-1]) + h, atol=1e-12)
    simulated = model.simulate(200, discard=10)
    xr.testing.assert_identical(coded["observation"], simulated.rename("observation"))


def test_every_state_of_a_series_is_stepped_by_the_map_of_its_region(encoded):
    model = reconstruction(CELLS[{20: "alrnn", 5: "alrnn, linear", 3: "shallow"}[encoded.sizes["state"]]])
    zs = model.filter(SERIES)
    symbol = encoded["symbol"].values
    stepped = np.einsum("tij,tj->ti", encoded["A"].values[symbol], np.asarray(zs)) + encoded["h"].values[symbol]
    np.testing.assert_allclose(stepped, jax.vmap(model.cell)(zs), atol=1e-12)
    assert (encoded["bits"].values[symbol] == jax.vmap(model.cell.region)(zs)).all()


def test_symbols_are_numbered_by_visits_and_ties_by_the_first_visit(encoded):
    symbol, visits = encoded["symbol"].values, encoded["visits"].values
    assert (np.diff(visits) <= 0).all() and visits.sum() == len(symbol)
    np.testing.assert_array_equal(np.bincount(symbol), visits)
    first = np.unique(symbol, return_index=True)[1]
    ties = np.diff(visits) == 0
    assert (np.diff(first)[ties] > 0).all()
    assert len(np.unique(encoded["bits"].values, axis=0)) == len(visits)


def test_observation_means_times_and_facts_are_those_of_the_series(encoded):
    np.testing.assert_allclose(encoded["observation"], VALUES, rtol=1e-12)
    np.testing.assert_array_equal(encoded["time"], SERIES["time"])
    assert list(encoded["unit"].values) == list(UNITS)
    np.testing.assert_allclose(encoded["mean"][0], VALUES[encoded["symbol"].values == 0].mean(0), rtol=1e-10)
    gates = encoded.sizes["gate"]
    assert encoded.attrs["regions_visited"] == f"{encoded.sizes['region']} of at most 2^{gates}"
    assert encoded.attrs["steps"] == STEPS and encoded.attrs["source"] == "series"
    assert (encoded.attrs["time_step"], encoded.attrs["time_unit"]) == (0.01, "s")


def test_a_series_without_times_gets_the_time_step_of_the_model():
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), VALUES)
    np.testing.assert_allclose(coded["time"], 0.01 * np.arange(STEPS))


def test_encode_refuses_what_has_no_regions():
    with pytest.raises(ValueError, match=r"must be an AbstractPWLCell.*got Logistic"):
        symbolic.encode(reconstruction(Logistic()), SERIES)


def test_encode_names_the_step_of_a_diverged_run():
    cell = rotation()
    object.__setattr__(cell, "W", cell.W * 1e4)
    with pytest.raises(RuntimeError, match=r"diverged at step \d+ of 200: the state is \[.*no region"):
        symbolic.encode(reconstruction(cell), steps=200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either series or steps: got neither"),
        ({"series": SERIES, "steps": 3}, "either series or steps: got both"),
        ({"series": SERIES, "discard": 3}, "belong to a free run.*discard=3"),
        ({"series": SERIES.rename(variable="v").assign_coords(v=["a", "b", "c"])}, "variables must be"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_encode_names_what_came_in(arguments, message):
    with pytest.raises(ValueError, match=message):
        symbolic.encode(reconstruction(CELLS["alrnn"]), **arguments)


# sequences with known answers

WORD = np.array([0, 0, 0, 1, 1, 0, 2, 2, 2, 2, 0, 0])


def test_dwell_times_of_a_known_word():
    runs = symbolic.dwell_times(WORD)
    np.testing.assert_array_equal(runs["symbol"], [0, 1, 0, 2, 0])
    np.testing.assert_array_equal(runs["steps"], [3, 2, 1, 4, 2])
    np.testing.assert_array_equal(runs["first"], [0, 3, 5, 6, 10])
    np.testing.assert_array_equal(runs["censored"], [True, False, False, False, True])
    np.testing.assert_array_equal(runs["duration"], runs["steps"])


def test_run_lengths_leave_out_the_censored():
    summary = symbolic.run_lengths(xr.DataArray(WORD, dims="time", attrs={"time_step": 0.5}))
    np.testing.assert_array_equal(summary["count"], [1, 1, 1])
    np.testing.assert_array_equal(summary["censored"], [2, 0, 0])
    np.testing.assert_array_equal(summary["mean_steps"], [1, 2, 4])
    np.testing.assert_array_equal(summary["median"], [0.5, 1, 2])
    only = symbolic.run_lengths([7, 7, 7])
    assert only["count"] == 0 and only["censored"] == 1 and np.isnan(only["mean"]).all()


def test_transitions_of_a_known_word():
    P = symbolic.transitions(WORD)
    np.testing.assert_array_equal(P["count"], [[3, 1, 1], [1, 1, 0], [1, 0, 3]])
    np.testing.assert_allclose(P, [[3 / 5, 1 / 5, 1 / 5], [1 / 2, 1 / 2, 0], [1 / 4, 0, 3 / 4]])
    exits = symbolic.transitions(WORD, self_transitions=False)
    np.testing.assert_allclose(exits, [[0, 1 / 2, 1 / 2], [1, 0, 0], [1, 0, 0]])
    assert P.attrs["left_out"] == exits.attrs["left_out"] == 0


@pytest.mark.parametrize(
    ("word", "self_transitions", "kept", "left_out"),
    [
        ([4, 4, 9], True, [4], 1),
        ([4, 9, 4, 2, 3], True, [4, 9], 2),
        ([4, 9, 9], True, [4, 9], 0),
        ([4, 9, 9], False, [], 2),
        ([4, 9, 4, 9, 9, 1], False, [4, 9], 1),
        ([4, 4, 4], False, [], 1),
        ([4], True, [], 1),
        ([1, 2, 3], True, [], 3),
    ],
)
def test_final_symbols_that_lead_nowhere_are_left_out(word, self_transitions, kept, left_out):
    P = symbolic.transitions(word, self_transitions=self_transitions)
    assert P["from"].values.tolist() == P["to"].values.tolist() == kept
    assert P.attrs["left_out"] == left_out
    np.testing.assert_allclose(P.sum("to"), 1.0, rtol=1e-15)


@pytest.mark.parametrize("self_transitions", [True, False])
def test_rows_sum_to_one_and_dwell_times_to_the_steps(encoded, self_transitions):
    P = symbolic.transitions(encoded, self_transitions=self_transitions)
    np.testing.assert_allclose(P.sum("to"), 1.0, rtol=1e-14)
    if not self_transitions:
        assert (np.diag(P) == 0).all()
    runs = symbolic.dwell_times(encoded)
    assert runs["steps"].sum() == STEPS
    np.testing.assert_allclose(runs["duration"].sum(), STEPS * 0.01)
    totals = runs["steps"].groupby(runs["symbol"]).sum()
    np.testing.assert_array_equal(totals, encoded["visits"])


def stationary(P):
    values, vectors = np.linalg.eig(P.values.T)
    v = np.real(vectors[:, np.argmax(values.real)])
    return v / v.sum()


def test_the_stationary_distribution_is_the_share_of_visits():
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES)
    share = coded["visits"].values / STEPS
    np.testing.assert_allclose(stationary(symbolic.transitions(coded)), share, atol=0.02)  # the ends of a short record
    symbol = coded["symbol"].values  # exactly, where the record ends in the symbol that it began with
    closed = symbol[: np.flatnonzero(symbol == symbol[0])[-1] + 1]
    share = np.bincount(closed[:-1]) / (len(closed) - 1)
    np.testing.assert_allclose(stationary(symbolic.transitions(closed)), share, rtol=1e-9)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2), int), np.zeros(3), np.zeros(0, int), ["a"], [True, False]])
def test_symbols_must_be_integers_in_a_row(wrong):
    with pytest.raises(ValueError, match="one row of at least one integer: got"):
        symbolic.transitions(wrong)


def test_a_dataset_without_symbols_is_named():
    with pytest.raises(ValueError, match=r"must hold 'symbol': got \['bits'\]"):
        symbolic.dwell_times(xr.Dataset({"bits": ("p", [1])}))


# graph


def test_the_graph_says_what_the_tables_say(encoded):
    graph = symbolic.transition_graph(encoded)
    P, dwell = symbolic.transitions(encoded), symbolic.run_lengths(encoded)
    assert sum(node["visits"] for _, node in graph.nodes(data=True)) == STEPS
    assert sum(count for *_, count in graph.edges(data="count")) == STEPS - 1
    for i in graph:
        node, out = graph.nodes[i], [edge for *_, edge in graph.out_edges(i, data=True)]
        assert node["bits"] == "".join("01"[int(b)] for b in encoded["bits"].values[i])
        assert node["mean_y"] == encoded["mean"].sel(region=i, variable="y")
        assert node["share"] == node["visits"] / STEPS
        assert node.get("dwell_mean", np.nan) == pytest.approx(float(dwell["mean"][i]), nan_ok=True)
        if out:
            assert sum(edge["probability"] for edge in out) == pytest.approx(1)
        exits = [edge["exit_probability"] for edge in out if "exit_probability" in edge]
        if exits:
            assert sum(exits) == pytest.approx(1)
    for i, j, edge in graph.edges(data=True):
        if i in P["from"] and j in P["to"] and not P.attrs["left_out"]:
            assert edge["probability"] == pytest.approx(float(P.sel({"from": i, "to": j})))
        assert ("exit_probability" in edge) == (i != j)
    assert graph.graph["time_unit"] == "s" and graph.graph["steps"] == STEPS


# files


@pytest.mark.parametrize("clock", [CLOCK, Clock(0.01, "2020-01-01T00:00:00.123456789", "datetime")])
@pytest.mark.parametrize("name", CELLS)
def test_netcdf_gives_back_what_was_written(name, clock, tmp_path):
    series = labelled(VALUES, NAMES, clock, units=UNITS)
    coded = symbolic.encode(reconstruction(CELLS[name], clock), series)
    path = symbolic.write_symbols(coded, tmp_path / "symbols.nc")
    back = symbolic.read_symbols(path)
    xr.testing.assert_identical(back, coded)
    assert {k: v.dtype for k, v in back.items()} == {k: v.dtype for k, v in coded.items()}
    with xr.open_dataset(path, engine="h5netcdf") as file:
        np.testing.assert_allclose(file["transition_probability"].sum("to"), 1.0)
        dwell = symbolic.run_lengths(coded)
        np.testing.assert_array_equal(file["dwell_mean"], dwell["mean"])
    assert [p.name for p in tmp_path.iterdir()] == ["symbols.nc"]


def test_graphml_gives_back_what_was_written(encoded, tmp_path):
    graph = symbolic.transition_graph(encoded)
    back = symbolic.read_graphml(symbolic.write_graphml(graph, tmp_path / "graph.graphml"))
    assert isinstance(back, nx.DiGraph)
    assert dict(back.nodes(data=True)) == dict(graph.nodes(data=True))
    assert {(i, j): e for i, j, e in back.edges(data=True)} == {(i, j): e for i, j, e in graph.edges(data=True)}
    assert back.graph == graph.graph
    assert [p.name for p in tmp_path.iterdir()] == ["graph.graphml"]


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.nc").mkdir()
    graph = symbolic.transition_graph(coded)
    for write, what in ((symbolic.write_symbols, coded), (symbolic.write_graphml, graph)):
        for name in ("file/out.nc", "missing/out.nc", "folder.nc"):
            with pytest.raises(OSError, match=name):
                write(what, tmp_path / name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.nc"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "graph.graphml"
    path.write_text("old")
    with pytest.raises(nx.NetworkXError, match="does not support"):
        symbolic.write_graphml(nx.DiGraph(bad={"a": {1}}), path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_foreign_netcdf_is_named(tmp_path):
    xr.Dataset({"a": ("t", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other.nc holds no symbols: it lacks \['symbol'"):
        symbolic.read_symbols(tmp_path / "other.nc")
