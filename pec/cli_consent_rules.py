"""`pec consent rules check|dry-run|apply|show` and `pec consent region`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import click

from consent_center.model import KINDS
from consent_center.rules.client import rules_of
from pec.cli_common import CliError, console, emit, json_option, table
from pec.consent_options import actor, facts, open_at, short, where


@click.group()
def rules() -> None:
    """Rules of the house: deny, allow, limit by purpose, recipient, region, category, time."""


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError("pec.input", f"{file} can't be read: {error}", "give a TOML file in UTF-8") from error


@rules.command()
@where
@click.argument("file", type=click.Path())
@json_option
def check(location: str | None, file: str, as_json: bool) -> None:
    """Check a rule file (`-`: standard input); an error names the line."""
    with open_at(location) as center:
        told = rules_of(center).check(_read(file))

    def render(d: dict[str, Any]) -> Any:
        for warning in d["warnings"]:
            console().print(f"warning: {warning}", markup=False)
        return _rules(d["rules"])

    emit(told, as_json, render)


@rules.command("dry-run")
@where
@click.argument("file", type=click.Path())
@click.option(
    "--sample", type=click.IntRange(0, 1_000), default=20, show_default=True, help="Row numbers to list."
)
@json_option
def dry_run(location: str | None, file: str, sample: int, as_json: bool) -> None:
    """Show who would change if FILE were in force. Nothing is put in force."""
    with open_at(location) as center:
        told = rules_of(center).dry_run(_read(file), sample)

    def render(d: dict[str, Any]) -> Any:
        rows = [
            (
                c["purpose"],
                c["recipient"],
                c["category"],
                c["before"]["in"],
                c["after"]["in"],
                short(c["sample"]),
            )
            for c in d["changes"]
        ]
        console().print(table(("purpose", "recipient", "category", "in now", "in then", "sample"), rows))
        return f"people refused more: {d['people_blocked']}, less: {d['people_freed']}; base: {d['base']}"

    emit(told, as_json, render)


@rules.command("apply")
@where
@click.argument("file", type=click.Path())
@click.option(
    "--base", default="", metavar="HASH", help="Base of the dry run: other rules meanwhile are refused."
)
@json_option
def apply_(location: str | None, file: str, base: str, as_json: bool) -> None:
    """Put FILE in force from the next decision on; an empty file means no rules."""
    with open_at(location) as center:
        emit(rules_of(center).apply(_read(file), actor(), base), as_json, facts)


@rules.command()
@where
@json_option
def show(location: str | None, as_json: bool) -> None:
    """Show the rules in force."""
    with open_at(location) as center:
        told = rules_of(center).show()
    emit(told, as_json, lambda d: _rules(d["rules"]) if d["rules"] else "no rules are in force")


def _rules(listed: list[dict[str, Any]]) -> Any:
    columns = ("id", "effect", "purposes", "recipients", "categories", "regions", "reason")
    return table(columns, [[short(rule.get(c, "")) for c in columns] for rule in listed])


@click.command()
@where
@click.argument("file", type=click.Path())
@json_option
def region(location: str | None, file: str, as_json: bool) -> None:
    """Say where known people are: CSV with the columns kind, value, region (CN, or CN-31)."""
    rows = list(csv.DictReader(_read(file).splitlines()))
    missing = {"kind", "value", "region"} - set(rows[0] if rows else {})
    if missing or any(row["kind"] not in KINDS for row in rows):
        raise CliError(
            "pec.input", f"{file} needs the columns kind, value, region", f"kind is one of {', '.join(KINDS)}"
        )
    people = [(row["kind"], row["value"], row["region"]) for row in rows]
    with open_at(location) as center:
        parts = [rules_of(center).set_regions(people[i : i + 10_000]) for i in range(0, len(people), 10_000)]
    told = {name: sum(part[name] for part in parts) for name in ("set", "unknown")}
    emit(told, as_json, facts)
