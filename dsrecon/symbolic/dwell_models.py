"""Which law do stays follow? That of a Markov chain, a wider or narrower one, or neither."""

from typing import Any

import numpy as np
import scipy
import xarray as xr

from dsrecon.symbolic.semimarkov import kaplan_meier, stays_of
from dsrecon.symbolic.symbols import as_sequence

_SHAPES = (1e-2, 1e4)  # of the negative binomial: nearly logarithmic, nearly Poisson


def dwell_models(symbols: Any) -> xr.Dataset:
    """How long each symbol lasts, against two laws: the geometric one of a Markov chain, and the negative binomial.

    Geometric: `P(k) = p (1 - p)^(k - 1)`, k = 1, 2, ... steps: whether a stay ends does not hang on how long it has
    lasted. Negative binomial: `k - 1` is one, of shape `r`; `r = 1` is the geometric law, a larger `r` more regular
    stays, up to Poisson's, a smaller one more ragged. Both are fitted by maximum likelihood; the stay that the end of
    the record cut off enters as `P(k >= steps)`, the first is left out (`semi_markov` says why).

    **Arguments:** `symbols`: the `Dataset` of `encode`, its `symbol`, or integers `[t]`.

    **Returns:** `Dataset` along `region` (the symbols that occur):

    - `runs` seen whole, `mean` and `sd` of the estimated stays in units of time;
    - `geometric_p`; `shape` r, `negative_binomial_p`;
    - `geometric`, `negative_binomial`: log likelihoods, nats; `p_value` of the first against the second (likelihood
      ratio, chi-square of one degree): small where stays are not those of a Markov chain;
    - `distance_geometric`, `distance_negative_binomial`: largest difference of the distribution functions from the
      empirical one. Where both are large stays follow neither law.

    Attributes: `time_step`, `time_unit`.

    **Raises:** `ValueError` as `semi_markov`.

    Reference: Johnson, Kemp & Kotz 2005, *Univariate discrete distributions*, chapter 5.
    """
    sequence = as_sequence(symbols)
    stays = stays_of(symbols)
    rows = [_row(*stays.of(i), sequence.time_step) for i in range(len(stays.found))]
    return xr.Dataset(
        {name: ("region", np.array([row[name] for row in rows])) for name in rows[0]},
        coords={"region": stays.found},
        attrs={"time_step": sequence.time_step, "time_unit": sequence.time_unit},
    )


def _row(whole: np.ndarray, cut: int, time_step: float) -> dict[str, Any]:
    longest = max(int(whole.max()), cut)
    found = kaplan_meier(whole, cut, longest)
    k = np.arange(1, longest + 1)
    mean = float(found @ k)
    p = len(whole) / float(whole.sum() + max(cut - 1, 0))
    geometric = _likelihood(1.0, p, whole, cut)
    best = scipy.optimize.minimize_scalar(
        lambda log_r: -_profile(np.exp(log_r), whole, cut)[0], bounds=np.log(_SHAPES), method="bounded"
    )
    shape = float(np.exp(best.x))
    likelihood, q = _profile(shape, whole, cut)
    if likelihood < geometric:  # which is one of them
        shape, likelihood, q = 1.0, geometric, p
    empirical = found.cumsum()
    laws = {
        "geometric": scipy.stats.nbinom.cdf(k - 1, 1, p),
        "negative_binomial": scipy.stats.nbinom.cdf(k - 1, shape, q),
    }
    return {
        "runs": len(whole),
        "mean": mean * time_step,
        "sd": float(np.sqrt(max(found @ (k - mean) ** 2, 0.0))) * time_step,
        "geometric_p": p,
        "shape": shape,
        "negative_binomial_p": q,
        "geometric": geometric,
        "negative_binomial": likelihood,
        "p_value": float(scipy.stats.chi2.sf(2 * (likelihood - geometric), 1)),
        **{f"distance_{name}": float(np.abs(law - empirical).max()) for name, law in laws.items()},
    }


def _profile(shape: float, whole: np.ndarray, cut: int) -> tuple[float, float]:
    """The largest log likelihood of a shape, and its p: in closed form but for the stay that was cut off."""
    mean = float(whole.mean()) - 1
    if not mean and cut <= 1:
        return 0.0, 1.0  # all stays of one step
    start = shape / (shape + max(mean, 1e-9))
    if cut <= 1:
        return _likelihood(shape, start, whole, cut), start
    top = np.log(1 - 1e-12)
    best = scipy.optimize.minimize_scalar(
        lambda log_p: -_likelihood(shape, float(np.exp(log_p)), whole, cut),
        bounds=(np.log(start) - 5, min(np.log(start) + 1, top)),
        method="bounded",
    )
    p = float(np.exp(best.x))
    return -float(best.fun), p


def _likelihood(shape: float, p: float, whole: np.ndarray, cut: int) -> float:
    k = whole - 1.0
    more = np.where(k > 0, k * np.log1p(-min(p, 1 - 1e-15)), 0.0)
    found = (
        scipy.special.gammaln(k + shape)
        - scipy.special.gammaln(shape)
        - scipy.special.gammaln(k + 1)
        + shape * np.log(p)
        + more
    ).sum()
    return float(found + (scipy.stats.nbinom.logsf(cut - 2, shape, p) if cut > 1 else 0.0))
