"""`pec consent form|site|experiment|link|opt-in|guardian-link|may-ask`: collecting consent."""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from consent_center.collection.client import collection_of
from consent_center.model import KINDS
from pec.cli_common import emit, json_option, table
from pec.consent_options import actor, document, facts, open_at, short, where
from pec.errors import EXIT_REFUSED

KIND = click.Choice(KINDS)


def _documents(name: str, columns: tuple[str, ...], help_: str) -> click.Group:
    """The group of one kind of document: `put FILE` and `list`."""

    @click.group(name, help=help_)
    def group() -> None: ...

    @group.command("put", help=f"Put a {name} in force, or a new version of one (`-`: standard input).")
    @where
    @click.argument("file", type=click.Path())
    @json_option
    def put(location: str | None, file: str, as_json: bool) -> None:
        with open_at(location) as center:
            method = getattr(collection_of(center), f"put_{name}")
            emit(method(document(file), actor()), as_json, facts)

    @group.command("list", help=f"List the {name}s in force.")
    @where
    @json_option
    def list_(location: str | None, as_json: bool) -> None:
        with open_at(location) as center:
            found = getattr(collection_of(center), f"{name}s")()
        emit(found, as_json, lambda d: table(columns, [[short(e[c]) for c in columns] for e in d]))

    return group


form = _documents(
    "form",
    ("id", "version", "offers", "cooldown_days"),
    "What is offered together.",
)
site = _documents("site", ("id", "key", "form", "origins", "active"), "Where the script may show a form.")
experiment = _documents("experiment", ("id", "purpose", "a", "b", "share", "active"), "A/B of two notices.")

_base = click.option(
    "--base", default="http://127.0.0.1:8900", show_default=True, help="Where people reach the service."
)
_days = click.option("--days", type=click.IntRange(1, 90), help="How long the link works.")


def _emit(made: dict[str, Any], base: str, as_json: bool) -> None:
    data = {**made, "url": base.rstrip("/") + made["path"] if made["path"] else ""}
    emit(data, as_json, lambda d: d["url"] or d["token"])


@click.command()
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--form", "form_id", required=True, help="Form that the page shows.")
@click.option("--embed", is_flag=True, help="A token for the script instead of a page.")
@click.option("--asks", is_flag=True, help="The organisation asks: refused in the cooldown after a refusal.")
@click.option("--revoke", is_flag=True, help="End the person's open links first.")
@_days
@_base
@json_option
def link(
    location: str | None,
    kind: str,
    value: str,
    form_id: str,
    embed: bool,
    asks: bool,
    revoke: bool,
    days: int | None,
    base: str,
    as_json: bool,
) -> None:
    """Make a signed, expiring link to one person's preference page. Whoever has it acts as that person."""
    with open_at(location) as center:
        collection = collection_of(center)
        if revoke:
            collection.revoke_links(kind, value, actor())
        seconds = None if days is None else days * 86_400
        made = collection.link([(kind, value)], form_id, "embed" if embed else "page", seconds, asks, actor())
    _emit(made, base, as_json)


@click.command("opt-in")
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--form", "form_id", required=True)
@click.option("--purpose", "purpose_id", required=True)
@click.option("--recipient", required=True)
@click.option("--person-began", is_flag=True, help="The person asked for it: no cooldown.")
@click.option("--evidence", default="", help="Proof of the first step, kept encrypted.")
@_days
@_base
@json_option
def opt_in(
    location: str | None,
    kind: str,
    value: str,
    form_id: str,
    purpose_id: str,
    recipient: str,
    person_began: bool,
    evidence: str,
    days: int | None,
    base: str,
    as_json: bool,
) -> None:
    """Begin a double opt-in: nothing counts until the person confirms on the link."""
    with open_at(location) as center:
        made = collection_of(center).request_opt_in(
            [(kind, value)],
            form_id,
            purpose_id,
            recipient,
            "person" if person_began else "organisation",
            None if days is None else days * 86_400,
            evidence,
            actor(),
        )
    _emit(made, base, as_json)


@click.command("guardian-link")
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--form", "form_id", required=True)
@click.option("--birth-date", required=True, metavar="YYYY-MM-DD", help="The child's.")
@click.option("--checked", required=True, help="How it is known that the link goes to the guardian.")
@_days
@_base
@json_option
def guardian_link(
    location: str | None,
    kind: str,
    value: str,
    form_id: str,
    birth_date: str,
    checked: str,
    days: int | None,
    base: str,
    as_json: bool,
) -> None:
    """Make a link on which the guardian of a child under 14 consents. KIND and VALUE are the child's."""
    try:
        born = date.fromisoformat(birth_date)
    except ValueError as error:
        raise click.BadParameter("write YYYY-MM-DD", param_hint="--birth-date") from error
    with open_at(location) as center:
        seconds = None if days is None else days * 86_400
        made = collection_of(center).guardian_link([(kind, value)], born, form_id, checked, seconds, actor())
    _emit(made, base, as_json)


@click.command("may-ask")
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--purpose", "purpose_id", required=True)
@click.option("--recipient", required=True)
@json_option
def may_ask(
    location: str | None, kind: str, value: str, purpose_id: str, recipient: str, as_json: bool
) -> int:
    """May this person be asked (again) now? Exit code 3 when not."""
    with open_at(location) as center:
        told = collection_of(center).may_ask(kind, value, purpose_id, recipient)
    emit(told, as_json, facts)
    return 0 if told["may_ask"] else EXIT_REFUSED


COMMANDS = (form, site, experiment, link, opt_in, guardian_link, may_ask)
