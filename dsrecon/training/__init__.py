"""Fitting cells to data: windows, losses, the loop."""

from dsrecon.training.fit import History as History
from dsrecon.training.fit import fit as fit
from dsrecon.training.fit import radam as radam
from dsrecon.training.losses import Loss as Loss
from dsrecon.training.losses import gtf as gtf
from dsrecon.training.windows import Window as Window
from dsrecon.training.windows import Windows as Windows
