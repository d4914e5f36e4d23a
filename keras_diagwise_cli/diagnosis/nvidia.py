"""Whether this machine has an NVIDIA GPU, without a backend, which would claim it."""

from __future__ import annotations

from pathlib import Path

DRIVER = Path("/dev/nvidiactl")
"""Exists where the NVIDIA driver is loaded, on Linux."""


def has_driver() -> bool:
    return DRIVER.exists()
