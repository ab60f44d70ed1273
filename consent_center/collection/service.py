"""What the center offers for collecting consent: forms, links, pages' contents and answers.

Everything takes and gives JSON-able values, so a remote center answers the same. Errors are ConsentError:
`collection.*`, `link.*`, `event.*`, `identifier.*`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from consent_center.batch import LOCAL, NEVER, minor_until, moment
from consent_center.collection import contact, experiments, links, settings, shown, ticket
from consent_center.collection.asking import (
    Standing,
    answer_fields,
    birthday_of,
    may_ask,
    record_known,
    standing,
)
from consent_center.collection.elsewhere import answered_elsewhere
from consent_center.collection.forms import (
    Offer,
    in_language,
    layout_hash,
    offers_of,
    parse_form,
    parse_site,
)
from consent_center.collection.tables import shown_counts
from consent_center.errors import ConsentError
from consent_center.model import GUARDIAN_AGE, Recorded
from consent_center.preferences import store as preference_store
from consent_center.preferences.model import when
from consent_center.registry import Registry
from consent_center.room import Room

#: How long links work, in seconds: default and longest.
LIFETIMES = {
    "page": (7 * 86_400, 90 * 86_400),
    "embed": (3_600, 86_400),
    "confirm": (3 * 86_400, 30 * 86_400),
    "guardian": (14 * 86_400, 30 * 86_400),
}
PAGE_CHANNEL = contact.SOURCE
_RELATIONS = ("father", "mother", "other_guardian")
DAY = 86_400_000_000


@dataclass(frozen=True)
class Collection:
    """One center's collection of consent."""

    room: Room

    # ---- forms, sites, experiments -------------------------------------------------------------------------

    def put_form(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        """Put a form in force. `collection.form`."""
        form = parse_form(document)
        with self.room.write() as connection:
            known = self.room.registry(connection)
            for number, offer in enumerate(form["offers"]):
                purpose = known.current.get(offer["purpose"])
                if purpose is None:
                    raise ConsentError(
                        "collection.form", f"offers[{number}]: no purpose {offer['purpose']!r} is registered"
                    )
                strange = set(offer["categories"]) - set(purpose.categories)
                if strange:
                    raise ConsentError(
                        "collection.form",
                        f"offers[{number}]: {', '.join(sorted(strange))}: {purpose.id} has "
                        f"{', '.join(purpose.categories)}",
                    )
            return settings.put(connection, "form", form["id"], form, actor)

    def forms(self) -> list[dict[str, Any]]:
        with self.room.read() as connection:
            return settings.everything(connection, "form")

    def put_site(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        """Put a site in force; its key (public) stays the same for its id. `collection.site`, `.form`."""
        site = parse_site(document)
        with self.room.write() as connection:
            self._form(connection, site["form"])
            held = settings.get(connection, "site", site["id"])
            site["key"] = held["key"] if held else secrets.token_urlsafe(16)
            return settings.put(connection, "site", site["id"], site, actor)

    def sites(self) -> list[dict[str, Any]]:
        with self.room.read() as connection:
            return settings.everything(connection, "site")

    def put_experiment(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        """Start, change or (`active: false`) end an A/B of two notices. `collection.experiment`."""
        with self.room.write() as connection:
            body = experiments.parse(document, self.room.registry(connection))
            others = [
                e["id"]
                for e in settings.everything(connection, experiments.KIND)
                if e["active"] and e["purpose"] == body["purpose"] and e["id"] != body["id"]
            ]
            if body["active"] and others:
                raise ConsentError(
                    "collection.experiment", f"{others[0]} runs on {body['purpose']} already; end it first"
                )
            return settings.put(connection, experiments.KIND, body["id"], body, actor)

    def experiments(self) -> list[dict[str, Any]]:
        with self.room.read() as connection:
            return settings.everything(connection, experiments.KIND)

    @staticmethod
    def _form(connection: sa.Connection, id: str, version: int | None = None) -> dict[str, Any]:
        form = settings.get(connection, "form", id, version)
        if form is None:
            raise ConsentError("collection.unknown", f"no form {id!r} is in force; put one first")
        return form

    # ---- may the person be asked? --------------------------------------------------------------------------

    def may_ask(
        self, kind: str, value: str, purpose: str, recipient: str, regulation: str = "PIPL"
    ) -> dict[str, Any]:
        """Whether the organisation may ask this person now: {may_ask, reason, next_at}."""
        with self.room.read() as connection:
            found, valid = preference_store.ordinals_of(connection, self.room.keys, [(kind, value)])
            if not valid[0]:
                raise ConsentError(
                    "event.identifier", f"the value is no {kind} identifier; check its spelling"
                )
            subject = int(found[0]) if found[0] >= 0 else None
            known = self.room.registry(connection)
            return may_ask(
                connection,
                known,
                self.room.controller,
                subject,
                purpose,
                recipient,
                regulation,
                self.room.now(),
            ).to_json()

    # ---- links ---------------------------------------------------------------------------------------------

    def link(
        self,
        identifiers: Sequence[tuple[str, str]],
        form: str,
        kind: str = "page",
        seconds: int | None = None,
        asks: bool = False,
        actor: str = "",
    ) -> dict[str, Any]:
        """A signed link to the person's own page (`page`), or a token for the script (`embed`).

        `asks`: the organisation sends it in order to ask; refused (`collection.cooldown`) while nothing
        on the form may be asked. `collection.unknown`, `link.lifetime`, `event.identifier*`.
        """
        if kind not in ("page", "embed"):
            raise ConsentError("link.kind", f"{kind!r} is neither page nor embed")
        with self.room.write() as connection:
            document = self._form(connection, form)
            subject = preference_store.subject_for(connection, self.room.keys, identifiers)
            if asks:
                self._check_may_ask(connection, document, subject)
            body = {"form": form}
            return self._issue(connection, kind, subject, seconds, body, {}, actor)

    def revoke_links(self, kind: str, value: str, actor: str = "") -> dict[str, Any]:
        """End all open links of a person. `subject.unknown`."""
        with self.room.write() as connection:
            found, _ = preference_store.ordinals_of(connection, self.room.keys, [(kind, value)])
            if found[0] < 0:
                raise ConsentError("subject.unknown", f"no person with that {kind} is known here")
            now = self.room.now()
            ended = sum(links.revoke(connection, int(found[0]), name, now) for name in LIFETIMES)
        return {"revoked": ended, "actor": actor}

    def _issue(
        self,
        connection: sa.Connection,
        kind: str,
        subject: int,
        seconds: int | None,
        body: dict[str, Any],
        private: dict[str, Any],
        actor: str,
    ) -> dict[str, Any]:
        usual, longest = LIFETIMES[kind]
        lasting = usual if seconds is None else seconds
        if not 60 <= lasting <= longest:
            raise ConsentError("link.lifetime", f"a {kind} link lasts 60 to {longest} seconds, not {lasting}")
        token, link = links.issue(
            connection, self.room.keys, kind, subject, self.room.now(), lasting, body, private, actor
        )
        path = {"page": "/p/", "confirm": "/p/confirm/", "guardian": "/p/guardian/", "embed": ""}[kind]
        return {
            "token": token,
            "path": path + token if path else "",
            "link": link.name,
            "expires_at": moment(link.expires_at),
        }

    def _check_may_ask(self, connection: sa.Connection, form: dict[str, Any], subject: int) -> None:
        known, answers = self.room.registry(connection), []
        for offer in offers_of(form, known):
            answers.append(self._may_ask(connection, known, subject, offer))
        if not any(answer.allowed for answer in answers):
            times = [answer.next_at for answer in answers if answer.next_at != NEVER]
            reasons = ", ".join(sorted({answer.reason for answer in answers})) or "nothing on offer"
            later = f"; again from {moment(min(times))}" if times else ""
            raise ConsentError("collection.cooldown", f"the person may not be asked now ({reasons}){later}")

    def _may_ask(self, connection: sa.Connection, known: Registry, subject: int | None, offer: Offer) -> Any:
        return may_ask(
            connection,
            known,
            self.room.controller,
            subject,
            offer.purpose.id,
            offer.recipient,
            offer.regulation,
            self.room.now(),
        )

    # ---- double opt-in -------------------------------------------------------------------------------------

    def request_opt_in(
        self,
        identifiers: Sequence[tuple[str, str]],
        form: str,
        purpose: str,
        recipient: str,
        initiative: str = "organisation",
        seconds: int | None = None,
        evidence: str = "",
        actor: str = "",
    ) -> dict[str, Any]:
        """A pending consent: nothing counts until the person confirms on the link that comes back.

        `initiative`: who began, "person" or "organisation"; the latter waits for the cooldown. A new
        request for the same person ends the open ones.
        """
        if initiative not in ("organisation", "person"):
            raise ConsentError("collection.initiative", "initiative is 'person' or 'organisation'")
        if len(evidence) > 4_000:
            raise ConsentError("event.text", "evidence is over 4000 characters")
        with self.room.write() as connection:
            document = self._form(connection, form)
            subject = preference_store.subject_for(connection, self.room.keys, identifiers)
            offer = self._offer(connection, document, subject, purpose, recipient)
            known = self.room.registry(connection)
            answer = self._may_ask(connection, known, subject, offer)
            if not answer.allowed and (initiative == "organisation" or answer.reason != "cooldown"):
                raise ConsentError("collection.cooldown", f"may not be asked now: {answer.reason}")
            body = {"form": form, "offer": offer.key, "initiative": initiative}
            private = {"evidence": evidence, "requested_at": moment(self.room.now())}
            links.revoke(connection, subject, "confirm", self.room.now())
            return self._issue(connection, "confirm", subject, seconds, body, private, actor)

    def _offer(
        self, connection: sa.Connection, form: dict[str, Any], subject: int, purpose: str, recipient: str
    ) -> Offer:
        for offer in self._offers(connection, form, subject):
            if (offer.purpose.id, offer.recipient) == (purpose, recipient):
                return offer
        raise ConsentError(
            "collection.unknown", f"form {form['id']} does not offer {purpose!r} to {recipient!r} now"
        )

    def _offers(self, connection: sa.Connection, form: dict[str, Any], subject: int | None) -> list[Offer]:
        unit = b"subject\x00" + str(subject).encode()
        pick = experiments.picks(connection, self.room.keys, unit)
        return offers_of(form, self.room.registry(connection), pick)

    def _on_page(
        self, connection: sa.Connection, form: dict[str, Any], subject: int, kind: str
    ) -> tuple[list[Offer], list[Offer]]:
        """(the form's offers, what the person answered elsewhere): the latter on the person's own page."""
        offers = self._offers(connection, form, subject)
        if kind != "page":
            return offers, []
        known, controller = self.room.registry(connection), self.room.controller
        return offers, answered_elsewhere(connection, known, controller, subject, form, offers)

    # ---- guardians -----------------------------------------------------------------------------------------

    def guardian_link(
        self,
        identifiers: Sequence[tuple[str, str]],
        birth_date: date,
        form: str,
        contact_checked: str,
        seconds: int | None = None,
        actor: str = "",
    ) -> dict[str, Any]:
        """A link for the guardian of a child under 14. `contact_checked` says how it is known whose it is.

        The guardian's consent is an event of its own with this as evidence, and lapses on the birthday.
        """
        if not contact_checked.strip() or len(contact_checked) > 1_000:
            raise ConsentError(
                "event.guardian", "say how the guardian's contact was checked (1 to 1000 characters)"
            )
        birthday = minor_until(birth_date)
        today = when(self.room.now()).astimezone(LOCAL).date()
        if birth_date > today or birthday <= (today - date(1970, 1, 1)).days:
            raise ConsentError("event.guardian", f"that is no birth date of a person under {GUARDIAN_AGE}")
        with self.room.write() as connection:
            self._form(connection, form)
            subject = preference_store.subject_for(connection, self.room.keys, identifiers)
            private = {"birth_date": birth_date.isoformat(), "contact_checked": contact_checked}
            return self._issue(connection, "guardian", subject, seconds, {"form": form}, private, actor)

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

    def _standing(self, connection: sa.Connection, subject: int | None, offer: Offer) -> Standing:
        return standing(
            connection,
            self.room.registry(connection),
            self.room.controller,
            subject,
            offer.purpose.id,
            offer.recipient,
            offer.regulation,
            self.room.now(),
        )

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
