"""Forecasts: estimators to fit, predictors to ask, and the protocol by which they are judged."""

from dsrecon.forecast.backtest import Backtest as Backtest
from dsrecon.forecast.backtest import backtest as backtest
from dsrecon.forecast.baselines import ParrotEstimator as ParrotEstimator
from dsrecon.forecast.baselines import RidgeEstimator as RidgeEstimator
from dsrecon.forecast.baselines import SeasonalNaiveEstimator as SeasonalNaiveEstimator
from dsrecon.forecast.combined import CombinedEstimator as CombinedEstimator
from dsrecon.forecast.dynamics import ReconstructionEstimator as ReconstructionEstimator
from dsrecon.forecast.estimator import AbstractEstimator as AbstractEstimator
from dsrecon.forecast.estimator import Learned as Learned
from dsrecon.forecast.intervals import AbstractIntervals as AbstractIntervals
from dsrecon.forecast.intervals import Conformal as Conformal
from dsrecon.forecast.intervals import EnsembleQuantiles as EnsembleQuantiles
from dsrecon.forecast.marks import time_marks as time_marks
from dsrecon.forecast.networks import DLinearEstimator as DLinearEstimator
from dsrecon.forecast.networks import NLinearEstimator as NLinearEstimator
from dsrecon.forecast.networks import SequenceEstimator as SequenceEstimator
from dsrecon.forecast.networks import TPGNEstimator as TPGNEstimator
from dsrecon.forecast.networks import Training as Training
from dsrecon.forecast.predictor import Predictor as Predictor
from dsrecon.forecast.predictor import load_predictor as load_predictor
