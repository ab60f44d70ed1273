"""What one person answered that a form does not offer: a page about the person shows it all the same, so that
consent given in a shop, by telephone or under an older form can be seen and withdrawn in one place.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.collection.forms import Offer, newest_notice
from consent_center.registry import Registry


def answered_elsewhere(
    connection: sa.Connection,
    registry: Registry,
    controller: str,
    subject: int,
    form: dict[str, Any],
    offered: list[Offer],
) -> list[Offer]:
    """The person's other answers as offers, by purpose and recipient. Assumed consent is nobody's answer.

    Left out is a purpose that is off, or whose current version has no notice: then nothing is used, and there
    is no text that could be shown beside a question.
    """
    context, state, described = db.contexts, db.states, db.descriptors
    query = (
        sa.select(
            context.c.purpose, context.c.recipient, context.c.regulation, state.c.explicit, described.c.body
        )
        .join(context, context.c.id == state.c.context)
        .join(described, described.c.id == state.c.descriptor)
        .where(state.c.subject == subject, context.c.controller == controller)
    )
    keys, found = {offer.key for offer in offered}, list[Offer]()
    for row in connection.execute(query):
        purpose = registry.current.get(row.purpose)
        if not row.explicit or purpose is None or not purpose.active:
            continue
        body = json.loads(row.body)
        notice = newest_notice(registry, purpose, body["notice"]) or newest_notice(registry, purpose)
        if notice is None:
            continue
        about = form["recipients"].get(row.recipient, {})
        categories = tuple(c for c in body["categories"] if c in purpose.categories) or purpose.categories
        offer = Offer(
            len(offered) + len(found),
            purpose,
            row.recipient,
            about.get("title", {}),
            about.get("contact", {}),
            categories,
            row.regulation,
            notice,
            True,
            form["categories"],
        )
        if offer.key not in keys:
            found.append(offer)
    return sorted(found, key=lambda offer: (offer.purpose.id, offer.recipient, offer.regulation))
