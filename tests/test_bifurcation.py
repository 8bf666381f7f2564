"""Continuation of cycles: branches and events against closed forms, and the figure of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.text import Text

from dsrecon.analysis import cycles
from dsrecon.analysis.asymptotic import asymptotic_orbits
from dsrecon.analysis.bifurcation import continuation
from dsrecon.analysis.events import smallest_rotation
from dsrecon.cell import AbstractPWLCell
from dsrecon.evolve import evolve
from dsrecon.models import ALRNN
from dsrecon.plot.bifurcation import bifurcation
from dsrecon.systems import Lozi, MapCell

B = 0.3
AT = 0.1234567


def alrnn(A, W, h, pwl_units):
    """An ALRNN of given parameters."""
    cell = ALRNN(len(h), pwl_units, key=jax.random.key(0))
    new = (jnp.asarray(A, float), jnp.asarray(W, float), jnp.asarray(h, float))
    return eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, new)


def tent(a, b, mu):
    """The normal form of a border collision: `a x + mu` up to 0, `b x + mu` above."""
    return alrnn([a], [[b - a]], [mu], 1)


def shown(sides):
    """Period, word and whether stable, of cycles."""
    return {(c.period, "".join(sorted("01"[int(b)] for b in c.word[:, 0])), c.kind.startswith("stable")) for c in sides}


LEFT, RIGHT, BOTH = (1, "0"), (1, "1"), (2, "01")
# slopes; what is just below and above mu = 0 with whether it is stable; the kind (Nusse & Yorke 1992, of periods 1, 2)
TENTS = [
    (0.5, -0.5, {(*LEFT, True)}, {(*RIGHT, True)}, "persistence"),
    (-0.5, 0.5, {(*LEFT, True)}, {(*RIGHT, True)}, "persistence"),
    (0.5, -1.5, {(*LEFT, True)}, {(*RIGHT, False), (*BOTH, True)}, "persistence"),
    (-1.5, -0.5, {(*LEFT, False), (*BOTH, True)}, {(*RIGHT, True)}, "persistence"),
    (0.9, -2.5, {(*LEFT, True)}, {(*RIGHT, False), (*BOTH, False)}, "persistence"),
    (0.5, 1.5, {(*LEFT, True), (*RIGHT, False)}, set(), "non-smooth fold"),
    (1.5, -0.5, set(), {(*LEFT, False), (*RIGHT, True)}, "non-smooth fold"),
]


@pytest.mark.parametrize("values", [np.linspace(-1, 1, 4), np.array([-0.7, AT, 0.9])], ids=["between", "on a value"])
@pytest.mark.parametrize("a, b, below, above, kind", TENTS)
def test_border_collisions_of_the_normal_form(values, a, b, below, above, kind):
    found = continuation(lambda mu: tent(a, b, mu - AT), values, 2)
    (event,) = found.events
    assert abs(event.value - AT) < 1e-12 and event.kind == kind and event.gates == ((0, 0),)
    assert shown(event.below) == below and shown(event.above) == above
    assert f"{kind}: point 0 meets the border of gate 0" in event.message and "Below: " in event.message
    # the branches: each on the side where it is, with the closed form of its points
    assert len(found.branches) == len(below) + len(above) and set(event.branches) == set(range(len(found.branches)))
    for branch in found.branches:
        mu, letters = branch.values - AT, branch.word[:, 0]
        side = below if branch.interval[0] == values[0] else above
        assert (
            branch.period,
            "".join("01"[int(x)] for x in sorted(letters)),
            bool(branch.stable[0] or branch.stable[-1]),
        ) in side
        assert event.value in branch.interval and set(branch.interval) <= {values[0], event.value, values[-1]}
        other = np.where(np.roll(letters, -1), b, a)  # slope at the next point
        slope = np.where(letters, b, a)
        wanted = mu[:, None] * (1 + other) / (1 - slope * other) if branch.period == 2 else mu[:, None] / (1 - slope)
        np.testing.assert_allclose(branch.points[:, :, 0], wanted, atol=1e-12)
        np.testing.assert_allclose(branch.eigenvalues[:, 0], slope.prod(), rtol=1e-12)


def test_a_point_that_stays_on_a_border_ends_no_branch():
    # a = 1/2, b = -3: the 3-cycle has its middle point at x = 0 for all mu > 0, and both words go along it
    found = continuation(lambda mu: tent(0.5, -3.0, mu - AT), np.linspace(-1, 1, 6), 3)
    (event,) = found.events
    assert {branch.period for branch in found.branches} == {1, 2, 3} and event.kind == "persistence"
    (three,) = (branch for branch in found.branches if branch.period == 3)
    assert three.interval == (event.value, 1.0) and three.word.sum() == 1
    np.testing.assert_allclose(three.eigenvalues, -0.75, rtol=1e-12)
    assert set(three.kinds[1:]) == {"border collision"} and "3-cycle" in event.message


def test_two_events_in_one_step_show_in_its_middle():
    # mu = t^2 - 0.01 has the same sign at both values; the fixed point goes to the left of the border and back
    found = continuation(lambda t: tent(0.5, -0.5, t * t - 0.01), [-1.0, 0.9], 1)
    assert [event.kind for event in found.events] == ["persistence"] * 2
    np.testing.assert_allclose([event.value for event in found.events], [-0.1, 0.1], rtol=1e-12)
    assert [len(found.at(t)) for t in (-0.5, 0.0, 0.5)] == [1, 1, 1] and len(found.branches) == 3


def test_flip_of_the_normal_form():
    found = continuation(lambda b: tent(0.5, b, 1.0), np.linspace(-2, 0.5, 5), 2)
    (event,) = found.events
    assert event.kind == "flip" and abs(event.value + 1) < 1e-12
    fixed, double = found.branches
    assert fixed.interval == (-2.0, 0.5) and double.interval == (-2.0, event.value)
    np.testing.assert_allclose(fixed.points[:, 0, 0], 1 / (1 - fixed.values), rtol=1e-12)
    # the segment of 2-cycles at b = -1 reaches from the fixed point to the border: there the 2-cycle branches off
    assert np.abs(double.points[-1]).min() < 1e-12
    assert "-1" in event.message and "2-cycles fill a segment" in event.message and event.branches == (0, 1)
    table = found.table()
    assert list(table["period"]) == [1, 2] and list(table["ends"]) == ["", "flip"]
    assert found.event_table()["value"][0] == event.value


def test_lozi():
    found = continuation(lambda a: Lozi(a=a, b=B), np.linspace(0.5, 1.6, 8), 2)
    values = {kind: sorted(e.value for e in found.events if e.kind == kind) for kind in ("flip", "escape to infinity")}
    np.testing.assert_allclose(values["flip"], [1 - B, 1 + B], rtol=1e-12)
    np.testing.assert_allclose(values["escape to infinity"], [1 - B], rtol=1e-12)
    assert len(found.events) == 3
    fixed = {bool(branch.word[0, 0]): branch for branch in found.branches if branch.period == 1}
    (double,) = (branch for branch in found.branches if branch.period == 2)
    np.testing.assert_allclose(fixed[True].points[:, 0, 0], 1 / (1 + fixed[True].values - B), rtol=1e-12)
    np.testing.assert_allclose(fixed[False].points[:, 0, 0], 1 / (1 - fixed[False].values - B), rtol=1e-12)
    a = double.values
    sides = ((1 - B) - a, (1 - B) + a)
    np.testing.assert_allclose(double.points[:, :, 0], np.stack(sides, 1) / ((1 - B) ** 2 + a**2)[:, None], atol=1e-13)
    # from the border at a = 1 - b; the left fixed point from infinity, so that it has no point there
    assert abs(double.interval[0] - (1 - B)) < 1e-12 and np.isfinite(fixed[False].points).all()
    assert abs(fixed[False].interval[0] - (1 - B)) < 1e-12 and fixed[False].values[0] > 1 - B + 0.01
    assert [len(found.at(x)) for x in (0.6, 1.0, 1.4)] == [1, 3, 3]


def test_the_3_cycles_of_lozi_are_born_in_a_non_smooth_fold():
    # x_0 = 0, x_1 > 0, x_2 < 0 and back: by hand, -a^2 + a (1 + b) + 1 + b + b^2 = 0 (the golden ratio at b = 0)
    known = np.roots([-1, 1 + B, 1 + B + B**2]).max()
    found = continuation(lambda a: Lozi(a=a, b=B), [1.9, 1.97, 2.05], 3)
    (event,) = found.events
    assert event.kind == "non-smooth fold" and abs(event.value - known) < 1e-11
    assert not event.below and sorted(c.period for c in event.above if c.period == 3) == [3, 3]
    first = found.branches[event.branches[0]]
    ((t, gate),) = event.gates
    assert gate == 0 and abs(first.points[0, t, 0]) < 1e-11
    assert {found.branches[i].period for i in event.branches} == {3}
    # every cycle is in it at a value that was asked for
    assert len(found.at(2.05)) == len(cycles(Lozi(a=2.05, b=B), 3))


def test_neimark_sacker():
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s], [s, c]])

    def family(r):
        return alrnn([0, 0], r * turn, (np.eye(2) - r * turn) @ np.array([0.2, 1.0]), 1)

    (event,) = continuation(family, [0.8, 0.93, 1.11], 1).events
    assert event.kind == "Neimark-Sacker" and abs(event.value - 1) < 1e-12 and "angle of 0.7," in event.message
    assert [c.kind for c in (*event.below, *event.above)] == ["stable focus", "unstable focus"]


def test_what_is_no_event():
    # a saddle with eigenvalues 2 and t: their product passes 1 at t = 1/2
    assert not continuation(lambda t: alrnn([2.0, t], np.zeros((2, 2)), [0.3, 0.1], 1), [0.3, 0.6, 0.8], 1).events
    # eigenvalues on the unit circle all along: a flip and an angle for ever, and no crossing
    assert not continuation(lambda t: alrnn([-1.0], [[0.0]], [t], 0), [0.3, 0.6, 0.8], 1).events
    for a in (0.3, 0.4):
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        assert not continuation(lambda t, turn=turn: alrnn([0, 0], turn, [t, 1.0], 0), [0.3, 0.6, 0.8], 1).events


def test_eigenvalue_one():
    line = continuation(lambda t: alrnn([t], [[0.0]], [0.0], 0), [0.5, 0.9, 1.2], 1)
    (event,) = line.events
    assert event.kind == "line of cycles" and abs(event.value - 1) < 1e-12
    assert [branch.stable.all() for branch in line.branches] == [True, False]
    away = continuation(lambda t: alrnn([t], [[0.0]], [1.0], 0), [0.5, 0.9, 1.2], 1)
    (event,) = away.events
    assert event.kind == "escape to infinity" and abs(event.value - 1) < 1e-12
    assert [branch.interval for branch in away.branches] == [(0.5, event.value), (event.value, 1.2)]
    assert all(np.abs(branch.points).max() < 1e3 for branch in away.branches)
    # at a value itself: the line is told there
    on = continuation(lambda t: alrnn([t], [[0.0]], [0.0], 0), [0.5, 1.0, 1.2], 1)
    assert [event.kind for event in on.events] == ["line of cycles"] and on.singular[0][0] == 1.0


class Broken(AbstractPWLCell):
    """`x / 2 + mu`, and a half more above 0."""

    mu: jax.Array
    state_size: int = eqx.field(static=True, default=1)

    def __call__(self, z, s=None):
        A, h = self.affine(self.region(z))
        return A @ z + h

    def gates(self, s=None):
        return jnp.ones((1, 1)), jnp.zeros(1)

    def region(self, z, s=None):
        return z > 0

    def affine(self, region, s=None):
        return jnp.full((1, 1), 0.5), jnp.where(region, 0.5, 0.0) + self.mu


def test_a_map_that_jumps():
    found = continuation(lambda mu: Broken(jnp.asarray(mu)), [-1.0, -0.3, 0.4], 1)
    assert [(e.kind, round(e.value, 12)) for e in found.events] == [
        ("border collision", -0.5),
        ("border collision", 0.0),
    ]
    assert all("jumps" in event.message for event in found.events)
    assert [len(found.at(x)) for x in (-0.9, -0.25, 0.2)] == [1, 2, 1]


def random(t):
    rng = np.random.default_rng(5)
    A, W, h = rng.uniform(-0.5, 0.5, 3), rng.normal(size=(3, 3)), rng.normal(size=3)
    return alrnn(A, t * W, h, 2)


def test_laws_of_a_family_at_random():
    values = np.linspace(0.2, 1.8, 9)
    found = continuation(random, values, 3)
    assert len(found.events) > 3 and (np.diff([event.value for event in found.events]) >= 0).all()
    for value in values[1:-1]:  # what a search finds there is what the branches have
        cell, branches = random(value), found.at(value)
        assert len(branches) == len(cycles(cell, 3))
        for branch in branches:
            points = branch.points[np.flatnonzero(branch.values == value)[0]]
            after = jax.vmap(cell)(jnp.asarray(points))
            np.testing.assert_allclose(after, np.roll(points, -1, axis=0), atol=1e-10 * (1 + np.abs(points).max()))
    for event in found.events:  # and beside every event
        for side, value in ((event.below, event.value - 1e-5), (event.above, event.value + 1e-5)):
            there = cycles(random(value), 3)
            assert len(there) == len(found.at(value))
            words = {smallest_rotation(cycle.word) for cycle in there}
            assert words >= {smallest_rotation(cycle.word) for cycle in side if cycle.period <= 3}
    again = continuation(random, np.linspace(0.2, 1.8, 14), 3)  # no event depends on the values asked for
    assert [event.kind for event in again.events] == [event.kind for event in found.events]
    # located to rounding, which a cycle that is nearly singular multiplies
    np.testing.assert_allclose([e.value for e in again.events], [e.value for e in found.events], rtol=1e-10)


def test_float32_parameters(float32):
    cell = tent(0.5, -1.5, 0.0)
    (event,) = continuation(lambda mu: eqx.tree_at(lambda c: c.h, cell, jnp.asarray([mu])), [-0.5, 0.25, 1.0], 2).events
    assert event.kind == "persistence" and abs(event.value) < 1e-7


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(values=[0.3]), r"values must be numbers \[v\], at least 2: got shape \[1\]"),
        (dict(values=[0.3, np.nan, 1.0]), "values must be finite: value 1 is nan"),
        (dict(values=[0.3, 0.5, 0.5]), "values must increase: value 1 is 0.5, and 0.5 follows"),
        (dict(family=lambda a: MapCell(jnp.tanh, 2)), "piecewise-linear cells, AbstractPWLCell: at 0.3 got MapCell"),
        (
            dict(family=lambda a: Lozi(a=a) if a < 0.4 else tent(a, 0.5, 0.1)),
            "one size: 2 units and 1 gates at 0.3, 1 and 1 at 0.5",
        ),
        (dict(longest=0), "at parameter value 0.3: longest, a period, must be"),
        (dict(family=lambda a: Lozi(a=a if a < 0.4 else np.nan)), "finite parameters"),
    ],
)
def test_misuse_is_named(change, message):
    arguments = dict(family=lambda a: Lozi(a=a), values=[0.3, 0.5], longest=1) | change
    with pytest.raises(ValueError, match=message):
        continuation(**arguments)


def test_asymptotic_orbits_are_those_of_a_loop():
    values, starts = np.array([0.4, 1.5, 1.7]), np.array([[0.1, 0.1], [0.0, 0.2]])
    orbits = asymptotic_orbits(lambda a: Lozi(a=a, b=B), values, starts, discard=12, keep=5)
    assert orbits.shape == (3, 2, 5, 2)
    for i, a in enumerate(values):
        for j, start in enumerate(starts):
            zs = evolve(Lozi(a=a, b=B), jnp.asarray(start), steps=17).zs
            np.testing.assert_allclose(orbits[i, j], zs[12:], atol=1e-10)  # chaos: 17 steps amplify rounding by 1e4
    settled = asymptotic_orbits(lambda mu: tent(0.5, -0.5, mu), [0.3], [1.0], keep=1)
    np.testing.assert_allclose(settled, [[[[0.2]]]], rtol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(values=[]), r"values must be finite numbers \[v\], at least 1: got shape \[0\]"),
        (dict(keep=0), "keep at least 1: got 1000 and 0"),
        (dict(starts=np.zeros(3)), r"starts must be states \[2\] or \[b, 2\], at least one: got \[3\]"),
        (
            dict(family=lambda a: Lozi(a=a) if a < 0.4 else tent(a, 0.5, 0.1)),
            "differ in numbers only: that of 0.5 has another structure than that of 0.3",
        ),
    ],
)
def test_misuse_of_asymptotic_orbits_is_named(change, message):
    arguments = dict(family=lambda a: Lozi(a=a), values=[0.3, 0.5], starts=np.zeros(2)) | change
    with pytest.raises(ValueError, match=message):
        asymptotic_orbits(**arguments)


def test_the_figure():
    values = np.linspace(0.5, 1.6, 8)
    found = continuation(lambda a: Lozi(a=a, b=B), values, 2)
    orbit = asymptotic_orbits(lambda a: Lozi(a=a, b=B), values, [0.1, 0.1], discard=200, keep=20)
    figure = bifurcation(found, 0, orbit, name="a")
    figure.draw_without_rendering()
    told = {text.get_text() for text in figure.findobj(Text)}
    assert {"fixed point", "2-cycle", "stable", "unstable", "flip", "escape to infinity", "orbits", "a", "z0"} <= told
    (panel,) = figure.axes
    styles = {line.get_linestyle() for line in panel.lines}
    assert {"-", "--"} <= styles
    # the frame holds the attractor; the fixed point that comes from infinity goes beyond it
    low, high = panel.get_ylim()
    assert low < orbit[..., 0].min() and high > orbit[..., 0].max() and low > -10
    bifurcation(found, 1).draw_without_rendering()
    with pytest.raises(ValueError, match="variable must be a unit from 0 to 1: got 2"):
        bifurcation(found, 2)
    with pytest.raises(ValueError, match=r"at the 8 values of the continuation: got shape \[3, 1, 2\]"):
        bifurcation(found, 0, np.zeros((3, 1, 2)))
