"""Starts the processes of an engine, and gathers what they have found."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 400.0
"""What a process may take before it is taken to hang."""


def started(module, *arguments, **variables):
    """A process; what it prints goes into a file, since a pipe takes a long line in
    pieces, between which another thread's words can fall."""
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **variables},
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, output


def ended(started_together):
    """What processes that were started together have found, each in its last line."""
    pairs = list(started_together)
    try:
        said = [each.communicate(timeout=SECONDS)[1] for each, _ in pairs]
    finally:
        for each, _ in pairs:
            each.kill()
    found = []
    for (each, output), complaints in zip(pairs, said, strict=True):
        assert each.returncode == 0, complaints
        with output:
            output.seek(0)
            found.append(json.loads(output.read().splitlines()[-1]))
    return found


def free_ports(count):
    """Ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
