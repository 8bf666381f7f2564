"""Symbols of maps: bounds from words, Markov partitions, kneading, semi-Markov stays, the graph as a whole."""

import itertools
import math

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import xarray as xr

from dsrecon import evolve, symbolic
from dsrecon.models import ALRNN
from dsrecon.pwl import words
from dsrecon.symbolic.kneading import order
from dsrecon.systems import Baker, Henon, Lozi, SkewTent, Tent

GOLDEN = (1 + 5**0.5) / 2
UNIT = ([0.0], [1.0])
CORE = ([GOLDEN * (1 - GOLDEN / 2)], [GOLDEN / 2])
SQUARE = ([0.0, 0.0], [1.0, 1.0])
EXACT = {  # cell, box, topological entropy
    "full": (Tent(), UNIT, math.log(2)),
    "golden": (Tent(GOLDEN), CORE, math.log(GOLDEN)),
    "golden on [0, 1]": (Tent(GOLDEN), UNIT, math.log(GOLDEN)),
    "skew": (SkewTent(), UNIT, math.log(2)),
    "slope 1.5": (Tent(1.5), UNIT, math.log(1.5)),
}


# bounds


@pytest.mark.parametrize("name", EXACT)
def test_bounds_fall_towards_the_entropy_from_above(name):
    cell, box, exact = EXACT[name]
    table = symbolic.entropy_bounds(cell, 12, box=box)
    per_symbol, block, upper = (table[k].values for k in ("per_symbol", "block", "upper"))
    assert (per_symbol >= exact - 1e-12).all() and (block >= exact - 1e-12).all()
    assert (np.diff(per_symbol) <= 1e-12).all() and (np.diff(block) <= 1e-12).all()
    assert (block <= per_symbol + 1e-12).all() and (upper >= per_symbol).all()
    assert block[-1] - exact < 0.01


def test_words_of_the_tents_are_powers_of_two_and_fibonacci_numbers():
    full = symbolic.entropy_bounds(Tent(), 12, box=UNIT)
    np.testing.assert_array_equal(full["words"], 2 ** np.arange(1, 13))
    golden = symbolic.entropy_bounds(Tent(GOLDEN), 16, box=CORE)
    np.testing.assert_array_equal(golden["words"][:6], [2, 3, 5, 8, 13, 21])
    assert int(golden["words"][-1]) == 2584 and golden.attrs["regions"] == 2
    assert abs(float(golden["block"][1]) - math.log(GOLDEN)) < 1e-12


@pytest.mark.parametrize(
    ("cell", "box", "length"),
    [(Tent(1.7), UNIT, 7), (SkewTent(), ([-1.0], [2.0]), 5), (Tent(1.3), None, 6)],
    ids=["tent", "skew tent beyond", "tent, all of the line"],
)
def test_intervals_and_linear_programmes_count_the_same_words(cell, box, length):
    table = symbolic.entropy_bounds(cell, length, box=box)
    found = [words(cell, k, box=box) for k in range(1, length + 1)]
    assert table["words"].values.tolist() == [len(w) for w in found]
    narrowest = [w.radius.min() for w in found]  # of a ball in each, which is not always the largest
    np.testing.assert_allclose(table["narrowest"][1:], narrowest[1:], rtol=1e-6)
    assert float(table["narrowest"][0]) >= narrowest[0]


@pytest.mark.parametrize("cell", [Lozi(), ALRNN(3, 1, key=jax.random.key(4))], ids=["Lozi", "AL-RNN"])
def test_in_more_units_block_is_the_graph_of_admissible_words(cell):
    size = cell.state_size
    box = (np.full(size, -1.5), np.full(size, 1.5))
    table = symbolic.entropy_bounds(cell, 5, box=box)
    for length in range(2, 6):
        found = [tuple(map(tuple, bits.tolist())) for bits in words(cell, length, box=box).bits]
        assert len(found) == int(table["words"][length - 1])
        graph = nx.DiGraph((word[:-1], word[1:]) for word in found)
        shorter = {tuple(map(tuple, bits.tolist())) for bits in words(cell, length - 1, box=box).bits}
        wanted = symbolic.topological_entropy(graph.subgraph(shorter))
        assert float(table["block"][length - 1]) == pytest.approx(wanted, abs=1e-9)
    assert (np.diff(table["block"]) <= 1e-12).all()


def test_the_bound_of_lozi_lies_above_the_words_that_its_orbit_shows():
    x = np.asarray(evolve(Lozi(), jnp.array(Lozi.start), steps=20_000).zs)[1000:, 0]
    seen = symbolic.seen_words((x > 0).astype(int), 7)
    table = symbolic.entropy_bounds(Lozi(), 7)
    assert (table["words"].values >= seen["words"].values).all()
    assert float(table["block"][-1]) > 0.47023  # the entropy of its orbits, by Pesin's formula


def test_too_many_words_are_refused_with_the_length_that_was_reached():
    with pytest.raises(ValueError, match="64 words of length 6, more than limit=40: take max_length=5"):
        symbolic.entropy_bounds(Tent(), 9, box=UNIT, limit=40)
    with pytest.raises(ValueError, match="max_length must be at least 1: got 0"):
        symbolic.entropy_bounds(Tent(), 0, box=UNIT)
    with pytest.raises(ValueError, match="must be piecewise linear"):
        symbolic.entropy_bounds(Henon().cell(), 3)


def test_henon_by_words_seen():
    x = np.asarray(evolve(Henon().cell(), jnp.array(Henon.start), steps=200_000).zs)[1000:, 0]
    table = symbolic.seen_words((x > 0).astype(int), 12)
    assert table["words"].values.tolist() == [2, 4, 8, 13, 21, 33, 53, 84, 133, 216, 349, 552]
    late = slice(5, 12)
    slope = np.polyfit(np.arange(6, 13), np.log(table["words"][late]), 1)[0]
    assert abs(slope - 0.465) < 0.02 and (np.abs(table["increment"][late] - 0.465) < 0.021).all()
    assert int(table["once"][-1]) < 3
    with pytest.raises(ValueError, match="max_length must lie between 1 and the 5 steps"):
        symbolic.seen_words(np.arange(5), 6)


# Markov partitions


@pytest.mark.parametrize("name", ["full", "golden", "golden on [0, 1]", "skew"])
def test_markov_partitions_give_the_exact_entropy(name):
    cell, box, exact = EXACT[name]
    found = symbolic.markov_partition(cell, box)
    assert found.markov and abs(found.entropy - exact) < 1e-12
    assert found.refined == (name == "golden on [0, 1]")
    assert abs(found.metric_entropy - cell.exponents[0]) < 1e-12  # Rokhlin's formula
    np.testing.assert_allclose(found.probability.sum(1), 1, atol=1e-12)


def test_the_bakers_map_is_markov_and_its_entropies_are_exact():
    found = symbolic.markov_partition(Baker(), SQUARE)
    assert found.markov and abs(found.entropy - math.log(2)) < 1e-12
    assert abs(found.metric_entropy - Baker().exponents[0]) < 1e-12


def test_paths_through_a_markov_partition_are_the_admissible_words():
    cell, box, _ = EXACT["golden"]
    found = symbolic.markov_partition(cell, box)
    paths = [
        w for w in itertools.product(range(2), repeat=6) if all(found.adjacency[a, b] for a, b in itertools.pairwise(w))
    ]
    spelt = {tuple(map(tuple, found.bits[list(w)].tolist())) for w in paths}
    assert spelt == {tuple(map(tuple, bits.tolist())) for bits in words(cell, 6, box=box).bits}


def test_what_is_no_markov_partition_says_where_and_has_no_entropy():
    found = symbolic.markov_partition(Tent(1.5), UNIT)
    assert not found.markov and "0 .. 0.75 of region 0 ends inside region 1" in found.why and "256" in found.why
    for name in ("entropy", "metric_entropy"):
        with pytest.raises(ValueError, match="must be Markov for an exact entropy"):
            getattr(found, name)
    coarse = symbolic.markov_partition(Tent(GOLDEN), UNIT, refine=False)
    assert not coarse.markov and "256" not in coarse.why


@pytest.mark.parametrize(
    ("cell", "box", "said"),
    [
        (Lozi(), ([-1.0, -1.0], [1.0, 1.0]), "diagonal map in every region"),
        (ALRNN(2, 2, key=jax.random.key(0)), ([-1.0, -1.0], [1.0, 1.0]), "diagonal map in every region"),
        (Tent(), ([0.0], [0.8]), "box must be one that the map does not lead out of"),
        (Tent(), None, "box must be given on which the partition is asked for"),
    ],
    ids=["Lozi", "AL-RNN", "not invariant", "no box"],
)
def test_partitions_that_are_not_decided_are_refused(cell, box, said):
    with pytest.raises(ValueError, match=said):
        symbolic.markov_partition(cell, box)


# kneading


@pytest.mark.parametrize("slope", [1.2, 2**0.5, 1.5, GOLDEN, 1.7, 1.9, 2.0])
def test_the_kneading_determinant_of_a_tent_gives_the_log_of_its_slope(slope):
    assert symbolic.kneading(Tent(slope), UNIT).entropy == pytest.approx(math.log(slope), abs=1e-9)


def test_kneading_sequences_are_exact():
    assert symbolic.kneading(Tent(), UNIT, length=8).text == "RLLLLLLL"
    periodic = symbolic.kneading(Tent(1.5), UNIT, length=5)
    assert periodic.text == "RLRRR" and not periodic.periodic and periodic.turn == 0.5 and periodic.rises
    x, seen = Tent(1.5), []  # the float orbit agrees as long as rounding lets it
    z = jnp.array([0.75])
    for _ in range(30):
        seen.append(int(z[0] > 0.5))
        z = x(z)
    np.testing.assert_array_equal(symbolic.kneading(Tent(1.5), UNIT, length=30).symbols, seen)


@pytest.mark.parametrize("slope", [1.5, 1.7, 1.9])
def test_itineraries_that_kneading_allows_are_the_admissible_words(slope):
    found = symbolic.kneading(Tent(slope), UNIT)
    allowed = {w for w in itertools.product((0, 1), repeat=7) if found.allows(np.array(w))}
    by_solving = {
        tuple(bits[:, 0].astype(int).tolist()) for bits in words(Tent(slope), 7, box=([0.0], [slope / 2])).bits
    }
    assert allowed == by_solving


def test_itineraries_are_ordered_as_points_are():
    rng, cell = np.random.default_rng(0), Tent(1.8)
    points = np.sort(rng.uniform(0.05, 0.95, 40))
    paths = np.stack([np.r_[z, np.asarray(evolve(cell, jnp.array([z]), steps=25).zs)[:, 0]] > 0.5 for z in points])
    for first, second in itertools.pairwise(paths.astype(int)):
        assert order(first, second, (1, -1)) <= 0
    assert order([1], [1, 0], (1, -1)) == 0


def test_kneading_refuses_what_it_is_not_defined_for():
    for cell, box, said in [
        (Lozi(), None, "a map of one unit"),
        (Tent(), ([0.0], [0.4]), "turns 0 times"),
        (ALRNN(1, 0, key=jax.random.key(0)), None, "turns 0 times"),
    ]:
        with pytest.raises(ValueError, match=said):
            symbolic.kneading(cell, box)
    with pytest.raises(ValueError, match="length must be at least 1"):
        symbolic.kneading(Tent(), UNIT, length=0)
    with pytest.raises(ValueError, match="0 and 1"):
        symbolic.kneading(Tent(), UNIT).allows(np.array([0, 2]))


# semi-Markov


def planted(stays: int, seed: int = 0) -> np.ndarray:
    """Geometric, negative binomial and constant stays, and known exits."""
    rng, state, runs = np.random.default_rng(seed), 0, []
    exits = np.array([[0, 0.7, 0.3], [0.5, 0, 0.5], [0.2, 0.8, 0]])
    for _ in range(stays):
        length = {0: rng.geometric(0.1), 1: 1 + rng.negative_binomial(5, 0.3), 2: 7}[state]
        runs.append(np.full(length, state))
        state = int(rng.choice(3, p=exits[state]))
    return np.concatenate(runs)


def test_planted_stays_and_exits_are_found_and_sampled():
    sequence = planted(6000)
    model = symbolic.semi_markov(sequence)
    np.testing.assert_allclose(model.exits, [[0, 0.7, 0.3], [0.5, 0, 0.5], [0.2, 0.8, 0]], atol=0.04)
    np.testing.assert_allclose(model.mean_dwell, [10, 1 + 5 * 0.7 / 0.3, 7], rtol=0.05)
    np.testing.assert_allclose(model.exits.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(model.dwell.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(model.shares, np.bincount(sequence) / len(sequence), atol=1e-3)
    again = symbolic.semi_markov(model.sample(len(sequence), seed=1))
    np.testing.assert_allclose(again.mean_dwell, model.mean_dwell, rtol=0.06)
    np.testing.assert_allclose(again.exits, model.exits, atol=0.05)
    assert again.entropy_rate == pytest.approx(model.entropy_rate, rel=0.05)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        model.sample(0)


def test_entropy_of_a_markov_chain_is_that_of_its_semi_markov_model():
    P = np.array([[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.3, 0.0, 0.7]])
    rng, state, out = np.random.default_rng(3), 0, np.empty(100_000, int)
    for i, u in enumerate(rng.random(len(out))):
        out[i] = state
        state = int(np.searchsorted(P[state].cumsum(), u))
    pi = np.linalg.matrix_power(P, 500)[0]
    exact = -(pi @ np.where(P > 0, P * np.log(np.where(P > 0, P, 1)), 0).sum(1))
    assert symbolic.semi_markov(out).entropy_rate == pytest.approx(exact, rel=0.01)
    assert (symbolic.dwell_models(out)["p_value"] > 1e-3).all()


def test_what_the_ends_cut_off_does_not_pass_for_whole():
    inner = [0, 0, 0, 1, 0, 0, 0, 1]
    model = symbolic.semi_markov(np.array([1] * 50 + inner + [0] * 3))
    np.testing.assert_allclose(model.dwell[0], [0, 0, 1], atol=1e-12)  # three steps cut off are no news
    np.testing.assert_allclose(model.dwell[1], [1, 0, 0], atol=1e-12)  # 50 steps of the first run are left out
    longer = symbolic.semi_markov(np.array([1, *inner] + [0] * 6))
    np.testing.assert_allclose(longer.dwell[0], [0, 0, 2 / 3, 0, 0, 1 / 3], atol=1e-12)  # of three, one went on
    assert longer.censored.tolist() == [1, 0] and longer.runs.tolist() == [2, 2]


def test_steps_that_were_cut_off_count_as_steps_at_risk():
    table = symbolic.dwell_models(np.array([0] * 5 + [1] * 4 + [0] * 6 + [1] * 2 + [0] * 9))
    assert float(table["geometric_p"][0]) == pytest.approx(1 / (6 + 8))  # one end in 6 + 8 steps at risk
    assert float(table["geometric_p"][1]) == pytest.approx(2 / 6)


def test_laws_of_stays_are_told_apart():
    table = symbolic.dwell_models(planted(4000))
    assert float(table["p_value"][0]) > 0.01 and (table["p_value"][1:] < 1e-10).all()
    assert float(table["shape"][1]) == pytest.approx(5, rel=0.2)
    assert float(table["distance_negative_binomial"][1]) < 0.03 < float(table["distance_geometric"][1])
    assert float(table["distance_negative_binomial"][2]) > 0.3  # constant stays follow neither
    assert (table["negative_binomial"] >= table["geometric"] - 1e-9).all()


def test_sequences_that_tell_nothing_of_stays_are_refused():
    for symbols, said in [
        (np.zeros(9, int), "two kinds at least: all 9 are 0"),
        (np.array([0, 0, 1, 1]), "entered and left within the record"),
        (np.array([0, 1, 0, 1, 2]), r"\[2\] is not"),
        (np.array([0.5, 1.0]), "at least one integer"),
    ]:
        for ask in (symbolic.semi_markov, symbolic.dwell_models):
            with pytest.raises(ValueError, match=said):
                ask(symbols)


# the graph as a whole


def graph_of(sequence) -> nx.DiGraph:
    symbol = np.asarray(sequence)
    visits = np.bincount(symbol)
    encoded = xr.Dataset(
        {
            "symbol": ("time", symbol),
            "visits": ("region", visits),
            "mean": (("region", "variable"), np.zeros((len(visits), 1))),
            "bits": (("region", "gate"), np.zeros((len(visits), 1), bool)),
        },
        coords={"region": np.arange(len(visits)), "variable": ["x"]},
    )
    return symbolic.transition_graph(encoded)


def test_visits_of_a_settled_sequence_are_stationary_and_of_one_that_left_are_not():
    settled = symbolic.stationary_distribution(graph_of(planted(3000)))
    assert settled.attrs["largest"] < 1e-3 and float(settled["stationary"].sum()) == pytest.approx(1)
    left = symbolic.stationary_distribution(graph_of(np.r_[np.zeros(50, int), [1, 2] * 50]))
    np.testing.assert_allclose(left["stationary"], [0, 0.5, 0.5], atol=0.01)
    assert left.attrs["largest"] == pytest.approx(1 / 3, abs=0.01)
    with pytest.raises(ValueError, match=r"has 2, \[\[1\], \[2\]\]"):
        split = graph_of([0, 1, 1, 0, 2, 2])
        split.remove_edge(1, 0)
        symbolic.stationary_distribution(split)


def test_planted_communities_are_found():
    rng = np.random.default_rng(0)
    part = np.repeat(rng.integers(0, 2, 200), 30)
    found = symbolic.communities(graph_of(3 * part + rng.integers(0, 3, len(part))))
    assert set(found.members) == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}
    assert sum(found.share) == pytest.approx(1) and min(found.stays) > 0.95 and found.modularity > 0.4
    with pytest.raises(ValueError, match="resolution must be positive"):
        symbolic.communities(graph_of([0, 1, 0]), resolution=0.0)
    assert symbolic.communities(graph_of([0, 0, 0])).members == (frozenset({0}),)


def test_shortest_cycles_come_first_and_the_likelier_before_the_rarer():
    graph = graph_of([0, 1, 0, 1, 0, 2, 0, 1, 2, 0, 0])
    found = symbolic.shortest_cycles(graph)
    assert [circle.symbols for circle in found] == [(0, 1), (0, 2), (0, 1, 2)]
    exits = symbolic.transitions([0, 1, 0, 1, 0, 2, 0, 1, 2, 0, 0], self_transitions=False).values
    assert found[0].probability == pytest.approx(exits[0, 1] * exits[1, 0])
    assert symbolic.shortest_cycles(graph, most=1) == found[:1]
    with pytest.raises(ValueError, match="longest must be at least 2"):
        symbolic.shortest_cycles(graph, longest=1)
    with pytest.raises(ValueError, match="it lacks 'count'"):
        symbolic.shortest_cycles(nx.DiGraph([(0, 1)]))


# edges


def test_edges_lie_between_the_groups_that_stays_fall_into():
    rng = np.random.default_rng(0)
    stays = np.where(rng.random(400) < 0.5, rng.integers(40, 46, 400), rng.integers(80, 86, 400))
    stays[1::2] = rng.integers(1, 30, 200)  # all lengths: no groups
    sequence = np.repeat(np.tile([0, 1], 200), stays)
    found = symbolic.gap_edges(xr.DataArray(sequence, dims="time", attrs={"time_step": 0.1}))
    assert found[1] == [] and len(found[0]) == 1 and 4.5 < found[0][0] < 8
    assert symbolic.gap_edges(sequence, gap=100.0) == {0: [], 1: []}
    turns = symbolic.dwell_words(sequence, edges=symbolic.gap_edges(sequence))
    assert turns.sizes["region"] == 3
    with pytest.raises(ValueError, match="gap must be positive"):
        symbolic.gap_edges(sequence, gap=0.0)
