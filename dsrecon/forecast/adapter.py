"""The forecasters of this package as one of sktime's, with its pipelines, splitters and scores around them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dsrecon.forecast.estimator import AbstractEstimator
from dsrecon.forecast.networks import TPGNEstimator, Training
from dsrecon.forecast.task import Impute, imputed
from dsrecon.measures.period import find_period
from dsrecon.series import Series, as_series

try:
    from sktime.forecasting.base import BaseForecaster, ForecastingHorizon
    from sktime.utils.validation.forecasting import check_fh
    from sktime.utils.warnings import warn
except ImportError as error:
    raise ImportError(
        "SktimeForecaster needs sktime, which is not installed: pip install 'dsrecon[sktime]'."
    ) from error

SHORT = Training(epochs=200, patience=40, batch=16, learning_rate=3e-3, decay=0.99)
"""Training on a few hundred rows, where an epoch is a handful of updates."""

DEFAULT = TPGNEstimator(training=SHORT)  # pyright: ignore[reportCallIssue]
"""What is fitted where no estimator is given."""

FEWEST = 4
"""Rows that a window looks back on at least, where a part of the series is kept for validation."""


# `super()`, and methods that replace those of the base class, are how sktime is extended: the rules of this package,
# which has neither, stop at this class.
class SktimeForecaster(BaseForecaster):
    """Any forecaster of this package behind sktime's interface.

    `fit` fits `estimator`; `predict`, `predict_quantiles` and `predict_interval` ask the `Predictor` that came of it,
    which is kept as `predictor_`. One or several variables; period, datetime (with a frequency, without a time zone)
    and integer indices that leave no step out. Panels and hierarchies have one forecaster a series, by sktime.

    - **Covariates** `X` are known ahead. They go to estimators that take some (`estimator.takes_covariates`); from
      others sktime keeps them away, as its tag `capability:exogenous` says. `predict` needs them for every step up to
      the horizon, not only for those in `fh`.
    - **Quantiles** are split conformal ones, from the errors on the validation rows (`Conformal`). A level that needs
      more validation windows than there are has no finite quantile: it is `-inf` or `inf`, and a warning says so.
      An interval of 90 % needs 19 windows, so `horizon + 18` rows of validation.
    - **Update**: with `update_params=True` it is fitted again to all rows so far; with `False` the model stays and goes
      on from the new rows.
    - **Short series**: where the training part would have less than a lookback (4 rows if none is given) and a horizon,
      nothing is kept for validation: training runs to its end and no quantile is finite. The period is looked for
      among those of which a window has room. At least a lookback (1 if none is given) and a horizon of rows.

    **Arguments:**

    - `estimator`: what is fitted, such as `RidgeEstimator()`. `None`: `TPGNEstimator()` trained for up to 200
      epochs of 16 windows an update, as short series need it (`DEFAULT`).
    - `horizon`: steps that the model forecasts; `None` for the largest of `fh`.
    - `validation`: share of the rows, at the end, that is not learned from; 0 for none, and no quantiles.
    - `impute`: what to do with missing values in `y`: refuse them (default), `"last"` or `"seasonal"`.
    - `seed`: of the start values and of the order of the windows.

    **Raises:** `ValueError` for steps beyond the horizon, an index that leaves steps out, covariates that are missing
    for a row; and what `AbstractEstimator.fit` and `Predictor.predict` raise.

    Examples
    --------
    >>> from dsrecon.forecast import RidgeEstimator
    >>> from dsrecon.forecast.adapter import SktimeForecaster
    >>> from sktime.datasets import load_airline
    >>> forecaster = SktimeForecaster(RidgeEstimator(level="last"), validation=0.25)
    >>> forecaster.fit(load_airline(), fh=range(1, 13))
    SktimeForecaster(...)
    >>> forecaster.predict_interval(coverage=0.8).shape
    (12, 2)
    """

    _tags = {  # noqa: RUF012
        "authors": ["The dsrecon founders"],
        "maintainers": ["The dsrecon founders"],
        "python_version": ">=3.11",
        "python_dependencies": "dsrecon",
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": False,
        "capability:non_contiguous_X": False,
        "capability:missing_values": True,
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "capability:random_state": False,
        "requires-fh-in-fit": True,
        "X-y-must-have-same-index": True,
        "enforce_index_type": None,
    }
    # the rows are kept here, as `_cur_y` and `_cur_X`
    _config = {"remember_data": False}  # noqa: RUF012

    def __init__(
        self,
        estimator: AbstractEstimator | None = None,
        horizon: int | None = None,
        validation: float = 0.2,
        impute: Impute | None = None,
        seed: int = 0,
    ):
        self.estimator = estimator
        self.horizon = horizon
        self.validation = validation
        self.impute: Impute | None = impute
        self.seed = seed
        super().__init__()
        self._y = self._X = None  # sktime's checks read them, but its constructor sets them only to remember the data
        self.set_tags(
            **{
                "capability:exogenous": estimator is None or estimator.takes_covariates,
                "capability:missing_values": impute is not None,
                "capability:pred_int": validation > 0,
            }
        )

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None, fh: ForecastingHorizon) -> "SktimeForecaster":
        longest = int(self._steps(fh).max())
        horizon = longest if self.horizon is None else self.horizon
        if longest > horizon:
            raise ValueError(f"horizon must reach the last step of fh, {longest}: got {horizon}.")
        series = _series(y)
        estimator = DEFAULT if self.estimator is None else self.estimator
        estimator, validation = _suited(estimator, series.values, horizon, self.validation)
        self.predictor_ = estimator.fit(
            series,
            horizon,
            known=None if X is None else _beside(X, y.index, series),
            validation=validation,
            impute=self.impute,
            key=self.seed,
            progress=False,
        )
        self._clock, self._cur_y, self._cur_X = series.clock, y, X
        return self

    def _update(self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True) -> "SktimeForecaster":
        rows = _after(self._cur_y, y, "y")
        beside = None if self._cur_X is None else _after(self._cur_X, X, "X")
        if update_params:
            return self._fit(rows, beside, check_fh(self._fh))
        self._cur_y, self._cur_X = rows, beside
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        found = self._ahead(fh, X, ())["forecast"].values[self._steps(fh) - 1]
        return pd.DataFrame(found, fh.to_absolute_index(self.cutoff), self._cur_y.columns)

    def _predict_quantiles(self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]) -> pd.DataFrame:
        errors = self.predictor_.errors
        windows = 0 if errors is None else int(np.isfinite(errors.values).sum(0).min())
        bounded = sorted({q for q in alpha if _has_rank(q, windows)})
        rows = self._steps(fh) - 1
        found = {q: np.full((len(rows), self._cur_y.shape[1]), -np.inf if q < 0.5 else np.inf) for q in alpha}
        if bounded:
            quantiles = self._ahead(fh, X, bounded)["quantiles"].values
            found |= {q: one[rows] for q, one in zip(bounded, quantiles, strict=True)}
        if len(bounded) < len(found):
            outer = sorted(q for q in found if q not in bounded)
            needed = max(int(np.ceil(1 / min(q, 1 - q) - 1e-9)) - 1 for q in outer)
            warn(
                f"Quantiles {outer} are infinite: they need {needed} validation windows, there are {windows}. Keep "
                f"more rows for validation (now {self.validation:g} of them), or ask for levels nearer to 1/2.",
                obj=self,
            )
        values = np.stack([found[q] for q in alpha], -1).reshape(len(rows), -1)
        columns = self._get_columns(method="predict_quantiles", alpha=alpha)
        return pd.DataFrame(values, fh.to_absolute_index(self.cutoff), columns)

    def _steps(self, fh: ForecastingHorizon) -> np.ndarray:
        """Steps ahead of the last row, from 1."""
        return np.asarray(fh.to_indexer(self.cutoff), int) + 1

    def _ahead(self, fh: ForecastingHorizon, X: pd.DataFrame | None, levels: Sequence[float]):
        """What the predictor says of the steps after the rows so far."""
        predictor = self.predictor_
        last = int(self._steps(fh).max())
        if last > predictor.horizon:
            raise ValueError(f"fh must end within the horizon, {predictor.horizon} steps: got {last}.")
        if X is not None and self._cur_X is None:
            raise ValueError(f"X is not wanted: it was fitted without. Got {list(X.columns)}.")
        series = _series(self._cur_y)
        lookback = predictor.lookback
        values = imputed(series.values, self.impute, predictor.period, series.names, "y")[-lookback:]
        clock = self._clock.shifted(len(series.values) - len(values))
        context = Series(values, series.names, clock, series.units)
        known = None
        if self._cur_X is not None:
            steps = check_fh(np.arange(1, predictor.horizon + 1), freq=self._cutoff)
            index = self._cur_y.index[-lookback:].append(steps.to_absolute_index(self.cutoff))
            known = _beside(_after(self._cur_X, X, "X"), index, context)
        return predictor.predict(context, known=known, levels=levels)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict]:
        """Settings for sktime's checks, such as train in a second."""
        from dsrecon.forecast.baselines import RidgeEstimator, SeasonalNaiveEstimator

        quick = Training(epochs=2, patience=1)
        network = TPGNEstimator(lookback=4, period=2, width=2, training=quick)  # pyright: ignore[reportCallIssue]
        ridge = RidgeEstimator(penalty=1.0)  # pyright: ignore[reportCallIssue]
        naive = SeasonalNaiveEstimator()  # pyright: ignore[reportCallIssue]
        return [
            {"estimator": network},
            {"estimator": ridge, "validation": 0.5, "impute": "last", "seed": 1},
            {"estimator": naive, "horizon": 6, "validation": 0.0},
        ]


def _series(y: pd.DataFrame) -> Series:
    """As a `Series`, by the order of its columns; an index that leaves steps out is refused."""
    index = y.index
    if not isinstance(index, pd.DatetimeIndex):
        at = index.asi8 if isinstance(index, pd.PeriodIndex) else np.asarray(index)
        wrong = np.flatnonzero(np.diff(at) != 1)
        if len(wrong):
            i = wrong[0]
            raise ValueError(
                f"y must leave no step of its index out: got {index[i + 1]} after {index[i]}, at row {i + 1}."
            )
    names = tuple(str(name) for name in y.columns)
    return as_series(y.set_axis(range(y.shape[1]), axis=1), calendar=True)._replace(names=names)


def _beside(X: pd.DataFrame, index: pd.Index, series: Series) -> Series:
    """Covariates at the times of `index`, on the clock of a series."""
    missing = index.difference(X.index)
    if len(missing):
        raise ValueError(
            f"X must have a row for each that is looked at, up to the horizon: {len(missing)} are missing, the first "
            f"{missing[0]}."
        )
    values = as_series(X.loc[index].to_numpy(np.float64)).values
    names = tuple(str(name) for name in X.columns)
    return Series(values, names, series.clock, ("",) * len(names))


def _after(old: pd.DataFrame, new: pd.DataFrame | None, name: str) -> pd.DataFrame:
    """Rows so far and new ones, which take the place of old ones at the same time."""
    if new is None:
        return old
    if set(new.columns) != set(old.columns):
        raise ValueError(f"{name} must hold the columns of the fit, {list(old.columns)}: got {list(new.columns)}.")
    both = pd.concat([old, new[list(old.columns)]])
    return both.loc[~both.index.duplicated(keep="last")].sort_index()


def _suited(
    estimator: AbstractEstimator, values: np.ndarray, horizon: int, validation: float
) -> tuple[AbstractEstimator, float]:
    """The estimator and the validation that a short series has room for."""
    held = max(round(len(values) * validation), horizon) if validation > 0 else 0  # as `AbstractEstimator.fit` has it
    if held and len(values) - held < (estimator.lookback or FEWEST) + horizon:
        held, validation = 0, 0.0
    rows = len(values) - held
    room = max((rows - horizon) // 2, 1)
    if estimator.lookback is None and estimator.period is None and rows >= 3 and room < rows // 3:
        estimator = dataclasses.replace(estimator, period=find_period(values[:rows], longest=room).steps)
    return estimator, validation


def _has_rank(level: float, windows: int) -> bool:
    """Whether so many errors have a conformal quantile at a level: the rank that `Conformal` takes is among them."""
    inner = (windows + 1) * min(level, 1 - level)
    return inner >= 1 - 1e-9
