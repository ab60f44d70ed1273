"""A line of frames between two nodes: sequence numbers, hash chains, bounded memory, signs of life.

Knows neither gRPC nor jobs. `outgoing()` is what goes to the wire, `attach(frames)` takes what comes from it;
`send` and `receive` are for the one thread that runs the job. The first failure wins, ends the line for good
and is raised by every later call.

Memory. `send` waits while `OUTBOX` frames have not left. Received frames are kept up to `INBOX_BYTES`; then
the reader stops pulling, so HTTP/2 flow control makes the peer wait. Two sides that both send before they
read would then wait for each other for ever, so while this side waits in `send` further frames go to a file
(`spool`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from parties import documents
from parties.errors import NodeError, PeerFailed, is_code
from parties.transport import node_pb2
from protocols.labels import label

#: Largest frame on the wire, in bytes, and gRPC's limit for every message.
MAX_FRAME = 1 << 20
OUTBOX = 4
INBOX_BYTES = 16 << 20
#: gRPC's own header before each message.
_GRPC_HEADER = 5
#: What a queued frame is counted for beyond its body: frames without one must not fill the memory either.
_QUEUED = 512
_BODIES = ("payload", "control", "stage_json", "beat")


class Chain:
    """Running SHA-256 over the frames of one direction, signs of life left out."""

    def __init__(self, sender: str, job_id: str, spec_hash: bytes) -> None:
        self.value = hashlib.sha256(label("transport", sender, job_id, spec_hash)).digest()
        self.frames = 0

    def add(self, stage: str, kind: str, body: bytes) -> None:
        name = stage.encode()
        head = self.value + bytes([_BODIES.index(kind), len(name)]) + name
        self.value = hashlib.sha256(head + hashlib.sha256(body).digest()).digest()
        self.frames += 1


class Link:
    """One side of a session's stream. `role` is this side's: brand or provider."""

    def __init__(
        self,
        job_id: str,
        spec_hash: bytes,
        role: str,
        *,
        silence_seconds: float = 60.0,
        heartbeat_seconds: float = 2.0,
        spool_bytes: int = 8 << 30,
        spool_dir: Path | None = None,
    ) -> None:
        other = "provider" if role == "brand" else "brand"
        self.job_id = job_id
        self.stage = "open"
        self.sent = Chain(role, job_id, spec_hash)
        self.received = Chain(other, job_id, spec_hash)
        self.bytes_sent = 0
        self.bytes_received = 0
        self.error: NodeError | None = None
        self.on_end: Callable[[], None] = lambda: None
        #: Monotonic time after which nothing is exchanged any more: the last look at the consent is too old.
        self.lease_until: float | None = None
        self._silence, self._heartbeat = silence_seconds, heartbeat_seconds
        self._changed = threading.Condition()
        self._outbox: deque[node_pb2.Frame] = deque()
        self._leaving = 0  # frames that the wire has taken but not asked to follow up yet
        self._inbox: deque[tuple[str, str, bytes | tuple[int, int], int]] = deque()
        self._inbox_bytes = 0
        self._spool: IO[bytes] | None = None
        self._spool_dir, self._spool_left = spool_dir, spool_bytes
        self._sending = False
        self._closing = False
        self._cut = False
        self._peer_closed = False
        self._sequence_out = 0
        self._sequence_in = 0
        self._heard = time.monotonic()

    # -- to the wire -----------------------------------------------------------------------------------------

    def outgoing(self) -> Iterator[node_pb2.Frame]:
        """Frames in order, until the line closes. Numbers and chain are given as a frame leaves."""
        while True:
            with self._changed:
                self._leaving = 0
                self._changed.notify_all()
                while not self._outbox and not self._closing:
                    self._changed.wait(1.0)
                if not self._outbox:
                    return
                frame = self._outbox.popleft()
                self._leaving = 1
                self._sequence_out += 1
                frame.sequence = self._sequence_out
                kind = frame.WhichOneof("body")
                if kind != "beat":
                    self.sent.add(frame.stage, kind, getattr(frame, kind))
                self.bytes_sent += frame.ByteSize() + _GRPC_HEADER
            yield frame

    def send(self, kind: str, body: bytes) -> None:
        """Queue one frame of the current stage; waits while too many are under way."""
        frame = node_pb2.Frame(job_id=self.job_id, stage=self.stage)
        setattr(frame, kind, body)
        if frame.ByteSize() + 12 > MAX_FRAME:
            raise NodeError("transport.too_large", f"a frame of {len(body)} bytes; {MAX_FRAME} with its head")
        with self._changed:
            self._sending = True
            self._changed.notify_all()
            try:
                self._wait(lambda: len(self._outbox) < OUTBOX, "take")
                self._outbox.append(frame)
            finally:
                self._sending = False
            self._changed.notify_all()

    def send_control(self, kind: str, **fields: Any) -> None:
        self.send("control", documents.canonical({"type": kind, **fields}))

    def flush(self) -> None:
        """Wait until every queued frame has been handed to the wire."""
        with self._changed:
            self._wait(lambda: not self._outbox, "take")

    # -- from the wire ---------------------------------------------------------------------------------------

    def attach(self, frames: Iterable[node_pb2.Frame], translate: Callable[[Exception], NodeError]) -> None:
        """Start reading `frames` and showing signs of life. `translate` names a failure of the iterator."""
        self._heard = time.monotonic()
        threading.Thread(
            target=self._read, args=(frames, translate), name=f"read {self.job_id}", daemon=True
        ).start()
        threading.Thread(target=self._beat, name=f"beat {self.job_id}", daemon=True).start()

    def receive(self, *kinds: str) -> tuple[str, bytes]:
        """(kind, body) of the next frame, which must be of the current stage and of one of `kinds`."""
        with self._changed:
            self._wait(lambda: bool(self._inbox) or self._peer_closed, "send")
            if not self._inbox:
                raise self._fail(
                    NodeError("transport.truncated", "the peer closed the stream before the job's end")
                )
            stage, kind, body, size = self._inbox.popleft()
            self.bytes_received += size
            if isinstance(body, tuple):
                body = self._unspool(*body)
            else:
                self._inbox_bytes -= len(body) + _QUEUED
            # Here and not on arrival: when they are compared, both chains must stand at the same frame.
            self.received.add(stage, kind, body)
            self._changed.notify_all()
        if stage != self.stage:
            raise self.fail(
                NodeError("transport.stage", f"a frame of stage {stage[:64]!r} in stage {self.stage!r}")
            )
        if kind not in kinds:
            raise self.fail(
                NodeError("transport.stage", f"a {kind} frame came where {' or '.join(kinds)} was due")
            )
        return kind, body

    def receive_control(self, *types: str) -> dict[str, Any]:
        """The next control message, which must be of one of `types`."""
        value = documents.parse(self.receive("control")[1], "control message", MAX_FRAME)
        if value.get("type") not in types:
            raise self.fail(
                NodeError(
                    "transport.stage", f"message {str(value.get('type'))[:40]!r} came where {types} was due"
                )
            )
        return value

    def _read(self, frames: Iterable[node_pb2.Frame], translate: Callable[[Exception], NodeError]) -> None:
        try:
            for frame in frames:
                self._take(frame)
                if self.error is not None:
                    break
            with self._changed:
                self._peer_closed = True
                self._changed.notify_all()
        except NodeError as error:
            self.fail(error)
        except Exception as error:  # whatever the transport raises: the job must end with its name
            if not self._closing:
                self.fail(translate(error))
        finally:
            self.on_end()

    def _take(self, frame: node_pb2.Frame) -> None:
        self._heard = time.monotonic()
        if frame.job_id != self.job_id:
            raise NodeError(
                "transport.job", f"a frame of job {frame.job_id[:64]!r} in the stream of {self.job_id!r}"
            )
        expected = self._sequence_in + 1
        if frame.sequence < expected:
            raise NodeError("transport.replayed", f"frame {frame.sequence} came again, {expected} was due")
        if frame.sequence > expected:
            raise NodeError("transport.gap", f"frame {frame.sequence} came, {expected} was due")
        self._sequence_in = expected
        kind = frame.WhichOneof("body")
        if kind is None or len(frame.stage.encode()) > 64:
            raise NodeError("transport.malformed", f"frame {frame.sequence} has no body, or no proper stage")
        size = frame.ByteSize() + _GRPC_HEADER
        if kind == "beat":
            self.bytes_received += size
            return
        body = getattr(frame, kind)
        if kind == "control" and len(body) < 65536 and b'"abort"' in body:
            self._aborted(documents.parse(body, "control message"))
        with self._changed:
            while self._inbox_bytes > INBOX_BYTES and not self._sending and self.error is None:
                self._changed.wait(1.0)
            if self._inbox_bytes > INBOX_BYTES:
                self._inbox.append((frame.stage, kind, self._to_spool(body), size))
            else:
                self._inbox.append((frame.stage, kind, body, size))
                self._inbox_bytes += len(body) + _QUEUED
            self._changed.notify_all()

    def _aborted(self, message: dict[str, Any]) -> None:
        if message.get("type") != "abort":
            return
        raise peer_failed(message.get("code"), message.get("detail"))

    def _to_spool(self, body: bytes) -> tuple[int, int]:
        if self._spool is None:
            # Not buffered: else a full disk would be noticed when a frame is read back, or at `close`.
            self._spool = tempfile.TemporaryFile(dir=self._spool_dir, buffering=0)  # noqa: SIM115 - see `close`
        if len(body) + _QUEUED > self._spool_left:
            raise NodeError("transport.flood", "the peer sent more than spool_mib of node.toml allows")
        self._spool_left -= len(body) + _QUEUED
        at = self._spool.seek(0, 2)
        try:
            if self._spool.write(body) != len(body):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # Not the line's fault: as a broken line the job would be taken up again, to the same end.
            raise NodeError(
                "node.disk", f"what the peer sends, in {self._spool_dir}: {error.strerror}"
            ) from error
        return at, len(body)

    def _unspool(self, at: int, size: int) -> bytes:
        if self._spool is None:
            raise NodeError("node.internal", "a spooled frame without a spool")
        self._spool.seek(at)
        return self._spool.read(size)

    # -- life and death --------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, self._heartbeat)
                if self._closing:
                    return
                if not self._outbox and not self._leaving:
                    self._outbox.append(node_pb2.Frame(job_id=self.job_id, stage=self.stage, beat=True))
                    self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait, with the condition held, until `ready`; the peer must show a sign of life meanwhile."""
        start = time.monotonic()
        while True:
            if self.error is not None:
                raise self.error
            if self.lease_until is not None and time.monotonic() > self.lease_until:
                # Signs of life alone must not stretch a stage: who withdraws meanwhile would still be in it.
                raise self._fail(
                    NodeError(
                        "consent.lease",
                        f"stage {self.stage!r} lasts longer than this side's look at the consent is good for",
                        "lease_seconds of node.toml is the limit",
                        share=True,
                    )
                )
            if ready():
                return
            if self._closing:
                raise self._fail(NodeError("transport.lost", "the line is closed"))
            quiet = time.monotonic() - max(start, self._heard)
            if quiet > self._silence:
                raise self._fail(
                    NodeError(
                        "transport.silent",
                        f"the peer did not {what} anything for {quiet:.0f} s in stage {self.stage!r}",
                        "ask the peer whether its node hangs; silence_seconds of node.toml is the limit",
                    )
                )
            slept, most = time.monotonic(), min(1.0, self._silence / 4)
            self._changed.wait(most)
            if (stood := time.monotonic() - slept - most) > 0:
                # This machine stood still (it is busy, or was halted): what came meanwhile is not read yet.
                start = max(start, self._heard) + stood

    def fail(self, error: NodeError) -> NodeError:
        """End the line with `error`, unless it has failed before; returns the error that counts."""
        with self._changed:
            return self._fail(error)

    def cut(self, error: NodeError) -> None:
        """The wire is gone: nothing leaves any more, and whoever waits gets `error`."""
        with self._changed:
            if not self._closing:
                self._fail(error)
            self._outbox.clear()
            self._leaving = 0
            self._cut = True
            self._changed.notify_all()

    def _fail(self, error: NodeError) -> NodeError:
        if self.error is None:
            self.error = error
        self._changed.notify_all()
        return self.error

    def close(self, abort: dict[str, Any] | None = None, drain_seconds: float = 2.0) -> None:
        """End the line: queued frames (or, on failure, one `abort`) still leave if the wire takes them in
        time.
        """
        with self._changed:
            if self._closing:
                return
            if abort is not None and not self._cut:
                self._outbox.clear()
                body = documents.canonical({"type": "abort", **abort})
                self._outbox.append(node_pb2.Frame(job_id=self.job_id, stage=self.stage, control=body))
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._outbox and not self._leaving, drain_seconds)
            self._outbox.clear()
            if self._spool is not None:
                self._spool.close()
                self._spool = None
            self._inbox.clear()


def peer_failed(code: Any, detail: Any) -> PeerFailed:
    """The error that a peer reported, with everything that it may have made up cut to size."""
    text = detail[:2000] if isinstance(detail, str) else ""
    return PeerFailed(code if is_code(code) else "peer.failed", f"the peer reports: {text}")
