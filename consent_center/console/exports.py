"""What leaves the console: tables as CSV, and evidence of a person or a job as one printable HTML file.

An evidence file stands alone: texts, hashes, the leaves with their audit paths, the signed checkpoint and the
key. Each export is a leaf of the ledger with the file's SHA-256, so that a forgery can be told later.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Response, render_template, request

from consent_center import database as db
from consent_center.analytics.service import LEAST
from consent_center.batch import moment
from consent_center.console import references
from consent_center.console.base import bp, embedded, page, who
from consent_center.console.dashboard import figures, titles
from consent_center.console.jobs_pages import known_job, taken
from consent_center.console.people import answers, story
from consent_center.errors import ConsentError
from consent_center.room import Room

_STEP = 5_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STYLE = (Path(__file__).parent / "static" / "evidence.css").read_text(encoding="utf-8")
TABLES = ("consents", "events", "purposes", "notices", "jobs", "activity")


def cell(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def csv_rows(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """CSV with a byte order mark, which Excel needs for Chinese."""
    out = io.StringIO()
    writer = csv.writer(out)
    out.write("\ufeff")
    writer.writerow(list(header))
    for row in rows:
        writer.writerow([cell(value) for value in row])
        if out.tell() > 1 << 16:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


@bp.get("/exports")
def exports() -> Response:
    return page("exports.html", today=datetime.now(UTC).date(), tables=TABLES)


@bp.get("/exports/<table>.csv")
def export_csv(table: str) -> Response:
    if table not in TABLES:
        raise ConsentError("request.not_found", f"no export {table!r}; there are {', '.join(TABLES)}")
    first, last = _day("from"), _day("to")
    header, rows = _TABLES[table](first, last) if table == "events" else _TABLES[table]()
    embedded().accounts.note(who().name, "export.csv", "", table=table)
    response = Response(csv_rows(header, rows), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{table}.csv"'
    return response


def _day(name: str) -> date | None:
    text = request.args.get(name, "")
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConsentError("request.invalid", f"{name} is a day such as 2026-03-01") from error


Rows = tuple[list[str], Iterable[Iterable[Any]]]


def _consents() -> Rows:
    """Few people are no number but words: no figure that leaves the house is about few."""
    numbers = ("people", "outdated")
    rows = [
        (row["purpose"], row["recipient"], *(f"<{LEAST}" if row[n] is None else row[n] for n in numbers))
        for row in figures().in_force()
    ]
    return ["purpose", "recipient", "people_in_force", "people_to_ask_again"], rows


def _events(first: date | None = None, last: date | None = None) -> Rows:
    """Without subject, evidence or actor: what is shared by many, and the leaf."""
    header = ["sequence", "leaf", "occurred_at", "recorded_at", "expires_at", *_DESCRIBED]
    # The center is taken here: the rows are read while the answer is sent, outside of the request.
    return header, _event_rows(embedded().room, first, last)


_DESCRIBED = ["action", "purpose", "purpose_version", "notice", "notice_version", "recipient", "categories"]
_DESCRIBED += ["regulation", "channel", "method"]


def _event_rows(room: Room, first: date | None, last: date | None) -> Iterator[Iterable[Any]]:
    table, catalogue, after = db.events, dict[int, dict[str, Any]](), 0
    low = None if first is None else int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp())
    high = None if last is None else int(datetime(last.year, last.month, last.day, tzinfo=UTC).timestamp())
    while True:
        query = sa.select(
            table.c.sequence,
            table.c.leaf,
            table.c.descriptor,
            table.c.occurred_at,
            table.c.recorded_at,
            table.c.expires_at,
        ).where(table.c.sequence > after)
        if low is not None:
            query = query.where(table.c.occurred_at >= low * 1_000_000)
        if high is not None:
            query = query.where(table.c.occurred_at < (high + 86_400) * 1_000_000)
        with room.read() as connection:
            rows = connection.execute(query.order_by(table.c.sequence).limit(_STEP)).all()
            missing = sorted({int(row.descriptor) for row in rows} - set(catalogue))
            for part in db.chunks(missing):
                found = connection.execute(sa.select(db.descriptors).where(db.descriptors.c.id.in_(part)))
                catalogue |= {int(row.id): json.loads(row.body) for row in found}
        for row in rows:
            told = catalogue[int(row.descriptor)]
            shown = [told.get(name, "") for name in _DESCRIBED]
            shown = [";".join(value) if isinstance(value, list) else value for value in shown]
            times = [moment(row.occurred_at), moment(row.recorded_at), moment(row.expires_at)]
            yield [row.sequence, row.leaf, *times, *shown]
        if len(rows) < _STEP:
            return
        after = int(rows[-1].sequence)


def _purposes() -> Rows:
    header = ["id", "version", "title_zh", "title_en", "categories", "recipient_kinds", "legal_basis"]
    header += ["separate_consent", "duration_days", "needs_guardian", "active", "dpv"]
    rows = [
        (p.id, p.version, p.title.get("zh"), p.title.get("en"), ";".join(p.categories))
        + (";".join(p.recipient_kinds), p.legal_basis, p.separate_consent, p.duration_days)
        + (p.needs_guardian, p.active, p.dpv)
        for p in embedded().purposes()
    ]
    return header, rows


def _notices() -> Rows:
    header = ["id", "version", "purpose", "purpose_version", "material", "sha256", "text_zh", "text_en"]
    rows = [
        (
            n.id,
            n.version,
            n.purpose,
            n.purpose_version,
            n.material,
            n.hash,
            n.text.get("zh"),
            n.text.get("en"),
        )
        for n in embedded().notices()
    ]
    return header, rows


def _jobs() -> Rows:
    header = ["job", "state", "role", "peer", "snapshot", "purpose", "recipient", "sequence", "in", "out"]
    rows = []
    for job in figures().jobs():
        for one in taken(job):
            document = one.document
            out = json.dumps(one.counts.get("out", {}), sort_keys=True)
            rows.append(
                [job.id, job.state, job.role, job.peer, document["id"], document["purpose"]]
                + [document["recipient"], document["sequence"], one.counts.get("in", 0), out]
            )
    return header, rows


def _activity() -> Rows:
    rows = []
    for leaf, act in figures().acts():
        rest = {k: v for k, v in act.items() if k not in ("actor", "action", "subject", "at")}
        details = json.dumps(rest, ensure_ascii=False, sort_keys=True)
        rows.append((leaf, moment(act["at"]), act["actor"], act["action"], act["subject"], details))
    return ["leaf", "at", "actor", "action", "subject", "details"], rows


_TABLES: dict[str, Any] = {
    "consents": _consents,
    "events": _events,
    "purposes": _purposes,
    "notices": _notices,
    "jobs": _jobs,
    "activity": _activity,
}


@bp.get("/people/<reference>/evidence")
def person_evidence(reference: str) -> Response:
    """One person's story, printable, with what proves it."""
    subject = references.unseal(reference)
    told, steps = story(subject)
    leaves = _proven(int(step.event["leaf"]) for step in steps)
    return _evidence(
        "person", "person", told=told, steps=steps, leaves=leaves, answers=answers(subject, told)
    )


@bp.get("/jobs/<job>/evidence")
def job_evidence(job: str) -> Response:
    """One job's story: who was in and out and why, each lease check, with what proves it."""
    found = known_job(job)
    numbers = [leaf for part in (found.states, found.checks, found.stages) for leaf, _payload in part]
    numbers += [found.closing] if found.closing is not None else []
    leaves = _proven(sorted(numbers))
    return _evidence("job", found.id, job=found, taken=taken(found), leaves=leaves)


def _proven(numbers: Iterable[int]) -> dict[str, Any]:
    """Openings and audit paths of leaves, and the checkpoint that they lead to."""
    center = embedded()
    checkpoint = center.checkpoint()
    size = int(checkpoint.split("\n")[1])
    listed = []
    for number in numbers:
        path = [step.hex() for step in center.prove(number, size)]
        listed.append({"opening": center.opening(number), "path": path})
    return {"checkpoint": checkpoint, "key": center.verifier_key(), "leaves": listed}


def _evidence(kind: str, subject: str, **values: Any) -> Response:
    made = datetime.now(UTC)
    text = render_template(
        f"console/evidence_{kind}.html", style=_STYLE, made=made, names=titles(), by=who().name, **values
    )
    data = text.encode("utf-8", "replace")
    digest = hashlib.sha256(data).hexdigest()
    noted = subject if kind == "job" else ""
    embedded().accounts.note(who().name, f"export.{kind}", noted, format="html", sha256=digest)
    response = Response(data, content_type="text/html; charset=utf-8")
    name = f"evidence-{kind}-{made:%Y%m%d-%H%M%S}.html"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
