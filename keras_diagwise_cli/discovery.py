"""Finds the commands of a package: each of its modules declares one."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence


def import_commands(package: str, order: Sequence[str]) -> None:
    """Imports the modules of a package, which declare their commands when imported.

    Args:
        package: name of the package.
        order: modules in the order of the help. Others follow by name.
    """
    names = {each.name for each in pkgutil.iter_modules(sys.modules[package].__path__)}
    for name in (*order, *sorted(names.difference(order))):
        importlib.import_module(f"{package}.{name}")
