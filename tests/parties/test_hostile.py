"""A trusted peer that does not keep to the rules: what it tries, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from datetime import timedelta
from types import SimpleNamespace

import grpc
import nodes
import numpy as np
import pair as harness
import pytest
import real_job
from test_engine import _until

from consent_center import snapshot
from consent_center.center import Center
from parties import bundle, documents, runner
from parties.datasets import Dataset
from parties.documents import JobSpec
from parties.errors import NodeError
from parties.kinds import common, enriching, transfer
from parties.runner import Runner, error_record
from parties.store import Job
from parties.transport import frames, node_pb2, server
from parties.transport.frames import INBOX_BYTES, Link
from parties.transport.session import Session

LEASE = 30.0
SETTINGS = "heartbeat_seconds = 0.3\npoll_seconds = 0.2\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    brand = nodes.LocalNode(nodes.make_home(folder, "brand", ("prov",), settings=SETTINGS))
    short = SETTINGS + f"lease_seconds = {LEASE}\n"
    prov = nodes.LocalNode(nodes.make_home(folder, "prov", ("brand",), settings=short))
    nodes.introduce(brand, prov)
    nodes.agree(brand.home, prov.home)
    yield brand, prov
    brand.stop()
    prov.stop()


def _both(pair, job_id):
    with pair[0].client() as brand, pair[1].client() as prov:
        return brand.wait(job_id, 120), prov.wait(job_id, 120)


def _spec(pair, job_id, **changes):
    now = documents.now()
    value = {
        **nodes.request("x", columns=[], params={}, outputs={}),
        "job_id": job_id,
        "brand": "brand",
        "provider": "prov",
        "agreement_id": "brand-prov",
        "created_at": documents.timestamp(now - timedelta(hours=2)),
        "expires_at": documents.timestamp(now + timedelta(hours=1)),
        "private_commitment": "",
    }
    del value["agreement"]
    return pair[0].home.identity.sign("job", {**value, **changes})


class _Timer:
    """A `threading.Timer` whose time comes when the test says so."""

    set_: list[_Timer] = []

    def __init__(self, seconds, call):
        self.seconds, self.call = seconds, call

    def start(self):
        self.set_.append(self)

    def cancel(self):
        self.call = lambda: None


def test_streams_that_say_nothing_do_not_lock_the_operator_out(pair, monkeypatch):
    timers = []
    monkeypatch.setattr(_Timer, "set_", timers)
    monkeypatch.setattr(server, "threading", SimpleNamespace(**{**vars(threading), "Timer": _Timer}))
    brand, prov = pair
    over = threading.Event()

    def nothing():
        over.wait(240)
        yield from ()

    with brand.engine.connect(brand.home.peer("prov")) as line:
        calls = [line.peer.Session(nothing()) for _ in range(server.WORKERS)]
        try:
            most = prov.home.settings.max_jobs + server.SPARE_SESSIONS
            nodes.until(lambda: sum(call.done() for call in calls) == server.WORKERS - most)
            with prov.client() as operator:  # while the others say nothing
                assert operator.status()["party"] == "prov"
            assert len(timers) == most == sum(not call.done() for call in calls)
            assert {timer.seconds for timer in timers} == {server.FIRST_FRAME_SECONDS}
            for timer in timers:
                timer.call()
            ended = [call.code() for call in calls]  # waits until each has ended
            busy, cut = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.CANCELLED
            assert set(ended) == {busy, cut}
            assert ended.count(cut) == most
        finally:
            over.set()
            for call in calls:
                call.cancel()


@pytest.fixture
def later(monkeypatch):
    """Lets so many seconds pass for lines and leases, at once."""
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    for module in (frames, runner):
        monkeypatch.setattr(module, "time", clock)

    def later(seconds):
        passed[0] += seconds

    return later


def test_a_stage_can_not_be_stretched_beyond_the_look_at_the_consent(pair, tmp_path, later):
    params = {"mark": str(tmp_path), "wait_in": "brand.tell"}
    with pair[0].client() as brand:
        job_id = brand.submit(nodes.request("brand-prov", params=params))
    nodes.until((tmp_path / "brand-tell").exists)
    nodes.until((tmp_path / "provider-tell").exists)
    later(LEASE)
    ours, theirs = _both(pair, job_id)
    assert (ours["error"]["code"], theirs["error"]["code"]) == ("consent.lease", "consent.lease")


def test_a_job_may_be_held_longer_than_a_stage_may_last_but_not_beyond_its_agreement(
    pair, monkeypatch, later
):
    with pair[0].client() as brand, pair[1].client() as prov:
        kept = brand.submit(nodes.request("brand-prov", hold_before="tell"))
        late = brand.submit(nodes.request("brand-prov", hold_before="tell"))
        _until(prov, kept, "held")
        _until(prov, late, "held")
        later(LEASE + 1)
        brand.resume(kept)
        assert _both(pair, kept)[1]["state"] == "succeeded"
        then = documents.now() + timedelta(days=2)
        monkeypatch.setattr(documents, "now", lambda: then)
        brand.resume(late)
        ours, theirs = _both(pair, late)
    assert (ours["error"]["code"], theirs["error"]["code"]) == ("agreement.expired", "agreement.expired")
    assert "tell" not in [stage["name"] for stage in theirs["stages"]]


def test_an_approval_is_good_until_the_jobs_own_end(pair):
    prov = pair[1]
    signed = _spec(pair, "late", expires_at=documents.timestamp(documents.now() - timedelta(hours=1)))
    prov.store.add(Job("late", "provider", "probe", "brand", signed, state="approved"))
    peer = prov.home.peer("brand")
    with pytest.raises(NodeError, match=r"job\.expired"):
        next(prov.engine.session(peer, node_pb2.Frame(job_id="late"), iter(()), lambda callback: None))
    assert prov.store.get("late").state == "rejected"


def test_a_refusal_that_was_not_written_for_the_peer_is_not_told_later_either(pair):
    brand, prov = pair
    signed = _spec(pair, "few")
    error = NodeError("agreement.minimum_rows", "17 eligible people, the agreement asks for 100")
    prov.store.add(
        Job("few", "provider", "probe", "brand", signed, state="rejected", error=error_record(error))
    )
    request = node_pb2.JobRequest(job_id="few", spec_hash=documents.hash_of(signed["document"]))
    with brand.engine.connect(brand.home.peer("prov")) as line:
        reply = line.call(line.peer.GetJob, request)
    assert (reply.state, reply.code) == ("rejected", "agreement.minimum_rows")
    assert "17" not in reply.detail and reply.detail


def test_a_taken_job_id_tells_nothing_about_another_partys_job(pair):
    brand, prov = pair
    signed = _spec(pair, "taken", kind="overlap")
    prov.store.add(Job("taken", "provider", "probe", "somebody", signed, state="succeeded"))
    mine = _spec(pair, "taken")
    with brand.engine.connect(brand.home.peer("prov")) as line, pytest.raises(NodeError) as caught:
        line.call(line.peer.Propose, node_pb2.ProposeRequest(spec=documents.canonical(mine)))
    assert caught.value.code == "job.changed"
    assert documents.hash_of(signed["document"]).hex()[:8] not in caught.value.detail


def test_a_job_is_held_once():
    class _Script:
        def __init__(self, *types):
            self.messages = [{"type": name} for name in types]
            self.stage = ""

        def receive_control(self, *types):
            return self.messages.pop(0)

    seen = []
    session = Session(_Script("hold", "resume", "hold"), "provider", "j", bytes(32))  # type: ignore[arg-type]
    with pytest.raises(NodeError, match=r"transport\.flood"):
        session.boundary("score", 1, seen.append)
    assert seen == [True, False]


def test_frames_without_a_body_do_not_fill_the_memory():
    link = Link("j", bytes(32), "provider")
    many = INBOX_BYTES // frames._QUEUED
    taken = []

    def flood():
        for number in range(1, 2 * many):
            taken.append(number)
            yield node_pb2.Frame(job_id="j", sequence=number, stage="open", payload=b"")

    link.attach(flood(), lambda error: NodeError("transport.lost", str(error)))
    before = -1
    while len(taken) <= many or before < len(taken):  # until it stands still
        before = len(taken)
        time.sleep(0.3)
        assert before <= many + 3
    assert many <= len(taken) <= many + 3
    link.close()


def test_a_compressed_bundle_is_refused_before_it_is_unpacked():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest", *bundle.MEMBERS):
            archive.writestr(f"{name}.json", json.dumps({"a": list(range(500))}))
        archive.comment = b"x" * 60000
    broken = bytearray(out.getvalue())
    start = broken.index(b"manifest.json") + len("manifest.json")
    broken[start : start + 40] = bytes(40)
    report = bundle.verify_bytes(bytes(broken))
    assert not report.ok and "compressed" in report.checks[0][2]


def test_a_table_wider_than_its_schema_is_refused(tmp_path, monkeypatch):
    class _Wide(enriching.enrich.Sender):
        def __init__(self, items, records, *rest):
            super().__init__(items, np.pad(records, ((0, 0), (0, 4000))), *rest)

    monkeypatch.setattr(enriching.enrich, "Sender", _Wide)
    sides = {}
    for role in ("brand", "provider"):
        file = tmp_path / f"{role}.csv"
        file.write_text("phone,age\n" + "".join(f"1380000{n:04d},{n}\n" for n in range(40)))
        dataset = Dataset("people", str(file), "phone", "phone", {"age": "profile"})
        sides[role] = harness.Side(dataset, harness.ScriptedCenter())
    done = harness.run_job(
        harness.spec("enrich", columns=["age"]), harness.agreement(), sides, tmp_path / "w"
    )
    assert done.errors["brand"].code == "protocol.too_large"


def test_how_many_were_asked_about_is_in_the_providers_ledger_and_bundle(tmp_path):
    brand, provider = real_job.people(120)
    homes = {
        "brand": real_job.make_home(tmp_path, "acme", "dataco", brand, "手机"),
        "provider": real_job.make_home(tmp_path, "dataco", "acme", provider, "phone"),
    }
    terms = nodes.terms(
        "acme", "dataco", id="a1", kinds=["overlap"], preapproved=[], categories=list(real_job.CATEGORIES)
    )
    real_job.introduce(homes["brand"], homes["provider"], terms)
    outcome = real_job.run(homes, real_job.spec_of("overlap", "job-asked"), {})
    assert isinstance(outcome["provider"], dict), outcome
    path = homes["provider"].job("job-asked") / bundle.NAME
    with zipfile.ZipFile(path) as archive:
        leaves = json.loads(archive.read("ledger.json"))["leaves"]
    asked = [leaf["opening"]["payload"] for leaf in leaves if leaf["opening"]["kind"] == "job.asked"]
    assert asked == [{"job": "job-asked", "asked_at_most": 256}]
    assert bundle.verify(path).ok
    assert Center.open(homes["provider"].path / "consent").verifier_key()


def test_the_fit_is_not_narrowed_to_a_few_people(tmp_path, monkeypatch):
    def only_a_few(ctx, label):
        mask = np.zeros(ctx.view.rows, dtype=bool)
        mask[:19] = True
        ctx.channel.run(transfer.Sender(np.packbits(mask), label, ctx.channel.session(label)), label)
        return mask

    monkeypatch.setattr(common, "send_alive", only_a_few)
    sides = {}
    for role, secret in (("brand", {"label": "age"}), ("provider", {})):
        file = tmp_path / f"{role}.csv"
        file.write_text("phone,age\n" + "".join(f"1380000{n:04d},1\n" for n in range(60)))
        dataset = Dataset("people", str(file), "phone", "phone", {"age": "profile"})
        sides[role] = harness.Side(dataset, harness.ScriptedCenter(), secret)
    terms = harness.agreement(minimum_seeds=5)
    done = harness.run_job(harness.spec("lookalike", columns=["age"]), terms, sides, tmp_path / "w")
    assert done.errors["brand"].code == "agreement.minimum_rows"


@pytest.mark.parametrize("covered", [[], ["identity", "finance"], "identity", None])
def test_a_snapshot_for_other_categories_is_refused_before_anything_is_computed(pair, covered):
    brand, prov = pair
    signer = brand.center._keys.signer
    signed = _spec(pair, "other")
    document = {
        "center": signer.name,
        "job_id": "other",
        "purpose": nodes.PURPOSE,
        "recipient": "prov",
        "controller": "brand",
        "categories": [nodes.CATEGORY],
        "token_root": "00" * 32,
    }
    runner = Runner.__new__(Runner)
    runner.job = Job("other", "provider", "probe", "brand", signed)
    runner.spec = JobSpec.from_json(signed["document"])
    runner.home, runner.peer = prov.home, prov.home.peer("brand")

    def check(document):
        made = base64.b64encode(snapshot.sign(signer, document)).decode()
        runner._check_snapshot({"document": document, "signature": made})

    check(document)
    with pytest.raises(NodeError, match=r"consent\.snapshot.*categories"):
        check({**document, "categories": covered})
