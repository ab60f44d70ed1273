"""Commands of `pec consent`: run a consent center, import, decide, withdraw, look up, prove.

Works on a center in a directory (`--home H`, the center is in H/consent) or anywhere (`--center DIR or URL`).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from consent_center.client import CenterClient
from consent_center.errors import ConsentError
from consent_center.model import GRANTS, KINDS, REASONS, ConsentEvent, DecisionRequest
from pec.cli_common import CliError, console, emit, json_option, note, progress, table
from pec.consent_options import actor, checkpoint_of, directory, facts, moment, open_at, plain, short, where
from pec.errors import EXIT_FAILED

KIND = click.Choice(KINDS)
_ACTIONS = {"grant": "granted", "deny": "denied", "withdraw": "withdrawn", "renew": "renewed"}


# -- the center itself -------------------------------------------------------------------------------------


@click.command()
@where
@click.option("--controller", required=True, help="Name of the organisation that answers for the data.")
@click.option(
    "--database",
    metavar="URL",
    envvar="PEC_CONSENT_DATABASE",
    help="postgresql://USER:PASSWORD@HOST:PORT/NAME of an empty database; default: SQLite in the directory.",
)
@json_option
def init(location: str | None, controller: str, database: str | None, as_json: bool) -> None:
    """Make a new consent center."""
    from consent_center.center import Center

    path = directory(location)
    with Center.create(path, controller, database=database or None) as center:
        data = {"center": str(path), "controller": center.controller, "verifier_key": center.verifier_key()}
    emit(data, as_json, facts)


@click.command()
@where
@click.option("--to", "revision", default="head", show_default=True, help="Revision to move up to.")
@click.option("--down", metavar="REV", help="Move down to that revision; what newer ones added is lost.")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit code 1 unless it is current.")
@json_option
def migrate(location: str | None, revision: str, down: str | None, only_check: bool, as_json: bool) -> int:
    """Bring a center's database to this program's schema. Make a backup first; nobody can write meanwhile."""
    from consent_center import schema
    from consent_center.registry import UNASSESSED, assessments_required
    from consent_center.storage import open_database

    database = open_database(directory(location))
    try:
        with database.read() if only_check else database.write() as connection:
            if only_check:
                before = after = schema.current(connection)
            else:
                before, after = schema.migrate(connection, down or revision)
            required = assessments_required(connection) if after == schema.head() else True
    finally:
        database.close()
    data = {"database": database.dialect, "before": before, "now": after, "newest": schema.head()}
    if required is not True:
        data["warning"] = UNASSESSED[required]
    emit(data, as_json, facts)
    return EXIT_FAILED if only_check and after != schema.head() else 0


@click.command()
@where
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback only.")
@click.option(
    "--port", default=8900, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
@click.option(
    "--threads", default=16, show_default=True, type=click.IntRange(1, 256), help="Of each process."
)
@json_option
def serve(location: str | None, host: str, port: int, workers: int, threads: int, as_json: bool) -> None:
    """Serve the center over REST on this machine, until interrupted.

    The first lines of output say where: the calls (/docs describes them), the console, the token file.
    """
    from consent_center.registry import UNASSESSED
    from consent_center.rest.server import Address
    from consent_center.rest.workers import serve as run_server

    with open_at(location) as center:
        required = center.assessments_required()
    if required is not True:
        note(f"warning: {UNASSESSED[required]}")

    def ready(address: Address) -> None:
        data = {
            "url": address.url,
            "console": f"{address.url}/console/",
            "token_file": str(address.token_file),
            "center": address.location,
        }
        lines = ("{url}/docs", "console: {console}", "token file: {token_file}", "--center {center}")
        emit(data, as_json, lambda d: "\n".join(lines).format(**d))
        sys.stdout.flush()
        note("stop with Ctrl-C")

    run_server(directory(location), host, port, workers, threads, ready)


# -- events ------------------------------------------------------------------------------------------------


@click.command("import")
@where
@click.argument("file", type=click.Path())
@click.option(
    "--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Column of a field; repeatable."
)
@click.option("--timezone", default="UTC", show_default=True, help="Of times without an offset from UTC.")
@json_option
def import_(location: str | None, file: str, mapping: tuple[str, ...], timezone: str, as_json: bool) -> int:
    """Import consent events from CSV or JSON lines.

    Rows that can't be recorded are written to FILE.errors.csv with what to do; all others are recorded. The
    exit code is 1 when rows were rejected.
    """
    from consent_center.center import Center
    from consent_center.importer import import_events
    from consent_center.state_file import KEEP_AFTER

    pairs = dict(m.partition("=")[::2] for m in mapping)
    if not all(k and v for k, v in pairs.items()):
        raise click.BadParameter("write --map phone=mobile_number", param_hint="--map")
    with open_at(location) as center, progress(f"importing {Path(file).name}") as bar:
        report = import_events(center, file, pairs, bar.update, timezone)
        if isinstance(center, Center):
            center.keep_state(KEEP_AFTER)  # so that the next start need not read all states
    data = {k: v for k, v in report.to_json().items() if k != "errors"}
    emit(data, as_json, lambda d: _import_table(d))
    return EXIT_FAILED if report.rejected else 0


def _import_table(data: dict[str, Any]) -> Any:
    rows = [("read", data["read"]), ("recorded", data["recorded"]), ("rejected", data["rejected"])]
    rows += [(f"  {code}", n) for code, n in sorted(data["codes"].items())]
    console().print(table(("rows", ""), rows))
    if data["errors_path"]:
        console().print(f"What to do about each rejected row: {data['errors_path']}", markup=False)
    if data["ignored_columns"]:
        console().print(f"Columns not used: {', '.join(data['ignored_columns'])}", markup=False)


def _event(center: CenterClient, action: str, kind: str, value: str, given: dict[str, Any]) -> ConsentEvent:
    """An event with what the command line leaves out filled in: newest purpose, all its categories, now."""
    versions = [p for p in center.purposes() if p.id == given["purpose_id"]]
    if not versions:
        raise CliError(
            "pec.input", f"no purpose {given['purpose_id']!r} is registered", "see: pec consent purpose list"
        )
    newest = max(versions, key=lambda p: p.version)
    notice_id, notice_version = given.get("notice_id") or "", 0
    if notice_id:
        notice_version = max((n.version for n in center.notices() if n.id == notice_id), default=0)
    return ConsentEvent(
        identifiers=((kind, value),),
        purpose=newest.id,
        purpose_version=newest.version,
        action=action,
        recipient=given["recipient"],
        categories=given["categories"] or newest.categories,
        occurred_at=given["occurred_at"] or datetime.now(UTC),
        notice=notice_id,
        notice_version=notice_version,
        channel=given["channel"],
        evidence=given.get("evidence") or "",
        actor=actor(),
        expires_at=given.get("expires_at"),
        birth_date=given.get("birth_date"),
    )


@click.command()
@where
@click.argument("action", type=click.Choice(list(_ACTIONS)))
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--purpose", "purpose_id", required=True)
@click.option("--recipient", required=True)
@click.option("--category", "categories", multiple=True, help="Default: all of the purpose; may be repeated.")
@click.option("--notice", "notice_id", help="Notice that the person saw (its newest version).")
@click.option("--at", "occurred_at", metavar="TIME", help="When it happened; default: now.")
@click.option("--expires", "expires_at", metavar="TIME", help="End of the consent.")
@click.option("--birth-date", metavar="YYYY-MM-DD", help="Needed for people under 14.")
@click.option("--guardian", is_flag=True, help="The guardian consents for a person under 14.")
@click.option("--channel", default="cli", show_default=True)
@click.option("--evidence", help="Proof, kept encrypted under the person's own key.")
@json_option
def record(
    location: str | None, action: str, kind: str, value: str, guardian: bool, as_json: bool, **given: Any
) -> None:
    """Record that one person grants, denies, withdraws or renews."""
    if guardian and action != "grant":
        raise click.UsageError("--guardian goes with grant only")
    given["occurred_at"] = moment(given["occurred_at"], "--at")
    given["expires_at"] = moment(given["expires_at"], "--expires")
    if given["birth_date"]:
        try:
            given["birth_date"] = date.fromisoformat(given["birth_date"])
        except ValueError as error:
            raise click.BadParameter("write YYYY-MM-DD", param_hint="--birth-date") from error
    with open_at(location) as center:
        done = center.record(
            _event(center, "guardian_granted" if guardian else _ACTIONS[action], kind, value, given)
        )
    emit(plain(done), as_json, lambda d: f"recorded as event {d['sequence']} (ledger leaf {d['leaf_index']})")


@click.command()
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@click.option("--purpose", "purpose_id", help="Needed, but for --all.")
@click.option("--recipient", help="Needed, but for --all.")
@click.option(
    "--all", "everywhere", is_flag=True, help="All that the person granted (of --purpose, if given)."
)
@click.option("--at", "occurred_at", metavar="TIME", help="When it happened; default: now.")
@click.option("--channel", default="cli", show_default=True)
@json_option
def withdraw(
    location: str | None, kind: str, value: str, everywhere: bool, as_json: bool, **given: Any
) -> None:
    """Record that one person withdraws consent. Effective at once, in running jobs too."""
    given |= {"occurred_at": moment(given["occurred_at"], "--at"), "categories": ()}
    if everywhere == bool(given["recipient"]) or not (everywhere or given["purpose_id"]):
        raise click.UsageError("give --purpose and --recipient, or --all without --recipient")
    with open_at(location) as center:
        if everywhere:
            emit(_withdraw_all(center, kind, value, given), as_json, _withdrawn)
            return
        known = _is_known(center, kind, value)
        done = center.record(_event(center, "withdrawn", kind, value, given))
    if not known:
        note(f"nobody with that {kind} was known here before: if that is unexpected, look for a typing error")
    data = {**plain(done), "known_before": known}
    emit(data, as_json, lambda d: f"withdrawn: event {d['sequence']} (ledger leaf {d['leaf_index']})")


def _withdraw_all(center: CenterClient, kind: str, value: str, given: dict[str, Any]) -> dict[str, Any]:
    """One event for each recipient and purpose, at one time."""
    at = given["occurred_at"] or datetime.now(UTC)
    done = []
    for state in center.explain(kind, value).states:
        if state["action"] not in GRANTS or given["purpose_id"] not in (None, state["purpose"]):
            continue
        about = {name: state[name] for name in ("purpose", "recipient", "regulation")}
        more = {"purpose_id": state["purpose"], "recipient": state["recipient"], "occurred_at": at}
        event = _event(center, "withdrawn", kind, value, {**given, **more})
        done.append({**about, **plain(center.record(replace(event, regulation=state["regulation"])))})
    return {"withdrawn": done}


def _withdrawn(told: dict[str, Any]) -> Any:
    names = ("purpose", "recipient", "regulation", "sequence", "leaf_index")
    if not told["withdrawn"]:
        return "nothing to withdraw: the person has no consent in force there"
    return table(names, [tuple(one[name] for name in names) for one in told["withdrawn"]])


def _is_known(center: CenterClient, kind: str, value: str) -> bool:
    try:
        center.explain(kind, value)
    except ConsentError as error:
        if error.code != "subject.unknown":
            raise
        return False
    return True


@click.command()
@where
@click.argument("kind", type=KIND)
@click.argument("values", nargs=-1)
@click.option("--purpose", "purpose_id", required=True)
@click.option("--recipient", required=True)
@click.option("--category", "categories", multiple=True, required=True, help="May be repeated.")
@click.option(
    "--file", type=click.Path(), help="One identifier a line, instead of VALUES (`-`: standard input)."
)
@click.option("--as-of", metavar="TIME", help="Judge ends and birthdays at this time; default: now.")
@json_option
def decide(
    location: str | None,
    kind: str,
    values: tuple[str, ...],
    purpose_id: str,
    recipient: str,
    categories: tuple[str, ...],
    file: str | None,
    as_of: str | None,
    as_json: bool,
) -> None:
    """May RECIPIENT have these people's data for PURPOSE? Counts by reason; single answers for up to 20."""
    import pyarrow as pa

    if bool(values) == bool(file):
        raise click.UsageError("give VALUES or --file")
    if file:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
        values = tuple(text.splitlines())
    request = DecisionRequest(purpose_id, recipient, categories, moment(as_of, "--as-of"))
    with open_at(location) as center:
        decisions = center.decide(request, pa.array(values, pa.string()), kind)
    if decisions.detail:
        note(f"not decided: {decisions.detail}")
    data: dict[str, Any] = {"sequence": decisions.sequence, **decisions.counts(), "detail": decisions.detail}
    if len(values) <= 20:
        data["reasons"] = [REASONS[code] for code in decisions.codes.tolist()]
    rows = [("in", data["in"]), *((f"out: {reason}", n) for reason, n in data["out"].items())]
    singles = zip(values, data.get("reasons", []), strict=False)
    emit(data, as_json, lambda _: table(("people", ""), [*rows, *singles]))


@click.command()
@where
@click.argument("kind", type=KIND)
@click.argument("value")
@json_option
def show(location: str | None, kind: str, value: str, as_json: bool) -> None:
    """Show all that the center holds about one person: for requests to access (PIPL 45)."""
    with open_at(location) as center:
        data = plain(center.explain(kind, value))

    def render(d: dict[str, Any]) -> None:
        console().print(f"subject {d['subject']}, known by: {', '.join(d['identifiers'])}", markup=False)
        for title, names in _SHOWN.items():
            rows = [[_cell(name, entry.get(name)) for name in names] for entry in d[title]]
            console().print(table([n.replace("_", " ") for n in names], rows, title=title))
        console().print("Every field, evidence included: --json")

    emit(data, as_json, render)


_SHOWN = {
    "states": ("purpose", "recipient", "action", "categories", "regulation", "occurred_at", "expires_at"),
    "events": (
        "sequence",
        "occurred_at",
        "action",
        "purpose",
        "recipient",
        "notice",
        "channel",
        "method",
        "leaf",
    ),
}


def _cell(name: str, value: Any) -> Any:
    if name.endswith("_at") and value:
        return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return short(value)


# -- ledger ------------------------------------------------------------------------------------------------


@click.command()
@where
@json_option
def checkpoint(location: str | None, as_json: bool) -> None:
    """Print the signed checkpoint of the ledger and the key that verifies it."""
    with open_at(location) as center:
        data = {"checkpoint": center.checkpoint(), "verifier_key": center.verifier_key()}
    emit(data, as_json, lambda d: f"{d['checkpoint']}\nverifier key: {d['verifier_key']}")


@click.command()
@where
@click.argument("index", type=click.IntRange(0))
@click.option("--size", type=click.IntRange(1), help="Size of the log; default: as of now.")
@json_option
def prove(location: str | None, index: int, size: int | None, as_json: bool) -> None:
    """Prove that leaf INDEX is in the ledger, and open it as far as it was not erased."""
    with open_at(location) as center:
        note_ = center.checkpoint()
        size = size or int(note_.split("\n")[1])
        data = {
            "index": index,
            "size": size,
            "proof": [h.hex() for h in center.prove(index, size)],
            "opening": center.opening(index),
            "checkpoint": note_,
            "verifier_key": center.verifier_key(),
        }
    emit(data, as_json, facts)


@click.command()
@where
@click.option(
    "--checkpoint",
    "known",
    type=click.Path(),
    metavar="FILE",
    help="A checkpoint kept elsewhere: finds a log put back or rewritten since (`-`: standard input).",
)
@json_option
def fsck(location: str | None, known: str | None, as_json: bool) -> int:
    """Compare the database with the ledger. Exit code 1 names the first record changed, removed or moved.

    FILE is what `pec consent checkpoint` printed, with or without --json.
    """
    with open_at(location) as center, progress("checking"):
        found = center.fsck(checkpoint_of(known) if known else "")
    data = {"ok": found is None, "finding": None if found is None else plain(found)}
    emit(data, as_json, lambda d: "all records agree with the ledger" if d["ok"] else facts(d["finding"]))
    return 0 if found is None else EXIT_FAILED
