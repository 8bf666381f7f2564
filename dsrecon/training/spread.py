"""How the runs of a fit are shared out: among the threads of a CPU, or among devices."""

import os
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from dsrecon._checks import counted
from dsrecon._types import Devices


def groups_of(start: PyTree, runs: int, threads: int | None, devices: Devices | None) -> list[Any]:
    """The runs of `start` (leaves `[r, ...]`) in groups, one a thread or one a device, there already.

    **Raises:** `ValueError` for `threads` below 1 or beside `devices`, and devices that are none, told twice, or of
    another process.
    """
    if devices is None:
        return [_part(start, part) for part in _by_threads(runs, threads)]
    if threads is not None:
        raise ValueError(f"threads and devices share out the runs, one or the other: got {threads} and {devices}.")
    told = isinstance(devices, Sequence) and bool(devices) and all(isinstance(d, jax.Device) for d in devices)
    if not told:
        raise ValueError(f"devices must be a sequence of devices, as jax.local_devices() gives: got {devices!r}.")
    if len(set(devices)) < len(devices):
        raise ValueError(f"devices must be told once each: got {devices}.")
    elsewhere = [d for d in devices if d.process_index != jax.process_index()]
    if elsewhere:
        raise ValueError(
            f"devices must be of this process, jax.local_devices(): got {elsewhere}, of process "
            f"{elsewhere[0].process_index}, in process {jax.process_index()}. Each process fits runs of its own."
        )
    count = min(len(devices), runs)
    parts = [slice(i * runs // count, (i + 1) * runs // count) for i in range(count)]
    return [jax.device_put(_part(start, part), d) for part, d in zip(parts, devices[:count], strict=True)]


def _part(tree: PyTree, part: slice) -> PyTree:
    return jax.tree.map(lambda x: x[part], tree)


def _by_threads(runs: int, threads: int | None) -> list[slice]:
    """Equal groups of runs, one a thread. An accelerator takes them all at once.

    A number of runs that the cores do not divide, such as 5 on 2, goes one by one, so that none is idle.
    """
    threads = None if threads is None else counted("threads", threads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = threads or (cores if jax.default_backend() == "cpu" else 1)
    count = max(n for n in range(1, min(wanted, runs) + 1) if runs % n == 0)
    count = runs if count == 1 and wanted > 1 else count
    size = runs // count
    return [slice(i * size, (i + 1) * size) for i in range(count)]
