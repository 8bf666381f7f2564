"""What makes importing slow is loaded when it is used."""

import subprocess
import sys

SLOW = ("diffrax", "scipy.stats", "scipy.signal", "scipy.ndimage", "scipy.optimize", "scipy.spatial", "matplotlib")


def test_slow_packages_are_not_loaded():
    code = f"import sys, dsrecon; print(*[name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
