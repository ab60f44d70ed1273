"""The outbox: written with the event, sent signed, tried again, dead letters; nothing names a person."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, START, Clock, event, make, phone, reason

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.model import DecisionRequest
from consent_center.outbox import targets
from consent_center.outbox.dispatch import Dispatcher, run_once, run_until_empty
from consent_center.outbox.service import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE
from consent_center.outbox.verify import ReplayGuard, verify

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Iterator[Center]:
    with make(tmp_path / "c", clock) as made:
        made.record_many([event(1), event(2)])
        yield made


class Receiver:
    """A real HTTP server that keeps what it gets and answers `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status, self.location = 200, ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((dict(self.headers.items()), body))
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return None

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # both dispatchers come at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?x=1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def told(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in receiver.got]


def refused(code: str, call: Any, *arguments: Any, **more: Any) -> None:
    with pytest.raises(ConsentError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code


def test_a_withdrawal_travels_signed_and_without_an_identifier(
    center: Center, receiver: Receiver, clock: Clock
) -> None:
    hook = center.outbox.put_webhook("crm", receiver.url, "*", actor="dpo")
    center.record(event(1, action="withdrawn", occurred_at=START))
    center.record(event(3))  # a grant is not subscribed to
    clock.forward(seconds=2)
    assert run_until_empty(center.outbox) == {"sent": 1, "failed": 0}
    headers, body = receiver.got[0]
    now = clock.now.timestamp()
    for key in ({"public_key": center.outbox.public_key()}, {"secret": hook["secret"]}):
        message = verify(headers, body, now=now, **key)
        assert message.document["type"] == "consent.withdrawn"
    data = message.document["data"]
    assert (data["purpose"], data["recipient"]) == ("ads", "provider")
    assert center.outbox.persons("crm", "phone", [phone(1), "138 0000 0001", phone(99), "?"]) == [
        *([data["person"]] * 2),
        "",
        "",
    ]
    assert phone(1).encode() not in body and b"form 7" not in body and b"subject" not in body
    assert center.outbox.enforcement()["webhooks"]["by_webhook"]["crm"]["p99_ms"] == 2000
    assert center.fsck() is None


def test_what_a_receiver_refuses(center: Center, receiver: Receiver, clock: Clock) -> None:
    hook = center.outbox.put_webhook("crm", receiver.url, "*")
    center.record(event(1, action="withdrawn", occurred_at=START))
    run_once(center.outbox)
    headers, body = receiver.got[0]
    now, key = clock.now.timestamp(), center.outbox.public_key()
    verify(headers, body, key, now=now + 299)
    bad: list[tuple[dict[str, str], bytes, dict[str, Any]]] = [
        (headers, body, {"now": now + 301}),  # kept and sent again later
        (headers, body, {"now": now - 301}),
        (headers, body.replace(b"withdrawn", b"granted"), {}),
        ({**headers, "webhook-id": "brand-2"}, body, {}),
        ({**headers, "webhook-timestamp": str(int(now) + 1)}, body, {}),
        ({**headers, "webhook-signature": headers["webhook-signature"].replace("v1a,", "v1b,")}, body, {}),
        ({**headers, "webhook-signature": ""}, body, {}),
        ({**headers, "webhook-timestamp": "x"}, body, {}),
        ({k: v for k, v in headers.items() if k != "webhook-id"}, body, {}),
        (headers, body, {"public_key": "whpk_AAAA"}),
        (headers, body, {"public_key": ""}),
    ]
    for changed, text, more in bad:
        refused("webhook.signature", verify, changed, text, **{"public_key": key, "now": now, **more})
    other = center.outbox.put_webhook("other", receiver.url, "*")
    assert other["secret"] != hook["secret"]
    refused("webhook.signature", verify, headers, body, secret=other["secret"], now=now)
    guard = ReplayGuard(2)
    assert [guard.first(id) for id in ("a", "a", "b", "c", "a")] == [True, False, True, True, True]


def test_a_recipient_hears_of_its_own_people_alone_and_under_its_own_names(
    center: Center, receiver: Receiver
) -> None:
    for id, recipient in (("all", "*"), ("prov", "provider"), ("media", "media")):
        center.outbox.put_webhook(id, receiver.url, recipient)
    center.record(event(1, action="denied", occurred_at=START))
    center.erase("phone", phone(2), "dpo")
    center.switch_recipient("media", False, "dpo")
    center.switch_purpose("ads", False, "dpo")
    by_hook: dict[str, list[str]] = {}
    for entry in center.outbox.messages("pending"):
        by_hook.setdefault(entry["webhook"], []).append(entry["type"])
    own = ["consent.denied", "subject.erased", "purpose.switched"]
    assert by_hook == {
        "all": ["consent.denied", "subject.erased", "recipient.switched", "purpose.switched"],
        "prov": own,
        "media": ["recipient.switched", "purpose.switched"],
    }
    run_until_empty(center.outbox)
    names = {t["data"].get("person") for t in told(receiver) if t["type"] == "consent.denied"}
    assert len(names) == 2, "two receivers can't compare their people"
    assert center.outbox.persons("prov", "phone", [phone(2)]) == [""], "nobody can make the name again"


def test_an_event_and_its_message_are_written_together_or_not_at_all(
    center: Center, receiver: Receiver
) -> None:
    center.outbox.put_webhook("crm", receiver.url, "*")
    rows = [event(1, action="withdrawn", occurred_at=START), event(2, action="nonsense")]
    refused("event.action", center.record_many, rows)
    assert center.outbox.messages("pending") == []
    assert center.record_many(rows, "skip").count == 1
    assert len(center.outbox.messages("pending")) == 1
    assumed = center.assume(pa.array([phone(5)]), "phone", "ads", "provider", ("contact",), "test", "me")
    assert assumed.count == 1 and len(center.outbox.messages("pending")) == 1


def test_failures_are_tried_again_with_growing_pauses_then_dead_then_requeued(
    center: Center, receiver: Receiver, clock: Clock
) -> None:
    center.outbox.put_webhook("crm", receiver.url, "*")
    center.record(event(1, action="withdrawn", occurred_at=START))
    receiver.status = 503
    pauses = []
    for attempt in range(ATTEMPTS):
        assert run_once(center.outbox) == {"sent": 0, "failed": 1}, attempt
        assert run_once(center.outbox) == {"sent": 0, "failed": 0}, "not due yet"
        if waiting := center.outbox.messages("pending"):
            pause = datetime.fromisoformat(waiting[0]["next_at"]) - clock.now
            pauses.append(pause.total_seconds())
            clock.now += pause
    expected = [min(FIRST_PAUSE << n, LONGEST_PAUSE) / 1e6 for n in range(ATTEMPTS - 1)]
    assert all(0.5 * e <= p <= 1.5 * e for p, e in zip(pauses, expected, strict=True)), pauses
    assert len({round(p / e, 3) for p, e in zip(pauses, expected, strict=True)}) > 3, "no jitter"
    dead = center.outbox.messages()
    assert [(d["attempts"], d["last"]) for d in dead] == [(ATTEMPTS, "HTTP 503")]
    assert center.outbox.enforcement()["outbox"] == {"pending": 0, "dead": 1, "oldest_pending_seconds": 0.0}
    receiver.status = 204
    assert run_once(center.outbox) == {"sent": 0, "failed": 0}
    assert center.outbox.requeue([dead[0]["number"]], actor="dpo") == 1
    assert run_once(center.outbox) == {"sent": 1, "failed": 0}
    ids = {headers["webhook-id"] for headers, _ in receiver.got}
    assert len(ids) == 1, "the same message keeps its id"
    assert center.outbox.requeue() == 0 and center.fsck() is None


def test_redirects_are_not_followed(center: Center, receiver: Receiver) -> None:
    other = Receiver()
    try:
        receiver.status, receiver.location = 307, other.url
        center.outbox.put_webhook("crm", receiver.url, "*")
        center.record(event(1, action="withdrawn", occurred_at=START))
        assert run_once(center.outbox) == {"sent": 0, "failed": 1}
        assert other.got == [] and center.outbox.messages("pending")[0]["last"] == "HTTP 307"
    finally:
        other.close()


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://user:pw@example.com/",
        "https://example.com/#x",
        "https:///nothing",
        "https://exa mple.com/",
        "https://example.com:99999/",
        "https://例え.example/",
        "file:///etc/passwd",
        "//example.com",
        "",
        "http://[::1",
    ],
)
def test_urls_that_are_not_registered(center: Center, url: str) -> None:
    refused("webhook.url", center.outbox.put_webhook, "x", url, "*")


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("address", "private", "allowed"),
    [
        ("93.184.216.34", False, True),
        ("10.0.0.7", False, False),
        ("10.0.0.7", True, True),
        ("192.168.1.1", False, False),
        ("169.254.169.254", True, False),  # cloud metadata
        ("127.0.0.1", True, False),  # a name that leads to this machine
        ("::ffff:127.0.0.1", True, False),
        ("::ffff:169.254.169.254", True, False),
        ("fe80::1", True, False),
        ("240.0.0.1", False, False),
        ("224.0.0.1", True, False),
        ("fd00::1", False, False),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, address: str, private: bool, allowed: bool) -> None:
    """Every address that the host's name leads to is looked at, at each delivery."""

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", (address, port))]

    monkeypatch.setattr(targets.socket, "getaddrinfo", resolve)
    if allowed:
        assert targets.address_of("https://hook.example/", private) == "93.184.216.34"
    else:
        refused("webhook.url", targets.address_of, "https://hook.example/", private)
        assert targets.post("https://hook.example/", private, {}, b"{}")[0] is False


def test_two_dispatchers_do_not_send_the_same(center: Center, receiver: Receiver, tmp_path: Path) -> None:
    center.outbox.put_webhook("crm", receiver.url, "*")
    people = [event(n, action="withdrawn", occurred_at=START) for n in range(100, 180)]
    center.record_many(people)
    with Center.open(tmp_path / "c", Clock()) as other:
        workers = [threading.Thread(target=run_until_empty, args=(c.outbox,)) for c in (center, other)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(240)
    numbers = [t["number"] for t in told(receiver)]
    assert sorted(numbers) == list(range(1, 81))
    assert center.fsck() is None


def test_a_dispatcher_in_a_thread(center: Center, receiver: Receiver) -> None:
    center.outbox.put_webhook("crm", receiver.url, "*")
    center.outbox.switch_webhook("crm", False)
    center.outbox.switch_webhook("crm", True)
    dispatcher = Dispatcher(center.outbox)
    try:
        center.record(event(2, action="withdrawn", occurred_at=START))
        deadline = threading.Event()
        for _ in range(2400):
            if receiver.got:
                break
            deadline.wait(0.05)
        assert told(receiver)[0]["type"] == "consent.withdrawn"
    finally:
        dispatcher.close()


def test_recipients_are_switched_off_and_on(center: Center, tmp_path: Path, clock: Clock) -> None:
    snapshot = center.snapshot(REQUEST, pa.array([phone(1), phone(2)]), "phone", "job-1")
    with Center.open(tmp_path / "c", clock) as other:
        assert reason(other, 1) == "eligible"
        assert center.switch_recipient("provider", False, "dpo") == {"provider": False}
        assert reason(center, 1) == reason(other, 1) == reason(other, 99) == "recipient_inactive"
        assert reason(other, 1, DecisionRequest("ads", "media", ("contact",))) == "recipient_out_of_scope"
        delta = other.delta(snapshot.id)
        assert not delta.active and len(delta.withdrawn) == 2
        assert center.fsck() is None
        center.switch_recipient("provider", True, "dpo")
        center.switch_recipient("provider", True, "dpo")
        assert reason(other, 1) == "eligible" and other.delta(snapshot.id).active
    refused("registry.recipient", center.switch_recipient, "a,b", False, "dpo")
    assert center.recipients() == {"provider": True} and center.fsck() is None


def test_each_drop_is_measured_once(center: Center, clock: Clock) -> None:
    snapshot = center.snapshot(REQUEST, pa.array([phone(1), phone(2)]), "phone", "job-1")
    center.record(event(1, action="withdrawn", occurred_at=START))
    clock.forward(seconds=3)
    center.delta(snapshot.id)
    clock.forward(seconds=50)
    center.delta(snapshot.id)
    center.record(event(2, action="withdrawn", occurred_at=clock.now - timedelta(hours=1)))
    clock.forward(seconds=1)
    center.delta(snapshot.id)
    found = center.outbox.enforcement()["jobs"]
    assert found["by_recipient"] == {"provider": {"count": 2, "p50_ms": 1000, "p99_ms": 3000, "max_ms": 3000}}


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE webhooks SET body = replace(body, '127.0.0.1', '127.0.0.9')", "webhooks"),
        ("UPDATE webhooks SET active = 0", "webhooks"),
        ("DELETE FROM webhooks", "webhooks"),
        ("DELETE FROM outbox", "outbox"),
        ("UPDATE outbox SET body = replace(body, 'withdrawn', 'granted')", "outbox"),
        ("UPDATE outbox SET state = 'delivered'", "outbox"),
        ("UPDATE outbox SET number = 9 WHERE number = 1", "outbox"),
        ("UPDATE recipients SET active = 1", "recipients"),
    ],
)
def test_fsck_finds_a_changed_record(tmp_path: Path, change: str, where: str) -> None:
    with make(tmp_path / "c") as center:
        center.record(event(1))
        center.outbox.put_webhook("crm", "http://127.0.0.1:9/", "*")
        center.record(event(1, action="withdrawn", occurred_at=START))
        center.switch_recipient("media", False, "dpo")
    with sqlite3.connect(tmp_path / "c" / "center.db") as raw:
        raw.execute(change)
    raw.close()
    with Center.open(tmp_path / "c", Clock()) as center:
        found = center.fsck()
        assert found is not None and where in found.where
