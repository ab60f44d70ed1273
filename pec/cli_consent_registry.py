"""`pec consent purpose` and `pec consent notice`: what consent is asked for, and with which text."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import click

from consent_center.model import Notice, Purpose
from pec.cli_common import CliError, emit, json_option, table
from pec.consent_options import actor, document, facts, open_at, plain, short, where

T = TypeVar("T", Purpose, Notice)


@click.group()
def purpose() -> None:
    """What consent is asked for."""


@purpose.command("put")
@where
@click.option("--file", "file", metavar="JSON", help="The purpose as JSON (`-`: standard input).")
@click.option("--id", "id_", help="Short name that never changes.")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True)
@click.option("--title", help="Title in English.")
@click.option("--title-zh", help="Title in Chinese.")
@click.option("--category", "categories", multiple=True, help="Data category; may be repeated.")
@click.option(
    "--recipient-kind", "recipient_kinds", multiple=True, help="Kind of recipient; may be repeated."
)
@click.option("--duration-days", type=click.IntRange(1), help="How long a grant lasts that names no end.")
@json_option
def purpose_put(
    location: str | None,
    file: str | None,
    id_: str | None,
    title: str | None,
    title_zh: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Register a purpose, or a new version of one."""
    if file:
        new = _built(Purpose, document(file), file)
    else:
        titles = {k: v for k, v in (("en", title), ("zh", title_zh)) if v}
        if not id_ or not titles or not given["categories"]:
            raise click.UsageError(
                "give --file, or --id, --title (or --title-zh) and at least one --category"
            )
        new = Purpose(id=id_, title=titles, **given)
    with open_at(location) as center:
        emit(plain(center.put_purpose(new, actor())), as_json, facts)


@purpose.command("list")
@where
@json_option
def purpose_list(location: str | None, as_json: bool) -> None:
    """List purposes, every version."""
    with open_at(location) as center:
        found = [plain(p) for p in center.purposes()]
    columns = ("id", "version", "active", "categories", "title")
    emit(found, as_json, lambda d: table(columns, [[short(p[c]) for c in columns] for p in d]))


def _switch(location: str | None, id_: str, active: bool, as_json: bool) -> None:
    with open_at(location) as center:
        emit(plain(center.switch_purpose(id_, active, actor())), as_json, facts)


@purpose.command("off")
@where
@click.argument("id_", metavar="PURPOSE")
@json_option
def purpose_off(location: str | None, id_: str, as_json: bool) -> None:
    """Switch a purpose off: every decision is no, running jobs stop at their next stage."""
    _switch(location, id_, False, as_json)


@purpose.command("on")
@where
@click.argument("id_", metavar="PURPOSE")
@json_option
def purpose_on(location: str | None, id_: str, as_json: bool) -> None:
    """Switch a purpose on again."""
    _switch(location, id_, True, as_json)


@click.group()
def notice() -> None:
    """The texts that people see."""


@notice.command("put")
@where
@click.option("--file", "file", metavar="JSON", help="The notice as JSON (`-`: standard input).")
@click.option("--id", "id_", help="Short name of the text.")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True)
@click.option("--purpose", "purpose_id", help="Purpose that it explains.")
@click.option("--purpose-version", type=click.IntRange(1), default=1, show_default=True)
@click.option("--text", help="The text in English.")
@click.option("--text-zh", help="The text in Chinese.")
@click.option("--minor-change", is_flag=True, help="Consent given under older versions still stands.")
@json_option
def notice_put(
    location: str | None,
    file: str | None,
    id_: str | None,
    version: int,
    purpose_id: str | None,
    purpose_version: int,
    text: str | None,
    text_zh: str | None,
    minor_change: bool,
    as_json: bool,
) -> None:
    """Register a notice, or a new version of one."""
    if file:
        new = _built(Notice, document(file), file)
    else:
        texts = {k: v for k, v in (("en", text), ("zh", text_zh)) if v}
        if not id_ or not purpose_id or not texts:
            raise click.UsageError("give --file, or --id, --purpose and --text (or --text-zh)")
        new = Notice(id_, version, purpose_id, purpose_version, texts, not minor_change)
    with open_at(location) as center:
        emit(plain(center.put_notice(new, actor())), as_json, facts)


@notice.command("list")
@where
@json_option
def notice_list(location: str | None, as_json: bool) -> None:
    """List notices, every version."""
    with open_at(location) as center:
        found = [plain(n) for n in center.notices()]
    columns = ("id", "version", "purpose", "purpose_version", "material", "hash")
    emit(found, as_json, lambda d: table(columns, [[n[c] for c in columns] for n in d]))


def _built(kind: type[T], data: Any, file: str) -> T:
    names = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(data, dict) or set(data) - set(names):
        raise CliError(
            "pec.input",
            f"{file} is not one object with the fields of a {kind.__name__.lower()}",
            f"fields: {', '.join(names)}",
        )
    try:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return kind(**fields)
    except TypeError as error:
        raise CliError("pec.input", f"{file}: {error}", f"fields: {', '.join(names)}") from error
