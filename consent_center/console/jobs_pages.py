"""Jobs: who was in and who was out and why, under which snapshot, and what each lease check found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from flask import Response, request

from consent_center import database as db
from consent_center.console import charts
from consent_center.console.base import bp, embedded, field, page, who
from consent_center.console.dashboard import figures, titles
from consent_center.console.figures import Job
from consent_center.console.words import word
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.ledger.verify import disclosure as check_disclosure
from consent_center.ledger.verify import token as check_token
from consent_center.model import KINDS

_PAGE = 50


@dataclass(frozen=True)
class Taken:
    """One snapshot: the signed document, the counts that stay here, and whether they fit each other."""

    document: dict[str, Any]
    counts: dict[str, Any]
    fits: bool
    chart: Any

    @property
    def total(self) -> int:
        return int(self.counts.get("in", 0)) + sum(map(int, self.counts.get("out", {}).values()))


def taken(job: Job) -> list[Taken]:
    """The job's snapshots with their counts."""
    ids = [str(document["id"]) for document in job.snapshots]
    table = db.snapshots
    with embedded().room.read() as connection:
        query = sa.select(table.c.id, table.c.disclosure).where(table.c.id.in_(ids))
        found = {row.id: json.loads(row.disclosure) for row in connection.execute(query)}
    shown = []
    for document in job.snapshots:
        disclosure = found.get(str(document["id"]), {})
        try:
            check_disclosure(document, disclosure)
            fits = True
        except (ConsentError, KeyError, TypeError):
            fits = False
        counts = disclosure.get("counts", {"in": 0, "out": {}})
        rows = [(word("eligible"), counts["in"])]
        rows += [(word(reason), n) for reason, n in sorted(counts["out"].items(), key=lambda item: -item[1])]
        chart = charts.bars(rows, _("Who was in, and who was out and why"), word("eligible"))
        shown.append(Taken(document, counts, fits, chart))
    return shown


@bp.get("/jobs")
def jobs() -> Response:
    """Newest first; `?state=` and `?page=` narrow down."""
    found, state = figures().jobs(), request.args.get("state", "")
    states = sorted({job.state for job in found})
    if state:
        found = [job for job in found if job.state == state]
    text = request.args.get("page", "1")
    number = max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 6 else 1
    shown = found[(number - 1) * _PAGE : number * _PAGE]
    return page(
        "jobs.html",
        jobs=shown,
        states=states,
        state=state,
        number=number,
        more=len(found) > number * _PAGE,
        names=titles(),
    )


def known_job(id: str) -> Job:
    found = figures().job(id)
    if found is None:
        raise ConsentError("request.not_found", f"the ledger knows no job {id!r}")
    return found


@bp.get("/jobs/<job>")
def job(job: str) -> Response:
    return _job(known_job(job), None)


@bp.post("/jobs/<job>")
def job_was_in(job: str) -> Response:
    """Was this person in it?"""
    found = known_job(job)
    return _job(found, _was_in(found))


def _job(found: Job, answer: dict[str, Any] | None) -> Response:
    return page("job.html", job=found, taken=taken(found), names=titles(), kinds=KINDS, answer=answer)


def _was_in(job: Job) -> dict[str, Any]:
    """Whether a person's token was in each of the job's snapshots, with the proof."""
    kind, value = field("kind", 20), field("value", 1_000)
    center, found = embedded(), []
    for document in job.snapshots:
        proof = center.token_proof(str(document["id"]), kind, value)
        inside = check_token(document, proof)
        found.append({"snapshot": document["id"], "inside": inside, "proof": json.dumps(proof, indent=1)})
    center.accounts.note(who().name, "job.was_in", job.id, kind=kind)
    return {"found": found}
