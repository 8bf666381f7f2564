"""HiPPO systems by what their states mean; their cheap forms; the LegS memory against integrals of the staircase."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.polynomial.legendre import leggauss, legvander

from dsrecon.cell import check_linearise, dense_jacobian
from dsrecon.evolve import evolve
from dsrecon.models.hippo import hippo_system, normal_plus_low_rank, tridiagonal_form
from dsrecon.models.memory import LegSMemory, project, rebuild
from dsrecon.plot.canvas import percent, save
from dsrecon.plot.memory import memory

MEASURES = ("legs", "legt", "lagt", "fourier")
RANK = {"legs": 1, "legt": 2, "lagt": 1, "fourier": 1}
FREQUENCIES = (0.7 + 0.3j, 0.2 + 5.0j, 1.5 - 12.0j)


def legendre(x, n):
    """`p_0 .. p_n-1` of [0, 1], orthonormal: `[..., n]`."""
    return legvander(2 * np.asarray(x) - 1, n - 1) * np.sqrt(2 * np.arange(n) + 1)


def fourier(s, n):
    """1, 0, then a cosine and a sine a frequency: `[p, n]`."""
    angle = 2 * np.pi * np.arange(n // 2) * s[:, None]
    functions = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], -1).reshape(len(s), n)
    functions[:, 0] = 1
    return functions


def staircase(u, n):
    """Coefficients of the history that holds `u[j]` on [j, j + 1], from antiderivatives of the polynomials."""
    ends = legvander(2 * np.arange(len(u) + 1) / len(u) - 1, n)
    k = np.arange(1, n)
    whole = np.column_stack([ends[:, 1] / 2, (ends[:, 2:] - ends[:, :-2]) / (2 * (2 * k + 1))])
    return np.sqrt(2 * np.arange(n) + 1) * (u @ np.diff(whole, axis=0))


def middles(count):
    return (np.arange(count) + 0.5) / count


# The systems: what the state is.


def response(measure, n, w):
    """`(w I - A)^-1 B`: the Laplace transform of the impulse response."""
    A, B = hippo_system(measure, n)
    return np.linalg.solve(w * np.eye(n) - A, B)


@pytest.mark.parametrize("w", FREQUENCIES)
@pytest.mark.parametrize("n", [1, 2, 7, 24])
def test_legs_holds_legendre_polynomials_of_the_exponentially_receding_past(n, w):
    x = [1 / (w + 1)]  # int_0^1 y^w P_k(2y - 1) dy, y = e^-s
    for k in range(1, n):
        x.append(x[-1] * (w - k + 1) / (w + k + 1))
    np.testing.assert_allclose(response("legs", n, w), np.sqrt(2 * np.arange(n) + 1) * x, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("w", FREQUENCIES)
@pytest.mark.parametrize("n", [1, 2, 7, 24])
def test_lagt_holds_laguerre_functions(n, w):
    k = np.arange(n)
    np.testing.assert_allclose(response("lagt", n, w), (w - 0.5) ** k / (w + 0.5) ** (k + 1), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cycles", [0.0, 1.0, 2.3])
def test_legt_rebuilds_the_last_unit_of_time(cycles):
    w, s = 2j * np.pi * cycles, np.linspace(0, 1, 101)
    rebuilt = legendre(1 - s, 32) @ response("legt", 32, w)
    np.testing.assert_allclose(rebuilt, np.exp(-w * s), atol=1e-12)


@pytest.mark.parametrize("cycles", [1, 3, 7])
def test_fourier_rebuilds_what_repeats_in_its_window(cycles):
    w, s = 2j * np.pi * cycles, np.linspace(0, 1, 101)
    np.testing.assert_allclose(fourier(s, 16) @ response("fourier", 16, w), np.exp(-w * s), atol=1e-12)


def test_fourier_approaches_what_does_not_repeat_but_at_its_ends():
    w, s = 4.6j * np.pi, np.linspace(0.25, 0.75, 101)
    errors = [np.abs(fourier(s, n) @ response("fourier", n, w) - np.exp(-w * s)).max() for n in (16, 32, 64)]
    assert errors[2] < 0.6 * errors[1] < 0.36 * errors[0] < 0.08


def test_the_sine_of_frequency_zero_stays_where_it_is():
    A, B = hippo_system("fourier", 8)
    assert not A[1].any() and not A[:, 1].any() and B[1] == 0


# Their forms.


def rebuilt(form):
    """`A` and `B` from the form, and `W`."""
    W = np.hstack([form.V, form.V.conj()])
    Q = np.vstack([form.P, form.P.conj()])
    L = np.diag(np.concatenate([form.eigenvalues, form.eigenvalues.conj()]))
    return W @ (L - Q @ Q.conj().T) @ W.conj().T, W @ np.concatenate([form.B, form.B.conj()]), W


@pytest.mark.parametrize("n", [2, 4, 64, 256])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_system_is_normal_plus_low_rank(measure, n):
    (A, B), form = hippo_system(measure, n), normal_plus_low_rank(measure, n)
    found, B_found, W = rebuilt(form)
    unit = (
        1e-13 * n
    )  # rounding of an eigenproblem of size n; the pair nearest to zero is told from its conjugate less well
    np.testing.assert_allclose(found, A, atol=unit * np.abs(A).max())
    np.testing.assert_allclose(B_found, B, atol=unit * np.abs(B).max())
    np.testing.assert_allclose(W.conj().T @ W, np.eye(n), atol=unit)
    assert form.eigenvalues.shape == (n // 2,) and form.P.shape == (n // 2, RANK[measure])
    assert (np.diff(form.eigenvalues.imag) > 0).all() and form.eigenvalues[0].imag >= 0
    np.testing.assert_allclose(form.P[:, 0].imag, 0, atol=unit)
    assert (form.P[:, 0].real > 0).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_the_rank_is_the_least_and_no_system_grows(measure):
    A = hippo_system(measure, 16).A
    values = np.linalg.eigvalsh(A + A.T)
    apart = np.abs(values - np.median(values)) > 1e-10 * np.abs(values).max()
    assert apart.sum() == RANK[measure]
    assert values.max() <= 1e-13 * np.abs(values).max()


def test_the_modes_of_lagt_are_cotangents():
    values = normal_plus_low_rank("lagt", 12).eigenvalues
    j = np.arange(6)[::-1]
    np.testing.assert_allclose(values, 0.5j / np.tan(np.pi * (2 * j + 1) / 24), atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64])
@pytest.mark.parametrize("measure", MEASURES[:3])
def test_the_tridiagonal_form_is_the_matrix(measure, n):
    form = tridiagonal_form(measure, n)
    T = np.diag(form.T_diag) + np.diag(form.T_sub, -1) + np.diag(form.T_super, 1)
    A = hippo_system(measure, n).A
    found = form.P[:, None] * (np.diag(form.D) + np.linalg.inv(T)) * form.Q
    np.testing.assert_allclose(found, A, atol=1e-13 * np.abs(A).max())


def test_matrices_are_the_same_without_float64(float32):
    parts = [*hippo_system("legt", 8), *normal_plus_low_rank("legs", 8), *tridiagonal_form("lagt", 8)]
    assert all(part.dtype in (np.float64, np.complex128) for part in parts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hippo_system("legs", 0), "state_size must be at least 1: got 0."),
        (
            lambda: hippo_system("fourier", 5),
            "state_size must be even, since 'fourier' has a cosine and a sine a frequency: got 5.",
        ),
        (
            lambda: normal_plus_low_rank("legs", 7),
            "state_size must be even, since modes come in conjugate pairs: got 7.",
        ),
        (
            lambda: tridiagonal_form("fourier", 8),
            "measure must be one of ('legs', 'legt', 'lagt'), which have a tridiagonal form: got 'fourier'.",
        ),
        (lambda: tridiagonal_form("legt", 0), "state_size must be at least 1: got 0."),
        (lambda: LegSMemory(0), "state_size must be at least 1: got 0."),
        (lambda: project(np.arange(5), 4), "series must be float32 or float64: got int64."),
        (lambda: project(np.zeros((5, 2)), 4), "series must have shape [t], t at least 1: got (5, 2)."),
        (lambda: project(np.zeros(0), 4), "series must have shape [t], t at least 1: got (0,)."),
        (lambda: project(np.array([0.0, np.nan, 1.0]), 4), "series must be finite: got nan at step 1 of 3."),
        (lambda: project(jnp.array([0.0, jnp.inf]), 4), "series must be finite: got inf at step 1 of 2."),
        (lambda: project(np.zeros(5, np.float16), 4), "series must be float32 or float64: got float16."),
        (lambda: project(np.zeros(5), 0), "state_size must be at least 1: got 0."),
        (lambda: rebuild(np.zeros(4), 0), "points must be at least 1: got 0."),
        (
            lambda: rebuild(np.zeros(4), np.array([0.5, 1.5])),
            "points must be a count or an array [p] within [0, 1]: got [0.5 1.5].",
        ),
        (
            lambda: rebuild(np.zeros(4, int), 3),
            "coefficients must be floats of shape [..., n]: got int64 of shape (4,).",
        ),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError) as raised:
        make()
    assert str(raised.value) == message


@pytest.mark.parametrize("make", [hippo_system, normal_plus_low_rank])
def test_another_measure_is_told_those_that_are_known(make):
    make = getattr(make, "__wrapped__", make)  # without the shapes' checker, which knows them too
    with pytest.raises(ValueError, match=r"measure must be one of \('legs', 'legt', 'lagt', 'fourier'\): got 'legp'"):
        make("legp", 4)


# The memory.


@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_the_memory_holds_the_staircase_through_the_samples(n):
    u = np.random.default_rng(0).normal(size=700)
    found = np.asarray(project(u, n))
    for t in (1, 2, 3, 50, 700):
        np.testing.assert_allclose(found[t - 1], staircase(u[:t], n), atol=1e-12)


def test_the_memory_holds_it_in_float32_to_rounding(float32):
    u = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    found = project(u, 64)
    assert found.dtype == jnp.float32
    # 3e-7 of rounding a step in units of 1, of which the later steps forget most; and the samples' own rounding
    np.testing.assert_allclose(found[-1], staircase(u.astype(float), 64), atol=1e-5)


def test_a_constant_is_held_from_the_first_sample_on():
    c = np.asarray(project(np.full(40, 2.5), 8))
    np.testing.assert_allclose(c, 2.5 * (np.arange(8) == 0) * np.ones((40, 1)), atol=1e-14)


def test_the_memory_solves_the_scaled_system():
    """For steps that are late, and short against `1 / n^2` of the past: `k (c' - c) = A c + B u` within `O(1 / k)`."""
    A, B = hippo_system("legs", 4)
    c, u = np.random.default_rng(1).normal(size=4), 0.7
    k = 1e6
    after = np.asarray(LegSMemory(4)(jnp.array(c), (jnp.array(u), jnp.array(k))))
    np.testing.assert_allclose(k * (after - c), A @ c + B * u, atol=1e-3)


@pytest.mark.parametrize("k", [1.0, 2.0, 100.0, 1e5])
def test_linearise_is_the_projection_of_a_compressed_past(k):
    n, cell, s = 12, LegSMemory(12), (jnp.array(0.3), jnp.array(k))
    z = jnp.array(np.random.default_rng(2).normal(size=n))
    value, D = cell.linearise(z, s)
    check_linearise(cell, z, s)
    np.testing.assert_allclose(value, cell(z, s), atol=0)
    np.testing.assert_allclose(D, dense_jacobian(cell, z, s)[1], atol=1e-13)
    rho, (x, w) = 1 - 1 / k, leggauss(20)
    x, w = (x + 1) / 2, w / 2
    np.testing.assert_allclose(D, rho * legendre(rho * x, n).T * w @ legendre(x, n), atol=1e-12)
    np.testing.assert_allclose(np.triu(D, 1), 0, atol=1e-13)


def test_gradients_by_the_samples_are_the_stairs_integrals():
    u = np.random.default_rng(3).normal(size=30)
    found = jax.jacrev(lambda u: project(u, 6)[-1])(jnp.array(u))
    wanted = np.stack([staircase(row, 6) for row in np.eye(30)], 1)
    np.testing.assert_allclose(found, wanted, atol=1e-13)


def test_channels_are_mapped_over():
    u = np.random.default_rng(4).normal(size=(60, 3))
    together = jax.vmap(lambda u: project(u, 5), in_axes=1, out_axes=1)(jnp.array(u))
    np.testing.assert_allclose(together[:, 1], project(u[:, 1], 5), atol=1e-14)


def test_a_memory_goes_on_from_any_step():
    u = np.random.default_rng(5).normal(size=90)
    whole = project(u, 7)
    late = evolve(LegSMemory(7), whole[39], (jnp.array(u[40:]), jnp.arange(41.0, 91.0)))
    np.testing.assert_allclose(late.zs, whole[40:], atol=1e-14)


# What 64 coefficients rebuild.

SINE = {"sine": lambda x: np.sin(30 * np.pi * x), "cosine": lambda x: np.cos(30 * np.pi * x)}


def mixed(x):
    """All cycles from 0 to 15, with phases that are not in step."""
    return sum(np.cos(2 * np.pi * m * x + m**2) / (1 + 0.1 * m) for m in range(16))


def errors(f, steps, n=64):
    """Largest and rms error of what is rebuilt, relative to those of the series."""
    series = f(middles(steps))
    off = np.asarray(rebuild(project(series, n)[-1], steps)) - series
    return np.abs(off).max() / np.abs(series).max(), np.sqrt(np.mean(off**2) / np.mean(series**2))


@pytest.mark.parametrize("steps", [1000, 3000, 10_000])
@pytest.mark.parametrize("f", [*SINE.values(), mixed], ids=[*SINE, "mixed"])
def test_fifteen_cycles_are_rebuilt_by_64_coefficients(f, steps):
    largest, rms = errors(f, steps)
    assert largest < 1e-2 and rms < 1e-3


def test_what_is_left_at_fifteen_cycles_is_sampling():
    """The mean over a step of `m` a cycle takes `pi^2 / 6 m^2` off a wave; its last stair is `O(1 / m)` off."""
    m = 1000 / 15
    series = SINE["cosine"](middles(1000))
    off = np.asarray(rebuild(project(series, 64)[-1], 1000)) - series
    np.testing.assert_allclose(off[200:800], -(np.pi**2) / (6 * m**2) * series[200:800], atol=5e-5)
    assert np.abs(off).max() < 0.6 / m


def test_twenty_cycles_are_out_of_the_reach_of_64_polynomials_and_not_of_the_memory():
    def f(x):
        return np.sin(40 * np.pi * x)

    x, w = leggauss(400)
    x, w = (x + 1) / 2, w / 2
    best = legendre(x, 64).T @ (w * f(x))
    found = project(f(middles(10_000)), 64)[-1]
    np.testing.assert_allclose(found, best, atol=1e-4)
    missed = np.sqrt(1 - 2 * np.sum(best**2))  # of the sine, the mean square of which is 1/2
    assert 0.14 < missed < 0.15
    np.testing.assert_allclose(errors(f, 10_000)[1], missed, rtol=5e-3)


def test_rebuilding_is_the_sum_of_its_polynomials_along_leading_axes(float32):
    c = np.random.default_rng(6).normal(size=(2, 3, 9)).astype(np.float32)
    points = np.array([0.0, 0.2, 1.0])
    found = rebuild(c, points)
    assert found.dtype == jnp.float32 and found.shape == (2, 3, 3)
    np.testing.assert_allclose(found, c @ legendre(points, 9).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[..., 2], (c * np.sqrt(2 * np.arange(9) + 1)).sum(-1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(rebuild(c, 4), rebuild(c, np.array([0.125, 0.375, 0.625, 0.875])))


# The figure.


def test_the_figure_shows_the_series_and_what_is_rebuilt_of_it(tmp_path):
    u = mixed(middles(900)) * np.linspace(1, 3, 900)
    c = project(u, 24)
    figure = memory(u, c, name="u (mV)")
    assert save(figure, tmp_path / "memory.png", dpi=40).read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == 3
    for panel, step in zip(figure.axes, (300, 600, 900), strict=True):
        rest, seen, held = (line.get_ydata() for line in panel.lines[:3])
        np.testing.assert_array_equal(rest, u[step - 1 :])
        np.testing.assert_array_equal(seen, u[:step])
        np.testing.assert_allclose(held, rebuild(c[step - 1], step))
        assert min(panel.get_ylim()) <= held.min() and held.max() <= max(panel.get_ylim())
    said = " | ".join(text.get_text() for text in figure.findobj(Text) if text.get_text())
    assert "u (mV)" in said and "rebuilt from 24 coefficients" in said and "step" in said
    for step in (300, 600, 900):
        off = np.asarray(rebuild(c[step - 1], step)) - u[:step]
        assert f"after {step} samples: rms error {percent(np.sqrt(np.mean(off**2) / np.mean(u[:step] ** 2)))}" in said


def test_the_figure_draws_into_given_axes_at_given_steps():
    u = mixed(middles(90))
    panels = Figure().subplots(2, 1)
    figure = memory(u, project(u, 8), at=[1, 80], ax=panels)
    assert figure is panels[0].get_figure()
    assert len(panels[1].lines[1].get_xdata()) == 80


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"coefficients": np.zeros((4, 3))},
            "series and coefficients must have shapes [t] and [t, n]: got (5,) and (4, 3)",
        ),
        ({"at": [0, 3]}, "at must hold numbers of samples from 1 to 5: got [0, 3]."),
        ({"at": []}, "at must hold numbers of samples from 1 to 5: got []."),
        ({"at": [1, 2], "ax": Figure().subplots()}, "ax must hold 2 axes, one a step of at: got 1."),
    ],
)
def test_the_figure_names_bad_input(given, message):
    with pytest.raises(ValueError) as raised:
        memory(**({"series": np.zeros(5), "coefficients": np.zeros((5, 3))} | given))
    assert message in str(raised.value)
