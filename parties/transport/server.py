"""The gRPC server of a node: one port, mutual TLS, two services.

The certificate is the caller: the node's own opens the operator's service and nothing else, a trusted peer's
opens the peer service and nothing else. Trusted certificates are read at every handshake, so a peer that is
trusted while the node runs can connect at once.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Protocol

import grpc

from parties import identity
from parties.errors import NodeError
from parties.home import Home
from parties.identity import Peer
from parties.transport import node_pb2, node_pb2_grpc
from parties.transport.frames import MAX_FRAME

#: Requests at a time; sessions and watches occupy one each for as long as they last.
WORKERS = 48
#: A session's stream must show its first frame within so many seconds, or it gives its place back.
FIRST_FRAME_SECONDS = 10.0
#: Streams that one peer may have beyond `max_jobs`; idle ones would else take every worker from the operator.
SPARE_SESSIONS = 4
#: A vanished peer is noticed after ping + timeout even if its machine never says goodbye.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 4000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 4000),
)
LIMITS = (("grpc.max_send_message_length", MAX_FRAME), ("grpc.max_receive_message_length", MAX_FRAME))

#: The one table from an error code's area (or the whole code) to a gRPC status.
STATUS: dict[str, grpc.StatusCode] = {
    "transport.role": grpc.StatusCode.PERMISSION_DENIED,
    "identity": grpc.StatusCode.PERMISSION_DENIED,
    "job.unknown": grpc.StatusCode.NOT_FOUND,
    "dataset.unknown": grpc.StatusCode.NOT_FOUND,
    "agreement.unknown": grpc.StatusCode.NOT_FOUND,
    "document": grpc.StatusCode.INVALID_ARGUMENT,
    "node.request": grpc.StatusCode.INVALID_ARGUMENT,
    "node.internal": grpc.StatusCode.INTERNAL,
    "consent.unavailable": grpc.StatusCode.UNAVAILABLE,
}
ERROR_KEY = "pec-error-bin"


class PeerCalls(Protocol):
    """What the engine does for a peer."""

    def hello(self, peer: Peer, request: node_pb2.HelloRequest) -> node_pb2.HelloReply: ...
    def propose(self, peer: Peer, request: node_pb2.ProposeRequest) -> node_pb2.JobReply: ...
    def get_job(self, peer: Peer, request: node_pb2.JobRequest) -> node_pb2.JobReply: ...
    def cancel_by_peer(self, peer: Peer, request: node_pb2.JobRequest) -> node_pb2.JobReply: ...
    def end_by_peer(self, peer: Peer, request: node_pb2.EndRequest) -> node_pb2.EndReply: ...
    def catalogue(self, peer: Peer, request: node_pb2.CatalogueRequest) -> node_pb2.CatalogueReply: ...
    def session(
        self, peer: Peer, first: node_pb2.Frame, rest: Iterator[node_pb2.Frame], ended: Callable[[Any], None]
    ) -> Iterator[node_pb2.Frame]: ...


class OperatorCalls(Protocol):
    """What the node does for its own operator."""

    def call(self, method: str, body: dict[str, Any]) -> Any: ...
    def watch(self, body: dict[str, Any], alive: Callable[[], bool]) -> Iterator[dict[str, Any]]: ...


Log = Callable[..., None]


def error_bytes(error: Any) -> bytes:
    """An error as JSON, for the trailing metadata; any of our exceptions with `code` and `detail`."""
    code = getattr(error, "code", None)
    body = {
        "code": code if isinstance(code, str) else "node.internal",
        "detail": str(getattr(error, "detail", "") or type(error).__name__)[:3000],
        "hint": str(getattr(error, "hint", ""))[:1000],
    }
    return json.dumps(body).encode()


def _abort(context: grpc.ServicerContext, error: Exception, log: Log, method: str) -> NoReturn:
    code = getattr(error, "code", None)
    if not isinstance(code, str):
        log("node.internal", f"{method}: {type(error).__name__}: {error}", level="error", trace=error)
        error = NodeError(
            "node.internal", f"{type(error).__name__} in {method}; the node's log has the trace"
        )
        code = error.code
    area = code.split(".")[0]
    status = STATUS.get(code) or STATUS.get(area) or grpc.StatusCode.FAILED_PRECONDITION
    context.set_trailing_metadata(((ERROR_KEY, error_bytes(error)),))
    context.abort(status, code)
    raise error  # abort has raised already; this tells readers and type checkers so


class Callers:
    """Who is calling: the certificate of the connection, compared with the trusted ones."""

    def __init__(self, home: Home, log: Log) -> None:
        self._home, self._log = home, log
        self._own = home.identity.fingerprint
        self.max_jobs = home.settings.max_jobs

    def _fingerprint(self, context: grpc.ServicerContext) -> str:
        certificates = context.auth_context().get("x509_pem_cert", [])
        if not certificates:
            raise NodeError("transport.role", "the connection has no client certificate")
        return identity.fingerprint_of(certificates[0])

    def peer(self, context: grpc.ServicerContext) -> Peer:
        presented = self._fingerprint(context)
        for known in self._home.peers():
            if known.fingerprint == presented:
                return known
        # A node must not be made to play a peer of itself, and a peer that was removed has no more access.
        raise NodeError(
            "transport.role", f"certificate {presented[:16]}… is no peer's", "trust the peer's card"
        )

    def operator(self, context: grpc.ServicerContext) -> None:
        presented = self._fingerprint(context)
        if presented != self._own:
            self._log(
                "transport.role", f"certificate {presented[:16]}… called the operator's service", level="warn"
            )
            raise NodeError("transport.role", "only the node's own certificate may give orders")


class PeerServicer(node_pb2_grpc.PeerServicer):
    def __init__(self, calls: PeerCalls, callers: Callers, log: Log) -> None:
        self._calls, self._callers, self._log = calls, callers, log
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def _place(self, party: str) -> Iterator[None]:
        most = self._callers.max_jobs + SPARE_SESSIONS
        with self._lock:
            if self._open[party] >= most:
                raise NodeError("job.busy", f"{party} has {most} streams open already", "end some first")
            self._open[party] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[party] -= 1

    def _do(
        self, name: str, call: Callable[[Peer, Any], Any], request: Any, context: grpc.ServicerContext
    ) -> Any:
        try:
            return call(self._callers.peer(context), request)
        except Exception as error:
            _abort(context, error, self._log, name)

    def Hello(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._do("Hello", self._calls.hello, request, context)

    def Propose(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._do("Propose", self._calls.propose, request, context)

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._do("GetJob", self._calls.get_job, request, context)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._do("Cancel", self._calls.cancel_by_peer, request, context)

    def End(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._do("End", self._calls.end_by_peer, request, context)

    def Catalogue(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._do("Catalogue", self._calls.catalogue, request, context)

    def Session(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            peer = self._callers.peer(context)
            with self._place(peer.party):
                yield from self._session(peer, request_iterator, context)
        except Exception as error:
            _abort(context, error, self._log, "Session")

    def _session(
        self, peer: Peer, request_iterator: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        # A peer that opens streams and says nothing would hold a worker each for ever.
        timer = threading.Timer(FIRST_FRAME_SECONDS, context.cancel)
        timer.start()
        try:
            first = next(request_iterator, None)
        except grpc.RpcError as error:
            raise NodeError("transport.silent", "the stream's first frame did not come") from error
        finally:
            timer.cancel()
        if first is None:
            raise NodeError("transport.truncated", "the stream ended before its first frame")

        def ended(callback: Any) -> None:
            if not context.add_callback(callback):
                callback()

        def rest() -> Iterator[Any]:
            yield from request_iterator
            # gRPC ends the iterator as if the peer had closed it when the connection is gone, and says so a
            # moment later.
            for _ in range(25):  # looks, and not a time: on a machine that stands still none would be taken
                if not context.is_active():
                    break
                time.sleep(0.02)
            if not context.is_active():
                raise NodeError("transport.lost", f"the connection to {peer.party} broke")

        yield from self._calls.session(peer, first, rest(), ended)


class OperatorServicer(node_pb2_grpc.OperatorServicer):
    def __init__(self, calls: OperatorCalls, callers: Callers, log: Log) -> None:
        self._calls, self._callers, self._log = calls, callers, log

    def Call(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            self._callers.operator(context)
            result = self._calls.call(request.method, _body(request.body))
            return node_pb2.OperatorReply(body=json.dumps(result).encode())
        except Exception as error:
            _abort(context, error, self._log, request.method[:40])

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            self._callers.operator(context)
            for value in self._calls.watch(_body(request.body), context.is_active):
                yield node_pb2.OperatorReply(body=json.dumps(value).encode())
        except Exception as error:
            _abort(context, error, self._log, "watch")


def _body(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw or b"{}")
    except ValueError as error:
        raise NodeError("node.request", f"the request is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise NodeError("node.request", "the request is no JSON object")
    return value


class Server:
    """The running server; `port` is the actual one."""

    def __init__(self, home: Home, peers: PeerCalls, operator: OperatorCalls, log: Log) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._known: bytes = b""
        callers = Callers(home, log)
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="rpc")
        # so_reuseport off: a second node on the same port must fail and not share its calls.
        options = (*LIMITS, *KEEPALIVE, ("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", WORKERS))
        self._server = grpc.server(pool, options=options)
        node_pb2_grpc.add_PeerServicer_to_server(  # type: ignore[no-untyped-call]
            PeerServicer(peers, callers, log), self._server
        )
        node_pb2_grpc.add_OperatorServicer_to_server(  # type: ignore[no-untyped-call]
            OperatorServicer(operator, callers, log), self._server
        )
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._reload, require_client_authentication=True
        )
        try:
            self.port: int = self._server.add_secure_port(home.settings.listen, credentials)
        except RuntimeError as error:
            raise self._no_port() from error
        if self.port == 0:
            raise self._no_port()
        host, _ = identity.parse_address(home.settings.listen)
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _no_port(self) -> NodeError:
        return NodeError(
            "node.port",
            f"{self._home.settings.listen} can't be opened: it is taken, or no address of this machine",
            "choose another port in node.toml (listen), or stop the other program",
        )

    def _roots(self) -> bytes:
        return b"".join([self._home.identity.certificate, *(p.certificate for p in self._home.peers())])

    def _configuration(self) -> Any:
        keys = self._home.identity
        self._known = self._roots()
        pair = [(keys.certificate_key, keys.certificate)]
        return grpc.ssl_server_certificate_configuration(pair, root_certificates=self._known)

    def _reload(self) -> Any:
        with self._lock:
            return self._configuration() if self._roots() != self._known else None

    def start(self) -> None:
        self._server.start()

    def stop(self, grace: float) -> None:
        """No new calls; those under way get `grace` seconds."""
        self._server.stop(grace).wait(grace + 1)
