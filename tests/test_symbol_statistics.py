"""Statistics of any symbol sequence: codings, words, entropies with intervals, and two sequences compared."""

from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dsrecon import symbolic
from dsrecon.series import Clock, labelled
from dsrecon.symbolic import uncertainty, windows
from dsrecon.symbolic.symbols import edges

LN2 = np.log(2)


def chain(P, steps, rng, chains=1):
    """Markov chains `[chains, steps]` with transition matrix `P`; the first 100 steps are left out."""
    cumulative, state, out = np.cumsum(P, axis=1), np.zeros(chains, int), np.empty((steps + 100, chains), int)
    for t, draws in enumerate(rng.random((steps + 100, chains))):
        state = (draws[:, None] > cumulative[state]).sum(1)
        out[t] = state
    return out[100:].T


GOLDEN = np.array([[0.5, 0.5], [1.0, 0.0]])  # no two 1 in a row
EVEN = np.array([[0.5, 0.5], [1.0, 0.0]])  # its edges are seen: 0 on staying, 1 on both others; 1s come in pairs


def golden(steps, rng, many=1):
    return chain(GOLDEN, steps, rng, many)


def even(steps, rng, many=1):
    state = chain(EVEN, steps + 1, rng, many)
    return ((state[:, 1:] == 1) | (state[:, :-1] == 1)).astype(int)


def coin(steps, rng, many=1):
    return (rng.random((many, steps)) < 0.7).astype(int)


PROCESSES = {"golden": (golden, 2 / 3 * LN2), "even": (even, 2 / 3 * LN2), "coin": (coin, 0.6108643020548935)}


def lorenz(steps, many, rng, rho=28.0):
    """Lorenz-63 at steps of 0.03, by fourth-order Runge-Kutta: `[many, steps, 3]`."""

    def f(v):
        return np.stack([10 * (v[1] - v[0]), v[0] * (rho - v[2]) - v[1], v[0] * v[1] - 8 / 3 * v[2]])

    v, out, h = np.array([1.0, 1.0, 20.0])[:, None] + rng.normal(size=(3, many)), np.empty((steps, 3, many)), 0.03
    for t in range(-500, steps):
        k1 = f(v)
        k2 = f(v + h / 2 * k1)
        k3 = f(v + h / 2 * k2)
        v = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(v + h * k3))
        out[max(t, 0)] = v
    return out.transpose(2, 0, 1)


def four(v):
    """Wing and height of states `[..., 3]`: 0 to 3."""
    return (v[..., 0] > 0) + 2 * (v[..., 2] > 25).astype(int)


# codings


def test_thresholds_are_intervals_with_their_lower_edge_and_keep_times():
    series = pd.Series([-1.0, 0.0, 0.5, 2.0, 1.0], index=np.arange(5) * 0.5 + 3, name="v")
    coded = symbolic.code_thresholds(series, [0, 1])
    np.testing.assert_array_equal(coded["symbol"], [0, 1, 1, 2, 2])
    np.testing.assert_array_equal(coded["time"], series.index)
    assert coded["meaning"].values.tolist() == ["v < 0", "0 <= v < 1", "v >= 1"]
    assert coded.attrs["time_step"] == 0.5 and "v at [0.0, 1.0]" in coded.attrs["coding"]
    assert symbolic.dwell_times(coded)["duration"].values.tolist() == [0.5, 1.0, 1.0]


def test_thresholds_of_several_variables_are_their_product():
    values = np.random.default_rng(0).normal(size=(500, 3))
    coded = symbolic.code_thresholds(values, [[0.0], [], [-1.0, 1.0]])
    wanted = 3 * (values[:, 0] >= 0) + (values[:, 2] >= -1).astype(int) + (values[:, 2] >= 1)
    np.testing.assert_array_equal(coded["symbol"], wanted)
    assert coded["meaning"].values[4] == "x0 >= 0 and -1 <= x2 < 1"


@pytest.mark.parametrize(("order", "delay"), [(2, 1), (3, 2), (5, 3)])
def test_an_ordinal_symbol_is_the_permutation_that_sorts_its_window(order, delay):
    rng = np.random.default_rng(order)
    x = rng.integers(0, 20, 400).astype(float)  # with ties: the earlier is the smaller
    coded = symbolic.code_ordinal(x, order, delay)
    span = (order - 1) * delay
    rows = np.stack([x[i * delay : len(x) - span + i * delay] for i in range(order)], 1)
    sorts = np.argsort(rows, axis=1, kind="stable")
    meaning = dict(zip(coded["region"].values.tolist(), coded["meaning"].values.tolist(), strict=True))
    assert [meaning[s] for s in coded["symbol"].values.tolist()] == [" ".join(map(str, row)) for row in sorts.tolist()]
    assert meaning.get(0, "") in ("", " ".join(map(str, range(order))))
    assert coded["time"].values[0] == span and coded.sizes["time"] == 400 - span
    tied = np.mean([len(set(row)) < order for row in rows.tolist()])
    assert coded.attrs["ties"] == pytest.approx(tied)


def test_kmeans_finds_planted_clusters_and_codes_another_series_alike():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 500.0]])
    planted = rng.choice(3, 3000, p=[0.2, 0.5, 0.3])
    values = centres[planted] + rng.normal(size=(3000, 2)) * [1, 50]
    coded = symbolic.code_kmeans(values, 3, seed=1)
    found = symbolic.compare_codings(planted, coded)
    assert found.verdict == "equal up to relabelling" and found.agreement > 0.99
    assert (np.diff(coded["visits"]) <= 0).all() and coded["symbol"].values[planted == 1].mean() < 0.05
    np.testing.assert_allclose(coded["centre"].values[0], [10, 0], atol=5)
    again = symbolic.code_kmeans(values[:100], coded)
    np.testing.assert_array_equal(again["symbol"], coded["symbol"][:100])
    assert again.attrs["coding"] == coded.attrs["coding"]


GAPPED = np.array([1.0, np.nan, 3.0, 2.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symbolic.code_thresholds(GAPPED, [0.0]), "no missing values.*'x0' has 1 of 4, the first at row 1"),
        (lambda: symbolic.code_ordinal(GAPPED, 2), "no missing values"),
        (lambda: symbolic.code_kmeans(GAPPED, 2), "no missing values"),
        (lambda: symbolic.code_thresholds(np.ones(5), [1.0, 0.0]), r"must be finite and increase: got \[1.0, 0.0\]"),
        (lambda: symbolic.code_thresholds(np.ones(5), []), "at least one number: got none"),
        (lambda: symbolic.code_thresholds(np.ones((5, 2)), [0.0]), "one row for each of the 2 variables.*got 1"),
        (lambda: symbolic.code_ordinal(np.ones((5, 2)), 3), "one variable: got 2"),
        (lambda: symbolic.code_ordinal(np.ones(5), 9), "between 2 and 8: got 9"),
        (lambda: symbolic.code_ordinal(np.ones(5), 3, 0), "delay must be at least 1 sample: got 0"),
        (lambda: symbolic.code_ordinal(np.ones(5), 4, 2), "longer than a window, 7 samples: got 5"),
        (lambda: symbolic.code_kmeans(np.ones(5), 2), "at most the 1 different rows.*got 2"),
        (lambda: symbolic.code_kmeans(np.ones(5), 0), "clusters must be at least 1: got 0"),
        (lambda: symbolic.code_kmeans(np.ones(5), np.ones((2, 3))), r"centres \[k, 1\]: got shape \(2, 3\)"),
    ],
)
def test_codings_name_what_came_in(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# symbols of symbols


def test_merged_symbols_are_one_and_keep_times_and_words():
    coded = symbolic.code_thresholds(labelled(np.arange(6.0)[:, None], ["v"], Clock(0.1, 0.0, "s")), [1, 2, 3])
    merged = symbolic.merge(coded, [[0, 3]])
    np.testing.assert_array_equal(merged["symbol"], [0, 1, 2, 0, 0, 0])
    assert merged["meaning"].values.tolist() == ["v < 1 or v >= 3", "1 <= v < 2", "2 <= v < 3"]
    assert merged["visits"].values.tolist() == [4, 1, 1] and merged.attrs["time_unit"] == "s"
    np.testing.assert_array_equal(merged["time"], coded["time"])
    for groups, message in (
        ([[]], "group 0 is"),
        ([[0], [7]], "got 7 in group 1"),
        ([[0, 1], [1]], "1 is in groups 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            symbolic.merge(coded, groups)


def test_exact_dwell_words_spell_the_sequence_and_have_its_rate_per_unit_of_time():
    values = chain([[0.9, 0.1, 0], [0, 0.7, 0.3], [0.4, 0, 0.6]], 60_000, np.random.default_rng(3))[0]
    timed = xr.DataArray(values, dims="time", coords={"time": np.arange(60_000) * 0.1}, attrs={"time_step": 0.1})
    words = symbolic.dwell_words(timed)
    runs = symbolic.dwell_times(timed).isel(run=slice(1, -1))
    of = words["of"].values[words["symbol"].values]
    np.testing.assert_array_equal(of, runs["symbol"])
    np.testing.assert_allclose(words["duration"], runs["duration"])
    np.testing.assert_allclose(words["time"], 0.1 * runs["first"])
    assert words["meaning"].values[0] == "0 for 0.1"
    assert words.attrs["time_step"] == pytest.approx(float(runs["duration"].mean()))
    direct, coded = symbolic.entropy_rate(timed), symbolic.entropy_rate(words)
    assert coded.rate_per_time == pytest.approx(direct.rate_per_time, rel=0.03)  # two estimates of one number
    assert coded.low_per_time < direct.rate_per_time < coded.high_per_time
    few = symbolic.entropy_rate(symbolic.dwell_words(timed, edges=[0.5]))
    assert few.rate_per_time < direct.rate_per_time


def test_dwell_edges_bin_durations_and_are_named():
    values = np.repeat([0, 1, 0, 1, 0, 1, 0], [1, 2, 3, 5, 1, 1, 9])
    words = symbolic.dwell_words(values, edges={0: [2.0], 1: [2.0, 4.0]})
    text = words["meaning"].values[words["symbol"].values].tolist()
    assert text == ["1 for 2 to 4", "0 for 2 or more", "1 for 4 or more", "0 for less than 2", "1 for less than 2"]
    with pytest.raises(ValueError, match="run that is seen whole.*they have 2"):
        symbolic.dwell_words([0, 0, 1])
    with pytest.raises(ValueError, match="finite and increase"):
        symbolic.dwell_words(values, edges=[2, 1])


# words as numbers


@pytest.mark.parametrize("every", [1, 3])
def test_word_numbers_are_the_same_by_table_and_by_sorting(every, monkeypatch):
    letters = np.random.default_rng(0).integers(0, 4, 300)
    table = [code for code, _ in windows.word_codes(letters, 4, 5, every)]
    monkeypatch.setattr(windows, "_TABLE", -1000)
    for length, (code, count) in enumerate(windows.word_codes(letters, 4, 5, every), 1):
        np.testing.assert_array_equal(code, table[length - 1])
        rows = np.stack([letters[i * every : len(letters) - (length - 1 - i) * every] for i in range(length)], 1)
        np.testing.assert_array_equal(code, np.unique(rows, axis=0, return_inverse=True)[1].ravel())
        assert count == code.max() + 1
    keys, counts = windows.tallied(letters, 4)
    assert keys.tolist() == [0, 1, 2, 3] and counts.tolist() == np.bincount(letters).tolist()


def test_only_the_commonest_words_are_listed_where_asked(monkeypatch):
    values = np.random.default_rng(0).integers(0, 5, 300)
    whole, some = symbolic.word_counts(values, 2), symbolic.word_counts(values, 2, most=4)
    xr.testing.assert_identical(some, whole.isel(word=slice(4)))
    monkeypatch.setattr(symbolic.words, "_LISTED", 10)
    with pytest.raises(ValueError, match="most must be given where there are more than 10 words: there are 25"):
        symbolic.word_counts(values, 2)


# transitions


def test_transitions_of_long_dwells_are_the_counts_and_rows_sum_to_one():
    rng = np.random.default_rng(5)
    dwell = rng.integers(500, 3000, 400)
    order = [0]
    for draw in rng.integers(1, 4, 399):
        order.append((order[-1] + int(draw)) % 4)
    values = np.repeat(order, dwell)
    P = symbolic.transitions(values)
    np.testing.assert_allclose(P.sum("to"), 1, rtol=0, atol=1e-12)
    wanted = np.zeros((4, 4), int)
    for (i, steps), following in zip(zip(order, dwell, strict=True), [*order[1:], None], strict=True):
        wanted[i, i] += steps - 1
        if following is not None:
            wanted[i, following] += 1
    np.testing.assert_array_equal(P["count"], wanted)
    left = symbolic.transitions(values, self_transitions=False)
    np.testing.assert_allclose(left.sum("to"), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(left["count"], np.where(np.eye(4), 0, wanted))
    listed = edges(values)
    assert {(i, j): c for i, j, c in zip(*(column.tolist() for column in listed), strict=True)} == {
        (i, j): int(c) for (i, j), c in np.ndenumerate(wanted) if c
    }


def test_a_matrix_of_too_many_symbols_is_refused():
    with pytest.raises(ValueError, match="at most 5,000 different ones for a matrix: got 6,000"):
        symbolic.transitions(np.tile(np.arange(6000), 2))


# forbidden words


def test_forbidden_words_of_known_shifts_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    found = symbolic.forbidden_words(golden(5000, rng)[0], 6)
    assert found["word"].values[found["forbidden"].values].tolist() == ["1 1"]
    found = symbolic.forbidden_words(even(5000, rng)[0], 7)
    assert found["word"].values[found["forbidden"].values].tolist() == ["0 1 0", "0 1 1 1 0", "0 1 1 1 1 1 0"]
    assert found.attrs["tried_2"] == 4


@pytest.mark.parametrize("length", [2, 3, 4])
def test_minimal_forbidden_words_are_those_of_a_plain_search(length):
    values = np.random.default_rng(length).integers(0, 3, 60)
    table = symbolic.forbidden_words(values, length)
    text = {n: {tuple(values[i : i + n]) for i in range(61 - n)} for n in range(1, length + 1)}
    wanted = {
        w
        for n in range(2, length + 1)
        for w in product(range(3), repeat=n)
        if w not in text[n] and w[1:] in text[n - 1] and w[:-1] in text[n - 1]
    }
    rows = [tuple(r[:n]) for r, n in zip(table["symbols"].values.tolist(), table["size"].values, strict=True)]
    assert set(rows) == wanted and len(rows) == len(wanted)
    for w, expected in zip(rows, table["expected"].values, strict=True):
        n = len(w)
        count = {v: sum(tuple(values[i : i + len(v)]) == v for i in range(61 - len(v))) for v in (w[:-1], w[1:])}
        inner = 60 if n == 2 else sum(tuple(values[i : i + n - 2]) == w[1:-1] for i in range(63 - n))
        assert expected == pytest.approx(count[w[:-1]] * count[w[1:]] / inner)


def test_rare_words_are_not_called_forbidden():
    named = 0
    for seed in range(60):
        values = np.random.default_rng(seed).choice(3, 800, p=[0.9, 0.08, 0.02])
        found = symbolic.forbidden_words(values, 4)
        assert found.sizes["word"] > 0
        named += bool(found["forbidden"].any())
    assert named <= 9  # at three lengths of level 0.05: above with probability 0.01 of a mean of 4


# entropies


@pytest.mark.parametrize("name", PROCESSES)
def test_intervals_of_the_rate_cover_the_truth(name):
    process, truth = PROCESSES[name]
    found = [symbolic.entropy_rate(x) for x in process(10_000, np.random.default_rng(11), 30)]
    assert sum(e.low <= truth <= e.high for e in found) >= 25  # of 30 at 95 %: fewer with probability 0.003
    widths = np.array([e.high - e.low for e in found])
    errors = np.array([e.rate - truth for e in found])
    assert widths.mean() < 6 * errors.std()  # 3.9 standard deviations where the width is right
    assert abs(errors.mean()) < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_intervals_of_the_rate_cover_the_truth_in_90_of_100(name):
    process, truth = PROCESSES[name]
    found = [symbolic.entropy_rate(x) for x in process(10_000, np.random.default_rng(0), 100)]
    assert sum(e.low <= truth <= e.high for e in found) >= 90


def test_contexts_are_as_long_as_the_memory():
    rng = np.random.default_rng(2)
    assert symbolic.entropy_rate(coin(10_000, rng)[0]).contexts == 1
    found = symbolic.entropy_rate(golden(10_000, rng)[0])
    assert (found.order, found.contexts, found.limited) == (1, 2, False)
    assert symbolic.entropy_rate(even(10_000, rng)[0]).order >= 10
    assert symbolic.entropy_rate(even(10_000, rng)[0], max_order=3).limited
    draws = rng.integers(0, 2, 20_000)
    for t in range(2, len(draws)):
        draws[t] = draws[t - 2] ^ (draws[t] & (rng.random() < 0.2))  # only the symbol before the last tells
    found = symbolic.entropy_rate(draws)
    assert found.order == 2 and found.low < -(0.1 * np.log(0.1) + 0.9 * np.log(0.9)) < found.high


def test_the_rate_of_a_short_record_is_that_of_a_plain_count():
    values = golden(3000, np.random.default_rng(4))[0]
    found = symbolic.entropy_rate(values, max_order=1)
    pairs = np.zeros((2, 2))
    for i, j in pairwise(values.tolist()):
        pairs[i, j] += 1
    p = pairs / pairs.sum(1, keepdims=True)
    plug_in = -(pairs * np.log(np.where(p > 0, p, 1))).sum() / 2999
    assert found.rate == pytest.approx(plug_in + 1 / (2 * 2999), rel=1e-12) and found.bias == pytest.approx(1 / 5998)


@pytest.mark.parametrize("word", [[0], [0, 1], [0, 0, 1, 2, 1]])
def test_one_symbol_and_cycles_have_no_entropy_rate_and_ln_period_of_excess(word):
    values = np.tile(word, 200)
    found, excess = symbolic.entropy_rate(values), symbolic.excess_entropy(values)
    assert found.rate == pytest.approx(0, abs=1e-12) and found.high == pytest.approx(0, abs=1e-12)
    assert excess.value == pytest.approx(np.log(len(word)), abs=0.01)


def test_units_of_time_and_names_of_symbols_do_not_matter():
    values = golden(4000, np.random.default_rng(1))[0]
    timed = xr.DataArray(np.array([7, -3])[values], dims="time", attrs={"time_step": 0.2, "time_unit": "s"})
    found, plain = symbolic.entropy_rate(timed), symbolic.entropy_rate(values)
    assert found.rate == pytest.approx(plain.rate, rel=1e-12) and found.time_unit == "s"
    assert found.rate_per_time == pytest.approx(5 * plain.rate) and found.high_per_time == pytest.approx(5 * plain.high)


def test_excess_entropies_of_known_processes():
    rng = np.random.default_rng(7)
    truth = {"golden": np.log(3) - 4 / 3 * LN2, "even": np.log(3) - 2 / 3 * LN2, "coin": 0.0}  # H(state) - h; H(state)
    for name, (process, _) in PROCESSES.items():
        found = [symbolic.excess_entropy(x) for x in process(10_000, rng, 10)]
        values = np.array([e.value for e in found])
        assert values.mean() == pytest.approx(truth[name], abs=0.03)  # of the even process the tail of a sum is missing
        if name != "even":
            assert sum(e.low - 1e-4 <= truth[name] <= e.high for e in found) >= 8


def test_corrected_block_entropies_lie_nearer_and_their_intervals_cover():
    tables = [symbolic.block_entropies(x, 6) for x in coin(2000, np.random.default_rng(9), 40)]
    truth = 0.6108643020548935 * np.arange(1, 7)
    plug_in = np.mean([t["entropy"].values for t in tables], 0) - truth
    corrected = np.mean([t["corrected"].values for t in tables], 0) - truth
    assert abs(corrected[5]) < 0.5 * abs(plug_in[5])
    covered = [(t["low"].values <= truth) & (truth <= t["high"].values) for t in tables if t["reliable"].all()]
    assert len(covered) > 30 and np.mean(covered) > 0.88
    rates = [(t["rate_low"].values <= truth[0]) & (truth[0] <= t["rate_high"].values) for t in tables]
    assert np.mean(rates) > 0.88
    short = symbolic.block_entropies(coin(200, np.random.default_rng(0))[0], 12)
    assert not short["reliable"][-1] and np.isnan(short["high"][-1]) and np.isfinite(short["entropy"][-1])


def test_blocks_are_as_long_as_the_memory_and_their_error_is_true():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 4000))
    slow = np.empty_like(noise)
    slow[:, 0] = noise[:, 0]
    for t in range(1, 4000):
        slow[:, t] = 0.9 * slow[:, t - 1] + noise[:, t]
    for x, block in ((noise, 64), (slow[:, 500:], 512)):
        found = [uncertainty.spread_of_mean(row) for row in x]
        assert np.median([s.error for s in found]) == pytest.approx(x.mean(1).std(), rel=0.15)
        assert np.median([s.block for s in found]) <= block


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symbolic.entropy_rate([0, 1] * 5), "at least 20 for an entropy rate: got 10"),
        (lambda: symbolic.entropy_rate([0.5] * 50), "one row of at least one integer: got float64"),
        (lambda: symbolic.entropy_rate([0, 1] * 50, level=1.0), "level must lie between 0 and 1: got 1.0"),
        (lambda: symbolic.entropy_rate([0, 1] * 50, max_order=95), "max_order must lie between 0 and 90.*got 95"),
        (lambda: symbolic.excess_entropy([0, 1] * 50, max_length=0), "max_length must be at least 1: got 0"),
        (lambda: symbolic.forbidden_words([0, 1, 0], 4), "between 2 and the 3 steps of symbols: got 4"),
        (lambda: symbolic.forbidden_words([0, 1, 0], 2, level=0.0), "level must lie between 0 and 1: got 0.0"),
        (lambda: symbolic.forbidden_words(np.arange(2000), 2), "less than 2: 4,000,000 words of that length"),
        (lambda: symbolic.merge([0.5], [[0]]), "one row of at least one integer: got float64"),
    ],
)
def test_statistics_name_what_came_in(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# two codings


def test_codings_equal_up_to_names_are_called_so():
    a = np.random.default_rng(0).integers(0, 4, 2000)
    found = symbolic.compare_codings(a, np.array([7, -1, 3, 0])[a])
    assert found.verdict == "equal up to relabelling" and found.agreement == 1.0
    assert found.relabelling == {7: 0, -1: 1, 3: 2, 0: 3}
    assert found.entropy_b_given_a == found.entropy_a_given_b == 0 and found.chance < 0.3
    assert found.information == pytest.approx(found.entropy_a)


def test_a_merged_coding_is_a_function_of_the_finer_one_and_not_the_other_way():
    a = np.random.default_rng(0).integers(0, 4, 2000)
    b = symbolic.merge(a, [[0, 2], [1, 3]])
    assert symbolic.compare_codings(a, b).verdict == "b is a function of a"
    assert symbolic.compare_codings(b, a).verdict == "a is a function of b"
    assert symbolic.compare_codings(a, np.zeros(2000, int)).verdict == "b is a function of a"
    noisy = np.where(np.random.default_rng(1).random(2000) < 0.005, 0, a)
    assert symbolic.compare_codings(a, noisy).verdict == "equal up to relabelling"
    assert symbolic.compare_codings(a, noisy, tolerance=0.0).verdict != "equal up to relabelling"


def test_independent_codings_agree_by_chance():
    rng = np.random.default_rng(0)
    found = symbolic.compare_codings(rng.integers(0, 3, 20_000), rng.integers(0, 3, 20_000))
    assert found.verdict == "neither is a function of the other"
    assert found.agreement == pytest.approx(found.chance, abs=0.02) and found.information < 1e-3
    assert found.counts.values.sum() == found.steps == 20_000


def test_codings_are_compared_at_the_times_that_both_have():
    x = np.sin(np.arange(300) * 0.7)
    ordinal, sign = symbolic.code_ordinal(x, 2, 3), symbolic.code_thresholds(x, [0.0])
    found = symbolic.compare_codings(sign, ordinal)
    assert found.steps == 297
    by_hand = symbolic.compare_codings(sign["symbol"].values[3:], ordinal["symbol"].values)
    assert found.agreement == by_hand.agreement
    with pytest.raises(ValueError, match="the same steps: got 3 and 2, without times"):
        symbolic.compare_codings([0, 1, 0], [0, 1])
    with pytest.raises(ValueError, match="tolerance must be at least 0 and less than 1: got 1.0"):
        symbolic.compare_codings([0, 1], [0, 1], tolerance=1.0)
    with pytest.raises(ValueError, match="times in common: got 0.0 to 2.0 and 5.0 to 7.0"):
        late = xr.DataArray([0, 1, 0], dims="time", coords={"time": [5.0, 6.0, 7.0]})
        symbolic.compare_codings(late.assign_coords(time=late["time"] - 5), late)


# two sequences

SLOW = np.array([[0.95, 0.05, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 0.8]])
OTHER = np.array([[0.90, 0.10, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 0.8]])


def p_values(a, b, **options):
    return np.array(
        [symbolic.same_process(x, y, permutations=99, **options).p_value for x, y in zip(a, b, strict=True)]
    )


@pytest.mark.parametrize("name", ["chain", "even", "lorenz"])
def test_two_stretches_of_one_process_are_the_same(name):
    rng = np.random.default_rng(21)
    a, b = {
        "chain": lambda: np.split(chain(SLOW, 4000, rng, 100), 2),
        "even": lambda: np.split(even(4000, rng, 100), 2),
        "lorenz": lambda: np.split(four(lorenz(4000, 100, rng)), 2),
    }[name]()
    p = p_values(a, b)
    assert (p <= 0.05).sum() <= 8  # of 50: more with probability 0.002 (binomial)
    assert (p <= 0.5).sum() >= 13  # and they are not all large: fewer with probability 0.0005


def test_planted_differences_are_found():
    rng = np.random.default_rng(22)
    assert (p_values(chain(SLOW, 6000, rng, 8), chain(OTHER, 6000, rng, 8)) <= 0.05).sum() >= 7
    assert (p_values(four(lorenz(6000, 6, rng)), four(lorenz(6000, 6, rng, rho=33.0))) <= 0.05).all()
    found = symbolic.same_process(chain(SLOW, 6000, rng)[0], chain(OTHER, 6000, rng)[0])
    assert found.distance > found.floor and found.p_value <= 0.05


def test_a_test_that_took_symbols_for_independent_would_call_one_process_two():
    rng = np.random.default_rng(23)
    a, b = np.split(chain([[0.98, 0.02], [0.02, 0.98]], 4000, rng, 40), 2)
    assert (p_values(a, b, block=4) <= 0.05).mean() > 0.4
    assert (p_values(a, b) <= 0.05).mean() <= 0.2


def test_regions_of_two_runs_are_matched_by_their_bits():
    def coded(symbol, bits):
        return xr.Dataset({"symbol": ("time", symbol), "bits": (("region", "gate"), np.array(bits, bool))})

    a = coded([0, 1, 0, 2, 0], [[0, 0], [0, 1], [1, 1]])
    b = coded([0, 1, 0, 2, 3], [[1, 1], [0, 0], [1, 0], [0, 1]])  # numbered by its own visits
    x, y = symbolic.common_symbols(a, b)
    assert x.tolist() == [0, 1, 0, 2, 0] and y.tolist() == [2, 0, 2, 3, 1]
    with pytest.raises(ValueError, match="regions of one map: got 2 and 1 gates"):
        symbolic.common_symbols(a, coded([0, 1], [[0], [1]]))
    values = np.random.default_rng(0).integers(0, 2, 2000)
    swapped = coded(1 - values, [[1], [0]])
    assert symbolic.same_process(coded(values, [[0], [1]]), swapped).p_value == 1.0


COIN = np.random.default_rng(0).integers(0, 2, 1000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symbolic.same_process(COIN, COIN + 5), r"symbols in common: got \[0, 1\] and \[5, 6\]"),
        (lambda: symbolic.same_process(COIN, COIN, permutations=5), "at least 19: got 5"),
        (lambda: symbolic.same_process(COIN, COIN, length=200), "an eighth of 1000 symbols.*got 200"),
        (lambda: symbolic.same_process(COIN, COIN, every=0), "every must be at least 1: got 0"),
        (lambda: symbolic.same_process(COIN, COIN, block=200), "blocks of 200 steps cut them into 4 and 4"),
        (lambda: symbolic.same_process(np.arange(50) // 25, COIN), "longer, or their memory shorter"),
        (
            lambda: symbolic.same_process(*(symbolic.code_thresholds(COIN, [edge]) for edge in (0.5, 0.6))),
            r"coded alike: got 'thresholds of x0 at \[0.5\]' and 'thresholds of x0 at \[0.6\]'",
        ),
    ],
)
def test_the_test_names_what_came_in(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sequences_of_one_symbol_are_the_same():
    assert symbolic.same_process(np.zeros(500, int), np.zeros(400, int)).p_value == 1.0
