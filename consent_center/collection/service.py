"""What the center offers for collecting consent: forms, links, pages' contents and answers.

Everything takes and gives JSON-able values, so a remote center answers the same. Errors are ConsentError:
`collection.*`, `link.*`, `event.*`, `identifier.*`. Forms are in `base`, links in `sending`, pages here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from consent_center.batch import moment
from consent_center.collection import contact, links, shown, ticket
from consent_center.collection.asking import (
    Standing,
    answer_fields,
    birthday_of,
    record_known,
)
from consent_center.collection.elsewhere import answered_elsewhere
from consent_center.collection.forms import Offer, in_language, layout_hash
from consent_center.collection.sending import Sending
from consent_center.collection.tables import shown_counts
from consent_center.errors import ConsentError
from consent_center.model import Recorded
from consent_center.preferences.model import when

PAGE_CHANNEL = contact.SOURCE
_RELATIONS = ("father", "mother", "other_guardian")
DAY = 86_400_000_000


@dataclass(frozen=True)
class Collection(Sending):
    """One center's collection of consent."""

    def _on_page(
        self, connection: sa.Connection, form: dict[str, Any], subject: int, kind: str
    ) -> tuple[list[Offer], list[Offer]]:
        """(the form's offers, what the person answered elsewhere): the latter on the person's own page."""
        offers = self._offers(connection, form, subject)
        if kind != "page":
            return offers, []
        known, controller = self.room.registry(connection), self.room.controller
        return offers, answered_elsewhere(connection, known, controller, subject, form, offers)

    # ---- pages ---------------------------------------------------------------------------------------------

    def view(self, token: str, kind: str, language: str) -> dict[str, Any]:
        """All that a page shows: offers with state and ticket, and (kind page) `contact`. `link.*`."""
        with self.room.write() as connection:  # it also counts what was shown
            now = self.room.now()
            link = links.open_link(connection, self.room.keys, token, kind, now)
            form = self._form(connection, link.body["form"])
            offers, others = self._on_page(connection, form, link.subject, kind)
            if kind == "confirm":
                offers = [offer for offer in offers if offer.key == link.body["offer"]]
            if kind == "guardian":
                offers = [offer for offer in offers if offer.purpose.needs_guardian]
            layout = layout_hash(form, language)
            birthday = birthday_of(connection, link.subject)
            minor = birthday is not None and now < birthday
            given = ticket.make(
                self.room.keys,
                {
                    "for": f"{kind}:{link.name}",
                    "at": now,
                    "language": language,
                    "layout": layout,
                    "notices": {o.key: [o.notice.id, o.notice.version] for o in (*offers, *others)},
                },
            )
            shown_offers = []
            for offer in offers:
                found = self._standing(connection, link.subject, offer)
                shown_offers.append(self._shown(offer, found, language))
                if found.state != "granted":
                    self._count(connection, now, PAGE_CHANNEL, form["id"], offer, language)
            for offer in others:  # not a question of this form: nothing is counted
                found = self._standing(connection, link.subject, offer)
                shown_offers.append(self._shown(offer, found, language))
            preferences = None
            if kind == "page" and form["preferences"]:
                preferences = contact.shown(connection, self.room.keys, link.subject, language)
            return {
                "kind": kind,
                "form": form["id"],
                "title": in_language(form["title"], language)[0],
                "controller": self.room.controller,
                "language": language,
                "layout_hash": layout,
                "ticket": given,
                "expires_at": moment(link.expires_at),
                "minor": minor,
                "offers": shown_offers,
                "contact": preferences,
            }

    @staticmethod
    def _shown(offer: Offer, found: Standing, language: str) -> dict[str, Any]:
        text, text_language = in_language(offer.notice.text, language)
        return {
            "key": offer.key,
            "purpose": offer.purpose.id,
            "title": in_language(offer.purpose.title, language, offer.purpose.id)[0],
            "recipient_id": offer.recipient,
            "recipient": in_language(offer.recipient_title, language, offer.recipient)[0] or offer.recipient,
            "contact": in_language(offer.contact, language)[0],
            "categories": [
                in_language(offer.category_titles.get(name, {}), language, name)[0] or name
                for name in offer.categories
            ],
            "methods": list(offer.purpose.methods),
            "duration_days": offer.purpose.duration_days,
            "notice": offer.notice.id,
            "notice_version": offer.notice.version,
            "notice_hash": offer.notice.hash,
            "text": text,
            "text_language": text_language,
            "state": found.state,
            "since": moment(found.since) or None,
            "until": moment(found.until) or None,
            "gpc": offer.gpc,
        }

    def answer(
        self,
        token: str,
        kind: str,
        ticket_text: str,
        key: str,
        action: str,
        guardian: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """One click on a page: `grant`, `refuse` or `withdraw` the offer `key`. {changed, sequence}.

        `link.*`; `link.ticket` if the notice has changed since the page was loaded.
        """
        with self.room.write() as connection:
            now = self.room.now()
            link = links.open_link(connection, self.room.keys, token, kind, now)
            told = ticket.read(self.room.keys, ticket_text, f"{kind}:{link.name}", now)
            form = self._form(connection, link.body["form"])
            offers, others = self._on_page(connection, form, link.subject, kind)
            offer = self._answered([*offers, *others], told, key)
            if kind == "confirm" and key != link.body["offer"]:
                raise ConsentError("link.ticket", "this link confirms another consent")
            more: dict[str, Any] = {"link": link.name}
            extra: dict[str, Any] = {}
            method, actor = "explicit", "data subject"
            if kind == "confirm":
                method = "double_opt_in"
                more |= {"requested_at": link.private["requested_at"], "initiative": link.body["initiative"]}
            if kind == "guardian":
                more["guardian"] = _guardian(guardian or {}, link)
                extra["birth_date"] = date.fromisoformat(link.private["birth_date"])
                method, actor = "guardian", "guardian"
            done = self._record_answer(
                connection,
                link.subject,
                offer,
                action,
                told,
                PAGE_CHANNEL,
                method,
                actor,
                link.private.get("evidence", ""),
                more,
                extra,
                kind == "guardian",
            )
            links.use(connection, link, now)
            return done

    def _answered(self, offers: list[Offer], told: dict[str, Any], key: str) -> Offer:
        for offer in offers:
            if offer.key == key:
                if told["notices"].get(key) != [offer.notice.id, offer.notice.version]:
                    raise ConsentError("link.ticket", "the notice has changed; read it and answer again")
                return offer
        raise ConsentError("link.ticket", "that is not on offer (any more); load the page again")

    def _record_answer(
        self,
        connection: sa.Connection,
        subject: int,
        offer: Offer,
        action: str,
        told: dict[str, Any],
        channel: str,
        method: str,
        actor: str,
        note: str,
        more: dict[str, Any],
        extra: dict[str, Any],
        guardian: bool = False,
    ) -> dict[str, Any]:
        now = self.room.now()
        found = self._standing(connection, subject, offer)
        event = {
            "grant": "guardian_granted" if guardian else "granted",
            "refuse": "denied",
            "withdraw": "withdrawn",
        }
        if action not in event:
            raise ConsentError("event.action", f"{action!r} is none of {', '.join(event)}")
        if action == "withdraw" and found.state not in ("granted", "outdated"):
            action = "refuse"
        if action == "refuse" and found.state in ("granted", "outdated"):
            action = "withdraw"
        birthday = birthday_of(connection, subject)
        minor = birthday is not None and now < birthday
        if action == "grant" and not guardian and minor and offer.purpose.needs_guardian:
            raise ConsentError(
                "event.guardian", "under 14 a guardian must consent; ask for a guardian's link"
            )
        same = {"grant": "granted", "refuse": "denied", "withdraw": "withdrawn"}[action]
        complete = set(offer.categories) <= set(found.categories) and (not guardian or found.guardian)
        if found.state == same and (action != "grant" or complete):
            return {"changed": False, "sequence": found.sequence, "state": same}
        evidence = shown.compose(
            self.room.registry(connection).notices,
            (offer.notice.id, offer.notice.version),
            told["layout"],
            told["language"] if told["language"] in offer.notice.text else next(iter(offer.notice.text)),
            when(told["at"]),
            when(now),
            note,
            **more,
        )
        fields = answer_fields(offer, event[action], when(now), channel, method, evidence, actor, **extra)
        done: Recorded = record_known(
            connection,
            self.room.keys,
            self.room.registry(connection),
            self.room.controller,
            subject,
            [fields],
            now,
        )[0]
        return {"changed": True, "sequence": done.sequence, "state": same}

    # ---- contact preferences on the page -------------------------------------------------------------------

    def set_preference(
        self,
        token: str,
        ticket_text: str,
        channel: str,
        topic: str,
        choice: str,
        given: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """One click on the page about contacts (`contact.choose`). `link.*`, `preference.*`."""
        with self.room.write() as connection:
            now = self.room.now()
            link = links.open_link(connection, self.room.keys, token, "page", now)
            ticket.read(self.room.keys, ticket_text, f"page:{link.name}", now)
            done = contact.choose(
                connection, self.room.keys, link.subject, (channel, topic), choice, given or {}, now
            )
            links.use(connection, link, now)
        return done

    # ---- counting what was shown ---------------------------------------------------------------------------

    def _count(
        self, connection: sa.Connection, now: int, channel: str, form: str, offer: Offer, language: str
    ) -> None:
        key = {
            "day": (now + 8 * 3_600_000_000) // DAY,
            "channel": channel,
            "form": form,
            "purpose": offer.purpose.id,
            "recipient": offer.recipient,
            "notice": offer.notice.id,
            "notice_version": offer.notice.version,
            "language": language,
        }
        table = shown_counts
        one = table.update().where(*(table.c[name] == value for name, value in key.items()))
        if connection.execute(one.values(shown=table.c.shown + 1)).rowcount == 0:
            connection.execute(table.insert().values(shown=1, **key))


def _guardian(given: dict[str, str], link: links.Link) -> dict[str, str]:
    """The guardian's statement as evidence. `event.guardian`."""
    name, relation = given.get("name", "").strip(), given.get("relation", "")
    if not 0 < len(name) <= 200 or relation not in _RELATIONS or given.get("declared") != "yes":
        raise ConsentError("event.guardian", "the guardian's name, relation and statement are needed")
    return {
        "name": name,
        "relation": relation,
        "declared": "yes",
        "contact_checked": str(link.private["contact_checked"]),
    }
