"""The command `keras-diagwise`.

Importing this package imports neither Keras nor `keras_diagwise`, so that help, version
and completion answer at once: a command that needs them calls
`keras_diagwise_cli.loading.load_package` first.
"""

from __future__ import annotations

import os
import sys

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import INTERRUPTED


def run() -> None:
    """The console script `keras-diagwise`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # help has characters that ASCII lacks
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="keras-diagwise")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # After an interrupted step the interpreter's shutdown crashes in JAX
            # (seen in jaxlib 0.10.2).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
