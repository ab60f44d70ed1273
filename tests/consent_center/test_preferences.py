"""Preferences and contact decisions in a center: recording, deciding, reserving, counting, fsck, erasure."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import consent_helpers
import pytest
from consent_helpers import START, Clock, event, make, phone

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.preferences.model import REASONS, Cap, Contact, Policy, Preference, Question, Quiet, Term

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Iterator[Center]:
    with make(tmp_path / "c", clock) as made:
        made.preferences.declare(Term("topic", "news", {"zh": "新闻", "en": "News"}))
        yield made


def ask(number: int = 1, **changes: Any) -> Question:
    return replace(Question("phone", phone(number), "sms", "news", "crm"), **changes)


def contact(id: str, number: int = 1, **changes: Any) -> Contact:
    return replace(Contact("phone", phone(number), "sms", "news", "crm", id, START), **changes)


def put(center: Center, *wishes: Preference, number: int = 1) -> Any:
    return center.preferences.set_many([("phone", phone(number))], wishes)


def codes(center: Center, question: Question) -> list[str]:
    return [reason.code for reason in center.preferences.may_contact(question).reasons]


def test_every_reason_at_once(center: Center, clock: Clock) -> None:
    pause = START + timedelta(hours=3)
    quiet = (Quiet("00:00", "00:00", days=("sun",)),)
    put(
        center,
        Preference("sms", "news", False, (Cap(1, "day"),), quiet, pause),
        Preference("*", allowed=False),
    )
    center.preferences.record_contacts([contact("a")])
    answer = center.preferences.may_contact(ask(purpose="ads"))
    found = [reason.code for reason in answer.reasons]
    assert found == ["no_consent", "opted_out_topic", "opted_out", "paused", "quiet_hours", "cap_day"]
    assert answer.next_at is None, "waiting does not turn a no into a yes"
    assert all(reason.title["zh"] and reason.title["en"] for reason in answer.reasons)
    clock.forward(seconds=1)
    put(center, Preference("sms", "news", True, (Cap(1, "day"),), quiet, pause), Preference("*"))
    answer = center.preferences.may_contact(ask())
    assert answer.next_at == START + timedelta(days=1)
    assert codes(center, ask(2, channel="fax", topic="x")) == [
        "unknown_subject",
        "unknown_channel",
        "unknown_topic",
    ]
    assert codes(center, replace(ask(), value="x")) == ["identifier_invalid"]
    assert set(REASONS) >= set(found)


def test_linked_consent_and_its_end(center: Center, clock: Clock) -> None:
    center.preferences.put_policy(Policy("sms", purpose="ads"))
    put(center, Preference("sms", paused_until=START + timedelta(days=2)))
    assert codes(center, ask()) == ["no_consent", "paused"]
    grant = {"recipient": "brand", "categories": ("contact", "usage")}
    center.record(event(1, **grant, expires_at=START + timedelta(days=3)))
    answer = center.preferences.may_contact(ask())
    assert [r.code for r in answer.reasons] == ["paused"]
    assert answer.next_at == START + timedelta(days=2)
    put(center, Preference("sms", paused_until=START + timedelta(days=4)))
    assert center.preferences.may_contact(ask()).next_at is None, "consent ends before the pause"
    assert codes(center, ask(at=START + timedelta(days=5))) == ["no_consent"]
    center.record(event(1, **grant, action="withdrawn", occurred_at=START))
    assert "no_consent" in codes(center, ask())


def test_minors(center: Center) -> None:
    born = date(2016, 1, 1)
    guardian = {"action": "guardian_granted", "birth_date": born}
    center.record(event(1, **guardian, recipient="brand", categories=("contact", "usage")))
    assert codes(center, ask()) == ["minor"], "without a linked purpose nobody has consented for the child"
    assert codes(center, ask(purpose="ads")) == []
    center.record(event(2, birth_date=born, recipient="brand", categories=("contact", "usage")))
    assert codes(center, ask(2, purpose="ads")) == ["no_consent", "minor"]


def test_fold_does_not_depend_on_arrival(center: Center) -> None:
    put(center, Preference("sms", allowed=False))
    put(center, Preference("sms", allowed=True, occurred_at=START - timedelta(days=1)))
    assert codes(center, ask()) == ["opted_out_channel"], "an older yes that arrives late"
    put(center, Preference("sms", allowed=True))
    assert codes(center, ask()) == ["opted_out_channel"], "of two at one moment the refusal"
    held = center.preferences.get("phone", phone(1), history=True)
    assert len(held.in_force) == 1 and len(held.history) == 3
    assert center.fsck() is None


def test_counts_across_senders_and_idempotent(center: Center, clock: Clock) -> None:
    put(center, Preference("sms", caps=(Cap(2, "week"),)))
    report = center.preferences.record_contacts
    assert report([contact("a"), contact("a"), contact("b", 9)]).outcomes == (
        "recorded",
        "repeated",
        "subject.unknown",
    )
    assert report([contact("a")]).outcomes == ("repeated",)
    assert report([contact("a", topic="other")]).outcomes == ("preference.contact_conflict",)
    assert report([contact("c", at=START + timedelta(days=1))]).outcomes == ("preference.time",)
    assert codes(center, ask(sender="shop")) == []
    assert report([contact("a", sender="shop")]).outcomes == ("recorded",), "ids are each sender's own"
    assert codes(center, ask()) == ["cap_week"]
    clock.forward(days=7)
    assert codes(center, ask()) == []
    assert center.fsck() is None


def test_reservations(center: Center, clock: Clock) -> None:
    put(center, Preference("sms", caps=(Cap(1, "day"),)))
    first = ask(contact_id="a", reserve=True)
    answers = center.preferences.decide([first, ask(sender="shop", contact_id="x", reserve=True)])
    assert [answer.allowed for answer in answers] == [True, False]
    assert center.preferences.may_contact(first).allowed, "the same id keeps its slot"
    clock.forward(minutes=16)
    assert center.preferences.may_contact(ask(sender="shop", contact_id="x", reserve=True)).allowed, "lapsed"
    assert center.preferences.release("shop", ["x"]) == 1
    assert center.preferences.may_contact(first).allowed
    center.preferences.record_contacts([contact("a", at=clock())])
    assert codes(center, first) == ["already_made"]
    assert codes(center, ask(sender="shop")) == ["cap_day"]
    with pytest.raises(ConsentError, match="contact_conflict"):
        center.preferences.may_contact(replace(first, channel="email"))
    assert center.fsck() is None


@pytest.mark.sqlite
def test_fails_closed(center: Center, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(center, Preference("sms"))
    assert codes(center, ask()) == []

    def broken(*_: Any) -> Any:
        raise ConsentError("center.busy", "locked")

    with monkeypatch.context() as patch:
        patch.setattr("consent_center.ledger.log.append_entries", broken)
        answer = center.preferences.may_contact(ask())
    assert not answer.allowed and [r.code for r in answer.reasons] == ["stale"] and answer.next_at is None
    tamper(tmp_path, "UPDATE preferences SET sealed = zeroblob(64)")
    assert codes(center, ask()) == ["stale"], "what can't be read does not allow"


def tamper(folder: Path, sql: str) -> None:
    with sqlite3.connect(folder / "c" / "center.db") as database:
        assert database.execute(sql).rowcount > 0


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE preferences SET subject = 1 WHERE number = 1",
        "UPDATE preferences SET occurred_at = occurred_at + 1",
        "UPDATE preferences SET slot = zeroblob(16)",
        "UPDATE preferences SET leaf = 0",
        "DELETE FROM preferences WHERE number = 2",
        "DELETE FROM preferences WHERE number = 1",
        "UPDATE preference_states SET number = 2",
        "DELETE FROM preference_states",
        "UPDATE contact_policies SET body = replace(body, '3', '9')",
        "DELETE FROM contact_policies",
        "UPDATE contacts SET at = at - 1",
        "UPDATE contacts SET subject = 1",
        "UPDATE contacts SET leaf = leaf + 1",
        "UPDATE contacts SET expires_at = 1",
        "DELETE FROM contacts",
    ],
)
def test_fsck_finds(center: Center, tmp_path: Path, sql: str) -> None:
    put(center, Preference("sms", allowed=False))
    put(center, Preference("sms", allowed=False, occurred_at=START - timedelta(days=1)))
    put(center, Preference("email"), number=2)
    center.preferences.put_policy(Policy("*", caps=(Cap(3, "week"),)))
    center.preferences.record_contacts([contact("a")])
    assert center.fsck() is None
    tamper(tmp_path, sql)
    assert center.fsck() is not None


def test_erasure(center: Center, clock: Clock, tmp_path: Path) -> None:
    put(center, Preference("sms", "news", False, source="hotline"))
    center.preferences.record_contacts([contact("13800000001")])
    center.erase("phone", phone(1), "dpo")
    assert codes(center, ask()) == ["unknown_subject"]
    assert center.fsck() is None
    content = b"".join(path.read_bytes() for path in (tmp_path / "c").glob("center.db*"))
    assert b"hotline" not in content and b"13800000001" not in content
    clock.forward(seconds=1)
    put(center, Preference("sms"))
    assert codes(center, ask()) == [], "who comes back begins anew"


def test_people_known_by_a_preference_only(center: Center) -> None:
    """The index in memory must learn of them, or a large batch would make them a second time."""
    center.record_many([event(n) for n in range(2, 400)])
    put(center, Preference("sms", allowed=False))
    done = center.record_many([event(n) for n in range(1, 400)])
    assert done.count == 399 and not done.errors
    assert codes(center, ask()) == ["opted_out_channel"]
    assert center.fsck() is None


def test_policies_are_versioned(center: Center) -> None:
    book = center.preferences
    one = book.put_policy(Policy("sms", caps=(Cap(2, "day"),)), "dpo")
    assert book.put_policy(Policy("sms", caps=(Cap(2, "day"),))) == one
    assert book.put_policy(Policy("sms", caps=(Cap(1, "day"),))).version == 2
    assert [policy.version for policy in book.rulebook().policies] == [2]
    for bad, code in (
        (Policy("fax"), "preference.unknown"),
        (Policy("sms", caps=(Cap(-1, "day"),)), "preference.cap"),
        (Policy("sms", quiet=(Quiet("24:00", "08:00"),)), "preference.quiet"),
        (Policy("sms", quiet=(Quiet("22:00", "08:00", "../etc/passwd"),)), "preference.zone"),
        (Policy("sms", recipient="x"), "preference.policy"),
    ):
        with pytest.raises(ConsentError) as error:
            book.put_policy(bad)
        assert error.value.code == code
    with pytest.raises(ConsentError, match="only the center itself"):
        center.append("contact.policy", {})


RACE = """
import sys
from pathlib import Path
from consent_center.center import Center
from consent_center.preferences.model import Question
with Center.open(Path(sys.argv[1])) as center:
    sys.stdin.readline()
    name, *people = sys.argv[2:]
    asked = [Question("phone", p, "sms", "news", name, contact_id=p, reserve=True) for p in people]
    print("".join(str(int(center.preferences.may_contact(q).allowed)) for q in asked))
"""


def test_two_processes_one_slot(tmp_path: Path) -> None:
    people = [phone(n) for n in range(15)]
    with Center.create(tmp_path / "c", "brand", database=consent_helpers.storage()) as center:
        center.preferences.declare(Term("topic", "news", {"en": "News"}))
        for person in people:
            center.preferences.set_many([("phone", person)], [Preference("sms", caps=(Cap(1, "day"),))])
        command = [sys.executable, "-c", RACE, str(tmp_path / "c")]
        racers = [
            subprocess.Popen(
                [*command, name, *people], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for name in ("a", "b")
        ]
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        told = [racer.communicate(timeout=240)[0].strip() for racer in racers]
        assert [int(x) + int(y) for x, y in zip(*told, strict=True)] == [1] * len(people)
        assert center.fsck() is None


def test_bulk(center: Center) -> None:
    center.record_many([event(n) for n in range(500)])
    center.preferences.put_policy(Policy("*", caps=(Cap(1, "day"),)))
    answers = center.preferences.decide([ask(n, contact_id=str(n), reserve=True) for n in range(1000)])
    assert [answer.allowed for answer in answers] == [True] * 500 + [False] * 500
    with pytest.raises(ConsentError, match="row 1"):
        center.preferences.decide([ask(), ask(topic="*")])
