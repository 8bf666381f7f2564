"""`dsrecon forecast`: from a file to a folder with a forecast of what follows it, and how good such forecasts were."""

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer
import xarray as xr

from dsrecon import plot
from dsrecon._files import write_whole
from dsrecon.cli.ahead_report import compared, report
from dsrecon.cli.command import Columns, Out, Resample, Seed, TimeStep, app, chosen, fail
from dsrecon.cli.folder import made
from dsrecon.data import read_series
from dsrecon.forecast import (
    AbstractEstimator,
    Backtest,
    Predictor,
    RidgeEstimator,
    SeasonalNaiveEstimator,
    TPGNEstimator,
    backtest,
)
from dsrecon.forecast.intervals import check_levels
from dsrecon.forecast.predictor import LEVELS
from dsrecon.series import Series
from dsrecon.symbolic.tables import netcdf

WINDOWS = 19
"""Validation windows that a 90 % interval needs, at least."""

UNSURE = f"No quantiles: none were asked for, or there are fewer than {WINDOWS} validation windows (see --validation)."


class Fill(StrEnum):
    """How missing values are filled in."""

    last = "last"
    seasonal = "seasonal"


class Split(NamedTuple):
    """A file in parts: `series`, all that was observed; `known`: what is known beside it and ahead of it; `first`: the
    row where the test part begins (the number of rows, without one)."""

    series: Series
    known: Series | None
    first: int


@app.command("forecast")
def forecast_file(
    file: Annotated[Path, typer.Argument(help="Series to forecast: .csv, .nc or .npy.")],
    horizon: Annotated[int, typer.Option(help="Rows to forecast after the last one.")],
    columns: Columns = None,
    known: Annotated[
        str | None,
        typer.Option(
            help="Columns that are known ahead (holidays, tariffs), separated by commas; the file goes on with them, "
            "its other columns empty."
        ),
    ] = None,
    lookback: Annotated[
        int | None, typer.Option(min=1, help="Rows that a forecast looks back on (default: found).")
    ] = None,
    period: Annotated[
        int | None, typer.Option(min=1, help="Rows after which the series repeats (default: found).")
    ] = None,
    members: Annotated[int, typer.Option(min=1, help="Networks, of which the mean is the forecast.")] = 1,
    validation: Annotated[
        float, typer.Option(help="Share that decides when to stop and gives the intervals; 0 for none.")
    ] = 0.2,
    test: Annotated[
        float, typer.Option(help="Share at the end that is kept from the fit and forecast as a test; 0 for none.")
    ] = 0.2,
    impute: Annotated[Fill | None, typer.Option(help="Fill in missing values (default: refuse them).")] = None,
    levels: Annotated[
        str | None, typer.Option(help="Quantiles, separated by commas (default: .05,.95; '' for none).")
    ] = None,
    time_step: TimeStep = None,
    resample: Resample = None,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Forecast the rows that follow a series, and write a folder.

    TPGN is fitted to all but the end of the series, and tested on the end beside ridge regression and the last period
    again; the forecast is made by the same network, from the last rows of all. Months and working days are steps.
    """
    try:
        if horizon < 1:
            raise ValueError(f"--horizon must be at least 1: got {horizon}.")
        split = read_parts(file, chosen(columns), chosen(known), horizon, test, time_step=time_step, resample=resample)
        wanted = None if levels is None else numbers(levels)
        check_room(split, horizon, validation, wanted or ())
        if impute is None:
            check_complete(split)
    except (ValueError, OSError) as error:
        fail(error)
    folder = made(out or Path(f"dsrecon-forecast-{file.stem}"))
    given = {"horizon": horizon, "validation": validation, "impute": None if impute is None else impute.value}
    network = TPGNEstimator(lookback=lookback, period=period, members=members)  # pyright: ignore
    try:
        typer.echo(f"Fitting TPGN to {split.first:,} rows of {', '.join(split.series.names)} ...")
        predictor = fitted(network, split, key=seed, **given)
        predictor.save(folder / "forecaster.model")  # before anything else can fail
        if wanted is None:
            wanted = LEVELS if enough(predictor) else ()
        prediction = predictor.predict(split.series, known=split.known, levels=wanted)
        results = tested(predictor, split, wanted if enough(predictor) else (), given)
        write_forecast(folder, file, split, predictor, prediction, results)
    except (ValueError, RuntimeError, OSError) as error:
        if not any(folder.iterdir()):
            folder.rmdir()
        fail(error)
    if not wanted:
        typer.echo(UNSURE)
    if results:
        typer.echo(compared(results))
    typer.echo(f"\nWrote {folder}{os.sep}: look at forecast.png first, then read report.md.")


def enough(predictor: Predictor) -> bool:
    """Whether there are validation windows for all quantiles that a backtest looks at."""
    return predictor.errors is not None and int(np.isfinite(predictor.errors.values).sum(0).min()) >= WINDOWS


def numbers(text: str) -> list[float]:
    """The numbers in an option. **Raises:** `ValueError` for anything else."""
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise ValueError(f"--levels must be numbers separated by commas: got {text!r}.") from error


def check_complete(split: Split) -> None:
    """**Raises** `ValueError` where a value is missing, in whichever part: before the fit, not after it."""
    for part, what in ((split.series, "the series"), (split.known, "the known columns")):
        gone = np.zeros((0, 0)) if part is None else np.isnan(part.values)
        if part is not None and gone.any():
            row, column = np.argwhere(gone)[0]
            raise ValueError(
                f"{what} must be complete: {gone.sum()} of {gone.size} values are missing, the first of "
                f"{part.names[column]!r} in row {row + 1} below the names. Fill them in with --impute last (hold the "
                "last value) or --impute seasonal (that of a period before)."
            )


def check_room(split: Split, horizon: int, validation: float, levels: Sequence[float]) -> None:
    """What can be told before a fit: whether there are rows for it, and windows for the quantiles.

    **Raises:** `ValueError` where there are not.
    """
    held = max(round(split.first * validation), horizon) if 0 < validation < 1 else 0
    left, rows = split.first - held, len(split.series.values)
    if left <= horizon:
        raise ValueError(
            f"the series is too short: of {rows} rows {rows - split.first} are the test part and {held} the "
            f"validation; the {max(left, 0)} left must be more than the horizon, {horizon}. Take a shorter --horizon, "
            "a smaller --test or --validation, or more data."
        )
    windows = held - horizon + 1 if held else 0
    for level in check_levels(levels):
        needed = int(np.ceil(1 / min(level, 1 - level) - 1e-9)) - 1
        if windows < needed:
            raise ValueError(
                f"--levels {level:g} needs {needed} validation windows: there are {windows}. Take a level nearer to "
                f"1/2, or a larger --validation than {validation:g}."
            )


def read_parts(
    path: Path,
    columns: list[str] | None,
    known: list[str] | None,
    horizon: int,
    test: float,
    *,
    time_step: float | None,
    resample: float | None,
) -> Split:
    """The parts of a file. The series ends at the last row that holds an observation.

    **Raises:** what `read_series` does; `ValueError` for known columns that leave nothing to forecast, or that end
    before the horizon, and for a test part that is no share or leaves nothing to fit.
    """
    if not 0 <= test < 1:
        raise ValueError(f"--test must be a share from 0 to below 1: got {test}.")
    beside = known or []
    both = [c for c in beside if c in (columns or [])]
    if both:
        raise ValueError(f"--known must not name a column to be forecast: got {both[0]!r} in --columns too.")
    taken = None if columns is None else [*columns, *beside]
    table = read_series(path, columns=taken, time_step=time_step, resample=resample, calendar=True)
    unknown = [c for c in beside if c not in table.names]
    if unknown:
        raise ValueError(f"{path.name} has no column {unknown[0]!r}: it has {', '.join(map(repr, table.names))}.")
    ahead = [i for i, name in enumerate(table.names) if name in beside]
    kept = [i for i, name in enumerate(table.names) if name not in beside]
    if not kept:
        raise ValueError(f"--known must leave a column to forecast: got all of {table.names}.")
    rows = 1 + np.flatnonzero(
        ~np.isnan(table.values[:, kept]).all(1),
    )
    if not len(rows):
        raise ValueError(
            f"{path.name} holds no observation of {', '.join(table.names[i] for i in kept)}: all are empty."
        )
    end = int(rows[-1])
    if ahead and len(table.values) < end + horizon:
        raise ValueError(
            f"--known columns must go on for {horizon} rows, the horizon, after the last observation (row {end - 1}): "
            f"they go on for {len(table.values) - end}. Add rows with the other columns empty, or shorten the horizon."
        )
    first = end - max(round(end * test), horizon) if test else end
    if first < 1:
        raise ValueError(
            f"the series is too short: {end} rows, with a test part of {end - first} (at least the "
            f"horizon, {horizon}), leave nothing to fit. Take a shorter --horizon, a smaller --test, or more data."
        )
    series = _part(table, kept, end)
    return Split(series, _part(table, ahead, end + horizon) if ahead else None, first)


def _part(table: Series, columns: list[int], rows: int) -> Series:
    names, units = (tuple(v[i] for i in columns) for v in (table.names, table.units))
    return Series(table.values[:rows, columns], names, table.clock, units)


def fitted(estimator: AbstractEstimator, split: Split, **given: Any) -> Predictor:
    """The fit to all but the test part, with the known columns where the forecaster takes them."""
    train = split.series._replace(values=split.series.values[: split.first])
    return estimator.fit(train, known=split.known if estimator.takes_covariates else None, **given)


def tested(
    predictor: Predictor, split: Split, levels: Sequence[float], given: Mapping[str, Any]
) -> dict[str, Backtest]:
    """The test part forecast by the network and by what it has to beat; nothing without a test part.

    All look back on the same rows. Ridge regression needs a validation to choose its penalty by.
    """
    if split.first == len(split.series.values):
        return {}
    typer.echo(f"Forecasting the last {len(split.series.values) - split.first:,} rows as a test ...")
    lookback, period = predictor.lookback, predictor.period
    others: dict[str, AbstractEstimator] = {"seasonal naive": SeasonalNaiveEstimator(lookback, period)}  # pyright: ignore
    if given["validation"]:
        others["ridge"] = RidgeEstimator(lookback, period)  # pyright: ignore
    found = {"TPGN": backtest(predictor, split.series, start=split.first, known=split.known, levels=levels, keep=False)}
    for name, estimator in others.items():
        other = fitted(estimator, split, **given)
        found[name] = backtest(other, split.series, start=split.first, levels=levels, keep=False)
    return found


def as_table(prediction: xr.Dataset) -> pd.DataFrame:
    """A forecast as a table: time, the variables, and every quantile of each as `name_q0.05`."""
    columns = {}
    for name in prediction["variable"].values:
        columns[str(name)] = prediction["forecast"].sel(variable=name).values
    for name in prediction["variable"].values if "quantiles" in prediction else ():
        for level in prediction["quantile"].values:
            columns[f"{name}_q{level:g}"] = prediction["quantiles"].sel(variable=name, quantile=level).values
    return pd.DataFrame(columns, index=pd.Index(prediction["time"].values, name="time"))


def write_forecast(
    folder: Path,
    file: Path,
    split: Split,
    predictor: Predictor,
    prediction: xr.Dataset,
    results: Mapping[str, Backtest],
) -> None:
    """The rest of the folder: forecast, figures, report. Each file is written whole or not at all."""
    write_whole(folder / "forecast.csv", as_table(prediction).to_csv().encode())
    write_whole(folder / "forecast.nc", netcdf(prediction))
    plot.save(plot.forecast(prediction, split.series), folder / "forecast.png")
    if results:
        plot.save(plot.compared(results), folder / "backtest.png")
        write_whole(folder / "scores.csv", pd.DataFrame({k: v.table() for k, v in results.items()}).T.to_csv().encode())
    text = report(file.name, split.series, split.first, predictor, prediction, results)
    write_whole(folder / "report.md", text.encode())
