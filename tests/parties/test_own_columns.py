"""The brand's own columns: one default for all kinds, checked before anybody is asked; and forecasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pair import agreement, spec

from parties import cost
from parties.brand_side import BrandSide
from parties.datasets import Dataset
from parties.endings import Endings
from parties.errors import NodeError
from parties.gate import Column
from parties.home import Home
from parties.kinds import KINDS, common, supervised
from parties.runner import for_peer
from pec.errors import exit_code_of
from protocols import enrich

COLUMNS = {
    "age": "profile",
    "fast": "profile",
    "spend": "profile",
    "mail": "profile",
    "city": "profile",
    "health": "sensitive",
}
DATA = Dataset("people", "/nowhere.csv", "phone", "phone", COLUMNS, (("mail", "email"),))
AGREED = agreement(kinds=list(KINDS), categories=["profile"], columns=["x0"], tags=["x0"], minimum_seeds=100)


def test_by_default_all_covered_columns_but_labels_and_identifiers() -> None:
    job = spec("joint-lr", categories=["profile"])
    assert common.own_columns(job, DATA, {"label": "fast"}) == ("fast", "age", "spend", "city")
    two = {"speed": "fast", "value": "spend"}
    assert common.own_columns(job, DATA, two, ("speed", "value")) == ("fast", "spend", "age", "city")
    assert common.own_columns(job, DATA, {"label": "fast", "columns": []}) == ("fast",)
    assert common.own_columns(job, DATA, {"label": "fast", "columns": ["spend"]}) == ("fast", "spend")


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `submit` needs of a brand's node: its file of 200 people and its copy of the agreement."""
    path = tmp_path_factory.mktemp("own") / "people.csv"
    lines = [f"138{n:08d},p{n}@x.example,{n},{n % 2},{n / 2},{n % 3},{'xz'[n % 2]}" for n in range(200)]
    path.write_text("\n".join(["phone,mail,age,fast,spend,health,city", *lines]))
    data = replace(DATA, path=str(path))
    home: Any = SimpleNamespace(
        party="acme",
        path=path.parent,
        dataset=lambda name: data,
        agreements=lambda: [AGREED],
        check_terms=lambda *given: Home.check_terms(home, *given),
    )
    home.endings = Endings(home.path / "endings")
    return SimpleNamespace(home=home, center=None, kinds=KINDS)


def refused(side: Any, kind: str, private: dict[str, Any], **changes: Any) -> NodeError:
    asked = {
        "kind": kind,
        "purpose": "ads",
        "agreement": "a1",
        "datasets": {"brand": "people", "provider": "people"},
        "categories": ["profile"],
        "columns": [] if kind in ("overlap", "retarget") else ["x0"],
        "private": private,
        **changes,
    }
    sent: list[Any] = []
    own: Any = SimpleNamespace(
        home=side.home,
        store=SimpleNamespace(add=sent.append),
        _peer_of=lambda request: SimpleNamespace(party="dataco"),
        kind=lambda job: KINDS[kind].of(job),
        _allowed=lambda *given: BrandSide._allowed(side, *given),
        _try_own=lambda *given: BrandSide._try_own(side, *given),
    )
    with pytest.raises(NodeError) as caught:
        BrandSide.submit(own, asked)
    assert not sent
    return caught.value


@pytest.mark.parametrize(
    ("kind", "private", "code", "words"),
    [
        ("boost", {}, "job.parameter", "label"),
        ("boost", {"label": "fast", "columns": ["fast"]}, "job.parameter", ""),
        ("boost", {"label": "fast", "columns": ["health"]}, "dataset.category", "sensitive"),
        ("boost", {"label": "fats"}, "rows.column", "did you mean 'fast'?"),
        ("boost", {"label": "spend"}, "rows.label", "no yes/no column"),
        ("boost", {"label": "fast", "where": "age < 25"}, "agreement.minimum_seeds", "25 of the brand's"),
        ("boost", {"label": "fast", "monotone": {"aeg": 1}}, "job.parameter", "did you mean 'age'?"),
        ("boost", {"label": "fast", "monotone": {"fast": 1}}, "job.parameter", "no column 'fast'"),
        (
            "boost",
            {"label": "fast", "monotone": {"x0": 1, "city": 1}},
            "job.parameter",
            "'city' is a column of",
        ),
        ("boost", {"label": "fast", "depth": 3}, "job.parameter", "both sides sign"),
        ("joint-lr", {"label": "none"}, "rows.column", "It has: phone"),
        ("joint-lr", {"label": "fast", "columns": ["spent"]}, "rows.column", "did you mean 'spend'?"),
        ("joint-lr", {"label": "spend"}, "rows.label", ""),
        ("lead-score", {"speed": "fast", "value": "fast"}, "job.parameter", ""),
        ("lead-score", {"speed": "fast"}, "job.parameter", ""),
        ("lead-score", {"speed": "age", "value": "spend"}, "rows.label", "'age'"),
        ("feature-report", {"label": "health"}, "dataset.category", ""),
        ("feature-report", {"label": "fast", "columns": ["age"]}, "job.parameter", ""),
        ("overlap", {"where": 7}, "job.parameter", ""),
        ("overlap", {"where": "phone = '138"}, "rows.filter", ""),
        ("overlap", {"label": "spend"}, "rows.label", ""),
        ("retarget", {"shell": "x"}, "job.parameter", "where"),
        ("retarget", {"where": "agee > 5"}, "rows.column", "did you mean 'age'?"),
        ("enrich", {"audience_size": 1}, "job.parameter", ""),
        ("lookalike", {"label": "fast", "holdout": 0.9}, "job.parameter", "a number from 0 to 0.5"),
        ("lookalike", {"label": "fast", "holdut": 0.1}, "job.parameter", "did you mean 'holdout'?"),
        ("lookalike", {"label": "fats"}, "rows.column", "did you mean 'fast'?"),
        ("lookalike", {"where": "spend > "}, "rows.filter", ""),
        ("lookalike", {"label": "fast", "where": "age < 50"}, "agreement.minimum_seeds", "25 of the brand's"),
        ("lookalike", {}, "job.parameter", "where"),
        ("score", {"where": "age < 0"}, "model.unknown", ""),
    ],
)
def test_wrong_ones_are_refused_at_submission(
    side: Any, kind: str, private: dict[str, Any], code: str, words: str
) -> None:
    params = {"model": "lead-scre"} if kind == "score" else {}
    error = refused(side, kind, private, params=params)
    assert error.code == code and words in error.detail
    assert exit_code_of(code) == (3 if code.startswith("agreement.") else 2)


@pytest.mark.parametrize(
    ("kind", "private", "words"),
    [
        ("boost", {"label": "city"}, "such as 'x', 'z', 2 in all"),
        ("joint-lr", {"label": "city"}, "such as 'x', 'z'"),
        ("joint-lr", {"label": "health"}, "beside 0 and 1, such as '2'"),
    ],
)
def test_a_wrong_labels_values_are_shown_to_its_own_side_alone(
    side: Any, kind: str, private: dict[str, Any], words: str
) -> None:
    known = dict.fromkeys(("fast", "city", "health"), "profile")
    with pytest.MonkeyPatch.context() as patch:
        data = replace(side.home.dataset("people"), categories=known)
        patch.setattr(side.home, "dataset", lambda name: data)
        error = refused(side, kind, private)
    assert error.code == "rows.label" and words in error.detail
    assert "such as" not in str(for_peer(error)) and not error.share


def test_no_value_of_a_label_that_may_identify_people_is_shown(side: Any) -> None:
    assert "such as" not in refused(side, "boost", {"label": "spend"}).detail
    levels = tuple(f"p{n}" for n in range(3))
    column = Column("name", "categorical", np.zeros(3, dtype=np.int32), levels)
    with pytest.raises(NodeError, match="such as 'p0', 'p1', 'p2'") as caught:
        supervised.check_number(column)
    assert caught.value.code == "job.labels" and "p0" not in str(for_peer(caught.value))
    with pytest.raises(NodeError) as caught:
        supervised.check_number(replace(column, levels=tuple(f"p{n}" for n in range(60))))
    assert "p0" not in caught.value.detail


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"params": {"depht": 3}}, "job.spec", "did you mean 'depth'? It has: bins, depth"),
        ({"params": {"monotone": {"age": 1}}}, "job.spec", "'monotone' is a private parameter of boost"),
        ({"params": {"depth": 30}}, "job.spec", "a whole number from 1 to 8"),
        ({"params": {"bins": 5}}, "job.spec", "one of 2, 4, 8"),
        ({"categories": ["health"]}, "agreement.category", "profile"),
        ({"purpose": "resale"}, "agreement.purpose", ""),
        ({"columns": ["unheard"]}, "agreement.column", ""),
    ],
)
def test_what_is_not_agreed_is_not_sent(side: Any, changes: dict[str, Any], code: str, words: str) -> None:
    error = refused(side, "boost", {"label": "fast"}, **changes)
    assert error.code == code and words in error.detail
    asked = {
        "kind": "boost",
        "agreement": "a1",
        "datasets": {"brand": "people", "provider": "people"},
        "purpose": "ads",
        "categories": ["profile"],
        "columns": ["x0"],
    }
    home = SimpleNamespace(**{**vars(side.home), "agreement": lambda id_: AGREED})
    own: Any = SimpleNamespace(
        home=home,
        kinds=KINDS,
        _peer_of=lambda request: SimpleNamespace(party="dataco"),
        _allowed=lambda *given: BrandSide._allowed(side, *given),
    )
    with pytest.raises(NodeError) as caught:  # nor forecast
        BrandSide.estimate(own, asked | changes)
    assert caught.value.code == code


def test_an_agreement_that_is_over_is_told_before_anything_is_sent(side: Any) -> None:
    over = replace(AGREED, expires_at="2020-01-02T00:00:00Z")
    home = SimpleNamespace(**{**vars(side.home), "agreements": lambda: [over]})
    ended = refused(SimpleNamespace(home=home, center=None), "overlap", {})
    assert ended.code == "agreement.expired"


def test_a_column_under_another_category_looks_like_one_that_is_not_there() -> None:
    """A brand must not learn by proposals what else is in the provider's data."""
    told = []
    for name in ("health", "helth"):
        with pytest.raises(NodeError) as caught:
            common.provider_columns(spec("boost", categories=["profile"], columns=[name]), DATA)
        told.append(caught.value.detail.replace(name, "…"))
        assert caught.value.code == "dataset.category" and caught.value.share
    assert told[0] == told[1]
    asked = spec("boost", categories=["profile"], columns=["age"])
    assert common.provider_columns(asked, DATA) == ("age",)


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
