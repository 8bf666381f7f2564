"""Flows of the dysts collection as known systems."""

import contextlib
import functools
import importlib
import inspect
import types
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from dsrecon.systems.known import AbstractFlow

SAMPLES_A_PERIOD = 100
"""Samples in one dominant period at the default time step: what dysts takes too."""


class DystsFlow(AbstractFlow):
    """One flow of the dysts collection; made by `from_dysts`.

    - `flow`: its name there, and `constants`: its parameters by name, numbers or nested lists.
    - `unbounded`: the variables that grow without bound, such as phases: take their sine or cosine before
      anything that assumes a bounded series.
    """

    flow: str
    constants: dict[str, Any]
    names: tuple[str, ...] = eqx.field(static=True)
    time_step: float = eqx.field(static=True)
    longest_step: float = eqx.field(static=True)
    start: tuple[float, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)
    unbounded: tuple[str, ...] = eqx.field(static=True)
    spectrum: tuple[float, ...] = eqx.field(static=True)
    law: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, x: Inexact[Array, "m"]) -> Inexact[Array, "m"]:
        return self.law(x, self.constants, jnp.zeros((), x.dtype))

    @property
    def exponents(self) -> tuple[float, ...]:
        """The spectrum in the metadata of dysts: an estimate from one run, up to tens of per cent off.

        **Raises:** `ValueError` where dysts has none.
        """
        if not self.spectrum:
            raise ValueError(f"dysts has no exponents of {self.flow}. Measure them with lyapunov_spectrum.")
        return self.spectrum


def from_dysts(flow: str) -> DystsFlow:
    """A flow of the dysts collection of some 130 chaotic systems, as a known system.

    The right-hand side is that of dysts, run on JAX arrays: its functions are copied with `jax.numpy` for
    NumPy, and dysts itself is left as it is. Parameters, start, dominant period and exponents are those of
    its metadata. The default time step is a hundredth of the period, and the Runge-Kutta step of order 8 at
    most a quarter of that: over one period it errs by less than 2e-5 of the standard deviation in 95 % of
    the flows, and by more than 1e-4 in four whose laws are not smooth or stiff (InteriorSquirmer .3,
    SprottMore .07, AtmosphericRegime and MacArthur .002). Of dysts 0.96, 126 of 129 ordinary differential
    equations can be had.

    **Arguments:** `flow`: the name of the class in `dysts.flows`, such as `"Halvorsen"`.

    **Returns:** an `AbstractFlow`. Its `exponents` are estimates of dysts, up to tens of per cent off (its
    Lorenz has 1.09, .03, -14.9 for .906, 0, -14.57): measure them with `lyapunov_mean` where it matters.

    **Raises:** `ImportError` when dysts is not installed; `ValueError` naming the flow when there is none of
    that name, when it is a delay equation, when its law changes with time, or when JAX cannot trace it
    (because it assigns into arrays or branches on values).

    Reference: Gilpin 2021, *Chaos as an interpretable benchmark for forecasting and data-driven modelling*,
    NeurIPS Datasets and Benchmarks.
    """
    return _load(flow)


@functools.cache
def _load(flow: str) -> DystsFlow:
    original = _original(flow)
    constants = {name: np.asarray(value).tolist() for name, value in sorted(original.params.items())}
    start = tuple(float(x) for x in original.ic)
    law = _law(type(original))
    _check_law(flow, law, constants, len(start))
    names = _names(type(original), len(start))
    period = float(original.period)
    return DystsFlow(
        flow=flow,
        constants=constants,
        names=names,
        time_step=period / SAMPLES_A_PERIOD,
        longest_step=period / SAMPLES_A_PERIOD / 4,
        start=start,
        source=f"{original.citation}; parameters and exponents: dysts (Gilpin 2021)",
        unbounded=tuple(names[i] for i in original.unbounded_indices or ()),
        spectrum=tuple(sorted(map(float, original.lyapunov_spectrum_estimated or ()), reverse=True)),
        law=law,
    )


def _original(flow: str) -> Any:
    """An instance of the class of dysts."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Numba not installed")  # its compiled code is not used
            base, flows = (importlib.import_module(f"dysts.{name}") for name in ("base", "flows"))
    except ImportError as error:
        raise ImportError(f"dysts is needed for from_dysts({flow!r}): pip install dysts ({error}).") from error
    known = {
        name: made
        for name, made in vars(flows).items()
        if inspect.isclass(made) and made.__module__ == flows.__name__ and issubclass(made, base.BaseDyn)
    }
    if flow not in known:
        raise ValueError(f"flow must be the name of a class in dysts.flows: got {flow!r}. There are {sorted(known)}.")
    if not issubclass(known[flow], base.DynSys):
        raise ValueError(f"flow must be an ordinary differential equation: got {flow!r}, a delay equation of dysts.")
    return known[flow]()


class _Stand:
    """What stands for `self` in a copied method: the parameters, and copies of the other methods."""

    def __init__(self, made: type, constants: dict[str, Any]):
        self._made, self._constants = made, constants

    def __getattr__(self, name: str) -> Any:
        if name in self._constants:
            return self._constants[name]
        member = inspect.getattr_static(self._made, name)
        if isinstance(member, staticmethod):
            return _copied(member.__func__)
        return types.MethodType(_copied(member), self) if callable(member) else member


def _copied(function: Any) -> Callable[..., Any]:
    """The Python function of dysts (also below a compiled one) with `jax.numpy` for its NumPy."""
    plain = getattr(function, "py_func", function)
    scope = {**plain.__globals__, "np": jnp}
    return types.FunctionType(plain.__code__, scope, plain.__name__, plain.__defaults__, plain.__closure__)


def _law(made: type) -> Callable[..., Any]:
    """`(x, constants, t) -> dx/dt` of a class of dysts."""

    def law(x, constants, t):
        arrays = {k: jnp.asarray(v, x.dtype) if isinstance(v, list) else v for k, v in constants.items()}
        stand = _Stand(made, arrays)
        with _loose():
            if "rhs" in _members(made):
                out = stand.rhs(x, t)
            else:
                out = stand._rhs(*x, t, *(arrays[name] for name in sorted(arrays)))
            return jnp.stack([jnp.asarray(v, x.dtype) for v in out])

    return law


def _members(made: type) -> set[str]:
    """The attributes defined by a class of dysts and by those it derives from, but for the abstract bases."""
    return {name for each in made.__mro__ if each.__module__ == made.__module__ for name in vars(each)}


@contextlib.contextmanager
def _loose():
    """The promotion of NumPy, for which dysts is written, whatever the caller's settings."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _names(made: type, count: int) -> tuple[str, ...]:
    """The first arguments of the right-hand side; `x0, x1, ...` where it has none of its own."""
    if "_rhs" in _members(made):
        found = tuple(inspect.signature(_copied(inspect.getattr_static(made, "_rhs").__func__)).parameters)[:count]
        if len(found) == count:
            return found
    return tuple(f"x{i}" for i in range(count))


def _check_law(flow: str, law: Callable[..., Any], constants: dict[str, Any], count: int) -> None:
    """Raise `ValueError` unless the law can be traced, and is the same at all times."""
    x, t = jax.ShapeDtypeStruct((count,), float), jax.ShapeDtypeStruct((), float)
    try:
        traced = jax.make_jaxpr(lambda x, t: law(x, constants, t))(x, t)
    except Exception as error:
        raise ValueError(
            f"flow must have a right-hand side that JAX can trace: that of {flow!r} fails with "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if _depends(traced.jaxpr, traced.jaxpr.invars[1]):
        raise ValueError(f"flow must be autonomous: the law of {flow!r} in dysts changes with time.")


def _depends(jaxpr: Any, variable: Any) -> bool:
    """Whether a variable enters any computation."""
    return any(v is variable for equation in jaxpr.eqns for v in equation.invars)
