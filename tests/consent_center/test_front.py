"""The service's event loop: equal answers, hostile and slow clients, clients that leave."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from consent_helpers import event, make, phone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center import group
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.preferences.model import Term
from consent_center.rest import asgi, fast, guarded, limits
from consent_center.rest.app import HEADERS, create_app
from consent_center.rest.workers import LoopWorker

TOKEN = "t" * 43
ASKED = {"purpose": "ads", "recipient": "provider", "categories": ["contact"], "kind": "phone"}
TOLD = {
    **{"phone": phone(1), "purpose": "ads", "purpose_version": 1, "action": "granted"},
    **{"recipient": "provider", "categories": ["contact"], "notice": "ads-notice", "notice_version": 1},
    "occurred_at": "2026-02-01T00:00:00Z",
}
CONTACT = {"kind": "phone", "value": phone(1), "channel": "sms", "topic": "news", "sender": "shop"}


@contextmanager
def served(center: Center, connections: int = 100, larger: Any = None) -> Iterator[int]:
    """The service as a worker serves it, in a thread of this process: its port. `larger` answers `/large`."""
    app = create_app(center, TOKEN)
    if larger is not None:
        rest = app.wsgi_app
        app.wsgi_app = lambda e, s: (larger if e["PATH_INFO"] == "/large" else rest)(e, s)  # type: ignore[method-assign]
    front = asgi.LoopFront(app, HEADERS, 4)
    config = uvicorn.Config(
        front,
        log_config=None,
        limit_concurrency=connections,
        **{**LoopWorker.CONFIG_KWARGS, "loop": "asyncio"},
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
            front._others.executor.shutdown()


def post(path: str, body: bytes, *more: str, token: str = TOKEN, size: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *more]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body) if size is None else size}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def decision(number: int) -> bytes:
    return json.dumps({**ASKED, "values": [phone(number)]}).encode()


def told(number: int) -> bytes:
    return json.dumps({**TOLD, "phone": phone(number)}).encode()


class Raw:
    """A client that says what it likes."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.file = self.sock.makefile("rb")

    def answer(self) -> tuple[int, Any]:
        """The next answer; (0, b"") when the connection is closed."""
        try:
            line = self.file.readline()
        except ConnectionResetError:
            return 0, b""
        if not line:
            return 0, b""
        status, size = int(line.split()[1]), 0
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            size = int(value) if name.lower() == b"content-length" else size
        body = self.file.read(size)
        return status, json.loads(body) if body.startswith(b"{") else body

    def say(self, data: bytes) -> Raw:
        self.sock.sendall(data)
        return self

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()


@pytest.mark.usefixtures("store")
def test_pipelined_calls_are_answered_in_their_order(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center, served(center) as port, Raw(port) as client:
        calls = [post("/v1/events", told(1)), post("/v1/decisions", decision(1))]
        calls += [b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n", post("/v1/decisions", decision(2))]
        client.say(b"".join(calls))
        got = [client.answer() for _ in calls]
        assert [status for status, _ in got] == [201, 200, 200, 200]
        assert got[1][1]["reasons"] == ["eligible"] and got[3][1]["reasons"] == ["unknown_subject"]
        client.say(calls[1][:40])
        time.sleep(0.05)
        client.say(calls[1][40:-3])
        time.sleep(0.05)
        assert client.say(calls[1][-3:]).answer()[1]["reasons"] == ["eligible"]  # in three pieces
        head = b"Connection: close\r\nHost: x"
        assert client.say(calls[1].replace(b"Host: x", head)).answer()[0] == 200
        assert client.answer()[0] == 0  # and it was closed
        with Raw(port) as old:
            assert old.say(calls[1].replace(b"HTTP/1.1", b"HTTP/1.0")).answer()[0] == 200
            assert old.answer()[0] == 0
        assert center.fsck() is None


def test_who_does_not_read_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []
    answer = guarded._answer

    def paused(cycle: Any, *told: Any) -> bool:
        cycle.flow.write_paused = True
        tried.append(answer(cycle, *told))
        cycle.flow.write_paused = False
        return tried[-1]

    monkeypatch.setattr(guarded, "_answer", paused)
    with make(tmp_path / "c") as center, served(center) as port, Raw(port) as client:
        status, data = client.say(post("/v1/decisions", decision(1))).answer()
        assert status == 200 and data["reasons"] == ["unknown_subject"] and tried == [False]


def test_who_does_not_read_holds_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than threads: each is cut off in bounded time, and its answer is not made to the end."""
    monkeypatch.setattr(asgi, "PIECE_SECONDS", 0.5)
    made, closed, parts = list[int](), list[int](), 40

    def larger(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", str(parts << 20))])
        number = int(environ["QUERY_STRING"])
        try:
            for _ in range(parts):
                made.append(number)
                yield bytes(1 << 20)
        finally:
            closed.append(number)

    def asked(number: int) -> bytes:
        return f"GET /large?{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    with make(tmp_path / "c") as center, served(center, larger=larger) as port:
        deaf = [Raw(port).say(asked(number)) for number in range(6)]
        with Raw(port) as quick:
            assert quick.say(post("/v1/people/explain", b"{}")).answer()[0] == 400
        for reads in range(
            6, 30
        ):  # who reads gets all of it; or stood still, and was cut off like the others
            got = 0
            with Raw(port).say(asked(reads)) as reader, suppress(ConnectionResetError):
                while got < parts << 20 and (data := reader.sock.recv(1 << 20)):
                    got += len(data)
            if got >= parts << 20:
                break
        ends = time.monotonic() + 120
        while len(closed) <= reads and time.monotonic() < ends:
            time.sleep(0.05)
        for one in deaf:
            one.__exit__()
    assert sorted(closed) == [*range(reads + 1)]
    assert all(made.count(number) < parts for number in range(6)) and made.count(reads) == parts


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"POST /v1/decisions HTTP/one\r\n\r\n", 400),
        (post("/v1/decisions", b"{}", "Transfer-Encoding: chunked"), 400),
        (post("/v1/decisions", b"{}", "Content-Length: 7"), 400),
        (post("/v1/decisions", b"{}", "bad header"), 400),
        (post("/v1/decisions", b"{}", *(f"X-{n}: 1" for n in range(200))), 400),
        (post("/v1/decisions", b"{}", "X: " + "x" * 500_000), 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 400_000, 431),
        (post("/v1/decisions", b"{}", size=5 << 20), 413),
        (post("/v1/decisions", b"{}", size=5 << 20, token="wrong"), 401),
        (post("/v1/decisions", b"{"), 400),
        (post("/v1/decisions", b"[" * 90_000), 400),
        (post("/v1/decisions", decision(1), token="wrong"), 401),
        (post("/v1/decisions?x=\xff", decision(1)), 400),
        (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 200),
    ],
)
def test_what_is_no_call_is_refused(shared: int, said: bytes, status: int) -> None:
    with Raw(shared) as client:
        assert client.say(said).answer()[0] == status
    with Raw(shared) as client:  # and nobody else notices
        assert client.say(post("/v1/decisions", decision(1))).answer()[0] == 200


def test_the_bare_address_leads_to_the_console(shared: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{shared}/", timeout=120, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/console/")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with Center.create(tmp_path_factory.mktemp("front") / "c", "brand") as center, served(center) as port:
        yield port


@pytest.mark.usefixtures("store")
def test_chunks_are_a_body_and_a_cut_one_is_none(tmp_path: Path) -> None:
    head = post("/v1/events/batch", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    head = head.replace(b"application/json", b"application/x-ndjson")
    line = told(1) + b"\n"
    chunk = b"%x\r\n%s\r\n" % (len(line), line)
    with make(tmp_path / "c") as center, served(center) as port:
        with Raw(port) as client:
            status, data = client.say(head + chunk + b"0\r\n\r\n").answer()
            assert status == 200 and data["recorded"] == 1
        with Raw(port) as client:
            client.say(head + chunk.replace(b"00000001", b"00000002"))
        time.sleep(0.2)
        assert center.checkpoint() and center.explain("phone", phone(1)).events
        with pytest.raises(ConsentError, match="subject.unknown"):
            center.explain("phone", phone(2))


def test_slow_clients_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(asgi, "PIECE_SECONDS", 0.5)
    whole = post("/v1/decisions", decision(1))
    with make(tmp_path / "c") as center, served(center, 40) as port:
        quick = [Raw(port), Raw(port)]
        kept = Raw(port).say(whole)
        assert kept.answer()[0] == 200
        body = [  # more than there are threads
            Raw(port).say(post("/v1/decisions" if number % 2 else "/v1/people/explain", b"{", size=50))
            for number in range(9)
        ]
        large = Raw(port).say(post("/v1/decisions", b"{", size=2 << 20))
        # These heads have come: whoever this test runs beside, they are not too late for the shorter time.
        assert quick[0].say(whole).answer()[0] == 200
        assert quick[1].say(post("/v1/people/explain", b"{}")).answer()[0] == 400
        monkeypatch.setattr(guarded, "HEAD_SECONDS", 1)
        kept.say(whole[:30])  # a second head that does not end
        silent, head = Raw(port), Raw(port).say(whole[:30])
        for one in (silent, head, kept):
            assert one.answer()[0] == 408 and one.answer()[0] == 0
        for one in (*body, large):
            status, data = one.answer()
            assert status == 408 and data["code"] == "request.invalid"
        for one in (silent, head, kept, large, *body, *quick):
            one.__exit__()


def chunked(path: str, data: bytes, token: str = TOKEN) -> bytes:
    """The head of a call in chunks, and its first; no last one."""
    head = post(path, b"", token=token).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def dripping(clients: list[Raw], piece: bytes) -> Iterator[None]:
    """Each client says `piece` ten times a second, whether or not it was answered."""
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.1):
            for client in clients:
                with suppress(OSError):
                    client.say(piece)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for client in clients:
            client.__exit__()


FORM = "/v1/public/anything/form"


@pytest.mark.parametrize("way", ["chunked", "sized", "large chunks"])
def test_who_drips_and_proves_nothing_holds_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 3)
    said = {
        "chunked": chunked(FORM, b"{", token="none"),
        "sized": post(FORM, b"{", token="none", size=2 << 20),
        "large chunks": chunked(FORM, b" " * (limits.SMALL + 1), token="none"),
    }[way]
    piece = b" " if way == "sized" else b"1\r\n \r\n"
    with make(tmp_path / "c") as center, served(center) as port:
        for _ in range(9):
            clients = [Raw(port).say(said) for _ in range(6)]  # more than there are threads
            with dripping(clients, piece):
                time.sleep(0.3)
                assert requests.get(f"http://127.0.0.1:{port}/v1/health", timeout=120).status_code == 200
                waits = not select.select([client.sock for client in clients], (), (), 0)[0]
                status, problem = clients[0].answer()
                if way == "chunked":
                    assert (status, problem["code"]) == (408, "request.invalid")
                else:
                    assert (status, problem["code"]) == (413, "request.too_large")
            if (
                waits or way != "chunked"
            ):  # they were not waited for; else all this took longer than their time
                return
        pytest.fail("who only asks was answered after those who drip")


def test_a_public_call_may_be_small_only_in_chunks_too(shared: int) -> None:
    for data, status in ((b'{"a": "%s"}' % (b"a" * limits.SMALL), 413), (b"{", 400)):
        with Raw(shared) as client:
            assert client.say(chunked(FORM, data, token="none") + b"0\r\n\r\n").answer()[0] == status
    with Raw(shared) as client:  # who proves more, may say more
        data = decision(1) + b" " * (limits.SMALL + 1)
        assert client.say(chunked("/v1/decisions", data) + b"0\r\n\r\n").answer()[0] == 200
    with Raw(shared) as client:
        client.say(chunked("/v1/decisions", data))
        time.sleep(0.1)
        assert client.say(b"1\r\n \r\n0\r\n\r\n").answer()[0] == 200  # the rest, after the start


def test_a_large_body_has_a_least_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.5)
    with make(tmp_path / "c") as center, served(center) as port:
        slow = Raw(port).say(post("/v1/decisions", b"{", size=2 << 20))
        with dripping([slow], b" "):  # each piece in time
            status, problem = slow.answer()
            assert (status, problem["code"]) == (408, "request.invalid")


@pytest.mark.parametrize(
    ("said", "status", "more"),
    [
        (post("/v1/decisions", b"{", size=3_000_000, token="wrong"), 401, b" "),  # more of its body
        (post("/v1/decisions", b"", size=2 << 20, token="wrong"), 401, b" " * (2 << 20)),  # all of it
        (chunked("/v1/decisions", b" " * (2 << 20), token="wrong"), 401, b"1"),  # a chunk's size
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 302, b"\r\n"),  # what begins no head
    ],
)
def test_no_connection_is_without_a_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, status: int, more: bytes
) -> None:
    """What comes after an answer ends uvicorn's clock."""
    answered, complete = list[int](), guarded.GuardedProtocol.on_response_complete

    def on_response_complete(self: Any) -> None:
        complete(self)
        answered.append(1)

    monkeypatch.setattr(guarded.GuardedProtocol, "on_response_complete", on_response_complete)
    with make(tmp_path / "c") as center, served(center) as port, Raw(port) as client:
        assert client.say(post("/v1/decisions", decision(1))).answer()[0] == 200
        monkeypatch.setattr(
            guarded, "HEAD_SECONDS", 1
        )  # the connection is there, its head comes in one piece
        assert client.say(said).answer()[0] == status
        ends = time.monotonic() + 120
        while len(answered) < 2 and time.monotonic() < ends:  # Flask ends an answer after its last byte
            time.sleep(0.02)
        client.say(more)
        assert client.answer()[0] == 408 and client.answer()[0] == 0


def test_too_many_connections_are_told_so(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center, served(center, 3) as port:

        def asked(wanted: int) -> None:
            """Ask until this is answered: the server learns a little later who came and who left."""
            deadline = time.monotonic() + 120
            while True:
                with Raw(port) as client:
                    if client.say(post("/v1/decisions", decision(1))).answer()[0] == wanted:
                        return
                assert time.monotonic() < deadline
                time.sleep(0.05)

        with ExitStack() as idle:
            for _ in range(2):
                idle.enter_context(Raw(port))
            asked(503)
        asked(200)


def test_who_leaves_before_the_answer_disturbs_nobody(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center, served(center) as port:
        for number in range(10, 20):
            with Raw(port) as client:
                client.say(post("/v1/events", told(number)))
        with Raw(port) as client:
            assert client.say(post("/v1/events", told(20))).answer()[0] == 201
        assert center.fsck() is None


def test_one_wake_up_brings_all_answers_and_a_closed_loop_harms_nobody() -> None:
    async def both() -> list[Any]:
        loop = asyncio.get_running_loop()
        landing = asgi.Landing(loop)
        futures = [loop.create_future() for _ in range(50)]
        futures[3].cancel()
        tellers = [landing.teller(future) for future in futures]
        error = ConsentError("center.busy", "later")
        thread = threading.Thread(target=lambda: [tell(error) for tell in tellers])
        thread.start()
        found = await asyncio.gather(*futures, return_exceptions=True)
        thread.join()
        late.append(landing.teller(loop.create_future()))
        return found

    late: list[Any] = []
    found = asyncio.run(both())
    assert isinstance(found.pop(3), asyncio.CancelledError)
    assert {one.code for one in found} == {"center.busy"}
    late[0](ConsentError("center.busy", "later"))  # its loop is closed


_changes = st.dictionaries(
    st.sampled_from([*TOLD, *ASKED, "values", "actor", "evidence", "odd", "expires_at"]),
    st.one_of(
        st.none(),
        st.integers(0, 3),
        st.sampled_from(
            ["ads", "granted", "withdrawn", "phone", "", "a\0b", phone(2), "2026-02-30T00:00:00Z"]
        ),
        st.lists(st.sampled_from(["contact", "else", phone(1)]), max_size=2),
    ),
    max_size=2,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(["/v1/events", "/v1/decisions", "/v1/contact-decisions"]), _changes)
def test_the_loop_answers_as_flask_does(pair: tuple[Any, str], path: str, changes: dict[str, Any]) -> None:
    client, url = pair
    base = {"/v1/decisions": {**ASKED, "values": [phone(1)]}, "/v1/events": TOLD}.get(path, CONTACT)
    body = {name: value for name, value in (base | changes).items() if value is not None}
    head = {"Authorization": f"Bearer {TOKEN}"}
    ways = dict(fast.WAYS)
    quick = requests.post(url + path, json=body, headers=head, timeout=120)
    fast.WAYS.clear()
    try:
        slow = client.post(path, json=body, headers=head)
    finally:
        fast.WAYS.update(ways)
    assert quick.status_code == slow.status_code
    both = [quick.json(), slow.json]
    for one in both:
        for moving in ("sequence", "leaf_index"):
            one.pop(moving, None)
        for told in one.get("answers", ()):
            told.pop("at"), told.pop("reserved_until", None)
    assert both[0] == both[1]
    for name in ("Content-Type", *HEADERS):
        assert quick.headers[name] == slow.headers[name]


def test_holders_of_api_tokens_are_answered_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By role, under the account's name, and not a moment longer than the token counts."""
    in_flask: list[str] = []
    with make(tmp_path / "c") as center:
        center.record(event(1))
        center.preferences.declare(Term("topic", "news", {"en": "News"}))
        texts = {}
        for role in ("viewer", "officer", "service"):
            center.accounts.add(role, role, "admin")
            held, texts[role] = center.accounts.new_token(role, "load", 1, "admin")
        flask = asgi.LoopFront._flask

        async def counted(self: Any, scope: Any, *more: Any) -> None:
            in_flask.append(scope["path"])
            await flask(self, scope, *more)

        monkeypatch.setattr(asgi.LoopFront, "_flask", counted)

        def ask(url: str, token: str, body: Any) -> int:
            return requests.post(
                url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=120
            ).status_code

        with served(center) as port:
            url = f"http://127.0.0.1:{port}/v1/"
            for role in ("officer", "service"):
                assert ask(url + "decisions", texts[role], {**ASKED, "values": [phone(1)]}) == 200
                assert ask(url + "contact-decisions", texts[role], CONTACT) == 200
                assert ask(url + "events", texts[role], {**TOLD, "phone": phone(2), "actor": "mina"}) == 201
            assert in_flask == []
            assert {e["actor"] for e in center.explain("phone", phone(2)).events} == {
                "officer",
                "service:mina",
            }
            for path, body in (("decisions", {**ASKED, "values": [phone(1)]}), ("events", TOLD)):
                assert ask(url + path, texts["viewer"], body) == 403
            assert ask(url + "decisions", texts["service"][:-1] + "_", {**ASKED, "values": [phone(1)]}) == 401
            assert (
                ask(url + "decisions", texts["service"], {**ASKED, "values": [phone(1)], "purpose": "a b"})
                == 422
            )
            center.accounts.revoke(held.id, "admin")
            assert ask(url + "decisions", texts["service"], {**ASKED, "values": [phone(1)]}) == 401
            center.accounts.set_active("officer", False, "admin")
            assert ask(url + "contact-decisions", texts["officer"], CONTACT) == 401
            assert len(in_flask) == 6
        assert center.fsck() is None


def test_a_made_up_token_begins_no_transaction_of_the_writer(tmp_path: Path) -> None:
    """Nor does it keep those beside it in the queue from their answers, in their order."""
    made_up = [f"pec_{n:012x}_" + "A" * 43 for n in range(3)]
    with make(tmp_path / "c") as center:
        center.accounts.add("shop", "service", "admin")
        held, token = center.accounts.new_token("shop", "load", 1, "admin")
        begun: list[int] = []
        write = center._write

        def counted() -> Any:
            begun.append(1)
            return write()

        center._write = counted  # type: ignore[method-assign]

        def asked(token: str) -> Any:
            body = {**ASKED, "values": [phone(1)]}
            return fast.borne("decisions.decide", f"Bearer {token}", body)

        def codes(items: list[Any]) -> list[str]:
            return [getattr(answer, "code", None) for answer in group.serve(center, items)]

        assert codes([asked(one) for one in made_up]) == ["request.unauthorised"] * 3
        with served(center) as port:
            url = f"http://127.0.0.1:{port}/v1/decisions"
            head = {"Authorization": f"Bearer {made_up[0]}"}
            body = {**ASKED, "values": [phone(1)]}
            assert requests.post(url, json=body, headers=head, timeout=120).status_code == 401
        assert begun == []
        mixed = group.serve(center, [asked(made_up[0]), asked(token), event(1), asked(made_up[1])])
        assert [type(one).__name__ for one in mixed] == [
            "ConsentError",
            "Decided",
            "Recorded",
            "ConsentError",
        ]
        assert len(begun) == 1
        center.accounts.revoke(held.id, "admin")
        begun.clear()
        assert codes([asked(token)]) == ["request.unauthorised"] and begun == []


def test_a_token_revoked_just_before_the_transaction_counts_no_more(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        center.accounts.add("shop", "service", "admin")
        held, token = center.accounts.new_token("shop", "load", 1, "admin")
        write = center._write

        def late() -> Any:
            center._write = write  # type: ignore[method-assign]
            center.accounts.revoke(held.id, "admin")
            return write()

        item = fast.borne("decisions.decide", f"Bearer {token}", {**ASKED, "values": [phone(1)]})
        center._write = late  # type: ignore[method-assign]
        (answer,) = group.serve(center, [item])
        assert isinstance(answer, ConsentError) and answer.code == "request.unauthorised"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """Flask's client and the address of the loop, of one center."""
    with make(tmp_path_factory.mktemp("pair") / "c") as center:
        center.record(event(1))
        center.preferences.declare(Term("topic", "news", {"en": "News"}))
        with served(center) as port:
            yield create_app(center, TOKEN).test_client(), f"http://127.0.0.1:{port}"
