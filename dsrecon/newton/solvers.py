"""`Newton` and its like: one iteration, and four answers to what stands in for the Jacobian."""

import abc
import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from dsrecon._results import Trajectory
from dsrecon._types import Inputs, Jacobian, Scalar, State, States
from dsrecon.cell import AbstractCell
from dsrecon.evolve import AbstractSolver
from dsrecon.kernels import damped_scan, linear_scan
from dsrecon.newton.guess import AbstractGuess
from dsrecon.newton.solve import check_arguments, solved

Slopes = Inexact[Array, "t"] | Inexact[Array, "t m"] | Inexact[Array, "t m m"] | Inexact[Array, "t c c k"]
"""What stands in for the Jacobians of all steps: scalars, diagonals, matrices or blocks."""


class AbstractParallel(AbstractSolver):
    """All steps at once: the sequence is the root of `F_t = z_t - f(z_{t-1}, s_t)`, and found by iteration.

    An iteration takes slopes `a_t` that stand in for the Jacobians along the present guess, solves the linear
    recurrence `d_t = a_t d_{t-1} - F_t` over the whole sequence (`linear_scan`), and moves to `z + d`. Where the steps
    contract, a few iterations do, each of a depth that grows with `log T`. A run that expands (free-running chaos)
    takes about as many as it has steps: the result then says `not_converged`.

    It has converged when at every step and unit `|z_t - f(z_{t-1})| <= atol + rtol |f(z_{t-1})|`. For a
    piecewise-linear cell and its true slopes the count of steps that changed their region says more: at 0 the linear
    recurrence solved last was the cell's own, and the run is exact to rounding. Where the linear recurrence overflows,
    states keep the guess that they had. NaN is never replaced: it fails the test of convergence.

    Gradients (reverse mode) are those of the run itself, whatever the slopes were: one `linear_scan` backwards over the
    true Jacobians, then one contraction for all parameters, as in `Sequential`. They are right when the run has
    converged. The guess has no gradient, and neither have the statistics.

    Contractions are made in full precision, the cell's own too, whatever `jax.default_matmul_precision` is: in
    TensorFloat-32 the iteration stalls at 3e-4.

    **Arguments:**

    - `max_iterations`: at least 1.
    - `rtol`, `atol`: the tolerances; `None` takes 1e-10 in double and 1e-5 in single precision. Where all states are
      far below 1 (volts of a few microvolts) give an `atol` of their size, or any guess is near enough.
    - `guess`: where to begin (`Held`, `Targets`, `Swept`, `CoarseToFine`); `None`: the targets of a `Forced` cell, else
      the start state held. A trajectory given to `evolve` is used instead.
    - `window`: steps solved at once. Windows follow one another and hand on their last state, so that memory is that
      of one window (and the states), in the gradient too. `None`: all steps.
    - `finish`: `"report"` leaves a run that has not converged as it is and says so; `"sequential"` has the loop make it
      anew, which is as exact as `Sequential` and as slow.
    - `engine`: that of `linear_scan`.

    **Statistics** (`Trajectory.stats`), of each run of a batch:

    - `iterations`: the linear recurrences solved, of the window that took most; 0 where the guess was a run.
    - `residual`: the largest `|z_t - f(z_{t-1})| / (atol + rtol |f(z_{t-1})|)`; at most 1 has converged.
    - `region_changes`: steps that the last iteration moved to another region (piecewise-linear cells, true slopes).
    - `expansion`: the largest local expansion, `max_t sqrt(|a_t|_1 |a_t|_inf)`, no smaller than any slope's norm.
    - `first_inexact`: the first step that fails the test, `t` where there is none; of a finished run, where it was not
      converged.
    - `first_nonfinite`: as `Sequential`'s.

    **Raises:** `ValueError` for an argument out of its range.
    """

    max_iterations: int = eqx.field(static=True, default=100, kw_only=True)
    rtol: float | None = eqx.field(static=True, default=None, kw_only=True)
    atol: float | None = eqx.field(static=True, default=None, kw_only=True)
    guess: AbstractGuess | None = eqx.field(default=None, kw_only=True)
    window: int | None = eqx.field(static=True, default=None, kw_only=True)
    finish: str = eqx.field(static=True, default="report", kw_only=True)
    engine: str | Callable = eqx.field(static=True, default="auto", kw_only=True)

    def __check_init__(self):
        check_arguments(self.max_iterations, self.rtol, self.atol, self.finish, self.guess)
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 step, or None for all: got {self.window}.")

    @property
    @abc.abstractmethod
    def exact(self) -> bool:
        """Whether the slopes are the true Jacobians."""

    @property
    @abc.abstractmethod
    def first_damping(self) -> float | None:
        """The damping that moves begin with, which then follows their success; `None` where every move is made."""

    @abc.abstractmethod
    def linearise(self, cell: AbstractCell, z: State, s: Inputs) -> tuple[State, Jacobian | Scalar]:
        """`(f(z, s), a)` of one step: what `a` is to stand in for `df/dz`."""

    @abc.abstractmethod
    def update(self, slopes: Slopes, defect: States, damping: Scalar) -> States:
        """The move `d` `[t, m]` of all states, from slopes and `defect = f(z_{t-1}) - z_t`."""

    def solve(
        self,
        cell: AbstractCell,
        z0: Inexact[Array, "*b m"],
        inputs: Inputs = None,
        steps: int | None = None,
        guess: Inexact[Array, "*b t m"] | None = None,
    ) -> Trajectory:
        return solved(self, cell, z0, inputs, steps, guess)


class Newton(AbstractParallel):
    """Newton's method: the slopes are the Jacobians, in the structure that the cell declares.

    Converges quadratically; one iteration costs `O(T m^3)` operations and `T m^2` numbers where the cell is dense,
    `O(T m)` where its Jacobian is diagonal or of blocks. The other arguments and the statistics are those of
    `AbstractParallel`.

    Reference: Lim et al. 2024, *Parallelizing non-linear sequential models over the sequence length*, ICLR (DEER);
    Danieli et al. 2025, *ParaRNN*, arXiv:2510.21450 (structured cells).
    """

    @property
    def exact(self) -> bool:
        return True

    @property
    def first_damping(self) -> float | None:
        return None

    def linearise(self, cell: AbstractCell, z: State, s: Inputs) -> tuple[State, Jacobian | Scalar]:
        return cell.linearise(z, s)

    def update(self, slopes: Slopes, defect: States, damping: Scalar) -> States:
        return linear_scan(slopes, defect, engine=self.engine)


class QuasiNewton(AbstractParallel):
    """Newton's method with the diagonals of the Jacobians alone.

    Converges linearly where coupling between units is weak; one iteration costs `O(T m)` beside the Jacobians.

    Reference: Gonzalez et al. 2024, *Towards scalable and stable parallelization of nonlinear RNNs*, NeurIPS
    (quasi-DEER).
    """

    @property
    def exact(self) -> bool:
        return False

    @property
    def first_damping(self) -> float | None:
        return None

    def linearise(self, cell: AbstractCell, z: State, s: Inputs) -> tuple[State, Jacobian | Scalar]:
        value, J = cell.linearise(z, s)
        if J.ndim == 2:
            return value, jnp.diagonal(J)
        return value, J if J.ndim == 1 else jnp.diagonal(J).T.reshape(-1)

    def update(self, slopes: Slopes, defect: States, damping: Scalar) -> States:
        return linear_scan(slopes, defect, engine=self.engine)


class TrustRegion(AbstractParallel):
    """Newton's method held near its guess: the Levenberg-Marquardt step of the whole sequence, by a parallel smoother.

    The move minimises `sum_t |d_t - J_t d_{t-1} + F_t|^2 + w sum_t |d_t|^2`, which is what a Kalman smoother finds
    (`damped_scan`), so it stays bounded where products of Jacobians do not. A move is made if it lessens `sum |F|^2`,
    and `w` is then a tenth of what it was; if not, it is tried again with four times the `w` (Levenberg and Marquardt).
    Near the run `w` vanishes, and the convergence is Newton's. `iterations` counts moves tried.

    `sum |F|^2` may have valleys that are no runs, where this ends and `Newton` would not (measured on piecewise-linear
    cells under noisy forcing): take it where Newton's moves overflow.

    **Arguments:** `damping`: the first `w`, above 0. The others and the statistics are those of `AbstractParallel`.

    Reference: Gonzalez et al. 2024, *Towards scalable and stable parallelization of nonlinear RNNs*, NeurIPS (ELK).
    """

    damping: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if not (self.damping > 0 and math.isfinite(self.damping)):
            raise ValueError(f"damping must be positive and finite: got {self.damping}.")

    @property
    def exact(self) -> bool:
        return True

    @property
    def first_damping(self) -> float | None:
        return self.damping

    def linearise(self, cell: AbstractCell, z: State, s: Inputs) -> tuple[State, Jacobian | Scalar]:
        return cell.linearise(z, s)

    def update(self, slopes: Slopes, defect: States, damping: Scalar) -> States:
        return damped_scan(slopes, defect, jnp.zeros_like(defect[0]), jnp.zeros_like(defect), damping)


class Picard(AbstractParallel):
    """Picard's iteration: the slopes are 1, so that an iteration is a cumulative sum, `z_t = z0 + sum (f(z_{i-1}) -
    z_{i-1})`.

    The cheapest iteration, for cells that move little in a step (a fine time step) over few of them: as many iterations
    as the units of time demand, whatever the number of steps in them.

    Reference: Gonzalez et al. 2025, *A unifying framework for parallelizing sequential models with linear dynamical
    systems*, arXiv:2509.21716.
    """

    @property
    def exact(self) -> bool:
        return False

    @property
    def first_damping(self) -> float | None:
        return None

    def linearise(self, cell: AbstractCell, z: State, s: Inputs) -> tuple[State, Jacobian | Scalar]:
        return cell(z, s), jnp.ones((), z.dtype)

    def update(self, slopes: Slopes, defect: States, damping: Scalar) -> States:
        return linear_scan(slopes, defect, engine=self.engine)
