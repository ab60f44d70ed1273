"""`pec consent record-keeping`: processing register, agreements, assessments, reminders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from consent_center.model import Assessment
from consent_center.records import export as exports
from consent_center.records.client import records_of
from consent_center.records.model import FIELDS, KINDS, REMIND_DAYS
from consent_center.registry import UNASSESSED
from pec.cli_common import CliError, emit, json_option, table
from pec.consent_options import actor, document, facts, open_at, short, where
from pec.errors import EXIT_FAILED


@click.group()
def register() -> None:
    """Records that the law asks for: processing register, agreements, assessments."""


@register.command("put")
@where
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("id_", metavar="ID")
@click.option("--file", "file", required=True, metavar="JSON", help="The fields (`-`: standard input).")
@json_option
def put(location: str | None, kind: str, id_: str, file: str, as_json: bool) -> None:
    """Enter a record, or a new version of one; `pec consent register fields` says what it has."""
    with open_at(location) as center:
        emit(records_of(center).put(kind, id_, document(file), actor()), as_json, facts)


@register.command("fields")
@click.argument("kind", type=click.Choice(list(FIELDS)))
@json_option
def fields(kind: str, as_json: bool) -> None:
    """Show what a record of a kind has, and which article asks for it."""
    data = [dataclasses.asdict(field) for field in FIELDS[kind]]
    columns = ("name", "zh", "en", "source", "kind", "required")
    emit(data, as_json, lambda d: table(columns, [[f[c] for c in columns] for f in d]))


@register.command("list")
@where
@click.argument("kind", type=click.Choice(list(FIELDS)))
@json_option
def list_(location: str | None, kind: str, as_json: bool) -> None:
    """List the records of a kind, the newest version of each."""
    with open_at(location) as center:
        data = records_of(center).listing(kind)
    columns = ("id", "version", *(f.name for f in FIELDS[kind] if f.required or f.lapses))
    emit(data, as_json, lambda d: table(columns, [[short(r.get(c)) for c in columns] for r in d]))


@register.command("export")
@where
@click.argument("kind", type=click.Choice(list(FIELDS)))
@click.option("--out", "-o", type=click.Path(), required=True, help="Where to write it.")
@click.option("--form", type=click.Choice(exports.FORMATS), default="csv", show_default=True)
@click.option("--language", type=click.Choice(exports.LANGUAGES), default="zh", show_default=True)
@json_option
def export(location: str | None, kind: str, out: str, form: str, language: str, as_json: bool) -> None:
    """Export a register as CSV, JSON or a page."""
    target = Path(out)
    if target.exists():
        raise CliError("pec.file", f"{out} exists already", "choose another name")
    with open_at(location) as center:
        text = records_of(center).export(kind, form, language)
    target.write_text(text, encoding="utf-8", newline="")
    emit({"file": out, "kind": kind, "form": form}, as_json, facts)


@click.group()
def assessment() -> None:
    """Impact assessments (PIPL 55)."""


@assessment.command("put")
@where
@click.argument("id_", metavar="ID")
@click.option("--purpose", required=True)
@click.option("--recipient", default="", help="For which recipient; default: all.")
@click.option("--reference", required=True, help="Where the report is kept.")
@click.option("--sha256", "hash_", default="", help="SHA-256 of the report, in hex.")
@click.option("--approved-on", default="", metavar="YYYY-MM-DD")
@click.option("--valid-until", default="", metavar="YYYY-MM-DD", help="Reminders come before it.")
@click.option("--withdrawn", is_flag=True, help="It is in force no more.")
@json_option
def assessment_put(
    location: str | None, id_: str, hash_: str, withdrawn: bool, as_json: bool, **given: Any
) -> None:
    """Register an impact assessment's reference, or change one."""
    made = Assessment(id=id_, hash=hash_, status="withdrawn" if withdrawn else "in_force", **given)
    with open_at(location) as center:
        emit(dataclasses.asdict(center.put_assessment(made, actor())), as_json, facts)


@assessment.command("require")
@where
@click.option("--off", is_flag=True, help="Jobs need none any more.")
@json_option
def require(location: str | None, off: bool, as_json: bool) -> None:
    """A job for another organisation needs an assessment in force; so it is in every new center."""
    with open_at(location) as center:
        emit({"required": center.require_assessments(not off, actor())}, as_json, facts)


@assessment.command("status")
@where
@json_option
def status(location: str | None, as_json: bool) -> int:
    """Whether a job for another organisation needs an assessment. Exit code 1 when it does not."""
    with open_at(location) as center:
        required = center.assessments_required()
    emit({"required": required, "warning": UNASSESSED.get(required, "")}, as_json, facts)
    return 0 if required else EXIT_FAILED


@click.command()
@where
@click.option(
    "--within", "within_days", default=REMIND_DAYS, show_default=True, type=click.IntRange(0, 3_660)
)
@click.option("--send", is_flag=True, help="Also tell the webhooks that subscribe to `record.reminder`.")
@json_option
def reminders(location: str | None, within_days: int, send: bool, as_json: bool) -> int:
    """Show what lapses soon or has lapsed. Exit code 1 when something has lapsed."""
    with open_at(location) as center:
        records = records_of(center)
        data = records.reminders(within_days)
        if send:
            records.remind(within_days)
    columns = ("record", "id", "due", "days_left", "lapsed")
    emit(data, as_json, lambda d: table(columns, [[r[c] for c in columns] for r in d]))
    return EXIT_FAILED if any(entry["lapsed"] for entry in data) else 0


COMMANDS = (register, assessment, reminders)
