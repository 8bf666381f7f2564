"""Symbols of a piecewise-linear map: the laws of encode, dwell times, transitions, graph and words; files."""

import json
import shutil
import subprocess
from collections import Counter

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
from dsrecon.symbolic import words

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


# words

GOLDEN = (1 + np.sqrt(5)) / 2


def golden_mean_sequence(steps):
    """0 and 1 without "11", of the greatest entropy: Parry's measure, whose rate is ln of the golden mean."""
    draws, state, out = np.random.default_rng(0).random(steps), 0, np.empty(steps, int)
    for t, draw in enumerate(draws):
        state = int(state == 0 and draw > 1 / GOLDEN)
        out[t] = state
    return out


COIN = np.random.default_rng(1).integers(0, 2, 10_000)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_word_counts_are_those_of_a_plain_count(length):
    rng = np.random.default_rng(length)
    values = rng.choice([-3, 0, 7, 40], 500, p=[0.5, 0.3, 0.1, 0.1])
    wanted = Counter(tuple(values[i : i + length].tolist()) for i in range(500 - length + 1))
    table = symbolic.word_counts(values, length)
    assert {tuple(w): c for w, c in zip(table["symbols"].values.tolist(), table["count"].values, strict=True)} == wanted
    assert [tuple(map(int, name.split())) for name in table["word"].values] == [w for w, _ in wanted.most_common()]
    np.testing.assert_allclose(table["share"].sum(), 1.0, rtol=1e-14)
    assert table.attrs["windows"] == 501 - length


def test_block_entropies_are_those_of_the_word_counts():
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES)
    table = symbolic.block_entropies(coded, 6)
    for length in range(1, 7):
        share = symbolic.word_counts(coded, length)["share"].values
        np.testing.assert_allclose(table["entropy"].sel(length=length), -(share * np.log(share)).sum(), rtol=1e-12)
        assert table["words"].sel(length=length) == len(share)
    np.testing.assert_allclose(table["rate"].values.cumsum(), table["entropy"], rtol=1e-12)
    assert (table.attrs["time_step"], table.attrs["time_unit"], table.attrs["steps"]) == (0.01, "s", STEPS)


def test_words_do_not_care_what_the_symbols_are_called():
    renamed = symbolic.block_entropies(np.array([40, -2])[COIN], 9)
    xr.testing.assert_allclose(renamed, symbolic.block_entropies(COIN, 9), rtol=1e-13)


def test_the_rate_of_a_coin_is_ln_2_where_it_may_be_read_and_falls_below_where_not():
    table = symbolic.block_entropies(COIN, 18)
    reliable, rate = table["reliable"].values, table["rate"].values
    last = int(np.argmin(reliable))
    assert 8 <= last <= np.log(len(COIN)) / np.log(2) and not reliable[last:].any()
    np.testing.assert_allclose(rate[:8], np.log(2), rtol=0.02)  # the bias at length 8: 2^7 words in 20,000 is 1 %
    assert (np.abs(rate[reliable] / np.log(2) - 1) < 0.11).all()  # the tenth that `reliable` bears, and the draw
    assert (rate[14:] < 0.3 * np.log(2)).all()
    assert (table["entropy"] <= np.log(len(COIN))).all()


def test_the_bias_is_what_the_entropy_of_short_records_lacks():
    lacking = []
    for seed in range(200):
        table = symbolic.block_entropies(np.random.default_rng(seed).integers(0, 2, 500), 4)
        lacking.append(4 * np.log(2) - float(table["entropy"][3]))
    predicted = float(table["bias"][3])  # 15 / (2 * 497): every word is seen
    assert np.mean(lacking) == pytest.approx(predicted, rel=0.15)  # windows overlap, and 200 records: 5 % each


@pytest.mark.parametrize("word", [[0], [0, 1], [0, 0, 1, 2, 1]])
def test_a_periodic_sequence_has_ln_period_and_rate_zero(word):
    steps = 1000 * len(word)
    table = symbolic.block_entropies(np.tile(word, 1000), 8)
    longer = table.sel(length=slice(len(word), None))
    np.testing.assert_allclose(longer["entropy"], np.log(len(word)), atol=10 / steps)  # windows at the end
    np.testing.assert_allclose(longer["rate"][1:], 0.0, atol=10 / steps)
    assert (longer["words"] == len(word)).all() and table["reliable"].all()


def test_the_golden_mean_shift_is_found_from_its_sequence_and_from_its_graph():
    values = golden_mean_sequence(20_000)
    table = symbolic.block_entropies(values, 6)
    np.testing.assert_allclose(table["rate"][1:], np.log(GOLDEN), rtol=0.02)  # 20,000 draws: 1 % of spread
    np.testing.assert_array_equal(table["words"], [2, 3, 5, 8, 13, 21])
    assert table["reliable"].all()
    P = symbolic.transitions(values)
    assert symbolic.topological_entropy(P) == pytest.approx(np.log(GOLDEN), rel=1e-12)
    assert symbolic.topological_entropy([[1, 1], [1, 0]]) == pytest.approx(np.log(GOLDEN), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_full_shift_has_ln_of_its_symbols(size):
    assert symbolic.topological_entropy(np.ones((size, size), bool)) == pytest.approx(np.log(size), abs=1e-12)


@pytest.mark.parametrize("name", ["alrnn", "alrnn, linear"])
def test_graph_matrix_and_counts_say_the_same_and_bound_the_rate(name):
    encoded = symbolic.encode(reconstruction(CELLS[name]), SERIES)
    graph = symbolic.transition_graph(encoded)
    wanted = symbolic.topological_entropy(graph)
    P = symbolic.transitions(encoded)
    assert symbolic.topological_entropy(P) == pytest.approx(wanted, abs=1e-12)
    assert symbolic.topological_entropy(P["count"].values) == pytest.approx(wanted, abs=1e-12)
    B = (P.values > 0).astype(float)
    paths = [np.linalg.matrix_power(B, n).sum() for n in (200, 201)]  # of n steps; it grows by the spectral radius
    if wanted > 0.1:
        assert np.log(paths[1] / paths[0]) == pytest.approx(wanted, rel=1e-2)
    p = stationary(P)
    rate = -np.nansum(p[:, None] * P.values * np.log(np.where(P.values > 0, P.values, 1)))
    assert rate <= wanted + 1e-12


def test_the_largest_component_counts_and_what_lies_between_does_not():
    full, cycle = np.ones((3, 3)), np.roll(np.eye(4), 1, axis=1)
    both = np.zeros((8, 8))
    both[:3, :3], both[3:7, 3:7], both[2, 3], both[6, 7] = full, cycle, 1, 1
    shuffled = np.random.default_rng(0).permutation(8)
    for B in (both, both[np.ix_(shuffled, shuffled)]):
        assert symbolic.topological_entropy(B) == pytest.approx(np.log(3), rel=1e-12)
    assert symbolic.topological_entropy(cycle) == 0.0
    assert symbolic.topological_entropy(np.triu(np.ones((4, 4)), 1)) == -np.inf  # every path ends
    assert symbolic.topological_entropy(nx.DiGraph()) == -np.inf
    assert symbolic.topological_entropy(symbolic.transitions([1, 2, 3])) == -np.inf


def test_the_root_of_a_large_component_is_that_of_all_eigenvalues(monkeypatch):
    rng = np.random.default_rng(0)
    B = np.roll(np.eye(150), 1, axis=1) + (rng.random((150, 150)) < 0.01)
    wanted = symbolic.topological_entropy(B)
    monkeypatch.setattr(words, "_DENSE", 10)
    assert symbolic.topological_entropy(B) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symbolic.word_counts(WORD, 0), "length must lie between 1 and the 12 steps of symbols: got 0"),
        (lambda: symbolic.word_counts(WORD, 13), "length must lie between 1 and the 12 steps of symbols: got 13"),
        (lambda: symbolic.block_entropies(WORD, 13), "max_length must lie between 1 and the 12 steps .*: got 13"),
        (lambda: symbolic.block_entropies([0.5], 1), "one row of at least one integer: got float64"),
        (lambda: symbolic.topological_entropy(np.ones((2, 3))), r"a square matrix: got float64 of shape \(2, 3\)"),
        (lambda: symbolic.topological_entropy([[1, -1], [0, 1]]), "finite and not negative"),
        (lambda: symbolic.topological_entropy(nx.Graph([(0, 1)])), "must be directed"),
    ],
)
def test_words_name_what_came_in(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# files


def same_graph(one, two):
    """Nodes, edges and attributes, in order and with their types; NaN equals NaN."""

    def flat(graph):
        parts = [graph.graph, *(dict(a, node=n) for n, a in graph.nodes(data=True))]
        parts += [dict(a, source=i, target=j) for i, j, a in graph.edges(data=True)]
        return [{k: (type(v), repr(v)) for k, v in part.items()} for part in parts]

    return type(one) is type(two) and flat(one) == flat(two)


SYMBOLS, GRAPHS = (
    ("symbols.nc", "symbols.json", "symbols.csv"),
    ("graph.graphml", "graph.dot", "graph.json", "graph.mmd"),
)


def kept(coded, name):
    return coded[["symbol", "observation"]] if name.endswith(".csv") else coded


def bits(dataset):
    """Every array as bytes: NaN and -0.0 told apart."""
    return {
        k: (v.dtype, v.shape, v.values.tobytes() if v.dtype.kind not in "UO" else v.values.tolist())
        for k, v in dataset.variables.items()
    }


@pytest.mark.parametrize("clock", [CLOCK, Clock(0.01, "2020-01-01T00:00:00.123456789", "datetime"), Clock()])
@pytest.mark.parametrize("name", CELLS)
def test_every_form_of_symbols_gives_back_what_was_written(name, clock, tmp_path):
    series = labelled(VALUES, NAMES, clock, units=UNITS if clock.unit else ())
    coded = symbolic.encode(reconstruction(CELLS[name], clock), series)
    for file in SYMBOLS:
        back = symbolic.read_symbols(symbolic.write_symbols(coded, tmp_path / file))
        wanted = kept(coded, file)
        xr.testing.assert_identical(back, wanted)
        if not file.endswith(".nc"):  # netCDF has no strings of fixed length
            assert bits(back) == bits(wanted)
        assert {k: v.dtype for k, v in back.items()} == {k: v.dtype for k, v in wanted.items()}
        assert {k: type(v) for k, v in back.attrs.items()} == {k: type(v) for k, v in coded.attrs.items()}
        xr.testing.assert_identical(symbolic.run_lengths(back), symbolic.run_lengths(coded))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(SYMBOLS)


def test_netcdf_holds_the_tables_that_follow(encoded, tmp_path):
    path = symbolic.write_symbols(encoded, tmp_path / "symbols.nc")
    with xr.open_dataset(path, engine="h5netcdf") as file:
        np.testing.assert_allclose(file["transition_probability"].sum("to"), 1.0)
        np.testing.assert_array_equal(file["dwell_mean"], symbolic.run_lengths(encoded)["mean"])


def test_single_precision_and_special_floats_come_back_bit_for_bit(tmp_path):
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES)
    special = np.array([-0.0, 5e-324, np.nan, np.inf, -np.inf, 0.1, 1e308, np.nextafter(1, 2), 3.0])
    for dtype in (np.float64, np.float32):
        with np.errstate(over="ignore"):  # 1e308 in single precision
            odd = coded.assign(observation=coded["observation"].astype(dtype), A=coded["A"].astype(dtype))
            odd["observation"].values[: len(special), 0] = special
            odd["A"].values[0, 0, : len(special)] = special
        for file in SYMBOLS:
            back = symbolic.read_symbols(symbolic.write_symbols(odd, tmp_path / file))
            for part in ("observation", "A")[: len(kept(odd, file)) - 1][:2]:
                if part in back:
                    assert back[part].dtype == dtype
                    assert back[part].values.tobytes() == odd[part].values.tobytes(), (file, part)
    assert "NaN" not in (tmp_path / "symbols.json").read_text()


@pytest.mark.parametrize("file", GRAPHS)
def test_every_form_of_graph_gives_back_what_was_written(encoded, file, tmp_path):
    graph = symbolic.transition_graph(encoded)
    assert same_graph(symbolic.read_graph(symbolic.write_graph(graph, tmp_path / file)), graph)
    assert [p.name for p in tmp_path.iterdir()] == [file]


def test_graphml_opens_in_networkx_and_its_own_doors_take_any_ending(encoded, tmp_path):
    graph = symbolic.transition_graph(encoded)
    path = symbolic.write_graphml(graph, tmp_path / "graph.xml")
    assert same_graph(symbolic.read_graphml(path), graph)
    opened = nx.read_graphml(path, node_type=int)
    assert dict(opened.nodes(data=True)) == dict(graph.nodes(data=True)) and dict(opened.edges) == dict(graph.edges)


def test_the_json_of_a_graph_is_node_link_for_networkx(encoded, tmp_path):
    graph = symbolic.transition_graph(encoded)
    document = json.loads(symbolic.write_graph(graph, tmp_path / "graph.json").read_text())
    assert (document.pop("format"), document.pop("version")) == ("dsrecon-graph", 1)
    assert same_graph(nx.node_link_graph(document, edges="edges"), graph)


ALPHABET = [
    *"abZ09 .,;:'\"`\\/|<>&%#{}[]()=-_+*?!$\n\t\r",
    "\\n",
    "\\N",
    "->",
    "//",
    "&amp;",
    "é",
    "ß",
    "Ω",
    "漢",
    "🜁",
    "‮",
]
CONTROL = ["\0", "\x07", "\x1b", "\ud800"]


def random_texts(rng, count, letters=ALPHABET):
    """Strings that no format expects, all different; the last two look like a number and like nothing."""
    found = {"".join(rng.choice(letters, rng.integers(1, 12))) for _ in range(count)}
    return [*sorted(found - {"0", ""}), "0", ""]


def random_graph(rng, names, texts, values):
    graph = nx.DiGraph()
    graph.graph.update({t: values[rng.integers(len(values))] for t in rng.choice(texts, 4)})
    for name in names:
        graph.add_node(name)
        graph.nodes[name].update({t: values[rng.integers(len(values))] for t in rng.choice(texts, 3)})
    for _ in range(2 * len(names)):
        i, j = (names[rng.integers(len(names))] for _ in "ij")
        graph.add_edge(i, j)
        graph.edges[i, j].update({t: values[rng.integers(len(values))] for t in rng.choice(texts, 3)})
    return graph


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("file", GRAPHS)
def test_names_and_texts_of_any_kind_survive_in_a_graph(file, seed, tmp_path):
    rng = np.random.default_rng(seed)
    xml = file.endswith(".graphml")
    texts = random_texts(rng, 30, ALPHABET if xml else ALPHABET + CONTROL)
    numbers = [0, -7, 2**40, 0.1, -0.0, 1e-300, np.nan, np.inf, -np.inf, True, False]
    names = list(range(-2, 5)) if xml else [*texts[:8], *range(-2, 5)]  # "0" and 0 are two nodes
    graph = random_graph(rng, names, texts, [*texts, *numbers])
    graph.add_node(0, label='"; 1 -> 2 [data="{}"]; }', probability="often", share="a lot")
    if not xml:
        graph.add_edge("0", 0)
    assert same_graph(symbolic.read_graph(symbolic.write_graph(graph, tmp_path / file)), graph)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("file", SYMBOLS)
def test_names_and_texts_of_any_kind_survive_in_symbols(file, seed, tmp_path):
    rng = np.random.default_rng(seed)
    letters = {"symbols.json": ALPHABET + CONTROL, "symbols.csv": [*ALPHABET, *CONTROL[:-1]]}.get(file, ALPHABET)
    first, second, third, unit, about = rng.permutation(random_texts(rng, 30, letters)[:-1])[:5].tolist()
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES[:50])
    coded = coded.assign_coords(variable=[first, second, third], unit=("variable", [unit, "", "m"]))
    coded.attrs["time_unit"] = about
    back = symbolic.read_symbols(symbolic.write_symbols(coded, tmp_path / file))
    xr.testing.assert_identical(back, kept(coded, file))


@pytest.mark.parametrize("file", [*SYMBOLS, *GRAPHS])
def test_a_file_cut_off_anywhere_is_refused_by_name(file, tmp_path):
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES[:40])
    graph = symbolic.transition_graph(coded)
    write, read, what = (
        (symbolic.write_symbols, symbolic.read_symbols, coded)
        if file in SYMBOLS
        else (symbolic.write_graph, symbolic.read_graph, graph)
    )
    whole = write(what, tmp_path / file).read_bytes()
    count = 15 if file.endswith("nc") else 60
    cuts = {0, 1, len(whole) - 2, *np.random.default_rng(0).integers(0, len(whole) - 2, count).tolist()}
    if file.endswith("csv"):
        cuts.add(len(whole) - 1)
    for cut in cuts:
        (tmp_path / file).write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=file):
            read(tmp_path / file)


FOREIGN = {
    "other.json": '{"a": 1}',
    "list.json": "[1, 2]",
    "constant.json": '{"format": "dsrecon-symbols", "version": 1, "attributes": {"a": NaN}}',
    "later.json": '{"format": "dsrecon-symbols", "version": 2}',
    "empty.json": '{"format": "dsrecon-symbols", "version": 1, "attributes": {}, "variables": {}, "coordinates": {}}',
    "deep.json": "[" * 100_000,
    "other.csv": "time,x\n0,1\n",
    "bytes.csv": "\x00\x01",
    "other.dot": "digraph G { a -> b; }",
    "no.dot": "strict graph { a -- b }",
    "other.mmd": "flowchart LR\n  a --> b\n",
    "later.mmd": "%% dsrecon-graph 2\nflowchart LR\n%% graph []\n%% end\n",
    "unknown.mmd": "%% dsrecon-graph 1\nflowchart LR\n%% graph []\n%% edge 0 1 []\n%% end\n",
    "twice.mmd": '%% dsrecon-graph 1\n%% graph []\n%% node 0 [["a", 1], ["a", 2]]\n%% end\n',
    "bare.dot": "digraph transitions {\n  0;\n}\n",
    "unknown.dot": 'digraph transitions {\n 0 -> 1 [data="{}"];\n}\n',
    "other.graphml": "<html><body/></html>",
    "words.graphml": "no XML",
    "undirected.graphml": '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    '<graph edgedefault="undirected"/></graphml>',
    "names.graphml": '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed">'
    '<node id="a"/></graph></graphml>',
    "words.nc": "no HDF5",
}


@pytest.mark.parametrize("file", FOREIGN)
def test_a_foreign_file_is_refused_by_name(file, tmp_path):
    (tmp_path / file).write_text(FOREIGN[file])
    read = symbolic.read_graph if file.endswith(("dot", "graphml", "mmd")) else symbolic.read_symbols
    with pytest.raises(ValueError, match=file):
        read(tmp_path / file)


def damaged(document, path, value):
    *way, last = path
    for step in way:
        document = document[step]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "is version 2 of its format: this dsrecon reads up to 1"),
        (("version",), True, "is version True"),
        (("variables", "symbol", "values"), [0.5] * 40, "type int64 must not hold .'float'"),
        (("variables", "symbol", "values"), [0] * 39, r"shape \(40,\): got \(39,\)"),
        (("variables", "symbol", "type"), "object", "type must be one of .*'object'"),
        (("variables", "visits", "type"), "int8", "visits|int8"),
        (("variables", "observation", "dims"), ["time"], "is damaged"),
        (("variables", "A"), None, "is damaged"),
        (("attributes", "steps"), [1], "'steps' must be a string, a number"),
    ],
)
def test_damage_inside_json_is_named(path, value, message, tmp_path):
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES[:40])
    coded["visits"].values[0] += 1000 if "int8" in str(value) else 0
    file = symbolic.write_symbols(coded, tmp_path / "symbols.json")
    document = json.loads(file.read_text())
    damaged(document, path, value)
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message) as error:
        symbolic.read_symbols(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": [{"id": 0}, {"id": 0}]}, "node 0 occurs twice"),
        ({"nodes": [{"id": 0.5}], "edges": []}, "nodes must be integers or strings: got 0.5"),
        ({"edges": [{"source": 0, "target": 99}]}, "from 0 to 99 occurs twice, or between unknown nodes"),
        ({"directed": False}, "must be directed"),
        ({"edges": 3}, "is damaged: TypeError"),
    ],
)
def test_damage_inside_the_json_of_a_graph_is_named(change, message, tmp_path):
    file = symbolic.write_graph(nx.DiGraph([(0, 1)]), tmp_path / "graph.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message) as error:
        symbolic.read_graph(file)
    assert str(file) in str(error.value)


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES)
    graph = symbolic.transition_graph(coded)
    (tmp_path / "file").write_text("in the way")
    for write, what, files in (
        (symbolic.write_symbols, coded, SYMBOLS),
        (symbolic.write_graph, graph, GRAPHS),
        (symbolic.write_graphml, graph, ("g",)),
    ):
        for file in files:
            (tmp_path / f"folder-{file}").mkdir(exist_ok=True)
            for name in (f"file/{file}", f"missing/{file}", f"folder-{file}"):
                with pytest.raises(OSError, match=name):
                    write(what, tmp_path / name)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["file"]


@pytest.mark.parametrize("file", GRAPHS)
def test_a_failed_write_leaves_the_old_file(file, tmp_path):
    (tmp_path / file).write_text("old")
    for graph, message in (
        (nx.DiGraph(bad={"a": {1}}), "attribute 'bad' must be a string, a number or a truth value: got {'a'"),
        (nx.MultiDiGraph(), "must be a networkx.DiGraph: got MultiDiGraph"),
    ):
        with pytest.raises(ValueError, match=message):
            symbolic.write_graph(graph, tmp_path / file)
    assert (tmp_path / file).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_a_form_cannot_hold_is_refused_not_lost(tmp_path):
    text, control = nx.DiGraph(), nx.DiGraph()
    text.add_node("a")
    control.add_node(0, unit="\0")
    taken, reserved = nx.DiGraph(), nx.DiGraph(id="mine")
    taken.add_node(0, id=3)
    for graph, file, message in (
        (text, "graph.graphml", "nodes must be integers in GraphML: got 'a'"),
        (control, "graph.graphml", "no control characters"),
        (reserved, "graph.graphml", "graph attribute 'id' is taken"),
        (taken, "graph.json", "node attribute 'id' is taken"),
        (text, "graph.svg", "must end in one of .graphml, .json, .dot, .mmd: got '.svg'"),
    ):
        with pytest.raises(ValueError, match=message):
            symbolic.write_graph(graph, tmp_path / file)
    coded = symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES[:40])
    for wrong, file, message in (
        (coded, "symbols", "must end in one of .nc, .json, .csv: got 'no ending'"),
        (coded.drop_vars("A"), "symbols.json", r"lacks \['A'\]"),
        (coded.drop_vars("symbol"), "symbols.csv", r"lacks \['symbol'\]"),
        (coded.assign_attrs(list=[1]), "symbols.json", "'list' must be a string"),
    ):
        with pytest.raises(ValueError, match=message):
            symbolic.write_symbols(wrong, tmp_path / file)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_netcdf_is_named(tmp_path):
    xr.Dataset({"a": ("t", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other.nc holds no symbols: it lacks \['symbol'"):
        symbolic.read_symbols(tmp_path / "other.nc")
    for read, name in ((symbolic.read_symbols, "no.json"), (symbolic.read_graph, "no.dot")):
        with pytest.raises(FileNotFoundError, match=name):
            read(tmp_path / name)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz (dot) is not installed")
def test_graphviz_draws_what_was_written_and_what_it_lays_out_is_read_back(tmp_path):
    graph = symbolic.transition_graph(symbolic.encode(reconstruction(CELLS["alrnn"]), SERIES))
    rng = np.random.default_rng(0)
    odd = random_graph(rng, [0, 'a "b"\\', "c\n<d>&é"], random_texts(rng, 9), ["\\", 1.5])
    for name, shown in (("graph.dot", graph), ("odd.dot", odd)):
        path = symbolic.write_graph(shown, tmp_path / name)
        drawn = subprocess.run(["dot", "-Tsvg", path], capture_output=True, timeout=120)
        assert drawn.returncode == 0 and not drawn.stderr, drawn.stderr
        assert drawn.stdout.count(b'class="node"') == len(shown)
        laid_out = subprocess.run(["dot", "-Tdot", path], capture_output=True, timeout=120, check=True)
        (tmp_path / "out.dot").write_bytes(laid_out.stdout)
        back = symbolic.read_graph(tmp_path / "out.dot")
        assert dict(back.nodes(data=True)) == dict(shown.nodes(data=True)) and dict(back.edges) == dict(shown.edges)
