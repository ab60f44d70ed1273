"""Files that only their owner may read, written whole or not at all.

For what a running job keeps on disk: checkpoints hold items and row numbers, which are people's data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


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
