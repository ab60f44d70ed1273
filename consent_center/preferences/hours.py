"""Time arithmetic of quiet hours and rolling windows, exact across changes of the clocks. Pure functions.

Times are microseconds since 1970 UTC. A reading of a wall clock becomes an instant so:

- a reading that the clock skips (spring) is the instant of the change;
- of a reading that comes twice (autumn), quiet hours begin with the first and end with the second.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from consent_center.batch import DAY, micros
from consent_center.preferences.model import DAYS, Cap, Quiet, when, zone_of

#: After so many days unbroken quiet is endless; a change of the clocks can cost one week its free hours.
_ENDLESS_DAYS = 36


@lru_cache(maxsize=65_536)
def instant(wall: datetime, zone: str, later: bool) -> int:
    """When the clocks of `zone` show `wall` (naive)."""
    region = zone_of(zone)
    first, second = (wall.replace(tzinfo=region, fold=fold) for fold in (0, 1))
    shown = first.astimezone(UTC).astimezone(region).replace(tzinfo=None, fold=0)
    if shown == wall:
        return micros((second if later else first).astimezone(UTC))
    # Skipped: the change lies between the two readings; its instant is where the offset jumps.
    low, high = micros(second.astimezone(UTC)), micros(first.astimezone(UTC))
    before = when(low).astimezone(region).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if when(middle).astimezone(region).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def _period(quiet: Quiet, day: date) -> tuple[int, int]:
    """[start, end) of the quiet period that begins on `day`."""
    start, end = (
        datetime.combine(day, datetime.strptime(t, "%H:%M").time()) for t in (quiet.start, quiet.end)
    )
    if end <= start:
        end += timedelta(days=1)
    return instant(start, quiet.zone, False), instant(end, quiet.zone, True)


@lru_cache(maxsize=65_536)
def quiet_end(quiet: Quiet, at: int) -> int | None:
    """The end of that quiet period if `at` lies in one, else None."""
    today = when(at).astimezone(zone_of(quiet.zone)).date()
    ends = []
    for back in (-1, 0, 1, 2):
        day = today - timedelta(days=back)
        if DAYS[day.weekday()] in quiet.days:
            start, end = _period(quiet, day)
            if start <= at < end:
                ends.append(end)
    return max(ends, default=None)


@lru_cache(maxsize=65_536)
def after_quiet(periods: tuple[Quiet, ...], at: int) -> int | None:
    """The first time from `at` on that lies in none of the periods; None if quiet never ends."""
    limit, t = at + _ENDLESS_DAYS * DAY, at
    while t < limit:
        ends = [end for quiet in periods if (end := quiet_end(quiet, t)) is not None]
        if not ends:
            return t
        t = max(ends)
    return None


@lru_cache(maxsize=262_144)
def window_end(at: int, per: str, zone: str) -> int:
    """When a contact made at `at` stops counting: 24 hours, 7 x 24 hours, or a calendar month later.

    A month later is the same day and clock of the next month, or its last day (31 January: 28 February).
    """
    if per == "day":
        return at + DAY
    if per == "week":
        return at + 7 * DAY
    local = when(at).astimezone(zone_of(zone)).replace(tzinfo=None, fold=0)
    year, month = (local.year, local.month + 1) if local.month < 12 else (local.year + 1, 1)
    wall = local.replace(year=year, month=month, day=min(local.day, monthrange(year, month)[1]))
    return instant(wall, zone, True)


def after_cap(cap: Cap, zone: str, made: Sequence[int], at: int) -> int | None:
    """The first time from `at` on at which one more contact leaves every window with `cap.count` at most.

    `made` is ascending and may lie in the future (reservations): the new contact must not overfill a window
    that ends with those either. None if the cap is 0.

    n made contacts p_1 <= ... <= p_n bar the new one from all t with which they fit one window, an open
    interval that ends at window_end(p_1). Those ends rise with p_1, so one pass finds the first free t.
    """
    n = cap.count
    if n == 0:
        return None
    for first, last in zip(made, made[n - 1 :], strict=False):
        release = window_end(first, cap.per, zone)
        if at < release and last < release and last < window_end(at, cap.per, zone):
            at = release
    return at
