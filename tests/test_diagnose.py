"""`diagnose`: faults that are known, on models made by hand from known laws."""

import json
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from dsrecon import Reconstruction
from dsrecon.cell import AbstractCell, dense_jacobian
from dsrecon.diagnose import diagnose
from dsrecon.diagnose.evidence import Evidence
from dsrecon.diagnose.neighbours import divergence, false_share, structure
from dsrecon.diagnose.rules import LAST, RULES, findings_of
from dsrecon.diagnose.signs import FALSE, steepness
from dsrecon.evolve import evolve
from dsrecon.models import ALRNN
from dsrecon.readout import IdentityReadout
from dsrecon.scaler import Scaler
from dsrecon.series import Clock
from dsrecon.systems import Lozi

ROWS = 2000


class Law(AbstractCell):
    """`z' = factor f^times(z) + offset` of the Lozi map `f`: right at `1, 1, 0`."""

    factor: Float[Array, ""]
    offset: Float[Array, ""]
    a: float = eqx.field(static=True, default=1.7)
    times: int = eqx.field(static=True, default=1)

    @property
    def state_size(self) -> int:
        return 2

    def __call__(self, z, s=None):
        for _ in range(self.times):
            z = Lozi(a=self.a).cell()(z)  # pyright: ignore[reportCallIssue]
        return self.factor * z + self.offset

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def law(factor: float = 1.0, offset: float = 0.0, a: float = 1.7, times: int = 1) -> Law:
    return Law(jnp.asarray(factor), jnp.asarray(offset), a, times)  # pyright: ignore[reportCallIssue]


@cache
def data(rows: int = ROWS) -> np.ndarray:
    start = jnp.array([0.1, 0.1])
    return np.asarray(evolve(law(), start, steps=rows + 100).zs, np.float64)[100:]


def model(cell: AbstractCell, x: np.ndarray | None = None, *, record: dict | None = None) -> Reconstruction:
    """A cell as if it were fitted to `x`, in standard units of 1."""
    x = data() if x is None else x
    n = x.shape[1]
    readout = IdentityReadout(n, cell.state_size, key=jax.random.key(0))
    names = tuple(f"x{i}" for i in range(n))
    one = Scaler(np.zeros(n), np.ones(n))
    return Reconstruction(cell, readout, one, x[0], Clock(), names, ("",) * n, json.dumps(record or {}), validation=x)


def course(loss: float, gradient: float = 0.1, **settings) -> dict:
    """The record of a fit whose loss came to `loss`."""
    values = {name: {"value": value, "reason": ""} for name, value in settings.items()}
    falling = list(np.geomspace(max(1.0, loss), loss, 50))
    traces = {"update": list(range(100, 5100, 100)), "loss": falling, "gradient_norm": [gradient] * 50}
    return {"settings": values, "course": traces}


def names(found) -> list[str]:
    return [f.name for f in found.findings]


def test_the_law_itself_has_no_fault():
    found = diagnose(model(law()))
    assert found.healthy and found.findings == () and len(found.table()) == 0
    assert str(found).startswith("No fault found")
    assert found.evidence.error < 1e-20 and found.evidence.regions == 0


def test_the_law_has_no_fault_on_another_stretch_than_the_one_kept():
    assert diagnose(model(law()), data(6000)[4000:]).healthy


CASES = {  # cell, the first finding
    "leaves": (law(1.5), "diverged"),
    "rests": (law(0.1), "point"),
    "repeats": (law(a=1.2), "cycle"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_changed_law_is_found_out(case):
    cell, wanted = CASES[case]
    found = diagnose(model(cell))
    assert names(found)[0] == wanted
    table = found.table()
    assert set(table["finding"]) == set(names(found)) and np.isfinite(table["threshold"]).all()
    assert str(found).startswith(f"1. {wanted}: ") and "Rests on: " in str(found) and "Try: " in str(found)


def circle(rows: int, step: float = 0.3, noise: float = 0.0) -> np.ndarray:
    phase = step * np.arange(rows)
    x = np.stack([np.cos(phase), np.sin(phase)], 1)
    return x + noise * np.random.default_rng(0).normal(size=x.shape)


class Turn(AbstractCell):
    """A rotation by `step`."""

    step: Float[Array, ""]

    @property
    def state_size(self) -> int:
        return 2

    def __call__(self, z, s=None):
        c, s_ = jnp.cos(self.step), jnp.sin(self.step)
        return jnp.stack([c * z[0] - s_ * z[1], s_ * z[0] + c * z[1]])

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_periodic_data_may_be_met_by_a_cycle(noise):
    x = circle(ROWS, noise=noise)
    x[0] = [1.0, 0.0]  # the run keeps the radius that it begins with
    assert diagnose(model(Turn(jnp.asarray(0.3)), x)).healthy  # pyright: ignore[reportCallIssue]


def test_the_right_places_at_the_wrong_pace():
    found = diagnose(model(Turn(jnp.asarray(0.6)), circle(ROWS)))  # pyright: ignore[reportCallIssue]
    assert names(found)[0] == "spectrum"
    assert found.findings[0].figure["distance_h"].value > 0.5  # two lines at different frequencies


def test_gaps_change_nothing():
    x = data().copy()
    x[300:340, 0] = np.nan
    x[900:960] = np.nan
    assert diagnose(model(law(), x)).healthy


def test_a_hidden_variable_is_missed():
    x = data()[:, :1]
    cell = ALRNN(1, 1, key=jax.random.key(0))
    found = diagnose(model(cell, x))
    assert "embedding" in names(found)
    assert found.evidence.false > 10 * FALSE
    assert not false_share(data() / data().std(0), 2) > FALSE


def test_one_linear_region_is_too_few():
    x = data()
    design = np.column_stack([x[:-1], np.ones(len(x) - 1)])
    B = np.linalg.lstsq(design, x[1:], rcond=None)[0]
    cell = ALRNN(2, 0, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: (c.A, c.W, c.h), cell, (jnp.zeros(2), jnp.asarray(B[:2].T), jnp.asarray(B[2])))
    error = float((((design @ B - x[1:]) / x.std(0)) ** 2).mean())
    found = diagnose(model(cell, x, record=course(error, alpha=0.2, length=10)))
    assert names(found)[0] == "regions" and found.evidence.regions == 1 and found.evidence.gates == 0
    np.testing.assert_allclose(found.evidence.error, error, rtol=1e-6)


def test_forcing_is_judged_by_the_gradients_that_it_lets_through():
    mean = ALRNN(2, 2, key=jax.random.key(0))
    mean = eqx.tree_at(lambda c: (c.A, c.W), mean, (jnp.full(2, 0.1), jnp.zeros((2, 2))))
    weak = diagnose(model(mean, record=course(0.9, alpha=0.0, length=50)))
    assert names(weak)[0] == "alpha_small"
    assert "alpha=" in weak.findings[0].advice and "length=" in weak.findings[0].advice
    strong = diagnose(model(mean, record=course(0.9, alpha=0.9, length=50)))
    assert names(strong)[0] == "alpha_large"
    between = diagnose(model(mean, record=course(0.9, alpha=0.4, length=20)))
    assert names(between)[0] == "underfit" and "steps=20000" in between.findings[0].advice
    assert "alpha_small" not in names(between) and "alpha_large" not in names(between)
    sparse = diagnose(model(mean, record=course(0.9, interval=30, length=50)))
    assert "alpha_small" in names(sparse)


def test_gradients_grow_as_the_law_stretches():
    """Orders over a window: its steps times the exponent of the Lozi map, .47, in decimal logarithms."""
    e = diagnose(model(law(), record=course(1e-6, alpha=0.0, length=40))).evidence
    np.testing.assert_allclose(e.window / 40 * np.log(10), 0.47, atol=0.03)  # 64 windows of 40 steps
    np.testing.assert_allclose(e.window_forced, e.window, rtol=1e-12)
    np.testing.assert_allclose(e.growth, 0.47, atol=0.1)  # two steps of neighbours, at finite distance
    pulled = diagnose(model(law(), record=course(1e-6, alpha=0.5, length=40))).evidence
    np.testing.assert_allclose(e.window - pulled.window_forced, 40 * np.log10(2), rtol=1e-9)
    np.testing.assert_allclose(steepness(e) - steepness(pulled), 40 * np.log10(2), rtol=1e-9)


def test_neighbours_part_as_fast_as_the_map_doubles():
    x = np.random.default_rng(0).uniform(size=(4000, 1))
    for t in range(1, len(x)):  # doubling, with the lost digit drawn anew
        x[t] = (2 * x[t - 1] + 1e-6 * np.random.default_rng(t).uniform()) % 1
    np.testing.assert_allclose(divergence(x, 3), np.log(2), atol=0.05)


def test_residuals_that_the_state_foretells_are_structured():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2))
    assert structure(x, x[:, :1] ** 2) > 0.95
    assert abs(structure(x, rng.normal(size=(4000, 1)))) < 0.1  # 2000 pairs


def test_every_rule_is_silent_on_good_numbers_and_none_shares_a_name():
    good = diagnose(model(law(), record=course(1e-6, alpha=0.2, length=10))).evidence
    assert all(rule(good) is None for rule in (*RULES, *LAST))
    assert len({rule.__name__ for rule in (*RULES, *LAST)}) == len(RULES) + len(LAST)
    assert [f.name for f in findings_of(good._replace(d_stsp=20.0))] == ["attractor"]
    assert [f.name for f in findings_of(good._replace(far=1.0, far_run=0.05))] == ["cycle"]
    assert findings_of(good._replace(far=0.05, far_run=0.0)) == ()  # the data repeat themselves too
    assert findings_of(good._replace(false=0.5)) == ()  # a fit that keeps to the data is not searched


def test_other_data_than_those_of_the_fit():
    e = diagnose(model(law(), record=course(1e-6, alpha=0.2, length=10))).evidence
    (found,) = findings_of(e._replace(error=0.3, error_ahead=0.9))
    assert found.name == "unlike"
    (found,) = findings_of(e._replace(error=0.3, error_ahead=0.9, loss=float("nan")))
    assert found.name == "underfit"


def test_float32(float32):
    fitted = model(jax.tree.map(lambda v: v.astype(jnp.float32), law()))
    assert diagnose(fitted).healthy
    assert isinstance(diagnose(fitted).evidence, Evidence)


class Driven(AbstractCell):
    """`z' = .5 z + s`, each channel by its own input."""

    state_size: int = eqx.field(static=True, default=2)

    def __call__(self, z, s=None):
        return 0.5 * z + s

    def linearise(self, z, s=None):
        return dense_jacobian(self, z, s)


def test_a_driven_law_goes_through_its_inputs():
    s = np.asarray(data()) - data().mean(0)
    cell = Driven()
    x = np.asarray(evolve(cell, jnp.zeros(2), jnp.asarray(s)).zs)
    one = Scaler(np.zeros(2), np.ones(2))
    fitted = eqx.tree_at(
        lambda m: (m.input_scaler, m.validation_inputs), model(cell, x), (one, s), is_leaf=lambda v: v is None
    )
    fitted = Reconstruction(
        **{k: getattr(fitted, k) for k in fitted.__dataclass_fields__} | {"input_names": ("a", "b")}
    )
    found = diagnose(fitted)
    assert found.healthy and found.evidence.error < 1e-20
    given = diagnose(fitted, x, inputs=s)
    assert given.evidence == found.evidence
    with pytest.raises(ValueError, match=r"inputs must be given: the model is driven by \('a', 'b'\)"):
        diagnose(fitted, x)


def test_bad_input_is_told():
    fitted = model(law())
    bare = eqx.tree_at(lambda m: m.validation, fitted, None)
    with pytest.raises(ValueError, match="series must be given: the reconstruction holds no validation stretch"):
        diagnose(bare)
    assert diagnose(bare, data()).healthy
    with pytest.raises(ValueError, match="inputs go with a series"):
        diagnose(fitted, inputs=data())
    with pytest.raises(ValueError, match="at least 200 rows that are observed in every variable: got 100"):
        diagnose(fitted, data()[:100])
    with pytest.raises(ValueError, match="variables must be"):
        diagnose(fitted, np.tile(data(), 2))
    with pytest.raises(ValueError, match="series must vary: 'x1' is constant"):
        diagnose(fitted, np.column_stack([data()[:, 0], np.ones(ROWS)]))
