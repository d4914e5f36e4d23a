"""Python in a process of its own."""

import os
import subprocess
import sys


def printed_by(arguments, home, folder, **environment):
    """What Python prints.

    Args:
        arguments: of Python's command line.
        home: an empty folder, to be the user's.
        folder: where it runs.
        **environment: variables.
    """
    variables = {"HOME": str(home), "KERAS_HOME": str(home / "k"), **environment}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
