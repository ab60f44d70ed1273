"""The service under gunicorn: several processes, each with an event loop and threads, on one center.

Each worker opens the center after it was forked and follows what the others write: every decision begins with
the last sequence number in the database, and one that can't is refused (`stale`). On SIGTERM the workers
answer what they have taken, then end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pyarrow as pa
from flask import Flask
from gunicorn.app.base import BaseApplication
from uvicorn_worker import UvicornWorker

from consent_center.client import open_center
from consent_center.decide import candidates
from consent_center.errors import ConsentError
from consent_center.rest.app import HEADERS, create_app
from consent_center.rest.asgi import LoopFront
from consent_center.rest.context import CENTER
from consent_center.rest.guarded import GuardedProtocol
from consent_center.rest.server import LOOPBACK, Address
from consent_center.rest.token import ensure_token
from consent_center.state_file import KEEP_AFTER

#: Seconds: for a request that is running when the service is stopped; for a client that says nothing.
GRACE, KEEP_ALIVE = 20, 75
#: Of one worker; who comes when there are so many is answered 503.
CONNECTIONS = 1000


class LoopWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker with our limits; it trusts no header about the client (see `console.security`)."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "http": GuardedProtocol,
        "loop": "uvloop",
        "interface": "asgi3",
        "lifespan": "off",
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": GRACE,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config.limit_concurrency = self.cfg.worker_connections

    def init_signals(self) -> None:
        super().init_signals()
        # Raised again by uvicorn when all is answered: to end the ordinary way, not to be killed.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)

    def _install_sigquit_handler(self) -> None:
        # What gunicorn sends when it is interrupted. The library's own handler only notes it, and the worker
        # would be killed after GRACE.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, os.kill, os.getpid(), signal.SIGTERM)


def _end(_number: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


def make_app(home: Path) -> Flask:
    """A worker's application: its own center, ready to decide."""
    app = create_app(home, ensure_token(home))
    center = app.extensions[CENTER]
    center.keep_state(KEEP_AFTER)
    candidates(bytes(32), pa.array(["13800138000"]), "phone")  # loads the kernels before somebody waits
    return app


class Service(BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings; nothing is read from a configuration file or the environment."""

    def __init__(self, home: Path, handle: int, workers: int, threads: int, ready: Any) -> None:
        self._threads = threads
        self._home, self._settings = (
            home,
            {
                "bind": [f"fd://{handle}"],
                "workers": workers,
                "worker_class": LoopWorker,
                "worker_connections": CONNECTIONS,
                "keepalive": KEEP_ALIVE,
                "graceful_timeout": GRACE,
                "timeout": 300,  # a bulk decision of millions may take its time
                "loglevel": "warning",
                "control_socket_disable": True,
                "proc_name": "pec-consent",
                "when_ready": ready,
                "worker_exit": _close,
            },
        )
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            if name in self.cfg.settings:  # newer releases have more of them
                self.cfg.set(name, value)

    def load(self) -> LoopFront:
        return LoopFront(make_app(self._home), HEADERS, self._threads)


def _close(_server: Any, worker: Any) -> None:
    front = getattr(worker, "wsgi", None)
    if isinstance(front, LoopFront):
        front.close()


def serve(
    center_home: str | Path,
    host: str = "127.0.0.1",
    port: int = 0,
    workers: int = 1,
    threads: int = 16,
    ready: Callable[[Address], None] | None = None,
) -> None:
    """Serve until the process is told to stop; `ready` is called once, when requests are taken.

    `center.missing`, `center.version`, `center.keys`, `center.location`.
    """
    home = Path(center_home)
    if host not in LOOPBACK:
        raise ConsentError(
            "center.location",
            f"the service binds 127.0.0.1 only, not {host!r}: put a TLS proxy in front of it",
        )
    open_center(home).close()  # what is wrong with it is told here, not by a worker that dies
    ensure_token(home)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConsentError(
                "center.location", f"port {port} of 127.0.0.1 is taken: choose another"
            ) from error
        listener.listen(2048)
        address = Address(f"http://127.0.0.1:{listener.getsockname()[1]}", home.resolve() / "rest.token")
        handle = listener.detach()  # gunicorn closes it

    def started(_server: Any) -> None:
        if ready is not None:
            ready(address)

    Service(home, handle, workers, threads, started).run()
