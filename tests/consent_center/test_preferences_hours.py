"""Quiet hours over midnight and over changes of the clocks; rolling windows; exactness of the next time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent_center.batch import micros
from consent_center.preferences.evaluate import Consent, Known, evaluate
from consent_center.preferences.hours import after_cap, after_quiet, instant, quiet_end, window_end
from consent_center.preferences.model import ALL, DAYS, Cap, Policy, Preference, Quiet, when

BERLIN = "Europe/Berlin"
HOUR = 3_600_000_000


def us(text: str) -> int:
    return micros(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("at", "end"),
    [
        ("2026-03-02T21:59:59.999999+08:00", None),
        ("2026-03-02T22:00:00+08:00", "2026-03-03T08:00:00+08:00"),
        ("2026-03-03T07:59:59+08:00", "2026-03-03T08:00:00+08:00"),
        ("2026-03-03T08:00:00+08:00", None),
    ],
)
def test_over_midnight(at: str, end: str | None) -> None:
    assert quiet_end(Quiet("22:00", "08:00"), us(at)) == (us(end) if end else None)


def test_days_are_those_on_which_it_begins() -> None:
    friday = Quiet("22:00", "08:00", days=("fri",))
    assert quiet_end(friday, us("2026-03-07T07:00:00+08:00")) is not None, "Saturday morning"
    assert quiet_end(friday, us("2026-03-06T07:00:00+08:00")) is None, "Friday morning is Thursday's night"


def test_spring_forward() -> None:
    """In Berlin on 2026-03-29 the clocks jump from 02:00 to 03:00."""
    change = us("2026-03-29T01:00:00+00:00")
    assert instant(datetime(2026, 3, 29, 2, 30), BERLIN, False) == change
    assert instant(datetime(2026, 3, 29, 2, 30), BERLIN, True) == change
    assert quiet_end(Quiet("22:00", "02:30", BERLIN), us("2026-03-29T00:30:00+01:00")) == change
    begins = Quiet("02:30", "06:00", BERLIN)
    assert quiet_end(begins, change - 1) is None
    assert quiet_end(begins, change) == us("2026-03-29T06:00:00+02:00")
    assert quiet_end(Quiet("02:10", "02:50", BERLIN), change) is None, "that hour does not exist"


def test_autumn_back() -> None:
    """On 2026-10-25 02:00-03:00 comes twice: quiet begins with the first reading, ends with the second."""
    assert quiet_end(Quiet("22:00", "02:30", BERLIN), us("2026-10-25T01:00:00+02:00")) == us(
        "2026-10-25T02:30:00+01:00"
    )
    twice = Quiet("02:30", "02:45", BERLIN)
    assert quiet_end(twice, us("2026-10-25T02:30:00+02:00")) == us("2026-10-25T02:45:00+01:00")


def test_quiet_without_end() -> None:
    assert after_quiet((Quiet("00:00", "00:00"),), us("2026-03-01T00:00:00Z")) is None
    halves = (Quiet("00:00", "12:00"), Quiet("12:00", "00:00"))
    assert after_quiet(halves, us("2026-03-01T00:00:00Z")) is None
    once_a_week = (Quiet("00:00", "00:00", days=DAYS[:6]), Quiet("01:00", "00:00", days=("sun",)))
    assert after_quiet(once_a_week, us("2026-03-02T10:00:00+08:00")) == us("2026-03-08T00:00:00+08:00")


def test_quiet_of_two_keys_without_end() -> None:
    """Each leaves half a day free, together none: the search must end, with "never"."""
    wishes = [
        Preference("sms", quiet=(Quiet("00:00", "12:00"),)),
        Preference("*", quiet=(Quiet("12:00", "00:00"),)),
    ]
    answer = evaluate(Known(wishes, [], [], (), None), "sms", "news", us("2026-03-02T12:00:00Z"))
    assert not answer.allowed and answer.next_at is None


def test_months() -> None:
    end = {
        "2026-01-31T10:00:00+08:00": "2026-02-28T10:00:00+08:00",
        "2028-01-31T10:00:00+08:00": "2028-02-29T10:00:00+08:00",
        "2026-12-05T10:00:00+08:00": "2027-01-05T10:00:00+08:00",
        "2026-02-28T23:30:00+00:00": "2026-03-31T23:30:00+00:00",  # 1 March in Shanghai
    }
    for at, then in end.items():
        assert window_end(us(at), "month", "Asia/Shanghai") == us(then)
    assert window_end(us("2026-02-28T02:30:00+01:00"), "month", BERLIN) == us("2026-03-28T02:30:00+01:00")
    assert window_end(us("2026-02-28T23:30:00-05:00"), "day", BERLIN) == us("2026-03-01T23:30:00-05:00")


def test_caps_look_ahead() -> None:
    noon = us("2026-03-02T12:00:00Z")
    assert after_cap(Cap(1, "day"), "UTC", [noon], noon - HOUR) == noon + 24 * HOUR, "a slot of later counts"
    assert after_cap(Cap(1, "day"), "UTC", [noon], noon - 24 * HOUR) == noon - 24 * HOUR
    assert after_cap(Cap(2, "day"), "UTC", [noon], noon) == noon
    assert after_cap(Cap(0, "day"), "UTC", [], noon) is None


TIMES = st.integers(us("2026-03-20T00:00:00Z") // HOUR, us("2026-04-10T00:00:00Z") // HOUR).map(
    lambda hour: hour * HOUR
)
CLOCKS = st.tuples(st.integers(0, 23), st.sampled_from([0, 30])).map(lambda t: f"{t[0]:02}:{t[1]:02}")
QUIET = st.builds(
    Quiet,
    CLOCKS,
    CLOCKS,
    st.sampled_from([BERLIN, "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe"]),
    st.sets(st.sampled_from(DAYS), min_size=1).map(tuple),
)
CAPS = st.lists(st.builds(Cap, st.integers(0, 3), st.sampled_from(["day", "week", "month"])), max_size=2).map(
    tuple
)
KEY = st.tuples(st.sampled_from(["sms", ALL]), st.sampled_from(["news", ALL]))
WISH = st.builds(
    lambda key, caps, quiet, pause: Preference(*key, None, caps, quiet, pause, BERLIN),
    KEY,
    st.none() | CAPS,
    st.none() | st.lists(QUIET, max_size=2).map(tuple),
    st.none() | TIMES.map(when),
)
POLICY = st.builds(
    lambda key, caps, quiet, binding: Policy(*key, 1, caps, quiet, BERLIN, binding),
    KEY,
    st.none() | CAPS,
    st.none() | st.lists(QUIET, max_size=1).map(tuple),
    st.booleans(),
)
MADE = st.lists(st.tuples(TIMES, st.just("sms"), st.sampled_from(["news", "bills"])), max_size=8).map(sorted)
CONSENTS = st.just(()) | TIMES.map(lambda end: (Consent("ads", "", end),))


@settings(max_examples=150, deadline=None)
@given(st.lists(WISH, max_size=3), st.lists(POLICY, max_size=2), MADE, CONSENTS, TIMES)
def test_next_time_is_the_first(
    wishes: list[Preference],
    policies: list[Policy],
    made: list[tuple[int, str, str]],
    consents: tuple[Consent, ...],
    at: int,
) -> None:
    known = Known(wishes, policies, made, consents, None)
    answer = evaluate(known, "sms", "news", at)
    assert answer.allowed == (not answer.reasons)
    if answer.allowed:
        assert answer.next_at == answer.at
        return
    then = None if answer.next_at is None else micros(answer.next_at)
    if then is not None:
        assert then > at
        assert evaluate(known, "sms", "news", then).allowed, "the time promised is free"
        assert not evaluate(known, "sms", "news", then - 1).allowed
    # Everything here changes on a half-hour or at a contact's or pause's full hour: no free moment is missed.
    last = at + 10 * 24 * HOUR if then is None else min(then, at + 10 * 24 * HOUR)
    for t in range(at, last, HOUR // 2):
        assert not evaluate(known, "sms", "news", t).allowed, when(t)


def test_reasons_and_precedence() -> None:
    at = us("2026-03-02T12:00:00Z")
    day = timedelta(days=1)

    def codes(*wishes: Preference, policies: tuple[Policy, ...] = ()) -> set[str]:
        return {r.code for r in evaluate(Known(wishes, policies, [], (), None), "sms", "news", at).reasons}

    def said(channel: str, topic: str, allowed: bool, days: int) -> Preference:
        return Preference(channel, topic, allowed, occurred_at=datetime(2026, 1, 1, tzinfo=UTC) + days * day)

    assert codes(said("sms", "*", False, 0)) == {"opted_out_channel"}
    assert codes(said("*", "news", False, 0), said("*", "*", False, 0)) == {"opted_out_topic", "opted_out"}
    assert codes(said("sms", "*", False, 0), said("sms", "news", True, 1)) == set(), "no, but news"
    assert codes(said("sms", "news", True, 0), said("*", "*", False, 1)) == {"opted_out"}, "a later no to all"
    assert codes(said("sms", "*", True, 1), said("*", "news", False, 0)) == {"opted_out_topic"}
    opt_in = (Policy("sms", "*", opt_in=True),)
    assert codes(policies=opt_in) == {"no_opt_in"}
    assert codes(said("sms", "news", True, 0), policies=opt_in) == set()
    all_day = (Quiet("00:00", "00:00"),)
    assert codes(Preference("sms", quiet=()), policies=(Policy("*", quiet=all_day),)) == set()
    assert codes(Preference("sms", quiet=()), policies=(Policy("*", quiet=all_day, binding=True),)) == {
        "quiet_hours"
    }
    none = (Cap(0, "day"),)
    assert codes(Preference("sms", caps=()), policies=(Policy("*", caps=none),)) == {"cap_day"}
    assert codes(Preference("*", caps=()), policies=(Policy("*", caps=none),)) == set()
