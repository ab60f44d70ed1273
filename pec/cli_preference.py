"""`pec preference`: what people want (channel, topic, caps, quiet hours), and who may be contacted now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from consent_center.client import CenterClient
from consent_center.model import KINDS
from consent_center.preferences import wire
from consent_center.preferences.client import preferences_of
from consent_center.preferences.model import (
    DAYS,
    WINDOWS,
    ZONE,
    Cap,
    Contact,
    Policy,
    Preference,
    Question,
    Quiet,
    Term,
    to_json,
)
from pec.cli_common import emit, json_option, table
from pec.consent_options import actor, document, facts, moment, open_at, short, where
from pec.errors import EXIT_FAILED, EXIT_REFUSED

KIND = click.Choice(KINDS)


@click.group()
def preference() -> None:
    """What people want, and who may be contacted: channels, topics, frequency caps, quiet hours."""


def _caps(given: tuple[str, ...], none: bool) -> tuple[Cap, ...] | None:
    caps = []
    for text in given:
        count, _, per = text.partition("/")
        if not count.isdigit() or per not in WINDOWS:
            raise click.BadParameter(f"{text!r}: write 2/day, 5/week or 10/month", param_hint="--cap")
        caps.append(Cap(int(count), per))
    return tuple(caps) if caps or none else None


def _quiet(given: tuple[str, ...], none: bool, zone: str) -> tuple[Quiet, ...] | None:
    periods = []
    for text in given:
        hours, _, days = text.partition("@")
        start, _, end = hours.partition("-")
        periods.append(Quiet(start, end, zone, tuple(days.split(",")) if days else DAYS))
    return tuple(periods) if periods or none else None


def _limits(command: Any) -> Any:
    for option in (
        click.option("--topic", default="*", show_default=True, help="A declared topic, or * for all."),
        click.option("--channel", required=True, help="A declared channel, or * for all."),
        click.option("--zone", default=ZONE, show_default=True, help="IANA time zone of hours and months."),
        click.option("--no-quiet", is_flag=True, help="No quiet hours are wanted."),
        click.option("--quiet", multiple=True, metavar="22:00-08:00[@sat,sun]", help="May be repeated."),
        click.option("--no-cap", is_flag=True, help="No frequency cap is wanted."),
        click.option("--cap", multiple=True, metavar="N/day|week|month", help="May be repeated."),
    ):
        command = option(command)
    return command


@preference.command("set")
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@_limits
@click.option("--allow/--refuse", default=None, help="Yes or no to contacts; neither: not said.")
@click.option("--pause-until", metavar="TIME", help="No contacts until then.")
@click.option("--source", default="cli", show_default=True, help="Where it was said.")
@json_option
def set_(
    location: str | None, kind: str, value: str, channel: str, topic: str, as_json: bool, **given: Any
) -> None:
    """Record what one person wants for a channel and topic; replaces what was said for them before."""
    wish = Preference(
        channel,
        topic,
        given["allow"],
        _caps(given["cap"], given["no_cap"]),
        _quiet(given["quiet"], given["no_quiet"], given["zone"]),
        moment(given["pause_until"], "--pause-until"),
        given["zone"],
        source=given["source"],
        actor=actor(),
    )
    with open_at(location) as center:
        done = preferences_of(center).set_many([(kind, value)], [wish])
    data = {"number": done.first_number, "leaf_index": done.leaves[0], "subject": done.subject}
    emit(data, as_json, lambda d: f"recorded as preference {d['number']} (ledger leaf {d['leaf_index']})")


@preference.command()
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--history", is_flag=True, help="With --json: also everything that was said before.")
@json_option
def show(location: str | None, kind: str, value: str, history: bool, as_json: bool) -> None:
    """Show what holds for one person."""
    with open_at(location) as center:
        data = wire.person_to_json(preferences_of(center).get(kind, value, history))
    columns = ("channel", "topic", "allowed", "caps", "quiet", "paused_until", "occurred_at")
    emit(data, as_json, lambda d: table(columns, [[short(p[c]) for c in columns] for p in d["preferences"]]))


@preference.command()
@where
@_limits
@click.option("--binding", is_flag=True, help="Applies whatever a person prefers.")
@click.option("--opt-in", is_flag=True, help="Contacts need the person's own yes.")
@click.option("--purpose", default="", help="Linked purpose: contacts need consent to it.")
@click.option("--recipient", default="", help="Whose consent; default: the controller.")
@click.option("--category", "categories", multiple=True, help="Default: all of the purpose.")
@json_option
def policy(location: str | None, channel: str, topic: str, as_json: bool, **given: Any) -> None:
    """Set the organisation's default for a channel and topic."""
    new = Policy(
        channel,
        topic,
        caps=_caps(given["cap"], given["no_cap"]),
        quiet=_quiet(given["quiet"], given["no_quiet"], given["zone"]),
        zone=given["zone"],
        **{name: given[name] for name in ("binding", "opt_in", "purpose", "recipient", "categories")},
    )
    with open_at(location) as center:
        emit(to_json(preferences_of(center).put_policy(new, actor())), as_json, facts)


@preference.command("list")
@where
@json_option
def list_(location: str | None, as_json: bool) -> None:
    """List policies in force, and declared channels and topics."""
    with open_at(location) as center:
        data = wire.book_to_json(preferences_of(center).rulebook())
    columns = ("channel", "topic", "version", "caps", "quiet", "binding", "opt_in", "purpose")

    def shown(d: dict[str, Any]) -> Any:
        names = {
            what: ", ".join(t["id"] for t in d[what] if t["active"]) or "-" for what in ("channels", "topics")
        }
        rows = [[short(p[c]) for c in columns] for p in d["policies"]]
        return table(columns, rows, f"channels: {names['channels']}; topics: {names['topics']}")

    emit(data, as_json, shown)


@preference.command()
@where
@click.argument("what", type=click.Choice(("channel", "topic")))
@click.argument("id_", metavar="NAME")
@click.option("--title", help="Title in English.")
@click.option("--title-zh", help="Title in Chinese.")
@click.option("--off", is_flag=True, help="No longer in use: every contact is refused.")
@json_option
def declare(
    location: str | None,
    what: str,
    id_: str,
    title: str | None,
    title_zh: str | None,
    off: bool,
    as_json: bool,
) -> None:
    """Declare a channel or a topic, or switch one off."""
    titles = {language: text for language, text in (("en", title), ("zh", title_zh)) if text} or {"en": id_}
    with open_at(location) as center:
        made = preferences_of(center).declare(Term(what, id_, titles, not off), actor())
    emit(wire.term_to_json(made), as_json, facts)


@preference.command()
@where
@click.argument("kind", type=KIND)
@click.argument("values", nargs=-1, required=True)
@click.option("--channel", required=True)
@click.option("--topic", required=True)
@click.option("--sender", required=True, help="The system that will send.")
@click.option("--purpose", default="", help="Purpose whose consent is needed, beside those of policies.")
@click.option("--recipient", default="", help="Whose consent; default: the controller.")
@click.option("--at", metavar="TIME", help="When it would be sent; default: now.")
@click.option("--reserve", metavar="CONTACT-ID", help="If allowed, take the slot (one value only).")
@json_option
def decide(location: str | None, kind: str, values: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """May these people be contacted? All reasons against, and when it would be allowed.

    The exit code is 3 when somebody may not be.
    """
    if given["reserve"] and len(values) > 1:
        raise click.UsageError("--reserve goes with one value: each contact has an id of its own")
    asked = [
        Question(
            kind,
            value,
            given["channel"],
            given["topic"],
            given["sender"],
            at=moment(given["at"], "--at"),
            purpose=given["purpose"],
            recipient=given["recipient"],
            contact_id=given["reserve"] or "",
            reserve=bool(given["reserve"]),
        )
        for value in values
    ]
    with open_at(location) as center:
        answers = preferences_of(center).decide(asked)
    told = [wire.answer_to_json(one) for one in answers]
    allowed = sum(one.allowed for one in answers)
    emit(
        {"answers": told, "allowed": allowed, "denied": len(told) - allowed},
        as_json,
        lambda d: table(
            ("", "allowed", "reasons", "next"),
            [
                (v, a["allowed"], ", ".join(r["code"] for r in a["reasons"]) or "-", a["next_at"])
                for v, a in zip(values, d["answers"], strict=True)
            ],
        ),
    )
    return 0 if allowed == len(told) else EXIT_REFUSED


@preference.command()
@where
@click.argument("kind", type=KIND, required=False)
@click.argument("value", required=False)
@click.option("--channel")
@click.option("--topic")
@click.option("--sender", help="The system that sent.")
@click.option("--contact-id", help="The sender's own id; the same again changes nothing.")
@click.option("--at", metavar="TIME", help="When it was sent; default: now.")
@click.option("--file", metavar="JSON", help="A list of contacts (`-`: standard input) instead.")
@json_option
def report(
    location: str | None, kind: str | None, value: str | None, file: str | None, as_json: bool, **given: Any
) -> int:
    """Report contacts that were made. The exit code is 1 when one could not be counted."""
    names = ("channel", "topic", "sender", "contact_id")
    if file:
        made = _contacts(document(file), file)
    elif kind and value and all(given[name] for name in names):
        at = moment(given["at"], "--at") or datetime.now(UTC)
        made = [Contact(kind=kind, value=value, at=at, **{name: given[name] for name in names})]
    else:
        raise click.UsageError("give --file, or KIND, VALUE, --channel, --topic, --sender and --contact-id")
    with open_at(location) as center:
        outcomes = _reported(center, made)
    emit(outcomes, as_json, lambda d: table(("outcome", "detail"), [(o["outcome"], o["detail"]) for o in d]))
    return 0 if all(o["outcome"] in ("recorded", "repeated") for o in outcomes) else EXIT_FAILED


def _reported(center: CenterClient, made: list[Contact]) -> list[dict[str, str]]:
    done = preferences_of(center).record_contacts(made)
    return [{"outcome": o, "detail": d} for o, d in zip(done.outcomes, done.details, strict=True)]


def _contacts(data: Any, file: str) -> list[Contact]:
    names = ("kind", "value", "channel", "topic", "sender", "contact_id", "at")
    rows = data if isinstance(data, list) else [data]
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in names):
            raise click.UsageError(f"{file}, entry {number}: give {', '.join(names)} as text")
        moment(row["at"], f"{file}, entry {number}, at")
    return [wire.contact_from_json(row) for row in rows]
