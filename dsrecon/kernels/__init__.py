"""The hot loops: one function each, several engines, one result."""

from dsrecon.kernels.recurrence import recurrence as recurrence
