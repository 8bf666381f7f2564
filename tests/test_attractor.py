"""Attractor distances: reference figures, tiny cases by hand, invariances and bad input."""

import os
from pathlib import Path

import numpy as np
import pytest

from dsrecon.measures import attractor
from dsrecon.measures.attractor import bins_of, d_h, d_stsp, outside, smoothed_spectrum
from dsrecon.measures.mixture import d_stsp_mixture

DEFINITIONS = attractor.DEFINITIONS
EPS = attractor.SMOOTHING
KEYS = {"min-max": "d_stsp_minmax", "padded": "d_stsp_padded", "two-sigma": "d_stsp_two-sigma"}
CASES = ["same_system", "noisy", "shifted"]


@pytest.fixture(scope="module")
def reference():
    beside = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
    folder = Path(os.environ.get("DSRECON_FIXTURES", beside))
    path = folder / "attractor_distances.npz"
    if not path.exists():
        pytest.skip(f"reference figures are not at {path}: set DSRECON_FIXTURES to their folder")
    with np.load(path) as file:
        return dict(file)


@pytest.fixture
def walk():
    """Two correlated channels on a bounded set."""
    t = np.arange(400) * 0.37
    return np.stack([np.sin(t), np.cos(1.3 * t) + 0.2 * np.sin(5 * t)], axis=1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_state_space_divergence_is_that_of_the_reference(reference, case, definition):
    true, generated = (reference[k].astype(np.float64) for k in ("true", f"{case}/generated"))
    wanted = reference[f"{case}/{KEYS[definition]}"]
    assert d_stsp(true, generated, definition=definition) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_spectral_distance_is_that_of_the_reference(reference, case):
    true, generated = (reference[k].astype(np.float64) for k in ("true", f"{case}/generated"))
    assert d_h(true, generated) == pytest.approx(reference[f"{case}/d_h"], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_mixture_divergence_is_that_of_the_reference(reference, case, float32):
    # other draws, so equal within three standard errors of the difference
    found = d_stsp_mixture(reference["true"], reference[f"{case}/generated"])
    wanted, error = reference[f"{case}/d_stsp_mixture"], reference[f"{case}/d_stsp_mixture_standard_error"]
    assert found.value == pytest.approx(float(wanted), abs=3 * np.hypot(error, found.standard_error))
    assert found.standard_error == pytest.approx(float(error), rel=0.1)


@pytest.mark.parametrize("case", CASES)
def test_single_precision_input_meets_the_reference(reference, case):
    true, generated = reference["true"], reference[f"{case}/generated"]
    assert true.dtype == generated.dtype == np.float32
    for definition in DEFINITIONS:
        wanted = reference[f"{case}/{KEYS[definition]}"]
        assert d_stsp(true, generated, definition=definition) == pytest.approx(wanted, rel=1e-3)
    assert d_h(true, generated) == pytest.approx(reference[f"{case}/d_h"], rel=1e-3, abs=1e-3)


def kl(p, q, every):
    """The definition, written out over all bins."""
    p, q = ((np.asarray(c) + EPS) / (np.sum(c) + EPS * every) for c in (p, q))
    return np.sum(p * np.log(p / q))


def column(*values):
    return np.array(values, float)[:, None]


def test_a_histogram_by_hand():
    # min-max over [0, 4] in 4 bins: bin 0 is left out, and so is the maximum itself, which falls beyond bin 3
    true, generated = column(0, 1.5, 1.6, 2.5, 4), column(1.1, 3.2, 3.3, 7.0, -1.0)
    wanted = kl([0, 2, 1, 0], [0, 1, 0, 2], 4)
    assert d_stsp(true, generated, bins=4) == pytest.approx(wanted, rel=1e-12)
    # padded: [0 - sd / 10, 4 + sd / 10] = [-.148, 4.148], bins of width 1.074, all of them counted
    wanted = kl([1, 2, 1, 1], [0, 1, 0, 2], 4)
    assert d_stsp(true, generated, bins=4, definition="padded") == pytest.approx(wanted, rel=1e-12)
    # two-sigma: about zero, whatever the mean: sd = 1.479, [-2.958, 2.958], bins of width 1.479
    wanted = kl([0, 0, 1, 3], [0, 1, 1, 0], 4)
    assert d_stsp(true, generated, bins=4, definition="two-sigma") == pytest.approx(wanted, rel=1e-12)


def test_two_channels_are_binned_jointly():
    true = np.array([[0, 0], [0, 3], [3, 0], [3, 3]], float)
    generated = np.array([[0, 0], [0, 0], [3, 3], [1.4, 1.4]], float)
    # padded, 2 bins a channel: joint cells 00, 01, 10, 11; the marginals of the first two alone are equal
    wanted = kl([1, 1, 1, 1], [3, 0, 0, 1], 4)
    assert d_stsp(true, generated, bins=2, definition="padded") == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_sparse_counting_is_dense_counting(walk, definition):
    generated = walk[::-1] * 0.8 + 0.1
    grid = bins_of(walk, bins=6, definition=definition)

    def dense(values):
        edges = [np.linspace(lo, hi, 7) for lo, hi in zip(grid.low, grid.high, strict=True)]
        keep = (values < grid.high).all(1)
        counts, _ = np.histogramdd(values[keep], edges)
        return (counts[1:, 1:] if grid.drop_lowest else counts).ravel()

    # the dropped bins still share in the smoothing
    p, q = (np.concatenate([c, np.zeros(36 - c.size)]) for c in (dense(walk), dense(generated)))
    found = d_stsp(walk, generated, bins=6, definition=definition)
    assert found == pytest.approx(kl(p, q, 36), rel=1e-10)


def test_lengths_may_differ_in_state_space(walk):
    assert d_stsp(walk, np.concatenate([walk, walk])) < 1e-4


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_series_is_at_no_distance_from_itself(walk, definition):
    assert d_stsp(walk, walk, definition=definition) == 0.0
    assert d_h(walk, walk) == 0.0
    assert outside(walk, walk) == 0.0


def test_distances_are_positive(walk):
    other = 0.7 * walk
    assert d_stsp(walk, other) > 0
    assert 0 < d_h(walk, walk[:, ::-1]) <= 1


def test_time_order_plays_no_part_in_state_space(walk):
    rng = np.random.default_rng(0)
    other = walk + 0.1 * rng.normal(size=walk.shape)
    for definition in DEFINITIONS:
        shuffled = d_stsp(walk, rng.permutation(other), definition=definition)
        assert shuffled == pytest.approx(d_stsp(walk, other, definition=definition), rel=1e-12)
    assert outside(walk, rng.permutation(other)) == outside(walk, other)


def test_order_and_units_of_the_channels_play_no_part(walk):
    other = 0.9 * walk[::-1]
    swapped = d_stsp(walk[:, ::-1], other[:, ::-1])
    assert swapped == pytest.approx(d_stsp(walk, other), rel=1e-9)
    assert d_h(walk[:, ::-1], other[:, ::-1]) == pytest.approx(d_h(walk, other), rel=1e-9)
    # powers of two change no rounding, so no point changes its bin
    assert d_stsp(4.0 * walk, 4.0 * other) == pytest.approx(d_stsp(walk, other), rel=1e-9)
    assert d_h(1e3 * walk + 7, 1e3 * other + 7) == pytest.approx(d_h(walk, other), rel=1e-6)


def test_the_spectral_distance_is_symmetric_and_its_formula(walk):
    other = walk[:, ::-1].copy()
    assert d_h(walk, other) == pytest.approx(d_h(other, walk), rel=1e-12)
    p, q = smoothed_spectrum(walk), smoothed_spectrum(other)
    np.testing.assert_allclose(p.sum(0), 1.0, rtol=1e-12)
    # the textbook form loses half of the digits near 0, not here
    wanted = np.sqrt(1 - np.sqrt(p * q).sum(0)).mean()
    assert d_h(walk, other) == pytest.approx(wanted, rel=1e-9)


def test_disjoint_spectra_are_at_distance_one():
    t = np.arange(4000)
    slow, fast = np.sin(0.05 * t)[:, None], np.sin(2.9 * t)[:, None]
    assert d_h(slow, fast, smoothing=1.0) > 0.95


def test_a_constant_run_is_far(walk):
    still = np.full_like(walk, 0.3)
    assert d_h(walk, still) == 1.0
    half = walk.copy()
    half[:, 1] = 5.0
    assert d_h(walk, half) == pytest.approx(0.5, rel=1e-12)
    assert d_stsp(walk, still) > 3
    assert not smoothed_spectrum(still).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_run_that_is_not_finite_has_no_distance(walk, bad):
    other = walk.copy()
    other[100:, 0] = bad
    assert np.isnan(d_stsp(walk, other)) and np.isnan(d_h(walk, other))
    assert outside(walk, other) == 0.75


def test_a_run_half_outside_is_reported(walk):
    other = walk.copy()
    other[200:] += 1e3
    # the half inside matches, so the distance alone would rank this run before a whole one with some noise
    noisy = walk + 0.4 * np.random.default_rng(0).normal(size=walk.shape)
    assert d_stsp(walk, other, bins=4) < d_stsp(walk, noisy, bins=4)
    assert outside(walk, other) == 0.5 > attractor.OUTSIDE_LIMIT


def test_a_run_wholly_outside_is_far_and_finite(walk):
    assert outside(walk, walk + 1e3) == 1.0
    assert np.isfinite(d_stsp(walk, walk + 1e3)) and d_stsp(walk, walk + 1e3) > 1


def test_a_run_near_overflow_gives_no_warning(walk):
    other = walk.copy()
    other[-1] = 1.7e308
    assert np.isfinite(d_stsp(walk, other))
    assert outside(walk, other) == pytest.approx(1 / 400)


def test_inputs_are_left_as_they_were(walk):
    true, other = walk.copy(), 0.9 * walk
    before = other.copy()
    d_stsp(true, other), d_h(true, other), outside(true, other)
    assert np.array_equal(true, walk) and np.array_equal(other, before)


X = np.random.default_rng(1).normal(size=(50, 2))
FLAT = np.stack([X[:, 0], np.full(50, 2.0)], axis=1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: d_stsp(X, X, definition="box"), r"definition must be one of .*min-max.*: got 'box'"),
        (lambda: d_stsp(X, X, bins=1), r"bins must lie between 2 and 1000: got 1"),
        (
            lambda: d_stsp(np.tile(X, 3), np.tile(X, 3)),
            r"defined for at most 5 channels: got 6\. Choose up to five",
        ),
        (lambda: d_stsp(FLAT, X), r"must vary in every channel: channel 1 is constant"),
        (lambda: d_stsp(X[:, 0], X), r"true must have shape \[time, variable\]: got \(50,\)"),
        (lambda: d_stsp(X, X[:, 0]), r"generated must have shape \[time, variable\]: got \(50,\)"),
        (lambda: d_stsp(X[:0], X), r"true must have shape .* got \(0, 2\)"),
        (lambda: d_stsp(np.where(X > 1, np.inf, X), X), r"true must be finite where it is observed.*infinity"),
        (lambda: d_stsp(X * np.nan, X), r"true must be observed in every channel: channel 0 is all NaN"),
        (lambda: d_stsp(X, X[:, :1]), r"must have the same variables: got 2 and 1"),
        (lambda: d_h(X, X[:-1]), r"must have equal length: got 50 and 49"),
        (lambda: d_h(X, X[:, :1]), r"must have the same variables: got 2 and 1"),
        (lambda: d_h(X * np.inf, X), r"true must be finite"),
        (lambda: outside(X, X[:, :1]), r"must have the same variables: got 2 and 1"),
        (lambda: outside(X * np.nan, X), r"true must be observed in every channel: channel 0 is all NaN"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
