"""One measured variable, and its own past as the other coordinates."""

import equinox as eqx
import numpy as np


class Embedding(eqx.Module):
    """Delay coordinates of one variable: `X_t = (x_t, x_{t-lag}, ..., x_{t-(d-1) lag})`.

    For almost every lag and `d` above twice the dimension of the attractor, `X` is the attractor up to a smooth change
    of coordinates. The present value stands first, so that what a model of `X` shows first is the variable itself.

    **Arguments:** `lag`, in samples; `dimension` d, at least 2. **Raises:** `ValueError` for others.

    Reference: Takens 1981, *Detecting strange attractors in turbulence*, Lecture Notes in Mathematics 898, 366; Sauer,
    Yorke & Casdagli 1991, *Embedology*, Journal of Statistical Physics 65, 579.
    """

    lag: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __check_init__(self):
        if self.lag < 1 or self.dimension < 2:
            raise ValueError(f"lag must be at least 1 and dimension at least 2: got {self.lag} and {self.dimension}.")

    @property
    def span(self) -> int:
        """Samples before the first point: `(d - 1) lag`."""
        return (self.dimension - 1) * self.lag

    def names(self, name: str) -> tuple[str, ...]:
        """Names of the coordinates: `x, x(t-3), x(t-6)`, in samples."""
        return (name, *(f"{name}(t-{k * self.lag})" for k in range(1, self.dimension)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values `[t, 1]` to points `[t - span, d]`: row `i` is that of sample `i + span`; NaN stays where it falls.

        **Raises:** `ValueError` for more variables than one, or a series that is not longer than `span`.
        """
        if values.ndim != 2 or values.shape[1] != 1:
            raise ValueError(f"a delay embedding takes one variable, [time, 1]: got shape {values.shape}.")
        count = len(values) - self.span
        if count < 1:
            raise ValueError(
                f"the series must be longer than the embedding's span, {self.span} samples: got {len(values)}."
            )
        return np.stack([values[self.span - k * self.lag :][:count, 0] for k in range(self.dimension)], axis=1)
