"""One bidirectional gRPC stream with mutual TLS on loopback, carrying a protocol's messages as they are."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc

from parties.errors import NodeError

T = TypeVar("T")

_SERVICE, _METHOD = "pec.evaluation.v1.Align", "Run"
_OPTIONS = (
    ("grpc.max_send_message_length", 4 << 20),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 25),
    ("grpc.min_reconnect_backoff_ms", 25),
    ("grpc.max_reconnect_backoff_ms", 50),
    ("grpc.use_local_subchannel_pool", 1),
)
#: Seconds to wait for the other process, and for its next message.
CONNECT_SECONDS, SILENT_SECONDS = 60.0, 600.0

#: Messages that wait to be sent; more would only take memory.
_WAITING = 4
_END = None


class Line:
    """Send and receive byte strings in order; counts both. `transport.*` when the other side is gone."""

    def __init__(self, incoming: Callable[[], bytes], outgoing: queue.Queue[bytes | None]) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.bytes_sent = self.bytes_received = 0

    def send(self, message: bytes) -> None:
        self.bytes_sent += len(message)
        self._outgoing.put(message, timeout=SILENT_SECONDS)

    def receive(self) -> bytes:
        message = self._incoming()
        self.bytes_received += len(message)
        return message


def _files(folder: Path, own: str, peer: str) -> tuple[bytes, bytes, bytes]:
    """This side's key and certificate, and the one certificate that the peer must show."""
    own_key, own_certificate = (
        (folder / own / "tls.key").read_bytes(),
        (folder / own / "tls.crt").read_bytes(),
    )
    return own_key, own_certificate, (folder / peer / "tls.crt").read_bytes()


def _messages(outgoing: queue.Queue[bytes | None]) -> Iterator[bytes]:
    while (message := outgoing.get()) is not _END:
        yield message


def _next(messages: Iterator[bytes]) -> bytes:
    try:
        return next(messages)
    except StopIteration:
        raise NodeError(
            "transport.lost", "the other party ended before the protocol did; see its error"
        ) from None
    except grpc.RpcError as error:
        raise NodeError("transport.lost", f"the line to the other party broke: {error}") from error


def connect(folder: Path, port: int, run: Callable[[Line], T]) -> T:
    """The receiver's side: call the sender on this port and `run` over the line."""
    key, certificate, peer = _files(folder, "receiver", "sender")
    credentials = grpc.ssl_channel_credentials(peer, key, certificate)
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", "127.0.0.1"))
    outgoing: queue.Queue[bytes | None] = queue.Queue(_WAITING)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        call = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")(
            _messages(outgoing), wait_for_ready=True, timeout=CONNECT_SECONDS + SILENT_SECONDS
        )
        try:
            result = run(Line(lambda: _next(call), outgoing))
            outgoing.put(_END)
            for _ in call:  # the sender's good-bye: nothing but the end
                raise NodeError("transport.malformed", "a message after the protocol's end")
        except BaseException:
            call.cancel()
            raise
    return result


def serve(folder: Path, port: int, run: Callable[[Line], T]) -> T:
    """The sender's side: take one call on this port and `run` over the line."""
    from concurrent.futures import ThreadPoolExecutor

    key, certificate, peer = _files(folder, "sender", "receiver")
    calls: queue.Queue[tuple[Any, queue.Queue[bytes | None]]] = queue.Queue(1)
    ended = threading.Event()

    def handle(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        outgoing: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        calls.put_nowait((requests, outgoing))
        yield from _messages(outgoing)
        ended.set()

    handler = grpc.stream_stream_rpc_method_handler(handle)
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, options=(*_OPTIONS, ("grpc.so_reuseport", 0)), maximum_concurrent_rpcs=1)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
        credentials = grpc.ssl_server_credentials([(key, certificate)], peer, require_client_auth=True)
        try:
            server.add_secure_port(f"127.0.0.1:{port}", credentials)
        except RuntimeError as error:
            raise NodeError("node.port", f"port {port} can't be opened; is it in use?") from error
        server.start()
        outgoing: queue.Queue[bytes | None] | None = None
        try:
            requests, outgoing = calls.get(timeout=CONNECT_SECONDS)
            result = run(Line(lambda: _next(requests), outgoing))
            outgoing.put(_END)
            ended.wait(CONNECT_SECONDS)
        except queue.Empty:
            raise NodeError(
                "transport.silent", f"no receiver called within {CONNECT_SECONDS:.0f} s"
            ) from None
        finally:
            if outgoing is not None:
                outgoing.put(_END)
            server.stop(0.2 if ended.is_set() else 0).wait()
    return result
