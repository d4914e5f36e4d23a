"""Shared by the backends that launch Triton kernels."""

from __future__ import annotations

WARPS = 4
"""Warps of a program."""

MIN_CAPABILITY = (8, 0)


def capability_refusal(capability: tuple[int, int] | None) -> str | None:
    """Why kernels can't run on a device of a compute capability, or `None`.

    Args:
        capability: the device's, or `None` if it is not an NVIDIA GPU.
    """
    if capability is None:
        return "it is for NVIDIA GPUs"
    if capability < MIN_CAPABILITY:
        least = ".".join(map(str, MIN_CAPABILITY))
        return f"the GPU's compute capability is below {least}"
    return None
