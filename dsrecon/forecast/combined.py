"""Several estimators as one."""

import equinox as eqx
import jax

from dsrecon._types import Key
from dsrecon.forecast.estimator import AbstractEstimator, Learned
from dsrecon.forecast.run import Members
from dsrecon.forecast.task import Task
from dsrecon.models import CombinedForecaster


class CombinedEstimator(AbstractEstimator):
    """Fits every one of `parts` to the same series; the forecast is the mean of theirs (`CombinedForecaster`).

    Each part may have a lookback of its own. `lookback`, that of all, must be the longest of them: it decides which
    validation windows there are. Parts with several members are each their mean.

    **Raises:** `ValueError` at the fit for fewer than two parts, or a part whose lookback is not given or longer.
    """

    parts: tuple[AbstractEstimator, ...]
    lookback: int | None = None
    period: int | None = None

    @property
    def reads_times(self) -> bool:
        return any(part.reads_times for part in self.parts)

    @property
    def takes_covariates(self) -> bool:
        return all(part.takes_covariates for part in self.parts)

    def learn(self, task: Task, *, key: Key, threads: int | None, progress: bool | None) -> Learned:
        if len(self.parts) < 2:
            raise ValueError(f"parts must be at least two estimators: got {len(self.parts)}.")
        models, notes = [], {}
        for i, (part, one) in enumerate(zip(self.parts, jax.random.split(key, len(self.parts)), strict=True)):
            if part.lookback is None or part.lookback > task.lookback:
                raise ValueError(
                    f"every part needs a lookback of its own, at most that of all, {task.lookback}: got "
                    f"{part.lookback} of part {i}."
                )
            later, held = task.lookback - part.lookback, task.held
            held = None if held is None else held._replace(starts=held.starts + later)
            period = task.period if part.period is None else part.period
            alone = task._replace(lookback=part.lookback, period=period, held=held)
            found = part.learn(alone, key=one, threads=threads, progress=progress)
            count = len(found.members.number)
            models += [
                jax.tree.map(lambda x, i=i: x[i] if eqx.is_array(x) else x, found.members.model) for i in range(count)
            ]
            notes |= {f"part {i} {name}": note for name, note in found.notes.items()}
        combined = CombinedForecaster(*models)
        return Learned(Members.of(jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, combined), 1), notes)
