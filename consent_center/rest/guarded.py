"""uvicorn's HTTP protocol with limits on what a client may send without saying anything.

uvicorn bounds neither the head of a request nor the time that it may take. Here: `HEAD_SECONDS` for a head,
counted from the connection's start or the head's first byte, and for the rest of a body that was answered
already, or whatever else comes between two calls (it ends uvicorn's own clock); `HEAD_BYTES` and `HEAD_LINES`
for a head and for trailers. Who goes over is answered 408 or 431 and the connection is closed.

It also tells the application three things that ASGI has no words for, in the scope: `WHOLE`, that the body is
here (no clock is needed for it), `ANSWER`, which writes a whole answer at once, and `CUT`, which ends the
connection in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import http
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS, HEAD_BYTES, HEAD_LINES = 30, 65_536, 100
WHOLE, ANSWER, CUT = "pec.whole", "pec.answer", "pec.cut"


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unheard: asyncio.TimerHandle | None = None
        self._idle = True  # no head has begun
        self._in_head = True
        self._advanced = False  # since the last look
        self._silent = 0  # bytes since then that told nothing: of a head, of trailers
        self._lines = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unheard = self.loop.call_later(HEAD_SECONDS, self._refuse, 408)

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._advanced = False
        super().data_received(data)
        self._silent = 0 if self._advanced else self._silent + len(data)
        if self._silent > HEAD_BYTES:
            self._refuse(431)
        elif self._unheard is None and not self.transport.is_closing() and self._unclocked():
            self._unheard = self.loop.call_later(HEAD_SECONDS, self._refuse, 408)

    def _unclocked(self) -> bool:
        """Whether nothing but this protocol would end the connection if no more bytes came."""
        if self._in_head and not self._idle:
            return True
        # Before an answer it is the application's clock or turn; after it uvicorn's, which any byte ends.
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self.timeout_keep_alive_task is None

    def on_message_begin(self) -> None:
        self._idle, self._in_head, self._lines = False, True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines += 1
        if self._lines > HEAD_LINES:
            raise ValueError(f"more than {HEAD_LINES} lines in a head")  # answered 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._heard()
        self._in_head, self._advanced = False, True
        super().on_headers_complete()
        scope: Any = self.scope
        scope[ANSWER] = partial(_answer, self.cycle)
        scope[CUT] = self.transport.abort

    def on_chunk_header(self) -> None:
        self._advanced = True

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._heard()
        self._advanced = self._idle = self._in_head = True
        super().on_message_complete()
        scope: Any = self.scope
        scope[WHOLE] = True

    def _heard(self) -> None:
        if self._unheard is not None:
            self._unheard.cancel()
            self._unheard = None

    def _refuse(self, status: int) -> None:
        self._unheard = None
        if self.transport.is_closing():
            return
        text = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\nconnection: close\r\ncontent-length: 0"
        if self.cycle is None or self.cycle.response_complete:  # else it would cut into an answer
            self.transport.write(text.encode() + b"\r\n\r\n")
        self.transport.close()


def _answer(cycle: RequestResponseCycle, status: int, head: bytes, body: bytes) -> bool:
    """Write an answer, `head` as lines; False if the client does not read, and must be waited for.

    What two `send` do, without their checks of each line: `head` is made of constants.
    """
    if cycle.flow.write_paused:
        return False
    if cycle.disconnected:
        return True
    lines = [STATUS_LINE[status]]
    for name, value in cycle.default_headers:
        lines += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((*lines, head, b"\r\n", body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
