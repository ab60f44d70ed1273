"""Serves a center's REST interface: in a thread of the node's process, or as a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from consent_center.center import Center
from consent_center.client import CenterClient, open_center
from consent_center.errors import ConsentError
from consent_center.outbox.dispatch import Dispatcher
from consent_center.rest.app import create_app
from consent_center.rest.token import ensure_token

LOOPBACK = ("127.0.0.1", "localhost")


class _Quiet(WSGIRequestHandler):
    """No access log on standard error: it would mix with the node's, and nobody asked for it."""

    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds that a silent client may hold a thread

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        return None


@dataclass(frozen=True)
class Address:
    """Where a server answers; `token_file` is what its clients need."""

    url: str
    token_file: Path

    @property
    def location(self) -> str:
        """What `open_center` takes: the URL, with the path of the token file behind `#` (never sent)."""
        return f"{self.url}#{self.token_file}"


class Running:
    """A server in a thread. `close` stops it and waits for it; the center is closed if it was opened here."""

    def __init__(self, home: Path, server: BaseWSGIServer, owned: CenterClient | None) -> None:
        self.address = Address(f"http://127.0.0.1:{server.server_port}", home.resolve() / "rest.token")
        self._server, self._owned = server, owned
        self._thread = threading.Thread(target=server.serve_forever, name="consent-rest", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(timeout=10)
        self._server.server_close()
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(home: Path, center: CenterClient, host: str, port: int) -> BaseWSGIServer:
    if host not in LOOPBACK:
        raise ConsentError(
            "center.location",
            f"the service binds 127.0.0.1 only, not {host!r}: put a TLS proxy in front of it",
        )
    app = create_app(center, ensure_token(home), home)
    try:
        return make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
    except (OSError, SystemExit) as error:  # werkzeug exits where the port is taken
        raise ConsentError("center.location", f"port {port} of 127.0.0.1 is taken: choose another") from error


def start(center_home: str | Path, port: int = 0, center: CenterClient | None = None) -> Running:
    """Serves in a thread and returns at once; port 0 takes a free one. `center`: one that is open already."""
    home = Path(center_home)
    opened = open_center(home) if center is None else center
    try:
        return Running(home, _make(home, opened, "127.0.0.1", port), opened if center is None else None)
    except BaseException:
        if center is None:
            opened.close()
        raise


def serve(
    center_home: str | Path,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[Address], None] | None = None,
) -> None:
    """Serves until the process is interrupted; `ready` is called once, when the port is open."""
    home = Path(center_home)
    with open_center(home) as center:
        server = _make(home, center, host, port)
        dispatcher = Dispatcher(center.outbox) if isinstance(center, Center) else None
        try:
            if ready is not None:
                ready(Address(f"http://127.0.0.1:{server.server_port}", home.resolve() / "rest.token"))
            server.serve_forever()
        finally:
            server.server_close()
            if dispatcher is not None:
                dispatcher.close()
