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
    "evolve(cell, z0, pd.DataFrame(data))": "inputs must be arrays, or a PyTree of arrays: got DataFrame. Its numbers",
    "evolve(cell, z0, [[0.1], [0.2]])": "inputs must be arrays, or a PyTree of arrays: got float.",
    "evolve(cell, z0, data)": "inputs were given, but the cell does not depend on them: build it with input_size=3.",
    "evolve(driven, z0, data)": "inputs must be 2 numbers a step, the input_size of the cell: got the shape (3,) of a",
    "evolve(driven, z0, data, solver=Newton())": "inputs must be 2 numbers a step, the input_size of the cell: got the",
    "ALRNN(6, 2, key=0)": "key must be a JAX key, as jax.random.key(0) gives: got 0. Of a seed: jax.random.key(0).",
    "PLRNN(6, key=None)": "key must be a JAX key, as jax.random.key(0) gives: got None.",
    "IdentityReadout(2, 3, key=5)": "key must be a JAX key, as jax.random.key(0) gives: got 5. Of a seed: jax.random.",
    "GeneralisedReadout(('poisson',), 3, key=5)": "key must be a JAX key, as jax.random.key(0) gives: got 5. Of a seed",
    "S4(4, key=5)": "key must be a JAX key, as jax.random.key(0) gives: got 5. Of a seed",
    "LMU(4, 4, key=5)": "key must be a JAX key, as jax.random.key(0) gives: got 5. Of a seed",
    "GeneralisedReadout('poisson', 3, key=None)": "families must be a tuple of names, one a channel, ('poisson',) say",
    "load(3)": "path must be that of a file: got 3.",
    "reconstruct(data, time_step='x')": "time_step must be a number: got 'x'.",
    "reconstruct(data, resample='30s')": "resample must be a number, the step in the unit of the times (seconds for",
    "reconstruct(data, threads='2')": "threads must be a whole number: got '2'.",
    "reconstruct(data, inputs='flow')": "inputs must be series, row for row with the observations, not names: got 'fl",
    "reconstruct(good, families='poisson', runs=1)": "families must be a mapping from variable to family, {'x0': 'poi",
    "reconstruct(good, ALRNN)": "cell must be a cell or a function from a key to a cell, lambda key: ALRNN(..., key=k",
    "reconstruct(good, 3)": "cell must be a cell or a function from a key to a cell: got int.",
    "reconstruct(good, readout=IdentityReadout)": "readout must be a function from a key to a readout, lambda key: Id",
    "simulate(Lorenz63(), '10')": "steps must be a whole number from 1 on: got '10'.",
    "simulate(Lorenz63(), 10, dt='x')": "dt must be a number: got 'x'.",
    "simulate(Lorenz63(), 10, noise=0.1, key=0)": "key must be a JAX key, as jax.random.key(0) gives: got 0.",
    "model.forecast(data, '5')": "steps must be a whole number from 1 on: got '5'.",
    "model.forecast(data, 2.5)": "steps must be a whole number from 1 on: got 2.5.",
    "encode(data)": "reconstruction must be a fitted Reconstruction: got ndarray. A bare series is",
}
SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np, pandas as pd
from dsrecon import Forced, IdentityReadout, diagnose, encode, evolve, load, score, simulate
from dsrecon import reconstruct, reconstruct_subjects
from dsrecon.forecast import RidgeEstimator, backtest
from dsrecon.models import ALRNN, LMU, PLRNN, S4
from dsrecon.newton import Newton
from dsrecon.readout import GeneralisedReadout
from dsrecon.reconstruction import Reconstruction
from dsrecon.scaler import Scaler
from dsrecon.series import Clock
from dsrecon.systems import Lorenz63

class Held:
    def __init__(self, cell):
        self.cell = cell


cell = ALRNN(3, 1, key=jax.random.key(0))
forced, z0, data = Forced(cell, IdentityReadout(3, 3, key=jax.random.key(0))), jnp.zeros(3), np.zeros((300, 3))
driven = ALRNN(3, 1, input_size=2, key=jax.random.key(0))
good = data + np.sin(np.arange(300.0))[:, None]
model = Reconstruction(cell, forced.readout, Scaler.fit(good), good[0], Clock(), ("x", "y", "z"), ("", "", ""))
for call in sys.argv[1:]:
    try:
        print("nothing was raised by", eval(call))
    except ValueError as error:
        print(str(error).splitlines()[0])
    except Exception as error:
        print("raw:", type(error).__name__, *str(error).splitlines()[:1])
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
