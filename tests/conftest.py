"""Every test runs in float64 with strict promotion and shapes checked; what needs float32 asks for it."""

import gc
import os
from pathlib import Path

from jaxtyping import install_import_hook

with install_import_hook("dsrecon", "beartype.beartype"):
    import dsrecon  # noqa: F401

import equinox as eqx
import jax
import matplotlib
import pytest

MAPS = 25_000
"""Memory maps of one process after which a module's compiled functions are dropped."""

matplotlib.use("Agg")
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """What one worker has compiled no other compiles again: most of the time of these tests is compilation."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = Path(config.option.basetemp).parent / "compiled"  # pytest clears up the runs before the last three
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def room_for_compiled_code():
    """Compiled functions are given back before they are too many: each holds memory maps, and a Linux process may have
    65,530 of them (`vm.max_map_count`); what is compiled after that takes the process down."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
        eqx.clear_caches()
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def optimiser_promotion():
    """optax's optimisers mix integer counts with floats: they need the standard promotion rules."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def float32():
    """The default precision of JAX, for tests of what a user without float64 gets."""
    with jax.enable_x64(False):
        yield
