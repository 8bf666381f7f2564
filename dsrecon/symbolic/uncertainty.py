"""How far the mean of a serially dependent sequence may be off."""

from typing import NamedTuple

import numpy as np
import scipy

_FEWEST = 8  # blocks


class Spread(NamedTuple):
    """Standard error of a mean, from so many blocks of so many steps."""

    error: float
    block: int
    blocks: int

    def half_width(self, level: float, more: float = 0.0) -> float:
        """Half of the interval of a level, by Student's t with `blocks - 1` degrees of freedom; `more` is further
        variance."""
        return float(scipy.stats.t.ppf(0.5 + level / 2, self.blocks - 1) * np.hypot(self.error, np.sqrt(more)))


def spread_of_mean(x: np.ndarray) -> Spread:
    """Standard error of the mean of `x` `[t]`, serially dependent: that of the block bootstrap.

    The variance over all resamplings of blocks of `b` steps is known in closed form, `var(block means) / blocks`, so
    none is drawn. `b` is the least power of two with `b^3 >= 2 t tau^2`, where `tau = b var(block means) / var(x)` is
    how many steps count as one: longer blocks for longer memory. At least 8 blocks are kept.

    References: Carlstein 1986, *The use of subseries values for estimating the variance of a general statistic from a
    stationary sequence*, Annals of Statistics; the length: Wolff 2004, *Monte Carlo errors with less errors*.
    """
    steps, means, block = len(x), x, 1
    alone = float(np.var(x))
    while True:
        variance = float(np.var(means, ddof=1)) if len(means) > 1 else np.inf
        tau = block * variance / alone if alone > 0 else 0.0
        if not alone > 0 or block**3 >= 2 * steps * tau**2 or len(means) < 2 * _FEWEST:
            return Spread(float(np.sqrt(variance / len(means))), block, len(means))
        pairs = len(means) // 2
        means = 0.5 * (means[: 2 * pairs : 2] + means[1 : 2 * pairs : 2])
        block *= 2
