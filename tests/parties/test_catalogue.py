"""Data sets that are changed, removed and shown to a partner, between two nodes of one process."""

from __future__ import annotations

import nodes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parties import catalogue
from parties.changes import Changes
from parties.datasets import Dataset, rounded
from parties.errors import NodeError


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with nodes.two(tmp_path_factory.mktemp("catalogue")) as started:
        yield started


@pytest.fixture
def clients(pair):
    with pair[0].client() as b, pair[1].client() as p:
        yield b, p


def _offer(home, name, **changes):
    """A data set of the provider's with some columns, on the file that is there."""
    path = home.dataset("people").path
    categories = {"age": "identity", "city": "place", "income": "finance", "visits": "identity"}
    return home.add_dataset(Dataset(name, path, "phone", "phone", categories, **changes))


def test_a_brand_sees_what_is_declared_and_allowed_and_nothing_else(pair, clients):
    brand, prov = pair
    _offer(prov.home, "shown", shown=True, people=1_200_000, further_ids=(("mail", "email"),))
    _offer(prov.home, "hidden")
    agreed = {"columns": ["age", "city"], "tags": ["age"], "sums": ["provider.visits:brand:10"]}
    nodes.agree(brand.home, prov.home, id="some", categories=["identity"], **agreed)
    seen = clients[0].catalogue("some")
    assert seen == catalogue.seen(prov.home, "some").to_json()  # the provider sees what its partner sees
    assert seen == {
        "agreement_id": "some",
        "provider": "prov",
        "datasets": [
            {
                "name": "shown",
                "identifiers": ["phone", "email"],
                "people": 1_200_000,
                # city has another category, income is not agreed at all
                "columns": [
                    {"name": "age", "category": "identity", "uses": ["model", "tag"]},
                    {"name": "visits", "category": "identity", "uses": ["sum"]},
                ],
                "left_out": 0,
            }
        ],
    }
    changes = Changes(prov.home, prov.center)
    changes.change_dataset(Dataset.from_json({**prov.home.dataset("shown").to_json(), "shown": False}))
    assert clients[0].catalogue("some")["datasets"] == []


def test_all_columns_of_an_agreement_for_all(pair):
    brand, prov = pair
    nodes.agree(
        brand.home, prov.home, id="all", categories=["identity", "finance"], columns=["*"], tags=["*"]
    )
    _offer(prov.home, "everything", shown=True)
    (offer,) = [o for o in catalogue.seen(brand.home, "all").datasets if o.name == "everything"]
    assert [c.name for c in offer.columns] == ["age", "income", "visits"]
    assert {c.uses for c in offer.columns} == {("model", "tag")} and offer.people == 0


def test_no_catalogue_of_agreements_that_are_over_or_of_others(pair):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="over")
    prov.home.end_agreement("over", "over")
    with pytest.raises(NodeError, match=r"agreement\.ended"):
        catalogue.seen(brand.home, "over")
    # A peer that asks about an agreement of others hears what it hears about one that is not there.
    nodes.agree(brand.home, prov.home, id="theirs")
    said = []
    for id_ in ("theirs", "no-such"):
        with pytest.raises(NodeError) as caught:
            catalogue.offered(prov.home, id_, "stranger")
        said.append((caught.value.code, caught.value.detail.replace(id_, "…")))
    assert said[0] == said[1] and said[0][0] == "agreement.unknown"
    with pytest.raises(NodeError, match=r"agreement\.unknown"):  # nor may the provider ask the brand
        catalogue.offered(brand.home, "theirs", "prov")


def test_what_has_no_room_in_an_answer_is_counted(pair, monkeypatch):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="wide", categories=["identity"], columns=["*"])
    _offer(prov.home, "wide", shown=True)
    monkeypatch.setattr(catalogue, "MOST_BYTES", 80)
    offers = catalogue.seen(prov.home, "wide").datasets
    assert sum(len(o.columns) for o in offers) == 1 and offers[-1].left_out == 2


def test_a_removed_data_set_ends_the_jobs_that_wait_for_it(pair, clients):
    brand, prov = pair
    nodes.agree(brand.home, prov.home, id="waiting", preapproved=[])
    _offer(prov.home, "short")
    datasets = {"brand": "people", "provider": "short"}
    job_id = clients[0].submit(nodes.request("waiting", datasets=datasets))
    nodes.known(clients[1], job_id, "awaiting_approval")
    removed = clients[1].remove_dataset("short")
    assert removed["name"] == "short" and removed["prepared_dropped"] == []
    for client in clients:
        ended = client.wait(job_id, 120)
        assert (ended["state"], ended["error"]["code"]) == ("rejected", "dataset.unknown")
    with pytest.raises(NodeError, match=r"dataset\.unknown"):
        clients[1].remove_dataset("short")
    prov.home.add_dataset(Dataset("short", prov.home.dataset("people").path, "phone", "phone", {}))


@pytest.mark.parametrize("how", ["changed", "unknown", "shown"])
def test_a_running_job_holds_to_the_data_set_that_it_began_with(pair, clients, tmp_path, how):
    brand, prov = pair
    id_ = f"run-{how}"
    nodes.agree(brand.home, prov.home, id=id_)
    path = prov.home.dataset("people").path
    dataset = prov.home.add_dataset(Dataset(id_, path, "phone", "phone", {"age": "identity"}))
    params = {"mark": str(tmp_path), "wait_in": "brand.swap"}
    datasets = {"brand": "people", "provider": id_}
    job_id = clients[0].submit(nodes.request(id_, params=params, datasets=datasets))
    nodes.until((tmp_path / "brand-swap").exists)
    if how == "unknown":
        prov.home.remove_dataset(id_)  # as the command does, beside the running node
    else:
        changed = {"categories": {}} if how == "changed" else {"shown": True, "people": 20}
        prov.home.change_dataset(Dataset.from_json({**dataset.to_json(), **changed}))
    (tmp_path / "go").touch()
    for client in clients:
        ended = client.wait(job_id, 120)
        if how == "shown":
            assert ended["state"] == "succeeded"
        else:
            assert (ended["state"], ended["error"]["code"]) == ("rejected", f"dataset.{how}")


def test_changes_of_data_sets_are_in_the_ledger(pair, tmp_path):
    _, prov = pair
    changes = Changes(prov.home, prov.center)
    path = tmp_path / "more.csv"
    path.write_text("phone\n13800138000\n")
    before = int(prov.center.checkpoint().splitlines()[1])
    changes.add_dataset(Dataset("more", str(path), "phone", "phone", {}))
    changes.change_dataset(Dataset("more", str(path), "phone", "phone", {}, shown=True))
    changes.remove_dataset("more")
    kinds = [prov.center.opening(before + n)["kind"] for n in range(3)]
    assert kinds == ["dataset.added", "dataset.changed", "dataset.removed"]
    assert path.exists()


@settings(max_examples=50)
@given(st.integers(0, 10**12))
def test_a_declared_size_has_two_digits_and_is_never_more(people):
    told = rounded(people)
    assert told <= people < told + max(1, people // 10 + 1) and rounded(told) == told
    assert len(str(told).rstrip("0")) <= 2
    Dataset("d", "f", "phone", "phone", {}, people=told)
    if told != people:
        with pytest.raises(NodeError):
            Dataset("d", "f", "phone", "phone", {}, people=people)
