"""The legal clock: until when a request must be answered, with holidays, pauses and extensions.

GDPR 12(3): one month, extendable once by two further months. Periods are reckoned by Regulation (EEC,
Euratom) 1182/71: the day of receipt does not count, a month ends on the day of the same number (or the last
of a shorter month), and a period that would end on a Saturday, Sunday or public holiday ends on the next
working day. PIPL 50 says "timely": here a number of working days that the organisation sets. Public holidays,
and in China the weekends on which people work, are from the package `holidays`; for years that are not
announced yet it knows the fixed ones only, and the deadline is marked provisional.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from consent_center.batch import micros
from consent_center.errors import ConsentError

#: How long before its end a deadline is called near, in days.
NEAR_DAYS = 5


@dataclass(frozen=True)
class ClockRule:
    """How one regulation counts. `working_days` or else `months`; likewise for the one extension.

    `country` is an ISO 3166 code whose public holidays count ("": weekends only); `extensions` how often it
    may be extended.
    """

    regulation: str
    working_days: int = 0
    months: int = 0
    extension_working_days: int = 0
    extension_months: int = 0
    extensions: int = 1
    country: str = ""
    zone: str = "UTC"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


DEFAULTS: dict[str, ClockRule] = {
    "PIPL": ClockRule("PIPL", working_days=15, extension_working_days=15, country="CN", zone="Asia/Shanghai"),
    "GDPR": ClockRule("GDPR", months=1, extension_months=2, country="DE", zone="Europe/Berlin"),
}


def check_rule(rule: ClockRule) -> None:
    """ConsentError `rights.clock` for a rule that can't be reckoned with."""
    numbers = (rule.working_days, rule.months, rule.extension_working_days, rule.extension_months)
    if (rule.working_days > 0) == (rule.months > 0) or not all(0 <= n <= 365 for n in numbers):
        raise ConsentError("rights.clock", "give working_days (1 to 365) or months (1 to 12), not both")
    if rule.months > 12 or rule.extension_months > 12 or not 0 <= rule.extensions <= 5:
        raise ConsentError("rights.clock", "months are at most 12, extensions at most 5")
    if rule.regulation == "GDPR" and (rule.months != 1 or rule.extension_months > 2 or rule.extensions > 1):
        raise ConsentError("rights.clock", "GDPR 12(3) allows one month, extended once by two at the most")
    import holidays  # most centers are opened without a request

    if rule.country and rule.country not in holidays.list_supported_countries():
        raise ConsentError("rights.clock", f"no holidays are known for country {rule.country!r}")
    if rule.zone not in available_timezones():
        raise ConsentError("rights.clock", f"{rule.zone!r} is no time zone of the IANA database")


@lru_cache(maxsize=64)
def _known(country: str, year: int) -> Any:
    """The holidays around a year; one object a country and year."""
    import holidays

    years = [year - 1, year, year + 1]
    return holidays.country_holidays(country, years=years) if country else holidays.HolidayBase(years=years)


def is_working_day(rule: ClockRule, day: date) -> bool:
    """Monday to Friday without public holidays, and the weekends on which China works."""
    known = _known(rule.country, day.year)
    if not rule.country:
        return day.weekday() < 5
    found: bool = known.is_working_day(day)
    return found


def announced(rule: ClockRule, day: date) -> bool:
    """Whether the holidays of that day's year are known for good.

    China publishes each year's days off and worked weekends in the November before; without them only the
    statutory days are known.
    """
    if rule.country != "CN":
        return True
    return any(worked.year == day.year for worked in _known("CN", day.year).weekend_workdays)


def local_date(rule: ClockRule, at: int) -> date:
    """The day in the rule's zone at `at` microseconds."""
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).astimezone(ZoneInfo(rule.zone)).date()
    )


def end_of(rule: ClockRule, day: date) -> int:
    """The microsecond after the last of that day in the rule's zone."""
    after = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(rule.zone))
    return micros(after)


def _add_working(rule: ClockRule, day: date, count: int) -> date:
    while count > 0:
        day += timedelta(days=1)
        count -= is_working_day(rule, day)
    return day


def _add_months(day: date, count: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + count, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def working_days(rule: ClockRule, start: date, end: date) -> int:
    """Working days after `start` up to and including `end`; negative if it lies before."""
    if end < start:
        return -working_days(rule, end, start)
    return sum(is_working_day(rule, start + timedelta(days=i + 1)) for i in range((end - start).days))


def deadline(
    rule: ClockRule, received: int, extensions: int, pauses: Sequence[tuple[int, int]], now: int
) -> tuple[date, bool]:
    """(last day in time, provisional). A pause that still runs counts up to `now`."""
    day = local_date(rule, received)
    if rule.working_days:
        count = rule.working_days + extensions * rule.extension_working_days
        count += sum(
            working_days(rule, local_date(rule, start), local_date(rule, now if end < 0 else end))
            for start, end in pauses
        )
        last = _add_working(rule, day, count)
    else:
        last = _add_months(day, rule.months + extensions * rule.extension_months)
        for start, end in pauses:
            last += local_date(rule, now if end < 0 else end) - local_date(rule, start)
        while not is_working_day(rule, last):
            last += timedelta(days=1)
    return last, not announced(rule, last)


def standing(rule: ClockRule, due: date, now: int, running: bool) -> tuple[str, int]:
    """("on_time" | "near" | "overdue" | "paused", days left: working days or days, as the rule counts)."""
    today = local_date(rule, now)
    left = working_days(rule, today, due) if rule.working_days else (due - today).days
    if not running:
        return "paused", left
    if today > due:
        return "overdue", left
    return ("near" if left <= NEAR_DAYS else "on_time"), left
