"""`pec consent signal`, `pec consent receipt`, `pec consent verify`."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from consent_center.model import KINDS
from consent_center.receipts.verify import MAX_BYTES, dumps
from consent_center.receipts.verify import verify as verify_receipt
from consent_center.signals import events, mapping
from consent_center.signals.signal import read_any, read_request
from pec.cli_common import CliError, console, emit, json_option, table
from pec.consent_options import actor, document, facts, open_at, short, where


@click.group()
def signal() -> None:
    """What other systems say of a person's will: IAB TCF and GPP strings, Sec-GPC."""


@signal.command("decode")
@click.argument("string")
@json_option
def signal_decode(string: str, as_json: bool) -> None:
    """Show what a TC string or a GPP string says (`-`: standard input). Needs no center."""
    text = sys.stdin.read(20_000) if string == "-" else string
    emit(read_any(text).to_json(), as_json, _decoded)


def _decoded(data: dict[str, Any]) -> None:
    console().print(facts({"kind": data["kind"], "sha256": data["sha256"]}))
    if "tcf" in data:
        console().print(facts({k: short(v) for k, v in data["tcf"].items()}))
    for name, section in data.get("gpp", {}).get("sections", {}).items():
        rows = [(k, short(v)) for k, v in section.items()]
        console().print(table(("field", "value"), rows, title=name))
    for number in data.get("gpp", {}).get("unknownSections", {}):
        console().print(f"section {number} is not known here and was not read", markup=False)


@signal.command("record")
@where
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("value")
@click.option("--tc-string", help="TC string, as the consent platform made it.")
@click.option("--gpp-string", help="GPP string.")
@click.option("--gpc", is_flag=True, help="The browser sent Sec-GPC: 1.")
@click.option("--map", "map_file", metavar="FILE", help="Table to use instead of the center's.")
@click.option("--channel", default="web", show_default=True)
@json_option
def signal_record(
    location: str | None,
    kind: str,
    value: str,
    tc_string: str | None,
    gpp_string: str | None,
    gpc: bool,
    map_file: str | None,
    channel: str,
    as_json: bool,
) -> None:
    """Record what a person's signals say, by the center's table, with the raw string as evidence."""
    found = read_request((tc_string or "").strip(), (gpp_string or "").strip(), gpc)
    with open_at(location) as center:
        rules = mapping.parse(document(map_file) if map_file else center.signal_mapping())
        purposes, notices = center.purposes(), center.notices()
        who = ((kind, value),)
        made, outcomes = events.to_events(
            found, rules, who, purposes, notices, datetime.now(UTC), channel, actor()
        )
        recorded = events.record(center, made)
    data = {"outcomes": events.outcomes_to_json(outcomes), "events": recorded}
    names = ("purpose", "recipient", "regulation", "outcome", "because")
    emit(
        data,
        as_json,
        lambda d: table(names, [[short(o[n]) for n in names] for o in d["outcomes"]]),
    )


@signal.command("map")
@where
@click.argument("file", required=False)
@json_option
def signal_map(location: str | None, file: str | None, as_json: bool) -> None:
    """Put the table in FILE in force: what signals mean for this center's purposes. Without FILE: show it."""
    with open_at(location) as center:
        data = center.put_signal_mapping(document(file), actor()) if file else center.signal_mapping()
    emit(data, as_json, lambda d: json.dumps(d, ensure_ascii=False, indent=2))


@click.command()
@where
@click.option("--event", "sequence", type=click.IntRange(1), required=True, help="Number of the event.")
@click.option("-o", "--output", type=click.Path(), required=True, help="File to write.")
@click.option(
    "--with",
    "identifiers",
    nargs=2,
    multiple=True,
    metavar="KIND VALUE",
    help="Put an identifier of the person in, because the person asks; may be repeated.",
)
@json_option
def receipt(
    location: str | None,
    sequence: int,
    output: str,
    identifiers: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Write the signed receipt of one event (ISO/IEC TS 27560). The person appears as a pseudonym."""
    with open_at(location) as center:
        made = center.receipt(sequence, identifiers)
    path = Path(output)
    work = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Only the owner may read it: the person's identifiers may be in it.
        with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(dumps(made))
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)
    data = {
        "file": str(path),
        "event": sequence,
        "id": made["@id"],
        "verifier_key": made["pec:ledger"]["verifierKey"],
    }
    emit(data, as_json, facts)


@click.command()
@click.argument("file", type=click.Path())
@click.option("--key", metavar="KEY|FILE", help="The center's verifier key, got over another way.")
@json_option
def verify(file: str, key: str | None, as_json: bool) -> None:
    """Check a receipt offline: its record, its place in the ledger, its signature."""
    with Path(file).open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if key and "+" not in key:
        try:
            key = Path(key).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise CliError("pec.input", "the key's file is no text", "give the verifier key") from error
    done = verify_receipt(data, key)
    status = done.record["dpv:hasConsentStatus"][0]
    process = done.record["dpv:hasProcess"]
    result = {
        "ok": True,
        "center": done.center,
        "key": "given" if done.key_given else "from the file: ask the center for its key and use --key",
        "event": done.sequence,
        "leaf": done.leaf,
        "log_size": done.log_size,
        "action": status["pec:action"],
        "at": status["dpv:isIndicatedAtTime"],
        "purpose": process["dpv:hasPurpose"]["dct:identifier"],
        "recipient": process["dpv:hasRecipient"]["dpv:hasName"],
        "categories": [c["dct:identifier"] for c in process["dpv:hasPersonalData"]],
    }
    emit(result, as_json, facts)
