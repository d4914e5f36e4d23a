"""The settings of the C library under which it asks for huge pages.

On a CPU, backends allocate a step's buffers from the C library and free them after it.
glibc returns large ones to the system at once, which has to find and clear their pages
again at the next step, 4 KiB at a time. In huge pages a JAX step of MobileNetV2 takes
500 page faults instead of 41,000 (jax 0.10.2, 96×96 pixels, batch 16). Linux gives them
to every program or to those that ask, see /sys/kernel/mm/transparent_hugepage/enabled.
"""

from __future__ import annotations

import os
import platform
import re

VARIABLE = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
FIRST_GLIBC = 2, 35
"""First version of glibc with `HUGE_PAGES` (its NEWS)."""


def has_tunables() -> bool:
    """Whether the C library supports `HUGE_PAGES`."""
    name, version = platform.libc_ver()
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return name == "glibc" and numbers >= FIRST_GLIBC


def needed() -> str:
    """What Linux and glibc must be for `HUGE_PAGES`, in words."""
    return f"Linux and glibc {'.'.join(map(str, FIRST_GLIBC))} or later"


def with_tunables(tunables: str) -> str:
    """The variable's value with tunables appended; glibc takes the last of two that
    conflict."""
    return ":".join(filter(None, [os.environ.get(VARIABLE, ""), tunables]))
