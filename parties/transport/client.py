"""Calls to another node (or the operator's to its own): channels, and precise causes of failed connections.

gRPC says "failed to connect to all addresses" for a dozen causes. When a call fails to connect, `diagnose`
goes the same way again with plain sockets and says which step fails: name, port, certificate, or being
refused.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from parties import identity
from parties.errors import CODES, NodeError, RemoteError, is_code
from parties.identity import Identity
from parties.transport import node_pb2, node_pb2_grpc
from parties.transport.server import ERROR_KEY, KEEPALIVE, LIMITS

#: Seconds that a call without data may take.
CALL_SECONDS = 30.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class Connection:
    """A channel to the node at `address` whose certificate must be exactly `certificate`. Connects when
    used.
    """

    def __init__(
        self, keys: Identity, party: str, address: str, certificate: bytes, server_name: str
    ) -> None:
        self.party, self.address = party, address
        self._keys, self._certificate = keys, certificate
        credentials = grpc.ssl_channel_credentials(certificate, keys.certificate_key, keys.certificate)
        options = (
            *LIMITS,
            *KEEPALIVE,
            ("grpc.ssl_target_name_override", server_name),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        )
        self._channel = grpc.secure_channel(address, credentials, options=options)
        self.peer = node_pb2_grpc.PeerStub(self._channel)  # type: ignore[no-untyped-call]
        self.operator = node_pb2_grpc.OperatorStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: Any, request: Any, timeout: float = CALL_SECONDS) -> Any:
        """A unary call; raises RemoteError (what the other side said) or NodeError `transport.*`."""
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self.translate(error) from error

    def stream(self, method: Any, request: Any, timeout: float | None = None) -> Iterator[Any]:
        """A call that answers with a stream; errors as `call`."""
        call = method(request, timeout=timeout)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self.translate(error) from error
        finally:
            call.cancel()

    def session(self, frames: Iterator[node_pb2.Frame]) -> Any:
        """The bidirectional stream of a job; the caller iterates it and cancels it."""
        return self.peer.Session(frames)

    def translate(self, error: Exception) -> NodeError:
        """Our name for a gRPC error: what the other side said, or the cause that `diagnose` finds."""
        if not isinstance(error, grpc.RpcError):
            return NodeError("transport.lost", f"{self.party}: {type(error).__name__}: {error}")
        said = remote_error(error)
        if said is not None:
            return said
        status = error.code() if callable(getattr(error, "code", None)) else None
        text = str(error.details() if callable(getattr(error, "details", None)) else error)
        if status == grpc.StatusCode.UNAVAILABLE:
            return self._cause() or self._lost(text)
        if status == grpc.StatusCode.DEADLINE_EXCEEDED:
            return NodeError(
                "transport.silent",
                f"{self.party} at {self.address} did not answer in time",
                "does its node hang?",
            )
        if status == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return NodeError("transport.too_large", f"{self.party}: {text[:300]}")
        if status == grpc.StatusCode.UNIMPLEMENTED:
            return NodeError(
                "transport.version",
                f"the node of {self.party} at {self.address} is older and doesn't know this call",
                "ask them to update it",
            )
        name = status.name if status is not None else "unknown"
        return NodeError("transport.lost", f"{self.party} at {self.address}: {name}: {text[:300]}")

    def translate_stream(self, error: Exception) -> NodeError:
        """As `translate`, for a stream that was under way: what broke is the connection, not the set-up."""
        if isinstance(error, grpc.RpcError) and remote_error(error) is None:
            status = error.code() if callable(getattr(error, "code", None)) else None
            if status == grpc.StatusCode.UNAVAILABLE:
                return self._lost(str(error.details()))
        return self.translate(error)

    def _lost(self, text: str) -> NodeError:
        return NodeError(
            "transport.lost", f"the connection to {self.party} at {self.address} broke: {text[:300]}"
        )

    def _cause(self) -> NodeError | None:
        cause = diagnose(self._keys, self.address, self._certificate, self.party)
        if cause is not None and cause.code == "transport.refused":
            # A node that is just ending looks the same for a moment: ask again before blaming a certificate.
            time.sleep(0.3)
            cause = diagnose(self._keys, self.address, self._certificate, self.party)
        return cause


def remote_error(error: grpc.RpcError) -> RemoteError | None:
    """What the other side wrote into the trailing metadata, if anything."""
    trailing = error.trailing_metadata() if callable(getattr(error, "trailing_metadata", None)) else None
    for key, value in trailing or ():
        if key != ERROR_KEY:
            continue
        try:
            body = json.loads(value)
        except ValueError:
            return None
        if isinstance(body, dict) and is_code(body.get("code")):
            return RemoteError(body["code"], str(body.get("detail", "")), str(body.get("hint", "")))
    return None


def diagnose(
    keys: Identity, address: str, certificate: bytes, party: str, seconds: float = 3.0
) -> NodeError | None:
    """Which step of connecting to `address` fails, or None if none does now."""
    host, port = identity.parse_address(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return NodeError(
            "transport.name",
            f"{host!r} of {party} can't be resolved: {error.strerror}",
            "check the card's address",
        )
    try:
        plain = socket.create_connection((host, port), timeout=seconds)
    except OSError as error:
        why = error.strerror or "no answer in time"
        return NodeError(
            "transport.unreachable",
            f"nothing answers for {party} at {address}: {why}",
            "is the peer's node running, and does a firewall let this through?",
        )
    with plain:
        return _diagnose_tls(plain, keys, certificate, f"{party} at {address}")


def _diagnose_tls(plain: socket.socket, keys: Identity, certificate: bytes, where: str) -> NodeError | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only looks at what is shown; nothing is sent or believed
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:
        # ssl loads a key pair from files only; the directory is private (0700) and gone at once.
        pair = Path(folder) / "pair.pem"
        identity.write_private(pair, keys.certificate_key + keys.certificate)
        context.load_cert_chain(pair)
    trusted = identity.fingerprint_of(certificate)
    try:
        with context.wrap_socket(plain) as tls:
            shown = tls.getpeercert(binary_form=True) or b""
            presented = hashlib.sha256(shown).hexdigest()
            if presented != trusted:
                return NodeError(
                    "transport.certificate",
                    f"{where} shows certificate sha256 {presented}, trusted is {trusted}",
                    "another program at this address, or a new key: ask for a new card by a way you trust",
                )
            # With TLS 1.3 a server's refusal of our certificate comes after the handshake, as an alert.
            # Some servers close without one.
            tls.sendall(_HTTP2_PREFACE)
            if tls.recv(1) == b"":
                return _refused(where, "it closed the connection after the handshake")
            return None
    except ssl.SSLError as error:
        reason = str(error.reason or error).lower().replace("_", " ")
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            return _refused(where, reason)
        return NodeError("transport.tls", f"{where}: {reason}", "does a PEC node listen there?")
    except ConnectionResetError:
        return _refused(where, "the connection was reset after the handshake")
    except TimeoutError:
        return NodeError(
            "transport.silent", f"{where} accepts connections and then says nothing", "it may hang"
        )
    except OSError as error:
        return NodeError("transport.tls", f"{where}: {error}")


def _refused(where: str, why: str) -> NodeError:
    return NodeError(
        "transport.refused",
        f"{where} does not accept this node's certificate ({why})",
        "the peer must trust this node's card: pec node trust CARD, on its side",
    )


def meaning(code: str) -> str:
    """What a code says without anybody's data."""
    return CODES.get(code, "")
