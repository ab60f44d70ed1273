"""`pec node prepare`: made before the first job, by a running node, and refused where no job would use it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nodes
import numpy as np
import pytest
from test_aligning import SETTINGS, both, items_of

from parties import documents, prepared, preparing
from parties.datasets import Dataset
from parties.errors import NodeError
from parties.kinds import aligning
from pec.cli import main


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes in this process; the provider keeps preparations."""
    tmp_path = tmp_path_factory.mktemp("nodes")
    brand = nodes.make_home(tmp_path, "brand", ("prov",))
    prov = nodes.make_home(tmp_path, "prov", ("brand",), settings="prepared_hours = 1.0\n")
    both_nodes = nodes.LocalNode(brand), nodes.LocalNode(prov)
    nodes.introduce(*both_nodes)
    nodes.agree(brand, prov)
    yield SimpleNamespace(brand=both_nodes[0], prov=both_nodes[1])
    for node in both_nodes:
        node.stop()


def test_a_job_uses_what_was_prepared_before_it(pair: Any) -> None:
    with pair.prov.client() as client:
        events = list(client.prepare("brand-prov"))
        made = events[-1]["prepared"]
        assert {"what": "evaluating", "done": 20, "total": 20} in events
        assert (made["items"], made["people"], made["reused"]) == (20, 20, False)
        assert made["recipient"] == "brand" and made["asked_at_most_under_key"] == 0
        assert documents.moment(made["until"]) > documents.now() and made["dropped_when"]
        again = list(client.prepare("brand-prov"))[-1]["prepared"]
        assert again["reused"] and again["until"] == made["until"]
        (kept,) = client.preparations()
        assert kept["agreement"] == "brand-prov" and kept["bytes"] > 20 * 64
    # The ledger says who was decided about, and that the result was kept.
    size = pair.prov.center.append("test.leaf", {})
    kinds = [pair.prov.center.opening(n)["kind"] for n in range(size)]
    assert kinds.count("prepared.made") == 2

    items = items_of_home(pair.prov)
    terms = nodes.terms("brand", "prov")
    shelf = prepared.Shelf(
        pair.prov.home.path / "prepared", 1.0, purpose(pair), items[np.random.default_rng(0).permutation(20)]
    )
    assert shelf.asked() == 0 and shelf.find(5, fail).reused and shelf.asked() == 5
    assert terms["id"] == made["agreement"]

    # One who withdraws: the set is another one.
    assert prepared.Shelf(pair.prov.home.path / "prepared", 1.0, purpose(pair), items[1:]).asked() is None
    with pair.prov.client() as client:
        assert client.drop_preparations("other") == []
        assert client.drop_preparations("brand-prov") == [kept["name"]] and client.preparations() == []


def fail(done: int) -> None:
    raise AssertionError("evaluated again")


def purpose(pair: Any) -> dict[str, Any]:
    agreement = pair.prov.home.agreement("brand-prov")
    return prepared.purpose_of(agreement, "people", nodes.PURPOSE, "brand", (nodes.CATEGORY,))


def items_of_home(node: Any) -> np.ndarray:
    from parties.gate import Gate

    view = Gate(node.center, node.home).open(
        "people", nodes.PURPOSE, "brand", (nodes.CATEGORY,), (), "job-look"
    )
    items: np.ndarray = view.items
    return items


def test_where_no_job_would_use_it(pair: Any) -> None:
    def refused(node: Any, code: str, agreement: str = "brand-prov", **choice: Any) -> None:
        with node.client() as client, pytest.raises(NodeError, match=code):
            list(client.prepare(agreement, **choice))

    refused(pair.brand, r"node\.prepared.*prepared_hours")
    refused(pair.prov, r"agreement\.unknown", "nobody-prov")
    refused(pair.prov, r"agreement\.category", categories=["health"])
    refused(pair.prov, r"agreement\.purpose", purpose="other")
    refused(pair.prov, r"dataset\.unknown", dataset="none")
    brand, prov = pair.brand.home, pair.prov.home
    nodes.agree(brand, prov, id="vole", suites=["vole"])
    nodes.agree(brand, prov, id="secure", suites=["ecdh", "vole"], malicious_security=True)
    nodes.agree(brand, prov, id="many", minimum_rows=50)
    nodes.agree(brand, prov, id="two", purposes=[nodes.PURPOSE, "more"])
    refused(pair.prov, r"node\.prepared.*never take", "vole")
    refused(pair.prov, r"node\.prepared.*never take", "secure")
    refused(pair.prov, r"agreement\.minimum_rows", "many")
    refused(pair.prov, r"node\.request.*which purpose", "two")
    prov.add_dataset(Dataset("more", str(prov.dataset("people").path), "phone", "phone", {}))
    refused(pair.prov, r"node\.request.*which data set")
    prov.path.joinpath("datasets", "more.json").unlink()
    assert preparing.shown(prov) == []


def test_nothing_is_kept_when_nobody_waits_for_it(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "_BLOCK", 5)
    told = threading.Event()
    alive = iter((True, True, False))
    with pytest.raises(NodeError, match=r"job\.cancelled"):
        for event in preparing.watched(
            pair.prov.home, pair.prov.center, {"agreement": "brand-prov"}, lambda: next(alive)
        ):
            told.set()
            assert "prepared" not in event
    assert told.is_set() and preparing.shown(pair.prov.home) == []


def test_the_command(pair: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["pec", "node", "prepare", *arguments, "--home", str(pair.prov.home.path)]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    assert json.loads(run("brand-prov", "--json"))["items"] == 20
    text = run("brand-prov")
    assert "it is dropped when" in text and "comes, goes, withdraws" in text.replace("\n", " ")
    assert "brand-prov" in run("--list")
    assert json.loads(run("--list", "--json"))[0]["items"] == 20
    assert len(json.loads(run("brand-prov", "--drop", "--json"))["dropped"]) == 1


def test_the_choice_counts_with_a_preparation(tmp_path: Path) -> None:
    """A set against which `vole` is cheaper, until the rows need no evaluation any more; on a slow line."""
    left, right = items_of(*range(200)), items_of(*range(100, 3100))
    usable = np.ones(len(right), bool)
    chosen = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()

        def send(ctx: Any, number: int = number) -> int:
            ctx.prepared = tmp_path / "prepared"
            if number == 0:
                prepared.shelf(ctx, right).find(0, lambda done: None)
            return aligning.send(ctx, right, usable, reuse=True)

        hours = 1.0 if number == 0 else 0.0
        settings = nodes_settings(hours)
        found = both(
            tmp_path / str(number),
            lambda ctx: aligning.receive(ctx, left),
            send,
            agreement={"suites": ["ecdh", "vole"]},
            brand=settings,
            provider=settings,
        )
        assert (found["brand"].rows[100:] == np.arange(100)).all()
        chosen.append(found["brand context"].result["alignment"])
    assert chosen[0]["suite"] == "ecdh" and "prepared" in chosen[0]["why"]
    assert "prepared" not in chosen[1]["why"]
    ecdh = [next(c for c in (a["estimate"], *a["alternatives"]) if c["suite"] == "ecdh") for a in chosen]
    assert ecdh[0]["seconds"] < ecdh[1]["seconds"] and ecdh[0]["bytes"] == ecdh[1]["bytes"]


def nodes_settings(hours: float) -> Any:
    from dataclasses import replace

    return replace(SETTINGS, prepared_hours=hours, bucket_rows=1 << 20, bandwidth_mbit=20.0)


def test_items_made_to_collide_are_still_put_in_order() -> None:
    items = np.zeros((3, 32), np.uint8)
    items[:, 31] = (2, 0, 1)
    shelf = prepared.Shelf(Path(), 1.0, {}, items)
    assert list(shelf._order) == [1, 2, 0]
    assert shelf._stamp == prepared.Shelf(Path(), 1.0, {}, items[[2, 0, 1]])._stamp
