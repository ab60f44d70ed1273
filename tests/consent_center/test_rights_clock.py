"""The legal clock: worked examples, holidays, pauses, extensions, and properties."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from consent_helpers import Clock, event, make, phone
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.batch import micros
from consent_center.errors import ConsentError
from consent_center.requests import clock
from consent_center.requests.clock import DEFAULTS, ClockRule

PIPL, GDPR = DEFAULTS["PIPL"], DEFAULTS["GDPR"]


def at(text: str) -> int:
    return micros(datetime.fromisoformat(text).replace(tzinfo=UTC))


def due(rule: ClockRule, received: str, extensions: int = 0, pauses: Any = (), now: int = 0) -> date:
    return clock.deadline(rule, at(received), extensions, pauses, now)[0]


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-03-02T02:00", "2026-03-23"),  # fifteen working days without a holiday
        # Spring Festival 2026: off from 15 to 23 February, Saturdays 14 and 28 are worked.
        ("2026-02-10T02:00", "2026-03-09"),
        # The day that it came in does not count, and begins at midnight in China: 16:30 UTC is the next day.
        ("2026-03-02T16:30", "2026-03-24"),
        # National Day: 1 to 7 October off, Saturday the 10th worked.
        ("2026-09-25T02:00", "2026-10-22"),
    ],
)
def test_pipl_counts_working_days_of_china(received: str, expected: str) -> None:
    assert due(PIPL, received).isoformat() == expected


@pytest.mark.parametrize(
    ("received", "extensions", "expected"),
    [
        ("2026-03-05T09:00", 0, "2026-04-07"),  # 5 April is Easter Sunday, the 6th Easter Monday
        ("2026-01-31T09:00", 0, "2026-03-02"),  # 28 February is the last of the month, a Saturday
        ("2026-06-10T09:00", 0, "2026-07-10"),
        ("2026-06-10T09:00", 1, "2026-09-10"),  # one month and two further ones
        (
            "2026-11-25T09:00",
            0,
            "2025-12-28".replace("2025", "2026"),
        ),  # 25 and 26 December off, 27th a Sunday
        ("2026-03-30T22:30", 0, "2026-04-30"),  # 00:30 of the 31st in Berlin; April has 30 days
    ],
)
def test_gdpr_counts_months(received: str, extensions: int, expected: str) -> None:
    assert due(GDPR, received, extensions).isoformat() == expected


def test_worked_weekends_and_years_not_announced() -> None:
    assert clock.is_working_day(PIPL, date(2026, 2, 14)), "a Saturday on which China works"
    assert not clock.is_working_day(PIPL, date(2026, 2, 17)) and not clock.is_working_day(
        PIPL, date(2026, 2, 15)
    )
    assert clock.deadline(PIPL, at("2026-03-02T02:00"), 0, (), 0)[1] is False
    assert clock.deadline(PIPL, at("2031-03-02T02:00"), 0, (), 0)[1] is True, "nobody knows 2031 yet"


def test_pauses_and_extensions_move_the_end() -> None:
    plain = due(PIPL, "2026-03-02T02:00")
    pause = ((at("2026-03-04T02:00"), at("2026-03-09T02:00")),)  # Thursday, Friday, Monday are lost
    assert due(PIPL, "2026-03-02T02:00", 0, pause) == plain + timedelta(days=3)
    assert due(PIPL, "2026-03-02T02:00", 1) == date(2026, 4, 14)
    running = ((at("2026-03-04T02:00"), -1),)
    assert due(GDPR, "2026-06-10T09:00", 0, ((at("2026-06-12T09:00"), at("2026-06-22T09:00")),)) == date(
        2026, 7, 20
    )
    assert due(PIPL, "2026-03-02T02:00", 0, running, at("2026-03-09T02:00")) == plain + timedelta(days=3)


@settings(max_examples=40, deadline=None)
@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(["PIPL", "GDPR"]),
    st.integers(0, 1),
    st.integers(0, 20),
)
def test_properties(received: datetime, name: str, extensions: int, days: int) -> None:
    rule, start = DEFAULTS[name], micros(received.replace(tzinfo=UTC))
    last, _ = clock.deadline(rule, start, extensions, (), 0)
    day = clock.local_date(rule, start)
    assert clock.is_working_day(rule, last) and last > day
    assert clock.deadline(rule, start, extensions + 1, (), 0)[0] > last
    paused = clock.deadline(rule, start, extensions, ((start, start + days * 86_400_000_000),), 0)[0]
    assert paused >= last
    if rule.working_days:
        assert (
            clock.working_days(rule, day, last)
            == rule.working_days + extensions * rule.extension_working_days
        )
    assert clock.local_date(rule, clock.end_of(rule, last) - 1) == last
    assert clock.local_date(rule, clock.end_of(rule, last)) > last


@pytest.mark.parametrize(
    "rule",
    [
        ClockRule("PIPL"),
        ClockRule("PIPL", working_days=5, months=1),
        ClockRule("PIPL", working_days=400),
        ClockRule("PIPL", working_days=-1),
        ClockRule("PIPL", working_days=15, country="ZZ"),
        ClockRule("PIPL", working_days=15, zone="Mars/Base"),
        ClockRule("GDPR", months=2),
        ClockRule("GDPR", months=1, extensions=2, extension_months=2),
    ],
)
def test_rules_that_are_refused(rule: ClockRule) -> None:
    with pytest.raises(ConsentError) as caught:
        clock.check_rule(rule)
    assert caught.value.code == "rights.clock"


def test_the_clock_of_a_request(tmp_path: Path) -> None:
    time = Clock()
    with make(tmp_path / "c", time) as center:
        center.record(event(1))
        rights = center.rights
        rights.put_rule(
            ClockRule("PIPL", working_days=5, extension_working_days=5, country="CN", zone="Asia/Shanghai")
        )
        id = rights.open("access", [("phone", phone(1))])["id"]
        late = rights.open("copy", [("phone", phone(1))], received_at=time.now - timedelta(days=30))["id"]
        assert (rights.show(id)["standing"], rights.show(id)["due"]) == ("near", "2026-03-06")
        found = rights.deadlines()
        assert found["counts"]["overdue"] == 1 and found["urgent"][0]["id"] == late
        with pytest.raises(ConsentError, match="time is over"):
            rights.step(late, "extend", text="much to do")
        rights.step(id, "identity.pass", method="in_person", evidence="seen")
        rights.step(id, "pause", text="which shop was it?")
        time.forward(days=3)
        shown = rights.show(id)
        assert (shown["standing"], shown["due"]) == ("paused", "2026-03-11")
        with pytest.raises(ConsentError):
            rights.step(id, "pause", text="again")
        rights.step(id, "resume")
        time.forward(days=1)
        assert rights.show(id)["due"] == "2026-03-11"
        with pytest.raises(ConsentError, match="reason"):
            rights.step(id, "extend")
        assert rights.step(id, "extend", text="three systems")["due"] == "2026-03-18"
        with pytest.raises(ConsentError, match="no more"):
            rights.step(id, "extend", text="and more")
        assert "2026-03-18" in rights.letter(id, "extension", "three systems")["html"]
        # A new rule is for new requests: nobody's time is cut afterwards.
        rights.put_rule(ClockRule("PIPL", working_days=1))
        assert rights.show(id)["due"] == "2026-03-18"
        assert center.fsck() is None
