"""Runs a model that dsrecon exported as arrays. It needs NumPy and nothing else: copy it, or read it to translate it.

python reference_stepper.py model 1000 > run.csv          (reads model.json and model.npz)
"""

import json
import sys

import numpy as np


def read(stem):
    """(description, arrays) of `<stem>.json` and `<stem>.npz`."""
    with open(f"{stem}.json", encoding="utf-8") as file:
        description = json.load(file)
    if description.get("format") != "dsrecon-arrays" or description["version"] > 1:
        raise ValueError(f"{stem}.json is not a dsrecon-arrays description of version 1.")
    with np.load(f"{stem}.npz", allow_pickle=False) as file:
        return description, {name: file[name] for name in file.files}


def relu(x):
    """The larger of x and 0, number by number."""
    return np.maximum(x, 0)


def ramps(p, z):
    """What the dendrites of the units [m] pass on: sum over b of a_b relu(z_i - H_bi)."""
    return p["a"] @ relu(z - p["H"])


def sigmoid(x):
    """The gate between 0 and 1, number by number."""
    return 1 / (1 + np.exp(-x))


def offset(p, s, h="h"):
    """What does not depend on the state: the offset, and the inputs [k] where there are any."""
    return p[h] if s is None or "C" not in p else p[h] + p["C"] @ s


def gru(p, z, s):
    """One step; rows of the arrays are the gates r, u and the candidate n."""
    (r, u, n), (Wr, Wu, Wn) = offset(p, s), p["W"] @ z
    r, u = sigmoid(Wr + r), sigmoid(Wu + u)
    return u * z + (1 - u) * np.tanh(n + r * (Wn + p["a"]))


def lstm(p, z, s):
    """One step; rows of the arrays are i, f, g, o, and the state is h, then c."""
    h, c = np.split(z, 2)
    i, f, g, o = p["W"] @ h + offset(p, s, "b")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(c), c])


def highway(p, z, s):
    """One step, layer by layer; the inputs enter the first."""
    h, b = p["h"].copy(), p["b"].copy()
    if s is not None and "C" in p:
        h[0], b[0] = h[0] + p["C"] @ s, b[0] + p["D"] @ s
    for j in range(len(h)):
        t = sigmoid(p["V"][j] @ z + b[j])
        z = t * np.tanh(p["W"][j] @ z + h[j]) + (1 - t) * z
    return z


def paragru(p, z, s):
    """One step; rows of the arrays are r, u, n."""
    (r, u, n), (Ar, Au, An) = offset(p, s), p["A"]
    r, u = sigmoid(Ar * z + r), sigmoid(Au * z + u)
    return u * z + (1 - u) * np.tanh(An * (r * z) + n)


def paralstm(p, z, s):
    """One step; rows of the arrays are f, g, o (of P: f, o), and the state is h, then c."""
    (h, c), (f, g, o), (Af, Ag, Ao), (Pf, Po) = np.split(z, 2), offset(p, s, "b"), p["A"], p["P"]
    f = sigmoid(Af * h + Pf * c + f)
    c = f * c + (1 - f) * np.tanh(Ag * h + g)
    return np.concatenate([sigmoid(Ao * h + Po * c + o) * np.tanh(c), c])


# the whole step of each smooth class, where s are the inputs [k] or None
SMOOTH = {
    "TanhRNN": lambda p, z, s: np.tanh(p["W"] @ z + offset(p, s)),
    "GRU": gru,
    "LSTM": lstm,
    "RecurrentHighway": highway,
    "ParaGRU": paragru,
    "ParaLSTM": paralstm,
}

# what each piecewise-linear class adds to A*z, where p are its arrays and z is the state [m]
CELLS = {
    "ALRNN": lambda p, z: p["W"] @ np.where(p["rectified"], relu(z), z) + p["h"],
    "PLRNN": lambda p, z: p["W"] @ relu(z) + p["h"],
    "MeanCentredPLRNN": lambda p, z: p["W"] @ relu(z - z.mean()) + p["h"],
    "DendriticPLRNN": lambda p, z: p["W"] @ ramps(p, z) + p["h"],
    "ClippedDendriticPLRNN": lambda p, z: p["W"] @ (ramps(p, z) - p["a"].sum() * relu(z)) + p["h"],
    "ShallowPLRNN": lambda p, z: p["W1"] @ relu(p["W2"] @ z + p["h2"]) + p["h1"],
    "ClippedShallowPLRNN": lambda p, z: p["W1"] @ (relu(p["W2"] @ z + p["h2"]) - relu(p["W2"] @ z)) + p["h1"],
}


def step(description, arrays, z, s=None):
    """The state [m] after z [m]; s: the inputs [k] of this step, standardised, or None."""
    name = description["cell"]["class"]
    p = part(arrays, "cell")
    if name in SMOOTH:
        return SMOOTH[name](p, z, s)
    if name not in CELLS:
        raise ValueError(f"this stepper does not know the cell {name!r}: it knows {', '.join([*CELLS, *SMOOTH])}.")
    z = p["A"] * z + CELLS[name](p, z)
    return z if s is None or "C" not in p else z + p["C"] @ s


def start(description, arrays, x):
    """The state [m] to begin from at the observation x [n], in the units of the data."""
    dtype = description["dtype"]
    if description["readout"] is None:
        return np.asarray(x, dtype)
    x = ((np.asarray(x, float) - arrays["scaler.mean"]) / arrays["scaler.std"]).astype(dtype)
    name, p = description["readout"]["class"], part(arrays, "readout")
    if name == "IdentityReadout":
        return np.concatenate([x, p["L"] @ x])
    if name == "GeneralisedReadout":
        links = {
            "gaussian": lambda x: x,
            "poisson": lambda x: np.log(x + 0.5),
            "bernoulli": lambda x: np.log((x + 0.5) / (1.5 - x)),
        }
        x = np.array([links[family](v) for family, v in zip(description["readout"]["families"], x, strict=True)])
    z = p["inverse"] @ (x - p["b"])
    if "L" in p:
        hidden = p["L"] @ x
        z = z + hidden - p["inverse"] @ (p["B"] @ hidden)
    return z


def observe(description, arrays, zs):
    """States [t, m] of a run to what is expected to be observed, [t, n], in the units of the data."""
    if description["readout"] is None:
        return zs
    readout, p = description["readout"], part(arrays, "readout")
    name = readout["class"]
    if name == "IdentityReadout":
        xs = zs[:, : readout["observed_size"]]
    elif name in ("LinearReadout", "GeneralisedReadout", "HaemodynamicReadout"):
        xs = zs @ p["B"].T + p["b"]
    else:
        raise ValueError(f"this stepper does not know the readout {name!r}.")
    if name == "GeneralisedReadout":
        means = {"gaussian": lambda x: x, "poisson": np.exp, "bernoulli": lambda x: 1 / (1 + np.exp(-x))}
        xs = np.stack([means[family](x) for family, x in zip(readout["families"], xs.T, strict=True)], axis=1)
    if name == "HaemodynamicReadout":
        lags = len(p["h"]) - 1
        before = np.concatenate([np.repeat(xs[:1], lags, axis=0), xs])
        xs = np.stack([np.convolve(x, p["h"], "valid") for x in before.T], axis=1)
    return np.asarray(xs, float) * arrays["scaler.std"] + arrays["scaler.mean"]


def simulate(description, arrays, steps, x=None, inputs=None):
    """A free run: [steps, variables], in the units of the data; its first row is one step after x.

    x: the observation [n] to begin from (default: the first of the fitted series; for a bare cell, a state);
    inputs: [steps, k] in their own units, row i acting on step i, where the model has inputs.
    """
    if bool(description["inputs"]) != (inputs is not None):
        raise ValueError(f"inputs must be one row a step of {description['inputs']}.")
    if inputs is not None and "input_scaler.mean" in arrays:
        inputs = (np.asarray(inputs, float) - arrays["input_scaler.mean"]) / arrays["input_scaler.std"]
    z, zs = start(description, arrays, arrays["anchor"] if x is None else x), []
    for i in range(steps):
        z = step(description, arrays, z, None if inputs is None else np.asarray(inputs[i], description["dtype"]))
        zs.append(z)
    # with a delay embedding the readout shows coordinates: the first of them is the variable
    return observe(description, arrays, np.array(zs))[:, : len(description["variables"])]


def part(arrays, prefix):
    """The arrays of the cell or of the readout, without the prefix of their names."""
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(prefix + ".")}


if __name__ == "__main__":
    model = read(sys.argv[1])
    names = ",".join(variable["name"] for variable in model[0]["variables"])
    np.savetxt(sys.stdout, simulate(*model, int(sys.argv[2])), delimiter=",", header=names, comments="")
