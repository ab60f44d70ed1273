"""Agreements that end before their time, and partners who are not trusted any more, between two nodes."""

from __future__ import annotations

import nodes
import pytest

from parties import documents, endings
from parties.changes import Changes
from parties.errors import NodeError
from parties.home import Home
from parties.models import Models


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with nodes.two(tmp_path_factory.mktemp("endings")) as started:
        yield started


@pytest.fixture
def clients(pair):
    with pair[0].client() as b, pair[1].client() as p:
        yield b, p


def test_either_side_ends_an_agreement_and_its_waiting_jobs_end_on_both(pair, clients):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="waits", preapproved=[])
    job_id = clients[0].submit(nodes.request("waits"))
    nodes.known(clients[1], job_id, "awaiting_approval")
    done = clients[1].end_agreement("waits", "the campaign was stopped")
    assert (done["party"], done["told"], done["reason"]) == ("prov", True, "the campaign was stopped")
    for client in clients:
        ended = client.wait(job_id, 120)
        assert (ended["state"], ended["error"]["code"]) == ("rejected", "agreement.ended")
        assert "by prov" in ended["error"]["detail"] and "campaign" in ended["error"]["detail"]
    # Both ledgers have the same word once.
    for node in pair:
        state = node.home.endings.state("waits")
        nodes.until(lambda state=state, node=node: node.home.endings.state("waits")["leaf"] is not None)
        leaf = node.center.opening(node.home.endings.state("waits")["leaf"])
        assert leaf["kind"] == endings.LEAF and leaf["payload"]["party"] == "prov"
    # New jobs are refused where they are submitted, and the agreement stays readable.
    with pytest.raises(NodeError, match=r"agreement\.ended.*ended by prov"):
        clients[0].submit(nodes.request("waits"))
    for client in clients:
        found = next(a for a in client.agreements() if a["id"] == "waits")
        assert found["ended"]["party"] == "prov" and not found["expired"]
    # It can't come back under its id; a new id is a new agreement.
    for home in (brand.home, prov.home):
        with pytest.raises(NodeError, match=r"agreement\.ended"):
            home.sign_agreement(nodes.terms("brand", "prov", id="waits", minimum_rows=2))
        with pytest.raises(NodeError, match=r"agreement\.ended"):
            home.end_agreement("waits", "again")
    nodes.agree(brand.home, prov.home, id="waits-2")
    assert clients[0].wait(clients[0].submit(nodes.request("waits-2")), 20)["state"] == "succeeded"


def test_the_other_side_refuses_although_this_one_has_not_heard_of_the_end(pair, clients):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="unheard")
    # As if the word had not come through: only the provider's directory has it.
    prov.home.end_agreement("unheard", "over")
    prov.home.endings.mark("unheard", told=True)
    job = clients[0].wait(clients[0].submit(nodes.request("unheard")), 20)
    assert (job["state"], job["error"]["code"]) == ("rejected", "agreement.ended")
    assert job["error"]["origin"] == "peer" and "ended by prov" in job["error"]["detail"]
    assert "new id" in job["error"]["hint"]  # the peer tells none: it is that of the code


def test_a_running_job_stops_at_its_next_check_on_both_sides(pair, clients, tmp_path):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="runs")
    params = {"mark": str(tmp_path), "wait_in": "brand.swap"}
    job_id = clients[0].submit(nodes.request("runs", params=params))
    nodes.until((tmp_path / "brand-swap").exists)
    Changes(brand.home, brand.center).end_agreement("runs", "over")  # as the command does, beside the node
    (tmp_path / "go").touch()
    for client in clients:
        ended = client.wait(job_id, 120)
        assert (ended["state"], ended["error"]["code"]) == ("rejected", "agreement.ended")
    assert not (tmp_path / "brand-tell").exists()


def test_a_held_job_does_not_outlast_its_agreement(pair, clients):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="held")
    job_id = clients[0].submit(nodes.request("held", hold_before="tell"))
    clients[0].wait(job_id, 120, until=("held",))
    clients[1].end_agreement("held", "over")
    for client in clients:
        assert client.wait(job_id, 120)["error"]["code"] == "agreement.ended"


def test_a_partner_that_was_away_is_told_once_it_is_back(tmp_path, pair):
    brand, prov = pair
    late_home = nodes.make_home(tmp_path, "late", ("prov",))
    late = nodes.LocalNode(late_home)
    nodes.introduce(late, prov)
    nodes.agree(late_home, prov.home)
    late.stop()
    done = Changes(prov.home, prov.center).end_agreement("late-prov", "nobody answers")
    assert done["told"] is False and done["leaf"] is not None
    address = prov.home.peer("late").address
    with (late_home.path / "node.toml").open("r+") as file:
        text = file.read().replace("127.0.0.1:0", address)
        file.seek(0)
        file.write(text)
    late = nodes.LocalNode(Home.open(late_home.path))
    try:
        nodes.until(lambda: late.home.endings.find("late-prov") is not None)
        nodes.until(lambda: prov.home.endings.state("late-prov")["told"])
    finally:
        late.stop()


@pytest.mark.parametrize("change", ["party", "agreement", "signature", "unknown", "text"])
def test_an_ending_that_is_not_the_partners_word_about_these_terms_ends_nothing(pair, change):
    brand, prov = pair
    id_ = f"stays-{change}"
    nodes.agree(brand.home, prov.home, id=id_)
    agreement = brand.home.agreement(id_)
    body = {
        "agreement_id": id_,
        "agreement": agreement.hash.hex(),
        "party": "prov",
        "reason": "over",
        "ended_at": documents.timestamp(documents.now()),
    }
    signer, code = prov.home.identity, "document.signature"
    if change == "party":
        body["party"], code = "brand", "agreement.party"
    elif change == "agreement":
        body["agreement"], code = "0" * 64, "agreement.conflict"
    elif change == "signature":
        signer = brand.home.identity
    elif change == "unknown":
        body["agreement_id"], code = "nowhere", "agreement.unknown"
    else:
        body["reason"], code = " ", "document.type"
    with pytest.raises(NodeError) as caught:
        brand.home.take_ending(signer.sign("ending", body))
    assert caught.value.code == code
    assert brand.home.endings.find(id_) is None


def test_a_model_ends_with_its_agreement(pair, monkeypatch):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="taught")
    folder = brand.home.path / "models"
    folder.mkdir(exist_ok=True)
    entry = {
        **{"name": "boost.prov", "version": 1, "job_id": "b-1", "kind": "boost", "method": "boost"},
        **{"role": "brand", "peer": "prov", "agreement": "taught", "purpose": "ads", "snapshot": "s"},
        **{"people": 1, "created_at": "2020-01-01T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"},
    }
    from parties.private_files import write_json

    write_json(folder / "b-1.model.json", entry)
    models = Models(brand.home)
    assert models.find("b-1").state(documents.now()) == "active"
    brand.home.end_agreement("taught", "over")
    now = documents.now()  # the ending may be in a later second than what came before
    assert models.find("b-1").state(now) == "expired"
    with pytest.raises(NodeError, match=r"model\.expired"):
        models.usable("b-1", "prov", "taught", "boost", now)


def test_trust_is_withdrawn_at_once_and_can_be_given_back(pair, clients, tmp_path):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="trusted", preapproved=[])
    waiting = clients[0].submit(nodes.request("trusted"))
    nodes.known(clients[1], waiting, "awaiting_approval")
    card = prov.home.peer("brand").card
    done = clients[1].untrust("brand", "stolen key")
    try:
        assert done["party"] == "brand" and done["fingerprint"] == brand.home.identity.fingerprint
        # The job that waited has ended; the operator can approve nothing of that partner's.
        ended = clients[1].wait(waiting, 120)
        assert (ended["state"], ended["error"]["code"]) == ("failed", "identity.untrusted")
        with pytest.raises(NodeError, match=r"job\.state"):
            clients[1].approve(waiting)
        # Its certificate opens nothing, neither on a new connection nor on one that is open.
        with pytest.raises(NodeError) as caught, brand.engine.connect(brand.home.peer("prov")) as line:
            brand.engine._greet(line)
        assert caught.value.code in ("transport.refused", "transport.role")
        # Nor does this side turn to it.
        with pytest.raises(NodeError, match=r"identity\.untrusted.*pec node trust"):
            prov.engine.home.peer("brand")
        assert "brand" not in [p["party"] for p in clients[1].peers()]
    finally:
        clients[1].trust(card)
    with brand.engine.connect(brand.home.peer("prov")) as line:
        brand.engine._greet(line)
    assert not (prov.home.path / "untrusted" / "brand.json").exists()


def test_a_running_job_with_a_partner_who_is_not_trusted_any_more_stops(pair, clients, tmp_path):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="stops")
    card = prov.home.peer("brand").card
    params = {"mark": str(tmp_path), "wait_in": "brand.swap"}
    job_id = clients[0].submit(nodes.request("stops", params=params))
    nodes.until((tmp_path / "brand-swap").exists)
    prov.home.untrust("brand")  # as the command does, beside the running node
    (tmp_path / "go").touch()
    try:
        assert clients[1].wait(job_id, 120)["error"]["code"] == "identity.untrusted"
        assert clients[0].wait(job_id, 120)["error"]["code"] == "identity.untrusted"
    finally:
        prov.home.trust(card)
