"""Room for what a protocol keeps between two of its rounds: in memory as long as it is little, else in a file
of the job's directory that has no name, so that nothing of it outlives the process, however that ends.

A `Store` is read and written in blocks and not mapped: mapped pages would count as memory of the process.
`Columns` are mapped, as whatever computes on them wants one array.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from parties.errors import NodeError
from protocols.boost.store import Memory, Store

#: A larger store goes into a file.
IN_MEMORY = 512 << 20


class Scratch:
    """Stores of one stage (`protocols/boost/store.py`); leave the `with` block and they are gone."""

    def __init__(self, folder: Path, in_memory: int | None = None) -> None:
        self._folder, self._in_memory = folder, IN_MEMORY if in_memory is None else in_memory
        self._files: list[_File] = []

    def room(self, count: int) -> Store:
        """A store of `count` 64-bit words. NodeError `node.disk` where the disk has no room for it."""
        if 8 * count <= self._in_memory:
            return Memory(count)
        self._files.append(_File(self._folder, 8 * count))
        return self._files[-1]

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files so far."""
        return sum(file.size for file in self._files)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()


class _File:
    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`
        self._number = self._file.fileno()
        self._read = np.empty(0, dtype=np.uint64)
        try:
            _reserve(self._number, 0, size)  # so that a full disk is noticed now and not in the last block
        except OSError as error:
            self.close()
            raise _full(folder, size, error) from error

    def write(self, at: int, words: np.ndarray) -> None:
        data, start = memoryview(np.ascontiguousarray(words).reshape(-1).view(np.uint8).data), 8 * at
        while len(data):
            done = os.pwrite(self._number, data, start)
            data, start = data[done:], start + done

    def read(self, at: int, count: int) -> np.ndarray:
        if len(self._read) < count:
            self._read = np.empty(count, dtype=np.uint64)
        found = self._read[:count]
        data, start = memoryview(found.view(np.uint8).data), 8 * at
        while len(data):
            done = os.preadv(self._number, [data], start)
            if not done:
                raise NodeError("node.internal", f"the job's own file ends before byte {start}")
            data, start = data[done:], start + done
        return found

    def close(self) -> None:
        self._file.close()


class Columns:
    """float32[rows, columns] in Fortran order, as `array`: in memory, or in a file below `folder`.

    Of a file only reserved columns may be written: the first, then the next ones. A mapped page for which the
    disk has no block would be a signal (SIGBUS) that ends the whole node, with every other job.
    """

    def __init__(self, rows: int, columns: int, folder: Path | None) -> None:
        self._folder, self._column, self._reserved = folder, 4 * rows, 0
        if folder is None:
            self.array = np.empty((rows, columns), dtype=np.float32, order="F")
            return
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives with the array
            mapped = np.memmap(self._file, np.float32, "w+", shape=(rows, columns), order="F")
        except OSError as error:
            raise _full(folder, self._column, error) from error
        self.array = np.asarray(mapped)

    def reserve(self, columns: int) -> None:
        """Room on the disk for the first `columns`. NodeError `node.disk` if there is none."""
        start, size = self._reserved * self._column, (columns - self._reserved) * self._column
        if self._folder is None or size <= 0:
            return
        try:
            _reserve(self._file.fileno(), start, size)
        except OSError as error:
            raise _full(self._folder, size, error) from error
        self._reserved = columns


def _reserve(number: int, start: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, start, size)


def _full(folder: Path, size: int, error: OSError) -> NodeError:
    return NodeError(
        "node.disk",
        f"{size / 1e9:.3g} GB in {folder} for the job's own file: {error.strerror}",
        "free disk space, or ask for fewer columns or bins",
    )
