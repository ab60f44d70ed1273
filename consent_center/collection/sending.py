"""What goes out to people: whether they may be asked, links to pages, double opt-in, guardians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from consent_center.batch import LOCAL, NEVER, minor_until, moment
from consent_center.collection import links
from consent_center.collection.asking import may_ask
from consent_center.collection.base import Offering
from consent_center.collection.forms import offers_of
from consent_center.errors import ConsentError
from consent_center.model import GUARDIAN_AGE
from consent_center.preferences import store as preference_store
from consent_center.preferences.model import when

#: How long links work, in seconds: default and longest.
LIFETIMES = {
    "page": (7 * 86_400, 90 * 86_400),
    "embed": (3_600, 86_400),
    "confirm": (3 * 86_400, 30 * 86_400),
    "guardian": (14 * 86_400, 30 * 86_400),
}


@dataclass(frozen=True)
class Sending(Offering):
    """The part of `Collection` that makes links."""

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
