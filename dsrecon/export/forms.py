"""What each class of cell and readout is, in words that hold outside Python: its equation, and each of its arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from dsrecon.cell import AbstractCell
from dsrecon.models import (
    ALRNN,
    GRU,
    LSTM,
    PLRNN,
    ClippedDendriticPLRNN,
    ClippedShallowPLRNN,
    DendriticPLRNN,
    MeanCentredPLRNN,
    ParaGRU,
    ParaLSTM,
    RecurrentHighway,
    ShallowPLRNN,
    TanhRNN,
)
from dsrecon.readout import (
    AbstractReadout,
    GeneralisedReadout,
    HaemodynamicReadout,
    IdentityReadout,
    LinearReadout,
)


class Part(NamedTuple):
    """One array of a class: its axes by letter, what it means, and how it is had (`None`: the field of its name)."""

    axes: str
    meaning: str
    value: Callable[[Any], Any] | None = None


class Form(NamedTuple):
    """A class: its equation in ASCII, a second one (the region of a cell, the start of a readout), and its arrays."""

    equation: str
    second: str
    parts: Mapping[str, Part]


_A = Part("m", "diagonal of the linear part")
_W = Part("m m", "connections: row to, column from")
_h = Part("m", "offset")
_C = Part("m k", "effect of the standardised inputs; absent in a cell without")
_DENDRITE = {
    "A": _A,
    "W": _W,
    "a": Part("b", "slopes of the basis, shared by the units"),
    "H": Part("b m", "thresholds, column i those of unit i"),
    "h": _h,
    "C": _C,
}
_SHALLOW = {
    "A": _A,
    "W1": Part("m l", "from the hidden units to the state"),
    "W2": Part("l m", "from the state to the hidden units"),
    "h1": _h,
    "h2": Part("l", "thresholds of the hidden units"),
    "C": _C,
}
_off_diagonal = Part(
    "m m",
    "connections: row to, column from; its diagonal is zero",
    lambda cell: jnp.where(jnp.eye(cell.state_size, dtype=bool), jnp.zeros_like(cell.W), cell.W),
)


def _gates(letter: str, count: int, axes: str, meaning: str) -> Part:
    """An array `[count * units, ...]` of a gated cell, as one block a gate."""

    def blocks(cell: Any):
        value = getattr(cell, letter)
        return None if value is None else value.reshape(count, -1, *value.shape[1:])

    return Part(axes, meaning, blocks)


_DRIVEN = "effect of the standardised inputs, gate by gate; absent in a cell without"
_h_gates = "offsets, gate by gate"

CELLS: dict[type[AbstractCell], Form] = {
    ALRNN: Form(
        "z' = A*z + W phi(z) + h + C s,  phi(z)_i = max(z_i, 0) where rectified_i, else z_i",
        "z_i > 0 of the last units",
        {"A": _A, "W": _W, "h": _h, "C": _C, "rectified": Part("m", "which units are piecewise linear")},
    ),
    PLRNN: Form(
        "z' = A*z + W max(z, 0) + h + C s",
        "z_i > 0",
        {"A": _A, "W": _off_diagonal, "h": _h, "C": _C},
    ),
    MeanCentredPLRNN: Form(
        "z' = A*z + W max(z - mean(z), 0) + h + C s",
        "z_i - mean(z) > 0",
        {"A": _A, "W": _W, "h": _h, "C": _C},
    ),
    DendriticPLRNN: Form(
        "z' = A*z + W d(z) + h + C s,  d(z)_i = sum_b a_b max(z_i - H_bi, 0)",
        "z_i > H_bi, basis by basis",
        _DENDRITE,
    ),
    ClippedDendriticPLRNN: Form(
        "z' = A*z + W d(z) + h + C s,  d(z)_i = sum_b a_b [max(z_i - H_bi, 0) - max(z_i, 0)]",
        "z_i > H_bi, basis by basis, then z_i > 0",
        _DENDRITE,
    ),
    ShallowPLRNN: Form("z' = A*z + W1 max(W2 z + h2, 0) + h1 + C s", "(W2 z + h2)_i > 0", _SHALLOW),
    ClippedShallowPLRNN: Form(
        "z' = A*z + W1 [max(W2 z + h2, 0) - max(W2 z, 0)] + h1 + C s",
        "(W2 z + h2)_i > 0, then (W2 z)_i > 0",
        _SHALLOW,
    ),
    TanhRNN: Form("z' = tanh(W z + h + C s)", "", {"W": _W, "h": _h, "C": _C}),
    GRU: Form(
        "z' = u*z + (1 - u)*tanh(r*(W_n z + a) + h_n + C_n s),  r, u = sigmoid(W_r z + h_r + C_r s), the same with u",
        "",
        {
            "W": _gates("W", 3, "g m m", "connections of r, u, n: row to, column from"),
            "h": _gates("h", 3, "g m", _h_gates),
            "a": Part("m", "offset inside the reset"),
            "C": _gates("C", 3, "g m k", _DRIVEN),
        },
    ),
    LSTM: Form(
        "z = [h, c];  c' = f*c + i*g,  h' = o*tanh(c'),  i, f, o = sigmoid(W h + b + C s), each with its rows, "
        "g = tanh(W_g h + b_g + C_g s)",
        "",
        {
            "W": _gates("W", 4, "g H H", "connections of i, f, g, o: row to, column from"),
            "b": _gates("b", 4, "g H", _h_gates),
            "C": _gates("C", 4, "g H k", _DRIVEN),
        },
    ),
    RecurrentHighway: Form(
        "z' = y_l,  y_j = t_j*tanh(W_j y_{j-1} + h_j) + (1 - t_j)*y_{j-1},  t_j = sigmoid(V_j y_{j-1} + b_j),  y_0 = z"
        ";  C s is added to h_1 and D s to b_1",
        "",
        {
            "W": Part("l m m", "connections, layer by layer"),
            "V": Part("l m m", "connections of the gates, layer by layer"),
            "h": Part("l m", "offsets"),
            "b": Part("l m", "offsets of the gates"),
            "C": _C,
            "D": Part("m k", "effect of the standardised inputs on the gates; absent in a cell without"),
        },
    ),
    ParaGRU: Form(
        "z' = u*z + (1 - u)*tanh(A_n*(r*z) + h_n + C_n s),  r, u = sigmoid(A_r*z + h_r + C_r s), the same with u",
        "",
        {
            "A": Part("g m", "diagonals of the connections of r, u, n"),
            "h": _gates("h", 3, "g m", _h_gates),
            "C": _gates("C", 3, "g m k", _DRIVEN),
        },
    ),
    ParaLSTM: Form(
        "z = [h, c];  f = sigmoid(A_f*h + P_f*c + b_f + C_f s),  c' = f*c + (1 - f)*tanh(A_g*h + b_g + C_g s),  "
        "h' = sigmoid(A_o*h + P_o*c' + b_o + C_o s)*tanh(c')",
        "",
        {
            "A": Part("g H", "diagonals of the connections of f, g, o"),
            "P": Part("p H", "peepholes of f, o"),
            "b": _gates("b", 3, "g H", _h_gates),
            "C": _gates("C", 3, "g H k", _DRIVEN),
        },
    ),
}
"""The cells that can be written as arrays. `*` is unit by unit, juxtaposition a matrix product."""


def _linear(of: Callable[[Any], LinearReadout]) -> dict[str, Part]:
    return {
        "B": Part("n m", "from the state to what is observed", lambda r: of(r).B),
        "b": Part("n", "offset of what is observed", lambda r: of(r).b),
        "inverse": Part("m n", "Moore-Penrose pseudo-inverse of B", lambda r: jnp.linalg.pinv(of(r).B)),
        "L": Part("m n", "start of what B does not see; absent where it sees all", lambda r: of(r).L),
    }


_LINEAR_START = "z = inverse (x - b) + (L x - inverse B L x)"

READOUTS: dict[type[AbstractReadout], Form] = {
    IdentityReadout: Form("x = z[:n]", "z = [x, L x]", {"L": Part("u n", "start of the units that are not observed")}),
    LinearReadout: Form("x = B z + b", _LINEAR_START, _linear(lambda r: r)),
    GeneralisedReadout: Form(
        "eta = B z + b;  x = eta (gaussian), exp(eta) (poisson, expected count), 1 / (1 + exp(-eta)) (bernoulli)",
        _LINEAR_START + " with, for x, x (gaussian), ln(x + 1/2) (poisson), ln((x + 1/2) / (3/2 - x)) (bernoulli)",
        _linear(lambda r: r.linear),
    ),
    HaemodynamicReadout: Form(
        "y_t = B z_t + b;  x_t = sum_j h_j y_{t-j}, y before the first row of a run being the first row",
        _LINEAR_START,
        {**_linear(lambda r: r.linear), "h": Part("lags", "response, one number a time step", lambda r: r.h)},
    ),
}
"""The readouts that can be written as arrays."""


def form_of(module: eqx.Module, forms: Mapping[Any, Form], what: str) -> Form:
    """The form of a cell or readout. **Raises:** `ValueError` for a class that has none (a subclass, one's own)."""
    if type(module) not in forms:
        known = ", ".join(cls.__name__ for cls in forms)
        raise ValueError(
            f"model has a {what} of class {type(module).__name__}, which has no form as arrays: wanted one of {known}. "
            "export_stablehlo takes any cell."
        )
    return forms[type(module)]


def arrays_of(module: eqx.Module, form: Form, prefix: str, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """The arrays of a module by name, on the host, in C order; those that are `None` are left out.

    **Arguments:** `module`; `form`; `prefix` of the names, `"cell"` say; `sizes`: of the axes that are known; those
    met here are added.

    **Raises:** `ValueError` for an array of another shape (an ensemble), of a type that NumPy does not know of itself,
    and for values that are not finite.
    """
    arrays = {}
    for name, part in form.parts.items():
        value = getattr(module, name) if part.value is None else part.value(module)
        if value is None:
            continue
        array = np.ascontiguousarray(value)
        axes, where = part.axes.split(), f"{type(module).__name__}.{name}"
        if array.ndim != len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, array.shape, strict=True)):
            raise ValueError(
                f"{where} must have shape [{', '.join(axes)}], that of one model: got {array.shape}. "
                "Of an ensemble, export one member at a time."
            )
        if array.dtype.isbuiltin != 1:
            raise ValueError(f"{where} must be of a type that NumPy has, float32 say: got {array.dtype}.")
        if not np.isfinite(array).all():
            raise ValueError(f"{where} must be finite: got {int((~np.isfinite(array)).sum())} entries that are not.")
        arrays[f"{prefix}.{name}"] = array
    return arrays
