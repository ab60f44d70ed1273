"""Where one person stands on one offer, and whether they may be asked (again)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from consent_center import database as db
from consent_center import events
from consent_center.batch import DAY, NEVER, day_start, moment, parse, table_of
from consent_center.collection import settings
from consent_center.collection.forms import COOLDOWN_DAYS, Offer
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.model import GRANTS, ConsentEvent, Recorded
from consent_center.registry import Registry

#: What `Standing.state` may be.
STATES = ("none", "granted", "outdated", "expired", "denied", "withdrawn")


@dataclass(frozen=True)
class Standing:
    """`state` is one of STATES; times in microseconds, NEVER for none; `sequence` of the event in force."""

    state: str = "none"
    since: int = NEVER
    until: int = NEVER
    sequence: int = 0
    categories: tuple[str, ...] = ()
    guardian: bool = False


@dataclass(frozen=True)
class MayAsk:
    """`reason` says why (not): never_asked, expired, outdated_notice, asked_long_ago; granted, cooldown,
    guardian,
    purpose_inactive. `next_at` is when waiting will have helped, microseconds, NEVER if it does not."""

    allowed: bool
    reason: str
    next_at: int = NEVER

    def to_json(self) -> dict[str, Any]:
        return {"may_ask": self.allowed, "reason": self.reason, "next_at": moment(self.next_at) or None}


def standing(
    connection: sa.Connection,
    registry: Registry,
    controller: str,
    subject: int | None,
    purpose: str,
    recipient: str,
    regulation: str,
    now: int,
) -> Standing:
    """The person's standing; None is somebody nobody knows yet."""
    if subject is None:
        return Standing()
    context, state, described = db.contexts, db.states, db.descriptors
    query = (
        sa.select(
            state.c.occurred_at, state.c.expires_at, state.c.sequence, state.c.explicit, described.c.body
        )
        .join(context, context.c.id == state.c.context)
        .join(described, described.c.id == state.c.descriptor)
        .where(
            state.c.subject == subject,
            context.c.controller == controller,
            context.c.recipient == recipient,
            context.c.purpose == purpose,
            context.c.regulation == regulation,
        )
    )
    row = connection.execute(query).first()
    if row is None or not row.explicit:  # what was assumed, the person never said
        return Standing()
    body = json.loads(row.body)
    since, until, action = int(row.occurred_at), int(row.expires_at), str(body["action"])
    guardian = action == "guardian_granted"
    birthday = birthday_of(connection, subject)
    if birthday is not None and action in GRANTS and since < birthday:
        until = birthday if until == NEVER else min(until, birthday)
    name = {"denied": "denied", "withdrawn": "withdrawn", "expired": "expired"}.get(action, "granted")
    if action in GRANTS:
        if until != NEVER and now >= until:
            name = "expired"
        elif is_outdated(registry, body):
            name = "outdated"
    return Standing(name, since, until, int(row.sequence), tuple(body["categories"]), guardian)


def is_outdated(registry: Registry, descriptor: dict[str, Any]) -> bool:
    """Whether a grant was given under an older version of the purpose, or before a material notice."""
    current = registry.current.get(descriptor["purpose"])
    if current is None or descriptor["purpose_version"] < current.version:
        return True
    notice = descriptor["notice"]
    return bool(notice) and not registry.notice_stands(notice, descriptor["notice_version"])


def birthday_of(connection: sa.Connection, subject: int) -> int | None:
    """When the person turns 14, in microseconds; None if that has passed or is not known."""
    query = sa.select(db.minors.c.until).where(db.minors.c.ordinal == subject)
    day = connection.execute(query).scalar_one_or_none()
    return None if day is None else int(day_start(np.array([day], np.int64))[0])


def cooldown_days(connection: sa.Connection, purpose: str, recipient: str) -> int:
    """The longest cooldown of all forms that offer it; the default where none does."""
    days = [
        form["cooldown_days"]
        for form in settings.everything(connection, "form")
        for offer in form["offers"]
        if (offer["purpose"], offer["recipient"]) == (purpose, recipient)
    ]
    return max(days, default=COOLDOWN_DAYS)


def may_ask(
    connection: sa.Connection,
    registry: Registry,
    controller: str,
    subject: int | None,
    purpose: str,
    recipient: str,
    regulation: str,
    now: int,
) -> MayAsk:
    """Whether the organisation may ask this person for this consent now. Only the organisation is
    bound by it.
    """
    known = registry.current.get(purpose)
    if known is None:
        raise ConsentError("registry.unknown", f"no purpose {purpose!r} is registered")
    if not known.active:
        return MayAsk(False, "purpose_inactive")
    found = standing(connection, registry, controller, subject, purpose, recipient, regulation, now)
    birthday = None if subject is None else birthday_of(connection, subject)
    if found.state == "granted":
        return MayAsk(False, "granted", found.until)
    if found.state in ("denied", "withdrawn"):
        free = found.since + cooldown_days(connection, purpose, recipient) * DAY
        if now < free:
            return MayAsk(False, "cooldown", free)
    if birthday is not None and now < birthday and known.needs_guardian:
        return MayAsk(False, "guardian", birthday)
    reasons = {"none": "never_asked", "expired": "expired", "outdated": "outdated_notice"}
    return MayAsk(True, reasons.get(found.state, "asked_long_ago"))


def record_known(
    connection: sa.Connection,
    keys: Keys,
    registry: Registry,
    controller: str,
    subject: int,
    events_of: list[dict[str, Any]],
    now: int,
) -> list[Recorded]:
    """Record events of one person who is known by ordinal only; each dict has a ConsentEvent's fields."""
    made = [ConsentEvent(identifiers=(("opaque", "-"),), **fields) for fields in events_of]
    batch = parse(table_of(made), registry, controller, now)
    if batch.bad:
        row = min(batch.bad)
        raise ConsentError(*batch.bad[row])
    who = np.full(len(made), subject, np.int64)
    first, leaf = events.write_known(connection, keys, batch, who, now)
    return [Recorded(first + i, leaf + i, subject) for i in range(len(made))]


def answer_fields(
    offer: Offer,
    action: str,
    occurred_at: Any,
    channel: str,
    method: str,
    evidence: str,
    actor: str,
    **more: Any,
) -> dict[str, Any]:
    """The fields of the event that answers an offer."""
    return {
        "purpose": offer.purpose.id,
        "purpose_version": offer.purpose.version,
        "action": action,
        "recipient": offer.recipient,
        "categories": offer.categories,
        "occurred_at": occurred_at,
        "notice": offer.notice.id,
        "notice_version": offer.notice.version,
        "regulation": offer.regulation,
        "channel": channel,
        "method": method,
        "evidence": evidence,
        "actor": actor,
        **more,
    }
