"""Scores to choose a model by: quick, and in units of what another true stretch scores."""

from collections.abc import Sequence

import numpy as np

from dsrecon.measures.attractor import OUTSIDE_LIMIT, d_h, d_stsp, outside
from dsrecon.measures.gaps import filled
from dsrecon.measures.mixture import d_stsp_mixture

THIN = {"samples": 2000, "points": 5000}
"""Of mixtures, above five channels: good enough to choose by, quick enough for every run at every evaluation."""

Stretches = np.ndarray | Sequence[np.ndarray]
"""One stretch `[t, n]`, or several."""


def rank(
    true: Stretches, generated: Stretches, floors: dict[str, float], *, definition: str = "min-max"
) -> dict[str, float]:
    """Distances in units of their floors, added up as `score`; smaller is better.

    `d_stsp` is of all stretches together (above five variables by mixtures), `d_h` the mean over the pairs of stretches
    by length. A run that has failed never ranks before one that has not: 1000 for leaving the range, and more the
    further it is out; infinity when it is not finite.

    **Arguments:** `true`: validation stretches `[t, n]`, NaN where not observed; `generated`: free runs `[l, n]` beside
    them, l <= t; `floors`: from `floors`; `definition` of the bins of `d_stsp`.
    """
    true, generated = _listed(true), _listed(generated)
    every, run = np.concatenate(true), np.concatenate(generated)
    out, finite = outside(every, run), bool(np.isfinite(run).all())
    if not finite:
        return {"score": np.inf, "d_stsp": float("nan"), "d_h": float("nan"), "outside": out}
    found = {"d_stsp": _distance(every, run, definition), "d_h": _spectral(true, generated)}
    total = sum(found[k] / floors[k] for k in floors)
    return {"score": total + (1000 * (1 + out) if out > OUTSIDE_LIMIT else 0), **found, "outside": out}


def floors(
    true: Stretches, other: Stretches, *, points: np.ndarray | None = None, definition: str = "min-max"
) -> dict[str, float]:
    """The distances of `rank` of other true stretches from `true`; both may hold NaN.

    One that nothing observed allows to be taken is left out.

    **Arguments:** `true`, `other`, `definition`: as for `rank`; `points` `[l, n]`: what `d_stsp` is taken of instead of
    `other`. A free run has no gaps, so where the truth has some, as many rows as the run has make the fairer floor.
    """
    true, other = _listed(true), _listed(other)
    seen = np.concatenate(other) if points is None else points
    seen = seen[np.isfinite(seen).all(1)]
    found = {"d_h": _spectral(true, other)}
    if len(seen) > 1:
        found["d_stsp"] = _distance(np.concatenate(true), seen, definition)
    return {k: max(v, 1e-6) for k, v in found.items() if np.isfinite(v)}


def _distance(true: np.ndarray, run: np.ndarray, definition: str) -> float:
    """`d_stsp` by bins up to five channels, else by thin mixtures, never below their standard error."""
    if true.shape[1] <= 5:
        return d_stsp(true, run, definition=definition)
    found = d_stsp_mixture(true, run, **THIN)
    return max(found.value, found.standard_error)


def _spectral(true: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """`d_h` of each pair of stretches over their common length, averaged by length.

    Both get the gaps of both; a channel that one of the two never observed there does not count. NaN where nothing is
    left to compare.
    """
    values, weights = [], []
    for a, b in zip(true, other, strict=True):
        n = min(len(a), len(b))
        gaps = np.isnan(a[:n]) | np.isnan(b[:n])
        channels = (~gaps).sum(0) > 1
        if channels.any():
            x, y = (np.where(gaps, np.nan, v[:n])[:, channels] for v in (a, b))
            values.append(d_h(x, filled(y)))
            weights.append(n)
    return float(np.average(values, weights=weights)) if values else float("nan")


def _listed(stretches: Stretches) -> list[np.ndarray]:
    return [stretches] if isinstance(stretches, np.ndarray) else list(stretches)
