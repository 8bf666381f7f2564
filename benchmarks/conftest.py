"""What stands beside every figure: the versions of what was measured. The machine's own name is left out."""

import importlib.metadata
import os

PACKAGES = ("dsrecon", "jax", "jaxlib", "equinox", "optax", "diffrax", "numpy", "scipy", "torch")


def pytest_benchmark_update_machine_info(config, machine_info):
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    machine_info["node"] = ""
    machine_info["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine_info["versions"] = {name: found[name] for name in PACKAGES if name in found}
