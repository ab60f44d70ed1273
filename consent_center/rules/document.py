"""The rule file: TOML, checked to the last key, with the line that is wrong.

    format = "pec.rules/1"
    [[rule]]
    id = "no-location-at-night"
    effect = "deny"                    # deny, allow or limit
    purposes = ["lookalike-ads"]       # missing: all; the same for recipients, categories, regions
    categories = ["location"]
    hours = "22:00-08:00"

docs/consent.md, "Rules of the house", says what each key means.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from consent_center.batch import micros
from consent_center.errors import ConsentError
from consent_center.model import DecisionRequest
from consent_center.registry import is_name

FORMAT = "pec.rules/1"
EFFECTS = ("deny", "allow", "limit")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Rolling windows, in microseconds: no calendar whose edge one could wait for.
WINDOWS = {
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 7 * 86_400_000_000,
    "month": 30 * 86_400_000_000,
}
#: Names for several regions (ISO 3166-1 codes of the member states).
GROUPS: dict[str, tuple[str, ...]] = {
    "EU": (
        *("AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE"),
        *("IT", "LV", "LT", "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE"),
    ),
}
GROUPS["EEA"] = (*GROUPS["EU"], "IS", "LI", "NO")
_REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?|EEA")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_LISTS = ("purposes", "recipients", "categories", "regions", "days")
_LIMITS = ("jobs", "decisions", "people")
_KEYS = {
    "id",
    "effect",
    "reason",
    *_LISTS,
    "from",
    "until",
    "hours",
    "zone",
    "unknown_region",
    "per",
    *_LIMITS,
}
MAX_RULES, MAX_BYTES = 1_000, 1 << 20


@dataclass(frozen=True)
class DeclaredRule:
    """One rule. Empty tuples mean "all"; times in microseconds, None for open ends."""

    id: str
    effect: str
    reason: str
    purposes: tuple[str, ...]
    recipients: tuple[str, ...]
    categories: tuple[str, ...]
    regions: tuple[str, ...]
    days: tuple[str, ...]
    begins: int | None
    ends: int | None
    hours: tuple[int, int] | None  # minutes of the day; an end not after the start is on the next day
    zone: str
    unknown_region: bool
    per: str
    jobs: int | None
    decisions: int | None
    people: int | None

    def scope(self, request: DecisionRequest) -> bool:
        """Whether the rule speaks of that purpose and recipient."""
        return (not self.purposes or request.purpose in self.purposes) and (
            not self.recipients or request.recipient in self.recipients
        )

    def touches(self, request: DecisionRequest) -> bool:
        """Whether the request asks for any category that the rule names."""
        return not self.categories or bool(set(request.categories) & set(self.categories))

    def covers(self, request: DecisionRequest) -> bool:
        """Whether the rule names every category that the request asks for."""
        return not self.categories or set(request.categories) <= set(self.categories)

    def applies_at(self, as_of: int) -> bool:
        """Whether the rule is in force at that time."""
        if (self.begins is not None and as_of < self.begins) or (
            self.ends is not None and as_of >= self.ends
        ):
            return False
        if not self.days and self.hours is None:
            return True
        there = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=as_of)).astimezone(
            ZoneInfo(self.zone)
        )
        minute, day = there.hour * 60 + there.minute, there
        if self.hours is not None:
            start, end = self.hours
            inside = start <= minute < end if start < end else minute >= start or minute < end
            if not inside:
                return False
            if start >= end and minute < end:
                day = there - timedelta(days=1)  # after midnight it is still the night of the day before
        return not self.days or DAYS[day.weekday()] in self.days


@dataclass(frozen=True)
class RuleSet:
    """A checked file."""

    rules: tuple[DeclaredRule, ...]
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class _Lines:
    """Where rules and their keys stand in the text."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._heads = [i for i, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)]

    def of(self, number: int, key: str = "") -> int:
        """The line (from 1) of rule `number` (from 0), or of a key in it."""
        if number >= len(self._heads):
            return 1
        start = self._heads[number]
        end = self._heads[number + 1] if number + 1 < len(self._heads) else len(self._lines)
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        for at in range(start, end):
            if key and pattern.match(self._lines[at]):
                return at + 1
        return start + 1

    def top(self, key: str) -> int:
        for at, line in enumerate(self._lines):
            if re.match(rf"\s*{re.escape(key)}\s*=", line):
                return at + 1
        return 1


def parse(text: str) -> RuleSet:
    """Check a rule file. ConsentError `rules.file` with "line N: …"."""
    if len(text.encode()) > MAX_BYTES:
        raise ConsentError("rules.file", f"the file is over {MAX_BYTES} bytes")
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        where = f"line {found[1]}" if found else f"line {len(text.splitlines())}"
        raise ConsentError("rules.file", f"{where}: no TOML: {error}") from None
    lines = _Lines(text)
    for key in document:
        if key not in ("format", "rule"):
            raise ConsentError(
                "rules.file", f"line {lines.top(key)}: unknown key {key!r}; known: format, rule"
            )
    if document.get("format") != FORMAT:
        raise ConsentError("rules.file", f'line {lines.top("format")}: format must be "{FORMAT}"')
    listed = document.get("rule", [])
    if (
        not isinstance(listed, list)
        or len(listed) > MAX_RULES
        or not all(isinstance(r, dict) for r in listed)
    ):
        raise ConsentError(
            "rules.file", f"line {lines.of(0)}: write each rule as [[rule]], at most {MAX_RULES}"
        )
    rules = tuple(_rule(number, table, lines) for number, table in enumerate(listed))
    seen: set[str] = set()
    for number, rule in enumerate(rules):
        if rule.id in seen:
            raise ConsentError("rules.file", f"line {lines.of(number, 'id')}: a second rule {rule.id!r}")
        seen.add(rule.id)
    return RuleSet(rules, text)


def _rule(number: int, table: dict[str, Any], lines: _Lines) -> DeclaredRule:
    def wrong(key: str, what: str) -> ConsentError:
        return ConsentError("rules.file", f"line {lines.of(number, key)}: {what}")

    for key in table:
        if key not in _KEYS:
            raise wrong(key, f"unknown key {key!r}; known: {', '.join(sorted(_KEYS))}")
    id, effect = table.get("id"), table.get("effect")
    if not is_name(id):
        raise wrong("id", "id must be a name without blanks")
    if effect not in EFFECTS:
        raise wrong("effect", f"effect must be one of {', '.join(EFFECTS)}")
    lists: dict[str, tuple[str, ...]] = {}
    for key in _LISTS:
        values = table.get(key, [])
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise wrong(key, f"{key} must be a list of texts")
        if key in table and not values:
            raise wrong(key, f"{key} is empty: leave the key out to mean all")
        lists[key] = tuple(values)
    for key in ("purposes", "recipients", "categories"):
        if strange := [v for v in lists[key] if not is_name(v)]:
            raise wrong(key, f"{key}: {strange[0]!r} is no name")
    if strange := [v for v in lists["regions"] if not _REGION.fullmatch(v)]:
        raise wrong("regions", f"regions: {strange[0]!r} is no code like CN, CN-31, EU or EEA")
    if strange := [v for v in lists["days"] if v not in DAYS]:
        raise wrong("days", f"days: {strange[0]!r} is none of {', '.join(DAYS)}")
    zone, reason, unknown = (
        table.get("zone", "Asia/Shanghai"),
        table.get("reason", ""),
        table.get("unknown_region"),
    )
    try:
        place = ZoneInfo(zone) if isinstance(zone, str) else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        place = None
    if place is None:
        raise wrong("zone", f"zone {zone!r} is not in the IANA database")
    if not isinstance(reason, str) or len(reason) > 1_000:
        raise wrong("reason", "reason must be a text of at most 1000 characters")
    if unknown is not None and (not isinstance(unknown, bool) or not lists["regions"]):
        raise wrong("unknown_region", "unknown_region is true or false, and goes with regions")
    ends = {
        key: _moment(table.get(key), place, lambda t, key=key: wrong(key, t)) for key in ("from", "until")
    }
    if ends["from"] is not None and ends["until"] is not None and ends["from"] >= ends["until"]:
        raise wrong("until", "until is not after from")
    hours = table.get("hours")
    if hours is not None and (not isinstance(hours, str) or not _CLOCK.fullmatch(hours)):
        raise wrong("hours", 'hours must look like "22:00-08:00"')
    counts = {key: table.get(key) for key in _LIMITS}
    for key, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise wrong(key, f"{key} must be a whole number from 0")
    per = table.get("per", "")
    if effect == "limit":
        if per not in WINDOWS:
            raise wrong("per", f"a limit needs per = one of {', '.join(WINDOWS)}")
        if all(value is None for value in counts.values()):
            raise wrong("effect", f"a limit needs one of {', '.join(_LIMITS)}")
        if lists["regions"]:
            raise wrong("regions", "a limit counts requests, not people of a region: leave regions out")
    elif per or any(value is not None for value in counts.values()):
        key = "per" if per else next(k for k, v in counts.items() if v is not None)
        raise wrong(key, f'{key} goes with effect = "limit" only')
    clock = _CLOCK.fullmatch(hours) if isinstance(hours, str) else None
    span = None if clock is None else (int(clock[1]) * 60 + int(clock[2]), int(clock[3]) * 60 + int(clock[4]))
    return DeclaredRule(
        id=str(id),
        effect=str(effect),
        reason=reason,
        purposes=lists["purposes"],
        recipients=lists["recipients"],
        categories=lists["categories"],
        regions=lists["regions"],
        days=lists["days"],
        begins=ends["from"],
        ends=ends["until"],
        hours=span,
        zone=str(zone),
        # Whoever's region is not known is refused by a denial and not admitted by a permission.
        unknown_region=effect == "deny" if unknown is None else unknown,
        per=per,
        **counts,
    )


def _moment(value: Any, zone: ZoneInfo, wrong: Any) -> int | None:
    """A TOML date or time in microseconds; without an offset it is the rule's zone's."""
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise wrong("must be a TOML date or time, without quotes: 2026-12-01")
    return micros(value if value.tzinfo else value.replace(tzinfo=zone))
