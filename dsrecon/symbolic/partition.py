"""Do the regions of a map form a Markov partition? Where they do, the entropy of its itineraries is exact."""

import dataclasses
from typing import Any

import numpy as np

from dsrecon._types import Inputs
from dsrecon.pwl import Box, Pieces, checked_box, pieces, regions
from dsrecon.pwl.laps import branches
from dsrecon.symbolic.words import topological_entropy

MOST = 256
"""Images of end points that are followed when a partition is refined."""


@dataclasses.dataclass(frozen=True)
class MarkovPartition:
    """Boxes that a map lays upon one another, or does not.

    - `low`, `high` `[r, m]`: the boxes (intervals where there is one unit); `bits` `[r, p]`: the region of each.
    - `adjacency` `[r, r]`: whether the image of one box meets the interior of another.
    - `probability` `[r, r]`: which share of a box is led into each, by its width along the units that are stretched:
      the chain of the measure that is uniform along them. Rows sum to 1 where the partition is Markov.
    - `markov`: whether it is; `why`: where not, the first image that ends inside a box.
    - `refined`: whether the images of the end points cut the regions further.
    """

    low: np.ndarray
    high: np.ndarray
    bits: np.ndarray
    adjacency: np.ndarray
    probability: np.ndarray
    markov: bool
    why: str
    refined: bool

    def __len__(self) -> int:
        return len(self.low)

    @property
    def entropy(self) -> float:
        """Topological entropy of the itineraries, exact: `ln rho` of `adjacency`, nats per step.

        **Raises:** `ValueError` where the partition is not Markov.
        """
        self._needed()
        return topological_entropy(self.adjacency.astype(float))

    @property
    def metric_entropy(self) -> float:
        """Entropy of the itineraries of almost every start, exact: `-sum_i pi_i sum_j P_ij ln P_ij`, nats per step.

        `P` is `probability` and `pi` its stationary distribution. In one unit this is the Lyapunov exponent,
        `sum_i pi_i ln |slope_i|` (Rokhlin's formula).

        **Raises:** `ValueError` where the partition is not Markov, or several distributions are stationary.
        """
        self._needed()
        P = self.probability
        values, vectors = np.linalg.eig(P.T)
        ones = np.abs(values - 1) < 1e-9
        if ones.sum() != 1:
            raise ValueError(f"the chain must have one stationary distribution: it has {int(ones.sum())}.")
        pi = np.abs(np.real(vectors[:, ones][:, 0]))
        terms = np.where(P > 0, P * np.log(np.where(P > 0, P, 1.0)), 0.0)
        return float(-(pi / pi.sum()) @ terms.sum(1)) + 0.0

    def _needed(self) -> None:
        if not self.markov:
            raise ValueError(
                f"the partition must be Markov for an exact entropy, and it is not: {self.why}. `entropy_bounds` gives "
                "an upper bound; `kneading_entropy` the entropy of a map of an interval with one turn."
            )


def markov_partition(
    cell: Any, box: Any, s: Inputs = None, *, tolerance: float = 1e-9, refine: bool = True
) -> MarkovPartition:
    """Do the regions of a map form a Markov partition of a box? Decided up to `tolerance`.

    **What is decided.** Regions must be boxes and their images too: gates look at single units, and the map of every
    region is diagonal (every map of one unit; the baker's map). The partition is Markov when each unit is of one of two
    kinds: the image of a box *covers* every box that it meets along this unit, or it lies *inside* every one that it
    meets. Then the image of the starts of a word is a box of full width in the units that are covered, inside the
    last region in the others; so every path through `adjacency` is an admissible word and every admissible word a path,
    and the entropy of the itineraries is `ln rho(adjacency)` exactly.

    In one unit this is the classical test: the image of each end point is an end point. Where the regions fail it
    there, the images of the end points are taken as end points too, and theirs, as long as new ones come (`refine`;
    256 at most). Where these come to an end the finer partition is Markov; since every piece is monotone, each word
    of regions then belongs to a bounded number of paths, and the entropy is that of the itineraries all the same.

    Other cells are not decided but refused: `entropy_bounds` bounds their entropy from above.

    **Arguments:** `cell`: an `AbstractPWLCell`, or what `pwl.pieces` gave; `box`: a `Box` or pair, of which the map
    must not lead out; `s`: its input, held; `tolerance`: up to which ends are the same, in parts of the width of the
    box; `refine`.

    **Returns:** `MarkovPartition`: it says whether it is one.

    **Raises:** `ValueError` for a cell that is not decided, a box that is not invariant, or a region that is mapped
    onto a point.

    Reference: Lind & Marcus 1995, *An introduction to symbolic dynamics and coding*, chapter 6.5; Bowen 1975,
    *Equilibrium states and the ergodic theory of Anosov diffeomorphisms*, chapter 3; in one dimension: Block & Coppel
    1992, *Dynamics in one dimension*, chapter 8.
    """
    found = cell if isinstance(cell, Pieces) else pieces(cell, s)
    inside = checked_box(box, found.state_size, "on which the partition is asked for")
    assert inside is not None
    if not (np.count_nonzero(found.G[found.moving], axis=1) == 1).all():
        raise ValueError(
            "cell must have gates that look at single units, so that its regions are boxes: others are not decided "
            "(entropy_bounds bounds their entropy)."
        )
    low, high, bits = _boxes(found, inside)
    slope, offset = _diagonal(found, bits)
    near = tolerance * (inside.high - inside.low)
    _stays(low, high, slope, offset, inside, near)
    first = _tested(low, high, bits, slope, offset, near, refined=False)
    if first.markov or not refine or found.state_size > 1:
        return first
    finer = _refined(low[:, 0], high[:, 0], slope[:, 0], offset[:, 0], float(near[0]))
    if finer is None:
        why = f"{first.why}, and its images still give new end points after {MOST}"
        return dataclasses.replace(first, why=why)
    low, high, piece = finer
    return _tested(low[:, None], high[:, None], bits[piece], slope[piece], offset[piece], near, refined=True)


def _boxes(found: Pieces, inside: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The regions in a box: `low`, `high` `[r, m]` and `bits` `[r, p]`, in order in one unit."""
    if found.state_size == 1:
        on = branches(found, inside)
        return on.low[:, None], on.high[:, None], on.bits
    bits = regions(found, box=inside)
    low, high = (np.repeat(side[None], len(bits), axis=0) for side in inside)
    for j in np.flatnonzero(found.moving):
        i = int(np.argmax(found.G[j] != 0))
        above, at = bits[:, j] == (found.G[j, i] > 0), -found.g[j] / found.G[j, i]
        low[above, i] = np.maximum(low[above, i], at)
        high[~above, i] = np.minimum(high[~above, i], at)
    return low, high, bits


def _diagonal(found: Pieces, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    A, h = found.affine(bits)
    slope = np.einsum("rii->ri", A)
    if (slope[:, :, None] * np.eye(A.shape[1]) != A).any():
        raise ValueError(
            "cell must have a diagonal map in every region, so that the images of boxes are boxes: others are not "
            "decided (entropy_bounds bounds their entropy)."
        )
    if (slope == 0).any():
        at = int(np.argwhere(slope == 0)[0, 0])
        raise ValueError(f"cell must not map a region onto a point or a line: it does so with region {bits[at]}.")
    return slope, h


def _images(low: np.ndarray, high: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = slope * low + offset, slope * high + offset
    return np.minimum(*ends), np.maximum(*ends)


def _stays(
    low: np.ndarray, high: np.ndarray, slope: np.ndarray, offset: np.ndarray, inside: Box, near: np.ndarray
) -> None:
    least, most = _images(low, high, slope, offset)
    least, most = least.min(0), most.max(0)
    if (least < inside.low - near).any() or (most > inside.high + near).any():
        raise ValueError(
            f"box must be one that the map does not lead out of: it leads from {inside.low} .. {inside.high} to "
            f"{least} .. {most}."
        )


def _tested(
    low: np.ndarray,
    high: np.ndarray,
    bits: np.ndarray,
    slope: np.ndarray,
    offset: np.ndarray,
    near: np.ndarray,
    *,
    refined: bool,
) -> MarkovPartition:
    first, last = (side[:, None] for side in _images(low, high, slope, offset))
    meets = (np.minimum(last, high) - np.maximum(first, low) > near).all(2)
    covers = (first <= low + near) & (last >= high - near)
    within = (first >= low - near) & (last <= high + near)
    covered, held = (kind[meets].all(0) for kind in (covers, within))
    good = covered | held
    why = ""
    if not good.all():
        unit = int(np.argmin(good))
        i, j = np.argwhere(meets & ~covers[..., unit])[0]
        why = (
            f"along unit {unit} the image {first[i, 0, unit]:.6g} .. {last[i, 0, unit]:.6g} of region {i} ends inside "
            f"region {j}, {low[j, unit]:.6g} .. {high[j, unit]:.6g}"
        )
    share = np.where(covered, (high - low) / (last - first), 1.0).prod(2)
    return MarkovPartition(low, high, bits, np.asarray(meets), np.where(meets, share, 0.0), not why, why, refined)


def _refined(
    low: np.ndarray, high: np.ndarray, slope: np.ndarray, offset: np.ndarray, near: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The intervals between all images of end points: `low`, `high`, and the piece of each; `None` where too many."""
    ends = np.r_[low, high[-1]]
    fresh = list(ends)
    while fresh:
        x = fresh.pop()
        for k in np.flatnonzero((x >= low - near) & (x <= high + near)):
            image = slope[k] * x + offset[k]
            if np.abs(ends - image).min() > near:
                ends = np.r_[ends, image]
                fresh.append(image)
        if len(ends) > MOST:
            return None
    ends = np.sort(ends)
    middle = (ends[:-1] + ends[1:]) / 2
    return ends[:-1], ends[1:], np.searchsorted(high[:-1], middle)
