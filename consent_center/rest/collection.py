"""Collecting consent, for the organisation's own servers: forms, sites, links, double opt-in,
guardians, asking.
"""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema, fields
from apiflask import validators as validate
from flask import request

from consent_center.errors import ConsentError
from consent_center.model import KINDS
from consent_center.rest import schemas
from consent_center.rest.context import answer
from consent_center.rest.pages import collection
from consent_center.rest.roles import actor

bp = APIBlueprint("collection", __name__, url_prefix="/v1", tag="Collection")


def _seconds() -> Any:
    return fields.Integer(
        strict=True,
        validate=validate.Range(60, 90 * 86_400),
        metadata={"description": "How long the link works; each kind has its default and its longest."},
    )


class Document(Schema):
    document = fields.Dict(
        fields.String(validate=schemas._clean),
        required=True,
        metadata={"description": "The form, site or experiment (docs/collection.md)."},
    )
    actor = schemas.text(what="Who puts it in force.", least=0)


class Stored(Schema):
    id = fields.String()
    version = fields.Integer()
    leaf = fields.Integer(metadata={"description": "Its leaf in the ledger."})
    key = fields.String(metadata={"description": "A site's public key, for the script's tag."})


class LinkBody(schemas.Identifiers):
    form = schemas.text(what="Form that the page shows.", required=True)
    kind = fields.String(
        validate=validate.OneOf(["page", "embed"]),
        metadata={"description": "`page` (default): the hosted page. `embed`: a token for the script."},
    )
    asks = fields.Boolean(
        metadata={"description": "The organisation asks on its own initiative: refused in the cooldown."}
    )
    seconds = _seconds()
    actor = schemas.text(what="Who makes it.", least=0)


class LinkAnswer(Schema):
    token = fields.String(metadata={"description": "Secret: whoever has it acts as the person."})
    path = fields.String(metadata={"description": "Path of the page in this service."})
    url = fields.String(metadata={"description": "The page, as this request reached the service."})
    link = fields.String(metadata={"description": "Name of the link in ledger and evidence; opens nothing."})
    expires_at = fields.String()


class OptInBody(schemas.Identifiers):
    form = schemas.text(what="Form whose offer is to be confirmed.", required=True)
    purpose = schemas.text(what="Purpose.", required=True)
    recipient = schemas.text(what="Recipient.", required=True)
    initiative = fields.String(
        validate=validate.OneOf(["person", "organisation"]),
        metadata={"description": "Who began; `organisation` (default) waits for the cooldown."},
    )
    evidence = schemas.text(4_000, "Proof of the first step, kept encrypted under the person's key.", least=0)
    seconds = _seconds()
    actor = schemas.text(what="Who asks.", least=0)


class GuardianBody(schemas.Identifiers):
    form = schemas.text(what="Form that the guardian sees.", required=True)
    birth_date = fields.Date(
        required=True, validate=schemas._in_range, metadata={"description": "The child's."}
    )
    contact_checked = schemas.text(
        1_000, "How it is known that the link goes to the guardian; becomes evidence.", required=True
    )
    seconds = _seconds()
    actor = schemas.text(what="Who makes it.", least=0)


class AskBody(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    value = schemas.text(1_000, "The identifier.", required=True)
    purpose = schemas.text(what="Purpose.", required=True)
    recipient = schemas.text(what="Recipient.", required=True)
    regulation = schemas.text(what="Default `PIPL`.")


class AskAnswer(Schema):
    may_ask = fields.Boolean()
    reason = fields.String(metadata={"description": "Why, or why not: never_asked, cooldown, granted …"})
    next_at = fields.String(metadata={"description": "When waiting will have helped, or null."})


def _identifiers(data: dict[str, Any]) -> list[tuple[str, str]]:
    who = [(kind, value) for kind in KINDS for value in data.get(kind, ())]
    if not who:
        raise ConsentError("event.identifier", f"no identifier: give one of {', '.join(KINDS)}")
    return who


def _with_url(link: dict[str, Any]) -> dict[str, Any]:
    return {**link, "url": request.host_url.rstrip("/") + link["path"] if link["path"] else ""}


@bp.get("/collection/forms")
def list_forms() -> Any:
    """Forms in force."""
    return answer(collection().forms())


@bp.post("/collection/forms")
@bp.input(Document)
@bp.output(Stored)
def put_form(json_data: dict[str, Any]) -> Any:
    """Put a form in force: what is offered together. It becomes a leaf of the ledger."""
    return answer(collection().put_form(json_data["document"], actor(json_data.get("actor", ""), "rest")))


@bp.get("/collection/sites")
def list_sites() -> Any:
    """Sites that may show the script, with their public keys."""
    return answer(collection().sites())


@bp.post("/collection/sites")
@bp.input(Document)
@bp.output(Stored)
def put_site(json_data: dict[str, Any]) -> Any:
    """Allow a site to show a form: its origins, channel and rate."""
    return answer(collection().put_site(json_data["document"], actor(json_data.get("actor", ""), "rest")))


@bp.get("/collection/experiments")
def list_experiments() -> Any:
    """A/B tests of two notices."""
    return answer(collection().experiments())


@bp.post("/collection/experiments")
@bp.input(Document)
@bp.output(Stored)
def put_experiment(json_data: dict[str, Any]) -> Any:
    """Start, change or end an A/B of two notices; who sees which is a keyed hash."""
    by = actor(json_data.get("actor", ""), "rest")
    return answer(collection().put_experiment(json_data["document"], by))


@bp.post("/preference-links")
@bp.input(LinkBody)
@bp.output(LinkAnswer, status_code=201)
def make_link(json_data: dict[str, Any]) -> Any:
    """Make a signed, expiring link to a person's own preference page.

    There the person sees, grants and withdraws, one click each. The link names nobody; send it to the person.
    """
    made = collection().link(
        _identifiers(json_data),
        json_data["form"],
        json_data.get("kind", "page"),
        json_data.get("seconds"),
        bool(json_data.get("asks")),
        actor(json_data.get("actor", ""), "rest"),
    )
    return answer(_with_url(made), 201)


@bp.post("/preference-links/revoke")
@bp.input(schemas.Person)
def revoke_links(json_data: dict[str, Any]) -> Any:
    """End all open links of one person."""
    by = actor(json_data.get("actor", ""), "rest")
    return answer(collection().revoke_links(json_data["kind"], json_data["value"], by))


@bp.post("/opt-ins")
@bp.input(OptInBody)
@bp.output(LinkAnswer, status_code=201)
def request_opt_in(json_data: dict[str, Any]) -> Any:
    """Begin a double opt-in: a pending consent that counts only once the person confirms on the link."""
    made = collection().request_opt_in(
        _identifiers(json_data),
        json_data["form"],
        json_data["purpose"],
        json_data["recipient"],
        json_data.get("initiative", "organisation"),
        json_data.get("seconds"),
        json_data.get("evidence", ""),
        actor(json_data.get("actor", ""), "rest"),
    )
    return answer(_with_url(made), 201)


@bp.post("/guardian-links")
@bp.input(GuardianBody)
@bp.output(LinkAnswer, status_code=201)
def guardian_link(json_data: dict[str, Any]) -> Any:
    """Make a link for the guardian of a child under 14 (PIPL 31); what is granted there lapses on the
    birthday.
    """
    made = collection().guardian_link(
        _identifiers(json_data),
        json_data["birth_date"],
        json_data["form"],
        json_data["contact_checked"],
        json_data.get("seconds"),
        actor(json_data.get("actor", ""), "rest"),
    )
    return answer(_with_url(made), 201)


@bp.post("/may-ask")
@bp.input(AskBody)
@bp.output(AskAnswer)
def may_ask(json_data: dict[str, Any]) -> Any:
    """May this person be asked (again) now? No during the cooldown after a refusal."""
    return answer(
        collection().may_ask(
            json_data["kind"],
            json_data["value"],
            json_data["purpose"],
            json_data["recipient"],
            json_data.get("regulation", "PIPL"),
        )
    )
