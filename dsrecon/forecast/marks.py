"""Where in the hour, day, week, month and year a sample lies: numbers that a forecaster can read."""

from typing import Any

import numpy as np
import pandas as pd

from dsrecon.series import Clock

MINUTE, HOUR, DAY, WEEK, MONTH, YEAR = 60, 3600, 86400, 7 * 86400, 27 * 86400, 364 * 86400


def time_marks(clock: Clock, rows: int, first: int = 0) -> tuple[np.ndarray, tuple[str, ...]]:
    """Time marks of samples `first` to `first + rows - 1`, each from -0.5 to 0.5, and their names.

    | steps of | marks |
    |---|---|
    | less than a minute | second of the minute, and what follows |
    | less than an hour | minute of the hour, and what follows |
    | less than a day | hour of the day, day of the week, of the month, of the year |
    | days, working days | day of the week, of the month, of the year |
    | weeks | day of the month, week of the year |
    | months, quarters | month of the year |
    | years; times that are no dates | none |

    By the mean length of a step, so that any frequency of pandas has its marks.

    **Returns:** `[rows, k]` and `k` names.
    """
    step = clock.time_step * (1 + 1e-9)
    if not isinstance(clock.origin, str) or step >= YEAR:
        return np.zeros((rows, 0)), ()
    t: Any = pd.DatetimeIndex(clock.times(rows, first))
    every = {
        "second of the minute": ((0, MINUTE), t.second, 59, 0),
        "minute of the hour": ((0, HOUR), t.minute, 59, 0),
        "hour of the day": ((0, DAY), t.hour, 23, 0),
        "day of the week": ((0, WEEK), t.day_of_week, 6, 0),
        "day of the month": ((0, MONTH), t.day, 30, 1),
        "day of the year": ((0, WEEK), t.day_of_year, 365, 1),
        "week of the year": ((WEEK, MONTH), t.isocalendar().week, 52, 1),
        "month of the year": ((MONTH, YEAR), t.month, 11, 1),
    }
    chosen = {name: values for name, values in every.items() if values[0][0] <= step < values[0][1]}
    marks = [(np.asarray(values, float) - least) / most - 0.5 for _, values, most, least in chosen.values()]
    return np.stack(marks, 1), tuple(chosen)
