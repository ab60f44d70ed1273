"""Rights requests: nothing before the identity check, every step a leaf, each kind carried out to its end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, START, Clock, ads, event, make, notice, phone, reason

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.ledger import verify as ledger_verify
from consent_center.model import DecisionRequest
from consent_center.preferences.model import Contact, Preference, Question, Term
from consent_center.receipts.verify import dumps
from consent_center.receipts.verify import verify as verify_receipt
from consent_center.requests import package, restriction
from consent_center.requests.clock import ClockRule
from consent_center.requests.model import DONE, GROUNDS, IDENTIFIED, KINDS, STEPS, TASKS, move

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Any:
    with make(tmp_path / "c", clock) as made:
        made.record(event(1))
        yield made


def decided(center: Center, kind: str, who: int = 1, **more: Any) -> str:
    """A request of that person that was granted and waits to be carried out."""
    made = center.rights.open(
        kind, [("phone", phone(who))], contact="a@b.cn", text="please", actor="desk", **more
    )
    id: str = made["id"]
    center.rights.step(id, "identity.pass", "desk", method="in_person", evidence="identity card seen")
    for name in TASKS[kind]:
        center.rights.step(id, "task.done", "desk", task=name)
    center.rights.step(id, "grant", "dpo")
    return id


def done(center: Center, kind: str, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = center.rights.fulfil(decided(center, kind), "dpo", **more)["result"]
    assert center.fsck() is None
    return result


def refusal(code: str, call: Any, *arguments: Any, **more: Any) -> ConsentError:
    with pytest.raises(ConsentError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code, caught.value
    return caught.value


# ---- the table ---------------------------------------------------------------------------------------------


def test_the_table_is_sound() -> None:
    states = set(STEPS)
    assert all(to in states for steps in STEPS.values() for to in steps.values())
    assert set(TASKS) == set(KINDS)
    # Whatever is not done can still end, and what is identified was identified on every way there.
    ends = {state: set(steps.values()) for state, steps in STEPS.items()}
    for state in states - DONE:
        seen, left = {state}, [state]
        while left:
            for to in ends[left.pop()] - seen:
                seen.add(to)
                left.append(to)
        assert seen & DONE, state
    for state, steps in STEPS.items():
        for step, to in steps.items():
            if to in IDENTIFIED and state not in IDENTIFIED:
                assert step == "identity.pass", (state, step)


def test_an_illegal_move_can_not_happen(center: Center) -> None:
    """Every step that the table does not have is refused and writes nothing."""
    names = {step for steps in STEPS.values() for step in steps} - {"letter", "fulfil", "purge"}
    id = decided(center, "access")
    size = int(center.checkpoint().split("\n")[1])
    for name in sorted(names - set(STEPS["decided"])):
        refusal("rights.state", center.rights.step, id, name)
    assert int(center.checkpoint().split("\n")[1]) == size
    with pytest.raises(ConsentError, match="not possible"):
        move("closed", "grant")
    with pytest.raises(ConsentError):
        move("nonsense", "grant")


# ---- identity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_before_the_identity_check(center: Center, kind: str) -> None:
    known = center.rights.open(kind, [("phone", phone(1))])
    stranger = center.rights.open(kind, [("phone", phone(99))])
    same = {k for k in known if known[k] != stranger[k]}
    assert same == {"id"}, "the answer tells whether somebody is known"
    for id in (known["id"], stranger["id"]):
        shown = center.rights.show(id)
        assert "known" not in shown and "subject" not in shown and "13800" not in json.dumps(shown)
        refusal("rights.identity", center.rights.fulfil, id)
        refusal("rights.state", center.rights.step, id, "grant")
        refusal("rights.identity", center.rights.step, id, "identity.pass", method="in_person")
        refusal("rights.request", center.rights.step, id, "identity.pass", method="guess", evidence="x")
        center.rights.step(id, "identity.fail", text="wrong code")
        refusal("rights.identity", center.rights.step, id, "refuse", grounds=["excessive"])
        refused = center.rights.step(id, "refuse", grounds=["identity_not_proven"])
        assert refused["state"] == "refused" and "known" not in refused
    assert reason(center, 1) == "eligible" and center.fsck() is None


def test_what_names_the_person_is_sealed_and_not_in_the_ledger(center: Center, tmp_path: Path) -> None:
    id = decided(center, "access")
    private = [step["private"] for step in center.rights.show(id, private=True)["steps"]]
    assert private[0]["contact"] == "a@b.cn" and private[0]["identifiers"] == [["phone", "+86" + phone(1)]]
    assert "identity card seen" in json.dumps(private)
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("center.db*"))
    for secret in (b"a@b.cn", phone(1).encode(), b"identity card"):
        assert secret not in raw


# ---- each kind ---------------------------------------------------------------------------------------------


def test_access_gives_everything_with_receipts(center: Center) -> None:
    center.preferences.declare(Term("topic", "news", {"en": "News"}))
    center.preferences.set_many([("phone", phone(1))], [Preference("sms", "news", allowed=True)])
    center.preferences.record_contacts([Contact("phone", phone(1), "sms", "news", "crm", "c1", START)])
    center.snapshot(REQUEST, pa.array([phone(1), phone(2)]), "phone", "job-7")
    given = done(center, "access")
    package.verify(given, center.verifier_key())
    assert given["consents"]["events"][0]["evidence"] == "form 7"
    assert verify_receipt(dumps(given["receipts"][0]), center.verifier_key()).sequence == 1
    assert [d["job_id"] for d in given["disclosures"]] == ["job-7"]
    assert given["disclosures"][0]["recipient"] == "provider"
    assert given["preferences"]["in_force"][0]["topic"] == "news" and given["contacts"][0]["channel"] == "sms"
    assert given["explanations"][0]["decision"] == "eligible"
    assert given["texts"]["notices"][0]["text"] == {"en": "text 1"}
    assert phone(1) not in json.dumps(given)
    refusal("receipt.signature", package.verify, {**given, "held": False}, center.verifier_key())


def test_the_other_packages(center: Center) -> None:
    assert "disclosures" not in done(center, "portability")
    assert done(center, "copy")["receipts"]
    told = done(center, "explanation")["explanations"][0]
    assert told["decision"] == "eligible" and told["order"][0] == "eligible"
    stranger = decided(center, "access", who=77)
    assert center.rights.show(stranger)["known"] is False
    assert center.rights.fulfil(stranger)["result"]["held"] is False


def test_the_ledger_keeps_the_hash_of_package_and_letter(center: Center) -> None:
    id = decided(center, "copy")
    given = center.rights.fulfil(id)["result"]
    letter = center.rights.letter(id, "decision", "<script>alert(1)</script>", "en")
    steps = {s["step"]: s for s in center.rights.show(id)["steps"]}
    import hashlib

    told = steps["fulfil"]["data"]["result"]["package_sha256"]
    assert told == hashlib.sha256(ledger_verify.canonical(given)).hexdigest()
    assert steps["letter"]["data"]["sha256"] == hashlib.sha256(letter["html"].encode()).hexdigest()
    assert center.opening(letter["leaf"])["payload"]["step"] == "letter"
    assert "<script>" not in letter["html"] and "&lt;script&gt;" in letter["html"]


def test_a_letter_has_the_days_of_the_rules_zone(center: Center, clock: Clock) -> None:
    """20:00 in UTC is the next day in China: a letter must not bear a date before the person asked."""
    clock.now = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
    id = center.rights.open("access", [("phone", phone(1))], actor="desk")["id"]
    page = center.rights.letter(id, "acknowledgement", "", "en")["html"]
    assert "2026-03-02" in page and "2026-03-01" not in page
    center.rights.put_rule(ClockRule("GDPR", months=1, country="DE", zone="Europe/Berlin"))
    id = center.rights.open("access", [("phone", phone(2))], regulation="GDPR", actor="desk")["id"]
    page = center.rights.letter(id, "acknowledgement", "", "en")["html"]
    assert "2026-03-01" in page and "2026-03-02" not in page


def test_restriction_makes_every_decision_refuse(center: Center, tmp_path: Path, clock: Clock) -> None:
    snapshot = center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job-1")
    with Center.open(tmp_path / "c", clock) as other:  # a follower that has read its state before
        assert reason(other, 1) == "eligible"
        id = decided(center, "restriction")
        assert center.rights.fulfil(id)["result"]["held"]
        assert reason(center, 1) == reason(other, 1) == "restricted"
        assert len(center.delta(snapshot.id).withdrawn) == 1, "running jobs drop the person"
        center.record(event(1, action="renewed", occurred_at=START))
        assert reason(other, 1) == "restricted"
        assert center.fsck() is None
        center.rights.letter(id, "decision")
        center.rights.step(id, "close")
        center.rights.step(id, "lift")
        refusal("rights.fulfil", center.rights.step, id, "lift")
        assert reason(center, 1) == reason(other, 1) == "eligible"
        assert center.fsck() is None


def test_restricted_people_are_not_contacted(center: Center) -> None:
    center.preferences.declare(Term("topic", "news", {"en": "News"}))
    question = Question("phone", phone(1), "sms", "news", "crm")
    assert center.preferences.may_contact(question).allowed
    center.rights.fulfil(decided(center, "restriction"))
    answer = center.preferences.may_contact(question)
    assert [r.code for r in answer.reasons] == ["restricted"] and answer.next_at is None


def test_deletion_destroys_the_key_and_old_grants_do_not_come_back(center: Center, clock: Clock) -> None:
    before = center.checkpoint()
    id = decided(center, "deletion")
    clock.forward(minutes=5)
    assert center.rights.fulfil(id)["result"]["held"]
    assert reason(center, 1) == "unknown_subject"
    assert center.fsck(before) is None
    # The same grant, imported again, and one that is older than the erasure under another action.
    assert refusal("event.erased", center.record, event(1)).code == "event.erased"
    many = center.record_many([event(1), event(2), event(1, action="withdrawn", occurred_at=START)], "skip")
    assert [e.code for e in many.errors] == ["event.erased", "event.erased"] and many.count == 1
    told = center.assume(
        pa.array([phone(1), phone(3)]), "phone", "ads", "provider", ("contact",), "test", "me"
    )
    assert told.count == 1 and told.errors[0].code == "event.erased"
    assert reason(center, 1) == "unknown_subject"
    # What the person says after it counts.
    clock.forward(hours=1)
    center.record(event(1, occurred_at=clock.now))
    assert reason(center, 1) == "eligible" and center.fsck() is None
    center.rights.letter(id, "decision")
    closed = center.rights.step(id, "close")
    assert closed["state"] == "purged", "what names the person of a deletion goes at once"
    assert not any(s["private"] for s in center.rights.show(id, private=True)["steps"])
    assert center.fsck() is None


def test_a_preference_from_before_the_erasure_does_not_bring_the_person_back(
    center: Center, clock: Clock
) -> None:
    center.rights.fulfil(decided(center, "deletion"))
    old = Preference("sms", allowed=True, occurred_at=START - timedelta(days=3))
    refusal("event.erased", center.preferences.set_many, [("phone", phone(1))], [old])
    clock.forward(hours=1)
    center.preferences.set_many([("phone", phone(1))], [Preference("sms", allowed=True)])
    assert center.fsck() is None


def test_correction_adds_removes_and_moves(center: Center, tmp_path: Path, clock: Clock) -> None:
    with Center.open(tmp_path / "c", clock) as other:
        assert reason(other, 1) == "eligible"
        add = [{"action": "add", "kind": "phone", "value": phone(5)}]
        assert done(center, "correction", corrections=add)["corrections"][0]["action"] == "add"
        assert reason(center, 5) == reason(other, 5) == "eligible"
        center.record(event(8, action="denied"))
        move = [
            {
                "action": "move",
                "kind": "phone",
                "value": phone(5),
                "target_kind": "phone",
                "target_value": phone(8),
            }
        ]
        done(center, "correction", corrections=move)
        assert reason(center, 5) == reason(other, 5) == "denied", "it is the other person's now"
        assert reason(center, 1) == reason(other, 1) == "eligible"
        id = decided(center, "correction")
        only = [{"action": "remove", "kind": "phone", "value": phone(1)}]
        refusal("rights.fulfil", center.rights.fulfil, id, corrections=only)
        refusal("rights.fulfil", center.rights.fulfil, id)
        refusal("rights.fulfil", center.rights.fulfil, id, corrections=[{**add[0], "value": phone(8)}])
        assert center.rights.fulfil(id, text="the address in the shop's system")["result"]["held"]
        assert center.fsck() is None


def test_merging_two_entries_of_one_person(center: Center, tmp_path: Path, clock: Clock) -> None:
    center.record(event(2, action="withdrawn", occurred_at=START, evidence="call 9"))
    center.record(event(2, recipient="media", occurred_at=START))
    center.preferences.set_many([("phone", phone(2))], [Preference("sms", allowed=False)])
    before = center.checkpoint()
    with Center.open(tmp_path / "c", clock) as other:
        assert (reason(other, 1), reason(other, 2)) == ("eligible", "withdrawn")
        done(center, "correction", corrections=[{"action": "merge", "kind": "phone", "value": phone(2)}])
        # The withdrawal is the newer word of the same person, so it holds for both numbers.
        for number in (1, 2):
            assert reason(center, number) == reason(other, number) == "withdrawn"
            assert reason(other, number, DecisionRequest("ads", "media", ("contact",))) == "eligible"
    told = center.explain("phone", phone(2))
    assert told == center.explain("phone", phone(1)) and told.identifiers == ("phone", "phone")
    assert "call 9" in told.events[1]["evidence"] and len(told.events) == 3
    assert center.preferences.get("phone", phone(1)).in_force[0][1].allowed is False
    assert center.fsck(before) is None


# ---- decision, tasks, letters ------------------------------------------------------------------------------


def test_a_refusal_needs_grounds_and_a_letter(center: Center) -> None:
    id = center.rights.open("access", [("phone", phone(1))], "GDPR", "en")["id"]
    center.rights.step(id, "identity.pass", method="account_login", evidence="session")
    refusal("rights.request", center.rights.step, id, "refuse")
    refusal("rights.request", center.rights.step, id, "grant", outcome="partly")
    refusal("rights.request", center.rights.step, id, "refuse", grounds=["mood"])
    center.rights.step(id, "refuse", grounds=["excessive"], text="the tenth this week")
    refusal("rights.state", center.rights.step, id, "close")
    page = center.rights.letter(id, "decision")["html"]
    assert "excessive" in page and "supervisory authority" in page and GROUNDS["excessive"] in page
    assert "过于频繁" in center.rights.letter(id, "decision", language="zh")["html"]
    assert center.rights.step(id, "close")["state"] == "closed"
    assert center.fsck() is None


def test_open_tasks_hold_a_request_up(center: Center) -> None:
    id = center.rights.open("deletion", [("phone", phone(1))])["id"]
    center.rights.step(id, "identity.pass", method="in_person", evidence="seen")
    center.rights.step(id, "grant")
    assert "tell_recipients" in refusal("rights.task", center.rights.fulfil, id).detail
    for name in TASKS["deletion"][:-1]:
        center.rights.step(id, "task.done", task=name)
    refusal("rights.task", center.rights.step, id, "task.done", task=TASKS["deletion"][-1], skipped=True)
    center.rights.step(id, "task.done", task=TASKS["deletion"][-1], skipped=True, text="nobody had it")
    refusal("rights.task", center.rights.step, id, "task.done", task="unheard of")
    assert center.rights.fulfil(id)["result"]["held"]


# ---- retention and fsck ------------------------------------------------------------------------------------


def test_retention(center: Center, clock: Clock) -> None:
    """What names people goes after ninety days; the pseudonymous record stays three years (PIPL 56)."""
    id = decided(center, "copy")
    center.rights.fulfil(id)
    center.rights.letter(id, "decision")
    center.rights.step(id, "close")
    clock.forward(days=89)
    assert center.rights.sweep() == {"purged": [], "dropped": []}
    clock.forward(days=2)
    assert center.rights.sweep()["purged"] == [id]
    told = center.rights.show(id, private=True)
    assert told["outcome"] == "granted" and not any(s["private"] for s in told["steps"])
    assert center.fsck() is None
    clock.forward(days=1000)
    assert center.rights.sweep() == {"purged": [], "dropped": []}
    clock.forward(days=10)
    assert center.rights.sweep()["dropped"] == [id]
    refusal("rights.unknown", center.rights.show, id)
    assert center.fsck() is None


CHANGES = [
    "UPDATE rights_requests SET state = 'closed'",
    "UPDATE rights_requests SET due_at = due_at + 1",
    "UPDATE rights_requests SET subject = 7",
    "UPDATE rights_requests SET salt = zeroblob(32)",
    "DELETE FROM rights_steps WHERE position = 2",
    "UPDATE rights_steps SET sealed = x'00' WHERE position = 1",
    "UPDATE rights_steps SET leaf = leaf + 1 WHERE position = 1",
    "DELETE FROM rights_requests",
    "DELETE FROM restrictions",
    "UPDATE restrictions SET subject = 0",
    "DELETE FROM erased_identifiers",
    "UPDATE erased_identifiers SET erased_at = 0",
    "UPDATE erased_identifiers SET tag = zeroblob(32)",
    "INSERT INTO meta VALUES ('rights_rules', '{}x')",
]


@pytest.mark.sqlite
@pytest.mark.parametrize("change", CHANGES)
def test_fsck_finds_a_changed_record(tmp_path: Path, change: str) -> None:
    import sqlite3

    with make(tmp_path / "c") as center:
        center.record_many([event(1), event(2)])
        center.rights.fulfil(decided(center, "deletion", who=1))
        center.rights.fulfil(decided(center, "restriction", who=2))
        assert center.fsck() is None
    with sqlite3.connect(tmp_path / "c" / "center.db") as raw:
        raw.execute(change)
    raw.close()
    with Center.open(tmp_path / "c", Clock()) as center:
        found = center.fsck()
        assert found is not None and any(
            name in found.where for name in ("rights", "restrictions", "erased_identifiers")
        ), found


def test_a_center_from_before_the_list_of_the_erased_gets_its_key(tmp_path: Path) -> None:
    with make(tmp_path / "c") as center:
        center.record(event(1))
    (tmp_path / "c" / "keys" / "erased.key").unlink()
    with Center.open(tmp_path / "c", Clock()) as center:
        assert restriction and (tmp_path / "c" / "keys" / "erased.key").stat().st_mode & 0o077 == 0
        center.put_purpose(ads(2))
        center.put_notice(notice(2, 2))
        center.rights.fulfil(decided(center, "deletion"))
        refusal("event.erased", center.record, event(1))
