"""A reconstruction taken apart: in the units of the data, in words, and by the command."""

import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dsrecon.analysis import analyse, findings
from dsrecon.analysis.found import Cycle
from dsrecon.analysis.structure import leading
from dsrecon.cli import app
from dsrecon.models import ALRNN, GRU, ContinuousPLRNN
from dsrecon.readout import IdentityReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock

VALUES = np.array([[1.0, -20.0], [3.0, 20.0], [2.0, 0.0], [2.0, 10.0]])


def spiral(growth=1.02, turn=0.1, inputs=0):
    """An AL-RNN that spirals out of (0.3, -0.2), and in again from y > 1: what attracts it is no fixed point."""
    rotation = growth * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([0.3, -0.2])
    # unit 2 sees y - 1 a step late and pulls it back
    W = np.zeros((3, 3))
    W[:2, :2], W[2, 1], W[1, 2] = rotation, 1.0, -0.6
    h = np.r_[centre - rotation @ centre, -1.0]
    cell = ALRNN(3, 1, input_size=inputs, key=jax.random.key(0))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, (jnp.zeros(3), jnp.asarray(W), jnp.asarray(h)))


def model(cell, clock=None, **more):
    readout = IdentityReadout(2, cell.state_size, key=jax.random.key(1))
    clock = Clock(0.5, 0.0, "s") if clock is None else clock
    return Reconstruction(cell, readout, Scaler.fit(VALUES), VALUES[2], clock, ("u", "v"), ("mV", ""), **more)


def test_a_focus_is_found_where_it_was_put_and_told_in_the_units_of_the_data():
    structure = analyse(model(spiral()), longest=2)
    (cycle,) = structure.fixed_points
    scaler = Scaler.fit(VALUES)
    np.testing.assert_allclose(structure.observed[0][0], scaler.unscale(np.array([[0.3, -0.2]]))[0], rtol=1e-12)
    assert cycle.stability.unstable == 2 and cycle.kind == "saddle-focus"
    rate, turn = leading(cycle, 0.5)
    assert rate == pytest.approx(np.log(1.02) / 0.5) and turn == pytest.approx(2 * np.pi / 0.1 * 0.5)
    said = "\n".join(findings(structure))
    assert "Complete up to period 2" in said and "**1 fixed point.**" in said
    x, y = structure.observed[0][0]
    assert f"**saddle-focus** at u = {x:.4g} mV, v = {y:.4g}: " in said
    assert "growing e-fold in 25.2 s and turning once in 31.4 s" in said and "2 unstable and 1 stable" in said
    assert "None of these is stable, and the free run stays bounded" in said or "stable cycle of" in said
    table = structure.table()
    assert table.loc[0, ["u", "v"]].tolist() == [x, y] and table.loc[0, "turns_once_in"] == pytest.approx(31.4159265)


def test_a_stable_focus_attracts_the_free_run():
    structure = analyse(model(spiral(0.9)))
    assert structure.cycles[0].kind == "stable focus"
    assert structure.distance[0] < 1e-6
    said = "\n".join(findings(structure))
    assert "1 stable: attractors, by exact stability" in said and "The free run ends at rest" in said
    assert "orbits come in, shrinking e-fold in 4.75 s" in said and "The free run comes within" in said


def test_a_run_that_diverges_is_told_by_its_step():
    cell = eqx.tree_at(lambda c: c.W, spiral(2.0), spiral(2.0).W.at[1, 2].set(0.0))
    structure = analyse(model(cell))
    assert structure.orbit is None and structure.diverged is not None and np.isnan(structure.distance[0])
    assert f"The free run diverges at step {structure.diverged}" in "\n".join(findings(structure))
    with pytest.raises(RuntimeError, match=f"step {structure.diverged}"):
        model(cell).simulate(10_000)


def test_a_driven_model_is_taken_at_the_mean_of_its_inputs():
    alone, driven = spiral(), spiral(inputs=1)
    fitted = model(driven, input_names=("force",), input_scaler=Scaler.fit(np.array([[3.0], [7.0]])))
    a, b = analyse(model(alone)), analyse(fitted)
    np.testing.assert_allclose(a.observed[0], b.observed[0])
    np.testing.assert_allclose(a.orbit.values, b.orbit.values, rtol=1e-6, atol=1e-6)


def test_too_many_regions_are_left_to_the_heuristic_and_that_is_said():
    # 24 units, and no room for lists: 2^24 regions
    cell = ALRNN(24, 24, key=jax.random.key(0))
    W = 0.1 * np.random.default_rng(0).normal(size=(24, 24))
    cell = eqx.tree_at(lambda c: (c.W, c.h), cell, (jnp.asarray(W), jnp.asarray(np.full(24, 0.3))))
    cell = eqx.tree_at(lambda c: c.A, cell, jnp.full(24, 0.3))
    readout = IdentityReadout(2, 24, key=jax.random.key(1))
    fitted = Reconstruction(cell, readout, Scaler.fit(VALUES), VALUES[2], Clock(), ("u", "v"), ("", ""))
    structure = analyse(fitted, longest=1, tries=50, steps=500)
    assert structure.searched is None and not structure.guessed.certificate.complete
    assert [c.kind.split()[0] for c in structure.cycles] == ["stable"]
    assert "Incomplete: a heuristic search" in findings(structure)[0]
    # words beyond the limit: the short periods complete, the long ones guessed
    both = analyse(model(spiral()), longest=4, limit=2)
    assert both.searched.certificate.longest == 3 and both.guessed.certificate.longest == 4


def test_the_equilibria_of_a_flow_are_found_with_their_rates():
    cell = ContinuousPLRNN(2, 0.5, key=jax.random.key(0))  # a spiral about (1, 2) where both units are open
    W, h = np.array([[0.0, -3.0], [3.0, 0.0]]), np.array([6.1, -2.8])
    cell = eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, (jnp.full(2, -0.1), jnp.asarray(W), jnp.asarray(h)))
    structure = analyse(model(cell), steps=2000)
    ((x, y),) = [c.points[0] for c in structure.fixed_points if c.stability.stable == 2]
    assert (x, y) == (pytest.approx(1.0), pytest.approx(2.0))
    rate, turn = leading(structure.cycles[0], 0.5)
    assert rate == pytest.approx(-0.1) and turn == pytest.approx(2 * np.pi / 3)
    said = "\n".join(findings(structure))
    assert "stable focus" in said and "It is a flow: limit cycles were not looked for" in said


@pytest.mark.parametrize("growth, turn, k", [(1.1, 2 * np.pi / 17, 27), (1.05, 0.5, 71), (1.02, 2 * np.pi / 12, 11)])
def test_a_run_that_settles_on_a_long_cycle_is_told_so(growth, turn, k):
    structure = analyse(model(spiral(growth, turn)), steps=4000)
    assert structure.end is not None and structure.end.period == k and structure.cycles[-1] is structure.end
    z = jnp.asarray(structure.end.points[0])
    for _ in range(k):
        z = spiral(growth, turn)(z)
    np.testing.assert_allclose(z, structure.end.points[0], rtol=1e-9, atol=1e-9)
    assert abs(structure.end.eigenvalues[0]) < 1 and structure.end.margin > 0
    assert structure.distance[-1] < 0.05
    assert f"is a stable cycle of {k} steps** ({k * 0.5:.4g} s)" in "\n".join(findings(structure))


def test_a_run_that_grows_is_not_called_bounded():
    structure = analyse(model(spiral(1.2)), steps=1000)
    assert structure.end is None and "The free run leaves" in "\n".join(findings(structure))


def test_leading_directions():
    def cycle(*eigenvalues):
        return Cycle(np.zeros((2, len(eigenvalues))), np.zeros((2, 1), bool), np.array(eigenvalues, complex), 1.0)

    assert leading(cycle(9.0, 4.0, 0.5)) == (pytest.approx(np.log(2)), np.inf)
    rate, turn = leading(cycle(0.25j, -0.25j, 0.01), 0.1)
    assert rate == pytest.approx(np.log(0.5) / 0.1) and turn == pytest.approx(4 * 2 * 0.1)


def command(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done


FILES = {"analysis.json", "fixed_points.csv", "cycles.csv", "fixed_points.png", "findings.md"}


def test_the_command_writes_tables_a_figure_and_a_page(tmp_path):
    fitted = model(spiral())
    fitted.save(tmp_path / "model.eqx")
    printed = command("analyse", tmp_path, "--longest", 2).stdout
    assert {p.name for p in tmp_path.iterdir()} == FILES | {"model.eqx"}
    structure = analyse(fitted, longest=2)
    page = (tmp_path / "findings.md").read_text()
    for paragraph in findings(structure):
        assert paragraph in page and paragraph in printed
    table = pd.read_csv(tmp_path / "fixed_points.csv", dtype={"regions": str})
    pd.testing.assert_frame_equal(table, structure.table(), check_dtype=False)
    assert len(pd.read_csv(tmp_path / "cycles.csv")) == 0
    document = json.loads((tmp_path / "analysis.json").read_text())
    assert document["complete"]["complete"] and document["complete"]["solved"] == {"1": 2, "2": 1}
    (found,) = document["cycles"]
    np.testing.assert_array_equal(found["states"], structure.cycles[0].points)
    assert [complex(*v) for v in found["eigenvalues"]] == structure.cycles[0].eigenvalues.tolist()
    assert (
        "The largest exponents of the free run, over 20,000 steps, are" in printed and len(document["exponents"]) == 3
    )
    # a closed curve: nothing grows along it, and the exponent says so
    assert "closed curve" in page and abs(document["exponents"][0]) < 1e-3
    command("analyse", tmp_path / "model.eqx", "--out", tmp_path / "elsewhere")
    assert {p.name for p in (tmp_path / "elsewhere").iterdir()} == FILES


def test_the_command_tells_in_a_line_what_is_wrong(tmp_path):
    gru = GRU(3, key=jax.random.key(0))
    readout = IdentityReadout(2, 3, key=jax.random.key(1))
    curved = Reconstruction(gru, readout, Scaler.fit(VALUES), VALUES[0], Clock(), ("u", "v"), ("", ""))
    path = curved.save(tmp_path / "gru.eqx")
    error = command("analyse", path, code=1).stderr
    assert "must be piecewise linear, to be solved in its regions: got GRU" in error and error.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"gru.eqx"}
    assert "no run folder and no model file" in command("analyse", tmp_path / "none.eqx", code=1).stderr
    assert command("analyse", path, "--longest", 0, code=2)
    with pytest.raises(ValueError, match="reconstruction must be a Reconstruction.*got GRU"):
        analyse(gru)
    with pytest.raises(ValueError, match=re.escape("longest, a period, must be a whole number from 1 on: got 0")):
        analyse(model(spiral()), longest=0)
