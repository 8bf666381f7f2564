"""Measured series in (NumPy, pandas, xarray; gaps, trials, inputs), labelled xarray out."""

from dsrecon.series.clock import Clock as Clock
from dsrecon.series.clock import Series as Series
from dsrecon.series.clock import labelled as labelled
from dsrecon.series.convert import TIME_COLUMNS as TIME_COLUMNS
from dsrecon.series.door import as_series as as_series
from dsrecon.series.door import several as several
from dsrecon.series.resample import filled as filled
from dsrecon.series.trials import aligned as aligned
from dsrecon.series.trials import as_inputs as as_inputs
from dsrecon.series.trials import as_trials as as_trials
from dsrecon.series.trials import refuse_names as refuse_names
