"""Training under differential privacy, and what it has cost.

What is protected is one *unit* of the data, which the caller names: a row, a stretch of rows, a trial, a subject. Two
series are neighbours when they differ in the values of one unit, and in nothing else: the number of rows, the trials
and where values are missing are the same, and public. The guarantee is that the trained parameters say little about
which of two neighbours they came from.

Windows overlap, so a unit is in many of them (`exposure` counts), and a guarantee for one window would be none for
anybody: it is not offered.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy
from jaxtyping import Float, PyTree

from dsrecon._types import Key
from dsrecon.training.penalties import keyed
from dsrecon.training.windows import Windows

_TAIL = 1e-3  # share of delta that is spent on cutting tails off
_ROUNDING = 1e-14  # of delta, an update: what Fourier transforms may lose
_LARGEST = 1024.0  # loss of one update beyond which no bound is looked for
_CLOSE = 0.005  # relative change of epsilon at which the grid is fine enough
_POINTS = 2**21  # of the distribution of all updates: no finer grid beyond that


def private(
    optimiser: optax.GradientTransformation, *, clip: float, noise_multiplier: float, key: Key
) -> optax.GradientTransformation:
    """An optimiser that sees the data only through clipped gradients of single windows and noise: DP-SGD.

    `g = [ sum_i g_i min(1, clip / |g_i|) + noise_multiplier * clip * N(0, I) ] / b`

    with `g_i` the gradient of the `i`-th of `b` windows, its norm over all parameters:
    `optax.contrib.differentially_private_aggregate`, in front of the optimiser. For `fit(..., gradient=of_windows)`.

    Exchanging one window moves `g` by at most `2 clip / b` before the noise (setting its gradient to zero, by
    `clip / b`). What a fit spends in all, `privacy_spent` says; it holds for the parameters, at any update, if

    - `key` and the key of `fit` came from `secret_key()` and are told to nobody. Who has the first can subtract the
      noise. A checkpoint holds both.
    - one run is released. Members of an ensemble count as `steps` each, and need different start parameters: the noise
      of a run follows from `key` and these, and what two runs share can be subtracted.
    - nothing else of the data is released: not the `History` (losses, gradient norms), not the update at which a run
      failed, not a model chosen by `evaluate` or by hand among many.
    - nothing else depends on the data: no scaler fitted on them, no `adapt` that looks at them (`Adaptive`), no start
      parameters or settings chosen by them; and a row of `Windows.seen` depends on its own row of `x` alone (readouts
      with `memory` 0).

    The noise is pseudo-random and rounded: this is no defence against who can exploit either (Mironov 2012).

    **Arguments:**

    - `optimiser`: an optax transformation.
    - `clip`: largest norm of the gradient of one window, in units of the gradient.
    - `noise_multiplier`: standard deviation of the noise on the sum, over `clip`. 0 clips only: no privacy.
    - `key`: of the noise.

    **Returns:** an optax transformation of gradients of windows, leaves `[b, ...]`.

    **Raises:** `ValueError` for a clip that is not positive, a negative noise multiplier; when traced, for a gradient
    without the axis of windows.

    References: Abadi et al. 2016, *Deep learning with differential privacy*, CCS; Mironov 2012, *On significance of the
    least significant bits for differential privacy*, CCS.
    """
    if not 0 < clip < math.inf:
        raise ValueError(f"clip must be positive and finite: got {clip}.")
    if not 0 <= noise_multiplier < math.inf:
        raise ValueError(f"noise_multiplier must be finite and at least 0: got {noise_multiplier}.")
    chain = keyed(optax.contrib.differentially_private_aggregate(clip, noise_multiplier, key), optimiser, key)

    def update(updates: PyTree, state: Any, params: PyTree | None = None):
        shapes, wanted = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (updates, params))
        if [shape[1:] for shape in shapes] != wanted or len({shape[:1] for shape in shapes}) != 1:
            raise ValueError(
                "private needs the gradient of every window by itself, leaves [b, ...] for parameters [...]: use "
                f"fit(..., gradient=of_windows). Got {shapes} for {wanted}."
            )
        return chain.update(updates, state, params)

    return optax.GradientTransformation(chain.init, update)


def secret_key() -> Key:
    """A key drawn by the operating system, 64 bits that nobody knows: different at each call, on purpose."""
    words = np.random.SeedSequence().generate_state(2)
    return jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32), impl="threefry2x32")


def exposure(sampler: Windows, unit: int | Sequence[int] = 1) -> tuple[int, int]:
    """`(windows, affected)`: how many windows may be drawn, and how many of them one unit is in at most.

    **Arguments:**

    - `sampler`: the windows that `fit` is given.
    - `unit`: what is protected. A number `r`: any `r` rows that follow one another (1: a single row, which is in up to
      `length + 1` windows; a sample of a series in delay coordinates is in `1 + (dimension - 1) delay` rows). Lengths
      `[u]` that add up to the rows: these stretches one after the other, as the trials or subjects of `Windows`.

    **Returns:** two numbers for `privacy_spent` and `noise_for`.

    **Raises:** `ValueError` for a unit that is empty or longer than the series, lengths that do not add up to it.
    """
    rows = len(sampler.x)
    starts = np.arange(rows - sampler.length) if sampler.starts is None else np.sort(np.asarray(sampler.starts))
    if isinstance(unit, int):
        if not 1 <= unit <= rows:
            raise ValueError(f"unit must lie between 1 and the {rows} rows of the series: got {unit}.")
        first = np.arange(rows - unit + 1)
        last = first + unit - 1
    else:
        if not len(unit) or min(unit) < 1 or sum(unit) != rows:
            raise ValueError(
                f"lengths of units must be at least 1 and add up to the {rows} rows: got {len(unit)} of them, "
                f"the shortest {min(unit, default=0)}, in all {sum(unit)}."
            )
        last = np.cumsum(unit) - 1
        first = last + 1 - np.asarray(unit)
    within = np.searchsorted(starts, last, "right") - np.searchsorted(starts, first - sampler.length, "left")
    return len(starts), int(within.max())


def privacy_spent(
    steps: int, batch: int, windows: int, noise_multiplier: float, delta: float, *, affected: int
) -> float:
    """Epsilon of a fit: an upper bound, for replacing the values of one unit by any others.

    `P(parameters in S | data) <= e^epsilon P(parameters in S | neighbour) + delta` for every set `S` of outcomes, under
    the conditions that `private` lists.

    An update draws `batch` of the windows uniformly with replacement, so `j ~ Binomial(batch, affected / windows)` of
    them hold the unit, and the sum of clipped gradients moves by at most `2 j clip`. What one update tells is bounded
    by the theorem on sampling with replacement of Balle, Barthe & Gaboardi (2018; the proof, by conditioning on
    `j >= 1` and coupling the rest, holds for a unit in any number of windows):

    `delta(log(1 + H (e^e - 1))) <= sum_j P(j) delta_j(e)`,  `H = P(j >= 1)`

    with `delta_j` the privacy curve of Gaussian noise on a shift of `2 j / noise_multiplier` (Balle & Wang 2018). The
    updates are composed through a pair of distributions that has this curve in both orders (Zhu, Dong & Wang 2022), put
    on a grid from above (Doroshenko et al. 2022) and convolved by Google's `dp-accounting`. So the result is never too
    small for the discretisation or for tails cut off; for the rounding of the Fourier transforms it has an allowance,
    `1e-14 steps` of `delta`.

    Replacing is a stronger demand than removing, which most published figures are for: it takes about twice the noise.

    **Arguments:**

    - `steps`: updates; times the number of runs that are released.
    - `batch`: windows an update.
    - `windows`, `affected`: how many there are, and how many hold the unit: from `exposure`.
    - `noise_multiplier`: as in `private`.
    - `delta`: probability with which the bound may fail, in (0, 1): well below one over the number of units.

    **Returns:** epsilon; infinity where one update alone may tell more than 1024.

    **Raises:** `ValueError` for numbers out of range, a `delta` below `1e-13 steps`; `ImportError` without
    `dsrecon[privacy]`.

    References: Balle, Barthe & Gaboardi 2018, *Privacy amplification by subsampling: tight analyses via couplings and
    divergences*, NeurIPS; Balle & Wang 2018, *Improving the Gaussian mechanism for differential privacy*, ICML; Zhu,
    Dong & Wang 2022, *Optimal accounting of differential privacy via characteristic function*, AISTATS; Doroshenko et
    al. 2022, *Connect the dots: tighter discrete approximations of privacy loss distributions*, PoPETs.
    """
    _check(steps, batch, windows, affected, delta)
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(f"noise_multiplier must be positive and finite: got {noise_multiplier}.")
    pld_pmf = _accountant("pld_pmf")
    rate, shift, tail = affected / windows, 2 / noise_multiplier, _TAIL * delta / steps

    def curve(losses: Float[np.ndarray, "e"]) -> Float[np.ndarray, "e"]:
        return _curve(losses, rate, batch, shift, tail / 2)

    top = 2.0**-10
    while curve(np.array([top]))[0] > tail:
        top *= 2
        if top > _LARGEST:
            return math.inf
    best, count = math.inf, 2**9
    while True:
        probabilities, rest = _dots(curve(np.arange(count + 1) * (top / count)), top / count)
        grid = dict(zip(range(-count, count + 1), probabilities.tolist(), strict=True))
        one = pld_pmf.create_pmf(grid, top / count, rest, True)
        all_steps = one.self_compose(steps, _TAIL * delta)
        epsilon = float(all_steps.get_epsilon_for_delta(delta - _ROUNDING * steps))
        reached = best - epsilon <= _CLOSE * epsilon
        best = min(best, epsilon)
        if reached or 4 * all_steps.size > _POINTS:
            return best
        count *= 4


def noise_for(epsilon: float, steps: int, batch: int, windows: int, delta: float, *, affected: int) -> float:
    """The noise multiplier for which `privacy_spent` is at most `epsilon`, to a thousandth; the other way round.

    **Arguments:** `epsilon`: to be spent, positive; the others as in `privacy_spent`.

    **Returns:** the noise multiplier for `private`; at least 0.05.

    **Raises:** as `privacy_spent`.
    """
    _check(steps, batch, windows, affected, delta)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite: got {epsilon}.")
    common = _accountant("common")

    def spent(logarithm: float) -> float:
        return privacy_spent(steps, batch, windows, math.exp(logarithm), delta, affected=affected)

    search = common.BinarySearchParameters(math.log(0.05), math.inf, initial_guess=1.0, tolerance=1e-3)
    return math.exp(common.inverse_monotone_function(spent, epsilon, search))


def _accountant(part: str) -> Any:
    """A module of the accountant, which is only imported when asked for."""
    try:
        return importlib.import_module(f"dp_accounting.pld.{part}")
    except ImportError as error:
        raise ImportError(
            "the privacy accountant needs dp-accounting: pip install 'dsrecon[privacy]' (training itself does not)."
        ) from error


def _check(steps: int, batch: int, windows: int, affected: int, delta: float) -> None:
    for name, value in (("steps", steps), ("batch", batch), ("windows", windows), ("affected", affected)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}.")
    if affected > windows:
        raise ValueError(f"affected must be at most the number of windows, {windows}: got {affected}.")
    if not 10 * _ROUNDING * steps <= delta < 1:
        raise ValueError(
            f"delta must lie below 1 and be at least {10 * _ROUNDING * steps:.0e}, 1e-13 an update (below that the "
            f"rounding of the sums counts): got {delta} for {steps} steps."
        )


def _curve(
    losses: Float[np.ndarray, "e"], rate: float, batch: int, shift: float, tail: float
) -> Float[np.ndarray, "e"]:
    """The bound of one update, `sum_j P(j) delta_j(e)`, at losses `log(1 + H (e^e - 1))`, which are not negative.

    Probabilities of more than `J` windows count as certain loss where they add up to no more than `tail`.
    """
    most = int(min(batch, scipy.stats.binom.isf(tail, batch, rate) + 1))
    chance = -math.expm1(batch * math.log1p(-rate)) if rate < 1 else 1.0
    inner = losses + np.log1p(-np.expm1(-losses) * (1 / chance - 1))
    total = np.full_like(losses, scipy.stats.binom.sf(most, batch, rate))
    for j in range(1, most + 1):
        d = j * shift
        above = scipy.special.log_ndtr(d / 2 - inner / d)
        below = inner + scipy.special.log_ndtr(-d / 2 - inner / d)
        total += scipy.stats.binom.pmf(j, batch, rate) * np.exp(above) * -np.expm1(below - above)
    return total


def _dots(curve: Float[np.ndarray, "e"], width: float) -> tuple[Float[np.ndarray, "e2"], float]:
    """Losses on a grid whose privacy curve joins the dots of a convex one, so that it is nowhere below it.

    The curve is at `0, width, ...`; the distribution is symmetric, `p(-l) = e^-l p(l)`, since either of two neighbours
    may be the true data. Returns the probabilities of `-n..n` times the width, and of an infinite loss.
    """
    rise = np.diff(curve)
    up = np.append((rise[1:] - math.exp(width) * rise[:-1]) / math.expm1(width), rise[-1] / math.expm1(-width))
    down = np.exp(-width * np.arange(1, len(curve))) * up
    centre = 1 - curve[-1] - up.sum() - down.sum()
    return np.concatenate([down[::-1], [centre], up]), float(curve[-1])
