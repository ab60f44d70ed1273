"""What the embedded script may ask of the center: no token, a site's public key, an allowed origin.

A visitor is known by a random id that its own browser drew (never by a telephone number or anything that
others could know), or by a token that the site's server got for a person who is logged in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consent_center.batch import moment
from consent_center.collection import experiments, links, settings, ticket
from consent_center.collection.forms import Offer, layout_hash, offers_of
from consent_center.collection.service import Collection
from consent_center.collection.texts import TEXTS
from consent_center.errors import ConsentError
from consent_center.preferences import store as preference_store
from consent_center.room import Room

#: At least 128 random bits in base64url.
_VISITOR = re.compile(r"[A-Za-z0-9_-]{22,64}")
_ACTIONS = ("grant", "refuse", "withdraw")
_SCRIPT_TEXTS = (
    *(
        "banner_title",
        "banner_intro",
        "agree",
        "refuse",
        "withdraw",
        "later",
        "close",
        "gpc",
        "notice",
        "recipient",
    ),
    *(
        "categories",
        "state",
        "none",
        "granted",
        "outdated",
        "expired",
        "denied",
        "withdrawn",
        "saved",
        "contact",
    ),
    *("minor", "method"),
)


@dataclass(frozen=True)
class Site:
    """A site in force, as a request named it."""

    id: str
    form: str
    origins: tuple[str, ...]
    channel: str
    per_minute: int


@dataclass(frozen=True)
class PublicCollection:
    """The script's side of `Collection`."""

    room: Room

    def site(self, key: str) -> Site:
        """The site with that public key. `collection.unknown` (also for one that is switched off)."""
        with self.room.read() as connection:
            for site in settings.everything(connection, "site"):
                if site["key"] == key and site["active"]:
                    return Site(
                        site["id"], site["form"], tuple(site["origins"]), site["channel"], site["per_minute"]
                    )
        raise ConsentError("collection.unknown", "no site with that key is in use")

    def form(self, site: Site, visitor: str, person: str, language: str, gpc: bool) -> dict[str, Any]:
        """What the script shows: offers with state and ticket, texts, and whether it may ask."""
        with self.room.read() as connection:
            now = self.room.now()
            subject, unit, audience = self._who(connection, site, visitor, person)
            form = Collection._form(connection, site.form)
            offers = self._offers(connection, form, unit)
            service, known = Collection(self.room), self.room.registry(connection)
            shown_offers = []
            for offer in offers:
                found = service._standing(connection, subject, offer)
                asked = service._may_ask(connection, known, subject, offer)
                shown_offers.append(
                    {
                        **Collection._shown(offer, found, language),
                        "ask": asked.allowed and not (gpc and offer.gpc),
                        "reason": "gpc" if gpc and offer.gpc and asked.allowed else asked.reason,
                        "next_at": moment(asked.next_at) or None,
                    }
                )
            given = {
                "for": audience,
                "at": now,
                "language": language,
                "layout": layout_hash(form, language),
                "notices": {o.key: [o.notice.id, o.notice.version] for o in offers},
            }
            return {
                "form": form["id"],
                "controller": self.room.controller,
                "language": language,
                "layout_hash": given["layout"],
                "ticket": ticket.make(self.room.keys, given),
                "gpc": gpc,
                "ask": any(offer["ask"] for offer in shown_offers),
                "offers": shown_offers,
                "texts": {name: TEXTS[language][name] for name in _SCRIPT_TEXTS},
            }

    def shown(
        self, site: Site, visitor: str, person: str, ticket_text: str, keys: list[str]
    ) -> dict[str, Any]:
        """Count that those offers were shown: a number a day, without the visitor."""
        with self.room.write() as connection:
            now = self.room.now()
            _, unit, audience = self._who(connection, site, visitor, person)
            told = ticket.read(self.room.keys, ticket_text, audience, now)
            form, counted = Collection._form(connection, site.form), 0
            for offer in self._offers(connection, form, unit):
                if offer.key in keys and offer.key in told["notices"]:
                    Collection(self.room)._count(
                        connection, now, site.channel, form["id"], offer, told["language"]
                    )
                    counted += 1
        return {"counted": counted}

    def answer(
        self,
        site: Site,
        visitor: str,
        person: str,
        ticket_text: str,
        answers: dict[str, str],
        gpc: bool,
        own_initiative: bool,
    ) -> dict[str, Any]:
        """Record answers, each its own event. {results: {key: {changed, state, ...}}}.

        While `Sec-GPC` is set, a grant of an offer that honours it becomes a refusal; while the cooldown
        runs, a grant counts only if the person began (opened the choices again).
        """
        if not 0 < len(answers) <= 50 or not set(answers.values()) <= set(_ACTIONS):
            raise ConsentError("event.action", f"answers are {', '.join(_ACTIONS)} by offer, at most 50")
        with self.room.write() as connection:
            now = self.room.now()
            subject, unit, audience = self._who(connection, site, visitor, person)
            told = ticket.read(self.room.keys, ticket_text, audience, now)
            form = Collection._form(connection, site.form)
            offers = self._offers(connection, form, unit)
            if subject is None:
                named = [("opaque", _pseudo(site, visitor))]
                subject = preference_store.subject_for(connection, self.room.keys, named)
            service, results = Collection(self.room), {}
            for key, action in sorted(answers.items()):
                offer = service._answered(offers, told, key)
                method = "explicit"
                if gpc and offer.gpc and action == "grant":
                    action, method = "refuse", "gpc"
                elif gpc and offer.gpc:
                    method = "gpc"
                if action == "grant" and not own_initiative:
                    asked = service._may_ask(connection, self.room.registry(connection), subject, offer)
                    if not asked.allowed and asked.reason == "cooldown":
                        raise ConsentError(
                            "collection.cooldown", f"may not be asked before {moment(asked.next_at)}"
                        )
                results[key] = service._record_answer(
                    connection,
                    subject,
                    offer,
                    action,
                    told,
                    site.channel,
                    method,
                    "data subject",
                    "",
                    {"site": site.id, "gpc": gpc},
                    {},
                )
                results[key]["method"] = method
        return {"results": results}

    def identifiers(self, site: Site, visitor: str) -> tuple[tuple[str, str], ...]:
        """The visitor as an event names it, for signals. `collection.visitor`."""
        if not _VISITOR.fullmatch(visitor):
            raise ConsentError(
                "collection.visitor", "visitor must be 22 to 64 characters of base64url, drawn at random"
            )
        return (("opaque", _pseudo(site, visitor)),)

    def _who(
        self, connection: sa.Connection, site: Site, visitor: str, person: str
    ) -> tuple[int | None, bytes, str]:
        """(ordinal if known, unit for experiments, audience of tickets)."""
        if person:
            link = links.open_link(connection, self.room.keys, person, "embed", self.room.now())
            unit = b"subject\x00" + str(link.subject).encode()
            return link.subject, unit, f"embed:{site.id}:{link.name}"
        named = self.identifiers(site, visitor)
        found, _ = preference_store.ordinals_of(connection, self.room.keys, list(named))
        subject = int(found[0]) if found[0] >= 0 else None
        return subject, named[0][1].encode(), f"site:{site.id}:{visitor}"

    def _offers(self, connection: sa.Connection, form: dict[str, Any], unit: bytes) -> list[Offer]:
        pick = experiments.picks(connection, self.room.keys, unit)
        return offers_of(form, self.room.registry(connection), pick)


def _pseudo(site: Site, visitor: str) -> str:
    return f"web:{site.id}:{visitor}"
