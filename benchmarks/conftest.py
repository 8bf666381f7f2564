"""What stands beside every figure: the versions of what was measured. The machine's own name is left out."""

import importlib.metadata
import os
import platform

PACKAGES = (
    "dsrecon",
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "diffrax",
    "numpy",
    "scipy",
    "scikit-learn",
    "sktime",
    "torch",
)


def versions():
    """Cores, processor and the versions of what was measured."""
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: found[name] for name in PACKAGES if name in found},
    }


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["node"] = ""
    machine_info.update({k: v for k, v in versions().items() if k in ("cores", "versions")})
