"""The campaign: measurements run from a checkout, with committed results."""

import os

from tuning.records import installed

if "tensorflow" not in installed():
    # Keras's default would fail, as it did in a rehearsal without TensorFlow.
    os.environ.setdefault("KERAS_BACKEND", installed()[0])
# A process that starts workers leaves them the device's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
