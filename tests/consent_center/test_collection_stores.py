"""Collection, notices, rules and figures on SQLite and PostgreSQL alike, and through a remote center."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from consent_helpers import Clock, event, make, phone, reason
from test_collection import FORM, GUARDIAN, click
from test_notices import DRAFT
from test_rules import HEAD, rule

from consent_center.analytics.client import analytics_of
from consent_center.center import Center
from consent_center.client import open_center
from consent_center.collection.client import collection_of
from consent_center.errors import ConsentError
from consent_center.model import Notice
from consent_center.notices.client import notices_of
from consent_center.rest import server
from consent_center.rules.client import rules_of

pytestmark = pytest.mark.usefixtures("store")


def test_the_whole_way(tmp_path: Path) -> None:
    """Asked, confirmed, changed, asked again, refused by a rule, counted, erased: and the log agrees."""
    clock = Clock()
    with make(tmp_path / "c", clock) as center:
        center.collection.put_form(FORM)
        center.record_many([event(n, channel="web") for n in range(20, 40)])
        link = center.collection.link([("phone", phone(1))], "signup")
        assert click(center, link, "grant")["changed"]
        page = center.collection.view(link["token"], "page", "en")
        center.collection.set_preference(link["token"], page["ticket"], "sms", "*", "allow")
        pending = center.collection.request_opt_in([("phone", phone(2))], "signup", "ads", "provider")
        assert reason(center, 2) == "no_event"
        assert click(center, pending, "grant", "confirm")["changed"]
        child = center.collection.guardian_link([("phone", phone(3))], date(2016, 1, 1), "signup", "met")
        assert click(center, child, "grant", "guardian", guardian=GUARDIAN)["changed"]
        assert [reason(center, n) for n in (1, 2, 3)] == ["eligible"] * 3
        center.notice_board.draft(DRAFT | {"changes": {"methods": ["lookalike"]}})
        assert center.notice_board.publish("ads-notice")["asked_again"] == 23
        assert reason(center, 1) == "outdated_notice"
        clock.forward(minutes=1)
        assert click(center, link, "grant")["changed"] and reason(center, 1) == "eligible"
        center.rules.set_regions([("phone", phone(1), "CN-31")])
        center.rules.apply(HEAD + rule(regions=["CN"], unknown_region=False))
        assert reason(center, 1) == "blocked_by_rule"
        center.rules.apply(HEAD + rule(effect="limit", per="day", decisions=1))
        assert [reason(center, 1) for _ in range(2)] == ["eligible", "blocked_by_rule"]
        rates = center.analytics.rates("week")
        assert rates["total"]["granted"] == 24
        assert center.analytics.funnel(least=5)["groups"][0]["shown"] is None
        center.erase("phone", phone(1), "dpo")
        with pytest.raises(ConsentError, match="link.expired"):
            center.collection.view(link["token"], "page", "en")
        assert center.fsck() is None


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[tuple[Center, Any]]:
    with make(tmp_path / "c") as center, server.start(tmp_path / "c", center=center) as running:
        center.record_many([event(n) for n in range(12)])
        with open_center(running.address.location) as client:
            yield center, client


def test_a_remote_center_answers_the_same(remote: tuple[Center, Any]) -> None:
    center, client = remote
    collection, far = collection_of(center), collection_of(client)
    assert far.put_form(FORM, "wang")["version"] == 1 and far.forms() == collection.forms()
    site = far.put_site({"id": "shop", "form": "signup", "origins": ["https://shop.example"]})
    assert site["key"] and far.sites() == collection.sites()
    center.put_notice(Notice("ads-short", 1, "ads", 1, {"en": "short"}))
    arms = {"a": {"notice": "ads-notice", "version": 1}, "b": {"notice": "ads-short", "version": 1}}
    far.put_experiment({"id": "short", "purpose": "ads", **arms})
    assert far.experiments() == collection.experiments()
    link = far.link([("phone", phone(50))], "signup", seconds=3_600)
    assert click(center, link, "refuse")["changed"]
    assert not far.may_ask("phone", phone(50), "ads", "provider")["may_ask"]
    with pytest.raises(ConsentError, match="collection.cooldown"):
        far.link([("phone", phone(50))], "signup", asks=True)
    assert far.revoke_links("phone", phone(50))["revoked"] == 1
    assert far.request_opt_in([("phone", phone(51))], "signup", "ads", "provider")["path"]
    assert far.guardian_link([("phone", phone(52))], date(2018, 1, 1), "signup", "met")["path"]

    board, far_board = notices_of(center), notices_of(client)
    assert far_board.draft(DRAFT, "wang")["actor"] == "wang" and far_board.drafts() == board.drafts()
    assert far_board.preview("ads-notice") == board.preview("ads-notice")
    far_board.discard("ads-notice")
    far_board.draft(DRAFT | {"changes": {"retention_days": 30}})
    assert far_board.publish("ads-notice")["asked_again"] == 12
    assert far_board.reconsent("ads", 0, 5) == board.reconsent("ads", 0, 5)
    assert far_board.diff("ads-notice", 1, 2) == board.diff("ads-notice", 1, 2)

    rules, far_rules = rules_of(center), rules_of(client)
    assert far_rules.check(HEAD + rule()) == rules.check(HEAD + rule())
    assert far_rules.dry_run(HEAD + rule(), 3) == rules.dry_run(HEAD + rule(), 3)
    far_rules.apply(HEAD + rule(), "wang", "none")
    assert far_rules.show() == rules.show() and len(rules.show()["rules"]) == 1
    assert far_rules.set_regions([("phone", phone(1), "CN")]) == {"set": 1, "unknown": 0}

    figures, far_figures = analytics_of(center), analytics_of(client)
    assert far_figures.rates("notice") == figures.rates("notice")
    assert far_figures.standing() == figures.standing() and far_figures.funnel() == figures.funnel()
    assert far_figures.experiment("short") == figures.experiment("short")
