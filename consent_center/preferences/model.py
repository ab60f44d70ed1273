"""Plain data of preferences, policies, questions and answers, and what their fields may be.

A key is (channel, topic); `*` stands for all. A question is about one channel and one topic; every key that
covers them has its say. None means "not said"; an empty tuple of caps or quiet hours means "none wanted".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from consent_center.batch import micros, moment
from consent_center.errors import ConsentError
from consent_center.model import KINDS
from consent_center.registry import is_name

ALL = "*"
WINDOWS: tuple[str, ...] = ("day", "week", "month")
DAYS: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONE = "Asia/Shanghai"

#: Channels that every center knows; more are declared (`Term`).
CHANNELS: dict[str, dict[str, str]] = {
    "sms": {"zh": "短信", "en": "Text message"},
    "email": {"zh": "电子邮件", "en": "E-mail"},
    "push": {"zh": "推送", "en": "Push notification"},
    "phone": {"zh": "电话", "en": "Telephone call"},
    "wechat": {"zh": "微信", "en": "WeChat"},
    "mail": {"zh": "信件", "en": "Letter"},
    "in_app": {"zh": "应用内消息", "en": "Message in the app"},
}

#: Why not, in the order in which an answer lists them; every one that applies is listed.
REASONS: dict[str, dict[str, str]] = {
    "unreachable": {"zh": "同意中心无应答", "en": "the consent center did not answer"},
    "stale": {
        "zh": "同意中心无法读写自身记录",
        "en": "the consent center could not read or write its records",
    },
    "identifier_invalid": {"zh": "标识符无效", "en": "not an identifier of that kind"},
    "unknown_subject": {"zh": "未知人员", "en": "nobody with that identifier is known"},
    "restricted": {"zh": "已限制处理", "en": "the person's data is kept and not used"},
    "unknown_channel": {"zh": "渠道未声明", "en": "the channel is not declared"},
    "unknown_topic": {"zh": "主题未声明", "en": "the topic is not declared"},
    "no_consent": {"zh": "未同意相关目的", "en": "no consent to the linked purpose"},
    "minor": {"zh": "未满十四周岁且无监护人同意", "en": "under 14 without a guardian's consent"},
    "no_opt_in": {"zh": "未主动订阅", "en": "has not opted in, which the policy asks for"},
    "opted_out": {"zh": "已拒绝一切联系", "en": "opted out of every contact"},
    "opted_out_channel": {"zh": "已拒绝该渠道", "en": "opted out of the channel"},
    "opted_out_topic": {"zh": "已拒绝该主题", "en": "opted out of the topic"},
    "paused": {"zh": "联系已暂停", "en": "contacts are paused"},
    "quiet_hours": {"zh": "处于免打扰时段", "en": "quiet hours"},
    "cap_day": {"zh": "已达每日上限", "en": "the cap of a day is reached"},
    "cap_week": {"zh": "已达每周上限", "en": "the cap of a week is reached"},
    "cap_month": {"zh": "已达每月上限", "en": "the cap of a month is reached"},
    "already_made": {"zh": "该次联系已完成", "en": "the contact of that id was made already"},
}
#: Reasons that time alone can end; any other needs a new preference, consent or declaration.
TEMPORARY = frozenset({"paused", "quiet_hours", "cap_day", "cap_week", "cap_month"})

_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_MAX_TEXT = 512
MAX_CAP, MAX_ITEMS = 10_000, 10_000
#: How far ahead a question may lie; clocks may differ by `SKEW`, in microseconds.
AHEAD = 366 * 86_400_000_000
SKEW = 300_000_000
RESERVE_SECONDS, MAX_RESERVE_SECONDS = 900, 86_400


@dataclass(frozen=True)
class Cap:
    """At most `count` contacts in any rolling window: 24 hours, 7 x 24 hours, or a calendar month."""

    count: int
    per: str


@dataclass(frozen=True)
class Quiet:
    """Quiet from `start` to `end` ("HH:MM" on the clocks of `zone`) of the days on which it begins.

    An end that is not after the start is on the next day; equal times are a whole day.
    """

    start: str
    end: str
    zone: str = ZONE
    days: tuple[str, ...] = DAYS


@dataclass(frozen=True)
class Preference:
    """What a person wants for one key. Replaces what was said for the same key before.

    `zone` is where the windows of a month are reckoned.
    """

    channel: str
    topic: str = ALL
    allowed: bool | None = None
    caps: tuple[Cap, ...] | None = None
    quiet: tuple[Quiet, ...] | None = None
    paused_until: datetime | None = None
    zone: str = ZONE
    occurred_at: datetime | None = None  # default: now
    source: str = ""  # where it was said: preference page, hotline ...
    actor: str = ""


@dataclass(frozen=True)
class Policy:
    """The organisation's default for one key; `binding` ones apply whatever a person prefers.

    `opt_in`: contacts need the person's own yes. `purpose` links the consent that contacts need; `recipient`
    (default: the controller) and `categories` (default: all of the purpose's) say which consent exactly.
    """

    channel: str
    topic: str = ALL
    version: int = 0  # given by the center
    caps: tuple[Cap, ...] | None = None
    quiet: tuple[Quiet, ...] | None = None
    zone: str = ZONE
    binding: bool = False
    opt_in: bool = False
    purpose: str = ""
    recipient: str = ""
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Term:
    """A declared channel or topic, with its titles by language."""

    kind: str
    id: str
    title: Mapping[str, str]
    active: bool = True


@dataclass(frozen=True)
class Question:
    """May `sender` contact this person on `channel` about `topic`, `at` (default: now)?

    With `reserve`, a yes also takes the slot for `reserve_seconds`, under the sender's `contact_id`; the same
    id asked again gets the same slot, and reporting the contact under that id turns it into a contact.
    """

    kind: str
    value: str = field(repr=False)
    channel: str
    topic: str
    sender: str
    at: datetime | None = None
    purpose: str = ""
    recipient: str = ""
    categories: tuple[str, ...] = ()
    contact_id: str = field(default="", repr=False)
    reserve: bool = False
    reserve_seconds: int = RESERVE_SECONDS


@dataclass(frozen=True)
class Reason:
    """One ground against. `by` is preference, policy, consent or center; `until` when it ends by itself."""

    code: str
    by: str = "center"
    channel: str = ""
    topic: str = ""
    until: datetime | None = None
    detail: str = ""

    @property
    def title(self) -> dict[str, str]:
        return REASONS[self.code]


@dataclass(frozen=True)
class Answer:
    """`allowed`, or every reason against and the first time at which it would be allowed (None: never)."""

    allowed: bool
    reasons: tuple[Reason, ...]
    at: datetime
    next_at: datetime | None
    reserved_until: datetime | None = None


@dataclass(frozen=True)
class Contact:
    """A contact that was made, as its sender reports it; `contact_id` makes reporting it twice harmless."""

    kind: str
    value: str = field(repr=False)
    channel: str
    topic: str
    sender: str
    contact_id: str = field(repr=False)
    at: datetime


@dataclass(frozen=True)
class Reported:
    """What became of each contact: "recorded", "repeated" or an error's code, and its detail."""

    outcomes: tuple[str, ...]
    details: tuple[str, ...]


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The IANA time zone; ConsentError `preference.zone`."""
    try:
        # Names with dots or a leading slash are paths out of the database: ZoneInfo refuses them itself.
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConsentError(
            "preference.zone", f"{name!r} is no IANA time zone such as Asia/Shanghai"
        ) from None


def check_key(channel: str, topic: str) -> None:
    """ConsentError `preference.key` unless both are names or `*`."""
    for what, value in (("channel", channel), ("topic", topic)):
        if value != ALL and not is_name(value):
            raise ConsentError(
                "preference.key", f"{what} {value!r} must be a name of 1 to 128 characters or *"
            )


def check_preference(wish: Preference) -> None:
    """ConsentError `preference.*` unless every field is in its range."""
    check_key(wish.channel, wish.topic)
    if wish.allowed is not None and not isinstance(wish.allowed, bool):
        raise ConsentError("preference.key", "allowed is true, false or null")
    _check_limits(wish.caps, wish.quiet, wish.zone)
    for when in (wish.paused_until, wish.occurred_at):
        if when is not None and when.tzinfo is None:
            raise ConsentError("preference.time", f"{when.isoformat()} has no time zone; add its offset")
    for text in (wish.source, wish.actor):
        if len(text) > _MAX_TEXT:
            raise ConsentError("preference.key", f"source and actor have at most {_MAX_TEXT} characters")


def check_policy(policy: Policy) -> None:
    """ConsentError `preference.*` unless every field is in its range."""
    check_key(policy.channel, policy.topic)
    _check_limits(policy.caps, policy.quiet, policy.zone)
    names = [("purpose", policy.purpose), ("recipient", policy.recipient)]
    for what, name in names + [("category", category) for category in policy.categories]:
        if name and not is_name(name):
            raise ConsentError("preference.policy", f"{what} {name!r} is no name of 1 to 128 characters")
    if not policy.purpose and (policy.recipient or policy.categories):
        raise ConsentError(
            "preference.policy", "recipient and categories need the purpose that they belong to"
        )


def check_term(term: Term) -> None:
    """ConsentError `preference.term`."""
    if term.kind not in ("channel", "topic") or not is_name(term.id):
        raise ConsentError("preference.term", f"declare a channel or a topic by a name, not {term.id!r}")
    texts = [*term.title.keys(), *term.title.values()]
    if not term.title or not all(isinstance(t, str) and 0 < len(t) <= _MAX_TEXT for t in texts):
        raise ConsentError("preference.term", "title needs a text for each language, for instance zh and en")


def check_question(question: Question) -> None:
    """ConsentError `preference.key`, `.request`, `identifier.kind`, `decision.request`."""
    _check_concrete(question.kind, question.channel, question.topic, question.sender)
    if question.reserve and not 0 < len(question.contact_id) <= _MAX_TEXT:
        raise ConsentError("preference.request", "a reservation needs a contact_id of 1 to 512 characters")
    if not 1 <= question.reserve_seconds <= MAX_RESERVE_SECONDS:
        raise ConsentError("preference.request", f"reserve_seconds are 1 to {MAX_RESERVE_SECONDS}")
    for what, name in (("purpose", question.purpose), ("recipient", question.recipient)):
        if name and not is_name(name):
            raise ConsentError("decision.request", f"{what} {name!r} is no name of 1 to 128 characters")
    if not all(is_name(category) for category in question.categories):
        raise ConsentError("decision.request", "a category is no name of 1 to 128 characters")
    if question.at is not None and question.at.tzinfo is None:
        raise ConsentError("preference.time", "at has no time zone; add its offset from UTC")


def check_contact(contact: Contact) -> None:
    """As `check_question`."""
    _check_concrete(contact.kind, contact.channel, contact.topic, contact.sender)
    if not 0 < len(contact.contact_id) <= _MAX_TEXT:
        raise ConsentError("preference.request", "contact_id has 1 to 512 characters")
    if contact.at.tzinfo is None:
        raise ConsentError("preference.time", "at has no time zone; add its offset from UTC")


def _check_concrete(kind: str, channel: str, topic: str, sender: str) -> None:
    if kind not in KINDS:
        raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
    check_key(channel, topic)
    if ALL in (channel, topic):
        raise ConsentError("preference.key", "a contact has one channel and one topic; * is for preferences")
    if not is_name(sender):
        raise ConsentError("preference.request", f"sender {sender!r} is no name of 1 to 128 characters")


def _check_limits(caps: tuple[Cap, ...] | None, quiet: tuple[Quiet, ...] | None, zone: str) -> None:
    zone_of(zone)
    for cap in caps or ():
        whole = isinstance(cap.count, int) and not isinstance(cap.count, bool)
        if not whole or not 0 <= cap.count <= MAX_CAP or cap.per not in WINDOWS:
            raise ConsentError("preference.cap", f"a cap is 0 to {MAX_CAP} per {', '.join(WINDOWS)}")
    if len({cap.per for cap in caps or ()}) < len(caps or ()):
        raise ConsentError("preference.cap", "give one cap for each of day, week and month")
    if len(quiet or ()) > 20:
        raise ConsentError("preference.quiet", "at most 20 quiet periods")
    for period in quiet or ():
        zone_of(period.zone)
        if not _CLOCK.fullmatch(period.start) or not _CLOCK.fullmatch(period.end):
            raise ConsentError("preference.quiet", "start and end are times like 22:00")
        if not period.days or not set(period.days) <= set(DAYS):
            raise ConsentError("preference.quiet", f"days are some of {', '.join(DAYS)}")


def to_json(wish: Preference | Policy) -> dict[str, Any]:
    """As it is stored and shown; times in UTC."""
    data = asdict(wish)
    for name in ("caps", "quiet", "categories"):
        if isinstance(data.get(name), tuple):
            data[name] = [_listed(one) for one in data[name]]
    for name in ("paused_until", "occurred_at"):
        if isinstance(data.get(name), datetime):
            data[name] = moment(micros(data[name]))
    return data


def _listed(one: Any) -> Any:
    return (
        {k: list(v) if isinstance(v, tuple) else v for k, v in one.items()} if isinstance(one, dict) else one
    )


def _limits(data: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(data)
    if fields.get("caps") is not None:
        fields["caps"] = tuple(Cap(cap["count"], cap["per"]) for cap in fields["caps"])
    if fields.get("quiet") is not None:
        fields["quiet"] = tuple(
            Quiet(q["start"], q["end"], q.get("zone", ZONE), tuple(q.get("days", DAYS)))
            for q in fields["quiet"]
        )
    return fields


def preference_from_json(data: Mapping[str, Any]) -> Preference:
    """From checked JSON; times may be text or `datetime`."""
    fields = _limits(data)
    for name in ("paused_until", "occurred_at"):
        if isinstance(fields.get(name), str):
            fields[name] = datetime.fromisoformat(fields[name])
    return Preference(**fields)


def policy_from_json(data: Mapping[str, Any]) -> Policy:
    """From checked JSON."""
    fields = _limits(data)
    fields["categories"] = tuple(fields.get("categories", ()))
    return Policy(**fields)


def when(value: int) -> datetime:
    """Microseconds as an aware `datetime` in UTC."""
    return _EPOCH + timedelta(microseconds=value)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
