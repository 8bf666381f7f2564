"""`reconstruct`: from a series to a dynamical system, in one call."""

from dsrecon.reconstruct.door import reconstruct as reconstruct
