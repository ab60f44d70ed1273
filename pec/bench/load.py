"""A light load generator: one thread, plain sockets, requests made beforehand.

It shares the cores that it measures. Each connection sends its next request when the answer to the last one
has come (a closed loop), and checks it.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pec.errors import PecError


@dataclass
class Connection:
    """One client: its requests, and the times of their answers in seconds."""

    sock: socket.socket
    requests: Iterator[bytes]
    expect: bytes
    sent: float = 0.0
    buffer: bytes = b""
    times: list[float] = field(default_factory=list)

    def send(self) -> bool:
        request = next(self.requests, None)
        if request is None:
            return False
        self.sent = time.perf_counter()
        self.sock.sendall(request)
        return True

    def receive(self) -> bool:
        """Read what is there; whether an answer is complete. PecError for one that says something else."""
        data = self.sock.recv(65_536)
        if not data:
            raise PecError("pec.check", "the service closed a connection")
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        at = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return False
        self.times.append(time.perf_counter() - self.sent)
        self.buffer = b""
        if not head.startswith(b"HTTP/1.1 2") or self.expect not in body:
            raise PecError("pec.check", f"an answer was {head[:40]!r} {body[:200]!r}")
        return True


def post(path: str, token: str, body: dict[str, Any]) -> bytes:
    """A request as bytes."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def drive(port: int, streams: list[Iterator[bytes]], expect: bytes, seconds: float) -> dict[str, float]:
    """One connection a stream, for so long; {count, seconds, cpu_seconds, p50_ms, p99_ms, worst_ms}."""
    selector = selectors.DefaultSelector()
    connections = []
    for stream in streams:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.append(Connection(sock, stream, expect))
        selector.register(sock, selectors.EVENT_READ, connections[-1])
    began, used = time.perf_counter(), time.process_time()
    busy = sum(connection.send() for connection in connections)
    while busy:
        for key, _ in selector.select(60):
            if key.data.receive() and (time.perf_counter() - began > seconds or not key.data.send()):
                busy -= 1
                selector.unregister(key.fileobj)
    lasted = time.perf_counter() - began
    times = sorted(t for connection in connections for t in connection.times)
    for connection in connections:
        connection.sock.close()
    return {
        "count": len(times),
        "seconds": lasted,
        "cpu_seconds": time.process_time() - used,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3,
        "worst_ms": times[-1] * 1e3,
    }


def main(plan: dict[str, Any]) -> dict[str, float]:
    """What `pec bench consent-api` runs in a process of its own."""
    clients, people, token = plan["clients"], plan["people"], plan["token"]
    if plan["what"] == "decisions":
        ready = [
            post("/v1/decisions", token, {**plan["body"], "values": [f"139{n:08d}"]}) for n in range(people)
        ]

        def stream(first: int) -> Iterator[bytes]:
            while True:
                yield from ready[first::clients]
    else:

        def stream(first: int) -> Iterator[bytes]:
            number = first
            while True:  # every event is of somebody new
                yield post("/v1/events", token, {**plan["body"], "phone": f"138{number:08d}"})
                number += clients

    streams = [stream(n) for n in range(clients)]
    return drive(plan["port"], streams, plan["expect"].encode(), plan["seconds"])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.stdin.read()))))
