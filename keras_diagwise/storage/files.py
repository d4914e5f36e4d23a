"""The files of the store: their names and contents."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.problem import Problem
from keras_diagwise.records import UnknownFieldError
from keras_diagwise.similarity import Logarithms, bucket, logarithms

DECISION_FORMAT = "keras-diagwise decision"
ENVIRONMENT_FORMAT = "keras-diagwise environment"
LEASE_FORMAT = "keras-diagwise claim"
CHECK_FORMAT = "keras-diagwise check"
FORMAT_VERSION = 1
OUR_FIRST_BYTES = b'{\n "format": "keras-diagwise '

NOT_KNOWN = (
    "a later version of keras-diagwise wrote it; it is left as it is. To use it: pip "
    "install --upgrade keras-diagwise"
)

DIGEST = re.compile(r"[0-9a-f]{16}")
BUCKET_NAME = re.compile(r"[123]d-(g\d+x\d+|dense|matmul)-k[\w-]+")
DECISION_NAME = re.compile(r"(\d+\.\d{3}-){3}[0-9a-f]{16}\.json")
ENVIRONMENT_NAME = re.compile(r"environment\.json")
LEASE_NAME = re.compile(r"[0-9a-f]{16}-\d{1,9}\.json")
CHECK_NAME = re.compile(r"[0-9a-f]{16}\.json")


class OtherVersionError(ValueError):
    """A file is intact, but only another version of the package can read it."""

    def __init__(self) -> None:
        super().__init__(NOT_KNOWN)


def decision_path(environment: str, problem: Problem) -> str:
    """The path of a decision's file, from the digest of its environment."""
    sizes = "-".join(f"{size:.3f}" for size in logarithms(problem))
    return f"{environment}/{bucket(problem)}/{sizes}-{problem.digest}.json"


def sizes_and_key(name: str) -> tuple[Logarithms, tuple[str, str]]:
    """The sizes in the name of a decision's file, and the sort key of such names: the
    problem's digest first, as in a document."""
    batch, pixels, channels, rest = name.split("-")
    return Logarithms(float(batch), float(pixels), float(channels)), (rest, name)


def decision_to_bytes(environment: str, decision: Decision) -> bytes:
    """The content of a decision's file, from the digest of its environment."""
    values = {"environment": environment, **decision.to_dict()}
    return to_bytes(DECISION_FORMAT, {"checksum": checksum(values), **values})


def decision_from_bytes(content: bytes, path: str) -> Decision:
    """The decision in the file of this path.

    Raises:
        OtherVersionError: if another version of the package wrote it.
        Exception: of any other kind, if the file is invalid.
    """
    values = from_bytes(DECISION_FORMAT, content)
    if values.pop("checksum", None) != checksum(values):
        raise ValueError("its checksum does not fit its content")
    environment = values.pop("environment")
    try:
        decision = Decision.from_dict(values)
    except UnknownFieldError as error:
        raise OtherVersionError from error
    decision.check_dates()
    if decision_path(environment, decision.problem) != path:
        raise ValueError("it is another problem's or another environment's")
    return decision


def environment_path(digest: str) -> str:
    """The path of an environment's file."""
    return f"{digest}/environment.json"


def environment_to_bytes(environment: Environment) -> bytes:
    """The content of an environment's file."""
    return to_bytes(ENVIRONMENT_FORMAT, environment.to_dict())


def environment_from_bytes(content: bytes, path: str) -> Environment:
    """The environment in the file of this path.

    Raises:
        OtherVersionError: if another version of the package wrote it.
        Exception: of any other kind, if the file is invalid.
    """
    values = from_bytes(ENVIRONMENT_FORMAT, content)
    try:
        environment = Environment.from_dict(values)
    except UnknownFieldError as error:
        raise OtherVersionError from error
    if path != environment_path(environment.digest):
        raise ValueError("it is another environment's")
    return environment


DEVICE_LEASES = "claims"
"""The path of the folder of the leases on devices."""


def leases_path(environment: str) -> str:
    """The path of the folder of leases, from the digest of an environment."""
    return f"{environment}/claims"


def lease_name(task: str, generation: int) -> str:
    """The file name of a lease of this generation on a task, given by its digest."""
    return f"{task}-{generation}.json"


def generation_of(name: str) -> int:
    """The generation of a lease, from its file name."""
    return int(name.partition("-")[2].removesuffix(".json"))


def lease_to_bytes(values: dict) -> bytes:
    """The content of a lease's file."""
    return to_bytes(LEASE_FORMAT, values)


def lease_from_bytes(content: bytes) -> dict[str, Any]:
    """Contents of the file of a lease.

    Raises:
        Exception: of any kind, if the file is invalid.
    """
    return from_bytes(LEASE_FORMAT, content)


def checks_path(environment: str) -> str:
    """The path of the folder of checks, from the digest of an environment."""
    return f"{environment}/checks"


def check_to_bytes(values: dict) -> bytes:
    """The content of the file of a whole model's check."""
    return to_bytes(CHECK_FORMAT, values)


def check_from_bytes(content: bytes, path: str) -> dict[str, Any]:
    """Contents of the file of a whole model's check.

    Raises:
        Exception: of any kind, if the file is invalid.
    """
    return from_bytes(CHECK_FORMAT, content)


def to_bytes(kind: str, values: dict) -> bytes:
    """One field per line. `json` indents in Python code, which took half of the time of
    an import."""
    named = {"format": kind, "version": FORMAT_VERSION, **values}
    fields = (f" {json.dumps(name)}: {json.dumps(v)}" for name, v in named.items())
    return ("{\n" + ",\n".join(fields) + "\n}\n").encode()


def from_bytes(kind: str, content: bytes) -> dict[str, Any]:
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    found, version = values.pop("format", None), values.pop("version", None)
    if found == kind and is_later(version):
        raise OtherVersionError
    if (found, version) != (kind, FORMAT_VERSION):
        raise ValueError(f"it is not of format {kind!r}, version {FORMAT_VERSION}")
    return values


def is_later(version: object) -> bool:
    """Whether the version of a format is one of a later version of the package."""
    return type(version) is int and version > FORMAT_VERSION


def checksum(values: dict) -> str:
    """A digest of `values`, which any change to them changes."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
