"""Drafts, previews, publication and differences of notices; who must be asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consent_helpers import LASTING, Clock, event, make, phone, reason

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.notices.meaning import ASPECTS, compare_purposes, compare_texts
from consent_center.rest.app import create_app
from pec.cli_common import run
from pec.cli_consent import consent

DRAFT: dict[str, Any] = {
    "id": "ads-notice",
    "purpose": "ads",
    "text": {"zh": "第一句。第二句改了。", "en": "First. Second changed."},
}


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with make(tmp_path / "center", Clock(), days=LASTING) as center:
        center.record_many([event(n) for n in range(5)])
        center.record(event(7, recipient="other"))
        center.record(event(3, action="withdrawn"))
        yield center


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(ConsentError) as caught:
        call(*arguments)
    return caught.value.code


def test_words_alone_outdate_nobody(center: Center) -> None:
    board = center.notice_board
    told = board.draft(DRAFT, "wang")
    preview = board.preview("ads-notice")
    assert preview["asked_again"] == 0 and not preview["new_purpose_version"]
    assert preview["diff"]["texts"]["en"] and not preview["diff"]["outdates"]
    assert reason(center, 1) == "eligible" and len(center.notices()) == 1
    done = board.publish("ads-notice", "wang", told["hash"])
    assert done["notice"]["version"] == 2 and done["asked_again"] == 0
    assert reason(center, 1) == "eligible" and board.drafts() == [] and center.fsck() is None


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({"methods": ["lookalike"]}, "method"),
        ({"categories": ["contact", "usage", "location"]}, "category"),
        ({"sensitive": ["usage"]}, "category"),
        ({"recipients": ["provider", "media"]}, "recipient"),
        ({"retention_days": 90}, "retention"),
        ({"title": {"zh": "广告与画像", "en": "Advertising and profiles"}}, "purpose"),
    ],
)
def test_a_change_of_meaning_asks_again(center: Center, changes: dict[str, Any], aspect: str) -> None:
    board = center.notice_board
    board.draft(DRAFT | {"changes": changes, "material": False})
    preview = board.preview("ads-notice")
    assert preview["asked_again"] == 5 and preview["asked_again_already"] == 0
    assert preview["diff"]["aspects"] == [aspect] and preview["diff"]["material"]
    done = board.publish("ads-notice")
    assert done["purpose"]["version"] == 2 and done["asked_again"] == 5
    assert [reason(center, n) for n in (1, 3)] == ["outdated_notice", "withdrawn"]
    told = board.reconsent("ads", 0, 2)
    assert told["people"] == 5 and len(told["ordinals"]) == 2
    assert [(g["recipient"], g["count"]) for g in told["groups"]] == [("other", 1), ("provider", 4)]
    rest = board.reconsent("ads", told["next"], 10)
    assert sorted(told["ordinals"] + rest["ordinals"]) == [0, 1, 2, 4, 5] and rest["next"] is None
    center.erase("phone", phone(1), "dpo")
    assert board.reconsent("ads")["people"] == 4
    assert board.diff("ads-notice", 1, 2)["aspects"] == [aspect] and center.fsck() is None


def test_who_agreed_anew_is_not_asked(center: Center) -> None:
    board = center.notice_board
    board.draft(DRAFT | {"changes": {"methods": ["lookalike"]}})
    board.publish("ads-notice")
    center.record(event(1, purpose_version=2, notice_version=2, occurred_at=Clock().now))
    assert board.reconsent("ads")["people"] == 4 and reason(center, 1) == "eligible"


def test_what_is_refused(center: Center) -> None:
    board = center.notice_board
    for wrong in (
        {"text": {}},
        {"text": {"zh": 5}},
        {"text": {"zh": "  "}},
        {"changes": {"colour": "red"}},
        {"changes": {"methods": "one"}},
        {"changes": {"retention_days": True}},
        {"changes": {"needs_guardian": "no"}},
        {"material": "yes"},
        {"id": "a b"},
        {"hash": "x"},
    ):
        assert code(board.draft, DRAFT | wrong) == "notice.draft", wrong
    assert code(board.draft, DRAFT | {"purpose": "nobody"}) == "registry.unknown"
    assert code(board.publish, "ads-notice") == "notice.unknown"
    board.draft(DRAFT | {"text": {"zh": "只有中文"}})
    assert board.preview("ads-notice")["missing_languages"] == ["en"]
    assert code(board.publish, "ads-notice") == "notice.language"
    first = board.draft(DRAFT)
    board.draft(DRAFT | {"material": True})
    assert code(board.publish, "ads-notice", "wang", first["hash"]) == "notice.changed"
    assert code(board.diff, "ads-notice", 1, 9) == "registry.unknown"
    board.discard("ads-notice")
    assert code(board.discard, "ads-notice") == "notice.unknown"


def test_every_field_of_a_purpose_has_an_aspect(center: Center) -> None:
    """A field that nobody compares could change without anybody being told."""
    import dataclasses

    from consent_center.model import Purpose

    told = {name for names in ASPECTS.values() for name in names}
    assert {f.name for f in dataclasses.fields(Purpose)} - told == {"id", "version", "active"}
    one = center.purposes()[0]
    assert compare_purposes(one, one) == []


def test_sentences_are_compared_singly() -> None:
    found = compare_texts({"zh": "甲。乙。丙。"}, {"zh": "甲。丁。丙。"})["zh"]
    assert "-乙。" in found and "+丁。" in found and "-甲。" not in found


def test_over_rest_and_by_command(center: Center, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = create_app(center, "t" * 43).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer " + "t" * 43
    assert client.post("/v1/notice-drafts", json=DRAFT | {"changes": {"methods": ["x"]}}).status_code == 200
    assert client.get("/v1/notice-drafts/ads-notice/preview").get_json()["asked_again"] == 5
    assert client.get("/v1/notice-drafts").get_json()[0]["actor"] == "rest"
    assert client.delete("/v1/notice-drafts/ads-notice").status_code == 200
    assert client.post("/v1/notice-drafts/ads-notice/publish", json={}).status_code == 404
    file = tmp_path / "draft.json"
    file.write_text(json.dumps(DRAFT | {"changes": {"methods": ["x"]}}), encoding="utf-8")
    where = ["--center", str(tmp_path / "center")]
    assert run(consent, ["notice", "draft", str(file), *where]) == 0
    assert run(consent, ["notice", "preview", "ads-notice", *where]) == 0
    assert "people asked again: 5" in capsys.readouterr().out
    assert run(consent, ["notice", "publish", "ads-notice", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["asked_again"] == 5
    assert client.get("/v1/notices/ads-notice/diff?old=1&new=2").get_json()["aspects"] == ["method"]
    assert client.get("/v1/purposes/ads/reconsent?limit=9").get_json()["ordinals"] == [0, 1, 2, 4, 5]
    assert run(consent, ["notice", "diff", "ads-notice", "1", "2", *where]) == 0
    assert run(consent, ["reconsent", "ads", "--list", "3", *where]) == 0
    assert "people to ask again: 5" in capsys.readouterr().out
