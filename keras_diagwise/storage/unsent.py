"""Decisions that were kept on this machine while a URL could not be written: sends
them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from keras_diagwise.storage.files import (
    BUCKET_NAME,
    DECISION_NAME,
    DIGEST,
    OtherVersionError,
    decision_from_bytes,
    decision_to_bytes,
    environment_path,
)
from keras_diagwise.storage.folders import Folder

Warn = Callable[[str, Exception], None]
"""Warns of the file of a path, for a reason."""


def send(source: Folder, target: Folder, warn: Warn) -> None:
    """Moves decisions from a folder to another, merged with what is there. One that
    can't be used stays where it is, and so does one that would replace a file of
    another version of the package.

    Raises:
        OSError: if one can't be moved; it then stays where it is.
    """
    for digest in filter(DIGEST.fullmatch, source.names("")):
        path = environment_path(digest)
        content = source.content(path)
        if content is not None and target.content(path) is None:
            target.write(path, content, None)
        for bucket in buckets_in(source, digest):
            for name in filter(DECISION_NAME.fullmatch, source.names(bucket)):
                send_decision(source, target, f"{bucket}/{name}", warn)
            source.remove_empty(bucket)
        is_empty = not any(buckets_in(source, digest))
        if content is not None and is_empty:
            source.remove(path)
        source.remove_empty(digest)


def buckets_in(folder: Folder, digest: str) -> Iterator[str]:
    """The paths of the buckets of an environment, from its digest."""
    names = filter(BUCKET_NAME.fullmatch, folder.names(digest))
    return (f"{digest}/{name}" for name in names)


def send_decision(source: Folder, target: Folder, path: str, warn: Warn) -> None:
    """Moves one decision."""
    content, sent = source.content(path), target.content(path)
    if content is None:  # another process was quicker
        return
    try:
        decision = decision_from_bytes(content, path)
    except Exception as error:
        warn(path, error)
        return
    try:
        if sent is not None:
            decision |= decision_from_bytes(sent, path)
    except OtherVersionError as error:
        warn(path, error)
        return
    except Exception as error:  # damage, which is replaced
        warn(path, error)
    target.write(path, decision_to_bytes(path.partition("/")[0], decision), None)
    source.remove(path)
