"""Stress tests of the tuner and the store, each a command: `nox -s stress`.

pytest collects none of them. Their figures go to tuning/results.
"""

import tuning  # noqa: F401, sets Keras's backend before Keras is imported
