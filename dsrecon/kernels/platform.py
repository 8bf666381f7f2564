"""Where a program will run, as far as can be told before it is compiled."""

import jax


def nvidia() -> bool:
    """Whether programs run on an NVIDIA GPU by default: what the kernels are written for.

    Arrays that were put on another device by hand are not seen: name an engine there.
    """
    device = getattr(jax.config, "jax_default_device", None)
    if device is None or isinstance(device, str):
        device = jax.devices(device)[0]
    return device.platform == "gpu" and device.device_kind.startswith("NVIDIA")
