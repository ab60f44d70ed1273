"""The brand's own columns: one default for all kinds, checked before anybody is asked; and forecasts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pair import spec

from parties import cost
from parties.brand_side import BrandSide
from parties.errors import NodeError
from parties.home import Dataset
from parties.kinds import KINDS, common
from protocols import enrich

COLUMNS = {"age": "profile", "fast": "profile", "spend": "profile", "mail": "profile", "health": "sensitive"}
DATA = Dataset("people", "/nowhere.csv", "phone", "phone", COLUMNS, (("mail", "email"),))


def test_by_default_all_covered_columns_but_labels_and_identifiers() -> None:
    job = spec("joint-lr", categories=["profile"])
    assert common.own_columns(job, DATA, {"label": "fast"}) == ("fast", "age", "spend")
    two = {"speed": "fast", "value": "spend"}
    assert common.own_columns(job, DATA, two, ("speed", "value")) == ("fast", "spend", "age")
    assert common.own_columns(job, DATA, {"label": "fast", "columns": []}) == ("fast",)
    assert common.own_columns(job, DATA, {"label": "fast", "columns": ["spend"]}) == ("fast", "spend")


@pytest.mark.parametrize(
    ("kind", "private", "code"),
    [
        ("boost", {}, "job.private"),
        ("boost", {"label": "fast", "columns": ["fast"]}, "job.private"),
        ("boost", {"label": "fast", "columns": ["health"]}, "dataset.category"),
        ("joint-lr", {"label": "none"}, "dataset.category"),
        ("joint-lr", {"label": "fast", "columns": ["none"]}, "dataset.category"),
        ("lead-score", {"speed": "fast", "value": "fast"}, "job.private"),
        ("lead-score", {"speed": "fast"}, "job.private"),
        ("feature-report", {"label": "health"}, "dataset.category"),
        ("feature-report", {"label": "fast", "columns": ["age"]}, "job.private"),
        ("overlap", {"where": 7}, "job.private"),
        ("retarget", {"shell": "x"}, "job.private"),
        ("enrich", {"audience_size": 1}, "job.private"),
        ("lookalike", {"label": "fast", "holdout": 0.9}, "job.private"),
    ],
)
def test_wrong_ones_are_refused_at_submission(kind: str, private: dict[str, Any], code: str) -> None:
    side: Any = SimpleNamespace(
        _peer_of=lambda request: SimpleNamespace(party="provider"),
        kind=lambda job: KINDS[kind],
        home=SimpleNamespace(party="brand", dataset=lambda name: DATA),
    )
    asked = {
        "kind": kind,
        "purpose": "ads",
        "agreement": "a1",
        "datasets": {"brand": "people", "provider": "people"},
        "categories": ["profile"],
        "private": private,
    }
    with pytest.raises(NodeError) as caught:
        BrandSide.submit(side, asked)
    assert caught.value.code == code


def forecast(tmp_path: Path, kind: str, **more: Any) -> dict[str, Any]:
    """A brand's forecast with a file of 300 rows and two id columns, and no job before."""
    path = tmp_path / "people.csv"
    path.write_text("phone,mail\n" + "".join(f"1380000{n:04d},p{n}@x.example\n" for n in range(300)))
    data = Dataset("people", str(path), "phone", "phone", COLUMNS, (("mail", "email"),))
    agreed = SimpleNamespace(id="a1", suites=("ecdh",), malicious_security=False)
    home = SimpleNamespace(
        agreement=lambda name: agreed,
        dataset=lambda name: data,
        settings=SimpleNamespace(bucket_rows=1 << 20, bandwidth_mbit=100.0, listen="127.0.0.1:0"),
    )
    side: Any = SimpleNamespace(
        home=home,
        center=None,
        kinds=KINDS,
        store=SimpleNamespace(all=lambda: []),
        _peer_of=lambda request: peer,
    )
    peer = SimpleNamespace(party="provider", address="10.0.0.2:7301")
    side._peer_people = lambda *given: BrandSide._peer_people(side, *given)
    asked = {"kind": kind, "agreement": "a1", "datasets": {"brand": "people", "provider": "people"}, **more}
    return BrandSide.estimate(side, asked)


@pytest.mark.parametrize("kind", ["overlap", "enrich", "boost", "joint-lr", "feature-report", "lead-score"])
def test_a_forecast_tells_people_from_identifiers(tmp_path: Path, kind: str) -> None:
    found = forecast(tmp_path, kind, columns=["tag"], peer_rows=1000)
    assert (found["own_people"], found["own_identifiers"]) == (300, 600)
    assert (found["peer_people"], found["peer_identifiers"], found["basis"]) == (1000, 2000, "as given")
    assert found["cost"]["seconds"] > 0 and found["cost"]["sent"] >= 32 * 600
    assert found["opening_seconds"] > 0


def test_no_forecast_of_a_private_join(tmp_path: Path) -> None:
    assert forecast(tmp_path, "overlap", params={"method": "private_join"})["cost"] is None


def test_the_bytes_of_an_enrich_are_those_of_its_messages() -> None:
    """Counted with records as wide as the forecast takes them to be."""
    rng = np.random.default_rng(1)
    items, session = rng.integers(0, 256, (700, 32)).astype(np.uint8), bytes(32)
    records = np.zeros((500, 4 + 3 * cost.ENRICH_VALUE), dtype=np.uint8)
    limits = enrich.Limits(max_receiver=1 << 12, max_sender=1 << 12, max_width=64)
    brand = enrich.Receiver(items[:300], session, limits, rng.bytes)
    provider = enrich.Sender(items[200:], records, session, limits, rng.bytes)
    sent = {brand: 0, provider: 0}
    queue = [(provider, m) for m in brand.start()] + [(brand, m) for m in provider.start()]
    while queue:
        to, message = queue.pop(0)
        sent[provider if to is brand else brand] += len(message)
        other = provider if to is brand else brand
        queue += [(other, m) for m in to.receive(message)]
    found = cost.enrich(cost.Work.of(300, 500, 1 << 20), cost.Rates(), 3)
    for guess, fact in ((found.sent, sent[brand]), (found.received, sent[provider])):
        assert abs(guess - cost.CONTROL // 2 - fact) < 0.05 * fact + 5 * cost.FRAME


def test_a_forest_is_forecast_where_its_columns_are_named(tmp_path: Path) -> None:
    found = forecast(tmp_path, "boost", columns=["a", "b"], peer_rows=1000)["training"]
    assert found["seconds"] > 0 and found["bytes"] == found["sent"] + found["received"]
    assert found["disk_bytes"] == {"brand": 0, "provider": 0}
    assert forecast(tmp_path, "boost", columns=["*"], peer_rows=1000)["training"] is None
