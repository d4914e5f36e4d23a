"""The settings of the C library under which it asks for huge pages.

On a CPU, backends allocate a step's buffers from the C library and free them after it.
glibc returns large ones to the system at once, which has to find and clear their pages
again at the next step, 4 KiB at a time. Linux gives pages of 2 MiB to every program, to
those that ask, or to none (`MODES`).
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from keras_diagwise_cli.keras_free import keras_free_module

VARIABLE = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
FIRST_GLIBC = 2, 35
"""First version of glibc with `HUGE_PAGES` (its NEWS)."""
MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Where Linux lists its modes of huge pages, the active one in brackets."""


def refusal() -> str | None:
    """Why this system gives no huge pages for `HUGE_PAGES`, or `None`."""
    name, version = platform.libc_ver()
    release = keras_free_module("version").release
    if name != "glibc" or release(version) < FIRST_GLIBC:
        return f"this takes Linux and glibc {'.'.join(map(str, FIRST_GLIBC))} or later"
    try:
        modes = MODES.read_text(encoding="utf-8")
    except OSError:
        modes = "[never]"
    return "this system gives no huge pages" if "[never]" in modes else None


def in_huge_pages() -> bool:
    """Whether this process has asked for huge pages."""
    return refusal() is None and HUGE_PAGES in os.environ.get(VARIABLE, "")


def with_huge_pages() -> str:
    """The variable's value with `HUGE_PAGES`, unless it sets that tunable already."""
    value = os.environ.get(VARIABLE, "")
    if HUGE_PAGES.partition("=")[0] in value:
        return value
    return ":".join(filter(None, [value, HUGE_PAGES]))
