"""A remote center answers as the embedded one does, and fails closed when it does not answer at all."""

from __future__ import annotations

import http.server
import inspect
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consent_center.center import Center
from consent_center.client import CenterClient, open_center
from consent_center.errors import ConsentError
from consent_center.ledger import verify
from consent_center.model import CODE, Assessment, ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.rest import remote, server, wire
from consent_center.rest.remote import RemoteCenter

ASK = DecisionRequest("ads", "partner", ("contract",))
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


def event(*identifiers: tuple[str, str], action: str = "granted") -> ConsentEvent:
    return ConsentEvent(identifiers, "ads", 1, action, "partner", ("contract", "usage"), NOW, "text", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, database: str | None) -> Path:
    home = tmp_path_factory.mktemp("remote") / "center"
    with Center.create(home, "brand", database=database) as center:
        center.put_purpose(Purpose("ads", 1, {"en": "Ads"}, ("contract", "usage"), duration_days=36_500))
        center.put_notice(Notice("text", 1, "ads", 1, {"en": "What we do"}))
    return home


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[server.Running]:
    with server.start(home) as running:
        yield running


@pytest.fixture
def far(served: server.Running) -> Iterator[CenterClient]:
    with open_center(served.address.location) as center:
        yield center


@pytest.fixture
def near(home: Path) -> Iterator[Center]:
    with Center.open(home) as center:
        yield center


def test_it_has_every_method_of_the_protocol() -> None:
    for name, member in vars(CenterClient).items():
        if callable(member) and not name.startswith("_"):
            assert inspect.signature(getattr(RemoteCenter, name)) == inspect.signature(member), name


def test_registry(far: CenterClient, near: Center) -> None:
    assert far.controller == near.controller == "brand"
    assert far.verifier_key() == near.verifier_key()
    rich = Purpose(
        "rich", 1, {"zh": "广告", "en": "Ads"}, ("a", "b"), ("media",), "dpv:X", "contract", False, 90
    )
    assert far.put_purpose(rich, "me") == rich
    assert far.switch_purpose("rich", False, "me").active is False
    far.put_assessment(Assessment("pia-1", "ads", "shelf 3"), "me")
    assert far.purposes() == near.purposes()
    assert far.notices() == near.notices()
    assert far.assessments() == near.assessments()


def test_events_and_decisions(far: CenterClient, near: Center) -> None:
    first = far.record(
        event(("phone", "13900000001"), ("device", "d-1"), ("device", "d-2"), ("email", "nobody"))
    )
    assert first.ignored == ("email",)
    child = ConsentEvent(
        (("phone", "13900000002"),),
        "ads",
        1,
        "guardian_granted",
        "partner",
        ("contract",),
        NOW,
        "text",
        1,
        birth_date=date(NOW.year - 8, 1, 1),
        expires_at=NOW + timedelta(days=300),
        evidence="form 7",
        actor="shop",
    )
    bad = event(("phone", "12"))
    done = far.record_many([child, bad, event(("device", "d-2"), action="withdrawn")], on_error="skip")
    assert (done.count, [e.row for e in done.errors]) == (2, [1])
    assert done.subjects.tolist()[1] == -1
    assert done.subjects[2] == first.subject
    with pytest.raises(ConsentError) as caught:
        far.record_many([child, bad])
    assert (caught.value.code, caught.value.row) == ("event.identifier", 1)
    assumed = far.assume(pa.array(["13900000003"]), "phone", "ads", "partner", ["contract"], "a test", "me")
    assert assumed.count == 1
    values = pa.array(["13900000001", "13900000002", "13900000003", "13900000004", None, "x"])
    ours, theirs = far.decide(ASK, values, "phone"), near.decide(ASK, values, "phone")
    assert ours.codes.tolist() == theirs.codes.tolist()
    assert ours.ordinals.tolist() == theirs.ordinals.tolist()
    assert ours.counts()["out"] == {
        "identifier_null": 1,
        "identifier_invalid": 1,
        "unknown_subject": 1,
        "withdrawn": 1,
    }
    for kind in (values.dictionary_encode(), pa.chunked_array([values[:2], values[2:]])):
        assert far.decide(ASK, kind, "phone").codes.tolist() == theirs.codes.tolist()
    numbers = pa.array([13900000002, None])
    assert (
        far.decide(ASK, numbers, "phone").codes.tolist() == near.decide(ASK, numbers, "phone").codes.tolist()
    )
    assert far.explain("phone", "13900000002") == near.explain("phone", "13900000002")


def test_snapshot_delta_and_ledger(far: CenterClient, near: Center) -> None:
    phones = [f"1370000{i:04d}" for i in range(20)]
    far.record_many([event(("phone", p)) for p in phones])
    issued = far.snapshot(ASK, pa.array([*phones, "13700001111"]), "phone", "job-1")
    assert (
        issued.decisions.counts() == issued.disclosure["counts"] == {"in": 20, "out": {"unknown_subject": 1}}
    )
    assert near.delta(issued.id).withdrawn.size == 0
    far.record(event(("phone", phones[3]), action="withdrawn"))
    delta = far.delta(issued.id)
    assert delta.withdrawn.tolist() == [issued.decisions.ordinals[3]]
    assert delta.reasons.tolist() == [CODE["withdrawn"]]
    assert delta.active and delta.sequence > issued.decisions.sequence and delta.lag_seconds >= 0
    assert far.token_proof(issued.id, "phone", phones[0]) == near.token_proof(issued.id, "phone", phones[0])
    leaf = far.append("job.stage", {"stage": 1, "names": ("a", "b")})
    assert far.append_many([("job.stage", {"stage": 2})]) == [leaf + 1]
    size = leaf + 2
    assert far.checkpoint().split("\n")[1] == str(size)
    assert far.prove(leaf, size) == near.prove(leaf, size)
    assert far.prove_consistency(3, size) == near.prove_consistency(3, size)
    assert far.opening(leaf) == near.opening(leaf)
    assert far.fsck() is None
    assert hasattr(verify, "canonical")


@pytest.mark.parametrize(
    "database", ["sqlite"], indirect=True, scope="module"
)  # nothing of it is the database's
def test_many_values_travel_in_chunks(far: CenterClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 7)
    far.record_many([event(("phone", f"1360000{i:04d}")) for i in range(0, 40, 2)])
    found = far.decide(ASK, pa.array([f"1360000{i:04d}" for i in range(40)]), "phone")
    assert found.eligible.tolist() == [i % 2 == 0 for i in range(40)]
    assert far.decide(ASK, pa.array([], pa.string()), "phone").codes.size == 0


def test_errors_keep_their_codes(far: CenterClient) -> None:
    for code, call in {
        "event.purpose": lambda: far.record(
            ConsentEvent((("phone", "13800138000"),), "no", 1, "granted", "p", (), NOW)
        ),
        "subject.unknown": lambda: far.explain("phone", "13511111111"),
        "snapshot.unknown": lambda: far.delta("none"),
        "ledger.index": lambda: far.prove(0, 10**9),
        "identifier.kind": lambda: far.decide(ASK, pa.array(["1"]), "shoe"),
        "identifier.type": lambda: far.decide(ASK, pa.array([[1]]), "phone"),
        "decision.request": lambda: far.decide(DecisionRequest("", "", ()), pa.array(["1"]), "phone"),
    }.items():
        with pytest.raises(ConsentError) as caught:
            call()
        assert caught.value.code == code


def test_wrong_or_missing_token(
    served: server.Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PEC_CONSENT_TOKEN", raising=False)
    monkeypatch.delenv("PEC_CONSENT_TOKEN_FILE", raising=False)
    with pytest.raises(ConsentError, match="no token") as caught:
        open_center(served.address.url)
    assert caught.value.code == "center.keys"
    monkeypatch.setenv("PEC_CONSENT_TOKEN", "x" * 43)
    with pytest.raises(ConsentError) as caught:
        open_center(served.address.url)
    assert caught.value.code == "request.unauthorised"
    monkeypatch.setenv("PEC_CONSENT_TOKEN_FILE", str(served.address.token_file))
    open_center(served.address.url).close()
    stranger = RemoteCenter(served.address.url, "x" * 43)
    assert stranger.decide(ASK, pa.array(["13800138000"]), "phone").codes.tolist() == [CODE["unreachable"]]
    assert "x" * 43 not in repr(stranger)


def closed(center: RemoteCenter) -> None:
    values = pa.array(["13800138000", None, "13800138001"])
    found = center.decide(ASK, values, "phone")
    assert found.codes.tolist() == [CODE["unreachable"]] * 3
    assert (found.ordinals == -1).all() and found.sequence == -1 and found.detail
    for call in (
        lambda: center.delta("x"),
        lambda: center.snapshot(ASK, values, "phone", "j"),
        center.checkpoint,
    ):
        with pytest.raises(ConsentError) as caught:
            call()
        assert caught.value.code == "center.unreachable"


def test_nobody_there_means_no() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # kept, so that nobody else listens there meanwhile
        port = probe.getsockname()[1]
        closed(RemoteCenter(f"http://127.0.0.1:{port}", "t" * 43, timeout=(0.2, 0.2)))


class _Stub(http.server.BaseHTTPRequestHandler):
    """Something that is no consent center: answers as `behaviour` says."""

    behaviour = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.do_GET()

    def do_GET(self) -> None:
        if self.behaviour == "silent":
            self.server.release.wait(5)  # type: ignore[attr-defined]
        status, body = {
            "error": (500, b'{"status": 500}'),
            "redirect": (302, b""),
            "garbage": (200, b"<html>welcome</html>"),
            "short": (200, server_answer(2)),
        }.get(self.behaviour, (200, b""))
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


def server_answer(rows: int) -> bytes:
    from consent_center.model import Decisions
    from consent_center.rest import wire

    return wire.pack_decisions(Decisions(np.zeros(rows, np.uint8), np.zeros(rows, np.int64), 1), {})


@pytest.mark.parametrize("behaviour", ["error", "redirect", "garbage", "short", "silent"])
def test_a_wrong_answer_means_no(behaviour: str) -> None:
    """An answer for fewer rows than were asked for must not be stretched over them."""
    handler = type("Handler", (_Stub,), {"behaviour": behaviour})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as stub:
        stub.release = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=stub.serve_forever)
        thread.start()
        try:
            center = RemoteCenter(f"http://127.0.0.1:{stub.server_port}", "t" * 43, timeout=(1, 0.2))
            found = center.decide(ASK, pa.array(["13800138000", None, "13800138001"]), "phone")
            assert found.codes.tolist() == [CODE["unreachable"]] * 3
        finally:
            stub.release.set()  # type: ignore[attr-defined]
            stub.shutdown()
            thread.join()


def test_a_write_is_not_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    class Dies(_Stub):
        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.connection.close()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dies) as stub:
        thread = threading.Thread(target=stub.serve_forever)
        thread.start()
        try:
            center = RemoteCenter(f"http://127.0.0.1:{stub.server_port}", "t" * 43, timeout=(20, 20))
            with pytest.raises(ConsentError, match="unreachable"):
                center.record(event(("phone", "13800138000")))
            assert len(seen) == 1
            center.decide(ASK, pa.array(["13800138000"]), "phone")
            assert len(seen) == 4, "asking may be repeated: three times"
        finally:
            stub.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "database", ["sqlite"], indirect=True, scope="module"
)  # nothing of it is the database's
def test_the_server_binds_loopback_only_and_stops(home: Path) -> None:
    with pytest.raises(ConsentError, match="127.0.0.1 only"):
        server.serve(home, host="0.0.0.0")  # noqa: S104
    with server.start(home) as running:
        url = running.address.url
        with pytest.raises(ConsentError, match="taken"):
            server.start(home, port=int(url.rpartition(":")[2]))
    closed(RemoteCenter(url, "t" * 43, timeout=(0.2, 0.2)))


@pytest.mark.parametrize(
    "codes", [pa.array([None], pa.uint8()), pa.array([256], pa.int64()), pa.array([0.0]), pa.array(["0"])]
)
def test_a_code_that_is_none_is_not_taken_for_eligible(codes: pa.Array) -> None:
    data = wire.pack({"code": codes, "ordinal": pa.array([0], pa.int64())}, {"sequence": 1, "detail": ""})
    with pytest.raises(ConsentError, match="request.invalid"):
        wire.unpack_decisions(data)
