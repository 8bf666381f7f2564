"""Fitting cells to data: windows, losses, the loop."""

from dsrecon.training.adaptive import Adaptive as Adaptive
from dsrecon.training.adaptive import scheduled as scheduled
from dsrecon.training.estimators import Estimator as Estimator
from dsrecon.training.estimators import largest_norm as largest_norm
from dsrecon.training.estimators import log_mean_norm as log_mean_norm
from dsrecon.training.estimators import mean_norm as mean_norm
from dsrecon.training.estimators import parameter_bound as parameter_bound
from dsrecon.training.estimators import product_bound as product_bound
from dsrecon.training.fit import History as History
from dsrecon.training.fit import fit as fit
from dsrecon.training.fit import radam as radam
from dsrecon.training.losses import Loss as Loss
from dsrecon.training.losses import gtf as gtf
from dsrecon.training.updates import of_batch as of_batch
from dsrecon.training.updates import of_windows as of_windows
from dsrecon.training.windows import Window as Window
from dsrecon.training.windows import Windows as Windows
