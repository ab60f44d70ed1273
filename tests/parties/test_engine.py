"""Jobs between two nodes of one process: approval, refusals, hold, consent, cancelling, restart."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import nodes
import pytest

from consent_center.model import ConsentEvent
from parties import bundle, documents
from parties.engine import Engine
from parties.errors import NodeError
from parties.store import FINAL, TRANSITIONS, Job, Store


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A brand and a provider that trust each other; agreement `brand-prov` preapproves, `ask` does not."""
    with nodes.two(tmp_path_factory.mktemp("pair")) as (brand, prov):
        nodes.agree(brand.home, prov.home)
        nodes.agree(brand.home, prov.home, id="ask", preapproved=[])
        past = documents.timestamp(documents.now() - timedelta(minutes=1))
        earlier = documents.now() - timedelta(minutes=30)
        with pytest.MonkeyPatch.context() as patch:  # one that is over is not signed: it was, while it held
            patch.setattr(documents, "now", lambda: earlier)
            nodes.agree(brand.home, prov.home, id="over", expires_at=past)
        nodes.agree(brand.home, prov.home, id="many", minimum_rows=21)
        yield brand, prov


@pytest.fixture
def clients(pair):
    brand, prov = pair
    with brand.client() as b, prov.client() as p:
        yield b, p


def _until(client, job_id, *states, seconds=120.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return client.wait(job_id, seconds, until=states)
        except NodeError as error:  # the proposal may not have arrived yet
            if error.code != "job.unknown" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _both(clients, job_id):
    return clients[0].wait(job_id, 120), clients[1].wait(job_id, 120)


def test_a_job_runs_on_both_sides_and_leaves_results_rows_and_a_bundle(pair, clients):
    job_id = clients[0].submit(nodes.request("brand-prov", private={"where": "phone > '1'"}))
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"]) == ("succeeded", "succeeded")
    assert ours["result"]["same"] is True
    for client, view in zip(clients, (ours, theirs), strict=True):
        assert sorted(view["files"]) == ["audit.zip", "job.json", "result.txt", "rows.npy"]
        assert sorted(client.rows(job_id)) == list(range(20))
        assert [s["name"] for s in view["stages"]] == ["swap", "tell"]
        assert view["bytes_sent"] > 300 and view["seconds"] > 0
        assert view["counts"] == {"own": {"in": 20, "out": {}}}
        assert bundle.verify(view["audit"]).ok
    assert ours["bytes_sent"] == theirs["bytes_received"]
    # The brand's private parameters never cross; only their commitment does.
    assert "phone > '1'" not in json.dumps(theirs)
    assert len(theirs["spec"]["private_commitment"]) == 64
    kinds = [kind for kind, _ in pair[0].store.leaves(job_id)]
    assert kinds.count("job.state") == 5 and "probe.told" in kinds and "job.closing" in kinds


def test_both_sides_may_send_far_more_than_a_buffer_before_they_read(pair, clients):
    params = {"messages": 40, "size": 1_000_000}
    ours, theirs = _both(clients, clients[0].submit(nodes.request("brand-prov", params=params)))
    assert ours["result"]["total"] == theirs["result"]["total"] == 40_000_000


def test_without_preapproval_the_operator_is_asked(clients):
    brand, prov = clients
    job_id = brand.submit(nodes.request("ask"))
    waiting = _until(prov, job_id, "awaiting_approval")
    assert waiting["leakage"]["provider"] == ["the brand's count"]
    assert _until(brand, job_id, "awaiting_approval")["state"] == "awaiting_approval"
    with pytest.raises(NodeError, match="job.state"):
        brand.approve(job_id)
    prov.approve(job_id, "fine")
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"], theirs["note"]) == ("succeeded", "succeeded", "fine")
    with pytest.raises(NodeError, match="job.state"):
        prov.approve(job_id)


def test_a_declined_job_is_rejected_on_both_sides_with_the_reason(clients):
    job_id = clients[0].submit(nodes.request("ask"))
    _until(clients[1], job_id, "awaiting_approval")
    clients[1].reject(job_id, "not this quarter")
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"]) == ("rejected", "rejected")
    assert ours["error"]["code"] == theirs["error"]["code"] == "job.rejected"
    assert "not this quarter" in ours["error"]["detail"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"agreement": "none", "peer": "prov"}, "agreement.unknown"),
        ({"agreement": "over"}, "agreement.expired"),
        ({"purpose": "resale"}, "agreement.purpose"),
        ({"categories": ["health"]}, "agreement.category"),
        ({"params": {"bad": True}}, "job.spec"),
        ({"datasets": {"brand": "people", "provider": "other"}}, "job.spec"),
        ({"columns": ["incom"]}, "dataset.category"),
        ({"agreement": "many"}, "agreement.minimum_rows"),
    ],
)
def test_refusals_have_one_code_on_both_sides(pair, clients, monkeypatch, changes, code):
    """The provider refuses, also if the brand's node has not looked at its own copy of the agreement."""
    monkeypatch.setattr(pair[0].engine, "_allowed", lambda *_: None)
    ours, theirs = _both(clients, clients[0].submit(nodes.request("brand-prov") | changes))
    assert (ours["state"], theirs["state"]) == ("rejected", "rejected")
    assert ours["error"]["code"] == theirs["error"]["code"] == code
    assert ours["path"] is None and theirs["path"] is None


def test_nobody_eligible_is_refused_and_only_the_own_side_sees_counts(tmp_path, pair, clients):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="news", purposes=["news"])
    ours, theirs = _both(clients, clients[0].submit(nodes.request("news", purpose="news")))
    assert (ours["state"], theirs["state"]) == ("rejected", "rejected")
    assert ours["error"]["code"] == theirs["error"]["code"] == "consent.assessment", "PIPL 55: none on file"
    for node, other in ((brand, "prov"), (prov, "brand")):
        with node.home.center() as center:
            center.put_purpose(nodes.Purpose("news", 1, {"en": "news"}, (nodes.CATEGORY,)))
            nodes.file_assessment(center, "news", other, "none: a test", "test")
    ours, theirs = _both(clients, clients[0].submit(nodes.request("news", purpose="news")))
    assert (ours["state"], theirs["state"]) == ("rejected", "rejected")
    assert ours["error"]["code"] == theirs["error"]["code"] == "consent.nobody"
    blamed = {view["error"]["origin"]: view["error"] for view in (ours, theirs)}
    assert sum(blamed["here"]["counts"].values()) == 20
    assert all(not view["error"]["counts"] for view in (ours, theirs) if view["error"]["origin"] == "peer")


def test_a_failing_stage_tells_the_peer_the_code_and_nothing_else(pair, clients):
    params = {"fail_in": "provider.tell"}
    job_id = clients[0].submit(nodes.request("brand-prov", params=params))
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"]) == ("failed", "failed")
    assert ours["error"]["code"] == theirs["error"]["code"] == "rows.unreadable"
    assert "4711" in theirs["error"]["detail"] and "4711" not in json.dumps(ours)
    for node in pair:
        assert not node.home.job(job_id).exists() and not node.home.work(job_id).exists()


def test_a_held_job_waits_and_a_withdrawal_meanwhile_counts(pair, clients):
    brand, prov = pair
    job_id = clients[0].submit(nodes.request("brand-prov", hold_before="tell"))
    assert _until(clients[0], job_id, "held")["state"] == "held"
    assert _until(clients[1], job_id, "held")["state"] == "held"
    event = ConsentEvent(
        identifiers=(("phone", nodes.phones(3, 1)[0]),),
        purpose=nodes.PURPOSE,
        purpose_version=1,
        action="withdrawn",
        recipient="brand",
        categories=(nodes.CATEGORY,),
        occurred_at=datetime.now(UTC),
    )
    prov.center.record(event)
    clients[0].resume(job_id)
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"]) == ("succeeded", "succeeded")
    assert (ours["result"]["dropped"], theirs["result"]["dropped"]) == (0, 1)
    assert theirs["consent"][-1]["dropped"] == 1
    assert bundle.verify(theirs["audit"]).ok


def test_a_purpose_that_is_switched_off_stops_the_job_on_both_sides(pair, clients):
    job_id = clients[0].submit(nodes.request("brand-prov", hold_before="tell"))
    _until(clients[0], job_id, "held")
    pair[1].center.switch_purpose(nodes.PURPOSE, False, "test")
    try:
        clients[0].resume(job_id)
        ours, theirs = _both(clients, job_id)
    finally:
        pair[1].center.switch_purpose(nodes.PURPOSE, True, "test")
    assert (ours["state"], theirs["state"]) == ("stopped_by_consent", "stopped_by_consent")
    assert ours["error"]["code"] == theirs["error"]["code"] == "consent.purpose_off"
    assert not pair[0].home.work(job_id).exists()


def test_an_assessment_that_ends_stops_the_job_on_both_sides(pair, clients):
    job_id = clients[0].submit(nodes.request("brand-prov", hold_before="tell"))
    _until(clients[0], job_id, "held")
    kept = pair[1].center.assessments()
    for one in kept:
        pair[1].center.put_assessment(replace(one, status="withdrawn"))
    try:
        clients[0].resume(job_id)
        ours, theirs = _both(clients, job_id)
    finally:
        for one in kept:
            pair[1].center.put_assessment(one)
    assert (ours["state"], theirs["state"]) == ("stopped_by_consent", "stopped_by_consent")
    assert ours["error"]["code"] == theirs["error"]["code"] == "consent.assessment_ended"
    assert not pair[0].home.work(job_id).exists()


@pytest.mark.parametrize("side", [0, 1])
def test_either_side_may_cancel_a_running_job(clients, side):
    job_id = clients[0].submit(nodes.request("brand-prov", hold_before="swap"))
    _until(clients[1], job_id, "held")
    clients[side].cancel(job_id, "changed our mind")
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"]) == ("cancelled", "cancelled")
    assert "changed our mind" in (theirs if side == 0 else ours)["error"]["detail"]


def test_a_waiting_job_may_be_cancelled_by_the_brand(clients):
    job_id = clients[0].submit(nodes.request("ask"))
    _until(clients[1], job_id, "awaiting_approval")
    clients[0].cancel(job_id)
    ours, theirs = _both(clients, job_id)
    assert (ours["state"], theirs["state"]) == ("cancelled", "cancelled")


def test_the_peer_must_have_an_agreement_too(pair, clients):
    """The brand's own copy counts as well: a provider that accepts does not make up for it."""
    brand, prov = pair
    id_ = "lost"
    nodes.agree(brand.home, prov.home, id=id_)
    (brand.home.path / "agreements" / f"{id_}.json").unlink()
    ours, theirs = _both(clients, clients[0].submit(nodes.request(id_, peer="prov")))
    assert (ours["state"], theirs["state"]) == ("rejected", "rejected")
    assert ours["error"]["code"] == theirs["error"]["code"] == "agreement.unknown"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kind": "unheard"}, "job.kind"),
        ({"peer": "stranger"}, "identity.unknown_peer"),
        ({"datasets": {"brand": "none", "provider": "people"}}, "dataset.unknown"),
        ({"datasets": {"brand": "people"}}, "document.type"),
        ({"hold_before": "nowhere"}, "node.request"),
        ({"job_id": "../escape"}, "document.type"),
        ({"surprise": 1}, "node.request"),
    ],
)
def test_a_malformed_request_is_refused_at_once(clients, changes, code):
    before = len(clients[0].jobs())
    with pytest.raises(NodeError) as caught:
        clients[0].submit(nodes.request("brand-prov") | changes)
    assert caught.value.code == code
    assert len(clients[0].jobs()) == before


def test_watch_ends_with_the_final_state_and_shows_what_came_before(clients):
    job_id = clients[0].submit(nodes.request("brand-prov"))
    states = [view["state"] for view in clients[0].watch(job_id, 20)]
    assert states[-1] == "succeeded"
    assert [s for s in states if s in FINAL] == ["succeeded"]


def test_no_job_leaves_the_transition_table(tmp_path):
    store = Store(tmp_path / "node.db")
    for state, after in TRANSITIONS.items():
        for wanted in TRANSITIONS:
            job_id = f"{state}-{wanted}"
            store.add(Job(job_id, "brand", "probe", "prov", {"document": {}}, state=state))
            if wanted in after:
                assert store.move(job_id, wanted).state == wanted
            else:
                with pytest.raises(NodeError, match="job.state"):
                    store.move(job_id, wanted)
                assert store.get(job_id).state == state
    assert store.add(Job("draft-draft", "brand", "probe", "prov", {})) is False
    store.close()


def test_a_nonce_is_good_once(tmp_path):
    store = Store(tmp_path / "node.db")
    store.use_nonce("a", b"n" * 32)
    with pytest.raises(NodeError, match="transport.nonce"):
        store.use_nonce("b", b"n" * 32)
    store.close()


def test_what_was_running_when_the_node_died_is_failed_at_the_next_start(tmp_path):
    home = nodes.make_home(tmp_path, "brand", ("prov",))
    store = Store(home.path / "node.db")
    store.add(Job("left", "brand", "probe", "prov", {"document": {}}, state="running"))
    store.close()
    (home.path / "work" / "left").mkdir()
    (home.path / "work" / "left" / "half.txt").write_text("half")
    node = nodes.LocalNode(home)
    try:
        job = node.store.get("left")
        assert (job.state, job.error["code"]) == ("failed", "node.interrupted")
        assert not any((home.path / "work").iterdir())
    finally:
        node.stop()


def test_rows_of_a_job_that_did_not_succeed_are_an_error(clients):
    with pytest.raises(NodeError, match="job.result"):
        clients[0].rows("never-was")


def test_progress_is_visible_while_a_stage_runs(clients, tmp_path):
    params = {"mark": str(tmp_path), "wait_in": "provider.tell"}
    job_id = clients[0].submit(nodes.request("brand-prov", params=params))
    wanted = {"stage": "swap", "what": "swap", "done": 1, "total": 1}.items()
    running = shown = False
    for view in clients[0].watch(job_id, 30):
        if view["stages"] and not view["final"]:
            running |= view["stages"][-1]["state"] == "running"
            shown |= bool(view["progress"]) and wanted <= view["progress"].items()
        if running and shown:
            (tmp_path / "go").touch()
    assert running and shown


def _waits_for(check, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_proposal_outlives_both_nodes_and_an_end_is_told_later(tmp_path):
    """The brand's node, then the provider's, then both are stopped for an update while a job waits."""
    homes = [
        nodes.make_home(tmp_path, "brand", ("prov",), settings="poll_seconds = 0.1\n"),
        nodes.make_home(tmp_path, "prov", ("brand",)),
    ]
    both = [nodes.LocalNode(home) for home in homes]
    try:
        nodes.introduce(*both)
        nodes.agree(*homes, preapproved=[])
        with both[0].client() as client:
            kept, ended, late = (client.submit(nodes.request("brand-prov", job_id=j)) for j in "kel")
        for job_id in (kept, ended, late):
            _waits_for(lambda id_=job_id: both[0].store.get(id_).state == "awaiting_approval")
        both[0].stop()
        both[0] = nodes.LocalNode(homes[0])
        nodes.introduce(*both)
        assert both[0].store.get(kept).state == "awaiting_approval"
        both[1].stop()
        both[0].engine.cancel(ended, "no budget")  # the provider can't hear it now
        _waits_for(lambda: both[0].store.get(ended).untold)
        both[0].stop()
        both = [nodes.LocalNode(home) for home in homes]
        nodes.introduce(*both)
        _waits_for(lambda: both[1].store.get(ended).state == "cancelled")
        assert "no budget" in both[1].store.get(ended).error["detail"]
        with pytest.raises(NodeError, match=r"job\.state"):
            both[1].engine.approve(ended)
        both[1].engine.approve(kept)
        _waits_for(lambda: both[1].store.get(kept).state == both[0].store.get(kept).state == "succeeded")
        _waits_for(lambda: not both[0].store.get(ended).untold)
        assert both[0].store.get(late).state == "awaiting_approval"
        assert "node.stopping" not in {(j.error or {}).get("code") for j in both[0].store.all()}
    finally:
        for node in both:
            node.stop()


def test_what_an_earlier_process_left_is_removed_before_a_job_begins(tmp_path):
    """A job that waits may begin at once, in a thread of its own: its folder is no leftover."""
    (tmp_path / "work" / "old").mkdir(parents=True)
    job = Job(job_id="new", role="brand", kind="probe", peer="p", signed={}, state="approved")
    started = SimpleNamespace(
        store=SimpleNamespace(all=lambda: [job]),
        home=SimpleNamespace(path=tmp_path),
        log=lambda *_, **__: None,
        lookout=SimpleNamespace(start=lambda: None),
        _spawn=lambda id_, _: (tmp_path / "work" / id_).mkdir(),
        _brand=None,
        _keep_state=lambda: None,
    )
    Engine.start(started)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["new"]
