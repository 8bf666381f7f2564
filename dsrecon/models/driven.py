"""A fitted dynamical system as a forecaster: pulled along the past, let free for the future."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsrecon._types import Key
from dsrecon.cell import AbstractCell
from dsrecon.evolve import evolve
from dsrecon.forecaster import AbstractForecaster
from dsrecon.readout import AbstractReadout, Forced, Forcing


class CellForecaster(AbstractForecaster):
    """A cell under teacher forcing along the window, then running free: `z' = cell(z + alpha (encode(x, z) - z), s)`.

    **Fields:**

    - `cell`, `readout`: of the system, in units of its own: `(x - mean) / std`, both `[n]`.
    - `input_mean`, `input_std` `[k]`: of its external inputs, which are the first columns of `past` and all of
      `future`; `None` for a system without.
    - `alpha`: how hard the past pulls.
    - `lag`, `dimension`: of the delay coordinates of one variable; `dimension=1` for none.

    **Raises:** `ValueError` for a window that the delay coordinates do not fit in, a dimension above 1 of several
    variables, and inputs that are missing. A run that diverges gives infinity or NaN, which is what it forecasts.
    """

    cell: AbstractCell
    readout: AbstractReadout
    mean: Float[Array, "n"]
    std: Float[Array, "n"]
    input_mean: Float[Array, "k"] | None
    input_std: Float[Array, "k"] | None
    alpha: Float[Array, ""]
    lookback: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    lag: int = eqx.field(static=True, default=1)
    dimension: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if (self.dimension - 1) * self.lag >= self.lookback:
            raise ValueError(
                f"lookback must be above {(self.dimension - 1) * self.lag} steps, the span of the delay coordinates: "
                f"got {self.lookback}."
            )

    def __call__(
        self,
        x: Float[Array, "lookback n"],
        past: Float[Array, "lookback k"] | None = None,
        future: Float[Array, "horizon j"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "horizon n"]:
        if self.dimension > 1 and x.shape[1] > 1:
            raise ValueError(f"delay coordinates are of one variable: got {x.shape[1]}.")
        span = (self.dimension - 1) * self.lag
        seen = jnp.concatenate([x[span - i * self.lag : len(x) - i * self.lag] for i in range(self.dimension)], 1)
        seen = (seen - self.mean[None]) / self.std[None]
        xs = self.readout.targets(seen, None)
        behind, ahead = self._inputs(past, future)
        forced = Forced(self.cell, self.readout)  # pyright: ignore[reportCallIssue]
        pull = Forcing(xs, jnp.full(len(xs), self.alpha, xs.dtype))
        z = self.readout.start(xs[0])[None]
        if len(xs) > 1:
            before = jax.tree.map(lambda v: v[:-1], pull)
            before = before._replace(s=None if behind is None else behind[span + 1 :])
            zs = evolve(forced, z[0], before, throw=False).zs
            after = jax.tree.map(lambda v: v[1:], pull)
            z = jnp.concatenate([z, jax.vmap(forced.force)(zs, after)])
        free = evolve(self.cell, z[-1], ahead, steps=self.horizon, throw=False).zs
        shown = self.readout.observe(jnp.concatenate([z, free]))[-self.horizon :]
        return (shown * self.std[None] + self.mean[None])[:, : x.shape[1]]

    def _inputs(self, past: Array | None, future: Array | None) -> tuple[Array | None, Array | None]:
        if self.input_mean is None or self.input_std is None:
            return None, None
        if past is None or future is None:
            raise ValueError(f"the system has {len(self.input_mean)} external inputs: past and future must be given.")
        k, off, unit = len(self.input_mean), self.input_mean[None], self.input_std[None]
        return (past[:, :k] - off) / unit, (future[:, :k] - off) / unit
