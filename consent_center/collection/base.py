"""Forms, sites and experiments in force, and where one person stands on one offer."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consent_center.collection import experiments, settings
from consent_center.collection.asking import (
    Standing,
    may_ask,
    standing,
)
from consent_center.collection.forms import Offer, offers_of, parse_form, parse_site
from consent_center.errors import ConsentError
from consent_center.registry import Registry
from consent_center.room import Room


@dataclass(frozen=True)
class Offering:
    """The part of `Collection` that the others rest on."""

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

    # ---- one person and one offer --------------------------------------------------------------------------

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
