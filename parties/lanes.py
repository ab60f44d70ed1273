"""Several buckets at a time over the one line to the peer, and a lost worker costs no more than its bucket.

Both sides must run this; the greeting of the alignment says so. A frame is

    kind (1) · bucket (4) · attempt (2) · a machine's message

of kind MESSAGE, DONE (this side's machine has ended; its result is kept) or RESTART (this side's worker is
lost: the bucket begins anew as `attempt`, with fresh machines and a session of its own on both sides). A
bucket is complete when both have said DONE in the same attempt. Buckets are opened in order, up to `width`
at a time, and the next one when one is complete; since a side says DONE before anything that follows from it,
the peer has opened every bucket of which it gets a message.

A side that has said DONE does not restart that attempt, but follows the peer if the peer does. Frames of an
earlier attempt are late and are dropped. Both sides may restart a bucket at once: they then meet in the same
attempt.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from parties.errors import NodeError
from parties.workers import Work, Worker, WorkerLost, Workers

_HEAD = struct.Struct(">BIH")
MESSAGE, DONE, RESTART = 1, 2, 3

#: Restarts of buckets in one alignment, both sides' together. A receiver could use them to ask about more
#: people; each is in the sender's ledger.
RESTARTS = 8

#: Messages that wait for one machine; then the line is not read.
_WAITING = 8


@dataclass
class _Lane:
    """One attempt at one bucket on this side."""

    bucket: int
    attempt: int
    inbox: queue.Queue[bytes] = field(default_factory=lambda: queue.Queue(_WAITING))
    ended: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    peer_done: bool = False
    result: Any = None


class Lanes:
    """The buckets `first` … `count` - 1 of one alignment.

    `send(bytes)`, `receive() -> bytes`: the line; one thread at a time in each. `work(bucket, attempt)` makes
    a run, in a lane's thread; both sides must give it the same session, another one for each attempt.
    `finished(bucket, result)` in the caller's thread, in any order of buckets. `restarting(bucket)` is called
    before any message of a further attempt leaves, in any thread.
    """

    def __init__(
        self,
        first: int,
        count: int,
        width: int,
        workers: Workers,
        *,
        send: Callable[[bytes], None],
        receive: Callable[[], bytes],
        work: Callable[[int, int], Work],
        finished: Callable[[int, Any], None],
        restarting: Callable[[int], None] = lambda bucket: None,
        progress: Callable[[int, tuple[int, int]], None] = lambda bucket, progress: None,
    ) -> None:
        self._next, self._count, self._width = first, count, max(1, width)
        self._workers = workers
        self._put, self._get, self._work = send, receive, work
        self._finished, self._restarting, self._progress = finished, restarting, progress
        self._state = threading.Condition()
        self._line = threading.Lock()
        self._open: dict[int, _Lane] = {}
        self._threads: list[threading.Thread] = []
        self._events: queue.Queue[tuple[str, int, Any]] = queue.Queue()
        self._stopped = False
        self.restarts = 0

    def run(self) -> None:
        """All buckets. Raises the first error of any thread; then the line is of no use any more."""
        left = self._count - self._next
        reader = threading.Thread(target=self._read, name="lanes", daemon=True)
        try:
            with self._state:
                self._fill()
            reader.start()
            while left:
                what, bucket, value = self._events.get()
                if what == "error":
                    raise value
                if what == "progress":
                    self._progress(bucket, value)
                else:
                    self._finished(bucket, value)
                    left -= 1
            reader.join()
        finally:
            with self._state:
                self._stopped = True
                for lane in self._open.values():
                    lane.ended.set()
                self._state.notify_all()
                threads = list(self._threads)
            self._workers.close()
            for thread in threads:
                thread.join(5.0)

    # -- buckets ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Open further buckets. Holding the state, as all below that say so."""
        while len(self._open) < self._width and self._next < self._count:
            self._start(_Lane(self._next, 0))
            self._next += 1

    def _start(self, lane: _Lane) -> None:
        """Holding the state."""
        self._open[lane.bucket] = lane
        thread = threading.Thread(target=self._drive, args=(lane,), name=f"bucket {lane.bucket}", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _again(self, lane: _Lane) -> None:
        """A further attempt at the lane's bucket. Holding the state."""
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise NodeError(
                "node.worker",
                f"{RESTARTS} workers were lost in one alignment",
                "see Ray's log; memory is the usual cause: lower bucket_rows or workers in node.toml",
                share=True,
            )
        lane.ended.set()
        self._restarting(lane.bucket)
        self._start(_Lane(lane.bucket, lane.attempt + 1))
        self._state.notify_all()

    def _complete(self, lane: _Lane) -> None:
        """If both sides are done with it. Holding the state."""
        if lane.done and lane.peer_done:
            del self._open[lane.bucket]
            self._events.put(("finished", lane.bucket, lane.result))
            self._fill()
        self._state.notify_all()

    # -- a bucket's own thread -------------------------------------------------------------------------------

    def _drive(self, lane: _Lane) -> None:
        try:
            work, worker, lost = self._work(lane.bucket, lane.attempt), self._workers.take(), False
            try:
                self._converse(lane, work, worker)
            except WorkerLost:
                lost = True
            finally:
                self._workers.give(worker, lost)
            with self._state:
                if lane.ended.is_set() or self._stopped:
                    return
                if lost:
                    # Told before the new attempt's first message, which its own thread sends.
                    self._send(RESTART, lane.bucket, lane.attempt + 1)
                    self._again(lane)
                    return
                lane.done = True
                self._send(DONE, lane.bucket, lane.attempt)
                self._complete(lane)
        except BaseException as error:  # whatever it is ends the alignment, in the caller's thread
            if not (lane.ended.is_set() or self._stopped):
                self._events.put(("error", lane.bucket, error))

    def _converse(self, lane: _Lane, work: Work, worker: Worker) -> None:
        """Drive the machine to its end, or the lane's if that comes first."""
        if lane.ended.is_set():
            return
        answer = worker.begin(work)
        while True:
            for message in answer.messages:
                if lane.ended.is_set():
                    return
                self._send(MESSAGE, lane.bucket, lane.attempt, message)
            answer.check()
            self._events.put(("progress", lane.bucket, answer.progress))
            if answer.finished:
                lane.result = answer.result
                return
            if answer.more:
                answer = worker.more()
                continue
            while True:
                if lane.ended.is_set():
                    return
                try:
                    incoming = lane.inbox.get(timeout=0.5)
                    break
                except queue.Empty:
                    continue
            answer = worker.receive(incoming)

    def _send(self, kind: int, bucket: int, attempt: int, message: bytes = b"") -> None:
        with self._line:
            self._put(_HEAD.pack(kind, bucket, attempt) + message)

    # -- the line's own thread -------------------------------------------------------------------------------

    def _read(self) -> None:
        """Until nothing more can come: a frame after the last DONE belongs to whoever uses the line next."""
        try:
            while True:
                with self._state:
                    self._state.wait_for(
                        lambda: (
                            self._stopped
                            or (not self._open and self._next >= self._count)
                            or not all(lane.peer_done for lane in self._open.values())
                        )
                    )
                    if self._stopped or (not self._open and self._next >= self._count):
                        return
                self._take(self._get())
        except BaseException as error:  # as above
            self._events.put(("error", -1, error))

    def _take(self, frame: bytes) -> None:
        if len(frame) < _HEAD.size:
            raise NodeError("kind.message", "a frame of the alignment lacks its head", share=True)
        kind, bucket, attempt = _HEAD.unpack_from(frame)
        with self._state:
            lane = self._open.get(bucket)
            if lane is None or attempt > lane.attempt + (kind == RESTART):
                raise NodeError("kind.message", f"a frame of bucket {bucket}, which is not open", share=True)
            if attempt < lane.attempt or (kind == RESTART and attempt == lane.attempt):
                return  # of an attempt that this side has given up; or both gave it up
            if lane.peer_done and kind != RESTART:
                raise NodeError("kind.message", f"a message of bucket {bucket} after its end", share=True)
            if kind == RESTART and lane.peer_done:
                raise NodeError("kind.message", f"bucket {bucket} restarted after its end", share=True)
            if kind == RESTART:
                self._again(lane)
                return
            if kind == DONE and len(frame) == _HEAD.size:
                lane.peer_done = True
                self._complete(lane)
                return
        if kind != MESSAGE:
            raise NodeError("kind.message", f"a frame of kind {kind}", share=True)
        while not lane.ended.is_set():
            try:
                lane.inbox.put(frame[_HEAD.size :], timeout=0.5)
                return
            except queue.Full:
                continue
