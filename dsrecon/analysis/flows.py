"""The structure of a piecewise-linear differential equation: its equilibria, complete."""

import dataclasses
from typing import Any

import equinox as eqx
import numpy as np

from dsrecon._types import Inputs
from dsrecon.analysis.cycles import LIMIT, fixed_points
from dsrecon.analysis.found import Certificate, Cycle, Singular
from dsrecon.analysis.stability import Stability, stability
from dsrecon.cell import AbstractPWLCell, AbstractPWLFlow
from dsrecon.pwl import Pieces, field_pieces


@dataclasses.dataclass(frozen=True)
class Equilibrium:
    """A state where the field of a region is zero.

    - `point` `[m]`; `region` `[p]`: the gates that are open there.
    - `eigenvalues` `[m]` of `A_r`, per unit of time, the largest real part first.
    - `margin`: its distance to the nearest border of the region. Negative: a **virtual** equilibrium, of the affine
      field and not of the cell. `border`: it lies on a border, as far as rounding can tell.
    """

    point: np.ndarray
    region: np.ndarray
    eigenvalues: np.ndarray
    margin: float
    border: bool = False

    @property
    def real(self) -> bool:
        return self.margin > 0 or self.border

    @property
    def stability(self) -> Stability:
        """Its kind, and the dimensions of its unstable, centre and stable spaces."""
        return stability(self.eigenvalues, flow=True)

    @property
    def kind(self) -> str:
        return self.stability.kind


@dataclasses.dataclass(frozen=True)
class Equilibria:
    """Equilibria of a flow: `found`, the real ones; `virtual`, if asked for; `singular`: regions whose field vanishes
    along lines or planes; and the `certificate` of the search (of period 1)."""

    found: tuple[Equilibrium, ...]
    singular: tuple[Singular, ...]
    certificate: Certificate
    virtual: tuple[Equilibrium, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self):
        return iter(self.found)

    def __getitem__(self, i: int) -> Equilibrium:
        return self.found[i]


class _UnitStep(AbstractPWLCell):
    """`z' = z + dz/dt`: its fixed points are the equilibria."""

    flow: AbstractPWLFlow
    state_size: int = eqx.field(static=True)

    def gates(self, s: Inputs = None):
        return self.flow.gates(s)

    def region(self, z, s: Inputs = None):
        return self.flow.region(z, s)

    def affine(self, region, s: Inputs = None):
        A, h = self.flow.affine(region, s)
        return A + np.eye(self.state_size, dtype=A.dtype), h

    def __call__(self, z, s: Inputs = None):
        A, h = self.affine(self.region(z, s), s)
        return A @ z + h


def equilibria(
    cell: Any, s: Inputs = None, *, box: Any = None, virtual: bool = False, limit: int = LIMIT
) -> Equilibria:
    """All equilibria of a piecewise-linear flow: `z = -A_r^{-1} h_r` in every region `r`, kept where it lies in `r`.

    **Arguments:** `cell`: an `AbstractPWLFlow`; `s`: its input, held; `box`: a `Box` or pair `(low, high)`, all of
    space by default; `virtual`: list the solutions outside their regions too; `limit`: most regions gone through.

    **Returns:** `Equilibria`, with eigenvalues and kinds. A solution on a border is listed once, under the region whose
    gates are closed there. Where `A_r` is singular, the line or plane of solutions, if there is one.

    **Raises:** `ValueError` for a cell that is no such flow, an unbounded box, and more regions than `limit`.

    Reference: Brändle et al. 2026, *Continuous-time piecewise-linear recurrent neural networks*, arXiv 2602.15649.
    """
    field = field_pieces(cell, s)
    found = fixed_points(_UnitStep(flow=cell, state_size=cell.state_size), s, box=box, virtual=virtual, limit=limit)
    real, beside = ([_equilibrium(field, cycle) for cycle in cycles] for cycles in (found.cycles, found.virtual))
    return Equilibria(tuple(real), found.singular, found.certificate, tuple(beside))


def _equilibrium(field: Pieces, fixed: Cycle) -> Equilibrium:
    """The fixed point of the unit step, solved for again without the step's rounding of `I + A`."""
    bits = fixed.word
    A, h = (x[0] for x in field.affine(bits))
    z = np.linalg.solve(A, -h)
    z = z - np.linalg.solve(A, A @ z + h)
    eigenvalues = np.linalg.eigvals(A)
    order = np.lexsort((-eigenvalues.imag, -eigenvalues.real))
    margin = fixed.margin if fixed.border else float(field.margin(z[None], bits)[0])
    return Equilibrium(z, bits[0], eigenvalues[order], margin, fixed.border)
