"""`pec consent notice draft|drafts|discard|preview|publish|diff` and `pec consent reconsent`."""

from __future__ import annotations

from typing import Any

import click

from consent_center.notices.client import notices_of
from pec.cli_common import console, emit, json_option, table
from pec.cli_consent_registry import notice
from pec.consent_options import actor, document, facts, open_at, short, where


@notice.command("draft")
@where
@click.argument("file", type=click.Path())
@json_option
def draft(location: str | None, file: str, as_json: bool) -> None:
    """Keep a draft of a notice from a JSON file (`-`: standard input); nothing changes until it is
    published.
    """
    with open_at(location) as center:
        emit(notices_of(center).draft(document(file), actor()), as_json, facts)


@notice.command("drafts")
@where
@json_option
def drafts(location: str | None, as_json: bool) -> None:
    """List drafts of notices."""
    with open_at(location) as center:
        found = notices_of(center).drafts()
    columns = ("id", "purpose", "material", "changes", "updated_at", "actor")
    emit(found, as_json, lambda d: table(columns, [[short(e[c]) for c in columns] for e in d]))


@notice.command("discard")
@where
@click.argument("id_", metavar="NOTICE")
@json_option
def discard(location: str | None, id_: str, as_json: bool) -> None:
    """Drop a draft."""
    with open_at(location) as center:
        notices_of(center).discard(id_)
    emit({"discarded": id_}, as_json, lambda d: f"draft of {d['discarded']} dropped")


@notice.command("preview")
@where
@click.argument("id_", metavar="NOTICE")
@json_option
def preview(location: str | None, id_: str, as_json: bool) -> None:
    """Show what publishing a draft would change, and how many people would be asked again."""
    with open_at(location) as center:
        told = notices_of(center).preview(id_)
    emit(told, as_json, _preview)


@notice.command("publish")
@where
@click.argument("id_", metavar="NOTICE")
@click.option("--base", default="", metavar="HASH", help="Hash of the draft that was previewed.")
@json_option
def publish(location: str | None, id_: str, base: str, as_json: bool) -> None:
    """Publish a draft. A change of purpose, method or category outdates the consent given before."""
    with open_at(location) as center:
        told = notices_of(center).publish(id_, actor(), base)
    emit(told, as_json, lambda d: _published(d))


@notice.command("diff")
@where
@click.argument("id_", metavar="NOTICE")
@click.argument("old", type=click.IntRange(1))
@click.argument("new", type=click.IntRange(1))
@json_option
def diff(location: str | None, id_: str, old: int, new: int, as_json: bool) -> None:
    """Show what changed between two versions of a notice, in words and in meaning."""
    with open_at(location) as center:
        told = notices_of(center).diff(id_, old, new)
    emit(told, as_json, _difference)


@click.command()
@where
@click.argument("purpose")
@click.option("--list", "limit", type=click.IntRange(0, 10_000), default=0, help="Also so many row numbers.")
@click.option("--from", "start", type=click.IntRange(0), default=0, help="List from this row number on.")
@json_option
def reconsent(location: str | None, purpose: str, limit: int, start: int, as_json: bool) -> None:
    """Who must be asked again for PURPOSE: people whose consent is to an older version."""
    with open_at(location) as center:
        told = notices_of(center).reconsent(purpose, start, limit)

    def render(d: dict[str, Any]) -> Any:
        columns = ("recipient", "regulation", "purpose_version", "notice", "notice_version", "count")
        console().print(table(columns, [[g[c] for c in columns] for g in d["groups"]]))
        for ordinal in d["ordinals"]:
            console().print(ordinal)
        return f"people to ask again: {d['people']}"

    emit(told, as_json, render)


def _difference(told: dict[str, Any] | None) -> Any:
    if told is None:
        return "the first version of this notice"
    rows = [(e["aspect"], e["field"], short(e["old"]), short(e["new"])) for e in told["meaning"]]
    if rows:
        console().print(table(("changed", "field", "old", "new"), rows))
    for language, lines in told["texts"].items():
        console().print(f"[{language}]", markup=False)
        for line in lines:
            console().print(line, markup=False, highlight=False)
    return "consent under the old one is outdated" if told["outdates"] else "consent under the old one stands"


def _preview(told: dict[str, Any]) -> Any:
    console().print(_difference(told["diff"]), markup=False)
    for language in told["missing_languages"]:
        console().print(f"missing language: {language}")
    return f"people asked again: {told['asked_again']} (before: {told['asked_again_already']}); " + (
        f"hash of the draft: {told['draft']['hash']}"
    )


def _published(told: dict[str, Any]) -> str:
    notice_, purpose = told["notice"], told["purpose"]
    return (
        f"published: {notice_['id']} version {notice_['version']} for {purpose['id']} version "
        f"{purpose['version']}; people to ask again: {told['asked_again']}"
    )
