"""Starts the processes of an engine, and gathers what they have found."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 400.0
"""What a process may take before it is taken to hang."""


def started(module, *arguments, **variables):
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **variables},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(processes):
    """What processes that were started together have found, each in its last line."""
    processes = list(processes)
    try:
        said = [each.communicate(timeout=SECONDS) for each in processes]
    finally:
        for each in processes:
            each.kill()
    for each, (_, complaints) in zip(processes, said, strict=True):
        assert each.returncode == 0, complaints
    return [json.loads(output.splitlines()[-1]) for output, _ in said]


def free_ports(count):
    """Ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
