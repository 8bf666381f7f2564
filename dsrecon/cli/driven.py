"""Columns of a file that were measured, and columns that drove what was measured."""

from pathlib import Path

from dsrecon.cli.command import chosen
from dsrecon.data import read_series
from dsrecon.series import Series


def read_driven(
    path: Path, columns: str | None, inputs: str | None, *, time_step: float | None, resample: float | None
) -> tuple[Series, Series | None]:
    """The series of a file and its external inputs (`None` without any); the inputs are no variables.

    **Raises:** what `read_series` does; `ValueError` for inputs that leave nothing to fit.
    """
    taken, driving = chosen(columns), chosen(inputs)
    series = read_series(path, columns=taken, time_step=time_step, resample=resample)
    if not driving:
        return series, None
    drive = read_series(path, columns=driving, time_step=time_step, resample=resample)
    kept = [i for i, name in enumerate(series.names) if name not in driving]
    if not kept:
        raise ValueError(f"inputs must leave a column to fit: got all of {series.names}.")
    names, units = (tuple(v[i] for i in kept) for v in (series.names, series.units))
    return series._replace(values=series.values[:, kept], names=names, units=units), drive
