"""One function of every step of a sequence."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from dsrecon.kernels.engine import AbstractEngine
from dsrecon.kernels.platform import nvidia


def mapped(function: Callable, model: Any, *along: Any, engine: Any = "auto") -> Any:
    """`function(model, *along_t)` for every step: `jax.vmap` over the leading axes of `along`.

    On a GPU a function of few numbers a step (the Jacobian of a small cell, say) is one kernel, in which what it makes
    on the way never leaves the registers; any other, and every one on another platform, is what XLA makes of the map.

    **Arguments:** `function`; `model`: a PyTree, the same for every step; `along`: PyTrees with leading axis `t`;
    `engine`: that of the scan which follows. Only beside `"auto"` and `"pallas"` is the map a kernel; one for several
    devices maps stretch by stretch, since the compiler cannot share a kernel out among them.
    """
    if isinstance(engine, AbstractEngine):
        free, fixed = eqx.partition(model, eqx.is_array)

        def stretch(engine, free, *along):
            return mapped(function, eqx.combine(free, fixed), *along, engine=engine), ()

        return engine.by_stretch(stretch, free, *along)[0]
    if nvidia() and engine in ("auto", "pallas"):
        from dsrecon.kernels.accelerated.plan import Unfused
        from dsrecon.kernels.accelerated.steps import map_steps

        free, fixed = eqx.partition(model, eqx.is_array)
        try:
            return map_steps(lambda free, now: function(eqx.combine(free, fixed), *now), free, along)
        except Unfused:
            pass
    return jax.vmap(lambda *now: function(model, *now))(*along)
