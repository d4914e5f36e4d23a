"""The environment of a measurement, in JSON's types."""

from __future__ import annotations

import platform

import keras

import keras_diagwise
from keras_diagwise.environment import Environment


def environment_record(environment: Environment) -> dict:
    """An environment, and the versions and system that are not part of it."""
    return {
        **environment.to_dict(),
        "keras": keras.__version__,
        "keras_diagwise": keras_diagwise.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
