"""The service in an event loop: the busiest calls are answered by it, all others by Flask in threads.

A busy call costs no thread: its question or event goes into the center's queue (`gather`), and its coroutine
goes on when the commit of all that waited is done. Its checks are those of `fast`; whatever they do not take,
and every error, goes to Flask, which judges and words it.

Small bodies, in chunks or whole, are read here before Flask is called: what a client leaves unsaid holds no
thread. Larger ones are read while Flask reads them, which it does only for who proved who they are (`app`
refuses others unread): each piece, and the body by its size, in bounded time. Answers are written so too: who
does not read is cut off, and what made the answer stops.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, overload

from a2wsgi import WSGIMiddleware
from flask import Flask
from werkzeug.exceptions import ClientDisconnected, RequestTimeout

from consent_center.center import Center
from consent_center.gather import Answer, Decided, Item, Tell
from consent_center.model import Recorded
from consent_center.preferences.model import Answer as Contacting
from consent_center.rest import fast, guarded
from consent_center.rest.context import CENTER, TOKEN
from consent_center.rest.limits import LARGER, SMALL

#: Seconds for a small body as a whole, and for each piece of a larger one; and for answers.
BODY_SECONDS, PIECE_SECONDS = 30, 60
#: Bytes a second that a larger body or answer must come or go with on average, beyond BODY_SECONDS.
LEAST_RATE = 65_536
#: Bytes of a busy call that are read here for whoever only says that they bear a token.
_UNPROVEN = 8_192

_WRITING = "pec.writing"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Future = asyncio.Future[Answer | Exception]


class Landing:
    """Brings answers from the thread that commits to the loop: many in one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: deque[tuple[Future, Answer | Exception]] = deque()

    def teller(self, future: Future) -> Tell:
        """What to give to `Center.soon`."""

        def tell(answer: Answer | Exception) -> None:
            self._arrived.append((future, answer))
            if len(self._arrived) == 1:
                try:
                    self._loop.call_soon_threadsafe(self._land)
                except RuntimeError:  # the loop was closed: nobody waits any more
                    self._arrived.clear()

        return tell

    def _land(self) -> None:
        # The wake-up of one that arrives now is not lost: it finds the queue empty, or is taken here.
        while self._arrived:
            future, answer = self._arrived.popleft()
            if not future.done():  # a caller that was cancelled
                future.set_result(answer)


class Writing:
    """An answer being written to a client, who has bounded time to read each part and all of it.

    Only waiting counts, not what Flask does in between. `over`: the client was cut off; what is still told
    goes nowhere, at once, so that no thread waits to tell it.
    """

    def __init__(self, send: Send, cut: Callable[[], None] | None) -> None:
        self._send, self._cut = send, cut
        self._sent, self._waited = 0, 0.0
        self.over = False

    async def __call__(self, message: Message) -> None:
        if self.over:
            return
        loop = asyncio.get_running_loop()
        since = loop.time()
        left = BODY_SECONDS + self._sent / LEAST_RATE - self._waited
        try:
            async with asyncio.timeout(min(PIECE_SECONDS, left)):
                await self._send(message)
        except TimeoutError:
            self.over = True
            if self._cut is not None:
                self._cut()
            return
        self._waited += loop.time() - since
        self._sent += len(message.get("body", b""))


class LoopFront:
    """An ASGI application around Flask's. `threads`: for everything but the busiest calls."""

    def __init__(self, app: Flask, headers: Mapping[str, str], threads: int) -> None:
        self.flask = app
        self._others = WSGIMiddleware(_prepared(app), workers=threads)
        held = app.extensions[CENTER]
        self._center = held if isinstance(held, Center) else None
        self._token = app.extensions[TOKEN]
        self._head = [(b"content-type", b"application/json")]
        self._head += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._lines = b"".join(b"%s: %s\r\n" % pair for pair in self._head)
        self._landing: Landing | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        size = self._quick(scope)
        if size is None:
            await self._slow(scope, receive, send)
            return
        body = await _whole(receive, size, guarded.WHOLE in scope)
        if not isinstance(body, bytes):
            await self._flask(scope, _failing(body), send)
            return
        try:
            answer = await self._served(scope, body)
        except Exception as error:  # worded by Flask; it must not be tried again
            scope = {**scope, fast.FAILED: error}
            answer = None
        if answer is None:
            await self._flask(scope, _told(body), send)
            return
        data, status = answer
        text = fast.text_of(data)
        size_line = b"content-length: %d\r\n" % len(text)
        if guarded.ANSWER in scope and scope[guarded.ANSWER](status, self._lines + size_line, text):
            return
        head = [*self._head, (b"content-length", b"%d" % len(text))]
        send = Writing(send, scope.get(guarded.CUT))
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": text})

    def _quick(self, scope: Message) -> int | None:
        """The size of the body of a call that is answered here, None for any other."""
        endpoint = fast.PATHS.get(scope["path"])
        if endpoint is None or scope["method"] != "POST" or scope["query_string"] or self._center is None:
            return None
        pairs = scope["headers"]
        headers = dict(pairs)
        size = headers.get(b"content-length", b"")
        if (
            len(headers) != len(pairs)
            or headers.get(b"content-type") != b"application/json"
            or b"transfer-encoding" in headers
            or not (size.isdigit() and len(size) < 6)
        ):
            return None
        authorization = _authorization(scope)
        if fast.permitted(endpoint, authorization, self._token):
            return int(size)
        # Nobody is known yet: no more is read and parsed for them here than costs nothing.
        return int(size) if int(size) <= _UNPROVEN and fast.bears(authorization) else None

    async def _served(self, scope: Message, body: bytes) -> fast.Answered | None:
        try:
            data = fast.load(body)
        except (ValueError, RecursionError):
            return None
        endpoint, authorization = fast.PATHS[scope["path"]], _authorization(scope)
        item: Item | None
        if fast.bears(authorization):
            item = fast.borne(endpoint, authorization, data)
        else:
            item = fast.WAYS[endpoint](data, str)
        if item is None:
            return None
        answer = await self._ask(item)
        if not isinstance(answer, Recorded | Decided | Contacting):
            raise answer
        return fast.told(answer)

    async def _ask(self, item: Item) -> Answer | Exception:
        loop = asyncio.get_running_loop()
        if self._landing is None:
            self._landing = Landing(loop)
        future: Future = loop.create_future()
        if self._center is None:
            raise TypeError("this center is not in this process")
        self._center.soon(item, self._landing.teller(future))
        return await future

    async def _slow(self, scope: Message, receive: Receive, send: Send) -> None:
        sizes = [value for name, value in scope["headers"] if name == b"content-length"]
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        size = int(sizes[0]) if not chunked and len(sizes) == 1 and sizes[0].isdigit() else None
        if size is not None and size > SMALL:
            await self._flask(scope, _patient(receive, b""), send)
            return
        body = await _whole(receive, size, guarded.WHOLE in scope)
        if isinstance(body, _Begun):
            await self._flask({**scope, LARGER: True}, _patient(receive, body.start), send)
            return
        if isinstance(body, Exception):
            await self._flask(scope, _failing(body), send)
        else:
            await self._flask({**scope, LARGER: len(body) > SMALL}, _told(body), send)

    async def _flask(self, scope: Message, receive: Receive, send: Send) -> None:
        # `X_Forwarded_For` would become the same WSGI name as `X-Forwarded-For`, which a proxy controls.
        headers = [pair for pair in scope["headers"] if b"_" not in pair[0]]
        writing = Writing(send, scope.get(guarded.CUT))
        await self._others({**scope, "headers": headers, _WRITING: writing}, receive, writing)  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends the threads, then closes the center."""
        self._others.executor.shutdown()
        self.flask.extensions[CENTER].close()


def _authorization(scope: Message) -> str:
    found = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    return str(found.decode("latin-1"))


def _prepared(app: Flask) -> Any:
    """The application as a2wsgi calls it, with what its environment lacks."""

    def called(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True  # the server ends a body; it may come in chunks
        environ["wsgi.errors"] = sys.stderr
        scope = environ.pop("asgi.scope")
        # Named without an error too: what the loop has passed on, no other front needs to look at.
        environ[fast.FAILED] = scope.get(fast.FAILED)
        environ[LARGER] = scope.get(LARGER, False)
        return _WhileRead(app(environ, start_response), scope[_WRITING])

    return called


class _WhileRead:
    """An answer that is not made any further once nobody reads it."""

    def __init__(self, answer: Iterable[bytes], writing: Writing) -> None:
        self._answer, self._writing = answer, writing

    def __iter__(self) -> Iterator[bytes]:
        for part in self._answer:
            if self._writing.over:
                return
            yield part

    def close(self) -> None:
        getattr(self._answer, "close", lambda: None)()


@dataclass(frozen=True)
class _Begun:
    """The start of a body in chunks that is larger than SMALL."""

    start: bytes


@overload
async def _whole(receive: Receive, size: int, here: bool) -> bytes | Exception: ...
@overload
async def _whole(receive: Receive, size: int | None, here: bool) -> bytes | Exception | _Begun: ...
async def _whole(receive: Receive, size: int | None, here: bool) -> bytes | Exception | _Begun:
    """A body of `size`, or in chunks (None; then perhaps only its start), or why it did not come.

    `here`: nothing of it has to be waited for.
    """
    parts: list[bytes] = []
    found = 0
    try:
        async with asyncio.timeout(BODY_SECONDS) if not here else nullcontext():
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return ClientDisconnected()
                parts.append(message.get("body", b""))
                found += len(parts[-1])
                if not message.get("more_body"):
                    break
                if size is None and found > SMALL:
                    return _Begun(b"".join(parts))
    except TimeoutError:
        return RequestTimeout(f"the body did not come within {BODY_SECONDS} s")
    body = b"".join(parts)
    return body if size is None or found == size else ClientDisconnected()


def _told(body: bytes) -> Receive:
    """A body that is here."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _failing(error: Exception) -> Receive:
    """A body that did not come: whoever reads it gets the error, where errors are worded."""

    async def receive() -> Message:
        raise error

    return receive


def _patient(receive: Receive, start: bytes) -> Receive:
    """A body in pieces, `start` first. One that ends early must not look as if it were whole.

    Each piece has PIECE_SECONDS, all of them BODY_SECONDS and a second for each LEAST_RATE bytes that came:
    one byte now and then must not hold a thread. Only waiting counts, not what Flask does in between.
    """
    begun = [start] if start else []
    received, waited = len(start), 0.0

    async def piece() -> Message:
        nonlocal received, waited
        if begun:
            return {"type": "http.request", "body": begun.pop(), "more_body": True}
        loop = asyncio.get_running_loop()
        since = loop.time()
        left = BODY_SECONDS + received / LEAST_RATE - waited
        try:
            async with asyncio.timeout(min(PIECE_SECONDS, left)):
                message = await receive()
        except TimeoutError:
            if left < PIECE_SECONDS:
                slow = f"the body comes more slowly than {LEAST_RATE} bytes a second"
                raise RequestTimeout(slow) from None
            raise RequestTimeout(f"no part of the body came for {PIECE_SECONDS} s") from None
        if message["type"] != "http.request":
            raise ClientDisconnected()
        waited += loop.time() - since
        received += len(message.get("body", b""))
        return message

    return piece
