"""What a person sees and sets on the page about being contacted: channels, topics, how often, quiet hours.

Each is a preference of one key (channel, topic; `*` for all), as the hotline or a server would record it. One
click says one thing about one key and leaves the rest of what was said there as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from consent_center.collection.forms import in_language
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.preferences import store
from consent_center.preferences.evaluate import covers, ended_by, refused_by
from consent_center.preferences.model import (
    ALL,
    Cap,
    Policy,
    Preference,
    Quiet,
    Term,
    check_preference,
    to_json,
    when,
)

#: The limits that one click sets, beside "no limit of mine" and "as usual".
LIMITS = (Cap(1, "day"), Cap(1, "week"), Cap(1, "month"))
#: What the page suggests for quiet hours.
QUIET = Quiet("22:00", "08:00")
SOURCE, ACTOR = "preference_page", "data subject"


def wishes_of(connection: sa.Connection, keys: Keys, subject: int) -> list[Preference]:
    """What holds for the person. `ledger.corrupt`."""
    secret = store.secrets_of(connection, keys, [subject])
    found, broken = store.in_force(connection, secret)
    if broken:
        raise ConsentError("ledger.corrupt", "a preference of this person was changed; run fsck")
    return [wish for _, wish in found.get(subject, ())]


def shown(connection: sa.Connection, keys: Keys, subject: int, language: str) -> dict[str, Any]:
    """{all: row, channels: [row], topics: [row with its own `channels`]} of what is declared and in use."""
    book, wishes = store.rulebook(connection), wishes_of(connection, keys, subject)
    channels = [term for term in book.channels.values() if term.active]
    topics = [term for term in book.topics.values() if term.active]

    def row(channel: str, topic: str, term: Term | None) -> dict[str, Any]:
        title = "" if term is None else in_language(dict(term.title), language, term.id)[0]
        return {"title": title, **_row(book.policies, wishes, channel, topic)}

    return {
        "all": row(ALL, ALL, None),
        "channels": [row(channel.id, ALL, channel) for channel in channels],
        "topics": [
            {
                **row(ALL, topic.id, topic),
                "channels": [row(channel.id, topic.id, channel) for channel in channels],
            }
            for topic in topics
        ],
    }


def _row(
    policies: Sequence[Policy], wishes: Sequence[Preference], channel: str, topic: str
) -> dict[str, Any]:
    """One key. `state` is what holds: a broader no counts too (`broader`), and a yes that a later no ended
    does not. `limits` may be set unless it is stopped. `house` is the organisation's own for the same key.
    """
    said = _at(wishes, channel, topic)
    no = refused_by(wishes, channel, topic)
    yes = any(
        w.allowed and ended_by(w, wishes) is None and covers((w.channel, w.topic), channel, topic)
        for w in wishes
    )
    house = next((p for p in policies if (p.channel, p.topic) == (channel, topic)), None)
    asks = any(p.opt_in and covers((p.channel, p.topic), channel, topic) for p in policies)
    told = to_json(said) if said is not None else {}
    own = to_json(house) if house is not None else {}
    return {
        "channel": channel,
        "topic": topic,
        "state": "stopped" if no is not None else "allowed" if yes else "opt_in" if asks else "unset",
        "broader": no is not None and (no.channel, no.topic) != (channel, topic),
        "limits": no is None,
        "caps": told.get("caps"),
        "quiet": told.get("quiet"),
        "paused_until": told.get("paused_until"),
        "house": {name: own.get(name) for name in ("caps", "quiet")},
    }


def _at(wishes: Sequence[Preference], channel: str, topic: str) -> Preference | None:
    return next((wish for wish in wishes if (wish.channel, wish.topic) == (channel, topic)), None)


def choose(
    connection: sa.Connection,
    keys: Keys,
    subject: int,
    key: tuple[str, str],
    choice: str,
    given: Mapping[str, str],
    now: int,
) -> dict[str, Any]:
    """Record one click. {changed, number}. `preference.*`, `event.action`.

    `choice`: `allow`, `stop`, `resume`, `limit:1:week`, `limit:none`, `limit:usual`, `quiet` (from `start` to
    `end` of `given`), `quiet:none`, `quiet:usual`.
    """
    book, (channel, topic) = store.rulebook(connection), key
    for name, what, declared in (("channel", channel, book.channels), ("topic", topic, book.topics)):
        if what != ALL and what not in declared:
            raise ConsentError("preference.unknown", f"{name} {what!r} is not declared")
    wishes = wishes_of(connection, keys, subject)
    held = _at(wishes, channel, topic) or Preference(channel, topic)
    wish = _changed(held, choice, given)
    if choice in ("allow", "stop"):
        stands = held.allowed is wish.allowed and ended_by(held, wishes) is None
    else:
        if refused_by(wishes, channel, topic) is not None:
            raise ConsentError("event.action", "what is stopped has no limits; allow it first")
        stands = wish == held
        if ended_by(held, wishes) is not None:  # a limit does not renew a yes that a later no has ended
            wish = replace(wish, allowed=None)
    if stands:
        return {"changed": False, "number": None}
    wish = replace(wish, occurred_at=when(now), source=SOURCE, actor=ACTOR)
    check_preference(wish)
    number, _ = store.write_preferences(connection, keys, subject, [wish], now)
    return {"changed": True, "number": number}


def _changed(held: Preference, choice: str, given: Mapping[str, str]) -> Preference:
    what, _, rest = choice.partition(":")
    if choice in ("allow", "stop"):
        return replace(held, allowed=choice == "allow")
    if choice == "resume":
        return replace(held, paused_until=None)
    if what == "limit":
        limits = {f"{cap.count}:{cap.per}": (cap,) for cap in LIMITS} | {"none": (), "usual": None}
        if rest in limits:
            return replace(held, caps=limits[rest])
    if what == "quiet" and rest in ("none", "usual"):
        return replace(held, quiet=() if rest == "none" else None)
    if choice == "quiet":
        zone = held.quiet[0].zone if held.quiet else QUIET.zone
        return replace(held, quiet=(Quiet(given.get("start", ""), given.get("end", ""), zone),))
    raise ConsentError("event.action", f"{choice!r} is nothing that the page offers")
