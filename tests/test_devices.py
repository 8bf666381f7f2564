"""Several devices give what one gives. Devices are counted when JAX starts, so each test is a process of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("devices_worker.py")


def started(*told: str, devices: int) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    paths = os.pathsep.join(p for p in (str(WORKER.parents[1]), os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", str(WORKER), *told],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def well(*processes: subprocess.Popen) -> None:
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]


@pytest.mark.parametrize(
    "parts",
    [("scans", "kernels", "refused"), ("forgetting", "newton", "ensembles"), ("variants", "constants")],
    ids="-".join,
)
def test_four_devices_equal_one(parts):
    well(started(*parts, devices=4))


def test_two_hosts_equal_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    well(*(started("host", number, port, devices=1) for number in ("0", "1")))
