"""What the states of a hidden Markov model show: symbols, or values around a mean."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

_SUM = 1e-6  # how far a row of probabilities may be from 1
_NARROW = 1e-6  # of the variance of the data: what every fitted covariance has at least


class AbstractEmissions(eqx.Module):
    """What each of `s` states shows at a step: a distribution for each."""

    @abc.abstractmethod
    def log_density(self, x: Shaped[Array, "t ..."]) -> Float[Array, "t s"]:
        """`ln p(x_t | state)`, nats."""

    @abc.abstractmethod
    def updated(self, x: Shaped[Array, "t ..."], weight: Float[Array, "t s"]) -> "AbstractEmissions":
        """The distributions of greatest likelihood, when step `t` counts for a state by its weight."""

    @abc.abstractmethod
    def drawn(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What is seen along states `[t]`."""

    @abc.abstractmethod
    def checked(self, x: Any) -> np.ndarray:
        """Observations in the form that `log_density` takes, or `ValueError`."""

    @abc.abstractmethod
    def sorted(self, order: np.ndarray) -> "AbstractEmissions":
        """The same with the states in another order: the first is what was number `order[0]`."""

    @abc.abstractmethod
    def free(self) -> int:
        """How many numbers of it are free."""


class SymbolEmissions(AbstractEmissions):
    """Each state emits symbol `x` with probability `p(x | state)`.

    **Arguments:** `probabilities` `[s, a]`, rows that sum to 1; `symbols`, the alphabet, `a` different integers
    (default 0, 1, ...). **Raises:** `ValueError` for other shapes, an alphabet of one symbol, rows that are no
    distributions.
    """

    probabilities: Float[Array | np.ndarray, "s a"]
    symbols: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, probabilities: Any, symbols: Any = None):
        self.probabilities = distributions(probabilities, "probabilities")
        alphabet = tuple(range(self.probabilities.shape[1])) if symbols is None else tuple(int(x) for x in symbols)
        if len(alphabet) != self.probabilities.shape[1] or list(alphabet) != sorted(set(alphabet)) or len(alphabet) < 2:
            raise ValueError(
                f"symbols must be {self.probabilities.shape[1]} (at least two) different integers in increasing order, "
                f"one for each column of probabilities: got {alphabet}."
            )
        self.symbols = alphabet

    def log_density(self, x: Shaped[Array, "t ..."]) -> Float[Array, "t s"]:
        return jnp.log(jnp.asarray(self.probabilities).T)[x]

    def updated(self, x: Shaped[Array, "t ..."], weight: Float[Array, "t s"]) -> "SymbolEmissions":
        total = jnp.zeros(self.probabilities.shape[::-1], weight.dtype).at[x].add(weight).T
        total = jnp.maximum(total, 1e-300)
        return eqx.tree_at(lambda e: e.probabilities, self, total / total.sum(1, keepdims=True))

    def drawn(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        edges = np.cumsum(np.asarray(self.probabilities), 1)[:, :-1]
        return np.array(self.symbols)[(rng.random(len(states))[:, None] >= edges[states]).sum(1)]

    def checked(self, x: Any) -> np.ndarray:
        values, alphabet = np.asarray(x), np.array(self.symbols)
        if values.ndim != 1 or not values.size or values.dtype.kind not in "iu":
            raise ValueError(f"symbols must be one row of integers: got {values.dtype} of shape {values.shape}.")
        place = np.minimum(np.searchsorted(alphabet, values), len(alphabet) - 1)
        if (alphabet[place] != values).any():
            others = np.setdiff1d(values, alphabet).tolist()
            raise ValueError(f"symbols must be those of the model, {self.symbols}: got {others[:10]} too.")
        return place

    def sorted(self, order: np.ndarray) -> "SymbolEmissions":
        return eqx.tree_at(lambda e: e.probabilities, self, np.asarray(self.probabilities)[order])

    def free(self) -> int:
        states, symbols = self.probabilities.shape
        return states * (symbols - 1)


class GaussianEmissions(AbstractEmissions):
    """Each state shows `x ~ N(mean, covariance)` of its own.

    **Arguments:** `means` `[s, n]`, `covariances` `[s, n, n]`, in the units of the data and their squares; `least`, the
    least variance of each variable `[n]` that a fit may come to (default 0). **Raises:** `ValueError` for other
    shapes, and for matrices that are not symmetric and positive definite.
    """

    means: Float[Array | np.ndarray, "s n"]
    covariances: Float[Array | np.ndarray, "s n n"]
    least: Float[Array | np.ndarray, "n"]

    def __init__(self, means: Any, covariances: Any, least: Any = None):
        self.means, self.covariances = np.array(means, float), np.array(covariances, float)
        if self.means.ndim != 2 or self.covariances.shape != (*self.means.shape, self.means.shape[1]):
            raise ValueError(
                "means must have shape (states, n) and covariances (states, n, n): got "
                f"{self.means.shape} and {self.covariances.shape}."
            )
        size = self.means.shape[1]
        self.least = np.zeros(size) if least is None else np.broadcast_to(np.array(least, float), (size,)).copy()
        symmetric = np.allclose(self.covariances, np.swapaxes(self.covariances, 1, 2), rtol=1e-9)
        if not symmetric or not (np.linalg.eigvalsh(self.covariances) > 0).all():
            raise ValueError(f"covariances must be symmetric and positive definite: got {self.covariances.tolist()}.")

    def log_density(self, x: Shaped[Array, "t ..."]) -> Float[Array, "t s"]:
        def of_state(mean: Array, covariance: Array) -> Array:
            L = jnp.linalg.cholesky(covariance)
            z = jax.scipy.linalg.solve_triangular(L, (x - mean[None]).T, lower=True)
            scale = jnp.log(jnp.diagonal(L)).sum() + 0.5 * len(mean) * np.log(2 * np.pi)
            return -0.5 * (z**2).sum(0) - scale

        return jax.vmap(of_state)(jnp.asarray(self.means), jnp.asarray(self.covariances)).T

    def updated(self, x: Shaped[Array, "t ..."], weight: Float[Array, "t s"]) -> "GaussianEmissions":
        total = jnp.maximum(weight.sum(0), 1e-300)
        means = (weight.T @ x) / total[:, None]

        def spread(w: Array, mean: Array, n: Array) -> Array:
            y = x - mean[None]
            return (w[:, None] * y).T @ y / n + jnp.diag(jnp.asarray(self.least))

        covariances = jax.vmap(spread, in_axes=(1, 0, 0))(weight, means, total)
        return eqx.tree_at(lambda e: (e.means, e.covariances), self, (means, covariances))

    def drawn(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        L = np.linalg.cholesky(np.asarray(self.covariances))
        draws = rng.normal(size=(len(states), self.means.shape[1]))
        return np.asarray(self.means)[states] + np.einsum("tij,tj->ti", L[states], draws)

    def checked(self, x: Any) -> np.ndarray:
        values = np.asarray(x, float)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or not len(values) or values.shape[1] != self.means.shape[1]:
            raise ValueError(f"values must have shape (t, {self.means.shape[1]}): got {values.shape}.")
        if not np.isfinite(values).all():
            raise ValueError(f"values must be finite: {int((~np.isfinite(values)).any(1).sum())} steps are not.")
        return values

    def sorted(self, order: np.ndarray) -> "GaussianEmissions":
        found = (np.asarray(self.means)[order], np.asarray(self.covariances)[order])
        return eqx.tree_at(lambda e: (e.means, e.covariances), self, found)

    def free(self) -> int:
        states, size = self.means.shape
        return states * (size + size * (size + 1) // 2)


def least_variance(values: np.ndarray) -> np.ndarray:
    """The variance that no fitted state may fall below, `[n]`: a millionth of that of the data."""
    return _NARROW * values.var(0)


def distributions(rows: Any, name: str) -> np.ndarray:
    """Rows of probabilities `[s, a]` in float64, divided by their sums; **raises** `ValueError` for rows that are
    none."""
    found = np.array(rows, float)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{name} must have shape (states, entries): got {found.shape}.")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"{name} must be finite and not negative: got {found.tolist()}.")
    total = found.sum(1)
    if (np.abs(total - 1) > _SUM).any():
        worst = int(np.argmax(np.abs(total - 1)))
        raise ValueError(f"{name} of each state must sum to 1: those of state {worst} sum to {total[worst]}.")
    return found / total[:, None]
