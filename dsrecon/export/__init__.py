"""Fitted models for other worlds: plain arrays with a description, and StableHLO."""

from dsrecon.export.arrays import export_arrays as export_arrays
from dsrecon.export.arrays import read_arrays as read_arrays
from dsrecon.export.stablehlo import Program as Program
from dsrecon.export.stablehlo import export_stablehlo as export_stablehlo
from dsrecon.export.stablehlo import load_stablehlo as load_stablehlo
