"""Files that only their owner may read, written whole or not at all.

For what a node's directory holds, and for what a running job keeps on disk: checkpoints hold items and row
numbers, which are people's data.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from parties import documents
from parties.errors import NodeError


def folder(path: Path) -> Path:
    """The directory, made with mode 0700 if it is not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A new file with mode 0600 that takes the name `path` once everything is on disk.

    A process that is killed meanwhile leaves the old file, or none.
    """
    part = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the node's directory; `node.home` if it can't be read."""
    try:
        return documents.parse(path.read_bytes(), path.name)
    except OSError as error:
        raise NodeError("node.home", f"{path}: {error.strerror}") from error


def read_all(folder: Path) -> list[dict[str, Any]]:
    """What `read_json` gives of each *.json of a folder, by name; without any that goes meanwhile."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_json(path))
        except NodeError:
            if path.exists():
                raise
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True))
    temporary.chmod(0o600)
    temporary.replace(path)
