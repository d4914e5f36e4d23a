"""The console script `keras-diagwise`.

Importing `keras_diagwise` imports Keras, which takes seconds, and to import
`keras_diagwise.cli` is to import its package first. So that help, version and
completion answer at once, the package is put in place here without being run; a
command that needs it runs it, see `keras_diagwise.cli.import_keras`.
"""

import importlib.util
import sys


def run() -> None:
    """Runs the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # help has characters that ASCII lacks
            stream.reconfigure(errors="replace")
    if "keras_diagwise" not in sys.modules:
        spec = importlib.util.find_spec("keras_diagwise")
        assert spec is not None
        sys.modules["keras_diagwise"] = importlib.util.module_from_spec(spec)
    from keras_diagwise.cli import run

    run()
