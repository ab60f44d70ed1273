"""`pec consent request`: people's requests about their data, from intake to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from consent_center.model import KINDS as IDENTIFIER_KINDS
from consent_center.requests.client import rights_of
from consent_center.requests.clock import DEFAULTS, NEAR_DAYS, ClockRule
from consent_center.requests.correction import ACTIONS
from consent_center.requests.model import GROUNDS, KINDS, LANGUAGES, LETTERS, METHODS, REGULATIONS
from pec.cli_common import CliError, console, emit, json_option, note, table
from pec.consent_options import actor, facts, moment, open_at, short, where
from pec.errors import EXIT_FAILED

IDENTIFIER = click.Choice(IDENTIFIER_KINDS)


@click.group()
def request() -> None:
    """Requests of people: access, copy, portability, correction, deletion, restriction, explanation."""


def _shown(data: dict[str, Any]) -> Any:
    tasks = ", ".join(f"{t['name']}{' (done)' if t['done_at'] else ''}" for t in data["tasks"])
    names = (
        "id",
        "kind",
        "articles",
        "regulation",
        "state",
        "standing",
        "due",
        "days_left",
        "method",
        "outcome",
    )
    rows = [(name.replace("_", " "), short(data.get(name))) for name in names]
    rows += [("tasks", tasks), ("possible", ", ".join(data["possible"]))]
    return table(("", ""), rows)


@request.command("open")
@where
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("identifier_kind", type=IDENTIFIER)
@click.argument("value")
@click.option(
    "--with", "more", type=(IDENTIFIER, str), multiple=True, help="A further identifier of the person."
)
@click.option("--regulation", type=click.Choice(REGULATIONS), default="PIPL", show_default=True)
@click.option("--language", type=click.Choice(LANGUAGES), default="zh", show_default=True)
@click.option("--channel", default="cli", show_default=True, help="How it came in.")
@click.option("--contact", default="", help="How to reach the person; sealed.")
@click.option("--text", default="", help="What was asked, in the person's words; sealed.")
@click.option("--received", "received_at", metavar="TIME", help="When it came in; default: now.")
@json_option
def open_(
    location: str | None,
    kind: str,
    identifier_kind: str,
    value: str,
    more: tuple[tuple[str, str], ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Take in a request. The answer does not tell whether the person is known."""
    given["received_at"] = moment(given["received_at"], "--received")
    with open_at(location) as center:
        data = rights_of(center).open(kind, [(identifier_kind, value), *more], actor=actor(), **given)
    emit(data, as_json, _shown)


@request.command("list")
@where
@click.option("--all", "everything", is_flag=True, help="Also those that are done.")
@json_option
def list_(location: str | None, everything: bool, as_json: bool) -> None:
    """List requests, the most urgent first."""
    with open_at(location) as center:
        data = rights_of(center).list(not everything)
    columns = ("id", "kind", "regulation", "state", "standing", "due", "days_left", "assigned_to")
    emit(data, as_json, lambda d: table(columns, [[r[c] for c in columns] for r in d]))


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.option("--private", is_flag=True, help="Also what names the person.")
@json_option
def show(location: str | None, id_: str, private: bool, as_json: bool) -> None:
    """Show one request with its steps."""
    with open_at(location) as center:
        data = rights_of(center).show(id_, private)

    def render(d: dict[str, Any]) -> Any:
        console().print(_shown(d))
        columns = ["at", "step", "state", "actor", "data", *(["private"] if private else [])]
        return table(columns, [[short(s[c]) for c in columns] for s in d["steps"]])

    emit(data, as_json, render)


def _step(location: str | None, id_: str, name: str, as_json: bool, **given: Any) -> None:
    with open_at(location) as center:
        data = rights_of(center).step(
            id_, name, actor(), **{k: v for k, v in given.items() if v not in (None, "")}
        )
    emit(data, as_json, _shown)


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.option("--method", type=click.Choice(METHODS), help="How the person showed who they are.")
@click.option("--evidence", help="What was seen; sealed.")
@click.option("--failed", is_flag=True, help="The check failed; the person may try again.")
@click.option("--asked", is_flag=True, help="The person was asked for a proof; nothing was seen yet.")
@json_option
def identity(location: str | None, id_: str, as_json: bool, failed: bool, asked: bool, **given: Any) -> None:
    """Note the identity check. Before it has passed, nothing is disclosed or done."""
    if failed and asked:
        raise click.UsageError("give --failed or --asked, not both")
    if not failed and not asked and not (given["method"] and given["evidence"]):
        raise click.UsageError("a check that passed needs --method and --evidence")
    if failed or asked:
        given = {"text": given["evidence"]}
    _step(
        location,
        id_,
        "identity.fail" if failed else "identity.ask" if asked else "identity.pass",
        as_json,
        **given,
    )


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.argument("name")
@click.option("--add", is_flag=True, help="A further task.")
@click.option("--skip", "reason", help="Leave it out, and why.")
@json_option
def task(location: str | None, id_: str, name: str, add: bool, reason: str | None, as_json: bool) -> None:
    """Note that a task is done, or left out, or add one."""
    if add:
        _step(location, id_, "task.add", as_json, task=name)
    else:
        _step(location, id_, "task.done", as_json, task=name, skipped=bool(reason), text=reason)


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.argument(
    "name", type=click.Choice(("pause", "resume", "extend", "note", "withdraw", "close", "lift", "assign"))
)
@click.option("--text", help="The reason; the person is told that of a pause or an extension.")
@click.option("--to", help="Who works on it, for assign.")
@json_option
def step(location: str | None, id_: str, name: str, as_json: bool, **given: Any) -> None:
    """Pause or resume the clock, extend it, note something, assign, withdraw, close, end a restriction."""
    _step(location, id_, name, as_json, **given)


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.argument("outcome", type=click.Choice(("granted", "partly", "refused")))
@click.option("--ground", "grounds", type=click.Choice(list(GROUNDS)), multiple=True, help="May be repeated.")
@click.option("--text", help="Why; sealed.")
@json_option
def decide(
    location: str | None, id_: str, outcome: str, grounds: tuple[str, ...], text: str | None, as_json: bool
) -> None:
    """Decide: granted, partly (with grounds), or refused (with grounds)."""
    given: dict[str, Any] = {"grounds": list(grounds), "text": text}
    if outcome != "refused":
        given["outcome"] = outcome
    _step(location, id_, "refuse" if outcome == "refused" else "grant", as_json, **given)


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.option(
    "--out", "-o", type=click.Path(), help="Where to write the package (access, copy, portability)."
)
@click.option(
    "--correct",
    "corrections",
    type=(click.Choice(ACTIONS), IDENTIFIER, str),
    multiple=True,
    help="For a correction: what to do with which identifier.",
)
@click.option(
    "--owner", type=(IDENTIFIER, str), help="For `--correct move`: an identifier of its real owner."
)
@click.option("--text", default="", help="What was done outside the center; sealed.")
@json_option
def fulfil(
    location: str | None,
    id_: str,
    out: str | None,
    corrections: tuple[tuple[str, str, str], ...],
    owner: tuple[str, str] | None,
    text: str,
    as_json: bool,
) -> None:
    """Carry out what was granted."""
    if out and Path(out).exists():
        raise CliError("pec.file", f"{out} exists already", "choose another name")
    wishes: list[dict[str, str]] = [{"action": a, "kind": k, "value": v} for a, k, v in corrections]
    for wish in wishes:
        if wish["action"] == "move" and owner:
            wish |= {"target_kind": owner[0], "target_value": owner[1]}
    with open_at(location) as center:
        data = rights_of(center).fulfil(id_, actor(), wishes, text)
    if out:
        _write(out, json.dumps(data["result"], ensure_ascii=False, indent=1))
        data = {"request": data["request"], "file": out}
    emit(
        data,
        as_json,
        lambda d: _shown(d["request"]) if out else facts({**d["result"], "state": d["request"]["state"]}),
    )


@request.command()
@where
@click.argument("id_", metavar="ID")
@click.argument("which", type=click.Choice(LETTERS))
@click.option("--out", "-o", type=click.Path(), required=True, help="Where to write the page.")
@click.option("--language", type=click.Choice(LANGUAGES), default=None, help="Default: the request's.")
@click.option("--text", default="", help="What to add.")
@json_option
def letter(location: str | None, id_: str, which: str, out: str, as_json: bool, **given: Any) -> None:
    """Write a letter to the person, as a page to print or send; its hash is in the ledger."""
    if Path(out).exists():
        raise CliError("pec.file", f"{out} exists already", "choose another name")
    with open_at(location) as center:
        done = rights_of(center).letter(id_, which, given["text"], given["language"] or "", actor())
    _write(out, done["html"])
    emit({"file": out, "sha256": done["sha256"], "leaf": done["leaf"]}, as_json, facts)


def _write(path: str, text: str) -> None:
    """Personal data: for the owner of the file alone."""
    target = Path(path)
    target.touch(mode=0o600, exist_ok=False)
    target.write_text(text, encoding="utf-8")


@request.command()
@where
@click.option("--within", "within_days", default=NEAR_DAYS, show_default=True, type=click.IntRange(0))
@json_option
def deadlines(location: str | None, within_days: int, as_json: bool) -> int:
    """Show what is due soon or overdue. Exit code 1 when something is overdue."""
    with open_at(location) as center:
        data = rights_of(center).deadlines(within_days)
    columns = ("id", "kind", "state", "standing", "due", "days_left", "assigned_to")

    def render(d: dict[str, Any]) -> Any:
        console().print(
            ", ".join(f"{k.replace('_', ' ')}: {n}" for k, n in d["counts"].items()), markup=False
        )
        return table(columns, [[r[c] for c in columns] for r in d["urgent"]])

    emit(data, as_json, render)
    return EXIT_FAILED if data["counts"]["overdue"] else 0


@request.command()
@where
@click.option("--regulation", type=click.Choice(REGULATIONS), help="Set this one's rule; without: show all.")
@click.option("--working-days", type=click.IntRange(1, 365), help="Time in working days.")
@click.option("--extension-working-days", type=click.IntRange(0, 365), help="What an extension adds.")
@click.option("--country", help="Whose public holidays count; ISO 3166, empty: weekends only.")
@click.option("--zone", help="IANA time zone in which days begin.")
@json_option
def rules(location: str | None, regulation: str | None, as_json: bool, **given: Any) -> None:
    """Show or set how time is counted; for requests from then on."""
    with open_at(location) as center:
        rights = rights_of(center)
        found = rights.rules()
        if regulation:
            told = {name: value for name, value in given.items() if value is not None}
            if not told:
                raise click.UsageError("say what to set: --working-days, --country …")
            rule = ClockRule(**{**found.get(regulation, DEFAULTS[regulation].to_json()), **told})
            found = {**found, regulation: rights.put_rule(rule, actor())}
    columns = tuple(DEFAULTS["PIPL"].to_json())
    emit(found, as_json, lambda d: table(columns, [[r[c] for c in columns] for r in d.values()]))


@request.command()
@where
@json_option
def sweep(location: str | None, as_json: bool) -> None:
    """Retention: destroy what names people in requests done for long; drop records after three years."""
    with open_at(location) as center:
        data = rights_of(center).sweep(actor())
    if not data["purged"] and not data["dropped"]:
        note("nothing is old enough")
    emit(data, as_json, facts)
