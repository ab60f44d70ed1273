"""Where the runs of buckets are computed: in this process, or in workers of a Ray cluster.

`BucketRun` holds one protocol machine and answers calls with its messages. The local engine calls it, the Ray
engine puts it into an actor: the same code either way. Ray is an extra (`pip install pec[ray]`) and is
imported only when a job first needs it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from parties.errors import NodeError
from protocols import align
from protocols import errors as protocol_errors
from protocols.align.sender import Prepared
from protocols.machine import Machine, Progress

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)

#: Bytes of messages that one call to a worker returns, about; the rest stays lazy in the machine.
ANSWER_BYTES = 4 << 20

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """One bucket's run: `items` uint8[cap, 32], filled; `numbers` int64[cap] at a sender; `runs`: how many
    the job has.
    """

    role: Literal["receiver", "sender"]
    suite: str
    malicious: bool
    session: bytes = field(repr=False)
    runs: int
    limits: align.Limits
    items: Bytes = field(repr=False)
    numbers: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    prepared: Prepared | None = field(default=None, repr=False)

    def machine(self) -> Machine[Any]:
        """The machine of this run. LocalError as its constructor says."""
        common: dict[str, Any] = {"suite": self.suite, "malicious": self.malicious, "runs": self.runs}
        # A copy: what a worker gets lies in shared memory that nobody may write, for which kernels would have
        # to be compiled once more.
        items = self.items if self.items.flags.writeable else self.items.copy()
        if self.role == "receiver":
            return align.Receiver(items, self.session, self.limits, os.urandom, numbered=True, **common)
        common |= {"prepared": self.prepared}
        numbers = None if self.numbers is None else np.array(self.numbers)
        return align.Sender(items, self.session, self.limits, os.urandom, numbers=numbers, **common)


@dataclass(frozen=True)
class Answer:
    """What a call to a `BucketRun` gives: messages for the peer, and where the machine stands.

    `more`: call `more` for further messages before anything else. `error`: (class, code, detail) of the
    protocol's error that ended the run.
    """

    messages: list[bytes]
    more: bool = False
    progress: Progress = (0, 0)
    finished: bool = False
    result: Any = None
    error: tuple[str, str, str] | None = None

    def check(self) -> None:
        """Raise the protocol's error, if there was one."""
        if self.error is not None:
            name, code, detail = self.error
            raise (protocol_errors.PeerError if name == "PeerError" else protocol_errors.LocalError)(
                code, detail
            )


class BucketRun:
    """One machine at a time, driven by calls; wherever it lives, its caller moves the messages."""

    def __init__(self) -> None:
        self._machine: Machine[Any] | None = None
        self._messages: Iterator[bytes] = iter(())

    def begin(self, work: Work) -> Answer:
        """Take up a run; what was there before is dropped."""
        self._machine, self._messages = None, iter(())
        try:
            self._machine = work.machine()
            self._messages = self._machine.start()
        except protocol_errors.ProtocolError as error:
            return _failed(error, [])
        return self.more()

    def receive(self, message: bytes) -> Answer:
        """One message of the peer's; LocalError protocol.state without a run."""
        if self._machine is None:
            raise protocol_errors.LocalError("protocol.state", "a worker got a message and has no run")
        try:
            self._messages = self._machine.receive(message)
        except protocol_errors.ProtocolError as error:
            return _failed(error, [])
        return self.more()

    def more(self) -> Answer:
        """The next messages, up to about `ANSWER_BYTES`."""
        machine, out, size = self._machine, [], 0
        if machine is None:
            raise protocol_errors.LocalError("protocol.state", "a worker was asked for more and has no run")
        try:
            for message in self._messages:
                out.append(message)
                size += len(message)
                if size >= ANSWER_BYTES:
                    return Answer(out, True, machine.progress)
        except protocol_errors.ProtocolError as error:
            return _failed(error, out)
        done = machine.finished
        answer = Answer(out, False, machine.progress, done, machine.result if done else None)
        if done:
            self._machine = None
        return answer

    def process(self) -> int:
        """The process id of whoever computes."""
        return os.getpid()


def _failed(error: protocol_errors.ProtocolError, messages: list[bytes]) -> Answer:
    return Answer(messages, error=(type(error).__name__, error.code, error.detail))


class WorkerLost(Exception):
    """A worker ended, or can't be reached any more; its run is lost, and nothing else."""


class Worker(Protocol):
    """A `BucketRun`, here or elsewhere. Every call may raise WorkerLost."""

    def begin(self, work: Work) -> Answer: ...
    def receive(self, message: bytes) -> Answer: ...
    def more(self) -> Answer: ...


class Workers(Protocol):
    """Workers of an engine, for one alignment. `width`: how many there are at a time; `take` waits for one,
    and `give` brings it back, or what is left of it. Both may be called from several threads.
    """

    @property
    def width(self) -> int: ...
    def take(self) -> Worker: ...
    def give(self, worker: Worker, lost: bool = False) -> None: ...
    def close(self) -> None: ...


class LocalWorkers:
    """One run at a time in this process."""

    width = 1

    def __init__(self) -> None:
        self._free = threading.Semaphore(1)

    def take(self) -> Worker:
        self._free.acquire()
        return BucketRun()

    def give(self, worker: Worker, lost: bool = False) -> None:
        self._free.release()

    def close(self) -> None:
        """Nothing is held."""


class _Remote:
    """A `BucketRun` in an actor of Ray's."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def begin(self, work: Work) -> Answer:
        answer: Answer = self._call(self.actor.begin, work)
        return answer

    def receive(self, message: bytes) -> Answer:
        answer: Answer = self._call(self.actor.receive, message)
        return answer

    def more(self) -> Answer:
        answer: Answer = self._call(self.actor.more)
        return answer

    def process(self) -> int:
        return int(self._call(self.actor.process))

    def _call(self, method: Any, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(method.remote(*arguments))
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            raise WorkerLost(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from error


class RayWorkers:
    """Actors of the cluster that this process is connected to, for one alignment; at most `width` of them."""

    def __init__(self, cluster: Cluster) -> None:
        import ray

        # No reserved CPUs: two jobs between two nodes could each hold all of one node's and wait for ever.
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
        }
        remote: Any = ray.remote
        self._make = remote(**options)(_SingleThreaded)
        self._idle: list[Worker] = []
        self._all: list[Any] = []
        self._lock = threading.Lock()
        self.width = cluster.width
        self._free = threading.Semaphore(self.width)

    def take(self) -> Worker:
        self._free.acquire()
        with self._lock:
            if self._idle:
                return self._idle.pop()
            made = self._make.remote()
            self._all.append(made)
        return _Remote(made)

    def give(self, worker: Worker, lost: bool = False) -> None:
        with self._lock:
            if not lost:
                self._idle.append(worker)
        self._free.release()

    def close(self) -> None:
        """End the actors: no item of a bucket outlives the stage in a worker's memory."""
        import ray

        with self._lock:
            actors, self._all, self._idle = self._all, [], []
        for actor in actors if ray.is_initialized() else ():
            ray.kill(actor)


class _SingleThreaded(BucketRun):
    """A `BucketRun` whose process uses one core: as many of them run as there are cores."""

    def __init__(self) -> None:
        super().__init__()
        os.environ["NUMBA_NUM_THREADS"] = "1"  # read when the first kernel is loaded


@dataclass(frozen=True)
class Cluster:
    """How many runs a job may have in the cluster at a time; where Ray keeps what it writes."""

    width: int
    folder: str = ""


_cluster: Cluster | None = None
_starting = threading.Lock()


def check(engine: str) -> None:
    """`node.engine` if this engine can't run here."""
    if engine not in ENGINES:
        raise NodeError("node.engine", f"engine {engine!r} is none of {', '.join(ENGINES)}")
    if engine == RAY and importlib.util.find_spec("ray") is None:
        raise NodeError("node.engine", "engine 'ray': Ray is not installed", "pip install 'pec[ray]'")


def start_ray(workers: int = 0, address: str = "") -> Cluster:
    """Connect to the cluster at `address`, or start one on this machine with `workers` (0: one a core); once
    in a process, and before anything else imports Ray. `node.engine` if that fails. `stop_ray` ends it.
    """
    global _cluster
    with _starting:
        if _cluster is not None:
            return _cluster
        check(RAY)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray would call its maker
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # of a busy machine
        if not address:
            # Whoever reaches a cluster runs code in it as this user. So it listens on 127.0.0.1 only (which
            # Ray does where it takes a cluster of several machines to be impossible), and asks for a token of
            # this process. Ray reads all three when it is imported.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        import ray

        init: Any = ray.init
        # Of its own and private: Ray writes objects there when its shared memory is full.
        folder = tempfile.mkdtemp(prefix="pec-ray-")
        width = workers or os.cpu_count() or 1
        own: dict[str, Any] = {
            "num_cpus": width,
            "include_dashboard": False,
            "object_store_memory": max(width * (160 << 20), 80 << 20),
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": folder,
        }
        try:
            init(
                address=address or "local",
                namespace=f"pec-{secrets.token_hex(8)}",
                logging_level="ERROR",
                log_to_driver=False,
                **({} if address else own),
            )
            if address and not workers:
                resources: Any = ray.cluster_resources
                width = int(resources().get("CPU", 1))
        except Exception as error:  # Ray has no common type for what fails here
            shutil.rmtree(folder, ignore_errors=True)
            raise NodeError(
                "node.engine",
                f"Ray does not start: {type(error).__name__}: {str(error)[:300]}",
                'check ray_address in node.toml, or use engine = "local"',
            ) from error
        _cluster = Cluster(max(1, min(width, MAX_WIDTH)), folder)
        return _cluster


def stop_ray() -> None:
    """End what `start_ray` began; nothing if it did not."""
    global _cluster
    with _starting:
        if _cluster is not None:
            import ray

            ray.shutdown()
            if _cluster.folder:
                shutil.rmtree(_cluster.folder, ignore_errors=True)
            _cluster = None


#: Most runs of one alignment at a time.
MAX_WIDTH = 64


def workers_of(engine: str, workers: int = 0, address: str = "") -> Workers:
    """The engine's workers for one alignment; the caller closes them."""
    check(engine)
    return RayWorkers(start_ray(workers, address)) if engine == RAY else LocalWorkers()
