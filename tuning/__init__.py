"""The campaign: measurements that are run from a checkout and whose results are
committed."""

import os

from tuning.records import installed

if "tensorflow" not in installed():
    # Keras's own default would fail, as it did in a rehearsal without TensorFlow.
    os.environ.setdefault("KERAS_BACKEND", installed()[0])
# What starts workers leaves them the memory of the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
