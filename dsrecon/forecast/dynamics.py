"""The reconstruction cells as forecasters."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from dsrecon._types import Key
from dsrecon.cell import AbstractCell
from dsrecon.forecast.baselines import alone
from dsrecon.forecast.estimator import AbstractEstimator, Learned
from dsrecon.forecast.task import Task, on_device
from dsrecon.models import CellForecaster
from dsrecon.readout import AbstractReadout
from dsrecon.reconstruct import reconstruct


class ReconstructionEstimator(AbstractEstimator):
    """Reconstructs the dynamics of the series, and forecasts by running on from the state that the window leads to.

    - `cell`, `readout`, `runs`, `steps`, `alpha`, `length`: as in `dsrecon.reconstruct`, which chooses what is not
      given, and judges by the attractor of a free run, not by errors ahead.
    - `lookback`: steps along which the state is pulled to the data. `period` is for the record only.

    Covariates that are known ahead drive the system; those known up to the present only are refused.
    """

    lookback: int | None = None
    period: int | None = None
    cell: Callable[[Key], AbstractCell] | None = None
    readout: Callable[[Key], AbstractReadout] | None = None
    runs: int = 4
    steps: int | None = None
    alpha: float | None = None
    length: int | None = None

    @property
    def reads_times(self) -> bool:
        return False

    @property
    def takes_covariates(self) -> bool:
        return True

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        if task.beside > task.known:
            raise ValueError(
                "a dynamical system runs on by itself: covariates that are known up to the present only cannot drive "
                f"it ahead (got {task.beside - task.known} in seen)."
            )
        ends = np.cumsum([0, *task.trials])
        x, mask = np.asarray(task.x, np.float64), task.mask
        x = x if mask is None else np.where(np.asarray(mask), x, np.nan)
        s = None if task.s is None else np.asarray(task.s, np.float64)
        parts = [slice(a, b) for a, b in pairwise(ends)]
        one = len(parts) == 1
        with jax.numpy_dtype_promotion("standard"):
            found = reconstruct(
                x if one else [x[part] for part in parts],
                self.cell,
                inputs=s if s is None or one else [s[part] for part in parts],
                readout=self.readout,
                runs=self.runs,
                steps=self.steps,
                alpha=self.alpha,
                length=self.length,
                key=key,
                threads=threads,
                progress=progress,
            )
        delays, drive = found.embedding, found.input_scaler
        model = CellForecaster(
            cell=found.cell,
            readout=found.readout,
            mean=on_device(found.scaler.mean),
            std=on_device(found.scaler.std),
            input_mean=None if drive is None else on_device(drive.mean),
            input_std=None if drive is None else on_device(drive.std),
            alpha=jnp.asarray(found.pull, float),
            lookback=task.lookback,
            horizon=task.horizon,
            lag=1 if delays is None else delays.lag,
            dimension=1 if delays is None else delays.dimension,
        )
        chosen = {f"reconstruction {k}": (v["value"], v["reason"]) for k, v in found.settings.items()}
        return Learned(alone(model), chosen)
