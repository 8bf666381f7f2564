"""How fast does a cell stretch? Estimates of `s`, from which an adaptive forcing takes its strength `1 - 1/s`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from dsrecon._types import Scalar
from dsrecon.cell import AbstractCell

Estimator = Callable[[AbstractCell, Float[Array, "b t m m"]], Scalar]
"""`estimator(cell, J) -> s`; `J` `[b, t, m, m]`: the cell's Jacobians along `b` sequences of `t` steps."""

SQUARINGS = 5
"""Of `J'J`, before two power iterations: as many as 96 steps of one. Two singular values nearer to one another than
these can tell apart differ by 1 % at most, and either is the norm to that."""


def largest_norm(cell: AbstractCell, J: Float[Array, "b t m m"]) -> Scalar:
    """`max_bt |J_bt|`: the largest spectral norm in the batch. No step of the batch then stretches a gradient."""
    return jnp.max(spectral_norm(_checked(J)))


def product_bound(cell: AbstractCell, J: Float[Array, "b t m m"]) -> Scalar:
    """`max_b (prod_t |J_bt|)^(1/t)`: the largest over the sequences of the geometric mean of their steps' norms.

    Bounds the norm of the product of Jacobians, `|J_t ... J_1| <= s^t`, which is what a gradient carries, and asks for
    less forcing than `largest_norm`.
    """
    return jnp.max(jnp.exp(jnp.mean(jnp.log(spectral_norm(_checked(J))), axis=1)))


def mean_norm(cell: AbstractCell, J: Float[Array, "b t m m"]) -> Scalar:
    """`|mean_bt J_bt|`: the norm of the mean Jacobian. No bound: stretching that turns about averages out."""
    return spectral_norm(jnp.mean(_checked(J), axis=(0, 1)))


def log_mean_norm(cell: AbstractCell, J: Float[Array, "b t m m"]) -> Scalar:
    """`|exp(mean_bt log J_bt)|`: the norm of the exponential of the mean matrix logarithm.

    The matrix analogue of a geometric mean, exact for Jacobians that commute. The principal logarithm is taken through
    the eigenvectors, complex where the eigenvalues are; on the CPU only, and an order slower than the others. A
    singular Jacobian has no logarithm: the estimate is then 0 or not finite.
    """
    J = _checked(J)
    values, vectors = jnp.linalg.eig(J)
    logs = (vectors * jnp.log(values)[..., None, :]) @ jnp.linalg.inv(vectors)
    mean = jnp.mean(logs, axis=(0, 1))
    return jnp.linalg.norm(jax.scipy.linalg.expm(mean), 2).astype(J.dtype)


def parameter_bound(bound: Callable[[AbstractCell], Scalar]) -> Estimator:
    """`s = bound(cell)`, from the parameters alone; holds in every region. `dsrecon.models.norm_bound` is one."""

    def estimator(cell: AbstractCell, J: Float[Array, "b t m m"]) -> Scalar:
        return bound(cell)

    return estimator


def spectral_norm(J: Float[Array, "*lead m m"]) -> Float[Array, "*lead"]:
    """Largest singular values, by power iteration on a power of `J'J`: to 1 % or better, from below.

    A singular value decomposition of each of the thousands of small matrices of a batch would cost more than the update
    that it serves.
    """
    G = jnp.swapaxes(J, -1, -2) @ J
    size = jnp.trace(G, axis1=-2, axis2=-1)
    unit = jnp.where(size > 0, size, jnp.ones_like(size))
    H = G / unit[..., None, None]
    for _ in range(SQUARINGS):
        H = H @ H
        scale = jnp.trace(H, axis1=-2, axis2=-1)
        H = H / jnp.where(scale > 0, scale, jnp.ones_like(scale))[..., None, None]
    # the longest column lies nearest to the leading direction
    longest = jnp.argmax(jnp.sum(H**2, axis=-2), axis=-1)
    v = jnp.take_along_axis(H, longest[..., None, None], axis=-1)

    def step(_, v):
        v = H @ v
        length = jnp.sqrt(jnp.sum(v**2, axis=-2, keepdims=True))
        return v / jnp.where(length > 0, length, jnp.ones_like(length))

    v = jax.lax.fori_loop(0, 2, step, v)
    length = jnp.sum(v**2, axis=(-2, -1))
    stretched = jnp.sum((J @ v) ** 2, axis=(-2, -1))
    return jnp.sqrt(stretched / jnp.where(length > 0, length, jnp.ones_like(length)))


def _checked(J: Float[Array, "b t m m"]) -> Float[Array, "b t m m"]:
    """The Jacobians. **Raises** `ValueError` where some are not finite and known; under jit the estimate is NaN."""
    if not isinstance(J, Tracer) and not np.isfinite(np.asarray(J)).all():
        bad = np.argwhere(~np.isfinite(np.asarray(J)).all((-2, -1)))
        raise ValueError(
            f"the Jacobians must be finite: {len(bad)} of {J.shape[0] * J.shape[1]} are not, first that of sequence "
            f"{bad[0][0]}, step {bad[0][1]}. The run has diverged there."
        )
    return J
