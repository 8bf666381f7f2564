"""Observations that are counts or on/off: a linear map of the state, a link, and a likelihood a channel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact

from dsrecon._types import Inputs, Key
from dsrecon.readout.base import AbstractReadout, pointwise
from dsrecon.readout.linear import LinearReadout

FAMILIES = ("gaussian", "poisson", "bernoulli")
"""What a channel of a `GeneralisedReadout` may be."""


class GeneralisedReadout(AbstractReadout):
    """Channels of different kinds: `eta = B z + b`, and channel by channel

    | family | what it is | expected value | misfit | imposed as |
    |---|---|---|---|---|
    | `"gaussian"` | a number, noise of variance 1 | `eta` | `(eta - x)^2 / 2` | `x` |
    | `"poisson"` | a count | `exp(eta)` | `exp(eta) - x eta` | `ln(x + 1/2)` |
    | `"bernoulli"` | 0 or 1 | `sigmoid(eta)` | `softplus(eta) - x eta` | `logit((x + 1/2) / 2)` |

    All misfits are negative log-likelihoods in nats up to terms without `eta`, so that they may be added; a Gaussian
    channel weighs more or less with the units that it is given in. Counts and on/off channels are given as they are,
    never standardised: see `check_counts`.

    An observation is imposed on `eta` (`targets`; the halves keep the link of 0 and 1 finite) through the
    pseudo-inverse of `B`, as `LinearReadout` does. A rate beyond the range of floating point is infinite.

    **Arguments:** `families`: one name a channel, `n` of them; `state_size` m; `key` as in `LinearReadout`.
    **Raises:** `ValueError` for no channel, another family, or a size below 1, and a key that is none.

    References: Kramer et al. 2022, *Reconstructing nonlinear dynamical systems from multi-modal time series*, ICML;
    Brenner et al. 2024, *Integrating multimodal data for joint generative modeling of complex dynamics*, ICML
    (multimodal teacher forcing; there a trained encoder takes the place of the links and `B^+`).
    """

    linear: LinearReadout
    families: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, families: tuple[str, ...], state_size: int, *, key: Key):
        _check_families(families)
        self.families = tuple(families)
        self.linear = LinearReadout(len(families), state_size, key=key)

    @property
    def observed_size(self) -> int:
        return self.linear.observed_size

    @property
    def state_size(self) -> int:
        return self.linear.state_size

    @property
    def memory(self) -> int:
        return 0

    @property
    def unitwise(self) -> bool:
        return False

    def decode(self, z: Inexact[Array, "m"], s: Inputs = None) -> Inexact[Array, "n"]:
        return self._by_family(self.linear.decode(z), lambda eta: eta, jnp.exp, jax.nn.sigmoid)

    def encode(
        self,
        x: Inexact[Array, "n"],
        z: Inexact[Array, "m"],
        mask: Bool[Array, "n"] | None = None,
    ) -> Inexact[Array, "m"]:
        return self.linear.encode(x, z, mask)

    def start(self, x: Inexact[Array, "n"]) -> Inexact[Array, "m"]:
        return self.linear.start(x)

    def observe(self, zs: Inexact[Array, "t m"]) -> Inexact[Array, "t n"]:
        return pointwise(self.decode, zs)

    def targets(self, xs: Inexact[Array, "t n"], mask: Bool[Array, "t n"] | None = None) -> Inexact[Array, "t n"]:
        xs = xs if mask is None else jnp.where(mask, xs, 0)
        return self._by_family(xs, lambda x: x, lambda x: jnp.log(x + 0.5), lambda x: jnp.log((x + 0.5) / (1.5 - x)))

    def misfit(self, zs: Inexact[Array, "t m"], xs: Inexact[Array, "t n"]) -> Inexact[Array, "t n"]:
        eta = pointwise(self.linear.decode, zs)
        partition = self._by_family(eta, lambda eta: (eta - xs) ** 2 / 2, jnp.exp, jax.nn.softplus)
        return partition - jnp.where(self._of("gaussian")[None], 0, xs * eta)

    def sample(self, zs: Inexact[Array, "t m"], *, key: Key) -> Inexact[Array, "t n"]:
        """Draw the counts and binary values that might be observed along states `[t, m]`: `[t, n]`.

        Gaussian channels stay at their expected value: the spread about it is not fitted. NaN where the rate of a count
        is not finite or too large for an integer.
        """
        keys = jax.random.split(key)
        largest = jnp.iinfo(jnp.result_type(int)).max

        def poisson(rate):
            return jnp.where(rate < largest, jax.random.poisson(keys[0], rate).astype(rate.dtype), jnp.nan)

        def bernoulli(p):
            return jnp.where(
                jnp.isfinite(p), (jax.random.uniform(keys[1], p.shape, p.dtype) < p).astype(p.dtype), jnp.nan
            )

        return self._by_family(self.observe(zs), lambda mean: mean, poisson, bernoulli)

    def _of(self, family: str) -> np.ndarray:
        return np.array([f == family for f in self.families])

    def _by_family(self, values, gaussian, poisson, bernoulli):
        """Each function on the channels of its family alone: what it would do elsewhere (overflow) plays no part."""
        out = values
        for family, function in zip(FAMILIES, (gaussian, poisson, bernoulli), strict=True):
            mine = self._of(family) if values.ndim == 1 else self._of(family)[None]
            if mine.any():
                out = jnp.where(mine, function(jnp.where(mine, values, 0)), out)
        return out


def check_counts(xs: np.ndarray, families: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Raise `ValueError` unless every channel holds what its family can: NaN (missing) is allowed everywhere.

    `"poisson"`: 0, 1, 2, ...; `"bernoulli"`: 0 or 1; `"gaussian"`: anything finite.

    **Arguments:** `xs`: series `[t, n]` as measured, before any scaling; `families`, `names`: one a channel.
    **Raises:** `ValueError` naming the channel, the first wrong value and its row.
    """
    _check_families(families)
    if xs.ndim != 2 or not xs.shape[1] == len(families) == len(names):
        raise ValueError(
            f"xs must have shape [time, channel] with a family and a name each: got {xs.shape}, "
            f"{len(families)} families and {len(names)} names."
        )
    wanted = {"gaussian": "finite", "poisson": "a count (0, 1, 2, ...)", "bernoulli": "0 or 1"}
    for name, family, column in zip(names, families, np.asarray(xs, np.float64).T, strict=True):
        good = np.isfinite(column)
        if family == "poisson":
            good &= (column >= 0) & (column == np.round(column))
        if family == "bernoulli":
            good &= (column == 0) | (column == 1)
        wrong = ~(good | np.isnan(column))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"channel {name!r} is {family!r}: row {row} must be {wanted[family]}, got {column[row]:g}."
            )


def _check_families(families: tuple[str, ...]) -> None:
    if isinstance(families, str):
        raise ValueError(f"families must be a tuple of names, one a channel, ({families!r},) say: got {families!r}.")
    if not families:
        raise ValueError("families must name one family a channel: got none.")
    for i, family in enumerate(families):
        if family not in FAMILIES:
            raise ValueError(f"families must be among {FAMILIES}: got {family!r} for channel {i}.")
