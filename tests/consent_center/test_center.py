"""The center as a whole: registry, events, decisions, snapshots, erasure."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from consent_helpers import REQUEST, START, Clock, ads, event, make, notice, phone, reason
from pyroaring import BitMap

from consent_center import storage, subjects
from consent_center.center import Center
from consent_center.client import open_center
from consent_center.errors import CODES, ConsentError
from consent_center.ledger import verify
from consent_center.model import CODE, REASONS, Assessment, DecisionRequest

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Iterator[Center]:
    with make(tmp_path / "c", clock) as made:
        yield made


class Litigation:
    """A rule that blocks one ordinal."""

    name, version = "litigation", 1

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal

    def blocked(self, request: DecisionRequest, as_of: int) -> BitMap:
        return BitMap([self.ordinal])


# ---- life ----------------------------------------------------------------------------------------


def test_secrets_are_the_owners_alone(center: Center, tmp_path: Path, store: str) -> None:
    kept = {"sqlite": storage.FILE, "postgresql": storage.SETTING}[store]
    for name in (kept, "keys/pseudonym.key", "keys/data.key", "keys/signing.key"):
        assert stat.S_IMODE((tmp_path / "c" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "c" / "keys").stat().st_mode) == 0o700
    assert "seed" not in repr(center._keys) and center._keys.pseudonym.hex() not in repr(center._keys)


def test_creating_and_opening(center: Center, tmp_path: Path) -> None:
    with pytest.raises(ConsentError, match="center.exists"):
        Center.create(tmp_path / "c", "brand")
    with pytest.raises(ConsentError, match="center.missing"):
        open_center(tmp_path / "none")
    with pytest.raises(ConsentError, match="center.location"):
        open_center("ftp://x")
    with pytest.raises(ConsentError, match="event.controller"):
        Center.create(tmp_path / "d", "a, b")
    with open_center(tmp_path / "c") as again:
        assert again.controller == "brand" and again.verifier_key() == center.verifier_key()
    with pytest.raises(ConsentError, match="center.closed"):
        again.purposes()
    (tmp_path / "c/keys/data.key").chmod(0o644)
    with pytest.raises(ConsentError, match=r"center.keys.*chmod 600"):
        Center.open(tmp_path / "c")


def test_every_code_used_is_registered_and_unknown_ones_are_refused() -> None:
    with pytest.raises(KeyError):
        ConsentError("no.such", "x")
    assert all("." in code for code in CODES)


# ---- registry ------------------------------------------------------------------------------------


def test_registry_is_versioned_and_idempotent(center: Center) -> None:
    size = verify.checkpoint(center.checkpoint(), center.verifier_key()).size
    assert center.put_purpose(ads()) == ads()
    center.put_notice(notice())
    assert verify.checkpoint(center.checkpoint(), center.verifier_key()).size == size
    with pytest.raises(ConsentError, match="registry.version"):
        center.put_purpose(ads(categories=("contact",)))
    with pytest.raises(ConsentError, match="registry.version"):
        center.put_notice(replace(notice(), text={"en": "other"}))
    center.put_purpose(ads(3))
    with pytest.raises(ConsentError, match="registry.version"):
        center.put_purpose(ads(2))
    assert [(p.id, p.version) for p in center.purposes()] == [("ads", 1), ("ads", 3)]
    assert len(center.notices()[0].hash) == 64


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": "a b"}, "registry.purpose"),
        ({"id": ""}, "registry.purpose"),
        ({"version": 0}, "registry.purpose"),
        ({"title": {}}, "registry.purpose"),
        ({"categories": ()}, "registry.purpose"),
        ({"categories": ("a", "a")}, "registry.purpose"),
        ({"categories": ("a;b",)}, "registry.purpose"),
        ({"duration_days": 0}, "registry.purpose"),
    ],
)
def test_bad_purposes(center: Center, change: dict[str, Any], code: str) -> None:
    with pytest.raises(ConsentError, match=code):
        center.put_purpose(replace(ads(2), **change))


def test_notices_need_their_purpose_and_assessments_are_kept(center: Center) -> None:
    with pytest.raises(ConsentError, match="registry.unknown"):
        center.put_notice(notice(2, purpose_version=9))
    with pytest.raises(ConsentError, match="registry.unknown"):
        center.switch_purpose("none", False, "me")
    center.put_assessment(Assessment("pia-1", "ads", "dms://pia/1"), "dpo")
    assert center.assessments()[-1].reference == "dms://pia/1"
    center.put_assessment(replace(center.assessments()[0], status="withdrawn"))
    shot = center.snapshot(REQUEST, pa.array([], pa.string()), "phone", "job")
    assert shot.document["assessment"] == "dms://pia/1"


# ---- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"action": "maybe"}, "event.action"),
        ({"purpose": "none"}, "event.purpose"),
        ({"purpose_version": 2}, "event.purpose"),
        ({"notice": ""}, "event.notice"),
        ({"notice_version": 7}, "event.notice"),
        ({"identifiers": ()}, "event.batch"),
        ({"identifiers": (("phone", "nonsense"),)}, "event.identifier"),
        ({"identifiers": (("passport", "1"),)}, "identifier.kind"),
        ({"occurred_at": datetime(2026, 1, 1)}, "event.time"),
        ({"occurred_at": START + timedelta(seconds=1)}, "event.time"),
        ({"occurred_at": datetime(1969, 1, 1, tzinfo=UTC)}, "event.time"),
        ({"expires_at": START - timedelta(days=2)}, "event.expiry"),
        ({"recipient": ""}, "event.recipient"),
        ({"recipient": "a,b"}, "event.recipient"),
        ({"recipient": "*"}, "event.recipient"),
        ({"recipient": "provider\u200b"}, "event.recipient"),  # looks like the provider, and is not
        ({"recipient": "e\u0301clair"}, "event.recipient"),  # é in two code points
        ({"expires_at": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)}, "event.expiry"),
        ({"categories": ()}, "event.categories"),
        ({"categories": "contact"}, "event.categories"),
        ({"categories": ("blood",)}, "event.categories"),
        ({"controller": "someone-else"}, "event.controller"),
        ({"action": "guardian_granted"}, "event.guardian"),
        ({"action": "guardian_granted", "birth_date": date(2000, 1, 1)}, "event.guardian"),
        ({"method": "assumed"}, "event.text"),
        ({"channel": "a b"}, "event.text"),
        ({"evidence": "x" * 20_001}, "event.text"),
        ({"purpose_version": "one"}, "event.batch"),
    ],
)
def test_bad_events_leave_nothing_behind(center: Center, change: dict[str, Any], code: str) -> None:
    before = center.checkpoint()
    with pytest.raises(ConsentError, match=code):
        center.record(event(**change))
    assert center.checkpoint() == before


def test_one_person_has_many_identifiers(center: Center) -> None:
    both = (("phone", phone(1)), ("email", " A@B.cn"), ("phone", "nonsense"))
    first = center.record(event(identifiers=both))
    assert first.ignored == ("phone",)
    assert center.record(event(identifiers=(("email", "a@b.CN"),))).subject == first.subject
    other = center.record(event(2))
    assert other.subject == first.subject + 1
    with pytest.raises(ConsentError, match="event.identifier_conflict"):
        center.record(event(identifiers=(("phone", phone(1)), ("phone", phone(2)))))
    assert center.explain("email", "a@b.cn").identifiers == ("email", "phone")


def test_a_batch_joins_rows_that_share_an_identifier(center: Center) -> None:
    center.record(event(9))
    table = pa.table(
        {
            "phone": [phone(1), phone(2), None, phone(9), phone(3), None],
            "email": [None, "x@y.cn", "x@y.cn", "nine@y.cn", "x@y.cn", "bad"],
            "purpose": ["ads"] * 6,
            "purpose_version": [1] * 6,
            "action": ["granted", "granted", "withdrawn", "denied", "granted", "granted"],
            "recipient": ["provider"] * 6,
            "categories": ["contact;usage"] * 6,
            "notice": ["ads-notice"] * 6,
            "notice_version": [1] * 6,
            "occurred_at": pa.array([START] * 6, pa.timestamp("ms", "Asia/Shanghai")),
        }
    )
    with pytest.raises(ConsentError, match=r"event.identifier: row 5"):
        center.record_many(table)
    done = center.record_many(table, on_error="skip")
    assert done.subjects.tolist() == [1, 2, 2, 0, 2, -1]
    assert [(e.row, e.code) for e in done.errors] == [(5, "event.identifier")]
    assert (done.first_sequence, done.count) == (2, 5)
    assert [reason(center, n) for n in (1, 2, 9)] == ["eligible", "withdrawn", "denied"]
    assert center.fsck(center.checkpoint()) is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"colour": ["red"]}, "event.batch"),
        ({"occurred_at": pa.array([START.replace(tzinfo=None)])}, "event.time"),
        ({"purpose_version": ["one"]}, "event.batch"),
        ({"phone": None}, "event.batch"),
        # In microseconds this does not fit 64 bits: it must not wrap around to another time.
        ({"expires_at": pa.array([1 << 60], pa.timestamp("s", "UTC"))}, "event.time"),
    ],
)
def test_bad_tables(center: Center, change: dict[str, Any], code: str) -> None:
    columns: dict[str, Any] = {"phone": [phone(1)], "action": ["granted"], "occurred_at": pa.array([START])}
    columns = {k: v for k, v in {**columns, **change}.items() if v is not None}
    with pytest.raises(ConsentError, match=code):
        center.record_many(pa.table(columns))


def test_a_late_grant_does_not_undo_a_withdrawal(center: Center) -> None:
    center.record(
        event(1, action="withdrawn", categories=(), notice="", occurred_at=START - timedelta(hours=1))
    )
    center.record(event(1, occurred_at=START - timedelta(hours=2)))
    assert reason(center, 1) == "withdrawn"
    center.record(event(1, action="renewed", occurred_at=START))
    assert reason(center, 1) == "eligible"


def test_regulations_do_not_overwrite_each_other(center: Center) -> None:
    center.record(event(1))
    center.record(event(1, action="withdrawn", regulation="GDPR", occurred_at=START))
    assert reason(center, 1) == "withdrawn"
    assert reason(center, 1, replace(REQUEST, regulation="PIPL")) == "eligible"


def test_assumed_consent_is_named_so_and_never_outweighs_a_word(center: Center) -> None:
    center.record(event(1, action="denied"))
    values = pa.array([phone(1), phone(2), "+86 " + phone(2), None, "bad"])
    done = center.assume(values, "phone", "ads", "provider", ["contact"], "trial on own files", "analyst")
    assert done.count == 2
    assert done.subjects.tolist() == [0, 1, 1, -1, -1]
    assert (reason(center, 1), reason(center, 2)) == ("denied", "eligible")
    told = center.explain("phone", phone(2)).events
    assert [(e["method"], e["reason"], e["actor"]) for e in told] == [
        ("assumed", "trial on own files", "analyst")
    ]
    center.record(event(2, action="withdrawn", occurred_at=START - timedelta(days=300)))
    assert reason(center, 2) == "withdrawn"
    with pytest.raises(ConsentError, match="event.text"):
        center.assume(values, "phone", "ads", "provider", ["contact"], " ", "analyst")
    with pytest.raises(ConsentError, match="event.purpose"):
        center.assume(values, "phone", "none", "provider", ["contact"], "x", "analyst")


# ---- decisions -----------------------------------------------------------------------------------


def test_each_reason_once_in_one_table(tmp_path: Path, clock: Clock) -> None:
    """One column whose rows meet every reason that a reachable center gives, in the documented order."""
    child = date(2016, 6, 1)
    expected = {
        "eligible": event(1),
        "minor_without_guardian": event(2, birth_date=child),
        "no_event": event(3, purpose="other", notice="other-notice"),
        "denied": event(4, action="denied"),
        "withdrawn": event(5, action="withdrawn"),
        "expired": event(6, expires_at=START - timedelta(hours=1)),
        "outdated_notice": event(7),
        "recipient_out_of_scope": event(8, recipient="somebody"),
        "category_out_of_scope": event(9, notice="second", categories=("usage",)),
        "blocked_by_rule": event(10, notice="second"),
    }
    with make(tmp_path / "c", clock, (Litigation(9),)) as center:
        center.put_purpose(replace(ads(), id="other"))
        center.put_notice(replace(notice(), id="other-notice", purpose="other"))
        center.put_notice(replace(notice(), id="second"))
        for name, made in expected.items():
            outdated = name == "outdated_notice"
            center.record(made if outdated or made.notice != "ads-notice" else replace(made, notice="second"))
        center.put_notice(notice(2))
        values = pa.array([phone(n) for n in range(1, 11)] + [None, "nonsense", phone(99)])
        decisions = center.decide(REQUEST, values, "phone")
        names = [REASONS[code] for code in decisions.codes]
        assert names == [*expected, "identifier_null", "identifier_invalid", "unknown_subject"]
        assert decisions.ordinals.tolist() == [*range(10), -1, -1, -1]
        assert decisions.sequence == 10
        center.switch_purpose("ads", False, "dpo")
        off = center.decide(REQUEST, values, "phone")
        assert {REASONS[c] for c in off.codes} == {
            "purpose_inactive",
            "identifier_null",
            "identifier_invalid",
        }
        center.switch_purpose("ads", True, "dpo")
        center.switch_recipient("provider", False, "dpo")
        assert reason(center, 1) == "recipient_inactive"
        closed = {"purpose_inactive", "recipient_inactive"}
        # Somebody restricted: tests/consent_center/test_rights.py.
        assert set(names) | closed == set(REASONS) - {"stale", "unreachable", "restricted"}


@pytest.mark.sqlite
def test_fails_closed_when_the_database_is_gone(center: Center, tmp_path: Path) -> None:
    center.record(event(1))
    assert reason(center, 1) == "eligible"
    center._database._engine.dispose()
    moved = tmp_path / "moved"
    (tmp_path / "c").rename(moved)
    decisions = center.decide(REQUEST, pa.array([phone(1), None]), "phone")
    assert decisions.codes.tolist() == [CODE["stale"], CODE["identifier_null"]]
    assert decisions.sequence == -1 and decisions.detail
    with pytest.raises(ConsentError, match="center.unreachable"):
        center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job")
    moved.rename(tmp_path / "c")
    assert reason(center, 1) == "eligible"


def test_fails_closed_when_the_leaf_cannot_be_written(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.record(event(1))

    def refuse(*_: object) -> None:
        raise ConsentError("center.busy", "somebody else is writing")

    monkeypatch.setattr("consent_center.ledger.log.append_entries", refuse)
    assert reason(center, 1) == "stale"


def test_a_half_read_state_is_thrown_away(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    center.record(event(1))
    assert reason(center, 1) == "eligible"
    center.record(event(1, action="withdrawn", occurred_at=START))
    with monkeypatch.context() as patch:

        def broken(*_: object) -> None:
            raise ConsentError("center.unreachable", "disk")

        patch.setattr("consent_center.state.State._put_minors", broken)
        assert reason(center, 1) == "stale"
    assert reason(center, 1) == "withdrawn"


def test_a_new_version_of_the_purpose_outdates_and_an_immaterial_notice_does_not(center: Center) -> None:
    center.record(event(1))
    center.put_notice(notice(2, material=False))
    assert reason(center, 1) == "eligible"
    center.put_purpose(ads(2))
    assert reason(center, 1) == "outdated_notice"


def test_ends_and_birthdays_are_judged_as_of(center: Center, clock: Clock) -> None:
    center.record(event(1))
    born = date(2012, 3, 20)  # turns 14 on 2026-03-20
    center.record(event(2, action="guardian_granted", birth_date=born))
    center.record(event(3, birth_date=born))
    assert [reason(center, n) for n in (1, 2, 3)] == ["eligible", "eligible", "minor_without_guardian"]
    eve = datetime(2026, 3, 19, 15, 59, tzinfo=UTC)  # 23:59 in China
    later = {n: replace(REQUEST, as_of=eve + timedelta(minutes=m)) for n, m in ((0, 0), (1, 1))}
    assert reason(center, 2, later[0]) == "eligible"
    # What a guardian, or the child alone, said before the birthday ends with it.
    assert [reason(center, n, later[1]) for n in (1, 2, 3)] == ["eligible", "expired", "expired"]
    clock.now = eve + timedelta(days=2)
    center.record(event(3, occurred_at=clock.now))
    assert reason(center, 3) == "eligible"
    assert reason(center, 1, replace(REQUEST, as_of=START + timedelta(days=365))) == "expired"
    assert center.explain("phone", phone(2)).minor_until == "2026-03-20"


def test_adults_birthdays_are_not_kept(center: Center) -> None:
    center.record(event(1, birth_date=date(1990, 1, 1)))
    assert center.explain("phone", phone(1)).minor_until == ""


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": ""},
        {"recipient": "a,b"},
        {"categories": ()},
        {"categories": "contact"},
        {"categories": ("a b",)},
        {"as_of": datetime(2026, 1, 1)},
    ],
)
def test_bad_requests(center: Center, change: dict[str, Any]) -> None:
    with pytest.raises(ConsentError, match="decision.request"):
        center.decide(replace(REQUEST, **change), pa.array([phone(1)]), "phone")


# ---- snapshots -----------------------------------------------------------------------------------


def test_snapshot_is_signed_and_proves_in_and_out(center: Center) -> None:
    for number in range(1, 8):
        center.record(event(number, action="denied" if number == 3 else "granted"))
    values = pa.array([phone(n) for n in range(1, 8)] + [phone(1), None])
    shot = center.snapshot(REQUEST, values, "phone", "job-1")
    document = shot.document
    verify.snapshot(document, shot.signature, center.verifier_key())
    opened = shot.disclosure
    verify.disclosure(document, opened)
    assert "counts" not in document and "token_count" not in document  # a partner sees the document
    assert opened["counts"] == {"in": 7, "out": {"denied": 1, "identifier_null": 1}}
    assert opened["token_count"] == 6  # people, where counts are rows
    for number in range(1, 20):
        found = center.token_proof(shot.id, "phone", phone(number))
        inside = number < 8 and number != 3
        assert verify.token(document, found) is inside
        for entry in found["entries"]:
            entry["token"] = "00" * 32
        with pytest.raises(ConsentError, match="snapshot.proof"):
            verify.token(document, found)
    # The proof of one token must not pass for another's absence.
    swapped = center.token_proof(shot.id, "phone", phone(1)) | {"token": "11" * 32}
    with pytest.raises(ConsentError, match="snapshot.proof"):
        verify.token(document, {**swapped, "entries": swapped["entries"] * 2})
    with pytest.raises(ConsentError, match="snapshot.signature"):
        verify.snapshot({**document, "purpose": "x"}, shot.signature, center.verifier_key())


def test_an_empty_snapshot_proves_absence(center: Center) -> None:
    shot = center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job")
    assert shot.disclosure["counts"] == {"in": 0, "out": {"unknown_subject": 1}}
    assert verify.token(shot.document, center.token_proof(shot.id, "phone", phone(1))) is False


def test_delta_names_everyone_who_left(center: Center, clock: Clock) -> None:
    for number in range(5):
        ends = START + timedelta(days=1) if number == 4 else None
        center.record(event(number, expires_at=ends))
    values = pa.array([phone(n) for n in range(5)])
    shot = center.snapshot(REQUEST, values, "phone", "job")
    before = center.delta(shot.id)
    assert (before.withdrawn.tolist(), before.lag_seconds, before.active) == ([], 0.0, True)
    clock.forward(seconds=10)
    center.record(event(1, action="withdrawn", occurred_at=clock.now))
    clock.forward(seconds=5)
    center.record(event(0, action="denied", occurred_at=clock.now))
    center.erase("phone", phone(2), "dpo")
    center.record(event(77))
    clock.forward(days=2)
    after = center.delta(shot.id)
    assert after.withdrawn.tolist() == [0, 1, 2, 4]
    assert [REASONS[c] for c in after.reasons] == ["denied", "withdrawn", "unknown_subject", "expired"]
    assert after.lag_seconds == 2 * 86400 + 5
    center.switch_purpose("ads", False, "dpo")
    off = center.delta(shot.id)
    assert not off.active and off.withdrawn.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ConsentError, match="snapshot.unknown"):
        center.delta("none")


def test_a_snapshot_does_not_turn_back_the_clock(center: Center, clock: Clock) -> None:
    center.record(event(1, expires_at=START + timedelta(hours=1)))
    clock.forward(hours=2)
    past = replace(REQUEST, as_of=START)
    assert reason(center, 1, past) == "eligible"
    shot = center.snapshot(past, pa.array([phone(1)]), "phone", "job")
    assert [REASONS[c] for c in shot.decisions.codes] == ["expired"]


# ---- one person ----------------------------------------------------------------------------------


def test_explain_and_erase(center: Center, tmp_path: Path, store: str, clock: Clock) -> None:
    center.record(event(1))
    center.record(event(1, action="withdrawn", occurred_at=START))
    told = center.explain("phone", "+86 " + phone(1))
    assert [e["action"] for e in told.events] == ["granted", "withdrawn"]
    assert told.events[0]["evidence"] == "form 7" and told.events[0]["actor"] == "shop 12"
    assert [s["action"] for s in told.states] == ["withdrawn"]
    files = list((tmp_path / "c").glob("center.db*"))
    assert len(files) == (3 if store == "sqlite" else 0)
    raw = b"".join(file.read_bytes() for file in files)
    assert b"form 7" not in raw and phone(1).encode() not in raw
    assert reason(center, 1) == "withdrawn"
    checkpoint = center.checkpoint()
    assert center.erase("phone", phone(1), "dpo") == 3
    assert reason(center, 1) == "unknown_subject"
    with pytest.raises(ConsentError, match="subject.unknown"):
        center.explain("phone", phone(1))
    assert center.fsck(checkpoint) is None
    with pytest.raises(ConsentError, match=r"event\.erased"):
        center.record(event(1))  # an old grant does not bring anybody back
    clock.forward(minutes=1)
    again = center.record(event(1, occurred_at=clock.now))
    assert again.subject == 1  # a new person to the center
    assert reason(center, 1) == "eligible"  # also for whoever has followed the erasure
    with Center.open(tmp_path / "c") as fresh:
        assert fresh.decide(REQUEST, pa.array([phone(1)]), "phone").ordinals.tolist() == [1]


def test_a_large_batch_takes_the_same_road(center: Center) -> None:
    """Over the limit of SQL look-ups: the index in memory answers, and grows while others write."""
    values = pa.array([phone(n) for n in range(2000)])
    assert center.assume(values, "phone", "ads", "provider", ["contact"], "trial", "me").count == 2000
    events = [event(n, action="withdrawn", occurred_at=START) for n in range(500, 3000)]
    done = center.record_many(events)
    assert done.subjects.tolist() == list(range(500, 3000))
    decisions = center.decide(REQUEST, pa.array([phone(n) for n in range(3000)]), "phone")
    assert np.flatnonzero(decisions.eligible).tolist() == list(range(500))
    assert center.fsck(center.checkpoint()) is None


def test_a_snapshot_for_a_later_day_is_judged_as_of_that_day(center: Center, clock: Clock) -> None:
    later = replace(REQUEST, as_of=START + timedelta(days=30))
    center.record(event(1))
    shot = center.snapshot(later, pa.array([phone(1)]), "phone", "job")
    assert shot.disclosure["counts"]["in"] == 1
    clock.forward(hours=1)
    center.record(event(1, occurred_at=clock.now, expires_at=START + timedelta(days=10)))
    assert [REASONS[code] for code in center.delta(shot.id).reasons] == ["expired"]


@pytest.mark.sqlite
def test_a_database_put_back_from_a_backup_is_read_anew(center: Center, tmp_path: Path) -> None:
    """What only the lost events said must not count, in processes that had seen them neither."""
    center.record(event(1, action="denied"))
    with (
        closing(sqlite3.connect(tmp_path / "c/center.db")) as file,
        closing(sqlite3.connect(":memory:")) as old,
    ):
        file.backup(old)
        center.record(event(1, action="renewed", occurred_at=START))
        assert reason(center, 1) == "eligible"
        old.backup(file)
    assert reason(center, 1) == "stale"
    center.recover("put back by a test", "admin")
    assert reason(center, 1) == "denied"


def test_single_newcomers_in_a_large_index(
    center: Center, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait in an index of their own; erasing empties both, and a merge keeps everybody."""
    monkeypatch.setattr(subjects, "_STRETCH", 50)
    values = pa.array([phone(n) for n in range(300)])
    center.assume(values, "phone", "ads", "provider", ["contact"], "trial", "me")
    for number in range(1000, 1020):
        center.record(event(number))
        assert reason(center, number) == "eligible"
    center.erase("phone", phone(1003), "dpo")
    center.erase("phone", phone(3), "dpo")
    everyone = pa.array([phone(n) for n in [*range(300), *range(1000, 1020)]])
    decisions = center.decide(REQUEST, everyone, "phone")
    assert np.flatnonzero(~decisions.eligible).tolist() == [3, 303]
    with Center.open(tmp_path / "c") as fresh:
        assert fresh.decide(REQUEST, everyone, "phone").ordinals.tolist() == decisions.ordinals.tolist()
        few = fresh.decide(REQUEST, everyone[200:], "phone")  # so few are asked for by SQL
        assert few.ordinals.tolist() == decisions.ordinals[200:].tolist()


def test_secrets_and_people_do_not_print(center: Center) -> None:
    center.record(event(1, evidence="form 7"))
    assert "form 7" not in repr(center.explain("phone", phone(1)))
    assert "form 7" not in repr(event(1, evidence="form 7")) and phone(1) not in repr(event(1))
    with pytest.raises(ConsentError) as caught, center._write() as connection:
        connection.execute(sa.text("INSERT INTO none VALUES (:x)"), {"x": "form 7"})
    assert "form 7" not in str(caught.value) + str(caught.value.__cause__)
