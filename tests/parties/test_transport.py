"""The line between nodes: what a meddler does to frames, who may call what, causes of failed connections."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import nodes
import pytest

from parties import PROTOCOL_VERSION, documents, identity
from parties.errors import NodeError, PeerFailed
from parties.identity import server_name
from parties.transport import frames as frames_module
from parties.transport import node_pb2
from parties.transport.client import Connection, diagnose
from parties.transport.frames import INBOX_BYTES, MAX_FRAME, Link
from protocols.machine import MAX_MESSAGE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire")
    brand = nodes.LocalNode(nodes.make_home(folder, "brand", ("prov",)))
    prov = nodes.LocalNode(nodes.make_home(folder, "prov", ("brand",)))
    nodes.introduce(brand, prov)
    nodes.agree(brand.home, prov.home)
    yield brand, prov
    brand.stop()
    prov.stop()


def _line(home, to, *, as_own=False) -> Connection:
    """A connection with `home`'s certificate to the node `to`."""
    keys, target = home.identity, to.home.identity
    name = server_name(target.public_key)
    return Connection(keys, to.home.party, to.server.address, target.certificate, name)


# -- meddling with frames ------------------------------------------------------------------------------------


def _replay(frames: Iterator) -> Iterator:
    for frame in frames:
        yield frame
        if frame.payload:
            yield frame


def _drop(frames: Iterator) -> Iterator:
    dropped = False
    for frame in frames:
        if frame.payload and not dropped:
            dropped = True
            continue
        yield frame


def _reorder(frames: Iterator) -> Iterator:
    held = None
    for frame in frames:
        if frame.payload and held is None:
            held = node_pb2.Frame()
            held.CopyFrom(frame)
            continue
        yield frame
        if held is not None and held.payload:
            yield held
            held = node_pb2.Frame()


def _truncate(frames: Iterator) -> Iterator:
    for frame in frames:
        if frame.payload:
            return
        yield frame


def _other_stage(frames: Iterator) -> Iterator:
    for frame in frames:
        if frame.payload:
            frame.stage = "tell"
        yield frame


def _other_job(frames: Iterator) -> Iterator:
    for frame in frames:
        if frame.payload:
            frame.job_id = "another"
        yield frame


def _changed(frames: Iterator) -> Iterator:
    for frame in frames:
        if frame.payload:
            frame.payload = frame.payload[:-1] + b"y"
        yield frame


def _other_spec(frames: Iterator) -> Iterator:
    for frame in frames:
        if b'"open"' in frame.control:
            message = documents.parse(frame.control)
            frame.control = documents.canonical({**message, "spec_hash": "00" * 32})
        yield frame


def _other_root(frames: Iterator) -> Iterator:
    for frame in frames:
        if b'"boundary"' in frame.control:
            message = documents.parse(frame.control)
            frame.control = documents.canonical({**message, "roots": {"brand": "00", "provider": "00"}})
        yield frame


def _false_snapshot(frames: Iterator) -> Iterator:
    for frame in frames:
        if b'"ready"' in frame.control:
            message = documents.parse(frame.control)
            message["snapshot"]["document"]["sequence"] = 1000000
            frame.control = documents.canonical(message)
        yield frame


MEDDLING = [
    (_replay, "transport.replayed"),
    (_drop, "transport.gap"),
    (_reorder, "transport.gap"),
    (_truncate, "transport.truncated"),
    (_other_stage, "transport.stage"),
    (_other_job, "transport.job"),
    (_changed, "transport.chain"),
    (_other_spec, "transport.binding"),
    (_other_root, "transport.binding"),
    (_false_snapshot, "consent.snapshot"),
]


def _end(pair, job_id):
    with pair[0].client() as brand, pair[1].client() as prov:
        return brand.wait(job_id, 120), prov.wait(job_id, 120)


@pytest.mark.parametrize(("meddle", "code"), MEDDLING, ids=[m.__name__.strip("_") for m, _ in MEDDLING])
@pytest.mark.parametrize("direction", ["to_provider", "to_brand"])
def test_a_changed_stream_ends_the_job_on_both_sides(pair, monkeypatch, meddle, code, direction):
    brand, prov = pair
    if direction == "to_provider":
        session = Connection.session
        monkeypatch.setattr(Connection, "session", lambda self, frames: session(self, meddle(frames)))
    else:
        serve = prov.engine.session
        monkeypatch.setattr(prov.engine, "session", lambda *a: meddle(serve(*a)))
    start = time.monotonic()
    with brand.client() as client:
        job_id = client.submit(nodes.request("brand-prov"))
    ours, theirs = _end(pair, job_id)
    assert time.monotonic() - start < 40  # at once, and not when the silence of 60 s is over
    assert (ours["state"], theirs["state"]) == ("failed", "failed")
    victim, other = (theirs, ours) if direction == "to_provider" else (ours, theirs)
    assert victim["error"]["code"] == code
    # Both sides notice a difference of the chains; whose word comes first is a matter of chance.
    assert victim["error"]["origin"] == "here" or code == "transport.chain"
    assert other["error"]["code"] in (code, "transport.lost", "transport.chain")
    for node in pair:
        assert not node.home.work(job_id).exists() and not node.home.job(job_id).exists()


def test_the_nonce_of_an_old_session_is_refused(pair, monkeypatch):
    from parties.transport import session as session_module

    monkeypatch.setattr(session_module.secrets, "token_bytes", lambda n: b"\7" * n)
    with pair[0].client() as client:
        first = client.submit(nodes.request("brand-prov"))
    ours, _ = _end(pair, first)
    assert ours["error"]["code"] == "transport.nonce"  # both sides drew the same one: an echo


def test_a_changed_job_of_the_same_id_is_refused_and_the_same_one_is_not(pair):
    brand, prov = pair
    now = documents.now()
    spec = {
        "job_id": "twice",
        "kind": "probe",
        "purpose": nodes.PURPOSE,
        "brand": "brand",
        "provider": "prov",
        "agreement_id": "brand-prov",
        "datasets": {"brand": "people", "provider": "people"},
        "categories": [nodes.CATEGORY],
        "columns": [],
        "params": {},
        "outputs": {},
        "created_at": documents.timestamp(now),
        "expires_at": documents.timestamp(now.replace(year=now.year + 1)),
        "private_commitment": "",
    }

    def propose(line, body):
        signed = documents.canonical(brand.home.identity.sign("job", body))
        return line.call(line.peer.Propose, node_pb2.ProposeRequest(spec=signed))

    with _line(brand.home, prov) as line:
        assert propose(line, spec).state == "approved"
        assert propose(line, spec).state == "approved"
        with pytest.raises(NodeError, match="job.changed"):
            propose(line, {**spec, "params": {"size": 1}})
        with pytest.raises(NodeError, match="job.changed"):
            line.call(line.peer.GetJob, node_pb2.JobRequest(job_id="twice", spec_hash=b"\0" * 32))
        forged = brand.home.identity.sign("job", {**spec, "job_id": "forged"})
        forged["document"]["params"] = {"size": 2}
        with pytest.raises(NodeError, match="document.signature"):
            line.call(line.peer.Propose, node_pb2.ProposeRequest(spec=documents.canonical(forged)))
        frame = node_pb2.Frame(job_id="never", sequence=1, stage="open", control=b"{}")
        with pytest.raises(grpc.RpcError, match="job.unknown"):
            list(line.session(iter([frame])))
    assert "job.changed" in prov.events()


# -- who may call what ---------------------------------------------------------------------------------------


def test_a_peer_has_no_access_to_the_operators_service_nor_the_operator_to_the_peers(pair):
    brand, prov = pair
    request = node_pb2.OperatorRequest(method="status", body=b"{}")
    with _line(brand.home, prov) as line, pytest.raises(NodeError, match="transport.role"):
        line.call(line.operator.Call, request)
    with _line(brand.home, prov) as line, pytest.raises(NodeError, match="transport.role"):
        list(line.stream(line.operator.Watch, request, 5))
    assert "transport.role" in prov.events()
    own = _line(prov.home, prov)
    with own, pytest.raises(NodeError, match="transport.role"):
        own.call(
            own.peer.Hello,
            node_pb2.HelloRequest(version=PROTOCOL_VERSION, party="prov", unix_seconds=int(time.time())),
        )


def test_hello_refuses_another_version_and_a_clock_that_is_wrong(pair):
    brand, prov = pair
    with _line(brand.home, prov) as line:
        ask = node_pb2.HelloRequest(version=PROTOCOL_VERSION, party="brand", unix_seconds=int(time.time()))
        assert line.call(line.peer.Hello, ask).party == "prov"
        with pytest.raises(NodeError, match="transport.version"):
            ask = node_pb2.HelloRequest(version=PROTOCOL_VERSION - 1, unix_seconds=int(time.time()))
            line.call(line.peer.Hello, ask)
        with pytest.raises(NodeError, match="transport.clock"):
            line.call(
                line.peer.Hello,
                node_pb2.HelloRequest(version=PROTOCOL_VERSION, unix_seconds=int(time.time()) - 3600),
            )


# -- causes --------------------------------------------------------------------------------------------------


def test_each_cause_of_a_failed_connection_has_its_own_code(pair, tmp_path):
    brand, prov = pair
    keys, certificate = brand.home.identity, prov.home.identity.certificate

    def cause(address, with_keys=keys, seconds=20.0):
        found = diagnose(with_keys, address, certificate, "prov", seconds)
        return None if found is None else found.code

    assert cause(prov.server.address) is None
    assert cause("no-such-host.invalid:1") == "transport.name"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert cause(f"127.0.0.1:{free.getsockname()[1]}") == "transport.unreachable"
    assert cause(brand.server.address) == "transport.certificate"
    stranger = identity.create(tmp_path / "keys", "stranger")
    assert cause(prov.server.address, stranger) == "transport.refused"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert cause(f"127.0.0.1:{mute.getsockname()[1]}", seconds=1.0) == "transport.silent"
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(
            target=lambda: plain.accept()[0].sendall(b"HTTP/1.1 400 no\r\n\r\n"), daemon=True
        ).start()
        assert cause(f"127.0.0.1:{plain.getsockname()[1]}") == "transport.tls"


def test_a_peer_that_is_trusted_while_the_node_runs_can_connect_and_a_removed_one_can_not(pair, tmp_path):
    _, prov = pair
    late = nodes.make_home(tmp_path, "late")
    ask = node_pb2.HelloRequest(version=PROTOCOL_VERSION, party="late", unix_seconds=int(time.time()))
    with _line(late, prov) as line, pytest.raises(NodeError, match="transport.refused"):
        line.call(line.peer.Hello, ask)
    with prov.client() as operator:
        operator.trust(late.card("127.0.0.1:1"))
    with _line(late, prov) as line:
        assert line.call(line.peer.Hello, ask).party == "prov"
        (prov.home.path / "peers" / "late.json").unlink()
        with pytest.raises(NodeError, match="transport.role"):
            line.call(line.peer.Hello, ask)


# -- frames alone --------------------------------------------------------------------------------------------


def _connected(**options):
    """Two lines whose outgoing frames are each other's incoming ones."""
    brand, provider = Link("j", b"h", "brand", **options), Link("j", b"h", "provider", **options)
    brand.attach(provider.outgoing(), lambda e: NodeError("transport.lost", str(e)))
    provider.attach(brand.outgoing(), lambda e: NodeError("transport.lost", str(e)))
    return brand, provider


def test_frames_arrive_in_order_and_both_chains_agree():
    brand, provider = _connected(heartbeat_seconds=0.05)
    for number in range(50):
        brand.send("payload", bytes([number]) * number)
        time.sleep(0.002)
    assert [provider.receive("payload")[1] for _ in range(50)] == [bytes([n]) * n for n in range(50)]
    brand.flush()
    assert brand.sent.value == provider.received.value and brand.sent.frames == 50
    brand.close()
    with pytest.raises(NodeError, match="transport.truncated"):
        provider.receive("payload")
    provider.close()


def test_when_both_send_first_what_exceeds_memory_goes_to_disk(tmp_path):
    brand, provider = _connected(spool_dir=tmp_path)
    body, count = b"z" * MAX_MESSAGE, 2 * INBOX_BYTES // MAX_MESSAGE
    results = {}

    def side(link):
        for _ in range(count):
            link.send("payload", body)
        results[link] = all(link.receive("payload")[1] == body for _ in range(count))

    threads = [threading.Thread(target=side, args=(link,)) for link in (brand, provider)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert results == {brand: True, provider: True}
    brand.close()
    provider.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_not_called_a_broken_line():
    link, other = _connected()
    link._spool = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 - the link closes it
    with pytest.raises(NodeError, match=r"node\.disk.*No space left"):
        link._to_spool(b"body")
    link.close()
    other.close()


def test_a_reader_that_does_not_read_makes_the_sender_wait():
    brand, provider = _connected()
    sent = []

    def push():
        while True:
            brand.send("payload", b"z" * (1 << 20 >> 1))
            sent.append(1)

    def run():
        with pytest.raises(NodeError):
            push()

    thread = threading.Thread(target=run)
    thread.start()
    stuck = -1
    while stuck < len(sent):  # until it stands still
        stuck = len(sent)
        time.sleep(0.3)
        assert len(sent) <= INBOX_BYTES // (1 << 19) + frames_module.OUTBOX + 4
    provider.receive("payload")
    brand.fail(NodeError("job.cancelled", "enough"))
    thread.join(240)
    assert not thread.is_alive()
    brand.close(drain_seconds=0.1)
    provider.close(drain_seconds=0.1)


def test_a_silent_peer_is_noticed_and_a_busy_one_is_not():
    brand, provider = _connected(silence_seconds=2.5, heartbeat_seconds=0.1)
    threading.Timer(3.0, lambda: provider.send("payload", b"late")).start()
    assert brand.receive("payload")[1] == b"late"  # signs of life came meanwhile
    alone = Link("j", b"h", "brand", silence_seconds=0.3)
    start = time.monotonic()
    with pytest.raises(NodeError, match="transport.silent"):
        alone.receive("payload")
    assert time.monotonic() - start < 20  # and not 60, as without the setting
    brand.close()
    provider.close()


def test_a_machine_that_stood_still_does_not_take_its_peer_for_silent(monkeypatch):
    """What the peer said meanwhile comes a moment later."""
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(frames_module, "time", clock)
    link = Link("j", b"h", "brand", silence_seconds=8.0)
    waits = link._changed.wait

    def stands_still(seconds):
        waits(0.01)
        passed[0] += seconds + (1000.0 if passed[0] < 6 else 0.0)

    monkeypatch.setattr(link._changed, "wait", stands_still)
    with pytest.raises(NodeError, match=r"transport\.silent.* for [89] s"):
        link.receive("payload")
    assert passed[0] == pytest.approx(1000 + 9, abs=1.5)
    link.close(drain_seconds=0.1)


def test_an_abort_carries_a_code_and_nothing_that_is_not_a_code():
    brand, provider = _connected()
    brand.close({"code": "consent.nobody", "detail": "none"}, drain_seconds=0.2)
    with pytest.raises(PeerFailed) as caught:
        provider.receive("payload")
    assert (caught.value.code, caught.value.detail) == ("consent.nobody", "the peer reports: none")
    assert frames_module.peer_failed("<b>", 3).code == "peer.failed"
    provider.close()


def test_a_message_of_the_largest_size_fits_and_a_larger_one_is_refused_here():
    brand, provider = _connected()
    brand.send("payload", b"m" * MAX_MESSAGE)
    assert len(provider.receive("payload")[1]) == MAX_MESSAGE
    with pytest.raises(NodeError, match="transport.too_large"):
        brand.send("payload", b"m" * MAX_FRAME)
    brand.close()
    provider.close()


def test_the_committed_stubs_are_what_gen_proto_makes(tmp_path):
    loader = importlib.machinery.SourceFileLoader("gen_proto", str(ROOT / "scripts" / "gen_proto"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gen_proto", loader))
    loader.exec_module(module)
    module.generate(tmp_path)
    for name in ("node_pb2.py", "node_pb2.pyi", "node_pb2_grpc.py"):
        assert (tmp_path / name).read_text() == (ROOT / "parties" / "transport" / name).read_text(), (
            "run scripts/gen_proto"
        )
