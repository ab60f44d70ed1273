"""One array from one side to the other, as a pair of machines: a header, then messages under 1 MiB.

For what a kind hands over outside a cryptographic protocol: scores by row number, who is still in. The header
binds the session and says how many bytes follow, so a truncated or swapped array can't pass for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from protocols.errors import PeerError
from protocols.labels import label
from protocols.machine import MAX_MESSAGE, Done, Machine, Step

CHUNK = MAX_MESSAGE


def _header(session: bytes, what: str, size: int) -> bytes:
    return label("transfer", "sender", what, session) + size.to_bytes(8, "big")


class Sender(Machine[None]):
    """Sends `data` (any contiguous array) under the name `what`; the result is None."""

    def __init__(self, data: np.ndarray, what: str, session: bytes) -> None:
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)

        def send() -> Iterator[bytes]:
            yield _header(session, what, len(raw))
            for at in range(0, len(raw), CHUNK):
                yield raw[at : at + CHUNK].tobytes()

        super().__init__(Step(send(), Done(None), (len(raw), len(raw))))


class Receiver(Machine[np.ndarray]):
    """Receives exactly `size` bytes; the result is uint8[size]. PeerError for anything else."""

    def __init__(self, size: int, what: str, session: bytes) -> None:
        super().__init__(Step((), _WaitHeader(_header(session, what, size), size)))


class _WaitHeader:
    def __init__(self, expected: bytes, size: int) -> None:
        self._expected, self._size = expected, size

    def receive(self, message: bytes) -> Step[np.ndarray]:
        if message[:-8] != self._expected[:-8]:
            raise PeerError("protocol.binding", "the array belongs to another session or is another one")
        if message != self._expected:
            announced = int.from_bytes(message[-8:], "big")
            raise PeerError("protocol.malformed", f"an array of {announced} bytes, {self._size} were due")
        buffer = np.empty(self._size, dtype=np.uint8)
        if not self._size:
            return Step((), Done(buffer))
        return Step((), _WaitChunks(buffer), (0, self._size))


class _WaitChunks:
    def __init__(self, buffer: np.ndarray) -> None:
        self._buffer, self._at = buffer, 0

    def receive(self, message: bytes) -> Step[np.ndarray]:
        due = min(CHUNK, len(self._buffer) - self._at)
        if len(message) != due:
            raise PeerError("protocol.malformed", f"a part of {len(message)} bytes, {due} were due")
        self._buffer[self._at : self._at + due] = np.frombuffer(message, dtype=np.uint8)
        self._at += due
        if self._at == len(self._buffer):
            return Step((), Done(self._buffer), (self._at, self._at))
        return Step((), self, (self._at, len(self._buffer)))
