"""Forms, signed links, double opt-in, guardians, cooldown: what each allows, records and refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, START, Clock, event, make, notice, phone, reason
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.center import Center
from consent_center.collection import contact, links
from consent_center.collection.experiments import arm_of
from consent_center.errors import ConsentError
from consent_center.model import DecisionRequest, Notice
from consent_center.preferences.evaluate import Known, evaluate
from consent_center.preferences.model import Cap, Policy, Preference, Question, Term

FORM: dict[str, Any] = {
    "id": "signup",
    "title": {"zh": "订阅", "en": "Sign-up"},
    "offers": [{"purpose": "ads", "recipient": "provider", "categories": ["contact"]}],
    "recipients": {
        "provider": {"title": {"zh": "某公司", "en": "Provider Ltd"}, "contact": {"en": "dpo@provider"}}
    },
    "cooldown_days": 30,
}
WHO = [("phone", phone(1))]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Iterator[Center]:
    with make(tmp_path / "center", clock) as center:
        center.collection.put_form(FORM)
        yield center


def code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ConsentError) as caught:
        call(*arguments, **named)
    return caught.value.code


def click(
    center: Center, link: dict[str, Any], action: str, kind: str = "page", **more: Any
) -> dict[str, Any]:
    page = center.collection.view(link["token"], kind, "zh")
    offer = page["offers"][0]
    return center.collection.answer(link["token"], kind, page["ticket"], offer["key"], action, **more)


def state(center: Center, link: dict[str, Any]) -> str:
    return str(center.collection.view(link["token"], "page", "zh")["offers"][0]["state"])


def test_a_person_grants_and_withdraws_on_the_page(center: Center, clock: Clock) -> None:
    link = center.collection.link(WHO, "signup")
    assert phone(1) not in link["path"] and link["path"] == "/p/" + link["token"]
    assert state(center, link) == "none" and reason(center, 1) == "no_event"
    clock.forward(minutes=3)
    assert click(center, link, "grant")["changed"]
    assert reason(center, 1) == "eligible" and state(center, link) == "granted"
    assert not click(center, link, "grant")["changed"]
    clock.forward(minutes=3)
    assert click(center, link, "withdraw")["changed"]
    assert reason(center, 1) == "withdrawn" and state(center, link) == "withdrawn"
    assert center.fsck() is None


def test_what_was_shown_is_evidence(center: Center, clock: Clock) -> None:
    link = center.collection.link(WHO, "signup")
    page = center.collection.view(link["token"], "page", "zh")
    clock.forward(seconds=40)
    center.collection.answer(link["token"], "page", page["ticket"], page["offers"][0]["key"], "grant")
    told = center.explain("phone", phone(1)).events[-1]
    evidence = json.loads(told["evidence"])
    assert evidence["notice_hash"] == center.notices()[0].hash
    assert evidence["layout_hash"] == page["layout_hash"]
    assert evidence["shown_at"] == START.isoformat() and evidence["link"] == link["link"]
    assert evidence["language"] == "en"  # the notice has no Chinese text, so that is what was shown
    assert told["channel"] == "preference_page" and told["notice"] == "ads-notice"


def test_links_end(center: Center, clock: Clock) -> None:
    link = center.collection.link(WHO, "signup", seconds=3_600)
    assert code(center.collection.view, link["token"], "guardian", "zh") == "link.invalid"
    token = link["token"]
    changed = token[:-5] + ("B" if token[-5] == "A" else "A") + token[-4:]  # in the MAC
    assert code(center.collection.view, changed, "page", "zh") == "link.invalid"
    clock.forward(hours=1)
    assert code(center.collection.view, link["token"], "page", "zh") == "link.expired"
    second = center.collection.link(WHO, "signup")
    center.collection.revoke_links("phone", phone(1))
    assert code(center.collection.view, second["token"], "page", "zh") == "link.expired"
    third = center.collection.link(WHO, "signup")
    center.erase("phone", phone(1), "officer")
    assert code(center.collection.view, third["token"], "page", "zh") == "link.expired"
    assert code(center.collection.link, WHO, "signup", seconds=10**9) == "link.lifetime"
    assert center.fsck() is None


def test_a_link_of_an_exchanged_row_opens_nothing(center: Center) -> None:
    first = center.collection.link(WHO, "signup")
    center.collection.link([("phone", phone(2))], "signup")
    with center.room.write() as connection:
        connection.execute(links.links.update().values(subject=1))
    assert code(center.collection.view, first["token"], "page", "zh") == "link.invalid"


@settings(max_examples=60, deadline=None)
@given(flip=st.integers(0, 8 * 58 - 1))
def test_any_changed_bit_of_a_token_is_refused(flip: int, shared: tuple[Center, str]) -> None:
    center, token = shared
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[flip // 8] ^= 1 << flip % 8
    changed = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
    assert code(center.collection.view, changed, "page", "zh") == "link.invalid"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Center, str]]:
    with make(tmp_path_factory.mktemp("links") / "center") as center:
        center.collection.put_form(FORM)
        yield center, center.collection.link(WHO, "signup")["token"]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=120))
def test_any_text_as_token_is_refused(text: str, shared: tuple[Center, str]) -> None:
    center, _ = shared
    assert code(center.collection.view, text, "page", "zh") == "link.invalid"


def test_the_page_shows_what_was_answered_elsewhere(center: Center, clock: Clock) -> None:
    """Consent to another recipient, from a shop: seen on the page and withdrawn there in one click."""
    link = center.collection.link(WHO, "signup")
    offered = len(center.collection.view(link["token"], "page", "zh")["offers"])
    center.record(event(1, recipient="media"))
    center.record(event(1, recipient="bank", action="denied", notice="", notice_version=0))
    center.assume(pa.array([phone(1)]), "phone", "ads", "guess", ["contact"], "trial", "me")
    page = center.collection.view(link["token"], "page", "zh")
    others = [(o["recipient_id"], o["state"]) for o in page["offers"][offered:]]
    assert others == [("bank", "denied"), ("media", "granted")], "assumed consent is nobody's answer"
    key = page["offers"][-1]["key"]
    clock.forward(minutes=1)
    assert center.collection.answer(link["token"], "page", page["ticket"], key, "withdraw")["changed"]
    assert reason(center, 1, DecisionRequest("ads", "media", ("contact",))) == "withdrawn"
    center.switch_purpose("ads", False, "dpo")
    assert center.collection.view(link["token"], "page", "zh")["offers"] == []
    assert center.fsck() is None


def test_a_ticket_is_for_one_page_and_one_notice(center: Center, clock: Clock) -> None:
    link, other = (center.collection.link([("phone", phone(n))], "signup") for n in (1, 2))
    page = center.collection.view(link["token"], "page", "zh")
    key = page["offers"][0]["key"]
    answer = center.collection.answer
    assert code(answer, other["token"], "page", page["ticket"], key, "grant") == "link.ticket"
    assert code(answer, link["token"], "page", page["ticket"] + "x", key, "grant") == "link.ticket"
    assert code(answer, link["token"], "page", "", key, "grant") == "link.ticket"
    assert code(answer, link["token"], "page", page["ticket"], key, "sell") == "event.action"
    center.put_notice(notice(2))
    assert code(answer, link["token"], "page", page["ticket"], key, "grant") == "link.ticket"
    page = center.collection.view(link["token"], "page", "zh")
    clock.forward(hours=25)
    assert code(answer, link["token"], "page", page["ticket"], key, "grant") == "link.ticket"


def test_a_new_notice_asks_again(center: Center, clock: Clock) -> None:
    link = center.collection.link(WHO, "signup")
    click(center, link, "grant")
    assert not center.collection.may_ask("phone", phone(1), "ads", "provider")["may_ask"]
    center.put_notice(notice(2))
    assert state(center, link) == "outdated" and reason(center, 1) == "outdated_notice"
    assert center.collection.may_ask("phone", phone(1), "ads", "provider")["reason"] == "outdated_notice"
    clock.forward(minutes=1)
    assert click(center, link, "grant")["changed"] and reason(center, 1) == "eligible"


def test_after_a_refusal_the_organisation_waits_and_the_person_need_not(center: Center, clock: Clock) -> None:
    link = center.collection.link(WHO, "signup")
    click(center, link, "refuse")
    asked = center.collection.may_ask("phone", phone(1), "ads", "provider")
    assert asked == {
        "may_ask": False,
        "reason": "cooldown",
        "next_at": (START + timedelta(days=30)).isoformat(),
    }
    assert code(center.collection.link, WHO, "signup", asks=True) == "collection.cooldown"
    assert code(center.collection.request_opt_in, WHO, "signup", "ads", "provider") == "collection.cooldown"
    begun = center.collection.request_opt_in(WHO, "signup", "ads", "provider", initiative="person")
    assert begun["path"].startswith("/p/confirm/")
    clock.forward(minutes=1)
    assert click(center, link, "grant")["changed"]  # by the person's own click, at once
    clock.forward(minutes=1)
    click(center, link, "withdraw")
    clock.forward(days=30)
    assert center.collection.may_ask("phone", phone(1), "ads", "provider")["may_ask"]
    assert center.collection.link(WHO, "signup", asks=True)["path"]


def test_unconfirmed_never_counts(center: Center, clock: Clock) -> None:
    pending = center.collection.request_opt_in(WHO, "signup", "ads", "provider", evidence="form 7, 10:02")
    assert reason(center, 1) == "no_event"
    clock.forward(hours=5)
    center.collection.view(pending["token"], "confirm", "zh")  # a mail scanner follows the link
    assert reason(center, 1) == "no_event"
    assert click(center, pending, "grant", "confirm")["changed"]
    assert reason(center, 1) == "eligible"
    told = center.explain("phone", phone(1)).events[-1]
    evidence = json.loads(told["evidence"])
    assert told["method"] == "double_opt_in"
    assert evidence["note"] == "form 7, 10:02" and evidence["requested_at"] == START.isoformat()
    assert code(center.collection.view, pending["token"], "confirm", "zh") == "link.expired"


def test_a_second_request_ends_the_first(center: Center) -> None:
    first = center.collection.request_opt_in(WHO, "signup", "ads", "provider")
    center.collection.request_opt_in(WHO, "signup", "ads", "provider")
    assert code(center.collection.view, first["token"], "confirm", "zh") == "link.expired"


GUARDIAN = {"name": "王芳", "relation": "mother", "declared": "yes"}


def test_a_guardian_consents_and_it_lapses_on_the_birthday(center: Center, clock: Clock) -> None:
    born = date(2012, 6, 1)  # 14 on 1 June 2026
    link = center.collection.guardian_link(WHO, born, "signup", "called the number in the contract")
    refused = code(click, center, link, "grant", "guardian", guardian={**GUARDIAN, "declared": ""})
    assert refused == "event.guardian" and reason(center, 1) == "no_event"
    assert click(center, link, "grant", "guardian", guardian=GUARDIAN)["changed"]
    assert reason(center, 1) == "eligible"
    evidence = json.loads(center.explain("phone", phone(1)).events[-1]["evidence"])
    assert evidence["guardian"]["name"] == "王芳"
    assert evidence["guardian"]["contact_checked"] == "called the number in the contract"
    own = center.collection.link(WHO, "signup")
    assert state(center, own) == "granted"
    clock.now = START.replace(month=5, day=31, hour=15, minute=59)
    assert reason(center, 1) == "eligible"
    clock.now = START.replace(month=5, day=31, hour=16, minute=0)  # midnight in China
    assert reason(center, 1) == "expired"
    own = center.collection.link(WHO, "signup")
    assert state(center, own) == "expired"
    assert click(center, own, "grant")["changed"] and reason(center, 1) == "eligible"


def test_a_child_alone_cannot_grant_but_can_refuse(center: Center, clock: Clock) -> None:
    born = date(2015, 1, 1)
    guardian = center.collection.guardian_link(WHO, born, "signup", "known customer")
    click(center, guardian, "grant", "guardian", guardian=GUARDIAN)
    own = center.collection.link(WHO, "signup")
    clock.forward(minutes=1)
    assert click(center, own, "withdraw")["changed"] and reason(center, 1) == "minor_without_guardian"
    clock.forward(minutes=1)
    assert code(click, center, own, "grant") == "event.guardian"
    assert code(center.collection.guardian_link, WHO, date(2001, 1, 1), "signup", "x") == "event.guardian"
    assert code(center.collection.guardian_link, WHO, date(2027, 1, 1), "signup", "x") == "event.guardian"
    assert code(center.collection.guardian_link, WHO, born, "signup", " ") == "event.guardian"


def contact_click(center: Center, link: dict[str, Any], key: str, choice: str, **given: str) -> Any:
    page = center.collection.view(link["token"], "page", "en")
    channel, _, topic = key.partition("/")
    return center.collection.set_preference(link["token"], page["ticket"], channel, topic, choice, given)


def contact_rows(center: Center, link: dict[str, Any]) -> dict[str, Any]:
    told = center.collection.view(link["token"], "page", "en")["contact"]
    rows = [told["all"], *told["channels"], *told["topics"]]
    rows += [row for topic in told["topics"] for row in topic["channels"]]
    return {f"{row['channel']}/{row['topic']}": row for row in rows}


def test_a_person_sets_channels_topics_limits_and_quiet_hours_on_the_page(
    center: Center, clock: Clock
) -> None:
    center.preferences.declare(Term("topic", "news", {"zh": "资讯", "en": "News"}))
    center.preferences.declare(Term("topic", "old", {"en": "Old"}, active=False))
    center.preferences.put_policy(Policy("sms", caps=(Cap(3, "week"),)))
    center.preferences.put_policy(Policy("wechat", opt_in=True))
    link = center.collection.link(WHO, "signup")
    rows = contact_rows(center, link)
    assert {"*/*", "sms/*", "*/news", "sms/news", "wechat/news"} <= set(rows) and "*/old" not in rows
    assert rows["sms/*"]["house"]["caps"] == [{"count": 3, "per": "week"}]
    assert (rows["sms/*"]["state"], rows["wechat/news"]["state"]) == ("unset", "opt_in")
    for key, choice, times in (
        ("sms/*", "limit:1:week", {}),
        ("sms/*", "quiet", {"start": "21:30", "end": "09:00"}),
        ("*/news", "stop", {}),
        ("sms/news", "allow", {}),
        ("sms/*", "allow", {}),
    ):
        clock.forward(minutes=1)
        assert contact_click(center, link, key, choice, **times)["changed"]
    assert not contact_click(center, link, "sms/*", "allow")["changed"]  # nothing new, so nothing recorded
    rows = contact_rows(center, link)
    sms = rows["sms/*"]
    assert sms["state"] == "allowed" and sms["caps"] == [
        {"count": 1, "per": "week"}
    ]  # one click leaves the rest
    assert (sms["quiet"][0]["start"], sms["quiet"][0]["end"]) == ("21:30", "09:00")
    assert (rows["email/news"]["state"], rows["email/news"]["broader"]) == ("stopped", True)
    assert (rows["sms/news"]["state"], rows["*/news"]["limits"]) == ("allowed", False)
    held = center.preferences.get("phone", phone(1)).in_force
    assert {w.source for _, w in held} == {"preference_page"}
    asked = Question("phone", phone(1), "sms", "news", "shop")
    assert not center.preferences.decide([asked])[0].reasons
    night = replace(asked, at=clock() + timedelta(hours=3))  # 23:05 in Shanghai
    assert [r.code for r in center.preferences.decide([night])[0].reasons] == ["quiet_hours"]
    clock.forward(minutes=1)
    contact_click(center, link, "*/*", "stop")
    assert contact_rows(center, link)["sms/news"]["state"] == "stopped"
    for key, choice, times, told in (
        ("fax/*", "stop", {}, "preference.unknown"),
        ("sms/soap", "stop", {}, "preference.unknown"),
        ("sms/*", "limit:1:day", {}, "event.action"),  # stopped by the stop of everything
        ("*/*", "limit:9:day", {}, "event.action"),
        ("*/*", "quiet", {"start": "x", "end": "08:00"}, "event.action"),
    ):
        assert code(contact_click, center, link, key, choice, **times) == told
    clock.forward(minutes=1)
    contact_click(center, link, "*/*", "allow")
    assert code(contact_click, center, link, "*/*", "quiet", start="x", end="08:00") == "preference.quiet"
    assert center.fsck() is None


def test_a_limit_neither_renews_a_yes_nor_ends_a_later_one(center: Center, clock: Clock) -> None:
    """The words about a key have one time; setting its limits must not renew an older yes or no."""
    center.preferences.declare(Term("topic", "news", {"en": "News"}))
    link = center.collection.link(WHO, "signup")

    def state(key: str) -> str:
        return str(contact_rows(center, link)[key]["state"])

    for key, choice in (
        ("sms/news", "allow"),
        ("sms/*", "stop"),
        ("sms/*", "allow"),
        ("sms/news", "limit:1:day"),
    ):
        clock.forward(minutes=1)
        contact_click(center, link, key, choice)
    wish = {(w.channel, w.topic): w for _, w in center.preferences.get("phone", phone(1)).in_force}
    assert wish["sms", "news"].caps == (Cap(1, "day"),) and state("sms/news") == "allowed"
    clock.forward(minutes=1)
    contact_click(center, link, "*/*", "stop")
    clock.forward(minutes=1)
    contact_click(center, link, "*/news", "allow")
    assert (state("sms/news"), state("email/news"), state("sms/*")) == ("allowed", "allowed", "stopped")
    clock.forward(minutes=1)
    contact_click(
        center, link, "sms/news", "limit:none"
    )  # its own yes had ended: what allows it is the topic's
    wish = {(w.channel, w.topic): w for _, w in center.preferences.get("phone", phone(1)).in_force}
    assert wish["sms", "news"].allowed is None and wish["sms", "news"].caps == ()
    clock.forward(minutes=1)
    contact_click(center, link, "*/news", "stop")
    assert state("sms/news") == "stopped"


WISHES = st.lists(
    st.builds(
        lambda channel, topic, allowed, minute: Preference(
            channel, topic, allowed, occurred_at=START + timedelta(minutes=minute)
        ),
        st.sampled_from(["*", "sms", "email"]),
        st.sampled_from(["*", "news", "offers"]),
        st.sampled_from([True, False, None]),
        st.integers(0, 5),
    ),
    unique_by=lambda wish: (wish.channel, wish.topic),
)


@settings(max_examples=60, deadline=None)
@given(WISHES)
def test_the_page_says_stopped_where_a_decision_says_no(wishes: list[Preference]) -> None:
    for channel in ("sms", "email"):
        for topic in ("news", "offers"):
            decided = evaluate(Known(wishes, (), (), (), None), channel, topic, 0)
            told = contact._row((), wishes, channel, topic)
            assert (told["state"] == "stopped") == (not decided.allowed)
            said_yes = evaluate(Known(wishes, (Policy("*", opt_in=True),), (), (), None), channel, topic, 0)
            assert (told["state"] == "allowed") <= said_yes.allowed


@pytest.mark.parametrize(
    "change",
    [
        {"offers": []},
        {"offers": [{"purpose": "ads", "recipient": "a,b"}]},
        {"offers": [{"purpose": "nobody", "recipient": "provider"}]},
        {"offers": [{"purpose": "ads", "recipient": "provider", "categories": ["location"]}]},
        {"cooldown_days": -1},
        {"cooldown_days": True},
        {"id": "a b"},
        {"colour": "red"},
        {"recipients": {"provider": {"title": {"fr": "x"}}}},
    ],
)
def test_forms_that_are_refused(center: Center, change: dict[str, Any]) -> None:
    assert code(center.collection.put_form, FORM | change) == "collection.form"


def test_forms_are_versioned_in_the_ledger(center: Center) -> None:
    first = center.collection.forms()[0]
    assert center.collection.put_form(FORM)["leaf"] == first["leaf"]
    second = center.collection.put_form(FORM | {"cooldown_days": 60}, "officer")
    assert second["version"] == 2 and center.opening(second["leaf"])["payload"]["actor"] == "officer"
    with center.room.write() as connection:
        from consent_center.collection.tables import settings as table

        connection.execute(table.update().where(table.c.version == 2).values(body="{}"))
    found = center.fsck()
    assert found is not None and found.where == f"settings {second['leaf']}"


def test_an_experiment_assigns_at_random_and_for_good(center: Center) -> None:
    center.put_notice(Notice("ads-short", 1, "ads", 1, {"zh": "短", "en": "short"}))
    document = {
        "id": "short-text",
        "purpose": "ads",
        "a": {"notice": "ads-notice", "version": 1},
        "b": {"notice": "ads-short", "version": 1},
    }
    experiment = center.collection.put_experiment(document)
    arms = [arm_of(center.room.keys, experiment, f"visitor {n}".encode()) for n in range(2_000)]
    assert 850 < arms.count("b") < 1_150
    assert arms == [arm_of(center.room.keys, experiment, f"visitor {n}".encode()) for n in range(2_000)]
    seen = set()
    for n in range(12):
        link = center.collection.link([("phone", phone(n))], "signup")
        texts = {center.collection.view(link["token"], "page", "en")["offers"][0]["notice"] for _ in range(3)}
        assert len(texts) == 1
        seen |= texts
    assert seen == {"ads-notice", "ads-short"}
    other = code(center.collection.put_experiment, document | {"id": "second"})
    assert other == "collection.experiment"
    same = document | {"b": document["a"]}
    assert code(center.collection.put_experiment, same) == "collection.experiment"


def test_a_purpose_switched_off_is_not_offered(center: Center) -> None:
    link = center.collection.link(WHO, "signup")
    center.switch_purpose("ads", False, "officer")
    assert center.collection.view(link["token"], "page", "zh")["offers"] == []
    assert center.collection.may_ask("phone", phone(1), "ads", "provider")["reason"] == "purpose_inactive"


def test_an_event_of_a_server_and_one_of_the_page_are_one_story(center: Center, clock: Clock) -> None:
    center.record(event(1))
    link = center.collection.link(WHO, "signup")
    assert state(center, link) == "granted"
    click(center, link, "withdraw")
    assert reason(center, 1, DecisionRequest("ads", "provider", ("contact",))) == "withdrawn"
    assert len(center.explain("phone", phone(1)).events) == 2 and REQUEST.purpose == "ads"
