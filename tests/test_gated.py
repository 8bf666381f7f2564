"""The smooth and gated cells: their equations, bounds and structures; restarts; cells that lie about their Jacobian."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CELLS, READOUTS, inputs, instance, named, states, stirred

import dsrecon
from dsrecon.cell import AbstractCell, Restart, Restarted, as_matrix, check_linearise, times_diagonal
from dsrecon.evolve import evolve
from dsrecon.kernels.structure import apply
from dsrecon.measures import lyapunov_spectrum
from dsrecon.modelfile import read_module, write_module
from dsrecon.models import GRU, LSTM, ParaGRU, ParaLSTM, RecurrentHighway, TanhRNN
from dsrecon.readout import Forced, Forcing, IdentityReadout, LinearReadout
from dsrecon.training import Windows, fit, gtf
from dsrecon.training.adaptive import jacobians

KEY = jax.random.key(3)
RNG = np.random.default_rng(6)
NAMES = ("tanh", "gru", "lstm", "highway", "paragru", "paralstm")
ROWS = {row.name: row for row in CELLS if row.name.split("-")[0] in (*NAMES, "forced", "restarted")}
T = np.arange(300) * 0.2
SERIES = 0.8 * np.stack([np.sin(T), np.cos(1.1 * T)], axis=1)


def cell_of(name):
    return instance(ROWS[name])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- equations -------------------------------------------------------------------------------------------


def tanh_by_hand(c, z, s):
    return np.tanh(c.W @ z + c.C @ s + c.h)


def gru_by_hand(c, z, s):
    (Wr, Wu, Wn), (Cr, Cu, Cn), (hr, hu, hn) = (np.split(x, 3) for x in (c.W, c.C, c.h))
    r, u = sigmoid(Wr @ z + Cr @ s + hr), sigmoid(Wu @ z + Cu @ s + hu)
    n = np.tanh(r * (Wn @ z + c.a) + Cn @ s + hn)
    return u * z + (1 - u) * n


def lstm_by_hand(c, z, s):
    h, memory = np.split(z, 2)
    i, f, g, o = np.split(c.W @ h + c.C @ s + c.b, 4)
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(memory), memory])


def highway_by_hand(c, z, s):
    for j in range(2):
        first = j == 0
        g = np.tanh(c.W[j] @ z + c.h[j] + first * c.C @ s)
        t = sigmoid(c.V[j] @ z + c.b[j] + first * c.D @ s)
        z = t * g + (1 - t) * z
    return z


def paragru_by_hand(c, z, s):
    (r, u, n), (Ar, Au, An) = np.split(c.C @ s + c.h, 3), c.A
    r, u = sigmoid(Ar * z + r), sigmoid(Au * z + u)
    return u * z + (1 - u) * np.tanh(An * (r * z) + n)


def paralstm_by_hand(c, z, s):
    (f, g, o), (Af, Ag, Ao), (Pf, Po) = np.split(c.C @ s + c.b, 3), c.A, c.P
    h, memory = np.split(z, 2)
    f = sigmoid(Af * h + Pf * memory + f)
    memory = f * memory + (1 - f) * np.tanh(Ag * h + g)
    return np.concatenate([sigmoid(Ao * h + Po * memory + o) * np.tanh(memory), memory])


BY_HAND = dict(
    zip(
        NAMES,
        (tanh_by_hand, gru_by_hand, lstm_by_hand, highway_by_hand, paragru_by_hand, paralstm_by_hand),
        strict=True,
    )
)


@pytest.mark.parametrize("name", NAMES)
def test_equations_by_hand(name):
    driven, s = cell_of(f"{name}-driven"), np.array([0.5, -2.0])
    z = np.asarray(states(driven))
    cell = jax.tree.map(np.asarray, driven)
    both = eqx.filter_jit(lambda z, s: (driven(z, s), driven(z)))(jnp.asarray(z), jnp.asarray(s))
    for found, by in zip(both, (s, 0 * s), strict=True):
        np.testing.assert_allclose(found, BY_HAND[name](cell, z, by), rtol=1e-13, atol=1e-14)


def test_a_gru_and_an_lstm_are_those_of_equinox():
    # written by others: the same order of gates, the same place of the reset
    z, s = jnp.asarray(RNG.normal(size=4)), jnp.asarray(RNG.normal(size=2))
    cells = (GRU(4, input_size=2, key=KEY), LSTM(2, input_size=2, key=KEY))

    @eqx.filter_jit
    def both(gru, lstm, cells):
        fields = (gru.weight_hh, gru.weight_ih, gru.bias, gru.bias_n, lstm.weight_hh, lstm.weight_ih, lstm.bias)
        where = lambda c: (c[0].W, c[0].C, c[0].h, c[0].a, c[1].W, c[1].C, c[1].b)  # noqa: E731
        ours = [cell(z, s) for cell in eqx.tree_at(where, cells, fields)]
        return ours, [gru(s, z), jnp.concatenate(lstm(s, (z[:2], z[2:])))]

    for ours, theirs in zip(*both(eqx.nn.GRUCell(2, 4, key=KEY), eqx.nn.LSTMCell(2, 2, key=KEY), cells), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_structured_cells_are_gated_cells_with_diagonal_recurrences():
    def diagonals(A):
        return jnp.asarray(np.concatenate([np.diag(a) for a in A]))

    para, gru, s = cell_of("paragru-driven"), cell_of("gru-driven"), jnp.array([0.5, -2.0])
    gru = eqx.tree_at(lambda c: (c.W, c.C, c.h, c.a), gru, (diagonals(para.A), para.C, para.h, jnp.zeros(3)))
    z = states(gru)
    np.testing.assert_allclose(para(z, s), gru(z, s), rtol=1e-13)
    # the input gate of coupled ones, 1 - sigmoid(x), is sigmoid(-x)
    para = eqx.tree_at(lambda c: c.P, cell_of("paralstm-driven"), jnp.zeros((2, 3)))
    (f, g, o), (Cf, Cg, Co), (bf, bg, bo) = (np.split(np.asarray(x), 3) for x in (para.A, para.C, para.b))
    lstm = eqx.filter_eval_shape(LSTM, 3, input_size=2, key=KEY)
    values = (
        diagonals((-f[0], f[0], g[0], o[0])),
        np.concatenate([-Cf, Cf, Cg, Co]),
        np.concatenate([-bf, bf, bg, bo]),
    )
    lstm = eqx.tree_at(lambda c: (c.W, c.C, c.b), lstm, tuple(map(jnp.asarray, values)))
    z = states(lstm)
    np.testing.assert_allclose(para(z, s), lstm(z, s), rtol=1e-13)
    np.testing.assert_allclose(as_matrix(para.linearise(z, s)[1]), lstm.linearise(z, s)[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_orbits_are_bounded(name):
    cell = cell_of(f"{name}-driven")
    s = jnp.asarray(RNG.normal(size=(2, 200, 2)))
    far, near = np.asarray(evolve(cell, jnp.asarray([1e3, 0.9])[:, None] * jnp.sign(states(cell, 2)), s).zs)
    if name == "lstm":  # what it keeps is at most a geometric sum
        _, f, _, _ = jnp.split(jnp.abs(cell.W).sum(1)[None] + jnp.abs(cell.b)[None] + jnp.abs(s[1] @ cell.C.T), 4, 1)
        assert (np.abs(near[:, :2]) <= 1).all() and (np.abs(far[:, :2]) <= 1).all()
        assert (np.abs(near[:, 2:]) <= 1 / (1 - sigmoid(np.asarray(f).max(0)))).all()
        return
    assert (np.abs(near) <= 1).all() and np.abs(near).max() > 0.5
    # from far away no unit moves further out; 1e-12 for the rounding of 200 convex combinations
    assert (np.abs(far) <= 1e3 * (1 + 1e-12)).all()
    shown = 3 if name in ("tanh", "paralstm") else 0
    assert (np.abs(far[:, :shown]) <= 1).all()


def test_start_values():
    def make():
        dense = [make(4, input_size=2, key=KEY) for make in (TanhRNN, GRU, LSTM)]
        return *dense, RecurrentHighway(4, 3, input_size=2, key=KEY), ParaGRU(9, key=KEY), ParaLSTM(2, key=KEY)

    *dense, paragru, paralstm = jax.tree.map(np.asarray, eqx.filter_jit(make)())
    for cell in dense:
        blocks = np.concatenate([cell.W, cell.V]) if isinstance(cell, RecurrentHighway) else cell.W
        blocks = blocks.reshape(-1, 4, 4)
        np.testing.assert_allclose(blocks @ blocks.swapaxes(1, 2), np.tile(np.eye(4), (len(blocks), 1, 1)), atol=1e-13)
        assert len(np.unique(blocks.reshape(len(blocks), -1), axis=0)) == len(blocks)
        assert 0.5 < np.abs(cell.C).max() * 2**0.5 <= 1
    assert dense[2].b.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    assert (dense[3].b == -2).all() and (dense[1].a == 0).all()
    assert paralstm.b.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert 0.5 < np.abs(paragru.A).max() <= 1 and 0.3 < np.abs(paralstm.P).max() <= 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TanhRNN(0, key=KEY), r"state_size must be at least 1: got 0\."),
        (lambda: GRU(2, input_size=-1, key=KEY), r"input_size must be at least 0: got -1\."),
        (lambda: LSTM(0, key=KEY), r"hidden_size must be at least 1: got 0\."),
        (lambda: RecurrentHighway(2, 0, key=KEY), r"depth must be at least 1: got 0\."),
        (lambda: ParaGRU(-1, key=KEY), r"state_size must be at least 1: got -1\."),
        (lambda: ParaLSTM(0, key=KEY), r"hidden_size must be at least 1: got 0\."),
    ],
)
def test_bad_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- structured Jacobians ----------------------------------------------------------------------------------


@pytest.mark.parametrize("c, k", [(1, 4), (2, 3), (3, 3), (3, 1)])
def test_blocks_are_component_major(c, k):
    blocks, v, d = (jnp.asarray(RNG.normal(size=shape)) for shape in ((c, c, k), c * k, c * k))
    M = np.zeros((c * k, c * k))
    for i, j, l in np.ndindex(c, c, k):
        M[i * k + l, j * k + l] = blocks[i, j, l]
    for J, dense in ((blocks, M), (v, np.diag(v)), (jnp.asarray(M), M)):
        assert np.array_equal(as_matrix(J), dense)
        np.testing.assert_allclose(apply(J, d), dense @ d, rtol=1e-13, atol=1e-14)
        scaled = times_diagonal(J, d)
        assert scaled.shape == J.shape
        np.testing.assert_allclose(as_matrix(scaled), dense @ np.diag(d), rtol=1e-13)
    # what is not finite stays where it is
    assert np.isnan(as_matrix(blocks.at[..., 0].set(jnp.nan))).sum() == c * c


STRUCTURES = {
    "paragru": (3,),
    "paralstm-driven": (2, 2, 3),
    "gru": (3, 3),
    "forced-paragru": (4,),
    "forced-alrnn": (4, 4),
    "restarted-paralstm": (2, 2, 2),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_cells_declare_their_structure(name):
    cell = cell_of(name)
    z, s = states(cell, 5), inputs(ROWS[name], 5)
    J = jax.eval_shape(jax.vmap(lambda z, s: cell.linearise(z, s)[1]), z, s)
    assert J.shape == (5, *STRUCTURES[name])
    check_linearise(cell, z, s)
    check_linearise(cell, z[0], inputs(ROWS[name]))


@pytest.mark.parametrize("row", READOUTS, ids=named)
def test_a_unitwise_readout_moves_every_unit_by_itself(row):
    readout = stirred(row.make(KEY))
    z, x = (jax.random.normal(KEY, (size,)) for size in (readout.state_size, readout.observed_size))
    for mask in (None, jnp.arange(readout.observed_size) == 0):
        J = eqx.filter_jit(jax.jacfwd(lambda z, mask=mask: readout.encode(x, z, mask)))(z)
        assert readout.unitwise == (not (J - jnp.diag(jnp.diag(J))).any())


LINEAR = {m: stirred(LinearReadout(2, m, key=KEY)) for m in (3, 6)}


@pytest.mark.parametrize("cell", ["paragru", "paralstm", "gru"])
@pytest.mark.parametrize("masked", [False, True])
def test_forcing_keeps_the_structure(cell, masked):
    cell = cell_of(cell)
    m, z, alpha = cell.state_size, states(cell), 0.3
    s = Forcing(jnp.array([0.7, -0.4]), jnp.asarray(alpha), None, jnp.array([False, True]) if masked else None)
    own = Forced(cell, IdentityReadout(2, m, key=KEY))
    value, J = own.linearise(z, s)
    _, free = cell.linearise(own.force(z, s))
    assert J.shape == free.shape
    kept = jnp.array([1.0 if masked else 1 - alpha, 1 - alpha, *[1.0] * (m - 2)])
    np.testing.assert_allclose(as_matrix(J), as_matrix(free) * kept[None], rtol=1e-14)
    for forced in (own, Forced(cell, LINEAR[m]))[: 1 if masked else 2]:
        laws = eqx.filter_jit(lambda f, z, s: (f.linearise(z, s), f(z, s), jax.jacfwd(f)(z, s)))
        (value, J), wanted, jacobian = laws(forced, z, s)
        np.testing.assert_allclose(value, wanted, rtol=1e-13)
        np.testing.assert_allclose(as_matrix(J), jacobian, rtol=1e-12, atol=1e-14)
    assert masked or J.shape == (m, m)


class Liar(AbstractCell):
    """Says of a linear map what `lie` makes of its matrix."""

    W: jax.Array
    lie: str = eqx.field(static=True)
    state_size: int = eqx.field(static=True, default=4)

    def __call__(self, z, s=None):
        return self.W @ z

    def linearise(self, z, s=None):
        W = self.W
        lies = {
            "diagonal": lambda: jnp.diag(W),
            "blocks": lambda: jnp.stack(
                [jnp.stack([jnp.diag(b) for b in jnp.split(a, 2, 1)]) for a in jnp.split(W, 2)]
            ),
            "transposed": lambda: W.T,
            "nothing": lambda: W * jnp.nan,
            "column": lambda: W[:, :1],
            "torn": lambda: jnp.zeros((3, 3, 1)),
            "truth": lambda: W,
            "value": lambda: W,
        }
        return self(z) * (1.01 if self.lie == "value" else 1), lies[self.lie]()


W = np.arange(16.0).reshape(4, 4) - 5


@pytest.mark.parametrize(
    "lie, message",
    [
        (
            "diagonal",
            r"Liar.linearise declares a .* shape \[4\] \(diagonal\).* \[3, 2\] is 0 where .* gives 9; 36 of 48",
        ),
        ("blocks", r"shape \[2, 2, 2\] \(blocks\), but .* entry \[3, 2\] is 0 where forward mode gives 9; 24 of 48"),
        (
            "transposed",
            r"shape \[4, 4\] \(dense\), but at state 0 its entry \[0, 3\] is 7 where forward mode gives -2;",
        ),
        ("nothing", r"shape \[4, 4\] \(dense\), but at state 0 its entry \[0, 0\] is nan where .* gives -5; 48 of 48"),
        ("value", r"Liar.linearise must return the next state, but at state \d its entry .* 12 of 12 entries"),
        ("column", r"Liar.linearise must return .* \[c, c, k\] with c k = 4: got \(4,\) and \(4, 1\)\."),
        ("torn", r"with c k = 4: got \(4,\) and \(3, 3, 1\)\."),
    ],
)
def test_a_false_structure_is_found_out(lie, message):
    zs = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))
    check_linearise(Liar(jnp.asarray(W), "truth"), zs)
    with pytest.raises(ValueError, match=message):
        check_linearise(Liar(jnp.asarray(W), lie), zs)
    if lie in ("diagonal", "blocks"):  # of a matrix that has it, the structure is true
        same = Liar(jnp.diag(jnp.diag(jnp.asarray(W))), lie)
        check_linearise(same, zs)
        check_linearise(same, zs[0])


def test_the_check_in_single_precision(float32):
    cell = jax.tree.map(lambda x: x.astype(jnp.float32), cell_of("paralstm-driven"))
    check_linearise(cell, states(cell, 20), jnp.asarray(RNG.normal(size=(20, 2)), jnp.float32))
    with pytest.raises(ValueError, match="declares a Jacobian"):
        check_linearise(Liar(jnp.asarray(W, jnp.float32), "diagonal"), jnp.ones((3, 4), jnp.float32))


def test_what_takes_matrices_takes_these_cells_too():
    model = Forced(cell_of("paralstm"), IdentityReadout(2, 6, key=KEY))
    batch = Windows(jnp.asarray(SERIES), length=4, batch=2)(KEY)
    assert jacobians(model, jnp.asarray(0.2), batch).shape == (2, 4, 6, 6)
    # m independent maps, each with a stable fixed point: the exponents are the logs of the slopes there
    cell = eqx.tree_at(lambda c: c.A, cell_of("paragru"), 0.5 * cell_of("paragru").A)
    z = evolve(cell, states(cell), steps=300).zs[-1]
    found = np.asarray(lyapunov_spectrum(cell, z, steps=20, discard=0))
    np.testing.assert_allclose(found, np.sort(np.log(np.abs(cell.linearise(z)[1])))[::-1], rtol=1e-8)


# --- restarts ----------------------------------------------------------------------------------------------


def test_trials_in_one_sequence_are_trials_apart():
    cell = cell_of("gru-driven")
    lengths, s = (4, 1, 6), jnp.asarray(RNG.normal(size=(11, 2)))
    starts = states(cell, 3)
    first = np.cumsum((0, *lengths[:-1]))
    new = jnp.zeros(11, bool).at[first].set(True)
    start = jnp.full((11, 3), jnp.nan).at[first].set(starts)  # what is not looked at may be anything
    together = evolve(Restarted(cell), jnp.full(3, jnp.nan), Restart(new, start, s)).zs
    for i, (at, length) in enumerate(zip(first, lengths, strict=True)):
        alone = evolve(cell, starts[i], s[at : at + length]).zs
        np.testing.assert_allclose(together[at : at + length], alone, rtol=1e-14)


@pytest.mark.parametrize("name", ["gru", "paragru", "paralstm"])
def test_a_nan_stays_in_its_trial(name):
    cell = Restarted(cell_of(name))
    m, steps = cell.state_size, 6
    new = jnp.arange(steps) == 3
    start = jnp.broadcast_to(states(cell), (steps, m))

    @jax.jit
    @jax.value_and_grad
    def seen(starts, first):
        zs = evolve(cell, starts[0], Restart(new, jnp.tile(starts[1][None], (steps, 1))), throw=False).zs
        return jnp.sum(jnp.sin(jnp.where(first == (jnp.arange(steps) < 3), zs.T, 0)))

    bad = jnp.full(m, jnp.nan)
    for first, starts in ((False, jnp.stack([bad, start[0]])), (True, jnp.stack([start[0], bad]))):
        own, other = (0, 1) if first else (1, 0)
        value, slopes = seen(starts, jnp.asarray(first))
        wanted, healthy = seen(starts.at[other].set(0.3), jnp.asarray(first))
        assert value == wanted and np.array_equal(slopes[own], healthy[own]) and (healthy[own] != 0).any()
        assert (healthy[other] == 0).all()
    value, J = cell.linearise(bad, Restart(new[3], start[3]))
    assert J.shape == cell.cell.linearise(start[0])[1].shape and (J == 0).all()
    assert np.array_equal(value, cell.cell.linearise(start[3])[0])
    value, J = cell.linearise(start[3], Restart(new[0], bad))
    assert np.array_equal(J, cell.cell.linearise(start[3])[1]) and (J != 0).any()


def test_a_forced_cell_restarts_inside_and_outside():
    free, readout = cell_of("paragru-driven"), IdentityReadout(2, 3, key=KEY)
    x, s, z = jnp.array([0.5, -0.5]), jnp.array([1.0, 0.3]), states(free)
    inside = Forced(Restarted(free), readout)(z + 9, Forcing(x, jnp.asarray(0.4), Restart(jnp.asarray(True), z, s)))
    outside = Restarted(Forced(free, readout))(z + 9, Restart(jnp.asarray(True), z, Forcing(x, jnp.asarray(0.4), s)))
    np.testing.assert_allclose(inside, free(z, s), rtol=1e-14)
    np.testing.assert_allclose(outside, Forced(free, readout)(z, Forcing(x, jnp.asarray(0.4), s)), rtol=1e-14)


# --- the way of every cell -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_written_and_read(name, tmp_path):
    cell = cell_of(f"{name}-driven")
    path = write_module(tmp_path / "cell.eqx", Restarted(cell))
    again = read_module(path, Restarted).cell
    assert type(again) is type(cell) and jax.tree.structure(again) == jax.tree.structure(cell)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(cell), strict=True))


MAKERS = {
    "tanh": lambda key: TanhRNN(6, input_size=2, key=key),
    "gru": lambda key: GRU(6, input_size=2, key=key),
    "lstm": lambda key: LSTM(4, input_size=2, key=key),
    "highway": lambda key: RecurrentHighway(6, 2, input_size=2, key=key),
    "paragru": lambda key: ParaGRU(6, input_size=2, key=key),
    "paralstm": lambda key: ParaLSTM(4, input_size=2, key=key),
}


@pytest.mark.slow
@pytest.mark.usefixtures("optimiser_promotion")
def test_every_cell_learns_under_forcing():
    made = eqx.filter_jit(lambda: {name: make(KEY) for name, make in MAKERS.items()})()
    models = {name: Forced(c, IdentityReadout(2, c.state_size, key=KEY)) for name, c in made.items()}
    one = gtf(0.2)

    def loss(models, state, batch, key):
        """All cells side by side, so that they compile together: no parameter is shared, and Adam goes one by one."""
        each = {name: one(model, state, batch, key)[0] for name, model in models.items()}
        return sum(each.values()), (state, each)

    # the row before drives the step: structured cells couple their units through it
    windows = Windows(jnp.asarray(SERIES[1:]), length=10, batch=8, s=jnp.asarray(SERIES[:-1]))
    _, history = fit(models, loss, windows, optax.adam(3e-2), steps=100, key=KEY, progress=False)
    for name in NAMES:
        course = history.facts[name]
        # that of a constant is .32, the variance of the data
        assert course[-10:].mean() < 0.3 * course[:10].mean() and course[-10:].mean() < 0.1, name


@pytest.mark.usefixtures("optimiser_promotion")
def test_a_gru_is_reconstructed_scored_and_loaded(tmp_path):
    series = 3 + np.tile(SERIES, (2, 1))
    model = dsrecon.reconstruct(
        series,
        lambda key: GRU(6, key=key),
        readout=lambda key: LinearReadout(2, 6, key=key),
        runs=1,
        steps=40,
        length=5,
        alpha=0.2,
        evaluations=1,
        key=0,
        progress=False,
    )
    assert isinstance(model.cell, GRU) and isinstance(model.readout, LinearReadout)
    run = model.simulate(50)
    assert run.shape == (50, 2) and np.isfinite(run.values).all()
    model.save(tmp_path / "model.eqx")
    again = dsrecon.load(tmp_path / "model.eqx")
    assert np.array_equal(again.simulate(50).values, run.values)
