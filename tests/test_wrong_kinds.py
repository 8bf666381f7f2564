"""What is no solver, no system, no model or no whole number is refused in a sentence that names it.

Types are checked in all other tests, before a function sees its arguments; users have no such check. So these calls are
made in a process of their own.
"""

import subprocess
import sys

CALLS = {
    "evolve(cell, z0, steps=3, solver='newton')": "solver must be a solver, Sequential() or Newton(), say: got",
    "evolve(forced, z0, jnp.zeros((4, 3)))": "the inputs of a Forced cell must be a Forcing(x, alpha): got",
    "evolve(cell, z0, steps=2.5)": "steps must be a whole number: got 2.5.",
    "evolve(Held(cell), z0, steps=3)": "cell must be a cell: got Held. A model that was fitted has it as .cell.",
    "evolve(cell, None, steps=3)": "z0 must be the state before the first step, (3,): got None.",
    "reconstruct(data, steps=1e2)": "steps must be a whole number: got 100.0.",
    "reconstruct(data, length='20')": "length must be a whole number: got '20'.",
    "reconstruct(data, lag=2.5)": "lag must be a whole number: got 2.5.",
    "reconstruct(data, noise='x')": "noise must be a number: got 'x'.",
    "reconstruct(data, validation='x')": "validation must be a number: got 'x'.",
    "reconstruct(data, alpha='0.1')": "alpha must be a number from 0 to 1, several of them or a function: got '0.1'.",
    "reconstruct_subjects([data, data], batch=8.5)": "batch must be a whole number: got 8.5.",
    "RidgeEstimator().fit(data, 3, validation='x')": "validation must be a number: got 'x'.",
    "diagnose(cell)": "reconstruction must be a fitted Reconstruction: got ALRNN.",
    "backtest(RidgeEstimator(), data)": "predictor must be a forecaster that was fitted, what `.fit(series, horizon=",
    "evolve(cell, np.ones(3, int), steps=3).zs.shape": "nothing was raised by (3, 3)",  # a state all the same
    "simulate('lorenz', 100)": "system must be a known system, Lorenz63() say: got 'lorenz'.",
    "simulate(Lorenz63, 100)": "system must be a known system, Lorenz63() say: got <class",
    "score(data, data)": "reconstruction must be a fitted Reconstruction, the first argument: got ndarray.",
    "reconstruct('series.csv')": "data must be a series: got 'series.csv'. Read a file with `dsrecon.read_series`.",
    "reconstruct(data, key=1.5)": "key must be a whole number or a JAX key: got 1.5.",
    "reconstruct(data + jnp.sin(jnp.arange(300.0))[:, None], optimiser='sgd2')": "optimiser must be one of optax's",
    "RidgeEstimator().fit('series.csv', horizon=3)": "data must be a series: got 'series.csv'.",
    "encode(data)": "reconstruction must be a fitted Reconstruction: got ndarray. A bare series is",
}
SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from dsrecon import Forced, IdentityReadout, diagnose, encode, evolve, score, simulate
from dsrecon import reconstruct, reconstruct_subjects
from dsrecon.forecast import RidgeEstimator, backtest
from dsrecon.models import ALRNN
from dsrecon.systems import Lorenz63

class Held:
    def __init__(self, cell):
        self.cell = cell


cell = ALRNN(3, 1, key=jax.random.key(0))
forced, z0, data = Forced(cell, IdentityReadout(3, 3, key=jax.random.key(0))), jnp.zeros(3), np.zeros((300, 3))
for call in sys.argv[1:]:
    try:
        print("nothing was raised by", eval(call))
    except ValueError as error:
        print(str(error).splitlines()[0])
"""


def python(*given: str) -> str:
    return subprocess.run([sys.executable, *given], capture_output=True, text=True, check=True).stdout


def test_refused_in_a_sentence():
    said = python("-c", SCRIPT, *CALLS).splitlines()
    assert len(said) == len(CALLS), said
    for wanted, found in zip(CALLS.values(), said, strict=True):
        assert found.startswith(wanted), found


def test_the_package_is_a_command():
    assert "forecast" in python("-m", "dsrecon", "--help")
