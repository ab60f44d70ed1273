"""The node process: `python -m parties.node --home DIR [--ready-file FILE]`.

Serves peers and its operator on one port, and the consent center's REST if node.toml has `consent_listen`.
Ends cleanly on SIGTERM and SIGINT. Log: one JSON object a line, on standard error and in log/node.log.
Exit codes: 0 stopped, 1 unforeseen, 2 can't start (the last line of the log says why).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from consent_center import no_pandas
from consent_center.errors import ConsentError
from parties import compiling
from parties.errors import NodeError
from parties.home import Home
from parties.private_files import write_json
from parties.stage import JobKind
from protocols import packs

MAX_LOG_BYTES = 16 << 20
RECENT = 100


class Log:
    """Structured log: JSON lines to a stream and to a file that is rotated once at `MAX_LOG_BYTES`."""

    def __init__(self, path: Path, stream: IO[str]) -> None:
        self._path, self._stream = path, stream
        self._lock = threading.Lock()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._file = self._open()

    def _open(self) -> IO[str]:
        return os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", buffering=1)

    def __call__(
        self, code: str, text: str, *, level: str = "info", job: str = "", trace: BaseException | None = None
    ) -> None:
        entry: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level}
        entry |= {"code": code, "text": text}
        if job:
            entry["job"] = job
        if trace is not None:
            entry["trace"] = "".join(traceback.format_exception(trace))[-4000:]
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        with self._lock:
            self._recent.append({k: v for k, v in entry.items() if k != "trace"})
            self._file.write(line)
            if self._file.tell() > MAX_LOG_BYTES:
                self._file.close()
                self._path.replace(self._path.with_suffix(".log.1"))
                self._file = self._open()
            with contextlib.suppress(OSError, ValueError):  # whoever read our standard error may be gone
                self._stream.write(line)
                self._stream.flush()

    def recent(self) -> list[dict[str, Any]]:
        """The latest entries, oldest first."""
        with self._lock:
            return list(self._recent)

    def close(self) -> None:
        with self._lock:
            self._file.close()


_HANDSHAKE = re.compile(r"handshake|SSL_ERROR|CERTIFICATE|PEER_DID_NOT_RETURN", re.IGNORECASE)


def filter_native_log(log: Any, out: int) -> None:
    """Turn what gRPC's core writes to descriptor 2 into coded events.

    A refused client leaves no other trace at the server: the handshake fails before any of our code is
    called. Lines that are no handshake's go on to `out`.
    """
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)

    def follow() -> None:
        with os.fdopen(read, "r", errors="replace") as lines:
            for line in lines:
                if _HANDSHAKE.search(line):
                    log("transport.handshake", _why(line), level="warn")
                else:
                    with contextlib.suppress(OSError):
                        os.write(out, line.encode())

    threading.Thread(target=follow, name="native log", daemon=True).start()


def _why(line: str) -> str:
    """A sentence about a handshake line of gRPC's, with its own words after it."""
    causes = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "a client without a certificate",
        "CERTIFICATE_VERIFY_FAILED": "a client whose certificate is not trusted here: was its card trusted?",
        "UNKNOWN_CA": "a client that does not trust this node's certificate",
        "CERTIFICATE_UNKNOWN": "a client that does not trust this node's certificate",
        "WRONG_VERSION_NUMBER": "a client that speaks no TLS",
        "HTTP_REQUEST": "a client that speaks plain HTTP",
    }
    upper = line.upper()
    cause = next((text for key, text in causes.items() if key in upper), "a client's TLS handshake failed")
    return f"{cause} ({line.strip()[-300:]})"


def serve(home: Home, log: Log, ready_file: Path | None, kinds: Mapping[str, JobKind] | None = None) -> None:
    """Run the node until SIGTERM or SIGINT. Raises NodeError if it can't start."""
    from parties import workers
    from parties.engine import Engine
    from parties.operator import Operator
    from parties.store import Store
    from parties.transport.server import Server

    if home.settings.engine == workers.RAY:
        # Before the signals: Ray's own reaction to SIGTERM would end the process at once.
        log("node.engine", "starting Ray", level="info")
        workers.start_ray(home.settings.workers, home.settings.ray_address)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        stack.callback(workers.stop_ray)
        stack.enter_context(home.lock())
        store = Store(home.path / "node.db")
        stack.callback(store.close)
        center = stack.enter_context(home.center())
        engine = Engine(home, store, center, log, kinds)
        operator = Operator(home, store, engine, center, log)
        server = Server(home, engine, operator, log)
        operator.address = server.address
        stack.callback(server.stop, 2.0)
        stack.callback(engine.stop)
        run = {"party": home.party, "pid": os.getpid(), "address": server.address, "port": server.port}
        if home.settings.consent_listen:
            run["consent_url"] = operator.consent_url = stack.enter_context(_consent_rest(home, center))
        engine.start()
        server.start()
        write_json(home.path / "node.run.json", run)
        stack.callback((home.path / "node.run.json").unlink, missing_ok=True)
        if ready_file is not None:
            write_json(ready_file, run)
        log("node.started", f"{home.party} listens at {server.address}", level="info")
        while not stop.wait(1.0):
            pass
        log("node.stopping", "stopping", level="info")


@contextlib.contextmanager
def _consent_rest(home: Home, center: Any) -> Iterator[str]:
    """The consent center's REST in a thread of this process; yields its URL."""
    from consent_center.rest import server as rest
    from parties.identity import parse_address

    if "://" in home.settings.consent:
        raise NodeError(
            "node.config", "node.toml: consent_listen serves an embedded center, consent is a URL"
        )
    host, port = parse_address(home.settings.consent_listen)
    if host not in rest.LOOPBACK:
        raise NodeError("node.config", f"node.toml: consent_listen must be on 127.0.0.1, not {host!r}")
    try:
        running = rest.start(home.path / home.settings.consent, port, center)
    except ConsentError as error:
        raise NodeError("node.port", f"the consent center's REST: {error}", "choose another port") from error
    with running:
        yield running.address.url


def main(argv: list[str] | None = None, kinds: Mapping[str, JobKind] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m parties.node", description="Run a party node.")
    parser.add_argument("--home", required=True, type=Path, help="the node's directory")
    parser.add_argument("--ready-file", type=Path, help="written with address and process id once it listens")
    parser.add_argument("--engine", choices=("local", "ray"), help="in the place of node.toml's")
    arguments = parser.parse_args(argv)
    try:
        home = Home.open(arguments.home)
        if arguments.engine:
            home.settings = replace(home.settings, engine=arguments.engine)
        original = os.dup(2)
        log = Log(home.path / "log" / "node.log", os.fdopen(os.dup(original), "w"))
    except (NodeError, OSError) as error:
        what = f"{error.code}: {error.detail}" if isinstance(error, NodeError) else str(error)
        print(f"error: {what}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(f"hint: {hint}", file=sys.stderr)
        return 2
    filter_native_log(log, original)
    packs.enable_for_small()
    compiling.watch()
    try:
        serve(home, log, arguments.ready_file, kinds)
    except NodeError as error:
        log(error.code, f"can't start: {error.detail}. {error.hint}".strip(), level="error")
        os.write(original, f"error: {error.code}: {error.detail}\nhint: {error.hint}\n".encode())
        return 2
    except Exception as error:
        log("node.internal", f"{type(error).__name__}: {error}", level="error", trace=error)
        return 1
    finally:
        os.dup2(original, 2)
        log.close()
    return 0


if __name__ == "__main__":
    # Before grpc is imported: its handshake errors are what the log's transport.handshake is made of.
    os.environ.setdefault("GRPC_VERBOSITY", "INFO")
    gc.set_threshold(50_000, 20, 20)  # what modules make on loading is no garbage: looking for it takes time
    no_pandas.settle()
    sys.exit(main())
