"""From a measured time series to a dynamical system that can be run, scored, taken apart and written down as symbols.

Begin with `reconstruct(series)`; what it returns is a `Reconstruction`.
"""

from dsrecon import datasets as datasets
from dsrecon import measures as measures
from dsrecon import models as models
from dsrecon import symbolic as symbolic
from dsrecon import systems as systems
from dsrecon import training as training
from dsrecon._results import RESULTS as RESULTS
from dsrecon._results import Trajectory as Trajectory
from dsrecon.cell import AbstractCell as AbstractCell
from dsrecon.cell import AbstractPWLCell as AbstractPWLCell
from dsrecon.data import read_series as read_series
from dsrecon.diagnose import Diagnosis as Diagnosis
from dsrecon.diagnose import diagnose as diagnose
from dsrecon.embedding import Embedding as Embedding
from dsrecon.evolve import AbstractSolver as AbstractSolver
from dsrecon.evolve import Sequential as Sequential
from dsrecon.evolve import evolve as evolve
from dsrecon.measures import score as score
from dsrecon.export import export_arrays as export_arrays
from dsrecon.export import export_stablehlo as export_stablehlo
from dsrecon.export import load_stablehlo as load_stablehlo
from dsrecon.export import read_arrays as read_arrays
from dsrecon.models import ALRNN as ALRNN
from dsrecon.models import PLRNN as PLRNN
from dsrecon.models import ClippedDendriticPLRNN as ClippedDendriticPLRNN
from dsrecon.models import ClippedShallowPLRNN as ClippedShallowPLRNN
from dsrecon.models import DendriticPLRNN as DendriticPLRNN
from dsrecon.models import MeanCentredPLRNN as MeanCentredPLRNN
from dsrecon.models import ShallowPLRNN as ShallowPLRNN
from dsrecon.readout import AbstractReadout as AbstractReadout
from dsrecon.readout import Forced as Forced
from dsrecon.readout import Forcing as Forcing
from dsrecon.readout import GeneralisedReadout as GeneralisedReadout
from dsrecon.readout import HaemodynamicReadout as HaemodynamicReadout
from dsrecon.readout import IdentityReadout as IdentityReadout
from dsrecon.readout import LinearReadout as LinearReadout
from dsrecon.reconstruct import prune as prune
from dsrecon.reconstruct import pruning_curve as pruning_curve
from dsrecon.reconstruct import reconstruct as reconstruct
from dsrecon.reconstruct import seed_atlas as seed_atlas
from dsrecon.reconstruction import Reconstruction as Reconstruction
from dsrecon.reconstruction import load as load
from dsrecon.scaler import Scaler as Scaler
from dsrecon.series import Series as Series
from dsrecon.series import as_series as as_series
from dsrecon.series import as_trials as as_trials
from dsrecon.symbolic import encode as encode
from dsrecon.systems import simulate as simulate
