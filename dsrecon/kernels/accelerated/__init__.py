"""Kernels for NVIDIA GPUs, in Pallas. Each is imported by the branch that runs it, and has a slow twin in `kernels`."""
